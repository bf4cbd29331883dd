package lane

import (
	"context"
	"errors"
	"time"

	"gatehouse/device"
	"gatehouse/edge"
)

// How long each signal of a test is shown, and how long its barrier is open at
// most.
const (
	testSignal = 1500 * time.Millisecond
	testOpen   = 3 * time.Second
)

// trial is a test at a lane. The first thing that the lane says to a person ends
// it.
type trial struct {
	what    edge.TestKind
	signals []device.Signal // still to be shown
	next    time.Time       // when; zero = the passage tells when it is over
}

// Test has the lane's lamps, buzzer or barrier do what they are for, once and only
// while nobody is there. The entry is durable before anything moves.
func (l *Lane) Test(_ context.Context, t edge.DeviceTest) error {
	return l.inLoop(func() error { return l.startTest(t) })
}

func (l *Lane) startTest(t edge.DeviceTest) error {
	if l.fire {
		return edge.Refuse("fire", "lane %s is open to all", l.cfg.Name)
	}
	if l.busy() {
		return edge.Refuse("not_idle", "somebody is at lane %s, or it is tried already", l.cfg.Name)
	}
	x := &trial{what: t.What}
	switch t.What {
	case edge.TestLamps, edge.TestBuzzer:
		if len(l.dev.Indicators) == 0 {
			return edge.Refuse("no_device", "lane %s has no lamps", l.cfg.Name)
		}
		x.signals = []device.Signal{device.SignalWait, device.SignalGo, device.SignalStop}
		if t.What == edge.TestBuzzer {
			x.signals = []device.Signal{device.SignalCall}
		}
	case edge.TestBarrier:
		for _, o := range l.passage.lanes {
			if v := o.View(); o != l && (v.Current != nil || v.Queue > 0 || v.State == edge.LaneCard || v.Test != "") {
				return edge.Refuse("not_idle", "somebody is at lane %s", o.cfg.Name)
			}
		}
		if err := l.passage.inLoop(l.passage.mayTry); err != nil {
			return err
		}
	default:
		return edge.Refuse("unknown", "nothing is tried as %q", t.What)
	}
	e := l.systemEntry(edge.KindTest, map[string]any{"test": string(t.What)})
	e.Actor = t.Actor
	if _, err := l.append(e, nil); err != nil {
		return err
	}
	if t.What == edge.TestBarrier {
		// The stop lamp blinks while the way is open: nobody is called through.
		if err := l.passage.inLoop(func() error { return l.passage.try(x, l) }); err != nil {
			return err
		}
		l.test = x
		l.light(device.SignalFault)
		return nil
	}
	l.test = x
	l.goOn(x)
	return nil
}

// busy reports whether somebody is at the lane, or a test goes on.
func (l *Lane) busy() bool {
	return l.cur != nil || len(l.queue) > 0 || l.reading != nil || l.test != nil
}

// goOn shows a test's next signal, or ends the test.
func (l *Lane) goOn(t *trial) {
	if len(t.signals) == 0 {
		l.say(device.SignalIdle)
		return
	}
	s := t.signals[0]
	t.signals, t.next = t.signals[1:], time.Now().Add(testSignal)
	l.light(s)
}

func (l *Lane) endTest() {
	if l.test != nil && l.test.what == edge.TestBarrier {
		l.passage.endTest()
	}
	l.test = nil
}

// tested is called by the passage when a test of its barrier is over.
func (l *Lane) tested(t *trial) {
	l.post(func() {
		if l.test == t {
			l.test = nil
			l.light(device.SignalIdle)
		}
	})
}

// opening is a test of a barrier that goes on.
type opening struct {
	lane    *Lane
	of      *trial
	until   time.Time
	latest  time.Time // it is shut by then even if the beam stays broken
	persons int       // who went through
	door    bool      // it was opened
}

// mayTry says why the barrier cannot be tried now; nil when it can.
func (p *Passage) mayTry() error {
	switch {
	case p.dev.Barrier == nil:
		return edge.Refuse("no_device", "passage %s has no barrier", p.cfg.Name)
	case p.fire.On():
		return edge.Refuse("fire", "passage %s is open to all", p.cfg.Name)
	case p.beam || p.door:
		return edge.Refuse("in_the_way", "somebody stands in passage %s, or its door is open", p.cfg.Name)
	case p.cur != nil || len(p.waiting) > 0 || p.trial != nil || p.boomUp || time.Since(p.exitAt) < p.cfg.OpenFor:
		return edge.Refuse("not_idle", "passage %s is in use", p.cfg.Name)
	}
	return nil
}

// try opens the barrier for a moment. Whoever goes through is counted, as they
// were not admitted.
func (p *Passage) try(t *trial, l *Lane) error {
	if err := p.mayTry(); err != nil {
		return err
	}
	p.shutAt = time.Time{}
	if err := p.command("open", func(c context.Context, b device.Barrier) error { return b.Admit(c, l.cfg.Direction) }); err != nil {
		if errors.Is(err, device.ErrRefused) {
			return edge.Refuse("interlock", "the other door of passage %s is open", p.cfg.Name)
		}
		return edge.Refuse("no_answer", "the barrier of passage %s: %v", p.cfg.Name, err)
	}
	now := time.Now()
	p.trial = &opening{lane: l, of: t, until: now.Add(min(testOpen, p.cfg.OpenFor)), latest: now.Add(testOpen + p.cfg.OpenFor)}
	p.trying.Store(true)
	return nil
}

// endTest is called by a lane when somebody comes.
func (p *Passage) endTest() {
	if !p.trying.Load() {
		return
	}
	p.post(p.endTrial)
}

// endTrial shuts the barrier after a test, but upon nobody.
func (p *Passage) endTrial() {
	t := p.trial
	if t == nil {
		return
	}
	if now := time.Now(); p.beam && now.Before(t.latest) {
		t.until = now.Add(100 * time.Millisecond)
		return
	}
	p.tried()
	if p.shutAt.IsZero() { // else the exit button keeps it open
		p.secure()
	}
}

// tried ends a test of the barrier; what becomes of the barrier is the caller's
// affair.
func (p *Passage) tried() {
	t := p.trial
	if t == nil {
		return
	}
	p.trial = nil
	p.trying.Store(false)
	p.lastEnd = time.Now()
	if t.door && p.dev.Beam == nil {
		t.persons = max(t.persons, 1) // a door tells that somebody went, not how many
	}
	if t.persons > 0 {
		p.record(nil, edge.KindTest, "", map[string]any{"test": string(edge.TestBarrier), "persons": t.persons}, nil, nil)
	}
	t.lane.tested(t.of)
}
