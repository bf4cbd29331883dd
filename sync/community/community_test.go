package community

import (
	"bytes"
	"context"
	"crypto/ed25519"
	"crypto/sha256"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"filippo.io/age"
	"go.uber.org/goleak"
	"golang.org/x/mod/sumdb/tlog"

	"gatehouse/edge"
	"gatehouse/sync/wire"
	"gatehouse/sync/wire/wiretest"
)

func TestMain(m *testing.M) {
	if where := os.Getenv(childStore); where != "" {
		fmt.Fprintln(os.Stderr, child(where))
		os.Exit(1)
	}
	goleak.VerifyTestMain(m)
}

type key struct {
	name string
	priv ed25519.PrivateKey
}

func newKey(name string, seed byte) key {
	return key{name, ed25519.NewKeyFromSeed(bytes.Repeat([]byte{seed}, 32))}
}

func (k key) Name() string                    { return k.name }
func (k key) Public() []byte                  { return k.priv.Public().(ed25519.PublicKey) }
func (k key) Sign(msg []byte) ([]byte, error) { return ed25519.Sign(k.priv, msg), nil }

// bus is a broker in memory that delivers at once.
type bus struct {
	mu        sync.Mutex
	subs      []sub
	connected []func(context.Context)
	sent      map[string][][]byte
	news      chan struct{}
	deaf      bool              // publishing fails
	hold      chan struct{}     // until it is closed, publishing peers' deltas does not return
	schemas   *wiretest.Schemas // what is published must be as they say; nil = not checked
	wrong     error
}

type sub struct {
	pattern []string
	f       func(string, []byte)
}

func newBus() *bus { return &bus{sent: map[string][][]byte{}, news: make(chan struct{}, 1)} }

func (b *bus) Subscribe(topic string, f func(string, []byte)) {
	b.subs = append(b.subs, sub{strings.Split(topic, "/"), f})
}

func (b *bus) OnConnect(f func(context.Context)) { b.connected = append(b.connected, f) }

func (b *bus) Publish(_ context.Context, topic string, payload []byte, retained bool) error {
	b.mu.Lock()
	defer b.mu.Unlock()
	if hold := b.hold; hold != nil && strings.HasSuffix(topic, "/"+string(wire.Peers)) {
		defer func() { b.mu.Unlock(); <-hold; b.mu.Lock() }()
	}
	if retained && b.wrong == nil {
		// What a broker retains, nobody can take back from it for certain.
		b.wrong = fmt.Errorf("a message on %s is retained", topic)
	}
	if b.deaf {
		return errors.New("no connection")
	}
	if b.schemas != nil && b.wrong == nil {
		b.wrong = b.schemas.Payload(topic, payload)
	}
	b.sent[topic] = append(b.sent[topic], payload)
	select {
	case b.news <- struct{}{}:
	default:
	}
	return nil
}

// deliver is what a gate publishes.
func (b *bus) deliver(topic string, payload []byte) {
	levels := strings.Split(topic, "/")
	for _, s := range b.subs {
		if slices.EqualFunc(s.pattern, levels, func(p, l string) bool { return p == "+" || p == l }) {
			s.f(topic, payload)
		}
	}
}

// take waits for one message on a topic.
func (b *bus) take(t testing.TB, topic string) []byte {
	t.Helper()
	timeout := time.After(2 * time.Minute)
	for {
		b.mu.Lock()
		if q := b.sent[topic]; len(q) > 0 {
			b.sent[topic] = q[1:]
			b.mu.Unlock()
			return q[0]
		}
		b.mu.Unlock()
		select {
		case <-b.news:
		case <-timeout:
			t.Fatalf("nothing came on %s", topic)
		}
	}
}

// device is a gate's journal as the tests need it.
type device struct {
	site, gate string
	epoch      edge.Epoch
	key        key
	lines      [][]byte
	keys       []edge.BlockKey
	leaves     []tlog.Hash
}

const community = "test.example"

func newDevice(site, gate string, epoch edge.Epoch, seed byte) *device {
	return &device{site: site, gate: gate, epoch: epoch, key: newKey(community+"/"+site+"/"+gate, seed)}
}

func (d *device) add(lines ...string) {
	for _, l := range lines {
		seq := uint64(len(d.lines))
		if seq%edge.BlockSize == 0 {
			// Made up, but the same each time: a fuzz worker must know them too.
			d.keys = append(d.keys, sha256.Sum256(fmt.Appendf(nil, "%s %d", d.key.name, seq)))
		}
		data := edge.LeafData(d.keys[seq/edge.BlockSize].Blind(seq), []byte(l))
		d.lines = append(d.lines, []byte(l))
		d.leaves = append(d.leaves, tlog.RecordHash(data[:]))
	}
}

// line is a decision about a pass, with a counter changed for every third.
func line(i int) string {
	deltas := ""
	if i%3 == 0 {
		deltas = fmt.Sprintf(`,"deltas":[{"c":"exits","s":"h%d","b":7,"add":1}]`, i%700)
	}
	return fmt.Sprintf(`{"v":1,"kind":"decision","lane":"east-in","p":%d,"t":%d,"off":480,"boot":"fa4ec10c","mono":%d,"clock":"synced","policy":"sha256:00112233aabbccdd","engine":"1","outcome":"admit","rule":"residents","reason":"resident","facts":{"pass":{"id":%d,"category":"resident","status":"active"},"household":{"id":%d},"lane":{"level":"estate","direction":"in"}}%s}`,
		i+1, 1_700_000_000_000+int64(i)*1000, i*1000, i%2000+1, i%700+1, deltas)
}

func (d *device) addLines(n int) {
	for range n {
		d.add(line(len(d.lines)))
	}
}

// rootAt is the RFC 6962 root computed from the definition, not by our tree.
func (d *device) rootAt(n int) tlog.Hash {
	stored := []tlog.Hash{}
	r := tlog.HashReaderFunc(func(ix []int64) ([]tlog.Hash, error) {
		out := make([]tlog.Hash, len(ix))
		for i, x := range ix {
			out[i] = stored[x]
		}
		return out, nil
	})
	for i := range n {
		hs, err := tlog.StoredHashesForRecordHash(int64(i), d.leaves[i], r)
		if err != nil {
			panic(err)
		}
		stored = append(stored, hs...)
	}
	h, err := tlog.TreeHash(int64(n), r)
	if err != nil {
		panic(err)
	}
	return h
}

func (d *device) batch(t testing.TB, first, end int) []byte {
	t.Helper()
	h := edge.Head{Origin: edge.Origin(community, d.site, d.gate, d.epoch), Size: uint64(end), Root: d.rootAt(end)}
	if err := edge.SignHead(&h, d.key); err != nil {
		t.Fatal(err)
	}
	b := wire.Batch{Header: wire.Header{Site: d.site, Gate: d.gate, Epoch: d.epoch, First: uint64(first), Head: string(h.Note)}, Lines: d.lines[first:end]}
	for k := first / edge.BlockSize; k*edge.BlockSize < end; k++ {
		b.Keys = append(b.Keys, wire.HeaderKey{First: uint64(k * edge.BlockSize), Key: d.keys[k][:]})
	}
	payload, err := b.Encode(nil)
	if err != nil {
		t.Fatal(err)
	}
	return payload
}

func (d *device) topic(c wire.Channel) string { return wire.Topic(d.site, d.gate, c) }

// send delivers a batch and returns the answer.
func (d *device) send(t testing.TB, b *bus, first, end int) *wire.Receipt {
	t.Helper()
	b.deliver(d.topic(wire.Journal), d.batch(t, first, end))
	return d.receipt(t, b)
}

func (d *device) receipt(t testing.TB, b *bus) *wire.Receipt {
	t.Helper()
	r, err := wire.DecodeReceipt(b.take(t, d.topic(wire.Receipts)))
	if err != nil {
		t.Fatal(err)
	}
	return r
}

var serverKey = newKey("server.test.example", 99)

// want checks that a receipt acknowledges size, with all its signatures.
func (d *device) want(t testing.TB, r *wire.Receipt, size int) {
	t.Helper()
	if r.Refusal != nil {
		t.Fatalf("refused: %s: %s", r.Refusal.Code, r.Refusal.Text)
	}
	dv, err := edge.HeadVerifier(d.key.name, d.key.Public())
	if err != nil {
		t.Fatal(err)
	}
	sv, err := wire.CosignatureVerifier(serverKey.name, serverKey.Public())
	if err != nil {
		t.Fatal(err)
	}
	h, err := wire.OpenReceipt(r, edge.Origin(community, d.site, d.gate, d.epoch), dv, sv)
	if err != nil {
		t.Fatal(err)
	}
	if h.Size != uint64(size) || h.Root != [32]byte(d.rootAt(size)) {
		t.Fatalf("receipt for %d, want %d", h.Size, size)
	}
}

func (d *device) refused(t testing.TB, r *wire.Receipt, code wire.Code, size int) {
	t.Helper()
	if r.Refusal == nil || r.Refusal.Code != code || r.Size != uint64(size) {
		t.Fatalf("answer %+v (refusal %+v), want a refusal %s at %d", r, r.Refusal, code, size)
	}
	if err := r.VerifyRefusal(d.site, d.gate, serverKey.Public()); err != nil {
		t.Fatal(err)
	}
}

// start opens a server on where and runs it on a new bus.
func start(t testing.TB, where string, with ...func(*Config)) (*Server, *bus, func()) {
	t.Helper()
	ctx, cancel := context.WithCancel(context.Background())
	cfg := Config{Community: community, Signer: serverKey, Log: slog.New(slog.DiscardHandler)}
	for _, f := range with {
		f(&cfg)
	}
	s, err := Open(ctx, where, cfg)
	if err != nil {
		t.Fatal(err)
	}
	b := newBus()
	if _, bench := t.(*testing.B); !bench {
		if b.schemas, err = wiretest.New(); err != nil {
			t.Fatal(err)
		}
	}
	s.Attach(b)
	done := make(chan error, 1)
	go func() { done <- s.Run(ctx) }()
	stop := sync.OnceFunc(func() {
		cancel()
		if err := <-done; !errors.Is(err, context.Canceled) {
			t.Errorf("run: %v", err)
		}
		if err := s.Close(); err != nil {
			t.Errorf("close: %v", err)
		}
		if b.wrong != nil {
			t.Errorf("published against the schema: %v", b.wrong)
		}
	})
	t.Cleanup(stop)
	return s, b, stop
}

func register(t testing.TB, s *Server, d *device, recipient string) {
	t.Helper()
	if err := s.RegisterGate(context.Background(), d.site, d.gate, d.key.Public(), recipient, "test"); err != nil {
		t.Fatal(err)
	}
}

// whole checks that exactly the device's first n entries are stored, byte for
// byte, and that everything verifies.
func whole(t testing.TB, s *Server, d *device, n int) {
	t.Helper()
	ctx := context.Background()
	cs, err := s.Counts(ctx, d.site, d.gate)
	if err != nil {
		t.Fatal(err)
	}
	i := slices.IndexFunc(cs, func(c Count) bool { return c.Epoch == d.epoch })
	if i < 0 {
		t.Fatalf("nothing is stored of %s", d.epoch)
	}
	if c := cs[i]; c.Size != uint64(n) || c.Stored != uint64(n) || c.Missing != 0 || c.Duplicated != 0 {
		t.Fatalf("counts %+v, want %d", c, n)
	}
	for seq := range n {
		if n > 1000 && seq%97 != 0 {
			continue
		}
		l, err := s.Entry(ctx, d.site, d.gate, d.epoch, uint64(seq))
		if err != nil {
			t.Fatal(err)
		}
		if !bytes.Equal(l, d.lines[seq]) {
			t.Fatalf("entry %d is %s, want %s", seq, l, d.lines[seq])
		}
	}
	bad, err := s.Verify(ctx, d.site, d.gate)
	if err != nil || len(bad) > 0 {
		t.Fatalf("verify: %v %v", bad, err)
	}
}

func TestStoredOnceInOrder(t *testing.T) { testStoredOnce(t, filepath.Join(t.TempDir(), "c.db")) }

func testStoredOnce(t *testing.T, where string) {
	s, b, stop := start(t, where)
	d := newDevice("estate", "east", 7, 1)
	d.addLines(1500)
	register(t, s, d, "")
	d.want(t, d.send(t, b, 0, 1), 1)
	d.want(t, d.send(t, b, 1, 2), 2)
	d.refused(t, d.send(t, b, 3, 5), wire.RefusedGap, 2)
	d.want(t, d.send(t, b, 2, 300), 300)
	d.want(t, d.send(t, b, 2, 300), 300)   // again
	d.want(t, d.send(t, b, 0, 10), 300)    // long ago
	d.want(t, d.send(t, b, 250, 700), 700) // overlaps
	whole(t, s, d, 700)
	stop()

	s, b, _ = start(t, where)
	d.want(t, d.send(t, b, 690, 701), 701)
	for i := 701; i < 1030; i++ {
		d.want(t, d.send(t, b, i, i+1), i+1)
	}
	d.want(t, d.send(t, b, 1030, 1500), 1500)
	whole(t, s, d, 1500)
	if got := s.Repeated(); got != 10 {
		t.Errorf("%d entries counted as repeated, want 10", got)
	}
}

// A burst with repetitions is stored once, whatever the transactions are.
func TestBurst(t *testing.T) { testBurst(t, filepath.Join(t.TempDir(), "c.db")) }

func testBurst(t *testing.T, where string) {
	s, b, _ := start(t, where)
	d := newDevice("estate", "east", 7, 1)
	d.addLines(2000)
	register(t, s, d, "")
	for i := 0; i < 2000; i += 100 {
		b.deliver(d.topic(wire.Journal), d.batch(t, i, i+100))
		b.deliver(d.topic(wire.Journal), d.batch(t, max(0, i-50), i+50))
	}
	for {
		if r := d.receipt(t, b); r.Refusal == nil && r.Size == 2000 {
			d.want(t, r, 2000)
			break
		}
	}
	whole(t, s, d, 2000)
}

func TestForksAndForeignKeysAreRefused(t *testing.T) {
	testForks(t, filepath.Join(t.TempDir(), "c.db"))
}

func testForks(t *testing.T, where string) {
	s, b, _ := start(t, where)
	ctx := context.Background()
	d := newDevice("estate", "east", 7, 1)
	d.addLines(600)
	d.refused(t, d.send(t, b, 0, 10), wire.RefusedKey, 0)
	register(t, s, d, "")
	d.want(t, d.send(t, b, 0, 500), 500)

	// The same gate restored from an image of 400 entries.
	old := newDevice("estate", "east", 7, 1)
	old.lines, old.keys, old.leaves = slices.Clone(d.lines[:400]), slices.Clone(d.keys[:2]), slices.Clone(d.leaves[:400])
	old.add(`{"v":1,"kind":"start","t":5}`)
	for len(old.lines) < 520 {
		old.add(line(len(old.lines)))
	}
	old.refused(t, old.send(t, b, 390, 410), wire.RefusedFork, 500)
	old.refused(t, old.send(t, b, 500, 520), wire.RefusedFork, 500)
	// A device with its own key that says it is the same gate.
	twin := newDevice("estate", "east", 7, 2)
	twin.addLines(600)
	twin.refused(t, twin.send(t, b, 500, 510), wire.RefusedKey, 0)
	register(t, s, twin, "")
	twin.refused(t, twin.send(t, b, 500, 510), wire.RefusedEpoch, 500)
	// A head that is not of the entries beside it.
	broken := d.batch(t, 500, 510)
	broken = bytes.Replace(broken, []byte(`"rule":"residents"`), []byte(`"rule":"residentz"`), 1)
	b.deliver(d.topic(wire.Journal), broken)
	d.refused(t, d.receipt(t, b), wire.RefusedFork, 500)
	b.deliver(d.topic(wire.Journal), []byte("noise"))
	if r := d.receipt(t, b); r.Refusal == nil || r.Refusal.Code != wire.RefusedMalformed {
		t.Errorf("noise: %+v", r)
	}
	if err := s.RevokeGate(ctx, d.site, d.gate, d.key.Public(), "test"); err != nil {
		t.Fatal(err)
	}
	d.refused(t, d.send(t, b, 500, 510), wire.RefusedKey, 0)
	whole(t, s, d, 500)
	var alerts int
	if err := s.store.r.QueryRow(`SELECT SUM(times) FROM alert WHERE kind IN ('fork', 'key', 'epoch', 'malformed')`).Scan(&alerts); err != nil || alerts != 7 {
		t.Errorf("%d alerts, %v", alerts, err)
	}
}

func TestEpochsAreLinked(t *testing.T) { testEpochs(t, filepath.Join(t.TempDir(), "c.db")) }

func testEpochs(t *testing.T, where string) {
	s, b, _ := start(t, where)
	d := newDevice("estate", "east", 7, 1)
	d.addLines(5)
	register(t, s, d, "")
	d.want(t, d.send(t, b, 0, 5), 5)
	next := newDevice("estate", "east", 8, 1)
	next.add(`{"v":1,"kind":"epoch","t":1,"data":{"epoch":"0000000000000008","parent":"0000000000000007","forked":4}}`)
	next.want(t, next.send(t, b, 0, 1), 1)
	cs, err := s.Counts(context.Background(), "estate", "")
	if err != nil || len(cs) != 2 || cs[1].Parent != 7 || cs[1].Forked != 4 {
		t.Errorf("%+v, %v", cs, err)
	}
}

func peers(t testing.TB, b *bus, to *device) wire.PeersBody {
	t.Helper()
	e, err := wire.OpenEnvelope(b.take(t, to.topic(wire.Peers)), wire.TypePeers, to.site, to.gate, wire.UseRegistry,
		[]wire.ServerKey{{ID: serverKey.name, Public: serverKey.Public(), Uses: []wire.Use{wire.UseRegistry}}})
	if err != nil {
		t.Fatal(err)
	}
	var p wire.PeersBody
	if err := wire.Decode(e.Body, &p); err != nil {
		t.Fatal(err)
	}
	return p
}

func (d *device) ask(t testing.TB, b *bus, q wire.Request) wire.ManifestBody {
	t.Helper()
	q.V = wire.Version
	payload, err := wire.Encode(q)
	if err != nil {
		t.Fatal(err)
	}
	b.deliver(d.topic(wire.Requests), payload)
	for {
		e, err := wire.OpenEnvelope(b.take(t, d.topic(wire.Manifest)), wire.TypeManifest, d.site, d.gate, wire.UseRegistry,
			[]wire.ServerKey{{ID: serverKey.name, Public: serverKey.Public(), Uses: []wire.Use{wire.UseRegistry}}})
		if err != nil {
			t.Fatal(err)
		}
		var m wire.ManifestBody
		if err := wire.Decode(e.Body, &m); err != nil {
			t.Fatal(err)
		}
		if m.Nonce == q.Nonce {
			return m
		}
	}
}

// A gate is told of its peers' deltas until it says that it has them, also by a
// server that was started anew.
func TestPeersUntilConfirmed(t *testing.T) { testPeers(t, filepath.Join(t.TempDir(), "c.db")) }

func testPeers(t *testing.T, where string) {
	s, b, stop := start(t, where)
	east, west := newDevice("estate", "east", 7, 1), newDevice("estate", "west", 9, 2)
	east.addLines(10) // deltas at 0, 3, 6, 9
	register(t, s, east, "")
	register(t, s, west, "")
	east.want(t, east.send(t, b, 0, 5), 5)
	p := peers(t, b, west)
	if p.Gate != "east" || p.Epoch != 7 || p.From != 0 || len(p.Entries) != 2 || p.Entries[1].Seq != 3 {
		t.Fatalf("%+v", p)
	}
	if d := p.Entries[1].Deltas[0]; d.Op != edge.OpAdd || d.Value != 1 || d.Cell.Name != "exits" || d.Cell.Subject != "h3" || d.Cell.Bucket != 7 {
		t.Errorf("%+v", d)
	}
	east.want(t, east.send(t, b, 5, 8), 8)
	if p = peers(t, b, west); p.From != 4 || len(p.Entries) != 1 || p.Entries[0].Seq != 6 {
		t.Fatalf("%+v", p)
	}
	stop()

	_, b, stop = start(t, where)
	if p = peers(t, b, west); p.From != 0 || len(p.Entries) != 3 {
		t.Fatalf("after a restart: %+v", p)
	}
	west.ask(t, b, wire.Request{Nonce: "n1", Peers: []wire.PeerMark{{Gate: "east", Epoch: 7, Next: 4}}})
	if p = peers(t, b, west); p.From != 4 || len(p.Entries) != 1 {
		t.Fatalf("after confirming 4: %+v", p)
	}
	west.ask(t, b, wire.Request{Nonce: "n2", Peers: []wire.PeerMark{{Gate: "east", Epoch: 7, Next: 7}, {Gate: "east", Epoch: 7, Next: 1 << 40}, {Gate: "nobody", Next: 1}}})
	stop()

	_, b, _ = start(t, where)
	east.want(t, east.send(t, b, 8, 10), 10)
	if p = peers(t, b, west); p.From != 7 || len(p.Entries) != 1 || p.Entries[0].Seq != 9 {
		t.Fatalf("after confirming all: %+v", p)
	}
}

// A gate that says what it has, while it is told of more, is told again.
func TestPeersConfirmedMeanwhile(t *testing.T) {
	s, b, _ := start(t, filepath.Join(t.TempDir(), "c.db"))
	east, west := newDevice("estate", "east", 7, 1), newDevice("estate", "west", 9, 2)
	east.addLines(8) // deltas at 0, 3, 6
	register(t, s, east, "")
	register(t, s, west, "")
	hold := make(chan struct{})
	b.mu.Lock()
	b.hold = hold
	b.mu.Unlock()
	east.want(t, east.send(t, b, 0, 8), 8)
	if p := peers(t, b, west); p.From != 0 || len(p.Entries) != 3 {
		t.Fatalf("%+v", p)
	}
	west.ask(t, b, wire.Request{Nonce: "n", Peers: []wire.PeerMark{{Gate: "east", Epoch: 7, Next: 4}}})
	close(hold)
	if p := peers(t, b, west); p.From != 4 || len(p.Entries) != 1 {
		t.Fatalf("after confirming 4: %+v", p)
	}
}

func roster(n, changed int) func(func(edge.RosterRow, error) bool) {
	return func(yield func(edge.RosterRow, error) bool) {
		for i := 1; i <= n; i++ {
			r := edge.RosterRow{Line: i, Pass: edge.Pass{ID: edge.PassID(i * 7), Category: "resident", Status: edge.PassActive},
				Household: edge.Household{ID: edge.HouseholdID(i/3 + 1)}, Credentials: []edge.Credential{edge.Credential(fmt.Sprintf("em:%010X", i))}}
			if i == changed {
				r.Pass.Status = edge.PassLost
			}
			if !yield(r, nil) {
				return
			}
		}
	}
}

func TestRosterReachesGatesInChunks(t *testing.T) { testRoster(t, filepath.Join(t.TempDir(), "c.db")) }

func testRoster(t *testing.T, where string) {
	s, b, _ := start(t, where)
	ctx := context.Background()
	d := newDevice("estate", "east", 7, 1)
	id, err := age.GenerateX25519Identity()
	if err != nil {
		t.Fatal(err)
	}
	register(t, s, d, id.Recipient().String())
	have := map[string][]byte{} // a gate keeps the chunks it has
	fetch := func(nonce string) (map[edge.PassID]wire.Row, []string, int64) {
		t.Helper()
		m := d.ask(t, b, wire.Request{Nonce: nonce})
		if m.Registry == nil || m.Time == 0 {
			t.Fatalf("manifest %+v", m)
		}
		content := decrypt(t, m.Registry.Key, id)
		cid, err := age.ParseX25519Identity(string(content))
		if err != nil {
			t.Fatal(err)
		}
		out := map[edge.PassID]wire.Row{}
		for i, h := range m.Registry.Chunks {
			payload := have[h]
			if payload == nil {
				d.ask(t, b, wire.Request{Nonce: fmt.Sprint(nonce, i), Want: []string{h, "no such hash"}})
				payload = b.take(t, wire.RegistryTopic("estate", h))
				have[h] = payload
			}
			if wire.HashOf(payload) != h {
				t.Fatalf("chunk %s has another hash", h)
			}
			if bytes.Contains(payload, []byte("em:")) {
				t.Fatal("a chunk is readable")
			}
			plain, err := wire.Expand(decrypt(t, payload, cid), wire.MaxChunk)
			if err != nil {
				t.Fatal(err)
			}
			for _, l := range split(plain) {
				var r wire.Row
				if err := wire.Decode(l, &r); err != nil {
					t.Fatal(err)
				}
				out[r.Pass.ID] = r
			}
		}
		if int64(len(out)) != m.Registry.Rows {
			t.Fatalf("%d rows, the manifest says %d", len(out), m.Registry.Rows)
		}
		return out, m.Registry.Chunks, m.Registry.Version
	}

	ch, err := s.ImportRoster(ctx, "estate", roster(5000, 0), ImportOptions{MaxGone: 0.1})
	v1 := ch.Version
	if err != nil || ch != (Changes{New: 5000, Version: v1}) {
		t.Fatalf("%+v %v", ch, err)
	}
	rows, first, _ := fetch("a")
	if len(rows) != 5000 || rows[7*12].Credentials[0] != "em:000000000C" {
		t.Fatalf("%d rows, %+v", len(rows), rows[7*12])
	}
	if len(first) < 3 {
		t.Fatalf("only %d chunks", len(first))
	}
	if ch, err = s.ImportRoster(ctx, "estate", roster(5000, 77), ImportOptions{DryRun: true}); err != nil || ch.Changed != 1 || ch.Same != 4999 {
		t.Fatalf("%+v %v", ch, err)
	}
	if ch, err = s.ImportRoster(ctx, "estate", roster(4990, 77), ImportOptions{MaxGone: 0.1}); err != nil || ch != (Changes{Changed: 1, Same: 4989, Gone: 10, Version: ch.Version}) || ch.Version <= v1 {
		t.Fatalf("%+v %v", ch, err)
	}
	v2 := ch.Version
	rows, second, version := fetch("b")
	if len(rows) != 4990 || rows[7*77].Pass.Status != edge.PassLost || version != v2 {
		t.Errorf("%d rows of version %d, %+v", len(rows), version, rows[7*77])
	}
	kept := 0
	for _, h := range second {
		if slices.Contains(first, h) {
			kept++
		}
	}
	if kept < len(second)-2 {
		t.Errorf("only %d of %d chunks were kept although one row changed and some went at the end", kept, len(second))
	}
	// A gate with the first version is told the step to the second; a new one has none.
	delta := func(nonce string, from int64, want int) []wire.DeltaRef {
		t.Helper()
		m := d.ask(t, b, wire.Request{Nonce: nonce, Registry: from})
		if m.Registry == nil || len(m.Registry.Deltas) != want {
			t.Fatalf("from %d: %+v, want %d deltas", from, m.Registry, want)
		}
		return m.Registry.Deltas
	}
	read := func(nonce string, ref wire.DeltaRef) (wire.DeltaHead, []wire.Row) {
		t.Helper()
		m := d.ask(t, b, wire.Request{Nonce: nonce, Registry: ref.From, Want: []string{ref.Hash}})
		payload := b.take(t, wire.RegistryTopic("estate", ref.Hash))
		if wire.HashOf(payload) != ref.Hash || bytes.Contains(payload, []byte("em:")) {
			t.Fatal("a delta has another hash or is readable")
		}
		cid, err := age.ParseX25519Identity(string(decrypt(t, m.Registry.Key, id)))
		if err != nil {
			t.Fatal(err)
		}
		plain, err := wire.Expand(decrypt(t, payload, cid), wire.MaxChunk)
		if err != nil {
			t.Fatal(err)
		}
		var head wire.DeltaHead
		var rows []wire.Row
		for i, l := range split(plain) {
			var r wire.Row
			if i == 0 {
				err = wire.Decode(l, &head)
			} else if err = wire.Decode(l, &r); err == nil {
				rows = append(rows, r)
			}
			if err != nil {
				t.Fatal(err)
			}
		}
		return head, rows
	}
	step := delta("d1", v1, 1)[0]
	head, put := read("d2", step)
	if head.From != v1 || head.To != v2 || len(head.Gone) != 10 || head.Gone[0] != 7*4991 || head.Gone[9] != 7*5000 {
		t.Errorf("%+v", head)
	}
	if len(put) != 1 || put[0].Pass.ID != 7*77 || put[0].Pass.Status != edge.PassLost {
		t.Errorf("%+v", put)
	}
	// A change of everybody is no delta: chunks are as good. What follows it is one.
	if ch, err = s.ImportRoster(ctx, "estate", roster(4990, -1), ImportOptions{MaxGone: 0.1}); err != nil || ch.Version <= v2 {
		t.Fatalf("%+v %v", ch, err)
	}
	delta("d3", v1, 2)
	everybody := func(yield func(edge.RosterRow, error) bool) {
		for r := range roster(4990, 0) {
			r.Pass.Name = "renamed"
			if !yield(r, nil) {
				return
			}
		}
	}
	if ch, err = s.ImportRoster(ctx, "estate", everybody, ImportOptions{MaxGone: 0.1}); err != nil || ch.Changed != 4990 {
		t.Fatalf("%+v %v", ch, err)
	}
	delta("d4", v1, 0)
	one := func(yield func(edge.RosterRow, error) bool) {
		for r := range everybody {
			if r.Pass.ID == 7*78 {
				r.Pass.Name = "somebody"
			}
			if r.Pass.ID != 7*79 && !yield(r, nil) {
				return
			}
		}
	}
	v4 := ch.Version
	if ch, err = s.ImportRoster(ctx, "estate", one, ImportOptions{MaxGone: 0.1}); err != nil || ch.Changed != 1 || ch.Gone != 1 {
		t.Fatalf("%+v %v", ch, err)
	}
	if delta("d5", v1, 1)[0].From != v4 { // leads from that only
		t.Error("a delta from the version before is missing")
	}
	// Who is erased stands in no delta, and none says so afterwards.
	if _, err := s.ErasePerson(ctx, "estate", 7*78, "office:1"); err != nil {
		t.Fatal(err)
	}
	delta("d6", v4, 0)
	_, _, last := fetch("d7")

	if _, err = s.ImportRoster(ctx, "estate", roster(2000, 0), ImportOptions{MaxGone: 0.1}); !errors.Is(err, ErrTooManyGone) {
		t.Errorf("half a roster: %v", err)
	}
	twice := func(yield func(edge.RosterRow, error) bool) {
		_ = yield(edge.RosterRow{Line: 1, Pass: edge.Pass{ID: 1}}, nil) && yield(edge.RosterRow{Line: 2, Pass: edge.Pass{ID: 1}}, nil)
	}
	if _, err = s.ImportRoster(ctx, "estate", twice, ImportOptions{MaxGone: 1}); err == nil {
		t.Error("a pass that is there twice was taken")
	}
	if m := d.ask(t, b, wire.Request{Nonce: "c", Registry: last}); m.Registry != nil {
		t.Error("a gate that has it all is told to fetch it again")
	}
}

func decrypt(t testing.TB, data []byte, id *age.X25519Identity) []byte {
	t.Helper()
	r, err := age.Decrypt(bytes.NewReader(data), id)
	if err != nil {
		t.Fatal(err)
	}
	var out bytes.Buffer
	if _, err := out.ReadFrom(r); err != nil {
		t.Fatal(err)
	}
	return out.Bytes()
}

// A version's number is never given again, whatever the database has forgotten.
func TestNextVersion(t *testing.T) {
	now := time.Now().Unix()
	if v := nextVersion(2); v < now || v > now+60 {
		t.Errorf("after 2 comes %d at %d", v, now)
	}
	if v := nextVersion(now + 1000); v != now+1001 {
		t.Errorf("after %d comes %d", now+1000, v)
	}
}
