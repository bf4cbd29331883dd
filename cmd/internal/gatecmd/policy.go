package gatecmd

import (
	"context"
	"errors"
	"log/slog"
	"path/filepath"
	"time"

	"github.com/spf13/cobra"

	"gatehouse/cmd/internal/app"
	"gatehouse/cmd/internal/config"
	"gatehouse/cmd/internal/policycmd"
	"gatehouse/edge/journal"
	"gatehouse/edge/policy"
)

// policyTree is the operator's commands on policies.
func policyTree() *cobra.Command {
	var path string
	c := policycmd.New(func(ctx context.Context) (policycmd.Site, error) { return openPolicySite(ctx, path) })
	c.PersistentFlags().StringVarP(&path, "config", "c", defaultConfig, "the gate's configuration")
	return c
}

// openPolicySite opens a gate's journal for reading and finds the policy in
// force and those before it.
func openPolicySite(ctx context.Context, path string) (policycmd.Site, error) {
	cfg, err := config.Load(path)
	if err != nil {
		return policycmd.Site{}, err
	}
	j, err := journal.Inspect(ctx, filepath.Join(cfg.State, "journal.db"))
	if err != nil {
		return policycmd.Site{}, cfg.Remedy(err)
	}
	log := slog.New(slog.DiscardHandler)
	r, err := app.OpenRegistry(ctx, cfg, nil, log)
	if err != nil {
		return policycmd.Site{}, errors.Join(err, j.Close())
	}
	closeBoth := func() error { return errors.Join(r.Close(), j.Close()) }
	pol, err := app.PolicyInForce(ctx, cfg, r, log)
	if err != nil {
		return policycmd.Site{}, errors.Join(err, closeBoth())
	}
	return policycmd.Site{Journal: j, Policy: pol, Location: cfg.Location, Now: func() int64 { return time.Now().UnixMilli() }, Close: closeBoth,
		Archived: func(ctx context.Context, hash string) (*policy.Policy, error) {
			if hash == pol.Hash() {
				return pol, nil
			}
			return app.ArchivedPolicy(ctx, r, hash)
		}}, nil
}
