package journal

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"filippo.io/age"
	"golang.org/x/mod/sumdb/tlog"

	"gatehouse/edge"
	"gatehouse/edge/clock"
)

// keyed is a journal whose overdue entries can be sealed, and the key that opens them.
func keyed(t *testing.T, clk edge.Clock) (string, Options, *age.X25519Identity) {
	t.Helper()
	id, err := age.GenerateX25519Identity()
	if err != nil {
		t.Fatal(err)
	}
	o := options(t, clk)
	o.Recipient = id.Recipient().String()
	return filepath.Join(t.TempDir(), "journal.db"), o, id
}

func fill(t *testing.T, j *Journal, clk *clock.Fake, n int) {
	t.Helper()
	for i := range n {
		clk.Advance(time.Minute)
		e := decision(clk, i+1, edge.Admit)
		if i%50 == 49 {
			e = &edge.Entry{Kind: edge.KindPolicy, Of: -1, Stamp: clk.Now()}
		}
		if _, err := j.Append(context.Background(), e, nil); err != nil {
			t.Fatal(err)
		}
	}
}

func clean(t *testing.T, path string) *Report {
	t.Helper()
	r, rep := verify(t, path)
	for _, f := range rep.Findings {
		t.Errorf("entry %d: %s", f.Seq, f.Text)
	}
	r.Close()
	return rep
}

// What is overdue and not receipted is sealed: nobody here can read it or confirm
// a guess, and the community can, against the leaf.
func TestOverdueEntriesAreSealed(t *testing.T) {
	ctx := context.Background()
	clk := clock.NewFake(epochStart, 480)
	path, o, id := keyed(t, clk)
	j := open(t, path, o)
	fill(t, j, clk, 700)
	lines := map[uint64]string{}
	got, err := j.Read(ctx, 0, 1000, 1<<30)
	if err != nil {
		t.Fatal(err)
	}
	for _, s := range got {
		lines[s.Seq] = string(s.Line)
	}
	head, err := j.Head(ctx)
	if err != nil {
		t.Fatal(err)
	}
	if err := j.Acknowledge(ctx, j.Epoch(), 100, nil); err != nil {
		t.Fatal(err)
	}
	// All but the last 100 are overdue.
	n, err := j.Purge(ctx, epochStart.Add(601*time.Minute))
	if err != nil || n != 601 {
		t.Fatalf("purged %d, %v; want 601", n, err)
	}
	if _, err := j.Sealed(ctx, 99); !errors.Is(err, edge.ErrUnknown) {
		t.Errorf("what the server has was sealed: %v", err)
	}
	opened := 0
	for seq := uint64(100); seq <= 600; {
		s, err := j.Sealed(ctx, seq)
		if err != nil {
			t.Fatal(err)
		}
		if end := s.First + uint64(len(s.Leaves)) - 1; s.First != seq || s.First/edge.BlockSize != end/edge.BlockSize {
			t.Fatalf("run from %d of %d entries holds %d", s.First, len(s.Leaves), seq)
		}
		r, err := age.Decrypt(bytes.NewReader(s.Data), id)
		if err != nil {
			t.Fatal(err)
		}
		plain, err := io.ReadAll(r)
		if err != nil || len(plain) > maxSealed+edge.MaxLine {
			t.Fatalf("%d bytes, %v", len(plain), err)
		}
		entries, err := s.Check(plain)
		if err != nil {
			t.Fatal(err)
		}
		for _, e := range entries {
			if string(e.Line) != lines[e.Seq] {
				t.Fatalf("entry %d is %s", e.Seq, e.Line)
			}
			opened++
		}
		seq += uint64(len(s.Leaves))
	}
	if opened != 501 {
		t.Errorf("%d entries were opened", opened)
	}
	// The tree is as it was, and the file holds no word of what is gone.
	if again, err := j.HeadAt(ctx, 701); err != nil || again.Root != head.Root {
		t.Errorf("the head over the same entries changed: %v", err)
	}
	if done, err := j.clean(ctx); !done || err != nil {
		t.Fatal(done, err)
	}
	for _, p := range []string{path, path + "-wal"} {
		b, err := os.ReadFile(p)
		if err != nil {
			t.Fatal(err)
		}
		for seq := uint64(1); seq <= 600; seq++ {
			if mark := lines[seq]; bytes.Contains(b, []byte(mark)) {
				t.Fatalf("%s still holds entry %d", filepath.Base(p), seq)
			}
		}
	}
	// Delivered at last: the seal goes too.
	if err := j.Acknowledge(ctx, j.Epoch(), 650, nil); err != nil {
		t.Fatal(err)
	}
	if _, err := j.Purge(ctx, epochStart); err != nil {
		t.Fatal(err)
	}
	if _, err := j.Sealed(ctx, 300); !errors.Is(err, edge.ErrUnknown) {
		t.Errorf("a delivered run is still here: %v", err)
	}
	j.Close()
	if rep := clean(t, path); rep.Purged != 601 || rep.Away != 0 {
		t.Errorf("%d purged, %d away", rep.Purged, rep.Away)
	}
}

// Without the community's key nothing that it does not have may go.
func TestOverdueWithoutKeyStays(t *testing.T) {
	ctx := context.Background()
	clk := clock.NewFake(epochStart, 480)
	path := filepath.Join(t.TempDir(), "journal.db")
	j := open(t, path, options(t, clk))
	fill(t, j, clk, 100)
	if n, err := j.Purge(ctx, clock.NewFake(epochStart, 0).Now().Local().Add(time.Hour*1000)); err != nil || n != 0 {
		t.Errorf("purged %d, %v", n, err)
	}
	if _, err := j.Get(ctx, 5); err != nil {
		t.Error(err)
	}
}

// Technical entries are kept longer, with blinds of their own, and a block whose
// key is destroyed never gets another: to the server that would be a fork.
func TestRetentionByKind(t *testing.T) {
	ctx := context.Background()
	clk := clock.NewFake(epochStart, 480)
	path, o, _ := keyed(t, clk)
	o.Retention, o.Technical = time.Hour, 10*time.Hour
	j := open(t, path, o)
	fill(t, j, clk, 120) // within one block
	if _, err := j.Head(ctx); err != nil {
		t.Fatal(err)
	}
	if err := j.Acknowledge(ctx, j.Epoch(), 120, nil); err != nil {
		t.Fatal(err)
	}
	if n, err := j.Purge(ctx, epochStart.Add(200*time.Minute)); err != nil || n != 118 {
		t.Fatalf("purged %d, %v; want all but the epoch's and two policies' entries", n, err)
	}
	for _, seq := range []uint64{0, 50, 100} {
		if s, err := j.Get(ctx, seq); err != nil || s.Blind == nil {
			t.Errorf("entry %d: %v", seq, err)
		}
	}
	fill(t, j, clk, 30)
	if keys, err := j.BlockKeys(ctx, 0, 200); err != nil || len(keys) != 0 {
		t.Errorf("the block has a key again: %v %v", keys, err)
	}
	if s, err := j.Get(ctx, j.Size()-1); err != nil || s.Blind == nil {
		t.Errorf("the last entry has no blind: %v", err)
	}
	j.Close()
	j = open(t, path, o)
	fill(t, j, clk, 200)
	if _, err := j.Head(ctx); err != nil {
		t.Fatal(err)
	}
	if keys, err := j.BlockKeys(ctx, 0, 400); err != nil || len(keys) != 1 || keys[0].First != 256 {
		t.Errorf("keys %v, %v", keys, err)
	}
	rec, err := j.Read(ctx, 121, 1, 1<<20)
	if err != nil || !strings.Contains(string(rec[0].Line), `"from":1,"to":121,"before":`) || !strings.Contains(string(rec[0].Line), `"count":118`) {
		t.Errorf("deletion record %s, %v", rec[0].Line, err)
	}
	// An entry that goes without a record is missed.
	if _, err := j.conn.ExecContext(ctx, "DELETE FROM entry WHERE seq=50"); err != nil {
		t.Fatal(err)
	}
	j.Close()
	if _, rep := verify(t, path); len(rep.Findings) != 1 || rep.Findings[0].Seq != 50 || rep.Purged+rep.Away != 118 {
		t.Errorf("%+v", rep.Findings)
	}
}

// One person's entries go, with what they led to; the others stay and are proved.
func TestErase(t *testing.T) {
	ctx := context.Background()
	clk := clock.NewFake(epochStart, 480)
	path, o, _ := keyed(t, clk)
	j := open(t, path, o)
	app := func(e *edge.Entry) uint64 {
		t.Helper()
		e.Stamp = clk.Now()
		seq, err := j.Append(ctx, e, nil)
		if err != nil {
			t.Fatal(err)
		}
		return seq
	}
	position := edge.Cell{Name: edge.CellPosition, Subject: "p7"}
	var theirs []uint64
	for i := range 60 {
		app(decision(clk, 100+i, edge.Admit))
		d := app(decision(clk, 7, edge.Admit, edge.Delta{Cell: position, Op: edge.OpSet, Value: edge.PositionInside}))
		theirs = append(theirs, d, app(&edge.Entry{Kind: edge.KindPassage, Of: int64(d), Result: edge.ResultPassed}))
	}
	theirs = append(theirs, app(&edge.Entry{Kind: edge.KindRegistry, Of: -1, Data: []byte(`{"pass":7,"status":"suspended"}`)}),
		app(&edge.Entry{Kind: edge.KindAccess, Of: -1, Data: []byte(`{"page":"journal","passes":[3,7]}`)}))
	others := app(&edge.Entry{Kind: edge.KindRegistry, Of: -1, Data: []byte(`{"pass":77,"status":"suspended"}`)})
	head, err := j.Head(ctx)
	if err != nil {
		t.Fatal(err)
	}
	if err := j.Acknowledge(ctx, j.Epoch(), 100, nil); err != nil {
		t.Fatal(err)
	}
	got, err := j.Erase(ctx, 7, "guard:2")
	if err != nil || got != (Erased{Gone: len(theirs)}) {
		t.Fatalf("%+v, %v; want %d gone", got, err, len(theirs))
	}
	for _, seq := range theirs {
		if _, err := j.Get(ctx, seq); !errors.Is(err, edge.ErrPurged) {
			t.Errorf("entry %d: %v", seq, err)
		}
	}
	if v, err := j.Cells(ctx, []edge.Cell{position}); err != nil || v[0] != (edge.CellValue{}) {
		t.Errorf("the position is still known: %+v %v", v, err)
	}
	p, blind, line, err := j.Proof(ctx, others, head.Size)
	if err != nil {
		t.Fatal(err)
	}
	leaf := edge.LeafData(blind, line)
	if err := tlog.CheckRecord(p, int64(head.Size), tlog.Hash(head.Root), int64(others), tlog.RecordHash(leaf[:])); err != nil {
		t.Error(err)
	}
	if again, err := j.Erase(ctx, 7, "guard:2"); err != nil || again.Gone != 0 {
		t.Errorf("again: %+v %v", again, err)
	}
	j.Close()
	if rep := clean(t, path); rep.Purged+rep.Away != uint64(len(theirs)) || rep.Away == 0 {
		t.Errorf("%d purged, %d away", rep.Purged, rep.Away)
	}
}

// Without the community's key the erasure is finished when the server has all.
func TestEraseWaitsForReceipts(t *testing.T) {
	ctx := context.Background()
	clk := clock.NewFake(epochStart, 480)
	path := filepath.Join(t.TempDir(), "journal.db")
	j := open(t, path, options(t, clk))
	for range 20 {
		if _, err := j.Append(ctx, decision(clk, 7, edge.Admit), nil); err != nil {
			t.Fatal(err)
		}
	}
	if err := j.Acknowledge(ctx, j.Epoch(), 11, nil); err != nil {
		t.Fatal(err)
	}
	r, err := Inspect(ctx, path)
	if err != nil {
		t.Fatal(err)
	}
	if err := r.Erasure(ctx, 7, "admin"); err != nil {
		t.Fatal(err)
	}
	r.Close()
	if err := j.takeErasures(ctx); err != nil {
		t.Fatal(err)
	}
	if r, err = Inspect(ctx, path); err != nil {
		t.Fatal(err)
	}
	defer r.Close()
	if e, done, err := r.Erased(ctx, 7); err != nil || !done || e != (Erased{Gone: 10, Waiting: 10}) {
		t.Errorf("%+v %v %v", e, done, err)
	}
	later, err := j.Append(ctx, decision(clk, 7, edge.Deny), nil)
	if err != nil {
		t.Fatal(err)
	}
	if err := j.Acknowledge(ctx, j.Epoch(), j.Size(), nil); err != nil {
		t.Fatal(err)
	}
	if n, err := j.Purge(ctx, epochStart.Add(-time.Hour)); err != nil || n != 0 {
		t.Fatalf("%d, %v", n, err)
	}
	if _, err := j.Get(ctx, 20); !errors.Is(err, edge.ErrPurged) {
		t.Errorf("what waited is still there: %v", err)
	}
	if _, err := j.Get(ctx, later); err != nil {
		t.Errorf("what came after the erasure went: %v", err)
	}
	if _, _, err := r.Erased(ctx, 7); err == nil {
		t.Error("a finished erasure still names the person")
	}
}

// What waits for its receipt goes also when only what it refers to named the person,
// and that went in an earlier round: here, or in the epoch before.
func TestErasureRemembersWhatItErased(t *testing.T) {
	for _, c := range []struct {
		name     string
		fork     bool
		restarts bool
	}{{"receipted later", false, false}, {"after a restart", false, true}, {"in the epoch that follows", true, false}} {
		t.Run(c.name, func(t *testing.T) {
			ctx := t.Context()
			clk := clock.NewFake(epochStart, 480)
			path := filepath.Join(t.TempDir(), "journal.db")
			j := open(t, path, options(t, clk))
			app := func(e *edge.Entry) uint64 {
				t.Helper()
				seq, err := j.Append(ctx, e, nil)
				if err != nil {
					t.Fatal(err)
				}
				return seq
			}
			says := func(of uint64, what string) uint64 {
				t.Helper()
				return app(&edge.Entry{Kind: edge.KindAction, Of: int64(of), Actor: "guard:2", Stamp: clk.Now(), Data: fmt.Appendf(nil, `{"action":"confirm","field":"purpose","value":%q}`, what)})
			}
			first := app(decision(clk, 7, edge.Refer))
			other := app(decision(clk, 8, edge.Refer))
			second := app(decision(clk, 7, edge.Refer))
			if err := j.Acknowledge(ctx, j.Epoch(), j.Size(), nil); err != nil {
				t.Fatal(err)
			}
			says(first, "dialysis")
			says(second, "dialysis")
			says(other, "choir")
			if got, err := j.Erase(ctx, 7, "admin"); err != nil || got != (Erased{Gone: 2, Waiting: 2}) {
				t.Fatalf("%+v, %v", got, err)
			}
			if n, err := j.Purge(ctx, epochStart.Add(-time.Hour)); err != nil || n != 0 {
				t.Fatalf("%d, %v", n, err)
			}
			if c.restarts {
				if err := j.Close(); err != nil {
					t.Fatal(err)
				}
				j = open(t, path, options(t, clk))
			}
			if c.fork {
				if err := errors.Join(j.NewEpoch(ctx, j.Acked(), "test"), j.Carry(ctx), j.takeErasures(ctx)); err != nil {
					t.Fatal(err)
				}
				if n, err := j.Purge(ctx, epochStart.Add(-time.Hour)); err != nil || n != 0 {
					t.Fatalf("%d, %v", n, err)
				}
			}
			if err := j.Acknowledge(ctx, j.Epoch(), j.Size(), nil); err != nil {
				t.Fatal(err)
			}
			if _, err := j.Purge(ctx, epochStart.Add(-time.Hour)); err != nil {
				t.Fatal(err)
			}
			text := written(t, j)
			if strings.Contains(text, "dialysis") {
				t.Error("what was said about the person is still there")
			}
			if !strings.Contains(text, "choir") || !strings.Contains(text, `"why":"erasure"`) {
				t.Errorf("another person's entry, or the record of the erasure, went: %s", text)
			}
			var orders int
			if err := j.db.R.QueryRow("SELECT count(*) FROM erasure").Scan(&orders); err != nil || orders != 0 {
				t.Errorf("%d orders are left, %v", orders, err)
			}
			if err := j.Close(); err != nil {
				t.Fatal(err)
			}
			clean(t, path)
		})
	}
}

// Room is made in the order that DESIGN.md gives, and never out of what the server
// does not have.
func TestRelieve(t *testing.T) {
	ctx := context.Background()
	clk := clock.NewFake(epochStart, 480)
	path, o, _ := keyed(t, clk)
	o.Reserve = 1 << 20
	j := open(t, path, o)
	if st, err := os.Stat(path + ".reserve"); err != nil || st.Size() != 1<<20 {
		t.Fatalf("no reserve: %v", err)
	}
	fill(t, j, clk, 1200)
	if err := j.Acknowledge(ctx, j.Epoch(), 1200, nil); err != nil {
		t.Fatal(err)
	}
	if err := errors.Join(j.NewEpoch(ctx, 1200, "test"), j.Carry(ctx)); err != nil {
		t.Fatal(err)
	}
	former, err := j.lives(ctx)
	if err != nil || len(former) != 2 {
		t.Fatalf("%v %v", former, err)
	}
	fill(t, j, clk, 1200)
	if _, err := j.Head(ctx); err != nil {
		t.Fatal(err)
	}
	acked := j.Size() - 150
	if err := j.Acknowledge(ctx, j.Epoch(), acked, nil); err != nil {
		t.Fatal(err)
	}
	size := func() int64 {
		t.Helper()
		if err := j.db.Checkpoint(ctx); err != nil {
			t.Fatal(err)
		}
		st, err := os.Stat(path)
		if err != nil {
			t.Fatal(err)
		}
		return st.Size()
	}
	count := func(table string) (n int) {
		t.Helper()
		if err := j.db.R.QueryRow("SELECT count(*) FROM " + table).Scan(&n); err != nil {
			return -1
		}
		return n
	}
	before, steps := size(), ""
	for i := 0; ; i++ {
		old, tree, now := count("entry"+former[0].suffix), count("hash"+former[0].suffix), count("entry WHERE seq<"+fmt.Sprint(acked))
		freed, err := j.Relieve(ctx)
		if err != nil {
			t.Fatal(err)
		}
		if !freed {
			break
		}
		step := "?"
		switch {
		case count("entry"+former[0].suffix) < old && count("hash"+former[0].suffix) == tree:
			step = "former content"
		case count("hash"+former[0].suffix) < tree:
			step = "former tree"
		case count("entry WHERE seq<"+fmt.Sprint(acked)) < now:
			step = "content"
		}
		if !strings.HasSuffix(steps, step+". ") {
			steps += step + ". "
		}
		if after := size(); after >= before {
			t.Errorf("step %d (%s) made no room: %d, %d bytes", i, step, before, after)
		} else {
			before = after
		}
	}
	if steps != "former content. former tree. content. " {
		t.Errorf("the order was: %s", steps)
	}
	for seq := acked; seq < acked+150; seq++ {
		if _, err := j.Get(ctx, seq); err != nil {
			t.Fatalf("an entry that the server lacks is gone: %v", err)
		}
	}
	if _, err := os.Stat(path + ".reserve"); err == nil {
		t.Error("the reserve is still held when nothing else may go")
	}
	j.Close()
	clean(t, path)
}

// A head of the epoch before is proved after a fork, and what was carried, sealed
// or not, is counted.
func TestSinceAcrossEpochs(t *testing.T) {
	ctx := context.Background()
	clk := clock.NewFake(epochStart, 480)
	path, o, id := keyed(t, clk)
	j := open(t, path, o)
	fill(t, j, clk, 300)
	early, err := j.Head(ctx)
	if err != nil {
		t.Fatal(err)
	}
	fill(t, j, clk, 300)
	late, err := j.Head(ctx)
	if err != nil {
		t.Fatal(err)
	}
	if err := j.Acknowledge(ctx, j.Epoch(), 350, nil); err != nil {
		t.Fatal(err)
	}
	// Some of what is to be carried is sealed by then.
	if _, err := j.Purge(ctx, epochStart.Add(400*time.Minute)); err != nil {
		t.Fatal(err)
	}
	first := j.Epoch()
	if err := errors.Join(j.NewEpoch(ctx, 350, "restored"), j.Carry(ctx)); err != nil {
		t.Fatal(err)
	}
	fill(t, j, clk, 20)
	s, err := j.Read(ctx, 1, 1, 1<<20)
	if err != nil {
		t.Fatal(err)
	}
	var c struct{ Data carriedSealed }
	if err := json.Unmarshal(s[0].Line, &c); err != nil || c.Data.Seq != 350 || c.Data.Count == 0 {
		t.Fatalf("%s %v", s[0].Line, err)
	}
	if _, err := age.Decrypt(bytes.NewReader(c.Data.Sealed), id); err != nil {
		t.Errorf("what was carried sealed cannot be opened: %v", err)
	}
	check := func(h edge.Head, ok bool, want string) {
		t.Helper()
		r, rep := verify(t, path)
		if len(rep.Findings) > 0 {
			t.Errorf("%+v", rep.Findings)
		}
		text, got, err := r.Since(ctx, rep, h)
		if err != nil || got != ok || !strings.Contains(text, want) {
			t.Errorf("%v %v: %s; want %s", got, err, text, want)
		}
	}
	check(early, true, "Of the head's 301 entries 301 stand at the server, 0 were carried into the epoch that followed, 0 are not here")
	check(late, true, "Of the head's 601 entries 350 stand at the server, 251 were carried into the epoch that followed, 0 are not here")
	forged := late
	forged.Root[0] ^= 1
	check(forged, false, "something was changed")
	more := late
	more.Size += 9 // the journal has grown by two deletion records
	check(more, false, "7 are not here")
	other := late
	other.Origin = edge.Origin("c", "s", "g", 5)
	check(other, false, "follows no epoch 0000000000000005")
	// A carried entry that is not what it was counts as lost.
	if _, err := j.conn.ExecContext(ctx, "UPDATE entry SET line=changed(line, '\"seq\":580,\"entry\":{\"v\":1', '\"seq\":580,\"entry\":{\"v\":2') WHERE seq>0"); err != nil {
		t.Fatal(err)
	}
	r, err := Inspect(ctx, path)
	if err != nil {
		t.Fatal(err)
	}
	defer r.Close()
	rep, err := r.Verify(ctx, nil)
	if err != nil {
		t.Fatal(err)
	}
	if text, ok, err := r.Since(ctx, rep, late); err != nil || ok || !strings.Contains(text, "1 are not here") {
		t.Errorf("%v %v %s", ok, err, text)
	}
	// The former epoch's content is still here, until its retention ends.
	f, err := r.Former(ctx, first)
	if err != nil {
		t.Fatal(err)
	}
	if got, err := f.Read(ctx, 345, 10, 1<<20); err != nil || len(got) != 0 {
		t.Errorf("%d entries past their retention, %v", len(got), err)
	}
	j.Close()
}

// What the server has receipted stays on the gate's console after a fork.
func TestFormerContentStays(t *testing.T) {
	ctx := context.Background()
	clk := clock.NewFake(epochStart, 480)
	path, o, _ := keyed(t, clk)
	j := open(t, path, o)
	fill(t, j, clk, 600)
	if err := j.Acknowledge(ctx, j.Epoch(), 300, nil); err != nil {
		t.Fatal(err)
	}
	first := j.Epoch()
	if err := errors.Join(j.NewEpoch(ctx, 300, "restored"), j.Carry(ctx)); err != nil {
		t.Fatal(err)
	}
	r, err := Inspect(ctx, path)
	if err != nil {
		t.Fatal(err)
	}
	defer r.Close()
	f, err := r.Former(ctx, first)
	if err != nil {
		t.Fatal(err)
	}
	if got, err := f.Read(ctx, 0, 1000, 1<<30); err != nil || len(got) != 300 {
		t.Fatalf("%d entries, %v", len(got), err)
	}
	rep, err := f.Verify(ctx, nil)
	if err != nil || len(rep.Findings) != 0 || rep.Carried != 301 {
		t.Errorf("%+v %v", rep, err)
	}
	// Its retention goes on.
	if n, err := j.Purge(ctx, epochStart.Add(200*time.Minute)); err != nil || n == 0 {
		t.Fatalf("%d, %v", n, err)
	}
	if got, err := f.Read(ctx, 0, 1, 1<<20); err != nil || len(got) == 0 || got[0].Seq != 200 {
		t.Errorf("%+v %v", got, err)
	}
	if rep, err = f.Verify(ctx, nil); err != nil || len(rep.Findings) != 0 || rep.Purged != 200 {
		t.Errorf("%+v %v", rep, err)
	}
}

func TestOneAlone(t *testing.T) {
	ctx := context.Background()
	clk := clock.NewFake(epochStart, 480)
	path, o, _ := keyed(t, clk)
	j := open(t, path, o)
	alone := o
	alone.Alone = true
	if _, err := Open(ctx, path, alone); !errors.Is(err, ErrInUse) {
		t.Fatalf("opened beside the daemon: %v", err)
	}
	j.Close()
	open(t, path, alone)
	if _, err := Open(ctx, path, o); !errors.Is(err, ErrInUse) {
		t.Errorf("a daemon was let in: %v", err)
	}
}

// written is all that can be read of a journal.
func written(t *testing.T, j *Journal) (text string) {
	t.Helper()
	got, err := j.Read(t.Context(), 0, 1000, 1<<20)
	if err != nil {
		t.Fatal(err)
	}
	for _, s := range got {
		text += string(s.Line)
	}
	return text
}
