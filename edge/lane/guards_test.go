package lane

import (
	"context"
	"errors"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"gatehouse/edge"
)

// Two guards have the same person before them: the first answer counts, and
// whatever the other does is late, by whom and with what, before and after the
// person has gone.
func TestTheFirstAnswerCounts(t *testing.T) {
	others := []edge.Action{{Kind: edge.ActAdmit, Reason: "own_home", Identity: "known"}, {Kind: edge.ActDeny}, {Kind: edge.ActAside}, {Kind: edge.ActRemeasure}, {Kind: edge.ActRecall},
		{Kind: edge.ActSecond, Value: 36.5}, {Kind: edge.ActPlusOne}, {Kind: edge.ActReading, Value: 36.5}, {Kind: edge.ActConfirm, Field: "mask", Text: "no"}}
	for _, c := range []struct {
		name  string
		aside bool
		first edge.Action
		want  edge.Outcome
	}{
		{"denied", false, edge.Action{Kind: edge.ActDeny}, edge.Deny},
		{"admitted", false, edge.Action{Kind: edge.ActAdmit, Reason: "own_home", Identity: "known"}, edge.Admit},
		{"denied aside", true, edge.Action{Kind: edge.ActDeny}, edge.Deny},
		{"admitted aside", true, edge.Action{Kind: edge.ActAdmit, Reason: "own_home", Identity: "known"}, edge.Admit},
	} {
		t.Run(c.name, func(t *testing.T) {
			played(t, setup{}, func(r *rig) {
				r.card("anna")
				r.temp(38)
				anna := r.id()
				if c.aside {
					r.mustDo(edge.Action{Kind: edge.ActAside, Presentation: anna})
				}
				c.first.Presentation = anna
				r.mustDo(c.first)
				late := func(when string) {
					r.t.Helper()
					before := len(r.j.lines())
					for _, a := range others {
						a.Lane, a.Actor, a.Presentation = "lane1", "guard:2", anna
						err := r.lanes[0].Do(r.ctx, a)
						var l edge.Late
						if !errors.Is(err, edge.ErrLate) || !errors.As(err, &l) || l != (edge.Late{By: "guard:1", Outcome: c.want}) {
							r.t.Errorf("%s, %s: %v", when, a.Kind, err)
						}
					}
					if n := len(r.j.lines()) - before; n != 0 {
						r.t.Errorf("%s: %d entries of late answers", when, n)
					}
				}
				if v := r.lanes[0].View().Current; v != nil && v.By != "guard:1" {
					r.t.Errorf("the view does not say who answered: %+v", v)
				}
				late("at the lane")
				if c.want == edge.Admit {
					r.walk()
				}
				r.wait(15 * time.Second)
				r.want(edge.LaneIdle)
				late("gone")
			})
		})
	}
}

// What the policy decides by itself is nobody's answer: the guard may still say no
// more than late, and a timeout is the system's.
func TestLateAfterATimeout(t *testing.T) {
	played(t, setup{}, func(r *rig) {
		r.card("worker")
		r.temp(38)
		worker := r.id()
		r.wait(3 * time.Minute)
		r.want(edge.LaneIdle)
		var l edge.Late
		if err := r.do(edge.Action{Kind: edge.ActAside, Presentation: worker}); !errors.As(err, &l) || l.By != "system" || l.Outcome != edge.Deny {
			r.t.Errorf("%v", err)
		}
		r.card("ben")
		r.temp(36.4)
		ben := r.id()
		if err := r.do(edge.Action{Kind: edge.ActDeny, Presentation: ben}); !errors.Is(err, edge.ErrLate) || errors.As(err, &l) && l.By == "" {
			r.t.Errorf("%v", err)
		}
		r.walk()
		r.wait(2 * time.Second)
	})
}

// A call for help holds whatever happens at the lane, is on all screens before it
// is on record, and is an alert, once, until somebody is coming.
func TestCallForHelp(t *testing.T) {
	calls := func(r *rig) (by []string) {
		for _, h := range r.lanes[0].View().Help {
			by = append(by, h.By)
		}
		return by
	}
	call := func(r *rig, actor string, presentation uint64) error {
		err := r.lanes[0].Do(r.ctx, edge.Action{Kind: edge.ActCall, Lane: "lane1", Actor: actor, Presentation: presentation})
		synctest.Wait()
		return err
	}
	lines := played(t, setup{}, func(r *rig) {
		r.card("anna")
		r.temp(38)
		anna := r.id()
		r.mustDo(edge.Action{Kind: edge.ActDeny, Presentation: anna})
		r.wait(time.Minute)
		r.want(edge.LaneIdle)
		// The button of a page that is a minute old.
		if err := call(r, "guard:1", anna); err != nil {
			r.t.Fatal(err)
		}
		for range 3 {
			if err := call(r, "guard:1", 0); err != nil { // a hand that shakes
				r.t.Fatal(err)
			}
		}
		if err := call(r, "guard:2", 0); err != nil {
			r.t.Fatal(err)
		}
		if got := calls(r); !slices.Equal(got, []string{"guard:1", "guard:2"}) {
			r.t.Errorf("%q", got)
		}
		first := r.lanes[0].View().Help[0]
		r.mustDo(edge.Action{Kind: edge.ActComing, Presentation: first.ID})
		if err := r.do(edge.Action{Kind: edge.ActComing, Presentation: first.ID}); !errors.Is(err, edge.ErrLate) {
			r.t.Errorf("%v", err)
		}
		if got := calls(r); !slices.Equal(got, []string{"guard:2"}) {
			r.t.Errorf("%q", got)
		}
		// Nobody came: calling again is another alert, and still one call.
		r.wait(time.Minute)
		if err := call(r, "guard:2", 0); err != nil {
			r.t.Fatal(err)
		}
		if got := calls(r); !slices.Equal(got, []string{"guard:2"}) {
			r.t.Errorf("%q", got)
		}
	})
	alerts := 0
	for _, l := range lines {
		if strings.Contains(l, " alert ") && strings.Contains(l, `"alert":"help"`) {
			alerts++
		}
	}
	if alerts != 3 {
		t.Errorf("%d alerts, want 3: %q", alerts, lines)
	}
	wantLine(t, lines, "action", `"action":"coming"`, `"to":"guard:1"`)
}

func TestCallForHelpWithoutAJournal(t *testing.T) {
	lines := played(t, setup{}, func(r *rig) {
		seen := make(chan edge.LaneView, 100)
		ctx, stop := context.WithCancel(r.ctx)
		defer stop()
		w := r.lanes[0].Watch(ctx)
		go func() {
			for v := range w {
				seen <- v
			}
		}()
		stall := make(chan struct{})
		r.j.mu.Lock()
		r.j.stall = stall
		r.j.mu.Unlock()
		done := make(chan error, 1)
		go func() { done <- r.lanes[0].Do(r.ctx, edge.Action{Kind: edge.ActCall, Lane: "lane1", Actor: "guard:1"}) }()
		synctest.Wait() // no time has passed: the commit has not come
		shown := false
		for len(seen) > 0 {
			shown = len((<-seen).Help) == 1 || shown
		}
		if !shown {
			r.t.Error("the screens wait for the journal")
		}
		r.wait(3 * time.Second)
		if err := <-done; err != nil {
			r.t.Errorf("%v", err)
		}
		r.j.mu.Lock()
		r.j.stall, r.j.err = nil, errors.New("disk full")
		r.j.mu.Unlock()
		close(stall)
		r.wait(10 * time.Second)
		r.j.mu.Lock()
		r.j.err = nil
		r.j.mu.Unlock()
		r.wait(10 * time.Second)
		if n := len(r.lanes[0].View().Help); n != 1 {
			r.t.Errorf("%d calls", n)
		}
	})
	wantLine(t, lines, "alert", `"alert":"help"`)
}

// The numbers of two starts do not meet, and fit into a float.
func TestFreshIDs(t *testing.T) {
	seen := map[uint64]bool{}
	for range 100 {
		i := FreshIDs()
		n := i.next()
		if seen[n] || n > edge.MaxID || n%1e6 != 1 || i.next() != n+1 {
			t.Fatalf("%d", n)
		}
		seen[n] = true
	}
}

// A watcher that never reads does not hold up the lane, and finds the latest when
// it does.
func TestAWatcherThatDoesNotRead(t *testing.T) {
	played(t, setup{}, func(r *rig) {
		ctx, stop := context.WithCancel(r.ctx)
		defer stop()
		w := r.lanes[0].Watch(ctx)
		for range 5 {
			r.mustDo(edge.Action{Kind: edge.ActClose})
			r.mustDo(edge.Action{Kind: edge.ActOpen})
		}
		r.want(edge.LaneIdle)
		if v := <-w; v.Version != r.lanes[0].View().Version {
			r.t.Errorf("version %d, the lane is at %d", v.Version, r.lanes[0].View().Version)
		}
	})
}
