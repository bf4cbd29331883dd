package app

import (
	"context"
	"fmt"
	"io"
	"log/slog"
	"net"
	"os"
	"path/filepath"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"gatehouse/cmd/internal/config"
	"gatehouse/device/sim"
	"gatehouse/edge"
	"gatehouse/edge/lane"
	"gatehouse/edge/registry"
)

// manager is the service manager's end of sd_notify(3): it counts what feeds the
// watchdog.
func manager(t *testing.T, dir string) *atomic.Int64 {
	t.Helper()
	path := filepath.Join(dir, "notify")
	conn, err := net.ListenUnixgram("unixgram", &net.UnixAddr{Name: path, Net: "unixgram"})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { conn.Close() })
	fed := new(atomic.Int64)
	go func() {
		b := make([]byte, 4096)
		for {
			n, err := conn.Read(b)
			if err != nil {
				return
			}
			if strings.Contains(string(b[:n]), "WATCHDOG=1") {
				fed.Add(1)
			}
		}
	}()
	t.Setenv("NOTIFY_SOCKET", path)
	t.Setenv("WATCHDOG_USEC", fmt.Sprint((300 * time.Millisecond).Microseconds()))
	t.Setenv("WATCHDOG_PID", fmt.Sprint(os.Getpid()))
	return fed
}

// TestStuckIsNotFed: the watchdog is fed while all goes round, and no more when a
// lane's loop stands still.
func TestStuckIsNotFed(t *testing.T) {
	dir := t.TempDir()
	fed := manager(t, dir)
	probe, port := gateIn(t, dir) // writes the files
	if err := probe.Close(); err != nil {
		t.Fatal(err)
	}
	cfg, err := config.Load(filepath.Join(dir, "gate.yaml"))
	if err != nil {
		t.Fatal(err)
	}
	board, release := sim.NewPins(), make(chan struct{})
	var held atomic.Bool
	hold := func() {
		held.Store(true)
		<-release
	}
	o := Options{Version: "test", Log: slog.New(slog.NewTextHandler(io.Discard, nil)), TrustClock: true, Pins: board.Open, Notifier: &Notifier{Log: slog.New(slog.DiscardHandler)},
		Timings: func(lane.Timing) { hold() }} // called in the lane's loop
	a, err := Build(t.Context(), cfg, o)
	if err != nil {
		t.Fatal(err)
	}
	row := edge.RosterRow{Pass: edge.Pass{ID: 1, Category: "resident", Status: edge.PassActive}, Credentials: []edge.Credential{"em:3C00CE7501"}}
	if _, err := a.Registry.Import(t.Context(), func(yield func(edge.RosterRow, error) bool) { yield(row, nil) }, registry.ImportOptions{}); err != nil {
		t.Fatal(err)
	}
	line, err := sim.NewSerial(port)
	if err != nil {
		t.Fatal(err)
	}
	defer line.Close()
	reader := sim.NewRDM6300(line, 1)
	ctx, stop := context.WithCancel(t.Context())
	done := make(chan error, 1)
	go func() { done <- a.Run(ctx) }()
	until(t, "the watchdog is fed", func() bool {
		select {
		case err := <-done:
			t.Fatalf("the gate ended: %v", err)
		default:
		}
		return fed.Load() > 5
	})
	until(t, "it is stuck", func() bool {
		_ = reader.Hold(ctx, sim.EM4100{0x3C, 0x00, 0xCE, 0x75, 0x01}, 100*time.Millisecond)
		return held.Load()
	})
	until(t, "it is noticed", func() bool { return a.Alive() != nil })
	if err := a.Alive(); !strings.HasPrefix(err.Error(), "lane in has made no progress") {
		t.Errorf("said %v", err)
	}
	// One may have been on its way; then none, for many times the interval.
	last := fed.Load()
	time.Sleep(time.Second)
	if got := fed.Load(); got > last+1 {
		t.Errorf("fed %d times although stuck", got-last)
	}
	close(release)
	until(t, "it is fed again", func() bool { return fed.Load() > last+3 })
	stop()
	if err := <-done; err != nil {
		t.Error(err)
	}
}
