package config

import (
	"strings"
	"testing"
)

func TestMeteredSync(t *testing.T) {
	text := func(sync string) []byte {
		return []byte(`community: c
site: s
gate: g
state: state
policy: p.yaml
sync: {url: "mqtt://h:1883", trust: t` + sync + `}
passages: [{name: p, barrier: none}]
lanes: [{name: l, passage: p, direction: in, scanner: console, thermometer: none}]
`)
	}
	g, err := Parse("gate.yaml", text(`, rate: 200, quiet: "22:00-06:30"`))
	if err != nil {
		t.Fatal(err)
	}
	if g.Sync.Rate != 200 || g.Sync.QuietFrom != 22*60 || g.Sync.QuietTo != 6*60+30 {
		t.Errorf("%+v", g.Sync)
	}
	for bad, says := range map[string]string{`, rate: -1`: "below 0", `, quiet: "22"`: "like 22:00-06:00", `, quiet: "06:00-06:00"`: "like 22:00-06:00", `, quiet: "25:00-06:00"`: "like 22:00-06:00"} {
		if _, err := Parse("gate.yaml", text(bad)); err == nil || !strings.Contains(err.Error(), says) {
			t.Errorf("%s: %v", bad, err)
		}
	}
}
