// Package linereader reads whatever sends lines of text over a serial line: QR
// and barcode scanners, and card readers with a protocol of their own that fits
// a few options.
//
// # Wire
//
// A scanner on USB shows up as a serial port (CDC ACM, often after scanning a
// set-up code "USB COM port") or hangs on a USB serial adapter. It sends what it
// reads as text and ends it with CR, LF or both, some with nothing.
//
// # Config
//
//	scanner:
//	  driver: qr                 # text of format qr; line is the same for format line
//	  port: /dev/serial/by-id/usb-...
//	  baud: 9600                 # of no meaning for USB
//	  end: auto                  # CR, LF or both; or cr, lf, tab, etx, idle
//	  held: 1s                   # repetitions of a text within it are one read
//	  gap: 500ms                 # a pause within a line: it is refused (idle: it is complete)
//	  min: 4                     # characters
//	  max: 4296
//
//	scanner:                     # a reader that sends "$04A1B2C3D4E5F6<xor>;"
//	  driver: line
//	  port: /dev/serial/by-id/usb-...
//	  prefix: $                  # taken off; a line without it is refused
//	  suffix: ;
//	  content: hex               # text, hex, decimal ("0013530444", "206,30028")
//	  checksum: xor              # of hex: none, xor, sum; the last byte
//	  format: iso14443a          # em4100, iso14443a, H10301, W34, or any name
//
// A line of text has no checksum: of noise, what happens to be text of at least
// min characters becomes a read (of an unknown pass). Give a prefix where the
// reader can send one.
//
// # What was checked
//
// Lines of every ending, prefixes, checksums, a full HC1 certificate of 1,000
// characters at 9600 baud, noise and half lines from an emulator over a pty, and
// a fuzzer. Not checked against a scanner's hardware.
package linereader

import (
	"time"

	"gatehouse/device/bus"
	"gatehouse/device/options"
	"gatehouse/device/scan"
)

type config struct {
	scan.SerialOptions
	scan.LineOptions
}

// New builds a scanner from its config mapping; format is the read's unless the
// config names another. It claims the port and opens nothing.
func New(b *bus.Bus, name, driver, format string, n options.Node, tap func([]byte)) (*scan.Serial, error) {
	c := config{scan.DefaultSerial(), scan.DefaultLine(format)}
	c.Gap = 500 * time.Millisecond // scanners decode long codes piece by piece
	if err := n.Decode(&c); err != nil {
		return nil, err
	}
	if c.Port == "" {
		return nil, n.At("port").Errorf("must be given: the serial port, best a path below /dev/serial/by-id")
	}
	if err := c.LineOptions.Check(n); err != nil {
		return nil, err
	}
	return scan.NewSerial(b, name, driver, c.SerialOptions, scan.NewLine(c.LineOptions), tap)
}
