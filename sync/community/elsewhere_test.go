package community

import (
	"context"
	"log/slog"
	"path/filepath"
	"testing"

	"filippo.io/age"
	"golang.org/x/mod/sumdb/note"

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

