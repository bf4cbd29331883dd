package console

import (
	"bytes"
	"encoding/json"
	"errors"
	"net/http"
	"slices"
	"strconv"
	"strings"

	"gatehouse/edge"
	"gatehouse/edge/text"
)

// How much of the journal one page reads: enough to find something by its lane
// and kind, little enough for a Pi.
const (
	journalRows = 50
	journalScan = 2000
)

// filter is what the journal's page shows.
type filter struct {
	Lane, Kind, Outcome string
	Pass                edge.PassID
	Before              uint64 // only entries below it; 0 = from the newest
}

func (f filter) admits(e *edge.Entry) bool {
	return (f.Lane == "" || e.Lane == f.Lane) && (f.Kind == "" || string(e.Kind) == f.Kind) && (f.Outcome == "" || string(e.Outcome) == f.Outcome) &&
		(f.Pass == 0 || (e.Facts != nil && e.Facts.Pass != nil && e.Facts.Pass.ID == f.Pass))
}

// journal shows entries, newest first, by lane, kind, outcome or pass.
func (c *Console) journal(w http.ResponseWriter, r *http.Request) {
	q := r.URL.Query()
	f := filter{Lane: q.Get("lane"), Kind: q.Get("kind"), Outcome: q.Get("outcome")}
	var err1, err2 error
	if s := strings.TrimSpace(q.Get("pass")); s != "" {
		var n int64
		n, err1 = strconv.ParseInt(s, 10, 64)
		f.Pass = edge.PassID(n)
	}
	if s := q.Get("before"); s != "" {
		f.Before, err2 = strconv.ParseUint(s, 10, 63)
	}
	data := map[string]any{"Filter": f, "Lanes": c.deps.Lanes.Views(),
		"Kinds":    []edge.Kind{edge.KindDecision, edge.KindPassage, edge.KindAction, edge.KindFire, edge.KindDevice, edge.KindPolicy, edge.KindRegistry, edge.KindAccess, edge.KindSession, edge.KindAccount, edge.KindStart},
		"Outcomes": []edge.Outcome{edge.Admit, edge.Remeasure, edge.Refer, edge.Deny}}
	if errors.Join(err1, err2) != nil {
		data["Message"] = c.say(r, "console.not_a_number")
		w.WriteHeader(http.StatusBadRequest)
		c.render(w, r, "journal.html", data)
		return
	}
	if f.Pass != 0 && c.record(r.Context(), edge.KindAccess, actorOf(r), map[string]any{"page": "journal", "passes": []edge.PassID{f.Pass}}) != nil {
		data["Message"] = c.say(r, "console.failed")
		w.WriteHeader(http.StatusServiceUnavailable)
		c.render(w, r, "journal.html", data)
		return
	}
	p := c.deps.Text.For(c.lang(r))
	end := c.deps.Journal.Size()
	if f.Before > 0 {
		end = min(end, f.Before)
	}
	stop := end - min(end, journalScan)
	var lines []line
	for end > stop && len(lines) < journalRows {
		from := max(stop, end-min(end, 200))
		stored, err := c.deps.Journal.Read(r.Context(), from, int(end-from), 4<<20)
		if err != nil {
			c.deps.Log.Warn("cannot read the journal", "err", err)
			data["Message"] = c.say(r, "console.failed")
			break
		}
		for _, s := range slices.Backward(stored) {
			if s.Seq >= end || len(lines) == journalRows {
				continue
			}
			if l, e, ok := c.line(p, s); ok && f.admits(e) {
				lines = append(lines, l)
			}
		}
		end = from
	}
	next := end
	if len(lines) == journalRows {
		next = lines[len(lines)-1].Seq
	}
	older := q
	older.Set("before", strconv.FormatUint(next, 10))
	data["Entries"] = lines
	if next > 0 {
		data["Older"] = "/journal?" + older.Encode()
	}
	c.render(w, r, "journal.html", data)
}

// fact is one fact that the decision saw.
type fact struct{ Name, Value string }

// entry shows one entry: what was decided, by which rules, on which facts, and
// its exact bytes.
func (c *Console) entry(w http.ResponseWriter, r *http.Request) {
	seq, err := strconv.ParseUint(r.PathValue("seq"), 10, 63)
	if err != nil {
		http.NotFound(w, r)
		return
	}
	data := map[string]any{"Seq": seq}
	stored, err := c.deps.Journal.Get(r.Context(), seq)
	switch {
	case errors.Is(err, edge.ErrUnknown):
		http.NotFound(w, r)
		return
	case errors.Is(err, edge.ErrPurged) || (err == nil && stored.Line == nil):
		data["Message"] = c.say(r, "console.purged")
		c.render(w, r, "entry.html", data)
		return
	case err != nil:
		c.deps.Log.Warn("cannot read an entry", "seq", seq, "err", err)
		http.Error(w, c.say(r, "console.failed"), http.StatusInternalServerError)
		return
	}
	p := c.deps.Text.For(c.lang(r))
	l, e, ok := c.line(p, stored)
	if !ok {
		http.Error(w, c.say(r, "console.failed"), http.StatusInternalServerError)
		return
	}
	if e.Facts != nil && e.Facts.Pass != nil {
		if c.record(r.Context(), edge.KindAccess, actorOf(r), map[string]any{"page": "entry", "entry": seq, "passes": []edge.PassID{e.Facts.Pass.ID}}) != nil {
			http.Error(w, c.say(r, "console.failed"), http.StatusServiceUnavailable)
			return
		}
	}
	l.Time = p.Instant(c.at(e.Stamp.Time))
	data["Line"], data["Entry"], data["Raw"] = l, e, string(stored.Line)
	if e.Of >= 0 {
		data["Of"] = e.Of
	}
	if e.Facts != nil {
		data["Facts"] = facts(p, e.Facts)
	}
	if c.deps.Explain != nil && e.Kind == edge.KindDecision && e.Facts != nil {
		if x, ok := c.deps.Explain(r.Context(), e, p); ok {
			data["Why"] = x
		}
	}
	if v := c.proof(r, seq); v != nil {
		data["Proof"] = v
	}
	if len(e.Data) > 0 {
		data["Data"] = string(e.Data)
	}
	c.render(w, r, "entry.html", data)
}

// facts lists the facts, in words where there are some and else under the names that
// policies use.
func facts(p *text.Printer, f *edge.Facts) []fact {
	b, err := json.Marshal(f)
	if err != nil {
		return nil
	}
	dec := json.NewDecoder(bytes.NewReader(b))
	dec.UseNumber()
	var v any
	if dec.Decode(&v) != nil {
		return nil
	}
	var out []fact
	var walk func(name string, v any)
	walk = func(name string, v any) {
		m, ok := v.(map[string]any)
		if !ok {
			text, _ := json.Marshal(v)
			out = append(out, fact{word(p, "fact.", name), strings.Trim(string(text), `"`)})
			return
		}
		for k, v := range m {
			walk(strings.TrimPrefix(name+"."+k, "."), v)
		}
	}
	walk("", v)
	slices.SortFunc(out, func(a, b fact) int { return strings.Compare(a.Name, b.Name) })
	return out
}
