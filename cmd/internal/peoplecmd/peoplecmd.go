// Package peoplecmd is the operator's commands on who may use a gate's console.
// They work on the gate's accounts beside the daemon, which journals what they
// change.
package peoplecmd

import (
	"context"
	"errors"
	"fmt"
	"os/user"
	"strconv"

	"github.com/spf13/cobra"

	"gatehouse/edge/console/accounts"
)

// New makes the command "people". open is called when a subcommand runs; the
// command closes what it gives.
func New(open func(context.Context) (*accounts.Accounts, error)) *cobra.Command {
	cmd := &cobra.Command{Use: "people", Short: "Who may use the console: list, add, help and remove people",
		Long: `Who may use the gate's console. Everything here can be done on the console by a
manager as well; here it can be done by whoever is root on the gate, for example
when the only manager has forgotten their password (people reset).`,
		Args: cobra.NoArgs, RunE: func(cmd *cobra.Command, _ []string) error { return cmd.Help() }}
	with := func(run func(cmd *cobra.Command, args []string, a *accounts.Accounts) error) func(*cobra.Command, []string) error {
		return func(cmd *cobra.Command, args []string) (err error) {
			// What fails from here on is not the usage.
			cmd.SilenceUsage = true
			a, err := open(cmd.Context())
			if err != nil {
				return err
			}
			defer func() { err = errors.Join(err, a.Close()) }()
			return run(cmd, args, a)
		}
	}
	cmd.AddCommand(list(with), add(with), change(with), reset(with), card(with), remove(with), code(with))
	return cmd
}

type wrapper func(func(*cobra.Command, []string, *accounts.Accounts) error) func(*cobra.Command, []string) error

func list(with wrapper) *cobra.Command {
	return &cobra.Command{Use: "list", Short: "List who has an account", Args: cobra.NoArgs,
		RunE: with(func(cmd *cobra.Command, _ []string, a *accounts.Accounts) error {
			people, err := a.List(cmd.Context())
			if err != nil {
				return err
			}
			for _, p := range people {
				note := ""
				if p.Card {
					note += "\tcard"
				}
				if p.MustChange {
					note += "\thas not chosen a PIN yet"
				}
				fmt.Fprintf(cmd.OutOrStdout(), "%d\t%s\t%s%s\n", p.Number, p.Role, p.Name, note)
			}
			if len(people) == 0 {
				fmt.Fprintln(cmd.ErrOrStderr(), "nobody yet: gatehouse people code prints the code with which the first manager begins")
			}
			return nil
		})}
}

func add(with wrapper) *cobra.Command {
	var role string
	var n int64
	c := &cobra.Command{Use: "add NAME", Short: "Make an account and print the PIN with which it logs in once", Args: cobra.ExactArgs(1),
		RunE: with(func(cmd *cobra.Command, args []string, a *accounts.Accounts) error {
			p, pin, err := a.Add(cmd.Context(), operator(), accounts.Person{Number: n, Name: args[0], Role: accounts.Role(role)}, "")
			if errors.Is(err, accounts.ErrRole) {
				return fmt.Errorf("%w: give guard, supervisor, manager or installer (an inspector has a credential of the authority and no account)", err)
			}
			if err != nil {
				return err
			}
			fmt.Fprintf(cmd.OutOrStdout(), "number %d, %s %s: logs in once with the PIN %s and then chooses another\n", p.Number, p.Role, p.Name, pin)
			return nil
		})}
	c.Flags().StringVar(&role, "role", string(accounts.Guard), "guard, supervisor, manager or installer")
	c.Flags().Int64Var(&n, "number", 0, "the person's number (default: the next free one)")
	return c
}

func change(with wrapper) *cobra.Command {
	var name, role string
	c := &cobra.Command{Use: "change NUMBER", Short: "Give an account another name or role", Args: cobra.ExactArgs(1),
		RunE: with(func(cmd *cobra.Command, args []string, a *accounts.Accounts) error {
			n, err := number(args[0])
			if err != nil {
				return err
			}
			p, err := a.Get(cmd.Context(), n)
			if err != nil {
				return fmt.Errorf("account %d: %w", n, err)
			}
			if name == "" {
				name = p.Name
			}
			if role == "" {
				role = string(p.Role)
			}
			return a.Change(cmd.Context(), operator(), n, name, accounts.Role(role))
		})}
	c.Flags().StringVar(&name, "name", "", "the new name")
	c.Flags().StringVar(&role, "role", "", "guard, supervisor, manager or installer; another role ends the person's sessions")
	return c
}

func reset(with wrapper) *cobra.Command {
	return &cobra.Command{Use: "reset NUMBER", Short: "Give an account a PIN that serves once, end its waiting time and its sessions", Args: cobra.ExactArgs(1),
		RunE: with(func(cmd *cobra.Command, args []string, a *accounts.Accounts) error {
			n, err := number(args[0])
			if err != nil {
				return err
			}
			pin, err := a.Reset(cmd.Context(), operator(), n)
			if err != nil {
				return fmt.Errorf("account %d: %w", n, err)
			}
			fmt.Fprintf(cmd.OutOrStdout(), "number %d logs in once with the PIN %s and then chooses another\n", n, pin)
			return nil
		})}
}

func card(with wrapper) *cobra.Command {
	return &cobra.Command{Use: "card NUMBER [CARD]", Short: "Let a card stand for the number at login, or take it away; the PIN is asked for all the same", Args: cobra.RangeArgs(1, 2),
		RunE: with(func(cmd *cobra.Command, args []string, a *accounts.Accounts) error {
			n, err := number(args[0])
			if err != nil {
				return err
			}
			if len(args) == 1 {
				args = append(args, "")
			}
			if err := a.SetCard(cmd.Context(), operator(), n, args[1]); err != nil {
				return fmt.Errorf("account %d: %w", n, err)
			}
			return nil
		})}
}

func remove(with wrapper) *cobra.Command {
	return &cobra.Command{Use: "remove NUMBER", Short: "Remove an account and end its sessions", Args: cobra.ExactArgs(1),
		RunE: with(func(cmd *cobra.Command, args []string, a *accounts.Accounts) error {
			n, err := number(args[0])
			if err != nil {
				return err
			}
			if err := a.Remove(cmd.Context(), operator(), n); err != nil {
				return fmt.Errorf("account %d: %w", n, err)
			}
			return nil
		})}
}

func code(with wrapper) *cobra.Command {
	return &cobra.Command{Use: "code", Short: "Print the one-time code with which the first manager begins", Args: cobra.NoArgs,
		RunE: with(func(cmd *cobra.Command, _ []string, a *accounts.Accounts) error {
			code, err := a.FirstCode(cmd.Context())
			if err != nil {
				return err
			}
			if code == "" {
				return errors.New("there is a manager already; gatehouse people reset NUMBER helps one who has forgotten the password")
			}
			fmt.Fprintln(cmd.OutOrStdout(), code)
			return nil
		})}
}

func number(text string) (int64, error) {
	n, err := strconv.ParseInt(text, 10, 64)
	if err != nil || n < 1 {
		return 0, fmt.Errorf("%q is not an account's number", text)
	}
	return n, nil
}

// operator is how the journal names who has typed a command.
func operator() string {
	if u, err := user.Current(); err == nil && u.Username != "" {
		return "operator:" + u.Username
	}
	return "operator"
}
