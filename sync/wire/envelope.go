package wire

import (
	"crypto/ed25519"
	"encoding/base64"
	"encoding/binary"
	"encoding/json"
	"errors"
	"fmt"
	"strings"

	"gatehouse/edge"
)

// Use is what a server key may sign.
type Use string

const (
	UseReceipts Use = "receipts"
	UseRegistry Use = "registry"
	UsePolicy   Use = "policy" // of every layer
	UseCommands Use = "commands"
)

// policyOf begins the use of a key that may sign the policy of one layer only.
const policyOf = UsePolicy + ":"

// PolicyOf is the use of a key that may sign the policy of one layer; the site's
// own has no name.
func PolicyOf(layer string) Use { return policyOf + Use(layer) }

// Layer gives the layer whose policy the use is for.
func (u Use) Layer() (layer string, ok bool) {
	l, ok := strings.CutPrefix(string(u), string(policyOf))
	return l, ok
}

// ServerKey is one entry of a gate's trust file: a server's key and its uses.
type ServerKey struct {
	ID     string `json:"id"`
	Public []byte `json:"public"` // Ed25519, 32 bytes
	Uses   []Use  `json:"uses"`
}

// Types of envelopes.
const (
	TypeManifest = "manifest"
	TypePeers    = "peers"
	TypeCommand  = "command"
)

// Everybody stands for all gates of the site in an envelope.
const Everybody = "*"

// Envelope is what the server says, with its signatures. They are over
// [Envelope.signed], never over JSON made anew.
type Envelope struct {
	Type     string      `json:"type"`
	Site     string      `json:"site"`
	Gate     string      `json:"gate"`      // or Everybody
	IssuedAt int64       `json:"issued_at"` // UTC ms
	KeyID    string      `json:"key_id"`    // of the first signature
	Body     []byte      `json:"body"`
	Sigs     []Signature `json:"sigs"`
}

// Signature is one key's signature of an envelope.
type Signature struct {
	KeyID string `json:"key_id"`
	Sig   []byte `json:"sig"`
}

// ErrUntrusted says that no key that may say so has signed an envelope.
var ErrUntrusted = errors.New("not signed by a key that may say this")

// signed is what signatures are over: a domain, then every field with its
// length before it as 8 bytes, big endian.
func (e *Envelope) signed() []byte {
	b := []byte("gatehouse/v1 envelope\n")
	for _, f := range []string{e.Type, e.Site, e.Gate, fmt.Sprint(e.IssuedAt), string(e.Body)} {
		b = binary.BigEndian.AppendUint64(b, uint64(len(f)))
		b = append(b, f...)
	}
	return b
}

// Sign adds the signature of s; its name is the key id.
func (e *Envelope) Sign(s edge.Signer) error {
	sig, err := s.Sign(e.signed())
	if err != nil {
		return fmt.Errorf("cannot sign a %s: %w", e.Type, err)
	}
	if e.KeyID == "" {
		e.KeyID = s.Name()
	}
	e.Sigs = append(e.Sigs, Signature{KeyID: s.Name(), Sig: sig})
	return nil
}

// Encode gives the payload.
func (e *Envelope) Encode() ([]byte, error) { return json.Marshal(e) }

// OpenEnvelope reads a payload and verifies it: of this type, for this site and
// gate, signed by one of the keys for this use. KeyID is then the id of that key.
func OpenEnvelope(payload []byte, typ, site, gate string, use Use, keys []ServerKey) (*Envelope, error) {
	e := new(Envelope)
	if err := decode(payload, e); err != nil {
		return nil, fmt.Errorf("%s: %w", typ, err)
	}
	if e.Type != typ || e.Site != site || e.Gate != gate && e.Gate != Everybody {
		return nil, fmt.Errorf("%w: a %q for %q/%q where a %s for %s/%s belongs", ErrMalformed, e.Type, e.Site, e.Gate, typ, site, gate)
	}
	msg := e.signed()
	for _, s := range e.Sigs {
		for _, k := range keys {
			if k.ID != s.KeyID || len(k.Public) != ed25519.PublicKeySize {
				continue
			}
			for _, u := range k.Uses {
				if u == use && ed25519.Verify(k.Public, msg, s.Sig) {
					e.KeyID = k.ID
					return e, nil
				}
			}
		}
	}
	return nil, fmt.Errorf("%s of %s: %w", typ, e.KeyID, ErrUntrusted)
}

// Fingerprint names a public key for people: the first 12 characters of its
// base64.
func Fingerprint(public []byte) string {
	s := base64.StdEncoding.EncodeToString(public)
	return s[:min(12, len(s))]
}
