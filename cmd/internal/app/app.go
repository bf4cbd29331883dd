// Package app is the composition root: it builds a gate from its configuration,
// runs it, and stops it in order. "gatehouse run", the demo and the tests take
// this same path.
package app

import (
	"context"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"sync"
	"time"

	"golang.org/x/sync/errgroup"
	"periph.io/x/conn/v3/gpio"

	"gatehouse/cmd/internal/config"
	"gatehouse/device"
	"gatehouse/device/bus"
	"gatehouse/device/catalog"
	"gatehouse/device/options"
	"gatehouse/edge"
	"gatehouse/edge/clock"
	"gatehouse/edge/console"
	"gatehouse/edge/console/accounts"
	"gatehouse/edge/identity"
	"gatehouse/edge/journal"
	"gatehouse/edge/lane"
	"gatehouse/edge/registry"
	"gatehouse/edge/sqlite"
	"gatehouse/edge/text"
	"gatehouse/sync/wire"
)

// Options are what the configuration does not say.
type Options struct {
	Version string
	Build   time.Time
	Log     *slog.Logger
	// Pins, when set, gives GPIO pins that exist in memory only.
	Pins func(name string) (gpio.PinIO, error)
	// Edges, Inputs and I2C, when set, do so for card readers' lines, keyboards
	// and I2C buses.
	Edges   func(c bus.LinesConfig) (bus.EdgeReader, error)
	Inputs  func(c bus.InputConfig) (bus.KeyReader, error)
	I2C     func(user, name string, addr uint16) (bus.Transactor, error)
	Timings func(lane.Timing)
	Board   fs.FS // what the board tells of itself; nil = this machine's
	// TrustClock takes the machine's time as synced, as clock.battery of gate.yaml does.
	TrustClock bool
	Time       clock.Source  // nil = the machine's clocks
	Renew      Pace          // of certificates
	Late       []*edge.Entry // what SafeSide could not record
	Beside     bool          // a daemon may be running: nothing is repaired or begun
	Ready      func(a *App)  // called when everything runs
	Notifier   *Notifier     // of the service manager; nil = none
}

// App is one gate.
type App struct {
	cfg  *config.Gate
	o    Options
	log  *slog.Logger
	text *text.Catalogue

	Clock    *clock.Clock
	Identity *identity.Identity
	Journal  *journal.Journal
	Registry *registry.Registry
	Policies *policies
	plans    *plans
	Console  *console.Console
	People   *accounts.Accounts // nil = no console, or they cannot be opened
	board    *boardWatch
	metrics  *metrics
	raw      rawWatch
	Lanes    *Lanes

	passages []*lane.Passage
	panels   map[string]device.Panel // by lane
	damage   damage
	folder   *os.File // its lock says that the state folder is this daemon's
	closers  []device.Device
	serves   []string
	erased   chan struct{} // somebody was: their copies are to go
	link     *link         // to the community server; nil = the gate stands alone
}

// patience is how long a part may take to stop.
const patience = 10 * time.Second

// Build opens the databases and makes every part. It starts nothing. A device
// that is away is no error: its lane runs degraded until it appears.
func Build(ctx context.Context, cfg *config.Gate, o Options) (_ *App, err error) {
	a := &App{cfg: cfg, o: o, log: o.Log.With("site", cfg.Site, "gate", cfg.Gate), erased: make(chan struct{}, 1)}
	defer func() {
		err = errors.Join(err, cfg.OwnState())
		if err != nil {
			err = errors.Join(err, a.close())
		}
	}()
	if a.text, err = text.New(); err != nil {
		return nil, err
	}
	if err := a.takeFolder(); err != nil {
		return nil, err
	}
	if err := a.openClock(); err != nil {
		return nil, err
	}
	name := cfg.Community + "/" + cfg.Site + "/" + cfg.Gate
	if a.Identity, err = identity.Open(filepath.Join(cfg.State, "keys"), name); err != nil {
		return nil, cfg.Remedy(err)
	}
	if err := a.openRegistry(ctx); err != nil {
		return nil, cfg.Remedy(err)
	}
	keys, err := siteKeys(cfg)
	if err != nil {
		return nil, err
	}
	if err := a.openJournal(ctx); err != nil {
		return nil, cfg.Remedy(err)
	}
	if err := a.lastSeen(ctx); err != nil {
		return nil, err
	}
	if !o.Beside {
		if err := errors.Join(a.unsuspect(), a.newEpoch(ctx)); err != nil {
			return nil, cfg.Remedy(err)
		}
	}
	if a.Policies, err = openPolicies(ctx, cfg, a.Registry, a.log); err == nil {
		a.plans, err = openPlans(filepath.Join(cfg.State, "plan"), a.Policies.Current, a.log)
	}
	if err != nil {
		return nil, err
	}
	a.Policies.record = a.record
	a.board, a.metrics = a.newBoardWatch(), newMetrics(a)
	if err := a.buildLanes(lane.Deps{Registry: a.Registry, Journal: a.counted(), Policy: a.Policies.Current, Plan: a.plans.current, Clock: a.Clock, IDs: lane.FreshIDs(), Log: a.log, Timings: a.timing,
		CardHash: func(c edge.Credential) string {
			h := keys[0].Hash("unknown:" + c)
			return hex.EncodeToString(h[:8])
		}}); err != nil {
		return nil, err
	}
	if cfg.Sync.URL != "" {
		if a.link, err = newLink(a); err != nil {
			return nil, err
		}
	}
	if cfg.Console.Listen != "" {
		a.openPeople(ctx)
		deps := console.Deps{Lanes: a.Lanes, Journal: a.Journal, Passes: a.Registry, People: a.People, Text: a.text, Devices: a.Devices, Rules: a.rules, Log: a.log,
			Record: func(ctx context.Context, k edge.Kind, actor string, data any) error {
				_, err := a.recordBy(ctx, k, actor, data)
				return err
			}}
		a.inspection(&deps)
		if a.link != nil {
			deps.Sync = a.SyncStatus
		}
		certs, err := a.certificates()
		if err != nil {
			return nil, err
		}
		deps.Clock, deps.Versions, deps.Raw, deps.Test = a.Clock, a.versions, a.raw.look, a.Lanes.Test
		tips, err := config.ReadTips(cfg.Console.Tips)
		if err != nil {
			a.log.Warn("the gate opens without the tips of its display", "err", err, "hint", "gatehouse check says whether they are well; then: systemctl restart gatehouse")
		}
		if a.Console, err = console.New(console.Config{Listen: cfg.Console.Listen, Gate: cfg.Name, Language: cfg.Language, Languages: cfg.Languages, Location: cfg.Location, Certificates: certs,
			Tips: tips, Volume: loudness(cfg.Console.Volume)}, deps); err != nil {
			return nil, err
		}
	}
	return a, nil
}

// siteKeys reads the site's key, or makes one for a gate that has none yet.
func siteKeys(cfg *config.Gate) ([]edge.CredentialKey, error) {
	path := siteKeyFile(cfg)
	if cfg.Withheld(path) {
		return nil, fmt.Errorf("there is no site key %s, or it came after the service's start: as root, \"gatehouse enroll\" brings the site's, and \"gatehouse check\" makes one for a gate on its own; then: systemctl restart gatehouse", path)
	}
	keys, err := SiteKeys(path, true)
	switch {
	case err == nil || filepath.Dir(path) == filepath.Dir(cfg.KeyFile(config.FileSite)):
		return keys, cfg.Remedy(err)
	case errors.Is(err, fs.ErrPermission):
		return nil, fmt.Errorf("%w (it is root's: run this as root, or let the service do it, which is handed a copy: systemctl start gatehouse)", err)
	}
	return nil, config.FolderRemedy(filepath.Dir(path), err)
}

func siteKeyFile(cfg *config.Gate) string {
	if cfg.Keys.Site != "" {
		return cfg.Keys.Site
	}
	return cfg.KeyFile(config.FileSite)
}

// OpenRegistry opens a gate's registry, for the daemon and for the operator's
// commands beside it. clk may be nil.
func OpenRegistry(ctx context.Context, cfg *config.Gate, clk edge.Clock, log *slog.Logger) (*registry.Registry, error) {
	keys, err := siteKeys(cfg)
	var r *registry.Registry
	if err == nil {
		r, err = registry.Open(ctx, filepath.Join(cfg.State, "registry.db"), registry.Options{Keys: keys, Clock: clk, Log: log})
	}
	if err := errors.Join(cfg.Remedy(err), cfg.OwnState()); err != nil {
		if r != nil {
			err = errors.Join(err, r.Close())
		}
		return nil, err
	}
	return r, nil
}

// buildLanes makes devices, passages and lanes. All that is wrong with the
// devices' options comes in one error.
func (a *App) buildLanes(deps lane.Deps) error {
	env := catalog.Env{Bus: bus.New(), Log: a.log, Pins: a.o.Pins, Edges: a.o.Edges, Inputs: a.o.Inputs, I2C: a.o.I2C,
		Samples: func(name string) func(device.Sample, error) { return a.raw.device(name).sampled }}
	var errs []error
	for _, name := range slices.Sorted(maps.Keys(a.cfg.Buses)) {
		n := a.cfg.Buses[name]
		var b struct {
			I2C string `yaml:"i2c"`
		}
		if err := n.Decode(&b); err != nil {
			errs = append(errs, err)
		} else if err := env.Bus.Alias(name, b.I2C); err != nil {
			errs = append(errs, n.Errorf("%v", err))
		}
	}
	contact := func(what string, n options.Node) device.Contact {
		if n.IsZero() {
			return nil
		}
		c, err := catalog.Contact(env, what, n)
		if err != nil {
			errs = append(errs, err)
			return nil
		}
		a.own(what, c)
		return rawContact{c, a.raw.device(what)}
	}
	fire := lane.NewFire(deps)
	byName := map[string]*lane.Passage{}
	for i := range a.cfg.Passages {
		p := &a.cfg.Passages[i]
		dev := lane.PassageDevices{Beam: contact(p.Name+" beam", p.Beam), Door: contact(p.Name+" door", p.Door), Fire: contact(p.Name+" fire input", p.Fire),
			Tamper: contact(p.Name+" tamper contact", p.Tamper), Exit: contact(p.Name+" exit button", p.Exit), Position: contact(p.Name+" position contact", p.Position)}
		if p.Barrier.IsMap() {
			b, err := catalog.Barrier(env, p.Name+" barrier", p.Barrier)
			if err != nil {
				errs = append(errs, err)
			} else {
				a.own(p.Name+" barrier", b)
				dev.Barrier = b
			}
		}
		ps := lane.NewPassage(passageConfig(p), dev, fire, deps)
		byName[p.Name] = ps
		a.passages = append(a.passages, ps)
	}
	var lanes []*lane.Lane
	a.panels = map[string]device.Panel{}
	for i := range a.cfg.Lanes {
		l := &a.cfg.Lanes[i]
		var dev lane.Devices
		for k, n := range l.Scanners {
			if !n.IsMap() {
				continue
			}
			what := l.Name + " scanner"
			if k > 0 {
				what = fmt.Sprintf("%s %d", what, k+1)
			}
			s, err := catalog.Scanner(env, what, n)
			if err != nil {
				errs = append(errs, err)
				continue
			}
			a.own(what, s)
			dev.Scanners = append(dev.Scanners, rawScanner{s, a.raw.device(what)})
			if f, ok := s.(device.Feedback); ok {
				dev.Indicators = append(dev.Indicators, f)
			}
		}
		if l.Thermometer.IsMap() {
			th, err := catalog.Thermometer(env, l.Name+" thermometer", l.Thermometer)
			if err != nil {
				errs = append(errs, err)
			} else {
				a.own(l.Name+" thermometer", th)
				dev.Thermometer = th
			}
		}
		if l.Indicator.IsMap() {
			ind, err := catalog.Indicator(env, l.Name+" indicator", l.Indicator)
			if err != nil {
				errs = append(errs, err)
			} else {
				a.own(l.Name+" indicator", ind)
				dev.Indicators = append(dev.Indicators, ind)
			}
		}
		dev.Call = contact(l.Name+" call button", l.Call)
		if l.Panel.IsMap() {
			p, err := catalog.Panel(env, l.Name+" panel", l.Panel)
			if err != nil {
				errs = append(errs, err)
			} else {
				a.own(l.Name+" panel", p)
				a.panels[l.Name] = rawPanel{p, a.raw.device(l.Name + " panel")}
			}
		}
		lanes = append(lanes, lane.New(laneConfig(a.cfg, l), dev, byName[l.Passage], deps))
	}
	a.Lanes = newLanes(lanes)
	return errors.Join(errs...)
}

func (a *App) own(serves string, d device.Device) {
	a.closers = append(a.closers, d)
	a.serves = append(a.serves, serves)
}

// Devices tells how each device is.
func (a *App) Devices() []edge.DeviceHealth {
	out := make([]edge.DeviceHealth, len(a.closers))
	for i, d := range a.closers {
		out[i] = edge.DeviceHealth{Serves: a.serves[i], Health: d.Health()}
	}
	return append(out, edge.DeviceHealth{Serves: "gate board", Health: a.board.Health()})
}

// timing is told how long the parts of each passage took.
func (a *App) timing(t lane.Timing) {
	a.metrics.timing(t)
	if a.o.Timings != nil {
		a.o.Timings(t)
	}
}

// versions tells what the gate runs and goes by.
func (a *App) versions(ctx context.Context) edge.Versions {
	p := a.Policies.Current()
	out := edge.Versions{Program: a.o.Version, Policy: p.ID(), PolicyHash: p.Hash(), Roster: a.Registry.Version(), Wire: wire.Version}
	n, err := a.Registry.Counts(ctx)
	if err != nil {
		a.log.Warn("cannot count the passes", "err", err)
	}
	out.Passes = int64(n.Passes)
	return out
}

// SyncStatus tells how far the community server is behind.
func (a *App) SyncStatus() edge.SyncStatus {
	if a.link == nil {
		return edge.SyncStatus{Size: a.Journal.Size(), Acked: a.Journal.Acked()}
	}
	return a.link.status()
}

// record appends an entry of the system's own.
func (a *App) record(ctx context.Context, k edge.Kind, data any) (edge.EntryRef, error) {
	return a.recordBy(ctx, k, "system", data)
}

func (a *App) recordBy(ctx context.Context, k edge.Kind, actor string, data any) (edge.EntryRef, error) {
	b, err := json.Marshal(data)
	if err != nil {
		return edge.EntryRef{}, err
	}
	e := &edge.Entry{Kind: k, Of: -1, Actor: actor, Stamp: a.Clock.Now(), Registry: a.Registry.Version(), Data: b}
	if p := a.Policies.Current(); p != nil {
		e.Policy = p.Hash()
	}
	seq, err := a.counted().Append(ctx, e, nil)
	return edge.EntryRef{Gate: a.cfg.Gate, Epoch: a.Journal.Epoch(), Seq: seq}, err
}

// Run runs the gate until ctx is done or a part fails, and stops it in order.
func (a *App) Run(ctx context.Context) (err error) {
	defer func() { err = errors.Join(err, a.leaveFolder()) }()
	if err := a.begin(ctx); err != nil {
		return errors.Join(err, a.close())
	}
	started := make(chan struct{})
	stages := []stage{
		{"clock", a.Clock.Run, nil},
		{"journal", a.Journal.Run, a.Journal.Close},
		{"clock watch", a.watchClock, nil},
		{"storage", a.storage, nil},
		{"salvage", func(ctx context.Context) error {
			a.recover(ctx)
			<-ctx.Done()
			return nil
		}, nil},
		{"old copies", a.copies, nil},
		{"board watch", a.board.Run, nil},
		{"inspection of the databases", a.inspect, nil},
		{"registry", func(ctx context.Context) error {
			return a.Registry.Run(ctx, func(ctx context.Context, data json.RawMessage) (edge.EntryRef, error) {
				return a.record(ctx, edge.KindRegistry, data)
			})
		}, a.Registry.Close},
	}
	if a.link != nil {
		stages = append(stages, stage{"sync", a.link.run, nil})
	}
	if a.Console != nil {
		stages = append(stages, stage{"accounts", a.runPeople, a.closePeople}, stage{"console", a.Console.Run, nil})
	}
	if a.cfg.Metrics.Listen != "" {
		stages = append(stages, stage{"metrics", a.serveHealth, nil})
	}
	if n := a.o.Notifier; n != nil {
		stages = append(stages, stage{"watchdog", func(ctx context.Context) error {
			select {
			case <-started:
			case <-ctx.Done():
				return nil
			}
			if err := n.Watchdog(ctx, a.Alive); err != nil {
				return err
			}
			<-ctx.Done()
			return nil
		}, nil})
	}
	// Passages secure their barriers before the drivers go: so devices, which
	// lanes need, are a stage below them.
	stages = append(stages,
		stage{"devices", func(ctx context.Context) error { <-ctx.Done(); return nil }, a.closeDevices},
		stage{"lanes", a.runLanes, a.end})
	return runStages(ctx, a.log, stages, patience, func() {
		close(started)
		if a.o.Ready != nil {
			a.o.Ready(a)
		}
	})
}

// begin ends what an earlier run left open, and records the start.
func (a *App) begin(ctx context.Context) error {
	open, damaged, err := a.Journal.Dangling(ctx)
	if sqlite.IsDamage(err) {
		a.harmed(err)
		open, err = nil, nil
	}
	if err != nil {
		return err
	}
	if len(damaged) > 0 {
		a.harmed(fmt.Errorf("%d entries since the last start cannot be read, the first is %d", len(damaged), damaged[0]))
	}
	for _, s := range open {
		e, err := edge.DecodeEntry(s.Line)
		if err != nil {
			return fmt.Errorf("entry %d is damaged: %w", s.Seq, err)
		}
		if _, err := a.Journal.Append(ctx, lane.Interrupted(s, e, a.Clock.Now()), nil); err != nil {
			return err
		}
	}
	if len(open) > 0 {
		a.log.Warn("admissions were interrupted when the gate last stopped; nothing is opened for them", "entries", len(open))
	}
	if _, err = a.record(ctx, edge.KindStart, map[string]any{"version": a.o.Version, "interrupted": len(open)}); err != nil {
		return err
	}
	for _, e := range a.o.Late {
		if _, err := a.Journal.Append(ctx, e, nil); err != nil {
			return err
		}
	}
	return errors.Join(a.tellDamage(ctx), a.Policies.Started(ctx), a.updateNote(ctx))
}

func (a *App) end() error {
	_, err := a.record(context.Background(), edge.KindStop, map[string]any{"version": a.o.Version})
	return err
}

func (a *App) runLanes(ctx context.Context) error {
	g, ctx := errgroup.WithContext(ctx)
	// Lanes stop before passages: a turn that a lane still asks for would find
	// nobody.
	pctx, stop := context.WithCancel(context.WithoutCancel(ctx))
	var passages sync.WaitGroup
	for _, p := range a.passages {
		passages.Go(func() { _ = p.Run(pctx) })
	}
	for _, l := range a.Lanes.lanes {
		g.Go(func() error { return l.Run(ctx) })
		if p := a.panels[l.View().Lane]; p != nil {
			g.Go(func() error { runPanel(ctx, p, l, a.log.With("lane", l.View().Lane)); return nil })
		}
	}
	err := g.Wait()
	stop()
	passages.Wait()
	return err
}

// stuck is how long a part may make no progress.
const stuck = 10 * time.Second

// Alive returns an error when a lane, a passage or the journal is stuck.
func (a *App) Alive() error {
	if err := a.doorsAlive(); err != nil {
		return err
	}
	return a.Journal.Alive(stuck)
}

func (a *App) doorsAlive() error {
	for _, l := range a.Lanes.lanes {
		if err := l.Alive(stuck); err != nil {
			return err
		}
	}
	for _, p := range a.passages {
		if err := p.Alive(stuck); err != nil {
			return err
		}
	}
	return nil
}

// unseenFor is how long the watcher beside the daemon, which starts with it, may take
// for its first note.
const unseenFor = 30 * time.Second

func (a *App) watchClock(ctx context.Context) error {
	now := a.Clock.Now()
	last := now.Clock
	a.log.Info("the clock", "state", now.Clock, "by", now.Source)
	t := time.NewTicker(10 * time.Second)
	defer t.Stop()
	late := time.After(unseenFor)
	for {
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-late:
			if err := a.Clock.Unseen(); err != nil {
				a.log.Warn("whether NTP sets the clock cannot be seen", "err", err, "hint", "systemctl start gatehouse-clock")
			}
		case l := <-a.Clock.Leaps():
			if _, err := a.record(ctx, edge.KindClock, map[string]any{"leap_ms": l.By.Milliseconds(), "clock": l.From.Clock, "by": l.From.Source}); err != nil {
				a.log.Error("cannot record a leap of the clock", "err", err)
			}
			a.log.Warn("the wall clock leapt", "by", l.By)
		case <-t.C:
			if now := a.Clock.Now(); now.Clock != last {
				if _, err := a.record(ctx, edge.KindClock, map[string]any{"from": last, "to": now.Clock, "by": now.Source}); err != nil {
					a.log.Error("cannot record a change of the clock's trust", "err", err)
				}
				a.log.Info("the clock", "state", now.Clock, "was", last, "by", now.Source)
				last = now.Clock
			}
		}
	}
}

func (a *App) closeDevices() error {
	a.raw.stop()
	var errs []error
	for i := len(a.closers) - 1; i >= 0; i-- {
		if err := a.closers[i].Close(); err != nil {
			errs = append(errs, fmt.Errorf("%s: %w", a.serves[i], err))
		}
	}
	a.closers = nil
	return errors.Join(errs...)
}

// close gives back what Build took, when Run never ran.
func (a *App) close() error {
	errs := []error{a.closeDevices()}
	if a.Console != nil {
		errs = append(errs, a.Console.Close())
	}
	errs = append(errs, a.closePeople())
	if a.Registry != nil {
		errs = append(errs, a.Registry.Close())
	}
	if a.Journal != nil {
		errs = append(errs, a.Journal.Close())
	}
	return errors.Join(append(errs, a.leaveFolder())...)
}

// Close gives back what Build took, for a caller that does not Run.
func (a *App) Close() error { return a.close() }

// EachDevice calls f for every device, in the order of the configuration.
func (a *App) EachDevice(f func(serves string, d device.Device)) {
	for i, d := range a.closers {
		f(a.serves[i], d)
	}
}
