// Package serialtemp reads infrared thermometer modules that speak over a
// serial line by themselves: a microcontroller beside the sensor (MLX90614 or
// alike) sends object and ambient temperature several times a second.
//
// # Wire
//
// 8 data bits, no parity, one stop bit. All values most significant byte first,
// signed unless said otherwise.
//
//	gy-mcu90614   9600   5A 5A 45 04 TOh TOl TAh TAl sum        1/100 degC; sum of all bytes before, low 8 bits
//	cjmcu-90614   115200 66 66 mode len data... sum             1/100 degC; sum of the data only; object, then ambient
//	gy-614v       9600   A4 03 07 07 E TOh TOl TAh TAl BOh BOl sum  1/100 degC; E emissivity, BO a body estimate (not used)
//	tn9           9600   item MSB LSB sum 0D                    1/16 K, unsigned; item 4C object, 66 ambient; sum of the three
//
// The modules send by themselves as delivered. One that was set to answer
// questions only is told to send (gy-mcu90614: A5 45 EA, cjmcu-90614: 66 66 01 56)
// when it has been silent for a while; nothing is written to its memory.
//
// A frame is accepted only with its checksum. The module's own "body"
// temperature is never used: no published formula turns skin into core.
//
// # Wiring
//
// 5 V (TN9: 3.3 V), ground, the module's TX to RXD. Most modules put out 3.3 V;
// measure before you connect one to a Pi.
//
// # Config
//
//	thermometer:
//	  driver: gy-mcu90614          # cjmcu-90614, gy-614v, tn9
//	  port: /dev/serial/by-id/usb-...
//	  baud: 9600                   # cjmcu-90614: 115200
//
// What becomes of the samples (presence, plateau, correction) is in package
// thermometry and has keys of its own there.
//
// # Sources and what was checked
//
// GY-MCU90614, CJMCU-90614, GY-614V manuals of their makers; ZyTemp TN9 data
// sheet, serial format. Checked: the vectors 5A 5A 45 04 0C 78 0D 19 A7 (31.92
// and 33.53), 66 66 01 04 0A 83 0A 83 1A (26.91), 4C 14 2A 8A 0D (49.475); a
// fuzzer; 1 MB of random bytes; the emulator in device/sim over a pty. Not
// checked against the modules themselves.
package serialtemp

import (
	"context"
	"errors"
	"fmt"
	"time"

	"gatehouse/device"
	"gatehouse/device/bus"
	"gatehouse/device/options"
)

// Protocol is a module's way of framing.
type Protocol string

const (
	GYMCU90614 Protocol = "gy-mcu90614"
	CJMCU90614 Protocol = "cjmcu-90614"
	GY614V     Protocol = "gy-614v"
	TN9        Protocol = "tn9"
)

// Limits of what the sensors can measure (MLX90614 data sheet, section 1).
const (
	minObject, maxObject   = -70.01, 382.2
	minAmbient, maxAmbient = -40, 125
)

// nudge is how long a module may say nothing before it is told to send, silent
// before it counts as gone: the slowest sends twice a second.
const (
	nudge  = 1500 * time.Millisecond
	silent = 2 * nudge
)

type config struct {
	Port string `yaml:"port"`
	Baud int    `yaml:"baud"`
}

// Sensor is a module on a serial port.
type Sensor struct {
	*bus.Status
	name string
	port *bus.Port
	dec  *Decoder
	buf  [256]byte
	rest []byte
	at   time.Time

	begin  []byte // what tells the module to send, nil where nothing does
	nudged bool   // since its last byte
}

var _ device.Sensor = (*Sensor)(nil)

// New builds a sensor from its config mapping. It claims the port and opens
// nothing.
func New(b *bus.Bus, name string, p Protocol, n options.Node, tap func([]byte)) (*Sensor, error) {
	c := config{Baud: 9600}
	if p == CJMCU90614 {
		c.Baud = 115200
	}
	if err := n.Decode(&c); err != nil {
		return nil, err
	}
	if c.Port == "" {
		return nil, n.At("port").Errorf("must be given: the serial port, best a path below /dev/serial/by-id")
	}
	s := &Sensor{Status: bus.NewStatus(name, string(p), c.Port), name: name, dec: NewDecoder(p), begin: begin(p)}
	var err error
	s.port, err = b.Serial(bus.SerialConfig{User: name, Path: c.Port, Baud: c.Baud, Tap: tap, OnOpen: func(again bool) {
		if again {
			s.Reopened()
		}
		s.Answers()
		s.dec.Reset()
	}})
	if err != nil {
		return nil, err
	}
	return s, nil
}

// Sample blocks for the next sample.
func (s *Sensor) Sample(ctx context.Context) (device.Sample, error) {
	for {
		for len(s.rest) > 0 {
			b := s.rest[0]
			s.rest = s.rest[1:]
			sample, res, err := s.dec.Byte(b)
			switch {
			case err != nil:
				fault := &device.Error{Device: s.name, Op: "read", Kind: device.ErrGarbled, Err: err}
				if errors.Is(err, device.ErrOutOfRange) {
					fault.Kind = device.ErrOutOfRange
				} else {
					s.Garbled(1)
				}
				if s.Fail(fault) {
					return device.Sample{}, fault
				}
			case res == Noise:
				s.Noise(1)
			case res == Complete:
				sample.At = s.at
				s.Good(s.at)
				return sample, nil
			}
		}
		s.rest = nil
		wait, cancel := context.WithTimeout(ctx, nudge)
		n, err := s.port.Read(wait, s.buf[:])
		cancel()
		var fault *device.Error
		switch {
		case ctx.Err() != nil && err != nil:
			return device.Sample{}, ctx.Err()
		case errors.Is(err, context.DeadlineExceeded) && !s.nudged:
			s.nudged = true
			if _, err := s.port.Write(s.begin); err != nil && errors.Is(err, device.ErrClosed) {
				return device.Sample{}, err
			} // a port that is away is what the next Read reports
		case errors.Is(err, context.DeadlineExceeded):
			s.nudged = false // tried again
			fault := &device.Error{Device: s.name, Op: "read", Kind: device.ErrDisconnected, Err: fmt.Errorf("nothing came for %v", silent)}
			if st := s.Health().State; (st == device.StateOK || st == device.StateStarting) && s.Fail(fault) {
				return device.Sample{}, fault
			}
		case errors.As(err, &fault):
			s.dec.Reset()
			s.Fail(err)
			return device.Sample{}, err
		case err != nil:
			return device.Sample{}, err
		default:
			s.rest, s.at, s.nudged = s.buf[:n], time.Now(), false
		}
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

// Result is what a byte led to.
type Result int

const (
	More     Result = iota // inside a frame
	Noise                  // outside any frame
	Complete               // a sample
)

var (
	errSum    = errors.New("a frame's checksum is wrong")
	errLength = errors.New("a frame has a wrong length")
	errEnd    = errors.New("a frame does not end as it should")
)

// Decoder takes the line apart. It allocates nothing.
type Decoder struct {
	p       Protocol
	head    []byte
	n       int
	refused int // bytes of the frame refused last
	f       [16]byte
	ambient device.Celsius // of tn9, which sends it in a frame of its own
	hasAmb  bool
}

// NewDecoder returns a decoder for one protocol.
func NewDecoder(p Protocol) *Decoder { return &Decoder{p: p, head: head(p)} }

// Reset forgets a frame in progress.
func (d *Decoder) Reset() { d.n, d.hasAmb = 0, false }

// head is what every frame of a protocol begins with.
func head(p Protocol) []byte {
	switch p {
	case GYMCU90614:
		return []byte{0x5A, 0x5A, 0x45, 0x04}
	case CJMCU90614:
		return []byte{0x66, 0x66}
	case GY614V:
		return []byte{0xA4, 0x03, 0x07, 0x07}
	}
	return nil
}

// begin is what tells a module to send by itself.
func begin(p Protocol) []byte {
	switch p {
	case GYMCU90614:
		return []byte{0xA5, 0x45, 0xEA}
	case CJMCU90614:
		return []byte{0x66, 0x66, 0x01, 0x56}
	}
	return nil
}

// Byte takes the next byte. An error refuses a frame. What came after the
// refused frame's first byte is looked at again, so that a frame that was cut
// short never takes the next one with it.
func (d *Decoder) Byte(b byte) (device.Sample, Result, error) {
	s, res, err := d.next(b)
	if err != nil && !errors.Is(err, device.ErrOutOfRange) {
		f, n := d.f, d.refused
		for _, again := range f[1:n] {
			_, _, _ = d.Byte(again) // too short for a frame; one refused is one, however it is cut
		}
	}
	return s, res, err
}

func (d *Decoder) next(b byte) (device.Sample, Result, error) {
	if d.p == TN9 {
		return d.tn9(b)
	}
	head := d.head
	if d.n < len(head) {
		if b == head[d.n] {
			d.f[d.n] = b
			d.n++
			return device.Sample{}, More, nil
		}
		// A byte that does not fit may begin the head itself: 5A 5A 5A 45.
		switch {
		case d.n == 2 && head[0] == head[1] && b == head[0]:
			return device.Sample{}, Noise, nil
		case b == head[0]:
			d.n = 1
			return device.Sample{}, Noise, nil
		}
		d.n = 0
		return device.Sample{}, Noise, nil
	}
	d.f[d.n] = b
	d.n++
	length := 9
	switch d.p {
	case GY614V:
		length = 12
	case CJMCU90614:
		if d.n == 4 && d.f[3] != 4 {
			d.refused, d.n = d.n, 0
			return device.Sample{}, More, errLength
		}
	}
	if d.n < length {
		return device.Sample{}, More, nil
	}
	d.refused, d.n = d.n, 0
	f := d.f[:length]
	from := 0
	if d.p == CJMCU90614 {
		from = 4
	}
	var sum byte
	for _, x := range f[from : length-1] {
		sum += x
	}
	if sum != f[length-1] {
		return device.Sample{}, More, errSum
	}
	data := f[4:8]
	if d.p == GY614V {
		data = f[5:9]
	}
	return sample(centi(data[0], data[1]), centi(data[2], data[3]), true)
}

func centi(hi, lo byte) device.Celsius {
	return device.Celsius(float64(int16(uint16(hi)<<8|uint16(lo))) / 100)
}

func sample(object, ambient device.Celsius, has bool) (device.Sample, Result, error) {
	if object < minObject || object > maxObject {
		return device.Sample{}, More, fmt.Errorf("object at %.2f degC: %w", float64(object), device.ErrOutOfRange)
	}
	if has && (ambient < minAmbient || ambient > maxAmbient) {
		return device.Sample{}, More, fmt.Errorf("ambient at %.2f degC: %w", float64(ambient), device.ErrOutOfRange)
	}
	return device.Sample{Object: object, Ambient: ambient, HasAmbient: has}, Complete, nil
}

func (d *Decoder) tn9(b byte) (device.Sample, Result, error) {
	if d.n == 0 && b != 0x4C && b != 0x66 {
		return device.Sample{}, Noise, nil
	}
	d.f[d.n] = b
	if d.n++; d.n < 5 {
		return device.Sample{}, More, nil
	}
	d.refused, d.n = d.n, 0
	f := d.f[:5]
	switch {
	case f[4] != 0x0D:
		return device.Sample{}, More, errEnd
	case f[0]+f[1]+f[2] != f[3]:
		return device.Sample{}, More, errSum
	}
	t := device.Celsius(float64(uint16(f[1])<<8|uint16(f[2]))/16 - 273.15)
	if f[0] == 0x66 {
		d.ambient, d.hasAmb = t, true
		return device.Sample{}, More, nil
	}
	return sample(t, d.ambient, d.hasAmb)
}
