package journal

import (
	"context"
	"database/sql"
	"fmt"

	"golang.org/x/mod/sumdb/tlog"

	"gatehouse/edge"
)

// sealedSize derives how many leaves the stored hashes cover.
func (j *Journal) sealedSize(ctx context.Context) (uint64, error) {
	var last sql.NullInt64
	if err := j.conn.QueryRowContext(ctx, "SELECT max(i) FROM hash").Scan(&last); err != nil {
		return 0, err
	}
	if !last.Valid {
		return 0, nil
	}
	// StoredHashCount(n) grows with n: search the n whose count is last+1.
	count := last.Int64 + 1
	lo, hi := int64(0), count
	for lo < hi {
		mid := (lo + hi) / 2
		if tlog.StoredHashCount(mid) < count {
			lo = mid + 1
		} else {
			hi = mid
		}
	}
	if tlog.StoredHashCount(lo) != count {
		return 0, fmt.Errorf("damaged: %d stored hashes are no tree", count)
	}
	return uint64(lo), nil
}

// hashes reads stored hashes for tlog: the ones in extra first, then the table.
type hashes struct {
	ctx context.Context
	db  interface {
		QueryRowContext(context.Context, string, ...any) *sql.Row
	}
	extra map[int64]tlog.Hash
}

func (h hashes) ReadHashes(indexes []int64) ([]tlog.Hash, error) {
	out := make([]tlog.Hash, len(indexes))
	for i, idx := range indexes {
		if x, ok := h.extra[idx]; ok {
			out[i] = x
			continue
		}
		var b []byte
		if err := h.db.QueryRowContext(h.ctx, "SELECT h FROM hash WHERE i=?", idx).Scan(&b); err != nil {
			return nil, fmt.Errorf("cannot read the stored hash %d: %w", idx, err)
		}
		if len(b) != len(out[i]) {
			return nil, fmt.Errorf("stored hash %d is damaged", idx)
		}
		out[i] = tlog.Hash(b)
	}
	return out, nil
}

// leafIndex is where the leaf of an entry stands among the stored hashes.
func leafIndex(seq uint64) int64 { return tlog.StoredHashIndex(0, int64(seq)) }

// seal brings the tree up to size leaves. It is done in steps, so that a lane
// never waits long for the writer.
func (j *Journal) seal(ctx context.Context, size uint64) error {
	j.sealing.Lock()
	defer j.sealing.Unlock()
	for j.sealed < size {
		if err := ctx.Err(); err != nil {
			return err
		}
		if err := j.sealSome(ctx, min(size, j.sealed+512)); err != nil {
			return err
		}
	}
	return nil
}

func (j *Journal) sealSome(ctx context.Context, to uint64) error {
	add, err := j.hashOn(ctx, j.sealed, to, nil)
	if err != nil {
		return err
	}
	for j.sealed < to {
		if err := j.store(ctx, add, to); err != nil {
			return err
		}
	}
	j.tail, j.covered = nil, to
	return nil
}

// sealLeast is how many leaves a transaction stores, whoever waits for the writer.
const sealLeast = 32

// store writes the hashes of the entries up to to, or of some of them when a lane
// waits to append: its entry comes first.
func (j *Journal) store(ctx context.Context, add map[int64]tlog.Hash, to uint64) error {
	j.write.Lock()
	defer j.write.Unlock()
	done := j.sealed
	if err := j.tx(ctx, func(ctx context.Context) error {
		st, err := j.conn.PrepareContext(ctx, "INSERT INTO hash(i, h) VALUES(?, ?)")
		if err != nil {
			return err
		}
		defer st.Close()
		for ; done < to && (done < j.sealed+sealLeast || !j.waiting()); done++ {
			for i := leafIndex(done); i < leafIndex(done+1); i++ {
				h := add[i]
				if _, err := st.ExecContext(ctx, i, h[:]); err != nil {
					return err
				}
			}
		}
		return nil
	}); err != nil {
		return err
	}
	j.sealed = done
	return nil
}

// waiting says that somebody waits to append.
func (j *Journal) waiting() bool {
	j.mu.Lock()
	defer j.mu.Unlock()
	return len(j.pending) > 0
}

// hashOn computes the hashes that the entries from up to to add to the tree. known
// are those before them that are not stored; the result has them too.
func (j *Journal) hashOn(ctx context.Context, from, to uint64, known map[int64]tlog.Hash) (map[int64]tlog.Hash, error) {
	byFirst, err := j.keysByFirst(ctx, from, to-from)
	if err != nil {
		return nil, err
	}
	entries, err := j.Read(ctx, from, int(to-from), 1<<30)
	if err != nil {
		return nil, err
	}
	if uint64(len(entries)) != to-from {
		return nil, fmt.Errorf("damaged: %d entries from %d on, want %d", len(entries), from, to-from)
	}
	rd := hashes{ctx: ctx, db: j.db.R, extra: known}
	if rd.extra == nil {
		rd.extra = map[int64]tlog.Hash{}
	}
	for i, s := range entries {
		n := from + uint64(i)
		if s.Seq != n || s.Line == nil {
			return nil, fmt.Errorf("damaged: entry %d is missing", n)
		}
		blind, err := blindOf(s, byFirst)
		if err != nil {
			return nil, err
		}
		leaf := edge.LeafData(blind, s.Line)
		hs, err := tlog.StoredHashesForRecordHash(int64(n), tlog.RecordHash(leaf[:]), rd)
		if err != nil {
			return nil, err
		}
		for k, h := range hs {
			rd.extra[leafIndex(n)+int64(k)] = h
		}
	}
	return rd.extra, nil
}

// sealEvery is how many leaves wait in memory: a transaction for each of them would
// cost the medium as much as the entry itself. They follow from the entries, so a
// crash loses nothing.
const sealEvery = 256

// cover makes a reader of the tree over at least size leaves, the last of which may
// not be stored yet. The caller holds sealing.
func (j *Journal) cover(ctx context.Context, size uint64) (hashes, error) {
	for size > j.sealed+sealEvery {
		if err := j.sealSome(ctx, min(size, j.sealed+512)); err != nil {
			return hashes{}, err
		}
	}
	if from := max(j.covered, j.sealed); from < size {
		tail, err := j.hashOn(ctx, from, size, j.tail)
		if err != nil {
			return hashes{}, err
		}
		j.tail, j.covered = tail, size
	}
	return hashes{ctx: ctx, db: j.db.R, extra: j.tail}, nil
}

// keysByFirst is BlockKeys by the blocks' first sequences.
func (j *Journal) keysByFirst(ctx context.Context, from, count uint64) (map[uint64]*edge.BlockKey, error) {
	keys, err := j.BlockKeys(ctx, from, count)
	if err != nil {
		return nil, err
	}
	out := make(map[uint64]*edge.BlockKey, len(keys))
	for i := range keys {
		out[keys[i].First] = &keys[i].Key
	}
	return out, nil
}

// each calls f for every entry from a sequence on whose content is still there, and
// names those that cannot be read.
func (j *Journal) each(ctx context.Context, from uint64, f func(edge.Stored, *edge.Entry)) (damaged []uint64, err error) {
	for from < j.Size() {
		got, err := j.Read(ctx, from, 1000, 4<<20)
		if err != nil {
			return damaged, err
		}
		if len(got) == 0 {
			return damaged, nil
		}
		for _, s := range got {
			from = s.Seq + 1
			if s.Line == nil {
				continue
			}
			if e, ok := j.decode(s); ok {
				f(s, e)
			} else {
				damaged = append(damaged, s.Seq)
			}
		}
	}
	return damaged, nil
}

// decode gives an entry as it stands on the medium. One that cannot be read is
// logged, and nothing waits for it: it will not read better later.
func (j *Journal) decode(s edge.Stored) (*edge.Entry, bool) {
	e, err := edge.DecodeEntry(s.Line)
	if err != nil {
		j.log.Error("an entry cannot be read and is left out", "seq", s.Seq, "err", err, "hint", "gatehouse journal verify says where the journal is damaged")
	}
	return e, err == nil
}

func blindOf(s edge.Stored, keys map[uint64]*edge.BlockKey) (edge.Blind, error) {
	if s.Blind != nil {
		return *s.Blind, nil
	}
	k := keys[s.Seq/edge.BlockSize*edge.BlockSize]
	if k == nil {
		return edge.Blind{}, fmt.Errorf("damaged: no key for entry %d", s.Seq)
	}
	return k.Blind(s.Seq), nil
}

// Head is the signed tree head over all entries there are now.
func (j *Journal) Head(ctx context.Context) (edge.Head, error) { return j.HeadAt(ctx, j.Size()) }

// HeadAt is the signed tree head over the first size entries.
func (j *Journal) HeadAt(ctx context.Context, size uint64) (edge.Head, error) {
	j.life.RLock()
	defer j.life.RUnlock()
	if size > j.Size() {
		return edge.Head{}, fmt.Errorf("no tree head over %d entries: the journal has %d", size, j.Size())
	}
	j.sealing.Lock()
	defer j.sealing.Unlock()
	rd, err := j.cover(ctx, size)
	if err != nil {
		return edge.Head{}, err
	}
	h := edge.Head{Origin: edge.Origin(j.o.Community, j.o.Site, j.o.Gate, j.Epoch()), Size: size}
	root, err := tlog.TreeHash(int64(size), rd)
	if err != nil {
		return h, fmt.Errorf("cannot compute the tree head: %w", err)
	}
	h.Root = root
	if j.o.Signer != nil {
		if err := edge.SignHead(&h, j.o.Signer); err != nil {
			return h, err
		}
	}
	return h, nil
}

// Proof is an audit path for one entry under the head over size entries, with
// the blind that discloses it and it alone.
func (j *Journal) Proof(ctx context.Context, seq, size uint64) (tlog.RecordProof, edge.Blind, []byte, error) {
	j.life.RLock()
	defer j.life.RUnlock()
	if seq >= size || size > j.Size() {
		return nil, edge.Blind{}, nil, fmt.Errorf("entry %d is not among the first %d: %w", seq, size, edge.ErrUnknown)
	}
	j.sealing.Lock()
	defer j.sealing.Unlock()
	rd, err := j.cover(ctx, size)
	if err != nil {
		return nil, edge.Blind{}, nil, err
	}
	s, err := j.Get(ctx, seq)
	if err != nil {
		return nil, edge.Blind{}, nil, err
	}
	byFirst, err := j.keysByFirst(ctx, seq, 1)
	if err != nil {
		return nil, edge.Blind{}, nil, err
	}
	blind, err := blindOf(s, byFirst)
	if err != nil {
		return nil, edge.Blind{}, nil, err
	}
	p, err := tlog.ProveRecord(int64(size), int64(seq), rd)
	return p, blind, s.Line, err
}
