//go:build vgate

package vgatetest

import (
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"
)

func sh(t *testing.T, command string) string {
	t.Helper()
	out, err := exec.Command("sh", "-c", command).CombinedOutput()
	if err != nil {
		t.Fatalf("%s: %v\n%s\n%s", command, err, out, journalText())
	}
	return string(out)
}

func fails(t *testing.T, command string) string {
	t.Helper()
	out, err := exec.Command("sh", "-c", command).CombinedOutput()
	if err == nil {
		t.Fatalf("%s: does not fail\n%s", command, out)
	}
	return string(out)
}

func exists(path string) bool { _, err := os.Lstat(path); return err == nil }

// TestPackages takes the packages through their life in a clean root with a real
// systemd: install, configure, upgrade, downgrade, remove, install again, purge.
func TestPackages(t *testing.T) {
	sh(t, "dpkg -i /in/gatehouse_1.0.0_amd64.deb")
	for _, path := range []string{"/usr/bin/gatehouse", "/usr/share/man/man1/gatehouse-run.1.gz", "/usr/share/bash-completion/completions/gatehouse",
		"/usr/share/zsh/vendor-completions/_gatehouse", "/etc/gatehouse/policies/normal-times.yaml", "/usr/share/gatehouse/examples/gate.yaml", "/etc/gatehouse/keys"} {
		if !exists(path) {
			t.Errorf("%s is not there", path)
		}
	}
	sh(t, "getent passwd gatehouse && getent group gpio i2c spi")
	if s := unit(t, "ActiveState"); s != "inactive" {
		t.Errorf("without a configuration the service is %s", s)
	}
	if out := sh(t, "systemctl is-enabled gatehouse.service gatehouse.target gatehouse-backup.timer"); strings.Count(out, "enabled") != 3 {
		t.Errorf("%s", out)
	}
	if out := fails(t, "systemctl is-enabled gatehouse-kiosk.service"); !strings.Contains(out, "disabled") {
		t.Errorf("%s", out)
	}
	sh(t, "systemctl is-active gatehouse-backup.timer")

	// A configuration whose secrets only root can read.
	conf := `community: lakeside
site: east-garden
gate: east
timezone: UTC
policy: policies/normal-times.yaml
keys: {site: keys/site.key}
console: {listen: ""}
metrics: {listen: 127.0.0.1:9464}
passages: [{name: main, open_for: 200ms, barrier: {driver: relay, pin: GPIO20, pulse: 50ms}}]
lanes: [{name: in, passage: main, direction: in, thermometer: none, scanner: {driver: rdm6300, port: /dev/ttyACM0}}]
`
	write := func(path, text string, mode os.FileMode) {
		t.Helper()
		if err := os.WriteFile(path, []byte(text), mode); err != nil {
			t.Fatal(err)
		}
	}
	write("/etc/gatehouse/gate.yaml", conf, 0o644)
	write("/etc/gatehouse/keys/site.key", "1 "+strings.Repeat("5a", 32)+"\n", 0o600)
	sh(t, "gatehouse setup && systemctl start gatehouse")
	waitFor(t, "ActiveState", "active")
	if got := sh(t, "stat -c %U:%a /var/lib/gatehouse /var/lib/gatehouse/journal.db"); got != "gatehouse:700\ngatehouse:600\n" {
		t.Errorf("the state is %s", got)
	}

	// What the service may open, and what not, as the kernel sees it.
	pid := unit(t, "MainPID")
	for dev, want := range map[string]bool{"/dev/gpiochip0": true, "/dev/ttyACM0": true, "/dev/vgate-gpio": false, "/dev/i2c-1": false, "/dev/vda": false} {
		cmd := exec.Command("systemd-run", "--quiet", "--pipe", "--wait", "-p", "DevicePolicy=closed", "-p", "DeviceAllow=char-gpiochip rw", "-p", "DeviceAllow=char-ttyACM rw", "dd", "if="+dev, "of=/dev/null", "count=0")
		err := cmd.Run()
		if (err == nil) != want {
			t.Errorf("open %s: %v", dev, err)
		}
	}
	if got := unit(t, "DeviceAllow"); !strings.Contains(got, "char-gpiochip rw") || !strings.Contains(got, "char-ttyACM rw") || strings.Contains(got, "i2c") {
		t.Errorf("DeviceAllow is %s", got)
	}
	if got := sh(t, "id -Gn -- $(ps -o user= -p "+pid+") >/dev/null; grep ^Groups /proc/"+pid+"/status"); len(strings.Fields(got)) < 3 {
		t.Errorf("%s", got)
	}

	// A reload drops nothing; what is wrong is refused and said.
	write("/etc/gatehouse/gate.yaml", strings.Replace(conf, "open_for: 200ms", "open_for: 300ms", 1), 0o644)
	sh(t, "systemctl reload gatehouse")
	waitStatus := func(want string) {
		t.Helper()
		for end := time.Now().Add(time.Minute); !strings.Contains(unit(t, "StatusText"), want); time.Sleep(200 * time.Millisecond) {
			if time.Now().After(end) {
				t.Fatalf("the status is %q, want %q\n%s", unit(t, "StatusText"), want, journalText())
			}
		}
	}
	write("/etc/gatehouse/gate.yaml", strings.Replace(conf, "pin: GPIO20", "pin: GPIO21", 1), 0o644)
	sh(t, "systemctl reload gatehouse")
	waitStatus("needs a restart: main.barrier")
	write("/etc/gatehouse/gate.yaml", conf[:len(conf)/2], 0o644)
	sh(t, "systemctl reload gatehouse")
	waitStatus("REFUSED")
	write("/etc/gatehouse/gate.yaml", conf, 0o644)
	sh(t, "systemctl reload gatehouse")
	waitFor(t, "ActiveState", "active")
	if got := unit(t, "MainPID"); got != pid {
		t.Errorf("another process: %s, was %s", got, pid)
	}

	// Idle, for a while: what it costs.
	ticks := func() int {
		b, err := os.ReadFile("/proc/" + pid + "/stat")
		if err != nil {
			t.Fatal(err)
		}
		f := strings.Fields(string(b[strings.LastIndexByte(string(b), ')'):]))
		u, _ := strconv.Atoi(f[12])
		s, _ := strconv.Atoi(f[11])
		return u + s
	}
	time.Sleep(10 * time.Second)
	before := ticks()
	const idle = 60
	time.Sleep(idle * time.Second)
	memory, err := strconv.Atoi(unit(t, "MemoryCurrent"))
	if err != nil {
		t.Fatal(err)
	}
	rss := strings.Fields(sh(t, "grep VmRSS /proc/"+pid+"/status"))[1]
	kib, err := strconv.Atoi(rss)
	if err != nil {
		t.Fatal(err)
	}
	spent := ticks() - before
	t.Logf("idle: %.2f %% of a core, resident %d MiB, the unit's memory with its page cache %d MiB", float64(spent)/idle, kib>>10, memory>>20)
	if spent > idle {
		t.Errorf("%d ms of processor time in %d s of idling", spent*10, idle)
	}
	if kib > 64<<10 {
		t.Errorf("%d KiB resident", kib)
	}

	// Upgrade and downgrade: the running gate is the new one, its journal goes on.
	gateEntries := func() int {
		t.Helper()
		for end := time.Now().Add(time.Minute); ; time.Sleep(200 * time.Millisecond) {
			n, err := journalSize()
			if err == nil {
				return n
			}
			if time.Now().After(end) {
				t.Fatalf("%v\n%s", err, journalText())
			}
		}
	}
	had := gateEntries()
	for _, version := range []string{"2.0.0", "1.0.0"} {
		sh(t, "dpkg -i /in/gatehouse_"+version+"_amd64.deb")
		waitFor(t, "ActiveState", "active")
		if got := sh(t, "gatehouse version"); !strings.Contains(got, version) {
			t.Errorf("version %s", got)
		}
		if got := unit(t, "MainPID"); got == pid {
			t.Errorf("the old process runs on")
		} else {
			pid = got
		}
		n := gateEntries()
		if n <= had {
			t.Errorf("%d entries after %s, before %d", n, version, had)
		}
		had = n
		if got, err := os.ReadFile("/etc/gatehouse/gate.yaml"); err != nil || string(got) != conf {
			t.Errorf("gate.yaml: %v %q", err, got)
		}
	}
	// Whoever stopped the gate starts it, not a package.
	sh(t, "systemctl stop gatehouse && dpkg -i /in/gatehouse_2.0.0_amd64.deb")
	if s := unit(t, "ActiveState"); s != "inactive" {
		t.Errorf("an upgrade has started a stopped gate: %s", s)
	}
	sh(t, "systemctl disable --now gatehouse-backup.timer && dpkg -i /in/gatehouse_1.0.0_amd64.deb")
	if out := fails(t, "systemctl is-enabled gatehouse-backup.timer"); !strings.Contains(out, "disabled") {
		t.Errorf("what was disabled is %s", out)
	}

	sh(t, "systemctl start gatehouse && dpkg -r gatehouse")
	if exists("/usr/bin/gatehouse") || unit(t, "ActiveState") == "active" {
		t.Error("removed, but the program is there or runs")
	}
	for _, path := range []string{"/var/lib/gatehouse/journal.db", "/etc/gatehouse/gate.yaml", "/etc/gatehouse/keys/site.key", "/etc/gatehouse/policies/normal-times.yaml"} {
		if !exists(path) {
			t.Errorf("removing took %s away", path)
		}
	}
	sh(t, "dpkg -i /in/gatehouse_1.0.0_amd64.deb && systemctl start gatehouse")
	waitFor(t, "ActiveState", "active")
	if n := gateEntries(); n <= had {
		t.Errorf("%d entries after coming back, before %d", n, had)
	}
	sh(t, "dpkg -P gatehouse")
	left, err := filepath.Glob("/*/*/gatehouse*")
	if err != nil {
		t.Fatal(err)
	}
	// The packages themselves lie in the test's own folder.
	left = slices.DeleteFunc(left, func(path string) bool { return strings.HasPrefix(path, "/in/") })
	if more, _ := filepath.Glob("/etc/systemd/system/*/gatehouse*"); len(left) > 0 || len(more) > 0 || exists("/etc/systemd/system/gatehouse.service.d") {
		t.Errorf("purging leaves %q %q", left, more)
	}

	sh(t, "dpkg -i /in/communityd_1.0.0_amd64.deb && communityd --help >/dev/null")
	if got := sh(t, "communityd --version"); !strings.Contains(got, "1.0.0") {
		t.Errorf("version %s", got)
	}
	// The sample as it is: there is no such broker, and the server waits for it.
	sh(t, "communityd certificate --community lakeside --store /tmp/c.db --out /etc/communityd/keys broker.example && chmod 600 /etc/communityd/keys/* && cp /usr/share/communityd/examples/environment /etc/communityd/environment && systemctl start communityd")
	time.Sleep(10 * time.Second)
	if out := sh(t, "systemctl show --value -p ActiveState,NRestarts communityd"); out != "0\nactive\n" && out != "active\n0\n" {
		t.Errorf("with the sample: %s\n%s", out, sh(t, "journalctl -b --no-pager -n 20 -u communityd"))
	}
	sh(t, "systemctl stop communityd")
	write("/etc/communityd/environment", "COMMUNITYD_OPTIONS=--community lakeside --embedded-broker\n", 0o644)
	sh(t, "systemctl start communityd")
	time.Sleep(5 * time.Second)
	if out := sh(t, "systemctl is-active communityd; stat -c %U /var/lib/communityd/community.db"); out != "active\ncommunityd\n" {
		t.Errorf("%s", out)
	}
	sh(t, "dpkg -i /in/communityd_2.0.0_amd64.deb && systemctl is-active communityd && dpkg -P communityd")
	if exists("/var/lib/communityd") || exists("/etc/communityd") {
		t.Error("purging leaves folders")
	}

	// The samples for logs, the manager and udev, read by those.
	sh(t, `mkdir -p /etc/systemd/journald.conf.d /etc/systemd/system.conf.d && cp /in/journald.conf /etc/systemd/journald.conf.d/gatehouse.conf &&
		cp /in/system.conf /etc/systemd/system.conf.d/gatehouse.conf && cp /in/*.rules /etc/udev/rules.d/ &&
		systemctl restart systemd-journald && systemctl daemon-reexec && udevadm control --reload`)
	if out := sh(t, "udevadm test /sys/class/tty/ttyACM0 2>&1; systemctl show -p RuntimeWatchdogUSec"); strings.Contains(out, "gatehouse.rules:") && strings.Contains(out, "nvalid") || !strings.Contains(out, "RuntimeWatchdogUSec=14s") {
		t.Errorf("%s", out)
	}
	if out := sh(t, "journalctl -b --no-pager | grep -i 'gatehouse.conf:\\|gatehouse-devices.rules:\\|gatehouse.rules:' || true"); out != "" {
		t.Errorf("what the samples' readers say:\n%s", out)
	}
}
