package registry

import (
	"context"
	"database/sql"
	"encoding/json"
	"errors"
	"fmt"
	"iter"
	"strings"

	"gatehouse/edge"
)

// Changes are how a roster differs from the registry.
type Changes struct {
	Version int64 `json:"version,omitempty"` // after the import; 0 = only compared
	Passes  int   `json:"passes"`            // in the roster
	Before  int   `json:"before"`            // in the registry before
	New     int   `json:"new"`
	Changed int   `json:"changed"`
	Gone    int   `json:"gone"`
	// The first 20 of each.
	NewIDs     []edge.PassID `json:"-"`
	ChangedIDs []edge.PassID `json:"-"`
	GoneIDs    []edge.PassID `json:"-"`
}

// GoneShare is the part of the registry's passes that the roster lacks.
func (c Changes) GoneShare() float64 {
	if c.Before == 0 {
		return 0
	}
	return float64(c.Gone) / float64(c.Before)
}

// Phase says what an import is doing.
type Phase string

const (
	Reading   Phase = "reading"
	Sorting   Phase = "sorting"
	Comparing Phase = "comparing"
	Writing   Phase = "writing"
)

// MaxGone is the part of the passes that a roster may lack before somebody
// must confirm it: half a file looks like half the people moved out.
const MaxGone = 0.10

// ImportOptions say how an import goes.
type ImportOptions struct {
	Progress func(p Phase, rows int) // called from the importing goroutine
	// Confirm is asked before a roster takes effect that lacks more than MaxGone
	// of the passes. nil refuses with *ManyGoneError.
	Confirm func(Changes) error
}

// ManyGoneError says that a roster lacks more passes than is plausible.
type ManyGoneError struct{ Changes Changes }

func (e *ManyGoneError) Error() string {
	return fmt.Sprintf("%d of %d passes would be gone (%.0f%%, more than %.0f%%): is the file complete? Nothing was changed", e.Changes.Gone, e.Changes.Before, 100*e.Changes.GoneShare(), 100*MaxGone)
}

// Errors are the errors of a roster, one per line of text. Nothing of it was imported.
type Errors []error

func (e Errors) Error() string {
	s := make([]string, len(e))
	for i, err := range e {
		s[i] = err.Error()
	}
	return strings.Join(s, "\n")
}

// Unwrap gives each error to errors.Is and errors.As.
func (e Errors) Unwrap() []error { return e }

// Diff compares a roster with the registry and changes nothing. The errors
// are those of Import.
func (r *Registry) Diff(ctx context.Context, rows iter.Seq2[edge.RosterRow, error]) (Changes, error) {
	return r.stage(ctx, rows, nil, func(*stage, Changes, int64) (Changes, error) { return Changes{}, errCompared })
}

var errCompared = errors.New("only compared")

// Import replaces the roster by rows, all or nothing. Nobody who reads waits
// for it. A local change (a suspension) of a pass that is still there stays.
// Errors of rows come together as Errors. At a gate with a server it is refused
// with ErrManaged.
func (r *Registry) Import(ctx context.Context, rows iter.Seq2[edge.RosterRow, error], o ImportOptions) (Changes, error) {
	if managed, err := r.Managed(ctx); err != nil {
		return Changes{}, err
	} else if managed {
		return Changes{}, ErrManaged
	}
	return r.stage(ctx, rows, o.Progress, func(s *stage, c Changes, generation int64) (Changes, error) {
		if c.GoneShare() > MaxGone {
			if o.Confirm == nil {
				return c, &ManyGoneError{c}
			}
			if err := o.Confirm(c); err != nil {
				return c, err
			}
		}
		if o.Progress != nil {
			o.Progress(Writing, c.New+c.Changed+c.Gone)
		}
		version, err := r.apply(ctx, s, c, generation, func(tx *sql.Tx, version int64) (int64, error) {
			c.Version = version + 1
			data, err := json.Marshal(c)
			if err != nil {
				return 0, err
			}
			if _, err = tx.ExecContext(ctx, `INSERT INTO pending (data) VALUES (?)`, string(data)); err != nil {
				return 0, err
			}
			_, err = tx.ExecContext(ctx, `DELETE FROM local WHERE pass NOT IN (SELECT id FROM passes)`)
			return c.Version, err
		})
		c.Version = version
		return c, err
	})
}

// ApplySnapshot replaces the roster by the server's, whose version it gets.
// From then on the server is its master. Local changes that contains names
// (the last entry of each gate's epoch that the version knows) are dropped,
// all others stay. The caller has verified who sent it. ErrOlder when the
// version in force is newer.
func (r *Registry) ApplySnapshot(ctx context.Context, version int64, rows iter.Seq2[edge.RosterRow, error], contains []edge.EntryRef) (Changes, error) {
	return r.stage(ctx, rows, nil, func(s *stage, c Changes, generation int64) (Changes, error) {
		var err error
		c.Version, err = r.apply(ctx, s, c, generation, func(tx *sql.Tx, have int64) (int64, error) {
			var managed int64
			if err := tx.QueryRowContext(ctx, `SELECT coalesce((SELECT value FROM meta WHERE name = 'managed'), 0)`).Scan(&managed); err != nil {
				return 0, err
			}
			if managed != 0 && version < have {
				return 0, fmt.Errorf("%w: roster %d, in force is %d", ErrOlder, version, have)
			}
			return version, errors.Join(setMeta(ctx, tx, "managed", 1), drop(ctx, tx, contains))
		})
		return c, err
	})
}

// stage reads and compares a roster, and hands it to use.
func (r *Registry) stage(ctx context.Context, rows iter.Seq2[edge.RosterRow, error], progress func(Phase, int), use func(*stage, Changes, int64) (Changes, error)) (c Changes, err error) {
	if progress == nil {
		progress = func(Phase, int) {}
	}
	s, err := r.newStage(ctx)
	if err != nil {
		return Changes{}, err
	}
	defer func() { err = errors.Join(err, s.close()) }()
	if err := s.fill(ctx, r, rows, progress); err != nil {
		return Changes{}, err
	}
	c, generation, err := s.compare(ctx, progress)
	if err != nil {
		return Changes{}, fmt.Errorf("cannot compare the roster: %w", err)
	}
	if err := s.release(); err != nil {
		return Changes{}, err
	}
	done, err := use(s, c, generation)
	if errors.Is(err, errCompared) {
		return c, nil
	}
	return done, err
}

// apply writes what differs, in one transaction. settle decides the version,
// knowing the present one.
func (r *Registry) apply(ctx context.Context, s *stage, c Changes, generation int64, settle func(tx *sql.Tx, version int64) (int64, error)) (version int64, err error) {
	conn, err := r.db.W.Conn(ctx)
	if err != nil {
		return 0, fmt.Errorf("cannot write the registry: %w", err)
	}
	defer conn.Close()
	// A larger cache and sorting in files for the time of the import.
	if _, err := conn.ExecContext(ctx, `PRAGMA cache_size = -16384; PRAGMA temp_store = 1`); err != nil {
		return 0, fmt.Errorf("cannot write the registry: %w", err)
	}
	if _, err := conn.ExecContext(ctx, `ATTACH DATABASE ? AS stage`, s.path); err != nil {
		return 0, fmt.Errorf("cannot read the import's scratch file: %w", err)
	}
	defer func() {
		_, e := conn.ExecContext(context.WithoutCancel(ctx), `DETACH DATABASE stage; PRAGMA cache_size = -2048; PRAGMA temp_store = 2; PRAGMA wal_checkpoint(TRUNCATE)`)
		if err == nil && e != nil && !busy(e) {
			r.o.Log.Warn("registry after an import", "err", e)
		}
	}()
	tx, err := conn.BeginTx(ctx, nil)
	for err != nil && busy(err) && ctx.Err() == nil {
		tx, err = conn.BeginTx(ctx, nil)
	}
	if err != nil {
		return 0, fmt.Errorf("cannot write the registry: %w", err)
	}
	if version, err = r.applyIn(ctx, tx, c, generation, settle); err != nil {
		return 0, errors.Join(err, tx.Rollback())
	}
	if err := tx.Commit(); err != nil {
		return 0, fmt.Errorf("cannot write the registry: %w", err)
	}
	return version, nil
}

func (r *Registry) applyIn(ctx context.Context, tx *sql.Tx, c Changes, generation int64, settle func(*sql.Tx, int64) (int64, error)) (int64, error) {
	var have, version int64
	if err := tx.QueryRowContext(ctx, `SELECT coalesce((SELECT value FROM meta WHERE name = 'generation'), 0), coalesce((SELECT value FROM meta WHERE name = 'version'), 0)`).Scan(&have, &version); err != nil {
		return 0, err
	}
	if have != generation {
		return 0, ErrChanged
	}
	rebuild := c.New+c.Changed > 10_000 && (c.New+c.Changed)*4 > c.Passes
	steps := []string{
		`DELETE FROM credentials WHERE hash IN (SELECT hash FROM stage.card_gone)`,
		`DELETE FROM passes WHERE id IN (SELECT id FROM stage.gone)`,
		`DELETE FROM households WHERE id IN (SELECT id FROM stage.home_gone)`,
		`INSERT INTO households SELECT s.id, s.body FROM stage.home_put p CROSS JOIN stage.households s ON s.id = p.id WHERE true ON CONFLICT (id) DO UPDATE SET body = excluded.body`,
		`INSERT INTO passes SELECT s.id, s.household, s.building, s.unit, s.name, s.body, s.cards FROM stage.put p CROSS JOIN stage.passes s ON s.id = p.id WHERE true
			ON CONFLICT (id) DO UPDATE SET household = excluded.household, building = excluded.building, unit = excluded.unit, name = excluded.name, body = excluded.body, cards = excluded.cards`,
		`INSERT INTO credentials SELECT hash, pass, derived FROM stage.card_put ORDER BY hash`,
		`INSERT OR REPLACE INTO meta SELECT 'passes', count(*) FROM stage.passes UNION ALL SELECT 'households', count(*) FROM stage.households UNION ALL SELECT 'credentials', count(*) FROM stage.credentials`,
	}
	if rebuild {
		steps = append(append([]string{dropIndexes}, steps...), createIndexes)
	}
	for _, q := range steps {
		if _, err := tx.ExecContext(ctx, q); err != nil {
			return 0, fmt.Errorf("cannot write the registry: %w", err)
		}
	}
	version, err := settle(tx, version)
	if err != nil {
		return 0, err
	}
	return version, errors.Join(setMeta(ctx, tx, "version", version), setMeta(ctx, tx, "generation", generation+1), setMeta(ctx, tx, "key", int64(r.o.Keys[0].Version)))
}

// ApplyDelta brings the roster from one version of the server to another: put
// are passes that are new or changed, as they are now, gone those that ended.
// One transaction; readers do not wait. ErrGap when from is not the version in
// force: ask for a snapshot. contains is as in ApplySnapshot.
func (r *Registry) ApplyDelta(ctx context.Context, from, to int64, put []edge.RosterRow, gone []edge.PassID, contains []edge.EntryRef) error {
	ready := make([]prepared, len(put))
	for i, row := range put {
		var err error
		if ready[i], err = r.prepare(row); err != nil {
			return err
		}
	}
	err := r.write(ctx, func(tx *sql.Tx) error {
		var have, managed, generation int64
		if err := tx.QueryRowContext(ctx, `SELECT coalesce((SELECT value FROM meta WHERE name = 'version'), 0), coalesce((SELECT value FROM meta WHERE name = 'managed'), 0), coalesce((SELECT value FROM meta WHERE name = 'generation'), 0)`).Scan(&have, &managed, &generation); err != nil {
			return err
		}
		if managed == 0 || have != from || to <= from {
			return fmt.Errorf("%w: from %d to %d, in force is %d", ErrGap, from, to, have)
		}
		d := delta{ctx: ctx, tx: tx, counts: map[string]int64{}}
		for _, id := range gone {
			if err := d.remove(int64(id)); err != nil {
				return err
			}
		}
		// All old cards go before any new one comes: a card may change hands.
		for i := range ready {
			if err := d.remove(ready[i].id); err != nil {
				return err
			}
		}
		for i := range ready {
			if err := d.insert(&ready[i]); err != nil {
				return err
			}
		}
		if err := d.settle(); err != nil {
			return err
		}
		return errors.Join(drop(ctx, tx, contains), setMeta(ctx, tx, "version", to), setMeta(ctx, tx, "generation", generation+1))
	})
	if err != nil {
		return fmt.Errorf("cannot apply the delta: %w", err)
	}
	return nil
}

// delta is a change of a few passes within one transaction.
type delta struct {
	ctx    context.Context
	tx     *sql.Tx
	homes  []int64 // that may have lost their last pass
	counts map[string]int64
}

func (d *delta) exec(count string, by int64, query string, args ...any) error {
	res, err := d.tx.ExecContext(d.ctx, query, args...)
	if err != nil {
		return err
	}
	n, err := res.RowsAffected()
	d.counts[count] += by * n
	return err
}

func (d *delta) remove(id int64) error {
	var packed []byte
	var home int64
	switch err := d.tx.QueryRowContext(d.ctx, `SELECT cards, household FROM passes WHERE id = ?`, id).Scan(&packed, &home); {
	case errors.Is(err, sql.ErrNoRows):
		return nil
	case err != nil:
		return err
	}
	cards, err := unpackCards(packed)
	if err != nil {
		return fmt.Errorf("pass %d: %w", id, err)
	}
	for i := range cards {
		if err := d.exec("credentials", -1, `DELETE FROM credentials WHERE hash = ? AND pass = ?`, cards[i].hash[:], id); err != nil {
			return err
		}
	}
	d.homes = append(d.homes, home)
	return d.exec("passes", -1, `DELETE FROM passes WHERE id = ?`, id)
}

func (d *delta) insert(p *prepared) error {
	if err := d.exec("passes", 1, `INSERT INTO passes VALUES (?, ?, ?, ?, ?, ?, ?)`, p.id, p.household, p.building, p.unit, p.name, string(p.body), packCards(p.cards)); err != nil {
		return fmt.Errorf("pass %d twice in one delta: %w", p.id, err)
	}
	for i := range p.cards {
		if err := d.exec("credentials", 1, `INSERT INTO credentials VALUES (?, ?, ?)`, p.cards[i].hash[:], p.id, p.cards[i].derived); err != nil {
			return fmt.Errorf("a card of pass %d belongs to another pass: %w", p.id, err)
		}
	}
	if p.home == nil {
		return nil
	}
	var there int64
	if err := d.tx.QueryRowContext(d.ctx, `SELECT count(*) FROM households WHERE id = ?`, p.household).Scan(&there); err != nil {
		return err
	}
	return d.exec("households", 1-there, `INSERT INTO households VALUES (?, ?) ON CONFLICT (id) DO UPDATE SET body = excluded.body`, p.household, string(p.home))
}

// settle ends households that nobody belongs to, and brings the counts up to date.
func (d *delta) settle() error {
	for _, id := range d.homes {
		if err := d.exec("households", -1, `DELETE FROM households WHERE id = ? AND NOT EXISTS (SELECT 1 FROM passes WHERE household = ? AND household <> 0)`, id, id); err != nil {
			return err
		}
	}
	for name, n := range d.counts {
		if _, err := d.tx.ExecContext(d.ctx, `INSERT INTO meta VALUES (?, ?) ON CONFLICT (name) DO UPDATE SET value = value + excluded.value`, name, n); err != nil {
			return err
		}
	}
	return nil
}
