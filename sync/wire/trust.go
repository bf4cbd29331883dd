package wire

import (
	"bufio"
	"bytes"
	"crypto/ed25519"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"strconv"
	"strings"

	"golang.org/x/mod/sumdb/note"

	"gatehouse/edge"
)

// UseTrust is the use of a key that may sign lists of keys: the server's own, or one
// that is kept offline.
const UseTrust Use = "trust"

// TypeTrust is the envelope of a list of keys. It is for every gate of every site.
const TypeTrust = "trust"

// AllUses are those of a key in a trust file that names none.
func AllUses() []Use { return []Use{UseReceipts, UseRegistry, UsePolicy, UseCommands, UseTrust} }

// Trust is the keys that a gate goes by. Its lists are numbered, so that an old one
// does not bring a key back that was retired.
type Trust struct {
	V      int         `json:"v"`
	Number uint64      `json:"number"` // 0 = as enrolled: no list has come yet
	Keys   []ServerKey `json:"keys"`
}

const (
	maxKeys = 32
	// MaxLists is how many lists a manifest names at most.
	MaxLists = 64
)

// Known are the uses that a key of a list may have.
func (u Use) known() bool {
	layer, ok := u.Layer()
	return slices.Contains(AllUses(), u) || ok && (layer == "" || CheckName(layer) == nil)
}

// Check says what is wrong with a list, nil when gates can go by it: there is a key
// for what is said every day, and one to sign the list that follows.
func (t *Trust) Check() error {
	if t.V != Version || t.Number > 1<<62 || len(t.Keys) > maxKeys {
		return fmt.Errorf("%w: list of %d keys, version %d", ErrMalformed, len(t.Keys), t.V)
	}
	has := map[Use]bool{}
	for _, k := range t.Keys {
		if _, err := edge.HeadVerifier(k.ID, k.Public); err != nil || len(k.Public) != ed25519.PublicKeySize || len(k.ID) > 300 {
			return fmt.Errorf("%w: key %.100q", ErrMalformed, k.ID)
		}
		for _, u := range k.Uses {
			if !u.known() {
				continue // of a later version: it lets the key do nothing here
			}
			has[u] = true
		}
	}
	for _, u := range []Use{UseReceipts, UseRegistry, UseTrust} {
		if !has[u] {
			return fmt.Errorf("%w: list without a key for %s", ErrMalformed, u)
		}
	}
	return nil
}

// SignTrust makes the payload of a list.
func SignTrust(t Trust, at int64, s edge.Signer) ([]byte, error) {
	t.V = Version
	if err := t.Check(); err != nil {
		return nil, err
	}
	body, err := Encode(t)
	if err != nil {
		return nil, err
	}
	e := Envelope{Type: TypeTrust, Site: Everybody, Gate: Everybody, IssuedAt: at, Body: body}
	if err := e.Sign(s); err != nil {
		return nil, err
	}
	return e.Encode()
}

// PeekTrust reads a list without asking who has signed it.
func PeekTrust(payload []byte) (Trust, error) {
	var e Envelope
	var t Trust
	if err := decode(payload, &e); err != nil {
		return t, fmt.Errorf("list of keys: %w", err)
	}
	if err := json.Unmarshal(e.Body, &t); err != nil {
		return t, fmt.Errorf("list of keys: %w: %w", ErrMalformed, err)
	}
	return t, nil
}

// Follow goes from the keys of now along lists, each signed by a key that the one
// before lets sign it. It gives how far that leads, and why no further.
func (t Trust) Follow(lists [][]byte) (Trust, error) {
	for _, payload := range lists[:min(len(lists), MaxLists)] {
		next, err := PeekTrust(payload)
		if err != nil {
			return t, err
		}
		if next.Number <= t.Number {
			continue
		}
		if _, err := OpenEnvelope(payload, TypeTrust, Everybody, Everybody, UseTrust, t.Keys); err != nil {
			return t, fmt.Errorf("list %d of keys: %w", next.Number, err)
		}
		if err := next.Check(); err != nil {
			return t, fmt.Errorf("list %d of keys: %w", next.Number, err)
		}
		t = next
	}
	return t, nil
}

// PeekLists gives the lists in a manifest, or an approval, that nobody here can
// verify yet: they are signed for themselves.
func PeekLists(payload []byte) [][]byte {
	var e Envelope
	var b struct {
		Lists [][]byte `json:"lists"`
	}
	if decode(payload, &e) != nil || json.Unmarshal(e.Body, &b) != nil {
		return nil
	}
	return b.Lists
}

// ParseTrust reads a trust file: a key on each line as a C2SP signed note verifier
// key, after it the uses it has (receipts, registry, policy, commands, trust, or
// policy:LAYER for the policy of one layer, policy: for the site's own; none = all),
// # for comments, and "list N" where the keys are those of a signed list.
func ParseTrust(name string, src []byte) (Trust, error) {
	t := Trust{V: Version}
	sc := bufio.NewScanner(bytes.NewReader(src))
	for n := 1; sc.Scan(); n++ {
		f := strings.Fields(sc.Text())
		if len(f) == 0 || strings.HasPrefix(f[0], "#") {
			continue
		}
		if f[0] == "list" {
			v, err := strconv.ParseUint(strings.Join(f[1:], " "), 10, 62)
			if err != nil {
				return t, fmt.Errorf("%s:%d: the number of a list is one number", name, n)
			}
			t.Number = v
			continue
		}
		k, err := ParseKey(f...)
		if err != nil {
			return t, fmt.Errorf("%s:%d: %w", name, n, err)
		}
		t.Keys = append(t.Keys, k)
	}
	if err := sc.Err(); err != nil {
		return t, fmt.Errorf("%s: %w", name, err)
	}
	if len(t.Keys) == 0 {
		return t, fmt.Errorf("%s: holds no key", name)
	}
	return t, nil
}

// ParseKey reads the fields of one key's line.
func ParseKey(f ...string) (ServerKey, error) {
	v, err := note.NewVerifier(f[0])
	if err != nil {
		return ServerKey{}, fmt.Errorf("not a key as communityd trust prints it: %w", err)
	}
	// The verifier hides the key: name, hash, then algorithm and key in base64.
	raw, err := base64.StdEncoding.DecodeString(strings.SplitN(f[0], "+", 3)[2])
	if err != nil || len(raw) != 1+ed25519.PublicKeySize {
		return ServerKey{}, errors.New("not an Ed25519 key")
	}
	k := ServerKey{ID: v.Name(), Public: raw[1:], Uses: AllUses()}
	if len(f) > 1 {
		k.Uses = nil
		for _, u := range f[1:] {
			if !Use(u).known() {
				return ServerKey{}, fmt.Errorf("%q is not one of receipts, registry, policy, policy:LAYER, commands, trust", u)
			}
			k.Uses = append(k.Uses, Use(u))
		}
	}
	return k, nil
}

// Line is the key as a line of a trust file.
func (k *ServerKey) Line() string {
	vkey, err := note.NewEd25519VerifierKey(k.ID, k.Public)
	if err != nil {
		return "# a key that cannot be used: " + k.ID
	}
	for _, u := range k.Uses {
		vkey += " " + string(u)
	}
	return vkey
}

// Text is the trust file. Where there is a number it comes last: the first line is
// the server's own key.
func (t *Trust) Text() string {
	var b strings.Builder
	for i := range t.Keys {
		b.WriteString(t.Keys[i].Line() + "\n")
	}
	if t.Number > 0 {
		fmt.Fprintf(&b, "list %d\n", t.Number)
	}
	return b.String()
}
