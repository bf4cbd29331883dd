package catalog

import (
	"gatehouse/device"
	"gatehouse/device/lamps"
	"gatehouse/device/options"
)

func indicators() []Driver {
	return []Driver{
		{Name: "lamps", Kind: KindIndicator, Doc: "up to three lamps and a buzzer on GPIO lines",
			Options: "driver: lamps\ngo: GPIO22\nstop: GPIO23\nwait: GPIO24\nbuzzer: GPIO25\nactive: high\n", Open: openLamps},
	}
}

func openLamps(env Env, name string, n options.Node) (device.Device, error) {
	c, err := lamps.Load(n)
	if err != nil {
		return nil, err
	}
	pins, err := env.pins(name, n, lamps.Names()...)
	if err != nil {
		return nil, err
	}
	return lamps.New(name, c, pins), nil
}
