package sqlite

import (
	"database/sql"
	"errors"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"testing"

	"golang.org/x/sys/unix"
)

// Looking changes no byte of the file, whatever is in the WAL, and neither schema.
func TestLookWritesNothing(t *testing.T) {
	ctx := t.Context()
	path := filepath.Join(t.TempDir(), "a.db")
	o := Options{PageSize: 512, Migrations: []string{"CREATE TABLE t(a)", "ALTER TABLE t ADD COLUMN b"}}
	db, err := Open(ctx, path, o)
	if err != nil {
		t.Fatal(err)
	}
	defer db.Close()
	count := func(db *sql.DB) (n int) {
		t.Helper()
		if err := db.QueryRowContext(ctx, "SELECT count(*) FROM t").Scan(&n); err != nil {
			t.Error(err)
		}
		return n
	}
	insert := func(db *sql.DB) {
		t.Helper()
		if _, err := db.ExecContext(ctx, "INSERT INTO t(a) VALUES(1)"); err != nil {
			t.Fatal(err)
		}
	}
	insert(db.W)
	// As after a power cut: the WAL is not in the file, and nobody has either open.
	cut := filepath.Join(t.TempDir(), "b.db")
	copyTo(t, path, cut)
	copyTo(t, path+"-wal", cut+"-wal")
	for _, p := range []string{path, cut} {
		before := contents(t, p)
		l, err := Look(ctx, p, o)
		if err != nil {
			t.Fatal(err)
		}
		if n := count(l.R); n != 1 {
			t.Errorf("%d rows are seen", n)
		}
		if _, err := l.R.Exec("DELETE FROM t"); err == nil {
			t.Error("the reading side could write")
		}
		if err := l.Close(); err != nil {
			t.Error(err)
		}
		if string(contents(t, p)) != string(before) {
			t.Errorf("%s was written to", p)
		}
		for _, x := range []struct {
			steps []string
			want  error
		}{{o.Migrations[:1], ErrNewer}, {append(o.Migrations[:2:2], "DROP TABLE t"), ErrOlder}} {
			if _, err := Look(ctx, p, Options{Migrations: x.steps}); !errors.Is(err, x.want) {
				t.Errorf("%v, want %v", err, x.want)
			}
		}
	}
	// What is asked for is written beside the other program.
	l, err := Look(ctx, path, o)
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	insert(l.W)
	insert(db.W)
	if a, b := count(l.R), count(db.R); a != 3 || b != 3 {
		t.Errorf("%d and %d rows", a, b)
	}
	none := filepath.Join(t.TempDir(), "none.db")
	if _, err := Look(ctx, none, o); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("no file: %v", err)
	}
	if err := os.WriteFile(none, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := Look(ctx, none, o); !errors.Is(err, ErrDamaged) {
		t.Errorf("an empty file: %v", err)
	}
}

// A medium that nobody can write to is read all the same, what is in the WAL too if
// the card still has what readers share.
func TestLookAtAMediumThatIsReadOnly(t *testing.T) {
	ctx := t.Context()
	from := filepath.Join(t.TempDir(), "a.db")
	o := Options{PageSize: 512, Migrations: []string{"CREATE TABLE t(a)"}}
	db, err := Open(ctx, from, o)
	if err != nil {
		t.Fatal(err)
	}
	open := t.TempDir() // copied while the WAL is in use
	if _, err := db.W.Exec("INSERT INTO t VALUES(1)"); err != nil {
		t.Fatal(err)
	}
	for _, end := range []string{"", "-wal", "-shm"} {
		copyTo(t, from+end, filepath.Join(open, "a.db"+end))
	}
	if err := db.Close(); err != nil {
		t.Fatal(err)
	}
	shut := t.TempDir()
	copyTo(t, from, filepath.Join(shut, "a.db"))
	lost := t.TempDir()
	for _, end := range []string{"", "-wal"} {
		copyTo(t, filepath.Join(open, "a.db"+end), filepath.Join(lost, "a.db"+end))
	}
	for _, dir := range []string{open, shut, lost} {
		files, err := filepath.Glob(filepath.Join(dir, "*"))
		if err != nil {
			t.Fatal(err)
		}
		for _, f := range files {
			if err := os.Chmod(f, 0o444); err != nil {
				t.Fatal(err)
			}
		}
		for d := dir; d != os.TempDir() && d != "/"; d = filepath.Dir(d) {
			if err := os.Chmod(d, 0o555); err != nil {
				t.Fatal(err)
			}
			t.Cleanup(func() { _ = os.Chmod(d, 0o755) })
		}
	}
	unprivileged(t, func() {
		for name, dir := range map[string]string{"with a WAL": open, "without": shut} {
			l, err := Look(ctx, filepath.Join(dir, "a.db"), o)
			if err != nil {
				t.Errorf("%s: %v", name, err)
				continue
			}
			var n int
			if err := l.R.QueryRowContext(ctx, "SELECT count(*) FROM t").Scan(&n); err != nil || n != 1 {
				t.Errorf("%s: %d rows, %v", name, n, err)
			}
			if _, err := l.W.ExecContext(ctx, "INSERT INTO t VALUES(2)"); err == nil {
				t.Errorf("%s: it was written to", name)
			}
			if err := l.Close(); err != nil {
				t.Errorf("%s: %v", name, err)
			}
		}
		// Without the WAL's entries it would be another state than the last.
		if l, err := Look(ctx, filepath.Join(lost, "a.db"), o); err == nil {
			l.Close()
			t.Error("the WAL was left out")
		} else if !strings.Contains(err.Error(), "a.db-wal; copy both") {
			t.Errorf("what to do is not said: %v", err)
		}
	})
}

// unprivileged runs f on a thread without root's right to write everywhere, which ends
// with it.
func unprivileged(t *testing.T, f func()) {
	done := make(chan struct{})
	go func() {
		defer close(done)
		if os.Geteuid() == 0 {
			runtime.LockOSThread()
			const nobody = 65534
			_, _, _ = unix.RawSyscall(unix.SYS_SETFSUID, nobody, 0, 0) // it returns who it was before
			if now, _, _ := unix.RawSyscall(unix.SYS_SETFSUID, nobody, 0, 0); now != nobody {
				t.Error("cannot become nobody")
				return
			}
		}
		f()
	}()
	<-done
}

func contents(t *testing.T, path string) []byte {
	t.Helper()
	b, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	return b
}

func copyTo(t *testing.T, from, to string) {
	t.Helper()
	if err := os.WriteFile(to, contents(t, from), 0o600); err != nil {
		t.Fatal(err)
	}
}
