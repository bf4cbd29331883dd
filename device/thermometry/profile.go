package thermometry

import (
	"fmt"
	"math"

	"gatehouse/device"
	"gatehouse/device/options"
)

// Profile turns what an infrared sensor sees into what is judged. Its name and
// version stand in every entry that rests on it, so whoever changes a number
// changes the version.
//
// A value is curve(raw + shift(ambient)). Both are piecewise linear. The curve
// rises everywhere and has no jumps, so that the warmer of two people reads
// warmer; the shift does not rise with the ambient temperature, because skin
// cools in the cold and the correction makes up for it. Outside its ambient
// range a profile is not used at all: the lane is 'unusable here'.
type Profile struct {
	Name        string      `yaml:"name"`
	Version     int         `yaml:"version"`
	AmbientMin  float64     `yaml:"ambient_min"` // degC
	AmbientMax  float64     `yaml:"ambient_max"`
	Uncertainty float64     `yaml:"uncertainty"` // of a value, plus or minus, in degC
	Curve       [][]float64 `yaml:"curve"`       // pairs of raw and value, raw rising
	Shift       [][]float64 `yaml:"shift"`       // pairs of ambient and degC added to raw, ambient rising; none = 0
	at          func(string) options.Node
}

// Limits of a profile. A curve flatter than the least slope hides a fever, a
// steeper one than the most makes one of noise.
const (
	leastSlope = 0.25
	mostSlope  = 4
	mostChange = 6 // degC between raw and value, or of a shift
)

// DefaultProfile is the name of the profile in use where the config names none.
const DefaultProfile = "skin"

// Shipped are the profiles that come with Gatehouse.
//
// skin/1 corrects nothing: there is no public formula from skin to core
// temperature, so thresholds are set for skin (published cut-offs for the
// forehead lie between 36.65 and 37.1 degC). It may be used from 16 degC, the
// least at which ASTM E1965 has a thermometer hold its accuracy, to 35 degC,
// above which a face no longer stands out from what is around it. Its
// uncertainty is that of screening (0.4 degC); ISO 80601-2-56 allows 0.3 in the
// laboratory.
func Shipped() []Profile {
	return []Profile{{Name: DefaultProfile, Version: 1, AmbientMin: 16, AmbientMax: 35, Uncertainty: 0.4,
		Curve: [][]float64{{30, 30}, {42, 42}}}}
}

// LoadProfile takes a profile from the config: the name of a shipped one, or a
// mapping that describes the installer's own. An absent node is DefaultProfile.
func LoadProfile(n options.Node) (*Profile, error) {
	if !n.IsMap() {
		want := n.Text()
		if n.IsZero() {
			want = DefaultProfile
		}
		var names []string
		for _, p := range Shipped() {
			if p.Name == want || p.String() == want {
				return &p, nil
			}
			names = append(names, p.Name)
		}
		return nil, n.Errorf("no profile is called %q%s", want, options.Hint(want, names))
	}
	p := Profile{AmbientMin: 16, AmbientMax: 35, Uncertainty: 0.4}
	if err := n.Decode(&p); err != nil {
		return nil, err
	}
	for _, s := range Shipped() {
		if p.Name == s.Name {
			return nil, n.At("name").Errorf("%q is the name of a shipped profile; take another", p.Name)
		}
	}
	p.at = n.At
	if err := p.Check(); err != nil {
		return nil, err
	}
	return &p, nil
}

// String is name and version, as entries have it: "skin/1".
func (p *Profile) String() string { return fmt.Sprintf("%s/%d", p.Name, p.Version) }

// Check reports what makes the profile unfit.
func (p *Profile) Check() error {
	switch {
	case p.Name == "" || len(p.Name) > 40:
		return p.errorf("name", "must be given, with at most 40 letters")
	case p.Version < 1:
		return p.errorf("version", "must be 1 or more, and another after each change")
	case !(p.AmbientMin >= -40 && p.AmbientMin < p.AmbientMax && p.AmbientMax <= 60):
		return p.errorf("ambient_min", "the ambient range %g to %g degC is none (within -40 to 60)", p.AmbientMin, p.AmbientMax)
	case !(p.Uncertainty >= 0.1 && p.Uncertainty <= 2):
		return p.errorf("uncertainty", "%g degC is not between 0.1 and 2", p.Uncertainty)
	case len(p.Curve) < 2:
		return p.errorf("curve", "needs two points at least")
	}
	if err := p.pairs("curve", p.Curve); err != nil {
		return err
	}
	if err := p.pairs("shift", p.Shift); err != nil {
		return err
	}
	if first, last := p.Curve[0][0], p.Curve[len(p.Curve)-1][0]; first > MinSkin || last < MaxSkin {
		return p.errorf("curve", "runs from %g to %g degC, but skin from %g to %g", first, last, MinSkin, MaxSkin)
	}
	for i, c := range p.Curve {
		if math.Abs(c[1]-c[0]) > mostChange {
			return p.errorf("curve", "takes %g to %g degC, a change of more than %d", c[0], c[1], mostChange)
		}
		if i == 0 {
			continue
		}
		before := p.Curve[i-1]
		slope := (c[1] - before[1]) / (c[0] - before[0])
		switch {
		case slope <= 0:
			return p.errorf("curve", "does not rise from %g to %g degC (values %g and %g): the warmer of two people would not read warmer", before[0], c[0], before[1], c[1])
		case slope < leastSlope || slope > mostSlope:
			return p.errorf("curve", "rises by %.2g degC for each degree between %g and %g degC (want %g to %g)", slope, before[0], c[0], leastSlope, float64(mostSlope))
		}
	}
	for i, s := range p.Shift {
		if math.Abs(s[1]) > mostChange {
			return p.errorf("shift", "adds %g degC at an ambient of %g, more than %d", s[1], s[0], mostChange)
		}
		if i > 0 && s[1] > p.Shift[i-1][1] {
			return p.errorf("shift", "rises from %g to %g degC of ambient: colder skin would be corrected less", p.Shift[i-1][0], s[0])
		}
	}
	if len(p.Shift) > 0 && (p.Shift[0][0] > p.AmbientMin || p.Shift[len(p.Shift)-1][0] < p.AmbientMax) {
		return p.errorf("shift", "does not cover the ambient range %g to %g degC", p.AmbientMin, p.AmbientMax)
	}
	return nil
}

func (p *Profile) pairs(key string, points [][]float64) error {
	for i, c := range points {
		if len(c) != 2 {
			return p.errorf(key, "point %d has %d numbers, want a pair", i+1, len(c))
		}
		if i > 0 && c[0] <= points[i-1][0] {
			return p.errorf(key, "%g follows %g: the first numbers of the pairs must rise, or it would jump", c[0], points[i-1][0])
		}
	}
	return nil
}

func (p *Profile) errorf(key, format string, args ...any) error {
	if p.at != nil {
		return p.at(key).Errorf(format, args...)
	}
	return fmt.Errorf("profile %s: %s: %s", p, key, fmt.Sprintf(format, args...))
}

// Covers reports whether the profile may be used at an ambient temperature.
func (p *Profile) Covers(ambient device.Celsius) bool {
	return float64(ambient) >= p.AmbientMin && float64(ambient) <= p.AmbientMax
}

// Correct gives the value of a raw reading. Beyond its ends the curve goes on
// with a slope of 1.
func (p *Profile) Correct(raw, ambient device.Celsius) device.Celsius {
	x := float64(raw)
	if len(p.Shift) > 0 {
		x += linear(p.Shift, float64(ambient), 0)
	}
	return device.Celsius(linear(p.Curve, x, 1))
}

// linear follows a piecewise linear curve; beyond its ends with the slope given.
func linear(points [][]float64, x, beyond float64) float64 {
	first, last := points[0], points[len(points)-1]
	switch {
	case x <= first[0]:
		return first[1] + beyond*(x-first[0])
	case x >= last[0]:
		return last[1] + beyond*(x-last[0])
	}
	for i := 1; ; i++ {
		if a, b := points[i-1], points[i]; x <= b[0] {
			return a[1] + (b[1]-a[1])*(x-a[0])/(b[0]-a[0])
		}
	}
}
