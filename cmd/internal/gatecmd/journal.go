package gatecmd

import (
	"context"
	"errors"
	"io/fs"
	"log/slog"
	"os"
	"path/filepath"

	"github.com/spf13/cobra"

	"gatehouse/cmd/internal/app"
	"gatehouse/cmd/internal/config"
	"gatehouse/cmd/internal/journalcmd"
	"gatehouse/edge"
	"gatehouse/edge/clock"
	"gatehouse/edge/identity"
	"gatehouse/edge/journal"
)

// journalTree is the inspector's commands, on a gate's journal or on a file.
func journalTree() *cobra.Command {
	var conf, file string
	c := journalcmd.New(journalcmd.Gate{
		Path: func() (string, error) {
			if file != "" {
				return file, nil
			}
			cfg, err := config.Load(conf)
			if err != nil {
				return "", err
			}
			return filepath.Join(cfg.State, "journal.db"), nil
		},
		Signer: func() (edge.Signer, error) {
			if file != "" {
				return nil, nil
			}
			cfg, err := config.Load(conf)
			if err != nil {
				return nil, err
			}
			return deviceKey(cfg)
		},
		Alone: func(ctx context.Context) (*journal.Journal, error) {
			if file != "" {
				return nil, errors.New("--file is to look at; what is written is the journal of the gate whose --config is given, on the gate itself")
			}
			cfg, err := config.Load(conf)
			if err != nil {
				return nil, err
			}
			return alone(ctx, cfg)
		},
		Copies: func() error {
			cfg, err := config.Load(conf)
			if err != nil {
				return err
			}
			return removeBesides(cfg.State)
		},
	})
	c.PersistentFlags().StringVarP(&conf, "config", "c", defaultConfig, "the gate's configuration")
	c.PersistentFlags().StringVar(&file, "file", "", "a journal.db, of a card from another machine for example")
	return c
}

// deviceKey is the gate's signer; nil where it has no keys or they may not be read.
func deviceKey(cfg *config.Gate) (edge.Signer, error) {
	dir := filepath.Join(cfg.State, "keys")
	f, err := os.Open(filepath.Join(dir, "device.key"))
	if errors.Is(err, fs.ErrNotExist) || errors.Is(err, fs.ErrPermission) {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	if err := f.Close(); err != nil {
		return nil, err
	}
	id, err := identity.Open(dir, cfg.Community+"/"+cfg.Site+"/"+cfg.Gate)
	if err := errors.Join(cfg.Remedy(err), cfg.OwnState()); err != nil {
		return nil, err
	}
	return id.Signer(), nil
}

// alone opens a stopped gate's journal to write to it.
func alone(ctx context.Context, cfg *config.Gate) (*journal.Journal, error) {
	s, err := deviceKey(cfg)
	if err != nil {
		return nil, err
	}
	clk, err := clock.New(clock.Options{Location: cfg.Location, Keep: filepath.Join(cfg.State, "time"), TrustSystem: cfg.Clock.Battery, Log: slog.New(slog.DiscardHandler)})
	if err != nil {
		return nil, err
	}
	o := journal.Options{Community: cfg.Community, Site: cfg.Site, Gate: cfg.Gate, Clock: clk, Signer: s, Alone: true,
		Erased: func(context.Context) error {
			_, err := app.RemoveCopies(cfg.State, app.AllCopies())
			return err
		}}
	if cfg.Enrolled != nil {
		o.Recipient = cfg.Enrolled.Recipient
	}
	j, err := journal.Open(ctx, filepath.Join(cfg.State, "journal.db"), o)
	if err := errors.Join(cfg.Remedy(err), cfg.OwnState()); err != nil {
		if j != nil {
			err = errors.Join(err, j.Close())
		}
		return nil, err
	}
	return j, nil
}
