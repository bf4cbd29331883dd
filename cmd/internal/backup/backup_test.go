package backup

import (
	"bytes"
	"errors"
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
	"gatehouse/edge/sqlite"
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

const authority = "server+93812e29+ATtqJ7zOtqQtYqOo0CpvDXNlMhV3HeJDpjrASKGLWdop\n"

// A gate that names more than its policy is restored with it, and starts.
func TestRestoredWithWhatItNames(t *testing.T) {
	conf, paper := gate(t, "console: {listen: '127.0.0.1:0', tips: show/tips.yaml}\nkeys: {inspectors: keys/inspectors}\n")
	dir := filepath.Dir(conf)
	write(t, filepath.Join(dir, "show/tips.yaml"), "en: [Wash your hands]\n")
	write(t, filepath.Join(dir, "keys/inspectors"), authority)
	write(t, filepath.Join(dir, "keys/beside"), "a secret that nobody has named")
	bare := filepath.Join(t.TempDir(), "gate.yaml")
	out, err := restore(t, backupOf(t, conf), paper, bare)
	if err != nil {
		t.Fatal(err)
	}
	for name, want := range map[string]string{"show/tips.yaml": "en: [Wash your hands]\n", "keys/inspectors": authority, "keys/beside": ""} {
		if got, err := os.ReadFile(filepath.Join(filepath.Dir(bare), name)); string(got) != want || (err != nil) != (want == "") {
			t.Errorf("%s: %q, %v", name, got, err)
		}
	}
	if st, err := os.Stat(filepath.Join(filepath.Dir(bare), "keys")); err != nil || st.Mode().Perm() != 0o700 {
		t.Errorf("the keys' folder: %v, %v", st.Mode(), err)
	}
	if strings.Contains(out, "was not in the backup") || !strings.Contains(out, "gatehouse setup && gatehouse check") {
		t.Errorf("it says:\n%s", out)
	}
	cfg, err := config.Load(bare)
	if err != nil {
		t.Fatal(err)
	}
	var log bytes.Buffer
	a, err := app.Build(t.Context(), cfg, app.Options{Version: "test", TrustClock: true, Log: slog.New(slog.NewTextHandler(&log, nil))})
	if err != nil {
		t.Fatal(err)
	}
	if err := a.Close(); err != nil {
		t.Error(err)
	}
	if strings.Contains(log.String(), "tips") {
		t.Errorf("the log:\n%s", log.String())
	}
}

// What a backup cannot hold, or a device cannot take over unseen, restore tells.
func TestRestoreTellsWhatIsLeft(t *testing.T) {
	conf, paper := gate(t, "")
	text, err := os.ReadFile(conf)
	if err != nil {
		t.Fatal(err)
	}
	dir := filepath.Dir(conf)
	write(t, conf, strings.Replace(string(text), "thermometer: none", "thermometer: {driver: gy-mcu90614, port: /dev/gatehouse/thermometer-in}", 1)+
		"console: {listen: '127.0.0.1:0', tips: tips.yaml, cert: keys/console.pem, key: keys/console.key}\n")
	for _, name := range []string{"keys/console.pem", "keys/console.key"} {
		write(t, filepath.Join(dir, name), "secret")
	}
	cfg, err := config.Load(conf)
	if err != nil {
		t.Fatal(err)
	}
	rules, none := t.TempDir(), t.TempDir()
	write(t, filepath.Join(rules, "70-gatehouse.rules"), "# reader-in\n")
	write(t, filepath.Join(rules, "99-other.rules"), "# not a gate's\n")
	for _, c := range []struct {
		udev, want string
	}{{rules, "cp RULES /etc/udev/rules.d/ && udevadm control --reload"}, {none, "no udev rules for them were in the backup"}} {
		to, err := readers(cfg)
		if err != nil {
			t.Fatal(err)
		}
		copies := t.TempDir()
		for _, name := range []string{journalName, registryName} {
			if err := sqlite.Copy(t.Context(), filepath.Join(cfg.State, name), filepath.Join(copies, name)); err != nil {
				t.Fatal(err)
			}
		}
		f, err := os.Create(filepath.Join(t.TempDir(), "x.backup"))
		if err != nil {
			t.Fatal(err)
		}
		if err := errors.Join(pack(cfg, conf, copies, c.udev, "test", time.Now(), f, to), f.Close()); err != nil {
			t.Fatal(err) // also without the tips, which are not there
		}
		bare := filepath.Join(t.TempDir(), "gate.yaml")
		base := filepath.Dir(bare)
		out, err := restore(t, f.Name(), paper, bare)
		if err != nil {
			t.Fatal(err)
		}
		for _, want := range []string{strings.ReplaceAll(c.want, "RULES", filepath.Join(base, "udev/70-gatehouse.rules")), filepath.Join(base, "tips.yaml") + " (console.tips in gate.yaml) was not in the backup",
			filepath.Join(base, "keys/console.pem") + " (console.cert", filepath.Join(base, "keys/console.key") + " (console.key"} {
			if !strings.Contains(out, want) {
				t.Errorf("it does not say %q:\n%s", want, out)
			}
		}
		if _, err := os.Stat(filepath.Join(base, "udev/99-other.rules")); err == nil {
			t.Error("rules that are none of the gate's came along")
		}
	}
}
