// Gatehouse is the checkpoint appliance. See README.md.
package main

import (
	"os"
	_ "time/tzdata" // a small system may have no zones of its own

	"gatehouse/cmd/internal/gatecmd"
)

func main() { os.Exit(gatecmd.Main(os.Args[1:], os.Stdout, os.Stderr)) }
