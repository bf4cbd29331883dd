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
	own := thermometry.Keys()
	var others []string
	for _, k := range n.Keys() {
		if !slices.Contains(own, k) {
			others = append(others, k)
		}
	}
	c, err := thermometry.Load(n.Without(others...))
	if err != nil {
		return nil, err
	}
	s, err := Sensor(env, name, n.Without(own...))
	if err != nil {
		return nil, err
	}
	return thermometry.New(s, c, env.Log), nil
}
