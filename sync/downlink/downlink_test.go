package downlink

import (
	"bytes"
	"cmp"
	"context"
	"crypto/ed25519"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"iter"
	"log/slog"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"filippo.io/age"

	"gatehouse/edge"
	"gatehouse/edge/clock"
	"gatehouse/sync/wire"
	"gatehouse/sync/wire/wiretest"
)

var schemas = sync.OnceValue(func() *wiretest.Schemas {
	s, err := wiretest.New()
	if err != nil {
		panic(err)
	}
	return s
})

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

// gate is everything a downlink works on, in memory, and the server beyond it.
type gate struct {
	t      *testing.T
	mu     sync.Mutex
	dir    string
	server key
	device *age.X25519Identity
	site   *age.X25519Identity
	clock  *clock.Fake
	bad    bool // what the server says now breaks the schema

	subs      map[string]func(string, []byte)
	onConnect []func(context.Context)
	requests  []wire.Request
	results   []wire.Result

	version   int64
	rows      []edge.RosterRow
	contains  []edge.EntryRef
	changes   []edge.PassChange
	archive   map[string][]byte
	inForce   []string // hashes of the bundles in force
	applied   int
	policyErr error
	peers     map[string]edge.EntryRef
	deltas    int
	done      []Command
	doErr     error
	records   []string
	time      time.Time
	trust     []wire.ServerKey
	list      uint64
}

func newGate(t *testing.T) *gate {
	g := &gate{t: t, dir: t.TempDir(), server: newKey("server", 1), clock: clock.NewFake(time.UnixMilli(1_000_000), 0), subs: map[string]func(string, []byte){}, peers: map[string]edge.EntryRef{}, archive: map[string][]byte{}}
	g.trust = []wire.ServerKey{{ID: "server", Public: g.server.Public(), Uses: wire.AllUses()}}
	var err error
	if g.device, err = age.GenerateX25519Identity(); err != nil {
		t.Fatal(err)
	}
	if g.site, err = age.GenerateX25519Identity(); err != nil {
		t.Fatal(err)
	}
	return g
}

func (g *gate) Subscribe(topic string, f func(string, []byte)) { g.subs[topic] = f }
func (g *gate) OnConnect(f func(context.Context))              { g.onConnect = append(g.onConnect, f) }
func (g *gate) Publish(_ context.Context, topic string, payload []byte, _ bool) error {
	g.mu.Lock()
	defer g.mu.Unlock()
	var err error
	switch {
	case strings.HasSuffix(topic, "/request"):
		var q wire.Request
		err = wire.Decode(payload, &q)
		g.requests = append(g.requests, q)
	case strings.HasSuffix(topic, "/result"):
		var r wire.Result
		err = wire.Decode(payload, &r)
		g.results = append(g.results, r)
	default:
		err = errors.New("unexpected topic " + topic)
	}
	if err := errors.Join(err, schemas().Payload(topic, payload)); err != nil {
		g.t.Error(err)
	}
	return nil
}

func (g *gate) Version() int64 { return g.version }
func (g *gate) Replace(_ context.Context, version int64, rows iter.Seq2[edge.RosterRow, error], contains []edge.EntryRef) error {
	var all []edge.RosterRow
	for r, err := range rows {
		if err != nil {
			return err
		}
		all = append(all, r)
	}
	g.rows, g.version, g.contains = all, version, contains
	return nil
}

type registry struct{ *gate }

func (g registry) ApplyDelta(_ context.Context, from, to int64, put []edge.RosterRow, gone []edge.PassID, contains []edge.EntryRef) error {
	if from != g.version || to != from+1 {
		return fmt.Errorf("a delta from %d to %d onto %d", from, to, g.version)
	}
	rows := map[edge.PassID]edge.RosterRow{}
	for _, r := range append(slices.Clone(g.rows), put...) {
		rows[r.Pass.ID] = r
	}
	for _, id := range gone {
		if _, ok := rows[id]; !ok {
			return fmt.Errorf("pass %d is gone, it never was here", id)
		}
		delete(rows, id)
	}
	g.rows = slices.SortedFunc(maps.Values(rows), func(a, b edge.RosterRow) int { return cmp.Compare(a.Pass.ID, b.Pass.ID) })
	g.version, g.contains = to, contains
	return nil
}

func (g registry) Apply(_ context.Context, _ edge.EntryRef, ch edge.PassChange) error {
	g.changes = append(g.changes, ch)
	return nil
}

type policies struct{ *gate }

func (g policies) Set() string { return wire.SetOf(g.inForce...) }
func (g policies) Bundle(_ context.Context, hash string) ([]byte, error) {
	if b, ok := g.archive[hash]; ok {
		return b, nil
	}
	return nil, edge.ErrUnknown
}
func (g policies) Apply(_ context.Context, bundles [][]byte) error {
	g.applied++
	if g.policyErr != nil {
		return g.policyErr
	}
	g.inForce = nil
	for _, b := range bundles {
		h := wire.HashOf(b)
		g.archive[h] = b
		g.inForce = append(g.inForce, h)
	}
	return nil
}

func (g *gate) PeersApplied(context.Context) (out []edge.EntryRef, err error) {
	for _, r := range g.peers {
		out = append(out, r)
	}
	return out, nil
}

func (g *gate) ApplyPeer(_ context.Context, deltas []edge.PeerDelta) error {
	for _, d := range deltas {
		g.peers[d.Gate+d.Epoch.String()] = edge.EntryRef{Gate: d.Gate, Epoch: d.Epoch, Seq: d.Seq}
		g.deltas += len(d.Deltas)
	}
	return nil
}

func (g *gate) Do(_ context.Context, c Command) (string, error) {
	g.done = append(g.done, c)
	return "did " + c.Name, g.doErr
}

func (g *gate) open(r io.Reader, limit int64) ([]byte, error) {
	p, err := age.Decrypt(r, g.device)
	if err != nil {
		return nil, err
	}
	return io.ReadAll(io.LimitReader(p, limit))
}

// start runs a downlink until stop.
func (g *gate) start() (stop func()) {
	g.t.Helper()
	d, err := New(Config{Site: "s", Gate: "g", Dir: g.dir, Trust: func() wire.Trust { return wire.Trust{V: wire.Version, Number: g.list, Keys: g.trust} },
		SetTrust: func(t wire.Trust) error { g.list, g.trust = t.Number, t.Keys; return nil },
		Nonces:   func() (string, string) { return "now", "before" }, Open: g.open, Clock: g.clock,
		SetServer: func(t time.Time) { g.time = t },
		Record: func(_ context.Context, k edge.Kind, data any) (edge.EntryRef, error) {
			g.records = append(g.records, fmt.Sprint(k, " ", data))
			return edge.EntryRef{}, nil
		},
		Registry: registry{g}, Policies: policies{g}, Peers: g, Commands: g}, g, slog.New(slog.DiscardHandler))
	if err != nil {
		g.t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	ended := make(chan error, 1)
	go func() { ended <- d.Run(ctx) }()
	return func() {
		cancel()
		if err := <-ended; !errors.Is(err, context.Canceled) {
			g.t.Errorf("Run ended with %v", err)
		}
	}
}

func (g *gate) connect() {
	for _, f := range g.onConnect {
		f(context.Background())
	}
	synctest.Wait()
}

// say sends a signed body as the server does.
func (g *gate) say(typ, site, gate string, c wire.Channel, body any, k edge.Signer) {
	g.t.Helper()
	b, err := wire.Encode(body)
	if err != nil {
		g.t.Fatal(err)
	}
	e := wire.Envelope{Type: typ, Site: site, Gate: gate, IssuedAt: time.Now().UnixMilli(), Body: b}
	if err := e.Sign(k); err != nil {
		g.t.Fatal(err)
	}
	payload, err := e.Encode()
	if err != nil {
		g.t.Fatal(err)
	}
	topic := wire.Topic("s", "g", c)
	if err := schemas().Payload(topic, payload); (err != nil) != g.bad {
		g.t.Errorf("valid is %v, want %v: %v", err == nil, !g.bad, err)
	}
	g.subs[topic](topic, payload)
	synctest.Wait()
}

func (g *gate) manifest(m wire.ManifestBody) {
	g.t.Helper()
	m.V = wire.Version
	g.say(wire.TypeManifest, "s", "g", wire.Manifest, m, g.server)
}

func (g *gate) encrypt(plain []byte, to age.Recipient) []byte {
	g.t.Helper()
	var buf bytes.Buffer
	w, err := age.Encrypt(&buf, to)
	if err != nil {
		g.t.Fatal(err)
	}
	_, err = w.Write(plain)
	if err := errors.Join(err, w.Close()); err != nil {
		g.t.Fatal(err)
	}
	return buf.Bytes()
}

// roster makes a registry of n passes in chunks of ten.
func (g *gate) roster(version, n int64) (*wire.RegistryRef, map[string][]byte) {
	g.t.Helper()
	ref := &wire.RegistryRef{Version: version, Rows: n, Key: g.encrypt([]byte(g.site.String()), g.device.Recipient())}
	chunks := map[string][]byte{}
	zip, err := wire.NewCompressor(0)
	if err != nil {
		g.t.Fatal(err)
	}
	for first := int64(1); first <= n; first += 10 {
		var text []byte
		for id := first; id < first+10 && id <= n; id++ {
			b, err := wire.Encode(wire.Row{Pass: edge.Pass{ID: edge.PassID(id), Category: "resident", Status: edge.PassActive}, Credentials: []edge.Credential{"em:0000000001"}})
			if err != nil {
				g.t.Fatal(err)
			}
			text = append(append(text, b...), '\n')
		}
		c := g.encrypt(zip.Pack(nil, text), g.site.Recipient())
		h := wire.HashOf(c)
		ref.Chunks = append(ref.Chunks, h)
		chunks[h] = c
	}
	return ref, chunks
}

func (g *gate) send(hash string, payload []byte) {
	g.subs[wire.RegistryTopic("s", "+")](wire.RegistryTopic("s", hash), payload)
	synctest.Wait()
}

func TestRegistryInChunksOverARestart(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		g := newGate(t)
		stop := g.start()
		g.connect()
		ref, chunks := g.roster(3, 1000)
		ref.Contains = []wire.PeerMark{{Gate: "g", Epoch: 5, Next: 8}}
		g.manifest(wire.ManifestBody{Registry: ref})
		q := g.requests[len(g.requests)-1]
		if len(g.requests) != 2 || len(q.Want) != 64 {
			t.Fatalf("%d requests, the last wants %d chunks", len(g.requests), len(q.Want))
		}
		for i, h := range ref.Chunks[:40] {
			if i == 7 {
				g.send(h, []byte("something else"))
				continue
			}
			g.send(h, chunks[h])
		}
		g.send(strings.Repeat("../x", 16), nil)
		stop()

		stop = g.start()
		defer stop()
		g.connect()
		g.manifest(wire.ManifestBody{Registry: ref})
		q = g.requests[len(g.requests)-1]
		if len(q.Want) != 61 || q.Want[0] != ref.Chunks[7] {
			t.Fatalf("wants %d chunks after the restart", len(q.Want))
		}
		for _, h := range q.Want {
			g.send(h, chunks[h])
		}
		if g.version != 3 || len(g.rows) != 1000 || g.rows[999].Pass.ID != 1000 || len(g.rows[0].Credentials) != 1 {
			t.Fatalf("version %d with %d rows", g.version, len(g.rows))
		}
		if len(g.contains) != 1 || g.contains[0].Seq != 7 {
			t.Errorf("contains %+v", g.contains)
		}
		// The next version needs only its new chunks; the old ones go afterwards.
		next, more := g.roster(4, 1010)
		same := append([]string(nil), ref.Chunks...)
		next.Chunks = append(same, next.Chunks[100])
		g.manifest(wire.ManifestBody{Registry: next})
		if q = g.requests[len(g.requests)-1]; len(q.Want) != 1 {
			t.Fatalf("wants %d chunks of the next version", len(q.Want))
		}
		g.send(q.Want[0], more[q.Want[0]])
		if g.version != 4 || len(g.rows) != 1010 {
			t.Fatalf("version %d with %d rows", g.version, len(g.rows))
		}
		// An older one is refused and said so.
		g.manifest(wire.ManifestBody{Registry: ref})
		if g.version != 4 || !strings.Contains(strings.Join(g.records, "\n"), "older than 4") {
			t.Errorf("version %d, records %q", g.version, g.records)
		}
	})
}

func TestDamagedChunkIsFetchedAgain(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		g := newGate(t)
		defer g.start()()
		g.connect()
		ref, chunks := g.roster(1, 20)
		g.manifest(wire.ManifestBody{Registry: ref})
		g.send(ref.Chunks[0], chunks[ref.Chunks[0]])
		if err := os.WriteFile(filepath.Join(g.dir, "chunks", ref.Chunks[0]), []byte("torn"), 0o600); err != nil {
			t.Fatal(err)
		}
		g.send(ref.Chunks[1], chunks[ref.Chunks[1]])
		if g.version != 0 {
			t.Fatal("a damaged chunk was taken")
		}
		time.Sleep(time.Minute)
		synctest.Wait()
		if q := g.requests[len(g.requests)-1]; len(q.Want) != 1 || q.Want[0] != ref.Chunks[0] {
			t.Fatalf("wants %v", q.Want)
		}
		g.send(ref.Chunks[0], chunks[ref.Chunks[0]])
		if g.version != 1 || len(g.rows) != 20 {
			t.Errorf("version %d with %d rows", g.version, len(g.rows))
		}
	})
}

func TestRegistryThatDoesNotFitIsRefused(t *testing.T) {
	for name, spoil := range map[string]func(*wire.RegistryRef){
		"rows": func(r *wire.RegistryRef) { r.Rows++ },
		"key":  func(r *wire.RegistryRef) { r.Key = []byte("no") },
		"hash": func(r *wire.RegistryRef) { r.Chunks[0] = "../../etc" },
	} {
		synctest.Test(t, func(t *testing.T) {
			g := newGate(t)
			defer g.start()()
			g.connect()
			ref, chunks := g.roster(1, 10)
			h := ref.Chunks[0]
			spoil(ref)
			g.bad = !isHash(ref.Chunks[0])
			g.manifest(wire.ManifestBody{Registry: ref})
			g.send(h, chunks[h])
			if g.version != 0 || len(g.records) != 1 {
				t.Errorf("%s: version %d, records %q", name, g.version, g.records)
			}
		})
	}
}

func TestPolicyTimeAndTrust(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		g := newGate(t)
		defer g.start()()
		g.connect()
		bundle := []byte("rules")
		time.Sleep(2 * time.Second)
		h := wire.HashOf(bundle)
		next := newKey("next", 3)
		g.manifest(wire.ManifestBody{Nonce: g.requests[0].Nonce, Time: 5_000_000,
			Policies: []wire.PolicyRef{{Hash: h, Version: 1}},
			Trust:    []wire.ServerKey{{ID: "other", Public: next.Public(), Uses: []wire.Use{wire.UseRegistry}}}, // says nothing
			Lists:    [][]byte{g.keys(1, g.server, append(g.trust, wire.ServerKey{ID: "next", Public: next.Public(), Uses: []wire.Use{wire.UseRegistry}})...)}})
		if want := time.UnixMilli(5_001_000); !g.time.Equal(want) {
			t.Errorf("server time %v, want %v", g.time, want)
		}
		if q := g.requests[len(g.requests)-1]; len(q.Want) != 1 || q.Want[0] != h {
			t.Fatalf("wants %v", q.Want)
		}
		g.bundle(bundle)
		if g.applied != 1 || (policies{g}).Set() != wire.SetOf(h) {
			t.Errorf("in force: %v", g.inForce)
		}
		// The new key may say so too; an answer played back sets no clock.
		g.time = time.Time{}
		time.Sleep(time.Second)
		g.say(wire.TypeManifest, "s", "g", wire.Manifest, wire.ManifestBody{V: 1, Nonce: g.requests[0].Nonce, Time: 1}, next)
		if !g.time.IsZero() || len(g.records) != 1 || !strings.Contains(g.records[0], "what:keys") {
			t.Errorf("server time %v, records %q", g.time, g.records)
		}
		// Nobody else may.
		g.say(wire.TypeManifest, "s", "g", wire.Manifest, wire.ManifestBody{V: 1}, newKey("server", 9))
		g.say(wire.TypeManifest, "t", "g", wire.Manifest, wire.ManifestBody{V: 1}, g.server)
		if len(g.records) != 2 {
			t.Errorf("records %q", g.records)
		}
	})
}

// keys is a list of keys as a key signs it.
func (g *gate) keys(number uint64, by key, keys ...wire.ServerKey) []byte {
	g.t.Helper()
	b, err := wire.SignTrust(wire.Trust{Number: number, Keys: keys}, 1, by)
	if err != nil {
		g.t.Fatal(err)
	}
	return b
}

// A gate that was away while keys were exchanged, the root's too, follows the lists
// from the keys that it knows to those of now; nothing else makes it believe one.
func TestKeysAreFollowed(t *testing.T) {
	const all = "receipts registry policy commands"
	sk := func(k key, uses string) wire.ServerKey {
		x := wire.ServerKey{ID: k.Name(), Public: k.Public()}
		for u := range strings.FieldsSeq(uses) {
			x.Uses = append(x.Uses, wire.Use(u))
		}
		return x
	}
	k1, k2, k3, r1, r2, thief := newKey("server", 1), newKey("server", 2), newKey("server", 3), newKey("root", 11), newKey("root", 12), newKey("root", 13)
	for name, c := range map[string]struct {
		lists func(g *gate) [][]byte
		by    key // of the manifest
		list  uint64
		works bool
	}{
		"two rotations": {func(g *gate) [][]byte {
			return [][]byte{g.keys(1, r1, sk(r1, "trust"), sk(k1, all), sk(k2, all)), g.keys(2, r1, sk(r1, "trust"), sk(k2, all)), g.keys(3, r1, sk(r1, "trust"), sk(k3, all))}
		}, k3, 3, true},
		"the root too": {func(g *gate) [][]byte {
			return [][]byte{g.keys(1, r1, sk(r2, "trust"), sk(k1, all)), g.keys(2, r2, sk(r2, "trust"), sk(k2, all))}
		}, k2, 2, true},
		"by a root that has gone": {func(g *gate) [][]byte {
			return [][]byte{g.keys(1, r1, sk(r2, "trust"), sk(k1, all)), g.keys(2, r1, sk(r1, "trust"), sk(k2, all))}
		}, k2, 1, false},
		"by the server's own key":  {func(g *gate) [][]byte { return [][]byte{g.keys(1, k1, sk(r1, "trust"), sk(k2, all))} }, k2, 0, false},
		"by somebody":              {func(g *gate) [][]byte { return [][]byte{g.keys(1, thief, sk(thief, "trust"), sk(k2, all))} }, k2, 0, false},
		"a gap":                    {func(g *gate) [][]byte { return [][]byte{g.keys(2, r2, sk(r2, "trust"), sk(k2, all))} }, k2, 0, false},
		"a retired key's manifest": {func(g *gate) [][]byte { return [][]byte{g.keys(1, r1, sk(r1, "trust"), sk(k2, all))} }, k1, 1, false},
		"not a list":               {func(g *gate) [][]byte { return [][]byte{[]byte("x")} }, k2, 0, false},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				g := newGate(t)
				g.trust = []wire.ServerKey{sk(r1, "trust"), sk(k1, all)}
				defer g.start()()
				g.connect()
				g.say(wire.TypeManifest, "s", "g", wire.Manifest, wire.ManifestBody{V: 1, Nonce: g.requests[0].Nonce, Time: 5_000_000, Lists: c.lists(g)}, c.by)
				if g.list != c.list || g.time.IsZero() == c.works {
					t.Errorf("list %d, time %v, records %q; want list %d", g.list, g.time, g.records, c.list)
				}
				if !c.works || c.list < 2 {
					return
				}
				// Played back, an old list brings no key back.
				g.say(wire.TypeManifest, "s", "g", wire.Manifest, wire.ManifestBody{V: 1, Lists: c.lists(g)[:1]}, k1)
				if g.list != c.list {
					t.Errorf("list %d after an old one was played back", g.list)
				}
			})
		})
	}
}

// bundle sends one, as the server publishes it.
func (g *gate) bundle(b []byte) {
	g.subs[wire.PolicyTopic("s", "+")](wire.PolicyTopic("s", wire.HashOf(b)), b)
	synctest.Wait()
}

// Layers come into force together; one that is here already is not fetched again,
// and a set that was refused neither.
func TestPolicyLayers(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		g := newGate(t)
		defer g.start()()
		g.connect()
		ref := func(b string) wire.PolicyRef { return wire.PolicyRef{Hash: wire.HashOf([]byte(b)), Layer: b[:1]} }
		set := func(bs ...string) wire.ManifestBody {
			var m wire.ManifestBody
			for _, b := range bs {
				m.Policies = append(m.Policies, ref(b))
			}
			return m
		}
		wants := func() []string { return g.requests[len(g.requests)-1].Want }
		g.manifest(set("city 1", "own 1"))
		if len(wants()) != 2 {
			t.Fatalf("wants %v", wants())
		}
		g.bundle([]byte("own 1"))
		if g.applied != 0 {
			t.Error("half a set is in force")
		}
		g.bundle([]byte("stranger"))
		g.bundle([]byte("city 1"))
		if g.applied != 1 || (policies{g}).Set() != wire.SetOf(ref("city 1").Hash, ref("own 1").Hash) {
			t.Errorf("in force: %v", g.inForce)
		}
		asked := len(g.requests)
		g.manifest(set("own 1", "city 1")) // in another order
		if len(g.requests) != asked || g.applied != 1 {
			t.Error("what is in force is fetched again")
		}
		g.policyErr = ErrRefused
		g.manifest(set("city 1", "own 2"))
		if w := wants(); len(w) != 1 || w[0] != ref("own 2").Hash {
			t.Errorf("wants %v", w)
		}
		g.bundle([]byte("own 2"))
		asked = len(g.requests)
		g.manifest(set("city 1", "own 2"))
		if g.applied != 2 || len(g.requests) != asked {
			t.Error("what was refused is fetched again")
		}
		// What failed for another reason is tried again.
		g.policyErr = errors.New("the disk is full")
		g.manifest(set("city 1", "own 3"))
		g.bundle([]byte("own 3"))
		g.policyErr = nil
		g.manifest(set("city 1", "own 3"))
		g.bundle([]byte("own 3"))
		if (policies{g}).Set() != wire.SetOf(ref("city 1").Hash, ref("own 3").Hash) {
			t.Errorf("in force: %v", g.inForce)
		}
		g.bad = true
		g.manifest(wire.ManifestBody{Policies: []wire.PolicyRef{{Hash: "../x"}}})
		g.bad = false
		g.manifest(set("1", "2", "3", "4", "5", "6", "7", "8", "9"))
		if len(g.records) != 1 { // of one matter, once a minute
			t.Errorf("records %q", g.records)
		}
	})
}

func TestPeersInOrder(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		g := newGate(t)
		defer g.start()()
		g.connect()
		delta := []edge.Delta{{Cell: edge.Cell{Name: "out", Subject: "h1"}, Op: edge.OpAdd, Value: 1}}
		change, err := json.Marshal(edge.PassChange{Pass: 7, Status: edge.PassSuspended, At: 1})
		if err != nil {
			t.Fatal(err)
		}
		body := func(from uint64, seqs ...uint64) wire.PeersBody {
			b := wire.PeersBody{V: 1, Gate: "h", Epoch: 9, From: from}
			for _, s := range seqs {
				b.Entries = append(b.Entries, wire.PeerEntry{Seq: s, Deltas: delta})
			}
			return b
		}
		send := func(b wire.PeersBody) { g.say(wire.TypePeers, "s", "g", wire.Peers, b, g.server) }
		first := body(0, 3, 5)
		first.Entries[0].Change = change
		send(first)
		send(first)
		send(body(6, 8))
		if g.deltas != 3 || len(g.changes) != 1 || g.changes[0].Pass != 7 {
			t.Errorf("%d deltas, changes %+v", g.deltas, g.changes)
		}
		send(body(20, 30)) // what lies between was lost
		time.Sleep(time.Minute)
		synctest.Wait()
		q := g.requests[len(g.requests)-1]
		if g.deltas != 3 || len(q.Peers) != 1 || q.Peers[0].Next != 9 {
			t.Errorf("%d deltas, asks from %+v", g.deltas, q.Peers)
		}
		send(body(9, 19))
		send(body(20, 30))
		if g.deltas != 5 {
			t.Errorf("%d deltas", g.deltas)
		}
	})
}

func TestCommandsOnce(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		g := newGate(t)
		stop := g.start()
		g.connect()
		send := func(c wire.CommandBody) wire.Result {
			t.Helper()
			c.V, c.Name, c.Actor = 1, "open", "ann"
			n := len(g.results)
			g.say(wire.TypeCommand, "s", "g", wire.Commands, c, g.server)
			if len(g.results) != n+1 {
				t.Fatalf("command %+v: %d results", c, len(g.results)-n)
			}
			return g.results[n]
		}
		if r := send(wire.CommandBody{Number: 1, Nonce: "now"}); r.Status != statusDone || r.Text != "did open" {
			t.Errorf("result %+v", r)
		}
		if r := send(wire.CommandBody{Number: 1, Nonce: "now"}); r.Status != statusDone || len(g.done) != 1 {
			t.Errorf("a duplicate: result %+v, done %d", r, len(g.done))
		}
		if r := send(wire.CommandBody{Number: 5, Nonce: "before", Expires: 2_000_000}); r.Status != statusDone {
			t.Errorf("result %+v", r)
		}
		for name, c := range map[string]wire.CommandBody{
			"older number": {Number: 4, Nonce: "now"},
			"old nonce":    {Number: 6, Nonce: "long ago"},
			"no nonce":     {Number: 6},
			"expired":      {Number: 6, Nonce: "now", Expires: 999_999},
		} {
			g.bad = c.Nonce == ""
			r := send(c)
			if g.bad = false; r.Status != statusRefused {
				t.Errorf("%s: result %+v", name, r)
			}
		}
		g.doErr = errors.New("jammed")
		if r := send(wire.CommandBody{Number: 7, Nonce: "now"}); r.Status != statusFailed || r.Text != "jammed" || len(g.done) != 3 {
			t.Errorf("result %+v, done %d", r, len(g.done))
		}
		stop()
		// As if the power had gone while number 8 was carried out.
		c := consumed{"server": {V: 1, Number: 8, KeyID: "server"}}
		if err := c.save(filepath.Join(g.dir, "commands.json")); err != nil {
			t.Fatal(err)
		}
		g.results = nil
		stop = g.start()
		defer stop()
		synctest.Wait()
		if len(g.results) != 1 || g.results[0].Status != statusUnknown {
			t.Fatalf("results %+v", g.results)
		}
		if r := send(wire.CommandBody{Number: 8, Nonce: "now"}); r.Status != statusUnknown || len(g.done) != 3 {
			t.Errorf("result %+v, done %d", r, len(g.done))
		}
		if all := strings.Join(g.records, "\n"); strings.Count(all, "status:done") != 2 || !strings.Contains(all, "status:unknown") {
			t.Errorf("records\n%s", all)
		}
	})
}

func TestFloodOfNonsenseIsJournalledOnce(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		g := newGate(t)
		defer g.start()()
		for topic, f := range g.subs {
			for range 50 {
				f(topic, []byte(`{"type":"x"}`))
				f(topic, []byte{0x28, 0xb5, 0x2f, 0xfd, 1, 2, 3})
				synctest.Wait()
			}
		}
		if len(g.records) > 3 {
			t.Errorf("%d records %q", len(g.records), g.records)
		}
	})
}
