package community

import (
	"context"
	"fmt"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"filippo.io/age"

	"gatehouse/edge"
	"gatehouse/sync/wire"
)

func TestErasePerson(t *testing.T) { testErase(t, filepath.Join(t.TempDir(), "c.db")) }

// Of a person who is erased nothing is left: no entry, nothing that follows from
// one, no line in the roster or in a chunk, also not what comes later from a gate
// that was offline. The log stays provable, and others' entries stay.
func testErase(t *testing.T, where string) {
	s, b, _ := start(t, where)
	ctx := context.Background()
	id, err := age.GenerateX25519Identity()
	if err != nil {
		t.Fatal(err)
	}
	d := newDevice("estate", "east", 7, 1)
	register(t, s, d, id.Recipient().String())
	if _, err := s.ImportRoster(ctx, "estate", roster(10, 0), ImportOptions{}); err != nil {
		t.Fatal(err)
	}
	before := d.ask(t, b, wire.Request{Nonce: "before"}).Registry
	now := time.Now().UnixMilli()
	visit := func(pass int, at int64) { // of one person: decided, passed, looked up
		n := len(d.lines)
		d.add(fmt.Sprintf(`{"v":1,"kind":"decision","t":%d,"off":480,"boot":"fa4ec10c","mono":1,"clock":"synced","facts":{"pass":{"id":%d,"category":"resident"}}}`, at, pass),
			fmt.Sprintf(`{"v":1,"kind":"passage","of":%d,"t":%d,"off":480,"boot":"fa4ec10c","mono":1,"clock":"synced","result":"passed","deltas":[{"c":"position","s":"p%d","set":1}]}`, n, at, pass),
			fmt.Sprintf(`{"v":1,"kind":"access","t":%d,"off":480,"boot":"fa4ec10c","mono":1,"clock":"synced","actor":"guard:1","data":{"passes":[%d,999]}}`, at, pass))
	}
	for i := range 100 {
		visit([]int{14, 21}[i%2], now-int64(i)*1000)
	}
	d.add(fmt.Sprintf(`{"v":1,"kind":"registry","t":%d,"off":480,"boot":"fa4ec10c","mono":1,"clock":"synced","data":{"pass":14,"status":"suspended","reason":"lent to a neighbour","at":%d}}`, now, now))
	d.want(t, d.send(t, b, 0, len(d.lines)), len(d.lines))
	exported := func(pass edge.PassID) int {
		n := 0
		if err := s.ExportPerson(ctx, "estate", pass, func([]byte) error { n++; return nil }); err != nil {
			t.Fatal(err)
		}
		return n
	}
	if n, o := exported(14), exported(21); n != 151 || o != 150 {
		t.Fatalf("%d and %d lines of the two", n, o)
	}
	got, err := s.ErasePerson(ctx, "estate", 14, "office")
	if err != nil || got.Entries != 151 {
		t.Fatalf("%+v %v, want 151", got, err)
	}
	gone := func() {
		t.Helper()
		if n, o := exported(14), exported(21); n != 0 || o < 150 {
			t.Errorf("%d and %d lines of the two", n, o)
		}
		err := s.Export(ctx, "estate", "east", 7, func(seq uint64, line []byte) error {
			for _, trace := range []string{`"id":14`, `"p14"`, `[14,`, "neighbour"} {
				if strings.Contains(string(line), trace) {
					t.Errorf("entry %d: %s", seq, line)
				}
			}
			return nil
		})
		if err != nil {
			t.Error(err)
		}
		for q, args := range map[string][]any{
			`SELECT COUNT(*) FROM local_change WHERE pass = $1`:                        {14},
			`SELECT COUNT(*) FROM roster WHERE pass = $1`:                              {14},
			`SELECT COUNT(*) FROM entry WHERE pass = $1`:                               {14},
			`SELECT COUNT(*) FROM delta WHERE deltas LIKE $1 OR change LIKE $2`:        {`%"p14"%`, `%neighbour%`},
			`SELECT COUNT(*) FROM chunk WHERE hash IN (SELECT $1 UNION ALL SELECT $2)`: {before.Chunks[0], before.Chunks[len(before.Chunks)-1]},
		} {
			var n int
			if err := s.store.r.QueryRow(q, args...).Scan(&n); err != nil || n != 0 {
				t.Errorf("%s: %d, %v", q, n, err)
			}
		}
		if bad, err := s.Verify(ctx, "", ""); err != nil || len(bad) > 0 {
			t.Errorf("%v %v", bad, err)
		}
	}
	gone()
	after := d.ask(t, b, wire.Request{Nonce: "after", Registry: before.Version}).Registry
	if after == nil || after.Version <= before.Version || after.Rows != 9 || slices.Contains(after.Chunks, before.Chunks[0]) {
		t.Fatalf("published %+v, before %+v", after, before)
	}
	// The gate brings what it had from before, and what is new: the person is back.
	first := len(d.lines)
	visit(14, now-7_200_000)
	visit(21, now)
	d.want(t, d.send(t, b, first, len(d.lines)), len(d.lines))
	if err := s.eraseLate(ctx, time.Now()); err != nil {
		t.Fatal(err)
	}
	gone()
	first = len(d.lines)
	visit(14, time.Now().Add(time.Minute).UnixMilli())
	d.want(t, d.send(t, b, first, len(d.lines)), len(d.lines))
	if err := s.eraseLate(ctx, time.Now()); err != nil {
		t.Fatal(err)
	}
	if n := exported(14); n != 3 {
		t.Errorf("%d lines of what came after the erasure, want 3", n)
	}
	var orders int
	if err := s.eraseLate(ctx, time.Now().Add(2*longest)); err != nil {
		t.Fatal(err)
	}
	if err := s.store.r.QueryRow(`SELECT (SELECT COUNT(*) FROM erasure) + (SELECT COUNT(*) FROM erasure_mark)`).Scan(&orders); err != nil || orders != 0 {
		t.Errorf("%d orders are kept for ever, %v", orders, err)
	}
}
