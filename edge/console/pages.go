package console

import (
	"errors"
	"net/http"
	"strconv"
	"strings"
	"time"

	"gatehouse/edge"
)

// found is a pass on the search page.
type found struct {
	ID                         edge.PassID
	Name, Door, Category       string
	Status, StatusCode, Reason string
	Until                      string
	Buttons                    []button // bring to a lane
}

// passes finds passes by building, unit and part of the name, and offers to
// bring one to a lane.
func (c *Console) passes(w http.ResponseWriter, r *http.Request) { c.showPasses(w, r, "") }

func (c *Console) showPasses(w http.ResponseWriter, r *http.Request, message string) {
	q := edge.PassQuery{Building: r.FormValue("building"), Unit: r.FormValue("unit"), Name: r.FormValue("name"), Limit: 20}
	data := map[string]any{"Query": q, "Message": message, "Lane": r.FormValue("lane"), "Searched": false}
	if len(q.Building)+len(q.Unit)+len(q.Name) > 200 {
		data["Message"] = c.say(r, "console.too_long")
		w.WriteHeader(http.StatusBadRequest)
	} else if strings.TrimSpace(q.Building+q.Unit+q.Name) != "" {
		passes, err := c.deps.Passes.Find(r.Context(), q)
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
		data["Searched"], data["Passes"] = true, c.found(r, passes)
	}
	c.render(w, r, "passes.html", data)
}

func (c *Console) found(r *http.Request, passes []edge.Pass) []found {
	p := c.deps.Text.For(c.lang(r))
	var out []found
	for _, x := range passes {
		f := found{ID: x.ID, Name: x.Name, Door: strings.Join(clean(x.Building, x.Unit), " "), Category: word(p, "category.", x.Category),
			Status: word(p, "status.", string(x.Status)), StatusCode: string(x.Status), Reason: x.Reason}
		if x.Until != 0 {
			f.Until = time.UnixMilli(x.Until).In(c.cfg.Location).Format("2006-01-02 15:04")
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

// devices shows the health of every device and of the way to the server.
func (c *Console) devices(w http.ResponseWriter, r *http.Request) {
	p := c.deps.Text.For(c.lang(r))
	type row struct {
		edge.DeviceHealth
		Name     string
		Is, Read string
		Bad      bool
	}
	var rows []row
	if c.deps.Devices != nil {
		for _, d := range c.deps.Devices() {
			x := row{DeviceHealth: d, Name: c.deviceName(p, d.Serves), Is: p.T("device." + string(d.State)), Bad: faulty(d.State)}
			if !d.LastRead.IsZero() {
				x.Read = d.LastRead.In(c.cfg.Location).Format("01-02 15:04:05")
			}
			rows = append(rows, x)
		}
	}
	data := map[string]any{"Devices": rows, "Status": c.status(p)}
	if c.deps.Sync != nil {
		s := c.deps.Sync()
		data["Sync"] = s
		if !s.LastReceipt.IsZero() {
			data["Receipt"] = s.LastReceipt.In(c.cfg.Location).Format("01-02 15:04:05")
		}
	}
	c.render(w, r, "devices.html", data)
}

// Rules are the policy in force, for everybody on the gate's network.
type Rules struct {
	Title, Hash string
	List        []Rule
}

// Rule is one of them: what it orders, where, on whose word, until when.
type Rule struct {
	ID, Title, Kind           string // Kind is "protect" for what may never be refused
	Outcome                   edge.Outcome
	Area, Category, Direction string // empty = all
	Slot                      string // daily hours, empty = always
	By, Basis                 string // who ordered it, and on what ground
	Until                     time.Time
}

// rules shows what is in force in plain words, protections first.
func (c *Console) rules(w http.ResponseWriter, r *http.Request) {
	p := c.deps.Text.For(c.lang(r))
	type row struct {
		Rule
		What, Where, End string
		Protect          bool
	}
	var in Rules
	if c.deps.Rules != nil {
		in = c.deps.Rules()
	}
	var protect, others []row
	for _, x := range in.List {
		v := row{Rule: x, Protect: x.Kind == "protect", What: p.T("outcome." + string(x.Outcome))}
		// The sentence of the reason, where there is one; else the policy's own title.
		if p.Has("reason." + x.ID) {
			v.Title = p.T("reason." + x.ID)
		}
		direction := ""
		if x.Direction != "" {
			direction = word(p, "direction.", x.Direction)
		}
		category := ""
		if x.Category != "" {
			category = word(p, "category.", x.Category)
		}
		v.Where = strings.Join(clean(x.Area, direction, category, x.Slot), " · ")
		if !x.Until.IsZero() {
			v.End = x.Until.In(c.cfg.Location).Format("2006-01-02 15:04")
		}
		if v.Protect {
			protect = append(protect, v)
		} else {
			others = append(others, v)
		}
	}
	c.render(w, r, "rules.html", map[string]any{"Rules": in, "List": append(protect, others...)})
}

func (c *Console) laneView(name string) (edge.LaneView, bool) {
	for _, v := range c.deps.Lanes.Views() {
		if v.Lane == name {
			return v, true
		}
	}
	return edge.LaneView{}, false
}
