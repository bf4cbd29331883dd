package edge

import (
	"time"

	"gatehouse/device"
)

// LaneState is what a lane is doing, for the console and the display.
type LaneState string

const (
	LaneIdle      LaneState = "idle"
	LaneCard      LaneState = "card"      // temperature first: waiting for the card
	LaneMeasuring LaneState = "measuring" // waiting for the temperature
	LaneReferred  LaneState = "referred"  // the guard decides
	LanePassing   LaneState = "passing"   // admitted, barrier open
	LaneDenied    LaneState = "denied"    // the person is told; ends by itself
	LaneFree      LaneState = "free"      // fire: everybody may leave
	LaneFault     LaneState = "fault"
	LaneClosed    LaneState = "closed"
)

// PresentationView is one person or party at a lane, as the guard sees it.
type PresentationView struct {
	ID          uint64            `json:"id"`
	Lane        string            `json:"lane"`
	State       LaneState         `json:"state"`
	Pass        *Pass             `json:"pass,omitempty"` // nil = unknown
	Unknown     bool              `json:"unknown,omitempty"`
	Party       int               `json:"party,omitempty"` // persons beyond the holder
	Temperature *TemperatureFacts `json:"temperature,omitempty"`
	Reading     string            `json:"reading,omitempty"` // the value for the guard's eyes, never journalled: "36.5 ±0.3"
	Outcome     Outcome           `json:"outcome,omitempty"`
	Reason      Reason            `json:"reason,omitempty"`
	Say         map[string]string `json:"say,omitempty"` // what the rule tells the person, by language: "the north gate is open"
	Rule        string            `json:"rule,omitempty"`
	Authority   string            `json:"authority,omitempty"`
	Answers     []Answer          `json:"answers,omitempty"`
	Obligations []string          `json:"obligations,omitempty"`
	Seq         int64             `json:"seq"` // of its last entry, -1 = none yet
	Since       time.Time         `json:"since"`
	Deadline    time.Time         `json:"deadline,omitzero"` // when the present step times out
	Language    string            `json:"language,omitempty"`
	Calls       int               `json:"calls,omitempty"` // presses of the call button
	By          string            `json:"by,omitempty"`    // the actor whose answer is final; empty = nobody has answered
}

// HelpCall is a guard's call for help that nobody has acknowledged yet.
type HelpCall struct {
	ID uint64    `json:"id"` // numbered like presentations
	By string    `json:"by"` // an actor
	At time.Time `json:"at"`
}

// LaneView is one lane as it stands. Version grows with every change, so a
// client knows an old view from a new one.
type LaneView struct {
	Lane        string             `json:"lane"`
	Name        string             `json:"name"`
	Passage     string             `json:"passage"`
	Level       Level              `json:"level"`
	Direction   Direction          `json:"direction"`
	Version     uint64             `json:"version"`
	State       LaneState          `json:"state"`
	Scanner     string             `json:"scanner"`     // "device", "console" or "none"
	Thermometer string             `json:"thermometer"` // "device", "typed" or "none"
	Current     *PresentationView  `json:"current,omitempty"`
	Queue       int                `json:"queue"` // cards waiting behind
	Parked      []PresentationView `json:"parked,omitempty"`
	Degraded    []string           `json:"degraded,omitempty"`
	Fire        bool               `json:"fire,omitempty"`
	Last        *PresentationView  `json:"last,omitempty"` // the one before, for the guard who looked away
	Test        TestKind           `json:"test,omitempty"` // what somebody tries here; nobody is at the lane
	Help        []HelpCall         `json:"help,omitempty"`
}

// TestKind is what of a lane's devices somebody tries.
type TestKind string

const (
	TestLamps   TestKind = "lamps"
	TestBuzzer  TestKind = "buzzer"
	TestBarrier TestKind = "barrier"
)

// DeviceTest has a lane's device do what it is for, once.
type DeviceTest struct {
	Lane  string
	What  TestKind
	Actor string // "installer:5"
}

// ActionKind is what a guard does.
type ActionKind string

const (
	ActAdmit     ActionKind = "admit" // with Reason, one of the offered answers
	ActDeny      ActionKind = "deny"
	ActRemeasure ActionKind = "remeasure"
	ActReading   ActionKind = "reading"  // Value: a typed reading, degrees Celsius
	ActSecond    ActionKind = "second"   // Value: the second instrument's reading
	ActConfirm   ActionKind = "confirm"  // Field and Value text: mask=no, proof=medical
	ActAside     ActionKind = "aside"    // park the referral, free the lane
	ActRecall    ActionKind = "recall"   // take up a parked referral again
	ActPlusOne   ActionKind = "plus_one" // one more person on this pass
	ActPresent   ActionKind = "present"  // start a presentation for a pass found on the console
	ActCall      ActionKind = "call"     // call for help, for oneself
	ActComing    ActionKind = "coming"   // somebody is on the way to a call for help
	ActCancel    ActionKind = "cancel"   // nobody there any more
	ActLanguage  ActionKind = "language" // for the display
	ActClose     ActionKind = "close"    // close the lane
	ActOpen      ActionKind = "open"     // open the lane for business again
)

// Action is one thing a guard does at a lane. It names the presentation it
// answers, so that a late tap never acts on the next person.
type Action struct {
	Kind         ActionKind `json:"kind"`
	Lane         string     `json:"lane"`
	Presentation uint64     `json:"presentation,omitempty"` // 0 only for present, call, close, open; of coming the HelpCall
	Actor        string     `json:"actor"`                  // "guard:7"
	Second       string     `json:"second,omitempty"`       // the second person, where two are asked for
	Reason       Reason     `json:"reason,omitempty"`
	Field        string     `json:"field,omitempty"`
	Text         string     `json:"text,omitempty"`
	Value        float64    `json:"value,omitempty"`
	Pass         PassID     `json:"pass,omitempty"`     // for present
	Identity     string     `json:"identity,omitempty"` // how identity was checked: known, document, host, phone
}

// Stored is one entry as the journal holds it.
type Stored struct {
	Seq  uint64
	Line []byte // the exact bytes; nil when purged
	// Blind is set where the block's key is destroyed already because others of
	// the block are past their retention.
	Blind *Blind
}

// SyncStatus is the uplink's and downlink's state, for the status line, the
// console and the status message.
type SyncStatus struct {
	Connected   bool      `json:"connected"`
	Server      string    `json:"server"`
	Since       time.Time `json:"since,omitzero"` // of Connected
	LastReceipt time.Time `json:"last_receipt,omitzero"`
	Size        uint64    `json:"size"`  // entries in this epoch
	Acked       uint64    `json:"acked"` // stored at the server, by receipt
	Error       string    `json:"error,omitempty"`
}

// Backlog is how many entries the server has not receipted.
func (s SyncStatus) Backlog() uint64 {
	if s.Acked > s.Size {
		return 0
	}
	return s.Size - s.Acked
}

// DeviceHealth is one device's health with the lane or passage it serves.
type DeviceHealth struct {
	Serves string `json:"serves"` // "east-in scanner"
	device.Health
}

// Versions are what a gate runs and goes by.
type Versions struct {
	Program    string
	Policy     string // its id
	PolicyHash string
	Roster     int64
	Passes     int64
	Wire       int // of the messages to and from the server
}

// RawReading is one thing that a device gave, as it came: one of its fields.
type RawReading struct {
	At      time.Time
	Card    *device.CardRead
	Sample  *device.Sample
	Contact *device.Change
	Button  string // of a panel
	Err     string
}

// RawDevice is what one device gave last, oldest first.
type RawDevice struct {
	Serves string
	Count  uint64 // of all since somebody began to look
	Last   []RawReading
}

// Explanation says why a decision was what it was, in one language.
type Explanation struct {
	Outcome   Outcome
	Sentence  string   // why
	Counter   []string // what would have changed the outcome
	Authority string
	Superior  string // what the superior's policy alone would have said
}

// Inside is somebody who is believed inside, or was when all positions became
// unknown.
type Inside struct {
	Pass    Pass
	Since   int64 // UTC ms of what was learnt last
	Peer    bool  // from another gate
	Unknown int64 // UTC ms when all positions became unknown since; 0 = they have not
}
