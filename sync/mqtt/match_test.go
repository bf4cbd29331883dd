package mqtt

import "testing"

func TestMatches(t *testing.T) {
	for _, c := range []struct {
		filter, topic string
		want          bool
	}{
		{"a/b", "a/b", true}, {"a/b", "a/b/c", false}, {"a/b/c", "a/b", false}, {"a/+", "a/b", true}, {"a/+", "a", false},
		{"a/+/c", "a/b/c", true}, {"a/+/c", "a/b/d", false}, {"a/#", "a/b/c", true}, {"a/#", "a", true}, {"#", "a/b", true},
		{"+/+", "a/b", true}, {"+", "a/b", false}, {"a/+/#", "a/b", true}, {"a/+/#", "a", false}, {"a/b/#", "a", false},
	} {
		if matches(c.filter, c.topic) != c.want {
			t.Errorf("%s and %s: want %v", c.filter, c.topic, c.want)
		}
	}
}
