//go:build vgate

package vgatetest

import (
	"io"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"testing"
	"time"
)

const postYAML = `community: lakeside
site: north
gate: east
timezone: UTC
policy: policies/normal-times.yaml
console: {listen: "127.0.0.1:8443"}
metrics: {listen: 127.0.0.1:9464}
passages: [{name: main, barrier: none}]
lanes: [{name: in, passage: main, direction: in, scanner: console, thermometer: typed}]
`

var exposure = regexp.MustCompile(`Overall exposure level for \S+: ([0-9.]+)`)

func writeFile(t *testing.T, path, text string, mode os.FileMode) {
	t.Helper()
	if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(path, []byte(text), mode); err != nil {
		t.Fatal(err)
	}
}

// within waits until something is so.
func within(t *testing.T, d time.Duration, what string, is func() bool) {
	t.Helper()
	for end := time.Now().Add(d); !is(); time.Sleep(200 * time.Millisecond) {
		if time.Now().After(end) {
			out, _ := exec.Command("journalctl", "-b", "--no-pager", "-n", "80").CombinedOutput()
			t.Fatalf("not within %v: %s\n%s", d, what, out)
		}
	}
}

func state(name string) string {
	out, _ := exec.Command("systemctl", "show", "--value", "-p", "ActiveState", name).Output()
	return strings.TrimSpace(string(out))
}

// TestUnits starts the units beside the gate's own: backup, to the card and to another
// medium; set-up page; resident's display, as far as that goes without a screen.
func TestUnits(t *testing.T) {
	sh(t, "dpkg -i /in/gatehouse_1.0.0_amd64.deb")
	writeFile(t, "/etc/gatehouse/gate.yaml", postYAML, 0o644)
	sh(t, "gatehouse setup && systemctl start gatehouse")

	// What this release's own systemd says of the units.
	t.Run("closed up", func(t *testing.T) {
		if out := sh(t, "systemd-analyze verify --man=no gatehouse.service gatehouse.target gatehouse-backup.service gatehouse-backup.timer gatehouse-setup.service gatehouse-update-resume.service gatehouse-kiosk.service 2>&1 | grep gatehouse || true"); strings.Trim(out, "\n") != "" && strings.Count(out, "/usr/bin/cage is not executable") != strings.Count(out, "\n") {
			t.Errorf("%s", out)
		}
		for _, name := range []string{"gatehouse.service", "gatehouse-backup.service"} {
			m := exposure.FindStringSubmatch(sh(t, "systemd-analyze security --no-pager "+name))
			if m == nil {
				t.Fatal("systemd-analyze does not say how exposed " + name + " is")
			}
			if got, err := strconv.ParseFloat(m[1], 64); err != nil || got > 1.5 {
				t.Errorf("%s is exposed %s, want at most 1.5", name, m[1])
			}
		}
	})

	t.Run("backup", func(t *testing.T) {
		said := func() string {
			return sh(t, "journalctl --sync; journalctl -b --no-pager -o cat -u gatehouse-backup.service")
		}
		if out := sh(t, "systemctl start gatehouse-backup.service; ls /var/lib/gatehouse-backup 2>&1 || true"); strings.Contains(out, ".backup") {
			t.Errorf("a backup that nobody could read: %s", out)
		}
		sh(t, "gatehouse backup key >/run/recovery && systemctl start gatehouse-backup.service")
		files := func(dir string) string {
			return sh(t, "stat -c '%U:%a' "+dir+"/north-east-*.backup")
		}
		if got := files("/var/lib/gatehouse-backup"); got != "gatehouse:600\n" {
			t.Errorf("in the place by itself: %q", got)
		}
		if !strings.Contains(said(), "it lies on the medium of the gate's own state, and dies with it") {
			t.Errorf("it does not say where it lies:\n%s", said())
		}
		sh(t, "mkdir -p /media/backup && mount -t tmpfs -o uid=$(id -u gatehouse),mode=700 stick /media/backup")
		writeFile(t, "/etc/gatehouse/gate.yaml", postYAML+"backup: {to: /media/backup, keep: 1}\n", 0o644)
		sh(t, "gatehouse setup && systemctl start gatehouse-backup.service && sleep 2 && systemctl start gatehouse-backup.service")
		if got := files("/media/backup"); got != "gatehouse:600\n" {
			t.Errorf("on the other medium: %q", got)
		}
		// What was made by the unit opens with the key on paper.
		sh(t, `grep -o 'AGE-SECRET-KEY-1[A-Z0-9]*' /run/recovery | head -n 1 >/run/key && mkdir -p /run/other &&
			systemctl stop gatehouse && mv /var/lib/gatehouse /var/lib/gatehouse.was &&
			gatehouse restore --key /run/key --config /run/other/gate.yaml /media/backup/north-east-*.backup &&
			cmp /run/other/gate.yaml /etc/gatehouse/gate.yaml && test -s /var/lib/gatehouse/journal.db &&
			rm -rf /var/lib/gatehouse && mv /var/lib/gatehouse.was /var/lib/gatehouse && systemctl start gatehouse`)
		// The stick is away: the folder below it is not filled.
		sh(t, "umount /media/backup")
		fails(t, "systemctl start gatehouse-backup.service")
		if !strings.Contains(said(), "would die with it: is the medium of backup.to mounted there?") && !strings.Contains(said(), "permission denied") {
			t.Errorf("without the medium:\n%s", said())
		}
		writeFile(t, "/etc/gatehouse/gate.yaml", postYAML, 0o644)
		sh(t, "gatehouse setup")
	})

	t.Run("kiosk", func(t *testing.T) {
		sh(t, "systemctl start gatehouse-kiosk.service")
		if s := state("gatehouse-kiosk.service"); s != "inactive" {
			t.Errorf("without a screen it is %s", s)
		}
		// In the place of cage, which needs a screen: who it is, what it may write to, and
		// whether it reaches the page that it is told to show.
		writeFile(t, "/usr/bin/cage", `#!/bin/bash
exec >/run/gatehouse-kiosk/said 2>&1
id -un; id -Gn; tty
touch /var/lib/gatehouse/x /etc/x && echo writes
for url; do :; done
echo "$url"
host=${url#http://}; host=${host%%/*}
exec 3<>/dev/tcp/${host%:*}/${host#*:} && printf 'GET /display/ HTTP/1.0\r\nHost: %s\r\n\r\n' "$host" >&3 && grep -i ^location <&3
echo over
exec sleep infinity
`, 0o755)
		sh(t, "mkdir -p /dev/dri && systemctl start gatehouse-kiosk.service")
		within(t, time.Minute, "the display's program has said all", func() bool {
			b, _ := os.ReadFile("/run/gatehouse-kiosk/said")
			return strings.HasSuffix(string(b), "over\n")
		})
		got := sh(t, "cat /run/gatehouse-kiosk/said")
		for _, want := range []string{"gatehouse-kiosk\n", "video", "render", "input", "http://127.0.0.1:8443/display/\n", "Location: /display/in"} {
			if !strings.Contains(got, want) {
				t.Errorf("the display does not say %q:\n%s", want, got)
			}
		}
		if strings.Contains(got, "writes") {
			t.Errorf("the display's program may write:\n%s", got)
		}
		if s := state("gatehouse-kiosk.service"); s != "active" {
			t.Errorf("it is %s", s)
		}
		sh(t, "systemctl stop gatehouse-kiosk.service && rm -r /dev/dri /usr/bin/cage")
	})

	t.Run("set-up page", func(t *testing.T) {
		// A gate that is enrolled is not stopped for it.
		writeFile(t, "/var/lib/gatehouse/keys/enrolment.json", "{}", 0o600)
		sh(t, "systemctl start gatehouse-setup.service")
		if a, b := state("gatehouse.service"), state("gatehouse-setup.service"); a != "active" || b != "inactive" {
			t.Errorf("enrolled: the gate is %s, the page %s", a, b)
		}
		// One that is not makes place for it.
		sh(t, "rm /var/lib/gatehouse/keys/enrolment.json && systemctl start gatehouse-setup.service")
		page := setupPage(t)
		if a := state("gatehouse.service"); a != "inactive" {
			t.Errorf("the gate is %s beside the page", a)
		}
		if !strings.Contains(page, "gatehouse") {
			t.Errorf("the page:\n%s", page)
		}
		sh(t, "systemctl stop gatehouse-setup.service")
		within(t, time.Minute, "the gate is back after the page", func() bool { return state("gatehouse.service") == "active" })
	})
	sh(t, "systemctl stop gatehouse && dpkg -P gatehouse")
}

// setupPage opens the set-up page with the code that the screen shows.
func setupPage(t *testing.T) string {
	t.Helper()
	var open string
	within(t, 2*time.Minute, "the screen shows the page's address", func() bool {
		b, err := os.ReadFile("/dev/vcs1")
		if err != nil {
			t.Fatal(err)
		}
		m := regexp.MustCompile(`:8080/\?code=([A-Z2-7]{10})`).FindSubmatch(b)
		if m != nil {
			open = "http://127.0.0.1:8080/?code=" + string(m[1])
		}
		return m != nil
	})
	jar := &http.Client{CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse }}
	resp, err := jar.Get(open)
	if err != nil {
		t.Fatal(err)
	}
	_ = resp.Body.Close()
	if resp.StatusCode != http.StatusSeeOther || len(resp.Cookies()) != 1 {
		t.Fatalf("the code on the screen does not open the page: %s", resp.Status)
	}
	req, err := http.NewRequest(http.MethodGet, "http://127.0.0.1:8080/", nil)
	if err != nil {
		t.Fatal(err)
	}
	req.AddCookie(resp.Cookies()[0])
	if resp, err = jar.Do(req); err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	b, err := io.ReadAll(resp.Body)
	if err != nil || resp.StatusCode != http.StatusOK {
		t.Fatalf("%v %s", err, resp.Status)
	}
	return string(b)
}

// TestNames: udev makes the names of the sample's rules for adapters that are plugged
// in, by the serial number of one and by the socket of another.
func TestNames(t *testing.T) {
	rules, err := os.ReadFile("/in/70-gatehouse.rules")
	if err != nil {
		t.Fatal(err)
	}
	plugged := func(serial string) {
		t.Helper()
		sh(t, "rmmod g_serial && udevadm settle && modprobe g_serial iSerialNumber="+serial+" iManufacturer=Vendor iProduct=Adapter")
		within(t, time.Minute, "the adapter is there", func() bool { return exists("/dev/ttyACM0") })
		sh(t, "udevadm settle")
	}
	names := func() string {
		return sh(t, "for l in /dev/gatehouse/*; do [ ! -L $l ] || echo $(basename $l) $(readlink -f $l) $(stat -Lc %G:%a $l); done")
	}
	writeFile(t, "/etc/udev/rules.d/70-gatehouse.rules", string(rules), 0o644)
	sh(t, "udevadm control --reload")
	plugged("READER-IN")
	if got := names(); got != "reader-in /dev/ttyACM0 dialout:660\n" {
		t.Errorf("by its serial number: %q", got)
	}
	plugged("READER-OUT")
	if got := names(); got != "reader-out /dev/ttyACM0 dialout:660\n" {
		t.Errorf("the other: %q", got)
	}
	plugged("OTHER")
	if got := names(); got != "" {
		t.Errorf("an adapter that no rule names: %q", got)
	}
	// By its socket, written into the rule as udevadm info tells it.
	path := regexp.MustCompile(`(?m)^E: ID_PATH=(\S+)$`).FindStringSubmatch(sh(t, "udevadm info /dev/ttyACM0"))
	if path == nil {
		t.Fatal("udev does not say in which socket it is")
	}
	own := strings.Replace(string(rules), "platform-*-usb-0:1.3:1.0", path[1], 1)
	if own == string(rules) {
		t.Fatal("the sample has no rule by the socket")
	}
	writeFile(t, "/etc/udev/rules.d/70-gatehouse.rules", own, 0o644)
	sh(t, "udevadm control --reload")
	plugged("OTHER")
	if got := names(); got != "thermometer-in /dev/ttyACM0 dialout:660\n" {
		t.Errorf("by its socket %s: %q", path[1], got)
	}
	sh(t, "rm /etc/udev/rules.d/70-gatehouse.rules && udevadm control --reload")
	plugged("0")
}
