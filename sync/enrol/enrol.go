// Package enrol is a device's side of becoming a gate, and of getting a new
// certificate: it asks the community server until it has an answer that it can
// believe. Both are the same request; the first waits for a person, the others
// are answered because the server knows the device's key.
package enrol

import (
	"context"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"strings"
	"sync"
	"time"

	"golang.org/x/mod/sumdb/note"

	"gatehouse/edge"
	"gatehouse/sync/wire"
)

// Transport carries messages. A nil error of Publish proves nothing.
type Transport interface {
	Publish(ctx context.Context, topic string, payload []byte, retained bool) error
	Subscribe(topic string, f func(topic string, payload []byte))
	OnConnect(f func(ctx context.Context))
}

// Config says who asks. Request is complete but for its signature. The server is
// known by its Pin, at the first time, or by its keys.
type Config struct {
	Request wire.Enrol
	Signer  edge.Signer
	Open    func(r io.Reader, limit int64) ([]byte, error)
	Pin     string
	Trust   wire.Trust
	Again   time.Duration // between requests; 0 = 3 s
	Says    func(string)  // what the server lets the person know; nil = nobody
	Log     *slog.Logger
}

// Enrolment is one request until its answer.
type Enrolment struct {
	cfg   Config
	topic string
	t     Transport

	mu   sync.Mutex
	sent map[string]*asked // by nonce
	got  chan *Answer
	up   chan struct{}
}

type asked struct {
	q  wire.Enrol
	at time.Time
}

// remembered bounds the requests whose answers are still taken.
const remembered = 8

// Answer is what the server said. Took is the time between request and answer:
// the server's time is uncertain by it.
type Answer struct {
	*wire.Approval
	Took time.Duration
}

// New subscribes. The transport must not run yet.
func New(cfg Config, t Transport) *Enrolment {
	if cfg.Again <= 0 {
		cfg.Again = 3 * time.Second
	}
	e := &Enrolment{cfg: cfg, t: t, sent: map[string]*asked{}, got: make(chan *Answer, 1), up: make(chan struct{}, 1),
		topic: wire.EnrolTopic(cfg.Request.Site, wire.CodeOf(cfg.Signer.Public(), cfg.Request.Age))}
	t.Subscribe(e.topic, func(_ string, payload []byte) { e.take(payload) })
	t.OnConnect(func(context.Context) {
		select {
		case e.up <- struct{}{}:
		default:
		}
	})
	return e
}

// Run asks until there is an answer or ctx is done.
func (e *Enrolment) Run(ctx context.Context) (*Answer, error) {
	tick := time.NewTicker(e.cfg.Again)
	defer tick.Stop()
	for {
		select {
		case <-ctx.Done():
			return nil, ctx.Err()
		case a := <-e.got:
			return a, nil
		case <-e.up:
		case <-tick.C:
		}
		if err := e.ask(ctx); err != nil && ctx.Err() == nil {
			e.cfg.Log.Debug("cannot ask the community server yet", "err", err)
		}
	}
}

func (e *Enrolment) ask(ctx context.Context) error {
	q := e.cfg.Request
	if err := q.Sign(e.cfg.Signer); err != nil {
		return err
	}
	payload, err := wire.Encode(wire.EnrolMessage{V: wire.Version, Request: &q})
	if err != nil {
		return err
	}
	e.mu.Lock()
	var oldest string
	for n, s := range e.sent {
		if oldest == "" || s.at.Before(e.sent[oldest].at) {
			oldest = n
		}
	}
	if len(e.sent) >= remembered {
		delete(e.sent, oldest)
	}
	e.sent[q.Nonce] = &asked{q, time.Now()}
	e.mu.Unlock()
	return e.t.Publish(ctx, e.topic, payload, false)
}

func (e *Enrolment) take(payload []byte) {
	var m wire.EnrolMessage
	if err := wire.Decode(payload, &m); err != nil || m.Request != nil {
		return // its own words come back on the topic
	}
	if len(m.Sealed) == 0 {
		if e.cfg.Says != nil && len(m.Says) < 1000 {
			e.cfg.Says(m.Says)
		}
		return
	}
	e.mu.Lock()
	defer e.mu.Unlock()
	for _, s := range e.sent {
		a, err := Open(m.Sealed, &s.q, e.cfg.Open, e.cfg.Pin, e.cfg.Trust)
		if err != nil {
			e.cfg.Log.Warn("an answer that cannot be believed", "err", err)
			return
		}
		if a.Nonce != s.q.Nonce {
			continue
		}
		select {
		case e.got <- &Answer{a, time.Since(s.at)}:
		default:
		}
		return
	}
}

// Open reads an answer to q from a server that is known by its keys or else by
// its pin. With neither, the answer itself says who the server is: for one that
// was carried by hand from the server. The nonce is the caller's to compare.
func Open(sealed []byte, q *wire.Enrol, open func(r io.Reader, limit int64) ([]byte, error), pin string, known wire.Trust) (*wire.Approval, error) {
	if len(known.Keys) > 0 {
		return wire.OpenApproval(sealed, q, open, known)
	}
	var inner []byte
	named, err := claimed(sealed, open, &inner)
	if err != nil {
		return nil, err
	}
	if pin != "" && wire.PinOf(named.Public) != pin {
		return nil, fmt.Errorf("%w: the server's pin is %s, the invitation says %s", wire.ErrUntrusted, wire.ShowCode(wire.PinOf(named.Public)), wire.ShowCode(pin))
	}
	again := func(io.Reader, int64) ([]byte, error) { return inner, nil }
	return wire.OpenApproval(sealed, q, again, wire.Trust{Keys: []wire.ServerKey{named}})
}

// claimed is the server's key as the answer itself names it.
func claimed(sealed []byte, open func(r io.Reader, limit int64) ([]byte, error), inner *[]byte) (wire.ServerKey, error) {
	var none wire.ServerKey
	plain, err := open(strings.NewReader(string(sealed)), 1<<20)
	if err != nil {
		return none, fmt.Errorf("the approval is not for this device: %w", err)
	}
	*inner = plain
	var env wire.Envelope
	var a wire.Approval
	if err := json.Unmarshal(plain, &env); err != nil {
		return none, fmt.Errorf("%w: %w", wire.ErrMalformed, err)
	}
	if err := json.Unmarshal(env.Body, &a); err != nil {
		return none, fmt.Errorf("%w: %w", wire.ErrMalformed, err)
	}
	f := strings.Fields(a.Trust)
	if len(f) == 0 {
		return none, errors.New("the approval names no key of the server")
	}
	v, err := note.NewVerifier(f[0])
	if err != nil {
		return none, fmt.Errorf("%w: the server's key: %w", wire.ErrMalformed, err)
	}
	raw, err := base64.StdEncoding.DecodeString(strings.SplitN(f[0], "+", 3)[2])
	if err != nil || len(raw) != 33 {
		return none, fmt.Errorf("%w: the server's key is not Ed25519", wire.ErrMalformed)
	}
	return wire.ServerKey{ID: v.Name(), Public: raw[1:], Uses: []wire.Use{wire.UseRegistry}}, nil
}
