package journal

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"path/filepath"
	"slices"
	"sync"
	"testing"
	"time"

	"pgregory.net/rapid"

	"gatehouse/edge"
	"gatehouse/edge/clock"
	"gatehouse/edge/sqlite"
)

// note appends entries that are numbered from n+1 on, in one commit, and returns the
// last number.
func note(t interface{ Fatal(...any) }, j *Journal, n, count int) int {
	var lines [][]byte
	for range count {
		n++
		line, err := (&edge.Entry{Kind: edge.KindRegistry, Of: -1, Actor: "system", Stamp: j.o.Clock.Now(), Data: fmt.Appendf(nil, `{"n":%d}`, n)}).AppendJSON(nil)
		if err != nil {
			t.Fatal(err)
		}
		lines = append(lines, pack(line))
	}
	if err := j.appendRescued(context.Background(), lines, "test", 0, nil); err != nil {
		t.Fatal(err)
	}
	return n
}

// found counts the numbers that are in the journal: those of former epochs that stand
// at the server, and those of the present one, whatever carries them. Those that were
// carried together must be in order.
func found(t interface{ Fatalf(string, ...any) }, j *Journal) map[int]int {
	ctx := context.Background()
	fatal := func(err error) {
		if err != nil {
			t.Fatalf("%v", err)
		}
	}
	out := map[int]int{}
	last := map[int]int{} // by depth: how often it was carried
	var take func(line []byte, depth int)
	take = func(line []byte, depth int) {
		e, err := edge.DecodeEntry(line)
		fatal(err)
		var d struct {
			carriedSealed
			N     int
			Entry json.RawMessage
		}
		switch {
		case e.Kind == edge.KindCarried:
			fatal(json.Unmarshal(e.Data, &d))
			for i := range d.Count { // sealed: in the tests here, numbers are the sequences
				out[int(d.Seq+i)]++
			}
			if d.Count == 0 {
				take(d.Entry, depth+1)
			}
		case e.Kind == edge.KindRegistry:
			fatal(json.Unmarshal(e.Data, &d))
			if d.N <= last[depth] {
				t.Fatalf("entry %d comes after %d", d.N, last[depth])
			}
			last[depth] = d.N
			out[d.N]++
		}
	}
	formers, err := formersOf(ctx, j.db.R)
	fatal(err)
	for _, f := range formers {
		entries, err := readEntries(ctx, j.db.R, suffixOf(f.Epoch), 0, f.Forked)
		fatal(err)
		for _, s := range entries {
			take(s.Line, 0)
		}
	}
	clear(last)
	_, err = j.each(ctx, 0, func(s edge.Stored, _ *edge.Entry) { take(s.Line, 0) })
	fatal(err)
	return out
}

// The power is cut after each step of the carrying, while lanes append: it goes on
// where it was, nothing is lost or comes twice, and an old head is proved.
func TestCarryIsCutAtEveryStep(t *testing.T) {
	ctx := t.Context()
	clk := clock.NewFake(epochStart, 480)
	path, o, _ := keyed(t, clk)
	j := open(t, path, o)
	n := 0
	add := func(count int) { n = note(t, j, n, count) }
	add(200)
	head, err := j.Head(ctx)
	if err != nil {
		t.Fatal(err)
	}
	// Some are gone, some sealed.
	if err := j.Acknowledge(ctx, j.Epoch(), 41, nil); err != nil {
		t.Fatal(err)
	}
	if _, err := j.destroyWhere(ctx, life{epoch: j.Epoch(), acked: 41}, deletion{Why: "retention"}, func(seq uint64, _ *edge.Entry) (bool, bool) {
		return seq%10 < 3, seq < 100
	}); err != nil {
		t.Fatal(err)
	}
	add(500)
	if err := j.NewEpoch(ctx, 21, "restored"); err != nil {
		t.Fatal(err)
	}
	want := map[int]bool{}
	for i := 1; i <= n; i++ { // entry 0 is the epoch's
		want[i] = i >= 41 || i%10 >= 3
	}
	check := func(j *Journal, upto int) {
		t.Helper()
		got := found(t, j)
		for i := 1; i <= upto; i++ {
			if w := i > 700 || want[i]; got[i] != map[bool]int{true: 1}[w] {
				t.Errorf("entry %d is there %d times", i, got[i])
			}
		}
		r, err := Inspect(ctx, j.db.Path())
		if err != nil {
			t.Fatal(err)
		}
		defer r.Close()
		rep, err := r.Verify(ctx, nil)
		if err != nil || len(rep.Findings) > 0 {
			t.Errorf("%+v %v", rep.Findings, err)
		}
		// Of 21..40 six are destroyed; those of 41..99 were sealed, and are carried so.
		text, _, err := r.Since(ctx, rep, head)
		if err != nil || text != fmt.Sprintf("epoch %s has ended: the head over 201 entries is extended by the log of %d: nothing was changed or removed. "+
			"Of the head's 201 entries 21 stand at the server, 174 were carried into the epoch that followed, 6 are not here"+askServer, r.mustFormer(t), 702) {
			t.Errorf("%s, %v", text, err)
		}
	}
	for step, more := 0, true; more; step++ {
		cut := filepath.Join(t.TempDir(), "cut.db")
		if err := sqlite.Copy(ctx, path, cut); err != nil {
			t.Fatal(err)
		}
		after := open(t, cut, o)
		upto := n
		if err := after.Carry(ctx); err != nil {
			t.Fatal(err)
		}
		check(after, upto)
		if err := after.Close(); err != nil {
			t.Fatal(err)
		}
		j.purging.Lock()
		more, err = j.carrySome(ctx)
		j.purging.Unlock()
		if err != nil {
			t.Fatal(err)
		}
		add(3)
		if !more && step < 10 {
			t.Errorf("carried in %d steps", step)
		}
	}
	check(j, n)
}

func (r *Reader) mustFormer(t *testing.T) edge.Epoch {
	t.Helper()
	all, err := r.Formers(t.Context())
	if err != nil || len(all) != 1 {
		t.Fatalf("%v %v", all, err)
	}
	return all[0]
}

// Whatever order lanes, receipts, forks, steps of carrying and power cuts come in,
// each entry is there once.
func TestCarryKeepsEachEntryOnce(t *testing.T) {
	rapid.Check(t, func(rt *rapid.T) {
		ctx := context.Background()
		fatal := func(err error) {
			if err != nil {
				rt.Fatal(err)
			}
		}
		dir := t.TempDir()
		o := options(t, clock.NewFake(epochStart, 480))
		path, copies, n := filepath.Join(dir, "journal.db"), 0, 0
		j, err := Open(ctx, path, o)
		fatal(err)
		defer func() { fatal(j.Close()) }()
		rt.Repeat(map[string]func(*rapid.T){
			"append": func(rt *rapid.T) {
				n = note(rt, j, n, rapid.IntRange(1, 90).Draw(rt, "entries"))
			},
			"receipt": func(rt *rapid.T) {
				fatal(j.Acknowledge(ctx, j.Epoch(), uint64(rapid.IntRange(0, int(j.Size())).Draw(rt, "size")), nil))
			},
			"fork": func(rt *rapid.T) {
				fatal(j.NewEpoch(ctx, uint64(rapid.IntRange(0, int(j.Size())).Draw(rt, "forked")), "test"))
			},
			"carry some": func(*rapid.T) {
				j.purging.Lock()
				_, err := j.carrySome(ctx)
				j.purging.Unlock()
				fatal(err)
			},
			"purge": func(*rapid.T) {
				_, err := j.Purge(ctx, epochStart.Add(-time.Hour))
				fatal(err)
			},
			"crash": func(*rapid.T) {
				copies++
				next := filepath.Join(dir, fmt.Sprint(copies)+".db")
				fatal(errors.Join(sqlite.Copy(ctx, path, next), j.Close()))
				path = next
				j, err = Open(ctx, path, o)
				fatal(err)
			},
		})
		fatal(j.Carry(ctx))
		got := map[int]int{}
		for k, v := range found(rt, j) {
			got[k] = v
		}
		for i := 1; i <= n; i++ {
			if got[i] != 1 {
				rt.Fatalf("entry %d is there %d times", i, got[i])
			}
		}
	})
}

// BenchmarkCarry lets a lane append while ten weeks are carried into a new epoch,
// and tells the longest append beside that of the same journal at rest.
func BenchmarkCarry(b *testing.B) {
	const backlog = 150_000
	ctx := context.Background()
	for b.Loop() {
		clk := clock.NewFake(epochStart, 480)
		j := open(b, filepath.Join(b.TempDir(), "journal.db"), options(b, clk))
		var batch [][]byte
		for i := range backlog {
			line, err := decision(clk, i%2000, edge.Admit).AppendJSON(nil)
			if err != nil {
				b.Fatal(err)
			}
			if batch = append(batch, pack(line)); len(batch) == 1000 {
				if err := j.appendRescued(ctx, batch, "test", 0, nil); err != nil {
					b.Fatal(err)
				}
				batch = nil
			}
		}
		if err := j.seal(ctx, j.Size()); err != nil {
			b.Fatal(err)
		}
		run, stop := context.WithCancel(ctx)
		var wg sync.WaitGroup
		wg.Go(func() {
			if err := j.Run(run); !errors.Is(err, context.Canceled) {
				b.Error(err)
			}
		})
		// A lane is as hot as a busy gate's: ten entries a second.
		lane := func(until func() bool) (d []time.Duration) {
			for i := 0; !until(); i++ {
				began := time.Now()
				if _, err := j.Append(ctx, decision(clk, i%2000, edge.Admit, add(exits(i%700), 1)), nil); err != nil {
					b.Fatal(err)
				}
				d = append(d, time.Since(began))
				time.Sleep(max(0, 100*time.Millisecond-d[i]))
			}
			slices.Sort(d)
			return d
		}
		restEnd := time.Now().Add(10 * time.Second)
		rest := lane(func() bool { return time.Now().After(restEnd) })
		began := time.Now()
		if err := j.NewEpoch(ctx, 1, "benchmark"); err != nil {
			b.Fatal(err)
		}
		begun := time.Since(began)
		busy := lane(func() bool {
			formers, err := formersOf(ctx, j.db.R)
			return err != nil || !formers[0].carrying
		})
		took := time.Since(began)
		stop()
		wg.Wait()
		ms := func(d time.Duration) float64 { return float64(d.Microseconds()) / 1000 }
		b.ReportMetric(ms(begun), "begin-ms")
		b.ReportMetric(took.Seconds(), "carry-s")
		b.ReportMetric(ms(rest[len(rest)-1]), "longest-at-rest-ms")
		b.ReportMetric(ms(busy[len(busy)-1]), "longest-while-carrying-ms")
		b.ReportMetric(ms(busy[len(busy)*99/100]), "p99-while-carrying-ms")
		b.ReportMetric(float64(backlog)/took.Seconds(), "entries/s")
		if err := j.Close(); err != nil {
			b.Fatal(err)
		}
	}
}
