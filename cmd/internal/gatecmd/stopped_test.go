package gatecmd

import (
	"bytes"
	"context"
	"os"
	"path/filepath"
	"testing"
	"time"
)

// A gate that is told to stop while it starts ends well, wherever it was: no failure of
// its unit, and nothing to mend at the next start.
func TestStoppedDuringStart(t *testing.T) {
	dir := t.TempDir()
	conf := filepath.Join(dir, "gate.yaml")
	for path, text := range map[string]string{
		filepath.Join(dir, "policy.yaml"): "policy: p\nversion: 1\ntitle: All\nauthority: {by: Committee, basis: Rule 1}\nno_match: refer\nrules: [{id: a, title: A, when: pass.status == 'active', then: admit}]\n",
		conf: "community: c\nsite: s\ngate: g\nstate: state\npolicy: policy.yaml\nconsole: {listen: '127.0.0.1:0'}\n" +
			"passages: [{name: main, barrier: none}]\nlanes: [{name: in, passage: main, direction: in, scanner: console, thermometer: none}]\n",
	} {
		if err := os.WriteFile(path, []byte(text), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	if err := os.Mkdir(filepath.Join(dir, "state"), 0o700); err != nil {
		t.Fatal(err)
	}
	for after := time.Duration(0); after < 100*time.Millisecond; after = 2*after + time.Millisecond {
		ctx, cancel := context.WithCancel(t.Context())
		if after > 0 {
			time.AfterFunc(after, cancel)
		} else {
			cancel()
		}
		var log bytes.Buffer
		c := New()
		c.SetArgs([]string{"run", "--config", conf})
		c.SetOut(&log)
		c.SetErr(&log)
		if err := c.ExecuteContext(ctx); err != nil {
			t.Errorf("stopped after %v: %v\n%s", after, err, log.String())
		}
		cancel()
	}
	damaged, err := filepath.Glob(filepath.Join(dir, "state", "*damaged*"))
	if err != nil || len(damaged) > 0 {
		t.Errorf("%q %v", damaged, err)
	}
}
