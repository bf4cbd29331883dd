package serialtemp_test

import (
	"context"
	"path/filepath"
	"testing"

	"gatehouse/device"
	"gatehouse/device/bus"
	"gatehouse/device/devicetest"
	"gatehouse/device/options"
	"gatehouse/device/serialtemp"
	"gatehouse/device/sim"
)

type rig struct {
	line   *sim.Serial
	scene  *sim.Thermal
	module *sim.SerialThermometer
	sensor *serialtemp.Sensor
	end    func()
}

func newRig(t *testing.T, p serialtemp.Protocol) *rig {
	t.Helper()
	line, err := sim.NewSerial(filepath.Join(t.TempDir(), "thermometer"))
	if err != nil {
		t.Fatal(err)
	}
	r := &rig{line: line, scene: sim.NewThermal(22, 1)}
	if r.module, err = sim.NewSerialThermometer(string(p), line, r.scene, 1); err != nil {
		t.Fatal(err)
	}
	ctx, stop := context.WithCancel(t.Context())
	ran := make(chan error)
	go func() { ran <- r.module.Run(ctx) }()
	n, err := options.Parse("gate.yaml", []byte("port: "+line.Path()))
	if err != nil {
		t.Fatal(err)
	}
	if r.sensor, err = serialtemp.New(bus.New(), "thermometer", p, n, nil); err != nil {
		t.Fatal(err)
	}
	r.end = func() {
		stop()
		<-ran
		r.must(t)(line.Close())
	}
	return r
}

func (r *rig) must(t *testing.T) func(error) {
	return func(err error) {
		if err != nil {
			t.Helper()
			t.Error(err)
		}
	}
}

func TestContract(t *testing.T) {
	for _, p := range []serialtemp.Protocol{serialtemp.GYMCU90614, serialtemp.CJMCU90614, serialtemp.GY614V, serialtemp.TN9} {
		t.Run(string(p), func(t *testing.T) {
			devicetest.Sensor(t, func(t *testing.T) *devicetest.SensorRig {
				r := newRig(t, p)
				r.scene.SetNoise(0)
				return &devicetest.SensorRig{Sensor: r.sensor, Within: 0.05,
					See: func(object, ambient device.Celsius) {
						r.scene.SetRoom(ambient - 1) // the sensor is a degree warmer
						r.scene.StepUp(object)
					},
					Garble:  func(on bool) { r.module.SetFaults(sim.Faults{Checksum: level(on)}) },
					Silence: func(on bool) { r.module.SetFaults(sim.Faults{Silent: on}) },
					Unplug:  func() { r.must(t)(r.line.Unplug()) },
					Plug:    func() { r.must(t)(r.line.Plug()) },
					Close:   r.end}
			})
		})
	}
}

func level(on bool) float64 {
	if on {
		return 1
	}
	return 0
}

// A module that was set to answer questions only is told to send.
func TestModuleThatIsAsleep(t *testing.T) {
	for _, p := range []serialtemp.Protocol{serialtemp.GYMCU90614, serialtemp.CJMCU90614} {
		t.Run(string(p), func(t *testing.T) {
			r := newRig(t, p)
			defer r.end()
			r.module.Sleep()
			r.scene.StepUp(36.4)
			s, err := r.sensor.Sample(t.Context())
			if err != nil || s.Object < 36 {
				t.Errorf("%+v, %v", s, err)
			}
			if err := r.sensor.Close(); err != nil {
				t.Error(err)
			}
		})
	}
}
