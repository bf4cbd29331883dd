package bus

import (
	"context"
	"errors"
	"os"
	"runtime"
	"strings"
	"sync"
	"testing"
	"time"
	"unsafe"

	"go.uber.org/goleak"
	"golang.org/x/sys/unix"
	"periph.io/x/conn/v3/gpio"

	"gatehouse/device"
)

// wires stands in for the kernel's chip where there is none; the real one is
// what the virtual machine's suite runs on. Events go through a pipe, which
// takes deadlines as the character device does.
type wires struct {
	mu       sync.Mutex
	absent   bool
	requests []string // "in", "out=1"
	level    uint64
	events   *os.File
	seq      uint32
}

func (w *wires) find(name string) (lineRef, error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.absent {
		return lineRef{}, ErrNoLine
	}
	return lineRef{"chip", uint32(name[len(name)-1] - '0')}, nil
}

func (w *wires) request(_ string, offsets []uint32, _ string, flags, values uint64) (*os.File, error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	r, e, err := os.Pipe()
	if err != nil {
		return nil, err
	}
	if w.events != nil {
		w.events.Close()
	}
	w.events, w.seq = e, 0
	if flags&flagOutput != 0 {
		w.level = values
		w.requests = append(w.requests, "out="+string(rune('0'+values)))
	} else {
		w.requests = append(w.requests, "in")
	}
	return r, nil
}

func (w *wires) get(*os.File, int) (uint64, error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.level, nil
}

func (w *wires) set(_ *os.File, mask, values uint64) error {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.level = w.level&^mask | values&mask
	return nil
}

// edge makes an event; skip are events lost before it.
func (w *wires) edge(t *testing.T, line uint32, rising bool, skip uint32) {
	t.Helper()
	w.mu.Lock()
	defer w.mu.Unlock()
	w.seq += 1 + skip
	e := unix.GPIOV2LineEvent{Timestamp_ns: uint64(monotonic()), Id: unix.GPIO_V2_LINE_EVENT_FALLING_EDGE, Offset: line, Seqno: w.seq}
	if rising {
		e.Id = unix.GPIO_V2_LINE_EVENT_RISING_EDGE
	}
	if _, err := w.events.Write(unsafe.Slice((*byte)(unsafe.Pointer(&e)), eventSize)); err != nil {
		t.Error(err)
	}
}

func onWires() (*Bus, *wires) {
	w := &wires{}
	b := New()
	b.gpio = w
	return b, w
}

func TestEventHasTheKernelsSize(t *testing.T) {
	if eventSize != 48 || unsafe.Sizeof(unix.GPIOV2LineRequest{}) != 592 {
		t.Errorf("an event has %d bytes, a request %d; the kernel's have 48 and 592", eventSize, unsafe.Sizeof(unix.GPIOV2LineRequest{}))
	}
}

func TestPinOutput(t *testing.T) {
	b, w := onWires()
	p, err := b.Pin("relay", "GPIO7")
	if err != nil {
		t.Fatal(err)
	}
	if len(w.requests) != 0 {
		t.Errorf("the constructor took the line: %v", w.requests)
	}
	if err := p.Out(gpio.High); err != nil {
		t.Fatal(err)
	}
	if p.Read() != gpio.High || p.Function() != "Out/High" {
		t.Errorf("high output reads %v as %s", p.Read(), p.Function())
	}
	if err := p.Out(gpio.Low); err != nil {
		t.Fatal(err)
	}
	if p.Read() != gpio.Low {
		t.Error("low output reads high")
	}
	if got := strings.Join(w.requests, " "); got != "out=1" {
		t.Errorf("the kernel was asked %q: want one request, high from the first moment, and no change of direction by reads", got)
	}
	if err := p.Close(); err != nil {
		t.Fatal(err)
	}
	if err := p.Out(gpio.High); !errors.Is(err, device.ErrClosed) {
		t.Errorf("output after close: %v", err)
	}
}

func TestPinIsTriedAgain(t *testing.T) {
	b, w := onWires()
	w.absent = true
	p, err := b.Pin("relay", "GPIO7")
	if err != nil {
		t.Fatal(err)
	}
	if err := p.Out(gpio.High); !errors.Is(err, device.ErrAbsent) || !errors.Is(err, ErrNoLine) || !errors.Is(p.Err(), device.ErrAbsent) {
		t.Errorf("no such line: %v", err)
	}
	w.absent = false
	if err := p.Out(gpio.High); err != nil || p.Err() != nil {
		t.Errorf("the line is there now: %v", err)
	}
	p.Close()
}

func TestWaitForEdge(t *testing.T) {
	defer goleak.VerifyNone(t)
	b, w := onWires()
	p, err := b.Pin("button", "GPIO7")
	if err != nil {
		t.Fatal(err)
	}
	if err := p.In(gpio.PullUp, gpio.BothEdges); err != nil {
		t.Fatal(err)
	}
	if p.WaitForEdge(0) || p.WaitForEdge(time.Millisecond) {
		t.Error("an edge without an edge")
	}
	w.edge(t, 7, true, 0)
	if !p.WaitForEdge(-1) || time.Since(p.EdgeTime()) > time.Minute {
		t.Errorf("no edge, or of %v", p.EdgeTime())
	}
	// A Halt before the wait ends it, as does one during it.
	if err := p.Halt(); err != nil {
		t.Fatal(err)
	}
	if p.WaitForEdge(-1) {
		t.Error("an edge after Halt")
	}
	if err := p.In(gpio.PullUp, gpio.BothEdges); err != nil {
		t.Fatal(err)
	}
	for _, end := range []func(){func() { p.Halt() }, func() { _ = p.In(gpio.PullUp, gpio.BothEdges) }, func() { p.Close() }} {
		done := make(chan bool)
		go func() { done <- p.WaitForEdge(-1) }()
		for p.waiting.TryLock() { // In ends a wait in progress only
			p.waiting.Unlock()
			runtime.Gosched()
		}
		end()
		if <-done {
			t.Error("an edge without an edge")
		}
		_ = p.In(gpio.PullUp, gpio.BothEdges)
	}
	w.events.Close()
}

func TestLineOfTwoUsers(t *testing.T) {
	b, _ := onWires()
	if _, err := b.Pin("relay", "GPIO7"); err != nil {
		t.Fatal(err)
	}
	var used *InUseError
	if _, err := b.Pin("lamp", "GPIO7"); !errors.As(err, &used) || used.By != "relay" {
		t.Errorf("second user: %v", err)
	}
	if _, err := b.Lines(LinesConfig{User: "reader", Names: []string{"GPIO6", "GPIO7"}}); !errors.As(err, &used) {
		t.Errorf("group: %v", err)
	}
	if _, err := b.Lines(LinesConfig{User: "reader", Names: []string{"GPIO6", "GPIO5"}}); err != nil {
		t.Errorf("the refused group has kept a line: %v", err)
	}
	if _, err := b.Pin("x", "GPIO 7"); err == nil {
		t.Error("a blank in a line's name")
	}
}

func TestLines(t *testing.T) {
	defer goleak.VerifyNone(t)
	b, w := onWires()
	var opened []bool
	l, err := b.Lines(LinesConfig{User: "reader", Names: []string{"GPIO4", "GPIO5"}, Pull: gpio.PullUp, Edge: gpio.FallingEdge,
		OnOpen: func(again bool) { opened = append(opened, again) }})
	if err != nil {
		t.Fatal(err)
	}
	var ev [16]Event
	if n, err := l.Read(t.Context(), ev[:], time.Millisecond); n != 0 || err != nil {
		t.Fatalf("nothing to read: %d, %v", n, err)
	}
	w.edge(t, 5, false, 0)
	w.edge(t, 4, false, 0)
	w.edge(t, 4, true, 3)
	n, err := l.Read(t.Context(), ev[:], 0)
	if n != 3 || ev[2].Lost != 3 || err != nil || ev[0].Line != 1 || ev[1].Line != 0 || ev[1].Lost != 0 || !ev[2].Rising || ev[0].Rising {
		t.Errorf("%d events, %v: %+v", n, err, ev[:n])
	}
	// One line's interrupt thread overtakes the other's.
	w.seq++
	w.edge(t, 5, false, 0)
	w.seq -= 2
	w.edge(t, 4, false, 0)
	w.seq++
	n, err = l.Read(t.Context(), ev[:], 0)
	if n != 2 || err != nil || ev[0].Line != 0 || ev[1].Line != 1 || ev[0].Lost+ev[1].Lost != 0 {
		t.Errorf("out of order: %d events, %v: %+v", n, err, ev[:n])
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if _, err := l.Read(ctx, ev[:], 0); !errors.Is(err, context.Canceled) {
		t.Errorf("cancelled: %v", err)
	}
	// The chip goes and comes back.
	w.mu.Lock()
	w.absent = true
	w.events.Close()
	w.events = nil
	w.mu.Unlock()
	if _, err := l.Read(t.Context(), ev[:], 0); !errors.Is(err, device.ErrDisconnected) {
		t.Fatalf("gone: %v", err)
	}
	w.mu.Lock()
	w.absent = false
	w.mu.Unlock()
	if n, err := l.Read(t.Context(), ev[:], time.Millisecond); n != 0 || err != nil {
		t.Errorf("back: %d, %v", n, err)
	}
	if len(opened) != 2 || opened[0] || !opened[1] {
		t.Errorf("OnOpen was called with %v", opened)
	}
	done := make(chan error)
	go func() {
		_, err := l.Read(context.Background(), ev[:], 0)
		done <- err
	}()
	if err := l.Close(); err != nil {
		t.Fatal(err)
	}
	if err := <-done; !errors.Is(err, device.ErrClosed) {
		t.Errorf("closed: %v", err)
	}
	w.events.Close()
}
