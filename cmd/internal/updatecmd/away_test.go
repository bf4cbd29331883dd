package updatecmd

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"golang.org/x/sys/unix"
)

// TestMain is the program "gatehouse update" for tests that end it from outside.
func TestMain(m *testing.M) {
	state := os.Getenv("GATEHOUSE_TEST_STATE")
	if state == "" {
		os.Exit(m.Run())
	}
	c := Command(func() (Site, error) { return Site{State: state}, nil }, func(w io.Writer) *slog.Logger { return slog.New(slog.NewTextHandler(w, nil)) })
	if err := c.ExecuteContext(context.Background()); err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
}

// The line to the gate drops in the middle: the terminal hangs up, and nobody reads
// what is said any more. The update goes on to its end.
func TestLineDrops(t *testing.T) {
	m := newMachine(t, nil)
	m.installFirst("1.0")
	m.publish("1.1", wellBehaved)
	m.write(m.svc+".hangup", "")
	c := exec.Command("/proc/self/exe", "apply", "--here", "--stage", m.stage(), "--sources", filepath.Join(m.root, "etc/apt/sources.list.d/gatehouse.sources"), "--healthy", "1500ms")
	c.Env = append(os.Environ(), "GATEHOUSE_TEST_STATE="+m.state)
	r, w, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	c.Stdout, c.Stderr = w, w
	if err := c.Start(); err != nil {
		t.Fatal(err)
	}
	_ = w.Close()
	first, err := bufio.NewReader(r).ReadString('\n')
	if err != nil || !strings.Contains(first, "updating gatehouse from 1.0 to 1.1") {
		t.Errorf("%v: %q", err, first)
	}
	_ = r.Close()
	if err := c.Wait(); err != nil {
		t.Errorf("the update ended: %v", err)
	}
	m.expect("1.1", "by 1.0\n", "by 1.1\n")
	if b, err := os.ReadFile(filepath.Join(m.stage(), "last.log")); err != nil || !strings.Contains(string(b), "gatehouse 1.1 is healthy") {
		t.Errorf("what was said: %v %q", err, b)
	}
}

// mounted mounts for as long as the test runs.
func mounted(t *testing.T, from, to, kind string, flags uintptr, data string) {
	t.Helper()
	if err := os.MkdirAll(to, 0o755); err != nil {
		t.Fatal(err)
	}
	if err := unix.Mount(from, to, kind, flags, data); err != nil {
		t.Fatalf("cannot mount %s: %v", to, err)
	}
	t.Cleanup(func() { _ = unix.Unmount(to, unix.MNT_DETACH) })
}

// A gate whose root is never written, as firmware-config/raspberrypi/fstab has it: the
// state, and the folder for staging, are bound from a partition from which nothing runs.
func TestReadOnlyRoot(t *testing.T) {
	m := newMachine(t, func(m *machine) {
		mounted(t, "root", m.root, "tmpfs", 0, "mode=755")
		part := filepath.Join(filepath.Dir(m.root), "state")
		mounted(t, "state", part, "tmpfs", unix.MS_NOEXEC|unix.MS_NOSUID|unix.MS_NODEV, "mode=755")
		for name, at := range map[string]string{"gatehouse": m.state, "gatehouse-update": m.stage()} {
			if err := os.MkdirAll(filepath.Join(part, name), 0o755); err != nil {
				t.Fatal(err)
			}
			mounted(t, filepath.Join(part, name), at, "", unix.MS_BIND, "")
		}
	})
	m.installFirst("1.0")
	if err := unix.Mount("root", m.root, "tmpfs", unix.MS_REMOUNT|unix.MS_RDONLY, ""); err != nil {
		t.Fatal(err)
	}
	closed := func() {
		t.Helper()
		if err := os.WriteFile(filepath.Join(m.root, "x"), nil, 0o644); !errors.Is(err, unix.EROFS) {
			t.Errorf("the root is not read-only afterwards: %v", err)
		}
	}
	u := m.updater()
	if v, err := u.Check(t.Context()); err != nil || v.Newer() {
		t.Fatalf("%+v, %v", v, err)
	}
	m.publish("1.1", wellBehaved)
	if err := u.Apply(t.Context()); err != nil {
		t.Fatalf("%v: %s", err, m.out.String())
	}
	m.expect("1.1", "by 1.0\n", "by 1.1\n")
	closed()
	for _, version := range []string{"1.2", "1.3"} { // the second finds what the first has set aside
		m.publish(version, migrates)
		if err := u.Apply(t.Context()); !errors.Is(err, ErrUndone) || strings.Contains(err.Error(), "cannot") {
			t.Fatalf("%v: %s", err, m.out.String())
		}
		closed()
		if b, err := os.ReadFile(filepath.Join(m.state, "of-"+version, "journal.db")); err != nil || !strings.HasSuffix(string(b), "by "+version+"\n") {
			t.Errorf("the newer databases: %q, %v", b, err)
		}
	}
	m.expect("1.1", "by 1.0\n", "by 1.1\n", "by 1.1\n", "by 1.1\n")
	if left, _ := filepath.Glob(filepath.Join(m.state, "rest*")); len(left) > 0 {
		t.Errorf("left behind: %v", left)
	}

	// A stage that cannot be written to is said, with what to do.
	u.o.Stage = filepath.Join(m.root, "elsewhere")
	if err := u.Apply(t.Context()); !errors.Is(err, unix.EROFS) || !strings.Contains(err.Error(), "--stage") {
		t.Errorf("%v", err)
	}
}

// The power fails while the contents of a state folder are exchanged: done again, it
// comes out the same, from each point.
func TestRestoreInterrupted(t *testing.T) {
	for what, have := range map[string]map[string]string{
		"before":                {"journal.db": "newer", "journal.db-wal": "newer", "extra": "newer"},
		"marked":                {"journal.db": "newer", "journal.db-wal": "newer", "extra": "newer", Restoring: ""},
		"one set aside":         {"journal.db": "newer", "extra": "newer", "of-2/journal.db-wal": "newer", Restoring: ""},
		"all set aside":         {"of-2/journal.db": "newer", "of-2/journal.db-wal": "newer", "of-2/extra": "newer", Restoring: ""},
		"one in place":          {"journal.db": "older", "of-2/journal.db": "newer", "of-2/journal.db-wal": "newer", "of-2/extra": "newer", "restore.tmp/keys/device.key": "older", Restoring: ""},
		"all in place":          {"journal.db": "older", "keys/device.key": "older", "of-2/journal.db": "newer", "of-2/journal.db-wal": "newer", "of-2/extra": "newer", Restoring: ""},
		"of an earlier attempt": {"journal.db": "newer", "journal.db-wal": "newer", "extra": "newer", "of-2/journal.db": "oldest"},
	} {
		t.Run(what, func(t *testing.T) {
			u := New(Options{Stage: t.TempDir()}, Site{State: t.TempDir()})
			write := func(dir, name, text string) {
				t.Helper()
				path := filepath.Join(dir, name)
				if err := os.MkdirAll(filepath.Dir(path), 0o700); err != nil {
					t.Fatal(err)
				}
				if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
					t.Fatal(err)
				}
			}
			for name, text := range have {
				write(u.site.State, name, text)
			}
			write(u.backup(), "journal.db", "older")
			write(u.backup(), "keys/device.key", "older")
			if err := u.restoreInside(&progress{Old: "1", New: "2"}); err != nil {
				t.Fatal(err)
			}
			got := map[string]string{}
			err := filepath.WalkDir(u.site.State, func(path string, d os.DirEntry, err error) error {
				if err != nil || d.IsDir() {
					return err
				}
				b, err := os.ReadFile(path)
				name, _ := filepath.Rel(u.site.State, path)
				got[name] = string(b)
				return err
			})
			if err != nil {
				t.Fatal(err)
			}
			want := map[string]string{"journal.db": "older", "keys/device.key": "older", "of-2/journal.db": "newer", "of-2/journal.db-wal": "newer", "of-2/extra": "newer"}
			if what == "all in place" {
				want["of-2/keys/device.key"] = "older" // nobody can tell any more whose it was
			}
			if fmt.Sprint(got) != fmt.Sprint(want) {
				t.Errorf("got  %v\nwant %v", got, want)
			}
		})
	}
}
