// Package version says which program this is.
package version

import (
	"fmt"
	"runtime"
	"runtime/debug"
	"time"
)

// Release is set by the packages' build: -ldflags "-X gatehouse/cmd/internal/version.Release=1.2.3".
var Release string

// Date is set likewise, RFC 3339: the build's time, a floor for the clock.
var Date string

// String is the release, or the commit the program was built from.
func String() string {
	if Release != "" {
		return Release
	}
	if bi, ok := debug.ReadBuildInfo(); ok {
		rev, dirty := "", ""
		for _, s := range bi.Settings {
			switch s.Key {
			case "vcs.revision":
				rev = s.Value[:min(12, len(s.Value))]
			case "vcs.modified":
				if s.Value == "true" {
					dirty = "+changes"
				}
			}
		}
		if rev != "" {
			return "dev-" + rev + dirty
		}
	}
	return "dev"
}

// Full is String with the toolchain and the platform.
func Full() string {
	return fmt.Sprintf("gatehouse %s (%s, %s/%s)", String(), runtime.Version(), runtime.GOOS, runtime.GOARCH)
}

// Built is the build's time, zero when it is not known.
func Built() time.Time {
	t, err := time.Parse(time.RFC3339, Date)
	if err != nil {
		return time.Time{}
	}
	return t
}
