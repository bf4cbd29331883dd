package gatecmd

import (
	"context"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/url"
	"os"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"gatehouse/cmd/internal/app"
	"gatehouse/cmd/internal/backup"
	"gatehouse/cmd/internal/config"
	"gatehouse/cmd/internal/setupcmd"
	"gatehouse/cmd/internal/version"
	"gatehouse/device"
)

// report prints a line for each thing that was looked at.
type report struct {
	w   io.Writer
	bad int
}

func (r *report) ok(what, format string, args ...any) {
	fmt.Fprintf(r.w, "ok    %-28s %s\n", what, fmt.Sprintf(format, args...))
}

func (r *report) warn(what, format string, args ...any) {
	fmt.Fprintf(r.w, "note  %-28s %s\n", what, fmt.Sprintf(format, args...))
}

func (r *report) fail(what string, err error) {
	r.bad++
	fmt.Fprintf(r.w, "FAIL  %-28s %v\n", what, err)
}

func checkCmd() *cobra.Command {
	var path string
	cmd := &cobra.Command{
		Use: "check", Short: "Say line by line what is well and what is not", Args: cobra.NoArgs,
		Long: `Check the configuration, the policy, the databases, the clock, every device and
the way to the community server. Status 1 when anything fails. It may run beside
the daemon; devices that the daemon has open are then reported as in use.`,
		RunE: func(cmd *cobra.Command, _ []string) error {
			r := &report{w: cmd.OutOrStdout()}
			check(cmd.Context(), r, path)
			if r.bad > 0 {
				fmt.Fprintf(r.w, "\n%d of the lines above need attention\n", r.bad)
				return errSilent
			}
			return nil
		},
	}
	configFlag(cmd, &path)
	return cmd
}

func check(ctx context.Context, r *report, path string) {
	cfg, err := config.Load(path)
	if err != nil {
		r.fail("configuration", err)
		return
	}
	r.ok("configuration", "%s: gate %s of site %s, %d passages, %d lanes", path, cfg.Gate, cfg.Site, len(cfg.Passages), len(cfg.Lanes))
	if st, err := os.Stat(cfg.State); err == nil && st.Mode().Perm()&0o077 != 0 {
		r.fail("state folder", fmt.Errorf("%s can be read by others (mode %o): chmod 700 %s", cfg.State, st.Mode().Perm(), cfg.State))
	}
	if err := cfg.MayEnrol(); err != nil && cfg.Enrolled != nil {
		r.warn("enrolment", "%v", err)
	}
	checkFiles(r, cfg)
	listen := cfg.Console.Listen
	cfg.Console.Listen = ""
	a, err := app.Build(ctx, cfg, app.Options{Version: version.String(), Build: version.Built(), Beside: true, Log: slog.New(slog.DiscardHandler)})
	if err != nil {
		r.fail("policy, databases, devices", err)
		return
	}
	defer a.Close()
	p := a.Policies.Current()
	r.ok("policy", "%s, version %d, %s; %d rules, %d cases hold", p.ID(), p.Version(), p.Hash(), len(p.Rules()), p.Cases())
	r.ok("journal", "epoch %s, %d entries, %d receipted by the server", a.Journal.Epoch(), a.Journal.Size(), a.Journal.Acked())
	if c, err := a.Registry.Counts(ctx); err != nil {
		r.fail("registry", err)
	} else if c.Passes == 0 {
		r.warn("registry", "no passes yet: gatehouse pass import FILE, or the community server sends them")
	} else {
		r.ok("registry", "version %d: %d passes, %d households", a.Registry.Version(), c.Passes, c.Households)
	}
	s := a.Clock.Now()
	if s.Clock.Trusted() {
		r.ok("clock", "%s, %s by %s", s.Local().Format("2006-01-02 15:04:05 -0700"), s.Clock, s.Source)
	} else {
		r.warn("clock", "%s, but not set since power-on: rules bound to hours do not bind (set up NTP, or write clock: {battery: true} in gate.yaml when the machine has a clock with a battery that was set)", s.Local().Format("2006-01-02 15:04:05 -0700"))
	}
	type trier interface{ Try() error }
	a.EachDevice(func(serves string, d device.Device) {
		h := d.Health()
		what := fmt.Sprintf("%s at %s", h.Driver, h.Where)
		t, ok := d.(trier)
		if !ok {
			r.warn(serves, "%s: is opened when the gate runs", what)
			return
		}
		if err := t.Try(); err != nil {
			r.fail(serves, fmt.Errorf("%w (the lane would run degraded)", err))
			return
		}
		r.ok(serves, "%s", what)
		if w, ok := d.(interface{ Warnings() []string }); ok {
			for _, s := range w.Warnings() {
				r.warn(serves, "%s", s)
			}
		}
	})
	checkService(r, cfg, path, "/")
	for _, p := range cfg.Passages {
		if p.Barrier.IsMap() && p.Fire.IsZero() {
			r.warn(p.Name+" fire input", "none: wire the fire panel's contact in series with the lock's supply, and here so that it is recorded")
		}
	}
	if listen != "" {
		checkConsole(ctx, r, cfg)
	}
	checkServer(ctx, r, cfg)
	if err := backup.Readable(cfg); err != nil {
		r.warn("backups", "none are made: %v", err)
	} else if at := backup.KeyShown(cfg); !at.IsZero() {
		r.ok("backups", "the recovery key was shown on %s; if nobody wrote it down: gatehouse backup key --again", at.Format(time.DateOnly))
	}
	if until, err := app.CertificateEnd(cfg); err == nil && !until.IsZero() {
		r.ok("certificate", "until %s; it renews itself at two thirds of its life", until.Format("2006-01-02"))
	} else if err != nil {
		r.fail("certificate", fmt.Errorf("%w (gatehouse enroll gets another)", err))
	}
}

// checkFiles looks through the files that gate.yaml names and without which a gate
// opens all the same.
func checkFiles(r *report, cfg *config.Gate) {
	if name := cfg.Console.Tips; name != "" && cfg.Console.Listen != "" {
		if tips, err := config.ReadTips(name); err != nil {
			r.warn("display's tips", "the display shows none: %v", err)
		} else {
			r.ok("display's tips", "%s: in %d languages", name, len(tips))
		}
	}
	if name := cfg.Keys.Inspectors; name != "" {
		if keys, err := app.ReadTrust(name); err != nil {
			r.fail("inspectors' authorities", fmt.Errorf("no inspector of theirs can log in (keys.inspectors): %w", err))
		} else {
			r.ok("inspectors' authorities", "%s: %d keys", name, len(keys.Keys))
		}
	}
}

// checkService holds what the service may open against what the configuration names.
func checkService(r *report, cfg *config.Gate, path, root string) {
	if !setupcmd.Serves(path, root) {
		return
	}
	const what = "service's devices"
	switch lacks, besides, err := setupcmd.Compare(cfg, root); {
	case err != nil:
		r.fail(what, err)
	case len(lacks) > 0:
		r.fail(what, fmt.Errorf("the service may not open what gate.yaml names (%s): gatehouse setup, then: systemctl restart gatehouse", strings.Join(lacks, ", ")))
	case len(besides) > 0:
		r.warn(what, "the service may open more than gate.yaml names (%s): gatehouse setup takes it away", strings.Join(besides, ", "))
	default:
		r.ok(what, "those of gate.yaml, and no others")
	}
}

func checkServer(ctx context.Context, r *report, cfg *config.Gate) {
	if cfg.Sync.URL == "" {
		r.warn("community server", "none configured: the gate stands alone")
		return
	}
	u, err := url.Parse(cfg.Sync.URL)
	if err != nil {
		r.fail("community server", err)
		return
	}
	host := u.Host
	if u.Port() == "" {
		host = net.JoinHostPort(u.Hostname(), map[string]string{"mqtt": "1883", "mqtts": "8883", "ws": "80", "wss": "443"}[u.Scheme])
	}
	d := net.Dialer{Timeout: 5 * time.Second}
	c, err := d.DialContext(ctx, "tcp", host)
	if err != nil {
		r.fail("community server", fmt.Errorf("cannot reach the broker: %w (the gate works without, and keeps its journal)", err))
		return
	}
	_ = c.Close()
	r.ok("community server", "the broker %s answers", host)
}
