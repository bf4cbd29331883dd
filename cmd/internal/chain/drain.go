// Package chain drains a gate's journal over a broker, for benchmarks: of the
// whole way into a database ("go test -bench"), and of what this board and this
// line can do ("gatehouse bench sync").
package chain

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"sync"
	"sync/atomic"
	"time"

	"golang.org/x/mod/sumdb/note"
	"golang.org/x/sync/errgroup"

	"gatehouse/edge"
	"gatehouse/edge/identity"
	"gatehouse/edge/journal"
	"gatehouse/sync/mqtt"
	"gatehouse/sync/uplink"
	"gatehouse/sync/wire"
)

// Result is what draining took.
type Result struct {
	Entries int
	Batches int
	Bytes   int64 // of payloads, everything in
	Took    time.Duration
	Floor   time.Duration // for the same payloads, published without a journal and without receipts
}

// Drain sends a journal to a broker, where a server answers that verifies and
// receipts as the real one does, and stores nothing; then it publishes the same
// payloads bare. The server's key is made for the occasion.
func Drain(ctx context.Context, j *journal.Journal, gate, server *identity.Identity, url string) (Result, error) {
	log := slog.New(slog.DiscardHandler)
	dial := func(name string) (*mqtt.Client, error) {
		return mqtt.New(mqtt.Config{URL: url, ClientID: fmt.Sprint("bench-", name, "-", time.Now().UnixNano()), MinBackoff: 50 * time.Millisecond}, log)
	}
	gc, err1 := dial("gate")
	sc, err2 := dial("server")
	if err := errors.Join(err1, err2); err != nil {
		return Result{}, err
	}
	p := &peer{server: server.Signer(), answers: make(chan []byte, 64)}
	var err error
	if p.device, err = edge.HeadVerifier(gate.Signer().Name(), gate.Signer().Public()); err != nil {
		return Result{}, err
	}
	sc.Subscribe(wire.Topic(Site, Gate, wire.Journal), p.take)
	arrived := make(chan struct{}, 1024)
	sc.Subscribe(wire.Topic(Site, Gate, wire.Alerts), func(string, []byte) { arrived <- struct{}{} })
	listens := make(chan struct{})
	once := sync.OnceFunc(func() { close(listens) })
	sc.OnConnect(func(context.Context) { once() })
	trust := []wire.ServerKey{{ID: server.Signer().Name(), Public: server.Signer().Public(), Uses: []wire.Use{wire.UseReceipts}}}
	u, err := uplink.New(uplink.Config{Community: Realm, Site: Site, Gate: Gate, Device: gate.Signer(), Trust: func() []wire.ServerKey { return trust }}, j, gc, log)
	if err != nil {
		return Result{}, err
	}
	rctx, stop := context.WithCancel(ctx)
	defer stop()
	var g errgroup.Group
	g.Go(func() error { return sc.Run(rctx) })
	g.Go(func() error { return p.answer(rctx, sc) })
	select {
	case <-listens:
	case <-time.After(20 * time.Second):
		stop()
		return Result{}, errors.Join(fmt.Errorf("no connection to the broker at %s within 20 s", url), ignore(g.Wait()))
	case <-ctx.Done():
		stop()
		return Result{}, errors.Join(ctx.Err(), ignore(g.Wait()))
	}
	began := time.Now()
	g.Go(func() error { return gc.Run(rctx) })
	g.Go(func() error { return u.Run(rctx) })
	for j.Acked() < j.Size() {
		if ctx.Err() != nil || p.failed.Load() != nil {
			stop()
			err := ignore(g.Wait())
			if f := p.failed.Load(); f != nil {
				err = errors.Join(*f, err)
			}
			return Result{}, errors.Join(ctx.Err(), err)
		}
		time.Sleep(time.Millisecond) // the mark is what is measured, and nobody announces it
	}
	r := Result{Entries: int(j.Size()), Took: time.Since(began)}
	r.Batches, r.Bytes = len(p.seen), p.bytes
	floor := time.Now()
	var bare errgroup.Group
	bare.Go(func() error {
		for _, n := range p.seen {
			if err := gc.Publish(ctx, wire.Topic(Site, Gate, wire.Alerts), make([]byte, n), false); err != nil {
				return fmt.Errorf("cannot measure the floor: %w", err)
			}
		}
		return nil
	})
	for range p.seen {
		select {
		case <-arrived:
		case <-time.After(20 * time.Second):
			stop()
			return r, errors.Join(errors.New("cannot measure the floor: what was published did not arrive"), bare.Wait(), ignore(g.Wait()))
		}
	}
	r.Floor = time.Since(floor)
	stop()
	return r, ignore(g.Wait())
}

// ignore drops the error of having been stopped.
func ignore(err error) error {
	if errors.Is(err, context.Canceled) {
		return nil
	}
	return err
}

// peer is the server's end.
type peer struct {
	server  edge.Signer
	device  note.Verifier
	answers chan []byte
	failed  atomic.Pointer[error]
	seen    []int // sizes of the batches
	bytes   int64
	size    uint64 // entries so far
}

func (p *peer) take(_ string, payload []byte) {
	receipt, err := p.receipt(payload)
	if err != nil {
		p.failed.CompareAndSwap(nil, &err)
		return
	}
	p.seen, p.bytes = append(p.seen, len(payload)), p.bytes+int64(len(payload))
	if receipt != nil {
		p.answers <- receipt
	}
}

func (p *peer) receipt(payload []byte) ([]byte, error) {
	b, err := wire.DecodeBatch(payload)
	if err != nil {
		return nil, err
	}
	if len(b.Edges) > 0 {
		return nil, nil // ahead of its turn
	}
	if b.First > p.size {
		return nil, fmt.Errorf("a batch from %d on came after %d entries", b.First, p.size)
	}
	h, _, err := edge.OpenHead([]byte(b.Head), p.device)
	if err != nil {
		return nil, err
	}
	head, err := wire.Cosign([]byte(b.Head), time.Now(), p.server)
	if err != nil {
		return nil, err
	}
	p.size = max(p.size, h.Size)
	r := &wire.Receipt{Epoch: b.Epoch, Size: h.Size, Head: string(head)}
	return r.Encode()
}

func (p *peer) answer(ctx context.Context, c *mqtt.Client) error {
	for {
		select {
		case <-ctx.Done():
			return ctx.Err()
		case r := <-p.answers:
			if err := c.Publish(ctx, wire.Topic(Site, Gate, wire.Receipts), r, false); err != nil && ctx.Err() == nil {
				p.failed.CompareAndSwap(nil, &err)
				return err
			}
		}
	}
}
