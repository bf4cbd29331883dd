package journal

import (
	"context"
	"database/sql"
	"encoding/json"
	"errors"
	"fmt"
	"time"

	"gatehouse/edge"
)

const (
	carryAtOnce = 64 // entries in a transaction: a lane waits for one of them at most
	carryLeast  = 8  // and so many, whoever waits
	carryRest   = 8  // transactions between checkpoints: some 5,000 pages of the WAL
)

// carriedSealed is the data of an entry that carries a sealed run of a former
// epoch: the age file, as it was.
type carriedSealed struct {
	Seq    uint64 `json:"seq"` // of the first
	Count  uint64 `json:"count"`
	Sealed []byte `json:"sealed"`
}

// Carry brings over what the former epoch has after its fork: each entry verbatim
// within one of the present epoch, or sealed as it is. It is done in small
// transactions beside the lanes, each of which moves the mark behind what it has
// carried: after a power cut it goes on there, and nothing comes twice.
func (j *Journal) Carry(ctx context.Context) error {
	for step := 1; ; step++ {
		if err := ctx.Err(); err != nil {
			return err
		}
		began := time.Now()
		j.purging.Lock()
		more, err := j.carrySome(ctx)
		j.purging.Unlock()
		if err != nil || !more {
			return err
		}
		if step%carryRest == 0 { // or a lane's commit has to
			if err := j.db.Checkpoint(ctx); err != nil {
				return fmt.Errorf("cannot checkpoint: %w", err)
			}
		}
		// The medium is the lanes' for as long again.
		if took := time.Since(began); took > 0 {
			select {
			case <-time.After(took):
			case <-ctx.Done():
			}
		}
	}
}

// carryAll is Carry for who holds purging.
func (j *Journal) carryAll(ctx context.Context) error {
	for more := true; more; {
		var err error
		if err = ctx.Err(); err == nil {
			more, err = j.carrySome(ctx)
		}
		if err != nil {
			return err
		}
	}
	return nil
}

// carryOn carries after each beginning of an epoch, and what an earlier run has left,
// until ctx is done.
func (j *Journal) carryOn(ctx context.Context) {
	again := time.NewTimer(0)
	defer again.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-j.forked:
		case <-again.C:
		}
		if err := j.Carry(ctx); err != nil && ctx.Err() == nil {
			j.log.Error("cannot carry over the former epoch's entries yet", "err", err)
			again.Reset(carryRetry)
		}
	}
}

const carryRetry = 5 * time.Second

// load is one entry that carries others: those of the former epoch from seq on.
type load struct {
	seq, width uint64
	data       []byte // nil = it cannot be read
}

// carrySome carries the next entries of a former epoch, and says whether there may
// be more. The caller holds purging.
func (j *Journal) carrySome(ctx context.Context) (more bool, err error) {
	formers, err := formersOf(ctx, j.db.R)
	if err != nil || len(formers) == 0 {
		return false, err
	}
	f := formers[len(formers)-1]
	if !f.carrying {
		return false, nil
	}
	loads, err := j.loads(ctx, f)
	if err != nil {
		return false, fmt.Errorf("cannot carry over entries of epoch %s: %w", f.Epoch, err)
	}
	lines := make([][]byte, len(loads))
	for i, l := range loads {
		if l.data == nil {
			j.log.Error("an entry is lost to the new epoch: it cannot be read", "epoch", f.Epoch, "seq", l.seq, "hint", "gatehouse journal verify says where the journal is damaged")
			continue
		}
		e := &edge.Entry{Kind: edge.KindCarried, Of: -1, Actor: "system", Stamp: j.o.Clock.Now(), Data: l.data}
		line, err := e.AppendJSON(nil)
		if err != nil {
			j.log.Error("an entry is lost to the new epoch", "epoch", f.Epoch, "seq", l.seq, "err", err)
			continue
		}
		lines[i] = pack(line)
	}
	j.write.Lock()
	defer j.write.Unlock()
	block, blockAt, hasBlock := j.block, j.blockAt, j.hasBlock
	size := j.Size()
	next := size
	err = j.tx(ctx, func(ctx context.Context) error {
		upto := f.Size
		for i, l := range loads {
			if i >= carryLeast && j.waiting() {
				upto = l.seq
				break
			}
			if upto = l.seq + l.width; i == len(loads)-1 && len(loads) < carryAtOnce {
				upto = f.Size
			}
			if lines[i] == nil {
				continue
			}
			if err := j.insert(ctx, next, lines[i]); err != nil {
				return err
			}
			if err := j.noteCarried(ctx, f.Epoch, next, l); err != nil {
				return err
			}
			next++
		}
		// What is carried is here once; the blinds stay with the block keys.
		for _, q := range []string{
			"DELETE FROM entry" + suffixOf(f.Epoch) + " WHERE seq>=?1 AND seq<?2",
			"DELETE FROM sealed" + suffixOf(f.Epoch) + " WHERE first+count>?1 AND first<?2",
		} {
			if _, err := j.conn.ExecContext(ctx, q, int64(f.next), int64(upto)); err != nil {
				return err
			}
		}
		// Who was to be erased is to be erased here too.
		if _, err := j.conn.ExecContext(ctx, "UPDATE erasure SET upto=max(upto, ?)", int64(next)); err != nil {
			return err
		}
		if more = upto < f.Size; more {
			_, err := j.conn.ExecContext(ctx, "UPDATE former SET next=? WHERE epoch=?", int64(upto), f.Epoch.String())
			return err
		}
		if _, err := j.conn.ExecContext(ctx, "DROP TABLE sealed"+suffixOf(f.Epoch)); err != nil {
			return err
		}
		_, err := j.conn.ExecContext(ctx, "UPDATE former SET next=NULL WHERE epoch=?", f.Epoch.String())
		return err
	})
	if err != nil {
		j.block, j.blockAt, j.hasBlock = block, blockAt, hasBlock
		return false, fmt.Errorf("cannot carry over entries of epoch %s: %w", f.Epoch, err)
	}
	j.stale.Store(true)
	j.grow(next)
	if !more {
		j.log.Info("the former epoch's entries are carried over", "epoch", f.Epoch)
	}
	return more, nil
}

// loads reads what is to be carried next.
func (j *Journal) loads(ctx context.Context, f former) ([]load, error) {
	rows, err := j.db.R.QueryContext(ctx, "SELECT seq, 1, 0, line FROM entry"+suffixOf(f.Epoch)+" WHERE seq>=?1 AND seq<?2"+
		" UNION ALL SELECT first, count, 1, data FROM sealed"+suffixOf(f.Epoch)+" WHERE first+count>?1 ORDER BY 1 LIMIT ?3", int64(f.next), int64(f.Size), carryAtOnce)
	if err != nil {
		return nil, err
	}
	defer rows.Close()
	var out []load
	for rows.Next() {
		var l load
		var sealed bool
		var kept []byte
		if err := rows.Scan(&l.seq, &l.width, &sealed, &kept); err != nil {
			return nil, err
		}
		if sealed {
			l.data, err = json.Marshal(carriedSealed{Seq: l.seq, Count: l.width, Sealed: kept})
		} else {
			l.data = carriedLine(l.seq, kept)
		}
		if err != nil {
			return nil, err
		}
		out = append(out, l)
	}
	return out, rows.Err()
}

// carriedLine is the data of an entry that carries another; nil when that cannot be
// read.
func carriedLine(seq uint64, kept []byte) []byte {
	line, err := unpack(kept)
	if err != nil || !json.Valid(line) {
		return nil
	}
	// By hand: an encoder would write the line's bytes in its own way.
	return fmt.Appendf(nil, `{"seq":%d,"entry":%s}`, seq, line)
}

// noteCarried notes which entries the present epoch's entry at carries: when its
// content is destroyed in its turn, nothing else says so.
func (j *Journal) noteCarried(ctx context.Context, epoch edge.Epoch, at uint64, l load) error {
	var first, count, seq, width uint64
	err := j.conn.QueryRowContext(ctx, "SELECT first, count, seq, width FROM carried WHERE epoch=? ORDER BY first DESC LIMIT 1", epoch.String()).Scan(&first, &count, &seq, &width)
	if err != nil && !errors.Is(err, sql.ErrNoRows) {
		return err
	}
	if err == nil && width == 1 && l.width == 1 && first+count == at && seq+count == l.seq {
		_, err = j.conn.ExecContext(ctx, "UPDATE carried SET count=count+1 WHERE epoch=? AND first=?", epoch.String(), int64(first))
		return err
	}
	_, err = j.conn.ExecContext(ctx, "INSERT INTO carried(epoch, first, count, seq, width) VALUES(?, ?, 1, ?, ?)", epoch.String(), int64(at), int64(l.seq), int64(l.width))
	return err
}
