// Package uplink brings the journal to the community server: everything from the
// acknowledged mark on, in order, in batches. Only the server's receipt moves the
// mark. A lane never waits for anything here.
//
// A bounded window of batches is on its way. What has no receipt in time, or was on
// its way when the connection broke, is sent again from the first one on; the server
// knows an entry that it has. Batches are read from the journal again rather than
// kept, so memory does not grow with the backlog.
package uplink

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"sync"
	"sync/atomic"
	"time"

	"golang.org/x/mod/sumdb/note"
	"golang.org/x/sync/errgroup"

	"gatehouse/edge"
	"gatehouse/sync/wire"
)

// Journal is what the uplink needs of the gate's journal.
type Journal interface {
	Epoch() edge.Epoch
	Size() uint64
	Acked() uint64
	Wait(ctx context.Context, size uint64) error
	Read(ctx context.Context, from uint64, maxEntries, maxBytes int) ([]edge.Stored, error)
	// Sealed gives the run of an entry that was past its retention before it was
	// acknowledged; an error that wraps edge.ErrUnknown when it is in none.
	Sealed(ctx context.Context, seq uint64) (edge.Sealed, error)
	BlockKeys(ctx context.Context, from, count uint64) ([]edge.KeyOfBlock, error)
	HeadAt(ctx context.Context, size uint64) (edge.Head, error)
	// Edges gives the roots of the perfect subtrees that cover the first size entries.
	Edges(ctx context.Context, size uint64) ([][32]byte, error)
	Acknowledge(ctx context.Context, epoch edge.Epoch, size uint64, receipt []byte) error
}

// Transport carries messages. A nil error of Publish proves nothing.
type Transport interface {
	Publish(ctx context.Context, topic string, payload []byte, retained bool) error
	Subscribe(topic string, f func(topic string, payload []byte))
	OnConnect(f func(ctx context.Context))
	Connected() bool
}

// Config says whose journal it is and how it is sent. Zero values take the defaults.
type Config struct {
	Community, Site, Gate string
	Server                string                  // for the status, where the broker is
	Device                edge.Signer             // the journal's signer: its name and public key, nothing is signed
	Trust                 func() []wire.ServerKey // the server's keys now

	Entries int           // in a batch, at most; 1024
	Bytes   int           // of a batch as sent, about; 200 KiB: brokers limit it
	Age     time.Duration // an entry is not held back longer; 500 ms
	Window  int           // batches on their way; 4
	Resend  time.Duration // without a receipt; 30 s, doubled each time

	NoDictionary bool // for a receiver that cannot be given wire.Dictionary

	Metered Metered

	// Status gives what the status message says beyond the journal and the nonce:
	// version, policy, registry, clock, devices.
	Status func() wire.StatusMessage
	// Fork is called when the server says, signed, that this journal is not the one it
	// knows: the medium was restored, another device uses this gate's name, or the
	// server has lost what is not here any more. It starts a new epoch, which carries
	// what comes after the first entries that stand at the server. Nil or an error: the
	// uplink waits and says so.
	Fork func(ctx context.Context, stand uint64, why string) error
}

const (
	maxTimeout  = 10 * time.Minute
	refusedWait = time.Minute      // before trying again what a person must settle
	publishWait = 10 * time.Second // for the connection to take a message
	statusEvery = 5 * time.Minute  // a new nonce and status
	aheadEvery  = time.Second      // between batches that go ahead of a backlog
	aheadMost   = 64               // entries of such a batch
	receiptsMax = 16               // receipts not handled yet; more come again
)

// Uplink sends one gate's journal.
type Uplink struct {
	cfg    Config
	j      Journal
	t      Transport
	log    *slog.Logger
	device note.Verifier
	vkey   string
	zip    *wire.Compressor

	receipts   chan []byte
	connected  chan struct{} // for send
	repeat     chan struct{} // the same for watch
	connection atomic.Uint64 // counts connections
	talk       chan struct{} // the status is to be said

	mu     sync.Mutex
	state  edge.SyncStatus
	nonces [2]string // current and previous
}

// New checks the configuration and subscribes to the receipts. The transport must
// not run yet.
func New(cfg Config, j Journal, t Transport, log *slog.Logger) (*Uplink, error) {
	if err := errors.Join(wire.CheckName(cfg.Community), wire.CheckName(cfg.Site), wire.CheckGate(cfg.Gate)); err != nil {
		return nil, fmt.Errorf("cannot set up the uplink: %w", err)
	}
	def(&cfg.Entries, 1024)
	def(&cfg.Bytes, 200<<10)
	def(&cfg.Age, 500*time.Millisecond)
	def(&cfg.Window, 4)
	def(&cfg.Resend, 30*time.Second)
	cfg.Entries = min(cfg.Entries, wire.MaxEntries)
	u := &Uplink{cfg: cfg, j: j, t: t, log: log, receipts: make(chan []byte, receiptsMax), connected: make(chan struct{}, 1), repeat: make(chan struct{}, 1), talk: make(chan struct{}, 1)}
	var err error
	if u.device, err = edge.HeadVerifier(cfg.Device.Name(), cfg.Device.Public()); err != nil {
		return nil, err
	}
	if u.vkey, err = note.NewEd25519VerifierKey(cfg.Device.Name(), cfg.Device.Public()); err != nil {
		return nil, fmt.Errorf("cannot use the device's key: %w", err)
	}
	if u.zip, err = wire.NewCompressor(0); err != nil {
		return nil, err
	}
	if cfg.NoDictionary {
		u.zip.WithoutDictionary()
	}
	u.state.Server = cfg.Server
	t.Subscribe(wire.Topic(cfg.Site, cfg.Gate, wire.Receipts), func(_ string, payload []byte) {
		select {
		case u.receipts <- payload:
		default: // a later one says more, and what has none is sent again
		}
	})
	t.OnConnect(func(context.Context) {
		u.mu.Lock()
		u.state.Since = time.Now()
		u.mu.Unlock()
		u.renew()
		signal(u.connected)
		u.connection.Add(1)
		signal(u.repeat)
	})
	return u, nil
}

func def[T int | time.Duration](v *T, d T) {
	if *v <= 0 {
		*v = d
	}
}

func signal(c chan struct{}) {
	select {
	case c <- struct{}{}:
	default:
	}
}

// Run sends until ctx is done.
func (u *Uplink) Run(ctx context.Context) error {
	g, ctx := errgroup.WithContext(ctx)
	g.Go(func() error { return u.send(ctx) })
	g.Go(func() error { return u.speak(ctx) })
	g.Go(func() error { return u.watch(ctx) })
	return g.Wait()
}

// growth waits in the background until the journal has more than size entries, or
// until done is called.
func (u *Uplink) growth(ctx context.Context, size uint64) (grown <-chan struct{}, done func()) {
	ctx, cancel := context.WithCancel(ctx)
	some, ended := make(chan struct{}, 1), make(chan struct{})
	go func() {
		defer close(ended)
		if u.j.Wait(ctx, size) == nil {
			some <- struct{}{}
		}
	}()
	return some, func() { cancel(); <-ended }
}

// Status is how far the server has the journal.
func (u *Uplink) Status() edge.SyncStatus {
	u.mu.Lock()
	defer u.mu.Unlock()
	s := u.state
	s.Size, s.Acked, s.Connected = u.j.Size(), u.j.Acked(), u.t.Connected()
	if t, ok := u.t.(interface{ State() (time.Time, error) }); ok && !s.Connected {
		if _, err := t.State(); err != nil {
			s.Error = err.Error() // why there is no connection says more than what followed
		}
	}
	return s
}

// Nonces are the ones that a command may carry now: the current and the one before.
func (u *Uplink) Nonces() (current, previous string) {
	u.mu.Lock()
	defer u.mu.Unlock()
	return u.nonces[0], u.nonces[1]
}

// Say publishes the status soon: something in it has changed.
func (u *Uplink) Say() { signal(u.talk) }

// note keeps what went wrong for Status; nil clears it.
func (u *Uplink) note(err error) {
	u.mu.Lock()
	defer u.mu.Unlock()
	text := ""
	if err != nil {
		text = err.Error()
	}
	if text != "" && text != u.state.Error {
		u.log.Warn("uplink", "err", err)
	}
	u.state.Error = text
}

// publish waits for the connection no longer than publishWait.
func (u *Uplink) publish(ctx context.Context, c wire.Channel, payload []byte, retained bool) error {
	ctx, cancel := context.WithTimeout(ctx, publishWait)
	defer cancel()
	return u.t.Publish(ctx, wire.Topic(u.cfg.Site, u.cfg.Gate, c), payload, retained)
}
