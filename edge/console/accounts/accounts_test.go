package accounts

import (
	"bytes"
	"context"
	"crypto/ed25519"
	"encoding/json"
	"errors"
	"fmt"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"golang.org/x/mod/sumdb/note"
	"pgregory.net/rapid"

	"gatehouse/edge"
	"gatehouse/edge/clock"
)

const pin = "246813"

// book is the journal of the tests.
type book struct {
	mu    sync.Mutex
	lines []string
	full  error
}

func (b *book) record(_ context.Context, k edge.Kind, actor string, data any) error {
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.full != nil {
		return b.full
	}
	j, err := json.Marshal(data)
	b.lines = append(b.lines, fmt.Sprintf("%s %s %s", k, actor, j))
	return err
}

func (b *book) last() string {
	b.mu.Lock()
	defer b.mu.Unlock()
	if len(b.lines) == 0 {
		return ""
	}
	return b.lines[len(b.lines)-1]
}

var began = time.Date(2026, 3, 2, 2, 0, 0, 0, time.UTC)

func open(t testing.TB, path string, o Options) (*Accounts, *clock.Fake, *book) {
	t.Helper()
	c, b := clock.NewFake(began, 480), &book{}
	o.Clock, o.Record, o.Cost = c, b.record, Cost{Time: 1, Memory: 8}
	o.Community, o.Site, o.Gate = "happy", "garden", "east"
	o.Card = func(s string) ([]byte, error) {
		if !strings.HasPrefix(s, "00") {
			return nil, errors.New("not a card")
		}
		return []byte("hash of " + s), nil
	}
	a, err := Open(t.Context(), path, o)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = a.Close() })
	return a, c, b
}

func fresh(t testing.TB) (*Accounts, *clock.Fake, *book) {
	return open(t, filepath.Join(t.TempDir(), "accounts.db"), Options{})
}

func add(t testing.TB, a *Accounts, role Role, number int64) Person {
	t.Helper()
	p, _, err := a.Add(t.Context(), "manager:1", Person{Number: number, Name: "王" + string(role), Role: role}, pin)
	if err != nil {
		t.Fatal(err)
	}
	return p
}

func login(t testing.TB, a *Accounts, who string) Token {
	t.Helper()
	tok, _, err := a.Login(t.Context(), Login{Who: who, Secret: pin})
	if err != nil {
		t.Fatal(err)
	}
	return tok
}

// The first manager comes with the code and nobody else does; afterwards the
// code is worth nothing.
func TestFirstStart(t *testing.T) {
	a, _, b := fresh(t)
	ctx := t.Context()
	code, err := a.FirstCode(ctx)
	if err != nil || len(code) != 14 {
		t.Fatalf("%q %v", code, err)
	}
	if again, _ := a.FirstCode(ctx); again != code {
		t.Errorf("another code: %q", again)
	}
	for _, bad := range []string{"", "AAAA-AAAA-AAAA", code + "A", strings.Repeat("A", 1<<20)} {
		if _, _, err := a.Setup(ctx, bad, "钱", pin); !errors.Is(err, ErrWrong) {
			t.Errorf("%.20q: %v", bad, err)
		}
	}
	a2, _, _ := open(t, filepath.Join(t.TempDir(), "x.db"), Options{})
	code2, _ := a2.FirstCode(ctx)
	for _, bad := range []struct{ name, secret string }{{"", pin}, {"x\ny", pin}, {"钱", "123456"}, {"钱", "1"}} {
		if _, _, err := a2.Setup(ctx, code2, bad.name, bad.secret); !errors.Is(err, ErrName) && !errors.Is(err, ErrWeak) {
			t.Errorf("%+v: %v", bad, err)
		}
	}
	tok, s, err := a2.Setup(ctx, " "+strings.ToLower(strings.ReplaceAll(code2, "-", " ")), "钱", "２４６８１３")
	if err != nil || s.Actor() != "manager:1" {
		t.Fatalf("%+v %v", s, err)
	}
	if got, err := a2.Session(ctx, tok.Session); err != nil || got.Name != "钱" {
		t.Errorf("%+v %v", got, err)
	}
	if code, err := a2.FirstCode(ctx); code != "" || err != nil {
		t.Errorf("a code although there is a manager: %q %v", code, err)
	}
	if _, _, err := a2.Setup(ctx, code2, "second", pin); !errors.Is(err, ErrReady) {
		t.Errorf("the code serves twice: %v", err)
	}
	if _, _, err := a2.Login(ctx, Login{Who: "1", Secret: pin}); err != nil {
		t.Errorf("full-width digits are other digits: %v", err)
	}
	_ = b
}

func TestAccountsAreKept(t *testing.T) {
	path := filepath.Join(t.TempDir(), "accounts.db")
	a, _, _ := open(t, path, Options{})
	ctx := t.Context()
	add(t, a, Manager, 1)
	add(t, a, Guard, 7)
	tok := login(t, a, "7")
	// A power cut: nothing is closed, another process reads what is there.
	b, _, journal := open(t, path, Options{})
	if s, err := b.Session(ctx, tok.Session); err != nil || s.Actor() != "guard:7" {
		t.Fatalf("%+v %v", s, err)
	}
	if err := b.drain(ctx); err != nil {
		t.Fatal(err)
	}
	want := []string{`account manager:1 {"action":"add","account":1,"role":"manager"}`, `account manager:1 {"action":"add","account":7,"role":"guard"}`}
	if strings.Join(journal.lines, "\n") != strings.Join(want, "\n") {
		t.Errorf("journalled:\n%s", strings.Join(journal.lines, "\n"))
	}
	if err := a.drain(ctx); err != nil {
		t.Fatal(err)
	}
	if len(journal.lines) != 2 {
		t.Errorf("twice: %q", journal.lines)
	}
	// What cannot be journalled now is not lost.
	journal.full = errors.New("disk full")
	if err := b.Change(ctx, "manager:1", 7, "李", Supervisor); err != nil {
		t.Fatal(err)
	}
	if err := b.drain(ctx); err == nil {
		t.Error("no error")
	}
	journal.full = nil
	if err := b.drain(ctx); err != nil || !strings.Contains(journal.last(), `"before":"guard"`) {
		t.Errorf("%v %s", err, journal.last())
	}
	if strings.Contains(strings.Join(journal.lines, ""), "李") || strings.Contains(strings.Join(journal.lines, ""), pin) {
		t.Error("a name or a secret is in the journal")
	}
}

func TestRun(t *testing.T) {
	a, _, b := fresh(t)
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error, 1)
	go func() { done <- a.Run(ctx) }()
	add(t, a, Manager, 1)
	for b.last() == "" {
		select {
		case err := <-done:
			t.Fatal(err)
		case <-time.After(time.Millisecond):
		}
	}
	cancel()
	if err := <-done; !errors.Is(err, context.Canceled) {
		t.Error(err)
	}
}

func TestChanges(t *testing.T) {
	a, _, _ := fresh(t)
	ctx := t.Context()
	add(t, a, Manager, 1)
	add(t, a, Guard, 7)
	for name, err := range map[string]error{
		"inspector": func() error {
			_, _, err := a.Add(ctx, "x", Person{Name: "x", Role: Inspector}, pin)
			return err
		}(),
		"role":  a.Change(ctx, "x", 7, "x", "root"),
		"role2": a.Change(ctx, "x", 7, "x", Inspector),
	} {
		if !errors.Is(err, ErrRole) {
			t.Errorf("%s: %v", name, err)
		}
	}
	for name, x := range map[string]struct {
		err  error
		want error
	}{
		"taken": {func() error { _, _, err := a.Add(ctx, "x", Person{Number: 7, Name: "x", Role: Guard}, pin); return err }(), ErrTaken},
		"number": {func() error {
			_, _, err := a.Add(ctx, "x", Person{Number: 70000, Name: "x", Role: Guard}, pin)
			return err
		}(), ErrNumber},
		"long":           {a.Change(ctx, "x", 7, strings.Repeat("长", 61), Guard), ErrName},
		"turned around":  {a.Change(ctx, "x", 7, "a\u202eb", Guard), ErrName},
		"not UTF-8":      {a.Change(ctx, "x", 7, "a\xff", Guard), ErrName},
		"last manager":   {a.Change(ctx, "x", 1, "x", Guard), ErrManager},
		"remove manager": {a.Remove(ctx, "x", 1), ErrManager},
		"nobody":         {a.Remove(ctx, "x", 9), edge.ErrUnknown},
		"nobody2":        {a.Change(ctx, "x", 9, "x", Guard), edge.ErrUnknown},
		"nobody3":        {func() error { _, err := a.Reset(ctx, "x", 9); return err }(), edge.ErrUnknown},
		"card":           {a.SetCard(ctx, "x", 7, "'; DROP TABLE people"), ErrCard},
		"card of nobody": {a.SetCard(ctx, "x", 9, "001"), edge.ErrUnknown},
	} {
		if !errors.Is(x.err, x.want) {
			t.Errorf("%s: %v, want %v", name, x.err, x.want)
		}
	}
	if l, err := a.List(ctx); err != nil || len(l) != 2 || l[1].Name != "王guard" {
		t.Errorf("something has changed: %+v %v", l, err)
	}
	// Any script is a name.
	for _, name := range []string{"王小明", "أحمد", "👮 Łukasz O’Neil", "<b>; DROP TABLE people"} {
		if err := a.Change(ctx, "x", 7, "  "+name+" ", Guard); err != nil {
			t.Errorf("%s: %v", name, err)
		}
		if p, _ := a.Get(ctx, 7); p.Name != name {
			t.Errorf("%q became %q", name, p.Name)
		}
	}
	// Another role, a new secret and a removal end the sessions there were.
	for name, f := range map[string]func() error{
		"role":   func() error { return a.Change(ctx, "x", 7, "x", Supervisor) },
		"reset":  func() error { _, err := a.Reset(ctx, "x", 7); return err },
		"remove": func() error { return a.Remove(ctx, "x", 7) },
	} {
		_ = a.Remove(ctx, "x", 7)
		add(t, a, Guard, 7)
		tok := login(t, a, "7")
		if err := f(); err != nil {
			t.Fatal(name, err)
		}
		if _, err := a.Session(ctx, tok.Session); !errors.Is(err, edge.ErrUnknown) {
			t.Errorf("%s: the session goes on: %v", name, err)
		}
	}
}

func TestSecrets(t *testing.T) {
	for secret, good := range map[string]bool{
		"246813": true, "24681": false, "111111": false, "123456": false, "987654": false, "correct horse": true, "pass": false, "口令口令口令口令": true, "口令": false,
		"": false, " 246813 ": true, "24\x006813": false, strings.Repeat("x1", 65): false, "\xff\xfe246813": false, "aaaaaaaa": false,
	} {
		if _, err := checkSecret(secret); (err == nil) != good {
			t.Errorf("%q: %v", secret, err)
		}
	}
	a, _, _ := fresh(t)
	ctx := t.Context()
	h, err := a.hash(ctx, pin)
	if err != nil || !strings.HasPrefix(h, "$argon2id$v=19$m=8,t=1,p=1$") {
		t.Fatal(h, err)
	}
	if h2, _ := a.hash(ctx, pin); h2 == h {
		t.Error("no salt")
	}
	for _, damaged := range []string{"", "x", h[:len(h)-2], strings.Replace(h, "m=8", "m=9999999", 1), strings.Replace(h, "v=19", "v=16", 1), "$argon2id$v=19$m=8,t=1,p=1$$"} {
		if ok, err := a.verify(ctx, damaged, pin); ok || err != nil {
			t.Errorf("%q: %v %v", damaged, ok, err)
		}
	}
	// Costs can be raised: the stored one is used for what is stored.
	a.o.Cost = Cost{Time: 2, Memory: 16}
	if ok, err := a.verify(ctx, h, pin); !ok || err != nil {
		t.Error(ok, err)
	}
	// Who waits in too long a row is told, and no failure is counted.
	a.hashing <- struct{}{}
	for range cap(a.waiting) {
		a.waiting <- struct{}{}
	}
	add := func() error { _, err := a.prove(ctx, 0, pin, ""); return err }
	for range 5 {
		if err := add(); !errors.Is(err, ErrBusy) {
			t.Error(err)
		}
	}
}

func TestOwnSecret(t *testing.T) {
	a, _, _ := fresh(t)
	ctx := t.Context()
	p, once, err := a.Add(ctx, "x", Person{Name: "x", Role: Guard}, "")
	if err != nil || once == "" || p.Number != 1 {
		t.Fatal(p, once, err)
	}
	tok, s, err := a.Login(ctx, Login{Who: "1", Secret: once})
	if err != nil || !s.MustChange {
		t.Fatal(s, err)
	}
	// Who has no secret of their own yet is no relief, and does not leave the gate
	// alone either.
	add(t, a, Guard, 2)
	other := login(t, a, "2")
	if err := a.Leave(ctx, other.Session); !errors.Is(err, ErrLast) {
		t.Error(err)
	}
	if err := a.Leave(ctx, tok.Session); err != nil {
		t.Error(err)
	}
	if err := a.SetOwn(ctx, s.Person, once, once, ""); !errors.Is(err, ErrWeak) {
		t.Errorf("the same again: %v", err)
	}
	if err := a.SetOwn(ctx, s.Person, "not it", pin, ""); !errors.Is(err, ErrWrong) {
		t.Error(err)
	}
	if err := a.SetOwn(ctx, s.Person, once, pin, ""); err != nil {
		t.Fatal(err)
	}
	if _, s, err := a.Login(ctx, Login{Who: "1", Secret: pin}); err != nil || s.MustChange {
		t.Error(s, err)
	}
	if _, _, err := a.Login(ctx, Login{Who: "1", Secret: once}); !errors.Is(err, ErrWrong) {
		t.Errorf("what serves once serves twice: %v", err)
	}
}

func TestCard(t *testing.T) {
	a, _, b := fresh(t)
	ctx := t.Context()
	add(t, a, Guard, 7)
	add(t, a, Guard, 8)
	if err := a.SetCard(ctx, "manager:1", 7, "0013530444"); err != nil {
		t.Fatal(err)
	}
	if err := a.SetCard(ctx, "manager:1", 8, "0013530444"); !errors.Is(err, ErrCard) {
		t.Errorf("one card for two: %v", err)
	}
	_, s, err := a.Login(ctx, Login{Who: "0013530444\n", Secret: pin})
	if err != nil || s.Number != 7 || !s.Card {
		t.Errorf("%+v %v", s, err)
	}
	if _, _, err := a.Login(ctx, Login{Who: "0013530444"}); !errors.Is(err, ErrWrong) {
		t.Errorf("a card without a PIN: %v", err)
	}
	if err := a.SetCard(ctx, "manager:1", 7, ""); err != nil {
		t.Fatal(err)
	}
	if _, _, err := a.Login(ctx, Login{Who: "0013530444", Secret: pin}); !errors.Is(err, ErrWrong) {
		t.Error(err)
	}
	if err := a.drain(ctx); err != nil || strings.Contains(strings.Join(b.lines, ""), "0013530444") {
		t.Error("the card's number is in the journal", err)
	}
}

// Somebody who guesses makes everybody wait who comes from elsewhere, and not
// the guard at the tablet that they use every day.
func TestGuessingLocksOutOnlyTheGuesser(t *testing.T) {
	a, c, b := fresh(t)
	ctx := t.Context()
	add(t, a, Guard, 7)
	tablet := login(t, a, "7").Device
	waited, tries := time.Duration(0), 0
	for waited < 24*time.Hour {
		_, _, err := a.Login(ctx, Login{Who: "7", Secret: fmt.Sprint("guess", waited)})
		var locked LockedError
		switch {
		case errors.As(err, &locked):
			if locked.For > waitUnknown {
				t.Fatalf("a wait of %v", locked.For)
			}
			c.Advance(locked.For)
			waited += locked.For
			// The guard comes and goes meanwhile.
			if _, _, err := a.Login(ctx, Login{Who: "7", Secret: pin, Device: tablet}); err != nil {
				t.Fatalf("the guard is locked out after %v: %v", waited, err)
			}
		case errors.Is(err, ErrWrong):
			tries++
		default:
			t.Fatal(err)
		}
	}
	if tries > 120 {
		t.Errorf("%d tries in a day", tries)
	}
	if !strings.Contains(strings.Join(b.lines, "\n"), `session system {"account":7,"action":"lock"`) {
		t.Error("no lock was journalled")
	}
	// The right secret ends the wait, once it is over.
	c.Advance(waitUnknown)
	login(t, a, "7")
	if _, _, err := a.Login(ctx, Login{Who: "7", Secret: "wrong"}); !errors.Is(err, ErrWrong) {
		t.Error(err)
	}
	// On the own tablet the wait is short, whatever is mistyped.
	for range 50 {
		_, _, err := a.Login(ctx, Login{Who: "7", Secret: "wrong", Device: tablet})
		var locked LockedError
		if errors.As(err, &locked) {
			if locked.For > waitOwn {
				t.Fatalf("a wait of %v at the own tablet", locked.For)
			}
			c.Advance(locked.For)
		}
	}
	// A relief who has never been at this tablet is not kept out by whoever guesses
	// elsewhere either, and waits longer there than its own people.
	add(t, a, Guard, 8)
	for range freeTries + 1 {
		_, _, _ = a.Login(ctx, Login{Who: "8", Secret: "wrong"})
	}
	if _, _, err := a.Login(ctx, Login{Who: "8", Secret: pin}); !errors.As(err, &LockedError{}) {
		t.Errorf("elsewhere: %v", err)
	}
	if _, _, err := a.Login(ctx, Login{Who: "8", Secret: pin, Device: tablet}); err != nil {
		t.Errorf("the relief is kept out: %v", err)
	}
	add(t, a, Guard, 9)
	var longest time.Duration
	for range 60 {
		_, _, err := a.Login(ctx, Login{Who: "9", Secret: "wrong", Device: tablet})
		var locked LockedError
		if errors.As(err, &locked) {
			longest = max(longest, locked.For)
			c.Advance(locked.For)
		}
	}
	if longest != waitGate {
		t.Errorf("waits of %v at a tablet of the gate", longest)
	}
}

func TestWaitSurvivesClockAndRestart(t *testing.T) {
	a, c, _ := fresh(t)
	ctx := t.Context()
	add(t, a, Guard, 7)
	for range 8 {
		_, _, _ = a.Login(ctx, Login{Who: "7", Secret: "wrong"})
		c.Advance(time.Second)
	}
	var locked LockedError
	try := func(what string) {
		t.Helper()
		if _, _, err := a.Login(ctx, Login{Who: "7", Secret: pin}); !errors.As(err, &locked) {
			t.Errorf("%s ends the wait: %v", what, err)
		}
	}
	try("nothing")
	s := c.Now()
	s.Time += 365 * 24 * 3600_000
	c.Set(s)
	try("setting the clock")
	s.Boot, s.Mono = "0badb001", 500
	c.Set(s)
	try("a new start of the machine")
	c.Advance(locked.For)
	login(t, a, "7")
}

// Ten wrong secrets at once are ten wrong secrets.
func TestGuessingAtOnce(t *testing.T) {
	a, _, _ := fresh(t)
	add(t, a, Guard, 7)
	var wg sync.WaitGroup
	var mu sync.Mutex
	wrong := 0
	for range 8 {
		wg.Go(func() {
			if _, _, err := a.Login(context.Background(), Login{Who: "7", Secret: "wrong"}); errors.Is(err, ErrWrong) {
				mu.Lock()
				wrong++
				mu.Unlock()
			}
		})
	}
	wg.Wait()
	if wrong > freeTries {
		t.Errorf("%d guesses were looked at", wrong)
	}
}

// Numbers that nobody has answer like one that somebody has.
func TestUnknownNumbersWaitToo(t *testing.T) {
	a, _, _ := fresh(t)
	add(t, a, Guard, 7)
	locked := 0
	for i := range 10 {
		_, _, err := a.Login(t.Context(), Login{Who: fmt.Sprint(100 + i), Secret: pin})
		if errors.As(err, &LockedError{}) {
			locked++
		} else if !errors.Is(err, ErrWrong) {
			t.Error(err)
		}
	}
	if locked == 0 {
		t.Error("never")
	}
	login(t, a, "7")
}

// No shift ends before the relief has come.
func TestHandOver(t *testing.T) {
	a, c, b := fresh(t)
	ctx := t.Context()
	add(t, a, Guard, 7)
	add(t, a, Guard, 8)
	add(t, a, Installer, 5)
	old := login(t, a, "7")
	if err := a.Leave(ctx, old.Session); !errors.Is(err, ErrLast) {
		t.Errorf("the only guard has left: %v", err)
	}
	login(t, a, "5")
	if err := a.Leave(ctx, old.Session); !errors.Is(err, ErrLast) {
		t.Errorf("an installer is no relief: %v", err)
	}
	if _, _, err := a.HandOver(ctx, old.Session, Login{Who: "5", Secret: pin}); !errors.Is(err, ErrLast) {
		t.Errorf("an installer took over: %v", err)
	}
	// A day and a leap of the clock later the guard is still there.
	c.Advance(30 * time.Hour)
	s := c.Now()
	s.Time += (4 * 365 * 24 * time.Hour).Milliseconds()
	c.Set(s)
	if _, err := a.Session(ctx, old.Session); err != nil {
		t.Fatalf("ended by itself: %v", err)
	}
	if _, _, err := a.HandOver(ctx, old.Session, Login{Who: "8", Secret: "wrong"}); !errors.Is(err, ErrWrong) {
		t.Error(err)
	}
	if _, err := a.Session(ctx, old.Session); err != nil {
		t.Fatalf("ended by a relief that never came: %v", err)
	}
	relief, now, err := a.HandOver(ctx, old.Session, Login{Who: "8", Secret: pin})
	if err != nil || now.Actor() != "guard:8" || b.last() != `session guard:8 {"action":"relief","of":"guard:7"}` {
		t.Fatalf("%+v %v %s", now, err, b.last())
	}
	if _, err := a.Session(ctx, old.Session); !errors.Is(err, edge.ErrUnknown) {
		t.Errorf("both are there: %v", err)
	}
	// On another tablet: who came later lets go who was there.
	other := login(t, a, "7")
	if err := a.Leave(ctx, relief.Session); err != nil {
		t.Error(err)
	}
	// A tablet that nobody has touched for long is nobody.
	login(t, a, "8")
	c.Advance(present + time.Minute)
	if _, err := a.Session(ctx, other.Session); err != nil {
		t.Fatal(err)
	}
	if err := a.Leave(ctx, other.Session); !errors.Is(err, ErrLast) {
		t.Errorf("left to an abandoned tablet: %v", err)
	}
}

func TestShiftsEndWhenRelieved(t *testing.T) {
	a, c, _ := fresh(t)
	ctx := t.Context()
	add(t, a, Guard, 7)
	add(t, a, Guard, 8)
	old := login(t, a, "7")
	c.Advance(12 * time.Hour)
	young := login(t, a, "8")
	c.Advance(5 * time.Hour)
	if _, err := a.Session(ctx, young.Session); err != nil {
		t.Fatal(err)
	}
	if _, err := a.Session(ctx, old.Session); !errors.Is(err, edge.ErrUnknown) {
		t.Errorf("17 hours, and relieved 5 hours ago: %v", err)
	}
	// An installer's session ends by itself.
	add(t, a, Installer, 5)
	inst := login(t, a, "5")
	c.Advance(idle + time.Minute)
	if _, err := a.Session(ctx, inst.Session); !errors.Is(err, edge.ErrUnknown) {
		t.Error(err)
	}
}

// Two who leave at the same moment do not leave the gate alone.
func TestLeavingAtOnce(t *testing.T) {
	a, _, _ := fresh(t)
	add(t, a, Guard, 7)
	add(t, a, Guard, 8)
	for range 30 {
		var wg sync.WaitGroup
		gone := make(chan error, 2)
		for _, who := range []string{"7", "8"} {
			tok := login(t, a, who)
			wg.Go(func() { gone <- a.Leave(context.Background(), tok.Session) })
		}
		wg.Wait()
		if n := acting(t, a); n == 0 {
			t.Fatalf("nobody is left: %v %v", <-gone, <-gone)
		}
	}
}

// acting counts the sessions of those who answer for the lanes.
func acting(t testing.TB, a *Accounts) int {
	t.Helper()
	var n int
	if err := a.db.R.QueryRow("SELECT count(*) FROM sessions WHERE role IN ('guard', 'supervisor', 'manager')").Scan(&n); err != nil {
		t.Fatal(err)
	}
	return n
}

// Whatever people do with their own sessions, and whatever the clock does, from
// the first login on there is always somebody who answers for the lanes.
func TestSomebodyIsAlwaysThere(t *testing.T) {
	a, c, _ := fresh(t)
	ctx := t.Context()
	for i, r := range []Role{Manager, Supervisor, Guard, Guard, Installer} {
		add(t, a, r, int64(i+1))
	}
	rapid.Check(t, func(rt *rapid.T) {
		for _, table := range []string{"sessions", "attempts", "devices"} {
			if _, err := a.db.W.Exec("DELETE FROM " + table); err != nil {
				rt.Fatal(err)
			}
		}
		who := rapid.SampledFrom([]string{"1", "2", "3", "4", "5", "9"})
		secret := rapid.SampledFrom([]string{pin, pin, pin, "wrong"})
		tokens := []string{login(t, a, "3").Session}
		some := func(rt *rapid.T) string { return rapid.SampledFrom(tokens).Draw(rt, "token") }
		keep := func(tok Token, _ Session, err error) {
			if err == nil {
				tokens = append(tokens, tok.Session)
			}
		}
		rt.Repeat(map[string]func(*rapid.T){
			"login": func(rt *rapid.T) {
				keep(a.Login(ctx, Login{Who: who.Draw(rt, "who"), Secret: secret.Draw(rt, "secret")}))
			},
			"hand over": func(rt *rapid.T) {
				keep(a.HandOver(ctx, some(rt), Login{Who: who.Draw(rt, "who"), Secret: secret.Draw(rt, "secret")}))
			},
			"leave": func(rt *rapid.T) { _ = a.Leave(ctx, some(rt)) },
			"look":  func(rt *rapid.T) { _, _ = a.Session(ctx, some(rt)) },
			"time":  func(rt *rapid.T) { c.Advance(time.Duration(rapid.Int64Range(1, 20*3600).Draw(rt, "s")) * time.Second) },
			"leap": func(rt *rapid.T) {
				s := c.Now()
				s.Time += rapid.Int64Range(-400*24*3600_000, 400*24*3600_000).Draw(rt, "ms")
				s.Clock = rapid.SampledFrom([]edge.ClockState{edge.ClockSynced, edge.ClockUnset, edge.ClockHoldover}).Draw(rt, "clock")
				c.Set(s)
			},
			"restart": func(rt *rapid.T) {
				s := c.Now()
				s.Boot, s.Mono = fmt.Sprintf("%08x", rapid.Uint32().Draw(rt, "boot")), 1000
				c.Set(s)
			},
			"": func(rt *rapid.T) {
				if acting(t, a) == 0 {
					rt.Fatal("nobody is there")
				}
			},
		})
	})
}

// A login that cannot be recorded does not happen.
func TestUnrecorded(t *testing.T) {
	a, _, b := fresh(t)
	add(t, a, Guard, 7)
	b.full = errors.New("disk full")
	if tok, _, err := a.Login(t.Context(), Login{Who: "7", Secret: pin}); !errors.Is(err, ErrRecorded) || tok.Session != "" {
		t.Errorf("%v %v", tok, err)
	}
}

func TestSecond(t *testing.T) {
	a, _, _ := fresh(t)
	ctx := t.Context()
	first := add(t, a, Guard, 7)
	add(t, a, Guard, 8)
	add(t, a, Installer, 5)
	for who, want := range map[string]error{"7": ErrSame, "5": edge.ErrForbidden, "9": ErrWrong, "": ErrWrong, "8": nil} {
		if p, err := a.Second(ctx, first, Login{Who: who, Secret: pin}); !errors.Is(err, want) || (err == nil && p.Number != 8) {
			t.Errorf("%q: %v, want %v", who, err, want)
		}
	}
	if _, err := a.Second(ctx, first, Login{Who: "8", Secret: "wrong"}); !errors.Is(err, ErrWrong) {
		t.Error(err)
	}
}

// key is an Ed25519 key with a name.
type key struct {
	name string
	k    ed25519.PrivateKey
}

func newKey(name string) key {
	return key{name, ed25519.NewKeyFromSeed(bytes.Repeat([]byte(name[:1]), 32))}
}
func (k key) Name() string                    { return k.name }
func (k key) Public() []byte                  { return k.k.Public().(ed25519.PublicKey) }
func (k key) Sign(msg []byte) ([]byte, error) { return ed25519.Sign(k.k, msg), nil }
func (k key) verifier(t testing.TB) note.Verifier {
	v, err := edge.HeadVerifier(k.name, k.Public())
	if err != nil {
		t.Fatal(err)
	}
	return v
}

func TestInspector(t *testing.T) {
	city, site, own, thief := newKey("city.example"), newKey("site"), newKey("own"), newKey("thief")
	a, c, b := open(t, filepath.Join(t.TempDir(), "accounts.db"), Options{Build: began.Add(-1000 * time.Hour), Authorities: func() []note.Verifier { return []note.Verifier{city.verifier(t)} }})
	ctx := t.Context()
	good := Credential{Community: "happy", Site: "*", Number: 12, Name: "检查员 周", Key: own.Public(), From: began.UnixMilli(), Until: began.Add(72 * time.Hour).UnixMilli()}
	issue := func(by edge.Signer, change func(*Credential)) []byte {
		t.Helper()
		x := good
		if change != nil {
			change(&x)
		}
		n, err := Issue(x, by)
		if err != nil {
			t.Fatal(err)
		}
		return n
	}
	answer := func(ch string, cred []byte, k key) string {
		t.Helper()
		s, err := Answer(ch, cred, k)
		if err != nil {
			t.Fatal(err)
		}
		return s
	}
	cred := issue(city, nil)
	ch := a.Challenge()
	text := answer(ch, cred, own)
	tok, s, err := a.Inspect(ctx, "\n "+strings.ReplaceAll(text, "\n", "\r\n"))
	if err != nil || s.Actor() != "inspector:12" || s.Name != "检查员 周" || s.Role.Acts() {
		t.Fatalf("%+v %v", s, err)
	}
	if want := fmt.Sprintf(`session inspector:12 {"action":"inspector","authority":"city.example","until":%d}`, good.Until); b.last() != want {
		t.Errorf("journalled %s", b.last())
	}
	if got, err := a.Session(ctx, tok.Session); err != nil || got.Role != Inspector || got.Name != "检查员 周" {
		t.Errorf("%+v %v", got, err)
	}
	for name, x := range map[string]struct {
		text string
		want error
	}{
		"replayed":              {text, ErrChallenge},
		"another challenge":     {answer("happy/garden/east AAAA", cred, own), ErrChallenge},
		"another gate's":        {answer(strings.Replace(a.Challenge(), "east", "west", 1), cred, own), ErrChallenge},
		"who saw the note":      {answer(a.Challenge(), cred, thief), ErrChallenge},
		"made by the site":      {answer(a.Challenge(), issue(site, nil), own), ErrCredential},
		"under the city's name": {answer(a.Challenge(), issue(key{"city.example", site.k}, nil), own), ErrCredential},
		"another community":     {answer(a.Challenge(), issue(city, func(c *Credential) { c.Community = "other" }), own), ErrElsewhere},
		"another site":          {answer(a.Challenge(), issue(city, func(c *Credential) { c.Site = "park" }), own), ErrElsewhere},
		"this site":             {answer(a.Challenge(), issue(city, func(c *Credential) { c.Site = "garden" }), own), nil},
		"expired":               {answer(a.Challenge(), issue(city, func(c *Credential) { c.From, c.Until = c.From-2, c.From }), own), ErrExpired},
		"early":                 {answer(a.Challenge(), issue(city, func(c *Credential) { c.From++ }), own), ErrEarly},
		"changed":               {strings.Replace(answer(a.Challenge(), cred, own), "number 12", "number 13", 1), ErrCredential},
		"empty":                 {"", ErrCredential},
		"1 MB":                  {strings.Repeat("x", 1<<20), ErrCredential},
		"another note":          {"gatehouse-inspection/1\nchallenge x\nanswer y\n\ntext\n\n— city.example AAAA\n", ErrCredential},
	} {
		if _, _, err := a.Inspect(ctx, x.text); !errors.Is(err, x.want) {
			t.Errorf("%s: %v, want %v", name, err, x.want)
		}
	}
	// With a clock that nobody vouches for the inspector comes in all the same, and
	// goes when it is set right.
	st := c.Now()
	st.Clock, st.Time = edge.ClockUnset, began.Add(-900*time.Hour).UnixMilli()
	c.Set(st)
	tok, _, err = a.Inspect(ctx, answer(a.Challenge(), cred, own))
	if err != nil {
		t.Fatalf("with an untrusted clock: %v", err)
	}
	st.Time = good.Until + 1
	c.Set(st)
	if _, err := a.db.W.Exec("UPDATE sessions SET seen = ?", st.Time); err != nil {
		t.Fatal(err)
	}
	if _, err := a.Session(ctx, tok.Session); err != nil {
		t.Errorf("ended by a time that nobody vouches for: %v", err)
	}
	st.Clock = edge.ClockSynced
	c.Set(st)
	if _, err := a.Session(ctx, tok.Session); !errors.Is(err, edge.ErrUnknown) {
		t.Errorf("it outlives its credential: %v", err)
	}
	st.Clock = edge.ClockUnset
	c.Set(st)
	if _, _, err := a.Inspect(ctx, answer(a.Challenge(), issue(city, func(c *Credential) {
		c.From, c.Until = began.Add(-1100*time.Hour).UnixMilli(), began.Add(-1001*time.Hour).UnixMilli()
	}), own)); !errors.Is(err, ErrExpired) {
		t.Errorf("older than the program: %v", err)
	}
	// A challenge ends, and a flood of them throws out only the oldest.
	old := a.Challenge()
	c.Advance(challengeLife + time.Second)
	if _, _, err := a.Inspect(ctx, answer(old, cred, own)); !errors.Is(err, ErrChallenge) {
		t.Error(err)
	}
	for range 3 * maxChallenges {
		a.Challenge()
	}
	if len(a.challenges) > maxChallenges {
		t.Errorf("%d challenges are kept", len(a.challenges))
	}
	for name, bad := range map[string]func(*Credential){
		"for ever": func(c *Credential) { c.Until += 500 * 24 * 3600_000 },
		"name":     func(c *Credential) { c.Name = "x\nkey y" },
		"number":   func(c *Credential) { c.Number = 0 },
		"key":      func(c *Credential) { c.Key = c.Key[:5] },
	} {
		x := good
		bad(&x)
		if _, err := Issue(x, city); err == nil {
			t.Errorf("%s: issued", name)
		}
	}
}

// The texts themselves, as other tools must make them.
func TestInspectorGolden(t *testing.T) {
	city, own := newKey("city.example"), newKey("own")
	n, err := Issue(Credential{Community: "happy", Site: "*", Number: 12, Name: "Zhou", Key: own.Public(), From: 1772416800000, Until: 1775008800000}, city)
	if err != nil {
		t.Fatal(err)
	}
	s, err := Answer("happy/garden/east MFRGGZDFMZTWQ2LK", n, own)
	if err != nil {
		t.Fatal(err)
	}
	golden(t, "inspector.txt", s)
}

func FuzzInspect(f *testing.F) {
	city, own := newKey("city.example"), newKey("own")
	n, err := Issue(Credential{Community: "happy", Site: "*", Number: 12, Name: "Zhou", Key: own.Public(), From: began.UnixMilli(), Until: began.UnixMilli() + 1000}, city)
	if err != nil {
		f.Fatal(err)
	}
	s, err := Answer("happy/garden/east AAAA", n, own)
	if err != nil {
		f.Fatal(err)
	}
	f.Add(s)
	f.Add(string(n))
	f.Add("")
	v := city.verifier(f)
	a, _, _ := open(f, filepath.Join(f.TempDir(), "accounts.db"), Options{Authorities: func() []note.Verifier { return []note.Verifier{v} }})
	f.Fuzz(func(t *testing.T, s string) {
		if _, _, err := a.Inspect(t.Context(), s); err == nil {
			t.Fatalf("let in with %q", s)
		}
	})
}

// BenchmarkHash is what one login costs. A Cortex-A53 at 1 GHz does about a
// sixth to a tenth of what one core of a desktop does.
func BenchmarkHash(b *testing.B) {
	a, _, _ := fresh(b)
	a.o.Cost = DefaultCost
	b.ReportAllocs()
	for b.Loop() {
		if _, err := a.hash(b.Context(), pin); err != nil {
			b.Fatal(err)
		}
	}
}

func BenchmarkSession(b *testing.B) {
	a, _, _ := fresh(b)
	add(b, a, Guard, 7)
	tok := login(b, a, "7")
	for b.Loop() {
		if _, err := a.Session(b.Context(), tok.Session); err != nil {
			b.Fatal(err)
		}
	}
}
