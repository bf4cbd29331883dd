package catalog

import (
	"gatehouse/device/serialtemp"
	"gatehouse/device/thermometry"
)

// ThermometerKeys are the options that belong to the thermometer and not to its
// sensor's driver.
func ThermometerKeys() []string { return thermometry.Keys() }

// GuessSensor names the driver of a serial thermometer whose frames the bytes
// hold; "" when there is none.
func GuessSensor(b []byte) string {
	best, most := "", 0
	for _, p := range []serialtemp.Protocol{serialtemp.GYMCU90614, serialtemp.CJMCU90614, serialtemp.GY614V, serialtemp.TN9} {
		d, n := serialtemp.NewDecoder(p), 0
		for _, c := range b {
			if _, res, err := d.Byte(c); err == nil && res == serialtemp.Complete {
				n++
			}
		}
		if n > most {
			best, most = string(p), n
		}
	}
	return best
}
