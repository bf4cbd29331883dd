package communitycmd

import (
	"context"
	"crypto/rand"
	"crypto/subtle"
	"crypto/tls"
	"net"

	"gatehouse/sync/broker"
	"gatehouse/sync/community"
)

// brokerLogin is how the server itself comes in at its own broker.
type brokerLogin struct {
	user, password string
	tls            *tls.Config
}

// announce keeps where gates find the embedded broker, for invitations.
func (b *base) announce(r *runFlags) error {
	if _, err := b.signer(); err != nil { // makes the folder
		return err
	}
	p, err := b.place()
	if err != nil {
		return err
	}
	_, port, err := net.SplitHostPort(r.listen)
	if err != nil {
		return err
	}
	at := net.JoinHostPort(r.hosts[0], port)
	p.URL, p.Enrol, p.Hosts = "mqtts://"+at, at, r.hosts
	return p.save()
}

// guarded is an embedded broker that lets in gates by their certificates, devices
// that enrol by their code, and the server by a password made for this run.
func (b *base) guarded(ctx context.Context, s *community.Server, hosts []string) (broker.Options, brokerLogin, error) {
	signer, err := b.signer()
	if err != nil {
		return broker.Options{}, brokerLogin{}, err
	}
	e, err := b.enrolment(signer)
	if err != nil {
		return broker.Options{}, brokerLogin{}, err
	}
	own := brokerLogin{user: "server", password: rand.Text(), tls: &tls.Config{MinVersion: tls.VersionTLS12, RootCAs: e.Authority.Pool(), ServerName: hosts[0]}}
	check := func(c broker.Client) *broker.Rights {
		if c.Cert == nil && c.User == own.user {
			if subtle.ConstantTimeCompare([]byte(c.Password), []byte(own.password)) != 1 {
				return nil
			}
			return &broker.Rights{All: true}
		}
		r := s.RightsOf(ctx, c.Cert, c.User)
		if r == nil {
			return nil
		}
		return &broker.Rights{Write: r.Write, Read: r.Read}
	}
	return broker.Options{TLS: e.Authority.BrokerTLS(hosts), Check: check}, own, nil
}
