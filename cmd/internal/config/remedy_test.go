package config

import (
	"errors"
	"fmt"
	"io/fs"
	"strings"
	"testing"

	"golang.org/x/sys/unix"
)

// What the operator can do about a medium or about rights is said, once, with its
// cause; about anything else nothing is said.
func TestRemedy(t *testing.T) {
	g := &Gate{State: "/var/lib/gatehouse"}
	for _, c := range []struct {
		cause       error
		state, root string
	}{
		{unix.EROFS, "mount -o remount,rw", "mount -o remount,rw"},
		{unix.ENOSPC, "the state folder /var/lib/gatehouse is on a medium without room: remove", "(df -h /etc/gatehouse"},
		{unix.EDQUOT, "df -h /var/lib/gatehouse", "df -h /etc/gatehouse"},
		{unix.EACCES, "chown -R gatehouse: /var/lib/gatehouse", "run the command as root"},
		{unix.EPERM, "chown -R gatehouse: /var/lib/gatehouse", "run the command as root"},
	} {
		why := fmt.Errorf("cannot make device.age: %w", &fs.PathError{Op: "open", Path: "device.age", Err: c.cause})
		for want, got := range map[string]error{c.state: g.Remedy(why), c.root: FolderRemedy("/etc/gatehouse", why)} {
			if !strings.Contains(got.Error(), want) || !strings.HasSuffix(got.Error(), why.Error()) || !errors.Is(got, c.cause) {
				t.Errorf("%v\nhas no %q, or lost its cause", got, want)
			}
			if again := g.Remedy(fmt.Errorf("the gate: %w", got)); again.Error() != "the gate: "+got.Error() {
				t.Errorf("said twice: %v", again)
			}
		}
	}
	for _, err := range []error{nil, fs.ErrNotExist} {
		if got := g.Remedy(err); got != err {
			t.Errorf("%v became %v", err, got)
		}
	}
}
