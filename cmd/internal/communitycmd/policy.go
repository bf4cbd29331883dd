package communitycmd

import (
	"context"
	"fmt"
	"io"
	"os"

	"github.com/spf13/cobra"

	"gatehouse/edge/bundle"
	"gatehouse/edge/identity"
	"gatehouse/edge/policy"
	"gatehouse/sync/community"
)

func (b *base) policy() *cobra.Command {
	c := &cobra.Command{Use: "policy", Short: "The policies of the sites, one for each layer", Args: cobra.NoArgs, RunE: help}
	c.AddCommand(b.policyPush(), b.policySign(), policyCountersign(), b.policyList())
	return c
}

func (b *base) policyPush() *cobra.Command {
	var site string
	c := &cobra.Command{
		Use:   "push FILE...",
		Short: "Publish policies to the site's gates: bundles that sign has made, or plain ones, which are signed here",
		Long: `Publishes policies to the gates of a site, the highest layer first. Each takes
the place of the one of its layer, and must load together with the site's other
layers: what goes outside a superior's policy is refused here already. A plain
file is signed with the server's key. Where a superior asks for its own signature
beside the community's (countersigned: true), push what countersign has made.`,
		Args: cobra.MinimumNArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			srcs := make([][]byte, len(args))
			for i, name := range args {
				var err error
				if srcs[i], err = os.ReadFile(name); err != nil {
					return fmt.Errorf("cannot read the policy: %w", err)
				}
			}
			return b.with(cmd, func(ctx context.Context, s *community.Server, out io.Writer) error {
				// No error: a site may be prepared before its first gate.
				if err := known(ctx, s, site, ""); err != nil {
					fmt.Fprintf(cmd.ErrOrStderr(), "warning: %v\n", err)
				}
				for i, src := range srcs {
					publish := s.PublishPolicy
					if bundle.Is(src) {
						publish = s.PublishSigned
					}
					if err := publish(ctx, site, args[i], src); err != nil {
						return err
					}
					fmt.Fprintf(out, "%s is published to the gates of %s\n", args[i], site)
				}
				return nil
			})
		},
	}
	c.Flags().StringVar(&site, "site", "", "`site` where they are to be in force")
	must(c.MarkFlagRequired("site"))
	return c
}

func (b *base) policySign() *cobra.Command {
	var site string
	var above []string
	c := &cobra.Command{
		Use:   "sign FILE",
		Short: "Sign a policy with the key in --keys and print the bundle that push publishes; needs no store",
		Args:  cobra.ExactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			src, err := os.ReadFile(args[0])
			if err != nil {
				return fmt.Errorf("cannot read the policy: %w", err)
			}
			key, err := b.signer()
			if err != nil {
				return err
			}
			var ups []policy.Source
			for _, name := range above {
				up, err := os.ReadFile(name)
				if err != nil {
					return fmt.Errorf("cannot read the superior's policy: %w", err)
				}
				ups = append(ups, policy.Source{Name: name, Text: up})
			}
			raw, err := community.SignPolicy(b.community, site, args[0], src, key, ups...)
			if err != nil {
				return err
			}
			_, err = cmd.OutOrStdout().Write(raw)
			return err
		},
	}
	c.Flags().StringVar(&site, "site", "", "`site` where it is to be in force, or * for every site of the community")
	c.Flags().StringSliceVar(&above, "above", nil, "superiors' policy `file`s beneath which it is checked, the highest first")
	must(c.MarkFlagRequired("site"))
	return c
}

func policyCountersign() *cobra.Command {
	var keys, name string
	c := &cobra.Command{
		Use:   "countersign BUNDLE",
		Short: "Add an authority's signature to a bundle that sign has made; needs no store",
		Long: `Adds a second signature to a bundle and prints it. The key is the authority's
own, made in --keys at the first use; communityd trust --authority NAME prints its
line for the gates' trust file, which then says policy:LAYER behind it.`,
		Args: cobra.ExactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			raw, err := os.ReadFile(args[0])
			if err != nil {
				return fmt.Errorf("cannot read the bundle: %w", err)
			}
			id, err := identity.Open(keys, name)
			if err != nil {
				return fmt.Errorf("cannot open the authority's keys: %w", err)
			}
			both, err := bundle.Countersign(raw, id.Signer())
			if err != nil {
				return fmt.Errorf("cannot countersign %s: %w", args[0], err)
			}
			_, err = cmd.OutOrStdout().Write(both)
			return err
		},
	}
	c.Flags().StringVar(&name, "name", "", "`name` of the authority's key, for example city.example")
	// It hides the root's flag of that name, whose key would have the server's name.
	c.Flags().StringVar(&keys, "keys", "", "`folder` of the authority's keys")
	must(c.MarkFlagRequired("name"))
	must(c.MarkFlagRequired("keys"))
	return c
}

func (b *base) policyList() *cobra.Command {
	var site string
	c := &cobra.Command{
		Use:   "list",
		Short: "List the policies that are in force at a site",
		Args:  cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			return b.with(cmd, func(ctx context.Context, s *community.Server, out io.Writer) error {
				ps, err := s.Policies(ctx, site)
				if err != nil {
					return err
				}
				for _, p := range ps {
					layer := p.Layer
					if layer == "" {
						layer = "(the site's own)"
					}
					fmt.Fprintf(out, "%-20s version %d, bundle %s\n", layer, p.Version, p.Hash)
				}
				return nil
			})
		},
	}
	c.Flags().StringVar(&site, "site", "", "`site` whose policies to list")
	must(c.MarkFlagRequired("site"))
	return c
}
