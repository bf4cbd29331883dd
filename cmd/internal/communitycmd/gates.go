package communitycmd

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"os/user"
	"strings"
	"text/tabwriter"
	"time"

	"github.com/spf13/cobra"

	"gatehouse/sync/community"
	"gatehouse/sync/wire"
)

func (b *base) gates() *cobra.Command {
	var site string
	var asJSON, vkeys bool
	c := &cobra.Command{
		Use:   "gates",
		Short: "List the gates with their devices, epochs and what is stored of them",
		Long: `gates lists the gates with their devices, epochs and what is stored of them. With
--vkeys it prints instead the devices' verifier keys, as "communityd prove --check"
and other tools for C2SP signed notes take them, a line each: which gate it is, its
state, the key.`,
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			return b.with(cmd, func(ctx context.Context, s *community.Server, out io.Writer) error {
				if vkeys {
					return listKeys(ctx, s, out, site)
				}
				return listGates(ctx, s, out, site, asJSON)
			})
		},
	}
	c.Flags().StringVar(&site, "site", "", "only this `site`")
	c.Flags().BoolVar(&asJSON, "json", false, "print JSON")
	c.Flags().BoolVar(&vkeys, "vkeys", false, "print the devices' verifier keys")
	c.MarkFlagsMutuallyExclusive("json", "vkeys")

	var key, age, file, answer string
	approve := &cobra.Command{
		Use:   "approve SITE/GATE [CODE]",
		Short: "Trust a device to be a gate: by the code it shows, its --request or its --key",
		Long: `approve trusts a device to be a gate: the one that shows this code and asks
(gatehouse enroll), the one whose request was carried here by hand (--request,
--out), the one with this fingerprint in the list of "communityd gates", or the
one with --key.`,
		Args: cobra.RangeArgs(1, 2),
		RunE: func(cmd *cobra.Command, args []string) error {
			return b.with(cmd, func(ctx context.Context, s *community.Server, out io.Writer) error {
				code := strings.Join(args[1:], "")
				if _, err := wire.ParseCode(code); err == nil && strings.Contains(code, "-") || file != "" {
					return b.approveAsking(ctx, s, out, args[0], code, file, answer, false)
				}
				site, gate, err := siteGate(args[0])
				if err != nil {
					return err
				}
				var public []byte
				switch {
				case key != "" && len(args) == 1:
					_, k, err := community.VerifierKey(key)
					if err != nil {
						return err
					}
					public = k[:]
				case key == "" && len(args) == 2:
					d, err := deviceOf(ctx, s, site, gate, args[1])
					if err != nil {
						return err
					}
					public, age = d.Public[:], d.Age
				default:
					return fmt.Errorf("say which device: its fingerprint as `communityd gates` shows it, or --key")
				}
				if err := s.RegisterGate(ctx, site, gate, public, age, actor()); err != nil {
					return err
				}
				fmt.Fprintf(out, "approved %s/%s %s\n", site, gate, wire.Fingerprint(public))
				return nil
			})
		},
	}
	approve.Flags().StringVar(&key, "key", "", "the device's note verifier `key`, as \"gatehouse journal head --key\" prints it")
	approve.Flags().StringVar(&age, "age", "", "the device's age `recipient`, with --key")
	carriedFlags(approve, &file, &answer)

	revoke := &cobra.Command{
		Use:   "revoke SITE/GATE FINGERPRINT",
		Short: "End the trust in a device: what it signs is refused from now on",
		Args:  cobra.ExactArgs(2),
		RunE: func(cmd *cobra.Command, args []string) error {
			return b.with(cmd, func(ctx context.Context, s *community.Server, out io.Writer) error {
				site, gate, err := siteGate(args[0])
				if err != nil {
					return err
				}
				d, err := deviceOf(ctx, s, site, gate, args[1])
				if err != nil {
					return err
				}
				if err := s.RevokeGate(ctx, site, gate, d.Public[:], actor()); err != nil {
					return err
				}
				fmt.Fprintf(out, "revoked %s/%s %s\n", site, gate, args[1])
				return nil
			})
		},
	}
	c.AddCommand(approve, b.replace(), revoke, b.asking(), b.revoked())
	return c
}

// actor names the operator in the record of what was done.
func actor() string {
	if u, err := user.Current(); err == nil {
		return "operator:" + u.Username
	}
	return "operator"
}

func deviceOf(ctx context.Context, s *community.Server, site, gate, fingerprint string) (community.Device, error) {
	all, err := s.Devices(ctx, site)
	if err != nil {
		return community.Device{}, err
	}
	var known []string
	for _, d := range all {
		if d.Gate != gate {
			continue
		}
		f := wire.Fingerprint(d.Public[:])
		if f == fingerprint {
			return d, nil
		}
		known = append(known, f)
	}
	return community.Device{}, fmt.Errorf("gate %s/%s has no device %s (it has %s)", site, gate, fingerprint, strings.Join(known, ", "))
}

func listGates(ctx context.Context, s *community.Server, out io.Writer, site string, asJSON bool) error {
	devices, err := s.Devices(ctx, site)
	if err != nil {
		return err
	}
	counts, err := s.Counts(ctx, site, "")
	if err != nil {
		return err
	}
	if asJSON {
		// The key as tools take it, in the place of its bytes.
		type device struct {
			community.Device
			Public string
		}
		all := make([]device, len(devices))
		for i, d := range devices {
			k, err := d.VerifierKey()
			if err != nil {
				return err
			}
			all[i] = device{d, k}
		}
		e := json.NewEncoder(out)
		e.SetIndent("", "  ")
		return e.Encode(map[string]any{"devices": all, "epochs": counts})
	}
	w := tabwriter.NewWriter(out, 0, 0, 2, ' ', 0)
	fmt.Fprintln(w, "GATE\tDEVICE\tSTATE\tSINCE\tBY\tONLINE")
	for _, d := range devices {
		var st wire.StatusMessage
		online := "-"
		if json.Unmarshal([]byte(d.Status), &st) == nil && d.StatusAt != 0 {
			online = "no"
			if st.Online {
				online = "yes"
			}
			online += ", said " + stamp(d.StatusAt)
		}
		fmt.Fprintf(w, "%s/%s\t%s\t%s\t%s\t%s\t%s\n", d.Site, d.Gate, wire.Fingerprint(d.Public[:]), d.State, stamp(d.Since), d.By, online)
	}
	fmt.Fprintln(w, "\nGATE\tEPOCH\tFOLLOWS\tRECEIPTED\tSTORED\tMISSING\tTWICE\tLAST")
	for _, c := range counts {
		follows := "-"
		if c.Parent != 0 {
			follows = fmt.Sprintf("%s at %d", c.Parent, c.Forked)
		}
		fmt.Fprintf(w, "%s/%s\t%s\t%s\t%d\t%d\t%d\t%d\t%s\n", c.Site, c.Gate, c.Epoch, follows, c.Size, c.Stored, c.Missing, c.Duplicated, stamp(c.Last))
	}
	return w.Flush()
}

func listKeys(ctx context.Context, s *community.Server, out io.Writer, site string) error {
	devices, err := s.Devices(ctx, site)
	if err != nil {
		return err
	}
	for _, d := range devices {
		k, err := d.VerifierKey()
		if err != nil {
			return err
		}
		fmt.Fprintf(out, "%s/%s %s %s\n", d.Site, d.Gate, d.State, k)
	}
	return nil
}

func stamp(ms int64) string { return time.UnixMilli(ms).UTC().Format("2006-01-02 15:04:05Z") }

func (b *base) alerts() *cobra.Command {
	var site string
	c := &cobra.Command{
		Use:   "alerts",
		Short: "List what a person should look at",
		Args:  cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			return b.with(cmd, func(ctx context.Context, s *community.Server, out io.Writer) error {
				as, err := s.Alerts(ctx, site)
				if err != nil {
					return err
				}
				w := tabwriter.NewWriter(out, 0, 0, 2, ' ', 0)
				fmt.Fprintln(w, "LAST\tTIMES\tGATE\tKIND\tABOUT\tTEXT")
				for _, a := range as {
					who := "the server"
					if a.Gate != "" {
						who = a.Site + "/" + a.Gate
					}
					fmt.Fprintf(w, "%s\t%d\t%s\t%s\t%s\t%s\n", stamp(a.Last), a.Times, who, a.Kind, a.About, a.Text)
				}
				return w.Flush()
			})
		},
	}
	c.Flags().StringVar(&site, "site", "", "only this `site`")
	return c
}
