package communitycmd

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"strconv"
	"strings"
	"text/tabwriter"
	"time"

	"github.com/spf13/cobra"
	"golang.org/x/mod/sumdb/note"

	"gatehouse/edge"
	"gatehouse/sync/community"
	"gatehouse/sync/wire"
)

func (b *base) query() *cobra.Command {
	var f community.Filter
	var from, to string
	var pass, household int64
	var asJSON bool
	c := &cobra.Command{
		Use:   "query",
		Short: "Find entries, the newest first",
		Args:  cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			var err error
			if f.From, err = moment(from); err != nil {
				return err
			}
			if f.To, err = moment(to); err != nil {
				return err
			}
			f.Pass, f.Household = edge.PassID(pass), edge.HouseholdID(household)
			return b.with(cmd, func(ctx context.Context, s *community.Server, out io.Writer) error {
				if err := known(ctx, s, f.Site, f.Gate); err != nil {
					return err
				}
				rows, err := s.Query(ctx, f)
				if err != nil {
					return err
				}
				if asJSON {
					e := json.NewEncoder(out)
					for _, r := range rows {
						if err := e.Encode(r); err != nil {
							return err
						}
					}
					return nil
				}
				w := tabwriter.NewWriter(out, 0, 0, 2, ' ', 0)
				fmt.Fprintln(w, "TIME\tGATE\tSEQ\tKIND\tLANE\tPASS\tOUTCOME\tRULE\tREASON\tRESULT\tACTOR")
				for _, r := range rows {
					p := ""
					if r.Pass != 0 {
						p = strconv.FormatInt(r.Pass, 10)
					}
					fmt.Fprintf(w, "%s\t%s/%s\t%d\t%s\t%s\t%s\t%s\t%s\t%s\t%s\t%s\n", stamp(r.Time), r.Site, r.Gate, r.Seq, r.Kind, r.Lane, p,
						r.Outcome, r.Rule, r.Reason, r.Result, r.Actor)
				}
				return w.Flush()
			})
		},
	}
	fl := c.Flags()
	fl.StringVar(&f.Site, "site", "", "only this `site`")
	fl.StringVar(&f.Gate, "gate", "", "only this `gate`")
	fl.StringVar(&f.Kind, "kind", "", "only this `kind` of entry: decision, passage, action, ...")
	fl.StringVar(&f.Outcome, "outcome", "", "only this `outcome`: admit, remeasure, refer, deny")
	fl.StringVar(&f.Rule, "rule", "", "only this `rule`")
	fl.StringVar(&f.Reason, "reason", "", "only this `reason`")
	fl.Int64Var(&pass, "pass", 0, "only the pass with this `id`")
	fl.Int64Var(&household, "household", 0, "only the household with this `id`")
	fl.StringVar(&from, "from", "", "not before this `time` (RFC 3339)")
	fl.StringVar(&to, "to", "", "before this `time` (RFC 3339)")
	fl.IntVar(&f.Limit, "limit", 100, "at most so `many`")
	fl.BoolVar(&asJSON, "json", false, "print JSON, a line each")
	return c
}

// moment reads a time as UTC milliseconds; empty is 0.
func moment(s string) (int64, error) {
	if s == "" {
		return 0, nil
	}
	for _, layout := range []string{time.RFC3339, "2006-01-02"} {
		if t, err := time.Parse(layout, s); err == nil {
			return t.UnixMilli(), nil
		}
	}
	return 0, fmt.Errorf("%q is not a time such as 2026-11-23T15:00:00Z or 2026-11-23", s)
}

// siteGateEpoch splits SITE/GATE/EPOCH; without an epoch the newest is taken.
func siteGateEpoch(ctx context.Context, s *community.Server, arg string) (site, gate string, e edge.Epoch, err error) {
	parts := strings.Split(arg, "/")
	if len(parts) == 3 {
		if e, err = edge.ParseEpoch(parts[2]); err != nil {
			return "", "", 0, err
		}
		arg = parts[0] + "/" + parts[1]
	}
	if site, gate, err = siteGate(arg); err == nil {
		err = known(ctx, s, site, gate)
	}
	if err != nil || len(parts) == 3 {
		return site, gate, e, err
	}
	counts, err := s.Counts(ctx, site, gate)
	if err != nil {
		return "", "", 0, err
	}
	if len(counts) == 0 {
		return "", "", 0, fmt.Errorf("nothing is stored of gate %s", arg)
	}
	return site, gate, counts[len(counts)-1].Epoch, nil
}

func (b *base) export() *cobra.Command {
	var site string
	var pass int64
	c := &cobra.Command{
		Use:   "export SITE/GATE[/EPOCH]",
		Short: "Print the entries of an epoch (default: the newest), or of one pass, byte for byte, a line each",
		Args: func(cmd *cobra.Command, args []string) error {
			if pass != 0 {
				return cobra.NoArgs(cmd, args)
			}
			return cobra.ExactArgs(1)(cmd, args)
		},
		RunE: func(cmd *cobra.Command, args []string) error {
			return b.with(cmd, func(ctx context.Context, s *community.Server, out io.Writer) error {
				w := bufio.NewWriter(out)
				line := func(l []byte) error {
					if _, err := w.Write(l); err != nil {
						return err
					}
					return w.WriteByte('\n')
				}
				if pass != 0 {
					if err := known(ctx, s, site, ""); err != nil {
						return err
					}
					return errors.Join(s.ExportPerson(ctx, site, edge.PassID(pass), line), w.Flush())
				}
				site, gate, e, err := siteGateEpoch(ctx, s, args[0])
				if err != nil {
					return err
				}
				return errors.Join(s.Export(ctx, site, gate, e, func(_ uint64, l []byte) error { return line(l) }), w.Flush())
			})
		},
	}
	c.Flags().StringVar(&site, "site", "", "`site` of the pass")
	c.Flags().Int64Var(&pass, "pass", 0, "export all about the pass with this `id`")
	c.MarkFlagsRequiredTogether("site", "pass")
	return c
}

// errFound makes the exit status 1 after the findings were printed.
var errFound = errors.New("the store does not verify")

func (b *base) verify() *cobra.Command {
	var since string
	c := &cobra.Command{
		Use:   "verify [SITE/GATE]",
		Short: "Read everything again and say what is missing, twice, or not as it was signed",
		Long: `verify reads every entry, its leaf and its row again, and holds them against each
other and against the head that the gate's device has signed. The status is 1 when
anything is wrong.

With --since FILE it also says what became of a head that was printed or
photographed earlier: FILE holds what "gatehouse journal head" prints, cosigned or
not. It checks who has signed it, that the log which is stored extends it, how many
of its entries never reached this server, and what the epochs that follow carried
over; not what of that is destroyed since. The status is 1 when something of it was
changed or is missing. Only the head's gate is read then.`,
		Args: cobra.MaximumNArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			var site, gate string
			var err error
			if len(args) == 1 {
				if site, gate, err = siteGate(args[0]); err != nil {
					return err
				}
			}
			var head *community.Earlier
			if since != "" {
				text, err := os.ReadFile(since)
				if err != nil {
					return fmt.Errorf("cannot read the earlier head: %w", err)
				}
				if head, err = community.ReadEarlier(text); err != nil {
					return fmt.Errorf("%s: %w", since, err)
				}
				if len(args) == 1 && (head.Site != site || head.Gate != gate) {
					return fmt.Errorf("%s holds a head of %s/%s, not of %s/%s", since, head.Site, head.Gate, site, gate)
				}
				if head.Community != b.community && b.community != "" {
					return fmt.Errorf("%s holds a head of community %.100q, not of %q", since, head.Community, b.community)
				}
				site, gate = head.Site, head.Gate
			}
			return b.with(cmd, func(ctx context.Context, s *community.Server, out io.Writer) error {
				if err := known(ctx, s, site, gate); err != nil {
					return err
				}
				ok, err := verifyAll(ctx, s, out, site, gate)
				if err == nil && head != nil {
					var said []string
					var extended bool
					if said, extended, err = s.Since(ctx, head); err != nil {
						return err
					}
					fmt.Fprintf(out, "the head in %s is of %s at %d:\n", since, head.Origin, head.Size)
					for _, line := range said {
						fmt.Fprintf(out, "  %s\n", line)
					}
					ok = ok && extended
				}
				if err == nil && !ok {
					err = errFound
				}
				return err
			})
		},
	}
	c.Flags().StringVar(&since, "since", "", "say what became of the head in this `file`")
	return c
}

// verifyAll prints what is wrong with a gate's logs, or with all, and what is stored
// when nothing is.
func verifyAll(ctx context.Context, s *community.Server, out io.Writer, site, gate string) (bool, error) {
	bad, err := s.Verify(ctx, site, gate)
	if err != nil {
		return false, err
	}
	for _, f := range bad {
		fmt.Fprintf(out, "%s/%s/%s entry %d: %s\n", f.Site, f.Gate, f.Epoch, f.Seq, f.Text)
	}
	if len(bad) > 0 {
		return false, nil
	}
	counts, err := s.Counts(ctx, site, gate)
	if err != nil {
		return false, err
	}
	for _, c := range counts {
		destroyed := ""
		if c.Destroyed > 0 {
			destroyed = fmt.Sprintf(", of these %d destroyed by retention or erasure, as recorded", c.Destroyed)
		}
		fmt.Fprintf(out, "%s/%s/%s: %d entries, none missing, none twice, all as signed%s\n", c.Site, c.Gate, c.Epoch, c.Size, destroyed)
	}
	if len(counts) == 0 {
		fmt.Fprintln(out, "nothing is stored yet")
	}
	return true, nil
}

func (b *base) prove() *cobra.Command {
	var check string
	var keys []string
	c := &cobra.Command{
		Use:   "prove SITE/GATE[/EPOCH] SEQ",
		Short: "Print the proof that an entry is in the log, or check one offline with --check",
		Long: `prove prints a C2SP tlog-proof (https://c2sp.org/tlog-proof). Its extra data is
the entry's blind, 32 bytes, followed by the entry's line; the record is the
SHA-256 of the extra data. It discloses that entry and no other.

With --check FILE it verifies one: no store and no network are needed, only the
verifier keys that must have signed the head, given with --key: the device's, which
"communityd gates --vkeys" prints, and the gate itself with "gatehouse journal head
--key", and for a cosigned head the server's, which "communityd trust" prints. Get
them from their owner, not with the proof.`,
		Args: func(cmd *cobra.Command, args []string) error {
			if check != "" {
				return cobra.NoArgs(cmd, args)
			}
			return cobra.ExactArgs(2)(cmd, args)
		},
		RunE: func(cmd *cobra.Command, args []string) error {
			if check != "" {
				return checkProof(cmd.OutOrStdout(), check, keys)
			}
			seq, err := strconv.ParseUint(args[1], 10, 63)
			if err != nil {
				return fmt.Errorf("%q is not a sequence number", args[1])
			}
			return b.with(cmd, func(ctx context.Context, s *community.Server, out io.Writer) error {
				site, gate, e, err := siteGateEpoch(ctx, s, args[0])
				if err != nil {
					return err
				}
				p, err := s.Prove(ctx, site, gate, e, seq)
				if err != nil {
					return err
				}
				_, err = out.Write(p.Encode())
				return err
			})
		},
	}
	c.Flags().StringVar(&check, "check", "", "verify the proof in this `file`")
	c.Flags().StringArrayVar(&keys, "key", nil, "verifier `key` that must have signed the head (may be repeated)")
	return c
}

func checkProof(out io.Writer, file string, keys []string) error {
	text, err := os.ReadFile(file)
	if err != nil {
		return fmt.Errorf("cannot read the proof: %w", err)
	}
	if len(keys) == 0 {
		return errors.New("--key is missing: a proof is worth as much as the key that signed its head")
	}
	var signers []note.Verifier
	for _, k := range keys {
		v, err := verifierOf(k)
		if err != nil {
			return err
		}
		signers = append(signers, v)
	}
	p, h, err := edge.CheckProof(text, signers...)
	if err != nil {
		return err
	}
	fmt.Fprintf(out, "entry %d is in %s at size %d:\n%s\n", p.Seq, h.Origin, h.Size, p.Line)
	return nil
}

// verifierOf reads a verifier key: a server's (its name ends with /server)
// cosigns, a device's signs.
func verifierOf(vkey string) (note.Verifier, error) {
	name, public, err := community.VerifierKey(vkey)
	if err != nil {
		return nil, err
	}
	if strings.HasSuffix(name, "/server") {
		return wire.CosignatureVerifier(name, public[:])
	}
	return edge.HeadVerifier(name, public[:])
}
