package benchcmd

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"

	"github.com/spf13/cobra"

	"gatehouse/cmd/internal/chain"
	"gatehouse/edge/identity"
)

type syncOptions struct {
	dir, broker string
	entries     int
	json        bool
}

// syncCommand measures the way to a broker and back.
func syncCommand(state func() (string, error)) *cobra.Command {
	o := syncOptions{entries: 100_000}
	c := &cobra.Command{
		Use:   "sync",
		Short: "Measure how fast a backlog drains to a broker, and how much of the line it takes",
		Long: `Makes a journal that is always the same, in a temporary folder, and drains it to a
broker, where an answering end of its own verifies and receipts every batch as the
community server does, and stores nothing. The floor is the same bytes published
bare. The broker must let anybody publish to gatehouse/v1/bench.example: start one
for the measurement ("mosquitto"), at the place where the real one is.
The whole way into a database is measured by "go test -bench Chain ./cmd/internal/chain".`,
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			if o.dir == "" {
				dir, err := state()
				if err != nil {
					return fmt.Errorf("%w (or say --dir FOLDER)", err)
				}
				o.dir = dir
			}
			if o.entries < 1000 {
				return errors.New("--entries is at least 1000: fewer say nothing")
			}
			r, err := measureSync(cmd.Context(), o, cmd.ErrOrStderr())
			if err != nil {
				return err
			}
			return r.print(cmd.OutOrStdout(), o.json)
		},
	}
	f := c.Flags()
	f.StringVar(&o.dir, "dir", "", "`folder` for the journal (default: the gate's state folder)")
	f.StringVar(&o.broker, "broker", "mqtt://127.0.0.1:1883", "`URL` of the broker")
	f.IntVar(&o.entries, "entries", o.entries, "`number` of entries of the backlog")
	f.BoolVar(&o.json, "json", false, "print the figures as JSON")
	return c
}

func measureSync(ctx context.Context, o syncOptions, progress io.Writer) (_ *Report, err error) {
	dir, err := os.MkdirTemp(o.dir, "bench-")
	if err != nil {
		return nil, fmt.Errorf("cannot measure in %s: %w", o.dir, err)
	}
	defer func() { err = errors.Join(err, os.RemoveAll(dir)) }()
	gate, err := chain.Identity(dir)
	if err != nil {
		return nil, err
	}
	server, err := identity.Open(filepath.Join(dir, "server"), chain.Realm+"/server")
	if err != nil {
		return nil, err
	}
	fmt.Fprintf(progress, "writing %d entries ...\n", o.entries)
	j, err := chain.Fill(ctx, filepath.Join(dir, "journal.db"), gate, o.entries)
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, j.Close()) }()
	before := resident()
	fmt.Fprintf(progress, "draining to %s ...\n", o.broker)
	res, err := chain.Drain(ctx, j, gate, server, o.broker)
	if err != nil {
		return nil, err
	}
	r := &Report{Board: o.broker, Medium: fmt.Sprintf("%d entries in %d batches", res.Entries, res.Batches)}
	rate, floor := float64(res.Entries)/res.Took.Seconds(), float64(res.Entries)/res.Floor.Seconds()
	l := Line{Name: "drain: entries a second, receipted", Value: fmt.Sprintf("%.0f", rate), Floor: fmt.Sprintf("%.0f with the same bytes published bare, %.2fx", floor, rate/floor),
		Say: fmt.Sprintf("a week offline at 2,000 entries a day is there in %s", span(14_000/rate))}
	if rate < 500 {
		l.Verdict, l.Say = fair, l.Say+"; slow, but the gate does not wait for it"
	}
	r.add(l)
	each := float64(res.Bytes) / float64(res.Entries)
	l = Line{Name: "line: bytes for one entry of a backlog", Value: fmt.Sprintf("%.1f", each), Say: fmt.Sprintf("%.1f MB a month at 2,000 entries a day", each*60_000/1e6)}
	if each > 30 {
		l.Verdict = fair
	}
	r.add(l)
	r.add(Line{Name: "memory: the most this run had", Value: fmt.Sprintf("%d MB, %d MB of them while draining, both ends", resident()>>20, (resident()-before)>>20), Say: "the answering end is in it"})
	return r, nil
}

func span(seconds float64) string {
	switch {
	case seconds < 1:
		return "less than a second"
	case seconds < 120:
		return fmt.Sprintf("%.0f s", seconds)
	}
	return fmt.Sprintf("%.0f min", seconds/60)
}
