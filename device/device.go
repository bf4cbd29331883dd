// Package device holds the words of the hardware at a gate: what a scanner,
// a thermometer, a barrier, an indicator and a contact say and do. It does
// nothing itself; the folders below it do, one per chip or protocol.
//
// Conduct that every driver keeps (and the contract suites in
// device/devicetest check):
//
//   - A constructor opens nothing that may be missing: an absent device is an
//     error of kind ErrAbsent from the first read, not from the constructor.
//   - A read blocks until it has something, its context is done, or the
//     device is closed; it returns within 100 ms of the latter two.
//   - A typed error (see Error) is a report, not an end: the caller reads
//     again and the driver reopens the device with back-off. Only ErrClosed
//     and the context's error are final.
//   - One fault is reported once, when it begins; it then stands in Health
//     until it ends. Garbled frames are reported at most once a second and
//     all counted.
//   - Close is idempotent, waits for the driver's goroutines, and leaves
//     outputs in their safe state.
package device

import (
	"context"
	"errors"
	"fmt"
	"time"
)

// Kinds of device errors. Test with errors.Is.
var (
	// ErrAbsent: the path, address or line does not exist, or never answered.
	ErrAbsent = errors.New("absent")
	// ErrDisconnected: the device was there and has gone.
	ErrDisconnected = errors.New("disconnected")
	// ErrGarbled: bytes, bits or a checksum that make no sense.
	ErrGarbled = errors.New("garbled")
	// ErrOutOfRange: a well-formed value that the device cannot have measured.
	ErrOutOfRange = errors.New("out of range")
	// ErrClosed: the device was closed by its owner. Final.
	ErrClosed = errors.New("closed")
)

// Error is what a driver returns: which device, doing what, which kind, why.
type Error struct {
	Device string // the configured name, for example "east-in scanner"
	Op     string // "open", "read", "write"
	Kind   error  // one of the kinds above
	Err    error  // the cause, may be nil
}

func (e *Error) Error() string {
	if e.Err == nil {
		return fmt.Sprintf("cannot %s %s: %v", e.Op, e.Device, e.Kind)
	}
	return fmt.Sprintf("cannot %s %s: %v: %v", e.Op, e.Device, e.Kind, e.Err)
}

// Unwrap lets errors.Is find both the kind and the cause.
func (e *Error) Unwrap() []error {
	if e.Err == nil {
		return []error{e.Kind}
	}
	return []error{e.Kind, e.Err}
}

// State says how a device is.
type State string

const (
	StateStarting     State = "starting"     // not tried yet
	StateOK           State = "ok"           // answers
	StateAbsent       State = "absent"       // never answered
	StateDisconnected State = "disconnected" // answered once, does not now
	StateWarming      State = "warming"      // answers, but its values do not hold yet
	StateFault        State = "fault"        // answers nonsense, or is stuck
	StateClosed       State = "closed"
)

// Health is a snapshot of one device for the guard, the installer and the
// status message. It holds no personal data: never a card number.
type Health struct {
	Name      string            `json:"name"`
	Driver    string            `json:"driver"`
	Where     string            `json:"where"` // path, bus and address, or lines
	State     State             `json:"state"`
	Since     time.Time         `json:"since"`              // of State
	LastRead  time.Time         `json:"last_read,omitzero"` // last good read or write
	LastError string            `json:"last_error,omitempty"`
	Reads     uint64            `json:"reads"`            // good frames, samples or commands
	Garbled   uint64            `json:"garbled"`          // frames refused
	Noise     uint64            `json:"noise"`            // bytes or pulses outside any frame
	Reopens   uint64            `json:"reopens"`          // times the device was opened again
	Detail    map[string]uint64 `json:"detail,omitempty"` // counters only this driver has
}

// Device is what all kinds of devices have in common.
type Device interface {
	// Health never blocks.
	Health() Health
	// Close releases the device. See the package's conduct.
	Close() error
}

// RawBits is a credential's bits as they came, first bit first, left aligned:
// bit 0 is the most significant bit of B[0]. A value type, so that a read
// costs no allocation.
type RawBits struct {
	Len int // number of bits
	B   [32]byte
}

// Append adds one bit. Bits beyond the array are dropped; Len stays at 256.
func (r *RawBits) Append(one bool) {
	if r.Len >= len(r.B)*8 {
		return
	}
	if one {
		r.B[r.Len/8] |= 0x80 >> (r.Len % 8)
	}
	r.Len++
}

// Bit returns bit i, 0 being the first that came.
func (r *RawBits) Bit(i int) bool { return r.B[i/8]&(0x80>>(i%8)) != 0 }

// Formats of a CardRead. A Wiegand format has the name of its layout.
const (
	FormatEM4100    = "em4100"    // 40 bits: 8 version or customer, 32 number
	FormatH10301    = "H10301"    // Wiegand 26
	FormatW34       = "W34"       // Wiegand 34, one 32-bit number
	FormatH10302    = "H10302"    // Wiegand 37, 35-bit number
	FormatH10304    = "H10304"    // Wiegand 37, facility and number
	FormatISO14443A = "iso14443a" // UID, 4, 7 or 10 bytes in RawBits
	FormatLine      = "line"      // a line reader's text
	FormatQR        = "qr"        // text of a 2D code
	FormatPIN       = "pin"       // digits typed at a keypad
)

// CardRead is one credential as a reader gave it.
type CardRead struct {
	Reader   string // the configured name of the reader
	Format   string // one of the formats above, or a name from the config
	Facility uint64 // 0 where the format has none
	Number   uint64
	Raw      RawBits
	Text     string    // for text formats: what was read, without prefix and suffix
	At       time.Time // when the last byte or edge came (has a monotonic part)
	Tamper   bool      // the reader's tamper contact was open at the time
}

// Scanner yields credentials. A card held in the field is one read; the
// driver suppresses its repetitions (the lane does so across readers).
type Scanner interface {
	Device
	Read(ctx context.Context) (CardRead, error)
}

// Feedback is what a bidirectional reader (an OSDP reader, say) can show.
// A Scanner that also implements Feedback is used as an indicator too.
type Feedback interface {
	Indicator
}

// Celsius is a temperature in degrees Celsius.
type Celsius float64

// Sample is one raw reading of an infrared sensor.
type Sample struct {
	Object     Celsius // what the sensor sees
	Ambient    Celsius // the sensor's own temperature
	HasAmbient bool
	Range      int       // distance in millimetres from a ranger, 0 = not known
	At         time.Time // when it arrived
	Image      []Celsius // pixels of an array sensor, row by row; nil otherwise
	Width      int       // pixels in a row of Image
}

// Sensor yields raw samples. It is what a thermometer's driver implements;
// device/thermometry makes a Thermometer of it.
type Sensor interface {
	Device
	Sample(ctx context.Context) (Sample, error)
}

// Quality says what a Temperature is worth.
type Quality string

const (
	QualityOK       Quality = "ok"       // a valid reading
	QualityInvalid  Quality = "invalid"  // outside the band skin can have
	QualityUnstable Quality = "unstable" // a person was there, but no plateau in time
	QualityNobody   Quality = "nobody"   // nobody stood before it in time
	QualityWarming  Quality = "warming"  // within the warm-up after power-on
	QualityUnusable Quality = "unusable" // ambient outside the profile's range: unusable here
	QualityFault    Quality = "fault"    // the device is absent, disconnected or stuck
)

// Temperature is the result of one measurement of one person.
type Temperature struct {
	Quality     Quality
	Raw         Celsius // the plateau as the sensor saw it
	Value       Celsius // after the correction profile
	Ambient     Celsius
	Uncertainty Celsius // of Value, plus or minus
	Profile     string  // name and version of the correction profile, "skin-indoor/3"
	Samples     int     // that the plateau rests on
	At          time.Time
}

// Measurement asks a Thermometer for a reading.
type Measurement struct {
	// SamePerson: a second reading of the person who already stands there.
	// Without it the thermometer waits until the last person has left.
	SamePerson bool
}

// Thermometer measures one person at a time.
type Thermometer interface {
	Device
	// Measure blocks until there is a reading or the context is done. A
	// deadline that passes is not an error: the Temperature's Quality says
	// what was missing. The error is the device's, with QualityFault.
	Measure(ctx context.Context, m Measurement) (Temperature, error)
}

// Direction of a lane, seen from the estate.
type Direction string

const (
	In  Direction = "in"
	Out Direction = "out"
)

// Barrier lets people through. Its calls are quick: a pulse goes on by itself.
type Barrier interface {
	Device
	// Admit opens for one passage in the direction: a pulse, or held until
	// Secure, as the barrier is configured.
	Admit(ctx context.Context, d Direction) error
	// Secure ends the passage.
	Secure(ctx context.Context) error
	// Free opens for everybody (fire, evacuation) until called with false.
	Free(ctx context.Context, free bool) error
}

// Signal is what lamps and buzzer tell the person at the lane. Refer and deny
// share a lamp and a tone, so that nobody is shamed.
type Signal string

const (
	SignalIdle  Signal = "idle"  // ready for the next card
	SignalWait  Signal = "wait"  // card seen, look at the thermometer
	SignalGo    Signal = "go"    // pass
	SignalStop  Signal = "stop"  // please speak to the guard
	SignalFree  Signal = "free"  // fire: leave
	SignalFault Signal = "fault" // out of service
	SignalCall  Signal = "call"  // ring the booth
)

// Indicator shows a Signal until the next one.
type Indicator interface {
	Device
	Show(ctx context.Context, s Signal) error
}

// Change is one debounced change of a Contact.
type Change struct {
	Active bool      // the contact's meaning is true (door open, beam broken, button pressed)
	At     time.Time // of the edge, not of the end of the debounce time
	Count  uint64    // activations since the contact was opened
}

// Contact is a binary input: door, beam, button, fire, tamper.
type Contact interface {
	Device
	// Watch blocks for the next change. The first call returns the present
	// state at once, so that a state is never assumed.
	Watch(ctx context.Context) (Change, error)
}
