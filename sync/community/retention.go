package community

import (
	"context"
	"database/sql"
	"encoding/json"
	"errors"
	"fmt"
	"time"

	"gatehouse/edge"
	"gatehouse/sync/wire"
)

// ErrTime says that nothing was destroyed, because the machine's time may be wrong.
var ErrTime = errors.New("the time is not believed")

// What the time may be ahead of what was expected. A machine that has run since the
// last time knows how long that was; one that was off does not.
const (
	aheadRunning = time.Hour
	aheadOff     = 48 * time.Hour
	agreeing     = time.Hour // between a gate's synchronized clock and this one
	vouchFresh   = time.Hour // older statuses vouch for nothing
)

// enforced is when retention was last enforced.
type enforced struct {
	at, mono int64
	boot     string
}

// ahead says how far a moment is beyond where it should be at most, and how much
// of that is allowed.
func (e enforced) ahead(now edge.Stamp) (by, allowed time.Duration) {
	by = time.Duration(now.Time-e.at) * time.Millisecond
	if e.boot != "" && e.boot == now.Boot && now.Mono >= e.mono {
		return by - time.Duration(now.Mono-e.mono)*time.Millisecond, aheadRunning
	}
	return by, aheadOff
}

// Enforce destroys what is past its retention, and what has come since of persons
// who were erased. What it destroys nobody brings back, so it first asks whether
// the time can be true: a clock that has leapt ahead destroys nothing before most
// of the gates with a synchronized clock agree with it, or an operator does
// (confirmed), or it is set back.
func (s *Server) Enforce(ctx context.Context, r Retention, confirmed bool) (Destroyed, error) {
	now := s.clock.Now()
	if err := s.believe(ctx, now, confirmed); err != nil {
		return Destroyed{}, err
	}
	if err := s.Republish(ctx); err != nil { // so that no local change is purged before a snapshot has it
		return Destroyed{}, err
	}
	at := time.UnixMilli(now.Time)
	if err := s.eraseLate(ctx, at); err != nil {
		return Destroyed{}, err
	}
	return s.purge(ctx, at, r)
}

// believe notes that it is this time now, or that it cannot be believed.
func (s *Server) believe(ctx context.Context, now edge.Stamp, confirmed bool) error {
	var last enforced
	var held int64
	err := s.store.r.QueryRowContext(ctx, `SELECT at, mono, boot, held FROM retention WHERE id = 1`).Scan(&last.at, &last.mono, &last.boot, &held)
	if errors.Is(err, sql.ErrNoRows) {
		// The last batch came at a time that was right, as far as anybody knows.
		err = s.store.r.QueryRowContext(ctx, `SELECT COALESCE(MAX(last_at), $1) FROM log`, now.Time).Scan(&last.at)
	}
	if err != nil {
		return fmt.Errorf("cannot read when retention was enforced: %w", err)
	}
	by, allowed := last.ahead(now)
	ok := by <= allowed || confirmed
	if !ok {
		if ok, err = s.vouched(ctx, now.Time); err != nil {
			return err
		}
	}
	why := ""
	if ok {
		last, held = enforced{now.Time, now.Mono, now.Boot}, 0
	} else {
		if held == 0 {
			held = now.Time
		}
		why = fmt.Sprintf("the clock says %s, %v more than can have passed since %s: nothing is destroyed until gates with a synchronized clock agree, the clock is set right, or somebody who has looked at it says `communityd purge --time-is-right`",
			utc(now.Time), by.Round(time.Hour), utc(last.at))
	}
	_, err = s.store.w.ExecContext(ctx, `INSERT INTO retention (id, at, mono, boot, held, why) VALUES (1, $1, $2, $3, $4, $5)
		ON CONFLICT (id) DO UPDATE SET at = excluded.at, mono = excluded.mono, boot = excluded.boot, held = excluded.held, why = excluded.why`,
		last.at, last.mono, last.boot, held, why)
	if err != nil {
		return fmt.Errorf("cannot note when retention is enforced: %w", err)
	}
	if !ok {
		return fmt.Errorf("%w: %s", ErrTime, why)
	}
	return nil
}

func utc(ms int64) string { return time.UnixMilli(ms).UTC().Format("2006-01-02 15:04Z") }

// vouched says whether most of the gates whose clocks are synchronized have said
// just now that it is this time. Those that have the time from here say nothing, and
// neither do those with no approved device: a status is not signed, and anybody may
// say to be a gate that waits for approval.
func (s *Server) vouched(ctx context.Context, now int64) (bool, error) {
	yes, no := 0, 0
	rows, err := s.store.r.QueryContext(ctx, `SELECT status, status_at FROM gate WHERE status_at >= $1
		AND EXISTS (SELECT 1 FROM gate_key k WHERE k.gate = gate.id AND k.state = 'approved')`, now-vouchFresh.Milliseconds())
	err = each(rows, err, func() error {
		var text string
		var at int64
		if err := rows.Scan(&text, &at); err != nil {
			return err
		}
		var st wire.StatusMessage
		if json.Unmarshal([]byte(text), &st) != nil || !st.Online || st.Clock != edge.ClockSynced {
			return nil
		}
		if off := st.Time - at; off <= agreeing.Milliseconds() && off >= -agreeing.Milliseconds() {
			yes++
		} else {
			no++
		}
		return nil
	})
	if err != nil {
		return false, fmt.Errorf("cannot read what time it is at the gates: %w", err)
	}
	return yes > no, nil
}

// timeAlert is the alert of a time that is not believed; nil when it is.
func (s *store) timeAlert(ctx context.Context) (*Alert, error) {
	a := Alert{Kind: "time", Times: 1}
	err := s.r.QueryRowContext(ctx, `SELECT held, why FROM retention WHERE held > 0`).Scan(&a.First, &a.Text)
	if errors.Is(err, sql.ErrNoRows) {
		return nil, nil
	}
	a.Last = a.First
	return &a, err
}

// purgeEvery is how often retention is enforced, the first time soon after the
// start: a server that is often started anew must not put it off for ever.
const (
	purgeEvery = 6 * time.Hour
	purgeFirst = time.Minute
	purgeHeld  = 10 * time.Minute // while the time is not believed: gates may say that it is right
)

func (s *Server) purgeLoop(ctx context.Context) error {
	t := time.NewTimer(purgeFirst)
	defer t.Stop()
	for {
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-t.C:
		}
		d, err := s.Enforce(ctx, s.cfg.Retention, false)
		next := purgeEvery
		switch {
		case ctx.Err() != nil:
			return ctx.Err()
		case errors.Is(err, ErrTime):
			next = purgeHeld
			s.log.Error("retention is not enforced", "error", err)
		case err != nil:
			s.log.Error("retention is not enforced, will try again", "error", err)
		case d.Entries > 0:
			s.log.Info("past retention", "destroyed", d.Entries, "partitions", d.Partitions)
		}
		t.Reset(next)
	}
}
