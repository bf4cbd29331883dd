package catalog

import (
	"slices"

	"gatehouse/device"
	"gatehouse/device/options"
	"gatehouse/device/thermometry"
)

// Thermometer builds a sensor with its driver's options, and a thermometer on
// it with those of package thermometry, which stand in the same mapping.
func Thermometer(env Env, name string, n options.Node) (device.Thermometer, error) {
	c, err := ThermometryConfig(n)
	if err != nil {
		return nil, err
	}
	s, err := Sensor(env, name, n.Without(thermometry.Keys()...))
	if err != nil {
		return nil, err
	}
	if at := n.At("presence"); !at.IsZero() {
		if c.Presence, err = open[device.Sensor](env, KindPresence, "presence sensor of "+name, at); err != nil {
			_ = s.Close() // nothing was opened; it only gives its claim back
			return nil, err
		}
	}
	if env.Samples != nil {
		c.Tap = env.Samples(name)
	}
	return thermometry.New(s, c, env.Log), nil
}

// ThermometryConfig reads how a thermometer's mapping has readings taken,
// without its devices: what a replay of a recording needs.
func ThermometryConfig(n options.Node) (thermometry.Config, error) {
	var others []string
	for _, k := range n.Keys() {
		if !slices.Contains(thermometry.Keys(), k) {
			others = append(others, k)
		}
	}
	return thermometry.Load(n.Without(others...))
}
