package board

import (
	"fmt"
	"io/fs"
	"os"
	"testing"
	"testing/fstest"

	"golang.org/x/sys/unix"
)

// pi is the file system of a Raspberry Pi 4 whose state lies on the partition
// that the test's own folder lies on.
func pi(t *testing.T, dir string, more map[string]string) fs.FS {
	t.Helper()
	var st unix.Stat_t
	if err := unix.Stat(dir, &st); err != nil {
		t.Fatal(err)
	}
	m := fstest.MapFS{}
	files := map[string]string{
		"proc/device-tree/model":                "Raspberry Pi 4 Model B Rev 1.4\x00",
		"sys/class/thermal/thermal_zone0/temp":  "48199\n",
		"sys/block/mmcblk0/mmcblk0p2/partition": "2\n",
		"sys/block/mmcblk0/device/name":         "SC16G\n",
		"sys/fs/ext4/mmcblk0p2/errors_count":    "0\n",
		"sys/block/loop0/size":                  "0\n",
		fmt.Sprintf("sys/dev/block/%d:%d/uevent", unix.Major(st.Dev), unix.Minor(st.Dev)): "MAJOR=179\nMINOR=2\nDEVNAME=mmcblk0p2\nDEVTYPE=partition\n",
		"sys/devices/platform/soc/soc:firmware/get_throttled":                             "0\n",
	}
	for name, text := range more {
		files[name] = text
	}
	for name, text := range files {
		if text != "-" {
			m[name] = &fstest.MapFile{Data: []byte(text)}
		}
	}
	return m
}

func TestRead(t *testing.T) {
	const (
		throttled = "sys/devices/platform/soc/soc:firmware/get_throttled"
		life      = "sys/block/mmcblk0/device/life_time"
		eol       = "sys/block/mmcblk0/device/pre_eol_info"
	)
	for _, c := range []struct {
		name  string
		files map[string]string
		want  []string
		check func(Reading) bool
	}{
		{"well", nil, nil, func(r Reading) bool {
			return r.Model == "Raspberry Pi 4 Model B Rev 1.4" && r.HasTemp && r.Temperature == 48.199 && r.HasThrottle && r.Device == "mmcblk0" && r.Size > 0 && r.Free <= r.Size
		}},
		{"under-voltage now", map[string]string{throttled: "50005"}, []string{"under_voltage", "throttled"}, nil},
		{"a Raspberry Pi 5", map[string]string{throttled: "-", "sys/devices/platform/soc@107c000000/soc@107c000000:firmware/get_throttled": "50005"}, []string{"under_voltage", "throttled"}, func(r Reading) bool { return !r.OnlyVoltage }},
		{"its node beside the bus", map[string]string{throttled: "-", "sys/devices/platform/soc@107c000000:firmware/get_throttled": "4"}, []string{"throttled"}, nil},
		{"under-voltage once", map[string]string{throttled: "50000"}, nil, func(r Reading) bool { return r.Throttling == WasUnderVoltage|WasThrottled }},
		{"a kernel with hwmon only", map[string]string{throttled: "-", "sys/class/hwmon/hwmon1/name": "rpi_volt\n", "sys/class/hwmon/hwmon1/in0_lcrit_alarm": "1\n"}, []string{"under_voltage"}, func(r Reading) bool { return r.OnlyVoltage }},
		{"another sensor's alarm", map[string]string{throttled: "-", "sys/class/hwmon/hwmon1/name": "other\n", "sys/class/hwmon/hwmon1/in0_lcrit_alarm": "1\n"}, nil, func(r Reading) bool { return !r.HasThrottle }},
		{"hot", map[string]string{"sys/class/thermal/thermal_zone0/temp": "80000"}, []string{"hot"}, nil},
		{"frost", map[string]string{"sys/class/thermal/thermal_zone0/temp": "-12000"}, nil, func(r Reading) bool { return r.HasTemp && r.Temperature == -12 }},
		{"no sensor", map[string]string{"sys/class/thermal/thermal_zone0/temp": "-"}, nil, func(r Reading) bool { return !r.HasTemp }},
		{"errors", map[string]string{"sys/fs/ext4/mmcblk0p2/errors_count": "3"}, []string{"disk_errors"}, nil},
		{"an eMMC in its youth", map[string]string{life: "0x01 0x02", eol: "0x01"}, nil, func(r Reading) bool { return r.Wear == 20 && r.PreEOL == 1 }},
		{"an eMMC at its end", map[string]string{life: "0x01 0x09", eol: "0x01"}, []string{"worn_out"}, nil},
		{"an eMMC without reserve", map[string]string{life: "0x03 0x03", eol: "0x03"}, []string{"worn_out"}, nil},
	} {
		dir := t.TempDir()
		r, err := Read(pi(t, dir, c.files), dir)
		if err != nil {
			t.Errorf("%s: %v", c.name, err)
			continue
		}
		r.Free, r.Size = min(r.Free, 1<<40), min(r.Size, 1<<40) // the test's own disk may be full
		if r.Free*100 < r.Size*LowSpace {
			r.Free = r.Size
		}
		var got []string
		for _, p := range r.Problems() {
			got = append(got, p.Code)
		}
		if fmt.Sprint(got) != fmt.Sprint(c.want) || c.check != nil && !c.check(r) {
			t.Errorf("%s: %v, want %v; %+v", c.name, got, c.want, r)
		}
	}
	if _, err := Read(pi(t, t.TempDir(), nil), "/nowhere at all"); err == nil {
		t.Error("a state folder that is not there")
	}
}

func TestDiskProblems(t *testing.T) {
	for _, c := range []struct {
		free, size uint64
		want       int
	}{{1 << 30, 8 << 30, 0}, {700 << 20, 8 << 30, 1}, {3 << 30, 64 << 30, 0}, {0, 0, 0}} {
		if got := (Reading{Free: c.free, Size: c.size}).Problems(); len(got) != c.want {
			t.Errorf("%d of %d free: %v", c.free, c.size, got)
		}
	}
	if got := (Reading{ReadOnly: true}).Problems(); len(got) != 1 || got[0].Code != "read_only" {
		t.Errorf("read-only: %v", got)
	}
}

// The machine that runs the test is a board too.
func TestThisMachine(t *testing.T) {
	if _, err := Read(os.DirFS("/"), t.TempDir()); err != nil {
		t.Error(err)
	}
}
