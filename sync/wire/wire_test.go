package wire

import (
	"bytes"
	"compress/gzip"
	"crypto/ed25519"
	"errors"
	"strings"
	"testing"
	"time"

	"pgregory.net/rapid"

	"gatehouse/edge"
)

type key struct {
	name string
	priv ed25519.PrivateKey
}

func newKey(name string, seed byte) key {
	return key{name, ed25519.NewKeyFromSeed(bytes.Repeat([]byte{seed}, 32))}
}

func (k key) Name() string                    { return k.name }
func (k key) Public() []byte                  { return k.priv.Public().(ed25519.PublicKey) }
func (k key) Sign(msg []byte) ([]byte, error) { return ed25519.Sign(k.priv, msg), nil }

func sample(first uint64, lines ...string) *Batch {
	b := &Batch{Header: Header{Site: "s", Gate: "g", Epoch: 7, First: first, Head: "head\n"}}
	for _, l := range lines {
		b.Lines = append(b.Lines, []byte(l))
	}
	for f := first &^ 255; f < first+uint64(len(lines)); f += 256 {
		b.Keys = append(b.Keys, HeaderKey{First: f, Key: bytes.Repeat([]byte{byte(f >> 8)}, 32)})
	}
	return b
}

func TestBatchComesBackWhole(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		lines := rapid.SliceOfN(rapid.StringMatching(`\{"v":1,"kind":"[a-z]{1,9}"\}`), 1, 600).Draw(t, "lines")
		b := sample(rapid.Uint64Range(0, 1<<40).Draw(t, "first"), lines...)
		plain, err := b.Encode(nil)
		if err != nil {
			t.Fatal(err)
		}
		c, err := NewCompressor(0)
		if err != nil {
			t.Fatal(err)
		}
		var z bytes.Buffer
		w := gzip.NewWriter(&z)
		if _, err := w.Write(plain); err != nil {
			t.Fatal(err)
		}
		if err := w.Close(); err != nil {
			t.Fatal(err)
		}
		for form, payload := range map[string][]byte{"plain": plain, "zstd": c.Pack(nil, plain), "gzip": z.Bytes()} {
			got, err := DecodeBatch(payload)
			if err != nil {
				t.Fatalf("%s: %v", form, err)
			}
			if got.First != b.First || got.Epoch != 7 || len(got.Lines) != len(lines) {
				t.Fatalf("%s: header %+v with %d lines", form, got.Header, len(got.Lines))
			}
			for i := range lines {
				if string(got.Lines[i]) != lines[i] {
					t.Fatalf("%s: line %d is %q, want %q", form, i, got.Lines[i], lines[i])
				}
				seq := b.First + uint64(i)
				if k := got.Key(seq); k[0] != byte(seq>>8) {
					t.Fatalf("%s: key of %d is that of block %d", form, seq, k[0])
				}
			}
		}
	})
}

func TestBatchRefusals(t *testing.T) {
	good, err := sample(250, strings.Split(strings.Repeat("{} ", 9)+"{}", " ")...).Encode(nil)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := DecodeBatch(good); err != nil {
		t.Fatal(err)
	}
	for name, bad := range map[string][]byte{
		"empty":         nil,
		"noise":         []byte("hello"),
		"cut":           good[:len(good)-1],
		"one less":      good[:len(good)-3],
		"one more":      append(bytes.Clone(good), "{}\n"...),
		"empty line":    append(bytes.Clone(good[:len(good)-3]), '\n'),
		"other version": bytes.Replace(good, []byte(`"v":1`), []byte(`"v":2`), 1),
		"wrong gate":    bytes.Replace(good, []byte(`"gate":"g"`), []byte(`"gate":"registry"`), 1),
		"wild gate":     bytes.Replace(good, []byte(`"gate":"g"`), []byte(`"gate":"+"`), 1),
		"wrong block":   bytes.Replace(good, []byte(`"first":256`), []byte(`"first":512`), 1),
		"short key":     bytes.Replace(good, []byte(`AAAA`), nil, 1),
	} {
		if _, err := DecodeBatch(bad); !errors.Is(err, ErrMalformed) {
			t.Errorf("%s: %v", name, err)
		}
	}
}

func TestExpandStopsAtItsLimit(t *testing.T) {
	big := append([]byte{'{'}, make([]byte, 4<<20)...)
	c, err := NewCompressor(0)
	if err != nil {
		t.Fatal(err)
	}
	var z bytes.Buffer
	w := gzip.NewWriter(&z)
	if _, err := w.Write(big); err != nil {
		t.Fatal(err)
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	for form, payload := range map[string][]byte{"plain": big, "zstd": c.Pack(nil, big), "gzip": z.Bytes()} {
		if _, err := Expand(payload, 1<<20); !errors.Is(err, ErrMalformed) {
			t.Errorf("%s of 4 MiB passed a limit of 1 MiB: %v", form, err)
		}
		if out, err := Expand(payload, 8<<20); err != nil || !bytes.Equal(out, big) {
			t.Errorf("%s: %d bytes, %v", form, len(out), err)
		}
	}
}

func TestReceiptIsOnlyTheServersWord(t *testing.T) {
	device, server, other := newKey("g", 1), newKey("community.example", 2), newKey("community.example", 3)
	h := edge.Head{Origin: "c/s/g/0000000000000007", Size: 12, Root: [32]byte{1}}
	if err := edge.SignHead(&h, device); err != nil {
		t.Fatal(err)
	}
	dv, err := edge.HeadVerifier("g", device.Public())
	if err != nil {
		t.Fatal(err)
	}
	sv, err := CosignatureVerifier(server.Name(), server.Public())
	if err != nil {
		t.Fatal(err)
	}
	open := func(k edge.Signer, size uint64) error {
		n, err := Cosign(h.Note, time.Unix(1_700_000_000, 0), k)
		if err != nil {
			t.Fatal(err)
		}
		r := &Receipt{Epoch: 7, Size: size, Head: string(n)}
		b, err := r.Encode()
		if err != nil {
			t.Fatal(err)
		}
		if r, err = DecodeReceipt(b); err != nil {
			t.Fatal(err)
		}
		_, err = OpenReceipt(r, h.Origin, dv, sv)
		return err
	}
	if err := open(server, 12); err != nil {
		t.Error(err)
	}
	if open(other, 12) == nil {
		t.Error("a cosignature of another key was taken")
	}
	if open(server, 13) == nil {
		t.Error("a receipt for more than its head was taken")
	}
	if _, err := OpenReceipt(&Receipt{Size: 12, Head: string(h.Note)}, h.Origin, dv, sv); err == nil {
		t.Error("a head without a cosignature was taken")
	}
	// What stands is the server's word alone, about one log, and no receipt.
	h.Size, h.Root = 2, [32]byte{1}
	stands, err := Stand(h, time.Unix(1, 0), server)
	if err != nil {
		t.Fatal(err)
	}
	if got, ok, err := OpenStands(&Refusal{Stands: stands}, h.Origin, sv); err != nil || !ok || got.Size != 2 || got.Root != h.Root {
		t.Errorf("%+v %v %v", got, ok, err)
	}
	if _, ok, err := OpenStands(&Refusal{}, h.Origin, sv); ok || err != nil {
		t.Errorf("nothing was said: %v %v", ok, err)
	}
	for name, try := range map[string]func() error{
		"of another log": func() error { _, _, err := OpenStands(&Refusal{Stands: stands}, h.Origin+"x", sv); return err },
		"by the device":  func() error { _, _, err := OpenStands(&Refusal{Stands: stands}, h.Origin, dv); return err },
		"changed": func() error {
			_, _, err := OpenStands(&Refusal{Stands: strings.Replace(stands, "\n2\n", "\n3\n", 1)}, h.Origin, sv)
			return err
		},
		"taken for receipt": func() error { _, err := OpenReceipt(&Receipt{Size: 2, Head: stands}, h.Origin, dv, sv); return err },
	} {
		if try() == nil {
			t.Errorf("taken, though %s", name)
		}
	}
}

func TestRefusalIsOnlyTheServersWord(t *testing.T) {
	server := newKey("community.example", 2)
	r := &Receipt{Epoch: 7, Size: 3, Refusal: &Refusal{Code: RefusedFork, Text: "two\nlines", At: 5}}
	if err := r.SignRefusal("s", "g", server); err != nil {
		t.Fatal(err)
	}
	if err := r.VerifyRefusal("s", "g", server.Public()); err != nil {
		t.Error(err)
	}
	if r.VerifyRefusal("s", "h", server.Public()) == nil {
		t.Error("a refusal for another gate was taken")
	}
	r.Refusal.Code = RefusedGap
	if r.VerifyRefusal("s", "g", server.Public()) == nil {
		t.Error("a changed refusal was taken")
	}
}

func TestEnvelope(t *testing.T) {
	k := newKey("k1", 4)
	trust := []ServerKey{{ID: "k1", Public: k.Public(), Uses: []Use{UseCommands}}}
	e := &Envelope{Type: TypeCommand, Site: "s", Gate: "g", IssuedAt: 9, Body: []byte(`{"number":1}`)}
	if err := e.Sign(k); err != nil {
		t.Fatal(err)
	}
	b, err := e.Encode()
	if err != nil {
		t.Fatal(err)
	}
	if got, err := OpenEnvelope(b, TypeCommand, "s", "g", UseCommands, trust); err != nil || string(got.Body) != `{"number":1}` {
		t.Errorf("%v %v", got, err)
	}
	for name, f := range map[string]func() error{
		"other gate": func() error { _, err := OpenEnvelope(b, TypeCommand, "s", "h", UseCommands, trust); return err },
		"other site": func() error { _, err := OpenEnvelope(b, TypeCommand, "t", "g", UseCommands, trust); return err },
		"other type": func() error { _, err := OpenEnvelope(b, TypePeers, "s", "g", UseCommands, trust); return err },
		"other use":  func() error { _, err := OpenEnvelope(b, TypeCommand, "s", "g", UsePolicy, trust); return err },
		"no key":     func() error { _, err := OpenEnvelope(b, TypeCommand, "s", "g", UseCommands, nil); return err },
	} {
		if f() == nil {
			t.Errorf("%s was taken", name)
		}
	}
	e.Body[2] = 'X'
	if b, err = e.Encode(); err != nil {
		t.Fatal(err)
	}
	if _, err := OpenEnvelope(b, TypeCommand, "s", "g", UseCommands, trust); !errors.Is(err, ErrUntrusted) {
		t.Errorf("a changed body: %v", err)
	}
}

func FuzzDecodeBatch(f *testing.F) {
	good, err := sample(250, `{"v":1}`, `{"v":1}`).Encode(nil)
	if err != nil {
		f.Fatal(err)
	}
	c, err := NewCompressor(0)
	if err != nil {
		f.Fatal(err)
	}
	f.Add(good)
	f.Add(c.Pack(nil, good))
	f.Fuzz(func(t *testing.T, payload []byte) {
		b, err := DecodeBatch(payload)
		if err != nil {
			return
		}
		again, err := b.Encode(nil)
		if err != nil {
			t.Fatalf("a batch that was read cannot be written: %v", err)
		}
		if _, err := DecodeBatch(again); err != nil {
			t.Fatal(err)
		}
		b.Key(b.First + b.Count - 1)
	})
}

func FuzzMessages(f *testing.F) {
	f.Add([]byte(`{"v":1,"epoch":"0000000000000007","size":3,"head":"x"}`))
	f.Add([]byte(`{"type":"command","site":"s","gate":"g","body":"e30=","sigs":[{"key_id":"k","sig":"AA=="}]}`))
	f.Fuzz(func(t *testing.T, payload []byte) {
		if r, err := DecodeReceipt(payload); err == nil {
			if _, err := r.Encode(); err != nil {
				t.Fatal(err)
			}
		}
		_, _ = OpenEnvelope(payload, TypeCommand, "s", "g", UseCommands, []ServerKey{{ID: "k", Public: make([]byte, 32), Uses: []Use{UseCommands}}})
		var q Request
		_ = Decode(payload, &q)
		var p PeersBody
		_ = Decode(payload, &p)
	})
}
