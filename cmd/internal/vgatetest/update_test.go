//go:build vgate

package vgatetest

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"
	_ "modernc.org/sqlite"
)

// TestMigrates is what the package of version 2.2.0 starts: a program that takes the
// databases further than any other reads, and then fails.
func TestMigrates(t *testing.T) {
	dir := os.Getenv("GATEHOUSE_TEST_MIGRATE")
	if dir == "" {
		t.Skip("it is no test of its own")
	}
	for _, name := range []string{"journal.db", "registry.db"} {
		db, err := sql.Open("sqlite", filepath.Join(dir, name))
		if err != nil {
			t.Fatal(err)
		}
		if _, err := db.ExecContext(context.Background(), "PRAGMA user_version=9999"); err != nil {
			t.Fatal(err)
		}
		if err := db.Close(); err != nil {
			t.Fatal(err)
		}
	}
	t.Fatal("not healthy, as was meant")
}

// offers makes a repository the one that the machine asks.
func offers(t *testing.T, newest string) {
	t.Helper()
	writeFile(t, "/etc/apt/sources.list.d/gatehouse.sources", "Types: deb\nURIs: file:/in/repo-"+newest+"\nSuites: ./\nSigned-By: /in/operator.gpg\n", 0o644)
}

// exported is the gate's journal, line by line.
func exported(t *testing.T) []string {
	t.Helper()
	lines := strings.SplitAfter(string(asGate(t, "gatehouse", "journal", "export")), "\n")
	return lines[:len(lines)-1]
}

// goesOn checks that a journal has all that it had, byte for byte, and verifies.
func goesOn(t *testing.T, had []string) []string {
	t.Helper()
	now := exported(t)
	if len(now) < len(had) || strings.Join(now[:len(had)], "") != strings.Join(had, "") {
		t.Errorf("%d entries are there, and are not the %d that were", len(now), len(had))
	}
	asGate(t, "gatehouse", "journal", "verify")
	return now
}

func version(t *testing.T, want string) {
	t.Helper()
	if got := sh(t, "gatehouse version; dpkg-query -W -f '${Version}' gatehouse"); strings.Count(got, want) != 2 {
		t.Errorf("the version is %s, want %s", got, want)
	}
	waitFor(t, "ActiveState", "active")
}

// onTerminal runs a command as the line of a terminal that it can lose.
func onTerminal(t *testing.T, command string) (hangUp func()) {
	t.Helper()
	master, err := os.OpenFile("/dev/ptmx", os.O_RDWR, 0)
	if err != nil {
		t.Fatal(err)
	}
	n, err := unix.IoctlGetInt(int(master.Fd()), unix.TIOCGPTN)
	if err := errors.Join(err, unix.IoctlSetPointerInt(int(master.Fd()), unix.TIOCSPTLCK, 0)); err != nil {
		t.Fatal(err)
	}
	slave, err := os.OpenFile(fmt.Sprintf("/dev/pts/%d", n), os.O_RDWR|syscall.O_NOCTTY, 0)
	if err != nil {
		t.Fatal(err)
	}
	c := exec.Command("sh", "-c", command)
	c.Stdin, c.Stdout, c.Stderr = slave, slave, slave
	c.SysProcAttr = &syscall.SysProcAttr{Setsid: true, Setctty: true}
	if err := c.Start(); err != nil {
		t.Fatal(err)
	}
	_ = slave.Close()
	go func() { // what a terminal does with what it is sent
		b := make([]byte, 4096)
		for {
			if _, err := master.Read(b); err != nil {
				return
			}
		}
	}()
	return func() {
		t.Helper()
		_ = master.Close()
		_ = c.Wait() // it ends with its terminal, or by the signal
	}
}

// TestUpdateUnit updates the installed gate from a signed repository, with the real
// unit, apt and dpkg: a good version while the line drops; one that dies after a while;
// one that was killed in the middle.
func TestUpdateUnit(t *testing.T) {
	sh(t, "dpkg -i /in/gatehouse_1.0.0_amd64.deb")
	writeFile(t, "/etc/gatehouse/gate.yaml", postYAML, 0o644)
	sh(t, "gatehouse setup && systemctl start gatehouse")
	waitFor(t, "ActiveState", "active")
	asGate(t, "gatehouse", "journal", "verify")
	had := exported(t)

	offers(t, "2.0.0")
	if got := sh(t, "gatehouse update check"); !strings.Contains(got, "installed 1.0.0, offered 2.0.0") {
		t.Errorf("%s", got)
	}
	hangUp := onTerminal(t, "exec gatehouse update apply --healthy 20s")
	within(t, 3*time.Minute, "the gate is stopped for the update", func() bool { return state("gatehouse.service") == "inactive" })
	hangUp()
	within(t, 10*time.Minute, "the update has come to its end", func() bool { return state("gatehouse-update.service") == "inactive" })
	version(t, "2.0.0")
	had = goesOn(t, had)
	if got := sh(t, "cat /var/cache/gatehouse/update/last.log"); !strings.Contains(got, "2.0.0 is healthy") {
		t.Errorf("what was said: %q", got)
	}

	offers(t, "2.1.0")
	if out := fails(t, "gatehouse update apply --healthy 60s"); !strings.Contains(out, "the update was undone") {
		t.Errorf("%s", out)
	}
	version(t, "2.0.0")
	// What the short-lived version has decided is not lost.
	after := goesOn(t, had)
	// The gate makes an alert of it at its next start.
	if got := sh(t, "cat /var/lib/gatehouse/update.note"); !strings.Contains(got, `"alert":"update_undone"`) {
		t.Errorf("the word for the gate is %q", got)
	}
	had = after

	// Killed between the two versions: undone at once, without a start of the machine.
	done := make(chan struct{})
	go func() {
		defer close(done)
		_ = exec.Command("gatehouse", "update", "apply", "--healthy", "60s").Run()
	}()
	within(t, 3*time.Minute, "the version that dies is tried", func() bool {
		b, _ := os.ReadFile("/var/cache/gatehouse/update/progress.json")
		return strings.Contains(string(b), `"trying"`)
	})
	sh(t, "systemctl kill -s KILL gatehouse-update.service")
	<-done
	within(t, 10*time.Minute, "the killed update is undone", func() bool {
		return !exists("/var/cache/gatehouse/update/progress.json") && state("gatehouse-update-resume.service") != "activating"
	})
	version(t, "2.0.0")
	goesOn(t, had)
	sh(t, "systemctl stop gatehouse && dpkg -P gatehouse && rm /etc/apt/sources.list.d/gatehouse.sources")
}
