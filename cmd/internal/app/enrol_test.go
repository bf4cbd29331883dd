package app

import (
	"bytes"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"encoding/pem"
	"log/slog"
	"math/big"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"gatehouse/cmd/internal/config"
	"gatehouse/edge/identity"
	"gatehouse/sync/wire"
)

// approval is what a server answers to the gate's present request.
func approval(t *testing.T, cfg *config.Gate, siteKey string) *wire.Approval {
	t.Helper()
	key, err := tlsKey(cfg)
	if err != nil {
		t.Fatal(err)
	}
	serial, err := rand.Int(rand.Reader, big.NewInt(1<<62))
	if err != nil {
		t.Fatal(err)
	}
	c := &x509.Certificate{SerialNumber: serial, NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(time.Hour)}
	der, err := x509.CreateCertificate(rand.Reader, c, c, key.Public(), key)
	if err != nil {
		t.Fatal(err)
	}
	server, err := identity.Open(t.TempDir(), "server")
	if err != nil {
		t.Fatal(err)
	}
	trust, err := TrustLine(server.Signer())
	if err != nil {
		t.Fatal(err)
	}
	cert := string(pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der}))
	return &wire.Approval{URL: "mqtts://b:8883", Trust: trust + "\n", CA: cert, Cert: cert, SiteKey: siteKey}
}

// The server sends the site's key with every certificate. The daemon can renew its
// certificate where that key is root's file, and one that cannot be kept leaves the
// former certificate in force.
func TestRenewalWithTheSiteKeyInRootsHands(t *testing.T) {
	same, other := "1 "+strings.Repeat("5a", 32)+"\n", "2 "+strings.Repeat("a5", 32)+"\n1 "+strings.Repeat("5a", 32)+"\n"
	for _, c := range []struct {
		name   string
		handed bool // the service's manager has handed a copy in
		barred bool // nothing can be written where the key is
		key    string
		fails  bool
		kept   string
		says   string
	}{
		{"in the state folder, another", false, false, other, false, other, ""},
		{"handed in, the same", true, false, same, false, "# a comment\n" + same, ""},
		{"handed in, another", true, false, other, false, "# a comment\n" + same, "as root: gatehouse enroll"},
		{"where nothing can be written, the same", false, true, same, false, "# a comment\n" + same, ""},
		{"where nothing can be written, another", false, true, other, true, "# a comment\n" + same, ""},
		{"no key at all", false, false, "1 xyz\n", true, "# a comment\n" + same, ""},
	} {
		t.Run(c.name, func(t *testing.T) {
			dir := t.TempDir()
			site := filepath.Join(dir, "keys_site.key")
			cfg := &config.Gate{Community: "c", Site: "s", Gate: "g", State: filepath.Join(dir, "state"), Keys: config.Keys{Site: site}}
			if err := os.MkdirAll(cfg.KeyFile("."), 0o700); err != nil {
				t.Fatal(err)
			}
			if err := os.WriteFile(site, []byte("# a comment\n"+same), 0o600); err != nil {
				t.Fatal(err)
			}
			if c.handed {
				t.Setenv("CREDENTIALS_DIRECTORY", dir)
			}
			if c.barred {
				if err := os.Mkdir(site+".new", 0o700); err != nil {
					t.Fatal(err)
				}
			}
			var said bytes.Buffer
			log := slog.New(slog.NewTextHandler(&said, nil))
			if err := Install(cfg, approval(t, cfg, ""), log); err != nil {
				t.Fatal(err)
			}
			before, err := os.ReadFile(cfg.KeyFile(config.FileTLS))
			if err != nil {
				t.Fatal(err)
			}
			err = Install(cfg, approval(t, cfg, c.key), log)
			if (err != nil) != c.fails {
				t.Errorf("error %v", err)
			}
			after, err := os.ReadFile(cfg.KeyFile(config.FileTLS))
			if err != nil {
				t.Fatal(err)
			}
			if _, err := tls.X509KeyPair(after, after); err != nil {
				t.Error(err)
			}
			if bytes.Equal(before, after) != c.fails {
				t.Errorf("the certificate is the former one: %v", bytes.Equal(before, after))
			}
			if _, err := os.Stat(cfg.KeyFile(nextKey)); (err == nil) != c.fails {
				t.Errorf("the next request's key: %v", err)
			}
			if got, err := os.ReadFile(site); err != nil || string(got) != c.kept {
				t.Errorf("the site key is %q, %v", got, err)
			}
			if !strings.Contains(said.String(), c.says) {
				t.Errorf("it says %s", said.String())
			}
		})
	}
}
