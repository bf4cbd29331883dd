package contact

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
		{"normally open", "pin: GPIO5"},
		{"normally closed", "pin: GPIO5\nactive: high"},
		{"no debounce", "pin: GPIO5\ndebounce: 0s"},
		{"long debounce", "pin: GPIO5\ndebounce: 300ms\npull: down\nactive: high"},
	} {
		t.Run(c.name, func(t *testing.T) {
			devicetest.Contact(t, func(t *testing.T) *devicetest.ContactRig {
				conf := load(t, c.src)
				p := sim.NewPin(conf.Pin)
				set := func(active bool) { p.Drive(active == (conf.Active == "high")) }
				set(false)
				return &devicetest.ContactRig{Contact: New("contact", conf, p), Set: set, Debounce: conf.Debounce, ExactTimes: true,
					Break: func(broken bool) {
						if p.Break(nil); broken {
							p.Break(errors.New("no such chip"))
						}
					}}
			})
		})
	}
}

// periph's test pin cannot be woken, takes edges from a channel, and pulls its
// level when it becomes an input.
func TestContractOnPeriphsPin(t *testing.T) {
	devicetest.Contact(t, func(t *testing.T) *devicetest.ContactRig {
		conf := load(t, "pin: GPIO5\npull: none")
		p := &gpiotest.Pin{N: "GPIO5", L: gpio.High, EdgesChan: make(chan gpio.Level, 64)}
		started := false
		return &devicetest.ContactRig{Contact: New("contact", conf, p), Debounce: conf.Debounce,
			Set: func(active bool) {
				if !started {
					p.Lock()
					p.L = gpio.Level(!active)
					p.Unlock()
				}
				p.EdgesChan <- gpio.Level(!active)
			}}
	})
}

// A contact that nobody watches keeps its newest changes and its count.
func TestTooManyChanges(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p := sim.NewPin("GPIO5")
		k := New("contact", load(t, "pin: GPIO5"), p)
		defer k.Close()
		if c, err := k.Watch(t.Context()); err != nil || c.Active {
			t.Fatalf("%+v, %v", c, err)
		}
		const n = 500
		for range n {
			p.Drive(gpio.Low)
			time.Sleep(100 * time.Millisecond)
			p.Drive(gpio.High)
			time.Sleep(100 * time.Millisecond)
		}
		var last device.Change
		for range kept {
			c, err := k.Watch(t.Context())
			if err != nil || !c.At.After(last.At) {
				t.Fatalf("%+v after %+v, %v", c, last, err)
			}
			last = c
		}
		if last.Count != n || last.Active || k.Health().Detail["dropped"] != 2*n-kept {
			t.Errorf("%+v, health %+v", last, k.Health())
		}
	})
}

// A line that never rests neither hangs nor floods.
func TestChatter(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p := sim.NewPin("GPIO5")
		k := New("contact", load(t, "pin: GPIO5"), p)
		defer k.Close()
		if _, err := k.Watch(t.Context()); err != nil {
			t.Fatal(err)
		}
		for i := range 20000 {
			p.Drive(i%2 == 0)
			time.Sleep(5 * time.Millisecond)
		}
		if h := k.Health(); h.Reads > 20000/bounces+2 {
			t.Errorf("%d changes of a line that chatters", h.Reads)
		}
	})
}
