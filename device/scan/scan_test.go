package scan

import (
	"testing"
	"time"

	"gatehouse/device"
)

func TestFilter(t *testing.T) {
	start := time.Unix(1e9, 0)
	type step struct {
		at   time.Duration
		card uint64
		want Verdict
	}
	ms := time.Millisecond
	for _, c := range []struct {
		name  string
		steps []step
	}{
		{"held", []step{{0, 1, New}, {65 * ms, 1, Repeated}, {130 * ms, 1, Repeated}, {1000 * ms, 1, Repeated}, {1900 * ms, 1, Repeated}}},
		{"taken away", []step{{0, 1, New}, {1000 * ms, 1, New}}},
		{"two at once", []step{{0, 1, New}, {50 * ms, 2, New}, {100 * ms, 1, Repeated}, {150 * ms, 2, Repeated}, {200 * ms, 1, Repeated}}},
		{"other", []step{{0, 1, New}, {10 * ms, 2, New}}},
	} {
		t.Run(c.name, func(t *testing.T) {
			var f Filter
			for i, s := range c.steps {
				r := device.CardRead{Format: "x", Number: s.card, At: start.Add(s.at)}
				if got := f.Take(&r); got != s.want {
					t.Errorf("step %d: %v, want %v", i, got, s.want)
				}
			}
		})
	}
}

func TestFlood(t *testing.T) {
	var f Filter
	at, n := time.Unix(1e9, 0), uint64(0)
	run := func(d time.Duration, every time.Duration) (cards int) {
		for end := at.Add(d); at.Before(end); at = at.Add(every) {
			n++
			if f.Take(&device.CardRead{Number: n, At: at}) == New {
				cards++
			}
		}
		return cards
	}
	if got := run(10*time.Second, 5*time.Millisecond); got != MaxRate {
		t.Errorf("%d cards of ten seconds' flood, want the first %d", got, MaxRate)
	}
	run(2*time.Second, 500*time.Millisecond) // calm
	if got := run(3*time.Second, 500*time.Millisecond); got != 6 {
		t.Errorf("%d of 6 cards after the flood", got)
	}
}

func BenchmarkFilter(b *testing.B) {
	var f Filter
	r := device.CardRead{Format: device.FormatEM4100, At: time.Unix(1e9, 0)}
	b.ReportAllocs()
	for b.Loop() {
		r.Number++
		r.At = r.At.Add(time.Second)
		f.Take(&r)
	}
}
