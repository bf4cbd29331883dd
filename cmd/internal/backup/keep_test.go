package backup

import (
	"io"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"gatehouse/cmd/internal/config"
	"gatehouse/edge/sqlite"
)

// keeper makes what a backup of a gate is made of.
func keeper(t *testing.T, name string) (*config.Gate, string) {
	t.Helper()
	dir := t.TempDir()
	cfg := &config.Gate{Community: "lakeside", Site: "north", Gate: name, State: dir, Policy: filepath.Join(dir, "policy.yaml"), Keys: config.Keys{Site: filepath.Join(dir, "site.key")}}
	conf := filepath.Join(dir, "gate.yaml")
	for _, path := range []string{conf, cfg.Policy} {
		if err := os.WriteFile(path, []byte("{}\n"), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	for _, name := range []string{journalName, registryName} {
		db, err := sqlite.Open(t.Context(), filepath.Join(dir, name), sqlite.Options{})
		if err != nil {
			t.Fatal(err)
		}
		if err := db.Close(); err != nil {
			t.Fatal(err)
		}
	}
	if err := NewKey(cfg, io.Discard); err != nil {
		t.Fatal(err)
	}
	return cfg, conf
}

// Two gates, the name of one beginning with that of the other, share a medium, and one
// starts without the time. Each removes its own old backups and nothing else, and
// never the one that it has just written.
func TestKeep(t *testing.T) {
	shared := t.TempDir()
	for _, name := range []string{"north-east-notes.backup", "north-east-20260514-0900001.backup", "north-east-20260514-090000.backup.part"} {
		if err := os.WriteFile(filepath.Join(shared, name), nil, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	want := func(names ...string) {
		t.Helper()
		entries, err := os.ReadDir(shared)
		if err != nil {
			t.Fatal(err)
		}
		var got []string
		for _, e := range entries {
			got = append(got, strings.TrimPrefix(e.Name(), "north-"))
		}
		names = append(names, "east-20260514-0900001.backup", "east-20260514-090000.backup.part", "east-notes.backup")
		for _, n := range names {
			if _, err := os.Stat(filepath.Join(shared, "north-"+n)); err != nil {
				t.Errorf("%s is gone", n)
			}
		}
		if len(got) != len(names) {
			t.Errorf("there are %q, want %q", got, names)
		}
	}
	day := func(n int) time.Time { return time.Date(2026, 5, n, 2, 30, 0, 0, time.UTC) }
	write := func(cfg *config.Gate, conf string, at time.Time) {
		t.Helper()
		file, err := Write(t.Context(), cfg, conf, shared, "test", at, 2)
		if err != nil {
			t.Fatal(err)
		}
		if _, err := os.Stat(file); err != nil {
			t.Errorf("the backup just written: %v", err)
		}
	}
	east, eastConf := keeper(t, "east")
	east2, east2Conf := keeper(t, "east-2")
	for n := 1; n <= 3; n++ {
		write(east, eastConf, day(n))
		write(east2, east2Conf, day(n))
	}
	want("east-20260502-023000.backup", "east-20260503-023000.backup", "east-2-20260502-023000.backup", "east-2-20260503-023000.backup")
	write(east, eastConf, time.Date(1970, 1, 1, 0, 0, 9, 0, time.UTC))
	want("east-19700101-000009.backup", "east-20260503-023000.backup", "east-2-20260502-023000.backup", "east-2-20260503-023000.backup")
}
