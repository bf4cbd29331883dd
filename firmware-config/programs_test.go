package firmwareconfig

import (
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
)

func sample(t *testing.T, name string) string {
	t.Helper()
	b, err := Samples.ReadFile(name)
	if err != nil {
		t.Fatal(err)
	}
	return string(b)
}

// program finds a program, which has to be there when CI is set.
func program(t *testing.T, name string) string {
	t.Helper()
	if path, err := exec.LookPath(name); err == nil {
		return path
	}
	for _, dir := range []string{"/usr/sbin/", "/sbin/"} {
		if _, err := os.Stat(dir + name); err == nil {
			return dir + name
		}
	}
	if os.Getenv("CI") != "" {
		t.Fatalf("%s is missing; .ci/run installs it", name)
	}
	t.Skipf("%s is not installed here; .ci/run installs it", name)
	return ""
}

// run gives a program a sample and returns what it says.
func run(t *testing.T, stdin, name string, args ...string) (string, error) {
	t.Helper()
	cmd := exec.Command(program(t, name), args...)
	cmd.Stdin = strings.NewReader(stdin)
	out, err := cmd.CombinedOutput()
	return string(out), err
}

func file(t *testing.T, text string) string {
	t.Helper()
	f := filepath.Join(t.TempDir(), "sample")
	if err := os.WriteFile(f, []byte(text), 0o644); err != nil {
		t.Fatal(err)
	}
	return f
}

func TestChronyReadsItsSample(t *testing.T) {
	text := sample(t, "chrony/gatehouse.conf")
	if out, err := run(t, "", "chronyd", "-p", "-f", file(t, text)); err != nil || !strings.Contains(out, "makestep 1.0 3") {
		t.Errorf("%v\n%s", err, out)
	}
	// An estate's own server may be the only one there is (chrony.conf(5), minsources).
	if strings.Contains(text, "\nminsources") && !strings.Contains(text, "\nminsources 1\n") {
		t.Error("a gate with one server would never set its clock")
	}
	if out, err := run(t, "", "chronyd", "-p", "-f", file(t, text+"makestop 1\n")); err == nil {
		t.Errorf("a wrong word is not noticed:\n%s", out)
	}
}

func TestNetworkManagerReadsItsSamples(t *testing.T) {
	names, err := fs.Glob(Samples, "network/*.nmconnection")
	if err != nil || len(names) < 2 {
		t.Fatalf("%q %v", names, err)
	}
	for _, name := range names {
		text := sample(t, name)
		out, err := run(t, text, "nmcli", "--offline", "connection", "modify", "connection.zone", "gate")
		if err != nil || !strings.Contains(out, "zone=gate") {
			t.Errorf("%s: %v\n%s", name, err, out)
		}
		// What it writes back holds all that the sample says: it has understood every key.
		for l := range strings.Lines(text) {
			key, value, ok := strings.Cut(strings.TrimSpace(l), "=")
			// Defaults are left out when they are written.
			if !ok || strings.HasPrefix(l, "#") || slices.Contains([]string{"autoconnect=true", "may-fail=true", "autoconnect-priority=0"}, key+"="+value) {
				continue
			}
			if !strings.Contains(out, key+"="+value+"\n") {
				t.Errorf("%s: %q is not understood:\n%s", name, strings.TrimSpace(l), out)
			}
		}
		// 2147483647 is "for ever" (nm-settings-nmcli(5), ipv4.dhcp-timeout): who gives up
		// has no way out of the estate until somebody pulls the cable.
		if strings.Contains(name, "ethernet") && (!strings.Contains(out, "dhcp-timeout=2147483647\n") || !strings.Contains(out, "method=auto\n") || !strings.Contains(out, "address1=192.168.254.1/24\n") || !strings.Contains(out, "autoconnect-retries=0\n")) {
			t.Errorf("%s: not both a fixed address and DHCP without an end:\n%s", name, out)
		}
	}
}

// The table of file systems: findmnt finds no fault but that this machine has
// neither the partitions nor the folders.
func TestFstab(t *testing.T) {
	faults := func(text string) (out []string) {
		said, _ := run(t, "", "findmnt", "--verify", "--tab-file", file(t, text))
		for l := range strings.Lines(said) {
			l = strings.TrimSpace(l)
			if strings.HasPrefix(l, "[") && !strings.Contains(l, "unreachable") && !strings.Contains(l, "cannot detect on-disk") && !strings.Contains(l, "does not match") {
				out = append(out, l)
			}
		}
		if !strings.Contains(said, "0 parse errors") {
			out = append(out, said)
		}
		return out
	}
	text := sample(t, "raspberrypi/fstab")
	if f := faults(text); len(f) > 0 {
		t.Errorf("%q", f)
	}
	if f := faults(text + "LABEL=x\n"); len(f) == 0 {
		t.Error("a half line is not noticed")
	}
	for _, want := range []string{" / ext4 ro,", " /boot/firmware vfat ro,", " /state ext4 rw,", "/var/lib/gatehouse none bind"} {
		if !strings.Contains(text, want) {
			t.Errorf("no %q", want)
		}
	}
}

// No program but the boards' firmware reads config.txt: its documented rules are
// checked here.
func TestBootConfig(t *testing.T) {
	filters := []string{"all", "none", "pi02", "pi3", "pi3+", "pi4", "pi400", "pi5", "pi500", "cm4", "cm5"}
	keys := regexp.MustCompile(`^(dtoverlay|dtparam|gpio|enable_uart|camera_auto_detect)$`)
	section, said := "all", map[string][]string{}
	for i, l := range strings.Split(sample(t, "raspberrypi/config.txt"), "\n") {
		if len(l) > 98 {
			t.Errorf("line %d has %d characters, the firmware reads 98", i+1, len(l))
		}
		switch {
		case l == "" || l[0] == '#':
		case l[0] == '[':
			section = strings.Trim(l, "[]")
			if !slices.Contains(filters, section) {
				t.Errorf("line %d: there is no filter [%s]", i+1, section)
			}
		default:
			key, value, ok := strings.Cut(l, "=")
			if !ok || value == "" || !keys.MatchString(key) {
				t.Errorf("line %d: %q", i+1, l)
			}
			said[section] = append(said[section], l)
		}
	}
	for _, board := range []string{"pi02", "pi3", "pi4", "pi5"} {
		have := append(slices.Clone(said["all"]), said[board]...)
		for _, want := range []string{"enable_uart=1", "dtparam=watchdog=on", "dtparam=spi=on", "dtoverlay=disable-bt", "dtoverlay=i2c-rtc,ds3231"} {
			if !slices.Contains(have, want) {
				t.Errorf("%s has no %s", board, want)
			}
		}
	}
	cmdline := sample(t, "raspberrypi/cmdline.txt")
	if strings.Count(cmdline, "\n") != 1 || strings.Contains(cmdline, "serial0") || strings.Contains(cmdline, "ttyAMA") || !strings.Contains(cmdline, " ro ") {
		t.Errorf("cmdline.txt: %q", cmdline)
	}
	// The lines that are low at power-on are those that gate.yaml releases with high.
	gate := sample(t, "gate.yaml")
	for _, pin := range []string{"17", "22", "23", "24"} {
		if !regexp.MustCompile(`GPIO` + pin + `\b`).MatchString(gate) {
			t.Errorf("gate.yaml has no GPIO%s", pin)
		}
	}
}

// Rules of udev: by its own check where it has one (systemd 254 and newer), and for
// older ones in the virtual machine.
func TestUdevRules(t *testing.T) {
	dir := t.TempDir()
	var files []string
	for _, name := range []string{"60-gatehouse-devices.rules", "70-gatehouse.rules"} {
		f := filepath.Join(dir, name)
		if err := os.WriteFile(f, []byte(sample(t, "udev/"+name)), 0o644); err != nil {
			t.Fatal(err)
		}
		files = append(files, f)
	}
	if help, _ := run(t, "", "udevadm", "--help"); !strings.Contains(help, "verify") {
		// The rules' words, at least: a match, an assignment, a comma between them.
		rule := regexp.MustCompile(`^[A-Z]+(\{[^}]+\})?(==|!=|\+=|=)"[^"]*"(, [A-Z]+(\{[^}]+\})?(==|!=|\+=|=)"[^"]*")*$`)
		for _, f := range files {
			b, err := os.ReadFile(f)
			if err != nil {
				t.Fatal(err)
			}
			for l := range strings.Lines(string(b)) {
				if l = strings.TrimSpace(l); l != "" && l[0] != '#' && !rule.MatchString(l) {
					t.Errorf("%s: %q", filepath.Base(f), l)
				}
			}
		}
		return
	}
	if out, err := run(t, "", "udevadm", append([]string{"verify", "--resolve-names=never"}, files...)...); err != nil {
		t.Errorf("%v\n%s", err, out)
	}
}
