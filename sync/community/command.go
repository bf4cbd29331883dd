package community

import (
	"context"
	"database/sql"
	"encoding/json"
	"errors"
	"fmt"
	"time"

	"gatehouse/edge"
	"gatehouse/sync/wire"
)

// Order is a command to one gate, and what became of it.
type Order struct {
	Number  uint64          `json:"number"`
	Site    string          `json:"site"`
	Gate    string          `json:"gate"`
	Name    string          `json:"name"` // open, plan, reload, purge, ...
	Args    json.RawMessage `json:"args,omitempty"`
	Actor   string          `json:"actor"`
	Issued  int64           `json:"issued"`  // UTC ms
	Expires int64           `json:"expires"` // UTC ms
	Status  string          `json:"status"`  // "", done, failed, refused, unknown
	Text    string          `json:"text,omitempty"`
}

// Command orders a gate to do something, once and soon: the order holds the nonce
// of the gate's last status, so that a gate which was offline meanwhile refuses
// it. It goes out when the server runs.
func (s *Server) Command(ctx context.Context, o Order, valid time.Duration) (uint64, error) {
	if len(o.Args) > 0 && !json.Valid(o.Args) {
		return 0, errors.New("cannot issue the command: its arguments are not JSON")
	}
	now := time.Now()
	err := s.store.write(ctx, func(tx *sql.Tx) error {
		if err := s.store.bulk.turn(ctx, tx, turnCommands); err != nil {
			return err
		}
		var status string
		err := tx.QueryRowContext(ctx, `SELECT status FROM gate WHERE site = $1 AND name = $2`, o.Site, o.Gate).Scan(&status)
		if errors.Is(err, sql.ErrNoRows) {
			return fmt.Errorf("gate %s/%s: %w", o.Site, o.Gate, edge.ErrUnknown)
		}
		if err != nil {
			return err
		}
		var st wire.StatusMessage
		if status == "" || json.Unmarshal([]byte(status), &st) != nil || !st.Online || st.Nonce == "" {
			return fmt.Errorf("gate %s/%s is not online", o.Site, o.Gate)
		}
		var last sql.NullInt64
		if err := tx.QueryRowContext(ctx, `SELECT MAX(number) FROM command`).Scan(&last); err != nil {
			return err
		}
		// Above all that went before, also those of a database that was lost.
		o.Number = uint64(max(last.Int64+1, now.UnixMilli()))
		body, err := wire.Encode(wire.CommandBody{V: wire.Version, Number: o.Number, Nonce: st.Nonce, Expires: now.Add(valid).UnixMilli(),
			Name: o.Name, Args: o.Args, Actor: o.Actor})
		if err != nil {
			return err
		}
		_, err = tx.ExecContext(ctx, `INSERT INTO command (number, site, gate, payload, name, actor, issued, expires, sent, status, text)
			VALUES ($1, $2, $3, $4, $5, $6, $7, $8, 0, '', '')`,
			int64(o.Number), o.Site, o.Gate, string(body), o.Name, o.Actor, now.UnixMilli(), now.Add(valid).UnixMilli())
		return err
	})
	if err != nil {
		return 0, fmt.Errorf("cannot issue the command: %w", err)
	}
	s.tell()
	return o.Number, nil
}

// sendCommands publishes the orders that have not gone out. An order is marked as
// sent before: it is better lost, which its giver sees, than carried out twice.
func (s *Server) sendCommands(ctx context.Context) error {
	type order struct {
		number  int64
		to      gateName
		payload string
	}
	var all []order
	rows, err := s.store.r.QueryContext(ctx, `SELECT number, site, gate, payload FROM command WHERE sent = 0 AND expires > $1 ORDER BY number`, time.Now().UnixMilli())
	err = each(rows, err, func() error {
		var o order
		err := rows.Scan(&o.number, &o.to.site, &o.to.gate, &o.payload)
		all = append(all, o)
		return err
	})
	if err != nil {
		return err
	}
	for _, o := range all {
		res, err := s.store.w.ExecContext(ctx, `UPDATE command SET sent = $1 WHERE number = $2 AND sent = 0`, time.Now().UnixMilli(), o.number)
		if err != nil {
			return err
		}
		if n, err := res.RowsAffected(); err != nil || n != 1 {
			continue // another server was faster
		}
		if err := s.say(ctx, o.to, wire.TypeCommand, wire.Commands, json.RawMessage(o.payload)); err != nil {
			return err
		}
	}
	return nil
}

// noteResult keeps what a gate says became of a command. Its journal has the same,
// signed.
func (s *Server) noteResult(ctx context.Context, m asked) error {
	var r wire.Result
	if err := wire.Decode(m.payload, &r); err != nil {
		return err
	}
	if len(r.Text) > 1000 || len(r.Status) > 100 || r.Number > 1<<62 {
		return fmt.Errorf("%w: result is too long", wire.ErrMalformed)
	}
	_, err := s.store.w.ExecContext(ctx, `UPDATE command SET status = $1, text = $2 WHERE number = $3 AND site = $4 AND gate = $5 AND sent > 0`,
		cleanString(r.Status), cleanString(r.Text), int64(r.Number), m.site, m.gate)
	return err
}

// OrderOf reads what became of a command.
func (s *Server) OrderOf(ctx context.Context, number uint64) (Order, error) {
	o := Order{Number: number}
	err := s.store.r.QueryRowContext(ctx, `SELECT site, gate, name, actor, issued, expires, status, text FROM command WHERE number = $1`, int64(number)).
		Scan(&o.Site, &o.Gate, &o.Name, &o.Actor, &o.Issued, &o.Expires, &o.Status, &o.Text)
	if errors.Is(err, sql.ErrNoRows) {
		err = edge.ErrUnknown
	}
	if err != nil {
		return Order{}, fmt.Errorf("command %d: %w", number, err)
	}
	return o, nil
}
