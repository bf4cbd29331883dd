package benchcmd

import (
	"bytes"
	"encoding/json"
	"errors"
	"os"
	"strings"
	"testing"
	"time"
)

func run(t *testing.T, args ...string) (string, error) {
	t.Helper()
	c := New(func() (string, error) { return "", errors.New("no configuration") })
	var out bytes.Buffer
	c.SetOut(&out)
	c.SetErr(&bytes.Buffer{})
	c.SilenceUsage, c.SilenceErrors = true, true
	c.SetArgs(args)
	err := c.ExecuteContext(t.Context())
	return out.String(), err
}

func TestBench(t *testing.T) {
	dir := t.TempDir()
	out, err := run(t, "--dir", dir, "--commits", "100", "--passes", "50", "--json")
	var r Report
	if jerr := json.Unmarshal([]byte(strings.NewReplacer(`"good"`, "0", `"fair"`, "1", `"BAD"`, "2").Replace(out)), &r); jerr != nil {
		t.Fatalf("%v, %v\n%s", err, jerr, out)
	}
	if (r.Worst == bad) != (err != nil) {
		t.Errorf("the worst is %s and the error is %v", r.Worst, err)
	}
	for _, name := range []string{"medium: a durable write of 4 KiB", "journal: a decision made durable", "medium: bytes for one entry", "rules: decisions a second, closed estate",
		"start: databases to first decision, 50 passes", "memory: the most this run had"} {
		found := false
		for _, l := range r.Lines {
			found = found || l.Name == name && l.Value != "" && l.Say != ""
		}
		if !found {
			t.Errorf("no line %q in\n%s", name, out)
		}
	}
	left, err := os.ReadDir(dir)
	if err != nil || len(left) != 0 {
		t.Errorf("left behind: %v, %v", left, err)
	}
}

func TestBenchRefuses(t *testing.T) {
	for _, c := range []struct {
		want string
		args []string
	}{
		{"no configuration", nil},
		{"cannot measure in", []string{"--dir", "/nowhere at all"}},
		{"--commits is at least 100", []string{"--dir", t.TempDir(), "--commits", "1"}},
	} {
		if _, err := run(t, c.args...); err == nil || !strings.Contains(err.Error(), c.want) {
			t.Errorf("%q: %v, want %q", c.args, err, c.want)
		}
	}
}

func TestVerdicts(t *testing.T) {
	const ms = time.Millisecond
	all := func(d time.Duration) []time.Duration {
		out := make([]time.Duration, 1000)
		for i := range out {
			out[i] = d
		}
		return out
	}
	once := func(d, one time.Duration) []time.Duration { return append(all(d)[1:], one) }
	for _, c := range []struct {
		name string
		got  Line
		want Verdict
		say  string
	}{
		{"a good card", judgeMedium(all(3 * ms)), good, ""},
		{"a card that stalls", judgeMedium(all(900 * ms)), bad, "this medium stalls for 900 ms"},
		{"a card that stalled once", judgeMedium(once(3*ms, 900*ms)), fair, "once"},
		{"a slow card", judgeMedium(all(150 * ms)), fair, "A2"},
		{"a card that lies", judgeMedium(all(5 * time.Microsecond)), fair, "too quick"},
		{"a good commit", judgeCommit(all(4*ms), all(4*ms), all(3*ms)), good, "1.00x of a bare commit; 75 % of it"},
		{"a slow commit", judgeCommit(all(200*ms), all(150*ms), all(150*ms)), fair, "notice"},
		{"a commit over the deadline", judgeCommit(all(2000*ms), all(150*ms), all(150*ms)), bad, "safe side"},
		{"little is written", judgeFlash(written{process: 5000, medium: 5500, entry: 800}), good, "36.5 GB"},
		{"much is written", judgeFlash(written{process: 50_000, medium: -1, entry: 800}), fair, "compressed"},
		{"in memory", judgeFlash(written{}), good, "does not count"},
		{"a quick board", judgeDecisions(100_000, 10*time.Microsecond), good, ""},
		{"a slow board", judgeDecisions(1000, ms), fair, ""},
		{"too slow a board", judgeDecisions(100, 10*ms), bad, ""},
		{"a quick start", judgeStart(20*ms, 10), good, ""},
		{"a slow start", judgeStart(3000*ms, 10), fair, ""},
		{"too slow a start", judgeStart(11_000*ms, 10), bad, ""},
		{"little memory", judgeMemory(40 << 20), good, ""},
		{"much memory", judgeMemory(200 << 20), fair, ""},
	} {
		if c.got.Verdict != c.want || !strings.Contains(c.got.Say, c.say) {
			t.Errorf("%s: %s %q, want %s %q", c.name, c.got.Verdict, c.got.Say, c.want, c.say)
		}
	}
}
