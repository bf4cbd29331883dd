package wire

import (
	"bytes"
	"cmp"
	"encoding/json"
	"fmt"
	"math/bits"
	"slices"

	"gatehouse/edge"
)

// Header is the first line of a journal batch.
type Header struct {
	V     int         `json:"v"`
	Site  string      `json:"site"`
	Gate  string      `json:"gate"`
	Epoch edge.Epoch  `json:"epoch"`
	First uint64      `json:"first"` // sequence of the first entry
	Count uint64      `json:"count"`
	Keys  []HeaderKey `json:"keys"` // of every aligned block that the batch touches, in order
	Head  string      `json:"head"` // the signed tree head after the last entry
	// Blinds are of entries whose block key was destroyed with older entries of the
	// block; the key of a block whose entries here are all among them is empty.
	Blinds []HeaderBlind `json:"blinds,omitempty"`
	// Sealed are runs of entries whose lines are not among those that follow: they
	// were past their retention before the server had them.
	Sealed []HeaderSealed `json:"sealed,omitempty"`
	// Edges are set in a batch that comes ahead of its turn, because of a backlog: the
	// roots of the perfect subtrees that cover the entries before First, from left to
	// right. With them and the entries here the head's root can be computed. Such a
	// batch is not receipted; its entries come again in their turn.
	Edges [][]byte `json:"edges,omitempty"`
	// Ask is set by a gate that knows that the server has more than it, or other
	// entries, and not since where: if all of the batch is stored and something follows
	// it, the answer is RefusedStands instead of a receipt.
	Ask bool `json:"ask,omitempty"`
}

// HeaderBlind is the blind of one entry.
type HeaderBlind struct {
	Seq   uint64 `json:"seq"`
	Blind []byte `json:"blind"` // 32 bytes
}

// HeaderKey is the blinding key of the aligned block that starts at First.
type HeaderKey struct {
	First uint64 `json:"first"`
	Key   []byte `json:"key"` // 32 bytes
}

// Batch is a run of entries with all that is needed to verify them.
type Batch struct {
	Header
	Lines [][]byte // the exact bytes; they share one buffer; nil for sealed ones
}

// Encode appends the plain form of the batch: the header and the lines, each
// with a newline.
func (b *Batch) Encode(dst []byte) ([]byte, error) {
	b.V, b.Count = Version, uint64(len(b.Lines))
	if err := b.check(); err != nil {
		return nil, err
	}
	h, err := json.Marshal(&b.Header)
	if err != nil {
		return nil, fmt.Errorf("cannot encode the batch header: %w", err)
	}
	size := len(h) + 1
	for _, l := range b.Lines {
		size += len(l) + 1
	}
	dst = append(append(slices.Grow(dst, size), h...), '\n')
	for i, l := range b.Lines {
		if l == nil && b.sealed(b.First+uint64(i)) != nil {
			continue
		}
		if len(l) == 0 || bytes.IndexByte(l, '\n') >= 0 {
			return nil, fmt.Errorf("%w: an entry is one line", ErrMalformed)
		}
		dst = append(append(dst, l...), '\n')
	}
	return dst, nil
}

// DecodeBatch reads a payload, compressed or not.
func DecodeBatch(payload []byte) (*Batch, error) {
	text, err := Expand(payload, MaxBatch)
	if err != nil {
		return nil, err
	}
	line, rest, ok := bytes.Cut(text, []byte{'\n'})
	if !ok {
		return nil, fmt.Errorf("%w: batch without an entry", ErrMalformed)
	}
	b := new(Batch)
	if err := json.Unmarshal(line, &b.Header); err != nil {
		return nil, fmt.Errorf("%w: batch header: %w", ErrMalformed, err)
	}
	if b.V != Version {
		return nil, fmt.Errorf("%w: batch of version %d, this program reads %d", ErrMalformed, b.V, Version)
	}
	if err := b.check(); err != nil {
		return nil, err
	}
	b.Lines = make([][]byte, 0, b.Count)
	b.skip()
	for len(rest) > 0 {
		l, r, ok := bytes.Cut(rest, []byte{'\n'})
		switch {
		case !ok:
			return nil, fmt.Errorf("%w: the last line has no end", ErrMalformed)
		case len(l) == 0 || len(l) > edge.MaxLine:
			return nil, fmt.Errorf("%w: entry of %d bytes", ErrMalformed, len(l))
		case uint64(len(b.Lines)) == b.Count:
			return nil, fmt.Errorf("%w: more than the %d entries of the header", ErrMalformed, b.Count)
		}
		b.Lines, rest = append(b.Lines, l[:len(l):len(l)]), r
		b.skip()
	}
	if uint64(len(b.Lines)) != b.Count {
		return nil, fmt.Errorf("%w: %d entries, the header says %d", ErrMalformed, len(b.Lines), b.Count)
	}
	return b, nil
}

func (b *Batch) check() error {
	if err := CheckName(b.Site); err != nil {
		return err
	}
	if err := CheckGate(b.Gate); err != nil {
		return err
	}
	switch {
	case b.Count == 0 || b.Count > MaxEntries:
		return fmt.Errorf("%w: batch of %d entries, want 1 to %d", ErrMalformed, b.Count, MaxEntries)
	case b.First > 1<<62:
		return fmt.Errorf("%w: sequence %d is out of range", ErrMalformed, b.First)
	}
	for i, x := range b.Blinds {
		if len(x.Blind) != len(edge.Blind{}) || x.Seq < b.First || x.Seq >= b.First+b.Count || i > 0 && x.Seq <= b.Blinds[i-1].Seq {
			return fmt.Errorf("%w: blinds must be of %d bytes, for entries of the batch, in order", ErrMalformed, len(edge.Blind{}))
		}
	}
	if err := b.checkSealed(); err != nil {
		return err
	}
	if len(b.Edges) > 0 && len(b.Edges) != bits.OnesCount64(b.First) {
		return fmt.Errorf("%w: %d edges are not those of %d entries", ErrMalformed, len(b.Edges), b.First)
	}
	for _, e := range b.Edges {
		if len(e) != leafSize {
			return fmt.Errorf("%w: an edge has %d bytes", ErrMalformed, leafSize)
		}
	}
	block := b.First &^ (edge.BlockSize - 1)
	for _, k := range b.Keys {
		if k.First != block || len(k.Key) != len(edge.BlockKey{}) && (len(k.Key) != 0 || !b.blinded(block)) {
			return fmt.Errorf("%w: want a key of %d bytes for the block at %d", ErrMalformed, len(edge.BlockKey{}), block)
		}
		block += edge.BlockSize
	}
	if end := b.First + b.Count; block < end || block-end >= edge.BlockSize {
		return fmt.Errorf("%w: %d block keys do not cover entries %d to %d", ErrMalformed, len(b.Keys), b.First, end-1)
	}
	return nil
}

// blinded reports whether all entries here of the block have a blind or are
// sealed.
func (b *Batch) blinded(block uint64) bool {
	from, to := max(block, b.First), min(block+edge.BlockSize, b.First+b.Count)
	i, _ := slices.BinarySearchFunc(b.Blinds, from, HeaderBlind.compare)
	k, _ := slices.BinarySearchFunc(b.Blinds, to, HeaderBlind.compare)
	have := uint64(k - i)
	for j := range b.Sealed {
		x := &b.Sealed[j]
		if lo, hi := max(from, x.First), min(to, x.End()); lo < hi {
			have += hi - lo
		}
	}
	return have == to-from
}

func (x HeaderBlind) compare(seq uint64) int { return cmp.Compare(x.Seq, seq) }

// Key is the key of the block that holds seq, which must be in the batch; zero
// when it was destroyed. [Batch.Blind] is what leaves are made with.
func (b *Batch) Key(seq uint64) edge.BlockKey {
	var k edge.BlockKey
	copy(k[:], b.Keys[seq/edge.BlockSize-b.First/edge.BlockSize].Key)
	return k
}

// Blind is the blind of an entry of the batch.
func (b *Batch) Blind(seq uint64) edge.Blind {
	if i, ok := slices.BinarySearchFunc(b.Blinds, seq, HeaderBlind.compare); ok {
		return edge.Blind(b.Blinds[i].Blind)
	}
	k := b.Key(seq)
	return k.Blind(seq)
}
