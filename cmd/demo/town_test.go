//go:build browser

package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/chromedp/cdproto/cdp"
	"github.com/chromedp/cdproto/fetch"
	"github.com/chromedp/cdproto/network"
	"github.com/chromedp/chromedp"

	"gatehouse/cmd/internal/estate"
	"gatehouse/device"
	"gatehouse/edge"
	"gatehouse/edge/console/accounts"
	"gatehouse/sync/broker"
)

// within is how long anything may take before a test gives it up: the machine may
// have much else to do.
const within = 45 * time.Second

// town is the demo's estate with a browser, and nobody on the street but whom a
// test sends: the east gate with readers, thermometers, lamps and beams, the side
// entrance without, both with their pages over TLS.
type town struct {
	w          *world
	east, side *gate
	browser    context.Context
	stops      map[*gate]func() error
	came       map[*estate.Person]bool
}

func openTown(t testing.TB) *town {
	t.Helper()
	s := settings{seed: 1, gates: 1, secure: true, patience: 5 * time.Minute, open: 20 * time.Second, policy: "closed-estate.yaml"}
	if err := s.chooseDevices(); err != nil {
		t.Fatal(err)
	}
	dir, log := t.TempDir(), slog.New(slog.DiscardHandler)
	est := newEstate(s.seed, time.Now())
	br, err := broker.Start(filepath.Join(dir, "broker"), "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(br.Stop)
	srv, err := startServer(t.Context(), dir, br.URL(), est, s.policy, log)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(srv.stop)
	w := newWorld(dir, br.URL(), s, est, log, newScreen(io.Discard, false), newTally())
	t.Cleanup(w.close)
	if err := w.build(t.Context(), srv); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(w.emulate(context.Background()))
	tn := &town{w: w, east: w.gates[0], side: w.gates[1], stops: map[*gate]func() error{}, came: map[*estate.Person]bool{}}
	for _, g := range w.gates {
		// The same address after a restart.
		g.cfg.Console.Listen = g.app.Console.Addr()
		tn.start(g)
	}
	t.Cleanup(func() {
		for g := range tn.stops {
			tn.stop(t, g)
		}
	})
	if err := w.waitReady(t.Context()); err != nil {
		t.Fatal(err)
	}

	opts := append(chromedp.DefaultExecAllocatorOptions[:], chromedp.NoSandbox, chromedp.IgnoreCertErrors, chromedp.UserDataDir(t.TempDir()))
	alloc, end := chromedp.NewExecAllocator(context.Background(), opts...)
	t.Cleanup(end)
	var cancel func()
	tn.browser, cancel = chromedp.NewContext(alloc)
	t.Cleanup(func() { _ = chromedp.Cancel(tn.browser); cancel() })
	if err := chromedp.Do(tn.browser, chromedp.Navigate("about:blank")); err != nil {
		t.Fatal(err)
	}
	return tn
}

func (tn *town) start(g *gate) {
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	a := g.app
	go func() { done <- a.Run(ctx) }()
	tn.stops[g] = func() error { cancel(); return <-done }
}

func (tn *town) stop(t testing.TB, g *gate) {
	t.Helper()
	if err := tn.stops[g](); err != nil && !errors.Is(err, context.Canceled) {
		t.Errorf("gate %s ended: %v", g.name, err)
	}
	delete(tn.stops, g)
}

// restart starts the gate's daemon again after a stop.
func (tn *town) restart(t *testing.T, g *gate) {
	t.Helper()
	if err := g.build(t.Context()); err != nil {
		t.Fatal(err)
	}
	tn.start(g)
	select {
	case <-g.ready:
	case <-time.After(within):
		t.Fatalf("gate %s does not start again", g.name)
	}
}

// hire makes an account and gives its number and PIN.
func (tn *town) hire(t testing.TB, g *gate, name string, role accounts.Role) (string, string) {
	t.Helper()
	const pin = "82640917"
	p, _, err := g.app.People.Add(t.Context(), "system", accounts.Person{Name: name, Role: role}, pin)
	if err != nil {
		t.Fatal(err)
	}
	return strconv.FormatInt(int64(p.Number), 10), pin
}

func (tn *town) rig(t testing.TB, lane string) rig {
	t.Helper()
	for _, g := range tn.w.gates {
		for _, r := range g.rigs {
			if r.lane == lane {
				return r
			}
		}
	}
	t.Fatalf("no lane %s has hardware", lane)
	return rig{}
}

// somebody is a resident, or worker, or who is asked for, that no test has sent yet.
func (tn *town) somebody(t testing.TB, trait estate.Trait, category string) *estate.Person {
	t.Helper()
	list := tn.w.est.People
	switch trait {
	case estate.Unknown:
		list = tn.w.est.Strangers
	case estate.Fever:
		// Anybody may have one today: the estate has too few.
		ill := *tn.somebody(t, estate.Ordinary, category)
		ill.Body = 38.3
		return &ill
	}
	for _, p := range list {
		if p.Trait == trait && (category == "" || p.Row.Pass.Category == category) && !tn.came[p] {
			tn.came[p] = true
			return p
		}
	}
	t.Fatalf("nobody is left who is %q and %q", trait, category)
	return nil
}

// until waits until a lane is as a test wants it.
func (tn *town) until(t testing.TB, g *gate, lane, what string, ok func(edge.LaneView) bool) edge.LaneView {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), within)
	defer cancel()
	var last edge.LaneView
	for v := range g.app.Lanes.Watch(ctx) {
		if v.Lane == lane {
			last = v
			if ok(v) {
				return v
			}
		}
	}
	b, err := json.Marshal(last)
	t.Fatalf("%s: never %s, but %s %v", lane, what, b, err)
	return last
}

func waits(state edge.LaneState, id edge.PassID) func(edge.LaneView) bool {
	return func(v edge.LaneView) bool {
		c := v.Current
		return c != nil && c.State == state && (c.Pass == nil && id == 0 || c.Pass != nil && c.Pass.ID == id)
	}
}

// empty waits until a lane's thermometer has seen that nobody stands there.
func (tn *town) empty(t testing.TB, lane string) {
	t.Helper()
	tn.rig(t, lane).leave()
	reads := func() uint64 {
		for _, d := range tn.east.app.Devices() {
			if d.Serves == lane+" thermometer" {
				return d.Reads
			}
		}
		return 0
	}
	// Before its first measurement it does not read, and has seen nobody.
	for end, was := time.Now().Add(within), reads(); was > 0 && reads() < was+8; {
		if time.Now().After(end) {
			t.Fatalf("the thermometer of %s does not read", lane)
		}
		time.Sleep(5 * time.Millisecond)
	}
}

// refer sends somebody to a lane where the guard must decide.
func (tn *town) refer(t testing.TB, lane string, p *estate.Person) edge.PresentationView {
	t.Helper()
	r := tn.rig(t, lane)
	if tn.w.street.await(t.Context(), r, within, device.SignalIdle) == "" {
		t.Fatalf("%s never becomes idle", lane)
	}
	tn.empty(t, lane)
	r.show(p.Card)
	r.stand(p.Body)
	return *tn.until(t, tn.east, lane, "referred", waits(edge.LaneReferred, p.Row.Pass.ID)).Current
}

// through waits for the green lamp and walks.
func (tn *town) through(t *testing.T, lane string, from uint64, id uint64) {
	t.Helper()
	r := tn.rig(t, lane)
	if tn.w.street.await(t.Context(), r, within, device.SignalGo) == "" {
		t.Fatalf("%s never shows green", lane)
	}
	r.leave()
	r.walk()
	e := tn.entry(t, tn.east, from, "a passage of "+fmt.Sprint(id), func(e *edge.Entry) bool { return e.Kind == edge.KindPassage && e.Presentation == id })
	if e.Result != edge.ResultPassed {
		t.Errorf("the passage's result is %q", e.Result)
	}
	tn.until(t, tn.east, lane, "left", func(v edge.LaneView) bool { return v.Current == nil || v.Current.ID != id })
}

// entry waits for an entry of a gate's journal.
func (tn *town) entry(t testing.TB, g *gate, from uint64, what string, ok func(*edge.Entry) bool) *edge.Entry {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), within)
	defer cancel()
	var seen []string
	for {
		for _, e := range tn.entries(t, g, from) {
			if ok(e) {
				return e
			}
			seen = append(seen, fmt.Sprintf("%s %s %s of %d: %s %s %s", e.Kind, e.Actor, e.Lane, e.Presentation, e.Outcome, e.Result, e.Data))
			from++
		}
		if g.app.Journal.Wait(ctx, from) != nil {
			t.Fatalf("the journal never holds %s, but\n%s", what, strings.Join(seen, "\n"))
		}
	}
}

func (tn *town) entries(t testing.TB, g *gate, from uint64) []*edge.Entry {
	t.Helper()
	stored, err := g.app.Journal.Read(t.Context(), from, 1000, 1<<20)
	if err != nil {
		t.Fatal(err)
	}
	var out []*edge.Entry
	for _, s := range stored {
		e, err := edge.DecodeEntry(s.Line)
		if err != nil {
			t.Fatal(err)
		}
		out = append(out, e)
	}
	return out
}

// action matches what somebody did about a presentation: data are fields of the
// entry's data, the outcome's and reason's besides.
func action(actor string, id uint64, data map[string]string) func(*edge.Entry) bool {
	return func(e *edge.Entry) bool {
		if e.Kind != edge.KindAction || e.Actor != actor || e.Presentation != id {
			return false
		}
		got := map[string]any{}
		if json.Unmarshal(e.Data, &got) != nil {
			return false
		}
		got["outcome"], got["reason"] = string(e.Outcome), string(e.Reason)
		for k, v := range data {
			if got[k] != v {
				return false
			}
		}
		return true
	}
}

// tablet is one browser of its own.
type tablet struct {
	ctx   context.Context
	gate  *gate
	base  string
	actor string
	cut   bool // it has no network
}

func (tn *town) tablet(t testing.TB, g *gate, lang string, width, height int64) *tablet {
	t.Helper()
	// It closes with the browser: tests hand tablets on.
	ctx, _ := chromedp.NewContext(tn.browser, chromedp.WithNewBrowserContext())
	b := &tablet{ctx: ctx, gate: g, base: strings.TrimSuffix(g.app.Console.URL(), "/")}
	// The page lives as long as the context of its first action.
	if err := chromedp.Do(ctx, chromedp.EmulateViewport(width, height), chromedp.Navigate(b.base+"/rules?lang="+lang)); err != nil {
		t.Fatal(err)
	}
	return b
}

// guardsTablet is one at which a guard has logged in.
func (tn *town) guardsTablet(t testing.TB, g *gate, lang, name string) *tablet {
	t.Helper()
	number, pin := tn.hire(t, g, name, accounts.Guard)
	b := tn.tablet(t, g, lang, 1280, 1200)
	b.login(t, number, pin)
	return b
}

func (b *tablet) login(t testing.TB, number, pin string) {
	t.Helper()
	b.do(t, "login", chromedp.Navigate(b.base+"/enter"), chromedp.SetValue(`[name=number]`, number), chromedp.SetValue(`[name=secret]`, pin), chromedp.Click(`button.main`), chromedp.WaitVisible(`nav .actor`))
	b.actor = "guard:" + number
}

func (b *tablet) do(t testing.TB, what string, actions ...chromedp.Action[chromedp.Void]) {
	t.Helper()
	ctx, cancel := context.WithTimeout(b.ctx, within)
	defer cancel()
	if err := chromedp.Do(ctx, actions...); err != nil {
		t.Fatalf("%s: %v\n%s", what, err, b.text())
	}
}

// text is what the page says, for a test that fails.
func (b *tablet) text() string {
	ctx, cancel := context.WithTimeout(b.ctx, within)
	defer cancel()
	s, err := chromedp.Run(ctx, chromedp.Evaluate[string](`location.pathname + "\n" + document.body.className + "\n" + document.body.innerText`))
	if err != nil {
		return err.Error()
	}
	return s
}

// wait waits until an expression holds in the page, whatever page comes meanwhile.
func (b *tablet) wait(t testing.TB, what, expression string) {
	t.Helper()
	ctx, cancel := context.WithTimeout(b.ctx, within)
	defer cancel()
	for {
		ok, err := chromedp.Run(ctx, chromedp.Evaluate[bool]("!!("+expression+")"))
		if ok && err == nil {
			return
		}
		select {
		case <-time.After(10 * time.Millisecond):
		case <-ctx.Done():
			t.Fatalf("never %s: %s: %v\n%s", what, expression, err, b.text())
		}
	}
}

// shows waits until a part of the page holds a text.
func (b *tablet) shows(t testing.TB, selector, text string) {
	t.Helper()
	b.wait(t, "shows "+text, fmt.Sprintf("document.querySelector(%q)?.textContent.includes(%q)", selector, text))
}

// form finds the form that does something about a presentation, 0 for none.
func form(lane string, id uint64, fields ...string) string {
	s := fmt.Sprintf(`.lane[data-lane="%s"] form.act:has([name=lane][value="%[1]s"])`, lane)
	if id != 0 {
		s += fmt.Sprintf(`:has([name=presentation][value="%d"])`, id)
	}
	for i := 0; i < len(fields); i += 2 {
		s += fmt.Sprintf(`:has([name=%s][value="%s"])`, fields[i], fields[i+1])
	}
	return s
}

// find waits until a form's button can be pressed, with nothing before it, and
// says where it is on the screen.
func (b *tablet) find(t testing.TB, form string) (x, y float64) {
	t.Helper()
	before := b.gate.app.Lanes.Views()
	for _, v := range before {
		if !b.cut {
			b.wait(t, "up to date", fmt.Sprintf(`(document.querySelector('.lane[data-lane="%s"]')?.dataset.version ?? Infinity) >= %d`, v.Lane, v.Version))
		}
	}
	b.wait(t, "offers "+form, fmt.Sprintf(`(() => {
		const button = document.querySelector(%q)?.querySelector("button");
		if (!button || button.disabled || button.closest(".lane[data-fresh]")) return false;
		for (let d = button.closest("details"); d; d = d.parentElement.closest("details")) d.open = true;
		button.scrollIntoView({block: "center"});
		const r = button.getBoundingClientRect();
		window.at = [r.x + r.width / 2, r.y + r.height / 2];
		// Before a page is painted the browser drops what is touched.
		return performance.getEntriesByType("paint").length > 0 && document.elementFromPoint(...at)?.closest("button") === button;
	})()`, form))
	at, err := chromedp.Run(b.ctx, chromedp.Evaluate[[]float64](`at`))
	if err != nil {
		t.Fatal(err)
	}
	// A lane that has changed meanwhile moves its buttons.
	if same := func(a, b edge.LaneView) bool { return a.Version == b.Version }; !b.cut && !slices.EqualFunc(before, b.gate.app.Lanes.Views(), same) {
		return b.find(t, form)
	}
	return at[0], at[1]
}

func (b *tablet) tap(t testing.TB, form string) {
	t.Helper()
	x, y := b.find(t, form)
	b.do(t, "tap "+form, chromedp.MouseClickXY(x, y))
}

// key presses the key that stands on a form's button, in its lane.
func (b *tablet) key(t testing.TB, form string) {
	t.Helper()
	b.find(t, form)
	k, err := chromedp.Run(b.ctx, chromedp.Evaluate[string](fmt.Sprintf(`(() => {
		const button = document.querySelector(%q).querySelector("button");
		button.focus();
		return button.dataset.key ?? "";
	})()`, form)))
	if err != nil {
		t.Fatal(err)
	}
	if k == "" {
		k = "\r"
	}
	b.do(t, "key "+k, chromedp.KeyEvent(k))
}

// write types into a form's field and sends it with Enter.
func (b *tablet) write(t testing.TB, form, value string) {
	t.Helper()
	b.find(t, form)
	b.wait(t, "takes the focus", fmt.Sprintf(`(() => { const i = document.querySelector(%q).querySelector("input[name=value]"); i.focus(); return document.activeElement === i; })()`, form))
	b.do(t, "type "+value, chromedp.KeyEvent(value+"\r"))
}

// hold keeps what the tablet sends to an address on its way, as a bad wireless
// network does, until the result is called. sent waits until something is held.
func (b *tablet) hold(t testing.TB, path string) (sent, release func()) {
	t.Helper()
	paused := make(chan fetch.RequestID, 8)
	events := chromedp.Events(b.ctx, fetch.RequestPaused)
	go func() {
		for e, err := range events {
			if err != nil {
				return
			}
			paused <- e.RequestID
		}
	}()
	if _, err := chromedp.Call(b.ctx, fetch.Enable, fetch.EnableParams{Patterns: []*fetch.RequestPattern{{URLPattern: "*" + path}}}); err != nil {
		t.Fatal(err)
	}
	var held fetch.RequestID
	sent = func() {
		t.Helper()
		select {
		case held = <-paused:
		case <-time.After(within):
			t.Fatalf("nothing is sent to %s\n%s", path, b.text())
		}
	}
	release = func() {
		t.Helper()
		if _, err := chromedp.Call(b.ctx, fetch.ContinueRequest, fetch.ContinueRequestParams{RequestID: held}); err != nil {
			t.Fatal(err)
		}
		if _, err := chromedp.Call(b.ctx, fetch.Disable, cdp.Empty{}); err != nil {
			t.Fatal(err)
		}
	}
	return sent, release
}

// radio stands between tablets and a gate. While it is off nothing comes through
// and nobody is told: so ends a wireless network.
type radio struct {
	mu sync.Mutex
	on chan struct{} // closed while it is on
}

// relay lets a tablet reach its gate by a radio.
func (b *tablet) relay(t *testing.T) *radio {
	t.Helper()
	r := &radio{on: make(chan struct{})}
	close(r.on)
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	to := b.gate.app.Console.Addr()
	t.Cleanup(func() { _ = ln.Close(); r.set(true) })
	go func() {
		for {
			near, err := ln.Accept()
			if err != nil {
				return
			}
			far, err := net.Dial("tcp", to)
			if err != nil {
				_ = near.Close()
				continue
			}
			go r.carry(near, far)
			go r.carry(far, near)
		}
	}()
	b.base = "https://" + ln.Addr().String()
	return r
}

func (r *radio) carry(to, from net.Conn) {
	defer to.Close()
	buf := make([]byte, 32<<10)
	for {
		n, err := from.Read(buf)
		r.mu.Lock()
		on := r.on
		r.mu.Unlock()
		<-on
		if _, werr := to.Write(buf[:n]); err != nil || werr != nil {
			return
		}
	}
}

func (r *radio) set(on bool) {
	r.mu.Lock()
	defer r.mu.Unlock()
	select {
	case <-r.on:
		if !on {
			r.on = make(chan struct{})
		}
	default:
		if on {
			close(r.on)
		}
	}
}

// offline takes the tablet's network away or gives it back. Chromium's own
// emulation lets a stream that is open go on: that is what the radio is for.
func (b *tablet) offline(t testing.TB, r *radio, off bool) {
	t.Helper()
	b.cut = off
	r.set(!off)
	if _, err := chromedp.Call(b.ctx, network.EmulateNetworkConditionsByRule, network.EmulateNetworkConditionsByRuleParams{MatchedNetworkConditions: []*network.Conditions{{Offline: off, DownloadThroughput: -1, UploadThroughput: -1}}}); err != nil {
		t.Fatal(err)
	}
	if _, err := chromedp.Call(b.ctx, network.OverrideNetworkState, network.OverrideNetworkStateParams{Offline: off, DownloadThroughput: -1, UploadThroughput: -1}); err != nil {
		t.Fatal(err)
	}
}

// view is a lane of the east gate as it stands.
func (tn *town) view(lane string) edge.LaneView {
	for _, v := range tn.east.app.Lanes.Views() {
		if v.Lane == lane {
			return v
		}
	}
	return edge.LaneView{}
}

// last is the name of whoever was at a lane before, once that is a presentation.
func (tn *town) last(t *testing.T, lane string, id uint64) string {
	t.Helper()
	return tn.until(t, tn.east, lane, "done", func(v edge.LaneView) bool { return v.Current == nil && v.Last != nil && v.Last.ID == id }).Last.Pass.Name
}
