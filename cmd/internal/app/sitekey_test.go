package app

import (
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"gatehouse/cmd/internal/config"
)

func TestSiteKeys(t *testing.T) {
	path := filepath.Join(t.TempDir(), "keys", "site.key")
	if _, err := SiteKeys(path, false); err == nil {
		t.Error("a missing key file was accepted")
	}
	made, err := SiteKeys(path, true)
	if err != nil || len(made) != 1 || made[0].Version != 1 || made[0].Key == [32]byte{} {
		t.Fatalf("made %v, %v", made, err)
	}
	again, err := SiteKeys(path, true)
	if err != nil || again[0] != made[0] {
		t.Errorf("read again: %v, %v", again, err)
	}
	hex := strings.Repeat("ab", 32)
	for _, c := range []struct {
		text, want string
		mode       os.FileMode
	}{
		{"2 " + hex + "\n1 " + hex, "", 0o600},
		{"1 " + hex + "\n2 " + hex, ":2: version 2 must be below", 0o600},
		{"1 abcd", ":1: want a version and 64 hex digits", 0o600},
		{"# nothing\n", "holds no key", 0o600},
		{"1 " + hex, "can be read by others", 0o644},
	} {
		if err := os.WriteFile(path, []byte(c.text), 0o600); err != nil {
			t.Fatal(err)
		}
		if err := os.Chmod(path, c.mode); err != nil {
			t.Fatal(err)
		}
		_, err := SiteKeys(path, true)
		if (err == nil) != (c.want == "") || (err != nil && !strings.Contains(err.Error(), c.want)) {
			t.Errorf("%q: %v, want %q", c.text, err, c.want)
		}
	}
}

// Whoever may not look into root's folder is told what to do.
func TestSiteKeyOfRoot(t *testing.T) {
	if os.Getuid() != 0 {
		t.Skip("only root can try it as somebody else; .ci/run is root")
	}
	dir := filepath.Join(t.TempDir(), "keys")
	if err := os.Mkdir(dir, 0o700); err != nil {
		t.Fatal(err)
	}
	said := make(chan error)
	go func() {
		// The thread that is somebody else ends with this goroutine.
		runtime.LockOSThread()
		if err := unix.Setfsuid(65534); err != nil {
			said <- err
			return
		}
		_, err := siteKeys(&config.Gate{Keys: config.Keys{Site: filepath.Join(dir, "site.key")}})
		said <- err
	}()
	if err := <-said; err == nil || !strings.Contains(err.Error(), "run this as root") || !strings.Contains(err.Error(), "systemctl start gatehouse") {
		t.Errorf("%v", err)
	}
}
