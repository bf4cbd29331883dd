// Package benchcmd is "gatehouse bench": what this board and this medium can do,
// in a table that an installer understands. Every figure stands beside its floor
// of the same run: what the medium does without the gate.
package benchcmd

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"time"

	"github.com/spf13/cobra"

	"gatehouse/device"
	"gatehouse/device/board"
	"gatehouse/edge"
	"gatehouse/edge/clock"
	"gatehouse/edge/journal"
	"gatehouse/edge/policy"
	"gatehouse/edge/registry"
	firmwareconfig "gatehouse/firmware-config"
)

type options struct {
	dir     string
	commits int
	passes  int
	json    bool
}

// New makes the command. state gives the folder on the medium that counts where
// none is named.
func New(state func() (string, error)) *cobra.Command {
	var o options
	c := &cobra.Command{
		Use:   "bench",
		Short: "Measure what this board and this medium can do",
		Long: `Measures, in a temporary folder beside the gate's databases: how long a durable
commit takes and how much of that is the medium's own, how many decisions a second
the rules take, the memory and the time to the first decision with a roster, and
how many bytes reach the medium for one entry. It disturbs a gate that runs on the
same medium; do it at a quiet hour. Exit status 1 says that something should not
guard a gate as it is.`,
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			if o.dir == "" {
				dir, err := state()
				if err != nil {
					return fmt.Errorf("%w (or say --dir FOLDER, on the medium to measure)", err)
				}
				o.dir = dir
			}
			if o.commits < 100 || o.passes < 1 {
				return errors.New("--commits is at least 100 and --passes at least 1: fewer say nothing")
			}
			r, err := measure(cmd.Context(), o, cmd.ErrOrStderr())
			if err != nil {
				return err
			}
			if err := r.print(cmd.OutOrStdout(), o.json); err != nil {
				return err
			}
			if r.Worst == bad {
				return fmt.Errorf("this board or its medium should not guard a gate as it is: see the lines that say so")
			}
			return nil
		},
	}
	f := c.Flags()
	f.StringVar(&o.dir, "dir", "", "`folder` on the medium to measure (default: the gate's state folder)")
	f.IntVar(&o.commits, "commits", 1000, "`number` of commits of each kind")
	f.IntVar(&o.passes, "passes", 10_000, "`number` of passes in the roster")
	f.BoolVar(&o.json, "json", false, "print the figures as JSON")
	c.AddCommand(syncCommand(state))
	return c
}

// Report is all that was measured.
type Report struct {
	Board  string  `json:"board"`
	Medium string  `json:"medium"`
	Lines  []Line  `json:"lines"`
	Worst  Verdict `json:"worst"`
}

// Line is one figure with its floor and what it means.
type Line struct {
	Name    string  `json:"name"`
	Value   string  `json:"value"`
	Floor   string  `json:"floor,omitempty"`
	Verdict Verdict `json:"verdict"`
	Say     string  `json:"say"`
}

func (r *Report) add(l Line) {
	r.Lines = append(r.Lines, l)
	r.Worst = max(r.Worst, l.Verdict)
}

func (r *Report) print(w io.Writer, asJSON bool) error {
	if asJSON {
		e := json.NewEncoder(w)
		e.SetIndent("", "  ")
		return e.Encode(r)
	}
	fmt.Fprintf(w, "%s, %s\n\n", r.Board, r.Medium)
	for _, l := range r.Lines {
		floor := ""
		if l.Floor != "" {
			floor = "; floor: " + l.Floor
		}
		if _, err := fmt.Fprintf(w, "%-5s %s\n      %s%s\n      %s\n", l.Verdict, l.Name, l.Value, floor, l.Say); err != nil {
			return err
		}
	}
	return nil
}

// measure does everything in a folder of its own, which is gone afterwards.
func measure(ctx context.Context, o options, progress io.Writer) (_ *Report, err error) {
	dir, err := os.MkdirTemp(o.dir, "bench-")
	if err != nil {
		return nil, fmt.Errorf("cannot measure in %s: %w", o.dir, err)
	}
	defer func() { err = errors.Join(err, os.RemoveAll(dir)) }()
	look, err := board.Read(os.DirFS("/"), dir)
	if err != nil {
		return nil, err
	}
	r := &Report{Board: look.Model, Medium: fmt.Sprintf("%s, %d MB of %d free", look.Device, look.Free>>20, look.Size>>20)}
	if r.Board == "" {
		r.Board = fmt.Sprintf("%s, %d processors", runtime.GOARCH, runtime.NumCPU())
	}
	if look.Device == "" {
		r.Medium = fmt.Sprintf("a file system without a disk of its own, %d MB of %d free", look.Free>>20, look.Size>>20)
	}
	for _, p := range look.Problems() {
		v := fair
		if p.Code == "read_only" || p.Code == "worn_out" || p.Code == "disk_errors" {
			v = bad
		}
		r.add(Line{Name: "board", Value: p.Code, Verdict: v, Say: p.Text})
	}
	say := func(what string) { fmt.Fprintf(progress, "measuring %s ...\n", what) }

	say("the medium")
	syncs, err := appends(dir, o.commits)
	if err != nil {
		return nil, err
	}
	bare, err := bareCommits(ctx, dir, o.commits)
	if err != nil {
		return nil, err
	}
	r.add(judgeMedium(syncs))

	say("the journal")
	own, flash, err := journalCommits(ctx, dir, o.commits)
	if err != nil {
		return nil, err
	}
	r.add(judgeCommit(own, bare, syncs))
	r.add(judgeFlash(flash))

	say("the rules")
	perSecond, each, err := decisions()
	if err != nil {
		return nil, err
	}
	r.add(judgeDecisions(perSecond, each))

	say("the roster")
	start, err := startUp(ctx, dir, o.passes)
	if err != nil {
		return nil, err
	}
	r.add(judgeStart(start, o.passes))
	r.add(judgeMemory(resident()))
	return r, nil
}

var discard = slog.New(slog.DiscardHandler)

var siteKey = edge.CredentialKey{Version: 1, Key: [32]byte{1}}

// facts are those of a resident who goes out and is measured on the way.
func facts(now edge.Stamp, i int) *edge.Facts {
	return &edge.Facts{
		Pass:        &edge.PassFacts{ID: edge.PassID(i%2000 + 1), Category: "resident", Status: edge.PassActive},
		Household:   &edge.HouseholdFacts{ID: edge.HouseholdID(i%700 + 1), Area: "main", Members: 3},
		Temperature: &edge.TemperatureFacts{State: edge.TempOK, Band: edge.BandBelow, Profile: "forehead/1"},
		Lane:        edge.LaneFacts{Level: edge.LevelEstate, Direction: device.Out, Area: "main"},
		Position:    &edge.PositionFacts{At: "inside", Age: i % 600},
		Time:        edge.TimeFactsOf(now),
	}
}

// sample is the closed estate's policy, as shipped.
func sample() (*policy.Policy, error) {
	src, err := firmwareconfig.Samples.ReadFile("policies/closed-estate.yaml")
	if err != nil {
		return nil, err
	}
	return policy.Load("closed-estate.yaml", src)
}

// decisions counts how many decisions the sample's rules take in a second, on
// one core.
func decisions() (perSecond float64, each time.Duration, err error) {
	pol, err := sample()
	if err != nil {
		return 0, 0, err
	}
	f := facts(edge.Stamp{Time: time.Now().UnixMilli()}, 1)
	const atLeast = 500 * time.Millisecond
	began, n := time.Now(), 0
	for time.Since(began) < atLeast {
		for range 100 {
			pol.Decide(f)
		}
		n += 100
	}
	took := time.Since(began)
	return float64(n) / took.Seconds(), took / time.Duration(n), nil
}

// startUp is the time from opening the databases to the first decision about a
// card, with a roster of so many passes. The page cache is warm.
func startUp(ctx context.Context, dir string, passes int) (time.Duration, error) {
	regPath, jPath := filepath.Join(dir, "registry.db"), filepath.Join(dir, "start.db")
	reg, err := registry.Open(ctx, regPath, registry.Options{Keys: []edge.CredentialKey{siteKey}, Log: discard})
	if err != nil {
		return 0, err
	}
	_, err = reg.Import(ctx, func(yield func(edge.RosterRow, error) bool) {
		for i := range passes {
			row := edge.RosterRow{Pass: edge.Pass{ID: edge.PassID(i + 1), Category: "resident", Status: edge.PassActive, Household: edge.HouseholdID(i/3 + 1)},
				Household: edge.Household{ID: edge.HouseholdID(i/3 + 1)}, Credentials: []edge.Credential{card(i)}}
			if !yield(row, nil) {
				return
			}
		}
	}, registry.ImportOptions{})
	if err = errors.Join(err, reg.Close()); err != nil {
		return 0, err
	}
	began := time.Now()
	if reg, err = registry.Open(ctx, regPath, registry.Options{Keys: []edge.CredentialKey{siteKey}, Log: discard}); err != nil {
		return 0, err
	}
	j, err := journal.Open(ctx, jPath, journal.Options{Community: "bench", Site: "s", Gate: "g", Clock: clock.NewFake(began, 0), Log: discard})
	if err != nil {
		return 0, errors.Join(err, reg.Close())
	}
	pol, err := sample()
	if err == nil {
		var p edge.Pass
		var known bool
		if p, known, err = reg.Lookup(ctx, card(passes/2)); err == nil && !known {
			err = errors.New("the roster that was just imported does not know its passes")
		}
		f := facts(edge.Stamp{Time: began.UnixMilli()}, int(p.ID))
		pol.Decide(f)
	}
	took := time.Since(began)
	return took, errors.Join(err, j.Close(), reg.Close())
}

func card(i int) edge.Credential { return edge.Credential(fmt.Sprintf("em:3C%08X", i)) }

// quantile of durations, which it sorts; p in percent.
func quantile(d []time.Duration, p int) time.Duration {
	if len(d) == 0 {
		return 0
	}
	slices.Sort(d)
	return d[min(len(d)*p/100, len(d)-1)]
}
