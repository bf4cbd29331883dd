package communitycmd

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"time"

	"github.com/spf13/cobra"

	"gatehouse/edge"
	"gatehouse/sync/community"
)

func (b *base) command() *cobra.Command {
	var valid, wait time.Duration
	c := &cobra.Command{
		Use:   "command SITE/GATE NAME [ARGUMENTS]",
		Short: "Order a gate that is online to do something, once and now",
		Long: `command hands an order with its arguments, a JSON value, to the running server,
which signs and sends it, and waits for what the gate says became of it. The gate
carries it out at most once, and only while its nonce is the one it was issued for:
an order that was delayed opens nothing. Orders are

  close '{"lane": "in"}'            close the lane to everybody
  open  '{"lane": "in"}'            open it again
  plan  '{"name": "evacuation"}'    an emergency plan that the policy has rules for is
                                    in force from now on; with "drill": true as a drill
  plan  '{"off": true}'             no plan is in force any more
  reload                            read the policy's files again
  purge                             destroy what is past its retention now`,
		Args: cobra.RangeArgs(2, 3),
		RunE: func(cmd *cobra.Command, args []string) error {
			site, gate, err := siteGate(args[0])
			if err != nil {
				return err
			}
			o := community.Order{Site: site, Gate: gate, Name: args[1], Actor: actor()}
			if len(args) == 3 {
				o.Args = json.RawMessage(args[2])
			}
			return b.with(cmd, func(ctx context.Context, s *community.Server, out io.Writer) error {
				n, err := s.Command(ctx, o, valid)
				if err != nil {
					return err
				}
				return awaitResult(ctx, s, out, n, wait)
			})
		},
	}
	c.Flags().DurationVar(&valid, "valid", 30*time.Second, "the order expires after this `time`")
	c.Flags().DurationVar(&wait, "wait", 30*time.Second, "wait so `long` for the result")
	return c
}

func awaitResult(ctx context.Context, s *community.Server, out io.Writer, number uint64, wait time.Duration) error {
	ctx, cancel := context.WithTimeout(ctx, wait)
	defer cancel()
	t := time.NewTicker(200 * time.Millisecond)
	defer t.Stop()
	for {
		o, err := s.OrderOf(ctx, number)
		if err != nil {
			return err
		}
		switch o.Status {
		case "":
		case "done":
			fmt.Fprintf(out, "command %d: done %s\n", number, o.Text)
			return nil
		default:
			return fmt.Errorf("command %d: %s: %s", number, o.Status, o.Text)
		}
		select {
		case <-ctx.Done():
			return fmt.Errorf("command %d: no result in %v (is `communityd run` running? is the gate online?)", number, wait)
		case <-t.C:
		}
	}
}

func (b *base) erase() *cobra.Command {
	var site string
	var pass int64
	c := &cobra.Command{
		Use:   "erase",
		Short: "Destroy all that is stored of one pass, with a record that it was done",
		Args:  cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			return b.with(cmd, func(ctx context.Context, s *community.Server, out io.Writer) error {
				if err := known(ctx, s, site, ""); err != nil {
					return err
				}
				d, err := s.ErasePerson(ctx, site, edge.PassID(pass), actor())
				if err != nil {
					return err
				}
				fmt.Fprintf(out, "%d entries destroyed; proofs about the others still verify\n", d.Entries)
				return nil
			})
		},
	}
	c.Flags().StringVar(&site, "site", "", "`site` of the pass")
	c.Flags().Int64Var(&pass, "pass", 0, "`id` of the pass")
	must(c.MarkFlagRequired("site"))
	must(c.MarkFlagRequired("pass"))
	return c
}

func (b *base) purge() *cobra.Command {
	var r community.Retention
	var right bool
	c := &cobra.Command{
		Use:   "purge",
		Short: "Destroy what is past its retention now; run does it every six hours",
		Long: `purge destroys what is past its retention. When this machine's clock is further
ahead than the time that can have passed since the last purge, nothing is
destroyed, by run neither, and "communityd alerts" says so: look at the clock. If
it is right, because the machine was off for days, the gates with a synchronized
clock say so within minutes; without such, say it with --time-is-right.`,
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			return b.with(cmd, func(ctx context.Context, s *community.Server, out io.Writer) error {
				d, err := s.Enforce(ctx, r, right)
				if err != nil {
					return err
				}
				fmt.Fprintf(out, "%d entries destroyed, %d partitions dropped\n", d.Entries, d.Partitions)
				return nil
			})
		},
	}
	retentionFlags(c, &r)
	c.Flags().BoolVar(&right, "time-is-right", false, "the clock was looked at, and is right")
	return c
}

// retentionFlags are --keep and --keep-rest, in days.
func retentionFlags(c *cobra.Command, r *community.Retention) {
	c.Flags().Var((*days)(&r.Persons), "keep", "`days` to keep entries about persons (default 28)")
	c.Flags().Var((*days)(&r.Rest), "keep-rest", "`days` to keep entries about devices, policies and the log itself (default 400)")
}

// days is a flag: a whole number of days, at least one.
type days time.Duration

func (d *days) String() string {
	if *d == 0 {
		return ""
	}
	return fmt.Sprint(int64(time.Duration(*d) / (24 * time.Hour)))
}

func (d *days) Type() string { return "days" }

func (d *days) Set(s string) error {
	var n int
	if _, err := fmt.Sscanf(s+"\n", "%d\n", &n); err != nil || n < 1 || n > 3650 {
		return fmt.Errorf("%q is not a number of days from 1 to 3650", s)
	}
	*d = days(time.Duration(n) * 24 * time.Hour)
	return nil
}
