package console

import (
	"cmp"
	"context"
	"errors"
	"net/http"
	"slices"
	"strconv"
	"strings"
	"unicode"
	"unicode/utf8"

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
	Bring                      []bring
	Changes                    []statusButton
	Typed                      *passForm // what was typed about it and not carried out
	Entries                    []line    // the last ones that concern it
	Why                        string    // the newest of them stopped the person: in a sentence
}

// bring are the buttons that bring somebody to a lane, one for each way to check who
// they are.
type bring struct {
	Name    string
	Buttons []button
}

// statusButton is a change of a pass that makes sense now.
type statusButton struct {
	Status       edge.PassStatus
	Label, Class string
}

// passForm is the form that changes a pass, as it was posted.
type passForm struct {
	Pass   edge.PassID
	Reason string
}

const (
	passEntries = 3  // of a pass on its page, of the last journalScan
	mostFound   = 20 // passes on one page
	fewFound    = 3  // passes that are shown with all that can be done
)

// cardForms are the forms in which a card's number is typed, or sent by a reader that
// poses as a keyboard, the likeliest first.
var cardForms = []string{"em-dec10", "em-hex", "uid", "w26", "w34", "qr"}

// passes finds passes by building, unit and part of the name, or by a card, and
// offers to bring one to a lane.
func (c *Console) passes(w http.ResponseWriter, r *http.Request) {
	c.showPasses(w, r, map[string]any{}, http.StatusOK, nil)
}

// showPasses shows what is looked for; typed is what a refused form held.
func (c *Console) showPasses(w http.ResponseWriter, r *http.Request, data map[string]any, code int, typed *passForm) {
	q := edge.PassQuery{Building: r.FormValue("building"), Unit: r.FormValue("unit"), Name: r.FormValue("name"), Limit: mostFound + 1}
	card := strings.TrimSpace(r.FormValue("card"))
	data["Query"], data["Card"], data["Lane"], data["Searched"], data["More"] = q, card, r.FormValue("lane"), false, 0
	fail := func(id string, status int) { data["Message"], code = c.say(r, id), status }
	switch asked := q.Building + q.Unit + q.Name + card; {
	case len(asked) > 200:
		fail("console.too_long", http.StatusBadRequest)
	case !utf8.ValidString(asked):
		fail("refused.text", http.StatusBadRequest)
	case strings.TrimSpace(asked) != "":
		passes, err := c.find(r.Context(), q, card)
		if err != nil {
			c.deps.Log.Warn("cannot search the passes", "err", err)
			fail("console.failed", http.StatusInternalServerError)
			break
		}
		if len(passes) > mostFound {
			passes, data["More"] = passes[:mostFound], mostFound
		}
		var ids []edge.PassID
		for _, x := range passes {
			ids = append(ids, x.ID)
		}
		// Who looked at whom is in the journal before it is on the screen.
		if len(ids) > 0 && c.record(r.Context(), edge.KindAccess, actorOf(r), map[string]any{"page": "passes", "passes": ids}) != nil {
			fail("console.failed", http.StatusServiceUnavailable)
			break
		}
		c.collate(c.lang(r), passes)
		list := c.found(r, passes)
		for i := range list {
			if typed != nil && list[i].ID == typed.Pass {
				list[i].Typed = typed
			}
		}
		data["Searched"], data["Passes"], data["Few"] = true, list, len(list) <= fewFound
	}
	w.WriteHeader(code)
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
// whose numbers count as numbers, and name; who lives nowhere here comes last.
func (c *Console) collate(lang string, passes []edge.Pass) {
	by := collate.New(language.Make(lang), collate.Numeric, collate.IgnoreCase)
	slices.SortStableFunc(passes, func(a, b edge.Pass) int {
		if none := a.Building == ""; none != (b.Building == "") {
			if none {
				return 1
			}
			return -1
		}
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
		// A pass of which the time is not now serves as little as one that was withdrawn.
		if now := c.now().UnixMilli(); x.Status == edge.PassActive {
			switch {
			case x.Until != 0 && now >= x.Until:
				f.Status, f.StatusCode = p.T("status.expired"), "expired"
			case x.From > now:
				f.Status, f.StatusCode = p.T("status.early", "Time", p.Moment(c.at(x.From))), "early"
			}
		}
		for _, v := range c.deps.Lanes.Views() {
			if at := r.FormValue("lane"); at != "" && at != v.Lane {
				continue
			}
			b := bring{Name: cmp.Or(v.Name, v.Lane)}
			for _, id := range identities {
				b.Buttons = append(b.Buttons, button{Kind: edge.ActPresent, Lane: v.Lane, Identity: id, Label: p.T("identity." + id)})
			}
			f.Bring = append(f.Bring, b)
		}
		if x.Status == edge.PassActive {
			f.Changes = append(f.Changes, statusButton{edge.PassSuspended, p.T("console.suspend"), "deny"})
		}
		if x.Status != edge.PassLost {
			f.Changes = append(f.Changes, statusButton{edge.PassLost, p.T("console.report_lost"), "deny"})
		}
		if x.Status != edge.PassActive {
			f.Changes = append(f.Changes, statusButton{"", p.T("console.restore"), ""})
		}
		out = append(out, f)
	}
	if len(out) > 0 && has(personOf(r).Role, readJournal) {
		c.recent(r, out)
	}
	return out
}

// changePass suspends a pass, reports it lost or restores it, with a reason.
func (c *Console) changePass(w http.ResponseWriter, r *http.Request) {
	n, err := strconv.ParseInt(r.PostFormValue("pass"), 10, 64)
	status := edge.PassStatus(r.PostFormValue("status"))
	reason := strings.TrimSpace(r.PostFormValue("reason"))
	form := passForm{Pass: edge.PassID(n), Reason: reason}
	refuse := func(message string, code int) {
		c.showPasses(w, r, map[string]any{"Message": message}, code, &form)
	}
	switch {
	case err != nil || n < 1 || n > edge.MaxID || !r.PostForm.Has("status") || (status != "" && status != edge.PassSuspended && status != edge.PassLost):
		refuse(c.say(r, "console.failed"), http.StatusBadRequest)
		return
	case reason == "":
		refuse(c.say(r, "console.reason_needed"), http.StatusBadRequest)
		return
	case len(reason) > 200 || !utf8.ValidString(reason) || strings.ContainsFunc(reason, unicode.IsControl):
		refuse(c.say(r, "refused.text"), http.StatusBadRequest)
		return
	}
	switch err := c.deps.Passes.SetStatus(r.Context(), form.Pass, status, reason, actorOf(r)); {
	case err == nil:
		c.showPasses(w, r, map[string]any{"Done": c.say(r, "console.changed")}, http.StatusOK, nil)
	case errors.Is(err, edge.ErrUnknown):
		refuse(c.say(r, "console.nobody"), http.StatusNotFound)
	case errors.Is(err, edge.ErrForbidden):
		refuse(strings.TrimSpace(c.say(r, "console.forbidden")+" "+c.inWords(r, err)), http.StatusConflict)
	default:
		c.deps.Log.Warn("cannot change a pass", "pass", form.Pass, "err", err)
		refuse(c.say(r, "console.failed"), http.StatusServiceUnavailable)
	}
}

func (c *Console) laneView(name string) (edge.LaneView, bool) {
	for _, v := range c.deps.Lanes.Views() {
		if v.Lane == name {
			return v, true
		}
	}
	return edge.LaneView{}, false
}
