package sqlite

import (
	"bytes"
	"context"
	"database/sql"
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

func TestSettingsHoldAndSchemaMovesForward(t *testing.T) {
	ctx := context.Background()
	path := filepath.Join(t.TempDir(), "a ?#.db")
	steps := []string{"CREATE TABLE t(a INTEGER PRIMARY KEY)"}
	db, err := Open(ctx, path, Options{PageSize: 1024, Full: true, Migrations: steps})
	if err != nil {
		t.Fatal(err)
	}
	var size int
	if err := db.R.QueryRow("PRAGMA page_size").Scan(&size); err != nil || size != 1024 {
		t.Errorf("page size %d, %v", size, err)
	}
	boom := errors.New("boom")
	if err := db.Write(ctx, func(tx *sql.Tx) error {
		if _, err := tx.Exec("INSERT INTO t VALUES(1)"); err != nil {
			return err
		}
		return boom
	}); !errors.Is(err, boom) {
		t.Errorf("error %v", err)
	}
	var n int
	if err := db.R.QueryRow("SELECT count(*) FROM t").Scan(&n); err != nil || n != 0 {
		t.Errorf("%d rows after a rollback, %v", n, err)
	}
	if _, err := db.R.Exec("INSERT INTO t VALUES(2)"); err == nil {
		t.Error("the reading side could write")
	}
	if err := db.Close(); err != nil {
		t.Fatal(err)
	}
	db, err = Open(ctx, path, Options{Migrations: append(steps, "ALTER TABLE t ADD COLUMN b TEXT")})
	if err != nil {
		t.Fatal(err)
	}
	db.Close()
	if _, err := Open(ctx, path, Options{Migrations: steps}); !errors.Is(err, ErrNewer) {
		t.Errorf("an older program opened a newer file: %v", err)
	}
}

func TestNotADatabase(t *testing.T) {
	path := filepath.Join(t.TempDir(), "x.db")
	for _, text := range []string{"short", strings.Repeat("not a database ", 500)} {
		if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		if _, err := Open(context.Background(), path, Options{}); err == nil || !strings.Contains(err.Error(), path) {
			t.Errorf("%.10q was opened: %v", text, err)
		}
	}
}

// A file of another user's says so, by an error that can be told from others.
func TestRightsAreTold(t *testing.T) {
	path := filepath.Join(t.TempDir(), "x.db")
	for p := filepath.Dir(path); strings.Contains(p, t.Name()); p = filepath.Dir(p) {
		if err := os.Chmod(p, 0o755); err != nil {
			t.Fatal(err)
		}
	}
	db, err := Open(t.Context(), path, Options{})
	if err != nil {
		t.Fatal(err)
	}
	if err := db.Close(); err != nil {
		t.Fatal(err)
	}
	if err := os.Chmod(filepath.Dir(path), 0o555); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = os.Chmod(filepath.Dir(path), 0o755) })
	for _, mode := range []fs.FileMode{0o000, 0o444} { // 0o444: it could be read, were there a WAL
		if err := os.Chmod(path, mode); err != nil {
			t.Fatal(err)
		}
		said := make(chan error)
		go func() {
			if os.Geteuid() == 0 {
				// The thread that is somebody else ends with this goroutine.
				runtime.LockOSThread()
				if err := unix.Setfsuid(65534); err != nil {
					said <- err
					return
				}
			}
			db, err := Open(t.Context(), path, Options{})
			if err == nil {
				err = errors.Join(errors.New("it is open"), db.Close())
			}
			said <- err
		}()
		if err := <-said; !errors.Is(err, fs.ErrPermission) || IsDamage(err) {
			t.Errorf("mode %o: %v", mode, err)
		}
	}
}

// Whoever empties the WAL waits neither for readers nor for the writer, and stops
// nobody who writes.
func TestTruncateWaitsForNobody(t *testing.T) {
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	path := filepath.Join(t.TempDir(), "a.db")
	db, err := Open(ctx, path, Options{Overwrite: true, Migrations: []string{"CREATE TABLE t(a INTEGER PRIMARY KEY, b TEXT)"}})
	if err != nil {
		t.Fatal(err)
	}
	defer db.Close()
	var patience int
	if err := db.check.QueryRow("PRAGMA busy_timeout").Scan(&patience); err != nil || patience != 0 {
		t.Errorf("checkpoints wait %d ms, %v", patience, err)
	}
	insert := func() {
		t.Helper()
		if _, err := db.W.ExecContext(ctx, "INSERT INTO t(b) VALUES(hex(randomblob(100)))"); err != nil {
			t.Fatal(err)
		}
	}
	refused := func(what string, tries int) {
		t.Helper()
		for range tries {
			if done, err := db.Truncate(ctx); done || err != nil {
				t.Fatalf("%s: %t %v", what, done, err)
			}
			if err := db.Checkpoint(ctx); err != nil {
				t.Fatalf("%s: %v", what, err)
			}
		}
	}
	insert()
	tx, err := db.R.BeginTx(ctx, &sql.TxOptions{ReadOnly: true})
	if err != nil {
		t.Fatal(err)
	}
	var n int
	if err := tx.QueryRow("SELECT count(*) FROM t").Scan(&n); err != nil {
		t.Fatal(err)
	}
	refused("somebody reads all there is", 10)
	for range 10 {
		insert()
		refused("somebody reads", 1)
	}
	if err := tx.Rollback(); err != nil {
		t.Fatal(err)
	}
	if err := db.Write(ctx, func(tx *sql.Tx) error {
		if _, err := tx.Exec("INSERT INTO t(b) VALUES('x')"); err != nil {
			return err
		}
		refused("somebody writes", 10)
		return nil
	}); err != nil {
		t.Fatal(err)
	}
	if done, err := db.Truncate(ctx); !done || err != nil {
		t.Errorf("nobody is there: %t %v", done, err)
	}
	if st, err := os.Stat(path + "-wal"); err != nil || st.Size() != 0 {
		t.Errorf("the WAL is not empty: %v %v", st, err)
	}
}

// A power cut while the file was made leaves one without pages, or a page that its
// journal takes back.
func TestFileCutWhileItWasMade(t *testing.T) {
	for name, make := range map[string]func(t *testing.T, path string){
		"no file": func(*testing.T, string) {},
		"empty": func(t *testing.T, path string) {
			if err := os.WriteFile(path, nil, 0o600); err != nil {
				t.Fatal(err)
			}
		},
		"hot journal": func(t *testing.T, path string) {
			// The header as sqlite.org/fileformat2.html has it, section 3: no pages to
			// restore, of a file that had none.
			header := append([]byte{0xd9, 0xd5, 0x05, 0xf9, 0x20, 0xa1, 0x63, 0xd7}, 0, 0, 0, 0, 0, 0, 0, 1, 0, 0, 0, 0, 0, 0, 2, 0, 0, 0, 2, 0)
			header = append(header, bytes.Repeat([]byte{0}, 512-len(header))...)
			if err := errors.Join(os.WriteFile(path, bytes.Repeat([]byte{0}, 512), 0o600), os.WriteFile(path+"-journal", header, 0o600)); err != nil {
				t.Fatal(err)
			}
		},
	} {
		t.Run(name, func(t *testing.T) {
			path := filepath.Join(t.TempDir(), "a.db")
			make(t, path)
			db, err := Open(t.Context(), path, Options{PageSize: 512, Migrations: []string{"CREATE TABLE t(a)"}})
			if err != nil {
				t.Fatal(err)
			}
			defer db.Close()
			var size, vacuum int
			if err := errors.Join(db.R.QueryRow("PRAGMA page_size").Scan(&size), db.R.QueryRow("PRAGMA auto_vacuum").Scan(&vacuum)); err != nil || size != 512 || vacuum != 2 {
				t.Errorf("pages of %d bytes, auto_vacuum %d, %v", size, vacuum, err)
			}
		})
	}
}
