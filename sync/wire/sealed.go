package wire

import (
	"bytes"
	"cmp"
	"fmt"
	"io"
	"slices"

	"gatehouse/edge"
)

// HeaderSealed is an edge.Sealed. It may begin before the batch and end after it,
// where another batch has the rest.
type HeaderSealed struct {
	First  uint64 `json:"first"`
	Leaves []byte `json:"leaves"` // leaf hashes, 32 bytes each
	Data   []byte `json:"data"`   // age, to the community's key
}

// MaxSealed bounds Data and, opened, what is in it.
const MaxSealed = 128 << 10

const leafSize = 32

// SealedHeader makes the form that travels.
func SealedHeader(s edge.Sealed) HeaderSealed {
	x := HeaderSealed{First: s.First, Data: s.Data}
	for _, l := range s.Leaves {
		x.Leaves = append(x.Leaves, l[:]...)
	}
	return x
}

// End is the sequence after the run.
func (x *HeaderSealed) End() uint64 { return x.First + uint64(len(x.Leaves)/leafSize) }

// Run is the run itself.
func (x *HeaderSealed) Run() edge.Sealed {
	s := edge.Sealed{First: x.First, Data: x.Data}
	for l := range slices.Chunk(x.Leaves, leafSize) {
		s.Leaves = append(s.Leaves, [leafSize]byte(l))
	}
	return s
}

func (b *Batch) checkSealed() error {
	for i := range b.Sealed {
		x := &b.Sealed[i]
		if len(x.Leaves) == 0 || len(x.Leaves)%leafSize != 0 || len(x.Leaves) > leafSize*edge.BlockSize || len(x.Data) == 0 || len(x.Data) > MaxSealed || x.First > 1<<62 ||
			x.End() <= b.First || x.First >= b.First+b.Count || i > 0 && x.First < b.Sealed[i-1].End() {
			return fmt.Errorf("%w: sealed runs must hold entries of the batch, in order", ErrMalformed)
		}
	}
	return nil
}

// sealed finds the run that holds an entry; nil when none does.
func (b *Batch) sealed(seq uint64) *HeaderSealed {
	for i := range b.Sealed {
		if x := &b.Sealed[i]; seq >= x.First && seq < x.End() {
			return x
		}
	}
	return nil
}

// skip leaves the places of sealed entries empty.
func (b *Batch) skip() {
	for n := uint64(len(b.Lines)); n < b.Count && b.sealed(b.First+n) != nil; n++ {
		b.Lines = append(b.Lines, nil)
	}
}

// Unseal puts the entries of sealed runs in their places. open decrypts, up to
// limit bytes. Afterwards every entry has its line, and the sealed ones a blind.
func (b *Batch) Unseal(open func(data io.Reader, limit int64) ([]byte, error)) error {
	for i := range b.Sealed {
		x := &b.Sealed[i]
		plain, err := open(bytes.NewReader(x.Data), MaxSealed)
		if err != nil {
			return fmt.Errorf("cannot open the sealed entries from %d on: %w", x.First, err)
		}
		run := x.Run()
		entries, err := run.Check(plain)
		if err != nil {
			return fmt.Errorf("%w: %w", ErrMalformed, err)
		}
		for _, e := range entries {
			if e.Seq >= b.First && e.Seq < b.First+b.Count {
				b.Lines[e.Seq-b.First] = e.Line
				b.Blinds = append(b.Blinds, HeaderBlind{e.Seq, e.Blind[:]})
			}
		}
	}
	slices.SortFunc(b.Blinds, func(x, y HeaderBlind) int { return cmp.Compare(x.Seq, y.Seq) })
	b.Sealed = nil
	return nil
}
