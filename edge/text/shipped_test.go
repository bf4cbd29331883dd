package text

import (
	"os"
	"path/filepath"
	"regexp"
	"testing"
)

// Every reason and every answer of the shipped policies has its sentence.
func TestShippedPoliciesSpeak(t *testing.T) {
	c, err := New()
	if err != nil {
		t.Fatal(err)
	}
	files, err := filepath.Glob("../../firmware-config/policies/*.yaml")
	if err != nil || len(files) == 0 {
		t.Fatalf("no policies: %v", err)
	}
	rule := regexp.MustCompile(`(?m)^\s*- (?:\{)?id: ([a-z_.]+)`)
	own := regexp.MustCompile(`\breason: ([a-z_.]+)`)
	answers := regexp.MustCompile(`(?m)^  ([a-z_]+): \{(?:needs|two|purpose)`)
	n := 0
	for _, f := range files {
		src, err := os.ReadFile(f)
		if err != nil {
			t.Fatal(err)
		}
		for prefix, res := range map[string][]*regexp.Regexp{"reason.": {rule, own}, "answer.": {answers}} {
			for _, re := range res {
				for _, m := range re.FindAllSubmatch(src, -1) {
					n++
					for _, l := range complete {
						if id := prefix + string(m[1]); !c.For(l).Has(id) {
							t.Errorf("%s: %s has no sentence in %s", filepath.Base(f), id, l)
						}
					}
				}
			}
		}
	}
	if n < 20 {
		t.Errorf("only %d reasons and answers were found in the policies", n)
	}
}
