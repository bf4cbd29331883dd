package journal

import (
	"bytes"
	"context"
	"database/sql"
	"encoding/json"
	"errors"
	"fmt"
	"slices"

	"gatehouse/edge"
)

// Erased says what an erasure came to.
type Erased struct {
	Gone    int // entries whose content is destroyed, or sealed to the community
	Waiting int // entries that must be receipted first, because no key is known to seal them to; erased by a later purge
}

// Erase destroys everything that the journal holds of one pass: entries about it,
// what they led to, and its counters, positions and marks. Entries that the server
// has not receipted are sealed to the community, which has to erase them itself.
func (j *Journal) Erase(ctx context.Context, pass edge.PassID, by string) (Erased, error) {
	j.purging.Lock()
	defer j.purging.Unlock()
	if err := j.carryAll(ctx); err != nil {
		return Erased{}, err
	}
	j.write.Lock()
	err := requestErasure(ctx, j.conn, pass, by, j.Size())
	j.write.Unlock()
	if err != nil {
		return Erased{}, err
	}
	j.life.RLock()
	defer j.life.RUnlock()
	return j.erase(ctx, pass, by, j.Size())
}

// requestErasure asks the daemon to erase a pass: beside it nobody else may write
// entries. Entries from upto on, which come later, stay.
func requestErasure(ctx context.Context, db execer, pass edge.PassID, by string, upto uint64) error {
	if _, err := db.ExecContext(ctx, "INSERT OR REPLACE INTO erasure(pass, by, upto) VALUES(?, ?, ?)", int64(pass), by, int64(upto)); err != nil {
		return fmt.Errorf("cannot ask for the erasure of pass %d: %w", pass, err)
	}
	return nil
}

type execer interface {
	ExecContext(context.Context, string, ...any) (sql.Result, error)
}

// erase does it. The caller holds purging and life.
func (j *Journal) erase(ctx context.Context, pass edge.PassID, by string, upto uint64) (Erased, error) {
	var out Erased
	lives, err := j.lives(ctx)
	if err != nil {
		return out, err
	}
	before, err := j.erasedBefore(ctx, lives, pass)
	if err != nil {
		return out, err
	}
	about := edge.NewAbout(pass)
	for i, l := range lives {
		if i > 0 {
			about = about.Next()
		}
		for _, seq := range before[l.epoch] {
			about.Was(seq)
		}
		waiting := 0
		n, err := j.destroyWhere(ctx, l, deletion{Why: "erasure", Pass: pass, By: by}, func(seq uint64, e *edge.Entry) (bool, bool) {
			if l.suffix == "" && seq >= upto {
				return false, false
			}
			// Deletion records stay, also where they were carried to: see erasedBefore.
			goes := e != nil && slices.ContainsFunc(about.In(seq, e), func(f edge.Found) bool { return f.Entry.Kind != edge.KindPurge })
			if goes && seq >= l.acked && j.recipient == nil {
				waiting++
			}
			return goes, true
		})
		out.Gone += n
		out.Waiting += waiting
		if err != nil {
			return out, err
		}
	}
	j.write.Lock()
	defer j.write.Unlock()
	cellsStored := func() {}
	if err := j.tx(ctx, func(ctx context.Context) error {
		var err error
		if cellsStored, err = j.storeAllCells(ctx); err != nil {
			return err
		}
		// In the first round alone: what is counted since is of what the pass does now.
		if _, err := j.conn.ExecContext(ctx, "DELETE FROM cell WHERE subject=? AND EXISTS(SELECT 1 FROM erasure WHERE pass=? AND tried=0)", pass.Subject(), int64(pass)); err != nil {
			return err
		}
		// Not done when it reaches further by now: somebody has asked again, or more was
		// carried over from a damaged file.
		_, err = j.conn.ExecContext(ctx, "UPDATE erasure SET tried=CASE WHEN upto>? THEN 0 ELSE ? END, gone=gone+?, waiting=? WHERE pass=?",
			int64(upto), j.o.Clock.Now().Time, out.Gone, out.Waiting, int64(pass))
		return err
	}); err != nil {
		return out, err
	}
	cellsStored()
	j.stale.Store(true) // the cells, where no entry went
	if j.o.Erased != nil {
		if err := j.o.Erased(ctx); err != nil {
			return out, fmt.Errorf("the entries are destroyed, but not in all copies: %w", err)
		}
	}
	return out, nil
}

// erasedBefore finds, for each epoch, what earlier rounds have destroyed of a pass:
// entries that waited for their receipts may refer to it and name the pass nowhere
// else. The deletion records tell, also those that were carried over.
func (j *Journal) erasedBefore(ctx context.Context, lives []life, pass edge.PassID) (map[edge.Epoch][]uint64, error) {
	out := map[edge.Epoch][]uint64{}
	for i, l := range lives {
		for from := uint64(0); ; {
			entries, err := j.readSome(ctx, l.suffix, from)
			if err != nil {
				return nil, err
			}
			if len(entries) == 0 {
				break
			}
			for _, s := range entries {
				from = s.Seq + 1
				if !bytes.Contains(s.Line, []byte(`"erasure"`)) {
					continue
				}
				if epoch, seqs := erasedBy(s.Line, lives[:i+1], pass); len(seqs) > 0 {
					out[epoch] = append(out[epoch], seqs...)
				}
			}
		}
	}
	// What refers to an entry that was carried over names the sequence that it had before.
	for i := len(lives) - 1; i > 0; i-- {
		was := lives[i-1].epoch
		for _, seq := range out[lives[i].epoch] {
			var before uint64
			err := j.db.R.QueryRowContext(ctx, "SELECT seq+?2-first FROM carried WHERE epoch=?1 AND first<=?2 AND first+count>?2 AND width=1", was.String(), int64(seq)).Scan(&before)
			switch {
			case err == nil:
				out[was] = append(out[was], before)
			case !errors.Is(err, sql.ErrNoRows):
				return nil, fmt.Errorf("cannot read what was carried over: %w", err)
			}
		}
	}
	return out, nil
}

// erasedBy reads a deletion record of the last of some epochs: of which one it says
// that entries about the pass went, and which.
func erasedBy(line []byte, lives []life, pass edge.PassID) (edge.Epoch, []uint64) {
	e, err := edge.DecodeEntry(line)
	for err == nil && len(lives) > 1 {
		c, ok := e.Carried()
		if !ok || len(c.Entry) == 0 {
			break
		}
		e, err = edge.DecodeEntry(c.Entry)
		lives = lives[:len(lives)-1]
	}
	if err != nil || e.Kind != edge.KindPurge {
		return 0, nil
	}
	var d deletion
	if json.Unmarshal(e.Data, &d) != nil || d.Why != "erasure" || d.Pass != pass {
		return 0, nil
	}
	epoch := lives[len(lives)-1].epoch
	if d.Epoch != "" {
		if epoch, err = edge.ParseEpoch(d.Epoch); err != nil {
			return 0, nil
		}
	}
	if d.To-d.From == uint64(d.Count) && d.Count <= edge.BlockSize {
		for seq := d.From; seq < d.To; seq++ {
			d.Seqs = append(d.Seqs, seq)
		}
	}
	return epoch, d.Seqs
}

// takeErasures does what other processes have asked for.
func (j *Journal) takeErasures(ctx context.Context) error { return j.erasures(ctx, "tried=0") }

// retryErasures goes on with those that waited for receipts, and forgets those
// that are done. The caller holds purging and life.
func (j *Journal) retryErasures(ctx context.Context) error {
	if err := j.doErasures(ctx, "waiting>0"); err != nil {
		return err
	}
	j.write.Lock()
	defer j.write.Unlock()
	if _, err := j.conn.ExecContext(context.WithoutCancel(ctx), "DELETE FROM erasure WHERE tried>0 AND waiting=0"); err != nil {
		return fmt.Errorf("cannot forget erasures: %w", err)
	}
	return nil
}

func (j *Journal) erasures(ctx context.Context, cond string) error {
	var n int
	if err := j.db.R.QueryRowContext(ctx, "SELECT count(*) FROM erasure WHERE "+cond).Scan(&n); err != nil || n == 0 {
		return err
	}
	j.purging.Lock()
	defer j.purging.Unlock()
	if err := j.carryAll(ctx); err != nil {
		return err
	}
	j.life.RLock()
	defer j.life.RUnlock()
	return j.doErasures(ctx, cond)
}

func (j *Journal) doErasures(ctx context.Context, cond string) error {
	rows, err := j.db.R.QueryContext(ctx, "SELECT pass, by, upto FROM erasure WHERE "+cond)
	if err != nil {
		return fmt.Errorf("cannot read erasures: %w", err)
	}
	defer rows.Close()
	type asked struct {
		pass edge.PassID
		by   string
		upto uint64
	}
	var all []asked
	for rows.Next() {
		var a asked
		if err := rows.Scan(&a.pass, &a.by, &a.upto); err != nil {
			return fmt.Errorf("cannot read erasures: %w", err)
		}
		all = append(all, a)
	}
	if err := rows.Err(); err != nil {
		return fmt.Errorf("cannot read erasures: %w", err)
	}
	rows.Close()
	for _, a := range all {
		if _, err := j.erase(ctx, a.pass, a.by, a.upto); err != nil {
			return err
		}
	}
	return nil
}

// About calls f for each entry of the epoch that concerns a pass, in order.
func (r *Reader) About(ctx context.Context, pass edge.PassID, f func(edge.Stored) error) error {
	a := edge.NewAbout(pass)
	for from := uint64(0); ; {
		got, err := r.Read(ctx, from, 1000, 4<<20)
		if err != nil || len(got) == 0 {
			return err
		}
		for _, s := range got {
			from = s.Seq + 1
			e, err := edge.DecodeEntry(s.Line)
			if err != nil {
				return fmt.Errorf("entry %d is damaged: %w", s.Seq, err)
			}
			if a.Is(s.Seq, e) {
				if err := f(s); err != nil {
					return err
				}
			}
		}
	}
}
