package community

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"path/filepath"
	"testing"
	"time"

	"gatehouse/edge"
)

// aged is a line of a given kind about a pass, d days before now.
func aged(now time.Time, kind string, pass, days int) string {
	return fmt.Sprintf(`{"v":1,"kind":%q,"t":%d,"off":480,"facts":{"pass":{"id":%d,"category":"resident"}},"deltas":[{"c":"exits","s":"h1","add":1}]}`,
		kind, now.AddDate(0, 0, -days).UnixMilli(), pass)
}

func TestPurge(t *testing.T) { testPurge(t, filepath.Join(t.TempDir(), "c.db")) }

func testPurge(t *testing.T, where string) {
	s, b, stop := start(t, where)
	ctx := context.Background()
	now := time.Now()
	d := newDevice("estate", "east", 7, 1)
	for i := range 600 {
		switch {
		case i%50 == 0:
			d.add(aged(now, "device", 0, 40-i/20)) // outlives
		default:
			d.add(aged(now, "decision", i%7+1, 40-i/20)) // 40 days old at first, 10 at last
		}
	}
	register(t, s, d, "")
	d.want(t, d.send(t, b, 0, 300), 300)
	d.want(t, d.send(t, b, 300, 560), 560)
	got, err := s.purge(ctx, now, Retention{})
	if err != nil {
		t.Fatal(err)
	}
	// 28 days are reached at i = 240, where the time itself is a little less than the
	// limit; every fiftieth stays.
	if want := int64(240 - 5); got.Entries < want-20 || got.Entries > want+20 {
		t.Fatalf("%+v", got)
	}
	cs, err := s.Counts(ctx, "estate", "east")
	if err != nil || cs[0].Missing != 0 || cs[0].Destroyed != uint64(got.Entries) || cs[0].Size != 560 {
		t.Fatalf("%+v %v", cs, err)
	}
	verified := func() {
		t.Helper()
		if bad, err := s.Verify(ctx, "", ""); err != nil || len(bad) > 0 {
			t.Fatalf("%v %v", bad, err)
		}
	}
	verified()
	if _, err := s.Entry(ctx, "estate", "east", 7, 3); !errors.Is(err, edge.ErrPurged) {
		t.Errorf("entry 3: %v", err)
	}
	for _, seq := range []uint64{50, 100, 300, 559} {
		p, err := s.Prove(ctx, "estate", "east", 7, seq)
		if err != nil || !bytes.Equal(p.Line, d.lines[seq]) {
			t.Fatalf("%d: %v", seq, err)
		}
		v, err := edge.HeadVerifier(d.key.name, d.key.Public())
		if err != nil {
			t.Fatal(err)
		}
		if _, _, err := edge.CheckProof(p.Encode(), v); err != nil {
			t.Errorf("%d: %v", seq, err)
		}
	}
	// No bytes from which the blind of a destroyed entry could be had are left.
	var keys int
	if err := s.store.r.QueryRow(`SELECT COUNT(*) FROM block WHERE first < 256 AND length(key) > 0`).Scan(&keys); err != nil || keys != 0 {
		t.Errorf("%d keys of the first block are left, %v", keys, err)
	}
	blind := d.keys[0].Blind(3)
	_ = s.store.pieces(ctx, s.store.r, 1, 0, 600, func(p *piece) error {
		if bytes.Contains(p.blinds, blind[:]) {
			t.Error("the blind of a destroyed entry is left")
		}
		return nil
	})
	// Nothing more to do, and the log goes on.
	if again, err := s.purge(ctx, now, Retention{}); err != nil || again.Entries != 0 {
		t.Errorf("%+v %v", again, err)
	}
	d.want(t, d.send(t, b, 560, 570), 570)
	var person []string
	if err := s.ExportPerson(ctx, "estate", 3, func(line []byte) error { person = append(person, string(line)); return nil }); err != nil {
		t.Fatal(err)
	}
	of, err := s.Query(ctx, Filter{Pass: 3, Limit: 1000})
	if err != nil || len(person) != len(of) || len(person) == 0 {
		t.Fatalf("%d lines of a person, %d rows, %v", len(person), len(of), err)
	}
	for i, r := range of { // the newest first
		if person[len(person)-1-i] != string(d.lines[r.Seq]) {
			t.Errorf("line %d is not entry %d", i, r.Seq)
		}
	}
	// A person of whom there are entries in all blocks, the incomplete one included.
	er, err := s.ErasePerson(ctx, "estate", 3, "test")
	if err != nil || er.Entries == 0 {
		t.Fatalf("%+v %v", er, err)
	}
	if rows, err := s.Query(ctx, Filter{Pass: 3}); err != nil || len(rows) != 0 {
		t.Errorf("%v %v", rows, err)
	}
	verified()
	stop()
	s, b, _ = start(t, where)
	d.want(t, d.send(t, b, 565, 580), 580)
	if err := s.store.r.QueryRow(`SELECT COUNT(*) FROM block WHERE first >= 512 AND length(key) > 0`).Scan(&keys); err != nil || keys != 0 {
		t.Errorf("the key of the incomplete block came back, %v", err)
	}
	d.want(t, d.send(t, b, 580, 600), 600)
	for len(d.lines) < 800 {
		d.add(aged(now, "decision", 2, 1))
	}
	d.want(t, d.send(t, b, 600, 800), 800)
	verified()
	// Days that were retired may still come late.
	for i := range 50 {
		d.add(aged(now, "decision", 2, 30+i%9))
	}
	d.want(t, d.send(t, b, 800, 850), 850)
	verified()
	if got, err = s.purge(ctx, now, Retention{}); err != nil || got.Entries != 50 {
		t.Fatalf("%+v %v", got, err)
	}
	verified()
	// What is not there without a record is found.
	if _, err := s.store.w.Exec(`DELETE FROM deletion WHERE first = (SELECT MIN(first) FROM deletion)`); err != nil {
		t.Fatal(err)
	}
	if bad, err := s.Verify(ctx, "", ""); err != nil || len(bad) == 0 {
		t.Error("destroyed content without a record was not found")
	}
}

// Whatever is changed behind the server's back is found and named.
func TestVerifyFindsChanges(t *testing.T) {
	for name, q := range map[string]string{
		"row gone":     `DELETE FROM entry WHERE seq = 5`,
		"leaf changed": `UPDATE leaf SET hashes = CAST(zeroblob(length(hashes)) AS BLOB) WHERE first = 0`,
		"leaf gone":    `DELETE FROM leaf WHERE first = 256`,
		"block gone":   `DELETE FROM block WHERE first = 0`,
		"key changed":  `UPDATE block SET key = zeroblob(32) WHERE first = 256`,
		"data changed": `UPDATE block SET data = (SELECT data FROM block WHERE first = 0) WHERE first = 256`,
		"data broken":  `UPDATE block SET data = X'00' WHERE first = 256`,
		"head changed": `UPDATE log SET head = CAST(replace(CAST(head AS TEXT), '700', '701') AS BLOB)`,
	} {
		s, b, _ := start(t, filepath.Join(t.TempDir(), "c.db"))
		d := newDevice("estate", "east", 7, 1)
		d.addLines(700)
		register(t, s, d, "")
		d.want(t, d.send(t, b, 0, 700), 700)
		if _, err := s.store.w.Exec(q); err != nil {
			t.Fatal(err)
		}
		bad, err := s.Verify(context.Background(), "", "")
		if err != nil || len(bad) == 0 {
			t.Errorf("%s: %v %v", name, bad, err)
		}
	}
}
