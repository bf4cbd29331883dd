package thermometry

import (
	"bytes"
	"flag"
	"math"
	"math/rand/v2"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"gatehouse/device"
)

var update = flag.Bool("update", false, "write the golden files")

// A week of ordinary days, then one on which everything reads half a degree more.
func TestDrift(t *testing.T) {
	rng := rand.New(rand.NewPCG(1, 1))
	path := filepath.Join(t.TempDir(), "east-in.drift")
	d := &Drift{}
	at := time.Date(2026, 3, 1, 7, 0, 0, 0, time.UTC)
	day := func(median float64, readings int) (alarm string) {
		for range readings {
			if _, a := d.Add(median+0.25*rng.NormFloat64(), at); a != "" {
				alarm = a
			}
		}
		at = at.Add(24 * time.Hour)
		// Every night the gate is restarted.
		if err := d.save(path); err != nil {
			t.Fatal(err)
		}
		d = &Drift{}
		if err := d.load(path); err != nil {
			t.Fatal(err)
		}
		return alarm
	}
	for i := range 30 {
		if a := day(34.6, 400); a != "" {
			t.Fatalf("day %d: %s", i, a)
		}
	}
	day(35.3, 20) // too few to say anything
	if a := day(35.1, 400); a != "" {
		t.Errorf("a day of few readings: %s", a)
	}
	if a := day(34.6, 1); !strings.Contains(a, "the median of 2026-04-01 was 35.1 degC, that of the days before 34.6") {
		t.Errorf("half a degree more: %q", a)
	}
	if err := (&Drift{}).load(filepath.Join(t.TempDir(), "none")); err != nil {
		t.Error(err)
	}
	if err := os.WriteFile(path, []byte("{"), 0o600); err != nil {
		t.Fatal(err)
	}
	if err := d.load(path); err == nil {
		t.Error("a file cut short is taken")
	}
}

// The watch is fed by good readings, and alarms once a day.
func TestDriftOfThermometer(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var log strings.Builder
		s := newSignal()
		th := New(s, config(t, "warm_up: 0s"), slogTo(&log))
		defer th.Close()
		for day := range 6 {
			skin := 35.0
			if day == 4 {
				skin = 36.1
			}
			for range driftLeast + 1 {
				s.see(22)
				time.Sleep(2 * time.Second)
				s.see(skin)
				if r := within(t, th, 8*time.Second, device.Measurement{}); r.Quality != device.QualityOK {
					t.Fatalf("%+v", r)
				}
			}
			s.see(22)
			s.set(func(s *signal) { s.every = 2 * time.Second }) // the night is long
			time.Sleep(24*time.Hour - 10*time.Minute)
			s.set(func(s *signal) { s.every = 100 * time.Millisecond })
			time.Sleep(2 * time.Second)
		}
		if n := strings.Count(log.String(), "thermometer drifts"); n != 1 || !strings.Contains(log.String(), "was 36.1 degC, that of the days before 35.0") {
			t.Errorf("%d alarms:\n%s", n, log.String())
		}
	})
}

// arrays is a presence sensor that says what it is told.
type arrays struct{ *signal }

func TestPresenceAndBlackBody(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s, eye := newSignal(), arrays{newSignal()}
		c := config(t, "warm_up: 0s\nblack_body: 35\npresence: {driver: amg8833}")
		c.Presence = eye
		th := New(s, c, quiet)
		defer th.Close()
		s.see(35.4) // the sensor reads 0.4 too much
		time.Sleep(time.Second)
		if r := within(t, th, 2*time.Second, device.Measurement{}); r.Quality != device.QualityNobody {
			t.Errorf("a black body is %+v", r)
		}
		eye.see(32)
		s.see(36.9)
		r := within(t, th, 8*time.Second, device.Measurement{})
		if r.Quality != device.QualityOK || math.Abs(float64(r.Raw)-36.9) > 0.15 || math.Abs(float64(r.Raw-r.Value)-0.4) > 0.1 {
			t.Errorf("%+v", r)
		}
		eye.see(22)
		s.see(37.5) // now it is beyond repair
		time.Sleep(2 * time.Minute)
		ctx, cancel := contextWithTimeout(t, 8*time.Second)
		defer cancel()
		r, err := th.Measure(ctx, device.Measurement{})
		if err == nil || r.Quality != device.QualityFault || !strings.Contains(err.Error(), "misreads its black body by +2.") {
			t.Errorf("%+v, %v", r, err)
		}
	})
}

// Without its presence sensor the thermometer looks for a jump itself.
func TestPresenceSensorFails(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s, eye := newSignal(), arrays{newSignal()}
		c := config(t, "warm_up: 0s\npresence: {driver: amg8833}")
		c.Presence = eye
		th := New(s, c, quiet)
		defer th.Close()
		eye.set(func(s *signal) {
			s.fail = &device.Error{Device: "presence", Op: "read", Kind: device.ErrAbsent}
		})
		within(t, th, 3*time.Second, device.Measurement{})
		s.see(36.5)
		if r := within(t, th, 8*time.Second, device.Measurement{}); r.Quality != device.QualityOK {
			t.Errorf("%+v", r)
		}
	})
}

// What a thermometer records is replayed with the same readings.
func TestRecordAndReplay(t *testing.T) {
	path := filepath.Join(t.TempDir(), "samples")
	var live []device.Temperature
	synctest.Test(t, func(t *testing.T) {
		s := newSignal()
		th := New(s, config(t, "warm_up: 0s\nrecord_for: 1m\nrecord: "+path), quiet)
		within(t, th, 950*time.Millisecond, device.Measurement{})
		for _, skin := range []float64{36.4, 38.2, 28, 36.7} {
			s.see(skin)
			live = append(live, within(t, th, 3950*time.Millisecond, device.Measurement{}))
			s.see(22)
			time.Sleep(990 * time.Millisecond)
		}
		time.Sleep(2 * time.Minute) // the recording ends before
		if err := th.Close(); err != nil {
			t.Error(err)
		}
	})
	f, err := os.Open(path)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	samples, err := ReadSamples(f)
	if err != nil {
		t.Fatal(err)
	}
	if n := len(samples); n < 590 || n > 600 {
		t.Errorf("%d samples of a minute", n)
	}
	var out bytes.Buffer
	if err := Replay(samples, config(t, ""), &out); err != nil {
		t.Fatal(err)
	}
	golden := filepath.Join("testdata", "replay.golden")
	if *update {
		if err := os.MkdirAll("testdata", 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(golden, out.Bytes(), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	want, err := os.ReadFile(golden)
	if err != nil {
		t.Fatal(err)
	}
	if !bytes.Equal(out.Bytes(), want) {
		t.Errorf("replayed:\n%s\nwant:\n%s", out.Bytes(), want)
	}
	for i, r := range live {
		if r.Quality == device.QualityInvalid {
			continue // given a second after the replay shows it, in case the person is on the way
		}
		if text := rawText(r); !strings.Contains(out.String(), text) {
			t.Errorf("reading %d, %s, is not in the replay", i, text)
		}
	}
}

func TestRecordingErrors(t *testing.T) {
	for _, c := range []struct{ src, want string }{
		{"1 36.5", "line 1: want milliseconds"},
		{"# about\n\nx 36.5 22", `line 3: "x" is no time`},
		{"1 NaN 22", `"NaN" is no temperature`},
		{"1 36 -400", `"-400" is no temperature`},
		{"1 36 22 0", `"0" is no range`},
		{"2 36 22\n1 36 22", "line 2: time runs backwards"},
	} {
		if _, err := ReadSamples(strings.NewReader(c.src)); err == nil || !strings.Contains(err.Error(), c.want) {
			t.Errorf("%q: %v, want %q", c.src, err, c.want)
		}
	}
	got, err := ReadSamples(strings.NewReader("# x\n100.5 36.41 - # y\n200 36.5 22.25 640\n"))
	if err != nil || len(got) != 2 || got[0].HasAmbient || got[1].Ambient != 22.25 || got[1].Range != 640 || got[1].At.Sub(got[0].At) != 99500*time.Microsecond {
		t.Errorf("%+v, %v", got, err)
	}
}

func FuzzReadSamples(f *testing.F) {
	f.Add("100.5 36.41 -\n200 36.5 22.25 640\n")
	c := config(f, "")
	f.Fuzz(func(t *testing.T, src string) {
		samples, err := ReadSamples(strings.NewReader(src))
		if err != nil {
			return
		}
		var out bytes.Buffer
		if err := Replay(samples, c, &out); err != nil {
			t.Error(err)
		}
		var again bytes.Buffer
		for _, s := range samples {
			if _, err := WriteSample(&again, s.At.Sub(time.Unix(0, 0)), s); err != nil {
				t.Error(err)
			}
		}
		if got, err := ReadSamples(&again); err != nil || len(got) != len(samples) {
			t.Errorf("written and read again: %d of %d samples, %v", len(got), len(samples), err)
		}
	})
}
