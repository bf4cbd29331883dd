package catalog

import (
	"gatehouse/device"
	"gatehouse/device/bus"
	"gatehouse/device/evdev"
	"gatehouse/device/linereader"
	"gatehouse/device/options"
	"gatehouse/device/serialrfid"
	"gatehouse/device/wiegand"
)

func scanners() []Driver {
	return []Driver{
		{Name: "rdm6300", Kind: KindScanner, Doc: "RDM6300 and kin: 125 kHz EM4100 tags over a serial line",
			Options: "driver: rdm6300\nport: /dev/serial/by-id/...\nbaud: 9600\nheld: 1s\n", Open: serialRFID(serialrfid.RDM6300)},
		{Name: "id12", Kind: KindScanner, Doc: "ID-12, ID-20 and kin: 125 kHz EM4100 tags over a serial line",
			Options: "driver: id12\nport: /dev/serial/by-id/...\nbaud: 9600\nheld: 1s\n", Open: serialRFID(serialrfid.ID12)},
		{Name: "wiegand", Kind: KindScanner, Doc: "any reader or keypad with Wiegand output, on two GPIO lines",
			Options: "driver: wiegand\nd0: GPIO14\nd1: GPIO15\nformats: [H10301]\nframe_end: 25ms\nheld: 1s\nkeypad: none\n", Open: openWiegand},
		{Name: "qr", Kind: KindScanner, Doc: "QR and barcode scanners on a serial line or USB serial",
			Options: "driver: qr\nport: /dev/serial/by-id/...\nbaud: 9600\nend: auto\nheld: 1s\n", Open: line("qr", device.FormatQR)},
		{Name: "line", Kind: KindScanner, Doc: "readers that send lines: prefix, suffix, hex or decimal, checksum",
			Options: "driver: line\nport: /dev/serial/by-id/...\nend: auto\nprefix: \"\"\nsuffix: \"\"\ncontent: text\nchecksum: none\nformat: line\n", Open: line("line", device.FormatLine)},
		{Name: "hid", Kind: KindScanner, Doc: "QR, barcode and card readers that are USB keyboards",
			Options: "driver: hid\ninput: /dev/input/by-id/...\nlayout: us\nend: auto\nformat: qr\nheld: 1s\n", Open: openHID},
	}
}

func serialRFID(p serialrfid.Protocol) func(Env, string, options.Node) (device.Device, error) {
	return func(env Env, name string, n options.Node) (device.Device, error) {
		return serialrfid.New(env.Bus, name, p, n, env.Tap)
	}
}

func line(driver, format string) func(Env, string, options.Node) (device.Device, error) {
	return func(env Env, name string, n options.Node) (device.Device, error) {
		return linereader.New(env.Bus, name, driver, format, n, env.Tap)
	}
}

func openWiegand(env Env, name string, n options.Node) (device.Device, error) {
	c, err := wiegand.Parse(n)
	if err != nil {
		return nil, err
	}
	open := env.Edges
	if open == nil {
		open = func(lc bus.LinesConfig) (bus.EdgeReader, error) { return env.Bus.Lines(lc) }
	}
	return wiegand.New(name, c, open)
}

func openHID(env Env, name string, n options.Node) (device.Device, error) {
	open := env.Inputs
	if open == nil {
		open = func(c bus.InputConfig) (bus.KeyReader, error) { return env.Bus.Input(c) }
	}
	return evdev.New(name, n, open)
}
