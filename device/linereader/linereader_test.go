package linereader

import (
	"errors"
	"fmt"
	"math/rand/v2"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"gatehouse/device"
	"gatehouse/device/bus"
	"gatehouse/device/devicetest"
	"gatehouse/device/options"
	"gatehouse/device/scan"
	"gatehouse/device/sim"
)

func node(t testing.TB, src string) options.Node {
	t.Helper()
	n, err := options.Parse("gate.yaml", []byte(src))
	if err != nil {
		t.Fatal(err)
	}
	return n
}

func line(t testing.TB) *sim.Serial {
	t.Helper()
	l, err := sim.NewSerial(filepath.Join(t.TempDir(), "scanner"))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { l.Close() })
	return l
}

func open(t testing.TB, l *sim.Serial, opts string) *scan.Serial {
	t.Helper()
	s, err := New(bus.New(), "scanner", "qr", device.FormatQR, node(t, "port: "+l.Path()+"\n"+opts), nil)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { s.Close() })
	return s
}

func TestContract(t *testing.T) {
	devicetest.Scanner(t, func(t *testing.T) *devicetest.ScannerRig {
		l := line(t)
		r := sim.NewLineReader(l)
		must := func(err error) {
			if err != nil {
				t.Helper()
				t.Error(err)
			}
		}
		return &devicetest.ScannerRig{
			Scanner: open(t, l, ""),
			Present: func(i int) device.CardRead {
				text := fmt.Sprintf("HC1:%04d", i)
				must(r.Scan(text))
				return device.CardRead{Format: device.FormatQR, Text: text}
			},
			Garble: func() { must(r.Scan("a\x01bcd")) },
			Unplug: func() { must(l.Unplug()) },
			Plug:   func() { must(l.Plug()) },
			Close:  func() { must(l.Close()) },
		}
	})
}

// A scanner that ends its lines with nothing: the pause is the end.
func TestIdleEnd(t *testing.T) {
	l := line(t)
	s := open(t, l, "end: idle\ngap: 30ms")
	r := sim.NewLineReader(l)
	r.End = ""
	for _, want := range []string{"HC1:ONE", "HC1:TWO"} {
		if err := r.Scan(want); err != nil {
			t.Fatal(err)
		}
		if got, err := s.Read(t.Context()); err != nil || got.Text != want {
			t.Errorf("read %q, %v", got.Text, err)
		}
	}
}

// certificate is as long as an HC1 one, of the characters that base45 has.
func certificate() string {
	rng := rand.New(rand.NewPCG(1, 2))
	b := []byte("HC1:")
	for len(b) < 1000 {
		b = append(b, "0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZ $%*+-./:"[rng.IntN(45)])
	}
	return string(b)
}

func TestCertificate(t *testing.T) {
	l := line(t)
	l.Speed = 100 * time.Microsecond
	s := open(t, l, "gap: 5s") // however busy the machine is that plays the scanner
	want := certificate()
	done := make(chan error)
	go func() { done <- sim.NewLineReader(l).Scan(want) }()
	got, err := s.Read(t.Context())
	if err != nil || got.Text != want {
		t.Errorf("read %d characters, %v", len(got.Text), err)
	}
	if err := <-done; err != nil {
		t.Error(err)
	}
}

func TestHalfLineAndNoise(t *testing.T) {
	l := line(t)
	s := open(t, l, "prefix: \"HC1:\"\ngap: 30ms")
	r := sim.NewLineReader(l)
	if err := r.Break("HC1:ABCDEFGH"); err != nil {
		t.Fatal(err)
	}
	if _, err := s.Read(t.Context()); !errors.Is(err, device.ErrGarbled) {
		t.Fatalf("half a line: %v", err)
	}
	noise := make([]byte, 4<<10)
	rand.NewChaCha8([32]byte{3}).Read(noise)
	go func() {
		for range 256 { // a megabyte
			_, _ = l.Write(noise)
		}
		_ = r.Scan("")
		_ = r.Scan("HC1:GOOD")
	}()
	for {
		c, err := s.Read(t.Context())
		if errors.Is(err, device.ErrGarbled) {
			continue
		}
		if err != nil || c.Text != "GOOD" {
			t.Errorf("read %q, %v", c.Text, err)
		}
		break
	}
	if h := s.Health(); h.Garbled == 0 || h.Noise == 0 {
		t.Errorf("health %+v", h)
	}
}

func TestOptions(t *testing.T) {
	for _, c := range []struct{ src, want string }{
		{"end: crlf\nport: /x", `end: "crlf" is not one of auto`},
		{"port: /x\ncontent: octal", `content: "octal"`},
		{"port: /x\nchecksum: xor", "is of hex content only"},
		{"port: /x\nformat: em4100", "is hex"},
		{"port: /x\nmin: 0", "want 1 <= min"},
		{"port: /x\nmax: 9999", "want 1 <= min"},
		{"baud: 9600", "port: must be given"},
		{"port: /x\nprefx: a", `did you mean "prefix"?`},
	} {
		if _, err := New(bus.New(), "s", "line", "line", node(t, c.src), nil); err == nil || !strings.Contains(err.Error(), c.want) {
			t.Errorf("%q: %v, want %q", c.src, err, c.want)
		}
	}
}
