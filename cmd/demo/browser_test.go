//go:build browser

// The tests of this file drive Chromium against the demo's estate, whose gates
// are built as "gatehouse run" builds them: go test -tags browser ./cmd/demo.
package main

import (
	"fmt"
	"strconv"
	"strings"
	"testing"

	"github.com/chromedp/chromedp"

	"gatehouse/cmd/internal/estate"
	"gatehouse/device"
	"gatehouse/edge"
	"gatehouse/edge/console/accounts"
)

func TestTheEstateInABrowser(t *testing.T) {
	tn := openTown(t)
	var a, b *tablet
	for _, c := range []struct {
		name string
		f    func(t *testing.T)
	}{
		{"a shift in Chinese", func(t *testing.T) {
			shift(t, tn, "zh-Hans", map[string]string{"refer": "人工处理", "above": "达到或超过标准", "unknown": "未登记的卡", "deny": "不予通行"})
		}},
		{"a shift in English", func(t *testing.T) {
			shift(t, tn, "en", map[string]string{"refer": "the guard decides", "above": "at or above the threshold", "unknown": "Unknown card", "deny": "deny"})
		}},
		{"two tablets", func(t *testing.T) {
			a, b = tn.guardsTablet(t, tn.east, "zh-Hans", "李师傅"), tn.guardsTablet(t, tn.east, "en", "Ms Wu")
		}},
		{"every button by touch", func(t *testing.T) { buttons(t, tn, a, (*tablet).tap) }},
		{"every button by key", func(t *testing.T) { buttons(t, tn, b, (*tablet).key) }},
		{"a post without hardware", func(t *testing.T) { desk(t, tn) }},
		{"a forgotten card", func(t *testing.T) { forgotten(t, tn, a) }},
		{"two guards answer one person", func(t *testing.T) { twoGuards(t, tn, a, b) }},
		{"a tap that comes late", func(t *testing.T) { lateTap(t, tn, a, b) }},
		{"a tablet without network", func(t *testing.T) { offline(t, tn) }},
		{"answered aside", func(t *testing.T) { aside(t, tn, a) }},
		{"a restart in the middle", func(t *testing.T) { restart(t, tn, a, b) }},
	} {
		if !t.Run(c.name, c.f) {
			return // the lanes are not as the next expects them
		}
	}
}

// From login to hand-over: one person by touch, one by key, one whom the gate
// admits by itself; then the relief logs in.
func shift(t *testing.T, tn *town, lang string, words map[string]string) {
	number, pin := tn.hire(t, tn.east, "王师傅", accounts.Guard)
	relief, reliefPIN := tn.hire(t, tn.east, "Ms Zhao", accounts.Guard)
	from := tn.east.app.Journal.Size()
	b := tn.tablet(t, tn.east, lang, 1280, 800)
	b.login(t, number, pin)
	tn.entry(t, tn.east, from, "the login", func(e *edge.Entry) bool { return e.Kind == edge.KindSession && e.Actor == b.actor })

	p := tn.refer(t, "east-in", tn.somebody(t, estate.Fever, "resident"))
	b.shows(t, `.lane.referred .outcome`, words["refer"])
	b.shows(t, `.lane.referred .temp`, words["above"])
	b.shows(t, `.lane.referred .who`, p.Pass.Name)
	b.tap(t, form("east-in", p.ID, "kind", "admit", "reason", "medical"))
	e := tn.entry(t, tn.east, from, "the admission", action(b.actor, p.ID, map[string]string{"outcome": "admit", "reason": "medical", "proof": "medical"}))
	if e.Of != p.Seq {
		t.Errorf("the admission names entry %d, not the decision %d", e.Of, p.Seq)
	}
	tn.through(t, "east-in", from, p.ID)

	p = tn.refer(t, "east-in", tn.somebody(t, estate.Unknown, ""))
	b.shows(t, `.lane.referred .who`, words["unknown"])
	b.key(t, form("east-in", p.ID, "kind", "deny"))
	tn.entry(t, tn.east, from, "the denial", action(b.actor, p.ID, map[string]string{"outcome": "deny"}))
	b.shows(t, `.lane[data-lane="east-in"] .outcome`, words["deny"])

	who := tn.somebody(t, estate.Ordinary, "resident")
	r := tn.rig(t, "east-out")
	r.show(who.Card)
	r.stand(who.Body)
	d := tn.entry(t, tn.east, from, "the gate's own admission", func(e *edge.Entry) bool {
		return e.Kind == edge.KindDecision && e.Lane == "east-out" && e.Outcome == edge.Admit
	})
	tn.through(t, "east-out", from, d.Presentation)
	b.shows(t, `.lane[data-lane="east-out"] .last`, tn.last(t, "east-out", d.Presentation))

	b.do(t, "hand over", chromedp.Navigate(b.base+"/relief"), chromedp.SetValue(`[name=number]`, relief), chromedp.SetValue(`[name=secret]`, reliefPIN), chromedp.Click(`button.main`))
	b.shows(t, `nav .actor`, "Ms Zhao")
	b.wait(t, "shows the lanes", `location.pathname === "/" && document.querySelectorAll(".lane").length === 2`)
	e = tn.entry(t, tn.east, from, "the relief", func(e *edge.Entry) bool { return e.Kind == edge.KindSession && e.Actor == "guard:"+relief })
	if want := fmt.Sprintf(`{"action":"relief","of":"guard:%s"}`, number); string(e.Data) != want {
		t.Errorf("%s, want %s", e.Data, want)
	}
}

// buttons presses every button of the lane view, each about somebody else, and
// looks for what it must leave in the journal.
func buttons(t *testing.T, tn *town, b *tablet, press func(*tablet, testing.TB, string)) {
	b.do(t, "the lanes", chromedp.Navigate(b.base+"/"))
	const lane = "east-in"
	r := tn.rig(t, lane)
	gone := func(t *testing.T, id uint64) {
		t.Helper()
		r.leave()
		tn.until(t, tn.east, lane, "left", func(v edge.LaneView) bool { return v.Current == nil || v.Current.ID != id })
	}
	through := func(t *testing.T, id uint64) { t.Helper(); tn.through(t, lane, 0, id) }
	cancel := func(t *testing.T, id uint64) {
		t.Helper()
		from := tn.east.app.Journal.Size()
		press(b, t, form(lane, id, "kind", "cancel"))
		tn.entry(t, tn.east, from, "that the person has gone", action(b.actor, id, map[string]string{"action": "cancel"}))
		gone(t, id)
	}
	// A denial is shown for a while; the next card ends it.
	stays := func(t *testing.T, id uint64) { t.Helper(); r.leave() }
	for _, c := range []struct {
		name     string
		trait    estate.Trait
		category string
		fields   []string
		value    string // to type
		want     map[string]string
		then     func(t *testing.T, id uint64)
	}{
		{"medical", estate.Fever, "resident", []string{"kind", "admit", "reason", "medical"}, "", map[string]string{"outcome": "admit", "reason": "medical", "proof": "medical"}, through},
		{"known", estate.Expired, "resident", []string{"kind", "admit", "reason", "known", "identity", "known"}, "", map[string]string{"outcome": "admit", "reason": "known", "identity": "known"}, through},
		{"known by a document", estate.Expired, "resident", []string{"kind", "admit", "reason", "known", "identity", "document"}, "", map[string]string{"outcome": "admit", "identity": "document"}, through},
		{"known by telephone", estate.Expired, "resident", []string{"kind", "admit", "reason", "known", "identity", "phone"}, "", map[string]string{"outcome": "admit", "identity": "phone"}, through},
		{"known by the host", estate.Expired, "resident", []string{"kind", "admit", "reason", "known", "identity", "host"}, "", map[string]string{"outcome": "admit", "identity": "host"}, through},
		{"deny", estate.Fever, "resident", []string{"kind", "deny"}, "", map[string]string{"outcome": "deny", "reason": "guard.denied"}, stays},
		{"second instrument, normal", estate.Fever, "resident", []string{"kind", "second"}, "36.4", map[string]string{"action": "second", "band": "below"}, through},
		{"second instrument, above", estate.Fever, "resident", []string{"kind", "second"}, "38.4", map[string]string{"action": "second", "band": "above"}, cancel},
		{"no mask", estate.Fever, "resident", []string{"kind", "confirm", "field", "mask"}, "", map[string]string{"action": "confirm", "field": "mask", "value": "no"}, cancel},
		{"one more", estate.Fever, "resident", []string{"kind", "plus_one"}, "", map[string]string{"action": "plus_one"}, cancel},
		{"measure again", estate.Fever, "resident", []string{"kind", "remeasure"}, "", map[string]string{"action": "remeasure"}, func(t *testing.T, id uint64) {
			tn.until(t, tn.east, lane, "referred again", func(v edge.LaneView) bool {
				return v.Current != nil && v.Current.State == edge.LaneReferred && v.Current.Temperature.Tries > 0
			})
			cancel(t, id)
		}},
		{"step aside", estate.Fever, "resident", []string{"kind", "aside"}, "", map[string]string{"action": "aside"}, func(t *testing.T, id uint64) {
			gone(t, id)
			from := tn.east.app.Journal.Size()
			press(b, t, form(lane, id, "kind", "recall"))
			tn.entry(t, tn.east, from, "that the person was taken up again", action(b.actor, id, map[string]string{"action": "recall"}))
			tn.until(t, tn.east, lane, "taken up again", func(v edge.LaneView) bool {
				return v.Current != nil && v.Current.ID == id && v.Current.State == edge.LaneReferred
			})
			cancel(t, id)
		}},
	} {
		ok := t.Run(c.name, func(t *testing.T) {
			from := tn.east.app.Journal.Size()
			p := tn.refer(t, lane, tn.somebody(t, c.trait, c.category))
			f := form(lane, p.ID, c.fields...)
			if c.value != "" {
				b.write(t, f, c.value)
			} else {
				press(b, t, f)
			}
			tn.entry(t, tn.east, from, c.name, action(b.actor, p.ID, c.want))
			c.then(t, p.ID)
		})
		if !ok {
			return
		}
	}

	t.Run("language", func(t *testing.T) {
		p := tn.refer(t, lane, tn.somebody(t, estate.Fever, "resident"))
		other := "ko"
		if p.Language == other {
			other = "fr"
		}
		press(b, t, form(lane, p.ID, "kind", "language", "text", other))
		tn.until(t, tn.east, lane, "told in "+other, func(v edge.LaneView) bool { return v.Current != nil && v.Current.Language == other })
		cancel(t, p.ID)
	})
	t.Run("call for help", func(t *testing.T) {
		from := tn.east.app.Journal.Size()
		press(b, t, form(lane, 0, "kind", "call"))
		tn.entry(t, tn.east, from, "the call for help", func(e *edge.Entry) bool {
			return e.Kind == edge.KindAlert && e.Actor == b.actor && strings.Contains(string(e.Data), `"alert":"help"`)
		})
		v := tn.until(t, tn.east, lane, "calls for help", func(v edge.LaneView) bool { return len(v.Help) == 1 })
		press(b, t, form(lane, v.Help[0].ID, "kind", "coming"))
		tn.entry(t, tn.east, from, "that somebody is coming", action(b.actor, 0, map[string]string{"action": "coming", "to": b.actor}))
	})
	t.Run("close and open", func(t *testing.T) {
		for _, c := range []struct {
			kind  string
			state edge.LaneState
		}{{"close", edge.LaneClosed}, {"open", edge.LaneIdle}} {
			from := tn.east.app.Journal.Size()
			press(b, t, form("east-out", 0, "kind", c.kind))
			tn.entry(t, tn.east, from, c.kind, action(b.actor, 0, map[string]string{"action": c.kind}))
			tn.until(t, tn.east, "east-out", c.kind, func(v edge.LaneView) bool { return v.State == c.state })
		}
	})
}

// desk is the side entrance: passes are found on the tablet, temperatures typed,
// and the guard says who went through.
func desk(t *testing.T, tn *town) {
	b := tn.guardsTablet(t, tn.side, "zh-Hans", "陈师傅")
	for _, result := range []struct{ text, want string }{{"yes", edge.ResultPassed}, {"no", edge.ResultNotPassed}} {
		from := tn.side.app.Journal.Size()
		who := tn.somebody(t, estate.Forgot, "resident").Row.Pass
		b.bring(t, who, "side-in", "known")
		tn.entry(t, tn.side, from, "the start", action(b.actor, 0, map[string]string{"action": "present", "identity": "known"}))
		v := tn.until(t, tn.side, "side-in", "measured", waits(edge.LaneMeasuring, who.ID))
		b.write(t, form("side-in", v.Current.ID, "kind", "reading"), "36.4")
		e := tn.entry(t, tn.side, from, "the decision", func(e *edge.Entry) bool { return e.Kind == edge.KindDecision && e.Presentation == v.Current.ID })
		if e.Facts.Temperature == nil || !e.Facts.Temperature.Typed || e.Facts.Temperature.Band != edge.BandBelow {
			t.Errorf("the typed reading became %+v", e.Facts.Temperature)
		}
		// Who has left the card at home is registered, and known to the guard by now.
		if e.Outcome == edge.Refer {
			b.tap(t, form("side-in", v.Current.ID, "kind", "admit", "identity", "known"))
		}
		b.tap(t, form("side-in", v.Current.ID, "kind", "confirm", "field", "passed", "text", result.text))
		e = tn.entry(t, tn.side, from, "the passage", func(e *edge.Entry) bool { return e.Kind == edge.KindPassage && e.Presentation == v.Current.ID })
		if e.Result != result.want {
			t.Errorf("the result is %q, want %q", e.Result, result.want)
		}
	}
}

// bring finds a pass by its door and brings it to a lane.
func (b *tablet) bring(t *testing.T, p edge.Pass, lane, identity string) {
	t.Helper()
	b.do(t, "find the pass", chromedp.Navigate(b.base+"/passes"), chromedp.SetValue(`.search [name=building]`, p.Building), chromedp.SetValue(`.search [name=unit]`, p.Unit), chromedp.Click(`.search button.main`))
	f := fmt.Sprintf(`form.act:has([name=pass][value="%d"]):has([name=lane][value="%s"]):has([name=identity][value="%s"])`, p.ID, lane, identity)
	b.tap(t, f)
	// The next page may have come without its body yet.
	b.wait(t, "answered", `document.getElementById("message") && (location.pathname === "/" || document.getElementById("message").textContent)`)
	if said, err := chromedp.Run(b.ctx, chromedp.Evaluate[string](`document.getElementById("message").textContent`)); said != "" || err != nil {
		t.Fatalf("pass %d is not brought to %s: %s %v", p.ID, lane, said, err)
	}
}

func forgotten(t *testing.T, tn *town, b *tablet) {
	from := tn.east.app.Journal.Size()
	who := tn.somebody(t, estate.Forgot, "resident")
	r := tn.rig(t, "east-in")
	tn.empty(t, "east-in")
	b.bring(t, who.Row.Pass, "east-in", "document")
	tn.entry(t, tn.east, from, "the start", action(b.actor, 0, map[string]string{"action": "present", "identity": "document"}))
	r.stand(who.Body)
	e := tn.entry(t, tn.east, from, "the admission", func(e *edge.Entry) bool {
		return e.Kind == edge.KindDecision && e.Outcome == edge.Admit && e.Facts.Pass != nil && e.Facts.Pass.ID == who.Row.Pass.ID
	})
	if e.Actor != b.actor || e.Facts.Guard == nil || e.Facts.Guard.Identity != "document" {
		t.Errorf("admitted by %s with %+v", e.Actor, e.Facts.Guard)
	}
	tn.through(t, "east-in", from, e.Presentation)
	b.shows(t, `.lane[data-lane="east-in"] .last`, tn.last(t, "east-in", e.Presentation))
}

// Two guards on two tablets: one's tap is on its way when the other answers.
func twoGuards(t *testing.T, tn *town, a, b *tablet) {
	a.do(t, "the lanes", chromedp.Navigate(a.base+"/"))
	b.do(t, "the lanes", chromedp.Navigate(b.base+"/"))
	from := tn.east.app.Journal.Size()
	p := tn.refer(t, "east-in", tn.somebody(t, estate.Fever, "resident"))
	sent, release := b.hold(t, "/act")
	b.tap(t, form("east-in", p.ID, "kind", "deny"))
	sent()
	a.tap(t, form("east-in", p.ID, "kind", "admit", "reason", "medical"))
	tn.entry(t, tn.east, from, "the first answer", action(a.actor, p.ID, map[string]string{"outcome": "admit"}))
	release()
	b.shows(t, `#message`, "Too late")
	tn.through(t, "east-in", from, p.ID)
	for _, e := range tn.entries(t, tn.east, from) {
		if e.Actor == b.actor && e.Kind == edge.KindAction {
			t.Errorf("the second answer is in the journal: %s %s", e.Outcome, e.Data)
		}
	}
}

// A tap about one person that arrives when the next one stands there.
func lateTap(t *testing.T, tn *town, a, b *tablet) {
	b.do(t, "the lanes", chromedp.Navigate(b.base+"/"))
	from := tn.east.app.Journal.Size()
	p := tn.refer(t, "east-in", tn.somebody(t, estate.Fever, "resident"))
	sent, release := a.hold(t, "/act")
	a.tap(t, form("east-in", p.ID, "kind", "admit", "reason", "medical"))
	sent()
	b.tap(t, form("east-in", p.ID, "kind", "cancel"))
	tn.rig(t, "east-in").leave()
	tn.until(t, tn.east, "east-in", "left", func(v edge.LaneView) bool { return v.Current == nil })
	next := tn.refer(t, "east-in", tn.somebody(t, estate.Fever, "resident"))
	release()
	a.shows(t, `#message`, "晚了一步")
	if v := tn.view("east-in"); v.Current == nil || v.Current.ID != next.ID || v.Current.State != edge.LaneReferred {
		t.Errorf("the next person is now %+v", v.Current)
	}
	for _, e := range tn.entries(t, tn.east, from) {
		if e.Outcome == edge.Admit {
			t.Errorf("admitted: presentation %d by %s", e.Presentation, e.Actor)
		}
	}
	b.tap(t, form("east-in", next.ID, "kind", "cancel"))
	tn.until(t, tn.east, "east-in", "left", func(v edge.LaneView) bool { return v.Current == nil })
}

func offline(t *testing.T, tn *town) {
	number, pin := tn.hire(t, tn.east, "孙师傅", accounts.Guard)
	b := tn.tablet(t, tn.east, "zh-Hans", 800, 1200)
	r := b.relay(t)
	b.login(t, number, pin)
	p := tn.refer(t, "east-in", tn.somebody(t, estate.Fever, "resident"))
	b.find(t, form("east-in", p.ID, "kind", "deny"))
	b.offline(t, r, true)
	b.wait(t, "says that the gate is out of reach", `document.body.classList.contains("lost")`)
	from := tn.east.app.Journal.Size()
	b.tap(t, form("east-in", p.ID, "kind", "deny"))
	b.wait(t, "says that nothing was sent", `document.getElementById("message").textContent === document.body.dataset.lost`)
	// Meanwhile the person gives up, and somebody else comes.
	if err := tn.east.app.Lanes.Do(t.Context(), edge.Action{Kind: edge.ActCancel, Lane: "east-in", Presentation: p.ID, Actor: "guard:panel"}); err != nil {
		t.Fatal(err)
	}
	next := tn.refer(t, "east-in", tn.somebody(t, estate.Fever, "resident"))
	b.offline(t, r, false)
	b.wait(t, "finds the gate again", `!document.body.classList.contains("lost")`)
	b.tap(t, form("east-in", next.ID, "kind", "deny"))
	tn.entry(t, tn.east, from, "the denial", action(b.actor, next.ID, map[string]string{"outcome": "deny"}))
	for _, e := range tn.entries(t, tn.east, from) {
		if e.Actor == b.actor && e.Presentation == p.ID {
			t.Errorf("a tap without network is in the journal: %s %s", e.Outcome, e.Data)
		}
	}
	tn.rig(t, "east-in").leave()
}

// A referral that stepped aside is answered after somebody else has passed.
func aside(t *testing.T, tn *town, b *tablet) {
	b.do(t, "the lanes", chromedp.Navigate(b.base+"/"))
	from := tn.east.app.Journal.Size()
	p := tn.refer(t, "east-in", tn.somebody(t, estate.Fever, "resident"))
	b.tap(t, form("east-in", p.ID, "kind", "aside"))
	b.shows(t, `.lane[data-lane="east-in"] .parked`, p.Pass.Name)
	r := tn.rig(t, "east-in")
	r.leave()
	if tn.w.street.await(t.Context(), r, within, device.SignalIdle) == "" {
		t.Fatal("the lane does not become idle")
	}
	tn.empty(t, "east-in")
	who := tn.somebody(t, estate.Ordinary, "medic")
	r.show(who.Card)
	r.stand(who.Body)
	d := tn.entry(t, tn.east, from, "the admission of the next", func(e *edge.Entry) bool {
		return e.Kind == edge.KindDecision && e.Outcome == edge.Admit && e.Facts.Pass != nil && e.Facts.Pass.ID == who.Row.Pass.ID
	})
	tn.through(t, "east-in", from, d.Presentation)
	b.tap(t, form("east-in", p.ID, "kind", "admit", "reason", "medical"))
	tn.entry(t, tn.east, from, "the later answer", action(b.actor, p.ID, map[string]string{"outcome": "admit", "reason": "medical"}))
	tn.through(t, "east-in", from, p.ID)
}

// The daemon is stopped while somebody waits, and started again: the pages find it
// by themselves, whoever waited presents again, and a tap that was meant for them
// moves nobody else.
func restart(t *testing.T, tn *town, a, b *tablet) {
	for _, x := range []*tablet{a, b} {
		x.do(t, "the lanes", chromedp.Navigate(x.base+"/"), chromedp.Evaluate[chromedp.Void](`window.before = true`))
	}
	p := tn.refer(t, "east-in", tn.somebody(t, estate.Fever, "resident"))
	b.find(t, form("east-in", p.ID, "kind", "deny"))
	sent, release := a.hold(t, "/act")
	a.tap(t, form("east-in", p.ID, "kind", "admit", "reason", "medical"))
	sent()
	tn.stop(t, tn.east)
	for _, x := range []*tablet{a, b} {
		x.wait(t, "says that the gate is out of reach", `document.body.classList.contains("lost")`)
	}
	tn.rig(t, "east-in").leave()
	tn.restart(t, tn.east)
	from := tn.east.app.Journal.Size()
	next := tn.refer(t, "east-in", tn.somebody(t, estate.Fever, "resident"))
	release()
	for _, x := range []*tablet{a, b} {
		x.wait(t, "finds the gate again", `!document.body.classList.contains("lost")`)
		x.wait(t, "shows who is there now", fmt.Sprintf(`document.querySelector(%q)`, form("east-in", next.ID, "kind", "deny")))
		x.wait(t, "shows nobody of before", fmt.Sprintf(`!document.querySelector(%q)`, form("east-in", p.ID, "kind", "deny")))
	}
	if v := tn.view("east-in"); v.Current == nil || v.Current.ID != next.ID || v.Current.State != edge.LaneReferred {
		t.Errorf("who came after the restart is now %+v", v.Current)
	}
	b.tap(t, form("east-in", next.ID, "kind", "deny"))
	tn.entry(t, tn.east, from, "the denial", action(b.actor, next.ID, map[string]string{"outcome": "deny"}))
	for _, e := range tn.entries(t, tn.east, from) {
		if e.Outcome == edge.Admit {
			t.Errorf("admitted: presentation %s by %s", strconv.FormatUint(e.Presentation, 10), e.Actor)
		}
	}
}
