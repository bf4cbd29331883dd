package communitycmd

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"strconv"
	"strings"
	"time"

	"github.com/schollz/progressbar/v3"
	"github.com/spf13/cobra"

	"gatehouse/edge/roster"
	"gatehouse/sync/community"
)

func (b *base) roster() *cobra.Command {
	c := &cobra.Command{Use: "roster", Short: "The site's roster: the server is its master", Args: cobra.NoArgs, RunE: help}
	var site, zone, gone string
	var o roster.Options
	var dry, drop bool
	imp := &cobra.Command{
		Use:   "import FILE",
		Short: "Make a CSV or XLSX file the site's roster and publish it to the gates, all or nothing",
		Args:  cobra.ExactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			share, err := percent(gone)
			if err != nil {
				return err
			}
			if o.Location, err = time.LoadLocation(zone); err != nil {
				return fmt.Errorf("--timezone: %w", err)
			}
			f, err := os.Open(args[0])
			if err != nil {
				return fmt.Errorf("cannot read the roster: %w", err)
			}
			defer f.Close()
			st, err := f.Stat()
			if err != nil {
				return fmt.Errorf("cannot read the roster: %w", err)
			}
			return b.with(cmd, func(ctx context.Context, s *community.Server, out io.Writer) error {
				// A spinner of its own would read the bar while it is written.
				bar := progressbar.NewOptions64(-1, progressbar.OptionSetWriter(cmd.ErrOrStderr()), progressbar.OptionSetDescription("rows"),
					progressbar.OptionSetSpinnerChangeInterval(0), progressbar.OptionClearOnFinish(), progressbar.OptionShowCount())
				ch, err := s.ImportRoster(ctx, site, roster.Open(args[0], f, st.Size(), o), community.ImportOptions{
					DryRun: dry, DropLocal: drop, MaxGone: share, Progress: func(n int64) { _ = bar.Set64(n) }})
				_ = bar.Finish()
				if errors.Is(err, community.ErrTooManyGone) {
					return fmt.Errorf("%w\nIf that is meant, say how many may go: --max-gone 100%%", err)
				}
				if err != nil {
					return err
				}
				what := "published as version " + strconv.FormatInt(ch.Version, 10)
				if dry {
					what = "nothing was changed (dry run)"
				}
				fmt.Fprintf(out, "%d new, %d changed, %d gone, %d as before; %s\n", ch.New, ch.Changed, ch.Gone, ch.Same, what)
				return nil
			})
		},
	}
	f := imp.Flags()
	f.StringVar(&site, "site", "", "`site` whose roster it is")
	f.StringVar(&zone, "timezone", "UTC", "IANA `zone` of the dates in the file")
	f.StringVar(&gone, "max-gone", "10%", "`share` of the passes that may go")
	f.BoolVar(&drop, "drop-local", false, "forget what gates changed by themselves: the file is right")
	f.BoolVar(&dry, "dry-run", false, "only say what would change")
	f.StringToStringVar(&o.Mapping, "map", nil, "`header=field` for columns with other names; header=- leaves one out")
	f.StringVar(&o.CardForm, "card-form", "", "what a bare card number is: em-hex, em-dec10, w26, w34, uid or qr")
	f.StringVar(&o.Sheet, "sheet", "", "`sheet` of a workbook (default: the first)")
	must(imp.MarkFlagRequired("site"))
	c.AddCommand(imp)
	return c
}

// percent reads "10%" as 0.1.
func percent(s string) (float64, error) {
	v, err := strconv.ParseFloat(strings.TrimSuffix(s, "%"), 64)
	if err != nil || !strings.HasSuffix(s, "%") || v < 0 || v > 100 {
		return 0, fmt.Errorf("--max-gone: %q is not a share such as 10%%", s)
	}
	return v / 100, nil
}

// must is for what can only fail when this package is wrong.
func must(err error) {
	if err != nil {
		panic(err)
	}
}
