package app

import (
	"context"
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"time"

	"golang.org/x/mod/sumdb/note"
	"golang.org/x/sync/errgroup"

	"gatehouse/cmd/internal/config"
	"gatehouse/edge"
	"gatehouse/edge/bundle"
	"gatehouse/edge/console"
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
	path := filepath.Join(cfg.State, "accounts.db")
	a, err := accounts.Open(ctx, path, o)
	if err := errors.Join(cfg.Remedy(err), cfg.OwnState()); err != nil {
		if a != nil {
			err = errors.Join(err, a.Close())
		}
		return nil, err
	}
	return a, nil
}

// openPeople opens the accounts. A gate decides without them: what is wrong is
// logged, and the console has its public pages.
func (a *App) openPeople(ctx context.Context) {
	var err error
	a.People, err = OpenAccounts(ctx, a.cfg, accounts.Options{Clock: a.Clock, Log: a.log, Build: a.o.Build, Authorities: a.authorities, Record: func(ctx context.Context, k edge.Kind, actor string, data any) error {
		_, err := a.recordBy(ctx, k, actor, data)
		return err
	}})
	if err == nil {
		return
	}
	a.People = nil
	if ctx.Err() == nil {
		a.log.Error("the accounts cannot be opened; nobody can log in, the gate itself works on. Move accounts.db away to begin anew", "err", err)
	}
}

// authorities are the keys whose inspectors may read this gate's console: those
// that may sign policies above the site's own, and those of keys.inspectors. The
// site's own accounts have no say in it.
func (a *App) authorities() []note.Verifier {
	var out []note.Verifier
	keys := a.Policies.trust().Keys
	if name := a.cfg.Keys.Inspectors; name != "" {
		more, err := ReadTrust(name)
		if err != nil {
			a.log.Error("the keys of the inspectors' authorities cannot be read", "err", err)
		}
		for _, k := range more.Keys {
			v, err := edge.HeadVerifier(k.ID, k.Public)
			if err != nil {
				continue // no key of this kind signs notes
			}
			keys = append(keys, bundle.Key{Verifier: v})
		}
	}
	for _, k := range keys {
		above := k.Layers == nil || slices.ContainsFunc(k.Layers, func(l string) bool { return l != "" })
		twice := slices.ContainsFunc(out, func(v note.Verifier) bool { return v.Name() == k.Name() && v.KeyHash() == k.KeyHash() })
		if above && !twice {
			out = append(out, k.Verifier)
		}
	}
	return out
}

// certificates are what the console proves itself with; nil where it is told to
// serve without.
func (a *App) certificates() (*console.Certificates, error) {
	c := a.cfg.Console
	if c.Plain {
		return nil, nil
	}
	certs, err := console.OpenCertificates(console.CertificateOptions{Cert: c.Cert, Key: c.Key, Dir: filepath.Join(a.cfg.State, "keys"), Gate: a.cfg.Name, Names: c.Names,
		Clock: a.Clock, Build: a.o.Build, Log: a.log})
	if err == nil && certs.Own() {
		a.log.Info("the console's own root certificate; compare it with what /ca shows before you install it on a tablet", "sha256", certs.Fingerprint())
	}
	if c.Cert == "" {
		err = a.cfg.Remedy(err)
	}
	return certs, err
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
		t := time.NewTicker(2 * time.Second)
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
			// A terminal that the code was written to stays.
			if st, err := os.Lstat(name); err == nil && !st.Mode().IsRegular() {
				continue
			}
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
