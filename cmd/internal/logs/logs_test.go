package logs

import (
	"bytes"
	"errors"
	"log/slog"
	"maps"
	"strings"
	"testing"

	"github.com/coreos/go-systemd/v22/journal"
)

func TestJournal(t *testing.T) {
	type sent struct {
		message string
		p       journal.Priority
		vars    map[string]string
	}
	var got []sent
	log := slog.New(newHandler(slog.LevelInfo, func(m string, p journal.Priority, vars map[string]string) error {
		got = append(got, sent{m, p, vars})
		return nil
	}))
	log.Debug("not said")
	log.Info("plain")
	log.With("lane", "east-in").Warn("the reader is gone", "err", errors.New("no such file"), slog.Group("port", "path", "/dev/x"))
	log.WithGroup("sync").With("part", 1).Error("broken", "3rd try", true, "", "nameless")
	want := []sent{
		{"plain", journal.PriInfo, map[string]string{}},
		{`the reader is gone lane=east-in err="no such file" port.path=/dev/x`, journal.PriWarning, map[string]string{"LANE": "east-in", "ERR": "no such file", "PORT_PATH": "/dev/x"}},
		{`broken sync.part=1 "sync.3rd try"=true "sync."=nameless`, journal.PriErr, map[string]string{"SYNC_PART": "1", "SYNC_3RD_TRY": "true"}},
	}
	if len(got) != len(want) {
		t.Fatalf("%+v", got)
	}
	for i := range want {
		if got[i].message != want[i].message || got[i].p != want[i].p || !maps.Equal(got[i].vars, want[i].vars) {
			t.Errorf("%+v\nwant %+v", got[i], want[i])
		}
	}
}

func TestText(t *testing.T) {
	var b bytes.Buffer
	New(&b, false).Debug("not said")
	New(&b, true).Debug("said", "lane", "in")
	if got := b.String(); !strings.Contains(got, "level=DEBUG msg=said lane=in") || strings.Contains(got, "not said") {
		t.Errorf("%q", got)
	}
}
