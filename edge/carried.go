package edge

import "encoding/json"

// Carried is the data of an entry that carries over what a refused fork, or a
// damaged journal, had: one entry, or a sealed run.
type Carried struct {
	Seq   uint64          `json:"seq"` // that it had there; the first of a run
	Entry json.RawMessage `json:"entry"`
	// Sealed is the age file of a run of Count entries, as [SealedPlain] made it.
	Count  uint64 `json:"count"`
	Sealed []byte `json:"sealed"`
}

// maxCarried is how often an entry may have been carried over to be looked into.
const maxCarried = 16

// Carried reads what the entry carries; false for any other entry.
func (e *Entry) Carried() (Carried, bool) {
	var c Carried
	if e.Kind != KindCarried || json.Unmarshal(e.Data, &c) != nil || len(c.Entry) == 0 && len(c.Sealed) == 0 {
		return Carried{}, false
	}
	return c, true
}
