// Package thermometry takes the temperature of one person at a time with an
// infrared sensor: it makes a device.Thermometer of a device.Sensor.
//
// # What counts as a reading
//
//   - Somebody is there: the sensor sees what is warmer than the background by a
//     jump, or a ranger says so. The background is followed slowly, and begins
//     with the sensor's own temperature.
//   - At least five fresh samples of that person within three seconds, with a
//     range of at most 0.3 degC and a slope of at most 0.2 degC/s. The reading is
//     the median of the top three of them.
//   - Skin between 30 and 42 degC. Outside is invalid, never normal.
//
// One person is read once; the next reading waits until that person has left and
// somebody has come, unless the caller asks for the same person again. At ten
// samples in a second a reading is there 0.6 to 1 s after somebody stepped up,
// and at once when that person stood there already. A second reading of the same
// person rests on samples of its own.
//
// # A number is not a fever
//
// The raw value, the corrected one, and the profile's name and version are kept;
// see Profile. Within the warm-up after power-on a reading has QualityWarming.
// With an ambient temperature outside the profile's range nothing is measured:
// QualityUnusable, at once.
//
// # Config
//
// Beside the driver's keys, in the thermometer's mapping:
//
//	thermometer:
//	  driver: gy-mcu90614
//	  port: /dev/serial/by-id/usb-...
//	  profile: skin        # or a mapping, see below
//	  warm_up: 30m         # after power-on; 0s for none
//	  min_samples: 5       # a slow sensor needs time, not fewer samples
//	  max_range: 0.3       # degC
//	  max_slope: 0.2       # degC/s
//	  jump: 2              # degC over the background that is somebody
//	  near: 700            # mm, for a sensor with a ranger
//	  uncertainty: 0.4     # degC; the profile's where it is not given
//	  presence:            # another sensor says whether somebody is there
//	    driver: amg8833
//	  black_body: 35.0     # degC of what the sensor sees with nobody there
//	  drift_file: /var/lib/gatehouse/east-in.drift   # the watch over restarts
//	  record: /var/lib/gatehouse/east-in.samples     # raw samples, for a diagnosis
//	  record_for: 1h       # from the start, at most 24h
//
// A black body needs a presence sensor, since a face does not stand out from it.
// The sensor's error is followed and taken off the value (never off the raw
// reading); beyond 1 degC the sensor is at fault.
//
// A profile of the installer's own:
//
//	profile:
//	  name: east-gate-winter
//	  version: 2
//	  ambient_min: 5
//	  ambient_max: 30
//	  uncertainty: 0.5
//	  curve: [[30, 30.4], [34, 34.6], [42, 42.6]]   # raw, value
//	  shift: [[5, 1.2], [20, 0.2], [30, 0]]         # ambient, added to raw
//
// # Sources
//
// ISO 80601-2-56 (clinical thermometers), ISO/TR 13154 and ISO 80601-2-59
// (screening), ASTM E1965 (infrared thermometers). What was checked: the rules
// above in tests on made-up and random signals. Gatehouse is not a medical
// device.
package thermometry

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"slices"
	"sync"
	"time"

	"golang.org/x/sys/unix"

	"gatehouse/device"
	"gatehouse/device/options"
)

// Config is how readings are taken. The defaults are Default's.
type Config struct {
	Profile     *Profile
	WarmUp      time.Duration
	MinSamples  int
	MaxRange    float64 // degC
	MaxSlope    float64 // degC/s
	Jump        float64 // degC
	Near        int     // mm
	Uncertainty float64 // degC
	BlackBody   float64 // degC, 0 = none
	DriftFile   string
	Record      string
	RecordFor   time.Duration

	// Tap, when set, is shown each sample of the sensor as it came, and each error.
	Tap func(device.Sample, error)

	// Presence is another sensor that says whether somebody is there, or nil.
	// The thermometer owns it.
	Presence device.Sensor
	// Uptime is how long the machine, and with it the sensor, has had power.
	// Nil asks the kernel.
	Uptime func() time.Duration
}

// file is Config as it stands in gate.yaml.
type file struct {
	Profile     options.Node  `yaml:"profile"`
	WarmUp      time.Duration `yaml:"warm_up"`
	MinSamples  int           `yaml:"min_samples"`
	MaxRange    float64       `yaml:"max_range"`
	MaxSlope    float64       `yaml:"max_slope"`
	Jump        float64       `yaml:"jump"`
	Near        int           `yaml:"near"`
	Uncertainty float64       `yaml:"uncertainty"`
	Presence    options.Node  `yaml:"presence"` // the catalogue's
	BlackBody   float64       `yaml:"black_body"`
	DriftFile   string        `yaml:"drift_file"`
	Record      string        `yaml:"record"`
	RecordFor   time.Duration `yaml:"record_for"`
}

// Keys are the keys of a thermometer's mapping that are read here; all others
// are the driver's.
func Keys() []string {
	return []string{"profile", "warm_up", "min_samples", "max_range", "max_slope", "jump", "near", "uncertainty",
		"presence", "black_body", "drift_file", "record", "record_for"}
}

// Load reads and checks a Config. n holds Keys only.
func Load(n options.Node) (Config, error) {
	f := file{WarmUp: 30 * time.Minute, MinSamples: 5, MaxRange: 0.3, MaxSlope: 0.2, Jump: 2, Near: 700, RecordFor: time.Hour}
	if err := n.Decode(&f); err != nil {
		return Config{}, err
	}
	p, err := LoadProfile(n.At("profile"))
	if err != nil {
		return Config{}, err
	}
	if n.At("uncertainty").IsZero() {
		f.Uncertainty = p.Uncertainty
	}
	for _, c := range []struct {
		key      string
		v        float64
		min, max float64
		unit     string
	}{
		{"warm_up", f.WarmUp.Minutes(), 0, 240, "minutes"},
		{"min_samples", float64(f.MinSamples), 5, windowMost, "samples"},
		{"max_range", f.MaxRange, 0.05, 0.3, "degC"},
		{"max_slope", f.MaxSlope, 0.05, 0.2, "degC/s"},
		{"jump", f.Jump, 0.5, 15, "degC"},
		{"near", float64(f.Near), 50, 4000, "mm"},
		{"uncertainty", f.Uncertainty, 0.1, 2, "degC"},
		{"record_for", f.RecordFor.Minutes(), 1, 24 * 60, "minutes"},
	} {
		if !(c.v >= c.min && c.v <= c.max) {
			return Config{}, n.At(c.key).Errorf("%g is not between %g and %g %s", c.v, c.min, c.max, c.unit)
		}
	}
	if at := n.At("black_body"); !at.IsZero() {
		if !(f.BlackBody >= MinSkin && f.BlackBody <= MaxSkin) {
			return Config{}, at.Errorf("%g degC is not between %g and %g", f.BlackBody, MinSkin, MaxSkin)
		}
		if n.At("presence").IsZero() {
			return Config{}, at.Errorf("needs presence: a face does not stand out from a black body")
		}
	}
	return Config{BlackBody: f.BlackBody, DriftFile: f.DriftFile, Record: f.Record, RecordFor: f.RecordFor, Profile: p, WarmUp: f.WarmUp, MinSamples: f.MinSamples, MaxRange: f.MaxRange, MaxSlope: f.MaxSlope,
		Jump: f.Jump, Near: f.Near, Uncertainty: f.Uncertainty}, nil
}

const (
	// stale is how long a sensor may give no good sample before it is at fault.
	stale = 3 * time.Second
	// coldAfter is how long a sensor may be away without cooling down.
	coldAfter = 10 * time.Second
	// invalidFor is how long a plateau must stay outside the band of skin
	// before it is the result: somebody who walks up is a cold plateau first.
	invalidFor = time.Second
)

// Thermometer measures with one sensor. The sensor is read all the time from
// the first Measure on, so that whoever comes is seen coming.
type Thermometer struct {
	sensor device.Sensor
	c      Config
	log    *slog.Logger

	one chan struct{} // a Measure at a time

	mu      sync.Mutex
	pipe    *Pipeline
	started bool
	closed  bool
	stop    context.CancelFunc
	done    chan struct{}
	changed chan struct{} // closed and replaced with each sample or fault
	fault   error         // the sensor's, until its next good sample
	why     error         // the last passing error
	good    time.Time     // when the last good sample came, or sampling began
	power   time.Time     // since when the sensor is taken to have power
	taken   uint64        // the last person whose reading was given
	alerted bool          // that the lane is unusable here
	counts  map[string]uint64
	drift   *Drift
	drifted string    // why the drift watch is alarmed
	rec     *recorder // nil when nothing is recorded
	here    bool      // what the presence sensor said last
	hereAt  time.Time
}

var _ device.Thermometer = (*Thermometer)(nil)

// New builds a thermometer on a sensor, which it owns. It starts nothing.
func New(s device.Sensor, c Config, log *slog.Logger) *Thermometer {
	if c.Uptime == nil {
		c.Uptime = uptime
	}
	return &Thermometer{sensor: s, c: c, log: log, one: make(chan struct{}, 1), pipe: NewPipeline(c), changed: make(chan struct{}), counts: map[string]uint64{}, drift: &Drift{}}
}

func uptime() time.Duration {
	var ts unix.Timespec
	if err := unix.ClockGettime(unix.CLOCK_BOOTTIME, &ts); err != nil {
		return 0
	}
	return time.Duration(ts.Nano())
}

// Measure implements device.Thermometer.
func (t *Thermometer) Measure(ctx context.Context, m device.Measurement) (device.Temperature, error) {
	select {
	case t.one <- struct{}{}:
		defer func() { <-t.one }()
	case <-ctx.Done():
		return t.end(ctx, device.QualityNobody)
	}
	if err := t.start(); err != nil {
		return device.Temperature{Quality: device.QualityFault, At: time.Now()}, err
	}
	best := device.QualityNobody // what to say if the time runs out
	var invalid device.Temperature
	var invalidSince time.Time
	seen := uint64(0)
	var after time.Time // a second reading rests on new samples
	if m.SamePerson {
		after = time.Now()
	}
	for {
		t.mu.Lock()
		changed := t.changed
		if err := t.faultNow(); err != nil {
			t.mu.Unlock()
			return device.Temperature{Quality: device.QualityFault, Profile: t.c.Profile.String(), At: time.Now()}, err
		}
		if out, ambient := t.pipe.Unusable(); out {
			t.counts["unusable"]++
			t.mu.Unlock()
			return device.Temperature{Quality: device.QualityUnusable, Ambient: ambient, Profile: t.c.Profile.String(), At: time.Now()}, nil
		}
		here, gen := t.pipe.Present()
		if here && (m.SamePerson || gen > t.taken) {
			if gen != seen {
				seen, invalidSince = gen, time.Time{}
			}
			if best == device.QualityNobody {
				best = device.QualityUnstable
			}
			r, ok := t.pipe.Reading(after)
			switch {
			case ok && r.Quality == device.QualityInvalid:
				if invalidSince.IsZero() {
					invalidSince = r.At
				}
				best, invalid = device.QualityInvalid, r
				ok = r.At.Sub(invalidSince) >= invalidFor
			case ok && r.Quality == device.QualityOK && t.warming(r.At):
				r.Quality = device.QualityWarming
			case !ok:
				invalidSince = time.Time{}
			}
			if ok {
				t.taken = gen
				t.counts[string(r.Quality)]++
				if r.Quality == device.QualityOK {
					t.watchDrift(r)
				}
				t.mu.Unlock()
				return r, nil
			}
		}
		wait := time.Until(t.good.Add(stale))
		t.mu.Unlock()
		if err := t.wait(ctx, changed, wait); err != nil {
			if errors.Is(err, context.DeadlineExceeded) { // else nothing was given, and who stands there may still be read
				t.mu.Lock()
				t.taken = max(t.taken, seen)
				t.counts[string(best)]++
				t.mu.Unlock()
			}
			if best == device.QualityInvalid {
				if errors.Is(err, context.DeadlineExceeded) {
					err = nil
				}
				return invalid, err
			}
			return t.end(ctx, best)
		}
	}
}

// wait is until something has changed, or for as long as the sensor may be
// silent. The error is the context's.
func (t *Thermometer) wait(ctx context.Context, changed <-chan struct{}, d time.Duration) error {
	timer := time.NewTimer(max(d, time.Millisecond))
	defer timer.Stop()
	select {
	case <-changed:
		return nil
	case <-timer.C:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}

// end is the result of a measurement whose time is over, or that was cancelled.
func (t *Thermometer) end(ctx context.Context, q device.Quality) (device.Temperature, error) {
	r := device.Temperature{Quality: q, Profile: t.c.Profile.String(), At: time.Now()}
	if err := ctx.Err(); !errors.Is(err, context.DeadlineExceeded) {
		return r, err
	}
	return r, nil
}

// faultNow says why the sensor cannot be used. t.mu is held.
func (t *Thermometer) faultNow() error {
	name := t.sensor.Health().Name
	switch {
	case t.closed:
		return &device.Error{Device: name, Op: "read", Kind: device.ErrClosed}
	case t.fault != nil:
		return t.fault
	case time.Since(t.good) >= stale:
		if t.why != nil {
			return t.why
		}
		return &device.Error{Device: name, Op: "read", Kind: device.ErrDisconnected, Err: fmt.Errorf("no sample for %v", stale)}
	case t.pipe.Stuck():
		return &device.Error{Device: name, Op: "read", Kind: device.ErrOutOfRange, Err: fmt.Errorf("stuck at %.2f degC", float64(t.pipe.last.Object))}
	}
	if off, ok := t.pipe.BlackBodyError(); !ok && off != 0 {
		return &device.Error{Device: name, Op: "read", Kind: device.ErrOutOfRange, Err: fmt.Errorf("it misreads its black body by %+.2f degC", float64(off))}
	}
	return nil
}

func (t *Thermometer) warming(at time.Time) bool { return at.Sub(t.power) < t.c.WarmUp }

// start begins to sample, once.
func (t *Thermometer) start() error {
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.closed {
		return &device.Error{Device: t.sensor.Health().Name, Op: "read", Kind: device.ErrClosed}
	}
	if t.started {
		return nil
	}
	t.started, t.good = true, time.Now()
	t.power = t.good.Add(-t.c.Uptime())
	if err := t.drift.load(t.c.DriftFile); err != nil {
		t.log.Warn("the drift watch begins anew", "device", t.sensor.Health().Name, "error", err)
	}
	if t.c.Record != "" {
		var err error
		if t.rec, err = newRecorder(t.c.Record, t.c.RecordFor, t.sensor.Health()); err != nil {
			t.log.Warn("raw samples are not recorded", "device", t.sensor.Health().Name, "error", err)
		}
	}
	ctx, cancel := context.WithCancel(context.Background())
	t.stop, t.done = cancel, make(chan struct{})
	go t.run(ctx)
	return nil
}

func (t *Thermometer) run(ctx context.Context) {
	defer close(t.done)
	if t.c.Presence != nil {
		var other sync.WaitGroup
		other.Go(func() { t.runPresence(ctx) })
		defer other.Wait()
	}
	for ctx.Err() == nil {
		s, err := t.sensor.Sample(ctx)
		if t.c.Tap != nil && ctx.Err() == nil {
			t.c.Tap(s, err)
		}
		if err == nil {
			t.add(s)
			continue
		}
		if ctx.Err() != nil || errors.Is(err, device.ErrClosed) {
			return
		}
		t.failed(err)
	}
}

// presenceHolds is how long the presence sensor's word holds; without it the
// thermometer looks for a jump itself, unless it looks at a black body.
const presenceHolds = time.Second

func (t *Thermometer) runPresence(ctx context.Context) {
	for ctx.Err() == nil {
		s, err := t.c.Presence.Sample(ctx)
		if err != nil {
			if errors.Is(err, device.ErrClosed) {
				return
			}
			continue // in its health, and it blocks while the fault lasts
		}
		t.mu.Lock()
		t.here, t.hereAt = somebody(s, t.c.Jump), time.Now()
		t.mu.Unlock()
	}
}

// somebody looks for a warm spot: in an image over its median, which is the
// background, else over the ambient temperature.
func somebody(s device.Sample, jump float64) bool {
	ground := s.Ambient
	if len(s.Image) > 0 {
		sorted := slices.Sorted(slices.Values(s.Image))
		ground = sorted[len(sorted)/2]
	}
	return float64(s.Object-ground) >= jump
}

func (t *Thermometer) add(s device.Sample) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if word := t.c.Presence != nil && time.Since(t.hereAt) < presenceHolds; s.Range == 0 && (word || t.c.BlackBody != 0) {
		if s.Range = t.c.Near + 1; word && t.here {
			s.Range = t.c.Near
		}
	}
	if t.rec != nil {
		if err := t.rec.add(s); err != nil {
			t.log.Info("recording of raw samples has ended", "device", t.sensor.Health().Name, "reason", err)
			t.rec = nil
		}
	}
	if t.fault != nil {
		if time.Since(t.good) > coldAfter {
			t.power = s.At
		}
		t.fault = nil
		t.pipe = NewPipeline(t.c)
		t.taken = 0
	}
	t.why, t.good = nil, time.Now()
	t.pipe.Add(s)
	if out, ambient := t.pipe.Unusable(); out != t.alerted {
		t.alerted = out
		if out {
			t.log.Warn("thermometer is unusable here: the ambient temperature is outside its profile's range",
				"device", t.sensor.Health().Name, "ambient", float64(ambient), "profile", t.c.Profile.String(), "min", t.c.Profile.AmbientMin, "max", t.c.Profile.AmbientMax)
		} else {
			t.log.Info("thermometer is usable again", "device", t.sensor.Health().Name, "ambient", float64(ambient))
		}
	}
	t.notify()
}

// watchDrift takes a good reading into the day's histogram. t.mu is held.
func (t *Thermometer) watchDrift(r device.Temperature) {
	moved, alarm := t.drift.Add(float64(r.Value), r.At)
	if !moved {
		return
	}
	if t.drifted = alarm; alarm != "" {
		t.counts["drift"]++
		t.log.Warn("thermometer drifts: check it against a second instrument", "device", t.sensor.Health().Name, "reason", alarm)
	}
	if err := t.drift.save(t.c.DriftFile); err != nil {
		t.log.Warn("the drift watch is not kept", "device", t.sensor.Health().Name, "error", err)
	}
}

func (t *Thermometer) failed(err error) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if errors.Is(err, device.ErrGarbled) || errors.Is(err, device.ErrOutOfRange) {
		t.why = err // a frame; a fault only when no good one comes
	} else {
		t.fault = err
	}
	t.notify()
}

func (t *Thermometer) notify() {
	close(t.changed)
	t.changed = make(chan struct{})
}

// Health is the sensor's, with what is known here.
func (t *Thermometer) Health() device.Health {
	h := t.sensor.Health()
	t.mu.Lock()
	defer t.mu.Unlock()
	detail := maps.Clone(t.counts)
	maps.Copy(detail, h.Detail)
	if len(detail) > 0 {
		h.Detail = detail
	}
	if h.State != device.StateOK || !t.started {
		return h
	}
	unusable, ambient := t.pipe.Unusable()
	switch {
	case t.faultNow() != nil:
		h.State, h.LastError = device.StateFault, t.faultNow().Error()
	case unusable:
		h.LastError = fmt.Sprintf("unusable here: %.1f degC is outside the range of profile %s (%g to %g)", float64(ambient), t.c.Profile, t.c.Profile.AmbientMin, t.c.Profile.AmbientMax)
	case t.warming(time.Now()):
		h.State, h.Since = device.StateWarming, t.power
	case t.drifted != "":
		h.LastError = t.drifted
	}
	return h
}

// Try opens the sensor, if it can be tried, and says why it cannot be opened.
func (t *Thermometer) Try() error {
	if s, ok := t.sensor.(interface{ Try() error }); ok {
		return s.Try()
	}
	return nil
}

// Close ends a Measure and closes the sensor.
func (t *Thermometer) Close() error {
	t.mu.Lock()
	if t.closed {
		t.mu.Unlock()
		return nil
	}
	t.closed = true
	started := t.started
	if started {
		t.stop()
	}
	t.notify()
	t.mu.Unlock()
	err := t.sensor.Close()
	if t.c.Presence != nil {
		err = errors.Join(err, t.c.Presence.Close())
	}
	if started {
		<-t.done
		t.mu.Lock()
		defer t.mu.Unlock()
		err = errors.Join(err, t.drift.save(t.c.DriftFile), t.rec.close())
	}
	return err
}
