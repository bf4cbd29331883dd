// Package devicescmd holds the commands for whoever installs a gate: which
// devices are there, what each reads, and whether it does what it should.
package devicescmd

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"os"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/spf13/cobra"

	"gatehouse/cmd/internal/config"
	"gatehouse/device"
	"gatehouse/device/bus"
	"gatehouse/device/catalog"
	"gatehouse/device/options"
	"gatehouse/edge"
)

// New returns the command "devices".
func New() *cobra.Command {
	cmd := &cobra.Command{Use: "devices", Short: "Find, watch, record, replay and test readers, sensors and barriers"}
	cmd.AddCommand(findCmd(), watchCmd(), recordCmd(), replayCmd(), testCmd(), driversCmd())
	return cmd
}

const deviceArg = `A device is given as in gate.yaml, on one line:
"{driver: rdm6300, port: /dev/ttyUSB0}".`

func driversCmd() *cobra.Command {
	return &cobra.Command{Use: "drivers", Short: "List the drivers with their config lines", Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			for _, d := range catalog.Drivers() {
				fmt.Fprintf(cmd.OutOrStdout(), "%s (%s): %s\n%s\n", d.Name, d.Kind, d.Doc, indent(d.Options))
			}
			return nil
		}}
}

func indent(s string) string {
	return "    " + strings.ReplaceAll(strings.TrimRight(s, "\n"), "\n", "\n    ") + "\n"
}

// named is a device of the config, or of the command line.
type named struct {
	name string
	kind catalog.Kind
	node options.Node
}

// parse reads a device from the command line.
func parse(src string) (named, error) {
	n, err := options.Parse("device", []byte(src))
	if err != nil {
		return named{}, err
	}
	want := n.At("driver").Text()
	var names []string
	for _, d := range catalog.Drivers() {
		if d.Name == want {
			return named{name: want, kind: d.Kind, node: n}, nil
		}
		names = append(names, d.Name)
	}
	if want == "" {
		return named{}, fmt.Errorf("%q names no driver: want one like {driver: rdm6300, port: /dev/ttyUSB0}", src)
	}
	return named{}, n.At("driver").Errorf("no driver is called %q%s", want, options.Hint(want, names))
}

// configured lists the devices of a gate.yaml.
func configured(path string) ([]named, error) {
	cfg, err := config.Load(path)
	if err != nil {
		return nil, err
	}
	var out []named
	add := func(name string, kind catalog.Kind, n options.Node) {
		if n.IsMap() {
			out = append(out, named{name, kind, n})
		}
	}
	for _, p := range cfg.Passages {
		add(p.Name+" barrier", catalog.KindBarrier, p.Barrier)
		for _, c := range []struct {
			name string
			n    options.Node
		}{{"beam", p.Beam}, {"door", p.Door}, {"fire", p.Fire}, {"tamper", p.Tamper}, {"exit button", p.Exit}, {"position", p.Position}} {
			add(p.Name+" "+c.name, catalog.KindContact, c.n)
		}
	}
	for _, l := range cfg.Lanes {
		for i, s := range l.Scanners {
			add(fmt.Sprintf("%s scanner %d", l.Name, i+1), catalog.KindScanner, s)
		}
		add(l.Name+" thermometer", catalog.KindSensor, l.Thermometer)
		add(l.Name+" indicator", catalog.KindIndicator, l.Indicator)
		add(l.Name+" call button", catalog.KindContact, l.Call)
	}
	return out, nil
}

func env(b *bus.Bus) catalog.Env {
	return catalog.Env{Bus: b, Log: slog.New(slog.NewTextHandler(os.Stderr, &slog.HandlerOptions{Level: slog.LevelWarn}))}
}

// printer writes whole lines from several goroutines.
type printer struct {
	mu sync.Mutex
	w  io.Writer
}

func (p *printer) line(name, format string, args ...any) {
	p.mu.Lock()
	defer p.mu.Unlock()
	fmt.Fprintf(p.w, "%s  %-24s %s\n", time.Now().Format("15:04:05.000"), name, fmt.Sprintf(format, args...))
}

func watchCmd() *cobra.Command {
	var path string
	var limit time.Duration
	cmd := &cobra.Command{
		Use: "watch [DEVICE...]", Short: "Show live what devices read, with counts of what is wrong",
		Long: "Show live what scanners, sensors and contacts read, of the devices given or of\nthose in gate.yaml (stop the daemon first, since a port has one user, or look at the page of devices\nof its console). Barriers and indicators are not touched.\n\n" + deviceArg,
		RunE: func(cmd *cobra.Command, args []string) error {
			var devices []named
			for _, a := range args {
				d, err := parse(a)
				if err != nil {
					return err
				}
				devices = append(devices, d)
			}
			if len(args) == 0 {
				var err error
				if devices, err = configured(path); err != nil {
					return err
				}
			}
			ctx, cancel := limited(cmd.Context(), limit)
			defer cancel()
			return watch(ctx, &printer{w: cmd.OutOrStdout()}, devices)
		},
	}
	cmd.Flags().StringVar(&path, "config", "/etc/gatehouse/gate.yaml", "configuration whose devices are watched")
	cmd.Flags().DurationVar(&limit, "for", 0, "stop after this time (0 = until interrupted)")
	return cmd
}

func limited(ctx context.Context, d time.Duration) (context.Context, context.CancelFunc) {
	if d > 0 {
		return context.WithTimeout(ctx, d)
	}
	return context.WithCancel(ctx)
}

func watch(ctx context.Context, out *printer, devices []named) error {
	shared := bus.New()
	var wg sync.WaitGroup
	defer wg.Wait()
	var open []device.Device
	defer func() {
		for _, d := range open {
			_ = d.Close()
		}
	}()
	for _, d := range devices {
		e := env(shared)
		var dev device.Device
		var next func(context.Context) (string, error)
		switch d.kind {
		case catalog.KindScanner:
			s, err := catalog.Scanner(e, d.name, d.node)
			if err != nil {
				return err
			}
			dev, next = s, func(ctx context.Context) (string, error) {
				c, err := s.Read(ctx)
				return describe(c), err
			}
		case catalog.KindSensor:
			s, err := catalog.Sensor(e, d.name, sensorOnly(d.node))
			if err != nil {
				return err
			}
			dev, next = s, samples(s)
		case catalog.KindContact:
			c, err := catalog.Contact(e, d.name, d.node)
			if err != nil {
				return err
			}
			dev, next = c, func(ctx context.Context) (string, error) {
				ch, err := c.Watch(ctx)
				return fmt.Sprintf("active %t, %d times", ch.Active, ch.Count), err
			}
		default:
			continue
		}
		open = append(open, dev)
		wg.Go(func() { follow(ctx, out, d.name, next) })
		wg.Go(func() { counts(ctx, out, d.name, dev) })
	}
	if len(open) == 0 {
		return errors.New("there is nothing to watch: no scanner, sensor or contact")
	}
	<-ctx.Done()
	wg.Wait()
	for i, dev := range open {
		out.line(dev.Health().Name, "%s", health(open[i].Health()))
	}
	return nil
}

// sensorOnly drops the keys that belong to the thermometer, not to its sensor.
func sensorOnly(n options.Node) options.Node { return n.Without(catalog.ThermometerKeys()...) }

// samples averages a sensor down to one line a second.
func samples(s device.Sensor) func(context.Context) (string, error) {
	return func(ctx context.Context) (string, error) {
		var lo, hi, ambient device.Celsius
		n := 0
		for end := time.Now().Add(time.Second); n == 0 || time.Now().Before(end); n++ {
			v, err := s.Sample(ctx)
			if err != nil {
				return "", err
			}
			if n == 0 {
				lo, hi = v.Object, v.Object
			}
			lo, hi, ambient = min(lo, v.Object), max(hi, v.Object), v.Ambient
		}
		return fmt.Sprintf("object %.2f to %.2f, ambient %.2f degC, %d samples", lo, hi, ambient, n), nil
	}
}

func follow(ctx context.Context, out *printer, name string, next func(context.Context) (string, error)) {
	for {
		what, err := next(ctx)
		switch {
		case ctx.Err() != nil || errors.Is(err, device.ErrClosed):
			return
		case err != nil:
			out.line(name, "! %v", err)
		default:
			out.line(name, "%s", what)
		}
	}
}

// counts prints a device's counters when they have changed.
func counts(ctx context.Context, out *printer, name string, d device.Device) {
	t := time.NewTicker(5 * time.Second)
	defer t.Stop()
	var last string
	for {
		select {
		case <-ctx.Done():
			return
		case <-t.C:
			if h := health(d.Health()); h != last {
				out.line(name, "%s", h)
				last = h
			}
		}
	}
}

func health(h device.Health) string {
	s := fmt.Sprintf("%s: %d read, %d garbled, %d noise, %d reopened", h.State, h.Reads, h.Garbled, h.Noise, h.Reopens)
	keys := make([]string, 0, len(h.Detail))
	for k := range h.Detail {
		keys = append(keys, k)
	}
	slices.Sort(keys)
	for _, k := range keys {
		s += fmt.Sprintf(", %s %d", k, h.Detail[k])
	}
	if h.LastError != "" {
		s += "; last: " + h.LastError
	}
	return s
}

// describe shows a card as the roster would have it.
func describe(c device.CardRead) string {
	if c.Format == "" {
		return ""
	}
	if c.Format == device.FormatPIN {
		return fmt.Sprintf("a PIN of %d digits", len(c.Text))
	}
	s := string(edge.CredentialOf(c))
	if c.Raw.Len > 0 {
		s += fmt.Sprintf("  (%s, %d bits %x)", c.Format, c.Raw.Len, c.Raw.B[:(c.Raw.Len+7)/8])
	}
	return s
}

func testCmd() *cobra.Command {
	var wait time.Duration
	cmd := &cobra.Command{
		Use: "test DEVICE", Short: "Let one device do what it is for, once",
		Long: "A scanner must read a card, a thermometer somebody's temperature, a contact must\nchange; a barrier opens once (stand clear), an indicator shows all its signals.\nStatus 1 when it does not.\n\n" + deviceArg,
		Args: cobra.ExactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			d, err := parse(args[0])
			if err != nil {
				return err
			}
			ctx, cancel := context.WithTimeout(cmd.Context(), wait)
			defer cancel()
			return try(ctx, &printer{w: cmd.OutOrStdout()}, d)
		},
	}
	cmd.Flags().DurationVar(&wait, "wait", 30*time.Second, "how long somebody has to show a card, or to step up")
	return cmd
}

func try(ctx context.Context, out *printer, d named) (err error) {
	e := env(bus.New())
	closing := func(dev device.Device) {
		out.line(d.name, "%s", health(dev.Health()))
		err = errors.Join(err, dev.Close())
	}
	switch d.kind {
	case catalog.KindScanner:
		s, err := catalog.Scanner(e, d.name, d.node)
		if err != nil {
			return err
		}
		defer closing(s)
		out.line(d.name, "show a card")
		c, err := passing(ctx, out, d.name, s.Read)
		if err == nil {
			out.line(d.name, "read %s", describe(c))
		}
		return err
	case catalog.KindSensor:
		t, err := catalog.Thermometer(e, d.name, d.node)
		if err != nil {
			return err
		}
		defer closing(t)
		out.line(d.name, "step up")
		r, err := t.Measure(ctx, device.Measurement{})
		if err != nil {
			return err
		}
		out.line(d.name, "%s: %.2f degC (raw %.2f, ambient %.2f, plus or minus %.2f, profile %s)", r.Quality, r.Value, r.Raw, r.Ambient, r.Uncertainty, r.Profile)
		if r.Quality != device.QualityOK {
			return fmt.Errorf("no valid reading: %s", r.Quality)
		}
		return nil
	case catalog.KindContact:
		c, err := catalog.Contact(e, d.name, d.node)
		if err != nil {
			return err
		}
		defer closing(c)
		for _, ask := range []string{"is", "change it: now"} {
			ch, err := passing(ctx, out, d.name, c.Watch)
			if err != nil {
				return err
			}
			out.line(d.name, "%s active %t", ask, ch.Active)
		}
		return nil
	case catalog.KindBarrier:
		b, err := catalog.Barrier(e, d.name, d.node)
		if err != nil {
			return err
		}
		defer closing(b)
		for _, step := range []struct {
			say string
			do  func() error
		}{
			{"shut", func() error { return b.Secure(ctx) }},
			{"open, in", func() error { return b.Admit(ctx, device.In) }},
			{"shut", func() error { return b.Secure(ctx) }},
			{"open, out", func() error { return b.Admit(ctx, device.Out) }},
			{"shut", func() error { return b.Secure(ctx) }},
		} {
			out.line(d.name, "%s", step.say)
			if err := step.do(); err != nil {
				return err
			}
			if err := pause(ctx, time.Second); err != nil {
				return err
			}
		}
		return nil
	}
	i, err := catalog.Indicator(e, d.name, d.node)
	if err != nil {
		return err
	}
	defer closing(i)
	for _, s := range []device.Signal{device.SignalGo, device.SignalStop, device.SignalWait, device.SignalCall, device.SignalFault, device.SignalFree, device.SignalIdle} {
		out.line(d.name, "%s", s)
		if err := i.Show(ctx, s); err != nil {
			return err
		}
		if err := pause(ctx, time.Second); err != nil {
			return err
		}
	}
	return nil
}

func pause(ctx context.Context, d time.Duration) error {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-ctx.Done():
		return ctx.Err()
	case <-t.C:
		return nil
	}
}

// passing reads on through passing faults, and shows them.
func passing[T any](ctx context.Context, out *printer, name string, read func(context.Context) (T, error)) (T, error) {
	for {
		v, err := read(ctx)
		if errors.Is(err, context.DeadlineExceeded) {
			return v, errors.New("nothing came in time")
		}
		if err == nil || ctx.Err() != nil || errors.Is(err, device.ErrClosed) {
			return v, err
		}
		out.line(name, "! %v", err)
	}
}
