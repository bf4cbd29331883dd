package policy

import (
	"fmt"
	"strings"
	"testing"
	"time"

	"pgregory.net/rapid"

	"gatehouse/edge"
	firmwareconfig "gatehouse/firmware-config"
)

const upper = `policy: city
version: 1
layer: city
authority: {by: City, basis: Circular 1}
no_match: admit
parameters:
  temperature.threshold: {floor: 37.0, ceiling: 37.5}
  temperature.uncertainty: {floor: 0.2, ceiling: 0.5}
  temperature.remeasures: {ceiling: 3}
  counters.exits.every: {floor: 24h, ceiling: 72h}
  transitions.lockdown.days: {floor: 7}
  quota: {value: 2, floor: 1, ceiling: 3}
lower:
  - {for: pass, direction: in, reads: [pass], at_most: refer}
  - {for: quota, category: resident, uses: [quota]}
  - {for: temporary, within: 24h}
  - {for: tiered, tier: lockdown, level: estate}
counters:
  visits: {of: entries, by: pass, every: day}
transitions:
  - {from: control, to: prevention, days: 3}
tiers: {north: lockdown}
rules:
  - {id: city.medical, kind: protect, when: guard.purpose == 'medical', at_most: admit}
  - {id: city.lost, when: pass.status == 'lost', then: deny}
`

const under = `policy: site
version: 1
layer: site
under: city
authority: {by: Office, basis: Notice 1}
temperature: {threshold: 37.3}
parameters: {quota: 1}
counters:
  exits: {of: exits, by: household, every: 48h}
transitions:
  - {from: lockdown, to: control, days: 7}
tiers: {south: control}
rules:
  - {id: all, then: admit}
  - {id: pass.expired, scope: {direction: in}, when: pass.expired, then: refer}
  - {id: quota, scope: {category: resident}, when: counters.exits.n >= parameters.quota, then: deny}
`

func city(t testing.TB) *Policy {
	t.Helper()
	p, err := Load("city.yaml", []byte(upper))
	if err != nil {
		t.Fatal(err)
	}
	return p
}

func TestWhatGoesOutsideTheLayerAboveIsRefused(t *testing.T) {
	up := city(t)
	if _, err := Load("site.yaml", []byte(under), up); err != nil {
		t.Fatal(err)
	}
	for _, c := range []struct{ name, from, to, want string }{
		{"below the floor", "threshold: 37.3", "threshold: 36.9", "site.yaml:6:26: temperature.threshold: temperature.threshold is 36.9; the layer above wants it between 37.0 and 37.5 (city.yaml:7)"},
		{"above the ceiling", "threshold: 37.3", "threshold: 37.6", "(city.yaml:7)"},
		{"uncertainty", "{threshold: 37.3}", "{uncertainty: 0.6}", "between 0.2 and 0.5 (city.yaml:8)"},
		{"remeasures", "{threshold: 37.3}", "{remeasures: 4}", "at most 3 (city.yaml:9)"},
		{"named parameter", "quota: 1", "quota: 0", "quota is 0; the layer above wants it between 1 and 3 (city.yaml:12)"},
		{"type of a parameter", "quota: 1", "quota: 1.5", "is a whole number in the layer above"},
		{"range widened", "{quota: 1}", "{quota: {value: 1, floor: 1, ceiling: 9}}", "a layer does not widen that"},
		{"counter's window", "every: 48h", "every: 96h", "counters.exits.every is 96; the layer above wants it between 24h and 72h (city.yaml:10)"},
		{"counter redeclared", "counters:", "counters:\n  visits: {of: exits, by: pass, every: day}", `counter "visits" is declared otherwise in the layer above`},
		{"clean days", "days: 7", "days: 6", "transitions.lockdown.days is 6; the layer above wants it at least 7 (city.yaml:11)"},
		{"tier", "south: control", "north: normal", `the tier of "north" is the layer's above (city.yaml:22)`},
		{"kind not listed", "id: all, then: admit", "id: mask, when: guard.mask == 'no', then: deny", `site.yaml:14:6: rules[0]: rule "mask": it restricts for the reason "mask", and the layer above does not list that kind (city.yaml:14)`},
		{"kind too strict", "when: pass.expired, then: refer", "when: pass.expired, then: deny", `rule "pass.expired": the layer above allows this kind of rule only up to refer (city.yaml:14)`},
		{"kind's direction", "id: pass.expired, scope: {direction: in}", "id: pass.expired", "only for the direction in (city.yaml:14)"},
		{"kind's facts", "when: pass.expired", "when: holder.code == 'red'", "only where it does not look at holder.code (city.yaml:14)"},
		{"kind's category", "scope: {category: resident}", "scope: {category: worker}", "only for the category resident (city.yaml:15)"},
		{"kind's parameter", ">= parameters.quota", ">= 1", "only where it looks at quota (city.yaml:15)"},
		{"temporary without end", "id: all, then: admit", "id: temporary, then: deny", "only with an authority that begins and ends within 24h0m0s (city.yaml:16)"},
		{"temporary for two days", "id: all, then: admit", "id: temporary, then: deny, authority: {from: 2026-03-01, until: 2026-03-02}", "(city.yaml:16)"},
		{"kind's tier", "id: all, then: admit", "id: tiered, then: deny", "only at the level estate (city.yaml:17)"},
		{"a superior's rule", "id: all", "id: city.lost", `rule "city.lost" stands in the layer above already (city.yaml:25)`},
		{"values kept", "{threshold: 37.3}", "{value: {basis: Order 9}}", "does not order that values of temperatures are kept (city.yaml)"},
		{"same layer", "layer: site\nunder: city", "layer: city", `the layer "city" stands above already (city.yaml): layers make no circle`},
		{"other superior", "under: city", "under: nation", `it is to stand under "nation" and is loaded under "city"`},
		{"under itself", "under: city", "under: site", "does not stand under itself"},
		{"stricter with time", "from: lockdown, to: control, days: 7", "from: control, to: lockdown, days: 7", "leads to a milder tier"},
		{"no such tier", "south: control", "south: medium", `"medium" is not one of lockdown`},
		{"cases without a day", "south: control", "south: {tier: control, cases: [2026-03-01]}", "cases need since"},
		{"not a date", "south: control", "south: {tier: control, since: tomorrow}", "is not a date like"},
		{"not a number", "quota: 1", "quota: some", "neither a number nor a duration"},
		{"built-in with a value", "quota: 1", "temperature.threshold: 37.2", "has its value where it stands"},
		{"misspelt number", "quota: 1", "temperature.treshold: {floor: 37}", `a policy has no number "temperature.treshold", did you mean "temperature.threshold"?`},
		{"no such number", "quota: 1", "counters.exits.limit: {floor: 1}", `a policy has no number "counters.exits.limit"`},
		{"parameter's name", "quota: 1", "Quota-1: 1", "a parameter's name is of"},
		{"parameter without value", "quota: 1", "other: {floor: 1}", `parameter "other" has no value`},
		{"outside its own range", "quota: 1", "other: {value: 3, ceiling: 2}", "3 is not at most 2"},
		{"upside down", "quota: 1", "other: {value: 3, floor: 4, ceiling: 2}", "the floor is above the ceiling"},
		{"no range", "quota: 1", "other: {value: 3}", "a floor, a ceiling or both"},
		{"kind of rule there is not", "parameters:", "lower: [{level: street}]\nparameters:", "a level, direction, tier or outcome (at_most) that there is not"},
		{"two transitions", "transitions:", "transitions:\n  - {from: lockdown, to: normal, days: 9}", "two transitions from lockdown"},
	} {
		t.Run(c.name, func(t *testing.T) {
			src := strings.Replace(under, c.from, c.to, 1)
			if src == under {
				t.Fatal("the case changes nothing")
			}
			_, err := Load("site.yaml", []byte(src), up)
			if err == nil || !strings.Contains(err.Error(), c.want) || !strings.Contains(err.Error(), "site.yaml:") {
				t.Errorf("error %v\nwant %q", err, c.want)
			}
		})
	}
	if _, err := Load("site.yaml", []byte(under)); err == nil || !strings.Contains(err.Error(), `its superior "city" is not loaded`) {
		t.Errorf("without its superior: %v", err)
	}
	none := strings.Replace(upper, upper[strings.Index(upper, "lower:"):strings.Index(upper, "counters:\n")], "", 1)
	p, err := Load("strict.yaml", []byte(none))
	if err != nil {
		t.Fatal(err)
	}
	if _, err := Load("site.yaml", []byte(under), p); err == nil || !strings.Contains(err.Error(), "lets nobody below restrict (strict.yaml)") {
		t.Errorf("beneath a layer that grants nothing: %v", err)
	}
	lone, err := Load("p.yaml", []byte(minimal))
	if err != nil {
		t.Fatal(err)
	}
	if _, err := Load("site.yaml", []byte(under), lone, up); err == nil || !strings.Contains(err.Error(), "was not loaded beneath the others") {
		t.Errorf("superiors that do not belong together: %v", err)
	}
}

func TestLayersInACircle(t *testing.T) {
	part := func(layer, under string) Source {
		return Source{layer + ".yaml", fmt.Appendf(nil, "policy: p\nversion: 1\nlayer: %s\nunder: %s\nrules: [{id: %s, then: admit}]\n", layer, under, layer)}
	}
	if _, err := LoadSet(part("a", "b"), part("b", "a")); err == nil || !strings.Contains(err.Error(), `a.yaml: its layer "a" stands under "b", in a circle`) {
		t.Errorf("circle: %v", err)
	}
	if _, err := LoadSet(part("a", "b"), part("a", "b")); err == nil || !strings.Contains(err.Error(), "is a.yaml already") {
		t.Errorf("twice: %v", err)
	}
	if _, err := LoadSet(); err == nil {
		t.Error("no policy at all")
	}
	p, err := LoadSet(Source{"site.yaml", []byte(under)}, Source{"city.yaml", []byte(upper)})
	if err != nil {
		t.Fatal(err)
	}
	if l := p.Layers(); len(l) != 2 || l[0].Layer != "city" || l[1].Name != "site.yaml" || l[0].Hash == l[1].Hash {
		t.Errorf("layers %+v", l)
	}
}

func TestLayersDecideTogether(t *testing.T) {
	up := city(t)
	p, err := Load("site.yaml", []byte(under), up)
	if err != nil {
		t.Fatal(err)
	}
	if alone, _ := Load("site.yaml", []byte(strings.Replace(under, "under: city\n", "", 1)), up); alone == nil || alone.Hash() == p.Hash() || up.Hash() == p.Hash() {
		t.Error("other rules have the same hash")
	}
	now := edge.TimeFactsOf(edge.Stamp{Time: 1772420400000, Offset: 480, Clock: edge.ClockSynced})
	person := func(change func(*edge.Facts)) *edge.Facts {
		f := &edge.Facts{Pass: &edge.PassFacts{ID: 1, Category: "resident", Status: edge.PassActive}, Household: &edge.HouseholdFacts{ID: 2},
			Lane: edge.LaneFacts{Direction: edge.In}, Time: now}
		change(f)
		return f
	}
	for _, c := range []struct {
		name    string
		f       *edge.Facts
		outcome edge.Outcome
		rule    string
		layer   string
	}{
		{"admitted by the site", person(func(*edge.Facts) {}), edge.Admit, "all", "site"},
		{"the superior's restriction applies", person(func(f *edge.Facts) { f.Pass.Status = edge.PassLost }), edge.Deny, "city.lost", "city"},
		{"the site's quota, chosen inside", person(func(f *edge.Facts) { f.Counters = map[string]edge.CounterFact{"exits": {N: 1}} }), edge.Deny, "quota", "site"},
		{"the superior's protection caps the site's rule", person(func(f *edge.Facts) {
			f.Counters, f.Guard = map[string]edge.CounterFact{"exits": {N: 1}}, &edge.GuardFacts{Purpose: "medical"}
		}), edge.Admit, "city.medical", "city"},
	} {
		d := p.Decide(c.f)
		if d.Outcome != c.outcome || d.Rule != c.rule {
			t.Errorf("%s: %s by %s", c.name, d.Outcome, d.Rule)
		}
		for _, m := range d.Matched {
			if m.Rule == c.rule && m.Layer != c.layer {
				t.Errorf("%s: %s is of layer %q", c.name, m.Rule, m.Layer)
			}
		}
	}
}

func TestTiersMoveWithCasesAndCleanDays(t *testing.T) {
	p := sample(t, "three-tiers.yaml")
	at := func(date string, clock edge.ClockState) edge.TimeFacts {
		when, err := time.Parse(time.RFC3339, date+"T00:30:00+08:00")
		if err != nil {
			t.Fatal(err)
		}
		return edge.TimeFactsOf(edge.Stamp{Time: when.UnixMilli(), Offset: 480, Clock: clock})
	}
	for _, c := range []struct {
		area, date string
		clock      edge.ClockState
		want       edge.AreaFacts
	}{
		{"north", "2026-03-01", edge.ClockSynced, edge.AreaFacts{Tier: edge.TierLockdown}},
		{"north", "2026-03-10", edge.ClockSynced, edge.AreaFacts{Tier: edge.TierLockdown, Days: 9}}, // a case on the 4th
		{"north", "2026-03-11", edge.ClockSynced, edge.AreaFacts{Tier: edge.TierControl}},
		{"north", "2026-03-13", edge.ClockSynced, edge.AreaFacts{Tier: edge.TierControl, Days: 2}},
		{"north", "2026-03-14", edge.ClockSynced, edge.AreaFacts{Tier: edge.TierPrevention}},
		{"north", "2026-05-14", edge.ClockUnset, edge.AreaFacts{Tier: edge.TierLockdown, Days: 74}}, // nothing relaxes by an unknown clock
		{"south", "2026-03-04", edge.ClockSynced, edge.AreaFacts{Tier: edge.TierPrevention}},
		{"east", "2026-03-04", edge.ClockSynced, edge.AreaFacts{Tier: edge.TierPrevention}},
		{"elsewhere", "2026-03-04", edge.ClockSynced, edge.AreaFacts{Tier: edge.TierNormal}},
	} {
		if got := p.AreaAt(c.area, at(c.date, c.clock)); got != c.want {
			t.Errorf("%s on %s: %+v, want %+v", c.area, c.date, got, c.want)
		}
	}
	// A case turns a control area into a lockdown area, and the days begin anew.
	src, err := firmwareconfig.Samples.ReadFile("policies/three-tiers.yaml")
	if err != nil {
		t.Fatal(err)
	}
	q, err := Load("p.yaml", []byte(strings.Replace(string(src), "south: {tier: control, since: 2026-03-01}", "south: {tier: control, since: 2026-03-01, cases: [2026-03-03]}", 1)))
	if err != nil {
		t.Fatal(err)
	}
	f := &edge.Facts{Area: &edge.AreaFacts{Tier: q.Tier("south")}, Lane: edge.LaneFacts{Area: "south", Direction: edge.Out}, Time: at("2026-03-04", edge.ClockSynced)}
	q.Fill(f, nil, nil)
	if *f.Area != (edge.AreaFacts{Tier: edge.TierLockdown, Days: 1}) {
		t.Errorf("the day after a case: %+v", *f.Area)
	}
}

// The sample layers hold together: every sample loads beneath the city's.
func TestSamplesStandUnderTheCity(t *testing.T) {
	up := sample(t, "city.yaml")
	for _, name := range []string{"closed-estate.yaml", "three-tiers.yaml", "home-quarantine.yaml", "normal-times.yaml"} {
		src, err := firmwareconfig.Samples.ReadFile("policies/" + name)
		if err != nil {
			t.Fatal(err)
		}
		if n := strings.Count(string(src), "\n"); n >= 200 {
			t.Errorf("%s has %d lines", name, n)
		}
		if _, err := Load(name, src, up); err != nil {
			t.Error(err)
		}
	}
}

// drawn makes random facts that exercise the sample rules.
func drawn(rt *rapid.T) *edge.Facts {
	pick := func(label string, of ...string) string { return rapid.SampledFrom(of).Draw(rt, label) }
	f := &edge.Facts{Lane: edge.LaneFacts{Level: edge.Level(pick("level", "estate", "building", "household")), Direction: edge.Direction(pick("direction", "in", "out")), Closed: rapid.Bool().Draw(rt, "closed")},
		Time: edge.TimeFactsOf(edge.Stamp{Time: 1772380800000 + rapid.Int64Range(0, 700*86_400_000).Draw(rt, "t"), Offset: 480, Clock: edge.ClockState(pick("clock", "synced", "unset"))})}
	if rapid.Bool().Draw(rt, "pass") {
		f.Pass = &edge.PassFacts{ID: 1, Category: pick("category", "resident", "worker", "medic", "courier", "visitor"), Status: edge.PassStatus(pick("status", "active", "active", "suspended", "lost", "foreign")),
			Expired: rapid.Bool().Draw(rt, "expired"), OffHours: rapid.Bool().Draw(rt, "off")}
		f.Household = &edge.HouseholdFacts{ID: 2, Quarantine: rapid.Bool().Draw(rt, "hq")}
		f.Holder = &edge.HolderFacts{Quarantine: pick("q", "", "home", "released"), Code: pick("code", "", "green", "red")}
	}
	if rapid.Bool().Draw(rt, "temperature") {
		f.Temperature = &edge.TemperatureFacts{State: edge.TempOK, Band: edge.Band(pick("band", "below", "near", "above")), Second: edge.Band(pick("second", "", "below", "above"))}
	}
	if rapid.Bool().Draw(rt, "guard") {
		f.Guard = &edge.GuardFacts{Purpose: pick("purpose", "", "medical", "duty"), Proof: pick("proof", "", "medical", "discharge"), Mask: edge.Confirmation(pick("mask", "", "yes", "no")), Identity: pick("identity", "", "known", "mismatch")}
	}
	f.Area = &edge.AreaFacts{Tier: edge.Tier(pick("tier", "lockdown", "control", "prevention", "normal"))}
	f.Counters = map[string]edge.CounterFact{"household_exits": {N: rapid.Int64Range(0, 3).Draw(rt, "n")}}
	return f
}

// A layer never admits what its superior denies, a superior's protection is never
// overruled from below, decisions repeat, and no expired rule restricts.
func TestLayersHold(t *testing.T) {
	up := sample(t, "city.yaml")
	var below []*Policy
	for _, name := range []string{"closed-estate.yaml", "three-tiers.yaml", "home-quarantine.yaml"} {
		src, err := firmwareconfig.Samples.ReadFile("policies/" + name)
		if err != nil {
			t.Fatal(err)
		}
		p, err := Load(name, src, up)
		if err != nil {
			t.Fatal(err)
		}
		below = append(below, p)
	}
	rapid.Check(t, func(rt *rapid.T) {
		f := drawn(rt)
		above := up.Decide(f)
		for _, p := range below {
			d := p.Decide(f)
			if again := p.Decide(f); fmt.Sprint(again) != fmt.Sprint(d) {
				rt.Fatalf("two decisions on the same facts:\n%+v\n%+v", d, again)
			}
			if d.Outcome.Strictness() < above.Outcome.Strictness() {
				rt.Fatalf("%s: %s by %s, its superior says %s by %s", p.id, d.Outcome, d.Rule, above.Outcome, above.Rule)
			}
			for _, m := range d.Matched {
				for i, l := range p.layers {
					for _, r := range l.rules {
						if r.id != m.Rule {
							continue
						}
						if !r.authority.in(f.Time) {
							rt.Fatalf("%s is not in force and matched", r.id)
						}
						// Where the highest layer protects, nobody below is stricter.
						if i == 0 && r.kind == "protect" && d.Outcome.Strictness() > max(r.atMost.Strictness(), above.Outcome.Strictness()) {
							rt.Fatalf("%s protects, and %s says %s", r.id, d.Rule, d.Outcome)
						}
						if r.kind == "protect" && d.Outcome == edge.Refer && d.Timeout == edge.Deny {
							rt.Fatalf("%s protects, and silence denies", r.id)
						}
					}
				}
			}
		}
	})
}
