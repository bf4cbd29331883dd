package config

import (
	"errors"
	"fmt"
	"io/fs"

	"golang.org/x/sys/unix"

	"gatehouse/edge/sqlite"
)

// advised is an error that says already what to do.
type advised struct {
	advice string
	err    error
}

func (e *advised) Error() string { return e.advice + ": " + e.err.Error() }
func (e *advised) Unwrap() error { return e.err }

// Remedy adds to an error of the databases and keys in the state folder what to do
// when the medium is full or can only be read, or when they are another user's.
func (g *Gate) Remedy(err error) error {
	return remedy("the state folder "+g.State, g.State, err,
		fmt.Sprintf("the state folder %s, or what is in it, is not this user's: it belongs to the daemon's. Run the command as root; where the service itself says this: chown -R gatehouse: %s", g.State, g.State))
}

// FolderRemedy does so for a folder of root's.
func FolderRemedy(dir string, err error) error {
	return remedy("the folder "+dir, dir, err, fmt.Sprintf("the folder %s, or what is in it, is not this user's: run the command as root", dir))
}

func remedy(what, dir string, err error, rights string) error {
	var said *advised
	switch {
	case err == nil || errors.As(err, &said):
		return err
	case errors.Is(err, unix.EROFS):
		return &advised{what + " is on a medium that can only be read: a card that fails turns read-only, so back the gate up and replace it; otherwise mount it for writing (mount -o remount,rw)", err}
	case errors.Is(err, unix.ENOSPC) || errors.Is(err, unix.EDQUOT) || sqlite.IsFull(err):
		return &advised{fmt.Sprintf("%s is on a medium without room: remove what is not the gate's, or use a larger medium (df -h %s, and df -i)", what, dir), err}
	case errors.Is(err, fs.ErrPermission):
		return &advised{rights, err}
	}
	return err
}
