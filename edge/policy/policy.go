// Package policy is pure: a policy and facts give a decision, the same for
// ever. It has no clock and does no I/O.
//
// A policy is YAML (see firmware-config/policies): rules with a structural
// scope and an optional condition in CEL over typed facts. Order of precedence:
// fire (which never gets here), then protect rules, which cap the outcome; then
// the strictest matching outcome; then no_match. See DESIGN.md.
package policy

import (
	"math"
	"slices"
	"strings"
	"time"

	"cel.dev/cel-go/cel"

	"gatehouse/device"
	"gatehouse/device/options"
	"gatehouse/edge"
)

// EngineVersion names the rules by which facts become decisions. It changes
// when any decision could; the golden decisions of every released version stay
// in the tests.
const EngineVersion = "1"

// Policy is one compiled policy. It is immutable and safe for concurrent use.
type Policy struct {
	name, id, title, layer string
	hash                   string
	sum                    [32]byte
	version                int64
	authority              Authority
	temp                   temperature
	applyUntrusted         bool
	countersigned          bool // bundles of the layers below need this one's signature too
	noMatch                edge.Outcome
	timeouts               map[string]edge.Outcome
	up                     *Policy   // the layer above, with all above it
	layers                 []*Policy // the highest first, this one last
	src                    []byte
	params                 map[string]quantity
	bounds                 map[string]bound
	lower                  []grant
	lowerLine              int
	tiers                  map[string]areaTier
	moves                  []transition
	counters               []counter
	marks                  []string
	slots                  map[string]slot
	answers                map[string]edge.Answer
	rules                  []*rule
	byDirection            map[edge.Direction][]*rule
	table                  map[string]func(*edge.Facts) any
	names                  []string
	samples                []*edge.Facts // of the cases
	firsts                 bool          // a rule looks at first entries
}

// Authority is who ordered a rule, on what basis, from when, until when.
type Authority struct {
	By, Basis   string
	From, Until int64 // UTC ms, 0 = open
	wall        bool  // dates without a zone: the site's own midnight
}

// String is the authority as entries keep it.
func (a Authority) String() string {
	if a.Basis == "" {
		return a.By
	}
	return a.By + ": " + a.Basis
}

// in reports whether the authority holds. A clock that cannot be trusted is
// still not before its floor: what has ended by then has ended, and what has not
// is taken to have begun, or a lost card would pass whenever the clock is unset.
func (a Authority) in(t edge.TimeFacts) bool {
	ms := a.wallTime(t)
	return (a.From == 0 || ms >= a.From || !t.Trusted) && (a.Until == 0 || ms < a.Until)
}

type rule struct {
	id, title, kind string
	line            int
	scope           scope
	slot            *slot
	when            cel.Program
	node            options.Node
	expr            string
	reads           []string
	literals        map[string][]any
	then, atMost    edge.Outcome
	reason          edge.Reason
	authority       Authority
	say             map[string]string // to the person, by language
	obligations     []string
	answers         []edge.Answer
	marks           []markOrder
}

type markOrder struct {
	name, on string
	keep     time.Duration
}

type counter struct {
	name, by  string
	direction edge.Direction
	every     time.Duration
	site      bool
	stale     time.Duration
	when      cel.Program
	reads     []string
	of, expr  string
}

// slot is hours of some days; it may span midnight, and then belongs to the day
// on which it begins.
type slot struct {
	days     uint8 // bit 0 Monday
	from, to int   // minutes since midnight
}

func (s slot) has(t edge.TimeFacts) bool {
	day := func(wd int) bool { return s.days&(1<<((wd+6)%7)) != 0 }
	if s.from < s.to {
		return t.Minute >= s.from && t.Minute < s.to && day(t.Weekday)
	}
	if t.Minute >= s.from {
		return day(t.Weekday)
	}
	return t.Minute < s.to && day(t.Weekday-1)
}

// Reads reports whether any rule or counter looks at a fact whose name begins
// with prefix: what no rule looks at need not be measured.
func (p *Policy) Reads(prefix string) bool {
	has := func(names []string) bool {
		return slices.ContainsFunc(names, func(n string) bool { return strings.HasPrefix(strings.TrimPrefix(n, "known."), prefix) })
	}
	return slices.ContainsFunc(p.layers, func(l *Policy) bool { return slices.ContainsFunc(l.rules, func(r *rule) bool { return has(r.reads) }) }) ||
		slices.ContainsFunc(p.counters, func(c counter) bool { return has(c.reads) })
}

// Hash names the policy's exact bytes: "sha256:" and 16 hex digits.
func (p *Policy) Hash() string { return p.hash }

// Sum is the SHA-256 of the policy's exact bytes.
func (p *Policy) Sum() [32]byte { return p.sum }

// ID, Title and Version are what the policy calls itself.
func (p *Policy) ID() string      { return p.id }
func (p *Policy) Title() string   { return p.title }
func (p *Policy) Version() int64  { return p.version }
func (p *Policy) Cases() int      { return len(p.samples) }
func (p *Policy) Remeasures() int { return p.temp.Remeasures }

// Rule is one rule for people: what is in force, from whom, until when.
type Rule struct {
	ID, Title, Kind string
	Outcome         edge.Outcome
	Reason          edge.Reason
	Authority       Authority
	Area            string
	Category        string
	Direction       edge.Direction
	Slot            string
}

// Rules lists the rules of this layer in the order of the file.
func (p *Policy) Rules() []Rule {
	out := make([]Rule, len(p.rules))
	for i, r := range p.rules {
		o := r.then
		if r.kind == "protect" {
			o = r.atMost
		}
		out[i] = Rule{r.id, r.title, r.kind, o, r.reason, r.authority, r.scope.Area, r.scope.Category, r.scope.Direction, r.scope.Slot}
	}
	return out
}

func (p *Policy) index() {
	if p.up != nil {
		p.layers = slices.Clone(p.up.layers)
	}
	p.layers = append(p.layers, p)
	p.firsts = p.Reads("visitor.first")
	p.byDirection = map[edge.Direction][]*rule{}
	for _, d := range []edge.Direction{edge.In, edge.Out} {
		for _, r := range p.rules {
			if r.scope.Direction == "" || r.scope.Direction == d {
				p.byDirection[d] = append(p.byDirection[d], r)
			}
		}
	}
}

// Band makes a measurement the fact that policy and journal see: the state and
// the band relative to the threshold. At or above the threshold is above; within
// the uncertainty below it is too near to tell.
func (p *Policy) Band(t device.Temperature) edge.TemperatureFacts {
	f := edge.TemperatureFacts{Profile: t.Profile}
	switch t.Quality {
	case device.QualityOK:
		f.State = edge.TempOK
		u := max(float64(t.Uncertainty), 0)
		if u == 0 {
			u = p.temp.Uncertainty
		}
		f.Band, f.Uncertainty = band(float64(t.Value), p.temp.Threshold, u), math.Round(u*100)/100
		if p.temp.Order != nil {
			v := float64(t.Value)
			f.Value = &v
		}
	case device.QualityInvalid:
		f.State = edge.TempInvalid
	case device.QualityUnstable:
		f.State = edge.TempUnstable
	case device.QualityNobody:
		f.State = edge.TempMissing
	case device.QualityWarming:
		f.State = edge.TempWarming
	case device.QualityUnusable:
		f.State = edge.TempUnusable
	default:
		f.State = edge.TempFault
	}
	return f
}

// Second bands a reading that the guard took with a second instrument, a
// clinical one: it has no near band, only below and above.
func (p *Policy) Second(value float64) edge.Band { return band(value, p.temp.Threshold, 0) }

// band compares in hundredths of a degree, so that 37.3 typed is 37.3 measured.
func band(v, threshold, uncertainty float64) edge.Band {
	centi := func(x float64) int64 {
		if x < 0 {
			return int64(x*100 - 0.5)
		}
		return int64(x*100 + 0.5)
	}
	switch {
	case centi(v) >= centi(threshold):
		return edge.BandAbove
	case centi(v) > centi(threshold)-centi(uncertainty):
		return edge.BandNear
	}
	return edge.BandBelow
}

// Cells lists the cells that the facts of a presentation need: the position of
// the pass, the marks on pass and household, and the counters.
func (p *Policy) Cells(f *edge.Facts) []edge.Cell {
	var out []edge.Cell
	if f.Pass != nil {
		out = append(out, edge.Cell{Name: edge.CellPosition, Subject: f.Pass.ID.Subject()}, edge.Cell{Name: edge.CellReset, Subject: edge.SubjectReset})
		if p.countsUses(f) {
			out = append(out, usesCell(f))
		}
		for _, m := range p.marks {
			out = append(out, edge.Cell{Name: edge.CellMark + m, Subject: f.Pass.ID.Subject()})
			if f.Household != nil {
				out = append(out, edge.Cell{Name: edge.CellMark + m, Subject: f.Household.ID.Subject()})
			}
		}
	}
	for i := range p.counters {
		if c, ok := p.counters[i].cell(f); ok {
			out = append(out, c)
		}
	}
	return out
}

// countsUses reports whether the entries of the pass are counted: those of a pass
// that is good for so many, and of everybody but residents where a rule looks at
// first entries.
func (p *Policy) countsUses(f *edge.Facts) bool {
	return f.Pass != nil && (f.Pass.MaxUses > 0 || p.firsts && f.Pass.Category != "resident")
}

func usesCell(f *edge.Facts) edge.Cell {
	return edge.Cell{Name: edge.CellUses, Subject: f.Pass.ID.Subject()}
}

// cell is the counter's cell for these facts, if they have its subject.
func (c *counter) cell(f *edge.Facts) (edge.Cell, bool) {
	var subject string
	switch {
	case c.by == "pass" && f.Pass != nil:
		subject = f.Pass.ID.Subject()
	case c.by == "household" && f.Household != nil:
		subject = f.Household.ID.Subject()
	case c.by == "vehicle" && f.Vehicle != nil && f.Vehicle.ID != "":
		subject = "v" + f.Vehicle.ID
	default:
		return edge.Cell{}, false
	}
	// Fixed windows of the site's wall clock, so that a day begins at midnight.
	local := f.Time.Stamp.Time + int64(f.Time.Stamp.Offset)*60_000
	return edge.Cell{Name: c.name, Subject: subject, Bucket: local / c.every.Milliseconds()}, true
}

// Fill puts the cells' values among the facts. vals belong to cells by index.
func (p *Policy) Fill(f *edge.Facts, cells []edge.Cell, vals []edge.CellValue) {
	now := f.Time.Stamp.Time
	f.Position, f.Marks, f.Counters = nil, nil, nil
	if a, ok := p.tiers[f.Lane.Area]; ok && f.Area != nil && a.timed() {
		*f.Area = p.AreaAt(f.Lane.Area, f.Time)
	}
	var reset int64
	for i, c := range cells {
		if c.Name == edge.CellReset {
			reset = max(vals[i].Local, vals[i].Peers)
		}
	}
	for i, c := range cells {
		v := vals[i]
		switch {
		case c.Name == edge.CellReset:
		case c.Name == edge.CellPosition:
			at, since := v.Local, v.At
			if v.PeersAt > v.At {
				at, since = v.Peers, v.PeersAt
			}
			if since <= reset {
				at = edge.PositionUnknown
			}
			f.Position = &edge.PositionFacts{At: positionName(at), Age: minutesSince(now, since)}
			if at == edge.PositionUnknown {
				f.Position.Age = 0
			}
		case c.Name == edge.CellUses:
			f.Pass.Uses = v.Local + v.Peers
			f.Pass.UsedUp = f.Pass.MaxUses > 0 && f.Pass.Uses >= int64(f.Pass.MaxUses)
			if p.firsts && f.Pass.Category != "resident" {
				if f.Visitor == nil {
					f.Visitor = &edge.VisitorFacts{}
				}
				f.Visitor.First = f.Pass.Uses == 0
			}
		case strings.HasPrefix(c.Name, edge.CellMark):
			if max(v.Local, v.Peers) > now {
				if f.Marks == nil {
					f.Marks = map[string]bool{}
				}
				f.Marks[strings.TrimPrefix(c.Name, edge.CellMark)] = true
			}
		default:
			k := slices.IndexFunc(p.counters, func(x counter) bool { return x.name == c.Name })
			if k < 0 {
				continue
			}
			fact := edge.CounterFact{N: v.Local}
			if p.counters[k].site {
				fact.N += v.Peers
				fact.Peers = v.Peers
				fact.Age = minutesSince(now, v.PeersAt)
				fact.Stale = v.PeersAt != 0 && time.Duration(now-v.PeersAt)*time.Millisecond > p.counters[k].stale
			}
			if f.Counters == nil {
				f.Counters = map[string]edge.CounterFact{}
			}
			f.Counters[c.Name] = fact
		}
	}
}

func minutesSince(now, then int64) int {
	if then == 0 || then > now {
		return 0
	}
	return int((now - then) / 60_000)
}

func positionName(v int64) string {
	switch v {
	case edge.PositionInside:
		return "inside"
	case edge.PositionOutside:
		return "outside"
	}
	return "unknown"
}

// term is what one layer says: the rule that won in it, and the cap it met.
type term struct {
	layer       *Policy
	outcome     edge.Outcome
	winner, cap *rule // cap is set where it decided
}

// Decide gives the decision on the facts: the strictest of what the layers say,
// each capped by its own protect rules and by those of the layers above. So a
// superior's protection holds against every layer below, and no layer relaxes
// what is above it.
func (p *Policy) Decide(f *edge.Facts) edge.Decision {
	return p.decide(f, &activation{f: f, table: p.table})
}

func (p *Policy) decide(f *edge.Facts, act *activation) edge.Decision {
	d := edge.Decision{Policy: p.hash, Remeasures: p.temp.Remeasures}
	var best *term
	var cap *rule
	var protects []*rule
	for _, l := range p.layers {
		t := term{layer: l}
		for _, r := range l.byDirection[f.Lane.Direction] {
			ok, err := l.matches(r, f, act)
			if err != nil {
				d.Outcome, d.Rule, d.Reason, d.Error = edge.Refer, r.id, "policy.error", err.Error()
				d.Matched = append(d.Matched, edge.Match{Rule: r.id, Outcome: edge.Refer, Layer: l.layer, Reads: r.reads})
				d.Authority = r.authority.String()
				return d
			}
			if !ok {
				continue
			}
			o := r.then
			if r.kind == "protect" {
				o = r.atMost
				protects = append(protects, r)
				if cap == nil || r.atMost.Strictness() < cap.atMost.Strictness() {
					cap = r
				}
			} else if t.winner == nil || r.then.Strictness() > t.winner.then.Strictness() {
				t.winner, t.outcome = r, r.then
			}
			d.Matched = append(d.Matched, edge.Match{Rule: r.id, Outcome: o, Layer: l.layer, Reads: r.reads})
			if r.kind != "protect" {
				d.Obligations = add(d.Obligations, r.obligations)
			}
		}
		if t.winner == nil && l != p && l.noMatch != edge.Admit {
			t.outcome = l.noMatch
		}
		if t.outcome == "" {
			continue
		}
		t.capped(cap)
		if best == nil || t.outcome.Strictness() > best.outcome.Strictness() {
			best = &t
		}
	}
	if best == nil {
		best = &term{layer: p, outcome: p.noMatch}
		best.capped(cap)
	}
	d.Outcome = best.outcome
	if w := best.winner; w != nil {
		d.Rule, d.Reason, d.Answers, d.Say, d.Authority = w.id, w.reason, w.answers, w.say, w.authority.String()
		d.Deltas = append(d.Deltas, p.marksOf(w, f)...)
	} else {
		d.Rule, d.Reason, d.Authority = "no_match", "policy.no_match", best.layer.authority.String()
	}
	if c := best.cap; c != nil {
		d.Rule, d.Reason, d.Authority = c.id, c.reason, c.authority.String()
		for _, r := range protects {
			if r.atMost == c.atMost {
				d.Obligations = add(d.Obligations, r.obligations)
			}
		}
	}
	if d.Outcome == edge.Refer || d.Outcome == edge.Deny {
		// What protects a person is what a guard may let them through for.
		for _, r := range protects {
			for _, a := range r.answers {
				if !slices.ContainsFunc(d.Answers, func(x edge.Answer) bool { return x.Reason == a.Reason }) {
					d.Answers = append(slices.Clip(d.Answers), a)
				}
			}
		}
	}
	if d.Outcome == edge.Refer {
		d.Timeout = p.timeout(f, cap != nil)
	}
	if d.Outcome == edge.Admit {
		d.Deltas = append(d.Deltas, p.Reserve(f)...)
	}
	return d
}

// capped applies the strictest protection so far.
func (t *term) capped(cap *rule) {
	if cap != nil && t.outcome.Strictness() > cap.atMost.Strictness() {
		t.outcome, t.cap = cap.atMost, cap
	}
}

func add(to, more []string) []string {
	for _, s := range more {
		if !slices.Contains(to, s) {
			to = append(to, s)
		}
	}
	return to
}

// timeout is what becomes of a referral that nobody answers. Who is protected
// is not denied by silence.
func (p *Policy) timeout(f *edge.Facts, protected bool) edge.Outcome {
	var o edge.Outcome
	for l := p; l != nil && o == ""; l = l.up {
		if f.Pass != nil {
			o = l.timeouts[f.Pass.Category]
		}
		if o == "" {
			o = l.timeouts["default"]
		}
	}
	if protected && (o == edge.Deny || o == "") {
		return edge.Refer
	}
	return o
}

func (p *Policy) matches(r *rule, f *edge.Facts, act *activation) (bool, error) {
	if !p.inScope(r, f) {
		return false, nil
	}
	return eval(r.when, act)
}

// inScope reports whether all but the rule's condition holds.
func (p *Policy) inScope(r *rule, f *edge.Facts) bool {
	s := &r.scope
	switch {
	case s.Level != "" && s.Level != f.Lane.Level,
		s.Area != "" && s.Area != f.Lane.Area,
		s.Tier != "" && (f.Area == nil || s.Tier != f.Area.Tier),
		s.Category != "" && (f.Pass == nil || s.Category != f.Pass.Category),
		s.NotCategory != "" && f.Pass != nil && s.NotCategory == f.Pass.Category,
		s.Group != "" && (f.Pass == nil || !slices.Contains(f.Pass.Groups, s.Group)):
		return false
	}
	if !r.authority.in(f.Time) {
		return false
	}
	if r.slot != nil {
		if !f.Time.Trusted && !p.applyUntrusted {
			return false
		}
		if !r.slot.has(f.Time) {
			return false
		}
	}
	return true
}

func eval(prg cel.Program, act *activation) (bool, error) {
	if prg == nil {
		return true, nil
	}
	v, _, err := prg.Eval(act)
	if err != nil {
		return false, err
	}
	b, _ := v.Value().(bool)
	return b, nil
}

func (p *Policy) marksOf(r *rule, f *edge.Facts) []edge.Delta {
	var out []edge.Delta
	for _, m := range r.marks {
		c := edge.Cell{Name: edge.CellMark + m.name}
		switch {
		case m.on == "pass" && f.Pass != nil:
			c.Subject = f.Pass.ID.Subject()
		case m.on == "household" && f.Household != nil:
			c.Subject = f.Household.ID.Subject()
		default:
			continue
		}
		out = append(out, edge.Delta{Cell: c, Op: edge.OpSet, Value: f.Time.Stamp.Time + m.keep.Milliseconds()})
	}
	return out
}

// Reserve is what an admission on these facts adds to the counters. Decide has
// it among the deltas of an admission; a guard's admission asks for it.
func (p *Policy) Reserve(f *edge.Facts) []edge.Delta {
	var out []edge.Delta
	if f.Lane.Direction == edge.In && p.countsUses(f) {
		out = append(out, edge.Delta{Cell: usesCell(f), Op: edge.OpAdd, Value: 1})
	}
	act := &activation{f: f, table: p.table}
	for i := range p.counters {
		c := &p.counters[i]
		if c.direction != f.Lane.Direction {
			continue
		}
		cell, ok := c.cell(f)
		if !ok {
			continue
		}
		if match, err := eval(c.when, act); err != nil || !match {
			continue
		}
		out = append(out, edge.Delta{Cell: cell, Op: edge.OpAdd, Value: 1})
	}
	return out
}

// Release undoes what an admission reserved: nobody went through.
func Release(reserved []edge.Delta) []edge.Delta {
	var out []edge.Delta
	for _, d := range reserved {
		if d.Op == edge.OpAdd {
			d.Value = -d.Value
			out = append(out, d)
		}
	}
	return out
}

// Passed is what going through changes: the position of the pass.
func Passed(pass edge.PassID, d edge.Direction) []edge.Delta {
	if pass == 0 {
		return nil
	}
	at := edge.PositionInside
	if d == edge.Out {
		at = edge.PositionOutside
	}
	return []edge.Delta{{Cell: edge.Cell{Name: edge.CellPosition, Subject: pass.Subject()}, Op: edge.OpSet, Value: at}}
}
