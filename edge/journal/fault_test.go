package journal

import (
	"context"
	"encoding/json"
	"fmt"
	"path/filepath"
	"testing"
	"time"

	"filippo.io/age"
	lib "modernc.org/sqlite/lib"

	"gatehouse/edge"
	"gatehouse/edge/clock"
)

// The medium is full, fails or tears at every single write, and fails at every
// flush, once or for good. Whatever was acknowledged is there afterwards, once, in
// order; nothing else is damaged; and the journal goes on.
func TestEveryWriteAndFlushMayFail(t *testing.T) {
	mount(t)
	faults := []fault{
		{name: "full", code: lib.SQLITE_FULL},
		{name: "error", code: lib.SQLITE_IOERR_WRITE},
		{name: "torn", code: lib.SQLITE_IOERR_WRITE, torn: true},
		{name: "flush", code: lib.SQLITE_IOERR_FSYNC, flush: true},
	}
	struck := 0
	for _, f := range faults {
		for _, f.stays = range []bool{false, true} {
			for at := 1; ; at += sparse {
				if !strike(t, &f, at) {
					break
				}
				struck++
			}
		}
	}
	t.Logf("%d faults", struck)
	if struck < 300/sparse {
		t.Errorf("only %d writes and flushes were made to fail", struck)
	}
}

// strike lets one write or flush of a day at the gate fail, and counts what is
// there afterwards. It returns false when the day has no at-th.
func strike(t *testing.T, f *fault, at int) bool {
	t.Helper()
	ctx := context.Background()
	where := fmt.Sprintf("%s, stays %v, at %d", f.name, f.stays, at)
	clk := clock.NewFake(epochStart, 480)
	id, err := age.GenerateX25519Identity()
	if err != nil {
		t.Fatal(err)
	}
	o := options(t, clk)
	o.Recipient = id.Recipient().String()
	path := filepath.Join(t.TempDir(), "journal.db")
	j, err := Open(ctx, path, o)
	if err != nil {
		t.Fatal(err)
	}
	acked, asked := map[int]bool{}, 0
	add := func(n int) {
		for range n {
			clk.Advance(time.Minute)
			asked++
			e := &edge.Entry{Kind: edge.KindRegistry, Of: -1, Stamp: clk.Now(), Data: fmt.Appendf(nil, `{"n":%d}`, asked), Deltas: []edge.Delta{add(exits(asked%3), 1)}}
			if _, err := j.Append(ctx, e, nil); err == nil {
				acked[asked] = true
			}
		}
	}
	add(4)
	disk.arm(f, at)
	add(3)
	_, _ = j.Head(ctx)
	_ = j.Acknowledge(ctx, j.Epoch(), 3, nil)
	add(2)
	_ = j.NewEpoch(ctx, j.Acked(), "a fault")
	_ = j.Carry(ctx)
	add(2)
	_ = j.db.Checkpoint(ctx)
	_, _ = j.Erase(ctx, 99, "nobody")
	_, _ = j.clean(ctx)
	add(2)
	if !f.stays && !acked[asked] && !acked[asked-1] {
		t.Errorf("%s: the journal has not recovered by itself", where)
	}
	_ = j.Close()
	hit := disk.arm(nil, 0)
	if j, err = Open(ctx, path, o); err != nil {
		t.Fatalf("%s: cannot be opened again: %v", where, err)
	}
	before := len(acked)
	add(2)
	if len(acked) != before+2 {
		t.Errorf("%s: the journal does not go on", where)
	}
	if _, err := j.Head(ctx); err != nil {
		t.Errorf("%s: %v", where, err)
	}
	if err := j.Close(); err != nil {
		t.Fatal(err)
	}
	r, err := Inspect(ctx, path)
	if err != nil {
		t.Fatalf("%s: %v", where, err)
	}
	defer r.Close()
	rep, err := r.Verify(ctx, nil)
	if err != nil {
		t.Fatalf("%s: %v", where, err)
	}
	for _, x := range rep.Findings {
		t.Errorf("%s: entry %d: %s", where, x.Seq, x.Text)
	}
	seen := map[int]bool{}
	for n := range numbers(t, r) {
		if seen[n] || n > asked {
			t.Fatalf("%s: entry %d is there again", where, n)
		}
		seen[n] = true
		delete(acked, n)
	}
	if len(acked) > 0 {
		t.Errorf("%s: acknowledged and lost: %v", where, acked)
	}
	return hit
}

// numbers yields what strike's entries are numbered by, in all epochs.
func numbers(t *testing.T, r *Reader) func(func(int) bool) {
	return func(yield func(int) bool) {
		ctx := context.Background()
		formers, err := r.Formers(ctx)
		if err != nil {
			t.Fatal(err)
		}
		var all []*Reader
		for _, e := range formers {
			f, err := r.Former(ctx, e)
			if err != nil {
				t.Fatal(err)
			}
			all = append(all, f)
		}
		for _, x := range append(all, r) {
			got, err := x.Read(ctx, 0, 1000, 1<<20)
			if err != nil {
				t.Fatal(err)
			}
			for _, s := range got {
				e, err := edge.DecodeEntry(s.Line)
				if err != nil {
					t.Fatal(err)
				}
				var d struct {
					N     int
					Entry *struct{ Data struct{ N int } }
				}
				if err := json.Unmarshal(e.Data, &d); err != nil {
					t.Fatal(err)
				}
				if d.Entry != nil {
					d.N = d.Entry.Data.N
				}
				if d.N > 0 && !yield(d.N) {
					return
				}
			}
		}
	}
}
