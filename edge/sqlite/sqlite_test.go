package sqlite

import (
	"context"
	"database/sql"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"
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
