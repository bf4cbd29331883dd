package wire_test

import (
	"bytes"
	"crypto/sha256"
	"fmt"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"testing"

	"gatehouse/edge"
	"gatehouse/sync/wire"
)

// single is a batch of one entry, with an epoch, a key and a signature of its own.
func single(t testing.TB, rng *rand.Rand, line []byte) []byte {
	t.Helper()
	var k edge.BlockKey
	for i := range k {
		k[i] = byte(rng.Uint32())
	}
	first := uint64(rng.IntN(2_000_000))
	e := edge.Epoch(rng.Uint64())
	gate := []string{"east", "west", "north-gate", "gate-1", "main"}[rng.IntN(5)]
	site := []string{"estate", "east-garden", "lakeside-3", "s1"}[rng.IntN(4)]
	h := edge.Head{Origin: edge.Origin("community.example", site, gate, e), Size: first + 1, Root: sha256.Sum256(k[:])}
	if err := edge.SignHead(&h, device); err != nil {
		t.Fatal(err)
	}
	b := wire.Batch{Header: wire.Header{Site: site, Gate: gate, Epoch: e, First: first, Head: string(h.Note), Keys: []wire.HeaderKey{{First: first &^ (edge.BlockSize - 1), Key: k[:]}}}, Lines: [][]byte{line}}
	text, err := b.Encode(nil)
	if err != nil {
		t.Fatal(err)
	}
	return text
}

// The dictionary is made of what gates say, by "go test ./sync/wire -run Dictionary
// -train", once for each version of the wire: what was sent with one is read with
// it for ever.
func TestDictionary(t *testing.T) {
	if *train {
		rng := rand.New(rand.NewPCG(1, 2))
		lines := visits(t, 3000)
		kinds, err := filepath.Glob("../../edge/testdata/entries/*.json")
		if err != nil || len(kinds) == 0 {
			t.Fatalf("no entries of every kind: %v", err)
		}
		for _, name := range kinds {
			line, err := os.ReadFile(name)
			if err != nil {
				t.Fatal(err)
			}
			for range 20 {
				lines = append(lines, bytes.TrimSpace(line))
			}
		}
		dir := t.TempDir()
		args := []string{"--train", "--maxdict=8192", "-q", "-o", "dictionary.zdict"}
		for i, l := range lines {
			path := filepath.Join(dir, fmt.Sprint(i))
			if err := os.WriteFile(path, single(t, rng, l), 0o644); err != nil {
				t.Fatal(err)
			}
			args = append(args, path)
		}
		if out, err := exec.Command("zstd", args...).CombinedOutput(); err != nil {
			t.Fatalf("zstd --train: %v\n%s", err, out)
		}
		t.Fatal("the dictionary is new: build again, and run without -train")
	}
	rng := rand.New(rand.NewPCG(3, 4))
	c, err := wire.NewCompressor(0)
	if err != nil {
		t.Fatal(err)
	}
	text := single(t, rng, visits(t, 40)[30])
	packed := c.Pack(nil, text)
	if got, err := wire.Expand(packed, wire.MaxBatch); err != nil || !bytes.Equal(got, text) {
		t.Fatalf("%v", err)
	}
	// A third voice: the reference implementation reads it with the published file.
	zstd, err := exec.LookPath("zstd")
	if err != nil {
		if os.Getenv("CI") != "" {
			t.Fatal("zstd is not installed")
		}
		t.Skip("zstd is not installed here; .ci/run installs it")
	}
	for _, x := range []struct {
		packed []byte
		args   []string
	}{{packed, []string{"-dc", "-D", "dictionary.zdict"}}, {c.WithoutDictionary().Pack(nil, text), []string{"-dc"}}} {
		cmd := exec.Command(zstd, x.args...)
		cmd.Stdin = bytes.NewReader(x.packed)
		if out, err := cmd.Output(); err != nil || !bytes.Equal(out, text) {
			t.Errorf("zstd %v: %v", x.args, err)
		}
	}
}
