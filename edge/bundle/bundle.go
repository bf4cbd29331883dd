// Package bundle is pure: the signed package in which a policy travels, is kept
// and is proved to be the one that was in force.
//
// A bundle is text, then the policy's exact bytes:
//
//	gatehouse-bundle/1
//	community <name>
//	site <name, or * for every site>
//	layer <name, or - for the site's own>
//	version <decimal>
//	issued <UTC ms>
//	sha256 <64 hex digits of the policy's bytes>
//	length <decimal>
//
//	— <signer> <base64>
//	— <second signer> <base64>
//
//	<the policy>
//
// The head with its signatures is a C2SP signed note
// (https://c2sp.org/signed-note), Ed25519 (RFC 8032), so any tool that knows
// these can verify it. A blank line ends it.
package bundle

import (
	"bytes"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"regexp"
	"slices"
	"strconv"
	"strings"

	"golang.org/x/mod/sumdb/note"

	"gatehouse/edge"
	"gatehouse/edge/policy"
)

// Limits in bytes: of a policy in a bundle, of the head with its signatures, and
// of a whole bundle.
const (
	MaxSize    = 1 << 20
	maxHead    = 16 << 10
	MaxEncoded = MaxSize + maxHead
)

const magic = "gatehouse-bundle/1"

// Everywhere is the Site of a bundle for every site of a community.
const Everywhere = "*"

// Head is what a bundle says of itself.
type Head struct {
	Community, Site string
	Layer           string // empty = the site's own
	Version         int64
	Issued          int64 // UTC ms
	Sum             [32]byte
	Length          int
}

// Bundle is a verified bundle.
type Bundle struct {
	Head
	Policy  []byte   // its exact bytes
	Signers []string // names of the trusted keys that signed it

	keys []Key
}

// Why a bundle is refused; the errors wrap these.
var (
	ErrFormat    = errors.New("not a policy bundle")
	ErrSignature = errors.New("a signature is missing or bad")
	ErrElsewhere = errors.New("it is for another site")
	ErrOlder     = errors.New("it is older than the one in force")
	ErrChanged   = errors.New("its policy is not the one that was signed")
)

var word = regexp.MustCompile(`^[a-zA-Z0-9][a-zA-Z0-9._-]{0,63}$`)

func (h *Head) text() string {
	layer := h.Layer
	if layer == "" {
		layer = "-"
	}
	return fmt.Sprintf("%s\ncommunity %s\nsite %s\nlayer %s\nversion %d\nissued %d\nsha256 %x\nlength %d\n", magic, h.Community, h.Site, layer, h.Version, h.Issued, h.Sum, h.Length)
}

func parseHead(text string) (Head, error) {
	var h Head
	lines := strings.Split(strings.TrimSuffix(text, "\n"), "\n")
	if len(lines) != 8 || lines[0] != magic {
		return h, ErrFormat
	}
	val := map[string]string{}
	for i, key := range []string{"community", "site", "layer", "version", "issued", "sha256", "length"} {
		v, ok := strings.CutPrefix(lines[i+1], key+" ")
		if !ok {
			return h, fmt.Errorf("%w: line %d is not %q", ErrFormat, i+2, key)
		}
		val[key] = v
	}
	h.Community, h.Site, h.Layer = val["community"], val["site"], val["layer"]
	if h.Layer == "-" {
		h.Layer = ""
	}
	var err1, err2, err3 error
	h.Version, err1 = strconv.ParseInt(val["version"], 10, 64)
	h.Issued, err2 = strconv.ParseInt(val["issued"], 10, 64)
	h.Length, err3 = strconv.Atoi(val["length"])
	sum, err4 := hex.DecodeString(val["sha256"])
	if err := errors.Join(err1, err2, err3, err4); err != nil || len(sum) != 32 {
		return h, fmt.Errorf("%w: a number in its head", ErrFormat)
	}
	h.Sum = [32]byte(sum)
	// One text for one meaning: what is signed is what is written back.
	if h.check() != nil || h.text() != text {
		return h, fmt.Errorf("%w: its head is not in the one form", ErrFormat)
	}
	return h, nil
}

func (h *Head) check() error {
	if !word.MatchString(h.Community) || (h.Site != Everywhere && !word.MatchString(h.Site)) || (h.Layer != "" && !word.MatchString(h.Layer)) {
		return fmt.Errorf("%w: community, site and layer are names", ErrFormat)
	}
	if h.Version < 1 || h.Length < 1 || h.Length > MaxSize || h.Issued < 0 {
		return fmt.Errorf("%w: version, length and time are positive", ErrFormat)
	}
	return nil
}

// Seal signs a policy for a site with one key, or with the authority's and the
// community's. What names persons or documents is refused: a bundle is kept for
// ever. The layer and the version are the policy's own.
func Seal(community, site string, issued int64, name string, src []byte, signers ...edge.Signer) ([]byte, error) {
	if len(src) > MaxSize {
		return nil, fmt.Errorf("cannot seal %s: %d bytes are more than %d", name, len(src), MaxSize)
	}
	if len(signers) < 1 || len(signers) > 2 {
		return nil, fmt.Errorf("cannot seal %s: one or two keys sign, not %d", name, len(signers))
	}
	if err := policy.CheckPrivate(name, src); err != nil {
		return nil, fmt.Errorf("cannot seal: %w", err)
	}
	layer, version, err := policy.Identify(name, src)
	if err != nil {
		return nil, fmt.Errorf("cannot seal: %w", err)
	}
	h := Head{Community: community, Site: site, Layer: layer, Version: version, Issued: issued, Sum: sha256.Sum256(src), Length: len(src)}
	if err := h.check(); err != nil {
		return nil, fmt.Errorf("cannot seal %s: %w", name, err)
	}
	ns := make([]note.Signer, len(signers))
	for i, s := range signers {
		ns[i] = edge.NoteSigner(s)
	}
	signed, err := note.Sign(&note.Note{Text: h.text()}, ns...)
	if err != nil {
		return nil, fmt.Errorf("cannot seal %s: %w", name, err)
	}
	return slices.Concat(signed, []byte{'\n'}, src), nil
}

// Countersign adds the second signature to a bundle that the first signer made.
func Countersign(b []byte, s edge.Signer) ([]byte, error) {
	signed, src, err := split(b)
	if err != nil {
		return nil, err
	}
	text, _, _ := bytes.Cut(signed, []byte("\n\n"))
	h, err := parseHead(string(text) + "\n")
	if err != nil {
		return nil, err
	}
	if sha256.Sum256(src) != h.Sum {
		return nil, ErrChanged
	}
	one, err := note.Sign(&note.Note{Text: h.text()}, edge.NoteSigner(s))
	if err != nil {
		return nil, fmt.Errorf("cannot sign: %w", err)
	}
	_, sig, _ := bytes.Cut(one, []byte("\n\n"))
	return slices.Concat(signed, sig, []byte{'\n'}, src), nil
}

// split parts the signed head, to the end of its last signature line, from the
// policy.
func split(b []byte) (signed, src []byte, err error) {
	if len(b) > MaxEncoded {
		return nil, nil, fmt.Errorf("%w: %d bytes are more than %d", ErrFormat, len(b), MaxEncoded)
	}
	if !bytes.HasPrefix(b, []byte(magic+"\n")) {
		return nil, nil, ErrFormat
	}
	head := bytes.Index(b, []byte("\n\n"))
	if head < 0 || head > maxHead {
		return nil, nil, ErrFormat
	}
	n := bytes.Index(b[head+2:], []byte("\n\n"))
	if n < 0 || head+2+n > maxHead {
		return nil, nil, ErrFormat
	}
	end := head + 2 + n + 1
	return b[:end:end], b[end+1:], nil
}

// Key is a key that may sign policies.
type Key struct {
	note.Verifier
	Layers []string // that it may sign for, empty = the site's own; nil = every layer
}

func (k Key) serves(layer string) bool {
	return k.Layers == nil || slices.Contains(k.Layers, layer)
}

// Trust is what a gate asks of bundles.
type Trust struct {
	Community, Site string
	Keys            []Key
}

// Open verifies a bundle against what the gate trusts and the highest version
// that was ever in force of its layer. It changes nothing and looks at no clock.
// The policy is not loaded: what it says is policy.Load's to judge, but that
// it says the layer and version of the head is checked. Whether a second
// signature is needed is for the layer above to say: see [Bundle.Countersigned].
func Open(b []byte, t Trust, highest func(layer string) int64) (*Bundle, error) {
	signed, src, err := split(b)
	if err != nil {
		return nil, err
	}
	text, _, _ := bytes.Cut(signed, []byte("\n\n"))
	h, err := parseHead(string(text) + "\n")
	if err != nil {
		return nil, err
	}
	out := &Bundle{Head: h, Policy: src}
	// A key whose name and hash another key has too would make both useless.
	var vs []note.Verifier
	for _, k := range t.Keys {
		if !slices.ContainsFunc(vs, func(v note.Verifier) bool { return v.Name() == k.Name() && v.KeyHash() == k.KeyHash() }) {
			vs = append(vs, k.Verifier)
		}
	}
	n, err := note.Open(signed, note.VerifierList(vs...))
	if err != nil {
		return nil, fmt.Errorf("layer %q: %w: %w", h.Layer, ErrSignature, err)
	}
	for _, s := range n.Sigs {
		for _, k := range t.Keys {
			if k.Name() == s.Name && k.KeyHash() == s.Hash {
				out.keys = append(out.keys, k)
			}
		}
		if !slices.Contains(out.Signers, s.Name) {
			out.Signers = append(out.Signers, s.Name)
		}
	}
	if !slices.ContainsFunc(out.keys, func(k Key) bool { return k.serves(h.Layer) }) {
		return nil, fmt.Errorf("layer %q: %w: %s may not sign for it here", h.Layer, ErrSignature, strings.Join(out.Signers, " and "))
	}
	if h.Length != len(src) || sha256.Sum256(src) != h.Sum {
		return nil, fmt.Errorf("layer %q: %w", h.Layer, ErrChanged)
	}
	if h.Community != t.Community || h.Site != Everywhere && h.Site != t.Site {
		return nil, fmt.Errorf("layer %q, %s/%s: %w", h.Layer, h.Community, h.Site, ErrElsewhere)
	}
	layer, version, err := policy.Identify("bundle", src)
	if err != nil {
		return nil, err
	}
	if layer != h.Layer || version != h.Version {
		return nil, fmt.Errorf("%w: the head says layer %q version %d, the policy %q version %d", ErrChanged, h.Layer, h.Version, layer, version)
	}
	if v := highest(h.Layer); h.Version < v {
		return nil, fmt.Errorf("layer %q version %d: %w, %d", h.Layer, h.Version, ErrOlder, v)
	}
	return out, nil
}

// Countersigned says whether two keys signed the bundle: one that may sign for
// its layer, and another that may sign for the superior one. That is the
// community's and the authority's signature.
func (b *Bundle) Countersigned(superior string) error {
	for _, own := range b.keys {
		if !own.serves(b.Layer) {
			continue
		}
		for _, up := range b.keys {
			if up.serves(superior) && (up.Name() != own.Name() || up.KeyHash() != own.KeyHash()) {
				return nil
			}
		}
	}
	return fmt.Errorf("layer %q: %w: the layer %q above asks for its own beside the community's, there is only that of %s", b.Layer, ErrSignature, superior, strings.Join(b.Signers, " and "))
}

// Peek reads what a bundle says of itself, and its policy, without verifying
// anything: for bundles that were verified when they were stored.
func Peek(b []byte) (*Bundle, error) {
	signed, src, err := split(b)
	if err != nil {
		return nil, err
	}
	text, _, _ := bytes.Cut(signed, []byte("\n\n"))
	h, err := parseHead(string(text) + "\n")
	if err != nil {
		return nil, err
	}
	if sha256.Sum256(src) != h.Sum {
		return nil, ErrChanged
	}
	return &Bundle{Head: h, Policy: src}, nil
}

// Is says whether bytes are a bundle at all, and not a bare policy.
func Is(b []byte) bool { return bytes.HasPrefix(b, []byte(magic+"\n")) }

// Signatures counts the signatures on a bundle, of whatever keys.
func Signatures(b []byte) int {
	signed, _, err := split(b)
	if err != nil {
		return 0
	}
	_, sigs, _ := bytes.Cut(signed, []byte("\n\n"))
	return bytes.Count(sigs, []byte{'\n'})
}
