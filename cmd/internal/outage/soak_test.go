package outage

import (
	"context"
	"crypto/sha256"
	"encoding/binary"
	"errors"
	"flag"
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"sync"
	"testing"
	"testing/cryptotest"
	"testing/synctest"
	"time"

	"gatehouse/edge"
	"gatehouse/sync/uplink"
)

var (
	soakSeeds = flag.Int("soak.seeds", 1, "how many runs of the random-fault soak; each is some hundred simulated days")
	soakFrom  = flag.Uint64("soak.from", 3, "the first run's seed")
)

// ether is a broker and its lines in memory. What it does with a message follows
// from the seed, the message's line and how many went over that line before, not
// from what runs beside it; the time is that of the bubble.
type ether struct {
	mu        sync.Mutex
	seed      uint64
	members   []*member
	sent      map[string]uint64 // messages by line
	loss, dup float64
	slowest   time.Duration
	trace     uint64 // of every message and its time; the same whatever order one moment has
	messages  int
}

func newEther(seed uint64) *ether {
	return &ether{seed: seed, sent: map[string]uint64{}, slowest: time.Millisecond}
}

// sum is a hash of texts and numbers.
func sum(parts ...any) uint64 {
	h := sha256.Sum256(fmt.Append(nil, parts...))
	return binary.BigEndian.Uint64(h[:])
}

// member is one client.
type member struct {
	e         *ether
	name      string
	subs      map[string]func(string, []byte)
	onConnect []func(context.Context)
	one       sync.Mutex // one message at a time
	up        bool
	life      int
}

func (e *ether) member(kind string) *member {
	e.mu.Lock()
	defer e.mu.Unlock()
	m := &member{e: e, name: fmt.Sprint(kind, len(e.members)), subs: map[string]func(string, []byte){}}
	e.members = append(e.members, m)
	return m
}

func (m *member) Subscribe(topic string, f func(string, []byte)) { m.subs[topic] = f }
func (m *member) OnConnect(f func(context.Context))              { m.onConnect = append(m.onConnect, f) }
func (m *member) Connected() bool                                { m.e.mu.Lock(); defer m.e.mu.Unlock(); return m.up }
func (m *member) Run(ctx context.Context) error {
	m.set(true)
	<-ctx.Done()
	m.set(false)
	return ctx.Err()
}

func (m *member) set(up bool) {
	m.e.mu.Lock()
	m.up = up
	m.life++
	m.e.mu.Unlock()
	if up {
		for _, f := range m.onConnect {
			f(context.Background())
		}
	}
}

// forget is a broker that ends and begins anew with nothing it had.
func (e *ether) forget() {
	e.mu.Lock()
	defer e.mu.Unlock()
	for _, m := range e.members {
		m.life++
	}
}

func (m *member) Publish(_ context.Context, topic string, payload []byte, _ bool) error {
	e := m.e
	e.mu.Lock()
	defer e.mu.Unlock()
	if !m.up {
		return errors.New("offline")
	}
	e.messages++
	e.trace += sum(time.Now().UnixNano(), " ", m.name, " ", topic, " ", string(payload))
	for _, to := range e.members {
		for filter, f := range to.subs {
			if !to.up || !fits(filter, topic) {
				continue
			}
			line := m.name + " " + topic + " " + to.name
			e.sent[line]++
			rnd := rand.New(rand.NewPCG(e.seed, sum(line, " ", e.sent[line])))
			if rnd.Float64() < e.loss {
				continue
			}
			n := 1
			if rnd.Float64() < e.dup {
				n = 2
			}
			life := to.life
			for range n {
				time.AfterFunc(time.Duration(rnd.Int64N(int64(e.slowest)))+time.Millisecond, func() {
					e.mu.Lock()
					there := to.up && to.life == life
					e.mu.Unlock()
					if there {
						to.one.Lock()
						defer to.one.Unlock()
						f(topic, payload)
					}
				})
			}
		}
	}
	return nil
}

func fits(filter, topic string) bool {
	f, t := strings.Split(filter, "/"), strings.Split(topic, "/")
	if len(f) != len(t) {
		return false
	}
	for i := range f {
		if f[i] != "+" && f[i] != t[i] {
			return false
		}
	}
	return true
}

// TestSoak lets a gate and a server live through weeks of faults: outages of days,
// loss, duplicates, reordering, crashes of both, a broker that forgets, a gate's
// clock that jumps (to the server this is the same as its own jumping the other
// way), a medium restored from an image. At the end every entry that was committed
// and not lost with its medium is at the server; without restored media, each
// exactly once and in order. A seed is a run: it comes out the same each time.
func TestSoak(t *testing.T) {
	warm(t)
	for i := range uint64(*soakSeeds) {
		seed := *soakFrom + i
		t.Run(fmt.Sprint("seed=", seed), func(t *testing.T) { bubble(t, seed, rounds) })
	}
}

// What a seed does, it does again: the same messages at the same moments.
func TestSoakReplays(t *testing.T) {
	warm(t)
	for _, seed := range []uint64{6, 11} { // with and without restored media
		var first uint64
		for i := range 3 {
			t.Run(fmt.Sprint("seed=", seed, "/", i), func(t *testing.T) {
				trace := bubble(t, seed, 6)
				if i == 0 {
					first = trace
				} else if trace != first {
					t.Errorf("trace %016x, the first time it was %016x", trace, first)
				}
			})
		}
	}
}

// warm runs everything once: coders that packages share make their channels at the
// first use, which must be outside a bubble.
func warm(t *testing.T) {
	e := newEstate(t)
	air := newEther(0)
	e.startServer(air.member("server"))
	e.startGate(air.member("gate"), uplink.Config{})
	e.drained(20 * time.Second)
	e.stopGate()
	e.stopServer()
}

func bubble(t *testing.T, seed uint64, rounds int) (trace uint64) {
	cryptotest.SetGlobalRandom(t, seed)
	synctest.Test(t, func(t *testing.T) { trace = soak(t, seed, rounds) })
	return trace
}

// rounds are the outages of a run.
const rounds = 25

func soak(t *testing.T, seed uint64, rounds int) (trace uint64) {
	began := time.Now()
	rnd := rand.New(rand.NewPCG(seed, 7))
	air := newEther(seed)
	air.loss, air.dup = rnd.Float64()*0.2, rnd.Float64()*0.2
	air.slowest = []time.Duration{50 * time.Millisecond, 2 * time.Second, 60 * time.Second}[rnd.IntN(3)]
	restores := seed%3 == 0
	e := newEstate(t)
	path := filepath.Join(e.dir, "journal.db")
	cfg := uplink.Config{Entries: 1 + rnd.IntN(600), Bytes: 1000 + rnd.IntN(50_000), Window: 1 + rnd.IntN(6),
		Fork: e.fork}
	epochs := map[edge.Epoch]bool{}
	expected := map[int]bool{} // ids of entries that must arrive
	var fresh []int            // those on this medium since its image was taken
	next := 0
	add := func(n int) {
		synctest.Wait() // what was begun comes first, always
		for range n {
			e.clock.Advance(time.Duration(rnd.IntN(60_000)) * time.Millisecond)
			x := &edge.Entry{Kind: edge.KindTest, Of: -1, Actor: "system", Stamp: e.clock.Now(), Data: fmt.Appendf(nil, `{"id":%d}`, next)}
			if _, err := e.j.Append(context.Background(), x, nil); err != nil {
				t.Fatal(err)
			}
			expected[next] = true
			fresh = append(fresh, next)
			next++
			synctest.Wait() // whoever sends sees every entry by itself, however fast this machine is
		}
	}
	var gate *member
	startGate := func() {
		epochs[e.j.Epoch()] = true
		gate = air.member("gate")
		e.startGate(gate, cfg)
	}
	restart := func(f func()) {
		synctest.Wait()
		e.stopGate()
		epochs[e.j.Epoch()] = true
		if err := e.j.Close(); err != nil {
			t.Fatal(err)
		}
		f()
		e.openJournal()
	}
	copyFile := func(from, to string) {
		b, err := os.ReadFile(from)
		if err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(to, b, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	startGate()
	image := false
	for range rounds {
		// Days without a server.
		add(rnd.IntN(60))
		time.Sleep(time.Duration(rnd.IntN(8*24)) * time.Hour)
		add(rnd.IntN(60))
		e.startServer(air.member("server"))
		for range 1 + rnd.IntN(8) {
			synctest.Wait()
			switch rnd.IntN(7) {
			case 0:
				gate.set(false)
				time.Sleep(time.Duration(rnd.IntN(100)) * time.Second)
				gate.set(true)
			case 3:
				air.forget()
			case 4:
				at := e.clock.Now()
				at.Time += int64(rnd.IntN(4*86_400_000) - 2*86_400_000)
				e.clock.Set(at)
			case 1:
				e.stopServer() // whatever it was doing
				e.startServer(air.member("server"))
			case 2:
				restart(func() {
					if restores && !image {
						copyFile(path, path+".image")
						image, fresh = true, nil
					}
				})
				startGate()
			}
			add(rnd.IntN(30))
			time.Sleep(time.Duration(rnd.IntN(120)) * time.Second)
		}
		e.stopServer()
		if image && rnd.IntN(4) == 0 {
			acked := e.j.Acked() == e.j.Size()
			restart(func() {
				copyFile(path+".image", path)
				for _, x := range []string{"-wal", "-shm"} {
					if err := os.Remove(path + x); err != nil && !errors.Is(err, os.ErrNotExist) {
						t.Fatal(err)
					}
				}
			})
			if !acked {
				for _, id := range fresh { // some may have gone with the medium
					delete(expected, id)
				}
			}
			image = false
			fresh = nil
			startGate()
		}
	}
	air.mu.Lock()
	air.loss, air.dup = 0, 0
	air.mu.Unlock()
	e.startServer(air.member("server"))
	add(1)
	time.Sleep(3 * time.Hour)
	if e.j.Acked() != e.j.Size() {
		t.Fatalf("not drained: %+v", e.up.Status())
	}
	epochs[e.j.Epoch()] = true
	e.check()
	found := map[int]int{}
	id := regexp.MustCompile(`"id":([0-9]+)`)
	counts, err := e.srv.Counts(context.Background(), "s", "g")
	if err != nil {
		t.Fatal(err)
	}
	for _, c := range counts {
		if !epochs[c.Epoch] {
			t.Errorf("epoch %v is not the gate's", c.Epoch)
		}
		err := e.srv.Export(context.Background(), "s", "g", c.Epoch, func(_ uint64, line []byte) error {
			if m := id.FindSubmatch(line); m != nil {
				var n int
				if _, err := fmt.Sscan(string(m[1]), &n); err != nil {
					return err
				}
				found[n]++
			}
			return nil
		})
		if err != nil {
			t.Fatal(err)
		}
	}
	for id := range expected {
		if n := found[id]; n == 0 || n > 1 && !restores {
			t.Errorf("entry %d is at the server %d times", id, n)
		}
	}
	days := time.Since(began).Hours() / 24
	e.stopGate()
	e.stopServer()
	if err := e.j.Close(); err != nil {
		t.Fatal(err)
	}
	air.mu.Lock()
	defer air.mu.Unlock()
	t.Logf("%.0f days, %d entries, %d epochs, %d messages, trace %016x", days, next, len(counts), air.messages, air.trace)
	return air.trace
}
