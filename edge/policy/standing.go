package policy

import (
	"time"

	"gatehouse/edge"
)

// Standing is one rule for people: what is in force or is to come, from whom, when
// and until when.
type Standing struct {
	Rule
	Layer       string // that holds it, empty for the site's own
	Policy      string // what that layer's policy is called
	Level       edge.Level
	Tier        edge.Tier
	NotCategory string
	Group       string
	Conditional bool // it asks for more than who, where and when
	Hours       *Hours
	From, Until time.Time // zero = open
	Days        bool      // From and Until are midnights: the days between are meant
	Coming      bool      // it is not in force yet
}

// Hours are a daily time, in minutes since midnight; To may be on the next day.
type Hours struct {
	From, To int
	Weekdays []int // 1 Monday to 7 Sunday
}

// Standing lists the rules that are in force at a time or will be later, those of
// the highest layer first. What has ended is not among them.
func (p *Policy) Standing(t edge.TimeFacts) []Standing {
	var out []Standing
	for _, l := range p.layers {
		for i, r := range l.Rules() {
			a, x := r.Authority, l.rules[i]
			coming := a.From != 0 && !a.in(t) && (a.Until == 0 || a.wallTime(t) < a.Until)
			if !coming && !a.in(t) {
				continue
			}
			s := Standing{Rule: r, Layer: l.layer, Policy: l.title, Level: x.scope.Level, Tier: x.scope.Tier, NotCategory: x.scope.NotCategory, Group: x.scope.Group,
				Conditional: x.when != nil, Days: a.wall, Coming: coming, From: a.time(a.From, t), Until: a.time(a.Until, t)}
			if x.slot != nil {
				s.Hours = &Hours{From: x.slot.from, To: x.slot.to}
				for d := range 7 {
					if x.slot.days&(1<<d) != 0 {
						s.Hours.Weekdays = append(s.Hours.Weekdays, d+1)
					}
				}
			}
			out = append(out, s)
		}
	}
	return out
}

// wallTime is the time that the authority's dates are compared with.
func (a Authority) wallTime(t edge.TimeFacts) int64 {
	if a.wall {
		return t.Stamp.Time + int64(t.Stamp.Offset)*60_000
	}
	return t.Stamp.Time
}

// time is a date of the authority as a time.
func (a Authority) time(ms int64, t edge.TimeFacts) time.Time {
	switch {
	case ms == 0:
		return time.Time{}
	case a.wall:
		ms -= int64(t.Stamp.Offset) * 60_000
	}
	return time.UnixMilli(ms)
}

// Otherwise is what becomes of whom no rule speaks of, and whose word that is.
func (p *Policy) Otherwise() (edge.Outcome, Authority) {
	by := p
	for _, l := range p.layers[:len(p.layers)-1] {
		if l.noMatch != edge.Admit && (by == p || l.noMatch.Strictness() > by.noMatch.Strictness()) {
			by = l
		}
	}
	return by.noMatch, by.authority
}

// Threshold is the temperature that holds, in degrees Celsius.
func (p *Policy) Threshold() float64 { return p.temp.Threshold }

// Areas are those that the policy gives a tier.
func (p *Policy) Areas() []string {
	out := make([]string, 0, len(p.tiers))
	for a := range p.tiers {
		out = append(out, a)
	}
	return out
}
