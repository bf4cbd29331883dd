package console

import (
	"fmt"
	"net/http"
	"net/url"
	"reflect"
	"strings"
	"testing"
	"time"

	"gatehouse/edge"
	"gatehouse/edge/clock"
)

// A street of ten hours at the gate: an entry each hour from 08:00 on.
func hourly(t *testing.T) (*street, *Console) {
	t.Helper()
	s := newStreet()
	s.lines = nil
	begin := time.Date(2026, 11, 28, 0, 0, 0, 0, time.UTC)
	for i, e := range []edge.Entry{
		{Kind: edge.KindStart, Actor: "system"},
		{Kind: edge.KindDecision, Lane: "east-in", Outcome: edge.Deny, Reason: "quota"},
		{Kind: edge.KindAction, Lane: "east-in", Actor: "guard:7", Outcome: edge.Admit, Reason: "medical"},
		{Kind: edge.KindAlert, Lane: "east-in", Actor: "guard:7", Data: []byte(`{"alert":"tamper","open":true}`)},
		{Kind: edge.KindAction, Lane: "side", Actor: "guard:77", Data: []byte(`{"action":"close"}`)},
		{Kind: edge.KindSession, Actor: "supervisor:7", Data: []byte(`{"action":"relief","of":"guard:77"}`)},
		{Kind: edge.KindClock, Actor: "system", Data: []byte(`{"from":"synced","to":"holdover"}`)},
		{Kind: edge.KindCommand, Actor: "system", Data: []byte(`{"number":3,"name":"close-lane","status":"done"}`)},
		{Kind: edge.KindDevice, Lane: "east-in", Actor: "system", Data: []byte(`{"device":"reader","state":"absent","error":"open /dev/ttyUSB0: no such file or directory"}`)},
		{Kind: edge.KindAccess, Actor: "manager:1", Data: []byte(`{"view":"see_inside"}`)},
	} {
		entryAt(t, s, begin.Add(time.Duration(i)*time.Hour), e)
	}
	s.lines[0].Line = nil // past its retention
	c := newConsole(t, s)
	c.meter = nil // a test asks faster than a person
	c.deps.Clock = clock.NewFake(begin.Add(12*time.Hour), 480)
	return s, c
}

// The journal is asked by time and by who it was, for every kind, in the words of
// the reader.
func TestJournalFilters(t *testing.T) {
	_, c := hourly(t)
	me := c.cookieOf("guard:7")
	for query, want := range map[string]string{
		"":                      "9 8 7 6 5 4 3 2 1",
		"from=2026-11-28T13:00": "9 8 7 6 5",
		"to=2026-11-28T10:59":   "2 1",
		"from=2026-11-28T10:00&to=2026-11-28T11:00": "3 2",
		"from=2026-11-28&to=2026-11-28":             "9 8 7 6 5 4 3 2 1",
		"from=2026-11-29":                           "",
		"to=2026-11-27":                             "",
		"from=2026-11-28T10:00&actor=7":             "5 3 2",
		"actor=guard:7":                             "3 2",
		"actor=guard":                               "4 3 2",
		"actor=system":                              "8 7 6",
		"kind=alert":                                "3",
		"kind=clock":                                "6",
		"kind=command":                              "7",
		"before=3":                                  "2 1",
		"from=2026-11-28T09:00&before=3":            "2 1",
	} {
		w := c.request("GET", "/journal?"+query, nil, me)
		var got []string
		for _, part := range strings.Split(w.Body.String(), `<td><a href="/journal/`)[1:] {
			seq, _, _ := strings.Cut(part, `"`)
			got = append(got, seq)
		}
		if w.Code != http.StatusOK || strings.Join(got, " ") != want {
			t.Errorf("%s: %d, %v, want %s", query, w.Code, got, want)
		}
	}
	for query, want := range map[string]string{"from=yesterday": "请输入日期和时间", "to=2026-13-01": "请输入日期和时间", "from=2026-11-28T11:00&to=2026-11-28T10:00": "结束时间早于开始时间", "actor=" + strings.Repeat("x", 70): "输入太长"} {
		w := c.request("GET", "/journal?"+query, nil, me)
		name, typed, _ := strings.Cut(query, "=")
		typed, _, _ = strings.Cut(typed, "&")
		if w.Code != http.StatusBadRequest || !strings.Contains(w.Body.String(), want) || !strings.Contains(w.Body.String(), fmt.Sprintf("name=%q", name)) || !strings.Contains(w.Body.String(), fmt.Sprintf("value=%q", typed)) {
			t.Errorf("%s: %d", query, w.Code)
		}
	}
	body := c.request("GET", "/journal", nil, me+"; lang=en").Body.String()
	for _, want := range []string{"a box was opened", "lane closed", "took over", "guard 77", "close-lane: done", "reader: not found", "was set once", ">inside ·", `<option value="alert">`} {
		if !strings.Contains(body, want) {
			t.Errorf("the journal lacks %q", want)
		}
	}
	body = c.request("GET", "/journal/8", nil, me).Body.String()
	if !strings.Contains(body, "<dt>错误</dt><dd>找不到，请检查插头和线缆（open /dev/ttyUSB0: no such file or directory）</dd>") || !strings.Contains(body, "<dt>状态</dt><dd>没有找到</dd>") {
		t.Errorf("a device's error is not told in words: %s", body)
	}
}

// What a person noted down at the lane leads to the entry, and a wrong digit does not.
func TestJournalByReference(t *testing.T) {
	_, c := hourly(t)
	c.deps.Origin = func() string { return "c/s/g/0" }
	me := c.cookieOf("guard:7")
	ref := edge.Reference("c/s/g/0", 3)
	if w := c.request("GET", "/journal?ref="+url.QueryEscape(" "+strings.ReplaceAll(ref, "-", " ")), nil, me); w.Code != http.StatusSeeOther || w.Header().Get("Location") != "/journal/3" {
		t.Errorf("%s: %d %s", ref, w.Code, w.Header().Get("Location"))
	}
	if body := c.request("GET", "/journal/3", nil, me).Body.String(); !strings.Contains(body, "<dt>查询号</dt><dd>"+ref+"</dd>") {
		t.Error("the entry does not show its reference")
	}
	for _, wrong := range []string{"x", "1", edge.Reference("c/s/other/0", 3), edge.Reference("c/s/g/0", 99), "4" + ref[1:]} {
		w := c.request("GET", "/journal?ref="+url.QueryEscape(wrong), nil, me)
		if w.Code != http.StatusNotFound || !strings.Contains(w.Body.String(), "没有这个查询号") || !strings.Contains(w.Body.String(), `value="`+wrong+`"`) {
			t.Errorf("%q: %d", wrong, w.Code)
		}
	}
}

// Every fact has its name in words, and so have the codes that facts hold.
func TestFactsHaveWords(t *testing.T) {
	c := newConsole(t, newStreet())
	var names []string
	var walk func(name string, x reflect.Type)
	walk = func(name string, x reflect.Type) {
		for x.Kind() == reflect.Pointer {
			x = x.Elem()
		}
		switch {
		case x.Kind() == reflect.Struct:
			for f := range x.Fields() {
				tag, _, _ := strings.Cut(f.Tag.Get("json"), ",")
				if tag != "-" {
					walk(strings.TrimPrefix(name+"."+tag, "."), f.Type)
				}
			}
		case x.Kind() == reflect.Map:
			if x.Elem().Kind() == reflect.Struct {
				walk(name+".x", x.Elem())
			} else {
				names = append(names, name+".x")
			}
		default:
			names = append(names, name)
		}
	}
	walk("", reflect.TypeFor[edge.Facts]())
	if len(names) < 50 {
		t.Fatalf("only %d facts", len(names))
	}
	for _, lang := range []string{"zh-Hans", "en"} {
		p := c.deps.Text.For(lang)
		for _, name := range names {
			if got := nameInWords(p, name); got == name || strings.HasPrefix(got, "fact.") {
				t.Errorf("%s: the fact %s has no name", lang, name)
			}
		}
		for name, codes := range map[string][]string{"pass.status": {"active", "suspended", "lost", "foreign"}, "temperature.state": {"ok", "invalid", "unstable", "missing", "warming", "unusable", "fault", "none"},
			"temperature.second": {"below", "near", "above"}, "area.tier": {"lockdown", "control", "prevention", "normal"}, "lane.level": {"estate", "building", "household"}, "position.at": {"inside", "outside", "unknown"},
			"guard.identity": {"known", "document", "host", "phone", "mismatch"}, "guard.mask": {"yes", "no"}, "guard.proof": {"medical", "duty", "discharge"}, "guard.purpose": {"shopping", "medical", "duty", "delivery"},
			"holder.quarantine": {"home", "observation", "released"}, "visitor.origin": {"low", "medium", "high"}, "holder.code": {"green", "yellow", "red"}} {
			for _, code := range codes {
				if got := valueInWords(p, name, code); got == code && lang == "zh-Hans" {
					t.Errorf("%s: %s of %s has no word", lang, code, name)
				}
			}
		}
		if got := valueInWords(p, "lane.degraded", []any{"beam", "scanner"}); got != p.T("part.beam")+p.T("list.and")+p.T("part.scanner") {
			t.Errorf("a list is %q", got)
		}
	}
}

// Who is referred or denied can ask by a number that the guard and the display show;
// it says nothing of anybody, and who is let through has none.
func TestReferenceIsShown(t *testing.T) {
	s := newStreet()
	c := newConsole(t, s)
	c.deps.Origin = func() string { return "c/s/g/0" }
	ref := edge.Reference("c/s/g/0", 7)
	body := c.request("GET", "/", nil, c.cookieOf("guard:7")).Body.String()
	// The one at the lane, and the one who stands aside.
	if strings.Count(body, "<b>"+ref+"</b>") != 2 {
		t.Errorf("the lanes show %s %d times", ref, strings.Count(body, ref))
	}
	for _, x := range []struct {
		lang string
		set  func(*edge.LaneView)
		want string
	}{
		{"", func(*edge.LaneView) {}, "查询号 " + ref},
		{"", func(v *edge.LaneView) { v.State, v.Current.Outcome = edge.LaneDenied, edge.Deny }, "查询号 " + ref},
		{"ar", func(v *edge.LaneView) { v.Current.Language = "ar" }, "الرقم المرجعي " + ref},
		{"", func(v *edge.LaneView) { v.State, v.Current.Outcome = edge.LanePassing, edge.Admit }, ""},
		{"", func(v *edge.LaneView) { v.Current.Seq = -1 }, ""},
	} {
		v := referred()
		x.set(&v)
		s.set(v)
		got := ""
		if r := c.sign(v).Ref; r != nil {
			got = r.Text
		}
		body := c.request("GET", "/display/east-in", nil, "").Body.String()
		if got != x.want || !strings.Contains(body, ">"+x.want+"</p>") {
			t.Errorf("the display says %q, want %q", got, x.want)
		}
	}
}
