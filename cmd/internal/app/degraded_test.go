package app

import (
	"context"
	"fmt"
	"io"
	"log/slog"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"gatehouse/cmd/internal/config"
	"gatehouse/device/sim"
	"gatehouse/edge"
	"gatehouse/edge/registry"
	firmwareconfig "gatehouse/firmware-config"
)

// gateIn makes a gate with one lane whose reader is at a path where nothing is.
func gateIn(t *testing.T, dir string) (*App, string) {
	t.Helper()
	return gateLogging(t, dir, slog.New(slog.NewTextHandler(io.Discard, nil)))
}

func gateLogging(t *testing.T, dir string, log *slog.Logger) (*App, string) {
	t.Helper()
	pol, err := firmwareconfig.Samples.ReadFile("policies/normal-times.yaml")
	if err != nil {
		t.Fatal(err)
	}
	port := filepath.Join(dir, "reader")
	yaml := fmt.Sprintf("community: c\nsite: s\ngate: g\nstate: state\npolicy: policy.yaml\nconsole: {listen: ''}\n"+
		"passages: [{name: main, barrier: {driver: relay, pin: B, pulse: 50ms}, open_for: 200ms}]\n"+
		"lanes: [{name: in, passage: main, direction: in, scanner: {driver: rdm6300, port: %q}, thermometer: none}]\n", port)
	for name, text := range map[string]string{"policy.yaml": string(pol), "gate.yaml": yaml} {
		if err := os.WriteFile(filepath.Join(dir, name), []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	cfg, err := config.Load(filepath.Join(dir, "gate.yaml"))
	if err != nil {
		t.Fatal(err)
	}
	a, err := Build(t.Context(), cfg, Options{Version: "test", Log: log, TrustClock: true, Pins: sim.NewPins().Open})
	if err != nil {
		t.Fatal(err)
	}
	return a, port
}

// until waits for something that other goroutines do, at most half a minute.
func until(t *testing.T, what string, f func() bool) {
	t.Helper()
	deadline := time.Now().Add(30 * time.Second)
	for !f() {
		if time.Now().After(deadline) {
			t.Fatalf("not within 30 s: %s", what)
		}
		time.Sleep(20 * time.Millisecond)
	}
}

// TestAbsentReader: the lane runs degraded, says so, and recovers when the
// reader appears, goes, and comes back under another name.
func TestAbsentReader(t *testing.T) {
	dir := t.TempDir()
	a, port := gateIn(t, dir)
	if _, err := a.Registry.Import(t.Context(), func(yield func(edge.RosterRow, error) bool) {
		for i := range 255 {
			row := edge.RosterRow{Pass: edge.Pass{ID: edge.PassID(i + 1), Category: "resident", Status: edge.PassActive},
				Credentials: []edge.Credential{edge.Credential(fmt.Sprintf("em:3C00CE75%02X", i))}}
			if !yield(row, nil) {
				return
			}
		}
	}, registry.ImportOptions{}); err != nil {
		t.Fatal(err)
	}
	ctx, stop := context.WithCancel(t.Context())
	done := make(chan error, 1)
	go func() { done <- a.Run(ctx) }()
	degraded := func() bool { return slices.Contains(a.Lanes.Views()[0].Degraded, "scanner") }
	until(t, "the lane is degraded", degraded)

	line, err := sim.NewSerial(port)
	if err != nil {
		t.Fatal(err)
	}
	defer line.Close()
	reader := sim.NewRDM6300(line, 1)
	until(t, "the reader is found", func() bool { return !degraded() })
	admitted := func() int {
		n := 0
		eachEntry(t, a.Journal, func(e *edge.Entry) {
			if e.Outcome == edge.Admit {
				n++
			}
		})
		return n
	}
	// Somebody else every time: a card that is held is one presentation.
	person := byte(0)
	card := func() {
		person++
		_ = reader.Hold(ctx, sim.EM4100{0x3C, 0x00, 0xCE, 0x75, person}, 100*time.Millisecond)
	}
	until(t, "a card is admitted", func() bool { card(); return admitted() >= 1 })

	if err := line.Unplug(); err != nil {
		t.Fatal(err)
	}
	until(t, "the cable is missed", degraded)
	if err := line.Plug(); err != nil {
		t.Fatal(err)
	}
	before := admitted()
	until(t, "the next card is admitted", func() bool { card(); return admitted() > before })
	until(t, "the lane is well again", func() bool { return !degraded() })
	stop()
	if err := <-done; err != nil {
		t.Error(err)
	}
	j := openJournal(t, filepath.Join(dir, "state"))
	defer j.Close()
	var told []string
	eachEntry(t, j, func(e *edge.Entry) {
		if e.Kind == edge.KindDevice {
			for _, st := range []string{"absent", "disconnected", `"ok"`} {
				if strings.Contains(string(e.Data), st) {
					told = append(told, strings.Trim(st, `"`))
					break
				}
			}
		}
	})
	if len(told) < 4 {
		t.Errorf("the journal tells of the reader: %v; want that it failed and came back, twice", told)
	}
}
