package community

import (
	"context"
	"crypto/ed25519"
	"database/sql"
	"errors"
	"fmt"
	"slices"

	"golang.org/x/mod/sumdb/note"
)

// gate is one gate of a site with the keys of its devices.
type gate struct {
	id         int64
	site, name string
	keys       []GateKey
}

// KeyState says what the community thinks of a device's key.
type KeyState string

const (
	KeyApproved KeyState = "approved"
	KeyPending  KeyState = "pending" // seen, waits for somebody to approve it
	KeyRevoked  KeyState = "revoked"
)

// GateKey is the key of one device that is, was or says that it is a gate.
type GateKey struct {
	Name   string // in signed notes
	Public [32]byte
	Age    string // recipient for what only this device may read; empty = not known
	State  KeyState
	Since  int64 // UTC ms of the state
	By     string
}

// VerifierKey is the key as a line for tools that verify signed notes
// (https://c2sp.org/signed-note).
func (k *GateKey) VerifierKey() (string, error) {
	line, err := note.NewEd25519VerifierKey(k.Name, k.Public[:])
	if err != nil {
		return "", fmt.Errorf("cannot print the key of %s: %w", k.Name, err)
	}
	return line, nil
}

// maxPending bounds the unknown keys that are remembered for one gate: whoever
// may write under its topic must not fill the database.
const (
	maxPending    = 8
	maxPendingAll = 1000 // of all gates, those nobody has registered included
)

// gateOf reads a gate with its keys; nil when it is unknown.
func (s *store) gateOf(ctx context.Context, q querier, site, name string) (*gate, error) {
	g := &gate{site: site, name: name}
	err := q.QueryRowContext(ctx, `SELECT id FROM gate WHERE site = $1 AND name = $2`, site, name).Scan(&g.id)
	if errors.Is(err, sql.ErrNoRows) {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	rows, err := q.QueryContext(ctx, `SELECT name, public, age, state, since, by FROM gate_key WHERE gate = $1 ORDER BY since`, g.id)
	err = each(rows, err, func() error {
		var k GateKey
		var public []byte
		if err := rows.Scan(&k.Name, &public, &k.Age, &k.State, &k.Since, &k.By); err != nil {
			return err
		}
		if len(public) != ed25519.PublicKeySize {
			return fmt.Errorf("gate %s/%s: stored key has %d bytes", site, name, len(public))
		}
		k.Public = [32]byte(public)
		g.keys = append(g.keys, k)
		return nil
	})
	return g, err
}

// Site is a site that the server knows, by a gate or by a roster.
type Site struct {
	Name  string
	Gates []string
}

// Sites lists the sites with their gates, in order.
func (s *Server) Sites(ctx context.Context) ([]Site, error) {
	var out []Site
	rows, err := s.store.r.QueryContext(ctx, `SELECT site, name FROM gate UNION SELECT site, '' FROM registry ORDER BY site, name`)
	err = each(rows, err, func() error {
		var site, gate string
		err := rows.Scan(&site, &gate)
		if len(out) == 0 || out[len(out)-1].Name != site {
			out = append(out, Site{Name: site})
		}
		if x := &out[len(out)-1]; gate != "" {
			x.Gates = append(x.Gates, gate)
		}
		return err
	})
	if err != nil {
		return nil, fmt.Errorf("cannot list the sites: %w", err)
	}
	return out, nil
}

// setKey makes the gate, and sets the state of one of its keys.
func (s *store) setKey(ctx context.Context, site, name string, k GateKey, now int64) error {
	return s.write(ctx, func(tx *sql.Tx) error {
		if k.State == KeyPending {
			var n int
			if err := tx.QueryRowContext(ctx, `SELECT COUNT(*) FROM gate_key WHERE state = 'pending'`).Scan(&n); err != nil {
				return err
			}
			if n >= maxPendingAll {
				return errors.New("too many devices wait for approval")
			}
		}
		g, err := s.lockGate(ctx, tx, site, name, now)
		if err != nil {
			return err
		}
		i := slices.IndexFunc(g.keys, func(o GateKey) bool { return o.Public == k.Public })
		if k.State == KeyPending {
			pending := 0
			for _, o := range g.keys {
				if o.State == KeyPending {
					pending++
				}
			}
			if i >= 0 || pending >= maxPending {
				return nil
			}
		}
		return putKey(ctx, tx, g, k, now)
	})
}

// lockGate makes the gate if need be, and reads its keys, which nobody else changes
// until the transaction ends.
func (s *store) lockGate(ctx context.Context, tx *sql.Tx, site, name string, now int64) (*gate, error) {
	// An update locks a row on both engines, also where it changes nothing.
	if _, err := tx.ExecContext(ctx, `INSERT INTO gate (site, name, added) VALUES ($1, $2, $3) ON CONFLICT (site, name) DO UPDATE SET added = gate.added`, site, name, now); err != nil {
		return nil, err
	}
	return s.gateOf(ctx, tx, site, name)
}

// putKey sets the state of a key of a gate that is locked.
func putKey(ctx context.Context, tx *sql.Tx, g *gate, k GateKey, now int64) error {
	_, err := tx.ExecContext(ctx, `INSERT INTO gate_key (gate, public, name, age, state, since, by) VALUES ($1, $2, $3, $4, $5, $6, $7)
		ON CONFLICT (gate, public) DO UPDATE SET name = excluded.name, state = excluded.state, since = excluded.since, by = excluded.by,
		age = CASE WHEN excluded.age = '' THEN gate_key.age ELSE excluded.age END`,
		g.id, k.Public[:], k.Name, k.Age, string(k.State), now, k.By)
	return err
}

// A gate, or whoever has its credentials, chooses what its alerts are about and when
// it begins an epoch: neither may fill the database.
const (
	maxAlerts = 1000 // of a gate, that are kept
	maxEpochs = 100  // of a gate, that begin within a day
)

// overflow is the alert that stands for those that are not kept.
const overflow = "overflow"

// alert notes something a person should look at: one row for one matter, however
// often it happens.
func (s *store) alert(ctx context.Context, gate int64, kind, about, text string, now int64) error {
	return s.write(ctx, func(tx *sql.Tx) error {
		var others int
		err := tx.QueryRowContext(ctx, `SELECT COUNT(*) FROM alert WHERE gate = $1 AND kind <> $4 AND NOT (kind = $2 AND about = $3)`, gate, kind, about, overflow).Scan(&others)
		if err != nil {
			return err
		}
		if others >= maxAlerts {
			var known bool
			if err := tx.QueryRowContext(ctx, `SELECT EXISTS (SELECT 1 FROM alert WHERE gate = $1 AND kind = $2 AND about = $3)`, gate, kind, about).Scan(&known); err != nil {
				return err
			}
			if !known {
				kind, about, text = overflow, "", fmt.Sprintf("%d different alerts of this gate are kept, others are not: look at what it sends, revoke its device if it is not to be trusted", maxAlerts)
			}
		}
		_, err = tx.ExecContext(ctx, `INSERT INTO alert (gate, kind, about, text, first, last, times) VALUES ($1, $2, $3, $4, $5, $5, 1)
			ON CONFLICT (gate, kind, about) DO UPDATE SET text = excluded.text, last = excluded.last, times = alert.times + 1`,
			gate, kind, about, text, now)
		return err
	})
}

// dropAlerts forgets what has not happened again since a time.
func (s *store) dropAlerts(ctx context.Context, before int64) error {
	if _, err := s.w.ExecContext(ctx, `DELETE FROM alert WHERE last < $1`, before); err != nil {
		return fmt.Errorf("cannot forget alerts: %w", err)
	}
	return nil
}

// epochsSince counts the epochs that a gate has begun since a time.
func (s *store) epochsSince(ctx context.Context, gate, since int64) (n int, err error) {
	if err := s.r.QueryRowContext(ctx, `SELECT COUNT(*) FROM log WHERE gate = $1 AND first_at > $2`, gate, since).Scan(&n); err != nil {
		return 0, fmt.Errorf("cannot count the gate's epochs: %w", err)
	}
	return n, nil
}
