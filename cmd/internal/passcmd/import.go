package passcmd

import (
	"bufio"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"

	"github.com/schollz/progressbar/v3"
	"github.com/spf13/cobra"
	"golang.org/x/term"

	"gatehouse/edge"
	"gatehouse/edge/registry"
	"gatehouse/edge/roster"
)

func importCommand(with wrapper) *cobra.Command {
	var o roster.Options
	var columns []string
	var dry, yes bool
	cmd := &cobra.Command{Use: "import FILE", Short: "Replace the roster by a CSV or XLSX file", Args: cobra.ExactArgs(1),
		Long: "Replaces the roster by a file: all of it, or nothing when a row is wrong. Passes that are not in the file end.\n" +
			"Lanes decide on while it runs. Names are masked before they are stored; columns that are not listed here are not read.\n\n" + describe(),
		Example: "  gatehouse pass import 住户名单.xlsx --card-form em-dec10 --dry-run\n  gatehouse pass import list.csv --column Ausweis=pass --column Karte=card",
		RunE: with(func(cmd *cobra.Command, args []string, s Site) (err error) {
			o.Location = s.Location
			if o.CardForm == "" {
				o.CardForm = s.CardForm
			}
			if o.Mapping, err = mapping(columns); err != nil {
				return err
			}
			f, err := os.Open(args[0])
			if err != nil {
				return err
			}
			defer f.Close()
			st, err := f.Stat()
			if err != nil {
				return err
			}
			name := filepath.Base(args[0])
			out := cmd.OutOrStdout()
			if err := layout(out, name, f, st.Size(), o); err != nil {
				return err
			}
			rows := roster.Open(name, f, st.Size(), o)
			if dry {
				c, err := s.Registry.Diff(cmd.Context(), rows)
				if err != nil {
					return err
				}
				print(out, c)
				if c.GoneShare() > registry.MaxGone {
					fmt.Fprintf(out, "more than %.0f%% gone: the import will ask for confirmation\n", 100*registry.MaxGone)
				}
				fmt.Fprintln(out, "nothing was changed")
				return nil
			}
			bar := newProgress(cmd.ErrOrStderr())
			io := registry.ImportOptions{Progress: bar.show, Confirm: func(c registry.Changes) error {
				bar.end()
				if yes {
					return nil
				}
				return ask(cmd, c)
			}}
			c, err := s.Registry.Import(cmd.Context(), rows, io)
			bar.end()
			if err != nil {
				return explained(err)
			}
			print(out, c)
			fmt.Fprintf(out, "roster version %d is in force\n", c.Version)
			return nil
		})}
	f := cmd.Flags()
	f.BoolVar(&dry, "dry-run", false, "only show what would change")
	f.BoolVar(&yes, "yes", false, "do not ask when many passes would be gone")
	f.StringArrayVar(&columns, "column", nil, "HEADER=FIELD: read a column as a field; FIELD \"-\" leaves it out")
	f.StringVar(&o.CardForm, "card-form", "", "what bare card numbers are: em-hex, em-dec10 (the ten digits printed on the card), w26, w34, uid or qr")
	f.StringVar(&o.Sheet, "sheet", "", "sheet of a workbook (default the first)")
	return cmd
}

func describe() string {
	var b strings.Builder
	b.WriteString("Fields, and the headers they are known by:\n")
	for _, f := range roster.Describe() {
		fmt.Fprintf(&b, "  %-22s%s [%s]\n", f[0], f[1], f[2])
	}
	return b.String()
}

func mapping(columns []string) (map[string]string, error) {
	m := map[string]string{}
	for _, c := range columns {
		i := strings.LastIndexByte(c, '=')
		if i < 1 || i == len(c)-1 {
			return nil, fmt.Errorf("--column %q: want HEADER=FIELD", c)
		}
		m[c[:i]] = c[i+1:]
	}
	return m, nil
}

// layout shows how the file is understood, so that a wrong column is seen
// before it is imported.
func layout(w io.Writer, name string, f *os.File, size int64, o roster.Options) error {
	l, err := roster.Inspect(name, f, size, o)
	if err != nil {
		return err
	}
	fmt.Fprintf(w, "%s: %s, headers in row %d\n", name, l.Format, l.Header)
	var left []string
	for _, c := range l.Columns {
		if c.Field == "" {
			left = append(left, c.Header)
		} else {
			fmt.Fprintf(w, "  %s -> %s\n", c.Header, c.Field)
		}
	}
	if len(left) > 0 {
		fmt.Fprintf(w, "  not read: %s\n", strings.Join(left, ", "))
	}
	return nil
}

func print(w io.Writer, c registry.Changes) {
	fmt.Fprintf(w, "%d passes in the file, %d known before\n", c.Passes, c.Before)
	for _, l := range []struct {
		name string
		n    int
		ids  []edge.PassID
	}{{"new", c.New, c.NewIDs}, {"changed", c.Changed, c.ChangedIDs}, {"gone", c.Gone, c.GoneIDs}} {
		fmt.Fprintf(w, "  %-8s%d", l.name, l.n)
		if l.n > 0 {
			ids := make([]string, len(l.ids))
			for i, id := range l.ids {
				ids[i] = fmt.Sprint(id)
			}
			fmt.Fprintf(w, ": %s", strings.Join(ids, " "))
			if l.n > len(ids) {
				fmt.Fprint(w, " ...")
			}
		}
		fmt.Fprintln(w)
	}
}

// ask wants a word typed by a person; a script says --yes.
func ask(cmd *cobra.Command, c registry.Changes) error {
	in, ok := cmd.InOrStdin().(*os.File)
	if !ok || !term.IsTerminal(int(in.Fd())) {
		return &registry.ManyGoneError{Changes: c}
	}
	print(cmd.OutOrStdout(), c)
	fmt.Fprintf(cmd.OutOrStdout(), "%.0f%% of the passes would end. Is the file complete? Type yes to go on: ", 100*c.GoneShare())
	answer, err := bufio.NewReader(in).ReadString('\n')
	if err != nil {
		return fmt.Errorf("no answer: %w", err)
	}
	if strings.TrimSpace(answer) != "yes" {
		return errors.New("not confirmed; nothing was changed")
	}
	return nil
}

func explained(err error) error {
	var gone *registry.ManyGoneError
	if errors.As(err, &gone) {
		return fmt.Errorf("%w (with --yes it is)", err)
	}
	var all registry.Errors
	if errors.As(err, &all) {
		return fmt.Errorf("%w\nnothing was imported", err)
	}
	return err
}

// progress is a bar on a terminal, and nothing elsewhere.
type progress struct {
	bar   *progressbar.ProgressBar
	phase registry.Phase
}

func newProgress(w io.Writer) *progress {
	f, ok := w.(*os.File)
	if !ok || !term.IsTerminal(int(f.Fd())) {
		return &progress{}
	}
	// Without the spinner's own goroutine, which reads the bar's state unlocked:
	// the bar is drawn when rows come.
	return &progress{bar: progressbar.NewOptions(-1, progressbar.OptionSetWriter(f), progressbar.OptionSetSpinnerChangeInterval(0), progressbar.OptionShowCount(), progressbar.OptionSetItsString("passes"),
		progressbar.OptionShowIts(), progressbar.OptionSetElapsedTime(true), progressbar.OptionClearOnFinish())}
}

// show is called with every thousand rows, and when a phase begins.
func (p *progress) show(phase registry.Phase, rows int) {
	if p.bar == nil {
		return
	}
	if phase != p.phase {
		p.phase = phase
		p.bar.Describe(string(phase))
	}
	// A bar that cannot be drawn is no reason to stop.
	_ = p.bar.Set(rows)
}

func (p *progress) end() {
	if p.bar != nil {
		_ = p.bar.Finish()
		p.bar = nil
	}
}
