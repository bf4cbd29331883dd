// Package catalog is the one table of drivers: from the name in a config line
// to a device that is ready to be read.
//
// A device is a mapping with the key `driver`; all other keys are the driver's
// own options, which it decodes strictly:
//
//	scanner:
//	  driver: rdm6300
//	  port: /dev/serial/by-id/usb-FTDI_TTL232R-3V3_FT1A2B3C-if00-port0
//
// Nothing is opened here. Options are checked and exclusive things (a serial
// port, a GPIO line, an I2C address) are claimed, so that two users of one port
// are an error with file and line before anything starts.
//
// To add a driver, see package blueprint.
package catalog

import (
	"errors"
	"log/slog"
	"slices"

	"periph.io/x/conn/v3/gpio"

	"gatehouse/device"
	"gatehouse/device/bus"
	"gatehouse/device/options"
)

// Env is what drivers are built from.
type Env struct {
	Bus *bus.Bus
	Log *slog.Logger
	// Pins, when set, is asked for GPIO pins in place of the Bus: simulations
	// hand in pins that exist in memory only.
	Pins func(name string) (gpio.PinIO, error)
	// Edges, when set, is asked for groups of input lines in place of the Bus.
	Edges func(c bus.LinesConfig) (bus.EdgeReader, error)
	// Inputs, when set, is asked for input devices in place of the Bus.
	Inputs func(c bus.InputConfig) (bus.KeyReader, error)
	// I2C, when set, is asked for addresses on I2C buses in place of the Bus.
	I2C func(user, name string, addr uint16) (bus.Transactor, error)
	// Tap, when set, is shown the bytes of serial devices, for a recording.
	Tap func(b []byte)
	// Samples, when set, gives what is shown the raw samples of a thermometer.
	Samples func(name string) func(device.Sample, error)
}

// pin gives a line for one user, from Pins or from the Bus. The error stands
// at the node that names it.
func (e Env) pin(user, name string, at options.Node) (gpio.PinIO, error) {
	if e.Pins != nil {
		p, err := e.Pins(name)
		if err != nil {
			return nil, at.Errorf("%v", err)
		}
		return p, nil
	}
	p, err := e.Bus.Pin(user, name)
	if err != nil {
		return nil, at.Errorf("%v", err)
	}
	return p, nil
}

// Kind is the sort of device that a driver makes.
type Kind string

const (
	KindScanner   Kind = "scanner"
	KindSensor    Kind = "thermometer"
	KindPresence  Kind = "presence sensor"
	KindBarrier   Kind = "barrier"
	KindIndicator Kind = "indicator"
	KindContact   Kind = "contact"
	KindPanel     Kind = "panel"
)

// Driver is one row of the table.
type Driver struct {
	Name    string
	Kind    Kind
	Doc     string // one line: what hardware it is for
	Options string // its config lines with defaults, as YAML, to paste and change
	Open    func(env Env, name string, n options.Node) (device.Device, error)
}

// Drivers lists the table, in the order of kinds.
func Drivers() []Driver {
	return slices.Concat(scanners(), sensors(), presences(), barriers(), indicators(), contacts(), panels())
}

// Scanner builds the scanner that n describes. name is the device's name in
// errors and health ("scanner of lane east-in").
func Scanner(env Env, name string, n options.Node) (device.Scanner, error) {
	return open[device.Scanner](env, KindScanner, name, n)
}

// Sensor builds the raw sensor of a thermometer.
func Sensor(env Env, name string, n options.Node) (device.Sensor, error) {
	return open[device.Sensor](env, KindSensor, name, n)
}

// Barrier builds a barrier.
func Barrier(env Env, name string, n options.Node) (device.Barrier, error) {
	return open[device.Barrier](env, KindBarrier, name, n)
}

// Indicator builds lamps, a buzzer, a display.
func Indicator(env Env, name string, n options.Node) (device.Indicator, error) {
	return open[device.Indicator](env, KindIndicator, name, n)
}

// Contact builds a binary input.
func Contact(env Env, name string, n options.Node) (device.Contact, error) {
	return open[device.Contact](env, KindContact, name, n)
}

func open[T device.Device](env Env, kind Kind, name string, n options.Node) (T, error) {
	var none T
	want := n.At("driver").Text()
	if want == "" {
		return none, n.At("driver").Errorf("must be given: the %s's driver", kind)
	}
	var known []string
	for _, d := range Drivers() {
		if d.Kind != kind {
			if d.Name == want && !slices.ContainsFunc(Drivers(), func(o Driver) bool { return o.Name == want && o.Kind == kind }) {
				return none, n.At("driver").Errorf("%s is a %s's driver, not a %s's", want, d.Kind, kind)
			}
			continue
		}
		known = append(known, d.Name)
		if d.Name != want {
			continue
		}
		dev, err := d.Open(env, name, n.Without("driver"))
		if err != nil {
			return none, at(n, err)
		}
		t, ok := dev.(T)
		if !ok {
			return none, n.At("driver").Errorf("driver %s does not make a %s", want, kind)
		}
		return t, nil
	}
	return none, n.At("driver").Errorf("no %s's driver is called %q%s", kind, want, options.Hint(want, known))
}

// at gives an error that has no position that of the device's mapping.
func at(n options.Node, err error) error {
	var pos *options.Error
	if errors.As(err, &pos) {
		return err
	}
	return n.Errorf("%v", err)
}
