package thermometry

import (
	"math"
	"math/rand/v2"
	"testing"
	"time"

	"pgregory.net/rapid"

	"gatehouse/device"
)

// A queue of people of all temperatures, who come fast or slowly, sway, look
// away and leave for a moment or for good. Whatever they do: nobody is given
// the temperature of another, nobody has two readings, and each who stands still
// has one within a second.
func TestQueueOfPeople(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		c := Config{Profile: &Shipped()[0], MinSamples: 5, MaxRange: 0.3, MaxSlope: 0.2, Jump: 2, Near: 700, Uncertainty: 0.4}
		p := NewPipeline(c)
		rng := rand.New(rand.NewPCG(rapid.Uint64().Draw(t, "seed"), 1))
		room := rapid.Float64Range(16, 28).Draw(t, "room")
		noise := rapid.Float64Range(0, 0.05).Draw(t, "noise")
		now, sees, taken := time.Unix(1700000000, 0), room, uint64(0)
		var reading device.Temperature
		// look lets the sensor see a target for a while; its filter follows with
		// a time constant of 60 ms. It returns when a reading was given.
		look := func(target float64, d time.Duration) (given bool, after time.Duration) {
			for passed := time.Duration(0); passed < d; passed += 100 * time.Millisecond {
				now = now.Add(100 * time.Millisecond)
				sees += (target - sees) * (1 - math.Exp(-100.0/60))
				p.Add(device.Sample{Object: device.Celsius(sees + noise*rng.NormFloat64()), Ambient: device.Celsius(room + 1), HasAmbient: true, At: now})
				here, gen := p.Present()
				if !here || gen <= taken {
					continue
				}
				if r, ok := p.Reading(time.Time{}); ok && r.Quality == device.QualityOK {
					if given {
						t.Fatal("two readings within one look")
					}
					taken, reading, given, after = gen, r, true, passed+100*time.Millisecond
				}
			}
			return given, after
		}
		look(room, 2*time.Second)
		for range rapid.IntRange(1, 12).Draw(t, "people") {
			skin := rapid.Float64Range(31, 41).Draw(t, "skin")
			given, after := look(skin, time.Duration(rapid.IntRange(20, 80).Draw(t, "stays"))*100*time.Millisecond)
			if !given || after > time.Second+500*time.Millisecond {
				t.Fatalf("%.2f stood still and was read: %v, after %v", skin, given, after)
			}
			if off := math.Abs(float64(reading.Raw) - skin); off > 0.2 {
				t.Fatalf("%.2f was read as %.2f", skin, float64(reading.Raw))
			}
			for range rapid.IntRange(0, 3).Draw(t, "sways") {
				// Half away: hair, a hand, half a step. Still the same person.
				look(room+0.6*(skin-room), time.Duration(rapid.IntRange(1, 10).Draw(t, "sway"))*100*time.Millisecond)
				if again, _ := look(skin, time.Second); again {
					t.Fatalf("%.2f was read twice", skin)
				}
			}
			if again, _ := look(room, time.Duration(rapid.IntRange(6, 30).Draw(t, "gap"))*100*time.Millisecond); again {
				t.Fatal("an empty place was read")
			}
		}
	})
}
