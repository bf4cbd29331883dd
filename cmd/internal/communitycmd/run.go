package communitycmd

import (
	"context"
	"crypto/rand"
	"encoding/hex"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"

	"github.com/spf13/cobra"
	"golang.org/x/sync/errgroup"

	"gatehouse/sync/broker"
	"gatehouse/sync/mqtt"
)

// runFlags say where the broker is.
type runFlags struct {
	broker, listen, dir     string
	embedded                bool
	hosts                   []string // of the embedded broker's certificate
	user, password          string
	ca, certificate, tlsKey string
}

func (b *base) run() *cobra.Command {
	var r runFlags
	c := &cobra.Command{
		Use:   "run",
		Short: "Receive the gates' journals and publish, until told to stop",
		Long: `run connects to a broker (--broker), or starts one in the process
(--embedded-broker), and serves the gates until SIGINT or SIGTERM. With --host the
embedded broker speaks TLS under these names and lets in enrolled gates only;
without, it asks nobody for anything: that is for a network where only gates are.`,
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error { return b.serve(cmd, &r) },
	}
	f := c.Flags()
	f.StringVar(&r.broker, "broker", "", "`address` of the broker: mqtt://host:1883 or mqtts://host:8883")
	f.BoolVar(&r.embedded, "embedded-broker", false, "start a broker in the process")
	f.StringVar(&r.listen, "listen", "127.0.0.1:1883", "`address` of the embedded broker")
	f.StringSliceVar(&r.hosts, "host", nil, "`name` or address under which gates reach the embedded broker, by TLS; may be repeated")
	f.StringVar(&r.dir, "broker-dir", "", "`folder` of the embedded broker's sessions (default: community-broker beside the store)")
	f.StringVar(&r.user, "user", "", "`name` at the broker")
	f.StringVar(&r.password, "password-file", "", "`file` with the password at the broker")
	f.StringVar(&r.ca, "ca", "", "`file` with the authorities to trust (default: the system's)")
	f.StringVar(&r.certificate, "cert", "", "`file` with this server's certificate for the broker")
	f.StringVar(&r.tlsKey, "cert-key", "", "`file` with its key")
	retentionFlags(c, &b.keep)
	c.MarkFlagsMutuallyExclusive("broker", "embedded-broker")
	c.MarkFlagsOneRequired("broker", "embedded-broker")
	return c
}

func (b *base) serve(cmd *cobra.Command, r *runFlags) (err error) {
	log := b.logger(cmd.ErrOrStderr())
	if len(r.hosts) > 0 {
		if err := b.announce(r); err != nil {
			return err
		}
	}
	s, err := b.open(cmd)
	if errors.Is(err, context.Canceled) && cmd.Context().Err() != nil {
		log.Info("community server was told to stop before it ran")
		return nil
	}
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, s.Close()) }()

	url := r.broker
	var login brokerLogin
	if r.embedded {
		if r.dir == "" {
			if strings.Contains(b.store, "://") {
				return errors.New("--broker-dir is missing: a database has no place beside it")
			}
			r.dir = filepath.Join(filepath.Dir(b.store), "community-broker")
		}
		var o broker.Options
		var own brokerLogin
		if len(r.hosts) > 0 {
			if o, own, err = b.guarded(cmd.Context(), s, r.hosts); err != nil {
				return err
			}
		}
		br, err := broker.StartWith(r.dir, r.listen, o)
		if err != nil {
			return err
		}
		defer br.Stop()
		url, login = br.URL(), own
		log.Info("broker listens", "address", br.Addr())
	}
	cfg := mqtt.Config{URL: url, ClientID: clientID(), Username: r.user}
	if login.tls != nil {
		cfg.Username, cfg.Password, cfg.TLS = login.user, login.password, login.tls
	}
	if r.password != "" {
		p, err := os.ReadFile(r.password)
		if err != nil {
			return fmt.Errorf("cannot read the broker's password: %w", err)
		}
		cfg.Password = strings.TrimSpace(string(p))
	}
	if r.ca != "" || r.certificate != "" || r.tlsKey != "" {
		if cfg.TLS, err = mqtt.TLS(r.ca, r.certificate, r.tlsKey); err != nil {
			return err
		}
	}
	client, err := mqtt.New(cfg, log)
	if err != nil {
		return err
	}
	s.Attach(client)
	log.Info("community server runs", "community", b.community, "store", redacted(b.store), "broker", url)
	g, ctx := errgroup.WithContext(cmd.Context())
	g.Go(func() error { return client.Run(ctx) })
	g.Go(func() error { return s.Run(ctx) })
	if err := g.Wait(); err != nil && !errors.Is(err, context.Canceled) {
		return err
	}
	log.Info("community server stopped")
	return nil
}

// clientID is new for each start: two servers with one id would throw each other
// out for ever.
func clientID() string {
	var x [6]byte
	rand.Read(x[:])
	return "communityd-" + hex.EncodeToString(x[:])
}

// redacted hides the password in a store's address.
func redacted(store string) string {
	scheme, rest, ok := strings.Cut(store, "://")
	user, host, at := strings.Cut(rest, "@")
	if !ok || !at {
		return store
	}
	name, _, _ := strings.Cut(user, ":")
	return scheme + "://" + name + "@" + host
}
