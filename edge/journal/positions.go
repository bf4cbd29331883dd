package journal

import (
	"context"
	"fmt"
	"slices"
	"strconv"
	"strings"

	"gatehouse/edge"
)

// Inside lists the passes that are believed inside: the newer of what this gate
// and its peers have seen. Those of before all positions became unknown are marked:
// in a fire nobody has gone out by card, and they are who is looked for. Only what
// two persons have cleared is left out.
func (j *Journal) Inside(ctx context.Context) ([]edge.Inside, error) {
	// What the table lacks is read before it: the later of both holds.
	lacks := map[edge.Cell]localCell{}
	j.cellsMu.RLock()
	for c, x := range j.cells {
		if c.Name == edge.CellPosition || c.Name == edge.CellReset {
			lacks[c] = x
		}
	}
	j.cellsMu.RUnlock()
	rows, err := j.db.R.QueryContext(ctx, "SELECT subject, name, bucket, local, at, seq, peers, peers_at FROM cell WHERE name IN (?, ?)", edge.CellPosition, edge.CellReset)
	if err != nil {
		return nil, fmt.Errorf("cannot read the positions: %w", err)
	}
	defer rows.Close()
	var reset, cleared int64
	var out []edge.Inside
	add := func(c edge.Cell, x localCell, peers, peersAt int64) {
		if c.Name == edge.CellReset {
			switch c.Subject {
			case edge.SubjectReset:
				reset = max(reset, x.local, peers)
			case edge.SubjectCleared:
				cleared = max(cleared, x.local, peers)
			}
			return
		}
		in, where := edge.Inside{Since: x.at}, x.local
		if peersAt > x.at {
			in.Since, in.Peer, where = peersAt, true, peers
		}
		id, err := strconv.ParseInt(strings.TrimPrefix(c.Subject, "p"), 10, 64)
		if err != nil || where != edge.PositionInside {
			return
		}
		in.Pass.ID = edge.PassID(id)
		out = append(out, in)
	}
	for rows.Next() {
		var c edge.Cell
		var x localCell
		var peers, peersAt int64
		if err := rows.Scan(&c.Subject, &c.Name, &c.Bucket, &x.local, &x.at, &x.seq, &peers, &peersAt); err != nil {
			return nil, fmt.Errorf("cannot read the positions: %w", err)
		}
		if l, ok := lacks[c]; ok {
			delete(lacks, c)
			if l.seq > x.seq {
				x = l
			}
		}
		add(c, x, peers, peersAt)
	}
	if err := rows.Err(); err != nil {
		return nil, fmt.Errorf("cannot read the positions: %w", err)
	}
	for c, x := range lacks {
		add(c, x, 0, 0)
	}
	out = slices.DeleteFunc(out, func(x edge.Inside) bool { return x.Since <= cleared })
	for i := range out {
		if out[i].Since <= reset {
			out[i].Unknown = reset
		}
	}
	return out, nil
}
