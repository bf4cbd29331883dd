package edge

import (
	"bytes"
	"crypto/hmac"
	"crypto/sha256"
	"encoding/binary"
	"encoding/json"
	"fmt"
	"slices"
	"strconv"
	"unicode/utf8"
)

// EntryVersion is the schema version that this package writes.
const EntryVersion = 1

// Kind is what an entry records. Readers keep kinds they do not know.
type Kind string

const (
	KindEpoch        Kind = "epoch"        // the first of an epoch: data names the parent and where it forked
	KindCarried      Kind = "carried"      // an entry of a refused fork, verbatim in data
	KindStart        Kind = "start"        // the daemon started
	KindStop         Kind = "stop"         // the daemon stopped in order
	KindDecision     Kind = "decision"     // a decision about a presentation
	KindPassage      Kind = "passage"      // what happened after an admission
	KindAction       Kind = "action"       // what a guard did
	KindAbandoned    Kind = "abandoned"    // a decision that was committed too late to be acted on
	KindFire         Kind = "fire"         // fire input on or off
	KindDevice       Kind = "device"       // a device failed or came back
	KindPolicy       Kind = "policy"       // a policy was activated, or refused
	KindRegistry     Kind = "registry"     // passes or households were changed
	KindClock        Kind = "clock"        // the wall time leapt, or its trust changed
	KindCommand      Kind = "command"      // a command from the server and what became of it
	KindAlert        Kind = "alert"        // something a person should look at
	KindAccess       Kind = "access"       // somebody looked at personal data
	KindSession      Kind = "session"      // a login, a logout, a lock-out
	KindAccount      Kind = "account"      // an account of the console was made, changed or removed
	KindSnapshot     Kind = "snapshot"     // cells that outlive the retention of what made them
	KindPurge        Kind = "purge"        // a deletion record
	KindDecommission Kind = "decommission" // the gate's life has ended: keys and content are destroyed
	KindTest         Kind = "test"         // a device was tried by a person
)

// Results of a passage entry.
const (
	ResultPassed      = "passed"
	ResultNotPassed   = "not_passed"
	ResultTailgated   = "tailgated"
	ResultHeldOpen    = "held_open"
	ResultForced      = "forced"
	ResultInterrupted = "interrupted" // the daemon ended in between: nothing is known
)

// Epoch is the random id of one life of a gate's journal.
type Epoch uint64

// String gives 16 hex digits, as in origins and topics.
func (e Epoch) String() string { return fmt.Sprintf("%016x", uint64(e)) }

// ParseEpoch reads what String gives.
func ParseEpoch(s string) (Epoch, error) {
	if len(s) != 16 {
		return 0, fmt.Errorf("epoch %q: want 16 hex digits", s)
	}
	v, err := strconv.ParseUint(s, 16, 64)
	if err != nil {
		return 0, fmt.Errorf("epoch %q: want 16 hex digits", s)
	}
	return Epoch(v), nil
}

// MarshalText and UnmarshalText make an Epoch a string in JSON: a number of
// 64 bits does not survive every reader.
func (e Epoch) MarshalText() ([]byte, error)        { return []byte(e.String()), nil }
func (e *Epoch) UnmarshalText(b []byte) (err error) { *e, err = ParseEpoch(string(b)); return err }

// Origin is the name of a log in its tree heads: community/site/gate/epoch.
func Origin(community, site, gate string, e Epoch) string {
	return community + "/" + site + "/" + gate + "/" + e.String()
}

// Entry is one record of the journal. AppendJSON makes its bytes; the bytes,
// not the struct, are what is hashed, kept and sent.
type Entry struct {
	Version      int
	Kind         Kind
	Lane         string
	Presentation uint64 // gate-wide, from the journal's size at start upwards; 0 = none
	Of           int64  // sequence of the entry it refers to; -1 = none
	Actor        string // "guard:7", "server", "system"
	Stamp        Stamp

	Policy      string // hash of the policy in force
	Engine      string // version of the policy engine
	Registry    int64  // version of the registry
	Outcome     Outcome
	Rule        string
	Reason      Reason
	Authority   string
	Matched     []Match
	Obligations []string
	Result      string // of a passage
	Card        string // keyed hash of an unknown card, 16 hex digits; never the number
	Facts       *Facts
	Deltas      []Delta
	Data        json.RawMessage            // what only this kind has; compact JSON
	Extra       map[string]json.RawMessage // fields this version does not know
}

// MaxLine is the greatest length of an entry's line in bytes.
const MaxLine = 64 << 10

// AppendJSON appends the entry's canonical line, without a newline, and
// returns the extended buffer. The order of the fields is part of the format.
func (e *Entry) AppendJSON(b []byte) ([]byte, error) {
	v := e.Version
	if v == 0 {
		v = EntryVersion
	}
	b = append(b, `{"v":`...)
	b = strconv.AppendInt(b, int64(v), 10)
	b = appendStr(b, "kind", string(e.Kind))
	b = appendStr(b, "lane", e.Lane)
	if e.Presentation != 0 {
		b = append(b, `,"p":`...)
		b = strconv.AppendUint(b, e.Presentation, 10)
	}
	if e.Of >= 0 {
		b = append(b, `,"of":`...)
		b = strconv.AppendInt(b, e.Of, 10)
	}
	b = appendStr(b, "actor", e.Actor)
	b = append(b, `,"t":`...)
	b = strconv.AppendInt(b, e.Stamp.Time, 10)
	b = append(b, `,"off":`...)
	b = strconv.AppendInt(b, int64(e.Stamp.Offset), 10)
	b = append(b, `,"boot":`...)
	b = appendQuoted(b, e.Stamp.Boot)
	b = append(b, `,"mono":`...)
	b = strconv.AppendInt(b, e.Stamp.Mono, 10)
	b = append(b, `,"clock":`...)
	b = appendQuoted(b, string(e.Stamp.Clock))
	if e.Stamp.Error != 0 {
		b = append(b, `,"err":`...)
		b = strconv.AppendInt(b, e.Stamp.Error, 10)
	}
	b = appendStr(b, "clock_by", e.Stamp.Source)
	b = appendStr(b, "policy", e.Policy)
	b = appendStr(b, "engine", e.Engine)
	if e.Registry != 0 {
		b = append(b, `,"reg":`...)
		b = strconv.AppendInt(b, e.Registry, 10)
	}
	b = appendStr(b, "outcome", string(e.Outcome))
	b = appendStr(b, "rule", e.Rule)
	b = appendStr(b, "reason", string(e.Reason))
	b = appendStr(b, "authority", e.Authority)
	if len(e.Matched) > 0 {
		b = append(b, `,"rules":[`...)
		for i, m := range e.Matched {
			if i > 0 {
				b = append(b, ',')
			}
			b = append(b, `{"r":`...)
			b = appendQuoted(b, m.Rule)
			b = appendStr(b, "o", string(m.Outcome))
			b = appendStr(b, "l", m.Layer)
			b = append(b, '}')
		}
		b = append(b, ']')
	}
	if len(e.Obligations) > 0 {
		b = append(b, `,"obligations":[`...)
		for i, o := range e.Obligations {
			if i > 0 {
				b = append(b, ',')
			}
			b = appendQuoted(b, o)
		}
		b = append(b, ']')
	}
	b = appendStr(b, "result", e.Result)
	b = appendStr(b, "card", e.Card)
	if e.Facts != nil {
		b = append(b, `,"facts":`...)
		f, err := marshal(e.Facts)
		if err != nil {
			return nil, fmt.Errorf("cannot encode facts: %w", err)
		}
		b = append(b, f...)
	}
	if len(e.Deltas) > 0 {
		b = append(b, `,"deltas":[`...)
		for i := range e.Deltas {
			if i > 0 {
				b = append(b, ',')
			}
			b = e.Deltas[i].appendJSON(b)
		}
		b = append(b, ']')
	}
	if len(e.Data) > 0 {
		b = append(b, `,"data":`...)
		var buf bytes.Buffer
		if err := json.Compact(&buf, e.Data); err != nil {
			return nil, fmt.Errorf("entry data is not JSON: %w", err)
		}
		b = append(b, buf.Bytes()...)
	}
	if len(e.Extra) > 0 {
		keys := make([]string, 0, len(e.Extra))
		for k := range e.Extra {
			keys = append(keys, k)
		}
		slices.Sort(keys)
		for _, k := range keys {
			b = append(b, ',')
			b = appendQuoted(b, k)
			b = append(b, ':')
			b = append(b, e.Extra[k]...)
		}
	}
	b = append(b, '}')
	if len(b) > MaxLine {
		return nil, fmt.Errorf("entry of %d bytes is longer than %d", len(b), MaxLine)
	}
	return b, nil
}

// marshal is json.Marshal without HTML escaping.
func marshal(v any) ([]byte, error) {
	var buf bytes.Buffer
	enc := json.NewEncoder(&buf)
	enc.SetEscapeHTML(false)
	if err := enc.Encode(v); err != nil {
		return nil, err
	}
	return bytes.TrimSuffix(buf.Bytes(), []byte{'\n'}), nil
}

func appendStr(b []byte, key, val string) []byte {
	if val == "" {
		return b
	}
	b = append(b, ',', '"')
	b = append(b, key...)
	b = append(b, '"', ':')
	return appendQuoted(b, val)
}

const hexDigits = "0123456789abcdef"

// appendQuoted appends a JSON string (RFC 8259 section 7): only what must be
// escaped is, and invalid UTF-8 becomes U+FFFD.
func appendQuoted(b []byte, s string) []byte {
	b = append(b, '"')
	for i := 0; i < len(s); {
		c := s[i]
		if c < utf8.RuneSelf {
			switch {
			case c == '"' || c == '\\':
				b = append(b, '\\', c)
			case c < 0x20:
				b = append(b, '\\', 'u', '0', '0', hexDigits[c>>4], hexDigits[c&15])
			default:
				b = append(b, c)
			}
			i++
			continue
		}
		r, n := utf8.DecodeRuneInString(s[i:])
		if r == utf8.RuneError && n == 1 {
			b = append(b, "\uFFFD"...)
		} else {
			b = append(b, s[i:i+n]...)
		}
		i += n
	}
	return append(b, '"')
}

func (d *Delta) appendJSON(b []byte) []byte {
	b = append(b, `{"c":`...)
	b = appendQuoted(b, d.Cell.Name)
	b = append(b, `,"s":`...)
	b = appendQuoted(b, d.Cell.Subject)
	if d.Cell.Bucket != 0 {
		b = append(b, `,"b":`...)
		b = strconv.AppendInt(b, d.Cell.Bucket, 10)
	}
	b = append(b, ',', '"')
	b = append(b, string(d.Op)...)
	b = append(b, '"', ':')
	b = strconv.AppendInt(b, d.Value, 10)
	return append(b, '}')
}

// MarshalJSON gives the form that a Delta has inside an entry.
func (d Delta) MarshalJSON() ([]byte, error) { return d.appendJSON(nil), nil }

// UnmarshalJSON reads the form that a Delta has inside an entry.
func (d *Delta) UnmarshalJSON(b []byte) error {
	var w struct {
		C   string `json:"c"`
		S   string `json:"s"`
		B   int64  `json:"b"`
		Add *int64 `json:"add"`
		Set *int64 `json:"set"`
	}
	if err := json.Unmarshal(b, &w); err != nil {
		return err
	}
	d.Cell = Cell{Name: w.C, Subject: w.S, Bucket: w.B}
	switch {
	case w.Add != nil && w.Set == nil:
		d.Op, d.Value = OpAdd, *w.Add
	case w.Set != nil && w.Add == nil:
		d.Op, d.Value = OpSet, *w.Set
	default:
		return fmt.Errorf("delta of %q must have one of add and set", w.C)
	}
	return nil
}

// wireEntry mirrors Entry for decoding; encoding is AppendJSON's.
type wireEntry struct {
	V           int             `json:"v"`
	Kind        Kind            `json:"kind"`
	Lane        string          `json:"lane"`
	P           uint64          `json:"p"`
	Of          *int64          `json:"of"`
	Actor       string          `json:"actor"`
	T           int64           `json:"t"`
	Off         int             `json:"off"`
	Boot        string          `json:"boot"`
	Mono        int64           `json:"mono"`
	Clock       ClockState      `json:"clock"`
	Err         int64           `json:"err"`
	ClockBy     string          `json:"clock_by"`
	Policy      string          `json:"policy"`
	Engine      string          `json:"engine"`
	Reg         int64           `json:"reg"`
	Outcome     Outcome         `json:"outcome"`
	Rule        string          `json:"rule"`
	Reason      Reason          `json:"reason"`
	Authority   string          `json:"authority"`
	Rules       []Match         `json:"rules"`
	Obligations []string        `json:"obligations"`
	Result      string          `json:"result"`
	Card        string          `json:"card"`
	Facts       *Facts          `json:"facts"`
	Deltas      []Delta         `json:"deltas"`
	Data        json.RawMessage `json:"data"`
}

var knownFields = []string{"v", "kind", "lane", "p", "of", "actor", "t", "off", "boot", "mono", "clock", "err", "clock_by",
	"policy", "engine", "reg", "outcome", "rule", "reason", "authority", "rules", "obligations", "result", "card",
	"facts", "deltas", "data"}

// DecodeEntry reads a line. Unknown kinds and fields are kept: AppendJSON
// writes them again. The facts' time is filled in from the entry's stamp.
func DecodeEntry(line []byte) (*Entry, error) {
	if len(line) > MaxLine {
		return nil, fmt.Errorf("entry of %d bytes is longer than %d", len(line), MaxLine)
	}
	var w wireEntry
	if err := json.Unmarshal(line, &w); err != nil {
		return nil, fmt.Errorf("entry is not JSON of the expected shape: %w", err)
	}
	if w.V < 1 {
		return nil, fmt.Errorf("entry without a version")
	}
	if w.Kind == "" {
		return nil, fmt.Errorf("entry without a kind")
	}
	e := &Entry{Version: w.V, Kind: w.Kind, Lane: w.Lane, Presentation: w.P, Of: -1, Actor: w.Actor,
		Stamp:  Stamp{Time: w.T, Offset: w.Off, Boot: w.Boot, Mono: w.Mono, Clock: w.Clock, Error: w.Err, Source: w.ClockBy},
		Policy: w.Policy, Engine: w.Engine, Registry: w.Reg, Outcome: w.Outcome, Rule: w.Rule, Reason: w.Reason,
		Authority: w.Authority, Matched: w.Rules, Obligations: w.Obligations, Result: w.Result, Card: w.Card,
		Facts: w.Facts, Deltas: w.Deltas, Data: w.Data}
	if w.Of != nil {
		e.Of = *w.Of
	}
	if e.Facts != nil {
		e.Facts.Time = TimeFactsOf(e.Stamp)
	}
	var all map[string]json.RawMessage
	if err := json.Unmarshal(line, &all); err != nil {
		return nil, err
	}
	for k, v := range all {
		if !slices.Contains(knownFields, k) {
			if e.Extra == nil {
				e.Extra = map[string]json.RawMessage{}
			}
			e.Extra[k] = v
		}
	}
	return e, nil
}

// BlockSize is how many consecutive entries, aligned, share a block key, a
// compressed block at the server and, past retention, their destruction.
const BlockSize = 256

// BlockKey is the random key of one aligned block of entries.
type BlockKey [32]byte

// Blind is what hides a guessable entry's hash: HMAC-SHA256(K, sequence as
// 8 bytes, big endian). With K destroyed, a purged entry cannot be confirmed
// by trying.
type Blind [32]byte

// Blind derives the blind of one sequence number.
func (k *BlockKey) Blind(seq uint64) Blind {
	return k.Blinder()(seq)
}

// Blinder gives the blinds of a block's entries at half of what [BlockKey.Blind]
// costs for each. It is for one caller at a time.
func (k *BlockKey) Blinder() func(seq uint64) Blind {
	m := hmac.New(sha256.New, k[:])
	return func(seq uint64) Blind {
		var s [8]byte
		binary.BigEndian.PutUint64(s[:], seq)
		m.Reset()
		m.Write(s[:])
		var out Blind
		m.Sum(out[:0])
		return out
	}
}

// LeafData is what the transparency log holds of an entry:
// SHA-256(blind || line). The leaf's Merkle hash is RFC 6962's
// SHA-256(0x00 || LeafData).
func LeafData(blind Blind, line []byte) [32]byte {
	h := sha256.New()
	h.Write(blind[:])
	h.Write(line)
	var out [32]byte
	h.Sum(out[:0])
	return out
}
