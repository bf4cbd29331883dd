package accounts

import "gatehouse/edge"

// challenge is what an inspector's device must answer.
type challenge struct{ asked edge.Stamp }
