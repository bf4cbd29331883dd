package community

import (
	"context"
	"database/sql"
	"fmt"
	"path/filepath"
	"strings"
	"testing"

	"gatehouse/edge"
)

func TestSince(t *testing.T) { testSince(t, filepath.Join(t.TempDir(), "c.db")) }

// A head that was kept is extended, was changed, or is not here; what an epoch that
// follows carried over is here.
func testSince(t *testing.T, where string) {
	ctx := context.Background()
	s, b, _ := start(t, where)
	d, next, third := newDevice("estate", "east", 7, 1), newDevice("estate", "east", 8, 1), newDevice("estate", "east", 9, 1)
	d.addLines(40)
	register(t, s, d, "")
	receipt := d.send(t, b, 0, 20)
	d.want(t, receipt, 20)
	d.want(t, d.send(t, b, 20, 30), 30)

	head := func(d *device, size int, signers ...edge.Signer) string {
		t.Helper()
		h := edge.Head{Origin: edge.Origin(community, d.site, d.gate, d.epoch), Size: uint64(size), Root: d.rootAt(size)}
		text := h.Checkpoint()
		for i, k := range signers {
			if err := edge.SignHead(&h, k); err != nil {
				t.Fatal(err)
			}
			sig := strings.TrimPrefix(string(h.Note), h.Checkpoint())
			if i > 0 {
				sig = strings.TrimPrefix(sig, "\n")
			}
			text += sig
		}
		return text
	}
	since := func(text string) (string, bool) {
		t.Helper()
		e, err := ReadEarlier([]byte(text))
		if err != nil {
			t.Fatal(err)
		}
		said, ok, err := s.Since(ctx, e)
		if err != nil {
			t.Fatal(err)
		}
		return strings.Join(said, "\n"), ok
	}
	other := newKey(d.key.name, 50)
	signed := head(d, 12, d.key)
	for _, c := range []struct {
		name, text string
		ok         bool
		want       string
	}{
		{"signed", signed + "\n ▀▄ — a QR code\n", true, "(approved)\nthe head over 12 entries is extended by 30: nothing was changed or removed\nno epoch follows it"},
		{"with another's signature", head(d, 12, other, d.key), true, "(approved)\n"},
		{"from Windows", "\ufeff" + strings.ReplaceAll(signed, "\n", "\r\n"), true, "(approved)\n"},
		{"a receipt's", receipt.Head, true, "(approved), and cosigned by this server\nthe head over 20 entries"},
		{"not signed", head(d, 12), true, "not signed"},
		{"of nothing", head(d, 0, d.key), true, "extended by 30"},
		{"of all", head(d, 30, d.key), true, "extended by 30"},
		{"of another key", head(d, 12, other), false, "no device that is known of gate estate/east has signed the head"},
		{"of another text", strings.Replace(signed, "\n12\n", "\n13\n", 1), false, "is not what test.example/estate/east has signed"},
		{"changed", strings.Replace(head(d, 12), "\n12\n", "\n13\n", 1), false, "changed: the first 13 entries"},
		{"longer", head(d, 33, d.key), false, "3 of its entries never reached this server: 30 of 33 are stored"},
		{"of an epoch that never came", head(third, 0), true, "extended by 0"},
	} {
		if got, ok := since(c.text); ok != c.ok || !strings.Contains(got, c.want) {
			t.Errorf("%s: %v %s, want %q", c.name, ok, got, c.want)
		}
	}
	third.addLines(4)
	if got, ok := since(head(third, 4, d.key)); ok || !strings.Contains(got, "4 of its entries never reached this server: 0 of 4") {
		t.Errorf("an epoch that never came: %v %s", ok, got)
	}
	third.lines, third.leaves, third.keys = nil, nil, nil

	// Of the entries from 30 on, which did not come, the next epoch carries 31 and 32, and
	// the third one carries 30 as it was carried by the next.
	carry := func(seq int, line string) string {
		return fmt.Sprintf(`{"kind":"carried","t":1,"data":{"seq":%d,"entry":%s}}`, seq, line)
	}
	next.add(`{"kind":"epoch","t":1,"data":{"epoch":"0000000000000008","parent":"0000000000000007","forked":30,"size":35}}`, carry(31, line(31)), carry(32, line(32)))
	next.want(t, next.send(t, b, 0, 3), 3)
	got, ok := since(head(d, 33, d.key))
	if want := "1 of its entries never reached this server: 30 of 33 are stored\n" +
		"whether those that are stored are the head's, only the gate can say: gatehouse journal verify --since\n" +
		"epoch 0000000000000008 follows 0000000000000007 at 30: 2 of the head's entries were carried over, 1 that are not stored were not"; ok || !strings.HasSuffix(got, want) {
		t.Errorf("%v %s, want %s", ok, got, want)
	}
	if got, ok := since(head(d, 30, d.key)); !ok || !strings.Contains(got, "follows 0000000000000007 at 30: 0 of the head's entries were carried over, 0 that are not stored were not") {
		t.Errorf("%v %s", ok, got)
	}
	third.add(`{"kind":"epoch","t":1,"data":{"epoch":"0000000000000009","parent":"0000000000000008","forked":3,"size":5}}`, carry(3, carry(30, line(30))), carry(4, line(1)))
	third.want(t, third.send(t, b, 0, 3), 3)
	if got, ok := since(head(d, 33, d.key)); !ok || !strings.Contains(got, "30 of its 33 entries are stored, the others were carried into epochs that follow") ||
		!strings.Contains(got, "epoch 0000000000000009 follows 0000000000000008 at 3: 1 of the head's entries were carried over, 0 that are not stored were not") {
		t.Errorf("%v %s", ok, got)
	}

	// What was carried may be past its retention: nobody knows then what it was.
	l, err := s.logOf(ctx, "estate", "east", 9)
	if err != nil {
		t.Fatal(err)
	}
	if err := s.store.write(ctx, func(tx *sql.Tx) error {
		_, err := s.store.destroy(ctx, tx, l.id, []uint64{1}, 1, "retention", "system")
		return err
	}); err != nil {
		t.Fatal(err)
	}
	if got, ok := since(head(d, 33, d.key)); !ok || !strings.Contains(got, "30 of 33 of its entries are stored; whether 1 others came cannot be said, since of the epochs that follow 1 entries are destroyed, as recorded") {
		t.Errorf("%v %s", ok, got)
	}

	for _, bad := range []string{"", "nothing", "a/b/c\n1\nAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA=\n", "a/b/c/x\n1\nAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA=\n"} {
		if _, err := ReadEarlier([]byte(bad)); err == nil {
			t.Errorf("%q was taken", bad)
		}
	}
	for _, c := range []struct{ origin, want string }{{"b.example/estate/east/0000000000000007", "community"}, {community + "/estate/west/0000000000000007", edge.ErrUnknown.Error()}} {
		h := edge.Head{Origin: c.origin}
		e, err := ReadEarlier([]byte(h.Checkpoint()))
		if err == nil {
			_, _, err = s.Since(ctx, e)
		}
		if err == nil || !strings.Contains(err.Error(), c.want) {
			t.Errorf("%s: %v", c.origin, err)
		}
	}
}
