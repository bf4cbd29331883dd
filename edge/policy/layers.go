package policy

import (
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"time"

	"gatehouse/device/options"
	"gatehouse/edge"
)

// quantity is the value of a parameter: a number that expressions read as
// parameters.NAME.
type quantity struct {
	value        float64
	whole, given bool
}

// bound is how far the layers below may choose a parameter.
type bound struct {
	floor, ceiling *float64
	text           string // "between 24h and 72h"
	line           int
}

// grant is a kind of restricting rule that the layers below may add. Empty
// fields allow everything.
type grant struct {
	reason, category string
	direction        edge.Direction
	level            edge.Level
	tier             edge.Tier
	atMost           edge.Outcome
	reads, uses      []string
	within           time.Duration // the rule must end by itself, this long after it begins
	line             int
}

type grantFile struct {
	For       string         `yaml:"for"`       // the rule's reason, or the part of it before a dot
	Category  string         `yaml:"category"`  // the rule's scope must name it; so for the next three
	Direction edge.Direction `yaml:"direction"` //
	Level     edge.Level     `yaml:"level"`     //
	Tier      edge.Tier      `yaml:"tier"`      //
	AtMost    edge.Outcome   `yaml:"at_most"`   // the strictest outcome
	Reads     []string       `yaml:"reads"`     // facts, or groups of facts, the rule may look at
	Uses      []string       `yaml:"uses"`      // parameters the rule must look at
	Within    time.Duration  `yaml:"within"`    // from and until must be given, no further apart
}

type boundFile struct {
	Value   options.Node `yaml:"value"`
	Floor   options.Node `yaml:"floor"`
	Ceiling options.Node `yaml:"ceiling"`
}

var bounding = regexp.MustCompile(`^(temperature\.(threshold|uncertainty|remeasures)|counters\.[a-z][a-z0-9_]*\.every|transitions\.(lockdown|control|prevention)\.days)$`)

// builtin are the parameters that stand elsewhere in a policy and can be bounded.
func builtin(name string) bool {
	for _, pre := range []string{"temperature.", "counters.", "transitions."} {
		if strings.HasPrefix(name, pre) {
			return true
		}
	}
	return false
}

// number reads "37.3", "72h" (as hours) or "day".
func number(text string) (v float64, whole bool, err error) {
	if text == "day" {
		return 24, true, nil
	}
	if v, err = strconv.ParseFloat(text, 64); err == nil {
		if v > 1e9 || v < -1e9 || v != v {
			return 0, false, fmt.Errorf("%q is not a number below 1000000000", text)
		}
		return v, !strings.ContainsAny(text, ".eE"), nil
	}
	d, err := time.ParseDuration(text)
	if err != nil {
		return 0, false, fmt.Errorf("%q is neither a number nor a duration like 48h", text)
	}
	return d.Hours(), false, nil
}

// layer checks the policy's place among the layers and what it lets others do.
func (l *loader) layer(root options.Node, f *file) {
	for s := l.up; s != nil; s = s.up {
		if f.Layer == s.layer {
			l.bad(root.At("layer"), "the layer %q stands above already (%s): layers make no circle", f.Layer, s.name)
		}
	}
	if f.Under != "" {
		switch {
		case f.Under == f.Layer:
			l.bad(root.At("under"), "a layer does not stand under itself")
		case l.up == nil:
			l.bad(root.At("under"), "its superior %q is not loaded", f.Under)
		case l.up.layer != f.Under:
			l.bad(root.At("under"), "it is to stand under %q and is loaded under %q (%s)", f.Under, l.up.layer, l.up.name)
		}
	}
	if n := root.At("lower"); !n.IsZero() {
		l.p.lowerLine = n.Line()
	}
	for _, n := range f.Lower {
		var g grantFile
		if err := n.Decode(&g); err != nil {
			l.errs = append(l.errs, err)
			continue
		}
		if !slices.Contains(levels, g.Level) || !slices.Contains(directions, g.Direction) || !slices.Contains(tiers, g.Tier) || (g.AtMost != "" && !slices.Contains(outcomes, g.AtMost)) {
			l.bad(n, "a kind of rule has a level, direction, tier or outcome (at_most) that there is not")
		}
		l.p.lower = append(l.p.lower, grant{g.For, g.Category, g.Direction, g.Level, g.Tier, g.AtMost, g.Reads, g.Uses, g.Within, n.Line()})
	}
}

func (l *loader) parameters(root options.Node, f *file) {
	p := l.p
	p.params, p.bounds = map[string]quantity{}, map[string]bound{}
	if l.up != nil {
		for name, q := range l.up.params {
			p.params[name] = q
		}
	}
	for _, name := range root.At("parameters").Keys() {
		n := f.Params[name]
		read := func(n options.Node) (*float64, bool) {
			if n.IsZero() {
				return nil, false
			}
			v, whole, err := number(n.Text())
			if err != nil {
				l.bad(n, "parameter %q: %v", name, err)
				return nil, false
			}
			return &v, whole
		}
		if builtin(name) && !bounding.MatchString(name) {
			// A misspelt range would bind nobody.
			l.bad(n, "a policy has no number %q%s", name, options.Hint(name, []string{"temperature.threshold", "temperature.uncertainty", "temperature.remeasures", "transitions.lockdown.days", "transitions.control.days", "transitions.prevention.days"}))
			continue
		}
		if !builtin(name) && !ident.MatchString(name) {
			l.bad(n, "%q: a parameter's name is of a-z, 0-9 and underscore, or that of a number of the policy, like temperature.threshold", name)
			continue
		}
		value := n
		if n.IsMap() {
			var b boundFile
			if err := n.Decode(&b); err != nil {
				l.errs = append(l.errs, err)
				continue
			}
			value = b.Value
			q := bound{line: n.Line(), text: "between " + b.Floor.Text() + " and " + b.Ceiling.Text()}
			q.floor, _ = read(b.Floor)
			q.ceiling, _ = read(b.Ceiling)
			switch {
			case q.floor == nil && q.ceiling == nil:
				l.bad(n, "parameter %q: a floor, a ceiling or both", name)
			case q.floor == nil:
				q.text = "at most " + b.Ceiling.Text()
			case q.ceiling == nil:
				q.text = "at least " + b.Floor.Text()
			case *q.floor > *q.ceiling:
				l.bad(n, "parameter %q: the floor is above the ceiling", name)
			}
			p.bounds[name] = q
			for s := l.up; s != nil; s = s.up {
				if up, ok := s.bounds[name]; ok && (up.floor != nil && (q.floor == nil || *q.floor < *up.floor) || up.ceiling != nil && (q.ceiling == nil || *q.ceiling > *up.ceiling)) {
					l.bad(n, "parameter %q: the layer above has it %s (%s:%d); a layer does not widen that", name, up.text, s.name, up.line)
				}
			}
		}
		v, whole := read(value)
		if v == nil {
			if !builtin(name) && !p.params[name].given {
				l.bad(n, "parameter %q has no value", name)
			}
			continue
		}
		if builtin(name) {
			l.bad(value, "%q has its value where it stands in the policy; here are its floor and ceiling", name)
			continue
		}
		if up, ok := p.params[name]; ok && up.whole != whole {
			l.bad(value, "parameter %q is %s in the layer above", name, map[bool]string{true: "a whole number", false: "a number with a fraction"}[up.whole])
		}
		if b, ok := p.bounds[name]; ok && !b.holds(*v) {
			l.bad(value, "parameter %q: %s is not %s", name, value.Text(), b.text)
		}
		p.params[name] = quantity{*v, whole, true}
		l.bounded(value, name, *v)
	}
}

func (b bound) holds(v float64) bool {
	return (b.floor == nil || v >= *b.floor-1e-9) && (b.ceiling == nil || v <= *b.ceiling+1e-9)
}

// bounded refuses a value that a layer above does not allow.
func (l *loader) bounded(n options.Node, name string, v float64) {
	for s := l.up; s != nil; s = s.up {
		if b, ok := s.bounds[name]; ok && !b.holds(v) {
			l.bad(n, "%s is %v; the layer above wants it %s (%s:%d)", name, v, b.text, s.name, b.line)
		}
	}
}

// inside refuses what goes outside the layers above.
func (l *loader) inside(root options.Node, f *file) {
	if l.up == nil {
		return
	}
	t := root.At("temperature")
	l.bounded(t.At("threshold"), "temperature.threshold", f.Temp.Threshold)
	l.bounded(t.At("uncertainty"), "temperature.uncertainty", f.Temp.Uncertainty)
	l.bounded(t.At("remeasures"), "temperature.remeasures", float64(f.Temp.Remeasures))
	for _, m := range l.p.moves {
		if m.days > 0 {
			l.bounded(root.At("transitions"), "transitions."+string(m.from)+".days", float64(m.days))
		}
	}
	for _, c := range l.p.counters {
		n, own := f.Counters[c.name]
		if !own {
			continue
		}
		l.bounded(n.At("every"), "counters."+c.name+".every", c.every.Hours())
		for _, u := range l.up.counters {
			if _, free := l.up.bounds["counters."+c.name+".every"]; u.name == c.name && (u.of != c.of || u.by != c.by || u.site != c.site || u.expr != c.expr || (u.every != c.every && !free)) {
				l.bad(n, "counter %q is declared otherwise in the layer above (%s)", c.name, l.up.name)
			}
		}
	}
	if f.Temp.Order != nil && f.Temp.Order != l.up.temp.Order && l.up.temp.Order == nil {
		l.bad(t.At("value"), "the layer above does not order that values of temperatures are kept (%s)", l.up.name)
	}
	for _, r := range l.p.rules {
		n := r.node
		for s := l.up; s != nil; s = s.up {
			for _, u := range s.rules {
				if u.id == r.id {
					l.bad(n.At("id"), "rule %q stands in the layer above already (%s:%d)", r.id, s.name, u.line)
				}
			}
			if r.kind == "restrict" {
				if why := s.refuses(r); why != "" {
					l.bad(n, "rule %q: %s", r.id, why)
				}
			}
		}
	}
}

// refuses says why a layer lets nobody below add the rule; empty when it does.
func (p *Policy) refuses(r *rule) string {
	var near string
	for _, g := range p.lower {
		if g.reason != "" && string(r.reason) != g.reason && !strings.HasPrefix(string(r.reason), strings.TrimSuffix(g.reason, ".")+".") {
			continue
		}
		why := g.refuses(r)
		if why == "" {
			return ""
		}
		if near == "" {
			near = fmt.Sprintf("the layer above allows this kind of rule only %s (%s:%d)", why, p.name, g.line)
		}
	}
	if near != "" {
		return near
	}
	if p.lowerLine == 0 {
		return fmt.Sprintf("it restricts, and the layer above lets nobody below restrict (%s)", p.name)
	}
	return fmt.Sprintf("it restricts for the reason %q, and the layer above does not list that kind (%s:%d)", r.reason, p.name, p.lowerLine)
}

func (g *grant) refuses(r *rule) string {
	s := &r.scope
	switch {
	case g.category != "" && s.Category != g.category:
		return "for the category " + g.category
	case g.direction != "" && s.Direction != g.direction:
		return "for the direction " + string(g.direction)
	case g.level != "" && s.Level != g.level:
		return "at the level " + string(g.level)
	case g.tier != "" && s.Tier != g.tier:
		return "in the tier " + string(g.tier)
	case g.atMost != "" && r.then.Strictness() > g.atMost.Strictness():
		return "up to " + string(g.atMost)
	case g.within > 0 && (r.authority.From == 0 || r.authority.Until == 0 || time.Duration(r.authority.Until-r.authority.From)*time.Millisecond > g.within):
		return fmt.Sprintf("with an authority that begins and ends within %v", g.within)
	}
	for _, u := range g.uses {
		if !slices.Contains(r.reads, u) && !slices.Contains(r.reads, "parameters."+u) {
			return "where it looks at " + u
		}
	}
	if len(g.reads) > 0 {
		for _, name := range r.reads {
			if strings.HasPrefix(name, "parameters.") {
				continue
			}
			plain := strings.TrimPrefix(name, "known.")
			if !slices.ContainsFunc(g.reads, func(a string) bool { return plain == a || strings.HasPrefix(plain, a+".") }) {
				return "where it does not look at " + name
			}
		}
	}
	return ""
}

// transition moves an area from tier to tier: to a milder one after days
// without a case, or to a stricter one with a case.
type transition struct {
	from, to edge.Tier
	days     int // 0 = on a case
}

type transitionFile struct {
	From edge.Tier `yaml:"from"`
	To   edge.Tier `yaml:"to"`
	Days int       `yaml:"days"`
	On   string    `yaml:"on"`
}

// areaTier is an area's tier from a day on, and the days of its cases. Days
// are counted since 1970 in the site's calendar.
type areaTier struct {
	tier  edge.Tier
	since int
	cases []int
	moves []transition
	line  int
}

type areaFile struct {
	Tier  edge.Tier `yaml:"tier"`
	Since string    `yaml:"since"`
	Cases []string  `yaml:"cases"`
}

func (a areaTier) timed() bool { return a.since != 0 }

// strict orders tiers, the strictest first.
func strict(t edge.Tier) int {
	return slices.Index([]edge.Tier{edge.TierLockdown, edge.TierControl, edge.TierPrevention, edge.TierNormal}, t)
}

func (l *loader) tiers(root options.Node, f *file) {
	p := l.p
	p.tiers = map[string]areaTier{}
	if l.up != nil {
		p.moves = l.up.moves
		for area, t := range l.up.tiers {
			p.tiers[area] = t
		}
	}
	if len(f.Moves) > 0 {
		p.moves = nil
	}
	for _, n := range f.Moves {
		var t transitionFile
		if err := n.Decode(&t); err != nil {
			l.errs = append(l.errs, err)
			continue
		}
		a, b := strict(t.From), strict(t.To)
		switch {
		case a < 0 || b < 0:
			l.bad(n, "a transition is from and to one of lockdown, control, prevention, normal")
		case t.On == "case" && t.Days == 0 && b < a:
		case t.On == "" && t.Days > 0 && t.Days <= 365 && b > a:
		default:
			l.bad(n, "a transition has days (1 to 365) and leads to a milder tier, or on: case and leads to a stricter one")
		}
		if slices.ContainsFunc(p.moves, func(m transition) bool { return m.from == t.From && (m.days == 0) == (t.Days == 0) }) {
			l.bad(n, "two transitions from %s for the same cause", t.From)
		}
		p.moves = append(p.moves, transition{t.From, t.To, t.Days})
	}
	day := func(n options.Node, text string) int {
		t, err := time.Parse(time.DateOnly, text)
		if err != nil || t.Year() < 2000 {
			l.bad(n, "%q is not a date like 2026-03-01", text)
			return 0
		}
		return int(t.Unix() / 86400)
	}
	for _, area := range root.At("tiers").Keys() {
		n := f.Tiers[area]
		a := areaFile{Tier: edge.Tier(n.Text())}
		if n.IsMap() {
			if err := n.Decode(&a); err != nil {
				l.errs = append(l.errs, err)
				continue
			}
		}
		if strict(a.Tier) < 0 {
			l.bad(n, "%q is not one of lockdown, control, prevention, normal", a.Tier)
		}
		out := areaTier{tier: a.Tier, moves: p.moves, line: n.Line()}
		if a.Since != "" {
			out.since = day(n.At("since"), a.Since)
		}
		for _, c := range a.Cases {
			out.cases = append(out.cases, day(n.At("cases"), c))
		}
		if len(out.cases) > 0 && out.since == 0 {
			l.bad(n, "cases need since, the day from which the tier holds")
		}
		slices.Sort(out.cases)
		if up, ok := p.tiers[area]; ok {
			l.bad(n, "the tier of %q is the layer's above (%s:%d)", area, l.up.name, up.line)
		}
		p.tiers[area] = out
	}
}

// Tier is the tier that the policy gives an area, normal where it says nothing.
// Where tiers move with time, AreaAt has the tier of a day.
func (p *Policy) Tier(area string) edge.Tier {
	if t, ok := p.tiers[area]; ok {
		return t.tier
	}
	return edge.TierNormal
}

// Plans are the names of the emergency plans that rules speak of, those of the
// layers above included.
func (p *Policy) Plans() []string {
	var out []string
	for l := p; l != nil; l = l.up {
		for _, r := range l.rules {
			for _, v := range r.literals["plan.name"] {
				if s, ok := v.(string); ok {
					out = append(out, s)
				}
			}
		}
	}
	slices.Sort(out)
	return slices.Compact(out)
}

// AreaAt is an area's tier at a time, and the whole days it has lasted. While the
// clock is not known, cases count and clean days do not: nothing relaxes.
func (p *Policy) AreaAt(area string, t edge.TimeFacts) edge.AreaFacts {
	a, ok := p.tiers[area]
	if !ok || !a.timed() {
		return edge.AreaFacts{Tier: p.Tier(area)}
	}
	today := int((t.Stamp.Time + int64(t.Stamp.Offset)*60_000) / 86_400_000)
	move := func(from edge.Tier, timed bool) (transition, bool) {
		i := slices.IndexFunc(a.moves, func(m transition) bool { return m.from == from && (m.days > 0) == timed })
		if i < 0 {
			return transition{}, false
		}
		return a.moves[i], true
	}
	cur, since, clean := a.tier, a.since, a.since
	cases := a.cases
	for {
		relax, timed := move(cur, true)
		next := clean + relax.days
		switch {
		case len(cases) > 0 && (cases[0] <= today || !t.Trusted) && (!timed || cases[0] <= next || !t.Trusted):
			day := cases[0]
			cases = cases[1:]
			if day < a.since {
				continue
			}
			clean = day
			if m, ok := move(cur, false); ok {
				cur, since = m.to, day
			}
		case timed && t.Trusted && next <= today:
			cur, since, clean = relax.to, next, next
		default:
			return edge.AreaFacts{Tier: cur, Days: max(0, today-since)}
		}
	}
}

// Source is the text of one policy and the name it is called by in errors.
type Source struct {
	Name string
	Text []byte
}

// LoadSet loads the policies of a site's layers, in any order where each but the
// highest says under which it stands, else the highest first. It gives the
// lowest, which has all others above it.
func LoadSet(sources ...Source) (*Policy, error) {
	type part struct {
		Source
		layer, under string
	}
	var parts []part
	for _, s := range sources {
		root, err := options.Parse(s.Name, s.Text)
		if err != nil {
			return nil, err
		}
		p := part{s, root.At("layer").Text(), root.At("under").Text()}
		if i := slices.IndexFunc(parts, func(x part) bool { return x.layer == p.layer }); i >= 0 {
			return nil, root.At("layer").Errorf("the layer %q is %s already", p.layer, parts[i].Name)
		}
		parts = append(parts, p)
	}
	if len(parts) == 0 {
		return nil, errors.New("no policy is given")
	}
	var ups []*Policy
	for len(parts) > 0 {
		// The next is the first that waits for none of the others.
		i := slices.IndexFunc(parts, func(p part) bool {
			return p.under == "" || !slices.ContainsFunc(parts, func(o part) bool { return o.layer == p.under })
		})
		if i < 0 {
			return nil, fmt.Errorf("%s: its layer %q stands under %q, in a circle", parts[0].Name, parts[0].layer, parts[0].under)
		}
		p, err := Load(parts[i].Name, parts[i].Text, ups...)
		if err != nil {
			return nil, err
		}
		ups = append(ups, p)
		parts = slices.Delete(parts, i, i+1)
	}
	return ups[len(ups)-1], nil
}

// Layer is one part of the rules in force.
type Layer struct {
	Layer, ID, Name string
	Version         int64
	Hash            string // SHA-256 of its own bytes, as far as Policy.Hash goes
}

// Layers lists the parts, the highest first, the policy itself last.
func (p *Policy) Layers() []Layer {
	var out []Layer
	for _, l := range p.layers {
		out = append(out, Layer{l.layer, l.id, l.name, l.version, hashOf(l.src)})
	}
	return out
}

// Superior is the layer above with all above it; nil when there is none.
func (p *Policy) Superior() *Policy { return p.up }

func hashOf(src []byte) string {
	sum := sha256.Sum256(src)
	return "sha256:" + hex.EncodeToString(sum[:8])
}

// Identify reads which layer and version a policy says it is, without loading it.
func Identify(name string, src []byte) (layer string, version int64, err error) {
	root, err := options.Parse(name, src)
	if err != nil {
		return "", 0, err
	}
	if err := root.At("version").Decode(&version); err != nil {
		return "", 0, err
	}
	if version < 1 {
		return "", 0, root.At("version").Errorf("a policy has a version from 1 on")
	}
	return root.At("layer").Text(), version, nil
}
