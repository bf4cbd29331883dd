package edge

import (
	"bytes"
	"testing"

	"golang.org/x/mod/sumdb/tlog"
)

func sealedRun(t testing.TB, lines ...string) (*Sealed, []byte) {
	t.Helper()
	s := &Sealed{First: 7}
	var in []Stored
	for i, l := range lines {
		b := Blind(bytes.Repeat([]byte{'\n', byte(i)}, 16)) // a blind may hold any byte
		in = append(in, Stored{Seq: s.First + uint64(i), Line: []byte(l), Blind: &b})
		d := LeafData(b, []byte(l))
		s.Leaves = append(s.Leaves, tlog.RecordHash(d[:]))
	}
	plain, err := SealedPlain(in)
	if err != nil {
		t.Fatal(err)
	}
	return s, plain
}

func TestSealedRun(t *testing.T) {
	s, plain := sealedRun(t, `{"v":1}`, `{"v":1,"kind":"test"}`)
	got, err := s.Check(plain)
	if err != nil || len(got) != 2 || got[1].Seq != 8 || string(got[1].Line) != `{"v":1,"kind":"test"}` || got[1].Blind[1] != 1 {
		t.Fatalf("%+v, %v", got, err)
	}
	for i := range plain {
		bad := bytes.Clone(plain)
		bad[i] ^= 4
		if _, err := s.Check(bad); err == nil {
			t.Errorf("byte %d changed, and nothing was said", i)
		}
	}
	for _, bad := range [][]byte{nil, plain[:40], plain[:len(plain)-1], append(bytes.Clone(plain), '\n')} {
		if _, err := s.Check(bad); err == nil {
			t.Errorf("%q was taken", bad)
		}
	}
	if _, err := SealedPlain([]Stored{{Line: []byte("a")}}); err == nil {
		t.Error("sealed without a blind")
	}
	if b := (Blind{}); true {
		if _, err := SealedPlain([]Stored{{Line: []byte("a\nb"), Blind: &b}}); err == nil {
			t.Error("two lines were sealed as one")
		}
	}
}

func FuzzSealedCheck(f *testing.F) {
	s, plain := sealedRun(f, `{"v":1}`, `{"v":1,"kind":"test"}`)
	f.Add(plain)
	f.Fuzz(func(t *testing.T, b []byte) {
		if got, err := s.Check(b); err == nil && (len(got) != 2 || !bytes.Equal(b, plain)) {
			t.Errorf("took %q", b)
		}
	})
}
