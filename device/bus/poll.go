package bus

import (
	"context"
	"errors"
	"fmt"
	"time"

	"gatehouse/device"
)

// Transactor is what the driver of an I2C chip needs of the bus: I2C is one,
// simulations make others.
type Transactor interface {
	String() string
	// TxContext writes w and then reads r in one transaction; see I2C.
	TxContext(ctx context.Context, w, r []byte) error
	Close() error
}

// ErrNotYet is what a Poller's read returns when the chip has nothing new.
var ErrNotYet = errors.New("nothing new yet")

// notYetMost is how long a chip may answer without anything new: the slowest
// measure every two seconds.
const notYetMost = 3 * time.Second

// Poller reads a chip at a pace and keeps the conduct of package device for it:
// a Sensor's Sample, Health and Close. One goroutine samples at a time.
type Poller struct {
	*Status
	name  string
	tx    Transactor
	every time.Duration
	wake  func(context.Context) error
	read  func(context.Context) (device.Sample, error)

	life context.Context // ends with Close
	stop context.CancelFunc
	next time.Time
	good time.Time // of the last sample, or of waking
	up   bool      // awake
	was  bool      // was awake before
	back backoff
}

var _ device.Sensor = (*Poller)(nil)

// NewPoller builds a sensor of one chip. wake is called before the first read
// and after each fault of the bus; read gives a sample, or ErrNotYet. Their
// errors are *device.Error; Device and Op are filled in here.
func NewPoller(name, driver string, tx Transactor, every time.Duration, wake func(context.Context) error, read func(context.Context) (device.Sample, error)) *Poller {
	p := &Poller{Status: NewStatus(name, driver, tx.String()), name: name, tx: tx, every: every, wake: wake, read: read}
	p.life, p.stop = context.WithCancel(context.Background())
	return p
}

// Sample blocks for the next sample; see package device.
func (p *Poller) Sample(ctx context.Context) (device.Sample, error) {
	both, cancel := context.WithCancel(ctx)
	defer cancel()
	defer context.AfterFunc(p.life, cancel)()
	for {
		if p.life.Err() != nil {
			return device.Sample{}, &device.Error{Device: p.name, Op: "read", Kind: device.ErrClosed}
		}
		if err := ctx.Err(); err != nil {
			return device.Sample{}, err
		}
		if Sleep(both, time.Until(p.next)) != nil {
			continue
		}
		p.next = time.Now().Add(p.every)
		s, err := p.once(both)
		if err == nil {
			s.At = time.Now()
			p.good = s.At
			p.back.reset()
			p.Good(s.At)
			return s, nil
		}
		if both.Err() != nil {
			continue
		}
		if errors.Is(err, ErrNotYet) {
			if time.Since(p.good) < notYetMost {
				continue
			}
			p.up = false // woken again
			err = &device.Error{Kind: device.ErrDisconnected, Err: fmt.Errorf("it answers, but measures nothing for %v", notYetMost)}
		}
		err = p.fault(err)
		if errors.Is(err, device.ErrGarbled) {
			p.Garbled(1)
		}
		if p.Fail(err) {
			return device.Sample{}, err
		}
	}
}

func (p *Poller) once(ctx context.Context) (device.Sample, error) {
	if !p.up {
		if err := p.wake(ctx); err != nil {
			return device.Sample{}, err
		}
		if p.was {
			p.Reopened()
		}
		p.up, p.was, p.good = true, true, time.Now()
	}
	return p.read(ctx)
}

// fault names the device in an error. A chip that has answered before is not
// absent but disconnected, and is woken when it answers again.
func (p *Poller) fault(err error) error {
	e := &device.Error{Device: p.name, Op: "read", Kind: device.ErrGarbled, Err: err}
	var had *device.Error
	if errors.As(err, &had) {
		e.Kind, e.Err = had.Kind, had.Err
	}
	if e.Kind == device.ErrAbsent && p.was {
		e.Kind = device.ErrDisconnected
	}
	if e.Kind == device.ErrAbsent || e.Kind == device.ErrDisconnected {
		p.up = false
		p.next = time.Now().Add(min(p.back.step(), time.Second))
	}
	return e
}

// Try asks the chip for a sign of life.
func (p *Poller) Try() error {
	ctx, cancel := context.WithTimeout(p.life, 3*time.Second)
	defer cancel()
	if err := p.wake(ctx); err != nil {
		return p.fault(err)
	}
	return nil
}

// Close ends a Sample and gives the address free.
func (p *Poller) Close() error {
	p.stop()
	p.Set(device.StateClosed, "")
	return p.tx.Close()
}

// Sleep waits, unless the context ends first; the error is the context's.
func Sleep(ctx context.Context, d time.Duration) error {
	if d <= 0 {
		return ctx.Err()
	}
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-t.C:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}
