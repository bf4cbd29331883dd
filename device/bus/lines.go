package bus

import (
	"context"
	"fmt"
	"os"
	"slices"
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
	seq    uint32 // of the last edge given out
	buf    []byte
	raw    []unix.GPIOV2LineEvent // read, not given out
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
	l := &Lines{bus: b, conf: c, buf: make([]byte, 64*eventSize), raw: make([]unix.GPIOV2LineEvent, 0, 2*64)}
	l.stream = newStream(c.User, l.request, c.OnOpen)
	return l, nil
}

// Now is CLOCK_MONOTONIC.
func (l *Lines) Now() time.Duration { return monotonic() }

// straggle is how long an edge may be late for its place in the queue: each
// line has an interrupt thread of its own, and they overtake each other.
const straggle = 500 * time.Microsecond

// Read implements EdgeReader. Lines that cannot be had are reported once and
// then tried again with back-off.
//
// The kernel numbers the edges of all lines in the interrupt itself, and queues
// them from a thread for each line. So the queue may be out of order; and two
// edges of one line that come before its thread has run are one event, with the
// second's number and time. The numbers put the first right and tell the second.
func (l *Lines) Read(ctx context.Context, ev []Event, wait time.Duration) (int, error) {
	room := min(len(ev), cap(l.raw)/2)
	got, err := l.take(ctx, room, wait)
	if err != nil || got == 0 {
		return 0, err
	}
	if l.gaps() {
		if _, err := l.take(ctx, room, straggle); err != nil && ctx.Err() == nil {
			return 0, err
		}
	}
	n := 0
	for _, e := range l.raw[:min(len(l.raw), len(ev))] {
		ev[n] = Event{Rising: e.Id == unix.GPIO_V2_LINE_EVENT_RISING_EDGE, At: time.Duration(e.Timestamp_ns)}
		if missed := int32(e.Seqno - l.seq - 1); missed > 0 {
			ev[n].Lost = int(missed)
			l.seq = e.Seqno
		} else if missed == 0 {
			l.seq = e.Seqno
		} else {
			ev[n].Lost = 1 // too late for its place: the order is in doubt
		}
		for i, o := range l.offset {
			if o == e.Offset {
				ev[n].Line = i
			}
		}
		n++
	}
	l.raw = l.raw[:copy(l.raw, l.raw[n:])]
	return n, nil
}

// take reads what is queued behind what was taken, and sorts all by number.
func (l *Lines) take(ctx context.Context, room int, wait time.Duration) (int, error) {
	got, err := l.read(ctx, l.buf[:room*eventSize], wait)
	if err != nil {
		l.raw = l.raw[:0]
		return 0, err
	}
	for i := 0; (i+1)*eventSize <= got; i++ {
		l.raw = append(l.raw, decodeEvent(l.buf[i*eventSize:]))
	}
	slices.SortStableFunc(l.raw, func(a, b unix.GPIOV2LineEvent) int { return int(int32(a.Seqno - b.Seqno)) })
	return got / eventSize, nil
}

// gaps reports whether a number is missing.
func (l *Lines) gaps() bool {
	seq := l.seq
	for _, e := range l.raw {
		if e.Seqno != seq+1 {
			return true
		}
		seq = e.Seqno
	}
	return false
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
		l.offset, l.seq, l.raw = offsets, 0, l.raw[:0]
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
