package console

import (
	"errors"
	"fmt"
	"net/http"
	"net/url"
	"strings"
	"testing"
	"time"

	"gatehouse/edge"
)

func TestPasses(t *testing.T) {
	s := newStreet()
	c := newConsole(t, s)
	me := c.cookieOf("guard:7")
	w := c.request("GET", "/passes?name="+url.QueryEscape("王")+"&lane=side", nil, me)
	for _, want := range []string{"王*明", "停用 (&lt;b&gt;moved&lt;/b&gt;)", "2023年11月15日", "<legend>侧门</legend>", "看过证件", `name="pass" value="7"`, `name="identity" value="document"`, `data-lost="`} {
		if !strings.Contains(w.Body.String(), want) {
			t.Errorf("the page lacks %q", want)
		}
	}
	if strings.Contains(w.Body.String(), "<legend>东门出口") {
		t.Error("a lane that nobody asked for is offered")
	}
	s.broken = errors.New("disk full")
	w = c.request("GET", "/passes?name=x", nil, me)
	if s.broken = nil; w.Code != http.StatusInternalServerError || !strings.Contains(w.Body.String(), "没有办成") {
		t.Errorf("%d", w.Code)
	}
	if w := c.request("GET", "/passes?name="+strings.Repeat("x", 300), nil, me); w.Code != http.StatusBadRequest {
		t.Errorf("%d", w.Code)
	}
	// A pass whose time is over, or has not come, does not pass for one that serves.
	for _, x := range []struct {
		from, until int64
		want        string
	}{{0, time.Now().Add(-time.Minute).UnixMilli(), "已过期"}, {time.Now().Add(time.Hour).UnixMilli(), 0, "起才有效"}, {time.Now().Add(-time.Hour).UnixMilli(), time.Now().Add(time.Hour).UnixMilli(), `<span class="status-word">有效</span>`}} {
		s.passes[0].Status, s.passes[0].Reason, s.passes[0].From, s.passes[0].Until = edge.PassActive, "", x.from, x.until
		if body := c.request("GET", "/passes?name=x", nil, me).Body.String(); !strings.Contains(body, x.want) {
			t.Errorf("from %d until %d: the page lacks %q", x.from, x.until, x.want)
		}
	}
	// What makes no sense for a pass as it is is not offered.
	for status, want := range map[edge.PassStatus][]edge.PassStatus{edge.PassActive: {edge.PassSuspended, edge.PassLost}, edge.PassSuspended: {edge.PassLost, ""}, edge.PassLost: {""}} {
		s.passes[0].Status = status
		body := c.request("GET", "/passes?name=x", nil, me).Body.String()
		for _, x := range []edge.PassStatus{edge.PassSuspended, edge.PassLost, ""} {
			offered := strings.Contains(body, fmt.Sprintf(`name="status" value="%s"`, x))
			wanted := false
			for _, y := range want {
				wanted = wanted || x == y
			}
			if offered != wanted {
				t.Errorf("a pass that is %s: %q is offered: %v", status, x, offered)
			}
		}
	}
	// Who only reads is offered nothing.
	body := c.request("GET", "/passes?name=x", nil, c.inspector12(t)).Body.String()
	if !strings.Contains(body, "王*明") || strings.Contains(body, `method="post" action="/passes"`) || strings.Contains(body, `action="/act"`) {
		t.Error("the inspector is offered changes")
	}
}

// A change needs a reason, and says what became of it on the page where the pass
// still is; what was typed and refused stands in the form.
func TestChangePass(t *testing.T) {
	s := newStreet()
	s.card = mustParse(t, "0013530444", "em-dec10")
	c := newConsole(t, s)
	me := c.cookieOf("guard:7")
	for _, x := range []struct {
		form url.Values
		err  error
		code int
		want string
	}{
		{url.Values{"pass": {"7"}, "status": {"suspended"}, "reason": {"moved"}}, nil, 200, "已修改并记入日志"},
		{url.Values{"pass": {"7"}, "status": {""}, "reason": {"is back"}}, nil, 200, "已修改并记入日志"},
		{url.Values{"pass": {"7"}, "status": {""}}, nil, 400, "请写明原因"},
		{url.Values{"pass": {"7"}, "status": {"suspended"}, "reason": {" \t"}}, nil, 400, "请写明原因"},
		{url.Values{"pass": {"7"}, "status": {"suspended"}, "reason": {strings.Repeat("长", 70)}}, nil, 400, strings.Repeat("长", 70)},
		{url.Values{"pass": {"7"}, "reason": {"x"}}, nil, 400, "没有办成"}, // no status is not the roster's
		{url.Values{"pass": {"7"}, "status": {"active"}, "reason": {"x"}}, nil, 400, "没有办成"},
		{url.Values{"pass": {"x"}, "status": {""}, "reason": {"x"}}, nil, 400, "没有办成"},
		{url.Values{"pass": {"404"}, "status": {"lost"}, "reason": {"x"}}, nil, 404, "没有找到"},
		{url.Values{"pass": {"7"}, "status": {""}, "reason": {"found <again>"}}, fmt.Errorf("wrapped: %w", edge.Refuse("in_roster", "x")), 409, "请在名册中修改"},
		{url.Values{"pass": {"7"}, "status": {"lost"}, "reason": {"found <again>"}}, errors.New("disk full"), 503, `value="found &lt;again&gt;"`},
	} {
		x.form.Set("card", "0013530444")
		x.form.Set("lane", "side")
		s.refuse = x.err
		w := c.request("POST", "/passes", x.form, me, "Accept", "text/html")
		body := w.Body.String()
		if w.Code != x.code || !strings.Contains(body, x.want) {
			t.Errorf("%v: %d, want %d with %q", x.form, w.Code, x.code, x.want)
		}
		if !strings.Contains(body, "王*明") || !strings.Contains(body, `name="card" value="0013530444"`) || !strings.Contains(body, `name="lane" value="side"`) {
			t.Errorf("%v: the pass or what was looked for is gone from the page", x.form)
		}
		open := strings.Contains(body, "<details open><summary>停用、挂失、恢复")
		if refused := w.Code != 200 && x.form.Get("pass") == "7"; open != refused {
			t.Errorf("%v: the form is open: %v", x.form, open)
		}
	}
	if got := strings.Join(s.changes, ","); got != "7 suspended moved guard:7,7  is back guard:7" {
		t.Errorf("changes %q", got)
	}
}

// A search that finds half the estate says so, and shows its beginning.
func TestManyPasses(t *testing.T) {
	s := newStreet()
	s.passes = nil
	for i := range mostFound + 1 {
		s.passes = append(s.passes, edge.Pass{ID: edge.PassID(i + 1), Name: "王*", Status: edge.PassActive})
	}
	c := newConsole(t, s)
	body := c.request("GET", "/passes?name="+url.QueryEscape("王"), nil, c.cookieOf("guard:7")+"; lang=en").Body.String()
	if n := strings.Count(body, `<article class="pass`); n != mostFound || !strings.Contains(body, "These are the first 20; there are more") || strings.Contains(body, "<details open>") {
		t.Errorf("%d passes", n)
	}
	s.passes = s.passes[:mostFound]
	if body := c.request("GET", "/passes?name="+url.QueryEscape("王"), nil, c.cookieOf("guard:7")+"; lang=en").Body.String(); strings.Contains(body, "there are more") {
		t.Error("more are promised than there are")
	}
}
