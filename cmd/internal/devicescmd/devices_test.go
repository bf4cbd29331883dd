package devicescmd

import (
	"bytes"
	"context"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"gatehouse/device/sim"
)

func reader(t *testing.T) (*sim.Serial, string) {
	t.Helper()
	dir := t.TempDir()
	byID := filepath.Join(dir, "serial", "by-id")
	if err := os.MkdirAll(byID, 0o755); err != nil {
		t.Fatal(err)
	}
	line, err := sim.NewSerial(filepath.Join(byID, "usb-reader"))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { line.Close() })
	return line, dir
}

// hold keeps a card at the reader until the test ends.
func hold(t *testing.T, line *sim.Serial) {
	t.Helper()
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan struct{})
	go func() {
		defer close(done)
		_ = sim.NewRDM6300(line, 1).Hold(ctx, sim.EM4100{0x3C, 0, 0xCE, 0x75, 0x4C}, time.Hour)
	}()
	t.Cleanup(func() { cancel(); <-done })
}

func TestFind(t *testing.T) {
	line, dev := reader(t)
	hold(t, line)
	var out bytes.Buffer
	if err := find(t.Context(), &out, dev, 3*time.Second); err != nil {
		t.Fatal(err)
	}
	for _, want := range []string{"Serial ports: 1", "as of rdm6300", "scanner:\n      driver: rdm6300\n      port: " + line.Path() + "\n", "GPIO chips: 0", "Input devices: 0"} {
		if !strings.Contains(out.String(), want) {
			t.Errorf("no %q in:\n%s", want, &out)
		}
	}
}

func TestGuess(t *testing.T) {
	for _, c := range []struct{ in, want string }{
		{"", ""},
		{"\x023C00CE754CCB\x03", "rdm6300"},
		{"CE\x03\x023C00CE754CCB\r\n\x03", "id12"},
		{"HC1:ABC\r\n", "qr"},
		{"\x5A\x5A\x45\x04\x0C\x78\x0D\x19\xA7", "gy-mcu90614"},
		{"\xff\xfe\x00", ""},
	} {
		if got := guess([]byte(c.in)); got != c.want {
			t.Errorf("%q is taken for %q, want %q", c.in, got, c.want)
		}
	}
}

func run(t *testing.T, args ...string) (string, error) {
	t.Helper()
	var out bytes.Buffer
	cmd := New()
	cmd.SilenceUsage = true
	cmd.SetOut(&out)
	cmd.SetErr(&out)
	cmd.SetArgs(args)
	err := cmd.ExecuteContext(t.Context())
	return out.String(), err
}

func TestWatchRecordReplay(t *testing.T) {
	line, _ := reader(t)
	hold(t, line)
	dev := "{driver: rdm6300, port: " + line.Path() + "}"
	const card = "em:3C00CE754C"
	out, err := run(t, "watch", "--for", "3s", dev)
	if err != nil || !strings.Contains(out, card) || !strings.Contains(out, "1 read, 0 garbled") {
		t.Errorf("watch: %v\n%s", err, out)
	}
	if out, err = run(t, "test", dev); err != nil || !strings.Contains(out, "read "+card) {
		t.Errorf("test: %v\n%s", err, out)
	}
	file := filepath.Join(t.TempDir(), "recording")
	if out, err = run(t, "record", "--for", "3s", "--out", file, dev); err != nil || !strings.Contains(out, card) {
		t.Errorf("record: %v\n%s", err, out)
	}
	if _, err = run(t, "record", "--out", file, dev); err == nil {
		t.Error("a recording is written over")
	}
	if out, err = run(t, "replay", file, "{driver: rdm6300}"); err != nil || !strings.Contains(out, card) {
		t.Errorf("replay: %v\n%s", err, out)
	}
	if _, err = run(t, "replay", file, "driver: rdm6300\nport: /x"); err == nil || !strings.Contains(err.Error(), "a replay has no port") {
		t.Errorf("replay with a port: %v", err)
	}
}

// Samples of somebody who steps up and stays are run through the pipeline.
func TestReplaySamples(t *testing.T) {
	var b strings.Builder
	b.WriteString("# samples\n")
	for i := range 80 {
		object := 24.0
		if i >= 20 {
			object = 36.4
		}
		fmt.Fprintf(&b, "%d.0 %.2f 24\n", i*100, object)
	}
	file := filepath.Join(t.TempDir(), "samples")
	if err := os.WriteFile(file, []byte(b.String()), 0o600); err != nil {
		t.Fatal(err)
	}
	out, err := run(t, "replay", file, "{driver: gy-mcu90614, warm_up: 0s}")
	if err != nil || !strings.Contains(out, "36.4") {
		t.Errorf("%v\n%s", err, out)
	}
}

func TestErrors(t *testing.T) {
	for _, c := range []struct {
		args []string
		want string
	}{
		{[]string{"watch", "{driver: rdm63000}"}, `did you mean "rdm6300"?`},
		{[]string{"watch", "{port: /x}"}, "names no driver"},
		{[]string{"watch", "{driver: relay, pin: GPIO1}"}, "nothing to watch"},
		{[]string{"watch", "--config", "/nonexistent.yaml"}, "cannot read the configuration"},
		{[]string{"test", "--wait", "50ms", "{driver: rdm6300, port: /nonexistent}"}, "nothing came in time"},
	} {
		if out, err := run(t, c.args...); err == nil || !strings.Contains(err.Error(), c.want) {
			t.Errorf("%v: %v\n%s", c.args, err, out)
		}
	}
}

func TestDrivers(t *testing.T) {
	out, err := run(t, "drivers")
	if err != nil || !strings.Contains(out, "wiegand (scanner)") || !strings.Contains(out, "d0: GPIO14") {
		t.Errorf("%v\n%s", err, out)
	}
}
