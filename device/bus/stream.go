package bus

import (
	"context"
	"errors"
	"os"
	"sync"
	"time"

	"golang.org/x/sys/unix"

	"gatehouse/device"
)

// stream is a character device that is read in records: opened when first
// read, closed when it fails, opened again with back-off. It keeps the conduct
// of package device: a fault is returned once, when it begins.
type stream struct {
	user   string
	open   func() (*os.File, error)
	onOpen func(again bool)

	reading sync.Mutex // held through a read

	mu     sync.Mutex
	f      *os.File
	closed bool
	done   chan struct{}
	was    bool

	// Of the reader only.
	back  backoff
	fault error
}

func newStream(user string, open func() (*os.File, error), onOpen func(again bool)) *stream {
	return &stream{user: user, open: open, onOpen: onOpen, done: make(chan struct{})}
}

// read waits for bytes, at most for the time given (0 = no limit); 0 bytes
// without an error when the time is over.
func (s *stream) read(ctx context.Context, buf []byte, wait time.Duration) (int, error) {
	s.reading.Lock()
	defer s.reading.Unlock()
	for {
		if err := ctx.Err(); err != nil {
			return 0, err
		}
		f, err := s.ensure()
		if err == nil {
			var n int
			if n, err = s.readOpen(ctx, f, buf, wait); err == nil {
				if n > 0 {
					s.fault = nil
					s.back.reset()
				}
				return n, nil
			}
			if ctx.Err() != nil {
				return 0, ctx.Err()
			}
			s.drop()
			err = s.error("read", device.ErrDisconnected, err)
		}
		if s.isClosed() {
			return 0, s.error("read", device.ErrClosed, nil)
		}
		if kind := kindOf(err); kind != s.fault {
			s.fault = kind
			return 0, err
		}
		t := time.NewTimer(s.back.step())
		select {
		case <-ctx.Done():
		case <-s.done:
		case <-t.C:
		}
		t.Stop()
	}
}

// precise is the longest wait for which a thread is spent: the runtime's poller
// waits in whole milliseconds.
const precise = 50 * time.Millisecond

func (s *stream) readOpen(ctx context.Context, f *os.File, buf []byte, wait time.Duration) (int, error) {
	if wait > 0 && wait <= precise {
		return readWithin(f, buf, wait)
	}
	deadline := time.Time{}
	if wait > 0 {
		deadline = time.Now().Add(wait)
	}
	stop := context.AfterFunc(ctx, func() { _ = f.SetReadDeadline(time.Unix(1, 0)) })
	defer stop()
	for {
		// Set before the two are looked at: who wakes later sets it again.
		if err := f.SetReadDeadline(deadline); err != nil {
			return 0, err
		}
		if ctx.Err() != nil || s.isClosed() {
			return 0, os.ErrClosed
		}
		n, err := f.Read(buf)
		if !errors.Is(err, os.ErrDeadlineExceeded) {
			return n, err
		}
		if wait > 0 && !time.Now().Before(deadline) {
			// A process that was kept busy wakes late, with bytes waiting that
			// came in time: they must not be taken for what follows a pause.
			return readNow(f, buf)
		}
	}
}

// readNow reads without waiting; 0 when there is nothing.
func readNow(f *os.File, buf []byte) (int, error) { return readWithin(f, buf, 0) }

// readWithin waits to the microsecond, in the kernel; 0 when nothing came.
func readWithin(f *os.File, buf []byte, wait time.Duration) (int, error) {
	raw, err := f.SyscallConn()
	if err != nil {
		return 0, err
	}
	deadline := time.Now().Add(wait)
	var n int
	var sysErr error
	err = raw.Control(func(fd uintptr) {
		for {
			left := unix.NsecToTimespec(max(0, time.Until(deadline)).Nanoseconds())
			fds := [1]unix.PollFd{{Fd: int32(fd), Events: unix.POLLIN}}
			_, sysErr = unix.Ppoll(fds[:], &left, nil)
			if sysErr == nil && fds[0].Revents != 0 {
				n, sysErr = unix.Read(int(fd), buf)
			}
			if sysErr != unix.EINTR {
				return
			}
		}
	})
	if sysErr == unix.EAGAIN {
		sysErr = nil
	}
	if err = errors.Join(err, sysErr); err == nil && n < 0 {
		n = 0
	}
	return max(n, 0), err
}

func (s *stream) ensure() (*os.File, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.closed {
		return nil, s.error("read", device.ErrClosed, nil)
	}
	if s.f != nil {
		return s.f, nil
	}
	f, err := s.open()
	if err != nil {
		kind := device.ErrAbsent
		if s.was {
			kind = device.ErrDisconnected
		}
		return nil, s.error("open", kind, err)
	}
	if s.onOpen != nil {
		s.onOpen(s.was)
	}
	s.f, s.was = f, true
	return f, nil
}

func (s *stream) drop() {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.f != nil {
		_ = s.f.Close()
		s.f = nil
	}
}

func (s *stream) isClosed() bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.closed
}

// close ends a read and reports whether it was the first close.
func (s *stream) close() bool {
	s.mu.Lock()
	if s.closed {
		s.mu.Unlock()
		return false
	}
	s.closed = true
	close(s.done)
	if s.f != nil {
		_ = s.f.SetReadDeadline(time.Unix(1, 0))
	}
	s.mu.Unlock()
	s.reading.Lock()
	defer s.reading.Unlock()
	s.drop()
	return true
}

func (s *stream) error(op string, kind, err error) error {
	return &device.Error{Device: s.user, Op: op, Kind: kind, Err: err}
}
