package community

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"time"

	"gatehouse/edge"
)

// erasure is the standing order to destroy what is of one pass and from before a
// time, whenever it comes.
type erasure struct {
	site string
	pass edge.PassID
	at   int64 // UTC ms
	by   string
}

// ErasePerson destroys everything that is stored of one pass: the entries that
// concern it, what gates changed about it, and its line in the roster, of which a
// new version is published. What a gate that is offline brings of it later is
// destroyed with the next enforcement of retention. Gates erase for themselves.
func (s *Server) ErasePerson(ctx context.Context, site string, pass edge.PassID, by string) (Destroyed, error) {
	e := erasure{site, pass, time.Now().UnixMilli(), by}
	fail := func(d Destroyed, err error) (Destroyed, error) {
		return d, fmt.Errorf("cannot erase pass %d of %s: %w", pass, site, err)
	}
	inRoster := false
	err := s.store.write(ctx, func(tx *sql.Tx) error {
		// An import that is under way may bring the pass.
		if err := s.store.bulk.turn(ctx, tx, turnRegistry(site)); err != nil {
			return err
		}
		for _, q := range []string{`DELETE FROM local_change WHERE site = $1 AND pass = $2`, `DELETE FROM erasure_mark WHERE site = $1 AND pass = $2`} {
			if _, err := tx.ExecContext(ctx, q, site, int64(pass)); err != nil {
				return err
			}
		}
		res, err := tx.ExecContext(ctx, `DELETE FROM roster WHERE site = $1 AND pass = $2`, site, int64(pass))
		if err != nil {
			return err
		}
		n, err := res.RowsAffected()
		if err != nil {
			return err
		}
		inRoster = n > 0
		if err := dropFresh(ctx, tx, site); err != nil {
			return err
		}
		// The steps between versions hold the line, too; gates fetch chunks instead.
		// The sums go as a whole: the next version is published without a delta, which
		// could not say that this pass ended.
		for _, q := range []string{`DELETE FROM registry_delta WHERE site = $1`, `DELETE FROM registry_sum WHERE site = $1`} {
			if _, err := tx.ExecContext(ctx, q, site); err != nil {
				return err
			}
		}
		_, err = tx.ExecContext(ctx, `INSERT INTO erasure (site, pass, at, by) VALUES ($1, $2, $3, $4)
			ON CONFLICT (site, pass) DO UPDATE SET at = excluded.at, by = excluded.by`, site, int64(pass), e.at, by)
		return err
	})
	if err != nil {
		return fail(Destroyed{}, err)
	}
	if inRoster {
		// The chunk that holds the line is replaced, so that no copy is left here.
		if err := s.recut(ctx, site, false); err != nil {
			return fail(Destroyed{}, err)
		}
	}
	n, held, err := s.store.erase(ctx, e, s.unseal)
	if err == nil {
		err = s.store.bulk.scrub(ctx, s.store.w, append(held, "roster", "local_change", "registry_sum", "registry_delta", "chunk", "fresh")...)
	}
	if err != nil {
		return fail(Destroyed{Entries: n}, err)
	}
	return Destroyed{Entries: n}, nil
}

// eraseLate destroys what has come since of persons who were erased, and forgets
// the orders that nothing can come for any more.
func (s *Server) eraseLate(ctx context.Context, now time.Time) error {
	oldest := now.Add(-longest).UnixMilli()
	for _, q := range []string{
		`DELETE FROM erasure_mark WHERE EXISTS (SELECT 1 FROM erasure e WHERE e.site = erasure_mark.site AND e.pass = erasure_mark.pass AND e.at < $1)`,
		`DELETE FROM erasure WHERE at < $1`,
	} {
		if _, err := s.store.w.ExecContext(ctx, q, oldest); err != nil {
			return fmt.Errorf("cannot forget erasures: %w", err)
		}
	}
	var all []erasure
	rows, err := s.store.r.QueryContext(ctx, `SELECT site, pass, at, by FROM erasure`)
	err = each(rows, err, func() error {
		var e erasure
		err := rows.Scan(&e.site, &e.pass, &e.at, &e.by)
		all = append(all, e)
		return err
	})
	if err != nil {
		return fmt.Errorf("cannot read erasures: %w", err)
	}
	var held []string
	for _, e := range all {
		_, in, err := s.store.erase(ctx, e, s.unseal)
		held = union(held, in)
		if err != nil {
			return fmt.Errorf("cannot erase pass %d of %s: %w", e.pass, e.site, err)
		}
	}
	if len(all) == 0 {
		return nil
	}
	return s.store.bulk.scrub(ctx, s.store.w, held...)
}

// logSize names a log and how far it goes.
type logSize struct {
	id   int64
	size uint64
}

func (s *store) logsOf(ctx context.Context, site string) ([]logSize, error) {
	var out []logSize
	rows, err := s.r.QueryContext(ctx, `SELECT l.id, l.size FROM log l JOIN gate g ON g.id = l.gate WHERE g.site = $1 ORDER BY l.id`, site)
	err = each(rows, err, func() error {
		var l logSize
		var size int64
		err := rows.Scan(&l.id, &size)
		l.size = uint64(size)
		out = append(out, l)
		return err
	})
	return out, err
}

// about calls f for the entries of a log, from first to end, that concern a pass;
// for those that were carried over, with what they were. It reads all lines: what
// refers to what is in them only.
func (s *store) about(ctx context.Context, log int64, first, end uint64, a *edge.About, f func(seq uint64, e *edge.Entry, line []byte) error) error {
	return s.pieces(ctx, s.r, log, first&^(edge.BlockSize-1), end, func(p *piece) error {
		lines, err := p.lines()
		if err != nil {
			return err
		}
		for i, line := range lines {
			seq := p.first + uint64(i)
			if len(line) == 0 || seq < first || seq >= end {
				continue
			}
			// A line that is no entry is of nobody that could be found.
			e, err := edge.DecodeEntry(line)
			if err != nil {
				continue
			}
			for _, x := range a.In(seq, e) {
				if x.Line == nil {
					x.Line = line
				}
				if err := f(seq, x.Entry, x.Line); err != nil {
					return err
				}
			}
		}
		return nil
	})
}

// erase carries an order out over what has not been searched yet. It names what
// has held the entries that went.
func (s *store) erase(ctx context.Context, e erasure, open func(edge.Carried) ([]edge.Stored, error)) (total int64, held []string, err error) {
	logs, err := s.logsOf(ctx, e.site)
	if err != nil {
		return 0, nil, err
	}
	for _, l := range logs {
		var next int64
		err := s.r.QueryRowContext(ctx, `SELECT next FROM erasure_mark WHERE site = $1 AND pass = $2 AND log = $3`, e.site, int64(e.pass), l.id).Scan(&next)
		if err != nil && !errors.Is(err, sql.ErrNoRows) {
			return total, held, err
		}
		if uint64(next) >= l.size {
			continue
		}
		a := edge.NewAbout(e.pass)
		a.Open = open
		if next > 0 {
			if err := s.erasedBefore(ctx, l.id, a); err != nil {
				return total, held, err
			}
		}
		var seqs []uint64
		err = s.about(ctx, l.id, uint64(next), l.size, a, func(seq uint64, x *edge.Entry, _ []byte) error {
			// A sealed run goes as a whole: all that is in it was past its retention at
			// the gate.
			if x.Stamp.Time <= e.at && (len(seqs) == 0 || seqs[len(seqs)-1] != seq) {
				seqs = append(seqs, seq)
			}
			return nil
		})
		if err != nil {
			return total, held, err
		}
		for done := false; !done; {
			some := seqs[:min(len(seqs), purgeChunk)]
			seqs = seqs[len(some):]
			done = len(seqs) == 0
			err := s.write(ctx, func(tx *sql.Tx) error {
				if len(some) > 0 {
					in, err := s.bulk.holders(ctx, tx, l.id, some)
					if err != nil {
						return err
					}
					held = union(held, in)
					n, err := s.destroy(ctx, tx, l.id, some, time.Now().UnixMilli(), "erasure", e.by)
					if err != nil {
						return err
					}
					total += int64(n)
				}
				if !done {
					return nil
				}
				_, err := tx.ExecContext(ctx, `INSERT INTO erasure_mark (site, pass, log, next) VALUES ($1, $2, $3, $4)
					ON CONFLICT (site, pass, log) DO UPDATE SET next = excluded.next`, e.site, int64(e.pass), l.id, int64(l.size))
				return err
			})
			if err != nil {
				return total, held, fmt.Errorf("log %d: %w", l.id, err)
			}
		}
	}
	return total, held, nil
}

// erasedBefore tells a of what went by earlier erasures, since later entries may
// refer to it.
func (s *store) erasedBefore(ctx context.Context, log int64, a *edge.About) error {
	rows, err := s.r.QueryContext(ctx, `SELECT first, count FROM deletion WHERE log = $1 AND why = 'erasure'`, log)
	return each(rows, err, func() error {
		var first, count int64
		err := rows.Scan(&first, &count)
		for i := range count {
			a.Was(uint64(first + i))
		}
		return err
	})
}

// present are those of some entries, in order, that nobody has destroyed since.
func (s *store) present(ctx context.Context, tx *sql.Tx, log int64, seqs []uint64) ([]uint64, error) {
	if len(seqs) == 0 {
		return nil, nil
	}
	there := map[uint64]bool{}
	rows, err := tx.QueryContext(ctx, `SELECT seq FROM entry WHERE log = $1 AND seq >= $2 AND seq <= $3`, log, int64(seqs[0]), int64(seqs[len(seqs)-1]))
	err = each(rows, err, func() error {
		var seq int64
		err := rows.Scan(&seq)
		there[uint64(seq)] = true
		return err
	})
	var out []uint64
	for _, q := range seqs {
		if there[q] {
			out = append(out, q)
		}
	}
	return out, err
}
