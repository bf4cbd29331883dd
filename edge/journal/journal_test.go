package journal

import (
	"context"
	"crypto/ed25519"
	"crypto/rand"
	"errors"
	"fmt"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"golang.org/x/mod/sumdb/tlog"
	"pgregory.net/rapid"

	"gatehouse/edge"
	"gatehouse/edge/clock"
)

var epochStart = time.Date(2026, 3, 1, 0, 0, 0, 0, time.UTC)

func options(t testing.TB, clk edge.Clock) Options {
	return Options{Community: "c", Site: "s", Gate: "g", Clock: clk, Signer: signer{ed25519.NewKeyFromSeed(make([]byte, ed25519.SeedSize))}}
}

type signer struct{ key ed25519.PrivateKey }

func (s signer) Name() string                    { return "c/s/g" }
func (s signer) Public() []byte                  { return s.key.Public().(ed25519.PublicKey) }
func (s signer) Sign(msg []byte) ([]byte, error) { return ed25519.Sign(s.key, msg), nil }

func open(t testing.TB, path string, o Options) *Journal {
	t.Helper()
	j, err := Open(context.Background(), path, o)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { j.Close() })
	return j
}

func decision(clk edge.Clock, pass int, outcome edge.Outcome, deltas ...edge.Delta) *edge.Entry {
	return &edge.Entry{Kind: edge.KindDecision, Lane: "in", Presentation: uint64(pass), Of: -1, Stamp: clk.Now(), Outcome: outcome,
		Rule: "resident", Reason: "ok", Facts: &edge.Facts{Pass: &edge.PassFacts{ID: edge.PassID(pass), Category: "resident", Status: edge.PassActive}}, Deltas: deltas}
}

func exits(h int) edge.Cell {
	return edge.Cell{Name: "exits", Subject: fmt.Sprintf("h%d", h), Bucket: 20601}
}

func add(c edge.Cell, n int64) edge.Delta { return edge.Delta{Cell: c, Op: edge.OpAdd, Value: n} }

func TestAppendSurvivesReopening(t *testing.T) {
	ctx := context.Background()
	clk := clock.NewFake(epochStart, 480)
	o := options(t, clk)
	path := filepath.Join(t.TempDir(), "journal.db")
	j := open(t, path, o)
	if j.Size() != 1 {
		t.Fatalf("a new journal has %d entries, want its epoch entry", j.Size())
	}
	for i := range 600 {
		seq, err := j.Append(ctx, decision(clk, i+1, edge.Admit, add(exits(7), 1)), nil)
		if err != nil || seq != uint64(i+1) {
			t.Fatalf("append %d: sequence %d, %v", i, seq, err)
		}
	}
	head, err := j.Head(ctx)
	if err != nil {
		t.Fatal(err)
	}
	if err := j.Acknowledge(ctx, j.Epoch(), 300, []byte("receipt")); err != nil {
		t.Fatal(err)
	}
	epoch := j.Epoch()
	if err := j.Close(); err != nil {
		t.Fatal(err)
	}
	if _, err := j.Append(ctx, decision(clk, 1, edge.Admit), nil); err == nil {
		t.Error("a closed journal took an entry")
	}
	j = open(t, path, o)
	if j.Size() != 601 || j.Acked() != 300 || j.Epoch() != epoch {
		t.Errorf("reopened: size %d, acked %d, epoch %s", j.Size(), j.Acked(), j.Epoch())
	}
	again, err := j.Head(ctx)
	if err != nil || again.Root != head.Root {
		t.Errorf("the head changed: %v", err)
	}
	v, err := edge.HeadVerifier("c/s/g", o.Signer.Public())
	if err != nil {
		t.Fatal(err)
	}
	got, _, err := edge.OpenHead(again.Note, v)
	if err != nil || got.Size != 601 || !strings.HasPrefix(got.Origin, "c/s/g/") {
		t.Errorf("signed head %+v, %v", got, err)
	}
	vals, err := j.Cells(ctx, []edge.Cell{exits(7), exits(8)})
	if err != nil || vals[0].Local != 600 || vals[0].Version != 600 || vals[1] != (edge.CellValue{}) {
		t.Errorf("cells %+v, %v", vals, err)
	}
	other := o
	other.Gate = "h"
	j.Close()
	if _, err := Open(ctx, path, other); err == nil || !strings.Contains(err.Error(), "journal of c/s/g") {
		t.Errorf("another gate's journal was opened: %v", err)
	}
}

// Whose caller has gone is committed, or fails, as a whole: the next one finds no
// transaction under way and its sequence free.
func TestCommitOutlivesItsCaller(t *testing.T) {
	clk := clock.NewFake(epochStart, 480)
	j := open(t, filepath.Join(t.TempDir(), "journal.db"), options(t, clk))
	line, err := decision(clk, 1, edge.Deny).AppendJSON(nil)
	if err != nil {
		t.Fatal(err)
	}
	gone, cancel := context.WithCancel(t.Context())
	// The caller goes in the middle of its transaction, where an entry's block is begun.
	j.o.Rand = readerFunc(func(b []byte) (int, error) {
		cancel()
		return rand.Read(b)
	})
	lines := make([][]byte, edge.BlockSize)
	for i := range lines {
		lines[i] = pack(line)
	}
	before := j.Size()
	if err := j.appendRescued(gone, lines, "mark", 1, nil); err != nil {
		t.Errorf("what was begun was not brought to its end: %v", err)
	}
	if gone.Err() == nil {
		t.Fatal("the caller did not go")
	}
	seq, err := j.Append(t.Context(), decision(clk, 2, edge.Deny), nil)
	if err != nil || seq != before+edge.BlockSize {
		t.Errorf("the next entry has %d, %v", seq, err)
	}
}

type readerFunc func([]byte) (int, error)

func (f readerFunc) Read(b []byte) (int, error) { return f(b) }

func TestStaleWritesNothing(t *testing.T) {
	ctx := context.Background()
	clk := clock.NewFake(epochStart, 480)
	j := open(t, filepath.Join(t.TempDir(), "j.db"), options(t, clk))
	before := []edge.Expected{{Cell: exits(1), Version: 0}}
	if _, err := j.Append(ctx, decision(clk, 1, edge.Admit, add(exits(1), 1)), before); err != nil {
		t.Fatal(err)
	}
	if _, err := j.Append(ctx, decision(clk, 2, edge.Admit, add(exits(1), 1)), before); !errors.Is(err, edge.ErrStale) {
		t.Errorf("error %v, want ErrStale", err)
	}
	if j.Size() != 2 {
		t.Errorf("size %d", j.Size())
	}
	if err := j.ApplyPeer(ctx, []edge.PeerDelta{{Gate: "west", Epoch: 9, Seq: 5, Deltas: []edge.Delta{add(exits(1), 1)}}}); err != nil {
		t.Fatal(err)
	}
	if _, err := j.Append(ctx, decision(clk, 2, edge.Admit, add(exits(1), 1)), []edge.Expected{{Cell: exits(1), Version: 1}}); !errors.Is(err, edge.ErrStale) {
		t.Errorf("a peer's change went unnoticed: %v", err)
	}
}

// Lanes that decide about one household at once: every admission sees all
// earlier ones, so no more are admitted than the quota.
func TestConcurrentLanesKeepTheQuota(t *testing.T) {
	ctx := context.Background()
	clk := clock.NewFake(epochStart, 480)
	j := open(t, filepath.Join(t.TempDir(), "j.db"), options(t, clk))
	const quota, lanes, tries = 5, 8, 20
	var wg sync.WaitGroup
	var mu sync.Mutex
	admitted := 0
	for range lanes {
		wg.Go(func() {
			for range tries {
				for {
					v, err := j.Cells(ctx, []edge.Cell{exits(1)})
					if err != nil {
						t.Error(err)
						return
					}
					e := decision(clk, 1, edge.Deny)
					if v[0].Local < quota {
						e = decision(clk, 1, edge.Admit, add(exits(1), 1))
					}
					_, err = j.Append(ctx, e, []edge.Expected{{Cell: exits(1), Version: v[0].Version}})
					if errors.Is(err, edge.ErrStale) {
						continue
					}
					if err != nil {
						t.Error(err)
						return
					}
					if e.Outcome == edge.Admit {
						mu.Lock()
						admitted++
						mu.Unlock()
					}
					break
				}
			}
		})
	}
	wg.Wait()
	if admitted != quota || j.Size() != 1+lanes*tries {
		t.Errorf("admitted %d of a quota of %d; %d entries", admitted, quota, j.Size())
	}
}

func TestPeersOnce(t *testing.T) {
	ctx := context.Background()
	clk := clock.NewFake(epochStart, 480)
	j := open(t, filepath.Join(t.TempDir(), "j.db"), options(t, clk))
	pos := edge.Cell{Name: edge.CellPosition, Subject: "p1"}
	a := edge.PeerDelta{Gate: "west", Epoch: 1, Seq: 3, Time: 100, Deltas: []edge.Delta{add(exits(1), 2), {Cell: pos, Op: edge.OpSet, Value: edge.PositionInside}}}
	b := edge.PeerDelta{Gate: "west", Epoch: 1, Seq: 4, Time: 90, Deltas: []edge.Delta{{Cell: pos, Op: edge.OpSet, Value: edge.PositionOutside}}}
	for range 3 {
		if err := j.ApplyPeer(ctx, []edge.PeerDelta{a, b}); err != nil {
			t.Fatal(err)
		}
	}
	v, err := j.Cells(ctx, []edge.Cell{exits(1), pos})
	if err != nil || v[0].Peers != 2 || v[0].Local != 0 || v[1].Peers != edge.PositionInside || v[1].PeersAt != 100 {
		t.Errorf("cells %+v, %v", v, err)
	}
}

func TestDangling(t *testing.T) {
	ctx := context.Background()
	clk := clock.NewFake(epochStart, 480)
	j := open(t, filepath.Join(t.TempDir(), "j.db"), options(t, clk))
	app := func(e *edge.Entry) uint64 {
		seq, err := j.Append(ctx, e, nil)
		if err != nil {
			t.Fatal(err)
		}
		return seq
	}
	app(decision(clk, 1, edge.Admit)) // of an earlier run: not ours to end
	app(&edge.Entry{Kind: edge.KindStart, Of: -1, Stamp: clk.Now()})
	passed := app(decision(clk, 2, edge.Admit))
	app(&edge.Entry{Kind: edge.KindPassage, Of: int64(passed), Result: edge.ResultPassed, Stamp: clk.Now()})
	app(decision(clk, 3, edge.Deny))
	open := app(decision(clk, 4, edge.Admit))
	hurt := app(decision(clk, 5, edge.Deny))
	last := app(decision(clk, 6, edge.Admit))
	// SQLite does not notice: its pages have no checksums.
	if _, err := j.conn.ExecContext(ctx, "UPDATE entry SET line=? WHERE seq=?", flipped(t, j, hurt), int64(hurt)); err != nil {
		t.Fatal(err)
	}
	got, damaged, err := j.Dangling(ctx)
	if err != nil || len(got) != 2 || got[0].Seq != open || got[1].Seq != last || !slices.Equal(damaged, []uint64{hurt}) {
		t.Errorf("dangling %v, damaged %v, %v; want entries %d and %d, damaged %d", got, damaged, err, open, last, hurt)
	}
}

// flipped is an entry's line with one bit turned so that it cannot be read.
func flipped(t *testing.T, j *Journal, seq uint64) []byte {
	t.Helper()
	var kept []byte
	if err := j.conn.QueryRowContext(t.Context(), "SELECT line FROM entry WHERE seq=?", int64(seq)).Scan(&kept); err != nil {
		t.Fatal(err)
	}
	for i := range kept {
		kept[i] ^= 0x10
		if line, err := unpack(kept); err != nil {
			return kept
		} else if _, err := edge.DecodeEntry(line); err != nil {
			return kept
		}
		kept[i] ^= 0x10
	}
	t.Fatal("every bit may turn")
	return nil
}

// Whoever holds the writer's lock and does not come back is noticed: appends wait.
func TestStuckWriterIsNotAlive(t *testing.T) {
	clk := clock.NewFake(epochStart, 480)
	j := open(t, filepath.Join(t.TempDir(), "j.db"), options(t, clk))
	if err := j.Alive(0); err != nil {
		t.Errorf("idle: %v", err)
	}
	j.write.Lock() // as a purge that hangs
	done := make(chan error, 1)
	go func() {
		_, err := j.Append(context.Background(), decision(clk, 1, edge.Admit), nil)
		done <- err
	}()
	for deadline := time.After(30 * time.Second); j.Alive(0) == nil; {
		select {
		case <-deadline:
			j.write.Unlock()
			t.Fatal("an append waits, and nothing is said")
		case err := <-done:
			t.Fatalf("appended past the lock: %v", err)
		default:
			runtime.Gosched()
		}
	}
	if err := j.Alive(time.Hour); err != nil {
		t.Errorf("too early: %v", err)
	}
	j.write.Unlock()
	if err := <-done; err != nil {
		t.Error(err)
	}
	if err := j.Alive(0); err != nil {
		t.Errorf("afterwards: %v", err)
	}
}

// After a purge every proof still verifies, and the true entry, guessed, cannot
// be confirmed: neither the block's key nor its blind is left.
func TestPurgeDestroysContentAndKeepsProofs(t *testing.T) {
	ctx := context.Background()
	clk := clock.NewFake(epochStart, 480)
	path := filepath.Join(t.TempDir(), "j.db")
	o := options(t, clk)
	j := open(t, path, o)
	for i := range 700 {
		clk.Advance(time.Minute)
		if _, err := j.Append(ctx, decision(clk, i+1, edge.Admit), nil); err != nil {
			t.Fatal(err)
		}
	}
	before, err := j.Head(ctx)
	if err != nil {
		t.Fatal(err)
	}
	if err := j.Acknowledge(ctx, j.Epoch(), 500, nil); err != nil {
		t.Fatal(err)
	}
	// Everything is old, but only what the server has may go.
	n, err := j.Purge(ctx, epochStart.Add(100*time.Hour))
	if err != nil || n != 500 {
		t.Fatalf("purged %d, %v; want 500", n, err)
	}
	if _, err := j.Get(ctx, 499); !errors.Is(err, edge.ErrPurged) {
		t.Errorf("entry 499: %v", err)
	}
	keys, err := j.BlockKeys(ctx, 0, 701)
	if err != nil {
		t.Fatal(err)
	}
	for _, k := range keys {
		if k.First < 500 {
			t.Errorf("the key of block %d is still there", k.First)
		}
	}
	check := func(j *Journal) {
		t.Helper()
		again, err := j.HeadAt(ctx, 701)
		if err != nil || again.Root != before.Root {
			t.Errorf("the head over the same entries changed: %v", err)
		}
		for _, seq := range []uint64{500, 511, 512, 700} {
			p, blind, line, err := j.Proof(ctx, seq, 701)
			if err != nil {
				t.Fatal(err)
			}
			leaf := edge.LeafData(blind, line)
			if err := tlog.CheckRecord(p, 701, tlog.Hash(before.Root), int64(seq), tlog.RecordHash(leaf[:])); err != nil {
				t.Errorf("proof of %d: %v", seq, err)
			}
		}
	}
	check(j)
	j.Close()
	j = open(t, path, o)
	check(j)
	for range 300 {
		if _, err := j.Append(ctx, decision(clk, 1, edge.Admit), nil); err != nil {
			t.Fatal(err)
		}
	}
	if _, err := j.Head(ctx); err != nil {
		t.Error(err)
	}
}

// However entries are appended, acknowledged and reopened, sequences have no
// gap, the cells are what the entries imply, and old heads are extended by new.
func TestProperties(t *testing.T) {
	ctx := context.Background()
	rapid.Check(t, func(rt *rapid.T) {
		dir := t.TempDir()
		clk := clock.NewFake(epochStart, 480)
		o := options(t, clk)
		j, err := Open(ctx, filepath.Join(dir, "j.db"), o)
		if err != nil {
			rt.Fatal(err)
		}
		defer func() { j.Close() }()
		model := map[edge.Cell]int64{}
		old, err := j.Head(ctx)
		if err != nil {
			rt.Fatal(err)
		}
		for range rapid.IntRange(1, 40).Draw(rt, "steps") {
			switch rapid.IntRange(0, 5).Draw(rt, "what") {
			case 0:
				if err := j.Acknowledge(ctx, j.Epoch(), rapid.Uint64Range(0, j.Size()).Draw(rt, "acked"), nil); err != nil {
					rt.Fatal(err)
				}
			case 1:
				size, acked := j.Size(), j.Acked()
				if err := j.Close(); err != nil {
					rt.Fatal(err)
				}
				if j, err = Open(ctx, filepath.Join(dir, "j.db"), o); err != nil || j.Size() != size || j.Acked() != acked {
					rt.Fatalf("reopened: %v", err)
				}
			default:
				n := rapid.Int64Range(-3, 3).Draw(rt, "n")
				c := exits(rapid.IntRange(1, 3).Draw(rt, "household"))
				clk.Advance(time.Second)
				if _, err := j.Append(ctx, decision(clk, 1, edge.Admit, add(c, n)), nil); err != nil {
					rt.Fatal(err)
				}
				model[c] += n
			}
		}
		for c, want := range model {
			v, err := j.Cells(ctx, []edge.Cell{c})
			if err != nil || v[0].Local != want {
				rt.Fatalf("cell %v is %d, want %d (%v)", c, v[0].Local, want, err)
			}
		}
		head, err := j.Head(ctx)
		if err != nil {
			rt.Fatal(err)
		}
		if err := j.seal(ctx, head.Size); err != nil {
			rt.Fatal(err)
		}
		proof, err := tlog.ProveTree(int64(head.Size), int64(old.Size), hashes{ctx: ctx, db: j.db.R})
		if err != nil {
			rt.Fatal(err)
		}
		if err := tlog.CheckTree(proof, int64(head.Size), tlog.Hash(head.Root), int64(old.Size), tlog.Hash(old.Root)); err != nil {
			rt.Fatal(err)
		}
	})
}
