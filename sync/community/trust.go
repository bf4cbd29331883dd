package community

import (
	"bytes"
	"context"
	"database/sql"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"gatehouse/sync/wire"
)

// lists are the lists of the server's keys after a number, the newest [wire.MaxLists]
// of them at most, in order.
func (s *store) lists(ctx context.Context, q querier, after uint64) ([][]byte, error) {
	var out [][]byte
	rows, err := q.QueryContext(ctx, `SELECT payload FROM trust WHERE number > $1 ORDER BY number DESC LIMIT $2`, int64(after), wire.MaxLists)
	err = each(rows, err, func() error {
		var b []byte
		err := rows.Scan(&b)
		out = append(out, b)
		return err
	})
	slices.Reverse(out)
	if err != nil {
		return nil, fmt.Errorf("cannot read the lists of keys: %w", err)
	}
	return out, nil
}

// Trust is the keys that gates go by when they have heard from this server: those
// of the last list, or before there is one, those that a gate is enrolled with.
func (s *Server) Trust(ctx context.Context) (wire.Trust, error) { return s.trustIn(ctx, s.store.r) }

func (s *Server) trustIn(ctx context.Context, q querier) (wire.Trust, error) {
	lists, err := s.store.lists(ctx, q, 0)
	if err != nil {
		return wire.Trust{}, err
	}
	if len(lists) > 0 {
		return wire.PeekTrust(lists[len(lists)-1])
	}
	own := wire.ServerKey{ID: s.cfg.Signer.Name(), Public: s.cfg.Signer.Public(), Uses: wire.AllUses()}
	text := own.Line()
	if s.cfg.Enrolment != nil {
		text = s.cfg.Enrolment.Trust
	}
	return wire.ParseTrust("the keys that gates are enrolled with", []byte(text))
}

// trustText is the trust file for a gate that is enrolled now. The key that signs
// the answer comes first.
func (s *Server) trustText(ctx context.Context) (string, error) {
	t, err := s.Trust(ctx)
	if err != nil {
		return "", err
	}
	slices.SortStableFunc(t.Keys, func(a, b wire.ServerKey) int {
		own := func(k wire.ServerKey) int {
			if bytes.Equal(k.Public, s.cfg.Signer.Public()) {
				return 0
			}
			return 1
		}
		return own(a) - own(b)
	})
	return t.Text(), nil
}

// PublishTrust publishes a list of keys that was signed, here or elsewhere: gates go
// by it from then on. It must follow the one in force, by a key that may say so, and
// hold the key of this server, or gates would not believe what it says. What gates
// were given by hand, this server does not know: the first list they judge by that.
func (s *Server) PublishTrust(ctx context.Context, payload []byte) (wire.Trust, error) {
	var next wire.Trust
	err := s.store.write(ctx, func(tx *sql.Tx) error {
		if err := s.store.bulk.turn(ctx, tx, turnTrust); err != nil {
			return err
		}
		now, err := s.trustIn(ctx, tx)
		if err != nil {
			return err
		}
		if next, err = wire.PeekTrust(payload); err != nil {
			return err
		}
		if next.Number != now.Number+1 {
			return fmt.Errorf("its number is %d, the next one is %d", next.Number, now.Number+1)
		}
		if err := next.Check(); err != nil {
			return err
		}
		from := now.Keys
		if now.Number == 0 {
			from = slices.Concat(from, next.Keys)
		}
		if _, err := wire.OpenEnvelope(payload, wire.TypeTrust, wire.Everybody, wire.Everybody, wire.UseTrust, from); err != nil {
			return err
		}
		if missing := s.unlisted(next); len(missing) > 0 {
			return fmt.Errorf("this server's own key %s may not sign %s by it, so gates would not believe what it says", wire.Fingerprint(s.cfg.Signer.Public()), strings.Join(missing, ", "))
		}
		_, err = tx.ExecContext(ctx, `INSERT INTO trust (number, payload, at) VALUES ($1, $2, $3)`, int64(next.Number), string(payload), time.Now().UnixMilli())
		return err
	})
	if err != nil {
		return next, fmt.Errorf("cannot publish the list of keys: %w", err)
	}
	s.tell()
	return next, nil
}

// unlisted are the uses that the server's key needs and does not have.
func (s *Server) unlisted(t wire.Trust) []string {
	missing := []string{string(wire.UseReceipts), string(wire.UseRegistry), string(wire.UseCommands)}
	for _, k := range t.Keys {
		if bytes.Equal(k.Public, s.cfg.Signer.Public()) && k.ID == s.cfg.Signer.Name() {
			missing = slices.DeleteFunc(missing, func(u string) bool { return slices.Contains(k.Uses, wire.Use(u)) })
		}
	}
	return missing
}

// checkOwnKey says at the start that gates will not believe this server.
func (s *Server) checkOwnKey(ctx context.Context) error {
	t, err := s.Trust(ctx)
	if err != nil {
		return err
	}
	if missing := s.unlisted(t); t.Number > 0 && len(missing) > 0 {
		return fmt.Errorf("this server's key %s is not in list %d of the keys that gates go by (not for %s): publish one that holds it, with the key that is in it, or start with that one's --keys",
			wire.Fingerprint(s.cfg.Signer.Public()), t.Number, strings.Join(missing, ", "))
	}
	return nil
}

// receiptFor is what is stored for a log, cosigned by the key of now: a gate that has
// heard of its predecessor's end does not believe that one's receipts any more.
func (c *committer) receiptFor(l *gateLog, now time.Time) ([]byte, error) {
	if len(l.receipt) == 0 || bytes.Contains(l.receipt, c.cosigner) {
		return l.receipt, nil
	}
	again, err := wire.Cosign(l.head, now, c.cfg.Signer)
	if err != nil {
		return nil, err
	}
	l.receipt = again
	return again, nil
}

var errNoSigner = errors.New("a cosignature without its line")

// cosignerLine begins the line of the signer's cosignature on any head: its name and
// the hash of its key.
func (s *Server) cosignerLine() ([]byte, error) {
	b, err := wire.Cosign([]byte("x\n\n"), time.Now(), s.cfg.Signer)
	if err != nil {
		return nil, err
	}
	_, line, ok := bytes.Cut(b, []byte("\n\n"))
	i := bytes.LastIndexByte(line, ' ')
	// Four bytes of hash are five characters of base64 and a part of the sixth.
	if !ok || i < 0 || len(line) < i+6 {
		return nil, errNoSigner
	}
	return line[:i+6], nil
}
