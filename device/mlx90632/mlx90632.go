// Package mlx90632 reads the MLX90632 infrared thermometer over I2C, in medical
// mode (+-0.2 degC between 35 and 42 degC of object and 15 and 40 of ambient,
// for the medical type) or in extended range.
//
// # Registers
//
// Addresses and words have 16 bits, high byte first.
//
//	2481-24xx  EEPROM: calibration, read only here
//	3001       control: bits 2:1 power mode, 8:4 kind of measurement
//	3fff       status: bit 0 new data, 6:2 position in the cycle, 10 busy
//	4000+3m    RAM of measurement m
//
// A medical sample takes measurements 1 and 2, an extended one 17 to 19. The
// new-data bit is cleared before the words are read; when it is set again
// afterwards the words may be of two cycles and are dropped. The chip has no
// checksum: calibration is read until two readings agree, and a sample outside
// the chip's range is refused. The EEPROM is never written.
//
// The chip measures twice a second as delivered; a sample rate of 8 or 16 Hz is
// set in its EEPROM beforehand, with Melexis's tool.
//
// # Wiring
//
// 3.3 V, SDA and SCL with one pull-up each, 100 nF at the chip, up to 400 kHz.
// ADDR to ground: 0x3a, to VDD: 0x3b.
//
// # Config
//
//	thermometer:
//	  driver: mlx90632
//	  bus: i2c-1
//	  address: 0x3a
//	  mode: medical        # or extended
//	  emissivity: 1.0      # the medical type is calibrated for skin as it is
//	  interval: 50ms       # how often it is asked for new data
//
// # Sources and what was checked
//
// Melexis MLX90632 data sheet (registers, measurement cycle) and Melexis's
// mlx90632-library (calculation; Apache-2.0), whose published test vectors,
// medical, extended, with reflected temperature and emissivity, are in the
// tests. Checked with the emulator in device/sim and every fault. Not checked
// against a chip.
package mlx90632

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"time"

	"gatehouse/device"
	"gatehouse/device/bus"
	"gatehouse/device/options"
)

// Config is the options.
type Config struct {
	Bus        string        `yaml:"bus"`
	Address    uint16        `yaml:"address"`
	Mode       string        `yaml:"mode"`
	Emissivity float64       `yaml:"emissivity"`
	Interval   time.Duration `yaml:"interval"`
}

// Load reads and checks the options.
func Load(n options.Node) (Config, error) {
	c := Config{Bus: "i2c-1", Address: 0x3A, Mode: "medical", Emissivity: 1, Interval: 50 * time.Millisecond}
	if err := n.Decode(&c); err != nil {
		return c, err
	}
	switch {
	case c.Mode != "medical" && c.Mode != "extended":
		return c, n.At("mode").Errorf("%q is not medical or extended", c.Mode)
	case !(c.Emissivity >= 0.1 && c.Emissivity <= 1):
		return c, n.At("emissivity").Errorf("%g is not between 0.1 and 1", c.Emissivity)
	case c.Interval < 10*time.Millisecond || c.Interval > time.Second:
		return c, n.At("interval").Errorf("%v is not between 10ms and 1s", c.Interval)
	}
	return c, nil
}

// Addresses.
const (
	regVersion = 0x240B
	regCommand = 0x3005
	regControl = 0x3001
	regStatus  = 0x3FFF
	regRAM     = 0x4000

	cmdReset = 0x0006

	dspVersion  = 5    // low byte of the version
	hasExtended = 0x05 // high byte

	statusNew   = 1 << 0
	controlPwr  = 3 << 1 // both bits: continuous
	controlType = 0x1F << 4

	typeMedical  = 0x00 << 4
	typeExtended = 0x11 << 4
)

// Limits of a sample (data sheet: object -20 to 200 degC, ambient -20 to 85),
// with room for calibration.
const (
	objectMin, objectMax   = -40, 300
	ambientMin, ambientMax = -40, 90
)

var (
	errVersion = errors.New("the chip is no MLX90632 with DSP version 5")
	errCopies  = errors.New("the calibration reads differently each time")
	errEmpty   = errors.New("the calibration holds nothing sensible")
	errOnes    = errors.New("all ones: nobody drives the bus")
	errMode    = errors.New("this chip has no extended range")
)

// New builds a sensor on its address, which it owns. It touches nothing yet.
func New(name string, c Config, tx bus.Transactor) *bus.Poller {
	s := &chip{tx: tx, conf: c}
	return bus.NewPoller(name, "mlx90632", tx, c.Interval, s.wake, s.read)
}

type chip struct {
	tx   bus.Transactor
	conf Config
	cal  Calibration
}

func (s *chip) word(ctx context.Context, addr uint16) (uint16, error) {
	var r [2]byte
	err := s.tx.TxContext(ctx, []byte{byte(addr >> 8), byte(addr)}, r[:])
	return binary.BigEndian.Uint16(r[:]), err
}

func (s *chip) write(ctx context.Context, addr, v uint16) error {
	return s.tx.TxContext(ctx, []byte{byte(addr >> 8), byte(addr), byte(v >> 8), byte(v)}, nil)
}

// wake finds out what chip it is, reads its calibration and sets the mode.
func (s *chip) wake(ctx context.Context) error {
	v, err := s.word(ctx, regVersion)
	if err != nil {
		return err
	}
	if v&0xFF != dspVersion {
		return &device.Error{Kind: device.ErrGarbled, Err: fmt.Errorf("%w: version %#04x", errVersion, v)}
	}
	want := uint16(typeMedical)
	if s.conf.Mode == "extended" {
		if want = typeExtended; v>>8&0x7F != hasExtended {
			return &device.Error{Kind: device.ErrOutOfRange, Err: errMode}
		}
	}
	one, err := s.calibration(ctx)
	if err != nil {
		return err
	}
	two, err := s.calibration(ctx)
	if err != nil {
		return err
	}
	switch {
	case one != two:
		return &device.Error{Kind: device.ErrGarbled, Err: errCopies}
	case one.PG == 0 || one.Ea == 0 || one.Fa == 0 || one.Ha == 0:
		return &device.Error{Kind: device.ErrGarbled, Err: errEmpty}
	}
	s.cal = one
	control, err := s.word(ctx, regControl)
	if err != nil {
		return err
	}
	if control&controlType != want || control&controlPwr != controlPwr {
		control &^= controlType | controlPwr
		// Reset, choose while halted, run.
		for _, w := range [...][2]uint16{{regCommand, cmdReset}, {regControl, control | want}, {regControl, control | want | controlPwr}} {
			if err := s.write(ctx, w[0], w[1]); err != nil {
				return err
			}
			if err := bus.Sleep(ctx, time.Millisecond); err != nil {
				return err
			}
		}
	}
	return s.clear(ctx)
}

// calibration reads the EEPROM's constants; of 32-bit ones the low word has the
// lower address.
func (s *chip) calibration(ctx context.Context) (Calibration, error) {
	var c Calibration
	for _, e := range [...]struct {
		addr uint16
		to   *int32
	}{{0x240C, &c.PR}, {0x240E, &c.PG}, {0x2410, &c.PT}, {0x2412, &c.PO}, {0x2424, &c.Ea}, {0x2426, &c.Eb}, {0x2428, &c.Fa}, {0x242A, &c.Fb}, {0x242C, &c.Ga}} {
		lo, err := s.word(ctx, e.addr)
		if err != nil {
			return c, err
		}
		hi, err := s.word(ctx, e.addr+1)
		if err != nil {
			return c, err
		}
		*e.to = int32(uint32(hi)<<16 | uint32(lo))
	}
	for _, e := range [...]struct {
		addr uint16
		to   *int16
	}{{0x242E, &c.Gb}, {0x242F, &c.Ka}, {0x2481, &c.Ha}, {0x2482, &c.Hb}} {
		v, err := s.word(ctx, e.addr)
		if err != nil {
			return c, err
		}
		*e.to = int16(v)
	}
	return c, nil
}

// clear takes back the new-data bit.
func (s *chip) clear(ctx context.Context) error {
	st, err := s.word(ctx, regStatus)
	if err != nil {
		return err
	}
	return s.write(ctx, regStatus, st&^statusNew)
}

func (s *chip) read(ctx context.Context) (device.Sample, error) {
	st, err := s.word(ctx, regStatus)
	if err != nil {
		return device.Sample{}, err
	}
	at := int(st >> 2 & 0x1F)
	extended := s.conf.Mode == "extended"
	switch {
	case st == 0xFFFF:
		return device.Sample{}, &device.Error{Kind: device.ErrGarbled, Err: errOnes}
	case st&statusNew == 0, extended && at != 19, !extended && at != 1 && at != 2:
		if st&statusNew != 0 {
			err = s.clear(ctx)
		}
		if err == nil {
			err = bus.ErrNotYet
		}
		return device.Sample{}, err
	}
	if err := s.write(ctx, regStatus, st&^statusNew); err != nil {
		return device.Sample{}, err
	}
	first := 1
	if extended {
		first = 17
	}
	var ram [9]int16 // of measurements first to first+2
	n := 6
	if extended {
		n = 9
	}
	for i := range n {
		v, err := s.word(ctx, uint16(regRAM+3*first+i))
		if err != nil {
			return device.Sample{}, err
		}
		ram[i] = int16(v)
	}
	if st, err = s.word(ctx, regStatus); err != nil {
		return device.Sample{}, err
	}
	if st&statusNew != 0 { // overtaken
		return device.Sample{}, bus.ErrNotYet
	}
	return s.cal.sample(ram, extended, s.conf.Emissivity)
}

// sample makes a sample of the words of a cycle.
func (c *Calibration) sample(ram [9]int16, extended bool, emissivity float64) (device.Sample, error) {
	a := Ambient{New: ram[2], Old: ram[5]}
	if a == (Ambient{-1, -1}) {
		return device.Sample{}, &device.Error{Kind: device.ErrGarbled, Err: errOnes}
	}
	out := device.Sample{Ambient: c.AmbientCelsius(a), HasAmbient: true}
	around := c.ChipCelsius(a)
	if extended {
		sum := (int(ram[0])-int(ram[1])-int(ram[3])+int(ram[4]))/2 + int(ram[6]) + int(ram[7])
		if int(int16(sum)) != sum {
			return device.Sample{}, &device.Error{Kind: device.ErrOutOfRange, Err: fmt.Errorf("the object's raw value is %d", sum)}
		}
		out.Object = c.ExtendedCelsius(int16(sum), a, emissivity, around)
	} else {
		// The means of both positions, then of both, as Melexis rounds them.
		mean := ((int(ram[0])+int(ram[1]))/2 + (int(ram[3])+int(ram[4]))/2) / 2
		out.Object = c.ObjectCelsius(int16(mean), a, emissivity, around)
	}
	if !(out.Object >= objectMin && out.Object <= objectMax && out.Ambient >= ambientMin && out.Ambient <= ambientMax) {
		return device.Sample{}, &device.Error{Kind: device.ErrOutOfRange, Err: fmt.Errorf("object at %.1f and ambient at %.1f degC", float64(out.Object), float64(out.Ambient))}
	}
	return out, nil
}
