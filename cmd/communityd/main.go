// Communityd is the receiving end for a community server. See
// cmd/internal/communitycmd.
package main

import (
	"context"
	"fmt"
	"os"
	"os/signal"
	"syscall"
	_ "time/tzdata" // a small server may have no zone files

	"gatehouse/cmd/internal/communitycmd"
	"gatehouse/cmd/internal/version"
)

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	if err := communitycmd.New(version.String()).ExecuteContext(ctx); err != nil {
		fmt.Fprintln(os.Stderr, "communityd:", err)
		os.Exit(1)
	}
}
