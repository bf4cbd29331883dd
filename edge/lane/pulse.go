package lane

import (
	"fmt"
	"sync/atomic"
	"time"
)

// pulse tells whether a loop still goes round. It counts monotonic time: a wall
// clock that leaps when the network comes up must not look like a stuck loop.
type pulse struct {
	born time.Time
	at   atomic.Int64 // nanoseconds after born; 0 = has not begun
}

func (p *pulse) beat()         { p.at.Store(max(1, int64(time.Since(p.born)))) }
func (p *pulse) running() bool { return p.at.Load() != 0 }

// alive returns an error when the last beat is longer ago than within.
func (p *pulse) alive(what string, within time.Duration) error {
	at := p.at.Load()
	if ago := time.Since(p.born) - time.Duration(at); at != 0 && ago > within {
		return fmt.Errorf("%s has made no progress for %s", what, ago.Round(time.Second))
	}
	return nil
}
