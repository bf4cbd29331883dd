// Package panel reads a guard's panel: push buttons on GPIO lines, or a USB
// keypad.
//
// # Wiring
//
// Buttons: between the line and ground each, the line pulled up, as in package
// contact. Keypad: any USB keypad; it is grabbed, so that its keys reach no
// console.
//
// # Config
//
//	panel:
//	  driver: buttons
//	  admit: {driver: gpio, pin: GPIO5}
//	  deny: {driver: gpio, pin: GPIO6}
//
//	panel:
//	  driver: keypad
//	  input: /dev/input/by-id/usb-...-event-kbd     # or name: what it calls itself
//	  keys: {kpenter: admit, kp0: deny, kp1: remeasure, kpplus: aside}
//
// A key held down is one press, and a second press within 300 ms is none.
//
// # Sources and what was checked
//
// linux/input-event-codes.h. Checked: pins and a keyboard in memory, with
// faults, in fake time. Not checked with a particular keypad.
package panel

import (
	"context"
	"errors"
	"maps"
	"slices"
	"strings"
	"sync"
	"time"

	"gatehouse/device"
	"gatehouse/device/bus"
	"gatehouse/device/options"
)

const (
	bounce = 300 * time.Millisecond // a second press of a button within it is none
	old    = 10 * time.Second       // a press that nobody fetched is forgotten
	kept   = 32
)

// queue holds presses until they are fetched.
type queue struct {
	*bus.Status
	mu    sync.Mutex
	q     []device.Press
	errs  []error
	last  map[string]time.Time
	wake  chan struct{}
	life  context.Context
	stop  context.CancelFunc
	name  string
	begun bool
	wait  sync.WaitGroup
}

func newQueue(name, driver, where string) *queue {
	q := &queue{Status: bus.NewStatus(name, driver, where), name: name, last: map[string]time.Time{}, wake: make(chan struct{}, 1)}
	q.life, q.stop = context.WithCancel(context.Background())
	return q
}

func (q *queue) add(button string, at time.Time) {
	q.mu.Lock()
	defer q.mu.Unlock()
	if last, ok := q.last[button]; ok && at.Sub(last) < bounce {
		q.Noise(1)
		return
	}
	q.last[button] = at
	if len(q.q) == kept {
		q.q = q.q[1:]
	}
	q.q = append(q.q, device.Press{Button: button, At: at})
	q.Good(at)
	q.signal()
}

func (q *queue) fail(err error) {
	q.mu.Lock()
	defer q.mu.Unlock()
	q.errs = append(q.errs, err)
	q.signal()
}

func (q *queue) signal() {
	select {
	case q.wake <- struct{}{}:
	default:
	}
}

// next is Press; start runs once, at the first call.
func (q *queue) next(ctx context.Context, start func()) (device.Press, error) {
	for {
		if q.life.Err() != nil {
			return device.Press{}, &device.Error{Device: q.name, Op: "read", Kind: device.ErrClosed}
		}
		if err := ctx.Err(); err != nil {
			return device.Press{}, err
		}
		q.mu.Lock()
		if !q.begun {
			q.begun = true
			start()
		}
		for len(q.q) > 0 {
			p := q.q[0]
			if q.q = q.q[1:]; time.Since(p.At) < old {
				q.mu.Unlock()
				return p, nil
			}
			q.Count("forgotten", 1)
		}
		if len(q.errs) > 0 {
			err := q.errs[0]
			q.errs = q.errs[1:]
			q.mu.Unlock()
			return device.Press{}, err
		}
		q.mu.Unlock()
		select {
		case <-q.wake:
		case <-ctx.Done():
		case <-q.life.Done():
		}
	}
}

// Buttons is a panel of contacts, one for each button.
type Buttons struct {
	*queue
	contacts map[string]device.Contact
}

var _ device.Panel = (*Buttons)(nil)

// NewButtons builds a panel of contacts, which it owns.
func NewButtons(name string, contacts map[string]device.Contact) *Buttons {
	names := slices.Sorted(maps.Keys(contacts))
	return &Buttons{queue: newQueue(name, "buttons", strings.Join(names, ", ")), contacts: contacts}
}

// Press implements device.Panel.
func (b *Buttons) Press(ctx context.Context) (device.Press, error) {
	return b.next(ctx, func() {
		for button, c := range b.contacts {
			b.wait.Go(func() { b.follow(button, c) })
		}
	})
}

func (b *Buttons) follow(button string, c device.Contact) {
	first := true // the state at the start is no press
	for b.life.Err() == nil {
		ch, err := c.Watch(b.life)
		switch {
		case err == nil:
			if first {
				b.Answers()
			} else if ch.Active {
				b.add(button, ch.At)
			}
			first = false
		case b.life.Err() != nil || errors.Is(err, device.ErrClosed):
			return
		default:
			b.Fail(err)
			b.fail(err)
		}
	}
}

// Close ends a Press and closes the contacts.
func (b *Buttons) Close() error {
	b.stop()
	var errs []error
	for _, c := range b.contacts {
		errs = append(errs, c.Close())
	}
	b.wait.Wait()
	b.Set(device.StateClosed, "")
	return errors.Join(errs...)
}

// Keypad is a USB keypad.
type Keypad struct {
	*queue
	keys    bus.KeyReader
	buttons map[uint16]string
}

var _ device.Panel = (*Keypad)(nil)

type keypadConfig struct {
	Input string            `yaml:"input"`
	Name  string            `yaml:"name"`
	Keys  map[string]string `yaml:"keys"`
}

// NewKeypad builds a panel from its config mapping; open is Bus.Input or a
// simulation's. It opens nothing.
func NewKeypad(name string, n options.Node, open func(bus.InputConfig) (bus.KeyReader, error)) (*Keypad, error) {
	var c keypadConfig
	if err := n.Decode(&c); err != nil {
		return nil, err
	}
	if (c.Input == "") == (c.Name == "") {
		return nil, n.At("input").Errorf("give one of input (best a path below /dev/input/by-id) and name (what the device calls itself)")
	}
	if len(c.Keys) == 0 {
		return nil, n.At("keys").Errorf("must be given: which key is which button")
	}
	codes := keyCodes()
	k := &Keypad{queue: newQueue(name, "keypad", c.Input+c.Name), buttons: map[uint16]string{}}
	for key, button := range c.Keys {
		code, ok := codes[strings.ToLower(key)]
		if !ok {
			return nil, n.At("keys").Errorf("no key is called %q%s", key, options.Hint(key, slices.Sorted(maps.Keys(codes))))
		}
		k.buttons[code] = button
	}
	var err error
	k.keys, err = open(bus.InputConfig{User: name, Path: c.Input, Name: c.Name, OnOpen: func(again bool) {
		if again {
			k.Reopened()
		}
		k.Answers()
	}})
	if err != nil {
		return nil, err
	}
	return k, nil
}

// Press implements device.Panel.
func (k *Keypad) Press(ctx context.Context) (device.Press, error) {
	return k.next(ctx, func() { k.wait.Go(k.follow) })
}

func (k *Keypad) follow() {
	var ev [64]bus.InputEvent
	for k.life.Err() == nil {
		n, err := k.keys.Read(k.life, ev[:], 0)
		if err != nil {
			if k.life.Err() != nil || errors.Is(err, device.ErrClosed) {
				return
			}
			k.Fail(err)
			k.fail(err)
			continue
		}
		for _, e := range ev[:n] {
			if e.Type != bus.EvKey || e.Value != 1 { // 0 is a release, 2 a repetition
				continue
			}
			if button, ok := k.buttons[e.Code]; ok {
				k.add(button, time.Now())
			} else {
				k.Noise(1)
			}
		}
	}
}

// Close ends a Press and gives the keypad free.
func (k *Keypad) Close() error {
	k.stop()
	err := k.keys.Close()
	k.wait.Wait()
	k.Set(device.StateClosed, "")
	return err
}

// keyCodes are the keys that keypads and small keyboards have.
func keyCodes() map[string]uint16 {
	codes := map[string]uint16{"esc": 1, "backspace": 14, "tab": 15, "enter": 28, "space": 57,
		"kpasterisk": 55, "kpminus": 74, "kpplus": 78, "kpdot": 83, "kpenter": 96, "kpslash": 98, "numlock": 69,
		"kp7": 71, "kp8": 72, "kp9": 73, "kp4": 75, "kp5": 76, "kp6": 77, "kp1": 79, "kp2": 80, "kp3": 81, "kp0": 82,
		"f11": 87, "f12": 88, "0": 11}
	for i := range uint16(9) {
		codes[string(rune('1'+i))] = 2 + i
	}
	for i, f := range []string{"f1", "f2", "f3", "f4", "f5", "f6", "f7", "f8", "f9", "f10"} {
		codes[f] = 59 + uint16(i)
	}
	return codes
}
