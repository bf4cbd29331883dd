package app

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"

	"gatehouse/cmd/internal/config"
)

// epochFile asks for a new epoch at the next start, and says why.
const epochFile = "new-epoch"

// AskEpoch makes the next start begin a new epoch of the journal: its device has
// other keys from then on, or its files are from a backup.
func AskEpoch(cfg *config.Gate, why string) error {
	if err := config.WriteKey(filepath.Join(cfg.State, epochFile), []byte(why+"\n")); err != nil {
		return cfg.Remedy(fmt.Errorf("cannot ask for a new epoch: %w", err))
	}
	return nil
}

// newEpoch begins the epoch that was asked for. What the server has not receipted
// is carried over.
func (a *App) newEpoch(ctx context.Context) error {
	path := filepath.Join(a.cfg.State, epochFile)
	why, err := os.ReadFile(path)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return fmt.Errorf("cannot read why a new epoch begins: %w", err)
	}
	if err := a.Journal.NewEpoch(ctx, a.Journal.Acked(), strings.TrimSpace(string(why))); err != nil {
		return err
	}
	return os.Remove(path)
}
