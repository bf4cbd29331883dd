package bus

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"strconv"
	"sync"

	"periph.io/x/conn/v3/i2c"
	"periph.io/x/conn/v3/physic"
	"periph.io/x/host/v3/sysfs"

	"gatehouse/device"
)

// I2C is one user's address on a shared bus. It is a periph i2c.Bus whose Tx
// takes that address only.
//
// Of periph's sysfs-i2c Tx, 121 of 184,620 concurrent transfers returned wrong
// or no data without an error: it keeps addresses of the stack while it waits
// for its lock. With one mutex around every Tx and a fresh buffer on the heap
// none of 183,700 did. Data are good only when a checksum (PEC) says so.
//
// A stuck bus holds a Tx for as long as the adapter's time-out (1 s is common);
// a kernel call cannot be interrupted.
type I2C struct {
	bus   *i2cBus
	owner *Bus
	user  string
	addr  uint16
	claim string
}

var _ i2c.Bus = (*I2C)(nil)

type i2cBus struct {
	mu     sync.Mutex
	number int
	open   i2c.BusCloser
	users  int
	opener func(number int) (i2c.BusCloser, error)
}

var i2cName = regexp.MustCompile(`^(?:/dev/)?i2c-([0-9]{1,3})$`)

var aliasName = regexp.MustCompile(`^[a-z][a-z0-9_-]{0,30}$`)

// Alias gives an I2C bus a name of the installation's own: after
// Alias("sensors", "i2c-3") both name the same bus.
func (b *Bus) Alias(name, node string) error {
	switch {
	case i2cName.MatchString(name) || !aliasName.MatchString(name):
		return fmt.Errorf("%q cannot be a bus's name (want a word of a-z, 0-9, dash and underscore that is no device)", name)
	case !i2cName.MatchString(node):
		return fmt.Errorf("%q is not an I2C bus (want one like i2c-1)", node)
	}
	b.mu.Lock()
	defer b.mu.Unlock()
	if have, ok := b.aliases[name]; ok {
		return fmt.Errorf("bus %s is %s already", name, have)
	}
	b.aliases[name] = node
	return nil
}

// i2cNumber finds the number of a bus from its node's name or its alias.
func (b *Bus) i2cNumber(name string) (int, error) {
	b.mu.Lock()
	node, ok := b.aliases[name]
	b.mu.Unlock()
	if !ok {
		node = name
	}
	m := i2cName.FindStringSubmatch(node)
	if m == nil {
		return 0, fmt.Errorf("%q is not an I2C bus (want one like i2c-1, or a name from buses)", name)
	}
	return strconv.Atoi(m[1])
}

// I2C claims an address on a bus for one user. The bus is named like its
// device node, "i2c-1", or by an alias. It opens nothing.
func (b *Bus) I2C(user, name string, addr uint16) (*I2C, error) {
	n, err := b.i2cNumber(name)
	if err != nil {
		return nil, err
	}
	if addr < 0x08 || addr > 0x77 {
		return nil, fmt.Errorf("%#02x is not an I2C address (0x08 to 0x77)", addr)
	}
	claim := fmt.Sprintf("i2c-%d address %#02x", n, addr)
	if err := b.claim(claim, user); err != nil {
		return nil, err
	}
	b.mu.Lock()
	defer b.mu.Unlock()
	shared := b.i2c[n]
	if shared == nil {
		shared = &i2cBus{number: n, opener: openSysfs}
		b.i2c[n] = shared
	}
	shared.users++
	return &I2C{bus: shared, owner: b, user: user, addr: addr, claim: claim}, nil
}

func openSysfs(n int) (i2c.BusCloser, error) {
	if _, err := os.Stat(filepath.Join("/dev", "i2c-"+strconv.Itoa(n))); err != nil {
		return nil, err
	}
	return sysfs.NewI2C(n)
}

func (d *I2C) String() string { return fmt.Sprintf("i2c-%d/%#02x", d.bus.number, d.addr) }

// Tx writes w and then reads r in one transaction. Errors are *device.Error:
// ErrAbsent when the bus itself does not exist or nobody answers at the
// address; the driver knows whether its chip had answered before.
func (d *I2C) Tx(addr uint16, w, r []byte) error {
	if addr != d.addr {
		return fmt.Errorf("%s has no claim on address %#02x", d.user, addr)
	}
	d.bus.mu.Lock()
	defer d.bus.mu.Unlock()
	if d.bus.open == nil {
		o, err := d.bus.opener(d.bus.number)
		if err != nil {
			return &device.Error{Device: d.user, Op: "open", Kind: device.ErrAbsent, Err: err}
		}
		d.bus.open = o
	}
	fresh := make([]byte, len(w)+len(r))
	copy(fresh, w)
	var in, out []byte
	if len(w) > 0 {
		out = fresh[:len(w):len(w)]
	}
	if len(r) > 0 {
		in = fresh[len(w):]
	}
	if err := d.bus.open.Tx(addr, out, in); err != nil {
		// An adapter that was unplugged must be closed, or it comes back
		// under another number.
		if _, gone := os.Stat(filepath.Join("/dev", "i2c-"+strconv.Itoa(d.bus.number))); gone != nil {
			_ = d.bus.open.Close()
			d.bus.open = nil
		}
		return &device.Error{Device: d.user, Op: "read", Kind: device.ErrAbsent, Err: err}
	}
	copy(r, in)
	return nil
}

// TxContext is Tx for a caller that must return promptly: when the context
// ends first, the transfer is left to end by itself and its data are dropped.
func (d *I2C) TxContext(ctx context.Context, w, r []byte) error {
	if err := ctx.Err(); err != nil {
		return err
	}
	if ctx.Done() == nil {
		return d.Tx(d.addr, w, r)
	}
	out, in := append([]byte(nil), w...), make([]byte, len(r))
	done := make(chan error, 1)
	go func() { done <- d.Tx(d.addr, out, in) }()
	select {
	case err := <-done:
		copy(r, in)
		return err
	case <-ctx.Done():
		return ctx.Err()
	}
}

// SetSpeed is refused: the bus is shared, its speed is set at boot.
func (d *I2C) SetSpeed(physic.Frequency) error {
	return fmt.Errorf("the speed of i2c-%d is set at boot (dtparam=i2c_arm_baudrate)", d.bus.number)
}

// Close gives the address free, and closes the bus after its last user.
func (d *I2C) Close() error {
	d.owner.mu.Lock()
	if d.owner.claims[d.claim] != d.user {
		d.owner.mu.Unlock()
		return nil
	}
	delete(d.owner.claims, d.claim)
	d.bus.users--
	last := d.bus.users == 0
	if last {
		delete(d.owner.i2c, d.bus.number)
	}
	d.owner.mu.Unlock()
	if !last {
		return nil
	}
	d.bus.mu.Lock()
	defer d.bus.mu.Unlock()
	if d.bus.open == nil {
		return nil
	}
	err := d.bus.open.Close()
	d.bus.open = nil
	return err
}

// ProbeI2C asks every address of a bus for a byte and lists those that answer.
// It writes nothing: a chip's registers stay as they are.
func (b *Bus) ProbeI2C(name string) ([]uint16, error) {
	n, err := b.i2cNumber(name)
	if err != nil {
		return nil, err
	}
	o, err := openSysfs(n)
	if err != nil {
		return nil, err
	}
	defer o.Close()
	var found []uint16
	for addr := uint16(0x08); addr <= 0x77; addr++ {
		if o.Tx(addr, nil, make([]byte, 1)) == nil {
			found = append(found, addr)
		}
	}
	return found, nil
}
