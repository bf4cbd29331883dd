// Mandocs writes the man pages and shell completions of both programs, for the
// packages: mandocs FOLDER makes FOLDER/PROGRAM/{man1,bash,zsh,fish}.
package main

import (
	"fmt"
	"os"
	"path/filepath"
	"time"

	"github.com/spf13/cobra"
	"github.com/spf13/cobra/doc"

	"gatehouse/cmd/internal/communitycmd"
	"gatehouse/cmd/internal/gatecmd"
	"gatehouse/cmd/internal/version"
)

func main() {
	if len(os.Args) != 2 {
		fmt.Fprintln(os.Stderr, "usage: mandocs FOLDER")
		os.Exit(2)
	}
	for _, c := range []*cobra.Command{gatecmd.New(), communitycmd.New(version.String())} {
		if err := write(c, filepath.Join(os.Args[1], c.Name()), version.String(), version.Built()); err != nil {
			fmt.Fprintln(os.Stderr, "mandocs:", err)
			os.Exit(1)
		}
	}
}

// write makes the pages of one program. The same version and date give the same
// bytes.
func write(root *cobra.Command, dir, release string, date time.Time) error {
	for _, d := range []string{"man1", "bash", "zsh", "fish"} {
		if err := os.MkdirAll(filepath.Join(dir, d), 0o755); err != nil {
			return err
		}
	}
	root.DisableAutoGenTag = true
	name := root.Name()
	header := &doc.GenManHeader{Section: "1", Source: name + " " + release, Manual: "Gatehouse", Date: &date}
	if err := doc.GenManTree(root, header, filepath.Join(dir, "man1")); err != nil {
		return fmt.Errorf("cannot write the man pages of %s: %w", name, err)
	}
	if err := root.GenBashCompletionFileV2(filepath.Join(dir, "bash", name), true); err != nil {
		return err
	}
	if err := root.GenZshCompletionFile(filepath.Join(dir, "zsh", "_"+name)); err != nil {
		return err
	}
	return root.GenFishCompletionFile(filepath.Join(dir, "fish", name+".fish"), true)
}
