package app

import (
	"context"
	"errors"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"gatehouse/device"
	"gatehouse/edge"
)

// Of raw readings so many are kept of each device, and for so long after somebody
// has looked.
const (
	rawKept = 12
	rawFor  = time.Minute
)

// rawWatch keeps what devices gave last, as it came, while somebody looks. Nobody
// looking costs a device one atomic load; looking, a copy into a small ring. It is
// never stored, and forgotten when nobody has looked for rawFor.
type rawWatch struct {
	on atomic.Bool

	mu      sync.Mutex
	until   time.Time
	off     *time.Timer
	devices []*rawDevice
}

// rawDevice is the ring of one device.
type rawDevice struct {
	w      *rawWatch
	serves string

	mu    sync.Mutex
	count uint64
	last  []edge.RawReading
}

func (w *rawWatch) device(serves string) *rawDevice {
	d := &rawDevice{w: w, serves: serves}
	w.mu.Lock()
	defer w.mu.Unlock()
	w.devices = append(w.devices, d)
	return d
}

func (d *rawDevice) add(r edge.RawReading) {
	if !d.w.on.Load() {
		return
	}
	if r.At.IsZero() {
		r.At = time.Now()
	}
	d.mu.Lock()
	defer d.mu.Unlock()
	if len(d.last) >= rawKept {
		d.last = slices.Delete(d.last, 0, 1)
	}
	d.last = append(d.last, r)
	d.count++
}

// failed adds an error of the device, but not that its work is over.
func (d *rawDevice) failed(ctx context.Context, err error) {
	if ctx.Err() == nil && !errors.Is(err, device.ErrClosed) {
		d.add(edge.RawReading{Err: err.Error()})
	}
}

// look gives what each device gave since somebody began to look, and goes on
// watching for a while.
func (w *rawWatch) look() []edge.RawDevice {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.until = time.Now().Add(rawFor)
	if w.off == nil {
		w.off = time.AfterFunc(rawFor, w.end)
	}
	w.on.Store(true)
	out := make([]edge.RawDevice, len(w.devices))
	for i, d := range w.devices {
		d.mu.Lock()
		out[i] = edge.RawDevice{Serves: d.serves, Count: d.count, Last: slices.Clone(d.last)}
		d.mu.Unlock()
	}
	return out
}

// end forgets everything, unless somebody has looked again meanwhile.
func (w *rawWatch) end() {
	w.mu.Lock()
	defer w.mu.Unlock()
	if left := time.Until(w.until); left > 0 {
		w.off.Reset(left)
		return
	}
	w.off = nil
	w.on.Store(false)
	for _, d := range w.devices {
		d.mu.Lock()
		d.count, d.last = 0, nil
		d.mu.Unlock()
	}
}

// stop ends the watch with the gate.
func (w *rawWatch) stop() {
	w.mu.Lock()
	w.until = time.Time{}
	w.mu.Unlock()
	w.end()
}

type rawScanner struct {
	device.Scanner
	raw *rawDevice
}

func (s rawScanner) Read(ctx context.Context) (device.CardRead, error) {
	r, err := s.Scanner.Read(ctx)
	if err != nil {
		s.raw.failed(ctx, err)
	} else {
		s.raw.card(r)
	}
	return r, err
}

// card adds a read. Here and below a copy is made only when somebody looks: an
// argument that escapes would cost an allocation each time.
func (d *rawDevice) card(r device.CardRead) {
	if d.w.on.Load() {
		kept := r
		d.add(edge.RawReading{At: r.At, Card: &kept})
	}
}

type rawContact struct {
	device.Contact
	raw *rawDevice
}

func (c rawContact) Watch(ctx context.Context) (device.Change, error) {
	ch, err := c.Contact.Watch(ctx)
	if err != nil {
		c.raw.failed(ctx, err)
	} else if c.raw.w.on.Load() {
		kept := ch
		c.raw.add(edge.RawReading{At: ch.At, Contact: &kept})
	}
	return ch, err
}

type rawPanel struct {
	device.Panel
	raw *rawDevice
}

func (p rawPanel) Press(ctx context.Context) (device.Press, error) {
	x, err := p.Panel.Press(ctx)
	if err != nil {
		p.raw.failed(ctx, err)
	} else {
		p.raw.add(edge.RawReading{At: x.At, Button: x.Button})
	}
	return x, err
}

// sampled takes a thermometer's raw samples.
func (d *rawDevice) sampled(s device.Sample, err error) {
	switch {
	case !d.w.on.Load():
	case err != nil:
		d.failed(context.Background(), err)
	default:
		kept := s
		kept.Image = nil
		d.add(edge.RawReading{At: s.At, Sample: &kept})
	}
}
