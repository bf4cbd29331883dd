package journal

import (
	"context"
	"path/filepath"
	"testing"

	"golang.org/x/mod/sumdb/tlog"

	"gatehouse/edge"
	"gatehouse/edge/clock"
)

// The edge at any size, with the leaves that follow, gives the root of the head.
func TestEdges(t *testing.T) {
	ctx := context.Background()
	clk := clock.NewFake(epochStart, 480)
	j := open(t, filepath.Join(t.TempDir(), "journal.db"), options(t, clk))
	fill(t, j, clk, 300)
	size := j.Size()
	head, err := j.HeadAt(ctx, size)
	if err != nil {
		t.Fatal(err)
	}
	keys, err := j.BlockKeys(ctx, 0, size)
	if err != nil {
		t.Fatal(err)
	}
	entries, err := j.Read(ctx, 0, int(size), 1<<30)
	if err != nil {
		t.Fatal(err)
	}
	for _, from := range []uint64{0, 1, 2, 3, 255, 256, 257, 300, size} {
		edges, err := j.Edges(ctx, from)
		if err != nil {
			t.Fatal(err)
		}
		var hs []tlog.Hash
		for _, e := range edges {
			hs = append(hs, e)
		}
		for n := from; n < size; n++ {
			k := keys[n/edge.BlockSize].Key
			d := edge.LeafData(k.Blind(n), entries[n].Line)
			h := tlog.RecordHash(d[:])
			for m := n; m&1 == 1; m >>= 1 {
				h = tlog.NodeHash(hs[len(hs)-1], h)
				hs = hs[:len(hs)-1]
			}
			hs = append(hs, h)
		}
		root := hs[len(hs)-1]
		for i := len(hs) - 2; i >= 0; i-- {
			root = tlog.NodeHash(hs[i], root)
		}
		if root != tlog.Hash(head.Root) {
			t.Errorf("from %d on: another root", from)
		}
	}
	if _, err := j.Edges(ctx, size+1); err == nil {
		t.Error("the edge of entries that there are not")
	}
}
