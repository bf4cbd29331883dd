package bus

import (
	"context"
	"fmt"
	"os"
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
	*stream
	bus    *Bus
	conf   LinesConfig
	offset []uint32
	seq    uint32
	buf    []byte
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
	l := &Lines{bus: b, conf: c, buf: make([]byte, 64*eventSize)}
	l.stream = newStream(c.User, l.request, c.OnOpen)
	return l, nil
}

// Now is CLOCK_MONOTONIC.
func (l *Lines) Now() time.Duration { return monotonic() }

// Read implements EdgeReader. Lines that cannot be had are reported once and
// then tried again with back-off.
func (l *Lines) Read(ctx context.Context, ev []Event, wait time.Duration) (n, lost int, err error) {
	got, err := l.read(ctx, l.buf[:min(len(ev)*eventSize, len(l.buf))], wait)
	if err != nil {
		return 0, 0, err
	}
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

// Levels reads the lines now.
func (l *Lines) Levels(levels []gpio.Level) error {
	f, err := l.ensure()
	if err != nil {
		return err
	}
	v, err := l.bus.gpio.get(f, len(l.conf.Names))
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

func (l *Lines) request() (*os.File, error) {
	var chip string
	offsets := make([]uint32, len(l.conf.Names))
	for i, n := range l.conf.Names {
		at, err := l.bus.gpio.find(n)
		if err == nil && chip != "" && at.chip != chip {
			err = fmt.Errorf("it is of another chip than %s", l.conf.Names[0])
		}
		if err != nil {
			return nil, fmt.Errorf("line %s: %w", n, err)
		}
		chip, offsets[i] = at.chip, at.offset
	}
	f, err := l.bus.gpio.request(chip, offsets, "gatehouse "+l.conf.User, inputFlags(l.conf.Pull, l.conf.Edge), 0)
	if err == nil {
		l.offset, l.seq = offsets, 0
	}
	return f, err
}

// Close ends a Read and gives the lines back.
func (l *Lines) Close() error {
	if l.close() {
		for _, n := range l.conf.Names {
			l.bus.release(n)
		}
	}
	return nil
}
