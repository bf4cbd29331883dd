package edge

import (
	"crypto/hmac"
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"strconv"
	"strings"

	"gatehouse/device"
)

// Credential is the canonical text of what a scanner reads: "em:3C00CE754C",
// "w26:206/30028", "w34:1234567890", "iso14443a:04A1B2C3D4E5F6", "qr:...",
// "pin:...". Equal credentials are equal strings. It never leaves the gate.
type Credential string

// Prefixes of canonical credentials.
const (
	credEM  = "em"
	credW26 = "w26"
	credW34 = "w34"
)

// CredentialOf gives the canonical form of a read. A format this package does
// not know by name keeps its own, lower-cased, with facility and number.
func CredentialOf(r device.CardRead) Credential {
	switch r.Format {
	case device.FormatEM4100:
		return Credential(fmt.Sprintf("%s:%s", credEM, strings.ToUpper(hex.EncodeToString(r.Raw.B[:5]))))
	case device.FormatH10301:
		return w26(r.Facility, r.Number)
	case device.FormatW34:
		return w34(r.Number)
	case device.FormatISO14443A:
		return Credential("iso14443a:" + strings.ToUpper(hex.EncodeToString(r.Raw.B[:r.Raw.Len/8])))
	case device.FormatLine, device.FormatQR, device.FormatPIN:
		return Credential(r.Format + ":" + r.Text)
	default:
		if r.Text != "" {
			return Credential(strings.ToLower(r.Format) + ":" + r.Text)
		}
		return Credential(fmt.Sprintf("%s:%d/%d", strings.ToLower(r.Format), r.Facility, r.Number))
	}
}

func w26(facility, number uint64) Credential {
	return Credential(credW26 + ":" + strconv.FormatUint(facility, 10) + "/" + strconv.FormatUint(number, 10))
}

func w34(number uint64) Credential {
	return Credential(credW34 + ":" + strconv.FormatUint(number, 10))
}

// ParseCredential reads a canonical credential, or one of the forms in which
// people write down a card: ten hex digits (EM4100), the ten decimal digits
// printed on its face ("0013530444"), "206,30028". form says which of these a
// bare number is: "em-hex", "em-dec10", "w26", "w34", "uid"; it is ignored for
// a text that has a canonical prefix.
func ParseCredential(text, form string) (Credential, error) {
	s := strings.TrimSpace(text)
	if s == "" {
		return "", fmt.Errorf("empty card number")
	}
	if pre, rest, ok := strings.Cut(s, ":"); ok && rest != "" {
		return parsePrefixed(strings.ToLower(pre), rest)
	}
	switch form {
	case "em-hex":
		return parsePrefixed(credEM, s)
	case "em-dec10":
		if len(s) != 10 {
			return "", fmt.Errorf("card number %q has %d digits, want the 10 printed on the card (were leading zeros lost?)", s, len(s))
		}
		n, err := strconv.ParseUint(s, 10, 32)
		if err != nil {
			return "", fmt.Errorf("card number %q is not a 10-digit decimal below 4294967296", s)
		}
		// The face shows the low four bytes, which is what a 34-bit reader sends;
		// the version byte before them is not printed.
		return w34(n), nil
	case "w26":
		return parsePrefixed(credW26, s)
	case "w34":
		return parsePrefixed(credW34, s)
	case "uid":
		return parsePrefixed("iso14443a", s)
	case "qr", "":
		if form == "qr" {
			return Credential("qr:" + s), nil
		}
	}
	return "", fmt.Errorf("card number %q: cannot tell its form (say which with the column's form: em-hex, em-dec10, w26, w34, uid or qr)", s)
}

func parsePrefixed(pre, rest string) (Credential, error) {
	switch pre {
	case credEM:
		b, err := hex.DecodeString(rest)
		if err != nil || len(b) != 5 {
			return "", fmt.Errorf("card number %q is not ten hex digits", rest)
		}
		return Credential(credEM + ":" + strings.ToUpper(rest)), nil
	case credW26:
		f, n, ok := strings.Cut(strings.ReplaceAll(rest, ",", "/"), "/")
		if !ok {
			return "", fmt.Errorf("card number %q is not facility/number", rest)
		}
		fv, err1 := strconv.ParseUint(strings.TrimSpace(f), 10, 8)
		nv, err2 := strconv.ParseUint(strings.TrimSpace(n), 10, 16)
		if err1 != nil || err2 != nil {
			return "", fmt.Errorf("card number %q: facility must be 0-255 and number 0-65535", rest)
		}
		return w26(fv, nv), nil
	case credW34:
		n, err := strconv.ParseUint(rest, 10, 32)
		if err != nil {
			return "", fmt.Errorf("card number %q must be below 4294967296", rest)
		}
		return w34(n), nil
	case "iso14443a":
		b, err := hex.DecodeString(strings.ReplaceAll(rest, ":", ""))
		if err != nil || (len(b) != 4 && len(b) != 7 && len(b) != 10) {
			return "", fmt.Errorf("card number %q is not a UID of 4, 7 or 10 bytes in hex", rest)
		}
		return Credential("iso14443a:" + strings.ToUpper(hex.EncodeToString(b))), nil
	}
	return Credential(pre + ":" + rest), nil
}

// Aliases returns every form under which other readers may see the same tag,
// the credential itself first. An EM4100 tag read by an RDM6300 (3C00CE754C),
// printed on its face (0013530444) and read by Wiegand 26 (206/30028) or 34
// is one card: the shorter forms are parts of the longer.
func (c Credential) Aliases() []Credential {
	out := []Credential{c}
	pre, rest, _ := strings.Cut(string(c), ":")
	var low uint64
	switch pre {
	case credEM:
		b, err := hex.DecodeString(rest)
		if err != nil || len(b) != 5 {
			return out
		}
		low = uint64(b[1])<<24 | uint64(b[2])<<16 | uint64(b[3])<<8 | uint64(b[4])
		out = append(out, w34(low))
	case credW34:
		v, err := strconv.ParseUint(rest, 10, 32)
		if err != nil {
			return out
		}
		low = v
	default:
		return out
	}
	return append(out, w26(low>>16&0xff, low&0xffff))
}

// CredentialKey is one version of the site's key for stored credentials.
type CredentialKey struct {
	Version int
	Key     [32]byte
}

// Hash is how a credential is stored and looked up: HMAC-SHA256 under the
// site's key. Without the key a hash cannot be tried against the small space
// of card numbers.
func (k *CredentialKey) Hash(c Credential) [32]byte {
	m := hmac.New(sha256.New, k.Key[:])
	m.Write([]byte(c))
	var out [32]byte
	m.Sum(out[:0])
	return out
}
