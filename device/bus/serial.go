package bus

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"sync"
	"syscall"
	"time"

	"github.com/tarm/serial"
	"golang.org/x/sys/unix"

	"gatehouse/device"
)

// SerialConfig is how a serial port is set. The zero values mean 9600 8N1.
type SerialConfig struct {
	User   string // the configured name of the device behind the port
	Path   string // best a stable one: /dev/serial/by-id/...
	Baud   int
	Size   int    // data bits
	Parity string // "none", "odd", "even"
	Stop   int    // stop bits, 1 or 2

	OnOpen func(again bool) // called when the port was opened; again: not for the first time
	Tap    func(b []byte)   // shown all bytes that are read, for a recording
}

// Port is a serial port that is opened when first used, closed when its
// adapter goes, and opened again, with back-off, when it returns.
//
// github.com/tarm/serial sets the line up and moves the bytes. Waiting is done
// elsewhere: its Read cannot be woken by its Close, and tells a time-out from a
// vanished adapter by nothing but the clock. So a second descriptor on the same
// terminal, which is never read, waits in the runtime's poller: it is woken by
// bytes, by a hang-up, by the context and by Close, and costs nothing while
// nothing happens. It also holds the lock (flock) that keeps other programs
// which look for one, and a second daemon, away.
//
// One goroutine reads at a time; Write and Close may be called from others.
type Port struct {
	bus   *Bus
	conf  SerialConfig
	set   serial.Config
	claim string

	reading sync.Mutex // held through a Read

	mu      sync.Mutex
	open    *openPort
	closed  bool
	done    chan struct{} // closed by Close
	reopens uint64

	// Of the reader only.
	back  backoff
	was   bool  // was open before: a fault is a disconnection, not an absence
	fault error // the kind reported last, nil after bytes came
}

type openPort struct {
	port *serial.Port
	wait *os.File
	raw  syscall.RawConn
}

// Serial claims a port for one user. It opens nothing; a wrong setting or a
// port that is claimed already is an error.
func (b *Bus) Serial(c SerialConfig) (*Port, error) {
	if c.Path == "" {
		return nil, errors.New("no serial port is given")
	}
	if c.Baud == 0 {
		c.Baud = 9600
	}
	if c.Size == 0 {
		c.Size = 8
	}
	if c.Stop == 0 {
		c.Stop = 1
	}
	set := serial.Config{Name: c.Path, Baud: c.Baud, Size: byte(c.Size), StopBits: serial.StopBits(c.Stop),
		// Only a guard: Read is called when there is something to read.
		ReadTimeout: readGuard}
	switch c.Parity {
	case "", "none":
		set.Parity = serial.ParityNone
	case "odd":
		set.Parity = serial.ParityOdd
	case "even":
		set.Parity = serial.ParityEven
	default:
		return nil, fmt.Errorf("parity %q is not none, odd or even", c.Parity)
	}
	if c.Size < 5 || c.Size > 8 {
		return nil, fmt.Errorf("%d data bits are not between 5 and 8", c.Size)
	}
	if c.Stop != 1 && c.Stop != 2 {
		return nil, fmt.Errorf("%d stop bits are not 1 or 2", c.Stop)
	}
	if !validBaud(c.Baud) {
		return nil, fmt.Errorf("%d is not a baud rate that serial ports have", c.Baud)
	}
	claim, err := b.claimPath(c.Path, c.User)
	if err != nil {
		return nil, err
	}
	return &Port{bus: b, conf: c, set: set, claim: claim, done: make(chan struct{})}, nil
}

// readGuard is the smallest time-out that a terminal has.
const readGuard = 100 * time.Millisecond

func validBaud(n int) bool {
	switch n {
	case 300, 600, 1200, 2400, 4800, 9600, 19200, 38400, 57600, 115200, 230400, 460800, 500000, 576000, 921600, 1000000, 1500000, 2000000:
		return true
	}
	return false
}

// Path is the configured path.
func (p *Port) Path() string { return p.conf.Path }

// Reopens counts how often the port was opened again after a fault.
func (p *Port) Reopens() uint64 {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.reopens
}

// Read blocks until bytes have come, the context is done, the port is closed,
// or a fault begins, and returns at once in each case. The errors:
//
//   - the context's own;
//   - *device.Error of kind ErrAbsent or ErrDisconnected when a fault begins:
//     once, however long it lasts. The next Read waits, trying to open the port
//     again, until bytes come or the fault becomes another;
//   - *device.Error of kind ErrClosed after Close.
func (p *Port) Read(ctx context.Context, buf []byte) (int, error) {
	p.reading.Lock()
	defer p.reading.Unlock()
	for {
		if err := ctx.Err(); err != nil {
			return 0, err
		}
		o, err := p.ensure()
		if err != nil {
			if errors.Is(err, device.ErrClosed) {
				return 0, err
			}
			if kind := kindOf(err); kind != p.fault {
				p.fault = kind
				return 0, err
			}
			if err := p.pause(ctx, p.back.step()); err != nil {
				return 0, err
			}
			continue
		}
		n, err := p.readOpen(ctx, o, buf)
		switch {
		case n > 0:
			p.fault = nil
			p.back.reset()
			if p.conf.Tap != nil {
				p.conf.Tap(buf[:n])
			}
			return n, nil
		case ctx.Err() != nil:
			return 0, ctx.Err()
		case p.isClosed():
			return 0, p.error("read", device.ErrClosed, nil)
		}
		// Closed before it is opened again, or the adapter comes back under
		// another name.
		p.drop(o)
		if p.fault != device.ErrDisconnected {
			p.fault = device.ErrDisconnected
			return 0, p.error("read", device.ErrDisconnected, err)
		}
		if err := p.pause(ctx, p.back.step()); err != nil {
			return 0, err
		}
	}
}

var errHangUp = errors.New("the adapter or the far end hung up")

// readOpen waits and reads. n is 0 only with an error: the context's, a
// closed file's, or that of a port that has gone.
func (p *Port) readOpen(ctx context.Context, o *openPort, buf []byte) (int, error) {
	// A deadline in the past wakes the waiter.
	stop := context.AfterFunc(ctx, func() { _ = o.wait.SetReadDeadline(time.Unix(1, 0)) })
	defer stop()
	empty := 0
	for {
		// Set before the two are looked at: who wakes later sets it again.
		if err := o.wait.SetReadDeadline(time.Time{}); err != nil {
			return 0, err
		}
		if ctx.Err() != nil || p.isClosed() {
			return 0, os.ErrDeadlineExceeded
		}
		var events int16
		var pollErr error
		err := o.raw.Read(func(fd uintptr) bool {
			events, pollErr = pollNow(fd)
			return events != 0 || pollErr != nil
		})
		if errors.Is(err, os.ErrDeadlineExceeded) {
			continue // looked at above; the wake of an earlier Read means nothing
		}
		if err = errors.Join(err, pollErr); err != nil {
			return 0, err
		}
		if events&unix.POLLIN != 0 {
			start := time.Now()
			n, err := o.port.Read(buf)
			if n > 0 {
				return n, nil
			}
			if err != nil && !errors.Is(err, io.EOF) {
				return 0, err
			}
			// Nothing, though there was something: a vanished adapter answers
			// so at once and for ever; a time-out takes its time.
			if empty++; time.Since(start) < readGuard/2 || empty > 3 {
				return 0, errHangUp
			}
			continue
		}
		if events&(unix.POLLHUP|unix.POLLERR|unix.POLLNVAL) != 0 {
			return 0, errHangUp
		}
	}
}

// pollNow asks for the state of a descriptor without waiting.
func pollNow(fd uintptr) (int16, error) {
	fds := [1]unix.PollFd{{Fd: int32(fd), Events: unix.POLLIN}}
	for {
		_, err := unix.Poll(fds[:], 0)
		if err == unix.EINTR {
			continue
		}
		return fds[0].Revents, err
	}
}

// Write sends all of buf. It opens the port when need be and does not wait for
// one that is away. A write of a few bytes never blocks; a longer one may, for
// as long as the line takes.
func (p *Port) Write(buf []byte) (int, error) {
	o, err := p.ensure()
	if err != nil {
		return 0, err
	}
	n, err := o.port.Write(buf)
	if err != nil {
		if p.isClosed() {
			return n, p.error("write", device.ErrClosed, nil)
		}
		return n, p.error("write", device.ErrDisconnected, err)
	}
	return n, nil
}

// Try opens the port if it is not open, and says why it cannot be: for a check
// before anything runs.
func (p *Port) Try() error {
	_, err := p.ensure()
	return err
}

// Close closes the port, ends a Read that waits, and gives the path free.
func (p *Port) Close() error {
	p.mu.Lock()
	if p.closed {
		p.mu.Unlock()
		return nil
	}
	p.closed = true
	close(p.done)
	o := p.open
	if o != nil {
		_ = o.wait.SetReadDeadline(time.Unix(1, 0))
	}
	p.mu.Unlock()
	// The reader returns within readGuard; nobody else uses the descriptors.
	p.reading.Lock()
	defer p.reading.Unlock()
	p.mu.Lock()
	o, p.open = p.open, nil
	p.mu.Unlock()
	p.bus.release(p.claim)
	return o.close()
}

func (p *Port) isClosed() bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.closed
}

func (p *Port) ensure() (*openPort, error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.closed {
		return nil, p.error("read", device.ErrClosed, nil)
	}
	if p.open != nil {
		return p.open, nil
	}
	o, err := p.openNow()
	if err != nil {
		kind := device.ErrAbsent
		if p.was {
			kind = device.ErrDisconnected
		}
		return nil, p.error("open", kind, err)
	}
	if p.was {
		p.reopens++
	}
	if p.conf.OnOpen != nil {
		p.conf.OnOpen(p.was)
	}
	p.open, p.was = o, true
	return o, nil
}

func (p *Port) openNow() (*openPort, error) {
	f, err := os.OpenFile(p.conf.Path, unix.O_RDWR|unix.O_NOCTTY|unix.O_NONBLOCK, 0)
	if err != nil {
		var pe *os.PathError
		if errors.As(err, &pe) {
			err = fmt.Errorf("%s: %w", p.conf.Path, pe.Err)
		}
		return nil, err
	}
	o := &openPort{wait: f}
	fail := func(err error) (*openPort, error) { _ = o.close(); return nil, err }
	if o.raw, err = f.SyscallConn(); err != nil {
		return fail(err)
	}
	var sysErr error
	err = o.raw.Control(func(fd uintptr) {
		if _, e := unix.IoctlGetTermios(int(fd), unix.TCGETS); e != nil {
			sysErr = fmt.Errorf("%s is not a serial port: %w", p.conf.Path, e)
			return
		}
		if e := unix.Flock(int(fd), unix.LOCK_EX|unix.LOCK_NB); e != nil {
			sysErr = fmt.Errorf("%s is in use by another program: %w", p.conf.Path, e)
		}
	})
	if err = errors.Join(err, sysErr); err != nil {
		return fail(err)
	}
	set := p.set
	if o.port, err = serial.OpenPort(&set); err != nil {
		return fail(fmt.Errorf("%s: %w", p.conf.Path, err))
	}
	return o, nil
}

func (p *Port) drop(o *openPort) {
	p.mu.Lock()
	if p.open == o {
		p.open = nil
	}
	p.mu.Unlock()
	_ = o.close()
}

func (o *openPort) close() error {
	if o == nil {
		return nil
	}
	var err error
	if o.port != nil {
		err = o.port.Close()
	}
	return errors.Join(err, o.wait.Close())
}

// pause waits, unless the context or the port ends first.
func (p *Port) pause(ctx context.Context, d time.Duration) error {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-ctx.Done():
		return ctx.Err()
	case <-p.done:
		return p.error("read", device.ErrClosed, nil)
	case <-t.C:
		return nil
	}
}

func (p *Port) error(op string, kind, err error) error {
	return &device.Error{Device: p.conf.User, Op: op, Kind: kind, Err: err}
}

func kindOf(err error) error {
	for _, k := range []error{device.ErrAbsent, device.ErrDisconnected, device.ErrGarbled, device.ErrOutOfRange, device.ErrClosed} {
		if errors.Is(err, k) {
			return k
		}
	}
	return err
}
