package lane

import (
	"errors"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"gatehouse/device"
	"gatehouse/edge"
)

func (r *rig) try(what edge.TestKind) error {
	err := r.lanes[0].Test(r.ctx, edge.DeviceTest{Lane: "lane1", What: what, Actor: "installer:5"})
	synctest.Wait()
	return err
}

func (r *rig) shown() device.Signal {
	r.lamp[0].mu.Lock()
	defer r.lamp[0].mu.Unlock()
	return r.lamp[0].now
}

func (r *rig) moved() []string {
	r.barrier.mu.Lock()
	defer r.barrier.mu.Unlock()
	return slices.Clone(r.barrier.log)
}

func refusedAs(err error) string {
	var x edge.Refusal
	errors.As(err, &x)
	return x.Code
}

// A test does what it says, is on record before, and leaves the lane as it was.
func TestATestOfEachDevice(t *testing.T) {
	lines := played(t, setup{}, func(r *rig) {
		for what, want := range map[edge.TestKind][]device.Signal{edge.TestLamps: {device.SignalWait, device.SignalGo, device.SignalStop}, edge.TestBuzzer: {device.SignalCall}} {
			if err := r.try(what); err != nil {
				t.Fatal(err)
			}
			for _, s := range want {
				if got, v := r.shown(), r.lanes[0].View(); got != s || v.Test != what || v.State != edge.LaneIdle {
					t.Errorf("%s shows %s in a lane that is %s (test %q), want %s", what, got, v.State, v.Test, s)
				}
				if code := refusedAs(r.try(edge.TestBuzzer)); code != "not_idle" {
					t.Errorf("two tests at once: %q", code)
				}
				r.wait(testSignal)
			}
			if v := r.lanes[0].View(); r.shown() != device.SignalIdle || v.Test != "" {
				t.Errorf("after %s: %s, %q", what, r.shown(), v.Test)
			}
		}
		if err := r.try(edge.TestBarrier); err != nil {
			t.Fatal(err)
		}
		if got := r.moved(); got[len(got)-1] != "admit in" || r.shown() != device.SignalFault || r.lanes[0].View().Test != edge.TestBarrier {
			t.Errorf("%v, %s", got, r.shown())
		}
		r.wait(testOpen)
		if got := r.moved(); got[len(got)-1] != "secure" || r.shown() != device.SignalIdle || r.lanes[0].View().Test != "" {
			t.Errorf("%v, %s, %q", got, r.shown(), r.lanes[0].View().Test)
		}
		if code := refusedAs(r.try("siren")); code != "unknown" {
			t.Errorf("an unknown test: %q", code)
		}
	})
	for _, what := range []string{"lamps", "buzzer", "barrier"} {
		wantLine(t, lines, "test lane=lane1", "actor=installer:5", `"test":"`+what+`"`)
	}
	if len(lines) != 3 {
		t.Errorf("%q", lines)
	}
}

// Nothing is tried while somebody could take it for their turn, and what cannot be
// recorded is not done.
func TestATestIsRefused(t *testing.T) {
	for name, x := range map[string]struct {
		setup setup
		make  func(r *rig)
		what  edge.TestKind
		code  string
	}{
		"somebody is measured": {make: func(r *rig) { r.card("anna") }, what: edge.TestLamps, code: "not_idle"},
		"somebody passes":      {make: func(r *rig) { r.card("anna"); r.temp(36.4) }, what: edge.TestBarrier, code: "not_idle"},
		"at the other lane": {setup: setup{dirs: []edge.Direction{edge.In, edge.Out}}, make: func(r *rig) { r.scan[1].cards <- "anna"; synctest.Wait() },
			what: edge.TestBarrier, code: "not_idle"},
		"a test at the other lane": {setup: setup{dirs: []edge.Direction{edge.In, edge.Out}}, make: func(r *rig) {
			if err := r.lanes[1].Test(r.ctx, edge.DeviceTest{What: edge.TestBarrier, Actor: "installer:5"}); err != nil {
				r.t.Fatal(err)
			}
			synctest.Wait()
		}, what: edge.TestBarrier, code: "not_idle"},
		"somebody in the beam": {make: func(r *rig) { r.beam.changes <- true; synctest.Wait() }, what: edge.TestBarrier, code: "in_the_way"},
		"fire":                 {make: func(r *rig) { r.firein.changes <- true; synctest.Wait() }, what: edge.TestBarrier, code: "fire"},
		"no barrier":           {setup: setup{bare: true}, what: edge.TestBarrier, code: "no_device"},
		"no lamps":             {setup: setup{devices: func(d *Devices) { d.Indicators = nil }}, what: edge.TestLamps, code: "no_device"},
		"the other door":       {make: func(r *rig) { r.barrier.refuse = true }, what: edge.TestBarrier, code: "interlock"},
		"a broken barrier":     {make: func(r *rig) { r.barrier.broken = true }, what: edge.TestBarrier, code: "no_answer"},
		"the disk is full":     {make: func(r *rig) { r.j.mu.Lock(); r.j.err = errors.New("full"); r.j.mu.Unlock() }, what: edge.TestBarrier},
	} {
		t.Run(name, func(t *testing.T) {
			played(t, x.setup, func(r *rig) {
				if x.make != nil {
					x.make(r)
				}
				before := slices.DeleteFunc(r.moved(), func(s string) bool { return !strings.HasPrefix(s, "admit") })
				err := r.try(x.what)
				if err == nil || refusedAs(err) != x.code {
					t.Errorf("%v, want %q", err, x.code)
				}
				after := slices.DeleteFunc(r.moved(), func(s string) bool { return !strings.HasPrefix(s, "admit") })
				if !slices.Equal(before, after) {
					t.Errorf("the barrier was moved: %v", after)
				}
				if r.lanes[0].View().Test != "" {
					t.Error("the lane says that it is tried")
				}
				r.j.mu.Lock()
				r.j.err = nil
				r.j.mu.Unlock()
			})
		})
	}
}

// Who comes while the barrier is tried finds it shut, is decided like anybody, and
// nobody is counted for the test; who goes through with it is on record.
func TestSomebodyComesInATest(t *testing.T) {
	lines := played(t, setup{}, func(r *rig) {
		if err := r.try(edge.TestBarrier); err != nil {
			t.Fatal(err)
		}
		r.card("lost")
		if got := r.moved(); got[len(got)-1] != "secure" || r.lanes[0].View().Test != "" {
			t.Errorf("%v", got)
		}
		r.temp(36.4)
		r.want(edge.LaneDenied)
		r.wait(20 * time.Second)

		if err := r.try(edge.TestBarrier); err != nil {
			t.Fatal(err)
		}
		// Somebody stands in the beam when the time is over: it shuts behind them.
		r.beam.changes <- true
		r.wait(testOpen + time.Second)
		if got := r.moved(); got[len(got)-1] != "admit in" {
			t.Errorf("shut upon somebody: %v", got)
		}
		r.beam.changes <- false
		r.wait(time.Second)
		if got := r.moved(); got[len(got)-1] != "secure" {
			t.Errorf("%v", got)
		}

		// A beam that stays broken keeps it open for some time, not for ever.
		if err := r.try(edge.TestBarrier); err != nil {
			t.Fatal(err)
		}
		r.beam.changes <- true
		r.wait(time.Minute)
		if got := r.moved(); got[len(got)-1] != "secure" || r.lanes[0].View().Test != "" {
			t.Errorf("%v", got)
		}
		r.beam.changes <- false
		r.wait(20 * time.Second)

		// A fire ends a test, and the barrier stays free.
		if err := r.try(edge.TestBarrier); err != nil {
			t.Fatal(err)
		}
		r.firein.changes <- true
		r.wait(time.Minute)
		if got := r.moved(); got[len(got)-1] != "free true" || r.shown() != device.SignalFree || r.lanes[0].View().Test != "" {
			t.Errorf("%v, %s", got, r.shown())
		}
	})
	wantLine(t, lines, "test lane=lane1", `"persons":1`)
	wantLine(t, lines, "outcome=deny")
}
