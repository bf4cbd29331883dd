//go:build browser

package console

import (
	"context"
	"encoding/json"
	"os"
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
	gallery(t, func(ctx context.Context, p sheet, lang, theme string) {
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
			t.Errorf("nothing was looked at on %s", p.name)
		}
		for _, v := range r.Violations {
			t.Errorf("%s, %s, %s: %s", p.name, lang, theme, v)
		}
	})
}
