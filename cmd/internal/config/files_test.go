package config

import (
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
)

// What gate.yaml names is found by its place beside it, as root's command reads it and
// as the service does, which has copies of what is in keys.
func TestFiles(t *testing.T) {
	dir := t.TempDir()
	text := strings.Replace(good, "gate: g", "gate: g\nstate: state\nsuperior: [above/city.yaml]\nkeys: {site: keys/site.key, inspectors: keys/inspectors}\n"+
		"console: {listen: '127.0.0.1:0', tips: tips.yaml, cert: keys/console.pem, key: keys/console.key}\n"+
		"sync: {url: 'mqtts://h:1', trust: keys/trust, ca: /usr/share/ca.pem, cert: state/keys/tls.pem, key: state/keys/tls.pem, password_file: keys/password}", 1)
	want := func(g *Gate) []string {
		var out []string
		for _, f := range g.Files() {
			if _, err := os.Stat(f.Path); f.Beside == "keys/inspectors" && err != nil {
				t.Error(err)
			}
			own := ""
			if f.Own {
				own = " own"
			}
			out = append(out, f.Key+" "+f.Beside+own)
		}
		return out
	}
	expected := []string{"superior above/city.yaml", "console.tips tips.yaml", "keys.inspectors keys/inspectors", "console.cert keys/console.pem own", "console.key keys/console.key own",
		"sync.ca ", "sync.trust keys/trust", "sync.password_file keys/password own"}
	for _, service := range []bool{false, true} {
		at := filepath.Join(dir, "keys/inspectors")
		if service {
			creds := t.TempDir()
			t.Setenv("CREDENTIALS_DIRECTORY", creds)
			at = filepath.Join(creds, "keys_inspectors")
		}
		if err := os.MkdirAll(filepath.Dir(at), 0o700); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(at, nil, 0o600); err != nil {
			t.Fatal(err)
		}
		g, err := Parse(filepath.Join(dir, "gate.yaml"), []byte(text))
		if err != nil {
			t.Fatal(err)
		}
		if got := want(g); !slices.Equal(got[1:], expected) || !strings.HasPrefix(got[0], "policy ") {
			t.Errorf("as the service %v: %q", service, got)
		}
	}
}
