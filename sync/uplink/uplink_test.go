package uplink

import (
	"bytes"
	"context"
	"crypto/ed25519"
	"crypto/sha256"
	"errors"
	"flag"
	"fmt"
	"log/slog"
	"math/bits"
	"math/rand/v2"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/klauspost/compress/zstd"
	"golang.org/x/mod/sumdb/note"
	"golang.org/x/mod/sumdb/tlog"

	"gatehouse/edge"
	"gatehouse/edge/clock"
	"gatehouse/sync/wire"
	"gatehouse/sync/wire/wiretest"
)

var seeds = flag.Int("seeds", 6, "how many seeds the random faults run with")

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

var device, server = newKey("gate", 1), newKey("community.example", 2)

func trust() []wire.ServerKey {
	return []wire.ServerKey{{ID: server.name, Public: server.Public(), Uses: []wire.Use{wire.UseReceipts}}}
}

// tree is an RFC 6962 tree in memory.
type tree []tlog.Hash

func (t tree) ReadHashes(indexes []int64) ([]tlog.Hash, error) {
	out := make([]tlog.Hash, len(indexes))
	for i, x := range indexes {
		out[i] = t[x]
	}
	return out, nil
}

func (t *tree) add(n uint64, leaf [32]byte) {
	hs, err := tlog.StoredHashesForRecordHash(int64(n), tlog.RecordHash(leaf[:]), *t)
	if err != nil {
		panic(err)
	}
	*t = append(*t, hs...)
}

func (t tree) root(n uint64) [32]byte {
	h, err := tlog.TreeHash(int64(n), t)
	if err != nil {
		panic(err)
	}
	return h
}

// memory is a journal in memory.
type memory struct {
	mu     sync.Mutex
	epoch  edge.Epoch
	lines  [][]byte
	blinds map[uint64]edge.Blind // of entries whose block key is destroyed
	acked  uint64
	tree   tree
	grown  chan struct{}
	slow   time.Duration // a read takes so long
	most   int           // entries that a read gave
}

func newMemory(epoch edge.Epoch) *memory {
	return &memory{epoch: epoch, grown: make(chan struct{}), blinds: map[uint64]edge.Blind{}}
}

func (m *memory) key(block uint64) (k edge.BlockKey) {
	copy(k[:], fmt.Sprintf("%v %d", m.epoch, block))
	return k
}

func (m *memory) blind(seq uint64) edge.Blind {
	if b, ok := m.blinds[seq]; ok {
		return b
	}
	k := m.key(seq &^ 255)
	return k.Blind(seq)
}

func (m *memory) append(line string) {
	m.mu.Lock()
	defer m.mu.Unlock()
	n := uint64(len(m.lines))
	m.lines = append(m.lines, []byte(line))
	m.tree.add(n, edge.LeafData(m.blind(n), []byte(line)))
	close(m.grown)
	m.grown = make(chan struct{})
}

func (m *memory) Epoch() edge.Epoch { m.mu.Lock(); defer m.mu.Unlock(); return m.epoch }
func (m *memory) Size() uint64      { m.mu.Lock(); defer m.mu.Unlock(); return uint64(len(m.lines)) }
func (m *memory) Acked() uint64     { m.mu.Lock(); defer m.mu.Unlock(); return m.acked }

func (m *memory) Wait(ctx context.Context, size uint64) error {
	for {
		m.mu.Lock()
		n, c := uint64(len(m.lines)), m.grown
		m.mu.Unlock()
		if n > size {
			return nil
		}
		select {
		case <-c:
		case <-ctx.Done():
			return ctx.Err()
		}
	}
}

func (m *memory) Read(_ context.Context, from uint64, maxEntries, maxBytes int) (out []edge.Stored, err error) {
	time.Sleep(m.slow)
	m.mu.Lock()
	defer m.mu.Unlock()
	total := 0
	for seq := from; seq < uint64(len(m.lines)) && len(out) < maxEntries; seq++ {
		if total += len(m.lines[seq]); len(out) > 0 && total > maxBytes {
			break
		}
		s := edge.Stored{Seq: seq, Line: m.lines[seq]}
		if b, ok := m.blinds[seq]; ok {
			s.Blind = &b
		}
		out = append(out, s)
	}
	m.most = max(m.most, len(out))
	return out, nil
}

func (m *memory) Edges(_ context.Context, size uint64) ([][32]byte, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	var out [][32]byte
	for at := uint64(0); at < size; {
		level := bits.Len64(size-at) - 1
		out = append(out, m.tree[tlog.StoredHashIndex(level, int64(at>>level))])
		at += 1 << level
	}
	return out, nil
}

// Sealed knows no run: nothing here is past its retention.
func (m *memory) Sealed(_ context.Context, seq uint64) (edge.Sealed, error) {
	return edge.Sealed{}, fmt.Errorf("entry %d: %w", seq, edge.ErrUnknown)
}

func (m *memory) BlockKeys(_ context.Context, from, count uint64) (out []edge.KeyOfBlock, err error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	for b := from &^ 255; b < from+count; b += 256 {
		if _, gone := m.blinds[max(b, from)]; !gone {
			out = append(out, edge.KeyOfBlock{First: b, Key: m.key(b)})
		}
	}
	return out, nil
}

func (m *memory) HeadAt(_ context.Context, size uint64) (edge.Head, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	h := edge.Head{Origin: edge.Origin("c", "s", "g", m.epoch), Size: size, Root: m.tree.root(size)}
	err := edge.SignHead(&h, device)
	return h, err
}

func (m *memory) Acknowledge(_ context.Context, epoch edge.Epoch, size uint64, _ []byte) error {
	m.mu.Lock()
	defer m.mu.Unlock()
	if epoch != m.epoch || size > uint64(len(m.lines)) {
		return errors.New("receipt for another journal")
	}
	m.acked = max(m.acked, size)
	return nil
}

// fork starts a new epoch with the entries that the server does not have.
func (m *memory) fork(from uint64) {
	m.mu.Lock()
	defer m.mu.Unlock()
	carried := m.lines[min(from, uint64(len(m.lines))):]
	m.epoch++
	m.lines, m.tree, m.acked = nil, nil, 0
	for _, l := range carried {
		m.tree.add(uint64(len(m.lines)), edge.LeafData(m.blind(uint64(len(m.lines))), l))
		m.lines = append(m.lines, l)
	}
	close(m.grown)
	m.grown = make(chan struct{})
}

// receiver is the server: it stores once, verifies every leaf and head, and answers.
type receiver struct {
	ahead  []*wire.Batch
	t      *testing.T
	logs   map[edge.Epoch]*stored
	alerts []wire.AlertMessage
	status []wire.StatusMessage
	bytes  int
	twice  int
	most   int  // bytes of a batch of several entries
	named  bool // the dictionary, by the last batch
	old    bool // of before batches could ask
}

type stored struct {
	lines []string
	tree  tree
	head  []byte
}

func (r *receiver) journal(payload []byte) *wire.Receipt {
	b, err := wire.DecodeBatch(payload)
	if err != nil {
		r.t.Fatal(err)
	}
	r.bytes += len(payload)
	var z zstd.Header
	if err := z.Decode(payload); err != nil {
		r.t.Error(err)
	}
	r.named = z.DictionaryID != 0
	if b.Count > 1 {
		r.most = max(r.most, len(payload))
	}
	if len(b.Edges) > 0 {
		r.ahead = append(r.ahead, b)
		return nil
	}
	l := r.logs[b.Epoch]
	if l == nil {
		l = &stored{}
		r.logs[b.Epoch] = l
	}
	size := uint64(len(l.lines))
	stands := ""
	refuse := func(code wire.Code) *wire.Receipt {
		x := &wire.Receipt{Epoch: b.Epoch, Size: size, Head: string(l.head), Refusal: &wire.Refusal{Code: code, Text: "no", At: time.Now().UnixMilli(), Stands: stands}}
		if err := x.SignRefusal("s", "g", server); err != nil {
			r.t.Fatal(err)
		}
		return x
	}
	if b.First > size {
		return refuse(wire.RefusedGap)
	}
	common := b.First
	for common < min(size, b.First+b.Count) && l.lines[common] == string(b.Lines[common-b.First]) {
		common++
	}
	if !r.old {
		if stands, err = wire.Stand(edge.Head{Origin: edge.Origin("c", "s", "g", b.Epoch), Size: common, Root: l.tree.root(common)}, time.Now(), server); err != nil {
			r.t.Fatal(err)
		}
		if b.Ask && common == b.First+b.Count && common < size {
			return refuse(wire.RefusedStands)
		}
	}
	v, err := edge.HeadVerifier(device.name, device.Public())
	if err != nil {
		r.t.Fatal(err)
	}
	h, _, err := edge.OpenHead([]byte(b.Head), v)
	if err != nil || h.Size != b.First+b.Count {
		r.t.Fatalf("head of the batch at %d: %v", b.First, err)
	}
	next := append(tree(nil), l.tree...)
	for i, line := range b.Lines {
		seq := b.First + uint64(i)
		if seq < size {
			r.twice++
			if l.lines[seq] != string(line) {
				return refuse(wire.RefusedFork)
			}
			continue
		}
		next.add(seq, edge.LeafData(b.Blind(seq), line))
	}
	if h.Size > size {
		if next.root(h.Size) != h.Root {
			return refuse(wire.RefusedFork)
		}
		l.tree = next
		for _, line := range b.Lines[size-b.First:] {
			l.lines = append(l.lines, string(line))
		}
		if l.head, err = wire.Cosign([]byte(b.Head), time.Now(), server); err != nil {
			r.t.Fatal(err)
		}
	}
	return &wire.Receipt{Epoch: b.Epoch, Size: uint64(len(l.lines)), Head: string(l.head)}
}

// network is broker and server behind a line with faults. Everything it does
// follows from its random source.
type network struct {
	mu        sync.Mutex
	rnd       *rand.Rand
	r         *receiver
	up        bool
	life      int
	loss, dup float64
	latency   func() time.Duration
	receipts  func(string, []byte)
	onConnect []func(context.Context)
	checked   int
	hole      bool // messages are taken and go nowhere
	mute      int  // so many statuses fail
}

func (n *network) Subscribe(_ string, f func(string, []byte)) { n.receipts = f }
func (n *network) OnConnect(f func(context.Context))          { n.onConnect = append(n.onConnect, f) }
func (n *network) Connected() bool                            { n.mu.Lock(); defer n.mu.Unlock(); return n.up }
func (n *network) connect(up bool) {
	n.mu.Lock()
	n.up = up
	n.life++
	n.mu.Unlock()
	if up {
		for _, f := range n.onConnect {
			f(context.Background())
		}
	}
}

func (n *network) swallow(all bool) { n.mu.Lock(); defer n.mu.Unlock(); n.hole = all }

func (n *network) Publish(_ context.Context, topic string, payload []byte, _ bool) error {
	n.mu.Lock()
	defer n.mu.Unlock()
	if !n.up {
		return errors.New("offline")
	}
	n.valid(topic, payload)
	if n.mute > 0 && strings.HasSuffix(topic, "/"+string(wire.Status)) {
		n.mute--
		return errors.New("no acknowledgement")
	}
	if n.hole || n.rnd.Float64() < n.loss {
		return nil
	}
	for range 1 + btoi(n.rnd.Float64() < n.dup) {
		time.AfterFunc(n.latency(), func() { n.arrive(topic, payload) })
	}
	return nil
}

func btoi(b bool) int {
	if b {
		return 1
	}
	return 0
}

func (n *network) arrive(topic string, payload []byte) {
	n.mu.Lock()
	defer n.mu.Unlock()
	_, _, c, err := wire.ParseTopic(topic)
	if err != nil {
		n.r.t.Error(err)
	}
	switch c {
	case wire.Alerts:
		var a wire.AlertMessage
		if err := wire.Decode(payload, &a); err != nil {
			n.r.t.Error(err)
		}
		n.r.alerts = append(n.r.alerts, a)
		return
	case wire.Status:
		var m wire.StatusMessage
		if err := wire.Decode(payload, &m); err != nil {
			n.r.t.Error(err)
		}
		n.r.status = append(n.r.status, m)
		return
	}
	receipt := n.r.journal(payload)
	if receipt == nil {
		return // ahead of its turn
	}
	b, err := receipt.Encode()
	if err != nil {
		n.r.t.Error(err)
	}
	n.valid(wire.Topic("s", "g", wire.Receipts), b)
	life := n.life
	if n.rnd.Float64() < n.loss {
		return
	}
	for range 1 + btoi(n.rnd.Float64() < n.dup) {
		time.AfterFunc(n.latency(), func() {
			n.mu.Lock()
			same := n.up && n.life == life
			n.mu.Unlock()
			if same {
				n.receipts("", b)
			}
		})
	}
}

// valid checks a message against the published schemas, every one of the first
// hundred, later ones now and then.
func (n *network) valid(topic string, payload []byte) {
	if n.checked++; n.checked > 100 && n.checked%50 != 0 {
		return
	}
	if err := schemas().Payload(topic, payload); err != nil {
		n.r.t.Error(err)
	}
}

var schemas = sync.OnceValue(func() *wiretest.Schemas {
	s, err := wiretest.New()
	if err != nil {
		panic(err)
	}
	return s
})

func newNetwork(t *testing.T, seed uint64) *network {
	n := &network{rnd: rand.New(rand.NewPCG(seed, 1)), r: &receiver{t: t, logs: map[edge.Epoch]*stored{}}}
	n.latency = func() time.Duration { return time.Duration(n.rnd.IntN(50)+1) * time.Millisecond }
	return n
}

func start(t *testing.T, cfg Config, m *memory, n *network) *Uplink {
	t.Helper()
	cfg.Community, cfg.Site, cfg.Gate, cfg.Device, cfg.Trust = "c", "s", "g", device, trust
	u, err := New(cfg, m, n, slog.New(slog.DiscardHandler))
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- u.Run(ctx) }()
	t.Cleanup(func() {
		cancel()
		if err := <-done; !errors.Is(err, context.Canceled) {
			t.Errorf("Run ended with %v", err)
		}
	})
	return u
}

func check(t *testing.T, m *memory, n *network) {
	t.Helper()
	n.mu.Lock()
	defer n.mu.Unlock()
	l := n.r.logs[m.Epoch()]
	if l == nil || len(l.lines) != len(m.lines) || m.Acked() != m.Size() {
		t.Fatalf("the server has %+v entries, the journal %d, %d of them acknowledged", l, m.Size(), m.Acked())
	}
	for i, line := range m.lines {
		if l.lines[i] != string(line) {
			t.Fatalf("entry %d differs", i)
		}
	}
}

func line(i int) string {
	return fmt.Sprintf(`{"v":1,"kind":"start","t":%d,"off":0,"boot":"b","mono":1,"clock":"synced"}`, i)
}

func TestTrickleHasItsReceiptWithinASecond(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		m, n := newMemory(7), newNetwork(t, 1)
		u := start(t, Config{}, m, n)
		n.connect(true)
		for i := range 50 {
			m.append(line(i))
			time.Sleep(time.Second)
			if m.Acked() != m.Size() {
				t.Fatalf("entry %d has no receipt after a second: %+v", i, u.Status())
			}
		}
		check(t, m, n)
		if s := u.Status(); s.Backlog() != 0 || s.Error != "" || !s.Connected {
			t.Errorf("status %+v", s)
		}
	})
}

// Random faults: loss, duplicates, reordering by latency, drops of the connection,
// black holes. One seed is one run.
func TestNothingIsLostOrDoubled(t *testing.T) {
	for seed := range uint64(*seeds) {
		t.Run(fmt.Sprint(seed), func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				rnd := rand.New(rand.NewPCG(seed, 2))
				m, n := newMemory(7), newNetwork(t, seed)
				n.loss, n.dup = rnd.Float64()*0.2, rnd.Float64()*0.2
				slowest := []time.Duration{50 * time.Millisecond, time.Second, 60 * time.Second}[rnd.IntN(3)]
				n.latency = func() time.Duration { return time.Duration(n.rnd.Int64N(int64(slowest))) + time.Millisecond }
				start(t, Config{Entries: 1 + rnd.IntN(400), Bytes: 2000 + rnd.IntN(20000), Window: 1 + rnd.IntN(8)}, m, n)
				for i := range 300 {
					switch rnd.IntN(10) {
					case 0:
						n.connect(false)
					case 1, 2:
						n.connect(true)
					case 3:
						n.swallow(!n.hole)
					default:
						for k := range rnd.IntN(40) {
							m.append(line(i*100 + k))
						}
					}
					time.Sleep(time.Duration(rnd.IntN(20_000)) * time.Millisecond)
				}
				n.mu.Lock()
				n.hole, n.loss = false, 0
				n.mu.Unlock()
				n.connect(true)
				time.Sleep(2 * time.Hour)
				check(t, m, n)
			})
		})
	}
}

func TestBlackHoleThenBack(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		m, n := newMemory(7), newNetwork(t, 3)
		u := start(t, Config{}, m, n)
		n.connect(true)
		n.swallow(true)
		for i := range 5000 {
			m.append(line(i))
		}
		time.Sleep(10 * 24 * time.Hour)
		if s := u.Status(); s.Backlog() != 5000 || s.Error == "" {
			t.Errorf("status %+v", s)
		}
		n.swallow(false)
		time.Sleep(11 * time.Minute)
		check(t, m, n)
	})
}

// A gate told to do without the dictionary names it in no message.
func TestNoDictionary(t *testing.T) {
	for _, without := range []bool{false, true} {
		synctest.Test(t, func(t *testing.T) {
			m, n := newMemory(7), newNetwork(t, 13)
			start(t, Config{NoDictionary: without}, m, n)
			n.connect(true)
			m.append(line(1))
			time.Sleep(time.Second)
			check(t, m, n)
			if n.r.named == without {
				t.Errorf("without it: %v, named: %v", without, n.r.named)
			}
		})
	}
}

// A link that takes a minute for a receipt carries the backlog once.
func TestSlowReceiptsAreWaitedFor(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		m, n := newMemory(7), newNetwork(t, 11)
		sent := time.Duration(0)
		n.latency = func() time.Duration { sent++; return 30*time.Second + sent } // in order, as MQTT keeps it
		start(t, Config{Entries: 100}, m, n)
		for i := range 10_000 {
			m.append(line(i))
		}
		n.connect(true)
		time.Sleep(2 * time.Hour)
		check(t, m, n)
		if n.r.twice > 1000 {
			t.Errorf("%d of 10,000 entries were sent again", n.r.twice)
		}
	})
}

// While lanes are at work, a backlog is read in a sixteenth of the time at most, a piece
// at a time; when they rest, as fast as it goes.
func TestBacklogGivesWayToLanes(t *testing.T) {
	drained := func(busy bool, entries int) (took time.Duration, most int) {
		synctest.Test(t, func(t *testing.T) {
			m, n := newMemory(7), newNetwork(t, 12)
			m.slow = 20 * time.Millisecond
			n.latency = func() time.Duration { return time.Millisecond }
			for i := range 10_000 {
				m.append(line(i))
			}
			start(t, Config{Entries: entries, Window: 2}, m, n)
			time.Sleep(time.Second) // the tail was looked through for alerts
			m.mu.Lock()
			m.most = 0
			m.mu.Unlock()
			began := time.Now()
			for i := 0; m.Acked() < 5_000; i++ {
				if busy {
					m.append(line(i))
				}
				if i == 0 {
					n.connect(true)
				}
				time.Sleep(100 * time.Millisecond)
			}
			took = time.Since(began)
			m.mu.Lock()
			defer m.mu.Unlock()
			most = m.most
		})
		return took, most
	}
	rest, _ := drained(false, piece)
	if work, _ := drained(true, piece); work < 12*rest || work > 24*rest {
		t.Errorf("the backlog went in %v beside lanes at work, in %v beside lanes at rest", work, rest)
	}
	for busy, want := range map[bool]int{false: 1024, true: piece} {
		if _, most := drained(busy, 1024); most != want {
			t.Errorf("lanes at work: %t; %d entries were read at once, not %d", busy, most, want)
		}
	}
}

func TestReceiptOfSomebodyElseMovesNothing(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		m, n := newMemory(7), newNetwork(t, 4)
		u := start(t, Config{}, m, n)
		n.connect(true)
		n.swallow(true)
		m.append(line(1))
		time.Sleep(time.Second)
		h, err := m.HeadAt(t.Context(), 1)
		if err != nil {
			t.Fatal(err)
		}
		forged, err := wire.Cosign(h.Note, time.Now(), newKey(server.name, 9))
		if err != nil {
			t.Fatal(err)
		}
		for _, head := range []string{string(h.Note), string(forged)} {
			b, err := (&wire.Receipt{Epoch: 7, Size: 1, Head: head}).Encode()
			if err != nil {
				t.Fatal(err)
			}
			n.receipts("", b)
			synctest.Wait()
			if m.Acked() != 0 || !strings.Contains(u.Status().Error, "not accepted") {
				t.Errorf("status %+v", u.Status())
			}
		}
		x := &wire.Receipt{Epoch: 7, Refusal: &wire.Refusal{Code: wire.RefusedFork, Text: "leave"}}
		if err := x.SignRefusal("s", "g", newKey(server.name, 9)); err != nil {
			t.Fatal(err)
		}
		b, err := x.Encode()
		if err != nil {
			t.Fatal(err)
		}
		n.receipts("", b)
		synctest.Wait()
		if !strings.Contains(u.Status().Error, "not signed") {
			t.Errorf("status %+v", u.Status())
		}
	})
}

// A gate whose medium was restored from an old image finds out how much of it stands at
// the server, to the entry, however little of that was receipted when the image was made.
func TestRollbackStartsANewEpoch(t *testing.T) {
	for _, c := range []struct {
		name        string
		acked, more int // receipted in the image; made since it was restored
		cfg         Config
		old         bool // the server does not know the question
		stand       uint64
	}{
		{name: "nothing new, all receipted", acked: 10, stand: 10},
		{name: "nothing new", acked: 3, stand: 10},
		{name: "nothing new, nothing receipted, entry by entry", cfg: Config{Entries: 1}, stand: 10},
		{name: "three new", acked: 9, more: 3, stand: 10},
		{name: "three new, little receipted", acked: 2, more: 3, stand: 10},
		{name: "more than the server has, in small batches", acked: 1, more: 30, cfg: Config{Entries: 4}, stand: 10},
		{name: "a server of before", acked: 9, more: 3, old: true, stand: 9},
		{name: "a server of before, nothing new", acked: 3, old: true, stand: 3},
	} {
		t.Run(c.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				n := newNetwork(t, 5)
				n.r.old = c.old
				l := &stored{}
				n.r.logs[7] = l
				old := newMemory(7)
				for i := range 20 {
					old.append(line(i))
					l.lines = append(l.lines, line(i))
				}
				h, err := old.HeadAt(t.Context(), 20)
				if err != nil {
					t.Fatal(err)
				}
				l.tree = old.tree
				if l.head, err = wire.Cosign(h.Note, time.Now(), server); err != nil {
					t.Fatal(err)
				}
				m := newMemory(7)
				for i := range 10 {
					m.append(line(i))
				}
				m.acked = uint64(c.acked)
				for i := range c.more {
					m.append(line(1000 + i))
				}
				var stood []uint64
				c.cfg.Fork = func(_ context.Context, stand uint64, _ string) error {
					stood = append(stood, stand)
					m.fork(stand)
					return nil
				}
				u := start(t, c.cfg, m, n)
				n.connect(true)
				if c.acked == 10 && c.more == 0 {
					// Nothing tells it before it has something to say, or hears of another's.
					x := &wire.Receipt{Epoch: 7, Size: 20, Head: string(l.head)}
					b, err := x.Encode()
					if err != nil {
						t.Fatal(err)
					}
					n.receipts("", b)
				}
				time.Sleep(6 * time.Hour) // a server of before says the same twenty times
				synctest.Wait()
				if len(stood) != 1 || stood[0] != c.stand || m.Epoch() != 8 {
					t.Fatalf("forked at %v, want %d; epoch %v: %+v", stood, c.stand, m.Epoch(), u.Status())
				}
				m.append(line(2000))
				time.Sleep(time.Minute)
				check(t, m, n)
				n.mu.Lock()
				defer n.mu.Unlock()
				if len(l.lines) != 20 {
					t.Errorf("the old epoch has %d entries", len(l.lines))
				}
			})
		})
	}
}

func TestServerThatLostEntriesGetsThemAgain(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		m, n := newMemory(7), newNetwork(t, 6)
		start(t, Config{}, m, n)
		n.connect(true)
		for i := range 3000 {
			m.append(line(i))
		}
		time.Sleep(time.Minute)
		check(t, m, n)
		n.mu.Lock()
		n.r.logs = map[edge.Epoch]*stored{}
		n.mu.Unlock()
		m.append(line(3000))
		time.Sleep(time.Minute)
		check(t, m, n)
	})
}

func TestSurvivorsOfAPurgedBlock(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		m, n := newMemory(7), newNetwork(t, 7)
		for i := range 300 {
			m.append(line(i))
		}
		for seq := uint64(100); seq < 256; seq++ {
			m.blinds[seq] = m.blind(seq)
		}
		l := &stored{}
		for i := range 100 {
			l.lines = append(l.lines, line(i))
			l.tree.add(uint64(i), edge.LeafData(m.blind(uint64(i)), []byte(line(i))))
		}
		n.r.logs[7], m.acked = l, 100
		start(t, Config{}, m, n)
		n.connect(true)
		time.Sleep(time.Minute)
		check(t, m, n)
	})
}

func TestAlertsDoNotWaitForTheBacklog(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		m, n := newMemory(7), newNetwork(t, 8)
		// A link that takes hours for the backlog.
		start(t, Config{Metered: Metered{Rate: 1, Burst: 1}, Entries: 100}, m, n)
		for i := range 5000 {
			m.append(line(i))
		}
		m.append(`{"v":1,"kind":"alert","t":1,"off":0,"boot":"b","mono":1,"clock":"synced","data":{"alert":"tamper"}}`)
		synctest.Wait() // else it may be said between the connection and the news of it, and again after
		n.connect(true)
		time.Sleep(3 * time.Second)
		n.mu.Lock()
		if len(n.r.alerts) != 1 || n.r.alerts[0].Code != "tamper" || n.r.alerts[0].Seq != 5000 {
			t.Errorf("alerts %+v", n.r.alerts)
		}
		n.mu.Unlock()
		if m.Acked() > 200 {
			t.Errorf("%d entries acknowledged: the link is too fast for this test", m.Acked())
		}
		// Said again after a reconnection, until its entry is receipted.
		n.connect(false)
		n.connect(true)
		time.Sleep(3 * time.Second)
		n.mu.Lock()
		defer n.mu.Unlock()
		if len(n.r.alerts) != 2 {
			t.Errorf("%d alerts", len(n.r.alerts))
		}
	})
}

// What happens now goes ahead of a backlog, and anyone can verify it without the
// backlog; in its turn it comes again.
func TestFreshEntriesDoNotWaitForTheBacklog(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		m, n := newMemory(7), newNetwork(t, 8)
		start(t, Config{Metered: Metered{Rate: 200, Burst: 20_000}, Entries: 100, Bytes: 2000, Window: 2}, m, n)
		for i := range 50_000 {
			m.append(line(i))
		}
		n.connect(true)
		time.Sleep(time.Minute)
		for range 40 { // more than goes in one message
			m.append(fmt.Sprintf(`{"v":1,"kind":"test","t":1,"off":0,"boot":"b","mono":1,"clock":"synced","data":{"now":"%x%x"}}`, sha256.Sum256([]byte{byte(m.Size())}), sha256.Sum256([]byte{byte(m.Size()), 1})))
		}
		time.Sleep(20 * time.Second)
		n.mu.Lock()
		defer n.mu.Unlock()
		if m.Acked() > 40_000 {
			t.Fatalf("%d entries acknowledged: the link is too fast for this test", m.Acked())
		}
		var last *wire.Batch
		for _, b := range n.r.ahead {
			if b.First+b.Count == 50_040 {
				last = b
			}
		}
		if last == nil {
			t.Fatalf("the entry waits behind the backlog: %d batches ahead", len(n.r.ahead))
		}
		if n.r.most > 2000 {
			t.Errorf("a batch of %d bytes", n.r.most)
		}
		var edges tree2
		for _, e := range last.Edges {
			edges.hashes = append(edges.hashes, tlog.Hash(e))
		}
		edges.size = last.First
		for i, l := range last.Lines {
			d := edge.LeafData(last.Blind(last.First+uint64(i)), l)
			edges.add(tlog.RecordHash(d[:]))
		}
		if h := m.tree.root(50_040); edges.root() != tlog.Hash(h) {
			t.Error("the edges and the entries do not give the head's root")
		}
	})
}

// tree2 is an RFC 6962 tree as the roots of its perfect subtrees.
type tree2 struct {
	size   uint64
	hashes []tlog.Hash
}

func (t *tree2) add(h tlog.Hash) {
	for n := t.size; n&1 == 1; n >>= 1 {
		h = tlog.NodeHash(t.hashes[len(t.hashes)-1], h)
		t.hashes = t.hashes[:len(t.hashes)-1]
	}
	t.hashes, t.size = append(t.hashes, h), t.size+1
}

func (t *tree2) root() tlog.Hash {
	h := t.hashes[len(t.hashes)-1]
	for i := len(t.hashes) - 2; i >= 0; i-- {
		h = tlog.NodeHash(t.hashes[i], h)
	}
	return h
}

func TestMeteredRateAndQuietHours(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := clock.NewFake(time.Date(2026, 1, 1, 22, 0, 0, 0, time.UTC), 0)
		m, n := newMemory(7), newNetwork(t, 9)
		start(t, Config{Metered: Metered{Rate: 10, Burst: 100, QuietFrom: 23 * 60, QuietTo: 6 * 60, Clock: c}}, m, n)
		n.connect(true)
		seen := 0
		for minute := range 10 * 60 {
			m.append(line(minute))
			time.Sleep(time.Minute)
			c.Advance(time.Minute)
			n.mu.Lock()
			now := n.r.bytes
			n.mu.Unlock()
			if quiet := minute > 62 && minute < 8*60-2; quiet && now != seen {
				t.Fatalf("minute %d: sent in the quiet hours", minute)
			}
			if most := 100 + (minute+1)*600 + 20000; now > most {
				t.Fatalf("minute %d: %d bytes, at most %d", minute, now, most)
			}
			seen = now
		}
		time.Sleep(time.Hour)
		check(t, m, n)
	})
}

func TestStatusHasANewNonceNowAndThen(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		m, n := newMemory(7), newNetwork(t, 10)
		u := start(t, Config{Status: func() wire.StatusMessage { return wire.StatusMessage{Version: "v9"} }}, m, n)
		n.connect(true)
		time.Sleep(6 * time.Minute)
		n.mu.Lock()
		defer n.mu.Unlock()
		s := n.r.status
		if len(s) != 2 || s[0].Nonce == s[1].Nonce || s[0].Version != "v9" || !s[0].Online {
			t.Fatalf("statuses %+v", s)
		}
		if cur, prev := u.Nonces(); cur != s[1].Nonce || prev != s[0].Nonce {
			t.Errorf("nonces %s %s", cur, prev)
		}
		if _, err := note.NewVerifier(s[0].Key); err != nil {
			t.Errorf("key %q: %v", s[0].Key, err)
		}
	})
}

// A status that fails while the connection holds is said again soon, and once.
func TestStatusIsTriedAgain(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		m, n := newMemory(7), newNetwork(t, 10)
		n.mute = 2
		u := start(t, Config{}, m, n)
		n.connect(true)
		time.Sleep(time.Minute)
		n.mu.Lock()
		defer n.mu.Unlock()
		cur, _ := u.Nonces()
		if s := n.r.status; n.mute != 0 || len(s) != 1 || s[0].Nonce != cur {
			t.Fatalf("statuses %+v, the nonce is %s", s, cur)
		}
	})
}
