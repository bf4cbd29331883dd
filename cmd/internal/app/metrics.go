package app

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/http"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/collectors"
	"github.com/prometheus/client_golang/prometheus/promhttp"

	"gatehouse/device"
	"gatehouse/device/board"
	"gatehouse/edge"
	"gatehouse/edge/journal"
	"gatehouse/edge/lane"
)

// metrics are what /metrics tells of a gate. Their names and labels are kept:
// the alert rules of operators name them. None has personal data in it.
type metrics struct {
	registry  *prometheus.Registry
	entries   *prometheus.CounterVec
	decisions *prometheus.CounterVec
	commit    prometheus.Histogram
	own       prometheus.Histogram
}

// From an SD card that is well to one that stalls.
var latencies = []float64{.0002, .0005, .001, .002, .005, .01, .02, .05, .1, .2, .5, 1, 2}

func newMetrics(a *App) *metrics {
	m := &metrics{
		registry: prometheus.NewRegistry(),
		entries: prometheus.NewCounterVec(prometheus.CounterOpts{Name: "gatehouse_entries_total",
			Help: "Journal entries written since the start, by kind."}, []string{"kind"}),
		decisions: prometheus.NewCounterVec(prometheus.CounterOpts{Name: "gatehouse_decisions_total",
			Help: "Decisions since the start, by lane and outcome."}, []string{"lane", "outcome"}),
		commit: prometheus.NewHistogram(prometheus.HistogramOpts{Name: "gatehouse_commit_seconds", Buckets: latencies,
			Help: "From handing an entry to the journal until it is durable."}),
		own: prometheus.NewHistogram(prometheus.HistogramOpts{Name: "gatehouse_decision_seconds", Buckets: latencies,
			Help: "From the last input (card, reading, answer) to the barrier's command, the commit in."}),
	}
	m.registry.MustRegister(m.entries, m.decisions, m.commit, m.own, &state{a: a},
		collectors.NewGoCollector(), collectors.NewProcessCollector(collectors.ProcessCollectorOpts{}))
	return m
}

func (m *metrics) timing(t lane.Timing) {
	if t.Own > 0 {
		m.own.Observe(t.Own.Seconds())
	}
}

// counting is the way to the journal for whoever writes entries.
type counting struct {
	*journal.Journal
	m *metrics
}

func (a *App) counted() counting { return counting{a.Journal, a.metrics} }

// Append counts what has become durable.
func (c counting) Append(ctx context.Context, e *edge.Entry, expect []edge.Expected) (uint64, error) {
	began := time.Now()
	seq, err := c.Journal.Append(ctx, e, expect)
	if err != nil {
		return seq, err
	}
	c.m.commit.Observe(time.Since(began).Seconds())
	c.m.entries.WithLabelValues(string(e.Kind)).Inc()
	if e.Kind == edge.KindDecision {
		c.m.decisions.WithLabelValues(e.Lane, string(e.Outcome)).Inc()
	}
	return seq, nil
}

// state is what is read when somebody asks.
type state struct{ a *App }

func desc(name, help string, labels ...string) *prometheus.Desc {
	return prometheus.NewDesc("gatehouse_"+name, help, labels, nil)
}

const healthyHelp = "1 when every lane, every passage and the journal make progress."

var (
	descInfo       = desc("info", "1, with the program's version and the rules in force.", "version", "site", "gate", "policy", "policy_hash")
	descHealthy    = desc("healthy", healthyHelp)
	descJournal    = desc("journal_entries", "Entries of this epoch.")
	descAcked      = desc("journal_acknowledged_entries", "Entries of this epoch that the server has receipted.")
	descConnected  = desc("sync_connected", "1 when there is a connection to the broker.")
	descReceipt    = desc("sync_last_receipt_timestamp_seconds", "When the last receipt came; absent when none has.")
	descRegistry   = desc("registry_version", "Version of the roster in force.")
	descPasses     = desc("registry_passes", "Passes that the gate knows.")
	descClock      = desc("clock_trusted", "1 when the wall time can be trusted, with the state of the clock.", "state")
	descDevice     = desc("device_up", "1 when a device works.", "serves", "driver", "state")
	descReads      = desc("device_reads_total", "Good frames, samples or commands.", "serves")
	descGarbled    = desc("device_garbled_total", "Frames refused.", "serves")
	descReopens    = desc("device_reopens_total", "Times a device was opened again.", "serves")
	descDegraded   = desc("lane_degraded", "1 for each part of a lane that does without.", "lane", "part")
	descClosed     = desc("lane_closed", "1 when the lane is closed.", "lane")
	descQueue      = desc("lane_queue", "Cards that wait behind the present one.", "lane")
	descParked     = desc("lane_parked", "Persons who stepped aside.", "lane")
	descFire       = desc("lane_fire", "1 while the fire panel holds the lane's passage open.", "lane")
	descTemp       = desc("board_temperature_celsius", "Temperature of the processor.")
	descThrottled  = desc("board_throttled", "1 for each reason why the board is throttled now; only those that the board tells.", "reason")
	descDiskFree   = desc("disk_free_bytes", "Free for the gate on the medium of its state.")
	descDiskSize   = desc("disk_size_bytes", "Size of that medium's file system.")
	descDiskErrors = desc("disk_errors_total", "Errors that the file system has counted.")
	descDiskWear   = desc("disk_wear_ratio", "Share of the medium's life that is used, in steps of 0.1; absent when it does not say.")
	descProblem    = desc("board_problem", "1 for each thing about the board that a person should see to.", "code")
)

// Describe lists what Collect gives.
func (s *state) Describe(c chan<- *prometheus.Desc) {
	for _, d := range []*prometheus.Desc{descInfo, descHealthy, descJournal, descAcked, descConnected, descReceipt, descRegistry, descPasses, descClock, descDevice, descReads,
		descGarbled, descReopens, descDegraded, descClosed, descQueue, descParked, descFire, descTemp, descThrottled, descDiskFree, descDiskSize, descDiskErrors, descDiskWear, descProblem} {
		c <- d
	}
}

// Collect reads the gate's state; nothing in it waits for a device.
func (s *state) Collect(c chan<- prometheus.Metric) {
	a := s.a
	gauge := func(d *prometheus.Desc, v float64, labels ...string) {
		c <- prometheus.MustNewConstMetric(d, prometheus.GaugeValue, v, labels...)
	}
	count := func(d *prometheus.Desc, v uint64, labels ...string) {
		c <- prometheus.MustNewConstMetric(d, prometheus.CounterValue, float64(v), labels...)
	}
	pol := a.Policies.Current()
	gauge(descInfo, 1, a.o.Version, a.cfg.Site, a.cfg.Gate, pol.ID(), pol.Hash())
	gauge(descHealthy, one(a.Alive() == nil))
	sync := a.SyncStatus()
	gauge(descJournal, float64(a.Journal.Size()))
	gauge(descAcked, float64(a.Journal.Acked()))
	gauge(descConnected, one(sync.Connected))
	if !sync.LastReceipt.IsZero() {
		gauge(descReceipt, float64(sync.LastReceipt.UnixMilli())/1000)
	}
	gauge(descRegistry, float64(a.Registry.Version()))
	if n, err := a.Registry.Counts(context.Background()); err == nil {
		gauge(descPasses, float64(n.Passes))
	}
	clk := a.Clock.Now().Clock
	gauge(descClock, one(clk.Trusted()), string(clk))
	for _, d := range a.Devices() {
		gauge(descDevice, one(d.State == device.StateOK || d.State == device.StateWarming), d.Serves, d.Driver, string(d.State))
		count(descReads, d.Reads, d.Serves)
		count(descGarbled, d.Garbled, d.Serves)
		count(descReopens, d.Reopens, d.Serves)
	}
	for _, v := range a.Lanes.Views() {
		for _, part := range v.Degraded {
			gauge(descDegraded, 1, v.Lane, part)
		}
		gauge(descClosed, one(v.State == edge.LaneClosed), v.Lane)
		gauge(descQueue, float64(v.Queue), v.Lane)
		gauge(descParked, float64(len(v.Parked)), v.Lane)
		gauge(descFire, one(v.Fire), v.Lane)
	}
	l := a.board.last.Load()
	if l == nil {
		return
	}
	if l.HasTemp {
		gauge(descTemp, l.Temperature)
	}
	if l.HasThrottle {
		for _, r := range []struct {
			bit  board.Throttling
			name string
		}{{board.UnderVoltage, "under_voltage"}, {board.FrequencyCapped, "frequency_capped"}, {board.Throttled, "throttled"}, {board.SoftLimit, "soft_temperature_limit"}} {
			if r.bit == board.UnderVoltage || !l.OnlyVoltage {
				gauge(descThrottled, one(l.Throttling&r.bit != 0), r.name)
			}
		}
	}
	gauge(descDiskFree, float64(l.Free))
	gauge(descDiskSize, float64(l.Size))
	count(descDiskErrors, l.Errors)
	if l.Wear > 0 {
		gauge(descDiskWear, float64(l.Wear)/100)
	}
	for _, p := range l.Problems() {
		gauge(descProblem, 1, p.Code)
	}
}

func one(b bool) float64 {
	if b {
		return 1
	}
	return 0
}

// healthHandler serves /metrics and /healthz.
func (a *App) healthHandler() http.Handler {
	mux := http.NewServeMux()
	mux.Handle("GET /metrics", promhttp.HandlerFor(a.metrics.registry, promhttp.HandlerOpts{MaxRequestsInFlight: 2, Timeout: 10 * time.Second}))
	mux.HandleFunc("GET /healthz", func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Content-Type", "text/plain; charset=utf-8")
		if err := a.Alive(); err != nil {
			w.WriteHeader(http.StatusServiceUnavailable)
			fmt.Fprintln(w, err)
			return
		}
		fmt.Fprintln(w, "ok")
	})
	return mux
}

// serveHealth listens until ctx is done. A port that is taken is no reason to
// keep the gate shut: it is said, and tried again.
func (a *App) serveHealth(ctx context.Context) error {
	for {
		err := a.listenHealth(ctx)
		if ctx.Err() != nil {
			return ctx.Err()
		}
		a.log.Error("cannot serve the metrics", "listen", a.cfg.Metrics.Listen, "err", err)
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-time.After(time.Minute):
		}
	}
}

func (a *App) listenHealth(ctx context.Context) error {
	l, err := (&net.ListenConfig{}).Listen(ctx, "tcp", a.cfg.Metrics.Listen)
	if err != nil {
		return err
	}
	srv := &http.Server{Handler: a.healthHandler(), ReadHeaderTimeout: 5 * time.Second, ReadTimeout: 10 * time.Second, WriteTimeout: 20 * time.Second, IdleTimeout: time.Minute, MaxHeaderBytes: 8 << 10}
	stop := context.AfterFunc(ctx, func() { _ = srv.Close() })
	defer stop()
	if err := srv.Serve(l); !errors.Is(err, http.ErrServerClosed) {
		return err
	}
	return nil
}
