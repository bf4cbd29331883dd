package catalog

import (
	"gatehouse/device"
	"gatehouse/device/bus"
	"gatehouse/device/options"
	"gatehouse/device/panel"
)

func panels() []Driver {
	return []Driver{
		{Name: "buttons", Kind: KindPanel, Doc: "a guard's panel of push buttons, each a contact under the name of what it means",
			Options: "driver: buttons\nadmit: {driver: gpio, pin: GPIO5}\ndeny: {driver: gpio, pin: GPIO6}\n", Open: openButtons},
		{Name: "keypad", Kind: KindPanel, Doc: "a USB keypad as a guard's panel",
			Options: "driver: keypad\ninput: /dev/input/by-id/...\nkeys: {kpenter: admit, kp0: deny}\n", Open: openKeypad},
	}
}

// Panel builds a guard's panel.
func Panel(env Env, name string, n options.Node) (device.Panel, error) {
	return open[device.Panel](env, KindPanel, name, n)
}

func openButtons(env Env, name string, n options.Node) (device.Device, error) {
	contacts := map[string]device.Contact{}
	for _, button := range n.Keys() {
		c, err := Contact(env, "button "+button+" of "+name, n.At(button))
		if err != nil {
			for _, had := range contacts {
				_ = had.Close() // nothing was opened; it only gives the claim back
			}
			return nil, err
		}
		contacts[button] = c
	}
	if len(contacts) == 0 {
		return nil, n.Errorf("no button is given, like admit: {driver: gpio, pin: GPIO5}")
	}
	return panel.NewButtons(name, contacts), nil
}

func openKeypad(env Env, name string, n options.Node) (device.Device, error) {
	open := env.Inputs
	if open == nil {
		open = func(c bus.InputConfig) (bus.KeyReader, error) { return env.Bus.Input(c) }
	}
	return panel.NewKeypad(name, n, open)
}
