package catalog

import (
	"context"
	"strings"
	"testing"

	"gatehouse/device"
	"gatehouse/device/devicetest"
	"gatehouse/device/sim"
)

// What Drivers tells an installer to paste is accepted as it stands, and
// nothing of it is opened.
func TestOptionsToPaste(t *testing.T) {
	seen := map[string]bool{}
	for _, d := range Drivers() {
		t.Run(string(d.Kind)+" "+d.Name, func(t *testing.T) {
			if key := string(d.Kind) + d.Name; seen[key] {
				t.Error("listed twice")
			} else {
				seen[key] = true
			}
			if d.Doc == "" {
				t.Error("no line of documentation")
			}
			n := parse(t, d.Options)
			if n.At("driver").Text() != d.Name {
				t.Fatalf("its lines name driver %q", n.At("driver").Text())
			}
			var dev device.Device
			var err error
			if d.Kind == KindSensor { // its lines are a thermometer's
				dev, err = Thermometer(env(), "device", n)
			} else {
				dev, err = d.Open(env(), "device", n.Without("driver"))
			}
			if err != nil {
				t.Fatal(err)
			}
			if h := dev.Health(); h.Name != "device" || h.Driver == "" {
				t.Errorf("health %+v", h)
			}
			if err := dev.Close(); err != nil {
				t.Errorf("close: %v", err)
			}
		})
	}
}

func TestErrors(t *testing.T) {
	env := env()
	for _, c := range []struct{ name, src, want string }{
		{"none", "port: /x", "gate.yaml:1:1: driver: must be given"},
		{"slip", "driver: rdm630\nport: /x", `gate.yaml:1:9: driver: no scanner's driver is called "rdm630", did you mean "rdm6300"?`},
		{"option", "driver: rdm6300\nprot: /x", `gate.yaml:2:1: unknown key "prot", did you mean "port"?`},
		{"not YAML's place", "driver: wiegand\nd0: GPIO 1\nd1: GPIO2", `gate.yaml:1:1: "GPIO 1" is not a GPIO line`},
	} {
		t.Run(c.name, func(t *testing.T) {
			if _, err := Scanner(env, "reader", parse(t, c.src)); err == nil || !strings.Contains(err.Error(), c.want) {
				t.Errorf("error %v, want %q in it", err, c.want)
			}
		})
	}
	one, err := Scanner(env, "the scanner of lane a", parse(t, "driver: rdm6300\nport: /dev/x"))
	if err != nil {
		t.Fatal(err)
	}
	defer one.Close()
	if _, err := Scanner(env, "the scanner of lane b", parse(t, "driver: id12\nport: /dev/x")); err == nil ||
		!strings.Contains(err.Error(), "gate.yaml:1:1: /dev/x is used by the scanner of lane a already") {
		t.Errorf("two users of one port: %v", err)
	}
}

// One tag, shown to every kind of reader that can be emulated, is one number.
func TestEveryReaderReadsTheTag(t *testing.T) {
	bench := sim.NewBench()
	defer bench.Close()
	for _, kind := range sim.Kinds {
		t.Run(kind, func(t *testing.T) {
			config, r, err := bench.Reader(kind, t.TempDir(), "east-in-"+kind, 1)
			if err != nil {
				t.Fatal(err)
			}
			e := env()
			e.Edges, e.Inputs = bench.Edges, bench.Inputs
			s, err := Scanner(e, "reader", parse(t, config))
			if err != nil {
				t.Fatal(err)
			}
			defer s.Close()
			ctx, cancel := context.WithTimeout(t.Context(), devicetest.Limit)
			defer cancel()
			tags, ran := make(chan sim.EM4100, 1), make(chan error)
			tags <- sim.EM4100{0x3C, 0x00, 0xCE, 0x75, 0x4C}
			go func() { ran <- r.Run(ctx, tags) }()
			if c, err := s.Read(ctx); err != nil || c.Number != 13530444 {
				t.Errorf("read %+v, %v", c, err)
			}
			close(tags)
			if err := <-ran; err != nil {
				t.Error(err)
			}
		})
	}
	if _, _, err := bench.Reader("osdp", t.TempDir(), "x", 1); err == nil {
		t.Error("an emulator that there is not")
	}
}
