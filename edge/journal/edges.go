package journal

import (
	"context"
	"fmt"
	"math/bits"

	"golang.org/x/mod/sumdb/tlog"
)

// Edges gives the roots of the perfect subtrees that cover the first size entries,
// from left to right: with them and the entries that follow, anyone can compute a
// later head's root without having those before.
func (j *Journal) Edges(ctx context.Context, size uint64) ([][32]byte, error) {
	if _, err := j.HeadAt(ctx, size); err != nil { // seals as far as that
		return nil, err
	}
	var indexes []int64
	for at := uint64(0); at < size; {
		level := bits.Len64(size-at) - 1
		indexes = append(indexes, tlog.StoredHashIndex(level, int64(at>>level)))
		at += 1 << level
	}
	j.life.RLock()
	defer j.life.RUnlock()
	hs, err := hashes{ctx: ctx, db: j.db.R}.ReadHashes(indexes)
	if err != nil {
		return nil, fmt.Errorf("cannot read the tree's edge at %d: %w", size, err)
	}
	out := make([][32]byte, len(hs))
	for i, h := range hs {
		out[i] = h
	}
	return out, nil
}
