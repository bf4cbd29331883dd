package community

import (
	"context"
	"database/sql"
	"encoding/json"
	"errors"
	"fmt"

	"filippo.io/age"

	"gatehouse/edge"
	"gatehouse/sync/wire"
)

// noteChange notes what a gate changed about a pass by itself. It is laid over the
// roster in the next snapshot. Of two gates' changes of one pass the later holds;
// those of one log hold in its order, also where its clock ran backwards.
func noteChange(ctx context.Context, tx *sql.Tx, l *gateLog, seq uint64, c edge.PassChange) error {
	// The mark first, as dropLocal does it: two must not wait for each other.
	_, err := tx.ExecContext(ctx, `INSERT INTO contains (log, received, published) VALUES ($1, $2, 0)
		ON CONFLICT (log) DO UPDATE SET received = excluded.received`, l.id, int64(seq+1))
	if err != nil {
		return err
	}
	_, err = tx.ExecContext(ctx, `INSERT INTO local_change (site, pass, at, status, reason, log, seq) VALUES ($1, $2, $3, $4, $5, $6, $7)
		ON CONFLICT (site, pass) DO UPDATE SET at = CASE WHEN local_change.at > excluded.at THEN local_change.at ELSE excluded.at END,
			status = excluded.status, reason = excluded.reason, log = excluded.log, seq = excluded.seq
		WHERE local_change.at <= excluded.at OR local_change.log = excluded.log AND local_change.seq <= excluded.seq`,
		l.gate.site, int64(c.Pass), c.At, string(c.Status), c.Reason, l.id, int64(seq))
	return err
}

// dropLocal forgets what the site's gates have changed by themselves. It holds up the
// receiver at the marks of their logs, in its order, before it waits for a change.
func dropLocal(ctx context.Context, tx *sql.Tx, site string) error {
	logs, err := receivedChanges(ctx, tx, site)
	if err != nil {
		return err
	}
	for _, l := range logs {
		if _, err := tx.ExecContext(ctx, `UPDATE contains SET received = received WHERE log = $1`, l.id); err != nil {
			return err
		}
	}
	_, err = tx.ExecContext(ctx, `DELETE FROM local_change WHERE site = $1`, site)
	return err
}

// changed reads a gate's change of a pass as it was received at a time: nothing has
// happened after that, whatever the gate's clock says, or it would hold over what
// other gates change until then.
func changed(data []byte, now int64) (edge.PassChange, bool) {
	c, ok := changeOf(data)
	c.At = min(plausible(c.At, now), now)
	return c, ok
}

// changeOf reads a gate's change of a pass.
func changeOf(data []byte) (edge.PassChange, bool) {
	var c edge.PassChange
	if json.Unmarshal(data, &c) != nil || c.Pass < 1 || c.Pass > edge.MaxID || len(c.Reason) > 1000 || len(c.Actor) > maxColumn {
		return c, false
	}
	switch c.Status {
	case "", edge.PassActive, edge.PassSuspended, edge.PassLost, edge.PassForeign:
	default:
		return c, false
	}
	c.Reason, c.Actor = cleanString(c.Reason), cleanString(c.Actor)
	return c, true
}

// localChange is what holds of a pass whatever the roster says.
type localChange struct{ status, reason string }

func localChanges(ctx context.Context, q querier, site string) (map[int64]localChange, error) {
	out := map[int64]localChange{}
	rows, err := q.QueryContext(ctx, `SELECT pass, status, reason FROM local_change WHERE site = $1 AND status <> ''`, site)
	err = each(rows, err, func() error {
		var pass int64
		var c localChange
		err := rows.Scan(&pass, &c.status, &c.reason)
		out[pass] = c
		return err
	})
	return out, err
}

// receivedChanges says how far each log's changes were received, in the order in
// which the receiver locks them.
func receivedChanges(ctx context.Context, q querier, site string) ([]logSize, error) {
	var out []logSize
	rows, err := q.QueryContext(ctx, `SELECT c.log, c.received FROM contains c JOIN log l ON l.id = c.log JOIN gate g ON g.id = l.gate WHERE g.site = $1 ORDER BY c.log`, site)
	err = each(rows, err, func() error {
		var id, next int64
		err := rows.Scan(&id, &next)
		out = append(out, logSize{id, uint64(next)})
		return err
	})
	return out, err
}

// onto lays the change over a roster's row.
func (c localChange) onto(text []byte) ([]byte, error) {
	var r wire.Row
	if err := json.Unmarshal(text, &r); err != nil {
		return nil, fmt.Errorf("stored row of the roster: %w", err)
	}
	r.Pass.Status, r.Pass.Reason = edge.PassStatus(c.status), c.reason
	return wire.Encode(r)
}

// contained says how far the gates' own changes are in the published registry.
func contained(ctx context.Context, q querier, site string) ([]wire.PeerMark, error) {
	var out []wire.PeerMark
	rows, err := q.QueryContext(ctx, `SELECT g.name, l.epoch, c.published FROM contains c JOIN log l ON l.id = c.log JOIN gate g ON g.id = l.gate
		WHERE g.site = $1 AND c.published > 0 ORDER BY l.id`, site)
	err = each(rows, err, func() error {
		var m wire.PeerMark
		var epoch string
		var next int64
		if err := rows.Scan(&m.Gate, &epoch, &next); err != nil {
			return err
		}
		m.Next = uint64(next)
		var err error
		m.Epoch, err = edge.ParseEpoch(epoch)
		out = append(out, m)
		return err
	})
	return out, err
}

// Republish makes a new version of every registry that lacks changes the gates
// have made by themselves.
func (s *Server) Republish(ctx context.Context) error {
	var sites []string
	rows, err := s.store.r.QueryContext(ctx, `SELECT DISTINCT g.site FROM contains c JOIN log l ON l.id = c.log JOIN gate g ON g.id = l.gate
		JOIN registry r ON r.site = g.site WHERE c.received > c.published`)
	err = each(rows, err, func() error {
		var site string
		err := rows.Scan(&site)
		sites = append(sites, site)
		return err
	})
	if err != nil {
		return fmt.Errorf("cannot find local changes: %w", err)
	}
	for _, site := range sites {
		if err := s.recut(ctx, site, false); err != nil {
			return err
		}
	}
	return nil
}

// rotate encrypts the site's registry to a new content key.
func (s *Server) rotate(ctx context.Context, site string) error {
	if err := s.recut(ctx, site, true); err != nil {
		return err
	}
	return s.scrubKey(ctx, site)
}

// scrubKey takes the content key that a site had, and what it opened, off the medium.
func (s *Server) scrubKey(ctx context.Context, site string) error {
	if err := s.store.bulk.scrub(ctx, s.store.w, "registry", "chunk", "registry_delta"); err != nil {
		return fmt.Errorf("the registry of %s has a new content key: %w", site, err)
	}
	return nil
}

// recut makes a new version of a site's registry from the rows that are there; a
// site without one is left alone. Its caller scrubs what the one before leaves.
func (s *Server) recut(ctx context.Context, site string, newKey bool) error {
	err := s.store.write(ctx, func(tx *sql.Tx) error {
		if err := s.store.bulk.turn(ctx, tx, turnRegistry(site)); err != nil {
			return err
		}
		return recutIn(ctx, tx, site, newKey)
	})
	if err != nil {
		return fmt.Errorf("cannot publish the registry of %s anew: %w", site, err)
	}
	s.tell()
	return nil
}

// recutIn is recut in a transaction that has the registry's turn.
func recutIn(ctx context.Context, tx *sql.Tx, site string, newKey bool) error {
	var version int64
	var identity string
	err := tx.QueryRowContext(ctx, `SELECT version, identity FROM registry WHERE site = $1`, site).Scan(&version, &identity)
	if errors.Is(err, sql.ErrNoRows) {
		return nil
	}
	if err != nil {
		return err
	}
	if newKey {
		id, err := age.GenerateX25519Identity()
		if err != nil {
			return fmt.Errorf("cannot make a content key: %w", err)
		}
		identity = id.String()
		for _, q := range []string{`DELETE FROM chunk WHERE site = $1`, `DELETE FROM registry_delta WHERE site = $1`} {
			if _, err := tx.ExecContext(ctx, q, site); err != nil {
				return err
			}
		}
	}
	next := nextVersion(version)
	if err := cutChunks(ctx, tx, site, identity, version, next); err != nil {
		return err
	}
	_, err = tx.ExecContext(ctx, `UPDATE registry SET version = $1, identity = $2, rows = (SELECT COUNT(*) FROM roster WHERE site = $3) WHERE site = $3`, next, identity, site)
	return err
}
