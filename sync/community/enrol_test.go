package community

import (
	"bytes"
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"encoding/pem"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"filippo.io/age"

	"gatehouse/sync/wire"
)

// newcomer is a device that asks.
type newcomer struct {
	*device
	id  *age.X25519Identity
	csr []byte
}

func newNewcomer(t *testing.T, gate string, seed byte) *newcomer {
	t.Helper()
	id, err := age.GenerateX25519Identity()
	if err != nil {
		t.Fatal(err)
	}
	k, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	csr, err := x509.CreateCertificateRequest(rand.Reader, &x509.CertificateRequest{}, k)
	if err != nil {
		t.Fatal(err)
	}
	return &newcomer{newDevice("estate", gate, 7, seed), id, csr}
}

func (n *newcomer) request(t *testing.T) *wire.Enrol {
	t.Helper()
	q := &wire.Enrol{Community: community, Site: n.site, Gate: n.gate, Age: n.id.Recipient().String(), CSR: n.csr}
	if err := q.Sign(n.key); err != nil {
		t.Fatal(err)
	}
	return q
}

func (n *newcomer) open(r io.Reader, limit int64) ([]byte, error) {
	p, err := age.Decrypt(r, n.id)
	if err != nil {
		return nil, err
	}
	return io.ReadAll(io.LimitReader(p, limit))
}

// ask asks on a topic and gives the server's answer.
func ask(t *testing.T, s *Server, b *bus, q *wire.Enrol) wire.EnrolMessage {
	t.Helper()
	payload, err := wire.Encode(wire.EnrolMessage{V: wire.Version, Request: q})
	if err != nil {
		t.Fatal(err)
	}
	if err := s.enrol(t.Context(), q.Site, q.Code(), payload); err != nil {
		t.Fatal(err)
	}
	var m wire.EnrolMessage
	if err := wire.Decode(b.take(t, wire.EnrolTopic(q.Site, q.Code())), &m); err != nil {
		t.Fatal(err)
	}
	return m
}

func TestEnrol(t *testing.T) { testEnrol(t, filepath.Join(t.TempDir(), "c.db")) }

func testEnrol(t *testing.T, where string) {
	ctx := context.Background()
	ca, err := OpenAuthority(t.TempDir(), community)
	if err != nil {
		t.Fatal(err)
	}
	enrolledWith := wire.ServerKey{ID: serverKey.Name(), Public: serverKey.Public()}
	s, err := Open(ctx, where, Config{Community: community, Signer: serverKey, Log: slog.New(slog.DiscardHandler), Enrolment: &Enrolment{Authority: ca, Trust: enrolledWith.Line() + "\n", Recipient: "age1x",
		Place:   func() (string, string, error) { return "mqtts://b:8883", "b:8883", nil },
		SiteKey: func(site string) (string, error) { return "1 " + site + "\n", nil }}})
	if err != nil {
		t.Fatal(err)
	}
	defer s.Close()
	b := newBus()
	s.t = b
	trust := []wire.ServerKey{{ID: serverKey.Name(), Public: serverKey.Public(), Uses: []wire.Use{wire.UseRegistry}}}
	given := func(n *newcomer, q *wire.Enrol, m wire.EnrolMessage) *x509.Certificate {
		t.Helper()
		a, err := wire.OpenApproval(m.Sealed, q, n.open, wire.Trust{Keys: trust})
		if err != nil {
			t.Fatalf("%v (%s)", err, m.Says)
		}
		if a.Nonce != q.Nonce || a.URL != "mqtts://b:8883" || a.SiteKey != "1 estate\n" || time.Since(time.UnixMilli(a.Time)) > time.Minute {
			t.Errorf("%+v", a)
		}
		p, _ := pem.Decode([]byte(a.Cert))
		c, err := x509.ParseCertificate(p.Bytes)
		if err != nil {
			t.Fatal(err)
		}
		if _, err := c.Verify(x509.VerifyOptions{Roots: ca.Pool(), KeyUsages: []x509.ExtKeyUsage{x509.ExtKeyUsageClientAuth}}); err != nil {
			t.Error(err)
		}
		if c.Subject.CommonName != n.site+"/"+n.gate || !bytes.Equal(deviceOf(c), n.key.Public()) {
			t.Errorf("a certificate of %s", c.Subject)
		}
		return c
	}

	first := newNewcomer(t, "east", 21)
	if m := ask(t, s, b, first.request(t)); len(m.Sealed) > 0 || m.Says != "waiting for approval" {
		t.Fatalf("nobody has approved it: %+v", m)
	}
	ask(t, s, b, first.request(t))
	if all, err := s.Asking(ctx); err != nil || len(all) != 1 {
		t.Fatalf("asked twice: %v %v", all, err)
	}
	a, err := s.AskingBy(ctx, first.request(t).Code())
	if err != nil {
		t.Fatal(err)
	}
	for name, err := range map[string]error{
		"another gate":          s.ApproveEnrol(ctx, "estate", "west", a.Request, false, "test"),
		"nobody to be replaced": s.ApproveEnrol(ctx, "estate", "east", a.Request, true, "test"),
	} {
		if err == nil {
			t.Errorf("%s: approved", name)
		}
	}
	if err := s.ApproveEnrol(ctx, "estate", "east", a.Request, false, "test"); err != nil {
		t.Fatal(err)
	}
	if _, err := s.AskingBy(ctx, a.Code); err == nil {
		t.Error("a code can be approved twice")
	}
	q := first.request(t)
	c1 := given(first, q, ask(t, s, b, q))
	if r := s.RightsOf(ctx, c1, ""); r == nil || !strings.HasPrefix(r.Write[0], "gatehouse/v1/estate/east/") {
		t.Errorf("rights %+v", r)
	}
	// The same key asking for more than it has: as another gate, to another reader.
	west := *first
	west.device = newDevice("estate", "west", 7, 21)
	if m := ask(t, s, b, west.request(t)); len(m.Sealed) > 0 {
		t.Error("a gate's key made another gate")
	}
	thief := *first
	if thief.id, err = age.GenerateX25519Identity(); err != nil {
		t.Fatal(err)
	}
	if _, err := s.ApprovalFor(ctx, thief.request(t)); err == nil {
		t.Error("the site's key went to another recipient")
	}

	second := newNewcomer(t, "east", 22)
	q = second.request(t)
	ask(t, s, b, q)
	if err := s.ApproveEnrol(ctx, "estate", "east", q, false, "test"); err == nil || !strings.Contains(err.Error(), "replace") {
		t.Errorf("two devices in one place: %v", err)
	}
	if err := s.ApproveEnrol(ctx, "estate", "east", q, true, "test"); err != nil {
		t.Fatal(err)
	}
	c2 := given(second, q, ask(t, s, b, q))
	if m := ask(t, s, b, first.request(t)); len(m.Sealed) > 0 || !strings.Contains(m.Says, "revoked") {
		t.Errorf("the replaced device is told %+v", m)
	}
	if err := s.ApproveEnrol(ctx, "estate", "east", first.request(t), true, "test"); !errors.Is(err, errRevoked) {
		t.Errorf("a revoked key came back: %v", err)
	}
	if s.RightsOf(ctx, c1, "") != nil || s.RightsOf(ctx, c2, "") == nil {
		t.Error("the broker's rights do not follow")
	}
	text, err := s.Revocations(ctx)
	if err != nil {
		t.Fatal(err)
	}
	p, _ := pem.Decode(text)
	crl, err := x509.ParseRevocationList(p.Bytes)
	if err != nil || len(crl.RevokedCertificateEntries) != 1 || crl.RevokedCertificateEntries[0].SerialNumber.Cmp(c1.SerialNumber) != 0 {
		t.Errorf("revoked: %+v, %v", crl, err)
	}

	// Whoever floods the topic does not fill the database.
	q = newNewcomer(t, "flood", 23).request(t)
	for i := range maxAsking {
		if err := s.store.addAsking(ctx, &wire.Enrol{Site: "estate", Gate: "flood", Public: fmt.Appendf(nil, "%032d", i)}, time.Now().UnixMilli()); err != nil && i < maxAsking-1 {
			t.Fatal(i, err)
		}
	}
	if err := s.store.addAsking(ctx, q, time.Now().UnixMilli()); err == nil {
		t.Error("no end of devices that wait")
	}
	if err := s.store.addAsking(ctx, q, time.Now().Add(askingFor+time.Minute).UnixMilli()); err != nil {
		t.Errorf("those of yesterday are still in the way: %v", err)
	}
}
