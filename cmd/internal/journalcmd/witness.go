package journalcmd

import (
	"context"
	"encoding/base64"
	"errors"
	"fmt"
	"io"
	"os"
	"strings"
	"time"

	cosig "github.com/transparency-dev/formats/note"
	"golang.org/x/mod/sumdb/note"

	"github.com/spf13/cobra"

	"gatehouse/edge"
	"gatehouse/edge/journal"
)

func witnessCmd(g Gate, with opener) *cobra.Command {
	c := &cobra.Command{
		Use: "witness", Short: "Have today's head cosigned by a witness outside",
		Long: `A witness is anybody who remembers the heads of a log and cosigns only one that
extends the last (https://c2sp.org/tlog-witness). The community server cosigns each
receipt; a witness outside keeps the operator honest. The gate itself speaks to
nobody: "request" prints what a witness is sent, on a stick or by

    gatehouse journal witness request > request
    curl --data-binary @request https://WITNESS/add-checkpoint > answer

and "add" checks the answer and keeps it, for "prove --witness".`,
	}
	var old uint64
	request := &cobra.Command{
		Use: "request", Short: "Print the add-checkpoint request for today's head", Args: cobra.NoArgs,
		RunE: with(func(ctx context.Context, r *journal.Reader, out io.Writer, _ []string) error {
			rep, h, err := signedHead(ctx, g, r)
			if err != nil {
				return err
			}
			if h.Note == nil {
				return errors.New("this head cannot be signed here: run it on the gate, as a user who may read its keys")
			}
			proof, err := rep.Consistency(old)
			if err != nil {
				return err
			}
			if err := r.Keep(ctx, journal.Requested, h.Note); err != nil {
				return err
			}
			fmt.Fprintf(out, "old %d\n", old)
			for _, x := range proof {
				fmt.Fprintln(out, base64.StdEncoding.EncodeToString(x[:]))
			}
			_, err = fmt.Fprintf(out, "\n%s", h.Note)
			return err
		}),
	}
	request.Flags().Uint64Var(&old, "old", 0, "the size that the witness has cosigned last; it says so when this is wrong")

	var key string
	add := &cobra.Command{
		Use: "add FILE", Short: "Check a witness's answer, or a cosigned checkpoint, and keep it", Args: cobra.ExactArgs(1),
		RunE: with(func(ctx context.Context, r *journal.Reader, out io.Writer, args []string) error {
			text, err := os.ReadFile(args[0])
			if err != nil {
				return fmt.Errorf("cannot read the answer: %w", err)
			}
			if strings.HasPrefix(string(text), "— ") {
				last, err := r.Kept(ctx, journal.Requested)
				if err != nil {
					return fmt.Errorf("the answer is to no request of this gate: %w", err)
				}
				text = append(last, text...)
			}
			v, err := cosig.NewVerifierForCosignatureV1(key)
			if err != nil {
				return fmt.Errorf("cannot use the witness's key: %w", err)
			}
			h, at, err := cosigned(text, v)
			if err != nil {
				return err
			}
			rep, err := r.Verify(ctx, nil)
			if err != nil {
				return err
			}
			said, ok, err := r.Since(ctx, rep, h)
			if err != nil {
				return err
			}
			if !ok {
				return fmt.Errorf("the witness cosigned another log: %s", said)
			}
			if err := r.Keep(ctx, v.Name(), text); err != nil {
				return err
			}
			fmt.Fprintf(out, "%s cosigned %d entries of %s at %s\n", v.Name(), h.Size, h.Origin, at.UTC().Format(time.RFC3339))
			return nil
		}),
	}
	add.Flags().StringVar(&key, "key", "", "the witness's `vkey`, NAME+HASH+KEY; it must come from the witness, not with the answer")
	_ = add.MarkFlagRequired("key")
	c.AddCommand(request, add)
	return c
}

// cosigned verifies a witness's cosignature of a checkpoint.
func cosigned(text []byte, v note.Verifier) (edge.Head, time.Time, error) {
	h, n, err := edge.OpenHead(text, v)
	if err != nil {
		return h, time.Time{}, err
	}
	at, err := cosig.CoSigV1Timestamp(n.Sigs[0])
	return h, at, err
}

// signedHead is today's head, signed where the gate's key can be read.
func signedHead(ctx context.Context, g Gate, r *journal.Reader) (*journal.Report, edge.Head, error) {
	rep, err := r.Verify(ctx, nil)
	if err != nil {
		return nil, edge.Head{}, err
	}
	h := edge.Head{Origin: rep.Origin, Size: rep.Size, Root: rep.Root}
	s, err := g.Signer()
	if err != nil || s == nil {
		return rep, h, err
	}
	return rep, h, edge.SignHead(&h, s)
}
