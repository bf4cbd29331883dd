package community

import (
	"context"
	"database/sql"
	"fmt"
	"time"

	"golang.org/x/mod/sumdb/tlog"

	"gatehouse/edge"
	"gatehouse/sync/wire"
)

// Entries that come ahead of a backlog are for people who look at what happens
// now. They are verified against the gate's signed head like all others, but
// they are no part of the log until they come in their turn, and no receipt is
// given for them.

const (
	freshMost = 2000           // of a gate
	freshKept = 48 * time.Hour // a backlog that is longer is another matter
)

// ahead takes a batch that came before its turn.
func (c *committer) ahead(ctx context.Context, p *prepared, v *verdict, cur *gateLog) error {
	b := p.batch
	end := b.First + b.Count
	if end <= cur.tree.size {
		return nil // its turn has come meanwhile
	}
	t := tree{size: b.First}
	for _, e := range b.Edges {
		t.edges = append(t.edges, tlog.Hash(e))
	}
	for _, l := range p.leaves {
		t.append(l)
	}
	if t.root() != p.head.Root {
		return c.refuse(ctx, p, v, cur, wire.RefusedMalformed, "the head is not of the entries that came ahead")
	}
	gate, epoch, now := p.gate.id, b.Epoch.String(), v.now.UnixMilli()
	return c.store.write(ctx, func(tx *sql.Tx) error {
		for i, line := range b.Lines {
			seq := b.First + uint64(i)
			if seq < cur.tree.size {
				continue
			}
			if _, err := tx.ExecContext(ctx, `INSERT INTO fresh (gate, epoch, seq, line, at) VALUES ($1, $2, $3, $4, $5) ON CONFLICT DO NOTHING`, gate, epoch, int64(seq), line, now); err != nil {
				return err
			}
		}
		_, err := tx.ExecContext(ctx, `DELETE FROM fresh WHERE gate = $1 AND (epoch <> $2 OR seq < $3 OR at < $4)`, gate, epoch,
			max(int64(cur.tree.size), int64(end)-freshMost), now-freshKept.Milliseconds())
		return err
	})
}

// Ahead is an entry whose turn has not come.
type Ahead struct {
	Site, Gate string
	Epoch      edge.Epoch
	Seq        uint64
	Line       []byte
	At         int64 // received, UTC ms
}

// Ahead lists the newest entries that came ahead of a backlog and whose turn has
// not come, the newest first, at most limit. An empty gate or site means all.
func (s *Server) Ahead(ctx context.Context, site, gate string, limit int) ([]Ahead, error) {
	var out []Ahead
	rows, err := s.store.r.QueryContext(ctx, `SELECT g.site, g.name, f.epoch, f.seq, f.line, f.at FROM fresh f JOIN gate g ON g.id = f.gate
		LEFT JOIN log l ON l.gate = f.gate AND l.epoch = f.epoch
		WHERE (g.site = $1 OR $1 = '') AND (g.name = $2 OR $2 = '') AND f.seq >= coalesce(l.size, 0) AND f.at >= $3
		ORDER BY f.at DESC, f.seq DESC LIMIT $4`, site, gate, time.Now().Add(-freshKept).UnixMilli(), limit)
	err = each(rows, err, func() error {
		var a Ahead
		var epoch string
		var seq int64
		if err := rows.Scan(&a.Site, &a.Gate, &epoch, &seq, &a.Line, &a.At); err != nil {
			return err
		}
		a.Seq = uint64(seq)
		var err error
		if a.Epoch, err = edge.ParseEpoch(epoch); err != nil {
			return err
		}
		out = append(out, a)
		return nil
	})
	if err != nil {
		return nil, fmt.Errorf("cannot read what came ahead: %w", err)
	}
	return out, nil
}

// sweepFresh destroys what came ahead and has come in its turn, or is too old.
func (s *store) sweepFresh(ctx context.Context, now time.Time) error {
	_, err := s.w.ExecContext(ctx, `DELETE FROM fresh WHERE at < $1 OR EXISTS (SELECT 1 FROM log l WHERE l.gate = fresh.gate AND l.epoch = fresh.epoch AND l.size > fresh.seq)`,
		now.Add(-freshKept).UnixMilli())
	if err != nil {
		return fmt.Errorf("cannot sweep what came ahead: %w", err)
	}
	return nil
}

// dropFresh destroys what came ahead at a site: whoever is erased is erased here
// too, and it comes again in its turn.
func dropFresh(ctx context.Context, tx *sql.Tx, site string) error {
	_, err := tx.ExecContext(ctx, `DELETE FROM fresh WHERE gate IN (SELECT id FROM gate WHERE site = $1)`, site)
	return err
}
