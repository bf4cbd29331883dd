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
	"slices"
	"strconv"
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
	soakSeeds  = flag.Int("soak.seeds", 1, "how many runs of the random-fault soak; with 25 rounds each is some hundred simulated days")
	soakRounds = flag.Int("soak.rounds", 8, "how many outages a run has")
	soakFrom   = flag.Uint64("soak.from", 3, "the first run's seed")
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

func (m *member) Subscribe(topic string, f func(string, []byte)) {
	m.e.mu.Lock()
	defer m.e.mu.Unlock()
	m.subs[topic] = f
}

func (m *member) OnConnect(f func(context.Context)) {
	m.e.mu.Lock()
	defer m.e.mu.Unlock()
	m.onConnect = append(m.onConnect, f)
}

func (m *member) Connected() bool {
	m.e.mu.Lock()
	defer m.e.mu.Unlock()
	return m.up
}

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
	meet := slices.Clone(m.onConnect)
	m.e.mu.Unlock()
	if up {
		for _, f := range meet {
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
// clock that jumps, trusted or not (to the server this is the same as its own jumping
// the other way), a medium restored from an image; the gate destroys or seals what is
// past its retention. At the end every entry that was committed and not lost with its
// medium is at the server, exactly once and in order; the gate has destroyed nothing
// before its time, and everything after it. A seed is a run: it comes out the same
// each time.
func TestSoak(t *testing.T) {
	warm(t)
	for i := range uint64(*soakSeeds) {
		seed := *soakFrom + i
		t.Run(fmt.Sprint("seed=", seed), func(t *testing.T) { bubble(t, seed, *soakRounds) })
	}
}

// What a seed does, it does again: the same messages at the same moments.
func TestSoakReplays(t *testing.T) {
	warm(t)
	for _, seed := range []uint64{4, 12} { // without and with restored media
		var first uint64
		for i := range 2 {
			t.Run(fmt.Sprint("seed=", seed, "/", i), func(t *testing.T) {
				trace := bubble(t, seed, 3)
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
	began0 := e.clock.Now()
	truth := time.Duration(0) // gone by, whatever the gate's clock says
	made := map[int]time.Duration{}
	advance := func(d time.Duration) { e.clock.Advance(d); truth += d }
	pass := func(d time.Duration) { time.Sleep(d); advance(d) }
	id := regexp.MustCompile(`"id":([0-9]+)`)
	// here are the entries that can be read on the medium.
	here := func() map[int]bool {
		out := map[int]bool{}
		all, err := e.j.Read(context.Background(), 0, 1<<30, 1<<30)
		if err != nil {
			t.Fatal(err)
		}
		for _, s := range all {
			if m := id.FindSubmatch(s.Line); m != nil {
				n, err := strconv.Atoi(string(m[1]))
				if err != nil {
					t.Fatal(err)
				}
				out[n] = true
			}
		}
		return out
	}
	// Two trusted clocks may be off, by two days each.
	const off = 4 * 24 * time.Hour
	retain := func() {
		synctest.Wait()
		before := here()
		if _, err := e.j.Retain(context.Background()); err != nil {
			t.Fatal(err)
		}
		after := here()
		for n := range before {
			if !after[n] && truth-made[n] < retention-off {
				t.Errorf("entry %d went after %v", n, truth-made[n])
			}
		}
	}
	epochs := map[edge.Epoch]bool{}
	expected := map[int]bool{} // ids of entries that must arrive
	var fresh []int            // those on this medium since its image was taken
	next := 0
	add := func(n int) {
		synctest.Wait() // what was begun comes first, always
		for range n {
			advance(time.Duration(rnd.IntN(60_000)) * time.Millisecond)
			x := &edge.Entry{Kind: edge.KindTest, Of: -1, Actor: "system", Stamp: e.clock.Now(), Data: fmt.Appendf(nil, `{"id":%d}`, next)}
			if _, err := e.j.Append(context.Background(), x, nil); err != nil {
				t.Fatal(err)
			}
			expected[next], made[next] = true, truth
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
		retain()
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
	// restored is where a restored medium began; nil when it has found out whether it
	// was forked. An image of one that has not, restored in its turn, is a third
	// journal beside two that have carried the same entries: the server tells a person.
	var restored *edge.EntryRef
	unaware := func() bool {
		if restored != nil && (e.j.Epoch() != restored.Epoch || e.j.Acked() > restored.Seq) {
			restored = nil
		}
		return restored != nil
	}
	for range rounds {
		// Days without a server.
		add(rnd.IntN(60))
		pass(time.Duration(rnd.IntN(8*24)) * time.Hour)
		synctest.Wait()
		gate.set(false)
		retain()
		synctest.Wait()
		gate.set(true)
		add(rnd.IntN(60))
		e.startServer(air.member("server"))
		for range 1 + rnd.IntN(8) {
			synctest.Wait()
			switch rnd.IntN(7) {
			case 0:
				gate.set(false)
				pass(time.Duration(rnd.IntN(100)) * time.Second)
				gate.set(true)
			case 3:
				air.forget()
			case 4:
				at := e.clock.Now()
				at.Time, at.Clock = began0.Time+truth.Milliseconds(), edge.ClockSynced
				switch rnd.IntN(4) {
				case 0, 1:
					at.Time += int64(rnd.IntN(4*86_400_000) - 2*86_400_000)
				case 2: // nobody vouches for it
					at.Time += int64(rnd.IntN(2000)-1000) * 86_400_000
					at.Clock = edge.ClockUnset
				}
				e.clock.Set(at)
			case 1:
				e.stopServer() // whatever it was doing
				e.startServer(air.member("server"))
			case 2:
				restart(func() {
					if restores && !image && !unaware() {
						copyFile(path, path+".image")
						image, fresh = true, nil
					}
				})
				startGate()
			}
			add(rnd.IntN(30))
			pass(time.Duration(rnd.IntN(120)) * time.Second)
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
			restored = &edge.EntryRef{Epoch: e.j.Epoch(), Seq: e.j.Acked()}
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
	for line, n := range e.stored() {
		if m := id.FindStringSubmatch(line); m != nil {
			k, err := strconv.Atoi(m[1])
			if err != nil {
				t.Fatal(err)
			}
			found[k] += n
		}
	}
	counts, err := e.srv.Counts(context.Background(), "s", "g")
	if err != nil {
		t.Fatal(err)
	}
	for _, c := range counts {
		if !epochs[c.Epoch] {
			t.Errorf("epoch %v is not the gate's", c.Epoch)
		}
	}
	for id := range expected {
		if found[id] != 1 {
			t.Errorf("entry %d is at the server %d times", id, found[id])
		}
	}
	for id, n := range found {
		if n > 1 && !expected[id] {
			t.Errorf("entry %d, of a medium that was lost, is at the server %d times", id, n)
		}
	}
	days := time.Since(began).Hours() / 24
	e.stopGate()
	e.stopServer()
	// In the end the clock is right, and what is old enough is gone.
	right := e.clock.Now()
	right.Time, right.Clock = began0.Time+truth.Milliseconds(), edge.ClockSynced
	e.clock.Set(right)
	add(1)
	pass(retention + off)
	add(1)
	retain()
	for n := range here() {
		if n < next-1 {
			t.Errorf("entry %d is still there", n)
		}
	}
	if err := e.j.Close(); err != nil {
		t.Fatal(err)
	}
	air.mu.Lock()
	defer air.mu.Unlock()
	t.Logf("%.0f days, %d entries, %d epochs, %d messages, trace %016x", days, next, len(counts), air.messages, air.trace)
	return air.trace
}
