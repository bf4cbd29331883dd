package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"iter"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"time"

	"golang.org/x/sync/errgroup"

	"gatehouse/cmd/internal/app"
	"gatehouse/cmd/internal/estate"
	"gatehouse/edge"
	"gatehouse/edge/bundle"
	"gatehouse/edge/identity"
	firmwareconfig "gatehouse/firmware-config"
	"gatehouse/sync/broker"
	"gatehouse/sync/community"
	"gatehouse/sync/mqtt"
	"gatehouse/sync/wire"
)

const (
	realm    = "lakeside"
	siteName = "east-garden"
)

// gateNames are the gates with hardware.
var gateNames = []string{"east", "west", "north", "south"}

func gateName(i int) string {
	if i < len(gateNames) {
		return gateNames[i]
	}
	return fmt.Sprintf("gate%d", i+1)
}

// newEstate is who lives there.
func newEstate(seed uint64, now time.Time) *estate.Estate {
	return estate.New(seed, estate.Options{Residents: 2000, Households: 700, Now: now, Incidents: 0.18})
}

// runDemo is the whole of it, in order: broker, server, roster and policy,
// gates, people, outage, end, drain, verification.
func runDemo(ctx context.Context, s settings, scr *screen) (_ *summary, err error) {
	dir := s.dir
	if dir == "" {
		if dir, err = os.MkdirTemp("", "gatehouse-demo-"); err != nil {
			return nil, fmt.Errorf("cannot make a folder: %w", err)
		}
		defer os.RemoveAll(dir)
	} else if err := os.MkdirAll(dir, 0o700); err != nil {
		return nil, fmt.Errorf("cannot make the folder: %w", err)
	}
	log := slog.New(slog.NewTextHandler(io.Discard, nil))
	if s.verbose {
		log = slog.New(slog.NewTextHandler(os.Stderr, nil))
	}
	began := time.Now()
	est := newEstate(s.seed, began)

	br, err := broker.Start(filepath.Join(dir, "broker"), "127.0.0.1:0")
	if err != nil {
		return nil, fmt.Errorf("cannot start the broker: %w", err)
	}
	defer br.Stop()

	srv, err := startServer(ctx, dir, br.URL(), est, s.policy, log)
	if err != nil {
		return nil, err
	}
	defer srv.stop()

	t := newTally()
	w := newWorld(dir, br.URL(), s, est, log, scr, t)
	defer w.close()
	if err := w.build(ctx, srv); err != nil {
		return nil, err
	}
	parts, pctx := errgroup.WithContext(ctx)
	stopGates := w.run(parts, pctx)
	defer stopGates()
	if err := w.waitReady(pctx); err != nil {
		stopGates()
		return nil, errors.Join(err, parts.Wait())
	}
	scr.line("%s after the start: %d people of %d households are on the roster of %d gates", time.Since(began).Round(time.Millisecond), len(est.People), len(est.Households), len(w.gates))
	var north *mortal
	if s.mortal {
		if north, err = newMortal(ctx, dir, br.URL(), srv.trust, s.seed, est, srv, scr); err != nil {
			return nil, err
		}
		defer north.close()
		defer north.signal(syscall.SIGKILL)
		if err := north.start(ctx); err != nil {
			return nil, err
		}
	}
	rules := w.gates[0].app.Policies.Current()
	scr.line("  rules: %s beneath %s, from the server, signed by both", rules.ID(), rules.Superior().ID())
	for _, g := range w.gates {
		scr.line("  the guard's page of gate %-6s %s (number 1, PIN %s)", g.name, g.app.Console.URL(), g.pin)
	}

	streetCtx, stopStreet := context.WithTimeout(pctx, s.length)
	defer stopStreet()
	started := time.Now()
	var people sync.WaitGroup
	w.open(streetCtx, &people)
	watch, stopWatch := context.WithCancel(pctx)
	defer stopWatch()
	var watchers sync.WaitGroup
	w.watch(watch, &watchers)

	if s.outage > 0 {
		people.Go(func() {
			if !sleep(streetCtx, (s.length-s.outage)*2/5) {
				return
			}
			scr.line("--- the broker goes away for %v; the gates decide on ---", s.outage)
			br.Stop()
			sleep(streetCtx, s.outage)
			if err := br.Restart(); err != nil {
				scr.line("--- the broker does not come back: %v ---", err)
				return
			}
			scr.line("--- the broker is back; the backlog drains ---")
		})
	}
	if north != nil {
		north.come(streetCtx, &people)
		people.Go(func() {
			if err := north.suffer(streetCtx, s.length, s.back); err != nil && streetCtx.Err() == nil {
				scr.line("--- the north gate: %v ---", err)
			}
		})
	}
	people.Wait()
	took := time.Since(started)
	if err := ctx.Err(); err != nil {
		return nil, err
	}
	scr.line("--- everybody goes home; waiting until the server has everything ---")
	// Whoever is in a passage now still leaves an entry behind.
	sleep(pctx, 3*time.Second)
	drain := time.Now()
	w.waitDrained(pctx, 60*time.Second)
	drained := time.Since(drain)
	stopWatch()
	watchers.Wait()
	if north != nil {
		for end := time.Now().Add(60 * time.Second); time.Now().Before(end); {
			if s := north.state(); s.Size > 0 && s.Acked == s.Size {
				break
			}
			sleep(pctx, 100*time.Millisecond)
		}
	}
	stopGates()
	if err := parts.Wait(); err != nil && !errors.Is(err, context.Canceled) {
		return nil, err
	}
	sum := t.finish(took)
	sum.Seed, sum.Drain = s.seed, drained.Seconds()
	if err := w.verify(context.WithoutCancel(ctx), srv, sum); err != nil || north == nil {
		return sum, err
	}
	return sum, north.verify(context.WithoutCancel(ctx), srv, sum)
}

// server is the community server with its connection.
type server struct {
	*community.Server
	trust string // file
	stop  func()
}

func startServer(ctx context.Context, dir, url string, est *estate.Estate, policyName string, log *slog.Logger) (*server, error) {
	id, err := identity.Open(filepath.Join(dir, "server", "keys"), realm+"/server")
	if err != nil {
		return nil, err
	}
	srv, err := community.Open(ctx, filepath.Join(dir, "server", "community.db"), community.Config{Community: realm, Signer: id.Signer(), Log: log.With("part", "community")})
	if err != nil {
		return nil, err
	}
	if _, err := srv.ImportRoster(ctx, siteName, rows(est), community.ImportOptions{MaxGone: 1}); err != nil {
		return nil, errors.Join(err, srv.Close())
	}
	trust, err := publishRules(ctx, srv, dir, id.Signer(), policyName)
	if err != nil {
		return nil, errors.Join(err, srv.Close())
	}
	client, err := mqtt.New(mqtt.Config{URL: url, ClientID: "community", MinBackoff: 100 * time.Millisecond, MaxBackoff: time.Second}, log.With("part", "community"))
	if err != nil {
		return nil, errors.Join(err, srv.Close())
	}
	srv.Attach(client)
	// A gate that asks before the server listens asks again, but only after a
	// while: the demo need not wait for that.
	listens := make(chan struct{})
	once := sync.OnceFunc(func() { close(listens) })
	client.OnConnect(func(context.Context) { once() })
	sctx, cancel := context.WithCancel(context.WithoutCancel(ctx))
	var wg sync.WaitGroup
	wg.Go(func() { _ = client.Run(sctx) })
	wg.Go(func() { _ = srv.Run(sctx) })
	select {
	case <-listens:
	case <-time.After(20 * time.Second):
		log.Warn("the community server has no connection to the broker yet")
	case <-ctx.Done():
	}
	return &server{Server: srv, trust: trust, stop: sync.OnceFunc(func() {
		cancel()
		wg.Wait()
		_ = srv.Close()
	})}, nil
}

// publishRules publishes the city's policy and the estate's beneath it, both with
// the community's and the city's signature, as the city asks for. It gives the
// file of the keys that gates trust.
func publishRules(ctx context.Context, srv *community.Server, dir string, own edge.Signer, policyName string) (trust string, err error) {
	city, err := identity.Open(filepath.Join(dir, "city", "keys"), "city.example")
	if err != nil {
		return "", err
	}
	for _, p := range []struct{ name, site string }{{"city.yaml", bundle.Everywhere}, {policyName, siteName}} {
		src, err := firmwareconfig.Samples.ReadFile("policies/" + p.name)
		if err != nil {
			return "", fmt.Errorf("no sample policy is called %s: %w", p.name, err)
		}
		sealed, err := bundle.Seal(realm, p.site, time.Now().UnixMilli(), p.name, src, own)
		if err == nil {
			sealed, err = bundle.Countersign(sealed, city.Signer())
		}
		if err == nil {
			err = srv.PublishSigned(ctx, siteName, p.name, sealed)
		}
		if err != nil {
			return "", fmt.Errorf("cannot publish the policy: %w", err)
		}
	}
	server, err1 := app.TrustLine(own)
	above, err2 := app.TrustLine(city.Signer())
	if err := errors.Join(err1, err2); err != nil {
		return "", err
	}
	trust = filepath.Join(dir, "trust.txt")
	return trust, os.WriteFile(trust, fmt.Appendf(nil, "%s\n%s %s\n", server, above, wire.PolicyOf("city")), 0o600)
}

func rows(est *estate.Estate) iter.Seq2[edge.RosterRow, error] {
	return func(yield func(edge.RosterRow, error) bool) {
		for _, r := range est.Rows() {
			if !yield(r, nil) {
				return
			}
		}
	}
}

// verify holds what the server has against what the gates journalled.
func (w *world) verify(ctx context.Context, srv *server, sum *summary) error {
	counts, err := srv.Counts(ctx, siteName, "")
	if err != nil {
		return err
	}
	for i := range sum.Gates {
		g := &sum.Gates[i]
		for _, c := range counts {
			if c.Gate == g.Gate {
				g.Stored += c.Stored
				g.Duplicate += c.Duplicated
				g.Missing += c.Missing
			}
		}
		if g.Journal > g.Stored {
			g.Missing += g.Journal - g.Stored
		}
		sum.Missing += g.Missing
		sum.Duplicated += g.Duplicate
	}
	sum.Repeated = srv.Repeated()
	found, err := srv.Verify(ctx, siteName, "")
	if err != nil {
		return err
	}
	for _, f := range found {
		sum.Findings = append(sum.Findings, strings.TrimSpace(fmt.Sprintf("%s/%s epoch %s entry %d: %s", f.Site, f.Gate, f.Epoch, f.Seq, f.Text)))
	}
	return nil
}
