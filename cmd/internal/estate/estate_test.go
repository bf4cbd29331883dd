package estate

import (
	"reflect"
	"testing"
	"time"

	"gatehouse/edge"
)

func TestEqualSeedsMakeEqualEstates(t *testing.T) {
	o := Options{Residents: 2000, Households: 700, Now: time.Date(2026, 3, 1, 8, 0, 0, 0, time.UTC), Incidents: 0.2}
	a, b := New(7, o), New(7, o)
	if !reflect.DeepEqual(a.Rows(), b.Rows()) {
		t.Error("two estates of one seed differ")
	}
	if reflect.DeepEqual(a.Rows(), New(8, o).Rows()) {
		t.Error("two seeds make the same estate")
	}
	cards, traits, langs, cats := map[edge.Credential]bool{}, map[Trait]int{}, map[string]int{}, map[string]int{}
	for _, r := range a.Rows() {
		for _, c := range r.Credentials {
			for _, alias := range c.Aliases() {
				if cards[alias] {
					t.Errorf("two people hold %s", alias)
				}
				cards[alias] = true
			}
		}
		langs[r.Pass.Language]++
		cats[r.Pass.Category]++
	}
	for _, p := range a.People {
		traits[p.Trait]++
		if p.Row.Pass.Household != p.Row.Household.ID {
			t.Fatalf("pass %d is of household %d, its row says %d", p.Row.Pass.ID, p.Row.Pass.Household, p.Row.Household.ID)
		}
	}
	for _, tr := range []Trait{Fever, Warm, Expired, Lost, Suspended, Quarantine, WalksAway, Tailgated, Mother, NoSensor, Forgot} {
		if traits[tr] == 0 {
			t.Errorf("nobody is %q", tr)
		}
	}
	if len(langs) < 6 || len(cats) < 5 {
		t.Errorf("languages %v, categories %v", langs, cats)
	}
}
