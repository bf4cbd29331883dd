package sim

import (
	"context"
	"encoding/binary"
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

// GYMCU90614 emulates that module on a serial line: ten frames in a second.
type GYMCU90614 struct {
	line  *Serial
	scene *Thermal

	mu     sync.Mutex
	faults Faults
	stuck  []byte
	rng    *rand.Rand
}

// GYMCU90614Period is the time between two frames.
const GYMCU90614Period = 100 * time.Millisecond

// NewGYMCU90614 emulates a module that looks at a scene.
func NewGYMCU90614(line *Serial, scene *Thermal, seed uint64) *GYMCU90614 {
	return &GYMCU90614{line: line, scene: scene, rng: rand.New(rand.NewPCG(seed, 4))}
}

// SetFaults changes what goes wrong from now on.
func (g *GYMCU90614) SetFaults(f Faults) {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.faults = f
}

// SetStuck makes the module repeat its next frame for ever.
func (g *GYMCU90614) SetStuck(stuck bool) {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.stuck = nil
	if stuck {
		g.stuck = g.frame()
	}
}

// Run sends until the context ends. An unplugged line loses what is sent.
func (g *GYMCU90614) Run(ctx context.Context) error {
	tick := time.NewTicker(GYMCU90614Period)
	defer tick.Stop()
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-tick.C:
			if b := g.next(); b != nil {
				_, _ = g.line.Write(b)
			}
		}
	}
}

func (g *GYMCU90614) frame() []byte {
	object, ambient := g.scene.Look()
	f := []byte{0x5A, 0x5A, 0x45, 0x04}
	f = binary.BigEndian.AppendUint16(f, centi(object))
	f = binary.BigEndian.AppendUint16(f, centi(ambient))
	var sum byte
	for _, b := range f {
		sum += b
	}
	return append(f, sum)
}

// next is what goes over the line this time, faults and all.
func (g *GYMCU90614) next() []byte {
	g.mu.Lock()
	defer g.mu.Unlock()
	if g.faults.Silent {
		return nil
	}
	f := g.stuck
	if f == nil {
		f = g.frame()
	}
	f = append([]byte(nil), f...)
	if g.rng.Float64() < g.faults.Checksum {
		f[4+g.rng.IntN(4)] ^= 1 << g.rng.IntN(8)
	}
	if g.rng.Float64() < g.faults.Half {
		f = f[:1+g.rng.IntN(len(f)-1)]
	}
	if g.rng.Float64() < g.faults.Noise {
		noise := make([]byte, 1+g.rng.IntN(20))
		for i := range noise {
			noise[i] = byte(g.rng.Uint32())
		}
		f = append(noise, f...)
	}
	return f
}

func centi(c device.Celsius) uint16 { return uint16(int16(math.Round(float64(c) * 100))) }
