package serialrfid

import (
	"context"
	"encoding/hex"
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

// decode feeds bytes and returns the tags read, with counts of what was not.
func decode(p Protocol, src []byte) (tags []string, noise, garbled int) {
	d := NewDecoder(p)
	var r device.CardRead
	for _, b := range src {
		switch d.Byte(b, &r) {
		case scan.Card:
			tags = append(tags, fmt.Sprintf("%X/%010d", r.Raw.B[:5], r.Number))
		case scan.Noise:
			noise++
		case scan.Garbled, scan.Restart:
			garbled++
		}
	}
	return tags, noise, garbled
}

func TestDecoder(t *testing.T) {
	good := "\x023C00CE754CCB\x03"
	goodID := "\x023C00CE754CCB\r\n\x03"
	const tag = "3C00CE754C/0013530444"
	for _, c := range []struct {
		name           string
		p              Protocol
		in             string
		want           []string
		noise, garbled int
	}{
		{"published vector", RDM6300, "\x02\x33\x43\x30\x30\x43\x45\x37\x35\x34\x43\x43\x42\x03", []string{tag}, 0, 0},
		{"id12", ID12, goodID, []string{tag}, 0, 0},
		{"repeated", RDM6300, good + good, []string{tag, tag}, 0, 0},
		{"lower case", RDM6300, strings.ToLower(good), []string{tag}, 0, 0},
		{"noise before", RDM6300, "\xff\x00A" + good, []string{tag}, 3, 0},
		{"noise after", RDM6300, good + "\r\n", []string{tag}, 2, 0},
		{"cut by the next", RDM6300, "\x023C00CE" + good, []string{tag}, 0, 1},
		{"starts twice", RDM6300, "\x02" + good, []string{tag}, 0, 1},
		{"wrong checksum", RDM6300, "\x023C00CE754DCB\x03" + good, []string{tag}, 0, 1},
		{"a byte lost", RDM6300, "\x023C00CE754CC\x03" + good, []string{tag}, 0, 1},
		{"a byte more", RDM6300, "\x023C00CE754CCB0\x03" + good, []string{tag}, 1, 1},
		{"no hex", RDM6300, "\x023C00CE75GCCB\x03" + good, []string{tag}, 4, 1},
		{"frame of the other kind", RDM6300, goodID, nil, 2, 1},
		{"frame of the other kind 2", ID12, good, nil, 0, 1},
		{"nothing", RDM6300, "", nil, 0, 0},
	} {
		t.Run(c.name, func(t *testing.T) {
			tags, noise, garbled := decode(c.p, []byte(c.in))
			if fmt.Sprint(tags) != fmt.Sprint(c.want) || noise != c.noise || garbled != c.garbled {
				t.Errorf("read %v with %d noise and %d garbled, want %v, %d, %d", tags, noise, garbled, c.want, c.noise, c.garbled)
			}
		})
	}
}

func TestFrameRoundTrip(t *testing.T) {
	for _, p := range []Protocol{RDM6300, ID12} {
		f := AppendFrame(nil, p, [5]byte{0x3C, 0x00, 0xCE, 0x75, 0x4C})
		if p == RDM6300 && hex.EncodeToString(f) != "0233433030434537353443434203" {
			t.Errorf("frame % x", f)
		}
		if tags, _, _ := decode(p, f); len(tags) != 1 {
			t.Errorf("%s does not read its own frame % x", p, f)
		}
	}
}

// A megabyte of noise is no card beyond what the checksum's eight bits let by
// chance, and the frame after it is read.
func TestMegabyteOfNoise(t *testing.T) {
	noise := make([]byte, 1<<20)
	rand.NewChaCha8([32]byte{1}).Read(noise)
	tags, _, _ := decode(RDM6300, append(noise, "\x03\x023C00CE754CCB\x03"...))
	if len(tags) != 1 || tags[0] != "3C00CE754C/0013530444" {
		t.Errorf("read %v after noise", tags)
	}
}

func FuzzDecoder(f *testing.F) {
	f.Add([]byte("\x023C00CE754CCB\x03"), false)
	f.Add([]byte("\x023C00CE754CCB\r\n\x03"), true)
	f.Fuzz(func(t *testing.T, src []byte, id12 bool) {
		p := RDM6300
		if id12 {
			p = ID12
		}
		d := NewDecoder(p)
		var r device.CardRead
		for i, b := range src {
			if d.Byte(b, &r) != scan.Card {
				continue
			}
			// Every card was on the wire as a whole frame.
			want := AppendFrame(nil, p, [5]byte(r.Raw.B[:5]))
			if got := src[max(0, i+1-len(want)) : i+1]; !strings.EqualFold(string(got), string(want)) {
				t.Fatalf("phantom card % X from %q", r.Raw.B[:5], got)
			}
		}
		d.End(&r)
		for _, b := range AppendFrame(nil, p, [5]byte{1, 2, 3, 4, 5}) {
			if res := d.Byte(b, &r); res == scan.Card && r.Number != 0x02030405 {
				t.Fatalf("read %d", r.Number)
			} else if b == etx && res != scan.Card {
				t.Fatal("a good frame is not read after a pause")
			}
		}
	})
}

func BenchmarkDecoder(b *testing.B) {
	d := NewDecoder(RDM6300)
	frame := AppendFrame(nil, RDM6300, [5]byte{0x3C, 0, 0xCE, 0x75, 0x4C})
	var r device.CardRead
	b.SetBytes(int64(len(frame)))
	b.ReportAllocs()
	for b.Loop() {
		for _, c := range frame {
			d.Byte(c, &r)
		}
	}
}

func node(t *testing.T, src string) options.Node {
	t.Helper()
	n, err := options.Parse("gate.yaml", []byte(src))
	if err != nil {
		t.Fatal(err)
	}
	return n
}

func TestOptions(t *testing.T) {
	for _, c := range []struct{ name, src, want string }{
		{"no port", "held: 1s", "gate.yaml:1:1: port: must be given"},
		{"slip of the pen", "port: /x\nbuad: 9600", `unknown key "buad", did you mean "baud"?`},
		{"wrong baud", "port: /x\nbaud: 9601", "9601 is not a baud rate"},
		{"wrong parity", "port: /x\nparity: some", `parity "some"`},
		{"no unit", "port: /x\nheld: 5", "duration with a unit"},
		{"held too long", "port: /x\nheld: 5h", "held: 5h0m0s is not between"},
		{"gap too short", "port: /x\ngap: 1ms", "gap: 1ms is not between"},
	} {
		t.Run(c.name, func(t *testing.T) {
			_, err := New(bus.New(), "reader", RDM6300, node(t, c.src), nil)
			if err == nil || !strings.Contains(err.Error(), c.want) {
				t.Errorf("error %v, want %q in it", err, c.want)
			}
		})
	}
}

func TestTwoUsersOfOnePort(t *testing.T) {
	b := bus.New()
	path := filepath.Join(t.TempDir(), "reader")
	one, err := New(b, "lane east-in scanner", RDM6300, node(t, "port: "+path), nil)
	if err != nil {
		t.Fatal(err)
	}
	_, err = New(b, "lane east-out scanner", RDM6300, node(t, "port: "+path), nil)
	var used *bus.InUseError
	if !errors.As(err, &used) || used.By != "lane east-in scanner" {
		t.Errorf("second user: %v", err)
	}
	if err := one.Close(); err != nil {
		t.Fatal(err)
	}
	two, err := New(b, "lane east-out scanner", RDM6300, node(t, "port: "+path), nil)
	if err != nil {
		t.Fatalf("after the first has closed: %v", err)
	}
	two.Close()
}

// rig is a reader with its emulator.
type rig struct {
	line *sim.Serial
	rfid *sim.RFID
	scan *scan.Serial
}

func newRig(t *testing.T, p Protocol) *rig {
	t.Helper()
	line, err := sim.NewSerial(filepath.Join(t.TempDir(), "reader"))
	if err != nil {
		t.Fatal(err)
	}
	r := &rig{line: line, rfid: sim.NewRDM6300(line, 7)}
	if p == ID12 {
		r.rfid = sim.NewID12(line, 7)
	}
	r.scan, err = New(bus.New(), "lane scanner", p, node(t, "port: "+line.Path()), nil)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { r.scan.Close(); line.Close() })
	return r
}

func tag(i int) sim.EM4100 { return sim.EM4100{0x3C, 0, byte(i >> 16), byte(i >> 8), byte(i)} }

func TestContract(t *testing.T) {
	for _, p := range []Protocol{RDM6300, ID12} {
		t.Run(string(p), func(t *testing.T) {
			devicetest.Scanner(t, func(t *testing.T) *devicetest.ScannerRig {
				r := newRig(t, p)
				must := func(err error) {
					if err != nil {
						t.Helper()
						t.Error(err)
					}
				}
				return &devicetest.ScannerRig{
					Scanner: r.scan,
					Present: func(i int) device.CardRead {
						must(r.rfid.Hold(t.Context(), tag(i), 0))
						return CardRead(tag(i))
					},
					Garble: func() {
						r.rfid.SetFaults(sim.Faults{Checksum: 1})
						must(r.rfid.Hold(t.Context(), tag(99), 0))
						r.rfid.SetFaults(sim.Faults{})
					},
					Unplug: func() { must(r.line.Unplug()) },
					Plug:   func() { must(r.line.Plug()) },
					Close:  func() { must(r.line.Close()) },
				}
			})
		})
	}
}

// next reads until there is a card; passing faults are counted by kind.
func next(t *testing.T, s device.Scanner, faults map[error]int) device.CardRead {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), devicetest.Limit)
	defer cancel()
	for {
		c, err := s.Read(ctx)
		if err == nil {
			return c
		}
		if ctx.Err() != nil {
			t.Fatal("no card is read")
		}
		for _, k := range []error{device.ErrAbsent, device.ErrDisconnected, device.ErrGarbled, device.ErrOutOfRange} {
			if errors.Is(err, k) && faults != nil {
				faults[k]++
			}
		}
	}
}

// A card held for two seconds is one read, though the reader repeats it.
func TestHeldCardIsOneRead(t *testing.T) {
	r := newRig(t, RDM6300)
	if err := r.rfid.Hold(t.Context(), tag(1), 2*time.Second); err != nil {
		t.Fatal(err)
	}
	if err := r.rfid.Hold(t.Context(), tag(2), 0); err != nil {
		t.Fatal(err)
	}
	if c := next(t, r.scan, nil); c.Number != 1 {
		t.Errorf("read %d", c.Number)
	}
	if c := next(t, r.scan, nil); c.Number != 2 {
		t.Errorf("read %d, the held card came twice", c.Number)
	}
	if h := r.scan.Health(); h.Detail["repeated"] < 3 {
		t.Errorf("repetitions are not counted: %+v", h)
	}
}

// Whatever goes wrong with some frames, every card that is held is read once.
func TestFaultsOnTheLine(t *testing.T) {
	for _, c := range []struct {
		name   string
		faults sim.Faults
		speed  time.Duration
	}{
		{"noise", sim.Faults{Noise: 1}, 0},
		{"half frames", sim.Faults{Half: 0.6}, 0},
		{"wrong checksums", sim.Faults{Checksum: 0.6}, 0},
		{"all at once", sim.Faults{Noise: 0.5, Half: 0.4, Checksum: 0.4}, 0},
		{"slow", sim.Faults{}, time.Millisecond},
	} {
		t.Run(c.name, func(t *testing.T) {
			r := newRig(t, RDM6300)
			r.rfid.SetFaults(c.faults)
			r.line.Speed = c.speed
			tags := make(chan sim.EM4100)
			ctx, cancel := context.WithCancel(t.Context())
			done := make(chan error)
			go func() { done <- r.rfid.Run(ctx, tags) }()
			for i := 1; i <= 3; i++ {
				tags <- tag(i)
				if got := next(t, r.scan, nil); got.Number != uint64(i) {
					t.Errorf("card %d was read as %d", i, got.Number)
				}
			}
			cancel()
			<-done
		})
	}
}

// The cable is pulled amid a frame: no card, a counted half frame, and the
// next is read when it is plugged in again.
func TestPulledAmidFrame(t *testing.T) {
	r := newRig(t, RDM6300)
	if err := r.rfid.Hold(t.Context(), tag(1), 0); err != nil {
		t.Fatal(err)
	}
	next(t, r.scan, nil)
	if _, err := r.line.Write([]byte("\x023C00CE")); err != nil {
		t.Fatal(err)
	}
	if err := r.line.Unplug(); err != nil {
		t.Fatal(err)
	}
	_, err := r.scan.Read(t.Context())
	if !errors.Is(err, device.ErrDisconnected) && !errors.Is(err, device.ErrGarbled) {
		t.Fatalf("pulled: %v", err)
	}
	if err := r.line.Plug(); err != nil {
		t.Fatal(err)
	}
	if _, err := r.line.Write([]byte("754CCB\x03")); err != nil { // must not complete the old half
		t.Fatal(err)
	}
	if err := r.rfid.Hold(t.Context(), tag(2), 0); err != nil {
		t.Fatal(err)
	}
	if c := next(t, r.scan, nil); c.Number != 2 {
		t.Errorf("read %d", c.Number)
	}
}

// A reader that sends 200 different cards in a second is stopped and reported,
// and heard again when it has been calm.
func TestMadReader(t *testing.T) {
	r := newRig(t, RDM6300)
	for i := range 200 {
		if _, err := r.line.Write(AppendFrame(nil, RDM6300, tag(i))); err != nil {
			t.Fatal(err)
		}
	}
	cards, reports := 0, 0
	for end := time.Now().Add(devicetest.Limit); uint64(cards)+r.scan.Health().Detail["flood"] < 200 && time.Now().Before(end); {
		ctx, cancel := context.WithTimeout(t.Context(), 100*time.Millisecond)
		_, err := r.scan.Read(ctx)
		cancel()
		switch {
		case err == nil:
			cards++
		case errors.Is(err, device.ErrOutOfRange):
			reports++
		}
	}
	if cards != scan.MaxRate || reports != 1 {
		t.Errorf("%d cards and %d reports of 200 reads", cards, reports)
	}
	if h := r.scan.Health(); h.State != device.StateFault || h.Detail["flood"] != 200-scan.MaxRate {
		t.Errorf("health %+v", h)
	}
}
