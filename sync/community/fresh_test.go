package community

import (
	"context"
	"math/bits"
	"path/filepath"
	"testing"
	"time"

	"gatehouse/sync/wire"
)

// aheadBatch is a batch that goes ahead of its turn.
func (d *device) aheadBatch(t testing.TB, first, end int) []byte {
	t.Helper()
	b, err := wire.DecodeBatch(d.batch(t, first, end))
	if err != nil {
		t.Fatal(err)
	}
	for at := 0; at < first; {
		n := 1 << (bits.Len(uint(first-at)) - 1)
		var sub tree
		for i := at; i < at+n; i++ {
			sub.append(d.leaves[i])
		}
		h := sub.root()
		b.Edges = append(b.Edges, h[:])
		at += n
	}
	text, err := b.Encode(nil)
	if err != nil {
		t.Fatal(err)
	}
	return text
}

// What happens now is seen before the backlog is there; it counts only when its
// turn comes, and is gone from the waiting then.
func TestAheadOfTheBacklog(t *testing.T) {
	s, b, _ := start(t, filepath.Join(t.TempDir(), "c.db"))
	ctx := context.Background()
	d := newDevice("estate", "east", 7, 1)
	d.addLines(900)
	register(t, s, d, "")
	d.want(t, d.send(t, b, 0, 100), 100)
	ahead := func() int {
		t.Helper()
		list, err := s.Ahead(ctx, "estate", "east", 1000)
		if err != nil {
			t.Fatal(err)
		}
		for _, a := range list {
			if string(a.Line) != string(d.lines[a.Seq]) {
				t.Errorf("entry %d ahead is %s", a.Seq, a.Line)
			}
		}
		return len(list)
	}
	wait := func(want int) {
		t.Helper()
		for end := time.Now().Add(2 * time.Minute); ahead() != want; {
			if time.Now().After(end) {
				t.Fatalf("%d entries ahead, want %d", ahead(), want)
			}
			time.Sleep(5 * time.Millisecond)
		}
	}
	b.deliver(d.topic(wire.Journal), d.aheadBatch(t, 890, 900))
	b.deliver(d.topic(wire.Journal), d.aheadBatch(t, 890, 900)) // once more
	wait(10)
	if c := count(t, s); c.Stored != 100 || c.Size != 100 {
		t.Errorf("what came ahead was counted: %+v", c)
	}
	// One whose entries are not those of the head.
	bad, err := wire.DecodeBatch(d.aheadBatch(t, 880, 890))
	if err != nil {
		t.Fatal(err)
	}
	bad.Edges[0][0] ^= 1
	text, err := bad.Encode(nil)
	if err != nil {
		t.Fatal(err)
	}
	b.deliver(d.topic(wire.Journal), text)
	d.refused(t, d.receipt(t, b), wire.RefusedMalformed, 100)
	d.want(t, d.send(t, b, 100, 895), 895)
	wait(5)
	d.want(t, d.send(t, b, 895, 900), 900)
	wait(0)
	if err := s.store.sweepFresh(ctx, time.Now()); err != nil {
		t.Fatal(err)
	}
	var left int
	if err := s.store.r.QueryRow(`SELECT count(*) FROM fresh`).Scan(&left); err != nil || left != 0 {
		t.Errorf("%d entries are kept twice, %v", left, err)
	}
	whole(t, s, d, 900)
}

func count(t *testing.T, s *Server) Count {
	t.Helper()
	cs, err := s.Counts(context.Background(), "estate", "east")
	if err != nil || len(cs) != 1 {
		t.Fatalf("%+v, %v", cs, err)
	}
	return cs[0]
}
