package console

import (
	"context"
	"errors"
	"fmt"
	"io"
	"maps"
	"net/http"
	"net/http/httptest"
	"net/url"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"

	"gatehouse/edge"
	"gatehouse/edge/console/accounts"
)

// nasty is what no form of the console expects, and what a person or a script
// types all the same.
var nasty = map[string]string{
	"empty":        "",
	"blank":        "  \t ",
	"1 MB":         strings.Repeat("长", 1<<20/3),
	"emoji":        "👮🏽‍♀️🚧",
	"RTL":          "أحمد بن علي",
	"RTL override": "a\u202eexe.txt",
	"control":      "a\x00b\x1b[2J\x7f",
	"newlines":     "x\r\nSet-Cookie: gatehouse=1",
	"HTML":         `"><script>alert(1)</script><img src=x onerror=alert(1)>`,
	"SQL":          `'; DROP TABLE people; --`,
	"template":     `{{.Data}}${7*7}`,
	"path":         `../../etc/passwd`,
	"number":       "99999999999999999999",
	"negative":     "-1",
	"date":         "2026-02-30",
	"not UTF-8":    "\xff\xfe",
	"NaN":          "NaN",
}

// formsOf are all posts of the console with what a good one holds, but for the
// field that is spoilt.
var formsOf = map[string]url.Values{
	"/act":       {"kind": {"second"}, "lane": {"east-in"}, "presentation": {"41"}, "value": {"36.6"}, "reason": {"medical"}, "text": {"medical"}, "identity": {"known"}, "field": {"mask"}, "second": {""}, "second_pin": {""}, "pass": {"7"}},
	"/passes":    {"pass": {"7"}, "status": {"suspended"}, "reason": {"moved"}, "name": {"x"}, "building": {""}, "unit": {""}, "lane": {""}},
	"/enter":     {"number": {"7"}, "secret": {"wrong!"}},
	"/setup":     {"code": {"AAAA-BBBB-CCCC"}, "name": {"x"}, "secret": {"864208"}, "secret2": {"864208"}},
	"/relief":    {"number": {"8"}, "secret": {"wrong!"}},
	"/leave":     {},
	"/me":        {"old": {"wrong!"}, "secret": {"864209"}, "secret2": {"864209"}},
	"/people":    {"name": {"x"}, "role": {"guard"}, "number": {"77"}, "card": {""}},
	"/people/8":  {"do": {"change"}, "name": {"周师傅"}, "role": {"guard"}, "card": {""}},
	"/inspector": {"answer": {"x"}, "challenge": {"x"}},
	"/devices":   {"lane": {"east-in"}, "test": {"lamps"}},
}

// anyForm is tried where formsOf knows no better.
var anyForm = url.Values{"do": {"x"}, "pass": {"7"}, "lane": {"east-in"}, "device": {"east-in scanner"}, "serves": {"x"}, "test": {"lamp"}, "kind": {"x"}, "reason": {"x"}, "value": {"1"}, "seq": {"1"}, "language": {"en"}, "second": {"8"}, "second_pin": {"wrong!"}}

// What a page is asked for, as the nasty things take its place.
var asked = []string{"name", "building", "unit", "lane", "card", "pass", "kind", "outcome", "actor", "before", "from", "to", "since", "until", "day", "date", "household", "page", "q", "area", "category", "lang"}

// Nor does any page fail that is asked for nonsense.
func TestNastyQuestions(t *testing.T) {
	c := newConsole(t, newStreet())
	c.meter = nil
	manager := c.cookieOf("manager:1")
	for _, r := range c.routes() {
		method, path, _ := strings.Cut(r.pattern, " ")
		if method != "GET" || r.class == streams {
			continue
		}
		path = paths.Replace(path)
		for _, field := range asked {
			for name, value := range nasty {
				value = value[:min(len(value), 16<<10)] // a longer address is refused by the server itself
				w := c.request("GET", path+"?"+url.Values{field: {value}}.Encode(), nil, manager, "Accept", "text/html")
				if w.Code >= 500 || (strings.HasPrefix(w.Header().Get("Content-Type"), "text/html") && strings.Contains(w.Body.String(), "<script>alert")) {
					t.Errorf("%s, %s %s: %d", path, field, name, w.Code)
				}
			}
		}
	}
	// Where an address names something, so does nonsense.
	for _, r := range c.routes() {
		method, path, _ := strings.Cut(r.pattern, " ")
		if method != "GET" || !strings.Contains(path, "{") || strings.Contains(path, "{$}") {
			continue
		}
		for name, value := range nasty {
			if name == "1 MB" || value == "" {
				continue
			}
			w := c.request("GET", regexp.MustCompile(`\{[a-z]+\}`).ReplaceAllLiteralString(path, url.PathEscape(value)), nil, manager)
			if w.Code >= 500 || w.Code == http.StatusOK {
				t.Errorf("%s %s: %d", path, name, w.Code)
			}
		}
	}
}

// Every field of every form takes every nasty thing without failing, without
// giving it back as markup, without taking the console down, and for those of
// accounts without changing anything that the field does not name.
func TestNastyForms(t *testing.T) {
	s := newStreet()
	c := newConsole(t, s)
	c.meter = nil
	routes := map[string]bool{}
	for _, r := range c.routes() {
		if method, path, _ := strings.Cut(r.pattern, " "); method == "POST" {
			path = paths.Replace(path)
			routes[path] = true
		}
	}
	tried := maps.Clone(formsOf)
	for path := range routes {
		if tried[path] == nil {
			tried[path] = anyForm
		}
	}
	manager := c.cookieOf("manager:1")
	before := c.crewNow(t)
	for path, good := range tried {
		if !routes[path] {
			t.Errorf("%s is no route", path)
		}
		for field := range good {
			for name, value := range nasty {
				f := url.Values{}
				for k, v := range good {
					f[k] = v
				}
				f.Set(field, value)
				w := c.request("POST", path, f, manager, "Accept", "text/html")
				what := fmt.Sprintf("%s, %s %s", path, field, name)
				if w.Code >= 500 {
					t.Errorf("%s: %d %.200s", what, w.Code, w.Body)
				}
				if html := strings.HasPrefix(w.Header().Get("Content-Type"), "text/html"); html && strings.Contains(w.Body.String(), "<script>alert") || html && strings.Contains(w.Body.String(), "onerror=alert(1)>") {
					t.Errorf("%s comes back as markup", what)
				}
				for _, k := range w.Result().Cookies() {
					if k.Name != sessionCookie && k.Name != deviceCookie {
						t.Errorf("%s sets the cookie %s", what, k.Name)
					}
				}
				if ct := w.Header().Get("Content-Type"); w.Code != http.StatusSeeOther && w.Code != http.StatusNoContent && !strings.HasPrefix(ct, "text/") {
					t.Errorf("%s: an answer of type %q", what, ct)
				}
				if name == "1 MB" && w.Code != http.StatusRequestEntityTooLarge {
					t.Errorf("%s: %d", what, w.Code)
				}
			}
		}
	}
	for _, a := range s.did() {
		for _, v := range []string{a.Lane, a.Text, a.Field, a.Identity, a.Second, string(a.Reason)} {
			if len(v) > 200 || strings.ContainsAny(v, "\x00\r\n\x1b") {
				t.Errorf("the lane was given %q", v)
			}
		}
	}
	// Names are any text, so some of them were taken; nobody has gone, nobody has
	// another role, and who came is a guard who has not chosen a PIN yet.
	after := c.crewNow(t)
	for n, p := range before {
		if after[n].Role != p.Role {
			t.Errorf("%d was %+v and is %+v", n, p, after[n])
		}
	}
	for n, p := range after {
		if _, ok := before[n]; !ok && (p.Role != accounts.Guard || !p.MustChange) {
			t.Errorf("%+v came", p)
		}
		if strings.ContainsAny(p.Name, "\x00\r\n\u202e") {
			t.Errorf("the name %q was taken", p.Name)
		}
	}
}

func (c *Console) crewNow(t *testing.T) map[int64]accounts.Person {
	t.Helper()
	l, err := c.deps.People.List(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	out := map[int64]accounts.Person{}
	for _, p := range l {
		out[p.Number] = p
	}
	return out
}

// What was typed stands in the form again, with a sentence why, and nothing has
// changed.
func TestNothingTypedIsLost(t *testing.T) {
	c := newConsole(t, newStreet())
	manager := c.cookieOf("manager:1")
	before := fmt.Sprint(c.crewNow(t))
	for _, x := range []struct {
		path string
		form url.Values
		code int
		want []string
	}{
		{"/people", url.Values{"name": {"新来的 <b>"}, "role": {"guard"}, "number": {"7"}, "card": {"12"}}, 409, []string{"这个编号已经有人使用", `value="新来的 &lt;b&gt;"`, `value="7"`, `value="12"`}},
		{"/people", url.Values{"name": {"新来的"}, "role": {"guard"}, "number": {"seven"}}, 422, []string{"编号是 1 到 65535 的数字", `value="seven"`}},
		{"/people", url.Values{"name": {""}, "role": {"supervisor"}}, 422, []string{"姓名为 1 到 60 个字", `value="supervisor" selected`}},
		{"/people", url.Values{"name": {"x"}, "role": {"inspector"}}, 422, []string{"请选择角色"}},
		{"/people/8", url.Values{"do": {"change"}, "name": {strings.Repeat("长", 70)}, "role": {"guard"}}, 422, []string{"姓名为 1 到 60 个字", strings.Repeat("长", 70)}},
		{"/people/8", url.Values{"do": {"card"}, "card": {"not a card"}}, 422, []string{"这不是卡号", `value="not a card"`}},
		{"/people/1", url.Values{"do": {"remove"}}, 409, []string{"这是最后一位管理员"}},
		{"/people/99", url.Values{"do": {"remove"}}, 404, []string{"没有这位人员"}},
		{"/people/8", url.Values{"do": {"promote"}}, 403, []string{"无权"}},
		{"/relief", url.Values{"number": {"8"}, "secret": {"wrong!"}}, 403, []string{"编号、PIN 或密码不对", `value="8"`}},
		{"/me", url.Values{"old": {pin}, "secret": {"111111"}, "secret2": {"111111"}}, 422, []string{"太容易被猜到"}},
		{"/me", url.Values{"old": {pin}, "secret": {"864208"}, "secret2": {"864209"}}, 422, []string{"两次输入不一样"}},
		{"/passes", url.Values{"pass": {"7"}, "status": {"suspended"}, "reason": {""}, "name": {"王 <b>"}}, 400, []string{"请写明原因", `value="王 &lt;b&gt;"`}},
		{"/passes", url.Values{"pass": {"7"}, "status": {"lost"}, "reason": {"dropped\x07it"}, "card": {"0013530444"}, "building": {"1号楼"}}, 400, []string{"无法显示的字符", `value="0013530444"`, `value="1号楼"`}},
		{"/inspector", url.Values{"answer": {"what I have"}}, 403, []string{"主管部门签发的凭证", ">what I have</textarea>"}},
	} {
		w := c.request("POST", x.path, x.form, manager, "Accept", "text/html")
		if w.Code != x.code {
			t.Errorf("%s %v: %d, want %d", x.path, x.form, w.Code, x.code)
		}
		for _, s := range x.want {
			if !strings.Contains(w.Body.String(), s) {
				t.Errorf("%s %.80v: the page lacks %q", x.path, x.form, s)
			}
		}
		for _, secret := range []string{"wrong!", "864208"} {
			if strings.Contains(w.Body.String(), secret) {
				t.Errorf("%s gives a secret back", x.path)
			}
		}
	}
	if after := fmt.Sprint(c.crewNow(t)); after != before {
		t.Errorf("something has changed:\n%s\n%s", before, after)
	}
}

// A form that is sent again changes nothing, and asks; one of another site is
// refused; one of another session or of before a restart asks as well.
func TestReplayedAndForeignPosts(t *testing.T) {
	c := newConsole(t, newStreet())
	me := c.cookieOf("manager:1")
	_, token, _ := strings.Cut(me, "=")
	f := url.Values{"name": {"新来的"}, "role": {"guard"}, "once": {c.once.token(token)}}
	if w := c.request("POST", "/people", f, me); w.Code != http.StatusOK || len(c.crewNow(t)) != len(crew)+1 {
		t.Fatalf("%d", w.Code)
	}
	other := newOnce()
	for name, once := range map[string]string{"replayed": f.Get("once"), "of another session": c.once.token("x"), "of before a restart": other.token(token), "none": "", "nonsense": "%%%", "of somebody who guesses": strings.Repeat("A", 48)} {
		f.Set("once", once)
		w := c.request("POST", "/people", f, me, "Accept", "text/html")
		if w.Code != http.StatusConflict || !strings.Contains(w.Body.String(), "什么都没有改变") || !strings.Contains(w.Body.String(), `name="name" value="新来的"`) || !strings.Contains(w.Body.String(), `action="/people"`) {
			t.Errorf("%s: %d", name, w.Code)
		}
	}
	f.Set("once", c.once.token(token))
	for _, header := range [][]string{{"Sec-Fetch-Site", "cross-site"}, {"Sec-Fetch-Site", "same-site"}, {"Origin", "http://elsewhere.example"}, {"Origin", "null"}} {
		if w := c.request("POST", "/people", f, me, header...); w.Code != http.StatusForbidden || !strings.Contains(w.Body.String(), "别的网站") || strings.Contains(w.Body.String(), "新来的") {
			t.Errorf("%v: %d", header, w.Code)
		}
	}
	if n := len(c.crewNow(t)); n != len(crew)+1 {
		t.Errorf("%d accounts", n)
	}
	// A secret that was typed is typed again, not sent back to the page.
	w := httptest.NewRecorder()
	r := httptest.NewRequest("POST", "/inside/reset", strings.NewReader(url.Values{"second": {"8"}, "second_pin": {pin}, "reason": {"drill"}}.Encode()))
	r.Header.Set("Content-Type", "application/x-www-form-urlencoded")
	r.Header.Set("Accept", "text/html")
	if err := r.ParseForm(); err != nil {
		t.Fatal(err)
	}
	if c.stale(w, r); strings.Contains(w.Body.String(), pin) || !strings.Contains(w.Body.String(), `type="password" name="second_pin"`) {
		t.Errorf("%s", w.Body)
	}
	// Old tokens are forgotten, so that they do not fill the memory.
	for range maxUsed + 10 {
		if !c.once.take("s", c.once.token("s")) {
			t.Fatal("a good token is refused")
		}
	}
	if len(c.once.used) > maxUsed {
		t.Errorf("%d tokens are kept", len(c.once.used))
	}
}

// Who asks too much is told to wait; the others are not.
func TestLimits(t *testing.T) {
	c := newConsole(t, newStreet())
	me := c.cookieOf("guard:7")
	refused := 0
	for range 40 {
		if w := c.request("POST", "/enter", url.Values{"number": {"999"}, "secret": {"x"}}, ""); w.Code == http.StatusTooManyRequests && w.Header().Get("Retry-After") == "2" {
			refused++
		}
	}
	if refused < 25 {
		t.Errorf("of 40 logins from one address %d were refused", refused)
	}
	if w := c.request("GET", "/", nil, me); w.Code != http.StatusOK {
		t.Errorf("the guard pays for it: %d", w.Code)
	}
	r := httptest.NewRequest("POST", "/enter", strings.NewReader("number=8&secret="+pin))
	r.Header.Set("Content-Type", "application/x-www-form-urlencoded")
	r.RemoteAddr = "192.0.2.77:1"
	w := httptest.NewRecorder()
	if c.Handler().ServeHTTP(w, r); w.Code != http.StatusSeeOther {
		t.Errorf("another address: %d", w.Code)
	}
	m := newMeter()
	var ends []func()
	for range 2 * ownStreams {
		if end := m.begin("one", true); end != nil {
			ends = append(ends, end)
		}
	}
	if len(ends) != ownStreams {
		t.Errorf("%d streams of one caller", len(ends))
	}
	strangers := 0
	for i := range 10 * publicStreams {
		if m.begin(fmt.Sprint("stranger", i), false) != nil {
			strangers++
		}
	}
	if strangers != publicStreams || m.begin("guard", true) == nil {
		t.Errorf("%d streams of strangers", strangers)
	}
	for _, end := range ends {
		end()
	}
	if m.begin("one", true) == nil {
		t.Error("ended streams still count")
	}
	for i := range 2 * maxCallers {
		m.allow(fmt.Sprint(i), pages)
	}
	if len(m.callers) > maxCallers+1 {
		t.Errorf("%d callers are kept", len(m.callers))
	}
	// All addresses of one IPv6 network are one caller.
	a, b := httptest.NewRequest("GET", "/", nil), httptest.NewRequest("GET", "/", nil)
	a.RemoteAddr, b.RemoteAddr = "[2001:db8::1]:5", "[2001:db8::ffff:2]:6"
	if address(a) != address(b) {
		t.Errorf("%s and %s", address(a), address(b))
	}
}

// A form that is turned away before anybody reads it comes back in the page, in the
// person's language, with what was typed; a script is told in a line.
func TestTurnedAwayWithWhatWasTyped(t *testing.T) {
	s := newStreet()
	s.passes[0].Reason = "x"
	c := newConsole(t, s)
	guard := c.cookieOf("guard:7")
	typed := url.Values{"pass": {"7"}, "status": {"suspended"}, "reason": {"moved <away>"}, "second_pin": {"864208"}}
	big := url.Values{"pass": {"7"}, "status": {"suspended"}, "reason": {"moved <away>" + strings.Repeat("长", 1<<19)}}
	noise := func(r *http.Request) {
		r.Body = io.NopCloser(strings.NewReader("pass=7&status=suspended&reason=moved <away>&x=%zz"))
	}
	tight := func(c *Console) { c.meter.limits = map[class]limit{forms: {0, 0, maxForm}, pages: {0, 0, 1024}} }
	for _, x := range []struct {
		name    string
		form    url.Values
		cookie  string
		prepare func(c *Console)
		change  func(r *http.Request)
		code    int
		zh, en  string
		want    []string
	}{
		{name: "too big", form: big, cookie: guard, code: 413, zh: "内容超过了表单的限度", en: "too much for the form", want: []string{"<dd>moved &lt;away&gt;长", `href="/passes"`}},
		{name: "no form", form: typed, cookie: guard, change: noise, code: 400, zh: "无法显示的字符", en: "characters that cannot be shown", want: []string{"<dd>moved &lt;away&gt;</dd>", `href="/passes"`}},
		{name: "too fast", form: typed, cookie: guard, prepare: tight, code: 429, zh: "操作太快", en: "Too much at once", want: []string{"<dd>moved &lt;away&gt;</dd>", `<input type="hidden" name="reason" value="moved &lt;away&gt;">`, `type="password" name="second_pin"`}},
		{name: "session over", form: typed, cookie: "gatehouse=" + strings.Repeat("0", 43), code: 401, zh: "请先登录", en: "Log in first", want: []string{"<dd>moved &lt;away&gt;</dd>", `href="/enter" target="_blank"`, `<input type="hidden" name="status" value="suspended">`}},
		{name: "sent again", form: url.Values{"pass": {"7"}, "status": {""}, "reason": {"moved <away>"}, "once": {"x"}}, cookie: guard, code: 409, zh: "这张表单已经提交过", en: "This was sent already", want: []string{"<dd>moved &lt;away&gt;</dd>"}},
	} {
		for lang, say := range map[string]string{"zh-Hans": x.zh, "en": x.en} {
			c.meter = newMeter()
			if x.prepare != nil {
				x.prepare(c)
			}
			post := func(accept string) *httptest.ResponseRecorder {
				f := maps.Clone(x.form)
				if _, token, _ := strings.Cut(x.cookie, "="); !f.Has("once") {
					f.Set("once", c.once.token(token))
				}
				r := httptest.NewRequest("POST", "/passes", strings.NewReader(f.Encode()))
				r.Header.Set("Content-Type", "application/x-www-form-urlencoded")
				r.Header.Set("Cookie", x.cookie+"; lang="+lang)
				r.Header.Set("Accept", accept)
				if x.change != nil {
					x.change(r)
				}
				w := httptest.NewRecorder()
				c.Handler().ServeHTTP(w, r)
				return w
			}
			w := post("text/html")
			body := w.Body.String()
			if w.Code != x.code || !strings.Contains(body, say) {
				t.Errorf("%s, %s: %d %.400s", x.name, lang, w.Code, body)
			}
			// A form of which a part is missing would say something else.
			if again := strings.Contains(body, `<form method="post" action="/passes"`) && strings.Contains(body, `name="once" value="`); again != (w.Code != 413 && w.Code != 400) {
				t.Errorf("%s, %s: it can be sent again: %v", x.name, lang, again)
			}
			for _, want := range x.want {
				if !strings.Contains(body, want) {
					t.Errorf("%s, %s: the page lacks %q", x.name, lang, want)
				}
			}
			if strings.Contains(body, "864208") || strings.Contains(body, "<away>") || len(body) > 16<<10 {
				t.Errorf("%s, %s: a secret, markup or %d bytes come back", x.name, lang, len(body))
			}
			if w := post("application/json"); w.Code != x.code || !strings.HasPrefix(w.Header().Get("Content-Type"), "text/plain") || !strings.Contains(w.Body.String(), say) {
				t.Errorf("%s, %s: a script is told %d %q", x.name, lang, w.Code, w.Body)
			}
		}
	}
	if len(s.changes) != 0 {
		t.Errorf("something has changed: %q", s.changes)
	}

	// Pages that are turned away say so in a page too, and lead back to themselves.
	c.meter = newMeter()
	tight(c)
	if w := c.request("GET", "/passes?name=x&lane=side", nil, guard, "Accept", "text/html"); w.Code != 429 || w.Header().Get("Retry-After") != "2" || !strings.Contains(w.Body.String(), "操作太快") || !strings.Contains(w.Body.String(), `href="/passes?name=x&amp;lane=side"`) {
		t.Errorf("%d %s", w.Code, w.Body)
	}
	c.meter, c.deps.Record = nil, func(context.Context, edge.Kind, string, any) error { return errors.New("disk full") }
	if w := c.request("GET", "/journal", nil, guard, "Accept", "text/html"); w.Code != 503 || !strings.Contains(w.Body.String(), "日志现在写不进去") || !strings.Contains(w.Body.String(), `href="/journal"`) {
		t.Errorf("%d %s", w.Code, w.Body)
	}
}

// What was typed when the session had ended is sent after a login beside it, and
// then counts.
func TestSentAfterLoggingInAgain(t *testing.T) {
	s := newStreet()
	c := newConsole(t, s)
	form := url.Values{"pass": {"7"}, "status": {"suspended"}, "reason": {"moved"}}
	inputs := regexp.MustCompile(`<input type="hidden" name="([^"]+)" value="([^"]*)">`)
	cookie := ""
	for step, code := range []int{401, 409, 200} {
		f := maps.Clone(form)
		if step == 0 {
			f.Set("once", "of the session that ended")
		}
		w := c.request("POST", "/passes", f, cookie, "Accept", "text/html")
		if step == 2 {
			if w.Code != code || strings.Join(s.changes, ",") != "7 suspended moved guard:7" {
				t.Errorf("%d %q", w.Code, s.changes)
			}
			break
		}
		if w.Code != code {
			t.Fatalf("step %d: %d", step, w.Code)
		}
		form = url.Values{}
		for _, m := range inputs.FindAllStringSubmatch(w.Body.String(), -1) {
			form.Add(m[1], m[2])
		}
		if step == 0 {
			cookie = c.cookieOf("guard:7")
		}
	}
}

// Every counter that a driver has is in words.
func TestCountersSpeak(t *testing.T) {
	c := newConsole(t, newStreet())
	count := regexp.MustCompile(`(?:Count\("|Detail\["|counts\["|Detail = map\[string\]uint64\{"|: l\.Free >> 20, ")([a-z_]+)"`)
	n := 0
	for _, pattern := range []string{"../../device/*/*.go", "../../cmd/internal/app/board.go"} {
		files, err := filepath.Glob(pattern)
		if err != nil {
			t.Fatal(err)
		}
		for _, f := range files {
			if strings.HasSuffix(f, "_test.go") {
				continue
			}
			src, err := os.ReadFile(f)
			if err != nil {
				t.Fatal(err)
			}
			for _, m := range count.FindAllSubmatch(src, -1) {
				n++
				if !c.deps.Text.For("en").Has("count." + string(m[1])) {
					t.Errorf("%s: count.%s has no words", f, m[1])
				}
			}
		}
	}
	if n < 15 {
		t.Errorf("only %d counters were found", n)
	}
}

// Every refusal of a lane or a form has its sentence in the site's languages.
func TestRefusalsSpeak(t *testing.T) {
	c := newConsole(t, newStreet())
	code := regexp.MustCompile(`edge\.Refuse\("([a-z_]+)"`)
	files, err := filepath.Glob("../*/*.go")
	if err != nil {
		t.Fatal(err)
	}
	n := 0
	for _, f := range files {
		src, err := os.ReadFile(f)
		if err != nil {
			t.Fatal(err)
		}
		for _, m := range code.FindAllSubmatch(src, -1) {
			n++
			for _, l := range []string{"zh-Hans", "en"} {
				if !c.deps.Text.For(l).Has("refused." + string(m[1])) {
					t.Errorf("%s: refused.%s has no sentence in %s", f, m[1], l)
				}
			}
		}
	}
	if n < 20 {
		t.Errorf("only %d refusals were found", n)
	}
}
