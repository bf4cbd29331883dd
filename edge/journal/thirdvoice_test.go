package journal

import (
	"context"
	"path/filepath"
	"testing"
	"time"

	"github.com/transparency-dev/formats/log"
	"github.com/transparency-dev/merkle/compact"
	"github.com/transparency-dev/merkle/proof"
	"github.com/transparency-dev/merkle/rfc6962"

	"gatehouse/edge"
	"gatehouse/edge/clock"
)

// An implementation that is not ours and not tlog's computes the same roots from
// the same leaves, verifies the proofs, and reads the signed heads.
func TestAnotherImplementationAgrees(t *testing.T) {
	ctx := context.Background()
	clk := clock.NewFake(epochStart, 480)
	o := options(t, clk)
	j := open(t, filepath.Join(t.TempDir(), "journal.db"), o)
	h := rfc6962.DefaultHasher
	rng := (&compact.RangeFactory{Hash: h.HashChildren}).NewEmptyRange(0)
	grow := func() {
		got, err := j.Read(ctx, rng.End(), 1000, 1<<20)
		if err != nil {
			t.Fatal(err)
		}
		keys, err := j.keysByFirst(ctx, 0, j.Size())
		if err != nil {
			t.Fatal(err)
		}
		for _, s := range got {
			blind, err := blindOf(s, keys)
			if err != nil {
				t.Fatal(err)
			}
			leaf := edge.LeafData(blind, s.Line)
			if err := rng.Append(h.HashLeaf(leaf[:]), nil); err != nil {
				t.Fatal(err)
			}
		}
	}
	v, err := edge.HeadVerifier("c/s/g", o.Signer.Public())
	if err != nil {
		t.Fatal(err)
	}
	for i := range 300 {
		clk.Advance(time.Minute)
		if _, err := j.Append(ctx, decision(clk, i+1, edge.Admit), nil); err != nil {
			t.Fatal(err)
		}
		if i%23 != 0 {
			continue
		}
		grow()
		head, err := j.Head(ctx)
		if err != nil {
			t.Fatal(err)
		}
		root, err := rng.GetRootHash(nil)
		if err != nil || string(root) != string(head.Root[:]) {
			t.Fatalf("roots over %d entries differ: %v", head.Size, err)
		}
		cp, _, _, err := log.ParseCheckpoint(head.Note, head.Origin, v)
		if err != nil || cp.Size != head.Size || string(cp.Hash) != string(root) {
			t.Fatalf("the head is not read as a checkpoint: %v", err)
		}
	}
	grow()
	head, err := j.Head(ctx)
	if err != nil {
		t.Fatal(err)
	}
	for _, seq := range []uint64{0, 1, 255, 256, 257, 300} {
		path, blind, line, err := j.Proof(ctx, seq, head.Size)
		if err != nil {
			t.Fatal(err)
		}
		leaf := edge.LeafData(blind, line)
		hashes := make([][]byte, len(path))
		for i := range path {
			hashes[i] = path[i][:]
		}
		if err := proof.VerifyInclusion(h, seq, head.Size, h.HashLeaf(leaf[:]), hashes, head.Root[:]); err != nil {
			t.Errorf("proof of entry %d: %v", seq, err)
		}
	}
}
