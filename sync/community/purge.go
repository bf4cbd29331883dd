package community

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"
	"time"

	"gatehouse/edge"
)

// Retention says how long entries are kept, from the time they are filed under.
type Retention struct {
	Persons time.Duration // entries about persons; 0 = 28 days
	Rest    time.Duration // what only tells of devices, policies and the log itself; 0 = 400 days
}

const (
	defaultPersons = 28 * day
	defaultRest    = 400 * day
)

// Destroyed says what a purge or an erasure came to.
type Destroyed struct {
	Entries    int64
	Partitions int // of days that went as a whole
}

// purgeChunk is how many entries one transaction destroys.
const purgeChunk = 20_000

// purge destroys what is past its retention: the content of entries, the keys of
// their blocks, so that a guess cannot be confirmed, their rows and deltas. Leaf
// hashes stay: proofs about other entries still verify. Each run of entries that
// went has its record.
func (s *Server) purge(ctx context.Context, now time.Time, r Retention) (Destroyed, error) {
	if r.Persons == 0 {
		r.Persons = defaultPersons
	}
	if r.Rest == 0 {
		r.Rest = defaultRest
	}
	var quoted []string
	for _, k := range edge.Technical() {
		quoted = append(quoted, "'"+string(k)+"'")
	}
	list := strings.Join(quoted, ", ")
	var d Destroyed
	if err := errors.Join(s.store.sweepFresh(ctx, now), s.store.dropAlerts(ctx, now.Add(-r.Rest).UnixMilli())); err != nil {
		return d, err
	}
	var late []string // tables that stay and have held something about persons
	for i, c := range []struct {
		cond   string
		before time.Time
	}{
		{"kind NOT IN (" + list + ")", now.Add(-r.Persons)},
		{"kind IN (" + list + ")", now.Add(-r.Rest)},
	} {
		n, held, err := s.store.destroyWhere(ctx, now.UnixMilli(), "retention", "system", "at < $1 AND "+c.cond, c.before.UnixMilli())
		d.Entries += n
		if err != nil {
			return d, fmt.Errorf("cannot purge: %w", err)
		}
		for _, t := range held {
			// The days' partitions are dropped as a whole a day later at most.
			if i == 0 && strings.HasSuffix(t, restSuffix) {
				late = append(late, t)
			}
		}
	}
	var err error
	if d.Partitions, err = s.store.bulk.retire(ctx, s.store.w, now.Add(-r.Persons).UnixMilli()); err != nil {
		return d, fmt.Errorf("cannot drop old partitions: %w", err)
	}
	if err := s.store.bulk.scrub(ctx, s.store.w, late...); err != nil {
		return d, fmt.Errorf("past retention: %w", err)
	}
	return d, nil
}

// destroyWhere destroys the entries whose rows match, some at a time, so that the
// receiver never waits for long. It names what has held them.
func (s *store) destroyWhere(ctx context.Context, now int64, why, by, cond string, args ...any) (total int64, held []string, err error) {
	for {
		n, gone := 0, 0
		err := s.write(ctx, func(tx *sql.Tx) error {
			seqs := map[int64][]uint64{}
			rows, err := tx.QueryContext(ctx, fmt.Sprintf(`SELECT log, seq FROM entry WHERE %s ORDER BY log, seq LIMIT %d`, cond, purgeChunk), args...)
			err = each(rows, err, func() error {
				var log, seq int64
				err := rows.Scan(&log, &seq)
				seqs[log] = append(seqs[log], uint64(seq))
				n++
				return err
			})
			if err != nil {
				return err
			}
			// In order, as the receiver does it: two that lock the same logs must not
			// wait for each other.
			for _, log := range slices.Sorted(maps.Keys(seqs)) {
				in, err := s.bulk.holders(ctx, tx, log, seqs[log])
				if err != nil {
					return fmt.Errorf("log %d: %w", log, err)
				}
				held = union(held, in)
				k, err := s.destroy(ctx, tx, log, seqs[log], now, why, by)
				if err != nil {
					return fmt.Errorf("log %d: %w", log, err)
				}
				gone += k
			}
			return nil
		})
		if err != nil {
			return total, held, err
		}
		if total += int64(gone); n < purgeChunk {
			return total, held, nil
		}
	}
}

func union(a, b []string) []string {
	return slices.Compact(slices.Sorted(slices.Values(append(a, b...))))
}

// destroy destroys entries of one log, given in order, and says how many there were.
func (s *store) destroy(ctx context.Context, tx *sql.Tx, log int64, seqs []uint64, now int64, why, by string) (int, error) {
	// First, so that the receiver and this never change the same block at once, and
	// nobody destroys the same entries and has a record of it, too.
	if _, err := tx.ExecContext(ctx, `UPDATE log SET purges = purges + 1 WHERE id = $1`, log); err != nil {
		return 0, err
	}
	seqs, err := s.present(ctx, tx, log, seqs)
	if err != nil {
		return 0, err
	}
	n := len(seqs)
	if _, err := tx.ExecContext(ctx, `UPDATE log SET purged = purged + $1 WHERE id = $2`, n, log); err != nil {
		return 0, err
	}
	return n, s.destroyPresent(ctx, tx, log, seqs, now, why, by)
}

// destroyPresent is destroy for entries that are there, of a log that is locked.
func (s *store) destroyPresent(ctx context.Context, tx *sql.Tx, log int64, seqs []uint64, now int64, why, by string) error {
	for rest := seqs; len(rest) > 0; {
		start := rest[0] &^ (edge.BlockSize - 1)
		n := 0
		for n < len(rest) && rest[n] < start+edge.BlockSize {
			n++
		}
		if err := s.destroyIn(ctx, tx, log, start, rest[:n]); err != nil {
			return err
		}
		rest = rest[n:]
	}
	// Rows and records by runs: mostly it is one.
	for len(seqs) > 0 {
		n := 1
		for n < len(seqs) && seqs[n] == seqs[0]+uint64(n) {
			n++
		}
		first, end := int64(seqs[0]), int64(seqs[0])+int64(n)
		for _, q := range []string{`DELETE FROM entry WHERE log = $1 AND seq >= $2 AND seq < $3`, `DELETE FROM delta WHERE log = $1 AND seq >= $2 AND seq < $3`} {
			if _, err := tx.ExecContext(ctx, q, log, first, end); err != nil {
				return err
			}
		}
		if _, err := tx.ExecContext(ctx, `INSERT INTO deletion (log, first, count, at, why, by) VALUES ($1, $2, $3, $4, $5, $6)`, log, first, n, now, why, by); err != nil {
			return err
		}
		seqs = seqs[n:]
	}
	return nil
}

// destroyIn destroys entries of one aligned block: their lines, and the block's
// key. Those that stay have their own blinds from now on.
func (s *store) destroyIn(ctx context.Context, tx *sql.Tx, log int64, start uint64, seqs []uint64) error {
	var all []*piece
	if err := s.pieces(ctx, tx, log, start, start+edge.BlockSize, func(p *piece) error { all = append(all, p); return nil }); err != nil {
		return err
	}
	for _, p := range all {
		lines, err := p.lines()
		if err != nil {
			return err
		}
		p.blind()
		for _, q := range seqs {
			if q >= p.first && q < p.first+uint64(p.count) {
				i := int(q - p.first)
				lines[i] = nil
				clear(p.blinds[i*len(edge.Blind{}) : (i+1)*len(edge.Blind{})])
			}
		}
		data := join(lines)
		if len(data) == 0 {
			_, err = tx.ExecContext(ctx, `DELETE FROM block WHERE log = $1 AND first = $2`, log, int64(p.first))
		} else {
			_, err = tx.ExecContext(ctx, `UPDATE block SET key = $1, blinds = $2, data = $3 WHERE log = $4 AND first = $5`, p.key, p.blinds, data, log, int64(p.first))
		}
		if err != nil {
			return err
		}
	}
	return nil
}

// deletions says which entries of a log from from to to (exclusive) were destroyed, by
// the records.
func deletions(ctx context.Context, q querier, log int64, from, to uint64) (func(seq uint64) bool, error) {
	type run struct{ first, end uint64 }
	var runs []run
	rows, err := q.QueryContext(ctx, `SELECT first, count FROM deletion WHERE log = $1 AND first < $3 AND first + count > $2 ORDER BY first`, log, int64(from), int64(to))
	err = each(rows, err, func() error {
		var first, count int64
		err := rows.Scan(&first, &count)
		runs = append(runs, run{uint64(first), uint64(first + count)})
		return err
	})
	return func(seq uint64) bool {
		i, found := slices.BinarySearchFunc(runs, seq, func(r run, seq uint64) int {
			switch {
			case r.end <= seq:
				return -1
			case r.first > seq:
				return 1
			}
			return 0
		})
		return found && i < len(runs)
	}, err
}

// retire has nothing to drop: rows are all that SQLite has. The space is given
// back to the file system a little at a time.
func (sqliteBulk) retire(ctx context.Context, db *sql.DB, _ int64) (int, error) {
	_, err := db.ExecContext(ctx, `PRAGMA incremental_vacuum(1000)`)
	return 0, err
}

// retire drops the partitions of days that lie before a time as a whole. What is
// still in them outlives the retention of most and goes to the partition for the
// rest.
func (p *postgresBulk) retire(ctx context.Context, db *sql.DB, before int64) (int, error) {
	dropped := 0
	for _, t := range partitioned() {
		var names []string
		rows, err := db.QueryContext(ctx, `SELECT c.relname FROM pg_inherits i JOIN pg_class c ON c.oid = i.inhrelid JOIN pg_class p ON p.oid = i.inhparent
			WHERE p.relname = $1 AND c.relname < $2 AND c.relname <> $3 ORDER BY c.relname`, t, partition(t, dayOf(before)), t+restSuffix)
		err = each(rows, err, func() error {
			var n string
			err := rows.Scan(&n)
			names = append(names, n)
			return err
		})
		if err != nil {
			return dropped, err
		}
		for _, name := range names {
			tx, err := db.BeginTx(ctx, nil)
			if err != nil {
				return dropped, err
			}
			for _, q := range []string{
				lockWait,
				// What comes late for such a day waits for this, or this for it; the parent
				// first, as an insert takes them.
				`LOCK TABLE ONLY ` + t + ` IN ACCESS EXCLUSIVE MODE`,
				`LOCK TABLE ` + name + ` IN ACCESS EXCLUSIVE MODE`,
				`CREATE TEMPORARY TABLE keep ON COMMIT DROP AS SELECT * FROM ` + name,
				`DROP TABLE ` + name,
				`INSERT INTO ` + t + ` SELECT * FROM keep`,
			} {
				if _, err := tx.ExecContext(ctx, q); err != nil {
					return dropped, errors.Join(fmt.Errorf("%s: %w", name, err), tx.Rollback())
				}
			}
			if err := tx.Commit(); err != nil {
				return dropped, err
			}
			dropped++
		}
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	for d := range p.days {
		if d < dayOf(before) {
			delete(p.days, d)
		}
	}
	return dropped, nil
}
