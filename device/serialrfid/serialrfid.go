// Package serialrfid reads 125 kHz card readers that speak over a serial line:
// the RDM6300 and its kin, and the ID-12, ID-20 and ID-2/3 of ID Innovations.
//
// # Wire
//
// 9600 baud, 8 data bits, no parity, one stop bit, reader to gate only. A frame
// is one EM4100 tag:
//
//	rdm6300   02  ten hex digits  two hex digits  03
//	id12      02  ten hex digits  two hex digits  0D 0A  03
//
// The first ten digits are the tag's 40 bits: 8 of version or customer, 32 of
// number. The last two are the XOR of the five bytes before. The vector
// 02 33433030434537353443 4342 03 is the tag 3C00CE754C; 0013530444 is printed
// on it.
//
// The RDM6300 repeats the frame for as long as the tag is in the field; that is
// one read here. The ID-12 sends it once.
//
// # Wiring
//
// RDM6300: 5 V, ground, and TX of P1. Its TX is a 5 V signal: a level shifter or a
// divider (1k over 2k) stands before the Pi's RXD; a USB adapter takes it as it
// is. ID-12: pin 7 (format) to ground for ASCII, D0 (pin 9) to RXD.
//
// # Config
//
//	scanner:
//	  driver: rdm6300            # or id12
//	  port: /dev/serial/by-id/usb-...   # stable over replugging
//	  baud: 9600
//	  held: 1s                   # repetitions of a card within it are one read
//
// # Sources and what was checked
//
// RDM6300 data sheet (Seeed Studio, 125KHz RFID module UART); ID series data
// sheet (ID Innovations, "Data Format ASCII"). Checked: the vector above, a
// fuzzer, 1 MB of random bytes before a frame, every fault of the emulators in
// device/sim over a pty, and the kernel's USB serial in a virtual machine. Not
// checked against a real RDM6300 or ID-12.
package serialrfid

import (
	"errors"
	"fmt"

	"gatehouse/device"
	"gatehouse/device/bus"
	"gatehouse/device/options"
	"gatehouse/device/scan"
)

// Protocol is the way a reader frames a tag.
type Protocol string

const (
	RDM6300 Protocol = "rdm6300"
	ID12    Protocol = "id12"
)

// New builds a scanner from its config mapping. It claims the port and opens
// nothing.
func New(b *bus.Bus, name string, p Protocol, n options.Node, tap func([]byte)) (*scan.Serial, error) {
	o := scan.DefaultSerial()
	if err := n.Decode(&o); err != nil {
		return nil, err
	}
	if o.Port == "" {
		return nil, n.At("port").Errorf("must be given: the serial port, best a path below /dev/serial/by-id")
	}
	return scan.NewSerial(b, name, string(p), o, NewDecoder(p), tap)
}

const (
	stx, etx = 0x02, 0x03
	digits   = 12
)

// Errors of a refused frame.
var (
	errCut      = errors.New("a frame was cut short")
	errDigit    = errors.New("a frame holds what is no hex digit")
	errEnd      = errors.New("a frame does not end as it should")
	errChecksum = errors.New("a frame's checksum is wrong")
)

// Decoder takes the line apart. It allocates nothing.
type Decoder struct {
	tail []byte // what follows the digits
	pos  int    // 0 = outside, 1 = after STX, ...
	data [digits / 2]byte
	why  error
}

// NewDecoder returns a decoder for one protocol.
func NewDecoder(p Protocol) *Decoder {
	if p == ID12 {
		return &Decoder{tail: []byte{'\r', '\n', etx}}
	}
	return &Decoder{tail: []byte{etx}}
}

// Byte implements scan.Decoder.
func (d *Decoder) Byte(b byte, r *device.CardRead) scan.Result {
	if b == stx { // no frame holds one, so it begins a frame wherever it stands
		amid := d.pos > 0
		d.pos = 1
		if amid {
			d.why = errCut
			return scan.Restart
		}
		return scan.More
	}
	if d.pos == 0 {
		return scan.Noise
	}
	if i := d.pos - 1; i < digits {
		v, ok := hexDigit(b)
		if !ok {
			return d.refuse(errDigit)
		}
		d.data[i/2] = d.data[i/2]<<4 | v
		d.pos++
		return scan.More
	}
	i := d.pos - 1 - digits
	if b != d.tail[i] {
		return d.refuse(errEnd)
	}
	if d.pos++; i < len(d.tail)-1 {
		return scan.More
	}
	d.pos = 0
	if d.data[0]^d.data[1]^d.data[2]^d.data[3]^d.data[4] != d.data[5] {
		return d.refuse(errChecksum)
	}
	*r = CardRead([5]byte(d.data[:5]))
	return scan.Card
}

// CardRead is the read of an EM4100 tag's five bytes.
func CardRead(tag [5]byte) device.CardRead {
	r := device.CardRead{Format: device.FormatEM4100, Facility: uint64(tag[0]),
		Number: uint64(tag[1])<<24 | uint64(tag[2])<<16 | uint64(tag[3])<<8 | uint64(tag[4])}
	r.Raw.Len = 40
	copy(r.Raw.B[:], tag[:])
	return r
}

// End implements scan.Decoder: a pause within a frame spoils it.
func (d *Decoder) End(*device.CardRead) scan.Result {
	if d.pos == 0 {
		return scan.More
	}
	return d.refuse(errCut)
}

// Why implements scan.Decoder.
func (d *Decoder) Why() error { return d.why }

func (d *Decoder) refuse(why error) scan.Result {
	d.pos, d.why = 0, why
	return scan.Garbled
}

func hexDigit(b byte) (byte, bool) {
	switch {
	case b >= '0' && b <= '9':
		return b - '0', true
	case b >= 'A' && b <= 'F':
		return b - 'A' + 10, true
	case b >= 'a' && b <= 'f': // some clones
		return b - 'a' + 10, true
	}
	return 0, false
}

// AppendFrame writes a tag as the reader would, for emulators and tests.
func AppendFrame(to []byte, p Protocol, tag [5]byte) []byte {
	sum := tag[0] ^ tag[1] ^ tag[2] ^ tag[3] ^ tag[4]
	to = fmt.Appendf(append(to, stx), "%X%02X", tag, sum)
	if p == ID12 {
		to = append(to, '\r', '\n')
	}
	return append(to, etx)
}
