package scan

import (
	"fmt"
	"strings"
	"testing"

	"gatehouse/device"
)

func lines(o LineOptions, src string) (out []string) {
	l := NewLine(o)
	var r device.CardRead
	say := func(res Result) {
		switch res {
		case Card:
			s := r.Text
			if s == "" {
				s = fmt.Sprintf("%d/%d", r.Facility, r.Number)
			}
			out = append(out, s)
		case Garbled, Restart:
			out = append(out, "! "+l.Why().Error())
		}
	}
	for i := range len(src) {
		say(l.Byte(src[i], &r))
	}
	say(l.End(&r))
	return out
}

func TestLine(t *testing.T) {
	with := func(change func(o *LineOptions)) LineOptions {
		o := DefaultLine(device.FormatQR)
		change(&o)
		return o
	}
	text := DefaultLine(device.FormatQR)
	hex := with(func(o *LineOptions) { o.Content = "hex" })
	em := with(func(o *LineOptions) { o.Content, o.Format, o.Checksum = "hex", device.FormatEM4100, "xor" })
	for _, c := range []struct {
		name string
		o    LineOptions
		in   string
		want string
	}{
		{"cr", text, "abcd\refgh\r", "abcd efgh"},
		{"lf", text, "abcd\nefgh\n", "abcd efgh"},
		{"crlf", text, "abcd\r\nefgh\r\n", "abcd efgh"},
		{"empty lines", text, "\r\n\r\nabcd\r\n", "abcd"},
		{"unicode", text, "二维码一\n", "二维码一"},
		{"not utf-8", text, "ab\xffcd\nabcd\n", "! a line holds what is no text abcd"},
		{"control", text, "ab\x00cd\n", "! a line holds what is no text"},
		{"short", text, "abc\n", "! a line is too short or too long"},
		{"no end", text, "abcd", "! a line was cut short"},
		{"idle", with(func(o *LineOptions) { o.End = "idle" }), "abcd", "abcd"},
		{"tab", with(func(o *LineOptions) { o.End = "tab" }), "abcd\tefgh\t", "abcd efgh"},
		{"long", with(func(o *LineOptions) { o.Max = 6 }), "abcdefg\nabcdef\n", "! a line is too short or too long abcdef"},
		{"prefix and suffix", with(func(o *LineOptions) { o.Prefix, o.Suffix = "<", ">" }), "<abcd>\nabcd>\n<abcd\n<\n", "abcd ! a line lacks its prefix or suffix ! a line lacks its prefix or suffix ! a line lacks its prefix or suffix"},
		{"hex", hex, "04A1B2C3\n", "0/77705923"},
		{"long hex", hex, "04a1b2c3d4e5f60708\n", "04A1B2C3D4E5F60708"},
		{"odd hex", hex, "04A1B\n", "! a line is not hex"},
		{"no hex", hex, "04AG\n", "! a line is not hex"},
		{"em", em, "3C00CE754CCB\n", "60/13530444"},
		{"em checksum", em, "3C00CE754DCB\n", "! a line's checksum is wrong"},
		{"em length", em, "3C00CE7587\n", "! a line has not the length of a tag"},
		{"sum", with(func(o *LineOptions) { o.Content, o.Checksum = "hex", "sum" }), "FF02030408\n", "0/4278321924"},
		{"decimal", with(func(o *LineOptions) { o.Content = "decimal" }), "0013530444\n", "0/13530444"},
		{"facility", with(func(o *LineOptions) { o.Content = "decimal" }), "206,30028\n", "206/30028"},
		{"no decimal", with(func(o *LineOptions) { o.Content = "decimal" }), "-135\n1,,2\n99999999999999999999\n", "! a line is not a decimal number ! a line is not a decimal number ! a line is not a decimal number"},
	} {
		t.Run(c.name, func(t *testing.T) {
			if got := strings.Join(lines(c.o, c.in), " "); got != c.want {
				t.Errorf("%q gives %q, want %q", c.in, got, c.want)
			}
		})
	}
}

func FuzzLine(f *testing.F) {
	f.Add([]byte("04A1B2C3\r\n"), "hex", "xor")
	f.Add([]byte("206,30028\n"), "decimal", "none")
	f.Fuzz(func(t *testing.T, src []byte, content, checksum string) {
		o := DefaultLine(device.FormatLine)
		o.Max, o.Content, o.Checksum = 64, content, checksum
		l := NewLine(o)
		var r device.CardRead
		for _, b := range src {
			if l.Byte(b, &r) == Card && len(r.Text) > 64 {
				t.Fatalf("a text of %d characters", len(r.Text))
			}
			if cap(l.buf) > 64 {
				t.Fatal("memory grows")
			}
		}
	})
}

func BenchmarkLine(b *testing.B) {
	o := DefaultLine(device.FormatEM4100)
	o.Content, o.Checksum = "hex", "xor"
	l := NewLine(o)
	src := []byte("3C00CE754CCB\r\n")
	var r device.CardRead
	b.ReportAllocs()
	for b.Loop() {
		for _, c := range src {
			l.Byte(c, &r)
		}
	}
}
