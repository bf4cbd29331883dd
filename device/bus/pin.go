package bus

import (
	"errors"
	"fmt"
	"os"
	"sync"
	"time"

	"golang.org/x/sys/unix"
	"periph.io/x/conn/v3/gpio"
	"periph.io/x/conn/v3/physic"

	"gatehouse/device"
)

// Pin is one GPIO line as a periph pin.
//
// It does what periph's own driver (host v3.8.5) does not: the first Out has
// its level from the first moment, without a pulse of the other; Read of an
// output leaves it an output; WaitForEdge(-1) waits; a Halt before a wait ends
// that wait; a failed request is tried again by the next call; edges have the
// kernel's time.
//
// The line is taken by the first In or Out and given back by Close. What level
// an output has after that is up to the chip's driver: Raspberry Pi OS keeps
// it, mainline makes it an input. So let a pull resistor hold the safe level.
type Pin struct {
	bus    *Bus
	kernel gpioKernel
	user   string
	name   string

	mu     sync.Mutex
	f      *os.File
	out    bool
	flags  uint64
	level  gpio.Level // last known
	pull   gpio.Pull
	halted bool
	halt   chan struct{} // closed by Halt
	closed bool
	edgeAt time.Time
	err    error

	waiting sync.Mutex // held through a WaitForEdge
}

var _ gpio.PinIO = (*Pin)(nil)

// Pin claims a line for one user. Its name is the line's ("GPIO17"), or
// chip:number, with the chip's name or label ("gpiochip0:17"). It opens nothing.
func (b *Bus) Pin(user, name string) (*Pin, error) {
	if !lineName.MatchString(name) {
		return nil, fmt.Errorf("%q is not a GPIO line (want one like GPIO17, or gpiochip0:17)", name)
	}
	if err := b.claim(name, user); err != nil {
		return nil, err
	}
	return &Pin{bus: b, kernel: b.gpio, user: user, name: name, halt: make(chan struct{})}, nil
}

// String and Name are the configured name.
func (p *Pin) String() string { return p.name }
func (p *Pin) Name() string   { return p.name }

// Number is not known: lines go by name.
func (p *Pin) Number() int { return -1 }

// Function says what the line is used for now, without touching it.
func (p *Pin) Function() string {
	p.mu.Lock()
	defer p.mu.Unlock()
	switch {
	case p.f == nil:
		return ""
	case p.out:
		return "Out/" + p.level.String()
	}
	return "In/" + p.level.String()
}

func (p *Pin) Pull() gpio.Pull        { return p.pull }
func (p *Pin) DefaultPull() gpio.Pull { return gpio.PullNoChange }

// PWM is not offered.
func (p *Pin) PWM(gpio.Duty, physic.Frequency) error {
	return fmt.Errorf("line %s has no PWM", p.name)
}

// In makes the line an input, drops edges that came before, and takes back a
// Halt. It ends a WaitForEdge in progress.
func (p *Pin) In(pull gpio.Pull, edge gpio.Edge) error {
	p.wake()
	p.waiting.Lock()
	defer p.waiting.Unlock()
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.closed {
		return p.error("open", device.ErrClosed, nil)
	}
	flags := inputFlags(pull, edge)
	p.drop()
	if err := p.request(flags, 0); err != nil {
		return err
	}
	p.out, p.pull, p.halted, p.halt = false, pull, false, make(chan struct{})
	return p.readLevel()
}

// Out makes the line an output of that level, or sets it.
func (p *Pin) Out(l gpio.Level) error {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.closed {
		return p.error("write", device.ErrClosed, nil)
	}
	var v uint64
	if l {
		v = 1
	}
	if p.f != nil && p.out {
		if err := p.kernel.set(p.f, 1, v); err != nil {
			p.drop()
			p.err = p.error("write", device.ErrDisconnected, err)
			return p.err
		}
		p.level = l
		return nil
	}
	p.drop()
	if err := p.request(flagOutput, v); err != nil {
		return err
	}
	p.out, p.level = true, l
	return nil
}

// Read is the level now, of an output too; the last known when the line cannot
// be read, with Err saying why.
func (p *Pin) Read() gpio.Level {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.f != nil {
		_ = p.readLevel()
	}
	return p.level
}

// Err is the last failure, nil when the line works.
func (p *Pin) Err() error {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.err
}

// WaitForEdge waits for the next edge of the kind that In asked for; -1 is
// without limit. It returns false when the time is over, and at once after
// Halt, Close or In. A line that has failed waits too, and does not spin; see
// Err.
func (p *Pin) WaitForEdge(timeout time.Duration) bool {
	p.waiting.Lock()
	defer p.waiting.Unlock()
	p.mu.Lock()
	f, halt := p.f, p.halt
	if p.halted || p.closed {
		p.mu.Unlock()
		return false
	}
	deadline := time.Time{}
	if timeout >= 0 {
		deadline = time.Now().Add(timeout)
	}
	if f != nil && !p.out {
		_ = f.SetReadDeadline(deadline)
	}
	p.mu.Unlock()
	var raw [64]byte
	if f != nil && !p.out {
		n, err := f.Read(raw[:eventSize])
		if err == nil && n == eventSize {
			e := decodeEvent(raw[:])
			p.mu.Lock()
			p.level = gpio.Level(e.Id == unix.GPIO_V2_LINE_EVENT_RISING_EDGE)
			p.edgeAt = time.Now().Add(time.Duration(e.Timestamp_ns) - monotonic())
			p.mu.Unlock()
			return true
		}
		if errors.Is(err, os.ErrDeadlineExceeded) || errors.Is(err, os.ErrClosed) {
			return false
		}
		p.mu.Lock()
		p.err = p.error("read", device.ErrDisconnected, err)
		p.mu.Unlock()
	}
	if timeout < 0 {
		<-halt
		return false
	}
	t := time.NewTimer(time.Until(deadline))
	defer t.Stop()
	select {
	case <-halt:
	case <-t.C:
	}
	return false
}

// EdgeTime is when the edge came that WaitForEdge reported last, by the
// kernel's stamp of the interrupt.
func (p *Pin) EdgeTime() time.Time {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.edgeAt
}

// Halt ends a WaitForEdge, also one that begins later, until In is called.
// It changes no level.
func (p *Pin) Halt() error {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.haltLocked()
	return nil
}

func (p *Pin) haltLocked() {
	if !p.halted {
		p.halted = true
		close(p.halt)
	}
	if p.f != nil && !p.out {
		_ = p.f.SetReadDeadline(time.Unix(1, 0))
	}
}

// Close gives the line back. The driver has set the level it is to have.
func (p *Pin) Close() error {
	p.mu.Lock()
	if p.closed {
		p.mu.Unlock()
		return nil
	}
	p.closed = true
	p.haltLocked()
	p.mu.Unlock()
	p.waiting.Lock()
	defer p.waiting.Unlock()
	p.mu.Lock()
	defer p.mu.Unlock()
	p.drop()
	p.bus.release(p.name)
	return nil
}

// wake ends a wait in progress, so that In can change the line.
func (p *Pin) wake() {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.haltLocked()
}

func (p *Pin) request(flags, values uint64) error {
	at, err := p.kernel.find(p.name)
	if err == nil {
		p.f, err = p.kernel.request(at.chip, []uint32{at.offset}, "gatehouse "+p.user, flags, values)
	}
	if err != nil {
		p.err = p.error("open", device.ErrAbsent, fmt.Errorf("line %s: %w", p.name, err))
		return p.err
	}
	p.flags, p.err = flags, nil
	return nil
}

func (p *Pin) drop() {
	if p.f != nil {
		_ = p.f.Close()
		p.f, p.out = nil, false
	}
}

func (p *Pin) readLevel() error {
	v, err := p.kernel.get(p.f, 1)
	if err != nil {
		p.err = p.error("read", device.ErrDisconnected, err)
		return p.err
	}
	p.level = v&1 != 0
	return nil
}

func (p *Pin) error(op string, kind, err error) error {
	return &device.Error{Device: p.user, Op: op, Kind: kind, Err: err}
}
