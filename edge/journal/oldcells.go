package journal

import (
	"context"
	"fmt"
	"time"

	"gatehouse/edge"
)

// longestWindow is longer than the longest window that a policy may count in, which
// is 60 days, by what the wall clock of a site may differ from the gate's.
const longestWindow = 62 * 24 * time.Hour

const (
	oldCellsRead   = 256 // keys that are looked up at a time
	oldCellsAtOnce = 32  // rows that a transaction drops, whoever waits for the writer
)

// dropOldCells drops the counters of windows that ended long ago: they say when a
// pass was used, and would do so for good. What is no window (bucket 0) is the state
// of a pass, and stays.
//
// A cell that comes back, since a peer's old changes arrive late, has its first
// version again. No expectation can take it for the one it read: a presentation does
// not live for weeks.
func (j *Journal) dropOldCells(ctx context.Context, sure time.Time) error {
	// A row that the table is behind with is not to be judged by its age there.
	if err := j.storeCells(ctx); err != nil {
		return fmt.Errorf("cannot store the counters: %w", err)
	}
	// A clock that lags counts in windows of its own time.
	now := min(sure.UnixMilli(), j.o.Clock.Now().Time)
	cut := now - max(j.o.Retention, longestWindow).Milliseconds()
	var after edge.Cell
	for {
		old, err := j.oldCells(ctx, after, cut)
		if err != nil {
			return fmt.Errorf("cannot read old counters: %w", err)
		}
		if len(old) == 0 {
			return nil
		}
		after = old[len(old)-1]
		for len(old) > 0 {
			if err := ctx.Err(); err != nil {
				return err
			}
			n, err := j.dropSomeCells(ctx, old, cut)
			if err != nil {
				return fmt.Errorf("cannot drop old counters: %w", err)
			}
			old = old[n:]
		}
	}
}

// isOld is of a row that nobody needs. While the last entry that changed it is here
// the row stays, since Verify holds it against the entries; one that is not here
// cannot be replayed either, so that the cell does not come back with a part of its
// changes.
const isOld = `bucket<>0 AND max(at, peers_at)<?1 AND (seq<0 OR
	NOT EXISTS(SELECT 1 FROM entry WHERE entry.seq=cell.seq-coalesce((SELECT v FROM meta WHERE k='base'), 0)))`

// oldCells reads the next old rows beside the writer.
func (j *Journal) oldCells(ctx context.Context, after edge.Cell, cut int64) ([]edge.Cell, error) {
	rows, err := j.db.R.QueryContext(ctx, "SELECT subject, name, bucket FROM cell WHERE (subject, name, bucket)>(?2, ?3, ?4) AND "+isOld+
		" ORDER BY subject, name, bucket LIMIT ?5", cut, after.Subject, after.Name, after.Bucket, oldCellsRead)
	if err != nil {
		return nil, err
	}
	defer rows.Close()
	var out []edge.Cell
	for rows.Next() {
		var c edge.Cell
		if err := rows.Scan(&c.Subject, &c.Name, &c.Bucket); err != nil {
			return nil, err
		}
		out = append(out, c)
	}
	return out, rows.Err()
}

// dropSomeCells drops the first n of some rows, as far as they are still old.
func (j *Journal) dropSomeCells(ctx context.Context, old []edge.Cell, cut int64) (n int, err error) {
	j.write.Lock()
	defer j.write.Unlock()
	if err := j.tx(ctx, func(ctx context.Context) error {
		for n = 0; n < len(old) && (n < oldCellsAtOnce || !j.waiting()); n++ {
			c := old[n]
			if _, ok := j.cells[c]; ok {
				continue // its row is a part of it
			}
			if _, err := j.conn.ExecContext(ctx, "DELETE FROM cell WHERE subject=?2 AND name=?3 AND bucket=?4 AND "+isOld, cut, c.Subject, c.Name, c.Bucket); err != nil {
				return err
			}
		}
		return nil
	}); err != nil {
		return 0, err
	}
	j.stale.Store(true)
	return n, nil
}
