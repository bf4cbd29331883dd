package app

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"time"

	"gatehouse/cmd/internal/config"
	"gatehouse/edge"
	"gatehouse/edge/journal"
	"gatehouse/edge/sqlite"
)

// asideSuffix marks damaged files: a gate opens for business whatever state its
// databases are in, and an alert says so. They are removed when space runs out.
const asideSuffix = ".damaged-"

// damage is what was found at the start, to be told when the journal runs.
type damage struct {
	alerts  []boardAlert
	salvage *journal.Salvage
}

func aside(path string) string {
	return path + asideSuffix + time.Now().UTC().Format("20060102-150405")
}

// openJournal opens the journal, or begins another where it is damaged.
func (a *App) openJournal(ctx context.Context) error {
	path := filepath.Join(a.cfg.State, "journal.db")
	o := journal.Options{Community: a.cfg.Community, Site: a.cfg.Site, Gate: a.cfg.Gate, Clock: a.Clock, Signer: a.Identity.Signer(), Retention: a.cfg.Journal.Retention, Technical: a.cfg.Journal.Technical, Log: a.log}
	if e := a.cfg.Enrolled; e != nil {
		o.Recipient = e.Recipient
	}
	if r, err := roomOf(a.cfg.State); err == nil {
		o.Reserve = r.spare()
	}
	err := look(ctx, path)
	if err == nil {
		if a.Journal, err = journal.Open(ctx, path, o); err == nil {
			a.damage.salvage, err = a.unfinished()
			return err
		}
		if !sqlite.IsDamage(err) {
			return err
		}
	}
	if a.o.Beside {
		return fmt.Errorf("the journal is damaged: %w (the daemon sets it aside when it starts, and carries over what can be read)", err)
	}
	to := aside(path)
	a.log.Error("the journal is damaged; a new epoch begins, and what can be read is carried over", "err", err, "set_aside", to)
	if a.Journal, a.damage.salvage, err = journal.SetAside(ctx, path, to, err, o); err != nil {
		return err
	}
	text, err := json.Marshal(a.damage.salvage)
	if err == nil {
		err = config.WriteKey(filepath.Join(a.cfg.State, salvageFile), text)
	}
	if err != nil {
		return fmt.Errorf("cannot note what is to be carried over: %w", err)
	}
	a.damage.alerts = append(a.damage.alerts, boardAlert{"journal_damaged", true,
		fmt.Sprintf("the journal's file was damaged and is kept as %s; a new epoch follows %s", filepath.Base(to), a.damage.salvage.Epoch)})
	return nil
}

// salvageFile notes, until it is done, what is to be carried over.
const salvageFile = "salvage.json"

func (a *App) unfinished() (*journal.Salvage, error) {
	text, err := os.ReadFile(filepath.Join(a.cfg.State, salvageFile))
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, fmt.Errorf("cannot read what is to be carried over: %w", err)
	}
	s := new(journal.Salvage)
	if err := json.Unmarshal(text, s); err != nil {
		a.log.Error("the note of what is to be carried over is damaged; the file set aside is left as it is", "err", err)
		return nil, nil
	}
	return s, nil
}

// openRegistry opens the registry, or begins with an empty one where it is damaged:
// the community server sends it anew; a gate on its own imports its file again.
func (a *App) openRegistry(ctx context.Context) error {
	path := filepath.Join(a.cfg.State, "registry.db")
	err := look(ctx, path)
	if err == nil {
		if a.Registry, err = OpenRegistry(ctx, a.cfg, a.Clock, a.log); err == nil || !sqlite.IsDamage(err) {
			return err
		}
	}
	if a.o.Beside {
		return fmt.Errorf("the registry is damaged: %w (the daemon sets it aside when it starts)", err)
	}
	to := aside(path)
	a.log.Error("the registry is damaged; it begins empty", "err", err, "set_aside", to, "hint", "the community server sends it again; without one: gatehouse pass import FILE")
	for _, end := range []string{"-wal", "-shm", ""} {
		if err := os.Rename(path+end, to+end); err != nil && !errors.Is(err, fs.ErrNotExist) {
			return fmt.Errorf("cannot set the damaged registry aside: %w", err)
		}
	}
	a.damage.alerts = append(a.damage.alerts, boardAlert{"registry_damaged", true,
		fmt.Sprintf("the registry's file was damaged and is kept as %s; no pass is known until the server has sent them again", filepath.Base(to))})
	a.Registry, err = OpenRegistry(ctx, a.cfg, a.Clock, a.log)
	return err
}

// harmed notes damage within the journal that is in use: what can be read of it is
// used on, and an alert says so once.
func (a *App) harmed(err error) {
	a.log.Error("a part of the journal is damaged; the gate goes on without it", "err", err, "hint", "gatehouse journal verify says where; back the gate up, and replace a card that does this again")
	for _, d := range a.damage.alerts {
		if d.Alert == alertHarmed {
			return
		}
	}
	a.damage.alerts = append(a.damage.alerts, boardAlert{alertHarmed, true, "entries of the journal cannot be read; gatehouse journal verify says which"})
}

const alertHarmed = "journal_entries_damaged"

// tellDamage records what was found at the start.
func (a *App) tellDamage(ctx context.Context) error {
	for _, d := range a.damage.alerts {
		if _, err := a.record(ctx, edge.KindAlert, d); err != nil {
			return err
		}
	}
	return nil
}

// recover carries over what can be read of a damaged journal, beside the gate's
// work, and tells how much that was. What an earlier run did not get done with is
// taken up again.
func (a *App) recover(ctx context.Context) {
	s := a.damage.salvage
	if s == nil {
		return
	}
	r, err := a.Journal.Recover(ctx, s)
	if err != nil {
		if ctx.Err() == nil {
			a.log.Error("cannot carry over the damaged journal's entries", "err", err, "file", s.Aside)
		}
		return
	}
	if err := os.Remove(filepath.Join(a.cfg.State, salvageFile)); err != nil {
		a.log.Error("cannot note that the damaged journal's entries were carried over", "err", err)
	}
	a.log.Warn("the damaged journal's entries were carried over", "carried", r.Carried, "unreadable", r.Lost, "file", s.Aside)
	if _, err := a.record(ctx, edge.KindAlert, boardAlert{"journal_salvaged", true, fmt.Sprintf("%d entries of the damaged journal were carried over, %d could not be read", r.Carried, r.Lost)}); err != nil {
		a.log.Error("cannot record that they were", "err", err)
	}
}
