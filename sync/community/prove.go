package community

import (
	"context"
	"fmt"
	"math/bits"

	"golang.org/x/mod/sumdb/tlog"

	"gatehouse/edge"
)

// Prove makes the proof that an entry is in the log, under the last cosigned
// head. It reads the leaf hashes of two blocks, and one hash for each other.
func (s *Server) Prove(ctx context.Context, site, gate string, e edge.Epoch, seq uint64) (*edge.Proof, error) {
	l, err := s.logOf(ctx, site, gate, e)
	if err != nil {
		return nil, err
	}
	p := &edge.Proof{Seq: seq, Head: l.receipt}
	if p.Line, p.Blind, err = s.content(ctx, l, seq); err != nil {
		return nil, err
	}
	n := nodes{size: l.tree.size, blocks: map[uint64][]tlog.Hash{}}
	n.roots, err = s.store.roots(ctx, l.id, n.size)
	for _, at := range []uint64{seq, n.size - 1} {
		first := at &^ (edge.BlockSize - 1)
		if _, ok := n.blocks[first]; err == nil && !ok {
			n.blocks[first], err = s.store.hashes(ctx, s.store.r, l.id, first, min(first+edge.BlockSize, n.size))
		}
	}
	if err != nil {
		return nil, fmt.Errorf("cannot prove entry %d of %s: %w", seq, l.name(), err)
	}
	p.Hashes = n.path(seq, 0, n.size)
	return p, nil
}

// roots reads the hashes of the complete blocks below size.
func (s *store) roots(ctx context.Context, log int64, size uint64) ([]tlog.Hash, error) {
	var out []tlog.Hash
	rows, err := s.r.QueryContext(ctx, `SELECT root FROM leaf WHERE log = $1 AND root IS NOT NULL AND first < $2 ORDER BY first`, log, int64(size&^(edge.BlockSize-1)))
	err = each(rows, err, func() error {
		var b []byte
		if err := rows.Scan(&b); err != nil {
			return err
		}
		if len(b) != tlog.HashSize {
			return fmt.Errorf("stored hash of a block has %d bytes", len(b))
		}
		out = append(out, tlog.Hash(b))
		return nil
	})
	if err == nil && uint64(len(out)) != size/edge.BlockSize {
		err = fmt.Errorf("%d complete blocks are stored of %d entries", len(out), size)
	}
	return out, err
}

// rootAt is the root of a log's tree when it had size entries.
func (s *store) rootAt(ctx context.Context, l *gateLog, size uint64) (tlog.Hash, error) {
	switch size {
	case l.tree.size:
		return l.tree.root(), nil
	case 0:
		return emptyRoot, nil
	}
	n := nodes{size: size, blocks: map[uint64][]tlog.Hash{}}
	var err error
	if n.roots, err = s.roots(ctx, l.id, size); err != nil {
		return tlog.Hash{}, err
	}
	first := size &^ (edge.BlockSize - 1)
	if n.blocks[first], err = s.hashes(ctx, s.r, l.id, first, size); err != nil {
		return tlog.Hash{}, err
	}
	return n.hash(0, size), nil
}

// nodes computes nodes of the tree from the hashes of whole blocks and the leaf
// hashes of a few.
type nodes struct {
	size   uint64
	roots  []tlog.Hash            // of complete blocks
	blocks map[uint64][]tlog.Hash // leaf hashes by a block's first
}

// half is the largest power of two below n.
func half(n uint64) uint64 { return 1 << (bits.Len64(n-1) - 1) }

// hash is MTH(D[lo:hi]) of RFC 6962 section 2.1. Every range that the recursion
// meets begins at a multiple of its size rounded up to a power of two.
func (n *nodes) hash(lo, hi uint64) tlog.Hash {
	switch {
	case hi-lo == edge.BlockSize:
		return n.roots[lo/edge.BlockSize]
	case hi-lo == 1:
		first := lo &^ (edge.BlockSize - 1)
		return n.blocks[first][lo-first]
	}
	k := half(hi - lo)
	return tlog.NodeHash(n.hash(lo, lo+k), n.hash(lo+k, hi))
}

// path is PATH(seq, D[lo:hi]) of RFC 6962 section 2.1.1.
func (n *nodes) path(seq, lo, hi uint64) []tlog.Hash {
	if hi-lo == 1 {
		return nil
	}
	k := half(hi - lo)
	if seq < lo+k {
		return append(n.path(seq, lo, lo+k), n.hash(lo+k, hi))
	}
	return append(n.path(seq, lo+k, hi), n.hash(lo, lo+k))
}
