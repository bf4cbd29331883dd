package journal

import (
	"context"
	"fmt"

	"gatehouse/edge"
)

// PeersApplied gives, for each epoch of each peer, the last entry that ApplyPeer has
// taken: what a peer changed after it is still to come.
func (j *Journal) PeersApplied(ctx context.Context) ([]edge.EntryRef, error) {
	rows, err := j.db.R.QueryContext(ctx, "SELECT gate, epoch, seq FROM peer ORDER BY gate, epoch")
	if err != nil {
		return nil, fmt.Errorf("cannot read what peers changed: %w", err)
	}
	defer rows.Close()
	var out []edge.EntryRef
	for rows.Next() {
		var r edge.EntryRef
		var epoch string
		if err := rows.Scan(&r.Gate, &epoch, &r.Seq); err != nil {
			return nil, fmt.Errorf("cannot read what peers changed: %w", err)
		}
		if r.Epoch, err = edge.ParseEpoch(epoch); err != nil {
			return nil, fmt.Errorf("damaged: peer %s: %w", r.Gate, err)
		}
		out = append(out, r)
	}
	return out, rows.Err()
}
