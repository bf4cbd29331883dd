package community

import (
	"bytes"
	"context"
	"crypto/x509"
	"database/sql"
	"encoding/hex"
	"encoding/json"
	"encoding/pem"
	"errors"
	"fmt"
	"strings"
	"time"

	"gatehouse/edge"
	"gatehouse/sync/wire"
)

// Enrolment is what the server needs to make devices gates. All of it goes to
// the device that is approved.
type Enrolment struct {
	Authority *Authority
	// Place says how gates reach the broker, and host:port where devices without a
	// certificate may ask, empty for nowhere.
	Place     func() (url, enrol string, err error)
	Trust     string                            // the gates' trust file; this server's own key is its first line
	SiteKey   func(site string) (string, error) // the site's key file
	Recipient string                            // age: who can read backups
}

const (
	maxAsking = 1000           // devices that wait; anybody may ask
	askingFor = 24 * time.Hour // then whoever waits is forgotten until it asks again
)

// errRevoked says that a device asks whose trust was ended.
var errRevoked = errors.New("this device was revoked: it can be no gate any more (gatehouse enroll --new-keys makes another device of it)")

// Asking is a device that wants to become a gate.
type Asking struct {
	Code, Site, Gate string
	At               int64 // UTC ms
	Request          *wire.Enrol
}

// enrol answers a device that asks. One whose key is approved for the gate that
// it names gets a certificate, whether it never had one, lost it, or slept until
// it had ended; any other waits for a person.
func (s *Server) enrol(ctx context.Context, site, code string, payload []byte) error {
	var m wire.EnrolMessage
	if err := wire.Decode(payload, &m); err != nil {
		return err
	}
	q := m.Request
	if q == nil {
		return nil // an answer, which comes back on the topic
	}
	if err := q.Verify(); err != nil {
		return err
	}
	if q.Site != site || q.Code() != code || q.Community != s.cfg.Community {
		return fmt.Errorf("%w: a request for %.100q/%.100q on the topic of another", wire.ErrMalformed, q.Community, q.Site)
	}
	out := wire.EnrolMessage{V: wire.Version}
	switch sealed, err := s.ApprovalFor(ctx, q); {
	case errors.Is(err, errRevoked):
		out.Says = err.Error()
	case err != nil:
		return err
	case sealed != nil:
		out.Sealed = sealed
	default:
		if err := s.store.addAsking(ctx, q, time.Now().UnixMilli()); err != nil {
			return err
		}
		out.Says = "waiting for approval"
	}
	answer, err := wire.Encode(out)
	if err != nil {
		return err
	}
	return s.t.Publish(ctx, wire.EnrolTopic(site, code), answer, false)
}

// ApprovalFor seals the approval for a device whose key is approved; nil for one
// that is not.
func (s *Server) ApprovalFor(ctx context.Context, q *wire.Enrol) ([]byte, error) {
	e := s.cfg.Enrolment
	if e == nil {
		return nil, errors.New("this server enrols nobody")
	}
	if err := q.Verify(); err != nil {
		return nil, err
	}
	g, err := s.gate(ctx, gateName{q.Site, q.Gate}, 0)
	if err != nil || g == nil {
		return nil, err
	}
	var key *GateKey
	for i := range g.keys {
		if bytes.Equal(g.keys[i].Public[:], q.Public) {
			key = &g.keys[i]
		}
	}
	switch {
	case key == nil || key.State == KeyPending:
		return nil, nil
	case key.State == KeyRevoked:
		return nil, errRevoked
	case key.Age != q.Age:
		return nil, fmt.Errorf("gate %s/%s asks with another age recipient than the one that was approved", q.Site, q.Gate)
	}
	cert, err := e.Authority.issueGate(q.CSR, q.Site, q.Gate, q.Public)
	if err != nil {
		return nil, err
	}
	url, enrolAt, err := e.Place()
	if err != nil {
		return nil, err
	}
	sitekey, err := e.SiteKey(q.Site)
	if err != nil {
		return nil, err
	}
	trust, err := s.trustText(ctx)
	if err != nil {
		return nil, err
	}
	lists, err := s.store.lists(ctx, s.store.r, 0)
	if err != nil {
		return nil, err
	}
	now := time.Now().UnixMilli()
	if err := s.store.addCertificate(ctx, g.id, q.Public, cert, now); err != nil {
		return nil, fmt.Errorf("cannot note a certificate: %w", err)
	}
	s.log.Info("certificate given", "site", q.Site, "gate", q.Gate, "device", wire.Fingerprint(q.Public), "until", cert.NotAfter.Format(time.RFC3339))
	return wire.SealApproval(wire.Approval{URL: url, Server: enrolAt, CA: string(e.Authority.PEM()), Trust: trust, Lists: lists, SiteKey: sitekey, Recipient: e.Recipient,
		Cert: string(pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: cert.Raw}))}, q, time.Now().UnixMilli(), s.cfg.Signer)
}

// Asking lists the devices that wait for approval.
func (s *Server) Asking(ctx context.Context) ([]Asking, error) {
	var out []Asking
	rows, err := s.store.r.QueryContext(ctx, `SELECT code, site, gate, request, at FROM enrol ORDER BY at`)
	return out, each(rows, err, func() error {
		var a Asking
		var text string
		if err := rows.Scan(&a.Code, &a.Site, &a.Gate, &text, &a.At); err != nil {
			return err
		}
		if err := json.Unmarshal([]byte(text), &a.Request); err != nil {
			return err
		}
		out = append(out, a)
		return nil
	})
}

// AskingBy finds the device with a code.
func (s *Server) AskingBy(ctx context.Context, code string) (Asking, error) {
	all, err := s.Asking(ctx)
	if err != nil {
		return Asking{}, err
	}
	for _, a := range all {
		if a.Code == code {
			return a, nil
		}
	}
	return Asking{}, fmt.Errorf("no device with the code %s waits (it shows itself while `gatehouse enroll` runs; is `communityd run` running?)", wire.ShowCode(code))
}

// ApproveEnrol trusts the device that asks to be a gate. A gate that has a
// trusted device already gets a second one only in its place: replace revokes it,
// and the new device's first epoch is then linked to the old one's last.
func (s *Server) ApproveEnrol(ctx context.Context, site, gate string, q *wire.Enrol, replace bool, by string) error {
	if err := q.Verify(); err != nil {
		return err
	}
	if q.Community != s.cfg.Community || q.Site != site || q.Gate != gate {
		return fmt.Errorf("the device asks to be gate %s/%s of %s, not %s/%s of %s: change its gate.yaml, or what you approve", q.Site, q.Gate, q.Community, site, gate, s.cfg.Community)
	}
	now := time.Now().UnixMilli()
	// All in one transaction: of two who approve at once, the second must see what the
	// first has done.
	err := s.store.write(ctx, func(tx *sql.Tx) error {
		if replace {
			if err := s.store.bulk.turn(ctx, tx, turnRegistry(site)); err != nil {
				return err
			}
			g, err := s.store.gateOf(ctx, tx, site, gate)
			if err != nil {
				return err
			}
			if _, err := replaces(g, q, replace); err != nil {
				return err
			}
			// Before the gate is locked: it takes a while, in which every answer would wait
			// behind the gate's status.
			if err := recutIn(ctx, tx, site, true); err != nil {
				return err
			}
		}
		g, err := s.store.lockGate(ctx, tx, site, gate, now)
		if err != nil {
			return err
		}
		others, err := replaces(g, q, replace)
		if err != nil {
			return err
		}
		for _, k := range others {
			k.State, k.By = KeyRevoked, by
			if err := putKey(ctx, tx, g, k, now); err != nil {
				return err
			}
		}
		k := GateKey{Name: s.signerName(site, gate), Public: [32]byte(q.Public), Age: q.Age, State: KeyApproved, By: by}
		if err := putKey(ctx, tx, g, k, now); err != nil {
			return err
		}
		_, err = tx.ExecContext(ctx, `DELETE FROM enrol WHERE code = $1`, q.Code())
		return err
	})
	if err != nil {
		return fmt.Errorf("cannot approve a device: %w", err)
	}
	s.forget(gateName{site, gate})
	s.relay.again()
	if !replace {
		return nil
	}
	s.tell()
	if err := s.scrubKey(ctx, site); err != nil {
		// The device is approved, and has yet to be told.
		s.log.Warn("what the device before could open is still on the medium", "site", site, "gate", gate, "error", err)
	}
	return nil
}

// replaces gives the devices in whose place an approved one comes.
func replaces(g *gate, q *wire.Enrol, replace bool) ([]GateKey, error) {
	var others []GateKey
	if g != nil {
		for _, k := range g.keys {
			switch same := bytes.Equal(k.Public[:], q.Public); {
			case same && k.State == KeyRevoked:
				return nil, errRevoked
			case !same && k.State == KeyApproved:
				others = append(others, k)
			}
		}
	}
	if len(others) > 0 && !replace {
		return nil, fmt.Errorf("gate %s/%s has the device %s already: `communityd gates replace` puts the new one in its place", q.Site, q.Gate, wire.Fingerprint(others[0].Public[:]))
	}
	if len(others) == 0 && replace {
		return nil, fmt.Errorf("gate %s/%s has no device to be replaced: `communityd gates approve`", q.Site, q.Gate)
	}
	return others, nil
}

// Revocations is the certificate revocation list for a broker of one's own, PEM.
func (s *Server) Revocations(ctx context.Context) ([]byte, error) {
	if s.cfg.Enrolment == nil {
		return nil, errors.New("this server has no authority")
	}
	var serials []string
	rows, err := s.store.r.QueryContext(ctx, `SELECT c.serial FROM certificate c JOIN gate_key k ON k.gate = c.gate AND k.public = c.public
		WHERE k.state = 'revoked' ORDER BY c.serial`)
	if err := each(rows, err, func() error {
		var x string
		if err := rows.Scan(&x); err != nil {
			return err
		}
		serials = append(serials, x)
		return nil
	}); err != nil {
		return nil, fmt.Errorf("cannot read the certificates: %w", err)
	}
	return s.cfg.Enrolment.Authority.revocations(serials)
}

// Rights are the MQTT topics that a client may write to and read.
type Rights struct{ Write, Read []string }

// RightsOf are those of a client of the embedded broker: a gate, known by its
// verified certificate, has its own topics; one without a certificate names its
// code as user and has that enrolment's topic. Nil = none at all.
func (s *Server) RightsOf(ctx context.Context, cert *x509.Certificate, user string) *Rights {
	if cert == nil {
		code, err := wire.ParseCode(user)
		if err != nil || code != user {
			return nil
		}
		own := []string{wire.EnrolTopic("+", code)}
		return &Rights{Write: own, Read: own}
	}
	site, gate, ok := strings.Cut(cert.Subject.CommonName, "/")
	if !ok || wire.CheckName(site) != nil || wire.CheckGate(gate) != nil {
		return nil
	}
	g, err := s.gate(ctx, gateName{site, gate}, 0)
	if err != nil || g == nil {
		return nil
	}
	for _, k := range g.keys {
		if k.State == KeyApproved && bytes.Equal(k.Public[:], deviceOf(cert)) {
			r := &Rights{Read: []string{wire.RegistryTopic(site, "+"), wire.PolicyTopic(site, "+")}}
			for _, c := range []wire.Channel{wire.Status, wire.Journal, wire.Alerts, wire.Requests, wire.Results} {
				r.Write = append(r.Write, wire.Topic(site, gate, c))
			}
			for _, c := range []wire.Channel{wire.Receipts, wire.Manifest, wire.Peers, wire.Commands} {
				r.Read = append(r.Read, wire.Topic(site, gate, c))
			}
			return r
		}
	}
	return nil
}

// addAsking notes a device that waits; asking again only makes it newer.
func (s *store) addAsking(ctx context.Context, q *wire.Enrol, now int64) error {
	text, err := json.Marshal(q)
	if err != nil {
		return err
	}
	return s.write(ctx, func(tx *sql.Tx) error {
		if _, err := tx.ExecContext(ctx, `DELETE FROM enrol WHERE at < $1`, now-askingFor.Milliseconds()); err != nil {
			return err
		}
		var n int
		if err := tx.QueryRowContext(ctx, `SELECT COUNT(*) FROM enrol WHERE code <> $1`, q.Code()).Scan(&n); err != nil {
			return err
		}
		if n >= maxAsking {
			return errors.New("too many devices wait for approval")
		}
		_, err := tx.ExecContext(ctx, `INSERT INTO enrol (code, site, gate, request, at) VALUES ($1, $2, $3, $4, $5)
			ON CONFLICT (code) DO UPDATE SET site = excluded.site, gate = excluded.gate, request = excluded.request, at = excluded.at`,
			q.Code(), q.Site, q.Gate, string(text), now)
		return err
	})
}

func (s *store) addCertificate(ctx context.Context, gate int64, public []byte, c *x509.Certificate, now int64) error {
	return s.write(ctx, func(tx *sql.Tx) error {
		if _, err := tx.ExecContext(ctx, `DELETE FROM certificate WHERE until < $1`, now); err != nil {
			return err
		}
		_, err := tx.ExecContext(ctx, `INSERT INTO certificate (serial, gate, public, at, until) VALUES ($1, $2, $3, $4, $5)`,
			hex.EncodeToString(c.SerialNumber.Bytes()), gate, public, now, c.NotAfter.UnixMilli())
		return err
	})
}

// replaced says which epoch a new device's first one follows: the last of the
// device whose place it took, which was revoked for that. Only the server knows.
func (c *committer) replaced(ctx context.Context, newest int64, next *gateLog) (ok bool, err error) {
	var epoch, state string
	var size int64
	var public []byte
	err = c.store.r.QueryRowContext(ctx, `SELECT l.epoch, l.size, l.public, k.state FROM log l JOIN gate_key k ON k.gate = l.gate AND k.public = l.public
		WHERE l.id = $1`, newest).Scan(&epoch, &size, &public, &state)
	if errors.Is(err, sql.ErrNoRows) {
		return false, nil
	}
	if err != nil {
		return false, fmt.Errorf("cannot read the gate's epochs: %w", err)
	}
	if KeyState(state) != KeyRevoked || bytes.Equal(public, next.public[:]) {
		return false, nil
	}
	if next.parent, err = edge.ParseEpoch(epoch); err != nil {
		return false, err
	}
	next.forked = uint64(size)
	return true, nil
}
