package wiegand

import (
	"context"
	"errors"
	"fmt"
	"math"
	"math/rand/v2"
	"strconv"
	"strings"
	"testing"
	"time"

	"pgregory.net/rapid"

	"gatehouse/device"
	"gatehouse/device/bus"
	"gatehouse/device/devicetest"
	"gatehouse/device/options"
	"gatehouse/device/sim"
)

func parse(t testing.TB, src string) (Config, error) {
	t.Helper()
	n, err := options.Parse("gate.yaml", []byte(src))
	if err != nil {
		t.Fatal(err)
	}
	return Parse(n)
}

// frame makes RawBits of a text of 0 and 1, or of 0x and hex with a length.
func frame(t testing.TB, s string, n int) (r device.RawBits) {
	t.Helper()
	if h, ok := strings.CutPrefix(s, "0x"); ok {
		v, err := strconv.ParseUint(h, 16, 64)
		if err != nil {
			t.Fatal(err)
		}
		s = fmt.Sprintf("%0*b", n, v)
	}
	for _, c := range s {
		r.Append(c == '1')
	}
	return r
}

func TestVectors(t *testing.T) {
	for _, c := range []struct {
		format           string
		facility, number uint64
		bits             string
	}{
		{"H10301", 123, 4567, "10111101100010001110101110"},
		{"H10301", 171, 31337, "01010101101111010011010011"},
		{"W34", 0, 1234567890, "1010010011001011000000010110100100"},
		{"H10302", 0, 1234567890, "0x10932C05A5"},
		{"C1000-35", 1234, 567890, "0x69A5154A4"},
	} {
		t.Run(c.format, func(t *testing.T) {
			f, ok := ByName(c.format)
			if !ok {
				t.Fatal("no such format")
			}
			raw := frame(t, c.bits, f.Bits)
			var got device.CardRead
			if err := Decode([]Format{f}, &raw, &got); err != nil {
				t.Fatal(err)
			}
			if got.Facility != c.facility || got.Number != c.number || got.Format != c.format || got.Raw != raw {
				t.Errorf("read %+v", got)
			}
			if enc, err := f.Encode(c.facility, c.number); err != nil || enc != raw {
				t.Errorf("encoded %x, %v, want %x", enc.B[:6], err, raw.B[:6])
			}
		})
	}
}

// Whatever the format and the card: the frame is read back, any one wrong bit
// is noticed, and swapped lines are called by their name.
func TestFormats(t *testing.T) {
	for _, f := range known {
		t.Run(f.Name, func(t *testing.T) {
			rapid.Check(t, func(t *rapid.T) {
				var facility uint64
				if n := f.Facility; n.given == 1 {
					facility = rapid.Uint64Range(0, 1<<(n.To-n.From+1)-1).Draw(t, "facility")
				}
				number := rapid.Uint64Range(0, 1<<(f.Number.To-f.Number.From+1)-1).Draw(t, "number")
				raw, err := f.Encode(facility, number)
				if err != nil {
					t.Fatal(err)
				}
				var r device.CardRead
				if err := Decode([]Format{f}, &raw, &r); err != nil || r.Facility != facility || r.Number != number {
					t.Fatalf("read %+v, %v", r, err)
				}
				if len(f.Parity) == 0 {
					return
				}
				flip := raw
				i := rapid.IntRange(0, f.Bits-1).Draw(t, "flipped")
				flip.B[i/8] ^= 0x80 >> (i % 8)
				// The 37-bit layouts share bit 18; a flip there fails both.
				if err := Decode([]Format{f}, &flip, &r); err == nil {
					t.Fatalf("bit %d flipped, and still %+v", i, r)
				}
				var restored device.CardRead
				if lost := raw; !restore([]Format{f}, clear(lost, i), i, &restored) || restored.Raw != raw {
					t.Fatalf("bit %d lost by the kernel is restored to %+v", i, restored)
				}
				swapped := device.RawBits{}
				for i := range raw.Len {
					swapped.Append(!raw.Bit(i))
				}
				if err := Decode([]Format{f}, &swapped, &r); !errors.Is(err, errSwapped) && !errors.Is(err, errOneLine) {
					t.Fatalf("swapped lines: %v", err)
				}
			})
		})
	}
}

func clear(r device.RawBits, i int) device.RawBits {
	r.B[i/8] &^= 0x80 >> (i % 8)
	return r
}

func TestDecodeRefuses(t *testing.T) {
	w26, _ := ByName("H10301")
	for _, c := range []struct{ name, bits, want string }{
		{"nine bits", "101010101", "9 bits"},
		{"25 bits", "1011110110001000111010111", "25 bits"},
		{"parity", "10111101100010001110101111", "parity is wrong"},
		{"swapped", "01000010011101110001010001", "D0 and D1 are swapped"},
		{"only zeros", strings.Repeat("0", 26), "not connected"},
		{"only ones", strings.Repeat("1", 26), "not connected"},
		{"too long", strings.Repeat("10", 200), "256 bits"},
	} {
		t.Run(c.name, func(t *testing.T) {
			raw := frame(t, c.bits, 0)
			var r device.CardRead
			if err := Decode([]Format{w26}, &raw, &r); err == nil || !strings.Contains(err.Error(), c.want) {
				t.Errorf("%v, want %q", err, c.want)
			}
		})
	}
}

func TestOwnFormat(t *testing.T) {
	c, err := parse(t, `
d0: GPIO14
d1: GPIO15
formats:
  - H10301
  - name: zk37
    bits: 37
    facility: 1-16
    number: 17-35
    parity:
      - {bit: 0, even: 1-18}
      - {bit: 36, odd: "19-35"}
`)
	if err != nil {
		t.Fatal(err)
	}
	own := c.Formats[1]
	raw, err := own.Encode(300, 70000)
	if err != nil {
		t.Fatal(err)
	}
	var r device.CardRead
	if err := Decode(c.Formats, &raw, &r); err != nil || r.Format != "zk37" || r.Facility != 300 || r.Number != 70000 {
		t.Errorf("read %+v, %v", r, err)
	}
}

func TestOptions(t *testing.T) {
	const lines = "d0: GPIO1\nd1: GPIO2\n"
	for _, c := range []struct{ name, src, want string }{
		{"no lines", "held: 1s", "d0 and d1 must be given"},
		{"one line twice", "d0: GPIO1\nd1: GPIO1", "gate.yaml:2:5: d1: is the same line as d0"},
		{"unknown format", lines + "formats: [H10310]", `gate.yaml:3:11: formats[0]: no format is called "H10310", did you mean "H10301"?`},
		{"format without number", lines + "formats: [{name: x, bits: 26}]", "number: must be given"},
		{"number outside", lines + "formats: [{name: x, bits: 26, number: 9-30}]", "bit 30 is beyond the frame's 26"},
		{"reversed", lines + "formats: [{name: x, bits: 26, number: 24-9}]", "want bits of 0 to 63"},
		{"not a run", lines + "formats: [{name: x, bits: 26, number: \"1,3\"}]", "not one run"},
		{"too long", lines + "formats: [{name: x, bits: 99, number: 1-8}]", "99 is not between"},
		{"both parities", lines + "formats: [{name: x, bits: 26, number: 1-8, parity: [{bit: 0, even: 1-2, odd: 1-2}]}]", "want one of even and odd"},
		{"parity of itself", lines + "formats: [{name: x, bits: 26, number: 1-8, parity: [{bit: 1, even: 1-2}]}]", "taken over itself"},
		{"keypad", lines + "keypad: 6bit", `"6bit" is not none, 4bit or 8bit`},
		{"pin", lines + "pin: {min: 9}", "want 1 <= min <= max"},
		{"frame end", lines + "frame_end: 2s", "frame_end: 2s is not between"},
	} {
		t.Run(c.name, func(t *testing.T) {
			if _, err := parse(t, c.src); err == nil || !strings.Contains(err.Error(), c.want) {
				t.Errorf("error %v, want %q in it", err, c.want)
			}
		})
	}
}

func reader(t testing.TB, opts string) (*Reader, *sim.Wiegand) {
	t.Helper()
	c, err := parse(t, "d0: GPIO14\nd1: GPIO15\n"+opts)
	if err != nil {
		t.Fatal(err)
	}
	w := sim.NewWiegand()
	r, err := New("lane scanner", c, w.Open)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { r.Close() })
	return r, w
}

func w26(t testing.TB, facility, number uint64) device.RawBits {
	t.Helper()
	f, _ := ByName("H10301")
	raw, err := f.Encode(facility, number)
	if err != nil {
		t.Fatal(err)
	}
	return raw
}

func TestContract(t *testing.T) {
	devicetest.Scanner(t, func(t *testing.T) *devicetest.ScannerRig {
		r, w := reader(t, "")
		w.Period = 200 * time.Microsecond
		return &devicetest.ScannerRig{
			Scanner: r,
			Present: func(i int) device.CardRead {
				raw := w26(t, 12, uint64(i))
				w.Send(raw)
				return device.CardRead{Format: "H10301", Facility: 12, Number: uint64(i), Raw: raw}
			},
			Garble: func() {
				raw := w26(t, 12, 99)
				raw.B[0] ^= 0x80
				w.Send(raw)
			},
		}
	})
}

func one(t *testing.T, r *Reader) (device.CardRead, error) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), devicetest.Limit)
	defer cancel()
	c, err := r.Read(ctx)
	if ctx.Err() != nil {
		t.Fatal("nothing is read")
	}
	return c, err
}

func TestFaultsOnTheLines(t *testing.T) {
	for _, c := range []struct {
		name    string
		play    func(w *sim.Wiegand, raw device.RawBits)
		want    string // error of the faulty frame, "" = it is read
		counter string
	}{
		{"a bit lost", func(w *sim.Wiegand, raw device.RawBits) {
			w.SetFaults(false, func(i int) bool { return i == 7 }, nil)
			w.Send(raw)
		}, "25 bits", "short_frames"},
		{"a bit too many", func(w *sim.Wiegand, raw device.RawBits) { raw.Append(true); w.Send(raw) }, "27 bits", "long_frames"},
		{"swapped", func(w *sim.Wiegand, raw device.RawBits) { w.SetFaults(true, nil, nil); w.Send(raw) }, "D0 and D1 are swapped", "swapped"},
		{"D1 not connected", func(w *sim.Wiegand, _ device.RawBits) { w.Send(frame(t, strings.Repeat("0", 26), 0)) }, "not connected", "one_line"},
		{"parity", func(w *sim.Wiegand, raw device.RawBits) { raw.B[1] ^= 1; w.Send(raw) }, "parity is wrong", "parity"},
		{"ringing", func(w *sim.Wiegand, raw device.RawBits) {
			w.SetFaults(false, nil, func(i int) bool { return i%5 == 0 })
			w.Send(raw)
		}, "", ""},
		{"an edge lost in the kernel", func(w *sim.Wiegand, raw device.RawBits) {
			w.Lose(func(i int) bool { return i == 20 })
			w.Send(raw)
		}, "", "restored"},
		{"the first edge lost in the kernel", func(w *sim.Wiegand, raw device.RawBits) {
			w.Lose(func(i int) bool { return i == 0 })
			w.Send(raw)
		}, "", "restored"},
		{"two edges lost in the kernel", func(w *sim.Wiegand, raw device.RawBits) {
			w.Lose(func(i int) bool { return i == 5 || i == 20 })
			w.Send(raw)
		}, "more than one edge", "lost_edges"},
		{"line stuck", func(w *sim.Wiegand, _ device.RawBits) { w.Stick(0, true) }, "held low: D0", ""},
	} {
		t.Run(c.name, func(t *testing.T) {
			r, w := reader(t, "glitch: 5us")
			w.Send(w26(t, 1, 1))
			if got, err := one(t, r); err != nil || got.Number != 1 {
				t.Fatalf("%+v, %v", got, err)
			}
			c.play(w, w26(t, 2, 2))
			got, err := one(t, r)
			if c.want == "" {
				if err != nil || got.Number != 2 {
					t.Errorf("read %+v, %v", got, err)
				}
			} else if err == nil || !strings.Contains(err.Error(), c.want) || !errors.Is(err, device.ErrGarbled) {
				t.Errorf("read %+v, %v, want %q", got, err, c.want)
			}
			if c.counter != "" && r.Health().Detail[c.counter] == 0 {
				t.Errorf("not counted as %s: %+v", c.counter, r.Health())
			}
			w.SetFaults(false, nil, nil)
			w.Lose(nil)
			w.Stick(0, false)
			w.Send(w26(t, 3, 3))
			for {
				got, err := one(t, r)
				if errors.Is(err, device.ErrGarbled) {
					continue
				}
				if err != nil || got.Number != 3 {
					t.Errorf("afterwards: %+v, %v", got, err)
				}
				break
			}
			if h := r.Health(); h.State != device.StateOK {
				t.Errorf("health %+v", h)
			}
		})
	}
}

func TestKeypad(t *testing.T) {
	burst := func(keys string, eight bool) (out []device.RawBits) {
		for _, c := range keys {
			k := strings.IndexRune("0123456789*#", c)
			var r device.RawBits
			if eight {
				for i := 3; i >= 0; i-- {
					r.Append(k>>i&1 == 0)
				}
			}
			for i := 3; i >= 0; i-- {
				r.Append(k>>i&1 == 1)
			}
			out = append(out, r)
		}
		return out
	}
	for _, c := range []struct{ name, opts, keys, want string }{
		{"4 bits", "keypad: 4bit", "1234#", "1234"},
		{"8 bits", "keypad: 8bit", "0907#", "0907"},
		{"cleared", "keypad: 4bit", "99*4321#", "4321"},
		{"enter too early", "keypad: 4bit", "12#5678#", "5678"},
		{"full", "keypad: 4bit", "123456789", "12345678"},
		{"the other way round", "keypad: 4bit\npin: {enter: 10, clear: 11}", "9#1234*", "1234"},
	} {
		t.Run(c.name, func(t *testing.T) {
			r, w := reader(t, c.opts)
			w.Gap, w.Period = 30*time.Millisecond, 200*time.Microsecond
			w.Send(burst(c.keys, strings.Contains(c.opts, "8bit"))...)
			got, err := one(t, r)
			if err != nil || got.Format != device.FormatPIN || got.Text != c.want {
				t.Errorf("read %+v, %v, want %s", got, err, c.want)
			}
		})
	}
	t.Run("8 bits of nonsense", func(t *testing.T) {
		r, w := reader(t, "keypad: 8bit")
		w.Send(frame(t, "11111111", 0))
		if _, err := one(t, r); !errors.Is(err, device.ErrGarbled) {
			t.Errorf("%v", err)
		}
	})
}

// Over 10^9 random bits, cut into frames of the right length (the worst that
// noise can do), no more false cards are read than the parity bits predict.
func TestFalseCards(t *testing.T) {
	const total = 1e9
	for _, name := range []string{"H10301", "C1000-35"} {
		f, _ := ByName(name)
		formats := []Format{f}
		rng := rand.NewPCG(1, uint64(f.Bits))
		frames := int(total / 2 / f.Bits)
		var raw device.RawBits
		var r device.CardRead
		raw.Len = f.Bits
		cards := 0
		for range frames {
			w := rng.Uint64() << (64 - f.Bits)
			for i := range 8 {
				raw.B[i] = byte(w >> (56 - 8*i))
			}
			if Decode(formats, &raw, &r) == nil {
				cards++
			}
		}
		p := math.Pow(0.5, float64(len(f.Parity)))
		expect := p * float64(frames)
		sigma := math.Sqrt(expect * (1 - p))
		fmt.Printf("%s: %d random bits in %d frames of the right length: %d false cards; %d parity bits predict %.0f (one sigma is %.0f)\n",
			name, frames*f.Bits, frames, cards, len(f.Parity), expect, sigma)
		if float64(cards) > expect+5*sigma {
			t.Errorf("%s: %d false cards, predicted are %.0f", name, cards, expect)
		}
	}
}

func FuzzReader(f *testing.F) {
	f.Add([]byte{0x00, 0x81, 0x02, 0xFF})
	f.Fuzz(func(t *testing.T, src []byte) {
		c, err := parse(t, "d0: a\nd1: b\nkeypad: 4bit\nformats: [H10301, W34]")
		if err != nil {
			t.Fatal(err)
		}
		w := sim.NewWiegand()
		r, err := New("x", c, w.Open)
		if err != nil {
			t.Fatal(err)
		}
		// Each byte is an edge: its line, and the time since the one before.
		for _, b := range src {
			at := time.Duration(b&0x7F) * 300 * time.Microsecond
			if r.frame.Len > 0 && at > c.FrameEnd {
				card, ok, _ := r.end()
				if ok && card.Format != device.FormatPIN {
					if err := Decode(c.Formats, &card.Raw, &device.CardRead{}); err != nil {
						t.Fatalf("phantom card %+v: %v", card, err)
					}
				}
			}
			r.edge(bus.Event{Line: int(b >> 7), At: r.last + at})
		}
	})
}

// The time from the last edge's stamp to the CardRead, beyond the frame
// time-out, is this and a wake-up.
func BenchmarkFrameToCard(b *testing.B) {
	r, _ := reader(b, "")
	raw := w26(b, 12, 34567)
	at := time.Duration(0)
	b.ReportAllocs()
	for b.Loop() {
		for i := range raw.Len {
			line := 0
			if raw.Bit(i) {
				line = 1
			}
			r.edge(bus.Event{Line: line, At: at})
			at += time.Millisecond
		}
		at += time.Second
		if _, _, err := r.end(); err != nil {
			b.Fatal(err)
		}
	}
}

func BenchmarkDecode(b *testing.B) {
	for _, f := range known {
		b.Run(f.Name, func(b *testing.B) {
			raw, _ := f.Encode(0, 1)
			var r device.CardRead
			b.ReportAllocs()
			for b.Loop() {
				_ = Decode([]Format{f}, &raw, &r)
			}
		})
	}
}
