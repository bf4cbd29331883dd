package console

import (
	"errors"
	"net/http"
	"net/url"
	"strings"
	"testing"
	"time"

	"gatehouse/device"
	"gatehouse/edge"
	"gatehouse/edge/clock"
)

func TestDevices(t *testing.T) {
	c := newConsole(t, newStreet())
	fake := clock.NewFake(time.Date(2026, 3, 2, 2, 0, 0, 0, time.UTC), 480)
	fake.Set(edge.Stamp{Time: 1772416800000, Offset: 480, Clock: edge.ClockHoldover, Source: "server", Error: 2400})
	c.deps.Clock = fake
	c.deps.Sync = func() edge.SyncStatus {
		return edge.SyncStatus{Connected: true, Server: "mqtts://broker", Size: 5, Acked: 3, LastReceipt: time.Now().Add(-3 * time.Hour), Error: "broken pipe"}
	}
	for lang, wants := range map[string][]string{
		"zh-Hans": {"rdm6300", "正常", "没有找到", "&lt;script&gt;", "3 / 5", "421", "重复 9", "v1.2.3", "closed-estate/7", "sha256:77aa", "1204 张通行证", "曾经校准，现在自行走时", "误差不超过 2.4 秒", "社区服务器", "3 小时前", "broken pipe"},
		"en":      {"works", "not found", "repeated 9", "31 · 1204 passes", "was set once, runs on by itself", "at most 2.4 s wrong", "3 hours ago", "mqtts://broker"},
	} {
		body := c.request("GET", "/devices", nil, c.cookieOf("guard:7")+"; lang="+lang).Body.String()
		for _, want := range wants {
			if !strings.Contains(body, want) {
				t.Errorf("%s: the page lacks %q", lang, want)
			}
		}
		for _, hidden := range []string{`action="/devices"`, `href="/devices/raw"`} {
			if strings.Contains(body, hidden) {
				t.Errorf("a guard is offered %s", hidden)
			}
		}
	}
	fake.Set(edge.Stamp{Clock: edge.ClockUnset, Source: "build"})
	if body := c.request("GET", "/devices", nil, c.cookieOf("guard:7")).Body.String(); !strings.Contains(body, "没有人能证明时间正确") || !strings.Contains(body, "程序的日期") {
		t.Error("the page believes a clock for which nobody vouches")
	}
}

// A test names who pressed and says in the page what became of it.
func TestTryDevices(t *testing.T) {
	s := newStreet()
	c := newConsole(t, s)
	me := c.cookieOf("installer:5")
	body := c.request("GET", "/devices", nil, me).Body.String()
	if n := strings.Count(body, `action="/devices"`); n != 3 || !strings.Contains(body, `name="test" value="barrier"`) {
		t.Errorf("%d tests are offered", n)
	}
	w := c.request("POST", "/devices", url.Values{"lane": {"east-in"}, "test": {"barrier"}}, me, "Accept", "text/html")
	if want := (edge.DeviceTest{Lane: "east-in", What: edge.TestBarrier, Actor: "installer:5"}); w.Code != http.StatusOK || len(s.tests) != 1 || s.tests[0] != want || !strings.Contains(w.Body.String(), "东门入口：正在测试道闸，已记入日志") {
		t.Errorf("%d %+v", w.Code, s.tests)
	}
	for err, want := range map[error]struct {
		code int
		say  string
	}{
		edge.Refuse("not_idle", "x"):   {http.StatusConflict, "这个出入口有人"},
		edge.Refuse("in_the_way", "x"): {http.StatusConflict, "有人站在出入口"},
		edge.Refuse("unknown", "x"):    {http.StatusConflict, "闸机不认识这个操作"},
		edge.ErrUnknown:                {http.StatusNotFound, "没有这个通道"},
		errors.New("disk full"):        {http.StatusServiceUnavailable, "没有办成"},
	} {
		s.refuse = err
		w := c.request("POST", "/devices", url.Values{"lane": {"east-in"}, "test": {"lamps"}}, me, "Accept", "text/html")
		if w.Code != want.code || !strings.Contains(w.Body.String(), want.say) {
			t.Errorf("%v: %d", err, w.Code)
		}
	}
	if len(s.tests) != 1 {
		t.Errorf("%+v", s.tests)
	}
	v := referred()
	v.State, v.Current, v.Test = edge.LaneIdle, nil, edge.TestBarrier
	s.set(v)
	if body := c.request("GET", "/", nil, c.cookieOf("guard:7")).Body.String(); !strings.Contains(body, "测试中： 道闸") {
		t.Error("the lane does not say that it is tried")
	}
	if got := newSign(c.deps.Text, c.cfg.Languages, v); got.Sign != "closed" {
		t.Errorf("the display shows %s while the barrier is tried", got.Sign)
	}
}

// What the journal says of tests is in words.
func TestTestLine(t *testing.T) {
	c := newConsole(t, newStreet())
	for data, want := range map[string]string{`{"test":"barrier"}`: "Barrier · installer 5", `{"test":"barrier","persons":2}`: "Barrier · 2 went through · installer 5", `{"test":"siren"}`: "siren · installer 5", `[]`: "installer 5"} {
		e := edge.Entry{Kind: edge.KindTest, Lane: "east-in", Of: -1, Actor: "installer:5", Data: []byte(data)}
		b, err := e.AppendJSON(nil)
		if err != nil {
			t.Fatal(err)
		}
		if l, _, ok := c.line(c.deps.Text.For("en"), edge.Stored{Line: b}); !ok || l.Why != want || l.What != "test" {
			t.Errorf("%s: %+v", data, l)
		}
	}
}

// Raw readings show a card's number to who may look for passes anyway, its end to
// others, and a PIN to nobody; that somebody looked is on record first.
func TestRawReadings(t *testing.T) {
	s := newStreet()
	c := newConsole(t, s)
	c.deps.Record = s.record
	at := time.Date(2026, 3, 2, 10, 15, 30, 200e6, c.cfg.Location)
	em := device.CardRead{Format: device.FormatEM4100, At: at}
	for _, b := range []byte{0x3C, 0x00, 0xCE, 0x75, 0x4C} {
		for i := range 8 {
			em.Raw.Append(b&(0x80>>i) != 0)
		}
	}
	for _, r := range []edge.RawReading{{At: at, Card: &em}, {At: at, Card: &device.CardRead{Format: device.FormatPIN, Text: "971353"}},
		{At: at, Card: &device.CardRead{Format: device.FormatQR, Text: "health\x00code:" + strings.Repeat("Z", 500)}}, {At: at, Err: "garbled: wrong parity <b>"}} {
		s.comes("east-in scanner", r)
	}
	s.comes("east-in thermometer", edge.RawReading{At: at, Sample: &device.Sample{Object: 34.256, Ambient: 21.5, HasAmbient: true, Range: 640}})
	s.comes("main beam", edge.RawReading{At: at, Contact: &device.Change{Active: true, Count: 12}})
	always := []string{"10:15:30.2", "40 位", "6 位数的 PIN", "garbled: wrong parity &lt;b&gt;", "目标 34.26 ℃", "环境 21.50 ℃", "距离 640 毫米", "动作 · 累计 12 次", "4 次读数"}
	for actor, want := range map[string]string{"installer:5": "em ••••••••4C", "supervisor:2": "em 3C00CE754C"} {
		body := c.request("GET", "/devices/raw", nil, c.cookieOf(actor)).Body.String()
		for _, x := range append(always, want) {
			if !strings.Contains(body, x) {
				t.Errorf("%s: the page lacks %q", actor, x)
			}
		}
		for _, x := range []string{"971353", strings.Repeat("Z", 61), "\x00"} {
			if strings.Contains(body, x) {
				t.Errorf("%s: the page holds %q", actor, x)
			}
		}
		if actor == "installer:5" && (strings.Contains(body, "CE75") || strings.Contains(body, "ZZZ")) {
			t.Errorf("the installer is told whose card it is")
		}
		if last := s.recorded[len(s.recorded)-1]; last != "access "+actor+" map[view:see_raw]" {
			t.Errorf("%s: on record is %q", actor, last)
		}
	}
	for text, want := range map[string]string{"1": "•", "1234": "••••", "12345": "•••45", strings.Repeat("1", 99): "••••••••••11"} {
		if got := cardText(c.deps.Text.For("en"), device.CardRead{Format: device.FormatLine, Text: text}, false); got != "line "+want {
			t.Errorf("%s is shown as %s", text, got)
		}
	}
	me := c.cookieOf("manager:1")
	s.disk = errors.New("disk full")
	for _, path := range []string{"/devices/raw", "/devices/raw/live"} {
		if w := c.request("GET", path, nil, me); w.Code != http.StatusServiceUnavailable || strings.Contains(w.Body.String(), "em ") {
			t.Errorf("%s shows what could not be recorded: %d", path, w.Code)
		}
	}
}

// What comes is on the page at once, by the device that it came from; what one may
// see is not what another is sent.
func TestRawLive(t *testing.T) {
	s := newStreet()
	c := newConsole(t, s)
	c.beat = 10 * time.Millisecond
	base := serve(t, c)
	card := func(text string) edge.RawReading {
		return edge.RawReading{At: time.Now(), Card: &device.CardRead{Format: device.FormatLine, Text: text}}
	}
	for actor, want := range map[string]string{"installer:5": "line ••••••89", "supervisor:2": "line 23456789"} {
		first, alive := 0, false
		events(t, base, "/devices/raw/live", c.cookieOf(actor), func(event, data string) bool {
			switch event {
			case "alive":
				alive = true
			case "raw":
				if first++; first == 3 {
					s.comes("east-in scanner", card("23456789"))
				}
				if first > 3 && !strings.Contains(data, `"id":"east-in scanner"`) {
					t.Errorf("sent without anything new: %s", data)
				}
			}
			return first > 3 && strings.Contains(data, want)
		})
		if !alive {
			events(t, base, "/devices/raw/live", c.cookieOf(actor), func(event, _ string) bool { return event == "alive" })
		}
	}
}
