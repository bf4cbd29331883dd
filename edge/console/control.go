package console

import (
	"cmp"
	"context"
	"encoding/json"
	"fmt"
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

// laneFigures are a lane's day. What the beam has counted stands beside what was
// admitted: whoever passed without an admission is in one and not in the other.
type laneFigures struct {
	Name                                          string
	Admitted, Passed, NotPassed, Followed, Forced int
	HeldOpen, Interrupted                         int
	Fault                                         time.Duration // some device of the lane was away or faulty
	faulty                                        map[string]bool
	since                                         time.Time
}

// Beam is how many persons the beam has counted.
func (l laneFigures) Beam() int { return l.Passed + l.Followed + l.Forced }

// Differ says whether the beam saw others than were admitted.
func (l laneFigures) Differ() bool {
	return l.Followed+l.Forced > 0 || l.Passed+l.NotPassed+l.Interrupted < l.Admitted-1
}

// FaultHours are the hours with a faulty device.
func (l laneFigures) FaultHours() string { return hours(l.Fault) }

func hours(d time.Duration) string { return fmt.Sprintf("%.1f", d.Hours()) }

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
	Untrusted time.Duration // nobody vouched for the clock
	Cut       bool          // there was more than controlScan
}

// UntrustedHours are those in which nobody vouched for the clock.
func (f figures) UntrustedHours() string { return hours(f.Untrusted) }

// control is the control room: the day's figures, for whoever answers for the gate.
func (c *Console) control(w http.ResponseWriter, r *http.Request) {
	p := c.deps.Text.For(c.lang(r))
	f, err := c.figures(r.Context(), p, c.now())
	data := map[string]any{"F": f}
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
	lanes := map[string]*laneFigures{}
	for _, v := range c.deps.Lanes.Views() {
		lanes[v.Lane] = &laneFigures{Name: v.Name, faulty: map[string]bool{}}
	}
	overrides := map[override]int{}
	var last time.Time
	var trusted bool
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
			in := !at.Before(begin) && !at.After(now)
			if !last.IsZero() && !trusted && in && at.After(last) {
				f.Untrusted += at.Sub(latest(last, begin))
			}
			last, trusted = at, e.Stamp.Clock.Trusted()
			l := lanes[e.Lane]
			if l == nil {
				continue
			}
			if e.Kind == edge.KindDevice {
				l.device(e, latest(at, begin))
			}
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
		f.Untrusted += now.Sub(latest(last, begin))
	}
	for _, name := range slices.Sorted(maps.Keys(lanes)) {
		l := lanes[name]
		if len(l.faulty) > 0 {
			l.Fault += now.Sub(l.since)
		}
		f.Lanes = append(f.Lanes, l)
	}
	for o, n := range overrides {
		o.Count = n
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

// device follows what the journal says of the lane's devices.
func (l *laneFigures) device(e *edge.Entry, at time.Time) {
	var d struct {
		Device string       `json:"device"`
		State  device.State `json:"state"`
	}
	if json.Unmarshal(e.Data, &d) != nil || d.Device == "" {
		return
	}
	was := len(l.faulty) > 0
	if faulty(d.State) {
		l.faulty[d.Device] = true
	} else {
		delete(l.faulty, d.Device)
	}
	switch is := len(l.faulty) > 0; {
	case is && !was:
		l.since = at
	case was && !is:
		l.Fault += at.Sub(l.since)
	}
}
