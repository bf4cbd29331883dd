package community

import (
	"fmt"
	"math/bits"

	"golang.org/x/mod/sumdb/tlog"
)

// tree is the right edge of an RFC 6962 tree: the roots of the perfect subtrees
// that cover its leaves, from left to right. It is all that is needed to append
// leaves and to compute the root, so a new head is checked without reading what
// is stored.
type tree struct {
	size  uint64
	edges []tlog.Hash
}

// append adds one leaf, given its Merkle hash.
func (t *tree) append(leaf tlog.Hash) {
	for n := t.size; n&1 == 1; n >>= 1 {
		last := len(t.edges) - 1
		leaf = tlog.NodeHash(t.edges[last], leaf)
		t.edges = t.edges[:last]
	}
	t.edges = append(t.edges, leaf)
	t.size++
}

// root is the RFC 6962 tree hash of all leaves.
func (t *tree) root() tlog.Hash {
	if len(t.edges) == 0 {
		return emptyRoot
	}
	h := t.edges[len(t.edges)-1]
	for i := len(t.edges) - 2; i >= 0; i-- {
		h = tlog.NodeHash(t.edges[i], h)
	}
	return h
}

// emptyRoot is the hash of the tree without leaves: SHA-256 of nothing (RFC 6962
// section 2.1).
var emptyRoot = tlog.Hash{0xe3, 0xb0, 0xc4, 0x42, 0x98, 0xfc, 0x1c, 0x14, 0x9a, 0xfb, 0xf4, 0xc8, 0x99, 0x6f, 0xb9, 0x24,
	0x27, 0xae, 0x41, 0xe4, 0x64, 0x9b, 0x93, 0x4c, 0xa4, 0x95, 0x99, 0x1b, 0x78, 0x52, 0xb8, 0x55}

func (t *tree) clone() tree {
	return tree{size: t.size, edges: append(make([]tlog.Hash, 0, len(t.edges)+8), t.edges...)}
}

// bytes is the stored form: the edges, one after the other.
func (t *tree) bytes() []byte {
	b := make([]byte, 0, len(t.edges)*tlog.HashSize)
	for i := range t.edges {
		b = append(b, t.edges[i][:]...)
	}
	return b
}

// treeOf reads the stored form of a tree with size leaves.
func treeOf(size uint64, b []byte) (tree, error) {
	n := bits.OnesCount64(size)
	if len(b) != n*tlog.HashSize {
		return tree{}, fmt.Errorf("right edge of a tree of %d leaves has %d bytes, want %d", size, len(b), n*tlog.HashSize)
	}
	t := tree{size: size, edges: make([]tlog.Hash, n)}
	for i := range t.edges {
		copy(t.edges[i][:], b[i*tlog.HashSize:])
	}
	return t, nil
}
