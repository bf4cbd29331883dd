// Package mlx90614 reads the MLX90614 family of infrared thermometers over I2C
// (SMBus).
//
// # Registers
//
// A word is read with its command and comes low byte first, with a PEC: CRC-8,
// polynomial 0x07, initial 0, over address+W, command, address+R, low, high.
//
//	06  ambient Ta       07  object To1
//
// A value times 0.02 is kelvin; bit 15 flags an error. Object 0x27AD (-70.01 degC)
// to 0x7FFF (382.19), ambient -40 to 125 degC. 0xFFFF with a PEC of 0xFF is a
// bus that nobody drives, not 1037 degC. The EEPROM is never written: at run time
// it would wear out, and a write that is cut off leaves a sensor that lies.
//
// # Wiring
//
// 3.3 V type (MLX90614xA is 5 V, xB and xD 3.3 V), SDA and SCL with one pull-up
// each, 100 nF at the chip. The bus at 100 kHz at most (dtparam=i2c_arm_baudrate).
// Chips with one address need buses of their own; the address can be changed
// beforehand with another tool. Values hold 250 ms after power-on.
//
// # Config
//
//	thermometer:
//	  driver: mlx90614
//	  bus: i2c-1
//	  address: 0x5a
//	  interval: 100ms
//	  pec: true            # without it a wrong bit is a wrong temperature
//
// # Sources and what was checked
//
// Melexis MLX90614 data sheet, sections 8.4 (SMBus) and 8.7 (output); System
// Management Bus specification 3.2, 6.4.1 (PEC). Checked: published and derived
// vectors, every error of up to three bits, a fuzzer, the emulator in device/sim
// with every fault, periph's i2ctest, and the kernel's I2C in a virtual machine
// with wrong PECs, no answer and a stuck bus. Not checked against a chip.
package mlx90614

import (
	"context"
	"errors"
	"fmt"
	"time"

	"gatehouse/device"
	"gatehouse/device/bus"
	"gatehouse/device/options"
)

// Config is the options.
type Config struct {
	Bus      string        `yaml:"bus"`
	Address  uint16        `yaml:"address"`
	Interval time.Duration `yaml:"interval"`
	PEC      bool          `yaml:"pec"`
}

// Load reads and checks the options.
func Load(n options.Node) (Config, error) {
	c := Config{Bus: "i2c-1", Address: 0x5A, Interval: 100 * time.Millisecond, PEC: true}
	if err := n.Decode(&c); err != nil {
		return c, err
	}
	if c.Interval < 20*time.Millisecond || c.Interval > time.Second {
		return c, n.At("interval").Errorf("%v is not between 20ms and 1s", c.Interval)
	}
	return c, nil
}

const (
	cmdAmbient = 0x06
	cmdObject  = 0x07
	// settle is how long values do not hold after power-on.
	settle = 250 * time.Millisecond
)

// Limits of the registers (data sheet, table 8 and section 8.7).
const (
	objectMin, objectMax   = 0x27AD, 0x7FFF
	ambientMin, ambientMax = 0x2D8A, 0x4DC4 // -40.01 to 125.01 degC
)

var (
	errOnes = errors.New("all ones: nobody drives the bus")
	errPEC  = errors.New("a word's PEC is wrong")
	errFlag = errors.New("the chip flags an error")
)

// New builds a sensor on its address, which it owns. It touches nothing yet.
func New(name string, c Config, tx bus.Transactor) *bus.Poller {
	word := func(ctx context.Context, cmd byte) ([3]byte, error) {
		var r [3]byte
		err := tx.TxContext(ctx, []byte{cmd}, r[:])
		return r, err
	}
	wake := func(ctx context.Context) error {
		if _, err := word(ctx, cmdAmbient); err != nil {
			return err
		}
		return bus.Sleep(ctx, settle)
	}
	read := func(ctx context.Context) (device.Sample, error) {
		var got [2]device.Celsius
		for i, cmd := range [...]byte{cmdAmbient, cmdObject} {
			r, err := word(ctx, cmd)
			if err == nil {
				got[i], err = Decode(byte(c.Address), cmd, r, c.PEC)
			}
			if err != nil {
				return device.Sample{}, err
			}
		}
		return device.Sample{Ambient: got[0], HasAmbient: true, Object: got[1]}, nil
	}
	return bus.NewPoller(name, "mlx90614", tx, c.Interval, wake, read)
}

// Decode takes the three bytes that follow a read of a temperature: low, high,
// PEC. The error is a *device.Error: garbled, or out of range.
func Decode(addr, cmd byte, r [3]byte, pec bool) (device.Celsius, error) {
	if r == [3]byte{0xFF, 0xFF, 0xFF} {
		return 0, &device.Error{Kind: device.ErrGarbled, Err: errOnes}
	}
	if pec && PEC(addr, cmd, r[0], r[1]) != r[2] {
		return 0, &device.Error{Kind: device.ErrGarbled, Err: errPEC}
	}
	v := uint16(r[1])<<8 | uint16(r[0])
	lo, hi := uint16(objectMin), uint16(objectMax)
	if cmd == cmdAmbient {
		lo, hi = ambientMin, ambientMax
	}
	switch {
	case v == 0xFFFF:
		return 0, &device.Error{Kind: device.ErrGarbled, Err: errOnes}
	case v&0x8000 != 0:
		return 0, &device.Error{Kind: device.ErrOutOfRange, Err: errFlag}
	case v < lo || v > hi:
		return 0, &device.Error{Kind: device.ErrOutOfRange, Err: fmt.Errorf("register %#02x holds %#04x", cmd, v)}
	}
	return device.Celsius(float64(2*int(v)-27315) / 100), nil
}

// PEC is the packet error code of a read of one word.
func PEC(addr, cmd, low, high byte) byte {
	var crc byte
	for _, b := range [...]byte{addr << 1, cmd, addr<<1 | 1, low, high} {
		crc ^= b
		for range 8 {
			if crc&0x80 != 0 {
				crc = crc<<1 ^ 0x07
			} else {
				crc <<= 1
			}
		}
	}
	return crc
}
