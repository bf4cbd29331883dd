package app

import (
	"context"
	"fmt"

	"gatehouse/edge"
	"gatehouse/edge/lane"
)

// Lanes is all lanes of the gate, as the console sees them.
type Lanes struct {
	lanes  []*lane.Lane
	byName map[string]*lane.Lane
}

func newLanes(lanes []*lane.Lane) *Lanes {
	l := &Lanes{lanes: lanes, byName: map[string]*lane.Lane{}}
	for _, x := range lanes {
		l.byName[x.Name()] = x
	}
	return l
}

// Views are the lanes as they stand, in the order of the configuration.
func (l *Lanes) Views() []edge.LaneView {
	out := make([]edge.LaneView, len(l.lanes))
	for i, x := range l.lanes {
		out[i] = x.View()
	}
	return out
}

// Watch yields a view whenever a lane changes, until ctx is done. A reader that
// is slow gets each lane's latest.
func (l *Lanes) Watch(ctx context.Context) <-chan edge.LaneView {
	out := make(chan edge.LaneView)
	done := make(chan struct{}, len(l.lanes))
	for _, x := range l.lanes {
		in := x.Watch(ctx)
		go func() {
			defer func() { done <- struct{}{} }()
			for v := range in {
				select {
				case out <- v:
				case <-ctx.Done():
					return
				}
			}
		}()
	}
	go func() {
		for range l.lanes {
			<-done
		}
		close(out)
	}()
	return out
}

// Do hands an action to its lane.
func (l *Lanes) Do(ctx context.Context, a edge.Action) error {
	x, ok := l.byName[a.Lane]
	if !ok {
		return fmt.Errorf("no lane is called %q: %w", a.Lane, edge.ErrUnknown)
	}
	return x.Do(ctx, a)
}

// Test has a device of a lane tried.
func (l *Lanes) Test(ctx context.Context, t edge.DeviceTest) error {
	x, ok := l.byName[t.Lane]
	if !ok {
		return fmt.Errorf("no lane is called %q: %w", t.Lane, edge.ErrUnknown)
	}
	return x.Test(ctx, t)
}
