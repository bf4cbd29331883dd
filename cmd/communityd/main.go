// Communityd is the receiving end for a community server. See
// cmd/internal/communitycmd.
package main

import (
	"context"
	"fmt"
	"os"
	"os/signal"
	"runtime/debug"
	"syscall"
	_ "time/tzdata" // a small server may have no zone files

	"gatehouse/cmd/internal/communitycmd"
)

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	if err := communitycmd.New(version()).ExecuteContext(ctx); err != nil {
		fmt.Fprintln(os.Stderr, "communityd:", err)
		os.Exit(1)
	}
}

// version is the module's version as the build recorded it.
func version() string {
	if b, ok := debug.ReadBuildInfo(); ok {
		return b.Main.Version
	}
	return "unknown"
}
