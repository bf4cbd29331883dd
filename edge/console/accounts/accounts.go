// Package accounts keeps who may use a gate's console: people with their roles
// and secrets, their sessions, and the credential by which an inspector of the
// authority comes in at any gate.
//
// It is one small database on the gate, accounts.db. A change of an account and
// the note that it must be journalled are one transaction, so that a change made
// by a command beside the daemon, or just before a power cut, reaches the journal
// as well. The lanes need nothing of this: with no account, or with a database
// that cannot be opened, the gate decides as ever.
package accounts

import (
	"context"
	"database/sql"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"strconv"
	"sync"
	"time"

	"golang.org/x/mod/sumdb/note"

	"gatehouse/edge"
	"gatehouse/edge/sqlite"
)

// Role is what somebody is at this gate.
type Role string

const (
	Guard      Role = "guard"
	Supervisor Role = "supervisor"
	Manager    Role = "manager"
	Installer  Role = "installer"
	// Inspector reads everything and changes nothing. No account has this role:
	// it comes with the authority's credential, which a site can neither make nor
	// withdraw.
	Inspector Role = "inspector"
)

// Roles lists all roles; the site's own first.
func Roles() []Role { return []Role{Guard, Supervisor, Manager, Installer, Inspector} }

// Acts says whether a role answers for the people at a lane: its last session
// does not end before the relief has come.
func (r Role) Acts() bool { return r == Guard || r == Supervisor || r == Manager }

func (r Role) ofSite() bool { return r.Acts() || r == Installer }

// Person is somebody known to the gate.
type Person struct {
	Number int64 // from 1; an inspector's is the credential's number
	Name   string
	Role   Role
	// MustChange: the secret was set by somebody else, and only serves to choose
	// an own one.
	MustChange bool
	Card       bool // a card stands for the number at login
}

// Actor is how entries of the journal name the person: "guard:7". The name
// itself is in no entry.
func (p Person) Actor() string { return string(p.Role) + ":" + strconv.FormatInt(p.Number, 10) }

// Limits on what is taken.
const (
	maxNumber  = 65535
	maxName    = 60 // runes
	maxPeople  = 500
	outboxTick = 2 * time.Second
)

// Errors of this package; they are for callers to tell apart. A person is told
// in their own language by the page.
var (
	ErrWrong    = errors.New("wrong number or secret")
	ErrName     = errors.New("a name has 1 to 60 characters, none of them a control character")
	ErrNumber   = errors.New("a number is between 1 and 65535")
	ErrTaken    = errors.New("the number belongs to somebody else")
	ErrCard     = errors.New("not a card's number, or the card of somebody else")
	ErrRole     = errors.New("no such role at a site")
	ErrLast     = errors.New("nobody else is there: the relief must log in first")
	ErrManager  = errors.New("the last manager stays")
	ErrSame     = errors.New("a second person is somebody else")
	ErrReady    = errors.New("there is a manager already")
	ErrTooMany  = errors.New("too many accounts")
	ErrBusy     = errors.New("too many people log in at once")
	ErrRecorded = errors.New("it could not be recorded, so it was not done")
)

// LockedError says that an account must wait after wrong secrets.
type LockedError struct{ For time.Duration }

func (e LockedError) Error() string {
	return fmt.Sprintf("too many wrong secrets: wait %d s", int(e.For.Seconds()+0.999))
}

// Options say how accounts are kept.
type Options struct {
	Clock edge.Clock // nil = the machine's time
	Cost  Cost       // of hashing; zero = DefaultCost
	// Card gives the keyed hash of a card as it is typed or read by a keyboard
	// reader; nil = cards are not taken.
	Card func(text string) ([]byte, error)
	// Record appends an entry; nil leaves changes of accounts to the daemon, and
	// logins unrecorded.
	Record func(ctx context.Context, k edge.Kind, actor string, data any) error
	// Gate is community/site/gate, which inspectors' credentials are asked for.
	Community, Site, Gate string
	Authorities           func() []note.Verifier // whose inspectors are let in; nil = nobody's
	Build                 time.Time              // of the program: no credential that ended before is taken
	Log                   *slog.Logger
}

// Accounts is the gate's accounts. It is safe for concurrent use.
type Accounts struct {
	o  Options
	db *sqlite.DB

	hashing chan struct{} // one hash at a time: a Pi has little memory
	waiting chan struct{} // and few may wait for it

	mu         sync.Mutex
	challenges map[string]challenge
	draining   sync.Mutex
	ending     sync.Mutex // held while it is looked who would be left
	wake       chan struct{}
}

var migrations = []string{`
CREATE TABLE people (
	number INTEGER PRIMARY KEY CHECK (number BETWEEN 1 AND 65535),
	name TEXT NOT NULL,
	role TEXT NOT NULL,
	secret TEXT NOT NULL,
	must_change INTEGER NOT NULL DEFAULT 0,
	card BLOB UNIQUE
) STRICT;
CREATE TABLE sessions (
	token BLOB PRIMARY KEY, -- SHA-256 of what the browser holds
	number INTEGER NOT NULL,
	role TEXT NOT NULL,
	name TEXT NOT NULL,     -- of an inspector; others' is in people
	began INTEGER NOT NULL, -- UTC ms
	seen INTEGER NOT NULL,
	until INTEGER NOT NULL  -- UTC ms; 0 = see Session
) STRICT, WITHOUT ROWID;
CREATE TABLE attempts (
	number INTEGER NOT NULL, -- 0 = numbers that nobody has
	origin BLOB NOT NULL,    -- SHA-256 of a known device's token, or empty
	fails INTEGER NOT NULL,
	boot TEXT NOT NULL,
	mono INTEGER NOT NULL,   -- ms since boot of the last failure
	PRIMARY KEY (number, origin)
) STRICT, WITHOUT ROWID;
CREATE TABLE devices (
	token BLOB NOT NULL,
	number INTEGER NOT NULL,
	seen INTEGER NOT NULL,
	PRIMARY KEY (number, token)
) STRICT, WITHOUT ROWID;
CREATE TABLE meta (name TEXT PRIMARY KEY, value TEXT NOT NULL) STRICT, WITHOUT ROWID;
CREATE TABLE outbox (n INTEGER PRIMARY KEY AUTOINCREMENT, actor TEXT NOT NULL, data TEXT NOT NULL) STRICT;
`}

// Open opens the accounts, or makes an empty file.
func Open(ctx context.Context, path string, o Options) (*Accounts, error) {
	if o.Cost == (Cost{}) {
		o.Cost = DefaultCost
	}
	if o.Log == nil {
		o.Log = slog.New(slog.DiscardHandler)
	}
	db, err := sqlite.Open(ctx, path, sqlite.Options{Full: true, CacheKiB: 256, Readers: 2, Migrations: migrations})
	if err != nil {
		return nil, err
	}
	return &Accounts{o: o, db: db, hashing: make(chan struct{}, 1), waiting: make(chan struct{}, 8), challenges: map[string]challenge{}, wake: make(chan struct{}, 1)}, nil
}

// Close closes the file.
func (a *Accounts) Close() error { return a.db.Close() }

func (a *Accounts) now() edge.Stamp {
	if a.o.Clock == nil {
		return edge.Stamp{Time: time.Now().UnixMilli()}
	}
	return a.o.Clock.Now()
}

// Run journals changes, its own and those of commands beside it, until ctx is
// done.
func (a *Accounts) Run(ctx context.Context) error {
	t := time.NewTicker(outboxTick)
	defer t.Stop()
	for {
		if err := a.drain(ctx); err != nil && ctx.Err() == nil {
			a.o.Log.Warn("cannot journal a change of an account yet", "err", err)
		}
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-t.C:
		case <-a.wake:
		}
	}
}

// drain journals what waits. An entry comes before its note goes: a power cut
// between them makes it twice, never none.
func (a *Accounts) drain(ctx context.Context) error {
	if a.o.Record == nil {
		return nil
	}
	a.draining.Lock()
	defer a.draining.Unlock()
	for {
		var n int64
		var actor, data string
		err := a.db.R.QueryRowContext(ctx, "SELECT n, actor, data FROM outbox ORDER BY n LIMIT 1").Scan(&n, &actor, &data)
		if errors.Is(err, sql.ErrNoRows) {
			return nil
		}
		if err != nil {
			return err
		}
		if err := a.o.Record(ctx, edge.KindAccount, actor, json.RawMessage(data)); err != nil {
			return err
		}
		if _, err := a.db.W.ExecContext(ctx, "DELETE FROM outbox WHERE n = ?", n); err != nil {
			return err
		}
	}
}

// change is what an entry says of an account: codes and numbers, no name and no
// secret.
type change struct {
	Action  string `json:"action"` // setup, add, role, name, secret, own_secret, card, remove
	Account int64  `json:"account"`
	Role    Role   `json:"role,omitempty"`
	Before  Role   `json:"before,omitempty"`
}

// write runs f in a transaction together with the note that it happened.
func (a *Accounts) write(ctx context.Context, actor string, f func(tx *sql.Tx) (change, error)) error {
	tx, err := a.db.W.BeginTx(ctx, nil)
	if err != nil {
		return err
	}
	defer func() { _ = tx.Rollback() }()
	c, err := f(tx)
	if err != nil {
		return err
	}
	b, err := json.Marshal(c)
	if err != nil {
		return err
	}
	if _, err := tx.ExecContext(ctx, "INSERT INTO outbox (actor, data) VALUES (?, ?)", actor, string(b)); err != nil {
		return err
	}
	if err := tx.Commit(); err != nil {
		return err
	}
	select {
	case a.wake <- struct{}{}:
	default:
	}
	return nil
}

// record journals a login or its like, before it holds.
func (a *Accounts) record(ctx context.Context, actor string, data any) error {
	if a.o.Record == nil {
		return nil
	}
	if err := a.o.Record(ctx, edge.KindSession, actor, data); err != nil {
		a.o.Log.Error("cannot record who came or went", "actor", actor, "err", err)
		return fmt.Errorf("%w: %w", ErrRecorded, err)
	}
	return nil
}
