//go:build browser

package console

import (
	"context"
	"fmt"
	"net/url"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/chromedp/chromedp"

	"gatehouse/edge"
	"gatehouse/edge/clock"
	"gatehouse/edge/console/accounts"
)

// sheet is one page of the gallery, as it stands in one browser.
type sheet struct {
	name, path string
	then       string // script that leads on from there to the page meant
	at         string // the path where that ends; empty = path
}

// gallery shows every page of the console once in each language and theme, and
// calls look with each. Who looks is logged in as the page asks for.
func gallery(t *testing.T, look func(ctx context.Context, p sheet, lang, theme string)) {
	t.Helper()
	s := newStreet()
	go_, shut := referred(), referred()
	go_.Lane, go_.Name, go_.State = "north-in", "北门入口", edge.LanePassing
	pass := *go_.Current
	pass.State, pass.Outcome, pass.Reason, pass.Answers = edge.LanePassing, edge.Admit, "resident", nil
	go_.Current, go_.Queue = &pass, 0
	shut.Lane, shut.Name, shut.State, shut.Current, shut.Queue = "south-in", "南门入口", edge.LaneClosed, nil, 0
	s.views = append(s.views, go_, shut)
	c := newConsole(t, s)
	quick(c)
	c.deps.Inside = func(context.Context) ([]edge.Inside, error) {
		return []edge.Inside{{Pass: *referred().Current.Pass, Since: time.Now().Add(-2 * time.Hour).UnixMilli()},
			{Pass: edge.Pass{ID: 8, Name: "李*", Category: "worker"}, Since: time.Now().Add(-time.Hour).UnixMilli(), Peer: true}}, nil
	}
	base := serve(t, c)
	fresh := newConsole(t, newStreet())
	quick(fresh)
	people, err := accounts.Open(t.Context(), filepath.Join(t.TempDir(), "new.db"), accounts.Options{Cost: accounts.Cost{Time: 1, Memory: 8}, Record: s.record})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = people.Close() })
	fresh.deps.People = people
	first := serve(t, fresh)
	// In the clear, this one shows its certificate and nothing else.
	proved := newConsole(t, newStreet())
	quick(proved)
	proved.cfg.Certificates = certificates(t, t.TempDir(), clock.NewFake(built, 480))
	clear := serve(t, proved)
	ctx := browser(t)
	for _, who := range []struct {
		number, base string
		pages        []sheet
	}{
		{"", first, []sheet{{name: "setup", path: "/setup"}}},
		{"", clear, []sheet{{name: "ca", path: "/ca"}}},
		{"", base, []sheet{{name: "enter", path: "/enter"}, {name: "rules", path: "/rules"}, {name: "inspector", path: "/inspector"},
			{name: "enter-refused", path: "/enter", then: `document.querySelector("[name=number]").value = "7"; document.querySelector("[name=secret]").value = "no"; document.querySelector("form").submit()`},
			{name: "display-idle", path: "/display/east-out"}, {name: "display-wait", path: "/display/side"}, {name: "display-go", path: "/display/north-in"},
			{name: "display-stop", path: "/display/east-in"}, {name: "display-closed", path: "/display/south-in"}}},
		{"5", base, []sheet{{name: "tests", path: "/devices"}, {name: "raw", path: "/devices/raw"}}},
		{"7", base, []sheet{{name: "lanes", path: "/"}, {name: "passes", path: "/passes?name=x"}, {name: "devices", path: "/devices"}, {name: "journal", path: "/journal"}, {name: "entry", path: "/journal/1"},
			{name: "inside", path: "/inside"}, {name: "relief", path: "/relief"}, {name: "me", path: "/me"}, {name: "forbidden", path: "/people"},
			{name: "stale", path: "/passes?name=x", at: "/passes", then: `document.querySelector("[name=once]").value = "used"; document.querySelector("[name=once]").form.querySelector("[name=reason]").value = "moved"; document.querySelector("[name=once]").form.requestSubmit(document.querySelector("button[value=lost]"))`}}},
		{"1", base, []sheet{{name: "manager", path: "/"}, {name: "control", path: "/control"}, {name: "people", path: "/people"}}},
	} {
		if who.number != "" {
			login(t, ctx, base, who.number)
		}
		for _, lang := range c.cfg.Languages {
			for _, theme := range []string{"light", "dark"} {
				for _, p := range who.pages {
					u, err := url.Parse(who.base + p.path)
					if err != nil {
						t.Fatal(err)
					}
					q := u.Query()
					q.Set("lang", lang)
					u.RawQuery = q.Encode()
					run(t, ctx, p.name, chromedp.Navigate(u.String()))
					if p.then != "" {
						get(t, ctx, p.name, chromedp.Evaluate[bool]("window.before = true; "+p.then+"; true"))
						for led := false; !led; {
							// Between two pages there is none to ask.
							led, _ = chromedp.Run(ctx, chromedp.Evaluate[bool](`!window.before && document.readyState === "complete"`))
							if ctx.Err() != nil {
								t.Fatalf("%s leads nowhere", p.name)
							}
						}
					}
					get(t, ctx, "theme", chromedp.Evaluate[string](fmt.Sprintf("document.documentElement.dataset.theme = %q", theme)))
					want := p.at
					if want == "" {
						want, _, _ = strings.Cut(p.path, "?")
					}
					if at := get(t, ctx, "path", chromedp.Evaluate[string](`location.pathname`)); at != want {
						t.Errorf("%s led to %s", p.name, at)
					}
					look(ctx, p, lang, theme)
				}
			}
		}
	}
}
