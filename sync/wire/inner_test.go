package wire_test

import (
	"bytes"
	"crypto/ed25519"
	"crypto/sha256"
	"crypto/x509"
	"encoding/binary"
	"encoding/json"
	"errors"
	"fmt"
	"testing"

	"filippo.io/age"

	"gatehouse/edge"
	"gatehouse/sync/wire"
	"gatehouse/sync/wire/wiretest"
)

// recipient is a device's that nobody has: what is in a golden file is never opened.
const recipient = "age1rr68lhrpf3ckpq555qssqf8s4za8xc62mmwpv3nwukwqmrmzaslsn20rey"

// enrolment is a device's request that is the same each time. It is signed here as the
// AsyncAPI document says it, and not by the code that is tested.
func enrolment(t testing.TB) *wire.Enrol {
	t.Helper()
	csr, err := x509.CreateCertificateRequest(nil, &x509.CertificateRequest{}, newKey("tls", 3).priv)
	if err != nil {
		t.Fatal(err)
	}
	q := &wire.Enrol{V: wire.Version, Community: "pine", Site: "north", Gate: "east", Public: device.Public(), Age: recipient, CSR: csr, Nonce: "AAAAAAAAAAAAAAAAAAAAAAAAAA"}
	text := []byte("gatehouse/v1 enrol\n")
	for _, f := range []string{q.Community, q.Site, q.Gate, string(q.Public), q.Age, string(q.CSR), q.Nonce} {
		text = append(binary.BigEndian.AppendUint64(text, uint64(len(f))), f...)
	}
	q.Sig = ed25519.Sign(device.priv, text)
	return q
}

// inner is what stands encrypted within a message: in clear, so that it is the same
// each time.
type inner struct {
	file    string
	schemas []string // of its lines: the last is that of all that follow
	payload []byte
	read    func(plain []byte) error
}

func lines(t testing.TB, vs ...any) (out []byte) {
	t.Helper()
	for _, v := range vs {
		out = append(append(out, encode(t, v)...), '\n')
	}
	return out
}

// inners is one of every kind.
func inners(t testing.TB) []inner {
	t.Helper()
	root := newKey("root.example", 4)
	list, err := wire.SignTrust(wire.Trust{V: wire.Version, Number: 1, Keys: []wire.ServerKey{{ID: server.name, Public: server.Public(), Uses: wire.AllUses()}}}, when.UnixMilli(), root)
	if err != nil {
		t.Fatal(err)
	}
	approval := wire.Approval{V: wire.Version, Nonce: enrolment(t).Nonce, Time: when.UnixMilli(), Community: "pine", URL: "mqtts://broker.example:8883", Server: "broker.example:8883",
		CA: "-----BEGIN CERTIFICATE-----\n-----END CERTIFICATE-----\n", Cert: "-----BEGIN CERTIFICATE-----\n-----END CERTIFICATE-----\n", Trust: "community.example+00000000+AA\n",
		SiteKey: fmt.Sprintf("1 %x\n", sha256.Sum256(nil)), Recipient: recipient, Lists: [][]byte{list}}
	rows := []wire.Row{
		{Pass: edge.Pass{ID: 7, Household: 3, Category: "resident", Status: edge.PassActive, Name: "王*明", Building: "2", Unit: "101", From: when.UnixMilli()},
			Household: edge.Household{ID: 3, Area: "main", Building: "2", Unit: "101", Members: 3}, Credentials: []edge.Credential{"em:3C00CE754C", "w26:206/30028"}},
		{Pass: edge.Pass{ID: 8, Category: "worker", Status: edge.PassSuspended, Reason: "a <word> & another"}},
	}
	back := wire.Row{Pass: edge.Pass{ID: 8, Category: "worker", Status: edge.PassActive}}
	head := wire.DeltaHead{V: wire.Version, From: 3, To: 4, Gone: []edge.PassID{7}}
	readRows := func(plain []byte, want []wire.Row) error {
		var got []byte
		n := 0
		for line := range bytes.Lines(plain) {
			var r wire.Row
			if err := json.Unmarshal(line, &r); err != nil {
				return err
			}
			if n++; n <= len(want) && (r.Pass.ID != want[n-1].Pass.ID || r.Household != want[n-1].Household || len(r.Credentials) != len(want[n-1].Credentials)) {
				return fmt.Errorf("row %d is %+v", n, r)
			}
			got = append(append(got, encode(t, r)...), '\n')
		}
		if n != len(want) || !bytes.Equal(got, plain) {
			return fmt.Errorf("%d rows, again as\n%s", n, got)
		}
		return nil
	}
	return []inner{
		{"approval", []string{"envelope"}, envelope(t, wire.TypeApproval, approval), func(plain []byte) error { return readApproval(t, plain, approval) }},
		{"chunk", []string{"row"}, lines(t, rows[0], rows[1]), func(plain []byte) error { return readRows(plain, rows) }},
		{"registry-delta", []string{"step", "row"}, lines(t, head, back), func(plain []byte) error {
			first, rest, _ := bytes.Cut(plain, []byte{'\n'})
			var h wire.DeltaHead
			if err := wire.Decode(first, &h); err != nil {
				return err
			}
			if h.V != wire.Version || h.From != 3 || h.To != 4 || len(h.Gone) != 1 || h.Gone[0] != 7 {
				return fmt.Errorf("the head is %+v", h)
			}
			return readRows(rest, []wire.Row{back})
		}},
	}
}

// readApproval opens an approval as the device does that it was encrypted to.
func readApproval(t testing.TB, plain []byte, want wire.Approval) error {
	q, id := asking(t)
	var sealed bytes.Buffer
	w, err := age.Encrypt(&sealed, id.Recipient())
	if err != nil {
		return err
	}
	_, err = w.Write(plain)
	if err = errors.Join(err, w.Close()); err != nil {
		return err
	}
	known := []wire.ServerKey{{ID: server.name, Public: server.Public(), Uses: []wire.Use{wire.UseRegistry}}}
	a, err := wire.OpenApproval(sealed.Bytes(), &q, opener(id), wire.Trust{Keys: known})
	if err != nil {
		return err
	}
	if got := encode(t, a); !bytes.Equal(got, encode(t, want)) {
		return fmt.Errorf("the approval is %s", got)
	}
	return nil
}

// What is encrypted within messages has golden files, too.
func TestGoldenInners(t *testing.T) {
	schemas, err := wiretest.New()
	if err != nil {
		t.Fatal(err)
	}
	for _, m := range inners(t) {
		want := golden(t, m.file, m.payload)
		if !bytes.Equal(want, m.payload) {
			t.Errorf("%s is\n%s\nwant\n%s", m.file, m.payload, want)
		}
		i := 0
		for line := range bytes.Lines(want) {
			if err := schemas.Check(m.schemas[min(i, len(m.schemas)-1)], bytes.TrimSuffix(line, []byte{'\n'})); err != nil {
				t.Errorf("%s, line %d: %v", m.file, i+1, err)
			}
			i++
		}
		if m.file == "approval" {
			var e wire.Envelope
			if err := json.Unmarshal(want, &e); err != nil {
				t.Fatal(err)
			}
			if err := schemas.Check("approval", e.Body); err != nil {
				t.Error(err)
			}
		}
		if err := m.read(want); err != nil {
			t.Errorf("%s: %v", m.file, err)
		}
	}
	// The schemas are not such that everything is right by them.
	for schema, bad := range map[string]string{"step": `{"v":1,"from":3}`, "row": `{"pass":{"id":0,"category":"x","status":"active"}}`, "approval": `{"v":1}`} {
		if err := schemas.Check(schema, []byte(bad)); err == nil {
			t.Errorf("%s takes %s", schema, bad)
		}
	}
}
