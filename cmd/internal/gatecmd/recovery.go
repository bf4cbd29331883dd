package gatecmd

import (
	"log/slog"
	"os"

	"github.com/spf13/cobra"
	"golang.org/x/term"

	"gatehouse/cmd/internal/backup"
	"gatehouse/cmd/internal/config"
)

// firstKey prints the recovery key at the first start, to a person who sees it: it
// must not stand in a log.
func firstKey(cmd *cobra.Command, cfg *config.Gate, log *slog.Logger) error {
	if f, ok := cmd.OutOrStdout().(*os.File); ok && term.IsTerminal(int(f.Fd())) {
		return backup.FirstKey(cfg, f)
	}
	if err := backup.Readable(cfg); err != nil {
		log.Warn("nobody could read a backup of this gate", "hint", "gatehouse backup key prints the key, once")
	}
	return nil
}
