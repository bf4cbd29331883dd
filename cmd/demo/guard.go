package main

import (
	"context"
	"math/rand/v2"
	"time"

	"gatehouse/cmd/internal/estate"
	"gatehouse/edge"
)

// guard is the person in the booth of one gate: they see the lanes as on the
// tablet, and know people's faces.
type guard struct {
	name   string
	lanes  lanes
	street *street
	rng    *rand.Rand
	seen   map[uint64]int // answers to a presentation so far
}

type lanes interface {
	Views() []edge.LaneView
	Watch(ctx context.Context) <-chan edge.LaneView
	Do(ctx context.Context, a edge.Action) error
}

// work answers referrals until ctx is done.
func (g *guard) work(ctx context.Context) {
	t := time.NewTicker(250 * time.Millisecond)
	defer t.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-t.C:
		}
		for _, v := range g.lanes.Views() {
			if p := v.Current; p != nil && (p.State == edge.LaneReferred || p.State == edge.LaneDenied) && time.Since(p.Since) > 1500*time.Millisecond {
				g.answer(ctx, v, *p)
			}
			for _, p := range v.Parked {
				if v.Current == nil && time.Since(p.Since) > 8*time.Second {
					g.finish(ctx, v, p)
				}
			}
		}
	}
}

func (g *guard) do(ctx context.Context, v edge.LaneView, p edge.PresentationView, a edge.Action) {
	a.Lane, a.Presentation, a.Actor = v.Lane, p.ID, g.name
	// A late answer is refused by the lane: that is as it should be.
	_ = g.lanes.Do(ctx, a)
}

func (g *guard) answer(ctx context.Context, v edge.LaneView, p edge.PresentationView) {
	n := g.seen[p.ID]
	g.seen[p.ID]++
	who := g.who(v.Lane, p)
	offered := func(r edge.Reason) bool {
		for _, a := range p.Answers {
			if a.Reason == r {
				return true
			}
		}
		return false
	}
	switch {
	case offered("second_normal") && n == 0:
		// The instrument in the drawer.
		value := 36.5
		if who != nil {
			value = who.Later
		}
		g.do(ctx, v, p, edge.Action{Kind: edge.ActSecond, Value: value})
	case p.State == edge.LaneReferred && offered("own_home"):
		// Ill, but at home: through, and the office is told.
		g.do(ctx, v, p, edge.Action{Kind: edge.ActAdmit, Reason: "own_home", Identity: "known"})
	case p.State == edge.LaneReferred && p.Unknown:
		g.do(ctx, v, p, edge.Action{Kind: edge.ActDeny})
	case p.State == edge.LaneReferred && offered("registered"):
		// A worker's first day: the document is looked at.
		g.do(ctx, v, p, edge.Action{Kind: edge.ActAdmit, Reason: "registered", Identity: "document"})
	case offered("medical") && g.rng.IntN(2) == 0:
		g.do(ctx, v, p, edge.Action{Kind: edge.ActAdmit, Reason: "medical", Text: "medical"})
	case offered("known") && g.rng.IntN(4) > 0:
		g.do(ctx, v, p, edge.Action{Kind: edge.ActAdmit, Reason: "known", Identity: "known"})
	case p.State == edge.LaneReferred && n == 0 && v.Queue > 0:
		g.do(ctx, v, p, edge.Action{Kind: edge.ActAside})
	case p.State == edge.LaneReferred:
		g.do(ctx, v, p, edge.Action{Kind: edge.ActDeny})
	}
}

// finish takes up a referral that stands aside.
func (g *guard) finish(ctx context.Context, v edge.LaneView, p edge.PresentationView) {
	g.do(ctx, v, p, edge.Action{Kind: edge.ActDeny})
}

func (g *guard) who(lane string, p edge.PresentationView) *estate.Person {
	if p.Pass == nil {
		return nil
	}
	return g.street.byPass[p.Pass.ID]
}

// desk is the side entrance: no reader, no thermometer, no barrier. The guard
// finds the pass on the tablet, takes the temperature by hand, and says who
// went through.
func (g *guard) desk(ctx context.Context, s *street) {
	for {
		for _, v := range g.lanes.Views() {
			if !sleep(ctx, s.between(1500*time.Millisecond, 3500*time.Millisecond)) {
				return
			}
			p := s.next(v.Direction)
			if p == nil || p.Row.Pass.ID == 0 {
				if p != nil {
					s.done(p, v.Direction, false)
				}
				continue
			}
			s.done(p, v.Direction, g.serve(ctx, v, p))
		}
	}
}

func (g *guard) serve(ctx context.Context, v edge.LaneView, who *estate.Person) bool {
	if g.lanes.Do(ctx, edge.Action{Kind: edge.ActPresent, Lane: v.Lane, Actor: g.name, Pass: who.Row.Pass.ID, Identity: "known"}) != nil {
		return false
	}
	for range 12 {
		if !sleep(ctx, 400*time.Millisecond) {
			return false
		}
		p := g.view(v.Lane)
		if p == nil {
			return false
		}
		switch p.State {
		case edge.LaneMeasuring:
			g.do(ctx, v, *p, edge.Action{Kind: edge.ActReading, Value: who.Body})
		case edge.LaneReferred, edge.LaneDenied:
			g.answer(ctx, v, *p)
		case edge.LanePassing:
			g.do(ctx, v, *p, edge.Action{Kind: edge.ActConfirm, Field: "passed", Text: "yes"})
			return true
		}
	}
	return false
}

func (g *guard) view(lane string) *edge.PresentationView {
	for _, v := range g.lanes.Views() {
		if v.Lane == lane {
			return v.Current
		}
	}
	return nil
}
