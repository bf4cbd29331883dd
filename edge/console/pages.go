package console

import (
	"cmp"
	"context"
	"errors"
	"net/http"
	"slices"
	"strconv"
	"strings"

	"golang.org/x/text/collate"
	"golang.org/x/text/language"

	"gatehouse/edge"
)

// found is a pass on the search page.
type found struct {
	ID                         edge.PassID
	Name, Door, Category       string
	Status, StatusCode, Reason string
	Until                      string
	Buttons                    []button // bring to a lane
	Entries                    []line   // the last ones that concern it
	Why                        string   // the newest of them stopped the person: in a sentence
}

// passEntries is how many entries of a pass its page shows, of the last journalScan.
const passEntries = 3

// cardForms are the forms in which a card's number is typed, or sent by a reader that
// poses as a keyboard, the likeliest first.
var cardForms = []string{"em-dec10", "em-hex", "uid", "w26", "w34", "qr"}

// passes finds passes by building, unit and part of the name, or by a card, and
// offers to bring one to a lane.
func (c *Console) passes(w http.ResponseWriter, r *http.Request) { c.showPasses(w, r, "") }

func (c *Console) showPasses(w http.ResponseWriter, r *http.Request, message string) {
	q := edge.PassQuery{Building: r.FormValue("building"), Unit: r.FormValue("unit"), Name: r.FormValue("name"), Limit: 20}
	card := strings.TrimSpace(r.FormValue("card"))
	data := map[string]any{"Query": q, "Message": message, "Lane": r.FormValue("lane"), "Searched": false}
	if len(q.Building)+len(q.Unit)+len(q.Name)+len(card) > 200 {
		data["Message"] = c.say(r, "console.too_long")
		w.WriteHeader(http.StatusBadRequest)
	} else if strings.TrimSpace(q.Building+q.Unit+q.Name+card) != "" {
		passes, err := c.find(r.Context(), q, card)
		if err != nil {
			c.deps.Log.Warn("cannot search the passes", "err", err)
			data["Message"] = c.say(r, "console.failed")
			w.WriteHeader(http.StatusInternalServerError)
		}
		var ids []edge.PassID
		for _, x := range passes {
			ids = append(ids, x.ID)
		}
		// Who looked at whom is in the journal before it is on the screen.
		if len(ids) > 0 && c.record(r.Context(), edge.KindAccess, actorOf(r), map[string]any{"page": "passes", "passes": ids}) != nil {
			data["Message"], passes = c.say(r, "console.failed"), nil
			w.WriteHeader(http.StatusServiceUnavailable)
		}
		c.collate(c.lang(r), passes)
		data["Searched"], data["Passes"] = true, c.found(r, passes)
	}
	c.render(w, r, "passes.html", data)
}

// find looks for passes by a card, where one is given, and else by the query.
func (c *Console) find(ctx context.Context, q edge.PassQuery, card string) ([]edge.Pass, error) {
	if card == "" {
		return c.deps.Passes.Find(ctx, q)
	}
	for _, form := range cardForms {
		cred, err := edge.ParseCredential(card, form)
		if err != nil {
			continue
		}
		if passes, err := c.deps.Passes.Find(ctx, edge.PassQuery{Credential: cred, Limit: q.Limit}); len(passes) > 0 || err != nil {
			return passes, err
		}
	}
	return nil, nil
}

// collate sorts passes as a reader of the language expects: by building and unit,
// whose numbers count as numbers, and name.
func (c *Console) collate(lang string, passes []edge.Pass) {
	by := collate.New(language.Make(lang), collate.Numeric, collate.IgnoreCase)
	slices.SortStableFunc(passes, func(a, b edge.Pass) int {
		return cmp.Or(by.CompareString(a.Building, b.Building), by.CompareString(a.Unit, b.Unit), by.CompareString(a.Name, b.Name))
	})
}

// recent adds to each pass its last entries, and why the newest stopped the person.
func (c *Console) recent(r *http.Request, passes []found) {
	p := c.deps.Text.For(c.lang(r))
	at := map[edge.PassID]*found{}
	for i := range passes {
		at[passes[i].ID] = &passes[i]
	}
	size := c.deps.Journal.Size()
	stored, err := c.deps.Journal.Read(r.Context(), size-min(size, journalScan), journalScan, 4<<20)
	if err != nil {
		c.deps.Log.Warn("cannot read the journal", "err", err)
		return
	}
	for _, s := range slices.Backward(stored) {
		l, e, ok := c.line(p, s)
		if !ok || e.Facts == nil || e.Facts.Pass == nil {
			continue
		}
		f := at[e.Facts.Pass.ID]
		if f == nil || len(f.Entries) == passEntries {
			continue
		}
		if len(f.Entries) == 0 && e.Outcome != edge.Admit && e.Kind == edge.KindDecision && c.deps.Explain != nil {
			if x, ok := c.deps.Explain(r.Context(), e, p); ok {
				f.Why = x.Sentence
			}
		}
		f.Entries = append(f.Entries, l)
	}
}

func (c *Console) found(r *http.Request, passes []edge.Pass) []found {
	p := c.deps.Text.For(c.lang(r))
	var out []found
	for _, x := range passes {
		f := found{ID: x.ID, Name: x.Name, Door: strings.Join(clean(x.Building, x.Unit), " "), Category: word(p, "category.", x.Category),
			Status: word(p, "status.", string(x.Status)), StatusCode: string(x.Status), Reason: x.Reason}
		if x.Until != 0 {
			f.Until = p.Moment(c.at(x.Until))
		}
		for _, v := range c.deps.Lanes.Views() {
			if at := r.FormValue("lane"); at != "" && at != v.Lane {
				continue
			}
			for _, id := range identities {
				f.Buttons = append(f.Buttons, button{Kind: edge.ActPresent, Lane: v.Lane, Identity: id, Label: v.Name + " · " + p.T("identity."+id)})
			}
		}
		out = append(out, f)
	}
	if len(out) > 0 && has(personOf(r).Role, readJournal) {
		c.recent(r, out)
	}
	return out
}

// changePass suspends or restores a pass, with a reason.
func (c *Console) changePass(w http.ResponseWriter, r *http.Request) {
	id, err := strconv.ParseInt(r.PostFormValue("pass"), 10, 64)
	status := edge.PassStatus(r.PostFormValue("status"))
	reason := strings.TrimSpace(r.PostFormValue("reason"))
	message := "console.changed"
	switch {
	case err != nil || id < 1 || id > edge.MaxID || (status != "" && status != edge.PassSuspended && status != edge.PassLost):
		message = "console.failed"
		w.WriteHeader(http.StatusBadRequest)
	case status != "" && (reason == "" || len(reason) > 200 || strings.ContainsFunc(reason, func(r rune) bool { return r < ' ' || r == 0x7f })):
		message = "console.reason_needed"
		w.WriteHeader(http.StatusBadRequest)
	default:
		if err := c.deps.Passes.SetStatus(r.Context(), edge.PassID(id), status, reason, actorOf(r)); err != nil {
			c.deps.Log.Warn("cannot change a pass", "err", err)
			message = "console.failed"
			if errors.Is(err, edge.ErrUnknown) {
				w.WriteHeader(http.StatusNotFound)
			} else {
				w.WriteHeader(http.StatusUnprocessableEntity)
			}
		}
	}
	c.showPasses(w, r, c.say(r, message))
}

func (c *Console) laneView(name string) (edge.LaneView, bool) {
	for _, v := range c.deps.Lanes.Views() {
		if v.Lane == name {
			return v, true
		}
	}
	return edge.LaneView{}, false
}
