package catalog

import (
	"context"
	"fmt"
	"path/filepath"
	"syscall"
	"testing"
	"time"

	"gatehouse/device"
	"gatehouse/device/sim"
)

// Eight lanes that wait: two RFID, two QR, two Wiegand and two keyboard readers,
// each with a thermometer that sends ten samples in a second. The emulators run
// in the same process and are in the figure.
func BenchmarkEightIdleLanes(b *testing.B) {
	ctx, cancel := context.WithCancel(context.Background())
	var open []device.Device
	done := make(chan struct{})
	started := 0
	begin := func(run func()) {
		started++
		go func() { run(); done <- struct{}{} }()
	}
	line := func(name string) *sim.Serial {
		l, err := sim.NewSerial(filepath.Join(b.TempDir(), name))
		if err != nil {
			b.Fatal(err)
		}
		b.Cleanup(func() { l.Close() })
		return l
	}
	scene := sim.NewThermal(22, 1)
	for i := range 8 {
		e := env()
		src := ""
		switch i % 4 {
		case 0:
			src = "driver: rdm6300\nport: " + line("reader").Path()
		case 1:
			src = "driver: qr\nport: " + line("reader").Path()
		case 2:
			e.Edges = sim.NewWiegand().Open
			src = "driver: wiegand\nd0: GPIO1\nd1: GPIO2"
		case 3:
			e.Inputs = sim.NewKeyboard().Open
			src = "driver: hid\nname: x"
		}
		s, err := Scanner(e, fmt.Sprintf("scanner %d", i), parse(b, src))
		if err != nil {
			b.Fatal(err)
		}
		l := line("thermometer")
		module := sim.NewGYMCU90614(l, scene, uint64(i))
		t, err := Sensor(e, fmt.Sprintf("thermometer %d", i), parse(b, "driver: gy-mcu90614\nport: "+l.Path()))
		if err != nil {
			b.Fatal(err)
		}
		open = append(open, s, t)
		begin(func() { _, _ = s.Read(ctx) })
		begin(func() { _ = module.Run(ctx) })
		begin(func() {
			for ctx.Err() == nil {
				_, _ = t.Sample(ctx)
			}
		})
	}
	cpu := func() time.Duration {
		var u syscall.Rusage
		if err := syscall.Getrusage(syscall.RUSAGE_SELF, &u); err != nil {
			b.Fatal(err)
		}
		return time.Duration(u.Utime.Nano() + u.Stime.Nano())
	}
	time.Sleep(300 * time.Millisecond) // until all are open
	used, start := cpu(), time.Now()
	b.ResetTimer()
	for range b.N {
		time.Sleep(3 * time.Second)
	}
	b.ReportMetric(100*float64(cpu()-used)/float64(time.Since(start)), "%core")
	cancel()
	for _, d := range open {
		_ = d.Close()
	}
	for range started {
		<-done
	}
}
