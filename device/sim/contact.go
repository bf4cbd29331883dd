package sim

import (
	"context"
	"sync"
	"time"

	"gatehouse/device"
	"gatehouse/device/bus"
)

// Contact is a binary input that exists in memory only, behind its driver
// rather than on its line: for those who use contacts.
type Contact struct {
	*bus.Status
	name string

	mu     sync.Mutex
	queue  []device.Change
	active bool
	count  uint64
	err    error // to be reported
	known  bool
	closed bool
	wake   chan struct{}
}

var _ device.Contact = (*Contact)(nil)

// NewContact returns a contact that is not active.
func NewContact(name string) *Contact {
	return &Contact{Status: bus.NewStatus(name, "simulated contact", "memory"), name: name, wake: make(chan struct{}, 1)}
}

// Set makes the contact active or not.
func (c *Contact) Set(active bool) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.active == active {
		return
	}
	c.active = active
	if c.known {
		if active {
			c.count++
		}
		c.queue = append(c.queue, device.Change{Active: active, At: time.Now(), Count: c.count})
	}
	c.signal()
}

// Break has the next Watch report a disconnection; nothing else changes.
func (c *Contact) Break() {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.err = &device.Error{Device: c.name, Op: "read", Kind: device.ErrDisconnected}
	c.Fail(c.err)
	c.signal()
}

func (c *Contact) signal() {
	select {
	case c.wake <- struct{}{}:
	default:
	}
}

// Watch implements device.Contact.
func (c *Contact) Watch(ctx context.Context) (device.Change, error) {
	for {
		if err := ctx.Err(); err != nil {
			return device.Change{}, err
		}
		c.mu.Lock()
		switch {
		case c.closed:
			c.mu.Unlock()
			return device.Change{}, &device.Error{Device: c.name, Op: "read", Kind: device.ErrClosed}
		case !c.known:
			c.known = true
			now := device.Change{Active: c.active, At: time.Now(), Count: c.count}
			c.Good(now.At)
			c.mu.Unlock()
			return now, nil
		case len(c.queue) > 0:
			ch := c.queue[0]
			c.queue = c.queue[1:]
			c.Good(ch.At)
			c.mu.Unlock()
			return ch, nil
		case c.err != nil:
			err := c.err
			c.err = nil
			c.mu.Unlock()
			return device.Change{}, err
		}
		c.mu.Unlock()
		select {
		case <-c.wake:
		case <-ctx.Done():
		}
	}
}

// Close ends a Watch.
func (c *Contact) Close() error {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.closed = true
	c.Status.Set(device.StateClosed, "")
	c.signal()
	return nil
}
