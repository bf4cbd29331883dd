package edge

import (
	"bytes"
	"crypto/ed25519"
	"encoding/base64"
	"encoding/hex"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	cosig "github.com/transparency-dev/formats/note"
	"golang.org/x/mod/sumdb/note"
	"golang.org/x/mod/sumdb/tlog"
)

// vector is an example of a standard: testdata/c2sp/README says from where.
func vector(t *testing.T, name string) string {
	t.Helper()
	b, err := os.ReadFile(filepath.Join("testdata/c2sp", name))
	if err != nil {
		t.Fatal(err)
	}
	return string(b)
}

// seeded is a signer as the device's, of a key that others know too.
type seeded struct {
	name string
	key  ed25519.PrivateKey
}

func (s seeded) Name() string                    { return s.name }
func (s seeded) Public() []byte                  { return s.key.Public().(ed25519.PublicKey) }
func (s seeded) Sign(msg []byte) ([]byte, error) { return ed25519.Sign(s.key, msg), nil }

// The published private key signs the published text to the published bytes, and
// the published public key is ours for it.
func TestSignedNoteVector(t *testing.T) {
	want := vector(t, "note.txt")
	seed, err := base64.StdEncoding.DecodeString("AYEKFALVFGyNhPJEMzD1QIDr+Y7hfZx09iUvxdXHKDFz")
	if err != nil {
		t.Fatal(err)
	}
	s := seeded{"PeterNeumann", ed25519.NewKeyFromSeed(seed[1:])}
	text, _, _ := strings.Cut(want, "\n\n")
	got, err := note.Sign(&note.Note{Text: text + "\n"}, NoteSigner(s))
	if err != nil || string(got) != want {
		t.Errorf("%v, signed\n%s", err, got)
	}
	v, err := HeadVerifier(s.Name(), s.Public())
	if err != nil {
		t.Fatal(err)
	}
	known, err := note.NewVerifier("PeterNeumann+c74f20a3+ARpc2QcUPDhMQegwxbzhKqiBfsVkmqq/LDE4izWy10TW")
	if err != nil || v.KeyHash() != known.KeyHash() {
		t.Errorf("key id %08x, want %08x", v.KeyHash(), known.KeyHash())
	}
	if _, err := note.Open([]byte(want), note.VerifierList(v)); err != nil {
		t.Error(err)
	}
}

// The examples' heads are read, and written again to the byte.
func TestCheckpointVectors(t *testing.T) {
	for _, name := range []string{"checkpoint.txt", "cosigned.txt"} {
		text := vector(t, name)
		body, _, _ := strings.Cut(text, "\n\n")
		h, err := ParseHead(body + "\n")
		if err != nil {
			t.Fatalf("%s: %v", name, err)
		}
		if h.Origin != "example.com/behind-the-sofa" || h.Size != 20852163 || h.Checkpoint() != body+"\n" {
			t.Errorf("%s: %+v", name, h)
		}
		// A key of that name which is not the log's is no reason to believe it.
		v, err := HeadVerifier("example.com/behind-the-sofa", make([]byte, 32))
		if err != nil {
			t.Fatal(err)
		}
		if _, _, err := OpenHead([]byte(text), v); err == nil {
			t.Errorf("%s: believed without a key", name)
		}
	}
}

// The example's cosignature has the time that its signed text has, and a head of
// ours, cosigned by the library, is verified over exactly such a text.
func TestCosignatureVector(t *testing.T) {
	var at int64
	want := vector(t, "cosigned-text.txt")
	if _, err := fmt.Sscanf(want, "cosignature/v1\ntime %d\n", &at); err != nil {
		t.Fatal(err)
	}
	for line := range strings.Lines(vector(t, "cosigned.txt")) {
		f := strings.Fields(line)
		if len(f) != 3 || f[1] != "witness.example.com/w1" {
			continue
		}
		got, err := cosig.CoSigV1Timestamp(note.Signature{Name: f[1], Hash: 0x8d66cf3f, Base64: f[2]})
		if err != nil || got.Unix() != at {
			t.Errorf("time %v, %v; want %d", got, err, at)
		}
	}
	skey, vkey, err := note.GenerateKey(strings.NewReader(strings.Repeat("s", 64)), "witness.example.com/w1")
	if err != nil {
		t.Fatal(err)
	}
	w, err := cosig.NewSignerForCosignatureV1(skey)
	if err != nil {
		t.Fatal(err)
	}
	body, _, _ := strings.Cut(vector(t, "checkpoint.txt"), "\n\n")
	signed, err := note.Sign(&note.Note{Text: body + "\n"}, w)
	if err != nil {
		t.Fatal(err)
	}
	v, err := cosig.NewVerifierForCosignatureV1(vkey)
	if err != nil {
		t.Fatal(err)
	}
	h, n, err := OpenHead(signed, v)
	if err != nil || h.Size != 20852163 {
		t.Fatal(err)
	}
	raw, err := base64.StdEncoding.DecodeString(n.Sigs[0].Base64)
	if err != nil || len(raw) != 4+8+ed25519.SignatureSize {
		t.Fatalf("%d bytes, %v", len(raw), err)
	}
	when, err := cosig.CoSigV1Timestamp(n.Sigs[0])
	if err != nil {
		t.Fatal(err)
	}
	text := strings.Replace(want, fmt.Sprint(at), fmt.Sprint(when.Unix()), 1)
	public, err := base64.StdEncoding.DecodeString(vkey[strings.LastIndexByte(vkey, '+')+1:])
	if err != nil {
		t.Fatal(err)
	}
	if !ed25519.Verify(public[1:], []byte(text), raw[12:]) {
		t.Errorf("the cosignature is not over\n%s", text)
	}
}

// The reference roots of RFC 6962 trees.
func TestRootVectors(t *testing.T) {
	var stored []tlog.Hash
	read := tlog.HashReaderFunc(func(at []int64) ([]tlog.Hash, error) {
		var out []tlog.Hash
		for _, i := range at {
			out = append(out, stored[i])
		}
		return out, nil
	})
	n := int64(0)
	for line := range strings.Lines(vector(t, "roots.txt")) {
		f := strings.Fields(line)
		leaf, err := hex.DecodeString(strings.TrimPrefix(f[0], "-"))
		if err != nil {
			t.Fatal(err)
		}
		hs, err := tlog.StoredHashes(n, leaf, read)
		if err != nil {
			t.Fatal(err)
		}
		stored = append(stored, hs...)
		n++
		root, err := tlog.TreeHash(n, read)
		want, herr := hex.DecodeString(f[1])
		if err != nil || herr != nil || !bytes.Equal(root[:], want) {
			t.Errorf("root over %d: %x, want %s", n, root[:], f[1])
		}
	}
	if n != 8 {
		t.Errorf("%d vectors", n)
	}
}
