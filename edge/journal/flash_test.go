package journal

import (
	"context"
	"database/sql"
	"fmt"
	"math/rand/v2"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"gatehouse/edge"
	"gatehouse/edge/clock"
	"gatehouse/edge/sqlite"
)

// typical is a decision of about 700 bytes with a counter and a position, as a
// lane makes them.
func typical(clk edge.Clock, i int) *edge.Entry {
	e := decision(clk, i%2000, edge.Admit, add(exits(i%700), 1),
		edge.Delta{Cell: edge.Cell{Name: edge.CellPosition, Subject: fmt.Sprintf("p%d", i%2000)}, Op: edge.OpSet, Value: edge.PositionOutside})
	e.Authority = strings.Repeat("of the city ", 20)
	return e
}

// BenchmarkFlash shows the bytes that reach the medium for each entry, with all that
// belongs to it (counters, tree, checkpoints), beside what a plain use of SQLite
// takes for the same line in the same run: the default page size and checkpoints,
// with and without an index on a random key.
func BenchmarkFlash(b *testing.B) {
	ctx := context.Background()
	measure := func(b *testing.B, dir string, entries int, f func()) {
		b.Helper()
		before, err := sqlite.ReadWritten(dir)
		if err != nil {
			b.Fatal(err)
		}
		f()
		after, err := sqlite.ReadWritten(dir)
		if err != nil {
			b.Fatal(err)
		}
		b.ReportMetric(float64(after.Process-before.Process)/float64(entries), "B/entry")
		if after.Medium > 0 {
			b.ReportMetric(float64(after.Medium-before.Medium)/float64(entries), "medium-B/entry")
		}
		b.ReportMetric(0, "ns/op")
	}
	const warm, n = 2000, 2000
	clk := clock.NewFake(epochStart, 480)
	line, err := typical(clk, 1).AppendJSON(nil)
	if err != nil {
		b.Fatal(err)
	}
	for _, x := range []struct{ name, schema string }{
		{"floor/naive", "CREATE TABLE t(id INTEGER PRIMARY KEY, line BLOB)"},
		{"floor/naive-random-index", "CREATE TABLE t(id INTEGER PRIMARY KEY, line BLOB, k TEXT); CREATE INDEX i ON t(k)"},
	} {
		b.Run(x.name, func(b *testing.B) {
			dir := b.TempDir()
			db, err := sql.Open("sqlite", filepath.Join(dir, "naive.db")+"?_pragma=journal_mode(WAL)&_pragma=synchronous(FULL)")
			if err != nil {
				b.Fatal(err)
			}
			defer db.Close()
			db.SetMaxOpenConns(1)
			if _, err := db.Exec(x.schema); err != nil {
				b.Fatal(err)
			}
			one := func() {
				q, args := "INSERT INTO t(line) VALUES(?)", []any{line}
				if strings.Contains(x.schema, "INDEX") {
					q, args = "INSERT INTO t(line, k) VALUES(?, ?)", []any{line, fmt.Sprintf("%016x%016x", rand.Uint64(), rand.Uint64())}
				}
				if _, err := db.Exec(q, args...); err != nil {
					b.Fatal(err)
				}
			}
			for range warm {
				one()
			}
			measure(b, dir, n, func() {
				for range n {
					one()
				}
			})
		})
	}
	for _, x := range []struct {
		name string
		each int
	}{{"one-a-commit", 1}, {"ten-a-commit", 10}} {
		b.Run(x.name, func(b *testing.B) {
			dir := b.TempDir()
			j := open(b, filepath.Join(dir, "journal.db"), options(b, clk))
			i := 0
			commit := func() {
				var batch []*request
				for range x.each {
					i++
					clk.Advance(10 * time.Second)
					e := typical(clk, i)
					line, err := e.AppendJSON(nil)
					if err != nil {
						b.Fatal(err)
					}
					batch = append(batch, &request{lines: [][]byte{pack(line)}, deltas: e.Deltas, at: e.Stamp.Time})
				}
				j.write.Lock()
				err := j.commit(ctx, batch, nil)
				j.write.Unlock()
				// What Run does beside it at this pace.
				if err == nil {
					err = j.settle(ctx, i%60 == 0) // an entry each 10 s
				}
				if err != nil {
					b.Fatal(err)
				}
			}
			for range warm / x.each {
				commit()
			}
			measure(b, dir, n, func() {
				for range n / x.each {
					commit()
				}
			})
		})
	}
}
