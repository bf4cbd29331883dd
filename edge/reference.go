package edge

import (
	"crypto/sha256"
	"encoding/binary"
	"errors"
	"fmt"
	"strconv"
	"strings"
	"unicode"
)

// ErrReference is a reference that is not one of this journal's: misheard,
// mistyped, or another gate's.
var ErrReference = errors.New("this is no reference of this gate's journal")

// Reference is what a person notes down to ask about an entry: its number in the
// journal and two check digits, which any language can say over a telephone. It
// tells nothing of anybody. The check covers the log's origin too, so what another
// gate has shown, or this one before it began a new journal, is not taken for an
// entry of this one.
func Reference(origin string, seq uint64) string {
	return fmt.Sprintf("%d-%02d", seq, checkDigits(origin, seq))
}

// ParseReference gives the entry that a reference names. Spaces, dashes and other
// scripts' digits are as good.
func ParseReference(origin, text string) (seq uint64, err error) {
	var digits strings.Builder
	for _, r := range text {
		switch {
		case r >= '0' && r <= '9':
			digits.WriteRune(r)
		case r >= '０' && r <= '９':
			digits.WriteRune('0' + r - '０')
		case r >= '٠' && r <= '٩':
			digits.WriteRune('0' + r - '٠')
		case !unicode.IsSpace(r) && !unicode.Is(unicode.Pd, r):
			return 0, ErrReference
		}
	}
	s := digits.String()
	if len(s) < 3 {
		return 0, ErrReference
	}
	seq, err = strconv.ParseUint(s[:len(s)-2], 10, 63)
	if err != nil || s[len(s)-2:] != fmt.Sprintf("%02d", checkDigits(origin, seq)) {
		return 0, ErrReference
	}
	return seq, nil
}

// checkDigits are those of ISO/IEC 7064, MOD 97-10: every single wrong digit and
// every two that have changed places are noticed.
func checkDigits(origin string, seq uint64) uint64 {
	sum := sha256.Sum256([]byte(origin))
	n := uint64(binary.BigEndian.Uint32(sum[:4])) % 97
	for _, d := range strconv.FormatUint(seq, 10) {
		n = (n*10 + uint64(d-'0')) % 97
	}
	return 98 - n*100%97
}
