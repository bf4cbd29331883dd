package lamps

import (
	"errors"
	"testing"
	"testing/synctest"
	"time"

	"periph.io/x/conn/v3/gpio"
	"periph.io/x/conn/v3/gpio/gpiotest"

	"gatehouse/device"
	"gatehouse/device/devicetest"
	"gatehouse/device/options"
	"gatehouse/device/sim"
)

func load(t *testing.T, src string) Config {
	t.Helper()
	n, err := options.Parse("gate.yaml", []byte(src))
	if err != nil {
		t.Fatal(err)
	}
	c, err := Load(n)
	if err != nil {
		t.Fatal(err)
	}
	return c
}

func TestContract(t *testing.T) {
	for _, c := range []struct{ name, src string }{
		{"all", "go: GPIO22\nstop: GPIO23\nwait: GPIO24\nbuzzer: GPIO25"},
		{"active low", "go: GPIO22\nstop: GPIO23\nwait: GPIO24\nbuzzer: GPIO25\nactive: low"},
		{"two lamps", "go: GPIO22\nstop: GPIO23"},
	} {
		t.Run(c.name, func(t *testing.T) {
			devicetest.Indicator(t, func(t *testing.T) *devicetest.IndicatorRig {
				conf := load(t, c.src)
				far := make([]*sim.Pin, outputs)
				near := make([]gpio.PinIO, outputs)
				for i, line := range conf.Lines() {
					if line != "" {
						far[i] = sim.NewPin(line)
						near[i] = far[i]
					}
				}
				return &devicetest.IndicatorRig{Indicator: New("lamps", conf, near),
					Lit: func() (lit int) {
						for i, p := range far {
							if p != nil && p.IsOutput() && p.Level() == gpio.Level(conf.Active == "high") {
								lit |= 1 << i
							}
						}
						return lit
					},
					Break: func(broken bool) {
						for _, p := range far {
							if p == nil {
								continue
							}
							if p.Break(nil); broken {
								p.Break(errors.New("no such chip"))
							}
						}
					}}
			})
		})
	}
}

func TestContractOnPeriphsPins(t *testing.T) {
	devicetest.Indicator(t, func(t *testing.T) *devicetest.IndicatorRig {
		var pins []gpio.PinIO
		for _, line := range load(t, "go: A\nstop: B\nwait: C\nbuzzer: D").Lines() {
			pins = append(pins, &gpiotest.Pin{N: line})
		}
		return &devicetest.IndicatorRig{Indicator: New("lamps", load(t, "go: A\nstop: B\nwait: C\nbuzzer: D"), pins),
			Lit: func() (lit int) {
				for i, p := range pins {
					if p.Read() == gpio.High {
						lit |= 1 << i
					}
				}
				return lit
			}}
	})
}

// The tones of each signal: one for go, two for stop, whatever the reason.
func TestTones(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		conf := load(t, "buzzer: GPIO25")
		p := sim.NewPin("GPIO25")
		l := New("buzzer", conf, []gpio.PinIO{nil, nil, nil, p})
		defer l.Close()
		tones := func(s device.Signal) (n int) {
			before := len(p.Moves())
			if err := l.Show(t.Context(), s); err != nil {
				t.Error(err)
			}
			time.Sleep(time.Second)
			for _, m := range p.Moves()[before:] {
				if m.Level == gpio.High {
					n++
				}
			}
			return n
		}
		for s, want := range map[device.Signal]int{device.SignalIdle: 0, device.SignalWait: 0, device.SignalGo: 1, device.SignalStop: 2, device.SignalFree: 0, device.SignalFault: 0} {
			if n := tones(s); n != want {
				t.Errorf("%s has %d tones, want %d", s, n, want)
			}
		}
		if n := tones(device.SignalCall); n == 0 {
			t.Error("a call does not ring")
		}
	})
}
