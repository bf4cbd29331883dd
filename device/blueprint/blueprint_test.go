package blueprint

import (
	"context"
	"errors"
	"path/filepath"
	"testing"

	"go.uber.org/goleak"

	"gatehouse/device"
	"gatehouse/device/bus"
	"gatehouse/device/devicetest"
	"gatehouse/device/options"
	"gatehouse/device/sim"
)

func TestDecoder(t *testing.T) {
	for _, c := range []struct {
		name            string
		in              []byte
		object, ambient device.Celsius
		err             bool
	}{
		{"warm", []byte{0xA5, 0x0E, 0x42, 0x15, 0x65}, 36.50, 21, false},
		{"cold", []byte{0xA5, 0xFF, 0x9C, 0xF6, 0x91}, -1.00, -10, false},
		{"after noise", []byte{0, 1, 0xA5, 0x0E, 0x42, 0x15, 0x65}, 36.50, 21, false},
		{"wrong sum", []byte{0xA5, 0x0E, 0x42, 0x15, 0x66}, 0, 0, true},
	} {
		t.Run(c.name, func(t *testing.T) {
			var d Decoder
			for i, b := range c.in {
				v, done, err := d.Byte(b)
				if last := i == len(c.in)-1; done != (last && !c.err) || (err != nil) != (last && c.err) {
					t.Fatalf("byte %d: %t, %v", i, done, err)
				}
				if done && (v.Object != c.object || v.Ambient != c.ambient || !v.HasAmbient) {
					t.Errorf("%+v", v)
				}
			}
		})
	}
}

func FuzzDecoder(f *testing.F) {
	f.Add([]byte{0xA5, 0x0E, 0x42, 0x15, 0x65})
	f.Fuzz(func(t *testing.T, src []byte) {
		var d Decoder
		for i, b := range src {
			if _, done, _ := d.Byte(b); done && (i < 4 || src[i-4] != head) {
				t.Fatal("a sample that was not on the wire")
			}
		}
	})
}

func TestSensor(t *testing.T) {
	defer goleak.VerifyNone(t)
	line, err := sim.NewSerial(filepath.Join(t.TempDir(), "port"))
	if err != nil {
		t.Fatal(err)
	}
	defer line.Close()
	n, err := options.Parse("gate.yaml", []byte("port: "+line.Path()))
	if err != nil {
		t.Fatal(err)
	}
	s, err := New(bus.New(), "thermometer", n)
	if err != nil {
		t.Fatal(err)
	}
	defer s.Close()
	good := []byte{0xA5, 0x0E, 0x42, 0x15, 0x65}
	next := func() (device.Sample, error) {
		ctx, cancel := context.WithTimeout(t.Context(), devicetest.Limit)
		defer cancel()
		return s.Sample(ctx)
	}
	send := func(b []byte) {
		if _, err := line.Write(b); err != nil {
			t.Fatal(err)
		}
	}
	send(good)
	if v, err := next(); err != nil || v.Object != 36.5 {
		t.Fatalf("%+v, %v", v, err)
	}
	send([]byte{0xA5, 1, 2, 3, 4})
	if _, err := next(); !errors.Is(err, device.ErrGarbled) {
		t.Fatalf("wrong sum: %v", err)
	}
	if err := line.Unplug(); err != nil {
		t.Fatal(err)
	}
	if _, err := next(); !errors.Is(err, device.ErrDisconnected) {
		t.Fatalf("unplugged: %v", err)
	}
	if err := line.Plug(); err != nil {
		t.Fatal(err)
	}
	send(good)
	if v, err := next(); err != nil || v.Object != 36.5 {
		t.Fatalf("plugged in again: %+v, %v", v, err)
	}
	if h := s.Health(); h.State != device.StateOK || h.Reads != 2 || h.Garbled != 1 || h.Reopens != 1 {
		t.Errorf("health %+v", h)
	}
}
