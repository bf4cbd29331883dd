package mlx90632

import (
	"encoding/binary"
	"errors"
	"math"
	"testing"

	"gatehouse/device"
	"gatehouse/device/devicetest"
	"gatehouse/device/options"
	"gatehouse/device/sim"
)

// The chip of Melexis's published tests (mlx90632-library, TestDSP).
func published() Calibration {
	return Calibration{PR: 0x00587F5B, PG: 0x04A10289, PT: -0x69908, PO: 0x1E0F, Ea: 4859535, Eb: 5686508,
		Fa: 53855361, Fb: 42874149, Ga: -14556410, Gb: 9728, Ka: 10752, Ha: 16384, Hb: 0}
}

func near(a, b device.Celsius, within float64) bool { return math.Abs(float64(a-b)) <= within }

func TestPublishedVectors(t *testing.T) {
	c := published()
	a := Ambient{22454, 23030}
	for _, v := range []struct {
		a    Ambient
		want device.Celsius
	}{{a, 48.724}, {Ambient{100, 150}, -18.734}, {Ambient{32767, 32766}, 53.350}} {
		if got := c.AmbientCelsius(v.a); !near(got, v.want, 0.01) {
			t.Errorf("ambient of %+v is %.4f, want %.3f", v.a, got, v.want)
		}
	}
	for _, v := range []struct {
		object int16
		want   device.Celsius
	}{{610, 55.507}, {150, 51.123}, {-150, 48.171}, {-148, 48.192}, {32767, 212.844}, {-5000, -16.653}, {26900, 193.917}, {27100, 194.599}} {
		if got := c.ObjectCelsius(v.object, a, 1, c.ChipCelsius(a)); !near(got, v.want, 0.01) {
			t.Errorf("object of %d is %.4f, want %.3f", v.object, got, v.want)
		}
	}
	for _, v := range []struct {
		object     int16
		emissivity float64
		reflected  device.Celsius
		want       device.Celsius
	}{
		{305, 1, 25, 55.507}, {75, 1, 25, 51.123}, {-75, 1, 25, 48.171}, {32767, 1, 25, 292.381}, {-2500, 1, 25, -16.653},
		{13550, 1, 25, 194.599}, {26900, 1, 25, 267.609}, {27100, 1, 25, 268.508}, {305, 0.1, 49.66, 98.141}, {305, 0.1, 40, 143.956},
	} {
		if got := c.ExtendedCelsius(v.object, a, v.emissivity, v.reflected); !near(got, v.want, 0.02) {
			t.Errorf("extended object of %+v is %.4f", v, got)
		}
	}
	for _, v := range []struct {
		reflected, want device.Celsius
	}{{49.66, 98.141}, {40, 143.956}} {
		if got := c.ObjectCelsius(610, a, 0.1, v.reflected); !near(got, v.want, 0.01) {
			t.Errorf("object with %v reflected is %.4f, want %v", v.reflected, got, v.want)
		}
	}
	c.Hb = 10240
	for _, v := range []struct {
		object int16
		want   device.Celsius
	}{{610, 45.495}, {150, 41.121}, {-150, 38.174}, {32767, 202.628}, {-5000, -26.457}} {
		if got := c.ObjectCelsius(v.object, a, 1, c.ChipCelsius(a)); !near(got, v.want, 0.01) {
			t.Errorf("with Hb 10240 object of %d is %.4f, want %.3f", v.object, got, v.want)
		}
	}
}

// From the RAM's words, as a medical and as an extended cycle leaves them.
func TestSampleOfRAM(t *testing.T) {
	c := published()
	for _, v := range []struct {
		name     string
		ram      [9]int16
		extended bool
		want     device.Celsius
	}{
		{"medical", [9]int16{608, 610, 22454, 610, 612, 23030}, false, 55.507},
		{"extended", [9]int16{100, 50, 22454, 20, 10, 23030, 150, 135}, true, 55.507},
	} {
		s, err := c.sample(v.ram, v.extended, 1)
		if err != nil || !near(s.Object, v.want, 0.02) || !near(s.Ambient, 48.724, 0.01) {
			t.Errorf("%s: %+v, %v", v.name, s, err)
		}
	}
	for _, v := range []struct {
		ram  [9]int16
		want error
	}{
		{[9]int16{}, device.ErrOutOfRange},
		{[9]int16{-1, -1, -1, -1, -1, -1, -1, -1, -1}, device.ErrGarbled},
		{[9]int16{-30000, -30000, 22454, -30000, -30000, 23030, -30000, -30000}, device.ErrOutOfRange},
	} {
		for _, extended := range []bool{false, true} {
			if s, err := c.sample(v.ram, extended, 1); !errors.Is(err, v.want) {
				t.Errorf("%v: %+v, %v; want %v", v.ram, s, err, v.want)
			}
		}
	}
}

func load(t testing.TB, src string) Config {
	t.Helper()
	n, err := options.Parse("gate.yaml", []byte(src))
	if err != nil {
		t.Fatal(err)
	}
	c, err := Load(n)
	if err != nil {
		t.Fatal(err)
	}
	return c
}

func TestContract(t *testing.T) {
	for _, mode := range []string{"medical", "extended"} {
		t.Run(mode, func(t *testing.T) {
			devicetest.Sensor(t, func(t *testing.T) *devicetest.SensorRig {
				b, scene := sim.NewI2C(), sim.NewThermal(22, 1)
				scene.SetNoise(0)
				chip := sim.NewMLX90632(scene)
				b.Attach(0x3A, chip)
				tx, err := b.Open("thermometer", "i2c-1", 0x3A)
				if err != nil {
					t.Fatal(err)
				}
				return &devicetest.SensorRig{Sensor: New("thermometer", load(t, "mode: "+mode), tx), Within: 0.05,
					See:     func(o, a device.Celsius) { scene.SetRoom(a - 1); scene.StepUp(o) },
					Garble:  func(on bool) { chip.SetFaults(sim.I2CFaults{Ones: on}) },
					Silence: func(on bool) { chip.SetFaults(sim.I2CFaults{Halted: on}) },
					Unplug:  func() { b.Detach(0x3A) }, Plug: func() { b.Attach(0x3A, chip) }}
			})
			if t.Failed() {
				t.Log("mode " + mode)
			}
		})
	}
}

// Calibration that was read wrongly is never used.
func TestWrongCalibration(t *testing.T) {
	b, scene := sim.NewI2C(), sim.NewThermal(22, 1)
	chip := sim.NewMLX90632(scene)
	chip.SetFaults(sim.I2CFaults{FlipEvery: 7})
	b.Attach(0x3A, chip)
	tx, err := b.Open("thermometer", "i2c-1", 0x3A)
	if err != nil {
		t.Fatal(err)
	}
	s := New("thermometer", load(t, ""), tx)
	defer s.Close()
	if smp, err := s.Sample(t.Context()); !errors.Is(err, device.ErrGarbled) {
		t.Errorf("%+v, %v", smp, err)
	}
}

func FuzzSample(f *testing.F) {
	f.Add([]byte("0123456789abcdefgh"), true)
	f.Fuzz(func(t *testing.T, b []byte, extended bool) {
		var ram [9]int16
		for i := range ram {
			if len(b) >= 2*i+2 {
				ram[i] = int16(binary.BigEndian.Uint16(b[2*i:]))
			}
		}
		c := published()
		if s, err := c.sample(ram, extended, 1); err == nil && (math.IsNaN(float64(s.Object)) || s.Object < objectMin || s.Object > objectMax || s.Ambient > ambientMax) {
			t.Errorf("%+v", s)
		}
	})
}

func BenchmarkSample(b *testing.B) {
	c := published()
	b.ReportAllocs()
	for b.Loop() {
		if _, err := c.sample([9]int16{608, 610, 22454, 610, 612, 23030}, false, 1); err != nil {
			b.Fatal(err)
		}
	}
}
