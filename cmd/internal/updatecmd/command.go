package updatecmd

import (
	"fmt"
	"io"
	"log/slog"
	"os/signal"
	"syscall"
	"time"

	"github.com/spf13/cobra"
)

// Command makes the command tree. site says where the gate is; log is for what a
// person at the command line need not read.
func Command(site func() (Site, error), log func(io.Writer) *slog.Logger) *cobra.Command {
	o := Options{Package: "gatehouse", Unit: "gatehouse.service"}
	root := &cobra.Command{
		Use:   "update",
		Short: "Bring this gate to the version that the operator's repository offers",
		Long: `The repository is the operator's own; its address and key stand in the sources
file. apt checks its signature. Run it as root.`,
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error { return cmd.Help() },
	}
	var here bool
	f := root.PersistentFlags()
	f.StringVar(&o.Sources, "sources", "/etc/apt/sources.list.d/gatehouse.sources", "`file` with the repository; empty for all of the machine's")
	f.StringVar(&o.Stage, "stage", "/var/cache/gatehouse/update", "`folder` for packages and copies")
	f.DurationVar(&o.Healthy, "healthy", 2*time.Minute, "`time` that the gate must be healthy with the new version")
	updater := func(cmd *cobra.Command) (*Updater, error) {
		s, err := site()
		if err != nil {
			return nil, err
		}
		o.System = SystemFolders()
		o.Log, o.Out = log(cmd.ErrOrStderr()), cmd.OutOrStdout()
		return New(o, s), nil
	}
	// alone is for what has to come to its end whoever goes away.
	alone := func(cmd *cobra.Command) (*Updater, error) {
		u, err := updater(cmd)
		if err == nil {
			err = fromMemory(o.System)
		}
		return u, err
	}
	apply := &cobra.Command{
		Use: "apply", Short: "Install the offered version, watch it, and go back by itself when it is not healthy", Args: cobra.NoArgs,
		Long: `Fetches the offered package and, for the way back, the installed one; stops the
gate; copies its databases; installs; starts; and watches. When the service fails,
is started again, or says that it is not healthy, the old version comes back by
itself. It goes on with the databases as they are when it can read them, so that
nothing is lost; otherwise with the copies, and the newer ones are kept beside.
When the way back fails too, the copies stay, and every start of the machine tries it
again; "gatehouse update resume" does so at once.

It runs as the unit ` + Unit + `: when the line to the gate drops, it goes on,
and what it says stands in last.log in the stage folder.
A system whose root is read-only is made writable while packages are installed.`,
		RunE: func(cmd *cobra.Command, _ []string) error {
			if !here {
				// What is wrong at once is said here.
				if _, err := updater(cmd); err != nil {
					return err
				}
				if err := detach(); err != nil {
					return err
				}
			}
			// Nor does a terminal's end matter here, or to apt and dpkg, which inherit this.
			signal.Ignore(syscall.SIGHUP, syscall.SIGPIPE)
			u, err := alone(cmd)
			if err != nil {
				return err
			}
			return u.Apply(cmd.Context())
		},
	}
	apply.Flags().BoolVar(&here, "here", false, "in this process, not in a unit of its own")
	root.AddCommand(&cobra.Command{
		Use: "check", Short: "Say which version is installed and which is offered", Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			u, err := updater(cmd)
			if err != nil {
				return err
			}
			v, err := u.Check(cmd.Context())
			if err != nil {
				return err
			}
			if v.Newer() {
				fmt.Fprintf(cmd.OutOrStdout(), "installed %s, offered %s\n", v.Installed, v.Candidate)
			} else {
				fmt.Fprintf(cmd.OutOrStdout(), "installed %s, nothing newer is offered\n", v.Installed)
			}
			return nil
		},
	}, apply, &cobra.Command{
		Use: "resume", Short: "Finish or undo an update that a power cut interrupted; the machine does this at its start", Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			u, err := alone(cmd)
			if err != nil {
				return err
			}
			return u.Resume(cmd.Context())
		},
	})
	return root
}
