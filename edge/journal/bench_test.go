package journal

import (
	"context"
	"database/sql"
	"os"
	"path/filepath"
	"slices"
	"sync"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"gatehouse/edge"
	"gatehouse/edge/clock"
	"gatehouse/edge/sqlite"
)

// quantiles reports p50 and p99 of what f takes, and returns them.
func quantiles(b *testing.B, unit string, f func()) (p50, p99 time.Duration) {
	d := make([]time.Duration, 0, b.N)
	for b.Loop() {
		t := time.Now()
		f()
		d = append(d, time.Since(t))
	}
	slices.Sort(d)
	p50, p99 = d[len(d)/2], d[len(d)*99/100]
	b.ReportMetric(float64(p50.Microseconds()), unit+"-p50-us")
	b.ReportMetric(float64(p99.Microseconds()), unit+"-p99-us")
	return p50, p99
}

// BenchmarkCommit shows an entry with a counter made durable beside its floors
// in the same run: an fdatasync'd append of 4 KiB, and a bare one-row commit in
// a database of the same settings whose WAL has grown.
func BenchmarkCommit(b *testing.B) {
	ctx := context.Background()
	dir := b.TempDir()
	b.Run("floor/fdatasync4k", func(b *testing.B) {
		f, err := os.Create(filepath.Join(dir, "append"))
		if err != nil {
			b.Fatal(err)
		}
		defer f.Close()
		buf := make([]byte, 4096)
		quantiles(b, "sync", func() {
			if _, err := f.Write(buf); err != nil {
				b.Fatal(err)
			}
			if err := unix.Fdatasync(int(f.Fd())); err != nil {
				b.Fatal(err)
			}
		})
	})
	b.Run("floor/bare-row", func(b *testing.B) {
		db, err := sqlite.Open(ctx, filepath.Join(dir, "bare.db"), sqlite.Options{PageSize: pageSize, Full: true, Checkpoint: backstop,
			Migrations: []string{"CREATE TABLE t(a INTEGER PRIMARY KEY, b BLOB)"}})
		if err != nil {
			b.Fatal(err)
		}
		defer db.Close()
		row := make([]byte, 600)
		insert := func() {
			if err := db.Write(ctx, func(tx *sql.Tx) error { _, err := tx.Exec("INSERT INTO t(b) VALUES(?)", row); return err }); err != nil {
				b.Fatal(err)
			}
		}
		for range 1500 {
			insert()
		}
		quantiles(b, "bare", insert)
	})
	clk := clock.NewFake(epochStart, 480)
	j := open(b, filepath.Join(dir, "journal.db"), options(b, clk))
	n := 0
	one := func() {
		n++
		clk.Advance(time.Second)
		c := exits(n % 700)
		v, err := j.Cells(ctx, []edge.Cell{c})
		if err == nil {
			_, err = j.Append(ctx, decision(clk, n%2000, edge.Admit, add(c, 1)), []edge.Expected{{Cell: c, Version: v[0].Version}})
		}
		if err != nil {
			b.Fatal(err)
		}
	}
	for range 1500 {
		one()
	}
	var alone time.Duration // of one lane, for an entry
	b.Run("one-lane", func(b *testing.B) {
		quantiles(b, "commit", one)
		alone = b.Elapsed() / time.Duration(b.N)
	})
	b.Run("eight-lanes", func(b *testing.B) {
		var wg sync.WaitGroup
		before := j.commits.Load()
		each := max(1, b.N/8)
		b.ResetTimer()
		for lane := range 8 {
			wg.Go(func() {
				for i := range each {
					e := decision(clk, i%2000, edge.Admit, add(exits(lane*100+i%100), 1))
					if _, err := j.Append(ctx, e, nil); err != nil {
						b.Error(err)
						return
					}
				}
			})
		}
		wg.Wait()
		b.ReportMetric(float64(each*8)/float64(max(1, j.commits.Load()-before)), "entries/commit")
		b.ReportMetric(float64(alone)*float64(each*8)/float64(b.Elapsed()), "x-one-lane")
	})
}
