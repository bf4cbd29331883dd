package app

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"

	"golang.org/x/sys/unix"
)

// daemonLock is held by the one daemon of a state folder; it holds its process id.
const daemonLock = "daemon.lock"

// startRoom is what must be free for the databases to be opened at all.
const startRoom = 2 << 20

// takeFolder makes the state folder this daemon's own: it is there, can be written,
// is nobody else's, and has room to open the databases in.
func (a *App) takeFolder() error {
	dir := a.cfg.State
	hint := func(err error) error { return a.cfg.Remedy(fmt.Errorf("cannot use the state folder: %w", err)) }
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return hint(err)
	}
	if a.o.Beside {
		var s unix.Statfs_t
		if err := unix.Statfs(dir, &s); err == nil && s.Flags&unix.ST_RDONLY != 0 {
			return hint(unix.EROFS)
		}
		return nil
	}
	if r, err := roomOf(dir); err == nil && r.free < startRoom {
		// The journal takes it again when there is room.
		if err := os.Remove(filepath.Join(dir, "journal.db.reserve")); err != nil && !errors.Is(err, fs.ErrNotExist) {
			return hint(err)
		}
		a.log.Error("the medium is full; the gate starts in its reserve", "free", r.free, "hint", "remove what is not the gate's, or use a larger medium")
	}
	path := filepath.Join(dir, daemonLock)
	f, err := os.OpenFile(path, os.O_RDWR|os.O_CREATE, 0o600)
	if err != nil {
		return hint(err)
	}
	if err := unix.Flock(int(f.Fd()), unix.LOCK_EX|unix.LOCK_NB); err != nil {
		pid, _ := os.ReadFile(path)
		_ = f.Close()
		if errors.Is(err, unix.EWOULDBLOCK) {
			return fmt.Errorf("another daemon (process %s) has the state folder %s: one folder, one daemon; stop that one first (systemctl stop gatehouse)", strings.TrimSpace(string(pid)), dir)
		}
		return hint(err)
	}
	a.folder = f // the kernel drops the lock with the process
	// For the message above only: on a full medium it stays empty.
	if f.Truncate(0) == nil {
		_, _ = f.WriteAt([]byte(fmt.Sprintf("%d\n", os.Getpid())), 0)
	}
	return nil
}

// leaveFolder lets another daemon have it, also one that is not root.
func (a *App) leaveFolder() error {
	err := a.cfg.OwnState()
	if a.folder == nil {
		return err
	}
	f := a.folder
	a.folder = nil
	return errors.Join(err, f.Close())
}
