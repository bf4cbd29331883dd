// Package roster reads the lists of residents that property managers keep
// into passes: CSV in UTF-8, UTF-16 or GB18030 with commas, semicolons or tabs,
// and XLSX workbooks. What the file is, it finds out from the content, not from
// the name.
//
// Columns are known by their headers, in Chinese or English, wherever the
// header row stands in the first rows of the sheet; a mapping overrides them.
// Columns that nobody asks for (identity documents, telephone numbers) are
// never looked at. Names are masked here, before anything stores them.
//
// Errors name the row and the column. What spreadsheets do to card numbers
// is called by its name: lost leading zeros, 1.35E+07. Memory does not grow
// with a CSV file; a workbook's shared strings are held in memory.
package roster

import (
	"errors"
	"fmt"
	"io"
	"iter"
	"strconv"
	"strings"
	"time"

	"gatehouse/edge"
)

// Limits of a roster. Beyond them it is refused.
const (
	MaxBytes   = 512 << 20 // of the file
	MaxRows    = 2_000_000
	MaxColumns = 256
	MaxCell    = 4096    // bytes of one cell
	maxRecord  = 1 << 20 // bytes of one CSV record
	headerRows = 10      // where the header may stand
	maxBlank   = 10_000  // consecutive empty rows of a workbook
)

// Options say how a roster is read. The zero value reads it by its headers.
type Options struct {
	Mapping  map[string]string // header text -> field name, "-" to leave the column out
	CardForm string            // what a bare card number is: em-hex, em-dec10, w26, w34, uid, qr
	Sheet    string            // of a workbook; empty = the first
	Location *time.Location    // of dates; nil = UTC
}

// Error is what is wrong with one cell, row or file.
type Error struct {
	File   string
	Row    int    // from 1; 0 = the file as a whole
	Column int    // from 1; 0 = the row as a whole
	Cell   string // A1 style, for workbooks
	Header string
	Msg    string
}

func (e *Error) Error() string {
	var b strings.Builder
	b.WriteString(e.File)
	switch {
	case e.Cell != "":
		b.WriteString(": " + e.Cell)
	case e.Row > 0:
		b.WriteString(": row " + strconv.Itoa(e.Row))
		if e.Column > 0 {
			b.WriteString(", column " + strconv.Itoa(e.Column))
		}
	}
	if e.Header != "" {
		b.WriteString(" (" + e.Header + ")")
	}
	return b.String() + ": " + e.Msg
}

// Layout is how a file was understood.
type Layout struct {
	Format  string // "CSV, UTF-8, comma" or "XLSX, sheet 住户"
	Header  int    // row of the headers, from 1
	Columns []Column
}

// Column is one column of the file.
type Column struct {
	Number int    // from 1
	Header string // as it stands in the file
	Field  string // what it is read as; empty = left out
}

// record is one row of cells. next gives them one after another, io.EOF at
// the end; the slice holds until the next call.
type record struct {
	row   int
	cells []string
}

type source interface {
	next() (record, error)
	format() string
	cell(column, row int) string // A1 style, or empty
	serialDates() bool           // numbers in date columns are spreadsheet days
	Close() error
}

// Inspect says how the file would be read, without reading its rows.
func Inspect(name string, r io.ReaderAt, size int64, o Options) (Layout, error) {
	src, err := open(name, r, size, o)
	if err != nil {
		return Layout{}, err
	}
	defer src.Close()
	h, err := findHeader(name, src, o)
	if err != nil {
		return Layout{}, err
	}
	l := Layout{Format: src.format(), Header: h.row}
	for i, c := range h.cells {
		col := Column{Number: i + 1, Header: strings.TrimSpace(c)}
		if f := h.fields[i]; f != nil {
			col.Field = f.name
		}
		if col.Header != "" {
			l.Columns = append(l.Columns, col)
		}
	}
	return l, nil
}

// Open yields the rows of the file. An error comes in place of the row that
// it is about, and reading goes on; after an error about the file as a whole
// nothing more comes. All errors are *Error.
func Open(name string, r io.ReaderAt, size int64, o Options) iter.Seq2[edge.RosterRow, error] {
	return func(yield func(edge.RosterRow, error) bool) {
		if o.Location == nil {
			o.Location = time.UTC
		}
		src, err := open(name, r, size, o)
		if err != nil {
			yield(edge.RosterRow{}, err)
			return
		}
		defer src.Close()
		h, err := findHeader(name, src, o)
		if err != nil {
			yield(edge.RosterRow{}, err)
			return
		}
		for n := 0; ; n++ {
			rec, err := src.next()
			if errors.Is(err, io.EOF) {
				return
			}
			if err != nil {
				yield(edge.RosterRow{}, fileError(name, err))
				return
			}
			if n >= MaxRows {
				yield(edge.RosterRow{}, &Error{File: name, Row: rec.row, Msg: fmt.Sprintf("more than %d rows", MaxRows)})
				return
			}
			if blank(rec.cells) {
				continue
			}
			row, errs := h.read(name, src, rec, o)
			for _, e := range errs {
				if !yield(edge.RosterRow{}, e) {
					return
				}
			}
			if len(errs) == 0 && !yield(row, nil) {
				return
			}
		}
	}
}

func fileError(name string, err error) error {
	var e *Error
	if errors.As(err, &e) {
		return e
	}
	return &Error{File: name, Msg: err.Error()}
}

func open(name string, r io.ReaderAt, size int64, o Options) (source, error) {
	if size > MaxBytes {
		return nil, &Error{File: name, Msg: fmt.Sprintf("%d bytes; a roster has at most %d", size, int64(MaxBytes))}
	}
	if size == 0 {
		return nil, &Error{File: name, Msg: "the file is empty"}
	}
	magic := make([]byte, 8)
	n, err := r.ReadAt(magic, 0)
	if err != nil && !errors.Is(err, io.EOF) {
		return nil, &Error{File: name, Msg: err.Error()}
	}
	switch magic = magic[:n]; {
	case strings.HasPrefix(string(magic), "PK\x03\x04"):
		return openXLSX(name, r, size, o.Sheet)
	case strings.HasPrefix(string(magic), "\xd0\xcf\x11\xe0"):
		return nil, &Error{File: name, Msg: "an old .xls workbook, or one with a password: save it as .xlsx or CSV without a password"}
	}
	return openCSV(name, r, size)
}

func blank(cells []string) bool {
	for _, c := range cells {
		if strings.TrimSpace(c) != "" {
			return false
		}
	}
	return true
}

// header is the row that names the columns.
type header struct {
	record
	fields []*field // by column; nil = left out
}

// findHeader looks for the row that names the columns: the one of the first
// rows that has most known headers, so that titles above it do no harm.
func findHeader(name string, src source, o Options) (header, error) {
	mapping := make(map[string]string, len(o.Mapping))
	for k, v := range o.Mapping {
		if v != "-" && fieldNamed(v) == nil {
			return header{}, &Error{File: name, Msg: fmt.Sprintf("column %q cannot be read as %q; fields are %s", k, v, strings.Join(Fields(), ", "))}
		}
		mapping[normalHeader(k)] = v
	}
	for range headerRows {
		rec, err := src.next()
		if errors.Is(err, io.EOF) {
			break
		}
		if err != nil {
			return header{}, fileError(name, err)
		}
		h := header{record: record{rec.row, append([]string(nil), rec.cells...)}, fields: make([]*field, len(rec.cells))}
		known, hasPass, hasCard := 0, false, false
		for i, c := range h.cells {
			n := normalHeader(c)
			if to, ok := mapping[n]; ok {
				h.fields[i] = fieldNamed(to)
			} else {
				h.fields[i] = fieldOf(n)
			}
			if f := h.fields[i]; f != nil {
				known++
				hasPass = hasPass || f.name == "pass"
				hasCard = hasCard || f.name == "card"
			}
		}
		if known < 2 && !(hasPass || hasCard) {
			continue
		}
		if !hasPass {
			return header{}, &Error{File: name, Row: h.row, Msg: "no column with the pass's number (编号, pass); a pass keeps its number when its card is replaced, so it cannot be made up from the card. Name the column with a mapping to \"pass\""}
		}
		if !hasCard {
			return header{}, &Error{File: name, Row: h.row, Msg: "no column with card numbers (卡号, card). Name it with a mapping to \"card\""}
		}
		seen := map[string]int{}
		for i, f := range h.fields {
			if f == nil || f.many {
				continue
			}
			if first, twice := seen[f.name]; twice {
				return header{}, &Error{File: name, Row: h.row, Column: i + 1, Cell: src.cell(i+1, h.row), Header: h.cells[i],
					Msg: fmt.Sprintf("columns %d and %d are both %q; leave one out with a mapping to \"-\"", first+1, i+1, f.name)}
			}
			seen[f.name] = i
		}
		return h, nil
	}
	return header{}, &Error{File: name, Msg: fmt.Sprintf("no header row in the first %d rows: none has a column 编号 (pass) and a column 卡号 (card)", headerRows)}
}

// read makes a row of a record. All errors of the row come at once.
func (h *header) read(name string, src source, rec record, o Options) (edge.RosterRow, []error) {
	p := parser{o: o, serial: src.serialDates()}
	p.row.Line = rec.row
	var errs []error
	fail := func(i int, msg string) {
		e := &Error{File: name, Row: rec.row, Msg: msg}
		if i >= 0 {
			e.Column, e.Cell, e.Header = i+1, src.cell(i+1, rec.row), strings.TrimSpace(h.cells[i])
		}
		errs = append(errs, e)
	}
	if len(rec.cells) > MaxColumns {
		fail(-1, fmt.Sprintf("%d columns; a roster has at most %d", len(rec.cells), MaxColumns))
		return edge.RosterRow{}, errs
	}
	passAt, cardAt := -1, -1
	for i, f := range h.fields {
		if f == nil {
			continue
		}
		switch f.name {
		case "pass":
			passAt = i
		case "card":
			cardAt = i
		}
		if i >= len(rec.cells) {
			continue
		}
		text := rec.cells[i]
		if len(text) > MaxCell {
			fail(i, fmt.Sprintf("%d bytes in one cell; at most %d", len(text), MaxCell))
			continue
		}
		if broken(text) {
			fail(i, "the text is damaged: neither UTF-8 nor GB18030")
			continue
		}
		if text = plain(text); text == "" {
			continue
		}
		if err := f.set(&p, text); err != nil {
			fail(i, err.Error())
		}
	}
	if len(errs) == 0 && p.row.Pass.ID == 0 {
		fail(passAt, "the pass's number is missing")
	}
	if len(errs) == 0 && len(p.row.Credentials) == 0 {
		fail(cardAt, "the card number is missing")
	}
	if len(errs) == 0 {
		if err := p.finish(); err != nil {
			fail(-1, err.Error())
		}
	}
	return p.row, errs
}
