package identity

import (
	"bytes"
	"crypto/ed25519"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"filippo.io/age"
)

func TestKeysStayAndStaySecret(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "keys")
	a, err := Open(dir, "c/s/g")
	if err != nil {
		t.Fatal(err)
	}
	b, err := Open(dir, "c/s/g")
	if err != nil {
		t.Fatal(err)
	}
	if !bytes.Equal(a.Signer().Public(), b.Signer().Public()) || a.Recipient() != b.Recipient() {
		t.Error("the keys changed between two starts")
	}
	sig, err := a.Signer().Sign([]byte("head"))
	if err != nil || !ed25519.Verify(b.Signer().Public(), []byte("head"), sig) {
		t.Errorf("signature does not verify: %v", err)
	}
	r, err := age.ParseX25519Recipient(a.Recipient())
	if err != nil {
		t.Fatal(err)
	}
	var sealed bytes.Buffer
	w, _ := age.Encrypt(&sealed, r)
	_, _ = w.Write([]byte("site key"))
	w.Close()
	plain, err := b.Open(bytes.NewReader(sealed.Bytes()), 100)
	if err != nil || string(plain) != "site key" {
		t.Errorf("opened %q, %v", plain, err)
	}
	if _, err := b.Open(bytes.NewReader(sealed.Bytes()), 3); err == nil {
		t.Error("the limit does not hold")
	}
	for _, f := range []string{"device.key", "device.age"} {
		st, err := os.Stat(filepath.Join(dir, f))
		if err != nil || st.Mode().Perm() != 0o600 {
			t.Errorf("%s: %v %v", f, st.Mode(), err)
		}
	}
	if err := os.Chmod(filepath.Join(dir, "device.key"), 0o644); err != nil {
		t.Fatal(err)
	}
	if _, err := Open(dir, "c/s/g"); err == nil || !strings.Contains(err.Error(), "chmod 600") {
		t.Errorf("a key that others can read was taken: %v", err)
	}
}
