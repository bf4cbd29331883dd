package app

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"io"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"golang.org/x/sys/unix"

	"gatehouse/cmd/internal/config"
	"gatehouse/edge"
	"gatehouse/edge/journal"
	"gatehouse/edge/registry"
)

// The medium is full to the last byte. The gate goes on deciding, in its reserve,
// says so, and its journal is whole afterwards; when there is room again it says
// that too, and holds its reserve again.
func TestFullMedium(t *testing.T) {
	dir := t.TempDir()
	state := filepath.Join(dir, "state")
	if err := os.Mkdir(state, 0o700); err != nil {
		t.Fatal(err)
	}
	if err := unix.Mount("none", state, "tmpfs", 0, "size=256m"); err != nil {
		if os.Getenv("CI") != "" {
			t.Fatalf("cannot mount a small file system: %v", err)
		}
		t.Skipf("cannot mount a small file system (%v); .ci/run is root and can", err)
	}
	t.Cleanup(func() {
		if err := unix.Unmount(state, unix.MNT_DETACH); err != nil {
			t.Error(err)
		}
	})
	yaml := "community: c\nsite: s\ngate: g\nstate: state\npolicy: policy.yaml\nconsole: {listen: ''}\n" +
		"passages: [{name: main, barrier: none}]\nlanes: [{name: in, passage: main, direction: in, scanner: console, thermometer: none}]\n"
	for name, text := range map[string]string{"policy.yaml": strings.Replace(curfew, "UNTRUSTED", "skip", 1), "gate.yaml": yaml} {
		if err := os.WriteFile(filepath.Join(dir, name), []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	cfg, err := config.Load(filepath.Join(dir, "gate.yaml"))
	if err != nil {
		t.Fatal(err)
	}
	a, err := Build(t.Context(), cfg, Options{Version: "test", TrustClock: true, Log: slog.New(slog.NewTextHandler(io.Discard, nil))})
	if err != nil {
		t.Fatal(err)
	}
	if _, err := a.Registry.Import(t.Context(), func(yield func(edge.RosterRow, error) bool) {
		yield(edge.RosterRow{Pass: edge.Pass{ID: 1, Category: "worker", Status: edge.PassActive}}, nil)
	}, registry.ImportOptions{}); err != nil {
		t.Fatal(err)
	}
	ctx, stop := context.WithCancel(t.Context())
	done := make(chan error, 1)
	go func() { done <- a.Run(ctx) }()
	alert := func(code string, open bool) func() bool {
		return func() bool {
			found := false
			eachEntry(t, a.Journal, func(e *edge.Entry) {
				var d boardAlert
				if e.Kind == edge.KindAlert && json.Unmarshal(e.Data, &d) == nil && d.Alert == code && d.Open == open {
					found = true
				}
			})
			return found
		}
	}
	reserve := filepath.Join(state, "journal.db.reserve")
	until(t, "the reserve is held", func() bool { st, err := os.Stat(reserve); return err == nil && st.Size() > 0 })

	if r, err := roomOf(state); err != nil || r.free < r.low() {
		t.Fatalf("%+v %v", r, err)
	}
	// Somebody fills the medium, until nothing more goes in.
	junk, err := os.Create(filepath.Join(state, "junk"))
	if err != nil {
		t.Fatal(err)
	}
	fill := func() {
		block := bytes.Repeat([]byte{7}, 4096)
		for {
			if _, err := junk.Write(block); err != nil {
				if !errors.Is(err, syscall.ENOSPC) {
					t.Fatal(err)
				}
				return
			}
		}
	}
	fill()
	if _, err := a.record(ctx, edge.KindRegistry, map[string]any{"n": -1}); err != nil {
		t.Fatalf("an entry on a medium that has just become full: %v", err)
	}
	until(t, "the gate says that the medium is full", alert(levelFull, true))
	// It decides and records on: a day of a busy gate.
	before := a.Journal.Size()
	for i := range 1500 {
		if _, err := a.record(ctx, edge.KindRegistry, map[string]any{"n": i, "what": strings.Repeat("x", 400)}); err != nil {
			t.Fatalf("entry %d on a full medium: %v", i, err)
		}
	}
	until(t, "a pass is decided about", func() bool {
		return a.Lanes.Do(ctx, edge.Action{Kind: edge.ActPresent, Lane: "in", Pass: 1, Actor: "guard:1", Identity: "known"}) == nil
	})
	if a.Journal.Size() < before+1500 {
		t.Errorf("%d entries, there were %d", a.Journal.Size(), before)
	}
	if err := errors.Join(junk.Close(), os.Remove(junk.Name())); err != nil {
		t.Fatal(err)
	}
	until(t, "the alert is over", alert(levelFull, false))
	until(t, "the reserve is held again", func() bool { st, err := os.Stat(reserve); return err == nil && st.Size() > 0 })

	// A damaged file of earlier goes before anything of the journal's.
	old := filepath.Join(state, "journal.db"+asideSuffix+"20260101-000000")
	lacking := filepath.Join(state, "journal.db"+asideSuffix+"20260102-000000") // this one nobody has carried over
	for name, size := range map[string]int{old: 40 << 20, old + doneSuffix: 0, lacking: 1 << 10} {
		if err := os.WriteFile(name, bytes.Repeat([]byte{1}, size), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	if junk, err = os.Create(junk.Name()); err != nil {
		t.Fatal(err)
	}
	fill()
	until(t, "the old file is gone", func() bool { _, err := os.Stat(old); return errors.Is(err, os.ErrNotExist) })
	if _, err := os.Stat(lacking); err != nil {
		t.Errorf("what was not carried over yet: %v", err)
	}
	if err := junk.Close(); err != nil {
		t.Fatal(err)
	}
	stop()
	if err := <-done; err != nil {
		t.Error(err)
	}
	rd, err := journal.Inspect(t.Context(), filepath.Join(state, "journal.db"))
	if err != nil {
		t.Fatal(err)
	}
	defer rd.Close()
	rep, err := rd.Verify(t.Context(), nil)
	if err != nil || len(rep.Findings) > 0 {
		t.Errorf("the journal after a full medium: %v %v", rep.Findings, err)
	}
}
