package app

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/promhttp"
	"golang.org/x/sys/unix"

	"gatehouse/cmd/internal/config"
	"gatehouse/edge"
	"gatehouse/edge/lane"
	"gatehouse/edge/policy"
	"gatehouse/edge/text"
)

// ReadOnly reports whether a gate could not be built because its state is on a
// medium that can only be read: then SafeSide is what it can still do.
func ReadOnly(err error) bool { return errors.Is(err, unix.EROFS) }

const (
	mediumCheck = 2 * time.Second
	keptAtMost  = 1000 // entries
)

// SafeSide runs the doors of a gate that cannot record anything, until its medium
// can be written or ctx is done. Nobody passes unrecorded, so every card is refused
// with the signal of a fault; fire and egress, which act first and are journalled
// after, go on as ever. kept is what they did, for the journal of the gate that
// follows.
func SafeSide(ctx context.Context, cfg *config.Gate, o Options, why error) (kept []*edge.Entry, err error) {
	a := &App{cfg: cfg, o: o, log: o.Log.With("site", cfg.Site, "gate", cfg.Gate)}
	defer func() { err = errors.Join(err, a.closeDevices()) }()
	if a.text, err = text.New(); err != nil {
		return nil, err
	}
	if err := a.openClock(); err != nil {
		return nil, err
	}
	pol, err := ownPolicy(cfg, a.log)
	if err != nil {
		return nil, err
	}
	j := &refusing{why: why, seen: map[*edge.Entry]bool{}}
	if err := a.buildLanes(lane.Deps{Registry: nobody{why}, Journal: j, Policy: func() *policy.Policy { return pol }, Clock: a.Clock, IDs: lane.FreshIDs(), Log: a.log,
		CardHash: func(edge.Credential) string { return "" }}); err != nil {
		return nil, err
	}
	a.log.Error("the gate is on the safe side: it lets nobody in, and opens for fire and exit buttons only", "err", why)
	ctx, writable := context.WithCancel(ctx)
	defer writable()
	stages := []stage{
		{"medium", func(ctx context.Context) error {
			t := time.NewTicker(mediumCheck)
			defer t.Stop()
			for {
				select {
				case <-ctx.Done():
					return ctx.Err()
				case <-t.C:
				}
				if !readOnly(cfg.State) {
					a.log.Info("the medium can be written again; the gate starts")
					writable()
				}
			}
		}, nil},
		{"page", func(ctx context.Context) error { return a.serveSafeSide(ctx, why) }, nil},
	}
	if n := o.Notifier; n != nil {
		stages = append(stages, stage{"watchdog", func(ctx context.Context) error {
			if err := n.Watchdog(ctx, a.doorsAlive); err != nil {
				return err
			}
			<-ctx.Done()
			return nil
		}, nil})
	}
	stages = append(stages, stage{"devices", func(ctx context.Context) error { <-ctx.Done(); return nil }, a.closeDevices}, stage{"lanes", a.runLanes, nil})
	err = runStages(ctx, a.log, stages, patience, func() {
		if n := o.Notifier; n != nil {
			n.Ready("SAFE SIDE, nobody is let in: " + why.Error())
		}
	})
	return j.kept, err
}

// readOnly reports whether the state folder is on a medium that can only be read.
func readOnly(dir string) bool {
	f, err := os.OpenFile(filepath.Join(dir, daemonLock), os.O_RDWR|os.O_CREATE, 0o600)
	if err != nil {
		return true
	}
	return f.Close() != nil
}

// ownPolicy is the policy of the gate's files: those that the server sent are in the
// registry.
func ownPolicy(cfg *config.Gate, log *slog.Logger) (*policy.Policy, error) {
	p := newPolicies(cfg, nil, log)
	layers, err := p.merge(nil)
	if err != nil {
		return nil, err
	}
	return loadLayers(layers)
}

// refusing stands for a journal that cannot be written. What has happened already is
// kept in memory, to be recorded late rather than never.
type refusing struct {
	why  error
	mu   sync.Mutex
	seen map[*edge.Entry]bool
	kept []*edge.Entry
}

func (j *refusing) Append(_ context.Context, e *edge.Entry, _ []edge.Expected) (uint64, error) {
	j.mu.Lock()
	defer j.mu.Unlock()
	// Whoever has something to record that has happened tries again with the same entry.
	if e.Kind != edge.KindDecision && !j.seen[e] && len(j.kept) < keptAtMost {
		j.seen[e] = true
		j.kept = append(j.kept, e)
	}
	return 0, j.why
}

func (j *refusing) Cells(context.Context, []edge.Cell) ([]edge.CellValue, error) { return nil, j.why }
func (j *refusing) Size() uint64                                                 { return 0 }

// nobody stands for a registry that cannot be opened.
type nobody struct{ why error }

func (n nobody) Lookup(context.Context, edge.Credential) (edge.Pass, bool, error) {
	return edge.Pass{}, false, n.why
}

func (n nobody) Pass(context.Context, edge.PassID) (edge.Pass, bool, error) {
	return edge.Pass{}, false, n.why
}

func (n nobody) Household(context.Context, edge.HouseholdID) (edge.Household, bool, error) {
	return edge.Household{}, false, n.why
}

func (n nobody) Version() int64 { return 0 }

// serveSafeSide answers whoever opens the guard's page, or asks for the gate's health,
// with what is wrong and what to do. It is no reason to end when it cannot.
func (a *App) serveSafeSide(ctx context.Context, why error) error {
	var wg sync.WaitGroup
	serve := func(what, listen string, h http.Handler, secure *tls.Config) {
		if listen == "" {
			return
		}
		wg.Go(func() {
			l, err := (&net.ListenConfig{}).Listen(ctx, "tcp", listen)
			if err != nil {
				a.log.Error("cannot say on the network what is wrong", "where", what, "err", err)
				return
			}
			if secure != nil {
				l = tls.NewListener(l, secure)
			}
			s := &http.Server{Handler: h, ReadHeaderTimeout: 5 * time.Second, ReadTimeout: 10 * time.Second, WriteTimeout: 20 * time.Second, IdleTimeout: time.Minute,
				MaxHeaderBytes: 8 << 10, ErrorLog: slog.NewLogLogger(slog.DiscardHandler, slog.LevelDebug)}
			stop := context.AfterFunc(ctx, func() { _ = s.Close() })
			defer stop()
			if err := s.Serve(l); !errors.Is(err, http.ErrServerClosed) {
				a.log.Error("cannot say on the network what is wrong", "where", what, "err", err)
			}
		})
	}
	serve("metrics", a.cfg.Metrics.Listen, safeSideHealth(why), nil)
	page := http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		plainly(w, a.safeSideText())
	})
	certs, err := a.certificates()
	switch {
	case err != nil:
		a.log.Error("cannot say on the guard's page what is wrong", "err", err)
	case certs == nil:
		serve("console", a.cfg.Console.Listen, page, nil)
	default:
		serve("console", a.cfg.Console.Listen, page, &tls.Config{MinVersion: tls.VersionTLS12, GetCertificate: certs.Get})
	}
	wg.Wait()
	<-ctx.Done()
	return ctx.Err()
}

// safeSideText is for the guard: in the site's language, and in English or Chinese.
func (a *App) safeSideText() string {
	var b strings.Builder
	langs := []string{a.text.For(a.cfg.Language).Language()}
	for _, l := range []string{"zh-Hans", "en"} {
		if l != langs[0] {
			langs = append(langs, l)
		}
	}
	for _, l := range langs[:2] {
		p := a.text.For(l)
		fmt.Fprintf(&b, "%s\n\n", p.T("safeside.title", "Gate", a.cfg.Name))
		for _, id := range []string{"why", "exits", "remedy"} {
			fmt.Fprintf(&b, "%s\n\n", p.T("safeside."+id))
		}
		b.WriteByte('\n')
	}
	return b.String()
}

func plainly(w http.ResponseWriter, text string) {
	h := w.Header()
	h.Set("Content-Type", "text/plain; charset=utf-8")
	h.Set("Content-Security-Policy", "default-src 'none'")
	h.Set("X-Content-Type-Options", "nosniff")
	h.Set("Cache-Control", "no-store")
	h.Set("Refresh", "10") // the page comes back with the gate
	w.WriteHeader(http.StatusServiceUnavailable)
	fmt.Fprint(w, text)
}

func safeSideHealth(why error) http.Handler {
	r := prometheus.NewRegistry()
	r.MustRegister(prometheus.NewGaugeFunc(prometheus.GaugeOpts{Name: "gatehouse_healthy", Help: healthyHelp}, func() float64 { return 0 }))
	m := http.NewServeMux()
	m.Handle("GET /metrics", promhttp.HandlerFor(r, promhttp.HandlerOpts{}))
	m.HandleFunc("GET /healthz", func(w http.ResponseWriter, _ *http.Request) { plainly(w, why.Error()+"\n") })
	return m
}
