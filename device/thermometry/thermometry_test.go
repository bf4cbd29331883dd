package thermometry

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"math"
	"math/rand/v2"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"go.uber.org/goleak"
	"pgregory.net/rapid"

	"gatehouse/device"
	"gatehouse/device/bus"
	"gatehouse/device/options"
)

// signal is a sensor that samples a made-up signal ten times in a second.
type signal struct {
	*bus.Status
	mu      sync.Mutex
	object  float64
	ambient float64
	noise   float64
	rng     *rand.Rand
	fail    error // reported once, then silence until it is nil
	told    bool
	every   time.Duration
	closed  chan struct{}
	once    sync.Once
}

func newSignal() *signal {
	return &signal{Status: bus.NewStatus("thermometer", "signal", "nowhere"), object: 22, ambient: 23, noise: 0.03, every: 100 * time.Millisecond, rng: rand.New(rand.NewPCG(1, 1)), closed: make(chan struct{})}
}

func (s *signal) set(f func(s *signal)) {
	s.mu.Lock()
	defer s.mu.Unlock()
	f(s)
}

func (s *signal) see(object float64) { s.set(func(s *signal) { s.object = object }) }

func (s *signal) Sample(ctx context.Context) (device.Sample, error) {
	for {
		s.mu.Lock()
		every := s.every
		s.mu.Unlock()
		select {
		case <-ctx.Done():
			return device.Sample{}, ctx.Err()
		case <-s.closed:
			return device.Sample{}, device.ErrClosed
		case <-time.After(every):
		}
		s.mu.Lock()
		fail, told := s.fail, s.told
		s.told = fail != nil
		out := device.Sample{Object: device.Celsius(s.object + s.noise*s.rng.NormFloat64()), Ambient: device.Celsius(s.ambient), HasAmbient: true, At: time.Now()}
		s.mu.Unlock()
		switch {
		case fail == nil:
			s.Good(out.At)
			return out, nil
		case !told:
			s.Fail(fail)
			return device.Sample{}, fail
		}
	}
}

func (s *signal) Close() error {
	s.once.Do(func() { close(s.closed) })
	return nil
}

func config(t testing.TB, src string) Config {
	t.Helper()
	n, err := options.Parse("gate.yaml", []byte(src))
	if err != nil {
		t.Fatal(err)
	}
	c, err := Load(n)
	if err != nil {
		t.Fatal(err)
	}
	c.Uptime = func() time.Duration { return 24 * time.Hour }
	return c
}

var quiet = slog.New(slog.NewTextHandler(io.Discard, nil))

// within measures with a deadline.
func within(t *testing.T, th *Thermometer, d time.Duration, m device.Measurement) device.Temperature {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), d)
	defer cancel()
	r, err := th.Measure(ctx, m)
	if err != nil {
		t.Fatalf("Measure: %v", err)
	}
	return r
}

// lane runs a test within a bubble of fake time, on a thermometer that has
// looked at the empty room for a second.
func lane(t *testing.T, src string, f func(t *testing.T, s *signal, th *Thermometer)) {
	t.Helper()
	synctest.Test(t, func(t *testing.T) {
		s := newSignal()
		th := New(s, config(t, src), quiet)
		if r := within(t, th, time.Second, device.Measurement{}); r.Quality != device.QualityNobody && r.Quality != device.QualityUnusable {
			t.Fatalf("an empty room is %+v", r)
		}
		f(t, s, th)
		if err := th.Close(); err != nil {
			t.Error(err)
		}
		if err := th.Close(); err != nil {
			t.Error(err)
		}
		if h := th.Health(); th.started && h.Reads == 0 {
			t.Errorf("health %+v", h)
		}
	})
}

func TestReading(t *testing.T) {
	lane(t, "", func(t *testing.T, s *signal, th *Thermometer) {
		start := time.Now()
		time.AfterFunc(2*time.Second, func() { s.see(36.4) })
		r := within(t, th, 8*time.Second, device.Measurement{})
		if r.Quality != device.QualityOK || math.Abs(float64(r.Raw)-36.4) > 0.15 || r.Value != r.Raw || r.Uncertainty != 0.4 || r.Profile != "skin/1" || r.Samples < 5 || r.Ambient != 23 {
			t.Errorf("%+v", r)
		}
		if took := time.Since(start) - 2*time.Second; took > time.Second {
			t.Errorf("a reading %v after stepping up", took)
		}
	})
}

// Who stands there already when the card is read is read at once.
func TestPersonWhoStandsThereAlready(t *testing.T) {
	lane(t, "", func(t *testing.T, s *signal, th *Thermometer) {
		s.see(36.4)
		time.Sleep(3 * time.Second)
		start := time.Now()
		if r := within(t, th, 8*time.Second, device.Measurement{}); r.Quality != device.QualityOK || time.Since(start) > 0 {
			t.Errorf("%+v after %v", r, time.Since(start))
		}
	})
}

func TestRearm(t *testing.T) {
	lane(t, "", func(t *testing.T, s *signal, th *Thermometer) {
		s.see(36.4)
		if r := within(t, th, 8*time.Second, device.Measurement{}); r.Quality != device.QualityOK {
			t.Fatalf("%+v", r)
		}
		// The same person stays: the next one's reading must not be theirs.
		if r := within(t, th, 3*time.Second, device.Measurement{}); r.Quality != device.QualityNobody {
			t.Errorf("the last person's temperature was given to the next: %+v", r)
		}
		second := time.Now()
		if r := within(t, th, 3*time.Second, device.Measurement{SamePerson: true}); r.Quality != device.QualityOK || r.At.Sub(second) < 400*time.Millisecond {
			t.Errorf("second reading of the same person: %+v, %v after it was asked for", r, r.At.Sub(second))
		}
		// Half a step back is not leaving.
		s.see(33)
		time.Sleep(time.Second)
		s.see(36.4)
		if r := within(t, th, 3*time.Second, device.Measurement{}); r.Quality != device.QualityNobody {
			t.Errorf("half a step back: %+v", r)
		}
		s.see(22)
		time.Sleep(500 * time.Millisecond)
		s.see(37.9)
		if r := within(t, th, 3*time.Second, device.Measurement{}); r.Quality != device.QualityOK || r.Raw < 37.7 {
			t.Errorf("the next person: %+v", r)
		}
	})
}

func TestWhatWasMissing(t *testing.T) {
	for _, c := range []struct {
		name string
		run  func(s *signal)
		want device.Quality
	}{
		{"nobody", func(*signal) {}, device.QualityNobody},
		{"never still", func(s *signal) {
			for range 100 {
				s.see(36)
				time.Sleep(150 * time.Millisecond)
				s.see(34)
				time.Sleep(150 * time.Millisecond)
			}
		}, device.QualityUnstable},
		{"drifting", func(s *signal) {
			s.set(func(s *signal) { s.noise = 0.005 })
			for i := range 200 {
				s.see(30.5 + 0.04*float64(i))
				time.Sleep(100 * time.Millisecond)
			}
		}, device.QualityUnstable},
		{"cold", func(s *signal) { s.see(27) }, device.QualityInvalid},
		{"a cup of tea", func(s *signal) { s.see(60) }, device.QualityInvalid},
		{"passes by", func(s *signal) { s.see(36); time.Sleep(250 * time.Millisecond); s.see(22) }, device.QualityUnstable},
	} {
		t.Run(c.name, func(t *testing.T) {
			lane(t, "", func(t *testing.T, s *signal, th *Thermometer) {
				var person sync.WaitGroup
				person.Go(func() { c.run(s) })
				defer person.Wait()
				if r := within(t, th, 8*time.Second, device.Measurement{}); r.Quality != c.want || r.Value != 0 || r.Profile != "skin/1" {
					t.Errorf("%+v, want %s", r, c.want)
				}
			})
		})
	}
}

// Somebody cold from the street stands in the band of skin at last.
func TestInvalidFirstThenValid(t *testing.T) {
	lane(t, "", func(t *testing.T, s *signal, th *Thermometer) {
		s.see(29.5)
		time.AfterFunc(time.Second, func() { s.see(34) })
		if r := within(t, th, 8*time.Second, device.Measurement{}); r.Quality != device.QualityOK || r.Raw < 33.9 {
			t.Errorf("%+v", r)
		}
	})
}

func TestCancelIsAnError(t *testing.T) {
	lane(t, "", func(t *testing.T, s *signal, th *Thermometer) {
		ctx, cancel := context.WithCancel(t.Context())
		time.AfterFunc(time.Second, cancel)
		r, err := th.Measure(ctx, device.Measurement{})
		if !errors.Is(err, context.Canceled) || r.Quality != device.QualityNobody {
			t.Errorf("%+v, %v", r, err)
		}
	})
}

// A measurement that is given up takes nothing from the next: the person who
// stepped up meanwhile is still read.
func TestCancelAmidAPerson(t *testing.T) {
	lane(t, "", func(t *testing.T, s *signal, th *Thermometer) {
		ctx, cancel := context.WithCancel(t.Context())
		time.AfterFunc(time.Second, func() { s.see(36.4) })
		time.AfterFunc(1250*time.Millisecond, cancel)
		if r, err := th.Measure(ctx, device.Measurement{}); !errors.Is(err, context.Canceled) {
			t.Errorf("%+v, %v", r, err)
		}
		if r := within(t, th, 3*time.Second, device.Measurement{}); r.Quality != device.QualityOK {
			t.Errorf("%+v", r)
		}
	})
}

func TestCloseEndsMeasure(t *testing.T) {
	lane(t, "", func(t *testing.T, s *signal, th *Thermometer) {
		time.AfterFunc(time.Second, func() {
			if err := th.Close(); err != nil {
				t.Error(err)
			}
		})
		r, err := th.Measure(t.Context(), device.Measurement{})
		if !errors.Is(err, device.ErrClosed) || r.Quality != device.QualityFault {
			t.Errorf("%+v, %v", r, err)
		}
	})
}

func TestFaults(t *testing.T) {
	gone := &device.Error{Device: "thermometer", Op: "read", Kind: device.ErrDisconnected}
	garbled := &device.Error{Device: "thermometer", Op: "read", Kind: device.ErrGarbled}
	for _, c := range []struct {
		name string
		fail error
		want error
		most time.Duration
	}{
		{"unplugged", gone, device.ErrDisconnected, 200 * time.Millisecond},
		{"garbled for good", garbled, device.ErrGarbled, 4 * time.Second},
	} {
		t.Run(c.name, func(t *testing.T) {
			lane(t, "", func(t *testing.T, s *signal, th *Thermometer) {
				s.set(func(s *signal) { s.fail = c.fail })
				for range 3 { // each person hears of it, not only the first
					start := time.Now()
					ctx, cancel := context.WithTimeout(t.Context(), 8*time.Second)
					r, err := th.Measure(ctx, device.Measurement{})
					cancel()
					if !errors.Is(err, c.want) || r.Quality != device.QualityFault || time.Since(start) > c.most {
						t.Errorf("%+v, %v after %v", r, err, time.Since(start))
					}
				}
				s.set(func(s *signal) { s.fail = nil; s.object = 36.4 })
				time.Sleep(time.Second)
				if r := within(t, th, 8*time.Second, device.Measurement{}); r.Quality != device.QualityOK {
					t.Errorf("mended: %+v", r)
				}
			})
		})
	}
}

func TestStuckSensor(t *testing.T) {
	lane(t, "", func(t *testing.T, s *signal, th *Thermometer) {
		s.set(func(s *signal) { s.noise, s.object = 0, 36.6 })
		time.Sleep(time.Minute)
		ctx, cancel := context.WithTimeout(t.Context(), 8*time.Second)
		defer cancel()
		r, err := th.Measure(ctx, device.Measurement{SamePerson: true})
		if !errors.Is(err, device.ErrOutOfRange) || r.Quality != device.QualityFault {
			t.Errorf("%+v, %v", r, err)
		}
		if h := th.Health(); h.State != device.StateFault || !strings.Contains(h.LastError, "stuck at 36.60") {
			t.Errorf("health %+v", h)
		}
	})
}

func TestWarmUp(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := newSignal()
		c := config(t, "warm_up: 30m")
		c.Uptime = func() time.Duration { return 10 * time.Minute }
		th := New(s, c, quiet)
		defer th.Close()
		person := func() device.Quality {
			s.see(22)
			within(t, th, time.Second, device.Measurement{})
			s.see(36.4)
			return within(t, th, 8*time.Second, device.Measurement{}).Quality
		}
		if q := person(); q != device.QualityWarming || th.Health().State != device.StateWarming {
			t.Errorf("ten minutes after power-on: %s, health %s", q, th.Health().State)
		}
		time.Sleep(20 * time.Minute)
		if q := person(); q != device.QualityOK || th.Health().State != device.StateOK {
			t.Errorf("half an hour after power-on: %s, health %s", q, th.Health().State)
		}
		// A cable pulled for two seconds leaves it warm, for a minute it does not.
		for _, c := range []struct {
			away time.Duration
			want device.Quality
		}{{2 * time.Second, device.QualityOK}, {time.Minute, device.QualityWarming}} {
			s.set(func(s *signal) {
				s.fail = &device.Error{Device: "thermometer", Op: "read", Kind: device.ErrDisconnected}
			})
			s.see(22)
			time.Sleep(c.away)
			s.set(func(s *signal) { s.fail = nil })
			time.Sleep(time.Second)
			if q := person(); q != c.want {
				t.Errorf("after %v without it: %s", c.away, q)
			}
		}
	})
}

// In January the gate says so once, and at once, instead of measuring everybody
// again and again.
func TestUnusableHere(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var log strings.Builder
		s := newSignal()
		th := New(s, config(t, ""), slog.New(slog.NewTextHandler(&log, nil)))
		defer th.Close()
		s.set(func(s *signal) { s.ambient, s.object = -3, -4 })
		within(t, th, time.Second, device.Measurement{})
		s.see(28)
		for range 5 {
			start := time.Now()
			r := within(t, th, 8*time.Second, device.Measurement{})
			if r.Quality != device.QualityUnusable || r.Ambient != -3 || time.Since(start) > 0 {
				t.Errorf("%+v after %v", r, time.Since(start))
			}
		}
		if h := th.Health(); !strings.Contains(h.LastError, "unusable here: -3.0 degC is outside") {
			t.Errorf("health %+v", h)
		}
		s.set(func(s *signal) { s.ambient, s.object = 16.2, 16 }) // not enough to flap
		time.Sleep(time.Second)
		if r := within(t, th, time.Second, device.Measurement{}); r.Quality != device.QualityUnusable {
			t.Errorf("%+v", r)
		}
		s.set(func(s *signal) { s.ambient, s.object = 18, 18 })
		time.Sleep(time.Second)
		s.see(34)
		if r := within(t, th, 8*time.Second, device.Measurement{}); r.Quality != device.QualityOK {
			t.Errorf("%+v", r)
		}
		if n := strings.Count(log.String(), "unusable here"); n != 1 {
			t.Errorf("%d alerts:\n%s", n, log.String())
		}
	})
}

// What is warm and stays becomes background; people are still seen before it.
func TestParkedWarmth(t *testing.T) {
	lane(t, "", func(t *testing.T, s *signal, th *Thermometer) {
		s.see(31)
		time.Sleep(parkedFor + time.Minute)
		if r := within(t, th, 2*time.Second, device.Measurement{}); r.Quality != device.QualityNobody {
			t.Errorf("a warm wall is %+v", r)
		}
		s.see(36.2)
		if r := within(t, th, 2*time.Second, device.Measurement{}); r.Quality != device.QualityOK {
			t.Errorf("%+v", r)
		}
	})
}

func TestRanger(t *testing.T) {
	p := NewPipeline(config(t, ""))
	at := time.Now()
	add := func(object device.Celsius, mm int) {
		at = at.Add(100 * time.Millisecond)
		p.Add(device.Sample{Object: object, Ambient: 34, HasAmbient: true, Range: mm, At: at})
	}
	for range 10 {
		add(35.5, 2000) // a hot summer's wall
	}
	if here, _ := p.Present(); here {
		t.Error("a wall is somebody")
	}
	for range 10 {
		add(36.3, 400)
	}
	if r, ok := p.Reading(time.Time{}); !ok || r.Quality != device.QualityOK {
		t.Errorf("%+v, %v", r, ok)
	}
}

// The limits of a plateau, to the sample.
func TestPlateauLimits(t *testing.T) {
	level := func(v ...float64) []float64 { return v }
	for _, c := range []struct {
		name string
		v    []float64
		want float64 // 0 = none
	}{
		{"five level samples", level(36.5, 36.5, 36.5, 36.5, 36.5), 36.5},
		{"four are too few", level(36.5, 36.5, 36.5, 36.5), 0},
		{"range 0.30", level(36.2, 36.5, 36.2, 36.5, 36.2), 36.5},
		{"range 0.31", level(36.19, 36.5, 36.2, 36.5, 36.2), 0},
		{"slope 0.2", level(36.00, 36.02, 36.04, 36.06, 36.08), 36.06},
		{"slope 0.21", level(36.000, 36.021, 36.042, 36.063, 36.084), 0},
		{"falling", level(36.30, 36.25, 36.20, 36.15, 36.10), 0},
		{"median of the top three", level(36.50, 36.38, 36.51, 36.40, 36.49), 36.50},
	} {
		t.Run(c.name, func(t *testing.T) {
			p := NewPipeline(config(t, ""))
			at := time.Now()
			p.Add(device.Sample{Object: 22, Ambient: 22, HasAmbient: true, At: at})
			for _, v := range c.v {
				at = at.Add(100 * time.Millisecond)
				p.Add(device.Sample{Object: device.Celsius(v), Ambient: 22, HasAmbient: true, At: at})
			}
			r, ok := p.Reading(time.Time{})
			if ok != (c.want != 0) || math.Abs(float64(r.Raw)-c.want) > 1e-9 {
				t.Errorf("%+v, %v; want %v", r, ok, c.want)
			}
		})
	}
}

// Whatever the signal: a reading that is OK rests on enough fresh samples that
// are near enough to each other and to it, of somebody who is there.
func TestReadingProperties(t *testing.T) {
	c := config(t, "")
	rapid.Check(t, func(t *rapid.T) {
		p := NewPipeline(c)
		at := time.Unix(1700000000, 0)
		var all []device.Sample
		n := rapid.IntRange(1, 80).Draw(t, "samples")
		level := 22.0
		for range n {
			if rapid.IntRange(0, 9).Draw(t, "jump") == 0 {
				level = rapid.Float64Range(10, 45).Draw(t, "level")
			}
			at = at.Add(time.Duration(rapid.IntRange(50, 1500).Draw(t, "ms")) * time.Millisecond)
			s := device.Sample{Object: device.Celsius(level + rapid.Float64Range(-0.2, 0.2).Draw(t, "noise")), Ambient: 23, HasAmbient: true, At: at}
			all = append(all, s)
			p.Add(s)
			r, ok := p.Reading(time.Time{})
			if !ok {
				continue
			}
			if here, _ := p.Present(); !here {
				t.Fatalf("a reading of nobody: %+v", r)
			}
			if r.Samples < c.MinSamples || r.Samples > len(all) {
				t.Fatalf("a reading of %d samples", r.Samples)
			}
			used := all[len(all)-r.Samples:]
			lo, hi := math.Inf(1), math.Inf(-1)
			for _, u := range used {
				lo, hi = min(lo, float64(u.Object)), max(hi, float64(u.Object))
			}
			if hi-lo > c.MaxRange+1e-6 || float64(r.Raw) < lo || float64(r.Raw) > hi || at.Sub(used[0].At) > windowAge {
				t.Fatalf("%+v of %v", r, used)
			}
			if skin := r.Raw >= MinSkin && r.Raw <= MaxSkin; (r.Quality == device.QualityOK) != skin {
				t.Fatalf("%+v", r)
			}
		}
	})
}

func TestNoGoroutineIsLeft(t *testing.T) {
	leaks := goleak.IgnoreCurrent()
	th := New(newSignal(), config(t, ""), quiet)
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	_, _ = th.Measure(ctx, device.Measurement{})
	if err := th.Close(); err != nil {
		t.Fatal(err)
	}
	goleak.VerifyNone(t, leaks)
}

func TestProfiles(t *testing.T) {
	own := "profile: {name: a, version: 1, curve: %s}"
	for _, c := range []struct{ name, src, want string }{
		{"none such", "profile: skim", `gate.yaml:1:10: profile: no profile is called "skim", did you mean "skin"?`},
		// A kiosk on the market maps 31.9 to 36.8, 31.95 to 31.95 and 32.0 to 36.05.
		{"the kiosk", fmt.Sprintf(own, "[[29, 29], [31.9, 36.8], [31.95, 31.95], [32, 36.05], [42, 42]]"), "does not rise from 31.9 to 31.95"},
		{"a jump", fmt.Sprintf(own, "[[29, 29], [32, 32], [32, 34], [42, 42]]"), "32 follows 32"},
		{"steep", fmt.Sprintf(own, "[[29, 29], [36, 36], [36.1, 37], [42, 42]]"), "rises by 10 degC for each degree between 36 and 36.1"},
		{"flat", fmt.Sprintf(own, "[[30, 30], [36.9, 36.6], [38, 36.7], [42, 42]]"), "rises by 0.091"},
		{"short", fmt.Sprintf(own, "[[34, 34], [40, 40]]"), "runs from 34 to 40"},
		{"one point", fmt.Sprintf(own, "[[34, 34]]"), "two points"},
		{"a triple", fmt.Sprintf(own, "[[30, 30], [42, 42, 1]]"), "point 2 has 3 numbers"},
		{"far", fmt.Sprintf(own, "[[30, 37], [42, 42]]"), "a change of more than 6"},
		{"no name", "profile: {version: 1, curve: [[30, 30], [42, 42]]}", "name: must be given"},
		{"no version", "profile: {name: a, curve: [[30, 30], [42, 42]]}", "version: must be 1 or more"},
		{"a shipped name", "profile: {name: skin, version: 1, curve: [[30, 30], [42, 42]]}", "take another"},
		{"shift the wrong way", "profile: {name: a, version: 1, curve: [[30, 30], [42, 42]], shift: [[10, 0], [40, 1]]}", "colder skin would be corrected less"},
		{"shift too short", "profile: {name: a, version: 1, curve: [[30, 30], [42, 42]], shift: [[20, 1], [30, 0]]}", "does not cover"},
		{"unknown key", "profile: {nome: a}", `unknown key "nome", did you mean "name"?`},
		{"too few samples", "min_samples: 4", "min_samples: 4 is not between 5 and 24"},
		{"no unit", "warm_up: 30", "duration"},
		{"looser than a valid reading may be", "max_range: 0.5", "0.5 is not between"},
	} {
		t.Run(c.name, func(t *testing.T) {
			n, err := options.Parse("gate.yaml", []byte(c.src))
			if err != nil {
				t.Fatal(err)
			}
			if _, err := Load(n); err == nil || !strings.Contains(err.Error(), c.want) {
				t.Errorf("error %v, want %q", err, c.want)
			}
		})
	}
}

// Every shipped profile, and one of an installer's, is continuous and rises,
// at every ambient temperature.
func TestProfilesAreContinuousAndRise(t *testing.T) {
	all := Shipped()
	all = append(all, *config(t, "profile: {name: winter, version: 2, ambient_min: 5, ambient_max: 30, curve: [[30, 30.4], [34, 34.6], [42, 42.6]], shift: [[5, 1.2], [20, 0.2], [30, 0]]}").Profile)
	for _, p := range all {
		if err := p.Check(); err != nil {
			t.Errorf("%s: %v", &p, err)
		}
		rapid.Check(t, func(t *rapid.T) {
			ambient := device.Celsius(rapid.Float64Range(p.AmbientMin, p.AmbientMax).Draw(t, "ambient"))
			raw := device.Celsius(rapid.Float64Range(25, 45).Draw(t, "raw"))
			const step = 0.001
			a, b := p.Correct(raw, ambient), p.Correct(raw+step, ambient)
			if b <= a || float64(b-a) > mostSlope*step*1.001 {
				t.Fatalf("%s at %v: %v -> %v, %v -> %v", &p, ambient, raw, a, raw+step, b)
			}
		})
	}
	if v := all[1].Correct(34, 20); math.Abs(float64(v)-34.8) > 1e-9 {
		t.Errorf("34 at 20 degC is %v, want 34.8", v)
	}
}

func BenchmarkPipeline(b *testing.B) {
	p := NewPipeline(config(b, ""))
	at := time.Now()
	v := 0
	b.ReportAllocs()
	for b.Loop() {
		at = at.Add(100 * time.Millisecond)
		v++
		p.Add(device.Sample{Object: device.Celsius(22 + 14*float64(v/50%2) + 0.01*float64(v%7)), Ambient: 23, HasAmbient: true, At: at})
		p.Reading(time.Time{})
	}
}

func slogTo(w io.Writer) *slog.Logger { return slog.New(slog.NewTextHandler(w, nil)) }

func contextWithTimeout(t *testing.T, d time.Duration) (context.Context, context.CancelFunc) {
	return context.WithTimeout(t.Context(), d)
}

// rawText is a reading as a replay writes it.
func rawText(r device.Temperature) string {
	return fmt.Sprintf("%s: raw %.2f", r.Quality, float64(r.Raw))
}
