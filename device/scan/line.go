package scan

import (
	"bytes"
	"encoding/binary"
	"encoding/hex"
	"errors"
	"strconv"
	"strings"
	"unicode"
	"unicode/utf8"

	"gatehouse/device"
	"gatehouse/device/options"
)

// LineOptions say what a line of a line reader means. They are the same for
// serial readers and for those that type on a keyboard.
type LineOptions struct {
	End      string `yaml:"end"`      // what ends a line: auto (CR, LF or both), cr, lf, tab, etx, idle (a pause)
	Prefix   string `yaml:"prefix"`   // stands before, and is taken off; a line without it is refused
	Suffix   string `yaml:"suffix"`   // stands behind, likewise
	Content  string `yaml:"content"`  // text, hex or decimal
	Checksum string `yaml:"checksum"` // of hex: none, xor or sum, the last byte over those before it
	Format   string `yaml:"format"`   // what the read is called: line, qr, em4100, iso14443a, H10301, W34 or a name
	Min      int    `yaml:"min"`      // characters of content
	Max      int    `yaml:"max"`
}

// MaxLine bounds the memory of a line; a full HC1 certificate has about 1,000
// characters, a QR code at most 4,296.
const MaxLine = 4296

// DefaultLine is text by lines.
func DefaultLine(format string) LineOptions {
	return LineOptions{End: "auto", Content: "text", Checksum: "none", Format: format, Min: 4, Max: MaxLine}
}

// Check finds what is wrong with the options.
func (o LineOptions) Check(n options.Node) error {
	var errs []error
	bad := func(key, format string, args ...any) { errs = append(errs, n.At(key).Errorf(format, args...)) }
	for _, c := range []struct{ key, got, want string }{
		{"end", o.End, "auto cr lf tab etx idle"}, {"content", o.Content, "text hex decimal"}, {"checksum", o.Checksum, "none xor sum"},
	} {
		if !strings.Contains(" "+c.want+" ", " "+c.got+" ") || c.got == "" {
			bad(c.key, "%q is not one of %s", c.got, strings.ReplaceAll(c.want, " ", ", "))
		}
	}
	if o.Checksum != "none" && o.Content != "hex" {
		bad("checksum", "is of hex content only")
	}
	if o.Format == "" {
		bad("format", "must be given")
	}
	if o.Min < 1 || o.Max < o.Min || o.Max > MaxLine {
		bad("min", "want 1 <= min <= max <= %d", MaxLine)
	}
	if (o.Format == device.FormatEM4100 || o.Format == device.FormatISO14443A) && o.Content != "hex" {
		bad("content", "a tag of format %s is hex", o.Format)
	}
	return errors.Join(errs...)
}

// Line takes lines apart. A byte costs no allocation, a text one.
type Line struct {
	o    LineOptions
	ends string
	buf  []byte
	over bool // the line is longer than can be
	why  error
}

var _ Decoder = (*Line)(nil)

// NewLine returns a decoder for checked options.
func NewLine(o LineOptions) *Line {
	ends := map[string]string{"auto": "\r\n", "cr": "\r", "lf": "\n", "tab": "\t", "etx": "\x03", "idle": ""}[o.End]
	return &Line{o: o, ends: ends, buf: make([]byte, 0, o.Max+len(o.Prefix)+len(o.Suffix))}
}

// Byte implements Decoder.
func (l *Line) Byte(b byte, r *device.CardRead) Result {
	if strings.IndexByte(l.ends, b) >= 0 {
		if len(l.buf) == 0 && !l.over {
			return Noise // the LF of CR LF, an empty line
		}
		return l.finish(r)
	}
	if len(l.buf) == cap(l.buf) {
		l.over = true
	} else {
		l.buf = append(l.buf, b)
	}
	return More
}

// End implements Decoder: a pause ends a line of end: idle, and spoils others.
func (l *Line) End(r *device.CardRead) Result {
	if len(l.buf) == 0 && !l.over {
		return More
	}
	if l.ends == "" {
		return l.finish(r)
	}
	l.buf, l.over, l.why = l.buf[:0], false, errCut
	return Garbled
}

// Why implements Decoder.
func (l *Line) Why() error { return l.why }

// Errors of a refused line.
var (
	errCut      = errors.New("a line was cut short")
	errLength   = errors.New("a line is too short or too long")
	errPrefix   = errors.New("a line lacks its prefix or suffix")
	errText     = errors.New("a line holds what is no text")
	errHex      = errors.New("a line is not hex")
	errDecimal  = errors.New("a line is not a decimal number")
	errChecksum = errors.New("a line's checksum is wrong")
	errTag      = errors.New("a line has not the length of a tag")
)

func (l *Line) finish(r *device.CardRead) Result {
	line, over := l.buf, l.over
	l.buf, l.over = l.buf[:0], false
	if over {
		l.why = errLength
		return Garbled
	}
	if l.why = l.content(line, r); l.why != nil {
		return Garbled
	}
	return Card
}

func (l *Line) content(line []byte, r *device.CardRead) error {
	if len(line) < len(l.o.Prefix)+len(l.o.Suffix) || !bytes.HasPrefix(line, []byte(l.o.Prefix)) || !bytes.HasSuffix(line, []byte(l.o.Suffix)) {
		return errPrefix
	}
	line = line[len(l.o.Prefix) : len(line)-len(l.o.Suffix)]
	if len(line) < l.o.Min || len(line) > l.o.Max {
		return errLength
	}
	*r = device.CardRead{Format: l.o.Format}
	switch l.o.Content {
	case "hex":
		return l.hex(line, r)
	case "decimal":
		return decimal(line, r)
	}
	for s := line; len(s) > 0; {
		c, n := utf8.DecodeRune(s)
		if c == utf8.RuneError && n < 2 || unicode.IsControl(c) {
			return errText
		}
		s = s[n:]
	}
	r.Text = string(line)
	return nil
}

func (l *Line) hex(line []byte, r *device.CardRead) error {
	var b [len(r.Raw.B)]byte
	if len(line)%2 != 0 || len(line)/2 > len(b) {
		return errHex
	}
	n, err := hex.Decode(b[:], line)
	if err != nil {
		return errHex
	}
	if l.o.Checksum != "none" {
		n--
		var sum byte
		for _, v := range b[:n] {
			if l.o.Checksum == "xor" {
				sum ^= v
			} else {
				sum += v
			}
		}
		if n < 1 || sum != b[n] {
			return errChecksum
		}
		b[n] = 0
	}
	switch l.o.Format {
	case device.FormatEM4100:
		if n != 5 {
			return errTag
		}
		r.Facility = uint64(b[0])
		r.Number = uint64(binary.BigEndian.Uint32(b[1:]))
	case device.FormatISO14443A:
		if n != 4 && n != 7 && n != 10 {
			return errTag
		}
	default:
		if n <= 8 {
			r.Number = binary.BigEndian.Uint64(b[:]) >> (8 * (8 - n))
		} else {
			// Longer than a number: the text is what identifies it.
			r.Text = strings.ToUpper(string(line[:2*n]))
		}
	}
	r.Raw = device.RawBits{Len: 8 * n, B: b}
	return nil
}

// decimal reads "0013530444", or facility and number as "206,30028" or "206/30028".
func decimal(line []byte, r *device.CardRead) error {
	if i := bytes.IndexAny(line, ",/"); i >= 0 {
		f, err := digits(line[:i])
		if err != nil {
			return err
		}
		r.Facility, line = f, line[i+1:]
	}
	n, err := digits(line)
	if err != nil {
		return err
	}
	r.Number = n
	return nil
}

func digits(b []byte) (uint64, error) {
	for _, c := range b {
		if c < '0' || c > '9' {
			return 0, errDecimal
		}
	}
	n, err := strconv.ParseUint(string(b), 10, 64)
	if err != nil {
		return 0, errDecimal // empty, or beyond 64 bits
	}
	return n, nil
}
