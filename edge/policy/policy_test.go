package policy

import (
	"strings"
	"testing"

	"gatehouse/device"
	"gatehouse/edge"
	firmwareconfig "gatehouse/firmware-config"
)

func sample(t testing.TB, name string) *Policy {
	t.Helper()
	src, err := firmwareconfig.Samples.ReadFile("policies/" + name)
	if err != nil {
		t.Fatal(err)
	}
	p, err := Load(name, src)
	if err != nil {
		t.Fatal(err)
	}
	return p
}

func TestSamplesLoadAndTheirCasesHold(t *testing.T) {
	entries, err := firmwareconfig.Samples.ReadDir("policies")
	if err != nil {
		t.Fatal(err)
	}
	for _, e := range entries {
		if p := sample(t, e.Name()); p.Cases() < 3 {
			t.Errorf("%s has %d cases", e.Name(), p.Cases())
		}
	}
}

const minimal = `policy: p
version: 1
authority: {by: Office, basis: Notice 1}
rules:
  - {id: r, when: "pass.category == 'resident'", then: admit}
  - {id: d, when: "pass.expired", then: deny}
`

func TestRefused(t *testing.T) {
	for _, c := range []struct{ name, from, to, want string }{
		{"misspelt fact", "pass.expired", "pass.expird", `p.yaml:6:19: rules[1].when: no fact is called "pass.expird", did you mean "pass.expired"?`},
		{"wrong type", `"pass.expired"`, `"pass.party"`, `a condition is true or false; "pass.party" is int`},
		{"type clash", "pass.category == 'resident'", "pass.category == 3", `found no matching overload`},
		{"no authority", "authority: {by: Office, basis: Notice 1}\n", "", `rule "d" restricts and does not say who ordered it on what basis`},
		{"unknown outcome", "then: deny", "then: forbid", `then is one of admit`},
		{"twice", "id: d", "id: r", `rule "r" stands in line 5 already`},
		{"key", "version: 1", "version: 1\ncuonters: {}", `unknown key "cuonters", did you mean "counters"?`},
		{"costly", `"pass.expired"`, `"pass.groups.all(a, pass.groups.all(b, pass.groups.all(c, pass.groups.exists(d, d == a + b + c))))"`, `more than 20000`},
		{"long", `"pass.expired"`, `"` + strings.Repeat("pass.expired || ", 300) + `true"`, `p.yaml:6`},
		{"value without basis", "version: 1", "version: 1\ntemperature: {value: {basis: ''}}", `needs the basis that orders it`},
		{"value not ordered", "pass.expired", "temperature.value > 37.0", `no fact is called "temperature.value"`},
		{"own home", "version: 1", "version: 1\nrefer_timeout: {resident: deny}", `never times out to deny`},
		{"slot", "when: \"pass.expired\"", "scope: {slot: 25:00-26:00}", `hours as in 22:30-06:30`},
		{"fire", "id: d", "id: fire_exit", `p.yaml:6:6: rules[1]: rule "fire_exit": fire egress is above every policy`},
		{"fire as a reason", "id: d,", "id: d, reason: fire,", `fire egress is above every policy`},
		{"fire as a fact", `"pass.expired"`, `"lane.fire"`, `no fact is called "lane.fire": fire egress is above every policy`},
		{"fire as a parameter", "version: 1", "version: 1\nparameters: {fire_minutes: 3}", `p.yaml:3:28: parameters.fire_minutes: "fire_minutes": fire egress`},
		{"fire as a mark", "id: d,", "id: d, marks: [{set: no_fire, on: pass, for: 1h}],", `fire egress is above every policy`},
		{"who leaves under a plan for fires", `"pass.expired"`, `"plan.name == 'fire' && pass.expired"`, `restricts who leaves under the plan "fire"`},
		{"said in a language that there is not", "id: d,", "id: d, say: {zh: 请走北门},", `"zh" is not a language of the display`},
		{"said to everybody's ears", "id: d,", "id: d, say: {en: You have a fever},", `"fever" does not belong on a screen`},
		{"said at length", "id: d,", "id: d, say: {en: " + strings.Repeat("x", 81) + "},", `one line of 1 to 80 characters`},
		{"identity number", "version: 1", "version: 1\ntitle: 11010519491231002X", `p.yaml:3: it looks as if this line had an identity number`},
		{"telephone", "version: 1", "version: 1\ntitle: call 13800138000", `a telephone number`},
		{"passport", "version: 1", "version: 1\ntitle: holder of E12345678", `a passport number`},
		{"name", "version: 1", "version: 1\ntitle: 王小明先生不得入内", `a person's name`},
		{"one person", `"pass.expired"`, `"pass.id == 17"`, `a rule about one person`},
		{"case fails", "rules:", "cases:\n  - {name: x, facts: {lane: {level: estate, direction: in}}, want: admit}\nrules:", `case "x": want admit, got refer by rule "no_match"`},
		{"case with unknown fact", "rules:", "cases:\n  - {name: x, facts: {lane: {levl: estate}}, want: admit}\nrules:", `case "x"`},
		{"until before from", "basis: Notice 1}", "basis: Notice 1, from: 2026-05-01, until: 2026-04-01}", `is not after from`},
	} {
		t.Run(c.name, func(t *testing.T) {
			src := strings.Replace(minimal, c.from, c.to, 1)
			if src == minimal {
				t.Fatal("the case changes nothing")
			}
			_, err := Load("p.yaml", []byte(src))
			if err == nil || !strings.Contains(err.Error(), c.want) || !strings.Contains(err.Error(), "p.yaml:") {
				t.Errorf("error %v\nwant %q", err, c.want)
			}
		})
	}
}

func TestExpiredRuleDeniesNobody(t *testing.T) {
	p, err := Load("p.yaml", []byte(`policy: p
version: 1
authority: {by: Office, basis: Notice 1}
rules:
  - {id: all, then: admit}
  - {id: ban, then: deny, authority: {until: 2026-03-01}}
`))
	if err != nil {
		t.Fatal(err)
	}
	facts := func(ms int64) *edge.Facts {
		return &edge.Facts{Lane: edge.LaneFacts{Direction: edge.In}, Time: edge.TimeFactsOf(edge.Stamp{Time: ms, Offset: 480, Clock: edge.ClockSynced})}
	}
	const lastMinute = 1772380740000 // 2026-03-01T23:59:00+08:00
	if d := p.Decide(facts(lastMinute)); d.Outcome != edge.Deny {
		t.Errorf("on its last day: %s", d.Outcome)
	}
	if d := p.Decide(facts(lastMinute + 60_000)); d.Outcome != edge.Admit {
		t.Errorf("after its last day: %s", d.Outcome)
	}
}

func TestBand(t *testing.T) {
	p := sample(t, "closed-estate.yaml")
	for _, c := range []struct {
		v    float64
		want edge.Band
	}{{36.4, edge.BandBelow}, {36.9, edge.BandBelow}, {36.91, edge.BandNear}, {37.29, edge.BandNear}, {37.3, edge.BandAbove}, {38.2, edge.BandAbove}} {
		f := p.Band(device.Temperature{Quality: device.QualityOK, Value: device.Celsius(c.v), Uncertainty: 0.4})
		if f.Band != c.want || f.State != edge.TempOK || f.Value != nil {
			t.Errorf("%v is %+v, want %s and no value kept", c.v, f, c.want)
		}
	}
	for q, want := range map[device.Quality]edge.TemperatureState{device.QualityInvalid: edge.TempInvalid, device.QualityNobody: edge.TempMissing, device.QualityFault: edge.TempFault,
		device.QualityUnusable: edge.TempUnusable, device.QualityUnstable: edge.TempUnstable, device.QualityWarming: edge.TempWarming} {
		if f := p.Band(device.Temperature{Quality: q}); f.State != want || f.Band != "" {
			t.Errorf("%s is %+v", q, f)
		}
	}
}

func TestQuotaIsReservedReadAndReleased(t *testing.T) {
	p := sample(t, "closed-estate.yaml")
	stamp := edge.Stamp{Time: 1772420400000, Offset: 480, Clock: edge.ClockSynced} // 2026-03-02T11:00+08:00
	f := &edge.Facts{Pass: &edge.PassFacts{ID: 3, Category: "resident", Status: edge.PassActive}, Household: &edge.HouseholdFacts{ID: 9},
		Temperature: &edge.TemperatureFacts{State: edge.TempOK, Band: edge.BandBelow}, Lane: edge.LaneFacts{Level: edge.LevelEstate, Direction: edge.Out}, Time: edge.TimeFactsOf(stamp)}
	cells := p.Cells(f)
	if cells[0].Name != edge.CellPosition || cells[len(cells)-1] != (edge.Cell{Name: "household_exits", Subject: "h9", Bucket: cells[len(cells)-1].Bucket}) {
		t.Fatalf("cells %+v", cells)
	}
	p.Fill(f, cells, make([]edge.CellValue, len(cells)))
	d := p.Decide(f)
	if d.Outcome != edge.Admit || len(d.Deltas) != 1 || d.Deltas[0].Value != 1 || d.Deltas[0].Cell != cells[len(cells)-1] {
		t.Fatalf("first exit: %+v", d)
	}
	if r := Release(d.Deltas); len(r) != 1 || r[0].Value != -1 {
		t.Errorf("release %+v", r)
	}
	// The other gate counted it: a peer's word is as good, and its age is a fact.
	vals := make([]edge.CellValue, len(cells))
	vals[len(cells)-1] = edge.CellValue{Peers: 1, PeersAt: stamp.Time - 2*3600_000}
	p.Fill(f, cells, vals)
	if c := f.Counters["household_exits"]; c.N != 1 || c.Peers != 1 || c.Age != 120 || !c.Stale {
		t.Errorf("counter fact %+v", c)
	}
	if d := p.Decide(f); d.Outcome != edge.Deny || d.Rule != "quota" || d.Authority == "" || len(d.Answers) != 2 {
		t.Errorf("second exit: %+v", d)
	}
}

// Everybody was let out for a fire drill: nobody is stopped for passback then.
func TestPositionsAreUnknownAfterAFire(t *testing.T) {
	p := sample(t, "closed-estate.yaml")
	f := &edge.Facts{Pass: &edge.PassFacts{ID: 3, Category: "resident", Status: edge.PassActive}, Temperature: &edge.TemperatureFacts{State: edge.TempOK, Band: edge.BandBelow},
		Lane: edge.LaneFacts{Level: edge.LevelEstate, Direction: edge.In}, Time: edge.TimeFactsOf(edge.Stamp{Time: 1772420400000, Offset: 480, Clock: edge.ClockSynced})}
	cells := p.Cells(f)
	inside := edge.CellValue{Local: edge.PositionInside, At: 1772420000000}
	for _, c := range []struct {
		reset int64
		want  edge.Outcome
	}{{0, edge.Refer}, {1772410000000, edge.Refer}, {1772420100000, edge.Admit}} {
		vals := make([]edge.CellValue, len(cells))
		vals[0], vals[1] = inside, edge.CellValue{Local: c.reset}
		p.Fill(f, cells, vals)
		if d := p.Decide(f); d.Outcome != c.want {
			t.Errorf("fire at %d: %s by %s, want %s", c.reset, d.Outcome, d.Rule, c.want)
		}
	}
}

func TestUnknownAloneNeverDenies(t *testing.T) {
	for _, name := range []string{"closed-estate.yaml", "normal-times.yaml"} {
		p := sample(t, name)
		f := &edge.Facts{Pass: &edge.PassFacts{ID: 3, Category: "resident", Status: edge.PassActive}, Lane: edge.LaneFacts{Level: edge.LevelEstate, Direction: edge.In}}
		if d := p.Decide(f); d.Outcome == edge.Deny {
			t.Errorf("%s: a resident of whom nothing is known is denied by %s", name, d.Rule)
		}
	}
}

func TestFactsTable(t *testing.T) {
	seen := map[string]bool{}
	for _, f := range Facts() {
		if f.Doc == "" || f.Type == "" || seen[f.Name] {
			t.Errorf("fact %+v", f)
		}
		seen[f.Name] = true
	}
	for _, want := range []string{"pass.category", "known.pass", "holder.test_hours", "temperature.band", "time.minute", "lane.direction", "guard.mask"} {
		if !seen[want] {
			t.Errorf("no fact %s", want)
		}
	}
}

func FuzzLoad(f *testing.F) {
	f.Add([]byte(minimal))
	for _, n := range []string{"closed-estate.yaml", "normal-times.yaml"} {
		src, err := firmwareconfig.Samples.ReadFile("policies/" + n)
		if err != nil {
			f.Fatal(err)
		}
		f.Add(src)
	}
	f.Fuzz(func(t *testing.T, src []byte) {
		p, err := Load("f.yaml", src)
		if err != nil {
			return
		}
		facts := &edge.Facts{Lane: edge.LaneFacts{Direction: edge.In}}
		if a, b := p.Decide(facts), p.Decide(facts); a.Outcome != b.Outcome || a.Rule != b.Rule {
			t.Errorf("two decisions on the same facts: %+v, %+v", a, b)
		}
	})
}

func BenchmarkDecide(b *testing.B) {
	p := sample(b, "closed-estate.yaml")
	f := &edge.Facts{Pass: &edge.PassFacts{ID: 3, Category: "resident", Status: edge.PassActive}, Household: &edge.HouseholdFacts{ID: 9},
		Temperature: &edge.TemperatureFacts{State: edge.TempOK, Band: edge.BandBelow}, Lane: edge.LaneFacts{Level: edge.LevelEstate, Direction: edge.Out}}
	b.ReportAllocs()
	for b.Loop() {
		p.Decide(f)
	}
}
