package app

import (
	"context"
	"errors"
	"fmt"
	"path/filepath"

	"gatehouse/edge"
	"gatehouse/edge/clock"
	"gatehouse/edge/sqlite"
)

// ClockNote is where gatehouse-clock.service leaves its note.
const ClockNote = "/run/gatehouse-clock/ntp"

// openClock makes the clock, for a gate and for its safe side.
func (a *App) openClock() (err error) {
	a.Clock, err = clock.New(clock.Options{Location: a.cfg.Location, Build: a.o.Build, Keep: filepath.Join(a.cfg.State, "time"), TrustSystem: a.o.TrustClock || a.cfg.Clock.Battery,
		Source: a.o.Time, Note: ClockNote, Log: a.log})
	return err
}

// lookBack is how many entries are tried for the last time shown: damage takes a
// few that lie side by side.
const lookBack = 64

// lastSeen tells the clock the time of the journal's last entry that can be read:
// time does not run backwards across a start. A gate whose last entries are damaged
// opens nevertheless.
func (a *App) lastSeen(ctx context.Context) error {
	size := a.Journal.Size()
	for back := uint64(1); back <= min(size, lookBack); back++ {
		s, err := a.Journal.Get(ctx, size-back)
		switch {
		case errors.Is(err, edge.ErrPurged):
			return nil
		case sqlite.IsDamage(err):
			a.harmed(err)
			return nil
		case err != nil:
			return err
		}
		e, err := edge.DecodeEntry(s.Line)
		if err == nil {
			a.Clock.Seen(e.Stamp)
			return nil
		}
		a.harmed(fmt.Errorf("entry %d cannot be read: %w", s.Seq, err))
	}
	return nil
}
