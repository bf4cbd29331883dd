package uplink

import (
	"time"

	"gatehouse/edge"
)

// Metered spares a link that bills by the byte. Alerts and the status are not held
// back: they are few and small.
type Metered struct {
	Rate  int // bytes per second of batches, on average; 0 = as fast as it goes
	Burst int // bytes that may go at once after a rest; 0 = those of a minute
	// Quiet hours, in minutes of the site's day; From may be later than To. Equal = none.
	QuietFrom, QuietTo int
	Clock              edge.Clock // of the site's day; needed for quiet hours
}

// meter is a token bucket that may run into debt by one batch.
type meter struct {
	Metered
	left float64
	at   time.Time
}

func (m *meter) refill(now time.Time) {
	burst := float64(m.Burst)
	if burst <= 0 {
		burst = float64(m.Rate) * 60
	}
	if m.at.IsZero() {
		m.left = burst
	} else {
		m.left = min(burst, m.left+now.Sub(m.at).Seconds()*float64(m.Rate))
	}
	m.at = now
}

// free is when the next batch may go: now, or later.
func (m *meter) free(now time.Time) time.Time {
	free := now
	if m.Rate > 0 {
		if m.refill(now); m.left < 0 {
			free = now.Add(time.Duration(-m.left / float64(m.Rate) * float64(time.Second)))
		}
	}
	if m.QuietFrom != m.QuietTo && m.Clock != nil {
		t := m.Clock.Now().Local()
		minute := t.Hour()*60 + t.Minute()
		day := 24 * 60
		if left := (m.QuietTo - minute + day) % day; left > 0 && (minute-m.QuietFrom+day)%day < (m.QuietTo-m.QuietFrom+day)%day {
			// Looked at again every minute: the wall clock may leap.
			if soon := now.Add(time.Minute); soon.After(free) {
				free = soon
			}
		}
	}
	return free
}

func (m *meter) spent(now time.Time, bytes int) {
	if m.Rate > 0 {
		m.refill(now)
		m.left -= float64(bytes)
	}
}
