package catalog

import (
	"context"
	"errors"
	"io"
	"log/slog"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"go.uber.org/goleak"
	"periph.io/x/conn/v3/gpio"

	"gatehouse/device"
	"gatehouse/device/bus"
	"gatehouse/device/devicetest"
	"gatehouse/device/options"
	"gatehouse/device/sim"
)

func parse(t testing.TB, src string) options.Node {
	t.Helper()
	n, err := options.Parse("gate.yaml", []byte(src))
	if err != nil {
		t.Fatal(err)
	}
	return n
}

func env() Env {
	return Env{Bus: bus.New(), Log: slog.New(slog.NewTextHandler(io.Discard, nil))}
}

// A thermometer from its config lines to the temperature of somebody who steps
// up to an emulated module.
func TestThermometerEndToEnd(t *testing.T) {
	leaks := goleak.IgnoreCurrent()
	line, err := sim.NewSerial(filepath.Join(t.TempDir(), "thermometer"))
	if err != nil {
		t.Fatal(err)
	}
	scene := sim.NewThermal(22, 1)
	module := sim.NewGYMCU90614(line, scene, 1)
	ctx, stop := context.WithCancel(t.Context())
	ran := make(chan error)
	go func() { ran <- module.Run(ctx) }()

	th, err := Thermometer(env(), "thermometer of lane east-in", parse(t, "driver: gy-mcu90614\nport: "+line.Path()+"\nwarm_up: 0s"))
	if err != nil {
		t.Fatal(err)
	}
	measure := func(m device.Measurement) (device.Temperature, error) {
		ctx, cancel := context.WithTimeout(t.Context(), devicetest.Limit)
		defer cancel()
		return th.Measure(ctx, m)
	}
	scene.StepUp(36.6)
	if r, err := measure(device.Measurement{}); err != nil || r.Quality != device.QualityOK || r.Raw < 36.3 || r.Raw > 36.9 {
		t.Errorf("%+v, %v", r, err)
	}
	// Noise, half frames and wrong checksums cost time, not truth.
	module.SetFaults(sim.Faults{Noise: 0.3, Half: 0.2, Checksum: 0.2})
	scene.Leave()
	time.AfterFunc(3*time.Second, func() { scene.StepUp(38.4) })
	if r, err := measure(device.Measurement{}); err != nil || r.Quality != device.QualityOK || r.Raw < 38.1 || r.Raw > 38.7 {
		t.Errorf("%+v, %v", r, err)
	}
	module.SetFaults(sim.Faults{})
	if err := line.Unplug(); err != nil {
		t.Fatal(err)
	}
	if r, err := measure(device.Measurement{}); !errors.Is(err, device.ErrDisconnected) || r.Quality != device.QualityFault {
		t.Errorf("%+v, %v", r, err)
	}
	if err := line.Plug(); err != nil {
		t.Fatal(err)
	}
	for back := false; !back; { // reopening takes its time
		r, err := measure(device.Measurement{SamePerson: true})
		if back = err == nil; back && r.Quality != device.QualityOK {
			t.Errorf("%+v", r)
		}
	}
	if err := th.Close(); err != nil {
		t.Error(err)
	}
	stop()
	<-ran
	if err := line.Close(); err != nil {
		t.Error(err)
	}
	goleak.VerifyNone(t, leaks)
}

func TestErrorsStandAtTheirLine(t *testing.T) {
	pins := env()
	pins.Pins = sim.NewPins().Open
	thermometer := func(n options.Node) error { _, err := Thermometer(env(), "x", n); return err }
	barrier := func(n options.Node) error { _, err := Barrier(pins, "x", n); return err }
	indicator := func(n options.Node) error { _, err := Indicator(pins, "x", n); return err }
	contact := func(n options.Node) error { _, err := Contact(pins, "x", n); return err }
	for _, c := range []struct {
		name string
		open func(options.Node) error
		src  string
		want string
	}{
		{"thermometer's driver", thermometer, "driver: gy-mcu9061", `gate.yaml:1:9: driver: no thermometer's driver is called "gy-mcu9061", did you mean "gy-mcu90614"?`},
		{"thermometer's own key", thermometer, "driver: tn9\nport: /x\nprofil: skin", `gate.yaml:3:1: unknown key "profil"`},
		{"thermometer's value", thermometer, "driver: tn9\nport: /x\nwarm_up: 20", "gate.yaml:3:10: warm_up: want a duration"},
		{"thermometer without port", thermometer, "driver: tn9", "port: must be given"},
		{"an array is no thermometer", thermometer, "driver: amg8833", "gate.yaml:1:9: driver: amg8833 is a presence sensor's driver, not a thermometer's"},
		{"a thermometer is no presence sensor", thermometer, "driver: mlx90614\npresence: {driver: mlx90632}", "driver: mlx90632 is a thermometer's driver"},
		{"black body without presence", thermometer, "driver: mlx90614\nblack_body: 35", "black_body: needs presence:"},
		{"no such bus", thermometer, "driver: mlx90614\nbus: spi-0", `gate.yaml:2:6: bus: "spi-0" is not an I2C bus`},
		{"mlx90632's mode", thermometer, "driver: mlx90632\nmode: clinical", `mode: "clinical" is not medical or extended`},
		{"relay without pin", barrier, "driver: relay", "pin: must be given"},
		{"relay with two", barrier, "driver: relay\npin: GPIO17\nin: GPIO18", "gate.yaml:3:5: in: is not for this driver"},
		{"turnstile with one", barrier, "driver: turnstile\nin: GPIO17", "out: must be given"},
		{"relay's level", barrier, "driver: relay\npin: GPIO17\nactive: hi", `active: "hi" is not high or low`},
		{"relay's pulse", barrier, "driver: relay\npin: GPIO17\npulse: 5m", "pulse: 5m0s is not between"},
		{"relay's mode", barrier, "driver: relay\npin: GPIO17\nmode: toggle", `mode: "toggle" is not pulse or hold`},
		{"no lamp", indicator, "driver: lamps", "no lamp is given"},
		{"contact's pull", contact, "driver: gpio\npin: GPIO5\npull: sideways", `pull: "sideways" is not up, down or none`},
		{"contact's debounce", contact, "driver: gpio\npin: GPIO5\ndebounce: 2m", "debounce: 2m0s is not between"},
	} {
		t.Run(c.name, func(t *testing.T) {
			if err := c.open(parse(t, c.src)); err == nil || !strings.Contains(err.Error(), c.want) {
				t.Errorf("error %v, want %q", err, c.want)
			}
		})
	}
}

// Two users of one line are an error at the second, and a driver that cannot
// be had gives back what it had claimed.
func TestTwoUsersOfOneLine(t *testing.T) {
	e := env()
	first, err := Contact(e, "door contact", parse(t, "driver: gpio\npin: GPIO27"))
	if err != nil {
		t.Fatal(err)
	}
	_, err = Barrier(e, "barrier", parse(t, "driver: turnstile\nin: GPIO17\nout: GPIO27"))
	if err == nil || !strings.Contains(err.Error(), "gate.yaml:3:6: out: GPIO27 is used by door contact already") {
		t.Errorf("error %v", err)
	}
	if err := first.Close(); err != nil {
		t.Fatal(err)
	}
	b, err := Barrier(e, "barrier", parse(t, "driver: turnstile\nin: GPIO17\nout: GPIO27"))
	if err != nil {
		t.Fatalf("after the contact has closed: %v", err)
	}
	if err := b.Close(); err != nil {
		t.Error(err)
	}
}

func TestPinsInMemory(t *testing.T) {
	pins := sim.NewPins()
	e := env()
	e.Pins = pins.Open
	b, err := Barrier(e, "barrier", parse(t, "driver: relay\npin: GPIO17"))
	if err != nil {
		t.Fatal(err)
	}
	defer b.Close()
	if err := b.Admit(t.Context(), device.In); err != nil || pins.Pin("GPIO17").Level() != gpio.High {
		t.Errorf("%v, level %v", err, pins.Pin("GPIO17").Level())
	}
}

// A thermometer with an array beside it, both on one emulated bus.
func TestPresenceSensor(t *testing.T) {
	e := env()
	b, scene := sim.NewI2C(), sim.NewThermal(24, 1)
	b.Attach(0x5A, sim.NewMLX90614(0x5A, scene, 1))
	b.Attach(0x69, sim.NewAMG8833(scene))
	e.I2C = b.Open
	th, err := Thermometer(e, "thermometer", parse(t, "driver: mlx90614\nwarm_up: 0s\npresence:\n  driver: amg8833"))
	if err != nil {
		t.Fatal(err)
	}
	defer th.Close()
	measure := func(d time.Duration) device.Temperature {
		ctx, cancel := context.WithTimeout(t.Context(), d)
		defer cancel()
		r, err := th.Measure(ctx, device.Measurement{})
		if err != nil {
			t.Fatal(err)
		}
		return r
	}
	if r := measure(2 * time.Second); r.Quality != device.QualityNobody {
		t.Errorf("%+v", r)
	}
	scene.StepUp(36.5)
	if r := measure(devicetest.Limit); r.Quality != device.QualityOK {
		t.Errorf("%+v", r)
	}
}

func TestThermometerContract(t *testing.T) {
	devicetest.Thermometer(t, func(t *testing.T) *devicetest.ThermometerRig {
		line, err := sim.NewSerial(filepath.Join(t.TempDir(), "thermometer"))
		if err != nil {
			t.Fatal(err)
		}
		scene := sim.NewThermal(22, 1)
		module := sim.NewGYMCU90614(line, scene, 1)
		ctx, stop := context.WithCancel(t.Context())
		ran := make(chan error)
		go func() { ran <- module.Run(ctx) }()
		th, err := Thermometer(env(), "thermometer", parse(t, "driver: gy-mcu90614\nport: "+line.Path()+"\nwarm_up: 0s"))
		if err != nil {
			t.Fatal(err)
		}
		must := func(err error) {
			if err != nil {
				t.Helper()
				t.Error(err)
			}
		}
		return &devicetest.ThermometerRig{Thermometer: th, StepUp: scene.StepUp, Leave: scene.Leave,
			Unplug: func() { must(line.Unplug()) }, Plug: func() { must(line.Plug()) },
			Close: func() { stop(); <-ran; must(line.Close()) }}
	})
}
