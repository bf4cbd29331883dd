package console

import (
	"context"
	"flag"
	"fmt"
	"net/http"
	"net/http/httptest"
	"net/url"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"

	"gatehouse/edge"
	"gatehouse/edge/console/accounts"
)

var update = flag.Bool("update", false, "write the golden files anew")

// pin is that of everybody in the tests.
const pin = "246813"

// crew is who has an account in the tests; the installer's name tries to be more
// than a name.
var crew = []accounts.Person{
	{Number: 1, Name: "钱经理", Role: accounts.Manager}, {Number: 2, Name: "孙班长", Role: accounts.Supervisor}, {Number: 5, Name: "<b>Ivan</b>", Role: accounts.Installer},
	{Number: 7, Name: "李师傅", Role: accounts.Guard}, {Number: 8, Name: "周师傅", Role: accounts.Guard},
}

func newPeople(t testing.TB, record func(context.Context, edge.Kind, string, any) error) *accounts.Accounts {
	t.Helper()
	a, err := accounts.Open(t.Context(), filepath.Join(t.TempDir(), "accounts.db"), accounts.Options{Cost: accounts.Cost{Time: 1, Memory: 8}, Community: "happy", Site: "garden", Gate: "east", Record: record, Authorities: authorities})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = a.Close() })
	for _, p := range crew {
		if _, _, err := a.Add(t.Context(), "test", p, pin); err != nil {
			t.Fatal(err)
		}
	}
	return a
}

// cookieOf logs somebody in: "guard:7".
func (c *Console) cookieOf(actor string) string {
	_, n, _ := strings.Cut(actor, ":")
	if _, err := strconv.Atoi(n); err != nil {
		panic(err)
	}
	t, s, err := c.deps.People.Login(context.Background(), accounts.Login{Who: n, Secret: pin})
	if err != nil {
		panic(err)
	}
	if s.Actor() != actor {
		panic(s.Actor() + " is not " + actor)
	}
	return sessionCookie + "=" + t.Session
}

// paths give a request for each pattern of the table.
var paths = strings.NewReplacer("{$}", "", "{lane}", "east-in", "{seq}", "1", "{name}", "console.css", "{number}", "8")

// Every role, and nobody, and whoever must choose a secret first, at every route
// of the table.
func TestRights(t *testing.T) {
	s := newStreet()
	c := newConsole(t, s)
	cookies := map[accounts.Role]string{"": ""}
	for _, p := range crew {
		cookies[p.Role] = c.cookieOf(p.Actor())
	}
	cookies[accounts.Inspector] = c.inspector12(t)
	_, once, err := c.deps.People.Add(t.Context(), "test", accounts.Person{Number: 30, Name: "new", Role: accounts.Manager}, "")
	if err != nil {
		t.Fatal(err)
	}
	token, _, err := c.deps.People.Login(t.Context(), accounts.Login{Who: "30", Secret: once})
	if err != nil {
		t.Fatal(err)
	}
	fresh := sessionCookie + "=" + token.Session
	tried := 0
	c.meter = nil
	for _, r := range c.routes() {
		method, path, _ := strings.Cut(r.pattern, " ")
		path = paths.Replace(path)
		call := func(cookie string) int {
			tried++
			_, token, _ := strings.Cut(cookie, "=")
			form := url.Values{"once": {c.once.token(token)}}
			req := httptest.NewRequest(method, path, strings.NewReader(form.Encode()))
			req.Header.Set("Content-Type", "application/x-www-form-urlencoded")
			reached := false
			rt := r
			rt.handle = func(w http.ResponseWriter, _ *http.Request) { reached = true }
			if cookie != "" {
				req.Header.Set("Cookie", cookie)
			}
			w := httptest.NewRecorder()
			c.guarded(rt)(w, req)
			if reached != (w.Code == http.StatusOK) {
				t.Errorf("%s: reached %v with %d", r.pattern, reached, w.Code)
			}
			return w.Code
		}
		for role, cookie := range cookies {
			want := http.StatusOK
			switch {
			case r.who == public:
			case role == "":
				want = http.StatusUnauthorized
			case !slices.Contains(holders[r.who], role):
				want = http.StatusForbidden
			}
			if got := call(cookie); got != want {
				t.Errorf("%s by %q: %d, want %d", r.pattern, role, got, want)
			}
		}
		for _, cookie := range []string{sessionCookie + "=" + strings.Repeat("0", 43), sessionCookie + "=", sessionCookie + "=guard:7"} {
			if got := call(cookie); r.who != public && got != http.StatusUnauthorized {
				t.Errorf("%s with %q: %d", r.pattern, cookie, got)
			}
		}
		want := http.StatusForbidden
		if r.who == public || r.who == session {
			want = http.StatusOK
		}
		if got := call(fresh); got != want {
			t.Errorf("%s by somebody with a secret that serves once: %d, want %d", r.pattern, got, want)
		}
	}
	if tried < 100 {
		t.Errorf("only %d calls", tried)
	}
	// Over the handler itself: what is not in the table is not there.
	for _, path := range []string{"/act", "/people/1", "/admin", "/.git/config", "/assets/../console.go", "/assets/enter.html"} {
		if w := c.request("GET", path, nil, cookies[accounts.Manager]); w.Code != http.StatusNotFound && w.Code != http.StatusMethodNotAllowed && w.Code != http.StatusMovedPermanently && w.Code != http.StatusTemporaryRedirect {
			t.Errorf("%s: %d", path, w.Code)
		}
	}
}

// The table of rights in full: a change of it is seen here.
func TestRightsTable(t *testing.T) {
	var b strings.Builder
	c := newConsole(t, newStreet())
	for _, r := range c.routes() {
		who := "everybody"
		if r.who != public {
			who = fmt.Sprint(holders[r.who])
		}
		fmt.Fprintf(&b, "%-28s %-16s %s\n", r.pattern, r.who, who)
	}
	b.WriteString("\nplaces of pages to come\n")
	for _, r := range []right{visitors, printing, roster, charts, report} {
		fmt.Fprintf(&b, "%-28s %-16s %v\n", "", r, holders[r])
	}
	path := filepath.Join("testdata", "rights.txt")
	if *update {
		if err := os.MkdirAll("testdata", 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(path, []byte(b.String()), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	want, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	if got := b.String(); got != string(want) {
		t.Errorf("the table is now (run with -update if that is meant):\n%s", got)
	}
	// The inspector changes nothing, the installer sees nobody's data.
	for _, r := range c.routes() {
		method, _, _ := strings.Cut(r.pattern, " ")
		if method == "POST" && r.who != public && r.who != session && has(accounts.Inspector, r.who) {
			t.Errorf("the inspector may %s", r.pattern)
		}
	}
	for _, r := range []right{watch, findPasses, readJournal, seeInside, seePeople, visitors, roster, report} {
		if has(accounts.Installer, r) {
			t.Errorf("the installer may %s", r)
		}
	}
}
