package devicetest

import (
	"context"
	"errors"
	"math"
	"testing"
	"time"

	"gatehouse/device"
)

// ThermometerRig is a thermometer and the place before it, at 22 degC.
type ThermometerRig struct {
	Thermometer device.Thermometer
	// StepUp puts a forehead before it, Leave takes it away. The change is
	// complete within half a second.
	StepUp func(skin device.Celsius)
	Leave  func()
	// Unplug and Plug take the sensor away and bring it back.
	Unplug, Plug func()
	Close        func()
}

// Thermometer runs the contract suite. newRig makes a fresh rig for each part.
func Thermometer(t *testing.T, newRig func(t *testing.T) *ThermometerRig) {
	t.Helper()
	part := parts(t, newRig, func(t *testing.T, rig *ThermometerRig) {
		closes(t, rig.Thermometer)
		if rig.Close != nil {
			rig.Close()
		}
	})
	measure := func(t *testing.T, rig *ThermometerRig, d time.Duration, same bool) (device.Temperature, error) {
		t.Helper()
		return got(t, func(ctx context.Context) (device.Temperature, error) {
			ctx, cancel := context.WithTimeout(ctx, d)
			defer cancel()
			return rig.Thermometer.Measure(ctx, device.Measurement{SamePerson: same})
		})
	}
	person := func(t *testing.T, rig *ThermometerRig, want device.Celsius, same bool) {
		t.Helper()
		r, err := measure(t, rig, Limit/2, same)
		if err != nil || r.Quality != device.QualityOK || math.Abs(float64(r.Raw-want)) > 0.3 || r.Samples < 5 || r.Profile == "" || r.Uncertainty <= 0 || r.At.IsZero() {
			t.Fatalf("%+v, %v; want %v", r, err, want)
		}
	}
	nobody := func(t *testing.T, rig *ThermometerRig) {
		t.Helper()
		if r, err := measure(t, rig, 1500*time.Millisecond, false); err != nil || r.Quality != device.QualityNobody {
			t.Fatalf("%+v, %v; want nobody", r, err)
		}
	}
	part("people", func(t *testing.T, rig *ThermometerRig) {
		nobody(t, rig)
		rig.StepUp(36.3)
		person(t, rig, 36.3, false)
		nobody(t, rig) // the same one stays
		person(t, rig, 36.3, true)
		rig.Leave()
		nobody(t, rig)
		nobody(t, rig)
		rig.StepUp(38.1)
		person(t, rig, 38.1, false)
	})
	part("invalid", func(t *testing.T, rig *ThermometerRig) {
		nobody(t, rig)
		rig.StepUp(28)
		if r, err := measure(t, rig, Limit/2, false); err != nil || r.Quality != device.QualityInvalid {
			t.Errorf("%+v, %v", r, err)
		}
	})
	part("cancel", func(t *testing.T, rig *ThermometerRig) {
		nobody(t, rig)
		ends(t, func(ctx context.Context) (device.Temperature, error) {
			return rig.Thermometer.Measure(ctx, device.Measurement{})
		})
	})
	part("close", func(t *testing.T, rig *ThermometerRig) {
		nobody(t, rig)
		out := ask(t.Context(), func(ctx context.Context) (device.Temperature, error) {
			return rig.Thermometer.Measure(ctx, device.Measurement{})
		})
		if err := rig.Thermometer.Close(); err != nil {
			t.Error(err)
		}
		if r, err := answered(t, out); !errors.Is(err, device.ErrClosed) || r.Quality != device.QualityFault {
			t.Errorf("%+v, %v", r, err)
		}
		if r, err := measure(t, rig, time.Second, false); !errors.Is(err, device.ErrClosed) || r.Quality != device.QualityFault {
			t.Errorf("after Close: %+v, %v", r, err)
		}
	})
	part("close before use", func(*testing.T, *ThermometerRig) {})
	part("unplug", func(t *testing.T, rig *ThermometerRig) {
		nobody(t, rig)
		rig.Unplug()
		for range 2 { // each person is told
			r, err := measure(t, rig, Limit/2, false)
			wantKind(t, err, device.ErrDisconnected)
			if r.Quality != device.QualityFault {
				t.Errorf("unplugged: %+v", r)
			}
		}
		rig.Plug()
		for end := time.Now().Add(Limit); ; { // reopening takes its time
			r, err := measure(t, rig, 1500*time.Millisecond, false)
			if err == nil && r.Quality == device.QualityNobody {
				break
			}
			if time.Now().After(end) {
				t.Fatalf("plugged in again: %+v, %v", r, err)
			}
		}
		rig.StepUp(36.3)
		person(t, rig, 36.3, false)
	})
}
