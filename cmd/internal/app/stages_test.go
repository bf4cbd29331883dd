package app

import (
	"context"
	"errors"
	"log/slog"
	"strings"
	"testing"
	"testing/synctest"
	"time"
)

func recorder(log *[]string, name string, run func(context.Context) error) stage {
	return stage{name: name, run: run, close: func() error { *log = append(*log, "close "+name); return nil }}
}

func untilDone(ctx context.Context) error { <-ctx.Done(); return ctx.Err() }

func TestStagesStopInReverse(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var log []string
		ctx, cancel := context.WithCancel(t.Context())
		err := runStages(ctx, slog.New(slog.DiscardHandler), []stage{recorder(&log, "journal", untilDone), recorder(&log, "sync", untilDone),
			recorder(&log, "lanes", untilDone)}, time.Second, cancel)
		if err != nil {
			t.Errorf("orderly stop: %v", err)
		}
		if got := strings.Join(log, ", "); got != "close lanes, close sync, close journal" {
			t.Errorf("stopped: %s", got)
		}
	})
}

func TestOneFailureStopsAll(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var log []string
		boom := errors.New("disk gone")
		err := runStages(t.Context(), slog.New(slog.DiscardHandler), []stage{recorder(&log, "journal", untilDone),
			recorder(&log, "lane", func(context.Context) error { time.Sleep(time.Minute); return boom })}, time.Second, func() {})
		if !errors.Is(err, boom) || len(log) != 2 {
			t.Errorf("%v, %v", err, log)
		}
	})
}

func TestAStuckStageIsNamedAndLeftBehind(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var log []string
		release := make(chan struct{})
		ctx, cancel := context.WithCancel(t.Context())
		err := runStages(ctx, slog.New(slog.DiscardHandler), []stage{recorder(&log, "journal", untilDone),
			recorder(&log, "device", func(context.Context) error { <-release; return nil })}, 5*time.Second, cancel)
		close(release)
		if err == nil || !strings.Contains(err.Error(), "device: did not stop within 5s") {
			t.Errorf("error %v", err)
		}
		if got := strings.Join(log, ", "); got != "close device, close journal" {
			t.Errorf("stopped: %s", got)
		}
	})
}

func TestAPartThatEndsByItselfIsAnError(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		err := runStages(t.Context(), slog.New(slog.DiscardHandler), []stage{{name: "uplink", run: func(context.Context) error { return nil }}}, time.Second, func() {})
		if !errors.Is(err, errEnded) {
			t.Errorf("error %v", err)
		}
	})
}
