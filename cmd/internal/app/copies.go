package app

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"gatehouse/cmd/internal/updatecmd"
)

// RemoveCopies removes the copies of what the gate records that lie beside its
// databases, if they are older than before: damaged files that were set aside, but no
// journal that is still to be carried over; databases that an update replaced; what is
// left of a backup that was interrupted.
func RemoveCopies(state string, before time.Time) (removed []string, err error) {
	out := rubbish(state)
	if _, err := os.Lstat(filepath.Join(state, updatecmd.Restoring)); err != nil { // nothing is being exchanged
		replaced, err := filepath.Glob(filepath.Join(state, updatecmd.AsidePattern))
		if err != nil {
			return nil, err
		}
		out = append(out, replaced...)
	}
	var errs []error
	for _, f := range out {
		st, err := os.Lstat(f)
		if err != nil || !st.ModTime().Before(before) || strings.HasSuffix(f, doneSuffix) && hasFiles(asideOf(f)) {
			continue
		}
		if err := os.RemoveAll(f); err != nil {
			errs = append(errs, fmt.Errorf("cannot remove an old copy: %w", err))
			continue
		}
		removed = append(removed, filepath.Base(f))
	}
	return removed, errors.Join(errs...)
}

// setAside are damaged files that may go. A journal of which nobody has said that it was
// carried over may not: it may be all that there is of its entries.
func setAside(state string) (out []string) {
	all, _ := filepath.Glob(filepath.Join(state, "*"+asideSuffix+"*"))
	for _, f := range all { // in order: the mark that it is done after the file itself
		if !Uncarried(f) {
			out = append(out, f)
		}
	}
	return out
}

// hasFiles reports whether there is anything left of a damaged file. Its mark stays as
// long, whatever their times are: without it they would be carried over once more, or
// be nobody's to remove.
func hasFiles(aside string) bool {
	for _, end := range []string{"", "-wal", "-shm"} {
		if _, err := os.Lstat(aside + end); !errors.Is(err, fs.ErrNotExist) {
			return true
		}
	}
	return false
}

// uncarried reports whether a damaged journal is still to be carried over.
func uncarried(state string) bool {
	all, _ := filepath.Glob(filepath.Join(state, journalFile+asideSuffix+"*"))
	return slices.ContainsFunc(all, Uncarried)
}

// Uncarried reports whether a file is a damaged journal that was set aside, or part of
// one, and may hold entries that are nowhere else.
func Uncarried(file string) bool {
	of := asideOf(file)
	return strings.HasPrefix(filepath.Base(of), journalFile+asideSuffix) && !isDone(of)
}

// AllCopies is after every copy's time, whatever the clock was when it was made.
func AllCopies() time.Time { return time.Unix(1<<40, 0) }

// copiesEvery is how often old copies are looked for.
const copiesEvery = time.Hour

// copies removes what lies beside the databases when the content of what it holds is
// past its retention, by a clock that somebody vouches for; and when somebody was
// erased, who would still be in it. What has to stay then is tried again.
func (a *App) copies(ctx context.Context) error {
	t := time.NewTicker(copiesEvery)
	defer t.Stop()
	left := false // by an erasure
	for {
		var before time.Time
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-a.erased:
			left = true
		case <-t.C:
		}
		if left {
			before = AllCopies()
		} else {
			now := a.Clock.Now()
			if !now.Clock.Trusted() || a.cfg.Journal.Retention <= 0 {
				continue
			}
			before = time.UnixMilli(now.Time).Add(-a.cfg.Journal.Retention)
		}
		removed, err := RemoveCopies(a.cfg.State, before)
		left = left && (err != nil || uncarried(a.cfg.State))
		if err != nil {
			a.log.Error("an old copy of what was recorded stays", "err", err)
		}
		if len(removed) > 0 {
			a.log.Info("old copies of what was recorded were removed", "files", removed)
		}
	}
}
