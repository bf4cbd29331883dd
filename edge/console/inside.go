package console

import (
	"cmp"
	"net/http"
	"slices"
	"strings"
	"time"

	"gatehouse/edge"
	"gatehouse/edge/text"
)

// insideRow is somebody who is believed inside.
type insideRow struct {
	ID              edge.PassID
	Name, Unit      string
	Category, Since string
	Care            []string
	Old, Peer       bool
}

// insideBuilding are those of one building, those who need care first.
type insideBuilding struct {
	Name string
	List []insideRow
}

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
	if c.deps.Inside != nil {
		list, err = c.deps.Inside(r.Context())
	}
	if err != nil {
		c.deps.Log.Warn("cannot read who is inside", "err", err)
		data["Message"], code = c.say(r, "console.failed"), http.StatusServiceUnavailable
	}
	data["Buildings"], data["Count"], data["Care"] = c.buildings(p, list), len(list), careCount(list)
	data["Now"] = p.Moment(c.now())
	data["Reasons"] = resetReasons
	w.WriteHeader(code)
	c.render(w, r, "inside.html", data)
}

func careCount(list []edge.Inside) int {
	n := 0
	for _, x := range list {
		if len(x.Pass.Care) > 0 {
			n++
		}
	}
	return n
}

func (c *Console) buildings(p *text.Printer, list []edge.Inside) []insideBuilding {
	slices.SortFunc(list, func(a, b edge.Inside) int {
		return cmp.Or(cmp.Compare(a.Pass.Building, b.Pass.Building), cmp.Compare(min(1, len(b.Pass.Care)), min(1, len(a.Pass.Care))),
			cmp.Compare(a.Pass.Unit, b.Pass.Unit), cmp.Compare(a.Pass.ID, b.Pass.ID))
	})
	var out []insideBuilding
	for _, x := range list {
		if len(out) == 0 || out[len(out)-1].Name != x.Pass.Building {
			out = append(out, insideBuilding{Name: x.Pass.Building})
		}
		since := c.at(x.Since)
		row := insideRow{ID: x.Pass.ID, Name: x.Pass.Name, Unit: x.Pass.Unit, Category: word(p, "category.", x.Pass.Category), Peer: x.Peer,
			Since: p.Lately(since, c.now()), Old: c.now().Sub(since) > oldPosition}
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
