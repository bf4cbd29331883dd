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

// Options say where the clock's knowledge comes from.
type Options struct {
	Location *time.Location // the site's time zone
	Build    time.Time      // the program's build time, part of the floor
	Keep     string         // file that keeps the newest time seen; "" = none
	// TrustSystem takes the system's time as synced whatever the kernel says:
	// for machines with a clock battery that somebody has set.
	TrustSystem bool
	Log         *slog.Logger
}

const (
	driftPPM  = 100             // a Pi's crystal, with temperature
	leap      = 2 * time.Second // a difference of wall to monotonic time above it is reported
	keepEvery = 5 * time.Minute
)

// Clock is the real clock. It is safe for concurrent use.
type Clock struct {
	o    Options
	boot string

	mu       sync.Mutex
	floor    int64 // UTC ms
	offset   int64 // added to the system's time: what the server's answer said
	setAt    int64 // mono ms when last synced or set; -1 = never
	setBy    edge.ClockState
	lastWall int64
	lastMono int64
	leaps    chan Leap
}

// Leap is a jump of the wall time against monotonic time.
type Leap struct {
	By   time.Duration // forward positive
	From edge.Stamp
}

// New reads the boot id and the kept time.
func New(o Options) (*Clock, error) {
	if o.Location == nil {
		o.Location = time.UTC
	}
	id, err := os.ReadFile("/proc/sys/kernel/random/boot_id")
	if err != nil {
		return nil, fmt.Errorf("cannot read the boot id: %w", err)
	}
	c := &Clock{o: o, boot: strings.ReplaceAll(string(id), "-", "")[:8], setAt: -1, leaps: make(chan Leap, 8)}
	if !o.Build.IsZero() {
		c.floor = o.Build.UnixMilli()
	}
	if o.Keep != "" {
		b, err := os.ReadFile(o.Keep)
		switch {
		case errors.Is(err, fs.ErrNotExist):
		case err != nil:
			return nil, fmt.Errorf("cannot read the kept time: %w", err)
		default:
			// A torn file is no reason not to open the gate: the floor is then lower.
			if v, err := strconv.ParseInt(strings.TrimSpace(string(b)), 10, 64); err == nil {
				c.floor = max(c.floor, v)
			}
		}
	}
	return c, nil
}

func boottime() int64 {
	var ts unix.Timespec
	if err := unix.ClockGettime(unix.CLOCK_BOOTTIME, &ts); err != nil {
		return time.Now().UnixMilli()
	}
	return ts.Nano() / 1e6
}

// Now reads the clocks.
func (c *Clock) Now() edge.Stamp {
	mono := boottime()
	wall := time.Now().UnixMilli()
	c.mu.Lock()
	defer c.mu.Unlock()
	s := edge.Stamp{Boot: c.boot, Mono: mono, Clock: edge.ClockUnset}
	switch {
	case c.o.TrustSystem || kernelSynced():
		c.setAt, c.setBy, c.offset = mono, edge.ClockSynced, 0
		s.Clock = edge.ClockSynced
	case c.setAt >= 0 && c.setBy == edge.ClockServer:
		s.Clock = edge.ClockServer
		s.Error = (mono - c.setAt) * driftPPM / 1_000_000
	case c.setAt >= 0:
		s.Clock = edge.ClockHoldover
		s.Error = (mono - c.setAt) * driftPPM / 1_000_000
	}
	s.Time = wall + c.offset
	if s.Time < c.floor {
		s.Time, s.Clock, s.Error = c.floor, edge.ClockUnset, 0
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

// kernelSynced reports whether NTP disciplines the kernel's clock (adjtimex(2)).
func kernelSynced() bool {
	var tx unix.Timex
	state, err := unix.Adjtimex(&tx)
	return err == nil && state != unix.TIME_ERROR && tx.Status&unix.STA_UNSYNC == 0
}

// Leaps yields jumps of the wall time, to be journalled.
func (c *Clock) Leaps() <-chan Leap { return c.leaps }

// SetServer takes the community server's signed time, as it was at this moment.
// An NTP-disciplined clock is not moved by it, but the floor is.
func (c *Clock) SetServer(t time.Time) {
	mono := boottime()
	c.mu.Lock()
	defer c.mu.Unlock()
	ms := t.UnixMilli()
	c.floor = max(c.floor, ms)
	if kernelSynced() || c.o.TrustSystem {
		return
	}
	c.offset = ms - time.Now().UnixMilli()
	c.setAt, c.setBy = mono, edge.ClockServer
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

func (c *Clock) keep() {
	if c.o.Keep == "" {
		return
	}
	s := c.Now()
	if !s.Clock.Trusted() {
		// Keeping an untrusted time could raise the floor beyond the truth for good.
		return
	}
	tmp := c.o.Keep + ".new"
	err := os.WriteFile(tmp, []byte(strconv.FormatInt(s.Time, 10)+"\n"), 0o600)
	if err == nil {
		err = os.Rename(tmp, c.o.Keep)
	}
	if err != nil && c.o.Log != nil {
		c.o.Log.Warn("cannot keep the time", "file", filepath.Base(c.o.Keep), "err", err)
	}
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
