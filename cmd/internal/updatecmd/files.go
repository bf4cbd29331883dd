package updatecmd

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"syscall"

	"gatehouse/edge/durable"
)

// copyFolder makes an exact copy, with owners, modes and times. What was at to is
// gone. The copy is whole and durable, or it is not there under its name. What earlier
// updates have set aside in it is not copied.
func copyFolder(from, to string) error {
	part := to + ".part"
	if err := errors.Join(os.RemoveAll(to), os.RemoveAll(part)); err != nil {
		return err
	}
	if err := copyAll(from, part); err != nil {
		return fmt.Errorf("cannot copy %s to %s: %w", from, to, err)
	}
	if err := os.Rename(part, to); err != nil {
		return err
	}
	return durable.SyncFolder(filepath.Dir(to))
}

func copyAll(from, to string) error {
	type pair struct{ dst, src string }
	var folders []pair
	err := filepath.WalkDir(from, func(path string, d fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		rel, err := filepath.Rel(from, path)
		if err != nil {
			return err
		}
		if filepath.Dir(path) == from && kept(d.Name()) {
			if d.IsDir() {
				return fs.SkipDir
			}
			return nil
		}
		dst := filepath.Join(to, rel)
		switch {
		case d.IsDir():
			folders = append(folders, pair{dst, path}) // their times last: files change them
			return os.MkdirAll(dst, 0o700)
		case d.Type().IsRegular():
			if err := copyFile(path, dst); err != nil {
				return err
			}
		default:
			return nil // sockets and the like are made anew
		}
		return like(dst, path)
	})
	for i := len(folders) - 1; i >= 0 && err == nil; i-- {
		err = like(folders[i].dst, folders[i].src)
	}
	return err
}

func copyFile(from, to string) error {
	in, err := os.Open(from)
	if err != nil {
		return err
	}
	defer in.Close()
	out, err := os.OpenFile(to, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o600)
	if err != nil {
		return err
	}
	_, err = io.Copy(out, in)
	return errors.Join(err, out.Sync(), out.Close())
}

// like gives path the owner, mode and times of another.
func like(path, other string) error {
	st, err := os.Stat(other)
	if err != nil {
		return err
	}
	own, err := os.Stat(path)
	if err != nil {
		return err
	}
	var errs []error
	if sys, ok := st.Sys().(*syscall.Stat_t); ok {
		errs = append(errs, os.Lchown(path, int(sys.Uid), int(sys.Gid)))
	}
	mode := st.Mode().Perm()
	if st.IsDir() && !own.IsDir() {
		mode &^= 0o111
	}
	return errors.Join(append(errs, os.Chmod(path, mode), os.Chtimes(path, st.ModTime(), st.ModTime()))...)
}

// folderSize adds up the bytes of the files in a folder.
func folderSize(dir string) (total uint64, err error) {
	err = filepath.WalkDir(dir, func(path string, d fs.DirEntry, err error) error {
		if err == nil && d.IsDir() && filepath.Dir(path) == dir && kept(d.Name()) {
			return fs.SkipDir
		}
		if err != nil || !d.Type().IsRegular() {
			return err
		}
		st, err := d.Info()
		if err == nil {
			total += uint64(st.Size())
		}
		return err
	})
	if err != nil {
		return 0, fmt.Errorf("cannot look at %s: %w", dir, err)
	}
	return total, nil
}
