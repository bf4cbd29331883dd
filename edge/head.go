package edge

import (
	"crypto/sha256"
	"encoding/base64"
	"encoding/binary"
	"fmt"
	"strconv"
	"strings"

	"golang.org/x/mod/sumdb/note"
)

// Checkpoint is the head's body as a C2SP tlog-checkpoint
// (https://c2sp.org/tlog-checkpoint): origin, size, root in base64, a line each.
func (h *Head) Checkpoint() string {
	return h.Origin + "\n" + strconv.FormatUint(h.Size, 10) + "\n" + base64.StdEncoding.EncodeToString(h.Root[:]) + "\n"
}

// SignHead fills in Note: the checkpoint signed as a C2SP signed note.
func SignHead(h *Head, s Signer) error {
	b, err := note.Sign(&note.Note{Text: h.Checkpoint()}, noteSigner{s})
	if err != nil {
		return fmt.Errorf("cannot sign the tree head: %w", err)
	}
	h.Note = b
	return nil
}

// ParseHead reads a checkpoint's body. Lines after the third are extensions
// and are left alone.
func ParseHead(text string) (Head, error) {
	lines := strings.SplitN(text, "\n", 4)
	if len(lines) < 4 {
		return Head{}, fmt.Errorf("a checkpoint has three lines, this has %d", len(lines)-1)
	}
	size, err := strconv.ParseUint(lines[1], 10, 63)
	if err != nil || strconv.FormatUint(size, 10) != lines[1] {
		return Head{}, fmt.Errorf("checkpoint size %q is not a decimal number", lines[1])
	}
	// Strict, and compared: a decoder takes more than one text for the same bytes.
	root, err := base64.StdEncoding.Strict().DecodeString(lines[2])
	if err != nil || len(root) != sha256.Size || base64.StdEncoding.EncodeToString(root) != lines[2] {
		return Head{}, fmt.Errorf("checkpoint root is not 32 bytes in base64")
	}
	if lines[0] == "" {
		return Head{}, fmt.Errorf("checkpoint without an origin")
	}
	return Head{Origin: lines[0], Size: size, Root: [32]byte(root)}, nil
}

// OpenHead verifies a signed head against the verifiers and parses it.
func OpenHead(signed []byte, known ...note.Verifier) (Head, *note.Note, error) {
	if len(signed) > 16<<10 {
		return Head{}, nil, fmt.Errorf("signed head of %d bytes is too long", len(signed))
	}
	n, err := note.Open(signed, note.VerifierList(known...))
	if err != nil {
		return Head{}, nil, fmt.Errorf("cannot verify the tree head: %w", err)
	}
	h, err := ParseHead(n.Text)
	if err != nil {
		return Head{}, nil, err
	}
	h.Note = signed
	return h, n, nil
}

// HeadVerifier makes the verifier for a device's key under its name.
func HeadVerifier(name string, public []byte) (note.Verifier, error) {
	vkey, err := note.NewEd25519VerifierKey(name, public)
	if err != nil {
		return nil, fmt.Errorf("cannot use the key of %s: %w", name, err)
	}
	return note.NewVerifier(vkey)
}

// NoteSigner fits a Signer into golang.org/x/mod/sumdb/note, for other signed
// notes than tree heads.
func NoteSigner(s Signer) note.Signer { return noteSigner{s} }

// noteSigner fits a Signer into golang.org/x/mod/sumdb/note.
type noteSigner struct{ s Signer }

func (n noteSigner) Name() string { return n.s.Name() }

// KeyHash is the first four bytes of SHA-256(name, newline, algorithm 1, key),
// as C2SP signed-note defines it for Ed25519.
func (n noteSigner) KeyHash() uint32 {
	h := sha256.New()
	h.Write([]byte(n.s.Name() + "\n\x01"))
	h.Write(n.s.Public())
	return binary.BigEndian.Uint32(h.Sum(nil))
}

func (n noteSigner) Sign(msg []byte) ([]byte, error) { return n.s.Sign(msg) }
