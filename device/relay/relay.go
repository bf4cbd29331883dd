// Package relay moves a barrier with one relay, or a turnstile with one for
// each direction.
//
// # Wiring
//
// A GPIO line drives the relay board's input; the relay's contact goes to the
// opening input of the barrier's or the turnstile's controller, or into the
// supply of a lock. Never drive a coil from a GPIO line. A resistor (10k) to the
// level that is not active keeps the barrier shut while the Pi boots, restarts
// or has crashed: what a line does then is the chip's affair, not software's.
// Where the controller can limit the pulse, let it: a crash amid a pulse leaves
// the line as it is until the process is started again.
//
// A door on an escape route is released by a contact of the fire system in
// series with the lock's supply, not by this.
//
// # Output
//
// The line is taken by the first call, normally the lane's Secure at its start,
// and has the shut level from that moment. Close leaves it shut, or open with
// fail: safe. Secure ends a pulse.
//
// # Config
//
//	barrier:
//	  driver: relay
//	  pin: GPIO17
//	  active: high         # the level that opens
//	  mode: pulse          # or hold: open until the lane ends the passage
//	  pulse: 500ms
//	  fail: secure         # or safe: open when Gatehouse stops
//
//	  limited: false       # true: the controller ends the pulse by itself
//	  interlock:           # opens only while this contact is not active
//	    driver: gpio
//	    pin: GPIO6
//
//	barrier:
//	  driver: turnstile
//	  in: GPIO17
//	  out: GPIO27          # otherwise as above
//
// # Interlock
//
// Of two doors in a row one opens only while the other is shut: each barrier
// names the contact of the other door. While that is open, or unknown, Admit is
// refused (device.ErrRefused). Free opens all the same.
//
// # What was checked
//
// The contract suite on periph's test pins and pins in memory; the lines' levels
// at start, stop, restart and crash on the kernel's GPIO in a virtual machine.
// Not checked with a particular relay board.
package relay

import (
	"context"
	"errors"
	"fmt"
	"io"
	"sync"
	"time"

	"periph.io/x/conn/v3/gpio"

	"gatehouse/device"
	"gatehouse/device/bus"
	"gatehouse/device/options"
)

// Config is a barrier's options.
type Config struct {
	Pin    string        `yaml:"pin"` // of a relay
	In     string        `yaml:"in"`  // of a turnstile
	Out    string        `yaml:"out"`
	Active string        `yaml:"active"` // high or low
	Mode   string        `yaml:"mode"`   // pulse or hold
	Pulse  time.Duration `yaml:"pulse"`
	Fail   string        `yaml:"fail"` // secure or safe

	Limited   bool         `yaml:"limited"`   // the controller ends the pulse
	Interlock options.Node `yaml:"interlock"` // the catalogue makes Other of it

	// Other is active while the other door of an interlock is open; nil
	// without one. The barrier owns it.
	Other device.Contact
}

// Load reads and checks the options; two says that it is a turnstile.
func Load(n options.Node, two bool) (Config, error) {
	c := Config{Active: "high", Mode: "pulse", Pulse: 500 * time.Millisecond, Fail: "secure"}
	if err := n.Decode(&c); err != nil {
		return c, err
	}
	need := map[string]string{"pin": c.Pin}
	if two {
		need = map[string]string{"in": c.In, "out": c.Out}
	}
	for _, k := range []string{"pin", "in", "out"} {
		v, want := need[k]
		if want && v == "" {
			return c, n.At(k).Errorf("must be given: a GPIO line, like GPIO17")
		}
		if !want && !n.At(k).IsZero() {
			return c, n.At(k).Errorf("is not for this driver: a relay has pin, a turnstile in and out")
		}
	}
	for _, k := range []struct{ key, got, one, other string }{
		{"active", c.Active, "high", "low"}, {"mode", c.Mode, "pulse", "hold"}, {"fail", c.Fail, "secure", "safe"},
	} {
		if k.got != k.one && k.got != k.other {
			return c, n.At(k.key).Errorf("%q is not %s or %s", k.got, k.one, k.other)
		}
	}
	if c.Pulse < 20*time.Millisecond || c.Pulse > time.Minute {
		return c, n.At("pulse").Errorf("%v is not between 20ms and 1m", c.Pulse)
	}
	return c, nil
}

// retry is the pause before a line that could not be written is tried again.
const retry = 100 * time.Millisecond

// Barrier is a relay or a turnstile.
type Barrier struct {
	*bus.Status
	name string
	c    Config

	mu     sync.Mutex
	ways   []*way
	free   bool
	used   bool // a line was written
	closed bool

	other   bool // the other door is known to be shut
	watched bool
	stop    context.CancelFunc
	done    chan struct{}
}

// way is one relay.
type way struct {
	b     *Barrier
	pin   gpio.PinIO
	open  bool        // as far as this passage goes
	timer *time.Timer // ends the pulse, or tries again
}

var _ device.Barrier = (*Barrier)(nil)

// New builds a barrier on its lines, which it owns: one, or those of a
// turnstile for in and out. It touches nothing.
func New(name string, c Config, pins ...gpio.PinIO) *Barrier {
	driver, where := "relay", c.Pin
	if len(pins) == 2 {
		driver, where = "turnstile", c.In+", "+c.Out
	}
	b := &Barrier{Status: bus.NewStatus(name, driver, where), name: name, c: c}
	for _, p := range pins {
		b.ways = append(b.ways, &way{b: b, pin: p})
	}
	return b
}

func (b *Barrier) way(d device.Direction) *way {
	if d == device.Out {
		return b.ways[len(b.ways)-1]
	}
	return b.ways[0]
}

// Admit opens for one passage.
func (b *Barrier) Admit(_ context.Context, d device.Direction) error {
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.c.Other != nil && !b.closed {
		b.watch()
		if !b.other {
			b.Count("interlocked", 1)
			return &device.Error{Device: b.name, Op: "write", Kind: device.ErrRefused, Err: errInterlock}
		}
	}
	w := b.way(d)
	w.open = true
	if err := w.set(); err != nil {
		w.open = false // nobody is let in later, when the line is back
		return err
	}
	if b.c.Mode == "pulse" {
		w.after(b.c.Pulse, func() { w.open = false })
	}
	return nil
}

// Secure shuts, unless it is held free.
func (b *Barrier) Secure(context.Context) error {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.watch()
	var errs []error
	for _, w := range b.ways {
		w.open = false
		errs = append(errs, w.set())
	}
	return errors.Join(errs...)
}

var errInterlock = errors.New("the other door is open, or it is not known to be shut")

// watch follows the other door from the first call on. b.mu is held.
func (b *Barrier) watch() {
	if b.c.Other == nil || b.watched || b.closed {
		return
	}
	ctx, cancel := context.WithCancel(context.Background())
	b.watched, b.stop, b.done = true, cancel, make(chan struct{})
	go func() {
		defer close(b.done)
		for ctx.Err() == nil {
			ch, err := b.c.Other.Watch(ctx)
			if errors.Is(err, device.ErrClosed) {
				return
			}
			b.mu.Lock()
			b.other = err == nil && !ch.Active
			b.mu.Unlock()
		}
	}()
}

// Warnings says what an installer should know before this is relied on.
func (b *Barrier) Warnings() []string {
	var out []string
	if b.c.Mode == "pulse" && !b.c.Limited {
		out = append(out, fmt.Sprintf("the pulse of %v is ended by software only: let the barrier's controller limit it, and say limited: true", b.c.Pulse))
	}
	if b.c.Mode == "hold" {
		out = append(out, "the relay is held by software while a passage is open: a crash amid it leaves the line as it is until the restart")
	}
	return out
}

// Free opens all ways until it is called with false.
func (b *Barrier) Free(_ context.Context, free bool) error {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.free = free
	var errs []error
	for _, w := range b.ways {
		w.open = false // a pulse that was going on is over
		errs = append(errs, w.set())
	}
	return errors.Join(errs...)
}

// set writes the level that should be. When that fails it goes on trying: a
// barrier must not stay open because one write failed. b.mu is held.
func (w *way) set() error {
	b := w.b
	if b.closed {
		return &device.Error{Device: b.name, Op: "write", Kind: device.ErrClosed}
	}
	if w.timer != nil {
		w.timer.Stop()
		w.timer = nil
	}
	if err := w.pin.Out(b.level(w.open || b.free)); err != nil {
		err = b.fault(err)
		b.Fail(err)
		w.after(retry, func() {})
		return err
	}
	b.used = true
	b.Good(time.Now())
	return nil
}

// after changes the state in a while and writes it. b.mu is held.
func (w *way) after(d time.Duration, change func()) {
	var t *time.Timer
	t = time.AfterFunc(d, func() {
		w.b.mu.Lock()
		defer w.b.mu.Unlock()
		if w.timer == t && !w.b.closed { // not overtaken by another call
			change()
			_ = w.set() // in the health, and tried again
		}
	})
	w.timer = t
}

func (b *Barrier) level(open bool) gpio.Level { return gpio.Level(open == (b.c.Active == "high")) }

func (b *Barrier) fault(err error) error {
	var e *device.Error
	if errors.As(err, &e) {
		return err
	}
	kind := device.ErrAbsent
	if b.used {
		kind = device.ErrDisconnected
	}
	return &device.Error{Device: b.name, Op: "write", Kind: kind, Err: err}
}

// Try takes the lines, shut, and says why they cannot be had.
func (b *Barrier) Try() error { return b.Secure(context.Background()) }

// Close leaves the lines shut, or open with fail: safe.
func (b *Barrier) Close() error {
	b.mu.Lock()
	if b.closed {
		b.mu.Unlock()
		return nil
	}
	b.closed = true
	watched := b.watched
	b.mu.Unlock()
	var errs []error
	if watched {
		b.stop()
		<-b.done
	}
	if b.c.Other != nil {
		errs = append(errs, b.c.Other.Close())
	}
	b.mu.Lock()
	defer b.mu.Unlock()
	for _, w := range b.ways {
		if w.timer != nil {
			w.timer.Stop()
		}
		if b.used {
			if err := w.pin.Out(b.level(b.c.Fail == "safe")); err != nil {
				errs = append(errs, fmt.Errorf("cannot leave %s in its safe state: %w", b.name, err))
			}
		}
		if c, ok := w.pin.(io.Closer); ok {
			errs = append(errs, c.Close())
		}
	}
	b.Set(device.StateClosed, "")
	return errors.Join(errs...)
}
