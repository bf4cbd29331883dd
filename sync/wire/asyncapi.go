package wire

import _ "embed" // the document

// AsyncAPI is the machine-readable form of this package: an AsyncAPI 3 document
// with a JSON Schema (2020-12) for every message.
//
//go:embed asyncapi.yaml
var AsyncAPI []byte
