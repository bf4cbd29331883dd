package journal

import (
	"context"
	"fmt"
	"strconv"
	"strings"

	"gatehouse/edge"
)

// Inside lists the passes that are believed inside: the newer of what this gate
// and its peers have seen, unless all positions became unknown since.
func (j *Journal) Inside(ctx context.Context) ([]edge.Inside, error) {
	rows, err := j.db.R.QueryContext(ctx, "SELECT subject, name, local, at, peers, peers_at FROM cell WHERE name IN (?, ?)", edge.CellPosition, edge.CellReset)
	if err != nil {
		return nil, fmt.Errorf("cannot read the positions: %w", err)
	}
	defer rows.Close()
	var reset int64
	var out []edge.Inside
	for rows.Next() {
		var subject, name string
		var local, at, peers, peersAt int64
		if err := rows.Scan(&subject, &name, &local, &at, &peers, &peersAt); err != nil {
			return nil, fmt.Errorf("cannot read the positions: %w", err)
		}
		if name == edge.CellReset {
			reset = max(local, peers)
			continue
		}
		x, where := edge.Inside{Since: at}, local
		if peersAt > at {
			x.Since, x.Peer, where = peersAt, true, peers
		}
		id, err := strconv.ParseInt(strings.TrimPrefix(subject, "p"), 10, 64)
		if err != nil || where != edge.PositionInside {
			continue
		}
		x.Pass.ID = edge.PassID(id)
		out = append(out, x)
	}
	if err := rows.Err(); err != nil {
		return nil, fmt.Errorf("cannot read the positions: %w", err)
	}
	known := out[:0]
	for _, x := range out {
		if x.Since > reset {
			known = append(known, x)
		}
	}
	return known, nil
}
