package catalog

import (
	"gatehouse/device"
	"gatehouse/device/options"
	"gatehouse/device/serialtemp"
)

// thermometryOptions are the keys that every thermometer has besides its
// driver's; see package thermometry.
const thermometryOptions = "profile: skin\nwarm_up: 30m\n"

func sensors() []Driver {
	return []Driver{
		{Name: "gy-mcu90614", Kind: KindSensor, Doc: "GY-MCU90614: MLX90614 with a serial interface, ten samples in a second",
			Options: "driver: gy-mcu90614\nport: /dev/serial/by-id/...\nbaud: 9600\n" + thermometryOptions, Open: serialTemp(serialtemp.GYMCU90614)},
		{Name: "cjmcu-90614", Kind: KindSensor, Doc: "CJMCU-90614: MLX90614 with a serial interface",
			Options: "driver: cjmcu-90614\nport: /dev/serial/by-id/...\nbaud: 9600\n" + thermometryOptions, Open: serialTemp(serialtemp.CJMCU90614)},
		{Name: "gy-614v", Kind: KindSensor, Doc: "GY-614V: infrared module with a serial interface",
			Options: "driver: gy-614v\nport: /dev/serial/by-id/...\nbaud: 9600\n" + thermometryOptions, Open: serialTemp(serialtemp.GY614V)},
		{Name: "tn9", Kind: KindSensor, Doc: "TN9, TN901, TN905: infrared modules of ZyTemp behind a serial converter",
			Options: "driver: tn9\nport: /dev/serial/by-id/...\nbaud: 9600\n" + thermometryOptions, Open: serialTemp(serialtemp.TN9)},
	}
}

func serialTemp(p serialtemp.Protocol) func(Env, string, options.Node) (device.Device, error) {
	return func(env Env, name string, n options.Node) (device.Device, error) {
		return serialtemp.New(env.Bus, name, p, n, env.Tap)
	}
}
