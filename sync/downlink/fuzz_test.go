package downlink

import (
	"context"
	"log/slog"
	"testing"
	"time"

	"gatehouse/edge"
	"gatehouse/sync/wire"
)

// Whatever a server signs, however wrong, ends in an error and not in a panic, and
// puts nothing in force that is not complete.
func FuzzSignedBodies(f *testing.F) {
	for _, s := range []string{
		`{"v":1,"nonce":"n","time":1,"registry":{"version":2,"rows":0,"chunks":[],"key":"AA=="},"policies":[{"hash":"../x","policy":"p","version":1}],"trust":[{"id":"x","public":null,"uses":[]}]}`,
		`{"v":1,"gate":"h","epoch":"0000000000000001","from":0,"entries":[{"seq":18446744073709551615,"t":-1,"deltas":[{"c":"x","s":"y","add":1}],"change":{"pass":1}}]}`,
		`{"v":1,"number":18446744073709551615,"nonce":"now","expires":-1,"name":"open","actor":""}`,
	} {
		f.Add([]byte(s))
	}
	f.Fuzz(func(t *testing.T, body []byte) {
		g := newGate(t)
		g.trust[0].Uses = append(g.trust[0].Uses, wire.UseRegistry)
		d, err := New(Config{Site: "s", Gate: "g", Dir: g.dir, Trust: func() wire.Trust { return wire.Trust{V: wire.Version, Number: g.list, Keys: g.trust} },
			Nonces: func() (string, string) { return "now", "before" }, Open: g.open, Clock: g.clock, SetServer: func(time.Time) {},
			Record:   func(context.Context, edge.Kind, any) (edge.EntryRef, error) { return edge.EntryRef{}, nil },
			Registry: registry{g}, Policies: policies{g}, Peers: g, Commands: g}, g, slog.New(slog.DiscardHandler))
		if err != nil {
			t.Fatal(err)
		}
		ctx := context.Background()
		for typ, c := range map[string]wire.Channel{wire.TypeManifest: wire.Manifest, wire.TypePeers: wire.Peers} {
			if err := d.handle(ctx, message{channel: c, payload: g.signed(typ, body)}); err != nil {
				t.Log(err)
			}
		}
		if err := d.command(ctx, consumed{}, g.signed(wire.TypeCommand, body)); err != nil {
			t.Log(err)
		}
		if g.version != 0 && len(g.rows) == 0 && d.registry != nil {
			t.Error("a registry is in force that has not arrived")
		}
	})
}

func (g *gate) signed(typ string, body []byte) []byte {
	g.t.Helper()
	e := wire.Envelope{Type: typ, Site: "s", Gate: "g", IssuedAt: 1, Body: body}
	if err := e.Sign(g.server); err != nil {
		g.t.Fatal(err)
	}
	payload, err := e.Encode()
	if err != nil {
		g.t.Fatal(err)
	}
	return payload
}
