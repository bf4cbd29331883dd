package edge

import (
	"errors"
	"strings"
	"testing"
)

func TestReference(t *testing.T) {
	const origin, other = "lake/garden/east/00000000000000a1", "lake/garden/west/00000000000000a1"
	for _, seq := range []uint64{0, 7, 42, 4827, 1234567, 1<<53 - 1} {
		ref := Reference(origin, seq)
		for _, typed := range []string{ref, " " + strings.ReplaceAll(ref, "-", " ") + " ", strings.ReplaceAll(ref, "-", "–")} {
			if got, err := ParseReference(origin, typed); err != nil || got != seq {
				t.Errorf("%q: %d %v, want %d", typed, got, err, seq)
			}
		}
		if _, err := ParseReference(other, ref); !errors.Is(err, ErrReference) {
			t.Errorf("%s of another gate: %v", ref, err)
		}
		digits := strings.ReplaceAll(ref, "-", "")
		for i := range digits {
			for d := byte('0'); d <= '9'; d++ {
				wrong := digits[:i] + string(d) + digits[i+1:]
				if _, err := ParseReference(origin, wrong); wrong != digits && err == nil {
					t.Errorf("%s misheard as %s", digits, wrong)
				}
			}
			if i > 0 && digits[i] != digits[i-1] {
				if _, err := ParseReference(origin, digits[:i-1]+digits[i:i+1]+digits[i-1:i]+digits[i+1:]); err == nil {
					t.Errorf("%s with the digits before %d swapped", digits, i)
				}
			}
		}
	}
	if got, err := ParseReference(origin, strings.NewReplacer("0", "０", "1", "１", "2", "٢", "4", "４", "7", "٧", "8", "８").Replace(Reference(origin, 4827))); err != nil || got != 4827 {
		t.Errorf("other scripts' digits: %d %v", got, err)
	}
	for _, s := range []string{"", "1", "12", "x", "-", "12-3x", "99999999999999999999-11", "<b>"} {
		if _, err := ParseReference(origin, s); !errors.Is(err, ErrReference) {
			t.Errorf("%q: %v", s, err)
		}
	}
}
