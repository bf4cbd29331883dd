package app

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"

	"gatehouse/cmd/internal/updatecmd"
	"gatehouse/edge"
)

// updateNote makes an alert of the word that an update has left.
func (a *App) updateNote(ctx context.Context) error {
	path := filepath.Join(a.cfg.State, updatecmd.Note)
	b, err := os.ReadFile(path)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return fmt.Errorf("cannot read the word of an update: %w", err)
	}
	var note struct {
		Alert string `json:"alert"`
		Text  string `json:"text"`
	}
	if err := json.Unmarshal(b, &note); err != nil || note.Alert == "" {
		note.Alert, note.Text = "update_undone", "an update left a note that cannot be read"
	}
	a.log.Warn(note.Text)
	if _, err := a.record(ctx, edge.KindAlert, boardAlert{Alert: note.Alert, Open: true, Text: note.Text}); err != nil {
		return err
	}
	return os.Remove(path)
}
