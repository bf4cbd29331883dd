package community

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"testing"

	"gatehouse/edge"
	"gatehouse/sync/wire"
)

// backlog is a gate's journal of n entries as compressed batches of size.
func backlog(b *testing.B, d *device, n, size int) [][]byte {
	b.Helper()
	c, err := wire.NewCompressor(0)
	if err != nil {
		b.Fatal(err)
	}
	var tr tree
	var out [][]byte
	for first := 0; first < n; first += size {
		end := min(first+size, n)
		for i := first; i < end; i++ {
			d.add(line(i))
			tr.append(d.leaves[i])
		}
		h := edge.Head{Origin: edge.Origin(community, d.site, d.gate, d.epoch), Size: uint64(end), Root: tr.root()}
		if err := edge.SignHead(&h, d.key); err != nil {
			b.Fatal(err)
		}
		w := wire.Batch{Header: wire.Header{Site: d.site, Gate: d.gate, Epoch: d.epoch, First: uint64(first), Head: string(h.Note)}, Lines: d.lines[first:end]}
		for k := first / edge.BlockSize; k*edge.BlockSize < end; k++ {
			w.Keys = append(w.Keys, wire.HeaderKey{First: uint64(k * edge.BlockSize), Key: d.keys[k][:]})
		}
		plain, err := w.Encode(nil)
		if err != nil {
			b.Fatal(err)
		}
		out = append(out, c.Pack(nil, plain))
	}
	return out
}

// BenchmarkReceive drains a backlog (GATEHOUSE_BENCH_FULL=1: ten times larger) into a store, from compressed batches to
// committed rows, blocks, hashes and receipts. Beside it stand, in the same run:
// the same rows and blocks inserted bare, with nothing verified; and the work
// before the database alone.
func BenchmarkReceive(b *testing.B) {
	const size = 1000
	n := 100_000
	if os.Getenv("GATEHOUSE_BENCH_FULL") != "" {
		n = 1_000_000
	}
	d := newDevice("estate", "east", 7, 1)
	batches := backlog(b, d, n, size)
	bytes := 0
	for _, p := range batches {
		bytes += len(p)
	}
	c := newCluster(b, "shared_buffers=256MB", "max_wal_size=4GB")
	databases := 0
	stores := map[string]func(b *testing.B, i int) string{
		"sqlite": func(b *testing.B, i int) string { return filepath.Join(b.TempDir(), fmt.Sprint(i, ".db")) },
		"postgres": func(b *testing.B, _ int) string {
			databases++
			return c.newDatabase(b, fmt.Sprint("b", databases))
		},
	}
	rate := func(b *testing.B) {
		b.ReportMetric(float64(n)*float64(b.N)/b.Elapsed().Seconds(), "entries/s")
		b.ReportMetric(0, "ns/op")
	}
	for _, engine := range []string{"sqlite", "postgres"} {
		b.Run(engine+"/bare", func(b *testing.B) {
			for i := range b.N {
				b.StopTimer()
				s, _, stop := start(b, stores[engine](b, i))
				register(b, s, d, "")
				adds := bare(b, s, d, batches)
				b.StartTimer()
				for at := 0; at < len(adds); at += 4 {
					if err := s.store.add(context.Background(), 1, adds[at:min(at+4, len(adds))]); err != nil {
						b.Fatal(err)
					}
				}
				b.StopTimer()
				stop()
				b.StartTimer()
			}
			rate(b)
		})
		b.Run(engine+"/receive", func(b *testing.B) {
			for i := range b.N {
				b.StopTimer()
				s, bus, stop := start(b, stores[engine](b, i))
				register(b, s, d, "")
				b.StartTimer()
				go func() {
					for _, p := range batches {
						bus.deliver(d.topic(wire.Journal), p)
					}
				}()
				for d.receipt(b, bus).Size < uint64(n) {
				}
				b.StopTimer()
				stop()
				b.StartTimer()
			}
			rate(b)
		})
	}
	b.Run("prepare", func(b *testing.B) {
		s, _, _ := start(b, filepath.Join(b.TempDir(), "c.db"))
		register(b, s, d, "")
		b.ResetTimer()
		for range b.N {
			for _, p := range batches {
				if x, err := s.prepare(context.Background(), incoming{gateName{d.site, d.gate}, p}); err != nil || x.err != nil || x.signer != "" {
					b.Fatal(err, x.err, x.signer)
				}
			}
		}
		rate(b)
		b.ReportMetric(float64(bytes)/float64(n), "wire-B/entry")
	})
}

// bare makes the additions that a backlog comes to, without storing them.
func bare(b *testing.B, s *Server, d *device, batches [][]byte) []*addition {
	b.Helper()
	ctx := context.Background()
	g, err := s.gate(ctx, gateName{d.site, d.gate}, 0)
	if err != nil {
		b.Fatal(err)
	}
	l := &gateLog{gate: g, epoch: d.epoch, public: [32]byte(d.key.Public())}
	cur := *l
	var adds []*addition
	for _, payload := range batches {
		p, err := s.prepare(ctx, incoming{gateName{d.site, d.gate}, payload})
		if err != nil {
			b.Fatal(err)
		}
		next := cur
		next.tree = cur.tree.clone()
		for _, h := range p.leaves {
			next.tree.append(h)
		}
		next.head, next.receipt = []byte(p.batch.Head), []byte(p.batch.Head)
		adds = append(adds, &addition{log: l, before: cur.tree.size, first: p.batch.First, cols: p.cols, pieces: p.pieces, next: next})
		cur = next
	}
	return adds
}
