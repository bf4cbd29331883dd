// Package communitycmd is the command line of the community server. The mains
// and their tests take the same way in.
package communitycmd

import (
	"cmp"
	"context"
	"fmt"
	"io"
	"log/slog"
	"os"
	"strings"

	"github.com/spf13/cobra"

	"gatehouse/cmd/internal/logs"
	"gatehouse/edge"
	"gatehouse/edge/identity"
	"gatehouse/sync/community"
	"gatehouse/sync/wire"
)

// base is what every command needs: where the server's data and keys are.
type base struct {
	store, community, keys string
	verbose                bool
	keep                   community.Retention // of run
}

// New makes the command tree of communityd.
func New(version string) *cobra.Command {
	b := new(base)
	root := &cobra.Command{
		Use:   "communityd",
		Short: "The community server's end: receives the gates' journals, publishes roster and policies",
		Long: `communityd receives the journals of the gates of one or more sites over MQTT,
verifies and stores every entry once, and answers with a receipt. It is the
master of the roster and of the policy in force.`,
		Version:       version,
		SilenceUsage:  true,
		SilenceErrors: true,
		Args:          cobra.NoArgs,
		RunE:          help,
	}
	f := root.PersistentFlags()
	// What every command needs may be said once for all of a terminal.
	said := func(name, otherwise string) string { return cmp.Or(os.Getenv(name), otherwise) }
	f.StringVar(&b.store, "store", said("COMMUNITYD_STORE", "community.db"), "SQLite `file`, or postgres://user@host/database; $COMMUNITYD_STORE")
	f.StringVar(&b.community, "community", said("COMMUNITYD_COMMUNITY", ""), "`name` of the community: the first part of the logs' origins; $COMMUNITYD_COMMUNITY")
	f.StringVar(&b.keys, "keys", said("COMMUNITYD_KEYS", ""), "`folder` of the server's keys (default: community-keys beside the store); $COMMUNITYD_KEYS")
	f.BoolVarP(&b.verbose, "verbose", "v", false, "log more")
	root.AddCommand(b.run(), b.invite(), b.certificate(), b.gates(), b.roster(), b.policy(), b.query(), b.export(), b.verify(), b.prove(), b.alerts(), b.ahead(), b.trust(), b.command(), b.erase(), b.purge(), b.inspector())
	return root
}

// help is what a command does that only has commands below it; with cobra.NoArgs
// a mistyped one is an error.
func help(cmd *cobra.Command, _ []string) error { return cmd.Help() }

func (b *base) logger(w io.Writer) *slog.Logger { return logs.New(w, b.verbose) }

// signer opens the server's key, or makes it at the first start.
func (b *base) signer() (edge.Signer, error) {
	id, err := b.identity()
	if err != nil {
		return nil, err
	}
	return id.Signer(), nil
}

func (b *base) identity() (*identity.Identity, error) {
	if b.community == "" {
		return nil, fmt.Errorf("--community is missing: the community's name, for example estate.example (or once for the terminal: export COMMUNITYD_COMMUNITY=estate.example)")
	}
	if err := wire.CheckName(b.community); err != nil {
		return nil, fmt.Errorf("--community: %w", err)
	}
	dir, err := b.keysDir()
	if err != nil {
		return nil, err
	}
	id, err := identity.Open(dir, b.community+"/server")
	if err != nil {
		return nil, fmt.Errorf("cannot open the server's keys: %w", err)
	}
	return id, nil
}

// open opens the store for a command.
func (b *base) open(cmd *cobra.Command) (*community.Server, error) {
	id, err := b.identity()
	if err != nil {
		return nil, err
	}
	s := id.Signer()
	e, err := b.enrolment(s)
	if err != nil {
		return nil, err
	}
	return community.Open(cmd.Context(), b.store, community.Config{Community: b.community, Signer: s, Enrolment: e, Open: id.Open, Log: b.logger(cmd.ErrOrStderr()), Retention: b.keep})
}

// with runs f on the open store.
func (b *base) with(cmd *cobra.Command, f func(ctx context.Context, s *community.Server, out io.Writer) error) (err error) {
	s, err := b.open(cmd)
	if err != nil {
		return err
	}
	defer func() {
		if cerr := s.Close(); err == nil && cerr != nil {
			err = fmt.Errorf("cannot close the store: %w", cerr)
		}
	}()
	return f(cmd.Context(), s, cmd.OutOrStdout())
}

// siteGate splits SITE/GATE.
func siteGate(s string) (site, gate string, err error) {
	site, gate, ok := strings.Cut(s, "/")
	if !ok || wire.CheckName(site) != nil || wire.CheckGate(gate) != nil {
		return "", "", fmt.Errorf("%q is not SITE/GATE", s)
	}
	return site, gate, nil
}
