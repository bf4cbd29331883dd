package app

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"iter"
	"path/filepath"

	"gatehouse/edge"
	"gatehouse/edge/registry"
	"gatehouse/sync/downlink"
)

// newDownlink connects what the server sends with what it changes.
func newDownlink(a *App, l *link, trust *trusted) (*downlink.Downlink, error) {
	return downlink.New(downlink.Config{Site: a.cfg.Site, Gate: a.cfg.Gate, Dir: filepath.Join(a.cfg.State, "downlink"), Trust: trust.get, SetTrust: trust.set, Nonces: l.up.Nonces,
		Open: a.Identity.Open, Clock: a.Clock, SetServer: a.Clock.SetServer, Record: a.record, Registry: replaceable{a.Registry}, Policies: a.Policies, Peers: a.Journal,
		Commands: commands{a}}, l.client, a.log.With("part", "sync"))
}

// replaceable is the registry as the downlink sees it.
type replaceable struct{ *registry.Registry }

// Replace puts a whole registry in the place of the old one.
func (r replaceable) Replace(ctx context.Context, version int64, rows iter.Seq2[edge.RosterRow, error], contains []edge.EntryRef) error {
	_, err := r.ApplySnapshot(ctx, version, rows, contains)
	return err
}

// commands carries out what the server orders, by name.
type commands struct{ a *App }

func (c commands) Do(ctx context.Context, cmd downlink.Command) (string, error) {
	switch cmd.Name {
	case "plan":
		var args struct {
			edge.PlanFacts
			Off bool `json:"off"`
		}
		if err := json.Unmarshal(cmd.Args, &args); err != nil {
			return "", fmt.Errorf("cannot read the command's arguments: %w", err)
		}
		if args.Off == (args.Name != "") {
			return "", errors.New(`say which plan is in force, {"name": "..."}, or that none is, {"off": true}`)
		}
		if args.Off {
			return c.a.plans.off()
		}
		return c.a.plans.on(args.PlanFacts)
	case "purge":
		// The daemon does it each hour: an order is for whoever wants to see it done.
		n, err := c.a.Journal.Retain(ctx)
		text := fmt.Sprintf("%d entries past their retention of %v destroyed", n, c.a.cfg.Journal.Retention)
		if !c.a.Clock.Now().Clock.Trusted() {
			text += "; nobody vouches for the gate's clock: what is past it by the earliest time that it can be now"
		}
		return text, err
	case "reload":
		return "the policy file was read again", c.a.Policies.Reload(ctx)
	case "close", "open":
		var args struct {
			Lane string `json:"lane"`
		}
		if err := json.Unmarshal(cmd.Args, &args); err != nil {
			return "", fmt.Errorf("cannot read the command's arguments: %w", err)
		}
		return "lane " + args.Lane + ": " + cmd.Name, c.a.Lanes.Do(ctx, edge.Action{Kind: edge.ActionKind(cmd.Name), Lane: args.Lane, Actor: cmd.Actor})
	}
	return "", fmt.Errorf("this gate knows no command %q", cmd.Name)
}
