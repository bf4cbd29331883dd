package app

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"slices"
	"sync"
	"sync/atomic"

	"gatehouse/cmd/internal/config"
	"gatehouse/edge"
	"gatehouse/edge/bundle"
	"gatehouse/edge/policy"
	"gatehouse/edge/registry"
	"gatehouse/sync/downlink"
	"gatehouse/sync/wire"
)

// policies holds the rules in force: the layers of the gate's files, each of
// them replaced by the server's bundle of the same layer where there is one.
// What was in force stays in force on any error; every activation and every
// refusal is an entry, and what was ever in force is archived.
type policies struct {
	files    []string // the superiors' policies, the highest first, then the site's
	trust    func() bundle.Trust
	registry *registry.Registry
	record   func(ctx context.Context, k edge.Kind, data any) (edge.EntryRef, error)
	log      *slog.Logger
	current  atomic.Pointer[policy.Policy]
	set      atomic.Pointer[string] // wire.SetOf the server's bundles in force
	mu       sync.Mutex             // one activation at a time
	layers   []layer                // what current was made of
	broken   error                  // why the server's bundles are not in force after a start
}

// server gives those of the layers in force that the server sent.
func (p *policies) server() []layer {
	return slices.DeleteFunc(slices.Clone(p.layers), func(l layer) bool { return !l.server })
}

// layer is one part of the rules, as it is archived.
type layer struct {
	name    string // of its file, or of its bundle
	layer   string
	version int64
	raw     []byte // a bundle, or a file's policy as it is
	signers []string
	server  bool
}

// source is the policy in the layer.
func (l *layer) source() (policy.Source, error) {
	if !bundle.Is(l.raw) {
		return policy.Source{Name: l.name, Text: l.raw}, nil
	}
	b, err := bundle.Peek(l.raw)
	if err != nil {
		return policy.Source{}, fmt.Errorf("%s: %w", l.name, err)
	}
	return policy.Source{Name: l.name, Text: b.Policy}, nil
}

// bundleName is what the server's bundle is called in errors.
func bundleName(layer string, version int64) string {
	if layer == "" {
		layer = "site"
	}
	return fmt.Sprintf("%s-%d.yaml", layer, version)
}

// loadLayers makes one policy of its layers.
func loadLayers(ls []layer) (*policy.Policy, error) {
	srcs := make([]policy.Source, len(ls))
	for i := range ls {
		var err error
		if srcs[i], err = ls[i].source(); err != nil {
			return nil, err
		}
	}
	return policy.LoadSet(srcs...)
}

func newPolicies(cfg *config.Gate, r *registry.Registry, log *slog.Logger) *policies {
	return &policies{files: append(slices.Clone(cfg.Superior), cfg.Policy), registry: r, log: log,
		trust: func() bundle.Trust { return bundle.Trust{Community: cfg.Community, Site: cfg.Site} }}
}

// openPolicies loads what was in force when the gate last ran.
func openPolicies(ctx context.Context, cfg *config.Gate, r *registry.Registry, log *slog.Logger) (*policies, error) {
	p := newPolicies(cfg, r, log)
	active, err := r.Active(ctx)
	if err != nil {
		return nil, fmt.Errorf("cannot read the policy in force: %w", err)
	}
	var server []layer
	var hashes []string
	for _, b := range active {
		server = append(server, layer{name: bundleName(b.Layer, b.Version), layer: b.Layer, version: b.Version, raw: b.Source, server: true})
		hashes = append(hashes, b.Hash)
	}
	set := wire.SetOf(hashes...)
	p.set.Store(&set)
	ls, err := p.merge(server)
	if err != nil {
		return nil, err
	}
	pol, err := loadLayers(ls)
	if err != nil && len(server) > 0 {
		p.broken = err
		if ls, err = p.merge(nil); err != nil {
			return nil, err
		}
		set = ""
		p.set.Store(&set)
		pol, err = loadLayers(ls)
	}
	if err != nil {
		return nil, err
	}
	p.layers = ls
	p.current.Store(pol)
	return p, nil
}

// merge puts the server's layers in the places of those of the files. A layer
// that no file has stands above them, but for the site's own, which is below all.
func (p *policies) merge(server []layer) ([]layer, error) {
	var files []layer
	for _, name := range p.files {
		src, err := os.ReadFile(name)
		if err != nil {
			return nil, fmt.Errorf("cannot read the policy: %w", err)
		}
		of, version, err := policy.Identify(name, src)
		if err != nil {
			return nil, err
		}
		l := layer{name: name, layer: of, version: version, raw: src}
		if i := indexLayer(server, of); i >= 0 {
			l = server[i]
		}
		files = append(files, l)
	}
	var above, below []layer
	for _, l := range server {
		switch {
		case indexLayer(files, l.layer) >= 0:
		case l.layer == "":
			below = append(below, l)
		default:
			above = append(above, l)
		}
	}
	return slices.Concat(above, files, below), nil
}

func indexLayer(ls []layer, of string) int {
	return slices.IndexFunc(ls, func(l layer) bool { return l.layer == of })
}

// PolicyInForce is the policy that the gate would start with, for commands.
func PolicyInForce(ctx context.Context, cfg *config.Gate, r *registry.Registry, log *slog.Logger) (*policy.Policy, error) {
	p, err := openPolicies(ctx, cfg, r, log)
	if err != nil {
		return nil, err
	}
	return p.Current(), nil
}

// ArchivedPolicy loads the rules that once were in force, by the hash that
// entries name. edge.ErrUnknown when they never were.
func ArchivedPolicy(ctx context.Context, r *registry.Registry, hash string) (*policy.Policy, error) {
	bs, err := r.Set(ctx, hash)
	if err != nil {
		return nil, err
	}
	var ls []layer
	for _, b := range bs {
		ls = append(ls, layer{name: bundleName(b.Layer, b.Version), raw: b.Source})
	}
	pol, err := loadLayers(ls)
	if err != nil {
		return nil, fmt.Errorf("policy %s does not load with this version of the program: %w", hash, err)
	}
	if pol.Hash() != hash {
		return nil, fmt.Errorf("policy %s: the archive holds another, %s", hash, pol.Hash())
	}
	return pol, nil
}

// Current is the policy in force.
func (p *policies) Current() *policy.Policy { return p.current.Load() }

// Hash is the hash of the policy in force.
func (p *policies) Hash() string { return p.Current().Hash() }

// Set is wire.SetOf the server's bundles in force.
func (p *policies) Set() string { return *p.set.Load() }

// Bundle gives an archived bundle by its hash.
func (p *policies) Bundle(ctx context.Context, hash string) ([]byte, error) {
	return p.registry.Bundle(ctx, hash)
}

// activation is what an entry says of rules that were put in force or refused.
type activation struct {
	Policy  string       `json:"policy,omitempty"`
	Hash    string       `json:"hash,omitempty"`
	Version int64        `json:"version,omitempty"`
	From    string       `json:"from"` // server, file
	Layers  []layerEntry `json:"layers,omitempty"`
	Before  string       `json:"before,omitempty"`
	Refused string       `json:"refused,omitempty"`
}

// layerEntry is one layer in an activation, the highest first.
type layerEntry struct {
	Layer   string   `json:"layer"`
	Policy  string   `json:"policy"`
	Version int64    `json:"version"`
	Bundle  string   `json:"bundle"` // SHA-256 of the archived bytes
	From    string   `json:"from"`
	Signers []string `json:"signers,omitempty"`
}

const (
	fromServer = "server"
	fromFile   = "file"
)

// Apply puts the server's bundles in force, all of them or none.
func (p *policies) Apply(ctx context.Context, bundles [][]byte) error {
	p.mu.Lock()
	defer p.mu.Unlock()
	refused := activation{From: fromServer}
	pol, ls, err := p.verify(ctx, bundles, &refused)
	if err != nil {
		return p.refuse(ctx, refused, err)
	}
	var hashes []string
	for _, l := range ls {
		if l.server {
			h, err := p.registry.StoreBundle(ctx, l.layer, l.version, l.raw)
			if err != nil {
				return err
			}
			hashes = append(hashes, h)
		}
	}
	if err := p.registry.Activate(ctx, hashes, false); errors.Is(err, registry.ErrOlder) {
		return p.refuse(ctx, refused, err)
	} else if err != nil {
		return err
	}
	set := wire.SetOf(hashes...)
	p.set.Store(&set)
	return p.enforce(ctx, pol, ls, fromServer, p.Hash())
}

// verify opens bundles and loads what they hold with the layers that stay.
func (p *policies) verify(ctx context.Context, bundles [][]byte, about *activation) (*policy.Policy, []layer, error) {
	var opened []*bundle.Bundle
	var server []layer
	var failed error
	for _, raw := range bundles {
		b, err := bundle.Open(raw, p.trust(), func(layer string) int64 {
			v, err := p.registry.Highest(ctx, layer)
			failed = errors.Join(failed, err)
			return v
		})
		if err == nil {
			err = failed
		}
		if err != nil {
			return nil, nil, err
		}
		about.Policy, about.Version = bundleName(b.Layer, b.Version), b.Version
		if indexLayer(server, b.Layer) >= 0 {
			return nil, nil, fmt.Errorf("two bundles are of the layer %q", b.Layer)
		}
		opened = append(opened, b)
		server = append(server, layer{name: bundleName(b.Layer, b.Version), layer: b.Layer, version: b.Version, raw: raw, signers: b.Signers, server: true})
	}
	ls, err := p.merge(server)
	if err != nil {
		return nil, nil, err
	}
	pol, err := loadLayers(ls)
	if err != nil {
		return nil, nil, err
	}
	for l := pol; l != nil; l = l.Superior() {
		i := slices.IndexFunc(opened, func(b *bundle.Bundle) bool { return b.Layer == l.Layer() })
		if i < 0 {
			continue // a file: whoever can write it needs no signature
		}
		if up, ok := l.Countersigned(); ok {
			if err := opened[i].Countersigned(up); err != nil {
				return nil, nil, err
			}
		}
	}
	return pol, ls, nil
}

// refuse journals why rules are not put in force.
func (p *policies) refuse(ctx context.Context, a activation, why error) error {
	a.Before, a.Refused = p.Current().Hash(), why.Error()
	_, err := p.record(ctx, edge.KindPolicy, a)
	return errors.Join(fmt.Errorf("the policy is %w, %s stays in force: %w", downlink.ErrRefused, p.Current().ID(), why), err)
}

// enforce archives rules, puts them in force and says so in an entry.
func (p *policies) enforce(ctx context.Context, pol *policy.Policy, ls []layer, from, before string) error {
	a := activation{Policy: pol.ID(), Hash: pol.Hash(), Version: pol.Version(), From: from, Before: before}
	var hashes []string
	for _, x := range pol.Layers() {
		l := ls[indexLayer(ls, x.Layer)]
		h, err := p.registry.StoreBundle(ctx, l.layer, l.version, l.raw)
		if err != nil {
			return err
		}
		hashes = append(hashes, h)
		e := layerEntry{Layer: x.Layer, Policy: x.ID, Version: x.Version, Bundle: h, From: fromFile, Signers: l.signers}
		if l.server {
			e.From = fromServer
		}
		a.Layers = append(a.Layers, e)
	}
	p.layers = ls
	p.current.Store(pol)
	p.log.Info("a policy is in force", "policy", pol.ID(), "version", pol.Version(), "hash", pol.Hash(), "from", from)
	// The entry comes before the note that it was written: a power cut between
	// them makes it twice, never none.
	if _, err := p.record(ctx, edge.KindPolicy, a); err != nil {
		return err
	}
	return p.registry.SetInForce(ctx, pol.Hash(), hashes)
}

// Started records what is in force after a start, where that is not what was in
// force before it.
func (p *policies) Started(ctx context.Context) error {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.broken != nil {
		// It is fetched again, by a server that may have it in a newer form.
		p.log.Error("the server's policy does not load with this version; the files' is in force", "err", p.broken)
		if err := p.refuse(ctx, activation{From: fromServer}, p.broken); !errors.Is(err, downlink.ErrRefused) {
			return err
		}
	}
	was, err := p.registry.InForce(ctx)
	if err != nil || was == p.Hash() {
		return err
	}
	from := fromFile
	if p.Set() != "" {
		from = fromServer
	}
	return p.enforce(ctx, p.Current(), p.layers, from, was)
}

// Reload reads the files again. Layers that the server has sent stay as they are.
func (p *policies) Reload(ctx context.Context) error {
	p.mu.Lock()
	defer p.mu.Unlock()
	ls, err := p.merge(p.server())
	var pol *policy.Policy
	if err == nil {
		pol, err = loadLayers(ls)
	}
	if err != nil {
		return p.refuse(ctx, activation{Policy: p.files[len(p.files)-1], From: fromFile}, err)
	}
	if pol.Hash() == p.Hash() {
		return nil
	}
	return p.enforce(ctx, pol, ls, fromFile, p.Hash())
}
