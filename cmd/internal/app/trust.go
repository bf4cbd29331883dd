package app

import (
	"fmt"
	"os"
	"slices"
	"sync/atomic"

	"golang.org/x/mod/sumdb/note"

	"gatehouse/cmd/internal/config"
	"gatehouse/edge"
	"gatehouse/edge/bundle"
	"gatehouse/sync/wire"
)

// TrustLine is a server's key as a line of a gate's trust file: a C2SP signed
// note verifier key, as "communityd trust" prints it.
func TrustLine(s edge.Signer) (string, error) {
	return note.NewEd25519VerifierKey(s.Name(), s.Public())
}

// ReadTrust reads a trust file, in the form of [wire.ParseTrust].
func ReadTrust(path string) (wire.Trust, error) {
	src, err := os.ReadFile(path)
	if err != nil {
		return wire.Trust{}, fmt.Errorf("cannot read the keys: %w (communityd trust prints them)", err)
	}
	return wire.ParseTrust(path, src)
}

// trusted is the server's keys that the gate goes by, and the file that has them.
type trusted struct {
	path string
	now  atomic.Pointer[wire.Trust]
}

func openTrust(path string) (*trusted, error) {
	now, err := ReadTrust(path)
	if err != nil {
		return nil, err
	}
	t := &trusted{path: path}
	t.now.Store(&now)
	return t, nil
}

func (t *trusted) get() wire.Trust { return *t.now.Load() }

func (t *trusted) keys() []wire.ServerKey { return t.now.Load().Keys }

// set goes by other keys from now on. They hold also where they cannot be kept:
// after a start the server says them again.
func (t *trusted) set(now wire.Trust) error {
	t.now.Store(&now)
	if err := config.WriteKey(t.path, []byte(now.Text())); err != nil {
		return fmt.Errorf("cannot keep the server's keys in %s: %w", t.path, err)
	}
	return nil
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
