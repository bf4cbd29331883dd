package policy

import (
	"fmt"
	"math"
	"slices"
	"strconv"
	"strings"

	"gatehouse/edge"
)

// Speaker has the sentences of one language. What it has no words for it
// reports by Has, and the code itself is said.
type Speaker interface {
	Has(id string) bool
	T(id string, args ...any) string
}

// maxChanges bounds what an explanation says would have changed the outcome.
const maxChanges = 4

// Explain says in a language why the decision on the facts is what it is, what
// single change of what the rules looked at would have led to a milder one,
// and what the layers above alone would have said. The decision is made again
// from the facts; where it is not the one that is given, the explanation says so,
// for then it was made by other rules.
func (p *Policy) Explain(f *edge.Facts, d edge.Decision, in Speaker) edge.Explanation {
	now := p.Decide(f)
	word := func(o edge.Outcome) string { return say(in, "outcome.", string(o)) }
	id := "explain.why"
	if now.Outcome != d.Outcome || now.Rule != d.Rule {
		id = "explain.other"
	}
	e := edge.Explanation{Outcome: d.Outcome, Authority: d.Authority,
		Sentence: in.T(id, "Outcome", word(d.Outcome), "Reason", say(in, "reason.", string(d.Reason)), "Rule", d.Rule, "Layer", p.layerOf(d.Rule), "Authority", d.Authority)}
	for _, c := range p.changes(f, now) {
		e.Counter = append(e.Counter, in.T("explain.if", "Fact", say(in, "fact.", c.fact), "Value", value(in, c), "Outcome", word(c.outcome)))
	}
	if p.up != nil {
		e.Superior = in.T("explain.superior", "Outcome", word(p.up.Decide(f).Outcome), "Layer", p.up.layer)
	}
	return e
}

func say(in Speaker, prefix, code string) string {
	if id := prefix + code; in.Has(id) {
		return in.T(id)
	}
	return code
}

func value(in Speaker, c change) string {
	switch v := c.value.(type) {
	case bool:
		return in.T("explain." + strconv.FormatBool(v))
	case string:
		if v == "" {
			return in.T("explain.empty")
		}
		for _, pre := range []string{"value." + c.fact + ".", "value."} {
			if in.Has(pre + v) {
				return in.T(pre + v)
			}
		}
		return v
	}
	return fmt.Sprint(c.value)
}

// layerOf names the layer that holds a rule, empty for no_match and the site's own.
func (p *Policy) layerOf(id string) string {
	for _, l := range p.layers {
		for _, r := range l.rules {
			if r.id == id {
				return l.layer
			}
		}
	}
	return ""
}

// change is a fact as it might have been, and what would have followed.
type change struct {
	fact    string
	value   any
	outcome edge.Outcome
}

// fixed are facts that nobody changes at a gate: who somebody is and where.
var fixed = []string{"pass.id", "pass.category", "pass.groups", "household.id", "vehicle.id", "lane.level", "lane.direction", "lane.area", "area.", "time.", "parameters."}

// changes tries each fact that the matching rules read with the values that the
// rules know of it, one fact at a time. The mildest outcome of each fact is
// kept; the order is that of the rules.
func (p *Policy) changes(f *edge.Facts, d edge.Decision) []change {
	var out []change
	act := &activation{f: f, table: p.table, over: map[string]any{}}
	for _, r := range p.readers(d) {
		for _, name := range r.reads {
			if slices.ContainsFunc(fixed, func(x string) bool { return name == x || strings.HasSuffix(x, ".") && strings.HasPrefix(name, x) }) ||
				slices.ContainsFunc(out, func(c change) bool { return c.fact == name }) {
				continue
			}
			best := change{fact: name, outcome: d.Outcome}
			for _, v := range p.candidates(name, f) {
				act.over[name] = v
				if n := p.decide(f, act); n.Error == "" && n.Outcome.Strictness() < best.outcome.Strictness() {
					best.value, best.outcome = v, n.Outcome
				}
			}
			delete(act.over, name)
			if best.value != nil {
				out = append(out, best)
			}
		}
	}
	if s := p.slotOf(d); s != nil {
		other := *f
		other.Time.Minute, other.Time.Weekday = s.to%1440, f.Time.Weekday
		if n := p.Decide(&other); n.Outcome.Strictness() < d.Outcome.Strictness() {
			out = append(out, change{"time.minute", fmt.Sprintf("%02d:%02d", s.to/60%24, s.to%60), n.Outcome})
		}
	}
	return out[:min(len(out), maxChanges)]
}

// readers are the rules whose facts matter: those that matched with the outcome
// or a stricter one, and the protections that did not match.
func (p *Policy) readers(d edge.Decision) []*rule {
	var out, protects []*rule
	for _, l := range p.layers {
		for _, r := range l.rules {
			if slices.ContainsFunc(d.Matched, func(m edge.Match) bool { return m.Rule == r.id && m.Outcome.Strictness() >= d.Outcome.Strictness() }) {
				out = append(out, r)
			} else if r.kind == "protect" || d.Rule == "no_match" && r.kind == "permit" {
				protects = append(protects, r)
			}
		}
	}
	return append(out, protects...)
}

func (p *Policy) slotOf(d edge.Decision) *slot {
	for _, l := range p.layers {
		for _, r := range l.rules {
			if r.id == d.Rule {
				return r.slot
			}
		}
	}
	return nil
}

// candidates are values of a fact other than its own: those that rules compare
// it with, and their neighbours.
func (p *Policy) candidates(name string, f *edge.Facts) []any {
	switch own := p.table[name](f).(type) {
	case bool:
		return []any{!own}
	case string:
		if strings.HasPrefix(name, "temperature.") && own == "" {
			return nil // it was not measured; the rule for that says what to do
		}
		out := []any{""}
		for _, v := range p.known(name) {
			if s, ok := v.(string); ok && s != own {
				out = append(out, s)
			}
		}
		if own == "" {
			out = out[1:]
		}
		// The values a person would hope for come first: they win among equals.
		slices.SortStableFunc(out, func(a, b any) int { return hope(b.(string)) - hope(a.(string)) })
		return out
	case int64:
		out := []any{int64(0)}
		for _, v := range p.known(name) {
			if n, ok := v.(int64); ok && n < math.MaxInt32 {
				out = append(out, n-1, n, n+1)
			}
		}
		return slices.DeleteFunc(out, func(v any) bool { return v.(int64) == own || v.(int64) < 0 })
	}
	return nil
}

func hope(v string) int {
	return slices.Index([]string{"yes", "active", "outside", "negative", "green", "ok", "below"}, v)
}

// known are the texts and numbers that rules compare the fact with.
func (p *Policy) known(name string) []any {
	out := slices.Clone(words[name])
	if strings.HasPrefix(name, "temperature.") {
		return out // nobody is told that a fever would help
	}
	for _, l := range p.layers {
		for _, r := range l.rules {
			for _, v := range r.literals[name] {
				if !slices.Contains(out, v) {
					out = append(out, v)
				}
			}
		}
	}
	return out
}

// words are values of facts that rules need not name to mean them.
var words = map[string][]any{
	"temperature.band":   {"below"},
	"temperature.state":  {"ok"},
	"temperature.second": {"below"},
	"pass.status":        {"active"},
	"holder.code":        {"green"},
	"guard.paper":        {"green"},
	"guard.mask":         {"yes"},
	"guard.identity":     {"known"},
	"visitor.consent":    {"yes"},
	"visitor.origin":     {"low"},
}
