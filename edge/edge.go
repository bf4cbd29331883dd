// Package edge holds the words of the checkpoint: passes and credentials,
// facts, decisions, and the journal's entry with its bytes. It does nothing
// by itself; the folders below it do.
//
// Words of the trade that this package uses (one meaning each):
//
//	gate          one appliance; its id is unique in its site
//	passage       an opening with its barrier, contacts and fire input
//	lane          one way through a passage, in one direction
//	presentation  one person, or party, at a lane, from first card to passed
//	level         which of the three doors a gate guards
//	pass          the right of a holder to use some lanes for some time
//	credential    what a scanner reads to find a pass
//	household     the people behind one door
//	entry         one record of the journal
package edge

import (
	"errors"
	"fmt"
	"strconv"
	"time"

	"gatehouse/device"
)

// Level says which door a gate guards.
type Level string

const (
	LevelEstate    Level = "estate"
	LevelBuilding  Level = "building"
	LevelHousehold Level = "household"
)

// Tier is how strictly an area is managed now.
type Tier string

const (
	TierLockdown   Tier = "lockdown"   // 封控
	TierControl    Tier = "control"    // 管控
	TierPrevention Tier = "prevention" // 防范
	TierNormal     Tier = "normal"
)

// Direction is a lane's direction seen from the estate.
type Direction = device.Direction

const (
	In  = device.In
	Out = device.Out
)

// PassID and HouseholdID are assigned by the site, from 1, below 2^53 (so that
// they survive a JSON number in any language). 0 means none.
type (
	PassID      int64
	HouseholdID int64
)

// MaxID is the greatest PassID or HouseholdID.
const MaxID = 1<<53 - 1

// Subject names the pass in counters, marks and positions.
func (id PassID) Subject() string { return "p" + strconv.FormatInt(int64(id), 10) }

// Subject names the household in counters and marks.
func (id HouseholdID) Subject() string { return "h" + strconv.FormatInt(int64(id), 10) }

// Errors that cross from one room to another.
var (
	// ErrStale: a cell changed between reading it and appending; decide again.
	ErrStale = errors.New("a counter, mark or position changed underneath")
	// ErrUnknown: no such pass, household or entry.
	ErrUnknown = errors.New("unknown")
	// ErrPurged: the entry's content is past its retention and was destroyed.
	ErrPurged = errors.New("content destroyed after its retention")
	// ErrLate: an action answers a presentation that has ended or moved on.
	ErrLate = errors.New("too late: the presentation has ended or was answered by somebody else")
	// ErrForbidden: this actor may not do that, or the policy does not offer it.
	ErrForbidden = errors.New("not allowed")
)

// Late is an ErrLate that knows who answered first, and what.
type Late struct {
	By      string // an actor: "guard:7", or "system" when the time ran out
	Outcome Outcome
}

func (l Late) Error() string {
	return l.By + " has answered " + string(l.Outcome) + ": " + ErrLate.Error()
}
func (l Late) Unwrap() error { return ErrLate }

// Refusal is an ErrForbidden with a code, so that people can be told why in their
// own language: the message "refused.CODE".
type Refusal struct {
	Code string
	text string
}

// Refuse makes a refusal; the text is for logs and developers.
func Refuse(code, format string, args ...any) error {
	return Refusal{code, fmt.Sprintf(format, args...)}
}

func (r Refusal) Error() string { return r.text + ": " + ErrForbidden.Error() }
func (r Refusal) Unwrap() error { return ErrForbidden }

// ClockState is how far the wall time can be trusted.
type ClockState string

const (
	ClockSynced   ClockState = "synced"   // the kernel's clock is disciplined by NTP or an RTC it trusts
	ClockServer   ClockState = "server"   // set by the community server's signed answer
	ClockHoldover ClockState = "holdover" // was set once; drifts since (Stamp.Error says how far)
	ClockUnset    ClockState = "unset"    // never set since power-on: only the floor is known
)

// Trusted reports whether rules that depend on the time may use it.
func (s ClockState) Trusted() bool { return s == ClockSynced || s == ClockServer || s == ClockHoldover }

// Stamp is one reading of the gate's clocks. Wall time can leap; boot id and
// monotonic time order what happened within one start of the machine.
type Stamp struct {
	Time   int64      // UTC, milliseconds since 1970
	Offset int        // site local time minus UTC, minutes
	Boot   string     // the kernel's boot id, its first 8 hex digits
	Mono   int64      // milliseconds since boot, suspend included
	Clock  ClockState // trust in Time
	Error  int64      // greatest error of Time in milliseconds, for holdover; 0 = not known
	Source string     // where Time is from: ntp, battery, server, system (untrusted), or the floor (build, kept, floor); "" = not said
}

// Local returns the site's wall clock as a time in a fixed zone.
func (s Stamp) Local() time.Time {
	return time.UnixMilli(s.Time).In(time.FixedZone("", s.Offset*60))
}

// Clock gives the time. edge/clock has the real one.
type Clock interface {
	Now() Stamp
}

// Signer signs with one of the device's keys without giving it away.
type Signer interface {
	// Name is the key's name in signed notes.
	Name() string
	// Public is the Ed25519 public key, 32 bytes.
	Public() []byte
	// Sign signs exactly msg (Ed25519, RFC 8032).
	Sign(msg []byte) ([]byte, error)
}
