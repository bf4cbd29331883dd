package catalog

import (
	"gatehouse/device"
	"gatehouse/device/contact"
	"gatehouse/device/options"
)

func contacts() []Driver {
	return []Driver{
		{Name: "gpio", Kind: KindContact, Doc: "door contact, beam, button, fire or tamper contact on a GPIO line",
			Options: "driver: gpio\npin: GPIO5\nactive: low\ndebounce: 20ms\npull: up\n", Open: openContact},
	}
}

func openContact(env Env, name string, n options.Node) (device.Device, error) {
	c, err := contact.Load(n)
	if err != nil {
		return nil, err
	}
	pins, err := env.pins(name, n, "pin")
	if err != nil {
		return nil, err
	}
	return contact.New(name, c, pins[0]), nil
}
