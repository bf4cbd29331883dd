package console

import (
	"context"
	"fmt"
	"net"
	"net/http"
	"net/url"
	"strings"
	"testing"
	"time"

	"gatehouse/edge"
)

// stuck is a journal that does not answer until it is let go.
type stuck struct {
	*street
	asked, let chan struct{}
}

func (s stuck) Read(ctx context.Context, from uint64, n, most int) ([]edge.Stored, error) {
	select {
	case s.asked <- struct{}{}:
	default:
	}
	select {
	case <-s.let:
	case <-ctx.Done():
		return nil, ctx.Err()
	}
	return s.street.Read(ctx, from, n, most)
}

// A journal that does not answer holds up no lane's picture; the entries come when
// it does.
func TestSlowJournalHoldsUpNoLane(t *testing.T) {
	s := newStreet()
	c := newConsole(t, s)
	j := stuck{s, make(chan struct{}, 1), make(chan struct{})}
	c.deps.Journal = j
	base := serve(t, c)
	more := func() {
		s.mu.Lock()
		defer s.mu.Unlock()
		s.lines = append(s.lines, s.lines[0])
	}
	asked, let := false, false
	events(t, base, "/live", c.cookieOf("guard:7"), func(event, data string) bool {
		switch event {
		case "status":
			if !asked {
				more()
			}
		case "lane":
			if asked && strings.Contains(data, "还有 77 位") && !let {
				let = true
				close(j.let)
			}
		case "entries":
			if !let {
				t.Error("the entries came from a journal that does not answer")
			}
			return true
		}
		select {
		case <-j.asked:
			asked = true
			v := referred()
			v.Queue = 77
			s.set(v)
		default:
		}
		return false
	})
}

// A browser that does not read is dropped; one that does misses nothing for it.
func TestSlowBrowserIsDropped(t *testing.T) {
	s := newStreet()
	c := newConsole(t, s)
	c.slow = 2 * time.Second
	base := serve(t, c)
	at, err := url.Parse(base)
	if err != nil {
		t.Fatal(err)
	}
	slow, err := net.Dial("tcp", at.Host)
	if err != nil {
		t.Fatal(err)
	}
	defer slow.Close()
	// A small window, so that the gate notices soon that nobody reads.
	if err := slow.(*net.TCPConn).SetReadBuffer(4 << 10); err != nil {
		t.Fatal(err)
	}
	r, err := http.NewRequest("GET", base+"/live", nil)
	if err != nil {
		t.Fatal(err)
	}
	r.Header.Set("Cookie", c.cookieOf("guard:8"))
	if err := r.Write(slow); err != nil {
		t.Fatal(err)
	}
	watching := func() int {
		c.mu.Lock()
		defer c.mu.Unlock()
		return c.watchers
	}
	both, n := false, 0
	events(t, base, "/live", c.cookieOf("guard:7"), func(event, data string) bool {
		if watching() == 2 {
			both = true
		}
		if event != "lane" || !strings.Contains(data, `"id":"east-in"`) {
			return false
		}
		if n > 0 && !strings.Contains(data, fmt.Sprintf("还有 %d 位", n)) {
			t.Errorf("change %d is missing", n)
		}
		// The next change once this one is here: who reads never falls behind.
		n++
		v := referred()
		v.Queue = n
		v.Current.Say = map[string]string{"zh-Hans": strings.Repeat("长", 80_000)}
		s.set(v)
		return both && watching() == 1
	})
	if !both {
		t.Error("the slow browser never watched")
	}
}

// Who is too late is told whose answer counts, by name, and which it was.
func TestLateIsToldWho(t *testing.T) {
	s := newStreet()
	c := newConsole(t, s)
	me := c.cookieOf("guard:7")
	for _, x := range []struct {
		err      error
		lang     string
		want, no string
	}{
		{edge.ErrLate, "en", "Too late: this person was answered already, or has gone", ""},
		{edge.Late{By: "guard:8", Outcome: edge.Deny}, "zh-Hans", c.actorName(t.Context(), c.deps.Text.For("zh-Hans"), "guard:8") + "已经处理（不予通行）", "guard:8"},
		{edge.Late{By: "guard:7", Outcome: edge.Admit}, "en", "You have answered already (admit)", ""},
		{edge.Late{By: "system", Outcome: edge.Deny}, "en", "the time was up", "system"},
		{edge.Late{By: "guard:panel", Outcome: edge.Admit}, "en", "the panel has answered", "guard"},
		{edge.Late{By: "guard:999", Outcome: edge.Admit}, "en", "guard 999 has answered", ""},
		{edge.Late{By: "server", Outcome: edge.Admit}, "en", "server has answered", ""},
	} {
		s.refuse = x.err
		w := c.request("POST", "/act", url.Values{"kind": {"deny"}, "lane": {"east-in"}, "presentation": {"41"}}, me+"; lang="+x.lang)
		if body := w.Body.String(); w.Code != http.StatusConflict || !strings.Contains(body, x.want) || x.no != "" && strings.Contains(body, x.no) {
			t.Errorf("%v: %d %s", x.err, w.Code, body)
		}
	}
}

// A call for help is on every screen with who called and a button for whoever
// comes; the call's own button names nobody at the lane.
func TestHelpIsShown(t *testing.T) {
	s := newStreet()
	v := referred()
	v.Help = []edge.HelpCall{{ID: 77, By: "guard:8", At: time.Unix(1650000000, 0)}}
	s.set(v)
	c := newConsole(t, s)
	name := c.actorName(t.Context(), c.deps.Text.For("en"), "guard:8")
	body := c.request("GET", "/", nil, c.cookieOf("guard:7")+"; lang=en").Body.String()
	for _, want := range []string{name + " calls for help", "<time>13:20</time>", `name="kind" value="coming"`, `name="presentation" value="77"`} {
		if !strings.Contains(body, want) {
			t.Errorf("the page lacks %q", want)
		}
	}
	for _, b := range newPanel(c.deps.Text.For("en"), v).Buttons {
		if b.Presentation != 0 {
			t.Errorf("%s names a presentation", b.Kind)
		}
	}
}

// What somebody has answered cannot be answered again, while it is still shown.
func TestAnsweredOffersNothing(t *testing.T) {
	v := referred()
	v.State, v.Current.State, v.Current.Outcome, v.Current.By, v.Current.Answers = edge.LaneDenied, edge.LaneDenied, edge.Deny, "guard:8", nil
	s := newStreet()
	s.set(v)
	c := newConsole(t, s)
	x := c.panel(c.deps.Text.For("zh-Hans"), v)
	if n := len(x.Current.Buttons); n != 0 {
		t.Errorf("%d buttons: %+v", n, x.Current.Buttons)
	}
	if !strings.Contains(x.Current.By, "处理") || strings.Contains(x.Current.By, "guard") {
		t.Errorf("%q", x.Current.By)
	}
}

// The seconds that are left are shown while a reading is typed, and without the
// page's script.
func TestSecondsLeft(t *testing.T) {
	s := newStreet()
	c := newConsole(t, s)
	cookie := c.cookieOf("guard:7")
	v := s.views[2]
	v.Current.Deadline = time.Now().Add(90 * time.Second)
	s.set(v)
	if body := c.request("GET", "/", nil, cookie).Body.String(); !strings.Contains(body, `">90 s</span>`) {
		t.Error("nobody sees how long there is to type a reading")
	}
}

// The display shows the site's languages in their order; the console's pages are in
// one that they have.
func TestSiteLanguages(t *testing.T) {
	for _, x := range []struct {
		language string
		list     []string
		display  string
		page     string
	}{
		{"zh-Hans", nil, "zh-Hans en", "zh-Hans"},
		{"en", nil, "en zh-Hans", "en"},
		{"ko", nil, "ko zh-Hans en", "en"},
		{"ru", []string{"ru", "en"}, "ru en", "en"},
	} {
		c := newConsole(t, newStreet())
		d, err := New(Config{Listen: "127.0.0.1:0", Gate: "x", Language: x.language, Languages: x.list, Tips: map[string][]string{"ru": {"совет"}}}, c.deps)
		if err != nil {
			t.Fatal(err)
		}
		defer d.Close()
		var got []string
		for _, w := range d.sign(referred()).Words {
			got = append(got, w.Lang)
		}
		if strings.Join(got, " ") != x.display {
			t.Errorf("%s: the display shows %v", x.language, got)
		}
		if tips := len(d.tips()); tips != strings.Count(x.display, "ru") {
			t.Errorf("%s: %d tips", x.language, tips)
		}
		body := d.request("GET", "/rules", nil, "").Body.String()
		if !strings.Contains(body, `<html lang="`+x.page+`">`) {
			t.Errorf("%s: the pages are in %.60s", x.language, body)
		}
	}
}
