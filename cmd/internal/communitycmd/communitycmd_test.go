package communitycmd

import (
	"bytes"
	"context"
	"crypto/rand"
	"errors"
	"log/slog"
	"net"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"go.uber.org/goleak"
	"golang.org/x/mod/sumdb/note"
	"golang.org/x/mod/sumdb/tlog"

	"gatehouse/edge"
	"gatehouse/edge/identity"
	"gatehouse/sync/community"
	"gatehouse/sync/mqtt"
	"gatehouse/sync/wire"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// do runs a command as the main does.
func do(ctx context.Context, dir string, args ...string) (string, error) {
	c := New("test")
	var out bytes.Buffer
	c.SetOut(&out)
	c.SetErr(&bytes.Buffer{})
	c.SetArgs(append(args, "--store", filepath.Join(dir, "c.db"), "--community", "test.example"))
	err := c.ExecuteContext(ctx)
	return out.String(), err
}

// log is a writer that tells when a line with some text has come.
type logLines struct {
	mu   sync.Mutex
	buf  bytes.Buffer
	want string
	seen chan struct{}
}

func (l *logLines) Write(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.buf.Write(p)
	if l.want != "" && strings.Contains(l.buf.String(), l.want) {
		l.want = ""
		close(l.seen)
	}
	return len(p), nil
}

// A device shows itself, is approved, sends entries over the embedded broker and
// gets its receipt; the commands see what is stored; a proof of it checks offline.
func TestFromTheFirstWordToAProof(t *testing.T) {
	dir := t.TempDir()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	addr := l.Addr().String()
	if err := l.Close(); err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	c := New("test")
	logs := &logLines{want: "community server runs", seen: make(chan struct{})}
	c.SetErr(logs)
	c.SetOut(logs)
	c.SetArgs([]string{"run", "--embedded-broker", "--listen", addr, "--store", filepath.Join(dir, "c.db"), "--community", "test.example"})
	served := make(chan error, 1)
	go func() { served <- c.ExecuteContext(ctx) }()
	select {
	case <-logs.seen:
	case err := <-served:
		t.Fatal(err)
	}

	id, err := identity.Open(filepath.Join(dir, "gate"), "test.example/estate/east")
	if err != nil {
		t.Fatal(err)
	}
	vkey, err := note.NewEd25519VerifierKey(id.Signer().Name(), id.Signer().Public())
	if err != nil {
		t.Fatal(err)
	}
	receipts := make(chan []byte, 10)
	up := make(chan struct{}, 10)
	gate, err := mqtt.New(mqtt.Config{URL: "mqtt://" + addr, ClientID: "east", MinBackoff: 10 * time.Millisecond}, slog.New(slog.DiscardHandler))
	if err != nil {
		t.Fatal(err)
	}
	gate.Subscribe(wire.Topic("estate", "east", wire.Receipts), func(_ string, p []byte) { receipts <- p })
	gate.OnConnect(func(context.Context) { up <- struct{}{} })
	gctx, gcancel := context.WithCancel(context.Background())
	left := make(chan error, 1)
	go func() { left <- gate.Run(gctx) }()
	<-up

	publish := func(ch wire.Channel, payload []byte) {
		t.Helper()
		if err := gate.Publish(ctx, wire.Topic("estate", "east", ch), payload, false); err != nil {
			t.Fatal(err)
		}
	}
	// The server may have subscribed a moment later than the gate has spoken, so
	// the gate speaks until it is known.
	status, err := wire.Encode(wire.StatusMessage{V: 1, Online: true, Key: vkey, Age: id.Recipient()})
	if err != nil {
		t.Fatal(err)
	}
	finger := wire.Fingerprint(id.Signer().Public())
	until(t, func() bool {
		publish(wire.Status, status)
		out, err := do(ctx, dir, "gates")
		if err != nil {
			t.Fatal(err)
		}
		return strings.Contains(out, finger) && strings.Contains(out, "pending")
	})
	if out, err := do(ctx, dir, "gates", "approve", "estate/east", finger); err != nil || !strings.Contains(out, "approved") {
		t.Fatalf("%s %v", out, err)
	}

	line := []byte(`{"v":1,"kind":"decision","t":1,"off":480,"boot":"b","mono":1,"clock":"synced","facts":{"pass":{"id":5}}}`)
	var key edge.BlockKey
	rand.Read(key[:])
	data := edge.LeafData(key.Blind(0), line)
	h := edge.Head{Origin: edge.Origin("test.example", "estate", "east", 7), Size: 1, Root: tlog.RecordHash(data[:])}
	if err := edge.SignHead(&h, id.Signer()); err != nil {
		t.Fatal(err)
	}
	batch := wire.Batch{Header: wire.Header{Site: "estate", Gate: "east", Epoch: 7, Keys: []wire.HeaderKey{{Key: key[:]}}, Head: string(h.Note)}, Lines: [][]byte{line}}
	payload, err := batch.Encode(nil)
	if err != nil {
		t.Fatal(err)
	}
	until(t, func() bool {
		publish(wire.Journal, payload)
		r, err := wire.DecodeReceipt(<-receipts)
		if err != nil {
			t.Fatal(err)
		}
		return r.Refusal == nil && r.Size == 1
	})

	for _, c := range []struct {
		want string
		args []string
	}{
		{"1 entries, none missing, none twice, all as signed", []string{"verify"}},
		{string(line), []string{"export", "estate/east"}},
		{"decision", []string{"query", "--site", "estate", "--kind", "decision"}},
		{"decision", []string{"query", "--gate", "east"}},
		{`"Public": "` + vkey + `"`, []string{"gates", "--json"}},
		{`"missing": 0`, []string{"gates", "--json"}},
		{"ABOUT", []string{"alerts"}},
		{"test.example/server+", []string{"trust"}},
		{"c2sp.org/tlog-proof@v1", []string{"prove", "estate/east", "0"}},
	} {
		out, err := do(ctx, dir, c.args...)
		if err != nil || !strings.Contains(out, c.want) {
			t.Errorf("%v: %v\n%s", c.args, err, out)
		}
	}
	proof, err := do(ctx, dir, "prove", "estate/east", "0")
	if err != nil {
		t.Fatal(err)
	}
	file := filepath.Join(dir, "proof")
	if err := os.WriteFile(file, []byte(proof), 0o600); err != nil {
		t.Fatal(err)
	}
	server, err := do(ctx, dir, "trust")
	if err != nil {
		t.Fatal(err)
	}
	printed, err := do(ctx, dir, "gates", "--vkeys", "--site", "estate")
	if err != nil || printed != "estate/east approved "+vkey+"\n" {
		t.Fatalf("%q %v", printed, err)
	}
	if out, err := do(ctx, t.TempDir(), "prove", "--check", file, "--key", strings.Fields(printed)[2], "--key", strings.TrimSpace(server)); err != nil || !strings.Contains(out, string(line)) {
		t.Errorf("%s %v", out, err)
	}
	other, err := identity.Open(filepath.Join(dir, "other"), "test.example/estate/east")
	if err != nil {
		t.Fatal(err)
	}
	okey, err := note.NewEd25519VerifierKey(other.Signer().Name(), other.Signer().Public())
	if err != nil {
		t.Fatal(err)
	}
	if _, err := do(ctx, dir, "prove", "--check", file, "--key", okey); err == nil {
		t.Error("a proof was believed that another key has signed")
	}

	head := filepath.Join(dir, "head")
	photo := func(text string) {
		t.Helper()
		if err := os.WriteFile(head, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	photo(string(h.Note) + "\n▀▄█\n")
	if out, err := do(ctx, dir, "verify", "--since", head); err != nil || !strings.Contains(out, "signed by device "+finger+" (approved)") || !strings.Contains(out, "extended by 1: nothing was changed") {
		t.Errorf("%s %v", out, err)
	}
	later := edge.Head{Origin: h.Origin, Size: 3, Root: h.Root}
	photo(later.Checkpoint())
	if out, err := do(ctx, dir, "verify", "estate/east", "--since", head); !errors.Is(err, errFound) || !strings.Contains(out, "2 of its entries never reached this server") {
		t.Errorf("%s %v", out, err)
	}

	for _, c := range []struct {
		want string
		args []string
	}{
		{`no gate or roster of site "estat" is known, did you mean "estate"? (known are: estate)`, []string{"verify", "estat/east"}},
		{`no gate "estate/eats" is known, did you mean "estate/east"? (known are: estate/east)`, []string{"verify", "estate/eats"}},
		{`no gate or roster of site "nosuch" is known (known are: estate)`, []string{"erase", "--site", "nosuch", "--pass", "3"}},
		{`"nosuch"`, []string{"export", "--site", "nosuch", "--pass", "3"}},
		{`"nosuch"`, []string{"export", "nosuch/east"}},
		{`"nosuch"`, []string{"export", "nosuch/east/0000000000000007"}},
		{`"nosuch"`, []string{"query", "--site", "nosuch"}},
		{`no gate "esat" is known, did you mean "east"?`, []string{"query", "--gate", "esat"}},
		{"holds a head of estate/east, not of estate/west", []string{"verify", "estate/west", "--since", head}},
		{"no head of a gate's log", []string{"verify", "--since", file}},
	} {
		if out, err := do(ctx, dir, c.args...); err == nil || !strings.Contains(err.Error(), c.want) {
			t.Errorf("%v: %v, want %q\n%s", c.args, err, c.want, out)
		}
	}

	if out, err := do(ctx, dir, "purge", "--keep", "1"); err != nil || !strings.HasPrefix(out, "0 entries") {
		t.Errorf("%s %v", out, err) // filed under the time it came: its own clock was not set
	}
	if out, err := do(ctx, dir, "erase", "--site", "estate", "--pass", "5"); err != nil || !strings.HasPrefix(out, "1 entries") {
		t.Errorf("%s %v", out, err)
	}
	if out, err := do(ctx, dir, "verify"); err != nil || !strings.Contains(out, "1 entries, none missing, none twice, all as signed, of these 1 destroyed by retention or erasure, as recorded\n") {
		t.Errorf("%s %v", out, err)
	}
	if _, err := do(ctx, dir, "command", "estate/east", "open"); err == nil || !strings.Contains(err.Error(), "not online") {
		t.Errorf("a gate without a nonce was given an order: %v", err)
	}
	orders := make(chan []byte, 1)
	if status, err = wire.Encode(wire.StatusMessage{V: 1, Online: true, Nonce: "n1", Key: vkey}); err != nil {
		t.Fatal(err)
	}
	gcancel()
	<-left
	// The gate comes back as one that takes orders.
	gate, err = mqtt.New(mqtt.Config{URL: "mqtt://" + addr, ClientID: "east", MinBackoff: 10 * time.Millisecond}, slog.New(slog.DiscardHandler))
	if err != nil {
		t.Fatal(err)
	}
	gate.Subscribe(wire.Topic("estate", "east", wire.Commands), func(_ string, p []byte) { orders <- p })
	gate.OnConnect(func(context.Context) { up <- struct{}{} })
	gctx, gcancel = context.WithCancel(context.Background())
	go func() { left <- gate.Run(gctx) }()
	<-up
	go func() {
		var c wire.CommandBody
		e, err := wire.OpenEnvelope(<-orders, wire.TypeCommand, "estate", "east", wire.UseCommands, []wire.ServerKey{serverTrust(t, server)})
		if err == nil {
			err = wire.Decode(e.Body, &c)
		}
		if err != nil {
			t.Errorf("order: %v", err)
			return
		}
		res, err := wire.Encode(wire.Result{V: 1, Number: c.Number, Status: "done", Text: "opened"})
		if err == nil {
			err = gate.Publish(ctx, wire.Topic("estate", "east", wire.Results), res, false)
		}
		if err != nil {
			t.Errorf("result: %v", err)
		}
	}()
	until(t, func() bool {
		publish(wire.Status, status)
		out, err := do(ctx, dir, "command", "estate/east", "open", `{"lane":"east-in"}`)
		if err != nil && !strings.Contains(err.Error(), "not online") {
			t.Fatal(err)
		}
		return err == nil && strings.Contains(out, "done opened")
	})
	gcancel()
	<-left
	cancel()
	if err := <-served; err != nil {
		t.Errorf("serve: %v", err)
	}
}

func serverTrust(t *testing.T, vkey string) wire.ServerKey {
	name, public, err := community.VerifierKey(strings.TrimSpace(vkey))
	if err != nil {
		t.Error(err)
	}
	return wire.ServerKey{ID: name, Public: public[:], Uses: []wire.Use{wire.UseCommands}}
}

// until asks again, with the broker's round trip in between, until f is content.
func until(t *testing.T, f func() bool) {
	t.Helper()
	for end := time.Now().Add(2 * time.Minute); time.Now().Before(end); {
		if f() {
			return
		}
	}
	t.Fatal("did not come about in time")
}

func TestRosterImport(t *testing.T) {
	dir := t.TempDir()
	file := filepath.Join(dir, "r.csv")
	text := "pass,household,category,card\n1,1,resident,em:3C00CE754C\n2,1,resident,em:3C00CE754D\n"
	if err := os.WriteFile(file, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	ctx := context.Background()
	if out, err := do(ctx, dir, "roster", "import", file, "--site", "estate", "--dry-run"); err != nil || !strings.HasPrefix(out, "2 new, 0 changed, 0 gone, 0 as before; nothing was changed") {
		t.Fatalf("%s %v", out, err)
	}
	if out, err := do(ctx, dir, "roster", "import", file, "--site", "estate"); err != nil || !strings.Contains(out, "version 1") {
		t.Fatalf("%s %v", out, err)
	}
	if err := os.WriteFile(file, []byte(text[:len(text)-len("2,1,resident,em:3C00CE754D\n")]), 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := do(ctx, dir, "roster", "import", file, "--site", "estate"); err == nil || !strings.Contains(err.Error(), "--max-gone") {
		t.Errorf("half of the passes went: %v", err)
	}
}

func TestBadCommandLines(t *testing.T) {
	for want, args := range map[string][]string{
		"unknown flag":       {"gates", "--sites", "x"},
		"unknown command":    {"gate"},
		"not SITE/GATE":      {"verify", "estate"},
		"not a time":         {"query", "--from", "yesterday"},
		"not a sequence":     {"prove", "a/b", "x1"},
		"required flag":      {"roster", "import", "x"},
		"at least one of":    {"run"},
		"none of the others": {"run", "--embedded-broker", "--broker", "mqtt://x"},
		"not a number of":    {"purge", "--keep", "28h"},
		"not JSON":           {"command", "a/b", "open", "{"},
		"--key is missing":   {"prove", "--check", "communitycmd_test.go"},
	} {
		if _, err := do(context.Background(), t.TempDir(), args...); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%v: %v, want %q", args, err, want)
		}
	}
}
