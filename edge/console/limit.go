package console

import (
	"net"
	"net/http"
	"sync"
	"time"

	"golang.org/x/time/rate"
)

// class says how much of a route one caller may have.
type class int

const (
	pages   class = iota
	files         // what pages are made of
	acts          // the guard's answers
	forms         // changes
	logins        // what costs a hash
	streams       // that last
)

type limit struct {
	perSecond rate.Limit
	burst     int
	body      int64 // bytes of a request
}

// limits of each class: for one session, or one address where nobody has logged
// in. A guard's thumbs and a page with its parts stay far below.
var limits = map[class]limit{
	pages:   {20, 120, 1 << 10},
	files:   {50, 300, 1 << 10},
	acts:    {10, 30, 4 << 10},
	forms:   {2, 20, maxForm},
	logins:  {0.5, 10, maxForm},
	streams: {1, 12, 1 << 10},
}

const (
	maxCallers = 4096             // of whom a bucket is kept
	forget     = 10 * time.Minute // a bucket that nobody used is full again
	// Streams at once: of one caller, and of everybody who has not logged in, so
	// that they leave room for the guards among maxWatchers.
	ownStreams    = 8
	publicStreams = 24
)

type caller struct {
	who string
	of  class
}

type bucket struct {
	*rate.Limiter
	seen time.Time
}

// meter counts what callers take.
type meter struct {
	limits  map[class]limit
	mu      sync.Mutex
	callers map[caller]*bucket
	open    map[string]int // streams
	public  int
}

func newMeter() *meter {
	return &meter{limits: limits, callers: map[caller]*bucket{}, open: map[string]int{}}
}

// allow says whether a caller may have one more of a class.
func (m *meter) allow(who string, of class) bool {
	now := time.Now()
	m.mu.Lock()
	defer m.mu.Unlock()
	if len(m.callers) >= maxCallers {
		for k, b := range m.callers {
			if now.Sub(b.seen) > forget {
				delete(m.callers, k)
			}
		}
	}
	k := caller{who, of}
	b := m.callers[k]
	if b == nil {
		if len(m.callers) >= maxCallers {
			// So many at once are no people: they share one bucket.
			k.who = ""
			b = m.callers[k]
		}
		if b == nil {
			l := m.limits[of]
			b = &bucket{Limiter: rate.NewLimiter(l.perSecond, l.burst)}
			m.callers[k] = b
		}
	}
	b.seen = now
	return b.AllowN(now, 1)
}

// begin counts a stream; end it with the function that it returns, nil when
// there are too many.
func (m *meter) begin(who string, known bool) (end func()) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.open[who] >= ownStreams || (!known && m.public >= publicStreams) {
		return nil
	}
	m.open[who]++
	if !known {
		m.public++
	}
	return func() {
		m.mu.Lock()
		defer m.mu.Unlock()
		if m.open[who]--; m.open[who] == 0 {
			delete(m.open, who)
		}
		if !known {
			m.public--
		}
	}
}

// address is the caller's, without the port; of IPv6 the network, as a machine
// has as many addresses in it as it likes.
func address(r *http.Request) string {
	host, _, err := net.SplitHostPort(r.RemoteAddr)
	if err != nil {
		return r.RemoteAddr
	}
	if ip := net.ParseIP(host); ip != nil && ip.To4() == nil {
		return ip.Mask(net.CIDRMask(64, 128)).String()
	}
	return host
}

// tooMany refuses for now.
func (c *Console) tooMany(w http.ResponseWriter, r *http.Request) {
	w.Header().Set("Retry-After", "2")
	c.turnAway(w, r, turnedAway{say: "people.slow_down", code: http.StatusTooManyRequests})
}
