package durable

import (
	"os"
	"path/filepath"
	"testing"
)

func TestReplace(t *testing.T) {
	path := filepath.Join(t.TempDir(), "a")
	for _, text := range []string{"first, and longer", "second", ""} {
		// What a power cut has left of an earlier one is in nobody's way.
		if err := os.WriteFile(path+".new", []byte("half of what was to be written then"), 0o600); err != nil {
			t.Fatal(err)
		}
		if err := Replace(path, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		if b, err := os.ReadFile(path); err != nil || string(b) != text {
			t.Errorf("%q, %v; want %q", b, err, text)
		}
		if st, err := os.Stat(path); err != nil || st.Mode() != 0o600 {
			t.Error(st.Mode(), err)
		}
		if _, err := os.Lstat(path + ".new"); !os.IsNotExist(err) {
			t.Error("something is left beside it:", err)
		}
	}
	if err := os.Mkdir(path+".d", 0o700); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(path+".d", "b"), nil, 0o600); err != nil {
		t.Fatal(err)
	}
	if err := Replace(path+".d", []byte("x"), 0o600); err == nil {
		t.Error("a folder was replaced")
	}
}
