package edge

// EntryRef names one entry of one gate's journal.
type EntryRef struct {
	Gate  string `json:"gate"`
	Epoch Epoch  `json:"epoch"`
	Seq   uint64 `json:"seq"`
}

// PassChange is what a gate changes about a pass by itself: somebody suspends
// it, reports it lost, or takes such a change back. It is the data of a
// registry entry, and what a site's other gates are told.
type PassChange struct {
	Pass   PassID     `json:"pass"`
	Status PassStatus `json:"status,omitempty"` // empty = as the roster says: earlier changes are taken back
	Reason string     `json:"reason,omitempty"`
	Actor  string     `json:"actor,omitempty"`
	At     int64      `json:"at"` // UTC ms; of two changes of one pass the later holds
}
