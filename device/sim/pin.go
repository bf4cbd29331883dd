package sim

import (
	"errors"
	"sync"
	"time"

	"periph.io/x/conn/v3/gpio"
	"periph.io/x/conn/v3/physic"
)

// Pins is a header of GPIO lines that exist in memory only. Its Pin method
// makes them as they are asked for.
type Pins struct {
	mu sync.Mutex
	m  map[string]*Pin
}

// NewPins returns a header without lines.
func NewPins() *Pins { return &Pins{m: map[string]*Pin{}} }

// Pin is the line of that name, always the same one.
func (p *Pins) Pin(name string) *Pin {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.m[name] == nil {
		p.m[name] = NewPin(name)
	}
	return p.m[name]
}

// Open is Pin for the catalogue of drivers.
func (p *Pins) Open(name string) (gpio.PinIO, error) { return p.Pin(name), nil }

// Move is a change of a line that the near end drives: what a probe on the
// wire sees.
type Move struct {
	Level gpio.Level
	At    time.Time
}

// Pin is one line in memory. The near end is a periph pin and behaves like
// the one in package bus; the far end drives inputs (Drive) and sees outputs
// (Level, Moves, OnMove).
type Pin struct {
	name string

	mu      sync.Mutex
	out     bool
	near    gpio.Level // what the near end drives
	far     gpio.Level // what the far end drives
	driven  bool       // the far end drives
	pull    gpio.Pull
	edge    gpio.Edge
	edges   []Move
	edgeAt  time.Time
	halted  bool
	changed chan struct{}
	moves   []Move
	onMove  []func(Move)
	broken  error
}

var _ gpio.PinIO = (*Pin)(nil)

// NewPin returns a line that nobody drives: an input with a pull-up.
func NewPin(name string) *Pin {
	return &Pin{name: name, pull: gpio.PullUp, changed: make(chan struct{})}
}

// Most is how many moves and waiting edges are kept.
const keepMoves = 4096

// Drive sets the level from the far end, as a contact or another chip does.
func (p *Pin) Drive(l gpio.Level) {
	p.mu.Lock()
	defer p.mu.Unlock()
	before := p.level()
	p.driven, p.far = true, l
	if p.out || before == l {
		return
	}
	if p.edge == gpio.BothEdges || (p.edge == gpio.RisingEdge && bool(l)) || (p.edge == gpio.FallingEdge && !bool(l)) {
		if len(p.edges) < keepMoves {
			p.edges = append(p.edges, Move{l, time.Now()})
		}
		p.notify()
	}
}

// Release stops driving: the pull decides.
func (p *Pin) Release() {
	p.mu.Lock()
	pulled := gpio.Level(p.pull != gpio.PullDown)
	p.mu.Unlock()
	p.Drive(pulled)
	p.mu.Lock()
	p.driven = false
	p.mu.Unlock()
}

// Break makes all calls fail, as a chip that has gone; nil mends it.
func (p *Pin) Break(err error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.broken = err
	p.notify()
}

// Level is what is on the wire.
func (p *Pin) Level() gpio.Level {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.level()
}

// IsOutput reports whether the near end drives the line.
func (p *Pin) IsOutput() bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.out
}

// Moves are the changes that the near end made, the first being its first Out.
func (p *Pin) Moves() []Move {
	p.mu.Lock()
	defer p.mu.Unlock()
	return append([]Move(nil), p.moves...)
}

// OnMove calls f with every change that the near end makes from now on. f must
// be quick and must not call the pin.
func (p *Pin) OnMove(f func(Move)) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.onMove = append(p.onMove, f)
}

func (p *Pin) level() gpio.Level {
	switch {
	case p.out:
		return p.near
	case p.driven:
		return p.far
	}
	return p.pull != gpio.PullDown
}

func (p *Pin) notify() {
	close(p.changed)
	p.changed = make(chan struct{})
}

// String, Name, Number and Function are periph's.
func (p *Pin) String() string   { return p.name }
func (p *Pin) Name() string     { return p.name }
func (p *Pin) Number() int      { return -1 }
func (p *Pin) Function() string { return "" }

// In makes the line an input, drops edges that came before, and takes back a
// Halt.
func (p *Pin) In(pull gpio.Pull, edge gpio.Edge) error {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.broken != nil {
		return p.broken
	}
	if pull != gpio.PullNoChange {
		p.pull = pull
	}
	p.out, p.edge, p.edges, p.halted = false, edge, nil, false
	p.notify()
	return nil
}

// Out makes the line an output of that level.
func (p *Pin) Out(l gpio.Level) error {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.broken != nil {
		return p.broken
	}
	if p.out && p.near == l {
		return nil
	}
	p.out, p.near = true, l
	m := Move{l, time.Now()}
	if len(p.moves) == keepMoves {
		p.moves = append(p.moves[:0], p.moves[keepMoves/2:]...)
	}
	p.moves = append(p.moves, m)
	for _, f := range p.onMove {
		f(m)
	}
	return nil
}

// Read is the level on the wire.
func (p *Pin) Read() gpio.Level { return p.Level() }

// Err is why the line does not work, nil when it does.
func (p *Pin) Err() error {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.broken
}

// WaitForEdge waits like the pin of package bus: -1 without limit, false at once
// after Halt, also one that came before.
func (p *Pin) WaitForEdge(timeout time.Duration) bool {
	var after <-chan time.Time
	if timeout >= 0 {
		t := time.NewTimer(timeout)
		defer t.Stop()
		after = t.C
	}
	for {
		p.mu.Lock()
		if p.halted || p.broken != nil {
			p.mu.Unlock()
			return false
		}
		if len(p.edges) > 0 {
			p.edgeAt = p.edges[0].At
			p.edges = p.edges[1:]
			p.mu.Unlock()
			return true
		}
		changed := p.changed
		p.mu.Unlock()
		select {
		case <-changed:
		case <-after:
			return false
		}
	}
}

// EdgeTime is when the edge came that WaitForEdge reported last.
func (p *Pin) EdgeTime() time.Time {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.edgeAt
}

// Halt ends a WaitForEdge, until In is called.
func (p *Pin) Halt() error {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.halted = true
	p.notify()
	return nil
}

func (p *Pin) Pull() gpio.Pull        { return p.pull }
func (p *Pin) DefaultPull() gpio.Pull { return gpio.PullUp }

// PWM is not offered.
func (p *Pin) PWM(gpio.Duty, physic.Frequency) error { return errors.New("no PWM on this line") }
