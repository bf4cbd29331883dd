// Package contact reads a binary input on a GPIO line: door contact, light
// beam, push button, fire or tamper contact.
//
// A change counts when the line has been still for the debounce time, and bears
// the time of its first edge. A shorter pulse is no change; it is counted as
// noise.
//
// # Wiring
//
// A dry contact between the line and ground, with the line pulled up: closed is
// low. A normally open contact (button, reed contact that closes when the door
// opens) has active: low; a normally closed one (a loop that opens on alarm, a
// beam's relay that drops) has active: high, and a cut cable is then the alarm.
// Long cables want an external pull-up of 1k to 4.7k and an opto-coupler.
//
// # Config
//
//	contact:
//	  driver: gpio
//	  pin: GPIO5
//	  active: low          # the level at which its meaning is true
//	  debounce: 20ms
//	  pull: up             # up, down, none
//
// # What was checked
//
// The contract suite on periph's test pins and pins in memory; bursts of
// bouncing; the kernel's GPIO in a virtual machine.
package contact

import (
	"context"
	"errors"
	"io"
	"sync"
	"time"

	"periph.io/x/conn/v3/gpio"

	"gatehouse/device"
	"gatehouse/device/bus"
	"gatehouse/device/options"
)

// Config is the options.
type Config struct {
	Pin      string        `yaml:"pin"`
	Active   string        `yaml:"active"`
	Debounce time.Duration `yaml:"debounce"`
	Pull     string        `yaml:"pull"`
}

// Load reads and checks the options.
func Load(n options.Node) (Config, error) {
	c := Config{Active: "low", Debounce: 20 * time.Millisecond, Pull: "up"}
	if err := n.Decode(&c); err != nil {
		return c, err
	}
	if c.Pin == "" {
		return c, n.At("pin").Errorf("must be given: a GPIO line, like GPIO5")
	}
	if c.Active != "high" && c.Active != "low" {
		return c, n.At("active").Errorf("%q is not high or low", c.Active)
	}
	if _, ok := c.pull(); !ok {
		return c, n.At("pull").Errorf("%q is not up, down or none", c.Pull)
	}
	if c.Debounce < 0 || c.Debounce > time.Second {
		return c, n.At("debounce").Errorf("%v is not between 0s and 1s", c.Debounce)
	}
	return c, nil
}

func (c Config) pull() (gpio.Pull, bool) {
	switch c.Pull {
	case "up":
		return gpio.PullUp, true
	case "down":
		return gpio.PullDown, true
	case "none":
		return gpio.Float, true
	}
	return gpio.PullNoChange, false
}

const (
	// look is how often the line is looked at besides waiting for its edges:
	// whether it still works, and, of pins that cannot be woken, whether the
	// contact was closed.
	look     = time.Second
	lookPoor = 50 * time.Millisecond
	// bounces are the edges after which a line that never rests is taken as it is.
	bounces = 200
	// kept are the changes that wait for a Watch.
	kept = 256
	// again are the pauses between attempts to have a line that is not there.
	againFirst, againMost = 100 * time.Millisecond, 5 * time.Second
)

// edgePin is a pin whose waits end when they should, with its edges' times.
type edgePin interface {
	gpio.PinIO
	EdgeTime() time.Time
	Err() error
}

// Contact is a device.Contact. A goroutine follows the line from the first
// Watch on, so that no change between two Watches is lost.
type Contact struct {
	*bus.Status
	name string
	c    Config
	pin  gpio.PinIO
	good edgePin // pin, nil when it cannot do that

	mu      sync.Mutex
	queue   []device.Change
	err     error // to be reported
	count   uint64
	started bool
	closed  bool
	wake    chan struct{} // one token: something is there
	stop    chan struct{}
	done    chan struct{}
}

var _ device.Contact = (*Contact)(nil)

// New builds a contact on its line, which it owns. It touches nothing yet.
func New(name string, c Config, pin gpio.PinIO) *Contact {
	k := &Contact{Status: bus.NewStatus(name, "gpio", c.Pin), name: name, c: c, pin: pin,
		wake: make(chan struct{}, 1), stop: make(chan struct{}), done: make(chan struct{})}
	k.good, _ = pin.(edgePin)
	return k
}

// Watch blocks for the next change; the first call returns the present state.
func (k *Contact) Watch(ctx context.Context) (device.Change, error) {
	for {
		if err := ctx.Err(); err != nil {
			return device.Change{}, err
		}
		k.mu.Lock()
		switch {
		case k.closed:
			k.mu.Unlock()
			return device.Change{}, k.error(device.ErrClosed, nil)
		case !k.started:
			k.started = true
			go k.run()
		case len(k.queue) > 0:
			c := k.queue[0]
			k.queue = k.queue[1:]
			k.mu.Unlock()
			return c, nil
		case k.err != nil:
			err := k.err
			k.err = nil
			k.mu.Unlock()
			return device.Change{}, err
		}
		k.mu.Unlock()
		select {
		case <-k.wake:
		case <-k.stop:
		case <-ctx.Done():
		}
	}
}

func (k *Contact) run() {
	defer close(k.done)
	pull, _ := k.c.pull()
	pause, first, last, had := againFirst, true, gpio.Low, false
	for !k.stopped() {
		if err := k.pin.In(pull, gpio.BothEdges); err != nil {
			kind := device.ErrAbsent
			if had {
				kind = device.ErrDisconnected
			}
			k.report(kind, err)
			k.rest(pause)
			pause = min(2*pause, againMost)
			continue
		}
		if k.stopped() { // In takes back a Halt
			return
		}
		if had {
			k.Reopened()
		}
		had, pause = true, againFirst
		k.Answers()
		if l := k.pin.Read(); first || l != last {
			k.emit(l, time.Now(), first)
			first, last = false, l
		}
		last = k.follow(last)
	}
}

// follow reports changes until the line fails or the contact is closed.
func (k *Contact) follow(last gpio.Level) gpio.Level {
	for !k.stopped() {
		wait := look
		if k.good == nil {
			wait = lookPoor
		}
		if !k.pin.WaitForEdge(wait) {
			if k.good != nil {
				if err := k.good.Err(); err != nil {
					k.report(device.ErrDisconnected, err)
					k.rest(againFirst)
					return last
				}
			}
			if k.pin.Read() == last {
				continue
			}
		}
		at := time.Now()
		if k.good != nil && !k.good.EdgeTime().IsZero() {
			at = k.good.EdgeTime()
		}
		for range bounces {
			if k.c.Debounce == 0 || !k.pin.WaitForEdge(k.c.Debounce) {
				break
			}
		}
		if l := k.pin.Read(); l != last {
			last = l
			k.emit(l, at, false)
		} else {
			k.Noise(1)
		}
	}
	return last
}

func (k *Contact) emit(l gpio.Level, at time.Time, first bool) {
	active := bool(l) == (k.c.Active == "high")
	k.Good(at)
	k.mu.Lock()
	defer k.mu.Unlock()
	if active && !first {
		k.count++
	}
	if len(k.queue) == kept {
		k.queue = k.queue[1:]
		k.Count("dropped", 1)
	}
	k.queue = append(k.queue, device.Change{Active: active, At: at, Count: k.count})
	k.notify()
}

// report puts a fault into the health, and before Watch when it begins.
func (k *Contact) report(kind, err error) {
	var e *device.Error
	if !errors.As(err, &e) {
		err = k.error(kind, err)
	}
	if k.Fail(err) {
		k.mu.Lock()
		defer k.mu.Unlock()
		k.err = err
		k.notify()
	}
}

func (k *Contact) notify() {
	select {
	case k.wake <- struct{}{}:
	default:
	}
}

func (k *Contact) error(kind, err error) error {
	return &device.Error{Device: k.name, Op: "read", Kind: kind, Err: err}
}

func (k *Contact) stopped() bool {
	select {
	case <-k.stop:
		return true
	default:
		return false
	}
}

func (k *Contact) rest(d time.Duration) {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-t.C:
	case <-k.stop:
	}
}

// Try takes the line and says why it cannot be had.
func (k *Contact) Try() error {
	k.mu.Lock()
	defer k.mu.Unlock()
	if k.started || k.closed {
		return nil
	}
	pull, _ := k.c.pull()
	return k.pin.In(pull, gpio.NoEdge)
}

// Close ends a Watch and gives the line back.
func (k *Contact) Close() error {
	k.mu.Lock()
	if k.closed {
		k.mu.Unlock()
		return nil
	}
	k.closed = true
	started := k.started
	close(k.stop)
	k.mu.Unlock()
	err := k.pin.Halt()
	if started {
		<-k.done
	}
	if c, ok := k.pin.(io.Closer); ok {
		err = errors.Join(err, c.Close())
	}
	k.Set(device.StateClosed, "")
	return err
}
