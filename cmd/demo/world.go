package main

import (
	"bytes"
	"context"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"text/template"
	"time"

	"golang.org/x/sync/errgroup"
	"periph.io/x/conn/v3/gpio"

	"gatehouse/cmd/internal/app"
	"gatehouse/cmd/internal/config"
	"gatehouse/cmd/internal/estate"
	"gatehouse/cmd/internal/version"
	"gatehouse/device"
	"gatehouse/device/sim"
	"gatehouse/edge"
	"gatehouse/edge/console/accounts"
	firmwareconfig "gatehouse/firmware-config"
)

// world is the estate's gates with the far side of their hardware.
type world struct {
	dir, url string
	set      settings
	est      *estate.Estate
	street   *street
	log      *slog.Logger
	scr      *screen
	tally    *tally
	gates    []*gate
	closers  []func()
}

// gate is one gate with its emulated hardware.
type gate struct {
	name  string
	app   *app.App
	cfg   *config.Gate
	o     app.Options
	rigs  []rig
	runs  []func(ctx context.Context) error // emulators
	desk  bool
	pin   string // of the account that looks at its page
	ready chan struct{}
}

func newWorld(dir, url string, s settings, est *estate.Estate, log *slog.Logger, scr *screen, t *tally) *world {
	return &world{dir: dir, url: url, set: s, est: est, street: newStreet(est, s.seed), log: log, scr: scr, tally: t}
}

func (w *world) close() {
	for i := len(w.closers) - 1; i >= 0; i-- {
		w.closers[i]()
	}
}

// configuration is the gate.yaml that the demo writes, in the words of the sample.
var configuration = template.Must(template.New("gate.yaml").Parse(`# Written by the demo.
community: {{.Realm}}
site: {{.Site}}
gate: {{.Gate}}
name: {{.Name}}
area: main
timezone: {{.Zone}}
state: state
policy: {{.Policy}}
keys: {site: {{.SiteKey}}}
sync:
  url: {{.URL}}
  trust: {{.Trust}}
  batch_age: 200ms
  resend_after: 3s
console: {listen: 127.0.0.1:{{.Port}}{{if not .Secure}}, plain: true{{end}}}
passages:
{{- range .Passages}}
  - name: {{.}}
{{- if $.Desk}}
    barrier: none
    open_for: {{$.Patience}}
{{- else}}
    barrier: {driver: relay, pin: {{.}}-BARRIER, pulse: 400ms}
    beam: {driver: gpio, pin: {{.}}-BEAM, active: low, pull: up, debounce: 10ms}
    open_for: {{$.Open}}
{{- end}}
{{- end}}
lanes:
{{- range .Lanes}}
  - name: {{.Name}}
    label: {{.Label}}
    passage: {{.Passage}}
    direction: {{.Dir}}
    refer_timeout: {{$.Patience}}
    presentation_timeout: {{$.Patience}}
    measure_timeout: 4s
{{- if $.Desk}}
    scanner: console
    thermometer: typed
{{- else}}
    scanner: {{.Scanner}}
    thermometer: {{.Thermometer}}
    indicator: {driver: lamps, go: {{.Name}}-GO, stop: {{.Name}}-STOP, wait: {{.Name}}-WAIT}
{{- end}}
{{- end}}
`))

// morning names a zone in which it is between nine and ten in the morning now:
// the estate has a curfew, and a demo is watched at any hour.
func morning(now time.Time) string {
	east := 9 - now.UTC().Hour()
	if east > 14 {
		east -= 24
	}
	if east < -12 {
		east += 24
	}
	// The signs of these names are the wrong way round, by POSIX.
	return fmt.Sprintf("Etc/GMT%+d", -east)
}

type laneSpec struct {
	Name, Label, Passage string
	Dir                  device.Direction
	Scanner, Thermometer string // their configs
}

// build writes the configurations, makes the hardware's far side, and builds the
// gates as "gatehouse run" does.
func (w *world) build(ctx context.Context, srv *server) error {
	siteKey := filepath.Join(w.dir, "site.key")
	if _, err := app.SiteKeys(siteKey, true); err != nil {
		return err
	}
	// In force until the server's policies arrive.
	pol, err := firmwareconfig.Samples.ReadFile("policies/normal-times.yaml")
	if err != nil {
		return err
	}
	for i := range w.set.gates + 1 {
		g := &gate{name: gateName(i)}
		title := strings.ToUpper(g.name[:1]) + g.name[1:] + " gate"
		passages := []string{g.name}
		if i%2 == 1 {
			// Every second gate has one opening for both ways: its lanes take turns.
			passages = []string{g.name + "-in", g.name + "-out"}
		}
		if i == w.set.gates {
			g.name, g.desk, title, passages = "side", true, "Side entrance", []string{"side"}
		}
		lanes := []laneSpec{
			{Name: g.name + "-in", Label: title + ", in", Passage: passages[0], Dir: device.In},
			{Name: g.name + "-out", Label: title + ", out", Passage: passages[len(passages)-1], Dir: device.Out}}
		dir := filepath.Join(w.dir, g.name)
		if err := os.MkdirAll(dir, 0o700); err != nil {
			return err
		}
		board, bench := sim.NewPins(), sim.NewBench()
		w.closers = append(w.closers, func() { _ = bench.Close() })
		if !g.desk {
			for k := range lanes {
				l := &lanes[k]
				if err := w.hardware(g, l, 2*i+k, dir, board, bench, w.set.seed*100+uint64(i*10+k)); err != nil {
					return fmt.Errorf("cannot make the hardware of lane %s: %w", l.Name, err)
				}
			}
			for _, p := range passages {
				board.Pin(p + "-BEAM").Drive(gpio.High)
			}
		}
		port := 0
		if w.set.console > 0 {
			port = w.set.console + i
		}
		var b bytes.Buffer
		if err := configuration.Execute(&b, map[string]any{"Realm": realm, "Site": siteName, "Gate": g.name, "Name": title, "Policy": "policy.yaml", "SiteKey": siteKey,
			"Zone": morning(time.Now()), "URL": w.url, "Trust": srv.trust, "Port": port, "Passages": passages, "Lanes": lanes, "Desk": g.desk, "Dir": dir,
			"Secure": w.set.secure, "Patience": w.set.patience, "Open": w.set.open}); err != nil {
			return err
		}
		path := filepath.Join(dir, "gate.yaml")
		if err := os.WriteFile(path, b.Bytes(), 0o600); err != nil {
			return err
		}
		if err := os.WriteFile(filepath.Join(dir, "policy.yaml"), pol, 0o600); err != nil {
			return err
		}
		if g.cfg, err = config.Load(path); err != nil {
			return err
		}
		g.o = app.Options{Version: version.String(), Log: w.log, TrustClock: true, Pins: board.Open, Edges: bench.Edges, Inputs: bench.Inputs, I2C: bench.I2C, Timings: w.tally.timing}
		if err := g.build(ctx); err != nil {
			return err
		}
		// A PIN of this run: there is no default one anywhere.
		g.pin = fmt.Sprintf("%08d", 10_000_000+rand.IntN(80_000_000))
		if _, _, err := g.app.People.Add(ctx, "system", accounts.Person{Name: "Demo", Role: accounts.Manager}, g.pin); err != nil {
			return fmt.Errorf("cannot make the demo's account: %w", err)
		}
		id := g.app.Identity
		if err := srv.RegisterGate(ctx, siteName, g.name, id.Signer().Public(), id.Recipient(), "the demo"); err != nil {
			return err
		}
		w.gates = append(w.gates, g)
	}
	return nil
}

// build makes the gate's daemon; once more, after the one before has ended.
func (g *gate) build(ctx context.Context) (err error) {
	ready := make(chan struct{})
	o := g.o
	o.Ready = func(*app.App) { close(ready) }
	g.ready = ready
	g.app, err = app.Build(ctx, g.cfg, o)
	return err
}

// hardware makes the far side of the n-th lane: a reader and a thermometer, behind
// pseudo terminals or in memory, lamps, a barrier and a beam on lines in memory.
func (w *world) hardware(g *gate, l *laneSpec, n int, dir string, board *sim.Pins, bench *sim.Bench, seed uint64) error {
	var reader sim.CardReader
	var err error
	if l.Scanner, reader, err = bench.Reader(w.set.readers[n%len(w.set.readers)], dir, l.Name, seed); err != nil {
		return err
	}
	room := sim.NewThermal(24, seed)
	var thermometer func(context.Context) error
	if l.Thermometer, thermometer, err = bench.Thermometer(w.set.thermometers[n%len(w.set.thermometers)], dir, l.Name, room, seed); err != nil {
		return err
	}
	tags := make(chan sim.EM4100, 1)
	g.runs = append(g.runs, func(ctx context.Context) error { return reader.Run(ctx, tags) })
	if thermometer != nil {
		g.runs = append(g.runs, thermometer)
	}

	lamp := map[device.Signal]*sim.Pin{device.SignalGo: board.Pin(l.Name + "-GO"), device.SignalStop: board.Pin(l.Name + "-STOP"), device.SignalWait: board.Pin(l.Name + "-WAIT")}
	var mu sync.Mutex
	changed := make(chan struct{})
	for _, p := range lamp {
		p.OnMove(func(sim.Move) {
			mu.Lock()
			close(changed)
			changed = make(chan struct{})
			mu.Unlock()
		})
	}
	beam := board.Pin(l.Passage + "-BEAM")
	g.rigs = append(g.rigs, rig{
		gate: g.name, lane: l.Name, dir: l.Dir,
		show: func(card [5]byte) {
			select {
			case tags <- sim.EM4100(card):
			default: // the last one is still in the field
			}
		},
		stand: func(skin float64) { room.StepUp(device.Celsius(skin)) },
		leave: room.Leave,
		lamps: func() device.Signal {
			for _, s := range []device.Signal{device.SignalGo, device.SignalStop, device.SignalWait} {
				if lamp[s].IsOutput() && lamp[s].Level() == gpio.High {
					return s
				}
			}
			return device.SignalIdle
		},
		changed: func() <-chan struct{} {
			mu.Lock()
			defer mu.Unlock()
			return changed
		},
		walk: func() {
			beam.Drive(gpio.Low)
			time.Sleep(130 * time.Millisecond)
			beam.Drive(gpio.High)
		},
	})
	return nil
}

// emulate starts the far side of the hardware.
func (w *world) emulate(ctx context.Context) (stop func()) {
	ctx, cancel := context.WithCancel(context.WithoutCancel(ctx))
	var hardware sync.WaitGroup
	for _, g := range w.gates {
		for _, r := range g.runs {
			hardware.Go(func() { _ = r(ctx) })
		}
	}
	return func() {
		cancel()
		hardware.Wait()
	}
}

// run starts the emulators and the gates; the result stops them, the gates first.
func (w *world) run(parts *errgroup.Group, ctx context.Context) (stop func()) {
	stopHardware := w.emulate(ctx)
	gctx, stopGates := context.WithCancel(context.WithoutCancel(ctx))
	var gates sync.WaitGroup
	for _, g := range w.gates {
		gates.Add(1)
		parts.Go(func() error {
			defer gates.Done()
			if err := g.app.Run(gctx); err != nil && gctx.Err() == nil {
				return fmt.Errorf("gate %s: %w", g.name, err)
			}
			return nil
		})
	}
	return sync.OnceFunc(func() {
		stopGates()
		gates.Wait()
		stopHardware()
	})
}

// waitReady waits until the gates run and have the server's roster.
func (w *world) waitReady(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, 30*time.Second)
	defer cancel()
	for _, g := range w.gates {
		select {
		case <-g.ready:
		case <-ctx.Done():
			return fmt.Errorf("gate %s does not start: %w", g.name, ctx.Err())
		}
		for {
			c, err := g.app.Registry.Counts(ctx)
			if err != nil {
				return fmt.Errorf("gate %s: %w", g.name, err)
			}
			rules := g.app.Policies.Current()
			if c.Passes >= int64(len(w.est.People)) && rules.Superior() != nil {
				break
			}
			if !sleep(ctx, 50*time.Millisecond) {
				return fmt.Errorf("gate %s has %d of %d passes from the server, and the policy %s", g.name, c.Passes, len(w.est.People), rules.ID())
			}
		}
	}
	return nil
}

// open lets people come and the guards work.
func (w *world) open(ctx context.Context, wg *sync.WaitGroup) {
	for i, g := range w.gates {
		gd := &guard{name: "guard:" + fmt.Sprint(i+1), lanes: g.app.Lanes, street: w.street, rng: rand.New(rand.NewPCG(w.set.seed, uint64(i))), seen: map[uint64]int{}}
		if g.desk {
			wg.Go(func() { gd.desk(ctx, w.street) })
			continue
		}
		wg.Go(func() { gd.work(ctx) })
		for _, r := range g.rigs {
			wg.Go(func() { w.street.come(ctx, r) })
		}
	}
}

// watch reads the journals as they grow: what is printed and counted is what
// was made durable.
func (w *world) watch(ctx context.Context, wg *sync.WaitGroup) {
	for _, g := range w.gates {
		wg.Go(func() {
			from := uint64(0)
			for {
				// What was written last is counted even when the end has come.
				last := g.app.Journal.Wait(ctx, from) != nil
				got, err := g.app.Journal.Read(context.WithoutCancel(ctx), from, 500, 1<<20)
				if err != nil {
					w.scr.line("cannot read the journal of %s: %v", g.name, err)
					return
				}
				for _, s := range got {
					from = s.Seq + 1
					e, err := edge.DecodeEntry(s.Line)
					if err != nil {
						w.scr.line("entry %d of %s is damaged: %v", s.Seq, g.name, err)
						continue
					}
					w.tally.entry(g.name, e)
					w.print(g, e)
				}
				w.tally.mu.Lock()
				w.tally.gate(g.name).Journal = from
				w.tally.mu.Unlock()
				if last && len(got) == 0 {
					return
				}
			}
		})
	}
	wg.Go(func() {
		t := time.NewTicker(250 * time.Millisecond)
		defer t.Stop()
		for n := 0; ; n++ {
			var total, backlog uint64
			down := ""
			for _, g := range w.gates {
				s := g.app.SyncStatus()
				w.tally.backlog(g.name, s.Backlog())
				total += s.Size
				backlog += s.Backlog()
				if !s.Connected {
					down = ", broker away"
				}
			}
			if w.scr.tty || n%20 == 19 {
				w.tally.mu.Lock()
				sum := w.tally.sum
				w.tally.mu.Unlock()
				w.scr.say("    presented %d  admitted %d  referred %d  denied %d  passed %d | entries %d, backlog %d%s", sum.Presented, sum.Admitted, sum.Referred, sum.Denied, sum.Passed, total, backlog, down)
			}
			select {
			case <-ctx.Done():
				return
			case <-t.C:
			}
		}
	})
}

// print tells one entry in a line.
func (w *world) print(g *gate, e *edge.Entry) {
	at := time.UnixMilli(e.Stamp.Time).In(time.FixedZone("", e.Stamp.Offset*60)).Format("15:04:05.000")
	who := "unknown card"
	if f := e.Facts; f != nil && f.Pass != nil {
		who = "pass " + fmt.Sprint(int64(f.Pass.ID))
		if p := w.street.byPass[f.Pass.ID]; p != nil {
			who = fmt.Sprintf("%s (%s)", p.Row.Pass.Name, f.Pass.Category)
		}
	}
	lane := e.Lane
	if lane == "" {
		lane = g.name
	}
	switch e.Kind {
	case edge.KindDecision:
		temp := "-"
		if t := e.Facts.Temperature; t != nil {
			temp = string(t.State)
			if t.Band != "" {
				temp = string(t.Band)
			}
		}
		w.scr.line("%s  %-10s #%-5d %-9s %-26s temperature %-8s by %s", at, lane, e.Presentation%1e6, e.Outcome, who, temp, e.Rule)
	case edge.KindPassage:
		w.scr.line("%s  %-10s #%-5d   %s", at, lane, e.Presentation%1e6, strings.ReplaceAll(e.Result, "_", " "))
	case edge.KindAction:
		what := string(e.Data)
		if e.Outcome != "" {
			what = fmt.Sprintf("%s, %s", e.Outcome, e.Reason)
		}
		w.scr.line("%s  %-10s #%-5d   %s: %s", at, lane, e.Presentation%1e6, e.Actor, what)
	case edge.KindPolicy, edge.KindStart, edge.KindEpoch, edge.KindDevice, edge.KindAlert, edge.KindFire:
		w.scr.line("%s  %-10s        %s %s", at, lane, e.Kind, short(e.Data))
	}
}

// waitDrained waits until the server has receipted every entry.
func (w *world) waitDrained(ctx context.Context, most time.Duration) {
	ctx, cancel := context.WithTimeout(ctx, most)
	defer cancel()
	for _, g := range w.gates {
		for g.app.SyncStatus().Backlog() > 0 && sleep(ctx, 20*time.Millisecond) {
		}
	}
}

// short is as much of an entry's data as a line of the screen bears.
func short(data []byte) string {
	const most = 110
	s := string(data)
	if len(s) > most {
		s = strings.ToValidUTF8(s[:most], "") + "..."
	}
	return s
}
