package community

import (
	"bytes"
	"context"
	"encoding/base64"
	"fmt"
	"io"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"filippo.io/age"

	"gatehouse/edge"
)

func TestCarried(t *testing.T) { testCarried(t, filepath.Join(t.TempDir(), "c.db")) }

// What an epoch carries over is found, kept, relayed and erased as if it had come by
// itself: an entry, one that was carried before, and a sealed run.
func testCarried(t *testing.T, where string) {
	ctx := context.Background()
	id, err := age.GenerateX25519Identity()
	if err != nil {
		t.Fatal(err)
	}
	s, b, _ := start(t, where, func(c *Config) {
		c.Open = func(r io.Reader, limit int64) ([]byte, error) {
			p, err := age.Decrypt(r, id)
			if err != nil {
				return nil, err
			}
			return io.ReadAll(io.LimitReader(p, limit))
		}
	})
	now := time.Now()
	entry := func(kind string, days int, of int, rest string) string {
		x := fmt.Sprintf(`{"v":1,"kind":%q`, kind)
		if of >= 0 {
			x += fmt.Sprintf(`,"of":%d`, of)
		}
		return x + fmt.Sprintf(`,"t":%d,"off":480,"boot":"fa4ec10c","mono":1,"clock":"synced"%s}`, now.AddDate(0, 0, -days).UnixMilli(), rest)
	}
	decision := func(pass, days int) string {
		return entry("decision", days, -1, fmt.Sprintf(`,"outcome":"deny","facts":{"pass":{"id":%d,"category":"resident"}},"deltas":[{"c":"exits","s":"p%d","add":1}]`, pass, pass))
	}
	carry := func(seq int, line string) string {
		return entry("carried", 0, -1, fmt.Sprintf(`,"data":{"seq":%d,"entry":%s}`, seq, line))
	}
	seal := func(first int, lines ...string) string {
		var run []edge.Stored
		for i, l := range lines {
			run = append(run, edge.Stored{Seq: uint64(first + i), Line: []byte(l), Blind: &edge.Blind{byte(i)}})
		}
		plain, err := edge.SealedPlain(run)
		if err != nil {
			t.Fatal(err)
		}
		var sealed bytes.Buffer
		w, err := age.Encrypt(&sealed, id.Recipient())
		if err == nil {
			_, err = w.Write(plain)
		}
		if err == nil {
			err = w.Close()
		}
		if err != nil {
			t.Fatal(err)
		}
		return entry("carried", 0, -1, fmt.Sprintf(`,"data":{"seq":%d,"count":%d,"sealed":%q}`, first, len(lines), base64.StdEncoding.EncodeToString(sealed.Bytes())))
	}
	d, west := newDevice("estate", "east", 7, 1), newDevice("estate", "west", 9, 2)
	register(t, s, d, "")
	register(t, s, west, "")
	d.add(entry("epoch", 0, -1, `,"data":{"epoch":"0000000000000007","parent":"0000000000000006","forked":40,"size":50}`),
		/* 1 */ carry(40, decision(14, 2)),
		/* 2 */ carry(41, entry("passage", 2, 40, `,"result":"passed"`)),
		/* 3 */ carry(42, carry(8, decision(14, 3))),
		/* 4 */ carry(43, carry(9, entry("passage", 3, 8, `,"result":"not_passed"`))),
		/* 5 */ carry(44, decision(21, 40)),
		/* 6 */ carry(45, entry("registry", 2, -1, fmt.Sprintf(`,"data":{"pass":30,"status":"suspended","at":%d}`, now.AddDate(0, 0, -2).UnixMilli()))),
		/* 7 */ seal(46, decision(14, 20), decision(33, 21), entry("registry", 22, -1, fmt.Sprintf(`,"data":{"pass":31,"status":"lost","at":%d}`, now.AddDate(0, 0, -22).UnixMilli()))),
		/* 8 */ seal(49, decision(14, 35)),
		/* 9 */ carry(50, `{"not an entry":1}`),
		/* 10 */ decision(21, 0))
	d.want(t, d.send(t, b, 0, len(d.lines)), len(d.lines))

	query := func(f Filter) (out []string) {
		t.Helper()
		rows, err := s.Query(ctx, f)
		if err != nil {
			t.Fatal(err)
		}
		for _, r := range rows {
			of := int64(-1)
			if r.Of != nil {
				of = *r.Of
			}
			out = append(out, fmt.Sprint(r.Seq, " ", r.Kind, " ", of))
		}
		slices.Sort(out)
		return out
	}
	for _, c := range []struct {
		f    Filter
		want []string
	}{
		{Filter{Pass: 14}, []string{"1 decision -1", "3 decision -1"}},
		{Filter{Outcome: "deny"}, []string{"1 decision -1", "10 decision -1", "3 decision -1", "5 decision -1"}},
		{Filter{Kind: "passage"}, []string{"2 passage 1", "4 passage 3"}},
		{Filter{Kind: "carried"}, []string{"7 carried -1", "8 carried -1", "9 carried -1"}},
		{Filter{From: now.AddDate(0, 0, -21).UnixMilli(), To: now.AddDate(0, 0, -10).UnixMilli()}, []string{"7 carried -1"}},
	} {
		if got := query(c.f); !slices.Equal(got, c.want) {
			t.Errorf("%+v: %q, want %q", c.f, got, c.want)
		}
	}
	told := map[uint64]string{}
	for _, e := range peers(t, b, west).Entries {
		told[e.Seq] = fmt.Sprint(len(e.Deltas), string(e.Change))
	}
	if len(told) != 7 || told[1] != "1" || told[3] != "1" || !strings.Contains(told[6], "suspended") || !strings.HasPrefix(told[7], `2{"pass":31,"status":"lost"`) {
		t.Errorf("peers were told %v", told)
	}
	if l, err := localChanges(ctx, s.store.r, "estate"); err != nil || l[30].status != "suspended" || l[31].status != "lost" {
		t.Errorf("local changes %v %v", l, err)
	}

	// By their own age.
	if got, err := s.purge(ctx, now, Retention{}); err != nil || got.Entries != 2 {
		t.Fatalf("%+v %v, want 5 and 8 to go", got, err)
	}
	exported := 0
	if err := s.ExportPerson(ctx, "estate", 14, func(line []byte) error {
		if bytes.Contains(line, []byte("sealed")) {
			t.Error("what is exported is sealed")
		}
		exported++
		return nil
	}); err != nil || exported != 5 {
		t.Errorf("%d lines of a person, %v", exported, err)
	}
	if got, err := s.ErasePerson(ctx, "estate", 14, "test"); err != nil || got.Entries != 5 {
		t.Errorf("%+v %v, want 1 to 4 and 7 to go", got, err)
	}
	if got := query(Filter{}); !slices.Equal(got, []string{"0 epoch -1", "10 decision -1", "6 registry -1", "9 carried -1"}) {
		t.Errorf("left: %q", got)
	}
	if bad, err := s.Verify(ctx, "", ""); err != nil || len(bad) > 0 {
		t.Errorf("%v %v", bad, err)
	}
}

// Whatever a gate says that it carries, its row refers to nothing that comes later,
// and what cannot be read is kept as it is.
func FuzzCarried(f *testing.F) {
	for _, s := range []string{
		`{"seq":4,"entry":{"v":1,"kind":"decision","t":5,"facts":{"pass":{"id":3}}}}`,
		`{"seq":5,"entry":{"v":1,"kind":"passage","of":4,"t":5}}`,
		`{"seq":5,"entry":{"v":1,"kind":"carried","t":5,"data":{"seq":9,"entry":{"v":1,"kind":"passage","of":9}}}}`,
		`{"seq":5,"count":2,"sealed":"AAAA"}`, `{"seq":-1,"entry":{}}`, `{"entry":7}`, `[]`, ``,
		`{"seq":5,"count":1,"sealed":"` + base64.StdEncoding.EncodeToString(append(make([]byte, 32), "{\"v\":1,\"kind\":\"registry\",\"t\":9,\"deltas\":[{}],\"data\":{}}\n"...)) + `"}`,
	} {
		f.Add([]byte(s), []byte(s))
	}
	f.Fuzz(func(t *testing.T, a, b []byte) {
		u := unwrapper{now: 1_700_000_000_000, open: func(r io.Reader, limit int64) ([]byte, error) { return io.ReadAll(io.LimitReader(r, limit)) }}
		for seq, data := range [][]byte{a, b} {
			c := columns{of: -1, kind: []byte("carried"), time: 77, data: data}
			u.unwrap(uint64(seq), &c)
			c.clean()
			if c.of > int64(seq) || len(c.kind) == 0 {
				t.Fatalf("entry %d: %+v", seq, c)
			}
			if len(c.deltas) > 0 && c.deltas[0] != '[' && string(c.kind) == "carried" {
				t.Fatalf("deltas %q", c.deltas)
			}
		}
	})
}
