package community

import (
	"context"
	"fmt"
	"path/filepath"
	"regexp"
	"strings"
	"testing"

	"gatehouse/edge"
	"gatehouse/edge/bundle"
	firmwareconfig "gatehouse/firmware-config"
	"gatehouse/sync/wire"
)

func sample(t *testing.T, name string, version int) []byte {
	t.Helper()
	src, err := firmwareconfig.Samples.ReadFile("policies/" + name)
	if err != nil {
		t.Fatal(err)
	}
	re := regexp.MustCompile(`(?m)^version: \d+`)
	if !re.Match(src) {
		t.Fatal("the sample has no version")
	}
	return re.ReplaceAll(src, fmt.Appendf(nil, "version: %d", version))
}

func TestPolicies(t *testing.T) {
	s, b, _ := start(t, filepath.Join(t.TempDir(), "c.db"))
	ctx := context.Background()
	d := newDevice("estate", "east", 7, 1)
	register(t, s, d, "")
	at := func(v int) []byte { return sample(t, "normal-times.yaml", v) }
	if err := s.PublishPolicy(ctx, "estate", "p.yaml", at(3)); err != nil {
		t.Fatal(err)
	}
	// The authority's key, which this server does not have.
	authority := newKey("authority", 50)
	if err := s.PublishPolicy(ctx, "estate", "p.yaml", at(3)); err == nil {
		t.Error("the same version was published twice")
	}
	if err := s.PublishPolicy(ctx, "estate", "p.yaml", append(at(4), "nonsense: 1\n"...)); err == nil {
		t.Error("a policy no gate would load was published")
	}
	if _, err := SignPolicy(s.cfg.Community, "estate", "p.yaml", append(at(4), "nonsense: 1\n"...), authority); err == nil {
		t.Error("a policy no gate would load was signed")
	}
	signed, err := SignPolicy(s.cfg.Community, "estate", "p.yaml", at(5), authority)
	if err != nil {
		t.Fatal(err)
	}
	if err := s.PublishSigned(ctx, "other", "p.yaml", signed); err == nil {
		t.Error("a policy was published at another site than it was signed for")
	}
	if err := s.PublishSigned(ctx, "estate", "p.yaml", at(6)); err == nil {
		t.Error("what nobody signed was published")
	}
	if err := s.PublishSigned(ctx, "estate", "p.yaml", signed); err != nil {
		t.Fatal(err)
	}
	m := d.ask(t, b, wire.Request{Nonce: "a"})
	if len(m.Policies) != 1 || m.Policies[0].Version != 5 || m.Policies[0].Hash != wire.HashOf(signed) {
		t.Fatalf("%+v", m.Policies)
	}
	set := wire.SetOf(m.Policies[0].Hash)
	d.ask(t, b, wire.Request{Nonce: "b", Policy: set, Want: []string{m.Policies[0].Hash}})
	payload := b.take(t, wire.PolicyTopic("estate", m.Policies[0].Hash))
	v, err := edge.HeadVerifier("authority", authority.Public())
	if err != nil {
		t.Fatal(err)
	}
	trust := bundle.Trust{Community: s.cfg.Community, Site: "estate", Keys: []bundle.Key{{Verifier: v}}}
	if got, err := bundle.Open(payload, trust, func(string) int64 { return 5 }); err != nil || string(got.Policy) != string(at(5)) {
		t.Fatal(err)
	}
	if m := d.ask(t, b, wire.Request{Nonce: "c", Policy: set}); len(m.Policies) != 0 {
		t.Error("a gate that has the policy is told to fetch it again")
	}
}

// A city's layer and the estate's beneath it are in force together; where the
// city asks for its signature, the estate's policy is not published without it.
func TestPolicyLayers(t *testing.T) {
	s, b, _ := start(t, filepath.Join(t.TempDir(), "c.db"))
	ctx := context.Background()
	d := newDevice("estate", "east", 7, 1)
	register(t, s, d, "")
	city := sample(t, "city.yaml", 1) // it asks for its own signature
	if !strings.Contains(string(city), "\nlayer: city\n") {
		t.Fatal("the sample of the city is of another layer")
	}
	own := func(v int) []byte { return sample(t, "closed-estate.yaml", v) }
	authority := newKey("city", 51)
	both := func(src []byte) []byte {
		raw, err := bundle.Seal(s.cfg.Community, bundle.Everywhere, 1, "p.yaml", src, s.cfg.Signer)
		if err != nil {
			t.Fatal(err)
		}
		if raw, err = bundle.Countersign(raw, authority); err != nil {
			t.Fatal(err)
		}
		return raw
	}
	// The estate's first, as it may come: it is below the city's all the same.
	if err := s.PublishPolicy(ctx, "estate", "own.yaml", own(1)); err != nil {
		t.Fatal(err)
	}
	if err := s.PublishPolicy(ctx, "estate", "city.yaml", city); err == nil || !strings.Contains(err.Error(), "asks for its own signature") {
		t.Fatalf("the city's came above a policy that it did not sign: %v", err)
	}
	if err := s.PublishSigned(ctx, "estate", "own.yaml", both(own(2))); err != nil {
		t.Fatal(err)
	}
	if err := s.PublishSigned(ctx, "estate", "city.yaml", both(city)); err != nil {
		t.Fatal(err)
	}
	if err := s.PublishPolicy(ctx, "estate", "own.yaml", own(3)); err == nil {
		t.Error("the estate's policy was published without the city's signature")
	}
	wide := strings.Replace(string(own(3)), "threshold: 37.3", "threshold: 36.0", 1)
	if wide == string(own(3)) {
		t.Fatal("the sample has another threshold")
	}
	if err := s.PublishSigned(ctx, "estate", "own.yaml", both([]byte(wide))); err == nil || !strings.Contains(err.Error(), "city.yaml") {
		t.Errorf("outside the city's bounds: %v", err)
	}
	if err := s.PublishSigned(ctx, "estate", "own.yaml", both(own(3))); err != nil {
		t.Fatal(err)
	}
	m := d.ask(t, b, wire.Request{Nonce: "a"})
	if len(m.Policies) != 2 || m.Policies[0].Layer != "city" || m.Policies[1].Layer != "" || m.Policies[1].Version != 3 {
		t.Fatalf("%+v", m.Policies)
	}
	if ps, err := s.Policies(ctx, "estate"); err != nil || len(ps) != 2 {
		t.Errorf("%+v, %v", ps, err)
	}
}
