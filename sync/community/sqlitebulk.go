package community

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"strings"

	"gatehouse/edge/sqlite"
)

// sqliteBulk inserts some rows with each statement: a call into the database
// costs more than a row does.
type sqliteBulk struct{ db *sqlite.DB }

// turn is nothing: a transaction that writes is the only one from its beginning.
func (sqliteBulk) turn(context.Context, *sql.Tx, string) error { return nil }

// share is nothing: no rows move.
func (sqliteBulk) share(context.Context, *sql.Tx, string) error { return nil }

const entryColumns = `log, seq, at, kind, lane, presentation, of, actor, pass, household, category, outcome, rule, reason, result`

// chunk is how many rows one SQLite statement inserts.
const chunk = 16

// valuesOf makes "insert (?, ?), (?, ?)" with rows groups of width parameters. They
// have no names: SQLite looks a name up in a list, for each value of each row.
func valuesOf(insert string, rows, width int) string {
	var b strings.Builder
	b.WriteString(insert)
	for i := range rows {
		for j := range width {
			switch {
			case j > 0:
				b.WriteString(", ")
			case i > 0:
				b.WriteString("), (")
			default:
				b.WriteString(" VALUES (")
			}
			b.WriteByte('?')
		}
	}
	b.WriteByte(')')
	return b.String()
}

// insertRows feeds rows of width values each, which next appends, to statements
// of chunk rows.
func insertRows(ctx context.Context, tx *sql.Tx, insert string, rows, width int, next func(args []any, row int) []any) error {
	args := make([]any, 0, chunk*width)
	var stmt *sql.Stmt
	for row := 0; row < rows; {
		n := min(chunk, rows-row)
		args = args[:0]
		for i := range n {
			args = next(args, row+i)
		}
		row += n
		if n < chunk {
			if _, err := tx.ExecContext(ctx, valuesOf(insert, n, width), args...); err != nil {
				return err
			}
			continue
		}
		if stmt == nil {
			var err error
			if stmt, err = tx.PrepareContext(ctx, valuesOf(insert, chunk, width)); err != nil {
				return err
			}
			defer stmt.Close()
		}
		if _, err := stmt.ExecContext(ctx, args...); err != nil {
			return err
		}
	}
	return nil
}

func (sqliteBulk) prepare(context.Context, *sql.DB, []*addition) error { return nil }

func (sqliteBulk) entries(ctx context.Context, tx *sql.Tx, _ *sql.Conn, adds []*addition) error {
	for _, a := range adds {
		err := insertRows(ctx, tx, `INSERT INTO entry (`+entryColumns+`)`, len(a.cols), 15, func(args []any, i int) []any {
			c := &a.cols[i]
			return append(args, a.next.id, int64(a.first)+int64(i), c.time, string(c.kind), text(c.lane), number(c.presentation),
				reference(c.of), text(c.actor), number(c.pass), number(c.household), text(c.category), text(c.outcome), text(c.rule),
				text(c.reason), text(c.result))
		})
		if err != nil {
			return err
		}
	}
	return nil
}

func (sqliteBulk) pieces(ctx context.Context, tx *sql.Tx, rows []pieceRow) error {
	for i := range rows {
		r := &rows[i]
		if _, err := tx.ExecContext(ctx, `INSERT INTO leaf (log, first, hashes, root) VALUES ($1, $2, $3, $4)`, r.log, int64(r.first), r.hashes, r.root()); err != nil {
			return err
		}
		if _, err := tx.ExecContext(ctx, `INSERT INTO block (log, first, count, until, key, blinds, data) VALUES ($1, $2, $3, $4, $5, $6, $7)`,
			r.log, int64(r.first), r.count, r.until, r.key, r.blinds, r.data); err != nil {
			return err
		}
	}
	return nil
}

func (sqliteBulk) deltas(ctx context.Context, tx *sql.Tx, _ *sql.Conn, rows []deltaRow) error {
	return insertRows(ctx, tx, `INSERT INTO delta (log, seq, at, deltas, change)`, len(rows), 5, func(args []any, i int) []any {
		r := &rows[i]
		return append(args, r.log, int64(r.seq), r.at, r.deltas, r.change)
	})
}

// text, number and reference make what is absent NULL.
func text(b []byte) any {
	if len(b) == 0 {
		return nil
	}
	return string(b)
}

func number(v int64) any {
	if v == 0 {
		return nil
	}
	return v
}

func reference(v int64) any {
	if v < 0 {
		return nil
	}
	return v
}

// holders: all of SQLite is one file.
func (sqliteBulk) holders(context.Context, *sql.Tx, int64, []uint64) ([]string, error) {
	return nil, nil
}

// scrub empties the WAL: the file is overwritten where something was deleted, but
// the WAL holds the pages as they were.
func (b sqliteBulk) scrub(ctx context.Context, db *sql.DB, _ ...string) error {
	switch done, err := patiently(ctx, func() (bool, error) { return b.truncate(ctx, db) }); {
	case err != nil:
		return fmt.Errorf("cannot empty the WAL: %w", err)
	case done:
		return nil
	}
	return errors.New("the WAL still holds what was destroyed, because somebody reads; it is emptied with the next enforcement of retention")
}

// truncate takes the writer's turn, or one transaction after the other may be in the
// way for long.
func (b sqliteBulk) truncate(ctx context.Context, db *sql.DB) (_ bool, err error) {
	turn, err := db.Conn(ctx)
	if err != nil {
		return false, err
	}
	defer func() { err = errors.Join(err, turn.Close()) }()
	return b.db.Truncate(ctx)
}
