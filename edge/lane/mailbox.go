package lane

import "sync"

// mailbox is how events reach a loop. Putting never blocks, so that a lane and
// its passage, which write to each other, cannot wait for each other; what comes
// from devices is limited by their drivers.
type mailbox struct {
	mu    sync.Mutex
	items []func()
	ready chan struct{}
}

func newMailbox() *mailbox { return &mailbox{ready: make(chan struct{}, 1)} }

func (m *mailbox) put(f func()) {
	m.mu.Lock()
	m.items = append(m.items, f)
	m.mu.Unlock()
	select {
	case m.ready <- struct{}{}:
	default:
	}
}

func (m *mailbox) take() []func() {
	m.mu.Lock()
	defer m.mu.Unlock()
	out := m.items
	m.items = nil
	return out
}
