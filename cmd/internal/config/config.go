// Package config reads gate.yaml: what one gate is, how it is wired, and whom
// it talks to. It is strict (see device/options) and checks everything that
// can be known without opening a device; drivers check their own options when
// cmd/internal/app builds them.
package config

import (
	"errors"
	"fmt"
	"net"
	"net/url"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"time"

	"gatehouse/device"
	"gatehouse/device/options"
	"gatehouse/edge"
)

// Gate is the whole of gate.yaml.
type Gate struct {
	Community string            `yaml:"community"` // name of the community server's realm, part of every log's origin
	Site      string            `yaml:"site"`
	Gate      string            `yaml:"gate"` // unique in its site
	Name      string            `yaml:"name"` // for people; the gate's id when empty
	Level     edge.Level        `yaml:"level"`
	Area      string            `yaml:"area"`
	Areas     map[string]string `yaml:"areas"`     // what areas are called, for people
	Timezone  string            `yaml:"timezone"`  // IANA name
	Language  string            `yaml:"language"`  // of the site: BCP 47
	Languages []string          `yaml:"languages"` // of the resident's display, in their order; the site's, Chinese and English when empty
	State     string            `yaml:"state"`     // folder of the databases and keys
	Policy    string            `yaml:"policy"`    // file in force until the server sends one
	Superior  []string          `yaml:"superior"`  // policies above it, the highest first
	Keys      Keys              `yaml:"keys"`

	Clock   Clock   `yaml:"clock"`
	Sync    Sync    `yaml:"sync"`
	Console Console `yaml:"console"`
	Metrics Metrics `yaml:"metrics"`
	Backup  Backup  `yaml:"backup"`

	Journal   Journal                 `yaml:"journal"`
	Buses     map[string]options.Node `yaml:"buses"`
	Defaults  Lane                    `yaml:"defaults"`
	Passages  []Passage               `yaml:"passages"`
	LaneNodes []options.Node          `yaml:"lanes"`

	Lanes []Lane `yaml:"-"`

	Location *time.Location `yaml:"-"`
	Enrolled *Enrolled      `yaml:"-"` // nil = the community server has not approved this device
	ownSync  bool           // gate.yaml itself names the server
	file     string
	dir      string // its folder, absolute
}

// Keys names the files of the site's secrets.
type Keys struct {
	Site string `yaml:"site"` // the site key for stored credentials; made on first start when absent and no server is configured
	// Inspectors is a file of keys, as in sync.trust, of authorities whose inspectors
	// may read this gate's console, beside those that may sign policies from above.
	Inspectors string `yaml:"inspectors"`
}

// Clock is what is known of the machine's clock.
type Clock struct {
	// Battery says that it runs on without power and was set: its time is as good as NTP's.
	Battery bool `yaml:"battery"`
}

// Sync is the way to the community server. An empty URL is a gate on its own.
type Sync struct {
	URL      string        `yaml:"url"` // mqtt://host:1883, mqtts://host:8883
	Username string        `yaml:"username"`
	Password string        `yaml:"password_file"` // path of a file, never the password
	CA       string        `yaml:"ca"`
	Cert     string        `yaml:"cert"`
	Key      string        `yaml:"key"`
	Trust    string        `yaml:"trust"` // file with the server's public keys
	Batch    int           `yaml:"batch"` // entries in a batch
	Bytes    int           `yaml:"batch_bytes"`
	Age      time.Duration `yaml:"batch_age"` // a batch is not held back longer
	Window   int           `yaml:"window"`    // batches in flight
	Resend   time.Duration `yaml:"resend_after"`
	Keep     time.Duration `yaml:"keepalive"`
	// Dictionary packs small messages with the published dictionary; false for a server
	// whose zstd cannot be given one.
	Dictionary bool `yaml:"dictionary"`

	// For a link that bills by the byte.
	Rate  int    `yaml:"rate"`  // bytes of batches in a second, on average; 0 = as fast as it goes
	Burst int    `yaml:"burst"` // bytes that may go at once after a rest; 0 = those of a minute
	Quiet string `yaml:"quiet"` // hours without batches, "08:00-22:30", may span midnight; alerts go at once

	QuietFrom, QuietTo int `yaml:"-"` // Quiet in minutes of the day; equal = none
}

// Console is the guard's web face.
type Console struct {
	Listen string `yaml:"listen"` // host:port; empty = no console
	Cert   string `yaml:"cert"`   // own certificate; made on first start when empty
	Key    string `yaml:"key"`
	// FirstCode is a file beside the one in the state folder for the code that sets
	// up the first manager, on the boot partition for example.
	FirstCode string `yaml:"first_code_file"`
	// Names are the gate's in the site's DNS, beside its host name, for its own certificate.
	Names  []string       `yaml:"names"`
	Tips   string         `yaml:"tips"`   // file of what an idle display tells, by language
	Volume map[string]int `yaml:"volume"` // of the display's voice, percent, from a time of day on: {"07:00": 80, "21:00": 35}
	// Plain serves without TLS; only for listening on the machine itself.
	Plain bool `yaml:"plain"`
}

// Metrics is where a monitoring system asks how the gate is: /metrics and /healthz.
type Metrics struct {
	Listen string `yaml:"listen"` // host:port; empty = nowhere
}

// Backup is where the nightly backup goes.
type Backup struct {
	// To is a folder on another medium than the gate's own: a USB stick, a share. Empty is
	// a folder beside the state, which dies with it.
	To   string `yaml:"to"`
	Keep int    `yaml:"keep"` // so many of this gate's stay; 0 = all
}

// Journal says how long things are kept and how long a commit may take.
type Journal struct {
	Retention time.Duration `yaml:"retention"`           // of the content of entries about persons
	Technical time.Duration `yaml:"retention_technical"` // of entries that say nothing about a person, when longer
	Deadline  time.Duration `yaml:"commit_deadline"`     // after it the lane takes the safe side
}

// Passage is an opening with its barrier.
type Passage struct {
	Name     string        `yaml:"name"`
	Barrier  options.Node  `yaml:"barrier"` // "none" or a driver
	Beam     options.Node  `yaml:"beam"`
	Door     options.Node  `yaml:"door"`
	Fire     options.Node  `yaml:"fire"`
	Tamper   options.Node  `yaml:"tamper"`
	Exit     options.Node  `yaml:"exit_button"`
	Position options.Node  `yaml:"position"` // a boom's position contact
	OpenFor  time.Duration `yaml:"open_for"` // how long an admitted person has to pass
	HeldOpen time.Duration `yaml:"held_open_after"`
	node     options.Node
}

// Lane is one way through a passage.
type Lane struct {
	Name        string                  `yaml:"name"`
	Label       string                  `yaml:"label"` // for people
	Passage     string                  `yaml:"passage"`
	Direction   device.Direction        `yaml:"direction"`
	Area        string                  `yaml:"area"` // the gate's when empty
	Scanner     options.Node            `yaml:"scanner"`
	Scanners    []options.Node          `yaml:"scanners"`
	Thermometer options.Node            `yaml:"thermometer"` // a driver, "typed" or "none"
	Indicator   options.Node            `yaml:"indicator"`
	Call        options.Node            `yaml:"call_button"`
	Panel       options.Node            `yaml:"panel"` // the guard's buttons
	Order       string                  `yaml:"order"` // card_first, temperature_first, either
	Present     time.Duration           `yaml:"presentation_timeout"`
	Measure     time.Duration           `yaml:"measure_timeout"`
	Refer       time.Duration           `yaml:"refer_timeout"`
	Parked      time.Duration           `yaml:"parked_timeout"`
	Second      time.Duration           `yaml:"second_post_after"` // an unanswered call rings there too
	Held        time.Duration           `yaml:"held_card"`         // reads of the same card within it are one
	Remeasures  int                     `yaml:"remeasures"`
	Queue       int                     `yaml:"queue"`
	OnTimeout   map[string]edge.Outcome `yaml:"refer_timeout_outcome"` // by category; "" is not a key, "default" is
	node        options.Node
}

// Default returns what holds where gate.yaml is silent.
func Default() Gate {
	return Gate{
		Level: edge.LevelEstate, Timezone: "Asia/Shanghai", Language: "zh-Hans", State: "/var/lib/gatehouse",
		Sync:    Sync{Batch: 1024, Bytes: 200 << 10, Age: 500 * time.Millisecond, Window: 4, Resend: 30 * time.Second, Keep: 30 * time.Second, Dictionary: true},
		Console: Console{Listen: "127.0.0.1:8443"},
		Backup:  Backup{Keep: 7},
		Journal: Journal{Retention: 14 * 24 * time.Hour, Technical: 90 * 24 * time.Hour, Deadline: 2 * time.Second},
		Defaults: Lane{Order: "card_first", Present: 30 * time.Second, Measure: 8 * time.Second, Refer: 2 * time.Minute, Parked: 30 * time.Minute, Second: 30 * time.Second,
			Held: 3 * time.Second, Remeasures: 2, Queue: 8, OnTimeout: map[string]edge.Outcome{"default": edge.Deny, "resident": edge.Refer}},
	}
}

// Load reads and checks a file. All that is wrong comes in one error.
func Load(path string) (*Gate, error) {
	src, err := os.ReadFile(path)
	if err != nil {
		return nil, fmt.Errorf("cannot read the configuration: %w", err)
	}
	g, err := Parse(path, src)
	if err != nil {
		return nil, err
	}
	return g, g.readEnrolled()
}

var (
	id    = regexp.MustCompile(`^[a-z0-9][a-z0-9._-]{0,62}$`)
	place = regexp.MustCompile(`^(/[A-Za-z0-9._-]+)+$`)
)

// Parse reads and checks the text of a gate.yaml. Relative paths in it are
// taken from the file's folder.
func Parse(path string, src []byte) (*Gate, error) {
	root, err := options.Parse(path, src)
	if err != nil {
		return nil, err
	}
	g := Default()
	g.file = path
	if g.dir, err = filepath.Abs(filepath.Dir(path)); err != nil {
		return nil, fmt.Errorf("cannot tell where %s is: %w", path, err)
	}
	errs := []error{root.Decode(&g)}
	bad := func(n options.Node, format string, args ...any) { errs = append(errs, n.Errorf(format, args...)) }

	for _, c := range []struct{ key, val string }{{"community", g.Community}, {"site", g.Site}, {"gate", g.Gate}} {
		switch {
		case c.val == "":
			bad(root.At(c.key), "must be given")
		case !id.MatchString(c.val):
			bad(root.At(c.key), "%q must be of a-z, 0-9, dot, dash and underscore, at most 63 (it becomes part of topics and of the log's name)", c.val)
		}
	}
	if g.Name == "" {
		g.Name = g.Gate
	}
	if loc, err := time.LoadLocation(g.Timezone); err != nil || g.Timezone == "" {
		bad(root.At("timezone"), "%q is not a time zone's name (want one like Asia/Shanghai)", g.Timezone)
	} else {
		g.Location = loc
	}
	oneOf(&errs, root.At("level"), string(g.Level), string(edge.LevelEstate), string(edge.LevelBuilding), string(edge.LevelHousehold))
	if g.Policy == "" {
		bad(root.At("policy"), "must be given: the file with the rules in force until the server sends some")
	}
	g.Policy = g.abs(g.Policy)
	for i := range g.Superior {
		g.Superior[i] = g.abs(g.Superior[i])
	}
	for _, p := range []*string{&g.State, &g.Keys.Site, &g.Sync.Password, &g.Sync.CA, &g.Sync.Cert, &g.Sync.Key, &g.Sync.Trust, &g.Console.Cert, &g.Console.Key, &g.Console.Tips, &g.Console.FirstCode, &g.Keys.Inspectors} {
		*p = g.credential(g.abs(*p))
	}
	g.ownSync = g.Sync.URL != ""
	g.checkSync(root.At("sync"), &errs)
	g.checkDisplay(root.At("console"), &errs)
	g.checkConsole(root.At("console"), &errs)
	if g.Metrics.Listen != "" {
		if _, _, err := net.SplitHostPort(g.Metrics.Listen); err != nil {
			bad(root.At("metrics").At("listen"), "%q is not host:port", g.Metrics.Listen)
		}
	}
	if g.Backup.To != "" && !place.MatchString(g.Backup.To) {
		bad(root.At("backup").At("to"), "%q is not the full path of a folder (of letters, digits, dot, dash and underscore: it becomes part of a unit)", g.Backup.To)
	}
	if g.Backup.Keep < 0 {
		bad(root.At("backup").At("keep"), "%d must not be below 0", g.Backup.Keep)
	}
	positive(&errs, root.At("journal").At("retention"), g.Journal.Retention, 28*24*time.Hour)
	positive(&errs, root.At("journal").At("retention_technical"), g.Journal.Technical, 400*24*time.Hour)
	positive(&errs, root.At("journal").At("commit_deadline"), g.Journal.Deadline, time.Minute)

	passages := map[string]bool{}
	for i, n := range root.At("passages").Items() {
		p := &g.Passages[i]
		p.node = n
		if p.OpenFor == 0 {
			p.OpenFor = 8 * time.Second
		}
		if p.HeldOpen == 0 {
			p.HeldOpen = 20 * time.Second
		}
		name(&errs, n, p.Name, passages, "passage")
		positive(&errs, n.At("open_for"), p.OpenFor, 10*time.Minute)
		positive(&errs, n.At("held_open_after"), p.HeldOpen, time.Hour)
		if p.Barrier.IsZero() {
			bad(n.At("barrier"), "must be given: a driver, or none for a post without a barrier")
		}
		for key, d := range p.devices() {
			checkDevice(&errs, n.At(key), d, key == "barrier", "none")
		}
	}
	lanes := map[string]bool{}
	used := map[string]int{}
	for _, n := range g.LaneNodes {
		l := g.Defaults
		l.Scanners = nil
		l.OnTimeout = cloneMap(g.Defaults.OnTimeout)
		if err := n.Decode(&l); err != nil {
			errs = append(errs, err)
			continue
		}
		for k, v := range g.Defaults.OnTimeout {
			if _, ok := l.OnTimeout[k]; !ok {
				l.OnTimeout[k] = v
			}
		}
		l.node = n
		name(&errs, n, l.Name, lanes, "lane")
		if l.Label == "" {
			l.Label = l.Name
		}
		if l.Area == "" {
			l.Area = g.Area
		}
		switch {
		case l.Passage == "":
			bad(n.At("passage"), "must be given")
		case !passages[l.Passage]:
			bad(n.At("passage"), "no passage is called %q%s", l.Passage, options.Hint(l.Passage, keys(passages)))
		default:
			if used[l.Passage]++; used[l.Passage] == 3 {
				bad(n.At("passage"), "passage %q has two lanes already", l.Passage)
			}
		}
		oneOf(&errs, n.At("direction"), string(l.Direction), string(device.In), string(device.Out))
		oneOf(&errs, n.At("order"), l.Order, "card_first", "temperature_first", "either")
		if !l.Scanner.IsZero() {
			if len(l.Scanners) > 0 {
				bad(n.At("scanners"), "give scanner or scanners, not both")
			}
			l.Scanners = []options.Node{l.Scanner}
		}
		if len(l.Scanners) == 0 {
			bad(n.At("scanner"), "must be given: a driver, or console for a post where the guard finds the pass on the tablet, or none")
		}
		for _, s := range l.Scanners {
			checkDevice(&errs, s, s, true, "console", "none")
		}
		if l.Thermometer.IsZero() {
			bad(n.At("thermometer"), "must be given: a driver, or typed for a guard with an instrument of their own, or none")
		} else {
			checkDevice(&errs, n.At("thermometer"), l.Thermometer, true, "typed", "none")
		}
		if !l.Indicator.IsZero() {
			checkDevice(&errs, n.At("indicator"), l.Indicator, true, "none")
		}
		if !l.Call.IsZero() {
			checkDevice(&errs, n.At("call_button"), l.Call, false)
		}
		if !l.Panel.IsZero() {
			checkDevice(&errs, n.At("panel"), l.Panel, false)
		}
		positive(&errs, n.At("presentation_timeout"), l.Present, 10*time.Minute)
		positive(&errs, n.At("measure_timeout"), l.Measure, time.Minute)
		positive(&errs, n.At("refer_timeout"), l.Refer, time.Hour)
		positive(&errs, n.At("parked_timeout"), l.Parked, 24*time.Hour)
		positive(&errs, n.At("second_post_after"), l.Second, 10*time.Minute)
		positive(&errs, n.At("held_card"), l.Held, time.Minute)
		if l.Remeasures < 0 || l.Remeasures > 10 {
			bad(n.At("remeasures"), "%d is not between 0 and 10", l.Remeasures)
		}
		if l.Queue < 1 || l.Queue > 100 {
			bad(n.At("queue"), "%d is not between 1 and 100", l.Queue)
		}
		for cat, o := range l.OnTimeout {
			at := n.At("refer_timeout_outcome").At(cat)
			oneOf(&errs, at, string(o), string(edge.Admit), string(edge.Refer), string(edge.Deny))
			if cat == "resident" && o == edge.Deny && l.Direction == device.In {
				bad(at, "a resident's own home never times out to deny; give refer or admit")
			}
		}
		g.Lanes = append(g.Lanes, l)
	}
	if len(g.LaneNodes) == 0 {
		bad(root.At("lanes"), "must be given: a gate has at least one lane")
	}
	g.checkExclusive(&errs)
	g.checkLanguages(root, &errs)
	if err := errors.Join(errs...); err != nil {
		return nil, err
	}
	return &g, nil
}

func (p *Passage) devices() map[string]options.Node {
	m := map[string]options.Node{"barrier": p.Barrier}
	for k, n := range map[string]options.Node{"beam": p.Beam, "door": p.Door, "fire": p.Fire, "tamper": p.Tamper, "exit_button": p.Exit, "position": p.Position} {
		if !n.IsZero() {
			m[k] = n
		}
	}
	return m
}

func (g *Gate) checkSync(n options.Node, errs *[]error) {
	s := &g.Sync
	if s.URL == "" {
		return
	}
	u, err := url.Parse(s.URL)
	if err != nil || u.Host == "" {
		*errs = append(*errs, n.At("url").Errorf("%q is not a URL like mqtts://server:8883", s.URL))
		return
	}
	oneOf(errs, n.At("url"), u.Scheme, "mqtt", "mqtts")
	if u.User != nil {
		*errs = append(*errs, n.At("url").Errorf("no user name or password here: use username and password_file"))
	}
	if (s.Cert == "") != (s.Key == "") {
		*errs = append(*errs, n.At("cert").Errorf("cert and key belong together"))
	}
	if s.Trust == "" {
		*errs = append(*errs, n.At("trust").Errorf("must be given: the file with the community server's public keys (communityd trust prints them)"))
	}
	for _, c := range []struct {
		key    string
		v, max int
	}{{"batch", s.Batch, 8192}, {"batch_bytes", s.Bytes, 8 << 20}, {"window", s.Window, 64}} {
		if c.v < 1 || c.v > c.max {
			*errs = append(*errs, n.At(c.key).Errorf("%d is not between 1 and %d", c.v, c.max))
		}
	}
	for _, c := range []struct {
		key string
		v   int
	}{{"rate", s.Rate}, {"burst", s.Burst}} {
		if c.v < 0 {
			*errs = append(*errs, n.At(c.key).Errorf("%d is below 0", c.v))
		}
	}
	if s.Quiet != "" {
		from, to, _ := strings.Cut(s.Quiet, "-")
		a, aerr := time.Parse("15:04", from)
		b, berr := time.Parse("15:04", to)
		if aerr != nil || berr != nil || a.Equal(b) {
			*errs = append(*errs, n.At("quiet").Errorf("%q is not a time of day like 22:00-06:00", s.Quiet))
		}
		s.QuietFrom, s.QuietTo = a.Hour()*60+a.Minute(), b.Hour()*60+b.Minute()
	}
	positive(errs, n.At("batch_age"), s.Age, time.Hour)
	positive(errs, n.At("resend_after"), s.Resend, time.Hour)
	positive(errs, n.At("keepalive"), s.Keep, time.Hour)
}

// exclusive are the options that name something only one device can use.
var exclusive = []string{"port", "pin", "go", "stop", "wait", "buzzer", "in", "out", "d0", "d1", "input"}

// checkExclusive finds two users of one port or line.
func (g *Gate) checkExclusive(errs *[]error) {
	type user struct {
		what string
		line int
	}
	taken := map[string]user{}
	visit := func(what string, n options.Node) {
		for _, k := range exclusive {
			v := n.At(k)
			if v.IsZero() || !v.IsScalar() {
				continue
			}
			name := v.Text()
			if real, err := filepath.EvalSymlinks(name); err == nil {
				name = real
			}
			if first, ok := taken[name]; ok {
				*errs = append(*errs, v.Errorf("%s is used by %s already (line %d); only one device can have it", v.Text(), first.what, first.line))
				continue
			}
			taken[name] = user{what, v.Line()}
		}
	}
	for i := range g.Passages {
		p := &g.Passages[i]
		for _, k := range []string{"barrier", "beam", "door", "fire", "tamper", "exit_button", "position"} {
			visit(fmt.Sprintf("the %s of passage %s", k, p.Name), p.devices()[k])
		}
	}
	for i := range g.Lanes {
		l := &g.Lanes[i]
		for _, s := range l.Scanners {
			visit("the scanner of lane "+l.Name, s)
		}
		visit("the thermometer of lane "+l.Name, l.Thermometer)
		visit("the indicator of lane "+l.Name, l.Indicator)
		visit("the call button of lane "+l.Name, l.Call)
		visit("the panel of lane "+l.Name, l.Panel)
	}
}

// checkDevice checks that a node is one of the words, where words are taken,
// or a mapping with a driver.
func checkDevice(errs *[]error, at, n options.Node, words bool, known ...string) {
	switch {
	case n.IsMap():
		if n.At("driver").Text() == "" {
			*errs = append(*errs, n.At("driver").Errorf("must be given"))
		}
	case n.IsScalar() && words && slices.Contains(known, n.Text()):
	case n.IsScalar() && words:
		*errs = append(*errs, at.Errorf("%q is neither a mapping with a driver nor %s", n.Text(), strings.Join(known, " or ")))
	default:
		*errs = append(*errs, at.Errorf("want a mapping with a driver"))
	}
}

// abs makes a path relative to the configuration's folder absolute.
func (g *Gate) abs(p string) string {
	switch {
	case p == "":
		return p
	case filepath.IsAbs(p):
		return filepath.Clean(p)
	}
	return filepath.Join(g.dir, p)
}

func oneOf(errs *[]error, n options.Node, got string, want ...string) {
	if !slices.Contains(want, got) {
		what := fmt.Sprintf("%q is not one of %s", got, strings.Join(want, ", "))
		if got == "" {
			what = "must be given: " + strings.Join(want, " or ")
		}
		*errs = append(*errs, n.Errorf("%s", what))
	}
}

func positive(errs *[]error, n options.Node, d, most time.Duration) {
	if d <= 0 || d > most {
		*errs = append(*errs, n.Errorf("%v is not between 0 and %v", d, most))
	}
}

func name(errs *[]error, n options.Node, got string, have map[string]bool, what string) {
	switch {
	case got == "":
		*errs = append(*errs, n.At("name").Errorf("every %s needs a name", what))
	case !id.MatchString(got):
		*errs = append(*errs, n.At("name").Errorf("%q must be of a-z, 0-9, dot, dash and underscore", got))
	case have[got]:
		*errs = append(*errs, n.At("name").Errorf("another %s is called %q", what, got))
	}
	have[got] = true
}

func keys(m map[string]bool) []string {
	out := make([]string, 0, len(m))
	for k := range m {
		out = append(out, k)
	}
	return out
}

func cloneMap(m map[string]edge.Outcome) map[string]edge.Outcome {
	out := make(map[string]edge.Outcome, len(m))
	for k, v := range m {
		out[k] = v
	}
	return out
}
