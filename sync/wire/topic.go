package wire

import (
	"fmt"
	"strings"
	"unicode"
)

// Channel is the last level of a topic of one gate.
type Channel string

const (
	Status   Channel = "status"   // gate: retained, last will
	Journal  Channel = "journal"  // gate: a batch of entries
	Receipts Channel = "receipt"  // server: what is stored, or why not
	Alerts   Channel = "alert"    // gate: something a person should look at now
	Requests Channel = "request"  // gate: what it has, and a nonce
	Manifest Channel = "manifest" // server: what it needs
	Peers    Channel = "peer"     // server: deltas of the site's other gates
	Commands Channel = "command"  // server: something to do once
	Results  Channel = "result"   // gate: what became of a command
)

const prefix = "gatehouse/v1/"

// Topic is the topic of one channel of one gate. "+" for site or gate makes a
// subscription.
func Topic(site, gate string, c Channel) string {
	return prefix + site + "/" + gate + "/" + string(c)
}

// RegistryTopic is where a chunk with this hash is published, for the whole site.
func RegistryTopic(site, hash string) string { return prefix + site + "/registry/" + hash }

// PolicyTopic is where a policy bundle with this hash is published.
func PolicyTopic(site, hash string) string { return prefix + site + "/policy/" + hash }

// ParseTopic splits what Topic made. The chunks' topics have the same shape:
// there the gate is "registry" or "policy", and the channel is the hash.
func ParseTopic(topic string) (site, gate string, c Channel, err error) {
	rest, ok := strings.CutPrefix(topic, prefix)
	parts := strings.Split(rest, "/")
	if !ok || len(parts) != 3 {
		return "", "", "", fmt.Errorf("%w: topic %.200q is not one of ours", ErrMalformed, topic)
	}
	for _, p := range parts {
		if err := CheckName(p); err != nil {
			return "", "", "", err
		}
	}
	return parts[0], parts[1], Channel(parts[2]), nil
}

// CheckName says whether a site's, gate's or key's name can stand in a topic and
// in a log's origin.
func CheckName(name string) error {
	if name == "" || len(name) > 100 {
		return fmt.Errorf("%w: name %.100q must have 1 to 100 bytes", ErrMalformed, name)
	}
	for _, r := range name {
		if r == '/' || r == '+' || r == '#' || r == unicode.ReplacementChar || unicode.IsSpace(r) || unicode.IsControl(r) {
			return fmt.Errorf("%w: name %.100q holds %q", ErrMalformed, name, r)
		}
	}
	return nil
}

// CheckGate is CheckName for gates, which must not have one of the names that
// topics give another meaning.
func CheckGate(name string) error {
	switch name {
	case "registry", "policy", "enrol":
		return fmt.Errorf("%w: %q cannot be a gate's name", ErrMalformed, name)
	}
	return CheckName(name)
}
