package relay

import (
	"errors"
	"fmt"
	"strings"
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

func load(t *testing.T, src string, two bool) Config {
	t.Helper()
	n, err := options.Parse("gate.yaml", []byte(src))
	if err != nil {
		t.Fatal(err)
	}
	c, err := Load(n, two)
	if err != nil {
		t.Fatal(err)
	}
	return c
}

func TestContract(t *testing.T) {
	for _, mode := range []string{"pulse", "hold"} {
		for _, active := range []string{"high", "low"} {
			for _, fail := range []string{"secure", "safe"} {
				opts := fmt.Sprintf("\nmode: %s\nactive: %s\nfail: %s\npulse: 700ms", mode, active, fail)
				rig := func(b *Barrier, pins ...*sim.Pin) *devicetest.BarrierRig {
					r := &devicetest.BarrierRig{Barrier: b, BothWays: len(pins) == 1, OpenWhenClosed: fail == "safe",
						Open: func(d device.Direction) bool {
							p := pins[0]
							if d == device.Out {
								p = pins[len(pins)-1]
							}
							// Shut while nobody drives: a resistor holds it.
							return p.IsOutput() && p.Level() == gpio.Level(active == "high")
						},
						Moves: func() (n int) {
							for _, p := range pins {
								n += len(p.Moves())
							}
							return n
						},
						Break: func(broken bool) {
							for _, p := range pins {
								if p.Break(nil); broken {
									p.Break(errors.New("no such chip"))
								}
							}
						}}
					if mode == "pulse" {
						r.Pulse = 700 * time.Millisecond
					}
					return r
				}
				name := strings.ReplaceAll(strings.TrimSpace(opts), "\n", ", ")
				t.Run("relay "+name, func(t *testing.T) {
					devicetest.Barrier(t, func(t *testing.T) *devicetest.BarrierRig {
						p := sim.NewPin("GPIO17")
						return rig(New("barrier", load(t, "pin: GPIO17"+opts, false), p), p)
					})
				})
				t.Run("turnstile "+name, func(t *testing.T) {
					devicetest.Barrier(t, func(t *testing.T) *devicetest.BarrierRig {
						in, out := sim.NewPin("GPIO17"), sim.NewPin("GPIO27")
						return rig(New("barrier", load(t, "in: GPIO17\nout: GPIO27"+opts, true), in, out), in, out)
					})
				})
			}
		}
	}
}

// The same on periph's own test pin, which keeps no history.
func TestContractOnPeriphsPin(t *testing.T) {
	devicetest.Barrier(t, func(t *testing.T) *devicetest.BarrierRig {
		p := &gpiotest.Pin{N: "GPIO17"}
		return &devicetest.BarrierRig{Barrier: New("barrier", load(t, "pin: GPIO17", false), p), BothWays: true, Pulse: 500 * time.Millisecond,
			Open: func(device.Direction) bool { return p.Read() == gpio.High }, Moves: func() int { return -1 }}
	})
}

func TestInterlock(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		other, p := sim.NewContact("other door"), sim.NewPin("GPIO17")
		c := load(t, "pin: GPIO17", false)
		c.Other = other
		b := New("inner door", c, p)
		defer b.Close()
		if err := b.Admit(t.Context(), device.In); !errors.Is(err, device.ErrRefused) {
			t.Errorf("the other door is not known, but: %v", err)
		}
		if n := len(p.Moves()); n != 0 {
			t.Errorf("a refusal moved the line %d times", n)
		}
		if err := b.Secure(t.Context()); err != nil {
			t.Error(err)
		}
		time.Sleep(time.Second)
		if err := b.Admit(t.Context(), device.In); err != nil {
			t.Errorf("the other door is shut, but: %v", err)
		}
		time.Sleep(time.Second)
		other.Set(true) // it opens
		time.Sleep(time.Second)
		if err := b.Admit(t.Context(), device.In); !errors.Is(err, device.ErrRefused) {
			t.Errorf("the other door is open, but: %v", err)
		}
		if err := b.Free(t.Context(), true); err != nil || p.Level() != gpio.High {
			t.Errorf("in a fire: %v, level %v", err, p.Level())
		}
		if err := b.Free(t.Context(), false); err != nil {
			t.Error(err)
		}
		other.Set(false)
		time.Sleep(time.Second)
		if err := b.Admit(t.Context(), device.In); err != nil {
			t.Errorf("shut again, but: %v", err)
		}
		other.Break() // unknown is not shut
		time.Sleep(3 * time.Second)
		if err := b.Admit(t.Context(), device.In); !errors.Is(err, device.ErrRefused) {
			t.Errorf("the other door's contact has gone, but: %v", err)
		}
		if h := b.Health(); h.Detail["interlocked"] != 3 || h.State != device.StateOK {
			t.Errorf("health %+v", h)
		}
	})
}

func TestWarnings(t *testing.T) {
	for src, want := range map[string]int{"pin: A": 1, "pin: A\nlimited: true": 0, "pin: A\nmode: hold": 1} {
		if w := New("b", load(t, src, false), sim.NewPin("A")).Warnings(); len(w) != want {
			t.Errorf("%q: %q", src, w)
		}
	}
}
