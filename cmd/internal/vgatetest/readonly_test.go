//go:build vgate

package vgatetest

import (
	"os"
	"slices"
	"strings"
	"testing"
	"time"
)

const makeReadOnly = "sh /usr/share/gatehouse/examples/raspberrypi/read-only.sh "

// TestMakeReadOnly makes the enrolled gate of TestFirstGate one whose root is never
// written, on /dev/vdb. What it changes of the root goes to /out, for the next start.
func TestMakeReadOnly(t *testing.T) {
	if out := fails(t, makeReadOnly); !strings.Contains(out, "say which partition") {
		t.Errorf("%s", out)
	}
	writeFile(t, "/etc/fstab", "# this machine's\n/dev/vda / ext4 defaults 0 1\n/dev/vdc /boot/firmware vfat defaults 0 2\nnone swap swap sw 0 0\n/dev/nowhere /media/backup vfat nofail 0 0\n", 0o644)
	sh(t, "mkdir -p /boot/firmware /etc/NetworkManager && mount -t vfat /dev/vdc /boot/firmware && echo 'console=tty1 root=/dev/vda rw quiet' >/boot/firmware/cmdline.txt")
	// A disk that holds something is not touched.
	sh(t, "mkfs.ext4 -q -L mine /dev/vdb")
	if out := fails(t, makeReadOnly+"/dev/vdb"); !strings.Contains(out, `label "mine"): it is not touched`) || !strings.Contains(sh(t, "blkid -p /dev/vdb"), `LABEL="mine"`) {
		t.Errorf("%s", out)
	}
	sh(t, "wipefs -q -a /dev/vdb")
	had := exported(t)
	for range 2 { // said again, it changes nothing more
		sh(t, makeReadOnly+"/dev/vdb")
	}
	for path, want := range map[string]string{"/boot/firmware/cmdline.txt": "console=tty1 root=/dev/vda quiet ro\n", "/etc/fstab.before-read-only": "# this machine's\n"} {
		if b, err := os.ReadFile(path); err != nil || !strings.HasPrefix(string(b), want) {
			t.Errorf("%s: %v %q", path, err, b)
		}
	}
	table := sh(t, "cat /etc/fstab")
	for want, is := range map[string]bool{"\n/dev/vda / ext4 ro,noatime 0 1\n": true, "\n/dev/vdc /boot/firmware vfat ro,": true, "\n/dev/nowhere /media/backup vfat nofail 0 0\n": true, "swap": false, "\n/dev/vda / ext4 defaults": false} {
		if strings.Contains(table, want) != is {
			t.Errorf("%q in the table: %v\n%s", want, !is, table)
		}
	}
	writeFile(t, "/out/had", strings.Join(had, ""), 0o644)
	// Everything that the machine keeps on its root, but the programs; of what is
	// mounted the places alone.
	sh(t, "systemctl enable -q gatehouse-setup.service && sync && tar -C / -cf /out/root.tar etc state --no-recursion $(awk '$1 ~ /^\\/state/ || $2 == \"/boot/firmware\" { print substr($2, 2) }' /etc/fstab)")
}

// TestReadOnlyRoot is the start of that machine. The set-up page's unit is enabled, as
// images have it; the gate is enrolled, and has started all the same.
func TestReadOnlyRoot(t *testing.T) {
	t.Cleanup(func() {
		if t.Failed() {
			t.Log(sh(t, "{ systemctl list-jobs; systemctl --failed; systemctl list-dependencies gatehouse.target; systemctl status --no-pager 'gatehouse*'; findmnt; ls -l /etc/systemd/system/*.wants; journalctl -b -p notice --no-pager | tail -n 120; } 2>&1 || true"))
		}
	})
	waitFor(t, "ActiveState", "active")
	if a, b := state("gatehouse-setup.service"), state("getty@tty1.service"); a != "inactive" || b != "active" {
		t.Errorf("the set-up page is %s, the screen's login %s", a, b)
	}
	if out := sh(t, "systemctl --failed --plain --no-legend"); strings.Contains(out, ".mount") || strings.Contains(out, "gatehouse") {
		t.Errorf("failed:\n%s", out)
	}
	readOnly := func() {
		t.Helper()
		if out := fails(t, "touch /usr/x /etc/x /x"); strings.Count(out, "Read-only file system") != 3 {
			t.Errorf("%s", out)
		}
	}
	readOnly()
	for at, want := range map[string]string{"/var/lib/gatehouse": "[/gatehouse]", "/var/lib/gatehouse-backup": "[/gatehouse-backup]", "/var/cache/gatehouse/update": "[/gatehouse-update]", "/var/log": "[/log]", "/var/lib/systemd": "[/systemd]"} {
		if out := sh(t, "findmnt -n -o SOURCE,OPTIONS "+at); !strings.Contains(out, want) || !strings.Contains(out, "noexec") {
			t.Errorf("%s is %s", at, out)
		}
	}
	if got := sh(t, "readlink /etc/resolv.conf"); got != "/run/NetworkManager/resolv.conf\n" {
		t.Errorf("resolv.conf is %s", got)
	}
	b, err := os.ReadFile("/in/had")
	if err != nil {
		t.Fatal(err)
	}
	had := goesOn(t, slices.Collect(strings.Lines(string(b))))
	sh(t, "gatehouse backup key >/dev/null 2>&1; systemctl start gatehouse-backup.service && ls /state/gatehouse-backup/*.backup")

	// A better version, with the root open for as long as it is installed.
	sh(t, "mount -o remount,rw / && mkdir -p /etc/apt/sources.list.d")
	offers(t, "2.0.0")
	sh(t, "mount -o remount,ro /")
	if got := sh(t, "gatehouse update check"); !strings.Contains(got, "offered 2.0.0") {
		t.Errorf("%s", got)
	}
	readOnly()
	out := sh(t, "gatehouse update apply --healthy 20s")
	if strings.Contains(out, "stays writable") {
		t.Errorf("%s", out)
	}
	version(t, "2.0.0")
	readOnly()
	had = goesOn(t, had)

	// One that takes the databases where the old one cannot read them, and fails: the old
	// one is back, on the copies, in a folder that is a mount point.
	sh(t, "mount -o remount,rw /")
	offers(t, "2.2.0")
	sh(t, "mount -o remount,ro /")
	out = fails(t, "gatehouse update apply --healthy 20s")
	if !strings.Contains(out, "the copies come back") || !strings.Contains(out, "the update was undone") || strings.Contains(out, "cannot") {
		t.Errorf("%s", out)
	}
	version(t, "2.0.0")
	readOnly()
	goesOn(t, had)
	sh(t, "test -s /var/lib/gatehouse/of-2.2.0/journal.db && ! test -e /var/lib/gatehouse/restoring")
}

// TestLostState is the same machine without the medium of its state. It can be reached,
// and says what is missing.
func TestLostState(t *testing.T) {
	if s := strings.TrimSpace(sh(t, "systemctl is-active multi-user.target")); s != "active" {
		t.Errorf("the machine has come as far as %s", s)
	}
	if s := state("emergency.service"); s != "inactive" {
		t.Errorf("emergency.service is %s", s)
	}
	if s := state("gatehouse.service"); s != "inactive" {
		t.Errorf("the gate is %s without its state", s)
	}
	// As whoever came to look would ask. (What the service manager logs is on this
	// machine's console, not in its journal.)
	if out := fails(t, "systemctl start gatehouse.service"); !strings.Contains(out, "A dependency job for gatehouse.service failed") {
		t.Errorf("%s", out)
	}
}

// TestBareStart is the start of a machine that no server has approved, with the set-up
// page's unit enabled.
func TestBareStart(t *testing.T) {
	if page := setupPage(t); !strings.Contains(page, "<form") {
		t.Errorf("the page:\n%s", page)
	}
	if a, b := state("gatehouse.service"), state("getty@tty1.service"); a != "inactive" || b != "inactive" {
		t.Errorf("beside the page the gate is %s, the screen's login %s\n%s", a, b, sh(t, "systemctl status --no-pager gatehouse.service || true; journalctl -b --no-pager -u gatehouse.service -n 30"))
	}
	sh(t, "systemctl stop gatehouse-setup.service")
	within(t, time.Minute, "the gate and the login are back after the page", func() bool {
		return state("gatehouse.service") == "active" && state("getty@tty1.service") == "active"
	})
}
