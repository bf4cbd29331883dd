package devicetest

import (
	"context"
	"errors"
	"testing"
	"testing/synctest"
	"time"

	"gatehouse/device"
)

// ContactRig is a contact and the far side of its line. Its suite runs in a
// bubble of fake time.
type ContactRig struct {
	Contact device.Contact
	// Set closes or opens the contact: the level at which its meaning is true,
	// or not.
	Set func(active bool)
	// Debounce is how long a line must rest.
	Debounce time.Duration
	// ExactTimes: an edge's own time is known, not only when it was seen.
	ExactTimes bool
	// Break makes the line fail, or mends it. Nil where it cannot.
	Break func(bool)
}

// Contact runs the contract suite. newRig makes a fresh rig for each part, with
// a contact that is not active.
func Contact(t *testing.T, newRig func(t *testing.T) *ContactRig) {
	t.Helper()
	part := func(name string, run func(t *testing.T, rig *ContactRig)) {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				rig := newRig(t)
				run(t, rig)
				closes(t, rig.Contact)
			})
		})
	}
	change := func(t *testing.T, rig *ContactRig, active bool, count uint64) device.Change {
		t.Helper()
		c, err := got(t, rig.Contact.Watch)
		if err != nil || c.Active != active || c.Count != count || c.At.IsZero() {
			t.Fatalf("%+v, %v; want active %v, count %d", c, err, active, count)
		}
		return c
	}
	still := func(t *testing.T, rig *ContactRig) {
		t.Helper()
		ctx, cancel := context.WithTimeout(t.Context(), 5*time.Second)
		defer cancel()
		if c, err := rig.Contact.Watch(ctx); !errors.Is(err, context.DeadlineExceeded) {
			t.Fatalf("%+v, %v; want no change", c, err)
		}
	}
	part("changes", func(t *testing.T, rig *ContactRig) {
		change(t, rig, false, 0) // the state at once
		still(t, rig)
		for i := range 3 {
			at := time.Now()
			rig.Set(true)
			c := change(t, rig, true, uint64(i+1))
			if rig.ExactTimes && !c.At.Equal(at) {
				t.Errorf("the change is dated %v late", c.At.Sub(at))
			}
			still(t, rig)
			rig.Set(false)
			change(t, rig, false, uint64(i+1))
		}
		if h := rig.Contact.Health(); h.State != device.StateOK || h.Reads == 0 || h.Name == "" || h.Where == "" {
			t.Errorf("health %+v", h)
		}
	})
	part("active at start", func(t *testing.T, rig *ContactRig) {
		rig.Set(true)
		change(t, rig, true, 0)
		rig.Set(false)
		change(t, rig, false, 0)
	})
	part("bouncing", func(t *testing.T, rig *ContactRig) {
		if rig.Debounce == 0 {
			return // the rig says that it takes every edge
		}
		change(t, rig, false, 0)
		at := time.Now()
		for range 10 {
			rig.Set(true)
			time.Sleep(rig.Debounce / 10)
			rig.Set(false)
			time.Sleep(rig.Debounce / 10)
		}
		rig.Set(true)
		c := change(t, rig, true, 1)
		if rig.ExactTimes && !c.At.Equal(at) {
			t.Errorf("the change is dated %v after its first edge", c.At.Sub(at))
		}
		still(t, rig)
		for range 3 { // short pulses are no change
			rig.Set(false)
			time.Sleep(rig.Debounce / 4)
			rig.Set(true)
			still(t, rig)
		}
		if h := rig.Contact.Health(); h.Noise != 3 {
			t.Errorf("three short pulses, but the health says %+v", h)
		}
	})
	part("nothing is lost between watches", func(t *testing.T, rig *ContactRig) {
		change(t, rig, false, 0)
		for range 20 {
			rig.Set(true)
			time.Sleep(time.Second)
			rig.Set(false)
			time.Sleep(time.Second)
		}
		for i := range uint64(20) {
			change(t, rig, true, i+1)
			change(t, rig, false, i+1)
		}
	})
	part("cancel", func(t *testing.T, rig *ContactRig) {
		change(t, rig, false, 0)
		ends(t, rig.Contact.Watch)
		rig.Set(true)
		change(t, rig, true, 1)
	})
	part("close", func(t *testing.T, rig *ContactRig) {
		change(t, rig, false, 0)
		out := ask(t.Context(), rig.Contact.Watch)
		time.Sleep(time.Second)
		from := time.Now()
		closes(t, rig.Contact)
		if _, err := answered(t, out); !errors.Is(err, device.ErrClosed) || time.Since(from) > 100*time.Millisecond {
			t.Errorf("closed: %v after %v", err, time.Since(from))
		}
		if _, err := rig.Contact.Watch(t.Context()); !errors.Is(err, device.ErrClosed) {
			t.Errorf("watched after Close: %v", err)
		}
	})
	part("close before use", func(t *testing.T, rig *ContactRig) {
		if s := rig.Contact.Health().State; s != device.StateStarting {
			t.Errorf("not used yet, but its health says %s", s)
		}
	})
	part("broken line", func(t *testing.T, rig *ContactRig) {
		if rig.Break == nil {
			return // the rig says that its line cannot fail
		}
		rig.Break(true)
		_, err := got(t, rig.Contact.Watch)
		wantKind(t, err, device.ErrAbsent)
		still(t, rig) // reported once
		rig.Break(false)
		change(t, rig, false, 0)
		rig.Break(true)
		_, err = got(t, rig.Contact.Watch)
		wantKind(t, err, device.ErrDisconnected)
		rig.Set(true)
		still(t, rig)
		rig.Break(false)
		change(t, rig, true, 1) // what changed meanwhile is seen
		if h := rig.Contact.Health(); h.State != device.StateOK || h.Reopens == 0 {
			t.Errorf("there again, but its health is %+v", h)
		}
	})
}
