package journal

import (
	"bytes"
	"context"
	"database/sql"
	"encoding/json"
	"errors"
	"fmt"
	"strconv"
	"strings"

	"golang.org/x/mod/sumdb/tlog"

	"gatehouse/edge"
	"gatehouse/edge/sqlite"
)

// Reader looks at a journal without writing to it, beside the daemon or on a
// card in another machine. Keep and Erasure, which are for writing, do it beside the
// daemon.
type Reader struct {
	db     *sqlite.DB
	name   string
	epoch  edge.Epoch
	former *former // nil = the present epoch
}

// Inspect opens a journal for reading. One of another version of the program is
// refused: the daemon that has it open perhaps could not go on with a newer schema.
func Inspect(ctx context.Context, path string) (*Reader, error) {
	db, err := sqlite.Look(ctx, path, sqlite.Options{Full: true, Migrations: schema})
	if err != nil {
		return nil, fmt.Errorf("cannot open the journal: %w", err)
	}
	r := &Reader{db: db}
	if err := r.Refresh(ctx); err != nil {
		return nil, errors.Join(fmt.Errorf("%s: %w", path, err), db.Close())
	}
	return r, nil
}

// Refresh reads again which epoch is the present one: another may have begun.
func (r *Reader) Refresh(ctx context.Context) error {
	if r.former != nil {
		return nil
	}
	var epoch string
	err := r.db.R.QueryRowContext(ctx, "SELECT (SELECT v FROM meta WHERE k='name'), (SELECT v FROM meta WHERE k='epoch')").Scan(&r.name, &epoch)
	if err == nil {
		r.epoch, err = edge.ParseEpoch(epoch)
	}
	if err != nil {
		return fmt.Errorf("cannot read the journal: damaged: %w", err)
	}
	return nil
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
func (r *Reader) journal() *Journal { return &Journal{db: r.db, suffix: r.suffix()} }

func (r *Reader) suffix() string {
	if r.former == nil {
		return ""
	}
	return suffixOf(r.epoch)
}

// Former looks at a former epoch that this journal has followed.
func (r *Reader) Former(ctx context.Context, e edge.Epoch) (*Reader, error) {
	all, err := formersOf(ctx, r.db.R)
	if err != nil {
		return nil, err
	}
	for _, f := range all {
		if f.Epoch != e {
			continue
		}
		if f.bare {
			return nil, fmt.Errorf("epoch %s was dropped to make room: %w", e, edge.ErrPurged)
		}
		return &Reader{db: r.db, name: r.name, epoch: e, former: &f}, nil
	}
	return nil, fmt.Errorf("this journal follows no epoch %s: %w", e, edge.ErrUnknown)
}

// Formers are the former epochs, the oldest first.
func (r *Reader) Formers(ctx context.Context) ([]edge.Epoch, error) {
	all, err := formersOf(ctx, r.db.R)
	var out []edge.Epoch
	for _, f := range all {
		out = append(out, f.Epoch)
	}
	return out, err
}

// Erasure asks the daemon to erase a pass, and Erased tells what became of it;
// done is false while it has not been taken up.
func (r *Reader) Erasure(ctx context.Context, pass edge.PassID, by string) error {
	size, err := r.Size(ctx)
	if err != nil {
		return err
	}
	return requestErasure(ctx, r.db.W, pass, by, size)
}

// Erased tells what became of an erasure that was asked for.
func (r *Reader) Erased(ctx context.Context, pass edge.PassID) (e Erased, done bool, err error) {
	err = r.db.R.QueryRowContext(ctx, "SELECT gone, waiting, tried>0 FROM erasure WHERE pass=?", int64(pass)).Scan(&e.Gone, &e.Waiting, &done)
	if err != nil {
		err = fmt.Errorf("cannot read what became of the erasure: %w", err)
	}
	return e, done, err
}

// Size is how many entries the epoch has now.
func (r *Reader) Size(ctx context.Context) (uint64, error) {
	if r.former != nil {
		return r.former.Size, nil
	}
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
	Purged   uint64 // of them, those whose content is destroyed, by record
	Away     uint64 // of them, those that only the community can read
	Carried  uint64 // of them, those whose content is in the epoch that followed
	Sealed   uint64 // whose leaves were on disk
	Root     tlog.Hash
	Findings []Finding
	// Unchecked is why the counters could not be held against the entries; "" = they were.
	Unchecked string
	leaves    tree
	first     *edge.Entry // the epoch's
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
	if r.former == nil {
		var ok string
		if err := r.db.R.QueryRowContext(ctx, "PRAGMA integrity_check(1)").Scan(&ok); err != nil {
			bad(-1, "the database cannot be read: %v", err)
		} else if ok != "ok" {
			bad(-1, "the database is damaged: %s", ok)
		}
	}
	absent, err := r.absent(ctx)
	if err != nil {
		return rep, err
	}
	var table *cellTable
	if r.former == nil {
		// Before the entries are: the table never has more than they.
		if table, err = r.cellTable(ctx); err != nil {
			return rep, err
		}
	}
	// Likewise: no head is over more entries than there are.
	heads, acked, err := r.heads(ctx)
	if err != nil {
		return rep, err
	}
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
	next := uint64(0)
	add := func(n uint64, h tlog.Hash) error {
		hs, err := tlog.StoredHashesForRecordHash(int64(n), h, rep.leaves)
		if err != nil {
			return err
		}
		for _, x := range hs {
			i := int64(len(rep.leaves))
			if have, sealed := stored[i]; sealed && have != x {
				if i == leafIndex(n) {
					bad(int64(n), "its content or its leaf hash was changed")
				} else {
					bad(int64(n), "a node of the tree above it was changed")
				}
			}
			rep.leaves = append(rep.leaves, x)
		}
		return nil
	}
	leafOnly := func(n uint64) error { return add(n, stored[leafIndex(n)]) }
	explained := func(n uint64) (count *uint64) {
		for len(absent) > 0 && absent[0].end <= n {
			absent = absent[1:]
		}
		if len(absent) > 0 && absent[0].first <= n {
			count = absent[0].count(rep)
		}
		if _, known := stored[leafIndex(n)]; !known {
			return nil
		}
		return count
	}
	// Since entries were read last, what the daemon beside may have destroyed before; for
	// good when that explains nothing: a journal with holes is read through once.
	asked, holes := false, false
	gap := func(n uint64) (err error) {
		count := explained(n)
		if count == nil && !asked {
			asked = true
			if absent, err = r.absent(ctx); err != nil {
				return err
			}
			if stored, err = r.hashes(ctx); err != nil {
				return err
			}
			count = explained(n)
		}
		if count == nil {
			holes = true
			bad(int64(n), "it is missing, and nothing says that it was destroyed")
		} else {
			*count++
		}
		return leafOnly(n)
	}
	for next < rep.Size {
		if err := ctx.Err(); err != nil {
			return rep, err
		}
		got, err := r.Read(ctx, next, 2000, 8<<20)
		if err != nil {
			return rep, err
		}
		asked = holes
		if len(got) == 0 {
			break
		}
		for _, s := range got {
			for ; next < min(s.Seq, rep.Size); next++ {
				if err := gap(next); err != nil {
					return rep, err
				}
			}
			if s.Seq >= rep.Size {
				break // it came meanwhile
			}
			e, err := edge.DecodeEntry(s.Line)
			if err != nil {
				bad(int64(s.Seq), "%v", err)
			} else {
				if table != nil {
					table.imply(int64(s.Seq), e)
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
	for ; next < rep.Size; next++ {
		if err := gap(next); err != nil {
			return rep, err
		}
	}
	if err := r.still(ctx); err != nil {
		return rep, err
	}
	for rep.Sealed < rep.Size {
		if _, ok := stored[leafIndex(rep.Sealed)]; !ok {
			break
		}
		rep.Sealed++
	}
	if rep.Root, err = tlog.TreeHash(int64(rep.Size), rep.leaves); err != nil {
		return rep, err
	}
	if acked > rep.Size {
		bad(-1, "the server has receipted %d entries, and %d are here", acked, rep.Size)
	}
	for _, x := range heads {
		h, err := headOf([]byte(x.text))
		if err != nil {
			bad(-1, "%s cannot be read: %v", x.what, err)
			continue
		}
		if h.Origin != rep.Origin {
			continue // of an epoch that has ended
		}
		if text, ok := rep.extends(h); !ok {
			bad(-1, "%s disagrees: %s", x.what, text)
		}
	}
	switch {
	case r.former != nil:
		rep.Unchecked = "the epoch has ended"
	case rep.Purged+rep.Away > 0:
		rep.Unchecked = "entries that changed them are destroyed or sealed"
	case rep.first != nil && len(rep.first.Data) > 0 && carries(rep.first):
		rep.Unchecked = "the epoch began with those of the one before"
	default:
		table.check(bad)
	}
	return rep, nil
}

// still is an error when the epoch's tables are not any more what they were when they
// began to be read: it has ended, or was dropped.
func (r *Reader) still(ctx context.Context) error {
	if r.former != nil {
		_, err := r.Former(ctx, r.epoch)
		return err
	}
	now := *r
	if err := now.Refresh(ctx); err != nil {
		return err
	}
	if now.epoch != r.epoch {
		return errors.New("a new epoch has begun meanwhile, to which this one's entries go: say it again")
	}
	return nil
}

// keptHead is a head that others have signed, beside the log that it is of.
type keptHead struct{ what, text string }

// heads are what the server has receipted last and what witnesses have cosigned. They
// speak of entries whose leaves no table holds yet, and nobody here can make them anew.
func (r *Reader) heads(ctx context.Context) (out []keptHead, acked uint64, err error) {
	if r.former != nil {
		return nil, 0, nil
	}
	rows, err := r.db.R.QueryContext(ctx, "SELECT k, CAST(v AS TEXT) FROM meta WHERE k IN ('receipt', 'acked') OR k LIKE 'witness:%' ORDER BY k")
	if err != nil {
		return nil, 0, fmt.Errorf("cannot read the kept heads: %w", err)
	}
	defer rows.Close()
	for rows.Next() {
		var k string
		var v sql.NullString
		if err := rows.Scan(&k, &v); err != nil {
			return nil, 0, fmt.Errorf("cannot read the kept heads: %w", err)
		}
		witness, cosigned := strings.CutPrefix(k, "witness:")
		switch {
		case k == "acked":
			if acked, err = strconv.ParseUint(v.String, 10, 63); err != nil {
				return nil, 0, fmt.Errorf("damaged: the mark of the server's receipt: %w", err)
			}
		case v.String == "":
		case witness == Requested:
			out = append(out, keptHead{"the head of the last request to a witness", v.String})
		case cosigned:
			out = append(out, keptHead{"the head that " + witness + " has cosigned", v.String})
		default:
			out = append(out, keptHead{"the head of the server's receipt", v.String})
		}
	}
	return out, acked, rows.Err()
}

// absence is a run of entries whose content is not here, and why.
type absence struct {
	run
	why string // gone, sealed, carried
}

func (a absence) count(rep *Report) *uint64 {
	switch a.why {
	case "sealed":
		return &rep.Away
	case "carried":
		return &rep.Carried
	}
	return &rep.Purged
}

// absent lists the entries whose content may be missing, in order.
func (r *Reader) absent(ctx context.Context) ([]absence, error) {
	q := "SELECT first, end, 'gone' FROM gone" + r.suffix()
	var args []any
	if r.former == nil {
		q += " UNION ALL SELECT first, first+count, 'sealed' FROM sealed"
	} else {
		q += " UNION ALL SELECT ?, ?, 'carried'"
		args = []any{int64(r.former.Forked), int64(r.former.Size)}
	}
	rows, err := r.db.R.QueryContext(ctx, q+" ORDER BY 1, 2", args...)
	if err != nil {
		return nil, fmt.Errorf("cannot read the deletion records: %w", err)
	}
	defer rows.Close()
	var out []absence
	for rows.Next() {
		var a absence
		if err := rows.Scan(&a.first, &a.end, &a.why); err != nil {
			return nil, fmt.Errorf("cannot read the deletion records: %w", err)
		}
		out = append(out, a)
	}
	return out, rows.Err()
}

// carries reports whether an epoch began with the state of a parent, so that its
// cells do not follow from its entries alone.
func carries(first *edge.Entry) bool {
	var l lineage
	return json.Unmarshal(first.Data, &l) == nil && l.Parent != 0
}

// cellTable is the table of cells at one moment, beside what the entries imply.
type cellTable struct {
	upto    int64 // the table has what the entries below it imply, and more in some rows
	rows    map[edge.Cell]localCell
	implied map[edge.Cell]int64
	erased  map[string]bool // subjects whose cells are gone, while entries wait to go
}

func (r *Reader) cellTable(ctx context.Context) (*cellTable, error) {
	t := &cellTable{rows: map[edge.Cell]localCell{}, implied: map[edge.Cell]int64{}, erased: map[string]bool{}}
	rows, err := r.db.R.QueryContext(ctx, `SELECT 0, coalesce((SELECT v FROM meta WHERE k='cells'), 0), '', '', 0, 0 UNION ALL
		SELECT 2, pass, '', '', 0, 0 FROM erasure UNION ALL
		SELECT 1, local, subject, name, bucket, seq-coalesce((SELECT v FROM meta WHERE k='base'), 0) FROM cell`)
	if err != nil {
		return nil, fmt.Errorf("cannot read the counters: %w", err)
	}
	defer rows.Close()
	for rows.Next() {
		var what int
		var c edge.Cell
		var x localCell
		if err := rows.Scan(&what, &x.local, &c.Subject, &c.Name, &c.Bucket, &x.seq); err != nil {
			return nil, fmt.Errorf("cannot read the counters: %w", err)
		}
		switch what {
		case 0:
			t.upto = x.local
		case 1:
			t.rows[c] = x
		case 2:
			t.erased[edge.PassID(x.local).Subject()] = true
		}
	}
	if err := rows.Err(); err != nil {
		return nil, fmt.Errorf("cannot read the counters: %w", err)
	}
	return t, nil
}

// imply takes an entry's deltas, as far as the table had to have them.
func (t *cellTable) imply(seq int64, e *edge.Entry) {
	for _, d := range e.Deltas {
		if x, ok := t.rows[d.Cell]; seq >= t.upto && (!ok || seq > x.seq) {
			continue
		}
		if d.Op == edge.OpSet {
			t.implied[d.Cell] = d.Value
		} else {
			t.implied[d.Cell] += d.Value
		}
	}
}

func (t *cellTable) check(bad func(int64, string, ...any)) {
	for c, x := range t.rows {
		if t.implied[c] != x.local && !t.erased[c.Subject] {
			bad(-1, "%s of %s is %d, the entries imply %d", c.Name, c.Subject, x.local, t.implied[c])
		}
		delete(t.implied, c)
	}
	for c, v := range t.implied {
		if v != 0 && !t.erased[c.Subject] {
			bad(-1, "%s of %s is lost, the entries imply %d", c.Name, c.Subject, v)
		}
	}
}

func (r *Reader) hashes(ctx context.Context) (map[int64]tlog.Hash, error) {
	rows, err := r.db.R.QueryContext(ctx, "SELECT i, h FROM hash"+r.suffix())
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
// it does not. A head of a former epoch is proved against that epoch's tree, which
// stays here; what follows its fork must have been carried over, and what was not
// is counted.
func (r *Reader) Since(ctx context.Context, rep *Report, h edge.Head) (string, bool, error) {
	if h.Origin == rep.Origin {
		text, ok := rep.extends(h)
		return text, ok, nil
	}
	at := len(h.Origin) - len(r.epoch.String()) - 1
	if at < 0 || h.Origin[:at] != r.name {
		return fmt.Sprintf("the head is of another log: %s", h.Origin), false, nil
	}
	epoch, err := edge.ParseEpoch(h.Origin[at+1:])
	if err != nil {
		return fmt.Sprintf("the head is of another log: %s", h.Origin), false, nil
	}
	f, err := r.Former(ctx, epoch)
	if errors.Is(err, edge.ErrUnknown) || errors.Is(err, edge.ErrPurged) {
		return fmt.Sprintf("%v: what became of it says the server: communityd verify --since", err), false, nil
	}
	if err != nil {
		return "", false, err
	}
	was, err := f.Verify(ctx, nil)
	if err != nil {
		return "", false, err
	}
	text, ok := was.extends(h)
	for _, x := range was.Findings {
		text += fmt.Sprintf("; entry %d of epoch %s: %s", x.Seq, epoch, x.Text)
		ok = false
	}
	// Only what the head speaks of counts.
	end := min(h.Size, f.former.Size)
	stand := min(end, f.former.Forked)
	carried, err := r.carriedFrom(ctx, f, end)
	if err != nil {
		return "", false, err
	}
	waiting, err := f.waiting(ctx, end)
	if err != nil {
		return "", false, err
	}
	lost := h.Size - stand - carried - waiting
	text = fmt.Sprintf("epoch %s has ended: %s. Of the head's %d entries %d stand at the server, %d were carried into the epoch that followed, ", epoch, text, h.Size, stand, carried)
	if waiting > 0 {
		text += fmt.Sprintf("%d are still to be carried, ", waiting)
	}
	text += fmt.Sprintf("%d are not here", lost)
	if lost > 0 {
		text += askServer
	}
	return text, ok && lost == 0, nil
}

// A journal that was set back cannot know what was sent before that.
const askServer = "; whether the server has them says: communityd verify --since"

// extends compares a head with the report's own tree.
func (rep *Report) extends(h edge.Head) (string, bool) {
	if h.Size > rep.Size {
		return fmt.Sprintf("the journal has %d entries, the head had %d: %d are not here"+askServer, rep.Size, h.Size, h.Size-rep.Size), false
	}
	root, err := tlog.TreeHash(int64(h.Size), rep.leaves)
	if err != nil {
		return err.Error(), false
	}
	if root != tlog.Hash(h.Root) {
		return fmt.Sprintf("the first %d entries are not those of the head: something was changed", h.Size), false
	}
	if h.Size == rep.Size {
		return fmt.Sprintf("the head over %d entries is that of the log as it is: nothing was changed or removed", h.Size), true
	}
	return fmt.Sprintf("the head over %d entries is extended by the log of %d: nothing was changed or removed", h.Size, rep.Size), true
}

// carriedFrom counts the entries of a former epoch, below end, that the epoch after
// it carries, with a leaf that is the former's wherever its blind is known.
func (r *Reader) carriedFrom(ctx context.Context, f *Reader, end uint64) (uint64, error) {
	all, err := r.Formers(ctx)
	if err != nil {
		return 0, err
	}
	child := &Reader{db: r.db, name: r.name, epoch: r.epoch, former: r.former}
	for i, e := range all {
		if e == f.epoch && i+1 < len(all) {
			if child, err = r.Former(ctx, all[i+1]); err != nil {
				return 0, err
			}
		}
	}
	size, err := child.Size(ctx)
	if err != nil {
		return 0, err
	}
	stored, err := f.hashes(ctx)
	if err != nil {
		return 0, err
	}
	keys, err := f.journal().keysByFirst(ctx, 0, f.former.Size)
	if err != nil {
		return 0, err
	}
	absent, err := child.absent(ctx)
	if err != nil {
		return 0, err
	}
	notes, err := r.notesOf(ctx, f.epoch)
	if err != nil {
		return 0, err
	}
	count := uint64(0)
	within := func(seq, width uint64) {
		if lo, hi := max(seq, f.former.Forked), min(seq+width, end); lo < hi {
			count += hi - lo
		}
	}
	for _, n := range notes {
		gone := func(from, to uint64) { // carried, and destroyed or carried on since, by record
			for _, a := range absent {
				for at := max(a.first, from); at < min(a.end, to); at++ {
					within(n.seq+at-n.first, n.width)
				}
			}
		}
		next := n.first
		for to := min(size, n.first+n.count); next < to; {
			got, err := child.Read(ctx, next, int(min(1000, to-next)), 4<<20)
			if err != nil {
				return 0, err
			}
			for _, s := range got {
				if s.Seq >= to {
					break
				}
				gone(next, s.Seq)
				next = s.Seq + 1
				if seq, width, ok := carriedIn(s, keys, stored); ok {
					within(seq, width)
				}
			}
			if len(got) == 0 || got[len(got)-1].Seq >= to {
				gone(next, to)
				break
			}
		}
	}
	return count, nil
}

// carriedIn tells what an entry carries, if that is what it was.
func carriedIn(s edge.Stored, keys map[uint64]*edge.BlockKey, stored map[int64]tlog.Hash) (seq, width uint64, ok bool) {
	e, err := edge.DecodeEntry(s.Line)
	if err != nil || e.Kind != edge.KindCarried {
		return 0, 0, false
	}
	var c struct {
		carriedSealed
		Entry json.RawMessage `json:"entry"`
	}
	if json.Unmarshal(e.Data, &c) != nil {
		return 0, 0, false
	}
	if c.Count > 0 {
		return c.Seq, c.Count, true
	}
	if blind, err := blindOf(edge.Stored{Seq: c.Seq}, keys); err == nil {
		leaf := edge.LeafData(blind, c.Entry)
		if tlog.RecordHash(leaf[:]) != stored[leafIndex(c.Seq)] {
			return 0, 0, false // it counts as lost
		}
	}
	return c.Seq, 1, true
}

// carryNote says that count entries from first on carry a former epoch's from seq on,
// width of them each.
type carryNote struct{ first, count, seq, width uint64 }

func (r *Reader) notesOf(ctx context.Context, epoch edge.Epoch) ([]carryNote, error) {
	rows, err := r.db.R.QueryContext(ctx, "SELECT first, count, seq, width FROM carried WHERE epoch=? ORDER BY first", epoch.String())
	if err != nil {
		return nil, fmt.Errorf("cannot read what was carried over: %w", err)
	}
	defer rows.Close()
	var out []carryNote
	for rows.Next() {
		var n carryNote
		if err := rows.Scan(&n.first, &n.count, &n.seq, &n.width); err != nil {
			return nil, fmt.Errorf("cannot read what was carried over: %w", err)
		}
		out = append(out, n)
	}
	return out, rows.Err()
}

// waiting counts the entries of a former epoch, below end, that are still to be
// carried over.
func (r *Reader) waiting(ctx context.Context, end uint64) (n uint64, err error) {
	if !r.former.carrying {
		return 0, nil
	}
	x := r.suffix()
	err = r.db.R.QueryRowContext(ctx, "SELECT (SELECT count(*) FROM entry"+x+" WHERE seq>=?1 AND seq<?2)+(SELECT coalesce(sum(min(first+count, ?2)-max(first, ?1)), 0) FROM sealed"+x+" WHERE first<?2 AND first+count>?1)",
		int64(r.former.next), int64(end)).Scan(&n)
	if err != nil {
		err = fmt.Errorf("cannot read what is to be carried over: %w", err)
	}
	return n, err
}

// Consistency proves that the tree over the first old entries is extended by the
// report's (RFC 6962 section 2.1.2). The proof from nothing is empty.
func (rep *Report) Consistency(old uint64) ([]tlog.Hash, error) {
	switch {
	case old > rep.Size:
		return nil, fmt.Errorf("the journal has %d entries, fewer than %d", rep.Size, old)
	case old == 0:
		return nil, nil
	}
	p, err := tlog.ProveTree(int64(rep.Size), int64(old), rep.leaves)
	if err != nil {
		return nil, fmt.Errorf("cannot prove the tree: %w", err)
	}
	return p, nil
}

// Requested is the name under which the head is kept that a witness was asked last to
// cosign. Nobody but the gate has signed it.
const Requested = "request"

// Keep keeps a note from outside, a head that a witness has cosigned, under a name.
func (r *Reader) Keep(ctx context.Context, name string, text []byte) error {
	if _, err := r.db.W.ExecContext(ctx, "INSERT INTO meta(k, v) VALUES(?1, ?2) ON CONFLICT DO UPDATE SET v=?2", "witness:"+name, string(text)); err != nil {
		return fmt.Errorf("cannot keep the head: %w", err)
	}
	return nil
}

// Kept returns what was kept; edge.ErrUnknown when nothing was.
func (r *Reader) Kept(ctx context.Context, name string) ([]byte, error) {
	var text string
	err := r.db.R.QueryRowContext(ctx, "SELECT v FROM meta WHERE k=?", "witness:"+name).Scan(&text)
	if errors.Is(err, sql.ErrNoRows) {
		return nil, fmt.Errorf("no head cosigned by %s is kept: %w", name, edge.ErrUnknown)
	}
	if err != nil {
		return nil, fmt.Errorf("cannot read the kept head: %w", err)
	}
	return []byte(text), nil
}

// Prove makes the proof that an entry is in the log, under the head that the
// server receipted last, or the one that the named witness has cosigned.
func (r *Reader) Prove(ctx context.Context, rep *Report, seq uint64, witness string) (*edge.Proof, error) {
	if witness != "" {
		text, err := r.Kept(ctx, witness)
		if err != nil {
			return nil, err
		}
		return r.proveUnder(ctx, rep, seq, text)
	}
	var receipt sql.NullString
	if err := r.db.R.QueryRowContext(ctx, "SELECT v FROM meta WHERE k='receipt'").Scan(&receipt); err != nil && !errors.Is(err, sql.ErrNoRows) {
		return nil, fmt.Errorf("cannot read the last receipt: %w", err)
	}
	if receipt.String == "" {
		return nil, errors.New("the server has not receipted anything of this epoch yet: there is no signed head to prove it under")
	}
	return r.proveUnder(ctx, rep, seq, []byte(receipt.String))
}

// proveUnder proves an entry under a signed head, which is kept as it came.
func (r *Reader) proveUnder(ctx context.Context, rep *Report, seq uint64, note []byte) (*edge.Proof, error) {
	h, err := headOf(note)
	if err != nil {
		return nil, err
	}
	if h.Origin != rep.Origin {
		return nil, fmt.Errorf("the head is of another epoch: %s", h.Origin)
	}
	if seq >= h.Size {
		return nil, fmt.Errorf("entry %d is not among the %d of the head: %w", seq, h.Size, edge.ErrUnknown)
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
	leaf := edge.LeafData(blind, s.Line)
	if err := tlog.CheckRecord(path, int64(h.Size), tlog.Hash(h.Root), int64(seq), tlog.RecordHash(leaf[:])); err != nil {
		return nil, fmt.Errorf("entry %d is not the one that is under the head over %d entries, or the journal is damaged: journal verify says more: %w", seq, h.Size, err)
	}
	return &edge.Proof{Seq: seq, Blind: blind, Line: s.Line, Hashes: path, Head: note}, nil
}

// headOf reads the body of a signed note whose signatures are checked by whoever
// checks the proof.
func headOf(note []byte) (edge.Head, error) {
	body, _, _ := bytes.Cut(note, []byte("\n\n"))
	return edge.ParseHead(string(body) + "\n")
}
