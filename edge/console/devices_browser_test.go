//go:build browser

package console

import (
	"fmt"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/chromedp/chromedp"

	"gatehouse/device"
	"gatehouse/edge"
)

// picture leaves pictures of the page that is open, in the sizes of the gate's
// screens, and says when one is too narrow for it.
func picture(t *testing.T, c *Console, shot func(lang, theme string), name string, take func(w, h int64) ([]byte, bool)) {
	t.Helper()
	for _, size := range []struct {
		name string
		w, h int64
	}{{"tablet", 1280, 800}, {"phone", 390, 844}, {"kiosk", 800, 480}} {
		for _, lang := range c.cfg.Languages {
			for _, theme := range []string{"light", "dark"} {
				shot(lang, theme)
				png, wide := take(size.w, size.h)
				if wide {
					t.Errorf("%s is wider than a %s in %s", name, size.name, lang)
				}
				if *screenshots != "" {
					if err := os.WriteFile(filepath.Join(*screenshots, fmt.Sprintf("%s-%s-%s-%s.png", name, size.name, lang, theme)), png, 0o644); err != nil {
						t.Fatal(err)
					}
				}
			}
		}
	}
}

// An installer at the mast tries the barrier, is refused when somebody is there,
// and sees what the devices read without touching the screen.
func TestInstallerAtTheMast(t *testing.T) {
	s := newStreet()
	c := newConsole(t, s)
	quick(c)
	base := serve(t, c)
	ctx := browser(t)
	login(t, ctx, base, "5")
	wait(t, ctx, `location.pathname === "/devices"`)
	run(t, ctx, "barrier", chromedp.Click(`button[value=barrier]`), chromedp.WaitVisible(`.done`))
	if got := s.tests; len(got) != 1 || got[0] != (edge.DeviceTest{Lane: "east-in", What: edge.TestBarrier, Actor: "installer:5"}) {
		t.Fatalf("%+v", got)
	}
	s.mu.Lock()
	s.refuse = edge.Refuse("not_idle", "somebody is there")
	s.mu.Unlock()
	run(t, ctx, "barrier, again", chromedp.Click(`button[value=barrier]`), chromedp.WaitVisible(`.message`))
	pages := func(name, path string) {
		picture(t, c, func(lang, theme string) {
			run(t, ctx, name, chromedp.Navigate(base+"/rules?lang="+lang), chromedp.Navigate(base+path))
			get(t, ctx, "theme", chromedp.Evaluate[string](fmt.Sprintf("document.documentElement.dataset.theme = %q", theme)))
		}, name, func(w, h int64) ([]byte, bool) {
			run(t, ctx, name, chromedp.EmulateViewport(w, h))
			wide := get(t, ctx, "width", chromedp.Evaluate[bool](`document.documentElement.scrollWidth > innerWidth + 1`))
			return get(t, ctx, name, chromedp.FullScreenshot(100)), wide
		})
	}
	pages("devices-installer", "/devices")

	run(t, ctx, "live", chromedp.Navigate(base+"/devices/raw"), chromedp.WaitVisible(`.raw`))
	card := func(text string) {
		s.comes("east-in scanner", edge.RawReading{At: time.Now(), Card: &device.CardRead{Format: device.FormatLine, Text: text}})
	}
	card("1234567")
	wait(t, ctx, `document.querySelector('.raw[data-id="east-in scanner"]').textContent.includes("•••••67")`)
	for i := range 6 {
		s.comes("east-in thermometer", edge.RawReading{At: time.Now(), Sample: &device.Sample{Object: 34.2 + device.Celsius(i)/50, Ambient: 21.4, HasAmbient: true, Range: 640 - i}})
		s.comes("main beam", edge.RawReading{At: time.Now(), Contact: &device.Change{Active: i%2 == 0, Count: uint64(i)}})
	}
	s.comes("east-in scanner", edge.RawReading{At: time.Now(), Err: "cannot read east-in scanner: garbled: wrong checksum"})
	wait(t, ctx, `document.querySelector('.raw[data-id="east-in thermometer"]').textContent.includes("34.30")`)
	if get(t, ctx, "lost", chromedp.Evaluate[bool](`document.body.classList.contains("lost")`)) {
		t.Error("the page says that the connection is lost")
	}
	pages("raw", "/devices/raw")
}
