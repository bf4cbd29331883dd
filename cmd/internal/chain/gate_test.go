package chain

import (
	"context"
	"encoding/base64"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sync/errgroup"
	"golang.org/x/sys/unix"

	"gatehouse/edge"
	"gatehouse/edge/clock"
	"gatehouse/edge/identity"
	"gatehouse/edge/journal"
	"gatehouse/sync/mqtt"
	"gatehouse/sync/uplink"
	"gatehouse/sync/wire"
)

// A gate and a server are measured apart: each in a process of its own, which is
// this program again.
const (
	envRole   = "GATEHOUSE_CHAIN_ROLE"
	envDir    = "GATEHOUSE_CHAIN_DIR"
	envBroker = "GATEHOUSE_CHAIN_BROKER"
	envGate   = "GATEHOUSE_CHAIN_GATE" // its public key, base64
)

func TestMain(m *testing.M) {
	role, ok := map[string]func(context.Context) error{"gate": gateProcess, "server": serverProcess}[os.Getenv(envRole)]
	if !ok {
		os.Exit(m.Run())
	}
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGTERM)
	defer stop()
	if err := ignore(role(ctx)); err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
}

func client(name string) (*mqtt.Client, error) {
	return mqtt.New(mqtt.Config{URL: "mqtt://" + os.Getenv(envBroker), ClientID: name, MinBackoff: 10 * time.Millisecond}, discard)
}

// serverProcess answers as a server does until it is told to stop.
func serverProcess(ctx context.Context) error {
	server, err := identity.Open(filepath.Join(os.Getenv(envDir), "server"), Realm+"/server")
	if err != nil {
		return err
	}
	public, err := base64.StdEncoding.DecodeString(os.Getenv(envGate))
	if err != nil {
		return err
	}
	p := &peer{server: server.Signer(), answers: make(chan []byte, 64)}
	if p.device, err = edge.HeadVerifier(Realm+"/"+Site+"/"+Gate, public); err != nil {
		return err
	}
	c, err := client("server")
	if err != nil {
		return err
	}
	c.Subscribe(wire.Topic(Site, Gate, wire.Journal), p.take)
	c.OnConnect(func(context.Context) { fmt.Println("ready") })
	var g errgroup.Group
	g.Go(func() error { return c.Run(ctx) })
	g.Go(func() error { return p.answer(ctx, c) })
	err = g.Wait()
	if f := p.failed.Load(); f != nil {
		return *f
	}
	return err
}

// gateProcess drains its journal and says what memory it had at most and before, in KB.
func gateProcess(ctx context.Context) error {
	dir := os.Getenv(envDir)
	gate, err1 := Identity(dir)
	server, err2 := identity.Open(filepath.Join(dir, "server"), Realm+"/server")
	if err := errors.Join(err1, err2); err != nil {
		return err
	}
	j, err := reopen(ctx, dir, gate)
	if err != nil {
		return err
	}
	defer j.Close()
	base, err := status("/proc/self/status", "VmRSS:")
	if err != nil {
		return err
	}
	ctx, stop := context.WithCancel(ctx)
	defer stop()
	g, err := send(ctx, j, gate, server)
	if err != nil {
		return err
	}
	for j.Acked() < j.Size() {
		time.Sleep(time.Millisecond) // nobody announces the mark
	}
	peak, err := status("/proc/self/status", "VmHWM:")
	if err != nil {
		return err
	}
	fmt.Println(peak, base)
	stop()
	return ignore(g.Wait())
}

func reopen(ctx context.Context, dir string, gate *identity.Identity) (*journal.Journal, error) {
	clk := clock.NewFake(time.Date(2026, 3, 2, 0, 0, 0, 0, time.UTC), 480)
	return journal.Open(ctx, filepath.Join(dir, "journal.db"), journal.Options{Community: Realm, Site: Site, Gate: Gate, Clock: clk, Signer: gate.Signer(), Log: discard})
}

// send starts what a gate sends with.
func send(ctx context.Context, j *journal.Journal, gate, server *identity.Identity) (*errgroup.Group, error) {
	c, err := client("gate")
	if err != nil {
		return nil, err
	}
	trust := []wire.ServerKey{{ID: server.Signer().Name(), Public: server.Signer().Public(), Uses: []wire.Use{wire.UseReceipts}}}
	u, err := uplink.New(uplink.Config{Community: Realm, Site: Site, Gate: Gate, Device: gate.Signer(), Trust: func() []wire.ServerKey { return trust }}, j, c, discard)
	if err != nil {
		return nil, err
	}
	var g errgroup.Group
	g.Go(func() error { return c.Run(ctx) })
	g.Go(func() error { return u.Run(ctx) })
	return &g, nil
}

func status(path, key string) (int, error) {
	text, err := os.ReadFile(path)
	if err != nil {
		return 0, err
	}
	for l := range strings.Lines(string(text)) {
		if f := strings.Fields(l); len(f) == 3 && f[0] == key {
			return strconv.Atoi(f[1])
		}
	}
	return 0, fmt.Errorf("no %s in %s", key, path)
}

// role starts this program again as the gate or the server.
func role(b *testing.B, name, dir, broker string, gate *identity.Identity) *exec.Cmd {
	b.Helper()
	exe, err := os.Executable()
	if err != nil {
		b.Fatal(err)
	}
	cmd := exec.Command(exe)
	// GOGC as in gatehouse.service.
	cmd.Env = append(os.Environ(), "GOGC=40", envRole+"="+name, envDir+"="+dir, envBroker+"="+broker, envGate+"="+base64.StdEncoding.EncodeToString(gate.Signer().Public()))
	cmd.Stderr = os.Stderr
	return cmd
}

// answering starts the server's process and waits for its subscription.
func answering(b *testing.B, dir, broker string, gate *identity.Identity) {
	b.Helper()
	cmd := role(b, "server", dir, broker, gate)
	out, err := cmd.StdoutPipe()
	if err == nil {
		err = cmd.Start()
	}
	if err != nil {
		b.Fatal(err)
	}
	b.Cleanup(func() {
		_ = cmd.Process.Signal(syscall.SIGTERM)
		if err := cmd.Wait(); err != nil {
			b.Errorf("the server's process: %v", err)
		}
	})
	if _, err := out.Read(make([]byte, 16)); err != nil {
		b.Fatal(err)
	}
	elsewhere(b, cmd.Process.Pid)
}

// elsewhere makes a process one that stands for another machine: it has a processor
// only when nothing of this machine wants it. Linux sets that thread by thread.
func elsewhere(b *testing.B, pid int) {
	b.Helper()
	tasks, err := filepath.Glob(fmt.Sprintf("/proc/%d/task/*", pid))
	if err != nil || len(tasks) == 0 {
		b.Fatalf("process %d has no threads: %v", pid, err)
	}
	for _, task := range tasks {
		tid, err := strconv.Atoi(filepath.Base(task))
		if err == nil {
			err = unix.SchedSetAttr(tid, &unix.SchedAttr{Size: unix.SizeofSchedAttr, Policy: unix.SCHED_IDLE}, 0)
		}
		if err != nil {
			b.Fatalf("cannot put thread %s aside: %v", task, err)
		}
	}
}

// filled is a folder with the keys of both and a journal of n entries, closed.
func filled(b *testing.B, n int) (dir string, gate, server *identity.Identity) {
	b.Helper()
	dir = b.TempDir()
	gate, err1 := Identity(dir)
	server, err2 := identity.Open(filepath.Join(dir, "server"), Realm+"/server")
	if err := errors.Join(err1, err2); err != nil {
		b.Fatal(err)
	}
	j, err := Fill(context.Background(), filepath.Join(dir, "journal.db"), gate, n)
	if err == nil {
		err = j.Close()
	}
	if err != nil {
		b.Fatal(err)
	}
	return dir, gate, server
}

// BenchmarkGateMemory is the most memory that a process has while it drains 10,000
// entries, and 1,000,000 with GATEHOUSE_BENCH_FULL=1 (100,000 without).
func BenchmarkGateMemory(b *testing.B) {
	few := 0.0
	for _, n := range append([]int{10_000}, sizes()[len(sizes())-1]) {
		b.Run(fmt.Sprint(n), func(b *testing.B) {
			peak, base := 0.0, 0.0
			for range b.N {
				dir, gate, _ := filled(b, n)
				broker, _ := mosquitto(b)
				answering(b, dir, broker, gate)
				out, err := role(b, "gate", dir, broker, gate).Output()
				if err != nil {
					b.Fatal(err)
				}
				var most, before float64
				if _, err := fmt.Sscan(string(out), &most, &before); err != nil {
					b.Fatal(err)
				}
				peak, base = max(peak, most/1024), max(base, before/1024)
			}
			if few == 0 {
				few = peak
			}
			b.ReportMetric(peak, "MB-at-most")
			b.ReportMetric(base, "MB-before")
			b.ReportMetric(peak/few, "of-10000")
			b.ReportMetric(0, "ns/op")
		})
	}
}

// BenchmarkLaneUnderDrain is how long one lane waits for its entry to be durable,
// alone and while the same process drains a backlog, by turns of a second, since a
// medium is faster in one minute than in the next. Broker and server are other
// machines: they get what the gate leaves.
func BenchmarkLaneUnderDrain(b *testing.B) {
	dir, gate, server := filled(b, sizes()[0])
	broker, pid := mosquitto(b)
	elsewhere(b, pid)
	b.Setenv(envBroker, broker)
	answering(b, dir, broker, gate)
	ctx, stop := context.WithCancel(b.Context())
	defer stop()
	j, err := reopen(ctx, dir, gate)
	if err != nil {
		b.Fatal(err)
	}
	defer j.Close()
	var g errgroup.Group
	g.Go(func() error { return ignore(j.Run(ctx)) })
	clk := clock.NewFake(time.Date(2026, 3, 2, 0, 0, 0, 0, time.UTC), 480)
	i := 0
	lane := func(more func() bool) (took []time.Duration) {
		for more() {
			clk.Advance(time.Second)
			e := decision(clk, i)
			i++
			began := time.Now()
			if _, err := j.Append(ctx, e, nil); err != nil {
				b.Fatal(err)
			}
			took = append(took, time.Since(began))
			time.Sleep(2 * time.Millisecond) // people, though many
		}
		return took
	}
	second := func() func() bool {
		end := time.Now().Add(time.Second)
		return func() bool { return time.Now().Before(end) }
	}
	for range 4 { // the WAL is grown by then
		lane(second())
	}
	// A backlog drains once, whatever b.N is.
	var alone, draining []time.Duration
	for backlog := j.Size(); j.Acked() < backlog; {
		alone = append(alone, lane(second())...)
		turn, over := context.WithCancel(ctx)
		sending, err := send(turn, j, gate, server)
		if err != nil {
			b.Fatal(err)
		}
		first := j.Acked()
		lane(func() bool { return j.Acked() == first }) // it connects
		in := second()
		draining = append(draining, lane(func() bool { return in() && j.Acked() < backlog })...)
		over()
		if err := ignore(sending.Wait()); err != nil {
			b.Fatal(err)
		}
	}
	if min(len(alone), len(draining)) < 1000 {
		b.Fatalf("%d and %d entries say nothing of a p99", len(alone), len(draining))
	}
	at := func(took []time.Duration, percent int) float64 {
		return float64(took[len(took)*percent/100].Microseconds())
	}
	slices.Sort(alone)
	slices.Sort(draining)
	b.ReportMetric(at(alone, 50), "alone-p50-us")
	b.ReportMetric(at(alone, 99), "alone-p99-us")
	b.ReportMetric(at(draining, 50)/at(alone, 50), "draining-p50-x")
	b.ReportMetric(at(draining, 99)/at(alone, 99), "draining-p99-x")
	b.ReportMetric(float64(len(draining)), "entries-meanwhile")
	b.ReportMetric(0, "ns/op")
	stop()
	if err := g.Wait(); err != nil {
		b.Fatal(err)
	}
}
