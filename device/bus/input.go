package bus

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"time"
	"unsafe"

	"golang.org/x/sys/unix"
)

// InputEvent is one event of the kernel's input layer (linux/input.h).
type InputEvent struct {
	Type, Code uint16
	Value      int32
}

// Types and codes of events that a keyboard's reader needs
// (linux/input-event-codes.h).
const (
	EvSyn      = 0
	EvKey      = 1
	SynDropped = 3
)

// KeyReader is a stream of input events. Input is the real one; simulations
// make others.
type KeyReader interface {
	// Read waits for events, at most for the time given (0 = no limit), and
	// returns how many it stored; 0 without an error when the time is over.
	// Errors as of Port.Read.
	Read(ctx context.Context, ev []InputEvent, wait time.Duration) (int, error)
	Close() error
}

// InputConfig names an input device: by its path, best one below
// /dev/input/by-id, or by the name it gives itself.
type InputConfig struct {
	User   string
	Path   string
	Name   string
	OnOpen func(again bool)
}

type rawInput struct {
	_          unix.Timeval
	Type, Code uint16
	Value      int32
}

const rawInputSize = int(unsafe.Sizeof(rawInput{}))

// Requests of linux/input.h.
const (
	eviocgrab  = 0x40044590
	eviocgname = 0x81004506 // with room for 256 bytes
)

// Input is an input device, grabbed so that what it types reaches nobody else:
// no console, no login.
type Input struct {
	*stream
	bus   *Bus
	conf  InputConfig
	claim string
	buf   []byte
}

var _ KeyReader = (*Input)(nil)

// Input claims an input device for one user. It opens nothing.
func (b *Bus) Input(c InputConfig) (*Input, error) {
	if (c.Path == "") == (c.Name == "") {
		return nil, errors.New("want one of input (a path) and name (the device's own)")
	}
	in := &Input{bus: b, conf: c, claim: "input device " + c.Name, buf: make([]byte, 64*rawInputSize)}
	var err error
	if c.Path != "" {
		in.claim, err = b.claimPath(c.Path, c.User)
	} else {
		err = b.claim(in.claim, c.User)
	}
	if err != nil {
		return nil, err
	}
	in.stream = newStream(c.User, in.grab, c.OnOpen)
	return in, nil
}

func (in *Input) grab() (*os.File, error) {
	path := in.conf.Path
	if path == "" {
		devices, err := Inputs("/dev/input")
		if err != nil {
			return nil, err
		}
		i := slices.IndexFunc(devices, func(d InputDevice) bool { return d.Name == in.conf.Name })
		if i < 0 {
			return nil, fmt.Errorf("no input device calls itself %q", in.conf.Name)
		}
		path = devices[i].Path
	}
	f, err := os.OpenFile(path, os.O_RDONLY|unix.O_NONBLOCK|unix.O_CLOEXEC, 0)
	if err != nil {
		return nil, err
	}
	if err := grab(f); err != nil {
		_ = f.Close()
		return nil, fmt.Errorf("cannot have %s for ourselves: %w", path, err)
	}
	return f, nil
}

// grab passes its argument by value: EVIOCGRAB takes an int.
func grab(f *os.File) error {
	raw, err := f.SyscallConn()
	if err != nil {
		return err
	}
	var errno unix.Errno
	if err := raw.Control(func(fd uintptr) {
		_, _, errno = unix.Syscall(unix.SYS_IOCTL, fd, eviocgrab, 1)
	}); err != nil {
		return err
	}
	if errno != 0 {
		return errno
	}
	return nil
}

// Read implements KeyReader.
func (in *Input) Read(ctx context.Context, ev []InputEvent, wait time.Duration) (int, error) {
	got, err := in.read(ctx, in.buf[:min(len(ev)*rawInputSize, len(in.buf))], wait)
	if err != nil {
		return 0, err
	}
	n := 0
	for ; (n+1)*rawInputSize <= got; n++ {
		var e rawInput
		copy(unsafe.Slice((*byte)(unsafe.Pointer(&e)), rawInputSize), in.buf[n*rawInputSize:])
		ev[n] = InputEvent{e.Type, e.Code, e.Value}
	}
	return n, nil
}

// Try opens and grabs the device and says why it cannot.
func (in *Input) Try() error {
	_, err := in.ensure()
	return err
}

// Close ends a Read and gives the device back.
func (in *Input) Close() error {
	if in.close() {
		in.bus.release(in.claim)
	}
	return nil
}

// InputDevice is an input device of this machine.
type InputDevice struct {
	Path string // "/dev/input/event3"
	Link string // the stable path, "" if there is none
	Name string // what it calls itself
}

// Inputs lists the input devices below a folder ("/dev/input").
func Inputs(dir string) ([]InputDevice, error) {
	paths, err := filepath.Glob(filepath.Join(dir, "event*"))
	if err != nil {
		return nil, err
	}
	stable := Stable(filepath.Join(dir, "by-id"))
	var out []InputDevice
	var errs []error
	for _, p := range paths {
		f, err := os.OpenFile(p, os.O_RDONLY|unix.O_NONBLOCK|unix.O_CLOEXEC, 0)
		if err != nil {
			errs = append(errs, err)
			continue
		}
		var name [256]byte
		if err := ioctl(f, eviocgname, unsafe.Pointer(&name)); err != nil {
			errs = append(errs, fmt.Errorf("%s: %w", p, err))
		} else {
			out = append(out, InputDevice{Path: p, Link: stable[p], Name: unix.ByteSliceToString(name[:])})
		}
		_ = f.Close()
	}
	if len(out) == 0 {
		return nil, errors.Join(errs...)
	}
	return out, nil
}

// Stable maps device nodes to the links in a folder that lead to them, as udev
// makes them below /dev/serial/by-id and /dev/input/by-id.
func Stable(dir string) map[string]string {
	out := map[string]string{}
	entries, err := os.ReadDir(dir)
	if err != nil {
		return out // no udev, or no such device: there is no stable path
	}
	for _, e := range entries {
		link := filepath.Join(dir, e.Name())
		if real, err := filepath.EvalSymlinks(link); err == nil && out[real] == "" {
			out[real] = link
		}
	}
	return out
}
