// Package qrtext draws QR codes on a terminal.
package qrtext

import (
	"fmt"
	"io"
	"strings"

	"github.com/boombuler/barcode/qr"
)

// Print draws a code with two modules in a character, light on dark and with
// the quiet zone that ISO/IEC 18004 asks for.
func Print(out io.Writer, text string) error {
	code, err := qr.Encode(text, qr.M, qr.Unicode)
	if err != nil {
		return fmt.Errorf("cannot draw the code: %w", err)
	}
	b := code.Bounds()
	dark := func(x, y int) bool {
		if x < b.Min.X || y < b.Min.Y || x >= b.Max.X || y >= b.Max.Y {
			return false
		}
		v, _, _, _ := code.At(x, y).RGBA()
		return v == 0
	}
	for y := b.Min.Y - 4; y < b.Max.Y+4; y += 2 {
		var line strings.Builder
		for x := b.Min.X - 4; x < b.Max.X+4; x++ {
			switch up, down := dark(x, y), dark(x, y+1); {
			case up && down:
				line.WriteRune(' ')
			case up:
				line.WriteRune('▄')
			case down:
				line.WriteRune('▀')
			default:
				line.WriteRune('█')
			}
		}
		fmt.Fprintln(out, line.String())
	}
	return nil
}
