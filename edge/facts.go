package edge

// Facts is all that a policy may look at, for one presentation. A nil pointer
// means that the fact is absent: never "normal". The field names in JSON are
// the names in policy expressions: pass.category, temperature.band.
//
// The journal keeps the facts as they were given to the policy, so that a
// decision can be made again from its entry; what the entry holds elsewhere
// (the time) is not repeated there.
type Facts struct {
	Pass        *PassFacts             `json:"pass,omitempty" doc:"the pass found for the credential; absent when it is unknown"`
	Holder      *HolderFacts           `json:"holder,omitempty" doc:"what is known of the pass's holder"`
	Household   *HouseholdFacts        `json:"household,omitempty" doc:"the household the pass belongs to"`
	Temperature *TemperatureFacts      `json:"temperature,omitempty" doc:"the measurement, as the journal may hold it"`
	Lane        LaneFacts              `json:"lane" doc:"where the person stands"`
	Area        *AreaFacts             `json:"area,omitempty" doc:"the area the lane guards"`
	Plan        *PlanFacts             `json:"plan,omitempty" doc:"the emergency plan or drill in force"`
	Guard       *GuardFacts            `json:"guard,omitempty" doc:"what the guard confirmed"`
	Visitor     *VisitorFacts          `json:"visitor,omitempty" doc:"what was registered of a visitor"`
	Vehicle     *VehicleFacts          `json:"vehicle,omitempty" doc:"the vehicle at the lane"`
	Position    *PositionFacts         `json:"position,omitempty" doc:"where the pass is believed to be"`
	Marks       map[string]bool        `json:"marks,omitempty" doc:"marks set by earlier decisions and still valid"`
	Counters    map[string]CounterFact `json:"counters,omitempty" doc:"the counters that the policy declares"`
	Time        TimeFacts              `json:"-" doc:"the site's local time"`
}

// PassFacts are facts of the pass.
type PassFacts struct {
	ID         PassID     `json:"id" doc:"the pass's id"`
	Category   string     `json:"category" doc:"resident, worker, visitor, courier, medic, ..."`
	Status     PassStatus `json:"status" doc:"active, suspended, lost or foreign"`
	Groups     []string   `json:"groups,omitempty" doc:"groups the holder is in"`
	Expired    bool       `json:"expired,omitempty" doc:"the validity has ended (false while the clock is unset)"`
	Early      bool       `json:"early,omitempty" doc:"the validity has not begun"`
	OffHours   bool       `json:"off_hours,omitempty" doc:"outside the pass's daily hours"`
	Elsewhere  bool       `json:"elsewhere,omitempty" doc:"the pass is not valid in this lane's area"`
	MaxUses    int        `json:"max_uses,omitempty" doc:"entries that the pass is good for; 0 = no limit"`
	Uses       int64      `json:"uses,omitempty" doc:"entries so far, of a pass that is limited or whose first entry counts"`
	UsedUp     bool       `json:"used_up,omitempty" doc:"single-use or limited, and used"`
	Escort     bool       `json:"escort,omitempty" doc:"only with an escort"`
	Dependants int        `json:"dependants,omitempty" doc:"persons who may come along"`
	Party      int        `json:"party,omitempty" doc:"persons in this presentation beyond the holder"`
	Held       bool       `json:"held,omitempty" doc:"the holder came without the card; the guard found the pass"`
}

// HolderFacts are facts of the person who holds the pass.
type HolderFacts struct {
	Quarantine string   `json:"quarantine,omitempty" doc:"home, observation or released"`
	TestHours  *int     `json:"test_hours,omitempty" doc:"whole hours since the sample of the last test; absent when there is none"`
	TestResult string   `json:"test_result,omitempty" doc:"negative, positive or pending"`
	Code       string   `json:"code,omitempty" doc:"health code: green, yellow or red"`
	Risk       string   `json:"risk,omitempty" doc:"why the holder is on a risk list"`
	Care       []string `json:"care,omitempty" doc:"care flags: elderly, alone, disabled, pregnant, dialysis"`
	Green      bool     `json:"green,omitempty" doc:"medical green channel"`
}

// HouseholdFacts are facts of the household.
type HouseholdFacts struct {
	ID         HouseholdID `json:"id" doc:"the household's id"`
	Area       string      `json:"area,omitempty" doc:"the area it lies in"`
	Members    int         `json:"members,omitempty" doc:"persons in it"`
	Quarantine bool        `json:"quarantine,omitempty" doc:"under home quarantine now"`
	Announced  bool        `json:"announced,omitempty" doc:"a door opening was announced for now"`
}

// Band is a temperature relative to the policy's threshold.
type Band string

const (
	BandBelow Band = "below"
	BandNear  Band = "near"  // within the uncertainty of the threshold: too near to tell
	BandAbove Band = "above" // at or above
)

// TemperatureState says what became of the measurement. Missing, faulty,
// unstable and out of range are different facts, and none of them is normal.
type TemperatureState string

const (
	TempOK       TemperatureState = "ok"
	TempInvalid  TemperatureState = "invalid"  // not a temperature that skin can have
	TempUnstable TemperatureState = "unstable" // no plateau in time
	TempMissing  TemperatureState = "missing"  // nobody before the thermometer in time, or nothing typed
	TempWarming  TemperatureState = "warming"
	TempUnusable TemperatureState = "unusable" // ambient outside the profile's range
	TempFault    TemperatureState = "fault"
	TempNone     TemperatureState = "none" // the lane has no thermometer
)

// TemperatureFacts are facts of the measurement.
type TemperatureFacts struct {
	State       TemperatureState `json:"state" doc:"ok, invalid, unstable, missing, warming, unusable, fault or none"`
	Band        Band             `json:"band,omitempty" doc:"below, near or above the threshold; empty unless state is ok"`
	Value       *float64         `json:"value,omitempty" doc:"degrees Celsius; only in a policy that orders it and names its basis"`
	Uncertainty float64          `json:"uncertainty,omitempty" doc:"expanded uncertainty of the reading that the band was taken with, degrees Celsius"`
	Profile     string           `json:"profile,omitempty" doc:"name and version of the correction profile"`
	Second      Band             `json:"second,omitempty" doc:"band of the second instrument's reading"`
	Typed       bool             `json:"typed,omitempty" doc:"the reading was typed by the guard"`
	Tries       int              `json:"tries,omitempty" doc:"measurements of this person before this one"`
}

// LaneFacts are facts of the lane.
type LaneFacts struct {
	Level     Level     `json:"level" doc:"estate, building or household"`
	Direction Direction `json:"direction" doc:"in or out"`
	Area      string    `json:"area,omitempty" doc:"the area it guards"`
	Degraded  []string  `json:"degraded,omitempty" doc:"parts that do not work: scanner, thermometer, barrier, beam"`
	Closed    bool      `json:"closed,omitempty" doc:"the lane is closed by the site"`
}

// AreaFacts are facts of the area the lane guards.
type AreaFacts struct {
	Tier Tier `json:"tier" doc:"lockdown, control, prevention or normal"`
	Days int  `json:"days,omitempty" doc:"whole days the tier has lasted"`
}

// PlanFacts are facts of the plan in force.
type PlanFacts struct {
	Name  string `json:"name" doc:"the plan's name"`
	Drill bool   `json:"drill,omitempty" doc:"it is an exercise"`
}

// Confirmation is what the guard said of something the policy asks about.
// Silence is "", journalled as not asked, never as confirmed.
type Confirmation string

const (
	NotAsked  Confirmation = ""
	Confirmed Confirmation = "yes"
	Denied    Confirmation = "no" // the guard pressed the exception: "no mask"
)

// GuardFacts are the guard's confirmations and answer.
type GuardFacts struct {
	Mask     Confirmation `json:"mask,omitempty" doc:"yes, no, or empty when not asked"`
	Identity string       `json:"identity,omitempty" doc:"how identity was checked: known, document, host, phone; mismatch when it is somebody else; empty when it was not checked"`
	Proof    string       `json:"proof,omitempty" doc:"proof that was seen: medical, duty, discharge"`
	Escort   Confirmation `json:"escort,omitempty" doc:"an escort is present"`
	Purpose  string       `json:"purpose,omitempty" doc:"coded purpose of this passage: shopping, medical, duty, delivery"`
	Paper    string       `json:"paper,omitempty" doc:"colour of a paper code shown with an identity document"`
}

// VisitorFacts are facts of a registered visitor.
type VisitorFacts struct {
	Consent Confirmation `json:"consent,omitempty" doc:"the host's consent"`
	Origin  string       `json:"origin,omitempty" doc:"coded risk of where the visitor comes from: low, medium, high"`
	Purpose string       `json:"purpose,omitempty" doc:"coded purpose"`
	First   bool         `json:"first,omitempty" doc:"first entry of this person"`
}

// VehicleFacts are facts of a vehicle.
type VehicleFacts struct {
	ID        string `json:"id,omitempty" doc:"opaque id, never the plate"`
	Occupants int    `json:"occupants,omitempty" doc:"persons in it"`
	Outside   bool   `json:"outside,omitempty" doc:"not registered with the site"`
}

// PositionFacts say where a pass is believed to be.
type PositionFacts struct {
	At  string `json:"at" doc:"inside, outside or unknown"`
	Age int    `json:"age,omitempty" doc:"whole minutes since it was learnt"`
}

// CounterFact is a counter's value as the gate knew it.
type CounterFact struct {
	N     int64 `json:"n" doc:"this gate's part and the peers' together"`
	Peers int64 `json:"peers,omitempty" doc:"the part that other gates reported"`
	Stale bool  `json:"stale,omitempty" doc:"the peers' part is older than the policy's stale_after"`
	Age   int   `json:"age,omitempty" doc:"whole minutes since the last word from the peers"`
}

// TimeFacts are facts of the time, derived from the entry's own time fields.
type TimeFacts struct {
	Stamp   Stamp `json:"-"`
	Minute  int   `json:"minute" doc:"local minutes since midnight, 0 to 1439"`
	Weekday int   `json:"weekday" doc:"1 Monday to 7 Sunday"`
	Trusted bool  `json:"trusted" doc:"the clock can be trusted"`
}

// TimeFactsOf derives the time facts of a stamp.
func TimeFactsOf(s Stamp) TimeFacts {
	l := s.Local()
	wd := int(l.Weekday())
	if wd == 0 {
		wd = 7
	}
	return TimeFacts{Stamp: s, Minute: l.Hour()*60 + l.Minute(), Weekday: wd, Trusted: s.Clock.Trusted()}
}

// Guarded reports whether the guard said anything about a matter, by its name
// among the guard facts; any matter when it is empty.
func (f *Facts) Guarded(matter string) bool {
	g := f.Guard
	if g == nil {
		return false
	}
	switch matter {
	case "mask":
		return g.Mask != NotAsked
	case "identity":
		return g.Identity != ""
	case "proof":
		return g.Proof != ""
	case "escort":
		return g.Escort != NotAsked
	case "purpose":
		return g.Purpose != ""
	case "paper":
		return g.Paper != ""
	}
	return *g != GuardFacts{}
}
