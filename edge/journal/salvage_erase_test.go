package journal

import (
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"gatehouse/edge"
	"gatehouse/edge/clock"
)

// Who was to be erased when the file was damaged, or is while it is carried over, is
// erased from what is carried over too.
func TestErasureOutlivesDamage(t *testing.T) {
	for _, name := range []string{"waiting in the damaged file", "asked of the new one"} {
		t.Run(name, func(t *testing.T) {
			ctx := t.Context()
			clk := clock.NewFake(epochStart, 480)
			path := filepath.Join(t.TempDir(), "journal.db")
			o := options(t, clk)
			j := open(t, path, o)
			for _, pass := range []int{7, 8} {
				e := decision(clk, pass, edge.Admit)
				e.Data = []byte(`{"said":"` + map[int]string{7: "dialysis", 8: "choir"}[pass] + `"}`)
				if _, err := j.Append(ctx, e, nil); err != nil {
					t.Fatal(err)
				}
			}
			early := name == "waiting in the damaged file"
			if early {
				if got, err := j.Erase(ctx, 7, "admin"); err != nil || got.Waiting == 0 {
					t.Fatalf("%+v, %v", got, err)
				}
			}
			if err := j.Close(); err != nil {
				t.Fatal(err)
			}
			s := &Salvage{Aside: path + ".damaged", Reason: "a test"}
			j, err := SetAside(ctx, path, s, o)
			if err != nil {
				t.Fatal(err)
			}
			if !early {
				if _, err := j.Erase(ctx, 7, "admin"); err != nil {
					t.Fatal(err)
				}
			}
			if r, err := j.Recover(ctx, s); err != nil || r.Carried != 3 {
				t.Fatalf("%+v, %v", r, err)
			}
			// Whoever was erased comes again.
			again, err := j.Append(ctx, decision(clk, 7, edge.Admit), nil)
			if err != nil {
				t.Fatal(err)
			}
			if err := j.takeErasures(ctx); err != nil {
				t.Fatal(err)
			}
			if err := j.Acknowledge(ctx, j.Epoch(), j.Size(), nil); err != nil {
				t.Fatal(err)
			}
			if _, err := j.Purge(ctx, epochStart.Add(-time.Hour)); err != nil {
				t.Fatal(err)
			}
			text := written(t, j)
			if strings.Contains(text, "dialysis") {
				t.Error("what was carried over is still there")
			}
			if !strings.Contains(text, "choir") {
				t.Error("another person's entry went")
			}
			if _, err := j.Get(ctx, again); err != nil {
				t.Errorf("an entry that came later went: %v", err)
			}
			if err := j.Close(); err != nil {
				t.Fatal(err)
			}
			clean(t, path)
		})
	}
}

// The WAL holds what was destroyed also when it was a counter or a position alone.
func TestErasedCellLeavesTheWAL(t *testing.T) {
	ctx := t.Context()
	path := filepath.Join(t.TempDir(), "journal.db")
	j := open(t, path, options(t, clock.NewFake(epochStart, 480)))
	defer j.Close()
	if err := j.ApplyPeer(ctx, []edge.PeerDelta{{Gate: "g2", Epoch: 1, Seq: 1, Time: epochStart.UnixMilli(), Deltas: []edge.Delta{
		{Cell: edge.Cell{Name: "quarantine-of-pass", Subject: edge.PassID(7).Subject()}, Op: edge.OpSet, Value: 1}}}}); err != nil {
		t.Fatal(err)
	}
	if ok, err := j.clean(ctx); !ok || err != nil {
		t.Fatal(ok, err)
	}
	if _, err := j.Erase(ctx, 7, "admin"); err != nil {
		t.Fatal(err)
	}
	if ok, err := j.clean(ctx); !ok || err != nil {
		t.Fatal(ok, err)
	}
	for _, f := range []string{path, path + "-wal"} {
		b, err := os.ReadFile(f)
		if err != nil && !errors.Is(err, os.ErrNotExist) {
			t.Fatal(err)
		}
		if strings.Contains(string(b), "quarantine-of-pass") {
			t.Errorf("%s holds what was erased", filepath.Base(f))
		}
	}
}

// While an erasure waits for receipts, what its pass does from then on counts, and the
// counters that went are no damage.
func TestWaitingErasureLeavesLaterCounters(t *testing.T) {
	ctx := t.Context()
	clk := clock.NewFake(epochStart, 480)
	path := filepath.Join(t.TempDir(), "journal.db")
	j := open(t, path, options(t, clk))
	exits := edge.Cell{Name: "exits", Subject: edge.PassID(7).Subject(), Bucket: 20000}
	leave := func() {
		t.Helper()
		if _, err := j.Append(ctx, decision(clk, 7, edge.Admit, add(exits, 1)), nil); err != nil {
			t.Fatal(err)
		}
	}
	counted := func(want int64) {
		t.Helper()
		if v, err := j.Cells(ctx, []edge.Cell{exits}); err != nil || v[0].Local != want {
			t.Errorf("%+v, %v; %d is counted", v, err, want)
		}
	}
	leave()
	leave()
	if got, err := j.Erase(ctx, 7, "admin"); err != nil || got != (Erased{Waiting: 2}) {
		t.Fatalf("%+v, %v", got, err)
	}
	counted(0)
	if _, rep := verify(t, path); len(rep.Findings) > 0 {
		t.Errorf("what was erased is found to be damage: %v", rep.Findings)
	}
	leave()
	for range 2 {
		if _, err := j.Purge(ctx, epochStart.Add(-time.Hour)); err != nil {
			t.Fatal(err)
		}
		counted(1)
	}
	if err := j.Close(); err != nil {
		t.Fatal(err)
	}
	clean(t, path)
	j = open(t, path, options(t, clk))
	defer j.Close()
	counted(1)
}

// What waits goes also when what it refers to was carried over with it, and went from
// the new epoch in an earlier round.
func TestErasureRemembersWhatItErasedOfTheCarried(t *testing.T) {
	ctx := t.Context()
	clk := clock.NewFake(epochStart, 480)
	path := filepath.Join(t.TempDir(), "journal.db")
	j := open(t, path, options(t, clk))
	of := map[string]uint64{}
	for i, what := range []string{"choir", "dialysis"} {
		seq, err := j.Append(ctx, decision(clk, 8-i, edge.Refer), nil)
		if err != nil {
			t.Fatal(err)
		}
		of[what] = seq
	}
	for what, seq := range of {
		e := &edge.Entry{Kind: edge.KindAction, Of: int64(seq), Actor: "guard:2", Stamp: clk.Now(), Data: []byte(`{"action":"confirm","value":"` + what + `"}`)}
		if _, err := j.Append(ctx, e, nil); err != nil {
			t.Fatal(err)
		}
	}
	if err := errors.Join(j.NewEpoch(ctx, 1, "test"), j.Carry(ctx), j.Acknowledge(ctx, j.Epoch(), 3, nil)); err != nil {
		t.Fatal(err)
	}
	if got, err := j.Erase(ctx, 7, "admin"); err != nil || got != (Erased{Gone: 1, Waiting: 1}) {
		t.Fatalf("%+v, %v", got, err)
	}
	if err := j.Acknowledge(ctx, j.Epoch(), j.Size(), nil); err != nil {
		t.Fatal(err)
	}
	if _, err := j.Purge(ctx, epochStart.Add(-time.Hour)); err != nil {
		t.Fatal(err)
	}
	text := written(t, j)
	if strings.Contains(text, "dialysis") || !strings.Contains(text, "choir") {
		t.Errorf("what was said about the person is still there, or went with it: %s", text)
	}
	if err := j.Close(); err != nil {
		t.Fatal(err)
	}
	clean(t, path)
}
