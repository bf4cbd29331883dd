package policy

import (
	"os"
	"strings"
	"testing"

	firmwareconfig "gatehouse/firmware-config"
)

// What communities really enforced is expressible as data: the shipped closed
// estate decides all of it, alone and beneath the city.
func TestPracticeAsData(t *testing.T) {
	src, err := firmwareconfig.Samples.ReadFile("policies/closed-estate.yaml")
	if err != nil {
		t.Fatal(err)
	}
	cases, err := os.ReadFile("testdata/practice.yaml")
	if err != nil {
		t.Fatal(err)
	}
	rules, _, _ := strings.Cut(string(src), "\ncases:\n")
	for _, ups := range [][]*Policy{nil, {sample(t, "city.yaml")}} {
		p, err := Load("practice.yaml", []byte(rules+"\n"+string(cases)), ups...)
		if err != nil {
			t.Fatal(err)
		}
		if p.Cases() < 20 {
			t.Errorf("only %d cases", p.Cases())
		}
	}
}
