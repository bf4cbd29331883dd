package policy

import (
	"bytes"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"time"
	"unicode"
	"unicode/utf8"

	"cel.dev/cel-go/cel"
	celast "cel.dev/cel-go/common/ast"
	"cel.dev/cel-go/common/cost"

	"gatehouse/device/options"
	"gatehouse/edge"
	"gatehouse/edge/text"
)

// Limits of one policy.
const (
	maxRules = 2000
	maxExpr  = 2000   // characters of an expression
	maxCost  = 20_000 // CEL cost units of one evaluation, checked at load
	maxList  = 64     // declared length of a list among the facts
	maxSay   = 80     // characters of what a rule tells the person
)

// shaming are words that a public screen never shows about a person.
var shaming = regexp.MustCompile(`(?i)fever|temperature|quarantin|quota|positive|infect|risk|发热|发烧|体温|隔离|阳性|感染|配额|限额|名额|风险|黄码|红码`)

// file is the YAML form of a policy.
type file struct {
	Policy    string                  `yaml:"policy"`
	Version   int64                   `yaml:"version"`
	Title     string                  `yaml:"title"`
	Counter   bool                    `yaml:"countersigned"`
	Layer     string                  `yaml:"layer"`
	Authority authority               `yaml:"authority"`
	Temp      temperature             `yaml:"temperature"`
	Clock     string                  `yaml:"clock_untrusted"`
	NoMatch   edge.Outcome            `yaml:"no_match"`
	Timeouts  map[string]edge.Outcome `yaml:"refer_timeout"`
	Under     string                  `yaml:"under"`
	Params    map[string]options.Node `yaml:"parameters"`
	Lower     []options.Node          `yaml:"lower"`
	Tiers     map[string]options.Node `yaml:"tiers"`
	Moves     []options.Node          `yaml:"transitions"`
	Counters  map[string]options.Node `yaml:"counters"`
	Answers   map[string]options.Node `yaml:"answers"`
	Slots     map[string]string       `yaml:"slots"`
	Rules     []options.Node          `yaml:"rules"`
	Cases     []options.Node          `yaml:"cases"`
}

type authority struct {
	By    string `yaml:"by"`
	Basis string `yaml:"basis"`
	From  string `yaml:"from"`
	Until string `yaml:"until"`
}

type temperature struct {
	Threshold   float64       `yaml:"threshold"`
	Uncertainty float64       `yaml:"uncertainty"`
	Remeasures  int           `yaml:"remeasures"`
	Order       *valueOrdered `yaml:"value"`
}

// valueOrdered makes temperature.value a fact and so part of the journal.
type valueOrdered struct {
	Basis string `yaml:"basis"`
}

type ruleFile struct {
	ID          string            `yaml:"id"`
	Title       string            `yaml:"title"`
	Kind        string            `yaml:"kind"`
	Scope       scope             `yaml:"scope"`
	When        string            `yaml:"when"`
	Then        edge.Outcome      `yaml:"then"`
	AtMost      edge.Outcome      `yaml:"at_most"`
	Reason      edge.Reason       `yaml:"reason"`
	Authority   *authority        `yaml:"authority"`
	Say         map[string]string `yaml:"say"`
	Obligations []string          `yaml:"obligations"`
	Answers     []string          `yaml:"answers"`
	Marks       []markFile        `yaml:"marks"`
	node        options.Node
}

type markFile struct {
	Set string        `yaml:"set"`
	On  string        `yaml:"on"`
	For time.Duration `yaml:"for"`
}

type scope struct {
	Level       edge.Level     `yaml:"level"`
	Direction   edge.Direction `yaml:"direction"`
	Area        string         `yaml:"area"`
	Tier        edge.Tier      `yaml:"tier"`
	Category    string         `yaml:"category"`
	NotCategory string         `yaml:"not_category"`
	Group       string         `yaml:"group"`
	Slot        string         `yaml:"slot"`
}

type counterFile struct {
	Of    string        `yaml:"of"`
	By    string        `yaml:"by"`
	Every string        `yaml:"every"`
	Scope string        `yaml:"scope"`
	Stale time.Duration `yaml:"stale_after"`
	When  string        `yaml:"when"`
}

type answerFile struct {
	Needs   []string `yaml:"needs"`
	Two     bool     `yaml:"two"`
	Purpose string   `yaml:"purpose"`
}

var (
	ident       = regexp.MustCompile(`^[a-z][a-z0-9_]*$`)
	ruleID      = regexp.MustCompile(`^[a-z][a-z0-9_.-]*$`)
	outcomes    = []edge.Outcome{edge.Admit, edge.Remeasure, edge.Refer, edge.Deny}
	obligations = []string{"register", "alert", "escort", "incident", "temporary_pass", "follow_up"}
	needs       = []string{"identity", "proof", "escort", "second_reading"}
	levels      = []edge.Level{"", edge.LevelEstate, edge.LevelBuilding, edge.LevelHousehold}
	tiers       = []edge.Tier{"", edge.TierLockdown, edge.TierControl, edge.TierPrevention, edge.TierNormal}
	directions  = []edge.Direction{"", edge.In, edge.Out}
)

type loader struct {
	p    *Policy
	up   *Policy // the layer directly above, with all above it; nil = none
	env  *cel.Env
	errs []error
}

func (l *loader) bad(n options.Node, format string, args ...any) {
	l.errs = append(l.errs, n.Errorf(format, args...))
}

// Load reads, checks and compiles a policy beneath its superiors, the highest
// first, each of them loaded beneath those before it. What goes outside a
// superior's policy is refused with the line there. The policy's own cases must
// pass. The error joins all that is wrong, each with file, line and rule.
func Load(name string, src []byte, superiors ...*Policy) (*Policy, error) {
	var up *Policy
	for _, s := range superiors {
		if s.up != up {
			return nil, fmt.Errorf("%s: its superior %s was not loaded beneath the others", name, s.name)
		}
		up = s
	}
	root, err := options.Parse(name, src)
	if err != nil {
		return nil, err
	}
	f := file{Clock: "skip", NoMatch: edge.Refer, Temp: temperature{Threshold: 37.3, Uncertainty: 0.4, Remeasures: 2}}
	if up != nil {
		f.Temp = up.temp
	}
	l := &loader{up: up, p: &Policy{name: name, up: up, src: src, table: map[string]func(*edge.Facts) any{}}}
	l.p.sum = sha256.Sum256(src)
	if up != nil {
		// The same file beneath another superior is another set of rules.
		own := l.p.sum
		l.p.sum = sha256.Sum256(append(append([]byte("layers\n"), up.sum[:]...), own[:]...))
	}
	l.p.hash = "sha256:" + hex.EncodeToString(l.p.sum[:8])
	if err := root.Decode(&f); err != nil {
		return nil, err
	}
	for _, x := range Private(src) {
		l.errs = append(l.errs, fmt.Errorf("%s:%d: %s", name, x.line, x.text))
	}
	l.header(root, &f)
	l.layer(root, &f)
	l.parameters(root, &f)
	l.tiers(root, &f)
	l.fireNames(root, &f)
	l.environment(root, &f)
	l.counters(root, &f)
	if l.env != nil {
		l.rules(root, &f)
	}
	l.inside(root, &f)
	if err := errors.Join(l.errs...); err != nil {
		return nil, err
	}
	l.p.index()
	l.cases(root, &f)
	if err := errors.Join(l.errs...); err != nil {
		return nil, err
	}
	return l.p, nil
}

func (l *loader) header(root options.Node, f *file) {
	p := l.p
	if !ruleID.MatchString(f.Policy) {
		l.bad(root.At("policy"), "%q: a policy has a name of a-z, 0-9, dot, dash and underscore", f.Policy)
	}
	if f.Version < 1 {
		l.bad(root.At("version"), "a policy has a version from 1 on, which grows with every change")
	}
	p.id, p.version, p.title, p.layer, p.countersigned = f.Policy, f.Version, f.Title, f.Layer, f.Counter
	if f.Layer != "" && !ruleID.MatchString(f.Layer) {
		l.bad(root.At("layer"), "%q is not a layer's name", f.Layer)
	}
	t := f.Temp
	if t.Threshold < 35 || t.Threshold > 42 {
		l.bad(root.At("temperature").At("threshold"), "%v is not between 35 and 42 degrees Celsius", t.Threshold)
	}
	if t.Uncertainty < 0 || t.Uncertainty > 1 {
		l.bad(root.At("temperature").At("uncertainty"), "%v is not between 0 and 1 degree Celsius", t.Uncertainty)
	}
	if t.Remeasures < 0 || t.Remeasures > 10 {
		l.bad(root.At("temperature").At("remeasures"), "%d is not between 0 and 10", t.Remeasures)
	}
	if t.Order != nil && t.Order.Basis == "" {
		l.bad(root.At("temperature").At("value"), "keeping the value of a temperature needs the basis that orders it")
	}
	p.temp = t
	switch f.Clock {
	case "skip", "apply":
		p.applyUntrusted = f.Clock == "apply"
	default:
		l.bad(root.At("clock_untrusted"), "%q is neither skip nor apply", f.Clock)
	}
	if !slices.Contains(outcomes, f.NoMatch) || f.NoMatch == edge.Remeasure {
		l.bad(root.At("no_match"), "%q is not one of admit, refer, deny", f.NoMatch)
	}
	p.noMatch = f.NoMatch
	p.timeouts = f.Timeouts
	for cat, o := range f.Timeouts {
		at := root.At("refer_timeout").At(cat)
		if !slices.Contains(outcomes, o) || o == edge.Remeasure {
			l.bad(at, "%q is not one of admit, refer, deny", o)
		}
		if cat == "resident" && o == edge.Deny {
			l.bad(at, "a resident's own home never times out to deny")
		}
	}
	p.authority = l.authority(root.At("authority"), f.Authority)
	p.slots = map[string]slot{}
	for name, text := range f.Slots {
		s, err := parseSlot(text)
		if err != nil {
			l.bad(root.At("slots").At(name), "%v", err)
		}
		p.slots[name] = s
	}
	p.answers = map[string]edge.Answer{}
	for name, n := range f.Answers {
		var a answerFile
		if err := n.Decode(&a); err != nil {
			l.errs = append(l.errs, err)
		}
		for _, x := range a.Needs {
			if !slices.Contains(needs, x) {
				l.bad(n.At("needs"), "%q is not one of %s", x, strings.Join(needs, ", "))
			}
		}
		p.answers[name] = edge.Answer{Reason: edge.Reason(name), Needs: a.Needs, Two: a.Two, Purpose: a.Purpose}
	}
	if len(f.Rules) > maxRules {
		l.bad(root.At("rules"), "%d rules; at most %d", len(f.Rules), maxRules)
	}
}

func (l *loader) authority(n options.Node, a authority) Authority {
	out := Authority{By: a.By, Basis: a.Basis}
	parse := func(key, text string, end bool) int64 {
		if text == "" {
			return 0
		}
		for _, layout := range []string{time.RFC3339, "2006-01-02"} {
			if t, err := time.Parse(layout, text); err == nil {
				if layout == "2006-01-02" && end {
					t = t.AddDate(0, 0, 1) // a day that is named as the last one is included
				}
				out.wall = layout == "2006-01-02"
				return t.UnixMilli()
			}
		}
		l.bad(n.At(key), "%q is not a date (2026-03-01) or a time (2026-03-01T06:00:00+08:00)", text)
		return 0
	}
	out.From = parse("from", a.From, false)
	out.Until = parse("until", a.Until, true)
	if out.From != 0 && out.Until != 0 && out.Until <= out.From {
		l.bad(n.At("until"), "%s is not after from, %s", a.Until, a.From)
	}
	return out
}

func (l *loader) environment(root options.Node, f *file) {
	opts := []cel.EnvOption{cel.ASTValidators(cel.ValidateRegexLiterals(), cel.ValidateDurationLiterals()), cel.ParserExpressionSizeLimit(maxExpr), cel.ParserRecursionLimit(50)}
	declare := func(name string, kind *cel.Type, get func(*edge.Facts) any) {
		opts = append(opts, cel.Variable(name, kind))
		l.p.table[name] = get
		l.p.names = append(l.p.names, name)
	}
	for _, fact := range Facts() {
		if fact.Name == "temperature.value" && f.Temp.Order == nil {
			continue
		}
		declare(fact.Name, fact.kind, fact.get)
	}
	for name := range f.Counters {
		if !ident.MatchString(name) {
			l.bad(root.At("counters").At(name), "%q: a counter's name is of a-z, 0-9 and underscore", name)
			continue
		}
		pre := "counters." + name
		declare(pre+".n", cel.IntType, func(f *edge.Facts) any { return f.Counters[name].N })
		declare(pre+".peers", cel.IntType, func(f *edge.Facts) any { return f.Counters[name].Peers })
		declare(pre+".stale", cel.BoolType, func(f *edge.Facts) any { return f.Counters[name].Stale })
		declare(pre+".age", cel.IntType, func(f *edge.Facts) any { return int64(f.Counters[name].Age) })
	}
	for name, q := range l.p.params {
		if q.given && q.whole {
			v := int64(q.value)
			declare("parameters."+name, cel.IntType, func(*edge.Facts) any { return v })
		} else if q.given {
			v := q.value
			declare("parameters."+name, cel.DoubleType, func(*edge.Facts) any { return v })
		}
	}
	for _, n := range f.Rules {
		for _, m := range n.At("marks").Items() {
			name := m.At("set").Text()
			if ident.MatchString(name) && !slices.Contains(l.p.marks, name) {
				l.p.marks = append(l.p.marks, name)
				declare("marks."+name, cel.BoolType, func(f *edge.Facts) any { return f.Marks[name] })
			}
		}
	}
	slices.Sort(l.p.marks)
	env, err := cel.NewEnv(opts...)
	if err != nil {
		l.bad(root, "cannot set up the expressions: %v", err)
		return
	}
	l.env = env
	if l.up != nil {
		// The rules above read what is declared there, unless chosen here.
		for name, get := range l.up.table {
			if l.p.table[name] == nil {
				l.p.table[name] = get
			}
		}
		for _, m := range l.up.marks {
			if !slices.Contains(l.p.marks, m) {
				l.p.marks = append(l.p.marks, m)
			}
		}
	}
}

// compile checks one boolean expression: its types, its names and its cost.
func (l *loader) compile(n options.Node, text string) (cel.Program, []string) {
	prg, reads, _ := l.compileAll(n, text)
	return prg, reads
}

// compileAll also gives the texts and numbers that each fact is compared with.
func (l *loader) compileAll(n options.Node, text string) (cel.Program, []string, map[string][]any) {
	if text == "" {
		return nil, nil, nil
	}
	ast, iss := l.env.Compile(text)
	if iss.Err() != nil {
		for _, e := range iss.Errors() {
			msg := e.Message
			if name, ok := strings.CutPrefix(msg, "undeclared reference to '"); ok {
				name, _, _ = strings.Cut(name, "'")
				full := name
				// CEL names the first part only; the whole name is in the text.
				if i := strings.Index(text, name+"."); i >= 0 {
					full = regexp.MustCompile(`^[\w.]+`).FindString(text[i:])
				}
				msg = fmt.Sprintf("no fact is called %q%s", full, options.Hint(full, l.p.names))
				if ofFire(full) {
					msg = fmt.Sprintf("no fact is called %q: %s", full, fireLaw)
				}
			}
			l.bad(n, "%s (in %q, character %d)", msg, text, e.Location.Column()+1)
		}
		return nil, nil, nil
	}
	if ast.OutputType() != cel.BoolType {
		l.bad(n, "a condition is true or false; %q is %s", text, ast.OutputType())
		return nil, nil, nil
	}
	c, err := l.env.EstimateCost(ast, estimator{})
	if err != nil || c.Max > maxCost {
		l.bad(n, "%q may cost %d, more than %d", text, c.Max, maxCost)
		return nil, nil, nil
	}
	prg, err := l.env.Program(ast, cel.EvalOptions(cel.OptOptimize))
	if err != nil {
		l.bad(n, "%q: %v", text, err)
		return nil, nil, nil
	}
	var reads []string
	for _, r := range ast.NativeRep().ReferenceMap() {
		if r.Name != "" && l.p.table[r.Name] != nil && !slices.Contains(reads, r.Name) {
			reads = append(reads, r.Name)
		}
	}
	slices.Sort(reads)
	refs := ast.NativeRep().ReferenceMap()
	literals := map[string][]any{}
	celast.PostOrderVisit(ast.NativeRep().Expr(), celast.NewExprVisitor(func(e celast.Expr) {
		if e.Kind() != celast.CallKind {
			return
		}
		var names []string
		var values []any
		for _, a := range e.AsCall().Args() {
			switch {
			case a.Kind() == celast.LiteralKind:
				values = append(values, a.AsLiteral().Value())
			case a.Kind() == celast.ListKind:
				for _, x := range a.AsList().Elements() {
					if x.Kind() == celast.LiteralKind {
						values = append(values, x.AsLiteral().Value())
					}
				}
			case refs[a.ID()] != nil:
				names = append(names, refs[a.ID()].Name)
			}
		}
		for _, n := range names {
			literals[n] = append(literals[n], values...)
			for _, other := range names {
				if strings.HasPrefix(other, "parameters.") && n != other {
					literals[n] = append(literals[n], l.p.table[other](nil))
				}
			}
		}
	}))
	return prg, reads, literals
}

// estimator bounds the sizes of the facts for the cost of an expression.
type estimator struct{}

func (estimator) EstimateSize(cost.AstNode) *cost.SizeEstimate {
	return &cost.SizeEstimate{Min: 0, Max: maxList}
}

func (estimator) EstimateCallCost(string, string, *cost.AstNode, []cost.AstNode) *cost.CallEstimate {
	return nil
}

func (l *loader) counters(root options.Node, f *file) {
	for _, name := range root.At("counters").Keys() {
		n := f.Counters[name]
		c := counterFile{Scope: "site", Stale: time.Hour}
		if err := n.Decode(&c); err != nil {
			l.errs = append(l.errs, err)
			continue
		}
		out := counter{name: name, by: c.By, site: c.Scope == "site", stale: c.Stale}
		switch c.Of {
		case "exits":
			out.direction = edge.Out
		case "entries":
			out.direction = edge.In
		default:
			l.bad(n.At("of"), "%q is neither exits nor entries", c.Of)
		}
		if !slices.Contains([]string{"pass", "household", "vehicle"}, c.By) {
			l.bad(n.At("by"), "%q is not one of pass, household, vehicle", c.By)
		}
		if !slices.Contains([]string{"site", "gate"}, c.Scope) {
			l.bad(n.At("scope"), "%q is neither site nor gate", c.Scope)
		}
		if c.Every == "day" {
			out.every = 24 * time.Hour
		} else if d, err := time.ParseDuration(c.Every); err != nil || d < time.Minute || d > 60*24*time.Hour {
			l.bad(n.At("every"), "%q is neither day nor a duration from 1m to 1440h", c.Every)
		} else {
			out.every = d
		}
		if l.env != nil {
			out.when, out.reads = l.compile(n.At("when"), c.When)
		}
		out.of, out.expr = c.Of, c.When
		l.p.counters = append(l.p.counters, out)
	}
	if l.up != nil {
		for _, c := range l.up.counters {
			if !slices.ContainsFunc(l.p.counters, func(o counter) bool { return o.name == c.name }) {
				l.p.counters = append(l.p.counters, c)
			}
		}
	}
}

func (l *loader) rules(root options.Node, f *file) {
	seen := map[string]int{}
	for _, n := range f.Rules {
		r := ruleFile{node: n}
		if err := n.Decode(&r); err != nil {
			l.errs = append(l.errs, err)
			continue
		}
		if !ruleID.MatchString(r.ID) {
			l.bad(n.At("id"), "%q: every rule has an id of a-z, 0-9, dot, dash and underscore", r.ID)
			continue
		}
		if line, twice := seen[r.ID]; twice {
			l.bad(n.At("id"), "rule %q stands in line %d already", r.ID, line)
		}
		seen[r.ID] = n.At("id").Line()
		out := l.rule(n, &r)
		out.node = n
		l.p.rules = append(l.p.rules, out)
	}
	if len(f.Rules) == 0 {
		l.bad(root.At("rules"), "a policy without rules")
	}
}

func (l *loader) rule(n options.Node, r *ruleFile) *rule {
	out := &rule{id: r.ID, title: r.Title, kind: r.Kind, scope: r.Scope, then: r.Then, reason: r.Reason, obligations: r.Obligations, line: n.Line(), authority: l.p.authority}
	if r.Reason == "" {
		out.reason = edge.Reason(r.ID)
	}
	if out.kind == "" {
		out.kind = "restrict"
		if r.Then == edge.Admit {
			out.kind = "permit"
		}
	}
	switch out.kind {
	case "protect":
		out.atMost = r.AtMost
		if r.Then != "" || !slices.Contains(outcomes, r.AtMost) || r.AtMost == edge.Deny {
			l.bad(n, "rule %q: a protect rule has at_most (admit, remeasure or refer) and no then", r.ID)
		}
	case "permit", "restrict":
		if !slices.Contains(outcomes, r.Then) || r.AtMost != "" {
			l.bad(n.At("then"), "rule %q: then is one of admit, remeasure, refer, deny, and at_most is for protect rules", r.ID)
		}
		if (out.kind == "permit") != (r.Then == edge.Admit) {
			l.bad(n.At("kind"), "rule %q: a rule that permits admits, and one that restricts does not", r.ID)
		}
	default:
		l.bad(n.At("kind"), "rule %q: %q is not one of permit, restrict, protect%s", r.ID, r.Kind, options.Hint(r.Kind, []string{"permit", "restrict", "protect"}))
	}
	if r.Authority != nil {
		out.authority = l.authority(n.At("authority"), *r.Authority)
		if out.authority.By == "" {
			out.authority.By = l.p.authority.By
		}
		if out.authority.Basis == "" {
			out.authority.Basis = l.p.authority.Basis
		}
	}
	if out.kind == "restrict" && (out.authority.By == "" || out.authority.Basis == "") {
		l.bad(n, "rule %q restricts and does not say who ordered it on what basis (authority: by, basis)", r.ID)
	}
	s := r.Scope
	at := n.At("scope")
	if !slices.Contains(levels, s.Level) {
		l.bad(at.At("level"), "rule %q: %q is not one of estate, building, household", r.ID, s.Level)
	}
	if !slices.Contains(directions, s.Direction) {
		l.bad(at.At("direction"), "rule %q: %q is neither in nor out", r.ID, s.Direction)
	}
	if !slices.Contains(tiers, s.Tier) {
		l.bad(at.At("tier"), "rule %q: %q is not one of lockdown, control, prevention, normal", r.ID, s.Tier)
	}
	if s.Slot != "" {
		sl, ok := l.p.slots[s.Slot]
		if !ok {
			var err error
			if sl, err = parseSlot(s.Slot); err != nil {
				l.bad(at.At("slot"), "rule %q: %q is neither one of the policy's slots nor %v", r.ID, s.Slot, err)
			}
		}
		out.slot = &sl
	}
	out.expr = r.When
	out.when, out.reads, out.literals = l.compileAll(n.At("when"), r.When)
	l.fire(n, r, out)
	out.say = r.Say
	for lang, line := range r.Say {
		at := n.At("say").At(lang)
		if !slices.Contains(text.Languages(), lang) {
			l.bad(at, "rule %q: %q is not a language of the display%s", r.ID, lang, options.Hint(lang, text.Languages()))
		}
		if n := utf8.RuneCountInString(line); n == 0 || n > maxSay || strings.ContainsFunc(line, unicode.IsControl) {
			l.bad(at, "rule %q: what is said is one line of 1 to %d characters", r.ID, maxSay)
		}
		if word := shaming.FindString(line); word != "" {
			l.bad(at, "rule %q: %q does not belong on a screen that everybody sees; say what to do next", r.ID, word)
		}
	}
	for _, o := range r.Obligations {
		if !slices.Contains(obligations, o) {
			l.bad(n.At("obligations"), "rule %q: unknown obligation %q%s", r.ID, o, options.Hint(o, obligations))
		}
	}
	for _, a := range r.Answers {
		ans, ok := l.p.answers[a]
		if !ok {
			known := make([]string, 0, len(l.p.answers))
			for k := range l.p.answers {
				known = append(known, k)
			}
			l.bad(n.At("answers"), "rule %q: no answer is called %q%s", r.ID, a, options.Hint(a, known))
			continue
		}
		out.answers = append(out.answers, ans)
	}
	for i, m := range r.Marks {
		at := n.At("marks").Items()[i]
		if !ident.MatchString(m.Set) {
			l.bad(at.At("set"), "rule %q: %q is not a mark's name", r.ID, m.Set)
		}
		if m.On != "pass" && m.On != "household" {
			l.bad(at.At("on"), "rule %q: %q is neither pass nor household", r.ID, m.On)
		}
		if m.For <= 0 || m.For > 90*24*time.Hour {
			l.bad(at.At("for"), "rule %q: %v is not between 0 and 2160h: a mark expires by itself", r.ID, m.For)
		}
		out.marks = append(out.marks, markOrder{m.Set, m.On, m.For})
	}
	return out
}

// parseSlot reads "22:30-06:30" or "mon-fri 08:00-18:00"; it may span midnight.
func parseSlot(text string) (slot, error) {
	s := slot{days: 0x7f}
	days, hours, ok := strings.Cut(text, " ")
	if !ok {
		days, hours = "", text
	}
	names := []string{"mon", "tue", "wed", "thu", "fri", "sat", "sun"}
	if days != "" {
		s.days = 0
		for part := range strings.SplitSeq(days, ",") {
			a, b, _ := strings.Cut(part, "-")
			from, to := slices.Index(names, a), slices.Index(names, b)
			if b == "" {
				to = from
			}
			if from < 0 || to < from {
				return s, fmt.Errorf("%q: days are mon to sun, as in mon-fri,sun", text)
			}
			for d := from; d <= to; d++ {
				s.days |= 1 << d
			}
		}
	}
	a, b, ok := strings.Cut(hours, "-")
	var err1, err2 error
	s.from, err1 = minutes(a)
	s.to, err2 = minutes(b)
	if !ok || err1 != nil || err2 != nil || s.from == s.to {
		return s, fmt.Errorf("hours as in 22:30-06:30")
	}
	return s, nil
}

func minutes(text string) (int, error) {
	h, m, ok := strings.Cut(text, ":")
	hv, err1 := strconv.Atoi(h)
	mv, err2 := strconv.Atoi(m)
	if !ok || err1 != nil || err2 != nil || len(m) != 2 || hv < 0 || hv > 24 || mv < 0 || mv > 59 || hv*60+mv > 1440 {
		return 0, fmt.Errorf("%q is not a time of day", text)
	}
	return hv*60 + mv, nil
}

// caseFile is one of the policy's own examples: facts and what follows.
type caseFile struct {
	Name        string          `yaml:"name"`
	At          string          `yaml:"at"`
	Clock       edge.ClockState `yaml:"clock"`
	Facts       options.Node    `yaml:"facts"`
	Want        edge.Outcome    `yaml:"want"`
	Rule        string          `yaml:"rule"`
	Obligations []string        `yaml:"obligations"`
}

func (l *loader) cases(root options.Node, f *file) {
	for _, n := range f.Cases {
		c := caseFile{At: "2026-03-02T10:00:00+08:00", Clock: edge.ClockSynced}
		if err := n.Decode(&c); err != nil {
			l.errs = append(l.errs, err)
			continue
		}
		at, err := time.Parse(time.RFC3339, c.At)
		if err != nil {
			l.bad(n.At("at"), "%q is not a time like 2026-03-02T10:00:00+08:00", c.At)
			continue
		}
		var facts edge.Facts
		b, err := json.Marshal(c.Facts.Any())
		if err == nil {
			dec := json.NewDecoder(bytes.NewReader(b))
			dec.DisallowUnknownFields()
			err = dec.Decode(&facts)
		}
		if err != nil {
			l.bad(c.Facts, "case %q: %v", c.Name, err)
			continue
		}
		_, off := at.Zone()
		facts.Time = edge.TimeFactsOf(edge.Stamp{Time: at.UnixMilli(), Offset: off / 60, Clock: c.Clock})
		got := l.p.Decide(&facts)
		switch {
		case got.Outcome != c.Want:
			l.bad(n, "case %q: want %s, got %s by rule %q (%s)", c.Name, c.Want, got.Outcome, got.Rule, got.Reason)
		case c.Rule != "" && got.Rule != c.Rule && string(got.Reason) != c.Rule: // a layer above may decide for the same reason
			l.bad(n, "case %q: want rule %q to decide, got %q", c.Name, c.Rule, got.Rule)
		case len(c.Obligations) > 0 && !slices.Equal(c.Obligations, got.Obligations):
			l.bad(n, "case %q: want obligations %v, got %v", c.Name, c.Obligations, got.Obligations)
		}
		l.p.samples = append(l.p.samples, &facts)
	}
}
