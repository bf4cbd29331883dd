package community

import (
	"bytes"
	"context"
	"database/sql"
	"fmt"
	"maps"
	"slices"
	"strconv"
	"strings"

	"golang.org/x/mod/sumdb/tlog"

	"gatehouse/edge"
	"gatehouse/sync/wire"
)

// Finding is something wrong with what is stored.
type Finding struct {
	Site, Gate string
	Epoch      edge.Epoch
	Seq        uint64 // where
	Text       string
}

const (
	verifyChunk = 16 * edge.BlockSize // entries that are looked at in one transaction
	mostFound   = 1000                // of one epoch, that are told one by one
)

// Verify reads everything again: the bytes of each entry against its leaf hash,
// the leaf hashes against the head, the head against the device's signature, the
// row against the bytes. It returns what is wrong, empty when nothing is.
func (s *Server) Verify(ctx context.Context, site, gate string) ([]Finding, error) {
	counts, err := s.Counts(ctx, site, gate)
	if err != nil {
		return nil, err
	}
	var out []Finding
	for _, c := range counts {
		g, err := s.store.gateOf(ctx, s.store.r, c.Site, c.Gate)
		if err != nil {
			return nil, err
		}
		l, err := s.store.log(ctx, g, c.Epoch)
		if err != nil {
			return nil, err
		}
		found := 0
		bad := func(seq uint64, format string, args ...any) {
			if found++; found <= mostFound {
				out = append(out, Finding{c.Site, c.Gate, c.Epoch, seq, fmt.Sprintf(format, args...)})
			}
		}
		if c.Missing > 0 || c.Duplicated > 0 {
			bad(0, "%d entries are missing and %d are there twice", c.Missing, c.Duplicated)
		}
		v := verifier{Server: s, l: l, u: unwrapper{open: s.cfg.Open}, bad: bad}
		if err := v.run(ctx); err != nil {
			return nil, fmt.Errorf("cannot verify %s: %w", l.name(), err)
		}
		if found > mostFound {
			out = append(out, Finding{c.Site, c.Gate, c.Epoch, l.tree.size, fmt.Sprintf("%d findings more in this epoch", found-mostFound)})
		}
	}
	return out, nil
}

// verifier reads one log again, as far as it went at the beginning.
type verifier struct {
	*Server
	l    *gateLog
	u    unwrapper
	bad  func(seq uint64, format string, args ...any)
	tree tree
}

func (v *verifier) run(ctx context.Context) error {
	for v.tree.size < v.l.tree.size {
		from := v.tree.size
		// What is destroyed meanwhile goes from blocks, rows and records at once.
		err := v.store.view(ctx, func(q querier) error { return v.chunk(ctx, q, from, min(from+verifyChunk, v.l.tree.size)) }, "entry", "block")
		if err != nil {
			return err
		}
		if v.tree.size == from {
			return nil // the leaf hashes are not there; it was said
		}
	}
	if err := v.beyond(ctx); err != nil {
		return err
	}
	l := v.l
	key, err := edge.HeadVerifier(l.keyName(), l.public[:])
	if err != nil {
		return err
	}
	h, _, err := edge.OpenHead(l.head, key)
	switch {
	case err != nil:
		v.bad(l.tree.size, "%v", err)
	case h.Size != v.tree.size || h.Root != v.tree.root():
		v.bad(l.tree.size, "the leaf hashes are not those of the signed head of size %d", h.Size)
	case h.Origin != edge.Origin(v.cfg.Community, l.gate.site, l.gate.name, l.epoch):
		v.bad(l.tree.size, "the head is of %s", h.Origin)
	}
	return nil
}

// chunk compares the entries from from to to (exclusive).
func (v *verifier) chunk(ctx context.Context, q querier, from, to uint64) error {
	destroyed, err := deletions(ctx, q, v.l.id, from, to)
	if err != nil {
		return err
	}
	leaves, err := v.store.hashes(ctx, q, v.l.id, from, to)
	if err != nil {
		if ctx.Err() == nil {
			v.bad(from, "%v", err)
		}
		return ctx.Err()
	}
	rows, err := v.rows(ctx, q, from, to)
	if err != nil {
		return err
	}
	next := from // of content
	gone := func(to uint64) {
		for ; next < to; next++ {
			if !destroyed(next) {
				v.bad(next, "content is not there, and no record says that it was destroyed")
				next = to
			}
		}
	}
	err = v.store.pieces(ctx, q, v.l.id, from, to, func(p *piece) error {
		gone(p.first)
		next = p.first + uint64(p.count)
		lines, err := p.lines()
		if err != nil {
			v.bad(p.first, "%v", err)
			return nil
		}
		for i, line := range lines {
			seq := p.first + uint64(i)
			blind, ok := p.blindOf(i)
			switch {
			case seq >= to: // came since
			case len(line) == 0:
				if !destroyed(seq) {
					v.bad(seq, "content is not there, and no record says that it was destroyed")
				}
			case !ok:
				v.bad(seq, "the blind is not there")
			default:
				data := edge.LeafData(blind, line)
				if tlog.RecordHash(data[:]) != leaves[seq-from] {
					v.bad(seq, "content was changed")
				}
				rows.compare(v, seq, line)
			}
		}
		return nil
	})
	if err != nil {
		return err
	}
	gone(to)
	if err := rows.finish(ctx, v, q, to); err != nil {
		return err
	}
	for _, h := range leaves {
		v.tree.append(h)
	}
	return nil
}

// checked are the columns of a row that are made of the line, but for the log, the
// sequence and the time.
var checked = strings.Split(entryColumns, ", ")[3:]

// of is where the sequence that an entry refers to is among them.
var of = slices.Index(checked, "of")

// texts are the values of the checked columns as texts; what is NULL is empty.
func (c *columns) texts() [][]byte {
	num := func(n, none int64) []byte {
		if n == none {
			return nil
		}
		return strconv.AppendInt(nil, n, 10)
	}
	return [][]byte{c.kind, c.lane, num(c.presentation, 0), num(max(c.of, -1), -1), c.actor, num(c.pass, 0), num(c.household, 0),
		c.category, c.outcome, c.rule, c.reason, c.result}
}

// row is one row of entry.
type row struct {
	seq  uint64
	at   int64
	cols [][]byte // as texts of columns gives them
}

// rowsOf are the rows of one chunk, in their order. What was compared is taken off.
type rowsOf struct {
	rows        []row
	first, last int64       // when the log's first and last batch came, UTC ms
	lost        uint64      // entries whose rows are not there, up to next
	next        uint64      // entry after these
	former      [][2]uint64 // entries that were carried over, and what only their rows say that they refer to
}

// rows reads the rows of a chunk.
func (v *verifier) rows(ctx context.Context, q querier, from, to uint64) (*rowsOf, error) {
	out := &rowsOf{rows: make([]row, 0, to-from)}
	if err := q.QueryRowContext(ctx, `SELECT first_at, last_at FROM log WHERE id = $1`, v.l.id).Scan(&out.first, &out.last); err != nil {
		return nil, err
	}
	raw := make([]sql.RawBytes, len(checked)+1)
	var seq int64
	dest := []any{&seq}
	for i := range raw {
		dest = append(dest, &raw[i])
	}
	rows, err := q.QueryContext(ctx, `SELECT seq, at, `+strings.Join(checked, ", ")+` FROM entry WHERE log = $1 AND seq >= $2 AND seq < $3 ORDER BY seq`,
		v.l.id, int64(from), int64(to))
	err = each(rows, err, func() error {
		if err := rows.Scan(dest...); err != nil {
			return err
		}
		r := row{seq: uint64(seq)}
		var err error
		if r.at, err = strconv.ParseInt(string(raw[0]), 10, 64); err != nil {
			// SQLite takes anything for a number.
			v.bad(r.seq, "the row's at is %.100q, which is no time", raw[0])
		}
		for _, b := range raw[1:] {
			r.cols = append(r.cols, bytes.Clone(b))
		}
		out.rows = append(out.rows, r)
		return nil
	})
	return out, err
}

// compare compares the rows of the next entry with its line.
func (o *rowsOf) compare(v *verifier, seq uint64, line []byte) {
	o.upTo(v, seq)
	if len(o.rows) == 0 || o.rows[0].seq != seq {
		if o.lost > 0 && o.next != seq {
			o.tell(v)
		}
		o.lost, o.next = o.lost+1, seq+1
		return
	}
	for ; len(o.rows) > 0 && o.rows[0].seq == seq; o.rows = o.rows[1:] {
		o.same(v, &o.rows[0], line)
	}
}

// upTo tells of rows before an entry that no line has asked for.
func (o *rowsOf) upTo(v *verifier, seq uint64) {
	for ; len(o.rows) > 0 && o.rows[0].seq < seq; o.rows = o.rows[1:] {
		v.bad(o.rows[0].seq, "there is a row, and the content that it would be of is not there")
	}
}

// tell tells of a run of entries whose rows are not there.
func (o *rowsOf) tell(v *verifier) {
	switch {
	case o.lost == 1:
		v.bad(o.next-1, "the row is not there")
	case o.lost > 1:
		v.bad(o.next-o.lost, "the rows from here to entry %d are not there", o.next-1)
	}
	o.lost = 0
}

// same compares a row with what is made of the line when it is received.
func (o *rowsOf) same(v *verifier, r *row, line []byte) {
	var c columns
	if scanColumns(line, &c) != nil {
		c = columns{of: -1}
	}
	own, carried := c.time, string(c.kind) == string(edge.KindCarried)
	v.u.now, v.u.err = r.at, nil
	v.u.unwrap(r.seq, &c)
	// A sealed run has the time of what is in it, unless it could not be opened when it
	// came; an entry that was carried over has its own.
	closed := string(c.kind) == string(edge.KindCarried)
	c.clean()
	for i, want := range c.texts() {
		got := r.cols[i]
		if bytes.Equal(got, want) {
			continue
		}
		if i == of && carried && !closed {
			// What was in an earlier batch was not known when this came; what was destroyed
			// since is not known now.
			if len(got) == 0 {
				continue
			}
			if to, err := strconv.ParseUint(string(got), 10, 63); err == nil && len(want) == 0 && to < r.seq {
				o.former = append(o.former, [2]uint64{r.seq, to})
				continue
			}
		}
		v.bad(r.seq, "the row's %s is %.200q, the entry says %.200q", checked[i], got, want)
	}
	switch {
	case r.at == c.time, closed && (v.u.err != nil || plausible(own, r.at) == r.at):
	case plausible(c.time, r.at) != r.at:
		v.bad(r.seq, "the row's at is %d, the entry says %d", r.at, c.time)
	case r.at < o.first-ahead.Milliseconds() || r.at > o.last+ahead.Milliseconds():
		// The entry's own time was not believed; then it is that of the receipt.
		v.bad(r.seq, "the row's at is %d, which is neither the entry's own time nor one at which this log came", r.at)
	}
}

// finish tells of what is left after the last line of a chunk.
func (o *rowsOf) finish(ctx context.Context, v *verifier, q querier, to uint64) error {
	o.upTo(v, to)
	o.tell(v)
	for _, f := range o.former {
		gone, err := deletions(ctx, q, v.l.id, f[1], f[1]+1)
		if err != nil {
			return err
		}
		if !gone(f[1]) {
			v.bad(f[0], "the row's of is \"%d\", and that entry is not the one that was carried with it", f[1])
		}
	}
	if v.u.at != nil && len(v.u.at) > 4*wire.MaxEntries {
		// An entry refers to one of its own batch, or its row refers to none.
		maps.DeleteFunc(v.u.at, func(_ former, seq uint64) bool { return seq+2*wire.MaxEntries < to })
	}
	return nil
}

// beyond tells of rows that no entry of the log can have.
func (v *verifier) beyond(ctx context.Context) error {
	var n, first sql.NullInt64
	err := v.store.r.QueryRowContext(ctx, `SELECT COUNT(*), MIN(e.seq) FROM entry e JOIN log l ON l.id = e.log WHERE l.id = $1 AND (e.seq < 0 OR e.seq >= l.size)`, v.l.id).Scan(&n, &first)
	if err == nil && n.Int64 > 0 {
		v.bad(v.l.tree.size, "%d rows are of entries that the log does not have, the first of %d", n.Int64, first.Int64)
	}
	return err
}
