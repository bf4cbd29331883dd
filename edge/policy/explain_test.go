package policy

import (
	"flag"
	"fmt"
	"iter"
	"os"
	"slices"
	"strings"
	"testing"

	"pgregory.net/rapid"

	"gatehouse/edge"
	"gatehouse/edge/text"
	firmwareconfig "gatehouse/firmware-config"
)

var update = flag.Bool("update", false, "write the golden files anew")

// under the city, as it would run.
func layered(t testing.TB, name string) *Policy {
	t.Helper()
	src, err := firmwareconfig.Samples.ReadFile("policies/" + name)
	if err != nil {
		t.Fatal(err)
	}
	p, err := Load(name, src, sample(t, "city.yaml"))
	if err != nil {
		t.Fatal(err)
	}
	return p
}

var shipped = []string{"closed-estate.yaml", "home-quarantine.yaml", "normal-times.yaml", "three-tiers.yaml"}

// Every shipped rule is explained in both languages, and no code shows through.
func TestEveryShippedReasonIsExplained(t *testing.T) {
	c, err := text.New()
	if err != nil {
		t.Fatal(err)
	}
	facts := &edge.Facts{Lane: edge.LaneFacts{Direction: edge.In}}
	for _, name := range shipped {
		p := layered(t, name)
		for _, l := range p.layers {
			for _, r := range l.rules {
				o := max(r.then, r.atMost)
				for _, lang := range []string{"zh-Hans", "en"} {
					e := p.Explain(facts, edge.Decision{Outcome: o, Rule: r.id, Reason: r.reason, Authority: r.authority.String()}, c.For(lang))
					if strings.Contains(e.Sentence, "explain.") || strings.Contains(e.Sentence, "reason.") || !strings.Contains(e.Sentence, c.For(lang).T("reason."+string(r.reason))) || e.Superior == "" {
						t.Errorf("%s in %s: %q, %q", r.id, lang, e.Sentence, e.Superior)
					}
					if !c.For(lang).Has("reason." + string(r.reason)) {
						t.Errorf("%s has no sentence in %s", r.reason, lang)
					}
				}
				for _, f := range r.reads {
					if strings.HasPrefix(f, "parameters.") || slices.ContainsFunc(fixed, func(x string) bool { return strings.HasPrefix(f, x) }) {
						continue
					}
					if !c.For("zh-Hans").Has("fact."+f) || !c.For("en").Has("fact."+f) {
						t.Errorf("%s: the fact %s has no name", r.id, f)
					}
				}
			}
		}
	}
}

// The explanations of the samples' own cases, both languages, as they read.
func TestExplanationsGolden(t *testing.T) {
	c, err := text.New()
	if err != nil {
		t.Fatal(err)
	}
	var b strings.Builder
	for _, name := range shipped {
		p := layered(t, name)
		for i, f := range p.samples {
			d := p.Decide(f)
			fmt.Fprintf(&b, "%s %d %s\n", name, i, d.Rule)
			for _, lang := range []string{"zh-Hans", "en"} {
				e := p.Explain(f, d, c.For(lang))
				fmt.Fprintln(&b, "  "+e.Sentence)
				for _, x := range e.Counter {
					fmt.Fprintln(&b, "    "+x)
				}
				fmt.Fprintln(&b, "  "+e.Superior)
			}
		}
	}
	golden(t, "testdata/explanations.txt", b.String())
}

func golden(t *testing.T, file, got string) {
	t.Helper()
	if *update {
		if err := os.WriteFile(file, []byte(got), 0o644); err != nil {
			t.Fatal(err)
		}
		return
	}
	want, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	if string(want) != got {
		t.Errorf("%s differs from what is made now (-update writes it anew); now:\n%s", file, got)
	}
}

func TestExplainSaysWhatWouldHaveChangedIt(t *testing.T) {
	c, err := text.New()
	if err != nil {
		t.Fatal(err)
	}
	p := layered(t, "closed-estate.yaml")
	f := &edge.Facts{Pass: &edge.PassFacts{ID: 1, Category: "resident", Status: edge.PassActive}, Household: &edge.HouseholdFacts{ID: 5}, Temperature: &edge.TemperatureFacts{State: edge.TempOK, Band: edge.BandBelow},
		Lane: edge.LaneFacts{Level: edge.LevelEstate, Direction: edge.Out}, Counters: map[string]edge.CounterFact{"household_exits": {N: 1}},
		Time: edge.TimeFactsOf(edge.Stamp{Time: 1772420400000, Offset: 480, Clock: edge.ClockSynced})}
	before := fmt.Sprintf("%+v", *f)
	e := p.Explain(f, p.Decide(f), c.For("en"))
	all := strings.Join(e.Counter, "\n")
	for _, want := range []string{"the household's exits: 0", "the purpose: medical"} {
		if !strings.Contains(all, want) {
			t.Errorf("%q is not among:\n%s", want, all)
		}
	}
	if !strings.Contains(e.Superior, c.For("en").T("outcome.admit")) || e.Outcome != edge.Deny || !strings.Contains(e.Sentence, "quota") {
		t.Errorf("%+v", e)
	}
	if after := fmt.Sprintf("%+v", *f); after != before {
		t.Error("explaining changed the facts")
	}
	if e := p.Explain(f, edge.Decision{Outcome: edge.Admit, Rule: "resident", Reason: "resident"}, c.For("en")); !strings.Contains(e.Sentence, "not the ones that were in force") {
		t.Errorf("another decision is explained as if it were this policy's: %s", e.Sentence)
	}
	night := *f
	night.Pass = &edge.PassFacts{ID: 1, Category: "courier", Status: edge.PassActive}
	night.Time = edge.TimeFactsOf(edge.Stamp{Time: 1772467800000, Offset: 480, Clock: edge.ClockSynced}) // 00:10
	if e := p.Explain(&night, p.Decide(&night), c.For("zh")); !strings.Contains(strings.Join(e.Counter, "\n"), "06:30") {
		t.Errorf("the curfew's end is not named: %v", e.Counter)
	}
}

func entries(fs []*edge.Facts, by *Policy) (out []*edge.Entry) {
	for _, f := range fs {
		d := by.Decide(f)
		out = append(out, &edge.Entry{Kind: edge.KindDecision, Stamp: f.Time.Stamp, Policy: d.Policy, Outcome: d.Outcome, Rule: d.Rule, Reason: d.Reason, Facts: f})
	}
	return out
}

// Replay by the policy that decided equals the original, through the entry's bytes.
func TestReplayEqualsTheOriginal(t *testing.T) {
	var ps []*Policy
	for _, name := range shipped {
		ps = append(ps, layered(t, name))
	}
	rapid.Check(t, func(rt *rapid.T) {
		f := drawn(rt)
		for _, p := range ps {
			e := entries([]*edge.Facts{f}, p)[0]
			line, err := e.AppendJSON(nil)
			if err != nil {
				rt.Fatal(err)
			}
			back, err := edge.DecodeEntry(line)
			if err != nil {
				rt.Fatal(err)
			}
			again := p.Decide(back.Facts)
			if again.Rule != e.Rule || again.Outcome != e.Outcome {
				rt.Fatalf("was %s by %s, is %s by %s\n%s", e.Outcome, e.Rule, again.Outcome, again.Rule, line)
			}
			rep := p.Replay(numbered([]*edge.Entry{back}), func(string) *Policy { return p })
			if rep.Same != 1 || rep.Entries != 1 {
				rt.Fatalf("%+v", rep)
			}
		}
	})
}

func TestReplayCountsDifferencesAndWhatItCannotTell(t *testing.T) {
	was := sample(t, "closed-estate.yaml")
	src, err := firmwareconfig.Samples.ReadFile("policies/closed-estate.yaml")
	if err != nil {
		t.Fatal(err)
	}
	next := func(from, to string) *Policy {
		if !strings.Contains(string(src), from) {
			t.Fatalf("%q is not in the sample", from)
		}
		text, _, _ := strings.Cut(strings.Replace(string(src), from, to, 1), "\ncases:")
		p, err := Load("next.yaml", []byte(text))
		if err != nil {
			t.Fatal(err)
		}
		return p
	}
	var fs []*edge.Facts
	for _, f := range was.samples {
		c := *f
		if c.Counters == nil { // as a gate would have recorded it
			c.Counters = map[string]edge.CounterFact{"household_exits": {}}
		}
		fs = append(fs, &c)
	}
	es := entries(fs, was)
	es = append(es, &edge.Entry{Kind: edge.KindPassage}, &edge.Entry{Kind: edge.KindDecision, Outcome: edge.Admit})
	known := func(hash string) *Policy {
		if hash == was.hash {
			return was
		}
		return nil
	}
	lax := next("{id: quarantine, title: Home quarantine, scope: {direction: out}", "{id: quarantine, title: Home quarantine, scope: {direction: in}")
	rep := lax.Replay(numbered(es), known)
	if rep.Entries != len(was.samples) || rep.Different != 1 || rep.CannotTell != 0 || rep.Same != rep.Entries-1 {
		t.Errorf("%+v", rep)
	}
	if d := rep.Differences[0]; d.WasRule != "quarantine" || d.Was != edge.Deny || d.Outcome != edge.Admit || d.Category != "resident" || d.Count != 1 {
		t.Errorf("%+v", d)
	}
	// Another threshold: of a band it cannot be told what it would have been.
	if rep := next("threshold: 37.3", "threshold: 37.5").Replay(numbered(es), known); rep.CannotTell == 0 || rep.Missing["temperature.band"] == 0 {
		t.Errorf("another threshold: %+v", rep)
	}
	if rep := next("every: 48h", "every: 24h").Replay(numbered(es), known); rep.Missing["counters.household_exits.n"] == 0 {
		t.Errorf("another window: %+v", rep)
	}
	if rep := lax.Replay(numbered(es), func(string) *Policy { return nil }); rep.CannotTell == 0 {
		t.Errorf("nobody knows what was recorded: %+v", rep)
	}
	// A value that nobody ordered then was not kept.
	if rep := next("remeasures: 2", "remeasures: 2\n  value: {basis: Order 7}").Replay(numbered(es), known); rep.CannotTell != 0 {
		t.Errorf("a value that no rule reads is needed: %+v", rep)
	}
	valued := strings.Replace(string(src), "remeasures: 2", "remeasures: 2\n  value: {basis: Order 7}", 1)
	valued, _, _ = strings.Cut(strings.Replace(valued, "temperature.band == 'above' && temperature.second == ''", "temperature.value > 37.9", 1), "\ncases:")
	p, err := Load("valued.yaml", []byte(valued))
	if err != nil {
		t.Fatal(err)
	}
	if rep := p.Replay(numbered(es), known); rep.Missing["temperature.value"] == 0 {
		t.Errorf("a value that was not kept: %+v", rep)
	}
}

func numbered(es []*edge.Entry) iter.Seq2[uint64, *edge.Entry] {
	return func(yield func(uint64, *edge.Entry) bool) {
		for i, e := range es {
			if !yield(uint64(i), e) {
				return
			}
		}
	}
}
