package setupcmd

import (
	"errors"
	"flag"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"testing"

	"gatehouse/cmd/internal/config"
	firmwareconfig "gatehouse/firmware-config"
)

var update = flag.Bool("update", false, "write the golden files")

const widest = `community: c
site: s
gate: g
policy: p.yaml
passages:
  - {name: m, barrier: {driver: relay, pin: GPIO17}, beam: {driver: gpio, pin: GPIO5}}
lanes:
  - name: in
    passage: m
    direction: in
    scanners: [{driver: rdm6300, port: /dev/ttyAMA0}, {driver: hid, name: RFID reader, content: decimal, format: W34}, {driver: qr, port: /dev/ttyACM7}]
    thermometer: {driver: mlx90614, bus: i2c-1}
  - {name: out, passage: m, direction: out, scanner: {driver: wiegand, d0: GPIO14, d1: GPIO15}, thermometer: none}
`

func samples(t *testing.T) map[string]string {
	out := map[string]string{"widest": widest}
	for name, file := range map[string]string{"sample": "gate.yaml", "no-hardware": "gate-no-hardware.yaml"} {
		b, err := firmwareconfig.Samples.ReadFile(file)
		if err != nil {
			t.Fatal(err)
		}
		out[name] = string(b)
	}
	return out
}

func TestDropIn(t *testing.T) {
	for name, src := range samples(t) {
		t.Run(name, func(t *testing.T) {
			cfg, err := config.Parse("/etc/gatehouse/gate.yaml", []byte(src))
			if err != nil {
				t.Fatal(err)
			}
			a, err := Rules(cfg, t.TempDir())
			if err != nil {
				t.Fatal(err)
			}
			got := a.DropIn("/etc/gatehouse/gate.yaml")
			golden := filepath.Join("testdata", name+".conf")
			if *update {
				if err := os.WriteFile(golden, got, 0o644); err != nil {
					t.Fatal(err)
				}
			}
			want, err := os.ReadFile(golden)
			if err != nil {
				t.Fatal(err)
			}
			if string(got) != string(want) {
				t.Errorf("got:\n%s\nwant:\n%s", got, want)
			}
		})
	}
}

func TestWrongDeviceWritesNothing(t *testing.T) {
	dir := t.TempDir()
	conf := filepath.Join(dir, "gate.yaml")
	if err := os.WriteFile(conf, []byte(strings.Replace(widest, "mlx90614", "mlx9061", 1)), 0o600); err != nil {
		t.Fatal(err)
	}
	c := New(conf)
	c.SetArgs([]string{"--root", dir})
	c.SilenceErrors, c.SilenceUsage = true, true
	if err := c.ExecuteContext(t.Context()); err == nil || !strings.Contains(err.Error(), "mlx9061") {
		t.Errorf("error %v", err)
	}
	if _, err := os.Stat(filepath.Join(dir, "etc")); err == nil {
		t.Error("something was written")
	}
}

// The service of the configuration, and no other, is given what it names; what it
// lacks is told, and what it may open besides. Which of its classes an adapter has
// that is not plugged in is no matter.
func TestRefreshAndCompare(t *testing.T) {
	root := t.TempDir()
	conf := filepath.Join(root, serviceConfig)
	write := func(path, text string) {
		t.Helper()
		if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(path, []byte(text), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	const head = "community: c\nsite: s\ngate: g\npolicy: p.yaml\npassages: [{name: m, barrier: none}]\n"
	with := func(scanner string) string {
		return head + "lanes: [{name: in, passage: m, direction: in, scanner: " + scanner + ", thermometer: none}]\n"
	}
	drop := filepath.Join(root, dropIn)
	refresh := func() string {
		t.Helper()
		var out strings.Builder
		if err := Refresh(t.Context(), &out, conf, root); err != nil {
			t.Fatal(err)
		}
		return out.String()
	}
	compare := func(text string) (lacks, besides string) {
		t.Helper()
		cfg, err := config.Parse(conf, []byte(text))
		if err != nil {
			t.Fatal(err)
		}
		l, b, err := Compare(cfg, root)
		if err != nil {
			t.Fatal(err)
		}
		return strings.Join(l, ", "), strings.Join(b, ", ")
	}
	named, wired := with("{driver: rdm6300, port: /dev/gatehouse/reader-in}"), with("{driver: wiegand, d0: GPIO14, d1: GPIO15}")
	write(conf, wired)
	if out := refresh(); out != "" {
		t.Errorf("without the service it says %q", out)
	}
	if _, err := os.Stat(drop); err == nil {
		t.Fatal("a drop-in for a service that is not installed")
	}
	if l, b := compare(wired); l != "char-gpiochip rw, group gpio" || b != "" {
		t.Errorf("without a drop-in it lacks %q, and may %q", l, b)
	}
	if l, b := compare(with("console")); l+b != "" {
		t.Errorf("a post without hardware lacks %q, and may %q", l, b)
	}
	write(filepath.Join(root, "usr/lib/systemd/system/gatehouse.service"), "[Service]\n")
	if !Serves(conf, root) || Serves(filepath.Join(root, "gate.yaml"), root) {
		t.Error("it does not know which configuration is the service's")
	}
	if out := refresh(); !strings.Contains(out, "the service may open gpiochip") {
		t.Errorf("it says %q", out)
	}
	if out := refresh(); out != "" {
		t.Errorf("with nothing to do it says %q", out)
	}
	if l, b := compare(wired); l+b != "" {
		t.Errorf("set up, it lacks %q, and may %q", l, b)
	}
	if l, b := compare(named); !strings.Contains(l, "char-ttyUSB rw") || !strings.Contains(l, "group dialout") || b != "char-gpiochip rw" {
		t.Errorf("with another reader it lacks %q, and may %q", l, b)
	}
	// Set up while the adapter, of one class, was there.
	write(drop, "[Service]\nDeviceAllow=\nDeviceAllow=char-ttyACM rw\nSupplementaryGroups=\nSupplementaryGroups=dialout\n")
	if l, b := compare(named); l+b != "" {
		t.Errorf("with the reader unplugged it lacks %q, and may %q", l, b)
	}
	write(conf, "broken")
	if err := Refresh(t.Context(), &strings.Builder{}, conf, root); err == nil {
		t.Error("a broken configuration is taken")
	}
}

// The nightly backup may write where gate.yaml sends it, for as long as it does.
func TestBackupPlace(t *testing.T) {
	dir := t.TempDir()
	conf := filepath.Join(dir, "gate.yaml")
	drop := filepath.Join(dir, backupDropIn)
	for _, c := range []struct{ more, want string }{
		{"", ""},
		{"backup: {to: /media/backup}\n", "RequiresMountsFor=/media/backup\n\n[Service]\nReadWritePaths=-/media/backup\n"},
		{"backup: {to: /media/other}\n", "RequiresMountsFor=/media/other\n\n[Service]\nReadWritePaths=-/media/other\n"},
		{"backup: {keep: 3}\n", ""},
	} {
		if err := os.WriteFile(conf, []byte(widest+c.more), 0o600); err != nil {
			t.Fatal(err)
		}
		cmd := New(conf)
		cmd.SetArgs([]string{"--root", dir})
		if err := cmd.ExecuteContext(t.Context()); err != nil {
			t.Fatal(err)
		}
		b, err := os.ReadFile(drop)
		if c.want == "" {
			if err == nil {
				t.Errorf("%q: there is %s", c.more, b)
			}
			continue
		}
		if err != nil || !strings.HasSuffix(string(b), c.want) {
			t.Errorf("%q: %v %s", c.more, err, b)
		}
	}
}

// program finds a tool of systemd's, which has to be there when CI is set.
func program(t *testing.T, name string) string {
	t.Helper()
	path, err := exec.LookPath(name)
	if err != nil {
		if os.Getenv("CI") != "" {
			t.Fatalf("%s is missing: apt-get install systemd", name)
		}
		t.Skipf("%s is not installed here; .ci/run installs it", name)
	}
	return path
}

var exposure = regexp.MustCompile(`Overall exposure level for \S+: ([0-9.]+)`)

// The services are closed up, also with the devices of the widest configuration.
func TestExposure(t *testing.T) {
	analyze := program(t, "systemd-analyze")
	src := filepath.Join("..", "..", "..", "systemd")
	for unit, most := range map[string]float64{"gatehouse.service": 1.5, "gatehouse-backup.service": 1.5, "gatehouse-clock.service": 1.5, "gatehouse-recovery-key.service": 1.5, "communityd.service": 1.5} {
		for _, drop := range []string{"", "widest.conf", "sample.conf", "no-hardware.conf"} {
			if drop != "" && unit != "gatehouse.service" {
				continue
			}
			dir := t.TempDir()
			text, err := os.ReadFile(filepath.Join(src, unit))
			if err != nil {
				t.Fatal(err)
			}
			if drop != "" {
				more, err := os.ReadFile(filepath.Join("testdata", drop))
				if err != nil {
					t.Fatal(err)
				}
				// The offline analysis reads no drop-ins; the same lines at the end say the same.
				_, service, _ := strings.Cut(string(more), "[Service]\n")
				text = append(text, "\n[Service]\n"+service...)
			}
			file := filepath.Join(dir, unit)
			if err := os.WriteFile(file, text, 0o644); err != nil {
				t.Fatal(err)
			}
			out, err := exec.Command(analyze, "security", "--offline=yes", "--no-pager", file).CombinedOutput()
			m := exposure.FindSubmatch(out)
			if m == nil {
				t.Fatalf("%s %s: %v\n%s", unit, drop, err, out)
			}
			if got, err := strconv.ParseFloat(string(m[1]), 64); err != nil || got > most {
				t.Errorf("%s with %q is exposed %s, want at most %v", unit, drop, m[1], most)
			}
		}
	}
}

// Every unit, and every drop-in that is written, is one that systemd takes.
func TestUnitsVerify(t *testing.T) {
	analyze := program(t, "systemd-analyze")
	src := filepath.Join("..", "..", "..", "systemd")
	dir := t.TempDir()
	entries, err := os.ReadDir(src)
	if err != nil {
		t.Fatal(err)
	}
	var units []string
	programs := regexp.MustCompile(`(?m)^(ExecStart=)/usr/bin/\S+`)
	for _, e := range entries {
		if strings.HasSuffix(e.Name(), ".conf") {
			continue
		}
		b, err := os.ReadFile(filepath.Join(src, e.Name()))
		if err != nil {
			t.Fatal(err)
		}
		// The programs need not be installed where this is tested.
		b = programs.ReplaceAll(b, []byte("${1}/bin/true"))
		if err := os.WriteFile(filepath.Join(dir, e.Name()), b, 0o644); err != nil {
			t.Fatal(err)
		}
		units = append(units, filepath.Join(dir, e.Name()))
	}
	if len(units) < 6 {
		t.Fatalf("only %q", units)
	}
	drop := filepath.Join(dir, "gatehouse.service.d")
	if err := os.Mkdir(drop, 0o755); err != nil {
		t.Fatal(err)
	}
	b, err := os.ReadFile("testdata/widest.conf")
	if err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(drop, "10-devices.conf"), b, 0o644); err != nil {
		t.Fatal(err)
	}
	place := filepath.Join(dir, "gatehouse-backup.service.d", "10-place.conf")
	if _, err := backupPlace(dir, "/media/backup"); err != nil {
		t.Fatal(err)
	}
	if err := errors.Join(os.Mkdir(filepath.Dir(place), 0o755), os.Rename(filepath.Join(dir, backupDropIn), place)); err != nil {
		t.Fatal(err)
	}
	verify := func() string {
		out, _ := exec.Command(analyze, append([]string{"verify", "--man=no", "--recursive-errors=no"}, units...)...).CombinedOutput()
		var ours []string
		for l := range strings.Lines(string(out)) {
			if strings.Contains(l, dir) || strings.Contains(l, "gatehouse") || strings.Contains(l, "communityd") {
				ours = append(ours, l)
			}
		}
		return strings.Join(ours, "")
	}
	if out := verify(); out != "" {
		t.Errorf("systemd-analyze verify:\n%s", out)
	}
	// That the check can fail: a key that does not exist is said.
	if err := os.WriteFile(filepath.Join(drop, "20-wrong.conf"), []byte("[Service]\nDevicesAllow=x\n"), 0o644); err != nil {
		t.Fatal(err)
	}
	if out := verify(); !strings.Contains(out, "DevicesAllow") {
		t.Errorf("a wrong key is not noticed: %q", out)
	}
}

// A name of udev's gives what it points to; a USB adapter's gives both classes, since
// its successor may be of the other one.
func TestNameOfUdev(t *testing.T) {
	const name = "/dev/gatehouse/reader-in"
	usb := []string{"char-ttyUSB rw", "char-ttyACM rw"}
	for to, c := range map[string]struct {
		allow []string
		notes int
	}{
		"../ttyAMA0":  {[]string{"/dev/ttyAMA0 rw"}, 0},
		"/dev/ttyS0":  {[]string{"/dev/ttyS0 rw"}, 0},
		"../ttyUSB3":  {usb, 0},
		"../ttyACM0":  {usb, 0},
		"":            {usb, 1}, // it is not plugged in
		"../bus/x/01": {usb, 0},
	} {
		root := t.TempDir()
		if err := os.MkdirAll(filepath.Join(root, filepath.Dir(name)), 0o755); err != nil {
			t.Fatal(err)
		}
		if to != "" {
			if err := os.Symlink(to, filepath.Join(root, name)); err != nil {
				t.Fatal(err)
			}
		}
		var a Access
		a.add(name, root)
		if !slices.Equal(a.Allow, c.allow) || len(a.Notes) != c.notes {
			t.Errorf("%q: %q, notes %q", to, a.Allow, a.Notes)
		}
	}
}
