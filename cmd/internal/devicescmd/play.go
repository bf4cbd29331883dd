package devicescmd

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"time"

	"github.com/spf13/cobra"

	"gatehouse/device"
	"gatehouse/device/bus"
	"gatehouse/device/catalog"
	"gatehouse/device/options"
	"gatehouse/device/sim"
	"gatehouse/device/thermometry"
)

func recordCmd() *cobra.Command {
	var file string
	var limit time.Duration
	cmd := &cobra.Command{
		Use: "record DEVICE --out FILE", Short: "Record the bytes of a serial device, or the samples of another thermometer",
		Long: "Record what a serial device sends, byte for byte with times, and show what is read\nmeanwhile; of a thermometer on another bus, its samples. The recording holds card numbers or temperatures: keep it accordingly.\n\n" + deviceArg,
		Args: cobra.ExactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			d, err := parse(args[0])
			if err != nil {
				return err
			}
			if d.node.At("port").IsZero() && d.kind != catalog.KindSensor {
				return errors.New("only a device with a port, or a thermometer, can be recorded")
			}
			f, err := os.OpenFile(file, os.O_CREATE|os.O_EXCL|os.O_WRONLY, 0o600)
			if err != nil {
				return fmt.Errorf("cannot begin a recording: %w", err)
			}
			ctx, cancel := limited(cmd.Context(), limit)
			defer cancel()
			out := &printer{w: cmd.OutOrStdout()}
			if d.node.At("port").IsZero() {
				return errors.Join(recordSamples(ctx, out, d, f), f.Sync(), f.Close())
			}
			rec := bus.NewRecorder(f, "driver: "+d.name)
			err = show(ctx, out, d, rec.Tap)
			return errors.Join(err, rec.Err(), f.Sync(), f.Close())
		},
	}
	cmd.Flags().StringVar(&file, "out", "", "file to write; it must not exist yet")
	_ = cmd.MarkFlagRequired("out")
	cmd.Flags().DurationVar(&limit, "for", 0, "stop after this time (0 = until interrupted)")
	return cmd
}

// recordSamples writes a sensor's samples, as package thermometry reads them.
func recordSamples(ctx context.Context, out *printer, d named, w io.Writer) error {
	s, err := catalog.Sensor(env(bus.New()), d.name, sensorOnly(d.node))
	if err != nil {
		return err
	}
	if _, err := fmt.Fprintf(w, "# samples of driver %s\n", d.name); err != nil {
		return err
	}
	start := time.Now()
	var werr error
	follow(ctx, out, d.name, func(ctx context.Context) (string, error) {
		v, err := s.Sample(ctx)
		if err != nil {
			return "", err
		}
		if _, e := thermometry.WriteSample(w, v.At.Sub(start), v); e != nil {
			werr = errors.Join(werr, e)
		}
		return fmt.Sprintf("object %.2f, ambient %.2f degC", v.Object, v.Ambient), nil
	})
	out.line(d.name, "%s", health(s.Health()))
	return errors.Join(werr, s.Close())
}

// show reads a serial scanner, or measures with a serial thermometer, until the
// context is done.
func show(ctx context.Context, out *printer, d named, tap func([]byte)) error {
	e := env(bus.New())
	e.Tap = tap
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
		t, err := catalog.Thermometer(e, d.name, d.node)
		if err != nil {
			return err
		}
		dev, next = t, func(ctx context.Context) (string, error) {
			r, err := t.Measure(ctx, device.Measurement{})
			return fmt.Sprintf("%s: %.2f degC (raw %.2f, ambient %.2f, %d samples, profile %s)", r.Quality, r.Value, r.Raw, r.Ambient, r.Samples, r.Profile), err
		}
	default:
		return fmt.Errorf("%s is neither a scanner nor a thermometer", d.name)
	}
	follow(ctx, out, d.name, next)
	out.line(d.name, "%s", health(dev.Health()))
	return dev.Close()
}

func replayCmd() *cobra.Command {
	cmd := &cobra.Command{
		Use: "replay FILE DEVICE", Short: "Run a driver, and what follows it, on a recording",
		Long: "Play a recording into the driver in the time it was made in, through a pseudo\nterminal, and show what it reads: cards, or temperatures with the profile given.\nA recording of\nsamples is run through a thermometer's pipeline at once.\nThe device needs no port: \"{driver: gy-mcu90614, profile: skin}\".",
		Args: cobra.ExactArgs(2),
		RunE: func(cmd *cobra.Command, args []string) error {
			return replay(cmd.Context(), &printer{w: cmd.OutOrStdout()}, args[0], args[1])
		},
	}
	return cmd
}

func replay(ctx context.Context, out *printer, file, src string) error {
	b, err := os.ReadFile(file)
	if err != nil {
		return fmt.Errorf("cannot read the recording: %w", err)
	}
	n, err := options.Parse("device", []byte(src))
	if err != nil {
		return err
	}
	// Samples have three columns, bytes two.
	if samples, err := thermometry.ReadSamples(bytes.NewReader(b)); err == nil {
		c, err := catalog.ThermometryConfig(n)
		if err != nil {
			return err
		}
		return thermometry.Replay(samples, c, out.w)
	}
	chunks, err := bus.ReadRecording(bytes.NewReader(b))
	if err != nil {
		return fmt.Errorf("%s: %w", file, err)
	}
	dir, err := os.MkdirTemp("", "gatehouse-replay-")
	if err != nil {
		return err
	}
	defer os.RemoveAll(dir)
	line, err := sim.NewSerial(filepath.Join(dir, "port"))
	if err != nil {
		return err
	}
	defer line.Close()
	if !n.At("port").IsZero() {
		return n.At("port").Errorf("a replay has no port")
	}
	d, err := parse(withPort(src, line.Path()))
	if err != nil {
		return err
	}
	ctx, cancel := context.WithCancel(ctx)
	played := make(chan error, 1)
	go func() {
		defer cancel()
		played <- play(ctx, line, chunks)
	}()
	err = show(ctx, out, d, nil)
	cancel()
	if perr := <-played; !errors.Is(perr, context.Canceled) {
		err = errors.Join(err, perr)
	}
	return err
}

// withPort adds a port to a mapping in either of YAML's notations.
func withPort(src, path string) string {
	for i := len(src) - 1; i >= 0; i-- {
		switch src[i] {
		case '}':
			return src[:i] + fmt.Sprintf(", port: %q}", path)
		case ' ', '\n', '\t':
			continue
		}
		break
	}
	return src + fmt.Sprintf("\nport: %q\n", path)
}

func play(ctx context.Context, line *sim.Serial, chunks []bus.Chunk) error {
	start := time.Now()
	for _, c := range chunks {
		if err := pause(ctx, time.Until(start.Add(c.At))); err != nil {
			return err
		}
		if _, err := line.Write(c.Bytes); err != nil {
			return err
		}
	}
	return pause(ctx, time.Second) // for the last frame to be read
}
