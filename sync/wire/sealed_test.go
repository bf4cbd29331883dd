package wire

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"testing"

	"golang.org/x/mod/sumdb/tlog"

	"gatehouse/edge"
)

// run seals the lines of some entries, without any cipher.
func run(t testing.TB, first uint64, lines ...string) HeaderSealed {
	t.Helper()
	s := edge.Sealed{First: first}
	var in []edge.Stored
	for i, l := range lines {
		b := edge.LeafData(edge.Blind{}, fmt.Append(nil, first, i))
		blind := edge.Blind(b)
		in = append(in, edge.Stored{Seq: first + uint64(i), Line: []byte(l), Blind: &blind})
		d := edge.LeafData(blind, []byte(l))
		s.Leaves = append(s.Leaves, tlog.RecordHash(d[:]))
	}
	var err error
	if s.Data, err = edge.SealedPlain(in); err != nil {
		t.Fatal(err)
	}
	return SealedHeader(s)
}

func opened(r io.Reader, limit int64) ([]byte, error) { return io.ReadAll(io.LimitReader(r, limit)) }

// Sealed runs stand among other entries; the first may begin before the batch and
// the last end after it.
func TestSealedRunsInABatch(t *testing.T) {
	b := Batch{Header: Header{Site: "s", Gate: "g", Epoch: 1, First: 250, Count: 12, Head: "h", Keys: []HeaderKey{{First: 0}, {First: 256, Key: bytes.Repeat([]byte{1}, 32)}},
		Sealed: []HeaderSealed{run(t, 248, "248", "249", "250", "251"), run(t, 253, "253", "254", "255"), run(t, 261, "261", "262")},
		Blinds: []HeaderBlind{{252, bytes.Repeat([]byte{7}, 32)}}},
		Lines: [][]byte{nil, nil, []byte("252"), nil, nil, nil, []byte("256"), []byte("257"), []byte("258"), []byte("259"), []byte("260"), nil}}
	text, err := b.Encode(nil)
	if err != nil {
		t.Fatal(err)
	}
	got, err := DecodeBatch(text)
	if err != nil {
		t.Fatal(err)
	}
	if again, err := got.Encode(nil); err != nil || !bytes.Equal(again, text) {
		t.Errorf("written again: %s, %v", again, err)
	}
	if err := got.Unseal(opened); err != nil {
		t.Fatal(err)
	}
	for i, l := range got.Lines {
		if want := fmt.Sprint(250 + i); string(l) != want {
			t.Errorf("entry %s is %q", want, l)
		}
	}
	if len(got.Blinds) != 7 || got.Blind(252) != edge.Blind(bytes.Repeat([]byte{7}, 32)) || got.Blind(250) == (edge.Blind{}) {
		t.Errorf("blinds %+v", got.Blinds)
	}
	for name, spoil := range map[string]func(*Batch){
		"a run before the batch":   func(b *Batch) { b.Sealed[0] = run(t, 240, "a") },
		"a run after it":           func(b *Batch) { b.Sealed[2] = run(t, 262, "a") },
		"runs that overlap":        func(b *Batch) { b.Sealed[1].First = 251 },
		"a hash cut short":         func(b *Batch) { b.Sealed[1].Leaves = b.Sealed[1].Leaves[:33] },
		"no data":                  func(b *Batch) { b.Sealed[1].Data = nil },
		"too much data":            func(b *Batch) { b.Sealed[1].Data = make([]byte, MaxSealed+1) },
		"a line that is missing":   func(b *Batch) { b.Lines[6] = nil },
		"a block without its key":  func(b *Batch) { b.Keys[1].Key = nil },
		"a block without blinds":   func(b *Batch) { b.Blinds = nil },
		"fewer lines than counted": func(b *Batch) { b.Count = 13; b.Lines = append(b.Lines, nil) },
	} {
		bad, err := DecodeBatch(text)
		if err != nil {
			t.Fatal(err)
		}
		spoil(bad)
		if _, err := bad.Encode(nil); err == nil && name != "fewer lines than counted" {
			t.Errorf("%s: no error", name)
		}
	}
	lie, err := DecodeBatch(text)
	if err != nil {
		t.Fatal(err)
	}
	lie.Sealed[1].Data[40] ^= 1
	if err := lie.Unseal(opened); !errors.Is(err, ErrMalformed) {
		t.Errorf("another entry than that of the leaf: %v", err)
	}
	if err := lie.Unseal(func(io.Reader, int64) ([]byte, error) { return nil, errors.New("no key") }); err == nil {
		t.Error("opened without the key")
	}
}
