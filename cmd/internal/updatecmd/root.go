package updatecmd

import (
	"archive/tar"
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"

	"golang.org/x/sys/unix"
)

// SystemFolders are those that an installation writes to.
func SystemFolders() []string {
	return []string{"/usr", "/etc", "/var/lib/dpkg", "/var/lib/apt", "/var/cache/apt"}
}

// mount is a line of /proc/self/mountinfo.
type mount struct {
	point    string
	readOnly bool // in any way
	medium   bool // the file system itself is read-only, not this view of it alone
}

// mountOf finds the mount that a path is on.
func mountOf(path string) (best mount, err error) {
	if path, err = filepath.Abs(path); err != nil {
		return best, err
	}
	// Through links, as far as there is something.
	for rest := ""; ; {
		if real, err := filepath.EvalSymlinks(path); err == nil {
			path = filepath.Join(real, rest)
			break
		}
		rest = filepath.Join(filepath.Base(path), rest)
		path = filepath.Dir(path)
	}
	f, err := os.Open("/proc/self/mountinfo")
	if err != nil {
		return best, fmt.Errorf("cannot see what is mounted: %w", err)
	}
	defer f.Close()
	lines := bufio.NewScanner(f)
	for lines.Scan() {
		if m, ok := parseMount(lines.Text()); ok && len(m.point) >= len(best.point) && below(path, m.point) {
			best = m
		}
	}
	if err := lines.Err(); err != nil {
		return best, fmt.Errorf("cannot see what is mounted: %w", err)
	}
	if best.point == "" {
		return best, fmt.Errorf("cannot see on what %s is mounted", path)
	}
	return best, nil
}

func below(path, folder string) bool {
	return path == folder || folder == "/" || strings.HasPrefix(path, folder+"/")
}

// parseMount reads a line of mountinfo, proc(5).
func parseMount(line string) (mount, bool) {
	own, medium, ok := strings.Cut(line, " - ")
	f, g := strings.Fields(own), strings.Fields(medium)
	if !ok || len(f) < 6 || len(g) < 3 {
		return mount{}, false
	}
	has := func(list string) bool { return slices.Contains(strings.Split(list, ","), "ro") }
	m := mount{point: strings.NewReplacer(`\040`, " ", `\011`, "\t", `\012`, "\n", `\134`, `\`).Replace(f[4]), medium: has(g[2])}
	m.readOnly = m.medium || has(f[5])
	return m, true
}

// readOnly are the mounts of these folders that cannot be written to.
func readOnly(folders []string) (out []mount, err error) {
	for _, d := range folders {
		m, err := mountOf(d)
		if err != nil {
			return nil, err
		}
		if m.readOnly && !slices.Contains(out, m) {
			out = append(out, m)
		}
	}
	return out, nil
}

// writable does something for which a read-only system is made writable, and
// read-only again afterwards.
func (u *Updater) writable(ctx context.Context, do func() error) error {
	mounts, err := readOnly(u.o.System)
	if err != nil {
		return err
	}
	remount := func(ctx context.Context, m mount, how string) error {
		if !m.medium {
			how = "bind," + how // the medium is other mounts' too
		}
		_, err := run(ctx, "mount", "-o", "remount,"+how, m.point)
		return err
	}
	for i, m := range mounts {
		if err := remount(ctx, m, "rw"); err != nil {
			for _, m := range mounts[:i] {
				err = errors.Join(err, remount(context.WithoutCancel(ctx), m, "ro"))
			}
			return fmt.Errorf("%s cannot be made writable: %w", m.point, err)
		}
	}
	err = do()
	for _, m := range slices.Backward(mounts) {
		if merr := remount(context.WithoutCancel(ctx), m, "ro"); merr != nil {
			u.say("%s stays writable until the next start: %v", m.point, merr)
		}
	}
	return err
}

// inMemory copies a program to memory, from where it runs whatever the mounts
// forbid, and keeps no file of the medium open.
func inMemory(name string, r io.Reader) (*os.File, error) {
	const exec = 0x10 // MFD_EXEC; kernels before 6.3 have no such flag, and no need of it
	fd, err := unix.MemfdCreate(name, unix.MFD_CLOEXEC|exec)
	if errors.Is(err, unix.EINVAL) {
		fd, err = unix.MemfdCreate(name, unix.MFD_CLOEXEC)
	}
	if err != nil {
		return nil, fmt.Errorf("cannot hold %s in memory: %w", name, err)
	}
	f := os.NewFile(uintptr(fd), name)
	if _, err := io.Copy(f, r); err != nil {
		return nil, errors.Join(fmt.Errorf("cannot hold %s in memory: %w", name, err), f.Close())
	}
	return f, nil
}

// fromMemory starts this program again from memory when an installation will have
// to make its file system read-only again: that is refused while a program that was
// replaced is still open. It does not return then.
func fromMemory(folders []string) error {
	const here = "/proc/self/exe"
	path, err := os.Readlink(here)
	if err != nil || strings.HasPrefix(path, "/memfd:") {
		return err
	}
	mounts, err := readOnly(folders)
	if err != nil || len(mounts) == 0 {
		return err
	}
	src, err := os.Open(here)
	if err != nil {
		return err
	}
	defer src.Close()
	f, err := inMemory(filepath.Base(path), src)
	if err != nil {
		return err
	}
	return fmt.Errorf("cannot run from memory: %w", unix.Exec(fmt.Sprintf("/proc/self/fd/%d", f.Fd()), os.Args, os.Environ()))
}

// trial starts the program of a package, unpacked to memory: the folder for staging
// may be on a file system from which nothing may be started.
func (u *Updater) trial(ctx context.Context, deb string) error {
	c := exec.CommandContext(ctx, "dpkg-deb", "--fsys-tarfile", deb)
	var says strings.Builder
	c.Stderr = &says
	pipe, err := c.StdoutPipe()
	if err == nil {
		err = c.Start()
	}
	if err != nil {
		return fmt.Errorf("cannot unpack %s: %w", deb, err)
	}
	program, err := find(tar.NewReader(pipe), "usr/bin/"+u.o.Package)
	if err == nil {
		defer program.Close()
	}
	_, rerr := io.Copy(io.Discard, pipe) // or dpkg-deb waits, and Wait for it
	if err := errors.Join(err, rerr, c.Wait()); err != nil {
		return fmt.Errorf("cannot unpack %s: %w %s", deb, err, lastLine(says.String()))
	}
	t := exec.CommandContext(ctx, "/proc/self/fd/3", "version")
	t.ExtraFiles = []*os.File{program}
	if out, err := t.CombinedOutput(); err != nil {
		return fmt.Errorf("the new program does not start here: %w: %s", err, lastLine(string(out)))
	}
	return nil
}

func find(t *tar.Reader, name string) (*os.File, error) {
	for {
		h, err := t.Next()
		if errors.Is(err, io.EOF) {
			return nil, fmt.Errorf("there is no /%s in it", name)
		}
		if err != nil {
			return nil, err
		}
		if strings.TrimPrefix(h.Name, "./") == name && h.Typeflag == tar.TypeReg {
			return inMemory(filepath.Base(name), t)
		}
	}
}
