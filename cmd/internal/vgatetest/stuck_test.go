//go:build vgate

package vgatetest

import (
	"context"
	"os"
	"os/exec"
	"os/signal"
	"strings"
	"syscall"
	"testing"
	"time"

	"gatehouse/cmd/internal/app"
	"gatehouse/cmd/internal/config"
	"gatehouse/cmd/internal/logs"
	"gatehouse/edge/lane"
)

// TestStuckDaemon is the daemon, with a lane whose loop stops for good after its first
// admission. TestStuckUnit has the service's manager start it, with gate.yaml's path.
func TestStuckDaemon(t *testing.T) {
	path := os.Getenv("GATEHOUSE_TEST_STUCK")
	if path == "" {
		t.Skip("it is no test of its own")
	}
	log := logs.New(os.Stderr, false)
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGTERM)
	defer stop()
	cfg, err := config.Load(path)
	if err != nil {
		t.Fatal(err)
	}
	n := &app.Notifier{Log: log}
	a, err := app.Build(ctx, cfg, app.Options{Version: "test", Log: log, Notifier: n, Ready: func(*app.App) { n.Ready("open") }, Timings: func(lane.Timing) { select {} }})
	if err != nil {
		t.Fatal(err)
	}
	if err := a.Run(ctx); err != nil {
		t.Fatal(err)
	}
}

// TestStuckUnit: with the real unit, a lane that stands still is noticed, the
// service's manager ends the process by its watchdog, and the next one is in
// business without help.
func TestStuckUnit(t *testing.T) {
	put(t, persist, "Y")
	put(t, wires, "set 20=0")
	sh(t, "dpkg -i /in/gatehouse_1.0.0_amd64.deb")
	conf := `community: lakeside
site: east-garden
gate: east
timezone: UTC
policy: policies/normal-times.yaml
console: {listen: ""}
passages: [{name: main, open_for: 200ms, barrier: {driver: relay, pin: GPIO20, pulse: 50ms}}]
defaults: {held_card: 100ms}
lanes: [{name: in, passage: main, direction: in, thermometer: none, scanner: {driver: rdm6300, port: /dev/ttyACM0, held: 100ms}}]
`
	for path, text := range map[string]string{"/etc/gatehouse/gate.yaml": conf, "/etc/gatehouse/roster.csv": "pass,name,category,building,unit,card\n1002,Li Xiulan,resident,1,102,em:3C00CE754C\n",
		"/etc/systemd/system/gatehouse.service.d/stuck.conf": "[Service]\nEnvironment=GATEHOUSE_TEST_STUCK=/etc/gatehouse/gate.yaml\nExecStartPre=/usr/bin/gatehouse pass import /etc/gatehouse/roster.csv --yes\nExecStart=\nExecStart=/in/gate.test -test.run TestStuckDaemon\n"} {
		if err := os.MkdirAll("/etc/systemd/system/gatehouse.service.d", 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(path, []byte(text), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	sh(t, "gatehouse setup && systemctl start gatehouse")
	waitFor(t, "ActiveState", "active")
	raw(t, "/dev/ttyGS0")
	first := unit(t, "MainPID")
	// Fed for longer than its time while all is well.
	time.Sleep(45 * time.Second)
	if got := unit(t, "NRestarts"); got != "0" {
		t.Fatalf("started again %s times while all was well\n%s", got, journalText())
	}
	for end := time.Now().Add(3 * time.Minute); unit(t, "NRestarts") == "0"; time.Sleep(time.Second) {
		if time.Now().After(end) {
			t.Fatalf("the watchdog does not end it\n%s", journalText())
		}
		if err := os.WriteFile("/dev/ttyGS0", []byte("\x023C00CE754CCB\x03"), 0); err != nil {
			t.Fatal(err)
		}
	}
	said := sh(t, "journalctl -b --no-pager -u gatehouse.service") // the process ends with the stacks of all its parts
	// What the service's manager itself says goes to the console here; SIGABRT is what its
	// watchdog sends (systemd.service(5), WatchdogSec=).
	for _, want := range []string{"lane in has made no progress", "SIGABRT: abort"} {
		if !strings.Contains(said, want) {
			t.Errorf("the log does not say %q:\n%s", want, said)
		}
	}
	waitFor(t, "ActiveState", "active")
	if got := unit(t, "MainPID"); got == first || got == "0" {
		t.Errorf("process %s, was %s", got, first)
	}
	if out, err := exec.Command("runuser", "-u", "gatehouse", "--", "gatehouse", "journal", "verify").CombinedOutput(); err != nil {
		t.Errorf("%v\n%s", err, out)
	}
	sh(t, "systemctl stop gatehouse && dpkg -P gatehouse")
}
