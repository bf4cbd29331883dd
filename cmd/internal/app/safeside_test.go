package app

import (
	"bytes"
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"testing/fstest"
	"time"

	"golang.org/x/sys/unix"
	"periph.io/x/conn/v3/gpio"

	"gatehouse/cmd/internal/config"
	"gatehouse/device/sim"
	"gatehouse/edge"
	firmwareconfig "gatehouse/firmware-config"
)

// egress makes the folder of a gate with a barrier, an exit button, a fire contact, a
// reader and a guard's page.
func egress(t *testing.T, more string) *config.Gate {
	t.Helper()
	dir := t.TempDir()
	pol, err := firmwareconfig.Samples.ReadFile("policies/normal-times.yaml")
	if err != nil {
		t.Fatal(err)
	}
	yaml := "community: c\nsite: s\ngate: g\nname: East gate\nstate: state\npolicy: policy.yaml\n" + more +
		"passages: [{name: main, open_for: 200ms, barrier: {driver: relay, pin: BARRIER, active: high, pulse: 50ms}," +
		" exit_button: {driver: gpio, pin: EXIT, active: low, pull: up, debounce: 1ms}, fire: {driver: gpio, pin: FIRE, active: low, pull: up, debounce: 1ms}}]\n" +
		"lanes: [{name: in, passage: main, direction: in, scanner: {driver: rdm6300, port: reader}, indicator: {driver: lamps, go: GO, stop: STOP}, thermometer: none}]\n"
	yaml = strings.ReplaceAll(yaml, "port: reader", fmt.Sprintf("port: %q", filepath.Join(dir, "reader")))
	for name, text := range map[string]string{"policy.yaml": string(pol), "gate.yaml": yaml} {
		if err := os.WriteFile(filepath.Join(dir, name), []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	cfg, err := config.Load(filepath.Join(dir, "gate.yaml"))
	if err != nil {
		t.Fatal(err)
	}
	return cfg
}

// opened counts how often the barrier was released.
func opened(board *sim.Pins) func() int {
	var mu sync.Mutex
	n := 0
	board.Pin("BARRIER").OnMove(func(m sim.Move) {
		mu.Lock()
		defer mu.Unlock()
		if m.Level == gpio.High {
			n++
		}
	})
	return func() int {
		mu.Lock()
		defer mu.Unlock()
		return n
	}
}

// said is a log that may be read while it is written.
type said struct {
	mu  sync.Mutex
	buf bytes.Buffer
}

func (s *said) Write(p []byte) (int, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.buf.Write(p)
}

func (s *said) String() string {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.buf.String()
}

func free(t *testing.T) string {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	return l.Addr().String()
}

// A gate that starts on a medium that can only be read lets nobody in, opens for the
// exit button and for fire, says everywhere what is wrong, and goes on by itself when
// the medium can be written: with a journal that knows what happened meanwhile.
func TestStartOnAReadOnlyMedium(t *testing.T) {
	health, page := free(t), free(t)
	cfg := egress(t, fmt.Sprintf("metrics: {listen: %q}\nconsole: {listen: %q}\n", health, page))
	board := sim.NewPins()
	log := new(said)
	o := Options{Version: "test", TrustClock: true, Pins: board.Open, Log: slog.New(slog.NewTextHandler(log, nil))}
	a, err := Build(t.Context(), cfg, o)
	if err != nil {
		t.Fatal(err)
	}
	epoch := a.Journal.Epoch()
	if err := a.Close(); err != nil {
		t.Fatal(err)
	}
	if err := unix.Mount(cfg.State, cfg.State, "", unix.MS_BIND, ""); err != nil {
		if os.Getenv("CI") != "" {
			t.Fatal(err)
		}
		t.Skipf("cannot mount here (%v); .ci/run is root and can", err)
	}
	t.Cleanup(func() { _ = unix.Unmount(cfg.State, unix.MNT_DETACH) })
	if err := unix.Mount("", cfg.State, "", unix.MS_BIND|unix.MS_REMOUNT|unix.MS_RDONLY, ""); err != nil {
		t.Fatal(err)
	}
	beside := o
	beside.Beside = true
	if a, err := Build(t.Context(), cfg, beside); err == nil {
		t.Errorf("a look beside the daemon finds nothing wrong; %v", a.Close())
	} else if !strings.Contains(err.Error(), "can only be read") {
		t.Errorf("a look beside the daemon: %v", err)
	}
	fed := manager(t, t.TempDir())
	o.Notifier = &Notifier{Log: slog.New(slog.DiscardHandler)}
	_, why := Build(t.Context(), cfg, o)
	if !ReadOnly(why) {
		t.Fatalf("%v does not tell of the medium", why)
	}
	line, err := sim.NewSerial(filepath.Join(filepath.Dir(cfg.State), "reader"))
	if err != nil {
		t.Fatal(err)
	}
	defer line.Close()
	reader := sim.NewRDM6300(line, 1)
	count := opened(board)
	type ended struct {
		kept []*edge.Entry
		err  error
	}
	done := make(chan ended, 1)
	go func() {
		kept, err := SafeSide(t.Context(), cfg, o, why)
		done <- ended{kept, err}
	}()
	until(t, "the watchdog is fed", func() bool { return fed.Load() > 2 })

	until(t, "a card is refused", func() bool {
		_ = reader.Hold(t.Context(), sim.EM4100{0x3C, 0x00, 0xCE, 0x75, 0x01}, 100*time.Millisecond)
		return strings.Contains(log.String(), "nobody is let through")
	})
	if n := count(); n != 0 {
		t.Fatalf("the barrier was released %d times for a card", n)
	}
	pressed := time.Now()
	board.Pin("EXIT").Drive(gpio.Low)
	until(t, "the exit button opens", func() bool { return count() == 1 })
	board.Pin("EXIT").Drive(gpio.High)
	until(t, "the barrier is secured", func() bool { return board.Pin("BARRIER").Level() == gpio.Low })
	board.Pin("FIRE").Drive(gpio.Low)
	until(t, "fire opens", func() bool { return board.Pin("BARRIER").Level() == gpio.High })
	board.Pin("FIRE").Drive(gpio.High)
	until(t, "the fire is over", func() bool { return board.Pin("BARRIER").Level() == gpio.Low })

	client := &http.Client{Transport: &http.Transport{TLSClientConfig: &tls.Config{InsecureSkipVerify: true}}}
	defer client.CloseIdleConnections()
	for url, want := range map[string][]string{
		"http://" + health + "/healthz": {"can only be read", "replace it", "remount"},
		"http://" + health + "/metrics": {"gatehouse_healthy 0"},
		"https://" + page + "/":         {"East gate", "暂停放行", "lets nobody in", "Exit buttons"},
	} {
		until(t, url, func() bool {
			resp, err := client.Get(url)
			if err != nil {
				return false
			}
			b, err := io.ReadAll(resp.Body)
			_ = resp.Body.Close()
			if err != nil {
				return false
			}
			for _, w := range want {
				if !strings.Contains(string(b), w) {
					t.Errorf("%s does not say %q:\n%s", url, w, b)
				}
			}
			if (resp.StatusCode == http.StatusServiceUnavailable) == strings.HasSuffix(url, "/metrics") {
				t.Errorf("%s: %s", url, resp.Status)
			}
			return true
		})
	}

	if err := unix.Mount("", cfg.State, "", unix.MS_BIND|unix.MS_REMOUNT, ""); err != nil {
		t.Fatal(err)
	}
	var got ended
	select {
	case got = <-done:
	case <-time.After(30 * time.Second):
		t.Fatal("it does not go on when the medium can be written")
	}
	if got.err != nil {
		t.Fatal(got.err)
	}
	o.Late = got.kept
	ready := make(chan struct{})
	o.Ready = func(*App) { close(ready) }
	if a, err = Build(t.Context(), cfg, o); err != nil {
		t.Fatal(err)
	}
	if a.Journal.Epoch() != epoch {
		t.Error("another epoch has begun")
	}
	ctx, stop := context.WithCancel(t.Context())
	ran := make(chan error, 1)
	go func() { ran <- a.Run(ctx) }()
	select {
	case <-ready:
	case err := <-ran:
		t.Fatal(err)
	}
	times := map[string]int64{}
	until(t, "what happened is recorded", func() bool {
		eachEntry(t, a.Journal, func(e *edge.Entry) {
			if e.Kind == edge.KindAction && strings.Contains(string(e.Data), "exit_button") || e.Kind == edge.KindFire {
				times[string(e.Data)] = e.Stamp.Time
			}
			if e.Kind == edge.KindDecision {
				t.Errorf("a decision was recorded: %s", e.Data)
			}
		})
		return len(times) == 3 // the button, fire, no fire
	})
	for what, at := range times {
		if d := time.UnixMilli(at).Sub(pressed); d < -time.Second || d > 20*time.Second {
			t.Errorf("%s is recorded as %v after the button", what, d)
		}
	}
	stop()
	if err := <-ran; err != nil {
		t.Error(err)
	}
}

// A medium that takes nothing any more under the running gate does not end it: exits
// open, and what is wrong with the board is told again until somebody can hear it.
func TestJournalFailsUnderTheRunningGate(t *testing.T) {
	cfg := egress(t, "console: {listen: ''}\n")
	board := sim.NewPins()
	log := new(said)
	sys := fstest.MapFS{"sys/devices/platform/soc/soc:firmware/get_throttled": &fstest.MapFile{Data: []byte("1")}}
	a, err := Build(t.Context(), cfg, Options{Version: "test", TrustClock: true, Pins: board.Open, Board: sys, Log: slog.New(slog.NewTextHandler(log, nil))})
	if err != nil {
		t.Fatal(err)
	}
	a.board.every = 10 * time.Millisecond
	broken := errors.New("the medium takes nothing")
	var tries int
	var mu sync.Mutex
	a.board.record = func(context.Context, edge.Kind, any) (edge.EntryRef, error) {
		mu.Lock()
		defer mu.Unlock()
		tries++
		return edge.EntryRef{}, broken
	}
	count := opened(board)
	ctx, stop := context.WithCancel(t.Context())
	done := make(chan error, 1)
	go func() { done <- a.Run(ctx) }()
	until(t, "the board's problem is told again and again", func() bool {
		select {
		case err := <-done:
			t.Fatalf("the gate has ended: %v", err)
		default:
		}
		mu.Lock()
		defer mu.Unlock()
		return tries > 5
	})
	if err := a.Journal.Close(); err != nil {
		t.Fatal(err)
	}
	board.Pin("EXIT").Drive(gpio.Low)
	until(t, "the exit button opens", func() bool { return count() == 1 })
	board.Pin("EXIT").Drive(gpio.High)
	if err := a.Alive(); err != nil {
		t.Error(err)
	}
	if !strings.Contains(log.String(), broken.Error()) {
		t.Error("nothing in the log")
	}
	stop()
	if err := <-done; err != nil && !strings.Contains(err.Error(), "the journal is closed") {
		t.Error(err)
	}
}
