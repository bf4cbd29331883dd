package lane

import (
	"context"
	"log/slog"
	"sync"
	"time"

	"gatehouse/edge"
)

// patience is how long whoever waits for a passage's entry waits for its
// commit; the entry itself is tried until it is written.
const patience = 2 * time.Second

// ledger writes what a passage has seen, in order and never in its way: a
// journal that is stuck must not hold up a barrier. What has happened has
// happened, so an entry that fails is tried again.
type ledger struct {
	journal Journal
	log     *slog.Logger
	box     *mailbox
}

func newLedger(j Journal, log *slog.Logger) *ledger {
	return &ledger{journal: j, log: log, box: newMailbox()}
}

// add queues an entry. then is called once: when it is durable, or when that
// takes too long.
func (g *ledger) add(ctx context.Context, e *edge.Entry, then func()) {
	g.box.put(func() { g.write(ctx, e, then) })
}

// run writes until ctx is done, and then what is left, once.
func (g *ledger) run(ctx context.Context) {
	for {
		select {
		case <-g.box.ready:
		case <-ctx.Done():
		}
		last := ctx.Err() != nil
		for _, f := range g.box.take() {
			f()
		}
		if last {
			return
		}
	}
}

func (g *ledger) write(ctx context.Context, e *edge.Entry, then func()) {
	if then == nil {
		then = func() {}
	}
	tell := sync.OnceFunc(then)
	late := time.AfterFunc(patience, tell)
	defer late.Stop()
	defer tell()
	for first := true; ; first = false {
		_, err := g.journal.Append(context.WithoutCancel(ctx), e, nil)
		if err == nil {
			return
		}
		if first {
			g.log.Error("cannot record what happened; it is tried again", "kind", e.Kind, "result", e.Result, "err", err)
		}
		tell()
		if !pause(ctx, time.Second) {
			g.log.Error("what happened is not on record: the lane ends", "kind", e.Kind, "result", e.Result, "err", err)
			return
		}
	}
}
