package community

import (
	"bytes"
	"context"
	"database/sql"
	"io"
	"log/slog"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"filippo.io/age"
	"golang.org/x/mod/sumdb/note"

	"gatehouse/edge"
	"gatehouse/sync/wire"
)

// elsewhere opens the store of a server a second time, as the command line does.
func elsewhere(t testing.TB, where string) *Server {
	t.Helper()
	s, err := Open(context.Background(), where, Config{Community: community, Signer: serverKey, Log: slog.New(slog.DiscardHandler)})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := s.Close(); err != nil {
			t.Error(err)
		}
	})
	return s
}

// unknown has a server remember that it does not know a gate.
func unknown(t testing.TB, s *Server, d *device) {
	t.Helper()
	if g, err := s.gate(context.Background(), gateName{d.site, d.gate}, keysFresh); g != nil || err != nil {
		t.Fatalf("gate %+v %v", g, err)
	}
}

func manifest(t testing.TB, b *bus, d *device) wire.ManifestBody {
	t.Helper()
	e, err := wire.OpenEnvelope(b.take(t, d.topic(wire.Manifest)), wire.TypeManifest, d.site, d.gate, wire.UseRegistry,
		[]wire.ServerKey{{ID: serverKey.name, Public: serverKey.Public(), Uses: []wire.Use{wire.UseRegistry}}})
	if err != nil {
		t.Fatal(err)
	}
	var m wire.ManifestBody
	if err := wire.Decode(e.Body, &m); err != nil {
		t.Fatal(err)
	}
	return m
}

// A gate that was heard of before it was approved is told what is published, however
// soon after.
func TestAnnouncedToAGateThatWasUnknown(t *testing.T) {
	where := filepath.Join(t.TempDir(), "c.db")
	s, b, _ := start(t, where)
	ctx := context.Background()
	id, err := age.GenerateX25519Identity()
	if err != nil {
		t.Fatal(err)
	}
	east, west := newDevice("estate", "east", 7, 1), newDevice("estate", "west", 9, 2)
	for _, d := range []*device{east, west} {
		unknown(t, s, d)
	}
	other := elsewhere(t, where)
	register(t, other, east, id.Recipient().String())
	// West says its key itself; nobody has approved it.
	vkey, err := note.NewEd25519VerifierKey(west.key.Name(), west.key.Public())
	if err != nil {
		t.Fatal(err)
	}
	status, err := wire.Encode(wire.StatusMessage{V: wire.Version, Online: true, Key: vkey})
	if err != nil {
		t.Fatal(err)
	}
	if err := s.noteStatus(ctx, asked{gateName: gateName{west.site, west.gate}, channel: wire.Status, payload: status}); err != nil {
		t.Fatal(err)
	}
	if g, err := s.gate(ctx, gateName{west.site, west.gate}, keysFresh); err != nil || g == nil || len(g.keys) != 1 {
		t.Errorf("after its status the gate is %+v %v", g, err)
	}
	if _, err := other.ImportRoster(ctx, "estate", roster(10, 0), ImportOptions{}); err != nil {
		t.Fatal(err)
	}
	for m := manifest(t, b, east); m.Registry == nil; m = manifest(t, b, east) {
	}
	if m := manifest(t, b, west); m.Registry != nil {
		t.Error("a gate that nobody approved is given the registry")
	}
}

// A device that another process has revoked is not given the content key that was
// made for that, although this one remembers the device as trusted.
func TestRevokedElsewhere(t *testing.T) {
	where := filepath.Join(t.TempDir(), "c.db")
	s, b, _ := start(t, where)
	ctx := context.Background()
	id, err := age.GenerateX25519Identity()
	if err != nil {
		t.Fatal(err)
	}
	d := newDevice("estate", "east", 7, 1)
	register(t, s, d, id.Recipient().String())
	if _, err := s.ImportRoster(ctx, "estate", roster(10, 0), ImportOptions{}); err != nil {
		t.Fatal(err)
	}
	if m := d.ask(t, b, wire.Request{Nonce: "a"}); m.Registry == nil {
		t.Fatal("a trusted device is not told of the registry")
	}
	if err := elsewhere(t, where).RevokeGate(ctx, d.site, d.gate, d.key.Public(), "test"); err != nil {
		t.Fatal(err)
	}
	if m := d.ask(t, b, wire.Request{Nonce: "b"}); m.Registry != nil {
		t.Error("a revoked device is given the new content key")
	}
}

func TestManifestIsOfOneVersion(t *testing.T) {
	testOneVersion(t, filepath.Join(t.TempDir(), "c.db"))
}

// What a gate is told of a registry is of one version, also when the next one is
// published while it is read.
func testOneVersion(t *testing.T, where string) {
	ctx := context.Background()
	a, b := elsewhere(t, where), elsewhere(t, where)
	if _, err := a.ImportRoster(ctx, "estate", roster(100, 0), ImportOptions{}); err != nil {
		t.Fatal(err)
	}
	was, key, err := a.store.registry(ctx, "estate", 0)
	if err != nil {
		t.Fatal(err)
	}
	err = a.store.view(ctx, func(q querier) error {
		// The first thing that is read says which state is seen.
		var version int64
		if err := q.QueryRowContext(ctx, `SELECT version FROM registry`).Scan(&version); err != nil {
			return err
		}
		if err := b.recut(ctx, "estate", true); err != nil {
			return err
		}
		now, again, err := registryIn(ctx, q, "estate", 0)
		if err == nil && (now.Version != version || again != key || !slices.Equal(now.Chunks, was.Chunks)) {
			t.Errorf("%+v, was %+v", now, was)
		}
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	if now, again, err := a.store.registry(ctx, "estate", was.Version); err != nil || now == nil || again == key || slices.Equal(now.Chunks, was.Chunks) {
		t.Errorf("afterwards %+v %v", now, err)
	}
}

// waits until what another process does waits for a transaction that is open. It is
// wrong when it is done instead.
func waits(t testing.TB, s *Server, done chan error) {
	t.Helper()
	for {
		select {
		case err := <-done:
			t.Errorf("it did not wait for the other one: %v", err)
			done <- err
			return
		default:
		}
		var n int
		if err := s.store.r.QueryRow(`SELECT COUNT(*) FROM pg_stat_activity WHERE datname = current_database() AND wait_event_type = 'Lock'`).Scan(&n); err != nil {
			t.Error(err)
			return
		}
		if n > 0 {
			return
		}
		time.Sleep(time.Millisecond) // nothing announces that a statement waits
	}
}

// issued opens what is published of a site with the key that is published.
func issued(t testing.TB, s *Server, site string) (version int64, rows, lost int) {
	t.Helper()
	ctx := context.Background()
	reg, identity, err := s.store.registry(ctx, site, 0)
	if err != nil {
		t.Fatal(err)
	}
	id, err := age.ParseX25519Identity(identity)
	if err != nil {
		t.Fatal(err)
	}
	for i, h := range reg.Chunks {
		_, data, err := s.store.publication(ctx, site, h)
		if err != nil {
			t.Fatal(err)
		}
		r, err := age.Decrypt(bytes.NewReader(data), id)
		if err != nil {
			t.Fatalf("chunk %d of version %d: %v", i, reg.Version, err)
		}
		sealed, err := io.ReadAll(r)
		if err != nil {
			t.Fatal(err)
		}
		plain, err := wire.Expand(sealed, wire.MaxChunk)
		if err != nil {
			t.Fatal(err)
		}
		rows += len(split(plain))
		lost += bytes.Count(plain, []byte(`"lost"`))
	}
	if int64(rows) != reg.Rows {
		t.Errorf("%d rows are published, %d are said to be", rows, reg.Rows)
	}
	return reg.Version, rows, lost
}

// What else is done to a registry while a roster is imported comes after it: each
// version has one content, and the key that is given out opens it.
func testDuringImport(t *testing.T, where string) {
	ctx := context.Background()
	a, b := elsewhere(t, where), elsewhere(t, where)
	const n = 3000 // more than a step between versions holds
	allLost := func(yield func(edge.RosterRow, error) bool) {
		for r := range roster(n, 0) {
			r.Pass.Status = edge.PassLost
			if !yield(r, nil) {
				return
			}
		}
	}
	d := newDevice("revoked", "east", 7, 1)
	register(t, a, d, "")
	for _, c := range []struct {
		site       string
		first      bool // nothing was published before
		do         func(site string) error
		rows, lost int
	}{
		{site: "republished", do: func(site string) error { return a.recut(ctx, site, false) }, rows: n, lost: n},
		{site: "rotated", do: func(site string) error { return a.rotate(ctx, site) }, rows: n, lost: n},
		{site: "revoked", do: func(site string) error { return a.RevokeGate(ctx, site, "east", d.key.Public(), "test") }, rows: n, lost: n},
		{site: "imported", do: func(site string) error {
			_, err := a.ImportRoster(ctx, site, roster(n, 5), ImportOptions{})
			return err
		}, rows: n, lost: 1},
		{site: "imported-first", first: true, do: func(site string) error {
			ch, err := a.ImportRoster(ctx, site, roster(n, 5), ImportOptions{})
			if ch.New != 0 || ch.Changed != n-1 {
				t.Errorf("the second import changes %+v", ch)
			}
			return err
		}, rows: n, lost: 1},
		{site: "erased-first", first: true, do: func(site string) error {
			_, err := a.ErasePerson(ctx, site, 7*5, "test")
			return err
		}, rows: n - 1, lost: n - 1},
	} {
		t.Run(c.site, func(t *testing.T) {
			if !c.first {
				if _, err := a.ImportRoster(ctx, c.site, roster(n, 0), ImportOptions{}); err != nil {
					t.Fatal(err)
				}
			}
			amid, goOn := make(chan struct{}), make(chan struct{})
			slow := func(yield func(edge.RosterRow, error) bool) {
				for r := range allLost {
					if r.Line == 100 {
						close(amid)
						<-goOn
					}
					if !yield(r, nil) {
						return
					}
				}
			}
			imported, done := make(chan error, 1), make(chan error, 1)
			var ch Changes
			go func() {
				var err error
				ch, err = b.ImportRoster(ctx, c.site, slow, ImportOptions{})
				imported <- err
			}()
			<-amid
			go func() { done <- c.do(c.site) }()
			waits(t, a, done)
			close(goOn)
			if err := <-imported; err != nil {
				t.Errorf("the import: %v", err)
			}
			if err := <-done; err != nil {
				t.Errorf("what came meanwhile: %v", err)
			}
			if version, rows, lost := issued(t, a, c.site); version <= ch.Version || rows != c.rows || lost != c.lost {
				t.Errorf("version %d with %d rows, %d lost; want one after %d with %d, %d lost", version, rows, lost, ch.Version, c.rows, c.lost)
			}
		})
	}
}

// Of two processes that go by what they have read, the second sees what the first has
// written.
func testTurns(t *testing.T, where string) {
	ctx := context.Background()
	a, b := elsewhere(t, where), elsewhere(t, where)
	d := newDevice("estate", "east", 7, 1)
	register(t, a, d, "")
	now := time.Now().UnixMilli()
	exec := func(tx *sql.Tx, q string, args ...any) {
		t.Helper()
		if _, err := tx.Exec(q, args...); err != nil {
			t.Fatal(err)
		}
	}
	turn := func(tx *sql.Tx, name string) {
		t.Helper()
		if err := a.store.bulk.turn(ctx, tx, name); err != nil {
			t.Fatal(err)
		}
	}
	lock := func(tx *sql.Tx, gate string) *gate {
		t.Helper()
		g, err := a.store.lockGate(ctx, tx, "estate", gate, now)
		if err != nil {
			t.Fatal(err)
		}
		return g
	}
	approved := func(tx *sql.Tx, d *device) {
		t.Helper()
		k := GateKey{Name: d.key.Name(), Public: [32]byte(d.key.Public()), State: KeyApproved, By: "test"}
		if err := putKey(ctx, tx, lock(tx, d.gate), k, now); err != nil {
			t.Fatal(err)
		}
	}
	// second runs first in a transaction of one process, and then, before its end, f.
	second := func(t *testing.T, first func(tx *sql.Tx), f func() error) error {
		t.Helper()
		done := make(chan error, 1)
		err := a.store.write(ctx, func(tx *sql.Tx) error {
			first(tx)
			go func() { done <- f() }()
			waits(t, a, done)
			return nil
		})
		if err != nil {
			t.Fatal(err)
		}
		return <-done
	}
	t.Run("policy", func(t *testing.T) {
		at := func(v int) []byte { return sample(t, "normal-times.yaml", v) }
		if err := a.PublishPolicy(ctx, "estate", "p.yaml", at(3)); err != nil {
			t.Fatal(err)
		}
		err := second(t, func(tx *sql.Tx) {
			turn(tx, turnPolicy("estate"))
			exec(tx, `INSERT INTO policy (site, layer, version, hash, name, payload, at) SELECT site, layer, 5, hash, name, payload, at FROM policy WHERE site = 'estate'`)
		}, func() error { return b.PublishPolicy(ctx, "estate", "p.yaml", at(4)) })
		if err == nil || !strings.Contains(err.Error(), "must be above 5") {
			t.Errorf("a version below the one that came first: %v", err)
		}
	})
	t.Run("command", func(t *testing.T) {
		if _, err := a.store.w.Exec(`UPDATE gate SET status = '{"v":1,"online":true,"nonce":"n"}' WHERE name = 'east'`); err != nil {
			t.Fatal(err)
		}
		last := now + 1_000_000
		var number uint64
		err := second(t, func(tx *sql.Tx) {
			turn(tx, turnCommands)
			exec(tx, `INSERT INTO command (number, site, gate, payload, name, actor, issued, expires, sent, status, text) VALUES ($1, 'estate', 'east', '', '', '', 0, 0, 0, '', '')`, last)
		}, func() (err error) {
			number, err = b.Command(ctx, Order{Site: "estate", Gate: "east", Name: "open"}, time.Minute)
			return err
		})
		if err != nil || number != uint64(last)+1 {
			t.Errorf("number %d %v, want the one after %d", number, err, last)
		}
	})
	t.Run("trust", func(t *testing.T) {
		signed := func(n uint64) []byte {
			p, err := wire.SignTrust(wire.Trust{Number: n, Keys: []wire.ServerKey{{ID: serverKey.Name(), Public: serverKey.Public(), Uses: wire.AllUses()}}}, now, serverKey)
			if err != nil {
				t.Fatal(err)
			}
			return p
		}
		err := second(t, func(tx *sql.Tx) {
			turn(tx, turnTrust)
			exec(tx, `INSERT INTO trust (number, payload, at) VALUES (1, $1, 0)`, string(signed(1)))
		}, func() error {
			_, err := b.PublishTrust(ctx, signed(1))
			return err
		})
		if err == nil || !strings.Contains(err.Error(), "the next one is 2") {
			t.Errorf("a second list 1: %v", err)
		}
	})
	for _, gate := range []string{"north", "south"} { // that are known, and have no device yet
		if err := a.store.write(ctx, func(tx *sql.Tx) error { lock(tx, gate); return nil }); err != nil {
			t.Fatal(err)
		}
	}
	t.Run("approve", func(t *testing.T) {
		one, two := newDevice("estate", "north", 7, 3), newNewcomer(t, "north", 4)
		err := second(t, func(tx *sql.Tx) { approved(tx, one) }, func() error {
			return b.ApproveEnrol(ctx, "estate", "north", two.request(t), false, "test")
		})
		if err == nil || !strings.Contains(err.Error(), "has the device") {
			t.Errorf("a second device was approved: %v", err)
		}
	})
	t.Run("pending", func(t *testing.T) {
		d := newDevice("estate", "south", 7, 5)
		k := GateKey{Name: d.key.Name(), Public: [32]byte(d.key.Public()), State: KeyPending, By: "status"}
		err := second(t, func(tx *sql.Tx) { approved(tx, d) }, func() error { return b.store.setKey(ctx, d.site, d.gate, k, now) })
		if err != nil {
			t.Fatal(err)
		}
		if g, err := a.gate(ctx, gateName{d.site, d.gate}, 0); err != nil || len(g.keys) != 1 || g.keys[0].State != KeyApproved {
			t.Errorf("a key that was approved is %+v %v", g, err)
		}
	})
	t.Run("replace", func(t *testing.T) {
		// While the registry is made anew, which takes long for a large one, the gate may
		// say how it is: all answers come after that.
		if _, err := a.ImportRoster(ctx, "replacing", roster(10, 0), ImportOptions{}); err != nil {
			t.Fatal(err)
		}
		one, two := newDevice("replacing", "east", 7, 6), newNewcomer(t, "east", 8)
		two.site = "replacing"
		register(t, a, one, "")
		status, err := wire.Encode(wire.StatusMessage{V: wire.Version, Online: true})
		if err != nil {
			t.Fatal(err)
		}
		done := make(chan error, 1)
		err = a.store.write(ctx, func(tx *sql.Tx) error {
			exec(tx, `LOCK TABLE chunk IN SHARE MODE`)
			go func() { done <- b.ApproveEnrol(ctx, "replacing", "east", two.request(t), true, "test") }()
			waits(t, a, done)
			short, cancel := context.WithTimeout(ctx, 5*time.Second)
			defer cancel()
			return a.noteStatus(short, asked{gateName: gateName{"replacing", "east"}, channel: wire.Status, payload: status})
		})
		if err != nil {
			t.Errorf("the gate's status: %v", err)
		}
		if err := <-done; err != nil {
			t.Error(err)
		}
		// Whatever is still on the medium, the device is approved, and to be told so.
		three := newNewcomer(t, "east", 9)
		three.site = "replacing"
		err = a.store.write(ctx, func(tx *sql.Tx) error {
			exec(tx, `LOCK TABLE registry IN ACCESS SHARE MODE`)
			return b.ApproveEnrol(ctx, "replacing", "east", three.request(t), true, "test")
		})
		if err != nil {
			t.Errorf("beside one who reads: %v", err)
		}
	})
	t.Run("destroy", func(t *testing.T) {
		_, bus, stop := start(t, where)
		d.addLines(300)
		d.want(t, d.send(t, bus, 0, 300), 300)
		stop()
		var log int64
		if err := a.store.r.QueryRow(`SELECT id FROM log`).Scan(&log); err != nil {
			t.Fatal(err)
		}
		var n int64
		err := second(t, func(tx *sql.Tx) {
			if k, err := a.store.destroy(ctx, tx, log, []uint64{3, 4, 5, 299}, now, "retention", "test"); err != nil || k != 4 {
				t.Errorf("%d %v", k, err)
			}
		}, func() (err error) {
			n, _, err = b.store.destroyWhere(ctx, now, "retention", "test", "seq >= 2 AND seq < 8 OR seq = 299")
			return err
		})
		if err != nil || n != 3 {
			t.Errorf("%d entries were destroyed that were there, %v", n, err)
		}
		cs, err := a.Counts(ctx, d.site, d.gate)
		if err != nil || cs[0].Stored != 293 || cs[0].Destroyed != 7 || cs[0].Missing != 0 {
			t.Errorf("%+v %v", cs, err)
		}
		if bad, err := a.Verify(ctx, d.site, d.gate); err != nil || len(bad) > 0 {
			t.Errorf("verify: %v %v", bad, err)
		}
	})
	t.Run("drop_local", func(t *testing.T) {
		// The receiver has a log's mark and goes on to the change, while an import forgets
		// the changes.
		if _, err := a.ImportRoster(ctx, "estate", roster(10, 0), ImportOptions{}); err != nil {
			t.Fatal(err)
		}
		l := &gateLog{gate: &gate{site: "estate", name: "east"}}
		if err := a.store.r.QueryRow(`SELECT id FROM log`).Scan(&l.id); err != nil {
			t.Fatal(err)
		}
		note := func(tx *sql.Tx, seq uint64) error {
			return noteChange(ctx, tx, l, seq, edge.PassChange{Pass: 14, Status: edge.PassLost, At: now})
		}
		if err := a.store.write(ctx, func(tx *sql.Tx) error { return note(tx, 1) }); err != nil {
			t.Fatal(err)
		}
		done := make(chan error, 1)
		err := a.store.write(ctx, func(tx *sql.Tx) error {
			exec(tx, `UPDATE contains SET received = received`)
			go func() {
				_, err := b.ImportRoster(ctx, "estate", roster(10, 0), ImportOptions{DropLocal: true})
				done <- err
			}()
			waits(t, a, done)
			return note(tx, 2)
		})
		if err != nil {
			t.Errorf("the receiver: %v", err)
		}
		if err := <-done; err != nil {
			t.Errorf("the import: %v", err)
		}
	})
}
