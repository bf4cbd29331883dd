package community

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"

	"golang.org/x/mod/sumdb/note"
	"golang.org/x/mod/sumdb/tlog"

	"gatehouse/edge"
	"gatehouse/sync/wire"
)

// Earlier is a head of a gate's log that was kept outside: printed, photographed.
type Earlier struct {
	edge.Head
	Community, Site, Gate string
	Epoch                 edge.Epoch
	Signed                bool // somebody has; Since says who
}

// ReadEarlier reads what "gatehouse journal head" prints, or any checkpoint of a
// gate's log. What stands behind the signatures, as the QR code, is passed over.
func ReadEarlier(text []byte) (*Earlier, error) {
	plain := strings.TrimLeft(strings.ReplaceAll(strings.TrimPrefix(string(text), "\ufeff"), "\r\n", "\n"), "\n")
	body, rest, _ := strings.Cut(plain, "\n\n")
	body = strings.TrimRight(body, "\n") + "\n"
	h, err := edge.ParseHead(body)
	if err != nil {
		return nil, fmt.Errorf("this is no head of a gate's log (`gatehouse journal head` prints one): %w", err)
	}
	parts := strings.Split(h.Origin, "/")
	if len(parts) != 4 {
		return nil, fmt.Errorf("the head is of %.200q, want COMMUNITY/SITE/GATE/EPOCH", h.Origin)
	}
	e := &Earlier{Head: h, Community: parts[0], Site: parts[1], Gate: parts[2]}
	if e.Epoch, err = edge.ParseEpoch(parts[3]); err != nil {
		return nil, fmt.Errorf("the head is of %.200q: %w", h.Origin, err)
	}
	signed := body + "\n"
	for line := range strings.Lines(rest) {
		if !strings.HasPrefix(line, "— ") {
			break
		}
		signed += strings.TrimRight(line, "\n") + "\n"
		e.Signed = true
	}
	e.Note = []byte(signed)
	return e, nil
}

// Since says what became of an earlier head, in sentences for people: whether the log
// that is stored extends it, who has signed it, and what the epochs after its own
// carried over. It is false when something was changed or is not here, or when the
// head is not the gate's. The leaf hashes are taken as they are stored: Verify holds
// them against the signed head of now.
func (s *Server) Since(ctx context.Context, e *Earlier) (said []string, ok bool, err error) {
	if e.Community != s.cfg.Community {
		return nil, false, fmt.Errorf("the head is of community %.100q, this server is that of %q", e.Community, s.cfg.Community)
	}
	g, err := s.store.gateOf(ctx, s.store.r, e.Site, e.Gate)
	if err == nil && g == nil {
		err = fmt.Errorf("gate %s/%s: %w", e.Site, e.Gate, edge.ErrUnknown)
	}
	if err != nil {
		return nil, false, err
	}
	by, ok, err := s.signersOf(e, g)
	if err != nil {
		return nil, false, err
	}
	said = append(said, by)
	l, err := s.store.log(ctx, g, e.Epoch)
	if err != nil {
		return nil, false, err
	}
	size, root := uint64(0), emptyRoot
	if l != nil {
		size = l.tree.size
		if root, err = s.recomputed(ctx, l, min(e.Size, size)); err != nil {
			return nil, false, fmt.Errorf("log %s: %w", l.name(), err)
		}
	}
	after, carried, destroyed, err := s.after(ctx, e, size)
	if err != nil {
		return nil, false, err
	}
	switch never := carried.lacks(size, e.Size); {
	case e.Size <= size && root == e.Root:
		said = append(said, fmt.Sprintf("the head over %d entries is extended by %d: nothing was changed or removed", e.Size, size))
	case e.Size <= size:
		said, ok = append(said, fmt.Sprintf("changed: the first %d entries that are stored are not those of the head", e.Size)), false
	case never > 0 && destroyed > 0:
		// Retention takes what was carried, too, and must not look like a loss.
		said = append(said, fmt.Sprintf("%d of %d of its entries are stored; whether %d others came cannot be said, since of the epochs that follow %d entries are destroyed, as recorded", size, e.Size, never, destroyed))
	case never > 0:
		said, ok = append(said, fmt.Sprintf("%d of its entries never reached this server: %d of %d are stored", never, size, e.Size)), false
	default:
		said = append(said, fmt.Sprintf("%d of its %d entries are stored, the others were carried into epochs that follow", size, e.Size))
	}
	if e.Size > size && size > 0 {
		said = append(said, "whether those that are stored are the head's, only the gate can say: gatehouse journal verify --since")
	}
	return append(said, after...), ok, nil
}

// signersOf says who has signed an earlier head; false when that is somebody else
// than a device of the gate.
func (s *Server) signersOf(e *Earlier, g *gate) (string, bool, error) {
	if !e.Signed {
		return "the head is not signed: it proves as much as whoever kept it is believed", true, nil
	}
	own, err := wire.CosignatureVerifier(s.cfg.Signer.Name(), s.cfg.Signer.Public())
	if err != nil {
		return "", false, err
	}
	known := []note.Verifier{own}
	for _, k := range g.keys {
		v, err := edge.HeadVerifier(k.Name, k.Public[:])
		if err != nil {
			continue
		}
		known = append(known, v)
	}
	_, n, err := edge.OpenHead(e.Note, known...)
	var wrong *note.InvalidSignatureError
	if errors.As(err, &wrong) {
		return fmt.Sprintf("the head is not what %s has signed: its text, or the signature, is another one", wrong.Name), false, nil
	}
	var none *note.UnverifiedNoteError
	if err != nil && !errors.As(err, &none) {
		return "", false, err
	}
	var by []string
	device, cosigned := false, ""
	for i := 0; err == nil && i < len(n.Sigs); i++ {
		at := slices.IndexFunc(known, func(v note.Verifier) bool { return v.Name() == n.Sigs[i].Name && v.KeyHash() == n.Sigs[i].Hash })
		if at == 0 {
			cosigned = ", and cosigned by this server"
			continue
		}
		device = true
		j := slices.IndexFunc(g.keys, func(k GateKey) bool {
			v, err := edge.HeadVerifier(k.Name, k.Public[:])
			return err == nil && v.KeyHash() == n.Sigs[i].Hash
		})
		by = append(by, fmt.Sprintf("%s (%s)", wire.Fingerprint(g.keys[j].Public[:]), g.keys[j].State))
	}
	if !device {
		return fmt.Sprintf("no device that is known of gate %s/%s has signed the head%s", e.Site, e.Gate, cosigned), false, nil
	}
	return "the head is signed by device " + strings.Join(by, ", ") + cosigned, true, nil
}

// recomputed is the root of the first entries of a log, from their leaf hashes: those
// of whole blocks, from which rootAt works, are nobody's signed word.
func (s *Server) recomputed(ctx context.Context, l *gateLog, size uint64) (tlog.Hash, error) {
	var t tree
	for t.size < size {
		leaves, err := s.store.hashes(ctx, s.store.r, l.id, t.size, min(t.size+verifyChunk, size))
		if err != nil {
			return tlog.Hash{}, err
		}
		for _, h := range leaves {
			t.append(h)
		}
	}
	return t.root(), nil
}

// after says of each epoch that follows the head's, directly or not, what it carried
// over of the head's entries, and finds all that was, and how many entries of these
// epochs are destroyed; size is how many of the head's epoch are stored.
func (s *Server) after(ctx context.Context, e *Earlier, size uint64) ([]string, spans, uint64, error) {
	counts, err := s.Counts(ctx, e.Site, e.Gate)
	if err != nil {
		return nil, nil, 0, err
	}
	var said []string
	var all spans
	destroyed := uint64(0)
	seen := map[edge.Epoch]bool{e.Epoch: true}
	parents := []edge.Epoch{e.Epoch}
	for level := 1; level <= maxUnwrap && len(parents) > 0; level++ {
		var children []edge.Epoch
		before := slices.Clone(all) // what the epochs between carried is stored with them
		for _, c := range counts {
			if !slices.Contains(parents, c.Parent) || c.Parent == 0 || seen[c.Epoch] {
				continue
			}
			seen[c.Epoch] = true
			children = append(children, c.Epoch)
			l, err := s.logOf(ctx, e.Site, e.Gate, c.Epoch)
			if err != nil {
				return nil, nil, 0, err
			}
			carried, err := s.carriedBy(ctx, l, level)
			if err != nil {
				return nil, nil, 0, fmt.Errorf("log %s: %w", l.name(), err)
			}
			all = append(all, carried...)
			// What lies below the fork stands with the epoch that was left.
			from := uint64(0)
			if level == 1 {
				from = min(c.Forked, e.Size)
			}
			lost := slices.Concat(before, carried).lacks(max(from, min(size, e.Size)), e.Size)
			text := fmt.Sprintf("epoch %s follows %s at %d: %d of the head's entries were carried over, %d that are not stored were not", c.Epoch, c.Parent, c.Forked,
				e.Size-from-carried.lacks(from, e.Size), lost)
			if destroyed += c.Destroyed; c.Destroyed > 0 {
				text += fmt.Sprintf("; what %d entries of it carried is not known, they are destroyed, as recorded", c.Destroyed)
			}
			said = append(said, text)
		}
		parents = children
	}
	if len(said) == 0 {
		said = append(said, "no epoch follows it")
	}
	return said, all, destroyed, nil
}

// carriedBy finds which entries of an epoch, so many epochs before this log's, it
// carries over.
func (s *Server) carriedBy(ctx context.Context, l *gateLog, level int) (spans, error) {
	var out spans
	var in func(line []byte, level int)
	in = func(line []byte, level int) {
		var c columns
		if scanColumns(line, &c) != nil || string(c.kind) != string(edge.KindCarried) {
			return
		}
		seq, inner, run := carriedIn(c.data)
		switch {
		case level == 1 && inner != nil:
			out.add(seq, seq+1)
		case level == 1 && run.Sealed != nil && run.Count <= edge.BlockSize:
			out.add(run.Seq, run.Seq+run.Count)
		case inner != nil:
			in(inner, level-1)
		case run.Sealed != nil:
			entries, err := openRun(s.cfg.Open, run)
			if err != nil {
				return // whose they are cannot be said
			}
			for _, e := range entries {
				in(e.Line, level-1)
			}
		}
	}
	err := s.store.pieces(ctx, s.store.r, l.id, 0, l.tree.size, func(p *piece) error {
		lines, err := p.lines()
		if err != nil {
			return err
		}
		for _, line := range lines {
			in(line, level)
		}
		return nil
	})
	return out, err
}

// spans are sequences, as runs of them.
type spans []struct{ first, end uint64 }

func (s *spans) add(first, end uint64) {
	if n := len(*s); n > 0 && (*s)[n-1].end == first {
		(*s)[n-1].end = end
		return
	}
	*s = append(*s, struct{ first, end uint64 }{first, end})
}

// lacks counts what is not in s from from to end (exclusive).
func (s spans) lacks(from, end uint64) uint64 {
	sorted := slices.Clone(s)
	slices.SortFunc(sorted, func(a, b struct{ first, end uint64 }) int {
		switch {
		case a.first < b.first:
			return -1
		case a.first > b.first:
			return 1
		}
		return 0
	})
	n := uint64(0)
	for _, x := range sorted {
		if x.first >= end {
			break
		}
		if x.first > from {
			n += x.first - from
		}
		from = max(from, x.end)
	}
	if from < end {
		n += end - from
	}
	return n
}
