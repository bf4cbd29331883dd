//go:build vgate

package vgatetest

import (
	"bytes"
	"fmt"
	"os"
	"os/exec"
	"regexp"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"
)

// typed is what an installer has typed, and what the machine has said to it.
type typed struct {
	t    *testing.T
	mu   sync.Mutex
	said map[string]*bytes.Buffer
}

// busyFor is how long the machine's processor has worked since its start.
func busyFor(t *testing.T) time.Duration {
	t.Helper()
	b, err := os.ReadFile("/proc/stat")
	if err != nil {
		t.Fatal(err)
	}
	ticks := 0
	for i, f := range strings.Fields(string(b[:bytes.IndexByte(b, '\n')])) {
		if n, err := strconv.Atoi(f); err == nil && i != 4 && i != 5 && i < 8 { // neither idle nor waiting for the disk
			ticks += n
		}
	}
	return time.Duration(ticks) * 10 * time.Millisecond
}

type sink struct {
	mu *sync.Mutex
	b  *bytes.Buffer
}

func (s sink) Write(p []byte) (int, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.b.Write(p)
}

func (y *typed) text(command string) string {
	y.mu.Lock()
	defer y.mu.Unlock()
	return y.said[command].String()
}

// start types a command and does not wait for its end.
func (y *typed) start(name, command string) *exec.Cmd {
	y.t.Helper()
	c := exec.Command("sh", "-c", "exec "+command)
	y.said[name] = new(bytes.Buffer)
	c.Stdout = sink{&y.mu, y.said[name]}
	c.Stderr = c.Stdout
	if err := c.Start(); err != nil {
		y.t.Fatal(err)
	}
	return c
}

func (y *typed) wait(name string, want *regexp.Regexp) []string {
	y.t.Helper()
	for end := time.Now().Add(3 * time.Minute); ; time.Sleep(50 * time.Millisecond) {
		if m := want.FindStringSubmatch(y.text(name)); m != nil {
			return m
		}
		if time.Now().After(end) {
			y.t.Fatalf("%s has not said %v:\n%s", name, want, y.text(name))
		}
	}
}

// run types a command and gives what it said.
func (y *typed) run(command string) string {
	y.t.Helper()
	begin, worked := time.Now(), busyFor(y.t)
	out, err := exec.Command("sh", "-c", command).CombinedOutput()
	y.t.Logf("%6.1f s, processor busy for %5.1f: %s", time.Since(begin).Seconds(), (busyFor(y.t) - worked).Seconds(), command)
	if err != nil {
		y.t.Fatalf("%s: %v\n%s", command, err, out)
	}
	return string(out)
}

// commands are the lines that the page gives to be typed, by the title of their part.
// Lines that continue are joined, and what a program answers is left out.
func commands(page string) map[string][]string {
	out := map[string][]string{}
	part := ""
	for line := range strings.Lines(strings.ReplaceAll(page, "\\\n", " ")) {
		if title, ok := strings.CutPrefix(line, "## "); ok {
			part = strings.TrimSpace(title)
		}
		line, ok := strings.CutPrefix(line, "    ")
		line, _, _ = strings.Cut(line, " # ")
		if line = strings.Join(strings.Fields(line), " "); ok && line != "" && !strings.HasPrefix(line, "gatehouse://") {
			out[part] = append(out[part], line)
		}
	}
	return out
}

var (
	invited = regexp.MustCompile(`(gatehouse://\S+\?pin=\S+)`)
	// Of the gate: receipted, stored, none missing, none twice.
	stored = regexp.MustCompile(`north/east\s.*\s[1-9]\d*\s+[1-9]\d*\s+0\s+0\s`)
	asCode = regexp.MustCompile(`([0-9A-Z]{4}-[0-9A-Z]{4}-[0-9A-Z]{4})`)
)

// TestFirstGate goes through first-gate.md, command by command as they stand there, from
// a bare system to the first decision about a card, and says how long the machine took.
// What the newcomer does by hand is here: the gate's name and wires in gate.yaml, the
// carrying of invitation and code from one screen to the other, and the card. The
// device stays a gate for the tests after it.
func TestFirstGate(t *testing.T) {
	src, err := os.ReadFile("/in/first-gate.md")
	if err != nil {
		t.Fatal(err)
	}
	page := commands(string(src))
	y := &typed{t: t, said: map[string]*bytes.Buffer{}}
	seen := 0
	// step gives the commands of a part of the page, whose title begins so.
	step := func(number string) []string {
		t.Helper()
		for title, lines := range page {
			if strings.HasPrefix(title, number+".") {
				seen += len(lines)
				return lines
			}
		}
		t.Fatalf("the page has no part %s", number)
		return nil
	}
	writeFile(t, "/etc/hosts", "127.0.0.1 localhost community.example\n", 0o644)
	begin, worked := time.Now(), busyFor(t)

	y.run("apt-get install -y -q /in/communityd_1.0.0_amd64.deb")
	var invitation string
	for _, c := range step("1") {
		if vars, ok := strings.CutPrefix(c, "export "); ok {
			for v := range strings.FieldsSeq(vars) {
				name, value, _ := strings.Cut(v, "=")
				t.Setenv(name, value)
			}
			continue
		}
		if strings.HasPrefix(c, "communityd run ") {
			srv := y.start("communityd", c)
			t.Cleanup(func() { _ = srv.Process.Kill(); _ = srv.Wait() })
			y.wait("communityd", regexp.MustCompile(`listen|ready|broker`))
			continue
		}
		if m := invited.FindStringSubmatch(y.run(c)); m != nil {
			invitation = m[1]
		}
	}
	if invitation == "" {
		t.Fatal("no command of part 1 has printed an invitation")
	}

	y.run("apt-get install -y -q /in/gatehouse_1.0.0_amd64.deb")
	var code string
	var asking *exec.Cmd
	for _, c := range step("2") {
		switch {
		case strings.HasPrefix(c, "gatehouse enroll "):
			asking = y.start("enroll", invited.ReplaceAllLiteralString(c, invitation+`"`))
			code = y.wait("enroll", regexp.MustCompile(`code: +([0-9A-Z-]{14})`))[1]
			y.wait("enroll", regexp.MustCompile(`AGE-SECRET-KEY-1`))
		case strings.HasPrefix(c, "cp "):
			y.run(c)
			byHand(t)
			y.run("gatehouse devices find")
		default:
			y.run(c)
		}
	}
	approved := time.Now()
	for _, c := range step("3") {
		if strings.HasPrefix(c, "communityd gates asking") {
			if got := y.run(c); !strings.Contains(got, code) {
				t.Errorf("the server shows another code than the device, %s:\n%s", code, got)
			}
			continue
		}
		if strings.HasPrefix(c, "systemctl ") {
			if err := asking.Wait(); err != nil {
				t.Fatalf("enroll: %v\n%s", err, y.text("enroll"))
			}
			t.Logf("%6.1f s  from the look at the server to the device's word that it is approved", time.Since(approved).Seconds())
		}
		y.run(asCode.ReplaceAllLiteralString(c, code))
	}

	waitFor(t, "ActiveState", "active")
	raw(t, "/dev/ttyGS0")
	card := time.Now()
	decided := regexp.MustCompile(`"kind":"decision"`)
	within(t, time.Minute, "a decision about the card", func() bool {
		if err := os.WriteFile("/dev/ttyGS0", []byte("\x023C00CE754CCB\x03"), 0); err != nil {
			t.Fatal(err)
		}
		return decided.Match(asGate(t, "gatehouse", "journal", "export"))
	})
	total, busy := time.Since(begin), busyFor(t)-worked
	t.Logf("%6.1f s  from the card to its entry", time.Since(card).Seconds())
	fmt.Printf("first decision after %.0f s, in which the processor was busy for %.0f\n", total.Seconds(), busy.Seconds())
	for _, c := range step("4") {
		if strings.HasPrefix(c, "gatehouse journal tail") {
			if got := y.run("timeout 10 " + c + " || test $? = 124"); !strings.Contains(got, "unknown") {
				t.Errorf("the journal's tail shows no unknown card:\n%s", got)
			}
			continue
		}
		within(t, time.Minute, "the gate's entries at the server", func() bool {
			return stored.MatchString(y.run(c))
		})
	}
	if seen < 9 {
		t.Errorf("only %d commands of the page were typed", seen)
	}
}

// byHand writes in gate.yaml who the gate is and what is wired to it, as the page says.
func byHand(t *testing.T) {
	t.Helper()
	const path = "/etc/gatehouse/gate.yaml"
	b, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	text := string(b)
	for old, is := range map[string]string{
		"site: east-garden": "site: north",
		"gate: side":        "gate: east",
		"scanner: console\n    thermometer: typed\n  - name": "scanner: {driver: rdm6300, port: /dev/ttyACM0}\n    thermometer: none\n  - name",
		"policies/closed-estate.yaml":                        "policies/normal-times.yaml",
	} {
		if !strings.Contains(text, old) {
			t.Fatalf("the example has no %q", old)
		}
		text = strings.Replace(text, old, is, 1)
	}
	writeFile(t, path, text+"\nmetrics: {listen: 127.0.0.1:9464}\n", 0o644)
}
