// Package journalcmd is the inspector's commands on a gate's journal: verify,
// show, prove, export, tail, head, witness. They read, beside the daemon or on a
// card in another machine. Only erase destroys, and it asks the daemon to where one
// is running.
package journalcmd

import (
	"context"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"strconv"
	"strings"
	"time"

	"github.com/spf13/cobra"
	"golang.org/x/mod/sumdb/note"

	"gatehouse/cmd/internal/qrtext"
	"gatehouse/edge"
	"gatehouse/edge/journal"
)

// ErrFound says that something is wrong with the journal; it was printed.
var ErrFound = errors.New("the journal is not as it should be")

// Gate is whose journal the commands are on, known when one of them runs.
type Gate struct {
	Path   func() (string, error)                              // the file
	Signer func() (edge.Signer, error)                         // the device's key; nil = it is not here
	Alone  func(ctx context.Context) (*journal.Journal, error) // to write; journal.ErrInUse while the daemon runs
	Copies func() error                                        // removes what the daemon may not: copies beside the folder of its state; nil = there are none
}

// New makes the command "journal".
func New(g Gate) *cobra.Command {
	c := &cobra.Command{
		Use:   "journal",
		Short: "Verify, show and prove the journal",
		Long: `The journal is a transparency log (RFC 6962): every entry is a leaf of a tree whose
head the device signs and the community server cosigns. These commands read it
again and say what is wrong, if anything is.`,
	}
	with := func(f func(ctx context.Context, r *journal.Reader, out io.Writer, args []string) error) func(*cobra.Command, []string) error {
		return func(cmd *cobra.Command, args []string) (err error) {
			p, err := g.Path()
			if err != nil {
				return err
			}
			r, err := journal.Inspect(cmd.Context(), p)
			if err != nil {
				return err
			}
			defer func() { err = errors.Join(err, r.Close()) }()
			return f(cmd.Context(), r, cmd.OutOrStdout(), args)
		}
	}
	c.AddCommand(verifyCmd(with), showCmd(with), proveCmd(with), exportCmd(with), tailCmd(with), headCmd(g, with), witnessCmd(g, with), eraseCmd(g))
	return c
}

type opener func(func(ctx context.Context, r *journal.Reader, out io.Writer, args []string) error) func(*cobra.Command, []string) error

func verifyCmd(with opener) *cobra.Command {
	var since string
	cmd := &cobra.Command{
		Use: "verify", Short: "Read everything again and say what is wrong and where", Args: cobra.NoArgs,
		Long: `verify reads every entry, its leaf and every node of the tree again, holds them
against the heads that the server has receipted and witnesses have cosigned, and
compares the counters with what the entries imply, as long as all of these are here.
With --since FILE it also proves that a head that was kept or photographed
earlier is extended by today's: FILE holds a checkpoint (origin, size and root on
a line each), signed or not. Status 1 when anything is wrong.`,
		RunE: with(func(ctx context.Context, r *journal.Reader, out io.Writer, _ []string) error {
			rep, err := r.Verify(ctx, nil)
			if err != nil {
				return err
			}
			for _, f := range rep.Findings {
				if f.Seq < 0 {
					fmt.Fprintf(out, "WRONG  %s\n", f.Text)
				} else {
					fmt.Fprintf(out, "WRONG  entry %d: %s\n", f.Seq, f.Text)
				}
			}
			printHead(out, rep)
			if rep.Purged > 0 {
				fmt.Fprintf(out, "%d entries are past their retention: their content is destroyed, their leaves stand\n", rep.Purged)
			}
			if rep.Away > 0 {
				fmt.Fprintf(out, "%d more are sealed to the community, which has not receipted them yet\n", rep.Away)
			}
			if rep.Unchecked != "" {
				fmt.Fprintf(out, "the counters were not compared with the entries: %s\n", rep.Unchecked)
			}
			bad := len(rep.Findings) > 0
			if since != "" {
				text, err := os.ReadFile(since)
				if err != nil {
					return fmt.Errorf("cannot read the earlier head: %w", err)
				}
				body, _, _ := strings.Cut(string(text), "\n\n")
				h, err := edge.ParseHead(strings.TrimRight(body, "\n") + "\n")
				if err != nil {
					return fmt.Errorf("%s: %w", since, err)
				}
				said, ok, err := r.Since(ctx, rep, h)
				if err != nil {
					return err
				}
				fmt.Fprintln(out, said)
				bad = bad || !ok
			}
			if bad {
				return ErrFound
			}
			fmt.Fprintln(out, "ok: nothing is missing, nothing was changed")
			return nil
		}),
	}
	cmd.Flags().StringVar(&since, "since", "", "prove that the head in this `file` is extended by today's")
	return cmd
}

func printHead(out io.Writer, rep *journal.Report) {
	fmt.Fprintf(out, "%s\n%d\n%s\n", rep.Origin, rep.Size, base64.StdEncoding.EncodeToString(rep.Root[:]))
}

func headCmd(g Gate, with opener) *cobra.Command {
	var key bool
	head := with(func(ctx context.Context, r *journal.Reader, out io.Writer, _ []string) error {
		rep, h, err := signedHead(ctx, g, r)
		if err != nil {
			return err
		}
		text := h.Checkpoint()
		if h.Note != nil {
			text = string(h.Note)
		}
		fmt.Fprintf(out, "%s\n", text)
		if err := qrtext.Print(out, text); err != nil {
			return err
		}
		if len(rep.Findings) > 0 {
			fmt.Fprintln(out, "something is wrong: gatehouse journal verify says what")
			return ErrFound
		}
		return nil
	})
	c := &cobra.Command{
		Use: "head", Short: "Print size and root, as text and as a QR code to photograph", Args: cobra.NoArgs,
		Long: `head prints the tree head as a C2SP checkpoint, signed where the gate's key can be
read. Whoever keeps it can prove later that nothing before it was changed or removed:
"gatehouse journal verify --since FILE" here, "communityd verify --since FILE" at the
server. With --key it prints instead the verifier key of the device that signs here,
for "communityd prove --check", "communityd gates approve --key" and other tools.`,
		RunE: func(cmd *cobra.Command, args []string) error {
			if !key {
				return head(cmd, args)
			}
			s, err := g.Signer()
			if err != nil {
				return err
			}
			if s == nil {
				return errors.New("this gate's key is not here: run it on the gate, as a user who may read its keys")
			}
			line, err := note.NewEd25519VerifierKey(s.Name(), s.Public())
			if err != nil {
				return fmt.Errorf("cannot print the device's key: %w", err)
			}
			fmt.Fprintln(cmd.OutOrStdout(), line)
			return nil
		},
	}
	c.Flags().BoolVar(&key, "key", false, "print the device's verifier key instead")
	return c
}

func sequence(text string) (uint64, error) {
	seq, err := strconv.ParseUint(text, 10, 63)
	if err != nil {
		return 0, fmt.Errorf("%q is not an entry's number", text)
	}
	return seq, nil
}

func showCmd(with opener) *cobra.Command {
	return &cobra.Command{
		Use: "show SEQ", Short: "Show one entry", Args: cobra.ExactArgs(1),
		RunE: with(func(ctx context.Context, r *journal.Reader, out io.Writer, args []string) error {
			seq, err := sequence(args[0])
			if err != nil {
				return err
			}
			got, err := r.Read(ctx, seq, 1, 1<<20)
			if err != nil {
				return err
			}
			if len(got) == 0 || got[0].Seq != seq {
				if size, err := r.Size(ctx); err != nil || seq < size {
					return errors.Join(fmt.Errorf("entry %d: %w", seq, edge.ErrPurged), err)
				}
				return fmt.Errorf("entry %d: %w", seq, edge.ErrUnknown)
			}
			var v any
			if err := json.Unmarshal(got[0].Line, &v); err != nil {
				return fmt.Errorf("entry %d is damaged: %w", seq, err)
			}
			enc := json.NewEncoder(out)
			enc.SetEscapeHTML(false)
			enc.SetIndent("", "  ")
			return enc.Encode(v)
		}),
	}
}

func proveCmd(with opener) *cobra.Command {
	var witness string
	cmd := &cobra.Command{
		Use: "prove SEQ", Short: "Print the proof that an entry is in the log", Args: cobra.ExactArgs(1),
		Long: `prove prints a C2SP tlog-proof under the head that the community server receipted
last. Its extra data is the entry's blind, 32 bytes, and the entry's line. Anybody
verifies it offline with "communityd prove --check" or another C2SP tool; it
discloses that entry and no other.`,
		RunE: with(func(ctx context.Context, r *journal.Reader, out io.Writer, args []string) error {
			seq, err := sequence(args[0])
			if err != nil {
				return err
			}
			rep, err := r.Verify(ctx, nil)
			if err != nil {
				return err
			}
			p, err := r.Prove(ctx, rep, seq, witness)
			if err != nil {
				return err
			}
			_, err = out.Write(p.Encode())
			return err
		}),
	}
	cmd.Flags().StringVar(&witness, "witness", "", "under the head that the witness of this `name` has cosigned, instead of the server's receipt")
	return cmd
}

func exportCmd(with opener) *cobra.Command {
	var from, to uint64
	var pass int64
	cmd := &cobra.Command{
		Use: "export", Short: "Print the entries' exact lines", Args: cobra.NoArgs,
		Long: `export prints the lines as they are hashed and sent, one entry each. With --pass it
prints what the gate holds of one person, of former epochs too.`,
		RunE: with(func(ctx context.Context, r *journal.Reader, out io.Writer, _ []string) error {
			if pass != 0 {
				return exportPass(ctx, r, out, edge.PassID(pass))
			}
			return each(ctx, r, from, func(s edge.Stored) (bool, error) {
				if to > 0 && s.Seq >= to {
					return false, nil
				}
				_, err := fmt.Fprintf(out, "%s\n", s.Line)
				return true, err
			})
		}),
	}
	cmd.Flags().Uint64Var(&from, "from", 0, "first entry")
	cmd.Flags().Int64Var(&pass, "pass", 0, "only what is about the pass with this `id`")
	cmd.Flags().Uint64Var(&to, "to", 0, "first entry that is not printed; 0 = all")
	return cmd
}

func each(ctx context.Context, r *journal.Reader, from uint64, f func(edge.Stored) (bool, error)) error {
	for {
		got, err := r.Read(ctx, from, 1000, 4<<20)
		if err != nil || len(got) == 0 {
			return err
		}
		for _, s := range got {
			from = s.Seq + 1
			if more, err := f(s); err != nil || !more {
				return err
			}
		}
	}
}

func tailCmd(with opener) *cobra.Command {
	var last uint64
	var follow bool
	cmd := &cobra.Command{
		Use: "tail", Short: "Print the last entries in a line each", Args: cobra.NoArgs,
		RunE: with(func(ctx context.Context, r *journal.Reader, out io.Writer, _ []string) (err error) {
			defer func() {
				if follow && ctx.Err() != nil {
					err = nil // that is how one stops following
				}
			}()
			size, err := r.Size(ctx)
			if err != nil {
				return err
			}
			from := size - min(size, last)
			for epoch := r.Epoch(); ; {
				if err := r.Refresh(ctx); err != nil {
					return err
				}
				if r.Epoch() != epoch {
					epoch, from = r.Epoch(), 0
					fmt.Fprintf(out, "epoch %s begins\n", epoch)
				}
				if err := each(ctx, r, from, func(s edge.Stored) (bool, error) {
					from = s.Seq + 1
					e, err := edge.DecodeEntry(s.Line)
					if err != nil {
						return false, fmt.Errorf("entry %d is damaged: %w", s.Seq, err)
					}
					_, err = fmt.Fprintln(out, tell(s.Seq, e))
					return true, err
				}); err != nil {
					return err
				}
				if !follow {
					return nil
				}
				t := time.NewTimer(300 * time.Millisecond)
				select {
				case <-ctx.Done():
					t.Stop()
					return nil
				case <-t.C:
				}
			}
		}),
	}
	cmd.Flags().Uint64VarP(&last, "lines", "n", 20, "how many")
	cmd.Flags().BoolVarP(&follow, "follow", "f", false, "go on as the journal grows")
	return cmd
}

// tell is an entry in one line.
func tell(seq uint64, e *edge.Entry) string {
	var b strings.Builder
	fmt.Fprintf(&b, "%7d  %s  %-9s", seq, e.Stamp.Local().Format("2006-01-02 15:04:05"), e.Kind)
	add := func(s string) {
		if s != "" {
			b.WriteString("  " + s)
		}
	}
	add(e.Lane)
	add(string(e.Outcome))
	add(e.Result)
	if string(e.Reason) != e.Rule {
		add(string(e.Reason))
	}
	add(e.Rule)
	if f := e.Facts; f != nil && f.Pass != nil {
		add(fmt.Sprintf("pass %d", int64(f.Pass.ID)))
	}
	if e.Of >= 0 {
		add(fmt.Sprintf("of %d", e.Of))
	}
	if e.Actor != "system" {
		add(e.Actor)
	}
	if len(e.Data) > 0 && len(e.Data) < 200 {
		add(string(e.Data))
	}
	return b.String()
}
