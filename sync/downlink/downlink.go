// Package downlink brings to the gate what the community server has for it: the
// registry, policies, what the site's other gates changed, commands, and the time.
// Everything is verified before it is applied; what was in force stays in force
// when anything about its successor is wrong. Lanes decide on meanwhile.
package downlink

import (
	"context"
	"crypto/rand"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"iter"
	"log/slog"
	"os"
	"path/filepath"
	"time"

	"golang.org/x/sync/errgroup"

	"gatehouse/edge"
	"gatehouse/sync/wire"
)

// Registry is what the gate knows of passes.
type Registry interface {
	Version() int64
	// Replace puts the server's roster in force, all of it or nothing. Local changes
	// that contains names (the last entry of each epoch) are in it; others stay.
	Replace(ctx context.Context, version int64, rows iter.Seq2[edge.RosterRow, error], contains []edge.EntryRef) error
	// ApplyDelta takes one step from the version in force to the next: put are passes
	// that are new or changed, gone those that ended. All of it or nothing.
	ApplyDelta(ctx context.Context, from, to int64, put []edge.RosterRow, gone []edge.PassID, contains []edge.EntryRef) error
	// Apply takes a peer's change of a pass, once.
	Apply(ctx context.Context, from edge.EntryRef, ch edge.PassChange) error
}

// Peers is the part of the journal that keeps what other gates changed.
type Peers interface {
	// PeersApplied gives the last entry applied of each peer's epoch.
	PeersApplied(ctx context.Context) ([]edge.EntryRef, error)
	// ApplyPeer applies each entry once.
	ApplyPeer(ctx context.Context, deltas []edge.PeerDelta) error
}

// Command is something to do, once.
type Command struct {
	Name  string // open, plan, reload, purge, ...
	Args  json.RawMessage
	Actor string // who ordered it, as the server says
}

// Commands carries commands out. The text is for whoever ordered it.
type Commands interface {
	Do(ctx context.Context, c Command) (text string, err error)
}

// Transport carries messages. A nil error of Publish proves nothing.
type Transport interface {
	Publish(ctx context.Context, topic string, payload []byte, retained bool) error
	Subscribe(topic string, f func(topic string, payload []byte))
	OnConnect(f func(ctx context.Context))
}

// Config says whose downlink it is and where things go. Commands may be nil: all
// are refused then.
type Config struct {
	Site, Gate string
	Dir        string // keeps chunks that have arrived, and the commands' numbers

	Trust    func() wire.Trust             // the server's keys now
	SetTrust func(wire.Trust) error        // keys from now on; nil = they are fixed
	Nonces   func() (cur, previous string) // that commands may carry
	// Open decrypts what was encrypted to this device, up to limit bytes.
	Open func(r io.Reader, limit int64) ([]byte, error)

	Clock     edge.Clock
	SetServer func(time.Time) // the server's time, as of now
	// Record journals what was refused and what became of commands.
	Record func(ctx context.Context, k edge.Kind, data any) (edge.EntryRef, error)

	Registry Registry
	Policies Policies
	Peers    Peers
	Commands Commands
}

const (
	askEvery    = 10 * time.Minute // for what is newer
	askAgain    = 15 * time.Second // for what was asked and has not come; doubled
	askMost     = 5 * time.Minute
	askSoon     = 2 * time.Second // between requests because of gaps
	answerMax   = time.Minute     // an older answer says nothing about the time
	wantMax     = 64              // hashes in one request
	publishWait = 10 * time.Second
	queue       = 64
	maxSeq      = 1 << 62 // of a peer's entry
)

// message is something from the server.
type message struct {
	channel wire.Channel
	hash    string // of a chunk or bundle
	payload []byte
}

// Channels that ParseTopic does not know as such.
const (
	chunkTopic  wire.Channel = "registry"
	policyTopic wire.Channel = "policy"
)

// Downlink applies what the server sends.
type Downlink struct {
	cfg Config
	t   Transport
	log *slog.Logger

	in        chan message
	commands  chan []byte
	connected chan struct{}
	again     chan struct{} // for the results of commands

	// The rest belongs to the loop.
	nonce    string // of the request without an answer
	asked    time.Time
	retry    time.Duration
	deadline time.Time // when to ask again
	issued   int64     // of the newest manifest
	registry *wire.RegistryRef
	whole    int64 // the version whose deltas did not fit: its chunks are fetched
	rules    rules
	target   string          // what was needed by the last manifest
	wanted   map[string]bool // hashes asked for that have not come
	refused  refusals
}

// New checks the configuration and subscribes. The transport must not run yet.
func New(cfg Config, t Transport, log *slog.Logger) (*Downlink, error) {
	if err := errors.Join(wire.CheckName(cfg.Site), wire.CheckGate(cfg.Gate)); err != nil {
		return nil, fmt.Errorf("cannot set up the downlink: %w", err)
	}
	d := &Downlink{cfg: cfg, t: t, log: log, in: make(chan message, queue), commands: make(chan []byte, queue),
		connected: make(chan struct{}, 1), again: make(chan struct{}, 1)}
	if err := os.MkdirAll(d.chunkDir(), 0o700); err != nil {
		return nil, fmt.Errorf("cannot set up the downlink: %w", err)
	}
	for _, c := range []wire.Channel{wire.Manifest, wire.Peers} {
		t.Subscribe(wire.Topic(cfg.Site, cfg.Gate, c), func(_ string, payload []byte) { d.take(message{channel: c, payload: payload}) })
	}
	t.Subscribe(wire.RegistryTopic(cfg.Site, "+"), func(topic string, payload []byte) { d.takePart(chunkTopic, topic, payload) })
	t.Subscribe(wire.PolicyTopic(cfg.Site, "+"), func(topic string, payload []byte) { d.takePart(policyTopic, topic, payload) })
	t.Subscribe(wire.Topic(cfg.Site, cfg.Gate, wire.Commands), func(_ string, payload []byte) {
		select {
		case d.commands <- payload:
		default: // whoever floods the gate with commands gets no result
		}
	})
	t.OnConnect(func(context.Context) {
		signal(d.connected)
		signal(d.again)
	})
	return d, nil
}

func signal(c chan struct{}) {
	select {
	case c <- struct{}{}:
	default:
	}
}

// take queues a message. When too many wait it is dropped: what is missing is asked
// for again.
func (d *Downlink) take(m message) {
	select {
	case d.in <- m:
	default:
	}
}

func (d *Downlink) takePart(c wire.Channel, topic string, payload []byte) {
	_, _, hash, err := wire.ParseTopic(topic)
	if err != nil {
		return
	}
	d.take(message{channel: c, hash: string(hash), payload: payload})
}

// Run applies until ctx is done. Commands do not wait for a registry.
func (d *Downlink) Run(ctx context.Context) error {
	g, ctx := errgroup.WithContext(ctx)
	g.Go(func() error { return d.loop(ctx) })
	g.Go(func() error { return d.obey(ctx) })
	return g.Wait()
}

func (d *Downlink) loop(ctx context.Context) error {
	d.deadline, d.retry = time.Now().Add(askEvery), askAgain
	timer := time.NewTimer(0)
	defer timer.Stop()
	for {
		timer.Reset(max(0, time.Until(d.deadline)))
		var err error
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-d.connected:
			d.retry = askAgain
			err = d.ask(ctx)
		case <-timer.C:
			err = d.ask(ctx)
		case m := <-d.in:
			err = d.handle(ctx, m)
		}
		if ctx.Err() != nil {
			return ctx.Err()
		}
		if err != nil {
			d.log.Warn("downlink", "err", err)
		}
	}
}

func (d *Downlink) handle(ctx context.Context, m message) error {
	switch m.channel {
	case wire.Manifest:
		return d.manifest(ctx, m.payload)
	case wire.Peers:
		return d.peers(ctx, m.payload)
	case chunkTopic:
		return d.chunk(ctx, m.hash, m.payload)
	default:
		return d.bundle(ctx, m.hash, m.payload)
	}
}

// ask says what the gate has and what it lacks.
func (d *Downlink) ask(ctx context.Context) error {
	want := d.missing()
	want = want[:min(len(want), wantMax)]
	d.wanted = map[string]bool{}
	for _, h := range want {
		d.wanted[h] = true
	}
	d.deadline = time.Now().Add(askEvery)
	if len(want) > 0 {
		d.deadline = time.Now().Add(d.retry)
		d.retry = min(2*d.retry, askMost)
	}
	q := wire.Request{V: wire.Version, Nonce: nonce(), Registry: d.cfg.Registry.Version(), Policy: d.cfg.Policies.Set(), Want: want, Trust: d.cfg.Trust().Number}
	applied, err := d.cfg.Peers.PeersApplied(ctx)
	if err != nil {
		return fmt.Errorf("cannot read what peers changed: %w", err)
	}
	for _, r := range applied {
		q.Peers = append(q.Peers, wire.PeerMark{Gate: r.Gate, Epoch: r.Epoch, Next: r.Seq + 1})
	}
	payload, err := wire.Encode(q)
	if err != nil {
		return err
	}
	d.nonce, d.asked = q.Nonce, time.Now()
	ctx, cancel := context.WithTimeout(ctx, publishWait)
	defer cancel()
	if err := d.t.Publish(ctx, wire.Topic(d.cfg.Site, d.cfg.Gate, wire.Requests), payload, false); err != nil {
		return fmt.Errorf("cannot ask the server: %w", err)
	}
	return nil
}

// askNow asks for what a lost message held, but not for each message after it.
func (d *Downlink) askNow(ctx context.Context) error {
	if soon := d.asked.Add(askSoon); time.Now().Before(soon) {
		if soon.Before(d.deadline) {
			d.deadline = soon
		}
		return nil
	}
	return d.ask(ctx)
}

func nonce() string {
	var b [16]byte
	_, _ = rand.Read(b[:]) // never fails
	return base64.RawURLEncoding.EncodeToString(b[:])
}

func (d *Downlink) open(payload []byte, typ string, use wire.Use) (*wire.Envelope, error) {
	return wire.OpenEnvelope(payload, typ, d.cfg.Site, d.cfg.Gate, use, d.cfg.Trust().Keys)
}

// decode reads a signed body and checks its version, which v points to.
func decode(body []byte, to any, v *int) error {
	if err := json.Unmarshal(body, to); err != nil {
		return fmt.Errorf("%w: %w", wire.ErrMalformed, err)
	}
	if *v != wire.Version {
		return fmt.Errorf("%w: version %d, this program reads %d", wire.ErrMalformed, *v, wire.Version)
	}
	return nil
}

// manifest learns what the gate needs, and the server's time when it answers.
func (d *Downlink) manifest(ctx context.Context, payload []byte) error {
	// The lists of keys are signed for themselves: they may be how this gate learns
	// who has signed the manifest.
	var errs []error
	if err := d.follow(ctx, wire.PeekLists(payload)); err != nil {
		errs = append(errs, d.refuse(ctx, edge.KindRegistry, "keys", err))
	}
	e, err := d.open(payload, wire.TypeManifest, wire.UseRegistry)
	if err != nil {
		return errors.Join(append(errs, d.refuse(ctx, edge.KindRegistry, "manifest", err))...)
	}
	var m wire.ManifestBody
	if err := decode(e.Body, &m, &m.V); err != nil {
		return d.refuse(ctx, edge.KindRegistry, "manifest", err)
	}
	if e.IssuedAt < d.issued {
		return nil // overtaken, or played back
	}
	d.issued = e.IssuedAt
	if m.Nonce != "" && m.Nonce == d.nonce {
		d.nonce = ""
		// The answer was written between the request and now.
		if took := time.Since(d.asked); took < answerMax && d.cfg.SetServer != nil {
			d.cfg.SetServer(time.UnixMilli(m.Time).Add(took / 2))
		}
	}
	errs = append(errs, d.expect(ctx, m.Policies))
	d.registry = nil
	if m.Registry != nil {
		switch have := d.cfg.Registry.Version(); {
		case m.Registry.Version < have:
			errs = append(errs, d.refuse(ctx, edge.KindRegistry, "registry", fmt.Errorf("version %d is older than %d, which is in force", m.Registry.Version, have)))
		case m.Registry.Version > have:
			d.registry = m.Registry
		}
	}
	errs = append(errs, d.advance(ctx))
	// What is newly needed is asked for at once; what was asked for before, in time.
	left := d.missing()
	if target := fmt.Sprint(left); target != d.target {
		d.target = target
		if len(left) > 0 {
			d.retry = askAgain
			errs = append(errs, d.ask(ctx))
		}
	}
	return errors.Join(errs...)
}

// follow goes by newer keys of the server's, as far as the lists lead.
func (d *Downlink) follow(ctx context.Context, lists [][]byte) error {
	if len(lists) == 0 || d.cfg.SetTrust == nil {
		return nil
	}
	was := d.cfg.Trust()
	now, why := was.Follow(lists)
	if now.Number == was.Number {
		return why
	}
	if err := d.cfg.SetTrust(now); err != nil {
		return errors.Join(why, err)
	}
	d.log.Warn("the server has other keys from now on", "list", now.Number, "keys", len(now.Keys))
	lines := make([]string, len(now.Keys))
	for i := range now.Keys {
		lines[i] = now.Keys[i].Line()
	}
	if _, err := d.cfg.Record(ctx, edge.KindRegistry, map[string]any{"from": "server", "what": "keys", "list": now.Number, "keys": lines}); err != nil {
		return errors.Join(why, fmt.Errorf("cannot journal the server's keys: %w", err))
	}
	return why
}

// missing lists the hashes that are needed and not here.
func (d *Downlink) missing() []string {
	var out []string
	out = append(out, d.rules.missing()...)
	if d.registry != nil {
		for _, h := range d.parts() {
			if isHash(h) && !exists(filepath.Join(d.chunkDir(), h)) {
				out = append(out, h)
			}
		}
	}
	return out
}

func exists(path string) bool {
	_, err := os.Stat(path)
	return err == nil
}

// isHash keeps anything else from becoming a file's name.
func isHash(s string) bool {
	if len(s) != 64 {
		return false
	}
	for _, c := range []byte(s) {
		if (c < '0' || c > '9') && (c < 'a' || c > 'f') {
			return false
		}
	}
	return true
}

// advance applies what is complete.
func (d *Downlink) advance(ctx context.Context) error {
	return errors.Join(d.applyPolicies(ctx), d.applyRegistry(ctx))
}

// arrived goes on after a part has come: applies what is complete, or asks for more.
func (d *Downlink) arrived(ctx context.Context, hash string) error {
	delete(d.wanted, hash)
	d.retry = askAgain
	left := d.missing()
	d.target = fmt.Sprint(left)
	switch {
	case len(left) == 0:
		return d.advance(ctx)
	case len(d.wanted) == 0:
		return errors.Join(d.applyPolicies(ctx), d.ask(ctx))
	}
	d.deadline = time.Now().Add(d.retry)
	return d.applyPolicies(ctx)
}

// peers applies what another gate changed.
func (d *Downlink) peers(ctx context.Context, payload []byte) error {
	e, err := d.open(payload, wire.TypePeers, wire.UseRegistry)
	if err != nil {
		return d.refuse(ctx, edge.KindRegistry, "peers", err)
	}
	var b wire.PeersBody
	if err := decode(e.Body, &b, &b.V); err != nil {
		return d.refuse(ctx, edge.KindRegistry, "peers", err)
	}
	if b.Gate == d.cfg.Gate {
		return nil
	}
	applied, err := d.cfg.Peers.PeersApplied(ctx)
	if err != nil {
		return fmt.Errorf("cannot read what peers changed: %w", err)
	}
	next := uint64(0)
	for _, r := range applied {
		if r.Gate == b.Gate && r.Epoch == b.Epoch {
			next = r.Seq + 1
		}
	}
	if b.From > next {
		return d.askNow(ctx) // something in between was lost
	}
	var deltas []edge.PeerDelta
	for _, x := range b.Entries {
		if x.Seq < next {
			continue
		}
		if x.Seq > maxSeq {
			return d.refuse(ctx, edge.KindRegistry, "peers", fmt.Errorf("%w: entry %d", wire.ErrMalformed, x.Seq))
		}
		if len(x.Change) > 0 {
			var ch edge.PassChange
			if err := json.Unmarshal(x.Change, &ch); err != nil {
				return d.refuse(ctx, edge.KindRegistry, "peers", fmt.Errorf("%w: change of %s: %w", wire.ErrMalformed, b.Gate, err))
			}
			if err := d.cfg.Registry.Apply(ctx, edge.EntryRef{Gate: b.Gate, Epoch: b.Epoch, Seq: x.Seq}, ch); err != nil {
				return err
			}
		}
		deltas = append(deltas, edge.PeerDelta{Gate: b.Gate, Epoch: b.Epoch, Seq: x.Seq, Time: x.Time, Deltas: x.Deltas})
		next = x.Seq + 1
	}
	if len(deltas) == 0 {
		return nil
	}
	return d.cfg.Peers.ApplyPeer(ctx, deltas)
}

// refusals bounds how much of a flood is journalled.
type refusals struct {
	last map[string]time.Time
}

const refuseEvery = time.Minute

// refuse journals that something from the server was not taken, once a minute for
// each matter: whoever can write to the broker must not fill the journal.
func (d *Downlink) refuse(ctx context.Context, k edge.Kind, what string, why error) error {
	why = fmt.Errorf("%s refused: %w", what, why)
	return errors.Join(why, d.refused.record(ctx, d.cfg, k, what, why))
}

func (r *refusals) record(ctx context.Context, cfg Config, k edge.Kind, what string, why error) error {
	if r.last == nil {
		r.last = map[string]time.Time{}
	}
	if now := time.Now(); now.Sub(r.last[what]) >= refuseEvery {
		r.last[what] = now
		if _, err := cfg.Record(ctx, k, map[string]string{"from": "server", "what": what, "refused": why.Error()}); err != nil {
			return fmt.Errorf("cannot journal it: %w", err)
		}
	}
	return nil
}
