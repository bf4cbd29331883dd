package config

import (
	"os"
	"path/filepath"
	"slices"
	"syscall"
	"testing"
)

// Of what is in a folder, the files and folders of one user are given away: not links,
// and not what has another name elsewhere.
func TestMadeBy(t *testing.T) {
	dir := t.TempDir()
	if err := os.MkdirAll(filepath.Join(dir, "state/keys"), 0o700); err != nil {
		t.Fatal(err)
	}
	for _, name := range []string{"outside", "state/journal.db", "state/keys/device.key"} {
		if err := os.WriteFile(filepath.Join(dir, name), nil, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	for _, err := range []error{os.Symlink("/etc/passwd", filepath.Join(dir, "state/link")), os.Symlink("/etc", filepath.Join(dir, "state/folder")),
		os.Link(filepath.Join(dir, "outside"), filepath.Join(dir, "state/hard"))} {
		if err != nil {
			t.Fatal(err)
		}
	}
	me := uint32(os.Geteuid())
	fsys := os.DirFS(filepath.Join(dir, "state"))
	for uid, want := range map[uint32][]string{me: {".", "journal.db", "keys", "keys/device.key"}, me + 1: nil} {
		if got, err := madeBy(fsys, uid); err != nil || !slices.Equal(got, want) {
			t.Errorf("of user %d: %q, %v", uid, got, err)
		}
	}
}

// What root makes in another's state folder is that one's; in root's own, and for an
// ordinary user, all stays as it is.
func TestOwnState(t *testing.T) {
	g := &Gate{State: filepath.Join(t.TempDir(), "state")}
	if err := g.OwnState(); err != nil {
		t.Errorf("without a folder: %v", err)
	}
	key := g.KeyFile("device.key")
	if err := os.MkdirAll(filepath.Dir(key), 0o700); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(key, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	owners := []int{os.Geteuid()}
	if owners[0] == 0 {
		owners = append(owners, 65534)
	}
	for _, want := range owners {
		if err := os.Chown(g.State, want, -1); err != nil {
			t.Fatal(err)
		}
		if err := g.OwnState(); err != nil {
			t.Fatal(err)
		}
		for _, p := range []string{key, filepath.Dir(key)} {
			st, err := os.Stat(p)
			if err != nil {
				t.Fatal(err)
			}
			if got := int(st.Sys().(*syscall.Stat_t).Uid); got != want {
				t.Errorf("%s belongs to %d, the state folder to %d", p, got, want)
			}
		}
	}
}
