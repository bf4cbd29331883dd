package community

import (
	"bytes"
	"encoding/json"
	"errors"
	"strconv"
	"unicode/utf8"
)

// columns is what can be asked of entries without opening their blocks. The
// byte slices point into the line.
type columns struct {
	time         int64
	kind         []byte
	lane         []byte
	presentation int64
	of           int64 // -1 = none
	actor        []byte
	pass         int64
	household    int64
	category     []byte
	outcome      []byte
	rule         []byte
	reason       []byte
	result       []byte
	deltas       []byte // the JSON array, nil when there is none
	data         []byte // the JSON value, nil when there is none
	// changes are the data of the registry entries in a sealed run that was carried
	// over.
	changes [][]byte
}

// maxColumn bounds what a column holds of a text, in bytes.
const maxColumn = 200

// clean makes the texts such that every database takes them: valid UTF-8 without
// NUL, and not long. The line keeps what the gate wrote.
func (c *columns) clean() {
	for _, b := range []*[]byte{&c.kind, &c.lane, &c.actor, &c.category, &c.outcome, &c.rule, &c.reason, &c.result} {
		*b = cleanText(*b)
		if len(*b) > maxColumn {
			*b = bytes.ToValidUTF8((*b)[:maxColumn], nil)
		}
	}
	c.deltas, c.data = cleanText(c.deltas), cleanText(c.data)
}

func cleanText(b []byte) []byte {
	if utf8.Valid(b) && bytes.IndexByte(b, 0) < 0 {
		return b
	}
	return bytes.ReplaceAll(bytes.ToValidUTF8(b, []byte("\uFFFD")), []byte{0}, []byte("\uFFFD"))
}

var errLine = errors.New("line is not a JSON object of the expected shape")

// scanColumns finds the columns of an entry's line. It reads only as much of
// the JSON as it must (encoding/json would cost as much as storing the row) and
// skips what it does not know. A line that is not JSON is an error; the entry is
// stored all the same, since what its gate has signed is what it is.
func scanColumns(line []byte, c *columns) error {
	*c = columns{of: -1}
	s := scanner{b: line}
	err := s.object(func(key []byte) error {
		var err error
		switch string(key) {
		case "t":
			c.time, err = s.integer()
		case "kind":
			c.kind, err = s.text()
		case "lane":
			c.lane, err = s.text()
		case "p":
			c.presentation, err = s.integer()
		case "of":
			c.of, err = s.integer()
		case "actor":
			c.actor, err = s.text()
		case "outcome":
			c.outcome, err = s.text()
		case "rule":
			c.rule, err = s.text()
		case "reason":
			c.reason, err = s.text()
		case "result":
			c.result, err = s.text()
		case "deltas":
			c.deltas, err = s.value()
		case "data":
			c.data, err = s.value()
		case "facts":
			err = s.object(func(key []byte) error {
				switch string(key) {
				case "pass":
					return s.object(func(key []byte) error {
						var err error
						switch string(key) {
						case "id":
							c.pass, err = s.integer()
						case "category":
							c.category, err = s.text()
						default:
							err = s.skip()
						}
						return err
					})
				case "household":
					return s.object(func(key []byte) error {
						if string(key) != "id" {
							return s.skip()
						}
						var err error
						c.household, err = s.integer()
						return err
					})
				}
				return s.skip()
			})
		default:
			err = s.skip()
		}
		return err
	})
	if err != nil {
		return err
	}
	if s.space(); s.i != len(line) {
		return errLine
	}
	return nil
}

// scanner walks over one JSON text.
type scanner struct {
	b     []byte
	i     int
	depth int
}

// maxDepth is how deep values may be nested.
const maxDepth = 64

func (s *scanner) space() {
	for s.i < len(s.b) {
		switch s.b[s.i] {
		case ' ', '\t', '\r', '\n':
			s.i++
		default:
			return
		}
	}
}

// next skips space and returns the byte there, 0 at the end.
func (s *scanner) next() byte {
	s.space()
	if s.i < len(s.b) {
		return s.b[s.i]
	}
	return 0
}

// object calls field for each key with the scanner before its value, which
// field must consume.
func (s *scanner) object(field func(key []byte) error) error {
	if s.next() != '{' {
		return errLine
	}
	if s.depth++; s.depth > maxDepth {
		return errLine
	}
	s.i++
	if s.next() == '}' {
		s.i++
		s.depth--
		return nil
	}
	for {
		if s.next() != '"' {
			return errLine
		}
		key, err := s.text()
		if err != nil {
			return err
		}
		if s.next() != ':' {
			return errLine
		}
		s.i++
		s.space()
		if err := field(key); err != nil {
			return err
		}
		switch s.next() {
		case ',':
			s.i++
		case '}':
			s.i++
			s.depth--
			return nil
		default:
			return errLine
		}
	}
}

// text reads a string; only one with escapes is copied.
func (s *scanner) text() ([]byte, error) {
	if s.next() != '"' {
		return nil, errLine
	}
	start := s.i
	if err := s.skipString(); err != nil {
		return nil, err
	}
	raw := s.b[start:s.i]
	if bytes.IndexByte(raw, '\\') < 0 {
		return raw[1 : len(raw)-1], nil
	}
	var out string
	if err := json.Unmarshal(raw, &out); err != nil {
		return nil, errLine
	}
	return []byte(out), nil
}

func (s *scanner) skipString() error {
	s.i++
	for s.i < len(s.b) {
		switch c := s.b[s.i]; {
		case c == '"':
			s.i++
			return nil
		case c == '\\':
			s.i += 2
		case c < 0x20:
			return errLine
		default:
			s.i++
		}
	}
	return errLine
}

// integer reads a whole number that fits 64 bits.
func (s *scanner) integer() (int64, error) {
	s.space()
	start := s.i
	s.skipNumber()
	// A short string of digits is converted without an allocation.
	v, err := strconv.ParseInt(string(s.b[start:s.i]), 10, 64)
	if err != nil {
		return 0, errLine
	}
	return v, nil
}

func (s *scanner) skipNumber() {
	for s.i < len(s.b) {
		switch c := s.b[s.i]; {
		case c >= '0' && c <= '9', c == '-', c == '+', c == '.', c == 'e', c == 'E':
			s.i++
		default:
			return
		}
	}
}

// value returns the bytes of the value that follows.
func (s *scanner) value() ([]byte, error) {
	s.space()
	start := s.i
	if err := s.skip(); err != nil {
		return nil, err
	}
	return s.b[start:s.i], nil
}

// skip passes over one value.
func (s *scanner) skip() error {
	switch c := s.next(); c {
	case '{':
		return s.object(func([]byte) error { return s.skip() })
	case '[':
		if s.depth++; s.depth > maxDepth {
			return errLine
		}
		s.i++
		if s.next() == ']' {
			s.i++
			s.depth--
			return nil
		}
		for {
			if err := s.skip(); err != nil {
				return err
			}
			switch s.next() {
			case ',':
				s.i++
			case ']':
				s.i++
				s.depth--
				return nil
			default:
				return errLine
			}
		}
	case '"':
		return s.skipString()
	case 't':
		return s.word("true")
	case 'f':
		return s.word("false")
	case 'n':
		return s.word("null")
	default:
		if start := s.i; c == '-' || c >= '0' && c <= '9' {
			s.skipNumber()
			if json.Valid(s.b[start:s.i]) {
				return nil
			}
		}
		return errLine
	}
}

func (s *scanner) word(w string) error {
	if !bytes.HasPrefix(s.b[s.i:], []byte(w)) {
		return errLine
	}
	s.i += len(w)
	return nil
}
