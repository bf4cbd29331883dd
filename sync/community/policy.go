package community

import (
	"context"
	"database/sql"
	"fmt"
	"slices"
	"time"

	"gatehouse/edge"
	"gatehouse/edge/bundle"
	"gatehouse/edge/policy"
	"gatehouse/sync/wire"
)

// published is a bundle that is in force at a site.
type published struct {
	wire.PolicyRef
	name    string // of the file it was made of
	payload []byte
}

// SignPolicy signs a policy for a site, or for bundle.Everywhere: what
// [Server.PublishSigned] publishes. It needs no store, so the key may be kept where
// no network is. It is checked as a gate would, beneath the policies above it.
func SignPolicy(community, site, name string, src []byte, key edge.Signer, above ...policy.Source) ([]byte, error) {
	if site != bundle.Everywhere {
		if err := wire.CheckName(site); err != nil {
			return nil, err
		}
	}
	if _, err := policy.LoadSet(append(slices.Clone(above), policy.Source{Name: name, Text: src})...); err != nil {
		return nil, fmt.Errorf("cannot sign policy %s: %w", name, err)
	}
	return bundle.Seal(community, site, time.Now().UnixMilli(), name, src, key)
}

// PublishPolicy signs a policy with the server's own key and publishes it to the
// site, where it takes the place of the one of its layer.
func (s *Server) PublishPolicy(ctx context.Context, site, name string, src []byte) error {
	b, err := bundle.Seal(s.cfg.Community, site, time.Now().UnixMilli(), name, src, s.cfg.Signer)
	if err != nil {
		return err
	}
	return s.PublishSigned(ctx, site, name, b)
}

// PublishSigned publishes a bundle that was signed elsewhere. It must load
// together with the site's other layers, and its version must be above that of
// its layer in force. The gates know the keys that may sign it; this server only
// checks how many did.
func (s *Server) PublishSigned(ctx context.Context, site, name string, raw []byte) error {
	b, err := bundle.Peek(raw)
	if err != nil {
		return fmt.Errorf("cannot publish policy %s: %w", name, err)
	}
	if b.Community != s.cfg.Community || b.Site != site && b.Site != bundle.Everywhere {
		return fmt.Errorf("cannot publish policy %s: it is signed for %s/%s, not for %s/%s: %w", name, b.Community, b.Site, s.cfg.Community, site, bundle.ErrElsewhere)
	}
	err = s.store.write(ctx, func(tx *sql.Tx) error {
		if err := s.store.bulk.turn(ctx, tx, turnPolicy(site)); err != nil {
			return err
		}
		now, err := readPolicies(ctx, tx, site, "p.payload")
		if err != nil {
			return err
		}
		next := published{wire.PolicyRef{Hash: wire.HashOf(raw), Layer: b.Layer, Version: b.Version}, name, raw}
		if i := slices.IndexFunc(now, func(p published) bool { return p.Layer == b.Layer }); i >= 0 {
			if b.Version <= now[i].Version {
				return fmt.Errorf("its version %d must be above %d, which is in force", b.Version, now[i].Version)
			}
			now[i] = next
		} else {
			now = append(now, next)
			order(now)
		}
		if err := check(now); err != nil {
			return err
		}
		_, err = tx.ExecContext(ctx, `INSERT INTO policy (site, layer, version, hash, name, payload, at) VALUES ($1, $2, $3, $4, $5, $6, $7)`,
			site, b.Layer, b.Version, next.Hash, name, raw, time.Now().UnixMilli())
		return err
	})
	if err != nil {
		return fmt.Errorf("cannot publish policy %s: %w", name, err)
	}
	s.tell()
	return nil
}

// check loads a site's layers together, as a gate does, and counts the
// signatures where a superior asks for its own.
func check(ps []published) error {
	srcs := make([]policy.Source, len(ps))
	for i, p := range ps {
		b, err := bundle.Peek(p.payload)
		if err != nil {
			return err
		}
		srcs[i] = policy.Source{Name: p.name, Text: b.Policy}
	}
	pol, err := policy.LoadSet(srcs...)
	if err != nil {
		return err
	}
	for l := pol; l != nil; l = l.Superior() {
		up, ok := l.Countersigned()
		if !ok {
			continue
		}
		i := slices.IndexFunc(ps, func(p published) bool { return p.Layer == l.Layer() })
		if bundle.Signatures(ps[i].payload) < 2 {
			return fmt.Errorf("the layer %q above asks for its own signature beside the community's: sign it with communityd policy sign, let the authority run communityd policy countersign, push the result", up)
		}
	}
	return nil
}

// order puts the site's own policy below all others.
func order(ps []published) {
	slices.SortStableFunc(ps, func(a, b published) int {
		switch {
		case a.Layer == b.Layer:
			return 0
		case a.Layer == "":
			return 1
		case b.Layer == "":
			return -1
		}
		return 0
	})
}

type queryer interface {
	QueryContext(ctx context.Context, query string, args ...any) (*sql.Rows, error)
}

// readPolicies gives the newest bundle of each of the site's layers, the highest
// layer first. payload is the column, or NULL.
func readPolicies(ctx context.Context, from queryer, site, payload string) ([]published, error) {
	var out []published
	rows, err := from.QueryContext(ctx, `SELECT p.layer, p.version, p.hash, p.name, `+payload+` FROM policy p WHERE p.site = $1
		AND p.version = (SELECT MAX(version) FROM policy WHERE site = p.site AND layer = p.layer)
		ORDER BY (SELECT MIN(at) FROM policy WHERE site = p.site AND layer = p.layer), p.layer`, site)
	err = each(rows, err, func() error {
		var p published
		err := rows.Scan(&p.Layer, &p.Version, &p.Hash, &p.name, &p.payload)
		out = append(out, p)
		return err
	})
	order(out)
	return out, err
}

// policies lists the site's bundles in force, the highest layer first.
func (s *store) policies(ctx context.Context, site string) ([]wire.PolicyRef, error) {
	ps, err := readPolicies(ctx, s.r, site, "NULL")
	var out []wire.PolicyRef
	for _, p := range ps {
		out = append(out, p.PolicyRef)
	}
	return out, err
}

// Policies lists the bundles in force at a site, the highest layer first.
func (s *Server) Policies(ctx context.Context, site string) ([]wire.PolicyRef, error) {
	ps, err := s.store.policies(ctx, site)
	if err != nil {
		return nil, fmt.Errorf("cannot read the policies of %s: %w", site, err)
	}
	return ps, nil
}

func setOf(refs []wire.PolicyRef) string {
	hashes := make([]string, len(refs))
	for i, r := range refs {
		hashes[i] = r.Hash
	}
	return wire.SetOf(hashes...)
}
