package devicescmd

import (
	"context"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"gatehouse/device"
	"gatehouse/device/bus"
	"gatehouse/device/catalog"
	"gatehouse/device/scan"
	"gatehouse/device/serialrfid"
)

func findCmd() *cobra.Command {
	var listen time.Duration
	cmd := &cobra.Command{
		Use: "find", Short: "List what is connected, with config lines to paste", Args: cobra.NoArgs,
		Long: `List serial ports, I2C addresses, GPIO chips and input devices, with a guess at
what each is and the lines for gate.yaml. Serial ports are listened to for a while:
hold a card to the readers and stand before the thermometers meanwhile. Ports that
another program has open are listed and left alone.`,
		RunE: func(cmd *cobra.Command, _ []string) error {
			return find(cmd.Context(), cmd.OutOrStdout(), "/dev", listen)
		},
	}
	cmd.Flags().DurationVar(&listen, "listen", 4*time.Second, "how long serial ports are listened to")
	return cmd
}

func find(ctx context.Context, w io.Writer, dev string, listen time.Duration) error {
	ports := serialPorts(dev)
	fmt.Fprintf(w, "Serial ports: %d\n", len(ports))
	heard := make([]string, len(ports))
	b := bus.New()
	done := make(chan int)
	for i, p := range ports {
		go func() {
			heard[i] = hear(ctx, b, p, listen)
			done <- i
		}()
	}
	for range ports {
		<-done
	}
	for i, p := range ports {
		fmt.Fprintf(w, "  %s\n", p)
		driver, said, _ := strings.Cut(heard[i], "\n")
		if said != "" {
			fmt.Fprintf(w, "    %s\n", said)
		}
		paste(w, driver, "port", p)
	}

	buses, _ := filepath.Glob(filepath.Join(dev, "i2c-*"))
	fmt.Fprintf(w, "I2C buses: %d\n", len(buses))
	for _, p := range buses {
		found, err := b.ProbeI2C(filepath.Base(p))
		if err != nil {
			fmt.Fprintf(w, "  %s: %v\n", p, err)
			continue
		}
		fmt.Fprintf(w, "  %s: %d addresses answer\n", p, len(found))
		for _, a := range found {
			fmt.Fprintf(w, "    %#02x  %s\n", a, i2cGuess(a))
		}
	}

	chips, err := bus.Chips(dev)
	fmt.Fprintf(w, "GPIO chips: %d\n", len(chips))
	if err != nil {
		fmt.Fprintf(w, "  %v\n", err)
	}
	for _, c := range chips {
		used := 0
		for _, l := range c.Lines {
			if l.Used {
				used++
			}
		}
		fmt.Fprintf(w, "  %s %s: %d lines, %d in use\n", c.Path, c.Label, len(c.Lines), used)
	}

	inputs, err := bus.Inputs(filepath.Join(dev, "input"))
	fmt.Fprintf(w, "Input devices: %d\n", len(inputs))
	if err != nil {
		fmt.Fprintf(w, "  %v\n", err)
	}
	for _, in := range inputs {
		fmt.Fprintf(w, "  %s %q\n", in.Path, in.Name)
		if in.Link != "" {
			paste(w, "hid", "input", in.Link)
		} else {
			paste(w, "hid", "name", in.Name)
		}
	}
	return nil
}

// serialPorts lists the ports by their stable paths, others by their nodes. The
// kernel's console is left out: to listen to it would change its speed.
func serialPorts(dev string) []string {
	consoles, _ := os.ReadFile("/proc/consoles") // none where it cannot be read
	isConsole := func(node string) bool {
		for l := range strings.Lines(string(consoles)) {
			if f := strings.Fields(l); len(f) > 0 && f[0] == filepath.Base(node) {
				return true
			}
		}
		return false
	}
	stable := bus.Stable(filepath.Join(dev, "serial", "by-id"))
	var out []string
	for _, link := range stable {
		out = append(out, link)
	}
	for _, pattern := range []string{"ttyUSB*", "ttyACM*", "ttyAMA*", "serial[0-9]"} {
		nodes, _ := filepath.Glob(filepath.Join(dev, pattern))
		for _, n := range nodes {
			real, err := filepath.EvalSymlinks(n)
			if err != nil || isConsole(real) || stable[real] != "" || slices.ContainsFunc(out, func(o string) bool { return sameFile(o, n) }) {
				continue
			}
			out = append(out, n)
		}
	}
	slices.Sort(out)
	return out
}

func sameFile(a, b string) bool {
	x, err1 := os.Stat(a)
	y, err2 := os.Stat(b)
	return err1 == nil && err2 == nil && os.SameFile(x, y)
}

// hear listens to a port and guesses: "driver\nwhat was heard".
func hear(ctx context.Context, b *bus.Bus, path string, listen time.Duration) string {
	p, err := b.Serial(bus.SerialConfig{User: "find", Path: path})
	if err != nil {
		return "\n" + err.Error()
	}
	defer p.Close()
	ctx, cancel := context.WithTimeout(ctx, listen)
	defer cancel()
	var got []byte
	buf := make([]byte, 256)
	for len(got) < 1<<16 {
		n, err := p.Read(ctx, buf)
		if ctx.Err() != nil {
			break
		}
		if err != nil {
			return "\n" + err.Error()
		}
		got = append(got, buf[:n]...)
	}
	driver := guess(got)
	switch {
	case len(got) == 0:
		return "\nnothing was heard at 9600 baud"
	case driver == "":
		return fmt.Sprintf("\n%d bytes were heard that no driver knows, beginning % x: another baud rate?", len(got), got[:min(len(got), 16)])
	}
	return fmt.Sprintf("%s\nheard %d bytes, as of %s", driver, len(got), driver)
}

// guess names the driver whose frames the bytes are.
func guess(b []byte) string {
	reads := func(d scan.Decoder) bool {
		var r device.CardRead
		return slices.ContainsFunc(b, func(c byte) bool { return d.Byte(c, &r) == scan.Card })
	}
	switch {
	case reads(serialrfid.NewDecoder(serialrfid.RDM6300)):
		return "rdm6300"
	case reads(serialrfid.NewDecoder(serialrfid.ID12)):
		return "id12"
	}
	if d := catalog.GuessSensor(b); d != "" {
		return d
	}
	if reads(scan.NewLine(scan.DefaultLine(device.FormatQR))) {
		return "qr"
	}
	return ""
}

func i2cGuess(a uint16) string {
	switch a {
	case 0x5A:
		return "MLX90614 infrared thermometer?"
	case 0x3A:
		return "MLX90632 infrared thermometer?"
	case 0x68, 0x69:
		return "AMG8833 thermal array, or a clock chip (DS3231)?"
	}
	return "not known"
}

// paste prints config lines, with the place filled in.
func paste(w io.Writer, driver, key, value string) {
	for _, d := range catalog.Drivers() {
		if d.Name != driver {
			continue
		}
		word := string(d.Kind)
		fmt.Fprintf(w, "    %s:\n", word)
		for l := range strings.Lines(d.Options) {
			k, _, _ := strings.Cut(l, ":")
			switch k {
			case "port", "input":
				l = key + ": " + value + "\n"
			}
			fmt.Fprintf(w, "      %s", l)
		}
	}
}
