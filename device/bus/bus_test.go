package bus

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/creack/pty"
	"github.com/google/go-cmp/cmp"
	"go.uber.org/goleak"
	"periph.io/x/conn/v3/i2c"
	"periph.io/x/conn/v3/physic"

	"gatehouse/device"
)

func terminal(t *testing.T) (far *os.File, path string) {
	t.Helper()
	far, near, err := pty.Open()
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { far.Close(); near.Close() })
	return far, near.Name()
}

func TestSerialIsExclusive(t *testing.T) {
	_, path := terminal(t)
	link := filepath.Join(t.TempDir(), "by-id")
	if err := os.Symlink(path, link); err != nil {
		t.Fatal(err)
	}
	b := New()
	one, err := b.Serial(SerialConfig{User: "one", Path: path})
	if err != nil {
		t.Fatal(err)
	}
	defer one.Close()
	var used *InUseError
	if _, err := b.Serial(SerialConfig{User: "two", Path: link}); !errors.As(err, &used) || used.By != "one" {
		t.Errorf("a link to the same port: %v", err)
	}
	if err := one.Try(); err != nil {
		t.Fatal(err)
	}
	// Another program: it has a Bus of its own.
	other, err := New().Serial(SerialConfig{User: "other", Path: path})
	if err != nil {
		t.Fatal(err)
	}
	defer other.Close()
	if err := other.Try(); !errors.Is(err, device.ErrAbsent) || !strings.Contains(err.Error(), "in use by another program") {
		t.Errorf("another program: %v", err)
	}
}

func TestSerialIsNoSerialPort(t *testing.T) {
	path := filepath.Join(t.TempDir(), "file")
	if err := os.WriteFile(path, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	p, err := New().Serial(SerialConfig{User: "reader", Path: path})
	if err != nil {
		t.Fatal(err)
	}
	defer p.Close()
	if err := p.Try(); err == nil || !strings.Contains(err.Error(), "is not a serial port") {
		t.Errorf("a file: %v", err)
	}
}

func TestSerialBothWays(t *testing.T) {
	defer goleak.VerifyNone(t)
	far, path := terminal(t)
	var tapped bytes.Buffer
	p, err := New().Serial(SerialConfig{User: "thermometer", Path: path, Tap: func(b []byte) { tapped.Write(b) }})
	if err != nil {
		t.Fatal(err)
	}
	if _, err := p.Write([]byte{0xA5, 0x45, 0xEA}); err != nil {
		t.Fatal(err)
	}
	buf := make([]byte, 64)
	if n, err := far.Read(buf); err != nil || !bytes.Equal(buf[:n], []byte{0xA5, 0x45, 0xEA}) {
		t.Errorf("the far end read % x, %v", buf[:n], err)
	}
	// All byte values pass: nothing is taken for a control character.
	all := make([]byte, 256)
	for i := range all {
		all[i] = byte(i)
	}
	if _, err := far.Write(all); err != nil {
		t.Fatal(err)
	}
	var got []byte
	for len(got) < len(all) {
		n, err := p.Read(t.Context(), buf)
		if err != nil {
			t.Fatal(err)
		}
		got = append(got, buf[:n]...)
	}
	if !bytes.Equal(got, all) || !bytes.Equal(tapped.Bytes(), all) {
		t.Errorf("read % x, tapped % x", got, tapped.Bytes())
	}
	if err := p.Close(); err != nil {
		t.Fatal(err)
	}
	if _, err := p.Write([]byte{1}); !errors.Is(err, device.ErrClosed) {
		t.Errorf("write after close: %v", err)
	}
	if _, err := p.Read(t.Context(), buf); !errors.Is(err, device.ErrClosed) {
		t.Errorf("read after close: %v", err)
	}
}

// Readers that are cancelled again and again lose no byte, and a cancel that
// comes late does not end the next read.
func TestSerialCancelLosesNothing(t *testing.T) {
	far, path := terminal(t)
	p, err := New().Serial(SerialConfig{User: "reader", Path: path})
	if err != nil {
		t.Fatal(err)
	}
	defer p.Close()
	if err := p.Try(); err != nil {
		t.Fatal(err)
	}
	var want bytes.Buffer
	go func() {
		for i := range 200 {
			fmt.Fprintf(far, "%04d", i)
			time.Sleep(100 * time.Microsecond)
		}
	}()
	for i := range 200 {
		fmt.Fprintf(&want, "%04d", i)
	}
	var got []byte
	buf := make([]byte, 7)
	for round := 0; len(got) < want.Len() && round < 100000; round++ {
		ctx, cancel := context.WithTimeout(t.Context(), time.Duration(round%5)*50*time.Microsecond)
		n, err := p.Read(ctx, buf)
		cancel()
		if err != nil && ctx.Err() == nil {
			t.Fatal(err)
		}
		got = append(got, buf[:n]...)
	}
	if string(got) != want.String() {
		t.Errorf("read %d of %d bytes, or wrong ones", len(got), want.Len())
	}
}

func TestSerialSettings(t *testing.T) {
	for _, c := range []struct {
		conf SerialConfig
		want string
	}{
		{SerialConfig{}, "no serial port"},
		{SerialConfig{Path: "/x", Baud: 1}, "baud"},
		{SerialConfig{Path: "/x", Parity: "mark"}, "parity"},
		{SerialConfig{Path: "/x", Size: 9}, "data bits"},
		{SerialConfig{Path: "/x", Stop: 3}, "stop bits"},
	} {
		if _, err := New().Serial(c.conf); err == nil || !strings.Contains(err.Error(), c.want) {
			t.Errorf("%+v: %v", c.conf, err)
		}
	}
}

func TestBackoff(t *testing.T) {
	var b backoff
	var got []time.Duration
	for range 8 {
		got = append(got, b.step())
	}
	ms := time.Millisecond
	if d := cmp.Diff([]time.Duration{100 * ms, 200 * ms, 400 * ms, 800 * ms, 1600 * ms, 3200 * ms, 5000 * ms, 5000 * ms}, got); d != "" {
		t.Error(d)
	}
}

// i2cRace is a bus that shows when two transfers overlap.
type i2cRace struct {
	busy   sync.Mutex
	closed int
}

func (r *i2cRace) String() string                  { return "race" }
func (r *i2cRace) SetSpeed(physic.Frequency) error { return nil }
func (r *i2cRace) Close() error                    { r.closed++; return nil }
func (r *i2cRace) Tx(addr uint16, w, in []byte) error {
	if !r.busy.TryLock() {
		return errors.New("two transfers at once")
	}
	defer r.busy.Unlock()
	time.Sleep(10 * time.Microsecond)
	for i := range in {
		in[i] = w[0] + byte(i)
	}
	return nil
}

func TestI2CHasOneOwner(t *testing.T) {
	b, race := New(), &i2cRace{}
	var users []*I2C
	for _, addr := range []uint16{0x5A, 0x5B} {
		d, err := b.I2C(fmt.Sprintf("sensor %x", addr), "i2c-1", addr)
		if err != nil {
			t.Fatal(err)
		}
		d.bus.opener = func(int) (i2c.BusCloser, error) { return race, nil }
		users = append(users, d)
	}
	var used *InUseError
	if _, err := b.I2C("third", "/dev/i2c-1", 0x5A); !errors.As(err, &used) {
		t.Errorf("second user of an address: %v", err)
	}
	var wg sync.WaitGroup
	for i := range 8 {
		wg.Go(func() {
			d := users[i%2]
			for n := range 200 {
				var got [3]byte
				if err := d.TxContext(t.Context(), []byte{byte(n)}, got[:]); err != nil || got[2] != byte(n)+2 {
					t.Errorf("% x, %v", got, err)
					return
				}
			}
		})
	}
	wg.Wait()
	if err := users[0].Tx(0x5B, []byte{0}, nil); err == nil {
		t.Error("a transfer to somebody else's address")
	}
	for range 2 {
		users[0].Close()
	}
	if race.closed != 0 {
		t.Error("the bus was closed under its other user")
	}
	users[1].Close()
	if race.closed != 1 {
		t.Errorf("the bus was closed %d times", race.closed)
	}
	for _, c := range []struct {
		name string
		addr uint16
	}{{"i2c1", 0x5A}, {"spi0", 0x5A}, {"i2c-1", 0x03}, {"i2c-1", 0x80}} {
		if _, err := b.I2C("x", c.name, c.addr); err == nil {
			t.Errorf("%s %#x is taken", c.name, c.addr)
		}
	}
}

func TestBusAlias(t *testing.T) {
	b := New()
	if err := b.Alias("sensors", "i2c-3"); err != nil {
		t.Fatal(err)
	}
	for _, c := range [][2]string{{"sensors", "i2c-4"}, {"i2c-4", "i2c-5"}, {"Sensors", "i2c-1"}, {"other", "spi-1"}, {"", "i2c-1"}} {
		if err := b.Alias(c[0], c[1]); err == nil {
			t.Errorf("%s is taken for %s", c[0], c[1])
		}
	}
	if d, err := b.I2C("one", "sensors", 0x5A); err != nil || d.String() != "i2c-3/0x5a" {
		t.Errorf("%v, %v", d, err)
	}
	var used *InUseError
	if _, err := b.I2C("two", "i2c-3", 0x5A); !errors.As(err, &used) {
		t.Errorf("the same address by both names: %v", err)
	}
}

func TestRecording(t *testing.T) {
	var text bytes.Buffer
	r := NewRecorder(&text, "rdm6300\non a table")
	r.Tap([]byte{0x02, 0x33})
	r.Tap([]byte{0x03})
	if r.Err() != nil {
		t.Fatal(r.Err())
	}
	chunks, err := ReadRecording(&text)
	if err != nil || len(chunks) != 2 || !bytes.Equal(chunks[0].Bytes, []byte{2, 0x33}) {
		t.Errorf("%v, %v", chunks, err)
	}
	for _, bad := range []string{"1", "x 00", "1 0g", "1 000", "2 00\n1 00", "-1 00", "NaN 00", "1 00 00"} {
		if _, err := ReadRecording(strings.NewReader(bad)); err == nil {
			t.Errorf("%q is taken", bad)
		}
	}
}

func FuzzReadRecording(f *testing.F) {
	f.Add("# a\n1.5 0203\n")
	f.Fuzz(func(t *testing.T, src string) {
		chunks, err := ReadRecording(strings.NewReader(src))
		if err != nil {
			return
		}
		for i := range chunks {
			if i > 0 && chunks[i].At < chunks[i-1].At {
				t.Fatal("time runs backwards")
			}
		}
	})
}
