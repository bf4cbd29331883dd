package community

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"
	"github.com/jackc/pgx/v5/stdlib"
	"github.com/pressly/goose/v3"
	"github.com/pressly/goose/v3/lock"

	"gatehouse/edge"
)

// openPostgres opens a PostgreSQL database. Several programs may: migrations are
// under a lock.
func openPostgres(ctx context.Context, where string) (*store, error) {
	cfg, err := pgx.ParseConfig(where)
	if err != nil {
		return nil, fmt.Errorf("cannot use the store's address: %w", err)
	}
	if cfg.RuntimeParams["application_name"] == "" {
		cfg.RuntimeParams["application_name"] = "communityd"
	}
	// Whoever waits for another transaction must see then what that one has left.
	cfg.RuntimeParams["default_transaction_isolation"] = "read committed"
	db := stdlib.OpenDB(*cfg)
	db.SetMaxOpenConns(8)
	db.SetMaxIdleConns(4)
	fail := func(err error) (*store, error) {
		return nil, errors.Join(fmt.Errorf("cannot open database %s at %s: %w", cfg.Database, cfg.Host, err), db.Close())
	}
	var commit string
	if err := db.QueryRowContext(ctx, `SHOW synchronous_commit`).Scan(&commit); err != nil {
		return fail(err)
	}
	if commit == "off" {
		return fail(errors.New("synchronous_commit is off: a receipt would promise what a crash can take back"))
	}
	locker, err := lock.NewPostgresSessionLocker()
	if err != nil {
		return fail(err)
	}
	if err := migrate(ctx, goose.DialectPostgres, db, "migrations/postgres", goose.WithSessionLocker(locker)); err != nil {
		return fail(err)
	}
	return &store{w: db, r: db, bulk: &postgresBulk{days: map[int64]bool{}, unclean: map[string]bool{}}, shut: db.Close}, nil
}

// postgresBulk inserts with COPY, and few rows with unnest: one statement and one
// round trip for any number of them.
type postgresBulk struct {
	mu      sync.Mutex
	days    map[int64]bool  // that have their partitions
	unclean map[string]bool // tables whose files may hold what was destroyed
}

const day = 24 * time.Hour

// dayOf is the number of the UTC day of a time in milliseconds.
func dayOf(ms int64) int64 {
	d := ms / day.Milliseconds()
	if ms%day.Milliseconds() < 0 {
		d--
	}
	return d
}

// partition names the partition of a day.
func partition(table string, d int64) string {
	return table + "_" + time.UnixMilli(d*day.Milliseconds()).UTC().Format("20060102")
}

// partitioned are the tables with a partition for each day.
func partitioned() []string { return []string{"entry", "block", "delta"} }

// restSuffix names the partition for what has none of its own.
const restSuffix = "_rest"

// keepDays is how far back days have partitions of their own. Older entries, of a
// gate that was offline for long, go to the partition for the rest.
const keepDays = 45

// pgerrcodeCheckViolation is the SQLSTATE of a partition that would take rows from
// the default one (PostgreSQL manual, appendix A).
const pgerrcodeCheckViolation = "23514"

// turn is a lock of its own, since what is to be written may have no row yet. What is
// read after it is as others have left it: each statement sees what was committed
// before it began.
func (*postgresBulk) turn(ctx context.Context, tx *sql.Tx, name string) error {
	if _, err := tx.ExecContext(ctx, `SELECT pg_advisory_xact_lock(hashtextextended($1, 0))`, name); err != nil {
		return fmt.Errorf("cannot wait for others who write the %s: %w", name, err)
	}
	return nil
}

// share keeps partitions of a table from being dropped until tx ends. What retire keeps
// of one has moved then, to where the state that tx sees does not have it. A lock fixes
// no state yet, as a query does.
func (*postgresBulk) share(ctx context.Context, tx *sql.Tx, table string) error {
	_, err := tx.ExecContext(ctx, `LOCK TABLE ONLY `+table+` IN ACCESS SHARE MODE`)
	return err
}

// prepare makes the partitions that are missing.
func (p *postgresBulk) prepare(ctx context.Context, db *sql.DB, adds []*addition) error {
	p.mu.Lock()
	defer p.mu.Unlock()
	oldest := dayOf(time.Now().UnixMilli()) - keepDays
	for _, a := range adds {
		for i := range a.cols {
			d := dayOf(a.cols[i].time)
			if d < oldest || p.days[d] {
				continue
			}
			for _, t := range partitioned() {
				name := partition(t, d)
				from, to := strconv.FormatInt(d*day.Milliseconds(), 10), strconv.FormatInt((d+1)*day.Milliseconds(), 10)
				_, err := db.ExecContext(ctx, `CREATE TABLE IF NOT EXISTS `+name+` PARTITION OF `+t+` FOR VALUES FROM (`+from+`) TO (`+to+`)`)
				var pg *pgconn.PgError
				if errors.As(err, &pg) && pg.Code == pgerrcodeCheckViolation {
					continue // the day was retired: what outlived it is with the rest, and so is what comes late
				}
				if err != nil {
					return fmt.Errorf("cannot make partition %s: %w", name, err)
				}
			}
			p.days[d] = true
		}
	}
	return nil
}

// copyRows sends rows by COPY, which takes about half of an INSERT's time. row fills
// the values of the next one and says whether there is one; they are pointers, a nil
// one for NULL, so that nothing is allocated for each.
func copyRows(ctx context.Context, conn *sql.Conn, table, columns string, row func(values []any) bool) error {
	names := strings.Split(columns, ", ")
	values := make([]any, len(names))
	return conn.Raw(func(driver any) error {
		c, ok := driver.(*stdlib.Conn)
		if !ok {
			return fmt.Errorf("a connection of PostgreSQL is a %T", driver)
		}
		_, err := c.Conn().CopyFrom(ctx, pgx.Identifier{table}, names, pgx.CopyFromFunc(func() ([]any, error) {
			if !row(values) {
				return nil, nil
			}
			return values, nil
		}))
		return err
	})
}

// numberOr gives a number to copy; NULL where it is none.
func numberOr(p *int64, none int64) *int64 {
	if *p == none {
		return nil
	}
	return p
}

func textOrNull(p *[]byte) *[]byte {
	if len(*p) == 0 {
		return nil
	}
	return p
}

func (*postgresBulk) entries(ctx context.Context, _ *sql.Tx, conn *sql.Conn, adds []*addition) error {
	at, i := 0, 0
	var seq int64
	return copyRows(ctx, conn, "entry", entryColumns, func(v []any) bool {
		for at < len(adds) && i == len(adds[at].cols) {
			at, i = at+1, 0
		}
		if at == len(adds) {
			return false
		}
		a := adds[at]
		c := &a.cols[i]
		seq = int64(a.first) + int64(i)
		i++
		if c.kind == nil {
			c.kind = []byte{} // never NULL
		}
		v[0], v[1], v[2], v[3], v[4] = &a.next.id, &seq, &c.time, &c.kind, textOrNull(&c.lane)
		v[5], v[6], v[7] = numberOr(&c.presentation, 0), numberOr(&c.of, -1), textOrNull(&c.actor)
		v[8], v[9] = numberOr(&c.pass, 0), numberOr(&c.household, 0)
		v[10], v[11], v[12], v[13], v[14] = textOrNull(&c.category), textOrNull(&c.outcome), textOrNull(&c.rule), textOrNull(&c.reason), textOrNull(&c.result)
		return true
	})
}

func (*postgresBulk) pieces(ctx context.Context, tx *sql.Tx, rows []pieceRow) error {
	if len(rows) == 0 {
		return nil
	}
	var logs, firsts, counts, untils []int64
	var hashes, roots, keys, blinds, data [][]byte
	for i := range rows {
		r := &rows[i]
		logs, firsts, counts, untils = append(logs, r.log), append(firsts, int64(r.first)), append(counts, int64(r.count)), append(untils, r.until)
		hashes, roots = append(hashes, r.hashes), append(roots, r.root())
		keys, blinds, data = append(keys, r.key), append(blinds, r.blinds), append(data, r.data)
	}
	if _, err := tx.ExecContext(ctx, `INSERT INTO leaf (log, first, hashes, root) SELECT * FROM unnest($1::bigint[], $2::bigint[], $3::bytea[], $4::bytea[])`,
		logs, firsts, hashes, roots); err != nil {
		return err
	}
	_, err := tx.ExecContext(ctx, `INSERT INTO block (log, first, count, until, key, blinds, data)
		SELECT * FROM unnest($1::bigint[], $2::bigint[], $3::bigint[], $4::bigint[], $5::bytea[], $6::bytea[], $7::bytea[])`,
		logs, firsts, counts, untils, keys, blinds, data)
	return err
}

func (*postgresBulk) deltas(ctx context.Context, _ *sql.Tx, conn *sql.Conn, rows []deltaRow) error {
	if len(rows) == 0 {
		return nil
	}
	i := 0
	var seq int64
	return copyRows(ctx, conn, "delta", "log, seq, at, deltas, change", func(v []any) bool {
		if i == len(rows) {
			return false
		}
		r := &rows[i]
		seq = int64(r.seq)
		i++
		v[0], v[1], v[2], v[3], v[4] = &r.log, &seq, &r.at, &r.deltas, &r.change
		return true
	})
}

// holders are the partitions that hold the entries, their blocks and their deltas.
func (*postgresBulk) holders(ctx context.Context, tx *sql.Tx, log int64, seqs []uint64) ([]string, error) {
	if len(seqs) == 0 {
		return nil, nil
	}
	all, starts := make([]int64, len(seqs)), []int64{}
	for i, q := range seqs {
		all[i] = int64(q)
		if start := int64(q &^ (edge.BlockSize - 1)); len(starts) == 0 || starts[len(starts)-1] != start {
			starts = append(starts, start)
		}
	}
	var out []string
	rows, err := tx.QueryContext(ctx, `SELECT DISTINCT tableoid::regclass::text FROM entry WHERE log = $1 AND seq = ANY ($2)
		UNION SELECT DISTINCT tableoid::regclass::text FROM delta WHERE log = $1 AND seq = ANY ($2)
		UNION SELECT DISTINCT tableoid::regclass::text FROM block WHERE log = $1 AND first - first % $4 = ANY ($3)`, log, all, starts, edge.BlockSize)
	err = each(rows, err, func() error {
		var name string
		err := rows.Scan(&name)
		out = append(out, name)
		return err
	})
	return out, err
}

// lockWait is how long maintenance waits for those who use a table. Everybody who
// comes after it waits behind it, the receiver too.
const lockWait = `SET LOCAL lock_timeout = '5s'`

// scrub writes tables anew, so that what was deleted from them is not in their files
// any more. VACUUM alone only lets the room be used again. Tables for which that fails
// come again with the next.
func (p *postgresBulk) scrub(ctx context.Context, db *sql.DB, tables ...string) (err error) {
	p.mu.Lock()
	for _, t := range tables {
		p.unclean[t] = true
	}
	tables = slices.Sorted(maps.Keys(p.unclean))
	p.mu.Unlock()
	if len(tables) == 0 {
		return nil
	}
	conn, err := db.Conn(ctx)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, conn.Close()) }()
	if err := unread(ctx, conn); err != nil {
		return fmt.Errorf("the files of these tables may still hold what was destroyed (VACUUM FULL takes it away): %s: %w", strings.Join(tables, ", "), err)
	}
	if _, err := conn.ExecContext(ctx, `SET lock_timeout = '5s'`); err != nil {
		return err
	}
	for _, t := range tables {
		var there bool
		if err = conn.QueryRowContext(ctx, `SELECT to_regclass($1) IS NOT NULL`, t).Scan(&there); err != nil {
			break
		}
		if there { // or its day was retired meanwhile
			if _, err = conn.ExecContext(ctx, `VACUUM (FULL) `+t); err != nil {
				err = fmt.Errorf("the file of table %s still holds what was destroyed (VACUUM FULL takes it away): %w", t, err)
				break
			}
		}
		p.mu.Lock()
		delete(p.unclean, t)
		p.mu.Unlock()
	}
	_, e := conn.ExecContext(context.WithoutCancel(ctx), `RESET lock_timeout`)
	return errors.Join(err, e)
}

// unread waits until no transaction is left that began before: VACUUM FULL writes
// anew, too, what one of them might still read, and says nothing of it.
func unread(ctx context.Context, conn *sql.Conn) error {
	var now string
	if err := conn.QueryRowContext(ctx, `SELECT pg_current_xact_id()::xid::text`).Scan(&now); err != nil {
		return err
	}
	done, err := patiently(ctx, func() (bool, error) {
		var n int
		err := conn.QueryRowContext(ctx, `SELECT COUNT(*) FROM pg_stat_activity WHERE datname = current_database() AND pid <> pg_backend_pid() AND backend_type = 'client backend'
			AND (age(backend_xid) > age($1::text::xid) OR age(backend_xmin) > age($1::text::xid))`, now).Scan(&n)
		return n == 0, err
	})
	if err == nil && !done {
		err = errors.New("a transaction that began before is not over")
	}
	return err
}
