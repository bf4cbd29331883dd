package outage

import (
	"bytes"
	"context"
	"fmt"
	"testing"
	"time"

	"gatehouse/edge"
	"gatehouse/sync/uplink"
)

// A gate was offline beyond its retention: what it knows of persons it has sealed
// to the community and cannot read any more. It is delivered all the same, to the
// byte, and the server's proofs hold.
func TestOverdueEntriesArrive(t *testing.T) {
	ctx := context.Background()
	e := newEstate(t)
	e.online(t)
	e.add(40)
	e.drained(20 * time.Second)
	e.stopGate()
	lines := map[uint64][]byte{}
	for i := range 700 {
		e.clock.Advance(time.Minute)
		x := &edge.Entry{Kind: edge.KindDecision, Lane: "in", Presentation: uint64(i + 1), Of: -1, Stamp: e.clock.Now(), Outcome: edge.Admit, Rule: "resident", Reason: "resident",
			Facts: &edge.Facts{Pass: &edge.PassFacts{ID: edge.PassID(i + 1), Category: "resident", Status: edge.PassActive}, Lane: edge.LaneFacts{Direction: edge.In}}}
		if i%40 == 7 { // technical: it stays
			x = &edge.Entry{Kind: edge.KindDevice, Of: -1, Actor: "system", Stamp: e.clock.Now(), Data: fmt.Appendf(nil, `{"n":%d}`, i)}
		}
		if _, err := e.j.Append(ctx, x, nil); err != nil {
			t.Fatal(err)
		}
	}
	all, err := e.j.Read(ctx, 0, 10_000, 1<<30)
	if err != nil {
		t.Fatal(err)
	}
	for _, s := range all {
		lines[s.Seq] = s.Line
	}
	// All but the last hundred minutes are overdue.
	if _, err := e.j.Purge(ctx, time.UnixMilli(e.clock.Now().Time).Add(-100*time.Minute)); err != nil {
		t.Fatal(err)
	}
	if _, err := e.j.Sealed(ctx, 45); err != nil {
		t.Fatalf("nothing was sealed: %v", err)
	}
	e.gate(t, uplink.Config{Entries: 100, Age: 10 * time.Millisecond, Resend: 500 * time.Millisecond})
	e.drained(30 * time.Second)
	arrived := 0
	err = e.srv.Export(ctx, "s", "g", e.j.Epoch(), func(seq uint64, line []byte) error {
		if want, ok := lines[seq]; ok {
			arrived++
			if !bytes.Equal(line, want) {
				return fmt.Errorf("entry %d is\n%s\nwant\n%s", seq, line, want)
			}
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	if arrived != len(lines) {
		t.Errorf("%d of %d entries arrived", arrived, len(lines))
	}
	if bad, err := e.srv.Verify(ctx, "s", "g"); err != nil || len(bad) > 0 {
		t.Errorf("%v, %v", bad, err)
	}
	for _, seq := range []uint64{45, 300, 700} {
		if _, err := e.srv.Prove(ctx, "s", "g", e.j.Epoch(), seq); err != nil {
			t.Errorf("entry %d: %v", seq, err)
		}
	}
}

// online starts the server and the gate on a broker of the test's own.
func (e *estate) online(t *testing.T) {
	t.Helper()
	e.addr = embedded(t)
	e.startServer(dial(t, "mqtt://"+e.addr, "server"))
	e.gate(t, uplink.Config{Entries: 100, Age: 10 * time.Millisecond})
}

func (e *estate) gate(t *testing.T, cfg uplink.Config) {
	t.Helper()
	e.startGate(dial(t, "mqtt://"+e.addr, "gate"), cfg)
}
