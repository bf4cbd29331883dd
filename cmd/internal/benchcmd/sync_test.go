package benchcmd

import (
	"strings"
	"testing"

	"gatehouse/sync/broker"
)

func TestBenchSync(t *testing.T) {
	b, err := broker.Start(t.TempDir(), "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer b.Stop()
	out, err := run(t, "sync", "--dir", t.TempDir(), "--broker", b.URL(), "--entries", "3000")
	if err != nil {
		t.Fatal(err)
	}
	for _, want := range []string{"3000 entries in ", "drain: entries a second, receipted", "line: bytes for one entry"} {
		if !strings.Contains(out, want) {
			t.Errorf("no %q in\n%s", want, out)
		}
	}
	if _, err := run(t, "sync", "--dir", t.TempDir(), "--entries", "1"); err == nil || !strings.Contains(err.Error(), "at least 1000") {
		t.Errorf("%v", err)
	}
}
