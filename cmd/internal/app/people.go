package app

import (
	"context"
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"time"

	"golang.org/x/sync/errgroup"

	"gatehouse/cmd/internal/config"
	"gatehouse/edge"
	"gatehouse/edge/console/accounts"
)

// OpenAccounts opens who may use a gate's console, for the daemon and for the
// operator's commands beside it. o needs only what the caller has.
func OpenAccounts(ctx context.Context, cfg *config.Gate, o accounts.Options) (*accounts.Accounts, error) {
	keys, err := siteKeys(cfg)
	if err != nil {
		return nil, err
	}
	o.Community, o.Site, o.Gate = cfg.Community, cfg.Site, cfg.Gate
	o.Card = func(text string) ([]byte, error) {
		// A keyboard reader types what it is set to; whatever form it is, it is the
		// same form each time.
		c, err := edge.ParseCredential(text, "em-hex")
		if err != nil {
			if c, err = edge.ParseCredential(text, "em-dec10"); err != nil {
				return nil, err
			}
		}
		h := keys[0].Hash("login:" + c)
		return h[:], nil
	}
	return accounts.Open(ctx, filepath.Join(cfg.State, "accounts.db"), o)
}

// openPeople opens the accounts. A gate decides without them: what is wrong is
// logged, and the console has its public pages.
func (a *App) openPeople(ctx context.Context) {
	var err error
	a.People, err = OpenAccounts(ctx, a.cfg, accounts.Options{Clock: a.Clock, Log: a.log, Record: func(ctx context.Context, k edge.Kind, actor string, data any) error {
		_, err := a.recordBy(ctx, k, actor, data)
		return err
	}})
	if err != nil {
		a.log.Error("the accounts cannot be opened; nobody can log in, the gate itself works on. Move accounts.db away to begin anew", "err", err)
		a.People = nil
	}
}

// runPeople shows the first start's code while there is no manager, and journals
// changes of accounts.
func (a *App) runPeople(ctx context.Context) error {
	if a.People == nil {
		<-ctx.Done()
		return ctx.Err()
	}
	g, ctx := errgroup.WithContext(ctx)
	g.Go(func() error { return a.People.Run(ctx) })
	g.Go(func() error {
		t := time.NewTicker(10 * time.Second)
		defer t.Stop()
		for shown := "?"; ; {
			code, err := a.People.FirstCode(ctx)
			if err == nil && code != shown {
				err = a.showFirstCode(code)
				shown = code
			}
			if err != nil && ctx.Err() == nil {
				a.log.Error("cannot show the code of the first start (gatehouse people code prints it)", "err", err)
			}
			select {
			case <-ctx.Done():
				return ctx.Err()
			case <-t.C:
			}
		}
	})
	return g.Wait()
}

// firstCodeFiles are where the code is written: in the state folder, and on the
// boot partition where one is configured, which any computer reads from the card.
func firstCodeFiles(cfg *config.Gate) []string {
	files := []string{filepath.Join(cfg.State, "first-code.txt")}
	if cfg.Console.FirstCode != "" {
		files = append(files, cfg.Console.FirstCode)
	}
	return files
}

// showFirstCode writes the code where people can read it, or takes it away when
// it is used.
func (a *App) showFirstCode(code string) error {
	var errs []error
	for _, name := range firstCodeFiles(a.cfg) {
		if code == "" {
			if err := os.Remove(name); err != nil && !errors.Is(err, fs.ErrNotExist) {
				errs = append(errs, err)
			}
			continue
		}
		if err := os.WriteFile(name, []byte(code+"\n"), 0o600); err != nil {
			errs = append(errs, err)
		}
	}
	if code != "" {
		a.log.Warn("this gate has no manager yet: whoever opens its page with this code becomes the first", "code", code, "page", a.Console.URL())
	}
	return errors.Join(errs...)
}

func (a *App) closePeople() error {
	if a.People == nil {
		return nil
	}
	return a.People.Close()
}
