package serialtemp

import (
	"encoding/hex"
	"errors"
	"math"
	"math/rand/v2"
	"strings"
	"testing"

	"gatehouse/device"
)

// all feeds bytes and returns the samples and the errors.
func all(d *Decoder, b []byte) (out []device.Sample, errs []error) {
	for _, x := range b {
		s, res, err := d.Byte(x)
		if err != nil {
			errs = append(errs, err)
		} else if res == Complete {
			out = append(out, s)
		}
	}
	return out, errs
}

func unhex(t testing.TB, s string) []byte {
	b, err := hex.DecodeString(strings.ReplaceAll(s, " ", ""))
	if err != nil {
		t.Fatal(err)
	}
	return b
}

func near(a, b device.Celsius) bool { return math.Abs(float64(a-b)) < 1e-9 }

func TestVectors(t *testing.T) {
	for _, c := range []struct {
		p               Protocol
		frame           string
		object, ambient device.Celsius
	}{
		{GYMCU90614, "5A 5A 45 04 0C 78 0D 19 A7", 31.92, 33.53},
		{CJMCU90614, "66 66 01 04 0A 83 0A 83 1A", 26.91, 26.91},
		// Derived from the published layout: 36.50 and 25.00 degC, emissivity 0.95.
		{GY614V, "A4 03 07 07 5F 0E 42 09 C4 0E 9D DC", 36.50, 25.00},
		// Below zero: -5.00 and -0.01.
		{GYMCU90614, "5A 5A 45 04 FE 0C FF FF 05", -5, -0.01},
		{TN9, "4C 14 2A 8A 0D", 49.475, 0},
	} {
		got, errs := all(NewDecoder(c.p), unhex(t, c.frame))
		if len(got) != 1 || len(errs) != 0 || !near(got[0].Object, c.object) || (got[0].HasAmbient && !near(got[0].Ambient, c.ambient)) {
			t.Errorf("%s %s: %+v, %v; want %v and %v", c.p, c.frame, got, errs, c.object, c.ambient)
		}
		// Behind half a frame and in noise it is still found.
		b := unhex(t, c.frame)
		got, _ = all(NewDecoder(c.p), append(append([]byte{0x00, 0xFF}, b...), b...))
		if len(got) != 2 {
			t.Errorf("%s after noise: %d samples", c.p, len(got))
		}
		for i := range b {
			bad := append([]byte(nil), b...)
			if c.p == CJMCU90614 && i == 2 {
				continue // the mode byte, which the checksum leaves out
			}
			bad[i] ^= 0x10
			if got, _ := all(NewDecoder(c.p), bad); len(got) != 0 {
				t.Errorf("%s with byte %d changed gives %+v", c.p, i, got)
			}
		}
	}
}

func TestAmbientOfTN9ComesFirst(t *testing.T) {
	got, _ := all(NewDecoder(TN9), unhex(t, "66 12 80 F8 0D 4C 14 2A 8A 0D"))
	if len(got) != 1 || !got[0].HasAmbient || !near(got[0].Ambient, 22.85) {
		t.Errorf("%+v", got)
	}
}

func TestImpossibleObjectIsRefused(t *testing.T) {
	// -327.68: a frame in order, but nothing an MLX90614 can measure.
	_, errs := all(NewDecoder(GYMCU90614), unhex(t, "5A 5A 45 04 80 00 0D 19 A3"))
	if len(errs) != 1 || !errors.Is(errs[0], device.ErrOutOfRange) {
		t.Errorf("%v", errs)
	}
}

func TestAGoodFrameAfterAMegabyteOfNoise(t *testing.T) {
	rng := rand.New(rand.NewPCG(1, 2))
	noise := make([]byte, 1<<20)
	for i := range noise {
		noise[i] = byte(rng.Uint32())
	}
	for _, p := range []Protocol{GYMCU90614, CJMCU90614, GY614V, TN9} {
		frame := map[Protocol]string{GYMCU90614: "5A5A45040C780D19A7", CJMCU90614: "666601040A830A831A", GY614V: "A40307075F0E4209C40E9DDC", TN9: "4C142A8A0D"}[p]
		d := NewDecoder(p)
		all(d, noise)
		got, _ := all(d, unhex(t, strings.Repeat(frame, 3)))
		if len(got) < 2 {
			t.Errorf("%s: %d of three good frames after the noise", p, len(got))
		}
	}
}

// A frame cut short anywhere, or begun twice, never takes the next good one
// with it.
func TestHalfFrameBeforeAGoodOne(t *testing.T) {
	for p, frame := range map[Protocol]string{GYMCU90614: "5A5A45040C780D19A7", CJMCU90614: "666601040A830A831A", GY614V: "A40307075F0E4209C40E9DDC", TN9: "4C142A8A0D"} {
		b := unhex(t, frame)
		for cut := 1; cut < len(b); cut++ {
			for _, before := range [][]byte{b[:cut], b[cut:], append(append([]byte(nil), b[:cut]...), b[:cut]...)} {
				if got, _ := all(NewDecoder(p), append(append([]byte(nil), before...), b...)); len(got) != 1 {
					t.Errorf("%s: %d samples of % X and then a good frame", p, len(got), before)
				}
			}
		}
	}
}

func FuzzDecoder(f *testing.F) {
	f.Add([]byte{0x5A, 0x5A, 0x45, 0x04, 0x0C, 0x78, 0x0D, 0x19, 0xA7})
	f.Add([]byte{0x66, 0x66, 0x01, 0x04, 0x0A, 0x83, 0x0A, 0x83, 0x1A})
	f.Fuzz(func(t *testing.T, b []byte) {
		for _, p := range []Protocol{GYMCU90614, CJMCU90614, GY614V, TN9} {
			got, _ := all(NewDecoder(p), b)
			for _, s := range got {
				if s.Object < minObject || s.Object > 4000 || math.IsNaN(float64(s.Object)) {
					t.Errorf("%s: %v", p, s.Object)
				}
			}
		}
	})
}

func BenchmarkDecode(b *testing.B) {
	frame := unhex(b, "5A5A45040C780D19A7")
	d := NewDecoder(GYMCU90614)
	b.ReportAllocs()
	b.SetBytes(int64(len(frame)))
	for b.Loop() {
		for _, x := range frame {
			if _, _, err := d.Byte(x); err != nil {
				b.Fatal(err)
			}
		}
	}
}
