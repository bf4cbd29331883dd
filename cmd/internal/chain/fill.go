package chain

import (
	"context"
	"fmt"
	"log/slog"
	"math/rand/v2"
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

// Fill makes a journal of n entries, decisions with their facts and passages as the
// simulated estate has them, from a fixed seed, and seals its tree: that is done while
// a gate is offline, too.
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
	visits := n / 2     // the epoch's entry is the first; where n is even one has no passage
	for w := range writers {
		g.Go(func() error {
			for i := w; i < visits; i += writers {
				if err := ctx.Err(); err != nil {
					return err
				}
				clk.Advance(time.Millisecond)
				e := decision(clk, i)
				seq, err := j.Append(ctx, e, nil)
				if err == nil && (n%2 == 1 || i > 0) {
					_, err = j.Append(ctx, passage(clk, e, seq), nil)
				}
				if err != nil {
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

// decision is the one of the i-th visit, as a closed estate has them: one of 2,000
// passes of 700 households, in or out, now and then referred.
func decision(clk edge.Clock, i int) *edge.Entry {
	r := rand.New(rand.NewPCG(42, uint64(i)))
	id, house := edge.PassID(1+r.IntN(2000)), edge.HouseholdID(1+r.IntN(700))
	dir := []edge.Direction{edge.In, edge.Out}[r.IntN(2)]
	e := &edge.Entry{Kind: edge.KindDecision, Lane: "east-" + string(dir), Presentation: uint64(i + 1), Of: -1, Stamp: clk.Now(),
		Policy: "sha256:7221815d8b0f0d29", Engine: "1", Registry: 7, Outcome: edge.Admit, Rule: "resident", Reason: "resident",
		Authority: "Community office: Closed management notice 2026-03, sections 2 to 5",
		Matched:   []edge.Match{{Rule: "resident", Outcome: edge.Admit}},
		Facts: &edge.Facts{Pass: &edge.PassFacts{ID: id, Category: "resident", Status: edge.PassActive},
			Household:   &edge.HouseholdFacts{ID: house, Area: "main", Members: 1 + r.IntN(5)},
			Temperature: &edge.TemperatureFacts{State: edge.TempOK, Band: edge.BandBelow, Profile: "skin/1"},
			Lane:        edge.LaneFacts{Level: edge.LevelEstate, Direction: dir, Area: "main"},
			Area:        &edge.AreaFacts{Tier: edge.TierControl},
			Position:    &edge.PositionFacts{At: "outside", Age: r.IntN(600)}}}
	if dir == edge.Out {
		e.Facts.Position.At = "inside"
		e.Deltas = []edge.Delta{{Cell: edge.Cell{Name: "household_exits", Subject: house.Subject(), Bucket: e.Stamp.Time / 86_400_000}, Op: edge.OpAdd, Value: 1}}
	}
	if r.IntN(20) == 0 {
		e.Outcome, e.Rule, e.Reason = edge.Refer, "fever", "fever"
		e.Facts.Temperature.Band = edge.BandAbove
		e.Matched = append(e.Matched, edge.Match{Rule: "fever", Outcome: edge.Refer})
	}
	return e
}

// passage is how the visit ended: the person went through.
func passage(clk edge.Clock, e *edge.Entry, of uint64) *edge.Entry {
	at := edge.PositionInside
	if e.Facts.Lane.Direction == edge.Out {
		at = edge.PositionOutside
	}
	return &edge.Entry{Kind: edge.KindPassage, Lane: e.Lane, Presentation: e.Presentation, Of: int64(of), Actor: "system", Stamp: clk.Now(), Result: edge.ResultPassed,
		Deltas: []edge.Delta{{Cell: edge.Cell{Name: edge.CellPosition, Subject: e.Facts.Pass.ID.Subject()}, Op: edge.OpSet, Value: at}}}
}
