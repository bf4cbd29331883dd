package bus

import (
	"context"
	"errors"
	"fmt"
	"os"
	"sync"
	"time"

	"golang.org/x/sys/unix"
	"periph.io/x/conn/v3/gpio"

	"gatehouse/device"
)

// Lines is a group of input lines, requested together from the kernel so that
// the edges of all come in one queue, in order, with the time of the interrupt.
// The queue holds 1024 edges: a process that is kept busy for tens of
// milliseconds loses none, and a loss is seen from the sequence numbers.
type Lines struct {
	bus    *Bus
	kernel gpioKernel
	conf   LinesConfig

	reading sync.Mutex

	mu     sync.Mutex
	f      *os.File
	offset []uint32
	closed bool
	done   chan struct{}

	// Of the reader only.
	seq   uint32
	buf   []byte
	back  backoff
	was   bool
	fault error
}

var _ EdgeReader = (*Lines)(nil)

// Lines claims input lines for one user. It opens nothing.
func (b *Bus) Lines(c LinesConfig) (*Lines, error) {
	if len(c.Names) == 0 || len(c.Names) > 16 {
		return nil, fmt.Errorf("%d lines are not between 1 and 16", len(c.Names))
	}
	for i, n := range c.Names {
		err := b.claim(n, c.User)
		if err == nil && !lineName.MatchString(n) {
			b.release(n)
			err = fmt.Errorf("%q is not a GPIO line (want one like GPIO17, or gpiochip0:17)", n)
		}
		if err != nil {
			for _, taken := range c.Names[:i] {
				b.release(taken)
			}
			return nil, err
		}
	}
	return &Lines{bus: b, kernel: b.gpio, conf: c, done: make(chan struct{}), buf: make([]byte, 64*eventSize)}, nil
}

// Now is CLOCK_MONOTONIC.
func (l *Lines) Now() time.Duration { return monotonic() }

// Read implements EdgeReader. A line that cannot be had is reported once and
// then tried again with back-off.
func (l *Lines) Read(ctx context.Context, ev []Event, wait time.Duration) (n, lost int, err error) {
	l.reading.Lock()
	defer l.reading.Unlock()
	for {
		if err := ctx.Err(); err != nil {
			return 0, 0, err
		}
		f, err := l.ensure()
		if err == nil {
			n, lost, err = l.readOpen(ctx, f, ev, wait)
			if err == nil {
				return n, lost, nil
			}
			if ctx.Err() != nil {
				return 0, 0, ctx.Err()
			}
			l.drop()
			if !l.isClosed() {
				err = l.error("read", device.ErrDisconnected, err)
			}
		}
		if l.isClosed() {
			return 0, 0, l.error("read", device.ErrClosed, nil)
		}
		if kind := kindOf(err); kind != l.fault {
			l.fault = kind
			return 0, 0, err
		}
		t := time.NewTimer(l.back.step())
		select {
		case <-ctx.Done():
		case <-l.done:
		case <-t.C:
		}
		t.Stop()
	}
}

func (l *Lines) readOpen(ctx context.Context, f *os.File, ev []Event, wait time.Duration) (int, int, error) {
	deadline := time.Time{}
	if wait > 0 {
		deadline = time.Now().Add(wait)
	}
	stop := context.AfterFunc(ctx, func() { _ = f.SetReadDeadline(time.Unix(1, 0)) })
	defer stop()
	want := min(len(ev)*eventSize, len(l.buf))
	var got int
	for {
		// Set before the two are looked at: who wakes later sets it again.
		if err := f.SetReadDeadline(deadline); err != nil {
			return 0, 0, err
		}
		if ctx.Err() != nil || l.isClosed() {
			return 0, 0, os.ErrClosed
		}
		var err error
		if got, err = f.Read(l.buf[:want]); err == nil {
			break
		}
		if !errors.Is(err, os.ErrDeadlineExceeded) {
			return 0, 0, err
		}
		if wait > 0 && !time.Now().Before(deadline) {
			// A process that was kept busy wakes late, with edges waiting that
			// came in time: they must not be taken for a new frame.
			if got, err = readNow(f, l.buf[:want]); err != nil || got == 0 {
				return 0, 0, err
			}
			break
		}
	}
	l.fault = nil
	l.back.reset()
	n, lost := 0, 0
	for ; (n+1)*eventSize <= got; n++ {
		e := decodeEvent(l.buf[n*eventSize:])
		lost += int(e.Seqno - l.seq - 1)
		l.seq = e.Seqno
		ev[n] = Event{Rising: e.Id == unix.GPIO_V2_LINE_EVENT_RISING_EDGE, At: time.Duration(e.Timestamp_ns)}
		for i, o := range l.offset {
			if o == e.Offset {
				ev[n].Line = i
			}
		}
	}
	return n, lost, nil
}

// readNow reads without waiting; 0 when there is nothing.
func readNow(f *os.File, buf []byte) (int, error) {
	if err := f.SetReadDeadline(time.Time{}); err != nil {
		return 0, err
	}
	raw, err := f.SyscallConn()
	if err != nil {
		return 0, err
	}
	var n int
	var sysErr error
	err = raw.Read(func(fd uintptr) bool {
		n, sysErr = unix.Read(int(fd), buf)
		return true
	})
	if errors.Is(sysErr, unix.EAGAIN) || errors.Is(sysErr, unix.EINTR) {
		return 0, err
	}
	return max(n, 0), errors.Join(err, sysErr)
}

// Levels reads the lines now.
func (l *Lines) Levels(levels []gpio.Level) error {
	f, err := l.ensure()
	if err != nil {
		return err
	}
	v, err := l.kernel.get(f, len(l.conf.Names))
	if err != nil {
		return l.error("read", device.ErrDisconnected, err)
	}
	for i := range min(len(levels), len(l.conf.Names)) {
		levels[i] = v&(1<<i) != 0
	}
	return nil
}

// Try takes the lines if they are not taken yet, and says why it cannot.
func (l *Lines) Try() error {
	_, err := l.ensure()
	return err
}

func (l *Lines) ensure() (*os.File, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.closed {
		return nil, l.error("read", device.ErrClosed, nil)
	}
	if l.f != nil {
		return l.f, nil
	}
	kind := device.ErrAbsent
	if l.was {
		kind = device.ErrDisconnected
	}
	var chip string
	offsets := make([]uint32, len(l.conf.Names))
	for i, n := range l.conf.Names {
		at, err := l.kernel.find(n)
		if err == nil && chip != "" && at.chip != chip {
			err = fmt.Errorf("%s is of another chip than %s", n, l.conf.Names[0])
		}
		if err != nil {
			return nil, l.error("open", kind, fmt.Errorf("line %s: %w", n, err))
		}
		chip, offsets[i] = at.chip, at.offset
	}
	f, err := l.kernel.request(chip, offsets, "gatehouse "+l.conf.User, inputFlags(l.conf.Pull, l.conf.Edge), 0)
	if err != nil {
		return nil, l.error("open", kind, err)
	}
	if l.conf.OnOpen != nil {
		l.conf.OnOpen(l.was)
	}
	l.f, l.offset, l.was, l.seq = f, offsets, true, 0
	return f, nil
}

func (l *Lines) drop() {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.f != nil {
		_ = l.f.Close()
		l.f = nil
	}
}

func (l *Lines) isClosed() bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.closed
}

// Close ends a Read and gives the lines back.
func (l *Lines) Close() error {
	l.mu.Lock()
	if l.closed {
		l.mu.Unlock()
		return nil
	}
	l.closed = true
	close(l.done)
	if l.f != nil {
		_ = l.f.SetReadDeadline(time.Unix(1, 0))
	}
	l.mu.Unlock()
	l.reading.Lock()
	defer l.reading.Unlock()
	l.drop()
	for _, n := range l.conf.Names {
		l.bus.release(n)
	}
	return nil
}

func (l *Lines) error(op string, kind, err error) error {
	return &device.Error{Device: l.conf.User, Op: op, Kind: kind, Err: err}
}
