package scan

import (
	"context"
	"errors"
	"fmt"
	"time"

	"gatehouse/device"
	"gatehouse/device/bus"
)

var errFlood = fmt.Errorf("more than %d different cards in a second: the reader is out of order", MaxRate)

// Result is what a Decoder makes of a byte.
type Result int

const (
	More    Result = iota // inside a frame
	Noise                 // outside any frame
	Card                  // a frame is complete: the read is stored
	Garbled               // a frame is refused; see Why
	Restart               // a frame was cut short, and this byte begins another
)

// Decoder takes a serial line apart. It must not allocate for a byte and must
// keep a bounded amount of memory, whatever comes.
type Decoder interface {
	// Byte takes the next byte, and stores a read in r when it says Card.
	Byte(b byte, r *device.CardRead) Result
	// End tells it that nothing came for the gap. A decoder whose frames end
	// so may say Card; one that is amid a frame says Garbled; else More.
	End(r *device.CardRead) Result
	// Why is the reason of the last Garbled or Restart.
	Why() error
}

// DefaultGap ends a frame: USB adapters hold bytes back for 16 ms, and no
// reader pauses within a frame for longer than a few characters' time.
const DefaultGap = 200 * time.Millisecond

// SerialOptions are those of all serial readers.
type SerialOptions struct {
	Port   string        `yaml:"port"`
	Baud   int           `yaml:"baud"`
	Parity string        `yaml:"parity"`
	Held   time.Duration `yaml:"held"` // repetitions of a card within it are one read
	Gap    time.Duration `yaml:"gap"`  // a silence that ends a frame
}

// DefaultSerial holds where the config is silent.
func DefaultSerial() SerialOptions {
	return SerialOptions{Baud: 9600, Parity: "none", Held: DefaultHeld, Gap: DefaultGap}
}

// Serial is a Scanner on a serial port. One goroutine reads at a time.
type Serial struct {
	Core
	port *bus.Port
	dec  Decoder
	gap  time.Duration

	buf     [256]byte
	pending []byte
	at      time.Time // when pending came
	amid    bool      // within a frame, as far as it has come
}

var _ device.Scanner = (*Serial)(nil)

// NewSerial claims the port. It opens nothing.
func NewSerial(b *bus.Bus, name, driver string, o SerialOptions, dec Decoder, tap func([]byte)) (*Serial, error) {
	if o.Held <= 0 || o.Held > time.Minute {
		return nil, fmt.Errorf("held: %v is not between 0 and 1m", o.Held)
	}
	if o.Gap < 10*time.Millisecond || o.Gap > 10*time.Second {
		return nil, fmt.Errorf("gap: %v is not between 10ms and 10s", o.Gap)
	}
	s := &Serial{Core: NewCore(name, driver, o.Port, o.Held), dec: dec, gap: o.Gap}
	var err error
	s.port, err = b.Serial(bus.SerialConfig{User: name, Path: o.Port, Baud: o.Baud, Parity: o.Parity, OnOpen: s.Opened, Tap: tap})
	if err != nil {
		return nil, err
	}
	return s, nil
}

// Read blocks for the next card; see package device for its conduct.
func (s *Serial) Read(ctx context.Context) (device.CardRead, error) {
	var r device.CardRead
	for {
		for len(s.pending) > 0 {
			b := s.pending[0]
			s.pending = s.pending[1:]
			ok, err := s.take(s.dec.Byte(b, &r), &r)
			if err != nil || ok {
				return r, err
			}
		}
		if err := ctx.Err(); err != nil {
			return device.CardRead{}, err
		}
		n, idle, err := s.more(ctx)
		switch {
		case err != nil:
			var fault *device.Error
			if !errors.As(err, &fault) {
				return device.CardRead{}, err // the context's: nothing is lost
			}
			if s.amid { // the cable was pulled amid a frame
				s.Garbled(1)
				s.dec.End(&r)
				s.amid = false
			}
			s.Fail(err)
			return device.CardRead{}, err
		case idle:
			ok, err := s.take(s.dec.End(&r), &r)
			if err != nil || ok {
				return r, err
			}
			s.amid = false
		default:
			s.pending, s.at = s.buf[:n], time.Now()
		}
	}
}

// more waits for bytes; amid a frame not longer than the gap.
func (s *Serial) more(ctx context.Context) (n int, idle bool, err error) {
	if !s.amid {
		n, err = s.port.Read(ctx, s.buf[:])
		return n, false, err
	}
	gap, cancel := context.WithTimeout(ctx, s.gap)
	defer cancel()
	n, err = s.port.Read(gap, s.buf[:])
	if err != nil && gap.Err() != nil && ctx.Err() == nil && errors.Is(err, context.DeadlineExceeded) {
		return 0, true, nil
	}
	return n, false, err
}

// take does what a decoder's result asks for.
func (s *Serial) take(res Result, r *device.CardRead) (ok bool, err error) {
	s.amid = res == More || res == Restart
	switch res {
	case Noise:
		s.Noise(1)
	case Garbled, Restart:
		return false, s.Refuse(s.dec.Why())
	case Card:
		return s.Accept(r, s.at)
	}
	return false, nil
}

// Try opens the port and says why it cannot be opened.
func (s *Serial) Try() error { return s.port.Try() }

// Close ends a Read and gives the port free.
func (s *Serial) Close() error {
	err := s.port.Close()
	s.Set(device.StateClosed, "")
	return err
}
