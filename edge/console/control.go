package console

import (
	"cmp"
	"context"
	"encoding/json"
	"maps"
	"net/http"
	"slices"
	"time"

	"gatehouse/device"
	"gatehouse/edge"
	"gatehouse/edge/text"
)

// How far back the control room looks: a day, and no more entries than a Pi reads
// in a second or two.
const (
	controlSpan = 24 * time.Hour
	controlScan = 20000
)

// span is how long something has been so, for one cause or several at once.
type span struct {
	causes map[string]bool
	since  time.Time
	total  time.Duration
}

func (s *span) set(cause string, on bool, at time.Time) {
	was := len(s.causes) > 0
	switch {
	case on && s.causes == nil:
		s.causes = map[string]bool{cause: true}
	case on:
		s.causes[cause] = true
	default:
		delete(s.causes, cause)
	}
	switch is := len(s.causes) > 0; {
	case is && !was:
		s.since = at
	case was && !is:
		s.total += at.Sub(s.since)
	}
}

// end ends every cause.
func (s *span) end(at time.Time) {
	for cause := range maps.Clone(s.causes) {
		s.set(cause, false, at)
	}
}

// laneFigures are a lane's day. What the beam has counted stands beside what was
// admitted: whoever passed without an admission is in one and not in the other.
type laneFigures struct {
	Name                                          string
	Admitted, Passed, NotPassed, Followed, Forced int
	HeldOpen, Interrupted                         int
	FaultHours, OpenHours                         string
	fault                                         span  // some device of the lane was away or faulty
	open                                          *span // of its passage: in a fire, or held open
}

// Beam is how many persons the beam has counted.
func (l *laneFigures) Beam() int { return l.Passed + l.Followed + l.Forced }

// Differ says whether the beam saw others than were admitted.
func (l *laneFigures) Differ() bool {
	return l.Followed+l.Forced > 0 || l.Passed+l.NotPassed+l.Interrupted < l.Admitted-1
}

// override is what one guard decided against the rules' own outcome, by reason.
type override struct {
	Actor, What, Reason string
	Count               int
}

// figures are the control room's.
type figures struct {
	From      string
	Lanes     []*laneFigures
	Overrides []override
	Untrusted string // hours in which nobody vouched for the clock
	Cut       bool   // there was more than controlScan
}

// control is the control room: the day's figures, for whoever answers for the gate.
func (c *Console) control(w http.ResponseWriter, r *http.Request) {
	p := c.deps.Text.For(c.lang(r))
	f, err := c.figures(r.Context(), p, c.now())
	data := map[string]any{"F": f, "Head": c.head(r)}
	if err != nil {
		c.deps.Log.Warn("cannot read the journal", "err", err)
		data["Message"] = c.say(r, "console.failed")
		w.WriteHeader(http.StatusServiceUnavailable)
	}
	c.render(w, r, "control.html", data)
}

func (c *Console) figures(ctx context.Context, p *text.Printer, now time.Time) (figures, error) {
	size := c.deps.Journal.Size()
	from := size - min(size, controlScan)
	begin := now.Add(-controlSpan)
	f := figures{From: p.Moment(begin.In(c.cfg.Location)), Cut: from > 0}
	lanes, passages := map[string]*laneFigures{}, map[string]*laneFigures{}
	for _, v := range c.deps.Lanes.Views() {
		l := &laneFigures{Name: c.laneName(v.Lane), open: &span{}}
		if first := passages[v.Passage]; v.Passage != "" && first != nil {
			l.open = first.open
		} else {
			passages[v.Passage] = l
		}
		lanes[v.Lane] = l
	}
	overrides := map[override]int{}
	var last time.Time
	var trusted bool
	var untrusted time.Duration
	for from < size {
		stored, err := c.deps.Journal.Read(ctx, from, 1000, 4<<20)
		if err != nil || len(stored) == 0 {
			return f, err
		}
		for _, s := range stored {
			from = s.Seq + 1
			if s.Line == nil {
				continue
			}
			e, err := edge.DecodeEntry(s.Line)
			if err != nil {
				continue // journal verify is who tells of it
			}
			at := time.UnixMilli(e.Stamp.Time)
			if at.Before(begin) {
				f.Cut = false
			}
			in, since := !at.Before(begin) && !at.After(now), latest(at, begin)
			if !last.IsZero() && !trusted && in && at.After(last) {
				untrusted += at.Sub(latest(last, begin))
			}
			last, trusted = at, e.Stamp.Clock.Trusted()
			d := dataOf(e)
			switch e.Kind {
			case edge.KindStart:
				// A device that works again after the start has no entry of it; one that does
				// not has a new one.
				for _, l := range lanes {
					l.fault.end(since)
					l.open.end(since)
				}
			case edge.KindFire:
				for _, l := range lanes {
					l.open.set("fire", d.On, since)
				}
			}
			l := lanes[e.Lane]
			if l == nil && e.Lane == "" {
				// What no turn has caused is the passage's: it counts at the first of its lanes.
				l = passages[d.Passage]
			}
			if l == nil {
				continue
			}
			l.follow(e, d, since)
			if !in {
				continue
			}
			l.count(e)
			if e.Kind == edge.KindAction && e.Outcome != "" && e.Actor != "system" {
				prefix := "answer."
				if e.Outcome == edge.Deny {
					prefix = "reason."
				}
				overrides[override{Actor: e.Actor, What: p.T("outcome." + string(e.Outcome)), Reason: word(p, prefix, string(e.Reason))}]++
			}
		}
	}
	if !last.IsZero() && !trusted && now.After(last) {
		untrusted += now.Sub(latest(last, begin))
	}
	f.Untrusted = p.Hours(untrusted)
	for _, name := range slices.Sorted(maps.Keys(lanes)) {
		l := lanes[name]
		l.fault.end(now)
		l.open.end(now)
		l.FaultHours, l.OpenHours = p.Hours(l.fault.total), p.Hours(l.open.total)
		f.Lanes = append(f.Lanes, l)
	}
	for o, n := range overrides {
		o.Actor, o.Count = actorInWords(p, o.Actor), n
		f.Overrides = append(f.Overrides, o)
	}
	slices.SortFunc(f.Overrides, func(a, b override) int {
		return cmp.Or(cmp.Compare(b.Count, a.Count), cmp.Compare(a.Actor, b.Actor), cmp.Compare(a.What, b.What), cmp.Compare(a.Reason, b.Reason))
	})
	return f, nil
}

func latest(a, b time.Time) time.Time {
	if a.After(b) {
		return a
	}
	return b
}

func (l *laneFigures) count(e *edge.Entry) {
	if e.Outcome == edge.Admit && (e.Kind == edge.KindDecision || e.Kind == edge.KindAction) {
		l.Admitted++
	}
	if e.Kind != edge.KindPassage {
		return
	}
	for result, n := range map[string]*int{edge.ResultPassed: &l.Passed, edge.ResultNotPassed: &l.NotPassed, edge.ResultTailgated: &l.Followed, edge.ResultForced: &l.Forced,
		edge.ResultHeldOpen: &l.HeldOpen, edge.ResultInterrupted: &l.Interrupted} {
		if e.Result == result {
			*n++
		}
	}
}

// entryData is what figures need of the data of entries.
type entryData struct {
	Device  string       `json:"device"`
	State   device.State `json:"state"`
	Passage string       `json:"passage"`
	On      bool         `json:"on"`
}

// dataOf reads it; of an entry with other data it is empty.
func dataOf(e *edge.Entry) (d entryData) {
	if len(e.Data) > 0 && json.Unmarshal(e.Data, &d) != nil {
		return entryData{}
	}
	return d
}

// follow follows what the journal says of the lane's devices and of its barrier.
func (l *laneFigures) follow(e *edge.Entry, d entryData, at time.Time) {
	switch {
	case e.Kind == edge.KindDevice && d.Device != "":
		l.fault.set(d.Device, faulty(d.State), at)
	case e.Kind != edge.KindPassage:
	case e.Result == edge.ResultHeldOpen:
		l.open.set("held", true, at)
	case e.Result == "closed":
		l.open.set("held", false, at)
	case e.Result == edge.ResultPassed:
		// A barrier that did not obey a command says nothing when it does again.
		l.fault.set("barrier", false, at)
	}
}
