package config

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"syscall"

	"golang.org/x/sys/unix"
)

// OwnLike gives a file to the owner of another, when the caller is root. Others own
// what they make already.
func OwnLike(path, like string) error {
	if os.Geteuid() != 0 {
		return nil
	}
	st, err := os.Stat(like)
	if err != nil {
		return err
	}
	s, ok := st.Sys().(*syscall.Stat_t)
	if !ok {
		return fmt.Errorf("cannot tell who owns %s", like)
	}
	return os.Lchown(path, int(s.Uid), int(s.Gid))
}

// OwnState gives what root has made in the state folder to the folder's owner, whenever
// root has opened the gate's state: the daemon is another user and opens it next. A
// folder that is root's is left: the service's manager gives it to the daemon as a
// whole when it starts.
func (g *Gate) OwnState() error {
	if os.Geteuid() != 0 {
		return nil
	}
	st, err := os.Stat(g.State)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err == nil {
		if s, ok := st.Sys().(*syscall.Stat_t); ok && s.Uid != 0 {
			err = ownAs(g.State, int(s.Uid), int(s.Gid))
		}
	}
	if err != nil {
		return fmt.Errorf("cannot give what root has made to the daemon (chown -R --reference=%s %s): %w", g.State, g.State, err)
	}
	return nil
}

func ownAs(dir string, uid, gid int) error {
	// The folder is another user's, who may put links in the way at any moment: paths
	// are followed below it only.
	root, err := os.OpenRoot(dir)
	if err != nil {
		return err
	}
	defer root.Close()
	files, err := madeBy(root.FS(), 0)
	if err != nil {
		return err
	}
	for _, f := range files {
		// Of files that came and went a daemon beside has made some. On a medium that can
		// only be read nothing was made.
		if err := root.Lchown(f, uid, gid); err != nil && !errors.Is(err, fs.ErrNotExist) && !errors.Is(err, unix.EROFS) {
			return err
		}
	}
	return nil
}

// madeBy lists the regular files and folders of a user. A file of more than one name is
// none that a gate has made: the other name may be anywhere.
func madeBy(fsys fs.FS, uid uint32) (out []string, err error) {
	err = fs.WalkDir(fsys, ".", func(path string, d fs.DirEntry, err error) error {
		if errors.Is(err, fs.ErrNotExist) {
			return nil
		}
		if err != nil || !d.IsDir() && !d.Type().IsRegular() {
			return err
		}
		st, err := d.Info()
		if errors.Is(err, fs.ErrNotExist) {
			return nil
		}
		if err != nil {
			return err
		}
		if s, ok := st.Sys().(*syscall.Stat_t); ok && s.Uid == uid && (d.IsDir() || s.Nlink == 1) {
			out = append(out, path)
		}
		return nil
	})
	return out, err
}
