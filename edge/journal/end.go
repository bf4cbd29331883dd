package journal

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"time"

	"gatehouse/edge"
)

// Ending says who ends a gate's life, and why.
type Ending struct {
	By   string `json:"by,omitempty"`
	Why  string `json:"why,omitempty"`
	Lose bool   `json:"lose,omitempty"` // also when unreceipted entries are lost
}

// End is what Decommission came to.
type End struct {
	Seq       uint64 // the entry that records it, the one whose content stays
	Head      edge.Head
	At        time.Time
	Destroyed uint64 // entries whose content is gone, now or before
	Sealed    uint64 // entries that only the community can open
	Lost      uint64 // entries that the server never receipted and that are gone
}

// endTries is how patiently the WAL is emptied at the end while somebody reads.
const endTries = 50

// Decommission destroys the content of every entry with the keys of its block, and
// every counter, position and mark. The leaves stay with one entry that says so.
// Entries that the server has not receipted are sealed to the community's key;
// without that key it refuses, unless they may be lost.
func (j *Journal) Decommission(ctx context.Context, e Ending) (End, error) {
	j.purging.Lock()
	defer j.purging.Unlock()
	if err := j.carryAll(ctx); err != nil {
		return End{}, err
	}
	if j.recipient == nil && !e.Lose {
		open, err := j.unreceipted(ctx)
		if err != nil {
			return End{}, err
		}
		if open > 0 {
			return End{}, fmt.Errorf("%d entries are not receipted by the community server, whose key is not known here: bring the gate online until they are, or say that they may be lost", open)
		}
	}
	j.life.RLock()
	defer j.life.RUnlock()
	data, err := json.Marshal(e)
	if err != nil {
		return End{}, err
	}
	out := End{At: time.UnixMilli(j.o.Clock.Now().Time)}
	if out.Seq, err = j.Append(ctx, &edge.Entry{Kind: edge.KindDecommission, Of: -1, Actor: "system", Stamp: j.o.Clock.Now(), Data: data}, nil); err != nil {
		return out, err
	}
	if out.Head, err = j.HeadAt(ctx, out.Seq+1); err != nil {
		return out, err
	}
	lives, err := j.lives(ctx)
	if err != nil {
		return out, err
	}
	for _, l := range lives {
		if j.recipient == nil && l.suffix == "" && l.acked <= out.Seq {
			out.Lost, l.acked = out.Seq-l.acked, out.Seq
		}
		_, err := j.destroyWhere(ctx, l, deletion{Why: "decommission"}, func(seq uint64, _ *edge.Entry) (bool, bool) {
			return true, l.suffix != "" || seq < out.Seq
		})
		if err != nil {
			return out, err
		}
	}
	if err := j.forget(ctx); err != nil {
		return out, err
	}
	if err := j.conn.QueryRowContext(ctx, "SELECT coalesce(sum(count), 0) FROM sealed").Scan(&out.Sealed); err != nil {
		return out, err
	}
	// From what is on record: an end that was interrupted has destroyed some before.
	for _, l := range lives {
		var n uint64
		if err := j.conn.QueryRowContext(ctx, "SELECT coalesce(sum(end-first), 0) FROM gone"+l.suffix).Scan(&n); err != nil {
			return out, fmt.Errorf("cannot count what is destroyed: %w", err)
		}
		out.Destroyed += n
	}
	empty, err := j.shrink(ctx, endTries)
	if err != nil {
		return out, err
	}
	if !empty {
		return out, errors.New("what was destroyed is still in the WAL: somebody reads the journal; say it again")
	}
	return out, nil
}

// unreceipted counts the entries that the server lacks and that are here, without those
// in which an end that was interrupted has recorded itself: they come with every one.
func (j *Journal) unreceipted(ctx context.Context) (open uint64, err error) {
	for from := j.Acked(); ; {
		entries, err := j.readSome(ctx, "", from)
		if err != nil || len(entries) == 0 {
			return open, err
		}
		for _, s := range entries {
			from = s.Seq + 1
			var d deletion
			e, err := edge.DecodeEntry(s.Line)
			if err == nil && (e.Kind == edge.KindDecommission || e.Kind == edge.KindPurge && json.Unmarshal(e.Data, &d) == nil && d.Why == "decommission") {
				continue
			}
			open++
		}
	}
}

// forget drops what is beside the log: counters, and what peers said.
func (j *Journal) forget(ctx context.Context) error {
	j.write.Lock()
	defer j.write.Unlock()
	cellsStored := func() {}
	if err := j.tx(ctx, func(ctx context.Context) error {
		var err error
		if cellsStored, err = j.storeAllCells(ctx); err != nil {
			return err
		}
		for _, q := range []string{"DELETE FROM cell", "DELETE FROM peer", "DELETE FROM erasure"} {
			if _, err := j.conn.ExecContext(ctx, q); err != nil {
				return err
			}
		}
		return nil
	}); err != nil {
		return err
	}
	cellsStored()
	return nil
}
