package wire

import (
	"bytes"
	"crypto/ed25519"
	"errors"
	"testing"
	"time"

	"gatehouse/edge"
)

type fuzzKey struct {
	name string
	key  ed25519.PrivateKey
}

func fuzzSigner(name string, seed byte) fuzzKey {
	return fuzzKey{name, ed25519.NewKeyFromSeed(bytes.Repeat([]byte{seed}, 32))}
}

func (k fuzzKey) Name() string                    { return k.name }
func (k fuzzKey) Public() []byte                  { return k.key.Public().(ed25519.PublicKey) }
func (k fuzzKey) Sign(msg []byte) ([]byte, error) { return ed25519.Sign(k.key, msg), nil }

// A receipt that is believed is the one that device and server have signed.
func FuzzOpenReceipt(f *testing.F) {
	device, server := fuzzSigner("pine/north/east", 1), fuzzSigner("pine/server", 2)
	origin := edge.Origin("pine", "north", "east", 0xaa)
	dv, err := edge.HeadVerifier(device.name, device.Public())
	if err != nil {
		f.Fatal(err)
	}
	sv, err := CosignatureVerifier(server.name, server.Public())
	if err != nil {
		f.Fatal(err)
	}
	h := edge.Head{Origin: origin, Size: 300, Root: [32]byte{1}}
	if err := edge.SignHead(&h, device); err != nil {
		f.Fatal(err)
	}
	both, err := Cosign(h.Note, time.Unix(1_700_000_000, 0), server)
	if err != nil {
		f.Fatal(err)
	}
	for _, head := range [][]byte{both, h.Note, bytes.Replace(both, []byte("300"), []byte("301"), 1), nil} {
		payload, err := (&Receipt{Epoch: 0xaa, Size: 300, Head: string(head)}).Encode()
		if err != nil {
			f.Fatal(err)
		}
		f.Add(payload)
	}
	f.Add([]byte(`{"v":1,"epoch":"00000000000000aa","size":3,"refusal":{"code":"fork","text":"","at":1,"sig":"AA=="}}`))
	f.Fuzz(func(t *testing.T, payload []byte) {
		r, err := DecodeReceipt(payload)
		if err != nil {
			return
		}
		if r.Refusal != nil && r.VerifyRefusal("north", "east", server.Public()) == nil {
			t.Fatal("a refusal that nobody has signed")
		}
		got, err := OpenReceipt(r, origin, dv, sv)
		if err == nil && (got.Size != h.Size || got.Root != h.Root || got.Origin != origin || r.Size != h.Size) {
			t.Fatalf("a receipt that nobody has signed: %+v", got)
		}
	})
}

// Lists of keys lead nowhere but along signatures, and upwards.
func FuzzTrust(f *testing.F) {
	root, server := fuzzSigner("root", 3), fuzzSigner("pine/server", 2)
	keys := []ServerKey{{ID: root.name, Public: root.Public(), Uses: []Use{UseTrust}}, {ID: server.name, Public: server.Public(), Uses: []Use{UseReceipts, UseRegistry}}}
	good, err := SignTrust(Trust{Number: 3, Keys: keys}, 1, root)
	if err != nil {
		f.Fatal(err)
	}
	bad, err := SignTrust(Trust{Number: 4, Keys: keys}, 1, server)
	if err != nil {
		f.Fatal(err)
	}
	for _, p := range [][]byte{good, bad, bytes.Replace(good, []byte(`"root"`), []byte(`"pine/server"`), 1), []byte("{}")} {
		f.Add(p, []byte("list 2\n"))
	}
	t0 := Trust{V: Version, Number: 2, Keys: keys}
	f.Add(good, []byte(t0.Text()))
	f.Add(good, []byte("pine/server+00000000+AAAA policy:city\n# x\nlist -1\n"))
	f.Fuzz(func(t *testing.T, payload, file []byte) {
		got, err := t0.Follow([][]byte{payload})
		switch {
		case got.Number == 3 && err == nil:
			if got.Text() != (&Trust{Number: 3, Keys: keys}).Text() {
				t.Fatalf("a list that nobody has signed:\n%s", got.Text())
			}
		case got.Number != 2:
			t.Fatalf("led to list %d", got.Number)
		case err == nil:
			// A list of before, which says nothing.
		case !errors.Is(err, ErrMalformed) && !errors.Is(err, ErrUntrusted):
			t.Fatal(err)
		}
		_ = PeekLists(payload)
		// What is read of a trust file is written so that it is read again.
		x, err := ParseTrust("file", file)
		if err != nil {
			return
		}
		again, err := ParseTrust("file", []byte(x.Text()))
		if err != nil || again.Text() != x.Text() {
			t.Fatalf("%q is written as %q: %v", file, x.Text(), err)
		}
	})
}
