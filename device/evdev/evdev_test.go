package evdev

import (
	"errors"
	"fmt"
	"math/rand/v2"
	"strings"
	"testing"
	"time"

	"gatehouse/device"
	"gatehouse/device/bus"
	"gatehouse/device/devicetest"
	"gatehouse/device/options"
	"gatehouse/device/sim"
)

func open(t testing.TB, k *sim.Keyboard, opts string) *Reader {
	t.Helper()
	n, err := options.Parse("gate.yaml", []byte("input: /dev/input/x\n"+opts))
	if err != nil {
		t.Fatal(err)
	}
	r, err := New("scanner", n, k.Open)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { r.Close() })
	return r
}

func TestContract(t *testing.T) {
	devicetest.Scanner(t, func(t *testing.T) *devicetest.ScannerRig {
		k := sim.NewKeyboard()
		typed := func(s string) {
			if err := k.Type(s); err != nil {
				t.Error(err)
			}
		}
		return &devicetest.ScannerRig{
			Scanner: open(t, k, ""),
			Present: func(i int) device.CardRead {
				text := fmt.Sprintf("HC1:%04d", i)
				typed(text + "\n")
				return device.CardRead{Format: device.FormatQR, Text: text}
			},
			Garble: func() { typed("abc\n") },
			Unplug: k.Unplug,
			Plug:   k.Plug,
		}
	})
}

// Every character that a scanner of the factory's layout can type arrives,
// among them all of base45, in a payload as long as an HC1 certificate's.
func TestCertificate(t *testing.T) {
	rng := rand.New(rand.NewPCG(1, 2))
	text := []byte("HC1:" + "!\"#$%&'()*+,-./0123456789:;<=>?@ABCDEFGHIJKLMNOPQRSTUVWXYZ[\\]^_`abcdefghijklmnopqrstuvwxyz{|}~ ")
	for len(text) < 1000 {
		text = append(text, "0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZ $%*+-./:"[rng.IntN(45)])
	}
	k := sim.NewKeyboard()
	r := open(t, k, "")
	if err := k.Type(string(text) + "\n"); err != nil {
		t.Fatal(err)
	}
	got, err := r.Read(t.Context())
	if err != nil || got.Text != string(text) {
		t.Errorf("read %q, %v", got.Text, err)
	}
}

// keys plays raw key codes: positive is down and up, negative is held through
// the next.
func keys(k *sim.Keyboard, codes ...int) {
	var held []int
	for _, c := range codes {
		if c < 0 {
			k.Send(bus.InputEvent{Type: bus.EvKey, Code: uint16(-c), Value: 1})
			held = append(held, -c)
			continue
		}
		k.Send(bus.InputEvent{Type: bus.EvKey, Code: uint16(c), Value: 1}, bus.InputEvent{Type: bus.EvKey, Code: uint16(c)})
		for _, h := range held {
			k.Send(bus.InputEvent{Type: bus.EvKey, Code: uint16(h)})
		}
		held = nil
	}
}

func TestLayouts(t *testing.T) {
	const shift, rshift, altgr, caps, enter = -42, -54, -100, 58, 28
	for _, c := range []struct {
		layout string
		codes  []int
		want   string
	}{
		// "HC1:" as each layout types it.
		{"us", []int{shift, 35, shift, 46, 2, rshift, 39, enter}, "HC1:"},
		{"de", []int{shift, 35, shift, 46, 2, rshift, 52, enter}, "HC1:"},
		{"fr", []int{shift, 35, shift, 46, shift, 2, 52, enter}, "HC1:"},
		{"us", []int{44, 21, 12, 53, enter}, "zy-/"},
		{"de", []int{44, 21, 53, shift, 8, enter}, "yz-/"},
		{"de", []int{altgr, 16, altgr, 8, 12, altgr, 12, enter}, "@{ß\\"},
		{"fr", []int{16, 30, 17, 44, altgr, 11, enter}, "aqzw@"},
		{"us", []int{caps, 30, 2, shift, 30, caps, 30, enter}, "A1aa"},
		{"us", []int{79, 80, 81, 82, 96}, "1230"},
	} {
		t.Run(c.layout+" "+c.want, func(t *testing.T) {
			k := sim.NewKeyboard()
			r := open(t, k, "layout: "+c.layout)
			keys(k, c.codes...)
			got, err := r.Read(t.Context())
			if err != nil || got.Text != c.want {
				t.Errorf("read %q, %v, want %q", got.Text, err, c.want)
			}
		})
	}
}

func TestFaults(t *testing.T) {
	for _, c := range []struct {
		name string
		play func(k *sim.Keyboard)
		want string
	}{
		{"queue ran over", func(k *sim.Keyboard) { _ = k.Type("HC1:AB"); k.Drop(); _ = k.Type("CD\n") }, "keystrokes were lost"},
		{"broken off", func(k *sim.Keyboard) { _ = k.Type("HC1:AB") }, "cut short"},
	} {
		t.Run(c.name, func(t *testing.T) {
			k := sim.NewKeyboard()
			r := open(t, k, "gap: 30ms")
			c.play(k)
			if _, err := r.Read(t.Context()); !errors.Is(err, device.ErrGarbled) || !strings.Contains(err.Error(), c.want) {
				t.Errorf("%v, want %q", err, c.want)
			}
			if err := k.Type("HC1:GOOD\n"); err != nil {
				t.Fatal(err)
			}
			if got, err := r.Read(t.Context()); err != nil || got.Text != "HC1:GOOD" {
				t.Errorf("afterwards: %q, %v", got.Text, err)
			}
		})
	}
}

func TestPausesAndCardNumbers(t *testing.T) {
	k := sim.NewKeyboard()
	r := open(t, k, "end: idle\ngap: 30ms\ncontent: decimal\nformat: W34")
	if err := k.Type("0013530444"); err != nil {
		t.Fatal(err)
	}
	start := time.Now()
	got, err := r.Read(t.Context())
	if err != nil || got.Number != 13530444 || got.Format != device.FormatW34 || got.At.Before(start.Add(-time.Second)) {
		t.Errorf("read %+v, %v", got, err)
	}
}

func TestOptions(t *testing.T) {
	for _, c := range []struct{ src, want string }{
		{"layout: us", "give one of input"},
		{"input: /x\nname: y", "give one of input"},
		{"input: /x\nlayout: dvorak", `"dvorak" is not us, de or fr`},
		{"input: /x\ngap: 1ms", "gap: 1ms is not between"},
		{"input: /x\ncontent: x", "is not one of text"},
	} {
		n, err := options.Parse("gate.yaml", []byte(c.src))
		if err != nil {
			t.Fatal(err)
		}
		if _, err := New("s", n, sim.NewKeyboard().Open); err == nil || !strings.Contains(err.Error(), c.want) {
			t.Errorf("%q: %v, want %q", c.src, err, c.want)
		}
	}
}

func FuzzReader(f *testing.F) {
	f.Add([]byte{0, 30, 1, 0, 28, 1})
	f.Fuzz(func(t *testing.T, src []byte) {
		k := sim.NewKeyboard()
		r := open(t, k, "max: 16")
		var card device.CardRead
		for i := 0; i+3 <= len(src); i += 3 {
			ok, _ := r.event(bus.InputEvent{Type: uint16(src[i] & 1), Code: uint16(src[i+1]), Value: int32(src[i+2] % 3)}, &card)
			if ok && len(card.Text) > 16 {
				t.Fatalf("a text of %d characters", len(card.Text))
			}
		}
	})
}
