package catalog

import (
	"io"

	"periph.io/x/conn/v3/gpio"

	"gatehouse/device"
	"gatehouse/device/options"
	"gatehouse/device/relay"
)

func barriers() []Driver {
	return []Driver{
		{Name: "relay", Kind: KindBarrier, Doc: "one relay that opens a barrier, a door or a lock",
			Options: "driver: relay\npin: GPIO17\nactive: high\nmode: pulse\npulse: 500ms\nfail: secure\n", Open: openRelay},
		{Name: "turnstile", Kind: KindBarrier, Doc: "two relays, one for each direction of a turnstile",
			Options: "driver: turnstile\nin: GPIO17\nout: GPIO27\nactive: high\nmode: pulse\npulse: 500ms\nfail: secure\n", Open: openTurnstile},
	}
}

func openRelay(env Env, name string, n options.Node) (device.Device, error) {
	return openBarrier(env, name, n, "pin")
}

func openTurnstile(env Env, name string, n options.Node) (device.Device, error) {
	return openBarrier(env, name, n, "in", "out")
}

func openBarrier(env Env, name string, n options.Node, lines ...string) (device.Device, error) {
	c, err := relay.Load(n, len(lines) == 2)
	if err != nil {
		return nil, err
	}
	pins, err := env.pins(name, n, lines...)
	if err != nil {
		return nil, err
	}
	if !c.Interlock.IsZero() {
		if c.Other, err = Contact(env, "interlock of "+name, c.Interlock); err != nil {
			_ = relay.New(name, c, pins...).Close() // nothing was touched; it gives the lines back
			return nil, err
		}
	}
	return relay.New(name, c, pins...), nil
}

// pins gives the lines that keys of a mapping name, nil for a key that is not
// there: all, or none with an error.
func (e Env) pins(user string, n options.Node, keys ...string) ([]gpio.PinIO, error) {
	out := make([]gpio.PinIO, len(keys))
	for i, k := range keys {
		at := n.At(k)
		if at.IsZero() {
			continue
		}
		p, err := e.pin(user, at.Text(), at)
		if err != nil {
			for _, had := range out[:i] {
				if c, ok := had.(io.Closer); ok {
					_ = c.Close() // nothing was opened; it only gives the claim back
				}
			}
			return nil, err
		}
		out[i] = p
	}
	return out, nil
}
