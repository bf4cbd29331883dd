package journal

import (
	"bytes"
	"context"
	"database/sql"
	"encoding/json"
	"errors"
	"fmt"
	"os"

	"golang.org/x/mod/sumdb/tlog"

	"gatehouse/edge"
	"gatehouse/edge/sqlite"
)

// Reader looks at a journal without writing to it, beside the daemon or on a
// card in another machine.
type Reader struct {
	db    *sqlite.DB
	name  string
	epoch edge.Epoch
}

// Inspect opens a journal for reading.
func Inspect(ctx context.Context, path string) (*Reader, error) {
	if _, err := os.Stat(path); err != nil {
		return nil, fmt.Errorf("cannot open the journal: %w", err)
	}
	db, err := sqlite.Open(ctx, path, sqlite.Options{Full: true, Migrations: schema})
	if err != nil {
		return nil, fmt.Errorf("cannot open the journal: %w", err)
	}
	r := &Reader{db: db}
	var epoch string
	err = db.R.QueryRowContext(ctx, "SELECT (SELECT v FROM meta WHERE k='name'), (SELECT v FROM meta WHERE k='epoch')").Scan(&r.name, &epoch)
	if err == nil {
		r.epoch, err = edge.ParseEpoch(epoch)
	}
	if err != nil {
		return nil, errors.Join(fmt.Errorf("cannot read the journal %s: damaged: %w", path, err), db.Close())
	}
	return r, nil
}

// Close closes the file.
func (r *Reader) Close() error { return r.db.Close() }

// Origin is the log's name, with the present epoch.
func (r *Reader) Origin() string { return r.name + "/" + r.epoch.String() }

// Epoch is the present epoch.
func (r *Reader) Epoch() edge.Epoch { return r.epoch }

// Read, Get and BlockKeys are as the Journal's.
func (r *Reader) Read(ctx context.Context, from uint64, maxEntries, maxBytes int) ([]edge.Stored, error) {
	return r.journal().Read(ctx, from, maxEntries, maxBytes)
}

// journal lends the reading methods of Journal, which use db.R alone.
func (r *Reader) journal() *Journal { return &Journal{db: r.db} }

// Size is how many entries the epoch has now.
func (r *Reader) Size(ctx context.Context) (uint64, error) {
	var last sql.NullInt64
	if err := r.db.R.QueryRowContext(ctx, "SELECT max(seq) FROM entry").Scan(&last); err != nil {
		return 0, fmt.Errorf("cannot read the journal: %w", err)
	}
	if !last.Valid {
		return 0, nil
	}
	return uint64(last.Int64) + 1, nil
}

// Finding is one thing wrong with a journal.
type Finding struct {
	Seq  int64 // the entry, -1 = not of one entry
	Text string
}

// Report is what Verify found.
type Report struct {
	Origin   string
	Size     uint64 // entries
	Purged   uint64 // of them, the oldest, whose content is destroyed
	Sealed   uint64 // whose leaves were on disk
	Root     tlog.Hash
	Findings []Finding
	leaves   tree
	first    *edge.Entry // the epoch's
}

// tree holds stored hashes in memory.
type tree []tlog.Hash

func (t tree) ReadHashes(indexes []int64) ([]tlog.Hash, error) {
	out := make([]tlog.Hash, len(indexes))
	for i, x := range indexes {
		if x < 0 || x >= int64(len(t)) {
			return nil, fmt.Errorf("no hash %d", x)
		}
		out[i] = t[x]
	}
	return out, nil
}

// maxFindings bounds a report: a journal that is damaged all over needs no list.
const maxFindings = 100

// Verify reads everything again: each entry's shape, its leaf against the stored
// one, every inner node of the tree, the counters against what the entries imply,
// and the database's own structure. progress may be nil.
func (r *Reader) Verify(ctx context.Context, progress func(done, all uint64)) (*Report, error) {
	rep := &Report{Origin: r.Origin()}
	bad := func(seq int64, format string, args ...any) {
		if len(rep.Findings) < maxFindings {
			rep.Findings = append(rep.Findings, Finding{seq, fmt.Sprintf(format, args...)})
		}
	}
	var ok string
	if err := r.db.R.QueryRowContext(ctx, "PRAGMA integrity_check(1)").Scan(&ok); err != nil {
		bad(-1, "the database cannot be read: %v", err)
	} else if ok != "ok" {
		bad(-1, "the database is damaged: %s", ok)
	}
	var err error
	if rep.Size, err = r.Size(ctx); err != nil {
		return rep, err
	}
	stored, err := r.hashes(ctx)
	if err != nil {
		return rep, err
	}
	byFirst, err := r.journal().keysByFirst(ctx, 0, rep.Size)
	if err != nil {
		return rep, err
	}
	cells := map[edge.Cell]int64{}
	next := uint64(0)
	add := func(n uint64, h tlog.Hash) error {
		hs, err := tlog.StoredHashesForRecordHash(int64(n), h, rep.leaves)
		if err != nil {
			return err
		}
		for _, x := range hs {
			i := int64(len(rep.leaves))
			if have, sealed := stored[i]; sealed && have != x {
				if i == tlog.StoredHashIndex(0, int64(n)) {
					bad(int64(n), "its content or its leaf hash was changed")
				} else {
					bad(int64(n), "a node of the tree above it was changed")
				}
			}
			rep.leaves = append(rep.leaves, x)
		}
		return nil
	}
	leafOnly := func(n uint64) error {
		h, sealed := stored[tlog.StoredHashIndex(0, int64(n))]
		if !sealed {
			bad(int64(n), "it is missing")
		}
		return add(n, h)
	}
	for next < rep.Size {
		if err := ctx.Err(); err != nil {
			return rep, err
		}
		got, err := r.Read(ctx, next, 2000, 8<<20)
		if err != nil {
			return rep, err
		}
		if len(got) == 0 {
			break
		}
		for _, s := range got {
			for ; next < s.Seq; next++ {
				if _, sealed := stored[tlog.StoredHashIndex(0, int64(next))]; sealed && rep.Purged == next {
					rep.Purged++
				} else {
					bad(int64(next), "it is missing")
				}
				if err := leafOnly(next); err != nil {
					return rep, err
				}
			}
			e, err := edge.DecodeEntry(s.Line)
			if err != nil {
				bad(int64(s.Seq), "%v", err)
			} else {
				for _, d := range e.Deltas {
					if d.Op == edge.OpSet {
						cells[d.Cell] = d.Value
					} else {
						cells[d.Cell] += d.Value
					}
				}
				if s.Seq == 0 {
					rep.first = e
				}
			}
			blind, err := blindOf(s, byFirst)
			if err != nil {
				bad(int64(s.Seq), "%v", err)
				if err := leafOnly(next); err != nil {
					return rep, err
				}
			} else {
				leaf := edge.LeafData(blind, s.Line)
				if err := add(next, tlog.RecordHash(leaf[:])); err != nil {
					return rep, err
				}
			}
			next++
		}
		if progress != nil {
			progress(next, rep.Size)
		}
	}
	for rep.Sealed < rep.Size {
		if _, ok := stored[tlog.StoredHashIndex(0, int64(rep.Sealed))]; !ok {
			break
		}
		rep.Sealed++
	}
	if rep.Root, err = tlog.TreeHash(int64(rep.Size), rep.leaves); err != nil {
		return rep, err
	}
	if rep.Purged == 0 && (rep.first == nil || len(rep.first.Data) == 0 || !carries(rep.first)) {
		if err := r.checkCells(ctx, cells, bad); err != nil {
			return rep, err
		}
	}
	return rep, nil
}

// carries reports whether an epoch began with the state of a parent, so that its
// cells do not follow from its entries alone.
func carries(first *edge.Entry) bool {
	var l lineage
	return json.Unmarshal(first.Data, &l) == nil && l.Parent != 0
}

func (r *Reader) checkCells(ctx context.Context, want map[edge.Cell]int64, bad func(int64, string, ...any)) error {
	rows, err := r.db.R.QueryContext(ctx, "SELECT subject, name, bucket, local FROM cell")
	if err != nil {
		return fmt.Errorf("cannot read the counters: %w", err)
	}
	defer rows.Close()
	for rows.Next() {
		var c edge.Cell
		var v int64
		if err := rows.Scan(&c.Subject, &c.Name, &c.Bucket, &v); err != nil {
			return fmt.Errorf("cannot read the counters: %w", err)
		}
		if want[c] != v {
			bad(-1, "%s of %s is %d, the entries imply %d", c.Name, c.Subject, v, want[c])
		}
		delete(want, c)
	}
	for c, v := range want {
		if v != 0 {
			bad(-1, "%s of %s is lost, the entries imply %d", c.Name, c.Subject, v)
		}
	}
	return rows.Err()
}

func (r *Reader) hashes(ctx context.Context) (map[int64]tlog.Hash, error) {
	rows, err := r.db.R.QueryContext(ctx, "SELECT i, h FROM hash")
	if err != nil {
		return nil, fmt.Errorf("cannot read the tree: %w", err)
	}
	defer rows.Close()
	out := map[int64]tlog.Hash{}
	for rows.Next() {
		var i int64
		var h []byte
		if err := rows.Scan(&i, &h); err != nil {
			return nil, fmt.Errorf("cannot read the tree: %w", err)
		}
		if len(h) == tlog.HashSize {
			out[i] = tlog.Hash(h)
		}
	}
	return out, rows.Err()
}

// Since says what became of an earlier head: that today's log extends it, or how
// it does not.
func (rep *Report) Since(h edge.Head) (string, bool) {
	switch {
	case h.Origin != rep.Origin:
		var l lineage
		if rep.first != nil && json.Unmarshal(rep.first.Data, &l) == nil && h.Origin == rep.Origin[:len(rep.Origin)-16]+l.Parent.String() {
			lost := uint64(0)
			if h.Size > l.Forked {
				lost = h.Size - l.Forked
			}
			return fmt.Sprintf("the head is of the parent epoch %s: this epoch goes on after its first %d entries and carries %d more; of the head's %d entries %d are not in the parent as the server has it (communityd verify tells the rest)",
				l.Parent, l.Forked, l.Size-l.Forked, h.Size, lost), lost == 0
		}
		return fmt.Sprintf("the head is of another log: %s", h.Origin), false
	case h.Size > rep.Size:
		return fmt.Sprintf("the journal has %d entries, the head had %d: %d are lost", rep.Size, h.Size, h.Size-rep.Size), false
	}
	root, err := tlog.TreeHash(int64(h.Size), rep.leaves)
	if err != nil {
		return err.Error(), false
	}
	if root != tlog.Hash(h.Root) {
		return fmt.Sprintf("the first %d entries are not those of the head: something was changed", h.Size), false
	}
	return fmt.Sprintf("the head over %d entries is extended by today's %d: nothing was changed or removed", h.Size, rep.Size), true
}

// Prove makes the proof that an entry is in the log, under the head that the
// server receipted last, or under none that is signed when there is none.
func (r *Reader) Prove(ctx context.Context, rep *Report, seq uint64) (*edge.Proof, error) {
	var receipt sql.NullString
	if err := r.db.R.QueryRowContext(ctx, "SELECT v FROM meta WHERE k='receipt'").Scan(&receipt); err != nil && !errors.Is(err, sql.ErrNoRows) {
		return nil, fmt.Errorf("cannot read the last receipt: %w", err)
	}
	if receipt.String == "" {
		return nil, errors.New("the server has not receipted anything of this epoch yet: there is no signed head to prove it under")
	}
	// The receipt is kept as it came: the signed head.
	note := []byte(receipt.String)
	h, err := headOf(note)
	if err != nil {
		return nil, err
	}
	if seq >= h.Size {
		return nil, fmt.Errorf("entry %d is not among the %d that the server has receipted: %w", seq, h.Size, edge.ErrUnknown)
	}
	s, err := r.journal().Get(ctx, seq)
	if err != nil {
		return nil, err
	}
	byFirst, err := r.journal().keysByFirst(ctx, seq, 1)
	if err != nil {
		return nil, err
	}
	blind, err := blindOf(s, byFirst)
	if err != nil {
		return nil, err
	}
	path, err := tlog.ProveRecord(int64(h.Size), int64(seq), rep.leaves)
	if err != nil {
		return nil, fmt.Errorf("cannot prove entry %d: %w", seq, err)
	}
	return &edge.Proof{Seq: seq, Blind: blind, Line: s.Line, Hashes: path, Head: note}, nil
}

// headOf reads the body of a signed note whose signatures are checked by whoever
// checks the proof.
func headOf(note []byte) (edge.Head, error) {
	body, _, _ := bytes.Cut(note, []byte("\n\n"))
	return edge.ParseHead(string(body) + "\n")
}
