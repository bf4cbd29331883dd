package wire_test

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"errors"
	"io"
	"strings"
	"testing"

	"filippo.io/age"

	"gatehouse/sync/wire"
	"gatehouse/sync/wire/wiretest"
)

func asking(t testing.TB) (wire.Enrol, *age.X25519Identity) {
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
	q := wire.Enrol{Community: "pine", Site: "north", Gate: "east", Age: id.Recipient().String(), CSR: csr}
	if err := q.Sign(device); err != nil {
		t.Fatal(err)
	}
	return q, id
}

func opener(id age.Identity) func(io.Reader, int64) ([]byte, error) {
	return func(r io.Reader, limit int64) ([]byte, error) {
		p, err := age.Decrypt(r, id)
		if err != nil {
			return nil, err
		}
		return io.ReadAll(io.LimitReader(p, limit))
	}
}

// The code and the pin are what people compare: equal for ever.
func TestCodesAndPins(t *testing.T) {
	if c := wire.CodeOf(device.Public(), "age1x"); wire.ShowCode(c) != "8NNR-8DG2-ANEQ" {
		t.Errorf("code %s", wire.ShowCode(c))
	}
	if p := wire.PinOf(server.Public()); wire.ShowCode(p) != "MA6D-6J9Y-J64F-D9HG-N5Z0-XWMH" {
		t.Errorf("pin %s", wire.ShowCode(p))
	}
	for in, want := range map[string]string{"K7QF-2M9X-3HTR": "K7QF2M9X3HTR", "k7qf 2m9x 3htr": "K7QF2M9X3HTR", "KOQF-2M9X-3HLI": "K0QF2M9X3H11", "K7QF-2M9X": "", "K7QF-2M9X-3HT*": "", "": ""} {
		got, err := wire.ParseCode(in)
		if got != want || (err == nil) != (want != "") {
			t.Errorf("%q: %q, %v", in, got, err)
		}
	}
}

func TestInvitations(t *testing.T) {
	pin := wire.PinOf(server.Public())
	for _, server := range []string{"broker.example:8883", "192.0.2.7:8884", "[2001:db8::7]:8883", ""} {
		want := wire.Invitation{Server: server, Community: "pine.example", Site: "north", Pin: wire.ShowCode(pin)}
		got, err := wire.ParseInvitation(" " + want.String() + "\n")
		want.Pin = pin
		if err != nil || got != want {
			t.Errorf("%+v, %v; want %+v", got, err, want)
		}
	}
	for _, bad := range []string{"", "https://x/pine/north?pin=" + pin, "gatehouse://x:1/pine?pin=" + pin, "gatehouse://x:1/pine/north", "gatehouse://x/pine/north?pin=" + pin,
		"gatehouse://x:1/pine/no+rth?pin=" + pin, "gatehouse://x:1/pine/north?pin=" + pin[1:], "gatehouse://x:1/pine/north/more?pin=" + pin} {
		if i, err := wire.ParseInvitation(bad); !errors.Is(err, wire.ErrMalformed) {
			t.Errorf("%q: %+v, %v", bad, i, err)
		}
	}
}

// Whatever is changed in a request, its signature says so.
func TestRequestsAreSigned(t *testing.T) {
	good, _ := asking(t)
	if err := good.Verify(); err != nil {
		t.Fatal(err)
	}
	schemas, err := wiretest.New()
	if err != nil {
		t.Fatal(err)
	}
	payload, err := wire.Encode(wire.EnrolMessage{V: wire.Version, Request: &good})
	if err != nil {
		t.Fatal(err)
	}
	if err := schemas.Payload(wire.EnrolTopic("north", good.Code()), payload); err != nil {
		t.Error(err)
	}
	other, _ := asking(t)
	for name, change := range map[string]func(q *wire.Enrol){
		"community": func(q *wire.Enrol) { q.Community = "oak" }, "site": func(q *wire.Enrol) { q.Site = "south" }, "gate": func(q *wire.Enrol) { q.Gate = "west" },
		"key": func(q *wire.Enrol) { q.Public = server.Public() }, "age": func(q *wire.Enrol) { q.Age = other.Age }, "csr": func(q *wire.Enrol) { q.CSR = other.CSR },
		"nonce": func(q *wire.Enrol) { q.Nonce += "x" }, "version": func(q *wire.Enrol) { q.V++ }, "no csr": func(q *wire.Enrol) { q.CSR = nil },
		"a name that topics give another meaning": func(q *wire.Enrol) { q.Gate = "registry"; _ = q.Sign(device) },
		"moved bytes": func(q *wire.Enrol) { q.Site, q.Gate = q.Site+q.Gate[:1], q.Gate[1:] },
	} {
		q := good
		change(&q)
		if err := q.Verify(); !errors.Is(err, wire.ErrMalformed) {
			t.Errorf("%s: %v", name, err)
		}
	}
}

// An approval is for one device, for what it asked, by a key it believes.
func TestApprovals(t *testing.T) {
	q, id := asking(t)
	sealed, err := wire.SealApproval(wire.Approval{URL: "mqtts://b:8883", Server: "b:8883", CA: "ca", Cert: "cert", Trust: "key\n", SiteKey: "1 00\n", Recipient: "age1x"}, &q, when.UnixMilli(), server)
	if err != nil {
		t.Fatal(err)
	}
	known := func(k key, use wire.Use) []wire.ServerKey {
		return []wire.ServerKey{{ID: server.name, Public: k.Public(), Uses: []wire.Use{use}}}
	}
	a, err := wire.OpenApproval(sealed, &q, opener(id), wire.Trust{Keys: known(server, wire.UseRegistry)})
	if err != nil || a.Nonce != q.Nonce || a.Time != when.UnixMilli() || a.Community != "pine" || a.URL != "mqtts://b:8883" {
		t.Fatalf("%+v, %v", a, err)
	}
	_, stranger := asking(t)
	moved := q
	moved.Gate = "west"
	elsewhere := q
	elsewhere.Community = "oak"
	for name, open := range map[string]func() error{
		"another device": func() error {
			_, err := wire.OpenApproval(sealed, &q, opener(stranger), wire.Trust{Keys: known(server, wire.UseRegistry)})
			return err
		},
		"another server": func() error {
			_, err := wire.OpenApproval(sealed, &q, opener(id), wire.Trust{Keys: known(device, wire.UseRegistry)})
			return err
		},
		"a key for something else": func() error {
			_, err := wire.OpenApproval(sealed, &q, opener(id), wire.Trust{Keys: known(server, wire.UsePolicy)})
			return err
		},
		"another gate": func() error {
			_, err := wire.OpenApproval(sealed, &moved, opener(id), wire.Trust{Keys: known(server, wire.UseRegistry)})
			return err
		},
		"another community": func() error {
			_, err := wire.OpenApproval(sealed, &elsewhere, opener(id), wire.Trust{Keys: known(server, wire.UseRegistry)})
			return err
		},
		"cut off": func() error {
			_, err := wire.OpenApproval(sealed[:len(sealed)-20], &q, opener(id), wire.Trust{Keys: known(server, wire.UseRegistry)})
			return err
		},
	} {
		if open() == nil {
			t.Errorf("%s: the approval was taken", name)
		}
	}
}

func FuzzEnrol(f *testing.F) {
	q, id := asking(f)
	payload, err := wire.Encode(wire.EnrolMessage{V: wire.Version, Request: &q})
	if err != nil {
		f.Fatal(err)
	}
	f.Add(payload, "gatehouse://b:8883/pine/north?pin="+wire.PinOf(server.Public()), "K7QF-2M9X-3HTR")
	f.Add([]byte(`{"v":1,"sealed":"YWdl"}`), "gatehouse:///a/b?pin=", strings.Repeat("O", 12))
	f.Fuzz(func(t *testing.T, payload []byte, invitation, code string) {
		var m wire.EnrolMessage
		if wire.Decode(payload, &m) == nil && m.Request != nil {
			if m.Request.Verify() == nil && m.Request.Code() != wire.CodeOf(m.Request.Public, m.Request.Age) {
				t.Error("a verified request without its code")
			}
		}
		if len(m.Sealed) > 0 {
			_, _ = wire.OpenApproval(m.Sealed, &q, opener(id), wire.Trust{})
		}
		if i, err := wire.ParseInvitation(invitation); err == nil {
			if j, err := wire.ParseInvitation(i.String()); err != nil || j != i {
				t.Errorf("%+v became %+v, %v", i, j, err)
			}
		}
		if c, err := wire.ParseCode(code); err == nil {
			if d, err := wire.ParseCode(wire.ShowCode(c)); err != nil || d != c {
				t.Errorf("%q became %q, %v", c, d, err)
			}
		}
	})
}
