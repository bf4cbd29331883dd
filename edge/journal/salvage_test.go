package journal

import (
	"encoding/json"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"gatehouse/edge"
	"gatehouse/edge/clock"
	"gatehouse/edge/sqlite"
)

// hurt overwrites a part of a file, in the middle of it.
func hurt(t *testing.T, path string, from, to float64) {
	t.Helper()
	b, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	for i := int(float64(len(b)) * from); i < int(float64(len(b))*to); i++ {
		b[i] = 0x5A
	}
	if err := os.WriteFile(path, b, 0o600); err != nil {
		t.Fatal(err)
	}
}

// A journal with a hole in it begins again: what can be read of it that the server
// lacks is carried over verbatim, once, and the counters go on.
func TestSalvage(t *testing.T) {
	const n = 3000
	for _, c := range []struct {
		name     string
		from, to float64
		atLeast  uint64 // entries carried
	}{
		{"a hole in the middle", 0.5, 0.52, n / 2},
		{"a tenth", 0.3, 0.4, n / 4},
		{"nothing can be read", 0, 1, 0},
		{"cut to half", -1, 0.5, 0},
	} {
		t.Run(c.name, func(t *testing.T) {
			ctx := t.Context()
			dir := t.TempDir()
			path, aside := filepath.Join(dir, "journal.db"), filepath.Join(dir, "journal.db.damaged")
			o := options(t, clock.NewFake(epochStart, 480))
			j := open(t, path, o)
			want := map[string]bool{}
			var acked uint64 = 100
			for i := range n {
				e := &edge.Entry{Kind: edge.KindDecision, Of: -1, Actor: "lane", Stamp: o.Clock.Now(), Data: json.RawMessage(`{"n":` + strings.Repeat("7", i%50+1) + `}`), Presentation: uint64(i + 1),
					Deltas: []edge.Delta{{Cell: edge.Cell{Subject: "p7", Name: "exits"}, Op: edge.OpAdd, Value: 1}}}
				seq, err := j.Append(ctx, e, nil)
				if err != nil {
					t.Fatal(err)
				}
				s, err := j.Get(ctx, seq)
				if err != nil {
					t.Fatal(err)
				}
				if seq >= acked {
					want[string(s.Line)] = true
				}
			}
			if err := j.Acknowledge(ctx, j.Epoch(), acked, []byte("receipt")); err != nil {
				t.Fatal(err)
			}
			old := j.Epoch()
			if err := j.Close(); err != nil {
				t.Fatal(err)
			}
			if c.from < 0 {
				st, err := os.Stat(path)
				if err != nil {
					t.Fatal(err)
				}
				if err := os.Truncate(path, int64(float64(st.Size())*c.to)); err != nil {
					t.Fatal(err)
				}
			} else {
				hurt(t, path, c.from, c.to)
			}
			why := sqlite.Check(ctx, path, 20*time.Second)
			if !sqlite.IsDamage(why) {
				t.Fatalf("the damage is not seen: %v", why)
			}
			s := &Salvage{Aside: aside, Reason: why.Error()}
			j, err := SetAside(ctx, path, s, o)
			if err != nil {
				t.Fatal(err)
			}
			defer j.Close()
			// Open for business before anything is carried over.
			if _, err := j.Append(ctx, &edge.Entry{Kind: edge.KindStart, Of: -1, Actor: "system", Stamp: o.Clock.Now()}, nil); err != nil {
				t.Fatal(err)
			}
			r, err := j.Recover(ctx, s)
			if err != nil {
				t.Fatal(err)
			}
			if r.Carried < c.atLeast || r.Carried+r.Lost < c.atLeast {
				t.Errorf("carried %d, lost %d; want at least %d", r.Carried, r.Lost, c.atLeast)
			}
			carried := func() (n uint64) {
				if _, err := j.each(ctx, 0, func(_ edge.Stored, e *edge.Entry) {
					var d struct {
						Entry json.RawMessage `json:"entry"`
					}
					if e.Kind != edge.KindCarried {
						return
					}
					n++
					if err := json.Unmarshal(e.Data, &d); err != nil || s.Acked == acked && !want[string(d.Entry)] {
						t.Errorf("carried what was never there: %s", e.Data)
					}
				}); err != nil {
					t.Fatal(err)
				}
				return n
			}
			if got := carried(); got != r.Carried {
				t.Errorf("%d entries carried, %d said", got, r.Carried)
			}
			// Once, though a power cut made it begin again.
			if _, err := j.Recover(ctx, s); err != nil {
				t.Fatal(err)
			}
			if got := carried(); got != r.Carried {
				t.Errorf("carried twice: %d, then %d", r.Carried, got)
			}
			if c.atLeast > 0 {
				if s.Epoch != old || s.Acked != acked {
					t.Errorf("epoch %s, receipted %d; it was %s, %d", s.Epoch, s.Acked, old, acked)
				}
				if v, err := j.Cells(ctx, []edge.Cell{{Subject: "p7", Name: "exits"}}); err != nil || s.Cells > 0 && v[0].Local != n {
					t.Errorf("the counter says %+v, %v; it was %d", v, err, n)
				}
			}
			if err := j.Close(); err != nil {
				t.Fatal(err)
			}
			rd, rep := verify(t, path)
			defer rd.Close()
			if len(rep.Findings) > 0 {
				t.Errorf("the new journal: %v", rep.Findings)
			}
		})
	}
}

func TestWhatIsNoDamage(t *testing.T) {
	for _, err := range []error{nil, errors.New("locked"), os.ErrPermission, sqlite.ErrNewer} {
		if sqlite.IsDamage(err) {
			t.Errorf("%v was taken for damage", err)
		}
	}
}
