package thermometry

import (
	"math"
	"slices"
	"time"

	"gatehouse/device"
)

// Limits of what counts as a person's skin.
const (
	MinSkin = 30.0 // degC; below is invalid, never normal
	MaxSkin = 42.0
)

const (
	windowMost   = 24              // samples that a plateau may rest on
	windowAge    = 3 * time.Second // and how old they may be; a slow sensor gives two in a second
	freshGap     = time.Second     // a longer pause between samples begins a new window
	leftFor      = 250 * time.Millisecond
	leftShare    = 0.3              // of the way from the background to the warmest of this person
	baseUp       = 30 * time.Second // time constants of the background: up slowly, so that a
	baseDown     = time.Second      // person is no background; down fast
	parkedFor    = 5 * time.Minute  // whatever warm stands there so long is background
	stuckPresent = 30 * time.Second // skin never holds that still to a hundredth
	stuckEmpty   = 30 * time.Minute // nor does a room
	edgeBand     = 0.5              // degC of hysteresis at the ends of the ambient range
)

// Pipeline makes readings of raw samples. It is pure: its only clock is the
// samples' own, so that a recording gives the same readings again.
type Pipeline struct {
	c       Config
	last    device.Sample
	started bool

	base    float64 // what the sensor sees with nobody there
	present bool
	gen     uint64    // people so far
	since   time.Time // of presence
	peak    float64
	lowFrom time.Time // since when it looks as if the person had left

	win [windowMost]device.Sample
	n   int

	black   float64 // what the black body reads too much; see blackBody
	blackOK bool

	unusable  bool
	sameSince time.Time // since when the sensor says the same
}

// NewPipeline begins with nobody there.
func NewPipeline(c Config) *Pipeline { return &Pipeline{c: c} }

// Add takes the next sample.
func (p *Pipeline) Add(s device.Sample) {
	obj := float64(s.Object)
	if !p.started {
		p.started, p.base, p.sameSince = true, obj, s.At
		if s.HasAmbient {
			p.base = min(obj, float64(s.Ambient))
		}
		p.last = s
	}
	gap := s.At.Sub(p.last.At)
	if gap > freshGap {
		p.n = 0
	}
	if s.Object != p.last.Object || s.Ambient != p.last.Ambient || gap > freshGap {
		p.sameSince = s.At
	}
	if s.HasAmbient {
		if p.unusable {
			p.unusable = float64(s.Ambient) < p.c.Profile.AmbientMin+edgeBand || float64(s.Ambient) > p.c.Profile.AmbientMax-edgeBand
		} else {
			p.unusable = !p.c.Profile.Covers(s.Ambient)
		}
	}
	p.presence(s, obj, gap)
	p.last = s
	if p.present && p.lowFrom.IsZero() {
		p.push(s)
	}
}

func (p *Pipeline) presence(s device.Sample, obj float64, gap time.Duration) {
	if p.c.BlackBody != 0 {
		p.blackBody(s, obj, gap)
	}
	near := obj >= p.base+p.c.Jump
	gone := obj < p.base+max(p.c.Jump/2, leftShare*(p.peak-p.base))
	if s.Range > 0 { // a ranger knows better
		near, gone = s.Range <= p.c.Near, s.Range > p.c.Near
	}
	if !p.present {
		if near {
			p.present, p.since, p.peak, p.lowFrom, p.n = true, s.At, obj, time.Time{}, 0
			p.gen++
			return
		}
		tau := baseUp
		if obj < p.base {
			tau = baseDown
		}
		p.base += (obj - p.base) * (1 - math.Exp(-gap.Seconds()/tau.Seconds()))
		return
	}
	p.peak = max(p.peak, obj)
	switch {
	case !gone:
		p.lowFrom = time.Time{}
	case p.lowFrom.IsZero():
		p.lowFrom, p.n = s.At, 0
	}
	if !p.lowFrom.IsZero() && s.At.Sub(p.lowFrom) >= leftFor {
		p.present, p.n = false, 0
	} else if s.At.Sub(p.since) > parkedFor {
		p.present, p.n, p.base = false, 0, obj
	}
}

// blackBodyMost is the error of a sensor that is corrected; one beyond it is at
// fault.
const blackBodyMost = 1.0

// blackBody compares what the sensor sees with nobody there, which is a black
// body of a known temperature, and follows the difference slowly.
func (p *Pipeline) blackBody(s device.Sample, obj float64, gap time.Duration) {
	if p.present || s.Range == 0 || s.Range <= p.c.Near {
		return
	}
	if !p.blackOK {
		p.black, p.blackOK = obj-p.c.BlackBody, true
		return
	}
	p.black += (obj - p.c.BlackBody - p.black) * (1 - math.Exp(-gap.Seconds()/baseUp.Seconds()))
}

// BlackBodyError is by how much the sensor misreads its black body, and whether
// that can be corrected; 0 without one.
func (p *Pipeline) BlackBodyError() (device.Celsius, bool) {
	return device.Celsius(p.black), p.c.BlackBody == 0 || p.blackOK && math.Abs(p.black) <= blackBodyMost
}

func (p *Pipeline) push(s device.Sample) {
	if p.n == windowMost {
		copy(p.win[:], p.win[1:])
		p.n--
	}
	p.win[p.n] = s
	p.n++
}

// Present reports whether somebody stands there, and how many have so far.
func (p *Pipeline) Present() (bool, uint64) { return p.present, p.gen }

// Unusable reports whether the ambient temperature is outside the profile's
// range, and what it is.
func (p *Pipeline) Unusable() (bool, device.Celsius) { return p.unusable, p.last.Ambient }

// Stuck reports whether the sensor repeats itself as no working one does.
func (p *Pipeline) Stuck() bool {
	limit := stuckEmpty
	if p.present {
		limit = stuckPresent
	}
	return p.started && p.last.At.Sub(p.sameSince) >= limit
}

// Reading is the plateau of the person who stands there, of samples that came
// after a time: QualityOK, QualityInvalid or QualityUnusable; false while there
// is none.
func (p *Pipeline) Reading(after time.Time) (device.Temperature, bool) {
	raw, samples, ok := p.plateau(after)
	if !ok {
		return device.Temperature{}, false
	}
	s := p.win[p.n-1]
	t := device.Temperature{Quality: device.QualityOK, Raw: raw, Ambient: s.Ambient, Uncertainty: device.Celsius(p.c.Uncertainty),
		Profile: p.c.Profile.String(), Samples: samples, At: s.At}
	switch {
	case raw < MinSkin || raw > MaxSkin:
		t.Quality = device.QualityInvalid
	case p.c.BlackBody != 0 && !p.blackOK: // not seen yet: nothing to correct by
		return device.Temperature{}, false
	case p.unusable || !s.HasAmbient:
		t.Quality = device.QualityUnusable
	default:
		t.Value = p.c.Profile.Correct(raw-device.Celsius(p.black), s.Ambient)
	}
	return t, true
}

// plateau looks for the longest run of samples, up to the present, that is long
// enough, narrow enough and level enough. Its height is the median of the top
// three: dips come from hair, glasses and a moving head, peaks from nothing.
func (p *Pipeline) plateau(after time.Time) (raw device.Celsius, samples int, ok bool) {
	if !p.present || p.n < p.c.MinSamples {
		return 0, 0, false
	}
	const slack = 1e-9 // so that a range of 0.3 in binary is one of 0.3
	end := p.win[p.n-1].At
	lo, hi := math.Inf(1), math.Inf(-1)
	top := [3]float64{lo, lo, lo}
	for i := range top {
		top[i] = math.Inf(-1)
	}
	var st, sy, stt, sty float64
	for k := 1; k <= p.n; k++ {
		s := p.win[p.n-k]
		t, y := s.At.Sub(end).Seconds(), float64(s.Object)
		lo, hi = min(lo, y), max(hi, y)
		if hi-lo > p.c.MaxRange+slack || -t > windowAge.Seconds() {
			break
		}
		if !s.At.After(after) {
			break
		}
		if y > top[0] {
			top[0] = y
			slices.Sort(top[:])
		}
		st, sy, stt, sty = st+t, sy+y, stt+t*t, sty+t*y
		if k < p.c.MinSamples {
			continue
		}
		n := float64(k)
		if d := n*stt - st*st; d > 0 && math.Abs((n*sty-st*sy)/d) <= p.c.MaxSlope+slack {
			raw, samples, ok = device.Celsius(top[1]), k, true
		}
	}
	return raw, samples, ok
}
