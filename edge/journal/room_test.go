package journal

import (
	"bytes"
	"context"
	"database/sql"
	"errors"
	"os"
	"path/filepath"
	"strconv"
	"testing"
	"time"

	"gatehouse/edge"
	"gatehouse/edge/clock"
)

// reading begins to read a journal as another process does, until it is ended.
func reading(t *testing.T, path string) (end func()) {
	t.Helper()
	db, err := sql.Open("sqlite", "file:"+path)
	if err != nil {
		t.Fatal(err)
	}
	tx, err := db.BeginTx(context.Background(), nil)
	if err != nil {
		t.Fatal(err)
	}
	var n int
	if err := tx.QueryRow("SELECT count(*) FROM entry").Scan(&n); err != nil {
		t.Fatal(err)
	}
	return func() {
		_ = tx.Rollback()
		_ = db.Close()
	}
}

// within fails the test when f has not come back after a time in which it must have,
// on any machine.
func within(t *testing.T, what string, f func()) {
	t.Helper()
	done := make(chan struct{})
	go func() { defer close(done); f() }()
	select {
	case <-done:
	case <-time.After(time.Minute):
		t.Fatalf("%s waits", what)
	}
}

// Somebody who reads keeps the WAL from being emptied, and no lane from its commit.
// Once they have gone, what was destroyed is in no file.
func TestReaderStopsNoLane(t *testing.T) {
	ctx := t.Context()
	clk := clock.NewFake(epochStart, 480)
	path := filepath.Join(t.TempDir(), "journal.db")
	j := open(t, path, options(t, clk))
	fill(t, j, clk, 300)
	if err := j.Acknowledge(ctx, j.Epoch(), j.Size(), nil); err != nil {
		t.Fatal(err)
	}
	gone, err := j.Get(ctx, 100)
	if err != nil {
		t.Fatal(err)
	}
	mark := pack(gone.Line)
	holds := func() bool {
		t.Helper()
		for _, p := range []string{path, path + "-wal"} {
			b, err := os.ReadFile(p)
			if err != nil {
				t.Fatal(err)
			}
			if bytes.Contains(b, mark) {
				return true
			}
		}
		return false
	}
	if !holds() {
		t.Fatal("what is to be looked for is not there before")
	}
	if n, err := j.Purge(ctx, time.UnixMilli(clk.Now().Time)); n == 0 || err != nil {
		t.Fatal(n, err)
	}
	end := reading(t, path)
	defer end()
	within(t, "emptying the WAL or an append beside it", func() {
		for range 20 { // all could be copied into the file
			if done, err := j.clean(ctx); done || err != nil {
				t.Error("emptied under a reader:", done, err)
				return
			}
		}
		for range 20 { // the reader does not see what is appended
			if done, err := j.clean(ctx); done || err != nil {
				t.Error("emptied under a reader:", done, err)
				return
			}
			if _, err := j.Append(ctx, decision(clk, 1, edge.Admit), nil); err != nil {
				t.Error(err)
				return
			}
		}
	})
	if !holds() {
		t.Error("gone, although the WAL was said not to be empty")
	}
	end()
	// Nor does it take the journal's own lock.
	j.write.Lock()
	defer j.write.Unlock()
	within(t, "emptying the WAL", func() {
		if done, err := j.clean(ctx); !done || err != nil {
			t.Error("not emptied when nobody reads:", done, err)
		}
	})
	if holds() {
		t.Error("destroyed, and still on the medium")
	}
	if st, err := os.Stat(path + "-wal"); err != nil || st.Size() > 0 {
		t.Error("the WAL is not empty:", st, err)
	}
	if j.stale.Load() {
		t.Error("the WAL is said to hold what was destroyed")
	}
}

// Free pages go back in steps, between which lanes append, until there are none.
func TestVacuumInSteps(t *testing.T) {
	ctx := t.Context()
	clk := clock.NewFake(epochStart, 480)
	path := filepath.Join(t.TempDir(), "journal.db")
	j := open(t, path, options(t, clk))
	fill(t, j, clk, 8000)
	if err := j.Acknowledge(ctx, j.Epoch(), j.Size(), nil); err != nil {
		t.Fatal(err)
	}
	if n, err := j.Purge(ctx, time.UnixMilli(clk.Now().Time)); n == 0 || err != nil {
		t.Fatal(n, err)
	}
	free := func() (n int) {
		t.Helper()
		if err := j.conn.QueryRowContext(ctx, "PRAGMA freelist_count").Scan(&n); err != nil {
			t.Fatal(err)
		}
		return n
	}
	began := free()
	if began < 5*vacuumAtOnce {
		t.Fatalf("only %d pages are free", began)
	}
	more, err := j.vacuumSome(ctx)
	if left := free(); !more || err != nil || left != began-vacuumAtOnce {
		t.Errorf("a step left %d pages of %d free, %t %v", left, began, more, err)
	}
	// A lane that appends meanwhile has its turn in the midst of it.
	shrunk := make(chan error, 1)
	go func() { shrunk <- j.vacuum(ctx) }()
	midst := false
	for done := false; !done; {
		var left int
		_, err := j.Append(ctx, decision(clk, 1, edge.Admit), nil)
		if err = errors.Join(err, j.db.R.QueryRow("PRAGMA freelist_count").Scan(&left)); err != nil {
			t.Fatal(err)
		}
		midst = midst || left > 0 && left < began-vacuumAtOnce
		select {
		case err := <-shrunk:
			if done = true; err != nil {
				t.Fatal(err)
			}
		default:
		}
	}
	if !midst {
		t.Error("all pages were freed before a lane had its turn")
	}
	if left := free(); left > 0 {
		t.Errorf("%d pages are still free", left)
	}
	if empty, err := j.shrink(ctx, 0); !empty || err != nil {
		t.Errorf("the WAL is not empty: %v", err)
	}
	st, err := os.Stat(path)
	if err != nil {
		t.Fatal(err)
	}
	var pages int64
	if err := j.db.R.QueryRow("PRAGMA page_count").Scan(&pages); err != nil || st.Size() != pages*pageSize {
		t.Errorf("the file has %d bytes, of %d pages, %v", st.Size(), pages, err)
	}
}

// The tree of a former epoch goes in steps, between which lanes append, with little room
// in the WAL; what a power cut leaves of it goes later, and nobody takes it for whole.
func TestStripInSteps(t *testing.T) {
	ctx := t.Context()
	clk := clock.NewFake(epochStart, 480)
	path := filepath.Join(t.TempDir(), "journal.db")
	o := options(t, clk)
	j := open(t, path, o)
	fill(t, j, clk, 12_000)
	if err := j.Acknowledge(ctx, j.Epoch(), j.Size(), nil); err != nil {
		t.Fatal(err)
	}
	old := j.Epoch()
	if err := errors.Join(j.NewEpoch(ctx, j.Size(), "test"), j.Carry(ctx)); err != nil {
		t.Fatal(err)
	}
	if n, err := j.Purge(ctx, time.UnixMilli(clk.Now().Time)); n == 0 || err != nil {
		t.Fatal(n, err)
	}
	if done, err := j.shrink(ctx, 0); !done || err != nil {
		t.Fatal(done, err)
	}
	hashes := func() (n int) {
		t.Helper()
		if err := j.db.R.QueryRow("SELECT count(*) FROM hash" + suffixOf(old)).Scan(&n); err != nil {
			return -1
		}
		return n
	}
	all := hashes()
	lives, err := j.lives(ctx)
	if err != nil || len(lives) != 2 || all < 20_000 {
		t.Fatalf("%v, %d hashes, %v", lives, all, err)
	}
	// A lane that appends meanwhile has its turn in the midst of it; then the power fails.
	cut, fail := context.WithCancel(ctx)
	defer fail()
	ended := make(chan error, 1)
	go func() { ended <- j.strip(cut, lives[0]) }()
	for left := all; left == all; left = hashes() {
		if _, err := j.Append(ctx, decision(clk, 1, edge.Admit), nil); err != nil {
			t.Fatal(err)
		}
	}
	fail()
	if err := <-ended; !errors.Is(err, context.Canceled) {
		t.Fatalf("all went at once: %v", err)
	}
	if left := hashes(); left <= 0 || left >= all {
		t.Fatalf("%d of %d hashes are left", left, all)
	}
	if err := j.Close(); err != nil {
		t.Fatal(err)
	}
	look := func() *Reader {
		t.Helper()
		r, err := Inspect(ctx, path)
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { _ = r.Close() })
		return r
	}
	if _, err := look().Former(ctx, old); !errors.Is(err, edge.ErrPurged) {
		t.Errorf("half an epoch is taken for one: %v", err)
	}
	j = open(t, path, o)
	if freed, err := j.Relieve(ctx); !freed || err != nil {
		t.Fatal(freed, err)
	}
	for _, table := range stripped {
		var n int
		if err := j.db.R.QueryRow("SELECT count(*) FROM " + table + suffixOf(old)).Scan(&n); err == nil {
			t.Errorf("%s is still there, with %d rows", table, n)
		}
	}
	if some, err := j.dropBare(ctx); some || err != nil {
		t.Error(some, err)
	}
	rep, err := look().Verify(ctx, nil)
	if err != nil || len(rep.Findings) > 0 {
		t.Errorf("%v, %v", rep, err)
	}
}

// Dropping a large table takes no more of the WAL than a few steps do: on a full medium
// there is no more.
func TestStripTakesLittleRoom(t *testing.T) {
	ctx := t.Context()
	clk := clock.NewFake(epochStart, 480)
	path := filepath.Join(t.TempDir(), "journal.db")
	j := open(t, path, options(t, clk))
	const rows = 200_000
	for _, q := range []string{"CREATE TABLE hash_x(i INTEGER PRIMARY KEY, h BLOB NOT NULL)",
		"WITH RECURSIVE n(i) AS (SELECT 0 UNION ALL SELECT i+1 FROM n LIMIT " + strconv.Itoa(rows) + ") INSERT INTO hash_x SELECT i, randomblob(32) FROM n"} {
		if _, err := j.conn.ExecContext(ctx, q); err != nil {
			t.Fatal(err)
		}
	}
	if done, err := j.shrink(ctx, 0); !done || err != nil {
		t.Fatal(done, err)
	}
	if err := j.dropTable(ctx, "hash_x"); err != nil {
		t.Fatal(err)
	}
	st, err := os.Stat(path + "-wal")
	if err != nil || st.Size() > rows*32/4 {
		t.Errorf("%d bytes of WAL for %d of hashes, %v", st.Size(), rows*32, err)
	}
	t.Logf("%d bytes of WAL for %d of hashes", st.Size(), rows*32)
}

// While somebody reads, no step gives room back, and a second one would only destroy
// more before its time.
func TestReaderSavesContent(t *testing.T) {
	ctx := t.Context()
	clk := clock.NewFake(epochStart, 480)
	path := filepath.Join(t.TempDir(), "journal.db")
	j := open(t, path, options(t, clk))
	fill(t, j, clk, 3*roomBlocks*edge.BlockSize)
	if err := j.Acknowledge(ctx, j.Epoch(), j.Size(), nil); err != nil {
		t.Fatal(err)
	}
	there := func() (n int) {
		t.Helper()
		if err := j.db.R.QueryRow("SELECT count(*) FROM entry").Scan(&n); err != nil {
			t.Fatal(err)
		}
		return n
	}
	relieve := func() {
		t.Helper()
		if freed, err := j.Relieve(ctx); !freed || err != nil {
			t.Fatal(freed, err)
		}
	}
	end := reading(t, path)
	defer end()
	relieve()
	left := there()
	for range 3 {
		relieve()
	}
	if n := there(); n != left {
		t.Errorf("%d entries more are destroyed, and give no room", left-n)
	}
	end()
	relieve()
	if st, err := os.Stat(path + "-wal"); err != nil || st.Size() > 0 || there() != left {
		t.Error("the room of the first step is not given back before another", st, err, there())
	}
	relieve()
	if there() >= left {
		t.Error("no more room is made")
	}
}
