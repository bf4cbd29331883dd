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
	out, err := SealedEntries(s.First, uint64(len(s.Leaves)), plain)
	if err != nil {
		return nil, err
	}
	for i, e := range out {
		data := LeafData(*e.Blind, e.Line)
		if tlog.RecordHash(data[:]) != tlog.Hash(s.Leaves[i]) {
			return nil, fmt.Errorf("sealed entry %d is not that of its leaf", e.Seq)
		}
	}
	return out, nil
}

// SealedEntries splits the decrypted plaintext of a run. What was carried over has
// no leaves beside it: it is vouched for by the head of the log that carries it.
func SealedEntries(first, count uint64, plain []byte) ([]Stored, error) {
	if count > BlockSize {
		return nil, fmt.Errorf("sealed run of %d entries is longer than a block", count)
	}
	out := make([]Stored, 0, count)
	for i := range count {
		if len(plain) < len(Blind{}) {
			return nil, fmt.Errorf("sealed run of %d entries holds %d", count, i)
		}
		e := Stored{Seq: first + i}
		blind := Blind(plain)
		e.Blind = &blind
		var ok bool
		if e.Line, plain, ok = bytes.Cut(plain[len(blind):], []byte{'\n'}); !ok || len(e.Line) > MaxLine {
			return nil, fmt.Errorf("sealed entry %d has no end", e.Seq)
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
