package console

import (
	"image/png"
	"net"
	"net/http"
	"net/url"
	"slices"
	"strings"
	"time"

	"github.com/boombuler/barcode"
	"github.com/boombuler/barcode/qr"

	"gatehouse/edge"
	"gatehouse/edge/text"
)

// displayLanguages are those that the display speaks, each by its own name.
var displayLanguages = []struct{ code, name string }{{"zh-Hans", "中文"}, {"en", "English"}, {"ja", "日本語"}, {"ko", "한국어"}, {"ru", "Русский"}, {"fr", "Français"}, {"es", "Español"}, {"ar", "العربية"}}

// Loudness is how loud the display speaks from a time of day on.
type Loudness struct {
	From    int // minutes of the day
	Percent int
}

// usualLoudness spares whoever sleeps beside the gate.
func usualLoudness() []Loudness { return []Loudness{{7 * 60, 80}, {21 * 60, 35}} }

// volume is how loud the display speaks at a time.
func volume(list []Loudness, at time.Time) int {
	if len(list) == 0 {
		list = usualLoudness()
	}
	sorted := slices.SortedFunc(slices.Values(list), func(a, b Loudness) int { return a.From - b.From })
	now := at.Hour()*60 + at.Minute()
	out := sorted[len(sorted)-1].Percent // what began yesterday
	for _, l := range sorted {
		if l.From <= now {
			out = l.Percent
		}
	}
	return out
}

// words is what a display shows, in one language.
type words struct {
	Lang, Dir, Text string
}

// sign is a resident's display as it stands: one of go, stop, wait, idle, free,
// closed, and the sentence in the pass's language, then in the site's.
type sign struct {
	Sign   string  `json:"sign"`
	Words  []words `json:"words"`
	Turn   bool    `json:"turn,omitempty"`   // nobody knows the person's language: the words are shown one after the other
	Voice  string  `json:"voice,omitempty"`  // the sentence to be heard, by its id; empty = none
	Volume int     `json:"volume,omitempty"` // percent
	Ref    *words  `json:"ref,omitempty"`    // by what the person can ask
}

// spoken are the sentences that there are voice prompts for, by their message's id.
// Refer and deny have one, as they have one sign.
var spoken = map[string]string{"display.measuring": "measuring", "display.again": "again", "display.go": "go", "display.stop": "stop", "display.call": "call",
	"display.free": "free", "display.fault": "fault", "display.closed": "closed"}

// newSign says what the resident must do. Refer and deny are one sign and one
// sentence: nothing on a public screen tells why.
func newSign(t *text.Catalogue, site []string, v edge.LaneView) sign {
	id, s, lang := "display.idle", "idle", ""
	party := 0
	if v.Current != nil {
		lang = v.Current.Language
		if lang == "" && v.Current.Pass != nil {
			lang = v.Current.Pass.Language
		}
	}
	switch v.State {
	case edge.LaneCard:
		id = "display.card"
	case edge.LaneMeasuring:
		id, s = "display.measuring", "wait"
		if v.Current != nil && v.Current.Temperature != nil && v.Current.Temperature.Tries > 0 {
			id = "display.again"
		}
		if v.Current != nil {
			party = v.Current.Party
		}
	case edge.LanePassing:
		id, s = "display.go", "go"
	case edge.LaneReferred, edge.LaneDenied:
		id, s = "display.stop", "stop"
		if v.Current != nil && v.Current.Calls > 0 {
			id = "display.call"
		}
	case edge.LaneFree:
		id, s = "display.free", "free"
	case edge.LaneFault:
		id, s = "display.fault", "closed"
	case edge.LaneClosed:
		id, s = "display.closed", "closed"
	}
	if v.Test != "" {
		// A lamp that is tried, or a barrier that stands open, calls nobody through.
		id, s = "display.closed", "closed"
	}
	out := sign{Sign: s, Voice: spoken[id], Turn: v.Current != nil && v.Current.Unknown && lang == "" && s == "stop", Words: inEach(t, append(clean(lang), site...), id)}
	for i := range out.Words {
		w := &out.Words[i]
		if party > 0 {
			w.Text = t.For(w.Lang).T("display.party", "Count", party)
		}
		// What to do next, in the rule's own words: another gate, an office.
		if s == "stop" && v.Current != nil && v.Current.Say[w.Lang] != "" {
			w.Text = v.Current.Say[w.Lang]
			out.Voice = "" // what is heard must not differ from what is read
		}
	}
	return out
}

// inEach is a message in languages, each once.
func inEach(t *text.Catalogue, languages []string, id string) []words {
	var out []words
	for _, l := range languages {
		p := t.For(l)
		if slices.ContainsFunc(out, func(w words) bool { return w.Lang == p.Language() }) {
			continue
		}
		dir := "ltr"
		if p.RTL() {
			dir = "rtl"
		}
		out = append(out, words{Lang: p.Language(), Dir: dir, Text: p.T(id)})
	}
	return out
}

// sign is the lane's sign, as loud as the hour wants.
func (c *Console) sign(v edge.LaneView) sign {
	s := newSign(c.deps.Text, c.cfg.Languages, v)
	if s.Voice != "" {
		s.Volume = volume(c.cfg.Volume, c.now())
	}
	if s.Sign == "stop" && v.Current != nil {
		if ref := c.referenceOf(*v.Current); ref != "" {
			w := s.Words[0]
			w.Text = c.deps.Text.For(w.Lang).T("display.reference", "Number", ref)
			s.Ref = &w
		}
	}
	return s
}

func (c *Console) now() time.Time {
	if c.deps.Clock != nil {
		return time.UnixMilli(c.deps.Clock.Now().Time).In(c.cfg.Location)
	}
	return time.Now().In(c.cfg.Location)
}

// gateTime is what the gate's clock said when the machine's said t: drivers and the
// link date by the machine's, which may be years away.
func (c *Console) gateTime(t time.Time) time.Time {
	return c.now().Add(-time.Since(t)).Round(100 * time.Millisecond)
}

// at is a time of an entry or a pass (UTC ms) as the site's walls have it.
func (c *Console) at(ms int64) time.Time { return time.UnixMilli(ms).In(c.cfg.Location) }

func (c *Console) wallClock() string { return c.deps.Text.For(c.cfg.Language).Clock(c.now()) }

// tips are what an idle display tells, in the site's languages.
func (c *Console) tips() []words {
	var out []words
	for _, l := range c.cfg.Languages {
		p := c.deps.Text.For(l)
		dir := "ltr"
		if p.RTL() {
			dir = "rtl"
		}
		for _, t := range c.cfg.Tips[l] {
			out = append(out, words{Lang: p.Language(), Dir: dir, Text: t})
		}
	}
	return out
}

// rulesAddress is where a telephone on the gate's network finds the rules; empty
// when only this machine can.
func (c *Console) rulesAddress(r *http.Request) string {
	host, port, err := net.SplitHostPort(c.Addr())
	if err != nil {
		return ""
	}
	here := func(h string) bool {
		ip := net.ParseIP(h)
		return ip != nil && (ip.IsLoopback() || ip.IsUnspecified()) || h == "localhost"
	}
	if ip := net.ParseIP(host); ip != nil && ip.IsLoopback() {
		return ""
	}
	if asked, _, err := net.SplitHostPort(r.Host); err == nil && !here(asked) {
		host = asked
	} else if here(host) {
		host = ""
		all, _ := net.InterfaceAddrs()
		for _, a := range all {
			if n, ok := a.(*net.IPNet); ok && n.IP.IsGlobalUnicast() {
				host = n.IP.String()
				break
			}
		}
	}
	if host == "" {
		return ""
	}
	// Without TLS, on the same port: see plain.
	u := url.URL{Scheme: "http", Host: net.JoinHostPort(host, port), Path: "/rules"}
	return u.String()
}

// rulesCode is the rules' address as a picture.
func (c *Console) rulesCode(w http.ResponseWriter, r *http.Request) {
	at := c.rulesAddress(r)
	if at == "" {
		http.NotFound(w, r)
		return
	}
	code, err := qr.Encode(at, qr.M, qr.Auto)
	if err == nil {
		code, err = barcode.Scale(code, 220, 220)
	}
	if err != nil {
		c.deps.Log.Error("cannot draw the rules' address", "err", err)
		http.NotFound(w, r)
		return
	}
	w.Header().Set("Content-Type", "image/png")
	_ = png.Encode(w, code) // a browser that has gone
}

// voice is a voice prompt, LANGUAGE-ID.opus. assets/voice/generate.sh makes them.
func (c *Console) voice(w http.ResponseWriter, r *http.Request) {
	name := r.PathValue("name")
	b, err := assets.ReadFile("assets/voice/" + name)
	if err != nil || !strings.HasSuffix(name, ".opus") {
		http.NotFound(w, r)
		return
	}
	w.Header().Set("Content-Type", "audio/ogg; codecs=opus")
	_, _ = w.Write(b)
}

// display is the resident's screen at a lane: no login, nothing personal.
func (c *Console) display(w http.ResponseWriter, r *http.Request) {
	v, ok := c.laneView(r.PathValue("lane"))
	if !ok {
		http.NotFound(w, r)
		return
	}
	c.render(w, r, "display.html", map[string]any{"Lane": v.Lane, "Sign": c.sign(v), "Time": c.wallClock(), "Tips": c.tips(),
		// While the gate is away nobody knows what the last sign is worth.
		"Away": inEach(c.deps.Text, c.cfg.Languages, "display.stop"), "Rules": c.rulesAddress(r)})
}

// anyDisplay is for a screen that was not told which lane it stands at: the first.
func (c *Console) anyDisplay(w http.ResponseWriter, r *http.Request) {
	lanes := c.deps.Lanes.Views()
	if len(lanes) == 0 {
		http.NotFound(w, r)
		return
	}
	http.Redirect(w, r, "/display/"+url.PathEscape(lanes[0].Lane), http.StatusTemporaryRedirect)
}

func (c *Console) displayLive(w http.ResponseWriter, r *http.Request) {
	name := r.PathValue("lane")
	if _, ok := c.laneView(name); !ok {
		http.NotFound(w, r)
		return
	}
	s := c.stream(w, r)
	if s == nil {
		return
	}
	defer s.close()
	views := c.deps.Lanes.Watch(r.Context())
	alive := time.NewTicker(c.beat)
	defer alive.Stop()
	for {
		var err error
		select {
		case <-r.Context().Done():
			return
		case v, ok := <-views:
			if !ok {
				return
			}
			if v.Lane == name {
				err = s.send("sign", c.sign(v))
			}
		case <-alive.C:
			err = s.send("alive", c.wallClock())
		}
		if err != nil {
			return
		}
	}
}
