package console

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"sync"
	"time"
)

// stream is one browser that watches. It is dropped when it does not read: a
// lane never waits for it.
type stream struct {
	c    *Console
	w    http.ResponseWriter
	rc   *http.ResponseController
	lang string
}

// piece is a part of a page as it was last made. Fifty tablets that watch one
// lane get the same bytes: made once, sent fifty times.
type piece struct {
	mu      sync.Mutex // held while it is made, so that it is made once; by nobody who waits for another piece
	version uint64
	made    time.Time
	event   []byte
}

// fresh is how long a piece may be handed out again: a countdown in it would
// be wrong by as much.
const fresh = 200 * time.Millisecond

// How long a browser may take to read an event before it is dropped, and how
// often a display hears that the gate is there.
const (
	slowReader = 5 * time.Second
	heartbeat  = 2 * time.Second
)

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
	s := &stream{c: c, w: w, rc: http.NewResponseController(w), lang: c.lang(r)}
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
	b, err := encode(event, v)
	if err != nil {
		return err
	}
	return s.write(b)
}

func encode(event string, v any) ([]byte, error) {
	b, err := json.Marshal(v)
	return fmt.Appendf(nil, "event: %s\ndata: %s\n\n", event, b), err
}

func (s *stream) write(event []byte) error {
	if err := s.rc.SetWriteDeadline(time.Now().Add(s.c.slow)); err != nil {
		return err
	}
	if _, err := s.w.Write(event); err != nil {
		return err
	}
	if err := s.rc.Flush(); err != nil {
		return err
	}
	// In HTTP/2 a deadline that passes ends the stream even when nothing is being
	// written.
	return s.rc.SetWriteDeadline(time.Time{})
}

// html sends a part of the page: the template name with what data gives.
func (s *stream) html(event, id string, version uint64, name string, data func() any) error {
	b, err := s.c.piece(s.lang, event, id, version, name, data)
	if err != nil {
		s.c.deps.Log.Warn("cannot show a part of a page", "part", name, "err", err)
		return err
	}
	return s.write(b)
}

// errNothing is a piece whose data could not be read.
var errNothing = errors.New("there is nothing to show")

func (c *Console) piece(lang, event, id string, version uint64, name string, data func() any) ([]byte, error) {
	key := lang + "\x00" + event + "\x00" + id
	c.mu.Lock()
	p := c.pieces[key]
	if p == nil {
		p = &piece{}
		c.pieces[key] = p
	}
	c.mu.Unlock()
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.event != nil && p.version == version && time.Since(p.made) < fresh {
		return p.event, nil
	}
	d := data()
	if d == nil {
		return nil, errNothing
	}
	var b bytes.Buffer
	if err := c.pages[lang].ExecuteTemplate(&b, name, d); err != nil {
		return nil, err
	}
	e, err := encode(event, map[string]any{"id": id, "version": version, "html": b.String()})
	if err != nil {
		return nil, err
	}
	p.version, p.made, p.event = version, time.Now(), e
	return e, nil
}
