package app

import (
	"bufio"
	"bytes"
	"context"
	"crypto/tls"
	"encoding/json"
	"fmt"
	"io"
	"log/slog"
	"math/rand/v2"
	"net"
	"net/http"
	"net/url"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"periph.io/x/conn/v3/gpio"

	"gatehouse/cmd/internal/config"
	"gatehouse/cmd/internal/estate"
	"gatehouse/device/sim"
	"gatehouse/edge"
	"gatehouse/edge/console/accounts"
	"gatehouse/edge/lane"
	"gatehouse/edge/registry"
	firmwareconfig "gatehouse/firmware-config"
)

// busyEnv makes this test binary a gate with eight busy lanes: its value is the
// path of a gate.yaml.
const busyEnv = "GATEHOUSE_TEST_BUSY"

const busyPIN = "82640917"

// busyReport is what such a gate says when it is sent a line.
type busyReport struct {
	URL      string
	Passed   int
	Changes  uint64        // of lanes, as the pages show them
	P50, P99 time.Duration // of decisions
}

// busyGate lets somebody come to each of its lanes every second and a half.
func busyGate(path string) error {
	cfg, err := config.Load(path)
	if err != nil {
		return err
	}
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGTERM)
	defer stop()
	board, bench := sim.NewPins(), sim.NewBench()
	defer bench.Close()
	tags := map[string]chan sim.EM4100{}
	for i := range cfg.Lanes {
		name := cfg.Lanes[i].Name
		_, reader, err := bench.Reader("hid", "", name, uint64(i))
		if err != nil {
			return err
		}
		tags[name] = make(chan sim.EM4100)
		go func() { _ = reader.Run(ctx, tags[name]) }()
		beam := board.Pin(name + "-BEAM")
		beam.Drive(gpio.High)
		board.Pin(name + "-BARRIER").OnMove(func(m sim.Move) {
			if m.Level != gpio.High {
				return
			}
			go func() {
				time.Sleep(200 * time.Millisecond)
				beam.Drive(gpio.Low)
				time.Sleep(50 * time.Millisecond)
				beam.Drive(gpio.High)
			}()
		})
	}
	var mu sync.Mutex
	var own []time.Duration
	a, err := Build(ctx, cfg, Options{Version: "test", Log: slog.New(slog.DiscardHandler), TrustClock: true, Pins: board.Open, Inputs: bench.Inputs,
		Timings: func(t lane.Timing) {
			mu.Lock()
			defer mu.Unlock()
			if t.Passed == 0 {
				own = append(own, t.Own)
			}
		}})
	if err != nil {
		return err
	}
	if a.Console != nil {
		if _, _, err := a.People.Add(ctx, "system", accounts.Person{Name: "Bench", Role: accounts.Guard, Number: 7}, busyPIN); err != nil {
			return err
		}
	}
	est := estate.New(1, estate.Options{Residents: 400, Now: time.Now()})
	for i := range cfg.Lanes {
		rng := rand.New(rand.NewPCG(1, uint64(i)))
		go func() {
			// A household's people keep to one lane: no pass is at two at once.
			for n := i; ctx.Err() == nil; n += len(cfg.Lanes) {
				time.Sleep(1200*time.Millisecond + time.Duration(rng.IntN(600))*time.Millisecond)
				tags[cfg.Lanes[i].Name] <- sim.EM4100(est.People[n%len(est.People)].Card)
			}
		}()
	}
	go func() {
		var before uint64
		for sc := bufio.NewScanner(os.Stdin); sc.Scan(); {
			mu.Lock()
			r := busyReport{Passed: len(own)}
			if n := len(own); n > 0 {
				slices.Sort(own)
				r.P50, r.P99 = own[n/2], own[n*99/100]
			}
			own = nil
			mu.Unlock()
			var now uint64
			for _, v := range a.Lanes.Views() {
				now += v.Version
			}
			r.Changes, before = now-before, now
			if a.Console != nil {
				r.URL = a.Console.URL()
			}
			b, err := json.Marshal(r)
			if err != nil {
				panic(err)
			}
			fmt.Println(string(b))
		}
		stop()
	}()
	if err := a.Run(ctx); ctx.Err() == nil {
		return err
	}
	return nil
}

// busy is such a gate in a process of its own.
type busy struct {
	b   *testing.B
	cmd *exec.Cmd
	in  io.WriteCloser
	out *bufio.Scanner
}

func startBusy(b *testing.B, listen string) *busy {
	b.Helper()
	dir := b.TempDir()
	pol, err := firmwareconfig.Samples.ReadFile("policies/normal-times.yaml")
	if err != nil {
		b.Fatal(err)
	}
	var y bytes.Buffer
	fmt.Fprintf(&y, "community: c\nsite: s\ngate: g\nname: East gate\nstate: state\npolicy: policy.yaml\nconsole: {listen: %q}\npassages:\n", listen)
	for i := range 8 {
		fmt.Fprintf(&y, "  - {name: p%d, barrier: {driver: relay, pin: lane%[1]d-BARRIER, pulse: 50ms}, beam: {driver: gpio, pin: lane%[1]d-BEAM, active: low, pull: up, debounce: 5ms}, open_for: 1s}\n", i)
	}
	y.WriteString("defaults: {held_card: 100ms}\nlanes:\n")
	for i := range 8 {
		fmt.Fprintf(&y, "  - {name: lane%d, passage: p%[1]d, direction: in, scanner: {driver: hid, name: lane%[1]d, content: decimal, format: W34}, thermometer: none}\n", i)
	}
	for name, text := range map[string][]byte{"policy.yaml": pol, "gate.yaml": y.Bytes()} {
		if err := os.WriteFile(filepath.Join(dir, name), text, 0o600); err != nil {
			b.Fatal(err)
		}
	}
	cfg, err := config.Load(filepath.Join(dir, "gate.yaml"))
	if err != nil {
		b.Fatal(err)
	}
	if err := os.MkdirAll(filepath.Join(dir, "state", "keys"), 0o700); err != nil {
		b.Fatal(err)
	}
	reg, err := OpenRegistry(b.Context(), cfg, nil, slog.New(slog.DiscardHandler))
	if err != nil {
		b.Fatal(err)
	}
	if _, err := reg.Import(b.Context(), func(yield func(edge.RosterRow, error) bool) {
		for _, r := range estate.New(1, estate.Options{Residents: 400, Now: time.Now()}).Rows() {
			if !yield(r, nil) {
				return
			}
		}
	}, registry.ImportOptions{}); err != nil {
		b.Fatal(err)
	}
	if err := reg.Close(); err != nil {
		b.Fatal(err)
	}
	g := &busy{b: b, cmd: exec.Command(os.Args[0])}
	g.cmd.Env = append(os.Environ(), busyEnv+"="+filepath.Join(dir, "gate.yaml"))
	g.cmd.Stderr = os.Stderr
	if g.in, err = g.cmd.StdinPipe(); err != nil {
		b.Fatal(err)
	}
	out, err := g.cmd.StdoutPipe()
	if err != nil {
		b.Fatal(err)
	}
	g.out = bufio.NewScanner(out)
	if err := g.cmd.Start(); err != nil {
		b.Fatal(err)
	}
	return g
}

func (g *busy) end() {
	_ = g.in.Close()
	if err := g.cmd.Wait(); err != nil {
		g.b.Error(err)
	}
}

// report is what has happened since the one before.
func (g *busy) report() busyReport {
	g.b.Helper()
	var r busyReport
	if _, err := io.WriteString(g.in, "\n"); err != nil {
		g.b.Fatal(err)
	}
	if !g.out.Scan() {
		g.b.Fatal("the gate has ended")
	}
	if err := json.Unmarshal(g.out.Bytes(), &r); err != nil {
		g.b.Fatal(err)
	}
	return r
}

// used is the processor time that the gate has taken so far.
func (g *busy) used() time.Duration {
	g.b.Helper()
	raw, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", g.cmd.Process.Pid))
	if err != nil {
		g.b.Fatal(err)
	}
	// The second field, the name in brackets, may hold blanks: proc_pid_stat(5).
	f := strings.Fields(string(raw[bytes.LastIndexByte(raw, ')')+1:]))
	var ticks int64
	for _, s := range f[11:13] { // utime, stime
		n, err := strconv.ParseInt(s, 10, 64)
		if err != nil {
			g.b.Fatal(err)
		}
		ticks += n
	}
	return time.Duration(ticks) * (time.Second / 100) // USER_HZ
}

// resident is its memory in MB.
func (g *busy) resident() float64 {
	g.b.Helper()
	raw, err := os.ReadFile(fmt.Sprintf("/proc/%d/statm", g.cmd.Process.Pid))
	if err != nil {
		g.b.Fatal(err)
	}
	n, err := strconv.ParseFloat(strings.Fields(string(raw))[1], 64)
	if err != nil {
		g.b.Fatal(err)
	}
	return n * float64(os.Getpagesize()) / 1e6
}

// phase lets people pass for a while and says what that took.
func (g *busy) phase(d time.Duration) (share float64, r busyReport) {
	g.b.Helper()
	g.report()
	began, was := time.Now(), g.used()
	time.Sleep(d)
	share = 100 * float64(g.used()-was) / float64(time.Since(began))
	return share, g.report()
}

func insecure() *tls.Config { return &tls.Config{InsecureSkipVerify: true} }

// enter logs in once and gives the session's cookie.
func (g *busy) enter(base string) *http.Cookie {
	g.b.Helper()
	c := &http.Client{Transport: &http.Transport{TLSClientConfig: insecure()}, CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse }}
	defer c.CloseIdleConnections()
	res, err := c.PostForm(base+"enter", url.Values{"number": {"7"}, "secret": {busyPIN}})
	if err != nil {
		g.b.Fatal(err)
	}
	defer res.Body.Close()
	for _, k := range res.Cookies() {
		if k.Name == "gatehouse" {
			return k
		}
	}
	g.b.Fatalf("no session: %s", res.Status)
	return nil
}

// tablet watches the lanes over a connection of its own until ctx ends.
func tablet(ctx context.Context, base string, session *http.Cookie, read *atomic.Int64) error {
	tr := &http.Transport{TLSClientConfig: insecure(), ForceAttemptHTTP2: true}
	defer tr.CloseIdleConnections()
	r, err := http.NewRequestWithContext(ctx, http.MethodGet, base+"live", nil)
	if err != nil {
		return err
	}
	r.AddCookie(session)
	res, err := tr.RoundTrip(r)
	if err != nil {
		return err
	}
	defer res.Body.Close()
	if res.StatusCode != http.StatusOK {
		return fmt.Errorf("the stream answers %s", res.Status)
	}
	buf := make([]byte, 64<<10)
	for {
		n, err := res.Body.Read(buf)
		read.Add(int64(n))
		if err != nil {
			return err
		}
	}
}

// asleep is a browser that asks for the stream and reads nothing of it. It gives
// how long the gate has put up with that.
func asleep(b *testing.B, base string, session *http.Cookie) func() time.Duration {
	b.Helper()
	u, err := url.Parse(base)
	if err != nil {
		b.Fatal(err)
	}
	c, err := net.Dial("tcp", u.Host)
	if err != nil {
		b.Fatal(err)
	}
	// As much as a tablet's radio driver holds.
	if err := c.(*net.TCPConn).SetReadBuffer(64 << 10); err != nil {
		b.Fatal(err)
	}
	t := tls.Client(c, insecure())
	if _, err := fmt.Fprintf(t, "GET /live HTTP/1.1\r\nHost: %s\r\nCookie: %s\r\n\r\n", u.Host, session); err != nil {
		b.Fatal(err)
	}
	began := time.Now()
	// The end of the connection waits behind what nobody reads: only the gate's side
	// of it tells.
	gates, own := c.RemoteAddr().(*net.TCPAddr).Port, c.LocalAddr().(*net.TCPAddr).Port
	open := fmt.Sprintf(":%04X 0100007F:%04X 01 ", gates, own)
	return func() time.Duration {
		defer c.Close()
		for time.Since(began) < 3*time.Minute {
			table, err := os.ReadFile("/proc/net/tcp")
			if err != nil {
				b.Fatal(err)
			}
			if !bytes.Contains(table, []byte(open)) {
				break
			}
			time.Sleep(50 * time.Millisecond)
		}
		return time.Since(began)
	}
}

// BenchmarkTablets is a gate with eight busy lanes in a process of its own, with
// nobody who watches, then with fifty tablets over TLS and one browser that is
// asleep: what the tablets cost of one core, what they do to the lanes' decisions
// (from a card's last byte to the barrier), and what memory the console takes
// beside the same gate without it.
func BenchmarkTablets(b *testing.B) {
	const each = 15 * time.Second
	for b.Loop() {
		bare := startBusy(b, "")
		bare.phase(each)
		without := bare.resident()
		bare.end()

		g := startBusy(b, "127.0.0.1:0")
		base := g.report().URL
		time.Sleep(3 * time.Second)
		alone, quiet := g.phase(each)

		ctx, cancel := context.WithCancel(b.Context())
		var read atomic.Int64
		var wg sync.WaitGroup
		var session *http.Cookie
		for i := range 50 {
			if i%6 == 0 {
				session = g.enter(base)
			}
			wg.Go(func() {
				if err := tablet(ctx, base, session, &read); ctx.Err() == nil {
					b.Errorf("tablet %d: %v", i, err)
				}
			})
		}
		dropped := make(chan time.Duration, 1)
		gone := asleep(b, base, session)
		go func() { dropped <- gone() }()
		time.Sleep(2 * time.Second)
		was, _ := read.Load(), g.report()
		watched, seen := g.phase(each)
		flow := float64(read.Load()-was) / each.Seconds()
		with := g.resident()
		took := <-dropped
		cancel()
		wg.Wait()
		g.end()
		if quiet.Passed == 0 || seen.Passed == 0 {
			b.Fatal("nobody passed")
		}
		b.ReportMetric(watched-alone, "%core-50-tablets")
		b.ReportMetric(alone, "%core-nobody-watches")
		b.ReportMetric(float64(seen.Changes)/each.Seconds(), "changes/s")
		b.ReportMetric(flow/1e3/50, "kB/s-each-tablet")
		b.ReportMetric(float64(quiet.P50.Microseconds()), "unwatched-p50-us")
		b.ReportMetric(float64(seen.P50.Microseconds()), "watched-p50-us")
		b.ReportMetric(float64(quiet.P99.Microseconds()), "unwatched-p99-us")
		b.ReportMetric(float64(seen.P99.Microseconds()), "watched-p99-us")
		b.ReportMetric(with-without, "MB-console")
		b.ReportMetric(without, "MB-without")
		b.ReportMetric(took.Seconds(), "s-until-asleep-dropped")
	}
	b.ReportMetric(0, "ns/op")
}
