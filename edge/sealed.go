package edge

import (
	"bytes"
	"errors"
	"fmt"

	"golang.org/x/mod/sumdb/tlog"
)

// Sealed is a run of consecutive entries of one aligned block that were past
// their retention before the server had receipted them. The gate has destroyed
// their text and their blinds; what it keeps, only the community can open.
type Sealed struct {
	First  uint64
	Leaves [][32]byte // the RFC 6962 leaf hash of each entry; they disclose nothing
	// Data is an age file to the community's key. Its plaintext is, for each
	// entry, the blind (32 bytes), the line, and a newline.
	Data []byte
}

// SealedPlain makes the plaintext of a run.
func SealedPlain(entries []Stored) ([]byte, error) {
	var b []byte
	for _, s := range entries {
		if s.Blind == nil || bytes.IndexByte(s.Line, '\n') >= 0 {
			return nil, fmt.Errorf("cannot seal entry %d: it has no blind or is not one line", s.Seq)
		}
		b = append(append(append(b, s.Blind[:]...), s.Line...), '\n')
	}
	return b, nil
}

// Check splits the decrypted plaintext and verifies each entry against its leaf.
func (s *Sealed) Check(plain []byte) ([]Stored, error) {
	out := make([]Stored, 0, len(s.Leaves))
	for i, leaf := range s.Leaves {
		if len(plain) < len(Blind{}) {
			return nil, fmt.Errorf("sealed run of %d entries holds %d", len(s.Leaves), i)
		}
		e := Stored{Seq: s.First + uint64(i)}
		blind := Blind(plain)
		e.Blind = &blind
		var ok bool
		if e.Line, plain, ok = bytes.Cut(plain[len(blind):], []byte{'\n'}); !ok || len(e.Line) > MaxLine {
			return nil, fmt.Errorf("sealed entry %d has no end", e.Seq)
		}
		data := LeafData(blind, e.Line)
		if tlog.RecordHash(data[:]) != tlog.Hash(leaf) {
			return nil, fmt.Errorf("sealed entry %d is not that of its leaf", e.Seq)
		}
		out = append(out, e)
	}
	if len(plain) > 0 {
		return nil, errors.New("sealed run holds more than its entries")
	}
	return out, nil
}

// Technical are the kinds of entries that say nothing about a person. They are
// kept longer, on the gate and at the server.
func Technical() []Kind {
	return []Kind{KindEpoch, KindStart, KindStop, KindFire, KindDevice, KindPolicy, KindClock, KindSnapshot, KindPurge, KindDecommission, KindTest}
}
