package outage

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"gatehouse/edge"
	"gatehouse/edge/clock"
	"gatehouse/edge/identity"
	"gatehouse/edge/journal"
	"gatehouse/sync/broker"
	"gatehouse/sync/community"
	"gatehouse/sync/mqtt"
	"gatehouse/sync/uplink"
	"gatehouse/sync/wire"
)

const (
	forEver   = 100 * 365 * 24 * time.Hour
	retention = 28 * 24 * time.Hour // on the gate
)

// watch is a clock that tests turn, with the floor that the gate's own has.
type watch struct {
	*clock.Fake
	mu    sync.Mutex
	floor edge.Stamp // the latest that was trusted
}

func (w *watch) Now() edge.Stamp {
	s := w.Fake.Now()
	w.mu.Lock()
	defer w.mu.Unlock()
	floor := w.floor.Time + s.Mono - w.floor.Mono
	switch {
	case !s.Clock.Trusted():
		s.Time = max(s.Time, floor)
	case s.Time > floor:
		w.floor = s
	}
	return s
}

func (w *watch) Floor() (time.Time, bool) {
	s := w.Now()
	w.mu.Lock()
	defer w.mu.Unlock()
	return time.UnixMilli(w.floor.Time + s.Mono - w.floor.Mono), s.Clock.Trusted()
}

var quiet = slog.New(slog.DiscardHandler)

// part is something with a Run that ends with its context.
type part interface{ Run(context.Context) error }

// run runs parts and returns what stops them.
func run(t *testing.T, parts ...part) (stop func()) {
	t.Helper()
	ctx, cancel := context.WithCancel(context.Background())
	var wg sync.WaitGroup
	for _, p := range parts {
		wg.Go(func() {
			if err := p.Run(ctx); !errors.Is(err, context.Canceled) {
				t.Errorf("%T ended with %v", p, err)
			}
		})
	}
	stop = sync.OnceFunc(func() { cancel(); wg.Wait() })
	t.Cleanup(stop)
	return stop
}

func dial(t *testing.T, url, id string) *mqtt.Client { return dialFor(t, url, id, time.Second) }

// dialFor is dial for a connection that either side takes as lost after it has been
// silent for so long, about.
func dialFor(t *testing.T, url, id string, silent time.Duration) *mqtt.Client {
	t.Helper()
	c, err := mqtt.New(mqtt.Config{URL: url, ClientID: id, KeepAlive: silent, MinBackoff: 20 * time.Millisecond, MaxBackoff: 200 * time.Millisecond}, quiet)
	if err != nil {
		t.Fatal(err)
	}
	return c
}

// estate is one gate and its server.
type estate struct {
	t      *testing.T
	dir    string
	server *identity.Identity
	device *identity.Identity
	srv    *community.Server
	j      *journal.Journal
	clock  *watch
	up     *uplink.Uplink

	addr string // of the broker, where the test has one for itself

	stopServer, stopGate func()
}

func newEstate(t *testing.T) *estate {
	t.Helper()
	e := &estate{t: t, dir: t.TempDir(), clock: &watch{Fake: clock.NewFake(time.Date(2026, 3, 1, 8, 0, 0, 0, time.UTC), 480)}}
	var err error
	if e.server, err = identity.Open(filepath.Join(e.dir, "server"), "server"); err != nil {
		t.Fatal(err)
	}
	if e.device, err = identity.Open(filepath.Join(e.dir, "keys"), "c/s/g"); err != nil {
		t.Fatal(err)
	}
	e.openJournal()
	return e
}

func (e *estate) openJournal() {
	e.t.Helper()
	var err error
	e.j, err = journal.Open(e.t.Context(), filepath.Join(e.dir, "journal.db"), journal.Options{Community: "c", Site: "s", Gate: "g", Clock: e.clock, Signer: e.device.Signer(), Recipient: e.server.Recipient(), Retention: retention, Technical: retention, Log: quiet})
	if err != nil {
		e.t.Fatal(err)
	}
	e.t.Cleanup(func() { _ = e.j.Close() }) // reported where it matters
}

// transport is what both ends need.
type transport interface {
	uplink.Transport
	part
}

func (e *estate) startServer(c transport) {
	e.t.Helper()
	srv, err := community.Open(e.t.Context(), filepath.Join(e.dir, "community.db"), community.Config{Community: "c", Signer: e.server.Signer(), Open: e.server.Open, Log: quiet,
		Retention: community.Retention{Persons: forEver, Rest: forEver}}) // to count everything at the end
	if err != nil {
		e.t.Fatal(err)
	}
	if err := srv.RegisterGate(e.t.Context(), "s", "g", e.device.Signer().Public(), e.device.Recipient(), "test"); err != nil {
		e.t.Fatal(err)
	}
	srv.Attach(c)
	stop := run(e.t, c, srv)
	e.srv = srv
	e.stopServer = sync.OnceFunc(func() {
		stop()
		if err := srv.Close(); err != nil {
			e.t.Error(err)
		}
	})
	e.t.Cleanup(e.stopServer)
}

func (e *estate) startGate(c transport, cfg uplink.Config) {
	e.t.Helper()
	cfg.Community, cfg.Site, cfg.Gate, cfg.Device = "c", "s", "g", e.device.Signer()
	cfg.Trust = func() []wire.ServerKey {
		return []wire.ServerKey{{ID: "server", Public: e.server.Signer().Public(), Uses: []wire.Use{wire.UseReceipts}}}
	}
	var err error
	if e.up, err = uplink.New(cfg, e.j, c, quiet); err != nil {
		e.t.Fatal(err)
	}
	e.stopGate = run(e.t, c, e.up)
}

// add appends n entries as a lane does.
func (e *estate) add(n int) {
	e.t.Helper()
	for range n {
		e.clock.Advance(3 * time.Second)
		x := &edge.Entry{Kind: edge.KindPassage, Lane: "in", Of: -1, Actor: "system", Stamp: e.clock.Now(), Result: edge.ResultPassed,
			Deltas: []edge.Delta{{Cell: edge.Cell{Name: edge.CellPosition, Subject: "p1"}, Op: edge.OpSet, Value: edge.PositionInside}}}
		if _, err := e.j.Append(context.Background(), x, nil); err != nil {
			e.t.Fatal(err)
		}
	}
}

// fork is what the gate does, with the carrying waited for.
func (e *estate) fork(ctx context.Context, stand uint64, why string) error {
	return errors.Join(e.j.NewEpoch(ctx, stand, why), e.j.Carry(ctx))
}

// drained waits until everything is receipted.
func (e *estate) drained(within time.Duration) {
	e.t.Helper()
	end := time.Now().Add(within)
	for e.j.Acked() != e.j.Size() {
		if time.Now().After(end) {
			e.t.Fatalf("not drained: %+v", e.up.Status())
		}
		time.Sleep(10 * time.Millisecond)
	}
}

// check compares what the server has with the journal, to the byte, and has the
// server verify itself.
func (e *estate) check() {
	e.t.Helper()
	ctx := e.t.Context()
	counts, err := e.srv.Counts(ctx, "s", "g")
	if err != nil {
		e.t.Fatal(err)
	}
	for _, c := range counts {
		if c.Missing != 0 || c.Duplicated != 0 {
			e.t.Errorf("%+v", c)
		}
	}
	n := uint64(0)
	err = e.srv.Export(ctx, "s", "g", e.j.Epoch(), func(seq uint64, line []byte) error {
		if seq != n {
			return fmt.Errorf("entry %d, wanted %d", seq, n)
		}
		n++
		s, err := e.j.Get(ctx, seq)
		if errors.Is(err, edge.ErrPurged) {
			return nil
		}
		if err == nil && !bytes.Equal(s.Line, line) {
			err = fmt.Errorf("entry %d differs", seq)
		}
		return err
	})
	if err != nil {
		e.t.Fatal(err)
	}
	if n != e.j.Size() {
		e.t.Errorf("the server has %d entries, the journal %d", n, e.j.Size())
	}
	bad, err := e.srv.Verify(ctx, "s", "g")
	if err != nil || len(bad) > 0 {
		e.t.Errorf("verification: %v %v", bad, err)
	}
}

// stored are the entries that the server has of all epochs, each as it was first
// written, and how often; what the journals say of themselves is left out.
func (e *estate) stored() map[string]int {
	e.t.Helper()
	counts, err := e.srv.Counts(e.t.Context(), "s", "g")
	if err != nil {
		e.t.Fatal(err)
	}
	epochs := map[edge.Epoch]community.Count{}
	for _, c := range counts {
		epochs[c.Epoch] = c
	}
	out := map[string]int{}
	var take func(in edge.Epoch, line []byte) error
	take = func(in edge.Epoch, line []byte) error {
		x, err := edge.DecodeEntry(line)
		if err != nil {
			return err
		}
		switch x.Kind {
		case edge.KindEpoch, edge.KindPurge:
			return nil
		case edge.KindCarried:
		default:
			out[string(line)]++
			return nil
		}
		var d struct {
			Seq    uint64
			Entry  json.RawMessage
			Sealed []byte
		}
		if err := json.Unmarshal(x.Data, &d); err != nil {
			return err
		}
		from := epochs[in]
		if d.Sealed == nil {
			return take(from.Parent, d.Entry)
		}
		plain, err := e.server.Open(bytes.NewReader(d.Sealed), 1<<20)
		if err != nil {
			return err
		}
		for seq := d.Seq; len(plain) > 0; seq++ {
			line, rest, _ := bytes.Cut(plain[len(edge.Blind{}):], []byte{'\n'})
			plain = rest
			if seq >= from.Forked { // a run is carried whole, though its first entries may stand
				if err := take(from.Parent, line); err != nil {
					return err
				}
			}
		}
		return nil
	}
	for _, c := range counts {
		if err := e.srv.Export(e.t.Context(), "s", "g", c.Epoch, func(_ uint64, line []byte) error { return take(c.Epoch, line) }); err != nil {
			e.t.Fatal(err)
		}
	}
	return out
}

// program finds a program of the system that the test needs.
func program(t *testing.T, name string) string {
	t.Helper()
	bin, err := exec.LookPath(name)
	if err != nil {
		bin = "/usr/sbin/" + name
	}
	if _, err := os.Stat(bin); err != nil {
		if os.Getenv("CI") == "true" {
			t.Fatalf("%s is missing; .ci/run installs it", name)
		}
		t.Skipf("%s is not installed here; .ci/run installs it", name)
	}
	return bin
}

// mosquitto starts an independent broker that anybody may use.
func mosquitto(t *testing.T) string {
	t.Helper()
	return mosquittoWith(t, "allow_anonymous true\n")
}

func mosquittoWith(t *testing.T, settings string) string {
	t.Helper()
	bin := program(t, "mosquitto")
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	addr := l.Addr().(*net.TCPAddr)
	if err := l.Close(); err != nil {
		t.Fatal(err)
	}
	conf := filepath.Join(t.TempDir(), "mosquitto.conf")
	text := fmt.Sprintf("listener %d 127.0.0.1\n%spersistence false\nset_tcp_nodelay true\nlog_dest none\n", addr.Port, settings)
	if err := os.WriteFile(conf, []byte(text), 0o644); err != nil {
		t.Fatal(err)
	}
	cmd := exec.Command(bin, "-c", conf)
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		_ = cmd.Process.Kill() // it has ended, or ends now
		_ = cmd.Wait()         // with that signal
	})
	for range 3000 {
		c, err := net.Dial("tcp", addr.String())
		if err == nil {
			if err := c.Close(); err != nil {
				t.Fatal(err)
			}
			return addr.String()
		}
		time.Sleep(10 * time.Millisecond)
	}
	t.Fatal("mosquitto does not come up")
	return ""
}

func embedded(t *testing.T) string {
	t.Helper()
	b, err := broker.Start(t.TempDir(), "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(b.Stop)
	return b.Addr()
}

// The line to the broker fails in every way while a lane goes on; whatever happens,
// the lane appends, and everything arrives once and in order.
func TestBadLines(t *testing.T) {
	for name, start := range map[string]func(*testing.T) string{"embedded": embedded, "mosquitto": mosquitto} {
		t.Run(name, func(t *testing.T) {
			addr := start(t)
			e := newEstate(t)
			gateLine, serverLine := newProxy(t, addr), newProxy(t, addr)
			e.startServer(dial(t, serverLine.url(), "server"))
			e.startGate(dial(t, gateLine.url(), "gate"), uplink.Config{Entries: 64, Age: 20 * time.Millisecond, Resend: 200 * time.Millisecond})
			e.add(50)
			e.drained(20 * time.Second)
			for _, m := range []mode{hole, flap, mute, refuse, slow} {
				for _, line := range []*proxy{gateLine, serverLine} {
					line.set(m)
					e.add(200) // while the line is bad: returns, or the test ends here
					time.Sleep(300 * time.Millisecond)
					e.add(20)
					line.set(pass)
				}
			}
			e.drained(60 * time.Second)
			e.check()
		})
	}
}

// A broker that forgets everything, and a server that stores and dies before its
// receipt goes out.
func TestBrokerForgetsAndServerDies(t *testing.T) {
	b, err := broker.Start(t.TempDir(), "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	addr := b.Addr()
	e := newEstate(t)
	line := newProxy(t, addr)
	cfg := uplink.Config{Entries: 64, Age: 10 * time.Millisecond, Resend: 200 * time.Millisecond}
	e.startServer(dial(t, line.url(), "server"))
	e.startGate(dial(t, "mqtt://"+addr, "gate"), cfg)
	for range 3 {
		e.add(100)
		e.drained(20 * time.Second)
		b.Stop()
		e.add(100)
		if b, err = broker.Start(t.TempDir(), addr); err != nil {
			t.Fatal(err)
		}
		e.drained(20 * time.Second)

		// The server's own word is cut off: it stores, and nobody hears of it.
		e.stopServer()
		e.startServer(dialFor(t, line.url(), "server", time.Minute)) // or the broker would give it up
		e.add(1)
		e.drained(20 * time.Second)
		line.set(muteUp)
		e.add(100) // within the window: no receipt makes place for more
		for end := time.Now().Add(20 * time.Second); ; time.Sleep(10 * time.Millisecond) {
			counts, err := e.srv.Counts(t.Context(), "s", "g")
			if err != nil {
				t.Fatal(err)
			}
			if counts[0].Stored == e.j.Size() {
				break
			}
			if time.Now().After(end) {
				t.Fatalf("the server does not store: %+v", counts)
			}
		}
		if e.j.Acked() == e.j.Size() {
			t.Fatal("a receipt came through")
		}
		e.stopServer()
		line.set(pass)
		e.startServer(dial(t, line.url(), "server"))
		e.drained(20 * time.Second)
	}
	b.Stop()
	e.check()
}

// A gate that stops in the middle goes on where it was.
func TestGateRestarts(t *testing.T) {
	addr := embedded(t)
	e := newEstate(t)
	e.startServer(dial(t, "mqtt://"+addr, "server"))
	for i := range 5 {
		e.startGate(dial(t, "mqtt://"+addr, fmt.Sprint("gate", i)), uplink.Config{Entries: 16, Age: time.Millisecond})
		e.add(200)
		e.stopGate()
		if err := e.j.Close(); err != nil {
			t.Fatal(err)
		}
		e.openJournal()
	}
	e.startGate(dial(t, "mqtt://"+addr, "gate"), uplink.Config{})
	e.drained(20 * time.Second)
	e.check()
}

// A gate whose medium is replaced by last week's begins a new epoch, by itself, that
// names its parent and where it forked, and carries over what the server lacks: no
// entry is there twice, also of those that were sent after the image was made.
func TestRestoredImage(t *testing.T) {
	for _, c := range []struct {
		waiting int // entries in the image that have no receipt
		after   int // made before the server is reached again
	}{{0, 0}, {0, 30}, {300, 0}, {300, 30}, {300, 600}} {
		t.Run(fmt.Sprintf("%d waiting, %d after", c.waiting, c.after), func(t *testing.T) {
			addr := embedded(t)
			e := newEstate(t)
			e.startServer(dial(t, "mqtt://"+addr, "server"))
			cfg := uplink.Config{Entries: 64, Age: 10 * time.Millisecond, Resend: time.Second, Fork: e.fork}
			start := func(id string) { e.startGate(dial(t, "mqtt://"+addr, id), cfg) }
			start("gate")
			e.add(100)
			e.drained(20 * time.Second)
			path := filepath.Join(e.dir, "journal.db")
			reopen := func(from, to string) {
				t.Helper()
				e.stopGate()
				if err := e.j.Close(); err != nil {
					t.Fatal(err)
				}
				b, err := os.ReadFile(from)
				if err != nil {
					t.Fatal(err)
				}
				if err := os.WriteFile(to, b, 0o600); err != nil {
					t.Fatal(err)
				}
				e.openJournal()
			}
			e.stopGate()
			e.add(c.waiting)
			reopen(path, path+".image")
			start("gate-again")
			e.add(200)
			e.drained(20 * time.Second)
			parent := e.j.Epoch()
			reopen(path+".image", path)
			e.add(c.after)
			start("restored-gate")
			for end := time.Now().Add(30 * time.Second); e.j.Epoch() == parent; time.Sleep(10 * time.Millisecond) {
				if c.waiting+c.after == 0 {
					e.add(1) // nothing tells a gate of its past before it has something to say
				}
				if time.Now().After(end) {
					t.Fatalf("still in the old epoch: %+v", e.up.Status())
				}
			}
			e.add(50)
			e.drained(20 * time.Second)
			e.check()
			counts, err := e.srv.Counts(t.Context(), "s", "g")
			if err != nil {
				t.Fatal(err)
			}
			if len(counts) != 2 || counts[0].Size != uint64(301+c.waiting) || counts[1].Parent != parent || counts[1].Forked != uint64(101+c.waiting) || counts[1].Size < uint64(51+c.after) {
				t.Errorf("counts %+v", counts)
			}
			for line, n := range e.stored() {
				if n != 1 {
					t.Errorf("%d times at the server: %s", n, line)
				}
			}
			e.stopGate()
			e.stopServer()
		})
	}
}

// The server has lost its database, and the gate has destroyed some of what it had a
// receipt for. All that the gate still has comes to the server again, once, and the
// gate can say how much is lost.
func TestLostDatabase(t *testing.T) {
	warm(t)
	for _, c := range []struct {
		name    string
		destroy func(e *estate) error
		stand   uint64 // of the 531 entries, the first that can be sent again as they are
		lost    int
	}{
		{"nothing is destroyed", func(*estate) error { return nil }, 531, 0},
		{"the oldest are", func(e *estate) error {
			_, err := e.j.Purge(e.t.Context(), time.UnixMilli(e.clock.Now().Time).Add(-599*time.Second))
			return err
		}, 0, 330},
		{"one person is", func(e *estate) error { _, err := e.j.Erase(e.t.Context(), 7, "test"); return err }, 301, 30},
	} {
		t.Run(c.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				e := newEstate(t)
				air := newEther(1)
				e.startServer(air.member("server"))
				e.startGate(air.member("gate"), uplink.Config{Entries: 100, Fork: e.fork})
				e.add(300)
				for i := range 30 {
					e.clock.Advance(3 * time.Second)
					x := &edge.Entry{Kind: edge.KindDecision, Lane: "in", Presentation: uint64(i + 1), Of: -1, Stamp: e.clock.Now(), Outcome: edge.Admit, Rule: "resident", Reason: "resident",
						Facts: &edge.Facts{Pass: &edge.PassFacts{ID: 7, Category: "resident", Status: edge.PassActive}, Lane: edge.LaneFacts{Direction: edge.In}}}
					if _, err := e.j.Append(t.Context(), x, nil); err != nil {
						t.Fatal(err)
					}
				}
				e.add(200)
				time.Sleep(time.Minute)
				if e.j.Acked() != e.j.Size() {
					t.Fatalf("%+v", e.up.Status())
				}
				head, err := e.j.Head(t.Context())
				if err != nil {
					t.Fatal(err)
				}
				if err := c.destroy(e); err != nil {
					t.Fatal(err)
				}
				want := map[string]bool{}
				left, err := e.j.Read(t.Context(), 0, 1000, 1<<30)
				if err != nil {
					t.Fatal(err)
				}
				for _, s := range left {
					if x, err := edge.DecodeEntry(s.Line); err != nil || x.Kind == edge.KindEpoch || x.Kind == edge.KindPurge {
						continue
					}
					want[string(s.Line)] = true
				}
				if len(want) != 530-c.lost {
					t.Fatalf("%d entries are left", len(want))
				}
				e.stopServer()
				for _, end := range []string{"", "-wal", "-shm"} {
					if err := os.Remove(filepath.Join(e.dir, "community.db"+end)); err != nil && !errors.Is(err, os.ErrNotExist) {
						t.Fatal(err)
					}
				}
				e.startServer(air.member("server"))
				parent := e.j.Epoch()
				e.add(20)
				time.Sleep(time.Hour)
				if e.j.Acked() != e.j.Size() {
					t.Fatalf("it hangs: %+v", e.up.Status())
				}
				e.check()
				got := e.stored()
				for line := range want {
					if got[line] != 1 {
						t.Errorf("%d times at the server: %s", got[line], line)
					}
				}
				if len(got) != len(want)+20 {
					t.Errorf("%d entries are at the server, want %d", len(got), len(want)+20)
				}
				counts, err := e.srv.Counts(t.Context(), "s", "g")
				if err != nil {
					t.Fatal(err)
				}
				if last := counts[len(counts)-1]; (last.Epoch == parent) != (c.lost == 0) || c.lost > 0 && (last.Parent != parent || last.Forked != c.stand) {
					t.Errorf("counts %+v", counts)
				}
				r, err := journal.Inspect(t.Context(), filepath.Join(e.dir, "journal.db"))
				if err != nil {
					t.Fatal(err)
				}
				defer r.Close()
				rep, err := r.Verify(t.Context(), nil)
				if err != nil || len(rep.Findings) > 0 {
					t.Fatalf("%+v %v", rep.Findings, err)
				}
				said, ok, err := r.Since(t.Context(), rep, head)
				if err != nil || ok != (c.lost == 0) {
					t.Errorf("%s, %v %v", said, ok, err)
				}
				if gone := uint64(c.lost) + btou(c.stand == 0); c.lost > 0 && !strings.Contains(said, fmt.Sprintf("Of the head's 531 entries %d stand at the server, %d were carried into the epoch that followed, %d are not here",
					c.stand, 531-c.stand-gone, gone)) {
					t.Errorf("%s", said)
				}
				e.stopGate()
				e.stopServer()
				if err := e.j.Close(); err != nil {
					t.Fatal(err)
				}
			})
		})
	}
}

// btou counts the epoch's own entry.
func btou(b bool) uint64 {
	if b {
		return 1
	}
	return 0
}
