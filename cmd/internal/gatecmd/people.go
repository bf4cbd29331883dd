package gatecmd

import (
	"context"
	"crypto/tls"
	"time"

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

// checkConsole says who may use the console, and how long a given certificate is
// good.
func checkConsole(ctx context.Context, r *report, cfg *config.Gate) {
	if c := cfg.Console; c.Cert != "" {
		pair, err := tls.LoadX509KeyPair(c.Cert, c.Key)
		switch {
		case err != nil:
			r.fail("console's certificate", err)
		case time.Until(pair.Leaf.NotAfter) < 30*24*time.Hour:
			r.warn("console's certificate", "%s ends on %s", c.Cert, pair.Leaf.NotAfter.Format(time.DateOnly))
		default:
			r.ok("console's certificate", "%s, until %s", c.Cert, pair.Leaf.NotAfter.Format(time.DateOnly))
		}
	}
	a, err := app.OpenAccounts(ctx, cfg, accounts.Options{})
	if err != nil {
		r.fail("accounts", err)
		return
	}
	defer a.Close()
	people, err := a.List(ctx)
	if err != nil {
		r.fail("accounts", err)
		return
	}
	if fresh, err := a.Fresh(ctx); err != nil {
		r.fail("accounts", err)
	} else if fresh {
		r.warn("accounts", "no manager yet: gatehouse people code prints the code that the first one begins with")
	} else {
		r.ok("accounts", "%d people may use the console", len(people))
	}
}
