package lane

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"sync"
	"sync/atomic"
	"time"

	"gatehouse/device"
	"gatehouse/edge"
	"gatehouse/edge/policy"
)

// PassageConfig is one opening.
type PassageConfig struct {
	Name     string
	OpenFor  time.Duration // how long an admitted person has to pass
	HeldOpen time.Duration // a door open longer than this after a turn is held open
	After    time.Duration // how long after the last of a turn another one is tailgating; 0 = 1 s
}

// PassageDevices are the opening's own. Each may be nil.
type PassageDevices struct {
	Barrier  device.Barrier
	Beam     device.Contact
	Door     device.Contact
	Fire     device.Contact
	Tamper   device.Contact
	Exit     device.Contact // request to exit
	Position device.Contact // a boom's own: active = up
}

// Passage is an opening with its barrier. One or two lanes ask it for a turn;
// it alone moves the barrier.
type Passage struct {
	cfg  PassageConfig
	dev  PassageDevices
	deps Deps
	fire *Fire
	log  *slog.Logger

	events  *mailbox
	stopped chan struct{}
	beat    atomic.Int64
	lanes   []*Lane

	// Owned by the loop.
	ctx      context.Context
	cur      *turn
	waiting  []*turn
	lastEnd  time.Time
	lastTurn *turn
	door     bool
	doorAt   time.Time
	heldOpen bool
	boomUp   bool
	exitAt   time.Time
	timer    *time.Timer
}

// turn is one admission that may pass.
type turn struct {
	lane         *Lane
	p            *presentation
	dir          edge.Direction
	persons      int
	seq          int64 // of the entry that admitted
	reserved     []edge.Delta
	pass         edge.PassID
	presentation uint64

	asked    time.Time
	count    int
	opened   time.Time
	passedAt time.Time
	deadline time.Time
}

// NewPassage makes a passage that obeys the gate's fire input.
func NewPassage(cfg PassageConfig, dev PassageDevices, fire *Fire, deps Deps) *Passage {
	if cfg.After == 0 {
		cfg.After = time.Second
	}
	p := &Passage{cfg: cfg, dev: dev, deps: deps, fire: fire, log: deps.Log.With("passage", cfg.Name), events: newMailbox(), stopped: make(chan struct{})}
	fire.join(p)
	return p
}

func (p *Passage) join(l *Lane) { p.lanes = append(p.lanes, l) }

// Name is the passage's name in the configuration.
func (p *Passage) Name() string { return p.cfg.Name }

// Run works until ctx is done. At the end the barrier is secured, unless there
// is a fire.
func (p *Passage) Run(ctx context.Context) error {
	defer close(p.stopped)
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	p.ctx = ctx
	var wg sync.WaitGroup
	for _, c := range []struct {
		dev device.Contact
		on  func(device.Change)
	}{{p.dev.Beam, p.onBeam}, {p.dev.Door, p.onDoor}, {p.dev.Tamper, p.onTamper}, {p.dev.Exit, p.onExit}, {p.dev.Position, p.onPosition}} {
		if c.dev != nil {
			wg.Go(func() { watch(ctx, c.dev, func(ch device.Change) { p.post(func() { c.on(ch) }) }) })
		}
	}
	if p.dev.Fire != nil {
		wg.Go(func() { watch(ctx, p.dev.Fire, func(ch device.Change) { p.fire.set(ctx, p.cfg.Name, ch.Active) }) })
	}
	// The first command gives the lines their safe level, without a pulse.
	if !p.fire.On() {
		p.secure()
	}
	p.timer = time.NewTimer(time.Hour)
	defer p.timer.Stop()
	beat := time.NewTicker(2 * time.Second)
	defer beat.Stop()
	for {
		p.beat.Store(time.Now().UnixNano())
		p.arm()
		select {
		case <-ctx.Done():
			cancel()
			wg.Wait()
			if !p.fire.On() {
				p.command("secure", func(c context.Context, b device.Barrier) error { return b.Secure(c) })
			}
			return ctx.Err()
		case <-p.events.ready:
			for _, f := range p.events.take() {
				f()
			}
		case <-p.timer.C:
			p.expire()
		case <-beat.C:
		}
	}
}

// Alive is as Lane.Alive.
func (p *Passage) Alive(within time.Duration) error {
	if b := p.beat.Load(); b != 0 && time.Since(time.Unix(0, b)) > within {
		return fmt.Errorf("passage %s makes no progress since %s", p.cfg.Name, time.Unix(0, b).Format(time.TimeOnly))
	}
	return nil
}

func (p *Passage) post(f func()) { p.events.put(f) }

// command moves the barrier and does not wait long for one that is stuck.
func (p *Passage) command(what string, f func(context.Context, device.Barrier) error) error {
	if p.dev.Barrier == nil {
		return nil
	}
	ctx, cancel := context.WithTimeout(context.WithoutCancel(p.ctx), 2*time.Second)
	done := make(chan error, 1)
	go func() {
		defer cancel()
		done <- f(ctx, p.dev.Barrier)
	}()
	var err error
	select {
	case err = <-done:
	case <-ctx.Done():
		select {
		case err = <-done:
		default:
			err = errors.New("the barrier does not answer")
		}
	}
	if err != nil {
		p.log.Error("cannot "+what+" the barrier", "err", err, "hint", "the guard may have to open by hand; the entry says who was admitted")
	}
	return err
}

// ask queues for a turn. Called by lanes.
func (p *Passage) ask(t *turn) {
	t.asked = time.Now()
	p.post(func() {
		p.waiting = append(p.waiting, t)
		p.next()
	})
}

func (p *Passage) next() {
	if p.cur != nil || len(p.waiting) == 0 || p.fire.On() {
		return
	}
	t := p.waiting[0]
	p.waiting = p.waiting[1:]
	p.cur = t
	var waited time.Duration
	if p.lastEnd.After(t.asked) {
		waited = p.lastEnd.Sub(t.asked)
	}
	err := p.command("open", func(c context.Context, b device.Barrier) error { return b.Admit(c, t.dir) })
	t.opened = time.Now()
	t.deadline = t.opened.Add(p.cfg.OpenFor)
	t.lane.opened(t.p, t.opened, waited)
	if err != nil {
		p.record(t, edge.KindDevice, "", map[string]any{"device": "barrier", "state": "fault", "error": err.Error()}, nil)
	}
}

// onBeam counts a person when the beam is whole again behind them.
func (p *Passage) onBeam(c device.Change) {
	if c.Active || c.Count == 0 {
		return
	}
	p.person(c.At)
}

func (p *Passage) person(at time.Time) {
	if p.fire.On() {
		return
	}
	if t := p.cur; t != nil {
		t.count++
		t.passedAt = at
		if t.count >= t.persons {
			// Whoever comes now was not admitted: wait a moment for them.
			if t.count == t.persons {
				p.secure()
				t.lane.through(t.p)
			}
			t.deadline = time.Now().Add(p.cfg.After)
		}
		return
	}
	if p.boomUp || time.Since(p.exitAt) < p.cfg.OpenFor {
		return
	}
	if p.door || p.dev.Door == nil {
		p.record(nil, edge.KindPassage, edge.ResultForced, map[string]any{"by": "beam"}, nil)
	}
}

func (p *Passage) secure() {
	_ = p.command("secure", func(c context.Context, b device.Barrier) error { return b.Secure(c) })
}

func (p *Passage) onDoor(c device.Change) {
	p.door, p.doorAt = c.Active, c.At
	if !c.Active {
		if p.heldOpen {
			p.heldOpen = false
			p.record(nil, edge.KindPassage, "closed", nil, nil)
		}
		return
	}
	if p.cur == nil && !p.fire.On() && !p.boomUp && time.Since(p.lastEnd) > p.cfg.After && time.Since(p.exitAt) > p.cfg.OpenFor && c.Count > 0 {
		p.record(nil, edge.KindPassage, edge.ResultForced, map[string]any{"by": "door"}, nil)
	}
}

func (p *Passage) onTamper(c device.Change) {
	if c.Count > 0 {
		p.record(nil, edge.KindAlert, "", map[string]any{"alert": "tamper", "open": c.Active}, nil)
	}
}

// onExit is the request-to-exit button: leaving needs no card where one is fitted.
func (p *Passage) onExit(c device.Change) {
	if !c.Active {
		return
	}
	p.exitAt = time.Now()
	p.record(nil, edge.KindAction, "", map[string]any{"action": "exit_button"}, nil)
	if p.cur == nil {
		_ = p.command("open", func(c context.Context, b device.Barrier) error { return b.Admit(c, edge.Out) })
	}
}

// onPosition tells a boom that was raised by its own remote from one that was
// forced: the entry says so, and nobody is accused.
func (p *Passage) onPosition(c device.Change) {
	p.boomUp = c.Active
	if c.Active && p.cur == nil && c.Count > 0 && !p.fire.On() {
		p.record(nil, edge.KindPassage, "opened_outside", map[string]any{"by": "remote"}, nil)
	}
}

// confirm is the guard's word at a post that cannot see for itself.
func (p *Passage) confirm(t *turn, passed bool) error {
	done := make(chan error, 1)
	p.post(func() {
		if p.cur != t {
			done <- edge.ErrLate
			return
		}
		if passed {
			t.count = t.persons
			t.passedAt = time.Now()
		}
		p.finish(t)
		done <- nil
	})
	select {
	case err := <-done:
		return err
	case <-p.stopped:
		return edge.ErrLate
	}
}

func (p *Passage) arm() {
	d := time.Hour
	if p.cur != nil {
		d = time.Until(p.cur.deadline)
	} else if p.door && !p.heldOpen {
		d = time.Until(p.doorAt.Add(p.cfg.HeldOpen))
	}
	p.timer.Reset(max(0, d))
}

func (p *Passage) expire() {
	now := time.Now()
	if t := p.cur; t != nil {
		if !now.Before(t.deadline) {
			p.finish(t)
		}
		return
	}
	if p.door && !p.heldOpen && !now.Before(p.doorAt.Add(p.cfg.HeldOpen)) && !p.fire.On() {
		p.heldOpen = true
		p.record(p.lastTurn, edge.KindPassage, edge.ResultHeldOpen, nil, nil)
	}
}

// finish ends a turn: what happened is an entry that names the admission.
func (p *Passage) finish(t *turn) {
	p.cur = nil
	p.lastEnd, p.lastTurn = time.Now(), t
	if t.count < t.persons {
		p.secure()
	}
	observed := p.dev.Beam != nil
	data := map[string]any{}
	result := edge.ResultPassed
	deltas := policy.Passed(t.pass, t.dir)
	switch {
	case t.count > t.persons:
		result = edge.ResultTailgated
		data["persons"] = t.count
	case t.count == 0 && observed:
		result = edge.ResultNotPassed
		deltas = policy.Release(t.reserved)
	case t.count == 0:
		// Nothing here can see: whoever was let through is taken to have gone,
		// and the entry says that nobody saw it.
		data["observed"] = false
	case t.persons > 1:
		data["persons"] = t.count
	}
	p.record(t, edge.KindPassage, result, data, deltas)
	at := t.passedAt
	if at.IsZero() {
		at = time.Now()
	}
	t.lane.ended(t.p, result, at)
	p.next()
}

func (p *Passage) record(t *turn, k edge.Kind, result string, data map[string]any, deltas []edge.Delta) {
	e := &edge.Entry{Kind: k, Of: -1, Actor: "system", Stamp: p.deps.Clock.Now(), Result: result, Deltas: deltas}
	if t != nil {
		e.Of, e.Lane, e.Presentation = t.seq, t.lane.cfg.Name, t.presentation
	} else {
		if data == nil {
			data = map[string]any{}
		}
		data["passage"] = p.cfg.Name
		if len(p.lanes) == 1 {
			e.Lane = p.lanes[0].cfg.Name
		}
	}
	if len(data) > 0 {
		// Strings, booleans and numbers only: this cannot fail.
		e.Data, _ = json.Marshal(data)
	}
	if _, err := p.deps.Journal.Append(context.WithoutCancel(p.ctx), e, nil); err != nil {
		p.log.Error("cannot record what happened", "kind", k, "result", result, "err", err)
	}
}

// Fire is the gate's fire state. Any passage's fire contact frees them all, at
// once and before anything is written.
type Fire struct {
	deps Deps
	on   atomic.Bool

	mu       sync.Mutex
	passages []*Passage
	by       map[string]bool
}

// NewFire makes the state with no fire.
func NewFire(deps Deps) *Fire { return &Fire{deps: deps, by: map[string]bool{}} }

func (f *Fire) join(p *Passage) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.passages = append(f.passages, p)
}

// On reports whether there is a fire.
func (f *Fire) On() bool { return f.on.Load() }

func (f *Fire) set(ctx context.Context, by string, on bool) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.by[by] = on
	burning := false
	for _, v := range f.by {
		burning = burning || v
	}
	if f.on.Swap(burning) == burning {
		return
	}
	var wg sync.WaitGroup
	for _, p := range f.passages {
		if p.dev.Barrier == nil {
			continue
		}
		wg.Go(func() {
			c, cancel := context.WithTimeout(context.WithoutCancel(ctx), 2*time.Second)
			defer cancel()
			if err := p.dev.Barrier.Free(c, burning); err != nil {
				p.log.Error("cannot free the barrier", "err", err, "hint", "the lock's supply runs through the fire panel's contact; open by hand if it does not")
			}
		})
	}
	wg.Wait()
	for _, p := range f.passages {
		p.post(func() {
			if t := p.cur; burning && t != nil {
				p.cur = nil
				p.record(t, edge.KindPassage, edge.ResultInterrupted, nil, nil)
				t.lane.ended(t.p, edge.ResultInterrupted, time.Now())
			}
			if burning {
				for _, t := range p.waiting {
					p.record(t, edge.KindPassage, edge.ResultInterrupted, nil, nil)
					t.lane.ended(t.p, edge.ResultInterrupted, time.Now())
				}
				p.waiting = nil
			}
		})
		for _, l := range p.lanes {
			l.setFire(burning)
		}
	}
	s := f.deps.Clock.Now()
	e := &edge.Entry{Kind: edge.KindFire, Of: -1, Actor: "system", Stamp: s}
	e.Data, _ = json.Marshal(map[string]any{"on": burning, "by": by})
	// People went out and in uncounted: until they present a pass again nobody
	// knows where they are.
	e.Deltas = []edge.Delta{{Cell: edge.Cell{Name: edge.CellReset, Subject: edge.SubjectReset}, Op: edge.OpSet, Value: s.Time}}
	if _, err := f.deps.Journal.Append(context.WithoutCancel(ctx), e, nil); err != nil {
		f.deps.Log.Error("cannot record the fire input", "on", burning, "err", err)
	}
}

// Interrupted is the entry for an admission of an earlier run of which nothing
// else is known. Nothing is opened by itself, and what it reserved stays counted.
func Interrupted(of edge.Stored, admitted *edge.Entry, s edge.Stamp) *edge.Entry {
	return &edge.Entry{Kind: edge.KindPassage, Lane: admitted.Lane, Of: int64(of.Seq), Actor: "system", Stamp: s, Presentation: admitted.Presentation, Result: edge.ResultInterrupted}
}
