package journal

import (
	"bytes"
	"context"
	"database/sql"
	"database/sql/driver"
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"modernc.org/sqlite"

	"gatehouse/edge"
	"gatehouse/edge/clock"
)

// filled makes a journal of n entries and returns its path and last head.
func filled(t *testing.T, n int) (path string, early, last edge.Head) {
	t.Helper()
	ctx := context.Background()
	clk := clock.NewFake(epochStart, 480)
	path = filepath.Join(t.TempDir(), "journal.db")
	j := open(t, path, options(t, clk))
	for i := range n {
		clk.Advance(time.Minute)
		if _, err := j.Append(ctx, decision(clk, i+1, edge.Admit, add(exits(i%9), 1)), nil); err != nil {
			t.Fatal(err)
		}
		if i == n/3 {
			var err error
			if early, err = j.Head(ctx); err != nil {
				t.Fatal(err)
			}
		}
	}
	last, err := j.Head(ctx)
	if err != nil {
		t.Fatal(err)
	}
	if err := j.Acknowledge(ctx, j.Epoch(), uint64(n/2), last.Note); err != nil {
		t.Fatal(err)
	}
	if err := errors.Join(j.storeCells(ctx), j.db.Checkpoint(ctx)); err != nil {
		t.Fatal(err)
	}
	if err := j.Close(); err != nil {
		t.Fatal(err)
	}
	return path, early, last
}

func verify(t *testing.T, path string) (*Reader, *Report) {
	t.Helper()
	r, err := Inspect(context.Background(), path)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { r.Close() })
	rep, err := r.Verify(context.Background(), nil)
	if err != nil {
		t.Fatal(err)
	}
	return r, rep
}

func TestVerifyClean(t *testing.T) {
	path, early, last := filled(t, 700)
	r, rep := verify(t, path)
	if len(rep.Findings) != 0 || rep.Size != 701 || rep.Root != [32]byte(last.Root) {
		t.Fatalf("%+v", rep.Findings)
	}
	since := func(h edge.Head) (string, bool) {
		t.Helper()
		text, ok, err := r.Since(context.Background(), rep, h)
		if err != nil {
			t.Fatal(err)
		}
		return text, ok
	}
	if text, ok := since(early); !ok {
		t.Error(text)
	}
	forged := early
	forged.Root[3] ^= 1
	if text, ok := since(forged); ok || !strings.Contains(text, "something was changed") {
		t.Error(text)
	}
	longer := last
	longer.Size += 5
	if text, ok := since(longer); ok || !strings.Contains(text, "5 are not here") {
		t.Error(text)
	}
	p, err := r.Prove(context.Background(), rep, 123, "")
	if err != nil {
		t.Fatal(err)
	}
	v, err := edge.HeadVerifier("c/s/g", options(t, clock.NewFake(epochStart, 480)).Signer.Public())
	if err != nil {
		t.Fatal(err)
	}
	got, head, err := edge.CheckProof(p.Encode(), v)
	if err != nil || got.Seq != 123 || head.Size != 701 {
		t.Errorf("the proof does not check: %v", err)
	}
}

// changed is for SQL of tests: a line as it is kept, with other content.
func init() {
	sqlite.MustRegisterDeterministicScalarFunction("changed", 3, func(_ *sqlite.FunctionContext, args []driver.Value) (driver.Value, error) {
		line, err := unpack(args[0].([]byte))
		return pack(bytes.ReplaceAll(line, []byte(args[1].(string)), []byte(args[2].(string)))), err
	})
}

// Whatever is changed in the database, verify finds it and says where.
func TestVerifyNamesWhatWasChanged(t *testing.T) {
	for _, c := range []struct{ name, sql, want string }{
		{"a line", "UPDATE entry SET line=changed(line, 'admit', 'deny!') WHERE seq=300", "300 its content or its leaf hash was changed"},
		{"a packed line cut short", "UPDATE entry SET line=substr(line, 1, 20) WHERE seq=300", "300 entry is not JSON"},
		{"a packed line that grows without end", "UPDATE entry SET line=x'01ffffffff0f00' WHERE seq=300", "300 entry is not JSON"},
		{"an entry removed", "DELETE FROM entry WHERE seq=300", "300 it is missing"},
		{"a leaf", "UPDATE hash SET h=randomblob(32) WHERE i=(SELECT i FROM hash ORDER BY i LIMIT 1)", "0 its content or its leaf hash was changed"},
		{"a key", "UPDATE block SET key=randomblob(32) WHERE first=256", "256 its content or its leaf hash was changed"},
		{"a key lost", "DELETE FROM block WHERE first=256", "256 damaged: no key for entry 256"},
		{"a counter", "UPDATE cell SET local=local-1 WHERE subject='h3'", "-1 exits of h3 is"},
		{"a counter ahead of the others", "UPDATE cell SET local=local-1, seq=600 WHERE subject='h3'; UPDATE meta SET v=100 WHERE k='cells'", "-1 exits of h3 is"},
		{"a counter lost", "DELETE FROM cell WHERE subject='h3'", "-1 exits of h3 is lost"},
		{"not JSON", "UPDATE entry SET line=x'00' WHERE seq=7", "7 entry is not JSON"},
	} {
		t.Run(c.name, func(t *testing.T) {
			path, _, _ := filled(t, 600)
			db, err := sql.Open("sqlite", path)
			if err != nil {
				t.Fatal(err)
			}
			if _, err := db.Exec(c.sql); err != nil {
				t.Fatal(err)
			}
			db.Close()
			_, rep := verify(t, path)
			var all []string
			for _, f := range rep.Findings {
				all = append(all, fmt.Sprintf("%d %s", f.Seq, f.Text))
			}
			if !strings.Contains(strings.Join(all, "\n"), c.want) {
				t.Errorf("found %v, want %q", all, c.want)
			}
		})
	}
}

// A bit flipped anywhere in the file is found: by verify, or because the file
// cannot be opened. Only bytes that hold nothing may go unnoticed.
func TestBitFlipsAreFound(t *testing.T) {
	path, _, last := filled(t, 300)
	clean, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	rng := flipping(t)
	unnoticed := 0
	const flips = 60
	for range flips {
		b := append([]byte(nil), clean...)
		at := rng.IntN(len(b))
		b[at] ^= 1 << rng.IntN(8)
		p := filepath.Join(t.TempDir(), "journal.db")
		if err := os.WriteFile(p, b, 0o600); err != nil {
			t.Fatal(err)
		}
		found := func() bool {
			r, err := Inspect(context.Background(), p)
			if err != nil {
				return true
			}
			defer r.Close()
			rep, err := r.Verify(context.Background(), nil)
			return err != nil || len(rep.Findings) > 0
		}()
		if !found {
			// Nothing that matters was touched: every entry is as it was.
			if rep := reread(t, p); rep != [32]byte(last.Root) {
				t.Errorf("byte %d: a change went unnoticed", at)
			}
			unnoticed++
		}
	}
	t.Logf("%d of %d flips hit nothing that is kept", unnoticed, flips)
}

// flipping draws where bits flip; GATEHOUSE_TEST_SEED repeats a run.
func flipping(t *testing.T) *rand.Rand {
	t.Helper()
	seed := uint64(time.Now().UnixNano())
	if text := os.Getenv("GATEHOUSE_TEST_SEED"); text != "" {
		var err error
		if seed, err = strconv.ParseUint(text, 10, 64); err != nil {
			t.Fatal(err)
		}
	}
	t.Logf("GATEHOUSE_TEST_SEED=%d", seed)
	return rand.New(rand.NewPCG(seed, 1))
}

// A bit flipped in an entry is found, and the entry is named.
func TestBitFlipInAnEntryNamesIt(t *testing.T) {
	path, _, _ := filled(t, 300)
	clean, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	r, err := Inspect(t.Context(), path)
	if err != nil {
		t.Fatal(err)
	}
	entries, err := r.Read(t.Context(), 0, 1000, 8<<20)
	if err != nil {
		t.Fatal(err)
	}
	kept := map[uint64][]byte{}
	rows, err := r.db.R.Query("SELECT seq, line FROM entry")
	if err != nil {
		t.Fatal(err)
	}
	defer rows.Close()
	for rows.Next() {
		var seq uint64
		var line []byte
		if err := rows.Scan(&seq, &line); err != nil {
			t.Fatal(err)
		}
		kept[seq] = line
	}
	if err := errors.Join(rows.Err(), rows.Close(), r.Close()); err != nil {
		t.Fatal(err)
	}
	rng := flipping(t)
	tried := 0
	for range 60 {
		e := entries[rng.IntN(len(entries))]
		// A line lies in pieces on several pages; a piece that is nowhere else does.
		const piece = 12
		line := kept[e.Seq]
		from := rng.IntN(len(line) - piece)
		part := line[from : from+piece]
		if bytes.Count(clean, part) != 1 {
			continue
		}
		b := bytes.Clone(clean)
		off, bit := rng.IntN(piece), byte(1)<<rng.IntN(8)
		at := bytes.Index(b, part) + off
		b[at] ^= bit
		line = bytes.Clone(line)
		line[from+off] ^= bit
		if got, err := unpack(line); err == nil && bytes.Equal(got, e.Line) {
			continue // packed in another way, and the same
		}
		tried++
		p := filepath.Join(t.TempDir(), "journal.db")
		if err := os.WriteFile(p, b, 0o600); err != nil {
			t.Fatal(err)
		}
		_, rep := verify(t, p)
		if !slices.ContainsFunc(rep.Findings, func(f Finding) bool { return f.Seq == int64(e.Seq) }) {
			t.Errorf("byte %d is of entry %d; found: %v", at, e.Seq, rep.Findings)
		}
	}
	if tried < 10 {
		t.Errorf("only %d flips were tried", tried)
	}
}

func reread(t *testing.T, path string) [32]byte {
	_, rep := verify(t, path)
	return rep.Root
}

// What no stored leaf speaks of yet, the server's receipt does, and a witness.
func TestKeptHeadsAreHeldAgainstTheEntries(t *testing.T) {
	ctx := t.Context()
	clk := clock.NewFake(epochStart, 480)
	made := filepath.Join(t.TempDir(), "journal.db")
	j := open(t, made, options(t, clk))
	for i := range 40 {
		if _, err := j.Append(ctx, decision(clk, i+1, edge.Admit), nil); err != nil {
			t.Fatal(err)
		}
	}
	h, err := j.HeadAt(ctx, j.Size())
	if err != nil {
		t.Fatal(err)
	}
	if err := errors.Join(j.Acknowledge(ctx, j.Epoch(), h.Size, h.Note), j.db.Checkpoint(ctx), j.Close()); err != nil {
		t.Fatal(err)
	}
	if _, rep := verify(t, made); len(rep.Findings) > 0 || rep.Sealed > 0 {
		t.Fatalf("as it was made, %d sealed: %v", rep.Sealed, rep.Findings)
	}
	for what, c := range map[string]struct{ change, want string }{
		"the end is gone":     {"DELETE FROM entry WHERE seq>=31", "the head of the server's receipt disagrees: the journal has 31 entries"},
		"and the receipt":     {"DELETE FROM entry WHERE seq>=31; DELETE FROM meta WHERE k='receipt'", "the server has receipted 41 entries, and 31 are here"},
		"two are exchanged":   {"UPDATE entry SET line=(SELECT line FROM entry WHERE seq=8) WHERE seq=7", "the head of the server's receipt disagrees: the first 41 entries are not"},
		"another's witness":   {"INSERT INTO meta(k, v) SELECT 'witness:notary', replace(v, '\n41\n', '\n42\n') FROM meta WHERE k='receipt'", "the head that notary has cosigned disagrees"},
		"nobody's witness":    {"INSERT INTO meta(k, v) SELECT 'witness:request', replace(v, '\n41\n', '\n42\n') FROM meta WHERE k='receipt'", "the head of the last request to a witness disagrees"},
		"the receipt is none": {"UPDATE meta SET v='x' WHERE k='receipt'", "the head of the server's receipt cannot be read"},
	} {
		t.Run(what, func(t *testing.T) {
			b, err := os.ReadFile(made)
			if err != nil {
				t.Fatal(err)
			}
			path := filepath.Join(t.TempDir(), "journal.db")
			if err := os.WriteFile(path, b, 0o600); err != nil {
				t.Fatal(err)
			}
			db, err := sql.Open("sqlite", "file:"+path)
			if err != nil {
				t.Fatal(err)
			}
			if _, err := db.Exec(c.change); err != nil {
				t.Fatal(err)
			}
			if err := db.Close(); err != nil {
				t.Fatal(err)
			}
			r, rep := verify(t, path)
			var all strings.Builder
			for _, f := range rep.Findings {
				all.WriteString(f.Text + "\n")
			}
			if !strings.Contains(all.String(), c.want) {
				t.Errorf("found: %s", all.String())
			}
			if what == "two are exchanged" {
				if _, err := r.Prove(ctx, rep, 3, ""); err == nil {
					t.Error("an entry is proved under a head that does not prove it")
				}
			}
		})
	}
}

// The daemon goes on beside who verifies: neither what it records nor what it destroys
// meanwhile is damage.
func TestVerifyBesideTheDaemon(t *testing.T) {
	ctx := t.Context()
	for what, do := range map[string]func(*Journal, *clock.Fake) error{
		"entries come": func(j *Journal, clk *clock.Fake) error {
			for i := range 2 * edge.BlockSize {
				if _, err := j.Append(ctx, decision(clk, i+1, edge.Admit), nil); err != nil {
					return err
				}
			}
			return nil
		},
		"entries go": func(j *Journal, clk *clock.Fake) error {
			n, err := j.Purge(ctx, time.UnixMilli(clk.Now().Time))
			if err == nil && n == 0 {
				err = errors.New("none went")
			}
			return err
		},
	} {
		t.Run(what, func(t *testing.T) {
			clk := clock.NewFake(epochStart, 480)
			path := filepath.Join(t.TempDir(), "journal.db")
			j := open(t, path, options(t, clk))
			defer j.Close()
			fill(t, j, clk, 2200)
			clk.Advance(time.Hour)
			if err := j.Acknowledge(ctx, j.Epoch(), j.Size(), nil); err != nil {
				t.Fatal(err)
			}
			h, err := j.Head(ctx)
			if err != nil {
				t.Fatal(err)
			}
			r, err := Inspect(ctx, path)
			if err != nil {
				t.Fatal(err)
			}
			defer r.Close()
			did := false
			rep, err := r.Verify(ctx, func(done, all uint64) {
				if done < all && !did {
					did = true
					if err := do(j, clk); err != nil {
						t.Error(err)
					}
				}
			})
			if err != nil || !did {
				t.Fatal(err, did)
			}
			if len(rep.Findings) > 0 {
				t.Errorf("%d findings: %v ...", len(rep.Findings), rep.Findings[0])
			}
			if text, ok := rep.extends(h); !ok || rep.Size != h.Size {
				t.Errorf("%d entries, of %d: %s", rep.Size, h.Size, text)
			}
		})
	}
}

// An epoch that begins while somebody verifies takes the entries away from under them:
// that is said, and nothing is found.
func TestVerifyWhileAnEpochBegins(t *testing.T) {
	ctx := t.Context()
	clk := clock.NewFake(epochStart, 480)
	path := filepath.Join(t.TempDir(), "journal.db")
	j := open(t, path, options(t, clk))
	defer j.Close()
	fill(t, j, clk, 2200)
	if err := j.Acknowledge(ctx, j.Epoch(), j.Size(), nil); err != nil {
		t.Fatal(err)
	}
	r, err := Inspect(ctx, path)
	if err != nil {
		t.Fatal(err)
	}
	defer r.Close()
	did := false
	rep, err := r.Verify(ctx, func(uint64, uint64) {
		if !did {
			did = true
			if err := j.NewEpoch(ctx, 2000, "test"); err != nil {
				t.Error(err)
			}
		}
	})
	if err == nil || !strings.Contains(err.Error(), "a new epoch has begun") {
		t.Errorf("%v, %v", rep.Findings, err)
	}
	if err := r.Refresh(ctx); err != nil {
		t.Fatal(err)
	}
	if rep, err := r.Verify(ctx, nil); err != nil || len(rep.Findings) > 0 {
		t.Errorf("%v, %v", rep.Findings, err)
	}
}
