package roster

import (
	"fmt"
	"io"
	"strings"

	"github.com/xuri/excelize/v2"
)

type xlsxSource struct {
	name  string
	sheet string
	f     *excelize.File
	rows  *excelize.Rows
	row   int
}

// openXLSX opens a workbook. Cells come as they are stored, not as they are
// shown: a date is its number, and a card number typed as a number shows what
// the spreadsheet has made of it.
func openXLSX(name string, r io.ReaderAt, size int64, sheet string) (_ source, err error) {
	defer recovered(name, &err)
	f, err := excelize.OpenReader(io.NewSectionReader(r, 0, size), excelize.Options{RawCellValue: true, UnzipSizeLimit: 2 << 30, UnzipXMLSizeLimit: 16 << 20})
	if err != nil {
		return nil, &Error{File: name, Msg: "cannot read the workbook: " + err.Error()}
	}
	sheets := f.GetSheetList()
	if sheet == "" && len(sheets) > 0 {
		sheet = sheets[0]
	}
	rows, err := f.Rows(sheet)
	if err != nil {
		f.Close()
		return nil, &Error{File: name, Msg: fmt.Sprintf("%v (sheets are %s)", err, strings.Join(sheets, ", "))}
	}
	return &xlsxSource{name: name, sheet: sheet, f: f, rows: rows}, nil
}

// recovered turns a panic of the workbook library into an error: a damaged
// file must not end the program that other things depend on.
func recovered(name string, err *error) {
	if p := recover(); p != nil {
		*err = &Error{File: name, Msg: fmt.Sprintf("the workbook is damaged: %v", p)}
	}
}

func (s *xlsxSource) next() (_ record, err error) {
	defer recovered(s.name, &err)
	for range maxBlank {
		if !s.rows.Next() {
			if err := s.rows.Error(); err != nil {
				return record{}, &Error{File: s.name, Row: s.row + 1, Msg: err.Error()}
			}
			return record{}, io.EOF
		}
		s.row++
		cells, err := s.rows.Columns()
		if err != nil {
			return record{}, &Error{File: s.name, Row: s.row, Msg: err.Error()}
		}
		if !blank(cells) {
			return record{s.row, cells}, nil
		}
	}
	return record{}, &Error{File: s.name, Row: s.row, Msg: fmt.Sprintf("%d empty rows one after another: delete them", maxBlank)}
}

func (s *xlsxSource) format() string    { return "XLSX, sheet " + s.sheet }
func (s *xlsxSource) serialDates() bool { return true }

func (s *xlsxSource) cell(column, row int) string {
	name, err := excelize.CoordinatesToCellName(column, row)
	if err != nil {
		return ""
	}
	return name
}

func (s *xlsxSource) Close() error {
	s.rows.Close()
	return s.f.Close()
}
