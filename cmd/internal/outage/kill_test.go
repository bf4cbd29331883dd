package outage

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strconv"
	"sync"
	"testing"
	"time"

	"gatehouse/edge"
	"gatehouse/edge/clock"
	"gatehouse/edge/identity"
	"gatehouse/edge/journal"
	"gatehouse/sync/community"
	"gatehouse/sync/mqtt"
	"gatehouse/sync/uplink"
	"gatehouse/sync/wire"
)

// The environment of a child, and of a longer run.
const (
	childEnv = "GATEHOUSE_TEST_CHILD" // gate or server
	dirEnv   = "GATEHOUSE_TEST_DIR"
	urlEnv   = "GATEHOUSE_TEST_URL"
	lifeEnv  = "GATEHOUSE_TEST_LIFE"
	killsEnv = "GATEHOUSE_TEST_KILLS"
	seedEnv  = "GATEHOUSE_TEST_SEED"
)

func TestMain(m *testing.M) {
	if kind := os.Getenv(childEnv); kind != "" {
		fmt.Fprintln(os.Stderr, kind, "ended:", child(kind))
		os.Exit(1)
	}
	os.Exit(m.Run())
}

// idsOfLife is how many entries one life of a gate may write.
const idsOfLife = 1_000_000

// child is a gate or a server in a process of its own. It ends by being killed.
func child(kind string) error {
	ctx := context.Background()
	dir := os.Getenv(dirEnv)
	log := slog.New(slog.DiscardHandler)
	server, err := identity.Open(filepath.Join(dir, "server"), "server")
	if err != nil {
		return err
	}
	device, err := identity.Open(filepath.Join(dir, "keys"), "c/s/g")
	if err != nil {
		return err
	}
	life, err := strconv.Atoi(os.Getenv(lifeEnv))
	if err != nil {
		return err
	}
	c, err := mqtt.New(mqtt.Config{URL: os.Getenv(urlEnv), ClientID: kind, KeepAlive: time.Second, MinBackoff: 5 * time.Millisecond, MaxBackoff: 50 * time.Millisecond}, log)
	if err != nil {
		return err
	}
	failed := make(chan error, 3)
	if kind == "server" {
		srv, err := community.Open(ctx, filepath.Join(dir, "community.db"), community.Config{Community: "c", Signer: server.Signer(), Log: log,
			Retention: community.Retention{Persons: forEver, Rest: forEver}})
		if err != nil {
			return err
		}
		srv.Attach(c)
		go func() { failed <- c.Run(ctx) }()
		go func() { failed <- srv.Run(ctx) }()
		return <-failed
	}
	clk := clock.NewFake(time.Date(2026, 3, 1, 8, life, 0, 0, time.UTC), 480)
	j, err := journal.Open(ctx, filepath.Join(dir, "journal.db"), journal.Options{Community: "c", Site: "s", Gate: "g", Clock: clk, Signer: device.Signer(), Log: log})
	if err != nil {
		return err
	}
	up, err := uplink.New(uplink.Config{Community: "c", Site: "s", Gate: "g", Device: device.Signer(), Entries: 20, Age: 2 * time.Millisecond, Resend: 100 * time.Millisecond,
		Fork: func(context.Context, uint64, string) error { failed <- errors.New("refused as a fork"); return nil },
		Trust: func() []wire.ServerKey {
			return []wire.ServerKey{{ID: "server", Public: server.Signer().Public(), Uses: []wire.Use{wire.UseReceipts}}}
		}}, j, c, log)
	if err != nil {
		return err
	}
	go func() { failed <- c.Run(ctx) }()
	go func() { failed <- up.Run(ctx) }()
	go func() {
		for id := life * idsOfLife; ; id++ {
			x := &edge.Entry{Kind: edge.KindTest, Of: -1, Actor: "system", Stamp: clk.Now(), Data: fmt.Appendf(nil, `{"id":%d}`, id)}
			if _, err := j.Append(ctx, x, nil); err != nil {
				failed <- err
				return
			}
			fmt.Println(id) // committed: from here on nothing may lose it
			time.Sleep(time.Millisecond)
		}
	}()
	return <-failed
}

// mortal is a process that is killed and started again.
type mortal struct {
	start func() *exec.Cmd
	cmd   *exec.Cmd
	read  sync.WaitGroup
}

// TestWholeChainKilled kills the gate, the broker and the server at random moments,
// again and again, each without a warning. In the end the server has what the gate
// had committed, each entry once and in order, in one epoch.
func TestWholeChainKilled(t *testing.T) {
	mosquitto := program(t, "mosquitto")
	seed := uint64(time.Now().UnixNano())
	if s := os.Getenv(seedEnv); s != "" {
		var err error
		if seed, err = strconv.ParseUint(s, 10, 64); err != nil {
			t.Fatal(err)
		}
	}
	t.Logf("%s=%d", seedEnv, seed)
	rnd := rand.New(rand.NewPCG(seed, 9))
	times := 30
	if s := os.Getenv(killsEnv); s != "" {
		var err error
		if times, err = strconv.Atoi(s); err != nil {
			t.Fatal(err)
		}
	}
	e := newEstate(t)
	addr := free(t)
	// The gate is made known, then everything goes to the children.
	e.startServer(dial(t, "mqtt://"+addr, "registrar"))
	e.stopServer()
	if err := e.j.Close(); err != nil {
		t.Fatal(err)
	}
	conf := filepath.Join(e.dir, "mosquitto.conf")
	_, port, err := net.SplitHostPort(addr)
	if err != nil {
		t.Fatal(err)
	}
	text := fmt.Sprintf("user root\nlistener %s 127.0.0.1\nallow_anonymous true\npersistence true\npersistence_location %s/\nautosave_interval 1\nset_tcp_nodelay true\nlog_dest none\n", port, e.dir)
	if err := os.WriteFile(conf, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	committed := map[int]bool{}
	var mu sync.Mutex
	life := 0
	self := func(kind string) *exec.Cmd {
		life++
		cmd := exec.Command(os.Args[0], "-test.run=^$")
		cmd.Stderr = os.Stderr
		cmd.Env = append(os.Environ(), childEnv+"="+kind, dirEnv+"="+e.dir, urlEnv+"=mqtt://"+addr, lifeEnv+"="+strconv.Itoa(life))
		return cmd
	}
	chain := []*mortal{
		{start: func() *exec.Cmd { return exec.Command(mosquitto, "-c", conf) }},
		{start: func() *exec.Cmd { return self("server") }},
		{start: func() *exec.Cmd { return self("gate") }},
	}
	begin := func(m *mortal) {
		t.Helper()
		m.cmd = m.start()
		out, err := m.cmd.StdoutPipe()
		if err != nil {
			t.Fatal(err)
		}
		if err := m.cmd.Start(); err != nil {
			t.Fatal(err)
		}
		m.read.Go(func() {
			for s := bufio.NewScanner(out); s.Scan(); {
				if id, err := strconv.Atoi(s.Text()); err == nil {
					mu.Lock()
					committed[id] = true
					mu.Unlock()
				}
			}
		})
	}
	end := func(m *mortal) {
		t.Helper()
		if err := m.cmd.Process.Kill(); err != nil {
			t.Fatalf("%v had ended by itself: %v", m.cmd.Args, err)
		}
		m.read.Wait()
		_ = m.cmd.Wait() // killed
		if s := m.cmd.ProcessState; s.Exited() {
			t.Fatalf("%v had ended by itself: %v", m.cmd.Args, s)
		}
	}
	for _, m := range chain {
		begin(m)
	}
	for range times {
		time.Sleep(time.Duration(rnd.IntN(400)) * time.Millisecond) // a random moment, not a wait
		m := chain[rnd.IntN(len(chain))]
		end(m)
		if rnd.IntN(2) == 0 {
			time.Sleep(time.Duration(rnd.IntN(100)) * time.Millisecond)
		}
		begin(m)
	}
	end(chain[2])
	end(chain[1])
	e.openJournal()
	e.startServer(dial(t, "mqtt://"+addr, "server"))
	e.startGate(dial(t, "mqtt://"+addr, "gate"), uplink.Config{})
	e.drained(60 * time.Second)
	e.check()
	counts, err := e.srv.Counts(t.Context(), "s", "g")
	if err != nil || len(counts) != 1 {
		t.Fatalf("%+v %v", counts, err)
	}
	found, last := map[int]int{}, -1
	pattern := regexp.MustCompile(`"id":([0-9]+)`)
	err = e.srv.Export(t.Context(), "s", "g", e.j.Epoch(), func(_ uint64, line []byte) error {
		if m := pattern.FindSubmatch(line); m != nil {
			id, err := strconv.Atoi(string(m[1]))
			if err != nil || id <= last {
				return fmt.Errorf("entry %s after %d, %w", m[1], last, err)
			}
			last = id
			found[id]++
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	for id := range committed {
		if found[id] != 1 {
			t.Errorf("entry %d was committed and is at the server %d times", id, found[id])
		}
	}
	t.Logf("%d kills, %d entries committed, %d at the server (those killed before they could say so included): 0 missing, 0 twice", times, len(committed), len(found))
	e.stopGate()
	e.stopServer()
	end(chain[0])
}

// free is an address that nobody listens on.
func free(t *testing.T) string {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	return l.Addr().String()
}
