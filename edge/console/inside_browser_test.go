//go:build browser

package console

import (
	"bytes"
	"context"
	"fmt"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/chromedp/cdproto/cdp"
	cdppage "github.com/chromedp/cdproto/page"
	"github.com/chromedp/chromedp"

	"gatehouse/edge"
)

// A building's evening fits on one sheet of paper.
func TestInsidePrintsOnOnePage(t *testing.T) {
	c := newConsole(t, newStreet())
	now := time.Now()
	c.deps.Inside = func(context.Context) ([]edge.Inside, error) {
		var out []edge.Inside
		for i := range 120 {
			x := edge.Inside{Pass: edge.Pass{ID: edge.PassID(i + 1), Name: "王*明", Category: "resident", Building: fmt.Sprintf("%d号楼", i%6+5), Unit: fmt.Sprintf("%d-%d01", i%3+1, i/3+1)}, Since: now.Add(-time.Duration(i) * 17 * time.Minute).UnixMilli()}
			if i%11 == 0 {
				x.Pass.Care = []string{"elderly", "alone"}
			}
			if i%3 == 0 {
				x.Unknown = now.Add(-10 * time.Minute).UnixMilli()
			}
			x.Peer = i%7 == 0
			out = append(out, x)
		}
		return out, nil
	}
	base := serve(t, c)
	ctx := browser(t)
	login(t, ctx, base, "2")
	for _, lang := range []string{"zh-Hans", "en"} {
		run(t, ctx, "inside", chromedp.Navigate(base+"/inside?lang="+lang), chromedp.WaitVisible(`main`))
		pdf := get(t, ctx, "paper", func(ctx context.Context, target *chromedp.Target) ([]byte, error) {
			// A4, in inches.
			r, err := cdp.Call(ctx, target, cdppage.PrintToPDF, cdppage.PrintToPDFParams{PaperWidth: 8.27, PaperHeight: 11.69, PreferCSSPageSize: new(true)})
			if err != nil {
				return nil, err
			}
			return r.Data, nil
		})
		if *screenshots != "" {
			if err := os.WriteFile(filepath.Join(*screenshots, "inside-"+lang+".pdf"), pdf, 0o644); err != nil {
				t.Fatal(err)
			}
		}
		if n := bytes.Count(pdf, []byte("/Type /Page\n")); n != 1 {
			t.Errorf("%s: %d pages", lang, n)
		}
	}
}
