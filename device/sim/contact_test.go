package sim

import (
	"testing"

	"gatehouse/device/devicetest"
)

func TestContactContract(t *testing.T) {
	devicetest.Contact(t, func(t *testing.T) *devicetest.ContactRig {
		c := NewContact("contact")
		return &devicetest.ContactRig{Contact: c, Set: c.Set, ExactTimes: true}
	})
}
