package journal

import (
	"cmp"
	"fmt"
	"path/filepath"
	"slices"
	"testing"

	"gatehouse/edge"
	"gatehouse/edge/clock"
)

// Inside are those whose newest position is inside and newer than the last reset.
func TestInside(t *testing.T) {
	j := open(t, filepath.Join(t.TempDir(), "journal.db"), options(t, clock.NewFake(epochStart, 480)))
	set := func(cell edge.Cell, value int64) {
		t.Helper()
		e := &edge.Entry{Kind: edge.KindPassage, Of: -1, Result: edge.ResultPassed, Stamp: j.o.Clock.Now(), Deltas: []edge.Delta{{Cell: cell, Op: edge.OpSet, Value: value}}}
		if _, err := j.Append(t.Context(), e, nil); err != nil {
			t.Fatal(err)
		}
	}
	at := func(id edge.PassID) edge.Cell { return edge.Cell{Name: edge.CellPosition, Subject: id.Subject()} }
	inside := func() string {
		t.Helper()
		l, err := j.Inside(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		slices.SortFunc(l, func(a, b edge.Inside) int { return cmp.Compare(a.Pass.ID, b.Pass.ID) })
		s := ""
		for _, x := range l {
			s += fmt.Sprintf("%d %v %v;", x.Pass.ID, x.Peer, x.Unknown)
		}
		return s
	}
	set(at(1), edge.PositionInside)
	set(at(2), edge.PositionOutside)
	set(at(3), edge.PositionInside)
	set(at(3), edge.PositionUnknown)
	now := j.o.Clock.Now().Time
	if err := j.ApplyPeer(t.Context(), []edge.PeerDelta{{Gate: "west", Epoch: 7, Seq: 1, Time: now + 1000, Deltas: []edge.Delta{{Cell: at(2), Op: edge.OpSet, Value: edge.PositionInside}}},
		{Gate: "west", Epoch: 7, Seq: 2, Time: now - 1000, Deltas: []edge.Delta{{Cell: at(1), Op: edge.OpSet, Value: edge.PositionOutside}}}}); err != nil {
		t.Fatal(err)
	}
	if got := inside(); got != "1 false 0;2 true 0;" {
		t.Errorf("%s", got)
	}
	set(edge.Cell{Name: edge.CellReset, Subject: edge.SubjectReset}, now+500)
	// A fire makes every position unknown, and nobody leave by card.
	if got, want := inside(), fmt.Sprintf("1 false %d;2 true 0;", now+500); got != want {
		t.Errorf("after a reset %s, want %s", got, want)
	}
	set(edge.Cell{Name: edge.CellReset, Subject: edge.SubjectCleared}, now+500)
	if got := inside(); got != "2 true 0;" {
		t.Errorf("after it was cleared %s", got)
	}
	// Both are peers' too.
	if err := j.ApplyPeer(t.Context(), []edge.PeerDelta{{Gate: "west", Epoch: 7, Seq: 3, Time: now + 2000, Deltas: []edge.Delta{{Cell: edge.Cell{Name: edge.CellReset, Subject: edge.SubjectReset}, Op: edge.OpSet, Value: now + 2000}}}}); err != nil {
		t.Fatal(err)
	}
	if got, want := inside(), fmt.Sprintf("2 true %d;", now+2000); got != want {
		t.Errorf("after a fire at another gate %s, want %s", got, want)
	}
	if err := j.ApplyPeer(t.Context(), []edge.PeerDelta{{Gate: "west", Epoch: 7, Seq: 4, Time: now + 3000, Deltas: []edge.Delta{{Cell: edge.Cell{Name: edge.CellReset, Subject: edge.SubjectCleared}, Op: edge.OpSet, Value: now + 3000}}}}); err != nil {
		t.Fatal(err)
	}
	if got := inside(); got != "" {
		t.Errorf("after two persons at another gate have cleared it %s", got)
	}
}
