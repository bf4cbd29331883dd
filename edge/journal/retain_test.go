package journal

import (
	"errors"
	"path/filepath"
	"slices"
	"testing"
	"time"

	"gatehouse/edge"
	"gatehouse/edge/clock"
)

// floored is a clock of which the test also tells the floor.
type floored struct {
	*clock.Fake
	floor time.Time
}

func (f *floored) Floor() (time.Time, bool) { return f.floor, f.Now().Clock.Trusted() }

// Whatever the gate's clock does, what is younger than its retention stays, and
// nothing is kept for good.
func TestRetentionWithAClockThatIsWrong(t *testing.T) {
	const day, keep = 24 * time.Hour, 28 * 24 * time.Hour
	type step struct {
		after time.Duration // truly gone by since the step before
		shown time.Duration // added to the true time
		clock edge.ClockState
	}
	synced, unset := edge.ClockSynced, edge.ClockUnset
	for _, c := range []struct {
		name  string
		steps []step // an entry each; then the time is looked at
		floor time.Duration
		stay  []int // steps whose entries stay
	}{
		{"right", []step{{0, 0, synced}, {10 * day, 0, synced}, {20 * day, 0, synced}}, 30 * day, []int{1, 2}},
		{"the battery's clock is years ahead", []step{{0, 0, synced}, {day, 0, synced}, {day, 1500 * day, unset}}, 2 * day, []int{0, 1, 2}},
		{"it was ahead for a day", []step{{0, 0, synced}, {day, 1500 * day, unset}, {day, 0, synced}, {40 * day, 0, synced}}, 42 * day, []int{3}},
		{"trusted and ahead, then put right", []step{{0, 0, synced}, {day, 400 * day, synced}, {day, 0, synced}, {40 * day, 0, synced}}, 42 * day, []int{3}},
		{"it began at the program's build", []step{{0, -200 * day, unset}, {day, 0, synced}}, day, []int{0, 1}},
		{"and those go in their turn", []step{{0, -200 * day, unset}, {day, 0, synced}, {29 * day, 0, synced}}, 30 * day, []int{2}},
		{"without a clock for ten weeks, by the floor", []step{{0, 0, synced}, {day, 0, unset}, {69 * day, 0, unset}}, 70 * day, []int{2}},
		{"without one, and it shows times of long ago", []step{{0, 0, synced}, {day, 0, synced}, {40 * day, -900 * day, unset}}, 42 * day, []int{2}},
		{"without one, and the floor stands still", []step{{0, 0, synced}, {day, 0, unset}, {69 * day, 0, unset}}, day, []int{0, 1, 2}},
	} {
		t.Run(c.name, func(t *testing.T) {
			ctx := t.Context()
			clk := &floored{Fake: clock.NewFake(epochStart, 480), floor: epochStart.Add(c.floor)}
			path, o, _ := keyed(t, clk)
			o.Retention, o.Technical = keep, keep
			j := open(t, path, o)
			now := epochStart
			var seqs []uint64
			for _, s := range c.steps {
				now = now.Add(s.after)
				stamp := clk.Now()
				stamp.Time, stamp.Clock = now.Add(s.shown).UnixMilli(), s.clock
				clk.Set(stamp)
				seq, err := j.Append(ctx, decision(clk.Fake, 1, edge.Admit), nil)
				if err != nil {
					t.Fatal(err)
				}
				seqs = append(seqs, seq)
			}
			if _, err := j.Retain(ctx); err != nil {
				t.Fatal(err)
			}
			for i, seq := range seqs {
				_, err := j.Get(ctx, seq)
				if gone := errors.Is(err, edge.ErrPurged); gone == slices.Contains(c.stay, i) || err != nil && !gone {
					t.Errorf("the entry of step %d: gone %v, %v", i, gone, err)
				}
			}
			if err := j.Close(); err != nil {
				t.Fatal(err)
			}
			clean(t, path)
		})
	}
}

// A clock that nobody vouches for and that has no floor destroys nothing.
func TestRetentionWithoutAnyTime(t *testing.T) {
	clk := clock.NewFake(epochStart, 480)
	o := options(t, clk)
	o.Retention = time.Hour
	j := open(t, filepath.Join(t.TempDir(), "journal.db"), o)
	fill(t, j, clk, 300)
	if err := j.Acknowledge(t.Context(), j.Epoch(), j.Size(), nil); err != nil {
		t.Fatal(err)
	}
	s := clk.Now()
	s.Time, s.Clock = s.Time+int64(1000*time.Hour/time.Millisecond), edge.ClockUnset
	clk.Set(s)
	if n, err := j.Retain(t.Context()); n != 0 || err != nil {
		t.Errorf("%d went, %v", n, err)
	}
}
