package clock

import (
	"context"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"

	"pgregory.net/rapid"

	"gatehouse/edge"
)

// board is a machine whose clocks a test turns.
type board struct {
	wall   time.Time
	mono   int64
	synced bool
}

func (b *board) Wall() time.Time { return b.wall }
func (b *board) Mono() int64     { return b.mono }
func (b *board) Synced() bool    { return b.synced }

// pass lets time go by; turn sets the wall clock.
func (b *board) pass(d time.Duration)  { b.wall = b.wall.Add(d); b.mono += d.Milliseconds() }
func (b *board) turn(to time.Time)     { b.wall = to }
func (b *board) reboot(wall time.Time) { b.wall, b.mono, b.synced = wall, 4000, false }

var (
	y1970 = time.Unix(8, 0)
	built = time.Date(2026, 5, 1, 0, 0, 0, 0, time.UTC)
	now   = time.Date(2026, 5, 14, 9, 0, 0, 0, time.UTC)
)

func at(t *testing.T, o Options) *Clock {
	t.Helper()
	c, err := New(o)
	if err != nil {
		t.Fatal(err)
	}
	return c
}

func want(t *testing.T, what string, s edge.Stamp, wall time.Time, st edge.ClockState, by string) {
	t.Helper()
	if got := time.UnixMilli(s.Time).UTC(); !got.Equal(wall) || s.Clock != st || s.Source != by {
		t.Errorf("%s: %v %s by %s, want %v %s by %s", what, got, s.Clock, s.Source, wall.UTC(), st, by)
	}
}

// A Pi wakes up in 1970: its time begins at the floor and goes on from there,
// untrusted, until NTP or the server says better.
func TestFrom1970ToTrusted(t *testing.T) {
	b := &board{wall: y1970, mono: 5000}
	c := at(t, Options{Build: built, Source: b})
	want(t, "in 1970", c.Now(), built, edge.ClockUnset, "build")
	b.pass(time.Hour)
	want(t, "an hour later", c.Now(), built.Add(time.Hour), edge.ClockUnset, "build")
	if f, trusted := c.Floor(); trusted || !f.Equal(built.Add(time.Hour)) {
		t.Errorf("floor %v, trusted %v", f, trusted)
	}
	c.SetServer(now)
	want(t, "the server has said", c.Now(), now, edge.ClockServer, "server")
	b.pass(10 * time.Hour)
	s := c.Now()
	want(t, "ten hours on", s, now.Add(10*time.Hour), edge.ClockServer, "server")
	if s.Error != 3600 {
		t.Errorf("error %d ms after ten hours at 100 ppm", s.Error)
	}
	b.turn(now.Add(365 * 24 * time.Hour)) // somebody with a screwdriver
	want(t, "the system's clock was set", c.Now(), now.Add(10*time.Hour), edge.ClockServer, "server")
	b.turn(now.Add(10*time.Hour + time.Second))
	b.synced = true
	want(t, "NTP has come", c.Now(), now.Add(10*time.Hour+time.Second), edge.ClockSynced, "ntp")
	b.synced = false
	b.pass(time.Hour)
	want(t, "NTP has gone", c.Now(), now.Add(11*time.Hour+time.Second), edge.ClockHoldover, "ntp")
	c.SetServer(now) // played back, or wrong: the floor holds
	if s := c.Now(); s.Time < now.Add(11*time.Hour).UnixMilli()-1000 && s.Clock.Trusted() {
		t.Errorf("%+v", s)
	}
}

// Time does not run backwards across a start, whatever the system's clock says,
// and a wrong time of the system does not become the floor.
func TestAcrossAStart(t *testing.T) {
	keep := filepath.Join(t.TempDir(), "time")
	b := &board{wall: now, mono: 5000, synced: true}
	c := at(t, Options{Build: built, Keep: keep, Source: b})
	c.Now()
	c.keep()
	for _, wall := range []time.Time{y1970, now.Add(-time.Hour), built} {
		b.reboot(wall)
		want(t, "after a start at "+wall.String(), at(t, Options{Build: built, Keep: keep, Source: b}).Now(), now, edge.ClockUnset, "kept")
	}
	// The system's clock is a year ahead, and nobody vouches for it.
	ahead := now.Add(365 * 24 * time.Hour)
	b.reboot(ahead)
	c = at(t, Options{Build: built, Keep: keep, Source: b})
	want(t, "a year ahead", c.Now(), ahead, edge.ClockUnset, "system")
	if f, _ := c.Floor(); !f.Equal(now) {
		t.Errorf("an untrusted time became the floor: %v", f)
	}
	c.keep()
	b.reboot(now.Add(time.Minute))
	c = at(t, Options{Build: built, Keep: keep, Source: b})
	want(t, "not back across a start", c.Now(), ahead, edge.ClockUnset, "kept")
	b.synced = true
	want(t, "NTP may", c.Now(), now.Add(time.Minute), edge.ClockSynced, "ntp")
	l := <-c.Leaps()
	if d := l.By + 365*24*time.Hour; d < 0 || d > 2*time.Minute {
		t.Errorf("leap by %v", l.By)
	}
	// A power cut after the time was kept: the journal's last entry counts.
	b.reboot(y1970)
	c = at(t, Options{Keep: keep, Source: b})
	late := ahead.Add(time.Hour)
	c.Seen(edge.Stamp{Time: late.UnixMilli(), Clock: edge.ClockUnset})
	want(t, "after the last entry", c.Now(), late, edge.ClockUnset, "kept")
	c.Seen(edge.Stamp{Time: late.Add(time.Hour).UnixMilli(), Clock: edge.ClockSynced})
	if f, _ := c.Floor(); !f.Equal(late.Add(time.Hour)) {
		t.Errorf("a trusted entry's time is no floor: %v", f)
	}
}

func TestTornKeepFileOnlyLowersTheFloor(t *testing.T) {
	for text, low := range map[string]time.Time{"": built, "17x": built, strconv.FormatInt(now.UnixMilli(), 10): now, strconv.FormatInt(now.UnixMilli(), 10) + "\n17": now} {
		keep := filepath.Join(t.TempDir(), "time")
		if err := os.WriteFile(keep, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		c := at(t, Options{Build: built, Keep: keep, Source: &board{wall: y1970}})
		if f, _ := c.Floor(); !f.Equal(low) {
			t.Errorf("%q: floor %v", text, f)
		}
	}
}

// Forward a year and back an hour are leaps; a change to summer time is none, and
// only moves the offset.
func TestLeaps(t *testing.T) {
	b := &board{wall: now, mono: 5000}
	c := at(t, Options{Source: b})
	c.Now()
	for _, by := range []time.Duration{365 * 24 * time.Hour, -time.Hour} {
		b.pass(time.Minute)
		b.turn(b.wall.Add(by))
		c.Now()
		select {
		case l := <-c.Leaps():
			if l.By != by || l.From.Clock != edge.ClockUnset {
				t.Errorf("leap %v, want %v", l, by)
			}
		default:
			t.Errorf("no leap by %v", by)
		}
	}
	berlin, err := time.LoadLocation("Europe/Berlin")
	if err != nil {
		t.Fatal(err)
	}
	for _, change := range []struct {
		at            time.Time
		before, after int
	}{{time.Date(2026, 3, 29, 1, 0, 0, 0, time.UTC), 60, 120}, {time.Date(2026, 10, 25, 1, 0, 0, 0, time.UTC), 120, 60}} {
		b := &board{wall: change.at.Add(-time.Second), mono: 5000, synced: true}
		c := at(t, Options{Source: b, Location: berlin})
		first := c.Now()
		b.pass(2 * time.Second)
		second := c.Now()
		if first.Offset != change.before || second.Offset != change.after || second.Time-first.Time != 2000 {
			t.Errorf("%v: %+v, %+v", change.at, first, second)
		}
		if len(c.Leaps()) != 0 {
			t.Error("summer time was taken for a leap")
		}
	}
}

func TestZoneWithHalfHour(t *testing.T) {
	for zone, minutes := range map[string]int{"Asia/Kolkata": 330, "Asia/Kathmandu": 345, "America/St_Johns": -150} {
		loc, err := time.LoadLocation(zone)
		if err != nil {
			t.Fatal(err)
		}
		if s := at(t, Options{Location: loc, Source: &board{wall: now, synced: true}}).Now(); s.Offset != minutes || s.Local().Minute() != (60+minutes%60)%60 {
			t.Errorf("%s: %d minutes, local %v", zone, s.Offset, s.Local())
		}
	}
}

// Whatever happens to the system's clock, NTP and the server: no reading is below
// the floor, the floor never sinks, and no start begins before what was shown
// unless something trusted says so.
func TestNeverBelowTheFloor(t *testing.T) {
	dir := t.TempDir()
	n := 0
	rapid.Check(t, func(rt *rapid.T) {
		n++
		keep := filepath.Join(dir, strconv.Itoa(n))
		b := &board{wall: now, mono: 1000}
		c, err := New(Options{Build: built, Keep: keep, Source: b})
		if err != nil {
			rt.Fatal(err)
		}
		var floor time.Time
		for range rapid.IntRange(1, 40).Draw(rt, "steps") {
			switch rapid.IntRange(0, 5).Draw(rt, "what") {
			case 0:
				b.pass(time.Duration(rapid.Int64Range(0, 1e6).Draw(rt, "ms")) * time.Millisecond)
			case 1:
				b.turn(time.Unix(rapid.Int64Range(0, 2e9).Draw(rt, "wall"), 0))
			case 2:
				b.synced = !b.synced
			case 3:
				c.SetServer(now.Add(time.Duration(rapid.Int64Range(-1e6, 1e6).Draw(rt, "server")) * time.Second))
			case 4:
				last := c.Now()
				c.keep()
				b.reboot(time.Unix(rapid.Int64Range(0, 2e9).Draw(rt, "boot"), 0))
				if c, err = New(Options{Build: built, Keep: keep, Source: b}); err != nil {
					rt.Fatal(err)
				}
				if s := c.Now(); s.Time < last.Time {
					rt.Fatalf("backwards across a start: %d after %d", s.Time, last.Time)
				}
			}
			s := c.Now()
			f, _ := c.Floor()
			if s.Time < f.UnixMilli() && !s.Clock.Trusted() || s.Time < floor.UnixMilli() && !s.Clock.Trusted() {
				rt.Fatalf("%d is below the floor %v", s.Time, f)
			}
			if _, trusted := c.Floor(); !trusted {
				if f.Before(floor) {
					rt.Fatalf("the floor sank from %v to %v", floor, f)
				}
				floor = f
			}
		}
	})
}

func TestTheMachinesOwnClocks(t *testing.T) {
	keep := filepath.Join(t.TempDir(), "time")
	c := at(t, Options{Keep: keep, TrustSystem: true})
	s := c.Now()
	if len(s.Boot) != 8 || s.Mono <= 0 || s.Clock != edge.ClockSynced || s.Source != "battery" || time.Since(time.UnixMilli(s.Time)).Abs() > time.Minute {
		t.Errorf("%+v", s)
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	_ = c.Run(ctx)
	if b, err := os.ReadFile(keep); err != nil || len(strings.Fields(string(b))) != 2 {
		t.Errorf("kept %q, %v", b, err)
	}
}

// The server's answer takes a moment to arrive: a clock that NTP keeps is not
// doubted because of that, but one that is days behind is.
func TestServerAMomentAhead(t *testing.T) {
	for ahead, trusted := range map[time.Duration]bool{3 * time.Second: true, 48 * time.Hour: false} {
		b := &board{wall: now, mono: 1000, synced: true}
		c, err := New(Options{Build: built, Source: b})
		if err != nil {
			t.Fatal(err)
		}
		c.SetServer(now.Add(ahead))
		if s := c.Now(); s.Clock.Trusted() != trusted {
			t.Errorf("the server %v ahead: %s, %s", ahead, s.Clock, s.Source)
		}
		if f, _ := c.Floor(); f.Before(now.Add(ahead)) {
			t.Errorf("the floor is %v", f)
		}
	}
}
