package journal

import (
	"fmt"
	"maps"
	"slices"
	"testing"
	"time"

	"gatehouse/edge"
	"gatehouse/edge/clock"
)

const day = 24 * time.Hour

// counts are the cells of the table, and of what it lacks, as Cells tells them.
func counts(t *testing.T, j *Journal) map[edge.Cell]edge.CellValue {
	t.Helper()
	var cells []edge.Cell
	rows, err := j.db.R.QueryContext(t.Context(), "SELECT subject, name, bucket FROM cell")
	if err != nil {
		t.Fatal(err)
	}
	defer rows.Close()
	for rows.Next() {
		var c edge.Cell
		if err := rows.Scan(&c.Subject, &c.Name, &c.Bucket); err != nil {
			t.Fatal(err)
		}
		cells = append(cells, c)
	}
	if err := rows.Err(); err != nil {
		t.Fatal(err)
	}
	cells = append(cells, slices.Collect(maps.Keys(j.cells))...)
	vals, err := j.Cells(t.Context(), cells)
	if err != nil {
		t.Fatal(err)
	}
	out := map[edge.Cell]edge.CellValue{}
	for i, c := range cells {
		out[c] = vals[i]
	}
	return out
}

// use counts four passes' exits of a hundred days, at this gate and at a peer.
func use(t *testing.T, j *Journal, clk *clock.Fake) {
	t.Helper()
	for d := range int64(100) {
		for p := range int64(4) {
			s := edge.PassID(p + 1).Subject()
			e := decision(clk, int(p)+1, edge.Admit, add(edge.Cell{Name: "exits", Subject: s, Bucket: 20000 + d}, 1),
				edge.Delta{Cell: edge.Cell{Name: edge.CellPosition, Subject: s}, Op: edge.OpSet, Value: edge.PositionInside})
			if d > 0 && p == 3 {
				e.Deltas = nil // its position was last changed on the first day
			}
			if _, err := j.Append(t.Context(), e, nil); err != nil {
				t.Fatal(err)
			}
		}
		if err := j.ApplyPeer(t.Context(), []edge.PeerDelta{{Gate: "g2", Epoch: 1, Seq: uint64(d), Time: clk.Now().Time, Deltas: []edge.Delta{
			add(edge.Cell{Name: "exits", Subject: "p1", Bucket: 20000 + d}, 1),
			add(edge.Cell{Name: "exits", Subject: "p9", Bucket: 20000 + d}, 1)}}}); err != nil {
			t.Fatal(err)
		}
		clk.Advance(day)
	}
}

// A record of use per pass does not outlive its entries for good; what may still be
// counted, and what is no window, stays.
func TestOldCountersGo(t *testing.T) {
	ctx := t.Context()
	clk := clock.NewFake(epochStart, 480)
	path, o, _ := keyed(t, clk)
	o.Retention, o.Technical = 14*day, 14*day
	j := open(t, path, o)
	use(t, j, clk)
	if err := j.Acknowledge(ctx, j.Epoch(), j.Size()-100, nil); err != nil {
		t.Fatal(err)
	}
	before := counts(t, j)
	if _, err := j.Retain(ctx); err != nil {
		t.Fatal(err)
	}
	after := counts(t, j)
	for c, v := range before {
		// Of day 38 on nothing is older than 62 days.
		switch x, stays := after[c]; {
		case c.Bucket != 0 && c.Bucket < 20038 && stays:
			t.Errorf("%v is still counted", c)
		case c.Bucket != 0 && c.Bucket < 20038:
		case x != v:
			t.Errorf("%v was %+v and is %+v", c, v, x)
		}
	}
	if v := after[edge.Cell{Name: edge.CellPosition, Subject: "p4"}]; v.Local != edge.PositionInside {
		t.Errorf("an old position went: %+v", v)
	}
	for range 2 {
		if err := j.Close(); err != nil {
			t.Fatal(err)
		}
		clean(t, path)
		j = open(t, path, o)
		if again := counts(t, j); !maps.Equal(again, after) {
			t.Errorf("opened again it is %v, was %v", again, after)
		}
		if _, err := j.Retain(ctx); err != nil {
			t.Fatal(err)
		}
	}
}

// Entries that have to wait for their receipts imply their counters, which stay as
// long: a journal that is whole is not found damaged.
func TestOldCountersStayWithTheirEntries(t *testing.T) {
	ctx := t.Context()
	clk := clock.NewFake(epochStart, 480)
	path, o, _ := keyed(t, clk)
	o.Recipient, o.Retention, o.Technical = "", 14*day, 14*day
	j := open(t, path, o)
	use(t, j, clk)
	if _, err := j.Retain(ctx); err != nil {
		t.Fatal(err)
	}
	n := 0
	for c, v := range counts(t, j) {
		if c.Bucket < 20038 && v.Local > 0 && c.Bucket > 0 {
			n++
		}
		if c.Subject == "p9" && c.Bucket < 20038 {
			t.Errorf("what only a peer has counted is still here: %v", c)
		}
	}
	if n != 38*3+1 {
		t.Errorf("%d old counters are left", n)
	}
	if err := j.Close(); err != nil {
		t.Fatal(err)
	}
	if rep := clean(t, path); rep.Purged+rep.Away != 0 {
		t.Errorf("%d entries went", rep.Purged+rep.Away)
	}
	// The receipts come.
	j = open(t, path, o)
	if err := j.Acknowledge(ctx, j.Epoch(), j.Size(), nil); err != nil {
		t.Fatal(err)
	}
	if _, err := j.Retain(ctx); err != nil {
		t.Fatal(err)
	}
	for c := range counts(t, j) {
		if c.Bucket != 0 && c.Bucket < 20038 {
			t.Errorf("%v is still counted", c)
		}
	}
}

// A counter that changes while the old ones go stays whole, whatever its stamps say,
// and a clock that lags does not lose what it counts now.
func TestOldCountersInUse(t *testing.T) {
	ctx := t.Context()
	clk := clock.NewFake(epochStart, 480)
	path, o, _ := keyed(t, clk)
	o.Retention, o.Technical = 14*day, 14*day
	j := open(t, path, o)
	use(t, j, clk)
	if err := j.Acknowledge(ctx, j.Epoch(), j.Size(), nil); err != nil {
		t.Fatal(err)
	}
	if _, err := j.Purge(ctx, time.UnixMilli(clk.Now().Time).Add(-o.Retention)); err != nil {
		t.Fatal(err)
	}
	if err := j.storeCells(ctx); err != nil {
		t.Fatal(err)
	}
	changing, other := edge.Cell{Name: "exits", Subject: "p1", Bucket: 20001}, edge.Cell{Name: "exits", Subject: "p2", Bucket: 20001}
	was := counts(t, j)[changing]
	if _, err := j.Append(ctx, decision(clk, 1, edge.Admit, add(changing, 1)), nil); err != nil {
		t.Fatal(err)
	}
	if n, err := j.dropSomeCells(ctx, []edge.Cell{changing, other}, epochStart.Add(10*day).UnixMilli()); n != 2 || err != nil {
		t.Fatalf("%d, %v", n, err)
	}
	now := counts(t, j)
	if v := now[changing]; v.Local != was.Local+1 || v.Peers != was.Peers || v.Version != was.Version+1 {
		t.Errorf("it was %+v and is %+v", was, v)
	}
	if v, ok := now[other]; ok {
		t.Errorf("an old one beside it is still %+v", v)
	}

	lags := &floored{Fake: clk, floor: time.UnixMilli(clk.Now().Time)}
	s := clk.Now()
	s.Time, s.Clock = s.Time-(900*day).Milliseconds(), edge.ClockUnset
	clk.Set(s)
	j.o.Clock = lags
	if err := j.ApplyPeer(ctx, []edge.PeerDelta{{Gate: "g3", Epoch: 1, Seq: 1, Time: s.Time, Deltas: []edge.Delta{add(edge.Cell{Name: "exits", Subject: "p1", Bucket: 19100}, 1)}}}); err != nil {
		t.Fatal(err)
	}
	before := counts(t, j)
	if _, err := j.Retain(ctx); err != nil {
		t.Fatal(err)
	}
	if after := counts(t, j); !maps.Equal(after, before) {
		t.Error(fmt.Sprint("before ", len(before), " cells, then ", len(after)))
	}
}
