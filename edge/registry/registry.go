// Package registry is what a gate knows of the people who pass it: passes,
// households, the credentials that find them, and the policy bundles it was
// given. It lives in registry.db.
//
// The base is the roster: the community server's, or a file imported by hand
// at a gate without a server. It is replaced as a whole or by deltas, each in
// one transaction that readers never wait for. Over the base lies what the
// site's gates changed by themselves (a suspension, a card reported lost);
// it stays through every import until the server's version says that it
// contains the change, or somebody takes it back.
//
// Credentials are stored as HMAC-SHA256 under the site's key, every form under
// which a reader of the site may see the card, in a table by that hash. Opening
// and looking up cost the same with a thousand passes as with a million;
// nothing is kept in memory.
//
// Several processes may have the file open: the daemon and the pass command.
package registry

import (
	"context"
	"database/sql"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"slices"
	"strings"
	"time"
	"unicode/utf8"

	"gatehouse/edge"
	"gatehouse/edge/sqlite"
)

// Options say how the registry is opened.
type Options struct {
	// Keys of the site, newest first: imports store under the first, look-ups
	// try all of them.
	Keys []edge.CredentialKey
	// Forms are the forms of credentials that the site's readers give ("em",
	// "w34", "w26"): of a card's derived forms only these are stored. Empty = all.
	// A large site whose readers all send the full number names it here: 24 bits
	// are too few to tell a million cards apart.
	Forms []string
	Clock edge.Clock // of local changes; nil = the machine's wall clock
	Log   *slog.Logger
}

// Errors.
var (
	// ErrManaged: the community server is the master of the roster.
	ErrManaged = errors.New("the community server keeps this gate's roster: import it there")
	// ErrGap: a delta starts from a version that this gate does not have.
	ErrGap = errors.New("the delta does not follow the version in force")
	// ErrOlder: a version older than what is in force.
	ErrOlder = errors.New("older than what is in force")
	// ErrChanged: the registry changed between the comparison and the import.
	ErrChanged = errors.New("the registry was changed at the same time: compare again")
	// ErrImporting: another import is going on.
	ErrImporting = errors.New("another import is going on")
)

// Registry is the open database. It is safe for concurrent use.
type Registry struct {
	db    *sqlite.DB
	o     Options
	stmts struct{ lookup, pass, household, meta *sql.Stmt }
}

// A pass's row: what is searched for stands in columns, the rest in body.
// cards holds the pass's credentials, 33 bytes each: the hash, and 1 where the
// form is derived; it makes an index from passes to credentials unnecessary.
var schema = []string{`
CREATE TABLE meta (name TEXT PRIMARY KEY, value ANY) WITHOUT ROWID;
CREATE TABLE passes (
	id        INTEGER PRIMARY KEY,
	household INTEGER NOT NULL,
	building  TEXT NOT NULL,
	unit      TEXT NOT NULL,
	name      TEXT NOT NULL,
	body      TEXT NOT NULL,
	cards     BLOB NOT NULL
);
` + createIndexes + `
CREATE TABLE households (id INTEGER PRIMARY KEY, body TEXT NOT NULL);
CREATE TABLE credentials (hash BLOB PRIMARY KEY, pass INTEGER NOT NULL, derived INTEGER NOT NULL) WITHOUT ROWID;
CREATE TABLE local (
	pass    INTEGER PRIMARY KEY,
	status  TEXT NOT NULL,
	reason  TEXT NOT NULL,
	at      INTEGER NOT NULL,
	gate    TEXT NOT NULL,    -- whose journal has it, '' = not journalled yet
	epoch   TEXT NOT NULL,
	seq     INTEGER NOT NULL,
	pending INTEGER NOT NULL  -- pending.n while it is not journalled, else 0
);
CREATE TABLE applied (gate TEXT, epoch TEXT, next INTEGER NOT NULL, PRIMARY KEY (gate, epoch)) WITHOUT ROWID;
CREATE TABLE pending (n INTEGER PRIMARY KEY AUTOINCREMENT, data TEXT NOT NULL);
CREATE TABLE bundles (hash TEXT PRIMARY KEY, layer TEXT NOT NULL, version INTEGER NOT NULL, source BLOB NOT NULL);
CREATE TABLE active (position INTEGER PRIMARY KEY, layer TEXT NOT NULL UNIQUE, hash TEXT NOT NULL REFERENCES bundles);
CREATE TABLE highest (layer TEXT PRIMARY KEY, version INTEGER NOT NULL) WITHOUT ROWID;
`, `
CREATE TABLE sets (
	policy   TEXT NOT NULL,    -- the hash that entries name
	position INTEGER NOT NULL, -- 0 = the highest layer
	hash     TEXT NOT NULL REFERENCES bundles,
	PRIMARY KEY (policy, position)
) WITHOUT ROWID;
`}

// An import of many passes drops the indexes and makes them anew, sorted.
const (
	createIndexes = `
CREATE INDEX passes_door ON passes (building, unit);
CREATE INDEX passes_household ON passes (household) WHERE household <> 0;
CREATE INDEX passes_name ON passes (name);
`
	dropIndexes = `DROP INDEX passes_door; DROP INDEX passes_household; DROP INDEX passes_name;`
)

const passColumns = `p.id, p.household, p.building, p.unit, p.name, p.body, coalesce(l.status, ''), coalesce(l.reason, '')`

// Open opens or makes the database.
func Open(ctx context.Context, path string, o Options) (*Registry, error) {
	if len(o.Keys) == 0 {
		return nil, fmt.Errorf("cannot open %s: no site key for credentials", path)
	}
	if o.Log == nil {
		o.Log = slog.New(slog.DiscardHandler)
	}
	db, err := sqlite.Open(ctx, path, sqlite.Options{Full: true, Migrations: schema})
	if err != nil {
		return nil, err
	}
	r := &Registry{db: db, o: o}
	for _, s := range []struct {
		to  **sql.Stmt
		sql string
	}{
		{&r.stmts.lookup, `SELECT ` + passColumns + `, c.derived FROM credentials c JOIN passes p ON p.id = c.pass LEFT JOIN local l ON l.pass = p.id WHERE c.hash = ?`},
		{&r.stmts.pass, `SELECT ` + passColumns + `, 0 FROM passes p LEFT JOIN local l ON l.pass = p.id WHERE p.id = ?`},
		{&r.stmts.household, `SELECT body FROM households WHERE id = ?`},
		{&r.stmts.meta, `SELECT value FROM meta WHERE name = ?`},
	} {
		if *s.to, err = db.R.PrepareContext(ctx, s.sql); err != nil {
			return nil, errors.Join(fmt.Errorf("cannot read %s: %w", path, err), r.Close())
		}
	}
	if err := r.Check(ctx); err != nil {
		o.Log.Error("registry", "err", err)
	}
	return r, nil
}

// Close closes the database.
func (r *Registry) Close() error {
	var errs []error
	for _, s := range []*sql.Stmt{r.stmts.lookup, r.stmts.pass, r.stmts.household, r.stmts.meta} {
		if s != nil {
			errs = append(errs, s.Close())
		}
	}
	return errors.Join(append(errs, r.db.Close())...)
}

// Check says whether the stored credentials can be found with the keys at
// hand: a registry under a key that the gate lacks knows nobody.
func (r *Registry) Check(ctx context.Context) error {
	v, err := r.meta(ctx, "key")
	if err != nil || v == 0 {
		return err
	}
	if !slices.ContainsFunc(r.o.Keys, func(k edge.CredentialKey) bool { return int64(k.Version) == v }) {
		return fmt.Errorf("the cards in %s are stored under site key %d, which this gate does not have: every card will be unknown; enrol the gate again or import the roster again", r.db.Path(), v)
	}
	return nil
}

// meta reads a number; 0 when it is not there.
func (r *Registry) meta(ctx context.Context, name string) (int64, error) {
	var v int64
	if err := r.stmts.meta.QueryRowContext(ctx, name).Scan(&v); err != nil && !errors.Is(err, sql.ErrNoRows) {
		return 0, fmt.Errorf("cannot read %s of the registry: %w", name, err)
	}
	return v, nil
}

func setMeta(ctx context.Context, tx *sql.Tx, name string, v int64) error {
	_, err := tx.ExecContext(ctx, `INSERT INTO meta VALUES (?, ?) ON CONFLICT (name) DO UPDATE SET value = excluded.value`, name, v)
	return err
}

// Version is the version of the roster in force: the server's number, or the
// count of local imports. 0 = none yet.
func (r *Registry) Version() int64 {
	v, err := r.meta(context.Background(), "version")
	if err != nil {
		r.o.Log.Error("registry version", "err", err)
	}
	return v
}

// Managed reports whether the community server is the master of the roster.
func (r *Registry) Managed(ctx context.Context) (bool, error) {
	v, err := r.meta(ctx, "managed")
	return v != 0, err
}

// Counts are how much is known.
type Counts struct {
	Passes      int64 `json:"passes"`
	Households  int64 `json:"households"`
	Credentials int64 `json:"credentials"` // forms of cards
	Local       int64 `json:"local"`       // changes over the roster
	Pending     int64 `json:"pending"`     // changes not journalled yet
}

// Counts reads the counts kept beside the tables.
func (r *Registry) Counts(ctx context.Context) (c Counts, err error) {
	err = r.db.R.QueryRowContext(ctx, `SELECT
		coalesce((SELECT value FROM meta WHERE name = 'passes'), 0), coalesce((SELECT value FROM meta WHERE name = 'households'), 0),
		coalesce((SELECT value FROM meta WHERE name = 'credentials'), 0), (SELECT count(*) FROM local), (SELECT count(*) FROM pending)`).
		Scan(&c.Passes, &c.Households, &c.Credentials, &c.Local, &c.Pending)
	if err != nil {
		return c, fmt.Errorf("cannot count the registry: %w", err)
	}
	return c, nil
}

// Lookup finds the pass of a credential; false when nobody has it.
//
// A card that the roster names in a short form (the 24 bits a Wiegand reader
// sends) is found by the longer form of another reader too. Not the other way
// round: a card whose full number the roster knows is found by exactly that
// number, or by what a short reader gives of it, never by another card with
// an equal part.
func (r *Registry) Lookup(ctx context.Context, c edge.Credential) (edge.Pass, bool, error) {
	for i, alias := range c.Aliases() {
		for k := range r.o.Keys {
			h := r.o.Keys[k].Hash(alias)
			p, derived, err := scanPass(r.stmts.lookup.QueryRowContext(ctx, h[:]))
			if errors.Is(err, sql.ErrNoRows) || (err == nil && i > 0 && derived) {
				continue
			}
			if err != nil {
				return edge.Pass{}, false, fmt.Errorf("cannot look up a card: %w", err)
			}
			return p, true, nil
		}
	}
	return edge.Pass{}, false, nil
}

// Pass finds a pass by its number.
func (r *Registry) Pass(ctx context.Context, id edge.PassID) (edge.Pass, bool, error) {
	p, _, err := scanPass(r.stmts.pass.QueryRowContext(ctx, int64(id)))
	switch {
	case errors.Is(err, sql.ErrNoRows):
		return edge.Pass{}, false, nil
	case err != nil:
		return edge.Pass{}, false, fmt.Errorf("cannot read pass %d: %w", id, err)
	}
	return p, true, nil
}

// Household finds a household by its number.
func (r *Registry) Household(ctx context.Context, id edge.HouseholdID) (edge.Household, bool, error) {
	var body []byte
	switch err := r.stmts.household.QueryRowContext(ctx, int64(id)).Scan(&body); {
	case errors.Is(err, sql.ErrNoRows):
		return edge.Household{}, false, nil
	case err != nil:
		return edge.Household{}, false, fmt.Errorf("cannot read household %d: %w", id, err)
	}
	var h edge.Household
	if err := json.Unmarshal(body, &h); err != nil {
		return edge.Household{}, false, fmt.Errorf("cannot read household %d: %w", id, err)
	}
	return h, true, nil
}

// Find looks for passes as a guard does: by the beginning of building and
// unit, by a name or part of one (王小明 finds 王*明), by household or card.
// Sorted by door.
func (r *Registry) Find(ctx context.Context, q edge.PassQuery) ([]edge.Pass, error) {
	if q.Limit <= 0 {
		q.Limit = 50
	}
	if q.Credential != "" {
		p, ok, err := r.Lookup(ctx, q.Credential)
		if err != nil || !ok {
			return nil, err
		}
		return []edge.Pass{p}, nil
	}
	var where []string
	var args []any
	add := func(cond string, a ...any) { where, args = append(where, cond), append(args, a...) }
	for _, c := range []struct{ column, prefix string }{{"p.building", q.Building}, {"p.unit", q.Unit}} {
		if s := strings.TrimSpace(c.prefix); s != "" {
			add(c.column+" >= ? AND "+c.column+" < ?", s, s+"\U0010FFFF")
		}
	}
	if s := strings.TrimSpace(q.Name); s != "" {
		add("(instr(p.name, ?) > 0 OR p.name = ?)", s, mask(s))
	}
	if q.Household != 0 {
		add("p.household = ? AND p.household <> 0", int64(q.Household))
	}
	if len(where) == 0 {
		return nil, errors.New("name a building, a unit, a name, a household or a card to look for")
	}
	// Who looks in building 1 means it before buildings 10 to 19, of which a page may
	// be full.
	first := ""
	if s := strings.TrimSpace(q.Building); s != "" && s[len(s)-1] >= '0' && s[len(s)-1] <= '9' {
		first = "substr(p.building, ?, 1) BETWEEN '0' AND '9', "
		args = append(args, utf8.RuneCountInString(s)+1)
	}
	rows, err := r.db.R.QueryContext(ctx, `SELECT `+passColumns+`, 0 FROM passes p LEFT JOIN local l ON l.pass = p.id WHERE `+
		strings.Join(where, " AND ")+` ORDER BY `+first+`p.building, p.unit, p.id LIMIT ?`, append(args, q.Limit)...)
	if err != nil {
		return nil, fmt.Errorf("cannot look for passes: %w", err)
	}
	defer rows.Close()
	var out []edge.Pass
	for rows.Next() {
		p, _, err := scanPass(rows)
		if err != nil {
			return nil, fmt.Errorf("cannot look for passes: %w", err)
		}
		out = append(out, p)
	}
	return out, rows.Err()
}

func scanPass(row interface{ Scan(...any) error }) (p edge.Pass, derived bool, err error) {
	var body []byte
	var id, household int64
	var building, unit, name, status, reason string
	if err := row.Scan(&id, &household, &building, &unit, &name, &body, &status, &reason, &derived); err != nil {
		return p, false, err
	}
	if err := json.Unmarshal(body, &p); err != nil {
		return p, false, fmt.Errorf("pass %d: %w", id, err)
	}
	p.ID, p.Household, p.Building, p.Unit, p.Name = edge.PassID(id), edge.HouseholdID(household), building, unit, name
	if status != "" {
		p.Status, p.Reason = edge.PassStatus(status), reason
	}
	return p, derived, nil
}

func (r *Registry) now() int64 {
	if r.o.Clock != nil {
		return r.o.Clock.Now().Time
	}
	return time.Now().UnixMilli()
}

// write runs f in a write transaction. Another process may hold the database
// for as long as an import takes; then it waits, as long as the context lets it.
func (r *Registry) write(ctx context.Context, f func(*sql.Tx) error) error {
	for {
		err := r.db.Write(ctx, f)
		if err == nil || !busy(err) || ctx.Err() != nil {
			return err
		}
	}
}

// busy reports whether another connection holds the database (SQLITE_BUSY,
// result code 5, https://sqlite.org/rescode.html). The driver has waited already.
func busy(err error) bool {
	var coded interface{ Code() int }
	return errors.As(err, &coded) && coded.Code()&0xff == 5
}
