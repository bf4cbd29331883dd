package community

import (
	"bytes"
	"fmt"

	"github.com/klauspost/compress/zstd"

	"gatehouse/edge"
)

// maxBlock bounds what a stored block may unpack to.
const maxBlock = edge.BlockSize * (edge.MaxLine + 1)

// The coders keep their buffers between calls and are safe for concurrent
// EncodeAll and DecodeAll; they hold no goroutine and no other state.
var (
	encoder = must(zstd.NewWriter(nil, zstd.WithEncoderLevel(zstd.SpeedFastest), zstd.WithEncoderConcurrency(2)))
	decoder = must(zstd.NewReader(nil, zstd.WithDecoderConcurrency(2), zstd.WithDecoderMaxMemory(maxBlock)))
)

func must[T any](v T, err error) T {
	if err != nil {
		panic(err) // the options are constants
	}
	return v
}

// pack compresses lines, each with its newline.
func pack(lines []byte) []byte { return encoder.EncodeAll(lines, nil) }

// unpack appends what pack was given.
func unpack(dst, data []byte) ([]byte, error) {
	out, err := decoder.DecodeAll(data, dst)
	if err != nil {
		return nil, fmt.Errorf("cannot unpack a block: %w", err)
	}
	return out, nil
}

// split cuts unpacked lines apart, without their newlines.
func split(lines []byte) [][]byte {
	out := make([][]byte, 0, edge.BlockSize)
	for len(lines) > 0 {
		i := bytes.IndexByte(lines, '\n')
		if i < 0 {
			return append(out, lines)
		}
		out = append(out, lines[:i])
		lines = lines[i+1:]
	}
	return out
}
