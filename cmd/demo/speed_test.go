//go:build browser

package main

import (
	"fmt"
	"slices"
	"testing"
	"time"

	"github.com/chromedp/chromedp"

	"gatehouse/cmd/internal/estate"
	"gatehouse/edge"
)

// BenchmarkScreen measures in Chromium, over TLS on loopback, how long the first
// page takes until it is loaded, from nothing in the cache, and what it transfers;
// and how long a change of a lane takes from the lane to the page.
func BenchmarkScreen(b *testing.B) {
	tn := openTown(b)
	x := tn.guardsTablet(b, tn.east, "zh-Hans", "李师傅")
	number := func(expression string) float64 {
		v, err := chromedp.Run(x.ctx, chromedp.Evaluate[float64](expression))
		if err != nil {
			b.Fatal(err)
		}
		return v
	}
	p := tn.refer(b, "east-in", tn.somebody(b, estate.Fever, "resident"))
	var loads, bytes []float64
	for range 25 {
		x.do(b, "the lanes", chromedp.Navigate(x.base+"/"))
		x.wait(b, "is loaded", `performance.getEntriesByType("navigation")[0].loadEventEnd > 0`)
		loads = append(loads, number(`performance.getEntriesByType("navigation")[0].loadEventEnd`))
		bytes = append(bytes, number(`[...performance.getEntriesByType("navigation"), ...performance.getEntriesByType("resource")].reduce((n, e) => n + e.transferSize, 0)`))
	}
	x.do(b, "watch", chromedp.Evaluate[chromedp.Void](`void (window.seen = {}, new MutationObserver(() => {
		seen[document.querySelector('.lane[data-lane="east-in"]').dataset.version] ??= Date.now();
	}).observe(document.getElementById("lanes"), {childList: true, subtree: true}))`))
	var screen []float64
	languages := []string{"ko", "fr"}
	n := 0
	for b.Loop() {
		n++
		began := time.Now()
		if err := tn.east.app.Lanes.Do(b.Context(), edge.Action{Kind: edge.ActLanguage, Lane: "east-in", Presentation: p.ID, Actor: x.actor, Text: languages[n%2]}); err != nil {
			b.Fatal(err)
		}
		v := tn.until(b, tn.east, "east-in", "changed", func(v edge.LaneView) bool { return v.Current != nil && v.Current.Language == languages[n%2] })
		x.wait(b, "shows it", fmt.Sprintf(`seen[%d]`, v.Version))
		// The page counts whole milliseconds: one more is the bound.
		screen = append(screen, number(fmt.Sprintf(`seen[%d]`, v.Version))+1-float64(began.UnixMicro())/1000)
	}
	for _, m := range []struct {
		name   string
		values []float64
	}{{"first-page-ms", loads}, {"lane-to-screen-ms", screen}} {
		slices.Sort(m.values)
		b.ReportMetric(m.values[len(m.values)/2], m.name+"-p50")
		b.ReportMetric(m.values[len(m.values)*99/100], m.name+"-p99")
	}
	b.ReportMetric(slices.Max(bytes)/1000, "first-page-kB")
	b.ReportMetric(0, "ns/op")
}
