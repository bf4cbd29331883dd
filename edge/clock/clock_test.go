package clock

import (
	"context"
	"os"
	"path/filepath"
	"strconv"
	"testing"
	"time"

	"gatehouse/edge"
)

func TestFloorHolds(t *testing.T) {
	future := time.Now().Add(1000 * time.Hour)
	c, err := New(Options{Build: future, TrustSystem: true})
	if err != nil {
		t.Fatal(err)
	}
	s := c.Now()
	if s.Time != future.UnixMilli() || s.Clock != edge.ClockUnset {
		t.Errorf("a clock before the build says %d %s", s.Time, s.Clock)
	}
	if len(s.Boot) != 8 || s.Mono <= 0 {
		t.Errorf("boot %q mono %d", s.Boot, s.Mono)
	}
}

func TestKeptTimeIsAFloorAcrossStarts(t *testing.T) {
	keep := filepath.Join(t.TempDir(), "time")
	kept := time.Now().Add(500 * time.Hour).UnixMilli()
	if err := os.WriteFile(keep, []byte(strconv.FormatInt(kept, 10)), 0o600); err != nil {
		t.Fatal(err)
	}
	c, err := New(Options{Keep: keep, TrustSystem: true})
	if err != nil {
		t.Fatal(err)
	}
	if got := c.Now().Time; got != kept {
		t.Errorf("time runs backwards across a start: %d, kept %d", got, kept)
	}
	ctx, cancel := context.WithCancel(context.Background())
	cancel()
	_ = c.Run(ctx)
	b, _ := os.ReadFile(keep)
	if string(b) != strconv.FormatInt(kept, 10) {
		t.Errorf("an untrusted time was kept: %s", b)
	}
}

func TestServerTimeSetsAnUnsetClock(t *testing.T) {
	if kernelSynced() {
		t.Log("the kernel's clock is disciplined here; the server's time only moves the floor")
	}
	c, err := New(Options{})
	if err != nil {
		t.Fatal(err)
	}
	want := time.Now().Add(300 * time.Hour)
	c.SetServer(want)
	s := c.Now()
	if d := s.Time - want.UnixMilli(); d < 0 || d > 60_000 {
		t.Errorf("server said %d, the clock says %d", want.UnixMilli(), s.Time)
	}
	if !kernelSynced() && s.Clock != edge.ClockServer {
		t.Errorf("state %s", s.Clock)
	}
}

func TestZoneWithHalfHour(t *testing.T) {
	loc, err := time.LoadLocation("Asia/Kolkata")
	if err != nil {
		t.Fatal(err)
	}
	c, err := New(Options{Location: loc, TrustSystem: true})
	if err != nil {
		t.Fatal(err)
	}
	if s := c.Now(); s.Offset != 330 {
		t.Errorf("offset %d minutes", s.Offset)
	}
}
