package journal

import (
	"bytes"
	"crypto/sha256"
	"encoding/hex"
	"strings"
	"testing"

	"gatehouse/edge"
	"gatehouse/edge/clock"
)

// What is packed on gates can be read only with the dictionary that it was packed with.
func TestPackedLinesStayReadable(t *testing.T) {
	if got := sha256.Sum256(dictionary); hex.EncodeToString(got[:]) != "12a58c970a3471b8444ded0becf795e9348b07cc67092752e6938bbbb0e50a7c" {
		t.Errorf("the dictionary was changed (%x): packed lines of gates cannot be read any more; a new one needs a form of its own", got)
	}
	line := []byte(`{"v":1,"kind":"passage","lane":"east-in","p":77,"of":9,"actor":"system","t":1772416807200,"off":480,"boot":"0badcafe","mono":9,"clock":"synced","result":"passed","deltas":[{"c":"position","s":"p5","set":1}]}`)
	kept, err := hex.DecodeString("01cf0115000756f100d1ad04373709f0003976ef005eb4071c3062616463616665f5b400390dd72ee800c2d300003501d001000c317d5d7d")
	if err != nil {
		t.Fatal(err)
	}
	if got, err := unpack(kept); err != nil || !bytes.Equal(got, line) {
		t.Errorf("%s %v", got, err)
	}
	if len(kept) > len(line)/2 {
		t.Errorf("%d of %d bytes", len(kept), len(line))
	}
}

func TestPack(t *testing.T) {
	long, err := typical(clock.NewFake(epochStart, 480), 3).AppendJSON(nil)
	if err != nil {
		t.Fatal(err)
	}
	for _, line := range [][]byte{long, []byte("{}"), []byte(`{"a":"` + strings.Repeat("\U0001f40a", 10_000) + `"}`)} {
		kept := pack(line)
		if got, err := unpack(kept); err != nil || !bytes.Equal(got, line) || len(kept) > len(line) {
			t.Errorf("%.40s: %d bytes of %d, %v", line, len(kept), len(line), err)
		}
	}
}

func FuzzUnpack(f *testing.F) {
	line, err := typical(clock.NewFake(epochStart, 480), 3).AppendJSON(nil)
	if err != nil {
		f.Fatal(err)
	}
	f.Add(pack(line))
	f.Add(line)
	f.Add([]byte{formPacked})
	f.Add([]byte{formPacked, 0xff, 0xff, 0xff, 0xff, 0x0f, 0})
	f.Fuzz(func(t *testing.T, kept []byte) {
		got, err := unpack(kept)
		if err == nil && len(got) > max(edge.MaxLine, len(kept)) {
			t.Errorf("%d bytes", len(got))
		}
	})
}

func FuzzPack(f *testing.F) {
	f.Add([]byte(`{"v":1,"kind":"passage"}`))
	f.Fuzz(func(t *testing.T, line []byte) {
		if len(line) == 0 || line[0] != '{' || len(line) > edge.MaxLine {
			return
		}
		if got, err := unpack(pack(line)); err != nil || !bytes.Equal(got, line) {
			t.Errorf("%q %v", got, err)
		}
	})
}
