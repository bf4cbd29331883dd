package console

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"net/url"
	"slices"
	"strconv"
	"strings"
	"time"

	"gatehouse/edge"
)

// How much of the journal one page reads: enough to find something by its lane
// and kind, little enough for a Pi.
const (
	journalRows = 50
	journalScan = 2000
)

// filter is what the journal's page shows.
type filter struct {
	Lane, Kind, Outcome, Actor string
	Pass                       edge.PassID
	From, To                   string // as typed
	Reference                  string
	Before                     uint64 // only entries below it; 0 = from the newest

	from, to int64 // UTC ms: from and before; 0 = open
}

func (f filter) admits(e *edge.Entry) bool {
	return (f.Lane == "" || e.Lane == f.Lane) && (f.Kind == "" || string(e.Kind) == f.Kind) && (f.Outcome == "" || string(e.Outcome) == f.Outcome) &&
		(f.Actor == "" || byActor(f.Actor, e.Actor)) && (f.from == 0 || e.Stamp.Time >= f.from) && (f.to == 0 || e.Stamp.Time < f.to) &&
		(f.Pass == 0 || (e.Facts != nil && e.Facts.Pass != nil && e.Facts.Pass.ID == f.Pass))
}

// narrows says whether anything is asked for but the newest entries.
func (f filter) narrows() bool { f.Before, f.Reference = 0, ""; return f != filter{} }

// byActor says whether an actor is who was asked for: by number, by role, or as the
// journal writes it.
func byActor(asked, actor string) bool {
	role, number, _ := strings.Cut(actor, ":")
	return asked == actor || asked == role || (number != "" && asked == number)
}

// typedTime reads what a browser's field for a date and a time sends. A time to the
// minute, or a day, that is the last one is meant as a whole.
func (c *Console) typedTime(s string, last bool) (int64, error) {
	for _, x := range []struct {
		layout string
		whole  func(time.Time) time.Time
	}{
		{"2006-01-02T15:04", func(t time.Time) time.Time { return t.Add(time.Minute) }},
		{"2006-01-02T15:04:05", func(t time.Time) time.Time { return t.Add(time.Second) }},
		{time.DateOnly, func(t time.Time) time.Time { return t.AddDate(0, 0, 1) }},
	} {
		if t, err := time.ParseInLocation(x.layout, strings.TrimSpace(s), c.cfg.Location); err == nil {
			if last {
				t = x.whole(t)
			}
			return t.UnixMilli(), nil
		}
	}
	return 0, fmt.Errorf("%q is not a time", s)
}

// filterOf reads what was asked for; an error is the id of what to tell.
func (c *Console) filterOf(q url.Values) (f filter, wrong string) {
	f = filter{Lane: q.Get("lane"), Kind: q.Get("kind"), Outcome: q.Get("outcome"), Actor: strings.TrimSpace(q.Get("actor")), From: q.Get("from"), To: q.Get("to"), Reference: q.Get("ref")}
	var errs [4]error
	if s := strings.TrimSpace(q.Get("pass")); s != "" {
		var n int64
		n, errs[0] = strconv.ParseInt(s, 10, 64)
		f.Pass = edge.PassID(n)
	}
	if s := q.Get("before"); s != "" {
		f.Before, errs[1] = strconv.ParseUint(s, 10, 63)
	}
	if f.From != "" {
		f.from, errs[2] = c.typedTime(f.From, false)
	}
	if f.To != "" {
		f.to, errs[3] = c.typedTime(f.To, true)
	}
	switch {
	case errs[0] != nil || errs[1] != nil:
		wrong = "console.not_a_number"
	case errs[2] != nil || errs[3] != nil:
		wrong = "journal.not_a_time"
	case f.from != 0 && f.to != 0 && f.from >= f.to:
		wrong = "journal.backwards"
	case len(f.Actor) > 60:
		wrong = "console.too_long"
	}
	return f, wrong
}

// journalKinds are what the journal can be asked for.
var journalKinds = []edge.Kind{edge.KindDecision, edge.KindPassage, edge.KindAction, edge.KindAlert, edge.KindFire, edge.KindDevice, edge.KindTest, edge.KindClock, edge.KindPolicy, edge.KindRegistry, edge.KindCommand,
	edge.KindAccess, edge.KindSession, edge.KindAccount, edge.KindStart, edge.KindStop, edge.KindAbandoned, edge.KindEpoch, edge.KindCarried, edge.KindSnapshot, edge.KindPurge, edge.KindDecommission}

// journal shows entries, newest first, by lane, kind, outcome, actor, time or pass,
// and leads to the one that a person's reference names.
func (c *Console) journal(w http.ResponseWriter, r *http.Request) {
	q, p := r.URL.Query(), c.deps.Text.For(c.lang(r))
	f, wrong := c.filterOf(q)
	data := map[string]any{"Filter": f, "Filtered": f.narrows(), "Lanes": c.deps.Lanes.Views(), "Kinds": journalKinds, "Outcomes": []edge.Outcome{edge.Admit, edge.Remeasure, edge.Refer, edge.Deny}}
	refuse := func(id string, code int) {
		data["Message"] = p.T(id)
		w.WriteHeader(code)
		c.render(w, r, "journal.html", data)
	}
	if strings.TrimSpace(f.Reference) != "" {
		seq, err := edge.ParseReference(c.origin(), f.Reference)
		if err != nil || seq >= c.deps.Journal.Size() {
			refuse("journal.no_reference", http.StatusNotFound)
			return
		}
		http.Redirect(w, r, fmt.Sprintf("/journal/%d", seq), http.StatusSeeOther)
		return
	}
	if wrong != "" {
		refuse(wrong, http.StatusBadRequest)
		return
	}
	if f.Pass != 0 && c.record(r.Context(), edge.KindAccess, actorOf(r), map[string]any{"page": "journal", "passes": []edge.PassID{f.Pass}}) != nil {
		refuse("console.failed", http.StatusServiceUnavailable)
		return
	}
	begin, end := uint64(0), c.deps.Journal.Size()
	var errs [2]error
	if f.to != 0 {
		end, errs[0] = c.since(r.Context(), f.to)
	}
	if f.from != 0 {
		begin, errs[1] = c.since(r.Context(), f.from)
	}
	if f.Before > 0 {
		end = min(end, f.Before)
	}
	err := errors.Join(errs[:]...)
	stop := max(begin, end-min(end, journalScan))
	var lines []line
	last := c.now()
	for err == nil && end > stop && len(lines) < journalRows {
		from := max(stop, end-min(end, 200))
		var stored []edge.Stored
		if stored, err = c.deps.Journal.Read(r.Context(), from, int(end-from), 4<<20); err != nil {
			break
		}
		for _, s := range slices.Backward(stored) {
			if s.Seq >= end || len(lines) == journalRows {
				continue
			}
			if l, e, ok := c.line(p, s); ok {
				last = c.at(e.Stamp.Time)
				if f.admits(e) {
					lines = append(lines, l)
				}
			}
		}
		end = from
	}
	if err != nil {
		c.deps.Log.Warn("cannot read the journal", "err", err)
		data["Message"] = p.T("console.failed")
	}
	next := end
	if len(lines) == journalRows {
		next = lines[len(lines)-1].Seq
	}
	data["Entries"] = lines
	if next > begin && err == nil {
		q.Set("before", strconv.FormatUint(next, 10))
		data["Older"] = "/journal?" + q.Encode()
		data["Searched"] = p.T("journal.searched", "Time", p.Lately(last, c.now()))
	}
	c.render(w, r, "journal.html", data)
}

// since finds the first entry from a time on. Entries stand in the order in which
// they were written; where the clock has leapt back between them, either side of the
// leap may be found.
func (c *Console) since(ctx context.Context, ms int64) (uint64, error) {
	low, high := uint64(0), c.deps.Journal.Size()
	for low < high {
		mid := low + (high-low)/2
		stored, err := c.deps.Journal.Read(ctx, mid, 1, 1)
		if err != nil {
			return 0, err
		}
		if len(stored) == 0 || stored[0].Seq >= high {
			high = mid // the content of all from here is gone
			continue
		}
		e, err := edge.DecodeEntry(stored[0].Line)
		switch {
		case err != nil:
			low = stored[0].Seq + 1 // journal verify is who tells of it
		case e.Stamp.Time >= ms:
			high = mid
		default:
			low = stored[0].Seq + 1
		}
	}
	return low, nil
}

// origin is the log's, which references go by.
func (c *Console) origin() string {
	if c.deps.Origin == nil {
		return c.cfg.Gate
	}
	return c.deps.Origin()
}

// reference is what a person is told to ask by; empty without an entry.
func (c *Console) reference(seq int64) string {
	if seq < 0 {
		return ""
	}
	return edge.Reference(c.origin(), uint64(seq))
}

// referenceOf is a person's at a lane who is referred or denied.
func (c *Console) referenceOf(v edge.PresentationView) string {
	if v.Outcome != edge.Refer && v.Outcome != edge.Deny {
		return ""
	}
	return c.reference(v.Seq)
}

// fact is one fact that the decision saw, or one thing that an entry holds.
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
	data["Lane"], data["Actor"], data["Reference"] = c.laneName(e.Lane), actorInWords(p, e.Actor), c.reference(int64(seq))
	if e.Of >= 0 {
		data["Of"] = e.Of
	}
	if e.Facts != nil {
		data["Facts"] = factsInWords(p, e.Facts)
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
		data["Data"] = c.dataInWords(p, e)
	}
	c.render(w, r, "entry.html", data)
}
