package app

import (
	"cmp"
	"context"
	"crypto/rand"
	"encoding/hex"
	"fmt"
	"net/url"
	"os"
	"strings"

	"golang.org/x/sync/errgroup"

	"gatehouse/edge"
	"gatehouse/edge/bundle"
	"gatehouse/sync/downlink"
	"gatehouse/sync/mqtt"
	"gatehouse/sync/uplink"
	"gatehouse/sync/wire"
)

// link is the way to the community server and back.
type link struct {
	app    *App
	pace   Pace
	client *mqtt.Client
	up     *uplink.Uplink
	down   *downlink.Downlink
}

// newLink builds the transport, the uplink and the downlink. Nothing connects.
func newLink(a *App) (*link, error) {
	c := a.cfg.Sync
	trust, err := openTrust(c.Trust)
	if err != nil {
		if own := a.cfg.MayEnrol(); own != nil && a.cfg.Enrolled != nil {
			err = fmt.Errorf("%w; this gate is enrolled, but %w", err, own)
		}
		return nil, err
	}
	offline, err := wire.Encode(wire.StatusMessage{V: wire.Version})
	if err != nil {
		return nil, err
	}
	mc := mqtt.Config{URL: c.URL, Username: c.Username, KeepAlive: c.Keep,
		ClientID: clientID(a.cfg.Site, a.cfg.Gate),
		Will:     &mqtt.Message{Topic: wire.Topic(a.cfg.Site, a.cfg.Gate, wire.Status), Payload: offline, Retained: true}}
	if c.Password != "" {
		p, err := os.ReadFile(c.Password)
		if err != nil {
			return nil, fmt.Errorf("cannot read the broker's password: %w", err)
		}
		mc.Password = strings.TrimSpace(string(p))
	}
	if c.CA != "" || c.Cert != "" {
		if mc.TLS, err = mqtt.TLS(c.CA, c.Cert, c.Key); err != nil {
			return nil, err
		}
		u, err := url.Parse(c.URL)
		if err != nil {
			return nil, err
		}
		mc.TLS = mqtt.At(mc.TLS, u.Hostname(), a.Clock.Floor)
	}
	l := &link{app: a, pace: cmp.Or(a.o.Renew, usualPace())}
	log := a.log.With("part", "sync")
	if l.client, err = mqtt.New(mc, log); err != nil {
		return nil, err
	}
	l.up, err = uplink.New(uplink.Config{Community: a.cfg.Community, Site: a.cfg.Site, Gate: a.cfg.Gate, Server: c.URL, Device: a.Identity.Signer(), Trust: trust.keys,
		Entries: c.Batch, Bytes: c.Bytes, Age: c.Age, Window: c.Window, Resend: c.Resend, NoDictionary: !c.Dictionary, Status: a.statusMessage, Fork: a.fork,
		Metered: uplink.Metered{Rate: c.Rate, Burst: c.Burst, QuietFrom: c.QuietFrom, QuietTo: c.QuietTo, Clock: a.Clock}}, a.Journal, l.client, log)
	if err != nil {
		return nil, err
	}
	if l.down, err = newDownlink(a, l, trust); err != nil {
		return nil, err
	}
	a.Policies.trust = func() bundle.Trust {
		return bundle.Trust{Community: a.cfg.Community, Site: a.cfg.Site, Keys: policyKeys(trust.keys())}
	}
	return l, nil
}

// clientID is the gate's own, with a part that is new for each start: a broker
// throws out the older of two clients with one name, and two gates with one
// identity would do that to each other for ever instead of being noticed.
func clientID(site, gate string) string {
	var x [4]byte
	rand.Read(x[:])
	return site + "-" + gate + "-" + hex.EncodeToString(x[:])
}

func (l *link) run(ctx context.Context) error {
	g, ctx := errgroup.WithContext(ctx)
	g.Go(func() error { return l.client.Run(ctx) })
	g.Go(func() error { return l.up.Run(ctx) })
	g.Go(func() error { return l.down.Run(ctx) })
	if e := l.app.cfg.Enrolled; e != nil && e.Server != "" && l.app.cfg.MayEnrol() == nil {
		g.Go(func() error { return l.renew(ctx) })
	}
	return g.Wait()
}

func (l *link) status() edge.SyncStatus { return l.up.Status() }

// fork begins a new epoch when the server, signed, has another continuation of this
// one. What does not stand there is carried over, by the journal's Run.
func (a *App) fork(ctx context.Context, stand uint64, why string) error {
	return a.Journal.NewEpoch(ctx, stand, why)
}

// statusMessage is what the gate says of itself, retained. No personal data.
func (a *App) statusMessage() wire.StatusMessage {
	s := a.Clock.Now()
	key, _ := TrustLine(a.Identity.Signer())
	return wire.StatusMessage{V: wire.Version, Online: true, Version: a.o.Version, Policy: a.Policies.Hash(), Registry: a.Registry.Version(), Time: s.Time, Clock: s.Clock,
		Key: key, Age: a.Identity.Recipient(), Devices: a.Devices(), Flash: a.Journal.Flash()}
}
