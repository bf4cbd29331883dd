package community

import (
	"context"
	"errors"
	"fmt"

	"golang.org/x/mod/sumdb/tlog"

	"gatehouse/edge"
)

// Count says what is stored of one epoch of one gate.
type Count struct {
	Site       string     `json:"site"`
	Gate       string     `json:"gate"`
	Epoch      edge.Epoch `json:"epoch"`
	Parent     edge.Epoch `json:"parent,omitempty"` // 0 = none
	Forked     uint64     `json:"forked,omitempty"` // where it forked from its parent
	Size       uint64     `json:"size"`             // what the receipt says
	Stored     uint64     `json:"stored"`           // different entries
	Missing    uint64     `json:"missing"`          // below size and not stored
	Duplicated uint64     `json:"duplicated"`       // stored more than once
	First      int64      `json:"first"`            // UTC ms of the first batch
	Last       int64      `json:"last"`             // UTC ms of the last batch
}

// Counts counts what is stored of a gate, or of all of a site, or of all when
// both are empty. It counts rows, and believes no mark.
func (s *Server) Counts(ctx context.Context, site, gate string) ([]Count, error) {
	var out []Count
	rows, err := s.store.r.QueryContext(ctx, `SELECT g.site, g.name, l.epoch, l.parent, l.forked, l.size, l.first_at, l.last_at,
		(SELECT COUNT(*) FROM entry e WHERE e.log = l.id), (SELECT COUNT(DISTINCT seq) FROM entry e WHERE e.log = l.id AND e.seq < l.size)
		FROM log l JOIN gate g ON g.id = l.gate WHERE (g.site = $1 OR $1 = '') AND (g.name = $2 OR $2 = '') ORDER BY g.site, g.name, l.id`, site, gate)
	err = each(rows, err, func() error {
		var c Count
		var epoch, parent string
		var forked, size, all, different int64
		if err := rows.Scan(&c.Site, &c.Gate, &epoch, &parent, &forked, &size, &c.First, &c.Last, &all, &different); err != nil {
			return err
		}
		var err error
		if c.Epoch, err = edge.ParseEpoch(epoch); err != nil {
			return err
		}
		if parent != "" {
			if c.Parent, err = edge.ParseEpoch(parent); err != nil {
				return err
			}
		}
		c.Forked, c.Size, c.Stored = uint64(forked), uint64(size), uint64(different)
		c.Missing, c.Duplicated = c.Size-c.Stored, uint64(all-different)
		out = append(out, c)
		return nil
	})
	if err != nil {
		return nil, fmt.Errorf("cannot count entries: %w", err)
	}
	return out, nil
}

// Dropped is how many batches were dropped unread, or because the store failed:
// their gates send them again.
func (s *Server) Dropped() uint64 { return s.dropped.Load() }

// Repeated is how many entries came again after they were stored.
func (s *Server) Repeated() uint64 { return s.repeated.Load() }

// Finding is something wrong with what is stored.
type Finding struct {
	Site, Gate string
	Epoch      edge.Epoch
	Seq        uint64 // where
	Text       string
}

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
		bad := func(seq uint64, format string, args ...any) {
			out = append(out, Finding{c.Site, c.Gate, c.Epoch, seq, fmt.Sprintf(format, args...)})
		}
		if c.Missing > 0 || c.Duplicated > 0 {
			bad(0, "%d entries are missing and %d are there twice", c.Missing, c.Duplicated)
		}
		if err := s.verifyLog(ctx, l, bad); err != nil {
			return nil, fmt.Errorf("cannot verify %s: %w", l.name(), err)
		}
	}
	return out, nil
}

func (s *Server) verifyLog(ctx context.Context, l *gateLog, bad func(seq uint64, format string, args ...any)) error {
	var t tree
	for t.size < l.tree.size {
		from := t.size
		to := min(from+16*edge.BlockSize, l.tree.size)
		leaves, err := s.store.hashes(ctx, s.store.r, l.id, from, to)
		if err != nil {
			bad(t.size, "%v", err)
			return ctx.Err()
		}
		seq := from
		rows, err := s.store.r.QueryContext(ctx, `SELECT first, count, key, data FROM block WHERE log = $1 AND first >= $2 AND first < $3 ORDER BY first`,
			l.id, int64(from), int64(to))
		err = each(rows, err, func() error {
			var first int64
			var count int
			var key, data []byte
			if err := rows.Scan(&first, &count, &key, &data); err != nil {
				return err
			}
			lines, err := unpack(nil, data)
			if err != nil {
				bad(uint64(first), "%v", err)
				seq = uint64(first) + uint64(count)
				return nil
			}
			if uint64(first) != seq {
				bad(seq, "content up to %d is not there", first)
			}
			seq = uint64(first)
			all := split(lines)
			if len(all) != count || len(key) != len(edge.BlockKey{}) {
				bad(seq, "block of %d entries holds %d", count, len(all))
				seq += uint64(count)
				return nil
			}
			k := edge.BlockKey(key)
			for _, line := range all {
				data := edge.LeafData(k.Blind(seq), line)
				if h := tlog.RecordHash(data[:]); seq < to && h != leaves[seq-from] {
					bad(seq, "content was changed")
				}
				seq++
			}
			return nil
		})
		if err != nil {
			return err
		}
		if seq != to {
			bad(seq, "content up to %d is not there", to)
		}
		for _, h := range leaves {
			t.append(h)
		}
	}
	v, err := edge.HeadVerifier(l.keyName(), l.public[:])
	if err != nil {
		return err
	}
	h, _, err := edge.OpenHead(l.head, v)
	switch {
	case err != nil:
		bad(l.tree.size, "%v", err)
	case h.Size != t.size || h.Root != t.root():
		bad(l.tree.size, "the leaf hashes are not those of the signed head of size %d", h.Size)
	case h.Origin != edge.Origin(s.cfg.Community, l.gate.site, l.gate.name, l.epoch):
		bad(l.tree.size, "the head is of %s", h.Origin)
	}
	return nil
}

// keyName is the name under which the log's device signs.
func (l *gateLog) keyName() string {
	for _, k := range l.gate.keys {
		if k.Public == l.public {
			return k.Name
		}
	}
	return l.gate.name
}

// Entry reads one entry's exact bytes.
func (s *Server) Entry(ctx context.Context, site, gate string, e edge.Epoch, seq uint64) ([]byte, error) {
	g, err := s.store.gateOf(ctx, s.store.r, site, gate)
	if err != nil {
		return nil, err
	}
	if g == nil {
		return nil, fmt.Errorf("gate %s/%s: %w", site, gate, edge.ErrUnknown)
	}
	l, err := s.store.log(ctx, g, e)
	if err != nil {
		return nil, err
	}
	if l == nil || seq >= l.tree.size {
		return nil, fmt.Errorf("entry %d of %s/%s/%s: %w", seq, site, gate, e, edge.ErrUnknown)
	}
	var first int64
	var data []byte
	if err := s.store.r.QueryRowContext(ctx, `SELECT first, data FROM block WHERE log = $1 AND first <= $2 ORDER BY first DESC LIMIT 1`, l.id, int64(seq)).
		Scan(&first, &data); err != nil {
		return nil, fmt.Errorf("cannot read the block of entry %d: %w", seq, err)
	}
	lines, err := unpack(nil, data)
	if err != nil {
		return nil, err
	}
	all := split(lines)
	if i := seq - uint64(first); i < uint64(len(all)) {
		return all[i], nil
	}
	return nil, errors.New("the block ends before the entry")
}
