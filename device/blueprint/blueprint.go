// Package blueprint is a driver to copy: a made-up thermometer on a serial line,
// whole, small, and tested. It is not in the catalogue.
//
// # To add a driver
//
//  1. Copy this folder to device/<name> and write what the data sheet says into
//     the package doc: the wire, the wiring, the config lines, the sources.
//  2. Write the decoder first: bytes (or bits, or words) in, a sample or a reason
//     out. No I/O, no allocation for a byte, bounded memory. Its test holds the
//     data sheet's examples; its fuzz target says that nothing comes out that was
//     not on the wire.
//  3. Write the device around it: decode the options (unknown keys are errors by
//     themselves), claim the port, open nothing. Let bus.Port open and reopen, and
//     bus.Status keep the health. A card reader has less to write: a scan.Decoder
//     and scan.NewSerial are all (see package serialrfid).
//  4. Write its emulator into device/sim, from the data sheet and not from the
//     driver, with faults; run the contract suite of device/devicetest on the two.
//  5. Add a row to the table in device/catalog. Now it can be configured, watched,
//     recorded, replayed and tested (gatehouse devices).
//
// What a driver must and must not do is in the doc of package device.
//
// # Wire
//
// 9600 8N1. A frame has five bytes: A5, the object's temperature in hundredths of
// a degree as a signed word with its high byte first, the ambient temperature in
// whole degrees, and the sum of the three bytes before.
//
// # Config
//
//	thermometer:
//	  driver: blueprint
//	  port: /dev/serial/by-id/...
package blueprint

import (
	"context"
	"errors"
	"time"

	"gatehouse/device"
	"gatehouse/device/bus"
	"gatehouse/device/options"
)

type config struct {
	Port string `yaml:"port"`
	Baud int    `yaml:"baud"`
}

// Sensor is the device. One goroutine reads at a time.
type Sensor struct {
	*bus.Status
	name    string
	port    *bus.Port
	dec     Decoder
	buf     [64]byte
	pending []byte
}

var _ device.Sensor = (*Sensor)(nil)

// New builds a sensor from its config mapping. It claims the port and opens
// nothing.
func New(b *bus.Bus, name string, n options.Node) (*Sensor, error) {
	c := config{Baud: 9600}
	if err := n.Decode(&c); err != nil {
		return nil, err
	}
	if c.Port == "" {
		return nil, n.At("port").Errorf("must be given: the serial port, best a path below /dev/serial/by-id")
	}
	s := &Sensor{Status: bus.NewStatus(name, "blueprint", c.Port), name: name}
	var err error
	s.port, err = b.Serial(bus.SerialConfig{User: name, Path: c.Port, Baud: c.Baud, OnOpen: func(again bool) {
		if again {
			s.Reopened()
		}
		s.Answers()
	}})
	return s, err
}

// Sample blocks for the next sample.
func (s *Sensor) Sample(ctx context.Context) (device.Sample, error) {
	for {
		for len(s.pending) > 0 {
			b := s.pending[0]
			s.pending = s.pending[1:]
			v, done, err := s.dec.Byte(b)
			switch {
			case err != nil:
				s.Garbled(1)
				e := &device.Error{Device: s.name, Op: "read", Kind: device.ErrGarbled, Err: err}
				if s.Fail(e) {
					return device.Sample{}, e
				}
			case done:
				v.At = time.Now()
				s.Good(v.At)
				return v, nil
			}
		}
		n, err := s.port.Read(ctx, s.buf[:])
		if err != nil {
			var fault *device.Error
			if errors.As(err, &fault) {
				s.dec = Decoder{} // what was half there will not be completed
				s.Fail(err)
			}
			return device.Sample{}, err
		}
		s.pending = s.buf[:n]
	}
}

// Try opens the port and says why it cannot be opened.
func (s *Sensor) Try() error { return s.port.Try() }

// Close ends a Sample and gives the port free.
func (s *Sensor) Close() error {
	err := s.port.Close()
	s.Set(device.StateClosed, "")
	return err
}

const head = 0xA5

var errSum = errors.New("a frame's checksum is wrong")

// Decoder takes the line apart. The zero Decoder is outside any frame.
type Decoder struct {
	n int
	b [5]byte
}

// Byte takes the next byte; done says that it completes a sample.
func (d *Decoder) Byte(b byte) (v device.Sample, done bool, err error) {
	if d.n == 0 && b != head {
		return v, false, nil
	}
	d.b[d.n] = b
	if d.n++; d.n < len(d.b) {
		return v, false, nil
	}
	d.n = 0
	if d.b[1]+d.b[2]+d.b[3] != d.b[4] {
		return v, false, errSum
	}
	v.Object = device.Celsius(int16(uint16(d.b[1])<<8|uint16(d.b[2]))) / 100
	v.Ambient, v.HasAmbient = device.Celsius(int8(d.b[3])), true
	return v, true, nil
}
