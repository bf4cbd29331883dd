// Package logs is where the programs' logs go: to the system's journal with their
// level and fields when the service manager runs the program, as text otherwise.
package logs

import (
	"bytes"
	"context"
	"errors"
	"io"
	"log/slog"
	"strings"
	"sync"
	"unicode"

	"github.com/coreos/go-systemd/v22/journal"
)

// New makes the logger of a program whose standard error is w.
func New(w io.Writer, verbose bool) *slog.Logger {
	level := slog.LevelInfo
	if verbose {
		level = slog.LevelDebug
	}
	if ok, err := journal.StderrIsJournalStream(); ok && err == nil && journal.Enabled() {
		return slog.New(newHandler(level, journal.Send))
	}
	return slog.New(slog.NewTextHandler(w, &slog.HandlerOptions{Level: level}))
}

// handler writes records to the system's journal: the text as journalctl shows
// it, and each field by itself for journalctl LANE=east-in.
type handler struct {
	level slog.Level
	send  func(message string, p journal.Priority, fields map[string]string) error
	mu    *sync.Mutex // of buf
	buf   *bytes.Buffer
	text  slog.Handler
	attrs map[string]string
	group string
}

func newHandler(level slog.Level, send func(string, journal.Priority, map[string]string) error) *handler {
	h := &handler{level: level, send: send, mu: new(sync.Mutex), buf: new(bytes.Buffer)}
	// The journal has a time and a priority of its own, and the message stands
	// first.
	h.text = slog.NewTextHandler(h.buf, &slog.HandlerOptions{Level: level, ReplaceAttr: func(groups []string, a slog.Attr) slog.Attr {
		if len(groups) == 0 && (a.Key == slog.TimeKey || a.Key == slog.LevelKey || a.Key == slog.MessageKey) {
			return slog.Attr{}
		}
		return a
	}})
	return h
}

// Enabled reports whether records of a level are written.
func (h *handler) Enabled(_ context.Context, l slog.Level) bool { return l >= h.level }

// WithAttrs gives a handler with more fields.
func (h *handler) WithAttrs(as []slog.Attr) slog.Handler {
	c := *h
	c.text = h.text.WithAttrs(as)
	c.attrs = map[string]string{}
	for k, v := range h.attrs {
		c.attrs[k] = v
	}
	for _, a := range as {
		fields(c.attrs, h.group, a)
	}
	return &c
}

// WithGroup gives a handler whose further fields have a name before theirs.
func (h *handler) WithGroup(name string) slog.Handler {
	if name == "" {
		return h
	}
	c := *h
	c.text, c.group = h.text.WithGroup(name), h.group+name+"_"
	return &c
}

// Handle sends a record.
func (h *handler) Handle(ctx context.Context, r slog.Record) error {
	vars := map[string]string{}
	for k, v := range h.attrs {
		vars[k] = v
	}
	r.Attrs(func(a slog.Attr) bool {
		fields(vars, h.group, a)
		return true
	})
	h.mu.Lock()
	h.buf.Reset()
	err := h.text.Handle(ctx, r)
	message := r.Message
	if rest := strings.TrimSpace(h.buf.String()); rest != "" {
		message += " " + rest
	}
	h.mu.Unlock()
	return errors.Join(err, h.send(message, priority(r.Level), vars))
}

// priority follows syslog(3).
func priority(l slog.Level) journal.Priority {
	switch {
	case l >= slog.LevelError:
		return journal.PriErr
	case l >= slog.LevelWarn:
		return journal.PriWarning
	case l >= slog.LevelInfo:
		return journal.PriInfo
	}
	return journal.PriDebug
}

// fields adds an attribute under a name that the journal takes: upper case
// letters, digits and underscores, not beginning with one (systemd.journal-fields(7)).
func fields(to map[string]string, group string, a slog.Attr) {
	v := a.Value.Resolve()
	if v.Kind() == slog.KindGroup {
		if a.Key != "" {
			group += a.Key + "_"
		}
		for _, x := range v.Group() {
			fields(to, group, x)
		}
		return
	}
	name := strings.TrimLeft(strings.Map(func(r rune) rune {
		switch {
		case r >= 'a' && r <= 'z':
			return unicode.ToUpper(r)
		case r >= 'A' && r <= 'Z', r >= '0' && r <= '9':
			return r
		}
		return '_'
	}, group+a.Key), "_0123456789")
	if name != "" && a.Key != "" {
		to[name] = v.String()
	}
}
