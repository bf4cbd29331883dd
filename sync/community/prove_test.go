package community

import (
	"bytes"
	"context"
	"encoding/json"
	"path/filepath"
	"testing"
	"unicode/utf8"

	"golang.org/x/mod/sumdb/tlog"
	"pgregory.net/rapid"

	"gatehouse/edge"
	"gatehouse/sync/wire"
)

func TestProofs(t *testing.T) { testProofs(t, filepath.Join(t.TempDir(), "c.db")) }

func testProofs(t *testing.T, where string) {
	s, b, _ := start(t, where)
	ctx := context.Background()
	d := newDevice("estate", "east", 7, 1)
	d.addLines(1100)
	register(t, s, d, "")
	dv, err := edge.HeadVerifier(d.key.name, d.key.Public())
	if err != nil {
		t.Fatal(err)
	}
	sv, err := wire.CosignatureVerifier(serverKey.name, serverKey.Public())
	if err != nil {
		t.Fatal(err)
	}
	last := 0
	for _, size := range []int{1, 2, 255, 256, 257, 512, 700, 1024, 1100} {
		d.want(t, d.send(t, b, last, size), size)
		last = size
		for _, seq := range []int{0, 1, 200, 255, 256, 511, 600, size - 1} {
			if seq >= size {
				continue
			}
			p, err := s.Prove(ctx, "estate", "east", 7, uint64(seq))
			if err != nil {
				t.Fatalf("%d of %d: %v", seq, size, err)
			}
			text := p.Encode()
			got, h, err := edge.CheckProof(text, dv, sv)
			if err != nil {
				t.Fatalf("%d of %d: %v", seq, size, err)
			}
			if got.Seq != uint64(seq) || h.Size != uint64(size) || !bytes.Equal(got.Line, d.lines[seq]) {
				t.Fatalf("proof of %d of %d is for %d of %d", seq, size, got.Seq, h.Size)
			}
			p.Line = append(bytes.Clone(p.Line), ' ')
			if _, _, err := edge.CheckProof(p.Encode(), dv); err == nil {
				t.Fatal("a changed entry was proved")
			}
		}
	}
	if _, err := s.Prove(ctx, "estate", "east", 7, 1100); err == nil {
		t.Error("an entry that is not there was proved")
	}
}

// The right edge must give the root that the definition gives, at every size.
func TestTreeIsThatOfTheDefinition(t *testing.T) {
	d := newDevice("s", "g", 1, 1)
	d.addLines(70)
	var tr tree
	if tr.root() != d.rootAt(0) {
		t.Error("root of the empty tree")
	}
	for i, h := range d.leaves {
		tr.append(h)
		if tr.root() != d.rootAt(i+1) {
			t.Fatalf("root of %d leaves", i+1)
		}
		again, err := treeOf(tr.size, tr.bytes())
		if err != nil || again.root() != tr.root() {
			t.Fatalf("stored form at %d: %v", i+1, err)
		}
	}
	if _, err := treeOf(3, make([]byte, tlog.HashSize)); err == nil {
		t.Error("an edge of the wrong length was taken")
	}
}

// The scanner must see what encoding/json sees, in whatever order and spacing.
func TestScanColumns(t *testing.T) {
	var c columns
	if err := scanColumns([]byte(line(3)), &c); err != nil {
		t.Fatal(err)
	}
	if c.time != 1_700_000_003_000 || string(c.kind) != "decision" || string(c.lane) != "east-in" || c.presentation != 4 || c.pass != 4 ||
		c.household != 4 || string(c.category) != "resident" || string(c.outcome) != "admit" || c.of != -1 || c.deltas == nil {
		t.Errorf("%+v", c)
	}
	odd := ` { "x" : [ 1 , {"t":9}, "}" ], "t" : -5 , "kind":"p\u0061ss\"age" ,"of":0,"facts":{"holder":{"id":4},"household":{ "id" : 8 }}, "y":null } `
	if err := scanColumns([]byte(odd), &c); err != nil || c.time != -5 || string(c.kind) != `pass"age` || c.of != 0 || c.household != 8 || c.pass != 0 {
		t.Errorf("%+v %v", c, err)
	}
	for _, bad := range []string{``, `{`, `[]`, `{"t":"5"}`, `{"t":5}x`, `{"t":5,}`, `{"kind":5}`, `{"a":tru}`, `{"a":01}`, `{"a":"`, `{"a":1e}`} {
		if err := scanColumns([]byte(bad), &c); err == nil {
			t.Errorf("%s was taken", bad)
		}
	}
}

func FuzzScanColumns(f *testing.F) {
	f.Add([]byte(line(3)))
	f.Add([]byte(`{"a":[{},[],"\u00e9",-1.5e+3,true,false,null]}`))
	f.Fuzz(func(t *testing.T, text []byte) {
		var c columns
		if scanColumns(text, &c) != nil {
			return
		}
		// What both read, both must read alike. (A map, since encoding/json takes keys
		// of a struct in any case.)
		var keys map[string]json.RawMessage
		if !utf8.Valid(text) || json.Unmarshal(text, &keys) != nil {
			return
		}
		var kind string
		var at int64
		if raw, ok := keys["kind"]; ok && (json.Unmarshal(raw, &kind) != nil || kind != string(c.kind)) {
			t.Errorf("kind %q, want %s", c.kind, raw)
		}
		if raw, ok := keys["t"]; ok && (json.Unmarshal(raw, &at) != nil || at != c.time) {
			t.Errorf("time %d, want %s", c.time, raw)
		}
		if raw, ok := keys["data"]; ok && string(raw) != string(c.data) {
			t.Errorf("data %s, want %s", c.data, raw)
		}
	})
}

func FuzzUnpack(f *testing.F) {
	f.Add(pack([]byte("a\nb\n")))
	f.Fuzz(func(t *testing.T, data []byte) {
		if lines, err := unpack(nil, data); err == nil {
			split(lines)
		}
	})
}

func TestSplitUndoesJoin(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		lines := rapid.SliceOf(rapid.StringMatching(`[a-z{}]{0,20}`)).Draw(t, "lines")
		var text []byte
		for _, l := range lines {
			text = append(append(text, l...), '\n')
		}
		got, err := unpack(nil, pack(text))
		if err != nil {
			t.Fatal(err)
		}
		all := split(got)
		if len(all) != len(lines) {
			t.Fatalf("%d lines, want %d", len(all), len(lines))
		}
		for i := range all {
			if string(all[i]) != lines[i] {
				t.Fatalf("line %d", i)
			}
		}
	})
}
