package catalog

import (
	"context"
	"fmt"
	"path/filepath"
	"sync"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"gatehouse/device"
	"gatehouse/device/options"
	"gatehouse/device/sim"
)

// BenchmarkEightLanesIdle keeps eight lanes of mixed devices waiting for people
// and reports the share of one core that this takes. The emulators run in the
// same process; "emulators-%core" is what they take alone, the floor.
func BenchmarkEightLanesIdle(b *testing.B) {
	const lanes = 8
	dir := b.TempDir()
	ctx, stop := context.WithCancel(context.Background())
	var running sync.WaitGroup
	defer running.Wait()
	defer stop()
	e := env()
	pins := sim.NewPins()
	e.Pins = pins.Open
	wires := sim.NewI2C()
	e.I2C = wires.Open
	must := func(err error) {
		if err != nil {
			b.Helper()
			b.Fatal(err)
		}
	}
	node := func(format string, args ...any) options.Node {
		n, err := options.Parse("gate.yaml", fmt.Appendf(nil, format, args...))
		must(err)
		return n
	}
	line := func(name string) *sim.Serial {
		l, err := sim.NewSerial(filepath.Join(dir, name))
		must(err)
		b.Cleanup(func() { _ = l.Close() })
		return l
	}
	wires.Attach(0x5A, sim.NewMLX90614(0x5A, sim.NewThermal(22, 9), 9))
	readers, modules := make([]*sim.Serial, lanes), make([]*sim.Serial, lanes)
	for i := range lanes {
		readers[i], modules[i] = line(fmt.Sprintf("reader-%d", i)), line(fmt.Sprintf("module-%d", i))
		if i%2 == 0 { // every other lane has its thermometer on I2C
			m := sim.NewGYMCU90614(modules[i], sim.NewThermal(22, uint64(i)), uint64(i))
			running.Go(func() { _ = m.Run(ctx) })
		}
	}
	const window = 2 * time.Second
	alone := share(window)

	for i := range lanes {
		sc, err := Scanner(e, "scanner", node("driver: rdm6300\nport: %s", readers[i].Path()))
		must(err)
		th, err := Thermometer(e, "thermometer", node("driver: gy-mcu90614\nport: %s\nwarm_up: 0s", modules[i].Path()))
		if i%2 == 1 {
			th, err = Thermometer(e, "thermometer", node("driver: mlx90614\nwarm_up: 0s"))
		}
		must(err)
		ba, err := Barrier(e, "barrier", node("driver: relay\npin: relay-%d", i))
		must(err)
		la, err := Indicator(e, "lamps", node("driver: lamps\ngo: go-%d\nstop: stop-%d", i, i))
		must(err)
		co, err := Contact(e, "beam", node("driver: gpio\npin: beam-%d", i))
		must(err)
		must(ba.Secure(ctx))
		must(la.Show(ctx, device.SignalIdle))
		for _, d := range []device.Device{sc, th, ba, la, co} {
			b.Cleanup(func() { _ = d.Close() })
		}
		running.Go(func() { _, _ = sc.Read(ctx) })
		running.Go(func() { _, _ = th.Measure(ctx, device.Measurement{}) })
		running.Go(func() {
			for ctx.Err() == nil {
				_, _ = co.Watch(ctx)
			}
		})
	}
	time.Sleep(500 * time.Millisecond) // opening is not idling
	var all float64
	rounds := 0
	for b.Loop() {
		all += share(window)
		rounds++
	}
	b.ReportMetric(100*alone, "emulators-%core")
	b.ReportMetric(100*all/float64(rounds), "all-%core")
}

// share is how much of one core this process takes.
func share(d time.Duration) float64 {
	before := used()
	time.Sleep(d)
	return (used() - before).Seconds() / d.Seconds()
}

func used() time.Duration {
	var u unix.Rusage
	if err := unix.Getrusage(unix.RUSAGE_SELF, &u); err != nil {
		return 0
	}
	return time.Duration(u.Utime.Nano() + u.Stime.Nano())
}
