package text

import (
	"strings"
	"testing"
)

func TestNothingIsMissing(t *testing.T) {
	c, err := New()
	if err != nil {
		t.Fatal(err)
	}
	for _, m := range c.Missing() {
		t.Errorf("not translated: %s", m)
	}
	if len(c.topics["display"]["ar"]) < 10 {
		t.Errorf("the display has %d messages in Arabic", len(c.topics["display"]["ar"]))
	}
}

// The check itself must be able to fail.
func TestMissingIsNoticed(t *testing.T) {
	c, err := New()
	if err != nil {
		t.Fatal(err)
	}
	delete(c.topics["display"]["ko"], "display.go")
	delete(c.topics["words"]["en"], "care.elderly")
	if got := strings.Join(c.Missing(), "\n"); got != "display.ko.yaml: display.go\nwords.en.yaml: care.elderly" {
		t.Errorf("missing: %s", got)
	}
}

func TestNearestLanguage(t *testing.T) {
	c, err := New()
	if err != nil {
		t.Fatal(err)
	}
	for tag, want := range map[string]string{"": "zh-Hans", "zh": "zh-Hans", "zh-CN": "zh-Hans", "zh-TW": "zh-Hans", "en-GB": "en", "fr-CA,en;q=0.5": "fr", "ja": "ja", "ar-EG": "ar", "sw": "en", "???": "zh-Hans"} {
		if got := c.For(tag).Language(); got != want {
			t.Errorf("%q is served in %s, want %s", tag, got, want)
		}
	}
	if p := c.For("ar"); !p.RTL() || p.T("display.go") == c.For("en").T("display.go") {
		t.Errorf("Arabic: right to left %v, %q", p.RTL(), p.T("display.go"))
	}
}

func TestTemplatesAndFallbacks(t *testing.T) {
	c, err := New()
	if err != nil {
		t.Fatal(err)
	}
	en := c.For("en")
	if got := en.T("display.party", "Count", 1); got != "One person at a time: 1 more to measure" {
		t.Error(got)
	}
	if got := en.T("display.party", "Count", 3); got != "One person at a time: 3 more to measure" {
		t.Error(got)
	}
	if got := c.For("ja").T("care.elderly"); got != "elderly" {
		t.Errorf("a message that Japanese lacks: %q", got)
	}
	if got := en.T("no.such"); got != "no.such" || en.Has("no.such") || !en.Has("care.elderly") {
		t.Errorf("an unknown id: %q", got)
	}
	if _, err := en.Lookup("display.party", "Count"); err == nil {
		t.Error("a name without a value was accepted")
	}
}
