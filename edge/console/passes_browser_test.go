//go:build browser

package console

import (
	"context"
	"fmt"
	"strings"
	"testing"

	"github.com/chromedp/chromedp"

	"gatehouse/edge"
)

// Somebody has lost the card: the guard finds the pass by it, reports it lost, is
// refused once and types nothing twice, brings the person to the lane, and is told
// in a sentence when the gate does not answer.
func TestForgottenCardInABrowser(t *testing.T) {
	s := newStreet()
	s.passes[0].Status, s.passes[0].Reason, s.passes[0].Until = edge.PassActive, "", 0
	c := newConsole(t, s)
	quick(c)
	on, off := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- c.Run(on) }()
	stop := func() {
		if off(); done != nil {
			<-done
			done = nil
		}
	}
	t.Cleanup(stop)
	base := "http://" + c.Addr()
	ctx := browser(t)
	login(t, ctx, base, "7")
	s.mu.Lock()
	s.card = mustParse(t, "0013530444", "em-dec10")
	s.mu.Unlock()
	run(t, ctx, "a card is scanned", chromedp.Navigate(base+"/passes?lang=zh-Hans"), chromedp.SendKeys(`[name=card]`, "0013530444\r"), chromedp.WaitVisible(`article.pass`))

	// Without a reason the browser itself stops it; refused, the reason stands there.
	form := `article form[action="/passes"]`
	run(t, ctx, "no reason", chromedp.Click(`article .do > details:last-child summary`), chromedp.Click(form+` button[value=lost]`))
	if !get(t, ctx, "invalid", chromedp.Evaluate[bool](fmt.Sprintf(`document.querySelector(%q).matches(":invalid") && location.pathname === "/passes"`, form+" [name=reason]"))) {
		t.Error("a change without a reason is sent")
	}
	s.mu.Lock()
	s.refuse = edge.Refuse("in_roster", "x")
	s.mu.Unlock()
	run(t, ctx, "refused", chromedp.SendKeys(form+` [name=reason]`, "掉在路上"), chromedp.Click(form+` button[value=lost]`), chromedp.WaitVisible(`#message:not(:empty)`))
	wait(t, ctx, `document.getElementById("message").textContent.includes("请在名册中修改")`)
	if got := get(t, ctx, "the reason", chromedp.Value(form+` [name=reason]`)); got != "掉在路上" {
		t.Errorf("the reason is now %q", got)
	}
	s.mu.Lock()
	s.refuse = nil
	s.mu.Unlock()
	run(t, ctx, "again", chromedp.Click(form+` button[value=lost]`), chromedp.WaitVisible(`.done`), chromedp.WaitVisible(`article.pass`))
	if got := get(t, ctx, "the card", chromedp.Value(`[name=card]`)); got != "0013530444" || strings.Join(s.changes, ",") != "7 lost 掉在路上 guard:7" {
		t.Errorf("card %q, changes %q", got, s.changes)
	}
	run(t, ctx, "to the lane", chromedp.Click(`.bring input[value="east-in"] ~ input[value=document] ~ button`), chromedp.WaitVisible(`#lanes`))
	if got := s.did(); len(got) != 1 || got[0] != (edge.Action{Kind: edge.ActPresent, Lane: "east-in", Pass: 7, Identity: "document", Actor: "guard:7"}) {
		t.Errorf("%+v", got)
	}
	run(t, ctx, "once more", chromedp.Navigate(base+"/passes?card=0013530444"), chromedp.WaitVisible(`article.pass`))
	stop()
	run(t, ctx, "offline", chromedp.Click(`.bring input[value=document] ~ button`))
	wait(t, ctx, `document.getElementById("message").textContent.includes("与闸机失去联系")`)
}
