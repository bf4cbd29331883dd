package devicetest

import (
	"context"
	"errors"
	"math"
	"testing"
	"time"

	"gatehouse/device"
)

// SensorRig is a sensor and the far side of its wire, which measures all the
// time.
type SensorRig struct {
	// Sensor is new: nothing was read from it yet.
	Sensor device.Sensor
	// See puts a temperature before the sensor, without noise.
	See func(object, ambient device.Celsius)
	// Within is how exact its samples must be.
	Within device.Celsius
	// Garble makes everything that follows unusable, or all well again.
	Garble func(bool)
	// Silence makes the far side say nothing, or all well again. Nil where it
	// cannot.
	Silence func(bool)
	// Unplug and Plug take the far side away and bring it back.
	Unplug, Plug func()
	// Close takes the far side down at the end.
	Close func()
}

// Sensor runs the contract suite. newRig makes a fresh rig for each part.
func Sensor(t *testing.T, newRig func(t *testing.T) *SensorRig) {
	t.Helper()
	part := parts(t, newRig, func(t *testing.T, rig *SensorRig) {
		closes(t, rig.Sensor)
		if rig.Close != nil {
			rig.Close()
		}
	})
	part("samples", func(t *testing.T, rig *SensorRig) {
		var last time.Time
		for _, want := range []device.Celsius{22.5, 36.4, 38.2} {
			rig.See(want, 24)
			s := seen(t, rig, want)
			if !s.HasAmbient || math.Abs(float64(s.Ambient-24)) > float64(rig.Within) {
				t.Errorf("ambient %+v, want 24", s)
			}
			if !s.At.After(last) || time.Since(s.At) > Limit {
				t.Errorf("a sample of %v after one of %v", s.At, last)
			}
			last = s.At
		}
		h := rig.Sensor.Health()
		if h.State != device.StateOK || h.Reads < 3 || h.LastRead.IsZero() || h.Name == "" || h.Driver == "" || h.Where == "" {
			t.Errorf("health %+v", h)
		}
	})
	part("cancel", func(t *testing.T, rig *SensorRig) {
		rig.See(36.4, 24)
		seen(t, rig, 36.4)
		ends(t, func(ctx context.Context) (device.Sample, error) {
			for {
				if s, err := rig.Sensor.Sample(ctx); err != nil {
					return s, err
				}
			}
		})
		seen(t, rig, 36.4) // and nothing is broken by it
	})
	part("close", func(t *testing.T, rig *SensorRig) {
		rig.See(36.4, 24)
		seen(t, rig, 36.4)
		out := ask(t.Context(), func(ctx context.Context) (device.Sample, error) {
			for {
				if s, err := rig.Sensor.Sample(ctx); err != nil {
					return s, err
				}
			}
		})
		if err := rig.Sensor.Close(); err != nil {
			t.Errorf("Close: %v", err)
		}
		if _, err := answered(t, out); !errors.Is(err, device.ErrClosed) {
			t.Errorf("a sample, closed: %v", err)
		}
		if _, err := got(t, rig.Sensor.Sample); !errors.Is(err, device.ErrClosed) {
			t.Errorf("a sample after Close: %v", err)
		}
	})
	part("close before use", func(t *testing.T, rig *SensorRig) {
		if s := rig.Sensor.Health().State; s != device.StateStarting {
			t.Errorf("not used yet, but its health says %s", s)
		}
	})
	part("garbled", func(t *testing.T, rig *SensorRig) {
		rig.See(36.4, 24)
		seen(t, rig, 36.4)
		rig.Garble(true)
		wantKind(t, faulty(t, rig), device.ErrGarbled)
		rig.Garble(false)
		seen(t, rig, 36.4)
		if h := rig.Sensor.Health(); h.Garbled == 0 || h.LastError == "" {
			t.Errorf("garbled samples are not in the health: %+v", h)
		}
	})
	part("silence", func(t *testing.T, rig *SensorRig) {
		if rig.Silence == nil {
			return // the rig says that its far side cannot be silent
		}
		rig.See(36.4, 24)
		seen(t, rig, 36.4)
		rig.Silence(true)
		wantKind(t, faulty(t, rig), device.ErrDisconnected)
		if s := rig.Sensor.Health().State; s != device.StateDisconnected {
			t.Errorf("silent, but its health says %s", s)
		}
		rig.Silence(false)
		seen(t, rig, 36.4)
	})
	part("unplug", func(t *testing.T, rig *SensorRig) {
		rig.See(36.4, 24)
		seen(t, rig, 36.4)
		rig.Unplug()
		wantKind(t, faulty(t, rig), device.ErrDisconnected)
		if s := rig.Sensor.Health().State; s != device.StateDisconnected {
			t.Errorf("unplugged, but its health says %s", s)
		}
		rig.Plug()
		seen(t, rig, 36.4)
		if h := rig.Sensor.Health(); h.State != device.StateOK || h.Reopens == 0 {
			t.Errorf("plugged in again, but its health is %+v", h)
		}
	})
	part("absent at start", func(t *testing.T, rig *SensorRig) {
		rig.Unplug()
		wantKind(t, faulty(t, rig), device.ErrAbsent)
		if s := rig.Sensor.Health().State; s != device.StateAbsent {
			t.Errorf("absent, but its health says %s", s)
		}
		ctx, cancel := context.WithTimeout(t.Context(), 300*time.Millisecond)
		defer cancel()
		if _, err := rig.Sensor.Sample(ctx); !errors.Is(err, context.DeadlineExceeded) {
			t.Errorf("absence is reported twice: %v", err)
		}
		rig.See(36.4, 24)
		rig.Plug()
		seen(t, rig, 36.4)
	})
}

// seen reads until a sample is what is before the sensor; passing faults, and
// samples that were on their way, may come before.
func seen(t *testing.T, rig *SensorRig, want device.Celsius) device.Sample {
	t.Helper()
	for end := time.Now().Add(Limit); time.Now().Before(end); {
		s, err := got(t, rig.Sensor.Sample)
		if err != nil {
			if errors.Is(err, device.ErrClosed) {
				t.Fatal(err)
			}
			continue
		}
		if math.Abs(float64(s.Object-want)) <= float64(rig.Within) {
			return s
		}
	}
	t.Fatalf("%v is never seen", want)
	return device.Sample{}
}

// faulty reads until there is an error.
func faulty(t *testing.T, rig *SensorRig) error {
	t.Helper()
	for end := time.Now().Add(Limit); time.Now().Before(end); {
		if _, err := got(t, rig.Sensor.Sample); err != nil {
			return err
		}
	}
	t.Fatal("no error comes")
	return nil
}
