package downlink

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"gatehouse/edge"
	"gatehouse/sync/wire"
)

// delta makes a step of the registry: put and gone are passes. The head may be
// another's.
func (g *gate) delta(from, to int64, head wire.DeltaHead, put ...edge.PassID) (wire.DeltaRef, []byte) {
	g.t.Helper()
	zip, err := wire.NewCompressor(0)
	if err != nil {
		g.t.Fatal(err)
	}
	head.V = wire.Version
	text, err := wire.Encode(head)
	if err != nil {
		g.t.Fatal(err)
	}
	text = append(text, '\n')
	for _, id := range put {
		b, err := wire.Encode(wire.Row{Pass: edge.Pass{ID: id, Category: "visitor", Status: edge.PassActive}})
		if err != nil {
			g.t.Fatal(err)
		}
		text = append(append(text, b...), '\n')
	}
	data := g.encrypt(zip.Pack(nil, text), g.site.Recipient())
	return wire.DeltaRef{From: from, To: to, Hash: wire.HashOf(data)}, data
}

// with20 is a gate with version 1 of a registry of twenty passes, and what is
// published as version 3: pass 5 changed and 30 new in 2, pass 7 gone in 3.
func with20(t *testing.T) (g *gate, ref *wire.RegistryRef, parts map[string][]byte) {
	g = newGate(t)
	t.Cleanup(g.start())
	g.connect()
	ref, parts = g.roster(1, 20)
	g.manifest(wire.ManifestBody{Registry: ref})
	for h, c := range parts {
		g.send(h, c)
	}
	if g.version != 1 || len(g.rows) != 20 {
		t.Fatalf("version %d with %d rows", g.version, len(g.rows))
	}
	next, parts := g.roster(3, 20)
	next.Contains = []wire.PeerMark{{Gate: "g", Epoch: 5, Next: 8}}
	for _, s := range []struct {
		from int64
		gone []edge.PassID
		put  []edge.PassID
	}{{1, nil, []edge.PassID{5, 30}}, {2, []edge.PassID{7}, nil}} {
		r, data := g.delta(s.from, s.from+1, wire.DeltaHead{From: s.from, To: s.from + 1, Gone: s.gone}, s.put...)
		next.Deltas = append(next.Deltas, r)
		parts[r.Hash] = data
	}
	return g, next, parts
}

func (g *gate) wanted() []string { return g.requests[len(g.requests)-1].Want }

func TestDeltasStepByStep(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		g, ref, parts := with20(t)
		g.manifest(wire.ManifestBody{Registry: ref})
		if w := g.wanted(); len(w) != 2 || w[0] != ref.Deltas[0].Hash || w[1] != ref.Deltas[1].Hash {
			t.Fatalf("wants %v, the deltas are %v", w, ref.Deltas)
		}
		g.send(ref.Deltas[1].Hash, parts[ref.Deltas[1].Hash])
		if g.version != 1 {
			t.Fatal("a step was taken before the one before it was here")
		}
		g.send(ref.Deltas[0].Hash, parts[ref.Deltas[0].Hash])
		if g.version != 3 || len(g.rows) != 20 || g.rows[4].Pass.Category != "visitor" || g.rows[6].Pass.ID != 8 || g.rows[19].Pass.ID != 30 {
			t.Errorf("version %d, %d rows", g.version, len(g.rows))
		}
		if len(g.contains) != 1 || g.contains[0].Seq != 7 {
			t.Errorf("contains %+v", g.contains)
		}
		left, err := os.ReadDir(filepath.Join(g.dir, "chunks"))
		if err != nil {
			t.Fatal(err)
		}
		for _, f := range left {
			if f.Name() == ref.Deltas[0].Hash || f.Name() == ref.Deltas[1].Hash {
				t.Error("a delta that is applied was kept")
			}
		}
	})
}

// Deltas that do not lead from here, or lie, are no obstacle: the chunks are fetched.
func TestDeltasThatDoNotFit(t *testing.T) {
	for _, tt := range []struct {
		name    string
		spoil   func(*gate, *wire.RegistryRef, map[string][]byte)
		fetched bool // the deltas were asked for first
		version int64
	}{
		{"gap", func(_ *gate, r *wire.RegistryRef, _ map[string][]byte) { r.Deltas[1].From = 5 }, false, 3},
		{"short of the version", func(_ *gate, r *wire.RegistryRef, _ map[string][]byte) { r.Deltas = r.Deltas[:1] }, false, 3},
		{"of a later version", func(_ *gate, r *wire.RegistryRef, _ map[string][]byte) { r.Deltas = r.Deltas[1:] }, false, 3},
		{"not forward", func(_ *gate, r *wire.RegistryRef, _ map[string][]byte) { r.Deltas[1].To = 2 }, false, 3},
		{"head of another", func(g *gate, r *wire.RegistryRef, p map[string][]byte) {
			ref, data := g.delta(2, 3, wire.DeltaHead{From: 1, To: 3, Gone: []edge.PassID{7}})
			r.Deltas[1], p[ref.Hash] = ref, data
		}, true, 3},
		{"pass that never was", func(g *gate, r *wire.RegistryRef, p map[string][]byte) {
			ref, data := g.delta(1, 2, wire.DeltaHead{From: 1, To: 2, Gone: []edge.PassID{700}})
			r.Deltas[0], p[ref.Hash] = ref, data
		}, true, 3},
		{"other key", func(g *gate, r *wire.RegistryRef, p map[string][]byte) {
			data := g.encrypt([]byte("{}\n"), g.device.Recipient())
			r.Deltas[0].Hash = wire.HashOf(data)
			p[r.Deltas[0].Hash] = data
		}, true, 3},
		{"torn line", func(g *gate, r *wire.RegistryRef, p map[string][]byte) {
			data := g.encrypt([]byte(`{"v":1,"from":1,"to":2}`+"\n{\"pass"), g.site.Recipient())
			r.Deltas[0].Hash = wire.HashOf(data)
			p[r.Deltas[0].Hash] = data
		}, true, 3},
	} {
		t.Run(tt.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				g, ref, parts := with20(t)
				tt.spoil(g, ref, parts)
				g.manifest(wire.ManifestBody{Registry: ref})
				if fetched := len(ref.Deltas) > 0 && g.wanted()[0] == ref.Deltas[0].Hash; fetched != tt.fetched {
					t.Fatalf("wants %v", g.wanted())
				}
				// The server answers every request with the same manifest and what is wanted.
				for range 4 {
					for _, h := range g.wanted() {
						g.send(h, parts[h])
					}
					if g.version == 3 {
						break
					}
					g.manifest(wire.ManifestBody{Registry: ref})
					time.Sleep(time.Minute)
					synctest.Wait()
				}
				if g.version != 3 || len(g.rows) != 20 || g.rows[6].Pass.ID != 7 {
					t.Errorf("version %d with %d rows", g.version, len(g.rows))
				}
				if len(g.records) != 0 {
					t.Errorf("records %q", g.records)
				}
			})
		})
	}
}

func TestDeltaOfAStrangeName(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		g, ref, _ := with20(t)
		ref.Deltas[0].Hash = "../../etc/passwd"
		g.bad = true // against the schema
		g.manifest(wire.ManifestBody{Registry: ref})
		if g.version != 1 || !strings.Contains(strings.Join(g.records, ""), "chunk") {
			t.Errorf("version %d, records %q", g.version, g.records)
		}
	})
}

// What the wire's golden files hold of the registry is what a gate reads.
func TestGoldenRegistry(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		g := newGate(t)
		t.Cleanup(g.start())
		g.connect()
		part := func(file string) (string, []byte) {
			text, err := os.ReadFile(filepath.Join("..", "wire", "testdata", file+".golden"))
			if err != nil {
				t.Fatal(err)
			}
			data := g.encrypt(text, g.site.Recipient())
			return wire.HashOf(data), data
		}
		h, data := part("chunk")
		ref := &wire.RegistryRef{Version: 3, Rows: 2, Chunks: []string{h}, Key: g.encrypt([]byte(g.site.String()), g.device.Recipient())}
		g.manifest(wire.ManifestBody{Registry: ref})
		g.send(h, data)
		if g.version != 3 || len(g.rows) != 2 || g.rows[0].Pass.Name != "王*明" || g.rows[0].Household.Members != 3 || len(g.rows[0].Credentials) != 2 || g.rows[1].Pass.Status != edge.PassSuspended {
			t.Fatalf("version %d: %+v", g.version, g.rows)
		}
		h, data = part("registry-delta")
		next := *ref
		next.Version, next.Deltas = 4, []wire.DeltaRef{{From: 3, To: 4, Hash: h}}
		g.manifest(wire.ManifestBody{Registry: &next})
		g.send(h, data)
		if g.version != 4 || len(g.rows) != 1 || g.rows[0].Pass.ID != 8 || g.rows[0].Pass.Status != edge.PassActive {
			t.Errorf("version %d: %+v", g.version, g.rows)
		}
	})
}
