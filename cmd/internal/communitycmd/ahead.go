package communitycmd

import (
	"context"
	"fmt"
	"io"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"gatehouse/sync/community"
	"gatehouse/sync/wire"
)

func (b *base) ahead() *cobra.Command {
	limit := 50
	c := &cobra.Command{
		Use:   "ahead [SITE[/GATE]]",
		Short: "Print what happens now at gates whose backlog is still on its way",
		Long: `Prints the newest entries of gates that were offline for long: they come ahead of
the backlog, are verified against the gate's signed head, and stand in no query and
no export until their turn has come.`,
		Args: cobra.MaximumNArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			var site, gate string
			if len(args) > 0 {
				site, gate, _ = strings.Cut(args[0], "/")
				if wire.CheckName(site) != nil || gate != "" && wire.CheckGate(gate) != nil {
					return fmt.Errorf("%q is not SITE or SITE/GATE", args[0])
				}
			}
			return b.with(cmd, func(ctx context.Context, s *community.Server, out io.Writer) error {
				list, err := s.Ahead(ctx, site, gate, limit)
				if err != nil {
					return err
				}
				for _, a := range list {
					fmt.Fprintf(out, "%s %s/%s %s %d %s\n", time.UnixMilli(a.At).UTC().Format(time.RFC3339), a.Site, a.Gate, a.Epoch, a.Seq, a.Line)
				}
				return nil
			})
		},
	}
	c.Flags().IntVar(&limit, "limit", limit, "print at most so many")
	return c
}
