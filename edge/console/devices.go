package console

import (
	"bytes"
	"cmp"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"slices"
	"strings"
	"time"
	"unicode"

	"gatehouse/device"
	"gatehouse/edge"
	"gatehouse/edge/text"
)

// clockLine is the gate's clock, and how far it can be believed.
type clockLine struct {
	Time, State, Source, Error string
	Bad                        bool
}

// syncLine is the way to the community server.
type syncLine struct {
	edge.SyncStatus
	Since, Receipt, Ago string
}

// deviceRow is one device as the installer sees it.
type deviceRow struct {
	edge.DeviceHealth
	Name            string
	Is, Since, Read string
	Bad             bool
	Counts          string // what only this driver counts
}

// tryLane is a lane whose devices can be tried.
type tryLane struct {
	Lane, Name, State, Test string
	What                    []edge.TestKind
}

// devices shows the health of every device, of the clock and of the way to the
// server.
func (c *Console) devices(w http.ResponseWriter, r *http.Request) {
	c.showDevices(w, r, map[string]any{}, http.StatusOK)
}

func (c *Console) showDevices(w http.ResponseWriter, r *http.Request, data map[string]any, code int) {
	p := c.deps.Text.For(c.lang(r))
	var rows []deviceRow
	serves := map[string]bool{}
	if c.deps.Devices != nil {
		for _, d := range c.deps.Devices() {
			serves[d.Serves] = true
			rows = append(rows, c.deviceRow(p, d))
		}
	}
	data["Devices"], data["Status"], data["Clock"] = rows, c.status(p), c.clock(p)
	if c.deps.Sync != nil {
		s := syncLine{SyncStatus: c.deps.Sync()}
		s.Error = troubleInWords(p, s.Error)
		if !s.SyncStatus.Since.IsZero() {
			s.Since = p.LatelySeconds(c.gateTime(s.SyncStatus.Since), c.now())
		}
		if !s.LastReceipt.IsZero() {
			s.Receipt, s.Ago = p.LatelySeconds(c.gateTime(s.LastReceipt), c.now()), p.Ago(time.Since(s.LastReceipt))
		}
		data["Sync"] = s
	}
	if c.deps.Versions != nil {
		data["Versions"] = c.deps.Versions(r.Context())
	}
	if c.deps.Test != nil && c.may(r, testDevices) {
		var lanes []tryLane
		for _, v := range c.deps.Lanes.Views() {
			l := tryLane{Lane: v.Lane, Name: cmp.Or(v.Name, v.Lane), State: p.T("lane." + string(v.State))}
			if v.Test != "" {
				l.Test = p.T("test." + string(v.Test))
			}
			if serves[v.Lane+" indicator"] {
				l.What = append(l.What, edge.TestLamps, edge.TestBuzzer)
			}
			if serves[v.Passage+" barrier"] {
				l.What = append(l.What, edge.TestBarrier)
			}
			lanes = append(lanes, l)
		}
		data["Lanes"] = slices.DeleteFunc(lanes, func(l tryLane) bool { return len(l.What) == 0 })
	}
	w.WriteHeader(code)
	c.render(w, r, "devices.html", data)
}

func (c *Console) deviceRow(p *text.Printer, d edge.DeviceHealth) deviceRow {
	d.LastError = troubleInWords(p, d.LastError)
	x := deviceRow{DeviceHealth: d, Name: c.deviceName(p, d.Serves), Is: p.T("device." + string(d.State)), Bad: faulty(d.State)}
	if !d.Since.IsZero() {
		x.Since = p.Lately(c.gateTime(d.Since), c.now())
	}
	if !d.LastRead.IsZero() {
		x.Read = p.LatelySeconds(c.gateTime(d.LastRead), c.now())
	}
	var counts []string
	for name, n := range d.Detail {
		counts = append(counts, fmt.Sprintf("%s %d", word(p, "count.", name), n))
	}
	slices.Sort(counts)
	x.Counts = strings.Join(counts, " · ")
	return x
}

// clock says what time the gate takes it to be, from whom, and how sure.
func (c *Console) clock(p *text.Printer) clockLine {
	if c.deps.Clock == nil {
		return clockLine{Time: p.Instant(c.now()), State: p.T("clock.unset"), Bad: true}
	}
	s := c.deps.Clock.Now()
	out := clockLine{Time: p.Instant(c.at(s.Time)), State: p.T("clock." + string(s.Clock)), Bad: !s.Clock.Trusted()}
	if s.Source != "" {
		out.Source = word(p, "clock.by_", s.Source)
	}
	if s.Error > 0 {
		out.Error = p.T("clock.error", "Value", p.Number(float64(s.Error)/1000, 1))
	}
	return out
}

// testDevice has a lamp, buzzer or barrier tried.
func (c *Console) testDevice(w http.ResponseWriter, r *http.Request) {
	t := edge.DeviceTest{Lane: r.PostForm.Get("lane"), What: edge.TestKind(r.PostForm.Get("test")), Actor: actorOf(r)}
	if c.deps.Test == nil {
		http.NotFound(w, r)
		return
	}
	err := c.deps.Test(r.Context(), t)
	if err == nil {
		c.showDevices(w, r, map[string]any{"Done": c.deps.Text.For(c.lang(r)).T("test.done", "What", c.say(r, "test."+string(t.What)), "Lane", c.laneName(t.Lane))}, http.StatusOK)
		return
	}
	message, code := c.inWords(r, err), http.StatusConflict
	switch {
	case errors.Is(err, edge.ErrUnknown):
		message, code = c.say(r, "test.no_lane"), http.StatusNotFound
	case message == "":
		c.deps.Log.Warn("cannot try a device", "lane", t.Lane, "test", t.What, "err", err)
		message, code = c.say(r, "console.failed"), http.StatusServiceUnavailable
	}
	c.showDevices(w, r, map[string]any{"Message": message}, code)
}

// testLine says what an entry tells of a test.
func testLine(p *text.Printer, data []byte) string {
	var x struct {
		Test    string `json:"test"`
		Persons int    `json:"persons"`
	}
	if json.Unmarshal(data, &x) != nil {
		return "" // of another making: the entry's own page shows it
	}
	out := word(p, "test.", x.Test)
	if x.Persons > 0 {
		out += " · " + p.T("test.persons", "Count", x.Persons)
	}
	return out
}

// rawEvery is how often what came is sent to whoever watches: often enough to
// look live at the mast, and no more than a browser can show.
const rawEvery = 250 * time.Millisecond

// rawView is what one device gave last.
type rawView struct {
	ID, Name, State string
	Bad             bool
	Count           int
	Lines           []rawLine // newest first
}

type rawLine struct {
	Time, Text string
	Bad        bool
}

// raw shows what devices give as it comes, for whoever stands at the mast.
func (c *Console) raw(w http.ResponseWriter, r *http.Request) {
	c.render(w, r, "raw.html", map[string]any{"Devices": c.rawViews(r)})
}

// rawViews reads what came; the number of a card is masked to what the person may
// know.
func (c *Console) rawViews(r *http.Request) []rawView {
	if c.deps.Raw == nil {
		return nil
	}
	p, full := c.deps.Text.For(c.lang(r)), c.may(r, findPasses)
	health := map[string]device.Health{}
	if c.deps.Devices != nil {
		for _, d := range c.deps.Devices() {
			health[d.Serves] = d.Health
		}
	}
	list := c.deps.Raw()
	out := make([]rawView, len(list))
	for i, d := range list {
		v := rawView{ID: d.Serves, Name: c.deviceName(p, d.Serves), Count: int(d.Count)}
		if h, ok := health[d.Serves]; ok {
			v.State, v.Bad = p.T("device."+string(h.State)), faulty(h.State)
		}
		for _, x := range slices.Backward(d.Last) {
			v.Lines = append(v.Lines, rawLine{Time: c.gateTime(x.At).Format("15:04:05.0"), Text: rawText(p, x, full), Bad: x.Err != ""})
		}
		out[i] = v
	}
	return out
}

// rawText puts a reading into words.
func rawText(p *text.Printer, x edge.RawReading, full bool) string {
	switch {
	case x.Card != nil:
		out := []string{cardText(p, *x.Card, full)}
		if x.Card.Raw.Len > 0 {
			out = append(out, p.T("raw.bits", "Count", x.Card.Raw.Len))
		}
		if x.Card.Tamper {
			out = append(out, p.T("raw.tamper"))
		}
		return strings.Join(out, " · ")
	case x.Sample != nil:
		out := []string{p.T("raw.object", "Value", p.Celsius(p.Number(float64(x.Sample.Object), 2)))}
		if x.Sample.HasAmbient {
			out = append(out, p.T("raw.ambient", "Value", p.Celsius(p.Number(float64(x.Sample.Ambient), 2))))
		}
		if x.Sample.Range > 0 {
			out = append(out, p.T("raw.range", "Value", x.Sample.Range))
		}
		return strings.Join(out, " · ")
	case x.Contact != nil:
		id := "raw.rest"
		if x.Contact.Active {
			id = "raw.active"
		}
		return p.T(id) + " · " + p.T("raw.times", "Count", int(x.Contact.Count))
	case x.Button != "":
		return p.T("raw.button", "Name", x.Button)
	}
	return x.Err
}

// cardText is a card as it was read. Of a PIN nobody is told more than its length;
// of a number, who may not look for passes sees only its end: enough to tell that
// the same card reads the same.
func cardText(p *text.Printer, r device.CardRead, full bool) string {
	if r.Format == device.FormatPIN {
		return p.T("raw.pin", "Count", len(r.Text))
	}
	prefix, number, _ := strings.Cut(string(edge.CredentialOf(r)), ":")
	runes := []rune(strings.Map(func(r rune) rune {
		if !unicode.IsPrint(r) {
			return '·'
		}
		return r
	}, number))
	shown := string(runes[:min(len(runes), 60)])
	if len(runes) > 60 {
		shown += "…"
	}
	if !full {
		end := max(0, len(runes)-2)
		shown = strings.Repeat("•", min(end, 10)) + string(runes[end:])
		if len(runes) < 5 {
			shown = strings.Repeat("•", len(runes)) // what is left would be most of it
		}
	}
	return prefix + " " + shown
}

// rawLive sends a device's part of the page whenever something came from it.
func (c *Console) rawLive(w http.ResponseWriter, r *http.Request) {
	s := c.stream(w, r)
	if s == nil {
		return
	}
	defer s.close()
	type mark struct {
		count int
		state string
	}
	sent := map[string]mark{}
	tick := time.NewTicker(rawEvery)
	defer tick.Stop()
	beat := time.Now()
	for {
		for _, v := range c.rawViews(r) {
			now := mark{v.Count, v.State}
			if was, ok := sent[v.ID]; ok && was == now {
				continue
			}
			sent[v.ID] = now
			// Not by piece, which is shared: what is shown depends on who looks.
			var b bytes.Buffer
			if err := c.pages[s.lang].ExecuteTemplate(&b, "rawdevice", v); err != nil {
				c.deps.Log.Warn("cannot show a part of a page", "part", "rawdevice", "err", err)
				return
			}
			if s.send("raw", map[string]any{"id": v.ID, "html": b.String()}) != nil {
				return
			}
			beat = time.Now()
		}
		if time.Since(beat) >= c.beat {
			if s.send("alive", "") != nil {
				return
			}
			beat = time.Now()
		}
		select {
		case <-r.Context().Done():
			return
		case <-tick.C:
		}
	}
}
