package bundle

import (
	"bytes"
	"crypto/ed25519"
	"errors"
	"fmt"
	"strings"
	"testing"

	"golang.org/x/mod/sumdb/note"
	"pgregory.net/rapid"

	"gatehouse/edge"
)

type key struct {
	name string
	k    ed25519.PrivateKey
}

func newKey(name string, seed byte) key {
	return key{name, ed25519.NewKeyFromSeed(bytes.Repeat([]byte{seed}, 32))}
}

func (k key) Name() string                    { return k.name }
func (k key) Public() []byte                  { return k.k.Public().(ed25519.PublicKey) }
func (k key) Sign(msg []byte) ([]byte, error) { return ed25519.Sign(k.k, msg), nil }

var (
	authority = newKey("city", 1)
	community = newKey("community", 2)
	stranger  = newKey("city", 3) // the same name, another key
)

func trust(t testing.TB) Trust {
	v := func(k key) note.Verifier {
		x, err := edge.HeadVerifier(k.name, k.Public())
		if err != nil {
			t.Fatal(err)
		}
		return x
	}
	return Trust{Community: "sunny", Site: "east", Keys: []Key{{v(authority), []string{"city"}}, {v(community), []string{"city", ""}}}}
}

const policyText = "policy: p\nversion: 4\nlayer: city\nauthority: {by: City, basis: Circular 1}\n\nrules:\n  - {id: a, then: admit}\n"

func seal(t testing.TB, site, src string, ks ...edge.Signer) []byte {
	t.Helper()
	b, err := Seal("sunny", site, 1772420400000, "p.yaml", []byte(src), ks...)
	if err != nil {
		t.Fatal(err)
	}
	return b
}

func below(v int64) func(string) int64 { return func(string) int64 { return v } }

func TestOpen(t *testing.T) {
	b := seal(t, Everywhere, policyText, authority, community)
	got, err := Open(b, trust(t), below(4))
	if err != nil {
		t.Fatal(err)
	}
	if string(got.Policy) != policyText || got.Layer != "city" || got.Version != 4 || fmt.Sprint(got.Signers) != "[city community]" {
		t.Errorf("%+v", got)
	}
	one := seal(t, Everywhere, policyText, authority)
	two, err := Countersign(one, community)
	if err != nil {
		t.Fatal(err)
	}
	if !bytes.Equal(two, b) {
		t.Errorf("signed one after the other:\n%s\nat once:\n%s", two, b)
	}
	own := strings.Replace(policyText, "layer: city\n", "", 1)
	if got, err := Open(seal(t, "east", own, community), trust(t), below(0)); err != nil || got.Layer != "" {
		t.Errorf("the site's own: %+v, %v", got, err)
	}
}

// Where the layer above asks for its signature, it must be there beside the own.
func TestCountersigned(t *testing.T) {
	own := strings.Replace(policyText, "layer: city\n", "", 1)
	everything := trust(t)
	everything.Keys[1].Layers = nil
	for _, c := range []struct {
		name  string
		trust Trust
		keys  []edge.Signer
		ok    bool
	}{
		{"both", trust(t), []edge.Signer{community, authority}, true},
		{"the community's alone", trust(t), []edge.Signer{community}, false},
		{"one key that may sign everything", everything, []edge.Signer{community}, false},
		{"beside one that may sign everything", everything, []edge.Signer{community, authority}, true},
		{"the community's and a stranger's", trust(t), []edge.Signer{community, stranger}, false},
	} {
		b, err := Open(seal(t, "east", own, c.keys...), c.trust, below(0))
		if err == nil {
			err = b.Countersigned("city")
		}
		if (err == nil) != c.ok || err != nil && !errors.Is(err, ErrSignature) {
			t.Errorf("%s: %v", c.name, err)
		}
	}
	if _, err := Open(seal(t, "east", own, authority), trust(t), below(0)); !errors.Is(err, ErrSignature) {
		t.Errorf("the authority's alone: %v", err)
	}
}

func TestPeek(t *testing.T) {
	b := seal(t, "east", policyText, stranger)
	if got, err := Peek(b); err != nil || string(got.Policy) != policyText || got.Version != 4 || !Is(b) {
		t.Errorf("%+v, %v", got, err)
	}
	two, err := Countersign(b, authority)
	if err != nil || Signatures(b) != 1 || Signatures(two) != 2 || Signatures(nil) != 0 {
		t.Errorf("signatures: %d and %d, %v", Signatures(b), Signatures(two), err)
	}
	if _, err := Peek(append(b, 'x')); !errors.Is(err, ErrChanged) {
		t.Errorf("changed: %v", err)
	}
	if _, err := Peek([]byte(policyText)); !errors.Is(err, ErrFormat) || Is([]byte(policyText)) {
		t.Errorf("a bare policy: %v", err)
	}
}

func TestRefused(t *testing.T) {
	good := seal(t, "east", policyText, authority, community)
	own := strings.Replace(policyText, "layer: city\n", "", 1)
	for _, c := range []struct {
		name string
		b    []byte
		from int64
		want error
	}{
		{"nothing", nil, 0, ErrFormat},
		{"a bare policy", []byte(policyText), 0, ErrFormat},
		{"100 MB", append(bytes.Clone(good), make([]byte, 100<<20)...), 0, ErrFormat},
		{"another version of the format", bytes.Replace(good, []byte("bundle/1"), []byte("bundle/2"), 1), 0, ErrFormat},
		{"a changed policy", bytes.Replace(good, []byte("then: admit"), []byte("then: admi "), 1), 0, ErrChanged},
		{"a longer policy", append(bytes.Clone(good), '\n'), 0, ErrChanged},
		{"a changed head", bytes.Replace(good, []byte("\nsite east"), []byte("\nsite west"), 1), 0, ErrSignature},
		{"a head in another form", bytes.Replace(good, []byte("version 4"), []byte("version 04"), 1), 0, ErrFormat},
		{"another site's", seal(t, "west", policyText, authority, community), 0, ErrElsewhere},
		{"older than the one in force", good, 5, ErrOlder},
		{"a stranger of the same name", seal(t, "east", policyText, stranger), 0, ErrSignature},
		{"twice the same signer", seal(t, "east", own, authority), 0, ErrSignature},
		{"a layer nobody may sign here", seal(t, "east", strings.Replace(policyText, "layer: city", "layer: nation", 1), authority), 0, ErrSignature},
		{"no signature", func() []byte { i := bytes.Index(good, []byte("\n\n")); return good[:i+2] }(), 0, ErrFormat},
	} {
		if _, err := Open(c.b, trust(t), below(c.from)); !errors.Is(err, c.want) {
			t.Errorf("%s: %v, want %v", c.name, err, c.want)
		}
	}
	other := trust(t)
	other.Community = "shady"
	if _, err := Open(good, other, below(0)); !errors.Is(err, ErrElsewhere) {
		t.Errorf("another community's: %v", err)
	}
}

func TestSealRefuses(t *testing.T) {
	for _, c := range []struct {
		name, src, want string
		keys            []edge.Signer
	}{
		{"no key", policyText, "one or two keys", nil},
		{"three keys", policyText, "one or two keys", []edge.Signer{authority, community, stranger}},
		{"an identity number", "title: 11010519491231002X\n" + policyText, "p.yaml:1: it looks as if this line had an identity number", []edge.Signer{authority}},
		{"no version", "policy: p\n", "version from 1 on", []edge.Signer{authority}},
		{"no YAML", "a: [", "p.yaml", []edge.Signer{authority}},
		{"a layer that is no name", strings.Replace(policyText, "layer: city", "layer: a b", 1), "are names", []edge.Signer{authority}},
	} {
		if _, err := Seal("sunny", "east", 1, "p.yaml", []byte(c.src), c.keys...); err == nil || !strings.Contains(err.Error(), c.want) {
			t.Errorf("%s: %v, want %q", c.name, err, c.want)
		}
	}
	if _, err := Seal("sunny", "ea st", 1, "p.yaml", []byte(policyText), authority); !errors.Is(err, ErrFormat) {
		t.Errorf("a site that is no name: %v", err)
	}
	if _, err := Seal("sunny", "east", 1, "p.yaml", make([]byte, MaxSize+1), authority); err == nil {
		t.Error("a policy over the limit was sealed")
	}
	if _, err := Countersign([]byte(policyText), community); !errors.Is(err, ErrFormat) {
		t.Errorf("countersigning no bundle: %v", err)
	}
	b := seal(t, "east", policyText, authority)
	if _, err := Countersign(append(b, 'x'), community); !errors.Is(err, ErrChanged) {
		t.Errorf("countersigning a changed policy: %v", err)
	}
}

// Whatever one byte is changed to, the bundle is refused or says the same.
func TestEveryByteIsSigned(t *testing.T) {
	good := seal(t, "east", policyText, authority, community)
	tr := trust(t)
	want, err := Open(good, tr, below(0))
	if err != nil {
		t.Fatal(err)
	}
	rapid.Check(t, func(rt *rapid.T) {
		b := bytes.Clone(good)
		i := rapid.IntRange(0, len(b)-1).Draw(rt, "at")
		b[i] ^= rapid.Byte().Draw(rt, "xor")
		got, err := Open(b, tr, below(0))
		if err == nil && (!bytes.Equal(got.Policy, want.Policy) || got.Head != want.Head) {
			rt.Fatalf("changed at %d and accepted: %+v", i, got)
		}
	})
}

func FuzzOpen(f *testing.F) {
	good := seal(f, "east", policyText, authority, community)
	f.Add(good)
	f.Add(good[:len(good)/2])
	f.Add([]byte(magic + "\n\n\n\n"))
	tr := trust(f)
	f.Fuzz(func(t *testing.T, b []byte) {
		got, err := Open(b, tr, below(0))
		if err == nil && string(got.Policy) != policyText {
			t.Errorf("an unsigned policy was accepted: %q", got.Policy)
		}
	})
}
