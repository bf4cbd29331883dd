package options

import (
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
)

type sample struct {
	Name  string            `yaml:"name"`
	Port  string            `yaml:"port"`
	Pulse time.Duration     `yaml:"pulse"`
	Tries int               `yaml:"tries"`
	Limit float64           `yaml:"limit"`
	On    bool              `yaml:"on"`
	Tags  []string          `yaml:"tags"`
	Map   map[string]int    `yaml:"map"`
	Sub   *sub              `yaml:"sub"`
	Raw   Node              `yaml:"raw"`
	Texts map[string]string `yaml:"texts"`
}

type sub struct {
	Pin string `yaml:"pin"`
}

func decode(t *testing.T, src string) (sample, error) {
	t.Helper()
	s := sample{Tries: 3}
	n, err := Parse("gate.yaml", []byte(src))
	if err != nil {
		return s, err
	}
	return s, n.Decode(&s)
}

func TestDecode(t *testing.T) {
	s, err := decode(t, `
# a comment
name: east
port: /dev/ttyUSB0
pulse: 500ms
limit: 37.3
on: true
tags: [a, "b"]
map: {x: 1, y: 0x10}
sub:
  pin: GPIO17
raw:
  driver: rdm6300
texts:
  1: one
`)
	if err != nil {
		t.Fatal(err)
	}
	if s.Raw.At("driver").Text() != "rdm6300" || s.Raw.Line() != 13 {
		t.Errorf("raw node: %q at line %d", s.Raw.At("driver").Text(), s.Raw.Line())
	}
	s.Raw = Node{}
	want := sample{Name: "east", Port: "/dev/ttyUSB0", Pulse: 500 * time.Millisecond, Tries: 3, Limit: 37.3, On: true,
		Tags: []string{"a", "b"}, Map: map[string]int{"x": 1, "y": 16}, Sub: &sub{"GPIO17"}, Texts: map[string]string{"1": "one"}}
	if d := cmp.Diff(want, s, cmp.Comparer(func(a, b Node) bool { return a == b })); d != "" {
		t.Error(d)
	}
}

func TestErrorsNamePositionAndNearest(t *testing.T) {
	for _, c := range []struct{ name, src, want string }{
		{"unknown key", "prot: x", `gate.yaml:1:1: unknown key "prot", did you mean "port"?`},
		{"unknown key below", "sub:\n  pen: 3", `gate.yaml:2:3: sub: unknown key "pen", did you mean "pin"?`},
		{"no unit", "pulse: 500", `gate.yaml:1:8: pulse: want a duration with a unit ("500ms", "8s", "2h"), not "500"`},
		{"not a number", "tries: many", `gate.yaml:1:8: tries: want a whole number, not "many"`},
		{"fraction", "tries: 1.5", `want a whole number, not "1.5"`},
		{"list for text", "name: [a]", `name: want text, not a list`},
		{"yes is not true", "on: yes", `on: want true or false, not "yes"`},
		{"quoted number", `tries: "3"`, `want a whole number`},
		{"twice", "name: a\nname: b", `already defined at [1:1]`},
		{"anchor", "name: &a x", `anchors and aliases are not taken`},
		{"alias", "name: x\nport: *a", `not`},
		{"second document", "name: a\n---\nname: b", `second document`},
		{"deep", "name: " + strings.Repeat("[", 5000), `nested more than`},
		{"deep dashes", strings.Repeat("- ", 5000) + "x", `nested more than`},
		{"tab", "sub:\n\tpin: x", `gate.yaml:`},
		{"not yaml", "name: 'x", `gate.yaml`},
		{"infinite", "limit: .inf", `want a number`},
	} {
		t.Run(c.name, func(t *testing.T) {
			_, err := decode(t, c.src)
			if err == nil || !strings.Contains(err.Error(), c.want) {
				t.Errorf("error %v, want %q in it", err, c.want)
			}
		})
	}
}

func TestAllErrorsAtOnce(t *testing.T) {
	_, err := decode(t, "nam: a\npulse: 5\ntries: x")
	if err == nil || strings.Count(err.Error(), "gate.yaml:") != 3 {
		t.Errorf("want three errors, got %v", err)
	}
}

func TestEmptyFileKeepsDefaults(t *testing.T) {
	s, err := decode(t, "# nothing\n")
	if err != nil || s.Tries != 3 {
		t.Errorf("tries %d, %v", s.Tries, err)
	}
}

func FuzzParse(f *testing.F) {
	f.Add([]byte("a: 1\nb: [x, {y: z}]\n"))
	f.Add([]byte("a: &x [*x]"))
	f.Add([]byte("? - - a\n: |\n  text\n"))
	f.Fuzz(func(t *testing.T, src []byte) {
		n, err := Parse("f", src)
		if err != nil {
			return
		}
		var s sample
		_ = n.Decode(&s)
	})
}
