// Package evdev reads scanners that type: QR, barcode and card readers that are
// USB keyboards.
//
// # Wire
//
// The scanner types what it reads and ends it with Enter (some with Tab, some
// with nothing). Its keystrokes are taken from the kernel's input layer
// (/dev/input/event*), and the device is grabbed: nothing reaches a console, a
// login or the guard's browser.
//
// A keyboard sends keys, not characters. Which character a key means depends on
// the layout that the scanner was set to: of the scanner, not of this machine.
// Nearly all leave the factory as us; set the layout here when a set-up code has
// changed it. A wrong layout shows as y for z, or as ? for : in HC1:.
//
// # Config
//
//	scanner:
//	  driver: hid
//	  input: /dev/input/by-id/usb-...-event-kbd   # or name: "HID Keyboard Scanner"
//	  layout: us                 # us, de, fr
//	  end: auto                  # Enter; or tab, idle (a pause)
//	  gap: 500ms                 # a pause within a line: it is refused (idle: it is complete)
//	  held: 1s
//	  format: qr                 # and prefix, suffix, content, checksum, min, max as of driver line
//
// A card reader that types "0013530444": content: decimal, format: W34.
//
// # What was checked
//
// The layouts' plain and shifted characters against xkeyboard-config's us(basic),
// de(basic) and fr(latin9), less its dead keys; all of ASCII and a full HC1
// certificate in the us layout; absence, unplugging and replugging of a keyboard
// of the kernel's uinput in a virtual machine. Not checked against a scanner's
// hardware.
package evdev

import (
	"context"
	"errors"
	"time"
	"unicode"
	"unicode/utf8"

	"gatehouse/device"
	"gatehouse/device/bus"
	"gatehouse/device/options"
	"gatehouse/device/scan"
)

type config struct {
	scan.LineOptions
	Input  string        `yaml:"input"`
	Name   string        `yaml:"name"`
	Layout string        `yaml:"layout"`
	Held   time.Duration `yaml:"held"`
	Gap    time.Duration `yaml:"gap"`
}

// Reader is a scanner that types. One goroutine reads at a time.
type Reader struct {
	scan.Core
	keys   bus.KeyReader
	gap    time.Duration
	layout *layout
	line   *scan.Line

	ev      [64]bus.InputEvent
	pending []bus.InputEvent
	at      time.Time
	amid    bool
	dropped bool // the kernel lost events: what is typed up to Enter is in doubt

	shift, altgr int // keys held
	caps         bool
}

var _ device.Scanner = (*Reader)(nil)

// New builds a scanner from its config mapping; open is Bus.Input or a
// simulation's. It opens nothing.
func New(name string, n options.Node, open func(bus.InputConfig) (bus.KeyReader, error)) (*Reader, error) {
	c := config{LineOptions: scan.DefaultLine(device.FormatQR), Layout: "us", Held: scan.DefaultHeld, Gap: 500 * time.Millisecond}
	errs := []error{n.Decode(&c)}
	bad := func(key, format string, args ...any) { errs = append(errs, n.At(key).Errorf(format, args...)) }
	if (c.Input == "") == (c.Name == "") {
		bad("input", "give one of input (best a path below /dev/input/by-id) and name (what the device calls itself)")
	}
	l := layouts[c.Layout]
	if l == nil {
		bad("layout", "%q is not us, de or fr", c.Layout)
	}
	if c.Held <= 0 || c.Held > time.Minute {
		bad("held", "%v is not between 0 and 1m", c.Held)
	}
	if c.Gap < 20*time.Millisecond || c.Gap > 10*time.Second {
		bad("gap", "%v is not between 20ms and 10s", c.Gap)
	}
	if err := errors.Join(append(errs, c.LineOptions.Check(n))...); err != nil {
		return nil, err
	}
	r := &Reader{Core: scan.NewCore(name, "hid", c.Input+c.Name, c.Held), gap: c.Gap, layout: l, line: scan.NewLine(c.LineOptions)}
	var err error
	r.keys, err = open(bus.InputConfig{User: name, Path: c.Input, Name: c.Name, OnOpen: r.opened})
	if err != nil {
		return nil, err
	}
	return r, nil
}

func (r *Reader) opened(again bool) {
	r.shift, r.altgr, r.caps = 0, 0, false
	r.Core.Opened(again)
}

// Read blocks for the next line; see package device for its conduct.
func (r *Reader) Read(ctx context.Context) (device.CardRead, error) {
	var card device.CardRead
	for {
		for len(r.pending) > 0 {
			e := r.pending[0]
			r.pending = r.pending[1:]
			ok, err := r.event(e, &card)
			if ok || err != nil {
				return card, err
			}
		}
		var wait time.Duration
		if r.amid {
			wait = r.gap
		}
		n, err := r.keys.Read(ctx, r.ev[:], wait)
		if err != nil {
			var fault *device.Error
			if errors.As(err, &fault) {
				if r.amid {
					r.Garbled(1)
					r.line.End(&card)
					r.amid = false
				}
				r.Fail(err)
			}
			return device.CardRead{}, err
		}
		r.pending, r.at = r.ev[:n], time.Now()
		if n == 0 && r.amid {
			ok, err := r.take(r.line.End(&card), &card)
			r.amid = false
			if ok || err != nil {
				return card, err
			}
		}
	}
}

var errDropped = errors.New("keystrokes were lost: nobody read them in time")

func (r *Reader) event(e bus.InputEvent, card *device.CardRead) (ok bool, err error) {
	switch {
	case e.Type == bus.EvSyn && e.Code == bus.SynDropped:
		r.dropped, r.shift, r.altgr = true, 0, 0
		r.Count("dropped", 1)
		return false, nil
	case e.Type != bus.EvKey:
		return false, nil
	}
	down := e.Value == 1
	switch e.Code {
	case keyLeftShift, keyRightShift:
		r.shift = held(r.shift, e, keyLeftShift)
		return false, nil
	case keyRightAlt:
		r.altgr = held(r.altgr, e, keyRightAlt)
		return false, nil
	case keyCapsLock:
		if down {
			r.caps = !r.caps
		}
		return false, nil
	}
	if !down { // releases, and repetitions of a key that is held
		return false, nil
	}
	c := r.character(e.Code)
	if c == 0 {
		r.Noise(1)
		return false, nil
	}
	var b [utf8.UTFMax]byte
	for _, b := range b[:utf8.EncodeRune(b[:], c)] {
		res := r.line.Byte(b, card)
		if r.dropped && (res == scan.Card || res == scan.Garbled) {
			r.dropped, r.amid = false, false
			return false, r.Refuse(errDropped)
		}
		if ok, err = r.take(res, card); ok || err != nil {
			return ok, err
		}
	}
	return false, nil
}

// held keeps which of two keys are down, as bits.
func held(now int, e bus.InputEvent, first uint16) int {
	bit := 2
	if e.Code == first {
		bit = 1
	}
	if e.Value == 0 {
		return now &^ bit
	}
	return now | bit
}

func (r *Reader) take(res scan.Result, card *device.CardRead) (ok bool, err error) {
	r.amid = res == scan.More
	switch res {
	case scan.Garbled:
		r.dropped = false
		return false, r.Refuse(r.line.Why())
	case scan.Card:
		return r.Accept(card, r.at)
	}
	return false, nil
}

// character is what a key means now; 0 = nothing.
func (r *Reader) character(code uint16) rune {
	if c := keypad[code]; c != 0 {
		return c
	}
	if int(code) >= len(r.layout) {
		return 0
	}
	k := r.layout[code]
	switch {
	case r.altgr != 0:
		return k.altgr
	case (r.shift != 0) != (r.caps && unicode.IsLetter(k.plain)):
		return k.shifted
	}
	return k.plain
}

// Try opens the device and says why it cannot be opened.
func (r *Reader) Try() error {
	if t, ok := r.keys.(interface{ Try() error }); ok {
		return t.Try()
	}
	return nil
}

// Close ends a Read and gives the device back.
func (r *Reader) Close() error {
	err := r.keys.Close()
	r.Set(device.StateClosed, "")
	return err
}

// Layouts lists the names of the layouts.
func Layouts() []string { return []string{"us", "de", "fr"} }
