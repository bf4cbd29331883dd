package catalog

import (
	"gatehouse/device"
	"gatehouse/device/amg8833"
	"gatehouse/device/bus"
	"gatehouse/device/mlx90614"
	"gatehouse/device/mlx90632"
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
			Options: "driver: cjmcu-90614\nport: /dev/serial/by-id/...\nbaud: 115200\n" + thermometryOptions, Open: serialTemp(serialtemp.CJMCU90614)},
		{Name: "gy-614v", Kind: KindSensor, Doc: "GY-614V: infrared module with a serial interface",
			Options: "driver: gy-614v\nport: /dev/serial/by-id/...\nbaud: 9600\n" + thermometryOptions, Open: serialTemp(serialtemp.GY614V)},
		{Name: "tn9", Kind: KindSensor, Doc: "TN9, TN901, TN905: infrared modules of ZyTemp behind a serial converter",
			Options: "driver: tn9\nport: /dev/serial/by-id/...\nbaud: 9600\n" + thermometryOptions, Open: serialTemp(serialtemp.TN9)},
		{Name: "mlx90614", Kind: KindSensor, Doc: "MLX90614 family on I2C",
			Options: "driver: mlx90614\nbus: i2c-1\naddress: 0x5a\ninterval: 100ms\npec: true\n" + thermometryOptions, Open: openMLX90614},
		{Name: "mlx90632", Kind: KindSensor, Doc: "MLX90632 on I2C, medical or extended range",
			Options: "driver: mlx90632\nbus: i2c-1\naddress: 0x3a\nmode: medical\nemissivity: 1.0\ninterval: 50ms\n" + thermometryOptions, Open: openMLX90632},
	}
}

// presences see that somebody is there; they stand below presence: of a
// thermometer.
func presences() []Driver {
	return []Driver{
		{Name: "amg8833", Kind: KindPresence, Doc: "AMG8833 array on I2C: says that somebody is there, never a fever",
			Options: "driver: amg8833\nbus: i2c-1\naddress: 0x69\ninterval: 100ms\n", Open: openAMG8833},
	}
}

// i2c gives one user an address on a bus, from I2C or from the Bus. The error
// stands at the bus's node.
func (e Env) i2c(user, name string, addr uint16, n options.Node) (bus.Transactor, error) {
	open := e.I2C
	if open == nil {
		open = func(user, name string, addr uint16) (bus.Transactor, error) { return e.Bus.I2C(user, name, addr) }
	}
	tx, err := open(user, name, addr)
	if err != nil {
		return nil, n.At("bus").Errorf("%v", err)
	}
	return tx, nil
}

func openMLX90614(env Env, name string, n options.Node) (device.Device, error) {
	c, err := mlx90614.Load(n)
	if err != nil {
		return nil, err
	}
	tx, err := env.i2c(name, c.Bus, c.Address, n)
	if err != nil {
		return nil, err
	}
	return mlx90614.New(name, c, tx), nil
}

func openMLX90632(env Env, name string, n options.Node) (device.Device, error) {
	c, err := mlx90632.Load(n)
	if err != nil {
		return nil, err
	}
	tx, err := env.i2c(name, c.Bus, c.Address, n)
	if err != nil {
		return nil, err
	}
	return mlx90632.New(name, c, tx), nil
}

func openAMG8833(env Env, name string, n options.Node) (device.Device, error) {
	c, err := amg8833.Load(n)
	if err != nil {
		return nil, err
	}
	tx, err := env.i2c(name, c.Bus, c.Address, n)
	if err != nil {
		return nil, err
	}
	return amg8833.New(name, c, tx), nil
}

func serialTemp(p serialtemp.Protocol) func(Env, string, options.Node) (device.Device, error) {
	return func(env Env, name string, n options.Node) (device.Device, error) {
		return serialtemp.New(env.Bus, name, p, n, env.Tap)
	}
}
