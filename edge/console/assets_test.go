package console

import (
	"io/fs"
	"path"
	"testing"
)

// A cheap tablet on a weak radio fetches these; only the recorded voice may be larger.
func TestAssetsAreSmall(t *testing.T) {
	const most = 200_000
	seen := 0
	err := fs.WalkDir(assets, ".", func(name string, d fs.DirEntry, err error) error {
		if err != nil || d.IsDir() {
			return err
		}
		switch path.Ext(name) {
		case ".mp3", ".ogg", ".opus", ".wav", ".m4a":
			return nil
		}
		info, err := d.Info()
		if err != nil {
			return err
		}
		seen++
		if info.Size() > most {
			t.Errorf("%s has %d bytes, more than %d", name, info.Size(), most)
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	if seen == 0 {
		t.Fatal("no asset was found")
	}
}
