package console

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"maps"
	"net/http"
	"net/http/httptest"
	"net/url"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"go.uber.org/goleak"

	"gatehouse/device"
	"gatehouse/edge"
	"gatehouse/edge/console/accounts"
	"gatehouse/edge/text"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// street is lanes, journal and passes in memory, driven by the tests.
type street struct {
	mu       sync.Mutex
	views    []edge.LaneView
	watchers map[chan edge.LaneView]bool
	actions  []edge.Action
	refuse   error
	lines    []edge.Stored
	passes   []edge.Pass
	card     edge.Credential // that finds them
	asked    []edge.Credential
	changes  []string
	recorded []string
	disk     error // why nothing can be recorded
	tests    []edge.DeviceTest
	raw      []edge.RawDevice
	broken   error // why no pass can be found
}

func (s *street) Test(_ context.Context, t edge.DeviceTest) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.refuse != nil {
		return s.refuse
	}
	s.tests = append(s.tests, t)
	return nil
}

func (s *street) look() []edge.RawDevice {
	s.mu.Lock()
	defer s.mu.Unlock()
	return slices.Clone(s.raw)
}

// comes has a device give something.
func (s *street) comes(serves string, r edge.RawReading) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for i := range s.raw {
		if s.raw[i].Serves == serves {
			s.raw[i].Count++
			s.raw[i].Last = append(slices.Clone(s.raw[i].Last), r)
		}
	}
}

func (s *street) record(_ context.Context, k edge.Kind, actor string, data any) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.disk == nil {
		s.recorded = append(s.recorded, fmt.Sprint(k, " ", actor, " ", data))
	}
	return s.disk
}

func (s *street) Views() []edge.LaneView {
	s.mu.Lock()
	defer s.mu.Unlock()
	return append([]edge.LaneView(nil), s.views...)
}

func (s *street) Watch(ctx context.Context) <-chan edge.LaneView {
	ch := make(chan edge.LaneView, 64)
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.watchers == nil {
		s.watchers = map[chan edge.LaneView]bool{}
	}
	s.watchers[ch] = true
	for _, v := range s.views {
		ch <- v
	}
	context.AfterFunc(ctx, func() {
		s.mu.Lock()
		defer s.mu.Unlock()
		delete(s.watchers, ch)
		close(ch)
	})
	return ch
}

func (s *street) set(v edge.LaneView) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for i := range s.views {
		if s.views[i].Lane == v.Lane {
			v.Version = s.views[i].Version + 1
			s.views[i] = v
		}
	}
	for ch := range s.watchers {
		select {
		case ch <- v:
		default:
		}
	}
}

func (s *street) Do(_ context.Context, a edge.Action) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.actions = append(s.actions, a)
	return s.refuse
}

func (s *street) did() []edge.Action {
	s.mu.Lock()
	defer s.mu.Unlock()
	return append([]edge.Action(nil), s.actions...)
}

func (s *street) Size() uint64 {
	s.mu.Lock()
	defer s.mu.Unlock()
	return uint64(len(s.lines))
}

func (s *street) Read(_ context.Context, from uint64, n, _ int) ([]edge.Stored, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.lines[from:min(uint64(len(s.lines)), from+uint64(n))], nil
}

func (s *street) Get(_ context.Context, seq uint64) (edge.Stored, error) {
	if seq >= uint64(len(s.lines)) {
		return edge.Stored{}, edge.ErrUnknown
	}
	if s.lines[seq].Line == nil {
		return edge.Stored{}, edge.ErrPurged
	}
	return s.lines[seq], nil
}

func (s *street) Find(_ context.Context, q edge.PassQuery) ([]edge.Pass, error) {
	if s.broken != nil {
		return nil, s.broken
	}
	s.asked = append(s.asked, q.Credential)
	if q.Credential != "" && q.Credential != s.card {
		return nil, nil
	}
	return s.passes, nil
}

func (s *street) SetStatus(_ context.Context, id edge.PassID, status edge.PassStatus, reason, actor string) error {
	if id == 404 {
		return edge.ErrUnknown
	}
	if s.refuse != nil {
		return s.refuse
	}
	s.changes = append(s.changes, fmt.Sprintf("%d %s %s %s", id, status, reason, actor))
	return nil
}

// referred is a fever at the east entrance, as the closed estate's policy has it.
func referred() edge.LaneView {
	return edge.LaneView{Lane: "east-in", Name: "东门入口", Passage: "main", Direction: edge.In, Version: 1, State: edge.LaneReferred, Scanner: "device", Thermometer: "device", Queue: 3,
		Current: &edge.PresentationView{ID: 41, Lane: "east-in", State: edge.LaneReferred, Seq: 7, Outcome: edge.Refer, Reason: "temperature.above", Reading: "37.8 ±0.3",
			Pass:        &edge.Pass{ID: 7, Name: "王*明", Category: "resident", Building: "1号楼", Unit: "2-301", Care: []string{"elderly"}},
			Temperature: &edge.TemperatureFacts{State: edge.TempOK, Band: edge.BandAbove}, Authority: "街道防疫办", Deadline: time.Now().Add(50 * time.Second),
			Answers: []edge.Answer{{Reason: "second_normal", Needs: []string{"second_reading"}}, {Reason: "medical", Needs: []string{"proof"}}, {Reason: "known", Needs: []string{"identity"}}}}}
}

func newStreet() *street {
	parked := *referred().Current
	parked.ID, parked.Pass = 39, &edge.Pass{ID: 9, Name: "G* O*", Category: "courier", Language: "ar"}
	out := edge.LaneView{Lane: "east-out", Name: "东门出口", Direction: edge.Out, State: edge.LaneIdle, Scanner: "device", Thermometer: "none", Degraded: []string{"beam"}, Parked: []edge.PresentationView{parked},
		Last: &edge.PresentationView{ID: 40, Outcome: edge.Admit, Pass: &edge.Pass{ID: 8, Name: "李*", Category: "worker"}}}
	side := edge.LaneView{Lane: "side", Name: "侧门", Direction: edge.In, State: edge.LaneMeasuring, Scanner: "console", Thermometer: "typed",
		Current: &edge.PresentationView{ID: 42, State: edge.LaneMeasuring, Pass: &edge.Pass{ID: 12, Name: "陈*", Category: "visitor", Building: "3号楼"}}}
	s := &street{views: []edge.LaneView{referred(), out, side}, passes: []edge.Pass{{ID: 7, Name: "王*明", Category: "resident", Status: edge.PassSuspended, Reason: "<b>moved</b>", Building: "1号楼", Unit: "2-301", Until: 1700000000000}},
		raw: []edge.RawDevice{{Serves: "east-in scanner"}, {Serves: "east-in thermometer"}, {Serves: "main beam"}}}
	for i, e := range []edge.Entry{
		{Kind: edge.KindStart, Of: -1, Actor: "system"},
		{Kind: edge.KindDecision, Lane: "east-in", Of: -1, Outcome: edge.Admit, Reason: "resident", Facts: &edge.Facts{Pass: &edge.PassFacts{ID: 8, Category: "worker"}}},
		{Kind: edge.KindPassage, Lane: "east-in", Of: 1, Result: edge.ResultPassed},
		{Kind: edge.KindDecision, Lane: "east-in", Of: -1, Outcome: edge.Deny, Reason: "quota"},
		{Kind: edge.KindAction, Lane: "east-in", Of: 3, Actor: "guard:7", Outcome: edge.Admit, Reason: "medical"},
	} {
		e.Stamp = edge.Stamp{Time: 1650000000000 + int64(i)*1000}
		b, err := e.AppendJSON(nil)
		if err != nil {
			panic(err)
		}
		s.lines = append(s.lines, edge.Stored{Seq: uint64(i), Line: b})
	}
	return s
}

func newConsole(t testing.TB, s *street) *Console {
	t.Helper()
	cat, err := text.New()
	if err != nil {
		t.Fatal(err)
	}
	c, err := New(Config{Listen: "127.0.0.1:0", Gate: "幸福小区东门", Language: "zh-Hans", Location: time.FixedZone("CST", 8*3600)},
		Deps{Lanes: s, Journal: s, Passes: s, People: newPeople(t, s.record), Text: cat, Log: slog.New(slog.DiscardHandler),
			Sync: func() edge.SyncStatus { return edge.SyncStatus{Connected: true, Server: "mqtt", Size: 5, Acked: 3} },
			Devices: func() []edge.DeviceHealth {
				return []edge.DeviceHealth{{Serves: "east-in scanner", Health: device.Health{Driver: "rdm6300", State: device.StateOK, Reads: 12}},
					{Serves: "side thermometer", Health: device.Health{Driver: "gy-mcu90614", State: device.StateAbsent, LastError: "<script>", Noise: 421, Detail: map[string]uint64{"repeated": 9}}},
					{Serves: "east-in indicator", Health: device.Health{Driver: "lamps", State: device.StateOK}}, {Serves: "main barrier", Health: device.Health{Driver: "relay", State: device.StateOK}}}
			},
			Versions: func(context.Context) edge.Versions {
				return edge.Versions{Program: "v1.2.3", Policy: "closed-estate/7", PolicyHash: "sha256:77aa", Roster: 31, Passes: 1204, Wire: 1}
			},
			Raw: s.look, Test: s.Test})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { c.Close() })
	return c
}

func (c *Console) request(method, path string, form url.Values, cookie string, header ...string) *httptest.ResponseRecorder {
	var body io.Reader
	if form != nil {
		form = maps.Clone(form)
		if token, ok := strings.CutPrefix(cookie, sessionCookie+"="); ok && !form.Has("once") {
			token, _, _ = strings.Cut(token, ";")
			form.Set("once", c.once.token(token))
		}
		body = strings.NewReader(form.Encode())
	}
	r := httptest.NewRequest(method, path, body)
	if form != nil {
		r.Header.Set("Content-Type", "application/x-www-form-urlencoded")
	}
	if cookie != "" {
		r.Header.Set("Cookie", cookie)
	}
	for i := 0; i < len(header); i += 2 {
		r.Header.Set(header[i], header[i+1])
	}
	w := httptest.NewRecorder()
	c.Handler().ServeHTTP(w, r)
	return w
}

func TestLanePage(t *testing.T) {
	c := newConsole(t, newStreet())
	for lang, want := range map[string][]string{
		"zh-Hans": {"王*明", "居民", "老人", "37.8 ±0.3 ℃", "达到或超过标准", "人工处理", "体温达到或超过标准", "街道防疫办", "后面还有 3 位", "就医（已看证明）", "请到一旁", "请先用另一支体温计复核", "在一旁等候", "G* O*", "红外对射", "上一位： 李* · 放行", "该户这两天已经外出过", "就医（已看证明） · 值班员 7", "工作人员 8", " 测温仪: 没有找到", "待上传 2"},
		"en":      {"resident", "elderly", "at or above the threshold", "the guard decides", "Temperature at or above the threshold", "3 waiting behind", "Medical (proof seen)", "Step aside", "beam", "Before: 李* · admit", "No card? Find the pass"},
	} {
		w := c.request("GET", "/", nil, c.cookieOf("guard:7")+"; lang="+lang)
		body := w.Body.String()
		for _, s := range want {
			if !strings.Contains(body, s) {
				t.Errorf("%s: the page lacks %q", lang, s)
			}
		}
		for _, s := range []string{"console.", "nav.", "<script>", "style=", "onclick", "http://", "https://"} {
			if s == "console." {
				body = strings.NewReplacer("/assets/console.css", "", "/assets/console.js", "").Replace(body)
			}
			if strings.Contains(body, s) {
				t.Errorf("%s: the page holds %q", lang, s)
			}
		}
		if n := w.Body.Len() + len(read(t, c, "/assets/console.css")) + len(read(t, c, "/assets/console.js")); n > 200<<10 {
			t.Errorf("the first page takes %d bytes", n)
		}
	}
}

func read(t *testing.T, c *Console, path string) string {
	t.Helper()
	w := c.request("GET", path, nil, "")
	if w.Code != http.StatusOK {
		t.Fatalf("%s: %d", path, w.Code)
	}
	return w.Body.String()
}

func TestActions(t *testing.T) {
	s := newStreet()
	c := newConsole(t, s)
	me := c.cookieOf("guard:7")
	w := c.request("POST", "/act", url.Values{"kind": {"admit"}, "lane": {"east-in"}, "presentation": {"41"}, "reason": {"medical"}, "text": {"medical"}, "actor": {"guard:1"}}, me)
	if want := (edge.Action{Kind: edge.ActAdmit, Lane: "east-in", Presentation: 41, Reason: "medical", Text: "medical", Actor: "guard:7"}); w.Code != http.StatusNoContent || s.did()[0] != want {
		t.Errorf("%d %+v", w.Code, s.did())
	}
	c.request("POST", "/act", url.Values{"kind": {"second"}, "lane": {"east-in"}, "presentation": {"41"}, "value": {" 36,6 "}}, me)
	if got := s.did()[1]; got.Value != 36.6 {
		t.Errorf("%+v", got)
	}
	if w := c.request("POST", "/act", url.Values{"kind": {"call"}, "lane": {"side"}}, me, "Accept", "text/html"); w.Code != http.StatusSeeOther {
		t.Errorf("without a script: %d", w.Code)
	}
	n := len(s.did())
	for _, c2 := range []struct {
		form url.Values
		why  string
	}{
		{url.Values{"kind": {"open sesame"}}, "闸机不认识这个操作"},
		{url.Values{"kind": {"admit"}, "presentation": {"-1"}}, "请输入数字"},
		{url.Values{"kind": {"present"}, "pass": {"0"}}, "请输入数字"},
		{url.Values{"kind": {"reading"}, "value": {"NaN"}}, "请输入数字"},
		{url.Values{"kind": {"reading"}, "value": {"3655"}}, "20 到 45 度"},
		{url.Values{"kind": {"admit"}, "lane": {"a\x00b"}}, "无法显示的字符"},
		{url.Values{"kind": {"admit"}, "text": {strings.Repeat("长", 100)}}, "文字太长"},
		{url.Values{"kind": {"admit"}, "text": {strings.Repeat("x", 1<<20)}}, "内容超过了表单的限度"},
	} {
		if w := c.request("POST", "/act", c2.form, me); w.Code/100 != 4 || !strings.Contains(w.Body.String(), c2.why) {
			t.Errorf("%.60v: %d %s", c2.form, w.Code, w.Body)
		}
	}
	if w := c.request("POST", "/act", url.Values{"kind": {"call"}, "lane": {"side"}}, me, "Sec-Fetch-Site", "cross-site"); w.Code != http.StatusForbidden {
		t.Errorf("from another site: %d", w.Code)
	}
	if w := c.request("POST", "/act", url.Values{"kind": {"call"}, "lane": {"side"}}, me, "Origin", "http://elsewhere.example"); w.Code != http.StatusForbidden {
		t.Errorf("from another origin: %d", w.Code)
	}
	if len(s.did()) != n {
		t.Errorf("a refused request did something: %+v", s.did()[n:])
	}
	for err, want := range map[error]struct {
		code int
		text string
	}{
		edge.ErrLate: {http.StatusConflict, "晚了一步"},
		edge.Refuse("proof", "say which proof was seen"): {http.StatusForbidden, "现在不能这样做 请说明看过哪种证明。"},
		errors.New("broken"):                             {http.StatusUnprocessableEntity, "没有办成"},
	} {
		s.refuse = err
		if w := c.request("POST", "/act", url.Values{"kind": {"call"}, "lane": {"side"}}, me); w.Code != want.code || !strings.Contains(w.Body.String(), want.text) {
			t.Errorf("%v: %d %s", err, w.Code, w.Body)
		}
	}
}

// A card finds its pass in whatever form its number is typed or scanned, with the last
// entries and why the person was stopped.
func TestPassByCard(t *testing.T) {
	s := newStreet()
	s.passes = []edge.Pass{{ID: 8, Name: "王*", Building: "10号楼"}, {ID: 9, Name: "李*", Building: "2号楼"}}
	c := newConsole(t, s)
	me := c.cookieOf("guard:7")
	for card, want := range map[string]edge.Credential{"0013530444": mustParse(t, "0013530444", "em-dec10"), " 0600CE754C\r\n": mustParse(t, "0600CE754C", "em-hex"),
		"em:0600CE754C": mustParse(t, "em:0600CE754C", ""), "206,30028": mustParse(t, "206,30028", "w26")} {
		s.card = want
		body := c.request("GET", "/passes?card="+url.QueryEscape(card), nil, me).Body.String()
		for _, part := range []string{`href="/journal/1"`, `href="/journal?pass=8"`, "放行", "10号楼"} {
			if !strings.Contains(body, part) {
				t.Errorf("%q: the page lacks %q; asked for %v", card, part, s.asked)
			}
		}
		if strings.Index(body, "2号楼") > strings.Index(body, "10号楼") {
			t.Error("building 10 stands before 2")
		}
	}
	s.card, s.asked = "nothing", nil
	if w := c.request("GET", "/passes?card="+url.QueryEscape("<b>🙂\x00"), nil, me); w.Code != 200 || strings.Contains(w.Body.String(), "王*") {
		t.Errorf("%d for no card", w.Code)
	}
	if w := c.request("GET", "/passes?card="+strings.Repeat("9", 300), nil, me); w.Code != http.StatusBadRequest {
		t.Errorf("%d for a card of 300 digits", w.Code)
	}
}

func mustParse(t *testing.T, text, form string) edge.Credential {
	t.Helper()
	c, err := edge.ParseCredential(text, form)
	if err != nil {
		t.Fatal(err)
	}
	return c
}

func TestJournalPages(t *testing.T) {
	s := newStreet()
	for i := len(s.lines); i < 200; i++ {
		e := edge.Entry{Kind: edge.KindPassage, Lane: "side", Of: int64(i - 1), Result: edge.ResultPassed}
		b, err := e.AppendJSON(nil)
		if err != nil {
			t.Fatal(err)
		}
		s.lines = append(s.lines, edge.Stored{Seq: uint64(i), Line: b})
	}
	s.lines[0].Line = nil // past its retention
	c := newConsole(t, s)
	me := c.cookieOf("guard:7")
	var recorded []string
	c.deps.Record = func(_ context.Context, k edge.Kind, actor string, data any) error {
		recorded = append(recorded, fmt.Sprint(k, " ", actor, " ", data))
		return nil
	}
	seen, pages := 0, 0
	for next := "/journal"; next != ""; pages++ {
		body := c.request("GET", next, nil, me).Body.String()
		seen += strings.Count(body, `<td><a href="/journal/`)
		_, link, more := strings.Cut(body, `class="link" href="`)
		if next = ""; more {
			next, _, _ = strings.Cut(link, `"`)
			next = strings.ReplaceAll(next, "&amp;", "&")
		}
	}
	if seen != 199 || pages != 4 {
		t.Errorf("%d entries on %d pages, want 199 on 4", seen, pages)
	}
	for query, want := range map[string]int{"lane=east-in": 4, "kind=start": 0, "outcome=deny": 1, "pass=8": 1, "pass=9": 0, "lane=side&outcome=admit": 0} {
		if got := strings.Count(c.request("GET", "/journal?"+query, nil, me).Body.String(), `<td><a href="/journal/`); got != want {
			t.Errorf("%s shows %d entries, want %d", query, got, want)
		}
	}
	for _, query := range []string{"pass=x", "before=-1"} {
		if w := c.request("GET", "/journal?"+query, nil, me); w.Code != http.StatusBadRequest || !strings.Contains(w.Body.String(), "请输入数字") {
			t.Errorf("%s: %d", query, w.Code)
		}
	}
	if w := c.request("GET", "/journal/1", nil, me); w.Code != 200 || !strings.Contains(w.Body.String(), "<dt>类别</dt><dd>工作人员</dd>") || !strings.Contains(w.Body.String(), "&#34;kind&#34;:&#34;decision&#34;") {
		t.Errorf("%d %s", w.Code, w.Body)
	}
	if w := c.request("GET", "/journal/0", nil, me); w.Code != 200 || !strings.Contains(w.Body.String(), "内容已按期限删除") {
		t.Errorf("%d", w.Code)
	}
	for _, path := range []string{"/journal/200", "/journal/x"} {
		if w := c.request("GET", path, nil, me); w.Code != http.StatusNotFound {
			t.Errorf("%s: %d", path, w.Code)
		}
	}
	// Who looked at whom.
	c.request("GET", "/passes?name=x", nil, me)
	want := "access guard:7 map[page:passes passes:[7]]"
	if len(recorded) != 5 || recorded[0] != "access guard:7 map[view:read_journal]" || recorded[4] != want {
		t.Errorf("recorded %q", recorded)
	}
	c.deps.Record = func(context.Context, edge.Kind, string, any) error { return errors.New("disk full") }
	for _, path := range []string{"/passes?name=x", "/journal?pass=8", "/journal/1"} {
		if w := c.request("GET", path, nil, me); w.Code != http.StatusServiceUnavailable || strings.Contains(w.Body.String(), "王*明") || strings.Contains(w.Body.String(), "worker") {
			t.Errorf("%s shows what could not be recorded: %d", path, w.Code)
		}
	}
}

// What the screen at the lane says does not depend on why somebody is stopped,
// nor on whether the guard or the policy decides.
func TestDisplayShamesNobody(t *testing.T) {
	c := newConsole(t, newStreet())
	seen := map[string]bool{}
	for _, state := range []edge.LaneState{edge.LaneReferred, edge.LaneDenied} {
		for _, reason := range []edge.Reason{"temperature.above", "quarantine", "quota", "pass.lost"} {
			v := referred()
			v.State, v.Current.State, v.Current.Reason = state, state, reason
			seen[fmt.Sprint(newSign(c.deps.Text, c.cfg.Languages, v))] = true
		}
	}
	if len(seen) != 1 {
		t.Errorf("different signs: %v", seen)
	}
	body := c.request("GET", "/display/east-in", nil, "").Body.String()
	for _, private := range []string{"王", "301", "37.8", "temperature", "体温"} {
		if strings.Contains(body, private) {
			t.Errorf("the display holds %q", private)
		}
	}
	if !strings.Contains(body, "请与值班人员联系") || !strings.Contains(body, "Please speak to the guard") {
		t.Errorf("the display says nothing: %s", body)
	}
	v := referred()
	v.Current.Pass.Language = "ar"
	if w := newSign(c.deps.Text, c.cfg.Languages, v).Words; len(w) != 3 || w[0].Dir != "rtl" || w[1].Lang != "zh-Hans" {
		t.Errorf("%+v", w)
	}
	for state, want := range map[edge.LaneState]string{edge.LaneIdle: "idle", edge.LaneCard: "idle", edge.LaneMeasuring: "wait", edge.LanePassing: "go", edge.LaneFree: "free", edge.LaneFault: "closed", edge.LaneClosed: "closed"} {
		v := referred()
		v.State = state
		if s := newSign(c.deps.Text, c.cfg.Languages, v); s.Sign != want {
			t.Errorf("%s shows %s", state, s.Sign)
		}
	}
	v = referred()
	v.Current.Say = map[string]string{"en": "Please use the east gate"}
	for _, w := range newSign(c.deps.Text, c.cfg.Languages, v).Words {
		if (w.Text == "Please use the east gate") != (w.Lang == "en") {
			t.Errorf("the rule's own words: %+v", w)
		}
	}
	if w := c.request("GET", "/display/nowhere", nil, ""); w.Code != http.StatusNotFound {
		t.Errorf("%d", w.Code)
	}
}

// events reads the events of a stream until f says that it has what it wants.
func events(t *testing.T, base, path, cookie string, f func(event, data string) bool) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 20*time.Second)
	defer cancel()
	r, err := http.NewRequestWithContext(ctx, "GET", base+path, nil)
	if err != nil {
		t.Fatal(err)
	}
	r.Header.Set("Cookie", cookie)
	client := &http.Client{Transport: &http.Transport{DisableKeepAlives: true}}
	resp, err := client.Do(r)
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	lines := bufio.NewScanner(resp.Body)
	lines.Buffer(nil, 1<<20)
	event := ""
	for lines.Scan() {
		if e, ok := strings.CutPrefix(lines.Text(), "event: "); ok {
			event = e
		}
		if d, ok := strings.CutPrefix(lines.Text(), "data: "); ok && f(event, d) {
			return
		}
	}
	t.Fatalf("%s ended: %v", path, lines.Err())
}

func serve(t *testing.T, c *Console) (base string) {
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- c.Run(ctx) }()
	t.Cleanup(func() {
		cancel()
		if err := <-done; !errors.Is(err, context.Canceled) {
			t.Errorf("the console ended with %v", err)
		}
	})
	return "http://" + c.Addr()
}

func TestLive(t *testing.T) {
	s := newStreet()
	c := newConsole(t, s)
	base := serve(t, c)
	first, changed := map[string]int{}, false
	events(t, base, "/live", c.cookieOf("guard:7"), func(event, data string) bool {
		first[event]++
		if first["lane"] == 3 && first["status"] > 0 && !changed {
			changed = true
			v := referred()
			v.State, v.Current = edge.LaneIdle, nil
			s.set(v)
		}
		return first["lane"] > 3 && strings.Contains(data, "空闲") && strings.Contains(data, "east-in")
	})
	n := 0
	events(t, base, "/display/east-in/live", "", func(event, data string) bool {
		if n++; n == 1 {
			s.set(referred())
		}
		if strings.Contains(data, "王") {
			t.Errorf("the display's stream holds a name: %s", data)
		}
		return event == "sign" && strings.Contains(data, `"sign":"stop"`)
	})
}

// What is sent again is never an older view, nor in another language.
func TestPieces(t *testing.T) {
	c := newConsole(t, newStreet())
	get := func(lang string, version uint64, data []line) string {
		t.Helper()
		b, err := c.piece(lang, "entries", "", version, "entries", func() any { return data })
		if err != nil {
			t.Fatal(err)
		}
		return string(b)
	}
	one := get("en", 1, []line{{What: "first"}})
	c.pieces["en\x00entries\x00"].made = time.Now()
	if got := get("en", 1, []line{{What: "not asked for"}}); got != one || !strings.Contains(one, "first") {
		t.Errorf("%s", got)
	}
	if got := get("en", 2, []line{{What: "second"}}); !strings.Contains(got, "second") {
		t.Errorf("%s", got)
	}
	if got := get("zh-Hans", 2, nil); !strings.Contains(got, "还没有记录") {
		t.Errorf("%s", got)
	}
	c.pieces["en\x00entries\x00"] = &piece{version: 2, made: time.Now().Add(-fresh), event: []byte("stale")}
	if got := get("en", 2, []line{{What: "third"}}); !strings.Contains(got, "third") {
		t.Errorf("%s", got)
	}
}

// The rules stand where they hold and by whom they are for, in plain words, with who
// ordered them, until when, and what is still to come.
// A plan that is switched on stands where guards look all the time, and on the rules.
func TestPlanInForce(t *testing.T) {
	c := newConsole(t, newStreet())
	var now *edge.PlanFacts
	c.deps.Plan = func() *edge.PlanFacts { return now }
	for _, x := range []struct {
		plan *edge.PlanFacts
		want map[string]string
	}{
		{nil, nil},
		{&edge.PlanFacts{Name: "flood"}, map[string]string{"zh-Hans": "应急预案生效中：flood", "en": "Emergency plan in force: flood"}},
		{&edge.PlanFacts{Name: "fire", Drill: true}, map[string]string{"zh-Hans": "演练中，预案：fire", "en": "Drill, plan: fire"}},
	} {
		now = x.plan
		for _, lang := range []string{"zh-Hans", "en"} {
			for _, page := range []string{"/", "/rules"} {
				body := c.request("GET", page, nil, c.cookieOf("guard:7")+"; lang="+lang).Body.String()
				if want := x.want[lang]; strings.Contains(body, `class="plan"`) != (x.plan != nil) || !strings.Contains(body, want) {
					t.Errorf("%s, %s: %q is not there, or something else is", page, lang, want)
				}
			}
		}
	}
}

func TestRules(t *testing.T) {
	c := newConsole(t, newStreet())
	zone := c.cfg.Location
	c.deps.Rules = func() Rules {
		return Rules{Title: "封闭管理", Hash: "sha256:0123456789abcdef", Threshold: 37.3, Otherwise: edge.Refer,
			Areas: []Area{{Code: "north", Name: "北院", Tier: edge.TierLockdown, Days: 3}, {Code: "south", Name: "南院", Tier: edge.TierNormal}},
			List: []Rule{
				{ID: "protect.medical", Kind: "protect", Outcome: edge.Admit, Policy: "市里的规则", Conditional: true},
				{ID: "quota", Title: "x", Outcome: edge.Deny, Direction: "out", Category: "resident", By: "街道防疫办", Basis: "2022-17", Until: time.Date(2026, 11, 29, 0, 0, 0, 0, zone), Days: true},
				{ID: "own.rule", Title: "The site's own <b>words</b>", Outcome: edge.Refer, NotCategory: "resident", Hours: &Hours{22*60 + 30, 6*60 + 30, []int{5, 6}}, From: time.Date(2026, 12, 1, 8, 0, 0, 0, zone), Coming: true},
				{ID: "x.north", Reason: "tier.lockdown", Outcome: edge.Deny, Tier: edge.TierLockdown},
				{ID: "x.control", Reason: "tier.control", Outcome: edge.Deny, Tier: edge.TierControl, Level: edge.LevelEstate},
				{ID: "x.south", Title: "Only in the south", Outcome: edge.Admit, Area: "south", Hours: &Hours{480, 1080, []int{1, 2, 3, 4, 5, 6, 7}}}}}
	}
	for lang, wants := range map[string][]string{
		"zh-Hans": {"封闭管理", "37.3 ℃ 视为偏高", "所有区域", "所有人", "必须放行，任何规则不得阻拦", "紧急就医，不得拒绝", "视具体情况", "没有截止日期 · 市里的规则 · protect.medical", "居民", "不予通行", "该户这两天已经外出过", "外出时", "依据： 街道防疫办 · 2022-17 · 有效至 2026年11月28日 · quota",
			"除居民以外的人", "由值班员处理", "The site&#39;s own &lt;b&gt;words&lt;/b&gt;", "周五、周六 22:30–06:30", "2026年12月1日 08:00 起",
			"北院", "封控区 · 已持续 3 天", "封控区，足不出户", "南院", "Only in the south", "每天 08:00–18:00", "管控区（此处现在没有）", "管控区，人不出区", "小区门", "没有规则提到的人：由值班员处理", "sha256:0123456789abcdef"},
		"en": {"A temperature of 37.3 °C", "All areas", "Everybody", "Always admitted, whatever other rules say:", "Not admitted:", "going out", "until 28 Nov 2026", "Everybody but: resident", "Fri, Sat 22:30–06:30", "from 1 Dec 2026, 08:00 on", "北院", "for 3 days", "Only in the south", "control (none here now)", "goes to the guard"},
	} {
		body := c.request("GET", "/rules", nil, "lang="+lang).Body.String()
		_, body, _ = strings.Cut(body, "<main>")
		for _, want := range wants {
			_, rest, ok := strings.Cut(body, want)
			if !ok {
				t.Errorf("%s: %q is not where it should be", lang, want)
				continue
			}
			body = rest
		}
	}
	// Without any policy the page still stands.
	c.deps.Rules = nil
	if w := c.request("GET", "/rules", nil, ""); w.Code != http.StatusOK || !strings.Contains(w.Body.String(), "没有另外的规则") {
		t.Errorf("%d", w.Code)
	}
}

func TestTooManyWatchers(t *testing.T) {
	c := newConsole(t, newStreet())
	c.watchers = maxWatchers
	if w := c.request("GET", "/live", nil, c.cookieOf("guard:7")); w.Code != http.StatusServiceUnavailable {
		t.Errorf("%d", w.Code)
	}
}

// FuzzRequests: no request makes the console fail, or act on what it cannot read.
func FuzzRequests(f *testing.F) {
	f.Add("POST", "/act", "kind=admit&lane=east-in&presentation=41&reason=medical")
	f.Add("POST", "/passes", "pass=7&status=suspended&reason=x")
	f.Add("POST", "/enter", "secret=x&number=7")
	f.Add("POST", "/setup", "code=x&name=y&secret=z&secret2=z")
	f.Add("POST", "/relief", "secret=x&number=8")
	f.Add("POST", "/me", "old=x&secret=123&secret2=123")
	f.Add("POST", "/people", "name=x&role=guard&number=9&card=3C00CE754C")
	f.Add("POST", "/people/8", "do=change&name=x&role=supervisor")
	f.Add("POST", "/people/8", "do=reset")
	f.Add("POST", "/inspector", "answer=gatehouse-inspection/1%0Achallenge+x%0Aanswer+y%0A%0Az&challenge=x")
	f.Add("POST", "/devices", "lane=east-in&test=barrier")
	f.Add("POST", "/passes", "pass=7&reason=%zz&once=")
	f.Add("GET", "/passes?card=0013530444&lane=side", "")
	f.Add("GET", "/passes?name=%ff&building=1%E5%8F%B7", "")
	f.Add("GET", "/journal?pass=8&kind=decision&outcome=deny&before=3", "")
	f.Add("GET", "/control?from=2026-02-30&to=x", "")
	f.Add("GET", "/rules?lang=en", "")
	f.Add("GET", "//elsewhere.example/%2e%2e/journal/99999999999999999999", "")
	s := newStreet()
	c := newConsole(f, s)
	for _, r := range c.routes() {
		method, path, _ := strings.Cut(r.pattern, " ")
		f.Add(method, paths.Replace(path), "")
	}
	me := c.cookieOf("manager:1")
	_, token, _ := strings.Cut(me, "=")
	c.meter = nil
	f.Fuzz(func(t *testing.T, method, target, body string) {
		to, err := url.ParseRequestURI(target)
		if err != nil || !strings.HasPrefix(target, "/") || method != "GET" && method != "POST" {
			return
		}
		if to.Path == "/leave" && method == "POST" {
			return // the session goes on
		}
		if method == "POST" && !strings.Contains(body, "once=") {
			body += "&once=" + c.once.token(token)
		}
		r, err := http.NewRequestWithContext(t.Context(), method, to.String(), strings.NewReader(body))
		if err != nil {
			return
		}
		r.RequestURI, r.RemoteAddr, r.Host = target, "192.0.2.1:1234", "gate.example"
		if method == "POST" {
			r.Header.Set("Content-Type", "application/x-www-form-urlencoded")
		}
		r.Header.Set("Accept", "text/html")
		r.Header.Set("Cookie", me)
		w := httptest.NewRecorder() // it has no deadlines, so a stream ends with its first event
		s.actions, s.tests = nil, nil
		c.Handler().ServeHTTP(w, r)
		if w.Code >= 500 {
			t.Fatalf("%s %q %q: %d %s", method, target, body, w.Code, w.Body)
		}
		if to := w.Header().Get("Location"); strings.HasPrefix(to, "//") || strings.HasPrefix(to, "/\\") || strings.Contains(to, "://") {
			t.Fatalf("%s %q leads to %q", method, target, to)
		}
		if l, err := c.deps.People.List(t.Context()); err != nil || len(l) == 0 || l[0].Role != accounts.Manager {
			t.Fatalf("%s %q %q: the manager is gone: %v %v", method, target, body, l, err)
		}
		if method == "GET" && len(s.actions)+len(s.tests) > 0 {
			t.Fatalf("%q did something: %v %v", target, s.actions, s.tests)
		}
		for _, a := range s.actions {
			if a.Actor != "manager:1" || len(a.Text) > 200 || strings.ContainsAny(a.Lane+a.Text, "\x00\n\r") {
				t.Fatalf("%+v", a)
			}
		}
	})
}

// BenchmarkWatchers is what one change of one lane costs with 50 tablets
// watching; the console's share of a busy gate follows from it.
func BenchmarkWatchers(b *testing.B) {
	s := newStreet()
	c := newConsole(b, s)
	p := c.deps.Text.For("zh-Hans")
	st := &stream{c: c, lang: "zh-Hans", w: discard{}, rc: http.NewResponseController(discard{})}
	v := referred()
	b.ReportAllocs()
	for b.Loop() {
		v.Version++
		for range 50 {
			if err := st.html("lane", v.Lane, v.Version, "panel", func() any { return newPanel(p, v) }); err != nil {
				b.Fatal(err)
			}
		}
	}
}

type discard struct{}

func (discard) Header() http.Header              { return http.Header{} }
func (discard) Write(b []byte) (int, error)      { return len(b), nil }
func (discard) WriteHeader(int)                  {}
func (discard) Flush()                           {}
func (discard) SetWriteDeadline(time.Time) error { return nil }
