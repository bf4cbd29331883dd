package app

import (
	"context"
	"errors"
	"io/fs"
	"log/slog"
	"os"
	"path/filepath"
	"slices"
	"testing"
	"testing/synctest"
	"time"

	"gatehouse/cmd/internal/config"
	"gatehouse/edge"
)

// Copies beside the databases go when they are old, and all of them when somebody is
// erased; never a journal that is still to be carried over.
func TestCopiesGo(t *testing.T) {
	names := []string{
		"journal.db.damaged-20260101-000000", "journal.db.damaged-20260101-000000-wal", "journal.db.damaged-20260101-000000.done",
		"registry.db.damaged-20260101-000000", "of-2.1.0/journal.db", "journal.db.damaged-20260102-000000", "journal.db",
	}
	left := func(state string) (out []string) {
		for _, n := range names {
			if _, err := os.Lstat(filepath.Join(state, n)); err == nil {
				out = append(out, n)
			} else if !errors.Is(err, fs.ErrNotExist) {
				t.Fatal(err)
			}
		}
		return out
	}
	now := time.Now()
	for what, c := range map[string]struct {
		age    time.Duration
		before time.Time
		mark   bool
		left   []string
	}{
		"young":             {time.Hour, now.Add(-24 * time.Hour), false, names},
		"old":               {48 * time.Hour, now.Add(-24 * time.Hour), false, names[5:]},
		"somebody's":        {-time.Hour, AllCopies(), false, names[5:]},
		"during an undoing": {48 * time.Hour, AllCopies(), true, names[4:]},
	} {
		t.Run(what, func(t *testing.T) {
			state := t.TempDir()
			for _, n := range names {
				p := filepath.Join(state, n)
				if err := errors.Join(os.MkdirAll(filepath.Dir(p), 0o700), os.WriteFile(p, nil, 0o600)); err != nil {
					t.Fatal(err)
				}
				for _, p := range []string{p, filepath.Dir(p)} {
					if err := os.Chtimes(p, now.Add(-c.age), now.Add(-c.age)); err != nil {
						t.Fatal(err)
					}
				}
			}
			if c.mark {
				if err := os.WriteFile(filepath.Join(state, "restoring"), nil, 0o600); err != nil {
					t.Fatal(err)
				}
			}
			if _, err := RemoveCopies(state, c.before); err != nil {
				t.Fatal(err)
			}
			if got := left(state); !slices.Equal(got, c.left) {
				t.Errorf("left: %q, not %q", got, c.left)
			}
		})
	}
}

// Nor does what a power cut has left of a backup stay; one that is being made does.
func TestLeftBackupsGo(t *testing.T) {
	state := t.TempDir()
	for name, age := range map[string]time.Duration{"backup-1.tmp": 2 * time.Hour, "backup-2.tmp": time.Minute} {
		p := filepath.Join(state, name)
		if err := errors.Join(os.Mkdir(p, 0o700), os.WriteFile(filepath.Join(p, "journal.db"), nil, 0o600), os.Chtimes(p, time.Now().Add(-age), time.Now().Add(-age))); err != nil {
			t.Fatal(err)
		}
	}
	if removed, err := RemoveCopies(state, AllCopies()); err != nil || !slices.Equal(removed, []string{"backup-1.tmp"}) {
		t.Errorf("%q, %v", removed, err)
	}
}

// The mark that a damaged journal was carried over stays as long as anything of it,
// though a clock that was wrong has given that a time to come.
func TestMarkOfCopyGoesLast(t *testing.T) {
	for _, end := range []string{"", "-wal"} {
		state := t.TempDir()
		file := filepath.Join(state, "journal.db.damaged-20260101-000000")
		now := time.Now()
		for name, age := range map[string]time.Duration{file + end: -1000 * time.Hour, file + doneSuffix: 48 * time.Hour} {
			if err := errors.Join(os.WriteFile(name, nil, 0o600), os.Chtimes(name, now.Add(-age), now.Add(-age))); err != nil {
				t.Fatal(err)
			}
		}
		if _, err := RemoveCopies(state, now.Add(-24*time.Hour)); err != nil {
			t.Fatal(err)
		}
		if Uncarried(file) {
			t.Errorf("%q stays, and would be carried over again", end)
		}
		if _, err := RemoveCopies(state, AllCopies()); err != nil {
			t.Fatal(err)
		}
		if left, err := os.ReadDir(state); err != nil || len(left) > 0 {
			t.Errorf("left: %v, %v", left, err)
		}
	}
}

// A copy that has to stay when somebody is erased, since it is still to be carried
// over, goes when that is done.
func TestErasureReachesCopiesLater(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		state := t.TempDir()
		a := &App{cfg: &config.Gate{State: state}, log: slog.New(slog.DiscardHandler), erased: make(chan struct{}, 1)}
		file := filepath.Join(state, "journal.db.damaged-20260101-000000")
		if err := os.WriteFile(file, nil, 0o600); err != nil {
			t.Fatal(err)
		}
		ctx, stop := context.WithCancel(t.Context())
		done := make(chan error, 1)
		go func() { done <- a.copies(ctx) }()
		a.erased <- struct{}{}
		synctest.Wait()
		if err := os.WriteFile(file+doneSuffix, nil, 0o600); err != nil {
			t.Error(err)
		}
		time.Sleep(copiesEvery)
		synctest.Wait()
		if left, err := os.ReadDir(state); err != nil || len(left) > 0 {
			t.Errorf("left: %v, %v", left, err)
		}
		stop()
		<-done
	})
}

// An order to erase somebody reaches the copies.
func TestErasureReachesCopies(t *testing.T) {
	a, _ := gateLogging(t, t.TempDir(), slog.New(slog.DiscardHandler))
	old := filepath.Join(a.cfg.State, "journal.db"+asideSuffix+"20260101-000000")
	for _, f := range []string{old, old + doneSuffix} {
		if err := os.WriteFile(f, []byte("x"), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	ctx, stop := context.WithCancel(t.Context())
	done := make(chan error, 1)
	go func() { done <- a.Run(ctx) }()
	if _, err := a.Journal.Erase(t.Context(), edge.PassID(3), "guard:1"); err != nil {
		t.Fatal(err)
	}
	until(t, "the copy is gone", func() bool { _, err := os.Lstat(old); return errors.Is(err, fs.ErrNotExist) })
	stop()
	if err := <-done; err != nil {
		t.Error(err)
	}
}
