package community

import (
	"context"
	"database/sql"
	"encoding/json"
	"fmt"
	"sync"
	"time"

	"gatehouse/edge"
	"gatehouse/sync/wire"
)

// relay remembers what was sent of the peers' deltas. The marks that count are
// in the store and move only when the gate says what it has applied.
type relay struct {
	mu   sync.Mutex
	sent map[relayKey]sent
	lost int           // how often all that was sent was forgotten
	asks map[int64]int // how often a gate said what it has
	some chan struct{}
}

// sent is how far one log was sent to one gate.
type sent struct {
	last uint64 // one more than the last entry sent, what the next message follows on
	seen uint64 // everything below was looked at
}

type relayKey struct {
	to, log int64
}

func (r *relay) init() {
	r.sent, r.asks = map[relayKey]sent{}, map[int64]int{}
	r.some = make(chan struct{}, 1)
}

func (r *relay) wake() {
	select {
	case r.some <- struct{}{}:
	default:
	}
}

// again forgets what was sent, so that all that is not confirmed goes out again.
func (r *relay) again() {
	r.mu.Lock()
	clear(r.sent)
	r.lost++
	r.mu.Unlock()
	r.wake()
}

const (
	relayBatch = 256         // entries that one message holds at most
	relayPause = time.Second // after a failure
)

func (s *Server) relayLoop(ctx context.Context) error {
	s.relay.wake() // what a former process did not send
	for {
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-s.relay.some:
		}
		if err := s.relayAll(ctx); err != nil {
			if ctx.Err() != nil {
				return ctx.Err()
			}
			s.log.Warn("cannot relay to peers, will try again", "error", err)
			select {
			case <-ctx.Done():
				return ctx.Err()
			case <-time.After(relayPause):
				s.relay.wake()
			}
		}
	}
}

// route is one peer's log as one gate should know it.
type route struct {
	relayKey
	to         gateName
	from       string
	epoch      edge.Epoch
	size, mark uint64
}

// routes lists, for each gate, the logs of its site's other gates.
func (s *store) routes(ctx context.Context) ([]route, error) {
	var out []route
	rows, err := s.r.QueryContext(ctx, `SELECT t.id, t.site, t.name, f.name, l.id, l.epoch, l.size, COALESCE(m.next, 0)
		FROM gate t JOIN gate f ON f.site = t.site AND f.id <> t.id JOIN log l ON l.gate = f.id
		LEFT JOIN peer_mark m ON m.gate = t.id AND m.log = l.id
		WHERE EXISTS (SELECT 1 FROM gate_key k WHERE k.gate = t.id AND k.state = 'approved') ORDER BY t.id, l.id`)
	err = each(rows, err, func() error {
		var r route
		var epoch string
		var size, mark int64
		if err := rows.Scan(&r.relayKey.to, &r.to.site, &r.to.gate, &r.from, &r.log, &epoch, &size, &mark); err != nil {
			return err
		}
		r.size, r.mark = uint64(size), uint64(mark)
		var err error
		r.epoch, err = edge.ParseEpoch(epoch)
		out = append(out, r)
		return err
	})
	return out, err
}

func (s *Server) relayAll(ctx context.Context) error {
	routes, err := s.store.routes(ctx)
	if err != nil {
		return fmt.Errorf("cannot read the peers' marks: %w", err)
	}
	for _, r := range routes {
		if err := s.relayOne(ctx, r); err != nil {
			return fmt.Errorf("%s/%s: %w", r.to.site, r.to.gate, err)
		}
	}
	return nil
}

// relayOne sends one gate what it lacks of one log, in order.
func (s *Server) relayOne(ctx context.Context, r route) error {
	for {
		s.relay.mu.Lock()
		was, lost, asks := s.relay.sent[r.relayKey], s.relay.lost, s.relay.asks[r.relayKey.to]
		s.relay.mu.Unlock()
		now := sent{last: max(was.last, r.mark), seen: max(was.seen, r.mark)}
		if now.seen >= r.size {
			return nil
		}
		body := wire.PeersBody{V: wire.Version, Gate: r.from, Epoch: r.epoch, From: now.last}
		rows, err := s.store.r.QueryContext(ctx, `SELECT seq, at, deltas, change FROM delta WHERE log = $1 AND seq >= $2 AND seq < $3 ORDER BY seq LIMIT $4`,
			r.log, int64(now.seen), int64(r.size), relayBatch)
		n := 0
		err = each(rows, err, func() error {
			var e wire.PeerEntry
			var seq int64
			var deltas, change string
			err := rows.Scan(&seq, &e.Time, &deltas, &change)
			if err != nil {
				return err
			}
			n++
			e.Seq = uint64(seq)
			now.seen = e.Seq + 1
			if deltas != "" && json.Unmarshal([]byte(deltas), &e.Deltas) != nil {
				return nil // what this version cannot read it does not pass on
			}
			if c, ok := changeOf([]byte(change)); ok {
				if e.Change, err = wire.Encode(c); err != nil {
					return err
				}
			}
			if len(e.Deltas) == 0 && e.Change == nil {
				return nil
			}
			now.last = now.seen
			body.Entries = append(body.Entries, e)
			return nil
		})
		if err != nil {
			return err
		}
		if n < relayBatch {
			now.seen = r.size // nothing more up to here
		}
		if len(body.Entries) > 0 {
			if err := s.say(ctx, r.to, wire.TypePeers, wire.Peers, body); err != nil {
				return err
			}
		}
		s.relay.mu.Lock()
		moved := s.relay.lost != lost || s.relay.asks[r.relayKey.to] != asks
		if !moved {
			s.relay.sent[r.relayKey] = now
		}
		s.relay.mu.Unlock()
		if moved {
			// The gate asked again, or the connection broke, while this was sent.
			s.relay.wake()
			return nil
		}
	}
}

// say publishes a signed message to one gate.
func (s *Server) say(ctx context.Context, to gateName, typ string, c wire.Channel, body any) error {
	b, err := wire.Encode(body)
	if err != nil {
		return err
	}
	e := wire.Envelope{Type: typ, Site: to.site, Gate: to.gate, IssuedAt: time.Now().UnixMilli(), Body: b}
	if err := e.Sign(s.cfg.Signer); err != nil {
		return err
	}
	payload, err := e.Encode()
	if err != nil {
		return err
	}
	return s.t.Publish(ctx, wire.Topic(to.site, to.gate, c), payload, false)
}

// confirm moves the marks to what a gate says it has applied, and lets
// everything beyond them be sent again.
func (s *Server) confirm(ctx context.Context, g *gate, marks []wire.PeerMark) error {
	err := s.store.write(ctx, func(tx *sql.Tx) error {
		for _, m := range marks {
			if _, err := tx.ExecContext(ctx, `INSERT INTO peer_mark (gate, log, next)
				SELECT CAST($1 AS BIGINT), l.id, CAST($2 AS BIGINT) FROM log l JOIN gate f ON f.id = l.gate WHERE f.site = $3 AND f.name = $4 AND l.epoch = $5 AND l.size >= $2
				ON CONFLICT (gate, log) DO UPDATE SET next = excluded.next`,
				g.id, int64(m.Next), g.site, m.Gate, m.Epoch.String()); err != nil {
				return err
			}
		}
		return nil
	})
	if err != nil {
		return err
	}
	s.relay.mu.Lock()
	for k := range s.relay.sent {
		if k.to == g.id {
			delete(s.relay.sent, k)
		}
	}
	s.relay.asks[g.id]++
	s.relay.mu.Unlock()
	s.relay.wake()
	return nil
}
