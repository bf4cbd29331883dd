package gatecmd

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/spf13/cobra"

	"gatehouse/cmd/internal/communitycmd"
)

// What the installer's page says to type is there: every command with its flags.
func TestFirstGatePage(t *testing.T) {
	src, err := os.ReadFile(filepath.Join("..", "..", "..", "firmware-config", "first-gate.md"))
	if err != nil {
		t.Fatal(err)
	}
	roots := map[string]func() *cobra.Command{"gatehouse": New, "communityd": func() *cobra.Command { return communitycmd.New("test") }}
	seen := 0
	for line := range strings.Lines(strings.ReplaceAll(string(src), "\\\n", " ")) {
		if !strings.HasPrefix(line, "    ") {
			continue
		}
		line, _, _ = strings.Cut(line, "#")
		for cmd := range strings.SplitSeq(line, ";") {
			args := strings.Fields(cmd)
			if len(args) == 0 || roots[args[0]] == nil {
				continue
			}
			seen++
			c, rest, err := roots[args[0]]().Find(args[1:])
			if err != nil {
				t.Errorf("%s: %v", strings.TrimSpace(cmd), err)
				continue
			}
			if err := c.ParseFlags(rest); err != nil {
				t.Errorf("%s: %v", strings.TrimSpace(cmd), err)
			}
			if err := c.ValidateArgs(c.Flags().Args()); err != nil || !c.Runnable() {
				t.Errorf("%s: %v", strings.TrimSpace(cmd), err)
			}
		}
	}
	if seen < 12 {
		t.Errorf("only %d commands on the page", seen)
	}
}
