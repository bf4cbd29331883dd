package console

import (
	"bytes"
	"fmt"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"gatehouse/edge"
	"gatehouse/edge/clock"
	"gatehouse/edge/text"
)

// There is a prompt for every sentence in every language, made of the words that
// the catalogues have now, and none is large.
func TestVoicesSayWhatIsWritten(t *testing.T) {
	cat, err := text.New()
	if err != nil {
		t.Fatal(err)
	}
	src, err := os.ReadFile(filepath.Join("assets", "voice", "spoken.txt"))
	if err != nil {
		t.Fatal(err)
	}
	made := map[string]string{}
	for line := range strings.Lines(string(src)) {
		f := strings.Split(strings.TrimSuffix(line, "\n"), "\t")
		if len(f) != 3 {
			t.Fatalf("%q", line)
		}
		made[f[0]+"-"+f[1]] = f[2]
	}
	c := newConsole(t, newStreet())
	total := 0
	for _, l := range displayLanguages {
		for id, voice := range spoken {
			name := l.code + "-" + voice
			if want := cat.For(l.code).T(id); made[name] != want {
				t.Errorf("%s says %q, the catalogue %q: run assets/voice/generate.sh", name, made[name], want)
			}
			w := c.request("GET", "/assets/voice/"+name+".opus", nil, "")
			if w.Code != http.StatusOK || !bytes.HasPrefix(w.Body.Bytes(), []byte("OggS")) || !strings.HasPrefix(w.Header().Get("Content-Type"), "audio/ogg") {
				t.Errorf("%s: %d %s", name, w.Code, w.Header().Get("Content-Type"))
			}
			if n := w.Body.Len(); n < 1000 || n > 20_000 {
				t.Errorf("%s has %d bytes", name, n)
			}
			total += w.Body.Len()
		}
	}
	if total > 600_000 {
		t.Errorf("the prompts have %d bytes", total)
	}
	for _, name := range []string{"generate.sh", "spoken.txt", "xx-go.opus", "..%2Fconsole.js"} {
		if w := c.request("GET", "/assets/voice/"+name, nil, ""); w.Code != http.StatusNotFound {
			t.Errorf("%s: %d", name, w.Code)
		}
	}
}

// Sign and voice are the same whoever stops a person and why; a rule's own words
// have no prompt, so nothing else is said than is written.
func TestVoiceShamesNobody(t *testing.T) {
	c := newConsole(t, newStreet())
	voices := map[string]bool{}
	for _, state := range []edge.LaneState{edge.LaneReferred, edge.LaneDenied} {
		for _, reason := range []edge.Reason{"temperature.above", "quarantine", "quota", "pass.lost"} {
			v := referred()
			v.State, v.Current.State, v.Current.Reason = state, state, reason
			s := c.sign(v)
			voices[fmt.Sprintf("%s %v", s.Voice, s.Volume > 0)] = true
		}
	}
	if len(voices) != 1 || !voices["stop true"] {
		t.Errorf("%v", voices)
	}
	v := referred()
	v.Current.Say = map[string]string{"en": "Please use the east gate"}
	if s := c.sign(v); s.Voice != "" {
		t.Errorf("%+v", s)
	}
	v.State, v.Current = edge.LaneIdle, nil
	if s := c.sign(v); s.Voice != "" || s.Turn {
		t.Errorf("an idle lane speaks: %+v", s)
	}
}

// Nobody knows what an unknown card's bearer speaks: the languages come in turn,
// until the guard has chosen one.
func TestUnknownCardTurnsLanguages(t *testing.T) {
	c := newConsole(t, newStreet())
	v := referred()
	v.Current.Pass, v.Current.Unknown, v.Current.Language = nil, true, ""
	if s := c.sign(v); !s.Turn || len(s.Words) != 2 {
		t.Errorf("%+v", s)
	}
	v.Current.Language = "ko"
	if s := c.sign(v); s.Turn || s.Words[0].Lang != "ko" || s.Voice != "stop" {
		t.Errorf("%+v", s)
	}
	p := c.deps.Text.For("en")
	var offered []string
	for _, b := range buttons(p, v, *v.Current, false) {
		if b.Kind == edge.ActLanguage {
			offered = append(offered, b.Text)
		}
	}
	if len(offered) != len(displayLanguages)-1 || slices.Contains(offered, "ko") {
		t.Errorf("the guard can choose %v", offered)
	}
}

func TestVolumeByHour(t *testing.T) {
	list := []Loudness{{21*60 + 30, 20}, {6 * 60, 90}, {12 * 60, 60}}
	for at, want := range map[string]int{"00:00": 20, "05:59": 20, "06:00": 90, "11:59": 90, "12:00": 60, "21:29": 60, "21:30": 20, "23:59": 20} {
		x, err := time.Parse("15:04", at)
		if err != nil {
			t.Fatal(err)
		}
		if got := volume(list, x); got != want {
			t.Errorf("%s: %d, want %d", at, got, want)
		}
	}
	night, _ := time.Parse("15:04", "02:00")
	if got := volume(nil, night); got != 35 {
		t.Errorf("by itself %d at night", got)
	}
}

func TestIdleDisplayTells(t *testing.T) {
	c := newConsole(t, newStreet())
	c.cfg.Tips = map[string][]string{"en": {"Wash your <hands>"}, "zh-Hans": {"洗手"}, "fr": {"nobody here reads it"}}
	body := c.request("GET", "/display/east-in", nil, "").Body.String()
	for _, want := range []string{`id="clock"`, "Wash your &lt;hands&gt;", `<li lang="zh-Hans" dir="ltr">洗手</li>`} {
		if !strings.Contains(body, want) {
			t.Errorf("the display lacks %q", want)
		}
	}
	if strings.Contains(body, "nobody here") {
		t.Error("a language that is not the site's is shown")
	}
	// On this machine only, no telephone could follow a link.
	if strings.Contains(body, "/rules.png") {
		t.Error("the display shows an address that only this machine has")
	}
}

// elsewhere is a listener that says another address than its own.
type elsewhere struct {
	net.Listener
	addr net.TCPAddr
}

func (e elsewhere) Addr() net.Addr { return &e.addr }

// The code on the display leads a telephone where it meets no warning: it does not
// know the gate's certificate.
func TestRulesLinkNeedsNoCertificate(t *testing.T) {
	c := newConsole(t, newStreet())
	c.cfg.Certificates = certificates(t, t.TempDir(), clock.NewFake(built, 480))
	c.ln = elsewhere{c.ln, net.TCPAddr{IP: net.IPv4(192, 168, 7, 1), Port: 8443}}
	for host, want := range map[string]string{"localhost:8443": "http://192.168.7.1:8443/rules", "gate.estate.example:8443": "http://gate.estate.example:8443/rules"} {
		r := httptest.NewRequest("GET", "/display/east-in", nil)
		r.Host = host
		if got := c.rulesAddress(r); got != want {
			t.Errorf("asked as %s: %s, want %s", host, got, want)
		}
		w := httptest.NewRecorder()
		if c.Handler().ServeHTTP(w, r); !strings.Contains(w.Body.String(), want) || !strings.Contains(w.Body.String(), "/rules.png") {
			t.Errorf("the display does not show %s", want)
		}
	}
}
