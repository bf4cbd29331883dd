package downlink

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"

	"filippo.io/age"

	"gatehouse/edge"
	"gatehouse/sync/wire"
)

// steps are the deltas that lead from the version in force to the one that is
// wanted; nil when there is no such way.
func (d *Downlink) steps(ref *wire.RegistryRef) []wire.DeltaRef {
	if ref.Version == d.whole {
		return nil
	}
	have := d.cfg.Registry.Version()
	for i, r := range ref.Deltas {
		if r.From != have {
			continue
		}
		steps := ref.Deltas[i:]
		for _, s := range steps {
			if s.From != have || s.To <= have {
				return nil
			}
			have = s.To
		}
		if have != ref.Version {
			return nil
		}
		return steps
	}
	return nil
}

// parts are the hashes of what must be here before the registry can be applied.
func (d *Downlink) parts() []string {
	steps := d.steps(d.registry)
	if len(steps) == 0 {
		return d.registry.Chunks
	}
	out := make([]string, len(steps))
	for i, s := range steps {
		out[i] = s.Hash
	}
	return out
}

// step applies deltas, each as a whole. What is left after an error is an earlier
// version of the server's, complete.
func (d *Downlink) step(ctx context.Context, steps []wire.DeltaRef, id age.Identity, contains []edge.EntryRef) error {
	for i, s := range steps {
		put, gone, err := d.readDelta(s, id)
		if err != nil {
			return err
		}
		var upTo []edge.EntryRef
		if i == len(steps)-1 {
			upTo = contains // that is what the last version contains
		}
		if err := d.cfg.Registry.ApplyDelta(ctx, s.From, s.To, put, gone, upTo); err != nil {
			return err
		}
	}
	return nil
}

func (d *Downlink) readDelta(s wire.DeltaRef, id age.Identity) ([]edge.RosterRow, []edge.PassID, error) {
	plain, err := d.readChunk(s.Hash, id)
	if err != nil {
		return nil, nil, err
	}
	first, rest, _ := bytes.Cut(plain, []byte("\n"))
	var head wire.DeltaHead
	if err := decode(first, &head, &head.V); err != nil {
		return nil, nil, err
	}
	if head.From != s.From || head.To != s.To {
		return nil, nil, fmt.Errorf("%w: a delta from %d to %d, the manifest says %d to %d", wire.ErrMalformed, head.From, head.To, s.From, s.To)
	}
	var put []edge.RosterRow
	for line := range bytes.Lines(rest) {
		var r wire.Row
		if err := json.Unmarshal(line, &r); err != nil {
			return nil, nil, fmt.Errorf("%w: delta to %d, row %d: %w", wire.ErrMalformed, s.To, len(put)+1, err)
		}
		put = append(put, edge.RosterRow{Line: len(put) + 1, Pass: r.Pass, Household: r.Household, Credentials: r.Credentials})
	}
	return put, head.Gone, nil
}
