package devicetest

import (
	"errors"
	"testing"
	"testing/synctest"
	"time"

	"gatehouse/device"
)

// BarrierRig is a barrier and probes on its lines. Its suite runs in a bubble
// of fake time, so all must be made in the bubble.
type BarrierRig struct {
	Barrier device.Barrier
	// Open reads off the wire whether a direction is open.
	Open func(device.Direction) bool
	// Moves counts the changes on all lines so far, the first taking of a line
	// included; -1 where that cannot be seen.
	Moves func() int
	// Pulse is how long an admission opens; 0 = until Secure.
	Pulse time.Duration
	// BothWays: one line opens both directions.
	BothWays bool
	// OpenWhenClosed: fail-safe.
	OpenWhenClosed bool
	// Break makes the lines fail, or mends them. Nil where it cannot.
	Break func(bool)
}

// Barrier runs the contract suite. newRig makes a fresh rig for each part.
func Barrier(t *testing.T, newRig func(t *testing.T) *BarrierRig) {
	t.Helper()
	part := func(name string, run func(t *testing.T, rig *BarrierRig)) {
		t.Run(name, func(t *testing.T) {
			// The bubble fails when a goroutine is left.
			synctest.Test(t, func(t *testing.T) {
				rig := newRig(t)
				run(t, rig)
				closes(t, rig.Barrier)
			})
		})
	}
	open := func(t *testing.T, rig *BarrierRig, in, out bool, when string) {
		t.Helper()
		if rig.BothWays {
			in, out = in || out, in || out
		}
		if gotIn, gotOut := rig.Open(device.In), rig.Open(device.Out); gotIn != in || gotOut != out {
			t.Errorf("%s: open in %v, out %v; want %v, %v", when, gotIn, gotOut, in, out)
		}
	}
	ok := func(t *testing.T, err error) {
		t.Helper()
		if err != nil {
			t.Error(err)
		}
	}
	part("untouched", func(t *testing.T, rig *BarrierRig) {
		if n := rig.Moves(); n > 0 {
			t.Errorf("%d moves before the first call", n)
		}
		if s := rig.Barrier.Health().State; s != device.StateStarting {
			t.Errorf("not used yet, but its health says %s", s)
		}
		closes(t, rig.Barrier)
		if n := rig.Moves(); n > 0 {
			t.Errorf("%d moves though it was never used", n)
		}
	})
	part("shut from the first moment", func(t *testing.T, rig *BarrierRig) {
		ok(t, rig.Barrier.Secure(t.Context()))
		open(t, rig, false, false, "secured")
		lines := 2
		if rig.BothWays {
			lines = 1
		}
		if n := rig.Moves(); n >= 0 && n != lines {
			t.Errorf("%d moves to take %d lines: a glitch", n, lines)
		}
		ok(t, rig.Barrier.Secure(t.Context()))
		if n := rig.Moves(); n >= 0 && n != lines {
			t.Errorf("securing what is shut moved a line")
		}
		if h := rig.Barrier.Health(); h.State != device.StateOK || h.Reads == 0 || h.Name == "" || h.Driver == "" || h.Where == "" {
			t.Errorf("health %+v", h)
		}
	})
	part("admit", func(t *testing.T, rig *BarrierRig) {
		ok(t, rig.Barrier.Secure(t.Context()))
		for _, d := range []device.Direction{device.In, device.Out} {
			from := time.Now()
			ok(t, rig.Barrier.Admit(t.Context(), d))
			if took := time.Since(from); took != 0 {
				t.Errorf("Admit blocked for %v", took)
			}
			open(t, rig, d == device.In, d == device.Out, "admitted "+string(d))
			if rig.Pulse == 0 {
				time.Sleep(time.Hour)
				open(t, rig, d == device.In, d == device.Out, "held "+string(d))
				ok(t, rig.Barrier.Secure(t.Context()))
			} else {
				time.Sleep(rig.Pulse - time.Millisecond)
				open(t, rig, d == device.In, d == device.Out, "before the pulse's end")
				time.Sleep(2 * time.Millisecond)
			}
			open(t, rig, false, false, "after "+string(d))
		}
	})
	part("secure ends a pulse", func(t *testing.T, rig *BarrierRig) {
		ok(t, rig.Barrier.Admit(t.Context(), device.In))
		ok(t, rig.Barrier.Secure(t.Context()))
		open(t, rig, false, false, "secured amid a pulse")
		ok(t, rig.Barrier.Admit(t.Context(), device.In))
		if rig.Pulse > 0 {
			// The end of the first pulse must not cut the second.
			time.Sleep(rig.Pulse - time.Millisecond)
		}
		open(t, rig, true, false, "second pulse")
	})
	part("free", func(t *testing.T, rig *BarrierRig) {
		ok(t, rig.Barrier.Secure(t.Context()))
		ok(t, rig.Barrier.Admit(t.Context(), device.In))
		ok(t, rig.Barrier.Free(t.Context(), true))
		open(t, rig, true, true, "free")
		time.Sleep(time.Hour)
		open(t, rig, true, true, "free for an hour")
		ok(t, rig.Barrier.Admit(t.Context(), device.In))
		ok(t, rig.Barrier.Secure(t.Context()))
		time.Sleep(time.Minute)
		open(t, rig, true, true, "nothing else shuts it")
		ok(t, rig.Barrier.Free(t.Context(), false))
		open(t, rig, false, false, "no longer free")
	})
	part("close", func(t *testing.T, rig *BarrierRig) {
		ok(t, rig.Barrier.Secure(t.Context()))
		ok(t, rig.Barrier.Admit(t.Context(), device.In))
		closes(t, rig.Barrier)
		open(t, rig, rig.OpenWhenClosed, rig.OpenWhenClosed, "closed")
		for _, err := range []error{rig.Barrier.Admit(t.Context(), device.In), rig.Barrier.Secure(t.Context()), rig.Barrier.Free(t.Context(), true)} {
			if !errors.Is(err, device.ErrClosed) {
				t.Errorf("a call after Close: %v", err)
			}
		}
		time.Sleep(time.Hour)
		open(t, rig, rig.OpenWhenClosed, rig.OpenWhenClosed, "an hour later")
	})
	part("broken line", func(t *testing.T, rig *BarrierRig) {
		if rig.Break == nil {
			return // the rig says that its lines cannot fail
		}
		rig.Break(true)
		wantKind(t, rig.Barrier.Secure(t.Context()), device.ErrAbsent)
		if s := rig.Barrier.Health().State; s != device.StateAbsent {
			t.Errorf("absent, but its health says %s", s)
		}
		rig.Break(false)
		time.Sleep(time.Second)
		if s := rig.Barrier.Health().State; s != device.StateOK {
			t.Errorf("there again, but its health says %s", s)
		}
		open(t, rig, false, false, "there again")
		ok(t, rig.Barrier.Admit(t.Context(), device.In))
		rig.Break(true)
		if rig.Pulse > 0 {
			time.Sleep(rig.Pulse + time.Second) // its end cannot be written
		} else {
			wantKind(t, rig.Barrier.Secure(t.Context()), device.ErrDisconnected)
		}
		if s := rig.Barrier.Health().State; s != device.StateDisconnected {
			t.Errorf("gone, but its health says %s", s)
		}
		rig.Break(false)
		time.Sleep(time.Second)
		open(t, rig, false, false, "the end of the pulse is made up for")
		rig.Break(true)
		wantKind(t, rig.Barrier.Admit(t.Context(), device.In), device.ErrDisconnected)
		rig.Break(false)
		time.Sleep(time.Second)
		open(t, rig, false, false, "an admission that failed opens nothing later")
	})
}

// IndicatorRig is an indicator and probes on its lines. Its suite runs in a
// bubble of fake time.
type IndicatorRig struct {
	Indicator device.Indicator
	// Lit reads off the wire which lamps and tones are on, one bit for each; 0
	// is dark and silent.
	Lit func() int
	// Break makes the lines fail, or mends them. Nil where it cannot.
	Break func(bool)
}

// Indicator runs the contract suite. newRig makes a fresh rig for each part.
func Indicator(t *testing.T, newRig func(t *testing.T) *IndicatorRig) {
	t.Helper()
	part := func(name string, run func(t *testing.T, rig *IndicatorRig)) {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				rig := newRig(t)
				run(t, rig)
				closes(t, rig.Indicator)
				if lit := rig.Lit(); lit != 0 {
					t.Errorf("closed, but lamps %b are lit", lit)
				}
			})
		})
	}
	show := func(t *testing.T, rig *IndicatorRig, s device.Signal) {
		t.Helper()
		from := time.Now()
		if err := rig.Indicator.Show(t.Context(), s); err != nil {
			t.Error(err)
		}
		if took := time.Since(from); took != 0 {
			t.Errorf("Show blocked for %v", took)
		}
	}
	// look is what a signal looks like over some seconds.
	look := func(rig *IndicatorRig) (states map[int]bool, last int) {
		states = map[int]bool{}
		for range 500 {
			states[rig.Lit()] = true
			time.Sleep(10 * time.Millisecond)
		}
		return states, rig.Lit()
	}
	part("signals", func(t *testing.T, rig *IndicatorRig) {
		show(t, rig, device.SignalIdle)
		if states, _ := look(rig); len(states) != 1 || !states[0] {
			t.Errorf("idle is not dark: %v", states)
		}
		show(t, rig, device.SignalGo)
		_, green := look(rig)
		show(t, rig, device.SignalStop)
		_, red := look(rig)
		if green == 0 || red == 0 || green == red {
			t.Errorf("go is %b and stop is %b", green, red)
		}
		show(t, rig, device.SignalFree)
		if states, _ := look(rig); len(states) < 2 {
			t.Errorf("free does not blink: %v", states)
		}
		for _, s := range []device.Signal{device.SignalWait, device.SignalFault, device.SignalCall} {
			show(t, rig, s)
			look(rig)
		}
		show(t, rig, device.SignalIdle)
		if states, _ := look(rig); len(states) != 1 || !states[0] {
			t.Errorf("something goes on after idle: %v", states)
		}
		if h := rig.Indicator.Health(); h.State != device.StateOK || h.Reads == 0 || h.Name == "" || h.Where == "" {
			t.Errorf("health %+v", h)
		}
	})
	part("no such signal", func(t *testing.T, rig *IndicatorRig) {
		wantKind(t, rig.Indicator.Show(t.Context(), "dance"), device.ErrOutOfRange)
	})
	part("close amid a signal", func(t *testing.T, rig *IndicatorRig) {
		show(t, rig, device.SignalFree)
		closes(t, rig.Indicator)
		if err := rig.Indicator.Show(t.Context(), device.SignalGo); !errors.Is(err, device.ErrClosed) {
			t.Errorf("shown after Close: %v", err)
		}
		time.Sleep(time.Hour)
	})
	part("broken line", func(t *testing.T, rig *IndicatorRig) {
		if rig.Break == nil {
			return // the rig says that its lines cannot fail
		}
		rig.Break(true)
		wantKind(t, rig.Indicator.Show(t.Context(), device.SignalGo), device.ErrAbsent)
		rig.Break(false)
		time.Sleep(5 * time.Second)
		if s := rig.Indicator.Health().State; s != device.StateOK || rig.Lit() == 0 {
			t.Errorf("there again, but its health says %s and lamps %b are lit", s, rig.Lit())
		}
	})
}
