package wire_test

import (
	"bytes"
	"compress/gzip"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"golang.org/x/mod/sumdb/note"
	"golang.org/x/mod/sumdb/tlog"

	"gatehouse/edge"
	"gatehouse/sync/wire"
)

// The receiver in the README reads and verifies what the gate sends, in all three
// forms, and finds out when a byte was changed.
func TestReceiverOfTheReadme(t *testing.T) {
	readme, err := os.ReadFile("README.md")
	if err != nil {
		t.Fatal(err)
	}
	_, rest, _ := strings.Cut(string(readme), "```python\n")
	script, _, ok := strings.Cut(rest, "```")
	if n := strings.Count(script, "\n"); !ok || n > 65 {
		t.Fatalf("the receiver has %d lines", n)
	}
	if err := exec.Command("python3", "-c", "import cryptography").Run(); err != nil {
		if os.Getenv("CI") == "true" {
			t.Fatalf("python3 with the cryptography package is needed: %v", err)
		}
		t.Skipf("python3 with the cryptography package is not here: %v", err)
	}
	dir := t.TempDir()
	path := filepath.Join(dir, "receive.py")
	if err := os.WriteFile(path, []byte(script), 0o644); err != nil {
		t.Fatal(err)
	}
	c, err := wire.NewCompressor(0)
	if err != nil {
		t.Fatal(err)
	}
	l := new(log)
	lines := visits(t, 700)
	l.add(t, lines[:300]...)
	plain := l.batch(t, 0)
	l.add(t, lines[300:500]...)
	var zipped bytes.Buffer
	w := gzip.NewWriter(&zipped)
	if _, err := w.Write(l.batch(t, 290)); err != nil { // ten come again
		t.Fatal(err)
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	l.add(t, lines[500:]...)
	last, err := wire.DecodeBatch(l.batch(t, 500))
	if err != nil {
		t.Fatal(err)
	}
	run := edge.Sealed{First: 510, Data: []byte("only the community opens this")}
	for seq := run.First; seq < 520; seq++ {
		d := edge.LeafData(last.Blind(seq), lines[seq])
		run.Leaves = append(run.Leaves, tlog.RecordHash(d[:]))
		last.Lines[seq-500], lines[seq] = nil, []byte("sealed")
	}
	last.Sealed = []wire.HeaderSealed{wire.SealedHeader(run)}
	text, err := last.Encode(nil)
	if err != nil {
		t.Fatal(err)
	}
	zstd := c.Pack(nil, text)
	more := visits(t, 701)[700]
	lines = append(lines, more)
	l.add(t, more)
	small := c.Pack(nil, l.batch(t, 700))
	if small[4]&3 == 0 {
		t.Error("a batch of one entry is packed without the dictionary")
	}
	var files []string
	for i, b := range [][]byte{plain, zipped.Bytes(), zstd, small} {
		f := filepath.Join(dir, fmt.Sprint("batch", i))
		if err := os.WriteFile(f, b, 0o644); err != nil {
			t.Fatal(err)
		}
		files = append(files, f)
	}
	vkey, err := note.NewEd25519VerifierKey(device.name, device.Public())
	if err != nil {
		t.Fatal(err)
	}
	out, err := exec.Command("python3", append([]string{path, vkey, "dictionary.zdict"}, files...)...).CombinedOutput()
	if err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	var want bytes.Buffer
	for i, line := range lines {
		fmt.Fprintf(&want, "%d %s\n", i, line)
	}
	if !bytes.Equal(out, want.Bytes()) {
		t.Errorf("the receiver printed %d bytes, want %d", len(out), want.Len())
	}
	changed := bytes.Replace(plain, []byte(`"outcome":"admit"`), []byte(`"outcome":"deny"`), 1)
	if bytes.Equal(changed, plain) {
		t.Fatal("nothing was changed")
	}
	if err := os.WriteFile(files[0], changed, 0o644); err != nil {
		t.Fatal(err)
	}
	if out, err := exec.Command("python3", path, vkey, "dictionary.zdict", files[0]).CombinedOutput(); err == nil || !bytes.Contains(out, []byte("not those of the signed head")) {
		t.Errorf("a changed entry: %v\n%.300s", err, out)
	}
	gap := exec.Command("python3", path, vkey, "dictionary.zdict", files[2])
	if out, err := gap.CombinedOutput(); err == nil {
		t.Errorf("a gap was taken\n%.300s", out)
	}
}
