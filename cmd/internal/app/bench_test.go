package app

import (
	"context"
	"database/sql"
	"log/slog"
	"math/rand/v2"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"sync"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"gatehouse/cmd/internal/estate"
	"gatehouse/device"
	"gatehouse/edge"
	"gatehouse/edge/journal"
	"gatehouse/edge/lane"
	"gatehouse/edge/policy"
	"gatehouse/edge/registry"
	"gatehouse/edge/sqlite"
	firmwareconfig "gatehouse/firmware-config"
)

// hand is a scanner and a barrier without any hardware between.
type hand struct {
	cards chan device.CardRead
	moved chan struct{}
}

func (h *hand) Health() device.Health { return device.Health{State: device.StateOK} }
func (h *hand) Close() error          { return nil }
func (h *hand) Read(ctx context.Context) (device.CardRead, error) {
	select {
	case c := <-h.cards:
		return c, nil
	case <-ctx.Done():
		return device.CardRead{}, ctx.Err()
	}
}
func (h *hand) Admit(context.Context, device.Direction) error { return nil }
func (h *hand) Secure(context.Context) error                  { return nil }
func (h *hand) Free(context.Context, bool) error              { return nil }

type benchClock struct{}

// Now is about noon in the clock's zone: the policy has a curfew.
func (benchClock) Now() edge.Stamp {
	now := time.Now()
	return edge.Stamp{Time: now.UnixMilli(), Offset: 12*60 - now.UTC().Hour()*60, Boot: "be4c4be4", Mono: now.UnixMilli(), Clock: edge.ClockSynced}
}

// BenchmarkCardToBarrier measures from the last byte of a card to the command
// of the barrier, with look-up, policy (closed estate, its quota counter in) and
// durable commit, over a roster of 100,000 passes, or of 1,000,000 when
// GATEHOUSE_BENCH_MILLION is set. Its floors come from the same run: an
// fdatasync'd append of 4 KiB, and a bare one-row commit with the WAL grown.
// own-share is what is left of p50 and p99 less those of the bare commit.
func BenchmarkCardToBarrier(b *testing.B) {
	passes := 100_000
	if os.Getenv("GATEHOUSE_BENCH_MILLION") != "" {
		passes = 1_000_000
	}
	ctx, cancel := context.WithCancel(b.Context())
	defer cancel()
	dir := b.TempDir()
	key := edge.CredentialKey{Version: 1, Key: [32]byte{1}}
	reg, err := registry.Open(ctx, filepath.Join(dir, "registry.db"), registry.Options{Keys: []edge.CredentialKey{key}, Forms: []string{"em"}})
	if err != nil {
		b.Fatal(err)
	}
	defer reg.Close()
	est := estate.New(1, estate.Options{Residents: passes, Households: passes / 3, Now: time.Now()})
	if _, err := reg.Import(ctx, func(yield func(edge.RosterRow, error) bool) {
		for _, p := range est.People {
			if !yield(p.Row, nil) {
				return
			}
		}
	}, registry.ImportOptions{}); err != nil {
		b.Fatal(err)
	}
	j, err := journal.Open(ctx, filepath.Join(dir, "journal.db"), journal.Options{Community: "c", Site: "s", Gate: "g", Clock: benchClock{}})
	if err != nil {
		b.Fatal(err)
	}
	defer j.Close()
	src, err := firmwareconfig.Samples.ReadFile("policies/closed-estate.yaml")
	if err != nil {
		b.Fatal(err)
	}
	pol, err := policy.Load("closed-estate.yaml", src)
	if err != nil {
		b.Fatal(err)
	}
	var mu sync.Mutex
	var own, commit []time.Duration
	h := &hand{cards: make(chan device.CardRead), moved: make(chan struct{}, 1)}
	deps := lane.Deps{Registry: reg, Journal: j, Policy: func() *policy.Policy { return pol }, Clock: benchClock{}, CardHash: func(edge.Credential) string { return "" },
		IDs: lane.NewIDs(0), Log: slog.New(slog.DiscardHandler), Timings: func(t lane.Timing) {
			if t.Passed > 0 {
				return
			}
			mu.Lock()
			own, commit = append(own, t.Own), append(commit, t.Commit)
			mu.Unlock()
			h.moved <- struct{}{}
		}}
	ps := lane.NewPassage(lane.PassageConfig{Name: "p", OpenFor: time.Microsecond, HeldOpen: time.Hour}, lane.PassageDevices{Barrier: h}, lane.NewFire(deps), deps)
	ln := lane.New(lane.Config{Name: "l", Direction: edge.Out, Level: edge.LevelEstate, Area: "main", Present: time.Minute, Measure: time.Minute, Refer: time.Minute, Parked: time.Minute,
		Held: time.Nanosecond, Queue: 8}, lane.Devices{Scanners: []device.Scanner{h}, Thermometer: warm{}}, ps, deps)
	var wg sync.WaitGroup
	wg.Go(func() { _ = ps.Run(ctx) })
	wg.Go(func() { _ = ln.Run(ctx) })
	wg.Go(func() { _ = j.Run(ctx) })
	defer func() { cancel(); wg.Wait() }()
	// Each household once: nobody is denied for the quota.
	rng := rand.New(rand.NewPCG(1, 1))
	order := rng.Perm(len(est.Households))
	n := 0
	one := func() {
		var r device.CardRead
		for {
			p := est.Households[order[n%len(order)]].People
			n++
			if len(p) == 0 {
				continue
			}
			if c := p[0].Row.Pass.Category; c != "resident" && c != "visitor" {
				continue
			}
			r.Format = device.FormatEM4100
			r.Raw.Len = 40
			copy(r.Raw.B[:], p[0].Card[:])
			break
		}
		size := j.Size()
		r.At = time.Now()
		h.cards <- r
		<-h.moved
		// The next card comes when this one's passage is on record too: one
		// person's wait must not be another's commit.
		if err := j.Wait(ctx, size+1); err != nil {
			b.Fatal(err)
		}
		for ln.View().State != edge.LaneIdle {
			runtime.Gosched()
		}
	}
	for range 1500 { // the WAL is grown by then
		one()
	}
	own, commit = nil, nil
	for b.Loop() {
		one()
	}
	mu.Lock()
	defer mu.Unlock()
	q := func(d []time.Duration, p int) float64 {
		slices.Sort(d)
		return float64(d[len(d)*p/100].Microseconds())
	}
	syncs, bare := floors(b, dir, len(own))
	for _, p := range []int{50, 99} {
		unit := map[int]string{50: "p50-us", 99: "p99-us"}[p]
		b.ReportMetric(q(syncs, p), "fdatasync4k-"+unit)
		b.ReportMetric(q(bare, p), "bare-commit-"+unit)
		b.ReportMetric(q(commit, p), "decide-and-commit-"+unit)
		b.ReportMetric(q(own, p), "card-to-barrier-"+unit)
		b.ReportMetric(q(own, p)-q(bare, p), "own-share-"+unit)
	}
	b.ReportMetric(0, "ns/op")
}

// warm is a thermometer that answers at once.
type warm struct{}

func (warm) Health() device.Health { return device.Health{State: device.StateOK} }
func (warm) Close() error          { return nil }
func (warm) Measure(context.Context, device.Measurement) (device.Temperature, error) {
	return device.Temperature{Quality: device.QualityOK, Value: 36.4, Uncertainty: 0.4, Profile: "skin/1"}, nil
}

func floors(b *testing.B, dir string, n int) (syncs, bare []time.Duration) {
	f, err := os.Create(filepath.Join(dir, "append"))
	if err != nil {
		b.Fatal(err)
	}
	defer f.Close()
	buf := make([]byte, 4096)
	for range n {
		t := time.Now()
		if _, err := f.Write(buf); err != nil {
			b.Fatal(err)
		}
		if err := unix.Fdatasync(int(f.Fd())); err != nil {
			b.Fatal(err)
		}
		syncs = append(syncs, time.Since(t))
	}
	db, err := sqlite.Open(b.Context(), filepath.Join(dir, "bare.db"), sqlite.Options{PageSize: 1024, Full: true, Checkpoint: 8000, Migrations: []string{"CREATE TABLE t(a INTEGER PRIMARY KEY, b BLOB)"}})
	if err != nil {
		b.Fatal(err)
	}
	defer db.Close()
	row := make([]byte, 700)
	for i := range n + 1500 {
		t := time.Now()
		if err := db.Write(b.Context(), func(tx *sql.Tx) error { _, err := tx.Exec("INSERT INTO t(b) VALUES(?)", row); return err }); err != nil {
			b.Fatal(err)
		}
		if i >= 1500 {
			bare = append(bare, time.Since(t))
		}
	}
	return syncs, bare
}
