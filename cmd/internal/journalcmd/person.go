package journalcmd

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os/user"
	"time"

	"github.com/spf13/cobra"

	"gatehouse/edge"
	"gatehouse/edge/journal"
)

// eraseWait is how long the daemon may take to take up an erasure, and its pace.
const (
	eraseWait = 30 * time.Second
	erasePoll = 200 * time.Millisecond
)

func eraseCmd(g Gate) *cobra.Command {
	var pass int64
	cmd := &cobra.Command{
		Use: "erase --pass ID", Short: "Destroy everything that this gate holds of one pass", Args: cobra.NoArgs,
		Long: `erase destroys the content of every entry about a pass, and its counters,
positions and marks; the leaves stay, so that the log can still be verified. What the
community server has not receipted is sealed to its key first, and erased there by
"communityd erase --site SITE --pass ID". Copies that lie beside the journal, of damaged
files and of an update, go as well. A running daemon does it; a stopped gate is opened
for it. A deletion record in the journal says what went, when, and who asked.`,
		RunE: func(cmd *cobra.Command, _ []string) error {
			if pass <= 0 {
				return errors.New("which pass? --pass ID")
			}
			e, err := erase(cmd.Context(), g, edge.PassID(pass))
			if err != nil {
				return err
			}
			out := cmd.OutOrStdout()
			fmt.Fprintf(out, "%d entries about pass %d are destroyed or sealed\n", e.Gone, pass)
			if e.Waiting > 0 {
				fmt.Fprintf(out, "%d more follow when the community server has receipted them: its key is not known here\n", e.Waiting)
			}
			if g.Copies != nil {
				return g.Copies()
			}
			return nil
		},
	}
	cmd.Flags().Int64Var(&pass, "pass", 0, "the pass's `id`")
	return cmd
}

func operator() string {
	if u, err := user.Current(); err == nil {
		return "operator:" + u.Username
	}
	return "operator"
}

func erase(ctx context.Context, g Gate, pass edge.PassID) (_ journal.Erased, err error) {
	j, err := g.Alone(ctx)
	if err == nil {
		defer func() { err = errors.Join(err, j.Close()) }()
		return j.Erase(ctx, pass, operator())
	}
	if !errors.Is(err, journal.ErrInUse) {
		return journal.Erased{}, err
	}
	p, err := g.Path()
	if err != nil {
		return journal.Erased{}, err
	}
	r, err := journal.Inspect(ctx, p)
	if err != nil {
		return journal.Erased{}, err
	}
	defer func() { err = errors.Join(err, r.Close()) }()
	if err := r.Erasure(ctx, pass, operator()); err != nil {
		return journal.Erased{}, err
	}
	ctx, cancel := context.WithTimeout(ctx, eraseWait)
	defer cancel()
	t := time.NewTicker(erasePoll)
	defer t.Stop()
	for {
		e, done, err := r.Erased(ctx, pass)
		if done || err != nil {
			return e, err
		}
		select {
		case <-ctx.Done():
			return e, errors.New("the daemon has not taken it up yet; it will, and the deletion record tells")
		case <-t.C:
		}
	}
}

// exportPass prints the lines about one pass, of the former epochs too.
func exportPass(ctx context.Context, r *journal.Reader, out io.Writer, pass edge.PassID) error {
	formers, err := r.Formers(ctx)
	if err != nil {
		return err
	}
	var all []*journal.Reader
	for _, e := range formers {
		f, err := r.Former(ctx, e)
		if errors.Is(err, edge.ErrPurged) {
			continue
		}
		if err != nil {
			return err
		}
		all = append(all, f)
	}
	for _, x := range append(all, r) {
		if err := x.About(ctx, pass, func(s edge.Stored) error {
			_, err := fmt.Fprintf(out, "%s\n", s.Line)
			return err
		}); err != nil {
			return err
		}
	}
	return nil
}
