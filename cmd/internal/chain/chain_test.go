package chain

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"
	"golang.org/x/sync/errgroup"

	"gatehouse/edge/identity"
	"gatehouse/sync/community"
	"gatehouse/sync/mqtt"
	"gatehouse/sync/uplink"
	"gatehouse/sync/wire"
)

// sizes are the backlogs that are drained; GATEHOUSE_BENCH_FULL=1 adds a million.
func sizes() []int {
	if os.Getenv("GATEHOUSE_BENCH_FULL") != "" {
		return []int{100_000, 1_000_000}
	}
	return []int{100_000}
}

var discard = slog.New(slog.DiscardHandler)

// program finds one or fails: nothing here is skipped to get a green line.
func program(b *testing.B, name string, patterns ...string) string {
	b.Helper()
	for _, p := range patterns {
		if found, err := filepath.Glob(p); err == nil && len(found) > 0 {
			slices.Sort(found)
			return found[len(found)-1]
		}
	}
	p, err := exec.LookPath(name)
	if err != nil {
		b.Fatalf("%s is needed: %v", name, err)
	}
	return p
}

// mosquitto starts a broker and returns its address and process.
func mosquitto(b *testing.B) (addr string, pid int) {
	b.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		b.Fatal(err)
	}
	addr = l.Addr().String()
	if err := l.Close(); err != nil {
		b.Fatal(err)
	}
	_, port, _ := net.SplitHostPort(addr)
	conf := filepath.Join(b.TempDir(), "m.conf")
	// Without set_tcp_nodelay a small window waits for the other side's delayed
	// acknowledgements.
	text := "listener " + port + " 127.0.0.1\nallow_anonymous true\nset_tcp_nodelay true\npersistence false\n"
	if err := os.WriteFile(conf, []byte(text), 0o644); err != nil {
		b.Fatal(err)
	}
	cmd := exec.Command(program(b, "mosquitto", "/usr/sbin/mosquitto"), "-c", conf)
	if err := cmd.Start(); err != nil {
		b.Fatal(err)
	}
	b.Cleanup(func() {
		_ = cmd.Process.Kill()
		_ = cmd.Wait()
	})
	return addr, cmd.Process.Pid
}

// nobody runs PostgreSQL when the benchmark runs as root, which it refuses.
const nobody = 65534

// postgres starts a server and returns the address of an empty database.
func postgres(b *testing.B) string {
	b.Helper()
	initdb := program(b, "initdb", "/usr/lib/postgresql/*/bin/initdb")
	dir := b.TempDir()
	run := func(name string, args ...string) {
		b.Helper()
		cmd := exec.Command(filepath.Join(filepath.Dir(initdb), name), args...)
		cmd.Dir = dir
		if os.Getuid() == 0 {
			cmd.SysProcAttr = &syscall.SysProcAttr{Credential: &syscall.Credential{Uid: nobody, Gid: nobody}}
		}
		if err := cmd.Run(); err != nil {
			log, _ := os.ReadFile(filepath.Join(dir, "log"))
			b.Fatalf("%s: %v\n%s", name, err, log)
		}
	}
	if os.Getuid() == 0 {
		if err := errors.Join(os.Chmod(filepath.Dir(dir), 0o755), os.Chown(dir, nobody, nobody)); err != nil {
			b.Fatal(err)
		}
	}
	data := filepath.Join(dir, "d")
	run("initdb", "-D", data, "-U", "test", "-A", "trust", "-E", "UTF8", "--locale=C", "--no-sync", "--no-instructions")
	run("pg_ctl", "-D", data, "-w", "-l", filepath.Join(dir, "log"), "-o",
		"-c listen_addresses='' -c shared_buffers=256MB -c max_wal_size=4GB -c unix_socket_directories="+dir, "start")
	b.Cleanup(func() { run("pg_ctl", "-D", data, "-m", "immediate", "-w", "stop") })
	return "postgres://test@/postgres?host=" + url.QueryEscape(dir)
}

// resident is the resident memory of this process in MB.
func resident(b *testing.B) float64 {
	b.Helper()
	text, err := os.ReadFile("/proc/self/status")
	if err != nil {
		b.Fatal(err)
	}
	for l := range strings.Lines(string(text)) {
		if f := strings.Fields(l); len(f) == 3 && f[0] == "VmRSS:" {
			kb, err := strconv.Atoi(f[1])
			if err != nil {
				b.Fatal(err)
			}
			return float64(kb) / 1024
		}
	}
	b.Fatal("no VmRSS")
	return 0
}

// BenchmarkChain drains a journal through Mosquitto into PostgreSQL, until the
// gate's own mark says that everything is receipted. Its floor is what is in the
// database then, copied bare into empty tables of the same columns and keys, in
// transactions of the server's size.
func BenchmarkChain(b *testing.B) {
	few := 0.0
	for _, n := range sizes() {
		b.Run(fmt.Sprint(n), func(b *testing.B) {
			var cpu, floor time.Duration
			for range b.N {
				b.StopTimer()
				store := postgres(b)
				cpu += drain(b, n, store)
				floor += bare(b, n, store)
				b.StartTimer()
			}
			rate := float64(n) * float64(b.N) / b.Elapsed().Seconds()
			if few == 0 {
				few = rate
			}
			b.ReportMetric(rate, "entries/s")
			b.ReportMetric(rate/few, "of-100000")
			b.ReportMetric(float64(n)*float64(b.N)/floor.Seconds(), "bare-entries/s")
			b.ReportMetric(floor.Seconds()/b.Elapsed().Seconds(), "of-bare")
			b.ReportMetric(0, "ns/op")
			b.ReportMetric(float64(cpu.Nanoseconds())/float64(n)/float64(b.N), "own-cpu-ns/entry")
			b.ReportMetric(resident(b), "MB-resident-all")
		})
	}
}

// used is the processor time of this process so far.
func used(b *testing.B) time.Duration {
	b.Helper()
	var u syscall.Rusage
	if err := syscall.Getrusage(syscall.RUSAGE_SELF, &u); err != nil {
		b.Fatal(err)
	}
	return time.Duration(u.Utime.Nano() + u.Stime.Nano())
}

// bare copies what the server stored once more, and says how long the writing took.
func bare(b *testing.B, n int, store string) (took time.Duration) {
	ctx := context.Background()
	c, err := pgx.Connect(ctx, store)
	if err != nil {
		b.Fatal(err)
	}
	defer c.Close(ctx)
	exec := func(q string) {
		if _, err := c.Exec(ctx, q); err != nil {
			b.Fatal(err)
		}
	}
	exec("CREATE SCHEMA bare")
	tables := []struct {
		name, seq string
		columns   []string
	}{{"entry", "seq", nil}, {"leaf", "first", nil}, {"block", "first", nil}, {"delta", "seq", nil}}
	for i, t := range tables {
		exec("CREATE TABLE bare." + t.name + " (LIKE public." + t.name + " INCLUDING ALL)")
		rows, err := c.Query(ctx, "SELECT * FROM public."+t.name+" LIMIT 0")
		if err != nil {
			b.Fatal(err)
		}
		for _, f := range rows.FieldDescriptions() {
			tables[i].columns = append(tables[i].columns, f.Name)
		}
		rows.Close()
	}
	entries := int64(0)
	const group = 4096 // as the server's
	for first := 0; first < n; first += group {
		var parts [][][]any
		for _, t := range tables {
			rows, err := c.Query(ctx, fmt.Sprintf("SELECT * FROM public.%s WHERE %s >= $1 AND %[2]s < $2", t.name, t.seq), first, first+group)
			if err != nil {
				b.Fatal(err)
			}
			part, err := pgx.CollectRows(rows, func(r pgx.CollectableRow) ([]any, error) { return r.Values() })
			if err != nil {
				b.Fatal(err)
			}
			parts = append(parts, part)
		}
		began := time.Now()
		tx, err := c.Begin(ctx)
		if err != nil {
			b.Fatal(err)
		}
		for i, t := range tables {
			k, err := tx.CopyFrom(ctx, pgx.Identifier{"bare", t.name}, t.columns, pgx.CopyFromRows(parts[i]))
			if err != nil {
				b.Fatal(err)
			}
			if t.name == "entry" {
				entries += k
			}
		}
		if err := tx.Commit(ctx); err != nil {
			b.Fatal(err)
		}
		took += time.Since(began)
	}
	if entries != int64(n) {
		b.Fatalf("%d rows were copied, not %d", entries, n)
	}
	return took
}

// drain is one run; only the draining itself is timed. It returns the processor
// time that gate and server took together, without broker and database.
func drain(b *testing.B, n int, store string) time.Duration {
	dir := b.TempDir()
	id, err := Identity(dir)
	if err != nil {
		b.Fatal(err)
	}
	sid, err := identity.Open(filepath.Join(dir, "server"), Realm+"/server")
	if err != nil {
		b.Fatal(err)
	}
	j, err := Fill(context.Background(), filepath.Join(dir, "journal.db"), id, n)
	if err != nil {
		b.Fatal(err)
	}
	defer j.Close()
	addr, _ := mosquitto(b)

	ctx, cancel := context.WithCancel(context.Background())
	srv, err := community.Open(ctx, store, community.Config{Community: Realm, Signer: sid.Signer(), Log: discard})
	if err != nil {
		b.Fatal(err)
	}
	if err := srv.RegisterGate(ctx, "estate", "east", id.Signer().Public(), id.Recipient(), "bench"); err != nil {
		b.Fatal(err)
	}
	client := func(name string) *mqtt.Client {
		c, err := mqtt.New(mqtt.Config{URL: "mqtt://" + addr, ClientID: name, MinBackoff: 10 * time.Millisecond}, discard)
		if err != nil {
			b.Fatal(err)
		}
		return c
	}
	up := make(chan struct{})
	sc, gc := client("server"), client("gate")
	srv.Attach(sc)
	once := sync.OnceFunc(func() { close(up) })
	sc.OnConnect(func(context.Context) { once() })
	trust := []wire.ServerKey{{ID: sid.Signer().Name(), Public: sid.Signer().Public(), Uses: []wire.Use{wire.UseReceipts}}}
	u, err := uplink.New(uplink.Config{Community: Realm, Site: "estate", Gate: "east", Device: id.Signer(), Trust: func() []wire.ServerKey { return trust }}, j, gc, discard)
	if err != nil {
		b.Fatal(err)
	}
	var g errgroup.Group
	g.Go(func() error { return sc.Run(ctx) })
	g.Go(func() error { return srv.Run(ctx) })
	<-up
	before := used(b)
	b.StartTimer()
	g.Go(func() error { return gc.Run(ctx) })
	g.Go(func() error { return u.Run(ctx) })
	for j.Acked() < j.Size() {
		time.Sleep(time.Millisecond) // the mark is what is measured, and nobody announces it
	}
	b.StopTimer()
	cpu := used(b) - before
	cancel()
	if err := g.Wait(); err != nil && !errors.Is(err, context.Canceled) {
		b.Fatal(err)
	}
	cs, err := srv.Counts(context.Background(), "", "")
	if err != nil || len(cs) != 1 || cs[0].Stored != uint64(n) || cs[0].Missing != 0 || cs[0].Duplicated != 0 {
		b.Fatalf("%+v %v", cs, err)
	}
	if err := srv.Close(); err != nil {
		b.Fatal(err)
	}
	return cpu
}
