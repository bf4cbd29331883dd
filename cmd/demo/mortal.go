package main

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"math/rand/v2"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"sync"
	"syscall"
	"time"

	"github.com/spf13/cobra"
	"periph.io/x/conn/v3/gpio"

	"gatehouse/cmd/internal/app"
	"gatehouse/cmd/internal/config"
	"gatehouse/cmd/internal/estate"
	"gatehouse/device/sim"
	"gatehouse/edge"
	"gatehouse/edge/identity"
	firmwareconfig "gatehouse/firmware-config"
)

// The north gate is a process of its own, so that it can be killed as a power cut
// or a crash would, and its disk be rolled back to an older copy.

const northName = "north"

const northConfig = `# Written by the demo.
community: %s
site: %s
gate: north
name: North gate
area: main
timezone: %s
state: state
policy: policy.yaml
keys: {site: %s}
sync: {url: %q, trust: %q, batch_age: 200ms, resend_after: 3s}
console: {listen: ""}
passages:
  - {name: in, barrier: {driver: relay, pin: in-BARRIER, pulse: 100ms}, beam: {driver: gpio, pin: in-BEAM, active: low, pull: up, debounce: 5ms}, open_for: 2s}
  - {name: out, barrier: {driver: relay, pin: out-BARRIER, pulse: 100ms}, beam: {driver: gpio, pin: out-BEAM, active: low, pull: up, debounce: 5ms}, open_for: 2s}
lanes:
  - {name: north-in, passage: in, direction: in, scanner: {driver: rdm6300, port: %q}, thermometer: typed, measure_timeout: 1s, refer_timeout: 1s}
  - {name: north-out, passage: out, direction: out, scanner: {driver: rdm6300, port: %q}, thermometer: typed, measure_timeout: 1s, refer_timeout: 1s}
`

// gateCommand is the process of the north gate: hidden, for the demo starts it.
func gateCommand() *cobra.Command {
	return &cobra.Command{Use: "gate CONFIG", Hidden: true, Args: cobra.ExactArgs(1), RunE: func(cmd *cobra.Command, args []string) error {
		ctx, stop := signal.NotifyContext(cmd.Context(), syscall.SIGTERM)
		defer stop()
		return runMortal(ctx, args[0])
	}}
}

// told is what the process says of itself, a line each time, without a buffer.
type told struct {
	Ready  bool   `json:"ready,omitempty"`
	Opened bool   `json:"opened,omitempty"` // a barrier was moved
	Size   uint64 `json:"size"`
	Acked  uint64 `json:"acked"`
	Epoch  string `json:"epoch,omitempty"`
}

func runMortal(ctx context.Context, path string) error {
	cfg, err := config.Load(path)
	if err != nil {
		return err
	}
	var mu sync.Mutex
	var a *app.App
	say := func(t told) {
		mu.Lock()
		defer mu.Unlock()
		t.Size, t.Acked, t.Epoch = a.Journal.Size(), a.Journal.Acked(), a.Journal.Epoch().String()
		b, err := json.Marshal(t)
		if err == nil {
			fmt.Println(string(b))
		}
	}
	board := sim.NewPins()
	for _, p := range []string{"in", "out"} {
		beam := board.Pin(p + "-BEAM")
		beam.Drive(gpio.High)
		board.Pin(p + "-BARRIER").OnMove(func(m sim.Move) {
			if m.Level != gpio.High {
				return
			}
			go say(told{Opened: true})
			go func() { // whoever was admitted walks through
				time.Sleep(200 * time.Millisecond)
				beam.Drive(gpio.Low)
				time.Sleep(100 * time.Millisecond)
				beam.Drive(gpio.High)
			}()
		})
	}
	ready := make(chan struct{})
	a, err = app.Build(ctx, cfg, app.Options{Version: "demo", Log: slog.New(slog.NewTextHandler(os.Stderr, &slog.HandlerOptions{Level: slog.LevelError})), TrustClock: true, Pins: board.Open,
		Ready: func(*app.App) { close(ready) }})
	if err != nil {
		return err
	}
	done := make(chan error, 1)
	go func() { done <- a.Run(ctx) }()
	t := time.NewTicker(200 * time.Millisecond)
	defer t.Stop()
	for {
		select {
		case err := <-done:
			say(told{})
			return err
		case <-ready:
			ready = nil
			say(told{Ready: true})
			go typeTemperatures(ctx, a)
		case <-t.C:
			say(told{})
		}
	}
}

// typeTemperatures is a guard with an instrument of their own.
func typeTemperatures(ctx context.Context, a *app.App) {
	for sleep(ctx, 100*time.Millisecond) {
		for _, v := range a.Lanes.Views() {
			if v.State == edge.LaneMeasuring && v.Current != nil {
				_ = a.Lanes.Do(ctx, edge.Action{Kind: edge.ActReading, Lane: v.Lane, Presentation: v.Current.ID, Actor: "guard:9", Value: 36.4})
			}
		}
	}
}

// mortal is the north gate as the demo sees it.
type mortal struct {
	dir, cfg string
	scr      *screen
	readers  []*sim.RFID
	lines    []io.Closer
	rng      *rand.Rand
	est      *estate.Estate
	paused   sync.RWMutex // held by those who show cards

	mu     sync.Mutex
	cmd    *exec.Cmd
	gone   chan struct{}
	last   told
	opened int
	kills  int
	back   uint64 // entries that the disk forgot when it was rolled back
}

func newMortal(ctx context.Context, dir, url, trust string, seed uint64, est *estate.Estate, srv *server, scr *screen) (_ *mortal, err error) {
	m := &mortal{dir: filepath.Join(dir, northName), scr: scr, est: est, rng: rand.New(rand.NewPCG(seed, 77))}
	defer func() {
		if err != nil {
			m.close()
		}
	}()
	keys := filepath.Join(m.dir, "state", "keys")
	if err := os.MkdirAll(keys, 0o700); err != nil {
		return nil, err
	}
	id, err := identity.Open(keys, realm+"/"+siteName+"/"+northName)
	if err != nil {
		return nil, err
	}
	if err := srv.RegisterGate(ctx, siteName, northName, id.Signer().Public(), id.Recipient(), "the demo"); err != nil {
		return nil, err
	}
	pol, err := firmwareconfig.Samples.ReadFile("policies/normal-times.yaml")
	if err != nil {
		return nil, err
	}
	if err := os.WriteFile(filepath.Join(m.dir, "policy.yaml"), pol, 0o600); err != nil {
		return nil, err
	}
	var ports []any
	for i, lane := range []string{"in", "out"} {
		line, err := sim.NewSerial(filepath.Join(m.dir, lane+".reader"))
		if err != nil {
			return nil, err
		}
		m.lines = append(m.lines, line)
		m.readers = append(m.readers, sim.NewRDM6300(line, seed+uint64(i)))
		ports = append(ports, line.Path())
	}
	m.cfg = filepath.Join(m.dir, "gate.yaml")
	text := fmt.Sprintf(northConfig, append([]any{realm, siteName, morning(time.Now()), filepath.Join(dir, "site.key"), url, trust}, ports...)...)
	return m, os.WriteFile(m.cfg, []byte(text), 0o600)
}

func (m *mortal) close() {
	for _, l := range m.lines {
		_ = l.Close()
	}
}

// start starts the process and waits until it is ready.
func (m *mortal) start(ctx context.Context) error {
	self, err := os.Executable()
	if err != nil {
		return err
	}
	cmd := exec.Command(self, "gate", m.cfg)
	cmd.Stderr = os.Stderr
	// When the demo is killed, its gate goes too.
	cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	out, err := cmd.StdoutPipe()
	if err != nil {
		return err
	}
	if err := cmd.Start(); err != nil {
		return err
	}
	ready, gone := make(chan struct{}), make(chan struct{})
	m.mu.Lock()
	m.cmd, m.gone = cmd, gone
	m.mu.Unlock()
	go func() {
		defer close(gone)
		once := sync.OnceFunc(func() { close(ready) })
		for sc := bufio.NewScanner(out); sc.Scan(); {
			var t told
			if json.Unmarshal(sc.Bytes(), &t) != nil {
				continue
			}
			m.mu.Lock()
			m.last = t
			if t.Opened {
				m.opened++
			}
			m.mu.Unlock()
			if t.Ready {
				once()
			}
		}
		_ = cmd.Wait()
	}()
	select {
	case <-ready:
		return nil
	case <-gone:
		return errors.New("the north gate does not start")
	case <-ctx.Done():
		return ctx.Err()
	case <-time.After(30 * time.Second):
		return errors.New("the north gate is not ready within half a minute")
	}
}

// signal ends the process and waits until it is gone.
func (m *mortal) signal(s syscall.Signal) {
	m.mu.Lock()
	cmd, gone := m.cmd, m.gone
	m.mu.Unlock()
	if cmd == nil {
		return
	}
	_ = cmd.Process.Signal(s)
	select {
	case <-gone:
	case <-time.After(15 * time.Second):
		_ = cmd.Process.Kill()
		<-gone
	}
}

func (m *mortal) state() told {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.last
}

// come shows cards until ctx is done.
func (m *mortal) come(ctx context.Context, wg *sync.WaitGroup) {
	for i, r := range m.readers {
		rng := rand.New(rand.NewPCG(uint64(i), 99))
		wg.Go(func() {
			for sleep(ctx, time.Duration(800+rng.IntN(900))*time.Millisecond) {
				m.paused.RLock()
				p := m.est.People[rng.IntN(len(m.est.People))]
				_ = r.Hold(ctx, sim.EM4100(p.Card), 100*time.Millisecond)
				m.paused.RUnlock()
			}
		})
	}
}

// suffer kills the gate some times while people pass, and rolls its disk back
// when that is asked for.
func (m *mortal) suffer(ctx context.Context, length time.Duration, rollback bool) error {
	kill := func(what string) {
		m.scr.line("--- the north gate %s, in the middle of the traffic (kill -9) ---", what)
		m.signal(syscall.SIGKILL)
		m.mu.Lock()
		m.kills++
		m.mu.Unlock()
	}
	if !sleep(ctx, length/4) {
		return nil
	}
	kill("is killed")
	image := filepath.Join(m.dir, "image")
	if rollback {
		m.scr.line("--- somebody makes an image of its card ---")
		if err := exec.Command("cp", "-a", filepath.Join(m.dir, "state"), image).Run(); err != nil {
			return fmt.Errorf("cannot copy the state folder: %w", err)
		}
	}
	if err := m.start(ctx); err != nil || !sleep(ctx, length/4) {
		return err
	}
	if !rollback {
		kill("is killed again")
		return m.start(ctx)
	}
	// Whoever is there goes through first, and the server gets everything: what it
	// does not have, a rolled back disk forgets for good.
	m.paused.Lock()
	defer m.paused.Unlock()
	for end := time.Now().Add(20 * time.Second); time.Now().Before(end); {
		if s := m.state(); !sleep(ctx, 2500*time.Millisecond) || s.Size > 0 && s.Size == s.Acked && s == m.state() {
			break
		}
	}
	before := m.state()
	kill("is killed")
	if err := os.RemoveAll(filepath.Join(m.dir, "state")); err != nil {
		return err
	}
	if err := os.Rename(image, filepath.Join(m.dir, "state")); err != nil {
		return err
	}
	if err := m.start(ctx); err != nil {
		return err
	}
	m.mu.Lock()
	m.back = before.Size - min(before.Size, m.last.Size)
	m.mu.Unlock()
	m.scr.line("--- its card is replaced by the older image: %d entries are forgotten there, the server has them ---", m.back)
	return nil
}

// verify compares what the barrier did with what the server has: every person
// for whom it moved has an admission there.
func (m *mortal) verify(ctx context.Context, srv *server, sum *summary) error {
	counts, err := srv.Counts(ctx, siteName, northName)
	if err != nil {
		return err
	}
	n := northSum{Kills: m.kills, Opened: m.opened, Forgotten: m.back}
	for _, c := range counts {
		n.Stored += c.Stored
		n.Missing += c.Missing
		n.Duplicate += c.Duplicated
		n.Epochs++
		if c.Parent != 0 {
			n.Links = append(n.Links, fmt.Sprintf("%s from %s at entry %d", c.Epoch, c.Parent, c.Forked))
		}
		err := srv.Export(ctx, siteName, northName, c.Epoch, func(_ uint64, line []byte) error {
			e, err := edge.DecodeEntry(line)
			if err != nil {
				return err
			}
			// A carried entry of a fork holds the other, verbatim.
			if e.Outcome == edge.Admit || e.Kind == edge.KindCarried && bytes.Contains(e.Data, []byte(`"outcome":"admit"`)) {
				n.Admissions++
			}
			return nil
		})
		if err != nil {
			return err
		}
	}
	// The last epoch is the living one: its journal must be there whole.
	if last := m.state(); last.Acked < last.Size {
		n.Missing += last.Size - last.Acked
	}
	if n.Admissions < n.Opened {
		sum.Findings = append(sum.Findings, fmt.Sprintf("the north gate's barriers moved for %d people, the server has %d admissions", n.Opened, n.Admissions))
	}
	if m.back > 0 && len(n.Links) == 0 {
		sum.Findings = append(sum.Findings, "the north gate's disk was rolled back, and the server links no epoch to another")
	}
	sum.Missing += n.Missing
	sum.Duplicated += n.Duplicate
	sum.North = &n
	return nil
}

// northSum is what the summary says of the north gate.
type northSum struct {
	Kills      int      `json:"kills"`
	Opened     int      `json:"barrier_moved"`
	Admissions int      `json:"admissions_at_server"`
	Stored     uint64   `json:"stored"`
	Missing    uint64   `json:"missing"`
	Duplicate  uint64   `json:"duplicated"`
	Epochs     int      `json:"epochs"`
	Links      []string `json:"links,omitempty"`
	Forgotten  uint64   `json:"forgotten_by_the_disk,omitempty"`
}

func (n *northSum) print(w io.Writer) {
	fmt.Fprintf(w, "  north    killed %d times; barriers moved for %d people, %d admissions and %d entries at the server in %d epochs, %d missing, %d duplicated\n", n.Kills, n.Opened, n.Admissions, n.Stored, n.Epochs, n.Missing, n.Duplicate)
	for _, l := range n.Links {
		fmt.Fprintf(w, "           epoch %s; the disk had forgotten %d entries\n", l, n.Forgotten)
	}
}
