// Package outage tests the chain from a gate's journal to the community server over
// lines and with machines that fail.
package outage

import (
	"io"
	"net"
	"sync"
	"sync/atomic"
	"testing"
	"time"
)

// mode is how a proxy treats what passes through it.
type mode int32

const (
	pass   mode = iota
	hole        // takes everything and forwards nothing, in both directions; new connections too
	mute        // forwards to the broker, and nothing back: a half-open line
	muteUp      // forwards to the client, and nothing to the broker
	slow        // some 40 kB/s
	refuse      // closes every connection at once
	flap        // closes connections after a moment
)

func (m mode) String() string {
	return [...]string{"pass", "hole", "mute", "mute up", "slow", "refuse", "flap"}[m]
}

// proxy stands between a client and a broker.
type proxy struct {
	l    net.Listener
	to   string
	mode atomic.Int32

	mu    sync.Mutex
	conns map[net.Conn]bool
	parts sync.WaitGroup
}

func newProxy(t *testing.T, to string) *proxy {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	p := &proxy{l: l, to: to, conns: map[net.Conn]bool{}}
	p.parts.Go(p.accept)
	t.Cleanup(func() {
		_ = l.Close() // a second close at worst
		p.cut()
		p.parts.Wait()
	})
	return p
}

func (p *proxy) url() string { return "mqtt://" + p.l.Addr().String() }

// set changes the mode; refuse cuts the connections that there are.
func (p *proxy) set(m mode) {
	p.mode.Store(int32(m))
	if m == refuse {
		p.cut()
	}
}

func (p *proxy) cut() {
	p.mu.Lock()
	defer p.mu.Unlock()
	for c := range p.conns {
		_ = c.Close() // its copier ends, which is all that is wanted
	}
}

func (p *proxy) keep(c net.Conn) func() {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.conns[c] = true
	return func() {
		_ = c.Close() // may be closed already
		p.mu.Lock()
		defer p.mu.Unlock()
		delete(p.conns, c)
	}
}

func (p *proxy) accept() {
	for {
		c, err := p.l.Accept()
		if err != nil {
			return
		}
		p.parts.Go(func() { p.serve(c) })
	}
}

func (p *proxy) serve(c net.Conn) {
	defer p.keep(c)()
	switch mode(p.mode.Load()) {
	case refuse:
		return
	case flap:
		defer time.AfterFunc(150*time.Millisecond, func() { _ = c.Close() }).Stop()
	}
	b, err := net.Dial("tcp", p.to)
	if err != nil {
		return
	}
	defer p.keep(b)()
	p.parts.Go(func() {
		p.copy(c, b, false)
		_ = c.Close() // the other direction ends too
	})
	p.copy(b, c, true)
}

func (p *proxy) copy(to io.Writer, from io.Reader, toBroker bool) {
	buf := make([]byte, 4096)
	for {
		n, err := from.Read(buf)
		if err != nil {
			return
		}
		switch m := mode(p.mode.Load()); {
		case m == hole, m == mute && !toBroker, m == muteUp && toBroker:
			continue
		case m == slow:
			time.Sleep(time.Duration(n) * time.Second / 40_000)
		}
		if _, err := to.Write(buf[:n]); err != nil {
			return
		}
	}
}
