package downlink

import (
	"context"
	"errors"
	"fmt"

	"gatehouse/edge"
	"gatehouse/edge/bundle"
	"gatehouse/sync/wire"
)

// Policies is what decides.
type Policies interface {
	// Set is wire.SetOf the bundles that the server has put in force.
	Set() string
	// Bundle gives a bundle that is archived here, by its wire.HashOf, or an error
	// that wraps edge.ErrUnknown.
	Bundle(ctx context.Context, hash string) ([]byte, error)
	// Apply verifies bundles, one of each layer, and puts them in force together,
	// all or nothing. An error that wraps ErrRefused has been journalled.
	Apply(ctx context.Context, bundles [][]byte) error
}

// ErrRefused says that policies will not be put in force, however often they are
// sent.
var ErrRefused = errors.New("refused")

// maxLayers bounds how many bundles a manifest may name.
const maxLayers = 8

// rules is the set of bundles that the server wants in force, as far as it has
// arrived.
type rules struct {
	refs    []wire.PolicyRef
	have    map[string][]byte
	refused string // the set that was refused: it is not fetched again
}

// set names what is to be in force; empty when nothing is to change.
func (r *rules) set() string {
	hashes := make([]string, len(r.refs))
	for i, p := range r.refs {
		hashes[i] = p.Hash
	}
	return wire.SetOf(hashes...)
}

func (r *rules) missing() []string {
	var out []string
	for _, p := range r.refs {
		if r.have[p.Hash] == nil {
			out = append(out, p.Hash)
		}
	}
	return out
}

// expect learns which bundles are to be in force. Those of them that were in
// force before are here.
func (d *Downlink) expect(ctx context.Context, refs []wire.PolicyRef) error {
	was := d.rules.have
	d.rules.refs, d.rules.have = refs, map[string][]byte{}
	if set := d.rules.set(); set == d.cfg.Policies.Set() || set == d.rules.refused {
		d.rules.refs = nil
		return nil
	}
	if len(refs) > maxLayers {
		d.rules.refused, d.rules.refs = d.rules.set(), nil
		return d.refuse(ctx, edge.KindPolicy, "policy", fmt.Errorf("%w: %d layers", wire.ErrMalformed, len(refs)))
	}
	for _, p := range refs {
		if !isHash(p.Hash) {
			d.rules.refused, d.rules.refs = d.rules.set(), nil
			return d.refuse(ctx, edge.KindPolicy, "policy", fmt.Errorf("%w: the hash of a bundle", wire.ErrMalformed))
		}
		if b := was[p.Hash]; b != nil {
			d.rules.have[p.Hash] = b
			continue
		}
		b, err := d.cfg.Policies.Bundle(ctx, p.Hash)
		if err == nil {
			d.rules.have[p.Hash] = b
		} else if !errors.Is(err, edge.ErrUnknown) {
			return err
		}
	}
	return nil
}

// bundle takes a policy that is needed.
func (d *Downlink) bundle(ctx context.Context, hash string, payload []byte) error {
	for _, p := range d.rules.refs {
		if p.Hash == hash && d.rules.have[hash] == nil && len(payload) <= bundle.MaxEncoded && wire.HashOf(payload) == hash {
			d.rules.have[hash] = payload
			return d.arrived(ctx, hash)
		}
	}
	return nil
}

// applyPolicies puts the set in force when it is whole.
func (d *Downlink) applyPolicies(ctx context.Context) error {
	r := &d.rules
	if len(r.refs) == 0 || len(r.missing()) > 0 {
		return nil
	}
	bundles := make([][]byte, len(r.refs))
	for i, p := range r.refs {
		bundles[i] = r.have[p.Hash]
	}
	err := d.cfg.Policies.Apply(ctx, bundles)
	if err != nil && !errors.Is(err, ErrRefused) {
		return err // it is tried again with the next manifest
	}
	r.refused = ""
	if err != nil {
		r.refused = r.set()
	}
	r.refs, r.have = nil, nil
	return err
}
