package sim

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"path/filepath"
	"sync"

	"gatehouse/device"
	"gatehouse/device/bus"
)

// CardReader shows EM4100 tags to a driver, each in the form that this kind of
// reader gives it.
type CardReader interface {
	// Run shows each tag of the channel until that is closed or the context is
	// done.
	Run(ctx context.Context, tags <-chan EM4100) error
}

// Kinds are the readers that a Bench can make, by the driver that reads them.
var Kinds = [...]string{"rdm6300", "id12", "wiegand", "qr", "hid"}

// ThermometerKinds are the thermometers that a Bench can make.
var ThermometerKinds = [...]string{"gy-mcu90614", "cjmcu-90614", "gy-614v", "tn9", "mlx90614", "mlx90632"}

// Bench makes readers and thermometers of any kind. Those on lines, on a bus or at
// the input layer exist in memory; the Bench's Edges, I2C and Inputs hand them to
// the drivers, by the names in the config.
type Bench struct {
	mu      sync.Mutex
	lines   map[string]*Wiegand
	inputs  map[string]*Keyboard
	buses   map[string]*I2C
	serials []*Serial
}

// NewBench returns an empty one.
func NewBench() *Bench {
	return &Bench{lines: map[string]*Wiegand{}, inputs: map[string]*Keyboard{}, buses: map[string]*I2C{}}
}

// Reader makes a reader with a name of its own, and the config of its driver,
// as YAML on one line. Serial lines are made in dir.
func (b *Bench) Reader(kind, dir, name string, seed uint64) (config string, r CardReader, err error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	switch kind {
	case "wiegand":
		w := NewWiegand()
		b.lines[name+"-D0"] = w
		return fmt.Sprintf("{driver: wiegand, d0: %s-D0, d1: %s-D1, formats: [W34]}", name, name), shower(w.show), nil
	case "hid":
		k := NewKeyboard()
		b.inputs[name] = k
		return fmt.Sprintf("{driver: hid, name: %s, content: decimal, format: W34}", name), shower(func(t EM4100) error { return k.Type(printed(t) + "\n") }), nil
	case "rdm6300", "id12", "qr":
	default:
		return "", nil, fmt.Errorf("there is no emulator of a %s reader (there are %v)", kind, Kinds)
	}
	line, err := NewSerial(filepath.Join(dir, name+".reader"))
	if err != nil {
		return "", nil, err
	}
	b.serials = append(b.serials, line)
	switch kind {
	case "rdm6300":
		r = NewRDM6300(line, seed)
	case "id12":
		r = NewID12(line, seed)
	case "qr":
		l := NewLineReader(line)
		return fmt.Sprintf("{driver: qr, port: %q, content: decimal, format: W34}", line.Path()), shower(func(t EM4100) error { return l.Scan(printed(t)) }), nil
	}
	return fmt.Sprintf("{driver: %s, port: %q}", kind, line.Path()), r, nil
}

// Thermometer makes a thermometer that looks at a scene, and the config of its
// driver. run, where it is not nil, must run meanwhile.
func (b *Bench) Thermometer(kind, dir, name string, scene *Thermal, seed uint64) (config string, run func(context.Context) error, err error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	switch kind {
	case "mlx90614", "mlx90632":
		wires := NewI2C()
		if kind == "mlx90614" {
			wires.Attach(0x5A, NewMLX90614(0x5A, scene, seed))
		} else {
			wires.Attach(0x3A, NewMLX90632(scene))
		}
		b.buses[name] = wires
		return fmt.Sprintf("{driver: %s, bus: %s, warm_up: 0s}", kind, name), nil, nil
	}
	line, err := NewSerial(filepath.Join(dir, name+".thermometer"))
	if err != nil {
		return "", nil, err
	}
	b.serials = append(b.serials, line)
	t, err := NewSerialThermometer(kind, line, scene, seed)
	if err != nil {
		return "", nil, err
	}
	return fmt.Sprintf("{driver: %s, port: %q, warm_up: 0s}", kind, line.Path()), t.Run, nil
}

// I2C fits catalog.Env.I2C.
func (b *Bench) I2C(user, name string, addr uint16) (bus.Transactor, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	w := b.buses[name]
	if w == nil {
		return nil, fmt.Errorf("no thermometer was made for bus %s", name)
	}
	return w.Open(user, name, addr)
}

// Edges fits catalog.Env.Edges.
func (b *Bench) Edges(c bus.LinesConfig) (bus.EdgeReader, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	w := b.lines[c.Names[0]]
	if w == nil {
		return nil, fmt.Errorf("no reader was made for line %s", c.Names[0])
	}
	return w.Open(c)
}

// Inputs fits catalog.Env.Inputs.
func (b *Bench) Inputs(c bus.InputConfig) (bus.KeyReader, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	k := b.inputs[c.Name]
	if k == nil {
		return nil, fmt.Errorf("no reader was made that calls itself %q", c.Name)
	}
	return k.Open(c)
}

// Close takes the serial lines away.
func (b *Bench) Close() error {
	b.mu.Lock()
	defer b.mu.Unlock()
	var errs []error
	for _, s := range b.serials {
		errs = append(errs, s.Close())
	}
	return errors.Join(errs...)
}

// shower shows a tag once, however long it is held.
type shower func(EM4100) error

func (s shower) Run(ctx context.Context, tags <-chan EM4100) error {
	for {
		select {
		case <-ctx.Done():
			return ctx.Err()
		case t, ok := <-tags:
			if !ok {
				return nil
			}
			if err := s(t); err != nil && !errors.Is(err, ErrUnplugged) {
				return err
			}
		}
	}
}

// printed is the number on a tag's face.
func printed(t EM4100) string { return fmt.Sprintf("%010d", binary.BigEndian.Uint32(t[1:])) }

// show sends a tag's number in 34 bits: 32 of number, even parity over the first
// 16 before them, odd over the last 16 behind.
func (w *Wiegand) show(t EM4100) error {
	n := binary.BigEndian.Uint32(t[1:])
	odd := func(v uint32) bool {
		p := false
		for ; v != 0; v &= v - 1 {
			p = !p
		}
		return p
	}
	var f device.RawBits
	f.Append(odd(n >> 16))
	for i := 31; i >= 0; i-- {
		f.Append(n>>i&1 == 1)
	}
	f.Append(!odd(n & 0xFFFF))
	w.Send(f)
	return nil
}
