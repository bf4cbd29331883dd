package policy

import (
	"fmt"
	"strings"
	"testing"

	"gatehouse/edge"
)

// many makes a policy of n rules, all of which an ordinary resident's way out
// must look at: half by their scope, half by a condition.
func many(n int) []byte {
	var b strings.Builder
	b.WriteString("policy: many\nversion: 1\nauthority: {by: Office, basis: Notice 1}\nrules:\n  - {id: all, then: admit}\n")
	for i := range n - 1 {
		if i%2 == 0 {
			fmt.Fprintf(&b, "  - {id: r%d, scope: {group: g%d}, then: deny}\n", i, i)
		} else {
			fmt.Fprintf(&b, "  - {id: r%d, when: \"holder.test_hours == %d && pass.category == 'visitor'\", then: deny}\n", i, i)
		}
	}
	return []byte(b.String())
}

func resident() *edge.Facts {
	return &edge.Facts{Pass: &edge.PassFacts{ID: 3, Category: "resident", Status: edge.PassActive, Groups: []string{"g1", "h2"}}, Household: &edge.HouseholdFacts{ID: 9},
		Temperature: &edge.TemperatureFacts{State: edge.TempOK, Band: edge.BandBelow}, Lane: edge.LaneFacts{Level: edge.LevelEstate, Direction: edge.Out}}
}

// BenchmarkRules decides by policies of 100 and 1,000 rules, beside its floor: the
// same conditions as Go functions, without an expression language.
func BenchmarkRules(b *testing.B) {
	for _, n := range []int{100, 1000} {
		p, err := Load("many.yaml", many(n))
		if err != nil {
			b.Fatal(err)
		}
		f := resident()
		b.Run(fmt.Sprintf("floor/%d", n), func(b *testing.B) {
			rules := make([]func(*edge.Facts) bool, n)
			for i := range rules {
				group := fmt.Sprintf("g%d", i)
				rules[i] = func(f *edge.Facts) bool {
					if i%2 == 0 {
						for _, g := range f.Pass.Groups {
							if g == group {
								return true
							}
						}
						return false
					}
					return f.Holder != nil && f.Holder.TestHours != nil && *f.Holder.TestHours == i && f.Pass.Category == "visitor"
				}
			}
			b.ReportAllocs()
			hits := 0
			for b.Loop() {
				for _, r := range rules {
					if r(f) {
						hits++
					}
				}
			}
			if hits != 0 {
				b.Fatal("a rule matched")
			}
		})
		b.Run(fmt.Sprintf("decide/%d", n), func(b *testing.B) {
			b.ReportAllocs()
			for b.Loop() {
				if d := p.Decide(f); d.Outcome != edge.Admit {
					b.Fatal(d.Rule)
				}
			}
		})
	}
}

func BenchmarkLoad1000(b *testing.B) {
	src := many(1000)
	for b.Loop() {
		if _, err := Load("many.yaml", src); err != nil {
			b.Fatal(err)
		}
	}
}

func BenchmarkLint1000(b *testing.B) {
	p, err := Load("many.yaml", many(1000))
	if err != nil {
		b.Fatal(err)
	}
	for b.Loop() {
		p.Lint(1, nil)
	}
}

// FuzzLayer loads whatever stands beneath a superior: what loads never relaxes it.
func FuzzLayer(f *testing.F) {
	up := city(f)
	f.Add([]byte(under))
	f.Add([]byte(minimal))
	lost := resident()
	lost.Pass.Status = edge.PassLost
	f.Fuzz(func(t *testing.T, src []byte) {
		p, err := Load("f.yaml", src, up)
		if err != nil {
			return
		}
		if d := p.Decide(lost); d.Outcome != edge.Deny && d.Error == "" {
			t.Errorf("the superior denies, and this layer says %s by %s", d.Outcome, d.Rule)
		}
		p.Lint(1, nil)
	})
}
