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

// Active gives the bundles in force, superiors first.
func (r *Registry) Active(ctx context.Context) ([]Bundle, error) {
	rows, err := r.db.R.QueryContext(ctx, `SELECT b.hash, b.layer, b.version, b.source FROM active a JOIN bundles b ON b.hash = a.hash ORDER BY a.position`)
	if err != nil {
		return nil, fmt.Errorf("cannot read the policies in force: %w", err)
	}
	defer rows.Close()
	var out []Bundle
	for rows.Next() {
		var b Bundle
		if err := rows.Scan(&b.Hash, &b.Layer, &b.Version, &b.Source); err != nil {
			return nil, fmt.Errorf("cannot read the policies in force: %w", err)
		}
		out = append(out, b)
	}
	return out, rows.Err()
}
