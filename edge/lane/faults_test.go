package lane

import (
	"context"
	"errors"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"go.uber.org/goleak"

	"gatehouse/device"
	"gatehouse/edge"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// played starts a rig, plays, stops it, and hands back the journal's lines.
func played(t *testing.T, s setup, play func(r *rig)) []string {
	t.Helper()
	var lines []string
	synctest.Test(t, func(t *testing.T) {
		r := start(t, s)
		stopped := false
		defer func() {
			if !stopped {
				r.stop()
			}
		}()
		play(r)
		r.stop()
		stopped = true
		lines = r.j.lines()
	})
	return lines
}

func wantLine(t *testing.T, lines []string, parts ...string) {
	t.Helper()
	if !slices.ContainsFunc(lines, func(l string) bool {
		return !slices.ContainsFunc(parts, func(p string) bool { return !strings.Contains(l, p) })
	}) {
		t.Errorf("no entry with %q\n%s", parts, strings.Join(lines, "\n"))
	}
}

func TestWithoutAThermometerOnePassesPerCard(t *testing.T) {
	lines := played(t, setup{none: true}, func(r *rig) {
		r.card("anna")
		r.want(edge.LaneReferred) // the closed estate wants a reading
		r.mustDo(edge.Action{Kind: edge.ActSecond, Presentation: r.id(), Value: 36.5})
		if r.state() == edge.LaneReferred {
			r.mustDo(edge.Action{Kind: edge.ActAdmit, Presentation: r.id(), Reason: r.lanes[0].View().Current.Answers[0].Reason, Identity: "known", Text: "medical"})
		}
		r.want(edge.LanePassing)
		r.walk()
		r.walk()
		r.wait(2 * time.Second)
	})
	wantLine(t, lines, "result=tailgated", `"persons":2`)
}

func TestAStuckJournalHoldsUpNoPassage(t *testing.T) {
	lines := played(t, setup{}, func(r *rig) {
		r.card("anna")
		r.temp(36.4)
		r.want(edge.LanePassing)
		stall := make(chan struct{})
		r.j.mu.Lock()
		r.j.stall = stall
		r.j.mu.Unlock()
		r.walk()
		r.wait(10 * time.Second)
		if got := r.barrier.log[len(r.barrier.log)-1]; got != "secure" {
			r.t.Errorf("barrier: %v", r.barrier.log)
		}
		if err := errors.Join(r.passage.Alive(5*time.Second), r.lanes[0].Alive(5*time.Second)); err != nil {
			r.t.Error(err)
		}
		r.want(edge.LaneIdle)
		r.j.mu.Lock()
		r.j.stall = nil
		r.j.mu.Unlock()
		close(stall)
		r.wait(time.Second)
	})
	wantLine(t, lines, "result=passed")
}

func TestAPassageThatCannotBeWrittenIsTriedAgain(t *testing.T) {
	lines := played(t, setup{}, func(r *rig) {
		r.card("anna")
		r.temp(36.4)
		r.j.mu.Lock()
		r.j.err = errors.New("disk full")
		r.j.mu.Unlock()
		r.walk()
		r.wait(3 * time.Second)
		r.want(edge.LaneIdle)
		// Nobody is let through meanwhile.
		r.card("ben")
		r.temp(36.4)
		r.want(edge.LaneFault)
		r.wait(6 * time.Second)
		r.want(edge.LaneIdle)
		r.j.mu.Lock()
		r.j.err = nil
		r.j.mu.Unlock()
		r.wait(2 * time.Second)
		r.card("ben")
		r.temp(36.4)
		r.want(edge.LanePassing)
		r.wait(10 * time.Second)
	})
	wantLine(t, lines, "result=passed", "of=0")
	wantLine(t, lines, "alert", `"undecided":1`)
}

// TestACommitInTimeOrAbandoned: a commit that misses its deadline admits nobody,
// and when it comes it is followed by an entry that says so.
func TestACommitInTimeOrAbandoned(t *testing.T) {
	lines := played(t, setup{dirs: []edge.Direction{edge.Out}}, func(r *rig) {
		stall := make(chan struct{})
		r.j.mu.Lock()
		r.j.stall = stall
		r.j.mu.Unlock()
		r.card("anna")
		r.temp(36.4)
		r.wait(3 * time.Second)
		r.want(edge.LaneFault)
		if slices.Contains(r.barrier.log, "admit out") {
			r.t.Errorf("barrier: %v", r.barrier.log)
		}
		r.j.mu.Lock()
		r.j.stall = nil
		r.j.mu.Unlock()
		close(stall)
		r.wait(10 * time.Second)
	})
	wantLine(t, lines, "abandoned", "of=0", "add-1")
}

func TestATrayThatIsFullDoesNotSpin(t *testing.T) {
	played(t, setup{}, func(r *rig) {
		for range maxParked {
			r.card("anna")
			r.temp(38.5)
			r.want(edge.LaneReferred)
			r.mustDo(edge.Action{Kind: edge.ActAside, Presentation: r.id()})
			r.wait(5 * time.Second)
		}
		r.card("ben")
		r.temp(38.5)
		r.wait(5 * time.Minute) // virtual time stands still for a loop that spins
		r.want(edge.LaneReferred)
		if n := len(r.lanes[0].View().Parked); n != maxParked {
			r.t.Errorf("%d aside", n)
		}
	})
}

func TestClosingSendsTheQueueAway(t *testing.T) {
	played(t, setup{}, func(r *rig) {
		r.card("anna")
		r.card("ben")
		r.mustDo(edge.Action{Kind: edge.ActClose})
		r.want(edge.LaneMeasuring) // whoever has begun gets an answer: the policy's for a closed lane
		r.temp(36.4)
		r.want(edge.LaneDenied)
		r.wait(9 * time.Second)
		r.want(edge.LaneClosed)
		if r.lamp[0].now != device.SignalFault {
			r.t.Errorf("lamps: %s", r.lamp[0].now)
		}
		r.wait(time.Hour)
		r.mustDo(edge.Action{Kind: edge.ActOpen})
		r.want(edge.LaneIdle)
	})
}

func TestFireGoesOnUntilTheBarrierIsFree(t *testing.T) {
	lines := played(t, setup{}, func(r *rig) {
		r.card("anna")
		r.temp(36.4)
		r.barrier.mu.Lock()
		r.barrier.broken = true
		r.barrier.mu.Unlock()
		r.firein.changes <- true
		r.wait(5 * time.Second)
		if slices.Contains(r.barrier.log, "free true") {
			r.t.Fatalf("barrier: %v", r.barrier.log)
		}
		r.barrier.mu.Lock()
		r.barrier.broken = false
		r.barrier.mu.Unlock()
		r.wait(3 * time.Second)
		if got := r.barrier.log[len(r.barrier.log)-1]; got != "free true" {
			r.t.Errorf("barrier: %v", r.barrier.log)
		}
		if r.lamp[0].now != device.SignalFree {
			r.t.Errorf("lamps: %s", r.lamp[0].now)
		}
		r.firein.changes <- false
		r.wait(time.Second)
		r.card("ben")
		r.temp(36.4)
		r.want(edge.LanePassing)
	})
	wantLine(t, lines, "fire", "position_reset", `"on":true`)
	wantLine(t, lines, "result=interrupted", "of=0")
}

func TestExitDoorAndInterlock(t *testing.T) {
	t.Run("leaving acts before it writes", func(t *testing.T) {
		var exit *contact
		lines := played(t, setup{mutate: func(d *PassageDevices) { exit = newContact(); d.Exit = exit }}, func(r *rig) {
			stall := make(chan struct{})
			r.j.mu.Lock()
			r.j.stall = stall
			r.j.mu.Unlock()
			exit.changes <- true
			synctest.Wait()
			if got := r.barrier.log[len(r.barrier.log)-1]; got != "admit out" {
				r.t.Errorf("barrier: %v", r.barrier.log)
			}
			r.walk()
			r.wait(9 * time.Second)
			if got := r.barrier.log[len(r.barrier.log)-1]; got != "secure" {
				r.t.Errorf("a barrier that is held stays open: %v", r.barrier.log)
			}
			close(stall)
			r.j.mu.Lock()
			r.j.stall = nil
			r.j.mu.Unlock()
		})
		wantLine(t, lines, "exit_button")
		if len(lines) != 1 {
			t.Errorf("%q", lines)
		}
	})
	t.Run("a door without a beam", func(t *testing.T) {
		var door *contact
		lines := played(t, setup{mutate: func(d *PassageDevices) { door = newContact(); d.Beam, d.Door = nil, door }}, func(r *rig) {
			r.card("anna")
			r.temp(36.4)
			door.changes <- true
			r.wait(time.Second)
			r.want(edge.LanePassing)
			door.changes <- false
			synctest.Wait()
			r.want(edge.LaneIdle)
			r.wait(5 * time.Second)
			r.card("ben")
			r.temp(36.4)
			r.wait(9 * time.Second) // walks away
			r.wait(5 * time.Second)
			door.changes <- true // and somebody else comes
			r.wait(25 * time.Second)
			door.changes <- false
			synctest.Wait()
		})
		wantLine(t, lines, "result=passed", "position:p1")
		wantLine(t, lines, "result=not_passed")
		wantLine(t, lines, "result=forced", "position_reset")
		wantLine(t, lines, "result=held_open", "position_reset")
		wantLine(t, lines, "result=closed")
	})
	t.Run("the other door is open", func(t *testing.T) {
		lines := played(t, setup{}, func(r *rig) {
			r.barrier.mu.Lock()
			r.barrier.refuse = true
			r.barrier.mu.Unlock()
			r.card("anna")
			r.temp(36.4)
			r.wait(2 * time.Second)
			if v := r.lanes[0].View(); !slices.Contains(v.Degraded, "interlock") {
				r.t.Errorf("degraded %v", v.Degraded)
			}
			r.barrier.mu.Lock()
			r.barrier.refuse = false
			r.barrier.mu.Unlock()
			r.wait(time.Second)
			if v := r.lanes[0].View(); slices.Contains(v.Degraded, "interlock") {
				r.t.Errorf("degraded %v", v.Degraded)
			}
			r.walk()
			r.wait(5 * time.Second)
			r.barrier.mu.Lock()
			r.barrier.refuse = true
			r.barrier.mu.Unlock()
			r.card("ben")
			r.temp(36.4)
			r.wait(10 * time.Second)
			r.want(edge.LaneIdle)
		})
		wantLine(t, lines, "result=passed")
		wantLine(t, lines, "result=not_passed", `"refused":true`)
	})
	t.Run("a boom raised by its own remote", func(t *testing.T) {
		var up *contact
		lines := played(t, setup{mutate: func(d *PassageDevices) { up = newContact(); d.Position = up }}, func(r *rig) {
			up.changes <- true
			synctest.Wait()
			r.walk()
			up.changes <- false
			synctest.Wait()
		})
		wantLine(t, lines, "opened_outside")
		if len(lines) != 1 {
			t.Errorf("%q", lines)
		}
	})
	t.Run("the call button", func(t *testing.T) {
		var call *contact
		lines := played(t, setup{devices: func(d *Devices) { call = newContact(); d.Call = call }}, func(r *rig) {
			call.changes <- true
			synctest.Wait()
			r.want(edge.LaneReferred)
			v := r.lanes[0].View().Current
			if v.Calls != 1 || !v.Unknown || v.Seq != 0 {
				r.t.Errorf("%+v", v)
			}
			before := v.Deadline
			r.wait(time.Minute)
			call.changes <- true
			synctest.Wait()
			if v := r.lanes[0].View().Current; v.Calls != 2 || !v.Deadline.After(before) {
				r.t.Errorf("%d calls, deadline %s after %s", v.Calls, v.Deadline, before)
			}
			r.mustDo(edge.Action{Kind: edge.ActDeny, Presentation: r.id()})
		})
		wantLine(t, lines, "actor=guard:1", "outcome=deny", "of=0")
		if slices.ContainsFunc(lines, func(l string) bool { return strings.Contains(l, "outcome=admit") }) {
			t.Errorf("%q", lines)
		}
	})
}

// A call rings the booth; when nobody there does anything, it rings the second
// post, once, and not when somebody has answered.
func TestAnUnansweredCallRingsTheSecondPost(t *testing.T) {
	for _, answered := range []bool{false, true} {
		var call *contact
		lines := played(t, setup{devices: func(d *Devices) { call = newContact(); d.Call = call }}, func(r *rig) {
			call.changes <- true
			synctest.Wait()
			if answered {
				r.wait(10 * time.Second)
				r.mustDo(edge.Action{Kind: edge.ActConfirm, Presentation: r.id(), Field: "identity", Text: "known"})
			}
			r.wait(90 * time.Second)
		})
		rung := 0
		for _, l := range lines {
			if strings.Contains(l, "alert lane=lane1") && strings.Contains(l, "call_unanswered") {
				rung++
			}
		}
		if want := map[bool]int{false: 1, true: 0}[answered]; rung != want {
			t.Errorf("answered %v: the second post rang %d times, want %d: %q", answered, rung, want, lines)
		}
	}
}

func newContact() *contact { return &contact{changes: make(chan bool)} }

func TestADeviceThatFlapsIsNotNewsForEver(t *testing.T) {
	lines := played(t, setup{}, func(r *rig) {
		for i := range 20 {
			r.therm[0].set([]device.State{device.StateDisconnected, device.StateOK}[i%2])
			r.wait(2 * time.Second)
		}
	})
	if len(lines) != maxFlaps {
		t.Errorf("%d entries\n%s", len(lines), strings.Join(lines, "\n"))
	}
}

// BenchmarkFactsToOutcome is gathering and deciding, without a journal's commit;
// its floor is the policy's decision on facts that are there already.
func BenchmarkFactsToOutcome(b *testing.B) {
	l, p := benchLane(b)
	pol := l.deps.Policy()
	b.Run("gather and decide", func(b *testing.B) {
		b.ReportAllocs()
		for b.Loop() {
			f, _, err := l.gather(p, pol, l.deps.Clock.Now())
			if err != nil || pol.Decide(f).Outcome != edge.Admit {
				b.Fatal("not admitted", err)
			}
		}
	})
	b.Run("floor: decide only", func(b *testing.B) {
		f, _, err := l.gather(p, pol, l.deps.Clock.Now())
		if err != nil {
			b.Fatal(err)
		}
		b.ReportAllocs()
		for b.Loop() {
			if pol.Decide(f).Outcome != edge.Admit {
				b.Fatal("not admitted")
			}
		}
	})
}

func benchLane(b *testing.B) (*Lane, *presentation) {
	b.Helper()
	deps := testDeps(b, &memory{cells: map[edge.Cell]edge.CellValue{}})
	pa := NewPassage(PassageConfig{Name: "main", OpenFor: time.Second, HeldOpen: time.Second}, PassageDevices{}, NewFire(deps), deps)
	l := New(Config{Name: "in", Direction: edge.In, Level: edge.LevelEstate, Area: "main"}, Devices{}, pa, deps)
	l.ctx = context.Background()
	pass := residents["qr:anna"]
	p := &presentation{id: 1, pass: &pass, house: &edge.Household{ID: 10, Area: "main"}, seq: -1, measured: 1}
	t := l.deps.Policy().Band(device.Temperature{Quality: device.QualityOK, Value: 36.4, Uncertainty: 0.4, Profile: "skin/1"})
	p.temp = &t
	return l, p
}

// What the passage or one of its watchers still sees while it is being stopped is
// recorded: the ledger does not end before them.
func TestWhatIsSeenAtTheEndIsRecorded(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		j := &memory{cells: map[edge.Cell]edge.CellValue{}}
		ctx, stop := context.WithCancel(t.Context())
		deps := testDeps(t, j)
		pa := NewPassage(PassageConfig{Name: "side", OpenFor: time.Second, HeldOpen: time.Second}, PassageDevices{}, NewFire(deps), deps)
		done := make(chan struct{})
		go func() { defer close(done); _ = pa.Run(ctx) }()
		pa.post(func() {
			stop()
			time.Sleep(time.Second) // as long as a command to the barrier may take
			pa.onTamper(device.Change{Active: true, Count: 1})
		})
		<-done
		wantLine(t, j.lines(), "alert", "tamper")
	})
}

// stuck is a journal of which no append returns until it is free.
type stuck struct {
	Journal
	free chan struct{}
}

func (s *stuck) Append(context.Context, *edge.Entry, []edge.Expected) (uint64, error) {
	<-s.free
	return 0, nil
}

// A journal that is stuck at the end does not keep the barrier from being secured.
func TestTheBarrierIsSecuredBeforeTheLedgerEnds(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		j := &stuck{free: make(chan struct{})}
		deps := testDeps(t, j)
		b := &barrier{}
		pa := NewPassage(PassageConfig{Name: "side", OpenFor: time.Second, HeldOpen: time.Second}, PassageDevices{Barrier: b}, NewFire(deps), deps)
		ctx, stop := context.WithCancel(t.Context())
		done := make(chan struct{})
		go func() { defer close(done); _ = pa.Run(ctx) }()
		pa.post(func() { pa.onExit(device.Change{Active: true, Count: 1}) })
		synctest.Wait()
		opened := len(b.log)
		stop()
		time.Sleep(time.Second)
		synctest.Wait()
		if did := b.log[opened:]; !slices.Equal(did, []string{"secure"}) {
			t.Errorf("at the end the barrier got %q", did)
		}
		close(j.free)
		<-done
	})
}
