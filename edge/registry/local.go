package registry

import (
	"context"
	"database/sql"
	"encoding/json"
	"errors"
	"fmt"
	"time"

	"gatehouse/edge"
)

// Suspend withdraws a pass until Restore. It holds at once, and waits in
// Pending until the daemon has journalled it.
func (r *Registry) Suspend(ctx context.Context, id edge.PassID, reason, actor string) error {
	return r.SetStatus(ctx, id, edge.PassSuspended, reason, actor)
}

// Restore takes back what gates changed of a pass: it is again as the roster
// says. What the roster itself withdraws must be changed in the roster.
func (r *Registry) Restore(ctx context.Context, id edge.PassID, actor string) error {
	return r.SetStatus(ctx, id, "", "", actor)
}

// SetStatus gives a pass a status over that of the roster; empty takes it back.
func (r *Registry) SetStatus(ctx context.Context, id edge.PassID, status edge.PassStatus, reason, actor string) error {
	switch status {
	case "", edge.PassActive, edge.PassSuspended, edge.PassLost, edge.PassForeign:
	default:
		return fmt.Errorf("cannot change pass %d: status %q is not active, suspended, lost or foreign", id, status)
	}
	if len(reason) > maxText {
		return fmt.Errorf("cannot change pass %d: the reason is longer than %d bytes", id, maxText)
	}
	err := r.write(ctx, func(tx *sql.Tx) error {
		var body []byte
		var present sql.NullString
		var was sql.NullInt64
		switch err := tx.QueryRowContext(ctx, `SELECT p.body, l.status, l.at FROM passes p LEFT JOIN local l ON l.pass = p.id WHERE p.id = ?`, int64(id)).Scan(&body, &present, &was); {
		case errors.Is(err, sql.ErrNoRows):
			return edge.ErrUnknown
		case err != nil:
			return err
		}
		if status == "" && present.String == "" {
			var p edge.Pass
			if err := json.Unmarshal(body, &p); err != nil {
				return err
			}
			if p.Status != edge.PassActive {
				return edge.Refuse("in_roster", "the roster itself says %s: change it in the roster", p.Status)
			}
			return nil // nothing to take back
		}
		// Whoever stands at the keyboard means now, whatever an earlier clock said: it
		// is journalled so, too, since the server and the other gates know no more.
		ch := edge.PassChange{Pass: id, Status: status, Reason: reason, Actor: actor, At: max(r.now(), was.Int64)}
		data, err := json.Marshal(ch)
		if err != nil {
			return err
		}
		res, err := tx.ExecContext(ctx, `INSERT INTO pending (data) VALUES (?)`, string(data))
		if err != nil {
			return err
		}
		n, err := res.LastInsertId()
		if err != nil {
			return err
		}
		_, err = tx.ExecContext(ctx, `INSERT INTO local VALUES (?, ?, ?, ?, '', '', 0, ?) ON CONFLICT (pass) DO UPDATE SET
			status = excluded.status, reason = excluded.reason, at = excluded.at, gate = '', epoch = '', seq = 0, pending = excluded.pending`,
			int64(id), string(status), reason, ch.At, n)
		return err
	})
	if err != nil {
		return fmt.Errorf("cannot change pass %d: %w", id, err)
	}
	return nil
}

// Apply applies a change that a journal records: this gate's own, or what a
// peer reported. Each gate's changes come in the order of its journal; one that
// was applied before, or that a server's version contained, changes nothing. Of
// two gates' changes of one pass the later holds; of one gate's the later in its
// journal, also where its clock ran backwards.
func (r *Registry) Apply(ctx context.Context, from edge.EntryRef, ch edge.PassChange) error {
	err := r.write(ctx, func(tx *sql.Tx) error {
		res, err := tx.ExecContext(ctx, `INSERT INTO applied VALUES (?, ?, ?) ON CONFLICT (gate, epoch) DO UPDATE SET next = excluded.next WHERE next < excluded.next`,
			from.Gate, from.Epoch.String(), int64(from.Seq)+1)
		if err != nil {
			return err
		}
		if n, err := res.RowsAffected(); err != nil || n == 0 {
			return err
		}
		_, err = tx.ExecContext(ctx, `INSERT INTO local VALUES (?, ?, ?, ?, ?, ?, ?, 0) ON CONFLICT (pass) DO UPDATE SET
			status = excluded.status, reason = excluded.reason, at = max(at, excluded.at), gate = excluded.gate, epoch = excluded.epoch, seq = excluded.seq, pending = 0
			WHERE at <= excluded.at OR gate = excluded.gate AND epoch = excluded.epoch AND seq < excluded.seq`,
			int64(ch.Pass), string(ch.Status), ch.Reason, ch.At, from.Gate, from.Epoch.String(), int64(from.Seq))
		return err
	})
	if err != nil {
		return fmt.Errorf("cannot apply the change of pass %d: %w", ch.Pass, err)
	}
	return nil
}

// Applied is the sequence after the last entry of a gate's epoch that was
// applied: where catching up starts.
func (r *Registry) Applied(ctx context.Context, gate string, epoch edge.Epoch) (uint64, error) {
	var next int64
	err := r.db.R.QueryRowContext(ctx, `SELECT next FROM applied WHERE gate = ? AND epoch = ?`, gate, epoch.String()).Scan(&next)
	if err != nil && !errors.Is(err, sql.ErrNoRows) {
		return 0, fmt.Errorf("cannot read what was applied: %w", err)
	}
	return uint64(next), nil
}

// drop forgets the local changes that a server's version contains.
func drop(ctx context.Context, tx *sql.Tx, contains []edge.EntryRef) error {
	for _, c := range contains {
		if _, err := tx.ExecContext(ctx, `DELETE FROM local WHERE gate = ? AND epoch = ? AND seq <= ? AND pending = 0`, c.Gate, c.Epoch.String(), int64(c.Seq)); err != nil {
			return err
		}
		if _, err := tx.ExecContext(ctx, `INSERT INTO applied VALUES (?, ?, ?) ON CONFLICT (gate, epoch) DO UPDATE SET next = max(next, excluded.next)`, c.Gate, c.Epoch.String(), int64(c.Seq)+1); err != nil {
			return err
		}
	}
	return nil
}

// Pending is a change made at this gate that its journal does not have yet:
// Data is the data of its registry entry, an edge.PassChange or Changes.
type Pending struct {
	N    int64
	Data json.RawMessage
}

// Pending lists what is to be journalled, oldest first, at most 100.
func (r *Registry) Pending(ctx context.Context) ([]Pending, error) {
	rows, err := r.db.R.QueryContext(ctx, `SELECT n, data FROM pending ORDER BY n LIMIT 100`)
	if err != nil {
		return nil, fmt.Errorf("cannot read pending changes: %w", err)
	}
	defer rows.Close()
	var out []Pending
	for rows.Next() {
		var p Pending
		var data string
		if err := rows.Scan(&p.N, &data); err != nil {
			return nil, fmt.Errorf("cannot read pending changes: %w", err)
		}
		p.Data = json.RawMessage(data)
		out = append(out, p)
	}
	return out, rows.Err()
}

// Journalled says that a pending change is in the journal, and where.
func (r *Registry) Journalled(ctx context.Context, n int64, at edge.EntryRef) error {
	err := r.write(ctx, func(tx *sql.Tx) error {
		_, err := tx.ExecContext(ctx, `UPDATE local SET gate = ?, epoch = ?, seq = ?, pending = 0 WHERE pending = ?`, at.Gate, at.Epoch.String(), int64(at.Seq), n)
		if err != nil {
			return err
		}
		_, err = tx.ExecContext(ctx, `DELETE FROM pending WHERE n = ?`, n)
		return err
	})
	if err != nil {
		return fmt.Errorf("cannot note that a change is journalled: %w", err)
	}
	return nil
}

// Run journals pending changes as they come, whichever process made them,
// until the context ends. record appends one entry and says where it is. After
// a crash between the two a change may be journalled twice; applying it twice
// changes nothing.
func (r *Registry) Run(ctx context.Context, record func(context.Context, json.RawMessage) (edge.EntryRef, error)) error {
	tick := time.NewTicker(time.Second)
	defer tick.Stop()
	for {
		if err := r.drain(ctx, record); err != nil && ctx.Err() == nil {
			r.o.Log.Error("journalling changes of the registry", "err", err)
		}
		select {
		case <-ctx.Done():
			return nil
		case <-tick.C:
		}
	}
}

func (r *Registry) drain(ctx context.Context, record func(context.Context, json.RawMessage) (edge.EntryRef, error)) error {
	waiting, err := r.Pending(ctx)
	if err != nil {
		return err
	}
	for _, p := range waiting {
		at, err := record(ctx, p.Data)
		if err != nil {
			return err
		}
		if err := r.Journalled(ctx, p.N, at); err != nil {
			return err
		}
	}
	return nil
}
