package catalog

import (
	"gatehouse/device"
	"gatehouse/device/options"
	"gatehouse/device/serialrfid"
)

func scanners() []Driver {
	return []Driver{
		{Name: "rdm6300", Kind: KindScanner, Doc: "RDM6300 and kin: 125 kHz EM4100 tags over a serial line",
			Options: "driver: rdm6300\nport: /dev/serial/by-id/...\nbaud: 9600\nheld: 1s\n", Open: serialRFID(serialrfid.RDM6300)},
		{Name: "id12", Kind: KindScanner, Doc: "ID-12, ID-20 and kin: 125 kHz EM4100 tags over a serial line",
			Options: "driver: id12\nport: /dev/serial/by-id/...\nbaud: 9600\nheld: 1s\n", Open: serialRFID(serialrfid.ID12)},
	}
}

func serialRFID(p serialrfid.Protocol) func(Env, string, options.Node) (device.Device, error) {
	return func(env Env, name string, n options.Node) (device.Device, error) {
		return serialrfid.New(env.Bus, name, p, n, env.Tap)
	}
}
