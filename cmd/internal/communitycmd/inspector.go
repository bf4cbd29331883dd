package communitycmd

import (
	"encoding/base64"
	"errors"
	"fmt"
	"os"
	"time"

	"github.com/spf13/cobra"

	"gatehouse/edge/console/accounts"
	"gatehouse/edge/identity"
)

// inspectorKey is the name of an inspector's own key; nothing is verified by it.
const inspectorKey = "inspector"

func (b *base) inspector() *cobra.Command {
	c := &cobra.Command{
		Use: "inspector", Short: "Inspectors' credentials: they open any gate's pages for reading, offline", Args: cobra.NoArgs, RunE: help,
		Long: `An inspector reads everything on a gate's console and changes nothing. The
inspector makes a key of their own (inspector key), the authority issues a
credential for it (inspector issue), and at a gate the inspector's own device
answers the gate's challenge (inspector answer). A site can neither make a
credential nor withdraw one.`,
	}
	c.AddCommand(ownKey(), b.issue(), answerChallenge())
	return c
}

func ownKey() *cobra.Command {
	var keys string
	c := &cobra.Command{
		Use: "key", Short: "Print the inspector's public key; makes the key in --keys at the first use", Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			id, err := identity.Open(keys, inspectorKey)
			if err != nil {
				return fmt.Errorf("cannot open the inspector's key: %w", err)
			}
			fmt.Fprintln(cmd.OutOrStdout(), base64.StdEncoding.EncodeToString(id.Signer().Public()))
			return nil
		},
	}
	c.Flags().StringVar(&keys, "keys", "", "`folder` of the inspector's own key")
	must(c.MarkFlagRequired("keys"))
	return c
}

func (b *base) issue() *cobra.Command {
	var keys, name, key, inspector, site string
	var number int64
	var valid time.Duration
	c := &cobra.Command{
		Use: "issue", Short: "Issue a credential and print it; needs no store", Args: cobra.NoArgs,
		Long: `Issues a credential with the authority's key, which is made in --keys at the first
use. communityd trust --authority NAME prints that key's line for the gates: in the
trust file behind it policy:LAYER, or in the file of keys.inspectors.`,
		RunE: func(cmd *cobra.Command, _ []string) error {
			raw, err := base64.StdEncoding.DecodeString(key)
			if err != nil {
				return fmt.Errorf("--key: not what inspector key prints: %w", err)
			}
			if b.community == "" {
				return errors.New("--community is missing")
			}
			id, err := identity.Open(keys, name)
			if err != nil {
				return fmt.Errorf("cannot open the authority's keys: %w", err)
			}
			now := time.Now()
			note, err := accounts.Issue(accounts.Credential{Community: b.community, Site: site, Number: number, Name: inspector, Key: raw,
				From: now.UnixMilli(), Until: now.Add(valid).UnixMilli()}, id.Signer())
			if err != nil {
				return err
			}
			_, err = cmd.OutOrStdout().Write(note)
			return err
		},
	}
	f := c.Flags()
	f.StringVar(&name, "name", "", "`name` of the authority's key, for example city.example")
	// It hides the root's flag of that name, whose key would have the server's name.
	f.StringVar(&keys, "keys", "", "`folder` of the authority's keys")
	f.StringVar(&key, "key", "", "the inspector's public `key`, as inspector key prints it")
	f.StringVar(&inspector, "inspector", "", "the inspector's `name`")
	f.Int64Var(&number, "number", 0, "the inspector's `number`: what journals say")
	f.StringVar(&site, "site", "*", "`site` that may be inspected, or * for every one of the community")
	f.DurationVar(&valid, "valid", 30*24*time.Hour, "it is valid for so `long`")
	for _, n := range []string{"name", "keys", "key", "inspector", "number"} {
		must(c.MarkFlagRequired(n))
	}
	return c
}

func answerChallenge() *cobra.Command {
	var keys, file string
	c := &cobra.Command{
		Use: "answer CHALLENGE", Short: "Answer a gate's challenge and print what to put into its page; on the inspector's own device", Args: cobra.ExactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			credential, err := os.ReadFile(file)
			if err != nil {
				return fmt.Errorf("cannot read the credential: %w", err)
			}
			id, err := identity.Open(keys, inspectorKey)
			if err != nil {
				return fmt.Errorf("cannot open the inspector's key: %w", err)
			}
			text, err := accounts.Answer(args[0], credential, id.Signer())
			if err != nil {
				return err
			}
			_, err = fmt.Fprint(cmd.OutOrStdout(), text)
			return err
		},
	}
	c.Flags().StringVar(&keys, "keys", "", "`folder` of the inspector's own key")
	c.Flags().StringVar(&file, "credential", "", "`file` with the credential")
	must(c.MarkFlagRequired("keys"))
	must(c.MarkFlagRequired("credential"))
	return c
}
