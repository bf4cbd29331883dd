package registry

import (
	"context"
	"crypto/sha256"
	"database/sql"
	"encoding/hex"
	"errors"
	"fmt"

	"gatehouse/edge"
)

// Bundle is one policy bundle, its exact bytes, and what they say of themselves.
// A policy that came from a file is kept as it is, without a signed head.
type Bundle struct {
	Hash    string // SHA-256 of Source, 64 hex digits
	Layer   string // whose it is: "city", "site"
	Version int64
	Source  []byte
}

// StoreBundle archives a bundle under its hash, for ever. It is not in force
// by that. Storing it again changes nothing.
func (r *Registry) StoreBundle(ctx context.Context, layer string, version int64, source []byte) (hash string, err error) {
	sum := sha256.Sum256(source)
	hash = hex.EncodeToString(sum[:])
	if err := r.write(ctx, func(tx *sql.Tx) error {
		_, err := tx.ExecContext(ctx, `INSERT INTO bundles VALUES (?, ?, ?, ?) ON CONFLICT (hash) DO NOTHING`, hash, layer, version, source)
		return err
	}); err != nil {
		return "", fmt.Errorf("cannot store the policy %s version %d: %w", layer, version, err)
	}
	return hash, nil
}

// Bundle gives the bytes of an archived bundle. edge.ErrUnknown when there is none.
func (r *Registry) Bundle(ctx context.Context, hash string) ([]byte, error) {
	var source []byte
	err := r.db.R.QueryRowContext(ctx, `SELECT source FROM bundles WHERE hash = ?`, hash).Scan(&source)
	if errors.Is(err, sql.ErrNoRows) {
		err = edge.ErrUnknown
	}
	if err != nil {
		return nil, fmt.Errorf("cannot read the policy %s: %w", hash, err)
	}
	return source, nil
}

// Activate puts a set of archived bundles in force, superiors first, in place
// of the set before: all of it or nothing, also when the power fails. A layer
// whose version would fall below the highest that was ever in force is refused
// with ErrOlder, unless rollback says that it is meant.
func (r *Registry) Activate(ctx context.Context, hashes []string, rollback bool) error {
	err := r.write(ctx, func(tx *sql.Tx) error {
		if _, err := tx.ExecContext(ctx, `DELETE FROM active`); err != nil {
			return err
		}
		for i, hash := range hashes {
			var layer string
			var version, highest int64
			err := tx.QueryRowContext(ctx, `SELECT b.layer, b.version, coalesce(h.version, b.version) FROM bundles b LEFT JOIN highest h ON h.layer = b.layer WHERE b.hash = ?`, hash).Scan(&layer, &version, &highest)
			if errors.Is(err, sql.ErrNoRows) {
				err = fmt.Errorf("policy %s: %w", hash, edge.ErrUnknown)
			}
			if err != nil {
				return err
			}
			if version < highest && !rollback {
				return fmt.Errorf("policy %s version %d: %w, %d", layer, version, ErrOlder, highest)
			}
			if _, err := tx.ExecContext(ctx, `INSERT INTO active VALUES (?, ?, ?)`, i, layer, hash); err != nil {
				return fmt.Errorf("two policies of the layer %s: %w", layer, err)
			}
			if _, err := tx.ExecContext(ctx, `INSERT INTO highest VALUES (?, ?) ON CONFLICT (layer) DO UPDATE SET version = max(version, excluded.version)`, layer, version); err != nil {
				return err
			}
		}
		return nil
	})
	if err != nil {
		return fmt.Errorf("cannot activate: %w", err)
	}
	return nil
}

// Active gives the server's bundles in force, superiors first.
func (r *Registry) Active(ctx context.Context) ([]Bundle, error) {
	return r.bundles(ctx, `SELECT b.hash, b.layer, b.version, b.source FROM active a JOIN bundles b ON b.hash = a.hash ORDER BY a.position`)
}

func (r *Registry) bundles(ctx context.Context, query string, args ...any) ([]Bundle, error) {
	rows, err := r.db.R.QueryContext(ctx, query, args...)
	if err != nil {
		return nil, fmt.Errorf("cannot read the policies: %w", err)
	}
	defer rows.Close()
	var out []Bundle
	for rows.Next() {
		var b Bundle
		if err := rows.Scan(&b.Hash, &b.Layer, &b.Version, &b.Source); err != nil {
			return nil, fmt.Errorf("cannot read the policies: %w", err)
		}
		out = append(out, b)
	}
	return out, rows.Err()
}

// Highest is the highest version of a layer that the server ever had in force;
// 0 when it never had one.
func (r *Registry) Highest(ctx context.Context, layer string) (int64, error) {
	var v int64
	err := r.db.R.QueryRowContext(ctx, `SELECT version FROM highest WHERE layer = ?`, layer).Scan(&v)
	if errors.Is(err, sql.ErrNoRows) {
		return 0, nil
	}
	if err != nil {
		return 0, fmt.Errorf("cannot read the highest version of the layer %q: %w", layer, err)
	}
	return v, nil
}

// SetInForce notes that the rules in force, by the hash that entries name, are
// those of these archived bundles, the highest layer first. The set is kept for
// ever.
func (r *Registry) SetInForce(ctx context.Context, policy string, hashes []string) error {
	err := r.write(ctx, func(tx *sql.Tx) error {
		for i, hash := range hashes {
			if _, err := tx.ExecContext(ctx, `INSERT INTO sets VALUES (?, ?, ?) ON CONFLICT DO NOTHING`, policy, i, hash); err != nil {
				return err
			}
		}
		_, err := tx.ExecContext(ctx, `INSERT INTO meta VALUES ('in_force', ?) ON CONFLICT (name) DO UPDATE SET value = excluded.value`, policy)
		return err
	})
	if err != nil {
		return fmt.Errorf("cannot note that the policy %s is in force: %w", policy, err)
	}
	return nil
}

// InForce gives what SetInForce noted last; empty when it never did.
func (r *Registry) InForce(ctx context.Context) (string, error) {
	var policy string
	err := r.db.R.QueryRowContext(ctx, `SELECT value FROM meta WHERE name = 'in_force'`).Scan(&policy)
	if err != nil && !errors.Is(err, sql.ErrNoRows) {
		return "", fmt.Errorf("cannot read which policy is in force: %w", err)
	}
	return policy, nil
}

// Set gives the archived bundles of which rules were made, by the hash that
// entries name, the highest layer first. edge.ErrUnknown when they were never in
// force here.
func (r *Registry) Set(ctx context.Context, policy string) ([]Bundle, error) {
	out, err := r.bundles(ctx, `SELECT b.hash, b.layer, b.version, b.source FROM sets s JOIN bundles b ON b.hash = s.hash WHERE s.policy = ? ORDER BY s.position`, policy)
	if err == nil && len(out) == 0 {
		err = fmt.Errorf("policy %s: %w", policy, edge.ErrUnknown)
	}
	return out, err
}
