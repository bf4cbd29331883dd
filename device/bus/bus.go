// Package bus owns what several drivers share or could quarrel about: serial
// ports, GPIO lines and I2C buses. It knows what the libraries and the kernel
// do wrong and hides it, so that a driver is left with its protocol.
//
// Nothing is opened before it is first used. What is exclusive (a port, a
// line, an address on a bus) is claimed when it is asked for, so that two users
// of one are an error before anything starts.
//
//   - Serial: github.com/tarm/serial, see Port.
//   - GPIO: the kernel's v2 character device, offered as periph pins (Pin) and
//     as groups of input lines with one queue of timestamped edges (Lines).
//   - I2C: periph's sysfs-i2c behind one mutex for each bus, see I2C.
package bus

import (
	"fmt"
	"path/filepath"
	"sync"
	"time"
)

// Bus is the owner of one machine's ports, lines and buses.
type Bus struct {
	mu      sync.Mutex
	claims  map[string]string // what -> the user
	i2c     map[int]*i2cBus
	aliases map[string]string // of I2C buses
	gpio    gpioKernel
}

// New returns a Bus. It opens nothing.
func New() *Bus {
	return &Bus{claims: map[string]string{}, i2c: map[int]*i2cBus{}, aliases: map[string]string{}, gpio: chardev{"/dev"}}
}

// InUseError says that somebody has claimed a thing already.
type InUseError struct {
	What string // "/dev/ttyUSB0", "GPIO17", "i2c-1 address 0x5a"
	By   string // the name of the device that has it
}

func (e *InUseError) Error() string {
	return fmt.Sprintf("%s is used by %s already; only one device can have it", e.What, e.By)
}

func (b *Bus) claim(what, user string) error {
	b.mu.Lock()
	defer b.mu.Unlock()
	if by, ok := b.claims[what]; ok {
		return &InUseError{What: what, By: by}
	}
	b.claims[what] = user
	return nil
}

func (b *Bus) release(what string) {
	b.mu.Lock()
	defer b.mu.Unlock()
	delete(b.claims, what)
}

// claimPath claims a path under its real name, so that a link and the node it
// points to are one. A path that does not exist yet stands for itself.
func (b *Bus) claimPath(path, user string) (string, error) {
	if real, err := filepath.EvalSymlinks(path); err == nil {
		path = real
	}
	return path, b.claim(path, user)
}

// backoff paces attempts to open something that is not there: 100 ms, doubled
// up to 5 s, so that a plugged-in adapter is found soon and a missing one costs
// nothing.
type backoff struct{ next time.Duration }

const (
	backoffFirst = 100 * time.Millisecond
	backoffMost  = 5 * time.Second
)

func (b *backoff) reset() { b.next = 0 }

func (b *backoff) step() time.Duration {
	if b.next == 0 {
		b.next = backoffFirst
	} else {
		b.next = min(2*b.next, backoffMost)
	}
	return b.next
}
