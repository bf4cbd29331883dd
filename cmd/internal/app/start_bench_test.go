package app

import (
	"bufio"
	"context"
	"fmt"
	"io"
	"log/slog"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"gatehouse/cmd/internal/config"
	"gatehouse/cmd/internal/estate"
	"gatehouse/device/sim"
	"gatehouse/edge"
	"gatehouse/edge/registry"
	firmwareconfig "gatehouse/firmware-config"
)

const startConfig = `community: c
site: s
gate: g
state: state
policy: policy.yaml
console: {listen: ""}
passages:
  - {name: in, barrier: {driver: relay, pin: in-BARRIER, pulse: 50ms}, beam: {driver: gpio, pin: in-BEAM, active: low, pull: up, debounce: 5ms}, open_for: 1s}
lanes:
  - {name: in, passage: in, direction: in, scanner: {driver: rdm6300, port: "%s", held: 100ms}, thermometer: none}
`

// BenchmarkStart is the time from exec of the daemon to the barrier's command for a
// card that is held to the reader all the time, with a roster of 1,000 passes and
// with 100,000, or 1,000,000 when GATEHOUSE_BENCH_MILLION is set. The floor is what
// the same program takes with one pass.
func BenchmarkStart(b *testing.B) {
	most := 100_000
	if os.Getenv("GATEHOUSE_BENCH_MILLION") != "" {
		most = 1_000_000
	}
	few := 0.0
	for _, n := range []int{1, 1_000, most} {
		b.Run(fmt.Sprintf("passes=%d", n), func(b *testing.B) {
			start := newStarter(b, n)
			var took []time.Duration
			for b.Loop() {
				took = append(took, start())
			}
			slices.Sort(took)
			p50 := float64(took[len(took)/2].Microseconds()) / 1000
			b.ReportMetric(p50, "exec-to-admission-p50-ms")
			if n == 1_000 {
				few = p50
			}
			if few > 0 {
				b.ReportMetric(p50/few, "of-1000")
			}
			b.ReportMetric(0, "ns/op")
		})
	}
}

// newStarter makes a gate with n passes; each call of start is one life of its daemon.
func newStarter(b *testing.B, n int) (start func() time.Duration) {
	b.Helper()
	dir := b.TempDir()
	pol, err := firmwareconfig.Samples.ReadFile("policies/normal-times.yaml")
	if err != nil {
		b.Fatal(err)
	}
	line, err := sim.NewSerial(filepath.Join(dir, "reader"))
	if err != nil {
		b.Fatal(err)
	}
	b.Cleanup(func() { _ = line.Close() })
	path := filepath.Join(dir, "gate.yaml")
	for name, text := range map[string]string{"policy.yaml": string(pol), "gate.yaml": fmt.Sprintf(startConfig, line.Path())} {
		if err := os.WriteFile(filepath.Join(dir, name), []byte(text), 0o600); err != nil {
			b.Fatal(err)
		}
	}
	cfg, err := config.Load(path)
	if err == nil {
		err = os.MkdirAll(cfg.State, 0o700)
	}
	if err != nil {
		b.Fatal(err)
	}
	reg, err := OpenRegistry(b.Context(), cfg, nil, slog.New(slog.DiscardHandler))
	if err != nil {
		b.Fatal(err)
	}
	est := estate.New(1, estate.Options{Residents: n, Now: time.Now()})
	_, err = reg.Import(b.Context(), func(yield func(edge.RosterRow, error) bool) {
		for _, p := range est.People {
			if !yield(p.Row, nil) {
				return
			}
		}
	}, registry.ImportOptions{})
	if err == nil {
		err = reg.Close()
	}
	if err != nil {
		b.Fatal(err)
	}
	reader := sim.NewRDM6300(line, 1)
	next := 0
	return func() time.Duration {
		// Another one each time: nobody comes in twice.
		p := est.People[next%n]
		for next++; p.Row.Pass.Category != "resident" && next < 10*n; next++ {
			p = est.People[next%n]
		}
		ctx, cancel := context.WithCancel(b.Context())
		held := make(chan error, 1)
		go func() { held <- reader.Hold(ctx, sim.EM4100(p.Card), time.Hour) }()
		cmd := exec.Command(os.Args[0])
		cmd.Env = append(os.Environ(), childEnv+"="+path)
		cmd.Stderr = os.Stderr
		out, err := cmd.StdoutPipe()
		if err != nil {
			b.Fatal(err)
		}
		began := time.Now()
		if err := cmd.Start(); err != nil {
			b.Fatal(err)
		}
		took := time.Duration(0)
		for sc := bufio.NewScanner(out); took == 0 && sc.Scan(); {
			if strings.HasPrefix(sc.Text(), "OPEN ") {
				took = time.Since(began)
			}
		}
		cancel()
		<-held
		if err := cmd.Process.Signal(syscall.SIGTERM); err != nil {
			b.Fatal(err)
		}
		_, _ = io.Copy(io.Discard, out)
		if err := cmd.Wait(); err != nil || took == 0 {
			b.Fatalf("the daemon ended without an admission: %v", err)
		}
		return took
	}
}
