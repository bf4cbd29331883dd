package benchcmd

import (
	"bufio"
	"context"
	"database/sql"
	"fmt"
	"os"
	"path/filepath"
	"time"

	"golang.org/x/sys/unix"

	"gatehouse/edge"
	"gatehouse/edge/clock"
	"gatehouse/edge/journal"
	"gatehouse/edge/sqlite"
)

// appends measures an fdatasync'd append of 4 KiB: the least that durable costs
// on this medium.
func appends(dir string, n int) (_ []time.Duration, err error) {
	f, err := os.Create(filepath.Join(dir, "append"))
	if err != nil {
		return nil, fmt.Errorf("cannot measure the medium: %w", err)
	}
	defer func() {
		if cerr := f.Close(); err == nil {
			err = cerr
		}
	}()
	buf := make([]byte, 4096)
	out := make([]time.Duration, n)
	for i := range out {
		began := time.Now()
		if _, err := f.Write(buf); err != nil {
			return nil, fmt.Errorf("cannot measure the medium: %w", err)
		}
		if err := unix.Fdatasync(int(f.Fd())); err != nil {
			return nil, fmt.Errorf("cannot measure the medium: %w", err)
		}
		out[i] = time.Since(began)
	}
	return out, nil
}

// warmUp commits bring the write-ahead log to the size it keeps.
const warmUp = 200

// bareCommits measures commits of one row, without anything of the gate's.
func bareCommits(ctx context.Context, dir string, n int) (_ []time.Duration, err error) {
	db, err := sqlite.Open(ctx, filepath.Join(dir, "bare.db"), sqlite.Options{PageSize: 1024, Full: true, Migrations: []string{"CREATE TABLE t(a INTEGER PRIMARY KEY, b BLOB)"}})
	if err != nil {
		return nil, err
	}
	defer func() {
		if cerr := db.Close(); err == nil {
			err = cerr
		}
	}()
	row := make([]byte, 700)
	var out []time.Duration
	for i := range n + warmUp {
		began := time.Now()
		if err := db.Write(ctx, func(tx *sql.Tx) error { _, err := tx.ExecContext(ctx, "INSERT INTO t(b) VALUES(?)", row); return err }); err != nil {
			return nil, err
		}
		if i >= warmUp {
			out = append(out, time.Since(began))
		}
	}
	return out, nil
}

// written is how many bytes an entry costs, by what the process wrote and by
// what reached the medium.
type written struct {
	process, medium float64
	entry           float64 // the entry itself, as text
}

// journalCommits measures decisions as a lane commits them: entry, counter and
// position in one transaction.
func journalCommits(ctx context.Context, dir string, n int) (_ []time.Duration, w written, err error) {
	clk := clock.NewFake(time.Now(), 480)
	j, err := journal.Open(ctx, filepath.Join(dir, "journal.db"), journal.Options{Community: "bench", Site: "s", Gate: "g", Clock: clk, Log: discard})
	if err != nil {
		return nil, w, err
	}
	defer func() {
		if cerr := j.Close(); err == nil {
			err = cerr
		}
	}()
	pol, err := sample()
	if err != nil {
		return nil, w, err
	}
	var out []time.Duration
	var before, size sqlite.Written
	var length int
	for i := range n + warmUp {
		if i == warmUp {
			if before, err = sqlite.ReadWritten(dir); err != nil {
				return nil, w, err
			}
		}
		clk.Advance(time.Second)
		f := facts(clk.Now(), i)
		d := pol.Decide(f)
		e := &edge.Entry{Kind: edge.KindDecision, Lane: "bench", Presentation: uint64(i + 1), Of: -1, Stamp: clk.Now(), Policy: pol.Hash(), Outcome: d.Outcome, Rule: d.Rule, Reason: d.Reason,
			Authority: d.Authority, Matched: d.Matched, Facts: f, Deltas: []edge.Delta{
				{Cell: edge.Cell{Name: "household_exits", Subject: f.Household.ID.Subject(), Bucket: clk.Now().Time / 86_400_000}, Op: edge.OpAdd, Value: 1},
				{Cell: edge.Cell{Name: edge.CellPosition, Subject: f.Pass.ID.Subject()}, Op: edge.OpSet, Value: edge.PositionOutside}}}
		began := time.Now()
		if _, err := j.Append(ctx, e, nil); err != nil {
			return nil, w, err
		}
		if i < warmUp {
			continue
		}
		out = append(out, time.Since(began))
		line, err := e.AppendJSON(nil)
		if err != nil {
			return nil, w, err
		}
		length += len(line)
	}
	if size, err = sqlite.ReadWritten(dir); err != nil {
		return nil, w, err
	}
	w = written{process: float64(size.Process-before.Process) / float64(n), medium: -1, entry: float64(length) / float64(n)}
	if before.Medium > 0 {
		w.medium = float64(size.Medium-before.Medium) / float64(n)
	}
	return out, w, nil
}

// resident is the most memory that this process had, in bytes (VmHWM, proc(5)).
func resident() uint64 {
	f, err := os.Open("/proc/self/status")
	if err != nil {
		return 0
	}
	defer f.Close()
	for sc := bufio.NewScanner(f); sc.Scan(); {
		var kb uint64
		if n, err := fmt.Sscanf(sc.Text(), "VmHWM: %d kB", &kb); n == 1 && err == nil {
			return kb << 10
		}
	}
	return 0
}
