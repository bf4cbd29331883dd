package journal

import (
	"bytes"
	_ "embed" // for dictionary
	"fmt"

	"github.com/klauspost/compress/s2"

	"gatehouse/edge"
)

// dictionary is what lines are packed against: made-up entries of each kind. What
// was packed with it is read with it for as long as entries are kept, so it is never
// changed; another one would have a form of its own.
//
//go:embed dictionary.jsonl
var dictionary []byte

// The forms in which a line is kept, by the first byte. Plain JSON begins with '{'.
const formPacked = 1 // an S2 block with dictionary

var packing = s2.MakeDictManual(dictionary, 0)

// pack gives the form in which a line is kept: a fifth of it, as a rule.
func pack(line []byte) []byte {
	out := make([]byte, 1+s2.MaxEncodedLen(len(line)))
	out[0] = formPacked
	if n := len(packing.Encode(out[1:], line)); 1+n < len(line) {
		return out[:1+n]
	}
	return line
}

// unpack gives the line that was kept.
func unpack(kept []byte) ([]byte, error) { return new(unpacker).line(kept) }

// unpacker unpacks many lines into few pieces of memory.
type unpacker struct {
	piece int // bytes of the last
	free  []byte
}

func (u *unpacker) line(kept []byte) ([]byte, error) {
	if len(kept) == 0 || kept[0] != formPacked {
		return kept, nil
	}
	n, err := s2.DecodedLen(kept[1:])
	if err != nil || n > edge.MaxLine {
		return nil, fmt.Errorf("damaged: a packed line of %d bytes", n)
	}
	if n > len(u.free) {
		u.piece = min(max(2<<10, 2*u.piece), 64<<10)
		u.free = make([]byte, max(n, u.piece))
	}
	line, err := packing.Decode(u.free[:n:n], kept[1:])
	if err != nil {
		return nil, fmt.Errorf("damaged: %w", err)
	}
	u.free = u.free[n:]
	return line, nil
}

// entry makes of a row's columns, which are valid until the next row is read, what
// they stand for. A line that cannot be unpacked stays as it is: its leaf and its
// decoder say then that it is damaged.
func (u *unpacker) entry(seq uint64, kept, blind []byte) edge.Stored {
	s := edge.Stored{Seq: seq}
	line, err := u.line(kept)
	if s.Line = line; err != nil || len(kept) > 0 && kept[0] != formPacked {
		s.Line = bytes.Clone(kept)
	}
	if len(blind) == len(edge.Blind{}) {
		b := edge.Blind(blind)
		s.Blind = &b
	}
	return s
}
