package gatecmd

import (
	"bytes"
	"os/exec"
	"strings"
	"testing"
	"time"

	"github.com/rogpeppe/go-internal/testscript"
)

// TestPeople begins with a gate that nobody may use yet, by the commands and
// with the daemon beside them.
func TestPeople(t *testing.T) {
	testscript.Run(t, testscript.Params{Dir: "testdata/people", Setup: setup, Cmds: map[string]func(*testscript.TestScript, bool, []string){
		// waitjournal CONFIG TEXT waits until the journal holds a text.
		"waitjournal": func(ts *testscript.TestScript, _ bool, args []string) {
			var out []byte
			for end := time.Now().Add(30 * time.Second); time.Now().Before(end); time.Sleep(50 * time.Millisecond) {
				cmd := exec.Command("gatehouse", "journal", "export", "--config", args[0])
				cmd.Dir, cmd.Env = ts.MkAbs("."), []string{"PATH=" + ts.Getenv("PATH")}
				var err error
				if out, err = cmd.Output(); err == nil && bytes.Contains(out, []byte(strings.Join(args[1:], " "))) {
					return
				}
			}
			ts.Fatalf("the journal holds no %s:\n%s", args[1], out)
		},
	}})
}
