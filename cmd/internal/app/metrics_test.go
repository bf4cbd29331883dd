package app

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"net/http/httptest"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
	"testing/fstest"

	"github.com/prometheus/client_golang/prometheus"

	"gatehouse/edge"
)

var update = flag.Bool("update", false, "write the golden files")

func get(t *testing.T, a *App, path string) (int, string) {
	t.Helper()
	w := httptest.NewRecorder()
	a.healthHandler().ServeHTTP(w, httptest.NewRequest("GET", path, nil))
	b, err := io.ReadAll(w.Result().Body)
	if err != nil {
		t.Fatal(err)
	}
	return w.Code, string(b)
}

// The names and labels of the metrics are kept: alert rules name them.
func TestMetricNames(t *testing.T) {
	a, _ := gateIn(t, t.TempDir())
	t.Cleanup(func() { _ = a.close() })
	if _, err := a.counted().Append(t.Context(), &edge.Entry{Kind: edge.KindDecision, Of: -1, Lane: "in", Outcome: edge.Admit, Stamp: a.Clock.Now()}, nil); err != nil {
		t.Fatal(err)
	}
	a.board.root = fstest.MapFS{"sys/class/thermal/thermal_zone0/temp": {Data: []byte("81000")}, "sys/devices/platform/soc/soc:firmware/get_throttled": {Data: []byte("1")}}
	if err := a.board.look(t.Context(), map[string]bool{}); err != nil {
		t.Fatal(err)
	}
	code, text := get(t, a, "/metrics")
	if code != 200 {
		t.Fatalf("%d: %s", code, text)
	}
	var names []string
	for line := range strings.Lines(text) {
		if !strings.HasPrefix(line, "# HELP gatehouse_") {
			continue
		}
		names = append(names, strings.TrimPrefix(line, "# HELP "))
	}
	slices.Sort(names)
	path := filepath.Join("testdata", "metrics.golden")
	if *update {
		if err := os.MkdirAll("testdata", 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(path, []byte(strings.Join(names, "")), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	want, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	if got := strings.Join(names, ""); got != string(want) {
		t.Errorf("metrics are\n%s\nwant\n%s", got, want)
	}
	for _, line := range []string{
		`gatehouse_decisions_total{lane="in",outcome="admit"} 1`,
		`gatehouse_device_up{driver="rdm6300",serves="in scanner",state="starting"} 0`,
		`gatehouse_board_temperature_celsius 81`,
		`gatehouse_board_throttled{reason="under_voltage"} 1`,
		`gatehouse_board_problem{code="hot"} 1`,
		`gatehouse_entries_total{kind="decision"} 1`,
	} {
		if !strings.Contains(text, line+"\n") {
			t.Errorf("no line %s", line)
		}
	}
}

// The operator's page has every metric with its type, labels and meaning, and no
// other.
func TestMetricsPage(t *testing.T) {
	a, _ := gateIn(t, t.TempDir())
	t.Cleanup(func() { _ = a.close() })
	descs := make(chan *prometheus.Desc, 100)
	for _, c := range []prometheus.Collector{a.metrics.entries, a.metrics.decisions, a.metrics.commit, a.metrics.own, &state{a: a}} {
		c.Describe(descs)
	}
	close(descs)
	said := regexp.MustCompile(`fqName: "([^"]+)", help: "([^"]+)",(?: unit: "[^"]*",)? constLabels: \{\}, variableLabels: \{([^}]*)\}`)
	var rows []string
	for d := range descs {
		m := said.FindStringSubmatch(d.String())
		if m == nil {
			t.Fatal(d)
		}
		kind := "gauge"
		switch {
		case strings.HasSuffix(m[1], "_total"):
			kind = "counter"
		case m[1] == "gatehouse_commit_seconds" || m[1] == "gatehouse_decision_seconds":
			kind = "histogram"
		}
		labels := strings.ReplaceAll(m[3], ",", ", ")
		rows = append(rows, "| `"+m[1]+"` | "+kind+" | "+labels+" | "+m[2]+" |\n")
	}
	slices.Sort(rows)
	path := filepath.Join("..", "..", "..", "firmware-config", "prometheus", "metrics.md")
	page, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	const head = "| --- | --- | --- | --- |\n"
	prose, table, ok := strings.Cut(string(page), head)
	if !ok {
		t.Fatal("no table on the page")
	}
	if *update {
		table = strings.Join(rows, "")
		if err := os.WriteFile(path, []byte(prose+head+table), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	if want := strings.Join(rows, ""); table != want {
		t.Errorf("the table is\n%s\nwant\n%s", table, want)
	}
	for _, name := range regexp.MustCompile(`gatehouse_[a-z_]+`).FindAllString(prose, -1) {
		name = strings.TrimSuffix(name, "_bucket")
		if !slices.ContainsFunc(rows, func(r string) bool { return strings.HasPrefix(r, "| `"+name+"` ") }) {
			t.Errorf("the page names %s, which there is not", name)
		}
	}
	// What the rows say of types is what Prometheus is told.
	_, text := get(t, a, "/metrics")
	for line := range strings.Lines(text) {
		f := strings.Fields(line)
		if len(f) == 4 && f[1] == "TYPE" && strings.HasPrefix(f[2], "gatehouse_") && !slices.ContainsFunc(rows, func(r string) bool { return strings.HasPrefix(r, "| `"+f[2]+"` | "+f[3]+" |") }) {
			t.Errorf("%s is a %s", f[2], f[3])
		}
	}
}

func TestHealthz(t *testing.T) {
	a, _ := gateIn(t, t.TempDir())
	t.Cleanup(func() { _ = a.close() })
	// Lanes that have not run yet are stuck, as far as anybody can see.
	if code, text := get(t, a, "/healthz"); code == 200 && text != "ok\n" {
		t.Errorf("%d %q", code, text)
	}
	ctx, stop := context.WithCancel(t.Context())
	done := make(chan error, 1)
	go func() { done <- a.Run(ctx) }()
	until(t, "the gate is healthy", func() bool { code, text := get(t, a, "/healthz"); return code == 200 && text == "ok\n" })
	stop()
	<-done
}

// Each problem is an alert once when it begins and once when it ends; one that could
// not be recorded is told at the next look.
func TestBoardAlerts(t *testing.T) {
	sys := fstest.MapFS{}
	var got []string
	fails := false
	w := &boardWatch{root: sys, state: t.TempDir(), record: func(_ context.Context, k edge.Kind, data any) (edge.EntryRef, error) {
		if fails {
			return edge.EntryRef{}, errors.New("read-only")
		}
		d := data.(boardAlert)
		got = append(got, fmt.Sprint(k, " ", d.Alert, " ", d.Open, " ", d.Text != ""))
		return edge.EntryRef{}, nil
	}}
	open := map[string]bool{}
	if h := w.Health(); h.State != "starting" {
		t.Errorf("before the first look: %+v", h)
	}
	for _, throttled := range []string{"0", "1", "50005", "50000", "1"} {
		sys["sys/devices/platform/soc/soc:firmware/get_throttled"] = &fstest.MapFile{Data: []byte(throttled)}
		if throttled != "0" {
			fails = true
			if err := w.look(t.Context(), open); err == nil {
				t.Errorf("%s: it is not said that nothing is recorded", throttled)
			}
			fails = false
		}
		if err := w.look(t.Context(), open); err != nil {
			t.Fatal(err)
		}
	}
	// The disk of the machine that runs the test may be full; that is not looked at.
	got = slices.DeleteFunc(got, func(s string) bool { return strings.Contains(s, "disk") })
	want := []string{"alert under_voltage true true", "alert throttled true true", "alert under_voltage false false", "alert throttled false false", "alert under_voltage true true"}
	slices.Sort(got[min(2, len(got)):min(4, len(got))])
	slices.Sort(want[2:4])
	if !slices.Equal(got, want) {
		t.Errorf("%q, want %q", got, want)
	}
	if h := w.Health(); h.State != "fault" || !strings.Contains(h.LastError, "voltage") {
		t.Errorf("with too little voltage: %+v", h)
	}
}

// The sample's alert rules name metrics that there are, and fire when they should.
func TestAlertRules(t *testing.T) {
	dir := filepath.Join("..", "..", "..", "firmware-config", "prometheus")
	rules, err := os.ReadFile(filepath.Join(dir, "gatehouse.rules.yaml"))
	if err != nil {
		t.Fatal(err)
	}
	known, err := os.ReadFile(filepath.Join("testdata", "metrics.golden"))
	if err != nil {
		t.Fatal(err)
	}
	for _, name := range regexp.MustCompile(`gatehouse_[a-z_]+`).FindAllString(string(rules), -1) {
		if !strings.Contains("\n"+string(known), "\n"+strings.TrimSuffix(name, "_bucket")+" ") {
			t.Errorf("the rules name %s, which a gate does not tell", name)
		}
	}
	promtool, err := exec.LookPath("promtool")
	if err != nil {
		if os.Getenv("CI") != "" {
			t.Fatal("promtool is not installed")
		}
		t.Skip("promtool is not installed here; .ci/run installs it (package prometheus)")
	}
	for _, args := range [][]string{{"check", "rules", "gatehouse.rules.yaml"}, {"test", "rules", "gatehouse.rules.test.yaml"}} {
		c := exec.CommandContext(t.Context(), promtool, args...)
		c.Dir = dir
		if out, err := c.CombinedOutput(); err != nil {
			t.Errorf("promtool %s: %v\n%s", strings.Join(args, " "), err, out)
		}
	}
}

// What an update left is an alert at the next start, once.
func TestUpdateNote(t *testing.T) {
	a, _ := gateIn(t, t.TempDir())
	t.Cleanup(func() { _ = a.close() })
	alerts := func() (out []string) {
		eachEntry(t, a.Journal, func(e *edge.Entry) {
			if e.Kind == edge.KindAlert {
				out = append(out, string(e.Data))
			}
		})
		return out
	}
	for i, text := range []string{`{"alert":"update_undone","text":"1.1 was undone"}`, "", "{"} {
		path := filepath.Join(a.cfg.State, "update.note")
		if text != "" {
			if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
				t.Fatal(err)
			}
		}
		if err := a.updateNote(t.Context()); err != nil {
			t.Fatal(err)
		}
		if _, err := os.Stat(path); err == nil {
			t.Error("the word is still there")
		}
		if got := alerts(); len(got) != []int{1, 1, 2}[i] || !strings.Contains(got[0], "1.1 was undone") {
			t.Errorf("%q: %q", text, got)
		}
	}
}
