package console

import (
	"fmt"
	"net/http"
	"slices"
	"strings"
	"time"

	"gatehouse/edge"
	"gatehouse/edge/text"
)

// Rules are the rules in force and to come, for everybody on the gate's network.
type Rules struct {
	Title, Hash string
	Threshold   float64      // of temperatures, in degrees Celsius
	Otherwise   edge.Outcome // where no rule says anything
	Areas       []Area
	List        []Rule // the superiors' first
}

// Area is a part of the site, and how strictly it is managed now.
type Area struct {
	Code, Name string
	Tier       edge.Tier
	Days       int // whole days that the tier has lasted
}

// Rule is one of them: what it orders, where, for whom, on whose word, until when.
type Rule struct {
	ID, Title, Kind              string // Kind is "protect" for what may never be refused
	Reason                       edge.Reason
	Outcome                      edge.Outcome
	Policy                       string // whose part it is
	Area                         string
	Tier                         edge.Tier
	Level                        edge.Level
	Category, NotCategory, Group string // empty = all
	Direction                    edge.Direction
	Hours                        *Hours
	Conditional                  bool // it asks for more than all these
	By, Basis                    string
	From, Until                  time.Time // zero = open
	Days                         bool      // these are midnights: the days between are meant
	Coming                       bool      // it is not in force yet
}

// Hours are a daily time, in minutes since midnight; To may be on the next day.
type Hours struct {
	From, To int
	Weekdays []int // 1 Monday to 7 Sunday
}

// ruleRow is a rule in words.
type ruleRow struct {
	ID, Title, What, Class string
	Where                  []string
	Order                  string // who ordered it, on what basis, from when, until when
	From                   string
	Coming                 bool
}

// ruleGroup are the rules for some people, ruleArea those of some part of the site.
type ruleGroup struct {
	Name string
	List []ruleRow
}

type ruleArea struct {
	Name, Tier string
	Groups     []ruleGroup
}

// rules shows what is in force in plain words: what holds everywhere first, then
// by area, and in each by whom it is for.
func (c *Console) rules(w http.ResponseWriter, r *http.Request) {
	p := c.deps.Text.For(c.lang(r))
	var in Rules
	if c.deps.Rules != nil {
		in = c.deps.Rules()
	}
	data := map[string]any{"Rules": in, "Areas": c.areas(p, in), "Plan": c.plan(p)}
	if in.Threshold != 0 {
		data["Threshold"] = p.T("rules.threshold", "Temperature", p.Celsius(p.Number(in.Threshold, 1)))
	}
	if in.Otherwise != "" {
		data["Otherwise"] = p.T("rules.otherwise." + string(in.Otherwise))
	}
	c.render(w, r, "rules.html", data)
}

// areas sorts the rules into where they hold. What holds in a tier stands with the
// areas that are in it now.
func (c *Console) areas(p *text.Printer, in Rules) []ruleArea {
	pick := func(name, tier string, of func(Rule) bool) ruleArea {
		a := ruleArea{Name: name, Tier: tier}
		for _, x := range in.List {
			if !of(x) {
				continue
			}
			g := forWhom(p, x)
			i := slices.IndexFunc(a.Groups, func(y ruleGroup) bool { return y.Name == g })
			if i < 0 {
				i = len(a.Groups)
				a.Groups = append(a.Groups, ruleGroup{Name: g})
			}
			a.Groups[i].List = append(a.Groups[i].List, c.ruleRow(p, x))
		}
		return a
	}
	out := []ruleArea{pick(p.T("rules.everywhere"), "", func(x Rule) bool { return x.Area == "" && x.Tier == "" })}
	tiers := map[edge.Tier]bool{}
	for _, a := range in.Areas {
		tiers[a.Tier] = true
		tier := word(p, "tier.", string(a.Tier))
		if a.Days > 0 {
			tier += " · " + p.T("rules.days", "Count", a.Days)
		}
		out = append(out, pick(a.Name, tier, func(x Rule) bool {
			return (x.Area == "" || x.Area == a.Code) && (x.Tier == "" || x.Tier == a.Tier) && x.Area+string(x.Tier) != ""
		}))
	}
	// A tier that no area is in now still says what would hold.
	for _, t := range []edge.Tier{edge.TierLockdown, edge.TierControl, edge.TierPrevention, edge.TierNormal} {
		if a := pick(p.T("rules.no_area", "Tier", word(p, "tier.", string(t))), "", func(x Rule) bool { return x.Tier == t }); !tiers[t] && len(a.Groups) > 0 {
			out = append(out, a)
		}
	}
	return out
}

// forWhom names the people that a rule is for.
func forWhom(p *text.Printer, x Rule) string {
	switch {
	case x.Category != "":
		return word(p, "category.", x.Category)
	case x.NotCategory != "":
		return p.T("rules.all_but", "Category", word(p, "category.", x.NotCategory))
	}
	return p.T("rules.everybody")
}

func (c *Console) ruleRow(p *text.Printer, x Rule) ruleRow {
	v := ruleRow{ID: x.ID, Title: x.Title, What: p.T("rules.what." + string(x.Outcome)), Class: string(x.Outcome), Coming: x.Coming}
	if x.Kind == "protect" {
		v.What, v.Class = p.T("rules.protect."+string(x.Outcome)), "protect"
	}
	// The sentence of the rule or of its reason, where there is one; else the policy's
	// own title.
	for _, id := range []string{"reason." + x.ID, "reason." + string(x.Reason)} {
		if p.Has(id) {
			v.Title = p.T(id)
			break
		}
	}
	if v.Title == "" {
		v.Title = x.ID
	}
	if x.Direction != "" {
		v.Where = append(v.Where, p.T("rules.direction."+string(x.Direction)))
	}
	if x.Level != "" {
		v.Where = append(v.Where, p.T("rules.level."+string(x.Level)))
	}
	if x.Group != "" {
		v.Where = append(v.Where, p.T("rules.group", "Group", x.Group))
	}
	if h := x.Hours; h != nil {
		v.Where = append(v.Where, hoursInWords(p, *h))
	}
	if x.Conditional {
		v.Where = append(v.Where, p.T("rules.conditional"))
	}
	// A last day is the one before the midnight that ends it.
	when := func(t time.Time, last time.Duration) string {
		switch {
		case t.IsZero():
			return ""
		case x.Days:
			return p.Day(t.Add(-last).In(c.cfg.Location))
		}
		return p.Moment(t.In(c.cfg.Location))
	}
	v.From = when(x.From, 0)
	by, from, until := x.By, "", p.T("rules.open")
	if by != "" {
		by = p.T("console.authority") + " " + by
	}
	if v.From != "" && !x.Coming {
		from = p.T("rules.from", "From", v.From)
	}
	if !x.Until.IsZero() {
		until = p.T("rules.until", "Until", when(x.Until, time.Millisecond))
	}
	v.Order = strings.Join(clean(by, x.Basis, from, until, x.Policy, x.ID), " · ")
	return v
}

func hoursInWords(p *text.Printer, h Hours) string {
	s := fmt.Sprintf("%02d:%02d–%02d:%02d", h.From/60, h.From%60, h.To/60, h.To%60)
	if len(h.Weekdays) == 7 {
		return p.T("rules.daily", "Hours", s)
	}
	var days []string
	for _, d := range h.Weekdays {
		days = append(days, p.T(fmt.Sprintf("weekday.%d", d)))
	}
	return strings.Join(days, p.T("list.and")) + " " + s
}
