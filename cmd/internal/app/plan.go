package app

import (
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"os"
	"slices"
	"strings"
	"sync/atomic"

	"gatehouse/cmd/internal/config"
	"gatehouse/edge"
	"gatehouse/edge/policy"
)

// plans is the emergency plan that is switched on, or none. It holds until it is
// switched off, also across a start: what it means is in the policy's rules.
type plans struct {
	path   string
	policy func() *policy.Policy
	now    atomic.Pointer[edge.PlanFacts] // never changed, only replaced
}

func openPlans(path string, pol func() *policy.Policy, log *slog.Logger) (*plans, error) {
	p := &plans{path: path, policy: pol}
	src, err := os.ReadFile(path)
	if errors.Is(err, fs.ErrNotExist) {
		return p, nil
	}
	if err != nil {
		return nil, fmt.Errorf("cannot read which plan is in force: %w", err)
	}
	var f edge.PlanFacts
	if err := json.Unmarshal(src, &f); err != nil || f.Name == "" {
		// The gate opens all the same; nobody knows what was in force.
		log.Error("which plan was in force cannot be read: none is", "file", path, "err", err)
		return p, nil
	}
	p.now.Store(&f)
	return p, nil
}

// current is the plan in force; nil for none.
func (p *plans) current() *edge.PlanFacts {
	f := p.now.Load()
	if f == nil {
		return nil
	}
	c := *f
	return &c
}

// on switches a plan on, in place of the one before. A plan that no rule speaks of
// is refused: whoever mistypes an evacuation must hear of it.
func (p *plans) on(f edge.PlanFacts) (string, error) {
	if known := p.policy().Plans(); !slices.Contains(known, f.Name) {
		has := "it has none"
		if len(known) > 0 {
			has = "it has " + strings.Join(known, ", ")
		}
		return "", fmt.Errorf("the policy in force has no rule for a plan %q (%s)", f.Name, has)
	}
	src, err := json.Marshal(f)
	if err == nil {
		err = config.WriteKey(p.path, append(src, '\n'))
	}
	if err != nil {
		return "", fmt.Errorf("cannot keep which plan is in force: %w", err)
	}
	p.now.Store(&f)
	if f.Drill {
		return "the plan " + f.Name + " is in force, as a drill", nil
	}
	return "the plan " + f.Name + " is in force", nil
}

func (p *plans) off() (string, error) {
	was := p.now.Load()
	if err := os.Remove(p.path); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return "", fmt.Errorf("cannot keep that no plan is in force: %w", err)
	}
	p.now.Store(nil)
	if was == nil {
		return "no plan was in force", nil
	}
	return "the plan " + was.Name + " has ended", nil
}
