package communitycmd

import (
	"context"
	"encoding/base64"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"gatehouse/edge"
	"gatehouse/edge/identity"
	"gatehouse/sync/community"
	"gatehouse/sync/wire"
)

func (b *base) trust() *cobra.Command {
	var authority string
	c := &cobra.Command{
		Use:   "trust",
		Short: "The keys that gates trust this server by: print the server's own, list, add, retire",
		Long: `trust prints the server's key as a gate's trust file and an auditor need it. The
commands below it keep the list of the keys that gates go by. Each list has a number
and is signed by a key that the list before lets sign it (its use is "trust"): the
server's own, or a root key that is kept where no network is. A gate that was away
follows the lists, one after the other, from the keys it knows.

To exchange the server's key:

  communityd trust prepare NEW-FOLDER            the present keys, but a new one to sign
  communityd trust add "$(communityd trust --keys NEW-FOLDER)"
  communityd run --keys NEW-FOLDER ...           instead of the one that runs
  communityd trust retire OLD-FINGERPRINT --keys NEW-FOLDER

To keep the right to sign lists offline, on a machine of its own:

  communityd trust --authority root.example --keys ROOT-FOLDER     there; prints its key
  communityd trust add "KEY trust"
  communityd trust add "SERVER-KEY receipts registry policy commands"
  communityd trust retire OLD-FINGERPRINT --draft > list           from then on
  communityd trust sign list --name root.example --keys ROOT-FOLDER > signed   there
  communityd trust push signed`,
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			signer := b.signer
			if authority != "" {
				signer = func() (edge.Signer, error) { return b.authority(authority) }
			}
			s, err := signer()
			if err != nil {
				return err
			}
			k := wire.ServerKey{ID: s.Name(), Public: s.Public()}
			fmt.Fprintln(cmd.OutOrStdout(), k.Line())
			return nil
		},
	}
	c.Flags().StringVar(&authority, "authority", "", "print instead the key of an authority of this `name`, in --keys: one that countersigns policies, or signs lists of keys")
	c.AddCommand(b.trustList(), b.trustAdd(), b.trustRetire(), b.trustSign(), b.trustPush(), b.trustPrepare())
	return c
}

// authority opens a key beside the server's, or makes it.
func (b *base) authority(name string) (edge.Signer, error) {
	if b.keys == "" {
		return nil, fmt.Errorf("--keys is missing: the folder of the authority's keys")
	}
	id, err := identity.Open(b.keys, name)
	if err != nil {
		return nil, fmt.Errorf("cannot open the authority's keys: %w", err)
	}
	return id.Signer(), nil
}

func (b *base) trustList() *cobra.Command {
	return &cobra.Command{
		Use:   "list",
		Short: "Show the list of keys that gates go by",
		Args:  cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			return b.with(cmd, func(ctx context.Context, s *community.Server, out io.Writer) error {
				t, err := s.Trust(ctx)
				if err != nil {
					return err
				}
				showTrust(out, t)
				return nil
			})
		},
	}
}

func showTrust(out io.Writer, t wire.Trust) {
	if t.Number == 0 {
		fmt.Fprintln(out, "# no list yet: gates go by what they were enrolled with")
	}
	for _, k := range t.Keys {
		fmt.Fprintf(out, "# %s\n%s\n", wire.Fingerprint(k.Public), k.Line())
	}
	if t.Number > 0 {
		fmt.Fprintf(out, "list %d\n", t.Number)
	}
}

// change makes the next list of the one in force.
func (b *base) change(cmd *cobra.Command, draft bool, f func(t *wire.Trust) error) error {
	return b.with(cmd, func(ctx context.Context, s *community.Server, out io.Writer) error {
		t, err := s.Trust(ctx)
		if err != nil {
			return err
		}
		t.V = wire.Version
		t.Number++
		if err := f(&t); err != nil {
			return err
		}
		if err := t.Check(); err != nil {
			return err
		}
		if draft {
			_, err := io.WriteString(out, t.Text())
			return err
		}
		key, err := b.signer()
		if err != nil {
			return err
		}
		payload, err := wire.SignTrust(t, time.Now().UnixMilli(), key)
		if err != nil {
			return err
		}
		if _, err := s.PublishTrust(ctx, payload); errors.Is(err, wire.ErrUntrusted) {
			return fmt.Errorf("%w: the server's key may not sign lists; --draft prints this one for the key that may", err)
		} else if err != nil {
			return err
		}
		showTrust(out, t)
		return nil
	})
}

func draftFlag(c *cobra.Command, draft *bool) *cobra.Command {
	c.Flags().BoolVar(draft, "draft", false, "print the list for `trust sign` on another machine, publish nothing")
	return c
}

func (b *base) trustAdd() *cobra.Command {
	var draft bool
	return draftFlag(&cobra.Command{
		Use:   "add KEY [USE...]",
		Short: "Add a key with its uses (none = all), or give one that is there other uses",
		Long: `Adds a key, as "communityd trust" prints it, to the keys that gates go by. Uses are
receipts, registry, policy, policy:LAYER, commands and trust; none means all.`,
		Args: cobra.MinimumNArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			k, err := wire.ParseKey(strings.Fields(strings.Join(args, " "))...)
			if err != nil {
				return err
			}
			return b.change(cmd, draft, func(t *wire.Trust) error {
				t.Keys = slices.DeleteFunc(t.Keys, func(o wire.ServerKey) bool { return o.ID == k.ID && slices.Equal(o.Public, k.Public) })
				t.Keys = append(t.Keys, k)
				return nil
			})
		},
	}, &draft)
}

func (b *base) trustRetire() *cobra.Command {
	var draft bool
	return draftFlag(&cobra.Command{
		Use:   "retire FINGERPRINT",
		Short: "Take a key off the list: gates believe nothing that it signs from then on",
		Args:  cobra.ExactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			return b.change(cmd, draft, func(t *wire.Trust) error {
				n := len(t.Keys)
				t.Keys = slices.DeleteFunc(t.Keys, func(k wire.ServerKey) bool { return wire.Fingerprint(k.Public) == args[0] })
				if len(t.Keys) == n {
					return fmt.Errorf("no key on the list has the fingerprint %s: `communityd trust list` shows them", args[0])
				}
				return nil
			})
		},
	}, &draft)
}

func (b *base) trustSign() *cobra.Command {
	var name string
	c := &cobra.Command{
		Use:   "sign LIST",
		Short: "Sign a list that --draft has printed with the key in --keys, and print it for push; needs no store",
		Args:  cobra.ExactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			src, err := os.ReadFile(args[0])
			if err != nil {
				return fmt.Errorf("cannot read the list: %w", err)
			}
			t, err := wire.ParseTrust(args[0], src)
			if err != nil {
				return err
			}
			key, err := b.authority(name)
			if err != nil {
				return err
			}
			payload, err := wire.SignTrust(t, time.Now().UnixMilli(), key)
			if err != nil {
				return err
			}
			_, err = fmt.Fprintln(cmd.OutOrStdout(), base64.StdEncoding.EncodeToString(payload))
			return err
		},
	}
	c.Flags().StringVar(&name, "name", "", "`name` of the key, for example root.example")
	must(c.MarkFlagRequired("name"))
	return c
}

func (b *base) trustPush() *cobra.Command {
	return &cobra.Command{
		Use:   "push SIGNED",
		Short: "Publish a list that sign has made: gates go by it from then on",
		Args:  cobra.ExactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			src, err := os.ReadFile(args[0])
			if err != nil {
				return fmt.Errorf("cannot read the list: %w", err)
			}
			payload, err := base64.StdEncoding.DecodeString(strings.TrimSpace(string(src)))
			if err != nil {
				return fmt.Errorf("%s is not what trust sign prints", args[0])
			}
			return b.with(cmd, func(ctx context.Context, s *community.Server, out io.Writer) error {
				t, err := s.PublishTrust(ctx, payload)
				if err != nil {
					return err
				}
				showTrust(out, t)
				return nil
			})
		},
	}
}

func (b *base) trustPrepare() *cobra.Command {
	return &cobra.Command{
		Use:   "prepare FOLDER",
		Short: "Make a folder of keys like --keys, with a new key to sign, for a server that takes this one's place",
		Long: `Copies the folder of the keys, but for the key that signs, of which it makes a new
one, and prints that as a line for trust add. The key to which gates seal, their
authority and the sites' keys stay what they are.`,
		Args: cobra.ExactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			if _, err := b.signer(); err != nil {
				return err
			}
			from, err := b.keysDir()
			if err != nil {
				return err
			}
			if err := os.Mkdir(args[0], 0o700); err != nil {
				return fmt.Errorf("cannot make the folder: %w", err)
			}
			files, err := os.ReadDir(from)
			if err != nil {
				return fmt.Errorf("cannot read the keys: %w", err)
			}
			for _, f := range files {
				if !f.Type().IsRegular() || f.Name() == identity.SignerFile {
					continue
				}
				src, err := os.ReadFile(filepath.Join(from, f.Name()))
				if err == nil {
					err = os.WriteFile(filepath.Join(args[0], f.Name()), src, 0o600)
				}
				if err != nil {
					return fmt.Errorf("cannot copy the keys: %w", err)
				}
			}
			id, err := identity.Open(args[0], b.community+"/server")
			if err != nil {
				return fmt.Errorf("cannot make the key: %w", err)
			}
			k := wire.ServerKey{ID: id.Signer().Name(), Public: id.Signer().Public()}
			fmt.Fprintln(cmd.OutOrStdout(), k.Line())
			return nil
		},
	}
}
