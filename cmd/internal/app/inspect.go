package app

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"time"

	"gatehouse/edge/sqlite"
)

// A whole look through a large database takes longer than people at a gate wait, so
// a start has only a short one. The whole look follows when the gate is open. What
// it finds is noted beside the file, and the daemon begins again: the start that
// finds the note sets the file aside.
var (
	firstLook = 5 * time.Millisecond
	wholeLook = 20 * time.Second // after the start, which has other things to read
)

const (
	journalFile, registryFile = "journal.db", "registry.db"

	suspectSuffix = ".suspect"
	// secondLook is how long a start looks through a file with such a note: it may
	// have been replaced by a good one meanwhile. Past that the note is believed.
	secondLook = 5 * time.Second
)

// look finds damage in a file; nil also when there is no file.
func look(ctx context.Context, path string) error {
	if _, err := os.Stat(path); errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	note, err := os.ReadFile(path + suspectSuffix)
	noted := err == nil
	patience := firstLook
	if noted {
		patience = secondLook
	}
	began := time.Now()
	if err := sqlite.Check(ctx, path, patience); sqlite.IsDamage(err) {
		return err
	}
	if noted && time.Since(began) >= patience {
		return fmt.Errorf("%w: %s", sqlite.ErrDamaged, note)
	}
	return nil // what else is wrong, opening it says better
}

// unsuspect forgets the notes: both databases are open, and what was damaged is set aside.
func (a *App) unsuspect() error {
	for _, name := range []string{journalFile, registryFile} {
		if err := os.Remove(filepath.Join(a.cfg.State, name) + suspectSuffix); err != nil && !errors.Is(err, fs.ErrNotExist) {
			return fmt.Errorf("cannot remove the note of damage: %w", err)
		}
	}
	return nil
}

// inspect looks through the databases once, whole.
func (a *App) inspect(ctx context.Context) error {
	select {
	case <-ctx.Done():
		return nil
	case <-time.After(wholeLook):
	}
	for _, name := range []string{journalFile, registryFile} {
		path := filepath.Join(a.cfg.State, name)
		err := sqlite.Check(ctx, path, 24*time.Hour)
		if ctx.Err() != nil {
			return nil
		}
		if !sqlite.IsDamage(err) {
			continue
		}
		if werr := os.WriteFile(path+suspectSuffix, []byte(err.Error()+"\n"), 0o600); werr != nil {
			a.log.Error("damage was found, and cannot be noted; the gate goes on with the file as it is", "err", err, "cannot_note", werr)
			continue
		}
		return fmt.Errorf("%w: the gate begins again and sets the file aside", err)
	}
	<-ctx.Done()
	return nil
}
