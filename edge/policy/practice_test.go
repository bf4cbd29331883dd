package policy

import (
	"os"
	"slices"
	"strings"
	"testing"
	"time"

	"gatehouse/device/options"
	"gatehouse/edge"
	firmwareconfig "gatehouse/firmware-config"
)

// practised is a shipped sample with more cases; they hold alone and beneath the
// city, or it does not load.
func practised(t *testing.T, sampleName, cases string) (p *Policy, names []string) {
	t.Helper()
	src, err := firmwareconfig.Samples.ReadFile("policies/" + sampleName)
	if err != nil {
		t.Fatal(err)
	}
	if cases != "" {
		more, err := os.ReadFile("testdata/" + cases)
		if err != nil {
			t.Fatal(err)
		}
		_, list, ok := strings.Cut(string(more), "cases:\n")
		if !ok {
			t.Fatalf("%s has no cases", cases)
		}
		src = append(src, list...) // the cases stand last in every sample
	}
	if p, err = Load(sampleName, src); err != nil {
		t.Fatal(err)
	}
	if _, err = Load(sampleName, src, sample(t, "city.yaml")); err != nil {
		t.Fatal(err)
	}
	root, err := options.Parse(sampleName, src)
	if err != nil {
		t.Fatal(err)
	}
	for _, c := range root.At("cases").Items() {
		names = append(names, c.At("name").Text())
	}
	return p, names
}

// What communities really enforced, line by line, is expressible as data: the
// shipped samples decide all of it. Each line names the cases that show it.
func TestPracticeAsData(t *testing.T) {
	estate, inEstate := practised(t, "closed-estate.yaml", "practice.yaml")
	_, inQuarantine := practised(t, "home-quarantine.yaml", "practice-quarantine.yaml")
	_, inTiers := practised(t, "three-tiers.yaml", "")
	at := edge.Stamp{Time: time.Date(2026, 3, 2, 2, 0, 0, 0, time.UTC).UnixMilli(), Offset: 480, Clock: edge.ClockSynced}
	resident := func(d edge.Direction, purpose string) *edge.Facts {
		f := &edge.Facts{Pass: &edge.PassFacts{ID: 1, Category: "resident", Status: edge.PassActive}, Household: &edge.HouseholdFacts{ID: 5},
			Temperature: &edge.TemperatureFacts{State: edge.TempOK, Band: edge.BandBelow}, Lane: edge.LaneFacts{Level: edge.LevelEstate, Direction: d}, Time: edge.TimeFactsOf(at)}
		if purpose != "" {
			f.Guard = &edge.GuardFacts{Purpose: purpose, Proof: purpose}
		}
		return f
	}
	for _, line := range []struct {
		n     int
		of    []string
		cases []string
		more  func(t *testing.T)
	}{
		{1, inEstate, []string{"resident with a normal temperature comes home", "an outsider", "an outsider's vehicle"}, nil},
		{2, inEstate, []string{"second exit of a household inside two days", "a medical exit leaves the quota", "duty exit, quota untouched"}, func(t *testing.T) {
			for purpose, counted := range map[string]int{"": 1, "medical": 0, "duty": 0} {
				if got := len(estate.Reserve(resident(edge.Out, purpose))); got != counted {
					t.Errorf("an exit for %q counts %d times", purpose, got)
				}
			}
		}},
		{3, inQuarantine, []string{"quarantine holds whatever the quota", "an unannounced opening of the door", "a drop was announced, the door may open"}, nil},
		{4, inEstate, []string{"shopping longer than two hours is admitted back", "and the next exit is void"}, func(t *testing.T) {
			f := resident(edge.In, "")
			f.Position = &edge.PositionFacts{At: "outside", Age: 121}
			d := estate.Decide(f)
			if !slices.ContainsFunc(d.Deltas, func(d edge.Delta) bool { return d.Cell.Name == edge.CellMark+"exit_void" && d.Cell.Subject == "h5" }) {
				t.Errorf("the next exit is not void: %+v", d.Deltas)
			}
		}},
		{5, inEstate, []string{"curfew, a resident registers", "curfew, nobody else", "curfew over midnight, a courier", "the curfew is over at half past six"}, nil},
		{6, inEstate, []string{"a vehicle's second trip of the day", "more than one occupant"}, nil},
		{7, inEstate, []string{"a closed gate", "another estate's pass", "a borrowed pass", "a forgotten pass is no denial"}, func(t *testing.T) {
			f := resident(edge.In, "")
			f.Lane.Closed = true
			if d := estate.Decide(f); !strings.Contains(d.Say["en"], "east gate") || !strings.Contains(d.Say["zh-Hans"], "东门") {
				t.Errorf("a closed gate does not say which is open: %q", d.Say)
			}
			f = resident(edge.In, "")
			f.Guard = &edge.GuardFacts{Identity: "mismatch"}
			if d := estate.Decide(f); !slices.Contains(d.Obligations, "incident") {
				t.Errorf("a borrowed pass is no incident: %v", d.Obligations)
			}
			f = resident(edge.In, "")
			f.Pass.Held = true
			if d := estate.Decide(f); !slices.Contains(d.Obligations, "register") || d.Timeout == edge.Deny {
				t.Errorf("a forgotten pass: %v, silence %s", d.Obligations, d.Timeout)
			}
		}},
		{8, inEstate, []string{"at the threshold on the way in", "second instrument normal", "second instrument still high", "no mask", "a worn mask, confirmed"}, nil},
		{9, inEstate, []string{"a yellow code", "a red code", "a green code", "an elder's green paper code"}, nil},
		{10, inEstate, []string{"a visitor with a test of 72 hours", "a visitor with a test of 73 hours", "a visitor whose host says no", "a visitor whose host was not asked", "a resident without a test"}, nil},
		{11, inEstate, []string{"a resident discharged from hospital", "released from quarantine, and the card is not the point"}, func(t *testing.T) {
			f := resident(edge.In, "")
			f.Holder = &edge.HolderFacts{Quarantine: "released", Code: "red"}
			if d := estate.Decide(f); d.Outcome == edge.Deny || d.Timeout == edge.Deny {
				t.Errorf("refused: %s, silence %s", d.Outcome, d.Timeout)
			}
		}},
		{11, inQuarantine, []string{"released, refusal is forbidden"}, nil},
		{12, inEstate, []string{"a courier from a low-risk street", "a courier from a medium-risk street", "a courier from a high-risk street", "a worker's first entry", "a worker who was checked once, pass and temperature"}, nil},
		{13, inTiers, []string{"lockdown, nobody leaves", "lockdown, medical need with proof and escort", "control, moving inside", "control, leaving", "prevention, no ban on leaving"}, nil},
		{14, inTiers, nil, func(t *testing.T) {
			src, err := firmwareconfig.Samples.ReadFile("policies/three-tiers.yaml")
			if err != nil {
				t.Fatal(err)
			}
			for days, wantAfter := range map[string]edge.Tier{"7": edge.TierLockdown, "5": edge.TierControl} {
				p, err := Load("p.yaml", []byte(strings.Replace(string(src), "to: control, days: 7", "to: control, days: "+days, 1)))
				if err != nil {
					t.Fatal(err)
				}
				// Six days after the last case in the north.
				now := edge.TimeFactsOf(edge.Stamp{Time: time.Date(2026, 3, 10, 4, 0, 0, 0, time.UTC).UnixMilli(), Offset: 480, Clock: edge.ClockSynced})
				if got := p.AreaAt("north", now).Tier; got != wantAfter {
					t.Errorf("with periods of %s days the north is %s, want %s", days, got, wantAfter)
				}
			}
		}},
		{15, inTiers, []string{"a whitelisted medic with a test of 24 hours enters a risk area", "with a test of 25 hours not"}, func(t *testing.T) {
			const measure = "policy: measure\nversion: 1\nunder: city\nauthority: {by: Office, basis: Notice 9}\nrules:\n  - {id: all, then: admit}\n  - {id: pipes, reason: temporary, scope: {category: courier}, then: deny, authority: {from: 2026-03-02T08:00:00+08:00, until: %}}\n"
			city := sample(t, "city.yaml")
			if _, err := Load("m.yaml", []byte(strings.Replace(measure, "%", "2026-03-03T08:01:00+08:00", 1)), city); err == nil {
				t.Error("a temporary measure of more than a day was taken")
			}
			p, err := Load("m.yaml", []byte(strings.Replace(measure, "%", "2026-03-03T08:00:00+08:00", 1)), city)
			if err != nil {
				t.Fatal(err)
			}
			for hour, want := range map[int]edge.Outcome{7: edge.Admit, 8: edge.Deny, 31: edge.Deny, 32: edge.Admit} {
				f := &edge.Facts{Pass: &edge.PassFacts{Category: "courier", Status: edge.PassActive}, Lane: edge.LaneFacts{Level: edge.LevelEstate, Direction: edge.In},
					Time: edge.TimeFactsOf(edge.Stamp{Time: time.Date(2026, 3, 2, hour, 0, 0, 0, time.FixedZone("", 8*3600)).UnixMilli(), Offset: 480, Clock: edge.ClockSynced})}
				if d := p.Decide(f); d.Outcome != want {
					t.Errorf("%d hours into the day: %s, want %s", hour, d.Outcome, want)
				}
			}
		}},
		{16, inQuarantine, []string{"an evening without the second temperature is followed up", "an evening with one temperature given"}, nil},
		{17, inEstate, nil, func(t *testing.T) {
			// A lane never asks a policy in a fire (edge/lane); here, nothing may reach for it.
			if _, err := Load("p.yaml", []byte(strings.Replace(minimal, "id: d", "id: fire_exit", 1))); err == nil || !strings.Contains(err.Error(), fireLaw) {
				t.Errorf("%v", err)
			}
		}},
	} {
		for _, name := range line.cases {
			if !slices.Contains(line.of, name) {
				t.Errorf("line %d: there is no case %q", line.n, name)
			}
		}
		if line.more != nil {
			line.more(t)
		}
	}
}
