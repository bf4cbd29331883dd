package journal

import (
	"context"
	"encoding/binary"
	"encoding/json"
	"fmt"
	"io"

	"gatehouse/edge"
)

func (j *Journal) randomEpoch() (edge.Epoch, error) {
	var b [8]byte
	if _, err := io.ReadFull(j.o.Rand, b[:]); err != nil {
		return 0, fmt.Errorf("cannot choose an epoch: %w", err)
	}
	return edge.Epoch(binary.BigEndian.Uint64(b[:])), nil
}

// lineage is the data of an epoch's first entry.
type lineage struct {
	Epoch  edge.Epoch `json:"epoch"`
	Parent edge.Epoch `json:"parent"`
	Forked uint64     `json:"forked"` // how many entries of the parent stand
	Size   uint64     `json:"size"`   // how many it had here
	Why    string     `json:"why"`
}

// NewEpoch begins a new life of the journal, because the server has another
// continuation of the present one: the medium was restored from an old image, or
// copied. The first forked entries stand, at the server; those after them are
// carried over verbatim, each within an entry of the new epoch. All of it is one
// transaction: after a power cut it has happened or it has not. Positions are
// unknown afterwards: what happened beyond the fork is not known here.
func (j *Journal) NewEpoch(ctx context.Context, forked uint64, why string) error {
	j.life.Lock()
	defer j.life.Unlock()
	j.sealing.Lock()
	defer j.sealing.Unlock()
	j.write.Lock()
	defer j.write.Unlock()
	if forked > j.Size() {
		return fmt.Errorf("cannot begin an epoch after %d entries: the journal has %d", forked, j.Size())
	}
	epoch, err := j.randomEpoch()
	if err != nil {
		return err
	}
	now := j.o.Clock.Now()
	data, err := json.Marshal(lineage{Epoch: epoch, Parent: j.Epoch(), Forked: forked, Size: j.Size(), Why: why})
	if err != nil {
		return fmt.Errorf("cannot begin an epoch: %w", err)
	}
	block, blockAt, hasBlock := j.block, j.blockAt, j.hasBlock
	next := uint64(0)
	add := func(kind edge.Kind, data []byte, deltas ...edge.Delta) error {
		e := &edge.Entry{Kind: kind, Of: -1, Actor: "system", Stamp: now, Data: data, Deltas: deltas}
		line, err := e.AppendJSON(nil)
		if err != nil {
			return err
		}
		next++
		return j.insert(ctx, next-1, line)
	}
	reset := edge.Delta{Cell: edge.Cell{Name: edge.CellReset, Subject: edge.SubjectReset}, Op: edge.OpSet, Value: now.Time}
	err = j.tx(ctx, func() error {
		j.hasBlock = false
		for _, q := range []string{
			"ALTER TABLE entry RENAME TO parent",
			"CREATE TABLE entry(seq INTEGER PRIMARY KEY, line BLOB, blind BLOB)",
			"DELETE FROM block", "DELETE FROM hash", "DELETE FROM meta WHERE k IN ('receipt', 'start')",
		} {
			if _, err := j.conn.ExecContext(ctx, q); err != nil {
				return err
			}
		}
		if err := add(edge.KindEpoch, data, reset); err != nil {
			return err
		}
		if _, err := j.stmts.set.ExecContext(ctx, reset.Cell.Subject, reset.Cell.Name, reset.Cell.Bucket, reset.Value, now.Time); err != nil {
			return err
		}
		for seq, end := forked, j.Size(); seq < end; seq++ {
			var line []byte
			if err := j.conn.QueryRowContext(ctx, "SELECT line FROM parent WHERE seq=?", int64(seq)).Scan(&line); err != nil {
				return fmt.Errorf("entry %d: %w", seq, err)
			}
			// By hand: an encoder would write the line's bytes in its own way.
			if err := add(edge.KindCarried, fmt.Appendf(nil, `{"seq":%d,"entry":%s}`, seq, line)); err != nil {
				return err
			}
		}
		if _, err := j.conn.ExecContext(ctx, "DROP TABLE parent"); err != nil {
			return err
		}
		for k, v := range map[string]any{"epoch": epoch.String(), "acked": 0} {
			if _, err := j.stmts.meta.ExecContext(ctx, k, v); err != nil {
				return err
			}
		}
		return nil
	})
	if err != nil {
		j.block, j.blockAt, j.hasBlock = block, blockAt, hasBlock
		return fmt.Errorf("cannot begin an epoch: %w", err)
	}
	j.log.Warn("a new epoch", "epoch", epoch, "parent", j.Epoch(), "forked", forked, "carried", next-1, "why", why)
	j.epoch.Store(uint64(epoch))
	j.acked.Store(0)
	j.sealed = 0
	j.grow(next)
	return nil
}
