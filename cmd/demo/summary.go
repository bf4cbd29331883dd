package main

import (
	"fmt"
	"io"
	"slices"
	"sync"
	"time"

	"gatehouse/edge"
	"gatehouse/edge/lane"
)

// quantiles of one kind of duration, in milliseconds.
type quantiles struct {
	N   int     `json:"n"`
	P50 float64 `json:"p50_ms"`
	P95 float64 `json:"p95_ms"`
	P99 float64 `json:"p99_ms"`
}

func quantilesOf(d []time.Duration) quantiles {
	if len(d) == 0 {
		return quantiles{}
	}
	slices.Sort(d)
	at := func(q float64) float64 {
		return float64(d[min(len(d)-1, int(q*float64(len(d))))].Microseconds()) / 1000
	}
	return quantiles{len(d), at(0.5), at(0.95), at(0.99)}
}

// gateSum is what the summary says of one gate.
type gateSum struct {
	Gate      string `json:"gate"`
	Journal   uint64 `json:"journalled"`
	Stored    uint64 `json:"stored"`
	Missing   uint64 `json:"missing"`
	Duplicate uint64 `json:"duplicated"`
	Backlog   uint64 `json:"largest_backlog"`
}

// summary is the demo's result.
type summary struct {
	Seconds    float64   `json:"seconds"`
	Seed       uint64    `json:"seed"`
	Presented  int       `json:"presented"`
	Admitted   int       `json:"admitted"`
	Remeasured int       `json:"remeasured"`
	Referred   int       `json:"referred"`
	Denied     int       `json:"denied"`
	Passed     int       `json:"passed"`
	NotPassed  int       `json:"not_passed"`
	Tailgated  int       `json:"tailgated"`
	PerMinute  float64   `json:"persons_per_minute"`
	Gates      []gateSum `json:"gates"`
	Missing    uint64    `json:"missing"`
	Duplicated uint64    `json:"duplicated"`
	Backlog    uint64    `json:"largest_backlog"`
	Repeated   uint64    `json:"sent_again"`
	Drain      float64   `json:"drain_seconds"`
	Findings   []string  `json:"findings,omitempty"`
	North      *northSum `json:"north,omitempty"`

	Own     quantiles `json:"last_input_to_barrier"`
	Commit  quantiles `json:"of_it_decision_and_commit"`
	Barrier quantiles `json:"card_to_barrier_with_measurement"`
	Through quantiles `json:"card_to_passed"`
}

func (s *summary) print(w io.Writer) {
	fmt.Fprintf(w, "\n%.0f seconds, seed %d\n", s.Seconds, s.Seed)
	fmt.Fprintf(w, "  presented %d, admitted %d, measured again %d, referred to the guard %d, denied %d\n", s.Presented, s.Admitted, s.Remeasured, s.Referred, s.Denied)
	fmt.Fprintf(w, "  passed %d, did not pass %d, followed by another %d; %.0f persons a minute\n", s.Passed, s.NotPassed, s.Tailgated, s.PerMinute)
	for _, g := range s.Gates {
		fmt.Fprintf(w, "  %-8s %5d entries journalled, %5d stored at the server, %d missing, %d duplicated; largest backlog %d\n", g.Gate, g.Journal, g.Stored, g.Missing, g.Duplicate, g.Backlog)
	}
	if s.North != nil {
		s.North.print(w)
	}
	fmt.Fprintf(w, "  largest backlog %d, drained in %.1f s after the end; %d entries sent more than once\n", s.Backlog, s.Drain, s.Repeated)
	row := func(what string, q quantiles) {
		if q.N > 0 {
			fmt.Fprintf(w, "  %-52s p50 %8.2f  p95 %8.2f  p99 %8.2f ms  (%d)\n", what, q.P50, q.P95, q.P99, q.N)
		}
	}
	row("last input (card byte, reading, answer) to barrier", s.Own)
	row("  of it decision and durable commit", s.Commit)
	row("last card byte to barrier, with the measurement", s.Barrier)
	row("last card byte to passed", s.Through)
	for _, f := range s.Findings {
		fmt.Fprintf(w, "  WRONG: %s\n", f)
	}
}

// tally counts what the journals say.
type tally struct {
	mu       sync.Mutex
	sum      summary
	seen     map[string]bool // gate and presentation
	own      []time.Duration
	commit   []time.Duration
	barrier  []time.Duration
	through  []time.Duration
	perGate  map[string]*gateSum
	gateList []string
}

func newTally() *tally { return &tally{seen: map[string]bool{}, perGate: map[string]*gateSum{}} }

func (t *tally) timing(x lane.Timing) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if x.Passed > 0 {
		t.through = append(t.through, x.Passed)
		return
	}
	t.own = append(t.own, x.Own)
	t.commit = append(t.commit, x.Commit)
	t.barrier = append(t.barrier, x.Barrier)
}

func (t *tally) entry(gate string, e *edge.Entry) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if e.Presentation != 0 && (e.Kind == edge.KindDecision || e.Kind == edge.KindAction) {
		if k := fmt.Sprint(gate, " ", e.Presentation); !t.seen[k] {
			t.seen[k] = true
			t.sum.Presented++
		}
	}
	switch e.Outcome {
	case edge.Admit:
		t.sum.Admitted++
	case edge.Remeasure:
		t.sum.Remeasured++
	case edge.Refer:
		t.sum.Referred++
	case edge.Deny:
		t.sum.Denied++
	}
	if e.Kind == edge.KindPassage {
		switch e.Result {
		case edge.ResultPassed:
			t.sum.Passed++
		case edge.ResultTailgated:
			t.sum.Passed++
			t.sum.Tailgated++
		case edge.ResultNotPassed:
			t.sum.NotPassed++
		}
	}
}

func (t *tally) backlog(gate string, n uint64) {
	t.mu.Lock()
	defer t.mu.Unlock()
	g := t.gate(gate)
	g.Backlog = max(g.Backlog, n)
	t.sum.Backlog = max(t.sum.Backlog, n)
}

func (t *tally) gate(name string) *gateSum {
	g, ok := t.perGate[name]
	if !ok {
		g = &gateSum{Gate: name}
		t.perGate[name] = g
		t.gateList = append(t.gateList, name)
	}
	return g
}

func (t *tally) finish(took time.Duration) *summary {
	t.mu.Lock()
	defer t.mu.Unlock()
	s := t.sum
	s.Seconds = took.Seconds()
	s.PerMinute = float64(s.Passed) / took.Minutes()
	s.Own, s.Commit, s.Barrier, s.Through = quantilesOf(t.own), quantilesOf(t.commit), quantilesOf(t.barrier), quantilesOf(t.through)
	for _, name := range t.gateList {
		s.Gates = append(s.Gates, *t.perGate[name])
	}
	return &s
}
