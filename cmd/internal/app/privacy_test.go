package app

import (
	"bytes"
	"context"
	"fmt"
	"log/slog"
	"strings"
	"sync"
	"testing"
	"time"

	"gatehouse/device/sim"
	"gatehouse/edge"
	"gatehouse/edge/registry"
)

type lockedBuffer struct {
	mu sync.Mutex
	b  bytes.Buffer
}

func (l *lockedBuffer) Write(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.b.Write(p)
}

func (l *lockedBuffer) String() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.b.String()
}

// What goes to the system's log, at its most talkative, names nobody: no name,
// no card number, no pass, not even of a card that nobody knows.
func TestLogsNameNobody(t *testing.T) {
	var out lockedBuffer
	a, port := gateLogging(t, t.TempDir(), slog.New(slog.NewTextHandler(&out, &slog.HandlerOptions{Level: slog.LevelDebug})))
	const surname, building, unit = "Zaphodbeeblebrox", "Magrathea", "4242"
	if _, err := a.Registry.Import(t.Context(), func(yield func(edge.RosterRow, error) bool) {
		for i := range 3 {
			row := edge.RosterRow{Pass: edge.Pass{ID: edge.PassID(987650 + i), Category: "resident", Status: edge.PassActive, Name: surname, Building: building, Unit: unit},
				Credentials: []edge.Credential{edge.Credential(fmt.Sprintf("em:3C00CE75%02X", i+1))}}
			if i == 2 {
				row.Pass.Status = edge.PassLost
			}
			if !yield(row, nil) {
				return
			}
		}
	}, registry.ImportOptions{}); err != nil {
		t.Fatal(err)
	}
	line, err := sim.NewSerial(port)
	if err != nil {
		t.Fatal(err)
	}
	defer line.Close()
	reader := sim.NewRDM6300(line, 1)
	ctx, stop := context.WithCancel(t.Context())
	done := make(chan error, 1)
	go func() { done <- a.Run(ctx) }()
	decided := func() int {
		n := 0
		eachEntry(t, a.Journal, func(e *edge.Entry) {
			if e.Kind == edge.KindDecision {
				n++
			}
		})
		return n
	}
	// Known, lost, unknown, and noise between them.
	for i, last := range []byte{1, 3, 0xEE} {
		until(t, "a decision", func() bool {
			_ = reader.Hold(ctx, sim.EM4100{0x3C, 0x00, 0xCE, 0x75, last}, 100*time.Millisecond)
			return decided() > i
		})
	}
	stop()
	if err := <-done; err != nil {
		t.Error(err)
	}
	text := out.String()
	if !strings.Contains(text, "level=") {
		t.Fatal("nothing was logged at all")
	}
	for _, secret := range []string{surname, building, unit, "98765", "00CE75", "00ce75", "13530625", "13530627", "13530862"} {
		if strings.Contains(text, secret) {
			for line := range strings.Lines(text) {
				if strings.Contains(line, secret) {
					t.Errorf("the log has %q: %s", secret, line)
				}
			}
		}
	}
}
