package gatecmd

import (
	"github.com/spf13/cobra"

	"gatehouse/cmd/internal/app"
	"gatehouse/edge/clock"
)

// clockCmd is the process beside the daemon that may ask about the clock.
func clockCmd() *cobra.Command {
	var note string
	cmd := &cobra.Command{
		Use: "clock", Short: "Watch whether NTP disciplines this machine's clock, for the daemon", Args: cobra.NoArgs,
		Long: `clock asks the kernel whether NTP disciplines the clock, and leaves a note on it for
the daemon, whose service is kept from every call about clocks. It runs until it is
told to stop, as gatehouse-clock.service, which comes and goes with the gate. A note
that is not renewed counts for nothing after 90 seconds.`,
		RunE: func(cmd *cobra.Command, _ []string) error { return clock.Watch(cmd.Context(), note) },
	}
	cmd.Flags().StringVar(&note, "note", app.ClockNote, "the `file` to leave the note in")
	return cmd
}
