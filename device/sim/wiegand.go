package sim

import (
	"context"
	"sync"
	"time"

	"periph.io/x/conn/v3/gpio"

	"gatehouse/device"
	"gatehouse/device/bus"
)

// Wiegand emulates a Wiegand reader on two lines that exist in memory: it
// implements bus.EdgeReader in place of the kernel's queue. Each edge has the
// stamp that a real one of the train would have.
type Wiegand struct {
	Period time.Duration // of a bit
	Gap    time.Duration // between frames

	mu     sync.Mutex
	start  time.Time
	queue  []bus.Event
	free   time.Duration // the train in progress ends
	low    [2]bool
	closed bool
	opened func(bool)
	wake   chan struct{}
	swap   bool
	drop   func(i int) bool // bits that do not arrive
	lose   func(i int) bool // bits of which the kernel knows only that they came
	merged int
	glitch func(i int) bool // bits that ring
}

// NewWiegand makes lines with bits 1 ms apart.
func NewWiegand() *Wiegand {
	return &Wiegand{Period: time.Millisecond, Gap: 100 * time.Millisecond, start: time.Now(), wake: make(chan struct{}, 1)}
}

// Open gives the lines to a driver; it fits catalog.Env.Edges.
func (w *Wiegand) Open(c bus.LinesConfig) (bus.EdgeReader, error) {
	w.opened = c.OnOpen
	return w, nil
}

// SetFaults makes bits that are lost or that ring, given by their index in the
// frame, and swaps the lines. Nil is without fault.
func (w *Wiegand) SetFaults(swap bool, drop, ring func(i int) bool) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.swap, w.drop, w.glitch = swap, drop, ring
}

// Stick holds a line low (0 or 1) or lets it go.
func (w *Wiegand) Stick(line int, low bool) {
	w.mu.Lock()
	defer w.mu.Unlock()
	if low && !w.low[line] {
		w.push(line, w.begin(w.Period))
	}
	w.low[line] = low
}

// Lose makes bits whose edges the kernel counts and does not deliver, as it
// does when its interrupt thread is late.
func (w *Wiegand) Lose(lose func(i int) bool) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.lose = lose
}

// Send plays frames, one after the other.
func (w *Wiegand) Send(frames ...device.RawBits) {
	w.mu.Lock()
	defer w.mu.Unlock()
	for _, f := range frames {
		at := w.begin(w.Gap)
		for i := range f.Len {
			line := 0
			if f.Bit(i) != w.swap {
				line = 1
			}
			if w.lose != nil && w.lose(i) {
				w.merged++
			} else if w.drop == nil || !w.drop(i) {
				w.push(line, at)
				if w.glitch != nil && w.glitch(i) {
					w.push(line, at+2*time.Microsecond)
				}
			}
			at += w.Period
		}
		w.free = at
	}
}

func (w *Wiegand) begin(gap time.Duration) time.Duration {
	return max(w.free+gap, w.now())
}

func (w *Wiegand) push(line int, at time.Duration) {
	if w.low[line] {
		return // no edge on a line that is low
	}
	w.queue = append(w.queue, bus.Event{Line: line, At: at, Lost: w.merged})
	w.merged = 0
	w.free = max(w.free, at)
	select {
	case w.wake <- struct{}{}:
	default:
	}
}

func (w *Wiegand) now() time.Duration { return time.Since(w.start) }

// Now implements bus.EdgeReader.
func (w *Wiegand) Now() time.Duration { return w.now() }

// Read implements bus.EdgeReader.
func (w *Wiegand) Read(ctx context.Context, ev []bus.Event, wait time.Duration) (int, error) {
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
		w.mu.Lock()
		if w.closed {
			w.mu.Unlock()
			return 0, &device.Error{Device: "simulated lines", Op: "read", Kind: device.ErrClosed}
		}
		if w.opened != nil {
			w.opened(false)
			w.opened = nil
		}
		if len(w.queue) > 0 {
			n := copy(ev, w.queue)
			w.queue = w.queue[:copy(w.queue, w.queue[n:])]
			w.mu.Unlock()
			return n, nil
		}
		w.mu.Unlock()
		select {
		case <-ctx.Done():
		case <-w.wake:
		case <-end:
			return 0, nil
		}
	}
}

// Levels implements bus.EdgeReader.
func (w *Wiegand) Levels(levels []gpio.Level) error {
	w.mu.Lock()
	defer w.mu.Unlock()
	for i := range levels {
		levels[i] = gpio.Level(!w.low[i])
	}
	return nil
}

// Close implements bus.EdgeReader.
func (w *Wiegand) Close() error {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.closed = true
	select {
	case w.wake <- struct{}{}:
	default:
	}
	return nil
}
