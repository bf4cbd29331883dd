//go:build vgate

package vgatetest

import (
	"context"
	"errors"
	"fmt"
	"math"
	"testing"
	"time"

	"gatehouse/device"
	"gatehouse/device/catalog"
)

// sample reads until there is a sample or an error, with a limit.
func sample(t *testing.T, s device.Sensor) (device.Sample, error) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 20*time.Second)
	defer cancel()
	return s.Sample(ctx)
}

// The MLX90614's driver on the kernel's I2C: values, and every fault that the
// bus can have, reported as what it is and recovered from without a restart.
func TestI2CThermometer(t *testing.T) {
	put(t, i2cWires, "mlx 0x5a\n")
	put(t, i2cWires, "word 0x5a 0x07 0x3c7a\n")
	put(t, i2cWires, "word 0x5a 0x06 0x3a30\n")
	s, err := catalog.Sensor(env(), "thermometer", parse(t, "driver: mlx90614"))
	if err != nil {
		t.Fatal(err)
	}
	defer s.Close()
	good := func(object device.Celsius) {
		t.Helper()
		for end := time.Now().Add(20 * time.Second); ; {
			got, err := sample(t, s)
			if err == nil {
				if math.Abs(float64(got.Object-object)) > 1e-9 || math.Abs(float64(got.Ambient-24.77)) > 1e-9 {
					t.Errorf("%+v, want %v and 24.77", got, object)
				}
				return
			}
			if time.Now().After(end) {
				t.Fatal(err)
			}
		}
	}
	bad := func(kind error) {
		t.Helper()
		for end := time.Now().Add(20 * time.Second); time.Now().Before(end); {
			if _, err := sample(t, s); err != nil {
				if !errors.Is(err, kind) {
					t.Errorf("%v, want %v", err, kind)
				}
				return
			}
		}
		t.Errorf("no error, want %v", kind)
	}
	good(36.49)
	busy(t)
	for range 20 {
		good(36.49)
	}
	put(t, i2cWires, "badpec 0x5a 1\n")
	bad(device.ErrGarbled)
	good(36.49)
	put(t, i2cWires, "word 0x5a 0x07 0xbca3\n") // the chip flags an error
	bad(device.ErrOutOfRange)
	put(t, i2cWires, "word 0x5a 0x07 0x3ad2\n")
	good(28.01)
	put(t, i2cWires, "stuck 0x5a 1\n")
	bad(device.ErrDisconnected)
	good(28.01)
	put(t, i2cWires, "none 0x5a\n")
	bad(device.ErrDisconnected)
	if st := s.Health().State; st != device.StateDisconnected {
		t.Errorf("unplugged, but its health says %s", st)
	}
	put(t, i2cWires, "mlx 0x5a\n")
	put(t, i2cWires, "word 0x5a 0x07 0x3c7a\n")
	put(t, i2cWires, "word 0x5a 0x06 0x3a30\n")
	good(36.49)
	if h := s.Health(); h.State != device.StateOK || h.Reopens == 0 || h.Garbled == 0 {
		t.Errorf("health %+v", h)
	}
}

// A contact on the kernel's GPIO: the state at once, changes with the kernel's
// time, short pulses and bouncing told from changes, while the process is busy.
func TestContactBesideOutputs(t *testing.T) {
	const line = 5
	set := func(level int) { put(t, wires, fmt.Sprintf("set %d=%d", line, level)) }
	set(1)
	c, err := catalog.Contact(env(), "door", parse(t, fmt.Sprintf("driver: gpio\npin: GPIO%d\nactive: low\ndebounce: 20ms", line)))
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	change := func(active bool, count uint64) device.Change {
		t.Helper()
		ctx, cancel := context.WithTimeout(t.Context(), 10*time.Second)
		defer cancel()
		got, err := c.Watch(ctx)
		if err != nil || got.Active != active || got.Count != count {
			t.Fatalf("%+v, %v; want active %v, count %d", got, err, active, count)
		}
		return got
	}
	change(false, 0)
	busy(t)
	for i := range uint64(50) {
		before := time.Now()
		set(0)
		after := time.Now()
		if got := change(true, i+1); got.At.Before(before.Add(-time.Millisecond)) || got.At.After(after.Add(time.Millisecond)) {
			t.Errorf("the edge came between %v and %v, but is dated %v", before, after, got.At)
		}
		set(1)
		change(false, i+1)
	}
	// Bouncing for 24 ms, played by the kernel's timer: a pause of this busy
	// process could be as long as the debounce time.
	train := fmt.Sprintf("train 1000000 %d=0", line)
	for range 6 {
		train += fmt.Sprintf(" 2000000 %d=1 2000000 %d=0", line, line)
	}
	put(t, wires, train+"\n")
	change(true, 51)
	ctx, cancel := context.WithTimeout(t.Context(), time.Second)
	defer cancel()
	if got, err := c.Watch(ctx); !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("%+v, %v; the contact is still", got, err)
	}
}
