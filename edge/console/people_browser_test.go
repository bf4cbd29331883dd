//go:build browser

package console

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/chromedp/chromedp"

	"gatehouse/edge/clock"
	"gatehouse/edge/console/accounts"
)

// From the first start to the hand-over at one tablet, in both languages, with
// the keyboard and the pages alone.
func TestPeopleInTheBrowser(t *testing.T) {
	for _, lang := range []string{"zh-Hans", "en"} {
		t.Run(lang, func(t *testing.T) {
			s := newStreet()
			c := newConsole(t, s)
			people, err := accounts.Open(t.Context(), filepath.Join(t.TempDir(), "new.db"), accounts.Options{Cost: accounts.Cost{Time: 1, Memory: 8}, Record: s.record, Authorities: authorities})
			if err != nil {
				t.Fatal(err)
			}
			t.Cleanup(func() { _ = people.Close() })
			c.deps.People = people
			code, err := people.FirstCode(t.Context())
			if err != nil {
				t.Fatal(err)
			}
			// TLS is tried by TestFront; here the page is shown as it is with it.
			c.cfg.Certificates = nil
			base := serve(t, c)
			ctx := browser(t)
			shot := func(name string) {
				t.Helper()
				if wide := get(t, ctx, "width", chromedp.Evaluate[bool](`document.documentElement.scrollWidth > innerWidth + 1`)); wide {
					t.Errorf("%s is wider than the screen", name)
				}
				if *screenshots == "" {
					return
				}
				png := get(t, ctx, name, chromedp.CaptureScreenshot())
				if err := os.WriteFile(filepath.Join(*screenshots, fmt.Sprintf("people-%s-%s.png", name, lang)), png, 0o644); err != nil {
					t.Fatal(err)
				}
			}
			run(t, ctx, "first start", chromedp.EmulateViewport(800, 1100), chromedp.Navigate(base+"/enter?lang="+lang), chromedp.WaitVisible(`[name=code]`))
			run(t, ctx, "wrong code", chromedp.SetValue(`[name=code]`, "AAAA-AAAA-AAAA"), chromedp.SetValue(`[name=name]`, "钱经理"), chromedp.SetValue(`[name=secret]`, "a long password"), chromedp.SetValue(`[name=secret2]`, "a long password"),
				chromedp.Click(`button.main`), chromedp.WaitVisible(`.message`))
			shot("setup")
			if kept := get(t, ctx, "name", chromedp.Value(`[name=name]`)); kept != "钱经理" {
				t.Errorf("the name is now %q", kept)
			}
			run(t, ctx, "the code", chromedp.SetValue(`[name=code]`, strings.ToLower(code)), chromedp.SetValue(`[name=secret]`, "a long password"), chromedp.SetValue(`[name=secret2]`, "a long password"),
				chromedp.Click(`button.main`), chromedp.WaitVisible(`nav .actor`))
			run(t, ctx, "people", chromedp.Navigate(base+"/people"), chromedp.SetValue(`section [name=name]`, "李师傅"), chromedp.Click(`section button.main`), chromedp.WaitVisible(`.pin`))
			once := strings.TrimSpace(get(t, ctx, "pin", chromedp.Text(`.pin`)))
			shot("people")
			run(t, ctx, "details", chromedp.Click(`details summary`), chromedp.Click(`details details summary`), chromedp.WaitVisible(`[value=remove]`))
			run(t, ctx, "the last manager", chromedp.Click(`[value=remove]`), chromedp.WaitVisible(`.message`))
			shot("people-refused")
			if kept := get(t, ctx, "name", chromedp.Value(`details [name=name]`)); kept != "钱经理" {
				t.Errorf("the name is now %q", kept)
			}
			run(t, ctx, "hand over", chromedp.Navigate(base+"/relief"), chromedp.SetValue(`[name=number]`, "2"), chromedp.SetValue(`[name=secret]`, "x"), chromedp.Click(`button.main`), chromedp.WaitVisible(`.message`))
			shot("relief")
			run(t, ctx, "leave", chromedp.Click(`[action="/leave"] button`), chromedp.WaitVisible(`[name=number][value=""]`), chromedp.WaitVisible(`.message`))
			run(t, ctx, "relief", chromedp.SetValue(`[name=number]`, "2"), chromedp.SetValue(`[name=secret]`, once), chromedp.Click(`button.main`), chromedp.WaitVisible(`[name=old]`))
			shot("me")
			run(t, ctx, "own secret", chromedp.SetValue(`[name=old]`, once), chromedp.SetValue(`[name=secret]`, pin), chromedp.SetValue(`[name=secret2]`, pin), chromedp.Click(`button.main`), chromedp.WaitVisible(`.lane.referred`))
			if who := get(t, ctx, "who", chromedp.Text(`nav .actor`)); !strings.Contains(who, "李师傅") {
				t.Errorf("logged in is %q", who)
			}
			run(t, ctx, "not a guard's page", chromedp.Navigate(base+"/people"), chromedp.WaitVisible(`h1`))
			shot("forbidden")
			run(t, ctx, "inspection", chromedp.Navigate(base+"/inspector"), chromedp.WaitVisible(`#challenge`))
			shot("inspector")
			run(t, ctx, "inspector", chromedp.SetValue(`textarea`, "what I have"), chromedp.Click(`button.main`), chromedp.WaitVisible(`.message`))
			shot("inspector-refused")
			for _, width := range []int64{390, 800} {
				run(t, ctx, "narrow", chromedp.EmulateViewport(width, 900))
				for _, page := range []string{"/me", "/relief", "/inspector", "/ca", "/enter"} {
					run(t, ctx, page, chromedp.Navigate(base+page), chromedp.WaitVisible(`h1`))
					shot(fmt.Sprintf("%s-%d", strings.TrimPrefix(page, "/"), width))
				}
			}
		})
	}
}

// The page on the certificate, as a tablet sees it that does not trust it yet.
func TestCertificatePage(t *testing.T) {
	c := newConsole(t, newStreet())
	c.cfg.Certificates = certificates(t, t.TempDir(), clock.NewFake(built, 480))
	base := serve(t, c)
	ctx := browser(t)
	for _, lang := range []string{"zh-Hans", "en"} {
		run(t, ctx, "ca", chromedp.EmulateViewport(800, 1300), chromedp.Navigate(base+"/ca?lang="+lang), chromedp.WaitVisible(`.fingerprint`))
		if shown := get(t, ctx, "fingerprint", chromedp.Text(`.fingerprint`)); strings.TrimSpace(shown) != c.cfg.Certificates.Fingerprint() {
			t.Errorf("%q", shown)
		}
		if *screenshots != "" {
			png := get(t, ctx, "ca", chromedp.CaptureScreenshot())
			if err := os.WriteFile(filepath.Join(*screenshots, "people-ca-"+lang+".png"), png, 0o644); err != nil {
				t.Fatal(err)
			}
		}
	}
}
