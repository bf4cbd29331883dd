//go:build browser

package console

import (
	"context"
	"encoding/json"
	"fmt"
	"os"
	"strings"
	"testing"

	"github.com/chromedp/chromedp"
)

// TestAccessible asks axe-core (https://github.com/dequelabs/axe-core) for what the
// pages break of WCAG 2.2 AA. GATEHOUSE_AXE is the path of its axe.min.js.
func TestAccessible(t *testing.T) {
	path := os.Getenv("GATEHOUSE_AXE")
	if path == "" {
		t.Fatal("GATEHOUSE_AXE is not set: unpack the npm package axe-core and say where its axe.min.js is")
	}
	axe, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	const ask = `; window.found = ""; axe.run(document, {runOnly: ["wcag2a", "wcag2aa", "wcag21a", "wcag21aa", "wcag22aa"]}).then(
		r => found = JSON.stringify({passes: r.passes.length, violations: r.violations.map(v => v.id + ": " + v.nodes.map(n => n.html + " " + n.failureSummary).join("; "))}),
		e => found = JSON.stringify({violations: [String(e)]})); true`
	visit := func(ctx context.Context, base, page, lang, theme string) {
		t.Helper()
		run(t, ctx, page, chromedp.Navigate(base+"/rules?lang="+lang), chromedp.Navigate(base+page))
		get(t, ctx, "theme", chromedp.Evaluate[string](fmt.Sprintf("document.documentElement.dataset.theme = %q", theme)))
		at := get(t, ctx, "path", chromedp.Evaluate[string](`location.pathname`))
		if want, _, _ := strings.Cut(page, "?"); at != want {
			t.Errorf("%s led to %s", page, at)
		}
		get(t, ctx, "axe", chromedp.Evaluate[bool](string(axe)+ask))
		wait(t, ctx, `window.found !== ""`)
		var r struct {
			Passes     int
			Violations []string
		}
		if err := json.Unmarshal([]byte(get(t, ctx, "result", chromedp.Evaluate[string](`found`))), &r); err != nil {
			t.Fatal(err)
		}
		if r.Passes == 0 {
			t.Errorf("nothing was looked at on %s", page)
		}
		for _, v := range r.Violations {
			t.Errorf("%s, %s, %s: %s", page, lang, theme, v)
		}
	}
	c := newConsole(t, newStreet())
	quick(c)
	base := serve(t, c)
	ctx := browser(t)
	for _, who := range []struct {
		number string
		pages  []string
	}{
		{"", []string{"/enter", "/rules", "/display/east-in", "/inspector"}},
		{"7", []string{"/", "/passes?name=x", "/devices", "/journal", "/journal/1", "/inside", "/relief", "/me"}},
		{"1", []string{"/", "/control", "/people"}},
	} {
		if who.number != "" {
			login(t, ctx, base, who.number)
		}
		for _, lang := range []string{"zh-Hans", "en"} {
			for _, theme := range []string{"light", "dark"} {
				for _, page := range who.pages {
					visit(ctx, base, page, lang, theme)
				}
			}
		}
	}
}
