package policy

import (
	"bytes"
	"strings"
	"testing"
)

// What is sent to harm is refused by its form, before anything of it is compiled.
func TestHostileInputIsRefused(t *testing.T) {
	bomb := "a: &a [x, x]\nb: &b [*a, *a]\npolicy: p\nversion: 1\nrules: *b\n"
	for _, c := range []struct {
		name string
		src  []byte
		want string
	}{
		{"100 MB", append([]byte("policy: p\ntitle: "), bytes.Repeat([]byte("x"), 100<<20)...), "more than the"},
		{"a bomb of aliases", []byte(bomb), "h.yaml:1"},
		{"deep", []byte("policy: " + strings.Repeat("[", 100_000)), "h.yaml"},
		{"too many rules", many(maxRules + 2), "at most 2000"},
		{"a condition of 1 MB", []byte("policy: p\nversion: 1\nauthority: {by: a, basis: b}\nrules:\n  - {id: a, when: \"" + strings.Repeat("!", 1<<20) + "pass.expired\", then: deny}\n"), "h.yaml"},
		{"a deep condition", []byte("policy: p\nversion: 1\nauthority: {by: a, basis: b}\nrules:\n  - {id: a, when: \"" + strings.Repeat("(", 900) + "pass.expired" + strings.Repeat(")", 900) + "\", then: deny}\n"), "h.yaml:5"},
		{"a slow pattern", []byte("policy: p\nversion: 1\nauthority: {by: a, basis: b}\nrules:\n  - {id: a, when: \"pass.category.matches('(')\", then: deny}\n"), "h.yaml:5"},
	} {
		if _, err := Load("h.yaml", c.src); err == nil || !strings.Contains(err.Error(), c.want) {
			t.Errorf("%s: %.300v, want %q", c.name, err, c.want)
		}
	}
}
