// Package wiegand reads card readers and keypads over the two-wire Wiegand
// interface.
//
// # Wire
//
// Two open-collector lines, idle high. A low pulse of 20 to 100 us on D0 is a
// zero, on D1 a one; bits follow each other in 200 us to 20 ms; a frame ends
// after more than 20 ms without a pulse (SIA AC-01; PROMAG WEC200 data sheet).
//
// Both lines are requested together from the kernel, which stamps and numbers
// each falling edge in its interrupt and queues it: a process that is kept busy
// loses no bit and mixes none up. Frames are cut by those stamps. When the kernel
// itself is late, two edges of one line can come as one; the numbers tell that
// one is missing and where, and the frame's parity which it was. More than one in
// a frame, or one that no parity covers, and the frame is refused.
//
// # Wiring
//
// Reader GND to the Pi's GND (without it there is noise), D0 and D1 through a
// level shifter or an optocoupler: most readers pull up to 5 V or 12 V, a Pi's
// pin takes 3.3 V. Shielded cable, up to 150 m; the pull-up of the pin is on.
//
// # Config
//
//	scanner:
//	  driver: wiegand
//	  d0: GPIO14
//	  d1: GPIO15
//	  formats: [H10301]          # also W34, H10302, H10304, H10306, C1000-35, C1000-48, W32
//	  frame_end: 25ms            # silence that ends a frame
//	  glitch: 0s                 # edges of one line nearer than this are ringing; 5us on a bad cable
//	  held: 1s                   # repetitions of a card within it are one read
//	  keypad: none               # or 4bit, 8bit
//	  pin: {min: 4, max: 8, timeout: 10s, enter: 11, clear: 10}
//
// A format of one's own is written in place of a name. Bits are counted from 0,
// the one that is sent first:
//
//	formats:
//	  - name: estate-26
//	    bits: 26
//	    facility: 1-8
//	    number: 9-24
//	    parity:
//	      - {bit: 0, even: 1-12}
//	      - {bit: 25, odd: 13-24}
//
// Keypads send each key as a burst of 4 bits, or of 8 with the high nibble the
// complement of the low. 10 and 11 are * and # on some, # and * on others: enter
// and clear say which key does what. Typed digits become a read of format pin
// at enter, or when max digits are there.
//
// # When something is wrong
//
// Health counts short and long frames, parity failures, swapped lines, noise
// pulses and edges the kernel lost. A frame that fails while its complement
// passes says that D0 and D1 are swapped; one of equal bits only, that a line
// is not connected; a line that stays low is a fault.
//
// # What was checked
//
// Vectors: H10301 123/4567 and 171/31337, 34 bits 1234567890, H10302 1234567890,
// Corporate 1000 35 bits 1234/567890. A fuzzer; 10^9 random bits (two parity bits
// let a quarter of noise frames of the right length pass, no more); every fault
// of the emulator; and on a real kernel in a virtual machine 1,000 cards each at
// bit periods of 1 ms and 200 us while the process is busy. Not checked against
// a reader of flesh and wire.
package wiegand

import (
	"context"
	"errors"
	"fmt"
	"time"

	"periph.io/x/conn/v3/gpio"

	"gatehouse/device"
	"gatehouse/device/bus"
	"gatehouse/device/options"
	"gatehouse/device/scan"
)

// Config is what the options decode to.
type Config struct {
	D0       string         `yaml:"d0"`
	D1       string         `yaml:"d1"`
	List     []options.Node `yaml:"formats"`
	FrameEnd time.Duration  `yaml:"frame_end"`
	Glitch   time.Duration  `yaml:"glitch"`
	Held     time.Duration  `yaml:"held"`
	Keypad   string         `yaml:"keypad"`
	PIN      PIN            `yaml:"pin"`

	Formats []Format `yaml:"-"`
}

// PIN says how typed digits become a read.
type PIN struct {
	Min     int           `yaml:"min"`
	Max     int           `yaml:"max"`
	Timeout time.Duration `yaml:"timeout"` // between two keys
	Enter   int           `yaml:"enter"`   // the key's code
	Clear   int           `yaml:"clear"`
}

// Parse decodes and checks the options.
func Parse(n options.Node) (Config, error) {
	c := Config{FrameEnd: 25 * time.Millisecond, Held: scan.DefaultHeld, Keypad: "none",
		PIN: PIN{Min: 4, Max: 8, Timeout: 10 * time.Second, Enter: 11, Clear: 10}}
	errs := []error{n.Decode(&c)}
	bad := func(key, format string, args ...any) { errs = append(errs, n.At(key).Errorf(format, args...)) }
	if c.D0 == "" || c.D1 == "" {
		bad("d0", "d0 and d1 must be given: the two GPIO lines")
	} else if c.D0 == c.D1 {
		bad("d1", "is the same line as d0")
	}
	for _, f := range c.List {
		format, err := parseFormat(f)
		if err != nil {
			errs = append(errs, err)
			continue
		}
		c.Formats = append(c.Formats, format)
	}
	if len(c.List) == 0 {
		f, _ := ByName(device.FormatH10301)
		c.Formats = []Format{f}
	}
	if c.FrameEnd < time.Millisecond || c.FrameEnd > time.Second {
		bad("frame_end", "%v is not between 1ms and 1s", c.FrameEnd)
	}
	if c.Glitch < 0 || c.Glitch > 100*time.Microsecond {
		bad("glitch", "%v is not between 0 and 100us", c.Glitch)
	}
	if c.Held <= 0 || c.Held > time.Minute {
		bad("held", "%v is not between 0 and 1m", c.Held)
	}
	if c.Keypad != "none" && c.Keypad != "4bit" && c.Keypad != "8bit" {
		bad("keypad", "%q is not none, 4bit or 8bit", c.Keypad)
	}
	p := c.PIN
	if p.Min < 1 || p.Max < p.Min || p.Max > 32 || p.Timeout <= 0 || p.Enter < 10 || p.Enter > 15 || p.Clear < 10 || p.Clear > 15 || p.Enter == p.Clear {
		bad("pin", "want 1 <= min <= max <= 32, a timeout, and enter and clear two keys of 10 to 15")
	}
	return c, errors.Join(errs...)
}

// Lines is what the reader needs of a bus.
func (c Config) Lines(name string, opened func(bool)) bus.LinesConfig {
	return bus.LinesConfig{User: name, Names: []string{c.D0, c.D1}, Pull: gpio.PullUp, Edge: gpio.FallingEdge, OnOpen: opened}
}

// Reader is a Wiegand reader. One goroutine reads at a time.
type Reader struct {
	scan.Core
	conf  Config
	edges bus.EdgeReader

	ev      [64]bus.Event
	pending []bus.Event

	frame   device.RawBits
	last    time.Duration // the stamp of the last edge
	line    int           // that it came on
	missing int           // the bit, from 1, whose edge the kernel lost; 0 = none
	spoiled bool          // an edge of the frame is in doubt
	suspect bool          // a line was low when a frame ended
	stuck   bool
	levels  [2]gpio.Level

	typed   []byte
	lastKey time.Duration
}

var _ device.Scanner = (*Reader)(nil)

// New claims the two lines with open (Bus.Lines, or a simulation's) and takes
// nothing yet.
func New(name string, c Config, open func(bus.LinesConfig) (bus.EdgeReader, error)) (*Reader, error) {
	r := &Reader{Core: scan.NewCore(name, "wiegand", c.D0+", "+c.D1, c.Held), conf: c, typed: make([]byte, 0, c.PIN.Max)}
	var err error
	if r.edges, err = open(c.Lines(name, r.opened)); err != nil {
		return nil, err
	}
	return r, nil
}

// opened begins anew: what a frame was before the lines went is lost.
func (r *Reader) opened(again bool) {
	r.frame, r.spoiled, r.missing = device.RawBits{}, false, 0
	r.Core.Opened(again)
}

// Read blocks for the next card or PIN; see package device for its conduct.
func (r *Reader) Read(ctx context.Context) (device.CardRead, error) {
	for {
		for len(r.pending) > 0 {
			e := r.pending[0]
			if r.frame.Len > 0 && e.At-r.last > r.conf.FrameEnd {
				card, ok, err := r.end() // the edge stays: it begins the next
				if ok || err != nil {
					return card, err
				}
				continue
			}
			r.pending = r.pending[1:]
			r.edge(e)
		}
		var wait time.Duration
		if r.frame.Len > 0 {
			wait = max(r.last+r.conf.FrameEnd-r.edges.Now(), time.Microsecond)
		} else if r.suspect {
			wait = r.conf.FrameEnd
		}
		n, err := r.edges.Read(ctx, r.ev[:], wait)
		if err != nil {
			var fault *device.Error
			if errors.As(err, &fault) {
				r.Fail(err)
			}
			return device.CardRead{}, err
		}
		r.pending = r.ev[:n]
		if n == 0 && r.suspect && r.frame.Len == 0 {
			r.suspect = false
			if err := r.checkStuck(); err != nil {
				return device.CardRead{}, err
			}
		}
		if n == 0 && r.frame.Len > 0 && r.edges.Now()-r.last >= r.conf.FrameEnd {
			card, ok, err := r.end()
			if ok || err != nil {
				return card, err
			}
		}
	}
}

// edge takes one falling edge into the frame.
func (r *Reader) edge(e bus.Event) {
	r.suspect = false // a line that is held low makes no edges
	// Edges that a machine was late to take can be near to each other and
	// right, so nothing is left out unless the installer says so.
	if r.frame.Len > 0 && e.Line == r.line && e.At-r.last < r.conf.Glitch {
		r.Noise(1)
		return
	}
	if e.Lost > 0 {
		r.Count("lost_edges", uint64(e.Lost))
		// One can be restored by the frame's parity.
		r.spoiled = r.spoiled || e.Lost > 1 || r.missing > 0
		r.frame.Append(false)
		r.missing = r.frame.Len
	}
	r.frame.Append(e.Line == 1)
	r.last, r.line = e.At, e.Line
}

// end judges the frame that is complete.
func (r *Reader) end() (card device.CardRead, ok bool, err error) {
	frame, spoiled, missing := r.frame, r.spoiled, r.missing
	r.frame, r.spoiled, r.missing = device.RawBits{}, false, 0
	// A line that is low now may be amid the next frame's first pulse: it is
	// stuck when it still is after a silence.
	low := r.low()
	r.suspect = low != "" && !r.stuck
	r.stuck = r.stuck && low != ""
	at := time.Now().Add(r.last - r.edges.Now())
	if r.conf.Keypad != "none" && (frame.Len == 4 || frame.Len == 8) && !spoiled && missing == 0 {
		if err := r.key(frame, &card); err != nil {
			return card, false, r.Refuse(err)
		}
		if card.Format == "" {
			return card, false, nil
		}
		ok, err = r.Accept(&card, at)
		return card, ok, err
	}
	switch {
	case frame.Len < 4: // a touch of the cable, a lamp switched on
		r.Noise(uint64(frame.Len))
		return card, false, nil
	case spoiled:
		return card, false, r.Refuse(errDoubt)
	}
	if missing > 0 {
		if !restore(r.conf.Formats, frame, missing-1, &card) {
			return card, false, r.Refuse(errLost)
		}
		r.Count("restored", 1)
		ok, err = r.Accept(&card, at)
		return card, ok, err
	}
	if err := Decode(r.conf.Formats, &frame, &card); err != nil {
		r.count(frame.Len, err)
		return card, false, r.Refuse(err)
	}
	ok, err = r.Accept(&card, at)
	return card, ok, err
}

var (
	errDoubt = errors.New("the kernel lost more than one edge of a frame")
	errLost  = errors.New("the kernel lost an edge of a frame, and its parity does not tell which it was")
)

// restore finds the one bit whose edge the kernel counted and lost: the value
// for which the frame's parity is right. Where both are right, there is no
// parity over it and nothing to restore it from.
func restore(formats []Format, frame device.RawBits, i int, card *device.CardRead) bool {
	var zero, one device.CardRead
	errZero := Decode(formats, &frame, &zero)
	frame.B[i/8] |= 0x80 >> (i % 8)
	errOne := Decode(formats, &frame, &one)
	switch {
	case errZero == nil && errOne != nil:
		*card = zero
		return true
	case errOne == nil && errZero != nil:
		*card = one
		return true
	}
	return false
}

// count keeps the installer's counters.
func (r *Reader) count(n int, err error) {
	var length lengthError
	switch {
	case errors.As(err, &length):
		longest := 0
		for _, f := range r.conf.Formats {
			longest = max(longest, f.Bits)
		}
		if n < longest {
			r.Count("short_frames", 1)
		} else {
			r.Count("long_frames", 1)
		}
	case errors.Is(err, errSwapped):
		r.Count("swapped", 1)
	case errors.Is(err, errOneLine):
		r.Count("one_line", 1)
	default:
		r.Count("parity", 1)
	}
}

// low names the lines that are low now.
func (r *Reader) low() string {
	if err := r.edges.Levels(r.levels[:]); err != nil {
		return "" // the next Read says so
	}
	switch r.levels {
	case [2]gpio.Level{gpio.Low, gpio.Low}:
		return "D0 and D1"
	case [2]gpio.Level{gpio.Low, gpio.High}:
		return "D0"
	case [2]gpio.Level{gpio.High, gpio.Low}:
		return "D1"
	}
	return ""
}

// checkStuck reports a line that is held low.
func (r *Reader) checkStuck() error {
	low := r.low()
	if r.stuck = low != ""; !r.stuck {
		return nil
	}
	err := &device.Error{Device: r.Name, Op: "read", Kind: device.ErrGarbled,
		Err: fmt.Errorf("held low: %s; a short, or a reader without power", low)}
	r.Set(device.StateFault, err.Error())
	return err
}

// key takes a keypad's burst; a PIN that is complete is stored in card.
func (r *Reader) key(frame device.RawBits, card *device.CardRead) error {
	if (r.conf.Keypad == "8bit") != (frame.Len == 8) {
		return lengthError(frame.Len)
	}
	k := int(frame.B[0] >> 4)
	if frame.Len == 8 {
		low := int(frame.B[0] & 0xF)
		if k != ^low&0xF {
			return errKey
		}
		k = low
	}
	p := r.conf.PIN
	if r.last-r.lastKey > p.Timeout {
		r.typed = r.typed[:0]
	}
	r.lastKey = r.last
	r.Count("keys", 1)
	switch {
	case k == p.Clear:
		r.typed = r.typed[:0]
	case k == p.Enter:
		if len(r.typed) >= p.Min {
			*card = device.CardRead{Format: device.FormatPIN, Text: string(r.typed)}
		}
		r.typed = r.typed[:0]
	case k <= 9:
		r.typed = append(r.typed, byte('0'+k))
		if len(r.typed) == p.Max {
			*card = device.CardRead{Format: device.FormatPIN, Text: string(r.typed)}
			r.typed = r.typed[:0]
		}
	default:
		return errKey
	}
	return nil
}

var errKey = errors.New("a keypad's burst that is no key")

// Close ends a Read and gives the lines back.
func (r *Reader) Close() error {
	err := r.edges.Close()
	r.Set(device.StateClosed, "")
	return err
}

// Try takes the lines and says why they cannot be had.
func (r *Reader) Try() error {
	if t, ok := r.edges.(interface{ Try() error }); ok {
		return t.Try()
	}
	return nil
}
