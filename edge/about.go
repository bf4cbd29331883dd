package edge

import (
	"encoding/json"
	"slices"
	"strconv"
)

// About knows the entries that concern one pass: those with it among their facts,
// its changes, who looked it up, and what refers to one of these.
type About struct {
	pass    PassID
	subject string
	seqs    map[uint64]bool
	carried map[uint64]bool // by the sequence they had
}

func NewAbout(pass PassID) *About {
	return &About{pass: pass, subject: pass.Subject(), seqs: map[uint64]bool{}, carried: map[uint64]bool{}}
}

// Was says that an entry that is not there any more concerned the pass.
func (a *About) Was(seq uint64) { a.seqs[seq] = true }

// Is must be asked about every entry of an epoch, in order.
func (a *About) Is(seq uint64, e *Entry) bool {
	if e.Kind == KindCarried {
		var c struct {
			Seq   uint64
			Entry json.RawMessage
		}
		if json.Unmarshal(e.Data, &c) != nil || len(c.Entry) == 0 {
			return false
		}
		inner, err := DecodeEntry(c.Entry)
		yes := err == nil && (a.self(inner) || inner.Of >= 0 && a.carried[uint64(inner.Of)])
		a.carried[c.Seq] = yes
		return yes
	}
	yes := a.self(e) || e.Of >= 0 && a.seqs[uint64(e.Of)]
	if yes {
		a.seqs[seq] = true
	}
	return yes
}

func (a *About) self(e *Entry) bool {
	if f := e.Facts; f != nil && f.Pass != nil && f.Pass.ID == a.pass {
		return true
	}
	if slices.ContainsFunc(e.Deltas, func(d Delta) bool { return d.Cell.Subject == a.subject }) {
		return true
	}
	if len(e.Data) == 0 {
		return false
	}
	var d struct {
		Pass   json.Number   `json:"pass"`
		Passes []json.Number `json:"passes"`
	}
	if json.Unmarshal(e.Data, &d) != nil {
		return false
	}
	id := json.Number(strconv.FormatInt(int64(a.pass), 10))
	return d.Pass == id || slices.Contains(d.Passes, id)
}
