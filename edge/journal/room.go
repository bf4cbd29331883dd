package journal

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"time"

	"golang.org/x/sys/unix"

	"gatehouse/edge"
)

// clean empties the WAL after something was destroyed, since it still holds the pages
// as they were, and reports whether it did: false means that somebody reads or writes,
// and that it is to be tried again.
func (j *Journal) clean(ctx context.Context) (bool, error) {
	j.emptying.Lock()
	defer j.emptying.Unlock()
	if !j.stale.Load() {
		return true, nil
	}
	j.stale.Store(false) // before: what is destroyed meanwhile says so again
	ok, err := j.db.Truncate(ctx)
	if !ok {
		j.stale.Store(true)
	}
	return ok, err
}

// pause is what is let pass before the WAL is tried again, of which somebody reads.
const pause = 100 * time.Millisecond

// emptied is clean, for so many times as somebody is in the way.
func (j *Journal) emptied(ctx context.Context, tries int) (empty bool, err error) {
	for ; tries > 0 && !empty && err == nil; tries-- {
		select {
		case <-ctx.Done():
			return false, ctx.Err()
		case <-time.After(pause):
		}
		empty, err = j.clean(ctx)
	}
	return empty, err
}

// reservePath is the file that holds room back.
func (j *Journal) reservePath() string { return j.db.Path() + ".reserve" }

// reserve takes the room that is held back for a full medium. Without it, the
// deletions that make room could not be written.
func (j *Journal) reserve() error {
	if j.o.Reserve <= 0 {
		return nil
	}
	j.spent.Store(true) // until it is there
	f, err := os.OpenFile(j.reservePath(), os.O_CREATE|os.O_RDWR, 0o600)
	if err != nil {
		return fmt.Errorf("cannot hold room back: %w", err)
	}
	err = unix.Fallocate(int(f.Fd()), 0, 0, j.o.Reserve)
	if errors.Is(err, unix.EOPNOTSUPP) {
		err = nil // a file system that cannot promise room
	}
	if err := errors.Join(err, f.Close()); err != nil {
		return errors.Join(fmt.Errorf("cannot hold room back: %w", err), os.Remove(j.reservePath()))
	}
	j.spent.Store(false)
	return nil
}

// Hold takes the reserve again, if it was opened, when there is room again on a
// medium that was full.
func (j *Journal) Hold() error {
	if !j.spent.Load() {
		return nil
	}
	j.purging.Lock()
	defer j.purging.Unlock()
	return j.reserve()
}

// openReserve opens the reserve for an append that found the medium full before
// anybody could make room. It reports whether there was one.
func (j *Journal) openReserve() bool {
	j.spent.Store(true)
	return os.Remove(j.reservePath()) == nil
}

const (
	roomBlocks   = 4  // that Relieve destroys the entries of at a time
	relieveTries = 10 // to empty the WAL after that, as whoever reads for a moment lets it
)

// Relieve makes room on a full medium: one step, of the first of these that there
// is something of. It reports whether anything was freed; false means that nothing
// may go any more, since entries that the server has not receipted are never
// dropped.
//
//  1. content of former epochs, which stands at the server or was carried over
//  2. the trees of former epochs
//  3. content that the server has receipted, the oldest first, before its retention
//
// Each step gives the database's free pages and the WAL back to the file system.
// The reserve is opened for the step and taken again when there is room. While
// somebody reads, who keeps the room of the last step from being given back, there is
// no further one.
func (j *Journal) Relieve(ctx context.Context) (freed bool, err error) {
	j.purging.Lock()
	defer j.purging.Unlock()
	j.life.RLock()
	defer j.life.RUnlock()
	if j.owing {
		// More would give no room either, and be gone before its time.
		if empty, err := j.emptied(ctx, 1); err == nil {
			j.owing = !empty
			return true, nil
		}
	}
	j.spent.Store(true)
	if err := os.Remove(j.reservePath()); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return false, fmt.Errorf("cannot make room: %w", err)
	}
	if freed, err = j.relieve(ctx); err != nil {
		return false, fmt.Errorf("cannot make room: %w", err)
	}
	empty, err := j.shrink(ctx, relieveTries)
	if j.owing = freed && !empty; err != nil {
		return false, fmt.Errorf("cannot make room: %w", err)
	}
	if freed {
		if err := j.reserve(); err != nil {
			j.log.Warn("the reserve is in use", "err", err)
		}
	}
	return freed, nil
}

func (j *Journal) relieve(ctx context.Context) (bool, error) {
	if err := j.seal(ctx, j.Size()); err != nil {
		return false, err
	}
	if err := j.dropDelivered(ctx); err != nil {
		return false, err
	}
	if some, err := j.dropBare(ctx); some || err != nil {
		return some, err
	}
	lives, err := j.lives(ctx)
	if err != nil {
		return false, err
	}
	for _, l := range lives[:len(lives)-1] {
		if n, err := j.destroySome(ctx, l); n > 0 || err != nil {
			return n > 0, err
		}
	}
	if len(lives) > 1 && lives[0].whole {
		return true, j.strip(ctx, lives[0])
	}
	n, err := j.destroySome(ctx, lives[len(lives)-1])
	return n > 0, err
}

// destroySome destroys the oldest receipted content of an epoch. A block that has
// entries which must stay is left: each of them would take a blind of its own, which
// is a third of what its line takes.
func (j *Journal) destroySome(ctx context.Context, l life) (int, error) {
	first, some := uint64(0), false
	if l.suffix == "" {
		l.acked &^= edge.BlockSize - 1
	}
	return j.destroyWhere(ctx, l, deletion{Why: "space"}, func(seq uint64, e *edge.Entry) (bool, bool) {
		if !some {
			first, some = seq&^(edge.BlockSize-1), true
		}
		goes := e == nil || e.Kind != edge.KindPurge || l.suffix != ""
		return goes, seq < l.acked && seq < first+roomBlocks*edge.BlockSize
	})
}

// stripped are an epoch's tables in the order in which they go.
var stripped = []string{"entry", "block", "hash", "gone"}

// stripAtOnce are rows that go in a transaction: some hundred pages, as with vacuuming.
const stripAtOnce = 1024

// strip drops what is left of a former epoch. It is read by nobody from its first
// transaction on; a table of a million hashes goes in steps, since dropping it would
// need as much room in the WAL, on a full medium, and keep the lanes waiting.
func (j *Journal) strip(ctx context.Context, l life) error {
	err := j.writeTx(ctx, func(ctx context.Context) error {
		for _, q := range []string{"UPDATE former SET bare=1 WHERE epoch=?", "DELETE FROM carried WHERE epoch=?"} {
			if _, err := j.conn.ExecContext(ctx, q, l.epoch.String()); err != nil {
				return err
			}
		}
		return nil
	})
	if err != nil {
		return err
	}
	_, err = j.dropBare(ctx)
	return err
}

// dropBare drops the tables of epochs that are stripped, in steps beside the lanes, also
// those that a power cut has left. It reports whether there were any.
func (j *Journal) dropBare(ctx context.Context) (some bool, err error) {
	formers, err := formersOf(ctx, j.db.R)
	if err != nil {
		return false, err
	}
	for _, f := range formers {
		if !f.bare {
			continue
		}
		for _, t := range stripped {
			t += suffixOf(f.Epoch)
			var there bool
			if err := j.db.R.QueryRowContext(ctx, "SELECT count(*)>0 FROM sqlite_schema WHERE name=?", t).Scan(&there); err != nil {
				return some, fmt.Errorf("cannot look for the tables of former epochs: %w", err)
			}
			if !there {
				continue
			}
			some = true
			if err := j.dropTable(ctx, t); err != nil {
				return some, fmt.Errorf("cannot drop a former epoch: %w", err)
			}
		}
	}
	return some, nil
}

func (j *Journal) dropTable(ctx context.Context, t string) error {
	err := j.inSteps(ctx, func() (more bool, err error) {
		err = j.writeTx(ctx, func(ctx context.Context) error {
			r, err := j.conn.ExecContext(ctx, "DELETE FROM "+t+" WHERE rowid<=(SELECT max(r) FROM (SELECT rowid AS r FROM "+t+" ORDER BY rowid LIMIT ?))", stripAtOnce)
			if err != nil {
				return err
			}
			n, err := r.RowsAffected()
			more = n == stripAtOnce
			return err
		})
		return more, err
	})
	if err != nil {
		return err
	}
	return j.writeTx(ctx, func(ctx context.Context) error {
		_, err := j.conn.ExecContext(ctx, "DROP TABLE "+t)
		return err
	})
}

// shrink gives free pages and the WAL back to the file system; that it tries again so
// many times while somebody reads. It reports whether the WAL is empty.
func (j *Journal) shrink(ctx context.Context, tries int) (empty bool, err error) {
	if err := j.vacuum(ctx); err != nil {
		return false, err
	}
	j.stale.Store(true) // also when nothing was destroyed: it is to be short
	if empty, err = j.clean(ctx); err != nil || empty {
		return empty, err
	}
	return j.emptied(ctx, tries)
}

const (
	vacuumAtOnce = 256 // free pages that go in a transaction: a lane waits for one of them at most
	stepsRest    = 8   // transactions between checkpoints, or a lane's commit has to
)

// vacuum gives free pages back, in steps beside the lanes.
func (j *Journal) vacuum(ctx context.Context) error {
	return j.inSteps(ctx, func() (bool, error) { return j.vacuumSome(ctx) })
}

// inSteps calls f, a transaction, until there is no more, beside the lanes.
func (j *Journal) inSteps(ctx context.Context, f func() (more bool, err error)) error {
	for step := 1; ; step++ {
		began := time.Now()
		more, err := f()
		if err != nil || !more {
			return err
		}
		if err := ctx.Err(); err != nil {
			return err
		}
		if step%stepsRest == 0 {
			if err := j.db.Checkpoint(ctx); err != nil {
				return fmt.Errorf("cannot checkpoint: %w", err)
			}
		}
		if j.waiting() { // the medium is theirs for as long again
			select {
			case <-time.After(time.Since(began)):
			case <-ctx.Done():
				return ctx.Err()
			}
		}
	}
}

// vacuumSome gives some free pages back, and says whether there are more.
func (j *Journal) vacuumSome(ctx context.Context) (more bool, err error) {
	j.write.Lock()
	defer j.write.Unlock()
	var before, after int
	if err := j.conn.QueryRowContext(ctx, "PRAGMA freelist_count").Scan(&before); err != nil || before == 0 {
		return false, err
	}
	if _, err := j.conn.ExecContext(ctx, fmt.Sprintf("PRAGMA incremental_vacuum(%d)", vacuumAtOnce)); err != nil {
		return false, err
	}
	if err := j.conn.QueryRowContext(ctx, "PRAGMA freelist_count").Scan(&after); err != nil {
		return false, err
	}
	return after > 0 && after < before, nil // a file without vacuuming keeps them
}
