//go:build browser

package console

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/chromedp/chromedp"

	"gatehouse/edge"
)

// lanePage is a guard's page of the lanes, live, in a browser.
func lanePage(t *testing.T, s *street, lang string) (context.Context, string) {
	t.Helper()
	c := newConsole(t, s)
	quick(c)
	base := serve(t, c)
	ctx := browser(t)
	login(t, ctx, base, "7")
	run(t, ctx, "the lanes", chromedp.Navigate(base+"/?lang="+lang), chromedp.WaitVisible(`.lane.referred`))
	wait(t, ctx, `document.getElementById("keys") && !document.getElementById("keys").hidden`)
	return ctx, base
}

// keys types as a card reader or a held key does, without a pause, and says which
// keys the page has kept from doing what they do by themselves.
func keys(t *testing.T, ctx context.Context, repeat bool, names ...string) []string {
	t.Helper()
	list, err := json.Marshal(names)
	if err != nil {
		t.Fatal(err)
	}
	return get(t, ctx, "keys", chromedp.Evaluate[[]string](fmt.Sprintf(`%s.filter(key => !document.activeElement.dispatchEvent(new KeyboardEvent("keydown", {key, repeat: %v, bubbles: true, cancelable: true})))`, list, repeat)))
}

// settled says that no key is waited for any more: what was to be done is done.
func settled(t *testing.T, ctx context.Context) {
	t.Helper()
	get(t, ctx, "a rest", chromedp.Evaluate[bool](`window.rested = false; setTimeout(() => { window.rested = true; }, 300); true`))
	wait(t, ctx, `window.rested`)
}

// A key never acts on somebody in the tray but from within the tray.
func TestKeysKeepToTheirPerson(t *testing.T) {
	s := newStreet()
	v := referred()
	aside := *referred().Current
	aside.ID, aside.Answers = 39, []edge.Answer{{Reason: "medical", Needs: []string{"proof"}}}
	v.Parked = []edge.PresentationView{aside}
	v.Current.Answers = v.Current.Answers[:1] // "1" wants a second reading first
	s.views = []edge.LaneView{v}
	ctx, _ := lanePage(t, s, "en")
	run(t, ctx, "1", chromedp.KeyEvent("1"))
	settled(t, ctx)
	if len(s.did()) != 0 {
		t.Fatalf("a key reached into the tray: %+v", s.did())
	}
	run(t, ctx, "to the tray", chromedp.KeyEvent("w"))
	wait(t, ctx, `document.activeElement.matches(".aside")`)
	run(t, ctx, "1 in the tray", chromedp.KeyEvent("1"))
	waitDone(t, s, 1)
	if got := s.did()[0]; got.Kind != edge.ActAdmit || got.Presentation != 39 || got.Reason != "medical" {
		t.Fatalf("%+v", got)
	}
	settled(t, ctx)
	run(t, ctx, "take up again", chromedp.KeyEvent("b"))
	waitDone(t, s, 2)
	if got := s.did()[1]; got.Kind != edge.ActRecall || got.Presentation != 39 {
		t.Fatalf("%+v", got)
	}
	// The tray has no such key; the lane's own person is not reached from it.
	settled(t, ctx)
	run(t, ctx, "plus one", chromedp.KeyEvent("p"))
	settled(t, ctx)
	run(t, ctx, "to the lane", chromedp.KeyEvent("l"))
	settled(t, ctx)
	run(t, ctx, "plus one", chromedp.KeyEvent("p"))
	waitDone(t, s, 3)
	if got := s.did()[2]; got.Kind != edge.ActPlusOne || got.Presentation != 41 {
		t.Fatalf("%+v", got)
	}
}

// A card reader that types what it reads, and a key that is held, do nothing, even
// where a button has the focus.
func TestKeysOfAReaderAreIgnored(t *testing.T) {
	s := newStreet()
	s.views = s.views[:1]
	ctx, _ := lanePage(t, s, "en")
	card := strings.Split("0013530444", "")
	keys(t, ctx, false, append(card, "Enter")...)
	settled(t, ctx)
	run(t, ctx, "focus", chromedp.Focus(`.lane.referred button[data-key="a"]`))
	if kept := keys(t, ctx, false, append([]string{"n"}, append(card, "Enter")...)...); !slices.Contains(kept, "Enter") {
		t.Errorf("the reader's Enter presses the button in hand; kept from it are %q", kept)
	}
	settled(t, ctx)
	if len(s.did()) != 0 {
		t.Fatalf("a card reader answered: %+v", s.did())
	}
	keys(t, ctx, false, "p")
	waitDone(t, s, 1)
	settled(t, ctx)
	if kept := keys(t, ctx, true, "p", "p", "Enter"); !slices.Contains(kept, "Enter") {
		t.Errorf("Enter that is held presses again: %q", kept)
	}
	settled(t, ctx)
	if len(s.did()) != 1 {
		t.Errorf("a held key acts again: %+v", s.did())
	}
}

// Every action of the lane view has a key, which the button shows; pressing it does
// what the button does.
func TestEveryActionHasAKey(t *testing.T) {
	s := newStreet()
	v := referred()
	aside := *referred().Current
	aside.ID = 39
	v.Parked = []edge.PresentationView{aside}
	v.Current.Temperature.Second = edge.BandBelow
	v.Help = []edge.HelpCall{{ID: 77, By: "guard:8", At: time.Now()}}
	s.views = []edge.LaneView{v}
	ctx, _ := lanePage(t, s, "zh-Hans")
	bare := get(t, ctx, "buttons without a key", chromedp.Evaluate[string](`[...document.querySelectorAll(".lane .act button, .lane a, .lane summary")].filter(b => !b.dataset.key || b.querySelector("kbd")?.textContent !== b.dataset.key).map(b => b.outerHTML).join()`))
	if bare != "" {
		t.Errorf("without a key: %s", bare)
	}
	twice := get(t, ctx, "keys of two buttons", chromedp.Evaluate[string](`[...document.querySelectorAll(".lane [data-key]")].filter((b, i, all) => all.findIndex(c => c.dataset.key === b.dataset.key && c.closest("[data-keys]") === b.closest("[data-keys]")) !== i).map(b => b.outerHTML).join()`))
	if twice != "" {
		t.Errorf("a key means two things: %s", twice)
	}
	n := 0
	for _, c := range []struct {
		keys string
		want edge.Action
	}{
		{"1", edge.Action{Kind: edge.ActAdmit, Presentation: 41, Reason: "second_normal"}},
		{"2", edge.Action{Kind: edge.ActAdmit, Presentation: 41, Reason: "medical", Text: "medical"}},
		{"3", edge.Action{Kind: edge.ActAdmit, Presentation: 41, Reason: "known", Identity: "known"}},
		{"4", edge.Action{Kind: edge.ActAdmit, Presentation: 41, Reason: "known", Identity: "document"}},
		{"e2", edge.Action{Kind: edge.ActAdmit, Presentation: 41, Reason: "known", Identity: "host"}},
		{"g1", edge.Action{Kind: edge.ActLanguage, Presentation: 41, Text: "zh-Hans"}},
		{"n", edge.Action{Kind: edge.ActDeny, Presentation: 41}},
		{"r", edge.Action{Kind: edge.ActRemeasure, Presentation: 41}},
		{"a", edge.Action{Kind: edge.ActAside, Presentation: 41}},
		{"m", edge.Action{Kind: edge.ActConfirm, Presentation: 41, Field: "mask", Text: "no"}},
		{"p", edge.Action{Kind: edge.ActPlusOne, Presentation: 41}},
		{"x", edge.Action{Kind: edge.ActCancel, Presentation: 41}},
		{"h", edge.Action{Kind: edge.ActCall}},
		{"o", edge.Action{Kind: edge.ActClose}},
		{"y", edge.Action{Kind: edge.ActComing, Presentation: 77}},
		{"wb", edge.Action{Kind: edge.ActRecall, Presentation: 39}},
		{"wx", edge.Action{Kind: edge.ActCancel, Presentation: 39}},
	} {
		get(t, ctx, "no focus", chromedp.Evaluate[bool](`document.activeElement.blur(); true`))
		for _, k := range c.keys {
			settled(t, ctx)
			run(t, ctx, "key", chromedp.KeyEvent(string(k)))
		}
		n++
		waitDone(t, s, n)
		c.want.Lane, c.want.Actor = "east-in", "guard:7"
		if got := s.did()[n-1]; got != c.want {
			t.Errorf("%s did %+v", c.keys, got)
		}
	}
	settled(t, ctx)
	run(t, ctx, "a reading", chromedp.KeyEvent("t"))
	wait(t, ctx, `document.activeElement.name === "value"`)
}

// What a guard has opened, and what they have in hand, stays while the lane changes
// under it; of the next person nothing is in hand.
func TestFocusOutlivesAChange(t *testing.T) {
	s := newStreet()
	v := referred()
	s.views = []edge.LaneView{v}
	ctx, _ := lanePage(t, s, "en")
	run(t, ctx, "open", chromedp.KeyEvent("e"))
	wait(t, ctx, `document.activeElement.closest("details[open]") && document.activeElement.tagName === "BUTTON"`)
	before := get(t, ctx, "focus", chromedp.Evaluate[string](`document.activeElement.textContent`))
	for i := range 3 {
		v.Queue = 20 + i
		s.set(v)
		wait(t, ctx, fmt.Sprintf(`document.querySelector(".queue").textContent.includes("%d")`, v.Queue))
	}
	if after := get(t, ctx, "focus", chromedp.Evaluate[string](`document.querySelector("details[open]") ? document.activeElement.textContent : "closed"`)); after != before {
		t.Errorf("the focus was on %q and is on %q", before, after)
	}
	v.Current.ID = 55
	s.set(v)
	wait(t, ctx, `document.querySelector(".lane").dataset.now === "55"`)
	if !get(t, ctx, "focus", chromedp.Evaluate[bool](`document.activeElement.matches(".lane") && !document.querySelector("details[open]")`)) {
		t.Error("a button of the next person is in hand")
	}
}

// A touch that comes right after the next person has stepped up was meant for the
// one before: it is refused, visibly.
func TestTouchRightAfterAChange(t *testing.T) {
	s := newStreet()
	v := referred()
	s.views = []edge.LaneView{v}
	ctx, _ := lanePage(t, s, "en")
	get(t, ctx, "a touch right after", chromedp.Evaluate[bool](`new MutationObserver(() => {
		const l = document.querySelector('.lane[data-now="55"][data-fresh]');
		if (l && !window.touched) { window.touched = true; l.querySelector('[data-key="a"]').click(); }
	}).observe(document.getElementById("lanes"), {childList: true, subtree: true, attributes: true}); true`))
	v.Current.ID = 55
	s.set(v)
	wait(t, ctx, `window.touched && document.getElementById("message").textContent.includes("just changed")`)
	if len(s.did()) != 0 {
		t.Errorf("%+v", s.did())
	}
	wait(t, ctx, `!document.querySelector(".lane[data-fresh]")`)
	run(t, ctx, "touch", chromedp.Click(`.lane [data-key="a"]`))
	waitDone(t, s, 1)
	if got := s.did()[0]; got.Presentation != 55 {
		t.Errorf("%+v", got)
	}
}

// rings counts what the page plays.
const rings = `window.rung = 0; const start = OscillatorNode.prototype.start; OscillatorNode.prototype.start = function (...a) { window.rung++; start.apply(this, a); }; true`

// Every referral sounds, also of the next person within one change of the lane, and
// a call for help sounds until somebody comes.
func TestReferralsSound(t *testing.T) {
	s := newStreet()
	v := referred()
	s.views = []edge.LaneView{v}
	ctx, _ := lanePage(t, s, "en")
	run(t, ctx, "a touch", chromedp.Click(`h2`))
	wait(t, ctx, `document.getElementById("sound").hidden`)
	get(t, ctx, "count", chromedp.Evaluate[bool](rings))
	v.Current.ID = 55
	s.set(v)
	wait(t, ctx, `window.rung === 2`)
	v.Queue = 1
	s.set(v)
	wait(t, ctx, `document.querySelector(".queue").textContent.includes("1 ")`)
	v.Current.Calls = 1
	s.set(v)
	wait(t, ctx, `window.rung === 4`)
	v.Help = []edge.HelpCall{{ID: 99, By: "guard:8", At: time.Now()}}
	s.set(v)
	wait(t, ctx, `window.rung >= 12 && document.querySelector(".help").textContent.includes("calls for help")`)
	v.Help = nil
	s.set(v)
	wait(t, ctx, `!document.querySelector(".help")`)
}

// Until somebody has touched the page it says that it cannot sound.
func TestSoundOffIsShown(t *testing.T) {
	s := newStreet()
	c := newConsole(t, s)
	base := serve(t, c)
	ctx := browser(t)
	run(t, ctx, "enter", chromedp.Navigate(base+"/enter"))
	get(t, ctx, "a login without a touch", chromedp.Evaluate[bool](fmt.Sprintf(`fetch("/enter", {method: "POST", body: new URLSearchParams({number: "7", secret: %q})}).then(() => { window.done = true; }); true`, pin)))
	wait(t, ctx, `window.done`)
	run(t, ctx, "the lanes", chromedp.Navigate(base+"/?lang=en"), chromedp.WaitVisible(`#sound`), chromedp.Click(`#sound`))
	wait(t, ctx, `document.getElementById("sound").hidden`)
}

// valve is a way to the console that can be shut: connections stay open and nothing
// comes through, as over a radio that has forgotten a tablet.
type valve struct {
	net.Listener
	mu    sync.Mutex
	conns []net.Conn
	shut  bool
}

// through serves a console behind a valve.
func through(t *testing.T, c *Console) (*valve, string) {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	v := &valve{Listener: l}
	srv := &http.Server{Handler: c.Handler()}
	done := make(chan struct{})
	go func() { defer close(done); _ = srv.Serve(v) }()
	t.Cleanup(func() { _ = srv.Close(); <-done })
	return v, "http://" + l.Addr().String()
}

type valved struct {
	net.Conn
	v *valve
	// forgotten is a connection of before the valve was shut: it stays so.
	forgotten bool
}

func (v *valve) Accept() (net.Conn, error) {
	c, err := v.Listener.Accept()
	if err != nil {
		return nil, err
	}
	v.mu.Lock()
	defer v.mu.Unlock()
	x := &valved{Conn: c, v: v}
	v.conns = append(v.conns, x)
	return x, nil
}

// forget makes all connections of now half open.
func (v *valve) forget() {
	v.mu.Lock()
	defer v.mu.Unlock()
	for _, c := range v.conns {
		c.(*valved).forgotten = true
	}
}

func (c *valved) Write(b []byte) (int, error) {
	c.v.mu.Lock()
	forgotten := c.forgotten
	c.v.mu.Unlock()
	if forgotten {
		return len(b), nil
	}
	return c.Conn.Write(b)
}

// A half-open stream is noticed and opened anew by the page itself; what is shown
// meanwhile says that it is old.
func TestStreamOutlivesAHalfOpenConnection(t *testing.T) {
	s := newStreet()
	s.views = s.views[:1]
	c := newConsole(t, s)
	quick(c)
	v, base := through(t, c)
	ctx := browser(t)
	login(t, ctx, base, "7")
	run(t, ctx, "the lanes", chromedp.Navigate(base+"/?lang=en"), chromedp.WaitVisible(`.lane.referred`))
	wait(t, ctx, `document.querySelector("#status time").textContent !== ""`)
	settled(t, ctx)
	v.forget()
	x := referred()
	x.Current.ID = 55
	s.set(x)
	// Each connection that the browser has kept is tried once.
	get(t, ctx, "the stream", chromedp.Poll[bool](`document.querySelector(".lane").dataset.now === "55" && !document.body.classList.contains("lost")`, chromedp.WithPollingTimeout(time.Minute)))
}

// A tablet that wakes up opens its stream at once.
func TestStreamOpensOnWaking(t *testing.T) {
	s := newStreet()
	s.views = s.views[:1]
	c := newConsole(t, s)
	quick(c)
	v, base := through(t, c)
	ctx := browser(t)
	login(t, ctx, base, "7")
	run(t, ctx, "the lanes", chromedp.Navigate(base+"/?lang=en"), chromedp.WaitVisible(`.lane.referred`))
	settled(t, ctx)
	v.forget()
	// The page slept: its clock says that the last word is long ago.
	get(t, ctx, "waking", chromedp.Evaluate[bool](`const was = Date.now; Date.now = () => was() + 60000; dispatchEvent(new Event("online")); true`))
	wait(t, ctx, `document.body.classList.contains("lost") || performance.getEntriesByName(location.origin + "/live").length > 0`)
	wait(t, ctx, `!document.body.classList.contains("lost")`)
}

// Whose session has ended is shown the login, not a gate that is away.
func TestStreamOfAnEndedSession(t *testing.T) {
	s := newStreet()
	c := newConsole(t, s)
	c.again = 10 * time.Millisecond
	quick(c)
	base := serve(t, c)
	ctx := browser(t)
	login(t, ctx, base, "8")
	run(t, ctx, "the lanes", chromedp.Navigate(base+"/?lang=en"), chromedp.WaitVisible(`.lane.referred`))
	if err := c.deps.People.Remove(t.Context(), "manager:1", 8); err != nil {
		t.Fatal(err)
	}
	for at := ""; !strings.HasSuffix(at, "/enter"); {
		var err error
		if at, err = chromedp.Run(ctx, chromedp.Location()); err != nil && ctx.Err() != nil {
			t.Fatalf("the page stays at %s: %v", at, err)
		}
	}
}

// A display whose gate is away shows nobody a green light; it asks for the guard, in
// its languages, and comes back by itself.
func TestDisplayWithoutItsGate(t *testing.T) {
	s := newStreet()
	v := referred()
	v.State, v.Current.State = edge.LanePassing, edge.LanePassing
	s.views = []edge.LaneView{v}
	c := newConsole(t, s)
	c.cfg.Languages = []string{"en", "fr"}
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- c.Run(ctx) }()
	b := browser(t)
	base := "http://" + c.Addr()
	run(t, b, "display", chromedp.Navigate(base+"/display/east-in"), chromedp.WaitVisible(`.sign-go`))
	settled(t, b)
	cancel()
	if err := <-done; !errors.Is(err, context.Canceled) {
		t.Fatal(err)
	}
	wait(t, b, `document.body.classList.contains("lost")`)
	seen := get(t, b, "what is seen", chromedp.Evaluate[string](`document.body.innerText`))
	green := get(t, b, "green", chromedp.Evaluate[string](`getComputedStyle(document.body).backgroundColor`))
	arrow := get(t, b, "arrow", chromedp.Evaluate[string](`getComputedStyle(document.querySelector(".sign-go")).display + getComputedStyle(document.getElementById("sign")).display`))
	if lines := strings.FieldsFunc(seen, func(r rune) bool { return r == '\n' }); !slices.Equal(lines, []string{"Please speak to the guard", c.deps.Text.For("fr").T("display.stop")}) || green != "rgb(51, 51, 51)" || !strings.HasSuffix(arrow, "none") {
		t.Errorf("%q on %s, %s", seen, green, arrow)
	}
	again, err := New(Config{Listen: c.Addr(), Gate: "x", Language: "en", Location: time.UTC}, c.deps)
	if err != nil {
		t.Fatal(err)
	}
	serve(t, again)
	wait(t, b, `!document.body.classList.contains("lost") && document.body.classList.contains("go")`)
}

// A display that may not speak shows that it is mute, and speaks when it is touched.
func TestMuteDisplay(t *testing.T) {
	s := newStreet()
	s.views = s.views[:1]
	c := newConsole(t, s)
	base := serve(t, c)
	ctx := browser(t)
	run(t, ctx, "display", chromedp.Navigate(base+"/display/east-in"), chromedp.WaitVisible(`#mute`), chromedp.Click(`#sign`))
	wait(t, ctx, `!("mute" in document.body.dataset)`)
}

// The screen's unit starts a browser that speaks without a touch: nobody touches a
// display.
func TestKioskSpeaks(t *testing.T) {
	unit, err := os.ReadFile(filepath.Join("..", "..", "systemd", "gatehouse-kiosk.service"))
	if err != nil {
		t.Fatal(err)
	}
	m := regexp.MustCompile(`(?m)^ExecStart=.*chromium.* --autoplay-policy=(\S+) `).FindSubmatch(unit)
	if m == nil {
		t.Fatal("the unit says nothing of sound")
	}
	s := newStreet()
	s.views = s.views[:1]
	c := newConsole(t, s)
	base := serve(t, c)
	ctx := browser(t, chromedp.Flag("autoplay-policy", string(m[1])))
	run(t, ctx, "display", chromedp.Navigate(base+"/display/east-in"), chromedp.WaitVisible(`.sign-stop`))
	get(t, ctx, "listen", chromedp.Evaluate[bool](`const play = Audio.prototype.play; Audio.prototype.play = function () { const p = play.call(this); p.then(() => { window.heard = this.src; }); return p; }; true`))
	v := referred()
	v.State, v.Current.State = edge.LanePassing, edge.LanePassing
	s.set(v)
	wait(t, ctx, `window.heard?.endsWith("zh-Hans-go.opus") && !("mute" in document.body.dataset)`)
}
