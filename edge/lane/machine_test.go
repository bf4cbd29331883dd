package lane

import (
	"errors"
	"fmt"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"pgregory.net/rapid"

	"gatehouse/device"
	"gatehouse/edge"
)

// step is one thing that happens at an opening with two lanes.
type step struct {
	what string
	lane int
	n    int
}

var happenings = []string{"card", "card", "card", "temp", "temp", "temp", "walk", "walk", "wait", "wait", "admit", "deny", "aside", "recall", "second", "remeasure",
	"plus_one", "cancel", "confirm", "passed", "present", "close", "open", "fire", "journal fails", "journal stalls", "stale", "barrier fails", "barrier refuses",
	"thermometer fails", "stale tap", "test", "help", "coming"}

// TestAnythingMayHappen plays random days at an opening, with random faults, and
// holds the lane to its guarantee after every step.
func TestAnythingMayHappen(t *testing.T) {
	rapid.Check(t, func(rt *rapid.T) {
		steps := rapid.SliceOfN(rapid.Custom(func(rt *rapid.T) step {
			return step{rapid.SampledFrom(happenings).Draw(rt, "what"), rapid.IntRange(0, 1).Draw(rt, "lane"), rapid.IntRange(0, 11).Draw(rt, "n")}
		}), 1, 40).Draw(rt, "steps")
		order := rapid.SampledFrom([]string{CardFirst, TemperatureFirst, EitherFirst}).Draw(rt, "order")
		var wrong []string
		synctest.Test(t, func(t *testing.T) { wrong = day(t, order, steps) })
		if len(wrong) > 0 {
			rt.Fatalf("%s", strings.Join(wrong, "\n"))
		}
	})
}

// day plays the steps and tells what was wrong.
func day(t *testing.T, order string, steps []step) (wrong []string) {
	r := start(t, setup{order: order, dirs: []edge.Direction{edge.In, edge.Out}})
	defer func() { r.stop() }()
	complain := func(format string, a ...any) { wrong = append(wrong, fmt.Sprintf(format, a...)) }
	admitted := func(e *edge.Entry) bool {
		return e.Outcome == edge.Admit && (e.Kind == edge.KindDecision || e.Kind == edge.KindAction)
	}
	tried := func(e *edge.Entry) bool {
		return e.Kind == edge.KindTest && e.Actor != "system" && strings.Contains(string(e.Data), "barrier")
	}
	opens := 0
	r.barrier.open = func(device.Direction) {
		opens++
		if n := r.j.count(admitted) + r.j.count(tried); opens > n {
			complain("the barrier was opened %d times for %d admissions and tests on record", opens, n)
		}
	}
	var stall chan struct{}
	burning := false
	cards := []string{"anna", "ben", "mother", "lost", "home", "worker", "old", "stranger"}
	act := func(s step, a edge.Action) {
		l := r.lanes[s.lane]
		v := l.View()
		var shown []edge.PresentationView
		if v.Current != nil {
			shown = append(shown, *v.Current)
		}
		shown = append(shown, v.Parked...)
		if len(shown) == 0 {
			return
		}
		p := shown[s.n%len(shown)]
		a.Lane, a.Actor, a.Presentation = l.Name(), "guard:1", p.ID
		if a.Kind == edge.ActAdmit {
			a.Reason = "not.offered"
			if len(p.Answers) > 0 {
				a.Reason = p.Answers[s.n%len(p.Answers)].Reason
			}
			a.Identity, a.Text, a.Second = "known", "medical", "guard:2"
		}
		err := l.Do(r.ctx, a)
		if a.Reason == "not.offered" && err == nil {
			complain("admitted for a reason that nobody offered")
		}
	}
	for _, s := range steps {
		switch s.what {
		case "card":
			r.scan[s.lane].cards <- cards[s.n%len(cards)]
		case "temp":
			v := device.Temperature{Quality: device.QualityOK, Value: []device.Celsius{36.4, 36.5, 37.2, 38.5}[s.n%4], Uncertainty: 0.4, Profile: "skin/1"}
			if s.n == 7 {
				v.Quality = device.QualityUnstable
			}
			select {
			case r.therm[s.lane].queue <- v:
				r.wait(750 * time.Millisecond)
			default: // nobody is being measured
			}
		case "walk":
			r.walk()
		case "wait":
			r.wait([]time.Duration{10 * time.Millisecond, time.Second, 5 * time.Second, 10 * time.Second, 3 * time.Minute, 31 * time.Minute}[s.n%6])
		case "present":
			_ = r.lanes[s.lane].Do(r.ctx, edge.Action{Kind: edge.ActPresent, Actor: "guard:1", Pass: edge.PassID(s.n), Identity: "known"})
		case "close", "open":
			_ = r.lanes[s.lane].Do(r.ctx, edge.Action{Kind: edge.ActionKind(s.what), Actor: "guard:1"})
		case "help":
			if err := r.lanes[s.lane].Do(r.ctx, edge.Action{Kind: edge.ActCall, Actor: fmt.Sprint("guard:", s.n)}); err != nil {
				complain("a call for help was refused: %v", err)
			}
			if v := r.lanes[s.lane].View(); len(v.Help) == 0 || len(v.Help) > maxHelp {
				complain("%d calls for help are shown", len(v.Help))
			}
		case "coming":
			for _, h := range r.lanes[s.lane].View().Help {
				_ = r.lanes[s.lane].Do(r.ctx, edge.Action{Kind: edge.ActComing, Actor: "guard:2", Presentation: h.ID})
			}
		case "second":
			act(s, edge.Action{Kind: edge.ActSecond, Value: []float64{36.5, 38.5}[s.n%2]})
		case "confirm":
			act(s, edge.Action{Kind: edge.ActConfirm, Field: []string{"mask", "proof"}[s.n%2], Text: []string{"no", "medical"}[s.n%2]})
		case "passed":
			act(s, edge.Action{Kind: edge.ActConfirm, Field: "passed", Text: []string{"yes", "no"}[s.n%2]})
		case "fire":
			burning = !burning
			r.firein.changes <- burning
		case "journal fails":
			r.j.mu.Lock()
			r.j.err = []error{nil, errors.New("disk full")}[s.n%2]
			r.j.mu.Unlock()
		case "journal stalls":
			r.j.mu.Lock()
			if stall == nil {
				stall = make(chan struct{})
			} else {
				close(stall)
				stall = nil
			}
			r.j.stall = stall
			r.j.mu.Unlock()
		case "stale":
			r.j.mu.Lock()
			r.j.stale = s.n
			r.j.mu.Unlock()
		case "barrier fails", "barrier refuses":
			r.barrier.mu.Lock()
			if s.what == "barrier fails" {
				r.barrier.broken = s.n%2 == 1
			} else {
				r.barrier.refuse = s.n%2 == 1
			}
			r.barrier.mu.Unlock()
		case "thermometer fails":
			r.therm[s.lane].set([]device.State{device.StateOK, device.StateDisconnected}[s.n%2])
		case "test":
			l, busy := r.lanes[s.lane], false
			for _, o := range r.lanes {
				busy = busy || o.View().Current != nil
			}
			what := []edge.TestKind{edge.TestBarrier, edge.TestLamps, edge.TestBarrier, edge.TestBuzzer}[s.n%4]
			before := opens
			err := l.Test(r.ctx, edge.DeviceTest{What: what, Actor: "installer:5"})
			if opens > before && (busy || err != nil) {
				complain("the barrier was tried while somebody was there: %v", err)
			}
		case "stale tap":
			// What the view shows as over cannot be answered any more.
			l := r.lanes[s.lane]
			v := l.View()
			if v.Last == nil || v.Current != nil && v.Current.ID == v.Last.ID {
				break
			}
			parked := false
			for _, p := range v.Parked {
				parked = parked || p.ID == v.Last.ID
			}
			err := l.Do(r.ctx, edge.Action{Kind: edge.ActAdmit, Actor: "guard:1", Presentation: v.Last.ID, Reason: "known", Identity: "known"})
			if len(v.Last.Answers) > 0 || !parked && !errors.Is(err, edge.ErrLate) {
				complain("presentation %d is over and was answered: %v", v.Last.ID, err)
			}
		default:
			act(s, edge.Action{Kind: edge.ActionKind(s.what)})
		}
		synctest.Wait()
		for _, l := range r.lanes {
			v := l.View()
			if err := l.Alive(15 * time.Second); err != nil {
				complain("after %v: %v", s, err)
			}
			if v.Current != nil && len(v.Current.Answers) > 0 && v.Current.State != edge.LaneReferred && v.Current.State != edge.LaneDenied {
				complain("after %v: a presentation that is %s offers answers", s, v.Current.State)
			}
			for _, p := range v.Parked {
				if p.State != edge.LaneReferred {
					complain("after %v: a presentation in the tray is %s", s, p.State)
				}
			}
		}
	}
	// When all is well again everything ends by itself.
	r.j.mu.Lock()
	r.j.err, r.j.stall, r.j.stale = nil, nil, 0
	r.j.mu.Unlock()
	if stall != nil {
		close(stall)
	}
	r.barrier.mu.Lock()
	r.barrier.broken, r.barrier.refuse = false, false
	r.barrier.mu.Unlock()
	if burning {
		r.firein.changes <- false
	}
	for range 40 {
		r.wait(time.Minute)
	}
	for i, l := range r.lanes {
		if v := l.View(); v.Current != nil || v.Queue != 0 || v.Fire {
			complain("lane %d does not come to rest: %s, %d wait", i, v.State, v.Queue)
		}
	}
	results := map[int64]string{}
	r.j.mu.Lock()
	defer r.j.mu.Unlock()
	for _, e := range r.j.entries {
		ends := e.Kind == edge.KindAbandoned
		if e.Kind == edge.KindPassage {
			switch e.Result {
			case edge.ResultPassed, edge.ResultNotPassed, edge.ResultTailgated, edge.ResultInterrupted:
				ends = true
			}
		}
		if !ends || e.Of < 0 {
			continue
		}
		if !admitted(r.j.entries[e.Of]) && e.Kind == edge.KindPassage {
			complain("entry %d was not an admission and ended %s", e.Of, e.Result)
		}
		if old := results[e.Of]; old != "" {
			complain("admission %d ended twice: %s and %s%s", e.Of, old, e.Kind, e.Result)
		}
		results[e.Of] = string(e.Kind) + e.Result
	}
	for seq, e := range r.j.entries {
		if admitted(e) && results[int64(seq)] == "" {
			complain("nobody knows what became of admission %d", seq)
		}
	}
	for c, v := range r.j.cells {
		if v.Local < 0 {
			complain("%s of %s is %d", c.Name, c.Subject, v.Local)
		}
	}
	return wrong
}
