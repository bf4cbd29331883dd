package app

import (
	"context"
	"errors"

	"gatehouse/edge"
)

// lastSeen tells the clock the time of the journal's last entry: time does not run
// backwards across a start.
func (a *App) lastSeen(ctx context.Context) error {
	size := a.Journal.Size()
	if size == 0 {
		return nil
	}
	s, err := a.Journal.Get(ctx, size-1)
	if errors.Is(err, edge.ErrPurged) {
		return nil
	}
	if err != nil {
		return err
	}
	e, err := edge.DecodeEntry(s.Line)
	if err != nil {
		return err
	}
	a.Clock.Seen(e.Stamp)
	return nil
}
