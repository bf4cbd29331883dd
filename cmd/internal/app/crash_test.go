package app

import (
	"bufio"
	"context"
	"fmt"
	"io"
	"log/slog"
	"math/rand/v2"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"periph.io/x/conn/v3/gpio"

	"gatehouse/cmd/internal/config"
	"gatehouse/cmd/internal/estate"
	"gatehouse/device/sim"
	"gatehouse/edge"
	"gatehouse/edge/identity"
	"gatehouse/edge/journal"
	firmwareconfig "gatehouse/firmware-config"
	"gatehouse/sync/broker"
	"gatehouse/sync/community"
	"gatehouse/sync/mqtt"
)

// childEnv makes this test binary a gate that can be killed: its value is the
// path of a gate.yaml.
const childEnv = "GATEHOUSE_TEST_GATE"

func TestMain(m *testing.M) {
	if path := os.Getenv(childEnv); path != "" {
		os.Exit(childGate(path))
	}
	if path := os.Getenv(busyEnv); path != "" {
		if err := busyGate(path); err != nil {
			fmt.Fprintln(os.Stderr, err)
			os.Exit(1)
		}
		os.Exit(0)
	}
	os.Exit(m.Run())
}

// childGate runs a gate and says on standard output, without a buffer, whenever
// it commands a barrier, with the journal's size at that moment. It walks
// through its own beams.
func childGate(path string) int {
	cfg, err := config.Load(path)
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	board := sim.NewPins()
	var size func() uint64
	for _, lane := range []string{"in", "out"} {
		beam := board.Pin(lane + "-BEAM")
		beam.Drive(gpio.High)
		board.Pin(lane + "-BARRIER").OnMove(func(m sim.Move) {
			if m.Level != gpio.High {
				return
			}
			fmt.Printf("OPEN %s %d\n", lane, size())
			go func() {
				time.Sleep(20 * time.Millisecond)
				beam.Drive(gpio.Low)
				time.Sleep(20 * time.Millisecond)
				beam.Drive(gpio.High)
			}()
		})
	}
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGTERM)
	defer stop()
	a, err := Build(ctx, cfg, Options{Version: "test", Log: slog.New(slog.NewTextHandler(os.Stderr, &slog.HandlerOptions{Level: slog.LevelError})), TrustClock: true, Pins: board.Open,
		Ready: func(*App) { fmt.Println("READY") }})
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	size = a.Journal.Size
	if err := a.Run(ctx); err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	return 0
}

const crashConfig = `community: c
site: s
gate: g
state: state
policy: policy.yaml
sync: {url: "%s", trust: "%s", batch_age: 50ms, resend_after: 2s}
console: {listen: ""}
passages:
  - {name: in, barrier: {driver: relay, pin: in-BARRIER, pulse: 50ms}, beam: {driver: gpio, pin: in-BEAM, active: low, pull: up, debounce: 5ms}, open_for: 1s}
  - {name: out, barrier: {driver: relay, pin: out-BARRIER, pulse: 50ms}, beam: {driver: gpio, pin: out-BEAM, active: low, pull: up, debounce: 5ms}, open_for: 1s}
defaults: {held_card: 100ms}
lanes:
  - {name: in, passage: in, direction: in, scanner: {driver: rdm6300, port: "%s", held: 100ms}, thermometer: none}
  - {name: out, passage: out, direction: out, scanner: {driver: rdm6300, port: "%s", held: 100ms}, thermometer: none}
`

// TestKilledUnderTraffic kills the daemon (SIGKILL) at random moments while
// people pass. Afterwards everybody for whom a barrier was moved is in the
// journal, and every committed entry is at the server once.
func TestKilledUnderTraffic(t *testing.T) {
	kills := 50
	if testing.Short() {
		kills = 5
	}
	seed := uint64(time.Now().UnixNano())
	if s := os.Getenv("GATEHOUSE_SEED"); s != "" {
		seed, _ = strconv.ParseUint(s, 10, 64)
	}
	t.Logf("GATEHOUSE_SEED=%d", seed)
	rng := rand.New(rand.NewPCG(seed, 9))
	ctx, cancel := context.WithCancel(t.Context())
	dir := t.TempDir()
	log := slog.New(slog.DiscardHandler)

	br, err := broker.Start(filepath.Join(dir, "broker"), "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer br.Stop()
	id, err := identity.Open(filepath.Join(dir, "server"), "server")
	if err != nil {
		t.Fatal(err)
	}
	srv, err := community.Open(ctx, filepath.Join(dir, "community.db"), community.Config{Community: "c", Signer: id.Signer(), Log: log})
	if err != nil {
		t.Fatal(err)
	}
	est := estate.New(seed, estate.Options{Residents: 300, Now: time.Now()})
	if _, err := srv.ImportRoster(ctx, "s", func(yield func(edge.RosterRow, error) bool) {
		for _, r := range est.Rows() {
			if !yield(r, nil) {
				return
			}
		}
	}, community.ImportOptions{MaxGone: 1}); err != nil {
		t.Fatal(err)
	}
	client, err := mqtt.New(mqtt.Config{URL: br.URL(), ClientID: "server", MinBackoff: 50 * time.Millisecond, MaxBackoff: time.Second}, log)
	if err != nil {
		t.Fatal(err)
	}
	srv.Attach(client)
	var parts sync.WaitGroup
	parts.Go(func() { _ = client.Run(ctx) })
	parts.Go(func() { _ = srv.Run(ctx) })
	defer func() {
		cancel()
		parts.Wait()
		if err := srv.Close(); err != nil {
			t.Error(err)
		}
	}()

	gate := filepath.Join(dir, "gate")
	if err := os.MkdirAll(filepath.Join(gate, "state", "keys"), 0o700); err != nil {
		t.Fatal(err)
	}
	device, err := identity.Open(filepath.Join(gate, "state", "keys"), "c/s/g")
	if err != nil {
		t.Fatal(err)
	}
	if err := srv.RegisterGate(ctx, "s", "g", device.Signer().Public(), device.Recipient(), "test"); err != nil {
		t.Fatal(err)
	}
	trust, err := TrustLine(id.Signer())
	if err != nil {
		t.Fatal(err)
	}
	write := func(name, text string) string {
		p := filepath.Join(gate, name)
		if err := os.WriteFile(p, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		return p
	}
	pol, err := firmwareconfig.Samples.ReadFile("policies/normal-times.yaml")
	if err != nil {
		t.Fatal(err)
	}
	write("policy.yaml", string(pol))
	var ports []string
	for _, lane := range []string{"in", "out"} {
		line, err := sim.NewSerial(filepath.Join(gate, lane+".reader"))
		if err != nil {
			t.Fatal(err)
		}
		defer line.Close()
		ports = append(ports, line.Path())
		reader := sim.NewRDM6300(line, seed)
		people := rand.New(rand.NewPCG(seed, uint64(len(lane))))
		parts.Go(func() {
			for ctx.Err() == nil {
				p := est.People[people.IntN(len(est.People))]
				_ = reader.Hold(ctx, sim.EM4100(p.Card), 70*time.Millisecond)
				time.Sleep(time.Duration(people.IntN(60)) * time.Millisecond)
			}
		})
	}
	cfg := write("gate.yaml", fmt.Sprintf(crashConfig, br.URL(), write("trust.txt", trust+"\n"), ports[0], ports[1]))

	opened := map[string]int{} // by lane, over all runs
	enough := func() bool { return opened["in"] >= kills/2 && opened["out"] >= kills/2 }
	plenty := make(chan struct{})
	tell := sync.OnceFunc(func() { close(plenty) })
	check := func() {
		t.Helper()
		admitted := admissions(t, filepath.Join(gate, "state"))
		for lane, n := range opened {
			if admitted[lane] < n {
				t.Errorf("the barrier of lane %s was moved for %d people, the journal has %d admissions", lane, n, admitted[lane])
			}
		}
	}
	for k := range kills {
		cmd := exec.Command(os.Args[0])
		cmd.Env = append(os.Environ(), childEnv+"="+cfg)
		cmd.Stderr = os.Stderr
		out, err := cmd.StdoutPipe()
		if err != nil {
			t.Fatal(err)
		}
		if err := cmd.Start(); err != nil {
			t.Fatal(err)
		}
		last := k == kills-1
		after := time.Duration(100+rng.IntN(900)) * time.Millisecond
		if last {
			after = 3 * time.Second
		}
		ready := make(chan struct{})
		var once sync.Once
		var reading sync.WaitGroup
		reading.Go(func() {
			sc := bufio.NewScanner(out)
			for sc.Scan() {
				switch f := strings.Fields(sc.Text()); {
				case len(f) == 3 && f[0] == "OPEN":
					if opened[f[1]]++; enough() {
						tell()
					}
				case sc.Text() == "READY":
					once.Do(func() { close(ready) })
				}
			}
			_, _ = io.Copy(io.Discard, out)
			once.Do(func() { close(ready) })
		})
		// Some are killed while they start.
		if rng.IntN(5) > 0 || last {
			<-ready
		}
		time.Sleep(after)
		if last {
			select {
			case <-plenty:
			case <-time.After(time.Minute): // a slow machine has little traffic
			}
			// The last run ends in order, when the server has everything.
			_ = cmd.Process.Signal(syscall.SIGTERM)
		} else {
			_ = cmd.Process.Kill()
		}
		reading.Wait()
		_ = cmd.Wait()
		if k%10 == 9 || last {
			check()
		}
		if t.Failed() {
			return
		}
	}
	if !enough() {
		t.Errorf("too little traffic to prove anything: %v", opened)
	}
	t.Logf("%d kills, barriers moved %v", kills-1, opened)
	drain(ctx, t, cfg, srv)
}

// admissions counts the journal's admissions by lane.
func admissions(t *testing.T, state string) map[string]int {
	t.Helper()
	j := openJournal(t, state)
	defer j.Close()
	n := map[string]int{}
	eachEntry(t, j, func(e *edge.Entry) {
		if e.Outcome == edge.Admit && (e.Kind == edge.KindDecision || e.Kind == edge.KindAction) {
			n[e.Lane]++
		}
	})
	return n
}

type fixedClock struct{}

func (fixedClock) Now() edge.Stamp { return edge.Stamp{Time: time.Now().UnixMilli()} }

func openJournal(t *testing.T, state string) *journal.Journal {
	t.Helper()
	j, err := journal.Open(t.Context(), filepath.Join(state, "journal.db"), journal.Options{Community: "c", Site: "s", Gate: "g", Clock: fixedClock{}})
	if err != nil {
		t.Fatal(err)
	}
	return j
}

func eachEntry(t *testing.T, j *journal.Journal, f func(*edge.Entry)) {
	t.Helper()
	for from := uint64(0); from < j.Size(); {
		got, err := j.Read(t.Context(), from, 1000, 1<<20)
		if err != nil {
			t.Fatal(err)
		}
		for _, s := range got {
			if s.Seq != from {
				t.Fatalf("entry %d is missing", from)
			}
			from++
			e, err := edge.DecodeEntry(s.Line)
			if err != nil {
				t.Fatalf("entry %d: %v", s.Seq, err)
			}
			f(e)
		}
	}
}

// drain runs the gate once more without traffic until the server has receipted
// everything, and holds the two against each other.
func drain(ctx context.Context, t *testing.T, path string, srv *community.Server) {
	t.Helper()
	cfg, err := config.Load(path)
	if err != nil {
		t.Fatal(err)
	}
	board := sim.NewPins()
	a, err := Build(ctx, cfg, Options{Version: "test", Log: slog.New(slog.DiscardHandler), TrustClock: true, Pins: board.Open})
	if err != nil {
		t.Fatal(err)
	}
	rctx, stop := context.WithCancel(ctx)
	done := make(chan error, 1)
	go func() { done <- a.Run(rctx) }()
	deadline := time.Now().Add(time.Minute)
	for a.SyncStatus().Backlog() > 0 || a.SyncStatus().Acked == 0 {
		if time.Now().After(deadline) {
			t.Errorf("after a minute the server still lacks entries: %+v", a.SyncStatus())
			break
		}
		time.Sleep(50 * time.Millisecond)
	}
	size := a.SyncStatus().Acked
	stop()
	if err := <-done; err != nil {
		t.Error(err)
	}
	counts, err := srv.Counts(ctx, "s", "g")
	if err != nil {
		t.Fatal(err)
	}
	if len(counts) != 1 || counts[0].Stored < size || counts[0].Missing != 0 || counts[0].Duplicated != 0 {
		t.Errorf("the server has %+v, the gate had receipts for %d", counts, size)
	}
	findings, err := srv.Verify(ctx, "s", "g")
	if err != nil || len(findings) > 0 {
		t.Errorf("the server's verification: %v, %v", findings, err)
	}
	// Byte for byte the same on both sides.
	j := openJournal(t, cfg.State)
	defer j.Close()
	n := uint64(0)
	if err := srv.Export(ctx, "s", "g", j.Epoch(), func(seq uint64, line []byte) error {
		s, err := j.Get(ctx, seq)
		if err != nil {
			return err
		}
		if seq != n || string(s.Line) != string(line) {
			return fmt.Errorf("entry %d differs at the server", seq)
		}
		n++
		return nil
	}); err != nil || n < size {
		t.Errorf("compared %d entries: %v", n, err)
	}
}
