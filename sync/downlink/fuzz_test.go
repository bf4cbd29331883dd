package downlink

import (
	"context"
	"log/slog"
	"os"
	"path/filepath"
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

// What is inside a chunk or a delta, however wrong, ends in an error, or in rows that
// the manifest speaks of.
func FuzzRows(f *testing.F) {
	for _, s := range []string{
		`{"pass":{"id":1,"category":"visitor","status":"active"}}` + "\n",
		`{"v":1,"from":1,"to":2,"gone":[7]}` + "\n" + `{"pass":{"id":5},"household":{"id":1},"cards":["em:3C00CE754C"]}` + "\n",
		`{"v":1,"from":1,"to":3}` + "\n", `{"v":2}` + "\n", "\n\n", "", `{"pass":{"id":1e99}}`, `{"v":1,"from":1,"to":2,"gone":[-1,"x"]}`,
	} {
		f.Add([]byte(s), int64(1))
	}
	f.Fuzz(func(t *testing.T, plain []byte, n int64) {
		g := newGate(t)
		d, err := New(Config{Site: "s", Gate: "g", Dir: g.dir}, g, slog.New(slog.DiscardHandler))
		if err != nil {
			t.Fatal(err)
		}
		zip, err := wire.NewCompressor(0)
		if err != nil {
			t.Fatal(err)
		}
		for _, packed := range [][]byte{plain, zip.Pack(nil, plain)} {
			data := g.encrypt(packed, g.site.Recipient())
			hash := wire.HashOf(data)
			if err := os.WriteFile(filepath.Join(d.chunkDir(), hash), data, 0o600); err != nil {
				t.Fatal(err)
			}
			put, gone, err := d.readDelta(wire.DeltaRef{From: 1, To: 2, Hash: hash}, g.site)
			if err != nil && (put != nil || gone != nil) {
				t.Fatal("a delta that is refused has rows")
			}
			rows, failed := int64(0), false
			for _, err := range d.rows(&wire.RegistryRef{Version: 1, Rows: n, Chunks: []string{hash}}, g.site) {
				if failed {
					t.Fatal("rows go on after an error")
				}
				if failed = err != nil; !failed {
					rows++
				}
			}
			if !failed && rows != n {
				t.Fatalf("%d rows passed for %d", rows, n)
			}
		}
	})
}
