package edge

import (
	"fmt"
	"slices"
)

// SetPass puts among the facts what follows from a pass and its household at a
// time and place. While the clock is unset nothing has ended and nothing has not
// yet begun; but what the time floor says has ended has ended, for the floor is
// never later than the truth.
func (f *Facts) SetPass(ps *Pass, house *Household, s Stamp, area string) {
	pf := &PassFacts{ID: ps.ID, Category: ps.Category, Status: ps.Status, Groups: ps.Groups, MaxUses: ps.MaxUses, Escort: ps.Escort, Dependants: ps.Dependants}
	if s.Clock.Trusted() {
		pf.Expired = ps.Until != 0 && s.Time >= ps.Until
		pf.Early = ps.From != 0 && s.Time < ps.From
		pf.OffHours = offHours(ps.Hours, f.Time.Minute)
	} else if ps.Until != 0 && s.Time >= ps.Until {
		pf.Expired = true
	}
	pf.Elsewhere = len(ps.Areas) > 0 && area != "" && !slices.Contains(ps.Areas, area)
	f.Pass = pf
	h := HolderFacts{Quarantine: ps.Quarantine, TestResult: ps.TestResult, Code: ps.Code, Risk: ps.Risk, Care: ps.Care, Green: ps.Green}
	if ps.Quarantine != "" && ps.QuarantineUntil != 0 && s.Clock.Trusted() && s.Time >= ps.QuarantineUntil {
		h.Quarantine = ""
	}
	if ps.TestAt != 0 && s.Time >= ps.TestAt {
		n := int((s.Time - ps.TestAt) / 3_600_000)
		h.TestHours = &n
	}
	if h.Quarantine != "" || h.TestResult != "" || h.Code != "" || h.Risk != "" || len(h.Care) > 0 || h.Green || h.TestHours != nil {
		f.Holder = &h
	}
	if house != nil {
		q := house.Quarantine && (house.QuarantineUntil == 0 || !s.Clock.Trusted() || s.Time < house.QuarantineUntil)
		f.Household = &HouseholdFacts{ID: house.ID, Area: house.Area, Members: house.Members, Quarantine: q, Announced: house.OpeningsUntil != 0 && s.Time < house.OpeningsUntil}
	}
	if ps.Vehicle != "" {
		f.Vehicle = &VehicleFacts{ID: ps.Vehicle}
	}
	if v := ps.Visit; v != nil {
		f.Visitor = &VisitorFacts{Consent: v.Consent, Origin: v.Origin, Purpose: v.Purpose}
	}
}

// offHours reports whether a minute is outside "06:00-22:30", which may span
// midnight. Hours that cannot be read bar nobody: import refuses them.
func offHours(hours string, minute int) bool {
	var h1, m1, h2, m2 int
	if n, err := fmt.Sscanf(hours, "%d:%d-%d:%d", &h1, &m1, &h2, &m2); err != nil || n != 4 {
		return false
	}
	from, to := h1*60+m1, h2*60+m2
	if from <= to {
		return minute < from || minute >= to
	}
	return minute < from && minute >= to
}
