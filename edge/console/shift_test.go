package console

import (
	"bytes"
	"context"
	"crypto/ed25519"
	"errors"
	"html"
	"io"
	"net/http"
	"net/url"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
	"time"

	"golang.org/x/mod/sumdb/note"

	"gatehouse/edge"
	"gatehouse/edge/console/accounts"
)

// cookies are what a browser would keep of an answer.
func cookiesOf(h http.Header) string {
	var out []string
	for _, k := range (&http.Response{Header: h}).Cookies() {
		if k.MaxAge >= 0 && k.Value != "" {
			out = append(out, k.Name+"="+k.Value)
		}
	}
	return strings.Join(out, "; ")
}

// From a gate that nobody may use yet to a guard's shift, by the pages alone.
func TestFirstStartToShift(t *testing.T) {
	s := newStreet()
	c := newConsole(t, s)
	people, err := accounts.Open(t.Context(), filepath.Join(t.TempDir(), "new.db"), accounts.Options{Cost: accounts.Cost{Time: 1, Memory: 8}, Record: s.record})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = people.Close() })
	c.deps.People = people
	code, err := people.FirstCode(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	if w := c.request("GET", "/", nil, "", "Accept", "text/html"); w.Header().Get("Location") != "/enter" {
		t.Errorf("%d %v", w.Code, w.Header())
	}
	if w := c.request("GET", "/enter", nil, ""); w.Header().Get("Location") != "/setup" {
		t.Errorf("%d %v", w.Code, w.Header())
	}
	good := url.Values{"code": {code}, "name": {"钱经理"}, "secret": {"a long password"}, "secret2": {"a long password"}}
	for field, bad := range map[string]string{"code": "AAAA-AAAA-AAAA", "secret2": "another", "name": " "} {
		f := url.Values{}
		for k, v := range good {
			f[k] = v
		}
		f.Set(field, bad)
		w := c.request("POST", "/setup", f, "")
		if w.Code/100 != 4 || w.Header().Get("Set-Cookie") != "" || strings.Contains(w.Body.String(), "a long password") || (field != "name" && !strings.Contains(w.Body.String(), "钱经理")) {
			t.Errorf("%s %q: %d", field, bad, w.Code)
		}
	}
	w := c.request("POST", "/setup", good, "")
	if w.Code != http.StatusSeeOther || w.Header().Get("Location") != "/" {
		t.Fatalf("%d %s", w.Code, w.Body)
	}
	manager := cookiesOf(w.Header())
	for _, method := range []string{"GET", "POST"} {
		if w := c.request(method, "/setup", good, ""); w.Header().Get("Location") != "/enter" {
			t.Errorf("%s, the code serves once more: %d", method, w.Code)
		}
	}
	// The manager makes a guard; the PIN is shown once.
	w = c.request("POST", "/people", url.Values{"name": {"李师傅"}, "role": {"guard"}, "number": {"7"}}, manager)
	m := regexp.MustCompile(`<strong class="pin">(\d{8})</strong>`).FindStringSubmatch(w.Body.String())
	if m == nil {
		t.Fatalf("%d %s", w.Code, w.Body)
	}
	if w := c.request("GET", "/people", nil, manager); strings.Contains(w.Body.String(), m[1]) || !strings.Contains(w.Body.String(), "还没有登录过") {
		t.Error("the PIN is shown twice")
	}
	// The guard logs in and can do nothing before they have a PIN of their own.
	w = c.request("POST", "/enter", url.Values{"number": {"7"}, "secret": {m[1]}}, "")
	if w.Header().Get("Location") != "/me" {
		t.Fatalf("%d %v", w.Code, w.Header())
	}
	guard := cookiesOf(w.Header())
	if w := c.request("POST", "/act", url.Values{"kind": {"call"}, "lane": {"side"}}, guard); w.Code != http.StatusForbidden || len(s.did()) != 0 {
		t.Errorf("%d", w.Code)
	}
	if w := c.request("GET", "/", nil, guard, "Accept", "text/html"); w.Header().Get("Location") != "/me" {
		t.Errorf("%d", w.Code)
	}
	if w := c.request("POST", "/me", url.Values{"old": {m[1]}, "secret": {pin}, "secret2": {pin}}, guard); w.Code != http.StatusSeeOther {
		t.Fatalf("%d %s", w.Code, w.Body)
	}
	if w := c.request("POST", "/act", url.Values{"kind": {"call"}, "lane": {"side"}}, guard); w.Code != http.StatusNoContent || s.did()[0].Actor != "guard:7" {
		t.Errorf("%d", w.Code)
	}
	// The manager leaves; then the guard is the last and may not.
	if w := c.request("POST", "/leave", url.Values{}, manager); w.Code != http.StatusSeeOther {
		t.Errorf("%d", w.Code)
	}
	if w := c.request("GET", "/", nil, manager); w.Code != http.StatusUnauthorized {
		t.Errorf("the manager is still there: %d", w.Code)
	}
	if w := c.request("POST", "/leave", url.Values{}, guard); w.Code != http.StatusConflict || !strings.Contains(w.Body.String(), "请接班人先登录") {
		t.Errorf("%d", w.Code)
	}
	// The relief logs in at the guard's tablet.
	w = c.request("POST", "/relief", url.Values{"number": {"1"}, "secret": {"a long password"}}, guard)
	if w.Code != http.StatusSeeOther {
		t.Fatalf("%d %s", w.Code, w.Body)
	}
	if w := c.request("GET", "/", nil, guard); w.Code != http.StatusUnauthorized {
		t.Errorf("the guard is still there: %d", w.Code)
	}
	if w := c.request("GET", "/", nil, cookiesOf(w.Header())); w.Code != http.StatusOK || !strings.Contains(w.Body.String(), "钱经理") {
		t.Errorf("%d", w.Code)
	}
	for _, r := range s.recorded {
		if strings.Contains(r, "李") || strings.Contains(r, pin) || strings.Contains(r, code) {
			t.Errorf("recorded: %s", r)
		}
	}
	if got := strings.Join(s.recorded, "\n"); !strings.Contains(got, "session manager:1 map[action:relief of:guard:7]") || !strings.Contains(got, "session manager:1 map[action:logout]") {
		t.Errorf("recorded:\n%s", got)
	}
}

// A supervisor helps a guard at night, and nobody above.
func TestReset(t *testing.T) {
	c := newConsole(t, newStreet())
	supervisor := c.cookieOf("supervisor:2")
	for path, want := range map[string]int{"/people/7": 200, "/people/1": 403, "/people/5": 403, "/people/2": 403} {
		if w := c.request("POST", path, url.Values{"do": {"reset"}}, supervisor); w.Code != want || (want == 200) != strings.Contains(w.Body.String(), `class="pin"`) {
			t.Errorf("%s: %d", path, w.Code)
		}
	}
	for _, do := range []string{"remove", "change", "card"} {
		if w := c.request("POST", "/people/7", url.Values{"do": {do}, "name": {"x"}, "role": {"manager"}}, supervisor); w.Code != http.StatusForbidden {
			t.Errorf("%s: %d", do, w.Code)
		}
	}
	body := c.request("GET", "/people", nil, supervisor).Body.String()
	if strings.Contains(body, `value="remove"`) || strings.Contains(body, `action="/people"`) || strings.Count(body, `value="reset"`) != 2 {
		t.Error("the page offers what is not the supervisor's")
	}
	if !strings.Contains(body, "&lt;b&gt;Ivan&lt;/b&gt;") {
		t.Error("a name is markup")
	}
}

// Two persons: the second proves to be there with their own PIN.
func TestSecondPerson(t *testing.T) {
	s := newStreet()
	c := newConsole(t, s)
	me := c.cookieOf("guard:7")
	act := func(second, secret string) int {
		return c.request("POST", "/act", url.Values{"kind": {"admit"}, "lane": {"east-in"}, "presentation": {"41"}, "reason": {"medical"}, "second": {second}, "second_pin": {secret}}, me).Code
	}
	for _, x := range [][2]string{{"7", pin}, {"guard:8", pin}, {"8", "wrong!"}, {"8", ""}, {"5", pin}, {"999", pin}} {
		if code := act(x[0], x[1]); code/100 != 4 {
			t.Errorf("%q: %d", x, code)
		}
	}
	if len(s.did()) != 0 {
		t.Fatalf("%+v", s.did())
	}
	if code := act("2", pin); code != http.StatusNoContent || s.did()[0].Second != "supervisor:2" || s.did()[0].Actor != "guard:7" {
		t.Errorf("%d %+v", code, s.did())
	}
}

// authority signs inspectors' credentials in the tests.
type authority struct {
	name string
	key  ed25519.PrivateKey
}

func (a authority) Name() string                    { return a.name }
func (a authority) Public() []byte                  { return a.key.Public().(ed25519.PublicKey) }
func (a authority) Sign(msg []byte) ([]byte, error) { return ed25519.Sign(a.key, msg), nil }

var (
	city = authority{"city.example", ed25519.NewKeyFromSeed(bytes.Repeat([]byte("c"), 32))}
	own  = authority{"inspector", ed25519.NewKeyFromSeed(bytes.Repeat([]byte("o"), 32))}
)

func authorities() []note.Verifier {
	v, err := edge.HeadVerifier(city.name, city.Public())
	if err != nil {
		panic(err)
	}
	return []note.Verifier{v}
}

var challengeShown = regexp.MustCompile(`(?s)<pre id="challenge"[^>]*>([^<]+)</pre>`)

// inspector logs one in by the page, as their own device would.
func (c *Console) inspector12(t testing.TB) string {
	t.Helper()
	m := challengeShown.FindStringSubmatch(c.request("GET", "/inspector", nil, "").Body.String())
	if m == nil {
		t.Fatal("the page shows no challenge")
	}
	now := time.Now().UnixMilli()
	cred, err := accounts.Issue(accounts.Credential{Community: "happy", Site: "*", Number: 12, Name: "检查员 周", Key: own.Public(), From: now - 1000, Until: now + 3600_000}, city)
	if err != nil {
		t.Fatal(err)
	}
	text, err := accounts.Answer(html.UnescapeString(m[1]), cred, own)
	if err != nil {
		t.Fatal(err)
	}
	w := c.request("POST", "/inspector", url.Values{"answer": {text}}, "")
	if w.Code != http.StatusSeeOther || w.Header().Get("Location") != "/" {
		t.Fatalf("%d %s", w.Code, w.Body)
	}
	if again := c.request("POST", "/inspector", url.Values{"answer": {text}}, ""); again.Code != http.StatusForbidden || !strings.Contains(again.Body.String(), "问题码已经用过") {
		t.Errorf("an answer serves twice: %d", again.Code)
	}
	return cookiesOf(w.Header())
}

// The inspector sees all pages, and whatever they post changes nothing; the
// site's people cannot end it.
func TestInspectorReads(t *testing.T) {
	s := newStreet()
	c := newConsole(t, s)
	me := c.inspector12(t)
	for _, path := range []string{"/", "/passes?name=x", "/journal", "/journal/1", "/devices", "/rules", "/people", "/me"} {
		if w := c.request("GET", path, nil, me); w.Code != http.StatusOK || !strings.Contains(w.Body.String(), "检查员 周") {
			t.Errorf("%s: %d", path, w.Code)
		}
	}
	if body := c.request("GET", "/passes?name=x", nil, me).Body.String(); strings.Contains(body, `value="suspended"`) || strings.Contains(body, `data-may="act`) {
		t.Error("the page offers to suspend a pass")
	}
	before := c.crewNow(t)
	for path, form := range formsOf {
		if path == "/leave" || path == "/enter" || path == "/relief" {
			continue
		}
		if w := c.request("POST", path, form, me); w.Code != http.StatusForbidden && w.Code != http.StatusUnprocessableEntity && path != "/setup" {
			t.Errorf("%s: %d", path, w.Code)
		}
	}
	if len(s.did()) != 0 || len(s.changes) != 0 || len(before) != len(c.crewNow(t)) {
		t.Errorf("an inspector has changed something: %+v %v", s.did(), s.changes)
	}
	manager := c.cookieOf("manager:1")
	c.request("POST", "/people/12", url.Values{"do": {"remove"}}, manager)
	if w := c.request("GET", "/journal", nil, me); w.Code != http.StatusOK {
		t.Errorf("the manager has thrown the inspector out: %d", w.Code)
	}
	if body := c.request("GET", "/people", nil, manager).Body.String(); strings.Contains(body, `value="inspector"`) {
		t.Error("a manager can make an inspector")
	}
	if w := c.request("POST", "/leave", url.Values{}, me); w.Code != http.StatusSeeOther {
		t.Errorf("%d", w.Code)
	}
	if w := c.request("GET", "/journal", nil, me); w.Code != http.StatusUnauthorized {
		t.Errorf("%d", w.Code)
	}
}

// That somebody looked is in the journal before they see anything, once an hour;
// whoever answers for a lane sees it also when the journal is full.
func TestViewsAreRecorded(t *testing.T) {
	s := newStreet()
	c := newConsole(t, s)
	c.deps.Record = s.record
	guard, inspector := c.cookieOf("guard:7"), c.inspector12(t)
	s.recorded = nil
	for range 3 {
		for _, path := range []string{"/", "/journal", "/rules"} {
			c.request("GET", path, nil, guard)
			c.request("GET", path, nil, inspector)
		}
	}
	want := "access guard:7 map[view:watch]\naccess inspector:12 map[view:watch]\naccess guard:7 map[view:read_journal]\naccess inspector:12 map[view:read_journal]"
	if got := strings.Join(s.recorded, "\n"); got != want {
		t.Errorf("recorded:\n%s", got)
	}
	clear(c.views)
	s.disk = errors.New("disk full")
	for path, want := range map[string][2]int{"/": {200, 503}, "/journal": {503, 503}} {
		for i, who := range []string{guard, inspector} {
			if w := c.request("GET", path, nil, who); w.Code != want[i] {
				t.Errorf("%s: %d, want %d", path, w.Code, want[i])
			}
		}
	}
}

// A stream ends when its session does.
func TestStreamEndsWithItsSession(t *testing.T) {
	c := newConsole(t, newStreet())
	c.again = 10 * time.Millisecond
	base := serve(t, c)
	me := c.cookieOf("guard:8")
	ctx, cancel := context.WithTimeout(t.Context(), 20*time.Second)
	defer cancel()
	r, err := http.NewRequestWithContext(ctx, "GET", base+"/live", nil)
	if err != nil {
		t.Fatal(err)
	}
	r.Header.Set("Cookie", me)
	resp, err := (&http.Client{Transport: &http.Transport{DisableKeepAlives: true}}).Do(r)
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	if resp.StatusCode != http.StatusOK {
		t.Fatal(resp.Status)
	}
	if err := c.deps.People.Remove(t.Context(), "manager:1", 8); err != nil {
		t.Fatal(err)
	}
	if _, err := io.Copy(io.Discard, resp.Body); err != nil && errors.Is(err, context.DeadlineExceeded) {
		t.Error("the stream goes on")
	}
}

// Without accounts there are the public pages, and a login that says why not.
func TestNoAccounts(t *testing.T) {
	c := newConsole(t, newStreet())
	me := c.cookieOf("guard:7")
	c.deps.People = nil
	for path, want := range map[string]int{"/rules": 200, "/display/east-in": 200, "/ca": 200, "/setup": 303, "/enter": 503, "/inspector": 503, "/": 401, "/people": 401, "/relief": 401} {
		if w := c.request("GET", path, nil, me); w.Code != want {
			t.Errorf("%s: %d, want %d", path, w.Code, want)
		}
	}
	if w := c.request("POST", "/enter", url.Values{"number": {"7"}, "secret": {pin}}, ""); w.Code != 503 || !strings.Contains(w.Body.String(), "闸机自己仍在工作") {
		t.Errorf("%d", w.Code)
	}
}

// The daemon goes away and comes back: who was logged in still is.
func TestSessionsOutliveTheDaemon(t *testing.T) {
	c := newConsole(t, newStreet())
	me := c.cookieOf("guard:7")
	again := newConsole(t, newStreet())
	again.deps.People = c.deps.People
	if w := again.request("GET", "/", nil, me); w.Code != http.StatusOK {
		t.Errorf("%d", w.Code)
	}
}

// No page asks another host for anything, or holds a script or style of its own.
func TestPagesKeepToThemselves(t *testing.T) {
	c := newConsole(t, newStreet())
	me := c.cookieOf("manager:1")
	for _, r := range c.routes() {
		method, path, _ := strings.Cut(r.pattern, " ")
		if method != "GET" || r.class == streams || r.class == files {
			continue
		}
		w := c.request("GET", paths.Replace(path), nil, me, "Accept", "text/html")
		for _, h := range []string{"Content-Security-Policy", "X-Content-Type-Options", "Referrer-Policy"} {
			if w.Header().Get(h) == "" {
				t.Errorf("%s: no %s", path, h)
			}
		}
		if csp := w.Header().Get("Content-Security-Policy"); strings.Contains(csp, "unsafe") || !strings.Contains(csp, "default-src 'none'") {
			t.Errorf("%s: %s", path, csp)
		}
		for _, s := range []string{"<script>", "style=", "onclick", "http://", "https://", "//", "javascript:"} {
			if body := w.Body.String(); strings.Contains(body, s) && w.Code == 200 {
				t.Errorf("%s holds %q", path, s)
			}
		}
		for _, id := range []string{"people.", "inspector.", "ca.", "role."} {
			if m := regexp.MustCompile(`[>" ]` + regexp.QuoteMeta(id) + `[a-z_]+[<" ]`).FindString(w.Body.String()); m != "" {
				t.Errorf("%s shows the message id %s", path, m)
			}
		}
	}
}
