package journal_test

import (
	"context"
	"encoding/json"
	"errors"
	"path/filepath"
	"testing"
	"time"

	"gatehouse/edge"
	"gatehouse/edge/clock"
	"gatehouse/edge/journal"
)

func TestNewEpochCarriesWhatTheServerLacks(t *testing.T) {
	ctx := t.Context()
	path := filepath.Join(t.TempDir(), "journal.db")
	o := journal.Options{Community: "c", Site: "s", Gate: "g", Clock: clock.NewFake(time.UnixMilli(1_000_000), 0)}
	j, err := journal.Open(ctx, path, o)
	if err != nil {
		t.Fatal(err)
	}
	add := func() {
		t.Helper()
		if _, err := j.Append(ctx, &edge.Entry{Kind: edge.KindTest, Of: -1, Stamp: o.Clock.Now(), Data: []byte(`{"a":"<&>"}`)}, nil); err != nil {
			t.Fatal(err)
		}
	}
	for range 600 {
		add()
	}
	old := j.Epoch()
	was, err := j.Get(ctx, 597)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := j.Head(ctx); err != nil {
		t.Fatal(err)
	}
	if err := j.Acknowledge(ctx, old, 10, nil); err != nil {
		t.Fatal(err)
	}
	if err := j.NewEpoch(ctx, 700, "no"); err == nil || j.Epoch() != old {
		t.Fatal("an epoch that forks beyond the end was begun")
	}
	if err := errors.Join(j.NewEpoch(ctx, 300, "restored"), j.Carry(ctx)); err != nil {
		t.Fatal(err)
	}
	check := func(size uint64) {
		t.Helper()
		if j.Epoch() == old || j.Size() != size || j.Acked() != 0 {
			t.Fatalf("epoch %v, size %d, acked %d", j.Epoch(), j.Size(), j.Acked())
		}
		h, err := j.Head(ctx)
		if err != nil || h.Origin != edge.Origin("c", "s", "g", j.Epoch()) {
			t.Fatalf("%+v %v", h, err)
		}
		s, err := j.Get(ctx, 1+597-300)
		if err != nil {
			t.Fatal(err)
		}
		e, err := edge.DecodeEntry(s.Line)
		if err != nil {
			t.Fatal(err)
		}
		var c struct {
			Seq   uint64
			Entry json.RawMessage
		}
		if err := json.Unmarshal(e.Data, &c); err != nil || c.Seq != 597 || string(c.Entry) != string(was.Line) {
			t.Errorf("carried %+v %v, want\n%s", c, err, was.Line)
		}
		keys, err := j.BlockKeys(ctx, 0, size)
		if err != nil || uint64(len(keys)) != (size+edge.BlockSize-1)/edge.BlockSize {
			t.Errorf("%d keys, %v", len(keys), err)
		}
	}
	check(302)
	add()
	check(303)
	if err := j.Close(); err != nil {
		t.Fatal(err)
	}
	if j, err = journal.Open(ctx, path, o); err != nil {
		t.Fatal(err)
	}
	defer j.Close()
	add()
	check(304)
	v, err := j.Cells(context.Background(), []edge.Cell{{Name: edge.CellReset, Subject: edge.SubjectReset}})
	if err != nil || v[0].Local != 1_000_000 {
		t.Errorf("cells %+v, %v", v, err)
	}
}
