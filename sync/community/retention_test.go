package community

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"path/filepath"
	"testing"
	"time"

	"gatehouse/edge"
	"gatehouse/edge/clock"
)

func TestTimeLeaps(t *testing.T) { testTimeLeaps(t, filepath.Join(t.TempDir(), "c.db")) }

// A clock that has leapt destroys nothing, whether the machine ran meanwhile or was
// off, until it can be believed.
func testTimeLeaps(t *testing.T, where string) {
	ctx := context.Background()
	s, b, stop := start(t, where)
	d := newDevice("estate", "east", 7, 1)
	register(t, s, d, "")
	d.add(aged(time.Now(), "decision", 1, 1))
	d.want(t, d.send(t, b, 0, 1), 1)
	stop()

	begin := time.Now()
	var open *Server
	for _, c := range []struct {
		name    string
		wall    time.Duration // since begin
		ran     time.Duration // by the monotonic clock, since the machine's start
		boot    string
		gates   []time.Duration // what time it is at gates with a synchronized clock, against wall
		unset   bool            // the gates' clocks are not synchronized
		pending bool            // nobody has approved them
		confirm bool
		refused bool
		left    uint64
	}{
		{name: "the first time", left: 1, boot: "a"},
		{name: "it runs on", wall: 6 * time.Hour, ran: 6 * time.Hour, boot: "a", left: 1},
		{name: "a leap while it runs", wall: 40 * 24 * time.Hour, ran: 12 * time.Hour, boot: "a", refused: true, left: 1},
		{name: "still", wall: 41 * 24 * time.Hour, ran: 36 * time.Hour, boot: "a", refused: true, left: 1},
		{name: "set right", wall: 37 * time.Hour, ran: 37 * time.Hour, boot: "a", left: 1},
		{name: "a reboot", wall: 40 * time.Hour, boot: "b", left: 1},
		{name: "a reboot with another time", wall: 50 * 24 * time.Hour, boot: "c", refused: true, left: 1},
		{name: "no gate says so", wall: 50 * 24 * time.Hour, boot: "c", gates: []time.Duration{0, 0}, unset: true, refused: true, left: 1},
		{name: "nobody's gates say so", wall: 50 * 24 * time.Hour, boot: "c", gates: []time.Duration{0, 0, 0}, pending: true, refused: true, left: 1},
		{name: "as many gates as not", wall: 50 * 24 * time.Hour, boot: "c", gates: []time.Duration{0, -48 * 24 * time.Hour}, refused: true, left: 1},
		{name: "most gates", wall: 50 * 24 * time.Hour, boot: "c", gates: []time.Duration{0, -time.Minute, -48 * 24 * time.Hour}, left: 0},
		{name: "a year off", wall: 400 * 24 * time.Hour, boot: "d", refused: true},
		{name: "an operator says so", wall: 400 * 24 * time.Hour, boot: "d", confirm: true},
		{name: "and it runs on", wall: 401 * 24 * time.Hour, ran: 24 * time.Hour, boot: "d"},
	} {
		clk := clock.NewFake(begin.Add(c.wall), 0)
		clk.Set(edge.Stamp{Time: begin.Add(c.wall).UnixMilli(), Mono: c.ran.Milliseconds(), Boot: c.boot, Clock: edge.ClockSynced})
		var err error
		if open, err = Open(ctx, where, Config{Community: community, Signer: serverKey, Log: slog.New(slog.DiscardHandler), Clock: clk}); err != nil {
			t.Fatal(err)
		}
		for i, off := range c.gates {
			x := newDevice("estate", fmt.Sprint("g", i), 1, byte(i+10))
			if c.pending {
				x = newDevice("estate", fmt.Sprint("nobody", i), 1, byte(i+20))
				if err := open.setKey(ctx, x.site, x.gate, x.key.Public(), "", KeyPending, "status"); err != nil {
					t.Fatal(err)
				}
			} else {
				register(t, open, x, "")
			}
			state := edge.ClockSynced
			if c.unset {
				state = edge.ClockUnset
			}
			at := begin.Add(c.wall).UnixMilli()
			if _, err := open.store.w.Exec(`UPDATE gate SET status = $1, status_at = $2 WHERE name = $3`,
				fmt.Sprintf(`{"v":1,"online":true,"t":%d,"clock":%q}`, at+off.Milliseconds(), state), at, x.gate); err != nil {
				t.Fatal(err)
			}
		}
		_, err = open.Enforce(ctx, Retention{}, c.confirm)
		if errors.Is(err, ErrTime) != c.refused || err != nil && !c.refused {
			t.Errorf("%s: %v", c.name, err)
		}
		alerts, err := open.Alerts(ctx, "")
		if err != nil || (len(alerts) > 0) != c.refused {
			t.Errorf("%s: alerts %+v %v", c.name, alerts, err)
		}
		cs, err := open.Counts(ctx, "estate", "east")
		if err != nil || cs[0].Stored != c.left {
			t.Errorf("%s: %+v %v, want %d left", c.name, cs, err, c.left)
		}
		if err := open.Close(); err != nil {
			t.Fatal(err)
		}
	}
}
