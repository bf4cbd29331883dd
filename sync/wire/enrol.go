package wire

import (
	"bytes"
	"crypto/ed25519"
	"crypto/rand"
	"crypto/sha256"
	"encoding/base32"
	"encoding/base64"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"net"
	"net/url"
	"strings"

	"filippo.io/age"

	"gatehouse/edge"
)

// Enrolment: a device that the community server does not know yet, or whose
// certificate has ended, asks on a topic that only its code opens. The code is
// made of the device's public keys, so whoever approves a code approves these
// keys and no others; the answer is signed by the server, whose key the device
// knows by its pin, and encrypted to the device. So neither way rests on the
// broker, and no secret is made for the occasion.

// TypeApproval is the type of the envelope within an answer.
const TypeApproval = "approval"

// EnrolTopic is where the device with this code and the server speak.
func EnrolTopic(site, code string) string { return prefix + site + "/enrol/" + code }

// crockford is an alphabet without I, L, O and U, for people who read aloud.
var crockford = base32.NewEncoding("0123456789ABCDEFGHJKMNPQRSTVWXYZ").WithPadding(base32.NoPadding)

const (
	codeLen = 12 // characters: 60 bits
	pinLen  = 24 // characters: 120 bits
)

// CodeOf is the code of the device with these public keys.
func CodeOf(public []byte, recipient string) string {
	h := sha256.Sum256(fmt.Appendf(nil, "gatehouse/v1 code\n%s\n%s", base64.StdEncoding.EncodeToString(public), recipient))
	return crockford.EncodeToString(h[:])[:codeLen]
}

// PinOf is how a person carries a server's public key to a gate.
func PinOf(public []byte) string {
	h := sha256.Sum256(append([]byte("gatehouse/v1 pin\n"), public...))
	return crockford.EncodeToString(h[:])[:pinLen]
}

// ShowCode groups a code or pin for reading.
func ShowCode(code string) string {
	var b strings.Builder
	for i, r := range code {
		if i > 0 && i%4 == 0 {
			b.WriteByte('-')
		}
		b.WriteRune(r)
	}
	return b.String()
}

// ParseCode reads a code or a pin as people type them.
func ParseCode(s string) (string, error) { return parseGroups(s, codeLen, "code") }

func parseGroups(s string, n int, what string) (string, error) {
	c := strings.NewReplacer("-", "", " ", "", "O", "0", "I", "1", "L", "1").Replace(strings.ToUpper(s))
	if len(c) != n || strings.Trim(c, "0123456789ABCDEFGHJKMNPQRSTVWXYZ") != "" {
		return "", fmt.Errorf("%.100q is not a %s of %d letters and digits", s, what, n)
	}
	return c, nil
}

// Invitation is what a device must know to ask: one line for a person to carry.
type Invitation struct {
	Server    string // host:port of the enrolment listener; empty = by files only
	Community string
	Site      string
	Pin       string // of the server's key
}

// String is gatehouse://host:port/community/site?pin=...
func (i Invitation) String() string {
	u := url.URL{Scheme: "gatehouse", Host: i.Server, Path: "/" + i.Community + "/" + i.Site, RawQuery: "pin=" + i.Pin}
	return u.String()
}

// ParseInvitation reads what String made.
func ParseInvitation(s string) (Invitation, error) {
	bad := func(why string) (Invitation, error) {
		return Invitation{}, fmt.Errorf("%w: %.200q is not an invitation (communityd invite prints one): %s", ErrMalformed, s, why)
	}
	u, err := url.Parse(strings.TrimSpace(s))
	if err != nil || u.Scheme != "gatehouse" {
		return bad("it does not begin with gatehouse://")
	}
	community, site, ok := strings.Cut(strings.TrimPrefix(u.Path, "/"), "/")
	if err := errors.Join(CheckName(community), CheckName(site)); !ok || err != nil {
		return bad("no community and site in it")
	}
	pin, err := parseGroups(u.Query().Get("pin"), pinLen, "pin")
	if err != nil {
		return bad(err.Error())
	}
	if u.Host != "" {
		if _, _, err := net.SplitHostPort(u.Host); err != nil {
			return bad("no host:port in it")
		}
	}
	return Invitation{Server: u.Host, Community: community, Site: site, Pin: pin}, nil
}

// Enrol is a device's request.
type Enrol struct {
	V         int    `json:"v"`
	Community string `json:"community"`
	Site      string `json:"site"`
	Gate      string `json:"gate"`   // that it is, or wants to be
	Public    []byte `json:"public"` // Ed25519: what it will sign its journal with
	Age       string `json:"age"`    // recipient for what only it may read
	CSR       []byte `json:"csr"`    // PKCS #10, DER, for the key of its TLS connections
	Nonce     string `json:"nonce"`
	Sig       []byte `json:"sig"`
}

func (q *Enrol) signed() []byte {
	b := []byte("gatehouse/v1 enrol\n")
	for _, f := range [][]byte{[]byte(q.Community), []byte(q.Site), []byte(q.Gate), q.Public, []byte(q.Age), q.CSR, []byte(q.Nonce)} {
		b = binary.BigEndian.AppendUint64(b, uint64(len(f)))
		b = append(b, f...)
	}
	return b
}

// Code is the code of the device that asks.
func (q *Enrol) Code() string { return CodeOf(q.Public, q.Age) }

// Sign completes a request with a fresh nonce.
func (q *Enrol) Sign(s edge.Signer) (err error) {
	q.V, q.Public, q.Nonce = Version, s.Public(), rand.Text()
	if q.Sig, err = s.Sign(q.signed()); err != nil {
		return fmt.Errorf("cannot sign the request: %w", err)
	}
	return nil
}

// EnrolMessage is what goes over an enrolment's topic, either way.
type EnrolMessage struct {
	V       int    `json:"v"`
	Request *Enrol `json:"request,omitempty"` // device
	Sealed  []byte `json:"sealed,omitempty"`  // server: an envelope with an Approval, encrypted (age, binary) to the device
	// Says is for the person at the device: waiting, refused. It proves nothing.
	Says string `json:"says,omitempty"`
}

// Verify checks a request: complete, and signed by the key it names.
func (q *Enrol) Verify() error {
	if err := errors.Join(CheckName(q.Community), CheckName(q.Site), CheckGate(q.Gate)); err != nil {
		return err
	}
	_, err := age.ParseX25519Recipient(q.Age)
	if q.V != Version || len(q.Public) != ed25519.PublicKeySize || err != nil || len(q.CSR) == 0 || len(q.CSR) > 4096 || len(q.Nonce) > 100 {
		return fmt.Errorf("%w: the enrolment request is incomplete", ErrMalformed)
	}
	if !ed25519.Verify(q.Public, q.signed(), q.Sig) {
		return fmt.Errorf("%w: the enrolment request is not signed by its key", ErrMalformed)
	}
	return nil
}

// Approval is what a device gets that was approved.
type Approval struct {
	V         int    `json:"v"`
	Nonce     string `json:"nonce"` // of the request answered
	Time      int64  `json:"time"`  // the server's, UTC ms
	Community string `json:"community"`
	URL       string `json:"url"`       // of the broker
	Server    string `json:"server"`    // host:port to enrol and renew at; empty = by files
	CA        string `json:"ca"`        // PEM: who vouches for the broker
	Cert      string `json:"cert"`      // PEM: the device's certificate
	Trust     string `json:"trust"`     // the gate's trust file; the server's own key is its first line
	SiteKey   string `json:"site_key"`  // the site's key file
	Recipient string `json:"recipient"` // age: backups can be read by the community
	// Lists lead from keys that the device knows to those of now, as in a manifest.
	Lists [][]byte `json:"lists,omitempty"`
}

// SealApproval signs an approval and encrypts it to the device that asked.
func SealApproval(a Approval, q *Enrol, at int64, s edge.Signer) ([]byte, error) {
	a.V, a.Nonce, a.Time, a.Community = Version, q.Nonce, at, q.Community
	body, err := Encode(a)
	if err != nil {
		return nil, err
	}
	e := Envelope{Type: TypeApproval, Site: q.Site, Gate: q.Gate, IssuedAt: at, Body: body}
	if err := e.Sign(s); err != nil {
		return nil, err
	}
	plain, err := e.Encode()
	if err != nil {
		return nil, err
	}
	to, err := age.ParseX25519Recipient(q.Age)
	if err != nil {
		return nil, fmt.Errorf("cannot encrypt to the device: %w", err)
	}
	var buf bytes.Buffer
	w, err := age.Encrypt(&buf, to)
	if err != nil {
		return nil, fmt.Errorf("cannot encrypt to the device: %w", err)
	}
	_, werr := w.Write(plain)
	if err := errors.Join(werr, w.Close()); err != nil {
		return nil, fmt.Errorf("cannot encrypt to the device: %w", err)
	}
	return buf.Bytes(), nil
}

// OpenApproval reads an answer to q. open decrypts; keys are those that may sign
// one.
func OpenApproval(sealed []byte, q *Enrol, open func(r io.Reader, limit int64) ([]byte, error), known Trust) (*Approval, error) {
	plain, err := open(bytes.NewReader(sealed), 1<<20)
	if err != nil {
		return nil, fmt.Errorf("the approval is not for this device: %w", err)
	}
	e, err := OpenEnvelope(plain, TypeApproval, q.Site, q.Gate, UseRegistry, known.Keys)
	if errors.Is(err, ErrUntrusted) {
		// A device that slept while keys were exchanged; what keeps it from following
		// the lists is that the answer stays untrusted.
		now, _ := known.Follow(PeekLists(plain))
		e, err = OpenEnvelope(plain, TypeApproval, q.Site, q.Gate, UseRegistry, now.Keys)
	}
	if err != nil {
		return nil, err
	}
	a := new(Approval)
	if err := decode(e.Body, a); err != nil {
		return nil, err
	}
	if a.V != Version || a.Community != q.Community {
		return nil, fmt.Errorf("%w: an approval of version %d by %.100q", ErrMalformed, a.V, a.Community)
	}
	return a, nil
}
