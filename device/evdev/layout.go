package evdev

// Keys of linux/input-event-codes.h that are no characters of a layout.
const (
	keyLeftShift  = 42
	keyRightShift = 54
	keyCapsLock   = 58
	keyRightAlt   = 100
)

// keypad holds the keys that mean the same in every layout.
var keypad = map[uint16]rune{
	15: '\t', 28: '\n', 57: ' ',
	55: '*', 71: '7', 72: '8', 73: '9', 74: '-', 75: '4', 76: '5', 77: '6', 78: '+',
	79: '1', 80: '2', 81: '3', 82: '0', 83: '.', 96: '\n', 98: '/',
}

type key struct{ plain, shifted, altgr rune }

// layout is what each key code means; code 86 is the one between left shift
// and the letters of European keyboards.
type layout [87]key

// layouts are written as the rows of a keyboard, from the code that stands
// first: plain, with shift, and with AltGr where it makes a character. A blank
// is a key without one (dead keys).
var layouts = map[string]*layout{
	"us": rows(
		row{2, "1234567890-=", "!@#$%^&*()_+", ""},
		row{16, "qwertyuiop[]", "QWERTYUIOP{}", ""},
		row{30, "asdfghjkl;'`", "ASDFGHJKL:\"~", ""},
		row{43, "\\zxcvbnm,./", "|ZXCVBNM<>?", ""},
		row{86, "<", ">", ""},
	),
	"de": rows(
		row{2, "1234567890ß ", "!\"§$%&/()=? ", " ²³   {[]}\\ "},
		row{16, "qwertzuiopü+", "QWERTZUIOPÜ*", "@ €        ~"},
		row{30, "asdfghjklöä ", "ASDFGHJKLÖÄ°", ""},
		row{43, "#yxcvbnm,.-", "'YXCVBNM;:_", "       µ   "},
		row{86, "<", ">", "|"},
	),
	"fr": rows(
		row{2, "&é\"'(-è_çà)=", "1234567890°+", " ~#{[|`\\^@]}"},
		row{16, "azertyuiop $", "AZERTYUIOP £", "  €         "},
		row{30, "qsdfghjklmù²", "QSDFGHJKLM% ", ""},
		row{43, "*wxcvbn,;:!", "µWXCVBN?./§", ""},
		row{86, "<", ">", ""},
	),
}

type row struct {
	first                 int
	plain, shifted, altgr string
}

func rows(rs ...row) *layout {
	var l layout
	for _, r := range rs {
		for level, s := range []string{r.plain, r.shifted, r.altgr} {
			code := r.first
			for _, c := range s {
				if c != ' ' {
					k := &l[code]
					*[]*rune{&k.plain, &k.shifted, &k.altgr}[level] = c
				}
				code++
			}
		}
	}
	return &l
}
