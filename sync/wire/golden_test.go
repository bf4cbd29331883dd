package wire_test

import (
	"bytes"
	"crypto/ed25519"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/goccy/go-yaml"
	"golang.org/x/mod/sumdb/tlog"

	"gatehouse/edge"
	"gatehouse/edge/bundle"
	"gatehouse/sync/wire"
	"gatehouse/sync/wire/wiretest"
)

var update = flag.Bool("update", false, "write the golden files again")

var train = flag.Bool("train", false, "make the dictionary anew: what was sent with the old one cannot be read any more")

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

var (
	device = newKey("pine/north/east", 1)
	server = newKey("community.example", 2)
	epoch  = edge.Epoch(0x0123456789abcdef)
	when   = time.UnixMilli(1_700_000_000_000).UTC()
)

// log is a gate's journal: lines, their keys and the tree over them.
type log struct {
	lines  [][]byte
	hashes []tlog.Hash
}

func (l *log) ReadHashes(indexes []int64) ([]tlog.Hash, error) {
	out := make([]tlog.Hash, len(indexes))
	for i, x := range indexes {
		out[i] = l.hashes[x]
	}
	return out, nil
}

func blockKey(first uint64) edge.BlockKey {
	return edge.LeafData(edge.Blind{}, fmt.Append(nil, "key ", first))
}

func (l *log) add(t testing.TB, lines ...[]byte) {
	t.Helper()
	for _, line := range lines {
		n := uint64(len(l.lines))
		k := blockKey(n &^ (edge.BlockSize - 1))
		leaf := edge.LeafData(k.Blind(n), line)
		hs, err := tlog.StoredHashesForRecordHash(int64(n), tlog.RecordHash(leaf[:]), l)
		if err != nil {
			t.Fatal(err)
		}
		l.hashes = append(l.hashes, hs...)
		l.lines = append(l.lines, line)
	}
}

// batch is the batch of the entries from first to the end.
func (l *log) batch(t testing.TB, first uint64) []byte {
	t.Helper()
	h := edge.Head{Origin: edge.Origin("pine", "north", "east", epoch), Size: uint64(len(l.lines))}
	root, err := tlog.TreeHash(int64(h.Size), l)
	if err != nil {
		t.Fatal(err)
	}
	h.Root = root
	if err := edge.SignHead(&h, device); err != nil {
		t.Fatal(err)
	}
	b := wire.Batch{Header: wire.Header{Site: "north", Gate: "east", Epoch: epoch, First: first, Head: string(h.Note)}, Lines: l.lines[first:]}
	for f := first &^ (edge.BlockSize - 1); f < h.Size; f += edge.BlockSize {
		k := blockKey(f)
		b.Keys = append(b.Keys, wire.HeaderKey{First: f, Key: k[:]})
	}
	out, err := b.Encode(nil)
	if err != nil {
		t.Fatal(err)
	}
	return out
}

func (l *log) head(t testing.TB) []byte {
	t.Helper()
	b, err := wire.DecodeBatch(l.batch(t, 0))
	if err != nil {
		t.Fatal(err)
	}
	return []byte(b.Head)
}

// visits makes n entries of a busy gate, decisions and passages in turn, from a
// fixed seed.
func visits(t testing.TB, n int) (out [][]byte) {
	t.Helper()
	x := uint64(42)
	rnd := func(n int) int {
		x = x*6364136223846793005 + 1442695040888963407
		return int(x>>33) % n
	}
	at := when
	mono := int64(6_207_142)
	for i := 0; len(out) < n; i++ {
		gap := time.Duration(2000+rnd(15_000)) * time.Millisecond
		at, mono = at.Add(gap), mono+gap.Milliseconds()
		id, house := edge.PassID(1+rnd(2000)), edge.HouseholdID(1+rnd(700))
		dir := []edge.Direction{edge.In, edge.Out}[rnd(2)]
		e := &edge.Entry{Kind: edge.KindDecision, Lane: "east-" + string(dir), Presentation: uint64(i + 2), Of: -1,
			Stamp:  edge.Stamp{Time: at.UnixMilli(), Offset: 480, Boot: "5ae0f00c", Mono: mono, Clock: edge.ClockSynced},
			Policy: "sha256:7221815d8b0f0d29", Engine: "1", Registry: 1, Outcome: edge.Admit, Rule: "resident", Reason: "resident",
			Authority: "Community office: Closed management notice 2026-03, sections 2 to 5",
			Matched:   []edge.Match{{Rule: "resident", Outcome: edge.Admit}},
			Facts: &edge.Facts{Pass: &edge.PassFacts{ID: id, Category: "resident", Status: edge.PassActive},
				Household:   &edge.HouseholdFacts{ID: house, Area: "main", Members: 1 + rnd(5)},
				Temperature: &edge.TemperatureFacts{State: edge.TempOK, Band: edge.BandBelow, Profile: "skin/1"},
				Lane:        edge.LaneFacts{Level: edge.LevelEstate, Direction: dir, Area: "main"}, Area: &edge.AreaFacts{Tier: edge.TierControl}}}
		if dir == edge.Out {
			e.Deltas = []edge.Delta{{Cell: edge.Cell{Name: "household_exits", Subject: house.Subject(), Bucket: at.UnixMilli() / 86_400_000}, Op: edge.OpAdd, Value: 1}}
		}
		if rnd(20) == 0 {
			e.Outcome, e.Rule, e.Reason = edge.Refer, "fever", "fever"
			e.Facts.Temperature.Band = edge.BandAbove
			e.Matched = append(e.Matched, edge.Match{Rule: "fever", Outcome: edge.Refer})
		}
		line, err := e.AppendJSON(nil)
		if err != nil {
			t.Fatal(err)
		}
		out = append(out, line)
		if e.Outcome != edge.Admit || len(out) == n {
			continue
		}
		took := time.Duration(900+rnd(3000)) * time.Millisecond
		pos := edge.PositionInside
		if dir == edge.Out {
			pos = edge.PositionOutside
		}
		p := &edge.Entry{Kind: edge.KindPassage, Lane: e.Lane, Presentation: e.Presentation, Of: int64(len(out) - 1), Actor: "system",
			Stamp: e.Stamp, Result: edge.ResultPassed, Deltas: []edge.Delta{{Cell: edge.Cell{Name: edge.CellPosition, Subject: id.Subject()}, Op: edge.OpSet, Value: pos}}}
		p.Stamp.Time += took.Milliseconds()
		p.Stamp.Mono += took.Milliseconds()
		if line, err = p.AppendJSON(nil); err != nil {
			t.Fatal(err)
		}
		out = append(out, line)
	}
	return out
}

// envelope signs a body as the server does, at a fixed time.
func envelope(t testing.TB, typ string, body any) []byte {
	t.Helper()
	b, ok := body.([]byte)
	if !ok {
		var err error
		if b, err = wire.Encode(body); err != nil {
			t.Fatal(err)
		}
	}
	e := wire.Envelope{Type: typ, Site: "north", Gate: "east", IssuedAt: when.UnixMilli(), Body: b}
	if err := e.Sign(server); err != nil {
		t.Fatal(err)
	}
	out, err := e.Encode()
	if err != nil {
		t.Fatal(err)
	}
	return out
}

func encode(t testing.TB, v any) []byte {
	t.Helper()
	b, err := wire.Encode(v)
	if err != nil {
		t.Fatal(err)
	}
	return b
}

type message struct {
	file, topic string
	payload     []byte
}

// messages is one of every kind.
func messages(t testing.TB) []message {
	t.Helper()
	l := new(log)
	l.add(t, visits(t, 300)...)
	cosigned, err := wire.Cosign(l.head(t), when, server)
	if err != nil {
		t.Fatal(err)
	}
	receipt := &wire.Receipt{V: wire.Version, Epoch: epoch, Size: 300, Head: string(cosigned)}
	refusal := &wire.Receipt{V: wire.Version, Epoch: epoch, Size: 300, Head: string(cosigned),
		Refusal: &wire.Refusal{Code: wire.RefusedGap, Text: "entries from 300 on are missing", At: when.UnixMilli()}}
	if err := refusal.SignRefusal("north", "east", server); err != nil {
		t.Fatal(err)
	}
	fork := &wire.Receipt{V: wire.Version, Epoch: epoch, Size: 300, Head: string(cosigned),
		Refusal: &wire.Refusal{Code: wire.RefusedFork, Text: "entries that were stored before have other content now", At: when.UnixMilli()}}
	first := new(log)
	first.add(t, l.lines[:280]...)
	root, err := tlog.TreeHash(280, first)
	if err != nil {
		t.Fatal(err)
	}
	common := edge.Head{Origin: edge.Origin("pine", "north", "east", epoch), Size: 280, Root: root}
	if fork.Refusal.Stands, err = wire.Stand(common, when, server); err != nil {
		t.Fatal(err)
	}
	if err := fork.SignRefusal("north", "east", server); err != nil {
		t.Fatal(err)
	}
	hash := wire.HashOf([]byte("x"))
	marks := []wire.PeerMark{{Gate: "west", Epoch: 7, Next: 12}}
	delta := []edge.Delta{{Cell: edge.Cell{Name: "household_exits", Subject: "h441", Bucket: 20610}, Op: edge.OpAdd, Value: 1}, {Cell: edge.Cell{Name: edge.CellPosition, Subject: "p9"}, Op: edge.OpSet, Value: edge.PositionOutside}}
	at := func(c wire.Channel) string { return wire.Topic("north", "east", c) }
	purged := l.batch(t, 290)
	purged = bytes.Replace(purged, []byte(`"head"`), []byte(`"blinds":[{"seq":290,"blind":"`+strings.Repeat("A", 43)+`="}],"head"`), 1)
	return []message{
		{"status", at(wire.Status), encode(t, wire.StatusMessage{V: wire.Version, Online: true, Version: "1.0.0", Policy: "sha256:7221815d8b0f0d29", Registry: 4, Epoch: epoch, Size: 310, Acked: 300,
			Time: when.UnixMilli(), Clock: edge.ClockSynced, Nonce: "AAAAAAAAAAAAAAAAAAAAAA", Key: "pine/north/east+00000000+AA", Age: "age1x", Flash: 1800})},
		{"offline", at(wire.Status), wire.Offline()},
		{"batch", at(wire.Journal), l.batch(t, 290)},
		{"batch-blinds", at(wire.Journal), purged},
		{"batch-ask", at(wire.Journal), bytes.Replace(l.batch(t, 290), []byte(`"head"`), []byte(`"ask":true,"head"`), 1)},
		{"receipt", at(wire.Receipts), encode(t, receipt)},
		{"refusal", at(wire.Receipts), encode(t, refusal)},
		{"refusal-fork", at(wire.Receipts), encode(t, fork)},
		{"alert", at(wire.Alerts), encode(t, wire.AlertMessage{V: wire.Version, Epoch: epoch, Seq: 12, Time: when.UnixMilli(), Lane: "east-in", Code: "forced", Text: "forced"})},
		{"request", at(wire.Requests), encode(t, wire.Request{V: wire.Version, Nonce: "n", Registry: 3, Policy: wire.SetOf(hash), Want: []string{hash}, Peers: marks})},
		{"manifest", at(wire.Manifest), envelope(t, wire.TypeManifest, wire.ManifestBody{V: wire.Version, Nonce: "n", Time: when.UnixMilli(),
			Registry: &wire.RegistryRef{Version: 4, Rows: 2000, Chunks: []string{hash}, Key: []byte("age"), Contains: marks,
				Deltas: []wire.DeltaRef{{From: 3, To: 4, Hash: hash}}},
			Policies: []wire.PolicyRef{{Hash: hash, Layer: "city", Version: 2}},
			Trust:    []wire.ServerKey{{ID: server.name, Public: server.Public(), Uses: []wire.Use{wire.UseReceipts}}}})},
		{"policy", wire.PolicyTopic("north", hash), policyBundle(t)},
		{"peers", at(wire.Peers), envelope(t, wire.TypePeers, wire.PeersBody{V: wire.Version, Gate: "west", Epoch: 7, From: 3,
			Entries: []wire.PeerEntry{{Seq: 5, Time: when.UnixMilli(), Deltas: delta}, {Seq: 9, Time: when.UnixMilli(), Change: encode(t, edge.PassChange{Pass: 7, Status: edge.PassLost, At: 1})}}})},
		{"command", at(wire.Commands), envelope(t, wire.TypeCommand, wire.CommandBody{V: wire.Version, Number: 8, Nonce: "n", Expires: when.UnixMilli(), Name: "open", Args: json.RawMessage(`{"lane":"east-in"}`), Actor: "office:3"})},
		{"enrol", wire.EnrolTopic("north", enrolment(t).Code()), encode(t, wire.EnrolMessage{V: wire.Version, Request: enrolment(t)})},
		{"result", at(wire.Results), encode(t, wire.Result{V: wire.Version, Number: 8, KeyID: server.name, Status: "done", Text: "opened", At: when.UnixMilli()})},
	}
}

// golden reads a golden file, which is written before with -update.
func golden(t *testing.T, file string, now []byte) []byte {
	t.Helper()
	path := filepath.Join("testdata", file+".golden")
	if *update {
		if err := os.WriteFile(path, now, 0o644); err != nil {
			t.Fatal(err)
		}
	}
	want, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	return want
}

func TestGoldenMessages(t *testing.T) {
	schemas, err := wiretest.New()
	if err != nil {
		t.Fatal(err)
	}
	for _, m := range messages(t) {
		want := golden(t, m.file, m.payload)
		if !bytes.Equal(want, m.payload) {
			t.Errorf("%s is\n%s\nwant\n%s", m.file, m.payload, want)
		}
		if err := schemas.Payload(m.topic, m.payload); err != nil {
			t.Errorf("%s: %v", m.file, err)
		}
		if err := read(m.topic, m.payload); err != nil {
			t.Errorf("%s: %v", m.file, err)
		}
	}
}

func policyBundle(t testing.TB) []byte {
	t.Helper()
	b, err := bundle.Seal("pine", "north", when.UnixMilli(), "closed.yaml", []byte("policy: closed\nversion: 2\n"), server)
	if err != nil {
		t.Fatal(err)
	}
	return b
}

// read decodes and verifies a message as its receiver does.
func read(topic string, payload []byte) error {
	_, gate, c, err := wire.ParseTopic(topic)
	if err != nil {
		return err
	}
	trust := []wire.ServerKey{{ID: server.name, Public: server.Public(), Uses: []wire.Use{wire.UseRegistry, wire.UsePolicy, wire.UseCommands}}}
	body := func(typ string, use wire.Use, v any) error {
		e, err := wire.OpenEnvelope(payload, typ, "north", "east", use, trust)
		if err != nil || v == nil {
			return err
		}
		return json.Unmarshal(e.Body, v)
	}
	if gate == "policy" {
		v, err := edge.HeadVerifier(server.name, server.Public())
		if err != nil {
			return err
		}
		_, err = bundle.Open(payload, bundle.Trust{Community: "pine", Site: "north", Keys: []bundle.Key{{Verifier: v}}}, func(string) int64 { return 2 })
		return err
	}
	if gate == "enrol" {
		var m wire.EnrolMessage
		if err := wire.Decode(payload, &m); err != nil {
			return err
		}
		if m.Request == nil || m.Request.Code() != string(c) {
			return errors.New("a request on the topic of another device")
		}
		return m.Request.Verify()
	}
	switch c {
	case wire.Journal:
		b, err := wire.DecodeBatch(payload)
		if err != nil {
			return err
		}
		for _, line := range b.Lines {
			if _, err := edge.DecodeEntry(line); err != nil {
				return err
			}
		}
		return nil
	case wire.Receipts:
		r, err := wire.DecodeReceipt(payload)
		if err != nil {
			return err
		}
		sv, err := wire.CosignatureVerifier(server.name, server.Public())
		if err != nil {
			return err
		}
		if r.Refusal != nil {
			h, ok, err := wire.OpenStands(r.Refusal, edge.Origin("pine", "north", "east", epoch), sv)
			if err == nil && ok && h.Size != 280 {
				err = fmt.Errorf("%d entries stand", h.Size)
			}
			return errors.Join(err, r.VerifyRefusal("north", "east", server.Public()))
		}
		dv, err := edge.HeadVerifier(device.name, device.Public())
		if err != nil {
			return err
		}
		_, err = wire.OpenReceipt(r, edge.Origin("pine", "north", "east", epoch), dv, sv)
		return err
	case wire.Manifest:
		return body(wire.TypeManifest, wire.UseRegistry, new(wire.ManifestBody))
	case wire.Peers:
		return body(wire.TypePeers, wire.UseRegistry, new(wire.PeersBody))
	case wire.Commands:
		return body(wire.TypeCommand, wire.UseCommands, new(wire.CommandBody))
	}
	v := map[wire.Channel]any{wire.Status: new(wire.StatusMessage), wire.Alerts: new(wire.AlertMessage), wire.Requests: new(wire.Request), wire.Results: new(wire.Result)}[c]
	return wire.Decode(payload, v)
}

// What version 1.0 wrote must be read for ever: these files are never written again.
func TestNewReceiverOldGate(t *testing.T) {
	schemas, err := wiretest.New()
	if err != nil {
		t.Fatal(err)
	}
	left, err := os.ReadDir(filepath.Join("testdata", "v1.0"))
	if err != nil {
		t.Fatal(err)
	}
	for _, m := range messages(t) {
		old, err := os.ReadFile(filepath.Join("testdata", "v1.0", m.file))
		if errors.Is(err, fs.ErrNotExist) {
			continue // added since
		}
		if err != nil {
			t.Fatal(err)
		}
		left = left[1:]
		if err := errors.Join(read(m.topic, old), schemas.Payload(m.topic, old)); err != nil {
			t.Errorf("%s: %v", m.file, err)
		}
	}
	if len(left) > 0 {
		t.Errorf("%d old messages were not read", len(left))
	}
}

// A newer program adds fields, codes and kinds; this one reads the rest, and keeps
// the bytes of entries that it does not understand.
func TestOldReceiverNewGate(t *testing.T) {
	schemas, err := wiretest.New()
	if err != nil {
		t.Fatal(err)
	}
	more := func(text []byte) []byte {
		return bytes.Replace(text, []byte("{"), []byte(`{"later":{"a":[1,"x"]},`), 1)
	}
	for _, m := range messages(t) {
		if m.file == "policy" {
			continue // its form has a number of its own, and the policy in it too
		}
		payload := more(m.payload)
		if err := errors.Join(read(m.topic, payload), schemas.Payload(m.topic, payload)); err != nil {
			t.Errorf("%s: %v", m.file, err)
		}
	}
	for typ, body := range map[string]any{
		wire.TypeManifest: wire.ManifestBody{V: wire.Version}, wire.TypePeers: wire.PeersBody{V: wire.Version, Gate: "w"}, wire.TypeCommand: wire.CommandBody{V: wire.Version, Number: 1, Nonce: "n", Name: "later"}} {
		topic := wire.Topic("north", "east", map[string]wire.Channel{wire.TypeManifest: wire.Manifest, wire.TypePeers: wire.Peers, wire.TypeCommand: wire.Commands}[typ])
		if err := read(topic, envelope(t, typ, more(encode(t, body)))); err != nil {
			t.Errorf("%s: %v", typ, err)
		}
	}
	l := new(log)
	odd := []byte(`{"v":3,"kind":"drone","t":1,"off":0,"boot":"b","mono":1,"clock":"atomic","wings":{"n":4,"m":1.50}}`)
	l.add(t, odd)
	b, err := wire.DecodeBatch(more(l.batch(t, 0)))
	if err != nil || !bytes.Equal(b.Lines[0], odd) {
		t.Fatalf("%v", err)
	}
	e, err := edge.DecodeEntry(odd)
	if err != nil || e.Kind != "drone" || string(e.Extra["wings"]) != `{"n":4,"m":1.50}` {
		t.Errorf("entry %+v, %v", e, err)
	}
}

// What this version would misread it must refuse.
func TestNextMajorVersionIsRefused(t *testing.T) {
	for _, m := range messages(t) {
		if m.file != "batch" && m.file != "receipt" {
			continue // the others are checked where they are used
		}
		if err := read(m.topic, bytes.Replace(m.payload, []byte(`"v":1`), []byte(`"v":2`), 1)); !errors.Is(err, wire.ErrMalformed) {
			t.Errorf("%s: %v", m.file, err)
		}
	}
}

// The document names the topics that the code uses, and every reference in it leads
// somewhere.
func TestAsyncAPIDocument(t *testing.T) {
	var doc struct {
		AsyncAPI   string
		Channels   map[string]struct{ Address string }
		Components struct {
			Messages map[string]any
			Schemas  map[string]any
		}
	}
	if err := yaml.Unmarshal(wire.AsyncAPI, &doc); err != nil {
		t.Fatal(err)
	}
	if !strings.HasPrefix(doc.AsyncAPI, "3.") {
		t.Errorf("version %q", doc.AsyncAPI)
	}
	addresses := map[string]bool{}
	for _, c := range doc.Channels {
		addresses[c.Address] = true
	}
	want := []string{wire.RegistryTopic("{site}", "{hash}"), wire.PolicyTopic("{site}", "{hash}"), wire.EnrolTopic("{site}", "{code}")}
	for _, c := range []wire.Channel{wire.Status, wire.Journal, wire.Receipts, wire.Alerts, wire.Requests, wire.Manifest, wire.Peers, wire.Commands, wire.Results} {
		want = append(want, wire.Topic("{site}", "{gate}", c))
	}
	for _, a := range want {
		if !addresses[a] {
			t.Errorf("no channel for %s", a)
		}
	}
	if len(addresses) != len(want) {
		t.Errorf("%d channels, want %d", len(addresses), len(want))
	}
	schemas, err := wiretest.New()
	if err != nil {
		t.Fatal(err)
	}
	for name := range doc.Components.Schemas {
		if err := schemas.Check(name, []byte(`null`)); err != nil && strings.Contains(err.Error(), "compil") {
			t.Errorf("%s: %v", name, err)
		}
	}
	var all any
	if err := yaml.Unmarshal(wire.AsyncAPI, &all); err != nil {
		t.Fatal(err)
	}
	var walk func(v any)
	walk = func(v any) {
		switch v := v.(type) {
		case map[string]any:
			if ref, ok := v["$ref"].(string); ok {
				at := all
				for _, p := range strings.Split(strings.TrimPrefix(ref, "#/"), "/") {
					m, _ := at.(map[string]any)
					at = m[p]
				}
				if at == nil {
					t.Errorf("%s leads nowhere", ref)
				}
			}
			for _, x := range v {
				walk(x)
			}
		case []any:
			for _, x := range v {
				walk(x)
			}
		}
	}
	walk(all)
}

// The size of batches on the wire, everything included. In a batch of one entry, key,
// root and signature are 132 bytes that nothing makes smaller.
func TestBatchSizes(t *testing.T) {
	full, one, _ := sizes(t)
	if full > 30 {
		t.Errorf("%.1f bytes for each entry of full batches, at most 30", full)
	}
	if one > 500 {
		t.Errorf("%d bytes for a batch of one entry, at most 500", one)
	}
}

// sizes gives the bytes for each entry of full batches, for a batch of one decision on
// average, and for that decision's line alone.
func sizes(t testing.TB) (full float64, one, line int) {
	t.Helper()
	c, err := wire.NewCompressor(0)
	if err != nil {
		t.Fatal(err)
	}
	l := new(log)
	total := 0
	lines := visits(t, 10*1024)
	for i := range 10 {
		l.add(t, lines[i*1024:(i+1)*1024]...)
		total += len(c.Pack(nil, l.batch(t, uint64(i*1024))))
	}
	l = new(log)
	n := 0
	for i := range 500 {
		l.add(t, lines[i])
		if bytes.Contains(lines[i], []byte(`"kind":"decision"`)) {
			n++
			one += len(c.Pack(nil, l.batch(t, uint64(i))))
			line += len(c.Pack(nil, lines[i]))
		}
	}
	return float64(total) / float64(len(lines)), one / n, line / n
}

func BenchmarkBatch(b *testing.B) {
	full, one, line := sizes(b)
	c, err := wire.NewCompressor(0)
	if err != nil {
		b.Fatal(err)
	}
	l := new(log)
	l.add(b, visits(b, 1024)...)
	plain := l.batch(b, 0)
	packed := c.Pack(nil, plain)
	b.Run("pack", func(b *testing.B) {
		var buf []byte
		for b.Loop() {
			buf = c.Pack(buf[:0], plain)
		}
		b.ReportMetric(full, "B/entry")
		b.ReportMetric(float64(one), "B/single")
		b.ReportMetric(float64(line), "B/single-entry-alone")
		b.ReportMetric(1024*float64(b.N)/b.Elapsed().Seconds(), "entries/s")
	})
	b.Run("decode", func(b *testing.B) {
		for b.Loop() {
			if _, err := wire.DecodeBatch(packed); err != nil {
				b.Fatal(err)
			}
		}
		b.ReportMetric(1024*float64(b.N)/b.Elapsed().Seconds(), "entries/s")
	})
}
