package console

import (
	"bytes"
	"cmp"
	"net/http"
	"slices"
	"strings"
	"time"

	"golang.org/x/text/collate"
	"golang.org/x/text/language"

	"gatehouse/edge"
	"gatehouse/edge/text"
)

// insideRow is somebody who is believed inside, or was when all positions became
// unknown.
type insideRow struct {
	ID                                  edge.PassID
	Name, Unit                          string
	Category, Since, Age, Unknown, Peer string
	Care                                []string
	Old                                 bool
}

// insideBuilding are those of one building, those who need care first.
type insideBuilding struct {
	Name string
	List []insideRow
}

// insideCount is how many there are of each kind.
type insideCount struct{ All, Unknown, Care int }

// oldPosition is when a position is so old that the page says so.
const oldPosition = 24 * time.Hour

// resetReasons are why nobody is believed anywhere any more: codes, as the journal
// keeps no free text.
var resetReasons = []string{"drill", "evacuated", "wrong"}

// inside is the list for the fire brigade: who is believed inside, by building.
func (c *Console) inside(w http.ResponseWriter, r *http.Request) {
	c.showInside(w, r, map[string]any{}, http.StatusOK)
}

func (c *Console) showInside(w http.ResponseWriter, r *http.Request, data map[string]any, code int) {
	p := c.deps.Text.For(c.lang(r))
	var list []edge.Inside
	var err error
	switch {
	case c.viewed(r, loggedOf(r).token, seeInside) != nil:
		// The answer to a form shows the same list as the page, and is as good as the page
		// to look at people.
		data["Message"], data["Unseen"], code = p.T("inside.unseen"), true, http.StatusServiceUnavailable
	case c.deps.Inside != nil:
		if list, err = c.deps.Inside(r.Context()); err != nil {
			c.deps.Log.Warn("cannot read who is inside", "err", err)
			data["Message"], data["Unseen"], code = p.T("console.failed"), true, http.StatusServiceUnavailable
		}
	}
	var n insideCount
	for _, x := range list {
		n.All++
		if x.Unknown != 0 {
			n.Unknown++
			data["Reset"] = p.Lately(c.at(x.Unknown), c.now()) // the same for all
		}
		n.Care += min(1, len(x.Pass.Care))
	}
	now := c.now()
	data["Buildings"], data["Count"], data["Now"], data["Reasons"] = c.buildings(p, list), n, p.Moment(now), resetReasons
	data["Unsure"] = c.deps.Clock != nil && !c.deps.Clock.Now().Clock.Trusted()
	if c.deps.Sync != nil {
		if s := c.deps.Sync(); !s.Connected {
			data["Cut"] = p.T("inside.never_heard")
			if !s.LastReceipt.IsZero() {
				data["Cut"] = p.T("inside.cut", "Since", p.Lately(c.gateTime(s.LastReceipt), now))
			}
		}
	}
	w.WriteHeader(code)
	c.render(w, r, "inside.html", data)
}

// buildings puts people where they are looked for: by building and door as a reader
// of the language sorts them, in each building first those who need care.
func (c *Console) buildings(p *text.Printer, list []edge.Inside) []insideBuilding {
	by := collate.New(language.Make(p.Language()), collate.Numeric, collate.IgnoreCase)
	type keyed struct {
		edge.Inside
		building, unit []byte
	}
	rows := make([]keyed, len(list))
	var buf collate.Buffer
	for i, x := range list {
		rows[i] = keyed{x, bytes.Clone(by.KeyFromString(&buf, x.Pass.Building)), bytes.Clone(by.KeyFromString(&buf, x.Pass.Unit))}
		buf.Reset()
	}
	slices.SortFunc(rows, func(a, b keyed) int {
		return cmp.Or(bytes.Compare(a.building, b.building), cmp.Compare(a.Pass.Building, b.Pass.Building), cmp.Compare(min(1, len(b.Pass.Care)), min(1, len(a.Pass.Care))),
			bytes.Compare(a.unit, b.unit), cmp.Compare(a.Pass.ID, b.Pass.ID))
	})
	now := c.now()
	var out []insideBuilding
	for _, x := range rows {
		if len(out) == 0 || out[len(out)-1].Name != x.Pass.Building {
			out = append(out, insideBuilding{Name: x.Pass.Building})
		}
		since := c.at(x.Since)
		row := insideRow{ID: x.Pass.ID, Name: x.Pass.Name, Unit: x.Pass.Unit, Category: word(p, "category.", x.Pass.Category),
			Since: p.Lately(since, now), Age: p.Ago(now.Sub(since)), Old: now.Sub(since) > oldPosition}
		if x.Unknown != 0 {
			row.Unknown = p.T("inside.unknown", "Since", p.Lately(c.at(x.Unknown), now))
		}
		if x.Peer {
			row.Peer = p.T("inside.peer")
		}
		for _, f := range x.Pass.Care {
			row.Care = append(row.Care, word(p, "care.", f))
		}
		b := &out[len(out)-1]
		b.List = append(b.List, row)
	}
	return out
}

// resetAll makes all positions unknown: two persons, in an entry that names
// both.
func (c *Console) resetAll(w http.ResponseWriter, r *http.Request) {
	why := r.PostFormValue("why")
	data := map[string]any{"Second": typed(r, "second"), "Why": why}
	if !slices.Contains(resetReasons, why) || c.deps.ResetPositions == nil {
		data["Message"] = c.say(r, "console.reason_needed")
		c.showInside(w, r, data, http.StatusUnprocessableEntity)
		return
	}
	second, err := c.secondPerson(r)
	if err == nil {
		err = c.deps.ResetPositions(r.Context(), actorOf(r), second.Actor(), why)
	}
	if err != nil {
		msg, code := c.why(r, err)
		data["Message"] = strings.TrimSpace(msg)
		c.showInside(w, r, data, code)
		return
	}
	c.showInside(w, r, map[string]any{"Done": c.say(r, "console.changed")}, http.StatusOK)
}
