//go:build vgate

package vgatetest

import (
	"crypto/tls"
	"io"
	"net"
	"net/http"
	"os"
	"slices"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// TestUnitSandbox: what the gate needs to see is seen from within its real unit, which
// keeps it from calls about clocks and from most of the machine.
func TestUnitSandbox(t *testing.T) {
	address(t, net.IPv4(10, 77, 0, 9))
	sh(t, "dpkg -i /in/gatehouse_1.0.0_amd64.deb")
	conf := `community: lakeside
site: east-garden
gate: east
timezone: UTC
policy: policies/normal-times.yaml
console: {listen: ":8443"}
metrics: {listen: 127.0.0.1:9464}
passages: [{name: main, barrier: none}]
lanes: [{name: in, passage: main, direction: in, scanner: console, thermometer: none}]
`
	if err := os.WriteFile("/etc/gatehouse/gate.yaml", []byte(conf), 0o644); err != nil {
		t.Fatal(err)
	}
	discipline(t, false)
	since := sh(t, "date +%s")
	sh(t, "gatehouse setup && gatehouse check && systemctl start gatehouse") // as the README says: root is first in the state folder
	waitFor(t, "ActiveState", "active")

	// NTP, through the watcher beside it.
	clockIs(t, `gatehouse_clock_trusted{state="unset"} 0`)
	discipline(t, true)
	clockIs(t, `gatehouse_clock_trusted{state="synced"} 1`)
	discipline(t, false)
	clockIs(t, `gatehouse_clock_trusted{state="holdover"} 1`)
	discipline(t, true)
	clockIs(t, `gatehouse_clock_trusted{state="synced"} 1`)
	sh(t, "systemctl kill -s STOP gatehouse-clock")
	clockIs(t, `gatehouse_clock_trusted{state="holdover"} 1`) // a note from long ago says nothing
	sh(t, "systemctl kill -s CONT gatehouse-clock")
	clockIs(t, `gatehouse_clock_trusted{state="synced"} 1`)
	if said := sh(t, "journalctl -b --no-pager -u gatehouse.service --since @"+since); strings.Contains(said, "cannot be seen") || !strings.Contains(said, "by=ntp") {
		t.Errorf("the log says:\n%s", said)
	}

	// The certificate is for every address of the gate, whichever one it is asked at.
	c, err := tls.Dial("tcp", "127.0.0.1:8443", &tls.Config{InsecureSkipVerify: true})
	if err != nil {
		t.Fatal(err)
	}
	ips := c.ConnectionState().PeerCertificates[0].IPAddresses
	if !slices.ContainsFunc(ips, net.IPv4(10, 77, 0, 9).Equal) {
		t.Errorf("the certificate is for %v", ips)
	}
	if err := c.Close(); err != nil {
		t.Error(err)
	}

	// Without a key there is no backup, and no failure; a screen shows the key once.
	sh(t, "systemctl start gatehouse-backup")
	if got := sh(t, "systemctl show --value -p ConditionResult,Result gatehouse-backup"); got != "success\nno\n" && got != "no\nsuccess\n" {
		t.Errorf("a backup without a key: %s", got)
	}
	if exists("/var/lib/gatehouse/recovery.pub") {
		t.Error("a key was made, and there is no screen to show it on")
	}
	if err := os.MkdirAll("/run/systemd/system/gatehouse-recovery-key.service.d", 0o755); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { sh(t, "rm -r /run/systemd/system/gatehouse-recovery-key.service.d && systemctl daemon-reload") })
	if err := os.WriteFile("/run/systemd/system/gatehouse-recovery-key.service.d/screen.conf", []byte("[Service]\nExecCondition=\n"), 0o644); err != nil {
		t.Fatal(err)
	}
	sh(t, "systemctl daemon-reload && systemctl start gatehouse-recovery-key || { journalctl -b --no-pager -u gatehouse-recovery-key; exit 1; }")
	if out := sh(t, "tr -d '\\0' </dev/vcs1"); strings.TrimSpace(out) == "" { // of its 25 lines the picture of the key has the most
		t.Error("the screen shows nothing")
	}
	if out := sh(t, "journalctl -b --no-pager"); strings.Contains(out, "AGE-SECRET-KEY") {
		t.Error("the recovery key stands in the log")
	}
	sh(t, "systemctl start gatehouse-backup")
	if got := sh(t, "systemctl show --value -p ConditionResult,Result gatehouse-backup; ls /var/lib/gatehouse-backup"); !strings.Contains(got, "yes") || !strings.Contains(got, "east-garden-east-") {
		t.Errorf("a backup with a key: %s", got)
	}

	// On a medium that can only be read it stays up, on the safe side, and says so.
	sh(t, "systemctl stop gatehouse && mount --bind /var/lib/gatehouse /var/lib/gatehouse && mount -o remount,bind,ro /var/lib/gatehouse && systemctl start gatehouse")
	waitFor(t, "ActiveState", "active")
	if got := unit(t, "StatusText"); !strings.Contains(got, "SAFE SIDE") || !strings.Contains(got, "can only be read") {
		t.Errorf("the status is %q\n%s", got, journalText())
	}
	time.Sleep(45 * time.Second) // longer than the watchdog's time
	if got := unit(t, "NRestarts"); got != "0" {
		t.Errorf("started again %s times\n%s", got, journalText())
	}
	if resp, err := http.Get("http://127.0.0.1:9464/healthz"); err != nil || resp.StatusCode != http.StatusServiceUnavailable {
		t.Errorf("%v %v", resp, err)
	}
	sh(t, "umount /var/lib/gatehouse && systemctl restart gatehouse")
	waitFor(t, "ActiveState", "active")
	if got := unit(t, "StatusText"); strings.Contains(got, "SAFE SIDE") {
		t.Errorf("the status is %q\n%s", got, journalText())
	}

	sh(t, "systemctl stop gatehouse")
	if out := sh(t, "systemctl show --value -p ActiveState gatehouse-clock"); out != "inactive\n" {
		t.Errorf("without the gate the clock's watcher is %s", out)
	}
	sh(t, "dpkg -P gatehouse")
}

// clockIs waits until the gate says so of its clock.
func clockIs(t *testing.T, want string) {
	t.Helper()
	var said string
	for end := time.Now().Add(5 * time.Minute); time.Now().Before(end); time.Sleep(time.Second) {
		resp, err := http.Get("http://127.0.0.1:9464/metrics")
		if err != nil {
			continue
		}
		b, err := io.ReadAll(resp.Body)
		_ = resp.Body.Close()
		if said = string(b); err == nil && strings.Contains(said, want) {
			return
		}
	}
	i := strings.Index(said, "gatehouse_clock_trusted{")
	t.Fatalf("the gate does not say %s but %.80q\n%s", want, said[max(0, i):], journalText()+sh(t, "journalctl -b --no-pager -n 20 -u gatehouse-clock.service"))
}

// discipline says to the kernel that NTP sets its clock, or does not, as chrony would.
func discipline(t *testing.T, on bool) {
	t.Helper()
	tx := unix.Timex{Modes: unix.ADJ_STATUS | unix.ADJ_MAXERROR | unix.ADJ_ESTERROR, Maxerror: 1000, Esterror: 1000}
	if !on {
		tx.Status = unix.STA_UNSYNC
	}
	if _, err := unix.Adjtimex(&tx); err != nil {
		t.Fatal(err)
	}
}

// address gives this machine another address.
func address(t *testing.T, ip net.IP) {
	t.Helper()
	fd, err := unix.Socket(unix.AF_INET, unix.SOCK_DGRAM, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer unix.Close(fd)
	r, err := unix.NewIfreq("lo:1")
	if err == nil {
		err = r.SetInet4Addr(ip.To4())
	}
	if err == nil {
		err = unix.IoctlIfreq(fd, unix.SIOCSIFADDR, r)
	}
	if err != nil {
		t.Fatal(err)
	}
}
