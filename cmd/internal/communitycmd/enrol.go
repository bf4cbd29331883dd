package communitycmd

import (
	"context"
	"crypto/rand"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net"
	"net/url"
	"os"
	"path/filepath"
	"strings"
	"text/tabwriter"

	"github.com/spf13/cobra"
	"golang.org/x/mod/sumdb/note"

	"gatehouse/edge"
	"gatehouse/edge/identity"
	"gatehouse/sync/community"
	"gatehouse/sync/wire"
)

// place is where gates find this community: kept beside the keys, so that every
// command says the same.
type place struct {
	URL    string   `json:"url"`             // of the broker
	Enrol  string   `json:"enrol,omitempty"` // host:port
	Hosts  []string `json:"hosts,omitempty"` // of the embedded broker's certificate
	folder string
}

const placeFile = "place.json"

// keysDir is the folder of the server's keys.
func (b *base) keysDir() (string, error) {
	if b.keys != "" {
		return b.keys, nil
	}
	if strings.Contains(b.store, "://") {
		return "", errors.New("--keys is missing: the folder of the server's keys (a database has no place beside it)")
	}
	return filepath.Join(filepath.Dir(b.store), "community-keys"), nil
}

func (b *base) place() (place, error) {
	dir, err := b.keysDir()
	if err != nil {
		return place{}, err
	}
	p := place{folder: dir}
	src, err := os.ReadFile(filepath.Join(dir, placeFile))
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return p, nil
	case err != nil:
		return p, fmt.Errorf("cannot read where gates find the server: %w", err)
	}
	if err := json.Unmarshal(src, &p); err != nil {
		return p, fmt.Errorf("%s is damaged: %w", filepath.Join(dir, placeFile), err)
	}
	return p, nil
}

func (p place) save() error {
	src, err := json.MarshalIndent(p, "", "  ")
	if err == nil {
		err = os.WriteFile(filepath.Join(p.folder, placeFile), append(src, '\n'), 0o600)
	}
	if err != nil {
		return fmt.Errorf("cannot keep where gates find the server: %w", err)
	}
	return nil
}

// enrolment is what a device is given that is approved. The folder of the keys
// may hold a file "authorities": lines of a trust file for keys beside the
// server's own, such as those of an authority that countersigns policies.
func (b *base) enrolment(s edge.Signer) (*community.Enrolment, error) {
	p, err := b.place()
	if err != nil {
		return nil, err
	}
	ca, err := community.OpenAuthority(p.folder, b.community)
	if err != nil {
		return nil, err
	}
	trust, err := note.NewEd25519VerifierKey(s.Name(), s.Public())
	if err != nil {
		return nil, err
	}
	trust += "\n"
	more, err := os.ReadFile(filepath.Join(p.folder, "authorities"))
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return nil, fmt.Errorf("cannot read the authorities' keys: %w", err)
	}
	id, err := identity.Open(p.folder, s.Name())
	if err != nil {
		return nil, err
	}
	where := func() (string, string, error) {
		p, err := b.place() // another process may have changed it: `communityd invite`
		if err == nil && p.URL == "" {
			err = errors.New("it is not known how gates reach the broker: `communityd invite --url` says it once")
		}
		return p.URL, p.Enrol, err
	}
	return &community.Enrolment{Authority: ca, Place: where, Trust: trust + string(more), Recipient: id.Recipient(), SiteKey: func(site string) (string, error) {
		line, err := identity.Secret(filepath.Join(p.folder, "site-"+site+".key"), func() (string, error) {
			var k [32]byte
			_, err := rand.Read(k[:])
			return "1 " + hex.EncodeToString(k[:]), err
		})
		return line + "\n", err
	}}, nil
}

func (b *base) invite() *cobra.Command {
	var site, address, enrol string
	c := &cobra.Command{
		Use:   "invite",
		Short: "Print the line with which a device at the site asks to be a gate",
		Long: `invite prints the line that "gatehouse enroll" wants: where the server is, and the
pin of its key, so that a device believes nobody else. It is no secret. With a
broker of one's own, --url says where gates reach it and --enrol where devices
without a certificate may ask (the second listener of the Mosquitto sample); both
are kept for the next time.`,
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			s, err := b.signer()
			if err != nil {
				return err
			}
			p, err := b.place()
			if err != nil {
				return err
			}
			if address != "" {
				if u, err := url.Parse(address); err != nil || u.Host == "" {
					return fmt.Errorf("--url: %q is not an address like mqtts://server:8883", address)
				}
				p.URL = address
			}
			if enrol != "" {
				if _, _, err := net.SplitHostPort(enrol); err != nil {
					return fmt.Errorf("--enrol: %q is not host:port", enrol)
				}
				p.Enrol = enrol
			}
			if p.URL == "" {
				return errors.New("--url is missing: where gates reach the broker (`communityd run --embedded-broker --host NAME` knows it by itself)")
			}
			if err := errors.Join(wire.CheckName(site), p.save()); err != nil {
				return err
			}
			fmt.Fprintln(cmd.OutOrStdout(), wire.Invitation{Server: p.Enrol, Community: b.community, Site: site, Pin: wire.ShowCode(wire.PinOf(s.Public()))})
			return nil
		},
	}
	c.Flags().StringVar(&site, "site", "", "`site` of the gate")
	c.Flags().StringVar(&address, "url", "", "`address` of the broker as gates reach it: mqtts://host:8883")
	c.Flags().StringVar(&enrol, "enrol", "", "`host:port` where devices without a certificate may ask")
	must(c.MarkFlagRequired("site"))
	return c
}

// request finds who is to be approved: by code among those who ask, or in a file
// that was carried here.
func request(ctx context.Context, s *community.Server, code, file string) (*wire.Enrol, error) {
	if file == "" {
		c, err := wire.ParseCode(code)
		if err != nil {
			return nil, err
		}
		a, err := s.AskingBy(ctx, c)
		return a.Request, err
	}
	src, err := os.ReadFile(file)
	if err != nil {
		return nil, fmt.Errorf("cannot read the request: %w", err)
	}
	var m wire.EnrolMessage
	if err := wire.Decode(src, &m); err != nil || m.Request == nil {
		return nil, fmt.Errorf("%s holds no request of `gatehouse enroll --request` (%v)", file, err)
	}
	if code != "" {
		c, err := wire.ParseCode(code)
		if err == nil && c != m.Request.Code() {
			err = fmt.Errorf("the request's code is %s, not %s", wire.ShowCode(m.Request.Code()), code)
		}
		if err != nil {
			return nil, err
		}
	}
	return m.Request, nil
}

// approveAsking is `gates approve` and `gates replace` for a device that asks.
func (b *base) approveAsking(ctx context.Context, s *community.Server, out io.Writer, name, code, file, answer string, replace bool) error {
	site, gate, err := siteGate(name)
	if err != nil {
		return err
	}
	q, err := request(ctx, s, code, file)
	if err != nil {
		return err
	}
	if err := s.ApproveEnrol(ctx, site, gate, q, replace, actor()); err != nil {
		return err
	}
	verb := "approved"
	if replace {
		verb = "replaced"
	}
	fmt.Fprintf(out, "%s %s %s\n", verb, name, wire.ShowCode(q.Code()))
	if answer == "" {
		return nil
	}
	sealed, err := s.ApprovalFor(ctx, q)
	if err != nil {
		return err
	}
	payload, err := wire.Encode(wire.EnrolMessage{V: wire.Version, Sealed: sealed})
	if err == nil {
		err = os.WriteFile(answer, payload, 0o644)
	}
	if err != nil {
		return fmt.Errorf("cannot write the approval: %w", err)
	}
	fmt.Fprintf(out, "carry %s to the gate: gatehouse enroll --approval %s\n", answer, filepath.Base(answer))
	return nil
}

func (b *base) replace() *cobra.Command {
	var file, answer string
	c := &cobra.Command{
		Use:   "replace SITE/GATE [CODE]",
		Short: "Put a new device in the place of a gate's old one, which is revoked",
		Args:  cobra.RangeArgs(1, 2),
		RunE: func(cmd *cobra.Command, args []string) error {
			return b.with(cmd, func(ctx context.Context, s *community.Server, out io.Writer) error {
				return b.approveAsking(ctx, s, out, args[0], strings.Join(args[1:], ""), file, answer, true)
			})
		},
	}
	carriedFlags(c, &file, &answer)
	return c
}

func carriedFlags(c *cobra.Command, file, answer *string) {
	c.Flags().StringVar(file, "request", "", "`file` with the device's request, carried here by hand")
	c.Flags().StringVar(answer, "out", "", "`file` to write the approval to, to be carried back")
}

func (b *base) asking() *cobra.Command {
	return &cobra.Command{
		Use:   "asking",
		Short: "List the devices that wait to be approved as a gate",
		Args:  cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			return b.with(cmd, func(ctx context.Context, s *community.Server, out io.Writer) error {
				all, err := s.Asking(ctx)
				if err != nil {
					return err
				}
				w := tabwriter.NewWriter(out, 0, 0, 2, ' ', 0)
				fmt.Fprintln(w, "CODE\tWANTS TO BE\tLAST ASKED")
				for _, a := range all {
					fmt.Fprintf(w, "%s\t%s/%s\t%s\n", wire.ShowCode(a.Code), a.Site, a.Gate, stamp(a.At))
				}
				return w.Flush()
			})
		},
	}
}

func (b *base) revoked() *cobra.Command {
	return &cobra.Command{
		Use:   "revoked",
		Short: "Print the certificate revocation list for a broker of one's own",
		Args:  cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			return b.with(cmd, func(ctx context.Context, s *community.Server, out io.Writer) error {
				crl, err := s.Revocations(ctx)
				if err != nil {
					return err
				}
				_, err = out.Write(crl)
				return err
			})
		},
	}
}

// certificate makes what a broker of one's own, and the server's own connection
// to it, identify themselves with.
func (b *base) certificate() *cobra.Command {
	var dir string
	c := &cobra.Command{
		Use:   "certificate HOST...",
		Short: "Make a broker's certificate, by the community's authority",
		Long: `certificate writes into a folder what a broker of one's own, reached under these
names, is given (ca.pem, broker.pem, broker.key), and what this server shows it
(server.pem, server.key: run --cert, --cert-key). Again before a year is over.`,
		Args: cobra.MinimumNArgs(1),
		RunE: func(cmd *cobra.Command, hosts []string) error {
			s, err := b.signer()
			if err != nil {
				return err
			}
			e, err := b.enrolment(s)
			if err != nil {
				return err
			}
			cert, key, err := e.Authority.BrokerPEM(hosts)
			if err != nil {
				return err
			}
			own, ownKey, err := e.Authority.ServerPEM()
			if err != nil {
				return err
			}
			if err := os.MkdirAll(dir, 0o755); err != nil {
				return fmt.Errorf("cannot make the folder: %w", err)
			}
			for _, f := range []struct {
				name string
				text []byte
				mode os.FileMode
			}{{"ca.pem", e.Authority.PEM(), 0o644}, {"broker.pem", cert, 0o644}, {"broker.key", key, 0o600}, {"server.pem", own, 0o644}, {"server.key", ownKey, 0o600}} {
				if err := os.WriteFile(filepath.Join(dir, f.name), f.text, f.mode); err != nil {
					return fmt.Errorf("cannot write the certificate: %w", err)
				}
			}
			fmt.Fprintf(cmd.OutOrStdout(), "ca.pem, broker.pem, broker.key, server.pem and server.key are in %s\n", dir)
			return nil
		},
	}
	c.Flags().StringVar(&dir, "out", ".", "`folder` to write to")
	return c
}
