package policy

import (
	"fmt"
	"iter"
	"slices"
	"strings"

	"gatehouse/edge"
)

// Report is what a policy would have decided of recorded presentations.
type Report struct {
	Entries     int // decisions looked at
	Same        int
	Different   int
	CannotTell  int // a rule that applies reads what was not recorded then
	Differences []Difference
	Missing     map[string]int // fact -> decisions of which it was not recorded
}

// Difference counts decisions that would differ alike.
type Difference struct {
	WasRule, Rule  string
	Was, Outcome   edge.Outcome
	Category, Area string
	Count          int
	First          uint64 // sequence of one of them
}

// Replay decides recorded decisions again by the policy. Entries that are no
// decisions of a policy are passed over. old finds the policy that was in force
// by its hash, nil when it is not known: it says which facts were recorded at all.
// It has no side effects, and the same entries give the same report.
func (p *Policy) Replay(entries iter.Seq2[uint64, *edge.Entry], old func(hash string) *Policy) Report {
	rep := Report{Missing: map[string]int{}}
	found := map[Difference]int{}
	for seq, e := range entries {
		if e.Kind != edge.KindDecision || e.Facts == nil || e.Rule == "" {
			continue
		}
		rep.Entries++
		f := *e.Facts
		if e.Policy != p.hash {
			was := old(e.Policy)
			if f.Area != nil {
				a := p.AreaAt(f.Lane.Area, f.Time)
				f.Area = &a
			}
			if missing := p.unrecorded(&f, was); len(missing) > 0 {
				rep.CannotTell++
				for _, name := range missing {
					rep.Missing[name]++
				}
				continue
			}
		}
		d := p.Decide(&f)
		if d.Outcome == e.Outcome {
			rep.Same++
			continue
		}
		rep.Different++
		k := Difference{WasRule: e.Rule, Rule: d.Rule, Was: e.Outcome, Outcome: d.Outcome, Area: f.Lane.Area}
		if f.Pass != nil {
			k.Category = f.Pass.Category
		}
		i, ok := found[k]
		if !ok {
			i = len(rep.Differences)
			found[k] = i
			k.First = seq
			rep.Differences = append(rep.Differences, k)
		}
		rep.Differences[i].Count++
	}
	slices.SortStableFunc(rep.Differences, func(a, b Difference) int {
		if a.Count != b.Count {
			return b.Count - a.Count
		}
		return strings.Compare(fmt.Sprint(a), fmt.Sprint(b))
	})
	return rep
}

// unrecorded are the facts that rules in scope read and the journal cannot have:
// what the policy of that time did not declare was not looked up, and what no
// rule looked at need not have been measured.
func (p *Policy) unrecorded(f *edge.Facts, was *Policy) []string {
	var out []string
	miss := func(name string) {
		if !slices.Contains(out, name) {
			out = append(out, name)
		}
	}
	for _, l := range p.layers {
		for _, r := range l.byDirection[f.Lane.Direction] {
			if !l.inScope(r, f) {
				continue
			}
			for _, name := range r.reads {
				plain := strings.TrimPrefix(name, "known.")
				group, rest, _ := strings.Cut(plain, ".")
				switch {
				case group == "counters":
					c, _, _ := strings.Cut(rest, ".")
					if i := slices.IndexFunc(p.counters, func(x counter) bool { return x.name == c }); i >= 0 {
						_, kept := f.Counters[c]
						if _, subject := p.counters[i].cell(f); subject && (!kept || was == nil || !was.counts(&p.counters[i])) {
							miss(name)
						}
					}
				case group == "marks":
					if !f.Marks[rest] && (was == nil || !slices.Contains(was.marks, rest)) {
						miss(name)
					}
				case group == "guard":
					// What no rule looked at was no button on the guard's screen.
					if !f.Guarded(rest) && (was == nil || !was.Reads(plain)) {
						miss(name)
					}
				case name == "temperature.value":
					if f.Temperature != nil && f.Temperature.State == edge.TempOK && f.Temperature.Value == nil {
						miss(name)
					}
				case group == "temperature":
					// Without rules that look at it nobody was measured; with another
					// threshold the band was another.
					measured := f.Temperature != nil && f.Temperature.State != edge.TempNone
					switch {
					case was == nil:
						miss(name)
					case !measured && !was.Reads("temperature"):
						miss(name)
					case measured && (rest == "band" || rest == "second") && (was.temp.Threshold != p.temp.Threshold || was.temp.Uncertainty != p.temp.Uncertainty) && f.Temperature.State == edge.TempOK:
						miss(name)
					}
				}
			}
		}
	}
	return out
}

// counts reports whether the policy keeps the same counter.
func (p *Policy) counts(c *counter) bool {
	return slices.ContainsFunc(p.counters, func(o counter) bool {
		return o.name == c.name && o.by == c.by && o.of == c.of && o.every == c.every && o.site == c.site && o.expr == c.expr
	})
}

// Decision is what an entry recorded, with what the policy that made it can
// still say of it.
func Decision(e *edge.Entry) edge.Decision {
	return edge.Decision{Outcome: e.Outcome, Rule: e.Rule, Reason: e.Reason, Authority: e.Authority, Policy: e.Policy, Matched: e.Matched, Obligations: e.Obligations, Deltas: e.Deltas}
}
