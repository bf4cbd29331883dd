package law

import (
	"encoding/json"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
)

type listed struct {
	ImportPath   string
	Dir          string
	GoFiles      []string
	Imports      []string
	TestImports  []string
	XTestImports []string
	Module       struct{ Dir string }
}

func TestImportGraph(t *testing.T) {
	cmd := exec.Command("go", "list", "-json", module+"/...")
	cmd.Stderr = os.Stderr
	out, err := cmd.Output()
	if err != nil {
		t.Fatalf("go list: %v", err)
	}
	dec := json.NewDecoder(strings.NewReader(string(out)))
	seen, root := 0, ""
	for {
		var p listed
		if err := dec.Decode(&p); err == io.EOF {
			break
		} else if err != nil {
			t.Fatal(err)
		}
		seen++
		root = p.Module.Dir
		for _, imp := range p.Imports {
			if why := Violation(p.ImportPath, imp, false); why != "" {
				t.Errorf("%s imports %s: %s", p.ImportPath, imp, why)
			}
		}
		for _, imp := range append(p.TestImports, p.XTestImports...) {
			if why := Violation(p.ImportPath, imp, true); why != "" {
				t.Errorf("tests of %s import %s: %s", p.ImportPath, imp, why)
			}
		}
		if p.ImportPath == module+"/sync" && len(p.GoFiles) > 0 {
			t.Error("sync holds a Go file of its own")
		}
	}
	if seen < 20 {
		t.Errorf("read only %d packages", seen)
	}
	top := []string{"cmd", "device", "edge", "sync", "firmware-config", "systemd", "go.mod", "go.sum", "README.md", "LICENSE"}
	entries, err := os.ReadDir(root)
	if err != nil {
		t.Fatal(err)
	}
	for _, e := range entries {
		if !strings.HasPrefix(e.Name(), ".") && !slices.Contains(top, e.Name()) {
			t.Errorf("the top level holds %s", filepath.Join(root, e.Name()))
		}
	}
}

func TestViolation(t *testing.T) {
	for _, c := range []struct {
		from, to string
		test, ok bool
	}{
		{"gatehouse/edge/lane", "gatehouse/edge", false, true},
		{"gatehouse/edge/lane", "gatehouse/device", false, true},
		{"gatehouse/edge/lane", "gatehouse/edge/policy", false, true},
		{"gatehouse/edge/lane", "gatehouse/edge/journal", false, false},
		{"gatehouse/edge/lane", "gatehouse/edge/journal", true, false},
		{"gatehouse/edge/console", "gatehouse/edge/lane", false, false},
		{"gatehouse/device/relay", "gatehouse/edge", false, false},
		{"gatehouse/device/relay", "gatehouse/device/sim", false, false},
		{"gatehouse/device/relay", "gatehouse/device/sim", true, true},
		{"gatehouse/edge/journal", "gatehouse/sync/wire", false, false},
		{"gatehouse/edge/journal", "gatehouse/edge/sqlite", false, true},
		{"gatehouse/edge/lane", "gatehouse/device/relay", false, false},
		{"gatehouse/sync/uplink", "gatehouse/edge/journal", false, false},
		{"gatehouse/sync/uplink", "gatehouse/sync/wire", false, true},
		{"gatehouse/sync/uplink", "gatehouse/sync/mqtt", false, false},
		{"gatehouse/sync/community", "gatehouse/device/relay", false, false},
		{"gatehouse/cmd/internal/app", "gatehouse/sync/mqtt", false, true},
		{"gatehouse/sync/uplink", "github.com/eclipse/paho.mqtt.golang", false, false},
		{"gatehouse/sync/mqtt", "github.com/eclipse/paho.mqtt.golang", false, true},
		{"gatehouse/edge/journal", "modernc.org/sqlite", false, false},
	} {
		if why := Violation(c.from, c.to, c.test); (why == "") != c.ok {
			t.Errorf("%s -> %s (test %v): %q", c.from, c.to, c.test, why)
		}
	}
}
