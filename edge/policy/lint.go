package policy

import (
	"bytes"
	"fmt"
	"iter"
	"maps"
	"regexp"
	"slices"
	"strings"

	"gatehouse/edge"
)

// Finding is something a manager should look at before a policy is in force.
type Finding struct {
	Kind string // dead, contradiction, overlap, expired, gap, conditional, queue, private, unused
	File string
	Line int // 0 = the policy as a whole
	Rule string
	Text string
}

// String is one line: file:line: kind: text.
func (f Finding) String() string { return fmt.Sprintf("%s:%d: %s: %s", f.File, f.Line, f.Kind, f.Text) }

// Fails reports whether a policy with the finding should not go into force.
func (f Finding) Fails() bool {
	return f.Kind == "private" || f.Kind == "contradiction" || f.Kind == "gap"
}

// Lint looks at a policy as a whole, at a time (UTC ms, for what has expired). It
// decides on the structure of the rules alone: a condition may hold or not.
// samples are ordinary presentations, of a roster or a journal; a rule that stops
// most of those with one label makes a queue. Without samples (nil) an ordinary
// resident is made up.
func (p *Policy) Lint(now int64, samples iter.Seq[Sample]) []Finding {
	l := &linter{p: p}
	for _, t := range Private(p.src) {
		l.add("private", t.line, "", "%s", t.text)
	}
	l.rules(now)
	l.gaps()
	if samples == nil {
		samples = slices.Values(p.Ordinary(&edge.Pass{ID: 1, Category: "resident", Status: edge.PassActive}, &edge.Household{ID: 1}, "", max(now, p.authority.From, 1)))
	}
	l.queue(samples)
	return l.out
}

// Sample is one ordinary presentation, and what it has in common with others:
// "going in from 22:30".
type Sample struct {
	Label string
	Facts *edge.Facts
}

// Ordinary are the presentations of a pass in a week, in both directions and in
// each stretch of hours that the rules tell apart, with a normal temperature
// where the rules ask for one. now (UTC ms) is for what ends on a date.
func (p *Policy) Ordinary(ps *edge.Pass, house *edge.Household, area string, now int64) []Sample {
	var out []Sample
	stamp := edge.Stamp{Time: now, Clock: edge.ClockSynced}
	for _, dir := range []edge.Direction{edge.In, edge.Out} {
		at := map[edge.Direction]string{edge.In: "outside", edge.Out: "inside"}[dir]
		for _, s := range p.segments() {
			f := &edge.Facts{Lane: edge.LaneFacts{Level: edge.LevelEstate, Direction: dir, Area: area}, Position: &edge.PositionFacts{At: at, Age: 60},
				Time: edge.TimeFacts{Weekday: s.day, Minute: s.minute, Trusted: true, Stamp: stamp}}
			a := p.AreaAt(area, f.Time)
			f.Area = &a
			f.SetPass(ps, house, stamp, area)
			if p.Reads("temperature") {
				f.Temperature = &edge.TemperatureFacts{State: edge.TempOK, Band: edge.BandBelow}
			}
			out = append(out, Sample{fmt.Sprintf("going %s %s", dir, s.text), f})
		}
	}
	return out
}

type linter struct {
	p   *Policy
	out []Finding
}

func (l *linter) add(kind string, line int, rule, format string, args ...any) {
	l.out = append(l.out, Finding{kind, l.p.name, line, rule, fmt.Sprintf(format, args...)})
}

// covers reports whether wherever b applies by its scope, a does, too.
func covers(a, b *rule) bool {
	x, y := a.scope, b.scope
	return a.when == nil &&
		(x.Level == "" || x.Level == y.Level) && (x.Direction == "" || x.Direction == y.Direction) &&
		(x.Area == "" || x.Area == y.Area) && (x.Tier == "" || x.Tier == y.Tier) && (x.Category == "" || x.Category == y.Category) &&
		(x.NotCategory == "" || x.NotCategory == y.NotCategory || y.Category != "" && y.Category != x.NotCategory) &&
		(x.Group == "" || x.Group == y.Group) && (a.slot == nil || b.slot != nil && *a.slot == *b.slot) &&
		(a.authority.From == 0 || b.authority.From != 0 && a.authority.From <= b.authority.From) &&
		(a.authority.Until == 0 || b.authority.Until != 0 && a.authority.Until >= b.authority.Until)
}

func (l *linter) rules(now int64) {
	used := map[string]bool{}
	for i, r := range l.p.rules {
		for _, a := range r.answers {
			used[string(a.Reason)] = true
		}
		for _, name := range r.reads {
			used[name] = true
			if c, ok := strings.CutPrefix(name, "counters."); ok {
				c, _, _ = strings.Cut(c, ".")
				used["counters."+c] = true
			}
		}
		if u := r.authority.Until; u != 0 && u <= now {
			l.add("expired", r.line, r.id, "rule %q ended on its own and decides nothing any more", r.id)
			continue
		}
		if r.scope.Category != "" && r.scope.Category == r.scope.NotCategory {
			l.add("dead", r.line, r.id, "rule %q is for the category %s and against it", r.id, r.scope.Category)
		}
		for k, o := range l.p.rules {
			if i == k || o.authority.Until != 0 && o.authority.Until <= now {
				continue
			}
			same := r.scope == o.scope && r.expr == o.expr
			switch {
			case same && r.kind != "protect" && o.kind != "protect" && k < i && (r.then == edge.Admit) != (o.then == edge.Admit):
				l.add("contradiction", r.line, r.id, "rules %q (line %d) and %q say the opposite of the same people: %s and %s", o.id, o.line, r.id, o.then, r.then)
			case same && r.kind == o.kind && k < i && r.then == o.then && r.atMost == o.atMost:
				l.add("overlap", r.line, r.id, "rules %q (line %d) and %q say the same of the same people", o.id, o.line, r.id)
			case !same && r.kind != "protect" && o.kind != "protect" && covers(o, r) && o.then.Strictness() > r.then.Strictness():
				l.add("dead", r.line, r.id, "rule %q never decides: %q (line %d) is stricter and always applies with it", r.id, o.id, o.line)
			}
		}
	}
	for _, c := range l.p.counters {
		if !used["counters."+c.name] && (l.p.up == nil || !slices.ContainsFunc(l.p.up.counters, func(u counter) bool { return u.name == c.name })) {
			l.add("unused", 0, "", "no rule looks at the counter %q", c.name)
		}
	}
	for name := range l.p.answers {
		if !used[name] {
			l.add("unused", 0, "", "no rule offers the answer %q", name)
		}
	}
}

// Categories of passes that a site always has.
var categories = []string{"resident", "worker", "medic", "courier", "visitor"}

// segment is a stretch of the week between two borders of slots.
type segment struct {
	day, minute int
	text        string
}

func (p *Policy) segments() []segment {
	borders := []int{0}
	for _, l := range p.layers {
		for _, r := range l.rules {
			if r.slot == nil {
				continue
			}
			for d := range 7 {
				if r.slot.days&(1<<d) != 0 {
					to := d*1440 + r.slot.to
					if r.slot.to <= r.slot.from {
						to += 1440
					}
					borders = append(borders, d*1440+r.slot.from, to%10080)
				}
			}
		}
	}
	slices.Sort(borders)
	borders = slices.Compact(borders)
	// Days that are alike are one: the report names hours once.
	var out []segment
	seen := map[string]bool{}
	for _, b := range borders {
		s := segment{day: b/1440 + 1, minute: b % 1440}
		key := fmt.Sprint(s.minute)
		for _, l := range p.layers {
			for _, r := range l.rules {
				key += fmt.Sprint(r.slot == nil || r.slot.has(edge.TimeFacts{Weekday: s.day, Minute: s.minute}))
			}
		}
		s.text = fmt.Sprintf("from %02d:%02d", s.minute/60, s.minute%60)
		if !seen[key] {
			seen[key] = true
			out = append(out, s)
		}
	}
	return out
}

// gaps goes through area x tier x category x direction x slot and says where no
// rule decides, and where only conditional ones may.
func (l *linter) gaps() {
	areas, levelsIn, cats := []string{""}, []edge.Level{""}, slices.Clone(categories)
	tiersIn := []edge.Tier{edge.TierNormal}
	for area := range l.p.tiers {
		areas = append(areas, area)
	}
	addTo := func(to *[]string, s string) {
		if s != "" && !slices.Contains(*to, s) {
			*to = append(*to, s)
		}
	}
	for _, x := range l.p.layers {
		for _, r := range x.rules {
			addTo(&areas, r.scope.Area)
			addTo(&cats, r.scope.Category)
			if r.scope.Level != "" && !slices.Contains(levelsIn, r.scope.Level) {
				levelsIn = append(levelsIn, r.scope.Level)
			}
			if r.scope.Tier != "" && !slices.Contains(tiersIn, r.scope.Tier) {
				tiersIn = append(tiersIn, r.scope.Tier)
			}
		}
	}
	slices.Sort(areas)
	segments := l.p.segments()
	type verdict struct{ kind, what string }
	found := map[verdict][]string{}
	var order []verdict
	for _, tier := range tiersIn {
		for _, area := range areas {
			for _, level := range levelsIn {
				for _, cat := range cats {
					for _, dir := range []edge.Direction{edge.In, edge.Out} {
						for _, s := range segments {
							kind := l.decided(area, level, tier, cat, dir, s)
							if kind == "" {
								continue
							}
							v := verdict{kind, fmt.Sprintf("%s going %s", cat, dir)}
							if found[v] == nil {
								order = append(order, v)
							}
							where := strings.TrimSpace(fmt.Sprintf("%s %s tier %s %s", area, level, tier, s.text))
							found[v] = append(found[v], strings.Join(strings.Fields(where), " "))
						}
					}
				}
			}
		}
	}
	for _, v := range order {
		at := found[v]
		if v.kind == "gap" {
			l.add("gap", 0, "", "no rule decides about a %s (%s%s); no_match says %s", v.what, at[0], more(len(at)), l.p.noMatch)
		} else {
			l.add("conditional", 0, "", "a %s is conditionally covered: only rules with a condition decide (%s%s)", v.what, at[0], more(len(at)))
		}
	}
}

func more(n int) string {
	if n > 1 {
		return fmt.Sprintf(" and %d more", n-1)
	}
	return ""
}

// decided is "" where an unconditional rule decides, else gap or conditional.
func (l *linter) decided(area string, level edge.Level, tier edge.Tier, cat string, dir edge.Direction, s segment) string {
	f := &edge.Facts{Pass: &edge.PassFacts{Category: cat}, Area: &edge.AreaFacts{Tier: tier}, Lane: edge.LaneFacts{Area: area, Level: level, Direction: dir},
		Time: edge.TimeFacts{Weekday: s.day, Minute: s.minute, Trusted: true}}
	kind := "gap"
	for _, x := range l.p.layers {
		for _, r := range x.byDirection[dir] {
			if r.kind == "protect" || r.scope.Group != "" && r.kind != "permit" {
				continue
			}
			f.Time.Stamp.Time = max(r.authority.From, 1) // at its first moment: expiry is another finding
			f.Pass.Groups = nil
			grouped := r.scope.Group != ""
			if grouped {
				f.Pass.Groups = []string{r.scope.Group}
			}
			if !x.inScope(r, f) {
				continue
			}
			if r.when == nil && !grouped {
				return ""
			}
			kind = "conditional"
		}
	}
	return kind
}

// queue says where most of the samples with one label would be measured again or
// referred.
func (l *linter) queue(samples iter.Seq[Sample]) {
	type key struct {
		label, rule string
		o           edge.Outcome
	}
	n, total := map[key]int{}, map[string]int{}
	for s := range samples {
		total[s.Label]++
		if d := l.p.Decide(s.Facts); d.Outcome == edge.Refer || d.Outcome == edge.Remeasure {
			n[key{s.Label, d.Rule, d.Outcome}]++
		}
	}
	for _, k := range slices.SortedFunc(maps.Keys(n), func(a, b key) int { return strings.Compare(fmt.Sprint(a), fmt.Sprint(b)) }) {
		switch of := total[k.label]; {
		case of == 1:
			l.add("queue", l.lineOf(k.rule), k.rule, "every resident %s gets %s by rule %q: a queue, unless that is meant", k.label, k.o, k.rule)
		case 2*n[k] > of:
			l.add("queue", l.lineOf(k.rule), k.rule, "rule %q gives %s to %d of %d %s: a queue, unless that is meant", k.rule, k.o, n[k], of, k.label)
		}
	}
}

func (l *linter) lineOf(id string) int {
	for _, r := range l.p.rules {
		if r.id == id {
			return r.line
		}
	}
	return 0
}

type privacy struct {
	line int
	text string
}

var (
	idNumber  = regexp.MustCompile(`(?:^|[^0-9])([1-9][0-9]{16}[0-9Xx])(?:$|[^0-9A-Za-z])`)
	mobile    = regexp.MustCompile(`(?:^|[^0-9])(1[3-9][0-9]{9})(?:$|[^0-9])`)
	passport  = regexp.MustCompile(`\b[EGDSP][A-Z]?[0-9]{8}\b`)
	named     = regexp.MustCompile(`\p{Han}{1,3}(?:先生|女士|小姐|太太)|姓名\s*[:：=]|\b(?:Mr|Mrs|Ms|Miss|Dr)\.? [A-Z][a-z]+`)
	onePerson = regexp.MustCompile(`\b(?:pass|household|vehicle)\.id\s*(?:==|in\b)`)
)

// Private finds what must never stand in a policy, for its bytes are kept for
// ever: document and telephone numbers, names, rules about one person. It
// finds forms, not every name there is.
func Private(src []byte) []privacy {
	var out []privacy
	for i, line := range bytes.Split(src, []byte("\n")) {
		for _, c := range []struct {
			re   *regexp.Regexp
			what string
		}{{idNumber, "an identity number"}, {mobile, "a telephone number"}, {passport, "a passport number"}, {named, "a person's name"}, {onePerson, "a rule about one person, household or vehicle"}} {
			if c.re.Match(line) {
				out = append(out, privacy{i + 1, "it looks as if this line had " + c.what + "; a policy is kept for ever and names nobody"})
			}
		}
	}
	return out
}

// CheckPrivate is Private as an error.
func CheckPrivate(name string, src []byte) error {
	for _, p := range Private(src) {
		return fmt.Errorf("%s:%d: %s", name, p.line, p.text)
	}
	return nil
}
