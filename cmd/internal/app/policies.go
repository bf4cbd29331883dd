package app

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"sync"
	"sync/atomic"

	"gatehouse/cmd/internal/config"
	"gatehouse/edge"
	"gatehouse/edge/policy"
	"gatehouse/edge/registry"
)

// policies holds the policy in force. What was in force stays in force on any
// error; every activation and every refusal is an entry.
type policies struct {
	file     string
	above    []*policy.Policy // the superiors' policies, the highest first
	registry *registry.Registry
	record   func(ctx context.Context, k edge.Kind, data any) (edge.EntryRef, error)
	log      *slog.Logger
	current  atomic.Pointer[policy.Policy]
	mu       sync.Mutex // one activation at a time
	server   bool       // the policy in force came from the server
}

// openPolicies loads what was in force when the gate last ran: the server's
// bundle, or else the file. Whatever is in force stands under the superiors'.
func openPolicies(ctx context.Context, cfg *config.Gate, r *registry.Registry, log *slog.Logger) (*policies, error) {
	p := &policies{file: cfg.Policy, registry: r, log: log}
	for _, name := range cfg.Superior {
		above, err := loadFile(name, p.above)
		if err != nil {
			return nil, err
		}
		p.above = append(p.above, above)
	}
	active, err := r.Active(ctx)
	if err != nil {
		return nil, fmt.Errorf("cannot read the policy in force: %w", err)
	}
	if n := len(active); n > 0 {
		b := active[n-1]
		pol, err := policy.Load(b.Layer, b.Source, p.above...)
		if err == nil {
			p.server = true
			p.current.Store(pol)
			return p, nil
		}
		log.Error("the policy in force does not load with this version; the file's is taken", "policy", b.Hash, "err", err)
	}
	pol, err := loadFile(cfg.Policy, p.above)
	if err != nil {
		return nil, err
	}
	p.current.Store(pol)
	return p, nil
}

func loadFile(name string, above []*policy.Policy) (*policy.Policy, error) {
	src, err := os.ReadFile(name)
	if err != nil {
		return nil, fmt.Errorf("cannot read the policy: %w", err)
	}
	return policy.Load(name, src, above...)
}

// PolicyInForce is the policy that the gate would start with, for commands.
func PolicyInForce(ctx context.Context, cfg *config.Gate, r *registry.Registry, log *slog.Logger) (*policy.Policy, error) {
	p, err := openPolicies(ctx, cfg, r, log)
	if err != nil {
		return nil, err
	}
	return p.Current(), nil
}

// Current is the policy in force.
func (p *policies) Current() *policy.Policy { return p.current.Load() }

// activation is what an entry says of a policy that was put in force or refused.
type activation struct {
	Policy  string `json:"policy"`
	Hash    string `json:"hash,omitempty"`
	Version int64  `json:"version,omitempty"`
	From    string `json:"from"` // server, file
	Before  string `json:"before,omitempty"`
	Refused string `json:"refused,omitempty"`
}

// Apply puts the server's policy in force. Applying the one in force again does
// nothing.
func (p *policies) Apply(ctx context.Context, name string, version int64, src []byte) error {
	p.mu.Lock()
	defer p.mu.Unlock()
	err := p.apply(ctx, name, version, src)
	if err == nil {
		return nil
	}
	_, rerr := p.record(ctx, edge.KindPolicy, activation{Policy: name, Version: version, From: "server", Before: p.Current().Hash(), Refused: err.Error()})
	return errors.Join(fmt.Errorf("policy %s, version %d, is refused: %w", name, version, err), rerr)
}

func (p *policies) apply(ctx context.Context, name string, version int64, src []byte) error {
	pol, err := policy.Load(name, src, p.above...)
	if err != nil {
		return err
	}
	before := p.Current()
	if p.server && before.Hash() == pol.Hash() {
		return nil
	}
	hash, err := p.registry.StoreBundle(ctx, pol.ID(), version, src)
	if err != nil {
		return err
	}
	if err := p.registry.Activate(ctx, []string{hash}, false); err != nil {
		return err
	}
	p.server = true
	p.current.Store(pol)
	p.log.Info("a policy is in force", "policy", pol.ID(), "version", version, "hash", pol.Hash())
	_, err = p.record(ctx, edge.KindPolicy, activation{Policy: pol.ID(), Hash: pol.Hash(), Version: version, From: "server", Before: before.Hash()})
	return err
}

// Reload reads the file again, where the server has not sent a policy.
func (p *policies) Reload(ctx context.Context) error {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.server {
		p.log.Info("the server's policy is in force; the file is not read", "file", p.file)
		return nil
	}
	pol, err := loadFile(p.file, p.above)
	if err != nil {
		_, rerr := p.record(ctx, edge.KindPolicy, activation{Policy: p.file, From: "file", Before: p.Current().Hash(), Refused: err.Error()})
		return errors.Join(err, rerr)
	}
	before := p.Current()
	if before.Hash() == pol.Hash() {
		return nil
	}
	p.current.Store(pol)
	_, err = p.record(ctx, edge.KindPolicy, activation{Policy: pol.ID(), Hash: pol.Hash(), Version: pol.Version(), From: "file", Before: before.Hash()})
	return err
}

// Hash is the hash of the policy in force.
func (p *policies) Hash() string { return p.Current().Hash() }
