package app

import (
	"context"
	"os"
	"path/filepath"
	"reflect"
	"slices"
	"strings"
	"testing"

	"gatehouse/cmd/internal/config"
	"gatehouse/device/options"
	"gatehouse/edge"
)

// Every key of gate.yaml is either applied to the running gate or named as one that
// needs a restart: none is passed over.
func TestReloadPassesOverNothing(t *testing.T) {
	dir := t.TempDir()
	probe, _ := gateIn(t, dir) // writes the files
	if err := probe.Close(); err != nil {
		t.Fatal(err)
	}
	load := func() *config.Gate {
		cfg, err := config.Load(filepath.Join(dir, "gate.yaml"))
		if err != nil {
			t.Fatal(err)
		}
		cfg.Enrolled = &config.Enrolled{Community: "c"}
		return cfg
	}
	node, err := options.Parse("other.yaml", []byte("driver: other\n"))
	if err != nil {
		t.Fatal(err)
	}
	was := load()
	// Where the loader takes other fields together, these follow from those; and the
	// nightly backup reads its part anew each time, in a process of its own.
	derived := map[string]bool{"Backup": true, "Location": true, "Defaults": true, "LaneNodes": true, "Lanes.Scanner": true, "Sync.QuietFrom": true, "Sync.QuietTo": true}
	applied := func(is *config.Gate) bool {
		return was.Policy != is.Policy || !slices.Equal(was.Superior, is.Superior) || passageConfig(&was.Passages[0]) != passageConfig(&is.Passages[0]) ||
			!reflect.DeepEqual(laneConfig(was, &was.Lanes[0]), laneConfig(is, &is.Lanes[0]))
	}
	seen := 0
	var walk func(path string, at func(*config.Gate) reflect.Value)
	walk = func(path string, at func(*config.Gate) reflect.Value) {
		if derived[path] {
			return
		}
		is := load()
		v := at(is)
		switch x := v.Addr().Interface().(type) {
		case *options.Node:
			*x = node
		case *map[string]options.Node:
			*x = map[string]options.Node{"other": node}
		case *[]options.Node:
			*x = append(*x, node)
		case *[]string:
			*x = append(*x, "other")
		case *map[string]string:
			*x = map[string]string{"other": "Other"}
		case *map[string]int:
			*x = map[string]int{"07:00": 1}
		case *map[string]edge.Outcome:
			*x = map[string]edge.Outcome{"default": edge.Admit}
		default:
			switch v.Kind() {
			case reflect.String:
				v.SetString(v.String() + "other")
			case reflect.Bool:
				v.SetBool(!v.Bool())
			case reflect.Int, reflect.Int64:
				v.SetInt(v.Int() + 1)
			case reflect.Pointer:
				walk(path, func(g *config.Gate) reflect.Value { return at(g).Elem() })
				return
			case reflect.Slice: // of passages or lanes
				walk(path, func(g *config.Gate) reflect.Value { return at(g).Index(0) })
				return
			case reflect.Struct:
				for i := range v.NumField() {
					f := v.Type().Field(i)
					if f.IsExported() {
						walk(strings.TrimPrefix(path+"."+f.Name, "."), func(g *config.Gate) reflect.Value { return at(g).Field(i) })
					}
				}
				return
			default:
				t.Errorf("%s is a %s: say in this test how it changes", path, v.Type())
				return
			}
		}
		seen++
		if len(needsRestart(was, is)) == 0 && !applied(is) {
			t.Errorf("another %s is neither applied nor named", path)
		}
	}
	walk("", func(g *config.Gate) reflect.Value { return reflect.ValueOf(g).Elem() })
	if seen < 60 {
		t.Errorf("only %d keys", seen)
	}
}

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
