//go:build vgate

package vgatetest

import (
	"context"
	"crypto/ed25519"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"math/rand/v2"
	"os"
	"strconv"
	"sync"
	"testing"
	"time"

	"gatehouse/edge"
	"gatehouse/edge/journal"
)

// A journal on a drive that loses power. .ci/powercut runs cutWrite in a machine,
// cuts its power at a random moment, with the drive's volatile cache lost, torn or
// written in part, boots it again and runs cutVerify.
const (
	cutDB    = "/data/journal.db"
	cutHead  = "/data/head" // a tree head that somebody kept, durable
	cutLanes = 3
)

type cutSigner struct{ key ed25519.PrivateKey }

func (s cutSigner) Name() string                    { return "c/s/g" }
func (s cutSigner) Public() []byte                  { return s.key.Public().(ed25519.PublicKey) }
func (s cutSigner) Sign(msg []byte) ([]byte, error) { return ed25519.Sign(s.key, msg), nil }

type cutClock struct{}

func (cutClock) Now() edge.Stamp {
	return edge.Stamp{Time: time.Now().UnixMilli(), Boot: "cut", Clock: edge.ClockSynced}
}

// cutEntry numbers the entries of each lane from 1.
type cutEntry struct {
	Lane int    `json:"lane"`
	N    uint64 `json:"n"`
}

func openCut(t *testing.T) *journal.Journal {
	t.Helper()
	j, err := journal.Open(t.Context(), cutDB, journal.Options{Community: "c", Site: "s", Gate: "g", Clock: cutClock{},
		Signer: cutSigner{ed25519.NewKeyFromSeed(make([]byte, ed25519.SeedSize))}})
	if err != nil {
		t.Fatal(err)
	}
	return j
}

// TestCutWrite appends from several lanes, with receipts, sealing, heads and new
// epochs in between, until the power goes. It prints "acked N" once N entries in all
// are durable.
func TestCutWrite(t *testing.T) {
	if os.Getenv("CUT") != "write" {
		t.Skip("only under .ci/powercut")
	}
	ctx := context.Background()
	j := openCut(t)
	lanes := cutCount(t)
	var mu sync.Mutex
	total := uint64(0)
	for _, n := range lanes {
		total += n
	}
	go func() { _ = j.Run(ctx) }()
	var wg sync.WaitGroup
	for lane := range cutLanes {
		wg.Go(func() {
			for n := lanes[lane] + 1; ; n++ {
				data, err := json.Marshal(cutEntry{lane, n})
				if err != nil {
					t.Error(err)
					return
				}
				c := edge.Cell{Name: "exits", Subject: fmt.Sprintf("h%d", n%50), Bucket: 1}
				e := &edge.Entry{Kind: edge.KindTest, Of: -1, Stamp: cutClock{}.Now(), Data: data, Deltas: []edge.Delta{{Cell: c, Op: edge.OpAdd, Value: 1}}}
				if _, err := j.Append(ctx, e, nil); err != nil {
					t.Error(err)
					return
				}
				mu.Lock()
				total++
				fmt.Println("acked", total)
				mu.Unlock()
				switch rand.IntN(200) {
				case 0, 1, 2:
					err = keepHead(ctx, j)
				case 3:
					err = j.Acknowledge(ctx, j.Epoch(), j.Size()-min(j.Size(), 20), nil)
				case 4:
					err = errors.Join(j.NewEpoch(ctx, j.Acked(), "a power cut's test"), j.Carry(ctx))
				}
				if err != nil {
					fmt.Println("beside:", err) // another lane began an epoch in between
				}
			}
		})
	}
	wg.Wait()
}

// keepHead is somebody who photographs the head.
func keepHead(ctx context.Context, j *journal.Journal) error {
	h, err := j.Head(ctx)
	if err != nil {
		return err
	}
	f, err := os.CreateTemp("/data", "head*")
	if err != nil {
		return err
	}
	_, err = f.WriteString(h.Checkpoint())
	if err := errors.Join(err, f.Sync(), f.Close()); err != nil {
		return err
	}
	return os.Rename(f.Name(), cutHead)
}

// TestCutVerify finds every entry that was acknowledged before the cut, each once,
// the tree whole, the counters right, and the kept head extended.
func TestCutVerify(t *testing.T) {
	if os.Getenv("CUT") != "verify" {
		t.Skip("only under .ci/powercut")
	}
	acked, err := strconv.ParseUint(os.Getenv("ACKED"), 10, 64)
	if err != nil {
		t.Fatal(err)
	}
	j := openCut(t)
	if err := j.Close(); err != nil {
		t.Fatal(err)
	}
	total := uint64(0)
	for _, n := range cutCount(t) {
		total += n
	}
	if total < acked {
		t.Errorf("%d entries were acknowledged, %d are there", acked, total)
	}
	r, err := journal.Inspect(t.Context(), cutDB)
	if err != nil {
		t.Fatal(err)
	}
	defer r.Close()
	rep, err := r.Verify(t.Context(), nil)
	if err != nil {
		t.Fatal(err)
	}
	for _, f := range rep.Findings {
		t.Errorf("entry %d: %s", f.Seq, f.Text)
	}
	if text, err := os.ReadFile(cutHead); !errors.Is(err, fs.ErrNotExist) {
		if err != nil {
			t.Fatal(err)
		}
		h, err := edge.ParseHead(string(text))
		if err != nil {
			t.Fatal(err)
		}
		if said, ok, err := r.Since(t.Context(), rep, h); err != nil || !ok {
			t.Errorf("%s %v", said, err)
		}
	}
	fmt.Printf("%d entries, %d acknowledged\n", total, acked)
}

// cutCount counts each lane's entries in all epochs, and fails where one is twice
// or missing.
func cutCount(t *testing.T) [cutLanes]uint64 {
	t.Helper()
	r, err := journal.Inspect(t.Context(), cutDB)
	if err != nil {
		t.Fatal(err)
	}
	defer r.Close()
	var out [cutLanes]uint64
	seen := map[cutEntry]bool{}
	formers, err := r.Formers(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	readers := []*journal.Reader{}
	for _, e := range formers {
		f, err := r.Former(t.Context(), e)
		if err != nil {
			t.Fatal(err)
		}
		readers = append(readers, f)
	}
	for _, x := range append(readers, r) {
		for from := uint64(0); ; {
			got, err := x.Read(t.Context(), from, 1000, 1<<20)
			if err != nil {
				t.Fatal(err)
			}
			if len(got) == 0 {
				break
			}
			for _, s := range got {
				from = s.Seq + 1
				c, ok := cutInner(t, s.Line)
				if !ok {
					continue
				}
				if seen[c] {
					t.Fatalf("lane %d: entry %d is there twice", c.Lane, c.N)
				}
				seen[c] = true
				out[c.Lane] = max(out[c.Lane], c.N)
			}
		}
	}
	// What is carried may stand behind what came later.
	for c := range seen {
		if c.N > 1 && !seen[cutEntry{c.Lane, c.N - 1}] {
			t.Fatalf("lane %d: entry %d is missing", c.Lane, c.N-1)
		}
	}
	return out
}

// cutInner is a lane's entry, carried or not.
func cutInner(t *testing.T, line []byte) (c cutEntry, ok bool) {
	t.Helper()
	e, err := edge.DecodeEntry(line)
	if err != nil {
		t.Fatal(err)
	}
	switch e.Kind {
	case edge.KindTest:
		if err := json.Unmarshal(e.Data, &c); err != nil {
			t.Fatal(err)
		}
		return c, true
	case edge.KindCarried:
		var d struct{ Entry json.RawMessage }
		if err := json.Unmarshal(e.Data, &d); err != nil {
			t.Fatal(err)
		}
		return cutInner(t, d.Entry)
	}
	return c, false
}
