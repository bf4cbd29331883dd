package sqlite

import (
	"fmt"
	"os"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"
)

// Written is how much reached a medium, in bytes since some start: differences
// tell. It wears flash out.
type Written struct {
	Process uint64 // by this process: /proc/self/io write_bytes, proc(5)
	Medium  uint64 // by everybody, to the block device of the folder; 0 = it has no such counter
}

// ReadWritten reads the kernel's counters for the medium of a folder.
func ReadWritten(dir string) (w Written, err error) {
	f, err := os.ReadFile("/proc/self/io")
	if err != nil {
		return w, fmt.Errorf("cannot read how much was written: %w", err)
	}
	for line := range strings.Lines(string(f)) {
		if v, ok := strings.CutPrefix(line, "write_bytes: "); ok {
			if w.Process, err = strconv.ParseUint(strings.TrimSpace(v), 10, 64); err != nil {
				return w, fmt.Errorf("/proc/self/io: %w", err)
			}
		}
	}
	var st unix.Stat_t
	if err := unix.Stat(dir, &st); err != nil {
		return w, err
	}
	// Documentation/admin-guide/iostats.rst: the seventh field is sectors written,
	// of 512 bytes whatever the medium's own are.
	stat, err := os.ReadFile(fmt.Sprintf("/sys/dev/block/%d:%d/stat", unix.Major(st.Dev), unix.Minor(st.Dev)))
	if fields := strings.Fields(string(stat)); err == nil && len(fields) >= 7 {
		if sectors, err := strconv.ParseUint(fields[6], 10, 64); err == nil {
			w.Medium = sectors * 512
		}
	}
	return w, nil
}
