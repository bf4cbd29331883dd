package app

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"time"

	"golang.org/x/sys/unix"

	"gatehouse/edge"
)

// What a full medium may take from the gate, in this order: damaged files that were
// set aside and half-made copies; what the journal may let go of by itself (see
// journal.Relieve: former epochs, then receipted entries before their retention).
// Never entries that the server lacks. After that the gate goes on in the room that
// the journal holds in reserve, and an alert says so.
const (
	roomCheck = 500 * time.Millisecond
	roomHaste = 100 * time.Millisecond // while there is too little: whoever fills the medium may be quick
	roomOut   = 4 << 20                // free bytes below which the reserve is used
	roomLow   = 64 << 20               // free bytes below which room is made, on a large medium
	roomSpare = 32 << 20               // held in reserve: some twenty thousand entries, beside a grown WAL
	roomSteps = 64                     // of the journal's in one look
)

// room is the space of the medium that holds a folder.
type room struct{ free, size uint64 }

func roomOf(dir string) (room, error) {
	var s unix.Statfs_t
	if err := unix.Statfs(dir, &s); err != nil {
		return room{}, fmt.Errorf("cannot tell how full %s is: %w", dir, err)
	}
	return room{s.Bavail * uint64(s.Bsize), s.Blocks * uint64(s.Bsize)}, nil
}

// low is how much should be free: less on a small medium.
func (r room) low() uint64 { return min(roomLow, r.size/8) }

// spare is what the journal holds in reserve.
func (r room) spare() int64 { return int64(min(roomSpare, r.size/16)) }

// roomWatch sees to it that the gate has room.
type roomWatch struct {
	*App
	stuck bool   // the journal had nothing to let go of ...
	acked uint64 // ... when so much of it was receipted
}

// storage watches the medium's room until ctx is done.
func (a *App) storage(ctx context.Context) error {
	w := &roomWatch{App: a}
	t := time.NewTimer(0)
	defer t.Stop()
	told := ""
	for {
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-t.C:
		}
		level, err := w.makeRoom(ctx)
		if err != nil && ctx.Err() == nil {
			a.log.Error("cannot see to the medium's room", "err", err)
		}
		if level != told && ctx.Err() == nil {
			if err := a.tellRoom(ctx, told, level); err != nil {
				a.log.Error("cannot record how full the medium is", "err", err)
			} else {
				told = level
			}
		}
		t.Reset(roomCheck)
		if level != "" {
			t.Reset(roomHaste)
		}
	}
}

// Levels, as alerts name them.
const (
	levelLow  = "storage_low"  // room is being made
	levelFull = "storage_full" // none can be made: the gate works in its reserve
)

func (a *App) tellRoom(ctx context.Context, before, now string) error {
	if before != "" {
		if _, err := a.record(ctx, edge.KindAlert, boardAlert{Alert: before}); err != nil {
			return err
		}
	}
	var text string
	switch now {
	case "":
		return nil
	case levelLow:
		text = "the medium is nearly full: old files and receipted entries go before their time"
	case levelFull:
		text = "the medium is full, and all that is left are entries the server lacks: the gate works in its reserve; connect it, or remove other files"
	}
	a.log.Error("the medium is full or nearly so", "level", now, "hint", text)
	_, err := a.record(ctx, edge.KindAlert, boardAlert{now, true, text})
	return err
}

// makeRoom looks, and makes room where there is too little.
func (w *roomWatch) makeRoom(ctx context.Context) (level string, err error) {
	r, err := roomOf(w.cfg.State)
	if err != nil || r.free >= r.low() {
		w.stuck = false
		return "", errors.Join(err, w.Journal.Hold())
	}
	var errs []error
	for _, f := range rubbish(w.cfg.State) {
		errs = append(errs, os.RemoveAll(f))
	}
	// What is released of the reserve others could take: so it is, to make room where
	// some can be made, or when nothing else is left.
	out := r.free < roomOut
	for range roomSteps {
		if ctx.Err() != nil || w.stuck && w.acked == w.Journal.Acked() && !out {
			break
		}
		w.acked = w.Journal.Acked()
		freed, err := w.Journal.Relieve(ctx)
		if err != nil {
			return levelFull, errors.Join(append(errs, err)...)
		}
		w.stuck = !freed
		if w.stuck {
			break
		}
		if r, err = roomOf(w.cfg.State); err != nil || r.free >= r.low() {
			break
		}
	}
	switch {
	case !w.stuck:
		return levelLow, errors.Join(errs...)
	case out:
		return levelFull, errors.Join(errs...)
	}
	// The reserve may be in use since it was full a moment ago.
	if r, err = roomOf(w.cfg.State); err == nil && int64(r.free) > r.spare()+roomOut {
		err = w.Journal.Hold()
	} else if _, serr := os.Stat(filepath.Join(w.cfg.State, "journal.db.reserve")); serr != nil {
		return levelFull, errors.Join(append(errs, err)...)
	}
	return levelLow, errors.Join(append(errs, err)...)
}

// rubbish is what goes first, or when its time has come.
func rubbish(state string) []string { return append(setAside(state), leftBackups(state)...) }

// leftBackups are the copies that backups were made of, which a power cut has left; not
// one that is being made now.
func leftBackups(state string) (out []string) {
	copies, _ := filepath.Glob(filepath.Join(state, "backup-*.tmp"))
	for _, f := range copies {
		if st, err := os.Stat(f); err == nil && time.Since(st.ModTime()) > time.Hour {
			out = append(out, f)
		}
	}
	return out
}
