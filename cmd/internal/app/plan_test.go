package app

import (
	"encoding/json"
	"errors"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"gatehouse/cmd/internal/config"
	"gatehouse/edge"
	"gatehouse/edge/policy"
	"gatehouse/sync/downlink"
)

// A plan is switched on by an order, holds across a start, changes what is decided,
// and is switched off; what the policy does not know is refused.
func TestPlanByCommand(t *testing.T) {
	dir := t.TempDir()
	a, _ := gateIn(t, dir)
	t.Cleanup(func() { _ = a.close() })
	src, err := os.ReadFile(filepath.Join(dir, "policy.yaml"))
	if err != nil {
		t.Fatal(err)
	}
	with := strings.Replace(string(src), "rules:\n", "rules:\n  - {id: evacuation, title: Nobody enters now, scope: {direction: in, category: visitor}, when: plan.name == 'evacuation' && !plan.drill, then: deny}\n", 1)
	pol, err := policy.Load("policy.yaml", []byte(with))
	if err != nil {
		t.Fatal(err)
	}
	a.plans.policy = func() *policy.Policy { return pol }
	order := func(name, args string) (string, error) {
		return commands{a}.Do(t.Context(), downlink.Command{Name: name, Args: json.RawMessage(args), Actor: "server"})
	}
	decides := func(want edge.Outcome) {
		t.Helper()
		f := &edge.Facts{Pass: &edge.PassFacts{ID: 1, Category: "visitor", Status: edge.PassActive}, Plan: a.plans.current(),
			Lane: edge.LaneFacts{Level: edge.LevelEstate, Direction: edge.In}, Time: edge.TimeFactsOf(a.Clock.Now())}
		if d := pol.Decide(f); d.Outcome != want {
			t.Errorf("%s by %s, want %s", d.Outcome, d.Rule, want)
		}
	}
	decides(edge.Admit)
	for args, want := range map[string]string{
		`{"name":"evacuaton"}`:              "it has evacuation",
		`{}`:                                "say which plan",
		`{"name":"evacuation","off":true}`:  "say which plan",
		`[]`:                                "cannot read the command's arguments",
		`{"name":"evacuation","drill":"x"}`: "cannot read the command's arguments",
	} {
		if _, err := order("plan", args); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%s: %v, want %s", args, err, want)
		}
	}
	if a.plans.current() != nil {
		t.Fatal("a plan is in force that was refused")
	}
	if text, err := order("plan", `{"name":"evacuation","drill":true}`); err != nil || text != "the plan evacuation is in force, as a drill" {
		t.Errorf("%q %v", text, err)
	}
	decides(edge.Admit)
	if text, err := order("plan", `{"name":"evacuation"}`); err != nil || text != "the plan evacuation is in force" {
		t.Errorf("%q %v", text, err)
	}
	decides(edge.Deny)
	again, err := openPlans(a.plans.path, a.plans.policy, slog.New(slog.DiscardHandler))
	if err != nil || again.current() == nil || again.current().Name != "evacuation" {
		t.Errorf("after a start: %+v %v", again, err)
	}
	if text, err := order("plan", `{"off":true}`); err != nil || text != "the plan evacuation has ended" {
		t.Errorf("%q %v", text, err)
	}
	decides(edge.Admit)
	if again, err = openPlans(a.plans.path, a.plans.policy, slog.New(slog.DiscardHandler)); err != nil || again.current() != nil {
		t.Errorf("after a start: %+v %v", again, err)
	}
}

// The gate destroys what is past its retention when it is ordered to, and no order
// makes it believe a clock that nobody vouches for.
func TestPurgeByCommand(t *testing.T) {
	dir := t.TempDir()
	yaml := "community: c\nsite: s\ngate: g\nstate: state\npolicy: policy.yaml\nconsole: {listen: ''}\njournal: {retention: 24h}\n" +
		"passages: [{name: main, barrier: none}]\nlanes: [{name: in, passage: main, direction: in, scanner: console, thermometer: none}]\n"
	for name, text := range map[string]string{"policy.yaml": strings.Replace(curfew, "UNTRUSTED", "skip", 1), "gate.yaml": yaml} {
		if err := os.WriteFile(filepath.Join(dir, name), []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	cfg, err := config.Load(filepath.Join(dir, "gate.yaml"))
	if err != nil {
		t.Fatal(err)
	}
	b := &turnedClock{wall: time.Date(2026, 5, 14, 4, 0, 0, 0, time.UTC), mono: 3000, synced: true}
	build := func() *App {
		t.Helper()
		a, err := Build(t.Context(), cfg, Options{Version: "test", Time: b, Log: slog.New(slog.DiscardHandler)})
		if err != nil {
			t.Fatal(err)
		}
		return a
	}
	a := build()
	if _, err := a.Journal.Append(t.Context(), &edge.Entry{Kind: edge.KindDecision, Of: -1, Lane: "in", Outcome: edge.Admit, Stamp: a.Clock.Now()}, nil); err != nil {
		t.Fatal(err)
	}
	if err := errors.Join(a.Journal.Acknowledge(t.Context(), a.Journal.Epoch(), a.Journal.Size(), nil), a.close()); err != nil {
		t.Fatal(err)
	}
	for _, c := range []struct {
		by     time.Duration
		synced bool
		want   string
	}{
		{4 * 365 * 24 * time.Hour, false, "0 entries past their retention of 24h0m0s destroyed; nobody vouches for the gate's clock"},
		{-(4*365 - 2) * 24 * time.Hour, true, "1 entries past their retention of 24h0m0s destroyed"},
	} {
		// A start, since a clock that has been right goes on by itself.
		b.wall, b.mono, b.synced = b.wall.Add(c.by), 3000, c.synced
		a := build()
		text, err := commands{a}.Do(t.Context(), downlink.Command{Name: "purge"})
		if err := errors.Join(err, a.close()); err != nil || !strings.HasPrefix(text, c.want) || c.synced && text != c.want {
			t.Errorf("%q %v, want %q", text, err, c.want)
		}
	}
}
