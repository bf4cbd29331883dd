package app

import (
	"context"
	"encoding/json"
	"io"
	"iter"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"gatehouse/cmd/internal/config"
	"gatehouse/edge"
	"gatehouse/edge/registry"
)

// turnedClock is a machine whose clocks the test turns.
type turnedClock struct {
	mu     sync.Mutex
	wall   time.Time
	mono   int64
	synced bool
}

func (b *turnedClock) Wall() time.Time { b.mu.Lock(); defer b.mu.Unlock(); return b.wall }
func (b *turnedClock) Mono() int64     { b.mu.Lock(); defer b.mu.Unlock(); return b.mono }
func (b *turnedClock) Synced() bool    { b.mu.Lock(); defer b.mu.Unlock(); return b.synced }

func (b *turnedClock) turn(by time.Duration) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.wall = b.wall.Add(by)
}

// A clock with a battery is believed where gate.yaml says so: by a gate, and on its safe
// side. Nobody else sets the machine's time here.
func TestClockWithABattery(t *testing.T) {
	for _, has := range []bool{false, true} {
		b := &turnedClock{wall: time.Now(), mono: 5000}
		a := &App{cfg: &config.Gate{State: t.TempDir(), Location: time.UTC, Clock: config.Clock{Battery: has}}, o: Options{Time: b, Build: time.Now().AddDate(0, -1, 0)}, log: slog.New(slog.DiscardHandler)}
		if err := a.openClock(); err != nil {
			t.Fatal(err)
		}
		if s := a.Clock.Now(); s.Clock.Trusted() != has || (s.Source == "battery") != has {
			t.Errorf("battery %v: %s by %s", has, s.Clock, s.Source)
		}
		b.turn(-30 * 365 * 24 * time.Hour)
		if s := a.Clock.Now(); s.Clock.Trusted() {
			t.Errorf("battery %v, and empty: %s by %s", has, s.Clock, s.Source)
		}
	}
}

const curfew = `policy: curfew
version: 1
title: Nobody enters at night
authority: {by: Committee, basis: Rule 1}
no_match: refer
clock_untrusted: UNTRUSTED
slots:
  night: "22:00-05:00"
rules:
  - {id: curfew, title: Night, scope: {slot: night}, then: deny}
  - {id: holder, title: Everybody with a valid pass, when: pass.status == 'active', then: admit}
`

// present runs a gate with these clocks until a pass has been presented, and
// returns its entries.
func present(t *testing.T, dir, zone, untrusted string, b *turnedClock, o Options, meanwhile func(a *App)) []*edge.Entry {
	t.Helper()
	yaml := "community: c\nsite: s\ngate: g\nstate: state\npolicy: policy.yaml\ntimezone: " + zone + "\nconsole: {listen: ''}\n" +
		"passages: [{name: main, barrier: none}]\nlanes: [{name: in, passage: main, direction: in, scanner: console, thermometer: none}]\n"
	for name, text := range map[string]string{"policy.yaml": strings.Replace(curfew, "UNTRUSTED", untrusted, 1), "gate.yaml": yaml} {
		if err := os.WriteFile(filepath.Join(dir, name), []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	cfg, err := config.Load(filepath.Join(dir, "gate.yaml"))
	if err != nil {
		t.Fatal(err)
	}
	o.Version, o.Time, o.Log = "test", b, slog.New(slog.NewTextHandler(io.Discard, nil))
	a, err := Build(t.Context(), cfg, o)
	if err != nil {
		t.Fatal(err)
	}
	first := a.Journal.Size()
	if _, err := a.Registry.Import(t.Context(), iter.Seq2[edge.RosterRow, error](func(yield func(edge.RosterRow, error) bool) {
		yield(edge.RosterRow{Pass: edge.Pass{ID: 1, Category: "worker", Status: edge.PassActive}}, nil)
	}), registry.ImportOptions{}); err != nil {
		t.Fatal(err)
	}
	ctx, stop := context.WithCancel(t.Context())
	done := make(chan error, 1)
	go func() { done <- a.Run(ctx) }()
	has := func(f func(e *edge.Entry) bool) bool {
		found := false
		eachEntry(t, a.Journal, func(e *edge.Entry) { found = found || f(e) })
		return found
	}
	until(t, "the gate has started", func() bool {
		return has(func(e *edge.Entry) bool { return e.Kind == edge.KindStart })
	})
	if meanwhile != nil {
		meanwhile(a)
	}
	until(t, "the pass is presented", func() bool {
		return a.Lanes.Do(ctx, edge.Action{Kind: edge.ActPresent, Lane: "in", Pass: 1, Actor: "guard:1", Identity: "known"}) == nil
	})
	until(t, "a decision", func() bool {
		found := false
		n := uint64(0)
		eachEntry(t, a.Journal, func(e *edge.Entry) { n++; found = found || n > first && e.Outcome != "" })
		return found
	})
	var out []*edge.Entry
	n := uint64(0)
	eachEntry(t, a.Journal, func(e *edge.Entry) {
		if n++; n > first {
			out = append(out, e)
		}
	})
	stop()
	if err := <-done; err != nil {
		t.Error(err)
	}
	return out
}

func outcome(es []*edge.Entry) *edge.Entry {
	for _, e := range es {
		if e.Outcome != "" {
			return e
		}
	}
	return nil
}

// A gate decides whatever its clock says; what needs the time follows the policy;
// every entry says how far its time can be trusted, and from where it is.
func TestDaemonWithEveryKindOfClock(t *testing.T) {
	night := time.Date(2026, 5, 14, 15, 0, 0, 0, time.UTC) // 23:00 in Shanghai
	built := time.Date(2026, 5, 1, 15, 0, 0, 0, time.UTC)
	for _, c := range []struct {
		name, zone, untrusted string
		wall                  time.Time
		synced                bool
		server                time.Time
		want                  edge.Outcome
		clock                 edge.ClockState
		by                    string
		offset                int
	}{
		{"synced, at night", "Asia/Shanghai", "skip", night, true, time.Time{}, edge.Deny, edge.ClockSynced, "ntp", 480},
		{"synced, by day", "Asia/Shanghai", "skip", night.Add(12 * time.Hour), true, time.Time{}, edge.Admit, edge.ClockSynced, "ntp", 480},
		{"1970, rules of the night do not bind", "Asia/Shanghai", "skip", time.Unix(9, 0), false, time.Time{}, edge.Admit, edge.ClockUnset, "build", 480},
		{"1970, rules of the night bind by the floor", "Asia/Shanghai", "apply", time.Unix(9, 0), false, time.Time{}, edge.Deny, edge.ClockUnset, "build", 480},
		{"1970, the server says that it is night", "Asia/Shanghai", "skip", time.Unix(9, 0), false, night, edge.Deny, edge.ClockServer, "server", 480},
		{"a year ahead, nobody vouches for it", "Asia/Shanghai", "skip", night.AddDate(1, 0, 0), false, time.Time{}, edge.Admit, edge.ClockUnset, "system", 480},
		{"a year ahead, the server knows better", "Asia/Shanghai", "skip", night.AddDate(1, 0, 0), false, night.Add(12 * time.Hour), edge.Admit, edge.ClockServer, "server", 480},
		{"a zone with a half hour: 22:10 there", "Asia/Kolkata", "skip", time.Date(2026, 5, 14, 16, 40, 0, 0, time.UTC), true, time.Time{}, edge.Deny, edge.ClockSynced, "ntp", 330},
		{"a zone with a half hour: 21:50 there", "Asia/Kolkata", "skip", time.Date(2026, 5, 14, 16, 20, 0, 0, time.UTC), true, time.Time{}, edge.Admit, edge.ClockSynced, "ntp", 330},
		{"after summer time: 21:50 in Berlin", "Europe/Berlin", "skip", time.Date(2026, 10, 25, 20, 50, 0, 0, time.UTC), true, time.Time{}, edge.Admit, edge.ClockSynced, "ntp", 60},
		{"in summer time: 22:50 in Berlin", "Europe/Berlin", "skip", time.Date(2026, 10, 24, 20, 50, 0, 0, time.UTC), true, time.Time{}, edge.Deny, edge.ClockSynced, "ntp", 120},
	} {
		t.Run(c.name, func(t *testing.T) {
			b := &turnedClock{wall: c.wall, mono: 3000, synced: c.synced}
			es := present(t, t.TempDir(), c.zone, c.untrusted, b, Options{Build: built}, func(a *App) {
				if !c.server.IsZero() {
					a.Clock.SetServer(c.server)
				}
			})
			e := outcome(es)
			if e.Outcome != c.want || e.Stamp.Clock != c.clock || e.Stamp.Source != c.by || e.Stamp.Offset != c.offset {
				t.Errorf("%s (%s) at %v, %s by %s; want %s, %s by %s", e.Outcome, e.Rule, e.Stamp.Local(), e.Stamp.Clock, e.Stamp.Source, c.want, c.clock, c.by)
			}
			for _, e := range es {
				if e.Stamp.Clock == "" || e.Stamp.Source == "" {
					t.Errorf("%s entry without its clock's state or source: %+v", e.Kind, e.Stamp)
				}
			}
		})
	}
}

// Leaps are journalled, and no start begins before the last entry.
func TestDaemonAcrossLeapsAndStarts(t *testing.T) {
	dir := t.TempDir()
	noon := time.Date(2026, 5, 14, 4, 0, 0, 0, time.UTC)
	b := &turnedClock{wall: noon, mono: 3000, synced: true}
	want := map[int64]bool{365 * 24 * 3600_000: false, -3600_000: false}
	es := present(t, dir, "Asia/Shanghai", "skip", b, Options{}, func(a *App) {
		for _, by := range []time.Duration{365 * 24 * time.Hour, -time.Hour} {
			a.Clock.Now()
			b.turn(by)
			until(t, "the leap is journalled", func() bool {
				a.Clock.Now()
				found := false
				eachEntry(t, a.Journal, func(e *edge.Entry) {
					var d struct {
						By int64 `json:"leap_ms"`
					}
					if e.Kind == edge.KindClock && json.Unmarshal(e.Data, &d) == nil && d.By == by.Milliseconds() {
						found, want[d.By] = true, true
					}
				})
				return found
			})
		}
	})
	for by, seen := range want {
		if !seen {
			t.Errorf("no entry of the leap by %d ms", by)
		}
	}
	last := es[len(es)-1].Stamp.Time
	// The power went: nothing was kept after the last entry. The board wakes in 1970.
	if err := os.Remove(filepath.Join(dir, "state", "time")); err != nil {
		t.Fatal(err)
	}
	again := present(t, dir, "Asia/Shanghai", "skip", &turnedClock{wall: time.Unix(9, 0), mono: 3000}, Options{}, nil)
	for _, e := range again {
		if e.Stamp.Time < last {
			t.Errorf("a %s entry at %d, after one at %d", e.Kind, e.Stamp.Time, last)
		}
	}
}
