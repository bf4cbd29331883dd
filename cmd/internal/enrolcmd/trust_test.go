package enrolcmd

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"gatehouse/cmd/internal/app"
	"gatehouse/cmd/internal/config"
	"gatehouse/sync/wire"
)

// The server's key is exchanged while a gate is away, and again while it works: the
// gate follows the lists, keeps the keys, and takes no other's word, also when its
// certificate has ended meanwhile.
func TestKeysAreExchanged(t *testing.T) {
	e := &estate{dir: t.TempDir(), addr: freeAddr(t)}
	keys := filepath.Join(e.dir, "community-keys")
	with := func(keys string) []string {
		return []string{"--embedded-broker", "--listen", e.addr, "--host", "127.0.0.1", "--keys", keys}
	}
	stop := e.serve(t, with(keys)...)
	conf := gateFolder(t, "east")
	e.join(t, conf, "approve")
	cfg, err := config.Load(conf)
	if err != nil {
		t.Fatal(err)
	}
	first := start(t, conf, app.Options{TrustClock: true})
	first.receipted(t)
	first.stop()

	// exchange puts a server with another key in the place of the one that runs.
	exchange := func(n int) {
		t.Helper()
		next := filepath.Join(e.dir, "keys-"+string(rune('0'+n)))
		old := fingerprint(t, e.must(t, "trust", "--keys", keys))
		line := strings.TrimSpace(e.must(t, "trust", "prepare", next, "--keys", keys))
		if _, err := e.communityd(t, "trust", "retire", old, "--keys", keys); err == nil || !strings.Contains(err.Error(), "without a key") {
			t.Errorf("the only key was retired: %v", err)
		}
		e.must(t, "trust", "add", line, "--keys", keys)
		if _, err := e.communityd(t, "trust", "retire", old, "--keys", keys); err == nil || !strings.Contains(err.Error(), "own key") {
			t.Errorf("a server retired its own key: %v", err)
		}
		stop()
		stop = e.serve(t, with(next)...)
		e.must(t, "trust", "retire", old, "--keys", next)
		keys = next
	}
	trusted := func() wire.Trust {
		t.Helper()
		got, err := app.ReadTrust(cfg.Sync.Trust)
		if err != nil {
			t.Fatal(err)
		}
		return got
	}
	exchange(1)
	exchange(2)
	if n := trusted().Number; n != 0 {
		t.Fatalf("list %d before the gate was back", n)
	}
	g := start(t, conf, app.Options{TrustClock: true})
	g.receipted(t) // what it had appended itself at its start, by the newest key
	now := trusted()
	if now.Number != 4 || len(now.Keys) != 1 || wire.Fingerprint(now.Keys[0].Public) != fingerprint(t, e.must(t, "trust", "--keys", keys)) {
		t.Errorf("the gate goes by %+v", now)
	}
	exchange(3)
	waitFor(t, "the gate that works follows", func() bool { return trusted().Number == 6 })
	g.stop()
	g = start(t, conf, app.Options{TrustClock: true})
	g.receipted(t)
	g.stop()

	exchange(4)
	expire(t, e, cfg, time.Now().AddDate(0, -13, 0))
	g = start(t, conf, app.Options{TrustClock: true, Renew: app.Pace{Check: 50 * time.Millisecond, Lost: 200 * time.Millisecond, Again: time.Second, Try: 20 * time.Second}})
	g.receipted(t)
	if n := trusted().Number; n != 8 {
		t.Errorf("list %d after the certificate was renewed", n)
	}
}

// Lists are signed on a machine of their own.
func TestListsAreSignedOffline(t *testing.T) {
	e := &estate{dir: t.TempDir()}
	root := filepath.Join(t.TempDir(), "root")
	own := strings.TrimSpace(e.must(t, "trust"))
	rootKey := strings.TrimSpace(e.must(t, "trust", "--authority", "root.example", "--keys", root))
	e.must(t, "trust", "add", rootKey, "trust")
	e.must(t, "trust", "add", own+" receipts registry policy commands")
	if _, err := e.communityd(t, "trust", "add", rootKey); err == nil || !strings.Contains(err.Error(), "--draft") {
		t.Errorf("the server's key still signs lists: %v", err)
	}
	file := filepath.Join(e.dir, "list")
	write := func(text string) {
		t.Helper()
		if err := os.WriteFile(file, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	next := strings.TrimSpace(e.must(t, "trust", "prepare", filepath.Join(e.dir, "next")))
	write(e.must(t, "trust", "add", next+" receipts registry policy commands", "--draft"))
	signed := e.must(t, "trust", "sign", file, "--name", "root.example", "--keys", root)
	stranger := e.must(t, "trust", "sign", file, "--name", "root.example", "--keys", filepath.Join(e.dir, "stranger"))
	write(stranger)
	if _, err := e.communityd(t, "trust", "push", file); err == nil {
		t.Error("a stranger's list was published")
	}
	write(signed)
	e.must(t, "trust", "push", file)
	if _, err := e.communityd(t, "trust", "push", file); err == nil || !strings.Contains(err.Error(), "the next one is 4") {
		t.Errorf("it was published twice: %v", err)
	}
	if out := e.must(t, "trust", "list"); !strings.Contains(out, "list 3") || !strings.Contains(out, next+" receipts registry policy commands") {
		t.Errorf("%s", out)
	}
}

func fingerprint(t *testing.T, line string) string {
	t.Helper()
	k, err := wire.ParseKey(strings.Fields(line)...)
	if err != nil {
		t.Fatal(err)
	}
	return wire.Fingerprint(k.Public)
}
