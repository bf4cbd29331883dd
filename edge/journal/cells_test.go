package journal

import (
	"cmp"
	"context"
	"database/sql"
	"errors"
	"fmt"
	"maps"
	"path/filepath"
	"reflect"
	"slices"
	"testing"
	"time"

	"pgregory.net/rapid"

	"gatehouse/edge"
	"gatehouse/edge/clock"
	"gatehouse/edge/sqlite"
)

// Whatever is done between them, cells are what the entries have made of them: while
// they are stored in steps, after a crash between two steps, an erasure, a new epoch.
func TestCellsFollowTheEntries(t *testing.T) {
	rapid.Check(t, func(rt *rapid.T) {
		ctx := context.Background()
		clk := clock.NewFake(epochStart, 480)
		o := options(t, clk)
		dir := t.TempDir()
		n, path := 0, filepath.Join(dir, "0.db")
		j := open(t, path, o)
		const passes = 4
		cell := func(i int) edge.Cell {
			if i < passes {
				return edge.Cell{Name: edge.CellPosition, Subject: edge.PassID(i).Subject()}
			}
			return exits(i)
		}
		var all []edge.Cell
		for i := range 2 * passes {
			all = append(all, cell(i))
		}
		local, peers := map[edge.Cell]int64{}, map[edge.Cell]int64{}
		peerSeq := uint64(0)
		fatal := func(err error) {
			if err != nil {
				rt.Helper()
				rt.Fatal(err)
			}
		}
		restart := func(path string) {
			var err error
			if j, err = Open(ctx, path, o); err != nil {
				rt.Fatal(err)
			}
			t.Cleanup(func() { j.Close() })
		}
		rt.Repeat(map[string]func(*rapid.T){
			"append": func(rt *rapid.T) {
				clk.Advance(time.Second)
				var deltas []edge.Delta
				for _, i := range rapid.SliceOfN(rapid.IntRange(0, 2*passes-1), 1, 3).Draw(rt, "cells") {
					d := add(cell(i), int64(rapid.IntRange(-2, 3).Draw(rt, "by")))
					if i < passes {
						d = edge.Delta{Cell: cell(i), Op: edge.OpSet, Value: int64(rapid.IntRange(1, 2).Draw(rt, "at"))}
						local[d.Cell] = d.Value
					} else {
						local[d.Cell] += d.Value
					}
					deltas = append(deltas, d)
				}
				v, err := j.Cells(ctx, []edge.Cell{deltas[0].Cell})
				fatal(err)
				e := decision(clk, rapid.IntRange(0, passes-1).Draw(rt, "pass"), edge.Admit, deltas...)
				_, err = j.Append(ctx, e, []edge.Expected{{Cell: deltas[0].Cell, Version: v[0].Version}})
				fatal(err)
				if _, err = j.Append(ctx, e, []edge.Expected{{Cell: deltas[0].Cell, Version: v[0].Version}}); err != edge.ErrStale {
					rt.Fatalf("decided on what had changed: %v", err)
				}
			},
			"peer": func(rt *rapid.T) {
				peerSeq++
				d := add(cell(passes+rapid.IntRange(0, passes-1).Draw(rt, "cell")), 1)
				peers[d.Cell]++
				fatal(j.ApplyPeer(ctx, []edge.PeerDelta{{Gate: "west", Epoch: 7, Seq: peerSeq, Time: clk.Now().Time, Deltas: []edge.Delta{d}}}))
			},
			"some are stored": func(rt *rapid.T) {
				j.write.Lock()
				todo := j.lacking()
				j.write.Unlock()
				todo = todo[:rapid.IntRange(0, len(todo)).Draw(rt, "some")]
				if len(todo) == 0 {
					return
				}
				// As storeCells does while a lane waits: not the last step.
				j.write.Lock()
				err := j.tx(ctx, func(ctx context.Context) error {
					for _, c := range todo {
						if err := j.storeCell(ctx, c); err != nil {
							return err
						}
					}
					return nil
				})
				if err == nil {
					j.stored(todo)
				}
				j.write.Unlock()
				fatal(err)
			},
			"all are stored": func(*rapid.T) { fatal(j.storeCells(ctx)) },
			"erase": func(rt *rapid.T) {
				fatal(j.Acknowledge(ctx, j.Epoch(), j.Size(), nil))
				pass := edge.PassID(rapid.IntRange(0, passes-1).Draw(rt, "pass"))
				_, err := j.Erase(ctx, pass, "test")
				fatal(err)
				delete(local, edge.Cell{Name: edge.CellPosition, Subject: pass.Subject()})
			},
			"new epoch": func(rt *rapid.T) {
				fatal(j.NewEpoch(ctx, uint64(rapid.IntRange(0, int(j.Size())).Draw(rt, "forked")), "test"))
			},
			"carry some": func(*rapid.T) {
				j.purging.Lock()
				_, err := j.carrySome(ctx)
				j.purging.Unlock()
				fatal(err)
			},
			"crash": func(*rapid.T) {
				// The file as it is now, as after a power cut.
				n++
				next := filepath.Join(dir, fmt.Sprint(n)+".db")
				fatal(sqlite.Copy(ctx, path, next))
				fatal(j.Close())
				path = next
				restart(path)
			},
			"restart": func(*rapid.T) { fatal(j.Close()); restart(path) },
			"": func(rt *rapid.T) {
				got, err := j.Cells(ctx, all)
				fatal(err)
				for i, c := range all {
					if got[i].Local != local[c] || got[i].Peers != peers[c] {
						rt.Fatalf("%v is %+v, want %d and %d from peers", c, got[i], local[c], peers[c])
					}
				}
				in, err := j.Inside(ctx)
				fatal(err)
				var want, have []edge.Inside
				cells, err := j.Cells(ctx, append(all[:passes:passes], edge.Cell{Name: edge.CellReset, Subject: edge.SubjectReset}))
				fatal(err)
				for i := range passes {
					if local[cell(i)] != edge.PositionInside {
						continue
					}
					x := edge.Inside{Pass: edge.Pass{ID: edge.PassID(i)}, Since: cells[i].At}
					if x.Since <= cells[passes].Local {
						x.Unknown = cells[passes].Local
					}
					want = append(want, x)
				}
				have = slices.SortedFunc(slices.Values(in), func(a, b edge.Inside) int { return cmp.Compare(a.Pass.ID, b.Pass.ID) })
				if !reflect.DeepEqual(have, want) {
					rt.Fatalf("inside are %+v, want %+v", have, want)
				}
				r, err := Inspect(ctx, path)
				fatal(err)
				defer r.Close()
				rep, err := r.Verify(ctx, nil)
				fatal(err)
				if len(rep.Findings) > 0 {
					rt.Fatalf("%v", rep.Findings)
				}
			},
		})
	})
}

// A journal of the version before has plain lines, and all of its cells in the table.
func TestOlderJournal(t *testing.T) {
	ctx := context.Background()
	clk := clock.NewFake(epochStart, 480)
	o := options(t, clk)
	path := filepath.Join(t.TempDir(), "journal.db")
	j := open(t, path, o)
	fill(t, j, clk, 300)
	if _, err := j.Append(ctx, decision(clk, 1, edge.Admit, add(exits(1), 5)), nil); err != nil {
		t.Fatal(err)
	}
	head, err := j.Head(ctx)
	if err != nil {
		t.Fatal(err)
	}
	if err := j.storeCells(ctx); err != nil {
		t.Fatal(err)
	}
	if err := j.Close(); err != nil {
		t.Fatal(err)
	}
	db, err := sql.Open("sqlite", path)
	if err != nil {
		t.Fatal(err)
	}
	rows := map[uint64][]byte{}
	got, err := readEntries(ctx, db, "", 0, 1000)
	if err != nil {
		t.Fatal(err)
	}
	for _, s := range got {
		rows[s.Seq] = s.Line
	}
	for seq := range maps.Keys(rows) {
		if _, err := db.Exec("UPDATE entry SET line=? WHERE seq=?", rows[seq], int64(seq)); err != nil {
			t.Fatal(err)
		}
	}
	for _, q := range []string{"ALTER TABLE cell DROP COLUMN seq", "ALTER TABLE former DROP COLUMN next", "DROP TABLE carried", "DELETE FROM meta WHERE k IN ('cells', 'base')", "PRAGMA user_version=2"} {
		if _, err := db.Exec(q); err != nil {
			t.Fatal(err)
		}
	}
	if err := db.Close(); err != nil {
		t.Fatal(err)
	}
	// Looking at it changes nothing under the older program.
	for range 2 {
		if _, err := Inspect(ctx, path); !errors.Is(err, sqlite.ErrOlder) {
			t.Fatalf("an older journal was looked at: %v", err)
		}
	}
	j = open(t, path, o)
	if now, err := j.Head(ctx); err != nil || now.Root != head.Root || now.Size != head.Size {
		t.Errorf("%+v %v, want %+v", now, err, head)
	}
	v, err := j.Cells(ctx, []edge.Cell{exits(1)})
	if err != nil || v[0].Local != 5 {
		t.Errorf("%+v %v", v, err)
	}
	if _, err := j.Append(ctx, decision(clk, 1, edge.Admit, add(exits(1), 2)), nil); err != nil {
		t.Fatal(err)
	}
	if err := j.Close(); err != nil {
		t.Fatal(err)
	}
	j = open(t, path, o)
	if v, err = j.Cells(ctx, []edge.Cell{exits(1)}); err != nil || v[0].Local != 7 {
		t.Errorf("%+v %v", v, err)
	}
	if _, rep := verify(t, path); len(rep.Findings) > 0 {
		t.Errorf("%v", rep.Findings)
	}
}

// Also where nobody settles the journal, a start has not much to derive again.
func TestReplayIsBounded(t *testing.T) {
	clk := clock.NewFake(epochStart, 480)
	path := filepath.Join(t.TempDir(), "journal.db")
	j := open(t, path, options(t, clk))
	const n = replayAtMost + 1500
	for done := 0; done < n; done += 500 {
		var batch []*request
		for i := range 500 {
			batch = append(batch, &request{lines: [][]byte{pack([]byte("{}"))}, deltas: []edge.Delta{add(exits(i%3), 1)}, at: int64(done + i)})
		}
		j.mu.Lock()
		j.pending = append(j.pending, batch...)
		for _, r := range batch {
			r.done = make(chan struct{})
		}
		j.mu.Unlock()
		j.commitPending(t.Context(), batch[0])
		for _, r := range batch {
			if r.err != nil {
				t.Fatal(r.err)
			}
		}
	}
	if lacks := j.Size() - j.tabled; lacks > replayAtMost+500 {
		t.Errorf("the table lacks %d entries", lacks)
	}
	v, err := j.Cells(t.Context(), []edge.Cell{exits(0), exits(1), exits(2)})
	if err != nil || v[0].Local+v[1].Local+v[2].Local != n {
		t.Errorf("%+v %v, want %d in all", v, err, n)
	}
}
