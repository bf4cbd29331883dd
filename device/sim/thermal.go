package sim

import (
	"bytes"
	"context"
	"encoding/binary"
	"fmt"
	"math"
	"math/rand/v2"
	"sync"
	"time"

	"gatehouse/device"
)

// Thermal is what an infrared sensor looks at: a room, and now and then
// somebody's forehead.
type Thermal struct {
	mu      sync.Mutex
	rng     *rand.Rand
	room    float64
	inside  float64 // of the sensor itself, over the room
	noise   float64 // standard deviation of one reading
	target  float64 // what it looks at now
	from    float64 // what it saw when that began
	since   time.Time
	settle  time.Duration
	present bool
}

// NewThermal makes an empty room. One seed gives one noise.
func NewThermal(room device.Celsius, seed uint64) *Thermal {
	return &Thermal{rng: rand.New(rand.NewPCG(seed, 3)), room: float64(room), inside: 1, noise: 0.04,
		target: float64(room), from: float64(room), settle: 60 * time.Millisecond}
}

// SetRoom changes the room's temperature.
func (t *Thermal) SetRoom(c device.Celsius) {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.room = float64(c)
	if !t.present {
		t.turn(t.room)
	}
}

// SetNoise changes the standard deviation of a reading, in degC.
func (t *Thermal) SetNoise(c device.Celsius) {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.noise = float64(c)
}

// StepUp puts a forehead of that temperature before the sensor.
func (t *Thermal) StepUp(skin device.Celsius) {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.present = true
	t.turn(float64(skin))
}

// Leave empties the room.
func (t *Thermal) Leave() {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.present = false
	t.turn(t.room)
}

func (t *Thermal) turn(to float64) {
	now := time.Now()
	t.from, t.target, t.since = t.sees(now), to, now
}

// sees is the signal without noise: the sensor's filter follows a step
// exponentially.
func (t *Thermal) sees(now time.Time) float64 {
	if t.since.IsZero() {
		return t.target
	}
	return t.target + (t.from-t.target)*math.Exp(-now.Sub(t.since).Seconds()/t.settle.Seconds())
}

// Look is one reading: what the sensor sees, and its own temperature.
func (t *Thermal) Look() (object, ambient device.Celsius) {
	t.mu.Lock()
	defer t.mu.Unlock()
	return device.Celsius(t.sees(time.Now()) + t.noise*t.rng.NormFloat64()), device.Celsius(t.room + t.inside + t.noise/4*t.rng.NormFloat64())
}

// SerialThermometer emulates an infrared module on a serial line: ten samples
// in a second.
type SerialThermometer struct {
	line  *Serial
	scene *Thermal
	frame func(object, ambient device.Celsius) []byte

	mu     sync.Mutex
	faults Faults
	stuck  []byte
	asleep bool   // until it is told to send
	begin  []byte // what tells it
	rng    *rand.Rand
}

// SerialThermometerPeriod is the time between two samples.
const SerialThermometerPeriod = 100 * time.Millisecond

// NewGYMCU90614 emulates that module, looking at a scene.
func NewGYMCU90614(line *Serial, scene *Thermal, seed uint64) *SerialThermometer {
	return &SerialThermometer{line: line, scene: scene, frame: frameGYMCU90614, begin: []byte{0xA5, 0x45, 0xEA}, rng: rand.New(rand.NewPCG(seed, 4))}
}

// NewSerialThermometer emulates the module that a driver of package serialtemp
// is named after.
func NewSerialThermometer(driver string, line *Serial, scene *Thermal, seed uint64) (*SerialThermometer, error) {
	t := NewGYMCU90614(line, scene, seed)
	switch driver {
	case "gy-mcu90614":
	case "cjmcu-90614":
		t.frame, t.begin = frameCJMCU90614, []byte{0x66, 0x66, 0x01, 0x56}
	case "gy-614v":
		t.frame = frameGY614V
	case "tn9":
		t.frame = frameTN9
	default:
		return nil, fmt.Errorf("no serial thermometer is called %q", driver)
	}
	return t, nil
}

func frameGYMCU90614(object, ambient device.Celsius) []byte {
	return sum(appendCenti([]byte{0x5A, 0x5A, 0x45, 0x04}, object, ambient), 0)
}

func frameCJMCU90614(object, ambient device.Celsius) []byte {
	return sum(appendCenti([]byte{0x66, 0x66, 0x01, 0x04}, object, ambient), 4)
}

func frameGY614V(object, ambient device.Celsius) []byte {
	return sum(appendCenti([]byte{0xA4, 0x03, 0x07, 0x07, 0x5F}, object, ambient, object), 0)
}

func frameTN9(object, ambient device.Celsius) []byte {
	item := func(kind byte, c device.Celsius) []byte {
		return append(sum(binary.BigEndian.AppendUint16([]byte{kind}, uint16(math.Round((float64(c)+273.15)*16))), 0), 0x0D)
	}
	return append(item(0x66, ambient), item(0x4C, object)...)
}

func appendCenti(to []byte, values ...device.Celsius) []byte {
	for _, v := range values {
		to = binary.BigEndian.AppendUint16(to, uint16(int16(math.Round(float64(v)*100))))
	}
	return to
}

func sum(f []byte, from int) []byte {
	var sum byte
	for _, b := range f[from:] {
		sum += b
	}
	return append(f, sum)
}

// SetFaults changes what goes wrong from now on.
func (t *SerialThermometer) SetFaults(f Faults) {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.faults = f
}

// SetStuck makes the module repeat its next frame for ever.
func (t *SerialThermometer) SetStuck(stuck bool) {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.stuck = nil
	if stuck {
		t.stuck = t.frame(t.scene.Look())
	}
}

// Sleep makes it send nothing until it is told to, as a module that was set to
// answer questions only. It reads its line from then on.
func (t *SerialThermometer) Sleep() {
	t.mu.Lock()
	t.asleep = true
	t.mu.Unlock()
	go func() {
		var heard []byte
		buf := make([]byte, 64)
		for {
			n, err := t.line.Read(buf)
			if err != nil {
				return
			}
			if heard = append(heard, buf[:n]...); bytes.Contains(heard, t.begin) {
				t.mu.Lock()
				t.asleep = false
				t.mu.Unlock()
				return
			}
		}
	}()
}

// Run sends until the context ends. An unplugged line loses what is sent.
func (t *SerialThermometer) Run(ctx context.Context) error {
	tick := time.NewTicker(SerialThermometerPeriod)
	defer tick.Stop()
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-tick.C:
			if b := t.next(); b != nil {
				_, _ = t.line.Write(b)
			}
		}
	}
}

// next is what goes over the line this time, faults and all.
func (t *SerialThermometer) next() []byte {
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.faults.Silent || t.asleep {
		return nil
	}
	f := append([]byte(nil), t.stuck...)
	if t.stuck == nil {
		f = t.frame(t.scene.Look())
	}
	if t.rng.Float64() < t.faults.Checksum {
		f[len(f)-2-t.rng.IntN(2)] ^= 1 << t.rng.IntN(8)
	}
	if t.rng.Float64() < t.faults.Half {
		f = f[:1+t.rng.IntN(len(f)-1)]
	}
	if t.rng.Float64() < t.faults.Noise {
		noise := make([]byte, 1+t.rng.IntN(20))
		for i := range noise {
			noise[i] = byte(t.rng.Uint32())
		}
		f = append(noise, f...)
	}
	return f
}
