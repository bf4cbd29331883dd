package lane

import (
	"context"
	"errors"
	"log/slog"
	"testing"
	"testing/synctest"
	"time"

	"gatehouse/edge"
)

// down is a journal that takes nothing, and counts what it was offered.
type down struct {
	Journal
	offered map[*edge.Entry]int
}

func (d *down) Append(_ context.Context, e *edge.Entry, _ []edge.Expected) (uint64, error) {
	d.offered[e]++
	return 0, errors.New("read-only")
}

// While the journal takes nothing the first entry is tried again and again; at the
// end every other one is offered too, whenever it came.
func TestLedgerOffersWhatIsLeft(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		j := &down{offered: map[*edge.Entry]int{}}
		g := newLedger(j, slog.New(slog.DiscardHandler))
		ctx, stop := context.WithCancel(t.Context())
		done := make(chan struct{})
		go func() { defer close(done); g.run(ctx) }()
		entries := []*edge.Entry{{Lane: "a"}, {Lane: "b"}, {Lane: "c"}}
		for _, e := range entries {
			g.add(ctx, e, nil)
			time.Sleep(3 * time.Second)
		}
		stop()
		<-done
		for i, e := range entries {
			if n := j.offered[e]; n == 0 || i == 0 && n < 5 || i > 0 && n != 1 {
				t.Errorf("entry %d was offered %d times", i, n)
			}
		}
	})
}
