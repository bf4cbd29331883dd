package community

import (
	"context"
	"sync"

	"gatehouse/edge"
	"gatehouse/sync/wire"
)

// reply is a receipt or refusal for a gate.
type reply struct {
	gateName
	receipt *wire.Receipt
}

// replies holds what is to be published. A newer receipt of an epoch replaces an
// older one that has not gone out: it says more.
type replies struct {
	mu    sync.Mutex
	next  map[replyKey]*wire.Receipt
	order []replyKey
	some  chan struct{}
}

type replyKey struct {
	gateName
	epoch   edge.Epoch
	refused bool
}

// maxReplies bounds what waits while the broker is away. A reply that is left
// out comes with the gate's next attempt.
const maxReplies = 20_000

func (r *replies) init() {
	r.next = map[replyKey]*wire.Receipt{}
	r.some = make(chan struct{}, 1)
}

func (r *replies) put(p reply) {
	k := replyKey{p.gateName, p.receipt.Epoch, p.receipt.Refusal != nil}
	r.mu.Lock()
	if _, ok := r.next[k]; !ok && len(r.order) < maxReplies {
		r.order = append(r.order, k)
		r.next[k] = p.receipt
	} else if ok {
		r.next[k] = p.receipt
	}
	r.mu.Unlock()
	select {
	case r.some <- struct{}{}:
	default:
	}
}

func (r *replies) take() (reply, bool) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if len(r.order) == 0 {
		r.order = nil
		return reply{}, false
	}
	k := r.order[0]
	r.order = r.order[1:]
	p := reply{k.gateName, r.next[k]}
	delete(r.next, k)
	return p, true
}

func (s *Server) replyLoop(ctx context.Context) error {
	for {
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-s.replies.some:
		}
		for {
			r, ok := s.replies.take()
			if !ok {
				break
			}
			b, err := r.receipt.Encode()
			if err == nil {
				err = s.t.Publish(ctx, wire.Topic(r.site, r.gate, wire.Receipts), b, false)
			}
			if ctx.Err() != nil {
				return ctx.Err()
			}
			if err != nil {
				// Not kept: the gate sends again what has no receipt, and is answered then.
				s.log.Warn("cannot publish a receipt", "site", r.site, "gate", r.gate, "error", err)
			}
		}
	}
}
