// Package gatecmd is the gatehouse program: its commands and their flags.
package gatecmd

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"os"
	"os/signal"
	"syscall"

	"github.com/spf13/cobra"

	"gatehouse/cmd/internal/app"
	"gatehouse/cmd/internal/backup"
	"gatehouse/cmd/internal/benchcmd"
	"gatehouse/cmd/internal/config"
	"gatehouse/cmd/internal/devicescmd"
	"gatehouse/cmd/internal/enrolcmd"
	"gatehouse/cmd/internal/logs"
	"gatehouse/cmd/internal/passcmd"
	"gatehouse/cmd/internal/setupcmd"
	"gatehouse/cmd/internal/updatecmd"
	"gatehouse/cmd/internal/version"
)

// errSilent ends with status 1 when all has been said.
var errSilent = errors.New("")

const defaultConfig = "/etc/gatehouse/gate.yaml"

// Main runs the program and returns its exit status.
func Main(args []string, stdout, stderr io.Writer) int {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	root := New()
	root.SetArgs(args)
	root.SetOut(stdout)
	root.SetErr(stderr)
	err := root.ExecuteContext(ctx)
	if err == nil {
		return 0
	}
	if !errors.Is(err, errSilent) {
		fmt.Fprintln(stderr, err)
	}
	return 1
}

// New makes the command tree.
func New() *cobra.Command {
	root := &cobra.Command{
		Use:   "gatehouse",
		Short: "An edge checkpoint for the gates of an estate",
		Long: `Gatehouse reads pass cards and infrared thermometers at a gate, decides each
entry by the estate's policy, moves the barrier, keeps a durable journal, and
sends it to the community server when there is a network.`,
		SilenceUsage:  true,
		SilenceErrors: true,
	}
	root.AddCommand(runCmd(), checkCmd(), versionCmd())
	pass := func() *cobra.Command {
		var path string
		c := passcmd.New(func(ctx context.Context) (passcmd.Site, error) { return openSite(ctx, path) })
		c.PersistentFlags().StringVarP(&path, "config", "c", defaultConfig, "the gate's configuration")
		return c
	}
	root.AddCommand(enrolcmd.New(defaultConfig), setupcmd.New(defaultConfig), backup.Command(defaultConfig), backup.RestoreCommand(defaultConfig))
	root.AddCommand(clockCmd(), policyTree(), pass(), journalTree(), decommissionCmd(), devicescmd.New(), benchTree(), updateTree(), peopleTree())
	return root
}

// benchTree measures where the gate's databases are.
func benchTree() *cobra.Command {
	var conf string
	c := benchcmd.New(func() (string, error) {
		cfg, err := config.Load(conf)
		if err != nil {
			return "", err
		}
		return cfg.State, nil
	})
	c.PersistentFlags().StringVarP(&conf, "config", "c", defaultConfig, "the gate's configuration")
	return c
}

// updateTree brings the gate to another version.
func updateTree() *cobra.Command {
	var conf string
	c := updatecmd.Command(func() (updatecmd.Site, error) {
		cfg, err := config.Load(conf)
		if err != nil {
			return updatecmd.Site{}, err
		}
		s := updatecmd.Site{State: cfg.State}
		if cfg.Metrics.Listen != "" {
			s.Health = "http://" + cfg.Metrics.Listen + "/healthz"
		}
		return s, nil
	}, func(w io.Writer) *slog.Logger { return logs.New(w, false) })
	c.PersistentFlags().StringVarP(&conf, "config", "c", defaultConfig, "the gate's configuration")
	return c
}

// openSite opens what the operator's commands on passes need of a gate.
func openSite(ctx context.Context, path string) (passcmd.Site, error) {
	cfg, err := config.Load(path)
	if err != nil {
		return passcmd.Site{}, err
	}
	r, err := app.OpenRegistry(ctx, cfg, nil, slog.New(slog.DiscardHandler))
	if err != nil {
		return passcmd.Site{}, err
	}
	return passcmd.Site{Registry: r, Location: cfg.Location}, nil
}

func versionCmd() *cobra.Command {
	return &cobra.Command{
		Use: "version", Short: "Print which program this is", Args: cobra.NoArgs,
		Run: func(cmd *cobra.Command, _ []string) { fmt.Fprintln(cmd.OutOrStdout(), version.Full()) },
	}
}

// configFlag adds the flag that all commands share that look at a gate.
func configFlag(cmd *cobra.Command, path *string) {
	cmd.Flags().StringVarP(path, "config", "c", defaultConfig, "the gate's configuration")
}

func runCmd() *cobra.Command {
	var path string
	var verbose bool
	cmd := &cobra.Command{
		Use: "run", Short: "Run the gate", Args: cobra.NoArgs,
		Long: `Run the gate until it is told to stop. A device that is absent makes its lane run
degraded until the device appears; a wrong configuration starts nothing. On a medium
that can only be read nothing can be recorded, and so nobody is let in; fire and exit
buttons open, and the gate starts when the medium can be written.
SIGHUP (systemctl reload gatehouse) reads configuration and policy again without a
stop of any lane: policy files, and the times, limits and labels of passages and
lanes are applied; what holds only after a restart is named in the log and in the
service's status. What is wrong is refused as a whole.`,
		RunE: func(cmd *cobra.Command, _ []string) (err error) {
			cfg, err := config.Load(path)
			if err != nil {
				return err
			}
			log := logs.New(cmd.ErrOrStderr(), verbose)
			defer func() {
				if cmd.Context().Err() != nil && errors.Is(err, context.Canceled) {
					log.Info("the gate was told to stop before it was open", "at", err)
					err = nil
				}
			}()
			n := &app.Notifier{Log: log}
			o := app.Options{Version: version.String(), Build: version.Built(), Log: log, Notifier: n,
				Ready: func(a *app.App) {
					log.Info("the gate is open for business", "gate", cfg.Gate, "lanes", len(a.Lanes.Views()), "policy", a.Policies.Hash(), "entries", a.Journal.Size())
					if a.Console != nil {
						log.Info("the guard's page", "address", a.Console.URL())
					}
					n.Ready(status(a))
				}}
			a, err := app.Build(cmd.Context(), cfg, o)
			if app.ReadOnly(err) {
				if o.Late, err = app.SafeSide(cmd.Context(), cfg, o, err); err != nil || cmd.Context().Err() != nil {
					return err
				}
				a, err = app.Build(cmd.Context(), cfg, o)
			}
			if err != nil {
				return err
			}
			if err := firstKey(cmd, cfg, log); err != nil {
				log.Warn("there is no recovery key", "err", err)
			}
			hup := make(chan os.Signal, 1)
			signal.Notify(hup, syscall.SIGHUP)
			defer signal.Stop(hup)
			go func() {
				for {
					select {
					case <-cmd.Context().Done():
						return
					case <-hup:
						reload(cmd.Context(), a, path, n)
					}
				}
			}()
			err = a.Run(cmd.Context())
			n.Stopping()
			return err
		},
	}
	configFlag(cmd, &path)
	cmd.Flags().BoolVarP(&verbose, "verbose", "v", false, "log more")
	return cmd
}
