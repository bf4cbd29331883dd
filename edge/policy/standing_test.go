package policy

import (
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"gatehouse/edge"
)

const standingCity = `policy: city
version: 1
layer: city
title: The city's
authority: {by: City, basis: Circular 1}
no_match: admit
temperature: {threshold: 37.3, uncertainty: 0.4, remeasures: 2}
lower: [{for: own}]
rules:
  - {id: city.medical, kind: protect, when: "guard.purpose == 'medical'", at_most: admit, reason: protect.medical}
  - {id: city.old, then: refer, reason: own.x, authority: {by: City, basis: Circular 0, until: 2026-11-27}}
`

const standingEstate = `policy: estate
version: 1
under: city
title: The estate's
authority: {by: Office, basis: Notice}
no_match: refer
temperature: {threshold: 37.3, uncertainty: 0.4, remeasures: 2}
slots: {night: "fri-sat 22:30-06:30"}
rules:
  - {id: own.night, then: deny, scope: {slot: night, direction: in, not_category: resident}, reason: own.night, authority: {by: Office, basis: N, from: 2026-11-01, until: 2026-11-28}}
  - {id: own.later, then: refer, reason: own.later, authority: {by: Office, basis: N, from: "2026-12-01T08:00:00+08:00", until: 2027-01-31}}
  - {id: own.past, then: refer, reason: own.past, authority: {by: Office, basis: N, from: 2026-01-01, until: 2026-01-31}}
`

// What is in force is told with all layers, without what has ended, by the site's
// own midnight.
func TestStanding(t *testing.T) {
	p, err := LoadSet(Source{"city.yaml", []byte(standingCity)}, Source{"estate.yaml", []byte(standingEstate)})
	if err != nil {
		t.Fatal(err)
	}
	at := func(day, hour int, c edge.ClockState) edge.TimeFacts {
		zone := time.FixedZone("", 8*3600)
		return edge.TimeFactsOf(edge.Stamp{Time: time.Date(2026, 11, day, hour, 0, 0, 0, zone).UnixMilli(), Offset: 480, Clock: c})
	}
	for _, c := range []struct {
		name string
		at   edge.TimeFacts
		want string
	}{
		{"the last hour of the 27th", at(27, 23, edge.ClockSynced), "city.medical city.old own.night own.later+"},
		{"the 28th", at(28, 1, edge.ClockSynced), "city.medical own.night own.later+"},
		{"the 29th", at(29, 0, edge.ClockSynced), "city.medical own.later+"},
		{"nobody knows the time: what may have begun has", at(29, 0, edge.ClockUnset), "city.medical own.later"},
	} {
		var got []string
		for _, s := range p.Standing(c.at) {
			id := s.ID
			if s.Coming {
				id += "+"
			}
			got = append(got, id)
		}
		if strings.Join(got, " ") != c.want {
			t.Errorf("%s: %v, want %s", c.name, got, c.want)
		}
	}
	list := p.Standing(at(27, 12, edge.ClockSynced))
	if s := list[0]; s.Layer != "city" || s.Policy != "The city's" || !s.Conditional || s.Outcome != edge.Admit {
		t.Errorf("%+v", s)
	}
	s := list[2]
	if s.Conditional || s.NotCategory != "resident" || s.Hours == nil || s.Hours.From != 22*60+30 || s.Hours.To != 6*60+30 || !slices.Equal(s.Hours.Weekdays, []int{5, 6}) || !s.Days {
		t.Errorf("%+v", s)
	}
	if got := fmt.Sprint(s.From.UTC().Format(time.RFC3339), " ", s.Until.UTC().Format(time.RFC3339)); got != "2026-10-31T16:00:00Z 2026-11-28T16:00:00Z" {
		t.Errorf("from and until %s", got)
	}
	if o, by := p.Otherwise(); o != edge.Refer || by.By != "Office" {
		t.Errorf("otherwise %s by %s", o, by.By)
	}
	if o, by := p.Superior().Otherwise(); o != edge.Admit || by.By != "City" {
		t.Errorf("otherwise %s by %s", o, by.By)
	}
}
