// Gatehouse is the checkpoint appliance. See README.md.
package main

import (
	"os"

	"gatehouse/cmd/internal/gatecmd"
)

func main() { os.Exit(gatecmd.Main(os.Args[1:], os.Stdout, os.Stderr)) }
