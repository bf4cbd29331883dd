package policycmd

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"testing"

	"github.com/rogpeppe/go-internal/testscript"

	"gatehouse/edge"
	"gatehouse/edge/journal"
	"gatehouse/edge/policy"
	firmwareconfig "gatehouse/firmware-config"
)

func TestMain(m *testing.M) { testscript.Main(m, map[string]func(){"policy": run}) }

const now = 1772420400000 // 2026-03-02T11:00+08:00

type clock struct{}

func (clock) Now() edge.Stamp { return edge.Stamp{Time: now, Offset: 480, Clock: edge.ClockSynced} }

// run is the command on the journal that the environment names.
func run() {
	cmd := New(func(ctx context.Context) (Site, error) {
		j, err := journal.Inspect(ctx, os.Getenv("JOURNAL"))
		if err != nil {
			return Site{}, err
		}
		p, err := inForce()
		return Site{Journal: j, Policy: p, Now: func() int64 { return now }, Close: j.Close}, err
	})
	cmd.SilenceErrors = true
	if err := cmd.Execute(); err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
}

// inForce is the closed estate beneath the city.
func inForce() (*policy.Policy, error) {
	var sources []policy.Source
	for _, name := range []string{"city.yaml", "closed-estate.yaml"} {
		src, err := firmwareconfig.Samples.ReadFile("policies/" + name)
		if err != nil {
			return nil, err
		}
		sources = append(sources, policy.Source{Name: name, Text: src})
	}
	return policy.LoadSet(sources...)
}

func TestScripts(t *testing.T) {
	testscript.Run(t, testscript.Params{Dir: "testdata", RequireExplicitExec: true, Setup: func(e *testscript.Env) error {
		path := filepath.Join(e.WorkDir, "journal.db")
		e.Setenv("JOURNAL", path)
		for _, name := range []string{"city.yaml", "closed-estate.yaml", "home-quarantine.yaml"} {
			src, err := firmwareconfig.Samples.ReadFile("policies/" + name)
			if err != nil {
				return err
			}
			if err := os.WriteFile(filepath.Join(e.WorkDir, name), src, 0o600); err != nil {
				return err
			}
		}
		return write(path)
	}})
}

// write makes a journal: an entry at its start, then three exits of a household.
func write(path string) error {
	ctx := context.Background()
	j, err := journal.Open(ctx, path, journal.Options{Community: "c", Site: "s", Gate: "g", Clock: clock{}})
	if err != nil {
		return err
	}
	p, err := inForce()
	if err != nil {
		return err
	}
	for n := range int64(3) {
		f := &edge.Facts{Pass: &edge.PassFacts{ID: 1, Category: "resident", Status: edge.PassActive}, Household: &edge.HouseholdFacts{ID: 5}, Temperature: &edge.TemperatureFacts{State: edge.TempOK, Band: edge.BandBelow},
			Lane: edge.LaneFacts{Level: edge.LevelEstate, Direction: edge.Out}, Counters: map[string]edge.CounterFact{"household_exits": {N: n}}, Time: edge.TimeFactsOf(clock{}.Now())}
		d := p.Decide(f)
		e := &edge.Entry{Kind: edge.KindDecision, Lane: "out", Of: -1, Stamp: clock{}.Now(), Policy: d.Policy, Engine: policy.EngineVersion, Outcome: d.Outcome, Rule: d.Rule, Reason: d.Reason, Authority: d.Authority, Matched: d.Matched, Facts: f}
		if _, err := j.Append(ctx, e, nil); err != nil {
			return err
		}
	}
	return j.Close()
}
