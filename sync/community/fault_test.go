package community

import (
	"bufio"
	"context"
	"encoding/binary"
	"errors"
	"io"
	"log/slog"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"sync"
	"testing"
	"time"

	"gatehouse/sync/wire"
)

// The environment of a child that is a server to be killed.
const (
	childStore = "GATEHOUSE_TEST_CHILD_STORE"
	killsEnv   = "GATEHOUSE_TEST_KILLS" // how often, for a longer run
	seedEnv    = "GATEHOUSE_TEST_SEED"  // to repeat a run
)

// frame is one message between the test and a child: topic and payload, each
// with its length before it.
func writeFrame(w io.Writer, topic string, payload []byte) error {
	b := binary.BigEndian.AppendUint32(nil, uint32(len(topic)))
	b = binary.BigEndian.AppendUint32(b, uint32(len(payload)))
	_, err := w.Write(append(append(b, topic...), payload...))
	return err
}

func readFrame(r io.Reader) (topic string, payload []byte, err error) {
	var n [8]byte
	if _, err := io.ReadFull(r, n[:]); err != nil {
		return "", nil, err
	}
	t := binary.BigEndian.Uint32(n[:4])
	b := make([]byte, t+binary.BigEndian.Uint32(n[4:]))
	if _, err := io.ReadFull(r, b); err != nil {
		return "", nil, err
	}
	return string(b[:t]), b[t:], nil
}

// pipes is the transport of a child: its standard input and output.
type pipes struct {
	*bus
	mu sync.Mutex
	w  io.Writer
}

func (p *pipes) Publish(_ context.Context, topic string, payload []byte, _ bool) error {
	p.mu.Lock()
	defer p.mu.Unlock()
	return writeFrame(p.w, topic, payload)
}

// child is the server in a process of its own. It ends only by being killed.
func child(where string) error {
	ctx := context.Background()
	s, err := Open(ctx, where, Config{Community: community, Signer: serverKey, Log: slog.New(slog.NewTextHandler(os.Stderr, nil))})
	if err != nil {
		return err
	}
	p := &pipes{bus: newBus(), w: os.Stdout}
	s.Attach(p)
	go func() {
		r := bufio.NewReader(os.Stdin)
		for {
			topic, payload, err := readFrame(r)
			if err != nil {
				return
			}
			p.deliver(topic, payload)
		}
	}()
	return s.Run(ctx)
}

func seedOf(t testing.TB) *rand.Rand {
	seed := uint64(time.Now().UnixNano())
	if s := os.Getenv(seedEnv); s != "" {
		v, err := strconv.ParseUint(s, 10, 64)
		if err != nil {
			t.Fatal(err)
		}
		seed = v
	}
	t.Logf("%s=%d", seedEnv, seed)
	return rand.New(rand.NewPCG(seed, 7))
}

func kills(t testing.TB, n int) int {
	if s := os.Getenv(killsEnv); s != "" {
		v, err := strconv.Atoi(s)
		if err != nil {
			t.Fatal(err)
		}
		return v
	}
	return n
}

// Whenever the server is killed, what it has receipted is stored, and in the end
// everything is, once.
func TestKilledAtRandom(t *testing.T) {
	testKilled(t, filepath.Join(t.TempDir(), "c.db"), kills(t, 60))
}

func testKilled(t *testing.T, where string, times int) {
	rng := seedOf(t)
	d := newDevice("estate", "east", 7, 1)
	s, _, stop := start(t, where)
	register(t, s, d, "")
	stop()
	acked := 0
	for n := 0; n <= times; n++ {
		cmd := exec.Command(os.Args[0], "-test.run=^$")
		cmd.Env = append(os.Environ(), childStore+"="+where)
		in, err := cmd.StdinPipe()
		if err != nil {
			t.Fatal(err)
		}
		out, err := cmd.StdoutPipe()
		if err != nil {
			t.Fatal(err)
		}
		if err := cmd.Start(); err != nil {
			t.Fatal(err)
		}
		receipts := make(chan *wire.Receipt)
		go func() {
			defer close(receipts)
			r := bufio.NewReader(out)
			for {
				topic, payload, err := readFrame(r)
				if err != nil {
					return
				}
				if topic != d.topic(wire.Receipts) {
					continue
				}
				if x, err := wire.DecodeReceipt(payload); err == nil {
					receipts <- x
				}
			}
		}()
		// Some batches after what is acknowledged, all at once, some of them again.
		first := acked
		for range 1 + rng.IntN(6) {
			size := 1 + rng.IntN(400)
			d.addLines(max(0, first+size-len(d.lines)))
			if err := writeFrame(in, d.topic(wire.Journal), d.batch(t, first, first+size)); err != nil {
				t.Fatal(err)
			}
			if rng.IntN(4) > 0 {
				first += size
			}
		}
		// Killed a moment after its first answer, or a moment after its start; the
		// last one works to the end.
		moment := time.Duration(rng.IntN(30_000)) * time.Microsecond
		end, last := len(d.lines), n == times
		if last {
			if err := writeFrame(in, d.topic(wire.Journal), d.batch(t, acked, end)); err != nil {
				t.Fatal(err)
			}
		}
		var kill <-chan time.Time
		if !last && rng.IntN(4) == 0 {
			kill = time.After(moment)
		}
		hung := time.After(2 * time.Minute)
		for answered := false; !last || acked < end; {
			select {
			case r, ok := <-receipts:
				switch {
				case !ok:
					t.Fatal("the server ended by itself")
				case r.Size < uint64(acked):
					t.Fatalf("kill %d: the server has %d, it had receipted %d", n, r.Size, acked)
				case r.Refusal == nil:
					acked = int(r.Size)
				case r.Refusal.Code != wire.RefusedGap:
					t.Fatalf("kill %d: %+v", n, r.Refusal)
				}
				if !answered && !last && kill == nil {
					kill = time.After(moment)
				}
				answered = true
				continue
			case <-kill:
			case <-hung:
				t.Fatalf("kill %d: no answer", n)
			}
			break
		}
		if err := cmd.Process.Kill(); err != nil {
			t.Fatal(err)
		}
		for range receipts {
		}
		_ = cmd.Wait()
	}
	s, _, _ = start(t, where)
	whole(t, s, d, acked)
	t.Logf("%d entries over %d kills", acked, times)
}

// A server that has committed and dies before its receipt acknowledges the same
// batch when it comes again.
func TestCommittedWithoutReceipt(t *testing.T) {
	where := filepath.Join(t.TempDir(), "c.db")
	s, b, stop := start(t, where)
	d := newDevice("estate", "east", 7, 1)
	d.addLines(300)
	register(t, s, d, "")
	b.mu.Lock()
	b.deaf = true
	b.mu.Unlock()
	b.deliver(d.topic(wire.Journal), d.batch(t, 0, 300))
	for {
		cs, err := s.Counts(context.Background(), d.site, d.gate)
		if err != nil {
			t.Fatal(err)
		}
		if len(cs) == 1 && cs[0].Size == 300 {
			break
		}
	}
	stop()
	s, b, _ = start(t, where)
	d.want(t, d.send(t, b, 0, 300), 300)
	whole(t, s, d, 300)
}

// uplink sends a device's entries as a gate does: a window in flight, and again
// what has no receipt in time.
func uplink(t testing.TB, b *bus, d *device, rng *rand.Rand, again time.Duration) {
	acked, sent := 0, 0
	for acked < len(d.lines) {
		for sent < min(acked+1500, len(d.lines)) {
			end := min(sent+1+rng.IntN(300), len(d.lines))
			b.deliver(d.topic(wire.Journal), d.batch(t, sent, end))
			sent = end
		}
		select {
		case <-b.news:
		case <-time.After(again):
			sent = acked
		}
		b.mu.Lock()
		all := b.sent[d.topic(wire.Receipts)]
		b.sent[d.topic(wire.Receipts)] = nil
		b.mu.Unlock()
		for _, p := range all {
			r, err := wire.DecodeReceipt(p)
			if err != nil {
				t.Error(err)
				return
			}
			if r.Refusal == nil {
				acked = max(acked, int(r.Size))
			} else if r.Refusal.Code == wire.RefusedGap {
				sent = acked
			} else {
				t.Errorf("refused: %+v", r.Refusal)
				return
			}
			if r.Size < uint64(acked) && r.Refusal == nil {
				t.Errorf("the server has %d, it had receipted %d", r.Size, acked)
				return
			}
		}
		sent = max(sent, acked)
	}
}

// PostgreSQL is killed at random while a gate sends, as often as asked for; the
// server goes on when it is back.
func TestPostgresKilledAtRandom(t *testing.T) {
	rng := seedOf(t)
	c := newCluster(t)
	s, b, _ := start(t, c.newDatabase(t, "killed"))
	d := newDevice("estate", "east", 7, 1)
	register(t, s, d, "")
	sizes := rand.New(rand.NewPCG(rng.Uint64(), 1))
	n, want := 0, kills(t, 8)
	for n < want {
		d.addLines(20_000)
		done := make(chan struct{})
		go func() {
			defer close(done)
			uplink(t, b, d, sizes, 100*time.Millisecond)
		}()
		for running := true; running; {
			select {
			case <-done:
				running = false
			case <-time.After(time.Duration(20+rng.IntN(200)) * time.Millisecond):
				if n < want {
					c.kill(t)
					c.start(t)
					n++
				}
			}
		}
		if t.Failed() {
			return
		}
	}
	whole(t, s, d, len(d.lines))
	t.Logf("%d entries over %d kills of the database", len(d.lines), n)
}

// What a hostile or broken gate sends leaves the server running and the other
// gate's log as it is.
func FuzzReceive(f *testing.F) {
	d := newDevice("estate", "east", 7, 1)
	d.addLines(300)
	f.Add(d.batch(f, 0, 3))
	f.Add(d.batch(f, 0, 300))
	f.Add([]byte(`{"v":1}`))
	s, _, _ := start(f, filepath.Join(f.TempDir(), "c.db"))
	register(f, s, d, "")
	ctx := context.Background()
	c := committer{Server: s, logs: map[logName]*gateLog{}, newest: map[int64]int64{}}
	f.Fuzz(func(t *testing.T, payload []byte) {
		p, err := s.prepare(ctx, incoming{gateName{d.site, d.gate}, payload})
		if err != nil {
			t.Fatal(err)
		}
		if p.err != nil {
			return // its alert would be one more commit, which is slow and the same each time
		}
		if _, err := c.commit(ctx, []*prepared{p}); err != nil && !errors.Is(err, errLater) {
			t.Fatal(err)
		}
		// Only what the device has really signed can be stored.
		for _, l := range c.logs {
			if l.tree.root() != d.rootAt(int(l.tree.size)) {
				t.Fatal("something was stored that the device has not signed")
			}
		}
	})
}

// Two gates with one key name cannot reach each other's logs.
func TestAGateCannotWriteAnothersLog(t *testing.T) {
	s, b, _ := start(t, filepath.Join(t.TempDir(), "c.db"))
	east, west := newDevice("estate", "east", 7, 1), newDevice("estate", "west", 7, 2)
	east.addLines(4)
	west.addLines(4)
	register(t, s, east, "")
	register(t, s, west, "")
	east.want(t, east.send(t, b, 0, 2), 2)
	// West sends its own batch on east's topic, then one that says it is east's.
	b.deliver(east.topic(wire.Journal), west.batch(t, 0, 2))
	if r := east.receipt(t, b); r.Refusal == nil || r.Refusal.Code != wire.RefusedMalformed {
		t.Errorf("%+v", r)
	}
	liar := newDevice("estate", "east", 7, 2)
	liar.key.name = west.key.name
	liar.lines, liar.keys, liar.leaves = west.lines, west.keys, west.leaves
	b.deliver(east.topic(wire.Journal), liar.batch(t, 2, 4))
	east.refused(t, east.receipt(t, b), wire.RefusedKey, 0)
	whole(t, s, east, 2)
	cs, err := s.Counts(context.Background(), "estate", "west")
	if err != nil || len(cs) != 0 {
		t.Errorf("%v %v", cs, err)
	}
}

// Texts that a database refuses are no reason to refuse a batch, and what one gate
// sends keeps nobody waiting.
func TestHostileTexts(t *testing.T) { testHostileTexts(t, filepath.Join(t.TempDir(), "c.db")) }

func testHostileTexts(t *testing.T, where string) {
	s, b, _ := start(t, where)
	d, other := newDevice("estate", "east", 7, 1), newDevice("estate", "west", 7, 2)
	register(t, s, d, "")
	register(t, s, other, "")
	other.addLines(3)
	d.add("{\"kind\":\"a\\u0000b\",\"t\":1,\"lane\":\"\xff\xfe\",\"deltas\":[\"\xc0\\u0000\"]}", "not JSON \x00\xff", `{"kind":"`+longText+`"}`,
		`{"kind":"registry","data":{"pass":4,"status":"\u0000","reason":"\ud800"}}`, `{"t":99999999999999999999,"p":-1,"of":-9}`, `{"p":9223372036854775807,"facts":{"pass":{"id":-4}}}`)
	b.deliver(other.topic(wire.Journal), other.batch(t, 0, 3))
	d.want(t, d.send(t, b, 0, 6), 6)
	other.want(t, other.receipt(t, b), 3)
	whole(t, s, d, 6)
	rows, err := s.Query(context.Background(), Filter{Gate: "east"})
	if err != nil || len(rows) != 6 {
		t.Errorf("%v %v", rows, err)
	}
	bad, err := wire.Encode(wire.AlertMessage{V: 1, Code: "a\x00", Text: "b\x00", Lane: "\x00"})
	if err != nil {
		t.Fatal(err)
	}
	b.deliver(d.topic(wire.Alerts), bad)
	b.deliver(d.topic(wire.Status), []byte(`{"v":1,"online":true,"version":"`+"\xff"+`\u0000"}`))
	d.ask(t, b, wire.Request{Nonce: "after"})
	as, err := s.Alerts(context.Background(), "")
	if err != nil || len(as) != 1 {
		t.Errorf("%v %v", as, err)
	}
}

const longText = "长长长长长长长长长长长长长长长长长长长长长长长长长长长长长长长长长长长长长长长长长长长长长长长长长长长长长长长长长长长长长长长长长长长长长长长长长长长长长长长长"
