package sim

// LineReader emulates a scanner that sends lines of text over a serial line.
type LineReader struct {
	line   *Serial
	Prefix string
	End    string // "\r\n"
}

// NewLineReader emulates a scanner that ends its lines with CR LF.
func NewLineReader(line *Serial) *LineReader { return &LineReader{line: line, End: "\r\n"} }

// Scan sends a text once.
func (l *LineReader) Scan(text string) error {
	_, err := l.line.Write([]byte(l.Prefix + text + l.End))
	return err
}

// Break sends the first half of a text and nothing after it.
func (l *LineReader) Break(text string) error {
	_, err := l.line.Write([]byte(l.Prefix + text[:len(text)/2]))
	return err
}
