package edge

import (
	"errors"
	"fmt"
	"testing"

	"gatehouse/device"
)

func TestOneTagOneCard(t *testing.T) {
	var raw device.RawBits
	for _, b := range []byte{0x3C, 0x00, 0xCE, 0x75, 0x4C} {
		for i := 7; i >= 0; i-- {
			raw.Append(b>>i&1 == 1)
		}
	}
	em := CredentialOf(device.CardRead{Format: device.FormatEM4100, Raw: raw})
	if em != "em:3C00CE754C" {
		t.Fatalf("RDM6300 read: %s", em)
	}
	printed, err := ParseCredential("0013530444", "em-dec10")
	if err != nil {
		t.Fatal(err)
	}
	wiegand := CredentialOf(device.CardRead{Format: device.FormatH10301, Facility: 206, Number: 30028})
	aliases := map[Credential]bool{}
	for _, a := range em.Aliases() {
		aliases[a] = true
	}
	if !aliases[printed] || !aliases[wiegand] {
		t.Fatalf("aliases of %s are %v, want %s and %s among them", em, em.Aliases(), printed, wiegand)
	}
	if _, err := ParseCredential("13530444", "em-dec10"); err == nil {
		t.Fatal("lost leading zeros were accepted")
	}
}

func TestRefusal(t *testing.T) {
	err := fmt.Errorf("lane east: %w", Refuse("closed", "lane %s is closed", "east"))
	var r Refusal
	if !errors.Is(err, ErrForbidden) || !errors.As(err, &r) || r.Code != "closed" || err.Error() != "lane east: lane east is closed: not allowed" {
		t.Errorf("%v", err)
	}
}
