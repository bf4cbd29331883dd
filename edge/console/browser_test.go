//go:build browser

// The tests of this file drive Chromium: go test -tags browser ./edge/console.
// With -screenshots DIR they leave pictures of every page to be looked at.
package console

import (
	"context"
	"flag"
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/chromedp/chromedp"

	"gatehouse/edge"
)

var screenshots = flag.String("screenshots", "", "folder for pictures of the pages")

func browser(t *testing.T, more ...chromedp.ExecAllocatorOption) context.Context {
	t.Helper()
	opts := append(chromedp.DefaultExecAllocatorOptions[:], chromedp.NoSandbox, chromedp.UserDataDir(t.TempDir()))
	opts = append(opts, more...)
	alloc, stop := chromedp.NewExecAllocator(context.Background(), opts...)
	t.Cleanup(stop)
	ctx, cancel := chromedp.NewContext(alloc)
	t.Cleanup(func() { _ = chromedp.Cancel(ctx); cancel() })
	// The browser lives as long as the context of its first action.
	run(t, ctx, "start", chromedp.Navigate("about:blank"))
	ctx, end := context.WithTimeout(ctx, 5*time.Minute)
	t.Cleanup(end)
	return ctx
}

func run(t *testing.T, ctx context.Context, what string, actions ...chromedp.Action[chromedp.Void]) {
	t.Helper()
	if err := chromedp.Do(ctx, actions...); err != nil {
		t.Fatalf("%s: %v", what, err)
	}
}

func get[T any](t *testing.T, ctx context.Context, what string, action chromedp.Action[T]) T {
	t.Helper()
	v, err := chromedp.Run(ctx, action)
	if err != nil {
		t.Fatalf("%s: %v", what, err)
	}
	return v
}

// wait waits until a condition holds in the page.
func wait(t *testing.T, ctx context.Context, expression string) {
	t.Helper()
	get(t, ctx, expression, chromedp.Poll[bool](expression, chromedp.WithPollingTimeout(10*time.Second)))
}

// login logs somebody of the crew in by the page.
func login(t *testing.T, ctx context.Context, base, number string) {
	t.Helper()
	run(t, ctx, "login", chromedp.Navigate(base+"/enter"), chromedp.SetValue(`[name=number]`, number), chromedp.SetValue(`[name=secret]`, pin), chromedp.Click(`button.main`), chromedp.WaitVisible(`nav .actor`))
}

// A guard logs in, answers by touch and by key, types a reading while the lane
// changes, and is told when too late.
func TestShift(t *testing.T) {
	for lang, late := range map[string]string{"zh-Hans": "晚了一步", "en": "Too late"} {
		t.Run(lang, func(t *testing.T) { shift(t, lang, late) })
	}
}

func shift(t *testing.T, lang, late string) {
	s := newStreet()
	c := newConsole(t, s)
	base := serve(t, c)
	ctx := browser(t)
	login(t, ctx, base, "7")
	run(t, ctx, "language", chromedp.Navigate(base+"/?lang="+lang), chromedp.WaitVisible(`.lane.referred`))
	wait(t, ctx, `document.querySelector(".left").textContent.endsWith(" s")`)

	run(t, ctx, "one touch", chromedp.Click(`.lane.referred input[value=medical] ~ button`))
	waitDone(t, s, 1)
	if got := s.did()[0]; got.Kind != edge.ActAdmit || got.Presentation != 41 || got.Reason != "medical" || got.Actor != "guard:7" {
		t.Fatalf("%+v", got)
	}

	run(t, ctx, "a key", chromedp.Focus(`.lane.referred button[data-key="a"]`), chromedp.KeyEvent("n"))
	waitDone(t, s, 2)
	if got := s.did()[1]; got.Kind != edge.ActDeny || got.Lane != "east-in" {
		t.Fatalf("%+v", got)
	}

	// Typing goes on while the lane changes under it.
	input := `.lane.referred input[name=value]`
	run(t, ctx, "typing", chromedp.SendKeys(input, "36"))
	v := referred()
	v.Queue = 9
	s.set(v)
	wait(t, ctx, `document.querySelector(".lane.referred .queue").textContent.includes("9")`)
	run(t, ctx, "typing on", chromedp.KeyEvent(".6"))
	if typed := get(t, ctx, "what was typed", chromedp.Value(input)); typed != "36.6" {
		t.Errorf("typed %q", typed)
	}
	run(t, ctx, "enter", chromedp.KeyEvent("\r"))
	waitDone(t, s, 3)
	if got := s.did()[2]; got.Kind != edge.ActSecond || got.Value != 36.6 {
		t.Errorf("%+v", got)
	}

	// The next person is at the lane before the guard touches: what was typed
	// about the one before is gone, and a touch names the new one.
	run(t, ctx, "typing once more", chromedp.SendKeys(input, "38"))
	v.Current.ID = 55
	s.set(v)
	wait(t, ctx, `document.querySelector('.lane.referred [name=presentation]').value === "55" && document.querySelector(`+"`"+`.lane.referred input[name=value]`+"`"+`).value === "" && !document.querySelector(".lane[data-fresh]")`)

	s.mu.Lock()
	s.refuse = edge.ErrLate
	s.mu.Unlock()
	run(t, ctx, "too late", chromedp.Click(`.lane.referred button[data-key="a"]`))
	wait(t, ctx, fmt.Sprintf(`document.getElementById("message").textContent.includes(%q)`, late))
}

func waitDone(t *testing.T, s *street, n int) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 10*time.Second)
	defer cancel()
	for len(s.did()) < n {
		select {
		case <-ctx.Done():
			t.Fatalf("%d actions: %+v", len(s.did()), s.did())
		case <-time.After(5 * time.Millisecond):
		}
	}
}

// quick lets one browser open pages faster than a person does.
func quick(c *Console) {
	c.meter.limits = maps.Clone(limits)
	for k, l := range c.meter.limits {
		c.meter.limits[k] = limit{1000, 10_000, l.body}
	}
}

func TestScreenshots(t *testing.T) {
	if *screenshots == "" {
		t.Log("no folder for pictures was given")
	}
	gallery(t, func(ctx context.Context, p sheet, lang, theme string) {
		for _, size := range []struct {
			name string
			w, h int64
		}{{"tablet", 1280, 800}, {"phone", 390, 844}, {"kiosk", 800, 480}} {
			run(t, ctx, p.name, chromedp.EmulateViewport(size.w, size.h))
			wide := get(t, ctx, "width", chromedp.Evaluate[bool](`document.documentElement.scrollWidth > innerWidth + 1`))
			png := get(t, ctx, p.name, chromedp.CaptureScreenshot())
			if get(t, ctx, "lost", chromedp.Evaluate[bool](`document.body.classList.contains("lost")`)) {
				t.Errorf("%s says that the connection is lost on a %s in %s", p.name, size.name, lang)
			}
			if wide {
				t.Errorf("%s is wider than a %s in %s", p.name, size.name, lang)
			}
			if *screenshots != "" {
				if err := os.WriteFile(filepath.Join(*screenshots, fmt.Sprintf("%s-%s-%s-%s.png", p.name, size.name, lang, theme)), png, 0o644); err != nil {
					t.Fatal(err)
				}
			}
		}
	})
}
