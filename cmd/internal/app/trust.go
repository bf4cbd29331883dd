package app

import (
	"bufio"
	"bytes"
	"crypto/ed25519"
	"encoding/base64"
	"fmt"
	"os"
	"slices"
	"strings"

	"golang.org/x/mod/sumdb/note"

	"gatehouse/edge"
	"gatehouse/edge/bundle"
	"gatehouse/sync/wire"
)

// TrustLine is a server's key as a line of a gate's trust file: a C2SP signed
// note verifier key, as "communityd trust" prints it.
func TrustLine(s edge.Signer) (string, error) {
	return note.NewEd25519VerifierKey(s.Name(), s.Public())
}

var allUses = []wire.Use{wire.UseReceipts, wire.UseRegistry, wire.UsePolicy, wire.UseCommands}

// ReadTrust reads a trust file: a server key on each line, after it the uses it
// has (receipts, registry, policy, commands, or policy:LAYER for the policy of one
// layer, policy: for the site's own; none = all), # for comments.
func ReadTrust(path string) ([]wire.ServerKey, error) {
	src, err := os.ReadFile(path)
	if err != nil {
		return nil, fmt.Errorf("cannot read the server's keys: %w (communityd trust prints them)", err)
	}
	return parseTrust(path, src)
}

func parseTrust(path string, src []byte) ([]wire.ServerKey, error) {
	var keys []wire.ServerKey
	sc := bufio.NewScanner(bytes.NewReader(src))
	for n := 1; sc.Scan(); n++ {
		f := strings.Fields(sc.Text())
		if len(f) == 0 || strings.HasPrefix(f[0], "#") {
			continue
		}
		v, err := note.NewVerifier(f[0])
		if err != nil {
			return nil, fmt.Errorf("%s:%d: not a key as communityd trust prints it: %w", path, n, err)
		}
		// The verifier hides the key: name, hash, then algorithm and key in base64.
		raw, err := base64.StdEncoding.DecodeString(strings.SplitN(f[0], "+", 3)[2])
		if err != nil || len(raw) != 1+ed25519.PublicKeySize {
			return nil, fmt.Errorf("%s:%d: not an Ed25519 key", path, n)
		}
		k := wire.ServerKey{ID: v.Name(), Public: raw[1:], Uses: allUses}
		if len(f) > 1 {
			k.Uses = nil
			for _, u := range f[1:] {
				if _, ok := wire.Use(u).Layer(); !ok && !slices.Contains(allUses, wire.Use(u)) {
					return nil, fmt.Errorf("%s:%d: %q is not one of receipts, registry, policy, policy:LAYER, commands", path, n, u)
				}
				k.Uses = append(k.Uses, wire.Use(u))
			}
		}
		keys = append(keys, k)
	}
	if len(keys) == 0 {
		return nil, fmt.Errorf("%s: holds no key", path)
	}
	return keys, nil
}

// policyKeys are those of the server's keys that may sign policies.
func policyKeys(keys []wire.ServerKey) []bundle.Key {
	var out []bundle.Key
	for _, k := range keys {
		v, err := edge.HeadVerifier(k.ID, k.Public)
		if err != nil {
			continue // no key of this kind signs bundles
		}
		var layers []string
		for _, u := range k.Uses {
			if l, ok := u.Layer(); ok {
				layers = append(layers, l)
			}
		}
		if slices.Contains(k.Uses, wire.UsePolicy) {
			layers = nil
		} else if len(layers) == 0 {
			continue
		}
		out = append(out, bundle.Key{Verifier: v, Layers: layers})
	}
	return out
}
