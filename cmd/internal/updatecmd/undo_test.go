package updatecmd

import (
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"golang.org/x/sys/unix"
)

// apt puts cases of a shell before apt-get, by its arguments, until it is undone.
func (m *machine) apt(cases string) (undo func()) {
	m.t.Helper()
	real, err := exec.LookPath("apt-get")
	if err != nil {
		m.t.Fatal(err)
	}
	m.script("apt-get", fmt.Sprintf("case \"$*\" in\n%s\nesac\nexec %s \"$@\"", cases, real))
	return func() {
		m.t.Helper()
		if err := os.Remove(filepath.Join(m.bin, "apt-get")); err != nil {
			m.t.Fatal(err)
		}
	}
}

// notUndone checks what stays for the next attempt, and what is said.
func (m *machine) notUndone(err error, installed string, says ...string) {
	m.t.Helper()
	if !errors.Is(err, ErrNotUndone) || errors.Is(err, ErrUndone) {
		m.t.Errorf("%v: %s", err, m.out.String())
	}
	note, nerr := os.ReadFile(filepath.Join(m.state, Note))
	if nerr != nil || !strings.Contains(string(note), `"alert":"update_not_undone"`) {
		m.t.Errorf("the word for the gate is %q, %v", note, nerr)
	}
	for _, s := range append(says, "gatehouse update resume") {
		if !strings.Contains(fmt.Sprint(err), s) || !strings.Contains(string(note), s) {
			m.t.Errorf("%q is not said:\n%v\n%s", s, err, note)
		}
	}
	if out, err := exec.Command(filepath.Join(m.root, "usr/bin/gatehouse"), "version").Output(); err != nil || strings.TrimSpace(string(out)) != installed {
		m.t.Errorf("version %q is installed, want %s (%v)", out, installed, err)
	}
	if p, err := m.updater().load(); err != nil || p == nil || p.Phase != phaseUndoing {
		m.t.Errorf("progress is %+v, %v", p, err)
	}
	if b, err := os.ReadFile(filepath.Join(m.stage(), "state/journal.db")); err != nil || string(b) != "entries\nby 1.0\n" {
		m.t.Errorf("the copies: %q, %v", b, err)
	}
}

// undone goes on with the undoing as a start of the machine does.
func (m *machine) undone() {
	m.t.Helper()
	if err := m.updater().Resume(m.t.Context()); !errors.Is(err, ErrUndone) {
		m.t.Errorf("%v: %s", err, m.out.String())
	}
	if b, err := os.ReadFile(filepath.Join(m.state, Note)); err != nil || !strings.Contains(string(b), `"alert":"update_undone"`) {
		m.t.Errorf("the word for the gate is %q, %v", b, err)
	}
	if _, err := os.Stat(filepath.Join(m.state, Restoring)); err == nil {
		m.t.Error("the mark is left, and keeps the gate from starting")
	}
}

// Another apt is at work when the old version is to come back. The databases stay with the
// version that there is, until the old one is there.
func TestUndoWaitsForPackages(t *testing.T) {
	m := newMachine(t, nil)
	m.installFirst("1.0")
	m.publish("1.1", diesLater)
	unlock := m.apt(`install*DPkg::Lock::Timeout=*_1.1_*) ;;
install*) echo "E: Could not get lock /var/lib/dpkg/lock-frontend. It is held by process 7 (unattended-upgr)" >&2; exit 100 ;;`)
	m.notUndone(m.updater().Apply(t.Context()), "1.1", "Could not get lock")
	m.notUndone(m.updater().Resume(t.Context()), "1.1", "Could not get lock")
	if left, _ := filepath.Glob(m.state + ".*"); len(left) > 0 {
		t.Errorf("databases were set aside: %v", left)
	}
	unlock()
	m.undone()
	// The version that was not well went on as well as it could, and all of that is there.
	m.expect("1.0", "by 1.0\n", "by 1.1\n", "by 1.1\n", "by 1.1\n", "by 1.0\n")
}

// Another apt is at work when an update begins: the gate is not stopped for it.
func TestUpdateWaitsForPackages(t *testing.T) {
	m := newMachine(t, nil)
	m.installFirst("1.0")
	m.publish("1.1", wellBehaved)
	m.apt(`check*DPkg::Lock::Timeout=*) echo "E: Could not get lock" >&2; exit 100 ;;`)
	if err := m.updater().Apply(t.Context()); err == nil || !strings.Contains(err.Error(), "nothing was changed") || !strings.Contains(err.Error(), "Could not get lock") {
		t.Errorf("%v", err)
	}
	m.expect("1.0", "by 1.0\n")
}

// The copies cannot be put back at first: something is mounted in the way. In a state
// folder that is a mount point this is noticed in the middle of the exchange.
func TestUndoWaitsForDatabases(t *testing.T) {
	for _, c := range []struct {
		what, obstacle, aside string
		mount                 func(*machine)
	}{
		{"folder", ".of-1.1", ".of-1.1", nil},
		{"mount point", "/extra", "/of-1.1", func(m *machine) {
			part := filepath.Join(filepath.Dir(m.root), "state")
			if err := os.MkdirAll(part, 0o755); err != nil {
				m.t.Fatal(err)
			}
			mounted(m.t, part, m.state, "", unix.MS_BIND, "")
		}},
	} {
		t.Run(c.what, func(t *testing.T) {
			m := newMachine(t, c.mount)
			m.installFirst("1.0")
			m.publish("1.1", migrates)
			mounted(t, "obstacle", m.state+c.obstacle, "tmpfs", 0, "")
			m.notUndone(m.updater().Apply(t.Context()), "1.0", "busy")
			m.notUndone(m.updater().Resume(t.Context()), "1.0", "busy")
			if err := unix.Unmount(m.state+c.obstacle, 0); err != nil {
				t.Fatal(err)
			}

			// The copies are put back, and the old version does not start even so.
			m.write(m.svc+".refuses", "")
			m.notUndone(m.updater().Resume(t.Context()), "1.0", "does not run on the copies")
			aside := filepath.Join(m.state+c.aside, "journal.db")
			for range 2 { // another attempt does not lose what was set aside
				if b, err := os.ReadFile(aside); err != nil || string(b) != "entries\nby 1.0\nby 1.1\n" {
					t.Errorf("the newer databases: %q, %v", b, err)
				}
				m.notUndone(m.updater().Resume(t.Context()), "1.0", "does not run on the copies")
			}
			if err := os.Remove(m.svc + ".refuses"); err != nil {
				t.Fatal(err)
			}
			m.undone()
			m.expect("1.0", "by 1.0\n", "by 1.0\n")
			if b, err := os.ReadFile(aside); err != nil || string(b) != "entries\nby 1.0\nby 1.1\n" {
				t.Errorf("the newer databases: %q, %v", b, err)
			}
		})
	}
}

// The power fails around the exchange of two folders: whether it was done is known by the
// mark, and what is set aside is not lost.
func TestExchangeInterrupted(t *testing.T) {
	for what, c := range map[string]struct {
		state, aside, mark string // what the folders hold, and which has the mark
		restored           bool
	}{
		"before":         {"newer", "", "", false},
		"copied":         {"newer", "half", "", false},
		"marked":         {"newer", "older", "aside", false},
		"exchanged":      {"older", "newer", "state", false},
		"noted":          {"older", "newer", "state", true},
		"mark is gone":   {"older", "newer", "", true},
		"earlier update": {"newer", "oldest", "", false},
	} {
		t.Run(what, func(t *testing.T) {
			u := New(Options{Stage: t.TempDir()}, Site{State: filepath.Join(t.TempDir(), "gatehouse")})
			aside := u.site.State + ".of-2"
			for dir, text := range map[string]string{u.site.State: c.state, aside: c.aside, u.backup(): "older"} {
				if text == "" {
					continue
				}
				if err := errors.Join(os.MkdirAll(dir, 0o700), os.WriteFile(filepath.Join(dir, "journal.db"), []byte(text), 0o600)); err != nil {
					t.Fatal(err)
				}
			}
			if dir := map[string]string{"state": u.site.State, "aside": aside}[c.mark]; dir != "" {
				if err := os.WriteFile(filepath.Join(dir, Restoring), nil, 0o600); err != nil {
					t.Fatal(err)
				}
			}
			p := &progress{Old: "1", New: "2", Restored: c.restored}
			again := u.restore
			if c.restored { // as in back
				again = u.restored
			}
			if err := again(p); err != nil {
				t.Fatal(err)
			}
			for dir, want := range map[string]string{u.site.State: "older", aside: "newer"} {
				if b, err := os.ReadFile(filepath.Join(dir, "journal.db")); err != nil || string(b) != want {
					t.Errorf("%s has %q, want %q, %v", filepath.Base(dir), b, want, err)
				}
			}
			if _, err := os.Stat(filepath.Join(u.site.State, Restoring)); err == nil {
				t.Error("the mark is left")
			}
			if kept, err := u.load(); err != nil || !kept.Restored {
				t.Errorf("progress is %+v, %v", kept, err)
			}
		})
	}
}
