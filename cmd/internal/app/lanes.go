package app

import (
	"context"
	"crypto/rand"
	"encoding/base32"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"strings"

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

// consoleCode reads the code that opens the guard's page, or makes one.
func consoleCode(path string) (string, error) {
	b, err := os.ReadFile(path)
	if errors.Is(err, fs.ErrNotExist) {
		var raw [10]byte
		if _, err := rand.Read(raw[:]); err != nil {
			return "", err
		}
		b = []byte(strings.ToLower(base32.StdEncoding.EncodeToString(raw[:])) + "\n")
		err = os.WriteFile(path, b, 0o600)
	}
	if err != nil {
		return "", fmt.Errorf("cannot read the console's code: %w", err)
	}
	code := strings.TrimSpace(string(b))
	if len(code) < 8 {
		return "", fmt.Errorf("the console's code in %s is shorter than 8 characters: remove the file, and another is made", path)
	}
	return code, nil
}
