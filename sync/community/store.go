package community

import (
	"cmp"
	"context"
	"database/sql"
	"embed"
	"errors"
	"fmt"
	"io/fs"
	"slices"
	"strings"
	"time"

	"github.com/pressly/goose/v3"
	"golang.org/x/mod/sumdb/tlog"

	"gatehouse/edge"
	"gatehouse/edge/sqlite"
	"gatehouse/sync/wire"
)

//go:embed migrations
var migrations embed.FS

// store is the server's database. Its SQL is the same for both engines (both
// take $1) but for the bulk statements, which are the engine's own.
type store struct {
	w, r *sql.DB
	bulk bulk
	shut func() error
}

// bulk writes many rows at once in the way that suits one database engine.
type bulk interface {
	// turn has tx wait until no other transaction has the turn of this name, and keep it
	// to its end. It comes first, before what depends on it is read, and a transaction
	// that takes it locks nothing before.
	turn(ctx context.Context, tx *sql.Tx, name string) error
	// share keeps the rows of a table where they are until tx ends. It comes first.
	share(ctx context.Context, tx *sql.Tx, table string) error
	// prepare makes room for entries with these times, outside of a transaction.
	prepare(ctx context.Context, db *sql.DB, adds []*addition) error
	// entries and deltas run in tx, which was begun on conn.
	entries(ctx context.Context, tx *sql.Tx, conn *sql.Conn, adds []*addition) error
	// retire gives back the room of what lies before a time and was destroyed.
	retire(ctx context.Context, db *sql.DB, before int64) (partitions int, err error)
	pieces(ctx context.Context, tx *sql.Tx, rows []pieceRow) error
	deltas(ctx context.Context, tx *sql.Tx, conn *sql.Conn, rows []deltaRow) error
	// holders names what must be scrubbed after these entries of a log, given in
	// order, are destroyed.
	holders(ctx context.Context, tx *sql.Tx, log int64, seqs []uint64) ([]string, error)
	// scrub takes the remains of what was deleted off the medium, as far as the
	// engine lets it.
	scrub(ctx context.Context, db *sql.DB, tables ...string) error
}

// openStore opens where: the path of an SQLite file, or a postgres:// address.
func openStore(ctx context.Context, where string) (*store, error) {
	if strings.HasPrefix(where, "postgres://") || strings.HasPrefix(where, "postgresql://") {
		return openPostgres(ctx, where)
	}
	// FULL: a receipt is a promise, so what it speaks of must be on the medium.
	db, err := sqlite.Open(ctx, where, sqlite.Options{PageSize: 8192, CacheKiB: 16384, Full: true, Overwrite: true})
	if err != nil {
		return nil, err
	}
	s := &store{w: db.W, r: db.R, bulk: sqliteBulk{db}, shut: db.Close}
	if err := migrate(ctx, goose.DialectSQLite3, db.W, "migrations/sqlite"); err != nil {
		return nil, errors.Join(fmt.Errorf("cannot open %s: %w", where, err), db.Close())
	}
	return s, nil
}

// migrate brings the schema up to date and refuses one that is newer than this
// program.
func migrate(ctx context.Context, d goose.Dialect, db *sql.DB, dir string, o ...goose.ProviderOption) error {
	sub, err := fs.Sub(migrations, dir)
	if err != nil {
		return err
	}
	p, err := goose.NewProvider(d, db, sub, append(o, goose.WithDisableGlobalRegistry(true))...)
	if err != nil {
		return fmt.Errorf("cannot read the migrations: %w", err)
	}
	have, want, err := p.GetVersions(ctx)
	if err != nil {
		return fmt.Errorf("cannot read the schema's version: %w", err)
	}
	if have > want {
		return fmt.Errorf("%w: its schema is %d, this program knows %d", sqlite.ErrNewer, have, want)
	}
	if _, err := p.Up(ctx); err != nil {
		return fmt.Errorf("cannot bring the schema up to date: %w", err)
	}
	return nil
}

func (s *store) close() error { return s.shut() }

// write runs f in one transaction.
func (s *store) write(ctx context.Context, f func(*sql.Tx) error) error {
	return s.writeOn(ctx, func(tx *sql.Tx, _ *sql.Conn) error { return f(tx) })
}

// writeOn is write with the connection that the transaction has, for what only its
// driver can do.
func (s *store) writeOn(ctx context.Context, f func(*sql.Tx, *sql.Conn) error) (err error) {
	conn, err := s.w.Conn(ctx)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, conn.Close()) }()
	tx, err := conn.BeginTx(ctx, nil)
	if err != nil {
		return err
	}
	if err := f(tx, conn); err != nil {
		return errors.Join(err, tx.Rollback())
	}
	return tx.Commit()
}

// Turns of those who write what they have read: two processes on one database must
// not both go by what the first of them changes.
const (
	turnCommands = "command" // their numbers
	turnTrust    = "trust"   // the lists' numbers
)

// turnRegistry is for the site's roster and all that is published of it.
func turnRegistry(site string) string { return "registry/" + site }

// turnPolicy is for the site's layers, which are checked together.
func turnPolicy(site string) string { return "policy/" + site }

// view has f read one state of the database, whatever is written meanwhile; tables are
// those with partitions that it reads. It is for a short while: writers that clear up
// wait for it.
func (s *store) view(ctx context.Context, f func(querier) error, tables ...string) error {
	tx, err := s.r.BeginTx(ctx, &sql.TxOptions{Isolation: sql.LevelRepeatableRead, ReadOnly: true})
	if err != nil {
		return err
	}
	for _, t := range tables {
		if err := s.bulk.share(ctx, tx, t); err != nil {
			return errors.Join(err, tx.Rollback())
		}
	}
	// Nothing was written: there is nothing to commit.
	return errors.Join(f(tx), tx.Rollback())
}

// querier is a database or a transaction.
type querier interface {
	QueryContext(ctx context.Context, query string, args ...any) (*sql.Rows, error)
	QueryRowContext(ctx context.Context, query string, args ...any) *sql.Row
}

// each calls f for every row.
func each(rows *sql.Rows, err error, f func() error) error {
	if err != nil {
		return err
	}
	defer rows.Close()
	for rows.Next() {
		if err := f(); err != nil {
			return err
		}
	}
	return rows.Err()
}

// gateLog is one epoch of one gate as stored.
type gateLog struct {
	id       int64 // 0 = not stored yet
	gate     *gate
	epoch    edge.Epoch
	public   [32]byte // the device key that signs its heads
	tree     tree
	head     []byte        // the last head's note, as the gate signed it
	receipt  []byte        // the same with the server's cosignature
	blockKey edge.BlockKey // of the incomplete block at the end; zero when it was destroyed
	purges   int64         // grows when something is destroyed
	parent   edge.Epoch
	forked   uint64
}

// piece is the part of one aligned block that came in one batch. When the block
// is complete its pieces are replaced by one.
type piece struct {
	first  uint64
	count  int
	until  int64  // greatest time of its entries, UTC ms
	key    []byte // of the block; empty when it was destroyed, and blinds stand for it
	blinds []byte // 32 bytes each, zero for an entry that was destroyed
	hashes []byte // leaf hashes, 32 bytes each
	data   []byte // the lines, each with its newline, zstd
}

// root is the hash over a complete block's leaves, so that a proof need not read
// them all; nil for an incomplete one.
func (p *piece) root() []byte {
	if p.count != edge.BlockSize {
		return nil
	}
	var t tree
	for i := range p.count {
		t.append(tlog.Hash(p.hashes[i*tlog.HashSize:]))
	}
	r := t.root()
	return r[:]
}

// addition is what one verified batch adds to a log.
type addition struct {
	log    *gateLog
	before uint64 // size that the log must have
	first  uint64
	cols   []columns
	pieces []piece
	next   gateLog // what the log becomes
}

// deltaRow is what an entry changed that the site's other gates must know.
type deltaRow struct {
	log    int64
	seq    uint64
	at     int64
	deltas string // JSON array; empty = none
	change string // JSON of a local change of the registry; empty = none
}

// errMoved says that a log is not as this process remembers it.
var errMoved = errors.New("the log was changed by somebody else")

// add stores additions and the marks of their receipts in one transaction.
func (s *store) add(ctx context.Context, now int64, adds []*addition) error {
	if err := s.bulk.prepare(ctx, s.w, adds); err != nil {
		return fmt.Errorf("cannot make room: %w", err)
	}
	// Logs in the order in which others lock them, new ones, whose id is 0, last. Those of
	// one log stay in their order.
	slices.SortStableFunc(adds, func(a, b *addition) int { return cmp.Compare(uint64(a.log.id-1), uint64(b.log.id-1)) })
	return s.writeOn(ctx, func(tx *sql.Tx, conn *sql.Conn) error {
		var deltas []deltaRow
		var pieces []pieceRow
		for _, a := range adds {
			n := &a.next
			if n.id == 0 {
				n.id = a.log.id // an addition before this one has made the log
			}
			var err error
			if n.id == 0 {
				err = tx.QueryRowContext(ctx, `INSERT INTO log (gate, epoch, public, size, edges, head, receipt, parent, forked, first_at, last_at)
					VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $10) ON CONFLICT DO NOTHING RETURNING id`,
					n.gate.id, n.epoch.String(), n.public[:], int64(n.tree.size), n.tree.bytes(), n.head, n.receipt,
					parentText(n.parent), int64(n.forked), now).Scan(&n.id)
				if errors.Is(err, sql.ErrNoRows) {
					err = errMoved
				}
				a.log.id = n.id
			} else {
				var res sql.Result
				res, err = tx.ExecContext(ctx, `UPDATE log SET size = $1, edges = $2, head = $3, receipt = $4, last_at = $5 WHERE id = $6 AND size = $7 AND purges = $8`,
					int64(n.tree.size), n.tree.bytes(), n.head, n.receipt, now, n.id, int64(a.before), n.purges)
				if err == nil {
					if k, e := res.RowsAffected(); e != nil || k != 1 {
						err = errors.Join(errMoved, e)
					}
				}
			}
			if err != nil {
				return fmt.Errorf("cannot move the mark of %s: %w", n.name(), err)
			}
			if pieces, err = s.addPieces(ctx, tx, n.id, a.pieces, pieces); err != nil {
				return fmt.Errorf("cannot store blocks of %s: %w", n.name(), err)
			}
			for i := range a.cols {
				c := &a.cols[i]
				d := deltaRow{log: n.id, seq: a.first + uint64(i), at: c.time, deltas: string(c.deltas)}
				changes := c.changes
				if string(c.kind) == string(edge.KindRegistry) && c.data != nil {
					changes = [][]byte{c.data}
				}
				for _, data := range changes {
					// What this version does not know is not relayed. Of several, the last is;
					// the next snapshot has all.
					if x, ok := changed(data, now); ok {
						if err := noteChange(ctx, tx, n, d.seq, x); err != nil {
							return fmt.Errorf("cannot note a local change of %s: %w", n.name(), err)
						}
						text, err := wire.Encode(x)
						if err != nil {
							return err
						}
						d.change = string(text)
					}
				}
				if d.deltas != "" || d.change != "" {
					deltas = append(deltas, d)
				}
			}
		}
		if err := s.bulk.pieces(ctx, tx, pieces); err != nil {
			return fmt.Errorf("cannot store blocks: %w", err)
		}
		if err := s.bulk.entries(ctx, tx, conn, adds); err != nil {
			return fmt.Errorf("cannot store entries: %w", err)
		}
		if err := s.bulk.deltas(ctx, tx, conn, deltas); err != nil {
			return fmt.Errorf("cannot store deltas: %w", err)
		}
		return nil
	})
}

func parentText(e edge.Epoch) string {
	if e == 0 {
		return ""
	}
	return e.String()
}

func (l *gateLog) name() string { return l.gate.site + "/" + l.gate.name + "/" + l.epoch.String() }

// pieceRow is a piece of a log that waits to be stored with others.
type pieceRow struct {
	log int64
	piece
}

// addPieces adds pieces to those that wait; one that completes its block takes in
// those before it, for which the waiting ones are stored first.
func (s *store) addPieces(ctx context.Context, tx *sql.Tx, log int64, pieces []piece, waiting []pieceRow) ([]pieceRow, error) {
	for _, p := range pieces {
		start := p.first &^ (edge.BlockSize - 1)
		if p.first != start && p.first+uint64(p.count) == start+edge.BlockSize {
			if err := s.bulk.pieces(ctx, tx, waiting); err != nil {
				return nil, err
			}
			waiting = nil
			var err error
			if p, err = s.complete(ctx, tx, log, p); err != nil {
				return nil, err
			}
		}
		waiting = append(waiting, pieceRow{log, p})
	}
	return waiting, nil
}

// blind makes a piece one that does without its block's key.
func (p *piece) blind() {
	if len(p.key) == 0 {
		return
	}
	k := edge.BlockKey(p.key)
	p.blinds = make([]byte, 0, p.count*len(edge.Blind{}))
	for i := range p.count {
		b := k.Blind(p.first + uint64(i))
		p.blinds = append(p.blinds, b[:]...)
	}
	p.key = []byte{}
}

// blindOf is the blind of the piece's entry i; false when it was destroyed.
func (p *piece) blindOf(i int) (edge.Blind, bool) {
	if len(p.key) == len(edge.BlockKey{}) {
		k := edge.BlockKey(p.key)
		return k.Blind(p.first + uint64(i)), true
	}
	const n = len(edge.Blind{})
	if len(p.blinds) < (i+1)*n {
		return edge.Blind{}, false
	}
	b := edge.Blind(p.blinds[i*n:])
	return b, b != edge.Blind{}
}

// lines unpacks the piece's lines; an entry that was destroyed has an empty one.
func (p *piece) lines() ([][]byte, error) {
	if len(p.data) == 0 {
		return make([][]byte, p.count), nil
	}
	text, err := unpack(nil, p.data)
	if err != nil {
		return nil, err
	}
	all := split(text)
	if len(all) != p.count {
		return nil, fmt.Errorf("block at %d has %d entries and holds %d", p.first, p.count, len(all))
	}
	return all, nil
}

// join packs lines, each with its newline; nothing when all are empty.
func join(lines [][]byte) []byte {
	var text []byte
	some := false
	for _, l := range lines {
		text = append(append(text, l...), '\n')
		some = some || len(l) > 0
	}
	if !some {
		return []byte{}
	}
	return pack(text)
}

// pieces reads the pieces of a log from first to end.
func (s *store) pieces(ctx context.Context, q querier, log int64, first, end uint64, f func(p *piece) error) error {
	rows, err := q.QueryContext(ctx, `SELECT first, count, until, key, blinds, data FROM block WHERE log = $1 AND first >= $2 AND first < $3 ORDER BY first`,
		log, int64(first), int64(end))
	return each(rows, err, func() error {
		var p piece
		var at int64
		if err := rows.Scan(&at, &p.count, &p.until, &p.key, &p.blinds, &p.data); err != nil {
			return err
		}
		p.first = uint64(at)
		if p.key == nil {
			p.key = []byte{} // the driver gives nil for an empty value
		}
		return f(&p)
	})
}

// complete joins the last piece of a block with those before it and removes them.
func (s *store) complete(ctx context.Context, tx *sql.Tx, log int64, last piece) (piece, error) {
	start := last.first &^ (edge.BlockSize - 1)
	hashes, err := s.hashes(ctx, tx, log, start, last.first)
	if err != nil {
		return piece{}, err
	}
	var all []*piece
	if err := s.pieces(ctx, tx, log, start, last.first, func(p *piece) error { all = append(all, p); return nil }); err != nil {
		return piece{}, err
	}
	all = append(all, &last)
	whole := piece{first: start, count: edge.BlockSize, key: last.key}
	for _, h := range hashes {
		whole.hashes = append(whole.hashes, h[:]...)
	}
	whole.hashes = append(whole.hashes, last.hashes...)
	for _, p := range all {
		if len(p.key) == 0 {
			whole.key = []byte{}
		}
	}
	var lines [][]byte
	next := start
	for _, p := range all {
		// What lies between was destroyed with its row.
		for ; next < p.first; next++ {
			lines = append(lines, nil)
			whole.blinds = append(whole.blinds, make([]byte, len(edge.Blind{}))...)
			whole.key = []byte{}
		}
		more, err := p.lines()
		if err != nil {
			return piece{}, err
		}
		lines = append(lines, more...)
		whole.until = max(whole.until, p.until)
		next += uint64(p.count)
	}
	if len(whole.key) == 0 {
		whole.blinds = whole.blinds[:0]
		for at, i := start, 0; at < start+edge.BlockSize; at++ {
			for i < len(all)-1 && at >= all[i].first+uint64(all[i].count) {
				i++
			}
			var b edge.Blind
			if p := all[i]; at >= p.first && at < p.first+uint64(p.count) {
				b, _ = p.blindOf(int(at - p.first))
			}
			whole.blinds = append(whole.blinds, b[:]...)
		}
	}
	if len(lines) != edge.BlockSize || len(whole.hashes) != edge.BlockSize*tlog.HashSize {
		return piece{}, fmt.Errorf("block at %d has %d entries and %d bytes of hashes, want %d entries", start, len(lines), len(whole.hashes), edge.BlockSize)
	}
	whole.data = join(lines)
	for _, q := range []string{`DELETE FROM block WHERE log = $1 AND first >= $2 AND first < $3`, `DELETE FROM leaf WHERE log = $1 AND first >= $2 AND first < $3`} {
		if _, err := tx.ExecContext(ctx, q, log, int64(start), int64(last.first)); err != nil {
			return piece{}, err
		}
	}
	return whole, nil
}

// hashes reads the leaf hashes of entries from to to (exclusive).
func (s *store) hashes(ctx context.Context, q querier, log int64, from, to uint64) ([]tlog.Hash, error) {
	out := make([]tlog.Hash, 0, to-from)
	rows, err := q.QueryContext(ctx, `SELECT first, hashes FROM leaf WHERE log = $1 AND first >= $2 AND first < $3 ORDER BY first`,
		log, int64(from&^(edge.BlockSize-1)), int64(to))
	err = each(rows, err, func() error {
		var first int64
		var b []byte
		if err := rows.Scan(&first, &b); err != nil {
			return err
		}
		for i := 0; i < len(b)/tlog.HashSize; i++ {
			if seq := uint64(first) + uint64(i); seq >= from && seq < to {
				if seq != from+uint64(len(out)) {
					return fmt.Errorf("leaf hash %d is missing", from+uint64(len(out)))
				}
				out = append(out, tlog.Hash(b[i*tlog.HashSize:]))
			}
		}
		return nil
	})
	if err == nil && uint64(len(out)) != to-from {
		err = fmt.Errorf("leaf hash %d is missing", from+uint64(len(out)))
	}
	return out, err
}

// log reads one epoch of a gate; nil when there is none.
func (s *store) log(ctx context.Context, g *gate, e edge.Epoch) (*gateLog, error) {
	l := &gateLog{gate: g, epoch: e}
	var size, forked int64
	var public, edges []byte
	var parent string
	err := s.w.QueryRowContext(ctx, `SELECT id, public, size, edges, head, receipt, parent, forked, purges FROM log WHERE gate = $1 AND epoch = $2`, g.id, e.String()).
		Scan(&l.id, &public, &size, &edges, &l.head, &l.receipt, &parent, &forked, &l.purges)
	if errors.Is(err, sql.ErrNoRows) {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	if len(public) != 32 {
		return nil, fmt.Errorf("log %s: stored key has %d bytes", l.name(), len(public))
	}
	l.public, l.forked = [32]byte(public), uint64(forked)
	if parent != "" {
		if l.parent, err = edge.ParseEpoch(parent); err != nil {
			return nil, err
		}
	}
	if l.tree, err = treeOf(uint64(size), edges); err != nil {
		return nil, fmt.Errorf("log %s: %w", l.name(), err)
	}
	if rest := uint64(size) % edge.BlockSize; rest != 0 {
		var key []byte
		err := s.w.QueryRowContext(ctx, `SELECT key FROM block WHERE log = $1 AND first >= $2 ORDER BY first DESC LIMIT 1`, l.id, size-int64(rest)).Scan(&key)
		if err != nil && !errors.Is(err, sql.ErrNoRows) {
			return nil, fmt.Errorf("log %s: cannot read the last block's key: %w", l.name(), err)
		}
		copy(l.blockKey[:], key) // zero: destroyed
	}
	return l, nil
}

// How patiently a medium is scrubbed while others read or write.
const (
	scrubTries = 300
	scrubPause = 100 * time.Millisecond
)

// patiently tries until f has done it. An attempt waits for nobody.
func patiently(ctx context.Context, f func() (done bool, err error)) (bool, error) {
	for range scrubTries {
		if done, err := f(); done || err != nil {
			return done, err
		}
		select {
		case <-ctx.Done():
			return false, ctx.Err()
		case <-time.After(scrubPause):
		}
	}
	return false, nil
}
