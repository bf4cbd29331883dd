package journal

import (
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
func unpack(kept []byte) ([]byte, error) {
	if len(kept) == 0 || kept[0] != formPacked {
		return kept, nil
	}
	if n, err := s2.DecodedLen(kept[1:]); err != nil || n > edge.MaxLine {
		return nil, fmt.Errorf("damaged: a packed line of %d bytes", n)
	}
	line, err := packing.Decode(nil, kept[1:])
	if err != nil {
		return nil, fmt.Errorf("damaged: %w", err)
	}
	return line, nil
}
