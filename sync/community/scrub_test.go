package community

import (
	"bytes"
	"context"
	"database/sql"
	"fmt"
	"os"
	"path/filepath"
	"sync"
	"testing"
	"time"

	"gatehouse/edge"
)

// remains looks for texts in the files of a store.
func remains(t *testing.T, files []string, marks map[string][]byte) (found []string) {
	t.Helper()
	for _, f := range files {
		b, err := os.ReadFile(f)
		if os.IsNotExist(err) {
			continue
		}
		if err != nil {
			t.Fatal(err)
		}
		for name, m := range marks {
			if len(m) < 16 {
				t.Fatalf("%s is too short to be looked for", name)
			}
			if bytes.Contains(b, m) {
				found = append(found, filepath.Base(f)+" holds "+name)
			}
		}
	}
	return found
}

func TestNothingRemainsInTheFile(t *testing.T) {
	where := filepath.Join(t.TempDir(), "c.db")
	testRemains(t, where, func() []string { return []string{where, where + "-wal"} })
}

// What is destroyed is not in the store's files either: not the lines, nor the keys
// that would let a guess be confirmed, nor the rows, nor the roster's.
func testRemains(t *testing.T, where string, files func() []string) {
	s, b, _ := start(t, where)
	ctx := context.Background()
	now := time.Now()
	d := newDevice("estate", "east", 7, 1)
	register(t, s, d, "")
	// 50 days lie before the days that PostgreSQL keeps apart: what comes so late
	// goes where nothing is dropped.
	for i := range 600 {
		days := 50
		if i >= 300 {
			days = 2
		}
		d.add(fmt.Sprintf(`{"v":1,"kind":"decision","t":%d,"off":480,"actor":"guard:somebody-%d","facts":{"pass":{"id":%d,"category":"resident"}}}`,
			now.AddDate(0, 0, -days).UnixMilli(), i, i%3+1))
	}
	rows := roster(40, 0)
	if _, err := s.ImportRoster(ctx, "estate", rows, ImportOptions{}); err != nil {
		t.Fatal(err)
	}
	for i := 0; i < 600; i += 100 { // in pieces, which are joined
		d.want(t, d.send(t, b, i, i+100), i+100)
	}
	marks := func(first, end uint64, when string) map[string][]byte {
		out := map[string][]byte{}
		_ = s.store.pieces(ctx, s.store.r, 1, first, end, func(p *piece) error {
			out[fmt.Sprintf("lines at %d %s", p.first, when)] = p.data
			if len(p.key) > 0 {
				out[fmt.Sprintf("key at %d %s", p.first, when)] = p.key
			}
			return nil
		})
		return out
	}
	check := func(what string, m map[string][]byte) {
		t.Helper()
		if len(m) == 0 {
			t.Fatal("nothing to look for")
		}
		if s.checkpoint(t); len(remains(t, files(), m)) > 0 {
			t.Errorf("after %s: %v", what, remains(t, files(), m))
		}
	}
	old := marks(0, 256, "")
	for i := range 300 {
		old[fmt.Sprint("actor ", i)] = fmt.Appendf(nil, "guard:somebody-%d", i)
	}
	s.checkpoint(t)
	if n := len(remains(t, files(), old)); n < 200 {
		t.Fatalf("only %d of the marks are found before", n)
	}
	if got, err := s.purge(ctx, now, Retention{}); err != nil || got.Entries != 300 {
		t.Fatalf("%+v %v", got, err)
	}
	delete(old, "actor 30") // begins those of 300 and more
	for i := range 60 {
		delete(old, fmt.Sprint("actor ", i))
	}
	check("a purge", old)

	var row, chunk []byte
	err := s.store.r.QueryRow(`SELECT row FROM roster WHERE pass = 7`).Scan(&row)
	if err == nil {
		err = s.store.r.QueryRow(`SELECT data FROM chunk ORDER BY first LIMIT 1`).Scan(&chunk)
	}
	if err != nil {
		t.Fatal(err)
	}
	gone := marks(512, 600, "")
	gone["row of the roster"], gone["chunk of the roster"] = row, chunk[:200]
	for _, pass := range []edge.PassID{1, 2, 3, 7} {
		if _, err := s.ErasePerson(ctx, "estate", pass, "test"); err != nil {
			t.Fatal(err)
		}
	}
	for i := 300; i < 600; i++ {
		gone[fmt.Sprint("actor ", i)] = fmt.Appendf(nil, "guard:somebody-%d", i)
	}
	check("an erasure", gone)

	var identity []byte
	if err := s.store.r.QueryRow(`SELECT identity FROM registry`).Scan(&identity); err != nil {
		t.Fatal(err)
	}
	if err := s.RevokeGate(ctx, "estate", "east", d.key.Public(), "test"); err != nil {
		t.Fatal(err)
	}
	check("a new content key", map[string][]byte{"the old one": identity})
}

// What somebody may still read is not said to be off the medium, and goes with the next
// enforcement.
func testRemainsBesideReader(t *testing.T, where string, files func() []string) {
	s, b, _ := start(t, where)
	ctx := context.Background()
	d := newDevice("estate", "east", 7, 1)
	register(t, s, d, "")
	marks := map[string][]byte{}
	for i := range 10 {
		d.add(fmt.Sprintf(`{"v":1,"kind":"decision","t":%d,"actor":"guard:somebody-%d","facts":{"pass":{"id":1}}}`, time.Now().AddDate(0, 0, -50).UnixMilli(), i))
		marks[fmt.Sprint("actor ", i)] = fmt.Appendf(nil, "guard:somebody-%d", i)
	}
	d.want(t, d.send(t, b, 0, 10), 10)
	err := s.store.view(ctx, func(q querier) error {
		var n int
		if err := q.QueryRowContext(ctx, `SELECT COUNT(*) FROM gate`).Scan(&n); err != nil {
			return err
		}
		short, cancel := context.WithTimeout(ctx, 8*time.Second)
		defer cancel()
		if d, err := s.purge(short, time.Now(), Retention{}); err == nil || d.Entries != 10 {
			t.Errorf("%+v %v beside one who reads", d, err)
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	if d, err := s.purge(ctx, time.Now(), Retention{}); err != nil || d.Entries != 0 {
		t.Errorf("%+v %v afterwards", d, err)
	}
	s.checkpoint(t)
	if found := remains(t, files(), marks); len(found) > 0 {
		t.Errorf("remain: %v", found)
	}
}

// The WAL is emptied beside somebody who writes all the time, and after somebody who
// reads has gone.
func TestScrubBesideOthers(t *testing.T) {
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	s, err := openStore(ctx, filepath.Join(t.TempDir(), "c.db"))
	if err != nil {
		t.Fatal(err)
	}
	defer s.close()
	write := func() {
		if err := s.write(ctx, func(tx *sql.Tx) error {
			_, err := tx.ExecContext(ctx, `INSERT INTO erasure (site, pass, at, by) VALUES ('estate', 1, 1, 'x') ON CONFLICT (site, pass) DO UPDATE SET at = at + 1`)
			return err
		}); err != nil {
			t.Error(err)
		}
	}
	write()
	reader, err := s.r.BeginTx(ctx, &sql.TxOptions{ReadOnly: true})
	if err != nil {
		t.Fatal(err)
	}
	var n int
	if err := reader.QueryRowContext(ctx, `SELECT COUNT(*) FROM erasure`).Scan(&n); err != nil || n != 1 {
		t.Fatal(n, err)
	}
	scrubbed, stop := make(chan error, 1), make(chan struct{})
	var writer sync.WaitGroup
	writer.Go(func() {
		for {
			select {
			case <-stop:
				return
			default:
				write()
			}
		}
	})
	defer writer.Wait()
	defer close(stop)
	go func() { scrubbed <- s.bulk.scrub(ctx, s.w) }()
	for range 20 { // they go on while it tries
		write()
	}
	select {
	case err := <-scrubbed:
		t.Fatalf("emptied under a reader: %v", err)
	default:
	}
	if err := reader.Rollback(); err != nil {
		t.Fatal(err)
	}
	if err := <-scrubbed; err != nil {
		t.Error(err)
	}
}

// checkpoint brings to PostgreSQL's files what is in its memory.
func (s *Server) checkpoint(t *testing.T) {
	if _, ok := s.store.bulk.(*postgresBulk); ok {
		if _, err := s.store.w.Exec(`CHECKPOINT`); err != nil {
			t.Fatal(err)
		}
	}
}

// A batch that is being stored while its day's partition is dropped is not dropped
// with it.
func testRetireLate(t *testing.T, where string) {
	ctx := context.Background()
	s, b, _ := start(t, where)
	now := time.Now()
	d := newDevice("estate", "east", 7, 1)
	d.add(aged(now, "device", 1, 40))
	register(t, s, d, "")
	d.want(t, d.send(t, b, 0, 1), 1)
	late, err := s.store.w.BeginTx(ctx, nil)
	if err != nil {
		t.Fatal(err)
	}
	at := now.AddDate(0, 0, -40).UnixMilli()
	if _, err := late.Exec(`INSERT INTO entry (log, seq, at, kind) VALUES (1, 1, $1, 'device')`, at); err != nil {
		t.Fatal(err)
	}
	retired := make(chan error, 1)
	go func() {
		_, err := s.store.bulk.retire(ctx, s.store.w, now.AddDate(0, 0, -28).UnixMilli())
		retired <- err
	}()
	for waiting := 0; waiting == 0; {
		if err := s.store.r.QueryRow(`SELECT COUNT(*) FROM pg_stat_activity WHERE wait_event_type = 'Lock' AND datname = current_database()`).Scan(&waiting); err != nil {
			t.Fatal(err)
		}
		select {
		case err := <-retired:
			t.Fatalf("retired beside a transaction that writes: %v", err)
		default:
		}
	}
	if err := late.Commit(); err != nil {
		t.Fatal(err)
	}
	if err := <-retired; err != nil {
		t.Fatal(err)
	}
	var table string
	if err := s.store.r.QueryRow(`SELECT tableoid::regclass::text FROM entry WHERE log = 1 AND seq = 1`).Scan(&table); err != nil {
		t.Fatalf("the late entry: %v", err)
	}
	if table != "entry_rest" {
		t.Errorf("the late entry is in %s", table)
	}
}

// pgFiles are those that hold the tables of a database.
func (c *cluster) pgFiles(t *testing.T, db *sql.DB) []string {
	t.Helper()
	var out []string
	rows, err := db.Query(`SELECT pg_relation_filepath(oid) FROM pg_class WHERE relkind IN ('r', 'i', 't') AND relnamespace <> 'pg_catalog'::regnamespace AND pg_relation_filepath(oid) IS NOT NULL`)
	err = each(rows, err, func() error {
		var p string
		err := rows.Scan(&p)
		out = append(out, filepath.Join(c.data(), p))
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	return out
}
