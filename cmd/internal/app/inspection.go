package app

import (
	"context"
	"encoding/json"
	"fmt"

	"gatehouse/edge"
	"gatehouse/edge/console"
	"gatehouse/edge/policy"
	"gatehouse/edge/text"
)

// inspection gives the console what it shows of the journal beyond its lines.
func (a *App) inspection(d *console.Deps) {
	d.Plan, d.Explain, d.Proof, d.Head, d.Inside, d.ResetPositions = a.plans.current, a.explain, a.prove, a.Journal.Head, a.inside, a.resetPositions
	d.Origin = func() string { return edge.Origin(a.cfg.Community, a.cfg.Site, a.cfg.Gate, a.Journal.Epoch()) }
}

// explain says why a decision was what it was, by the policy that made it.
func (a *App) explain(ctx context.Context, e *edge.Entry, in *text.Printer) (edge.Explanation, bool) {
	p := a.Policies.Current()
	if p.Hash() != e.Policy {
		var err error
		if p, err = ArchivedPolicy(ctx, a.Registry, e.Policy); err != nil {
			return edge.Explanation{}, false
		}
	}
	return p.Explain(e.Facts, policy.Decision(e), in), true
}

// prove proves an entry under a head of now.
func (a *App) prove(ctx context.Context, seq uint64) (edge.Proof, edge.Head, error) {
	h, err := a.Journal.Head(ctx)
	if err != nil {
		return edge.Proof{}, edge.Head{}, err
	}
	hashes, blind, line, err := a.Journal.Proof(ctx, seq, h.Size)
	return edge.Proof{Seq: seq, Blind: blind, Line: line, Hashes: hashes, Head: h.Note}, h, err
}

// inside is who is believed inside, with what the registry knows of them. A pass
// that is no longer there is shown by its number: the person may still be.
func (a *App) inside(ctx context.Context) ([]edge.Inside, error) {
	list, err := a.Journal.Inside(ctx)
	if err != nil {
		return nil, err
	}
	for i := range list {
		p, ok, err := a.Registry.Pass(ctx, list[i].Pass.ID)
		if err != nil {
			return nil, err
		}
		if ok {
			list[i].Pass = p
		}
	}
	return list, nil
}

// resetPositions makes all positions unknown, and says that nobody of before need be
// looked for, in an entry that names both persons.
func (a *App) resetPositions(ctx context.Context, actor, second, why string) error {
	b, err := json.Marshal(map[string]any{"action": "reset_positions", "second": second, "why": why})
	if err != nil {
		return err
	}
	s := a.Clock.Now()
	// Positions are dated by the same clock; one of this very moment is not believed.
	e := &edge.Entry{Kind: edge.KindAction, Of: -1, Actor: actor, Stamp: s, Policy: a.Policies.Hash(), Registry: a.Registry.Version(), Data: b}
	for _, subject := range []string{edge.SubjectReset, edge.SubjectCleared} {
		e.Deltas = append(e.Deltas, edge.Delta{Cell: edge.Cell{Name: edge.CellReset, Subject: subject}, Op: edge.OpSet, Value: s.Time})
	}
	if _, err := a.counted().Append(ctx, e, nil); err != nil {
		return fmt.Errorf("cannot reset the positions: %w", err)
	}
	return nil
}
