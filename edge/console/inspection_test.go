package console

import (
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"net/http"
	"net/http/httptest"
	"net/url"
	"slices"
	"strings"
	"testing"
	"time"

	"gatehouse/edge"
	"gatehouse/edge/clock"
	"gatehouse/edge/text"
)

func entryAt(t *testing.T, s *street, at time.Time, e edge.Entry) {
	t.Helper()
	if e.Of == 0 {
		e.Of = -1
	}
	e.Stamp.Time = at.UnixMilli()
	if e.Stamp.Clock == "" {
		e.Stamp.Clock = edge.ClockSynced
	}
	b, err := e.AppendJSON(nil)
	if err != nil {
		t.Fatal(err)
	}
	s.lines = append(s.lines, edge.Stored{Seq: uint64(len(s.lines)), Line: b})
}

// Who is believed inside, those who need care first in each building, and with
// the age of what is known.
func TestInside(t *testing.T) {
	s := newStreet()
	c := newConsole(t, s)
	now := time.Date(2026, 11, 28, 6, 5, 0, 0, time.UTC)
	c.deps.Clock = clock.NewFake(now, 480)
	c.deps.Inside = func(context.Context) ([]edge.Inside, error) {
		return []edge.Inside{
			{Pass: edge.Pass{ID: 3, Name: "张*", Category: "resident", Building: "2号楼", Unit: "101"}, Since: now.UnixMilli()},
			{Pass: edge.Pass{ID: 1, Name: "王*明", Category: "resident", Building: "1号楼", Unit: "101"}, Since: now.Add(-30 * time.Hour).UnixMilli(), Peer: true},
			{Pass: edge.Pass{ID: 2, Name: "李*", Category: "resident", Building: "1号楼", Unit: "902", Care: []string{"elderly"}}, Since: now.UnixMilli()},
			{Pass: edge.Pass{ID: 77}, Since: now.UnixMilli()},
			{Pass: edge.Pass{ID: 5, Name: "赵*", Building: "10号楼", Unit: "1003"}, Since: now.Add(-2 * time.Hour).UnixMilli(), Unknown: now.Add(-time.Hour).UnixMilli()},
			{Pass: edge.Pass{ID: 6, Name: "钱*", Building: "10号楼", Unit: "203"}, Since: now.UnixMilli()},
		}, nil
	}
	me := c.cookieOf("guard:7")
	body := c.request("GET", "/inside", nil, me).Body.String()
	at := -1
	for _, want := range []string{"可能在内 6 人", "其中 1 人需要照顾", "其中 1 人自 13:05 起位置不明，此前在内", "2026年11月28日 14:05", "没有楼栋", "通行证 77", "14:05<span class=\"noprint\"> · 刚才</span>", "1号楼 (2)", "李*", "老人", "王*明", "11月27日 08:05<span class=\"noprint\"> · 30 小时前</span>", "时间较久", "其他门口", "2号楼 (1)", "张*",
		"10号楼 (2)", "203", "1003", "12:05<span class=\"noprint\"> · 2 小时前</span>", "13:05 起不明"} {
		i := strings.Index(body, want)
		if i <= at {
			t.Errorf("%q at %d, after %d", want, i, at)
		}
		at = i
	}
	if strings.Contains(body, `action="/inside"`) {
		t.Error("a guard is offered the reset")
	}
	c.deps.Inside = func(context.Context) ([]edge.Inside, error) { return nil, errors.New("broken") }
	if w := c.request("GET", "/inside", nil, me); w.Code != http.StatusServiceUnavailable || strings.Contains(w.Body.String(), "在内 0 人") || strings.Contains(w.Body.String(), "估计没有人在内") {
		t.Errorf("%d: what cannot be read is nobody", w.Code)
	}
}

// How old what is known of other gates is, and that the clock is not sure, stands on
// the list.
func TestInsideSaysHowSureItIs(t *testing.T) {
	c := newConsole(t, newStreet())
	clk := clock.NewFake(time.Date(2026, 11, 28, 6, 5, 30, 0, time.UTC), 480)
	c.deps.Clock = clk
	me := c.cookieOf("guard:7") + "; lang=en"
	if body := c.request("GET", "/inside", nil, me).Body.String(); strings.Contains(body, "Nothing heard") || strings.Contains(body, "not sure") {
		t.Error("all is well, and the page says otherwise")
	}
	c.deps.Sync = func() edge.SyncStatus { return edge.SyncStatus{} }
	stamp := clk.Now()
	stamp.Clock = edge.ClockUnset
	clk.Set(stamp)
	if body := c.request("GET", "/inside", nil, me).Body.String(); !strings.Contains(body, "gates yet") || !strings.Contains(body, "not sure") {
		t.Error("the page does not say that nothing was heard, or that the clock is not sure")
	}
	c.deps.Sync = func() edge.SyncStatus {
		return edge.SyncStatus{LastReceipt: time.Now().Add(-time.Hour)}
	}
	if body := c.request("GET", "/inside", nil, me).Body.String(); !strings.Contains(body, "since 13:05") {
		t.Error("the page does not say since when nothing was heard")
	}
}

// The answer to a form that is refused shows the list as well; nobody sees it
// without an entry.
func TestEveryLookAtInsideIsRecorded(t *testing.T) {
	s := newStreet()
	c := newConsole(t, s)
	c.deps.Inside = func(context.Context) ([]edge.Inside, error) {
		return []edge.Inside{{Pass: edge.Pass{ID: 3, Name: "张*"}}}, nil
	}
	me := c.cookieOf("supervisor:2")
	post := func() *httptest.ResponseRecorder {
		return c.request("POST", "/inside", url.Values{"why": {"because"}}, me)
	}
	c.deps.Record = s.record
	s.disk = errors.New("the medium is full")
	if w := post(); w.Code != http.StatusServiceUnavailable || strings.Contains(w.Body.String(), "张*") || !strings.Contains(w.Body.String(), "名单不予显示") {
		t.Errorf("%d: shown without an entry", w.Code)
	}
	s.disk = nil
	s.recorded = nil
	if w := post(); w.Code != http.StatusUnprocessableEntity || !strings.Contains(w.Body.String(), "张*") {
		t.Errorf("%d", w.Code)
	}
	if got := strings.Join(s.recorded, ","); got != "access supervisor:2 map[view:see_inside]" {
		t.Errorf("recorded %q", got)
	}
}

// Two persons reset the positions; each of what can be wrong leaves them.
func TestResetPositions(t *testing.T) {
	c := newConsole(t, newStreet())
	var did []string
	c.deps.ResetPositions = func(_ context.Context, actor, second, why string) error {
		did = append(did, actor+" "+second+" "+why)
		return nil
	}
	me := c.cookieOf("supervisor:2")
	for _, x := range []struct {
		why, second, pin string
		code             int
	}{{"drill", "2", pin, 403}, {"drill", "8", "wrong!", 403}, {"drill", "", "", 403}, {"because", "8", pin, 422}, {"drill", "5", pin, 403}, {"drill", "8", pin, 200}} {
		w := c.request("POST", "/inside", url.Values{"why": {x.why}, "second": {x.second}, "second_pin": {x.pin}}, me)
		if w.Code != x.code || (x.code != 200 && x.second != "" && !strings.Contains(w.Body.String(), `value="`+x.second+`"`)) {
			t.Errorf("%+v: %d", x, w.Code)
		}
	}
	if len(did) != 1 || did[0] != "supervisor:2 guard:8 drill" {
		t.Errorf("%q", did)
	}
}

// The day's figures from the journal's entries alone.
func TestControlRoom(t *testing.T) {
	s := newStreet()
	s.lines = nil
	now := time.Now()
	ago := func(h float64) time.Time { return now.Add(-time.Duration(h * float64(time.Hour))) }
	entryAt(t, s, ago(40), edge.Entry{Kind: edge.KindPassage, Lane: "east-in", Result: edge.ResultForced})
	entryAt(t, s, ago(30), edge.Entry{Kind: edge.KindDevice, Lane: "east-in", Data: []byte(`{"device":"reader","state":"disconnected"}`)})
	entryAt(t, s, ago(20), edge.Entry{Kind: edge.KindDevice, Lane: "east-in", Data: []byte(`{"device":"thermometer","state":"fault"}`)})
	entryAt(t, s, ago(19), edge.Entry{Kind: edge.KindDevice, Lane: "east-in", Data: []byte(`{"device":"reader","state":"ok"}`)})
	entryAt(t, s, ago(18), edge.Entry{Kind: edge.KindDevice, Lane: "east-in", Data: []byte(`{"device":"thermometer","state":"ok"}`), Stamp: edge.Stamp{Clock: edge.ClockUnset}})
	entryAt(t, s, ago(16), edge.Entry{Kind: edge.KindDecision, Lane: "east-in", Outcome: edge.Admit})
	entryAt(t, s, ago(15), edge.Entry{Kind: edge.KindPassage, Lane: "east-in", Result: edge.ResultPassed})
	entryAt(t, s, ago(15), edge.Entry{Kind: edge.KindPassage, Lane: "east-in", Result: edge.ResultTailgated})
	for range 2 {
		entryAt(t, s, ago(3), edge.Entry{Kind: edge.KindAction, Lane: "east-out", Actor: "guard:7", Outcome: edge.Admit, Reason: "medical"})
	}
	entryAt(t, s, ago(2), edge.Entry{Kind: edge.KindAction, Lane: "east-out", Actor: "guard:8", Outcome: edge.Deny, Reason: "guard.denied"})
	entryAt(t, s, ago(1), edge.Entry{Kind: edge.KindDevice, Lane: "side", Data: []byte(`{"device":"reader","state":"absent"}`)})
	c := newConsole(t, s)
	f, err := c.figures(t.Context(), c.deps.Text.For("en"), now)
	if err != nil {
		t.Fatal(err)
	}
	got := map[string]*laneFigures{}
	for _, l := range f.Lanes {
		got[l.Name] = l
	}
	if l := got["东门入口"]; l.Admitted != 1 || l.Beam() != 2 || l.Forced != 0 || !l.Differ() || l.FaultHours != "6.0" {
		t.Errorf("%+v", l)
	}
	if l := got["侧门"]; l.FaultHours != "1.0" || l.Differ() {
		t.Errorf("%+v", l)
	}
	if f.Untrusted != "2.0" {
		t.Errorf("the clock was not trusted for %s hours", f.Untrusted)
	}
	if len(f.Overrides) != 2 || f.Overrides[0] != (override{"guard 7", "admit", "Medical (proof seen)", 2}) || f.Overrides[1].Actor != "guard 8" {
		t.Errorf("%+v", f.Overrides)
	}
	if w := c.request("GET", "/control", nil, c.cookieOf("supervisor:2")); w.Code != 200 || !strings.Contains(w.Body.String(), "值班员 8") {
		t.Errorf("%d", w.Code)
	}
}

// An entry's page has its explanation and its proof, with a code to photograph.
func TestEntryIsExplainedAndProved(t *testing.T) {
	c := newConsole(t, newStreet())
	c.deps.Explain = func(_ context.Context, e *edge.Entry, in *text.Printer) (edge.Explanation, bool) {
		return edge.Explanation{Sentence: "because " + in.Language(), Counter: []string{"if <b>"}, Superior: "city too"}, true
	}
	c.deps.Proof = func(_ context.Context, seq uint64) (edge.Proof, edge.Head, error) {
		if seq > 4 {
			return edge.Proof{}, edge.Head{}, edge.ErrUnknown
		}
		return edge.Proof{Seq: seq, Line: []byte("x"), Head: []byte("c/s/g/0\n5\nAAAA\n\n")}, edge.Head{Origin: "c/s/g/0", Size: 5, Root: sha256.Sum256([]byte("x"))}, nil
	}
	me := c.cookieOf("guard:7")
	body := c.request("GET", "/journal/1", nil, me).Body.String()
	for _, want := range []string{"because zh-Hans", "if &lt;b&gt;", "city too", "<dd>5</dd>", "<dd>LXEWQrcmsEQBYnyp&#43;6wy9chTD7GQPMTbAiWHF5IaSIE=</dd>", `<svg class="qr"`, `href="/journal/1/proof"`} {
		if !strings.Contains(body, want) {
			t.Errorf("the page lacks %q", want)
		}
	}
	w := c.request("GET", "/journal/1/proof", nil, me)
	if w.Code != 200 || !strings.HasPrefix(w.Header().Get("Content-Disposition"), "attachment") || !strings.HasPrefix(w.Body.String(), "c2sp.org/tlog-proof@v1\n") {
		t.Errorf("%d %s", w.Code, w.Body)
	}
	c.deps.Head = func(context.Context) (edge.Head, error) {
		return edge.Head{Origin: "c/s/g/0", Size: 9, Root: sha256.Sum256([]byte("x"))}, nil
	}
	body = c.request("GET", "/control", nil, c.cookieOf("supervisor:2")).Body.String()
	for _, want := range []string{"<dd>9</dd>", "<dd>LXEWQrcmsEQBYnyp&#43;6wy9chTD7GQPMTbAiWHF5IaSIE=</dd>", `<svg class="qr"`} {
		if !strings.Contains(body, want) {
			t.Errorf("the control room lacks %q", want)
		}
	}
	for _, path := range []string{"/journal/9/proof", "/journal/x/proof"} {
		if w := c.request("GET", path, nil, me); w.Code != 404 {
			t.Errorf("%s: %d", path, w.Code)
		}
	}
}

// A gate that has its time from the server, years from what the machine believes,
// shows its own time and counts by it.
func TestPagesGoByTheGatesClock(t *testing.T) {
	s := newStreet()
	s.lines = nil
	at := time.Date(2031, 3, 1, 6, 5, 0, 0, time.UTC)
	entryAt(t, s, at.Add(-time.Hour), edge.Entry{Kind: edge.KindPassage, Lane: "east-in", Result: edge.ResultForced})
	c := newConsole(t, s)
	c.deps.Clock = clock.NewFake(at, 480)
	c.deps.Inside = func(context.Context) ([]edge.Inside, error) {
		return []edge.Inside{{Pass: edge.Pass{ID: 3}, Since: at.Add(-2 * time.Hour).UnixMilli()}}, nil
	}
	f, err := c.figures(t.Context(), c.deps.Text.For("en"), c.now())
	if err != nil {
		t.Fatal(err)
	}
	if l := f.Lanes[0]; l.Forced != 1 || f.From != "28 Feb 2031, 14:05" {
		t.Errorf("from %s: %+v", f.From, l)
	}
	boss := c.cookieOf("supervisor:2")
	for path, want := range map[string]string{"/": "<time>14:05:00</time>", "/inside": "2031年3月1日 14:05", "/control": "2031年2月28日 14:05", "/journal": "<td>13:05:00</td>"} {
		body := c.request("GET", path, nil, boss).Body.String()
		if !strings.Contains(body, want) {
			t.Errorf("%s lacks %q", path, want)
		}
		if path == "/inside" && strings.Contains(body, "一天以前") {
			t.Error("somebody who came two hours ago came more than a day ago")
		}
	}
}

// A device that was repaired while the gate was off is not faulty for ever, and
// hours of an open barrier are counted: in a fire, and when a door is held open.
func TestHoursOfFaultsAndOpenBarriers(t *testing.T) {
	s := newStreet()
	s.lines = nil
	s.views[0].Passage, s.views[1].Passage, s.views[2].Passage = "east", "east", "side"
	now := time.Now()
	ago := func(h float64) time.Time { return now.Add(-time.Duration(h * float64(time.Hour))) }
	broken := func(device string) edge.Entry {
		return edge.Entry{Kind: edge.KindDevice, Lane: "east-in", Data: []byte(`{"device":"` + device + `","state":"fault"}`)}
	}
	entryAt(t, s, ago(20), broken("reader"))
	entryAt(t, s, ago(18), edge.Entry{Kind: edge.KindStart})
	entryAt(t, s, ago(10), broken("barrier"))
	entryAt(t, s, ago(9), edge.Entry{Kind: edge.KindPassage, Lane: "east-in", Result: edge.ResultPassed})
	entryAt(t, s, ago(8), edge.Entry{Kind: edge.KindPassage, Lane: "east-out", Result: edge.ResultHeldOpen})
	entryAt(t, s, ago(7), edge.Entry{Kind: edge.KindFire, Data: []byte(`{"on":true,"by":"side"}`)})
	entryAt(t, s, ago(6), edge.Entry{Kind: edge.KindPassage, Result: "closed", Data: []byte(`{"passage":"east"}`)})
	entryAt(t, s, ago(5), edge.Entry{Kind: edge.KindFire, Data: []byte(`{"on":false,"by":"side"}`)})
	entryAt(t, s, ago(4), edge.Entry{Kind: edge.KindPassage, Result: edge.ResultForced, Data: []byte(`{"passage":"east","by":"beam"}`)})
	entryAt(t, s, ago(3), edge.Entry{Kind: edge.KindPassage, Result: edge.ResultHeldOpen, Data: []byte(`{"passage":"side"}`)})
	entryAt(t, s, ago(1), edge.Entry{Kind: edge.KindStart})
	c := newConsole(t, s)
	f, err := c.figures(t.Context(), c.deps.Text.For("en"), now)
	if err != nil {
		t.Fatal(err)
	}
	var got []string
	for _, l := range f.Lanes {
		got = append(got, fmt.Sprintf("%s fault %s open %s forced %d held %d", l.Name, l.FaultHours, l.OpenHours, l.Forced, l.HeldOpen))
	}
	want := []string{"东门入口 fault 3.0 open 3.0 forced 1 held 0", "东门出口 fault 0.0 open 3.0 forced 0 held 1", "侧门 fault 0.0 open 4.0 forced 0 held 1"}
	if !slices.Equal(got, want) {
		t.Errorf("%q\nwant %q", got, want)
	}
}
