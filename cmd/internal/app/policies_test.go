package app

import (
	"bytes"
	"context"
	"crypto/ed25519"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"

	"gatehouse/cmd/internal/config"
	"gatehouse/edge"
	"gatehouse/edge/bundle"
	"gatehouse/edge/registry"
	firmwareconfig "gatehouse/firmware-config"
	"gatehouse/sync/downlink"
	"gatehouse/sync/wire"
)

type policyKey struct {
	name string
	priv ed25519.PrivateKey
}

func newPolicyKey(name string, seed byte) policyKey {
	return policyKey{name, ed25519.NewKeyFromSeed(bytes.Repeat([]byte{seed}, 32))}
}
func (k policyKey) Name() string                    { return k.name }
func (k policyKey) Public() []byte                  { return k.priv.Public().(ed25519.PublicKey) }
func (k policyKey) Sign(msg []byte) ([]byte, error) { return ed25519.Sign(k.priv, msg), nil }

var (
	communityKey = newPolicyKey("community", 1)
	cityKey      = newPolicyKey("city", 2)
)

// policyGate is what keeps policies on a gate, without the gate.
type policyGate struct {
	t       *testing.T
	dir     string
	cfg     *config.Gate
	reg     *registry.Registry
	p       *policies
	entries []activation
	fail    error // of record
}

func newPolicyGate(t *testing.T) *policyGate {
	t.Helper()
	dir := t.TempDir()
	g := &policyGate{t: t, dir: dir, cfg: &config.Gate{Community: "c", Site: "s", Gate: "g", Policy: filepath.Join(dir, "own.yaml")}}
	g.file("own.yaml", policyVersion(t, "normal-times.yaml", 1))
	g.start()
	return g
}

func (g *policyGate) file(name string, src []byte) {
	g.t.Helper()
	if err := os.WriteFile(filepath.Join(g.dir, name), src, 0o600); err != nil {
		g.t.Fatal(err)
	}
}

// start is a start of the gate; what was running is as if the power had failed.
func (g *policyGate) start() {
	g.t.Helper()
	if g.reg != nil {
		if err := g.reg.Close(); err != nil {
			g.t.Fatal(err)
		}
	}
	var err error
	if g.reg, err = registry.Open(g.t.Context(), filepath.Join(g.dir, "registry.db"), registry.Options{Keys: []edge.CredentialKey{{Version: 1}}}); err != nil {
		g.t.Fatal(err)
	}
	reg := g.reg
	g.t.Cleanup(func() { _ = reg.Close() })
	if g.p, err = openPolicies(g.t.Context(), g.cfg, g.reg, slog.New(slog.DiscardHandler)); err != nil {
		g.t.Fatal(err)
	}
	g.p.record = func(_ context.Context, k edge.Kind, data any) (edge.EntryRef, error) {
		a, ok := data.(activation)
		if k != edge.KindPolicy || !ok {
			g.t.Errorf("an entry of kind %s with %+v", k, data)
		}
		if g.fail == nil {
			g.entries = append(g.entries, a)
		}
		return edge.EntryRef{}, g.fail
	}
	keys := []wire.ServerKey{{ID: "community", Public: communityKey.Public(), Uses: wire.AllUses()},
		{ID: "city", Public: cityKey.Public(), Uses: []wire.Use{wire.PolicyOf("city")}}}
	g.p.trust = func() bundle.Trust { return bundle.Trust{Community: "c", Site: "s", Keys: policyKeys(keys)} }
	if err := g.p.Started(g.t.Context()); err != nil && g.fail == nil {
		g.t.Fatal(err)
	}
}

func (g *policyGate) last() activation {
	g.t.Helper()
	if len(g.entries) == 0 {
		g.t.Fatal("no entry was written")
	}
	return g.entries[len(g.entries)-1]
}

func policyVersion(t *testing.T, name string, v int) []byte {
	t.Helper()
	src, err := firmwareconfig.Samples.ReadFile("policies/" + name)
	if err != nil {
		t.Fatal(err)
	}
	return regexp.MustCompile(`(?m)^version: \d+`).ReplaceAll(src, fmt.Appendf(nil, "version: %d", v))
}

func sealed(t *testing.T, site string, src []byte, keys ...edge.Signer) []byte {
	t.Helper()
	b, err := bundle.Seal("c", site, 1, "p.yaml", src, keys...)
	if err != nil {
		t.Fatal(err)
	}
	return b
}

// A city that asks for its signature, and an estate beneath it: in force together
// or not at all, found again after a start, and archived for ever.
func TestLayersFromTheServer(t *testing.T) {
	g := newPolicyGate(t)
	ctx := t.Context()
	fromFiles := g.p.Hash()
	if a := g.last(); len(g.entries) != 1 || a.From != fromFile || a.Hash != fromFiles || len(a.Layers) != 1 {
		t.Errorf("the first start: %+v", g.entries)
	}
	g.start()
	if len(g.entries) != 1 {
		t.Errorf("a start that changes nothing: %+v", g.entries)
	}
	cityText := policyVersion(t, "city.yaml", 3) // it asks for its own signature
	city := sealed(t, bundle.Everywhere, cityText, cityKey)
	own := sealed(t, "s", policyVersion(t, "closed-estate.yaml", 7), communityKey, cityKey)
	if err := g.p.Apply(ctx, [][]byte{city, own}); err != nil {
		t.Fatal(err)
	}
	layered := g.p.Hash()
	if a := g.last(); a.From != fromServer || a.Before != fromFiles || a.Hash != layered || len(a.Layers) != 2 || a.Layers[0].Layer != "city" || len(a.Layers[1].Signers) != 2 {
		t.Errorf("activation: %+v", a)
	}
	if g.p.Current().Superior() == nil || g.p.Set() != wire.SetOf(wire.HashOf(city), wire.HashOf(own)) {
		t.Error("the city's layer is not in force")
	}
	n := len(g.entries)
	for name, c := range map[string]struct {
		bundles [][]byte
		want    error
		text    string
	}{
		"one signature where the city asks for its own": {[][]byte{city, sealed(t, "s", policyVersion(t, "closed-estate.yaml", 8), communityKey)}, bundle.ErrSignature, "city"},
		"the city's signature alone":                    {[][]byte{city, sealed(t, "s", policyVersion(t, "closed-estate.yaml", 8), cityKey)}, bundle.ErrSignature, ""},
		"a stranger's":                                  {[][]byte{city, sealed(t, "s", policyVersion(t, "closed-estate.yaml", 8), newPolicyKey("community", 9), cityKey)}, bundle.ErrSignature, ""},
		"an older version":                              {[][]byte{city, sealed(t, "s", policyVersion(t, "closed-estate.yaml", 6), communityKey, cityKey)}, bundle.ErrOlder, "7"},
		"an older version of the city's":                {[][]byte{sealed(t, bundle.Everywhere, policyVersion(t, "city.yaml", 2), cityKey), own}, bundle.ErrOlder, "3"},
		"another site's":                                {[][]byte{city, sealed(t, "elsewhere", policyVersion(t, "closed-estate.yaml", 8), communityKey, cityKey)}, bundle.ErrElsewhere, ""},
		"outside the city's bounds": {[][]byte{city, sealed(t, "s", bytes.Replace(policyVersion(t, "closed-estate.yaml", 8), []byte("threshold: 37.3"), []byte("threshold: 36.0"), 1), communityKey, cityKey)},
			nil, "city-3.yaml:"},
		"two of one layer": {[][]byte{own, own}, nil, "two bundles"},
		"no bundle":        {[][]byte{cityText}, bundle.ErrFormat, ""},
	} {
		err := g.p.Apply(ctx, c.bundles)
		if !errors.Is(err, downlink.ErrRefused) || c.want != nil && !errors.Is(err, c.want) || !strings.Contains(err.Error(), c.text) {
			t.Errorf("%s: %v", name, err)
		}
		n++
		if len(g.entries) != n || g.last().Refused == "" || g.last().Before != layered {
			t.Errorf("%s: the refusal's entry is %+v", name, g.last())
		}
		if g.p.Hash() != layered {
			t.Errorf("%s: what was in force is not any more", name)
		}
	}
	g.start()
	if g.p.Hash() != layered || g.p.Set() != wire.SetOf(wire.HashOf(city), wire.HashOf(own)) || len(g.entries) != n {
		t.Errorf("after a start %s is in force, entries %+v", g.p.Hash(), g.entries[n:])
	}
	for _, hash := range []string{fromFiles, layered} {
		if p, err := ArchivedPolicy(ctx, g.reg, hash); err != nil || p.Hash() != hash {
			t.Errorf("the archive's %s: %v", hash, err)
		}
	}
	if _, err := ArchivedPolicy(ctx, g.reg, "sha256:0000000000000000"); !errors.Is(err, edge.ErrUnknown) {
		t.Errorf("a policy that never was: %v", err)
	}
	if b, err := g.p.Bundle(ctx, wire.HashOf(own)); err != nil || !bytes.Equal(b, own) {
		t.Errorf("the archived bytes: %v", err)
	}
}

// The city's layer may stand in a file, and the estate's come from the server; or
// the reverse.
func TestLayersFromBoth(t *testing.T) {
	city, own := policyVersion(t, "city.yaml", 1), policyVersion(t, "closed-estate.yaml", 1)
	for _, fileIs := range []string{"city", "own"} {
		g := newPolicyGate(t)
		sent := sealed(t, "s", own, communityKey, cityKey)
		if fileIs == "city" {
			g.file("city.yaml", city)
			g.cfg.Superior = []string{filepath.Join(g.dir, "city.yaml")}
			g.start()
		} else {
			g.file("own.yaml", own)
			sent = sealed(t, bundle.Everywhere, city, cityKey)
			g.start()
		}
		if err := g.p.Apply(t.Context(), [][]byte{sent}); err != nil {
			t.Fatalf("%s in a file: %v", fileIs, err)
		}
		ls := g.p.Current().Layers()
		if len(ls) != 2 || ls[0].Layer != "city" || ls[1].ID != "closed-estate" {
			t.Errorf("%s in a file: %+v", fileIs, ls)
		}
		was := g.p.Hash()
		g.start()
		if g.p.Hash() != was {
			t.Errorf("%s in a file: after a start other rules are in force", fileIs)
		}
	}
}

func TestReloadFiles(t *testing.T) {
	g := newPolicyGate(t)
	was := g.p.Hash()
	g.file("own.yaml", append(policyVersion(t, "normal-times.yaml", 2), "nonsense: 1\n"...))
	if err := g.p.Reload(t.Context()); !errors.Is(err, downlink.ErrRefused) || g.p.Hash() != was || !strings.Contains(g.last().Refused, "nonsense") {
		t.Errorf("a broken file: %v, %+v", err, g.last())
	}
	g.file("own.yaml", policyVersion(t, "normal-times.yaml", 2))
	if err := g.p.Reload(t.Context()); err != nil || g.p.Hash() == was || g.last().Version != 2 {
		t.Errorf("a newer file: %v, %+v", err, g.last())
	}
	n := len(g.entries)
	if err := g.p.Reload(t.Context()); err != nil || len(g.entries) != n {
		t.Errorf("the same file: %v, %+v", err, g.entries[n:])
	}
}

// The power fails between the activation and its entry: the next start writes it.
func TestActivationIsAlwaysAnEntry(t *testing.T) {
	g := newPolicyGate(t)
	g.fail = errors.New("the power failed")
	if err := g.p.Apply(t.Context(), [][]byte{sealed(t, "s", policyVersion(t, "closed-estate.yaml", 1), communityKey)}); err == nil {
		t.Fatal("no error")
	}
	n := len(g.entries)
	g.fail = nil
	g.start()
	if g.p.Current().ID() != "closed-estate" || len(g.entries) != n+1 || g.last().Hash != g.p.Hash() || g.last().From != fromServer {
		t.Errorf("%s is in force, entries %+v", g.p.Current().ID(), g.entries[n:])
	}
}

// A bundle that this version of the program cannot load any more does not keep the
// gate from starting.
func TestBundleThatDoesNotLoad(t *testing.T) {
	g := newPolicyGate(t)
	was := g.p.Hash()
	raw := sealed(t, "s", policyVersion(t, "closed-estate.yaml", 1), communityKey)
	if err := g.p.Apply(t.Context(), [][]byte{raw}); err != nil {
		t.Fatal(err)
	}
	h, err := g.reg.StoreBundle(t.Context(), "", 2, sealed(t, "s", append(policyVersion(t, "closed-estate.yaml", 2), "gone: 1\n"...), communityKey))
	if err == nil {
		err = g.reg.Activate(t.Context(), []string{h}, false)
	}
	if err != nil {
		t.Fatal(err)
	}
	n := len(g.entries)
	g.start()
	if g.p.Hash() != was || g.p.Set() != "" || len(g.entries) != n+2 || !strings.Contains(g.entries[n].Refused, "gone") || g.last().Hash != was {
		t.Errorf("%s is in force, entries %+v", g.p.Hash(), g.entries[n:])
	}
}

func TestActivationJSON(t *testing.T) {
	b, err := json.Marshal(activation{Policy: "p", Hash: "h", Version: 1, From: fromServer, Layers: []layerEntry{{Layer: "city", Policy: "p", Version: 1, Bundle: "b", From: fromServer, Signers: []string{"city"}}}})
	if err != nil || string(b) != `{"policy":"p","hash":"h","version":1,"from":"server","layers":[{"layer":"city","policy":"p","version":1,"bundle":"b","from":"server","signers":["city"]}]}` {
		t.Errorf("%s, %v", b, err)
	}
}
