package main

import (
	"context"
	"math/rand/v2"
	"sync"
	"time"

	"gatehouse/cmd/internal/estate"
	"gatehouse/device"
	"gatehouse/edge"
)

// rig is the far side of one lane: what a person can do to it and see of it.
type rig struct {
	gate, lane string
	dir        device.Direction
	show       func(card [5]byte)   // hold a card to the reader for a moment
	stand      func(skin float64)   // stand before the thermometer
	leave      func()               // step away from it
	lamps      func() device.Signal // what the lamps say now
	changed    func() <-chan struct{}
	walk       func() // through the barrier, breaking the beam once
}

// street is everybody who comes and goes. It knows what really happened, which
// the gates do not.
type street struct {
	est *estate.Estate

	mu      sync.Mutex
	rng     *rand.Rand
	inside  map[*estate.Person]bool
	busy    map[*estate.Person]bool
	outs    []*estate.Person // who left lately, the latest last
	byPass  map[edge.PassID]*estate.Person
	standng map[string]*estate.Person // who stands at a lane now
}

func newStreet(est *estate.Estate, seed uint64) *street {
	s := &street{est: est, rng: rand.New(rand.NewPCG(seed, 1)), inside: map[*estate.Person]bool{}, busy: map[*estate.Person]bool{},
		byPass: map[edge.PassID]*estate.Person{}, standng: map[string]*estate.Person{}}
	for _, p := range est.People {
		s.byPass[p.Row.Pass.ID] = p
		s.inside[p] = s.rng.IntN(100) < 60
	}
	return s
}

func (s *street) between(lo, hi time.Duration) time.Duration {
	s.mu.Lock()
	defer s.mu.Unlock()
	return lo + time.Duration(s.rng.Int64N(int64(hi-lo)))
}

// next chooses who comes to a lane in this direction.
func (s *street) next(d device.Direction) *estate.Person {
	s.mu.Lock()
	defer s.mu.Unlock()
	out := d == device.Out
	usable := func(p *estate.Person) bool { return !s.busy[p] && s.inside[p] == out }
	pick := func() *estate.Person {
		switch v := s.rng.IntN(100); {
		case v < 4 && !out:
			return s.est.Strangers[s.rng.IntN(len(s.est.Strangers))]
		case v < 30 && len(s.outs) > 0:
			// Back after an errand (by whichever gate), or, going out, somebody
			// else of a household that has been out already.
			p := s.outs[s.rng.IntN(len(s.outs))]
			if !out {
				return p
			}
			if h := p.Row.Pass.Household; h != 0 {
				people := s.est.Households[h-1].People
				return people[s.rng.IntN(len(people))]
			}
		case v < 40:
			// People out of the ordinary come a little more often than their share:
			// a short run should show them too.
			for range 40 {
				if p := s.est.People[s.rng.IntN(len(s.est.People))]; p.Trait != estate.Ordinary && usable(p) {
					return p
				}
			}
		}
		return s.est.People[s.rng.IntN(len(s.est.People))]
	}
	for range 1000 {
		p := pick()
		if p.Row.Pass.ID == 0 && !s.busy[p] || usable(p) {
			s.busy[p] = true
			return p
		}
	}
	return nil
}

// done puts a person back into the crowd.
func (s *street) done(p *estate.Person, d device.Direction, passed bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	delete(s.busy, p)
	if !passed {
		return
	}
	s.inside[p] = d == device.In
	if d == device.Out && p.Row.Pass.ID != 0 {
		s.outs = append(s.outs, p)
		if len(s.outs) > 60 {
			s.outs = s.outs[1:]
		}
	}
}

// come lets people come to one lane, one after the other, until ctx is done.
func (s *street) come(ctx context.Context, r rig) {
	for ctx.Err() == nil {
		p := s.next(r.dir)
		if p == nil || !sleep(ctx, s.between(150*time.Millisecond, 900*time.Millisecond)) {
			return
		}
		s.mu.Lock()
		s.standng[r.lane] = p
		s.mu.Unlock()
		passed := s.visit(ctx, r, p)
		s.done(p, r.dir, passed)
	}
}

// visit is one person at one lane. It reports whether they went through.
func (s *street) visit(ctx context.Context, r rig, p *estate.Person) bool {
	if p.Trait == estate.Forgot {
		// Nothing to hold up: the guard finds the pass on the console.
		return false
	}
	// One waits until the light is out before one holds up the next card.
	if s.await(ctx, r, 10*time.Second, device.SignalIdle) == "" {
		return false
	}
	r.show(p.Card)
	if !sleep(ctx, s.between(200*time.Millisecond, 450*time.Millisecond)) {
		return false
	}
	if p.Trait != estate.NoSensor {
		r.stand(p.Body)
	}
	defer r.leave()
	if p.Trait == estate.Mother {
		// The child steps up when the mother has been measured.
		if !sleep(ctx, 1500*time.Millisecond) {
			return false
		}
		r.leave()
		if !sleep(ctx, 500*time.Millisecond) {
			return false
		}
		r.stand(36.4)
	}
	switch s.await(ctx, r, 15*time.Second, device.SignalGo, device.SignalStop) {
	case device.SignalStop:
		r.leave()
		// Somebody who is asked to speak to the guard waits for a while.
		if p.Trait == estate.Warm {
			sleep(ctx, time.Second)
			r.stand(p.Later)
		}
		if s.await(ctx, r, 12*time.Second, device.SignalGo, device.SignalIdle) != device.SignalGo {
			return false
		}
	case device.SignalGo:
	default:
		return false
	}
	r.leave()
	if p.Trait == estate.WalksAway {
		return false
	}
	if !sleep(ctx, s.between(250*time.Millisecond, 600*time.Millisecond)) {
		return false
	}
	r.walk()
	if p.Trait == estate.Mother || p.Trait == estate.Tailgated {
		if sleep(ctx, 350*time.Millisecond) {
			r.walk()
		}
	}
	return true
}

// await blocks until the lamps say one of the signals, and returns it, or "".
func (s *street) await(ctx context.Context, r rig, most time.Duration, want ...device.Signal) device.Signal {
	ctx, cancel := context.WithTimeout(ctx, most)
	defer cancel()
	for {
		change := r.changed()
		now := r.lamps()
		for _, w := range want {
			if now == w {
				return now
			}
		}
		select {
		case <-change:
		case <-ctx.Done():
			return ""
		}
	}
}

func sleep(ctx context.Context, d time.Duration) bool {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-t.C:
		return true
	case <-ctx.Done():
		return false
	}
}
