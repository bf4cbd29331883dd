package lane

import (
	"context"
	"testing"
	"testing/synctest"
	"time"

	"gatehouse/device"
	"gatehouse/edge"
)

func TestFactsThatFollowFromThePass(t *testing.T) {
	noon := time.Date(2026, 3, 2, 4, 0, 0, 0, time.UTC).UnixMilli() // 12:00 at the site
	synced := edge.Stamp{Time: noon, Offset: 480, Clock: edge.ClockSynced}
	unset := edge.Stamp{Time: noon, Offset: 480, Clock: edge.ClockUnset}
	for _, c := range []struct {
		name  string
		pass  edge.Pass
		stamp edge.Stamp
		want  edge.PassFacts
	}{
		{"valid", edge.Pass{From: noon, Until: noon + 1}, synced, edge.PassFacts{}},
		{"the end is exclusive", edge.Pass{Until: noon}, synced, edge.PassFacts{Expired: true}},
		{"not yet", edge.Pass{From: noon + 1}, synced, edge.PassFacts{Early: true}},
		{"not yet, as far as an unset clock knows", edge.Pass{From: noon + 1}, unset, edge.PassFacts{}},
		{"over by the floor of an unset clock", edge.Pass{Until: noon - 1}, unset, edge.PassFacts{Expired: true}},
		{"within its hours", edge.Pass{Hours: "06:00-22:30"}, synced, edge.PassFacts{}},
		{"the hours end exclusively", edge.Pass{Hours: "06:00-12:00"}, synced, edge.PassFacts{OffHours: true}},
		{"hours over midnight", edge.Pass{Hours: "22:00-11:59"}, synced, edge.PassFacts{OffHours: true}},
		{"hours over midnight, within", edge.Pass{Hours: "22:00-12:01"}, synced, edge.PassFacts{}},
		{"hours and an unset clock", edge.Pass{Hours: "06:00-12:00"}, unset, edge.PassFacts{}},
		{"elsewhere", edge.Pass{Areas: []string{"north"}}, synced, edge.PassFacts{Elsewhere: true}},
		{"here and elsewhere", edge.Pass{Areas: []string{"north", "main"}}, synced, edge.PassFacts{}},
	} {
		f := edge.Facts{Time: edge.TimeFactsOf(c.stamp)}
		f.SetPass(&c.pass, nil, c.stamp, "main")
		if g := f.Pass; g.Expired != c.want.Expired || g.Early != c.want.Early || g.OffHours != c.want.OffHours || g.Elsewhere != c.want.Elsewhere {
			t.Errorf("%s: expired %v, early %v, off hours %v, elsewhere %v", c.name, g.Expired, g.Early, g.OffHours, g.Elsewhere)
		}
	}
}

// TestAdmittedAsideTakesTheNextTurn: whoever is admitted in the tray passes when
// the present person is through, and is on record even if a fire comes first.
func TestAdmittedAsideTakesTheNextTurn(t *testing.T) {
	aside := func(r *rig) {
		r.card("anna")
		r.temp(38)
		anna := r.id()
		r.mustDo(edge.Action{Kind: edge.ActAside, Presentation: anna})
		r.card("ben")
		r.mustDo(edge.Action{Kind: edge.ActAdmit, Presentation: anna, Reason: "own_home", Identity: "known"})
		r.want(edge.LaneMeasuring) // still ben
		if v := r.lanes[0].View(); v.Queue != 1 || len(v.Parked) != 0 {
			r.t.Errorf("%d wait, %d aside", v.Queue, len(v.Parked))
		}
	}
	lines := played(t, setup{}, func(r *rig) {
		aside(r)
		r.temp(36.4)
		r.walk()
		r.wait(2 * time.Second)
		r.want(edge.LanePassing) // anna
		r.walk()
		r.wait(2 * time.Second)
		r.want(edge.LaneIdle)
	})
	wantLine(t, lines, "result=passed", "position:p1")
	wantLine(t, lines, "result=passed", "position:p2")
	lines = played(t, setup{}, func(r *rig) {
		aside(r)
		r.firein.changes <- true
		r.wait(time.Second)
	})
	wantLine(t, lines, "result=interrupted", "of=2")
}

func TestPlusOneWithATypedReading(t *testing.T) {
	lines := played(t, setup{typed: true}, func(r *rig) {
		r.card("anna")
		r.mustDo(edge.Action{Kind: edge.ActPlusOne, Presentation: r.id()})
		r.mustDo(edge.Action{Kind: edge.ActReading, Presentation: r.id(), Value: 36.4})
		r.want(edge.LaneMeasuring)
		r.mustDo(edge.Action{Kind: edge.ActReading, Presentation: r.id(), Value: 36.5})
		r.want(edge.LanePassing)
		r.walk()
		r.walk()
		r.wait(2 * time.Second)
	})
	wantLine(t, lines, "result=passed", `"persons":2`)
}

// TestAPartyIsCountedAfterARemeasurement: who was too near to tell at first still
// has a child with them.
func TestAPartyIsCountedAfterARemeasurement(t *testing.T) {
	lines := played(t, setup{}, func(r *rig) {
		r.card("mother")
		r.temp(37.2)
		r.temp(36.4)
		r.want(edge.LaneMeasuring)
		r.temp(36.3)
		r.want(edge.LanePassing)
		r.walk()
		r.walk()
		r.wait(2 * time.Second)
	})
	wantLine(t, lines, "result=passed", `"persons":2`)
}

func TestTamperIsAnAlert(t *testing.T) {
	var tamper *contact
	lines := played(t, setup{mutate: func(d *PassageDevices) { tamper = newContact(); d.Tamper = tamper }}, func(r *rig) {
		tamper.changes <- true
		synctest.Wait()
	})
	wantLine(t, lines, "alert", "tamper")
}

// TestWatchersGetTheLatest: a slow watcher misses what was between and holds up
// nobody; versions only grow.
func TestWatchersGetTheLatest(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := start(t, setup{})
		defer func() { r.stop() }()
		ctx, cancel := context.WithCancel(t.Context())
		views := r.lanes[0].Watch(ctx)
		first := <-views
		r.card("anna")
		r.temp(36.4)
		r.walk()
		r.wait(2 * time.Second)
		r.card("ben")
		got := <-views
		if got.Version <= first.Version || got.State != edge.LaneMeasuring || got.Current.Pass.ID != 2 {
			t.Errorf("version %d after %d, %s", got.Version, first.Version, got.State)
		}
		cancel()
		synctest.Wait()
		if _, open := <-views; open {
			t.Error("still watching")
		}
	})
}

// TestHeldBeforeTwoScanners: one card before two scanners of a lane is one person.
func TestHeldBeforeTwoScanners(t *testing.T) {
	var other *scanner
	lines := played(t, setup{devices: func(d *Devices) {
		other = &scanner{cards: make(chan string)}
		d.Scanners = append(d.Scanners, device.Scanner(other))
	}}, func(r *rig) {
		for range 5 {
			r.card("anna")
			other.cards <- "anna"
			r.wait(time.Second)
		}
		if v := r.lanes[0].View(); v.Queue != 0 {
			r.t.Errorf("%d wait", v.Queue)
		}
		r.temp(36.4)
		r.walk()
		r.wait(2 * time.Second)
	})
	if len(lines) != 2 {
		t.Errorf("%q", lines)
	}
}

// The plan in force is among the facts of what is decided from then on.
func TestPlanIsAFact(t *testing.T) {
	var now *edge.PlanFacts
	lines := played(t, setup{plan: func() *edge.PlanFacts { return now }}, func(r *rig) {
		r.card("anna")
		r.temp(36.4)
		r.walk()
		r.wait(5 * time.Second)
		now = &edge.PlanFacts{Name: "mass_testing", Drill: true}
		r.card("ben")
		r.temp(36.4)
		r.walk()
		r.wait(5 * time.Second)
		with, without := 0, 0
		r.j.count(func(e *edge.Entry) bool {
			switch {
			case e.Kind != edge.KindDecision:
			case e.Facts.Plan == nil:
				without++
			case *e.Facts.Plan == *now:
				with++
			}
			return false
		})
		if with != 1 || without != 1 {
			r.t.Errorf("%d decisions with the plan, %d without", with, without)
		}
	})
	wantLine(t, lines, "result=passed", "position:p2")
}
