package sqlite

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"time"

	"modernc.org/sqlite"
)

// Copy makes a copy of a database that others may have open and write to: the
// state of one moment, compacted. to must not exist.
func Copy(ctx context.Context, path, to string) error {
	db, err := sql.Open("sqlite", "file:"+escape(path)+"?mode=ro&_pragma=busy_timeout(10000)")
	if err != nil {
		return err
	}
	db.SetMaxOpenConns(1)
	if _, err = db.ExecContext(ctx, "VACUUM INTO ?", to); err != nil {
		err = fmt.Errorf("cannot copy %s: %w", path, because(path, err))
	}
	return errors.Join(err, db.Close())
}

// ErrDamaged says that a file is not, or not any more, a database of this program.
var ErrDamaged = errors.New("the database is damaged")

// IsDamage reports whether an error comes from what a file holds, or from a medium
// that cannot be read: not from a full disk, a lock, missing rights or another
// version of the program. See sqlite.org/rescode.html.
func IsDamage(err error) bool {
	if errors.Is(err, ErrDamaged) {
		return true
	}
	var e *sqlite.Error
	if !errors.As(err, &e) {
		return false
	}
	const ( // primary codes, and extended ones of input
		corrupt   = 11
		notADB    = 26
		read      = 10 | 1<<8
		shortRead = 10 | 2<<8
		corruptFS = 10 | 33<<8
	)
	switch e.Code() {
	case read, shortRead, corruptFS:
		return true
	}
	return e.Code()&0xff == corrupt || e.Code()&0xff == notADB
}

// IsFull reports whether an error comes from a medium without room.
func IsFull(err error) bool {
	const (
		full    = 13
		shmSize = 10 | 19<<8 // the WAL's index could not grow
	)
	var e *sqlite.Error
	return errors.As(err, &e) && (e.Code()&0xff == full || e.Code() == shmSize)
}

// isBusy reports whether somebody else has a lock that a statement needs.
func isBusy(err error) bool {
	const busy = 5
	var e *sqlite.Error
	return errors.As(err, &e) && e.Code()&0xff == busy
}

// isShut reports whether an error comes from a file that cannot be opened or made as
// it has to be.
func isShut(err error) bool {
	const readOnly, cannotOpen = 8, 14
	var e *sqlite.Error
	return errors.As(err, &e) && (e.Code()&0xff == readOnly || e.Code()&0xff == cannotOpen)
}

// Check looks for damage, not longer than patience: nil means that none was found.
// A large file is not read to its end.
func Check(ctx context.Context, path string, patience time.Duration) error {
	db, err := ReadDamaged(path)
	if err != nil {
		return err
	}
	defer db.Close()
	short, cancel := context.WithTimeout(ctx, patience)
	defer cancel()
	var found string
	err = db.QueryRowContext(short, "PRAGMA quick_check(1)").Scan(&found)
	switch {
	case short.Err() != nil && ctx.Err() == nil:
		return nil
	case err != nil:
		return fmt.Errorf("%s: %w", path, err)
	case found != "ok":
		return fmt.Errorf("%s: %w: %s", path, ErrDamaged, found)
	}
	return nil
}

// ReadDamaged opens a file as it is, for reading what can be read of it.
func ReadDamaged(path string) (*sql.DB, error) {
	db, err := sql.Open("sqlite", "file:"+escape(path)+"?_pragma=query_only(1)&_pragma=busy_timeout(5000)")
	if err != nil {
		return nil, err
	}
	db.SetMaxOpenConns(1)
	return db, nil
}
