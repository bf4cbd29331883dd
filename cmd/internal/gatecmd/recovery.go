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
// must not stand in a log. The service's is gatehouse-recovery-key.service's to print.
func firstKey(cmd *cobra.Command, cfg *config.Gate, log *slog.Logger) error {
	if f, ok := cmd.OutOrStdout().(*os.File); ok && term.IsTerminal(int(f.Fd())) && backup.KeyShown(cfg).IsZero() {
		return backup.FirstKey(cfg, f)
	}
	if err := backup.Readable(cfg); err != nil {
		log.Warn("no backups of this gate are made: nobody could read them", "hint", "gatehouse backup key prints the key, once; so does a screen at the gate")
	}
	return nil
}
