package wire

import (
	"crypto/ed25519"
	"crypto/sha256"
	"encoding/base64"
	"encoding/binary"
	"encoding/json"
	"fmt"
	"strings"
	"time"

	cosig "github.com/transparency-dev/formats/note"
	"golang.org/x/mod/sumdb/note"

	"gatehouse/edge"
)

// Code says why a batch was refused, in a way the gate can act on.
type Code string

const (
	RefusedGap       Code = "gap"       // entries before the batch are missing: send from Size
	RefusedFork      Code = "fork"      // the head does not extend what is stored (Head): start a new epoch
	RefusedKey       Code = "key"       // the signing key is not approved for this gate: wait for a person
	RefusedEpoch     Code = "epoch"     // this epoch may not be written: start a new one
	RefusedMalformed Code = "malformed" // cannot be read: sending it again will not help
	RefusedStands    Code = "stands"    // to a batch that asks: all of it is stored, and something follows it
	RefusedMany      Code = "many"      // this gate has begun too many epochs: wait
)

// Receipt is the server's word to a gate about one epoch of its journal. Without
// a refusal it acknowledges everything below Size; Head is then the gate's own
// signed head with the server's cosignature. With one, Size and Head still say
// what is stored.
type Receipt struct {
	V       int        `json:"v"`
	Epoch   edge.Epoch `json:"epoch"`
	Size    uint64     `json:"size"`
	Head    string     `json:"head,omitempty"` // signed and cosigned note; empty when nothing is stored
	Refusal *Refusal   `json:"refusal,omitempty"`
}

// Refusal says why a batch was not stored. Sig is the server's signature, so
// that nobody else can make a gate start a new epoch.
type Refusal struct {
	Code Code   `json:"code"`
	Text string `json:"text"` // for a person
	At   int64  `json:"at"`   // UTC ms
	Sig  []byte `json:"sig"`
	// Stands is, of a fork, an epoch or stands, what the batch and the stored log have
	// in common: a head, cosigned by the server alone, over the stored entries before
	// the first that differs. A gate whose own tree has that root there knows that so
	// much of it is at the server.
	Stands string `json:"stands,omitempty"`
}

// Stand makes a refusal's Stands.
func Stand(h edge.Head, at time.Time, s edge.Signer) (string, error) {
	b, err := Cosign([]byte(h.Checkpoint()+"\n"), at, s)
	return string(b), err
}

// OpenStands verifies a refusal's Stands; the zero head when there is none.
func OpenStands(r *Refusal, origin string, servers ...note.Verifier) (h edge.Head, ok bool, err error) {
	if r.Stands == "" {
		return edge.Head{}, false, nil
	}
	if h, _, err = edge.OpenHead([]byte(r.Stands), servers...); err != nil {
		return edge.Head{}, false, err
	}
	if h.Origin != origin {
		return edge.Head{}, false, fmt.Errorf("what stands is said of %s, not of %s", h.Origin, origin)
	}
	return h, true, nil
}

func (r *Receipt) refusalText(site, gate string) []byte {
	return fmt.Appendf(nil, "gatehouse/v1 refusal\n%s\n%s\n%s\n%d\n%d\n%s\n%s\n%s", site, gate, r.Epoch, r.Size, r.Refusal.At, r.Refusal.Code,
		base64.StdEncoding.EncodeToString([]byte(r.Refusal.Text)), base64.StdEncoding.EncodeToString([]byte(r.Head)))
}

// SignRefusal fills in the signature of r.Refusal.
func (r *Receipt) SignRefusal(site, gate string, s edge.Signer) (err error) {
	r.Refusal.Sig, err = s.Sign(r.refusalText(site, gate))
	if err != nil {
		return fmt.Errorf("cannot sign a refusal: %w", err)
	}
	return nil
}

// VerifyRefusal checks the signature of r.Refusal.
func (r *Receipt) VerifyRefusal(site, gate string, public []byte) error {
	if len(public) != ed25519.PublicKeySize || !ed25519.Verify(public, r.refusalText(site, gate), r.Refusal.Sig) {
		return fmt.Errorf("%w: the refusal is not signed by the server", ErrMalformed)
	}
	return nil
}

// Encode gives the payload.
func (r *Receipt) Encode() ([]byte, error) {
	r.V = Version
	return json.Marshal(r)
}

// DecodeReceipt reads a payload. What it says is not verified yet.
func DecodeReceipt(payload []byte) (*Receipt, error) {
	r := new(Receipt)
	if err := decode(payload, r); err != nil {
		return nil, fmt.Errorf("receipt: %w", err)
	}
	if r.V != Version || r.Refusal == nil && r.Head == "" {
		return nil, fmt.Errorf("%w: receipt of version %d without a head", ErrMalformed, r.V)
	}
	return r, nil
}

func decode(payload []byte, v any) error {
	text, err := Expand(payload, MaxMessage)
	if err != nil {
		return err
	}
	if err := json.Unmarshal(text, v); err != nil {
		return fmt.Errorf("%w: %w", ErrMalformed, err)
	}
	return nil
}

// algCosignature is the signed-note algorithm of a timestamped Ed25519
// cosignature (https://c2sp.org/tlog-cosignature).
const algCosignature = 4

// Cosign adds the server's cosignature/v1 to a signed head. It does not verify
// the head: only heads that were verified and stored may be given to it.
func Cosign(signed []byte, at time.Time, s edge.Signer) ([]byte, error) {
	text, _, ok := strings.Cut(string(signed), "\n\n")
	if !ok || !strings.HasSuffix(string(signed), "\n") {
		return nil, fmt.Errorf("%w: head is not a signed note", ErrMalformed)
	}
	text += "\n"
	sig, err := s.Sign(fmt.Appendf(nil, "cosignature/v1\ntime %d\n%s", at.Unix(), text))
	if err != nil {
		return nil, fmt.Errorf("cannot cosign: %w", err)
	}
	h := sha256.New()
	h.Write([]byte(s.Name() + "\n"))
	h.Write([]byte{algCosignature})
	h.Write(s.Public())
	b := h.Sum(nil)[:4]
	b = binary.BigEndian.AppendUint64(b, uint64(at.Unix()))
	b = append(b, sig...)
	return fmt.Appendf(append([]byte(nil), signed...), "\u2014 %s %s\n", s.Name(), base64.StdEncoding.EncodeToString(b)), nil
}

// CosignatureVerifier makes the verifier for the cosignatures of a server's key.
func CosignatureVerifier(name string, public []byte) (note.Verifier, error) {
	vkey, err := note.NewEd25519VerifierKey(name, public)
	if err != nil {
		return nil, fmt.Errorf("cannot use the key of %s: %w", name, err)
	}
	v, err := cosig.NewVerifierForCosignatureV1(vkey)
	if err != nil {
		return nil, fmt.Errorf("cannot use the key of %s: %w", name, err)
	}
	return v, nil
}

// OpenReceipt verifies a receipt's head: it must carry the signature of the
// device and of one of the servers, and be of this origin and size.
func OpenReceipt(r *Receipt, origin string, device note.Verifier, servers ...note.Verifier) (edge.Head, error) {
	h, n, err := edge.OpenHead([]byte(r.Head), append([]note.Verifier{device}, servers...)...)
	if err != nil {
		return edge.Head{}, err
	}
	var own, server bool
	for _, s := range n.Sigs {
		if s.Name == device.Name() && s.Hash == device.KeyHash() {
			own = true
		}
		for _, v := range servers {
			server = server || s.Name == v.Name() && s.Hash == v.KeyHash()
		}
	}
	switch {
	case !own:
		return edge.Head{}, fmt.Errorf("the receipt's head is not signed by this device")
	case !server:
		return edge.Head{}, fmt.Errorf("the receipt's head is not cosigned by the server")
	case h.Origin != origin || h.Size != r.Size:
		return edge.Head{}, fmt.Errorf("the receipt is for %s at %d, want %s at %d", h.Origin, h.Size, origin, r.Size)
	}
	return h, nil
}
