package sim

import (
	"context"
	"fmt"
	"strings"
	"sync"
	"time"

	"gatehouse/device"
	"gatehouse/device/bus"
)

// Keyboard emulates a scanner that types, set to the us layout. It implements
// bus.KeyReader in place of the kernel's input layer.
type Keyboard struct {
	mu     sync.Mutex
	queue  []bus.InputEvent
	conf   bus.InputConfig
	away   bool
	told   bool // that it is away
	was    bool // opened before
	open   bool
	closed bool
	wake   chan struct{}
}

// NewKeyboard makes a keyboard that is plugged in.
func NewKeyboard() *Keyboard { return &Keyboard{wake: make(chan struct{}, 1)} }

// Open gives the keyboard to a driver; it fits catalog.Env.Inputs.
func (k *Keyboard) Open(c bus.InputConfig) (bus.KeyReader, error) {
	k.conf = c
	return k, nil
}

// usPlain and usShifted are the keys of a us keyboard, by code from 2 on,
// written from the USB HID usage tables, not with the driver's.
const (
	usPlain   = "1234567890-=\x00\tqwertyuiop[]\n\x00asdfghjkl;'`\x00\\zxcvbnm,./"
	usShifted = "!@#$%^&*()_+\x00\x00QWERTYUIOP{}\x00\x00ASDFGHJKL:\"~\x00|ZXCVBNM<>?"
)

// Type types a text of us characters; "\n" is Enter.
func (k *Keyboard) Type(text string) error {
	var ev []bus.InputEvent
	press := func(code uint16, down int32) {
		ev = append(ev, bus.InputEvent{Type: bus.EvKey, Code: code, Value: down}, bus.InputEvent{})
	}
	for _, c := range text {
		if c == ' ' {
			press(57, 1)
			press(57, 0)
			continue
		}
		shift := false
		i := strings.IndexRune(usPlain, c)
		if i < 0 {
			i, shift = strings.IndexRune(usShifted, c), true
		}
		if i < 0 {
			return fmt.Errorf("a us keyboard has no %q", c)
		}
		code := uint16(i + 2)
		if shift {
			press(42, 1)
		}
		press(code, 1)
		press(code, 0)
		if shift {
			press(42, 0)
		}
	}
	k.Send(ev...)
	return nil
}

// Drop tells that the kernel's queue ran over.
func (k *Keyboard) Drop() { k.Send(bus.InputEvent{Type: bus.EvSyn, Code: bus.SynDropped}) }

// Send queues raw events. An unplugged keyboard sends nothing.
func (k *Keyboard) Send(ev ...bus.InputEvent) {
	k.mu.Lock()
	if !k.away {
		k.queue = append(k.queue, ev...)
	}
	k.mu.Unlock()
	k.signal()
}

// Unplug and Plug take the keyboard away and bring it back.
func (k *Keyboard) Unplug() {
	k.mu.Lock()
	k.away, k.told, k.open, k.queue = true, false, false, nil
	k.mu.Unlock()
	k.signal()
}

func (k *Keyboard) Plug() {
	k.mu.Lock()
	k.away = false
	k.mu.Unlock()
	k.signal()
}

func (k *Keyboard) signal() {
	select {
	case k.wake <- struct{}{}:
	default:
	}
}

// Read implements bus.KeyReader.
func (k *Keyboard) Read(ctx context.Context, ev []bus.InputEvent, wait time.Duration) (int, error) {
	var end <-chan time.Time
	if wait > 0 {
		t := time.NewTimer(wait)
		defer t.Stop()
		end = t.C
	}
	for {
		if err := ctx.Err(); err != nil {
			return 0, err
		}
		if n, err := k.poll(ev); n > 0 || err != nil {
			return n, err
		}
		select {
		case <-ctx.Done():
		case <-k.wake:
		case <-end:
			return 0, nil
		}
	}
}

func (k *Keyboard) poll(ev []bus.InputEvent) (int, error) {
	k.mu.Lock()
	defer k.mu.Unlock()
	fail := func(kind error) (int, error) {
		return 0, &device.Error{Device: k.conf.User, Op: "read", Kind: kind}
	}
	switch {
	case k.closed:
		return fail(device.ErrClosed)
	case k.away && !k.told:
		k.told = true
		if k.was {
			return fail(device.ErrDisconnected)
		}
		return fail(device.ErrAbsent)
	case !k.away && !k.open:
		k.open = true
		if k.conf.OnOpen != nil {
			k.conf.OnOpen(k.was)
		}
		k.was = true
	}
	n := copy(ev, k.queue)
	k.queue = k.queue[:copy(k.queue, k.queue[n:])]
	return n, nil
}

// Close implements bus.KeyReader.
func (k *Keyboard) Close() error {
	k.mu.Lock()
	k.closed = true
	k.mu.Unlock()
	k.signal()
	return nil
}
