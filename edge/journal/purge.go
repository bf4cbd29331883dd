package journal

import (
	"bytes"
	"context"
	"database/sql"
	"encoding/json"
	"errors"
	"fmt"
	"math"
	"slices"
	"time"

	"filippo.io/age"

	"gatehouse/edge"
)

// life is the tables of one epoch: the present one's, or a former one's, which
// have its id in their names.
type life struct {
	suffix string // "" = the present epoch
	epoch  edge.Epoch
	acked  uint64 // entries below it may be destroyed; others only sealed, and those of a former one are still to be carried
	whole  bool   // nothing is to be carried any more
}

// run is the entries from first up to, not including, end.
type run struct{ first, end uint64 }

// deletion is the data of a purge entry: the deletion record.
type deletion struct {
	From   uint64      `json:"from"`
	To     uint64      `json:"to"`               // the first after the last that went
	Before int64       `json:"before,omitempty"` // UTC ms: entries about persons older than this went
	Count  int         `json:"count"`            // how many went, of those between From and To
	Sealed int         `json:"sealed,omitempty"` // of Count, those that only the community can open now
	Epoch  string      `json:"epoch,omitempty"`  // a former one
	Seqs   []uint64    `json:"seqs,omitempty"`   // of an erasure, when it was not all between From and To: which
	Why    string      `json:"why"`              // retention, erasure, space, decommission
	Pass   edge.PassID `json:"pass,omitempty"`   // for an erasure
	By     string      `json:"by,omitempty"`
}

// maxSealed bounds the plaintext of a sealed run, so that one fits into an entry
// when it is carried into a new epoch.
const maxSealed = 32 << 10

// Purge destroys the content of what is past its retention: entries about
// persons older than cut, technical ones older by as much as they are kept longer.
// With the lines go the block keys that could confirm a guess; survivors of a
// block keep blinds of their own, and the leaf hashes stay, so that every proof
// still verifies. What the server has not receipted is sealed to the community's
// key first. Each step is recorded in the journal, in the transaction that
// destroys. It returns how many entries went.
func (j *Journal) Purge(ctx context.Context, cut time.Time) (int, error) {
	j.purging.Lock()
	defer j.purging.Unlock()
	j.life.RLock()
	defer j.life.RUnlock()
	if err := j.dropDelivered(ctx); err != nil {
		return 0, err
	}
	lives, err := j.lives(ctx)
	if err != nil {
		return 0, err
	}
	now := j.o.Clock.Now()
	due := due{before: cut.UnixMilli(), technical: cut.Add(-max(0, j.o.Technical-j.o.Retention)).UnixMilli(), now: max(now.Time, cut.UnixMilli()), lost: !now.Clock.Trusted()}
	total := 0
	for _, l := range lives {
		if err := due.find(ctx, j, l); err != nil {
			return total, err
		}
		goes := false
		n, err := j.destroyWhere(ctx, l, deletion{Why: "retention", Before: due.before}, func(seq uint64, e *edge.Entry) (bool, bool) {
			if e != nil { // what cannot be read goes with what came before it
				goes = due.is(seq, e, j.technical[e.Kind])
			}
			return goes, seq < due.end
		})
		total += n
		if err != nil {
			return total, err
		}
	}
	if err := j.retryErasures(ctx); err != nil {
		return total, err
	}
	return total, nil
}

// due says which entries are past their retention. The clock of a gate may have been
// wrong when an entry was made, so its stamp is believed when a trusted clock made
// it; any other entry is older than the believed ones that follow it, and no more is
// known of it. Whatever a clock does, entries go later then, never before their time,
// and one from a wrong future does not keep those that follow it.
type due struct {
	before, technical int64 // entries about persons, and the others, older than this go
	now               int64 // a stamp beyond it is wrong, whoever made it
	lost              bool  // nobody vouches for the time now

	// Of one epoch: entries below these go, since a believed one that follows is old
	// enough.
	persons, rest uint64
	end           uint64 // the first believed one that is too young, or the end
	doubtful      bool   // there is none, and none is to come: stamps alone tell ...
	since         int64  // ... unless they are before this, the last that is believed
}

func (d *due) believed(s edge.Stamp) bool { return s.Clock.Trusted() && s.Time <= d.now }

// find looks through an epoch up to the first believed entry that is too young.
func (d *due) find(ctx context.Context, j *Journal, l life) error {
	d.persons, d.rest, d.end, d.doubtful, d.since = 0, 0, math.MaxInt64, d.lost, 0
	for from := uint64(0); ; {
		entries, err := j.readSome(ctx, l.suffix, from)
		if err != nil || len(entries) == 0 {
			return err
		}
		for _, s := range entries {
			from = s.Seq + 1
			e, err := edge.DecodeEntry(s.Line)
			if err != nil || !d.believed(e.Stamp) {
				continue
			}
			if e.Stamp.Time >= d.before {
				d.end, d.doubtful = s.Seq, false
				return nil
			}
			d.persons, d.since = from, e.Stamp.Time
			if e.Stamp.Time < d.technical {
				d.rest = from
			}
		}
	}
}

// is tells whether an entry below end is past its retention.
func (d *due) is(seq uint64, e *edge.Entry, technical bool) bool {
	low, cut := d.persons, d.before
	if technical {
		low, cut = d.rest, d.technical
	}
	return seq < low || d.doubtful && e.Stamp.Time >= d.since && e.Stamp.Time < cut
}

// readSome reads the next entries of an epoch from a sequence on.
func (j *Journal) readSome(ctx context.Context, suffix string, from uint64) ([]edge.Stored, error) {
	var first sql.NullInt64
	if err := j.db.R.QueryRowContext(ctx, "SELECT min(seq) FROM entry"+suffix+" WHERE seq>=?", int64(from)).Scan(&first); err != nil {
		return nil, fmt.Errorf("cannot read the journal: %w", err)
	}
	if !first.Valid {
		return nil, nil
	}
	return readEntries(ctx, j.db.R, suffix, uint64(first.Int64), uint64(first.Int64)+edge.BlockSize)
}

// Retain destroys what is past its retention now. The time that this rests on is one
// that it certainly is or was: a clock that nobody vouches for destroys nothing.
func (j *Journal) Retain(ctx context.Context) (int, error) {
	if j.o.Retention <= 0 {
		return 0, nil
	}
	now, ok := j.sureTime()
	if !ok {
		return 0, nil
	}
	n, err := j.Purge(ctx, now.Add(-j.o.Retention))
	if err != nil {
		return n, err
	}
	return n, j.dropOldCells(ctx, now)
}

// sureTime is the time by a trusted source, or else the floor below which it is not,
// which goes on with monotonic time.
func (j *Journal) sureTime() (time.Time, bool) {
	if s := j.o.Clock.Now(); s.Clock.Trusted() {
		return time.UnixMilli(s.Time), true
	}
	if c, ok := j.o.Clock.(interface{ Floor() (time.Time, bool) }); ok {
		floor, _ := c.Floor()
		return floor, true
	}
	return time.Time{}, false
}

// lives are all epochs whose tables are here, the oldest first.
func (j *Journal) lives(ctx context.Context) ([]life, error) {
	formers, err := formersOf(ctx, j.db.R)
	if err != nil {
		return nil, err
	}
	var out []life
	for _, f := range formers {
		if !f.bare {
			out = append(out, life{suffix: suffixOf(f.Epoch), epoch: f.Epoch, acked: f.next, whole: !f.carrying})
		}
	}
	return append(out, life{epoch: j.Epoch(), acked: j.Acked()}), nil
}

// destroyWhere destroys the entries that pick names, a block at a time, until it
// says that there are no more. pick gets a nil entry for a line that cannot be read.
func (j *Journal) destroyWhere(ctx context.Context, l life, rec deletion, pick func(seq uint64, e *edge.Entry) (goes, more bool)) (int, error) {
	total, warned := 0, false
	// The leaves stay, so they have to be on the medium before the content goes: what
	// is recorded meanwhile stays, whatever its stamp says.
	sealed := j.Size()
	if err := j.seal(ctx, sealed); err != nil {
		return 0, err
	}
	from := uint64(0)
	for more := true; more; {
		var first sql.NullInt64
		if err := j.db.R.QueryRowContext(ctx, "SELECT min(seq) FROM entry"+l.suffix+" WHERE seq>=?", int64(from)).Scan(&first); err != nil {
			return total, fmt.Errorf("cannot read the journal: %w", err)
		}
		if !first.Valid {
			break
		}
		block := uint64(first.Int64) &^ (edge.BlockSize - 1)
		entries, err := readEntries(ctx, j.db.R, l.suffix, block, block+edge.BlockSize)
		if err != nil {
			return total, err
		}
		var doomed []edge.Stored
		for _, s := range entries {
			if s.Seq < from {
				continue
			}
			e, err := edge.DecodeEntry(s.Line)
			if err != nil {
				e = nil
			}
			var goes bool
			if goes, more = pick(s.Seq, e); l.suffix == "" && s.Seq >= sealed {
				more = false
			}
			if !more {
				break
			}
			if goes && s.Seq >= l.acked && l.suffix != "" {
				continue // it goes from the epoch that carries it
			}
			if goes && s.Seq >= l.acked && j.recipient == nil {
				if !warned && rec.Why == "retention" {
					j.log.Warn("entries past their retention are not receipted, and the community's key to seal them to is not known", "from", s.Seq,
						"hint", "enrol the gate, or set keys.recipient; they are kept until the server has them")
				}
				warned = true
				continue
			}
			if goes {
				doomed = append(doomed, s)
			}
		}
		if len(doomed) > 0 {
			if err := j.destroyBlock(ctx, l, block, doomed, rec); err != nil {
				return total, fmt.Errorf("cannot destroy entries past their retention: %w", err)
			}
			total += len(doomed)
		}
		from = block + edge.BlockSize
	}
	return total, nil
}

// sealedRun is a run with its age file.
type sealedRun struct {
	run
	data []byte
}

// destroyBlock destroys some entries of one aligned block and records it, in one
// transaction.
func (j *Journal) destroyBlock(ctx context.Context, l life, block uint64, doomed []edge.Stored, rec deletion) error {
	isAcked := func(s edge.Stored) bool { return s.Seq < l.acked }
	cut := slices.IndexFunc(doomed, func(s edge.Stored) bool { return !isAcked(s) })
	if cut < 0 {
		cut = len(doomed)
	}
	sealed, err := j.sealRuns(ctx, doomed[cut:])
	if err != nil {
		return err
	}
	rec.From, rec.To, rec.Count, rec.Sealed = doomed[0].Seq, doomed[len(doomed)-1].Seq+1, len(doomed), len(doomed)-cut
	if l.suffix != "" {
		rec.Epoch = l.epoch.String()
	}
	if rec.Why == "erasure" && uint64(rec.Count) < rec.To-rec.From {
		for _, s := range doomed {
			rec.Seqs = append(rec.Seqs, s.Seq)
		}
	}
	data, err := json.Marshal(rec)
	if err != nil {
		return err
	}
	line, err := (&edge.Entry{Kind: edge.KindPurge, Of: -1, Actor: "system", Stamp: j.o.Clock.Now(), Data: data}).AppendJSON(nil)
	if err != nil {
		return err
	}
	j.write.Lock()
	defer j.write.Unlock()
	key, blockAt, hasBlock := j.block, j.blockAt, j.hasBlock
	next := j.size.Load()
	cellsStored := func() {}
	err = j.tx(ctx, func(ctx context.Context) error {
		if l.suffix == "" && rec.To > j.tabled { // they could not be replayed any more
			var err error
			if cellsStored, err = j.storeAllCells(ctx); err != nil {
				return err
			}
		}
		if err := j.keepBlinds(ctx, l, block, doomed); err != nil {
			return err
		}
		for _, r := range runsOf(doomed) {
			if _, err := j.conn.ExecContext(ctx, "DELETE FROM entry"+l.suffix+" WHERE seq>=? AND seq<?", int64(r.first), int64(r.end)); err != nil {
				return err
			}
		}
		for _, r := range runsOf(doomed[:cut]) {
			if err := j.addGone(ctx, l.suffix, r); err != nil {
				return err
			}
		}
		for _, r := range sealed {
			if _, err := j.conn.ExecContext(ctx, "INSERT INTO sealed(first, count, data) VALUES(?, ?, ?)", int64(r.first), int64(r.end-r.first), r.data); err != nil {
				return err
			}
		}
		return j.insert(ctx, next, pack(line))
	})
	if err != nil {
		j.block, j.blockAt, j.hasBlock = key, blockAt, hasBlock
		return err
	}
	cellsStored()
	j.grow(next + 1)
	j.stale.Store(true)
	return nil
}

// keepBlinds gives those of a block that stay their own blinds, and destroys the
// block's key.
func (j *Journal) keepBlinds(ctx context.Context, l life, block uint64, doomed []edge.Stored) error {
	var raw []byte
	if err := j.conn.QueryRowContext(ctx, "SELECT key FROM block"+l.suffix+" WHERE first=?", int64(block)).Scan(&raw); err != nil {
		return fmt.Errorf("the key of block %d: %w", block, err)
	}
	if l.suffix == "" && j.blockAt == block {
		j.hasBlock = false
	}
	if len(raw) != len(edge.BlockKey{}) {
		return nil // destroyed with others before
	}
	k := edge.BlockKey(raw)
	stay, err := readEntries(ctx, j.conn, l.suffix, block, block+edge.BlockSize)
	if err != nil {
		return err
	}
	for _, s := range stay {
		if _, gone := slices.BinarySearchFunc(doomed, s.Seq, func(d edge.Stored, seq uint64) int { return cmpSeq(d.Seq, seq) }); gone || s.Blind != nil {
			continue
		}
		b := k.Blind(s.Seq)
		if _, err := j.conn.ExecContext(ctx, "UPDATE entry"+l.suffix+" SET blind=? WHERE seq=?", b[:], int64(s.Seq)); err != nil {
			return err
		}
	}
	_, err = j.conn.ExecContext(ctx, "UPDATE block"+l.suffix+" SET key=NULL WHERE first=?", int64(block))
	return err
}

func cmpSeq(a, b uint64) int {
	switch {
	case a < b:
		return -1
	case a > b:
		return 1
	}
	return 0
}

// runsOf joins consecutive entries.
func runsOf(entries []edge.Stored) []run {
	var out []run
	for _, s := range entries {
		if n := len(out); n > 0 && out[n-1].end == s.Seq {
			out[n-1].end++
		} else {
			out = append(out, run{s.Seq, s.Seq + 1})
		}
	}
	return out
}

// addGone notes that a run was destroyed, joined with those beside it.
func (j *Journal) addGone(ctx context.Context, suffix string, r run) error {
	var first, end int64
	err := j.conn.QueryRowContext(ctx, "SELECT first, end FROM gone"+suffix+" WHERE first<? ORDER BY first DESC LIMIT 1", int64(r.first)).Scan(&first, &end)
	if err != nil && !errors.Is(err, sql.ErrNoRows) {
		return err
	}
	if err == nil && uint64(end) == r.first {
		r.first = uint64(first)
	}
	err = j.conn.QueryRowContext(ctx, "SELECT end FROM gone"+suffix+" WHERE first=?", int64(r.end)).Scan(&end)
	if err != nil && !errors.Is(err, sql.ErrNoRows) {
		return err
	}
	last := r.end
	if err == nil {
		r.end = uint64(end)
	}
	if _, err := j.conn.ExecContext(ctx, "DELETE FROM gone"+suffix+" WHERE first>=? AND first<=?", int64(r.first), int64(last)); err != nil {
		return err
	}
	_, err = j.conn.ExecContext(ctx, "INSERT INTO gone"+suffix+"(first, end) VALUES(?, ?)", int64(r.first), int64(r.end))
	return err
}

// sealRuns encrypts entries to the community's key, consecutive ones together.
func (j *Journal) sealRuns(ctx context.Context, entries []edge.Stored) ([]sealedRun, error) {
	var out []sealedRun
	for len(entries) > 0 {
		keys, err := j.keysByFirst(ctx, entries[0].Seq, edge.BlockSize)
		if err != nil {
			return nil, err
		}
		n, total := 0, 0
		for ; n < len(entries) && entries[n].Seq == entries[0].Seq+uint64(n); n++ {
			blind, err := blindOf(entries[n], keys)
			if err != nil {
				return nil, err
			}
			entries[n].Blind = &blind
			if total += len(entries[n].Line) + len(blind) + 1; n > 0 && total > maxSealed {
				break
			}
		}
		plain, err := edge.SealedPlain(entries[:n])
		if err != nil {
			return nil, err
		}
		var buf bytes.Buffer
		w, err := age.Encrypt(&buf, j.recipient)
		if err == nil {
			_, err = w.Write(plain)
		}
		if err == nil {
			err = w.Close()
		}
		if err != nil {
			return nil, fmt.Errorf("cannot seal to the community's key: %w", err)
		}
		out = append(out, sealedRun{run{entries[0].Seq, entries[0].Seq + uint64(n)}, buf.Bytes()})
		entries = entries[n:]
	}
	return out, nil
}

// Sealed returns the sealed run that holds an entry; edge.ErrUnknown when none does.
func (j *Journal) Sealed(ctx context.Context, seq uint64) (edge.Sealed, error) {
	s, count, err := sealedAt(ctx, j.db.R, seq)
	if err != nil {
		return s, err
	}
	for i := range count {
		var h []byte
		if err := j.db.R.QueryRowContext(ctx, "SELECT h FROM hash WHERE i=?", leafIndex(s.First+i)).Scan(&h); err != nil || len(h) != 32 {
			return s, fmt.Errorf("damaged: no leaf hash of the sealed entry %d: %w", s.First+i, err)
		}
		s.Leaves = append(s.Leaves, [32]byte(h))
	}
	return s, nil
}

func sealedAt(ctx context.Context, q rowQuerier, seq uint64) (s edge.Sealed, count uint64, err error) {
	err = q.QueryRowContext(ctx, "SELECT first, count, data FROM sealed WHERE first<=? ORDER BY first DESC LIMIT 1", int64(seq)).Scan(&s.First, &count, &s.Data)
	switch {
	case errors.Is(err, sql.ErrNoRows) || err == nil && seq >= s.First+count:
		return s, 0, fmt.Errorf("no sealed run holds entry %d: %w", seq, edge.ErrUnknown)
	case err != nil:
		return s, 0, fmt.Errorf("cannot read sealed entries: %w", err)
	}
	return s, count, nil
}

// dropDelivered destroys sealed runs that the server has receipted.
func (j *Journal) dropDelivered(ctx context.Context) error {
	var n int
	if err := j.db.R.QueryRowContext(ctx, "SELECT count(*) FROM sealed WHERE first+count<=?", int64(j.Acked())).Scan(&n); err != nil || n == 0 {
		return err
	}
	return j.writeTx(ctx, func(ctx context.Context) error {
		for {
			var first, count int64
			err := j.conn.QueryRowContext(ctx, "SELECT first, count FROM sealed WHERE first+count<=? LIMIT 1", int64(j.Acked())).Scan(&first, &count)
			if errors.Is(err, sql.ErrNoRows) {
				return nil
			}
			if err == nil {
				err = j.addGone(ctx, "", run{uint64(first), uint64(first + count)})
			}
			if err == nil {
				_, err = j.conn.ExecContext(ctx, "DELETE FROM sealed WHERE first=?", first)
			}
			if err != nil {
				return err
			}
		}
	})
}

type rowQuerier interface {
	QueryRowContext(context.Context, string, ...any) *sql.Row
}

type querier interface {
	rowQuerier
	QueryContext(context.Context, string, ...any) (*sql.Rows, error)
}

// readEntries reads the entries from first up to end that are still there.
func readEntries(ctx context.Context, q querier, suffix string, first, end uint64) ([]edge.Stored, error) {
	rows, err := q.QueryContext(ctx, "SELECT seq, line, blind FROM entry"+suffix+" WHERE seq>=? AND seq<? ORDER BY seq", int64(first), int64(end))
	if err != nil {
		return nil, fmt.Errorf("cannot read the journal: %w", err)
	}
	defer rows.Close()
	var out []edge.Stored
	var u unpacker
	for rows.Next() {
		s, err := scanStored(rows, &u)
		if err != nil {
			return nil, err
		}
		out = append(out, s)
	}
	if err := rows.Err(); err != nil {
		return nil, fmt.Errorf("cannot read the journal: %w", err)
	}
	return out, nil
}

func scanStored(rows *sql.Rows, u *unpacker) (edge.Stored, error) {
	var seq uint64
	var kept, blind sql.RawBytes
	if err := rows.Scan(&seq, &kept, &blind); err != nil {
		return edge.Stored{}, fmt.Errorf("cannot read the journal: %w", err)
	}
	return u.entry(seq, kept, blind), nil
}
