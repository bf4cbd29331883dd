package console

import (
	"context"
	"fmt"
	"html/template"
	"net/http"
	"slices"
	"strconv"
	"strings"
	"time"

	"gatehouse/device"
	"gatehouse/edge"
	"gatehouse/edge/console/accounts"
	"gatehouse/edge/text"
)

// page is what every page is made of.
type page struct {
	Lang, Gate, Path string
	Languages        []string
	Person           *accounts.Person // nil = nobody is known
	session          string
	once             *once
	Data             any
}

func (c *Console) page(r *http.Request, lang string, data any) page {
	out := page{Lang: lang, Gate: c.cfg.Gate, Languages: pageLanguages, Path: r.URL.Path, Data: data, session: loggedOf(r).token, once: c.once}
	if p := personOf(r); p.Role != "" {
		out.Person = &p
	}
	return out
}

// May says whether whoever looks at the page has a right.
func (p page) May(what string) bool {
	if p.Person == nil {
		return right(what) == public
	}
	return has(p.Person.Role, right(what))
}

// Once is what a form that changes something is good for one time with.
func (p page) Once() string { return p.once.token(p.session) }

// Rights are all that they have, for a page's style and script.
func (p page) Rights() string {
	var out []string
	for r := range holders {
		if p.May(string(r)) {
			out = append(out, string(r))
		}
	}
	slices.Sort(out)
	return strings.Join(out, " ")
}

// loadPages parses the pages once for each language.
func loadPages(t *text.Catalogue, languages []string) (map[string]*template.Template, error) {
	pages := map[string]*template.Template{}
	for _, l := range languages {
		p := t.For(l)
		tmpl, err := template.New("").Funcs(template.FuncMap{"t": p.T}).ParseFS(assets, "assets/*.html")
		if err != nil {
			return nil, err
		}
		pages[l] = tmpl
	}
	return pages, nil
}

// button is one thing a guard can do now: a form of its own, so that it works
// without a script, and names the presentation it answers.
type button struct {
	Kind     edge.ActionKind
	Reason   edge.Reason
	Field    string
	Text     string
	Identity string
	Second   bool   // asks for a second person's number
	Input    string // label of a number to type
	Label    string
	Key      string
	Class    string
	Lang     string // of the label, when it is not the page's
	Off      bool   // offered by the policy, but something must come first
	Why      string
	// Of the presentation.
	Lane         string
	Presentation uint64
}

// person is a presentation as the guard sees it.
type person struct {
	Who, Door, Category string
	Care                []string
	Party               string
	Temperature, Sure   string
	TempClass           string
	Outcome, Class      string
	Reason, Authority   string
	Say                 string // what the display tells the person
	Obligations         []string
	Left                int64 // milliseconds until the step times out, 0 = none
	Calls               int
	By                  string // who has answered
	ID                  uint64
	Reference           string // by which the person can ask about a referral or denial
	Buttons             []button
	More                []button // beyond the first four answers
	Languages           []button // of the display
}

// Seconds are those left when the piece was made; a page without its script
// shows no others.
func (p person) Seconds() int64 { return (p.Left + 999) / 1000 }

// call is a guard's call for help.
type call struct {
	ID       uint64
	By, Time string
	Button   button
}

// panel is a lane as the guard sees it.
type panel struct {
	Lane, Name, Direction, Arrow string
	Version                      uint64
	State, Class                 string
	Queue                        int
	Degraded                     []string
	Fire                         bool
	Current                      *person
	Parked                       []person
	Last                         string
	Test                         string // what is tried here now
	Console                      bool   // people are found on the console here
	Help                         []call
	Buttons                      []button
}

// Rings is what a screen calls the guard for: referrals and presses of the call
// button, each by a word that is new when it must sound.
func (p panel) Rings() string {
	var out []string
	of := func(x person, waits bool) {
		if waits || x.Calls > 0 {
			out = append(out, fmt.Sprint(x.ID, ".", x.Calls))
		}
	}
	if p.Current != nil {
		of(*p.Current, p.Class == string(edge.LaneReferred))
	}
	for _, x := range p.Parked {
		of(x, true)
	}
	return strings.Join(out, " ")
}

// panel is a lane with the names of those who have answered or call for help, and
// with references.
func (c *Console) panel(p *text.Printer, v edge.LaneView) panel {
	out := newPanel(p, v)
	if v.Current != nil {
		out.Current.Reference = c.referenceOf(*v.Current)
	}
	for i, x := range v.Parked {
		out.Parked[i].Reference = c.referenceOf(x)
	}
	ctx, cancel := context.WithTimeout(context.Background(), time.Second)
	defer cancel()
	if x := out.Current; x != nil && x.By == "system" {
		x.By = p.T("console.timed_out")
	} else if x != nil && x.By != "" {
		x.By = p.T("console.answered_by", "Who", c.actorName(ctx, p, x.By))
	}
	for i := range out.Help {
		out.Help[i].By = p.T("console.help_from", "Who", c.actorName(ctx, p, out.Help[i].By))
		out.Help[i].Time = p.Clock(c.gateTime(v.Help[i].At))
	}
	return out
}

// identities are the ways to check who somebody is.
var identities = []string{"known", "document", "phone", "host"}

func newPanel(p *text.Printer, v edge.LaneView) panel {
	out := panel{Lane: v.Lane, Name: v.Name, Version: v.Version, Direction: p.T("direction." + string(v.Direction)), Arrow: "→",
		State: p.T("lane." + string(v.State)), Class: string(v.State), Queue: v.Queue, Fire: v.Fire, Console: v.Scanner == "console"}
	if v.Direction == edge.Out {
		out.Arrow = "←"
	}
	if out.Name == "" {
		out.Name = v.Lane
	}
	if v.Test != "" {
		out.Test = p.T("test." + string(v.Test))
	}
	for _, d := range v.Degraded {
		out.Degraded = append(out.Degraded, p.T("part."+d))
	}
	if v.Current != nil {
		c := newPerson(p, v, *v.Current, false)
		out.Current = &c
	}
	for _, x := range v.Parked {
		out.Parked = append(out.Parked, newPerson(p, v, x, true))
	}
	if l := v.Last; l != nil && v.Current == nil {
		out.Last = strings.Join(clean(who(p, *l), outcomeWord(p, *l)), " · ")
	}
	for _, h := range v.Help {
		out.Help = append(out.Help, call{ID: h.ID, By: h.By, Button: button{Kind: edge.ActComing, Label: p.T("console.coming"), Key: "y", Class: "main", Lane: v.Lane, Presentation: h.ID}})
	}
	out.Buttons = append(out.Buttons, button{Kind: edge.ActCall, Label: p.T("console.call"), Key: "h", Class: "quiet", Lane: v.Lane})
	if v.State == edge.LaneClosed {
		out.Buttons = append(out.Buttons, button{Kind: edge.ActOpen, Label: p.T("console.open_lane"), Key: "o", Class: "quiet", Lane: v.Lane})
	} else {
		out.Buttons = append(out.Buttons, button{Kind: edge.ActClose, Label: p.T("console.close_lane"), Key: "o", Class: "quiet", Lane: v.Lane})
	}
	return out
}

func clean(s ...string) []string { return slices.DeleteFunc(s, func(s string) bool { return s == "" }) }

func who(p *text.Printer, v edge.PresentationView) string {
	switch {
	case v.Pass != nil && v.Pass.Name != "":
		return v.Pass.Name
	case v.Pass != nil:
		return p.T("console.pass", "ID", v.Pass.ID)
	}
	return p.T("console.unknown_card")
}

func outcomeWord(p *text.Printer, v edge.PresentationView) string {
	if v.Outcome == "" {
		return ""
	}
	return p.T("outcome." + string(v.Outcome))
}

func newPerson(p *text.Printer, v edge.LaneView, x edge.PresentationView, parked bool) person {
	out := person{Who: who(p, x), Outcome: outcomeWord(p, x), Class: string(x.Outcome), Authority: x.Authority, Calls: x.Calls, By: x.By, ID: x.ID}
	if x.Pass != nil {
		out.Door = strings.Join(clean(x.Pass.Building, x.Pass.Unit), " ")
		out.Category = word(p, "category.", x.Pass.Category)
		for _, c := range x.Pass.Care {
			out.Care = append(out.Care, word(p, "care.", c))
		}
	}
	if x.Party > 0 {
		out.Party = p.T("console.party", "Count", x.Party)
	}
	if x.Reason != "" && x.Outcome != edge.Admit {
		out.Reason = word(p, "reason.", string(x.Reason))
		out.Say = x.Say[p.Language()]
	}
	for _, o := range x.Obligations {
		out.Obligations = append(out.Obligations, word(p, "obligation.", o))
	}
	out.Temperature, out.Sure, out.TempClass = temperature(p, x)
	if !x.Deadline.IsZero() {
		out.Left = max(1, time.Until(x.Deadline).Milliseconds())
	}
	for _, b := range buttons(p, v, x, parked) {
		if b.Kind == edge.ActLanguage {
			out.Languages = append(out.Languages, b)
		} else {
			out.Buttons = append(out.Buttons, b)
		}
	}
	if answers := countAnswers(out.Buttons); answers > 4 {
		out.Buttons, out.More = append(slices.Clone(out.Buttons[:4]), out.Buttons[answers:]...), slices.Clone(out.Buttons[4:answers])
	}
	number(out.Buttons[:min(4, countAnswers(out.Buttons))])
	number(out.More)
	number(out.Languages)
	return out
}

// groupKeys are the keys of a group of buttons, in their order. H, L and W mean
// the same everywhere on the page.
const groupKeys = "123456789abcdefgijkmnopqrstuvxyz"

// number gives the buttons of a group their keys: the digits first.
func number(group []button) {
	for i := range group {
		if i < len(groupKeys) {
			group[i].Key = groupKeys[i : i+1]
		}
	}
}

func countAnswers(b []button) int {
	for i := range b {
		if b[i].Kind != edge.ActAdmit {
			return i
		}
	}
	return len(b)
}

// word translates a code of the site's own making, or gives it as it is.
func word(p *text.Printer, prefix, code string) string {
	if p.Has(prefix + code) {
		return p.T(prefix + code)
	}
	return code
}

// temperature is the reading, and how sure it is: the band in words, never by
// colour alone.
func temperature(p *text.Printer, x edge.PresentationView) (value, sure, class string) {
	t := x.Temperature
	if t == nil {
		return x.Reading, "", ""
	}
	switch {
	case t.State != edge.TempOK:
		sure, class = p.T("temperature."+string(t.State)), "none"
	default:
		sure, class = p.T("band."+string(t.Band)), string(t.Band)
	}
	if t.Second != "" {
		sure += " · " + p.T("console.second_says", "Band", p.T("band."+string(t.Second)))
	}
	value = x.Reading
	if value != "" {
		value = p.Celsius(value)
	}
	return value, sure, class
}

// buttons are what can be done about a presentation now. The policy's admit
// reasons are the admit buttons.
func buttons(p *text.Printer, v edge.LaneView, x edge.PresentationView, parked bool) []button {
	var out []button
	add := func(b button) {
		b.Lane, b.Presentation = v.Lane, x.ID
		out = append(out, b)
	}
	// What somebody has answered is shown until it ends by itself; nothing can be
	// done about it any more.
	open := x.By == "" && (x.State == edge.LaneReferred || x.State == edge.LaneDenied)
	measuring := x.State == edge.LaneMeasuring
	if open {
		for _, a := range x.Answers {
			answer(p, x, a, add)
		}
	}
	if x.State == edge.LaneReferred || measuring {
		add(button{Kind: edge.ActDeny, Label: p.T("outcome.deny"), Key: "n", Class: "deny"})
	}
	if measuring && v.Thermometer == "typed" {
		add(button{Kind: edge.ActReading, Label: p.T("console.reading"), Input: p.T("console.celsius"), Key: "t", Class: "main"})
	}
	if open {
		if !parked && v.Thermometer == "device" {
			add(button{Kind: edge.ActRemeasure, Label: p.T("console.remeasure"), Key: "r"})
		}
		add(button{Kind: edge.ActSecond, Label: p.T("console.second"), Input: p.T("console.celsius"), Key: "t"})
		if !parked {
			add(button{Kind: edge.ActAside, Label: p.T("console.aside"), Key: "a"})
		}
	}
	if open || measuring {
		add(button{Kind: edge.ActConfirm, Field: "mask", Text: string(edge.Denied), Label: p.T("console.no_mask"), Key: "m"})
		if !parked {
			add(button{Kind: edge.ActPlusOne, Label: p.T("console.plus_one"), Key: "p"})
		}
		if parked {
			add(button{Kind: edge.ActRecall, Label: p.T("console.recall"), Key: "b"})
		}
		if !parked {
			for _, l := range displayLanguages {
				if l.code != x.Language {
					add(button{Kind: edge.ActLanguage, Text: l.code, Label: l.name, Lang: l.code, Class: "quiet"})
				}
			}
		}
		add(button{Kind: edge.ActCancel, Label: p.T("console.cancel"), Key: "x", Class: "quiet"})
	}
	if x.State == edge.LanePassing && v.Scanner != "device" {
		add(button{Kind: edge.ActConfirm, Field: "passed", Text: "yes", Label: p.T("console.passed"), Key: "1", Class: "admit"})
		add(button{Kind: edge.ActConfirm, Field: "passed", Text: "no", Label: p.T("console.not_passed"), Key: "n"})
	}
	return out
}

// answer makes the buttons of one admit reason: pressing one says what the
// policy asks for, so that one touch is enough.
func answer(p *text.Printer, x edge.PresentationView, a edge.Answer, add func(button)) {
	b := button{Kind: edge.ActAdmit, Reason: a.Reason, Label: word(p, "answer.", string(a.Reason)), Class: "admit", Second: a.Two}
	for _, n := range a.Needs {
		switch n {
		case "proof":
			b.Text = string(a.Reason)
		case "second_reading":
			if x.Temperature == nil || x.Temperature.Second != edge.BandBelow {
				b.Off, b.Why = true, p.T("console.second_first")
			}
		}
	}
	if !slices.Contains(a.Needs, "identity") {
		add(b)
		return
	}
	for _, id := range identities {
		one := b
		one.Identity, one.Label = id, b.Label+" · "+p.T("identity."+id)
		add(one)
	}
}

// statusLine is the state of the gate itself.
type statusLine struct {
	Size, Backlog uint64
	Sync, Class   string
	Clock         string
	Plan          string // the emergency plan in force, in words
	Faults        []string
}

// plan is the emergency plan in force in words; empty for none.
func (c *Console) plan(p *text.Printer) string {
	if c.deps.Plan == nil {
		return ""
	}
	switch f := c.deps.Plan(); {
	case f == nil:
		return ""
	case f.Drill:
		return p.T("plan.drill", "Name", f.Name)
	default:
		return p.T("plan.in_force", "Name", f.Name)
	}
}

func (c *Console) status(p *text.Printer) statusLine {
	out := statusLine{Size: c.deps.Journal.Size(), Sync: p.T("sync.none"), Class: "alone", Clock: p.Seconds(c.now()), Plan: c.plan(p)}
	if c.deps.Sync != nil {
		s := c.deps.Sync()
		out.Backlog = s.Backlog()
		out.Sync, out.Class = p.T("sync.offline"), "offline"
		if s.Connected {
			out.Sync, out.Class = p.T("sync.online"), "online"
		}
	}
	if c.deps.Devices != nil {
		for _, d := range c.deps.Devices() {
			if faulty(d.State) {
				out.Faults = append(out.Faults, c.deviceName(p, d.Serves)+": "+p.T("device."+string(d.State)))
			}
		}
	}
	return out
}

func faulty(s device.State) bool {
	return s == device.StateAbsent || s == device.StateDisconnected || s == device.StateFault
}

// line is one entry of the journal in words.
type line struct {
	Seq              uint64
	Time, Lane       string
	What, Why, Class string
}

// entries are the last ones, newest first.
func (c *Console) entries(ctx context.Context, p *text.Printer) []line {
	size := c.deps.Journal.Size()
	stored, err := c.deps.Journal.Read(ctx, size-min(size, lastEntries), lastEntries, 1<<20)
	if err != nil {
		c.deps.Log.Warn("cannot read the last entries", "err", err)
		return nil
	}
	out := make([]line, 0, len(stored))
	for _, s := range slices.Backward(stored) {
		if l, _, ok := c.line(p, s); ok {
			out = append(out, l)
		}
	}
	return out
}

// line puts an entry into words; false when its content is purged.
func (c *Console) line(p *text.Printer, s edge.Stored) (line, *edge.Entry, bool) {
	if s.Line == nil {
		return line{}, nil, false
	}
	e, err := edge.DecodeEntry(s.Line)
	if err != nil {
		c.deps.Log.Warn("cannot read an entry", "seq", s.Seq, "err", err)
		return line{}, nil, false
	}
	l := line{Seq: s.Seq, Time: p.LatelySeconds(c.at(e.Stamp.Time), c.now()), Lane: c.laneName(e.Lane), What: word(p, "kind.", string(e.Kind)), Class: string(e.Outcome)}
	if e.Outcome != "" {
		l.What = p.T("outcome." + string(e.Outcome))
	}
	if e.Reason != "" && e.Outcome != edge.Admit {
		l.Why = word(p, "reason.", string(e.Reason))
	}
	if e.Outcome == edge.Admit && e.Kind == edge.KindAction {
		l.Why = word(p, "answer.", string(e.Reason))
	}
	if e.Result != "" {
		l.What, l.Class = word(p, "result.", e.Result), e.Result
	}
	if e.Kind == edge.KindTest {
		l.Why = testLine(p, e.Data)
	}
	l.Why = strings.Join(clean(l.Why, gist(p, e)), " · ")
	if strings.Contains(e.Actor, ":") {
		l.Why = strings.Join(clean(l.Why, actorInWords(p, e.Actor)), " · ")
	}
	if e.Facts != nil && e.Facts.Pass != nil {
		l.Why = strings.Join(clean(fmt.Sprintf("%s %d", word(p, "category.", e.Facts.Pass.Category), e.Facts.Pass.ID), l.Why), " · ")
	}
	return l, e, true
}

// laneName is what a lane is called here; of one that is no more, its id.
func (c *Console) laneName(id string) string {
	for _, v := range c.deps.Lanes.Views() {
		if v.Lane == id && v.Name != "" {
			return v.Name
		}
	}
	return id
}

// deviceName says in words what a device serves: "east-in scanner".
func (c *Console) deviceName(p *text.Printer, serves string) string {
	of, part, _ := strings.Cut(serves, " ")
	// Readers beyond the first have a number; of "fire input" the first word says it.
	part, number, _ := strings.Cut(part, " ")
	if _, err := strconv.Atoi(number); err != nil {
		number = ""
	}
	name := word(p, "part.", part)
	if of != "gate" {
		name = c.laneName(of) + " " + name
	}
	return strings.TrimSpace(name + " " + number)
}
