package main

import (
	"fmt"
	"io"
	"sync"
)

// screen prints a line for each event and, on a terminal, keeps a status line
// below them.
type screen struct {
	mu     sync.Mutex
	w      io.Writer
	tty    bool
	status string
}

func newScreen(w io.Writer, tty bool) *screen { return &screen{w: w, tty: tty} }

func (s *screen) line(format string, args ...any) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.wipe()
	fmt.Fprintf(s.w, format+"\n", args...)
	s.draw()
}

// say shows the status line; without a terminal it is a line like any other.
func (s *screen) say(format string, args ...any) {
	s.mu.Lock()
	defer s.mu.Unlock()
	text := fmt.Sprintf(format, args...)
	if !s.tty {
		fmt.Fprintln(s.w, text)
		return
	}
	s.wipe()
	s.status = text
	s.draw()
}

func (s *screen) wipe() {
	if s.tty && s.status != "" {
		fmt.Fprint(s.w, "\r\x1b[2K")
	}
}

func (s *screen) draw() {
	if s.tty && s.status != "" {
		fmt.Fprintf(s.w, "\x1b[7m%s\x1b[0m", s.status)
	}
}

func (s *screen) close() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.wipe()
	s.status = ""
}
