package journal

import (
	"fmt"
	"path/filepath"
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
		s := ""
		for _, x := range l {
			s += fmt.Sprintf("%d %v;", x.Pass.ID, x.Peer)
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
	if got := inside(); got != "1 false;2 true;" {
		t.Errorf("%s", got)
	}
	set(edge.Cell{Name: edge.CellReset, Subject: edge.SubjectReset}, now+500)
	if got := inside(); got != "2 true;" {
		t.Errorf("after a reset %s", got)
	}
}
