package panel

import (
	"context"
	"errors"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"gatehouse/device"
	"gatehouse/device/bus"
	"gatehouse/device/options"
	"gatehouse/device/sim"
)

func parse(t *testing.T, src string) options.Node {
	t.Helper()
	n, err := options.Parse("gate.yaml", []byte(src))
	if err != nil {
		t.Fatal(err)
	}
	return n
}

// pressed fetches what was pressed, within a second.
func pressed(t *testing.T, p device.Panel) string {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), time.Second)
	defer cancel()
	got, err := p.Press(ctx)
	if errors.Is(err, context.DeadlineExceeded) {
		return ""
	}
	if err != nil {
		t.Fatal(err)
	}
	return got.Button
}

func TestButtons(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		pins := map[string]*sim.Contact{"admit": sim.NewContact("admit"), "deny": sim.NewContact("deny")}
		contacts := map[string]device.Contact{"admit": pins["admit"], "deny": pins["deny"]}
		p := NewButtons("panel", contacts)
		press := func(b string, d time.Duration) {
			pins[b].Set(true)
			time.Sleep(d)
			pins[b].Set(false)
			time.Sleep(50 * time.Millisecond)
		}
		pins["deny"].Set(true) // held at the start: somebody leans on it
		if b := pressed(t, p); b != "" {
			t.Errorf("%s at the start", b)
		}
		pins["deny"].Set(false)
		press("admit", 100*time.Millisecond)
		if b := pressed(t, p); b != "admit" {
			t.Errorf("pressed %q", b)
		}
		press("deny", 100*time.Millisecond)
		press("deny", 100*time.Millisecond) // a shaking hand
		press("admit", 2*time.Second)       // held
		for _, want := range []string{"deny", "admit", ""} {
			if b := pressed(t, p); b != want {
				t.Errorf("pressed %q, want %q", b, want)
			}
		}
		press("admit", 100*time.Millisecond)
		time.Sleep(time.Minute) // nobody fetches it
		if b := pressed(t, p); b != "" {
			t.Errorf("a press of a minute ago is %s", b)
		}
		pins["deny"].Break()
		time.Sleep(2 * time.Second)
		if _, err := p.Press(t.Context()); !errors.Is(err, device.ErrDisconnected) {
			t.Errorf("a broken line: %v", err)
		}
		press("admit", 100*time.Millisecond) // the other button still works
		if b := pressed(t, p); b != "admit" {
			t.Errorf("pressed %q", b)
		}
		for range 2 {
			if err := p.Close(); err != nil {
				t.Error(err)
			}
		}
		if _, err := p.Press(t.Context()); !errors.Is(err, device.ErrClosed) || p.Health().State != device.StateClosed {
			t.Errorf("after Close: %v", err)
		}
	})
}

func TestKeypad(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		kbd := sim.NewKeyboard()
		p, err := NewKeypad("panel", parse(t, "input: /dev/input/x\nkeys: {kpenter: admit, kp0: deny}"), kbd.Open)
		if err != nil {
			t.Fatal(err)
		}
		if b := pressed(t, p); b != "" {
			t.Errorf("pressed %q", b)
		}
		key := func(code uint16, value int32) { kbd.Send(bus.InputEvent{Type: bus.EvKey, Code: code, Value: value}) }
		key(96, 1)
		for range 30 {
			key(96, 2) // held: it repeats
		}
		key(96, 0)
		if b := pressed(t, p); b != "admit" {
			t.Errorf("pressed %q", b)
		}
		key(30, 1) // a key without a meaning
		key(82, 1)
		for _, want := range []string{"deny", ""} {
			if b := pressed(t, p); b != want {
				t.Errorf("pressed %q, want %q", b, want)
			}
		}
		kbd.Unplug()
		if _, err := p.Press(t.Context()); !errors.Is(err, device.ErrDisconnected) {
			t.Errorf("unplugged: %v", err)
		}
		kbd.Plug()
		time.Sleep(10 * time.Second)
		key(96, 1)
		if b := pressed(t, p); b != "admit" {
			t.Errorf("plugged in again: pressed %q", b)
		}
		if err := p.Close(); err != nil {
			t.Error(err)
		}
	})
}

func TestOptions(t *testing.T) {
	for _, c := range []struct{ src, want string }{
		{"keys: {kp1: admit}", "input: give one of input"},
		{"input: /x", "keys: must be given"},
		{"input: /x\nkeys: {kpentre: admit}", `no key is called "kpentre", did you mean "kpenter"?`},
	} {
		if _, err := NewKeypad("panel", parse(t, c.src), sim.NewKeyboard().Open); err == nil || !strings.Contains(err.Error(), c.want) {
			t.Errorf("%q: %v, want %q", c.src, err, c.want)
		}
	}
}
