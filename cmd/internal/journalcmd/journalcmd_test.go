package journalcmd

import (
	"bufio"
	"bytes"
	"context"
	"crypto/ed25519"
	"encoding/base64"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	cosig "github.com/transparency-dev/formats/note"
	"github.com/transparency-dev/merkle/proof"
	"github.com/transparency-dev/merkle/rfc6962"
	"golang.org/x/mod/sumdb/note"

	"gatehouse/edge"
	"gatehouse/edge/clock"
	"gatehouse/edge/journal"
)

type deviceSigner struct{ key ed25519.PrivateKey }

func (s deviceSigner) Name() string                    { return "c/s/g" }
func (s deviceSigner) Public() []byte                  { return s.key.Public().(ed25519.PublicKey) }
func (s deviceSigner) Sign(msg []byte) ([]byte, error) { return ed25519.Sign(s.key, msg), nil }

// gate is a journal with the commands on it.
type gate struct {
	t    *testing.T
	path string
	o    journal.Options
	clk  *clock.Fake
	j    *journal.Journal // as the daemon has it
}

func newGate(t *testing.T) *gate {
	t.Helper()
	clk := clock.NewFake(time.Date(2026, 3, 1, 8, 0, 0, 0, time.UTC), 480)
	g := &gate{t: t, path: filepath.Join(t.TempDir(), "journal.db"), clk: clk,
		o: journal.Options{Community: "c", Site: "s", Gate: "g", Clock: clk, Signer: deviceSigner{ed25519.NewKeyFromSeed(make([]byte, ed25519.SeedSize))}}}
	g.open()
	return g
}

func (g *gate) open() {
	g.t.Helper()
	var err error
	if g.j, err = journal.Open(g.t.Context(), g.path, g.o); err != nil {
		g.t.Fatal(err)
	}
	g.t.Cleanup(func() { g.j.Close() })
}

func (g *gate) admit(passes ...edge.PassID) {
	g.t.Helper()
	for _, p := range passes {
		g.clk.Advance(time.Minute)
		e := &edge.Entry{Kind: edge.KindDecision, Lane: "in", Of: -1, Stamp: g.clk.Now(), Outcome: edge.Admit, Rule: "resident",
			Facts: &edge.Facts{Pass: &edge.PassFacts{ID: p, Category: "resident", Status: edge.PassActive}}}
		if _, err := g.j.Append(g.t.Context(), e, nil); err != nil {
			g.t.Fatal(err)
		}
	}
}

func (g *gate) run(args ...string) (string, error) {
	g.t.Helper()
	c := New(Gate{
		Path:   func() (string, error) { return g.path, nil },
		Signer: func() (edge.Signer, error) { return g.o.Signer, nil },
		Alone: func(ctx context.Context) (*journal.Journal, error) {
			o := g.o
			o.Alone = true
			return journal.Open(ctx, g.path, o)
		}})
	var out bytes.Buffer
	c.SetOut(&out)
	c.SetErr(&out)
	c.SilenceUsage, c.SilenceErrors = true, true
	c.SetArgs(args)
	err := c.ExecuteContext(g.t.Context())
	return out.String(), err
}

func (g *gate) must(args ...string) string {
	g.t.Helper()
	out, err := g.run(args...)
	if err != nil {
		g.t.Fatalf("%v: %v\n%s", args, err, out)
	}
	return out
}

// Who follows the journal is told of a new epoch, and sees it from its beginning.
func TestTailFollowsIntoANewEpoch(t *testing.T) {
	g := newGate(t)
	g.admit(1, 2, 3)
	ctx, stop := context.WithCancel(t.Context())
	c := New(Gate{Path: func() (string, error) { return g.path, nil }})
	read, write := io.Pipe()
	c.SetOut(write)
	c.SetArgs([]string{"tail", "-f"})
	ended := make(chan error, 1)
	go func() { ended <- errors.Join(c.ExecuteContext(ctx), write.Close()) }()
	lines := bufio.NewScanner(read)
	next := func(want string) {
		t.Helper()
		for lines.Scan() {
			if strings.Contains(lines.Text(), want) {
				return
			}
		}
		t.Errorf("the end, before %q", want)
	}
	next("pass 3")
	if err := g.j.NewEpoch(t.Context(), 2, "restored"); err != nil {
		t.Fatal(err)
	}
	next("epoch " + g.j.Epoch().String() + " begins")
	next("      0  ")
	g.admit(4)
	next("pass 4")
	stop()
	go func() { _, _ = io.Copy(io.Discard, read) }()
	if err := <-ended; err != nil {
		t.Error(err)
	}
}

// witness is a C2SP tlog-witness of another make: it has its log's key, remembers
// the last head, and verifies with libraries that are not tlog.
type witness struct {
	log  note.Verifier
	sign *cosig.Signer
	vkey string
	size uint64
	root []byte
}

func newWitness(t *testing.T, log edge.Signer) *witness {
	t.Helper()
	v, err := edge.HeadVerifier(log.Name(), log.Public())
	if err != nil {
		t.Fatal(err)
	}
	skey, vkey, err := note.GenerateKey(nil, "witness.example/w1")
	if err != nil {
		t.Fatal(err)
	}
	s, err := cosig.NewSignerForCosignatureV1(skey)
	if err != nil {
		t.Fatal(err)
	}
	return &witness{log: v, sign: s, vkey: vkey}
}

// addCheckpoint answers a request as the standard says.
func (w *witness) addCheckpoint(request string) (string, error) {
	head, text, ok := strings.Cut(request, "\n\n")
	lines := strings.Split(head, "\n")
	var old uint64
	if _, err := fmt.Sscanf(lines[0], "old %d", &old); err != nil || !ok {
		return "", errors.New("400 Bad Request")
	}
	n, err := note.Open([]byte(text), note.VerifierList(w.log))
	if err != nil {
		return "", errors.New("403 Forbidden")
	}
	if old != w.size {
		return "", fmt.Errorf("409 Conflict %d", w.size)
	}
	h, err := edge.ParseHead(n.Text)
	if err != nil {
		return "", errors.New("400 Bad Request")
	}
	var path [][]byte
	for _, l := range lines[1:] {
		b, err := base64.StdEncoding.DecodeString(l)
		if err != nil {
			return "", errors.New("400 Bad Request")
		}
		path = append(path, b)
	}
	if old > 0 {
		if err := proof.VerifyConsistency(rfc6962.DefaultHasher, old, h.Size, path, w.root, h.Root[:]); err != nil {
			return "", errors.New("422 Unprocessable Entity")
		}
	}
	w.size, w.root = h.Size, h.Root[:]
	signed, err := note.Sign(&note.Note{Text: n.Text}, w.sign)
	if err != nil {
		return "", err
	}
	_, sigs, _ := strings.Cut(string(signed), "\n\n")
	return sigs, nil
}

// An outside witness follows the log, and a proof under its cosignature is checked
// without the server's word.
func TestWitness(t *testing.T) {
	g := newGate(t)
	g.admit(1, 2, 3, 4, 5)
	w := newWitness(t, g.o.Signer)
	answer := func(args ...string) (string, error) {
		t.Helper()
		sigs, err := w.addCheckpoint(g.must(append([]string{"witness", "request"}, args...)...))
		if err != nil {
			return "", err
		}
		p := filepath.Join(t.TempDir(), "answer")
		if err := os.WriteFile(p, []byte(sigs), 0o600); err != nil {
			t.Fatal(err)
		}
		return p, nil
	}
	p, err := answer()
	if err != nil {
		t.Fatal(err)
	}
	if out := g.must("witness", "add", "--key", w.vkey, p); !strings.Contains(out, "witness.example/w1 cosigned 6 entries of c/s/g/") {
		t.Error(out)
	}
	g.admit(6, 7)
	if _, err := answer("--old", "3"); err == nil || err.Error() != "409 Conflict 6" {
		t.Errorf("%v", err)
	}
	if p, err = answer("--old", "6"); err != nil {
		t.Fatal(err)
	}
	g.must("witness", "add", "--key", w.vkey, p)
	text := g.must("prove", "7", "--witness", "witness.example/w1")
	wv, err := cosig.NewVerifierForCosignatureV1(w.vkey)
	if err != nil {
		t.Fatal(err)
	}
	got, h, err := edge.CheckProof([]byte(text), w.log, wv)
	if err != nil || got.Seq != 7 || h.Size != 8 {
		t.Errorf("%+v %v", h, err)
	}
	// Another key of the same name, a changed answer, and another log's head.
	other := newWitness(t, g.o.Signer)
	if _, err := g.run("witness", "add", "--key", other.vkey, p); err == nil || !strings.Contains(err.Error(), "cannot verify") {
		t.Errorf("a stranger's key: %v", err)
	}
	if _, err := g.run("prove", "7", "--witness", "nobody"); !errors.Is(err, edge.ErrUnknown) {
		t.Errorf("%v", err)
	}
	foreign := newGate(t)
	foreign.admit(9)
	if _, err := foreign.run("witness", "add", "--key", w.vkey, p); err == nil || !strings.Contains(err.Error(), "no request of this gate") {
		t.Errorf("%v", err)
	}
}

func TestEraseAndExportOnePerson(t *testing.T) {
	g := newGate(t)
	g.admit(7, 8, 7, 9)
	if out := g.must("export", "--pass", "7"); strings.Count(out, "\n") != 2 || strings.Contains(out, `"id":8`) {
		t.Errorf("exported\n%s", out)
	}
	ctx := t.Context()
	if err := g.j.Acknowledge(ctx, g.j.Epoch(), g.j.Size(), nil); err != nil {
		t.Fatal(err)
	}
	// The daemon runs: it is asked, and does it.
	running, stop := context.WithCancel(ctx)
	ended := make(chan error, 1)
	go func() { ended <- g.j.Run(running) }()
	if out := g.must("erase", "--pass", "7"); !strings.Contains(out, "2 entries about pass 7 are destroyed or sealed") {
		t.Error(out)
	}
	stop()
	<-ended
	// What stays is the record of it.
	if out := g.must("export", "--pass", "7"); strings.Count(out, "\n") != 1 || !strings.Contains(out, `"kind":"purge"`) {
		t.Errorf("still there:\n%s", out)
	}
	// It is stopped: the command does it by itself.
	if err := g.j.Close(); err != nil {
		t.Fatal(err)
	}
	if out := g.must("erase", "--pass", "8"); !strings.Contains(out, "1 entries about pass 8") {
		t.Error(out)
	}
	if out := g.must("export", "--pass", "9"); !strings.Contains(out, `"id":9`) {
		t.Errorf("another person's entry is gone: %s", out)
	}
	out := g.must("verify")
	if !strings.Contains(out, "3 entries are past their retention") || !strings.Contains(out, "the counters were not compared") || !strings.Contains(out, "ok: nothing is missing") {
		t.Error(out)
	}
	if out := g.must("tail"); !strings.Contains(out, `"why":"erasure","pass":8`) {
		t.Errorf("no deletion record:\n%s", out)
	}
	if _, err := g.run("erase"); err == nil {
		t.Error("erased nobody in particular")
	}
	if _, err := g.run("show", "1"); !errors.Is(err, edge.ErrPurged) {
		t.Errorf("%v", err)
	}
}
