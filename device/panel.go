package device

import (
	"context"
	"time"
)

// Press is one press of a button on a guard's panel.
type Press struct {
	Button string    // its meaning, as the config names it: "admit", "deny" ...
	At     time.Time // of the press, not of its release
}

// Panel is a guard's set of buttons: thick gloves and rain defeat glass. What a
// button means is the lane's affair.
type Panel interface {
	Device
	// Press blocks for the next press. Presses before the first call are
	// forgotten, and so are those that nobody has fetched for ten seconds: an
	// old press must not decide about the next person.
	Press(ctx context.Context) (Press, error)
}
