package community

import (
	"bytes"
	"context"
	"encoding/base64"
	"errors"
	"fmt"
	"io"
	"strings"
	"time"

	"filippo.io/age"

	"gatehouse/sync/wire"
)

const (
	chunkAgain   = 5 * time.Second        // how long it is remembered that a chunk went out
	chunkLeast   = 250 * time.Millisecond // between two publications of one chunk, whoever asks
	announcePoll = time.Second            // how often what other processes publish or order is looked for
)

// answerLoop sees to everything gates send but their journals.
func (s *Server) answerLoop(ctx context.Context) error {
	published := map[string]time.Time{}
	for {
		select {
		case <-ctx.Done():
			return ctx.Err()
		case m := <-s.asked:
			var err error
			switch m.channel {
			default:
				err = s.enrol(ctx, m.site, string(m.channel), m.payload)
			case wire.Requests:
				err = s.answer(ctx, m, published)
			case wire.Status:
				err = s.noteStatus(ctx, m)
			case wire.Alerts:
				err = s.noteAlert(ctx, m)
			case wire.Results:
				err = s.noteResult(ctx, m)
			}
			if ctx.Err() != nil {
				return ctx.Err()
			}
			if err != nil {
				s.log.Warn("cannot answer a gate", "site", m.site, "gate", m.gate, "channel", m.channel, "error", err)
			}
		}
	}
}

// answer moves the peers' marks, sends the manifest, then what the gate wants.
func (s *Server) answer(ctx context.Context, m asked, published map[string]time.Time) error {
	var q wire.Request
	if err := wire.Decode(m.payload, &q); err != nil {
		return err
	}
	if q.V != wire.Version || len(q.Nonce) > 100 {
		return fmt.Errorf("%w: request of version %d", wire.ErrMalformed, q.V)
	}
	g, err := s.gate(ctx, m.gateName, keysFresh)
	if err == nil && g == nil {
		g, err = s.gate(ctx, m.gateName, keysRetry) // it may have been approved just now
	}
	if err != nil {
		return err
	}
	if g == nil {
		return errors.New("the gate is not registered")
	}
	if err := s.confirm(ctx, g, q.Peers); err != nil {
		return err
	}
	if err := s.manifest(ctx, m.gateName, q.Nonce, &q); err != nil {
		return err
	}
	now := time.Now()
	for h, t := range published {
		if now.Sub(t) > chunkAgain {
			delete(published, h)
		}
	}
	for _, h := range q.Want {
		// What went out since the gate asked has reached it, too.
		if t, ok := published[h]; ok && (t.After(m.at) || now.Sub(t) < chunkLeast) {
			continue
		}
		topic, payload, err := s.store.publication(ctx, g.site, h)
		if err != nil {
			return fmt.Errorf("cannot read what has hash %.64q: %w", h, err)
		}
		if payload == nil {
			continue // replaced meanwhile; the manifest names what is in force
		}
		if err := s.t.Publish(ctx, topic, payload, false); err != nil {
			return err
		}
		published[h] = time.Now()
	}
	return nil
}

// manifest tells a gate what it needs. q is what it has; nil when that is not
// known, which names everything. A gate that is unknown is told nothing.
func (s *Server) manifest(ctx context.Context, n gateName, nonce string, q *wire.Request) error {
	body := wire.ManifestBody{V: wire.Version, Nonce: nonce}
	have := int64(0)
	if q != nil {
		have = q.Registry
	}
	reg, identity, err := s.store.registry(ctx, n.site, have)
	if err != nil {
		return fmt.Errorf("cannot read the registry: %w", err)
	}
	// After the registry, and from the store: another process may have revoked a
	// device and then made a new content key, which must not be sealed to that device.
	g, err := s.gate(ctx, n, 0)
	if err != nil || g == nil {
		return err
	}
	if reg != nil {
		if reg.Key = sealTo(identity, g); reg.Key != nil {
			body.Registry = reg
		}
	}
	refs, err := s.store.policies(ctx, g.site)
	if err != nil {
		return fmt.Errorf("cannot read the policies: %w", err)
	}
	if q == nil || q.Policy != setOf(refs) {
		body.Policies = refs
	}
	after := uint64(0)
	if q != nil {
		after = q.Trust
	}
	if body.Lists, err = s.store.lists(ctx, s.store.r, after); err != nil {
		return err
	}
	body.Time = time.Now().UnixMilli()
	return s.say(ctx, n, wire.TypeManifest, wire.Manifest, body)
}

// sealTo encrypts the site's content identity to the gate's approved devices;
// nil when none of them has said where to.
func sealTo(identity string, g *gate) []byte {
	var to []age.Recipient
	for _, k := range g.keys {
		if r, err := age.ParseX25519Recipient(k.Age); err == nil && k.State == KeyApproved {
			to = append(to, r)
		}
	}
	if len(to) == 0 {
		return nil
	}
	b, err := seal([]byte(identity), to...)
	if err != nil {
		return nil
	}
	return b
}

// seal encrypts with age.
func seal(plain []byte, to ...age.Recipient) ([]byte, error) {
	var buf bytes.Buffer
	w, err := age.Encrypt(&buf, to...)
	if err != nil {
		return nil, fmt.Errorf("cannot encrypt: %w", err)
	}
	if _, err := io.Copy(w, bytes.NewReader(plain)); err != nil {
		return nil, fmt.Errorf("cannot encrypt: %w", err)
	}
	if err := w.Close(); err != nil {
		return nil, fmt.Errorf("cannot encrypt: %w", err)
	}
	return buf.Bytes(), nil
}

// announceLoop tells all gates of a site when something new was published, by
// this process or by another one on the same store.
func (s *Server) announceLoop(ctx context.Context) error {
	known, err := s.store.publications(ctx)
	if err != nil {
		s.log.Warn("cannot read what is published", "error", err)
	}
	t := time.NewTicker(announcePoll)
	defer t.Stop()
	for {
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-t.C:
		case <-s.published:
		}
		if err := s.sendCommands(ctx); err != nil {
			if ctx.Err() != nil {
				return ctx.Err()
			}
			s.log.Warn("cannot send commands, will try again", "error", err)
		}
		now, err := s.store.publications(ctx)
		if err != nil {
			if ctx.Err() != nil {
				return ctx.Err()
			}
			s.log.Warn("cannot read what is published", "error", err)
			continue
		}
		for site, what := range now {
			if known[site] == what {
				continue
			}
			if err := s.announce(ctx, site); err != nil {
				if ctx.Err() != nil {
					return ctx.Err()
				}
				s.log.Warn("cannot announce; gates will ask by themselves", "site", site, "error", err)
			}
		}
		known = now
	}
}

func (s *Server) announce(ctx context.Context, site string) error {
	names, err := s.store.gateNames(ctx, site)
	if err != nil {
		return err
	}
	for _, n := range names {
		if err := s.manifest(ctx, n, "", nil); err != nil {
			return err
		}
	}
	return nil
}

// noteStatus keeps a gate's last word, and the key it says it has when that is
// not known: an operator may approve it then.
func (s *Server) noteStatus(ctx context.Context, m asked) error {
	text, err := wire.Expand(m.payload, wire.MaxMessage)
	if err != nil {
		return err
	}
	var st wire.StatusMessage
	if err := wire.Decode(text, &st); err != nil {
		return err
	}
	now := time.Now().UnixMilli()
	if st.Key != "" {
		name, public, err := VerifierKey(st.Key)
		if err != nil {
			return err
		}
		if want := s.signerName(m.site, m.gate); name != want {
			return fmt.Errorf("%w: the gate's key has the name %.200q, want %q", wire.ErrMalformed, name, want)
		}
		g, err := s.gate(ctx, m.gateName, keysFresh)
		if err != nil {
			return err
		}
		known := false
		if g != nil {
			for _, k := range g.keys {
				known = known || k.Public == public
			}
		}
		if !known {
			k := GateKey{Name: name, Public: public, Age: st.Age, State: KeyPending, By: "status"}
			if err := s.store.setKey(ctx, m.site, m.gate, k, now); err != nil {
				return err
			}
			s.forget(m.gateName)
		}
	}
	_, err = s.store.w.ExecContext(ctx, `UPDATE gate SET status = $1, status_at = $2 WHERE site = $3 AND name = $4`, string(cleanText(text)), now, m.site, m.gate)
	return err
}

// VerifierKey reads a note verifier key (name+hash+base64) of Ed25519.
func VerifierKey(vkey string) (string, [32]byte, error) {
	name, rest, _ := strings.Cut(vkey, "+")
	_, b64, _ := strings.Cut(rest, "+")
	b, err := base64.StdEncoding.DecodeString(b64)
	if err != nil || len(b) != 33 || b[0] != 1 || len(name) > 310 {
		return "", [32]byte{}, fmt.Errorf("%w: key %.100q is not name+hash+base64 of an Ed25519 key", wire.ErrMalformed, vkey)
	}
	return name, [32]byte(b[1:]), nil
}

func cleanString(s string) string { return string(cleanText([]byte(s))) }

func (s *Server) noteAlert(ctx context.Context, m asked) error {
	var a wire.AlertMessage
	if err := wire.Decode(m.payload, &a); err != nil {
		return err
	}
	g, err := s.gate(ctx, m.gateName, keysFresh)
	if err != nil {
		return err
	}
	if g == nil || len(a.Code) > 100 || len(a.Lane) > 100 || len(a.Text) > 1000 {
		return fmt.Errorf("%w: alert of an unknown gate, or too long", wire.ErrMalformed)
	}
	s.log.Warn("alert", "site", m.site, "gate", m.gate, "code", a.Code, "text", a.Text)
	return s.store.alert(ctx, g.id, cleanString("gate:"+a.Code), cleanString(a.Lane), cleanString(a.Text), time.Now().UnixMilli())
}
