package app

import (
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"net/url"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
	"time"

	"periph.io/x/conn/v3/gpio"

	"gatehouse/cmd/internal/config"
	"gatehouse/device/sim"
	"gatehouse/edge"
	"gatehouse/edge/console/accounts"
	firmwareconfig "gatehouse/firmware-config"
)

// An installer at the mast, on a gate with everything simulated but itself: the
// devices page tells how each is, the live page what each reads, and the buttons
// move lamps and barrier, on record, and not while somebody stands in the beam.
func TestTheInstallersPages(t *testing.T) {
	dir := t.TempDir()
	pol, err := firmwareconfig.Samples.ReadFile("policies/normal-times.yaml")
	if err != nil {
		t.Fatal(err)
	}
	port := filepath.Join(dir, "reader")
	line, err := sim.NewSerial(port)
	if err != nil {
		t.Fatal(err)
	}
	defer line.Close()
	yaml := fmt.Sprintf(`
community: c
site: s
gate: g
state: state
policy: policy.yaml
console: {listen: '127.0.0.1:0'}
passages: [{name: main, barrier: {driver: relay, pin: BARRIER, pulse: 50ms}, beam: {driver: gpio, pin: BEAM, active: low, pull: up, debounce: 5ms}, open_for: 300ms}]
lanes: [{name: in, passage: main, direction: in, scanner: {driver: rdm6300, port: %q}, thermometer: none, indicator: {driver: lamps, go: GO, stop: STOP, wait: WAIT, buzzer: BUZZ}}]
`, port)
	for name, text := range map[string]string{"policy.yaml": string(pol), "gate.yaml": yaml} {
		if err := os.WriteFile(filepath.Join(dir, name), []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	cfg, err := config.Load(filepath.Join(dir, "gate.yaml"))
	if err != nil {
		t.Fatal(err)
	}
	pins := sim.NewPins()
	pins.Pin("BEAM").Drive(gpio.High)
	a, err := Build(t.Context(), cfg, Options{Version: "v9.9", Log: slog.New(slog.DiscardHandler), TrustClock: true, Pins: pins.Open})
	if err != nil {
		t.Fatal(err)
	}
	if _, _, err := a.People.Add(t.Context(), "test", accounts.Person{Number: 1, Name: "m", Role: accounts.Manager}, "246813"); err != nil {
		t.Fatal(err)
	}
	if _, _, err := a.People.Add(t.Context(), "test", accounts.Person{Number: 5, Name: "i", Role: accounts.Installer}, "246813"); err != nil {
		t.Fatal(err)
	}
	runApp(t, a)
	until(t, "the lane runs", func() bool { return pins.Pin("BARRIER").IsOutput() && pins.Pin("BARRIER").Level() == gpio.Low })
	token, _, err := a.People.Login(t.Context(), accounts.Login{Who: "5", Secret: "246813"})
	if err != nil {
		t.Fatal(err)
	}
	handler := a.Console.Handler()
	ask := func(method, path string, form url.Values) (int, string) {
		var body io.Reader
		if form != nil {
			body = strings.NewReader(form.Encode())
		}
		r := httptest.NewRequest(method, path, body)
		r.AddCookie(&http.Cookie{Name: "gatehouse", Value: token.Session})
		r.Header.Set("Accept", "text/html")
		if form != nil {
			r.Header.Set("Content-Type", "application/x-www-form-urlencoded")
		}
		w := httptest.NewRecorder()
		handler.ServeHTTP(w, r)
		return w.Code, w.Body.String()
	}
	once := regexp.MustCompile(`name="once" value="([^"]+)"`)
	try := func(what string) (int, string) {
		_, page := ask("GET", "/devices", nil)
		m := once.FindStringSubmatch(page)
		if m == nil {
			t.Fatalf("nothing can be tried: %s", page)
		}
		return ask("POST", "/devices", url.Values{"lane": {"in"}, "test": {what}, "once": {m[1]}})
	}
	if code, page := ask("GET", "/devices", nil); code != http.StatusOK || !strings.Contains(page, "v9.9") || !strings.Contains(page, a.Policies.Hash()) || !strings.Contains(page, "rdm6300") {
		t.Errorf("%d %s", code, page)
	}

	// Live readings: a card, of which the installer sees the end, and the beam.
	if _, page := ask("GET", "/devices/raw", nil); strings.Contains(page, "em ") {
		t.Errorf("read before anybody looked: %s", page)
	}
	reader := sim.NewRDM6300(line, 1)
	until(t, "the card is on the page", func() bool {
		if err := reader.Hold(t.Context(), sim.EM4100{0x3C, 0x00, 0xCE, 0x75, 0x4C}, 100*time.Millisecond); err != nil {
			t.Fatal(err)
		}
		_, page := ask("GET", "/devices/raw", nil)
		if strings.Contains(page, "CE754C") {
			t.Fatal("the installer is shown the card's number")
		}
		return strings.Contains(page, "em ••••••••4C")
	})
	idle := func() bool {
		v := a.Lanes.Views()[0]
		return v.State == edge.LaneIdle && v.Test == "" && v.Queue == 0
	}
	until(t, "the unknown card has gone", func() bool {
		if c := a.Lanes.Views()[0].Current; c != nil {
			_ = a.Lanes.Do(t.Context(), edge.Action{Kind: edge.ActCancel, Lane: "in", Presentation: c.ID, Actor: "guard:7"})
		}
		return idle()
	})

	opened := func() (n int) {
		for _, m := range pins.Pin("BARRIER").Moves() {
			if m.Level == gpio.High {
				n++
			}
		}
		return n
	}
	before := opened()
	pins.Pin("BEAM").Drive(gpio.Low)
	until(t, "the beam is seen broken", func() bool {
		_, page := ask("GET", "/devices/raw", nil)
		return strings.Contains(page, "动作 · 累计 1 次")
	})
	until(t, "the beam keeps the barrier shut", func() bool { code, _ := try("barrier"); return code == http.StatusConflict })
	pins.Pin("BEAM").Drive(gpio.High)
	until(t, "the beam is seen whole", func() bool {
		_, page := ask("GET", "/devices/raw", nil)
		return strings.Contains(page, "静止 · 累计 1 次")
	})
	if opened() != before {
		t.Fatal("the barrier opened upon somebody in the beam")
	}
	for _, what := range []string{"barrier", "lamps", "buzzer"} {
		until(t, "the lane is idle", idle)
		if code, page := try(what); code != http.StatusOK || !strings.Contains(page, "已记入日志") {
			t.Errorf("%s: %d %s", what, code, page)
		}
	}
	until(t, "the tests are over", idle)
	if opened() != before+1 {
		t.Errorf("the barrier opened %d times for one test", opened()-before)
	}
	for _, pin := range []string{"GO", "STOP", "WAIT", "BUZZ"} {
		if len(pins.Pin(pin).Moves()) < 2 || pins.Pin(pin).Level() == gpio.High {
			t.Errorf("%s was not tried, or stays on: %v", pin, pins.Pin(pin).Moves())
		}
	}
	var told []string
	eachEntry(t, a.Journal, func(e *edge.Entry) {
		if e.Kind == edge.KindTest || e.Kind == edge.KindAccess {
			told = append(told, e.Actor+" "+e.Lane+" "+string(e.Data))
		}
	})
	if got := strings.Join(told, "\n"); got != `installer:5  {"view":"see_raw"}
installer:5 in {"test":"barrier"}
installer:5 in {"test":"lamps"}
installer:5 in {"test":"buzzer"}` {
		t.Errorf("on record:\n%s", got)
	}
}
