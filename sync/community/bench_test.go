package community

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"testing"
	"time"

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

// BenchmarkReceive drains a backlog (GATEHOUSE_BENCH_FULL=1: ten times larger) into a
// store, from compressed batches to committed rows, blocks, hashes and receipts, and
// says how that compares with its floor: the same rows and blocks inserted bare, in
// transactions of the same size, with nothing decoded, verified or answered. The two
// take turns, each in an empty store, and the middle of their ratios is the figure:
// what else the machine does falls on both.
func BenchmarkReceive(b *testing.B) {
	const size, turns = 1000, 5
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
	c := newCluster(b, "shared_buffers=256MB", "max_wal_size=4GB", "checkpoint_timeout=1h")
	stores := 0
	open := map[string]func(b *testing.B) string{
		"sqlite": func(b *testing.B) string { return filepath.Join(b.TempDir(), "c.db") },
		"postgres": func(b *testing.B) string {
			stores++
			return c.newDatabase(b, fmt.Sprint("b", stores))
		},
	}
	insert := func(b *testing.B, where string) time.Duration {
		s, _, stop := start(b, where)
		defer stop()
		register(b, s, d, "")
		adds := bare(b, s, d, batches)
		if err := s.store.bulk.prepare(context.Background(), s.store.w, adds); err != nil {
			b.Fatal(err)
		}
		runtime.GC()
		at := time.Now()
		for i := 0; i < len(adds); i += groupSize / size {
			if err := s.store.add(context.Background(), 1, adds[i:min(i+groupSize/size, len(adds))]); err != nil {
				b.Fatal(err)
			}
		}
		return time.Since(at)
	}
	receive := func(b *testing.B, where string) time.Duration {
		s, bus, stop := start(b, where)
		defer stop()
		register(b, s, d, "")
		runtime.GC()
		at := time.Now()
		go func() {
			for _, p := range batches {
				bus.deliver(d.topic(wire.Journal), p)
			}
		}()
		for d.receipt(b, bus).Size < uint64(n) {
		}
		return time.Since(at)
	}
	for _, engine := range []string{"sqlite", "postgres"} {
		b.Run(engine, func(b *testing.B) {
			var floors, ours, ratios []float64
			for range b.N {
				for i := range turns {
					var x, y time.Duration
					if i%2 == 0 { // neither has always the warmer machine
						x, y = insert(b, open[engine](b)), receive(b, open[engine](b))
					} else {
						y, x = receive(b, open[engine](b)), insert(b, open[engine](b))
					}
					floors, ours = append(floors, float64(n)/x.Seconds()), append(ours, float64(n)/y.Seconds())
					ratios = append(ratios, x.Seconds()/y.Seconds())
				}
			}
			for _, l := range [][]float64{floors, ours, ratios} {
				slices.Sort(l)
			}
			b.ReportMetric(floors[len(floors)/2], "bare-entries/s")
			b.ReportMetric(ours[len(ours)/2], "entries/s")
			b.ReportMetric(ratios[len(ratios)/2], "of-bare")
			b.ReportMetric(ratios[0], "of-bare-least")
			b.ReportMetric(0, "ns/op")
		})
	}
	rate := func(b *testing.B) {
		b.ReportMetric(float64(n)*float64(b.N)/b.Elapsed().Seconds(), "entries/s")
		b.ReportMetric(0, "ns/op")
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
