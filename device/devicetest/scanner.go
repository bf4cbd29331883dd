// Package devicetest holds one contract suite for each interface of package
// device, which every driver and every simulation passes, and playback of
// recorded bytes.
package devicetest

import (
	"context"
	"errors"
	"testing"
	"time"

	"go.uber.org/goleak"

	"gatehouse/device"
)

// Limit is how long the suites wait for what must come. It is no measure of
// speed: whoever gets there has failed.
const Limit = 10 * time.Second

// ScannerRig is a scanner and the far side of its wire.
type ScannerRig struct {
	// Scanner is new: nothing was read from it yet.
	Scanner device.Scanner
	// Present shows card i once (cards 0, 1, 2, ... differ) and returns the
	// read that must come of it, without Reader and At.
	Present func(i int) device.CardRead
	// Garble sends a frame that must be refused. Nil where the wire has none.
	Garble func()
	// Unplug and Plug take the far side away and bring it back, under another
	// name where devices have names. Nil for a wire that cannot be unplugged.
	Unplug, Plug func()
	// Close takes the far side down at the end.
	Close func()
}

// Scanner runs the contract suite. newRig makes a fresh rig for each part.
func Scanner(t *testing.T, newRig func(t *testing.T) *ScannerRig) {
	t.Helper()
	part := func(name string, run func(t *testing.T, rig *ScannerRig)) {
		t.Run(name, func(t *testing.T) {
			leaks := goleak.IgnoreCurrent()
			rig := newRig(t)
			run(t, rig)
			if err := rig.Scanner.Close(); err != nil {
				t.Errorf("Close: %v", err)
			}
			if err := rig.Scanner.Close(); err != nil {
				t.Errorf("second Close: %v", err)
			}
			if rig.Close != nil {
				rig.Close()
			}
			if s := rig.Scanner.Health().State; s != device.StateClosed {
				t.Errorf("closed, but its health says %s", s)
			}
			goleak.VerifyNone(t, leaks)
		})
	}
	part("reads", func(t *testing.T, rig *ScannerRig) {
		for i := range 5 {
			wantCard(t, rig, i)
		}
		h := rig.Scanner.Health()
		if h.State != device.StateOK || h.Reads != 5 || h.LastRead.IsZero() || h.Garbled != 0 {
			t.Errorf("health after five reads: %+v", h)
		}
		if h.Name == "" || h.Driver == "" || h.Where == "" {
			t.Errorf("health does not say which device it is of: %+v", h)
		}
	})
	part("repetitions", func(t *testing.T, rig *ScannerRig) {
		wantCard(t, rig, 0)
		rig.Present(0)
		rig.Present(0)
		wantCard(t, rig, 1)
	})
	part("cancel", func(t *testing.T, rig *ScannerRig) {
		wantCard(t, rig, 0) // so that it waits within an open device
		ctx, cancel := context.WithCancel(t.Context())
		err := blocked(t, rig.Scanner, ctx, cancel)
		if !errors.Is(err, context.Canceled) {
			t.Errorf("read cancelled: %v", err)
		}
		wantCard(t, rig, 1) // and nothing is broken by it
		ctx, cancel = context.WithCancel(t.Context())
		cancel()
		if _, err := rig.Scanner.Read(ctx); !errors.Is(err, context.Canceled) {
			t.Errorf("read with a context that is done: %v", err)
		}
	})
	part("close", func(t *testing.T, rig *ScannerRig) {
		wantCard(t, rig, 0)
		err := blocked(t, rig.Scanner, t.Context(), func() {
			if err := rig.Scanner.Close(); err != nil {
				t.Errorf("Close: %v", err)
			}
		})
		if !errors.Is(err, device.ErrClosed) {
			t.Errorf("read closed: %v", err)
		}
		if _, err := rig.Scanner.Read(t.Context()); !errors.Is(err, device.ErrClosed) {
			t.Errorf("read after close: %v", err)
		}
	})
	part("close before use", func(t *testing.T, rig *ScannerRig) {
		if s := rig.Scanner.Health().State; s != device.StateStarting {
			t.Errorf("not used yet, but its health says %s", s)
		}
	})
	part("garbled", func(t *testing.T, rig *ScannerRig) {
		if rig.Garble == nil {
			return // the rig says that this wire has no frame to refuse
		}
		wantCard(t, rig, 0)
		rig.Garble()
		_, err := read(t, rig.Scanner)
		wantKind(t, err, device.ErrGarbled)
		wantCard(t, rig, 1)
		if h := rig.Scanner.Health(); h.Garbled == 0 || h.LastError == "" {
			t.Errorf("a garbled frame is not in the health: %+v", h)
		}
	})
	part("unplug", func(t *testing.T, rig *ScannerRig) {
		if rig.Unplug == nil {
			return // nothing to unplug
		}
		wantCard(t, rig, 0)
		for round := range 2 {
			rig.Unplug()
			_, err := read(t, rig.Scanner)
			wantKind(t, err, device.ErrDisconnected)
			if h := rig.Scanner.Health(); h.State != device.StateDisconnected || h.LastError == "" {
				t.Errorf("unplugged, but its health is %+v", h)
			}
			// Reported once: the next read waits until it is back.
			wantCardAfter(t, rig, 1+round, rig.Plug)
			if h := rig.Scanner.Health(); h.State != device.StateOK || h.Reopens != uint64(round+1) {
				t.Errorf("plugged in again, but its health is %+v", h)
			}
		}
	})
	part("absent at start", func(t *testing.T, rig *ScannerRig) {
		if rig.Unplug == nil {
			return // nothing to unplug
		}
		rig.Unplug()
		_, err := read(t, rig.Scanner)
		wantKind(t, err, device.ErrAbsent)
		if h := rig.Scanner.Health(); h.State != device.StateAbsent {
			t.Errorf("absent, but its health is %+v", h)
		}
		err = blocked(t, rig.Scanner, t.Context(), nil)
		if !errors.Is(err, context.DeadlineExceeded) {
			t.Errorf("absence is reported twice: %v", err)
		}
		wantCardAfter(t, rig, 0, rig.Plug)
	})
}

type result struct {
	card device.CardRead
	err  error
}

func start(ctx context.Context, s device.Scanner) <-chan result {
	out := make(chan result, 1)
	go func() {
		c, err := s.Read(ctx)
		out <- result{c, err}
	}()
	return out
}

func await(t *testing.T, out <-chan result) (device.CardRead, error) {
	t.Helper()
	select {
	case r := <-out:
		return r.card, r.err
	case <-time.After(Limit):
		t.Fatal("Read does not return")
		return device.CardRead{}, nil
	}
}

func read(t *testing.T, s device.Scanner) (device.CardRead, error) {
	t.Helper()
	return await(t, start(t.Context(), s))
}

// blocked checks that a read with nothing to read waits, and returns what it
// says after end; without end it is given a context that ends by itself.
func blocked(t *testing.T, s device.Scanner, ctx context.Context, end func()) error {
	t.Helper()
	if end == nil {
		var cancel context.CancelFunc
		ctx, cancel = context.WithTimeout(ctx, 300*time.Millisecond)
		defer cancel()
	}
	out := start(ctx, s)
	select {
	case r := <-out:
		if end == nil {
			return r.err
		}
		t.Fatalf("Read returned %+v, %v with nothing to read", r.card, r.err)
	case <-time.After(50 * time.Millisecond):
		// Not a wait for something: a chance for a wrong return to show.
	}
	if end != nil {
		end()
	}
	_, err := await(t, out)
	return err
}

// wantCard presents card i and expects it to be read, whatever passing faults
// are reported before.
func wantCard(t *testing.T, rig *ScannerRig, i int) {
	t.Helper()
	wantCardAfter(t, rig, i, func() {})
}

func wantCardAfter(t *testing.T, rig *ScannerRig, i int, before func()) {
	t.Helper()
	before()
	want := rig.Present(i)
	from := time.Now()
	for {
		got, err := read(t, rig.Scanner)
		if errors.Is(err, device.ErrGarbled) {
			continue
		}
		if err != nil {
			t.Fatalf("card %d: %v", i, err)
		}
		if got.Reader == "" || got.At.IsZero() || time.Since(got.At) > time.Since(from)+Limit {
			t.Errorf("card %d was read by %q at %v", i, got.Reader, got.At)
		}
		got.Reader, got.At = "", time.Time{}
		if got != want {
			t.Fatalf("card %d: read %+v, want %+v", i, got, want)
		}
		return
	}
}

func wantKind(t *testing.T, err, kind error) {
	t.Helper()
	var de *device.Error
	if !errors.As(err, &de) || !errors.Is(err, kind) {
		t.Fatalf("error %v, want a device.Error of kind %v", err, kind)
	}
	if de.Device == "" || de.Op == "" {
		t.Errorf("error %v does not say which device and what", err)
	}
}
