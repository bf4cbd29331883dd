package gatecmd

import (
	"os"
	"os/exec"
	"path/filepath"
	"testing"

	"github.com/rogpeppe/go-internal/testscript"

	firmwareconfig "gatehouse/firmware-config"
	"gatehouse/sync/wire"
)

func TestMain(m *testing.M) {
	testscript.Main(m, map[string]func(){
		"gatehouse": func() { os.Exit(Main(os.Args[1:], os.Stdout, os.Stderr)) },
	})
}

func setup(e *testscript.Env) error {
	dir := filepath.Join(e.WorkDir, "policies")
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return err
	}
	for _, name := range []string{"normal-times.yaml", "closed-estate.yaml"} {
		b, err := firmwareconfig.Samples.ReadFile("policies/" + name)
		if err != nil {
			return err
		}
		if err := os.WriteFile(filepath.Join(dir, name), b, 0o644); err != nil {
			return err
		}
	}
	// With it anybody unpacks what a gate sends: zstd -D.
	return os.WriteFile(filepath.Join(e.WorkDir, "dictionary.zdict"), wire.Dictionary, 0o644)
}

func TestScripts(t *testing.T) {
	testscript.Run(t, testscript.Params{Dir: "testdata/script", Setup: setup})
}

// TestOutside runs the daemon among programs that are not ours: serial lines
// made by socat, bytes typed by a shell, a stock Mosquitto as the broker, and
// mosquitto_sub to see the batches.
func TestOutside(t *testing.T) {
	for _, prog := range []string{"socat", "mosquitto", "mosquitto_sub"} {
		if _, err := exec.LookPath(prog); err != nil {
			if os.Getenv("CI") != "" {
				t.Fatalf("%s is missing: apt-get install socat mosquitto mosquitto-clients", prog)
			}
			t.Skipf("%s is not installed here; .ci/run installs it", prog)
		}
	}
	testscript.Run(t, testscript.Params{Dir: "testdata/outside", Setup: setup})
}
