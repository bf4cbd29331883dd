package bus

import (
	"errors"
	"maps"
	"sync"
	"time"

	"gatehouse/device"
)

// Status keeps a device's Health for its driver, and with it the conduct of
// package device: a fault is reported once, when it begins. It is safe for
// concurrent use.
type Status struct {
	mu      sync.Mutex
	h       device.Health
	garbled time.Time // of the last report
}

// NewStatus starts with StateStarting.
func NewStatus(name, driver, where string) *Status {
	return &Status{h: device.Health{Name: name, Driver: driver, Where: where, State: device.StateStarting, Since: time.Now()}}
}

// Health returns a snapshot.
func (s *Status) Health() device.Health {
	s.mu.Lock()
	defer s.mu.Unlock()
	h := s.h
	h.Detail = maps.Clone(h.Detail)
	return h
}

// Good counts a good read or write, and ends a fault.
func (s *Status) Good(at time.Time) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.h.Reads++
	s.h.LastRead = at
	s.state(device.StateOK, "")
}

// Seen says that the device gave something good that is not to be counted,
// a card still held.
func (s *Status) Seen(at time.Time) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.h.LastRead = at
}

// Answers says that the device is there, though it had nothing to say yet.
func (s *Status) Answers() { s.Set(device.StateOK, "") }

// Set puts the device in a state, for a reason.
func (s *Status) Set(st device.State, reason string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.state(st, reason)
}

// Fail takes a device.Error into the health and reports whether the caller
// should return it: true when the fault begins. ErrGarbled is a passing fault:
// true at most once a second. It does not count; Garbled does.
func (s *Status) Fail(err error) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	st := device.StateFault
	switch {
	case errors.Is(err, device.ErrClosed):
		st = device.StateClosed
	case errors.Is(err, device.ErrAbsent):
		st = device.StateAbsent
	case errors.Is(err, device.ErrDisconnected):
		st = device.StateDisconnected
	case errors.Is(err, device.ErrGarbled):
		s.h.LastError = err.Error()
		if now := time.Now(); s.garbled.IsZero() || now.Sub(s.garbled) >= time.Second {
			s.garbled = now
			return true
		}
		return false
	}
	begins := s.h.State != st
	s.state(st, err.Error())
	return begins
}

// Garbled counts refused frames, Noise bytes or pulses outside any frame.
func (s *Status) Garbled(n uint64) { s.mu.Lock(); s.h.Garbled += n; s.mu.Unlock() }
func (s *Status) Noise(n uint64)   { s.mu.Lock(); s.h.Noise += n; s.mu.Unlock() }

// Reopened counts a reopening.
func (s *Status) Reopened() { s.mu.Lock(); s.h.Reopens++; s.mu.Unlock() }

// Count adds to a counter that only this driver has.
func (s *Status) Count(name string, n uint64) {
	if n == 0 {
		return
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.h.Detail == nil {
		s.h.Detail = map[string]uint64{}
	}
	s.h.Detail[name] += n
}

func (s *Status) state(st device.State, reason string) {
	if s.h.State == device.StateClosed {
		return
	}
	if s.h.State != st {
		s.h.State, s.h.Since = st, time.Now()
	}
	if reason != "" {
		s.h.LastError = reason
	}
}
