package edge

import (
	"bytes"
	"crypto/ed25519"
	"strings"
	"testing"
)

// A checkpoint's body that is read is the one that is written: no two texts say the
// same head.
func FuzzParseHead(f *testing.F) {
	h := Head{Origin: "pine/north/east/00000000000000aa", Size: 300, Root: [32]byte{1, 2, 3}}
	for _, s := range []string{h.Checkpoint(), h.Checkpoint() + "extension\n", "", "\n\n\n", "o\n-1\nAA==\n", "o\n01\n" + strings.Repeat("A", 43) + "=\n", "o\n1\n" + strings.Repeat("A", 42) + "B=\n"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, text string) {
		h, err := ParseHead(text)
		if err == nil && !strings.HasPrefix(text, h.Checkpoint()) {
			t.Fatalf("%q was read as %q", text, h.Checkpoint())
		}
	})
}

// A note that opens says what its signer has signed, whatever was changed about it.
func FuzzOpenHead(f *testing.F) {
	s := seeded{"pine/north/east", ed25519.NewKeyFromSeed(bytes.Repeat([]byte{7}, 32))}
	v, err := HeadVerifier(s.name, s.Public())
	if err != nil {
		f.Fatal(err)
	}
	h := Head{Origin: "pine/north/east/00000000000000aa", Size: 300, Root: [32]byte{1, 2, 3}}
	if err := SignHead(&h, s); err != nil {
		f.Fatal(err)
	}
	f.Add(h.Note)
	f.Add(append(bytes.Clone(h.Note), "\u2014 other AAAAAAAA\n"...))
	f.Add(bytes.Replace(h.Note, []byte("300"), []byte("301"), 1))
	f.Add([]byte("\n\n"))
	f.Fuzz(func(t *testing.T, signed []byte) {
		got, n, err := OpenHead(signed, v)
		if err != nil {
			return
		}
		if got.Origin != h.Origin || got.Size != h.Size || got.Root != h.Root || len(n.Sigs) == 0 {
			t.Fatalf("a head that nobody has signed: %+v", got)
		}
	})
}
