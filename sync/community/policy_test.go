package community

import (
	"bytes"
	"context"
	"fmt"
	"path/filepath"
	"regexp"
	"testing"

	firmwareconfig "gatehouse/firmware-config"
	"gatehouse/sync/wire"
)

func TestPolicies(t *testing.T) {
	s, b, _ := start(t, filepath.Join(t.TempDir(), "c.db"))
	ctx := context.Background()
	d := newDevice("estate", "east", 7, 1)
	register(t, s, d, "")
	src, err := firmwareconfig.Samples.ReadFile("policies/normal-times.yaml")
	if err != nil {
		t.Fatal(err)
	}
	version := regexp.MustCompile(`(?m)^version: \d+`)
	at := func(v int) []byte { return version.ReplaceAll(src, fmt.Appendf(nil, "version: %d", v)) }
	if !version.Match(src) {
		t.Fatal("the sample has no version")
	}
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
	signed, err := SignPolicy("estate", "p.yaml", at(5), authority)
	if err != nil {
		t.Fatal(err)
	}
	if err := s.PublishSigned(ctx, "other", "p.yaml", signed); err == nil {
		t.Error("a policy was published at another site than it was signed for")
	}
	if err := s.PublishSigned(ctx, "estate", "p.yaml", signed); err != nil {
		t.Fatal(err)
	}
	m := d.ask(t, b, wire.Request{Nonce: "a"})
	if len(m.Policies) != 1 || m.Policies[0].Version != 5 || m.Policies[0].Hash != wire.HashOf(signed) {
		t.Fatalf("%+v", m.Policies)
	}
	d.ask(t, b, wire.Request{Nonce: "b", Policy: m.Policies[0].Policy, Want: []string{m.Policies[0].Hash}})
	payload := b.take(t, wire.PolicyTopic("estate", m.Policies[0].Hash))
	e, err := wire.OpenEnvelope(payload, wire.TypePolicy, "estate", "east", wire.UsePolicy,
		[]wire.ServerKey{{ID: "authority", Public: authority.Public(), Uses: []wire.Use{wire.UsePolicy}}})
	if err != nil || !bytes.Equal(e.Body, at(5)) {
		t.Fatal(err)
	}
	if m := d.ask(t, b, wire.Request{Nonce: "c", Policy: m.Policies[0].Policy}); len(m.Policies) != 0 {
		t.Error("a gate that has the policy is told to fetch it again")
	}
}
