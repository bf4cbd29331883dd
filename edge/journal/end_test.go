package journal

import (
	"errors"
	"path/filepath"
	"strings"
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

// Without the community's key, an end that was interrupted is said again as it was
// said before: what it recorded itself is nobody's loss. What is still to be carried
// over is.
func TestDecommissionWithoutTheCommunity(t *testing.T) {
	ctx := t.Context()
	clk := clock.NewFake(epochStart, 480)
	j := open(t, filepath.Join(t.TempDir(), "journal.db"), options(t, clk))
	defer j.Close()
	fill(t, j, clk, 300)
	all := j.Size()
	if err := errors.Join(j.NewEpoch(ctx, all-10, "test"), j.Acknowledge(ctx, j.Epoch(), 1, nil)); err != nil {
		t.Fatal(err)
	}
	if end, err := j.Decommission(ctx, Ending{}); err == nil || !strings.HasPrefix(err.Error(), "10 entries are not receipted") {
		t.Fatalf("%+v, %v", end, err)
	}
	if err := j.Acknowledge(ctx, j.Epoch(), j.Size(), nil); err != nil {
		t.Fatal(err)
	}
	for range 2 {
		if _, err := j.Decommission(ctx, Ending{}); err != nil {
			t.Fatal(err)
		}
	}
	if _, err := j.Append(ctx, decision(clk, 1, edge.Admit), nil); err != nil {
		t.Fatal(err)
	}
	if end, err := j.Decommission(ctx, Ending{}); err == nil || !strings.HasPrefix(err.Error(), "1 entries are not receipted") {
		t.Fatalf("%+v, %v", end, err)
	}
}
