// Package sqlite opens the appliance's databases: modernc.org/sqlite (pure Go)
// in WAL mode, one connection that writes and a few that read, with the settings
// that durability rests on asserted at open.
//
// The driver ignores page_size in the DSN, and a page size holds only if it is
// set before the first page is written, so it is set by Exec before WAL.
package sqlite

import (
	"cmp"
	"context"
	"database/sql"
	"errors"
	"fmt"
	"io/fs"
	"net/url"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"time"

	"golang.org/x/sys/unix"
	"modernc.org/sqlite" // the driver "sqlite" besides
)

// Options say how a database is opened. Zero values are the defaults.
type Options struct {
	PageSize   int      // bytes, a power of two from 512 to 65536; 0 = 4096. Holds for a new file only
	CacheKiB   int      // page cache of each connection; 0 = 2048
	Full       bool     // synchronous=FULL: a commit is on the medium when it returns. Otherwise NORMAL
	Checkpoint int      // WAL pages after which a commit checkpoints; 0 = 1000, -1 = never by itself
	Readers    int      // connections that read; 0 = 4
	Overwrite  bool     // what is deleted is overwritten in the file (secure_delete); [DB.Truncate] empties the WAL
	Migrations []string // step i brings the schema from version i to i+1
}

// patience is how long a statement waits for the lock of another process.
const patience = 5 * time.Second

// ErrNewer says that the file was written by a newer version of the program.
var ErrNewer = errors.New("written by a newer version")

// ErrOlder says that the file was written by an older version of the program.
var ErrOlder = errors.New("written by an older version")

// DB is one database: W for the one writer, R for reading.
type DB struct {
	W, R  *sql.DB
	check *sql.DB // checkpoints: a connection that neither waits for W's nor for anybody's lock
	path  string
}

// Open opens or makes the file and brings its schema up to date. The errors
// name the file.
func Open(ctx context.Context, path string, o Options) (*DB, error) {
	o.fill()
	if err := plausible(path); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return nil, fmt.Errorf("cannot open %s: %w", path, err)
	}
	if err := os.MkdirAll(filepath.Dir(path), 0o700); err != nil {
		return nil, fmt.Errorf("cannot make the folder of %s: %w", path, err)
	}
	if err := makeFile(ctx, path, o.PageSize); err != nil {
		return nil, fmt.Errorf("cannot open %s: %w", path, because(path, err))
	}
	var destroy []string
	if o.Overwrite {
		destroy = append(destroy, "secure_delete(1)")
	}
	w, err := o.connect(path, "rwc", 1, patience, destroy...)
	if err != nil {
		return nil, fmt.Errorf("cannot open %s: %w", path, because(path, err))
	}
	r, err := o.connect(path, "rwc", o.Readers, patience, "query_only(1)")
	if err != nil {
		return nil, errors.Join(fmt.Errorf("cannot open %s: %w", path, because(path, err)), w.Close())
	}
	// A checkpoint that waits for readers holds the writer's lock meanwhile.
	c, err := o.connect(path, "rwc", 1, 0)
	if err != nil {
		return nil, errors.Join(fmt.Errorf("cannot open %s: %w", path, because(path, err)), w.Close(), r.Close())
	}
	db := &DB{W: w, R: r, check: c, path: path}
	if err := errors.Join(db.assert(ctx, o), db.migrate(ctx, o.Migrations)); err != nil {
		return nil, errors.Join(fmt.Errorf("cannot open %s: %w", path, because(path, err)), db.Close())
	}
	return db, nil
}

// because adds what keeps the files of a database from being used: SQLite's codes do
// not tell missing rights from a medium that can only be read.
func because(path string, err error) error {
	const perm, readOnly, ioErr, cantOpen = 3, 8, 10, 14 // primary codes
	var e *sqlite.Error
	if !errors.As(err, &e) || !slices.Contains([]int{perm, readOnly, ioErr, cantOpen}, e.Code()&0xff) {
		return err
	}
	// Asked, not opened: with the close of any descriptor of a file the process loses
	// SQLite's locks on it.
	for _, p := range []string{path, path + "-wal", path + "-shm", filepath.Dir(path)} {
		if why := unix.Faccessat(unix.AT_FDCWD, p, unix.R_OK|unix.W_OK, unix.AT_EACCESS); why != nil && !errors.Is(why, fs.ErrNotExist) {
			return fmt.Errorf("%w: %s: %w", err, p, why)
		}
	}
	return err
}

// Look opens a file that another process may have open, without writing: neither is
// its schema brought up to date, nor its WAL copied into it. R reads also what lies on
// a medium that nobody can write to. W and what checkpoints connect when they are used.
func Look(ctx context.Context, path string, o Options) (*DB, error) {
	o.fill()
	if err := plausible(path); err != nil {
		return nil, fmt.Errorf("cannot open %s: %w", path, err)
	}
	db, err := look(ctx, path, "ro", o)
	switch {
	case !isShut(err):
	case noWAL(path):
		// It was left whole, and what readers share cannot be made beside it.
		db, err = look(ctx, path, "ro&immutable=1", o)
	default:
		err = fmt.Errorf("%w (if the medium can only be read: what was written last is in %s-wal; copy both to another folder, and look there)", err, filepath.Base(path))
	}
	if err != nil {
		return nil, fmt.Errorf("cannot open %s: %w", path, err)
	}
	return db, nil
}

func noWAL(path string) bool {
	st, err := os.Stat(path + "-wal")
	return errors.Is(err, fs.ErrNotExist) || err == nil && st.Size() == 0
}

func look(ctx context.Context, path, mode string, o Options) (*DB, error) {
	db := &DB{path: path}
	for _, c := range []struct {
		to    **sql.DB
		mode  string
		conns int
		wait  time.Duration
	}{{&db.R, mode, o.Readers, patience}, {&db.W, "rw", 1, patience}, {&db.check, "rw", 1, 0}} {
		var err error
		if *c.to, err = o.connect(path, c.mode, c.conns, c.wait); err != nil {
			return nil, errors.Join(err, db.Close())
		}
	}
	var have int
	err := db.R.QueryRowContext(ctx, "PRAGMA user_version").Scan(&have)
	switch want := len(o.Migrations); {
	case err != nil:
	case have == 0:
		err = fmt.Errorf("%w: there is nothing in it", ErrDamaged)
	case have > want:
		err = fmt.Errorf("%w: its schema is %d, this program knows %d; look at it with the program that wrote it", ErrNewer, have, want)
	case have < want:
		err = fmt.Errorf("%w: its schema is %d, this program's is %d; look at it with the program that wrote it, or let this one's daemon bring it up to date", ErrOlder, have, want)
	}
	if err != nil {
		return nil, errors.Join(err, db.Close())
	}
	return db, nil
}

// fill puts the defaults where nothing is said.
func (o *Options) fill() {
	o.PageSize = cmp.Or(o.PageSize, 4096)
	o.CacheKiB = cmp.Or(o.CacheKiB, 2048)
	o.Checkpoint = cmp.Or(o.Checkpoint, 1000)
	o.Readers = cmp.Or(o.Readers, 4)
}

// plausible refuses what SQLite would take for a new file.
func plausible(path string) error {
	st, err := os.Stat(path)
	if err == nil && st.Size() > 0 && st.Size() < 512 {
		err = fmt.Errorf("%w: %d bytes are none", ErrDamaged, st.Size())
	}
	return err
}

// connect makes connections that have the options' settings. They wait for locks that
// long.
func (o *Options) connect(path, mode string, conns int, wait time.Duration, pragmas ...string) (*sql.DB, error) {
	sync := "NORMAL"
	if o.Full {
		sync = "FULL"
	}
	q := url.Values{}
	for _, p := range append([]string{"busy_timeout(" + strconv.FormatInt(wait.Milliseconds(), 10) + ")", "synchronous(" + sync + ")", "foreign_keys(1)", "temp_store(2)",
		"cache_size(-" + strconv.Itoa(o.CacheKiB) + ")", "wal_autocheckpoint(" + strconv.Itoa(max(0, o.Checkpoint)) + ")"}, pragmas...) {
		q.Add("_pragma", p)
	}
	q.Set("_txlock", "immediate")
	db, err := sql.Open("sqlite", "file:"+escape(path)+"?mode="+mode+"&"+q.Encode())
	if err != nil {
		return nil, err
	}
	db.SetMaxOpenConns(conns)
	db.SetMaxIdleConns(conns)
	return db, nil
}

// escape makes a path safe inside an SQLite URI.
func escape(path string) string {
	return strings.NewReplacer("%", "%25", "?", "%3f", "#", "%23").Replace(path)
}

// makeFile sets the page size of a new file and turns on WAL, which the file
// then remembers. A file without pages is new as well: power was cut before they
// came, or they were rolled back.
func makeFile(ctx context.Context, path string, pageSize int) error {
	// Not an existing one: closing it would take the locks of this process's other
	// connections.
	f, err := os.OpenFile(path, os.O_CREATE|os.O_EXCL|os.O_RDWR, 0o600)
	if err == nil {
		err = f.Close()
	}
	if err != nil && !errors.Is(err, fs.ErrExist) {
		return err
	}
	db, err := sql.Open("sqlite", "file:"+escape(path)+"?_pragma=busy_timeout(5000)")
	if err != nil {
		return err
	}
	defer db.Close()
	db.SetMaxOpenConns(1)
	var pages int
	if err := db.QueryRowContext(ctx, "PRAGMA page_count").Scan(&pages); err != nil {
		return err
	}
	if pages == 0 {
		if _, err := db.ExecContext(ctx, "PRAGMA page_size="+strconv.Itoa(pageSize)); err != nil {
			return err
		}
		if _, err := db.ExecContext(ctx, "PRAGMA auto_vacuum=INCREMENTAL"); err != nil {
			return err
		}
	}
	var mode string
	if err := db.QueryRowContext(ctx, "PRAGMA journal_mode=WAL").Scan(&mode); err != nil {
		return err
	}
	if mode != "wal" {
		return fmt.Errorf("journal mode is %s, want wal (is the file system without shared memory?)", mode)
	}
	if pages > 0 {
		return nil
	}
	var size, vacuum int
	if err := errors.Join(db.QueryRowContext(ctx, "PRAGMA page_size").Scan(&size), db.QueryRowContext(ctx, "PRAGMA auto_vacuum").Scan(&vacuum)); err != nil {
		return err
	}
	const incremental = 2
	if size != pageSize || vacuum != incremental {
		return fmt.Errorf("a new file has pages of %d bytes and auto_vacuum %d, want %d and %d", size, vacuum, pageSize, incremental)
	}
	return nil
}

// assert reads the settings back: durability rests on them.
func (d *DB) assert(ctx context.Context, o Options) error {
	want := map[string]string{"journal_mode": "wal", "synchronous": "1", "foreign_keys": "1"}
	if o.Full {
		want["synchronous"] = "2"
	}
	if o.Overwrite {
		want["secure_delete"] = "1"
	}
	for name, v := range want {
		var got string
		if err := d.W.QueryRowContext(ctx, "PRAGMA "+name).Scan(&got); err != nil {
			return err
		}
		if got != v {
			return fmt.Errorf("setting %s is %s, want %s", name, got, v)
		}
	}
	return nil
}

func (d *DB) migrate(ctx context.Context, steps []string) error {
	var have int
	if err := d.W.QueryRowContext(ctx, "PRAGMA user_version").Scan(&have); err != nil {
		return err
	}
	if have > len(steps) {
		return fmt.Errorf("%w: its schema is %d, this program knows %d; install the newer program again, or restore a backup made before", ErrNewer, have, len(steps))
	}
	for i := have; i < len(steps); i++ {
		if err := d.Write(ctx, func(tx *sql.Tx) error {
			if _, err := tx.ExecContext(ctx, steps[i]); err != nil {
				return err
			}
			_, err := tx.ExecContext(ctx, "PRAGMA user_version="+strconv.Itoa(i+1))
			return err
		}); err != nil {
			return fmt.Errorf("cannot bring the schema from %d to %d: %w", i, i+1, err)
		}
	}
	return nil
}

// Write runs f in one write transaction: all of it or nothing.
func (d *DB) Write(ctx context.Context, f func(*sql.Tx) error) error {
	tx, err := d.W.BeginTx(ctx, nil)
	if err != nil {
		return err
	}
	if err := f(tx); err != nil {
		return errors.Join(err, tx.Rollback())
	}
	return tx.Commit()
}

// Checkpoint copies the WAL into the file without waiting for readers and
// without truncating it: a WAL that stays grown costs no metadata writes.
func (d *DB) Checkpoint(ctx context.Context) error {
	_, err := d.checkpoint(ctx, "PASSIVE")
	return err
}

// Truncate checkpoints all of the WAL and empties it, because it still holds what
// was destroyed in the file, or for its room on a full medium. false: a reader or
// the writer was in the way. It waits for neither: while it would wait for a reader,
// nobody could write.
func (d *DB) Truncate(ctx context.Context) (bool, error) {
	// Without the writer's lock, so that little is left to copy with it. What a reader
	// still needs cannot go at all.
	if whole, err := d.checkpoint(ctx, "PASSIVE"); err != nil || !whole {
		return false, err
	}
	return d.checkpoint(ctx, "TRUNCATE")
}

// checkpoint reports whether all of the WAL was copied, and nobody was in the way.
func (d *DB) checkpoint(ctx context.Context, mode string) (bool, error) {
	var busy, log, done int
	err := d.check.QueryRowContext(ctx, "PRAGMA wal_checkpoint("+mode+")").Scan(&busy, &log, &done)
	if isBusy(err) { // as when another process recovers the WAL
		return false, nil
	}
	return err == nil && busy == 0 && log == done, err
}

// Path is the file's name.
func (d *DB) Path() string { return d.path }

// Close closes all connections.
func (d *DB) Close() error {
	var errs []error
	for _, c := range []*sql.DB{d.R, d.check, d.W} {
		if c != nil {
			errs = append(errs, c.Close())
		}
	}
	return errors.Join(errs...)
}
