package chain

import (
	"context"
	"fmt"
	"log/slog"
	"path/filepath"
	"time"

	"golang.org/x/sync/errgroup"

	"gatehouse/edge"
	"gatehouse/edge/clock"
	"gatehouse/edge/identity"
	"gatehouse/edge/journal"
)

// The gate whose journal is drained.
const (
	Realm = "bench.example"
	Site  = "estate"
	Gate  = "east"
)

// Identity opens the keys of the gate's device in a folder.
func Identity(dir string) (*identity.Identity, error) {
	return identity.Open(filepath.Join(dir, "gate"), Realm+"/"+Site+"/"+Gate)
}

// Fill makes a journal of n entries with facts, as decisions have them, always
// the same, and seals its tree: that is done while a gate is offline, too.
func Fill(ctx context.Context, path string, id *identity.Identity, n int) (_ *journal.Journal, err error) {
	clk := clock.NewFake(time.Date(2026, 3, 1, 0, 0, 0, 0, time.UTC), 480)
	j, err := journal.Open(ctx, path, journal.Options{Community: Realm, Site: Site, Gate: Gate, Clock: clk, Signer: id.Signer(), Log: slog.New(slog.DiscardHandler)})
	if err != nil {
		return nil, err
	}
	defer func() {
		if err != nil {
			_ = j.Close()
		}
	}()
	var g errgroup.Group
	const writers = 256 // group commit: alone, each entry would wait for the medium
	for w := range writers {
		g.Go(func() error {
			for i := w; i < n-1; i += writers { // the epoch's entry is the first
				if err := ctx.Err(); err != nil {
					return err
				}
				clk.Advance(time.Millisecond)
				if _, err := j.Append(ctx, decision(clk, i), nil); err != nil {
					return err
				}
			}
			return nil
		})
	}
	if err := g.Wait(); err != nil {
		return nil, fmt.Errorf("cannot fill the journal: %w", err)
	}
	_, err = j.Head(ctx)
	return j, err
}

func decision(clk edge.Clock, i int) *edge.Entry {
	pass := edge.PassID(i%2000 + 1)
	e := &edge.Entry{Kind: edge.KindDecision, Lane: "east-in", Presentation: uint64(i + 1), Of: -1, Stamp: clk.Now(),
		Policy: "sha256:00112233aabbccdd", Engine: "1", Registry: 7, Outcome: edge.Admit, Rule: "residents.normal", Reason: "resident",
		Authority: "estate committee", Matched: []edge.Match{{Rule: "residents.normal", Outcome: edge.Admit}},
		Facts: &edge.Facts{Pass: &edge.PassFacts{ID: pass, Category: "resident", Status: edge.PassActive},
			Household:   &edge.HouseholdFacts{ID: edge.HouseholdID(pass/3 + 1), Area: "A", Members: 3},
			Temperature: &edge.TemperatureFacts{State: edge.TempOK, Band: edge.BandBelow, Profile: "forehead/1"},
			Lane:        edge.LaneFacts{Level: edge.LevelEstate, Direction: edge.In, Area: "A"},
			Position:    &edge.PositionFacts{At: "outside", Age: i % 600}}}
	if i%3 == 0 {
		e.Deltas = []edge.Delta{{Cell: edge.Cell{Name: edge.CellPosition, Subject: pass.Subject()}, Op: edge.OpSet, Value: edge.PositionInside}}
	}
	return e
}
