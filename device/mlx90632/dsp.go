package mlx90632

import (
	"math"

	"gatehouse/device"
)

// Calibration are the constants of one chip, as its EEPROM holds them.
type Calibration struct {
	PR, PG, PT, PO     int32
	Ea, Eb, Fa, Fb, Ga int32
	Gb, Ka, Ha, Hb     int16
}

// Ambient are the two raw words of the ambient channel.
type Ambient struct{ New, Old int16 }

// channel scales raw words to the ADC's reference.
const channel = 12.0

// ambientADC and objectADC are Melexis's preprocessing: raw words in units of
// the reference, times 2^19.
func (c *Calibration) ambientADC(a Ambient) float64 {
	n := float64(a.New) / channel
	return n / (float64(a.Old) + float64(c.Gb)/1024*n) * (1 << 19)
}

func (c *Calibration) objectADC(object float64, a Ambient) float64 {
	n := float64(a.New) / channel
	return object / channel / (float64(a.Old) + float64(c.Ka)/1024*n) * (1 << 19)
}

// AmbientCelsius is the chip's own temperature.
func (c *Calibration) AmbientCelsius(a Ambient) device.Celsius {
	d := c.ambientADC(a) - float64(c.PR)/(1<<8)
	return device.Celsius(float64(c.PT)/(1<<44)*d*d + d/float64(c.PG)*(1<<20) + float64(c.PO)/(1<<8))
}

// ObjectCelsius is the temperature of what a medical measurement sees: object
// is the mean of the new and the old raw words. emissivity is the object's;
// reflected is the temperature around it.
func (c *Calibration) ObjectCelsius(object int16, a Ambient, emissivity float64, reflected device.Celsius) device.Celsius {
	return c.object(object, a, emissivity, reflected, c.Fa)
}

// ExtendedCelsius is the same for an extended measurement, whose raw value has
// half the gain.
func (c *Calibration) ExtendedCelsius(object int16, a Ambient, emissivity float64, reflected device.Celsius) device.Celsius {
	return c.object(object, a, emissivity, reflected, c.Fa/2)
}

// object solves the sensor's equation for the object's temperature, which its
// own gain depends on a little: five rounds, as Melexis does.
func (c *Calibration) object(object int16, a Ambient, emissivity float64, reflected device.Celsius, fa int32) device.Celsius {
	// Melexis's method takes whole ADC units; with fractions the published
	// vectors would come out up to 0.01 degC aside.
	adc, ambient := math.Trunc(c.objectADC(float64(object), a)), math.Trunc(c.ambientADC(a))
	chip := (ambient-float64(c.Eb)/(1<<8))/(float64(c.Ea)/(1<<16)) + 25
	around := fourth(float64(reflected))
	around -= (around - fourth(chip)) / emissivity
	t := 25.0
	for range 5 {
		gain := float64(fa) * (float64(c.Ha) / (1 << 14)) * (1 + (float64(c.Ga)*(t-25)+float64(c.Fb)*(chip-25))/(1<<36)) / (1 << 46)
		t = math.Sqrt(math.Sqrt(adc/(emissivity*gain)+around)) - 273.15 - float64(c.Hb)/(1<<10)
	}
	return device.Celsius(t)
}

// ChipCelsius is the chip's temperature as the object's calculation has it; it
// stands for what surrounds the object where nobody knows better.
func (c *Calibration) ChipCelsius(a Ambient) device.Celsius {
	return device.Celsius((math.Trunc(c.ambientADC(a))-float64(c.Eb)/(1<<8))/(float64(c.Ea)/(1<<16)) + 25)
}

// fourth is the fourth power of a temperature's kelvins.
func fourth(celsius float64) float64 {
	k := celsius + 273.15
	return k * k * k * k
}
