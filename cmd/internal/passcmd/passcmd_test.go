package passcmd

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/creack/pty"
	"github.com/rogpeppe/go-internal/testscript"

	"gatehouse/edge"
	"gatehouse/edge/registry"
)

func TestMain(m *testing.M) {
	testscript.Main(m, map[string]func(){"pass": run})
}

// run is the command on the registry that the environment names.
func run() {
	cmd := New(func(ctx context.Context) (Site, error) {
		r, err := registry.Open(ctx, os.Getenv("REGISTRY"), registry.Options{Keys: []edge.CredentialKey{{Version: 1}}})
		return Site{Registry: r, Location: time.FixedZone("CST", 8*3600), CardForm: "em-dec10"}, err
	})
	cmd.SilenceErrors = true
	if err := cmd.Execute(); err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
}

func TestScripts(t *testing.T) {
	testscript.Run(t, testscript.Params{Dir: "testdata", RequireExplicitExec: true, Setup: func(e *testscript.Env) error {
		e.Setenv("REGISTRY", filepath.Join(e.WorkDir, "registry.db"))
		return nil
	}})
}

// On a terminal the import shows its progress and asks before many passes end.
func TestConfirmationOnATerminal(t *testing.T) {
	dir := t.TempDir()
	write := func(n int) string {
		var b strings.Builder
		b.WriteString("编号,卡号\n")
		for i := range n {
			fmt.Fprintf(&b, "%d,%010d\n", i+1, i+1)
		}
		name := filepath.Join(dir, fmt.Sprintf("list%d.csv", n))
		if err := os.WriteFile(name, []byte(b.String()), 0o600); err != nil {
			t.Fatal(err)
		}
		return name
	}
	terminal := func(answer string, args ...string) (string, error) {
		cmd := exec.Command("pass", args...)
		cmd.Env = append(os.Environ(), "REGISTRY="+filepath.Join(dir, "registry.db"))
		f, err := pty.Start(cmd)
		if err != nil {
			t.Fatal(err)
		}
		defer f.Close()
		if _, err := f.WriteString(answer); err != nil {
			t.Fatal(err)
		}
		var out bytes.Buffer
		io.Copy(&out, f) // ends with an input/output error when the command has ended
		return out.String(), cmd.Wait()
	}
	out, err := terminal("", "import", write(2000))
	if err != nil || !strings.Contains(out, "reading") || !strings.Contains(out, "version 1 is in force") {
		t.Fatalf("%v\n%s", err, out)
	}
	if out, err := terminal("no\n", "import", write(1000)); err == nil || !strings.Contains(out, "50% of the passes would end") || !strings.Contains(out, "not confirmed; nothing was changed") {
		t.Errorf("answered no: %v\n%s", err, out)
	}
	if out, err := terminal("yes\n", "import", write(1000)); err != nil || !strings.Contains(out, "version 2 is in force") {
		t.Errorf("answered yes: %v\n%s", err, out)
	}
}
