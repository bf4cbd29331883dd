// Package wiretest checks messages against the wire's published schemas, for the
// tests of whoever sends them.
package wiretest

import (
	"bytes"
	"encoding/json"
	"fmt"

	"github.com/goccy/go-yaml"
	"github.com/santhosh-tekuri/jsonschema/v6"

	"gatehouse/edge/bundle"
	"gatehouse/sync/wire"
)

const document = "https://gatehouse.invalid/asyncapi.json"

// Schemas are the compiled schemas of the AsyncAPI document.
type Schemas struct{ c *jsonschema.Compiler }

// New compiles the document.
func New() (*Schemas, error) {
	text, err := yaml.YAMLToJSON(wire.AsyncAPI)
	if err != nil {
		return nil, fmt.Errorf("cannot read the AsyncAPI document: %w", err)
	}
	doc, err := jsonschema.UnmarshalJSON(bytes.NewReader(text))
	if err != nil {
		return nil, fmt.Errorf("cannot read the AsyncAPI document: %w", err)
	}
	c := jsonschema.NewCompiler()
	c.DefaultDraft(jsonschema.Draft2020)
	if err := c.AddResource(document, doc); err != nil {
		return nil, err
	}
	return &Schemas{c}, nil
}

// Check validates JSON against one of the document's schemas.
func (s *Schemas) Check(schema string, text []byte) error {
	sch, err := s.c.Compile(document + "#/components/schemas/" + schema)
	if err != nil {
		return err
	}
	v, err := jsonschema.UnmarshalJSON(bytes.NewReader(text))
	if err != nil {
		return fmt.Errorf("%s: %w", schema, err)
	}
	if err := sch.Validate(v); err != nil {
		return fmt.Errorf("%s %.2000s: %w", schema, text, err)
	}
	return nil
}

// bodies are the schemas within envelopes.
var bodies = map[string]string{wire.TypeManifest: "manifest", wire.TypePeers: "peers", wire.TypeCommand: "command"}

// Payload validates what was published on a topic, compressed or not, with every
// line of a batch and the body of an envelope. Chunks are encrypted and pass.
func (s *Schemas) Payload(topic string, payload []byte) error {
	_, gate, c, err := wire.ParseTopic(topic)
	if err != nil {
		return err
	}
	switch gate {
	case "registry":
		return nil
	case "policy":
		_, err := bundle.Peek(payload)
		return err
	}
	text, err := wire.Expand(payload, wire.MaxBatch)
	if err != nil {
		return err
	}
	switch {
	case gate == "enrol":
		return s.Check("enrol", text)
	case c == wire.Manifest, c == wire.Peers, c == wire.Commands:
		if err := s.Check("envelope", text); err != nil {
			return err
		}
		var e wire.Envelope
		if err := json.Unmarshal(text, &e); err != nil {
			return err
		}
		if body, ok := bodies[e.Type]; ok {
			return s.Check(body, e.Body)
		}
		return nil
	case c == wire.Journal:
		schema := "header"
		for line := range bytes.Lines(text) {
			if err := s.Check(schema, bytes.TrimSuffix(line, []byte{'\n'})); err != nil {
				return err
			}
			schema = "entry"
		}
		return nil
	}
	return s.Check(string(c), text)
}
