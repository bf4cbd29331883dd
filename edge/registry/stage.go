package registry

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"iter"
	"net/url"
	"os"
	"strings"

	"golang.org/x/sys/unix"

	"gatehouse/edge"
)

// stage is a roster on its way in: a scratch database beside the registry,
// filled, sorted, checked and compared while gates go on reading and writing.
// Only what differs is then written to the registry, in the order of its keys.
// The file's lock keeps a second import out; a file that a crash left behind is
// overwritten by the next.
type stage struct {
	path string
	lock *os.File
	db   *sql.DB
	conn *sql.Conn
	rows int
}

const stageSchema = `
CREATE TABLE passes (id INTEGER PRIMARY KEY, household INTEGER, building TEXT, unit TEXT, name TEXT, body TEXT, cards BLOB, line INTEGER, twice INTEGER);
CREATE TABLE households (id INTEGER PRIMARY KEY, body TEXT, line INTEGER, twice INTEGER);
CREATE TABLE seen (hash BLOB, pass INTEGER, derived INTEGER, line INTEGER);
CREATE TABLE credentials (hash BLOB PRIMARY KEY, pass INTEGER, derived INTEGER) WITHOUT ROWID;
CREATE TABLE put (id INTEGER PRIMARY KEY, fresh INTEGER);
CREATE TABLE gone (id INTEGER PRIMARY KEY);
CREATE TABLE home_put (id INTEGER PRIMARY KEY);
CREATE TABLE home_gone (id INTEGER PRIMARY KEY);
CREATE TABLE card_put (hash BLOB PRIMARY KEY, pass INTEGER, derived INTEGER) WITHOUT ROWID;
CREATE TABLE card_gone (hash BLOB PRIMARY KEY) WITHOUT ROWID;
`

// maxErrors is how many errors of a roster are reported at once.
const maxErrors = 100

func (r *Registry) newStage(ctx context.Context) (*stage, error) {
	s := &stage{path: r.db.Path() + ".import"}
	var err error
	if s.lock, err = os.OpenFile(s.path, os.O_CREATE|os.O_RDWR, 0o600); err != nil {
		return nil, fmt.Errorf("cannot make the import's scratch file: %w", err)
	}
	if err := unix.Flock(int(s.lock.Fd()), unix.LOCK_EX|unix.LOCK_NB); err != nil {
		s.lock.Close()
		return nil, fmt.Errorf("%w (%s)", ErrImporting, s.path)
	}
	if err := s.open(ctx, r.db.Path()); err != nil {
		return nil, errors.Join(fmt.Errorf("cannot make the import's scratch file: %w", err), s.close())
	}
	return s, nil
}

func (s *stage) open(ctx context.Context, registry string) error {
	if err := s.lock.Truncate(0); err != nil {
		return err
	}
	// Nothing here needs to survive a crash.
	q := url.Values{"_pragma": {"journal_mode(OFF)", "synchronous(OFF)", "cache_size(-16384)", "temp_store(1)"}}
	var err error
	if s.db, err = sql.Open("sqlite", "file:"+(&url.URL{Path: s.path}).EscapedPath()+"?"+q.Encode()); err != nil {
		return err
	}
	if s.conn, err = s.db.Conn(ctx); err != nil {
		return err
	}
	if _, err = s.conn.ExecContext(ctx, stageSchema); err != nil {
		return err
	}
	_, err = s.conn.ExecContext(ctx, `ATTACH DATABASE ? AS registry`, registry)
	return err
}

// release lets another connection read the scratch database.
func (s *stage) release() error {
	var errs []error
	if s.conn != nil {
		errs = append(errs, s.conn.Close())
	}
	if s.db != nil {
		errs = append(errs, s.db.Close())
	}
	s.conn, s.db = nil, nil
	return errors.Join(errs...)
}

func (s *stage) close() error {
	return errors.Join(s.release(), os.Remove(s.path), s.lock.Close())
}

// bulk inserts many rows a statement: at a million rows the calls, not the
// database, are what takes the time.
type bulk struct {
	conn       *sql.Conn
	head, tail string
	width      int
	args       []any
}

const bulkArgs = 512

func (b *bulk) add(ctx context.Context, args ...any) error {
	b.width = len(args)
	b.args = append(b.args, args...)
	if len(b.args)+b.width > bulkArgs {
		return b.flush(ctx)
	}
	return nil
}

func (b *bulk) flush(ctx context.Context) error {
	if len(b.args) == 0 {
		return nil
	}
	one := "(?" + strings.Repeat(",?", b.width-1) + ")"
	n := len(b.args) / b.width
	_, err := b.conn.ExecContext(ctx, b.head+one+strings.Repeat(","+one, n-1)+b.tail, b.args...)
	b.args = b.args[:0]
	return err
}

// fill reads all rows. Errors of rows are gathered, to be shown together.
func (s *stage) fill(ctx context.Context, r *Registry, rows iter.Seq2[edge.RosterRow, error], progress func(Phase, int)) error {
	if _, err := s.conn.ExecContext(ctx, `BEGIN`); err != nil {
		return err
	}
	passes := bulk{conn: s.conn, head: `INSERT INTO passes VALUES `, tail: ` ON CONFLICT (id) DO UPDATE SET twice = excluded.line`}
	homes := bulk{conn: s.conn, head: `INSERT INTO households VALUES `, tail: ` ON CONFLICT (id) DO UPDATE SET twice = CASE WHEN body <> excluded.body THEN excluded.line ELSE twice END`}
	cards := bulk{conn: s.conn, head: `INSERT INTO seen VALUES `}
	var bad Errors
	for row, err := range rows {
		if ctx.Err() != nil {
			return ctx.Err()
		}
		s.rows++
		line := row.Line
		if line == 0 {
			line = s.rows
		}
		var p prepared
		if err == nil {
			if p, err = r.prepare(row); err != nil {
				err = fmt.Errorf("row %d: %w", line, err)
			}
		}
		if err != nil {
			if bad = append(bad, err); len(bad) == maxErrors {
				return append(bad, errors.New("more errors follow; these come first"))
			}
			continue
		}
		if err := passes.add(ctx, p.id, p.household, p.building, p.unit, p.name, string(p.body), packCards(p.cards), line, 0); err != nil {
			return err
		}
		if p.home != nil {
			if err := homes.add(ctx, p.household, string(p.home), line, 0); err != nil {
				return err
			}
		}
		for i := range p.cards {
			if err := cards.add(ctx, p.cards[i].hash[:], p.id, p.cards[i].derived, line); err != nil {
				return err
			}
		}
		if s.rows%1000 == 0 {
			progress(Reading, s.rows)
		}
	}
	progress(Reading, s.rows)
	if err := errors.Join(passes.flush(ctx), homes.flush(ctx), cards.flush(ctx)); err != nil {
		return err
	}
	if len(bad) > 0 {
		return bad
	}
	return s.check(ctx, progress)
}

// check sorts the credentials and refuses what two rows claim.
func (s *stage) check(ctx context.Context, progress func(Phase, int)) error {
	progress(Sorting, s.rows)
	var bad Errors
	report := func(query string, say func(a, b, c, d int64) error) error {
		rows, err := s.conn.QueryContext(ctx, query+fmt.Sprintf(" LIMIT %d", maxErrors))
		if err != nil {
			return err
		}
		defer rows.Close()
		for rows.Next() {
			var a, b, c, d int64
			if err := rows.Scan(&a, &b, &c, &d); err != nil {
				return err
			}
			bad = append(bad, say(a, b, c, d))
		}
		return rows.Err()
	}
	if err := report(`SELECT id, line, twice, 0 FROM passes WHERE twice <> 0 ORDER BY twice`, func(id, line, twice, _ int64) error {
		return fmt.Errorf("row %d: pass %d is on row %d already", twice, id, line)
	}); err != nil {
		return err
	}
	if err := report(`SELECT id, line, twice, 0 FROM households WHERE twice <> 0 ORDER BY twice`, func(id, line, twice, _ int64) error {
		return fmt.Errorf("row %d says other things of household %d than row %d does", twice, id, line)
	}); err != nil {
		return err
	}
	if len(bad) > 0 {
		return bad
	}
	if _, err := s.conn.ExecContext(ctx, `INSERT INTO credentials SELECT hash, pass, derived FROM seen ORDER BY hash`); err == nil {
		_, err = s.conn.ExecContext(ctx, `DROP TABLE seen; COMMIT`)
		return err
	}
	// Only a clash fails here; find who is in it.
	if err := report(`SELECT a, b, min(least), min(most) FROM (
			SELECT min(line) a, max(line) b, min(derived) least, max(derived) most FROM seen GROUP BY hash HAVING count(*) > 1) GROUP BY a, b ORDER BY b`, func(a, b, least, most int64) error {
		if most == 0 {
			return fmt.Errorf("row %d: its card is on row %d already", b, a)
		}
		if least == 0 {
			return fmt.Errorf("row %d: its card is a short form of the card on row %d, or the other way round: readers could not tell them apart", b, a)
		}
		return fmt.Errorf("row %d: its card and the card on row %d look the same to a reader that sends only a part of the number; if the site has no such reader, say which forms its readers send", b, a)
	}); err != nil {
		return err
	}
	if len(bad) == 0 {
		return errors.New("the credentials could not be sorted")
	}
	return bad
}

// compare finds what differs from the registry.
func (s *stage) compare(ctx context.Context, progress func(Phase, int)) (c Changes, generation int64, err error) {
	progress(Comparing, s.rows)
	if _, err := s.conn.ExecContext(ctx, `BEGIN`); err != nil {
		return c, 0, err
	}
	for _, q := range []string{
		`INSERT INTO put SELECT s.id, r.id IS NULL FROM passes s LEFT JOIN registry.passes r ON r.id = s.id
			WHERE r.id IS NULL OR r.body <> s.body OR r.cards <> s.cards OR r.name <> s.name OR r.building <> s.building OR r.unit <> s.unit OR r.household <> s.household ORDER BY s.id`,
		`INSERT INTO gone SELECT r.id FROM registry.passes r WHERE NOT EXISTS (SELECT 1 FROM passes s WHERE s.id = r.id) ORDER BY r.id`,
		`INSERT INTO home_put SELECT s.id FROM households s LEFT JOIN registry.households r ON r.id = s.id WHERE r.body IS NOT s.body ORDER BY s.id`,
		`INSERT INTO home_gone SELECT r.id FROM registry.households r WHERE NOT EXISTS (SELECT 1 FROM households s WHERE s.id = r.id) ORDER BY r.id`,
	} {
		if _, err := s.conn.ExecContext(ctx, q); err != nil {
			return c, 0, err
		}
	}
	if err := s.conn.QueryRowContext(ctx, `SELECT (SELECT count(*) FROM passes), (SELECT count(*) FROM put WHERE fresh), (SELECT count(*) FROM put WHERE NOT fresh), (SELECT count(*) FROM gone),
		coalesce((SELECT value FROM registry.meta WHERE name = 'passes'), 0), coalesce((SELECT value FROM registry.meta WHERE name = 'generation'), 0)`).
		Scan(&c.Passes, &c.New, &c.Changed, &c.Gone, &c.Before, &generation); err != nil {
		return c, 0, err
	}
	if c.New+c.Changed+c.Gone > 0 {
		for _, q := range []string{
			`INSERT INTO card_gone SELECT r.hash FROM registry.credentials r LEFT JOIN credentials s ON s.hash = r.hash WHERE s.pass IS NOT r.pass OR s.derived IS NOT r.derived ORDER BY r.hash`,
			`INSERT INTO card_put SELECT s.hash, s.pass, s.derived FROM credentials s LEFT JOIN registry.credentials r ON r.hash = s.hash WHERE s.pass IS NOT r.pass OR s.derived IS NOT r.derived ORDER BY s.hash`,
		} {
			if _, err := s.conn.ExecContext(ctx, q); err != nil {
				return c, 0, err
			}
		}
	}
	for _, l := range []struct {
		to    *[]edge.PassID
		query string
	}{{&c.NewIDs, `SELECT id FROM put WHERE fresh`}, {&c.ChangedIDs, `SELECT id FROM put WHERE NOT fresh`}, {&c.GoneIDs, `SELECT id FROM gone`}} {
		if *l.to, err = s.ids(ctx, l.query); err != nil {
			return c, 0, err
		}
	}
	_, err = s.conn.ExecContext(ctx, `COMMIT`)
	return c, generation, err
}

func (s *stage) ids(ctx context.Context, query string) ([]edge.PassID, error) {
	rows, err := s.conn.QueryContext(ctx, query+` ORDER BY id LIMIT 20`)
	if err != nil {
		return nil, err
	}
	defer rows.Close()
	var out []edge.PassID
	for rows.Next() {
		var id int64
		if err := rows.Scan(&id); err != nil {
			return nil, err
		}
		out = append(out, edge.PassID(id))
	}
	return out, rows.Err()
}
