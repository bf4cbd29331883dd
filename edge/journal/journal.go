// Package journal is the gate's append-only log. An entry is on the medium when
// Append returns; it is never updated; its content is destroyed after its
// retention while its place in the transparency log stays. See DESIGN.md.
package journal

import (
	"context"
	"crypto/rand"
	"database/sql"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"os"
	"path/filepath"
	"runtime"
	"sync"
	"sync/atomic"
	"time"

	"filippo.io/age"
	"golang.org/x/mod/sumdb/tlog"

	"gatehouse/edge"
	"gatehouse/edge/sqlite"
)

// Options say whose journal it is.
type Options struct {
	Community, Site, Gate string
	Clock                 edge.Clock
	Signer                edge.Signer   // signs tree heads; nil = they stay unsigned
	Retention             time.Duration // of entries about persons; 0 = for ever
	Technical             time.Duration // of the others, when longer: see edge.Technical
	Recipient             string        // the community's age key, to which overdue entries are sealed; "" = not known
	Reserve               int64         // bytes of disk held back for when the medium is full; 0 = none
	Alone                 bool          // refuse to open what another process has open: see ErrInUse
	Rand                  io.Reader     // nil = crypto/rand
	Log                   *slog.Logger

	// Erased is called when the entries about somebody were destroyed: they are to go
	// from copies as well. nil = there are none.
	Erased func(context.Context) error

	follows *lineage // of a file that was set aside
}

// schema by numbered steps. Sequence is the rowid; nothing here has an index on
// a random key, which would cost another page per commit.
var schema = []string{`
CREATE TABLE meta(k TEXT PRIMARY KEY, v NOT NULL) WITHOUT ROWID;
CREATE TABLE entry(seq INTEGER PRIMARY KEY, line BLOB, blind BLOB);
CREATE TABLE block(first INTEGER PRIMARY KEY, key BLOB);
CREATE TABLE hash(i INTEGER PRIMARY KEY, h BLOB NOT NULL);
CREATE TABLE cell(subject TEXT NOT NULL, name TEXT NOT NULL, bucket INTEGER NOT NULL,
	local INTEGER NOT NULL DEFAULT 0, peers INTEGER NOT NULL DEFAULT 0,
	at INTEGER NOT NULL DEFAULT 0, peers_at INTEGER NOT NULL DEFAULT 0, version INTEGER NOT NULL,
	PRIMARY KEY(subject, name, bucket)) WITHOUT ROWID;
CREATE TABLE peer(gate TEXT NOT NULL, epoch TEXT NOT NULL, seq INTEGER NOT NULL, PRIMARY KEY(gate, epoch)) WITHOUT ROWID;
`, `
CREATE TABLE gone(first INTEGER PRIMARY KEY, end INTEGER NOT NULL);
CREATE TABLE sealed(first INTEGER PRIMARY KEY, count INTEGER NOT NULL, data BLOB NOT NULL);
CREATE TABLE former(n INTEGER PRIMARY KEY, epoch TEXT NOT NULL, forked INTEGER NOT NULL, size INTEGER NOT NULL,
	bare INTEGER NOT NULL DEFAULT 0);
CREATE TABLE erasure(pass INTEGER PRIMARY KEY, by TEXT NOT NULL, upto INTEGER NOT NULL,
	tried INTEGER NOT NULL DEFAULT 0, gone INTEGER NOT NULL DEFAULT 0, waiting INTEGER NOT NULL DEFAULT 0);
INSERT INTO gone SELECT 0, min(seq) FROM entry HAVING min(seq)>0;
`, `
ALTER TABLE cell ADD COLUMN seq INTEGER NOT NULL DEFAULT -1;
INSERT INTO meta(k, v) SELECT 'cells', max(seq)+1 FROM entry HAVING max(seq)>=0;
`, `
ALTER TABLE former ADD COLUMN next INTEGER;
CREATE TABLE carried(epoch TEXT NOT NULL, first INTEGER NOT NULL, count INTEGER NOT NULL, seq INTEGER NOT NULL, width INTEGER NOT NULL,
	PRIMARY KEY(epoch, first)) WITHOUT ROWID;
INSERT INTO carried SELECT epoch, 1, size-forked, forked, 1 FROM former WHERE size>forked;
`}

// maxLine bounds the lines that this journal takes, so that they fit into an
// entry of edge.MaxLine when they are carried into a new epoch, sealed or not.
const maxLine = 40 << 10

// pageSize was chosen by measurement: see DESIGN.md, "Flash".
const pageSize = 512

// Journal is one gate's log. It is safe for concurrent use.
type Journal struct {
	db     *sqlite.DB
	o      Options
	log    *slog.Logger
	suffix string // of the tables that are read; "" = the present epoch's

	conn  *sql.Conn // the one writer's connection, held for good
	stmts statements
	cell  *sql.Stmt // reads one cell, beside the writer

	// write serialises everybody who writes. Appenders queue up in pending; the one
	// that gets lead commits for all of them, while the others wait for their own.
	write   sync.Mutex
	lead    chan struct{}
	round   round // of the leader alone
	mu      sync.Mutex
	pending []*request
	grown   chan struct{} // closed and replaced when size grows

	life  sync.RWMutex // held for writing while one epoch follows another
	epoch atomic.Uint64
	size  atomic.Uint64
	acked atomic.Uint64

	// What entries have made of cells since the table was brought up to them: see
	// cells.go. Changed by those who hold write, and under cellsMu.
	cells   map[edge.Cell]localCell
	cellsMu sync.RWMutex
	tabled  uint64 // the table has what the entries below it imply
	base    uint64 // entries of all former epochs: cells count their changes on from there

	block    edge.BlockKey // key of the block at blockAt
	blockAt  uint64
	hasBlock bool

	sealing sync.Mutex
	sealed  uint64              // leaves whose hashes are stored
	covered uint64              // leaves whose hashes are stored or in tail
	tail    map[int64]tlog.Hash // never changed without sealing
	purging sync.Mutex
	owing   bool          // the last step of Relieve has given no room back yet; under purging
	forked  chan struct{} // an epoch has begun

	recipient age.Recipient
	technical map[edge.Kind]bool
	lock      *os.File
	emptying  sync.Mutex
	stale     atomic.Bool // the WAL still holds what was destroyed; cleared under emptying
	spent     atomic.Bool // the reserve is open

	commits atomic.Uint64 // transactions that the appends took
	settled atomic.Uint64 // size at the last checkpoint
	wear    atomic.Pointer[wear]
	busy    atomic.Int64 // since when an append waits for its commit, unix ns; 0 = none
	closed  bool
}

type statements struct {
	begin, commit, rollback, insert, block, cell, store, meta *sql.Stmt
}

type request struct {
	lines  [][]byte // packed
	deltas []edge.Delta
	expect []edge.Expected
	at     int64
	start  bool
	seq    uint64
	err    error
	done   chan struct{}
}

// Open opens or makes the journal. A new file starts a new epoch.
func Open(ctx context.Context, path string, o Options) (*Journal, error) {
	if o.Rand == nil {
		o.Rand = rand.Reader
	}
	var recipient age.Recipient
	if o.Recipient != "" {
		r, err := age.ParseX25519Recipient(o.Recipient)
		if err != nil {
			return nil, fmt.Errorf("cannot open the journal: the community's key: %w", err)
		}
		recipient = r
	}
	lock, err := lockFile(path, o.Alone)
	if err != nil {
		return nil, err
	}
	db, err := sqlite.Open(ctx, path, sqlite.Options{PageSize: pageSize, CacheKiB: 512, Full: true, Checkpoint: backstop, Migrations: schema})
	if err != nil {
		return nil, errors.Join(fmt.Errorf("cannot open the journal: %w", err), lock.Close())
	}
	j := &Journal{db: db, o: o, log: o.Log, lock: lock, recipient: recipient, technical: map[edge.Kind]bool{}, cells: map[edge.Cell]localCell{}, lead: make(chan struct{}, 1), grown: make(chan struct{}), forked: make(chan struct{}, 1)}
	if j.log == nil {
		j.log = slog.New(slog.DiscardHandler)
	}
	for _, k := range edge.Technical() {
		j.technical[k] = true
	}
	if err := j.load(ctx); err != nil {
		return nil, errors.Join(fmt.Errorf("cannot open the journal %s: %w", path, err), j.closeAll())
	}
	if err := j.reserve(); err != nil {
		j.log.Warn("there is no room for a reserve", "err", err)
	}
	return j, nil
}

func (j *Journal) load(ctx context.Context) error {
	var err error
	if j.conn, err = j.db.W.Conn(ctx); err != nil {
		return err
	}
	// What is destroyed is overwritten in the file.
	if _, err := j.conn.ExecContext(ctx, "PRAGMA secure_delete=ON"); err != nil {
		return err
	}
	for s, text := range map[**sql.Stmt]string{
		&j.stmts.begin:    "BEGIN IMMEDIATE",
		&j.stmts.commit:   "COMMIT",
		&j.stmts.rollback: "ROLLBACK",
		&j.stmts.insert:   "INSERT INTO entry(seq, line) VALUES(?, ?)",
		&j.stmts.block:    "INSERT INTO block(first, key) VALUES(?, ?)",
		&j.stmts.cell:     "SELECT local, seq, version FROM cell WHERE subject=? AND name=? AND bucket=?",
		&j.stmts.store: `INSERT INTO cell(subject, name, bucket, local, at, version, seq) VALUES(?1, ?2, ?3, ?4, ?5, ?6, ?7)
			ON CONFLICT DO UPDATE SET local=?4, at=?5, version=version+?6, seq=?7`,
		&j.stmts.meta: "INSERT INTO meta(k, v) VALUES(?1, ?2) ON CONFLICT DO UPDATE SET v=?2",
	} {
		if *s, err = j.conn.PrepareContext(ctx, text); err != nil {
			return err
		}
	}
	if j.cell, err = j.db.R.PrepareContext(ctx, "SELECT local, peers, at, peers_at, version FROM cell WHERE subject=? AND name=? AND bucket=?"); err != nil {
		return err
	}
	meta := map[string]string{}
	rows, err := j.conn.QueryContext(ctx, "SELECT k, CAST(v AS TEXT) FROM meta")
	if err != nil {
		return err
	}
	defer rows.Close()
	for rows.Next() {
		var k, v string
		if err := rows.Scan(&k, &v); err != nil {
			return err
		}
		meta[k] = v
	}
	if err := errors.Join(rows.Err(), rows.Close()); err != nil {
		return err
	}
	name := j.o.Community + "/" + j.o.Site + "/" + j.o.Gate
	if have, ok := meta["name"]; ok {
		if have != name {
			return fmt.Errorf("it is the journal of %s, not of %s (a card from another gate? give this gate a state folder of its own)", have, name)
		}
		epoch, err := edge.ParseEpoch(meta["epoch"])
		if err != nil {
			return fmt.Errorf("%w: %w", sqlite.ErrDamaged, err)
		}
		j.epoch.Store(uint64(epoch))
	} else if err := j.firstEpoch(ctx, name); err != nil {
		return err
	}
	var last, acked, tabled, base sql.NullInt64
	if err := j.conn.QueryRowContext(ctx, `SELECT (SELECT max(seq) FROM entry), (SELECT v FROM meta WHERE k='acked'), (SELECT v FROM meta WHERE k='cells'),
		(SELECT v FROM meta WHERE k='base')`).Scan(&last, &acked, &tabled, &base); err != nil {
		return err
	}
	if last.Valid {
		j.size.Store(uint64(last.Int64) + 1)
	}
	j.acked.Store(uint64(acked.Int64))
	j.tabled, j.base = uint64(tabled.Int64), uint64(base.Int64)
	j.stale.Store(true) // what the last run destroyed may still be in the WAL
	if j.sealed, err = j.sealedSize(ctx); err != nil {
		return err
	}
	j.covered = j.sealed
	if at := j.size.Load() / edge.BlockSize * edge.BlockSize; at < j.size.Load() {
		var key []byte
		if err := j.conn.QueryRowContext(ctx, "SELECT key FROM block WHERE first=?", int64(at)).Scan(&key); err != nil {
			return fmt.Errorf("%w: no key for the entries from %d: %w", sqlite.ErrDamaged, at, err)
		}
		if j.blockAt, j.hasBlock = at, len(key) == len(j.block); j.hasBlock {
			j.block = edge.BlockKey(key)
		}
	}
	return j.replay(ctx)
}

func (j *Journal) firstEpoch(ctx context.Context, name string) error {
	epoch, err := j.randomEpoch()
	if err != nil {
		return err
	}
	j.epoch.Store(uint64(epoch))
	data, err := json.Marshal(map[string]any{"epoch": epoch, "parent": nil})
	now := j.o.Clock.Now()
	var deltas []edge.Delta
	if f := j.o.follows; f != nil {
		f.Epoch = epoch
		data, err = json.Marshal(f)
		deltas = append(deltas, edge.Delta{Cell: edge.Cell{Name: edge.CellReset, Subject: edge.SubjectReset}, Op: edge.OpSet, Value: now.Time})
	}
	if err != nil {
		return err
	}
	e := &edge.Entry{Kind: edge.KindEpoch, Of: -1, Actor: "system", Stamp: now, Data: data, Deltas: deltas}
	line, err := e.AppendJSON(nil)
	if err != nil {
		return err
	}
	r := &request{lines: [][]byte{pack(line)}, deltas: deltas, at: now.Time}
	if err := j.commit(ctx, []*request{r}, func(ctx context.Context, _ uint64) error {
		for k, v := range map[string]any{"name": name, "epoch": epoch.String(), "acked": 0} {
			if _, err := j.stmts.meta.ExecContext(ctx, k, v); err != nil {
				return err
			}
		}
		return nil
	}); err != nil {
		return err
	}
	return r.err
}

// Epoch is the present epoch.
func (j *Journal) Epoch() edge.Epoch { return edge.Epoch(j.epoch.Load()) }

// Size is the number of entries in this epoch; sequences run from 0 to Size-1.
func (j *Journal) Size() uint64 { return j.size.Load() }

// Acked is how many of them the server has receipted.
func (j *Journal) Acked() uint64 { return j.acked.Load() }

// Append makes an entry durable and returns its sequence. Its deltas change their
// cells with it. Where an expected cell has changed since
// it was read, nothing is written and the error is edge.ErrStale. Concurrent
// calls share a commit. Once queued, an append is not given up when ctx ends: the
// caller must know what was committed.
func (j *Journal) Append(ctx context.Context, e *edge.Entry, expect []edge.Expected) (uint64, error) {
	if err := ctx.Err(); err != nil {
		return 0, err
	}
	line, err := e.AppendJSON(make([]byte, 0, 1024))
	if err != nil {
		return 0, err
	}
	if len(line) > maxLine {
		return 0, fmt.Errorf("entry of %d bytes is longer than the %d that can be carried and sealed", len(line), maxLine)
	}
	r := &request{lines: [][]byte{pack(line)}, deltas: e.Deltas, expect: expect, at: e.Stamp.Time, start: e.Kind == edge.KindStart, done: make(chan struct{})}
	j.mu.Lock()
	j.pending = append(j.pending, r)
	j.mu.Unlock()
	select {
	case <-r.done:
	case j.lead <- struct{}{}:
		j.commitPending(context.WithoutCancel(ctx), r)
		<-j.lead
	}
	<-r.done
	return r.seq, r.err
}

// round is what a leader knows of the commit before its own.
type round struct {
	want  int           // appends that took part in it, or had come when it ended
	took  time.Duration // the commit
	ended time.Time
}

// commitPending commits for all who are waiting; own may be done already.
func (j *Journal) commitPending(ctx context.Context, own *request) {
	select {
	case <-own.done:
		return
	default:
	}
	// From here on, not from the writer's lock: who holds that may be stuck.
	j.busy.Store(time.Now().UnixNano())
	defer j.busy.Store(0)
	j.write.Lock()
	defer j.write.Unlock()
	batch := j.gather()
	began := time.Now()
	if j.size.Load()-j.tabled > replayAtMost {
		if err := j.storeCellsAtOnce(ctx); err != nil {
			j.log.Warn("cannot store the counters yet", "err", err)
		}
	}
	err := j.commit(ctx, batch, nil)
	if sqlite.IsFull(err) && j.openReserve() {
		for _, b := range batch {
			b.err = nil
		}
		err = j.commit(ctx, batch, nil)
	}
	j.mu.Lock()
	j.round = round{want: len(batch) + len(j.pending), ended: time.Now()}
	j.mu.Unlock()
	j.round.took = j.round.ended.Sub(began)
	for _, b := range batch {
		if err != nil {
			b.err = err
		}
		close(b.done)
	}
}

// gather takes the appends that wait. Where several lanes are hot on each
// other's heels, those that the last commit released are about to come again:
// they are given a quarter of a commit's time to do so, since one commit for all
// is shorter than two. A lane by itself never waits.
func (j *Journal) gather() []*request {
	now := time.Now()
	until := now
	if now.Sub(j.round.ended) < j.round.took {
		until = now.Add(j.round.took / 4)
	}
	for {
		j.mu.Lock()
		if len(j.pending) >= j.round.want || !time.Now().Before(until) {
			batch := j.pending
			j.pending = nil
			j.mu.Unlock()
			return batch
		}
		j.mu.Unlock()
		runtime.Gosched()
	}
}

// commit writes the requests in one transaction, and what belongs to them by also, which
// is given the size that it makes; nil = nothing. The error is that of the transaction;
// a request that is stale has its own and is left out. The caller holds write.
func (j *Journal) commit(ctx context.Context, batch []*request, also func(ctx context.Context, size uint64) error) (err error) {
	if j.closed {
		return errors.New("the journal is closed")
	}
	// A commit that was cut short may have been made, and a rollback that is cut short
	// leaves the transaction to the next one: once begun it is brought to its end.
	ctx = context.WithoutCancel(ctx)
	if _, err := j.stmts.begin.ExecContext(ctx); err != nil {
		return fmt.Errorf("cannot write the journal: %w", err)
	}
	block, blockAt, hasBlock := j.block, j.blockAt, j.hasBlock
	next := j.size.Load()
	defer func() {
		if err != nil {
			j.block, j.blockAt, j.hasBlock = block, blockAt, hasBlock
			j.rollback(ctx)
			err = fmt.Errorf("cannot write the journal: %w", err)
		}
	}()
	wrote := also != nil
	staged := map[edge.Cell]localCell{}
	for _, r := range batch {
		ok, err := j.fresh(ctx, staged, r.expect)
		if err != nil {
			return err
		}
		if !ok {
			r.err = edge.ErrStale
			continue
		}
		r.seq = next
		for _, line := range r.lines {
			if err := j.insert(ctx, next, line); err != nil {
				return err
			}
			next++
		}
		for _, d := range r.deltas {
			if err := j.stage(ctx, staged, d, int64(r.seq), r.at); err != nil {
				return err
			}
		}
		if r.start {
			if _, err := j.stmts.meta.ExecContext(ctx, "start", int64(r.seq)); err != nil {
				return err
			}
		}
		wrote = true
	}
	if !wrote {
		j.rollback(ctx)
		return nil
	}
	if also != nil {
		if err := also(ctx, next); err != nil {
			return err
		}
	}
	if _, err := j.stmts.commit.ExecContext(ctx); err != nil {
		return err
	}
	j.commits.Add(1)
	j.keep(staged)
	j.grow(next)
	return nil
}

func (j *Journal) grow(size uint64) {
	j.mu.Lock()
	defer j.mu.Unlock()
	if size != j.size.Load() {
		j.size.Store(size)
		close(j.grown)
		j.grown = make(chan struct{})
	}
}

// insert writes an entry's row; line is packed.
func (j *Journal) insert(ctx context.Context, seq uint64, line []byte) error {
	if seq%edge.BlockSize == 0 {
		var key edge.BlockKey
		if _, err := io.ReadFull(j.o.Rand, key[:]); err != nil {
			return err
		}
		if _, err := j.stmts.block.ExecContext(ctx, int64(seq), key[:]); err != nil {
			return err
		}
		j.block, j.blockAt, j.hasBlock = key, seq, true
	}
	if j.hasBlock {
		_, err := j.stmts.insert.ExecContext(ctx, int64(seq), line)
		return err
	}
	// The block's key was destroyed with its older entries. Another one would look
	// to the server like another log: each of the rest has a blind of its own.
	var blind edge.Blind
	if _, err := io.ReadFull(j.o.Rand, blind[:]); err != nil {
		return err
	}
	_, err := j.conn.ExecContext(ctx, "INSERT INTO entry(seq, line, blind) VALUES(?, ?, ?)", int64(seq), line, blind[:])
	return err
}

func (j *Journal) fresh(ctx context.Context, staged map[edge.Cell]localCell, expect []edge.Expected) (bool, error) {
	for _, x := range expect {
		if v, err := j.version(ctx, staged, x.Cell); err != nil || v != x.Version {
			return false, err
		}
	}
	return true, nil
}

// Alive returns an error when a commit has been waited for too long.
func (j *Journal) Alive(within time.Duration) error {
	if b := j.busy.Load(); b != 0 && time.Since(time.Unix(0, b)) > within {
		return fmt.Errorf("a commit of the journal is waited for since %s", time.Unix(0, b).Format(time.TimeOnly))
	}
	return nil
}

// ApplyPeer takes what other gates changed, each once: known by gate, epoch and
// sequence. The deltas of one gate come in the order of its journal.
func (j *Journal) ApplyPeer(ctx context.Context, peers []edge.PeerDelta) error {
	return j.writeTx(ctx, func(ctx context.Context) error {
		for _, p := range peers {
			var seq int64
			err := j.conn.QueryRowContext(ctx, "SELECT seq FROM peer WHERE gate=? AND epoch=?", p.Gate, p.Epoch.String()).Scan(&seq)
			if err == nil && int64(p.Seq) <= seq {
				continue
			}
			if err != nil && !errors.Is(err, sql.ErrNoRows) {
				return err
			}
			for _, d := range p.Deltas {
				q := `INSERT INTO cell(subject, name, bucket, peers, peers_at, version) VALUES(?1, ?2, ?3, ?4, ?5, 1)
					ON CONFLICT DO UPDATE SET peers=peers+?4, peers_at=max(peers_at, ?5), version=version+1`
				if d.Op == edge.OpSet {
					q = `INSERT INTO cell(subject, name, bucket, peers, peers_at, version) VALUES(?1, ?2, ?3, ?4, ?5, 1)
						ON CONFLICT DO UPDATE SET peers=?4, peers_at=?5, version=version+1 WHERE ?5>=peers_at`
				}
				if _, err := j.conn.ExecContext(ctx, q, d.Cell.Subject, d.Cell.Name, d.Cell.Bucket, d.Value, p.Time); err != nil {
					return err
				}
			}
			if _, err := j.conn.ExecContext(ctx, "INSERT OR REPLACE INTO peer(gate, epoch, seq) VALUES(?, ?, ?)", p.Gate, p.Epoch.String(), int64(p.Seq)); err != nil {
				return err
			}
		}
		return nil
	})
}

// rollback ends a transaction that failed. SQLite has ended it already after a full
// medium or an I/O error, and then says that there is none: no news to anybody.
func (j *Journal) rollback(ctx context.Context) { _, _ = j.stmts.rollback.ExecContext(ctx) }

// tx runs f in a transaction on the writer's connection. The caller holds write.
func (j *Journal) tx(ctx context.Context, f func(context.Context) error) error {
	if j.closed {
		return errors.New("the journal is closed")
	}
	// A transaction that was begun is ended whatever becomes of the caller.
	ctx = context.WithoutCancel(ctx)
	if _, err := j.stmts.begin.ExecContext(ctx); err != nil {
		return fmt.Errorf("cannot write the journal: %w", err)
	}
	if err := f(ctx); err != nil {
		j.rollback(ctx)
		return fmt.Errorf("cannot write the journal: %w", err)
	}
	if _, err := j.stmts.commit.ExecContext(ctx); err != nil {
		j.rollback(ctx)
		return fmt.Errorf("cannot write the journal: %w", err)
	}
	return nil
}

// writeTx is a transaction for which the lanes wait.
func (j *Journal) writeTx(ctx context.Context, f func(context.Context) error) error {
	j.write.Lock()
	defer j.write.Unlock()
	return j.tx(ctx, f)
}

// Read returns entries from a sequence on: at most maxEntries, and at most
// maxBytes of lines but always one. Entries whose content is destroyed or sealed
// are left out.
func (j *Journal) Read(ctx context.Context, from uint64, maxEntries, maxBytes int) ([]edge.Stored, error) {
	rows, err := j.db.R.QueryContext(ctx, "SELECT seq, line, blind FROM entry"+j.suffix+" WHERE seq>=? ORDER BY seq LIMIT ?", int64(from), maxEntries)
	if err != nil {
		return nil, fmt.Errorf("cannot read the journal: %w", err)
	}
	defer rows.Close()
	var out []edge.Stored
	var u unpacker
	total := 0
	for rows.Next() {
		s, err := scanStored(rows, &u)
		if err != nil {
			return nil, err
		}
		if total += len(s.Line); len(out) > 0 && total > maxBytes {
			break
		}
		out = append(out, s)
	}
	if err := rows.Err(); err != nil {
		return nil, fmt.Errorf("cannot read the journal: %w", err)
	}
	return out, nil
}

// Get returns one entry; edge.ErrUnknown or edge.ErrPurged when it is not there.
func (j *Journal) Get(ctx context.Context, seq uint64) (edge.Stored, error) {
	var kept, blind []byte
	err := j.db.R.QueryRowContext(ctx, "SELECT line, blind FROM entry"+j.suffix+" WHERE seq=?", int64(seq)).Scan(&kept, &blind)
	switch {
	case errors.Is(err, sql.ErrNoRows) && seq < j.Size():
		return edge.Stored{Seq: seq}, fmt.Errorf("entry %d: %w", seq, edge.ErrPurged)
	case errors.Is(err, sql.ErrNoRows):
		return edge.Stored{Seq: seq}, fmt.Errorf("entry %d: %w", seq, edge.ErrUnknown)
	case err != nil:
		return edge.Stored{Seq: seq}, fmt.Errorf("cannot read entry %d: %w", seq, err)
	}
	return new(unpacker).entry(seq, kept, blind), nil
}

// Wait blocks until Size is greater than size or ctx is done.
func (j *Journal) Wait(ctx context.Context, size uint64) error {
	for {
		j.mu.Lock()
		grown := j.grown
		j.mu.Unlock()
		if j.Size() > size {
			return nil
		}
		select {
		case <-grown:
		case <-ctx.Done():
			return ctx.Err()
		}
	}
}

// BlockKeys returns the keys of the blocks that hold the entries from..from+count-1.
// A destroyed key is left out.
func (j *Journal) BlockKeys(ctx context.Context, from, count uint64) ([]edge.KeyOfBlock, error) {
	rows, err := j.db.R.QueryContext(ctx, "SELECT first, key FROM block"+j.suffix+" WHERE first>=? AND first<? ORDER BY first",
		int64(from/edge.BlockSize*edge.BlockSize), int64(from+count))
	if err != nil {
		return nil, fmt.Errorf("cannot read the block keys: %w", err)
	}
	defer rows.Close()
	var out []edge.KeyOfBlock
	for rows.Next() {
		var k edge.KeyOfBlock
		var key []byte
		if err := rows.Scan(&k.First, &key); err != nil {
			return nil, fmt.Errorf("cannot read the block keys: %w", err)
		}
		if len(key) == len(k.Key) {
			k.Key = edge.BlockKey(key)
			out = append(out, k)
		}
	}
	return out, rows.Err()
}

// Acknowledge moves the acknowledged mark to size: the server has receipted the
// entries below it. It never moves back, and never for another epoch.
func (j *Journal) Acknowledge(ctx context.Context, epoch edge.Epoch, size uint64, receipt []byte) error {
	j.life.RLock()
	defer j.life.RUnlock()
	if epoch != j.Epoch() {
		return fmt.Errorf("receipt for epoch %s, the journal is in %s", epoch, j.Epoch())
	}
	if size > j.Size() {
		return fmt.Errorf("receipt for %d entries, the journal has %d", size, j.Size())
	}
	j.write.Lock()
	defer j.write.Unlock()
	if size <= j.acked.Load() {
		return nil
	}
	if err := j.tx(ctx, func(ctx context.Context) error {
		if _, err := j.stmts.meta.ExecContext(ctx, "acked", int64(size)); err != nil {
			return err
		}
		_, err := j.stmts.meta.ExecContext(ctx, "receipt", string(receipt))
		return err
	}); err != nil {
		return err
	}
	j.acked.Store(size)
	return nil
}

// Dangling returns admissions of the last run that nothing was recorded of
// afterwards: what became of them is not known. damaged are entries of that run that
// cannot be read; an admission among them is not found. Call it before the new run's
// start entry is appended.
func (j *Journal) Dangling(ctx context.Context) (found []edge.Stored, damaged []uint64, err error) {
	var start int64
	err = j.db.R.QueryRowContext(ctx, "SELECT v FROM meta WHERE k='start'").Scan(&start)
	if err != nil && !errors.Is(err, sql.ErrNoRows) {
		return nil, nil, fmt.Errorf("cannot read the journal: %w", err)
	}
	open := map[uint64]edge.Stored{}
	damaged, err = j.each(ctx, uint64(start), func(s edge.Stored, e *edge.Entry) {
		switch {
		case e.Outcome == edge.Admit && (e.Kind == edge.KindDecision || e.Kind == edge.KindAction):
			open[s.Seq] = s
		case (e.Kind == edge.KindPassage || e.Kind == edge.KindAbandoned) && e.Of >= 0:
			delete(open, uint64(e.Of))
		}
	})
	if err != nil {
		return nil, damaged, err
	}
	for seq := uint64(start); len(open) > 0 && seq < j.Size(); seq++ {
		if s, ok := open[seq]; ok {
			found = append(found, s)
			delete(open, seq)
		}
	}
	return found, damaged, nil
}

const (
	checkpointEvery = 1000   // entries: 8,000 WAL pages of 512 bytes, or 4 MiB
	backstop        = 40_000 // WAL pages after which a commit has to checkpoint itself
	replayAtMost    = 2000   // entries that the table of cells may lack before a commit has to wait for them
	sealAge         = 10 * time.Minute
	cleanPatience   = 60 // attempts to empty the WAL, of which readers or the writer prevent some by chance
)

// settle does what keeps the hot path short: it stores the cells and the leaves that
// have come together, and checkpoints.
func (j *Journal) settle(ctx context.Context, old bool) error {
	if now := j.Size(); now-min(now, j.settled.Load()) >= checkpointEvery {
		j.settled.Store(now)
		if err := j.storeCells(ctx); err != nil {
			return fmt.Errorf("cannot store the counters: %w", err)
		}
		if err := j.db.Checkpoint(ctx); err != nil {
			return fmt.Errorf("cannot checkpoint: %w", err)
		}
	}
	size := j.Size()
	j.sealing.Lock()
	due := size > j.sealed && (old || size-j.sealed >= sealEvery)
	j.sealing.Unlock()
	if !due {
		return nil
	}
	return j.seal(ctx, size)
}

// mark begins to measure what the medium takes.
func (j *Journal) mark() error {
	w, err := sqlite.ReadWritten(filepath.Dir(j.db.Path()))
	if err == nil {
		j.wear.Store(&wear{w, j.commits.Load()})
	}
	return err
}

// wear is what had been written when measuring began.
type wear struct {
	sqlite.Written
	commits uint64
}

// Flash is how many bytes this process has written for each commit of the journal
// since Run began, with all that it writes beside it; 0 = not known yet.
func (j *Journal) Flash() int64 {
	began := j.wear.Load()
	if began == nil {
		return 0
	}
	w, err := sqlite.ReadWritten(filepath.Dir(j.db.Path()))
	n := j.commits.Load() - began.commits
	if err != nil || n == 0 {
		return 0
	}
	return int64((w.Process - began.Process) / n)
}

// Run seals new entries under the tree and checkpoints, off the hot path, carries
// what a new epoch has to, and purges what is past its retention, until ctx is done.
func (j *Journal) Run(ctx context.Context) error {
	check := time.NewTicker(2 * time.Second)
	defer check.Stop()
	purge := time.NewTicker(time.Hour)
	defer purge.Stop()
	sealed, inTheWay := time.Now(), 0
	if err := j.mark(); err != nil {
		j.log.Info("what the medium takes cannot be measured", "err", err)
	}
	var beside sync.WaitGroup
	beside.Go(func() { j.carryOn(ctx) })
	defer beside.Wait()
	for {
		select {
		case <-ctx.Done():
			// An orderly stop leaves nothing to be derived again.
			rest := context.WithoutCancel(ctx)
			if err := errors.Join(j.seal(rest, j.Size()), j.storeCells(rest)); err != nil {
				j.log.Error("cannot seal the journal", "err", err)
			}
			return ctx.Err()
		case <-check.C:
			if err := j.settle(ctx, time.Since(sealed) > sealAge); err != nil && ctx.Err() == nil {
				j.log.Error("cannot settle the journal", "err", err, "hint", "gatehouse journal verify says where it is damaged")
			}
			if time.Since(sealed) > sealAge {
				sealed = time.Now()
			}
			if err := j.takeErasures(ctx); err != nil && ctx.Err() == nil {
				j.log.Error("cannot erase what was asked for", "err", err)
			}
			done, err := j.clean(ctx)
			if err != nil && ctx.Err() == nil {
				j.log.Warn("cannot empty the WAL of destroyed entries yet", "err", err)
			}
			if inTheWay++; done {
				inTheWay = 0
			} else if err == nil && inTheWay%cleanPatience == 0 {
				j.log.Warn("the WAL still holds destroyed entries, because somebody reads the journal")
			}
		case <-purge.C:
			if _, err := j.Retain(ctx); err != nil && ctx.Err() == nil {
				j.log.Error("cannot purge the journal", "err", err)
			}
		}
	}
}

// Close ends the journal. Nothing may be appended afterwards.
func (j *Journal) Close() error {
	j.write.Lock()
	defer j.write.Unlock()
	if j.closed {
		return nil
	}
	j.closed = true
	return j.closeAll()
}

func (j *Journal) closeAll() error {
	var errs []error
	for _, s := range []*sql.Stmt{j.stmts.begin, j.stmts.commit, j.stmts.rollback, j.stmts.insert, j.stmts.block, j.stmts.cell, j.stmts.store, j.stmts.meta, j.cell} {
		if s != nil {
			errs = append(errs, s.Close())
		}
	}
	if j.conn != nil {
		errs = append(errs, j.conn.Close())
	}
	return errors.Join(append(errs, j.db.Close(), j.lock.Close())...)
}
