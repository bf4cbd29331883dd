package registry

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"iter"
	"maps"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"

	"github.com/google/go-cmp/cmp"
	"pgregory.net/rapid"

	"gatehouse/edge"
)

var key1 = edge.CredentialKey{Version: 1, Key: [32]byte{1}}

func TestMain(m *testing.M) {
	if path := os.Getenv("GATEHOUSE_TEST_IMPORT"); path != "" {
		importForEver(path)
		return
	}
	os.Exit(m.Run())
}

func open(t testing.TB, path string, o Options) *Registry {
	t.Helper()
	if o.Keys == nil {
		o.Keys = []edge.CredentialKey{key1}
	}
	r, err := Open(t.Context(), path, o)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { r.Close() })
	return r
}

func fresh(t testing.TB) *Registry {
	t.Helper()
	return open(t, filepath.Join(t.TempDir(), "registry.db"), Options{})
}

// em is the EM4100 card number n; distinct in every derived form below 2^24.
func em(n int) edge.Credential { return edge.Credential(fmt.Sprintf("em:3C%08X", n)) }

func row(id int, change ...func(*edge.RosterRow)) edge.RosterRow {
	h := edge.HouseholdID(id/3 + 1)
	unit := strconv.Itoa(100 + id/3%900)
	r := edge.RosterRow{Line: id + 1,
		Pass:        edge.Pass{ID: edge.PassID(id), Household: h, Category: "resident", Status: edge.PassActive, Name: "王小明", Building: fmt.Sprintf("%d号楼", id%40), Unit: unit},
		Credentials: []edge.Credential{em(id)}}
	r.Household = edge.Household{ID: h, Area: "main"}
	for _, c := range change {
		c(&r)
	}
	return r
}

func category(c string) func(*edge.RosterRow) { return func(r *edge.RosterRow) { r.Pass.Category = c } }

func many(n int, change ...func(*edge.RosterRow)) iter.Seq2[edge.RosterRow, error] {
	return func(yield func(edge.RosterRow, error) bool) {
		for id := 1; id <= n; id++ {
			if !yield(row(id, change...), nil) {
				return
			}
		}
	}
}

func these(rows ...edge.RosterRow) iter.Seq2[edge.RosterRow, error] {
	return func(yield func(edge.RosterRow, error) bool) {
		for _, r := range rows {
			if !yield(r, nil) {
				return
			}
		}
	}
}

func load(t testing.TB, r *Registry, rows iter.Seq2[edge.RosterRow, error]) Changes {
	t.Helper()
	c, err := r.Import(t.Context(), rows, ImportOptions{Confirm: func(Changes) error { return nil }})
	if err != nil {
		t.Fatal(err)
	}
	return c
}

func lookup(t testing.TB, r *Registry, c edge.Credential) edge.PassID {
	t.Helper()
	p, ok, err := r.Lookup(t.Context(), c)
	if err != nil {
		t.Fatal(err)
	}
	if ok != (p.ID != 0) {
		t.Fatalf("found %v, pass %d", ok, p.ID)
	}
	return p.ID
}

func TestCardsAreFoundByEveryReader(t *testing.T) {
	r := fresh(t)
	load(t, r, these(
		edge.RosterRow{Pass: edge.Pass{ID: 1, Category: "resident"}, Credentials: []edge.Credential{"em:3C00CE754C", "qr:abc"}},
		edge.RosterRow{Pass: edge.Pass{ID: 2, Category: "resident"}, Credentials: []edge.Credential{"w26:17/99"}},
		edge.RosterRow{Pass: edge.Pass{ID: 3, Category: "worker"}, Credentials: []edge.Credential{"w34:305419896"}},
		edge.RosterRow{Pass: edge.Pass{ID: 4, Category: "worker"}},
	))
	for c, want := range map[edge.Credential]edge.PassID{
		"em:3C00CE754C": 1, "w34:13530444": 1, "w26:206/30028": 1, "qr:abc": 1,
		"w26:17/99": 2, "em:0000110063": 2, "w34:1114211": 2, "em:77AB110063": 2, // only 24 bits are known of it
		"w34:305419896": 3, "em:0012345678": 3, "em:5512345678": 3, "w26:52/22136": 3,
		"em:7F00CE754C": 0, // another tag with an equal number: its version byte differs
		"w34:33608012":  0, // another tag with equal low bits
		"qr:abd":        0, "em:zz": 0,
	} {
		if got := lookup(t, r, c); got != want {
			t.Errorf("%s finds pass %d, want %d", c, got, want)
		}
	}
	c, err := r.Counts(t.Context())
	if want := (Counts{Passes: 4, Credentials: 7, Pending: 1}); err != nil || c != want {
		t.Errorf("counts %+v, %v; want %+v", c, err, want)
	}
}

func TestOnlyTheFormsOfTheSite(t *testing.T) {
	r := open(t, filepath.Join(t.TempDir(), "r.db"), Options{Forms: []string{"em", "w34"}})
	load(t, r, these(row(1), row(1|1<<24, func(r *edge.RosterRow) { r.Line = 2 }))) // equal in 24 bits
	if lookup(t, r, "w26:0/1") != 0 || lookup(t, r, em(1)) != 1 || lookup(t, r, em(1|1<<24)) != 1|1<<24 {
		t.Error("forms that the site lacks are stored")
	}
}

func TestImportCounts(t *testing.T) {
	r := fresh(t)
	if r.Version() != 0 {
		t.Errorf("an empty registry has version %d", r.Version())
	}
	c := load(t, r, many(100))
	if c.Version != 1 || c.New != 100 || c.Changed+c.Gone+c.Before != 0 || len(c.NewIDs) != 20 || c.NewIDs[0] != 1 {
		t.Errorf("%+v", c)
	}
	rows := func(yield func(edge.RosterRow, error) bool) {
		for id := 1; id <= 102; id++ {
			if id == 7 || id == 8 {
				continue
			}
			x := row(id)
			switch id {
			case 3:
				x.Pass.Category = "medic"
			case 5:
				x.Credentials = []edge.Credential{em(5000)} // the card was replaced
			}
			if !yield(x, nil) {
				return
			}
		}
	}
	want := Changes{Passes: 100, Before: 100, New: 2, Changed: 2, Gone: 2, NewIDs: []edge.PassID{101, 102}, ChangedIDs: []edge.PassID{3, 5}, GoneIDs: []edge.PassID{7, 8}}
	got, err := r.Diff(t.Context(), rows)
	if d := cmp.Diff(want, got); d != "" || err != nil {
		t.Errorf("%v\n%s", err, d)
	}
	if r.Version() != 1 || lookup(t, r, em(7)) != 7 {
		t.Error("comparing has changed something")
	}
	want.Version = 2
	if d := cmp.Diff(want, load(t, r, rows)); d != "" {
		t.Error(d)
	}
	if r.Version() != 2 || lookup(t, r, em(7)) != 0 || lookup(t, r, em(5)) != 0 || lookup(t, r, em(5000)) != 5 || lookup(t, r, em(102)) != 102 {
		t.Error("the import is not in force")
	}
	if c := load(t, r, rows); c.New+c.Changed+c.Gone != 0 {
		t.Errorf("the same roster again: %+v", c)
	}
	counts, err := r.Counts(t.Context())
	if err != nil || counts.Passes != 100 || counts.Credentials != 300 || counts.Households != 35 {
		t.Errorf("%+v %v", counts, err)
	}
}

func TestManyGoneNeedsConfirmation(t *testing.T) {
	r := fresh(t)
	load(t, r, many(100))
	if _, err := r.Import(t.Context(), many(90), ImportOptions{}); err != nil {
		t.Errorf("10%% gone was refused: %v", err)
	}
	load(t, r, many(100))
	var gone *ManyGoneError
	if _, err := r.Import(t.Context(), many(89), ImportOptions{}); !errors.As(err, &gone) || gone.Changes.Gone != 11 {
		t.Errorf("11%% gone: %v", err)
	}
	no := errors.New("no")
	if _, err := r.Import(t.Context(), many(89), ImportOptions{Confirm: func(c Changes) error { return no }}); !errors.Is(err, no) {
		t.Errorf("refused by the operator: %v", err)
	}
	if lookup(t, r, em(100)) != 100 {
		t.Error("a refused import has changed something")
	}
	load(t, r, many(89))
	if lookup(t, r, em(100)) != 0 {
		t.Error("a confirmed import is not in force")
	}
}

func TestClashesNameBothRows(t *testing.T) {
	at := func(line int, r edge.RosterRow) edge.RosterRow { r.Line = line; return r }
	for _, c := range []struct {
		name, want string
		rows       []edge.RosterRow
	}{
		{"a pass twice", "row 9: pass 1 is on row 2 already", []edge.RosterRow{at(2, row(1)), at(9, row(1))}},
		{"a card twice", "row 9: its card is on row 2 already", []edge.RosterRow{at(2, row(1)), at(9, row(2, func(r *edge.RosterRow) { r.Credentials = []edge.Credential{em(1)} }))}},
		{"a short form of another card", "row 9: its card is a short form of the card on row 2", []edge.RosterRow{at(2, row(1)), at(9, row(2, func(r *edge.RosterRow) { r.Credentials = []edge.Credential{"w26:0/1"} }))}},
		{"equal in 24 bits", "row 9: its card and the card on row 2 look the same to a reader", []edge.RosterRow{at(2, row(1)), at(9, row(1|1<<24))}},
		{"a household in two ways", "row 9 says other things of household 1 than row 2 does", []edge.RosterRow{at(2, row(1)), at(9, row(2, func(r *edge.RosterRow) { r.Household.Quarantine = true }))}},
		{"another household", "row 2: pass 1 is of household 1, but its row describes household 8", []edge.RosterRow{at(2, row(1, func(r *edge.RosterRow) { r.Household.ID = 8 }))}},
		{"no number", "row 2: pass number 0 is not from 1", []edge.RosterRow{at(2, row(0))}},
		{"too great a number", "row 2: pass number 9007199254740992", []edge.RosterRow{at(2, row(1, func(r *edge.RosterRow) { r.Pass.ID = edge.MaxID + 1 }))}},
		{"status", `row 2: pass 1: status "gone"`, []edge.RosterRow{at(2, row(1, func(r *edge.RosterRow) { r.Pass.Status = "gone" }))}},
		{"no category", "row 2: pass 1 has no category", []edge.RosterRow{at(2, row(1, category("")))}},
		{"long text", "row 2: pass 1: a text of 300 bytes", []edge.RosterRow{at(2, row(1, func(r *edge.RosterRow) { r.Pass.Unit = strings.Repeat("x", 300) }))}},
	} {
		t.Run(c.name, func(t *testing.T) {
			r := fresh(t)
			load(t, r, many(3))
			_, err := r.Import(t.Context(), these(c.rows...), ImportOptions{Confirm: func(Changes) error { return nil }})
			var all Errors
			if !errors.As(err, &all) || !strings.HasPrefix(err.Error(), c.want) {
				t.Errorf("error %v\nwant %s", err, c.want)
			}
			if r.Version() != 1 || lookup(t, r, em(3)) != 3 {
				t.Error("something was imported")
			}
			if _, err := os.Stat(r.db.Path() + ".import"); !errors.Is(err, os.ErrNotExist) {
				t.Error("the scratch file was left behind")
			}
		})
	}
}

func TestErrorsOfRowsComeTogether(t *testing.T) {
	r := fresh(t)
	boom := errors.New("list: C4: boom")
	_, err := r.Import(t.Context(), func(yield func(edge.RosterRow, error) bool) {
		_ = yield(row(1), nil) && yield(edge.RosterRow{}, boom) && yield(row(0), nil) && yield(row(2), nil)
	}, ImportOptions{})
	if !errors.Is(err, boom) || err.Error() != "list: C4: boom\nrow 1: pass number 0 is not from 1 to 9007199254740991" {
		t.Errorf("%v", err)
	}
	n := 0
	_, err = r.Import(t.Context(), func(yield func(edge.RosterRow, error) bool) {
		for yield(edge.RosterRow{}, boom) {
			n++
		}
	}, ImportOptions{})
	if n != maxErrors-1 || !strings.HasSuffix(err.Error(), "these come first") {
		t.Errorf("after %d errors: %v", n, err)
	}
}

func TestCancelledImportChangesNothing(t *testing.T) {
	r := fresh(t)
	load(t, r, many(50))
	ctx, cancel := context.WithCancel(t.Context())
	_, err := r.Import(ctx, func(yield func(edge.RosterRow, error) bool) {
		for x, err := range many(50, category("medic")) {
			if x.Pass.ID == 40 {
				cancel()
			}
			if !yield(x, err) {
				return
			}
		}
	}, ImportOptions{})
	if !errors.Is(err, context.Canceled) {
		t.Errorf("%v", err)
	}
	if p, _, err := r.Pass(t.Context(), 1); err != nil || p.Category != "resident" {
		t.Errorf("%+v %v", p, err)
	}
	load(t, r, many(50, category("medic")))
}

// Readers, in this process and another connection, go on while an import is
// under way, and see the old roster or the new one: once new, never old again.
func TestReadersGoOn(t *testing.T) {
	r := fresh(t)
	const n = 3000
	load(t, r, many(n))
	other := open(t, r.db.Path(), Options{})
	done := make(chan struct{})
	var wg sync.WaitGroup
	for _, reader := range []*Registry{r, other} {
		wg.Go(func() {
			renewed := false
			for i := 0; ; i++ {
				p, ok, err := reader.Lookup(t.Context(), em(i%n+1))
				if err != nil || !ok {
					t.Errorf("pass %d: found %v, %v", i%n+1, ok, err)
					return
				}
				if renewed && p.Category != "medic" {
					t.Errorf("pass %d is old again", i%n+1)
					return
				}
				renewed = p.Category == "medic"
				select {
				case <-done:
					if !renewed {
						continue
					}
					return
				default:
				}
			}
		})
	}
	if _, err := r.Import(t.Context(), func(yield func(edge.RosterRow, error) bool) {
		for x, err := range many(n, category("medic")) {
			if x.Pass.ID == n/2 { // in the middle of it everything else works
				if err := other.Suspend(t.Context(), 7, "moved", "guard:1"); err != nil {
					t.Error(err)
				}
				if _, err := other.Diff(t.Context(), many(1)); !errors.Is(err, ErrImporting) {
					t.Errorf("a second import: %v", err)
				}
			}
			if !yield(x, err) {
				return
			}
		}
	}, ImportOptions{}); err != nil {
		t.Error(err)
	}
	close(done)
	wg.Wait()
	if p, _, err := other.Pass(t.Context(), 7); err != nil || p.Status != edge.PassSuspended || p.Category != "medic" || other.Version() != 2 {
		t.Errorf("%+v, %v, version %d", p, err, other.Version())
	}
}

func TestTheRosterChangedMeanwhile(t *testing.T) {
	r := fresh(t)
	if _, err := r.ApplySnapshot(t.Context(), 1, many(10), nil); err != nil {
		t.Fatal(err)
	}
	_, err := r.ApplySnapshot(t.Context(), 3, func(yield func(edge.RosterRow, error) bool) { many(10)(yield) }, nil)
	if err != nil {
		t.Fatal(err)
	}
	s, err := r.newStage(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	nothing := func(Phase, int) {}
	if err := s.fill(t.Context(), r, many(11), nothing); err != nil {
		t.Fatal(err)
	}
	c, generation, err := s.compare(t.Context(), nothing)
	if err != nil {
		t.Fatal(err)
	}
	if err := s.release(); err != nil {
		t.Fatal(err)
	}
	if err := r.ApplyDelta(t.Context(), 3, 4, []edge.RosterRow{row(12)}, nil, nil); err != nil {
		t.Fatal(err)
	}
	if _, err := r.apply(t.Context(), s, c, generation, nil); !errors.Is(err, ErrChanged) {
		t.Errorf("%v", err)
	}
	if err := s.close(); err != nil {
		t.Error(err)
	}
}

func TestNothingPersonalInTheFile(t *testing.T) {
	r := fresh(t)
	load(t, r, many(50))
	if err := r.Close(); err != nil {
		t.Fatal(err)
	}
	for _, f := range []string{r.db.Path(), r.db.Path() + "-wal"} {
		b, err := os.ReadFile(f)
		if err != nil && !errors.Is(err, os.ErrNotExist) {
			t.Fatal(err)
		}
		for _, secret := range []string{"王小明", "小", string(em(9)), strings.TrimPrefix(string(em(9)), "em:"), "0/9", "w26:"} {
			if bytes.Contains(b, []byte(secret)) {
				t.Errorf("%s holds %q", f, secret)
			}
		}
	}
}

func TestFind(t *testing.T) {
	r := fresh(t)
	load(t, r, these(
		row(1, func(r *edge.RosterRow) { r.Pass.Building, r.Pass.Unit, r.Pass.Name = "1号楼", "2-301", "王小明" }),
		row(2, func(r *edge.RosterRow) { r.Pass.Building, r.Pass.Unit, r.Pass.Name = "1号楼", "2-302", "李娜" }),
		row(3, func(r *edge.RosterRow) { r.Pass.Building, r.Pass.Unit, r.Pass.Name = "10号楼", "2-301", "王小亮" }),
		row(4, func(r *edge.RosterRow) {
			r.Pass.Building, r.Pass.Unit, r.Pass.Name = "2号楼", "1-101", "Grace Okafor"
		}),
	))
	if err := r.Suspend(t.Context(), 2, "moved", "guard:1"); err != nil {
		t.Fatal(err)
	}
	for _, c := range []struct {
		q    edge.PassQuery
		want []edge.PassID
	}{
		{edge.PassQuery{Building: "1号"}, []edge.PassID{1, 2}},
		{edge.PassQuery{Building: "1"}, []edge.PassID{1, 2, 3}}, // though the text 10号楼 stands before 1号楼
		{edge.PassQuery{Building: "1", Limit: 2}, []edge.PassID{1, 2}},
		{edge.PassQuery{Building: "1号楼", Unit: "2-302"}, []edge.PassID{2}},
		{edge.PassQuery{Unit: "2-3", Limit: 2}, []edge.PassID{3, 1}},
		{edge.PassQuery{Name: "王小明"}, []edge.PassID{1}},
		{edge.PassQuery{Name: "王"}, []edge.PassID{3, 1}},
		{edge.PassQuery{Name: "王*亮"}, []edge.PassID{3}},
		{edge.PassQuery{Name: "Grace Okafor"}, []edge.PassID{4}},
		{edge.PassQuery{Name: "%"}, nil},
		{edge.PassQuery{Household: 2}, []edge.PassID{3, 4}},
		{edge.PassQuery{Credential: "w26:0/3"}, []edge.PassID{3}},
		{edge.PassQuery{Credential: "w26:0/99"}, nil},
	} {
		got, err := r.Find(t.Context(), c.q)
		if err != nil {
			t.Fatal(err)
		}
		var ids []edge.PassID
		for _, p := range got {
			ids = append(ids, p.ID)
			if want := map[bool]edge.PassStatus{true: edge.PassSuspended, false: edge.PassActive}[p.ID == 2]; p.Status != want {
				t.Errorf("pass %d is %s", p.ID, p.Status)
			}
		}
		if !slices.Equal(ids, c.want) {
			t.Errorf("%+v finds %v, want %v", c.q, ids, c.want)
		}
	}
	if _, err := r.Find(t.Context(), edge.PassQuery{Name: "  "}); err == nil {
		t.Error("an empty search was answered")
	}
	if h, ok, err := r.Household(t.Context(), 2); err != nil || !ok || h.Area != "main" {
		t.Errorf("%+v %v %v", h, ok, err)
	}
	if _, ok, err := r.Household(t.Context(), 99); err != nil || ok {
		t.Errorf("an unknown household: %v %v", ok, err)
	}
}

func TestKeyRotation(t *testing.T) {
	path := filepath.Join(t.TempDir(), "r.db")
	r := open(t, path, Options{})
	load(t, r, many(5))
	r.Close()
	key2 := edge.CredentialKey{Version: 2, Key: [32]byte{2}}
	r = open(t, path, Options{Keys: []edge.CredentialKey{key2, key1}})
	if err := r.Check(t.Context()); err != nil || lookup(t, r, em(3)) != 3 {
		t.Errorf("during the rotation: %v", err)
	}
	if c := load(t, r, many(5)); c.Changed != 5 {
		t.Errorf("%+v", c)
	}
	r.Close()
	r = open(t, path, Options{Keys: []edge.CredentialKey{key2}})
	if err := r.Check(t.Context()); err != nil || lookup(t, r, em(3)) != 3 {
		t.Errorf("after the rotation: %v", err)
	}
	r.Close()
	if r = open(t, path, Options{}); r.Check(t.Context()) == nil {
		t.Error("a registry under a key that is not there was found well")
	}
	if _, err := Open(t.Context(), path, Options{}); err == nil {
		t.Error("opened without a key")
	}
}

type at int64

func (a at) Now() edge.Stamp { return edge.Stamp{Time: int64(a)} }

func TestLocalChanges(t *testing.T) {
	ctx := t.Context()
	r := open(t, filepath.Join(t.TempDir(), "r.db"), Options{Clock: at(1000)})
	load(t, r, these(row(1), row(2, func(r *edge.RosterRow) { r.Pass.Status = edge.PassSuspended }), row(3)))
	status := func(id edge.PassID) edge.PassStatus {
		t.Helper()
		p, ok, err := r.Pass(ctx, id)
		if err != nil || !ok {
			t.Fatal(ok, err)
		}
		q, _, err := r.Lookup(ctx, em(int(id)))
		if err != nil || q.Status != p.Status {
			t.Fatalf("by number %s, by card %s, %v", p.Status, q.Status, err)
		}
		return p.Status
	}
	if err := r.Suspend(ctx, 9, "x", "guard:1"); !errors.Is(err, edge.ErrUnknown) {
		t.Errorf("an unknown pass: %v", err)
	}
	if err := r.SetStatus(ctx, 1, "odd", "x", "guard:1"); err == nil {
		t.Error("an unknown status was taken")
	}
	if err := r.Restore(ctx, 2, "guard:1"); err == nil || !strings.Contains(err.Error(), "in the roster") {
		t.Errorf("restored what the roster suspends: %v", err)
	}
	if err := r.Restore(ctx, 1, "guard:1"); err != nil {
		t.Errorf("nothing to restore: %v", err)
	}
	if err := r.SetStatus(ctx, 1, edge.PassLost, "left on the bus", "guard:1"); err != nil || status(1) != edge.PassLost {
		t.Errorf("%v, status %s", err, status(1))
	}
	load(t, r, these(row(1), row(2), row(3, category("medic"))))
	if status(1) != edge.PassLost || status(2) != edge.PassActive {
		t.Error("an import has undone a local change, or not taken effect")
	}
	p, err := r.Pending(ctx)
	if err != nil || len(p) != 3 || string(p[1].Data) != `{"pass":1,"status":"lost","reason":"left on the bus","actor":"guard:1","at":1000}` || !strings.HasPrefix(string(p[0].Data), `{"version":1,"passes":3,"before":0,"new":3`) {
		t.Errorf("pending %+v %v", p, err)
	}
	own := edge.EntryRef{Gate: "east", Epoch: 5}
	if err := r.drain(ctx, func(_ context.Context, data json.RawMessage) (edge.EntryRef, error) {
		own.Seq++
		return own, nil
	}); err != nil {
		t.Error(err)
	}
	if p, err := r.Pending(ctx); err != nil || len(p) != 0 {
		t.Errorf("still pending: %v %v", p, err)
	}

	// The journal says it again after a restart; and a peer says something older, then something newer.
	if err := r.Apply(ctx, edge.EntryRef{Gate: "east", Epoch: 5, Seq: 2}, edge.PassChange{Pass: 1, Status: edge.PassLost, At: 1000}); err != nil || status(1) != edge.PassLost {
		t.Errorf("%v %s", err, status(1))
	}
	peer := edge.EntryRef{Gate: "west", Epoch: 6, Seq: 10}
	if err := r.Apply(ctx, peer, edge.PassChange{Pass: 1, Status: "", At: 900}); err != nil || status(1) != edge.PassLost {
		t.Errorf("an older change of a peer: %v %s", err, status(1))
	}
	peer.Seq = 11
	if err := r.Apply(ctx, peer, edge.PassChange{Pass: 1, Status: "", At: 1100}); err != nil || status(1) != edge.PassActive {
		t.Errorf("a newer change of a peer: %v %s", err, status(1))
	}
	if err := r.Apply(ctx, peer, edge.PassChange{Pass: 1, Status: edge.PassSuspended, At: 9999}); err != nil || status(1) != edge.PassActive {
		t.Errorf("the same entry of a peer twice: %v %s", err, status(1))
	}
	if n, err := r.Applied(ctx, "west", 6); err != nil || n != 12 {
		t.Errorf("applied up to %d, %v", n, err)
	}

	// The server's version contains some of it.
	west := edge.EntryRef{Gate: "west", Epoch: 6, Seq: 12}
	if err := r.Apply(ctx, west, edge.PassChange{Pass: 3, Status: edge.PassSuspended, At: 1200}); err != nil {
		t.Fatal(err)
	}
	if err := r.Suspend(ctx, 2, "moved", "guard:1"); err != nil {
		t.Fatal(err)
	}
	if _, err := r.ApplySnapshot(ctx, 40, these(row(1), row(2), row(3)), []edge.EntryRef{{Gate: "west", Epoch: 6, Seq: 11}, {Gate: "east", Epoch: 5, Seq: 99}}); err != nil {
		t.Fatal(err)
	}
	if status(3) != edge.PassSuspended || status(2) != edge.PassSuspended {
		t.Errorf("a snapshot has undone what it does not contain: %s %s", status(3), status(2))
	}
	if _, err := r.ApplySnapshot(ctx, 41, these(row(1), row(2), row(3)), []edge.EntryRef{west}); err != nil {
		t.Fatal(err)
	}
	if status(3) != edge.PassActive {
		t.Error("a contained change still lies over the roster")
	}
	if err := r.Apply(ctx, west, edge.PassChange{Pass: 3, Status: edge.PassSuspended, At: 1200}); err != nil || status(3) != edge.PassActive {
		t.Errorf("a contained change came back: %v %s", err, status(3))
	}
}

func TestServerIsTheMaster(t *testing.T) {
	ctx := t.Context()
	r := fresh(t)
	load(t, r, many(10))
	if err := r.ApplyDelta(ctx, 1, 2, nil, nil, nil); !errors.Is(err, ErrGap) {
		t.Errorf("a delta upon a local roster: %v", err)
	}
	if c, err := r.ApplySnapshot(ctx, 100, many(5), nil); err != nil || c.Gone != 5 || c.Version != 100 {
		t.Errorf("%+v %v", c, err)
	}
	if _, err := r.Import(ctx, many(10), ImportOptions{}); !errors.Is(err, ErrManaged) {
		t.Errorf("a local import beside a server: %v", err)
	}
	if _, err := r.ApplySnapshot(ctx, 99, many(5), nil); !errors.Is(err, ErrOlder) {
		t.Errorf("an older snapshot: %v", err)
	}
	for _, v := range [][2]int64{{99, 101}, {101, 102}, {100, 100}, {100, 99}} {
		if err := r.ApplyDelta(ctx, v[0], v[1], nil, nil, nil); !errors.Is(err, ErrGap) {
			t.Errorf("a delta from %d to %d: %v", v[0], v[1], err)
		}
	}
	// Pass 1 gets the card of pass 2, which gets a new one; 3 ends; 6 is new.
	if err := r.ApplyDelta(ctx, 100, 101, []edge.RosterRow{
		row(1, func(r *edge.RosterRow) { r.Credentials = []edge.Credential{em(2)} }),
		row(2, func(r *edge.RosterRow) { r.Credentials = []edge.Credential{em(77)} }), row(6)}, []edge.PassID{3, 1234}, nil); err != nil {
		t.Fatal(err)
	}
	for n, want := range map[int]edge.PassID{1: 0, 2: 1, 77: 2, 3: 0, 4: 4, 6: 6} {
		if got := lookup(t, r, em(n)); got != want {
			t.Errorf("card %d finds pass %d, want %d", n, got, want)
		}
	}
	before, err := r.Counts(ctx)
	if err != nil || before.Passes != 5 || r.Version() != 101 {
		t.Errorf("%+v %v version %d", before, err, r.Version())
	}
	if err := r.ApplyDelta(ctx, 101, 102, []edge.RosterRow{row(50), row(51, func(r *edge.RosterRow) { r.Credentials = []edge.Credential{em(4)} })}, []edge.PassID{5}, nil); err == nil {
		t.Error("a delta that gives away a card was taken")
	}
	if after, err := r.Counts(ctx); err != nil || after != before || lookup(t, r, em(5)) != 5 || r.Version() != 101 {
		t.Errorf("a refused delta has changed something: %+v %v", after, err)
	}
}

// Deltas and snapshots lead to the same registry, whatever their order.
func TestDeltasEqualSnapshots(t *testing.T) {
	dir := t.TempDir()
	n := 0
	rapid.Check(t, func(rt *rapid.T) {
		n++
		ctx := t.Context()
		r, err := Open(ctx, filepath.Join(dir, strconv.Itoa(n)), Options{Keys: []edge.CredentialKey{key1}})
		if err != nil {
			rt.Fatal(err)
		}
		defer r.Close()
		model := map[int]edge.RosterRow{}
		version := int64(0)
		all := func() iter.Seq2[edge.RosterRow, error] {
			return func(yield func(edge.RosterRow, error) bool) {
				for _, id := range slices.Sorted(maps.Keys(model)) {
					if !yield(model[id], nil) {
						return
					}
				}
			}
		}
		if _, err := r.ApplySnapshot(ctx, version, all(), nil); err != nil {
			rt.Fatal(err)
		}
		for range rapid.IntRange(1, 6).Draw(rt, "steps") {
			var put []edge.RosterRow
			var gone []edge.PassID
			for _, id := range rapid.SliceOfDistinct(rapid.IntRange(1, 12), rapid.ID[int]).Draw(rt, "passes") {
				if _, there := model[id]; there && rapid.Bool().Draw(rt, "gone") {
					gone = append(gone, edge.PassID(id))
					delete(model, id)
					continue
				}
				x := row(id, category(rapid.SampledFrom([]string{"resident", "medic"}).Draw(rt, "category")))
				if rapid.Bool().Draw(rt, "second card") {
					x.Credentials = append(x.Credentials, em(100+id))
				}
				put = append(put, x)
				model[id] = x
			}
			if rapid.Bool().Draw(rt, "as a snapshot") {
				_, err = r.ApplySnapshot(ctx, version+1, all(), nil)
			} else {
				err = r.ApplyDelta(ctx, version, version+1, put, gone, nil)
			}
			if err != nil {
				rt.Fatal(err)
			}
			version++
			cards, homes := int64(0), map[edge.HouseholdID]bool{}
			for id := 1; id <= 12; id++ {
				x, there := model[id]
				cards += 3 * int64(len(x.Credentials))
				if there {
					homes[x.Household.ID] = true
				}
				for _, c := range []edge.Credential{em(id), em(100 + id)} {
					p, ok, err := r.Lookup(ctx, c)
					if err != nil || ok != slices.Contains(x.Credentials, c) || (ok && (int(p.ID) != id || p.Category != x.Pass.Category)) {
						rt.Fatalf("%s: %+v %v %v, want %+v", c, p, ok, err, x)
					}
				}
			}
			for h := edge.HouseholdID(1); h <= 5; h++ {
				if _, ok, err := r.Household(ctx, h); err != nil || ok != homes[h] {
					rt.Fatalf("household %d: %v %v, want %v", h, ok, err, homes[h])
				}
			}
			want := Counts{Passes: int64(len(model)), Households: int64(len(homes)), Credentials: cards}
			if got, err := r.Counts(ctx); err != nil || got != want || r.Version() != version {
				rt.Fatalf("counts %+v, %v, want %+v; version %d, want %d", got, err, want, r.Version(), version)
			}
			if c, err := r.Diff(ctx, all()); err != nil || c.New+c.Changed+c.Gone != 0 {
				rt.Fatalf("the registry differs from its roster: %+v %v", c, err)
			}
		}
	})
}

func TestBundles(t *testing.T) {
	ctx := t.Context()
	r := fresh(t)
	store := func(layer string, version int64) string {
		h, err := r.StoreBundle(ctx, layer, version, fmt.Appendf(nil, "%s %d", layer, version))
		if err != nil {
			t.Fatal(err)
		}
		return h
	}
	city1, city2, site1, site2 := store("city", 1), store("city", 2), store("site", 1), store("site", 2)
	if store("city", 1) != city1 {
		t.Error("stored again, another hash")
	}
	active := func() (s []string) {
		bs, err := r.Active(ctx)
		if err != nil {
			t.Fatal(err)
		}
		for _, b := range bs {
			s = append(s, string(b.Source))
		}
		return s
	}
	if len(active()) != 0 {
		t.Error("stored is not in force")
	}
	for _, c := range []struct {
		hashes   []string
		rollback bool
		err      error
		want     string
	}{
		{[]string{city2, site1}, false, nil, "city 2,site 1"},
		{[]string{city1, site2}, false, ErrOlder, "city 2,site 1"},
		{[]string{city2, "00"}, false, edge.ErrUnknown, "city 2,site 1"},
		{[]string{city2, site2}, false, nil, "city 2,site 2"},
		{[]string{city2}, false, nil, "city 2"},
		{[]string{city2, site1}, false, ErrOlder, "city 2"}, // leaving it out does not forget how far it was
		{[]string{city1, site1}, true, nil, "city 1,site 1"},
		{[]string{city2, city1}, true, errors.ErrUnsupported, "city 1,site 1"},
	} {
		err := r.Activate(ctx, c.hashes, c.rollback)
		if (err == nil) != (c.err == nil) || (c.err != nil && c.err != errors.ErrUnsupported && !errors.Is(err, c.err)) {
			t.Errorf("%v: %v, want %v", c.hashes, err, c.err)
		}
		if got := strings.Join(active(), ","); got != c.want {
			t.Errorf("after %v in force: %s, want %s", c.hashes, got, c.want)
		}
	}
	if b, err := r.Bundle(ctx, site2); err != nil || string(b) != "site 2" {
		t.Errorf("%s %v", b, err)
	}
	if _, err := r.Bundle(ctx, "ff"); !errors.Is(err, edge.ErrUnknown) {
		t.Errorf("%v", err)
	}
	if v, err := r.Highest(ctx, "city"); err != nil || v != 2 {
		t.Errorf("highest %d, %v", v, err)
	}
	if v, err := r.Highest(ctx, "nation"); err != nil || v != 0 {
		t.Errorf("highest of what never was %d, %v", v, err)
	}
}

// What was in force once is found by the hash that entries name, for ever.
func TestSets(t *testing.T) {
	ctx := t.Context()
	r := fresh(t)
	if h, err := r.InForce(ctx); err != nil || h != "" {
		t.Errorf("in force at first: %q, %v", h, err)
	}
	city, err := r.StoreBundle(ctx, "city", 1, []byte("the city's"))
	if err != nil {
		t.Fatal(err)
	}
	site, err := r.StoreBundle(ctx, "", 1, []byte("the site's"))
	if err != nil {
		t.Fatal(err)
	}
	for range 2 {
		if err := r.SetInForce(ctx, "sha256:a", []string{city, site}); err != nil {
			t.Fatal(err)
		}
	}
	if err := r.SetInForce(ctx, "sha256:b", []string{site}); err != nil {
		t.Fatal(err)
	}
	if h, err := r.InForce(ctx); err != nil || h != "sha256:b" {
		t.Errorf("in force: %q, %v", h, err)
	}
	if err := r.SetInForce(ctx, "sha256:c", []string{"00"}); err == nil {
		t.Error("rules of a bundle that is not archived are in force")
	}
	if got, err := r.Set(ctx, "sha256:a"); err != nil || len(got) != 2 || string(got[0].Source) != "the city's" || string(got[1].Source) != "the site's" {
		t.Errorf("%+v, %v", got, err)
	}
	if _, err := r.Set(ctx, "sha256:c"); !errors.Is(err, edge.ErrUnknown) {
		t.Errorf("%v", err)
	}
}

// importForEver is the other process: it imports one roster, then the other.
func importForEver(path string) {
	r, err := Open(context.Background(), path, Options{Keys: []edge.CredentialKey{key1}})
	if err != nil {
		fmt.Println("error:", err)
		os.Exit(1)
	}
	for i := 0; ; i++ {
		if _, err := r.Import(context.Background(), many(killedPasses, category([]string{"medic", "resident"}[i%2])), ImportOptions{Progress: func(p Phase, n int) { fmt.Println(p, n) }}); err != nil {
			fmt.Println("error:", err)
			os.Exit(1)
		}
	}
}

const killedPasses = 2000

// A process that is killed in the middle of an import leaves the old roster
// or the new one, whole, and the next import goes through.
func TestKilledImport(t *testing.T) {
	r := fresh(t)
	load(t, r, many(killedPasses))
	seed := rand.Uint64()
	t.Logf("seed %d", seed)
	rng := rand.New(rand.NewPCG(seed, 0))
	seen := map[string]bool{}
	for range 12 {
		cmd := exec.Command(os.Args[0])
		cmd.Env = append(os.Environ(), "GATEHOUSE_TEST_IMPORT="+r.db.Path())
		out, err := cmd.StdoutPipe()
		if err != nil {
			t.Fatal(err)
		}
		if err := cmd.Start(); err != nil {
			t.Fatal(err)
		}
		lines := bufio.NewScanner(out)
		for n := rng.IntN(13); n >= 0 && lines.Scan(); n-- {
			if strings.HasPrefix(lines.Text(), "error") {
				t.Error(lines.Text())
			}
		}
		if err := cmd.Process.Kill(); err != nil {
			t.Error(err)
		}
		cmd.Wait()
		first, _, err := r.Pass(t.Context(), 1)
		if err != nil {
			t.Fatal(err)
		}
		seen[first.Category] = true
		for id := range killedPasses {
			p, ok, err := r.Lookup(t.Context(), em(id+1))
			if err != nil || !ok || p.Category != first.Category {
				t.Fatalf("pass %d: %+v %v %v, pass 1 is %s", id+1, p, ok, err, first.Category)
			}
		}
	}
	load(t, r, many(killedPasses, category("worker")))
	t.Logf("rosters seen in force: %v", seen)
}

// Of one gate's changes the later in its journal holds, whatever its clock did in
// between; of two gates' the later by the clock.
func TestChangesWhileAClockRunsBack(t *testing.T) {
	ctx := t.Context()
	change := func(at int64, s edge.PassStatus) edge.PassChange { return edge.PassChange{Pass: 1, Status: s, At: at} }
	ref := func(gate string, seq uint64) edge.EntryRef { return edge.EntryRef{Gate: gate, Epoch: 5, Seq: seq} }
	for _, c := range []struct {
		name string
		from []edge.EntryRef
		ch   []edge.PassChange
		want edge.PassStatus
	}{
		{"taken back after the clock ran back", []edge.EntryRef{ref("east", 1), ref("east", 2)}, []edge.PassChange{change(100, edge.PassSuspended), change(50, "")}, edge.PassActive},
		{"another gate's, between", []edge.EntryRef{ref("east", 1), ref("west", 1), ref("east", 2)},
			[]edge.PassChange{change(100, edge.PassSuspended), change(120, edge.PassLost), change(50, "")}, edge.PassLost},
		{"another gate's, earlier", []edge.EntryRef{ref("east", 1), ref("east", 2), ref("west", 1)},
			[]edge.PassChange{change(100, edge.PassSuspended), change(50, ""), change(70, edge.PassLost)}, edge.PassActive},
	} {
		r := open(t, filepath.Join(t.TempDir(), "r.db"), Options{Clock: at(1000)})
		load(t, r, these(row(1)))
		for i := range c.from {
			if err := r.Apply(ctx, c.from[i], c.ch[i]); err != nil {
				t.Fatal(err)
			}
		}
		if p, _, err := r.Pass(ctx, 1); err != nil || p.Status != c.want {
			t.Errorf("%s: %s %v, want %s", c.name, p.Status, err, c.want)
		}
	}
	// What a guard does now is journalled as not before what is there.
	r := open(t, filepath.Join(t.TempDir(), "r.db"), Options{Clock: at(1000)})
	load(t, r, these(row(1)))
	if err := r.Apply(ctx, ref("west", 1), change(5000, edge.PassSuspended)); err != nil {
		t.Fatal(err)
	}
	if err := r.Restore(ctx, 1, "guard:1"); err != nil {
		t.Fatal(err)
	}
	waiting, err := r.Pending(ctx)
	if err != nil {
		t.Fatal(err)
	}
	var got edge.PassChange
	if err := json.Unmarshal(waiting[len(waiting)-1].Data, &got); err != nil || got.At != 5000 || got.Status != "" {
		t.Errorf("journalled %+v %v", got, err)
	}
}
