package backup

import (
	"bytes"
	"io"
	"log/slog"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"gatehouse/cmd/internal/app"
	"gatehouse/cmd/internal/config"
	firmwareconfig "gatehouse/firmware-config"
)

// gate makes the folder of a gate that has run, and gives the path of its gate.yaml
// and the text of its recovery key.
func gate(t *testing.T, more string) (conf, paper string) {
	t.Helper()
	dir := t.TempDir()
	conf = filepath.Join(dir, "gate.yaml")
	pol, err := firmwareconfig.Samples.ReadFile("policies/normal-times.yaml")
	if err != nil {
		t.Fatal(err)
	}
	write(t, filepath.Join(dir, "policy.yaml"), string(pol))
	write(t, conf, "community: c\nsite: s\ngate: g\nstate: state\npolicy: policy.yaml\npassages: [{name: main, barrier: none}]\n"+
		"lanes: [{name: in, passage: main, direction: in, scanner: console, thermometer: none}]\n"+more)
	cfg, err := config.Load(conf)
	if err != nil {
		t.Fatal(err)
	}
	quiet := *cfg
	quiet.Console.Listen = ""
	a, err := app.Build(t.Context(), &quiet, app.Options{Version: "test", TrustClock: true, Log: slog.New(slog.DiscardHandler)})
	if err != nil {
		t.Fatal(err)
	}
	if err := a.Close(); err != nil {
		t.Fatal(err)
	}
	var out bytes.Buffer
	if err := NewKey(cfg, &out); err != nil {
		t.Fatal(err)
	}
	return conf, regexp.MustCompile(`AGE-SECRET-KEY-1[0-9A-Z]+`).FindString(out.String())
}

func write(t *testing.T, path, text string) {
	t.Helper()
	if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
}

// backupOf makes a backup of a gate's folder.
func backupOf(t *testing.T, conf string) (file string) {
	t.Helper()
	cfg, err := config.Load(conf)
	if err != nil {
		t.Fatal(err)
	}
	if file, err = Write(t.Context(), cfg, conf, t.TempDir(), "test", time.Now(), 0); err != nil {
		t.Fatal(err)
	}
	return file
}

// restore runs the command, as at a new device.
func restore(t *testing.T, file, paper, conf string) (string, error) {
	t.Helper()
	var out bytes.Buffer
	c := RestoreCommand(conf)
	c.SetOut(&out)
	c.SetErr(io.Discard)
	c.SetIn(strings.NewReader(paper + "\n"))
	c.SetArgs([]string{file})
	err := c.ExecuteContext(t.Context())
	return out.String(), err
}

func expect(t *testing.T, what string, err error, want ...string) {
	t.Helper()
	for _, w := range want {
		if err == nil || !strings.Contains(err.Error(), w) {
			t.Errorf("%s: %v\ndoes not say %q", what, err, w)
		}
	}
}

// On a medium without room the device's keys and the recovery key cannot be made, and
// what to do is said. Their next versions are written to a device that is always full.
func TestKeysOnAFullMedium(t *testing.T) {
	conf, _ := gate(t, "")
	cfg, err := config.Load(conf)
	if err != nil {
		t.Fatal(err)
	}
	full := func(path string) {
		t.Helper()
		if err := os.Remove(path); err != nil {
			t.Fatal(err)
		}
		if err := os.Symlink("/dev/full", path+".new"); err != nil {
			t.Fatal(err)
		}
	}
	want := []string{"no space left on device", "without room", "df -h " + cfg.State}
	full(recoveryFile(cfg))
	c := Command(conf)
	c.SetOut(io.Discard)
	c.SetArgs([]string{"key"})
	expect(t, "the recovery key", c.ExecuteContext(t.Context()), want...)
	for _, name := range []string{"device.age", "device.key"} {
		full(cfg.KeyFile(name))
		_, err = app.Build(t.Context(), cfg, app.Options{Version: "test", Log: slog.New(slog.DiscardHandler)})
		expect(t, name, err, want...)
	}
}

// A place that cannot take what a backup holds: its folder, or the medium of the state.
func TestRestoreWithoutRoomOrRights(t *testing.T) {
	conf, paper := gate(t, "")
	file := backupOf(t, conf)
	bare := filepath.Join(t.TempDir(), "gate.yaml")
	base := filepath.Dir(bare)
	if os.Geteuid() != 0 {
		if err := os.Chmod(base, 0o500); err != nil {
			t.Fatal(err)
		}
		_, err := restore(t, file, paper, bare)
		expect(t, "a folder of root's", err, base, "run the command as root")
		return
	}
	for _, c := range []struct {
		name, at, data string
		flags          uintptr
		want           []string
	}{
		{"the configuration's medium is full", base, "size=64k", 0, []string{"no space left on device", "without room", "df -h " + base}},
		{"the configuration's medium can only be read", base, "", unix.MS_RDONLY, []string{base, "can only be read", "remount"}},
		{"the state's medium is full", filepath.Join(base, "state"), "size=64k", 0, []string{"no space left on device", "without room", "df -h " + filepath.Join(base, "state")}},
		{"the state's medium can only be read", filepath.Join(base, "state"), "", unix.MS_RDONLY, []string{"the state folder", "can only be read", "remount"}},
	} {
		if err := os.MkdirAll(c.at, 0o755); err != nil {
			t.Fatal(err)
		}
		if err := unix.Mount("none", c.at, "tmpfs", c.flags, c.data); err != nil {
			if os.Getenv("CI") != "" {
				t.Fatal(err)
			}
			t.Skipf("cannot mount here (%v); .ci/run is root and can", err)
		}
		_, err := restore(t, file, paper, bare)
		expect(t, c.name, err, c.want...)
		if err := unix.Unmount(c.at, unix.MNT_DETACH); err != nil {
			t.Fatal(err)
		}
	}
}
