package devicetest

import (
	"context"
	"errors"
	"testing"
	"time"

	"go.uber.org/goleak"

	"gatehouse/device"
)

// answer is what a blocking call returned.
type answer[T any] struct {
	v   T
	err error
}

// ask makes a blocking call in the background.
func ask[T any](ctx context.Context, f func(context.Context) (T, error)) <-chan answer[T] {
	out := make(chan answer[T], 1)
	go func() {
		v, err := f(ctx)
		out <- answer[T]{v, err}
	}()
	return out
}

// answered waits for the call to return.
func answered[T any](t *testing.T, out <-chan answer[T]) (T, error) {
	t.Helper()
	select {
	case a := <-out:
		return a.v, a.err
	case <-time.After(Limit):
		t.Fatal("the call does not return")
		panic("unreachable")
	}
}

// got is ask and answered.
func got[T any](t *testing.T, f func(context.Context) (T, error)) (T, error) {
	t.Helper()
	return answered(t, ask(t.Context(), f))
}

// ends checks that a call that has nothing to return waits, and returns soon
// when its context is cancelled.
func ends[T any](t *testing.T, f func(context.Context) (T, error)) {
	t.Helper()
	ctx, cancel := context.WithCancel(t.Context())
	out := ask(ctx, f)
	cancel()
	from := time.Now()
	if _, err := answered(t, out); !errors.Is(err, context.Canceled) {
		t.Errorf("cancelled: %v", err)
	}
	if took := time.Since(from); took > time.Second {
		t.Errorf("cancelled, but it returned after %v", took)
	}
	if _, err := got(t, func(context.Context) (T, error) { return f(ctx) }); !errors.Is(err, context.Canceled) {
		t.Errorf("with a context that is done: %v", err)
	}
}

// closes closes a device twice and looks at what is left of it.
func closes(t *testing.T, d device.Device) {
	t.Helper()
	for range 2 {
		if err := d.Close(); err != nil {
			t.Errorf("Close: %v", err)
		}
	}
	if s := d.Health().State; s != device.StateClosed {
		t.Errorf("closed, but its health says %s", s)
	}
}

// parts runs the parts of a suite on rigs of their own, and looks for
// goroutines that are left.
func parts[R any](t *testing.T, newRig func(*testing.T) R, end func(*testing.T, R)) func(name string, run func(*testing.T, R)) {
	return func(name string, run func(*testing.T, R)) {
		t.Run(name, func(t *testing.T) {
			leaks := goleak.IgnoreCurrent()
			rig := newRig(t)
			run(t, rig)
			end(t, rig)
			goleak.VerifyNone(t, leaks)
		})
	}
}
