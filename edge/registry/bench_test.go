package registry

import (
	"bytes"
	"database/sql"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"testing"

	"gatehouse/edge"
	"gatehouse/edge/sqlite"
)

// sizes of rosters; the largest only where somebody asks for it, it takes a minute.
func sizes() []int {
	if os.Getenv("GATEHOUSE_BENCH_MILLION") != "" {
		return []int{1_000, 100_000, 1_000_000}
	}
	return []int{1_000, 100_000}
}

func filled(b *testing.B, n int) string {
	b.Helper()
	path := filepath.Join(b.TempDir(), "registry.db")
	r := open(b, path, Options{})
	load(b, r, many(n))
	r.Close()
	return path
}

// BenchmarkLookup shows a look-up by card beside its floor: one row by its
// 32-byte key from a bare table of the same size.
func BenchmarkLookup(b *testing.B) {
	for _, n := range sizes() {
		r := open(b, filled(b, n), Options{})
		cards := make([]edge.Credential, 1<<12)
		for i := range cards {
			cards[i] = em((i*7919)%n + 1)
		}
		b.Run(fmt.Sprintf("passes=%d", n), func(b *testing.B) {
			for i := 0; b.Loop(); i++ {
				if _, ok, err := r.Lookup(b.Context(), cards[i%len(cards)]); err != nil || !ok {
					b.Fatal(ok, err)
				}
			}
		})
		b.Run(fmt.Sprintf("passes=%d/unknown", n), func(b *testing.B) {
			for i := 0; b.Loop(); i++ {
				if _, ok, err := r.Lookup(b.Context(), em(n+1+i)); err != nil || ok {
					b.Fatal(ok, err)
				}
			}
		})
		bare, err := sqlite.Open(b.Context(), r.db.Path(), sqlite.Options{Migrations: schema})
		if err != nil {
			b.Fatal(err)
		}
		stmt, err := bare.R.Prepare(`SELECT pass FROM credentials WHERE hash = ?`)
		if err != nil {
			b.Fatal(err)
		}
		b.Run(fmt.Sprintf("passes=%d/floor", n), func(b *testing.B) {
			for i := 0; b.Loop(); i++ {
				h := key1.Hash(cards[i%len(cards)])
				var pass sql.NullInt64
				if err := stmt.QueryRow(h[:]).Scan(&pass); err != nil {
					b.Fatal(err)
				}
			}
		})
		stmt.Close()
		bare.Close()
	}
}

// BenchmarkOpen shows that a start does not grow with the roster: opening and
// the first look-up.
func BenchmarkOpen(b *testing.B) {
	for _, n := range sizes() {
		path := filled(b, n)
		b.Run(fmt.Sprintf("passes=%d", n), func(b *testing.B) {
			for b.Loop() {
				r, err := Open(b.Context(), path, Options{Keys: []edge.CredentialKey{key1}})
				if err != nil {
					b.Fatal(err)
				}
				if _, ok, err := r.Lookup(b.Context(), em(n/2)); err != nil || !ok {
					b.Fatal(ok, err)
				}
				r.Close()
			}
		})
	}
}

// BenchmarkImport is a first import; rss is the process's greatest resident
// set, which stays when the roster grows.
func BenchmarkImport(b *testing.B) {
	for _, n := range sizes() {
		b.Run(fmt.Sprintf("passes=%d", n), func(b *testing.B) {
			for b.Loop() {
				r := open(b, filepath.Join(b.TempDir(), "registry.db"), Options{})
				load(b, r, many(n))
				r.Close()
			}
			b.ReportMetric(float64(n)*float64(b.N)/b.Elapsed().Seconds(), "passes/s")
			b.ReportMetric(peak(b), "rss-MB")
		})
	}
}

// BenchmarkReimport is the next day's roster, in which one pass in a thousand differs.
func BenchmarkReimport(b *testing.B) {
	for _, n := range sizes() {
		r := open(b, filled(b, n), Options{})
		b.Run(fmt.Sprintf("passes=%d", n), func(b *testing.B) {
			day := 0
			for b.Loop() {
				day++
				load(b, r, many(n, func(r *edge.RosterRow) {
					if r.Pass.ID%1000 == 0 {
						r.Pass.Category = "day" + strconv.Itoa(day)
					}
				}))
			}
			b.ReportMetric(float64(n)*float64(b.N)/b.Elapsed().Seconds(), "passes/s")
		})
	}
}

func peak(b *testing.B) float64 {
	status, err := os.ReadFile("/proc/self/status")
	if err != nil {
		b.Fatal(err)
	}
	_, rest, _ := bytes.Cut(status, []byte("VmHWM:"))
	var kb float64
	if _, err := fmt.Sscan(string(rest), &kb); err != nil {
		b.Fatal(err)
	}
	return kb / 1024
}
