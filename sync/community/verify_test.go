package community

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

func TestVerifyRows(t *testing.T) { testVerifyRows(t, filepath.Join(t.TempDir(), "c.db")) }

// Whatever is changed of a row behind the server's back is named, and nothing else.
func testVerifyRows(t *testing.T, where string) {
	ctx := context.Background()
	s, b, _ := start(t, where)
	d := newDevice("estate", "east", 7, 1)
	now := time.Now().UnixMilli()
	d.addLines(300) // of long ago: filed under the time of the receipt
	carry := func(seq int, line string) string {
		return fmt.Sprintf(`{"kind":"carried","t":%d,"data":{"seq":%d,"entry":%s}}`, now, seq, line)
	}
	d.add(fmt.Sprintf(`{"kind":"decision","t":%d,"actor":"guard:4","facts":{"pass":{"id":5}},"outcome":"refer"}`, now),
		/* 301 */ fmt.Sprintf(`{"kind":"passage","t":%d,"of":300,"result":"passed"}`, now),
		/* 302 */ carry(40, fmt.Sprintf(`{"kind":"decision","t":%d}`, now)),
		/* 303 */ carry(41, fmt.Sprintf(`{"kind":"passage","t":%d,"of":40}`, now)),
		/* 304 */ carry(42, fmt.Sprintf(`{"kind":"passage","t":%d,"of":40}`, now)), // in another batch: its row has no reference
		/* 305 */ "not JSON \x00\xff")
	register(t, s, d, "")
	d.want(t, d.send(t, b, 0, 304), 304)
	d.want(t, d.send(t, b, 304, 306), 306)
	whole(t, s, d, 306)

	findings := func() []string {
		t.Helper()
		found, err := s.Verify(ctx, "", "")
		if err != nil {
			t.Fatal(err)
		}
		var out []string
		for _, f := range found {
			if f.Site != "estate" || f.Gate != "east" || f.Epoch != 7 {
				t.Errorf("found in %s/%s/%s", f.Site, f.Gate, f.Epoch)
			}
			out = append(out, fmt.Sprint(f.Seq, " ", f.Text))
		}
		return out
	}
	exec := func(q string, args ...any) {
		t.Helper()
		if _, err := s.store.w.ExecContext(ctx, q, args...); err != nil {
			t.Fatal(err)
		}
	}
	for _, c := range []struct {
		seq         int
		column, set string // and what to
		want        string
	}{
		{300, "kind", "'passage'", `300 the row's kind is "passage", the entry says "decision"`},
		{3, "lane", "'west-in'", `3 the row's lane is "west-in", the entry says "east-in"`},
		{3, "presentation", "9", `3 the row's presentation is "9", the entry says "4"`},
		{301, "of", "299", `301 the row's of is "299", the entry says "300"`},
		{301, "of", "NULL", `301 the row's of is "", the entry says "300"`},
		{300, "of", "0", `300 the row's of is "0", the entry says ""`},
		{303, "of", "7", `303 the row's of is "7", the entry says "302"`},
		{3, "actor", "'guard:99'", `3 the row's actor is "guard:99", the entry says ""`},
		{300, "actor", "NULL", `300 the row's actor is "", the entry says "guard:4"`},
		{3, "pass", "1", `3 the row's pass is "1", the entry says "4"`},
		{3, "household", "1", `3 the row's household is "1", the entry says "4"`},
		{3, "category", "'worker'", `3 the row's category is "worker", the entry says "resident"`},
		{3, "outcome", "'deny'", `3 the row's outcome is "deny", the entry says "admit"`},
		{3, "rule", "'x'", `3 the row's rule is "x", the entry says "residents"`},
		{3, "reason", "'x'", `3 the row's reason is "x", the entry says "resident"`},
		{302, "result", "'passed'", `302 the row's result is "passed", the entry says ""`},
		{305, "outcome", "'admit'", `305 the row's outcome is "admit", the entry says ""`},
		{300, "at", fmt.Sprint(now + 5), fmt.Sprintf(`300 the row's at is %d, the entry says %d`, now+5, now)},
		{3, "at", "1700000003001", `3 the row's at is 1700000003001, the entry says 1700000003000`},
		{3, "at", "1", `3 the row's at is 1, which is neither the entry's own time nor one at which this log came`},
		{3, "at", fmt.Sprint(now + 900*day.Milliseconds()), fmt.Sprintf(`3 the row's at is %d, which is neither the entry's own time nor one at which this log came`, now+900*day.Milliseconds())},
	} {
		var was any
		if err := s.store.w.QueryRowContext(ctx, `SELECT `+c.column+` FROM entry WHERE seq = $1`, c.seq).Scan(&was); err != nil {
			t.Fatal(err)
		}
		exec(`UPDATE entry SET `+c.column+` = `+c.set+` WHERE seq = $1`, c.seq)
		if got := findings(); len(got) != 1 || got[0] != c.want {
			t.Errorf("%s of %d: %q, want %q", c.column, c.seq, got, c.want)
		}
		exec(`UPDATE entry SET `+c.column+` = $1 WHERE seq = $2`, was, c.seq)
	}
	if got := findings(); len(got) > 0 {
		t.Fatalf("as it was: %q", got)
	}

	exec(`INSERT INTO entry (log, seq, at, kind) SELECT log, 500, at, kind FROM entry WHERE seq = 0`)
	if got := findings(); len(got) != 1 || got[0] != "306 1 rows are of entries that the log does not have, the first of 500" {
		t.Errorf("a row beyond the log: %q", got)
	}
	exec(`DELETE FROM entry WHERE seq = 500 OR seq BETWEEN 10 AND 12 OR seq = 20`)
	if got := strings.Join(findings(), "\n"); got != "0 4 entries are missing and 0 are there twice\n10 the rows from here to entry 12 are not there\n20 the row is not there" {
		t.Errorf("rows that are not there: %s", got)
	}
}

// A row that was put back where its entry was destroyed is named; what an entry that
// was carried over referred to may have been destroyed.
func TestVerifyRowsOfTheDestroyed(t *testing.T) {
	ctx := context.Background()
	s, b, _ := start(t, filepath.Join(t.TempDir(), "c.db"))
	d := newDevice("estate", "east", 7, 1)
	now := time.Now().UnixMilli()
	for i, x := range []string{`{"kind":"decision","t":%d}`, `{"kind":"passage","t":%d,"of":40}`} {
		d.add(fmt.Sprintf(`{"kind":"carried","t":%d,"data":{"seq":%d,"entry":`+x+`}}`, now, 40+i, now))
	}
	d.addLines(2)
	register(t, s, d, "")
	d.want(t, d.send(t, b, 0, 4), 4)
	if err := s.store.write(ctx, func(tx *sql.Tx) error {
		_, err := s.store.destroy(ctx, tx, 1, []uint64{0}, now, "test", "test")
		return err
	}); err != nil {
		t.Fatal(err)
	}
	if bad, err := s.Verify(ctx, "", ""); err != nil || len(bad) > 0 {
		t.Errorf("%v %v", bad, err)
	}
	if _, err := s.store.w.ExecContext(ctx, `UPDATE entry SET of = 2 WHERE seq = 1`); err != nil {
		t.Fatal(err)
	}
	if _, err := s.store.w.ExecContext(ctx, `INSERT INTO entry (log, seq, at, kind) VALUES (1, 0, $1, 'decision')`, now); err != nil {
		t.Fatal(err)
	}
	bad, err := s.Verify(ctx, "", "")
	if err != nil || len(bad) != 2 || bad[0].Seq != 0 || !strings.Contains(bad[0].Text, "there is a row") || bad[1].Seq != 1 || !strings.Contains(bad[1].Text, `"2"`) {
		t.Errorf("%v %v", bad, err)
	}
}

func TestVerifyBesidePurge(t *testing.T) {
	testVerifyBesidePurge(t, filepath.Join(t.TempDir(), "c.db"))
}

// What the running server destroys while its store is verified is no finding, neither
// in the part that is being looked at nor in the next one.
func testVerifyBesidePurge(t *testing.T, where string) {
	ctx := context.Background()
	s, b, _ := start(t, where)
	d := newDevice("estate", "east", 7, 1)
	d.addLines(verifyChunk + 100)
	register(t, s, d, "")
	d.want(t, d.send(t, b, 0, verifyChunk), verifyChunk)
	d.want(t, d.send(t, b, verifyChunk, len(d.lines)), len(d.lines))
	l, err := s.logOf(ctx, "estate", "east", 7)
	if err != nil {
		t.Fatal(err)
	}
	v := verifier{Server: s, l: l, bad: func(seq uint64, format string, args ...any) {
		t.Errorf("%d: %s", seq, fmt.Sprintf(format, args...))
	}}
	err = s.store.view(ctx, func(q querier) error {
		// The state is that of the first statement.
		if _, err := deletions(ctx, q, l.id, 0, 1); err != nil {
			return err
		}
		err := s.store.write(ctx, func(tx *sql.Tx) error {
			_, err := s.store.destroy(ctx, tx, l.id, []uint64{5, 6, 300, verifyChunk + 1}, 1, "test", "test")
			return err
		})
		if err != nil {
			return err
		}
		return v.chunk(ctx, q, 0, verifyChunk)
	})
	if err != nil {
		t.Fatal(err)
	}
	if err := v.run(ctx); err != nil {
		t.Fatal(err)
	}
	if bad, err := s.Verify(ctx, "", ""); err != nil || len(bad) > 0 {
		t.Errorf("%v %v", bad, err)
	}
}

// Neither are partitions that are dropped meanwhile, from which what is kept moves to
// the one for the rest.
func testVerifyBesideRetire(t *testing.T, where string) {
	ctx := context.Background()
	s, b, _ := start(t, where)
	d := newDevice("estate", "east", 7, 1)
	d.addLines(300)
	register(t, s, d, "")
	d.want(t, d.send(t, b, 0, 300), 300)
	l, err := s.logOf(ctx, "estate", "east", 7)
	if err != nil {
		t.Fatal(err)
	}
	v := verifier{Server: s, l: l, bad: func(seq uint64, format string, args ...any) {
		t.Errorf("%d: %s", seq, fmt.Sprintf(format, args...))
	}}
	done := make(chan error, 1)
	err = s.store.view(ctx, func(q querier) error {
		if _, err := deletions(ctx, q, l.id, 0, 1); err != nil {
			return err
		}
		go func() {
			_, err := s.store.bulk.retire(ctx, s.store.w, time.Now().Add(3*day).UnixMilli())
			done <- err
		}()
		waits(t, s, done)
		return v.chunk(ctx, q, 0, 300)
	}, "entry", "block")
	if err := errors.Join(err, <-done); err != nil {
		t.Fatal(err)
	}
	if bad, err := s.Verify(ctx, "", ""); err != nil || len(bad) > 0 {
		t.Errorf("%v %v", bad, err)
	}
}
