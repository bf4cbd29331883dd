package app

import (
	"context"
	"fmt"
	"io/fs"
	"log/slog"
	"os"
	"strings"
	"sync/atomic"
	"time"

	"gatehouse/device"
	"gatehouse/device/board"
	"gatehouse/edge"
)

// boardWatch looks at the board the gate runs on, and raises and ends alerts.
type boardWatch struct {
	root   fs.FS
	state  string // folder on the medium that counts
	record func(ctx context.Context, k edge.Kind, data any) (edge.EntryRef, error)
	every  time.Duration
	log    *slog.Logger
	last   atomic.Pointer[boardLook]
}

type boardLook struct {
	board.Reading
	at    time.Time
	since time.Time // of the state
	err   error
}

func (a *App) newBoardWatch() *boardWatch {
	root := a.o.Board
	if root == nil {
		root = os.DirFS("/")
	}
	return &boardWatch{root: root, state: a.cfg.State, record: a.record, every: 30 * time.Second, log: a.log}
}

// boardAlert is the data of an alert's entry.
type boardAlert struct {
	Alert string `json:"alert"`
	Open  bool   `json:"open"`
	Text  string `json:"text,omitempty"`
}

// Run looks now and then until ctx is done. What cannot be recorded is told again at
// the next look: a medium that takes nothing any more is just what is to be told.
func (w *boardWatch) Run(ctx context.Context) error {
	t := time.NewTicker(w.every)
	defer t.Stop()
	open := map[string]bool{}
	for {
		if err := w.look(ctx, open); err != nil && ctx.Err() == nil {
			w.log.Error("cannot record how the board is; it is tried again", "err", err)
		}
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-t.C:
		}
	}
}

func (w *boardWatch) look(ctx context.Context, open map[string]bool) error {
	r, err := board.Read(w.root, w.state)
	now := &boardLook{Reading: r, at: time.Now(), since: time.Now(), err: err}
	if was := w.last.Swap(now); was != nil && (len(was.Problems()) == 0) == (len(r.Problems()) == 0) {
		now.since = was.since
	}
	seen := map[string]bool{}
	for _, p := range r.Problems() {
		seen[p.Code] = true
		if !open[p.Code] {
			if _, err := w.record(ctx, edge.KindAlert, boardAlert{p.Code, true, p.Text}); err != nil {
				return fmt.Errorf("%s: %w", p.Text, err)
			}
			open[p.Code] = true
		}
	}
	for code := range open {
		if !seen[code] {
			if _, err := w.record(ctx, edge.KindAlert, boardAlert{Alert: code}); err != nil {
				return err
			}
			delete(open, code)
		}
	}
	return nil
}

// Health tells how the board is, as a device does.
func (w *boardWatch) Health() device.Health {
	h := device.Health{Name: "board", Driver: "board", State: device.StateStarting}
	l := w.last.Load()
	if l == nil {
		return h
	}
	h.State, h.Since, h.LastRead, h.Where = device.StateOK, l.since, l.at, l.Model
	var texts []string
	for _, p := range l.Problems() {
		h.State = device.StateFault
		texts = append(texts, p.Text)
	}
	if l.err != nil {
		h.State = device.StateFault
		texts = append(texts, l.err.Error())
	}
	h.LastError = strings.Join(texts, "; ")
	h.Detail = map[string]uint64{"free_mb": l.Free >> 20, "disk_errors": l.Errors}
	if l.HasTemp && l.Temperature > 0 {
		h.Detail["celsius"] = uint64(l.Temperature)
	}
	if l.HasThrottle {
		h.Detail["throttled"] = uint64(l.Throttling)
	}
	if l.Wear > 0 {
		h.Detail["wear_percent"] = uint64(l.Wear)
	}
	return h
}
