//go:build vgate

package vgatetest

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"os/exec"
	"slices"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"gatehouse/device"
	"gatehouse/device/bus"
	"gatehouse/device/catalog"
	"gatehouse/device/options"
)

// The machine's own devices.
const (
	wires    = "/dev/vgate-gpio"
	wiresLog = "/dev/vgate-gpio-log"
	i2cWires = "/dev/vgate-i2c"
	persist  = "/sys/module/vgate_gpio/parameters/persist"
)

func put(t *testing.T, path, s string) {
	t.Helper()
	f, err := os.OpenFile(path, os.O_WRONLY, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	if _, err := f.WriteString(s); err != nil {
		t.Fatal(err)
	}
}

// lineLog drains the log and returns what was done to one line, of the kinds
// asked for: D direction (1 = out), O level.
func lineLog(t *testing.T, line int, kinds string) string {
	t.Helper()
	b, err := os.ReadFile(wiresLog)
	if err != nil {
		t.Fatal(err)
	}
	var out []string
	for l := range strings.Lines(string(b)) {
		f := strings.Fields(l)
		if len(f) == 4 && f[1] == strconv.Itoa(line) && strings.Contains(kinds, f[2]) {
			out = append(out, f[2]+f[3])
		}
	}
	return strings.Join(out, " ")
}

// quiet ends what a failed test left playing, and lets the lines go high.
func quiet(t *testing.T) {
	t.Helper()
	put(t, wires, "stop")
	put(t, wires, "set 14=1 15=1")
}

func ctl(t *testing.T, stdin string, args ...string) {
	t.Helper()
	cmd := exec.Command("vgatectl", args...)
	cmd.Stdin = strings.NewReader(stdin)
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Fatalf("vgatectl %v: %v\n%s", args, err, out)
	}
}

func parse(t *testing.T, src string) options.Node {
	t.Helper()
	n, err := options.Parse("gate.yaml", []byte(src))
	if err != nil {
		t.Fatal(err)
	}
	return n
}

func env() catalog.Env {
	return catalog.Env{Bus: bus.New(), Log: slog.New(slog.DiscardHandler)}
}

func scanner(t *testing.T, src string) device.Scanner {
	t.Helper()
	s, err := catalog.Scanner(env(), "reader", parse(t, src))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { s.Close() })
	return s
}

func next(t *testing.T, s device.Scanner) (device.CardRead, error) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	c, err := s.Read(ctx)
	if ctx.Err() != nil {
		t.Fatalf("nothing is read; health %+v", s.Health())
	}
	return c, err
}

// busy keeps the process at computing and collecting garbage.
func busy(t *testing.T) {
	stop := make(chan struct{})
	var wg sync.WaitGroup
	for range 2 {
		wg.Go(func() {
			var keep [64][]byte
			for n := 0; ; n++ {
				select {
				case <-stop:
					return
				default:
					keep[n%64] = bytes.Repeat([]byte{byte(n)}, 1<<16)
				}
			}
		})
	}
	t.Cleanup(func() { close(stop); wg.Wait() })
}

// A thousand cards while the process is busy: each is read, right, in order.
func TestWiegandThousandCards(t *testing.T) {
	const cards, batch = 1000, 50
	for _, period := range []time.Duration{time.Millisecond, 200 * time.Microsecond} {
		t.Run(period.String(), func(t *testing.T) {
			s := scanner(t, "driver: wiegand\nd0: GPIO14\nd1: GPIO15")
			quiet(t)
			ctl(t, "", "wiegand", "-facility", "9", "-card", "9") // the lines are had when this one is read
			warm := make(chan error)
			go func() {
				_, err := s.Read(t.Context())
				warm <- err
			}()
			for {
				select {
				case err := <-warm:
					if err != nil {
						t.Fatal(err)
					}
				default:
					ctl(t, "", "wiegand", "-facility", "9", "-card", "9")
					continue
				}
				break
			}
			busy(t)
			played := make(chan error, 1)
			go func() {
				for first := 1; first <= cards; first += batch {
					out, err := exec.Command("vgatectl", "wiegand", "-facility", "12", "-card", strconv.Itoa(first), "-count", strconv.Itoa(batch),
						"-period", period.String(), "-low", "50us").CombinedOutput()
					if err != nil {
						played <- fmt.Errorf("%w: %s", err, out)
						return
					}
				}
				played <- nil
			}()
			var beyond []time.Duration
			for i := 1; i <= cards; {
				c, err := next(t, s)
				if err != nil {
					t.Fatalf("card %d: %v; health %+v", i, err, s.Health())
				}
				if c.Facility == 9 {
					continue
				}
				if c.Facility != 12 || c.Number != uint64(i) || c.Format != device.FormatH10301 {
					t.Fatalf("card %d was read as %d/%d; health %+v", i, c.Facility, c.Number, s.Health())
				}
				beyond = append(beyond, time.Since(c.At)-25*time.Millisecond)
				i++
			}
			if err := <-played; err != nil {
				t.Fatal(err)
			}
			h := s.Health()
			if h.Garbled != 0 || h.Noise != 0 {
				t.Errorf("health %+v", h)
			}
			slices.Sort(beyond)
			t.Logf("%d of %d cards right at a bit period of %v, busy, %d of %d edges merged by the kernel and restored; from the frame's end to the CardRead: median %v, 99%% %v",
				cards, cards, period, h.Detail["restored"], 26*cards, beyond[len(beyond)/2], beyond[len(beyond)*99/100])
		})
	}
}

// With the process idle the time from the frame's end to the CardRead is the
// driver's own.
func TestWiegandLatency(t *testing.T) {
	s := scanner(t, "driver: wiegand\nd0: GPIO14\nd1: GPIO15")
	quiet(t)
	go func() {
		time.Sleep(300 * time.Millisecond) // for the lines to be had; a card that comes earlier is nobody's
		_ = exec.Command("vgatectl", "wiegand", "-facility", "12", "-card", "1", "-count", "50").Run()
	}()
	var beyond []time.Duration
	for range 50 {
		c, err := next(t, s)
		if err != nil {
			t.Fatal(err)
		}
		beyond = append(beyond, time.Since(c.At)-25*time.Millisecond)
	}
	slices.Sort(beyond)
	t.Logf("idle: from the frame's end to the CardRead: median %v, worst %v", beyond[25], beyond[49])
	if m := beyond[25]; m > 200*time.Microsecond {
		// The machine's time counts instructions; it does not depend on the host.
		t.Errorf("the median is %v, beyond 200us", m)
	}
}

// crashEnv makes the test binary the process that is to crash.
const crashEnv = "VGATE_CRASH"

func TestMain(m *testing.M) {
	if src := os.Getenv(crashEnv); src != "" {
		crash(src)
	}
	os.Exit(m.Run())
}

// crash takes a barrier, shuts it, says so, and waits to be killed.
func crash(src string) {
	n, err := options.Parse("gate.yaml", []byte(src))
	if err == nil {
		var b device.Barrier
		if b, err = catalog.Barrier(env(), "barrier", n); err == nil {
			err = b.Secure(context.Background())
		}
	}
	fmt.Println("ready", err)
	select {}
}

// No pulse of the wrong level on a relay's line: at start, in use, at stop,
// when the process is killed, and at the start after that.
func TestOutputsDoNotGlitch(t *testing.T) {
	for _, c := range []struct {
		active           string
		line             int
		shut, open, want string
	}{
		{"high", 20, "O0", "O1", "O0 O1 O0"},
		{"low", 21, "O1", "O0", "O1 O0 O1"},
	} {
		for _, keeps := range []string{"Y", "N"} {
			t.Run(c.active+" persist="+keeps, func(t *testing.T) {
				put(t, persist, keeps)
				// Where the line is before anybody takes it, and after a crash
				// on a chip that lets go: a resistor holds the shut level.
				put(t, wires, fmt.Sprintf("set %d=%s", c.line, c.shut[1:]))
				put(t, wires, "clear")
				src := fmt.Sprintf("driver: relay\npin: GPIO%d\nactive: %s\nmode: pulse\npulse: 300ms", c.line, c.active)
				b, err := catalog.Barrier(env(), "barrier", parse(t, src))
				if err != nil {
					t.Fatal(err)
				}
				if got := lineLog(t, c.line, "DO"); got != "" {
					t.Errorf("built, and already %s", got)
				}
				if err := b.Secure(t.Context()); err != nil {
					t.Fatal(err)
				}
				start := lineLog(t, c.line, "DO")
				if err := b.Admit(t.Context(), device.In); err != nil {
					t.Fatal(err)
				}
				use := ""
				for deadline := time.Now().Add(10 * time.Second); !strings.HasSuffix(use, c.shut) && time.Now().Before(deadline); time.Sleep(20 * time.Millisecond) {
					use += " " + lineLog(t, c.line, "DO")
				}
				if got := strings.Join(strings.Fields(start+" "+use), " "); strings.TrimPrefix(distinct(got), "D1 ") != c.want { // D1 is missing where the line is an output still
					t.Errorf("on the wire: %s, want %s", got, c.want)
				}
				if err := b.Close(); err != nil {
					t.Fatal(err)
				}
				if got := lineLog(t, c.line, "DO"); strings.Contains(got, c.open) {
					t.Errorf("at stop: %s", got)
				}

				cmd := exec.Command(os.Args[0])
				cmd.Env = append(os.Environ(), crashEnv+"="+src)
				out, err := cmd.StdoutPipe()
				if err != nil {
					t.Fatal(err)
				}
				if err := cmd.Start(); err != nil {
					t.Fatal(err)
				}
				said := make([]byte, 64)
				n, _ := out.Read(said)
				if string(said[:n]) != "ready <nil>\n" {
					t.Fatalf("the process says %q", said[:n])
				}
				if err := cmd.Process.Signal(syscall.SIGKILL); err != nil {
					t.Fatal(err)
				}
				_ = cmd.Wait() // killed, as was meant
				got := lineLog(t, c.line, "DO")
				if strings.Contains(got, c.open) || (keeps == "Y" && strings.Contains(got, "D0")) {
					t.Errorf("at start and crash: %s", got)
				}
				again, err := catalog.Barrier(env(), "barrier", parse(t, src))
				if err != nil {
					t.Fatal(err)
				}
				defer again.Close()
				if err := again.Secure(t.Context()); err != nil {
					t.Fatal(err)
				}
				if got := lineLog(t, c.line, "DO"); strings.Contains(got, c.open) {
					t.Errorf("at the start after the crash: %s", got)
				}
			})
		}
	}
}

// distinct drops what is written twice in a row: a level set again is no pulse.
func distinct(s string) string {
	return strings.Join(slices.Compact(strings.Fields(s)), " ")
}

// unplug and plug pull the USB serial adapter out and put it in again.
func unplug(t *testing.T) { t.Helper(); run(t, "rmmod", "g_serial") }

func plug(t *testing.T) {
	t.Helper()
	run(t, "modprobe", "g_serial")
	for range 100 {
		if _, err := os.Stat("/dev/ttyGS0"); err == nil {
			raw(t, "/dev/ttyGS0")
			return
		}
		time.Sleep(100 * time.Millisecond)
	}
	t.Fatal("the adapter does not come back")
}

func run(t *testing.T, args ...string) {
	t.Helper()
	if out, err := exec.Command(args[0], args[1:]...).CombinedOutput(); err != nil {
		t.Fatalf("%v: %v %s", args, err, out)
	}
}

// The USB serial adapter of a reader is unplugged and plugged in again.
func TestSerialUnplug(t *testing.T) {
	s := scanner(t, "driver: rdm6300\nport: /dev/ttyACM0\nheld: 10ms")
	send := func() {
		far, err := os.OpenFile("/dev/ttyGS0", os.O_WRONLY|syscall.O_NOCTTY, 0)
		if err != nil {
			t.Error(err)
			return
		}
		defer far.Close()
		if _, err := far.WriteString("\x023C00CE754CCB\x03"); err != nil {
			t.Error(err)
		}
	}
	raw(t, "/dev/ttyGS0")
	for round := range 3 {
		stop := make(chan struct{})
		var wg sync.WaitGroup
		wg.Go(func() { // the adapter drops what comes while nobody has it open
			for {
				send()
				select {
				case <-stop:
					return
				case <-time.After(500 * time.Millisecond):
				}
			}
		})
		c, err := next(t, s)
		close(stop)
		wg.Wait()
		if err != nil || c.Number != 13530444 {
			t.Fatalf("round %d: %+v, %v", round, c, err)
		}
		unplug(t)
		for {
			_, err = next(t, s)
			if err != nil {
				break
			}
		}
		if !errors.Is(err, device.ErrDisconnected) {
			t.Fatalf("unplugged: %v", err)
		}
		used := cpu(t)
		quiet, cancel := context.WithTimeout(t.Context(), 2*time.Second)
		if _, err := s.Read(quiet); !errors.Is(err, context.DeadlineExceeded) {
			t.Fatalf("unplugged, a second time: %v", err)
		}
		cancel()
		if used = cpu(t) - used; used > 200*time.Millisecond {
			t.Errorf("waiting for the adapter took %v of 2s", used)
		}
		plug(t)
		if _, err := os.Stat("/dev/ttyACM1"); err == nil {
			t.Error("the adapter came back under another name: its port was not closed")
		}
	}
	if h := s.Health(); h.Reopens < 2 {
		t.Errorf("health %+v", h)
	}
}

func raw(t *testing.T, path string) {
	t.Helper()
	run(t, "stty", "-F", path, "raw", "-echo")
}

func cpu(t *testing.T) time.Duration {
	t.Helper()
	var u syscall.Rusage
	if err := syscall.Getrusage(syscall.RUSAGE_SELF, &u); err != nil {
		t.Fatal(err)
	}
	return time.Duration(u.Utime.Nano() + u.Stime.Nano())
}

// A scanner that types: read, unplugged, plugged in again under another node.
func TestKeyboard(t *testing.T) {
	s := scanner(t, "driver: hid\nname: vgate RFID reader\ncontent: decimal\nformat: W34\nheld: 10ms")
	if _, err := next(t, s); !errors.Is(err, device.ErrAbsent) {
		t.Fatalf("not plugged in: %v", err)
	}
	for round := range 2 {
		typed := make(chan error, 1)
		go func() {
			cmd := exec.Command("vgatectl", "kbd", "-settle", "8s", "-gap", "1ms")
			cmd.Stdin = strings.NewReader("0013530444\n0000000042\n")
			typed <- cmd.Run()
		}()
		for _, want := range []uint64{13530444, 42} {
			if c, err := next(t, s); err != nil || c.Number != want {
				t.Fatalf("round %d: %+v, %v", round, c, err)
			}
		}
		if _, err := next(t, s); !errors.Is(err, device.ErrDisconnected) {
			t.Fatalf("unplugged: %v", err)
		}
		if err := <-typed; err != nil {
			t.Fatal(err)
		}
	}
	if h := s.Health(); h.Reopens != 1 || h.Reads != 4 {
		t.Errorf("health %+v", h)
	}
}

// An MLX90614 is read from many goroutines while garbage is collected: each
// answer is whole, and faults of the bus are errors.
func TestI2C(t *testing.T) {
	b := bus.New()
	d, err := b.I2C("thermometer", "i2c-1", 0x5A)
	if err != nil {
		t.Fatal(err)
	}
	defer d.Close()
	put(t, i2cWires, "mlx 0x5a\n")
	put(t, i2cWires, "word 0x5a 0x07 0x3ad2\n")
	put(t, i2cWires, "word 0x5a 0x06 0x3915\n")
	want := map[byte][2]byte{0x07: {0xD2, 0x3A}, 0x06: {0x15, 0x39}}
	read := func(reg byte) (got [3]byte, err error) {
		err = d.TxContext(t.Context(), []byte{reg}, got[:])
		return got, err
	}
	if got, err := read(0x07); err != nil || got != [3]byte{0xD2, 0x3A, 0x30} {
		t.Fatalf("object: % x, %v; want d2 3a and the PEC 30", got, err)
	}
	busy(t)
	var wg sync.WaitGroup
	for g := range 8 {
		wg.Go(func() {
			reg := byte(0x06 + g%2)
			for range 250 {
				got, err := read(reg)
				if err != nil || [2]byte(got[:2]) != want[reg] || got[2] != pec(reg, got[0], got[1]) {
					t.Errorf("register %#x: % x, %v", reg, got, err)
					return
				}
			}
		})
	}
	wg.Wait()
	put(t, i2cWires, "badpec 0x5a 1\n")
	if got, err := read(0x07); err != nil || got[2] == pec(0x07, got[0], got[1]) {
		t.Errorf("a wrong PEC is not seen: % x, %v", got, err)
	}
	put(t, i2cWires, "nak 0x5a 1\n")
	if _, err := read(0x07); !errors.Is(err, device.ErrAbsent) {
		t.Errorf("no answer: %v", err)
	}
	put(t, i2cWires, "stuck 0x5a 1\n")
	ctx, cancel := context.WithTimeout(t.Context(), 50*time.Millisecond)
	defer cancel()
	start := time.Now()
	if err := d.TxContext(ctx, []byte{7}, make([]byte, 3)); !errors.Is(err, context.DeadlineExceeded) || time.Since(start) > 900*time.Millisecond {
		t.Errorf("a stuck bus: %v after %v", err, time.Since(start))
	}
	if got, err := read(0x07); err != nil || got[2] != 0x30 {
		t.Errorf("after the faults: % x, %v", got, err)
	}
	put(t, i2cWires, "none 0x5a\n")
	if _, err := read(0x07); !errors.Is(err, device.ErrAbsent) {
		t.Errorf("unplugged: %v", err)
	}
}

// pec is the CRC-8 (polynomial 07, from 0) over a read's bytes on the wire.
func pec(reg, lsb, msb byte) byte {
	var crc byte
	for _, b := range []byte{0xB4, reg, 0xB5, lsb, msb} {
		crc ^= b
		for range 8 {
			if crc&0x80 != 0 {
				crc = crc<<1 ^ 7
			} else {
				crc <<= 1
			}
		}
	}
	return crc
}
