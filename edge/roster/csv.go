package roster

import (
	"bytes"
	"encoding/csv"
	"errors"
	"fmt"
	"io"
	"unicode/utf8"

	"golang.org/x/text/encoding"
	"golang.org/x/text/encoding/simplifiedchinese"
	"golang.org/x/text/encoding/unicode"
)

type csvSource struct {
	name  string
	r     *csv.Reader
	limit *recordLimit
	what  string
}

// recordLimit ends the reading of a record that has no end: an opening quote
// would otherwise take the rest of the file into memory.
type recordLimit struct {
	r io.Reader
	n int
}

func (l *recordLimit) Read(b []byte) (int, error) {
	if l.n > maxRecord {
		return 0, fmt.Errorf("a record of more than %d bytes (is a quotation mark not closed?)", maxRecord)
	}
	n, err := l.r.Read(b)
	l.n += n
	return n, err
}

func openCSV(name string, r io.ReaderAt, size int64) (source, error) {
	enc, label, skip, err := detect(r, size)
	if err != nil {
		return nil, &Error{File: name, Msg: err.Error()}
	}
	text := func() io.Reader {
		var t io.Reader = io.NewSectionReader(r, skip, size-skip)
		if enc != nil {
			t = enc.NewDecoder().Reader(t)
		}
		return t
	}
	// The separator is the one that makes most headers known.
	first := make([]byte, 64<<10)
	n, err := io.ReadFull(text(), first)
	if err != nil && !errors.Is(err, io.EOF) && !errors.Is(err, io.ErrUnexpectedEOF) {
		return nil, &Error{File: name, Msg: err.Error()}
	}
	best, comma, commaName := -1, ',', "comma"
	for _, c := range []struct {
		r    rune
		name string
	}{{',', "comma"}, {';', "semicolon"}, {'\t', "tab"}} {
		cr := csv.NewReader(bytes.NewReader(first[:n]))
		cr.Comma, cr.FieldsPerRecord, cr.LazyQuotes = c.r, -1, true
		for range headerRows {
			rec, err := cr.Read()
			if err != nil {
				break
			}
			known := 0
			for _, cell := range rec {
				if fieldOf(normalHeader(cell)) != nil {
					known++
				}
			}
			// A mapping may make all headers unknown to us: then the separator
			// that divides most wins.
			if score := known*1000 + min(len(rec), 999); score > best {
				best, comma, commaName = score, c.r, c.name
			}
		}
	}
	l := &recordLimit{r: text()}
	cr := csv.NewReader(l)
	cr.Comma, cr.FieldsPerRecord, cr.ReuseRecord = comma, -1, true
	return &csvSource{name: name, r: cr, limit: l, what: "CSV, " + label + ", " + commaName}, nil
}

func (s *csvSource) next() (record, error) {
	s.limit.n = 0
	cells, err := s.r.Read()
	if err != nil {
		var pe *csv.ParseError
		if errors.As(err, &pe) {
			return record{}, &Error{File: s.name, Row: pe.StartLine, Msg: pe.Err.Error() + " (a quotation mark is missing or one too many)"}
		}
		return record{}, err
	}
	line, _ := s.r.FieldPos(0)
	return record{line, cells}, nil
}

func (s *csvSource) format() string       { return s.what }
func (s *csvSource) cell(_, _ int) string { return "" }
func (s *csvSource) serialDates() bool    { return false }
func (s *csvSource) Close() error         { return nil }

// detect finds the encoding from the bytes. A byte order mark decides;
// without one, text that is valid UTF-8 is UTF-8, and all else is GB18030,
// which Chinese spreadsheets save by default. Text that is nearly all valid
// UTF-8 is UTF-8 with damaged cells, which are reported where they stand.
func detect(r io.ReaderAt, size int64) (enc encoding.Encoding, label string, skip int64, err error) {
	head := make([]byte, 3)
	if _, err := r.ReadAt(head[:min(3, size)], 0); err != nil && !errors.Is(err, io.EOF) {
		return nil, "", 0, err
	}
	switch {
	case bytes.HasPrefix(head, []byte{0xef, 0xbb, 0xbf}):
		return nil, "UTF-8", 3, nil
	case bytes.HasPrefix(head, []byte{0xff, 0xfe}):
		return unicode.UTF16(unicode.LittleEndian, unicode.IgnoreBOM), "UTF-16", 2, nil
	case bytes.HasPrefix(head, []byte{0xfe, 0xff}):
		return unicode.UTF16(unicode.BigEndian, unicode.IgnoreBOM), "UTF-16", 2, nil
	}
	var wide, bad int64 // runes of several bytes; bytes that are none
	buf, kept := make([]byte, 64<<10), 0
	src := io.NewSectionReader(r, 0, size)
	for eof := false; !eof; {
		n, err := io.ReadFull(src, buf[kept:])
		if eof = errors.Is(err, io.EOF) || errors.Is(err, io.ErrUnexpectedEOF); err != nil && !eof {
			return nil, "", 0, err
		}
		b := buf[:kept+n]
		if bytes.IndexByte(b, 0) >= 0 {
			return nil, "", 0, errors.New("this is not a text file; save the list as CSV or XLSX")
		}
		for len(b) > 0 && (eof || utf8.FullRune(b)) {
			if b[0] < utf8.RuneSelf {
				b = b[1:]
				continue
			}
			c, w := utf8.DecodeRune(b)
			if c == utf8.RuneError && w == 1 {
				bad++
			} else {
				wide++
			}
			b = b[w:]
		}
		kept = copy(buf, b)
	}
	if bad == 0 || wide > 20*bad {
		return nil, "UTF-8", 0, nil
	}
	return simplifiedchinese.GB18030, "GB18030", 0, nil
}
