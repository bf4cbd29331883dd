// Package community is the server's side: it receives the gates' journals,
// verifies them, stores every entry once, says so with a receipt after its own
// commit, relays what gates of a site must know of each other, and publishes
// registry and policies. DESIGN.md has its guarantees.
package community

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"sync"
	"sync/atomic"
	"time"

	"golang.org/x/sync/errgroup"

	"gatehouse/edge"
	"gatehouse/edge/clock"
	"gatehouse/sync/wire"
)

// Config says who the server is.
type Config struct {
	Community string      // the first part of the logs' origins
	Signer    edge.Signer // cosigns heads, signs refusals, manifests and deltas
	Log       *slog.Logger
	Retention Retention  // zero values are the defaults
	Enrolment *Enrolment // nil: nobody is made a gate here
	Clock     edge.Clock // by which retention ends; nil: the machine's
	// Open decrypts what gates have sealed to the community, up to limit bytes.
	Open func(r io.Reader, limit int64) ([]byte, error)
}

// Transport carries messages to and from the broker.
type Transport interface {
	// Publish sends at quality of service 1.
	Publish(ctx context.Context, topic string, payload []byte, retained bool) error
	// Subscribe is for before the transport runs; f is called in order of arrival.
	Subscribe(topic string, f func(topic string, payload []byte))
	// OnConnect calls f after each connection to the broker.
	OnConnect(f func(ctx context.Context))
}

// Server is the receiving end for all gates of some sites.
type Server struct {
	cfg   Config
	log   *slog.Logger
	store *store
	clock edge.Clock
	t     Transport

	decode    []chan incoming // one for each worker; a gate has always the same
	ready     chan *prepared
	asked     chan asked
	published chan struct{} // this process has published something
	replies   replies
	relay     relay
	dropped   atomic.Uint64 // messages that a full queue had no place for, since that was last said
	repeated  atomic.Uint64 // entries that came again

	mu    sync.Mutex
	gates map[gateName]*cachedGate
}

type gateName struct{ site, gate string }

type cachedGate struct {
	*gate // nil: unknown when it was read
	read  time.Time
}

// incoming is a journal payload as it came.
type incoming struct {
	gateName
	payload []byte
}

// asked is any other message of a gate.
type asked struct {
	gateName
	channel wire.Channel
	payload []byte
	at      time.Time // it arrived
}

// Open opens the store, an SQLite file or a postgres:// address, and brings its
// schema up to date.
func Open(ctx context.Context, where string, cfg Config) (*Server, error) {
	if err := wire.CheckName(cfg.Community); err != nil {
		return nil, fmt.Errorf("community: %w", err)
	}
	clk := cfg.Clock
	if clk == nil {
		// A server's system clock is kept by whoever runs it; whether it can be true is
		// asked where something depends on it.
		var err error
		if clk, err = clock.New(clock.Options{Location: time.UTC, TrustSystem: true, Log: cfg.Log}); err != nil {
			return nil, err
		}
	}
	st, err := openStore(ctx, where)
	if err != nil {
		return nil, err
	}
	s := &Server{cfg: cfg, log: cfg.Log, store: st, clock: clk, ready: make(chan *prepared, 16), asked: make(chan asked, 256), published: make(chan struct{}, 1),
		gates: map[gateName]*cachedGate{}}
	for range workers {
		s.decode = append(s.decode, make(chan incoming, 64))
	}
	s.replies.init()
	s.relay.init()
	return s, nil
}

// Close closes the store; Run must have returned.
func (s *Server) Close() error { return s.store.close() }

// Attach subscribes to what gates send. It must come before the transport runs.
func (s *Server) Attach(t Transport) {
	s.t = t
	t.Subscribe(wire.Topic("+", "+", wire.Journal), func(topic string, payload []byte) {
		if g, _, ok := s.from(topic); ok {
			s.take(incoming{g, payload})
		}
	})
	for _, c := range []wire.Channel{wire.Requests, wire.Status, wire.Alerts, wire.Results} {
		t.Subscribe(wire.Topic("+", "+", c), func(topic string, payload []byte) {
			if g, c, ok := s.from(topic); ok {
				select {
				case s.asked <- asked{g, c, payload, time.Now()}:
				default:
					s.dropped.Add(1) // the gate asks again
				}
			}
		})
	}
	t.Subscribe(wire.EnrolTopic("+", "+"), func(topic string, payload []byte) {
		site, enrol, code, err := wire.ParseTopic(topic)
		if err != nil || s.cfg.Enrolment == nil {
			return
		}
		select {
		case s.asked <- asked{gateName{site, enrol}, code, payload, time.Now()}:
		default:
			s.dropped.Add(1) // the device asks again
		}
	})
	t.OnConnect(func(context.Context) {
		// What was published while the connection broke may be lost.
		s.relay.again()
	})
}

func (s *Server) from(topic string) (gateName, wire.Channel, bool) {
	site, gate, c, err := wire.ParseTopic(topic)
	if err == nil {
		err = wire.CheckGate(gate)
	}
	if err != nil {
		s.log.Warn("message on a topic that is no gate's", "error", err)
		return gateName{}, "", false
	}
	return gateName{site, gate}, c, true
}

// Run receives until ctx is done. What was taken in is finished or dropped: a
// gate sends again what has no receipt.
func (s *Server) Run(ctx context.Context) error {
	if s.t == nil {
		return errors.New("community server has no transport")
	}
	g, ctx := errgroup.WithContext(ctx)
	for _, c := range s.decode {
		g.Go(func() error { return s.decodeLoop(ctx, c) })
	}
	g.Go(func() error { return s.commitLoop(ctx) })
	g.Go(func() error { return s.replyLoop(ctx) })
	g.Go(func() error { return s.relayLoop(ctx) })
	g.Go(func() error { return s.answerLoop(ctx) })
	g.Go(func() error { return s.announceLoop(ctx) })
	g.Go(func() error { return s.purgeLoop(ctx) })
	g.Go(func() error { return s.dropLoop(ctx) })
	if err := g.Wait(); err != nil && !errors.Is(err, context.Canceled) {
		return err
	}
	return ctx.Err()
}

// gate finds a gate with its keys. Other processes may change them (an operator
// approves a key), so what is remembered is read again after a while.
func (s *Server) gate(ctx context.Context, n gateName, atMost time.Duration) (*gate, error) {
	s.mu.Lock()
	c := s.gates[n]
	s.mu.Unlock()
	if c != nil && time.Since(c.read) < atMost {
		return c.gate, nil
	}
	g, err := s.store.gateOf(ctx, s.store.r, n.site, n.gate)
	if err != nil {
		return nil, fmt.Errorf("cannot read gate %s/%s: %w", n.site, n.gate, err)
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if len(s.gates) > 100_000 {
		clear(s.gates) // names nobody registered must not pile up
	}
	s.gates[n] = &cachedGate{g, time.Now()}
	return g, nil
}

// forget has the gate read again: its keys have changed.
func (s *Server) forget(n gateName) {
	s.mu.Lock()
	delete(s.gates, n)
	s.mu.Unlock()
}

// RegisterGate approves the key of a gate's device, and makes the gate when it
// is new. age is the device's recipient, for what only it may read.
func (s *Server) RegisterGate(ctx context.Context, site, name string, public []byte, age, by string) error {
	return s.setKey(ctx, site, name, public, age, KeyApproved, by)
}

// RevokeGate ends the trust in a device: its heads are refused from now on, and
// the site's registry is encrypted anew, to a content key that it is not given.
func (s *Server) RevokeGate(ctx context.Context, site, name string, public []byte, by string) error {
	if err := s.setKey(ctx, site, name, public, "", KeyRevoked, by); err != nil {
		return err
	}
	if err := s.rotate(ctx, site); err != nil {
		return fmt.Errorf("the device is revoked, but not all that it could open is gone: %w", err)
	}
	return nil
}

// signerName is the name under which a gate's device signs: its logs' origin
// without the epoch.
func (s *Server) signerName(site, gate string) string {
	return s.cfg.Community + "/" + site + "/" + gate
}

func (s *Server) setKey(ctx context.Context, site, name string, public []byte, age string, state KeyState, by string) error {
	if err := errors.Join(wire.CheckName(site), wire.CheckGate(name)); err != nil {
		return err
	}
	if len(public) != 32 {
		return fmt.Errorf("gate %s/%s: a key has 32 bytes, not %d", site, name, len(public))
	}
	k := GateKey{Name: s.signerName(site, name), Public: [32]byte(public), Age: age, State: state, By: by}
	if err := s.store.setKey(ctx, site, name, k, time.Now().UnixMilli()); err != nil {
		return fmt.Errorf("cannot set the key of gate %s/%s: %w", site, name, err)
	}
	s.forget(gateName{site, name})
	s.relay.again()
	return nil
}
