//go:build vgate

package vgatetest

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"
)

// The daemon as it is shipped, beside this test.
const gatehouse = "/in/gatehouse"

const gateYAML = `
community: lakeside
site: east-garden
gate: east
timezone: UTC
policy: normal-times.yaml
state: state
keys: {site: site.key}
console: {listen: ""}
passages:
  - {name: w, open_for: 1s, barrier: {driver: relay, pin: GPIO20, active: high, pulse: 200ms}}
  - {name: s, open_for: 1s, barrier: {driver: relay, pin: GPIO21, active: low, pulse: 200ms}}
  - {name: h, open_for: 1s, barrier: {driver: relay, pin: GPIO22, active: high, pulse: 200ms}}
defaults: {held_card: 500ms, refer_timeout: 2s} # nobody answers for the stranger
lanes:
  - {name: wiegand, passage: w, direction: in, thermometer: none, scanner: {driver: wiegand, d0: GPIO14, d1: GPIO15}}
  - {name: serial, passage: s, direction: in, thermometer: none, scanner: {driver: rdm6300, port: /dev/ttyACM0}}
  - {name: hid, passage: h, direction: in, thermometer: none, scanner: {driver: hid, name: vgate RFID reader, content: decimal, format: W34}}
`

const rosterCSV = `pass,name,category,building,unit,card
1001,Wang Xiaoming,resident,1,101,w26:12/34567
1002,Li Xiulan,resident,1,102,em:3C00CE754C
1003,Zhang Wei,resident,1,103,w34:42
`

// outputs follows what the daemon does to the barriers' lines.
type outputs struct {
	t    *testing.T
	seen map[int][]string
}

var shut = map[int]string{20: "O0", 21: "O1", 22: "O0"}

func (o *outputs) poll() {
	o.t.Helper()
	b, err := os.ReadFile(wiresLog)
	if err != nil {
		o.t.Fatal(err)
	}
	for l := range strings.Lines(string(b)) {
		f := strings.Fields(l)
		if len(f) != 4 || f[2] != "O" {
			continue
		}
		if n, err := strconv.Atoi(f[1]); err == nil && shut[n] != "" {
			o.seen[n] = append(o.seen[n], f[2]+f[3])
		}
	}
}

// forget begins a new look.
func (o *outputs) forget() {
	o.poll()
	o.seen = map[int][]string{}
}

// opened is how often a line was opened, as a string of its distinct levels.
func (o *outputs) opened(line int) int {
	n := 0
	for _, l := range strings.Fields(distinct(strings.Join(o.seen[line], " "))) {
		if l != shut[line] {
			n++
		}
	}
	return n
}

// wantPulse waits for one pulse on a line and for none on the others.
func (o *outputs) wantPulse(line int, what string) {
	o.t.Helper()
	for end := time.Now().Add(time.Minute); ; time.Sleep(50 * time.Millisecond) {
		o.poll()
		if s := o.seen[line]; o.opened(line) == 1 && s[len(s)-1] == shut[line] {
			break
		}
		if time.Now().After(end) {
			o.t.Fatalf("%s: no pulse on GPIO%d: %v", what, line, o.seen)
		}
	}
	for l := range shut {
		if l != line && o.opened(l) > 0 {
			o.t.Errorf("%s: GPIO%d opened too: %v", what, l, o.seen)
		}
	}
	time.Sleep(2 * time.Second) // until the passage is over: nobody went through
	o.forget()
}

// wantShut checks that nothing was opened for a while.
func (o *outputs) wantShut(d time.Duration, what string) {
	o.t.Helper()
	time.Sleep(d)
	o.poll()
	for l := range shut {
		if o.opened(l) > 0 {
			o.t.Errorf("%s: GPIO%d opened: %v", what, l, o.seen)
		}
	}
	o.forget()
}

// TestDaemon runs the appliance with a Wiegand, a serial and a keyboard lane:
// each card opens its own barrier once; a stranger opens none; what is plugged
// in again works again; and no start, stop or crash moves a barrier.
func TestDaemon(t *testing.T) {
	dir := t.TempDir()
	for name, text := range map[string]string{"gate.yaml": gateYAML, "roster.csv": rosterCSV} {
		if err := os.WriteFile(filepath.Join(dir, name), []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	policy, err := os.ReadFile("/in/normal-times.yaml")
	if err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(dir, "normal-times.yaml"), policy, 0o600); err != nil {
		t.Fatal(err)
	}
	conf := filepath.Join(dir, "gate.yaml")
	if out, err := exec.Command(gatehouse, "pass", "import", filepath.Join(dir, "roster.csv"), "--yes", "--config", conf).CombinedOutput(); err != nil {
		t.Fatalf("import: %v\n%s", err, out)
	}
	put(t, persist, "Y")
	quiet(t)
	put(t, wires, "set 20=0 21=1 22=0")
	raw(t, "/dev/ttyGS0")
	outs := &outputs{t: t, seen: map[int][]string{}}
	outs.forget()

	logFile, err := os.Create(filepath.Join(dir, "log"))
	if err != nil {
		t.Fatal(err)
	}
	defer func() {
		if t.Failed() {
			b, _ := os.ReadFile(logFile.Name())
			t.Logf("the daemon's log:\n%s", b)
		}
	}()
	start := func() *exec.Cmd {
		cmd := exec.Command(gatehouse, "run", "--config", conf)
		cmd.Stdout, cmd.Stderr = logFile, logFile
		if err := cmd.Start(); err != nil {
			t.Fatal(err)
		}
		for end := time.Now().Add(time.Minute); len(outs.seen) < len(shut); time.Sleep(100 * time.Millisecond) {
			outs.poll()
			if time.Now().After(end) {
				t.Fatalf("the daemon does not take its barriers: %v", outs.seen)
			}
		}
		outs.wantShut(3*time.Second, "start")
		return cmd
	}
	wiegand := func() { ctl(t, "", "wiegand", "-facility", "12", "-card", "34567", "-period", "200us") }
	serial := func() {
		if err := os.WriteFile("/dev/ttyGS0", []byte("\x023C00CE754CCB\x03"), 0); err != nil {
			t.Fatal(err)
		}
	}
	keyboard := func() { ctl(t, "0000000042\n", "kbd", "-settle", "8s", "-gap", "1ms") }

	cmd := start()
	defer func() { _ = cmd.Process.Kill() }()
	for round := range 3 {
		wiegand()
		outs.wantPulse(20, fmt.Sprintf("Wiegand card, round %d", round))
		serial()
		outs.wantPulse(21, fmt.Sprintf("serial card, round %d", round))
		keyboard()
		outs.wantPulse(22, fmt.Sprintf("typed card, round %d", round))
	}
	ctl(t, "", "wiegand", "-facility", "12", "-card", "9999")
	outs.wantShut(5*time.Second, "a stranger's card")

	unplug(t)
	outs.wantShut(2*time.Second, "unplugged")
	wiegand()
	outs.wantPulse(20, "Wiegand card while the serial reader is away")
	plug(t)
	time.Sleep(8 * time.Second) // the longest back-off
	serial()
	outs.wantPulse(21, "serial card after replugging")

	if err := cmd.Process.Kill(); err != nil {
		t.Fatal(err)
	}
	_ = cmd.Wait() // killed, as was meant
	outs.wantShut(time.Second, "crash")
	cmd = start()
	serial()
	outs.wantPulse(21, "serial card after a crash")
	if err := cmd.Process.Signal(syscall.SIGTERM); err != nil {
		t.Fatal(err)
	}
	if err := cmd.Wait(); err != nil {
		t.Errorf("stopped: %v", err)
	}
	outs.wantShut(time.Second, "stop")
}
