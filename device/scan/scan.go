// Package scan is what card readers have in common, whatever wire they hang
// on: a card that is held is one read, a reader gone mad is stopped, garbled
// frames are counted, faults reported once.
package scan

import (
	"time"

	"gatehouse/device"
	"gatehouse/device/bus"
)

const (
	// DefaultHeld: repetitions of a card within it are the same read.
	DefaultHeld = time.Second
	// MaxRate is how many different cards in a second a reader can see; more
	// is a fault of the reader. A Wiegand frame with the pause after it takes
	// at least 30 ms.
	MaxRate = 50
)

// Filter lets a new read through and keeps repetitions and floods back. It
// belongs to one goroutine. The zero Filter has a window of DefaultHeld.
type Filter struct {
	Held time.Duration

	recent  [8]recent // two cards held at once alternate; each is one read
	second  time.Time // when the second that is counted began
	count   int       // reads in it
	flooded bool
}

type recent struct {
	card device.CardRead // without reader and time
	last time.Time
}

// Verdict of a Filter.
type Verdict int

const (
	New      Verdict = iota // a read for the lane
	Repeated                // the card is still held
	Flood                   // one of too many different cards in a second
)

// Take judges a read at its time.
func (f *Filter) Take(c *device.CardRead) Verdict {
	held := f.Held
	if held == 0 {
		held = DefaultHeld
	}
	key := *c
	key.Reader, key.At = "", time.Time{}
	oldest := &f.recent[0]
	for i := range f.recent {
		r := &f.recent[i]
		if r.card == key && !r.last.IsZero() && c.At.Sub(r.last) < held {
			r.last = c.At
			return Repeated
		}
		if r.last.Before(oldest.last) {
			oldest = r
		}
	}
	*oldest = recent{key, c.At}
	if since := c.At.Sub(f.second); since >= time.Second || since < 0 {
		// The flood is over when a whole second was calm.
		f.flooded = f.count > MaxRate && since < 2*time.Second
		f.second, f.count = c.At, 0
	}
	if f.count++; f.count > MaxRate {
		f.flooded = true
	}
	if f.flooded {
		return Flood
	}
	return New
}

// Core is a scanner's health and filter, for embedding.
type Core struct {
	*bus.Status
	Name   string
	Filter Filter
}

// NewCore names a scanner.
func NewCore(name, driver, where string, held time.Duration) Core {
	return Core{Status: bus.NewStatus(name, driver, where), Name: name, Filter: Filter{Held: held}}
}

// Accept completes a read and reports whether it is one for the lane; err is
// for the caller to return, when there is one.
func (c *Core) Accept(r *device.CardRead, at time.Time) (ok bool, err error) {
	r.Reader, r.At = c.Name, at
	switch c.Filter.Take(r) {
	case Repeated:
		c.Count("repeated", 1)
		c.Seen(at)
		return false, nil
	case Flood:
		c.Count("flood", 1)
		e := &device.Error{Device: c.Name, Op: "read", Kind: device.ErrOutOfRange, Err: errFlood}
		if c.Fail(e) {
			return false, e
		}
		return false, nil
	}
	c.Good(at)
	return true, nil
}

// Refuse counts a garbled frame; err is for the caller to return, when there
// is one.
func (c *Core) Refuse(why error) error {
	c.Garbled(1)
	e := &device.Error{Device: c.Name, Op: "read", Kind: device.ErrGarbled, Err: why}
	if c.Fail(e) {
		return e
	}
	return nil
}

// Opened is for SerialConfig.OnOpen and LinesConfig.OnOpen.
func (c *Core) Opened(again bool) {
	if again {
		c.Reopened()
	}
	c.Answers()
}
