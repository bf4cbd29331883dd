package amg8833

import (
	"errors"
	"testing"

	"gatehouse/device"
	"gatehouse/device/devicetest"
	"gatehouse/device/options"
	"gatehouse/device/sim"
)

func TestVectors(t *testing.T) {
	for v, want := range map[uint16]device.Celsius{0x000: 0, 0x001: 0.25, 0x064: 25, 0x1F4: 125, 0xFFF: -0.25, 0xFC8: -14, 0xF24: -55, 0x093: 36.75} {
		if got := Pixel(v); got != want {
			t.Errorf("pixel %#03x is %v, want %v", v, got, want)
		}
	}
	for v, want := range map[uint16]device.Celsius{0x000: 0, 0x001: 0.0625, 0x190: 25, 0x7D0: 125, 0x7FF: 127.9375, 0x801: -0.0625, 0xBBB: -59.6875} {
		if got := Thermistor(v); got != want {
			t.Errorf("thermistor %#03x is %v, want %v", v, got, want)
		}
	}
}

func pixels(all uint16, some ...uint16) []byte {
	var out []byte
	for i := range Side * Side {
		v := all
		if i < len(some) {
			v = some[i]
		}
		out = append(out, byte(v), byte(v>>8))
	}
	return out
}

func TestDecode(t *testing.T) {
	s, err := Decode([2]byte{0x90, 0x01}, pixels(0x058, 0x0A0, 0x091, 0x090, 0x08C))
	if err != nil || s.Object != 36 || s.Ambient != 25 || len(s.Image) != 64 || s.Width != 8 || s.Image[0] != 40 || s.Image[63] != 22 {
		t.Errorf("%+v, %v", s, err)
	}
	for _, c := range []struct {
		th   [2]byte
		px   []byte
		want error
	}{
		{[2]byte{0xFF, 0xFF}, pixels(0xFFFF), device.ErrGarbled},
		{[2]byte{0x90, 0x01}, pixels(0x058, 0xFFFF), device.ErrGarbled},
		{[2]byte{0x90, 0x01}, pixels(0x1058), device.ErrGarbled},
		{[2]byte{0x90, 0x01}, pixels(0x058)[1:], device.ErrGarbled},
		{[2]byte{0x90, 0x01}, pixels(0x7FF), device.ErrOutOfRange},
		{[2]byte{0xFF, 0x0F}, pixels(0x058), device.ErrOutOfRange},
	} {
		if s, err := Decode(c.th, c.px); !errors.Is(err, c.want) {
			t.Errorf("%+v, %v; want %v", s, err, c.want)
		}
	}
}

func TestContract(t *testing.T) {
	devicetest.Sensor(t, func(t *testing.T) *devicetest.SensorRig {
		b, scene := sim.NewI2C(), sim.NewThermal(22, 1)
		scene.SetNoise(0)
		chip := sim.NewAMG8833(scene)
		b.Attach(0x69, chip)
		tx, err := b.Open("presence", "i2c-1", 0x69)
		if err != nil {
			t.Fatal(err)
		}
		n, err := options.Parse("gate.yaml", nil)
		if err != nil {
			t.Fatal(err)
		}
		c, err := Load(n)
		if err != nil {
			t.Fatal(err)
		}
		return &devicetest.SensorRig{Sensor: New("presence", c, tx), Within: 0.13,
			See:    func(o, a device.Celsius) { scene.SetRoom(a - 1); scene.StepUp(o) },
			Garble: func(on bool) { chip.SetFaults(sim.I2CFaults{Ones: on}) },
			Unplug: func() { b.Detach(0x69) }, Plug: func() { b.Attach(0x69, chip) }}
	})
}

func FuzzDecode(f *testing.F) {
	f.Add([]byte{0x90, 0x01}, pixels(0x058))
	f.Fuzz(func(t *testing.T, th, px []byte) {
		if len(th) < 2 {
			return
		}
		if s, err := Decode([2]byte(th), px); err == nil && (s.Object < -40 || s.Object > 200 || len(s.Image) != 64) {
			t.Errorf("%+v", s)
		}
	})
}
