package journal

import (
	"context"
	"database/sql"
	"encoding/json"
	"fmt"
	"slices"
	"strconv"

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
	j.write.Lock()
	err := requestErasure(ctx, j.conn, pass, by, j.Size())
	j.write.Unlock()
	if err != nil {
		return Erased{}, err
	}
	j.purging.Lock()
	defer j.purging.Unlock()
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
	if err := j.seal(ctx, j.Size()); err != nil {
		return out, err
	}
	lives, err := j.lives(ctx)
	if err != nil {
		return out, err
	}
	for _, l := range lives {
		about := newAbout(pass)
		waiting := 0
		n, err := j.destroyWhere(ctx, l, deletion{Why: "erasure", Pass: pass, By: by}, func(seq uint64, e *edge.Entry) (bool, bool) {
			if l.suffix == "" && seq >= upto {
				return false, false
			}
			goes := e != nil && about.is(seq, e) && e.Kind != edge.KindPurge
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
	return out, j.tx(ctx, func() error {
		if _, err := j.conn.ExecContext(ctx, "DELETE FROM cell WHERE subject=?", pass.Subject()); err != nil {
			return err
		}
		_, err := j.conn.ExecContext(ctx, "UPDATE erasure SET tried=?, gone=gone+?, waiting=? WHERE pass=?", j.o.Clock.Now().Time, out.Gone, out.Waiting, int64(pass))
		return err
	})
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

// about knows the entries that concern one pass: those with it among their facts,
// its changes, who looked it up, and what refers to one of these.
type about struct {
	pass    edge.PassID
	subject string
	seqs    map[uint64]bool
	carried map[uint64]bool // by the sequence they had
}

func newAbout(pass edge.PassID) *about {
	return &about{pass: pass, subject: pass.Subject(), seqs: map[uint64]bool{}, carried: map[uint64]bool{}}
}

// is must be asked about every entry, in order.
func (a *about) is(seq uint64, e *edge.Entry) bool {
	if e.Kind == edge.KindCarried {
		var c struct {
			Seq   uint64
			Entry json.RawMessage
		}
		if json.Unmarshal(e.Data, &c) != nil || len(c.Entry) == 0 {
			return false
		}
		inner, err := edge.DecodeEntry(c.Entry)
		yes := err == nil && (a.self(inner) || inner.Of >= 0 && a.carried[uint64(inner.Of)])
		a.carried[c.Seq] = yes
		return yes
	}
	yes := a.self(e) || e.Of >= 0 && a.seqs[uint64(e.Of)]
	if yes {
		a.seqs[seq] = true
	}
	return yes
}

func (a *about) self(e *edge.Entry) bool {
	if f := e.Facts; f != nil && f.Pass != nil && f.Pass.ID == a.pass {
		return true
	}
	if slices.ContainsFunc(e.Deltas, func(d edge.Delta) bool { return d.Cell.Subject == a.subject }) {
		return true
	}
	if len(e.Data) == 0 {
		return false
	}
	var d struct {
		Pass   json.Number   `json:"pass"`
		Passes []json.Number `json:"passes"`
	}
	if json.Unmarshal(e.Data, &d) != nil {
		return false
	}
	id := json.Number(strconv.FormatInt(int64(a.pass), 10))
	return d.Pass == id || slices.Contains(d.Passes, id)
}

// About calls f for each entry of the epoch that concerns a pass, in order.
func (r *Reader) About(ctx context.Context, pass edge.PassID, f func(edge.Stored) error) error {
	a := newAbout(pass)
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
			if a.is(s.Seq, e) {
				if err := f(s); err != nil {
					return err
				}
			}
		}
	}
}
