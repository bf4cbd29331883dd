package wire

import (
	"bytes"
	"compress/gzip"
	_ "embed" // for Dictionary
	"fmt"
	"io"

	"github.com/klauspost/compress/zstd"
)

// Dictionary is the zstd dictionary of this version of the wire (RFC 8878 section
// 5): small payloads are packed with it, and say so by its id. A gate whose link
// bills by the byte sends single entries most of the time.
//
//go:embed dictionary.zdict
var Dictionary []byte

// small payloads gain from the dictionary; larger ones hold all that is in it.
const small = 8 << 10

// Compressor packs payloads with zstd. It keeps its buffers between calls and is
// for one caller at a time.
type Compressor struct{ enc, dict *zstd.Encoder }

// NewCompressor makes a compressor for small machines: window is the number of
// bytes it looks back, a power of two from 1 KiB; 0 = 256 KiB.
func NewCompressor(window int) (*Compressor, error) {
	if window == 0 {
		window = 256 << 10
	}
	// On full batches the fastest level is no larger than the next one, and takes half its
	// time, for which a lane may wait: see BenchmarkBatch.
	enc, err := zstd.NewWriter(nil, zstd.WithEncoderConcurrency(1), zstd.WithLowerEncoderMem(true),
		zstd.WithWindowSize(window), zstd.WithEncoderLevel(zstd.SpeedFastest), zstd.WithEncoderCRC(false))
	if err != nil {
		return nil, fmt.Errorf("cannot set up compression: %w", err)
	}
	dict, err := zstd.NewWriter(nil, zstd.WithEncoderConcurrency(1), zstd.WithLowerEncoderMem(true),
		zstd.WithWindowSize(2*small), zstd.WithEncoderLevel(zstd.SpeedBetterCompression), zstd.WithEncoderCRC(false), zstd.WithEncoderDict(Dictionary))
	if err != nil {
		return nil, fmt.Errorf("cannot set up compression: %w", err)
	}
	return &Compressor{enc, dict}, nil
}

// WithoutDictionary has small payloads packed as large ones are, for a receiver that
// cannot be given Dictionary: a single entry takes about 700 bytes then.
func (c *Compressor) WithoutDictionary() *Compressor {
	c.dict = c.enc
	return c
}

// Pack appends the compressed payload to dst.
func (c *Compressor) Pack(dst, payload []byte) []byte {
	if len(payload) <= small {
		return c.dict.EncodeAll(payload, dst)
	}
	return c.enc.EncodeAll(payload, dst)
}

// decoder is safe for concurrent DecodeAll, which is all that it is used for.
var decoder = func() *zstd.Decoder {
	d, err := zstd.NewReader(nil, zstd.WithDecoderConcurrency(0), zstd.WithDecoderLowmem(true), zstd.WithDecoderMaxMemory(MaxBatch), zstd.WithDecoderDicts(Dictionary))
	if err != nil {
		panic(err) // the options are constants
	}
	return d
}()

// Expand gives the plain payload: what begins with '{' is plain, 1f 8b is gzip,
// 28 b5 2f fd is zstd, with Dictionary where the frame names it. It refuses what would expand to more than limit bytes.
func Expand(payload []byte, limit int) ([]byte, error) {
	switch {
	case len(payload) > 0 && payload[0] == '{':
		if len(payload) > limit {
			return nil, fmt.Errorf("%w: payload of %d bytes, at most %d are accepted", ErrMalformed, len(payload), limit)
		}
		return payload, nil
	case bytes.HasPrefix(payload, []byte{0x28, 0xb5, 0x2f, 0xfd}):
		var out []byte
		var h zstd.Header
		if err := h.Decode(payload); err == nil && h.HasFCS {
			if h.FrameContentSize > uint64(limit) {
				return nil, fmt.Errorf("%w: zstd payload expands to more than %d bytes", ErrMalformed, limit)
			}
			out = make([]byte, 0, h.FrameContentSize)
		}
		out, err := decoder.DecodeAll(payload, out)
		switch {
		case err != nil:
			return nil, fmt.Errorf("%w: zstd: %w", ErrMalformed, err)
		case len(out) > limit:
			return nil, fmt.Errorf("%w: zstd payload expands to more than %d bytes", ErrMalformed, limit)
		}
		return out, nil
	case bytes.HasPrefix(payload, []byte{0x1f, 0x8b}):
		z, err := gzip.NewReader(bytes.NewReader(payload))
		if err != nil {
			return nil, fmt.Errorf("%w: gzip: %w", ErrMalformed, err)
		}
		return readLimited(z, limit, "gzip")
	}
	return nil, fmt.Errorf("%w: payload is neither JSON nor gzip nor zstd", ErrMalformed)
}

func readLimited(r io.Reader, limit int, what string) ([]byte, error) {
	out, err := io.ReadAll(io.LimitReader(r, int64(limit)+1))
	if err != nil {
		return nil, fmt.Errorf("%w: %s: %w", ErrMalformed, what, err)
	}
	if len(out) > limit {
		return nil, fmt.Errorf("%w: %s payload expands to more than %d bytes", ErrMalformed, what, limit)
	}
	return out, nil
}
