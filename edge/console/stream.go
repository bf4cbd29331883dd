package console

import (
	"bytes"
	"encoding/json"
	"fmt"
	"html/template"
	"net/http"
	"time"
)

// stream is one browser that watches. It is dropped when it does not read: a
// lane never waits for it.
type stream struct {
	c    *Console
	w    http.ResponseWriter
	rc   *http.ResponseController
	page *template.Template
}

// stream begins a stream of server-sent events, or refuses it and is nil.
func (c *Console) stream(w http.ResponseWriter, r *http.Request) *stream {
	c.mu.Lock()
	full := c.watchers >= maxWatchers
	if !full {
		c.watchers++
	}
	c.mu.Unlock()
	if full {
		http.Error(w, c.say(r, "console.too_many"), http.StatusServiceUnavailable)
		return nil
	}
	s := &stream{c: c, w: w, rc: http.NewResponseController(w), page: c.pages[c.lang(r)]}
	w.Header().Set("Content-Type", "text/event-stream")
	// The server's limits on a request are for requests that end.
	_ = s.rc.SetReadDeadline(time.Time{})
	return s
}

func (s *stream) close() {
	s.c.mu.Lock()
	s.c.watchers--
	s.c.mu.Unlock()
}

// send writes one event.
func (s *stream) send(event string, v any) error {
	b, err := json.Marshal(v)
	if err != nil {
		return err
	}
	if err := s.rc.SetWriteDeadline(time.Now().Add(5 * time.Second)); err != nil {
		return err
	}
	if _, err := fmt.Fprintf(s.w, "event: %s\ndata: %s\n\n", event, b); err != nil {
		return err
	}
	return s.rc.Flush()
}

// html sends a piece of the page. Of two versions of one piece the browser
// keeps the later.
func (s *stream) html(event, id string, version uint64, name string, data any) error {
	var b bytes.Buffer
	if err := s.page.ExecuteTemplate(&b, name, data); err != nil {
		s.c.deps.Log.Warn("cannot show a part of a page", "part", name, "err", err)
		return err
	}
	return s.send(event, map[string]any{"id": id, "version": version, "html": b.String()})
}
