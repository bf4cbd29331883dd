package app

import (
	"bytes"
	"context"
	"crypto/ed25519"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"io"
	"io/fs"
	"log/slog"
	"net/http"
	"net/http/cookiejar"
	"net/url"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"golang.org/x/mod/sumdb/note"

	"gatehouse/cmd/internal/config"
	"gatehouse/device/sim"
	"gatehouse/edge"
	"gatehouse/edge/bundle"
	firmwareconfig "gatehouse/firmware-config"
)

const consoleGate = `
community: c
site: s
gate: g
state: state
policy: policy.yaml
keys: {inspectors: inspectors.txt}
console: {listen: '127.0.0.1:0', first_code_file: boot/gatehouse-code.txt}
passages: [{name: main, barrier: none}]
lanes: [{name: in, passage: main, direction: in, scanner: console, thermometer: none}]
`

func consoleConfig(t *testing.T, dir string) *config.Gate {
	t.Helper()
	pol, err := firmwareconfig.Samples.ReadFile("policies/normal-times.yaml")
	if err != nil {
		t.Fatal(err)
	}
	if err := os.MkdirAll(filepath.Join(dir, "boot"), 0o755); err != nil {
		t.Fatal(err)
	}
	for name, text := range map[string]string{"policy.yaml": string(pol), "gate.yaml": consoleGate, "inspectors.txt": "# nobody yet\n"} {
		if err := os.WriteFile(filepath.Join(dir, name), []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	cfg, err := config.Load(filepath.Join(dir, "gate.yaml"))
	if err != nil {
		t.Fatal(err)
	}
	return cfg
}

func runApp(t *testing.T, a *App) {
	t.Helper()
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- a.Run(ctx) }()
	t.Cleanup(func() {
		cancel()
		if err := <-done; err != nil && !errors.Is(err, context.Canceled) {
			t.Errorf("the gate ended with %v", err)
		}
	})
}

// A new gate shows its code in both files; over TLS it makes the first manager,
// the files go, and the journal knows.
func TestFirstManager(t *testing.T) {
	dir := t.TempDir()
	cfg := consoleConfig(t, dir)
	a, err := Build(t.Context(), cfg, Options{Version: "test", Log: slog.New(slog.DiscardHandler), TrustClock: true, Pins: sim.NewPins().Open})
	if err != nil {
		t.Fatal(err)
	}
	runApp(t, a)
	files := []string{filepath.Join(dir, "state", "first-code.txt"), filepath.Join(dir, "boot", "gatehouse-code.txt")}
	var code string
	until(t, "the code is shown", func() bool {
		for _, f := range files {
			b, err := os.ReadFile(f)
			if err != nil {
				return false
			}
			code = strings.TrimSpace(string(b))
		}
		return code != ""
	})
	pool := x509.NewCertPool()
	ca, err := os.ReadFile(filepath.Join(dir, "state", "keys", "console-ca.pem"))
	if err != nil || !pool.AppendCertsFromPEM(ca) {
		t.Fatal(err)
	}
	jar, err := cookiejar.New(nil)
	if err != nil {
		t.Fatal(err)
	}
	transport := &http.Transport{TLSClientConfig: &tls.Config{RootCAs: pool}}
	t.Cleanup(transport.CloseIdleConnections)
	client := &http.Client{Transport: transport, Jar: jar}
	base := strings.TrimSuffix(a.Console.URL(), "/")
	if !strings.HasPrefix(base, "https://") {
		t.Fatal(base)
	}
	resp, err := client.PostForm(base+"/setup", url.Values{"code": {code}, "name": {"钱经理"}, "secret": {"correct horse"}, "secret2": {"correct horse"}})
	if err != nil {
		t.Fatal(err)
	}
	body, err := io.ReadAll(resp.Body)
	if err := errors.Join(err, resp.Body.Close()); err != nil || resp.StatusCode != 200 || !strings.Contains(string(body), "钱经理") {
		t.Fatalf("%s %v %.300s", resp.Status, err, body)
	}
	until(t, "the code's files go", func() bool {
		for _, f := range files {
			if _, err := os.Stat(f); !errors.Is(err, fs.ErrNotExist) {
				return false
			}
		}
		return true
	})
	until(t, "the journal knows", func() bool {
		found := 0
		stored, err := a.Journal.Read(t.Context(), 0, 100, 1<<20)
		if err != nil {
			t.Fatal(err)
		}
		for _, s := range stored {
			e, err := edge.DecodeEntry(s.Line)
			if err != nil {
				t.Fatal(err)
			}
			if (e.Kind == edge.KindAccount && strings.Contains(string(e.Data), `"action":"setup"`)) || (e.Kind == edge.KindSession && e.Actor == "manager:1") {
				found++
			}
			if bytes.Contains(s.Line, []byte("钱")) || bytes.Contains(s.Line, []byte(code)) {
				t.Errorf("%s", s.Line)
			}
		}
		return found == 2
	})
}

// With accounts that cannot be opened the gate is open for business.
func TestNoAccounts(t *testing.T) {
	dir := t.TempDir()
	cfg := consoleConfig(t, dir)
	if err := os.MkdirAll(cfg.State, 0o700); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(cfg.State, "accounts.db"), bytes.Repeat([]byte("not a database "), 1000), 0o600); err != nil {
		t.Fatal(err)
	}
	a, err := Build(t.Context(), cfg, Options{Version: "test", Log: slog.New(slog.DiscardHandler), TrustClock: true, Pins: sim.NewPins().Open})
	if err != nil {
		t.Fatal(err)
	}
	runApp(t, a)
	until(t, "the lane works", func() bool {
		return a.Lanes.Do(t.Context(), edge.Action{Kind: edge.ActClose, Lane: "in", Actor: "panel"}) == nil
	})
}

// Whose inspectors are let in: keys that may sign policies above the site's own,
// and those of the file; a key for the site's own policy is the site's.
func TestAuthorities(t *testing.T) {
	dir := t.TempDir()
	cfg := consoleConfig(t, dir)
	a, err := Build(t.Context(), cfg, Options{Version: "test", Log: slog.New(slog.DiscardHandler), TrustClock: true, Pins: sim.NewPins().Open})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = a.Close() })
	line := func(name string) (string, note.Verifier) {
		k, err := note.NewEd25519VerifierKey(name, ed25519.NewKeyFromSeed(bytes.Repeat([]byte(name[:1]), 32)).Public().(ed25519.PublicKey))
		if err != nil {
			t.Fatal(err)
		}
		v, err := note.NewVerifier(k)
		if err != nil {
			t.Fatal(err)
		}
		return k, v
	}
	_, every := line("every")
	_, city := line("city")
	_, own := line("site")
	file, _ := line("office")
	a.Policies.trust = func() bundle.Trust {
		return bundle.Trust{Keys: []bundle.Key{{Verifier: every}, {Verifier: city, Layers: []string{"city"}}, {Verifier: own, Layers: []string{""}}, {Verifier: city, Layers: []string{"city"}}}}
	}
	if err := os.WriteFile(filepath.Join(dir, "inspectors.txt"), []byte(file+"\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	var names []string
	for _, v := range a.authorities() {
		names = append(names, v.Name())
	}
	if got := strings.Join(names, " "); got != "every city office" {
		t.Errorf("%s", got)
	}
}
