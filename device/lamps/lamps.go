// Package lamps shows a signal with up to three lamps and a buzzer.
//
// # Signals
//
//	idle    all off
//	wait    wait lamp on
//	go      go lamp on, one short tone
//	stop    stop lamp on, two tones: refer and deny look and sound the same
//	free    go lamp blinks
//	fault   stop lamp blinks slowly
//	call    wait lamp blinks, the buzzer rings
//
// A lamp that is not fitted is left out; without a wait lamp, wait shows nothing.
//
// # Wiring
//
// Each line drives a transistor or a relay, never a lamp itself. A resistor to
// the level that is not active keeps lamps dark while the Pi boots.
//
// # Config
//
//	indicator:
//	  driver: lamps
//	  go: GPIO22
//	  stop: GPIO23
//	  wait: GPIO24         # may be left out, as each may
//	  buzzer: GPIO25
//	  active: high
//
// # What was checked
//
// The contract suite on periph's test pins and pins in memory.
package lamps

import (
	"context"
	"errors"
	"io"
	"strings"
	"sync"
	"time"

	"periph.io/x/conn/v3/gpio"

	"gatehouse/device"
	"gatehouse/device/bus"
	"gatehouse/device/options"
)

// Config is the options.
type Config struct {
	Go     string `yaml:"go"`
	Stop   string `yaml:"stop"`
	Wait   string `yaml:"wait"`
	Buzzer string `yaml:"buzzer"`
	Active string `yaml:"active"` // high or low
}

// Outputs.
const (
	goLamp = iota
	stopLamp
	waitLamp
	buzzer
	outputs
)

// Names are the config keys of the outputs, in the order in which New takes
// their pins.
func Names() []string { return []string{"go", "stop", "wait", "buzzer"} }

// Lines are the configured lines in the order of Names, "" where none is.
func (c Config) Lines() []string { return []string{c.Go, c.Stop, c.Wait, c.Buzzer} }

// Load reads and checks the options.
func Load(n options.Node) (Config, error) {
	c := Config{Active: "high"}
	if err := n.Decode(&c); err != nil {
		return c, err
	}
	if c.Active != "high" && c.Active != "low" {
		return c, n.At("active").Errorf("%q is not high or low", c.Active)
	}
	if strings.Join(c.Lines(), "") == "" {
		return c, n.Errorf("no lamp is given: go, stop, wait or buzzer")
	}
	return c, nil
}

// step is a part of a pattern: which outputs are on, and for how long. The last
// one, with no duration, stays.
type step struct {
	on [outputs]bool
	d  time.Duration
}

// pattern is what a signal looks like; again is the step that follows the last
// one where that has a duration.
type pattern struct {
	steps []step
	again int
}

func on(which ...int) (o [outputs]bool) {
	for _, w := range which {
		o[w] = true
	}
	return o
}

const (
	tone  = 120 * time.Millisecond
	blink = 500 * time.Millisecond
	slow  = 1500 * time.Millisecond
)

func patternOf(s device.Signal) (pattern, bool) {
	switch s {
	case device.SignalIdle:
		return pattern{steps: []step{{}}}, true
	case device.SignalWait:
		return pattern{steps: []step{{on: on(waitLamp)}}}, true
	case device.SignalGo:
		return pattern{steps: []step{{on(goLamp, buzzer), tone}, {on: on(goLamp)}}}, true
	case device.SignalStop:
		return pattern{steps: []step{{on(stopLamp, buzzer), tone}, {on(stopLamp), tone}, {on(stopLamp, buzzer), tone}, {on: on(stopLamp)}}}, true
	case device.SignalFree:
		return pattern{steps: []step{{on(goLamp), blink}, {on(), blink}}}, true
	case device.SignalFault:
		return pattern{steps: []step{{on(stopLamp), slow}, {on(), slow}}}, true
	case device.SignalCall:
		return pattern{steps: []step{{on(waitLamp, buzzer), blink}, {on(), blink}}}, true
	}
	return pattern{}, false
}

// Lamps is an Indicator.
type Lamps struct {
	*bus.Status
	name   string
	active gpio.Level

	mu     sync.Mutex
	pins   [outputs]gpio.PinIO // nil where not fitted
	known  [outputs]bool       // the level was written
	lit    [outputs]bool
	show   pattern
	timer  *time.Timer
	closed bool
}

var _ device.Indicator = (*Lamps)(nil)

// New builds an indicator on its lines, in the order of Names and nil where
// none is fitted. It owns them and touches nothing yet.
func New(name string, c Config, pins []gpio.PinIO) *Lamps {
	l := &Lamps{name: name, active: gpio.Level(c.Active == "high")}
	var where []string
	for i, line := range c.Lines() {
		if line != "" {
			where = append(where, Names()[i]+" "+line)
		}
	}
	copy(l.pins[:], pins)
	l.Status = bus.NewStatus(name, "lamps", strings.Join(where, ", "))
	return l
}

// Show shows a signal until the next one.
func (l *Lamps) Show(_ context.Context, s device.Signal) error {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.closed {
		return &device.Error{Device: l.name, Op: "write", Kind: device.ErrClosed}
	}
	p, ok := patternOf(s)
	if !ok {
		return &device.Error{Device: l.name, Op: "write", Kind: device.ErrOutOfRange, Err: errors.New("no such signal: " + string(s))}
	}
	l.show = p
	return l.play(0)
}

// play shows a step and arranges for the next. l.mu is held.
func (l *Lamps) play(i int) error {
	if l.timer != nil {
		l.timer.Stop()
		l.timer = nil
	}
	st := l.show.steps[i]
	err := l.write(st.on)
	next, d := i+1, st.d
	if next == len(l.show.steps) {
		next = l.show.again
	}
	if err != nil {
		next, d = i, blink // the same once more
	}
	if d > 0 {
		var t *time.Timer
		t = time.AfterFunc(d, func() {
			l.mu.Lock()
			defer l.mu.Unlock()
			if l.timer == t && !l.closed {
				_ = l.play(next) // in the health
			}
		})
		l.timer = t
	}
	return err
}

func (l *Lamps) write(on [outputs]bool) error {
	var errs []error
	for i, p := range l.pins {
		if p == nil || (l.known[i] && l.lit[i] == on[i]) {
			continue
		}
		if err := p.Out(on[i] == bool(l.active)); err != nil {
			l.known[i] = false
			errs = append(errs, l.fault(err))
			continue
		}
		l.known[i], l.lit[i] = true, on[i]
	}
	if err := errors.Join(errs...); err != nil {
		l.Fail(err)
		return err
	}
	l.Good(time.Now())
	return nil
}

func (l *Lamps) fault(err error) error {
	var e *device.Error
	if errors.As(err, &e) {
		return err
	}
	kind := device.ErrAbsent
	if !l.Health().LastRead.IsZero() {
		kind = device.ErrDisconnected
	}
	return &device.Error{Device: l.name, Op: "write", Kind: kind, Err: err}
}

// Try takes the lines, dark, and says why they cannot be had.
func (l *Lamps) Try() error { return l.Show(context.Background(), device.SignalIdle) }

// Close leaves all dark.
func (l *Lamps) Close() error {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.closed {
		return nil
	}
	l.closed = true
	if l.timer != nil {
		l.timer.Stop()
	}
	var errs []error
	for i, p := range l.pins {
		if p == nil {
			continue
		}
		if l.known[i] {
			errs = append(errs, p.Out(!l.active))
		}
		if c, ok := p.(io.Closer); ok {
			errs = append(errs, c.Close())
		}
	}
	l.Set(device.StateClosed, "")
	return errors.Join(errs...)
}
