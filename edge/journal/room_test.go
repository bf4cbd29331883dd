package journal

import (
	"bytes"
	"context"
	"database/sql"
	"errors"
	"os"
	"path/filepath"
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
	if empty, err := j.shrink(ctx); !empty || err != nil {
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
