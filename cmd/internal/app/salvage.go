package app

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"gatehouse/cmd/internal/config"
	"gatehouse/edge"
	"gatehouse/edge/durable"
	"gatehouse/edge/journal"
	"gatehouse/edge/sqlite"
)

// asideSuffix marks damaged files: a gate opens for business whatever state its
// databases are in, and an alert says so. They are removed when space runs out, a
// journal only when doneSuffix says that it was carried over.
const (
	asideSuffix = ".damaged-"
	doneSuffix  = ".done"
)

// damage is what was found at the start, to be told when the journal runs.
type damage struct {
	alerts   []boardAlert
	salvages []journal.Salvage // what is still to be carried over of them
}

func aside(path string) string {
	to := path + asideSuffix + time.Now().UTC().Format("20060102-150405")
	for _, err := os.Lstat(to); err == nil; _, err = os.Lstat(to) {
		to += "x"
	}
	return to
}

// openJournal opens the journal, or begins another where it is damaged.
func (a *App) openJournal(ctx context.Context) error {
	path := filepath.Join(a.cfg.State, "journal.db")
	o := journal.Options{Community: a.cfg.Community, Site: a.cfg.Site, Gate: a.cfg.Gate, Clock: a.Clock, Signer: a.Identity.Signer(), Retention: a.cfg.Journal.Retention, Technical: a.cfg.Journal.Technical, Log: a.log}
	if e := a.cfg.Enrolled; e != nil {
		o.Recipient = e.Recipient
	}
	o.Erased = func(context.Context) error {
		select {
		case a.erased <- struct{}{}:
		default: // it will look anyway
		}
		return nil
	}
	if r, err := roomOf(a.cfg.State); err == nil {
		o.Reserve = r.spare()
	}
	salvages, err := a.unfinished(ctx, path)
	if err != nil {
		return err
	}
	if n := len(salvages); n == 0 || salvages[n-1].Begun {
		if err = look(ctx, path); err == nil {
			if a.Journal, err = journal.Open(ctx, path, o); err == nil {
				a.damage.salvages = salvages
				return nil
			}
			if !sqlite.IsDamage(err) {
				return err
			}
		}
		salvages = append(salvages, journal.Salvage{Aside: aside(path), Reason: err.Error()})
	}
	s := &salvages[len(salvages)-1]
	if a.o.Beside {
		return fmt.Errorf("the journal is damaged: %s (the daemon sets it aside when it starts, and carries over what can be read)", s.Reason)
	}
	a.log.Error("the journal is damaged; a new epoch begins, and what can be read is carried over", "err", s.Reason, "set_aside", s.Aside)
	// Noted before anything moves: a power cut at any moment leaves either the damaged
	// journal in its place or the note of where it went.
	if err := a.noteSalvages(salvages); err != nil {
		return err
	}
	if a.Journal, err = journal.SetAside(ctx, path, s, o); err != nil {
		return err
	}
	if err := a.noteSalvages(salvages); err != nil {
		return err
	}
	a.damage.salvages = salvages
	a.damage.alerts = append(a.damage.alerts, boardAlert{"journal_damaged", true,
		fmt.Sprintf("the journal's file was damaged and is kept as %s; a new epoch follows %s", filepath.Base(s.Aside), s.Epoch)})
	return nil
}

// salvageFile notes, until it is done, what is to be carried over, the oldest first.
const salvageFile = "salvage.json"

func (a *App) noteSalvages(all []journal.Salvage) error {
	path := filepath.Join(a.cfg.State, salvageFile)
	if len(all) == 0 {
		return os.Remove(path)
	}
	text, err := json.Marshal(all)
	if err == nil {
		err = config.WriteKey(path, text)
	}
	if err == nil {
		err = durable.SyncFolder(a.cfg.State)
	}
	if err != nil {
		return fmt.Errorf("cannot note what is to be carried over: %w", err)
	}
	return nil
}

// unfinished are the damaged journals that are still to be carried over: those noted,
// and those that are there without a mark that they were. The last one may not have
// been replaced yet.
func (a *App) unfinished(ctx context.Context, path string) ([]journal.Salvage, error) {
	var noted, out []journal.Salvage
	text, err := os.ReadFile(filepath.Join(a.cfg.State, salvageFile))
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return nil, fmt.Errorf("cannot read what is to be carried over: %w", err)
	}
	if err == nil {
		if err := json.Unmarshal(text, &noted); err != nil {
			a.log.Error("the note of what is to be carried over is damaged; every file set aside is looked through", "err", err)
		}
	}
	files, err := filepath.Glob(path + asideSuffix + "*")
	if err != nil {
		return nil, err
	}
	_, gone := os.Lstat(path)
	for _, f := range files { // in the order of time
		if f != asideOf(f) || isDone(f) || slices.ContainsFunc(noted, func(s journal.Salvage) bool { return s.Aside == f }) {
			continue
		}
		s, err := journal.Aside(ctx, f)
		if err != nil {
			return nil, err
		}
		out = append(out, *s)
	}
	for _, s := range noted {
		if !isDone(s.Aside) {
			out = append(out, s)
		}
	}
	if n := len(out); n > 0 && errors.Is(gone, fs.ErrNotExist) {
		out[n-1].Begun = false // nothing has taken its place
	}
	return out, nil
}

// asideOf is the damaged file that this one is, or belongs to.
func asideOf(f string) string {
	for _, end := range []string{"-wal", "-shm", doneSuffix} {
		f = strings.TrimSuffix(f, end)
	}
	return f
}

func isDone(aside string) bool {
	_, err := os.Lstat(aside + doneSuffix)
	return err == nil
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

// salvageRetry is how long a damaged journal that cannot be carried over now, as on a
// full medium, is let be.
const salvageRetry = 30 * time.Second

// recover carries over what can be read of damaged journals, beside the gate's work,
// and tells how much that was. What an earlier run did not get done with is taken up
// again, and so is what fails.
func (a *App) recover(ctx context.Context) {
	again := time.NewTimer(0)
	defer again.Stop()
	for left := slices.Clone(a.damage.salvages); len(left) > 0; again.Reset(salvageRetry) {
		select {
		case <-ctx.Done():
			return
		case <-again.C:
		}
		left = a.recoverThese(ctx, left)
	}
}

// recoverThese tries each, and returns those that failed.
func (a *App) recoverThese(ctx context.Context, all []journal.Salvage) []journal.Salvage {
	left := slices.Clone(all)
	for i := range all {
		s := &all[i]
		r, err := a.Journal.Recover(ctx, s)
		at := slices.IndexFunc(left, func(x journal.Salvage) bool { return x.Aside == s.Aside })
		if err != nil {
			if ctx.Err() == nil {
				a.log.Error("cannot carry over the damaged journal's entries; it is tried again", "err", err, "file", s.Aside)
			}
			left[at] = *s // with what it has come to
			continue
		}
		left = slices.Delete(left, at, at+1)
		err = config.WriteKey(s.Aside+doneSuffix, nil)
		if err == nil {
			err = a.noteSalvages(left)
		}
		if err != nil && !errors.Is(err, fs.ErrNotExist) {
			a.log.Error("cannot note that the damaged journal's entries were carried over", "err", err)
		}
		a.log.Warn("the damaged journal's entries were carried over", "carried", r.Carried, "unreadable", r.Lost, "file", s.Aside)
		if _, err := a.record(ctx, edge.KindAlert, boardAlert{"journal_salvaged", true, fmt.Sprintf("%d entries of the damaged journal were carried over, %d could not be read", r.Carried, r.Lost)}); err != nil {
			a.log.Error("cannot record that they were", "err", err)
		}
	}
	return left
}
