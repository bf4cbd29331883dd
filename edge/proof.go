package edge

import (
	"bytes"
	"crypto/sha256"
	"fmt"

	"github.com/transparency-dev/formats/proof"
	"golang.org/x/mod/sumdb/note"
	"golang.org/x/mod/sumdb/tlog"
)

// Proof shows that one entry is in a log: a C2SP tlog-proof
// (https://c2sp.org/tlog-proof) whose extra data is the entry's blind followed by
// its line, and whose record is the SHA-256 of that extra data. It discloses this
// entry's blind and no other.
type Proof struct {
	Seq    uint64
	Blind  Blind
	Line   []byte
	Hashes []tlog.Hash // the audit path of RFC 6962 section 2.1.1
	Head   []byte      // the signed tree head, cosigned or not
}

// maxProof bounds a proof's text.
const maxProof = 2*MaxLine + 64<<10

// Encode gives the proof's text.
func (p *Proof) Encode() []byte {
	t := proof.TLogProof{Index: p.Seq, Checkpoint: p.Head, ExtraData: append(bytes.Clone(p.Blind[:]), p.Line...)}
	for _, h := range p.Hashes {
		t.Hashes = append(t.Hashes, h)
	}
	return t.Marshal()
}

// CheckProof verifies a proof's text: that the head is signed by all of the
// verifiers' keys, and that the entry is in the tree it speaks of.
func CheckProof(text []byte, signers ...note.Verifier) (Proof, Head, error) {
	if len(text) > maxProof {
		return Proof{}, Head{}, fmt.Errorf("proof of %d bytes is longer than %d", len(text), maxProof)
	}
	// The library's line scanner ends a text at 64 KiB a line, less than the extra
	// data of the longest entry has in base64; such a proof is refused by it.
	var t proof.TLogProof
	if err := t.Unmarshal(text); err != nil {
		return Proof{}, Head{}, fmt.Errorf("cannot read the proof: %w", err)
	}
	p := Proof{Seq: t.Index, Head: t.Checkpoint}
	if len(t.ExtraData) < len(p.Blind) {
		return Proof{}, Head{}, fmt.Errorf("proof without the blind and the line of its entry")
	}
	p.Blind, p.Line = Blind(t.ExtraData), t.ExtraData[len(p.Blind):]
	for _, h := range t.Hashes {
		p.Hashes = append(p.Hashes, h)
	}
	h, n, err := OpenHead(t.Checkpoint, signers...)
	if err != nil {
		return Proof{}, Head{}, err
	}
	for _, v := range signers {
		found := false
		for _, s := range n.Sigs {
			found = found || s.Name == v.Name() && s.Hash == v.KeyHash()
		}
		if !found {
			return Proof{}, Head{}, fmt.Errorf("the head is not signed by %s", v.Name())
		}
	}
	if p.Seq >= h.Size {
		return Proof{}, Head{}, fmt.Errorf("entry %d is not below the head's size %d", p.Seq, h.Size)
	}
	data := sha256.Sum256(t.ExtraData)
	if err := tlog.CheckRecord(tlog.RecordProof(p.Hashes), int64(h.Size), tlog.Hash(h.Root), int64(p.Seq), tlog.RecordHash(data[:])); err != nil {
		return Proof{}, Head{}, fmt.Errorf("the entry is not in the tree of the head: %w", err)
	}
	return p, h, nil
}
