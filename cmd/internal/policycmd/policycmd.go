// Package policycmd is the operator's commands on policies: the table of facts,
// what is in force, trying a policy before it is in force, and why a decision
// was what it was. None of them changes anything; the daemon may run.
package policycmd

import (
	"context"
	"errors"
	"fmt"
	"io"
	"iter"
	"os"
	"slices"
	"strconv"
	"strings"
	"text/tabwriter"
	"time"

	"github.com/spf13/cobra"

	"gatehouse/edge"
	"gatehouse/edge/policy"
	"gatehouse/edge/roster"
	"gatehouse/edge/text"
)

// Journal is what the commands read of a gate's journal; *journal.Reader is one.
type Journal interface {
	Read(ctx context.Context, from uint64, maxEntries, maxBytes int) ([]edge.Stored, error)
}

// Site is what the commands need of a gate.
type Site struct {
	Journal  Journal
	Policy   *policy.Policy                                                 // in force
	Archived func(ctx context.Context, hash string) (*policy.Policy, error) // by Policy.Hash, edge.ErrUnknown when there is none; nil = no archive
	Now      func() int64                                                   // UTC ms
	Location *time.Location                                                 // nil = UTC
	Close    func() error                                                   // nil = nothing to close
}

// find gives the policy of a hash, nil when it is not known.
func (s *Site) find(ctx context.Context, hash string) (*policy.Policy, error) {
	if s.Policy != nil && s.Policy.Hash() == hash {
		return s.Policy, nil
	}
	if s.Archived == nil {
		return nil, nil
	}
	p, err := s.Archived(ctx, hash)
	if errors.Is(err, edge.ErrUnknown) {
		return nil, nil
	}
	return p, err
}

// New makes the command "policy". open is called when a subcommand looks at a gate.
func New(open func(context.Context) (Site, error)) *cobra.Command {
	cmd := &cobra.Command{Use: "policy", Short: "Show, test and explain the rules; replay the journal by other rules"}
	with := func(run func(cmd *cobra.Command, args []string, s Site) error) func(*cobra.Command, []string) error {
		return func(cmd *cobra.Command, args []string) (err error) {
			cmd.SilenceUsage = true
			s, err := open(cmd.Context())
			if err != nil {
				return err
			}
			if s.Close != nil {
				defer func() { err = errors.Join(err, s.Close()) }()
			}
			if s.Location == nil {
				s.Location = time.UTC
			}
			return run(cmd, args, s)
		}
	}
	cmd.AddCommand(factsCommand(), showCommand(with), testCommand(), lintCommand(with), explainCommand(with), replayCommand(with))
	return cmd
}

type wrapper func(func(*cobra.Command, []string, Site) error) func(*cobra.Command, []string) error

func table(w io.Writer, rows func(*tabwriter.Writer)) error {
	t := tabwriter.NewWriter(w, 0, 0, 2, ' ', 0)
	rows(t)
	return t.Flush()
}

func factsCommand() *cobra.Command {
	return &cobra.Command{Use: "facts", Short: "List the facts that rules may look at", Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			return table(cmd.OutOrStdout(), func(t *tabwriter.Writer) {
				fmt.Fprintln(t, "fact\ttype\tmeaning")
				for _, f := range policy.Facts() {
					fmt.Fprintf(t, "%s\t%s\t%s\n", f.Name, f.Type, f.Doc)
				}
				fmt.Fprintln(t, "counters.NAME.n, .peers, .age\tint\ta counter of the policy: in all, the other gates' part, minutes since their last word")
				fmt.Fprintln(t, "counters.NAME.stale\tbool\tthe other gates' part is older than stale_after")
				fmt.Fprintln(t, "marks.NAME\tbool\ta mark that a rule set is still valid")
				fmt.Fprintln(t, "parameters.NAME\tint, double\ta number of the policy, or of a layer above")
			})
		}}
}

func showCommand(with wrapper) *cobra.Command {
	return &cobra.Command{Use: "show", Short: "Show the rules in force, and who ordered them", Args: cobra.NoArgs,
		RunE: with(func(cmd *cobra.Command, _ []string, s Site) error {
			w := cmd.OutOrStdout()
			for p := s.Policy; p != nil; p = p.Superior() {
				layer := p.Layers()[len(p.Layers())-1]
				fmt.Fprintf(w, "%s version %d, %s (%s)\n", p.ID(), p.Version(), p.Title(), layer.Hash)
				if err := table(w, func(t *tabwriter.Writer) {
					for _, r := range p.Rules() {
						until := "open"
						if r.Authority.Until != 0 {
							until = "until " + time.UnixMilli(r.Authority.Until-1).In(time.UTC).Format(time.DateOnly)
						}
						fmt.Fprintf(t, "  %s\t%s\t%s\t%s\t%s\n", r.ID, r.Kind, r.Outcome, r.Authority, until)
					}
				}); err != nil {
					return err
				}
			}
			return nil
		})}
}

// load reads a policy file beneath the files of its superiors.
func load(file string, under []string) (*policy.Policy, error) {
	var ups []*policy.Policy
	for _, name := range append(slices.Clone(under), file) {
		src, err := os.ReadFile(name)
		if err != nil {
			return nil, fmt.Errorf("cannot read the policy: %w", err)
		}
		p, err := policy.Load(name, src, ups...)
		if err != nil {
			return nil, err
		}
		ups = append(ups, p)
	}
	return ups[len(ups)-1], nil
}

func underFlag(cmd *cobra.Command, under *[]string) {
	cmd.Flags().StringArrayVar(under, "under", nil, "the policy of a layer above, the highest first")
}

func testCommand() *cobra.Command {
	var under []string
	cmd := &cobra.Command{Use: "test FILE", Short: "Load a policy as a gate would and run its cases", Args: cobra.ExactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			cmd.SilenceUsage = true
			p, err := load(args[0], under)
			if err != nil {
				return err
			}
			if p.Cases() == 0 {
				return fmt.Errorf("%s has no cases: nothing shows what it does", args[0])
			}
			fmt.Fprintf(cmd.OutOrStdout(), "%s version %d: %d rules, %d cases hold, %s\n", p.ID(), p.Version(), len(p.Rules()), p.Cases(), p.Hash())
			return nil
		}}
	underFlag(cmd, &under)
	return cmd
}

func lintCommand(with wrapper) *cobra.Command {
	var under []string
	var rosterFile, area, back string
	var recorded bool
	cmd := &cobra.Command{Use: "lint FILE", Short: "Look for gaps, dead rules, contradictions and queues", Args: cobra.ExactArgs(1),
		Long: `Looks at a policy as a whole: rules that never decide, contradict or repeat one
another, combinations of area, tier, level, category, direction and hours that no
rule decides, and rules that would have most of the estate measured again or
referred. For the last it makes a resident up, unless --roster names a file of
passes or --journal has the presentations of the gate's journal.`,
		RunE: func(cmd *cobra.Command, args []string) error {
			cmd.SilenceUsage = true
			p, err := load(args[0], under)
			if err != nil {
				return err
			}
			d, err := since(back)
			if err != nil {
				return err
			}
			look := func(s Site, samples iter.Seq[policy.Sample], failed *error) error {
				found := p.Lint(timeNow(s), samples)
				if *failed != nil {
					return *failed
				}
				bad := 0
				for _, f := range found {
					fmt.Fprintln(cmd.OutOrStdout(), f)
					if f.Fails() {
						bad++
					}
				}
				if bad > 0 {
					return fmt.Errorf("%d findings that keep %s from going into force", bad, args[0])
				}
				return nil
			}
			var failed error
			switch {
			case rosterFile != "" && recorded:
				return errors.New("give --roster or --journal, not both")
			case rosterFile != "":
				return look(Site{}, fromRoster(p, rosterFile, area, timeNow(Site{}), &failed), &failed)
			case recorded:
				return with(func(cmd *cobra.Command, _ []string, s Site) error {
					return look(s, fromJournal(cmd.Context(), s, timeNow(s)-d.Milliseconds(), &failed), &failed)
				})(cmd, args)
			}
			return look(Site{}, nil, &failed)
		}}
	f := cmd.Flags()
	f.StringVar(&rosterFile, "roster", "", "look for queues with the passes of this `file`, CSV or XLSX")
	f.StringVar(&area, "area", "", "area that the passes of --roster present themselves at")
	f.BoolVar(&recorded, "journal", false, "look for queues with the presentations of the gate's journal")
	f.StringVar(&back, "since", "14d", "how far back --journal goes: days (14d) or a duration (6h)")
	underFlag(cmd, &under)
	return cmd
}

func timeNow(s Site) int64 {
	if s.Now != nil {
		return s.Now()
	}
	return time.Now().UnixMilli()
}

// fromRoster are the ordinary presentations of the passes in a file.
func fromRoster(p *policy.Policy, name, area string, now int64, failed *error) iter.Seq[policy.Sample] {
	return func(yield func(policy.Sample) bool) {
		f, err := os.Open(name)
		if err != nil {
			*failed = fmt.Errorf("cannot read the roster: %w", err)
			return
		}
		defer f.Close()
		st, err := f.Stat()
		if err != nil {
			*failed = fmt.Errorf("cannot read the roster: %w", err)
			return
		}
		for row, err := range roster.Open(name, f, st.Size(), roster.Options{CardForm: "em-dec10"}) {
			if err != nil {
				*failed = err
				return
			}
			var house *edge.Household
			if row.Household.ID != 0 {
				house = &row.Household
			}
			for _, s := range p.Ordinary(&row.Pass, house, area, now) {
				if !yield(s) {
					return
				}
			}
		}
	}
}

// fromJournal are the presentations of a gate's journal since a time.
func fromJournal(ctx context.Context, s Site, from int64, failed *error) iter.Seq[policy.Sample] {
	return func(yield func(policy.Sample) bool) {
		for _, e := range entries(ctx, s.Journal, from, failed) {
			if e.Kind == edge.KindDecision && e.Facts != nil && !yield(policy.Sample{Label: "going " + string(e.Facts.Lane.Direction), Facts: e.Facts}) {
				return
			}
		}
	}
}

func explainCommand(with wrapper) *cobra.Command {
	var lang string
	cmd := &cobra.Command{Use: "explain SEQ", Short: "Say why a decision of the journal was what it was", Args: cobra.ExactArgs(1),
		RunE: with(func(cmd *cobra.Command, args []string, s Site) error {
			seq, err := strconv.ParseUint(args[0], 10, 63)
			if err != nil {
				return fmt.Errorf("%q is not a number of the journal", args[0])
			}
			page, err := s.Journal.Read(cmd.Context(), seq, 1, 1)
			switch {
			case err != nil:
				return err
			case len(page) == 0:
				return fmt.Errorf("entry %d: %w", seq, edge.ErrUnknown)
			case page[0].Seq != seq || page[0].Line == nil:
				return fmt.Errorf("entry %d: %w", seq, edge.ErrPurged)
			}
			e, err := edge.DecodeEntry(page[0].Line)
			if err != nil {
				return fmt.Errorf("entry %d: %w", seq, err)
			}
			if e.Kind != edge.KindDecision || e.Facts == nil {
				return fmt.Errorf("entry %d is no decision but %s", seq, e.Kind)
			}
			p, err := s.find(cmd.Context(), e.Policy)
			if err != nil {
				return err
			}
			if p == nil {
				return fmt.Errorf("entry %d was decided by the policy %s, which is not kept here", seq, e.Policy)
			}
			words, err := text.New()
			if err != nil {
				return err
			}
			x := p.Explain(e.Facts, policy.Decision(e), words.For(lang))
			w := cmd.OutOrStdout()
			fmt.Fprintln(w, x.Sentence)
			for _, c := range x.Counter {
				fmt.Fprintln(w, "  "+c)
			}
			if x.Superior != "" {
				fmt.Fprintln(w, x.Superior)
			}
			return nil
		})}
	cmd.Flags().StringVar(&lang, "lang", "zh", "zh or en")
	return cmd
}

// since reads "14d" or a duration.
func since(s string) (time.Duration, error) {
	if days, ok := strings.CutSuffix(s, "d"); ok {
		n, err := strconv.Atoi(days)
		if err != nil || n < 0 || n > 3650 {
			return 0, fmt.Errorf("%q is not a number of days", s)
		}
		return time.Duration(n) * 24 * time.Hour, nil
	}
	d, err := time.ParseDuration(s)
	if err != nil || d < 0 {
		return 0, fmt.Errorf("%q is neither days like 14d nor a duration like 6h", s)
	}
	return d, nil
}

func replayCommand(with wrapper) *cobra.Command {
	var back, file string
	var under []string
	var superior bool
	cmd := &cobra.Command{Use: "replay", Short: "Decide the journal's presentations again and list what would differ", Args: cobra.NoArgs,
		RunE: with(func(cmd *cobra.Command, _ []string, s Site) error {
			ctx := cmd.Context()
			d, err := since(back)
			if err != nil {
				return err
			}
			p := s.Policy
			switch {
			case superior && file != "":
				return errors.New("give --superior or --policy, not both")
			case superior:
				if p = p.Superior(); p == nil {
					return errors.New("no superior's policy stands above the one in force")
				}
			case file != "":
				if p, err = load(file, under); err != nil {
					return err
				}
			}
			known := map[string]*policy.Policy{p.Hash(): p}
			var failed error
			old := func(hash string) *policy.Policy {
				q, seen := known[hash]
				if !seen {
					var err error
					if q, err = s.find(ctx, hash); err != nil && failed == nil {
						failed = err
					}
					known[hash] = q
				}
				return q
			}
			rep := p.Replay(entries(ctx, s.Journal, s.Now()-d.Milliseconds(), &failed), old)
			if failed != nil {
				return failed
			}
			return report(cmd.OutOrStdout(), p, rep)
		})}
	cmd.Flags().StringVar(&back, "since", "14d", "how far back: days (14d) or a duration (6h)")
	cmd.Flags().StringVar(&file, "policy", "", "decide by this file instead of the policy in force")
	cmd.Flags().BoolVar(&superior, "superior", false, "decide by the superiors' policies alone: what does this level deny that they would admit?")
	underFlag(cmd, &under)
	return cmd
}

// entries reads the journal from its first entry at or after a time.
func entries(ctx context.Context, j Journal, from int64, failed *error) iter.Seq2[uint64, *edge.Entry] {
	return func(yield func(uint64, *edge.Entry) bool) {
		for next := uint64(0); ; {
			page, err := j.Read(ctx, next, 1000, 1<<20)
			if err != nil {
				*failed = err
				return
			}
			if len(page) == 0 {
				return
			}
			for _, s := range page {
				next = s.Seq + 1
				if s.Line == nil {
					continue // past its retention
				}
				e, err := edge.DecodeEntry(s.Line)
				if err != nil {
					*failed = fmt.Errorf("entry %d: %w", s.Seq, err)
					return
				}
				if e.Stamp.Time >= from && !yield(s.Seq, e) {
					return
				}
			}
		}
	}
}

func report(w io.Writer, p *policy.Policy, rep policy.Report) error {
	fmt.Fprintf(w, "%s version %d over %d decisions: %d the same, %d different, %d cannot tell\n", p.ID(), p.Version(), rep.Entries, rep.Same, rep.Different, rep.CannotTell)
	if len(rep.Differences) > 0 {
		if err := table(w, func(t *tabwriter.Writer) {
			fmt.Fprintln(t, "count\twas\tby rule\twould be\tby rule\tcategory\tarea\tfirst")
			for _, d := range rep.Differences {
				fmt.Fprintf(t, "%d\t%s\t%s\t%s\t%s\t%s\t%s\t%d\n", d.Count, d.Was, d.WasRule, d.Outcome, d.Rule, dash(d.Category), dash(d.Area), d.First)
			}
		}); err != nil {
			return err
		}
	}
	names := make([]string, 0, len(rep.Missing))
	for name := range rep.Missing {
		names = append(names, name)
	}
	slices.Sort(names)
	for _, name := range names {
		fmt.Fprintf(w, "cannot tell of %d: %s was not recorded\n", rep.Missing[name], name)
	}
	return nil
}

func dash(s string) string {
	if s == "" {
		return "-"
	}
	return s
}
