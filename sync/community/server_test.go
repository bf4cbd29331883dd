package community

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"path/filepath"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"filippo.io/age"

	"gatehouse/edge"
	"gatehouse/sync/wire"
)

func TestTwoDevicesWithOneIdentity(t *testing.T) {
	s, b, _ := start(t, filepath.Join(t.TempDir(), "c.db"))
	first := newDevice("estate", "east", 7, 1)
	first.addLines(5)
	register(t, s, first, "")
	first.want(t, first.send(t, b, 0, 5), 5)
	begin := func(epoch edge.Epoch) *device {
		d := newDevice("estate", "east", epoch, 1)
		d.add(fmt.Sprintf(`{"v":1,"kind":"epoch","t":1,"data":{"epoch":"%s","parent":"%s","forked":5}}`, epoch, edge.Epoch(7)))
		d.addLines(3)
		d.want(t, d.send(t, b, 0, 2), 2)
		return d
	}
	alerts := func() []string {
		as, err := s.Alerts(context.Background(), "estate")
		if err != nil {
			t.Fatal(err)
		}
		var out []string
		for _, a := range as {
			if a.Kind == twoDevices {
				out = append(out, a.About+" "+a.Text)
			}
		}
		return out
	}
	restored := begin(8)
	if got := alerts(); len(got) != 0 {
		t.Fatalf("one restored device: %q", got)
	}
	twin := begin(9) // of the same image
	if got := alerts(); len(got) != 1 || !strings.Contains(got[0], "both follow") {
		t.Fatalf("%q", got)
	}
	twin.want(t, twin.send(t, b, 2, 3), 3)
	if got := alerts(); len(got) != 1 {
		t.Fatalf("%q", got)
	}
	restored.want(t, restored.send(t, b, 2, 3), 3) // and the other goes on
	if got := alerts(); len(got) != 2 {
		t.Fatalf("%q", got)
	}
	whole(t, s, restored, 3)
	whole(t, s, twin, 3)
}

// What a gate changes by itself outlives an import, and a snapshot says that it
// has it.
func TestLocalChangesAreLaidOverTheRoster(t *testing.T) {
	testLocal(t, filepath.Join(t.TempDir(), "c.db"))
}

func testLocal(t *testing.T, where string) {
	s, b, _ := start(t, where)
	ctx := context.Background()
	d, west := newDevice("estate", "east", 7, 1), newDevice("estate", "west", 9, 2)
	id, err := age.GenerateX25519Identity()
	if err != nil {
		t.Fatal(err)
	}
	register(t, s, d, id.Recipient().String())
	register(t, s, west, "")
	if _, err := s.ImportRoster(ctx, "estate", roster(10, 0), ImportOptions{}); err != nil {
		t.Fatal(err)
	}
	d.add(line(1))
	d.add(`{"v":1,"kind":"registry","t":1700000000000,"data":{"pass":14,"status":"suspended","reason":"lent","at":1700000000000}}`)
	d.want(t, d.send(t, b, 0, 2), 2)
	if p := peers(t, b, west); len(p.Entries) != 1 || !strings.Contains(string(p.Entries[0].Change), `"suspended"`) {
		t.Fatalf("the peers were told %+v", p)
	}
	status := func(nonce string) (edge.Pass, []wire.PeerMark) {
		t.Helper()
		m := d.ask(t, b, wire.Request{Nonce: nonce})
		cid, err := age.ParseX25519Identity(string(decrypt(t, m.Registry.Key, id)))
		if err != nil {
			t.Fatal(err)
		}
		d.ask(t, b, wire.Request{Nonce: nonce + "w", Want: m.Registry.Chunks})
		plain, err := wire.Expand(decrypt(t, b.take(t, wire.RegistryTopic("estate", m.Registry.Chunks[0])), cid), wire.MaxChunk)
		if err != nil {
			t.Fatal(err)
		}
		var r wire.Row
		if err := wire.Decode(split(plain)[1], &r); err != nil {
			t.Fatal(err)
		}
		return r.Pass, m.Registry.Contains
	}
	if p, marks := status("a"); p.Status != edge.PassActive || len(marks) != 0 {
		t.Fatalf("before: %+v %+v", p, marks)
	}
	if err := s.Republish(ctx); err != nil {
		t.Fatal(err)
	}
	want := wire.PeerMark{Gate: "east", Epoch: 7, Next: 2}
	if p, marks := status("b"); p.ID != 14 || p.Status != edge.PassSuspended || p.Reason != "lent" || len(marks) != 1 || marks[0] != want {
		t.Fatalf("republished: %+v %+v", p, marks)
	}
	if _, err := s.ImportRoster(ctx, "estate", roster(10, 3), ImportOptions{}); err != nil {
		t.Fatal(err)
	}
	if p, _ := status("c"); p.Status != edge.PassSuspended {
		t.Fatal("an import has undone a gate's change")
	}
	d.add(`{"v":1,"kind":"registry","t":1700000000001,"data":{"pass":14,"at":1700000000001}}`)
	d.want(t, d.send(t, b, 2, 3), 3)
	if err := s.Republish(ctx); err != nil {
		t.Fatal(err)
	}
	if p, _ := status("d"); p.Status != edge.PassActive {
		t.Fatal("a change that was taken back still holds")
	}
}

func TestCommands(t *testing.T) {
	s, b, _ := start(t, filepath.Join(t.TempDir(), "c.db"))
	ctx := context.Background()
	d := newDevice("estate", "east", 7, 1)
	register(t, s, d, "")
	order := Order{Site: "estate", Gate: "east", Name: "open", Args: []byte(`{"lane":"east-in"}`), Actor: "operator:li"}
	if _, err := s.Command(ctx, order, time.Minute); err == nil {
		t.Error("a gate that is not online got a command")
	}
	payload, err := wire.Encode(wire.StatusMessage{V: 1, Online: true, Nonce: "abc"})
	if err != nil {
		t.Fatal(err)
	}
	b.deliver(d.topic(wire.Status), payload)
	d.ask(t, b, wire.Request{Nonce: "x"}) // the status was handled before it
	var last uint64
	for range 2 {
		n, err := s.Command(ctx, order, time.Minute)
		if err != nil {
			t.Fatal(err)
		}
		e, err := wire.OpenEnvelope(b.take(t, d.topic(wire.Commands)), wire.TypeCommand, "estate", "east", wire.UseCommands,
			[]wire.ServerKey{{ID: serverKey.name, Public: serverKey.Public(), Uses: []wire.Use{wire.UseCommands}}})
		if err != nil {
			t.Fatal(err)
		}
		var c wire.CommandBody
		if err := wire.Decode(e.Body, &c); err != nil {
			t.Fatal(err)
		}
		if c.Number != n || c.Number <= last || c.Nonce != "abc" || c.Name != "open" || string(c.Args) != `{"lane":"east-in"}` || c.Expires == 0 {
			t.Errorf("%+v after %d", c, last)
		}
		last = n
	}
	payload, err = wire.Encode(wire.Result{V: 1, Number: last, Status: "done"})
	if err != nil {
		t.Fatal(err)
	}
	b.deliver(wire.Topic("estate", "west", wire.Results), payload) // not its command
	d.ask(t, b, wire.Request{Nonce: "y"})
	if o, err := s.OrderOf(ctx, last); err != nil || o.Status != "" {
		t.Errorf("%+v %v", o, err)
	}
	b.deliver(d.topic(wire.Results), payload)
	d.ask(t, b, wire.Request{Nonce: "z"})
	if o, err := s.OrderOf(ctx, last); err != nil || o.Status != "done" || o.Actor != "operator:li" {
		t.Errorf("%+v %v", o, err)
	}
	if _, err := s.OrderOf(ctx, 5); !errors.Is(err, edge.ErrUnknown) {
		t.Error(err)
	}
}

// A device that is not trusted any more gets neither the key to the registry as it
// is now, nor its peers' deltas.
func TestRevokedDeviceLearnsNothingMore(t *testing.T) {
	testRevoked(t, filepath.Join(t.TempDir(), "c.db"))
}

func testRevoked(t *testing.T, where string) {
	s, b, _ := start(t, where)
	ctx := context.Background()
	kept, gone := newDevice("estate", "east", 7, 1), newDevice("estate", "west", 9, 2)
	ids := map[*device]*age.X25519Identity{}
	for _, d := range []*device{kept, gone} {
		id, err := age.GenerateX25519Identity()
		if err != nil {
			t.Fatal(err)
		}
		ids[d] = id
		register(t, s, d, id.Recipient().String())
	}
	if _, err := s.ImportRoster(ctx, "estate", roster(10, 0), ImportOptions{}); err != nil {
		t.Fatal(err)
	}
	before := gone.ask(t, b, wire.Request{Nonce: "a"}).Registry
	if before == nil {
		t.Fatal("a trusted device is not told of the registry")
	}
	if err := s.RevokeGate(ctx, "estate", "west", gone.key.Public(), "test"); err != nil {
		t.Fatal(err)
	}
	if m := gone.ask(t, b, wire.Request{Nonce: "b"}); m.Registry != nil {
		t.Error("a revoked device is given the content key")
	}
	after := kept.ask(t, b, wire.Request{Nonce: "c"}).Registry
	if after.Version <= before.Version || after.Chunks[0] == before.Chunks[0] {
		t.Fatalf("the registry was not encrypted anew: %+v, before %+v", after, before)
	}
	old, err := age.ParseX25519Identity(string(decrypt(t, before.Key, ids[gone])))
	if err != nil {
		t.Fatal(err)
	}
	kept.ask(t, b, wire.Request{Nonce: "d", Want: after.Chunks})
	if _, err := age.Decrypt(bytes.NewReader(b.take(t, wire.RegistryTopic("estate", after.Chunks[0]))), old); err == nil {
		t.Error("a revoked device can read the registry as it is now")
	}
	kept.addLines(4)
	kept.want(t, kept.send(t, b, 0, 4), 4)
	kept.ask(t, b, wire.Request{Nonce: "e"})
	routes, err := s.store.routes(ctx)
	if err != nil {
		t.Fatal(err)
	}
	for _, r := range routes {
		if r.to.gate == "west" {
			t.Error("a revoked device is still told of its peers")
		}
	}
}

func TestClocksOfGates(t *testing.T) { testClocks(t, filepath.Join(t.TempDir(), "c.db")) }

// A gate's own changes hold in the order of its journal, whatever its clock did; and
// one whose clock is ahead does not keep others from changing the same pass.
func testClocks(t *testing.T, where string) {
	s, b, _ := start(t, where)
	ctx := context.Background()
	east, west := newDevice("estate", "east", 7, 1), newDevice("estate", "west", 9, 2)
	register(t, s, east, "")
	register(t, s, west, "")
	if _, err := s.ImportRoster(ctx, "estate", roster(10, 0), ImportOptions{}); err != nil {
		t.Fatal(err)
	}
	now := time.Now()
	say := func(d *device, at time.Time, status string) {
		t.Helper()
		d.add(fmt.Sprintf(`{"v":1,"kind":"registry","t":%d,"data":{"pass":14,"status":%q,"at":%d}}`, at.UnixMilli(), status, at.UnixMilli()))
		d.want(t, d.send(t, b, len(d.lines)-1, len(d.lines)), len(d.lines))
	}
	holds := func(what, want string) {
		t.Helper()
		l, err := localChanges(ctx, s.store.r, "estate")
		if err != nil || l[14].status != want {
			t.Fatalf("%s: %+v %v, want %q", what, l, err, want)
		}
	}
	say(east, now.Add(-time.Hour), "suspended")
	say(east, now.Add(-2*time.Hour), "")
	holds("the clock ran back before it was taken back", "")
	say(west, now.Add(-90*time.Minute), "lost")
	holds("another gate's earlier change", "")
	say(east, now.Add(47*time.Hour), "suspended")
	holds("a clock that is ahead", "suspended")
	for seen := uint64(0); seen < 2; {
		p := peers(t, b, west)
		last := p.Entries[len(p.Entries)-1]
		var c edge.PassChange
		if err := wire.Decode(last.Change, &c); err != nil {
			t.Fatal(err)
		}
		if c.At > time.Now().UnixMilli() {
			t.Errorf("peers are told of %s", time.UnixMilli(c.At))
		}
		seen = last.Seq
	}
	say(west, time.Now().Add(time.Second), "lost")
	holds("a change that came after the one from the future", "lost")
}

func TestBounds(t *testing.T) { testBounds(t, filepath.Join(t.TempDir(), "c.db")) }

// What one gate says does not fill the database: it is told so, and so is a person,
// and what was known before still counts.
func testBounds(t *testing.T, where string) {
	s, b, _ := start(t, where)
	ctx := context.Background()
	d := newDevice("estate", "east", 7, 1)
	register(t, s, d, "")
	g, err := s.store.gateOf(ctx, s.store.r, "estate", "east")
	if err != nil {
		t.Fatal(err)
	}
	for i := range maxAlerts + 50 {
		if err := s.store.alert(ctx, g.id, fmt.Sprint("gate:", i), "lane", "x", int64(i+1)); err != nil {
			t.Fatal(err)
		}
	}
	if err := s.store.alert(ctx, g.id, "gate:0", "lane", "again", 5000); err != nil {
		t.Fatal(err)
	}
	all, err := s.Alerts(ctx, "estate")
	if err != nil || len(all) != maxAlerts+1 || all[0].Text != "again" || all[0].Times != 2 || all[1].Kind != overflow || all[1].Times != 50 {
		t.Fatalf("%d alerts, the newest %+v, %v", len(all), all[:2], err)
	}
	if _, err := s.purge(ctx, time.UnixMilli(5001).Add(defaultRest-time.Second), Retention{}); err != nil {
		t.Fatal(err)
	}
	if all, err = s.Alerts(ctx, "estate"); err != nil || len(all) != 1 {
		t.Errorf("%d old alerts, %v", len(all), err)
	}
	for e := range edge.Epoch(maxEpochs) {
		x := newDevice("estate", "east", e+100, 1)
		x.addLines(1)
		x.want(t, x.send(t, b, 0, 1), 1)
	}
	x := newDevice("estate", "east", 1, 1)
	x.addLines(1)
	x.refused(t, x.send(t, b, 0, 1), wire.RefusedMany, 0)
	// An epoch that is there goes on; another gate's begins; and the day ends.
	old := newDevice("estate", "east", 100, 1)
	old.addLines(2)
	old.want(t, old.send(t, b, 1, 2), 2)
	west := newDevice("estate", "west", 1, 2)
	register(t, s, west, "")
	west.addLines(1)
	west.want(t, west.send(t, b, 0, 1), 1)
	if _, err := s.store.w.Exec(`UPDATE log SET first_at = first_at - 86400000`); err != nil {
		t.Fatal(err)
	}
	x.want(t, x.send(t, b, 0, 1), 1)
}

func TestTrust(t *testing.T) { testTrust(t, filepath.Join(t.TempDir(), "c.db")) }

// A server with another key answers what its predecessor has stored by its own, and
// gives each gate the lists that lead to it.
func testTrust(t *testing.T, where string) {
	ctx := context.Background()
	s, b, stop := start(t, where)
	d := newDevice("estate", "east", 7, 1)
	register(t, s, d, "")
	d.addLines(20)
	d.want(t, d.send(t, b, 0, 20), 20)
	key := func(k key, uses ...wire.Use) wire.ServerKey {
		if uses == nil {
			uses = wire.AllUses()
		}
		return wire.ServerKey{ID: k.Name(), Public: k.Public(), Uses: uses}
	}
	next := newKey(serverKey.name, 98)
	list := func(n uint64, by edge.Signer, keys ...wire.ServerKey) []byte {
		t.Helper()
		p, err := wire.SignTrust(wire.Trust{Number: n, Keys: keys}, 1, by)
		if err != nil {
			t.Fatal(err)
		}
		return p
	}
	for name, p := range map[string][]byte{
		"a gap":             list(2, serverKey, key(serverKey)),
		"without this key":  list(1, serverKey, key(next)),
		"not for receipts":  list(1, serverKey, key(next), key(serverKey, wire.UseRegistry, wire.UseCommands)),
		"by somebody":       list(1, newKey("x", 5), key(serverKey)),
		"by one without it": list(1, next, key(serverKey), key(next, wire.UsePolicy)),
	} {
		if _, err := s.PublishTrust(ctx, p); err == nil {
			t.Errorf("%s: it was published", name)
		}
	}
	if _, err := s.PublishTrust(ctx, list(1, serverKey, key(serverKey), key(next))); err != nil {
		t.Fatal(err)
	}
	for have, want := range []int{1, 0} {
		if m := d.ask(t, b, wire.Request{Nonce: fmt.Sprint("n", have), Trust: uint64(have)}); len(m.Lists) != want {
			t.Errorf("a gate with list %d is given %d", have, len(m.Lists))
		}
	}
	stop()
	s, b, _ = start(t, where, func(c *Config) { c.Signer = next })
	if _, err := s.PublishTrust(ctx, list(2, next, key(next))); err != nil {
		t.Fatal(err)
	}
	r := d.send(t, b, 10, 20)
	dv, err := edge.HeadVerifier(d.key.name, d.key.Public())
	if err != nil {
		t.Fatal(err)
	}
	sv, err := wire.CosignatureVerifier(next.name, next.Public())
	if err != nil {
		t.Fatal(err)
	}
	if _, err := wire.OpenReceipt(r, edge.Origin(community, d.site, d.gate, d.epoch), dv, sv); err != nil {
		t.Errorf("what came again is not receipted by the new key: %v", err)
	}
}

// What finds no place is said, once for all of it.
func TestDroppedIsSaid(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		ctx, cancel := context.WithCancel(t.Context())
		var out bytes.Buffer
		s := &Server{log: slog.New(slog.NewTextHandler(&out, nil)), decode: make([]chan incoming, workers)} // nobody reads
		done := make(chan error, 1)
		go func() { done <- s.dropLoop(ctx) }()
		for range 3 {
			s.take(incoming{gateName: gateName{"estate", "east"}})
		}
		time.Sleep(5 * dropSaid)
		cancel()
		if err := <-done; !errors.Is(err, context.Canceled) {
			t.Error(err)
		}
		if said := out.String(); strings.Count(said, "\n") != 1 || !strings.Contains(said, "messages=3\n") {
			t.Errorf("it is said %q", said)
		}
	})
}
