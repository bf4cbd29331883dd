package journal

import (
	"testing"

	"gatehouse/edge"
	"gatehouse/edge/clock"
)

// An end that was interrupted is said again, and tells of all that is gone.
func TestDecommissionAgainCountsAll(t *testing.T) {
	ctx := t.Context()
	clk := clock.NewFake(epochStart, 480)
	path, o, _ := keyed(t, clk)
	j := open(t, path, o)
	for i := range 500 {
		if _, err := j.Append(ctx, decision(clk, 100+i, edge.Admit), nil); err != nil {
			t.Fatal(err)
		}
	}
	all := j.Size()
	if err := j.Acknowledge(ctx, j.Epoch(), all, nil); err != nil {
		t.Fatal(err)
	}
	first, err := j.Decommission(ctx, Ending{})
	if err != nil || first.Destroyed != all || first.Sealed != 0 {
		t.Fatalf("%+v, %v", first, err)
	}
	if err := j.Close(); err != nil {
		t.Fatal(err)
	}
	j = open(t, path, o)
	defer j.Close()
	again, err := j.Decommission(ctx, Ending{})
	if err != nil || again.Destroyed != all || again.Sealed == 0 {
		t.Fatalf("again: %+v, %v", again, err)
	}
}
