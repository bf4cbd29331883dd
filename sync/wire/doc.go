// Package wire holds what goes between a gate and the community server: topics,
// messages and their encodings. It is pure: bytes in, values out.
//
// Payloads are JSON; a journal batch is newline-delimited JSON. Any of them may
// be compressed, and its first bytes say how (see [Expand]). What the server
// says is signed: receipts by a C2SP cosignature on the gate's own tree head,
// refusals and everything else by the envelope.
//
// # Versions
//
// The v1 in the topic stands for what a receiver must understand. Within v1,
// fields and kinds may be added; readers ignore fields and keep entries they do
// not know. Whatever an old receiver would misread needs a v2 topic.
package wire

import "errors"

// Version is the v of every message of this package.
const Version = 1

// Limits on what is accepted; the sizes are of the expanded payload in bytes.
const (
	MaxBatch   = 8 << 20 // of a batch
	MaxEntries = 8192    // entries in a batch
	MaxMessage = 1 << 20 // of any other message
	MaxChunk   = 8 << 20 // of a registry chunk, packed or not
)

// ErrMalformed is wrapped by every error about the shape of a payload.
var ErrMalformed = errors.New("malformed")
