package journal

import (
	"flag"
	"os"
	"testing"
)

// TestMain has the properties tried less often than rapid does by itself: each case
// writes to a file some hundred times. -rapid.checks=1000 is for a night.
func TestMain(m *testing.M) {
	flag.Parse()
	if f := flag.Lookup("rapid.checks"); f != nil && f.Value.String() == f.DefValue {
		if err := f.Value.Set("30"); err != nil {
			panic(err)
		}
	}
	os.Exit(m.Run())
}
