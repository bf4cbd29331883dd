package lane

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"slices"
	"strconv"
	"time"

	"gatehouse/device"
	"gatehouse/edge"
)

// Do carries out one action of a guard. It returns edge.ErrLate when the
// presentation it answers has ended or was answered by somebody else, and
// edge.ErrForbidden for what the policy does not offer.
// It waits for the lane's word even when ctx ends: the caller must know.
func (l *Lane) Do(_ context.Context, a edge.Action) error {
	return l.inLoop(func() error { return l.do(a) })
}

// inLoop waits for what f gives in the lane's loop.
func (l *Lane) inLoop(f func() error) error {
	if !l.pulse.running() {
		return edge.Refuse("not_running", "lane %s is not running", l.cfg.Name)
	}
	done := make(chan error, 1)
	l.post(func() { done <- f() })
	select {
	case err := <-done:
		return err
	case <-l.stopped:
		return edge.Refuse("not_running", "lane %s is stopping", l.cfg.Name)
	}
}

func (l *Lane) do(a edge.Action) error {
	switch a.Kind {
	case edge.ActPresent:
		return l.present(a)
	case edge.ActClose, edge.ActOpen:
		return l.setClosed(a, a.Kind == edge.ActClose)
	case edge.ActCall:
		l.callHelp(a.Actor)
		return nil
	case edge.ActComing:
		return l.coming(a)
	}
	p := l.find(a.Presentation)
	passed := a.Kind == edge.ActConfirm && a.Field == "passed"
	if p == nil {
		if passed {
			return edge.ErrLate // whoever admitted is not who was quicker
		}
		return l.late(a.Presentation)
	}
	if p.by != "" && !passed && a.Kind != edge.ActLanguage && a.Kind != edge.ActCancel {
		return l.late(p.id)
	}
	p.ring = time.Time{} // somebody is there
	open := p.state == edge.LaneReferred || p.state == edge.LaneDenied
	switch a.Kind {
	case edge.ActAdmit:
		if !open {
			return edge.ErrLate
		}
		return l.guardAdmits(p, a)
	case edge.ActDeny:
		if p.state != edge.LaneReferred && p.state != edge.LaneMeasuring {
			return edge.ErrLate
		}
		return l.guardDenies(p, a)
	case edge.ActRemeasure:
		if !open && p.state != edge.LaneMeasuring || p.aside {
			return edge.ErrLate
		}
		if err := l.record(p, a.Actor, "remeasure", nil); err != nil {
			return err
		}
		p.tries++
		p.measured = max(0, p.measured-1)
		l.measure(p, true)
		return nil
	case edge.ActReading:
		return l.typed(p, a)
	case edge.ActSecond:
		if !open {
			return edge.ErrLate
		}
		return l.second(p, a)
	case edge.ActConfirm:
		return l.confirm(p, a)
	case edge.ActAside:
		if !open || p.aside {
			return edge.ErrLate
		}
		p.state = edge.LaneReferred
		return l.park(p, a.Actor)
	case edge.ActRecall:
		if !p.aside {
			return edge.ErrLate
		}
		if l.cur != nil {
			return edge.Refuse("busy", "lane %s is busy with the next person", l.cfg.Name)
		}
		if err := l.record(p, a.Actor, "recall", nil); err != nil {
			return err
		}
		l.unpark(p)
		l.cur = p
		// What the guard has learnt since (a second reading, a proof) counts now.
		l.decide(p)
		return nil
	case edge.ActPlusOne:
		return l.plusOne(p, a)
	case edge.ActCancel:
		if p.state == edge.LanePassing {
			return edge.ErrLate
		}
		if err := l.record(p, a.Actor, "cancel", nil); err != nil {
			return err
		}
		if !l.unpark(p) {
			l.end()
		}
		return nil
	case edge.ActLanguage:
		p.language = a.Text
		return nil
	}
	return edge.Refuse("unknown", "unknown action %q", a.Kind)
}

// find returns the present or a parked presentation with this id.
func (l *Lane) find(id uint64) *presentation {
	if l.cur != nil && l.cur.id == id {
		return l.cur
	}
	if i := slices.IndexFunc(l.parked, func(p *presentation) bool { return p.id == id }); i >= 0 {
		return l.parked[i]
	}
	return nil
}

// actionEntry is what a guard did, as the journal keeps it: codes, no free text.
func (l *Lane) actionEntry(p *presentation, actor, action string, more map[string]any) *edge.Entry {
	e := &edge.Entry{Kind: edge.KindAction, Lane: l.cfg.Name, Of: -1, Actor: actor, Stamp: l.deps.Clock.Now(), Policy: l.deps.Policy().Hash(), Registry: l.deps.Registry.Version()}
	if p != nil {
		e.Presentation, e.Of = p.id, p.seq
	}
	m := map[string]any{"action": action}
	for k, v := range more {
		if v != "" && v != false {
			m[k] = v
		}
	}
	// Strings, booleans and numbers only: this cannot fail.
	e.Data, _ = json.Marshal(m)
	return e
}

func (l *Lane) record(p *presentation, actor, action string, more map[string]any) error {
	_, err := l.append(l.actionEntry(p, actor, action, more), nil)
	if err != nil {
		return fmt.Errorf("cannot record it: %w", err)
	}
	return nil
}

func (l *Lane) present(a edge.Action) error {
	if l.closed || l.fire {
		return edge.Refuse("closed", "lane %s is closed", l.cfg.Name)
	}
	if a.Identity == "" {
		return edge.Refuse("identity", "say how identity was checked")
	}
	if _, found, err := l.deps.Registry.Pass(l.ctx, a.Pass); err != nil {
		return err
	} else if !found {
		return fmt.Errorf("pass %d: %w", a.Pass, edge.ErrUnknown)
	}
	if l.cur != nil && l.cur.pass != nil && l.cur.pass.ID == a.Pass {
		return nil
	}
	e := l.actionEntry(nil, a.Actor, "present", map[string]any{"identity": a.Identity, "pass": int64(a.Pass)})
	if _, err := l.append(e, nil); err != nil {
		return fmt.Errorf("cannot record it: %w", err)
	}
	if !l.enqueue(waiting{start: &a}) {
		return edge.Refuse("queue", "the queue of lane %s is full", l.cfg.Name)
	}
	return nil
}

func (l *Lane) setClosed(a edge.Action, closed bool) error {
	if l.closed == closed {
		return nil
	}
	if err := l.record(nil, a.Actor, string(a.Kind), nil); err != nil {
		return err
	}
	l.closed = closed
	if closed {
		// Whoever waits behind presents again when the lane is open; who was
		// admitted already still passes.
		l.queue = slices.DeleteFunc(l.queue, func(w waiting) bool { return w.resume == nil })
	}
	if l.cur == nil {
		l.end()
	}
	return nil
}

// guardAdmits lets through with one of the reasons that the policy offers.
func (l *Lane) guardAdmits(p *presentation, a edge.Action) error {
	i := slices.IndexFunc(p.decision.Answers, func(x edge.Answer) bool { return x.Reason == a.Reason })
	if i < 0 {
		return edge.Refuse("not_offered", "the policy does not offer %q here", a.Reason)
	}
	ans := p.decision.Answers[i]
	g := p.guard
	if a.Identity != "" {
		g.Identity = a.Identity
	}
	if ans.Purpose != "" {
		g.Purpose = ans.Purpose
	}
	for _, n := range ans.Needs {
		switch n {
		case "identity":
			if g.Identity == "" {
				return edge.Refuse("identity", "say how identity was checked")
			}
		case "proof":
			if a.Text != "" {
				g.Proof = a.Text
			}
			if g.Proof == "" {
				return edge.Refuse("proof", "say which proof was seen")
			}
		case "escort":
			g.Escort = edge.Confirmed
		case "second_reading":
			if p.temp == nil || p.temp.Second != edge.BandBelow {
				return edge.Refuse("second_reading", "take a reading below the threshold with a second instrument")
			}
		}
	}
	if ans.Two && (a.Second == "" || a.Second == a.Actor) {
		return edge.Refuse("second_person", "this takes a second person")
	}
	p.guard = g
	began := time.Now()
	f := *p.facts
	f.Guard = &g
	e := l.actionEntry(p, a.Actor, "admit", map[string]any{"second": a.Second, "identity": g.Identity, "proof": g.Proof, "purpose": g.Purpose})
	e.Outcome, e.Reason, e.Rule = edge.Admit, a.Reason, p.decision.Rule
	e.Deltas = l.deps.Policy().Reserve(&f)
	seq, err := l.append(e, nil)
	if err != nil {
		l.alarm(err)
		return fmt.Errorf("cannot record it: %w", err)
	}
	p.facts, p.seq, p.inputAt, p.commit = &f, int64(seq), began, time.Since(began)
	p.decision.Outcome, p.decision.Reason, p.decision.Answers = edge.Admit, a.Reason, nil
	l.final(p, a.Actor, edge.Admit)
	l.settle(p, edge.Admit, e.Deltas)
	return nil
}

func (l *Lane) guardDenies(p *presentation, a edge.Action) error {
	e := l.actionEntry(p, a.Actor, "deny", nil)
	e.Outcome, e.Reason = edge.Deny, a.Reason
	if e.Reason == "" {
		e.Reason = "guard.denied"
	}
	seq, err := l.append(e, nil)
	if err != nil {
		return fmt.Errorf("cannot record it: %w", err)
	}
	p.seq = int64(seq)
	p.decision.Outcome, p.decision.Reason, p.decision.Answers = edge.Deny, e.Reason, nil
	l.final(p, a.Actor, edge.Deny)
	l.settle(p, edge.Deny, nil)
	return nil
}

// typed takes a reading of an instrument of the guard's own, on a lane whose
// thermometer is the guard.
func (l *Lane) typed(p *presentation, a edge.Action) error {
	if p.state != edge.LaneMeasuring || l.dev.Thermometer != nil {
		return edge.ErrLate
	}
	t := device.Temperature{Quality: device.QualityOK, Value: device.Celsius(a.Value), Uncertainty: 0.2, Profile: "typed", At: time.Now()}
	if a.Value < 30 || a.Value > 43 {
		t.Quality = device.QualityInvalid
	}
	f := l.deps.Policy().Band(t)
	f.Typed = true
	p.inputAt = time.Now()
	p.actor = a.Actor
	p.reading = fmt.Sprintf("%.1f", a.Value)
	l.merge(p, f)
	p.measured++
	if p.measured-1 < p.plus && f.Band == edge.BandBelow {
		p.deadline = time.Now().Add(l.cfg.Refer)
		return nil
	}
	l.decide(p)
	return nil
}

func (l *Lane) second(p *presentation, a edge.Action) error {
	if a.Value < 30 || a.Value > 43 {
		return edge.Refuse("temperature", "%.1f is no body temperature", a.Value)
	}
	b := l.deps.Policy().Second(a.Value)
	if err := l.record(p, a.Actor, "second", map[string]any{"band": string(b)}); err != nil {
		return err
	}
	if p.temp == nil {
		p.temp = &edge.TemperatureFacts{State: edge.TempMissing}
	}
	p.temp.Second = b
	return l.again(p)
}

// again decides anew after the guard has said something. A parked presentation
// stays parked unless it is now admitted.
func (l *Lane) again(p *presentation) error {
	p.inputAt = time.Now()
	if !p.aside {
		l.decide(p)
		return nil
	}
	cur := l.cur
	l.unpark(p)
	if cur == nil {
		l.cur = p
		l.decide(p)
		return nil
	}
	// The lane is busy: the outcome waits in the tray for its turn.
	p.aside = true
	l.parked = append(l.parked, p)
	return nil
}

func (l *Lane) confirm(p *presentation, a edge.Action) error {
	if a.Field == "passed" {
		if p.turn == nil {
			return edge.ErrLate
		}
		return l.passage.confirm(p.turn, a.Text != "no")
	}
	if p.state == edge.LanePassing {
		return edge.ErrLate
	}
	g, occupants, outside := p.guard, p.occupants, p.outside
	switch a.Field {
	case "mask", "escort":
		c := edge.Confirmation(a.Text)
		if c != edge.Confirmed && c != edge.Denied {
			return edge.Refuse("unknown", "%s is yes or no", a.Field)
		}
		if a.Field == "mask" {
			g.Mask = c
		} else {
			g.Escort = c
		}
	case "identity":
		g.Identity = a.Text
	case "proof":
		g.Proof = a.Text
	case "purpose":
		g.Purpose = a.Text
	case "paper":
		g.Paper = a.Text
	case "occupants":
		n, err := strconv.Atoi(a.Text)
		if err != nil || n < 1 || n > 99 {
			return edge.Refuse("persons", "%q is no number of persons in a vehicle", a.Text)
		}
		occupants = n
	case "vehicle":
		if a.Text != "outside" {
			return edge.Refuse("unknown", "a vehicle is outside or not mentioned")
		}
		outside = true
	default:
		return edge.Refuse("unknown", "nothing is called %q here", a.Field)
	}
	if err := l.record(p, a.Actor, "confirm", map[string]any{"field": a.Field, "value": a.Text}); err != nil {
		return err
	}
	p.guard, p.occupants, p.outside = g, occupants, outside
	if p.state == edge.LaneMeasuring {
		return nil // it counts when the reading is there
	}
	return l.again(p)
}

// plusOne adds one person to the party: they take a reading of their own.
func (l *Lane) plusOne(p *presentation, a edge.Action) error {
	if p.state == edge.LanePassing || p.aside || p.plus >= 10 {
		return edge.ErrLate
	}
	if err := l.record(p, a.Actor, "plus_one", nil); err != nil {
		return err
	}
	p.plus++
	if p.state == edge.LaneMeasuring && l.dev.Thermometer != nil && p.measured == 0 {
		return nil // the holder's own reading is still under way
	}
	p.tries = 0
	p.state = edge.LaneMeasuring
	switch {
	case l.dev.Thermometer != nil:
		l.say(device.SignalWait)
		l.startMeasure(p, false, l.cfg.Measure)
	case l.cfg.Typed:
		p.deadline = time.Now().Add(l.cfg.Refer)
	default:
		p.measured++
		l.decide(p)
	}
	return nil
}

// onCall is the call button: it rings the booth for whoever is at the lane, and
// gives the guard time. With nobody there it makes a referral of somebody who
// has no card; what the guard may answer is the policy's word on an unknown person.
func (l *Lane) onCall(c device.Change) {
	if !c.Active || c.Count == 0 {
		return
	}
	p := l.cur
	if p == nil && (l.fire || l.closed) {
		p = nil
	} else if p == nil {
		now := time.Now()
		p = &presentation{id: l.deps.IDs.next(), state: edge.LaneReferred, cardAt: now, inputAt: now, since: now, deadline: now.Add(l.cfg.Refer), seq: -1}
		pol := l.deps.Policy()
		f, _, err := l.gather(p, pol, l.deps.Clock.Now())
		if err != nil {
			l.log.Error("cannot gather the facts of a call", "err", err)
			return
		}
		p.facts, p.decision = f, pol.Decide(f)
		if !l.offers(p) {
			p.decision.Answers = nil
		}
		// Nobody is admitted for ringing a bell.
		p.decision.Outcome, p.decision.Reason, p.decision.Deltas = edge.Refer, "called", nil
		if l.pre != nil {
			l.pre()
			l.pre = nil
		}
		l.passage.endTest()
		l.cur = p
	}
	if p != nil {
		p.calls++
		if p.ring.IsZero() {
			p.ring = time.Now().Add(l.cfg.SecondPost)
		}
		if p.state == edge.LaneReferred {
			p.deadline = time.Now().Add(l.cfg.Refer)
			l.say(device.SignalCall)
		}
	}
	e := l.actionEntry(p, "resident", "call", nil)
	seq, err := l.append(e, nil)
	if err != nil {
		l.log.Error("cannot record a call", "err", err)
		return
	}
	if p != nil && p.seq < 0 && p.state == edge.LaneReferred {
		p.seq = int64(seq)
	}
}

// ringSecond is a call that nobody in the booth has answered: an alert, which
// goes to the community server's desk at once, past any backlog.
func (l *Lane) ringSecond(p *presentation) {
	p.ring = time.Time{}
	e := l.actionEntry(p, "system", "", nil)
	e.Kind, e.Data = edge.KindAlert, []byte(`{"alert":"call_unanswered"}`)
	if _, err := l.append(e, nil); err != nil {
		l.log.Error("cannot ring the second post", "err", err)
	}
	l.say(device.SignalCall)
}

// help is a guard's call for help.
type help struct {
	edge.HelpCall
	entry *edge.Entry // not in the journal yet
	seq   int64
}

const (
	maxHelp   = 8               // of a lane; the oldest goes
	sameShout = 5 * time.Second // presses within it are one call
)

// callHelp is a guard's call for help. It holds whatever has become of the person
// at the lane, is on all screens before it is on record, and goes to the community
// server as an alert, past any backlog. The lane itself keeps quiet: whoever
// threatens the guard need not know.
func (l *Lane) callHelp(actor string) {
	now := time.Now()
	i := slices.IndexFunc(l.help, func(h *help) bool { return h.By == actor })
	switch {
	case i >= 0 && now.Sub(l.help[i].At) < sameShout:
		return
	case i >= 0:
		l.help = slices.Delete(l.help, i, i+1)
	case len(l.help) == maxHelp:
		l.help = slices.Delete(l.help, 0, 1)
	}
	e := l.actionEntry(l.cur, actor, "", nil)
	e.Kind = edge.KindAlert
	// Strings only: this cannot fail.
	e.Data, _ = json.Marshal(map[string]string{"alert": "help", "text": actor})
	l.help = append(l.help, &help{HelpCall: edge.HelpCall{ID: l.deps.IDs.next(), By: actor, At: now}, entry: e, seq: -1})
	l.publish()
	l.recordHelp()
}

// recordHelp journals the calls that are not on record yet; it is tried again
// until they are.
func (l *Lane) recordHelp() {
	for _, h := range l.help {
		if h.entry == nil {
			continue
		}
		seq, err := l.append(h.entry, nil)
		if err != nil {
			l.log.Error("cannot record a call for help; it is on the screens, the server does not know", "by", h.By, "err", err)
			return
		}
		h.entry, h.seq = nil, int64(seq)
	}
}

// coming takes a call for help off the screens: somebody is on the way.
func (l *Lane) coming(a edge.Action) error {
	i := slices.IndexFunc(l.help, func(h *help) bool { return h.ID == a.Presentation })
	if i < 0 {
		return edge.ErrLate
	}
	e := l.actionEntry(nil, a.Actor, string(edge.ActComing), map[string]any{"to": l.help[i].By})
	e.Of = l.help[i].seq
	if _, err := l.append(e, nil); err != nil {
		return fmt.Errorf("cannot record it: %w", err)
	}
	l.help = slices.Delete(l.help, i, i+1)
	return nil
}

// setFire is called by the passage: everybody may leave, nothing is decided.
func (l *Lane) setFire(on bool) {
	l.post(func() {
		l.fire = on
		if on {
			for _, w := range l.queue {
				if w.resume != nil {
					l.passage.ask(l.turnOf(w.resume)) // is told what became of them
				}
			}
			l.queue = nil
			if l.cur != nil && l.cur.state != edge.LanePassing {
				l.end()
			}
			l.say(device.SignalFree)
			return
		}
		l.say(device.SignalIdle)
	})
}

// degrade notes that a part does not work, for facts and views.
func (l *Lane) degrade(part string, bad bool) {
	i := slices.Index(l.degraded, part)
	switch {
	case bad && i < 0:
		l.degraded = append(l.degraded, part)
		slices.Sort(l.degraded)
	case !bad && i >= 0:
		l.degraded = slices.Delete(l.degraded, i, i+1)
	}
}

// deviceState is what was last journalled of a device.
type deviceState struct {
	bad   bool
	since time.Time // of the minute in which entries are counted
	n     int
}

// maxFlaps is how often in a minute a device that comes and goes is journalled;
// the last of its states is, when the minute is over.
const maxFlaps = 4

// systemEntry is an entry that no person caused.
func (l *Lane) systemEntry(k edge.Kind, data map[string]any) *edge.Entry {
	e := &edge.Entry{Kind: k, Lane: l.cfg.Name, Of: -1, Actor: "system", Stamp: l.deps.Clock.Now()}
	// Strings and numbers only: this cannot fail.
	e.Data, _ = json.Marshal(data)
	return e
}

// checkDevice reports whether a device does not work and journals when that
// begins and ends.
func (l *Lane) checkDevice(part string, d device.Device, journal bool) bool {
	h := d.Health()
	bad := h.State == device.StateAbsent || h.State == device.StateDisconnected || h.State == device.StateFault
	key := part + "/" + h.Name
	st := l.states[key]
	if st == nil {
		st = &deviceState{}
		l.states[key] = st
	}
	if bad == st.bad || !journal {
		return bad
	}
	now := time.Now()
	if now.Sub(st.since) > time.Minute {
		st.since, st.n = now, 0
	}
	if st.n >= maxFlaps {
		return bad
	}
	e := l.systemEntry(edge.KindDevice, map[string]any{"device": h.Name, "driver": h.Driver, "state": string(h.State), "error": h.LastError})
	if _, err := l.append(e, nil); err != nil {
		l.log.Error("cannot record a device's state", "device", h.Name, "err", err)
		return bad // tried again at the next look
	}
	st.bad = bad
	st.n++
	if bad {
		l.log.Warn("a device does not work", "device", h.Name, "where", h.Where, "state", h.State, "err", h.LastError, "hint", "check plug and cable; it is tried again by itself")
	} else {
		l.log.Info("a device works again", "device", h.Name)
	}
	return bad
}

// checkDevices looks at the lane's devices and the passage's. Of two lanes at one
// passage the first journals what they share.
func (l *Lane) checkDevices() {
	scanners := len(l.dev.Scanners) > 0
	for _, s := range l.dev.Scanners {
		if !l.checkDevice("scanner", s, true) {
			scanners = false
		}
	}
	l.degrade("scanner", scanners)
	if l.dev.Thermometer != nil {
		l.degrade("thermometer", l.checkDevice("thermometer", l.dev.Thermometer, true))
	}
	indicator := false
	for _, ind := range l.dev.Indicators {
		indicator = l.checkDevice("indicator", ind, true) || indicator
	}
	l.degrade("indicator", indicator)
	if l.dev.Call != nil {
		l.degrade("call", l.checkDevice("call", l.dev.Call, true))
	}
	d, first := &l.passage.dev, l.passage.lanes[0] == l
	if d.Barrier != nil {
		l.degrade("barrier", l.checkDevice("barrier", d.Barrier, first))
	}
	for _, c := range []struct {
		part string
		dev  device.Contact
	}{{"beam", d.Beam}, {"door", d.Door}, {"fire", d.Fire}, {"tamper", d.Tamper}, {"exit", d.Exit}, {"position", d.Position}} {
		if c.dev != nil {
			l.degrade(c.part, l.checkDevice(c.part, c.dev, first))
		}
	}
}

// View is the lane as it stands.
func (l *Lane) View() edge.LaneView {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.view
}

// Watch yields every change of the view until ctx is done; a slow reader gets
// the latest and misses what was between.
func (l *Lane) Watch(ctx context.Context) <-chan edge.LaneView {
	ch := make(chan edge.LaneView, 1)
	l.mu.Lock()
	l.watchers[ch] = struct{}{}
	ch <- l.view
	l.mu.Unlock()
	context.AfterFunc(ctx, func() {
		l.mu.Lock()
		defer l.mu.Unlock()
		delete(l.watchers, ch)
		close(ch)
	})
	return ch
}

func (l *Lane) presentationView(p *presentation) edge.PresentationView {
	v := edge.PresentationView{ID: p.id, Lane: l.cfg.Name, State: p.state, Pass: p.pass, Unknown: p.pass == nil, Party: max(p.plus, p.measured-1), Reading: p.reading,
		Outcome: p.decision.Outcome, Say: p.decision.Say, Reason: p.decision.Reason, Rule: p.decision.Rule, Authority: p.decision.Authority, Obligations: p.decision.Obligations,
		Answers: p.decision.Answers, Seq: p.seq, Since: p.since, Deadline: p.deadline, Language: p.language, Calls: p.calls, By: p.by}
	if p.temp != nil {
		t := *p.temp
		v.Temperature = &t
	}
	if p.state == edge.LaneMeasuring {
		v.Outcome, v.Answers = "", nil
	}
	return v
}

// publish makes the view of what the loop knows and hands it to the watchers
// if anything changed.
func (l *Lane) publish() {
	v := edge.LaneView{Lane: l.cfg.Name, Name: l.cfg.Label, Passage: l.passage.cfg.Name, Level: l.cfg.Level, Direction: l.cfg.Direction,
		State: edge.LaneIdle, Queue: len(l.queue), Degraded: slices.Clone(l.degraded), Fire: l.fire, Last: l.last}
	switch {
	case l.fire:
		v.State = edge.LaneFree
	case l.cur != nil:
		v.State = l.cur.state
		pv := l.presentationView(l.cur)
		v.Current = &pv
	case l.closed:
		v.State = edge.LaneClosed
	case l.reading != nil:
		v.State = edge.LaneCard
	case slices.Contains(l.degraded, "scanner"):
		v.State = edge.LaneFault
	}
	if l.test != nil {
		v.Test = l.test.what
	}
	for _, p := range l.parked {
		v.Parked = append(v.Parked, l.presentationView(p))
	}
	for _, h := range l.help {
		v.Help = append(v.Help, h.HelpCall)
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	v.Scanner, v.Thermometer = l.view.Scanner, l.view.Thermometer
	// What it would show, without the version, is what is compared.
	shown, err := json.Marshal(v)
	if err == nil && bytes.Equal(shown, l.shown) {
		return
	}
	l.shown = shown
	v.Version = l.view.Version + 1
	l.view = v
	for ch := range l.watchers {
		select {
		case <-ch:
		default:
		}
		ch <- v
	}
}
