package gatecmd

import (
	"context"

	"github.com/spf13/cobra"

	"gatehouse/cmd/internal/app"
	"gatehouse/cmd/internal/config"
	"gatehouse/cmd/internal/peoplecmd"
	"gatehouse/edge/console/accounts"
)

// peopleTree is the commands on who may use the console.
func peopleTree() *cobra.Command {
	var path string
	c := peoplecmd.New(func(ctx context.Context) (*accounts.Accounts, error) {
		cfg, err := config.Load(path)
		if err != nil {
			return nil, err
		}
		return app.OpenAccounts(ctx, cfg, accounts.Options{})
	})
	c.PersistentFlags().StringVarP(&path, "config", "c", defaultConfig, "the gate's configuration")
	return c
}
