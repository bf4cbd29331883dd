package journal

import (
	"context"
	"database/sql"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strconv"

	"gatehouse/edge"
	"gatehouse/edge/durable"
	"gatehouse/edge/sqlite"
)

// Salvage begins again when the journal's file is damaged. The file is set aside
// under the name Aside, as it is; a new one begins with an epoch that follows the
// damaged one. Counters and what peers changed are taken over where they can be
// read, so that quotas go on to hold; positions are unknown. The gate can work at
// once; Recover then carries the entries over that the server has not receipted.
type Salvage struct {
	Aside  string // the damaged file's new name
	Epoch  edge.Epoch
	Acked  uint64 // as far as the server had it; 0 also when that cannot be read
	Cells  int
	Reason string
	Begun  bool // the new journal is in use

	recovered Recovered // by all that Recover did for it in this run
}

// SetAside moves a damaged journal away and opens a new one in its place. The caller
// has noted s on the medium before, and notes it again afterwards; what a power cut
// has interrupted in between, SetAside goes on with.
func SetAside(ctx context.Context, path string, s *Salvage, o Options) (*Journal, error) {
	if err := moveAside(path, s.Aside); err != nil {
		return nil, fmt.Errorf("cannot set the damaged journal aside: %w", err)
	}
	old, err := sqlite.ReadDamaged(s.Aside)
	if err != nil {
		return nil, fmt.Errorf("cannot set the damaged journal aside: %w", err)
	}
	defer old.Close()
	s.read(ctx, old)
	o.follows = &lineage{Parent: s.Epoch, Forked: s.Acked, Size: s.Acked, Why: "the journal's file was damaged: " + s.Reason}
	j, err := Open(ctx, path, o)
	if err != nil {
		return nil, err
	}
	if s.Cells, err = j.takeCells(ctx, old); err != nil {
		return nil, errors.Join(fmt.Errorf("cannot take over the counters: %w", err), j.Close())
	}
	s.Begun = true
	return j, nil
}

// moveAside moves the file last: as long as it is in its place nothing else is there,
// and once it is away, what is there is a new journal that nobody has used yet.
func moveAside(path, aside string) error {
	_, err := os.Lstat(aside)
	moved := err == nil
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	for _, end := range []string{"-wal", "-shm", ""} {
		_, err := os.Lstat(aside + end)
		if moved || err == nil { // a command that looked meanwhile has left its own
			err = os.Remove(path + end)
		} else {
			err = os.Rename(path+end, aside+end)
		}
		if err != nil && !errors.Is(err, fs.ErrNotExist) {
			return err
		}
	}
	return durable.SyncFolder(filepath.Dir(path))
}

// Aside tells what can be known of a journal that was set aside.
func Aside(ctx context.Context, path string) (*Salvage, error) {
	old, err := sqlite.ReadDamaged(path)
	if err != nil {
		return nil, fmt.Errorf("cannot read the damaged journal: %w", err)
	}
	s := &Salvage{Aside: path, Begun: true}
	s.read(ctx, old)
	return s, old.Close()
}

// read fills in what can be read. What cannot is not known: that is no reason to stop.
func (s *Salvage) read(ctx context.Context, old *sql.DB) {
	var epoch, acked string
	if old.QueryRowContext(ctx, "SELECT CAST(v AS TEXT) FROM meta WHERE k='epoch'").Scan(&epoch) == nil {
		s.Epoch, _ = edge.ParseEpoch(epoch)
	}
	if old.QueryRowContext(ctx, "SELECT CAST(v AS TEXT) FROM meta WHERE k='acked'").Scan(&acked) == nil {
		s.Acked, _ = strconv.ParseUint(acked, 10, 64)
	}
}

// takeCells copies the counters, with the marks of what peers changed: all that can
// be read of both, or of neither.
func (j *Journal) takeCells(ctx context.Context, old *sql.DB) (n int, err error) {
	type peer struct {
		gate, epoch string
		seq         int64
	}
	var peers []peer
	cells := map[edge.Cell]*oldCell{}
	rows, err := old.QueryContext(ctx, "SELECT gate, epoch, seq FROM peer")
	if err != nil {
		return 0, nil
	}
	for rows.Next() {
		var p peer
		if rows.Scan(&p.gate, &p.epoch, &p.seq) == nil {
			peers = append(peers, p)
		}
	}
	if errors.Join(rows.Err(), rows.Close()) != nil {
		return 0, nil
	}
	// One that an older version has left lacks nothing, and has no seq.
	var seqs int
	seq := "-1"
	if old.QueryRowContext(ctx, "SELECT count(*) FROM pragma_table_info('cell') WHERE name='seq'").Scan(&seqs) == nil && seqs > 0 {
		seq = "seq"
	}
	if rows, err = old.QueryContext(ctx, "SELECT subject, name, bucket, local, peers, at, peers_at, version, "+seq+" FROM cell"); err != nil {
		return 0, nil
	}
	for rows.Next() {
		var c edge.Cell
		var x oldCell
		if rows.Scan(&c.Subject, &c.Name, &c.Bucket, &x.local, &x.peers, &x.at, &x.peersAt, &x.version, &x.seq) == nil {
			cells[c] = &x
		}
	}
	if errors.Join(rows.Err(), rows.Close()) != nil && len(cells) == 0 {
		return 0, nil
	}
	if seqs > 0 {
		replayOld(ctx, old, cells)
	}
	if err := j.storeCells(ctx); err != nil {
		return 0, err
	}
	j.write.Lock()
	defer j.write.Unlock()
	return len(cells), j.tx(ctx, func(ctx context.Context) error {
		for _, p := range peers {
			if _, err := j.conn.ExecContext(ctx, "INSERT OR REPLACE INTO peer(gate, epoch, seq) VALUES(?, ?, ?)", p.gate, p.epoch, p.seq); err != nil {
				return err
			}
		}
		for c, x := range cells {
			// The reset of the new epoch stays as it is.
			if _, err := j.conn.ExecContext(ctx, "INSERT OR IGNORE INTO cell(subject, name, bucket, local, peers, at, peers_at, version) VALUES(?, ?, ?, ?, ?, ?, ?, ?)",
				c.Subject, c.Name, c.Bucket, x.local, x.peers, x.at, x.peersAt, x.version); err != nil {
				return err
			}
		}
		return nil
	})
}

// oldCell is a row of a damaged journal's cells.
type oldCell struct{ local, peers, at, peersAt, version, seq int64 }

// replayOld adds to a damaged journal's cells what entries have changed that the
// table lacks, as far as they can be read: see Journal.replay.
func replayOld(ctx context.Context, old *sql.DB, cells map[edge.Cell]*oldCell) {
	var from, base int64
	if old.QueryRowContext(ctx, "SELECT v, coalesce((SELECT v FROM meta WHERE k='base'), 0) FROM meta WHERE k='cells'").Scan(&from, &base) != nil {
		return
	}
	for {
		var seq uint64
		var kept []byte
		if old.QueryRowContext(ctx, "SELECT seq, line FROM entry WHERE seq >= ? ORDER BY seq LIMIT 1", from).Scan(&seq, &kept) != nil {
			return
		}
		from = int64(seq) + 1
		line, err := unpack(kept)
		if err != nil {
			continue
		}
		e, err := edge.DecodeEntry(line)
		if err != nil {
			continue
		}
		for _, d := range e.Deltas {
			x := cells[d.Cell]
			if x == nil {
				x = &oldCell{seq: -1}
				cells[d.Cell] = x
			}
			switch {
			case int64(seq)+base <= x.seq:
				continue
			case d.Op == edge.OpSet:
				x.local = d.Value
			default:
				x.local += d.Value
			}
			x.at = e.Stamp.Time
			x.version++
		}
	}
}

// Recovered says what became of the damaged journal's entries.
type Recovered struct {
	Carried uint64
	Lost    uint64 // sequences within the damaged file that could not be read
}

// farthest is how far beyond the last readable entry others are looked for.
const farthest = 1 << 20

// Recover carries what can be read of the damaged journal's unreceipted entries
// into this one, verbatim, or sealed as they are, in small transactions beside the
// gate's work. Each moves a mark, at which one that was interrupted, or has failed,
// begins again; what it returns is what all of them together have come to.
func (j *Journal) Recover(ctx context.Context, s *Salvage) (Recovered, error) {
	r := &s.recovered
	old, err := sqlite.ReadDamaged(s.Aside)
	if err != nil {
		return *r, fmt.Errorf("cannot read the damaged journal: %w", err)
	}
	defer old.Close()
	x := rescue{j: j, old: old, r: r, name: "salvaged:" + filepath.Base(s.Aside), erase: unerased(ctx, old)}
	// What was being carried into it from the epoch before.
	var former string
	var next uint64
	if old.QueryRowContext(ctx, "SELECT epoch, next FROM former WHERE next IS NOT NULL ORDER BY n DESC LIMIT 1").Scan(&former, &next) == nil {
		if e, err := edge.ParseEpoch(former); err == nil {
			if err := x.entries(ctx, suffixOf(e), next); err != nil {
				return *r, err
			}
		}
	}
	err = x.entries(ctx, "", s.Acked)
	return *r, err
}

// rescue is one Recover under way.
type rescue struct {
	j     *Journal
	old   *sql.DB
	r     *Recovered
	name  string // of the marks
	erase map[edge.PassID]string
	batch [][]byte
	// Since the mark was moved: who begins there again meets them again.
	lost, found uint64 // entries that cannot be read; those that were counted as such and are in sealed runs
}

// unerased are the passes whose erasure was not done with when the file was damaged,
// as far as they can be read, and who asked.
func unerased(ctx context.Context, old *sql.DB) map[edge.PassID]string {
	out := map[edge.PassID]string{}
	rows, err := old.QueryContext(ctx, "SELECT pass, by FROM erasure WHERE tried=0 OR waiting>0")
	if err != nil {
		return out
	}
	defer rows.Close()
	for rows.Next() {
		var pass edge.PassID
		var by string
		if rows.Scan(&pass, &by) == nil {
			out[pass] = by
		}
	}
	_ = rows.Err() // what cannot be read is not known
	return out
}

// from is where an earlier run has come to.
func (x *rescue) from(ctx context.Context, mark string, least uint64) (uint64, error) {
	var at uint64
	err := x.j.db.R.QueryRowContext(ctx, "SELECT v FROM meta WHERE k=?", mark).Scan(&at)
	if err != nil && !errors.Is(err, sql.ErrNoRows) {
		return 0, fmt.Errorf("cannot read how far the damaged journal is carried over: %w", err)
	}
	return max(at, least), nil
}

// add takes an entry that carries data; next is where to go on after it.
func (x *rescue) add(ctx context.Context, data []byte, mark string, next uint64) error {
	e := &edge.Entry{Kind: edge.KindCarried, Of: -1, Actor: "system", Stamp: x.j.o.Clock.Now(), Data: data}
	text, err := e.AppendJSON(nil)
	if err != nil {
		x.lost++
		return nil
	}
	if x.batch = append(x.batch, pack(text)); len(x.batch) < carryAtOnce {
		return nil
	}
	return x.flush(ctx, mark, next)
}

func (x *rescue) flush(ctx context.Context, mark string, next uint64) error {
	if len(x.batch) == 0 && x.lost == 0 {
		return nil
	}
	if err := x.j.appendRescued(ctx, x.batch, mark, next, x.erase); err != nil {
		return err
	}
	x.r.Carried += uint64(len(x.batch))
	x.r.Lost += x.lost
	x.r.Lost -= min(x.r.Lost, x.found)
	x.batch, x.lost, x.found = nil, 0, 0
	return nil
}

// entries carries those of an epoch from a sequence on.
func (x *rescue) entries(ctx context.Context, suffix string, first uint64) error {
	mark := x.name + suffix
	seq, err := x.from(ctx, mark, first)
	if err != nil {
		return err
	}
	for jump, gap := uint64(1), uint64(0); jump < farthest; {
		if err := ctx.Err(); err != nil {
			return err
		}
		var line []byte
		var at uint64
		err := x.old.QueryRowContext(ctx, "SELECT seq, line FROM entry"+suffix+" WHERE seq >= ? ORDER BY seq LIMIT 1", int64(seq)).Scan(&at, &line)
		if errors.Is(err, sql.ErrNoRows) {
			break
		}
		if ctx.Err() != nil {
			return ctx.Err()
		}
		var data []byte
		if err == nil {
			data = carriedLine(at, line)
		}
		if data == nil {
			// A page that cannot be read: farther and farther beyond it.
			seq, gap = seq+jump, gap+jump
			jump *= 2
			continue
		}
		x.lost += gap + at - seq
		seq, jump, gap = at+1, 1, 0
		if err := x.add(ctx, data, mark, seq); err != nil {
			return err
		}
	}
	if err := x.flush(ctx, mark, seq); err != nil {
		return err
	}
	return x.sealed(ctx, suffix, first)
}

// sealed carries the runs that were sealed before the server had them. The first
// that cannot be read ends it.
func (x *rescue) sealed(ctx context.Context, suffix string, first uint64) error {
	mark := x.name + suffix + ":sealed"
	at, err := x.from(ctx, mark, first)
	if err != nil {
		return err
	}
	for {
		var run, count uint64
		var data []byte
		err := x.old.QueryRowContext(ctx, "SELECT first, count, data FROM sealed"+suffix+" WHERE first+count > ? ORDER BY first LIMIT 1", int64(at)).Scan(&run, &count, &data)
		if ctx.Err() != nil {
			return ctx.Err()
		}
		if err != nil { // there are no more, or none can be read
			return x.flush(ctx, mark, at)
		}
		text, err := json.Marshal(carriedSealed{Seq: run, Count: count, Sealed: data})
		if err != nil {
			return err
		}
		at = run + count
		x.found += count // they were missed among the entries
		if err := x.add(ctx, text, mark, at); err != nil {
			return err
		}
	}
}

// appendRescued commits lines that are packed already, with the mark of how far it has
// come. Who was to be erased is to be erased here too, in what is carried over.
func (j *Journal) appendRescued(ctx context.Context, lines [][]byte, mark string, at uint64, erase map[edge.PassID]string) error {
	j.write.Lock()
	defer j.write.Unlock()
	r := &request{lines: lines}
	err := j.commit(ctx, []*request{r}, func(ctx context.Context, size uint64) error {
		for pass, by := range erase {
			if _, err := j.conn.ExecContext(ctx, "INSERT OR IGNORE INTO erasure(pass, by, upto) VALUES(?, ?, 1)", int64(pass), by); err != nil {
				return err
			}
		}
		if len(lines) > 0 {
			if _, err := j.conn.ExecContext(ctx, "UPDATE erasure SET tried=0, upto=max(upto, ?)", int64(size)); err != nil {
				return err
			}
		}
		_, err := j.stmts.meta.ExecContext(ctx, mark, int64(at))
		return err
	})
	return errors.Join(err, r.err)
}
