package edge

// Outcome is what a decision says.
type Outcome string

const (
	Admit     Outcome = "admit"
	Remeasure Outcome = "remeasure"
	Refer     Outcome = "refer" // the guard decides
	Deny      Outcome = "deny"
)

// Strictness orders outcomes: the strictest matching rule wins.
func (o Outcome) Strictness() int {
	switch o {
	case Admit:
		return 1
	case Remeasure:
		return 2
	case Refer:
		return 3
	case Deny:
		return 4
	}
	return 0
}

// Reason is a stable code, "temperature.above"; edge/text has its sentences.
type Reason string

// Match is a rule that matched, in the order of the policy.
type Match struct {
	Rule    string   `json:"r"`
	Outcome Outcome  `json:"o"`
	Layer   string   `json:"l,omitempty"` // the layer that holds it, empty for the site's own
	Reads   []string `json:"-"`           // names of the facts it read, for explanations
}

// Decision is what the policy says of the facts. Same facts, same decision.
type Decision struct {
	Outcome     Outcome
	Rule        string
	Reason      Reason
	Authority   string // who ordered the rule that decided, and on what basis
	Policy      string // hash of the policy in force, "sha256:" and 16 hex digits
	Matched     []Match
	Obligations []string          // register, alert, escort, incident, temporary_pass
	Deltas      []Delta           // what an admission reserves in counters, and marks to set
	Remeasures  int               // measurements the policy allows in all; 0 = the lane's default
	Timeout     Outcome           // for refer: what happens when no guard answers; empty = the lane's default
	Answers     []Answer          // for refer and deny: what the guard may answer
	Say         map[string]string // what the rule tells the person, by language; nil = nothing of its own
	Error       string            // a run-time error turned the outcome into refer
}

// Answer is one admit reason the policy offers the guard: a button.
type Answer struct {
	Reason  Reason   `json:"reason"`
	Needs   []string `json:"needs,omitempty"`   // confirmations it asks for: identity, proof, escort, second_reading
	Two     bool     `json:"two,omitempty"`     // needs a second person
	Purpose string   `json:"purpose,omitempty"` // sets guard.purpose
}

// Decider turns facts into decisions. *policy.Policy is the one; the console
// and the reports know it by this word.
type Decider interface {
	Decide(f *Facts) Decision
}
