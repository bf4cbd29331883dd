package sim

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"math"
	"math/rand/v2"
	"sync"
	"time"

	"periph.io/x/conn/v3/i2c"
	"periph.io/x/conn/v3/physic"

	"gatehouse/device"
	"gatehouse/device/bus"
)

// Chip answers the transactions of one address.
type Chip interface {
	Tx(w, r []byte) error
}

// Errors of a bus, worded like the kernel's: they are text only.
var (
	ErrNack  = errors.New("sysfs-i2c: remote I/O error")
	ErrStuck = errors.New("sysfs-i2c: connection timed out")
)

// I2C is a bus in memory, with chips that come and go.
type I2C struct {
	mu    sync.Mutex
	chips map[uint16]Chip
}

var _ i2c.Bus = (*I2C)(nil)

// NewI2C returns a bus without chips.
func NewI2C() *I2C { return &I2C{chips: map[uint16]Chip{}} }

// Attach puts a chip on the bus, Detach takes it off.
func (b *I2C) Attach(addr uint16, c Chip) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.chips[addr] = c
}

func (b *I2C) Detach(addr uint16) {
	b.mu.Lock()
	defer b.mu.Unlock()
	delete(b.chips, addr)
}

// Tx is periph's.
func (b *I2C) Tx(addr uint16, w, r []byte) error {
	b.mu.Lock()
	c := b.chips[addr]
	b.mu.Unlock()
	if c == nil {
		return ErrNack
	}
	return c.Tx(w, r)
}

func (b *I2C) String() string                  { return "simulated I2C" }
func (b *I2C) SetSpeed(physic.Frequency) error { return nil }

// Open gives one user an address, for the catalogue of drivers; whatever bus is
// asked for, it is this one.
func (b *I2C) Open(user, _ string, addr uint16) (bus.Transactor, error) {
	return OnI2C(b, user, addr), nil
}

// OnI2C offers an address of any periph bus, one for tests say, to a driver.
func OnI2C(b i2c.Bus, user string, addr uint16) bus.Transactor { return &address{b, user, addr} }

type address struct {
	b    i2c.Bus
	user string
	addr uint16
}

func (a *address) String() string { return fmt.Sprintf("%s/%#02x", a.b, a.addr) }
func (a *address) Close() error   { return nil }

func (a *address) TxContext(ctx context.Context, w, r []byte) error {
	err := a.b.Tx(a.addr, w, r)
	if errors.Is(err, ErrStuck) { // the kernel waits for the adapter's time-out
		if err := bus.Sleep(ctx, time.Second); err != nil {
			return err
		}
	}
	if err := ctx.Err(); err != nil {
		return err
	}
	if err != nil {
		return &device.Error{Device: a.user, Op: "read", Kind: device.ErrAbsent, Err: err}
	}
	return nil
}

// I2CFaults is what goes wrong with a chip.
type I2CFaults struct {
	Stuck     bool // the bus is held down
	Ones      bool // nobody drives the bus
	PEC       bool // wrong checksums
	Flag      bool // an MLX90614 flags an error
	Halted    bool // it answers, but measures nothing
	FlipEvery int  // a bit of every n-th word is wrong
}

// faulty is what emulated chips have in common.
type faulty struct {
	mu     sync.Mutex
	faults I2CFaults
	words  int
}

// SetFaults changes what goes wrong from now on.
func (f *faulty) SetFaults(to I2CFaults) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.faults = to
}

// spoil does to a reply what the faults ask for.
func (f *faulty) spoil(r []byte) error {
	if f.faults.Stuck {
		return ErrStuck
	}
	if f.words++; f.faults.FlipEvery > 0 && f.words%f.faults.FlipEvery == 0 && len(r) > 0 {
		r[0] ^= 0x10
	}
	if f.faults.Ones {
		for i := range r {
			r[i] = 0xFF
		}
	}
	return nil
}

// MLX90614 emulates that chip.
type MLX90614 struct {
	faulty
	addr  byte
	scene *Thermal
	rng   *rand.Rand
}

// NewMLX90614 makes a chip that looks at a scene. Its address goes into the PEC.
func NewMLX90614(addr byte, scene *Thermal, seed uint64) *MLX90614 {
	return &MLX90614{addr: addr, scene: scene, rng: rand.New(rand.NewPCG(seed, 5))}
}

// Tx implements Chip.
func (m *MLX90614) Tx(w, r []byte) error {
	m.mu.Lock()
	defer m.mu.Unlock()
	if len(w) != 1 || len(r) > 3 {
		return ErrNack
	}
	object, ambient := m.scene.Look()
	v := uint16(0)
	switch w[0] {
	case 0x06:
		v = uint16(math.Round((float64(ambient) + 273.15) * 50))
	case 0x07:
		if v = uint16(math.Round((float64(object) + 273.15) * 50)); m.faults.Flag {
			v |= 0x8000
		}
	}
	reply := []byte{byte(v), byte(v >> 8), 0}
	reply[2] = crc8(m.addr<<1, w[0], m.addr<<1|1, reply[0], reply[1])
	if m.faults.PEC {
		reply[m.rng.IntN(3)] ^= 1 << m.rng.IntN(8)
	}
	copy(r, reply)
	return m.spoil(r)
}

// crc8 is SMBus's: polynomial x^8+x^2+x+1, computed by long division.
func crc8(b ...byte) byte {
	var rem uint32
	for _, x := range b {
		rem = (rem ^ uint32(x)) << 8
		for bit := 15; bit >= 8; bit-- {
			if rem>>bit&1 == 1 {
				rem ^= 0x107 << (bit - 8)
			}
		}
	}
	return byte(rem)
}

// MLX90632 emulates that chip: EEPROM with the calibration of Melexis's
// published example, control, status, and RAM of both kinds of measurement, eight
// cycles in a second.
type MLX90632 struct {
	faulty
	scene *Thermal
	regs  map[uint16]uint16
	begun time.Time
	done  int // cycles
}

const mlx90632Period = 125 * time.Millisecond

// NewMLX90632 makes a chip that looks at a scene.
func NewMLX90632(scene *Thermal) *MLX90632 {
	m := &MLX90632{scene: scene, begun: time.Now(), regs: map[uint16]uint16{0x240B: 0x0505, 0x3001: 3 << 1, 0x3FFF: 0}}
	for addr, v := range map[uint16]int32{0x240C: 0x00587F5B, 0x240E: 0x04A10289, 0x2410: -0x69908, 0x2412: 0x1E0F,
		0x2424: 4859535, 0x2426: 5686508, 0x2428: 53855361, 0x242A: 42874149, 0x242C: -14556410} {
		m.regs[addr], m.regs[addr+1] = uint16(v), uint16(v>>16)
	}
	m.regs[0x242E], m.regs[0x242F], m.regs[0x2481], m.regs[0x2482] = 9728, 10752, 16384, 0
	return m
}

// Tx implements Chip.
func (m *MLX90632) Tx(w, r []byte) error {
	m.mu.Lock()
	defer m.mu.Unlock()
	if len(w) != 2 && len(w) != 4 {
		return ErrNack
	}
	m.measure()
	addr := binary.BigEndian.Uint16(w)
	if len(w) == 4 {
		switch v := binary.BigEndian.Uint16(w[2:]); {
		case addr == 0x3005 && v == 0x0006: // reset
			m.regs[0x3001] = 3 << 1
		case addr >= 0x2400 && addr < 0x2500:
			panic("a driver writes an MLX90632's EEPROM")
		default:
			m.regs[addr] = v
		}
	}
	for i := 0; i+1 < len(r); i += 2 {
		binary.BigEndian.PutUint16(r[i:], m.regs[addr+uint16(i/2)])
	}
	return m.spoil(r)
}

// measure makes up for the cycles that have passed since it was last asked.
func (m *MLX90632) measure() {
	n := int(time.Since(m.begun) / mlx90632Period)
	if n == m.done || m.faults.Halted || m.regs[0x3001]>>1&3 != 3 {
		return
	}
	m.done = n
	object, ambient := m.scene.Look()
	const newWord = 22454
	n12 := newWord / 12.0
	// The ambient channel: which old word gives this temperature?
	lo, hi := 10000.0, 40000.0
	for range 60 {
		mid := (lo + hi) / 2
		d := mid - 0x00587F5B/256.0
		if t := -0x69908/17592186044416.0*d*d + d/0x04A10289*1048576 + 0x1E0F/256.0; t < float64(ambient) {
			lo = mid
		} else {
			hi = mid
		}
	}
	adc := lo
	old := math.Round(n12*524288/adc - 9728.0/1024*n12)
	adc = math.Trunc(n12 / (old + 9728.0/1024*n12) * 524288) // with the rounded word
	// The object channel, the other way round than the driver goes.
	chip := (adc-5686508/256.0)/(4859535/65536.0) + 25
	gain := 53855361.0 * (1 + (-14556410.0*(float64(object)-25)+42874149.0*(chip-25))/68719476736) / 70368744177664
	kelvin4 := func(c float64) float64 { return math.Pow(c+273.15, 4) }
	raw := (kelvin4(float64(object)) - kelvin4(chip)) * gain * 12 * (old + 10752.0/1024*n12) / 524288
	word := func(addr uint16, v float64) { m.regs[addr] = uint16(int16(math.Round(v))) }
	if m.regs[0x3001]>>4&0x1F == 0x11 {
		for i := uint16(0x4033); i < 0x403C; i++ {
			m.regs[i] = 0
		}
		word(0x4035, newWord)
		word(0x4038, old)
		word(0x4039, raw/2)
		m.regs[0x3FFF] = 19<<2 | 1
		return
	}
	for _, a := range []uint16{0x4003, 0x4004, 0x4006, 0x4007} {
		word(a, raw)
	}
	word(0x4005, newWord)
	word(0x4008, old)
	m.regs[0x3FFF] = uint16(1+n%2)<<2 | 1
}

// AMG8833 emulates that chip: what it looks at covers three by three pixels.
type AMG8833 struct {
	faulty
	scene *Thermal
}

// NewAMG8833 makes a chip that looks at a scene.
func NewAMG8833(scene *Thermal) *AMG8833 { return &AMG8833{scene: scene} }

// Tx implements Chip.
func (a *AMG8833) Tx(w, r []byte) error {
	a.mu.Lock()
	defer a.mu.Unlock()
	if len(w) == 0 || len(w) > 2 {
		return ErrNack
	}
	object, ambient := a.scene.Look()
	if len(w) == 1 {
		regs := make([]byte, 0x100)
		binary.LittleEndian.PutUint16(regs[0x0E:], signMagnitude(float64(ambient)*16))
		for i := range 64 {
			t := min(object, ambient-1) // the room
			if x, y := i%8, i/8; x >= 2 && x <= 4 && y >= 3 && y <= 5 {
				t = object
			}
			binary.LittleEndian.PutUint16(regs[0x80+2*i:], uint16(int16(math.Round(float64(t)*4)))&0x0FFF)
		}
		copy(r, regs[w[0]:])
	}
	return a.spoil(r)
}

func signMagnitude(v float64) uint16 {
	if v < 0 {
		return 0x800 | uint16(math.Round(-v))&0x7FF
	}
	return uint16(math.Round(v)) & 0x7FF
}
