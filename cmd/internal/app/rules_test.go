package app

import (
	"slices"
	"testing"
	"time"

	"gatehouse/cmd/internal/config"
	"gatehouse/edge"
	"gatehouse/edge/console"
	"gatehouse/edge/policy"
	firmwareconfig "gatehouse/firmware-config"
)

// The page of the rules has the city's protections beside the estate's own rules,
// and areas by their names.
func TestRulesOfEveryLayer(t *testing.T) {
	var sources []policy.Source
	for _, name := range []string{"city.yaml", "closed-estate.yaml"} {
		src, err := firmwareconfig.Samples.ReadFile("policies/" + name)
		if err != nil {
			t.Fatal(err)
		}
		sources = append(sources, policy.Source{Name: name, Text: src})
	}
	sources[1].Text = append([]byte("under: city\n"), sources[1].Text...)
	p, err := policy.LoadSet(sources...)
	if err != nil {
		t.Fatal(err)
	}
	cfg := &config.Gate{Areas: map[string]string{"main": "东院"}, Lanes: []config.Lane{{Area: "main"}, {Area: "main"}, {Area: "yard"}}}
	at := func(year int) console.Rules {
		return rulesOf(p, cfg, edge.TimeFactsOf(edge.Stamp{Time: time.Date(year, 6, 1, 0, 0, 0, 0, time.UTC).UnixMilli(), Clock: edge.ClockSynced}))
	}
	has := func(r console.Rules, id string) bool {
		return slices.ContainsFunc(r.List, func(x console.Rule) bool { return x.ID == id })
	}
	now := at(2027)
	for _, id := range []string{"city.medical", "city.lost", "quota"} {
		if !has(now, id) {
			t.Errorf("the rule %s is not listed", id)
		}
	}
	if i := slices.IndexFunc(now.List, func(x console.Rule) bool { return x.ID == "city.medical" }); now.List[i].Kind != "protect" || now.List[i].By != "City headquarters" || now.List[i].Outcome != edge.Admit {
		t.Errorf("%+v", now.List[i])
	}
	if want := []console.Area{{Code: "main", Name: "东院", Tier: edge.TierNormal}, {Code: "yard", Name: "yard", Tier: edge.TierNormal}}; !slices.Equal(now.Areas, want) || now.Threshold != 37.3 || now.Otherwise != edge.Refer {
		t.Errorf("%+v %v %s", now.Areas, now.Threshold, now.Otherwise)
	}
	// The estate's notice ends with 2027, the city's circular does not.
	if after := at(2028); has(after, "quota") || !has(after, "city.medical") {
		t.Error("what has ended is listed, or what has not is missing")
	}
	before := at(2025)
	if i := slices.IndexFunc(before.List, func(x console.Rule) bool { return x.ID == "quota" }); i < 0 || !before.List[i].Coming {
		t.Error("what is to come is not listed as such")
	}
}
