// Package enrolcmd is "gatehouse enroll": a device becomes a gate that the
// community server knows, over the network or by files carried by hand.
package enrolcmd

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"log/slog"
	"os"
	"path/filepath"
	"time"

	"github.com/spf13/cobra"

	"gatehouse/cmd/internal/app"
	"gatehouse/cmd/internal/backup"
	"gatehouse/cmd/internal/config"
	"gatehouse/cmd/internal/qrtext"
	"gatehouse/cmd/internal/setupcmd"
	"gatehouse/edge/identity"
	"gatehouse/sync/enrol"
	"gatehouse/sync/wire"
)

// New makes the command. defaultConfig is the path of the gate's configuration.
func New(defaultConfig string) *cobra.Command {
	o := options{root: "/"}
	c := &cobra.Command{
		Use:     "enroll [INVITATION]",
		Aliases: []string{"enrol"},
		Short:   "Make this device a gate that the community server knows",
		Long: `enroll makes the device's keys, shows a short code, and waits until somebody at
the community server approves it:

    gatehouse enroll gatehouse://community.example:8883/lakeside/north?pin=...
    communityd gates approve north/east K7QF-2M9X-3HTR

INVITATION is what "communityd invite" prints there; it says where the server
is, and the pin of its key, so that nobody else is believed. The code is made of
this device's keys: who approves it approves this device and no other.

Without a network, carry files:

    gatehouse enroll --request request.json
    communityd gates approve north/east --request request.json --out approval.json
    gatehouse enroll --approval approval.json

It ends by giving the service the devices of gate.yaml, as "gatehouse setup" does.

The first time, enroll also prints the recovery key for backups. It is kept
nowhere on the device: put the paper where the keys of the house are.`,
		Args: cobra.MaximumNArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			if len(args) == 1 {
				o.invitation = args[0]
			}
			return o.run(cmd.Context(), cmd.OutOrStdout(), cmd.ErrOrStderr())
		},
	}
	f := c.Flags()
	f.StringVarP(&o.config, "config", "c", defaultConfig, "the gate's configuration")
	f.StringVar(&o.request, "request", "", "write the request to this `file`, to be carried to the server")
	f.StringVar(&o.approval, "approval", "", "read the approval from this `file`, carried back from the server")
	f.StringVar(&o.browser, "browser", "", "serve a page at this `address` (host:port) for 60 minutes: find, watch, paste")
	f.BoolVar(&o.newKeys, "new-keys", false, "make new keys: for a device that was revoked, or may have been copied")
	f.DurationVar(&o.wait, "wait", 24*time.Hour, "give up after this time")
	c.MarkFlagsMutuallyExclusive("request", "approval", "browser")
	return c
}

type options struct {
	root                                           string // of the system whose service is set up
	config, invitation, request, approval, browser string
	newKeys                                        bool
	wait                                           time.Duration
}

func (o *options) run(ctx context.Context, out, errOut io.Writer) error {
	if o.browser != "" {
		return o.browse(ctx, out, errOut) // there may be no good configuration yet
	}
	cfg, err := config.Load(o.config)
	if err != nil {
		return err
	}
	if err := cfg.MayEnrol(); err != nil {
		return err
	}
	if o.newKeys {
		if err := forget(cfg); err != nil {
			return err
		}
	}
	id, err := Keys(cfg)
	if err != nil {
		return err
	}
	if err := backup.FirstKey(cfg, out); err != nil {
		return err
	}
	switch {
	case o.approval != "":
		return o.install(ctx, cfg, id, out, errOut)
	case o.request != "":
		return o.write(cfg, id, out)
	}
	if o.invitation == "" && cfg.Enrolled != nil && cfg.Enrolled.Server != "" {
		return o.again(ctx, cfg, id, out, errOut)
	}
	if o.invitation == "" {
		return errors.New("say whom to ask: the invitation that `communityd invite` prints at the server, or --request FILE to carry a request there")
	}
	inv, err := Invitation(cfg, o.invitation)
	if err != nil {
		return err
	}
	show(out, cfg, id)
	ctx, cancel := context.WithTimeout(ctx, o.wait)
	defer cancel()
	began := time.Now()
	if _, err := Ask(ctx, cfg, id, inv, func(s string) { fmt.Fprintln(out, "the server says:", s) }, slog.New(slog.NewTextHandler(errOut, nil))); err != nil {
		if errors.Is(err, context.DeadlineExceeded) {
			return fmt.Errorf("nobody has approved this device within %v: enroll again; the code stays the same: %w", o.wait, err)
		}
		return err
	}
	fmt.Fprintf(out, "approved after %v\n", time.Since(began).Round(time.Second))
	return o.done(ctx, cfg, out)
}

// Ask asks the server of an invitation until there is an answer, and installs it.
func Ask(ctx context.Context, cfg *config.Gate, id *identity.Identity, inv wire.Invitation, says func(string), log *slog.Logger) (*enrol.Answer, error) {
	last := ""
	return app.Asker{Config: cfg, ID: id, Server: inv.Server, Pin: inv.Pin, Log: log, Says: func(s string) {
		if s != last {
			last = s
			says(s)
		}
	}}.Ask(ctx)
}

// again gets another certificate for a device that is enrolled.
func (o *options) again(ctx context.Context, cfg *config.Gate, id *identity.Identity, out, errOut io.Writer) error {
	show(out, cfg, id)
	ctx, cancel := context.WithTimeout(ctx, o.wait)
	defer cancel()
	trust, err := app.ReadTrust(cfg.Sync.Trust)
	if err != nil {
		return err
	}
	// The answer is believed by the keys; the broker needs no more trust than that.
	if _, err := (app.Asker{Config: cfg, ID: id, Server: cfg.Enrolled.Server, Trust: trust, Says: func(s string) { fmt.Fprintln(out, "the server says:", s) },
		Log: slog.New(slog.NewTextHandler(errOut, nil))}).Ask(ctx); err != nil {
		return err
	}
	fmt.Fprintln(out, "the certificate is renewed")
	return o.done(ctx, cfg, out)
}

// Invitation reads an invitation and compares it with the configuration.
func Invitation(cfg *config.Gate, text string) (wire.Invitation, error) {
	inv, err := wire.ParseInvitation(text)
	if err != nil {
		return inv, err
	}
	if inv.Community != cfg.Community || inv.Site != cfg.Site {
		return inv, fmt.Errorf("the invitation is to the community %s, site %s, but gate.yaml says %s, %s: write in gate.yaml\n    community: %s\n    site: %s",
			inv.Community, inv.Site, cfg.Community, cfg.Site, inv.Community, inv.Site)
	}
	if inv.Server == "" {
		return inv, errors.New("the invitation names no server: carry files (gatehouse enroll --request FILE)")
	}
	return inv, nil
}

// Keys opens the device's keys, or makes them; they belong to the daemon.
func Keys(cfg *config.Gate) (*identity.Identity, error) {
	if err := os.MkdirAll(cfg.State, 0o700); err != nil {
		return nil, cfg.Remedy(fmt.Errorf("cannot make the state folder: %w", err))
	}
	dir := filepath.Clean(cfg.KeyFile("."))
	id, err := identity.Open(dir, app.Name(cfg))
	return id, errors.Join(cfg.Remedy(err), cfg.OwnState())
}

// forget removes the device's own keys. The journal's next entries are signed by
// another device: that is a new epoch.
func forget(cfg *config.Gate) error {
	if err := app.AskEpoch(cfg, "the device's keys were made anew"); err != nil {
		return err
	}
	for _, f := range []string{"device.key", "device.age", config.FileTLS, "enrolment.json", "tls.next.key"} {
		if err := os.Remove(cfg.KeyFile(f)); err != nil && !errors.Is(err, fs.ErrNotExist) {
			return fmt.Errorf("cannot remove a key: %w", err)
		}
	}
	cfg.Enrolled = nil
	return nil
}

// write is the way without a network, first half.
func (o *options) write(cfg *config.Gate, id *identity.Identity, out io.Writer) error {
	q, err := app.EnrolRequest(cfg, id)
	if err != nil {
		return err
	}
	if err := q.Sign(id.Signer()); err != nil {
		return err
	}
	payload, err := wire.Encode(wire.EnrolMessage{V: wire.Version, Request: &q})
	if err == nil {
		err = os.WriteFile(o.request, append(payload, '\n'), 0o644)
	}
	if err != nil {
		return fmt.Errorf("cannot write the request: %w", err)
	}
	name := filepath.Base(o.request)
	fmt.Fprintf(out, "This device's code: %s\nCarry %s to the server, and there:\n    communityd gates approve %s/%s %s --request %s --out approval.json\nBring approval.json back:\n    gatehouse enroll --approval approval.json\n",
		wire.ShowCode(q.Code()), o.request, cfg.Site, cfg.Gate, wire.ShowCode(q.Code()), name)
	return nil
}

// install is the second half.
func (o *options) install(ctx context.Context, cfg *config.Gate, id *identity.Identity, out, errOut io.Writer) error {
	src, err := os.ReadFile(o.approval)
	if err != nil {
		return fmt.Errorf("cannot read the approval: %w", err)
	}
	var m wire.EnrolMessage
	if err := wire.Decode(src, &m); err != nil || len(m.Sealed) == 0 {
		return fmt.Errorf("%s holds no approval of `communityd gates approve --out` (%v)", o.approval, err)
	}
	pin := ""
	if o.invitation != "" {
		inv, err := wire.ParseInvitation(o.invitation)
		if err != nil {
			return err
		}
		pin = inv.Pin
	}
	q := wire.Enrol{Community: cfg.Community, Site: cfg.Site, Gate: cfg.Gate}
	a, err := enrol.Open(m.Sealed, &q, id.Open, pin, wire.Trust{})
	if err != nil {
		return err
	}
	if err := app.Install(cfg, a, slog.New(slog.NewTextHandler(errOut, nil))); err != nil {
		return err
	}
	trust, err := app.ReadTrust(cfg.KeyFile(config.FileTrust))
	if err != nil {
		return err
	}
	fmt.Fprintf(out, "approved by %s, pin %s\n", trust.Keys[0].ID, wire.ShowCode(wire.PinOf(trust.Keys[0].Public)))
	return o.done(ctx, cfg, out)
}

// approveLine is what is to be typed at the server.
func approveLine(cfg *config.Gate, code string) string {
	return fmt.Sprintf("communityd gates approve %s/%s %s", cfg.Site, cfg.Gate, code)
}

func show(out io.Writer, cfg *config.Gate, id *identity.Identity) {
	code := wire.ShowCode(wire.CodeOf(id.Signer().Public(), id.Recipient()))
	line := approveLine(cfg, code)
	fmt.Fprintf(out, "\nThis device's code:   %s\n\nAt the community server (the picture holds the same line):\n\n    %s\n\n", code, line)
	if err := qrtext.Print(out, line); err != nil {
		fmt.Fprintln(out, err)
	}
}

// done gives the service the gate's devices, and says how to go on.
func (o *options) done(ctx context.Context, cfg *config.Gate, out io.Writer) error {
	if err := setupcmd.Refresh(ctx, out, o.config, o.root); err != nil {
		fmt.Fprintf(out, "The service is not given the devices of gate.yaml yet (sudo gatehouse setup does it): %v\n", err)
	}
	_, err := fmt.Fprintf(out, "\nThis device is gate %s of site %s now. Start it, or start it again:\n    systemctl restart gatehouse\n", cfg.Gate, cfg.Site)
	return err
}
