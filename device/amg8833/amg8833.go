// Package amg8833 reads the AMG8833 (Grid-EYE), an array of 8 by 8 infrared
// pixels, over I2C.
//
// It is good to +-2.5 degC. So it tells that somebody is there and where the warm
// face is, never a fever: it stands beside a thermometer as its presence sensor,
// and is refused as a thermometer.
//
// # Registers
//
//	00     power: 00 normal          01     reset: 3F initial
//	02     frame rate: 00 is 10/s    0E-0F  thermistor, sign and magnitude, 1/16 degC
//	80-FF  pixels, two bytes each, low first, 12-bit two's complement, 1/4 degC
//
// # Wiring
//
// 3.3 V, SDA and SCL with one pull-up each, up to 400 kHz. AD_SELECT to ground:
// 0x68, to VDD: 0x69.
//
// # Config
//
//	thermometer:
//	  driver: mlx90614
//	  presence:
//	    driver: amg8833
//	    bus: i2c-1
//	    address: 0x69
//	    interval: 100ms
//
// # Sources and what was checked
//
// Panasonic Grid-EYE AMG88 reference specifications, section on registers.
// Checked: derived vectors, a fuzzer, the emulator in device/sim with every fault. Not
// checked against a chip.
package amg8833

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"time"

	"gatehouse/device"
	"gatehouse/device/bus"
	"gatehouse/device/options"
)

// Side is the number of pixels in a row and in a column.
const Side = 8

// Config is the options.
type Config struct {
	Bus      string        `yaml:"bus"`
	Address  uint16        `yaml:"address"`
	Interval time.Duration `yaml:"interval"`
}

// Load reads and checks the options.
func Load(n options.Node) (Config, error) {
	c := Config{Bus: "i2c-1", Address: 0x69, Interval: 100 * time.Millisecond}
	if err := n.Decode(&c); err != nil {
		return c, err
	}
	if c.Interval < 100*time.Millisecond || c.Interval > 2*time.Second {
		return c, n.At("interval").Errorf("%v is not between 100ms and 2s", c.Interval)
	}
	return c, nil
}

var (
	errOnes = errors.New("all ones: nobody drives the bus")
	errBits = errors.New("a pixel has bits that no pixel has")
)

// New builds a sensor on its address, which it owns. It touches nothing yet.
func New(name string, c Config, tx bus.Transactor) *bus.Poller {
	wake := func(ctx context.Context) error {
		for _, w := range [...][2]byte{{0x00, 0x00}, {0x01, 0x3F}, {0x02, 0x00}} { // normal, reset, 10 frames/s
			if err := tx.TxContext(ctx, w[:], nil); err != nil {
				return err
			}
			if err := bus.Sleep(ctx, 50*time.Millisecond); err != nil {
				return err
			}
		}
		return nil
	}
	read := func(ctx context.Context) (device.Sample, error) {
		var th [2]byte
		if err := tx.TxContext(ctx, []byte{0x0E}, th[:]); err != nil {
			return device.Sample{}, err
		}
		var px [2 * Side * Side]byte
		if err := tx.TxContext(ctx, []byte{0x80}, px[:]); err != nil {
			return device.Sample{}, err
		}
		return Decode(th, px[:])
	}
	return bus.NewPoller(name, "amg8833", tx, c.Interval, wake, read)
}

// Decode makes a sample of the thermistor's and the pixels' bytes. Object is the
// third warmest pixel: a face covers several, noise does not.
func Decode(thermistor [2]byte, pixels []byte) (device.Sample, error) {
	garbled := func(err error) (device.Sample, error) {
		return device.Sample{}, &device.Error{Kind: device.ErrGarbled, Err: err}
	}
	if len(pixels) != 2*Side*Side {
		return garbled(fmt.Errorf("%d bytes of pixels", len(pixels)))
	}
	th := uint16(thermistor[1])<<8 | uint16(thermistor[0])
	if th == 0xFFFF {
		return garbled(errOnes)
	}
	s := device.Sample{HasAmbient: true, Ambient: Thermistor(th), Width: Side, Image: make([]device.Celsius, Side*Side)}
	for i := range s.Image {
		v := uint16(pixels[2*i+1])<<8 | uint16(pixels[2*i])
		if v == 0xFFFF {
			return garbled(errOnes)
		}
		if v > 0x0FFF {
			return garbled(errBits)
		}
		s.Image[i] = Pixel(v)
	}
	sorted := slices.Sorted(slices.Values(s.Image))
	s.Object = sorted[len(sorted)-3]
	if s.Object < -40 || s.Object > 200 || s.Ambient < -40 || s.Ambient > 125 {
		return device.Sample{}, &device.Error{Kind: device.ErrOutOfRange, Err: fmt.Errorf("object at %.2f and ambient at %.2f degC", float64(s.Object), float64(s.Ambient))}
	}
	return s, nil
}

// Pixel is the temperature of a pixel's 12 bits, two's complement.
func Pixel(v uint16) device.Celsius { return device.Celsius(float64(int16(v<<4)>>4) / 4) }

// Thermistor is the chip's own temperature: 11 bits and a sign.
func Thermistor(v uint16) device.Celsius {
	c := device.Celsius(float64(v&0x7FF) / 16)
	if v&0x800 != 0 {
		return -c
	}
	return c
}
