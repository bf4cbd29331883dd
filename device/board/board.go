// Package board reads what Linux knows of the board a gate runs on: its power,
// its heat, and the medium that holds the journal. These fail long before the
// gate does.
//
// Sources: get_throttled, Raspberry Pi documentation, "vcgencmd", get_throttled
// (the kernel's raspberrypi firmware driver gives the same word in sysfs); hwmon
// rpi_volt, the kernel's Documentation/hwmon/raspberrypi-hwmon.rst; life_time and
// pre_eol_info, Documentation/driver-api/mmc/mmc-dev-attrs.rst and JEDEC JESD84-B51
// section 7.4 (EXT_CSD 267 to 269); errors_count, Documentation/ABI/testing/sysfs-fs-ext4.
package board

import (
	"errors"
	"fmt"
	"io/fs"
	"path"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"
)

// Throttling is the word that get_throttled gives.
type Throttling uint32

// Bits of Throttling: now, and since the board started.
const (
	UnderVoltage    Throttling = 1 << 0
	FrequencyCapped Throttling = 1 << 1
	Throttled       Throttling = 1 << 2
	SoftLimit       Throttling = 1 << 3
	WasUnderVoltage Throttling = 1 << 16
	WasFrequencyCap Throttling = 1 << 17
	WasThrottled    Throttling = 1 << 18
	WasAtSoftLimit  Throttling = 1 << 19
)

// Reading is one look at the board. What the board cannot tell is at its zero
// value, with Has false where zero would mean something.
type Reading struct {
	Model       string
	Temperature float64 // of the processor, degrees Celsius
	HasTemp     bool
	Throttling  Throttling
	HasThrottle bool
	OnlyVoltage bool // of Throttling only UnderVoltage is known

	// The medium that holds the gate's state.
	Device     string // mmcblk0, sda; empty when it is not a disk's partition
	Free, Size uint64 // bytes that the gate may use, and in all
	ReadOnly   bool
	Errors     uint64 // that the file system has counted, ext4 only
	Wear       int    // percent of its life used, in steps of ten, eMMC only; 0 = it does not say
	PreEOL     int    // 1 normal, 2 80 % of the reserve used, 3 90 %; 0 = it does not say
}

// Thresholds. The processor of a Raspberry Pi slows down at 80 degrees and more
// at 85 (Raspberry Pi documentation, "Frequency management and thermal control").
const (
	Hot        = 80.0
	LowSpace   = 10      // percent free
	LowBytes   = 2 << 30 // that are enough whatever the percentage is
	WornOut    = 90      // percent of the medium's life
	sysThermal = "sys/class/thermal/thermal_zone0"
)

// Read looks at the board through root, the file system's root, and at the
// medium under the folder state.
func Read(root fs.FS, state string) (Reading, error) {
	var r Reading
	r.Model = strings.TrimRight(text(root, "proc/device-tree/model"), "\x00")
	if milli, err := strconv.ParseInt(text(root, sysThermal+"/temp"), 10, 64); err == nil {
		r.Temperature, r.HasTemp = float64(milli)/1000, true
	}
	if v, err := strconv.ParseUint(throttled(root), 16, 32); err == nil {
		r.Throttling, r.HasThrottle = Throttling(v), true
	} else if names, err := fs.Glob(root, "sys/class/hwmon/hwmon*/in0_lcrit_alarm"); err == nil {
		for _, name := range names {
			if text(root, path.Join(path.Dir(name), "name")) == "rpi_volt" {
				r.HasThrottle, r.OnlyVoltage = true, true
				if text(root, name) == "1" {
					r.Throttling |= UnderVoltage
				}
			}
		}
	}
	var st unix.Statfs_t
	if err := unix.Statfs(state, &st); err != nil {
		return r, fmt.Errorf("cannot look at the medium of %s: %w", state, err)
	}
	block := uint64(st.Bsize)
	r.Free, r.Size, r.ReadOnly = st.Bavail*block, st.Blocks*block, st.Flags&unix.ST_RDONLY != 0
	var dev unix.Stat_t
	if err := unix.Stat(state, &dev); err != nil {
		return r, fmt.Errorf("cannot look at %s: %w", state, err)
	}
	return r, r.medium(root, unix.Major(dev.Dev), unix.Minor(dev.Dev))
}

// throttled is the word of the firmware's driver (drivers/firmware/raspberrypi.c), whose
// device is named after its node in the device tree: soc:firmware, on a Raspberry Pi 5
// soc@107c000000:firmware.
func throttled(root fs.FS) string {
	for _, at := range []string{"soc*/soc*:firmware", "soc*:firmware"} {
		names, _ := fs.Glob(root, "sys/devices/platform/"+at+"/get_throttled")
		if len(names) > 0 {
			return text(root, names[0])
		}
	}
	return ""
}

// medium finds the disk of a block device number and what it says of itself.
func (r *Reading) medium(root fs.FS, major, minor uint32) error {
	// sys/dev/block/8:1 is a link to the partition's folder, which lies in the
	// disk's; uevent names it without following links, which fs.FS need not do.
	base := fmt.Sprintf("sys/dev/block/%d:%d", major, minor)
	partition := value(text(root, base+"/uevent"), "DEVNAME")
	if partition == "" {
		return nil // a file system without a disk: tmpfs, overlay
	}
	r.Errors, _ = strconv.ParseUint(text(root, "sys/fs/ext4/"+partition+"/errors_count"), 10, 64)
	disks, err := fs.ReadDir(root, "sys/block")
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return fmt.Errorf("cannot list the disks: %w", err)
	}
	for _, d := range disks {
		if _, err := fs.Stat(root, path.Join("sys/block", d.Name(), partition)); err == nil || d.Name() == partition {
			r.Device = d.Name()
		}
	}
	if r.Device == "" {
		return nil
	}
	disk := path.Join("sys/block", r.Device, "device")
	// Two estimates, for the two kinds of memory in it; the worse one counts.
	for _, f := range strings.Fields(text(root, disk+"/life_time")) {
		if v, err := strconv.ParseUint(f, 0, 8); err == nil {
			r.Wear = max(r.Wear, int(v)*10)
		}
	}
	if v, err := strconv.ParseUint(text(root, disk+"/pre_eol_info"), 0, 8); err == nil {
		r.PreEOL = int(v)
	}
	return nil
}

func text(root fs.FS, name string) string {
	b, err := fs.ReadFile(root, name)
	if err != nil {
		return "" // this board does not have it
	}
	return strings.TrimSpace(string(b))
}

func value(lines, key string) string {
	for line := range strings.Lines(lines) {
		if v, ok := strings.CutPrefix(strings.TrimSpace(line), key+"="); ok {
			return v
		}
	}
	return ""
}

// Problem is something about the board that a person should see to.
type Problem struct {
	Code string // under_voltage, throttled, hot, read_only, disk_errors, disk_space, worn_out
	Text string // what it is and what to do
}

// Problems lists what is wrong now.
func (r Reading) Problems() []Problem {
	var out []Problem
	add := func(when bool, code, format string, args ...any) {
		if when {
			out = append(out, Problem{code, fmt.Sprintf(format, args...)})
		}
	}
	add(r.Throttling&UnderVoltage != 0, "under_voltage", "the supply's voltage is too low: use the board's own power supply and a short cable, and power barriers from another one")
	add(r.Throttling&Throttled != 0, "throttled", "the processor is slowed down: see to heat and supply")
	add(r.HasTemp && r.Temperature >= Hot, "hot", "the processor has %.0f degrees: give it air or shade", r.Temperature)
	add(r.ReadOnly, "read_only", "the medium cannot be written any more: replace it")
	add(r.Errors > 0, "disk_errors", "the file system has counted %d errors: back the gate up and replace the medium", r.Errors)
	add(r.Size > 0 && r.Free < LowBytes && r.Free*100 < r.Size*LowSpace, "disk_space", "%d MB are free of %d: remove what is not the gate's, or use a larger medium", r.Free>>20, r.Size>>20)
	add(r.Wear >= WornOut || r.PreEOL >= 2, "worn_out", "the medium has used %d %% of its life (reserve: %d of 3): replace it", r.Wear, r.PreEOL)
	return out
}
