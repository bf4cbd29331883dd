// Package law knows which package of the house may import which. Its test
// reads the import graph of the module and fails on any other arrow.
//
//	device <- edge <- sync <- cmd
//
// The roots of device and edge hold words; a room imports words, not another
// room, but for the exceptions listed here.
package law

import "strings"

const module = "gatehouse"

// exceptions are the arrows from room to room that are allowed: the importing
// room (or a folder that ends with a slash) to the imported.
var exceptions = map[string][]string{
	"device/":        {"device/bus", "device/options", "device/scan"}, // drivers and sim
	"device/catalog": {"device/"},                                     // the one table of drivers
	"edge/":          {"edge/clock", "edge/durable", "edge/sqlite", "edge/text", "edge/bundle", "edge/roster"},
	"edge/lane":      {"edge/policy"},
	"edge/bundle":    {"edge/policy"},
	"edge/policy":    {"device/options"},
	"sync/":          {"edge/clock", "edge/durable", "edge/sqlite", "edge/text", "edge/bundle", "edge/roster"},
	"sync/uplink":    {"sync/wire"},
	"sync/downlink":  {"sync/wire"},
	"sync/enrol":     {"sync/wire"},
	"sync/community": {"sync/wire", "edge/policy"},

	"sync/wire/wiretest": {"sync/wire"},
}

// testExceptions are allowed in test files besides.
var testExceptions = map[string][]string{
	"device/":         {"device/devicetest", "device/sim", "device/thermometry"},
	"edge/":           {"device/devicetest", "device/sim"},
	"sync/":           {"device/devicetest", "device/sim", "sync/broker", "sync/wire/wiretest"},
	"device/options":  {},
	"firmware-config": {"device/", "edge/", "cmd/internal/"},
}

// owners are the packages outside the module that only the named rooms may
// import, tests aside.
var owners = map[string][]string{
	"github.com/eclipse/paho.mqtt.golang": {"sync/mqtt"},
	"github.com/tarm/serial":              {"device/bus"},
	"modernc.org/sqlite":                  {"edge/sqlite"},
	"github.com/nats-io/nats-server/v2":   {"sync/broker"},
}

// Violation says why from may not import to, or is empty when it may. Paths
// are full import paths; test marks an import of a test file.
func Violation(from, to string, test bool) string {
	f := strings.TrimPrefix(strings.TrimPrefix(from, module), "/")
	if to != module && !strings.HasPrefix(to, module+"/") {
		for pkg, rooms := range owners {
			if (to == pkg || strings.HasPrefix(to, pkg+"/")) && !test && !matches(f, rooms) {
				return "only " + strings.Join(rooms, ", ") + " may import " + pkg
			}
		}
		return ""
	}
	t := strings.TrimPrefix(strings.TrimPrefix(to, module), "/")
	if f == t || inRoom(f, t) || inRoom(t, f) {
		return ""
	}
	if test && allowed(f, t, testExceptions) {
		return ""
	}
	rank := map[string]int{"device": 0, "edge": 1, "sync": 2, "cmd": 3}
	froot, _, _ := strings.Cut(f, "/")
	troot, _, _ := strings.Cut(t, "/")
	fr, fok := rank[froot]
	tr, tok := rank[troot]
	switch {
	case t == "firmware-config":
		if froot == "cmd" || test {
			return ""
		}
		return "only cmd embeds the samples"
	case f == "firmware-config" && !test:
		return "firmware-config holds data, no code"
	case !fok || !tok:
		return "the top level has no such folder"
	case tr > fr:
		return "arrows run device <- edge <- sync <- cmd"
	case froot == "cmd":
		return ""
	case t == "device" || t == "edge":
		return ""
	case allowed(f, t, exceptions):
		return ""
	}
	return "a room imports words, not another room"
}

// inRoom reports whether path lies within a room, which may have folders of its
// own: device, edge, sync and cmd themselves are no rooms.
func inRoom(path, room string) bool {
	return strings.Count(room, "/") > 0 && strings.HasPrefix(path, room+"/")
}

func allowed(from, to string, table map[string][]string) bool {
	for room, may := range table {
		if matches(from, []string{room}) && matches(to, may) {
			return true
		}
	}
	return false
}

// matches reports whether path is one of the rooms; a room that ends with a
// slash stands for everything below it.
func matches(path string, rooms []string) bool {
	for _, r := range rooms {
		if path == r || (strings.HasSuffix(r, "/") && strings.HasPrefix(path, r)) {
			return true
		}
	}
	return false
}
