package wire

import (
	"bytes"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"slices"
	"strings"

	"gatehouse/edge"
)

// Request is a gate's word about what it has. The server answers with a
// manifest, with the chunks and bundles in Want, and with the peers' deltas
// from Peers onwards.
type Request struct {
	V        int        `json:"v"`
	Nonce    string     `json:"nonce"`
	Registry int64      `json:"registry"`        // version in force, 0 = none
	Policy   string     `json:"policy"`          // SetOf the bundles in force, empty = none
	Want     []string   `json:"want,omitempty"`  // hashes of chunks and bundles
	Peers    []PeerMark `json:"peers,omitempty"` // what was applied of the peers' deltas
	Trust    uint64     `json:"trust,omitempty"` // number of the list of the server's keys; 0 = as enrolled
}

// PeerMark says that all deltas of the peer's entries below Next were applied:
// Next is one more than the last entry whose deltas were.
type PeerMark struct {
	Gate  string     `json:"gate"`
	Epoch edge.Epoch `json:"epoch"`
	Next  uint64     `json:"next"`
}

// ManifestBody is the body of a manifest: what this gate needs now.
type ManifestBody struct {
	V        int          `json:"v"`
	Nonce    string       `json:"nonce"` // of the request answered; empty when sent by itself
	Time     int64        `json:"time"`  // the server's, UTC ms
	Registry *RegistryRef `json:"registry,omitempty"`
	Policies []PolicyRef  `json:"policies,omitempty"`
	// Trust names the server's keys, for people: a gate goes by Lists.
	Trust []ServerKey `json:"trust,omitempty"`
	// Lists are the lists of the server's keys since the one that the gate has, in
	// order, each an envelope of its own: they lead from keys that the gate knows to
	// those of now, also when it knows none that has signed the manifest.
	Lists [][]byte `json:"lists,omitempty"`
}

// RegistryRef is a snapshot of the registry: rows in chunks, in order.
type RegistryRef struct {
	Version int64    `json:"version"`
	Rows    int64    `json:"rows"`
	Chunks  []string `json:"chunks"` // hashes of the encrypted chunks
	// Key is an age identity, encrypted (age, binary) to this gate's recipient; the
	// chunks are encrypted to it, once for the whole site.
	Key []byte `json:"key"`
	// Deltas lead to this version from earlier ones, step by step: a gate that has one of
	// those needs no chunk. Empty when they are not kept.
	Deltas []DeltaRef `json:"deltas,omitempty"`
	// Contains says how far the changes that the site's gates made by themselves are
	// in the snapshot: what a gate laid over the one before may go up to there.
	Contains []PeerMark `json:"contains,omitempty"`
}

// DeltaRef is one step of the registry, published under its hash and encrypted as
// chunks are. Inside: a DeltaHead, then a Row for each pass that is new or changed.
type DeltaRef struct {
	From int64  `json:"from"`
	To   int64  `json:"to"`
	Hash string `json:"hash"`
}

// DeltaHead is the first line of a delta.
type DeltaHead struct {
	V    int           `json:"v"`
	From int64         `json:"from"`
	To   int64         `json:"to"`
	Gone []edge.PassID `json:"gone,omitempty"`
}

// PolicyRef is a signed policy bundle, published under its hash.
type PolicyRef struct {
	Hash    string `json:"hash"`            // of the bundle as published
	Layer   string `json:"layer,omitempty"` // whose it is; empty = the site's own
	Version int64  `json:"version"`         // grows within the layer
}

// SetOf names a set of bundles by their hashes, in any order, in one hash; empty
// for none.
func SetOf(hashes ...string) string {
	if len(hashes) == 0 {
		return ""
	}
	sorted := slices.Sorted(slices.Values(hashes))
	return HashOf([]byte(strings.Join(sorted, "\n")))
}

// Row is one line of a registry chunk.
type Row struct {
	Pass        edge.Pass         `json:"pass"`
	Household   edge.Household    `json:"household,omitzero"`
	Credentials []edge.Credential `json:"cards,omitempty"`
}

// PeersBody is the body of the peers' deltas: some of one epoch of one peer, in
// order. They follow on From: a gate that has not applied everything before it
// has missed a message and asks again.
type PeersBody struct {
	V       int         `json:"v"`
	Gate    string      `json:"gate"`
	Epoch   edge.Epoch  `json:"epoch"`
	From    uint64      `json:"from"` // one more than the entry sent before these; 0 = none
	Entries []PeerEntry `json:"entries"`
}

// PeerEntry is what one entry of a peer changed.
type PeerEntry struct {
	Seq    uint64       `json:"seq"`
	Time   int64        `json:"t"` // UTC ms
	Deltas []edge.Delta `json:"deltas,omitempty"`
	// Change is what the gate changed in its registry: the data of its entry, an
	// edge.PassChange.
	Change json.RawMessage `json:"change,omitempty"`
}

// CommandBody is the body of a command. It is carried out at most once, and only
// while its nonce is the gate's current or previous one.
type CommandBody struct {
	V       int             `json:"v"`
	Number  uint64          `json:"number"` // strictly increasing per server key
	Nonce   string          `json:"nonce"`
	Expires int64           `json:"expires"` // UTC ms
	Name    string          `json:"name"`    // open, plan, reload, purge, ...
	Args    json.RawMessage `json:"args,omitempty"`
	Actor   string          `json:"actor"`
}

// Result is what became of a command.
type Result struct {
	V      int    `json:"v"`
	Number uint64 `json:"number"`
	KeyID  string `json:"key_id"`
	Status string `json:"status"` // done, failed, refused, unknown
	Text   string `json:"text,omitempty"`
	At     int64  `json:"at"`
}

// StatusMessage is a gate's retained word about itself. It holds no personal data.
type StatusMessage struct {
	V        int                 `json:"v"`
	Online   bool                `json:"online"`
	Version  string              `json:"version,omitempty"`
	Policy   string              `json:"policy,omitempty"`
	Registry int64               `json:"registry,omitempty"`
	Epoch    edge.Epoch          `json:"epoch,omitempty"`
	Size     uint64              `json:"size,omitempty"`
	Acked    uint64              `json:"acked,omitempty"`
	Time     int64               `json:"t,omitempty"`
	Clock    edge.ClockState     `json:"clock,omitempty"`
	Nonce    string              `json:"nonce,omitempty"`
	Key      string              `json:"key,omitempty"` // the device's note verifier key: what an operator approves
	Age      string              `json:"age,omitempty"` // the device's recipient
	Devices  []edge.DeviceHealth `json:"devices,omitempty"`
	Flash    int64               `json:"flash,omitempty"` // bytes written to the medium per entry
}

// Offline is the status that the broker says when a gate is gone: its last will.
func Offline() []byte { return []byte(`{"v":1,"online":false}`) }

// AlertMessage is something a person should look at now. It is also in the journal.
type AlertMessage struct {
	V     int        `json:"v"`
	Epoch edge.Epoch `json:"epoch"`
	Seq   int64      `json:"seq"` // of its entry; -1 = not journalled yet
	Time  int64      `json:"t"`
	Lane  string     `json:"lane,omitempty"`
	Code  string     `json:"code"`
	Text  string     `json:"text"`
}

// Encode gives the payload of a message of this package.
func Encode(v any) ([]byte, error) {
	var buf bytes.Buffer
	enc := json.NewEncoder(&buf)
	enc.SetEscapeHTML(false)
	if err := enc.Encode(v); err != nil {
		return nil, fmt.Errorf("cannot encode a message: %w", err)
	}
	return bytes.TrimSuffix(buf.Bytes(), []byte{'\n'}), nil
}

// Decode reads a payload, compressed or not, into a message of this package.
func Decode(payload []byte, v any) error { return decode(payload, v) }

// HashOf names a chunk or bundle by its bytes as published: SHA-256 in hex.
func HashOf(b []byte) string {
	h := sha256.Sum256(b)
	return hex.EncodeToString(h[:])
}
