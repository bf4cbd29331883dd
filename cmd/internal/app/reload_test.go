package app

import (
	"context"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"gatehouse/cmd/internal/config"
)

// TestReload: times and policy change under a running lane; wiring is named, not
// applied; what is wrong changes nothing.
func TestReload(t *testing.T) {
	dir := t.TempDir()
	a, _ := gateIn(t, dir)
	conf := filepath.Join(dir, "gate.yaml")
	src, err := os.ReadFile(conf)
	if err != nil {
		t.Fatal(err)
	}
	policy, err := os.ReadFile(filepath.Join(dir, "policy.yaml"))
	if err != nil {
		t.Fatal(err)
	}
	ctx, stop := context.WithCancel(t.Context())
	done := make(chan error, 1)
	go func() { done <- a.Run(ctx) }()
	until(t, "the gate runs", func() bool { return len(a.Lanes.Views()) == 1 && a.Journal.Size() > 0 })
	write := func(name, text string) {
		t.Helper()
		if err := os.WriteFile(filepath.Join(dir, name), []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	reload := func(text string) ([]string, error) {
		t.Helper()
		write("gate.yaml", text)
		cfg, err := config.Load(conf)
		if err != nil {
			return nil, err
		}
		return a.Reload(ctx, cfg)
	}

	before := a.Policies.Hash()
	write("other.yaml", strings.Replace(string(policy), "title:", "title: Another, which was", 1))
	text := strings.Replace(string(src), "policy: policy.yaml", "policy: other.yaml", 1)
	text = strings.Replace(text, "open_for: 200ms", "open_for: 900ms", 1)
	text = strings.Replace(text, "lanes: [{name: in,", "lanes: [{name: in, label: The new label, refer_timeout: 7s, held_card: 50ms,", 1)
	restart, err := reload(text)
	if err != nil || len(restart) != 0 {
		t.Fatalf("%q, %v", restart, err)
	}
	until(t, "the label is taken", func() bool { return a.Lanes.Views()[0].Name == "The new label" })
	if a.Policies.Hash() == before {
		t.Errorf("policy %s is in force still", before)
	}
	now := a.Policies.Hash()

	// A wrong policy, and a wrong configuration: all stays.
	write("broken.yaml", "id: [")
	if _, err := reload(strings.Replace(text, "policy: other.yaml", "policy: broken.yaml", 1)); err == nil {
		t.Error("a broken policy is taken")
	}
	if _, err := reload(strings.Replace(text, "open_for", "opne_for", 1)); err == nil {
		t.Error("a broken configuration is taken")
	}
	if a.Policies.Hash() != now {
		t.Errorf("policy %s was %s", a.Policies.Hash(), now)
	}
	if restart, err = reload(text); err != nil || len(restart) != 0 {
		t.Errorf("%q, %v: the files before are not back", restart, err)
	}

	// Wiring and what is built at the start.
	wired := strings.Replace(text, "pin: B,", "pin: C,", 1)
	wired = strings.Replace(wired, "gate: g\n", "gate: g\nlanguage: en\n", 1)
	if restart, err = reload(wired); err != nil || !slices.Equal(restart, []string{"language", "main.barrier"}) {
		t.Errorf("%q, %v", restart, err)
	}
	if restart, err = reload(strings.Replace(text, "lanes: [{name: in,", "lanes: [{name: way,", 1)); err != nil || !slices.Equal(restart, []string{"lanes"}) {
		t.Errorf("%q, %v", restart, err)
	}
	if err := a.Alive(); err != nil {
		t.Error(err)
	}
	stop()
	if err := <-done; err != nil {
		t.Error(err)
	}
}
