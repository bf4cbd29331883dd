package config

import (
	"os"
	"path/filepath"
	"testing"
)

func TestCredentials(t *testing.T) {
	dir, handed := t.TempDir(), t.TempDir()
	if err := os.WriteFile(filepath.Join(handed, "keys_site.key"), nil, 0o440); err != nil {
		t.Fatal(err)
	}
	g := &Gate{dir: dir}
	beside := filepath.Join(dir, "keys", "site.key")
	for _, c := range []struct{ env, path, want string }{
		{"", beside, beside}, // a command of root's
		{handed, beside, filepath.Join(handed, "keys_site.key")},
		{handed, filepath.Join(dir, "keys", "other.key"), filepath.Join(dir, "keys", "other.key")},
		{handed, filepath.Join(dir, "site.key"), filepath.Join(dir, "site.key")},
		{handed, "", ""},
	} {
		t.Setenv("CREDENTIALS_DIRECTORY", c.env)
		if got := g.credential(c.path); got != c.want {
			t.Errorf("%+v: %s", c, got)
		}
		if got := HandedIn(c.want); got != (filepath.Dir(c.want) == handed) {
			t.Errorf("%+v: handed in %v", c, got)
		}
	}
}
