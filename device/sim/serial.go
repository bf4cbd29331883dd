// Package sim emulates peripherals from the far side of the wire: each speaks
// its real protocol into a pseudo terminal or onto simulated lines, with faults
// on demand, so that the real drivers are what is run.
package sim

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"sync"
	"time"

	"github.com/creack/pty"
	"golang.org/x/term"
)

// Serial is the far end of a serial line. Its near end is a path that stays the
// same while the adapter behind it is unplugged and comes back under another
// name, as /dev/serial/by-id does.
type Serial struct {
	path string

	mu    sync.Mutex
	far   *os.File
	near  *os.File // held open, so that the line exists before a driver opens it
	old   *os.File // keeps the last terminal's number taken, so that the next has another
	gone  bool
	Speed time.Duration // time for each byte; 0 = at once
}

// NewSerial makes a line whose near end is path, a link in a folder of the
// caller's.
func NewSerial(path string) (*Serial, error) {
	s := &Serial{path: path}
	if err := s.Plug(); err != nil {
		return nil, err
	}
	return s, nil
}

// Path is the near end, for a driver's port option.
func (s *Serial) Path() string { return s.path }

// Plug puts the adapter in. After Unplug it comes back under another name.
func (s *Serial) Plug() error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.gone {
		return errors.New("the line is closed")
	}
	if s.far != nil {
		return nil
	}
	far, near, err := pty.Open()
	if err != nil {
		return fmt.Errorf("cannot make a pseudo terminal: %w", err)
	}
	if s.old != nil {
		_ = s.old.Close()
		s.old = nil
	}
	// Raw before anybody opens it: nothing is echoed back.
	if _, err := term.MakeRaw(int(near.Fd())); err == nil {
		tmp := filepath.Join(filepath.Dir(s.path), "."+filepath.Base(s.path)+".new")
		_ = os.Remove(tmp)
		if err = os.Symlink(near.Name(), tmp); err == nil {
			err = os.Rename(tmp, s.path)
		}
		if err == nil {
			s.far, s.near = far, near
			return nil
		}
		return errors.Join(err, far.Close(), near.Close())
	}
	return errors.Join(err, far.Close(), near.Close())
}

// Unplug pulls the adapter: the near end hangs up and its path is gone.
func (s *Serial) Unplug() error {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.unplug()
}

func (s *Serial) unplug() error {
	if s.far == nil {
		return nil
	}
	// The hang-up comes when the far end is closed; the near end, kept open,
	// keeps the terminal's number from being given out again.
	err := errors.Join(os.Remove(s.path), s.far.Close())
	s.old, s.far, s.near = s.near, nil, nil
	return err
}

// ErrUnplugged says that nobody is at the near end.
var ErrUnplugged = errors.New("the adapter is unplugged")

// Write sends bytes towards the driver. What a reader that does not read
// leaves no room for is lost, as on a real line.
func (s *Serial) Write(b []byte) (int, error) {
	s.mu.Lock()
	far, speed := s.far, s.Speed
	s.mu.Unlock()
	if far == nil {
		return 0, ErrUnplugged
	}
	if speed == 0 {
		return s.send(far, b)
	}
	for i := range b {
		if n, err := s.send(far, b[i:i+1]); err != nil {
			return i + n, err
		}
		time.Sleep(speed)
	}
	return len(b), nil
}

func (s *Serial) send(far *os.File, b []byte) (int, error) {
	_ = far.SetWriteDeadline(time.Now().Add(time.Second))
	n, err := far.Write(b)
	if errors.Is(err, os.ErrDeadlineExceeded) {
		return len(b), nil
	}
	if errors.Is(err, os.ErrClosed) {
		return n, ErrUnplugged
	}
	return n, err
}

// Read takes what the driver wrote, for emulators that answer.
func (s *Serial) Read(b []byte) (int, error) {
	s.mu.Lock()
	far := s.far
	s.mu.Unlock()
	if far == nil {
		return 0, ErrUnplugged
	}
	return far.Read(b)
}

// Close takes the line away for good.
func (s *Serial) Close() error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.gone {
		return nil
	}
	err := s.unplug()
	s.gone = true
	if s.old != nil {
		err = errors.Join(err, s.old.Close())
		s.old = nil
	}
	return err
}
