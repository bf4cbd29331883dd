package edge

// Cell is one value that earlier entries left behind: a counter in a bucket, a
// position, a mark. Cells live in the journal's database and change only in
// the transaction of the entry that implies the change.
type Cell struct {
	Name    string // the counter's name; "position"; "mark:" and the mark's name
	Subject string // "p1832", "h441", "v77"
	Bucket  int64  // which fixed window, for counters; 0 otherwise
}

// CellPosition is the Name of position cells.
const CellPosition = "position"

// CellReset and its subject name the cell whose local value is when all
// positions became unknown at once (UTC ms): after a fire, an evacuation, a
// restore. Positions learnt before it are not believed.
//
// SubjectCleared is when two persons said that nobody need be looked for any
// more. Who was inside before a reset that nobody has cleared may still be.
const (
	CellReset      = "position_reset"
	SubjectReset   = "site"
	SubjectCleared = "cleared"
)

// CellUses is the Name of the cells that count the entries of a pass, for passes
// that are good for so many.
const CellUses = "uses"

// CellMark is the prefix of the Name of mark cells.
const CellMark = "mark:"

// Positions as cell values.
const (
	PositionUnknown int64 = 0
	PositionInside  int64 = 1
	PositionOutside int64 = 2
)

// CellValue is what a cell holds. For a counter the value is Local + Peers;
// for a position the newer of the two by time; for a mark the later end
// (UTC ms; 0 = not set).
type CellValue struct {
	Local   int64
	Peers   int64
	At      int64  // UTC ms of the last local change, 0 = never
	PeersAt int64  // UTC ms of the last change a peer reported, 0 = never
	Version uint64 // grows with every change, local or not; 0 = no such cell yet
}

// Delta is one change of a cell. In an entry's JSON it is one small object.
type Delta struct {
	Cell  Cell
	Op    DeltaOp
	Value int64 // summand, position, or end of the mark in UTC ms
}

// DeltaOp is how a Delta changes its cell.
type DeltaOp string

const (
	OpAdd DeltaOp = "add" // counters
	OpSet DeltaOp = "set" // positions and marks
)

// Expected is the version of a cell that a decision was based on.
type Expected struct {
	Cell    Cell
	Version uint64
}

// PeerDelta is what another gate of the site changed. It is applied once,
// known by gate, epoch and sequence.
type PeerDelta struct {
	Gate   string
	Epoch  Epoch
	Seq    uint64
	Time   int64 // UTC ms, of the peer's entry
	Deltas []Delta
}

// Head is a tree head of the journal: its size in entries and the RFC 6962
// root over the leaves.
type Head struct {
	Origin string
	Size   uint64
	Root   [32]byte
	Note   []byte // the signed C2SP tlog-checkpoint; nil while unsigned
}

// KeyOfBlock is the key of the aligned block that starts at First.
type KeyOfBlock struct {
	First uint64
	Key   BlockKey
}
