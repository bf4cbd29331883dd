package bus

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"time"
	"unsafe"

	"golang.org/x/sys/unix"
	"periph.io/x/conn/v3/gpio"
)

// Event is one edge of one line of a group.
type Event struct {
	Line   int           // index into LinesConfig.Names
	Rising bool          // else falling
	Lost   int           // edges between the one before and this, of which the kernel kept only that they were
	At     time.Duration // the kernel's CLOCK_MONOTONIC when the interrupt came
}

// EdgeReader is a group of input lines with one queue of edges, in the order in
// which they came. Lines is the real one; simulations make others.
type EdgeReader interface {
	// Read waits until there are edges, at most for the time given (0 = no
	// limit), and returns how many it stored; 0 without an error when the time
	// is over. Errors as of Port.Read.
	Read(ctx context.Context, ev []Event, wait time.Duration) (int, error)
	// Levels stores the present levels, in the order of the names.
	Levels(levels []gpio.Level) error
	// Now is the clock that Event.At is taken from.
	Now() time.Duration
	Close() error
}

// LinesConfig describes a group of input lines. All must be of one chip.
type LinesConfig struct {
	User  string
	Names []string // as in Pin
	Pull  gpio.Pull
	Edge  gpio.Edge

	OnOpen func(again bool) // called when the lines were had; again: not for the first time
}

// Flags of the v2 character device (linux/gpio.h, enum gpio_v2_line_flag).
const (
	flagUsed         = 1 << 0
	flagInput        = 1 << 2
	flagOutput       = 1 << 3
	flagEdgeRising   = 1 << 4
	flagEdgeFalling  = 1 << 5
	flagBiasPullUp   = 1 << 8
	flagBiasPullDown = 1 << 9
	flagBiasDisabled = 1 << 10
)

// eventBuffer is how many edges the kernel keeps for us: 39 frames of Wiegand 26.
const eventBuffer = 1024

const eventSize = int(unsafe.Sizeof(unix.GPIOV2LineEvent{}))

// lineRef is where a line is.
type lineRef struct {
	chip   string // path
	offset uint32
}

// gpioKernel is the part of the kernel that pins need.
type gpioKernel interface {
	find(name string) (lineRef, error)
	// request takes lines for input or output. An output has its value from
	// the first moment. The file yields events and takes deadlines.
	request(chip string, offsets []uint32, user string, flags, values uint64) (*os.File, error)
	get(f *os.File, lines int) (uint64, error)
	set(f *os.File, mask, values uint64) error
}

// chardev is the kernel's v2 GPIO character device.
type chardev struct{ dev string }

var lineName = regexp.MustCompile(`^[A-Za-z0-9_.:/-]{1,63}$`)

// ErrNoLine: no chip has a line of that name.
var ErrNoLine = errors.New("no GPIO chip has a line of that name")

// piLabels are the chips whose lines are the header of a Raspberry Pi, where
// GPIO17 is offset 17 whether the kernel names it or not.
var piLabels = []string{"pinctrl-bcm2835", "pinctrl-bcm2711", "pinctrl-rp1"}

func (c chardev) find(name string) (lineRef, error) {
	chips, err := Chips(c.dev)
	if err != nil {
		return lineRef{}, err
	}
	if chip, off, ok := strings.Cut(name, ":"); ok {
		n, err := strconv.ParseUint(off, 10, 16)
		if err != nil {
			return lineRef{}, fmt.Errorf("%q: want chip:number", name)
		}
		for _, ch := range chips {
			if (ch.Name == chip || ch.Label == chip || ch.Path == chip) && n < uint64(len(ch.Lines)) {
				return lineRef{ch.Path, uint32(n)}, nil
			}
		}
		return lineRef{}, ErrNoLine
	}
	for _, ch := range chips {
		for off, l := range ch.Lines {
			if l.Name == name {
				return lineRef{ch.Path, uint32(off)}, nil
			}
		}
	}
	if num, ok := strings.CutPrefix(name, "GPIO"); ok {
		if n, err := strconv.ParseUint(num, 10, 16); err == nil {
			for _, ch := range chips {
				if slices.Contains(piLabels, ch.Label) && n < uint64(len(ch.Lines)) {
					return lineRef{ch.Path, uint32(n)}, nil
				}
			}
		}
	}
	return lineRef{}, ErrNoLine
}

// Chip is a GPIO chip of this machine.
type Chip struct {
	Path  string // "/dev/gpiochip0"
	Name  string // "gpiochip0"
	Label string // "pinctrl-bcm2835"
	Lines []Line
}

// Line is a line of a Chip.
type Line struct {
	Name     string // may be empty
	Consumer string // who uses it, as far as the kernel knows
	Used     bool
}

// Chips lists the GPIO chips below a folder ("/dev"). A link to a chip (a Pi
// has gpiochip4 -> gpiochip0) is not a second chip.
func Chips(dev string) ([]Chip, error) {
	paths, err := filepath.Glob(filepath.Join(dev, "gpiochip*"))
	if err != nil {
		return nil, err
	}
	var out []Chip
	var errs []error
	seen := map[uint64]bool{}
	for _, p := range paths {
		var st unix.Stat_t
		if err := unix.Stat(p, &st); err != nil || st.Mode&unix.S_IFMT != unix.S_IFCHR || seen[uint64(st.Rdev)] {
			continue
		}
		seen[uint64(st.Rdev)] = true
		ch, err := readChip(p)
		if err != nil {
			errs = append(errs, err)
			continue
		}
		out = append(out, ch)
	}
	if len(out) == 0 && len(errs) > 0 {
		return nil, errors.Join(errs...)
	}
	return out, nil
}

func readChip(path string) (Chip, error) {
	f, err := os.OpenFile(path, os.O_RDWR|unix.O_CLOEXEC, 0)
	if err != nil {
		return Chip{}, err
	}
	defer f.Close()
	var info unix.GPIOChipInfo
	if err := ioctl(f, unix.GPIO_GET_CHIPINFO_IOCTL, unsafe.Pointer(&info)); err != nil {
		return Chip{}, fmt.Errorf("%s: %w", path, err)
	}
	ch := Chip{Path: path, Name: unix.ByteSliceToString(info.Name[:]), Label: unix.ByteSliceToString(info.Label[:])}
	for i := range info.Lines {
		li := unix.GPIOV2LineInfo{Offset: i}
		if err := ioctl(f, unix.GPIO_V2_GET_LINEINFO_IOCTL, unsafe.Pointer(&li)); err != nil {
			return Chip{}, fmt.Errorf("%s line %d: %w", path, i, err)
		}
		ch.Lines = append(ch.Lines, Line{Name: unix.ByteSliceToString(li.Name[:]), Consumer: unix.ByteSliceToString(li.Consumer[:]), Used: li.Flags&flagUsed != 0})
	}
	return ch, nil
}

func (chardev) request(chip string, offsets []uint32, user string, flags, values uint64) (*os.File, error) {
	c, err := os.OpenFile(chip, os.O_RDWR|unix.O_CLOEXEC, 0)
	if err != nil {
		return nil, err
	}
	defer c.Close()
	r := unix.GPIOV2LineRequest{Num_lines: uint32(len(offsets))}
	copy(r.Offsets[:], offsets)
	copy(r.Consumer[:len(r.Consumer)-1], user)
	r.Config.Flags = flags
	if flags&flagOutput != 0 {
		all := uint64(1)<<len(offsets) - 1
		r.Config.Num_attrs = 1
		r.Config.Attrs[0] = unix.GPIOV2LineConfigAttribute{Mask: all,
			Attr: unix.GPIOV2LineAttribute{Id: unix.GPIO_V2_LINE_ATTR_ID_OUTPUT_VALUES, Flags: values}}
	}
	if flags&(flagEdgeRising|flagEdgeFalling) != 0 {
		r.Event_buffer_size = eventBuffer
	}
	if err := ioctl(c, unix.GPIO_V2_GET_LINE_IOCTL, unsafe.Pointer(&r)); err != nil {
		if errors.Is(err, unix.EBUSY) {
			return nil, fmt.Errorf("%w%s", err, consumers(c, offsets))
		}
		return nil, err
	}
	// The runtime's poller waits on it only when it does not block.
	if err := unix.SetNonblock(int(r.Fd), true); err != nil {
		_ = unix.Close(int(r.Fd))
		return nil, err
	}
	return os.NewFile(uintptr(r.Fd), chip+" lines"), nil
}

// consumers says who holds the lines, for an error.
func consumers(c *os.File, offsets []uint32) string {
	for _, o := range offsets {
		li := unix.GPIOV2LineInfo{Offset: o}
		if err := ioctl(c, unix.GPIO_V2_GET_LINEINFO_IOCTL, unsafe.Pointer(&li)); err == nil && li.Flags&flagUsed != 0 {
			return fmt.Sprintf(": line %d is used by %q", o, unix.ByteSliceToString(li.Consumer[:]))
		}
	}
	return ""
}

func (chardev) get(f *os.File, lines int) (uint64, error) {
	v := unix.GPIOV2LineValues{Mask: uint64(1)<<lines - 1}
	err := ioctl(f, unix.GPIO_V2_LINE_GET_VALUES_IOCTL, unsafe.Pointer(&v))
	return v.Bits, err
}

func (chardev) set(f *os.File, mask, values uint64) error {
	v := unix.GPIOV2LineValues{Mask: mask, Bits: values}
	return ioctl(f, unix.GPIO_V2_LINE_SET_VALUES_IOCTL, unsafe.Pointer(&v))
}

func ioctl(f *os.File, req uintptr, arg unsafe.Pointer) error {
	raw, err := f.SyscallConn()
	if err != nil {
		return err
	}
	var errno unix.Errno
	if err := raw.Control(func(fd uintptr) {
		for {
			_, _, errno = unix.Syscall(unix.SYS_IOCTL, fd, req, uintptr(arg))
			if errno != unix.EINTR {
				return
			}
		}
	}); err != nil {
		return err
	}
	if errno != 0 {
		return errno
	}
	return nil
}

func inputFlags(pull gpio.Pull, edge gpio.Edge) uint64 {
	flags := uint64(flagInput)
	switch pull {
	case gpio.PullUp:
		flags |= flagBiasPullUp
	case gpio.PullDown:
		flags |= flagBiasPullDown
	case gpio.Float:
		flags |= flagBiasDisabled
	}
	if edge == gpio.RisingEdge || edge == gpio.BothEdges {
		flags |= flagEdgeRising
	}
	if edge == gpio.FallingEdge || edge == gpio.BothEdges {
		flags |= flagEdgeFalling
	}
	return flags
}

// monotonic is the kernel's CLOCK_MONOTONIC, in which edges are stamped.
func monotonic() time.Duration {
	var ts unix.Timespec
	if err := unix.ClockGettime(unix.CLOCK_MONOTONIC, &ts); err != nil {
		return 0
	}
	return time.Duration(ts.Nano())
}

// decodeEvent reads the kernel's struct gpio_v2_line_event from raw bytes.
func decodeEvent(b []byte) unix.GPIOV2LineEvent {
	var e unix.GPIOV2LineEvent
	copy(unsafe.Slice((*byte)(unsafe.Pointer(&e)), eventSize), b)
	return e
}
