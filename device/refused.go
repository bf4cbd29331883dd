package device

import "errors"

// ErrRefused: a barrier does not open because something else forbids it: the
// other door of an interlock is open, or it is not known whether it is. The
// barrier itself is well.
var ErrRefused = errors.New("refused")
