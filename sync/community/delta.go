package community

import (
	"bytes"
	"context"
	"crypto/sha256"
	"database/sql"
	"fmt"

	"filippo.io/age"

	"gatehouse/edge"
	"gatehouse/sync/wire"
)

const (
	deltaRows = 1000 // beyond it the chunks that changed are as good
	deltasMax = 16   // of a site that are kept
)

// differ finds what a version of the registry changes, while the rows go by in
// the order of the passes.
type differ struct {
	ctx   context.Context
	tx    *sql.Tx
	site  string
	put   [][]byte
	gone  []edge.PassID
	count int
	sums  []sum // to be written
	after int64 // passes up to here are compared
	known bool  // there is something to compare with
}

type sum struct {
	pass int64
	sum  [sha256.Size]byte
}

// page compares the published rows with a page of those of now, in the order of
// the passes; last says that no more follow.
func (d *differ) page(now []sum, texts [][]byte, last bool) error {
	end := int64(edge.MaxID) + 1
	if !last && len(now) > 0 {
		end = now[len(now)-1].pass
	}
	was := map[int64][]byte{}
	var order []int64
	rows, err := d.tx.QueryContext(d.ctx, `SELECT pass, sum FROM registry_sum WHERE site = $1 AND pass > $2 AND pass <= $3 ORDER BY pass`, d.site, d.after, end)
	err = each(rows, err, func() error {
		var pass int64
		var b []byte
		err := rows.Scan(&pass, &b)
		was[pass], order, d.known = b, append(order, pass), true
		return err
	})
	if err != nil {
		return err
	}
	for i := range now {
		old, ok := was[now[i].pass]
		delete(was, now[i].pass)
		if ok && bytes.Equal(old, now[i].sum[:]) {
			continue
		}
		d.sums = append(d.sums, now[i])
		if d.count++; d.count <= deltaRows {
			d.put = append(d.put, texts[i])
		}
	}
	for _, pass := range order {
		if _, left := was[pass]; left {
			if d.count++; d.count <= deltaRows {
				d.gone = append(d.gone, edge.PassID(pass))
			}
		}
	}
	if len(was) > 0 {
		for pass := range was {
			if _, err := d.tx.ExecContext(d.ctx, `DELETE FROM registry_sum WHERE site = $1 AND pass = $2`, d.site, pass); err != nil {
				return err
			}
		}
	}
	d.after = end
	return nil
}

// finish notes what is published now, and keeps what changed since the version
// before, where that is little.
func (d *differ) finish(id *age.X25519Identity, was, version int64) error {
	for _, s := range d.sums {
		if _, err := d.tx.ExecContext(d.ctx, `INSERT INTO registry_sum (site, pass, sum) VALUES ($1, $2, $3) ON CONFLICT (site, pass) DO UPDATE SET sum = excluded.sum`, d.site, s.pass, s.sum[:]); err != nil {
			return err
		}
	}
	// Without the sums of the version before, what went from it is not known.
	if d.count > deltaRows || !d.known {
		return nil
	}
	head, err := wire.Encode(wire.DeltaHead{V: wire.Version, From: was, To: version, Gone: d.gone})
	if err != nil {
		return err
	}
	text := append(head, '\n')
	for _, row := range d.put {
		text = append(append(text, row...), '\n')
	}
	data, err := seal(pack(text), id.Recipient())
	if err != nil {
		return err
	}
	if len(data) > wire.MaxChunk {
		return nil
	}
	if _, err := d.tx.ExecContext(d.ctx, `INSERT INTO registry_delta (site, from_version, to_version, hash, data) VALUES ($1, $2, $3, $4, $5)`, d.site, was, version, wire.HashOf(data), data); err != nil {
		return err
	}
	_, err = d.tx.ExecContext(d.ctx, `DELETE FROM registry_delta WHERE site = $1 AND to_version <
		(SELECT MIN(to_version) FROM (SELECT to_version FROM registry_delta WHERE site = $1 ORDER BY to_version DESC LIMIT $2) AS newest)`, d.site, deltasMax)
	return err
}

// deltas lists the steps that lead to a version of the site's registry, in order and
// without a gap, from the earliest that is kept or from a version.
func deltas(ctx context.Context, q querier, site string, from, to int64) ([]wire.DeltaRef, error) {
	var out []wire.DeltaRef
	rows, err := q.QueryContext(ctx, `SELECT from_version, to_version, hash FROM registry_delta WHERE site = $1 AND from_version >= $2 AND to_version <= $3 ORDER BY to_version`, site, from, to)
	err = each(rows, err, func() error {
		var r wire.DeltaRef
		if err := rows.Scan(&r.From, &r.To, &r.Hash); err != nil {
			return err
		}
		if len(out) > 0 && out[len(out)-1].To != r.From {
			out = nil
		}
		out = append(out, r)
		return nil
	})
	if err != nil {
		return nil, fmt.Errorf("cannot read what changed in the registry: %w", err)
	}
	if len(out) > 0 && out[len(out)-1].To != to {
		return nil, nil
	}
	return out, nil
}
