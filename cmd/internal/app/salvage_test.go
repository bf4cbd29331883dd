package app

import (
	"context"
	"database/sql"
	"encoding/json"
	"errors"
	"io"
	"io/fs"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"gatehouse/cmd/internal/config"
	"gatehouse/edge"
	"gatehouse/edge/journal"
	"gatehouse/edge/registry"
	"gatehouse/edge/sqlite"
)

// A power cut, or a bad card, leaves databases that cannot be read. The gate is
// open for business in seconds, says so, keeps what can be read, and loses nothing
// of what it does from then on.
func TestDamagedDatabasesAtStart(t *testing.T) {
	was := firstLook
	firstLook = 10 * time.Second // the files are small, the machine may be busy
	t.Cleanup(func() { firstLook = was })
	noon := time.Date(2026, 5, 14, 4, 0, 0, 0, time.UTC)
	for _, c := range []struct {
		name, file string
		damage     func(t *testing.T, b []byte) []byte
		alert      string
	}{
		{"journal, a hole", "journal.db", hole(0.4, 0.6), "journal_damaged"},
		{"journal, no database at all", "journal.db", hole(0, 1), "journal_damaged"},
		{"journal, its first page", "journal.db", hole(0, 0.02), "journal_damaged"},
		{"journal, cut off", "journal.db", func(_ *testing.T, b []byte) []byte { return b[:len(b)/3] }, "journal_damaged"},
		{"registry", "registry.db", hole(0.1, 0.9), "registry_damaged"},
	} {
		t.Run(c.name, func(t *testing.T) {
			dir := t.TempDir()
			present(t, dir, "Asia/Shanghai", "skip", &turnedClock{wall: noon, mono: 3000, synced: true}, Options{}, func(a *App) {
				for range 300 {
					if _, err := a.record(t.Context(), edge.KindRegistry, map[string]string{"what": strings.Repeat("x", 500)}); err != nil {
						t.Fatal(err)
					}
				}
			})
			path := filepath.Join(dir, "state", c.file)
			b, err := os.ReadFile(path)
			if err != nil {
				t.Fatal(err)
			}
			if err := os.WriteFile(path, c.damage(t, b), 0o600); err != nil {
				t.Fatal(err)
			}
			_ = os.Remove(path + "-wal")

			began := time.Now()
			var told, carried, salvaged bool
			present(t, dir, "Asia/Shanghai", "skip", &turnedClock{wall: noon.Add(time.Hour), mono: 3000, synced: true}, Options{
				Ready: func(*App) {
					// The bound; a machine under test has other work to do.
					if d := time.Since(began); d > 10*time.Second {
						t.Errorf("open for business after %v", d)
					}
				},
			}, func(a *App) {
				if c.file != "journal.db" {
					return
				}
				until(t, "the old entries are carried over", func() bool {
					done := false
					eachEntry(t, a.Journal, func(e *edge.Entry) { done = done || strings.Contains(string(e.Data), "journal_salvaged") })
					return done
				})
				if _, err := os.Stat(filepath.Join(dir, "state", salvageFile)); err == nil {
					t.Error("it is noted as unfinished")
				}
			})
			j := openJournal(t, filepath.Join(dir, "state"))
			defer j.Close()
			eachEntry(t, j, func(e *edge.Entry) {
				var d boardAlert
				if e.Kind == edge.KindAlert && json.Unmarshal(e.Data, &d) == nil {
					told = told || d.Alert == c.alert
					salvaged = salvaged || d.Alert == "journal_salvaged"
				}
				carried = carried || e.Kind == edge.KindCarried
			})
			if !told {
				t.Errorf("no alert %s", c.alert)
			}
			if c.name == "journal, a hole" && !(carried && salvaged) {
				t.Errorf("carried %v, told %v", carried, salvaged)
			}
			if kept, _ := filepath.Glob(path + asideSuffix + "*"); len(kept) == 0 {
				t.Error("the damaged file was not kept")
			}
		})
	}
}

// What the short look at the start does not reach is found while the gate runs; the
// next start sets the file aside.
func TestDamageDeepInAFile(t *testing.T) {
	first, whole := firstLook, wholeLook
	firstLook, wholeLook = 0, time.Millisecond
	t.Cleanup(func() { firstLook, wholeLook = first, whole })
	noon := time.Date(2026, 5, 14, 4, 0, 0, 0, time.UTC)
	dir := t.TempDir()
	clk := &turnedClock{wall: noon, mono: 3000, synced: true}
	present(t, dir, "Asia/Shanghai", "skip", clk, Options{}, func(a *App) {
		if _, err := a.Registry.Import(t.Context(), func(yield func(edge.RosterRow, error) bool) {
			for id := range edge.PassID(2000) {
				if !yield(edge.RosterRow{Pass: edge.Pass{ID: id + 1, Name: strings.Repeat("x", 50), Category: "worker", Status: edge.PassActive}}, nil) {
					return
				}
			}
		}, registry.ImportOptions{}); err != nil {
			t.Fatal(err)
		}
	})
	path := filepath.Join(dir, "state", "registry.db")
	b, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(path, hole(0.5, 0.7)(t, b), 0o600); err != nil {
		t.Fatal(err)
	}
	cfg, err := config.Load(filepath.Join(dir, "gate.yaml"))
	if err != nil {
		t.Fatal(err)
	}
	a, err := Build(t.Context(), cfg, Options{Version: "test", Time: clk, Log: slog.New(slog.DiscardHandler)})
	if err != nil {
		t.Fatal(err)
	}
	if err := a.Run(t.Context()); !sqlite.IsDamage(err) || !strings.Contains(err.Error(), "begins again") {
		t.Fatalf("the gate ended with %v", err)
	}
	wholeLook = time.Hour
	told := false
	for _, e := range present(t, dir, "Asia/Shanghai", "skip", clk, Options{}, nil) {
		var d boardAlert
		told = told || e.Kind == edge.KindAlert && json.Unmarshal(e.Data, &d) == nil && d.Alert == "registry_damaged"
	}
	if !told {
		t.Error("no alert")
	}
	if kept, _ := filepath.Glob(path + asideSuffix + "*"); len(kept) == 0 {
		t.Error("the damaged file was not kept")
	}
	if _, err := os.Stat(path + suspectSuffix); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("the note is still there: %v", err)
	}
}

// A bit that turned inside a line is no damage to SQLite, whose pages have no
// checksums: the gate opens with the journal it has, and says what it lacks.
func TestDamagedEntriesAtStart(t *testing.T) {
	noon := time.Date(2026, 5, 14, 4, 0, 0, 0, time.UTC)
	dir := t.TempDir()
	clk := &turnedClock{wall: noon, mono: 3000, synced: true}
	var epoch edge.Epoch
	present(t, dir, "Asia/Shanghai", "skip", clk, Options{}, func(a *App) { epoch = a.Journal.Epoch() })
	db, err := sql.Open("sqlite", filepath.Join(dir, "state", "journal.db"))
	if err != nil {
		t.Fatal(err)
	}
	// The last line, and the first after the start: the one shows the time, the other
	// may be an admission that was interrupted.
	r, err := db.Exec(`UPDATE entry SET line=x'03'||substr(line, 2) WHERE seq=(SELECT max(seq) FROM entry) OR seq=(SELECT v+1 FROM meta WHERE k='start')`)
	if err != nil {
		t.Fatal(err)
	}
	if n, err := r.RowsAffected(); err != nil || n != 2 {
		t.Fatal(n, err)
	}
	if err := db.Close(); err != nil {
		t.Fatal(err)
	}
	if err := os.Remove(filepath.Join(dir, "state", "time")); err != nil {
		t.Fatal(err)
	}
	cfg, err := config.Load(filepath.Join(dir, "gate.yaml"))
	if err != nil {
		t.Fatal(err)
	}
	began := time.Now()
	ready := make(chan struct{})
	a, err := Build(t.Context(), cfg, Options{Version: "test", Time: &turnedClock{wall: noon.Add(-time.Hour), mono: 3000}, Log: slog.New(slog.DiscardHandler), Ready: func(*App) { close(ready) }})
	if err != nil {
		t.Fatal(err)
	}
	if a.Journal.Epoch() != epoch {
		t.Error("another epoch has begun")
	}
	first := a.Journal.Size()
	ctx, stop := context.WithCancel(t.Context())
	done := make(chan error, 1)
	go func() { done <- a.Run(ctx) }()
	select {
	case <-ready:
	case err := <-done:
		t.Fatal(err)
	}
	// The bound; a machine under test has other work to do.
	if d := time.Since(began); d > 10*time.Second {
		t.Errorf("open for business after %v", d)
	}
	got, err := a.Journal.Read(t.Context(), first, 100, 1<<20)
	if err != nil || len(got) == 0 {
		t.Fatal(len(got), err)
	}
	alerts := 0
	for _, s := range got {
		e, err := edge.DecodeEntry(s.Line)
		if err != nil {
			t.Fatal(err)
		}
		var d boardAlert
		if e.Kind == edge.KindAlert && json.Unmarshal(e.Data, &d) == nil && d.Alert == alertHarmed {
			alerts++
		}
		if e.Stamp.Time < noon.UnixMilli() {
			t.Errorf("%s at %d: the time has run backwards across the start", e.Kind, e.Stamp.Time)
		}
	}
	if alerts != 1 {
		t.Errorf("%d alerts of the damage, want one", alerts)
	}
	stop()
	if err := <-done; err != nil {
		t.Error(err)
	}
}

// hole overwrites a part of a file.
func hole(from, to float64) func(*testing.T, []byte) []byte {
	return func(_ *testing.T, b []byte) []byte {
		for i := int(float64(len(b)) * from); i < int(float64(len(b))*to); i++ {
			b[i] = 0xA5
		}
		return b
	}
}

// What is no damage is not set aside: another program's version, another gate's
// card, a file without rights.
func TestWhatIsWrongButNotDamaged(t *testing.T) {
	dir := t.TempDir()
	noon := time.Date(2026, 5, 14, 4, 0, 0, 0, time.UTC)
	present(t, dir, "Asia/Shanghai", "skip", &turnedClock{wall: noon, mono: 3000, synced: true}, Options{}, nil)
	conf := filepath.Join(dir, "gate.yaml")
	src, err := os.ReadFile(conf)
	if err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(conf, []byte(strings.Replace(string(src), "gate: g", "gate: other", 1)), 0o600); err != nil {
		t.Fatal(err)
	}
	cfg, err := config.Load(conf)
	if err != nil {
		t.Fatal(err)
	}
	if a, err := Build(context.Background(), cfg, Options{Version: "test", Log: slog.New(slog.NewTextHandler(io.Discard, nil))}); err == nil {
		_ = a.Close()
		t.Error("another gate's journal was taken")
	} else if !strings.Contains(err.Error(), "card from another gate") {
		t.Error(err)
	}
	if kept, _ := filepath.Glob(filepath.Join(dir, "state", "*"+asideSuffix+"*")); len(kept) > 0 {
		t.Errorf("set aside: %v", kept)
	}
}

// The power is cut at every point of a salvage. The next start goes on: what can be
// read is carried over, each entry once, and nothing of it is taken for rubbish before.
func TestSalvageIsCutAtEveryPoint(t *testing.T) {
	was := firstLook
	firstLook = 10 * time.Second // the files are small, the machine may be busy
	t.Cleanup(func() { firstLook = was })
	noon := time.Date(2026, 5, 14, 4, 0, 0, 0, time.UTC)
	clk := func() *turnedClock { return &turnedClock{wall: noon, mono: 3000, synced: true} }
	dir := t.TempDir()
	present(t, dir, "Asia/Shanghai", "skip", clk(), Options{}, func(a *App) {
		for i := range 300 {
			if _, err := a.record(t.Context(), edge.KindRegistry, map[string]any{"salvage": i, "what": strings.Repeat("x", 500)}); err != nil {
				t.Fatal(err)
			}
		}
	})
	path := filepath.Join(dir, "state", "journal.db")
	b, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	write := func(t *testing.T, path string, b []byte) {
		t.Helper()
		if err := os.WriteFile(path, b, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	write(t, path, hole(0.8, 0.85)(t, b))
	_ = os.Remove(path + "-wal")

	build := func(t *testing.T, dir string, f func(a *App)) {
		t.Helper()
		cfg, err := config.Load(filepath.Join(dir, "gate.yaml"))
		if err != nil {
			t.Fatal(err)
		}
		a, err := Build(t.Context(), cfg, Options{Version: "test", Time: clk(), Log: slog.New(slog.NewTextHandler(io.Discard, nil))})
		if err != nil {
			t.Fatal(err)
		}
		if f != nil {
			f(a)
		}
		if err := a.Close(); err != nil {
			t.Fatal(err)
		}
	}
	note := func(t *testing.T, state string, change func(s *journal.Salvage)) {
		t.Helper()
		s := journal.Salvage{Aside: filepath.Join(state, "journal.db"+asideSuffix+"20260514-040000"), Reason: "damaged"}
		if text, err := os.ReadFile(filepath.Join(state, salvageFile)); err == nil {
			var all []journal.Salvage
			if err := json.Unmarshal(text, &all); err != nil {
				t.Fatal(err)
			}
			s = all[0]
		}
		if change != nil {
			change(&s)
		}
		text, err := json.Marshal([]journal.Salvage{s})
		if err != nil {
			t.Fatal(err)
		}
		write(t, filepath.Join(state, salvageFile), text)
	}
	unbegun := func(s *journal.Salvage) { s.Begun, s.Epoch, s.Acked, s.Cells = false, 0, 0, 0 }
	move := func(t *testing.T, state string, ends ...string) {
		t.Helper()
		for _, end := range ends {
			if err := os.Rename(filepath.Join(state, "journal.db"+end), filepath.Join(state, "journal.db"+asideSuffix+"20260514-040000"+end)); err != nil {
				t.Fatal(err)
			}
		}
	}
	var want map[int]int
	for _, c := range []struct {
		name string
		cut  func(t *testing.T, dir, state string)
	}{
		{"before anything", func(*testing.T, string, string) {}},
		{"after the first note", func(t *testing.T, _, state string) { note(t, state, nil) }},
		{"the WAL is moved, and the rest looks sound without it", func(t *testing.T, _, state string) {
			write(t, filepath.Join(state, "journal.db-wal"), nil)
			note(t, state, nil)
			move(t, state, "-wal")
		}},
		{"all is moved", func(t *testing.T, _, state string) { note(t, state, nil); move(t, state, "") }},
		{"all is moved, and the new one is half made", func(t *testing.T, _, state string) {
			note(t, state, nil)
			move(t, state, "")
			write(t, filepath.Join(state, "journal.db"), []byte("SQLite format 3\x00 and no more"))
		}},
		{"before the second note", func(t *testing.T, dir, state string) { build(t, dir, nil); note(t, state, unbegun) }},
		{"after the second note", func(t *testing.T, dir, _ string) { build(t, dir, nil) }},
		{"the note is lost", func(t *testing.T, dir, state string) {
			build(t, dir, nil)
			if err := os.Remove(filepath.Join(state, salvageFile)); err != nil {
				t.Fatal(err)
			}
		}},
		{"the note is torn", func(t *testing.T, dir, state string) {
			build(t, dir, nil)
			write(t, filepath.Join(state, salvageFile), []byte(`[{"Aside":"/v`))
		}},
		{"carried over, and not marked as done", func(t *testing.T, dir, _ string) {
			build(t, dir, func(a *App) {
				if len(rubbish(a.cfg.State)) > 0 {
					t.Errorf("rubbish: %v", rubbish(a.cfg.State))
				}
				if _, err := a.Journal.Recover(t.Context(), &a.damage.salvages[0]); err != nil {
					t.Fatal(err)
				}
			})
		}},
		{"marked as done, and still noted", func(t *testing.T, dir, state string) {
			build(t, dir, func(a *App) {
				s := &a.damage.salvages[0]
				if _, err := a.Journal.Recover(t.Context(), s); err != nil {
					t.Fatal(err)
				}
				write(t, s.Aside+doneSuffix, nil)
			})
		}},
	} {
		t.Run(c.name, func(t *testing.T) {
			here := t.TempDir()
			if err := os.CopyFS(here, os.DirFS(dir)); err != nil {
				t.Fatal(err)
			}
			state := filepath.Join(here, "state")
			if err := filepath.WalkDir(state, func(path string, d fs.DirEntry, err error) error {
				if err == nil && !d.IsDir() {
					return os.Chmod(path, 0o600)
				}
				return err
			}); err != nil {
				t.Fatal(err)
			}
			if err := errors.Join(os.Chmod(state, 0o700), os.Chmod(filepath.Join(state, "keys"), 0o700)); err != nil {
				t.Fatal(err)
			}
			c.cut(t, here, state)
			present(t, here, "Asia/Shanghai", "skip", clk(), Options{}, func(a *App) {
				until(t, "it is carried over", func() bool {
					files, err := filepath.Glob(filepath.Join(state, "journal.db"+asideSuffix+"*"+doneSuffix))
					_, gone := os.Stat(filepath.Join(state, salvageFile))
					return err == nil && len(files) == 1 && (gone != nil || c.name == "marked as done, and still noted")
				})
			})
			got := map[int]int{}
			j := openJournal(t, state)
			defer j.Close()
			lineage := ""
			eachEntry(t, j, func(e *edge.Entry) {
				var d struct {
					Salvage *int
					Entry   *struct{ Data struct{ Salvage *int } }
				}
				if e.Kind == edge.KindEpoch {
					lineage = string(e.Data)
				}
				if json.Unmarshal(e.Data, &d) == nil && d.Entry != nil && d.Entry.Data.Salvage != nil {
					got[*d.Entry.Data.Salvage]++
				}
			})
			if !strings.Contains(lineage, "the journal's file was damaged") {
				t.Errorf("the epoch follows nothing: %s", lineage)
			}
			if want == nil {
				if want = got; len(got) < 200 {
					t.Fatalf("%d entries were carried over", len(got))
				}
			}
			for i := range 300 {
				if got[i] != want[i] || got[i] > 1 {
					t.Errorf("entry %d was carried over %d times", i, got[i])
				}
			}
		})
	}
}
