package config

import (
	"net"
	"strings"
	"testing"
	"time"

	"gatehouse/edge"
	firmwareconfig "gatehouse/firmware-config"
)

func TestSamplesLoad(t *testing.T) {
	page, err := firmwareconfig.Samples.ReadFile("first-gate.md")
	if err != nil {
		t.Fatal(err)
	}
	for _, name := range []string{"gate.yaml", "gate-no-hardware.yaml"} {
		src, err := firmwareconfig.Samples.ReadFile(name)
		if err != nil {
			t.Fatal(err)
		}
		g, err := Parse("/etc/gatehouse/"+name, src)
		if err != nil {
			t.Errorf("%s: %v", name, err)
			continue
		}
		if g.Policy != "/etc/gatehouse/policies/closed-estate.yaml" {
			t.Errorf("%s: policy is at %s", name, g.Policy)
		}
		// The page that a newcomer follows: enrolling brings the server, and the console
		// is where it says.
		if err := g.MayEnrol(); err != nil || g.Sync.URL != "" {
			t.Errorf("%s: %v, sync.url %q", name, err, g.Sync.URL)
		}
		host, port, err := net.SplitHostPort(g.Console.Listen)
		if at := "https://GATE:" + port + "/"; err != nil || host != "" || !strings.Contains(string(page), at) {
			t.Errorf("%s: the console listens on %s, and the page does not say %s", name, g.Console.Listen, at)
		}
		if l := g.Lanes[0]; l.Measure != 8*time.Second || l.OnTimeout["resident"] != edge.Refer || l.OnTimeout["default"] != edge.Deny {
			t.Errorf("%s: defaults of the first lane: %+v", name, l)
		}
	}
}

const good = `community: c
site: s
gate: g
policy: p.yaml
passages:
  - {name: main, barrier: none}
lanes:
  - {name: in, passage: main, direction: in, scanner: console, thermometer: typed}
`

func TestGood(t *testing.T) {
	if _, err := Parse("g.yaml", []byte(good)); err != nil {
		t.Fatal(err)
	}
}

// A server that gate.yaml names goes before the one of an enrolment: then there is
// no sense in enrolling, unless its certificate is the enrolment's.
func TestMayEnrol(t *testing.T) {
	for sync, may := range map[string]bool{
		"":                    true,
		"sync: {window: 2}\n": true,
		"sync: {url: 'mqtts://b:8883', trust: keys/trust.txt}\n":                                                                            false,
		"sync: {url: 'mqtts://b:8883', trust: t, ca: c, cert: keys/gate.pem, key: keys/gate.key}\n":                                         false,
		"state: /s\nsync: {url: 'mqtts://b:8883', trust: /s/keys/trust, ca: /s/keys/ca.pem, cert: /s/keys/tls.pem, key: /s/keys/tls.pem}\n": true,
	} {
		g, err := Parse("g.yaml", []byte(good+sync))
		if err != nil {
			t.Fatal(err)
		}
		if err := g.MayEnrol(); (err == nil) != may {
			t.Errorf("%q: %v", sync, err)
		} else if err != nil && (!strings.Contains(err.Error(), "g.yaml") || !strings.Contains(err.Error(), "sync.url")) {
			t.Errorf("%q: %v does not say what to do", sync, err)
		}
	}
}

func TestErrors(t *testing.T) {
	for _, c := range []struct{ name, from, to, want string }{
		{"unknown key", "gate: g", "gate: g\ngaet: h", `g.yaml:4:1: unknown key "gaet", did you mean "gate"?`},
		{"lane's unknown key", "direction: in,", "direction: in, scaner: none,", `did you mean "scanner"?`},
		{"missing", "site: s\n", "", `site: must be given`},
		{"id", "gate: g", "gate: East Gate", `gate: "East Gate" must be of a-z`},
		{"passage", "passage: main", "passage: mian", `no passage is called "mian", did you mean "main"?`},
		{"direction", "direction: in", "direction: up", `"up" is not one of in, out`},
		{"a display's language", "site: s", "site: s\nlanguages: [en, de]", `"de" is not one of the display's languages: zh-Hans, en, ja`},
		{"a language twice", "site: s", "site: s\nlanguages: [en, ko, en]", `"en" is there twice`},
		{"zone", "site: s", "site: s\ntimezone: Bejing", `"Bejing" is not a time zone's name`},
		{"no barrier", "{name: main, barrier: none}", "{name: main}", `barrier: must be given`},
		{"barrier word", "barrier: none", "barrier: relay", `"relay" is neither a mapping with a driver nor none`},
		{"no driver", "barrier: none", "barrier: {pin: GPIO1}", `driver: must be given`},
		{"unit", "gate: g", "gate: g\ndefaults: {measure_timeout: 8}", `want a duration with a unit`},
		{"impossible", "gate: g", "gate: g\njournal: {retention: 9000h}", `is not between 0 and 672h`},
		{"own home", "thermometer: typed", "thermometer: typed, refer_timeout_outcome: {resident: deny}", `a resident's own home never times out to deny`},
		{"two users", "scanner: console, thermometer: typed", "scanner: {driver: rdm6300, port: /dev/ttyX}, thermometer: {driver: gy-mcu90614, port: /dev/ttyX}",
			`/dev/ttyX is used by the scanner of lane in already (line 8)`},
		{"password in URL", "gate: g", "gate: g\nsync: {url: 'mqtt://u:p@h:1', trust: t}", `no user name or password here`},
		{"no trust", "gate: g", "gate: g\nsync: {url: 'mqtt://h:1'}", `trust: must be given`},
		{"clock's battery", "gate: g", "gate: g\nclock: {battery: full}", `clock.battery`},
		{"no lanes", "lanes:", "lanes: []\nbuses:", `a gate has at least one lane`},
	} {
		t.Run(c.name, func(t *testing.T) {
			src := strings.Replace(good, c.from, c.to, 1)
			if src == good {
				t.Fatal("the case changes nothing")
			}
			_, err := Parse("g.yaml", []byte(src))
			if err == nil || !strings.Contains(err.Error(), c.want) {
				t.Errorf("error %v\nwant %q in it", err, c.want)
			}
			if err != nil && !strings.Contains(err.Error(), "g.yaml:") {
				t.Errorf("no file and line in %v", err)
			}
		})
	}
}
