// Package clock gives wall time with its trust, the boot id, and monotonic time.
//
// A gate may wake up in 1970: a Raspberry Pi has no clock battery. So the wall
// time is never below a floor (the newest of the build's time, the time kept on
// disk, and signed server time), it is said how far it can be trusted, and
// CLOCK_BOOTTIME with the kernel's boot id orders what happened within one start.
package clock

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"time"

	"golang.org/x/sys/unix"

	"gatehouse/edge"
)

// Source is the machine's clocks.
type Source interface {
	Wall() time.Time // as the system has it
	Mono() int64     // milliseconds since boot, suspend included
	Synced() bool    // NTP disciplines the wall clock
}

// Options say where the clock's knowledge comes from.
type Options struct {
	Location *time.Location // the site's time zone
	Build    time.Time      // the program's build time, part of the floor
	Keep     string         // file that keeps the newest time seen; "" = none
	// TrustSystem takes the system's time as synced whatever the kernel says:
	// for machines with a clock battery that somebody has set.
	TrustSystem bool
	Source      Source // nil = the machine's own
	Note        string // file of Watch, for a process that may not ask the kernel; "" = none
	Log         *slog.Logger
}

// agree is how far two clocks may differ that are both right.
const agree = time.Minute

const (
	driftPPM  = 100             // a Pi's crystal, with temperature
	leap      = 2 * time.Second // a difference of wall to monotonic time above it is reported
	keepEvery = 5 * time.Minute
)

// Where the time is from, as stamps say it.
const (
	byNTP     = "ntp"
	byBattery = "battery"
	byServer  = "server"
	bySystem  = "system" // nobody vouches for it
	byBuild   = "build"
	byKept    = "kept"
	byFloor   = "floor" // of a signed server time that is newer than the present source says
)

// mark is a time that was known at a moment of the monotonic clock; it goes on
// from there.
type mark struct {
	wall, mono int64 // ms
	by         string
}

func (m mark) at(mono int64) int64 { return m.wall + mono - m.mono }

// Clock is the real clock. It is safe for concurrent use.
type Clock struct {
	o    Options
	boot string

	mu sync.Mutex
	// floor is a time that it certainly is or was: nothing sets the clock below.
	floor mark
	// shown is the latest time that a start before this one has shown. Time does not
	// run backwards across a start, unless a source that is trusted says so: then it
	// is a leap, and journalled.
	shown    mark
	set      mark // by the last trusted source
	setBy    edge.ClockState
	lastWall int64
	lastMono int64
	leaps    chan Leap
}

// Leap is a jump of the wall time against monotonic time.
type Leap struct {
	By   time.Duration // forward positive
	From edge.Stamp    // the first reading after it
}

// New reads the boot id and the kept time.
func New(o Options) (*Clock, error) {
	if o.Location == nil {
		o.Location = time.UTC
	}
	if o.Source == nil {
		o.Source = machine{o.Note}
	}
	id, err := os.ReadFile("/proc/sys/kernel/random/boot_id")
	if err != nil {
		return nil, fmt.Errorf("cannot read the boot id: %w", err)
	}
	mono := o.Source.Mono()
	c := &Clock{o: o, boot: strings.ReplaceAll(string(id), "-", "")[:8], setBy: edge.ClockUnset, leaps: make(chan Leap, 8)}
	c.floor, c.shown = mark{0, mono, byBuild}, mark{0, mono, byKept}
	if !o.Build.IsZero() {
		c.floor.wall = o.Build.UnixMilli()
	}
	if o.Keep != "" {
		b, err := os.ReadFile(o.Keep)
		if err != nil && !errors.Is(err, fs.ErrNotExist) {
			return nil, fmt.Errorf("cannot read the kept time: %w", err)
		}
		// A torn file is no reason not to open the gate: the floor is then lower.
		for i, f := range strings.Fields(string(b)) {
			v, err := strconv.ParseInt(f, 10, 64)
			switch {
			case err != nil:
			case i == 0 && v > c.floor.wall:
				c.floor = mark{v, mono, byKept}
			case i == 1:
				c.shown.wall = v
			}
		}
	}
	return c, nil
}

// Seen tells of the last entry of the journal: a power cut may have come after the
// time was kept for the last time.
func (c *Clock) Seen(s edge.Stamp) {
	mono := c.o.Source.Mono()
	c.mu.Lock()
	defer c.mu.Unlock()
	if s.Clock.Trusted() && s.Time > c.floor.at(mono) {
		c.floor = mark{s.Time, mono, byKept}
	}
	if s.Time > c.shown.at(mono) {
		c.shown = mark{s.Time, mono, byKept}
	}
}

// machine is the clocks of the machine that this program runs on. Where it may not
// ask the kernel whether NTP disciplines them, a watcher's note says so.
type machine struct{ note string }

func (machine) Wall() time.Time { return time.Now() }

func (machine) Mono() int64 {
	var ts unix.Timespec
	if err := unix.ClockGettime(unix.CLOCK_BOOTTIME, &ts); err != nil {
		return time.Now().UnixMilli()
	}
	return ts.Nano() / 1e6
}

// Synced asks the kernel, or reads the note.
func (m machine) Synced() bool {
	synced, err := kernelSynced()
	if err != nil {
		synced, err = readNote(m.note, m.Mono())
	}
	return err == nil && synced
}

// Unseen says why it cannot be seen whether NTP disciplines the clock; nil = it can.
func (m machine) Unseen() error {
	_, err := kernelSynced()
	if err == nil {
		return nil
	}
	if _, nerr := readNote(m.note, m.Mono()); nerr != nil {
		return fmt.Errorf("adjtimex: %w; the watcher's note: %w", err, nerr)
	}
	return nil
}

// Now reads the clocks.
func (c *Clock) Now() edge.Stamp {
	mono, wall := c.o.Source.Mono(), c.o.Source.Wall().UnixMilli()
	c.mu.Lock()
	defer c.mu.Unlock()
	s := edge.Stamp{Boot: c.boot, Mono: mono, Time: wall, Clock: edge.ClockUnset, Source: bySystem}
	switch {
	case c.o.TrustSystem:
		s.Clock, s.Source = edge.ClockSynced, byBattery
	case c.o.Source.Synced():
		s.Clock, s.Source = edge.ClockSynced, byNTP
	case c.setBy != edge.ClockUnset:
		// By the monotonic clock: whoever sets the system's time meanwhile is nobody we
		// trust.
		s.Clock, s.Source, s.Time = edge.ClockHoldover, c.set.by, c.set.at(mono)
		if c.setBy == edge.ClockServer {
			s.Clock = edge.ClockServer
		}
		s.Error = (mono - c.set.mono) * driftPPM / 1_000_000
	}
	low := c.floor.at(mono)
	if s.Clock.Trusted() {
		// The server's time came over a network, and its clock is not this one: two
		// that are right differ by so much.
		low -= agree.Milliseconds()
	}
	if s.Time < low {
		low = c.floor.at(mono)
		s.Time, s.Clock, s.Error, s.Source = low, edge.ClockUnset, 0, c.floor.by
	}
	switch low := c.shown.at(mono); {
	case s.Clock.Trusted() && s.Clock == edge.ClockSynced:
		c.set, c.setBy = mark{s.Time, mono, s.Source}, edge.ClockSynced
	case !s.Clock.Trusted() && s.Time < low:
		s.Time, s.Source = low, c.shown.by
	}
	if c.lastWall != 0 {
		if by := time.Duration((s.Time-c.lastWall)-(mono-c.lastMono)) * time.Millisecond; by > leap || by < -leap {
			select {
			case c.leaps <- Leap{By: by, From: s}:
			default: // nobody listens; the next stamp tells as well
			}
		}
	}
	c.lastWall, c.lastMono = s.Time, mono
	_, off := time.UnixMilli(s.Time).In(c.o.Location).Zone()
	s.Offset = off / 60
	return s
}

// Unseen says why it cannot be seen whether NTP disciplines the clock; nil = it can.
func (c *Clock) Unseen() error {
	if s, ok := c.o.Source.(interface{ Unseen() error }); ok && !c.o.TrustSystem {
		return s.Unseen()
	}
	return nil
}

// Leaps yields jumps of the wall time, to be journalled.
func (c *Clock) Leaps() <-chan Leap { return c.leaps }

// SetServer takes the community server's signed time, as it was at this moment.
// An NTP-disciplined clock is not moved by it, but the floor is.
func (c *Clock) SetServer(t time.Time) {
	mono := c.o.Source.Mono()
	c.mu.Lock()
	defer c.mu.Unlock()
	ms := t.UnixMilli()
	if ms > c.floor.at(mono) {
		c.floor = mark{ms, mono, byFloor}
	}
	if c.o.TrustSystem || c.o.Source.Synced() {
		return
	}
	c.set, c.setBy = mark{ms, mono, byServer}, edge.ClockServer
}

// Floor is a time that it certainly is or was: the newest of the program's build,
// the kept time and signed server time, gone on since; and whether the present
// time is better known than that. TLS checks certificates by it.
func (c *Clock) Floor() (floor time.Time, trusted bool) {
	s := c.Now()
	c.mu.Lock()
	defer c.mu.Unlock()
	low := c.floor.at(s.Mono)
	if s.Clock.Trusted() {
		return time.UnixMilli(max(s.Time, low)), true
	}
	return time.UnixMilli(low), false
}

// Run keeps the time on disk until ctx is done.
func (c *Clock) Run(ctx context.Context) error {
	t := time.NewTicker(keepEvery)
	defer t.Stop()
	for {
		c.keep()
		select {
		case <-ctx.Done():
			c.keep()
			return ctx.Err()
		case <-t.C:
		}
	}
}

// keep writes two numbers: the floor, which no untrusted time can raise beyond the
// truth, and the time shown.
func (c *Clock) keep() {
	if c.o.Keep == "" {
		return
	}
	floor, _ := c.Floor()
	shown := c.Now().Time
	if err := writeWhole(c.o.Keep, fmt.Sprintf("%d\n%d\n", floor.UnixMilli(), shown)); err != nil && c.o.Log != nil {
		c.o.Log.Warn("cannot keep the time", "file", filepath.Base(c.o.Keep), "err", err)
	}
}

// writeWhole replaces a file: after a power cut there is the old text or the new.
func writeWhole(path, text string) error {
	f, err := os.OpenFile(path+".new", os.O_WRONLY|os.O_CREATE|os.O_TRUNC, 0o600)
	if err != nil {
		return err
	}
	_, werr := f.WriteString(text)
	if err := errors.Join(werr, f.Sync(), f.Close()); err != nil {
		return err
	}
	return os.Rename(path+".new", path)
}

// Fake is a clock that stands still until told, for simulations and tests.
type Fake struct {
	mu sync.Mutex
	s  edge.Stamp
}

// NewFake starts at t in a zone offset minutes east of UTC, synced.
func NewFake(t time.Time, offset int) *Fake {
	return &Fake{s: edge.Stamp{Time: t.UnixMilli(), Offset: offset, Boot: "fa4ec10c", Mono: 1000, Clock: edge.ClockSynced}}
}

// Now reads the fake clock.
func (f *Fake) Now() edge.Stamp {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.s
}

// Advance moves wall and monotonic time.
func (f *Fake) Advance(d time.Duration) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.s.Time += d.Milliseconds()
	f.s.Mono += d.Milliseconds()
}

// Set replaces the stamp.
func (f *Fake) Set(s edge.Stamp) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.s = s
}
