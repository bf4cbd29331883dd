// Package setupcmd is "gatehouse setup": it gives the service the devices that
// gate.yaml names, and no others.
package setupcmd

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"log/slog"
	"os"
	"os/exec"
	"path"
	"path/filepath"
	"slices"
	"strings"
	"syscall"

	"github.com/spf13/cobra"

	"gatehouse/cmd/internal/config"
	"gatehouse/device/bus"
	"gatehouse/device/catalog"
	"gatehouse/device/options"
)

// Places of the drop-ins, from the root of the file system.
const (
	dropIn       = "etc/systemd/system/gatehouse.service.d/10-devices.conf"
	backupDropIn = "etc/systemd/system/gatehouse-backup.service.d/10-place.conf"
)

// New makes the command.
func New(defaultConfig string) *cobra.Command {
	var path, root string
	var dry bool
	c := &cobra.Command{
		Use:   "setup",
		Short: "Give the service the devices that gate.yaml names, and no others",
		Args:  cobra.NoArgs,
		Long: `setup reads the gate's configuration and writes which devices the service may open
(DeviceAllow) and by which groups' rights (SupplementaryGroups), to
/` + dropIn + `.
Where gate.yaml sends backups to another medium (backup.to), the nightly backup is let
write there by /` + backupDropIn + `.
Run it as root whenever a device is added to gate.yaml or taken from it, then
restart the gate: systemctl restart gatehouse.`,
		RunE: func(cmd *cobra.Command, _ []string) error {
			cfg, err := config.Load(path)
			if err != nil {
				return err
			}
			rules, err := Rules(cfg, root)
			if err != nil {
				return err
			}
			text := rules.DropIn(path)
			if dry {
				_, err := cmd.OutOrStdout().Write(text)
				return err
			}
			return install(cmd.Context(), cmd.OutOrStdout(), root, text, rules)
		},
	}
	c.Flags().StringVarP(&path, "config", "c", defaultConfig, "the gate's configuration")
	c.Flags().StringVar(&root, "root", "/", "`folder` of the system that is set up, for a card in another machine")
	c.Flags().BoolVarP(&dry, "dry-run", "n", false, "print the file and change nothing")
	return c
}

// serviceConfig is the configuration that the service runs with.
const serviceConfig = "etc/gatehouse/gate.yaml"

// Serves reports whether a configuration is the one of the service of the system at
// root: others have no drop-in.
func Serves(conf, root string) bool {
	if filepath.Clean(conf) != filepath.Join(root, serviceConfig) {
		return false
	}
	for _, dir := range []string{"usr/lib", "lib", "etc"} {
		if _, err := os.Stat(filepath.Join(root, dir, "systemd/system/gatehouse.service")); err == nil {
			return true
		}
	}
	return false
}

// Refresh gives the service what its configuration names by now. It does nothing for a
// configuration that no service runs with.
func Refresh(ctx context.Context, out io.Writer, conf, root string) error {
	if !Serves(conf, root) {
		return nil
	}
	cfg, err := config.Load(conf)
	if err != nil {
		return err
	}
	rules, err := Rules(cfg, root)
	if err != nil {
		return err
	}
	_, err = write(ctx, out, root, rules.DropIn(conf), rules)
	return err
}

// Compare says what the service lacks of the devices that a configuration names, and
// what it may open besides. A service without a drop-in may open nothing.
func Compare(cfg *config.Gate, root string) (lacks, besides []string, err error) {
	rules, err := Rules(cfg, root)
	if err != nil {
		return nil, nil, err
	}
	text, err := os.ReadFile(filepath.Join(root, dropIn))
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return nil, nil, fmt.Errorf("cannot read the service's devices: %w", err)
	}
	var has Access
	for line := range strings.Lines(string(text)) {
		if d, ok := strings.CutPrefix(strings.TrimSpace(line), "DeviceAllow="); ok && d != "" {
			has.Allow = append(has.Allow, d)
		}
		if g, ok := strings.CutPrefix(strings.TrimSpace(line), "SupplementaryGroups="); ok {
			has.Groups = append(has.Groups, strings.Fields(g)...)
		}
	}
	gives := func(d string) bool { return slices.Contains(has.Allow, d) }
	for _, d := range rules.Allow {
		// What is not plugged in now had one of its classes when it was.
		if !gives(d) && !(slices.Contains(rules.guessed, d) && slices.ContainsFunc(rules.guessed, gives)) {
			lacks = append(lacks, d)
		}
	}
	for _, g := range rules.Groups {
		if !slices.Contains(has.Groups, g) {
			lacks = append(lacks, "group "+g)
		}
	}
	for _, d := range has.Allow {
		if !slices.Contains(rules.Allow, d) {
			besides = append(besides, d)
		}
	}
	return lacks, besides, nil
}

func install(ctx context.Context, out io.Writer, root string, text []byte, r Access) error {
	wrote, err := write(ctx, out, root, text, r)
	if err != nil {
		return err
	}
	if !wrote {
		_, err := fmt.Fprintf(out, "%s is right already\n", filepath.Join(root, dropIn))
		return err
	}
	_, err = fmt.Fprintln(out, "next: gatehouse check, then: systemctl restart gatehouse")
	return err
}

// write replaces drop-ins that say something else, and says what the services may do
// from then on.
func write(ctx context.Context, out io.Writer, root string, text []byte, r Access) (wrote bool, err error) {
	file := filepath.Join(root, dropIn)
	if wrote, err = backupPlace(root, r.backup); err != nil {
		return false, err
	}
	if wrote && r.backup != "" {
		fmt.Fprintf(out, "%s: the nightly backup may write to %s\n", filepath.Join(root, backupDropIn), r.backup)
	}
	if old, err := os.ReadFile(file); err != nil || !bytes.Equal(old, text) {
		if err := replace(file, text); err != nil {
			return false, err
		}
		wrote = true
		fmt.Fprintf(out, "%s: the service may open %s\n", file, r)
		for _, w := range r.Notes {
			fmt.Fprintln(out, "note:", w)
		}
	}
	if !wrote || filepath.Clean(root) != "/" {
		return wrote, nil
	}
	if _, err := os.Stat("/run/systemd/system"); err == nil {
		if b, err := exec.CommandContext(ctx, "systemctl", "daemon-reload").CombinedOutput(); err != nil {
			return true, fmt.Errorf("systemd does not read its units again: %w: %s", err, bytes.TrimSpace(b))
		}
	}
	return true, nil
}

// backupPlace lets the nightly backup write to another medium, and not when that is
// away: it would fill the folder below.
func backupPlace(root, to string) (wrote bool, err error) {
	file := filepath.Join(root, backupDropIn)
	if to == "" {
		err := os.Remove(file)
		if errors.Is(err, fs.ErrNotExist) {
			return false, nil
		}
		if err != nil {
			return false, needsRoot(err)
		}
		return true, nil
	}
	text := fmt.Appendf(nil, "# Written by \"gatehouse setup\" from gate.yaml; it is replaced when that runs again.\n[Unit]\nRequiresMountsFor=%[1]s\n\n[Service]\nReadWritePaths=-%[1]s\n", to)
	if old, err := os.ReadFile(file); err == nil && bytes.Equal(old, text) {
		return false, nil
	}
	return true, replace(file, text)
}

func replace(file string, text []byte) error {
	if err := os.MkdirAll(filepath.Dir(file), 0o755); err != nil {
		return needsRoot(err)
	}
	tmp := file + ".new"
	if err := os.WriteFile(tmp, text, 0o644); err != nil {
		return needsRoot(err)
	}
	if err := os.Rename(tmp, file); err != nil {
		return needsRoot(err)
	}
	return nil
}

func needsRoot(err error) error {
	err = fmt.Errorf("cannot write what the service may do: %w", err)
	if errors.Is(err, fs.ErrPermission) {
		err = fmt.Errorf("%w (run it as root: sudo gatehouse setup)", err)
	}
	if errors.Is(err, syscall.EROFS) {
		err = fmt.Errorf("%w (mount -o remount,rw / before, and ro after)", err)
	}
	return err
}

// Access is what the service is given.
type Access struct {
	Allow   []string // of DeviceAllow: "char-ttyUSB rw", "/dev/ttyAMA0 rw"
	Groups  []string
	Modules []string // that make the classes of devices known before one is plugged in
	Notes   []string // for the installer

	guessed []string // of Allow: classes that a thing may have which is not plugged in
	backup  string   // folder on another medium for the nightly backup
}

// String names the devices in a line.
func (a Access) String() string {
	if len(a.Allow) == 0 {
		return "no device"
	}
	var names []string
	for _, d := range a.Allow {
		name, _, _ := strings.Cut(d, " ")
		names = append(names, strings.TrimPrefix(name, "char-"))
	}
	return strings.Join(names, ", ")
}

// Rules finds what a configuration's devices need. Nothing is opened.
func Rules(cfg *config.Gate, root string) (Access, error) {
	b := bus.New()
	if err := claim(b, cfg); err != nil {
		return Access{}, err
	}
	a := Access{backup: cfg.Backup.To}
	for _, c := range b.Claims() {
		a.add(c, root)
	}
	for _, list := range []*[]string{&a.Allow, &a.Groups, &a.Modules} {
		slices.Sort(*list)
		*list = slices.Compact(*list)
	}
	return a, nil
}

// claim makes every device of the configuration, unopened, on the bus.
func claim(b *bus.Bus, cfg *config.Gate) error {
	env := catalog.Env{Bus: b, Log: slog.New(slog.DiscardHandler)}
	var errs []error
	for name, n := range cfg.Buses {
		if err := b.Alias(name, n.At("i2c").Text()); err != nil {
			errs = append(errs, n.Errorf("%v", err))
		}
	}
	var nodes []options.Node
	for _, p := range cfg.Passages {
		nodes = append(nodes, p.Barrier, p.Beam, p.Door, p.Fire, p.Tamper, p.Exit, p.Position)
	}
	for _, l := range cfg.Lanes {
		nodes = append(append(nodes, l.Scanners...), l.Thermometer, l.Indicator, l.Call, l.Panel)
	}
	for i, n := range nodes {
		if !n.IsMap() {
			continue
		}
		name := n.At("driver").Text()
		if name == "" {
			name = "gpio" // a contact's line
		}
		k := slices.IndexFunc(catalog.Drivers(), func(d catalog.Driver) bool { return d.Name == name })
		if k < 0 {
			errs = append(errs, n.Errorf("no driver is called %q", name))
			continue
		}
		d := catalog.Drivers()[k]
		n = n.Without("driver")
		if d.Kind == catalog.KindSensor {
			n = n.Without(catalog.ThermometerKeys()...)
		}
		if _, err := d.Open(env, fmt.Sprintf("device %d", i+1), n); err != nil {
			errs = append(errs, err)
		}
	}
	return errors.Join(errs...)
}

// add gives one claimed thing. USB adapters are given by their class: the same
// adapter has another number after it was unplugged.
func (a *Access) add(what, root string) {
	give := func(group string, allow ...string) {
		a.Allow = append(a.Allow, allow...)
		a.Groups = append(a.Groups, group)
	}
	usb := func(class, module string) {
		give("dialout", "char-"+class+" rw")
		a.Modules = append(a.Modules, module)
	}
	node, isPath := strings.CutPrefix(what, "/dev/")
	switch {
	case strings.HasPrefix(what, "i2c-"):
		name, _, _ := strings.Cut(what, " ")
		give("i2c", "/dev/"+name+" rw")
	case strings.HasPrefix(what, "input device "), strings.HasPrefix(node, "input/"):
		give("input", "char-input r")
	case !isPath:
		give("gpio", "char-gpiochip rw")
	case strings.HasPrefix(node, "ttyUSB"):
		usb("ttyUSB", "usbserial")
	case strings.HasPrefix(node, "ttyACM"):
		usb("ttyACM", "cdc_acm")
	case strings.HasPrefix(node, "tty"), strings.HasPrefix(node, "serial") && !strings.Contains(node, "/"):
		give("dialout", what+" rw")
	case strings.HasPrefix(node, "pts/"):
		give("dialout", "char-pts rw")
	default: // a name of udev's
		to, _ := os.Readlink(filepath.Join(root, what))
		if to = path.Base(to); strings.HasPrefix(to, "tty") && !strings.HasPrefix(to, "ttyUSB") && !strings.HasPrefix(to, "ttyACM") {
			give("dialout", "/dev/"+to+" rw") // a UART of the board's: it stays where it is
			return
		}
		// An adapter's successor may be of the other class.
		usb("ttyUSB", "usbserial")
		usb("ttyACM", "cdc_acm")
		if _, err := os.Lstat(filepath.Join(root, what)); err != nil {
			a.guessed = []string{"char-ttyUSB rw", "char-ttyACM rw"}
			a.Notes = append(a.Notes, what+" is not there now: taken for a USB adapter (name it in /etc/udev/rules.d/70-gatehouse.rules)")
		}
	}
}

// DropIn is the text of the unit's drop-in.
func (a Access) DropIn(conf string) []byte {
	var b bytes.Buffer
	fmt.Fprintf(&b, "# Written by \"gatehouse setup\" from %s; it is replaced when that runs again.\n", conf)
	if len(a.Modules) > 0 {
		b.WriteString("[Unit]\n# A class that is not known when the service starts would be left out.\n")
		for _, key := range []string{"Wants", "After"} {
			fmt.Fprintf(&b, "%s=", key)
			for i, m := range a.Modules {
				if i > 0 {
					b.WriteByte(' ')
				}
				fmt.Fprintf(&b, "modprobe@%s.service", m)
			}
			b.WriteByte('\n')
		}
		b.WriteByte('\n')
	}
	b.WriteString("[Service]\nDeviceAllow=\n")
	for _, d := range a.Allow {
		fmt.Fprintf(&b, "DeviceAllow=%s\n", d)
	}
	b.WriteString("SupplementaryGroups=\n")
	if len(a.Groups) > 0 {
		fmt.Fprintf(&b, "SupplementaryGroups=%s\n", strings.Join(a.Groups, " "))
	}
	return b.Bytes()
}
