package edge

// PassStatus is the state of a pass as the registry knows it. Expired is not
// a status: it follows from the validity and the time.
type PassStatus string

const (
	PassActive    PassStatus = "active"
	PassSuspended PassStatus = "suspended" // withdrawn for now, by somebody, with a reason
	PassLost      PassStatus = "lost"      // reported lost: whoever holds it is not the holder
	PassForeign   PassStatus = "foreign"   // a pass of another estate, known as such
)

// Pass is the right of a holder to use some lanes for some time. It holds
// what a gate needs and no more: the holder's name is masked before it comes.
type Pass struct {
	ID         PassID      `json:"id"`
	Household  HouseholdID `json:"household,omitempty"`
	Category   string      `json:"category"` // resident, worker, visitor, courier, medic, ...
	Status     PassStatus  `json:"status"`
	Reason     string      `json:"reason,omitempty"` // of a suspension
	Name       string      `json:"name,omitempty"`   // masked: 王*明
	Building   string      `json:"building,omitempty"`
	Unit       string      `json:"unit,omitempty"`
	Language   string      `json:"language,omitempty"` // BCP 47
	Groups     []string    `json:"groups,omitempty"`
	Areas      []string    `json:"areas,omitempty"`      // where it is valid; empty = everywhere
	From       int64       `json:"from,omitempty"`       // UTC ms, inclusive; 0 = always
	Until      int64       `json:"until,omitempty"`      // UTC ms, exclusive; 0 = for ever
	Hours      string      `json:"hours,omitempty"`      // local "06:00-22:30", may span midnight; empty = all day
	Dependants int         `json:"dependants,omitempty"` // persons who may come along on this pass
	MaxUses    int         `json:"max_uses,omitempty"`   // entries; 0 = no limit
	Escort     bool        `json:"escort,omitempty"`     // only in company of a guard or host
	Care       []string    `json:"care,omitempty"`       // elderly, alone, disabled, pregnant, dialysis: for the guard only

	Quarantine      string `json:"quarantine,omitempty"` // of the holder: home, observation, released
	QuarantineUntil int64  `json:"quarantine_until,omitempty"`
	TestAt          int64  `json:"test_at,omitempty"` // UTC ms the sample was taken
	TestResult      string `json:"test_result,omitempty"`
	Code            string `json:"code,omitempty"`    // health code: green, yellow, red
	Risk            string `json:"risk,omitempty"`    // why the holder is on a risk list
	Green           bool   `json:"green,omitempty"`   // medical green channel
	Vehicle         string `json:"vehicle,omitempty"` // opaque id of a vehicle, never its plate

	Visit *Visit `json:"visit,omitempty"` // what was registered of a visitor, or of a courier's round
}

// Visit is what was registered of somebody who does not belong to the site.
type Visit struct {
	Consent Confirmation `json:"consent,omitempty"` // of the host; empty = was not asked
	Origin  string       `json:"origin,omitempty"`  // coded risk of where the person comes from: low, medium, high
	Purpose string       `json:"purpose,omitempty"` // coded
}

// Household is the people behind one door.
type Household struct {
	ID              HouseholdID `json:"id"`
	Area            string      `json:"area,omitempty"`
	Building        string      `json:"building,omitempty"`
	Unit            string      `json:"unit,omitempty"`
	Members         int         `json:"members,omitempty"`
	Quarantine      bool        `json:"quarantine,omitempty"`
	QuarantineUntil int64       `json:"quarantine_until,omitempty"`
	OpeningsUntil   int64       `json:"openings_until,omitempty"` // announced door openings (a drop) are fine until then
}

// PassQuery asks the registry for passes, for the guard who looks for somebody
// without a card. Empty fields do not restrict.
type PassQuery struct {
	Building, Unit string
	Name           string // part of the masked name
	Credential     Credential
	Household      HouseholdID
	Limit          int // 0 = 50
}

// RosterRow is one line of a roster: a pass, the household behind it, and the
// credentials that find it.
type RosterRow struct {
	Line        int // in the file, from 1; 0 = not from a file
	Pass        Pass
	Household   Household
	Credentials []Credential
}
