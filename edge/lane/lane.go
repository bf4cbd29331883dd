// Package lane holds presentations and passages: from the first card to who
// went through. It is the only code that moves a barrier. See DESIGN.md.
package lane

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"gatehouse/device"
	"gatehouse/edge"
	"gatehouse/edge/policy"
)

// Orders of card and temperature.
const (
	CardFirst        = "card_first"
	TemperatureFirst = "temperature_first"
	EitherFirst      = "either"
)

// Config is one lane.
type Config struct {
	Name, Label string
	Direction   edge.Direction
	Level       edge.Level
	Area        string
	Order       string
	Typed       bool // the guard types readings of an instrument of their own
	Present     time.Duration
	Measure     time.Duration
	Refer       time.Duration
	Parked      time.Duration
	Held        time.Duration // reads of one card within it are one presentation
	Denied      time.Duration // how long a denial is shown
	SecondPost  time.Duration // how long a call rings the booth before it rings the second post too
	Party       time.Duration // how long the lane waits for a dependant to step up
	Remeasures  int
	Queue       int
	OnTimeout   map[string]edge.Outcome // of a referral, by category; "default"
	Deadline    time.Duration           // of a commit
}

// Devices are a lane's own. Each may be nil or empty: a post without hardware.
type Devices struct {
	Scanners    []device.Scanner
	Thermometer device.Thermometer
	Indicators  []device.Indicator
	Call        device.Contact
}

// Registry finds passes.
type Registry interface {
	Lookup(ctx context.Context, c edge.Credential) (edge.Pass, bool, error)
	Pass(ctx context.Context, id edge.PassID) (edge.Pass, bool, error)
	Household(ctx context.Context, id edge.HouseholdID) (edge.Household, bool, error)
	Version() int64
}

// Journal keeps entries and cells.
type Journal interface {
	Append(ctx context.Context, e *edge.Entry, expect []edge.Expected) (uint64, error)
	Cells(ctx context.Context, cells []edge.Cell) ([]edge.CellValue, error)
}

// Deps are what lanes and passages share.
type Deps struct {
	Registry Registry
	Journal  Journal
	Policy   func() *policy.Policy
	Plan     func() *edge.PlanFacts // in force, nil for none; may be nil
	Clock    edge.Clock
	CardHash func(edge.Credential) string // of an unknown card, 16 hex digits
	IDs      *IDs
	Log      *slog.Logger
	Timings  func(Timing) // may be nil
}

// IDs numbers presentations and calls for help gate-wide.
type IDs struct{ n atomic.Uint64 }

// NewIDs starts after a number.
func NewIDs(after uint64) *IDs {
	i := &IDs{}
	i.n.Store(after)
	return i
}

// FreshIDs starts at random: a tap that a tablet has kept since an earlier start
// of the daemon matches nobody of this one. The last six digits count from 1, for
// people; all of them stay below 2^53, for readers that hold numbers as floats.
func FreshIDs() *IDs { return NewIDs(rand.Uint64N(1e9) * 1e6) }

func (i *IDs) next() uint64 { return i.n.Add(1) }

// Timing is how long the parts of one passage took.
type Timing struct {
	Lane    string
	Own     time.Duration // from the last input (card byte, reading, answer) to the barrier command, less the wait for a turn
	Commit  time.Duration // the durable commit's share of Own
	Barrier time.Duration // from the last byte of the card to the barrier command
	Passed  time.Duration // from the last byte of the card to passed; 0 = did not pass
}

// Lane is one way through a passage. One goroutine owns its state; everything
// else reaches it as an event.
type Lane struct {
	cfg     Config
	dev     Devices
	deps    Deps
	passage *Passage
	log     *slog.Logger

	events  *mailbox
	stopped chan struct{} // closed when Run has returned
	pulse   pulse
	sensing chan struct{} // holds one while a measurement has not returned

	// Owned by the loop.
	ctx      context.Context
	cur      *presentation
	queue    []waiting
	parked   []*presentation
	last     *edge.PresentationView
	answered []answered // the last final answers, the oldest first
	help     []*help
	reading  *device.Temperature // taken before any card came
	readAt   time.Time
	pre      context.CancelFunc // of a measurement that waits for anybody
	degraded []string
	states   map[string]*deviceState
	recent   map[edge.Credential]time.Time
	closed   bool
	fire     bool
	lost     int // decisions that could not be recorded since the last that was
	test     *trial
	signal   chan device.Signal
	timer    *time.Timer

	mu       sync.Mutex
	view     edge.LaneView
	shown    []byte // the view as compared
	watchers map[chan edge.LaneView]struct{}
}

type waiting struct {
	read   *device.CardRead
	start  *edge.Action  // present
	resume *presentation // a parked one that was admitted
	queued bool
}

type presentation struct {
	id        uint64
	state     edge.LaneState
	cardAt    time.Time // last byte of the card, or when the guard began
	inputAt   time.Time // the last thing that was waited for
	since     time.Time
	deadline  time.Time
	cred      edge.Credential
	pass      *edge.Pass
	house     *edge.Household
	guard     edge.GuardFacts
	held      bool
	actor     string
	occupants int  // of the vehicle, as the guard said
	outside   bool // the vehicle is not the site's, as the guard said
	plus      int  // the guard's +1
	measured  int  // persons with a reading
	temp      *edge.TemperatureFacts
	reading   string
	tries     int
	measure   context.CancelFunc
	measures  int // generation: a late result of an earlier measurement is dropped
	facts     *edge.Facts
	decision  edge.Decision
	seq       int64
	commit    time.Duration
	reserved  []edge.Delta
	language  string
	calls     int
	ring      time.Time // when an unanswered call rings the second post; zero = it does not
	turn      *turn
	aside     bool
	by        string // whose answer is final
}

// New makes a lane. It starts nothing.
func New(cfg Config, dev Devices, p *Passage, deps Deps) *Lane {
	if cfg.Denied == 0 {
		cfg.Denied = 4 * time.Second
	}
	if cfg.SecondPost == 0 {
		cfg.SecondPost = 30 * time.Second
	}
	if cfg.Party == 0 {
		cfg.Party = 3 * time.Second
	}
	if cfg.Deadline == 0 {
		cfg.Deadline = 2 * time.Second
	}
	l := &Lane{cfg: cfg, dev: dev, deps: deps, passage: p, log: deps.Log.With("lane", cfg.Name), events: newMailbox(), stopped: make(chan struct{}),
		pulse: pulse{born: time.Now()}, sensing: make(chan struct{}, 1), states: map[string]*deviceState{}, recent: map[edge.Credential]time.Time{}, signal: make(chan device.Signal, 1), watchers: map[chan edge.LaneView]struct{}{}}
	l.view = edge.LaneView{Lane: cfg.Name, Name: cfg.Label, Passage: p.cfg.Name, Level: cfg.Level, Direction: cfg.Direction, State: edge.LaneIdle,
		Scanner: "console", Thermometer: "none"}
	if len(dev.Scanners) > 0 {
		l.view.Scanner = "device"
	}
	if dev.Thermometer != nil {
		l.view.Thermometer = "device"
	} else if cfg.Typed {
		l.view.Thermometer = "typed"
	}
	p.join(l)
	return l
}

// Name is the lane's name in the configuration.
func (l *Lane) Name() string { return l.cfg.Name }

// Run works until ctx is done. Whoever is being let through keeps the barrier's
// pulse; everything else ends.
func (l *Lane) Run(ctx context.Context) error {
	defer close(l.stopped)
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	l.ctx = ctx
	var wg sync.WaitGroup
	for _, s := range l.dev.Scanners {
		wg.Go(func() { l.scan(ctx, s) })
	}
	if l.dev.Call != nil {
		wg.Go(func() { watch(ctx, l.dev.Call, func(c device.Change) { l.post(func() { l.onCall(c) }) }) })
	}
	wg.Go(func() { l.show(ctx) })
	l.timer = time.NewTimer(time.Hour)
	defer l.timer.Stop()
	health := time.NewTicker(2 * time.Second)
	defer health.Stop()
	l.say(device.SignalIdle)
	l.premeasure()
	l.publish()
	for {
		l.pulse.beat()
		l.arm()
		select {
		case <-ctx.Done():
			cancel()
			wg.Wait()
			return ctx.Err()
		case <-l.events.ready:
			for _, f := range l.events.take() {
				f()
			}
		case <-l.timer.C:
			l.expire()
		case <-health.C:
			l.checkDevices()
			l.recordHelp()
		}
		l.publish()
	}
}

// Alive returns an error when the lane's loop has not gone round for a while:
// then the watchdog must not be fed.
func (l *Lane) Alive(within time.Duration) error {
	return l.pulse.alive("lane "+l.cfg.Name, within)
}

func (l *Lane) post(f func()) { l.events.put(f) }

// scan reads one scanner for good. An error is a report: the driver reopens.
func (l *Lane) scan(ctx context.Context, s device.Scanner) {
	for {
		r, err := s.Read(ctx)
		switch {
		case ctx.Err() != nil || errors.Is(err, device.ErrClosed):
			return
		case err != nil:
			l.post(l.checkDevices)
			// A driver that fails at once must not spin here.
			if !pause(ctx, 100*time.Millisecond) {
				return
			}
		default:
			l.post(func() { l.onCard(r) })
		}
	}
}

func pause(ctx context.Context, d time.Duration) bool {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-t.C:
		return true
	case <-ctx.Done():
		return false
	}
}

// watch hands a contact's changes to f until ctx is done.
func watch(ctx context.Context, c device.Contact, f func(device.Change)) {
	for {
		ch, err := c.Watch(ctx)
		switch {
		case ctx.Err() != nil || errors.Is(err, device.ErrClosed):
			return
		case err != nil:
			if !pause(ctx, 100*time.Millisecond) {
				return
			}
		default:
			f(ch)
		}
	}
}

// say changes the lamps; the newest signal wins, and a stuck lamp holds up
// nobody.
func (l *Lane) say(s device.Signal) {
	l.endTest()
	l.light(s)
}

func (l *Lane) light(s device.Signal) {
	switch {
	case l.fire:
		s = device.SignalFree
	case l.closed && s == device.SignalIdle:
		s = device.SignalFault
	}
	select {
	case <-l.signal:
	default:
	}
	l.signal <- s
}

func (l *Lane) show(ctx context.Context) {
	for {
		select {
		case <-ctx.Done():
			return
		case s := <-l.signal:
			for _, ind := range l.dev.Indicators {
				if err := ind.Show(ctx, s); err != nil && ctx.Err() == nil {
					l.log.Warn("cannot show a signal", "signal", s, "err", err)
				}
			}
		}
	}
}

// onCard takes one read.
func (l *Lane) onCard(r device.CardRead) {
	c := edge.CredentialOf(r)
	now := time.Now()
	for old, at := range l.recent {
		if now.Sub(at) > l.cfg.Held {
			delete(l.recent, old)
		}
	}
	_, again := l.recent[c]
	l.recent[c] = now
	if again || l.fire || l.closed {
		return
	}
	if l.cur != nil && l.cur.cred == c && l.cur.state != edge.LanePassing && l.cur.state != edge.LaneDenied {
		return
	}
	if slices.ContainsFunc(l.queue, func(w waiting) bool { return w.read != nil && edge.CredentialOf(*w.read) == c }) {
		return
	}
	if l.cur != nil && l.cur.state == edge.LaneDenied {
		// The next in line need not wait until a denial has been read out.
		l.end()
	}
	l.enqueue(waiting{read: &r})
}

func (l *Lane) enqueue(w waiting) bool {
	if l.cur == nil {
		l.begin(w)
		return true
	}
	if len(l.queue) >= l.cfg.Queue {
		return false
	}
	w.queued = true
	l.queue = append(l.queue, w)
	return true
}

// begin starts a presentation.
func (l *Lane) begin(w waiting) {
	if w.resume != nil {
		p := w.resume
		l.cur = p
		l.admit(p)
		return
	}
	l.passage.endTest()
	now := time.Now()
	p := &presentation{id: l.deps.IDs.next(), state: edge.LaneMeasuring, cardAt: now, inputAt: now, since: now, seq: -1}
	l.cur = p
	var found bool
	var pass edge.Pass
	var err error
	ctx, cancel := context.WithTimeout(l.ctx, l.cfg.Deadline)
	defer cancel()
	if w.read != nil {
		p.cred = edge.CredentialOf(*w.read)
		if !w.read.At.IsZero() {
			p.cardAt = w.read.At
			if !w.queued {
				p.inputAt = w.read.At
			}
		}
		pass, found, err = l.deps.Registry.Lookup(ctx, p.cred)
	} else {
		p.actor, p.held = w.start.Actor, true
		p.guard.Identity = w.start.Identity
		pass, found, err = l.deps.Registry.Pass(ctx, w.start.Pass)
	}
	l.degrade("registry", err != nil)
	if err != nil {
		l.log.Error("cannot look up a pass", "err", err)
	}
	if found {
		p.pass, p.language = &pass, pass.Language
		if pass.Household != 0 {
			h, known, err := l.deps.Registry.Household(ctx, pass.Household)
			if known {
				p.house = &h
			}
			if err != nil {
				l.log.Warn("cannot look up a household", "household", pass.Household, "err", err)
			}
		}
	}
	l.measure(p, false)
}

// persons is how many were counted for this presentation: each has a reading,
// or the guard's word.
func (p *presentation) persons() int { return max(1, p.measured, 1+p.plus) }

// most is how many may pass. Where nobody is measured nobody has counted the
// dependants either: all of the pass's may come along.
func (p *presentation) most() int {
	if p.measured == 0 && p.pass != nil {
		return max(p.persons(), 1+p.pass.Dependants)
	}
	return p.persons()
}

// measure takes a temperature, or goes on where none is needed.
func (l *Lane) measure(p *presentation, same bool) {
	p.state = edge.LaneMeasuring
	switch {
	case !l.deps.Policy().Reads("temperature."):
		l.decide(p)
	case l.dev.Thermometer == nil && l.cfg.Typed:
		p.deadline = time.Now().Add(l.cfg.Refer)
		l.say(device.SignalWait)
	case l.dev.Thermometer == nil:
		l.merge(p, edge.TemperatureFacts{State: edge.TempNone})
		l.decide(p)
	case !same && p.measured == 0 && l.takeReading(p):
	default:
		l.say(device.SignalWait)
		l.startMeasure(p, same, l.cfg.Measure)
	}
}

func (l *Lane) startMeasure(p *presentation, same bool, most time.Duration) {
	if l.pre != nil {
		l.pre()
		l.pre = nil
	}
	if p.measure != nil {
		p.measure()
	}
	ctx, cancel := context.WithTimeout(l.ctx, most)
	p.measure = cancel
	p.measures++
	gen := p.measures
	p.deadline = time.Time{}
	th := l.dev.Thermometer
	go func() {
		defer cancel()
		t, err := l.measureWithin(ctx, th, same)
		l.post(func() {
			if l.cur == p && p.measures == gen && p.state == edge.LaneMeasuring {
				l.onReading(p, t, err)
			}
		})
	}()
}

// measureWithin bounds a thermometer that ignores its context. One that still
// has not returned from an earlier measurement is not asked again.
func (l *Lane) measureWithin(ctx context.Context, th device.Thermometer, same bool) (device.Temperature, error) {
	type result struct {
		t   device.Temperature
		err error
	}
	stuck := device.Temperature{Quality: device.QualityFault}
	select {
	case l.sensing <- struct{}{}:
	case <-ctx.Done():
		return stuck, errStuck
	}
	done := make(chan result, 1)
	go func() {
		t, err := th.Measure(ctx, device.Measurement{SamePerson: same})
		<-l.sensing
		done <- result{t, err}
	}()
	select {
	case r := <-done:
		return r.t, r.err
	case <-ctx.Done():
	}
	late := time.NewTimer(500 * time.Millisecond)
	defer late.Stop()
	select {
	case r := <-done:
		return r.t, r.err
	case <-late.C:
		return stuck, errStuck
	}
}

var errStuck = errors.New("the thermometer does not answer")

// premeasure waits for anybody to step up, where the temperature may come first.
func (l *Lane) premeasure() {
	if l.cfg.Order == CardFirst || l.cfg.Order == "" || l.dev.Thermometer == nil || l.pre != nil || l.cur != nil || !l.deps.Policy().Reads("temperature.") {
		return
	}
	ctx, cancel := context.WithCancel(l.ctx)
	l.pre = cancel
	th := l.dev.Thermometer
	go func() {
		defer cancel()
		t, err := l.measureWithin(ctx, th, false)
		if ctx.Err() != nil {
			return
		}
		l.post(func() {
			if p := l.cur; p != nil {
				// A card came at this very moment: the reading is that person's.
				if err == nil && t.Quality == device.QualityOK && p.state == edge.LaneMeasuring && p.measured == 0 && p.measure != nil {
					p.measure()
					p.measures++
					l.onReading(p, t, nil)
				}
				return
			}
			l.pre = nil
			if err != nil || t.Quality != device.QualityOK {
				time.AfterFunc(time.Second, func() { l.post(l.premeasure) })
				return
			}
			l.reading, l.readAt = &t, time.Now()
			l.say(device.SignalWait)
		})
	}()
}

// takeReading uses a temperature that was taken just before the card.
func (l *Lane) takeReading(p *presentation) bool {
	if l.reading == nil || time.Since(l.readAt) > l.cfg.Present {
		l.reading = nil
		return false
	}
	t := *l.reading
	l.reading = nil
	l.onReading(p, t, nil)
	return true
}

func (l *Lane) onReading(p *presentation, t device.Temperature, err error) {
	if err != nil && l.ctx.Err() == nil {
		l.log.Warn("cannot take a temperature", "err", err)
		t.Quality = device.QualityFault
	}
	p.inputAt = time.Now()
	f := l.deps.Policy().Band(t)
	extra := p.measured - 1 // persons beyond the holder who have a reading
	if p.measured >= 1 && t.Quality == device.QualityNobody && extra >= p.plus {
		// A dependant might have come along; nobody stepped up, so nobody did.
		l.decide(p)
		return
	}
	if t.Quality == device.QualityOK {
		p.reading = fmt.Sprintf("%.1f ±%.1f", float64(t.Value), float64(t.Uncertainty))
	}
	l.merge(p, f)
	p.measured++
	dependants := 0
	if p.pass != nil {
		dependants = p.pass.Dependants
	}
	if t.Quality == device.QualityOK && f.Band == edge.BandBelow && p.measured-1 < dependants+p.plus {
		p.tries = 0 // they are counted for each person
		most := l.cfg.Party
		if p.measured-1 < p.plus {
			most = l.cfg.Measure
		}
		l.startMeasure(p, false, most)
		return
	}
	l.decide(p)
}

// merge keeps the worst reading of a party. A remeasurement replaces it.
func (l *Lane) merge(p *presentation, f edge.TemperatureFacts) {
	f.Tries = p.tries
	if p.temp != nil {
		f.Second = p.temp.Second
		if p.measured > 0 && p.tries == 0 && badness(*p.temp) > badness(f) {
			return
		}
	}
	p.temp = &f
}

func badness(f edge.TemperatureFacts) int {
	switch {
	case f.State == edge.TempOK && f.Band == edge.BandAbove:
		return 4
	case f.State == edge.TempOK && f.Band == edge.BandNear:
		return 2
	case f.State == edge.TempOK:
		return 0
	}
	return 3
}

// gather makes the facts of a presentation, and the versions they rest on.
func (l *Lane) gather(p *presentation, pol *policy.Policy, s edge.Stamp) (*edge.Facts, []edge.Expected, error) {
	f := &edge.Facts{Lane: edge.LaneFacts{Level: l.cfg.Level, Direction: l.cfg.Direction, Area: l.cfg.Area, Degraded: slices.Clone(l.degraded), Closed: l.closed}, Time: edge.TimeFactsOf(s)}
	if p.temp != nil {
		t := *p.temp
		f.Temperature = &t
	}
	if p.guard != (edge.GuardFacts{}) {
		g := p.guard
		f.Guard = &g
	}
	if l.deps.Plan != nil {
		f.Plan = l.deps.Plan()
	}
	if l.cfg.Area != "" {
		f.Area = &edge.AreaFacts{Tier: pol.Tier(l.cfg.Area)}
	}
	if p.pass != nil {
		f.SetPass(p.pass, p.house, s, l.cfg.Area)
		f.Pass.Party, f.Pass.Held = max(0, p.measured-1, p.plus), p.held
	}
	if p.occupants > 0 || p.outside {
		if f.Vehicle == nil {
			f.Vehicle = &edge.VehicleFacts{}
		}
		f.Vehicle.Occupants, f.Vehicle.Outside = p.occupants, p.outside
	}
	cells := pol.Cells(f)
	ctx, cancel := context.WithTimeout(l.ctx, l.cfg.Deadline)
	defer cancel()
	vals, err := l.deps.Journal.Cells(ctx, cells)
	if err != nil {
		return nil, nil, err
	}
	pol.Fill(f, cells, vals)
	expect := make([]edge.Expected, len(cells))
	for i, c := range cells {
		expect[i] = edge.Expected{Cell: c, Version: vals[i].Version}
	}
	return f, expect, nil
}

// maxStale is how often a decision is made again because a cell changed
// underneath; then the guard decides.
const maxStale = 8

// decide makes the decision, journals it, and acts on it.
func (l *Lane) decide(p *presentation) {
	if p.measure != nil {
		p.measure()
	}
	pol := l.deps.Policy()
	began := time.Now()
	var seq uint64
	for range maxStale {
		s := l.deps.Clock.Now()
		f, expect, err := l.gather(p, pol, s)
		if err == nil {
			p.facts, p.decision = f, pol.Decide(f)
			if !l.offers(p) {
				p.decision.Answers = nil
			}
			e := l.entry(p, edge.KindDecision, s)
			e.Outcome, e.Rule, e.Reason, e.Authority = p.decision.Outcome, p.decision.Rule, p.decision.Reason, p.decision.Authority
			e.Matched, e.Obligations, e.Deltas, e.Facts = p.decision.Matched, p.decision.Obligations, p.decision.Deltas, f
			if p.pass == nil && p.cred != "" {
				e.Card = l.deps.CardHash(p.cred)
			}
			seq, err = l.append(e, expect)
		}
		if errors.Is(err, edge.ErrStale) {
			continue
		}
		if err != nil {
			l.unrecorded(p, err)
			return
		}
		p.seq, p.commit = int64(seq), time.Since(began)
		l.act(p)
		return
	}
	l.unrecorded(p, edge.ErrStale)
}

// offers reports whether the guard may answer: there is nobody to answer for an
// outcome that lets through.
func (l *Lane) offers(p *presentation) bool {
	return p.decision.Outcome == edge.Refer || p.decision.Outcome == edge.Deny
}

func (l *Lane) entry(p *presentation, k edge.Kind, s edge.Stamp) *edge.Entry {
	e := &edge.Entry{Kind: k, Lane: l.cfg.Name, Of: -1, Actor: p.actor, Stamp: s, Policy: l.deps.Policy().Hash(), Engine: policy.EngineVersion,
		Registry: l.deps.Registry.Version(), Presentation: p.id}
	return e
}

// errDeadline is a commit that did not come in time.
var errDeadline = errors.New("the journal's commit missed its deadline")

// append commits an entry within the deadline. A commit that comes later is
// followed by an 'abandoned' entry that releases what it reserved.
func (l *Lane) append(e *edge.Entry, expect []edge.Expected) (uint64, error) {
	type result struct {
		seq uint64
		err error
	}
	done := make(chan result, 1)
	go func() {
		seq, err := l.deps.Journal.Append(context.WithoutCancel(l.ctx), e, expect)
		done <- result{seq, err}
	}()
	t := time.NewTimer(l.cfg.Deadline)
	defer t.Stop()
	select {
	case r := <-done:
		return r.seq, r.err
	case <-t.C:
	}
	reserved := slices.Clone(e.Deltas)
	go func() {
		r := <-done
		if r.err != nil {
			return
		}
		a := &edge.Entry{Kind: edge.KindAbandoned, Lane: l.cfg.Name, Of: int64(r.seq), Actor: "system", Stamp: l.deps.Clock.Now(), Presentation: e.Presentation, Deltas: policy.Release(reserved)}
		if _, err := l.deps.Journal.Append(context.WithoutCancel(l.ctx), a, nil); err != nil {
			l.log.Error("cannot record that a decision was abandoned", "entry", r.seq, "err", err)
		}
	}()
	return 0, errDeadline
}

// alarm notes that an answer could not be recorded. When the journal takes
// entries again it is told how many were lost.
func (l *Lane) alarm(err error) {
	l.log.Error("cannot record a decision; nobody is let through", "err", err, "hint", "is the disk full or read-only? gatehouse check tells")
	l.lost++
	l.degrade("journal", true)
}

// unrecorded is the safe side: nobody passes whose admission is not on record.
func (l *Lane) unrecorded(p *presentation, err error) {
	l.alarm(err)
	p.deadline = time.Now().Add(l.cfg.Denied)
	if p.aside {
		return // it stays with the guard and is tried again
	}
	p.state = edge.LaneFault
	p.decision = edge.Decision{Outcome: edge.Refer, Rule: "journal", Reason: "journal.failed"}
	l.say(device.SignalFault)
}

// recorded ends what alarm began.
func (l *Lane) recorded() {
	if l.lost == 0 {
		return
	}
	e := l.systemEntry(edge.KindAlert, map[string]any{"alert": "journal", "undecided": l.lost})
	if _, err := l.append(e, nil); err != nil {
		l.log.Error("cannot record the alarm", "err", err)
		return
	}
	l.lost = 0
	l.degrade("journal", false)
}

// act does what the decision says. The entry is durable by now.
func (l *Lane) act(p *presentation) {
	l.recorded()
	now := time.Now()
	switch p.decision.Outcome {
	case edge.Admit:
		p.reserved = p.decision.Deltas
		l.admit(p)
	case edge.Remeasure:
		most := l.cfg.Remeasures
		if p.decision.Remeasures > 0 {
			most = min(most, p.decision.Remeasures)
		}
		if p.tries >= most && l.dev.Thermometer != nil {
			// The policy would go on for ever; a person decides then.
			p.decision.Outcome = edge.Refer
			l.refer(p)
			return
		}
		p.tries++
		p.measured = max(0, p.measured-1)
		p.state = edge.LaneMeasuring
		l.say(device.SignalWait)
		if l.dev.Thermometer == nil {
			p.deadline = now.Add(l.cfg.Refer)
			return
		}
		l.startMeasure(p, true, l.cfg.Measure)
	case edge.Refer:
		l.refer(p)
	default:
		p.state = edge.LaneDenied
		p.deadline = now.Add(l.cfg.Denied)
		if len(p.decision.Answers) > 0 {
			// The guard may know better: the denial stands until then, and the
			// queue moves on by itself.
			p.deadline = now.Add(2 * l.cfg.Denied)
		}
		l.say(device.SignalStop)
	}
}

func (l *Lane) refer(p *presentation) {
	p.state = edge.LaneReferred
	p.deadline = time.Now().Add(l.cfg.Refer)
	l.say(device.SignalStop)
}

// admit asks the passage for a turn. What was decided is durable by now.
func (l *Lane) admit(p *presentation) {
	p.state = edge.LanePassing
	p.deadline = time.Time{}
	p.turn = l.turnOf(p)
	l.passage.ask(p.turn)
}

func (l *Lane) turnOf(p *presentation) *turn {
	t := &turn{lane: l, p: p, dir: l.cfg.Direction, persons: p.persons(), most: p.most(), seq: p.seq, reserved: p.reserved, presentation: p.id}
	if p.pass != nil {
		t.pass = p.pass.ID
	}
	return t
}

// interlock is called by the passage while the other door keeps its own shut.
func (l *Lane) interlock(on bool) {
	l.post(func() {
		l.degrade("interlock", on)
		if on {
			l.say(device.SignalWait)
		}
	})
}

// opened is called by the passage when it has commanded the barrier. waited is
// the time for which another lane had the passage.
func (l *Lane) opened(p *presentation, at time.Time, waited time.Duration) {
	l.post(func() {
		if l.deps.Timings != nil {
			l.deps.Timings(Timing{Lane: l.cfg.Name, Own: at.Sub(p.inputAt) - waited, Commit: p.commit, Barrier: at.Sub(p.cardAt)})
		}
		if l.cur == p {
			p.deadline = at.Add(l.passage.openFor())
			l.say(device.SignalGo)
		}
	})
}

// through is called by the passage when all of a turn are through: whoever
// comes next must not take this light for theirs.
func (l *Lane) through(p *presentation) {
	l.post(func() {
		if l.cur == p {
			l.say(device.SignalIdle)
		}
	})
}

// ended is called by the passage when the turn is over.
func (l *Lane) ended(p *presentation, result string, at time.Time) {
	l.post(func() {
		if l.deps.Timings != nil && (result == edge.ResultPassed || result == edge.ResultTailgated) {
			l.deps.Timings(Timing{Lane: l.cfg.Name, Passed: at.Sub(p.cardAt)})
		}
		if l.cur == p {
			l.end()
		}
	})
}

// end finishes the present presentation and takes up the next.
func (l *Lane) end() {
	if p := l.cur; p != nil {
		if p.measure != nil {
			p.measure()
		}
		p.measures++
		v := l.presentationView(p)
		v.Answers = nil // too late for them
		l.last = &v
	}
	l.cur = nil
	l.say(device.SignalIdle)
	if len(l.queue) > 0 && !l.fire && (!l.closed || l.queue[0].resume != nil) {
		w := l.queue[0]
		l.queue = l.queue[1:]
		l.begin(w)
		return
	}
	l.premeasure()
}

// arm sets the timer to the earliest deadline.
func (l *Lane) arm() {
	var first time.Time
	take := func(t time.Time) {
		if !t.IsZero() && (first.IsZero() || t.Before(first)) {
			first = t
		}
	}
	if l.cur != nil && l.cur.state != edge.LanePassing {
		take(l.cur.deadline)
		take(l.cur.ring)
	}
	for _, p := range l.parked {
		take(p.deadline)
		take(p.ring)
	}
	if l.reading != nil {
		take(l.readAt.Add(l.cfg.Present))
	}
	if l.test != nil {
		take(l.test.next)
	}
	if first.IsZero() {
		l.timer.Reset(time.Hour)
		return
	}
	l.timer.Reset(max(0, time.Until(first)))
}

// expire ends whatever has run out of time.
func (l *Lane) expire() {
	now := time.Now()
	due := func(t time.Time) bool { return !t.IsZero() && !now.Before(t) }
	if l.reading != nil && due(l.readAt.Add(l.cfg.Present)) {
		l.reading = nil
		if l.cur == nil {
			l.say(device.SignalIdle)
			l.premeasure()
		}
	}
	if l.test != nil && due(l.test.next) {
		l.goOn(l.test)
	}
	for _, p := range slices.Clone(l.parked) {
		if due(p.ring) {
			l.ringSecond(p)
		}
		if due(p.deadline) {
			l.timeout(p)
		}
	}
	p := l.cur
	if p == nil {
		return
	}
	if due(p.ring) {
		l.ringSecond(p)
	}
	if !due(p.deadline) {
		return
	}
	switch p.state {
	case edge.LaneMeasuring:
		// Only a typed reading has a deadline here: nobody typed one.
		l.merge(p, edge.TemperatureFacts{State: edge.TempMissing, Typed: true})
		p.measured++
		l.decide(p)
	case edge.LaneReferred:
		l.timeout(p)
	case edge.LaneDenied, edge.LaneFault:
		l.end()
	}
}

// timeout is a referral that no guard answered: the outcome is configured by
// category, the policy's word first. A resident's own home is never denied by it.
func (l *Lane) timeout(p *presentation) {
	out := p.decision.Timeout
	if out == "" && p.pass != nil {
		out = l.cfg.OnTimeout[p.pass.Category]
	}
	if out == "" {
		out = l.cfg.OnTimeout["default"]
	}
	home := p.pass != nil && p.pass.Category == "resident" && l.cfg.Direction == edge.In
	if out == edge.Refer || (home && out != edge.Admit) {
		// Stays with the guard; aside, so that the queue moves.
		if !p.aside {
			if err := l.park(p, "system"); err != nil {
				l.log.Warn("cannot set a referral aside; it stays at the lane", "err", err)
				p.deadline = time.Now().Add(l.cfg.Refer)
			}
			return
		}
		p.deadline = time.Now().Add(l.cfg.Parked)
		p.calls++
		return
	}
	s := l.deps.Clock.Now()
	e := l.entry(p, edge.KindAction, s)
	e.Of, e.Actor, e.Outcome, e.Reason = p.seq, "system", out, "refer.timeout"
	e.Data = []byte(`{"action":"timeout"}`)
	if out == edge.Admit {
		e.Deltas = l.deps.Policy().Reserve(p.facts)
	}
	seq, err := l.append(e, nil)
	if err != nil {
		l.unrecorded(p, err)
		return
	}
	p.seq, p.decision.Outcome, p.decision.Reason, p.decision.Answers = int64(seq), out, "refer.timeout", nil
	l.final(p, "system", out)
	l.settle(p, out, e.Deltas)
}

// answered is a final answer as it is remembered for whoever comes too late.
type answered struct {
	id uint64
	edge.Late
}

// maxAnswered bounds what is remembered: a tap that is older is late without a name.
const maxAnswered = 32

// final notes whose answer counts; every later one is late.
func (l *Lane) final(p *presentation, by string, out edge.Outcome) {
	p.by = by
	if len(l.answered) == maxAnswered {
		l.answered = slices.Delete(l.answered, 0, 1)
	}
	l.answered = append(l.answered, answered{p.id, edge.Late{By: by, Outcome: out}})
}

// late says who has answered for a presentation, when somebody has.
func (l *Lane) late(id uint64) error {
	if i := slices.IndexFunc(l.answered, func(a answered) bool { return a.id == id }); i >= 0 {
		return l.answered[i].Late
	}
	return edge.ErrLate
}

// settle carries out a final answer for the present or a parked presentation.
func (l *Lane) settle(p *presentation, out edge.Outcome, reserved []edge.Delta) {
	l.recorded()
	parked := l.unpark(p)
	if out == edge.Admit {
		p.reserved = reserved
		if parked {
			if l.cur == nil {
				l.cur = p
				l.admit(p)
			} else {
				p.state = edge.LanePassing
				l.queue = append([]waiting{{resume: p}}, l.queue...)
			}
			return
		}
		l.admit(p)
		return
	}
	if parked {
		return
	}
	p.state = edge.LaneDenied
	p.deadline = time.Now().Add(l.cfg.Denied)
	l.say(device.SignalStop)
}

// maxParked bounds the tray.
const maxParked = 12

func (l *Lane) park(p *presentation, actor string) error {
	if len(l.parked) >= maxParked {
		return edge.Refuse("parked_full", "%d referrals stand aside already", maxParked)
	}
	if err := l.record(p, actor, "aside", nil); err != nil {
		return err
	}
	p.aside = true
	p.deadline = time.Now().Add(l.cfg.Parked)
	l.parked = append(l.parked, p)
	if l.cur == p {
		l.end()
	}
	return nil
}

func (l *Lane) unpark(p *presentation) bool {
	i := slices.Index(l.parked, p)
	if i < 0 {
		return false
	}
	l.parked = slices.Delete(l.parked, i, i+1)
	p.aside = false
	return true
}
