package lane

import (
	"context"
	"encoding/json"
	"errors"
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
	ledger  *ledger
	stopped chan struct{}
	pulse   pulse
	busy    chan struct{} // holds one while a barrier command has not returned
	lanes   []*Lane

	// Owned by the loop.
	ctx      context.Context
	cur      *turn
	waiting  []*turn
	lastEnd  time.Time
	lastTurn *turn
	beam     bool // somebody stands in it
	door     bool
	doorAt   time.Time
	heldOpen bool
	boomUp   bool
	exitAt   time.Time
	shutAt   time.Time // when the barrier is to be secured (again); zero = it need not be
	retryAt  time.Time // when an opening that was refused is tried again
	timer    *time.Timer
	trial    *opening

	trying atomic.Bool  // trial is set, for the lanes
	wide   atomic.Int64 // cfg.OpenFor for the lanes, whose loops are others
}

// turn is one admission that may pass.
type turn struct {
	lane         *Lane
	p            *presentation
	dir          edge.Direction
	persons      int   // who were counted before
	most         int   // who may pass: more than persons where nobody counts dependants
	seq          int64 // of the entry that admitted
	reserved     []edge.Delta
	pass         edge.PassID
	presentation uint64

	asked    time.Time
	count    int
	door     bool // it was open during the turn
	told     bool // the guard has said whether they went through
	refused  bool // by an interlock, at least once
	opened   time.Time
	passedAt time.Time
	deadline time.Time
}

// NewPassage makes a passage that obeys the gate's fire input.
func NewPassage(cfg PassageConfig, dev PassageDevices, fire *Fire, deps Deps) *Passage {
	if cfg.After == 0 {
		cfg.After = time.Second
	}
	p := &Passage{cfg: cfg, dev: dev, deps: deps, fire: fire, log: deps.Log.With("passage", cfg.Name), events: newMailbox(), stopped: make(chan struct{}), pulse: pulse{born: time.Now()}, busy: make(chan struct{}, 1)}
	p.wide.Store(int64(cfg.OpenFor))
	p.ledger = newLedger(deps.Journal, p.log)
	fire.join(p)
	return p
}

func (p *Passage) join(l *Lane) { p.lanes = append(p.lanes, l) }

// openFor is how long whoever is admitted has to pass.
func (p *Passage) openFor() time.Duration { return time.Duration(p.wide.Load()) }

// Name is the passage's name in the configuration.
func (p *Passage) Name() string { return p.cfg.Name }

// Run works until ctx is done. At the end the barrier is secured, unless there
// is a fire.
func (p *Passage) Run(ctx context.Context) error {
	defer close(p.stopped)
	ctx, cancel := context.WithCancel(ctx)
	p.ctx = ctx
	// The ledger ends after all who add to it, so that what they see last is recorded
	// too. Its entries have p.ctx: what fails then is not tried for ever.
	writing, written := context.WithCancel(context.WithoutCancel(ctx))
	var ledger, wg sync.WaitGroup
	ledger.Go(func() { p.ledger.run(writing) })
	defer func() {
		cancel()
		written()
		ledger.Wait()
	}()
	for _, c := range []struct {
		dev device.Contact
		on  func(device.Change)
	}{{p.dev.Beam, p.onBeam}, {p.dev.Door, p.onDoor}, {p.dev.Tamper, p.onTamper}, {p.dev.Exit, p.onExit}, {p.dev.Position, p.onPosition}} {
		if c.dev != nil {
			wg.Go(func() { watch(ctx, c.dev, func(ch device.Change) { p.post(func() { c.on(ch) }) }) })
		}
	}
	if p.dev.Fire != nil {
		wg.Go(func() { watch(ctx, p.dev.Fire, func(ch device.Change) { p.fire.set(ctx, p, ch.Active) }) })
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
		p.pulse.beat()
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
	return p.pulse.alive("passage "+p.cfg.Name, within)
}

func (p *Passage) post(f func()) { p.events.put(f) }

// errBusy: an earlier command has not returned.
var errBusy = errors.New("the barrier does not answer")

// command moves the barrier and does not wait long for one that is stuck; while
// it is, further commands fail at once.
func (p *Passage) command(what string, f func(context.Context, device.Barrier) error) error {
	if p.dev.Barrier == nil {
		return nil
	}
	err := errBusy
	select {
	case p.busy <- struct{}{}:
		ctx, cancel := context.WithTimeout(context.WithoutCancel(p.ctx), 2*time.Second)
		done := make(chan error, 1)
		go func() {
			defer cancel()
			err := f(ctx, p.dev.Barrier)
			<-p.busy
			done <- err
		}()
		select {
		case err = <-done:
		case <-ctx.Done():
			select {
			case err = <-done:
			default:
			}
		}
	default:
	}
	if err != nil && !errors.Is(err, device.ErrRefused) {
		p.log.Error("cannot "+what+" the barrier", "err", err, "hint", "the guard may have to open by hand; the entry says who was admitted")
	}
	return err
}

// ask queues for a turn. Called by lanes.
func (p *Passage) ask(t *turn) {
	t.asked = time.Now()
	p.post(func() {
		if p.fire.On() {
			p.interrupt(t)
			return
		}
		p.waiting = append(p.waiting, t)
		p.next()
	})
}

// interrupt ends a turn of which nobody will know how it ended.
func (p *Passage) interrupt(t *turn) {
	p.record(t, edge.KindPassage, edge.ResultInterrupted, nil, nil, func() { t.lane.ended(t.p, edge.ResultInterrupted, time.Now()) })
}

func (p *Passage) next() {
	if p.cur != nil || len(p.waiting) == 0 || p.fire.On() {
		return
	}
	t := p.waiting[0]
	p.waiting = p.waiting[1:]
	p.tried()
	p.cur = t
	t.deadline = time.Now().Add(p.cfg.OpenFor)
	p.open(t)
}

// open commands the barrier for a turn. Where the other door of an interlock is
// open it is tried again until the turn's time is over.
func (p *Passage) open(t *turn) {
	p.retryAt, p.shutAt = time.Time{}, time.Time{}
	err := p.command("open", func(c context.Context, b device.Barrier) error { return b.Admit(c, t.dir) })
	if errors.Is(err, device.ErrRefused) {
		if !t.refused {
			t.refused = true
			t.lane.interlock(true)
			p.log.Info("the barrier stays shut while the other door is open")
		}
		p.retryAt = time.Now().Add(300 * time.Millisecond)
		return
	}
	if t.refused {
		t.lane.interlock(false)
	}
	var waited time.Duration
	if p.lastEnd.After(t.asked) {
		waited = p.lastEnd.Sub(t.asked)
	}
	t.opened = time.Now()
	t.deadline = t.opened.Add(p.cfg.OpenFor)
	t.door = p.door
	t.lane.opened(t.p, t.opened, waited)
	if err != nil {
		p.record(t, edge.KindDevice, "", map[string]any{"device": "barrier", "state": "fault", "error": err.Error()}, nil, nil)
	}
}

// onBeam counts a person when the beam is whole again behind them.
func (p *Passage) onBeam(c device.Change) {
	p.beam = c.Active
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
		switch {
		case t.count >= t.most:
			// Whoever comes now was not admitted: wait a moment for them.
			if t.count == t.most {
				p.secure()
				t.lane.through(t.p)
			}
			t.deadline = time.Now().Add(p.cfg.After)
		case t.count >= t.persons:
			// A dependant may follow, or not.
			t.deadline = time.Now().Add(2 * p.cfg.After)
		}
		return
	}
	if p.trial != nil {
		p.trial.persons++
		return
	}
	if p.boomUp || time.Since(p.exitAt) < p.cfg.OpenFor {
		return
	}
	if p.door || p.dev.Door == nil {
		p.record(nil, edge.KindPassage, edge.ResultForced, map[string]any{"by": "beam"}, nil, nil)
	}
}

// secure shuts the barrier, and goes on trying when that fails: a barrier that is
// held open by command must not stay so.
func (p *Passage) secure() {
	p.shutAt = time.Time{}
	if err := p.command("secure", func(c context.Context, b device.Barrier) error { return b.Secure(c) }); err != nil {
		p.shutAt = time.Now().Add(time.Second)
	}
}

func (p *Passage) onDoor(c device.Change) {
	p.door, p.doorAt = c.Active, c.At
	t := p.cur
	if !c.Active {
		if p.heldOpen {
			p.heldOpen = false
			p.record(nil, edge.KindPassage, "closed", nil, nil, nil)
		}
		if t != nil && t.door && !t.opened.IsZero() && p.dev.Beam == nil {
			// A door tells that somebody went, not how many.
			t.count, t.passedAt = t.persons, c.At
			p.secure()
			p.finish(t)
		}
		return
	}
	if t != nil {
		t.door = true
		return
	}
	if p.trial != nil {
		p.trial.door = true
		return
	}
	if !p.fire.On() && !p.boomUp && time.Since(p.lastEnd) > p.cfg.After && time.Since(p.exitAt) > p.cfg.OpenFor && c.Count > 0 {
		p.record(nil, edge.KindPassage, edge.ResultForced, map[string]any{"by": "door"}, nil, nil)
	}
}

func (p *Passage) onTamper(c device.Change) {
	if c.Count > 0 {
		p.record(nil, edge.KindAlert, "", map[string]any{"alert": "tamper", "open": c.Active}, nil, nil)
	}
}

// onExit is the request-to-exit button: leaving needs no card where one is
// fitted. It opens first and is journalled after, whatever else goes on.
func (p *Passage) onExit(c device.Change) {
	if !c.Active {
		return
	}
	p.exitAt = time.Now()
	if !p.fire.On() {
		_ = p.command("open", func(c context.Context, b device.Barrier) error { return b.Admit(c, edge.Out) })
		p.shutAt = p.exitAt.Add(p.cfg.OpenFor)
	}
	p.record(nil, edge.KindAction, "", map[string]any{"action": "exit_button"}, nil, nil)
}

// onPosition tells a boom that was raised by its own remote from one that was
// forced: the entry says so, and nobody is accused.
func (p *Passage) onPosition(c device.Change) {
	p.boomUp = c.Active
	if c.Active && p.cur == nil && c.Count > 0 && !p.fire.On() {
		p.record(nil, edge.KindPassage, "opened_outside", map[string]any{"by": "remote"}, nil, nil)
	}
}

// confirm is the guard's word at a post that cannot see for itself.
func (p *Passage) confirm(t *turn, passed bool) error {
	return p.inLoop(func() error {
		if p.cur != t {
			return edge.ErrLate
		}
		t.told = true
		if passed {
			t.count = t.persons
			t.passedAt = time.Now()
		}
		p.finish(t)
		return nil
	})
}

// inLoop waits for what f gives in the passage's loop. Only lanes wait so, and the
// passage never for them.
func (p *Passage) inLoop(f func() error) error {
	done := make(chan error, 1)
	p.post(func() { done <- f() })
	select {
	case err := <-done:
		return err
	case <-p.stopped:
		return edge.ErrLate
	}
}

func (p *Passage) arm() {
	first := time.Now().Add(time.Hour)
	take := func(t time.Time) {
		if !t.IsZero() && t.Before(first) {
			first = t
		}
	}
	if p.cur != nil {
		take(p.cur.deadline)
		take(p.retryAt)
	} else {
		take(p.shutAt)
		if p.trial != nil {
			take(p.trial.until)
		}
		if p.door && !p.heldOpen && !p.fire.On() {
			take(p.doorAt.Add(p.cfg.HeldOpen))
		}
	}
	p.timer.Reset(max(0, time.Until(first)))
}

func (p *Passage) expire() {
	now := time.Now()
	due := func(t time.Time) bool { return !t.IsZero() && !now.Before(t) }
	if t := p.cur; t != nil {
		switch {
		case due(t.deadline):
			p.finish(t)
		case due(p.retryAt):
			p.open(t)
		}
		return
	}
	if p.trial != nil && due(p.trial.until) {
		p.endTrial()
	}
	if due(p.shutAt) {
		p.shutAt = time.Time{}
		if !p.fire.On() {
			p.secure()
		}
	}
	if p.door && !p.heldOpen && due(p.doorAt.Add(p.cfg.HeldOpen)) && !p.fire.On() {
		p.heldOpen = true
		p.record(p.lastTurn, edge.KindPassage, edge.ResultHeldOpen, nil, nil, nil)
	}
}

// finish ends a turn: what happened is an entry that names the admission.
func (p *Passage) finish(t *turn) {
	p.cur, p.retryAt = nil, time.Time{}
	p.lastEnd, p.lastTurn = time.Now(), t
	if t.refused && t.opened.IsZero() {
		t.lane.interlock(false)
	}
	if t.count == 0 && t.door && p.dev.Beam == nil {
		t.count, t.passedAt = t.persons, p.lastEnd // the door is still open behind them
	}
	if t.count < t.most {
		p.secure()
	}
	observed := p.dev.Beam != nil || p.dev.Door != nil || t.told || t.opened.IsZero()
	data := map[string]any{}
	result := edge.ResultPassed
	deltas := policy.Passed(t.pass, t.dir)
	switch {
	case t.count > t.most:
		result = edge.ResultTailgated
		data["persons"] = t.count
	case t.count == 0 && observed:
		result = edge.ResultNotPassed
		deltas = policy.Release(t.reserved)
		if t.opened.IsZero() {
			data["refused"] = true
		}
	case t.count == 0:
		// Nothing here can see: whoever was let through is taken to have gone,
		// and the entry says that nobody saw it.
		data["observed"] = false
	case t.persons > 1 || t.count > 1:
		data["persons"] = t.count
	}
	at := t.passedAt
	if at.IsZero() {
		at = p.lastEnd
	}
	// The lane goes on when this is durable: its next decision may need what the
	// entry changes. The passage goes on at once.
	p.record(t, edge.KindPassage, result, data, deltas, func() { t.lane.ended(t.p, result, at) })
	p.next()
}

// record queues an entry about a turn, or about the passage itself.
func (p *Passage) record(t *turn, k edge.Kind, result string, data map[string]any, deltas []edge.Delta, then func()) {
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
	if result == edge.ResultForced || result == edge.ResultHeldOpen {
		e.Deltas = append(e.Deltas, positionsUnknown(e.Stamp))
	}
	p.ledger.add(p.ctx, e, then)
}

// positionsUnknown is the change of an entry after which people may have gone
// either way uncounted: nobody is denied for where they were believed to be.
func positionsUnknown(s edge.Stamp) edge.Delta {
	return edge.Delta{Cell: edge.Cell{Name: edge.CellReset, Subject: edge.SubjectReset}, Op: edge.OpSet, Value: s.Time}
}

// Fire is the gate's fire state. Any passage's fire contact frees them all, at
// once and before anything is written.
type Fire struct {
	deps Deps
	on   atomic.Bool

	mu       sync.Mutex
	passages []*Passage
	by       map[string]bool
	change   context.CancelFunc // ends what the last change still tries
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

func (f *Fire) set(ctx context.Context, by *Passage, on bool) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.by[by.cfg.Name] = on
	burning := false
	for _, v := range f.by {
		burning = burning || v
	}
	if f.on.Swap(burning) == burning {
		return
	}
	if f.change != nil {
		f.change()
	}
	ctx, f.change = context.WithCancel(ctx)
	var wg sync.WaitGroup
	for _, p := range f.passages {
		if p.dev.Barrier != nil {
			wg.Add(1)
			go p.free(ctx, burning, wg.Done)
		}
	}
	wg.Wait()
	s := f.deps.Clock.Now()
	e := &edge.Entry{Kind: edge.KindFire, Of: -1, Actor: "system", Stamp: s, Deltas: []edge.Delta{positionsUnknown(s)}}
	e.Data, _ = json.Marshal(map[string]any{"on": burning, "by": by.cfg.Name})
	by.ledger.add(by.ctx, e, nil)
	for _, p := range f.passages {
		p.post(func() {
			if !burning {
				p.next()
				return
			}
			if p.cur != nil {
				p.interrupt(p.cur)
			}
			for _, t := range p.waiting {
				p.interrupt(t)
			}
			p.cur, p.waiting, p.retryAt, p.shutAt = nil, nil, time.Time{}, time.Time{}
			p.tried()
		})
		for _, l := range p.lanes {
			l.setFire(burning)
		}
	}
}

// free frees the barrier, or ends that, and goes on trying until it is done or
// the fire's state changes. tried is called once, after the first attempt or
// when that takes too long.
func (p *Passage) free(ctx context.Context, on bool, tried func()) {
	tried = sync.OnceFunc(tried)
	for {
		c, cancel := context.WithTimeout(context.WithoutCancel(ctx), 2*time.Second)
		late := time.AfterFunc(2*time.Second, tried)
		err := p.dev.Barrier.Free(c, on)
		late.Stop()
		cancel()
		tried()
		if err == nil {
			return
		}
		p.log.Error("cannot free the barrier, or end that; it is tried again", "free", on, "err", err, "hint", "the lock's supply runs through the fire panel's contact; open by hand if it does not")
		if !pause(ctx, time.Second) {
			return
		}
	}
}

// Interrupted is the entry for an admission of an earlier run of which nothing
// else is known. Nothing is opened by itself, and what it reserved stays counted.
func Interrupted(of edge.Stored, admitted *edge.Entry, s edge.Stamp) *edge.Entry {
	return &edge.Entry{Kind: edge.KindPassage, Lane: admitted.Lane, Of: int64(of.Seq), Actor: "system", Stamp: s, Presentation: admitted.Presentation, Result: edge.ResultInterrupted}
}
