// Package passcmd is the operator's commands on passes: importing a roster,
// showing, finding, suspending and restoring a pass. They work on the gate's
// registry while the daemon runs.
package passcmd

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os/user"
	"strconv"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"gatehouse/edge"
	"gatehouse/edge/registry"
)

// Site is what the commands need of a gate.
type Site struct {
	Registry *registry.Registry // closed by the command
	Location *time.Location     // of dates in rosters and output; nil = UTC
	CardForm string             // what a bare card number is at this site; empty = must be said
}

// New makes the command "pass". open is called when a subcommand runs.
func New(open func(context.Context) (Site, error)) *cobra.Command {
	cmd := &cobra.Command{Use: "pass", Short: "Import rosters; show, find, suspend and restore passes"}
	// with opens the gate for a subcommand and closes it after.
	with := func(run func(cmd *cobra.Command, args []string, s Site) error) func(*cobra.Command, []string) error {
		return func(cmd *cobra.Command, args []string) (err error) {
			// What fails from here on is not the usage.
			cmd.SilenceUsage = true
			s, err := open(cmd.Context())
			if err != nil {
				return err
			}
			defer func() { err = errors.Join(err, s.Registry.Close()) }()
			if s.Location == nil {
				s.Location = time.UTC
			}
			return run(cmd, args, s)
		}
	}
	cmd.AddCommand(importCommand(with), showCommand(with), findCommand(with), suspendCommand(with), restoreCommand(with))
	return cmd
}

type wrapper func(func(*cobra.Command, []string, Site) error) func(*cobra.Command, []string) error

func showCommand(with wrapper) *cobra.Command {
	return &cobra.Command{Use: "show NUMBER", Short: "Show a pass", Args: cobra.ExactArgs(1),
		RunE: with(func(cmd *cobra.Command, args []string, s Site) error {
			id, err := number(args[0])
			if err != nil {
				return err
			}
			p, ok, err := s.Registry.Pass(cmd.Context(), id)
			if err != nil {
				return err
			}
			if !ok {
				return fmt.Errorf("pass %d: %w", id, edge.ErrUnknown)
			}
			show(cmd.OutOrStdout(), p, s.Location)
			if p.Household == 0 {
				return nil
			}
			h, ok, err := s.Registry.Household(cmd.Context(), p.Household)
			if err != nil || !ok {
				return err
			}
			line(cmd.OutOrStdout(), "household", strings.TrimSpace(fmt.Sprintf("%d %s", h.ID, h.Area)))
			if h.Quarantine {
				line(cmd.OutOrStdout(), "", "in home quarantine until "+moment(h.QuarantineUntil, s.Location))
			}
			return nil
		})}
}

func findCommand(with wrapper) *cobra.Command {
	var q edge.PassQuery
	var card, form string
	var household int64
	cmd := &cobra.Command{Use: "find", Short: "Find passes by door, name, household or card", Args: cobra.NoArgs,
		RunE: with(func(cmd *cobra.Command, _ []string, s Site) error {
			if card != "" {
				if form == "" {
					form = s.CardForm
				}
				c, err := edge.ParseCredential(card, form)
				if err != nil {
					return err
				}
				q.Credential = c
			}
			q.Household = edge.HouseholdID(household)
			found, err := s.Registry.Find(cmd.Context(), q)
			if err != nil {
				return err
			}
			for _, p := range found {
				fmt.Fprintf(cmd.OutOrStdout(), "%d\t%s\t%s\t%s\t%s\t%s\n", p.ID, p.Name, p.Building, p.Unit, p.Category, p.Status)
			}
			if len(found) == 0 {
				fmt.Fprintln(cmd.ErrOrStderr(), "nobody found")
			} else if q.Limit > 0 && len(found) == q.Limit {
				fmt.Fprintf(cmd.ErrOrStderr(), "the first %d; there may be more (--limit)\n", q.Limit)
			}
			return nil
		})}
	f := cmd.Flags()
	f.StringVar(&q.Building, "building", "", "beginning of the building")
	f.StringVar(&q.Unit, "unit", "", "beginning of the unit")
	f.StringVar(&q.Name, "name", "", "name, or a part of the masked name")
	f.Int64Var(&household, "household", 0, "household's number")
	f.StringVar(&card, "card", "", "card number")
	f.StringVar(&form, "card-form", "", "what the card number is: em-hex, em-dec10, w26, w34, uid or qr")
	f.IntVar(&q.Limit, "limit", 50, "how many at most")
	return cmd
}

func suspendCommand(with wrapper) *cobra.Command {
	var reason string
	var lost bool
	cmd := &cobra.Command{Use: "suspend NUMBER --reason TEXT", Short: "Withdraw a pass until it is restored", Args: cobra.ExactArgs(1),
		Long: "Withdraws a pass until it is restored; an import does not undo it. With --lost the card is reported lost: whoever holds it is not the holder.\nThe daemon journals the change, with the name of who made it.",
		RunE: with(func(cmd *cobra.Command, args []string, s Site) error {
			id, err := number(args[0])
			if err != nil {
				return err
			}
			status := edge.PassSuspended
			if lost {
				status = edge.PassLost
			}
			if err := s.Registry.SetStatus(cmd.Context(), id, status, reason, actor()); err != nil {
				return err
			}
			fmt.Fprintf(cmd.OutOrStdout(), "pass %d is %s\n", id, status)
			return nil
		})}
	cmd.Flags().StringVar(&reason, "reason", "", "why")
	cmd.Flags().BoolVar(&lost, "lost", false, "the card was reported lost")
	if err := cmd.MarkFlagRequired("reason"); err != nil {
		panic(err) // the flag is defined two lines above
	}
	return cmd
}

func restoreCommand(with wrapper) *cobra.Command {
	return &cobra.Command{Use: "restore NUMBER", Short: "Take back a suspension made at a gate", Args: cobra.ExactArgs(1),
		RunE: with(func(cmd *cobra.Command, args []string, s Site) error {
			id, err := number(args[0])
			if err != nil {
				return err
			}
			if err := s.Registry.Restore(cmd.Context(), id, actor()); err != nil {
				return err
			}
			fmt.Fprintf(cmd.OutOrStdout(), "pass %d is as the roster says\n", id)
			return nil
		})}
}

func number(s string) (edge.PassID, error) {
	n, err := strconv.ParseInt(strings.TrimPrefix(s, "p"), 10, 64)
	if err != nil || n < 1 || n > edge.MaxID {
		return 0, fmt.Errorf("%q is not a pass's number", s)
	}
	return edge.PassID(n), nil
}

// actor names the operator in the journal.
func actor() string {
	u, err := user.Current()
	if err != nil {
		return "operator"
	}
	return "operator:" + u.Username
}

func show(w io.Writer, p edge.Pass, loc *time.Location) {
	status := string(p.Status)
	if p.Reason != "" {
		status += " (" + p.Reason + ")"
	}
	line(w, "pass", strconv.FormatInt(int64(p.ID), 10))
	line(w, "name", p.Name)
	line(w, "category", p.Category)
	line(w, "status", status)
	line(w, "door", strings.TrimSpace(p.Building+" "+p.Unit))
	line(w, "groups", strings.Join(p.Groups, ", "))
	line(w, "areas", strings.Join(p.Areas, ", "))
	if p.From != 0 {
		line(w, "from", moment(p.From, loc))
	}
	if p.Until != 0 {
		line(w, "until", moment(p.Until, loc))
	}
	line(w, "hours", p.Hours)
	line(w, "care", strings.Join(p.Care, ", "))
	if p.Dependants > 0 {
		line(w, "dependants", strconv.Itoa(p.Dependants))
	}
	if p.MaxUses > 0 {
		line(w, "uses", strconv.Itoa(p.MaxUses))
	}
	if p.Escort {
		line(w, "escort", "needed")
	}
	line(w, "quarantine", p.Quarantine)
}

// line prints a name and a value, nothing for an empty value.
func line(w io.Writer, name, value string) {
	if value != "" {
		fmt.Fprintf(w, "%-12s%s\n", name, value)
	}
}

func moment(ms int64, loc *time.Location) string {
	if ms == 0 {
		return "further notice"
	}
	return time.UnixMilli(ms).In(loc).Format("2006-01-02 15:04")
}
