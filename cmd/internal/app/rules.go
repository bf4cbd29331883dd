package app

import (
	"slices"

	"gatehouse/cmd/internal/config"
	"gatehouse/edge"
	"gatehouse/edge/console"
	"gatehouse/edge/policy"
)

// rules are the rules in force, with those of the layers above, for people.
func (a *App) rules() console.Rules {
	return rulesOf(a.Policies.Current(), a.cfg, edge.TimeFactsOf(a.Clock.Now()))
}

func rulesOf(p *policy.Policy, cfg *config.Gate, now edge.TimeFacts) console.Rules {
	otherwise, _ := p.Otherwise()
	out := console.Rules{Title: p.Title(), Hash: p.Hash(), Threshold: p.Threshold(), Otherwise: otherwise}
	for _, s := range p.Standing(now) {
		r := console.Rule{ID: s.ID, Title: s.Title, Reason: s.Reason, Kind: s.Kind, Outcome: s.Outcome, Policy: s.Policy, Area: s.Area, Tier: s.Tier, Level: s.Level,
			Category: s.Category, NotCategory: s.NotCategory, Group: s.Group, Direction: s.Direction, Conditional: s.Conditional,
			By: s.Authority.By, Basis: s.Authority.Basis, From: s.From, Until: s.Until, Days: s.Days, Coming: s.Coming}
		if h := s.Hours; h != nil {
			r.Hours = &console.Hours{From: h.From, To: h.To, Weekdays: h.Weekdays}
		}
		out.List = append(out.List, r)
	}
	areas := p.Areas()
	for _, l := range cfg.Lanes {
		areas = append(areas, l.Area)
	}
	for _, r := range out.List {
		areas = append(areas, r.Area)
	}
	slices.Sort(areas)
	for _, code := range slices.Compact(areas) {
		if code == "" {
			continue
		}
		at := p.AreaAt(code, now)
		x := console.Area{Code: code, Name: cfg.Areas[code], Tier: at.Tier, Days: at.Days}
		if x.Name == "" {
			x.Name = code
		}
		out.Areas = append(out.Areas, x)
	}
	return out
}
