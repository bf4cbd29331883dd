package mlx90614

import (
	"errors"
	"math"
	"math/bits"
	"testing"

	"periph.io/x/conn/v3/i2c/i2ctest"

	"gatehouse/device"
	"gatehouse/device/devicetest"
	"gatehouse/device/options"
	"gatehouse/device/sim"
)

// Frames as they go over the wire: address+W, command, address+R, low, high, PEC.
func TestVectors(t *testing.T) {
	for _, c := range []struct {
		frame [6]byte
		want  device.Celsius
		err   error
	}{
		{[6]byte{0xB4, 0x07, 0xB5, 0xD2, 0x3A, 0x30}, 28.01, nil},
		{[6]byte{0xB4, 0x07, 0xB5, 0x7A, 0x3C, 0x92}, 36.49, nil},
		{[6]byte{0xB4, 0x07, 0xB5, 0xA3, 0xBC, 0x1C}, 0, device.ErrOutOfRange},
		{[6]byte{0xB4, 0x07, 0xB5, 0xAD, 0x27, 0}, -70.01, nil},
		{[6]byte{0xB4, 0x07, 0xB5, 0xFF, 0x7F, 0}, 382.19, nil},
		{[6]byte{0xB4, 0x07, 0xB5, 0xAC, 0x27, 0}, 0, device.ErrOutOfRange},
		{[6]byte{0xB4, 0x07, 0xB5, 0x00, 0x00, 0}, 0, device.ErrOutOfRange},
		{[6]byte{0xB4, 0x07, 0xB5, 0xFF, 0xFF, 0xFF}, 0, device.ErrGarbled},
		{[6]byte{0xB4, 0x07, 0xB5, 0xFF, 0xFF, 0}, 0, device.ErrGarbled}, // even with the right PEC
		{[6]byte{0xB4, 0x06, 0xB5, 0xFF, 0x7F, 0}, 0, device.ErrOutOfRange},
		{[6]byte{0xB4, 0x06, 0xB5, 0x30, 0x3A, 0}, 24.77, nil},
		{[6]byte{0xB4, 0x07, 0xB5, 0xD2, 0x3A, 0x31}, 0, device.ErrGarbled},
	} {
		r := [3]byte(c.frame[3:])
		if r[2] == 0 { // no published PEC
			r[2] = PEC(0x5A, c.frame[1], r[0], r[1])
		}
		got, err := Decode(0x5A, c.frame[1], r, true)
		if !errors.Is(err, c.err) || math.Abs(float64(got-c.want)) > 1e-9 {
			t.Errorf("% X: %v, %v; want %v, %v", c.frame, got, err, c.want, c.err)
		}
	}
	if _, err := Decode(0x5A, cmdObject, [3]byte{0xD2, 0x3A, 0x31}, false); err != nil {
		t.Errorf("with pec: false: %v", err)
	}
}

// Every word to the hundredth of a degree.
func TestEveryWord(t *testing.T) {
	for v := range 0x10000 {
		r := [3]byte{byte(v), byte(v >> 8)}
		r[2] = PEC(0x5A, cmdObject, r[0], r[1])
		got, err := Decode(0x5A, cmdObject, r, true)
		good := v >= 0x27AD && v <= 0x7FFF
		if good != (err == nil) {
			t.Fatalf("%#04x: %v", v, err)
		}
		if want := math.Round((float64(v)*0.02-273.15)*100) / 100; good && float64(got) != want {
			t.Fatalf("%#04x is %v, want %v", v, got, want)
		}
	}
}

// The PEC finds every error of one, two or three bits, and every burst of eight.
func TestPECFindsBitErrors(t *testing.T) {
	good := [3]byte{0x7A, 0x3C, 0x92}
	as := func(r [3]byte) uint32 { return uint32(r[0])<<16 | uint32(r[1])<<8 | uint32(r[2]) }
	for flip := uint32(1); flip < 1<<24; flip++ {
		burst := 32 - bits.LeadingZeros32(flip) - bits.TrailingZeros32(flip)
		if bits.OnesCount32(flip) > 3 && burst > 8 {
			continue
		}
		v := as(good) ^ flip
		if _, err := Decode(0x5A, cmdObject, [3]byte{byte(v >> 16), byte(v >> 8), byte(v)}, true); !errors.Is(err, device.ErrGarbled) {
			t.Fatalf("flipped %06x: %v", flip, err)
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

// The transactions, to the byte, on periph's test bus.
func TestTransactions(t *testing.T) {
	pb := &i2ctest.Playback{DontPanic: true, Ops: []i2ctest.IO{
		{Addr: 0x5A, W: []byte{0x06}, R: []byte{0x30, 0x3A, PEC(0x5A, 6, 0x30, 0x3A)}}, // waking
		{Addr: 0x5A, W: []byte{0x06}, R: []byte{0x30, 0x3A, PEC(0x5A, 6, 0x30, 0x3A)}},
		{Addr: 0x5A, W: []byte{0x07}, R: []byte{0xD2, 0x3A, 0x30}},
	}}
	s := New("thermometer", load(t, ""), sim.OnI2C(pb, "thermometer", 0x5A))
	got, err := s.Sample(t.Context())
	if err != nil || got.Object != 28.01 || got.Ambient != 24.77 || !got.HasAmbient {
		t.Errorf("%+v, %v", got, err)
	}
	if err := s.Close(); err != nil {
		t.Error(err)
	}
	if err := pb.Close(); err != nil {
		t.Error(err)
	}
}

func TestContract(t *testing.T) {
	devicetest.Sensor(t, func(t *testing.T) *devicetest.SensorRig {
		b, scene := sim.NewI2C(), sim.NewThermal(22, 1)
		scene.SetNoise(0)
		chip := sim.NewMLX90614(0x5A, scene, 1)
		b.Attach(0x5A, chip)
		tx, err := b.Open("thermometer", "i2c-1", 0x5A)
		if err != nil {
			t.Fatal(err)
		}
		return &devicetest.SensorRig{Sensor: New("thermometer", load(t, ""), tx), Within: 0.011,
			See:    func(o, a device.Celsius) { scene.SetRoom(a - 1); scene.StepUp(o) },
			Garble: func(on bool) { chip.SetFaults(sim.I2CFaults{PEC: on}) },
			Unplug: func() { b.Detach(0x5A) }, Plug: func() { b.Attach(0x5A, chip) }}
	})
}

// What else goes wrong on a bus, each reported as what it is and recovered from.
func TestFaults(t *testing.T) {
	for _, c := range []struct {
		name   string
		faults sim.I2CFaults
		want   error
	}{
		{"stuck bus", sim.I2CFaults{Stuck: true}, device.ErrDisconnected},
		{"all ones", sim.I2CFaults{Ones: true}, device.ErrGarbled},
		{"error flag", sim.I2CFaults{Flag: true}, device.ErrOutOfRange},
	} {
		t.Run(c.name, func(t *testing.T) {
			b, scene := sim.NewI2C(), sim.NewThermal(22, 1)
			chip := sim.NewMLX90614(0x5A, scene, 1)
			b.Attach(0x5A, chip)
			tx, err := b.Open("thermometer", "i2c-1", 0x5A)
			if err != nil {
				t.Fatal(err)
			}
			s := New("thermometer", load(t, "interval: 20ms"), tx)
			defer s.Close()
			if _, err := s.Sample(t.Context()); err != nil {
				t.Fatal(err)
			}
			chip.SetFaults(c.faults)
			var got error
			for got == nil {
				_, got = s.Sample(t.Context())
			}
			if !errors.Is(got, c.want) {
				t.Errorf("%v, want %v", got, c.want)
			}
			chip.SetFaults(sim.I2CFaults{})
			for {
				if _, err := s.Sample(t.Context()); err == nil {
					break
				}
			}
			if st := s.Health().State; st != device.StateOK {
				t.Errorf("state %s", st)
			}
		})
	}
}

func FuzzDecode(f *testing.F) {
	f.Add(byte(7), byte(0xD2), byte(0x3A), byte(0x30), true)
	f.Fuzz(func(t *testing.T, cmd, lo, hi, pec byte, check bool) {
		v, err := Decode(0x5A, cmd, [3]byte{lo, hi, pec}, check)
		if err == nil && (v < -70.02 || v > 382.2 || check && PEC(0x5A, cmd, lo, hi) != pec) {
			t.Errorf("%v", v)
		}
	})
}

func BenchmarkDecode(b *testing.B) {
	b.ReportAllocs()
	for b.Loop() {
		if _, err := Decode(0x5A, cmdObject, [3]byte{0xD2, 0x3A, 0x30}, true); err != nil {
			b.Fatal(err)
		}
	}
}
