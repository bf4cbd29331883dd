//go:build vgate

package vgatetest

import (
	"bytes"
	"crypto/sha256"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"os"
	"os/exec"
	"regexp"
	"strconv"
	"strings"
	"testing"
	"time"

	"gatehouse/edge"
)

// asGate runs a program as the service's user and gives what it printed.
func asGate(t *testing.T, args ...string) []byte {
	t.Helper()
	var out, errs bytes.Buffer
	cmd := exec.Command("runuser", append([]string{"-u", "gatehouse", "--"}, args...)...)
	cmd.Stdout, cmd.Stderr = &out, &errs
	if err := cmd.Run(); err != nil {
		t.Fatalf("%s: %v\n%s%s", strings.Join(args, " "), err, out.Bytes(), errs.Bytes())
	}
	return out.Bytes()
}

// unit is a property of the service as the manager sees it.
func unit(t *testing.T, property string) string {
	t.Helper()
	out, err := exec.Command("systemctl", "show", "--value", "-p", property, "gatehouse.service").Output()
	if err != nil {
		t.Fatal(err)
	}
	return strings.TrimSpace(string(out))
}

// journalText is how the service has logged, for a failure.
func journalText() string {
	out, _ := exec.Command("journalctl", "-b", "--no-pager", "-n", "60", "-u", "gatehouse.service").CombinedOutput()
	return string(out)
}

// waitFor waits until a property of the service is as wanted.
func waitFor(t *testing.T, property, want string) {
	t.Helper()
	for end := time.Now().Add(3 * time.Minute); unit(t, property) != want; time.Sleep(200 * time.Millisecond) {
		if time.Now().After(end) {
			t.Fatalf("%s of the service is %s, want %s\n%s", property, unit(t, property), want, journalText())
		}
	}
}

var entriesGauge = regexp.MustCompile(`(?m)^gatehouse_journal_entries(?:\{[^}]*\})? (\S+)$`)

// journalSize asks the running gate for what it has committed.
func journalSize() (int, error) {
	resp, err := http.Get("http://127.0.0.1:9464/metrics")
	if err != nil {
		return 0, err
	}
	defer resp.Body.Close()
	b, err := io.ReadAll(resp.Body)
	if err != nil {
		return 0, err
	}
	m := entriesGauge.FindSubmatch(b)
	if m == nil {
		return 0, fmt.Errorf("no journal entries in %q", b)
	}
	f, err := strconv.ParseFloat(string(m[1]), 64)
	return int(f), err
}

// TestUnitCut is one life between two power cuts. The service has to have started by
// itself; what the earlier lives saw committed, and every barrier that moved, has to
// be in the journal, byte for byte, and the whole has to verify. Then cards are
// presented until the power goes. It tells what is durable in lines for the host:
//
//	state SIZE HASH        the journal at the start of this life
//	acked SIZE ADMISSIONS  committed entries, and admissions whose barrier has moved
//
// WANT is the earlier lives' last "SIZE HASH SIZE ADMISSIONS"; with LAST set nothing
// is presented.
func TestUnitCut(t *testing.T) {
	put(t, persist, "Y")
	put(t, wires, "set 20=0")
	waitFor(t, "ActiveState", "active")
	if n := unit(t, "NRestarts"); n != "0" {
		t.Errorf("the service was started again %s times\n%s", n, journalText())
	}
	for end := time.Now().Add(time.Minute); ; time.Sleep(200 * time.Millisecond) {
		if _, err := journalSize(); err == nil {
			break
		} else if time.Now().After(end) {
			t.Fatal(err)
		}
	}
	verify := asGate(t, "gatehouse", "journal", "verify")
	lines := strings.SplitAfter(string(asGate(t, "gatehouse", "journal", "export")), "\n")
	lines = lines[:len(lines)-1] // after the last newline
	admissions := 0
	for _, l := range lines {
		var e struct{ Outcome edge.Outcome }
		if err := json.Unmarshal([]byte(l), &e); err != nil {
			t.Fatalf("%v: %q", err, l)
		}
		if e.Outcome == edge.Admit {
			admissions++
		}
	}
	hash := func(n int) string {
		return fmt.Sprintf("%x", sha256.Sum256([]byte(strings.Join(lines[:n], ""))))
	}
	if want := strings.Fields(os.Getenv("WANT")); len(want) == 4 {
		var size, acked, moved int
		for i, n := range map[int]*int{0: &size, 2: &acked, 3: &moved} {
			var err error
			if *n, err = strconv.Atoi(want[i]); err != nil {
				t.Fatal(err)
			}
		}
		if len(lines) < max(size, acked) || admissions < moved {
			t.Fatalf("%d entries and %d admissions are there, want %d and %d", len(lines), admissions, max(size, acked), moved)
		}
		if got := hash(size); got != want[1] {
			t.Fatalf("the first %d entries are not what they were", size)
		}
	} else if len(want) != 0 {
		t.Fatalf("WANT is %q", want)
	}
	if t.Failed() {
		return
	}
	words := strings.Split(strings.TrimSpace(string(verify)), "\n")
	fmt.Printf("verified: %s\n", words[len(words)-1])
	fmt.Printf("state %d %s\n", len(lines), hash(len(lines)))
	if os.Getenv("LAST") != "" {
		return
	}
	raw(t, "/dev/ttyGS0")
	outs := &outputs{t: t, seen: map[int][]string{}}
	outs.forget()
	for at := time.Now().Add(-time.Hour); ; time.Sleep(20 * time.Millisecond) {
		if time.Since(at) > 500*time.Millisecond {
			if err := os.WriteFile("/dev/ttyGS0", []byte("\x023C00CE754CCB\x03"), 0); err != nil {
				t.Fatal(err)
			}
			at = time.Now()
		}
		outs.poll()
		size, err := journalSize()
		if err != nil {
			t.Fatalf("%v\n%s", err, journalText())
		}
		fmt.Printf("acked %d %d\n", size, admissions+outs.opened(20))
	}
}
