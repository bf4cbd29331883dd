package app

import (
	"context"
	"reflect"
	"slices"

	"gatehouse/cmd/internal/config"
	"gatehouse/device/options"
	"gatehouse/edge/lane"
)

// laneConfig is what a lane is told of its configuration.
func laneConfig(cfg *config.Gate, l *config.Lane) lane.Config {
	return lane.Config{Name: l.Name, Label: l.Label, Direction: l.Direction, Level: cfg.Level, Area: l.Area, Order: l.Order,
		Typed: l.Thermometer.Text() == "typed", Present: l.Present, Measure: l.Measure, Refer: l.Refer, Parked: l.Parked, SecondPost: l.Second, Held: l.Held,
		Remeasures: l.Remeasures, Queue: l.Queue, OnTimeout: l.OnTimeout, Deadline: cfg.Journal.Deadline}
}

// passageConfig is what a passage is told of its configuration.
func passageConfig(p *config.Passage) lane.PassageConfig {
	return lane.PassageConfig{Name: p.Name, OpenFor: p.OpenFor, HeldOpen: p.HeldOpen}
}

// Reload applies another configuration to the running gate: the policy's files, and
// the times, limits and labels of passages and lanes. No lane stops for it. What it
// gives are the keys that have changed besides and that hold only after a restart.
// On an error everything stays as it was. One call at a time.
func (a *App) Reload(ctx context.Context, cfg *config.Gate) (restart []string, err error) {
	restart = needsRestart(a.cfg, cfg)
	for _, key := range restart {
		if key == "passages" || key == "lanes" {
			// Other openings or lanes: which of the times are whose cannot be told.
			return restart, a.Policies.Reload(ctx)
		}
	}
	if err := a.Policies.reloadFrom(ctx, append(slices.Clone(cfg.Superior), cfg.Policy)); err != nil {
		return nil, err
	}
	for i, p := range a.passages {
		p.Reconfigure(passageConfig(&cfg.Passages[i]))
	}
	for i, l := range a.Lanes.lanes {
		l.Reconfigure(laneConfig(cfg, &cfg.Lanes[i]))
	}
	return restart, nil
}

// needsRestart names what differs between two configurations and is applied at a
// start only.
func needsRestart(was, is *config.Gate) []string {
	var out []string
	differs := func(key string, a, b any) {
		if !reflect.DeepEqual(a, b) {
			out = append(out, key)
		}
	}
	differs("community", was.Community, is.Community)
	differs("site", was.Site, is.Site)
	differs("gate", was.Gate, is.Gate)
	differs("name", was.Name, is.Name)
	differs("level", was.Level, is.Level)
	differs("area", was.Area, is.Area)
	differs("areas", was.Areas, is.Areas)
	differs("timezone", was.Timezone, is.Timezone)
	differs("language", was.Language, is.Language)
	differs("languages", was.Languages, is.Languages)
	differs("state", was.State, is.State)
	differs("keys", was.Keys, is.Keys)
	differs("clock", was.Clock, is.Clock)
	differs("sync", was.Sync, is.Sync)
	differs("console", was.Console, is.Console)
	differs("metrics", was.Metrics, is.Metrics)
	differs("journal.retention", was.Journal.Retention, is.Journal.Retention)
	differs("journal.retention_technical", was.Journal.Technical, is.Journal.Technical)
	differs("enrolment", was.Enrolled, is.Enrolled)
	differs("buses", anyNodes(was.Buses), anyNodes(is.Buses))
	if names(was) != names(is) {
		if len(was.Passages) != len(is.Passages) {
			return append(out, "passages")
		}
		return append(out, "lanes")
	}
	for i := range was.Passages {
		x, y := &was.Passages[i], &is.Passages[i]
		for _, d := range []struct {
			key  string
			a, b options.Node
		}{{"barrier", x.Barrier, y.Barrier}, {"beam", x.Beam, y.Beam}, {"door", x.Door, y.Door}, {"fire", x.Fire, y.Fire}, {"tamper", x.Tamper, y.Tamper},
			{"exit_button", x.Exit, y.Exit}, {"position", x.Position, y.Position}} {
			differs(x.Name+"."+d.key, d.a.Any(), d.b.Any())
		}
	}
	for i := range was.Lanes {
		x, y := &was.Lanes[i], &is.Lanes[i]
		differs(x.Name+".passage", x.Passage, y.Passage)
		differs(x.Name+".direction", x.Direction, y.Direction)
		differs(x.Name+".area", x.Area, y.Area)
		differs(x.Name+".order", x.Order, y.Order)
		differs(x.Name+".scanner", anyList(x.Scanners), anyList(y.Scanners))
		for _, d := range []struct {
			key  string
			a, b options.Node
		}{{"thermometer", x.Thermometer, y.Thermometer}, {"indicator", x.Indicator, y.Indicator}, {"call_button", x.Call, y.Call}, {"panel", x.Panel, y.Panel}} {
			differs(x.Name+"."+d.key, d.a.Any(), d.b.Any())
		}
	}
	return out
}

// names is which openings and lanes there are, in their order.
func names(g *config.Gate) string {
	s := ""
	for i := range g.Passages {
		s += "passage " + g.Passages[i].Name + "\n"
	}
	for i := range g.Lanes {
		s += "lane " + g.Lanes[i].Name + "\n"
	}
	return s
}

func anyNodes(m map[string]options.Node) map[string]any {
	out := map[string]any{}
	for k, n := range m {
		out[k] = n.Any()
	}
	return out
}

func anyList(l []options.Node) []any {
	out := make([]any, len(l))
	for i, n := range l {
		out[i] = n.Any()
	}
	return out
}

// reloadFrom is Reload with other files; on an error those before stay.
func (p *policies) reloadFrom(ctx context.Context, files []string) error {
	p.mu.Lock()
	was := p.files
	p.files = files
	p.mu.Unlock()
	err := p.Reload(ctx)
	if err != nil {
		p.mu.Lock()
		p.files = was
		p.mu.Unlock()
	}
	return err
}
