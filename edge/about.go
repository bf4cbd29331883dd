package edge

import (
	"encoding/json"
	"slices"
	"strconv"
)

// About knows the entries that concern one pass: those with it among their facts,
// its changes, who looked it up, and what refers to one of these; also where they
// were carried over into the epoch that is read, however often.
type About struct {
	// Open gives the entries of a sealed run that was carried over; nil where nobody
	// can open it. What cannot be opened concerns nobody.
	Open func(Carried) ([]Stored, error)

	pass    PassID
	subject string
	// seqs are the entries that concern the pass, by the sequence that they have in
	// the epoch that is read, in the one it carries over, in the one that carried over ...
	seqs [maxCarried + 1]map[uint64]bool
}

// Found is an entry that concerns the pass, as it was before it was carried over.
type Found struct {
	Entry *Entry
	Line  []byte // its own; nil for what was not in a sealed run: it is in the line that was asked about
}

func NewAbout(pass PassID) *About {
	a := &About{pass: pass, subject: pass.Subject()}
	for i := range a.seqs {
		a.seqs[i] = map[uint64]bool{}
	}
	return a
}

// Was says that an entry that is not there any more concerned the pass.
func (a *About) Was(seq uint64) { a.seqs[0][seq] = true }

// Next is for the epoch that carries over the one that a was asked about: what
// concerned the pass there does so where it was carried to.
func (a *About) Next() *About {
	n := NewAbout(a.pass)
	n.Open = a.Open
	for i := range maxCarried {
		n.seqs[i+1] = a.seqs[i]
	}
	return n
}

// Is must be asked about every entry of an epoch, in order.
func (a *About) Is(seq uint64, e *Entry) bool { return len(a.In(seq, e)) > 0 }

// In is [About.Is], and says what of the entry it is: a sealed run may hold several.
func (a *About) In(seq uint64, e *Entry) []Found { return a.in(0, seq, e) }

func (a *About) in(level int, seq uint64, e *Entry) (found []Found) {
	if c, ok := e.Carried(); ok && level < maxCarried {
		found = a.carried(level+1, c)
	} else if a.self(e) || e.Of >= 0 && a.seqs[level][uint64(e.Of)] {
		found = []Found{{Entry: e}}
	}
	switch {
	case len(found) > 0:
		a.seqs[level][seq] = true
	case level > 0:
		// A journal may carry over more than one other: the later has the number.
		delete(a.seqs[level], seq)
	}
	return found
}

func (a *About) carried(level int, c Carried) (found []Found) {
	if len(c.Entry) > 0 {
		if e, err := DecodeEntry(c.Entry); err == nil {
			return a.in(level, c.Seq, e)
		}
		return nil
	}
	if a.Open == nil {
		return nil
	}
	entries, err := a.Open(c)
	if err != nil {
		return nil
	}
	for _, s := range entries {
		e, err := DecodeEntry(s.Line)
		if err != nil {
			continue
		}
		for _, f := range a.in(level, s.Seq, e) {
			if f.Line == nil {
				f.Line = s.Line
			}
			found = append(found, f)
		}
	}
	return found
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
