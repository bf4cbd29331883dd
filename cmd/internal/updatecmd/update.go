// Package updatecmd is "gatehouse update": a new version from the operator's
// package repository, tried before it counts, and undone by itself when the gate
// does not become healthy with it. What installs is apt, which checks the
// repository's signature and each package's hash (apt-secure(8)).
package updatecmd

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"log/slog"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"time"

	"golang.org/x/sys/unix"

	"gatehouse/edge/durable"
)

// Site is what an update needs to know of the gate.
type Site struct {
	State  string // folder of the databases
	Health string // URL of /healthz; empty = only the service manager is asked
}

// Options say how an update goes.
type Options struct {
	Package string   // gatehouse
	Unit    string   // gatehouse.service
	Sources string   // the one list of sources that is read; empty = all of the machine's
	Stage   string   // folder for packages and copies, kept over a power cut
	System  []string // folders that an installation writes to; a read-only one is made writable meanwhile
	Healthy time.Duration
	Log     *slog.Logger
	Out     io.Writer
}

// Updater does updates, one at a time.
type Updater struct {
	o    Options
	site Site
	kept io.Writer // what is said, for whoever was away
}

// New makes an updater. It changes nothing.
func New(o Options, s Site) *Updater { return &Updater{o, s, io.Discard} }

// Versions are those that are installed and that the repository offers.
type Versions struct{ Installed, Candidate string }

// Newer reports whether there is something to do.
func (v Versions) Newer() bool { return v.Candidate != "" && v.Candidate != v.Installed }

// How far an update is, as kept for the start after a power cut.
const (
	phaseReady      = "ready"      // everything is staged; the service runs as before
	phaseInstalling = "installing" // the new package goes in, the service is stopped
	phaseTrying     = "trying"     // the new version runs and is watched
	phaseUndoing    = "undoing"    // the old one comes back
)

// progress is kept in the stage folder, so that a power cut in the middle leaves
// neither two halves nor a version nobody has watched.
type progress struct {
	Phase    string `json:"phase"`
	Old, New string
	OldFile  string `json:"old_file"`
	NewFile  string `json:"new_file"`
	Why      string `json:"why,omitempty"`
	Restored bool   `json:"restored,omitempty"` // the copies are in the place of the databases, which are set aside
}

// Errors that callers tell apart.
var (
	ErrUndone    = errors.New("the update was undone")
	ErrNotUndone = errors.New("the update could not be undone")
	ErrUnsigned  = errors.New("the repository's signature is not good")
)

// Check reads the repository's list and says what it offers.
func (u *Updater) Check(ctx context.Context) (Versions, error) {
	if err := u.configured(); err != nil {
		return Versions{}, err
	}
	sources, err := u.sources()
	if err != nil {
		return Versions{}, err
	}
	args := append([]string{"update", "-q", "-o", "APT::Update::Error-Mode=any"}, sources...)
	if out, err := run(ctx, "apt-get", args...); err != nil {
		if strings.Contains(out, "NO_PUBKEY") || strings.Contains(out, "is not signed") || strings.Contains(out, "BADSIG") || strings.Contains(out, "signature") {
			return Versions{}, fmt.Errorf("cannot read the repository: %w: %s", ErrUnsigned, lastLine(out))
		}
		return Versions{}, fmt.Errorf("cannot read the repository: %w", asRoot(err))
	}
	out, err := run(ctx, "apt-cache", append([]string{"policy", u.o.Package}, sources...)...)
	if err != nil {
		return Versions{}, fmt.Errorf("cannot ask for versions: %w", err)
	}
	v := parsePolicy(out)
	if v.Installed == "" {
		return v, fmt.Errorf("the package %s is not installed: an update needs something to go back to", u.o.Package)
	}
	return v, nil
}

// configured says what to do when nobody has said where the repository is: apt takes a
// list that is not there for an empty one.
func (u *Updater) configured() error {
	if u.o.Sources == "" {
		return nil
	}
	_, err := os.Stat(u.o.Sources)
	if errors.Is(err, fs.ErrNotExist) {
		return fmt.Errorf("no repository is set up: %s is not there: copy /usr/share/gatehouse/examples/apt/gatehouse.sources to it, with the address of the operator's repository, and the operator's key to /etc/apt/keyrings/gatehouse-archive-keyring.gpg: %w", u.o.Sources, err)
	}
	if err != nil {
		return fmt.Errorf("cannot read where the repository is: %w", asRoot(err))
	}
	return nil
}

// asRoot adds what may mend an error of one who is not root.
func asRoot(err error) error {
	if os.Geteuid() == 0 {
		return err
	}
	return fmt.Errorf("%w (run it as root)", err)
}

// sources are the options by which apt reads the one repository. Where its own folders
// are on a read-only file system it keeps its lists in the stage.
func (u *Updater) sources() (out []string, err error) {
	if u.o.Sources != "" {
		out = []string{"-o", "Dir::Etc::sourcelist=" + u.o.Sources, "-o", "Dir::Etc::sourceparts=-", "-o", "APT::Get::List-Cleanup=0"}
	}
	mounts, err := readOnly(u.o.System)
	if err != nil || len(mounts) == 0 {
		return out, err
	}
	for _, d := range []string{"lists/partial", "cache/archives/partial"} {
		if err := os.MkdirAll(filepath.Join(u.o.Stage, "apt", d), 0o755); err != nil {
			return nil, u.unstaged(err)
		}
	}
	return append(out, "-o", "Dir::State::lists="+filepath.Join(u.o.Stage, "apt/lists"), "-o", "Dir::Cache="+filepath.Join(u.o.Stage, "apt/cache")), nil
}

// unstaged says what to do about a folder for staging that cannot be written to.
func (u *Updater) unstaged(err error) error {
	if errors.Is(err, unix.EROFS) {
		return fmt.Errorf("cannot update: %s is on a read-only file system: mount a writable folder there, as /usr/share/gatehouse/examples/raspberrypi/fstab does, or name another one (--stage): %w", u.o.Stage, err)
	}
	return fmt.Errorf("cannot update: %w", asRoot(err))
}

var policyLine = regexp.MustCompile(`(?m)^ +(Installed|Candidate): (\S+)`)

// parsePolicy reads what apt-cache policy prints in the C locale.
func parsePolicy(out string) (v Versions) {
	for _, m := range policyLine.FindAllStringSubmatch(out, -1) {
		if m[2] == "(none)" {
			continue
		}
		if m[1] == "Installed" {
			v.Installed = m[2]
		} else {
			v.Candidate = m[2]
		}
	}
	return v
}

// Apply brings the gate to the version that the repository offers. When the gate
// is not healthy with it for the whole time that is watched, everything goes
// back, and the error wraps ErrUndone; or ErrNotUndone when that failed, and is to be
// tried again.
func (u *Updater) Apply(ctx context.Context) (err error) {
	unlock, err := u.lock()
	if err != nil {
		return err
	}
	defer func() { unlock(err) }()
	if p, err := u.load(); err != nil {
		return err
	} else if p != nil {
		u.say("an update from %s to %s was interrupted; it is finished first", p.Old, p.New)
		return u.resume(ctx, p)
	}
	v, err := u.Check(ctx)
	if err != nil {
		return err
	}
	if !v.Newer() {
		u.say("%s %s is the newest", u.o.Package, v.Installed)
		return nil
	}
	p := &progress{Phase: phaseReady, Old: v.Installed, New: v.Candidate}
	if err := u.stage(ctx, p); err != nil {
		return err
	}
	return u.install(ctx, p)
}

// Resume finishes or undoes what a power cut interrupted. It does nothing when
// nothing was.
func (u *Updater) Resume(ctx context.Context) (err error) {
	unlock, err := u.lock()
	if err != nil {
		return err
	}
	defer func() { unlock(err) }()
	p, err := u.load()
	if err != nil || p == nil {
		return err
	}
	return u.resume(ctx, p)
}

func (u *Updater) resume(ctx context.Context, p *progress) error {
	// dpkg itself may have been cut in two.
	err := u.writable(ctx, func() error {
		_, err := run(ctx, "dpkg", "--configure", "-a")
		return err
	})
	if err != nil {
		u.o.Log.Warn("cannot finish interrupted packages", "err", err)
	}
	switch p.Phase {
	case phaseReady:
		return u.done(p)
	case phaseTrying:
		if err := u.watch(ctx); err == nil {
			u.say("%s %s is healthy after the interruption", u.o.Package, p.New)
			return u.done(p)
		}
	}
	if p.Why == "" {
		p.Why = "the power failed during the update"
	}
	return u.undo(ctx, p)
}

// stage fetches the new package, and the old one to go back to, before anything
// is touched.
func (u *Updater) stage(ctx context.Context, p *progress) error {
	if err := os.MkdirAll(u.o.Stage, 0o711); err != nil {
		return u.unstaged(err)
	}
	var err error
	if p.NewFile, err = u.fetch(ctx, p.New); err != nil {
		return err
	}
	if p.OldFile, err = u.fetch(ctx, p.Old); err != nil {
		return fmt.Errorf("nothing was changed: there would be no way back: %w", err)
	}
	// The new program starts at all, on this processor.
	if err := u.trial(ctx, p.NewFile); err != nil {
		return fmt.Errorf("nothing was changed: %w", err)
	}
	size, err := folderSize(u.site.State)
	if err != nil {
		return err
	}
	var st unix.Statfs_t
	if err := unix.Statfs(u.o.Stage, &st); err != nil {
		return fmt.Errorf("cannot look at %s: %w", u.o.Stage, err)
	}
	if free := st.Bavail * uint64(st.Bsize); free < size+size/4 {
		return fmt.Errorf("nothing was changed: %d MB are free at %s, a copy of the databases needs %d", free>>20, u.o.Stage, (size+size/4)>>20)
	}
	return u.save(p)
}

// fetch gives the file of one version: kept from an earlier update, or from the
// repository.
func (u *Updater) fetch(ctx context.Context, version string) (string, error) {
	find := func() string {
		// apt writes the colon of an epoch as %3a.
		found, _ := filepath.Glob(filepath.Join(u.o.Stage, u.o.Package+"_"+strings.ReplaceAll(version, ":", "%3a")+"_*.deb"))
		if len(found) == 0 {
			return ""
		}
		return found[0]
	}
	if f := find(); f != "" {
		return f, nil
	}
	sources, err := u.sources()
	if err != nil {
		return "", err
	}
	args := append([]string{"-c", `cd "$1" && shift && exec apt-get download -q "$@"`, "sh", u.o.Stage, u.o.Package + "=" + version}, sources...)
	if _, err := run(ctx, "sh", args...); err != nil {
		return "", fmt.Errorf("cannot fetch %s %s: %w", u.o.Package, version, err)
	}
	if f := find(); f != "" {
		return f, nil
	}
	return "", fmt.Errorf("cannot fetch %s %s: it is not in %s afterwards", u.o.Package, version, u.o.Stage)
}

// install stops the gate, copies its databases, installs, starts and watches.
func (u *Updater) install(ctx context.Context, p *progress) error {
	u.say("updating %s from %s to %s", u.o.Package, p.Old, p.New)
	// Before the gate is stopped: people wait at it.
	if err := u.packagesFree(ctx); err != nil {
		return errors.Join(fmt.Errorf("nothing was changed: packages cannot be installed now: %w", err), u.done(p))
	}
	p.Phase = phaseInstalling
	if err := u.save(p); err != nil {
		return err
	}
	if _, err := run(ctx, "systemctl", "stop", u.o.Unit); err != nil {
		return errors.Join(fmt.Errorf("nothing was changed: the gate does not stop: %w", err), u.done(p))
	}
	if err := copyFolder(u.site.State, u.backup()); err != nil {
		_, serr := run(ctx, "systemctl", "start", u.o.Unit)
		return errors.Join(fmt.Errorf("nothing was changed: cannot copy the databases: %w", err), serr, u.done(p))
	}
	err := u.deb(ctx, p.NewFile)
	if err == nil {
		p.Phase = phaseTrying
		if err = u.save(p); err == nil {
			if _, err = run(ctx, "systemctl", "start", u.o.Unit); err == nil {
				err = u.watch(ctx)
			}
		}
	}
	if err != nil {
		p.Why = err.Error()
		// Whoever gave up waiting still wants a gate that works.
		return u.undo(context.WithoutCancel(ctx), p)
	}
	u.say("%s %s is healthy", u.o.Package, p.New)
	return u.done(p)
}

// lockWait has apt wait for another one, which may be at work by itself
// (apt-daily-upgrade.timer).
const lockWait = "DPkg::Lock::Timeout=600"

// packagesFree waits until nobody else installs packages.
func (u *Updater) packagesFree(ctx context.Context) error {
	sources, err := u.sources()
	if err != nil {
		return err
	}
	return u.writable(ctx, func() error {
		_, err := run(ctx, "apt-get", append([]string{"check", "-q", "-o", lockWait}, sources...)...)
		return err
	})
}

func (u *Updater) deb(ctx context.Context, file string) error {
	sources, err := u.sources()
	if err != nil {
		return err
	}
	err = u.writable(ctx, func() error {
		_, err := run(ctx, "apt-get", append([]string{"install", "-y", "-q", "--allow-downgrades", "--no-install-recommends", "-o", "Dpkg::Options::=--force-confold", "-o", lockWait, file}, sources...)...)
		return err
	})
	if err != nil {
		return fmt.Errorf("cannot install %s: %w", filepath.Base(file), err)
	}
	return nil
}

// watch looks on until the gate has been healthy for the whole time.
func (u *Updater) watch(ctx context.Context) error {
	const every = time.Second
	restarts := ""
	answered := false
	for end := time.Now().Add(u.o.Healthy); ; {
		out, err := run(ctx, "systemctl", "show", "-p", "ActiveState", "-p", "NRestarts", u.o.Unit)
		if err != nil {
			return err
		}
		active, n := value(out, "ActiveState"), value(out, "NRestarts")
		if active != "active" {
			return fmt.Errorf("the service is %s", active)
		}
		if restarts == "" {
			restarts = n
		}
		if n != restarts {
			return errors.New("the service died and was started again")
		}
		if u.site.Health != "" {
			err := healthz(ctx, u.site.Health)
			if err != nil && answered {
				return err
			}
			answered = answered || err == nil
		}
		if !time.Now().Before(end) {
			break
		}
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-time.After(min(every, time.Until(end))):
		}
	}
	if u.site.Health != "" && !answered {
		return fmt.Errorf("%s never answered", u.site.Health)
	}
	return nil
}

func healthz(ctx context.Context, url string) error {
	ctx, cancel := context.WithTimeout(ctx, 5*time.Second)
	defer cancel()
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, url, nil)
	if err != nil {
		return err
	}
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		return fmt.Errorf("cannot ask the gate how it is: %w", err)
	}
	defer resp.Body.Close()
	if b, _ := io.ReadAll(io.LimitReader(resp.Body, 500)); resp.StatusCode != http.StatusOK {
		return fmt.Errorf("the gate says of itself: %s", bytes.TrimSpace(b))
	}
	return nil
}

// undo brings the old version back, and is over only when that is healthy. Until then
// progress and copies stay, for the next attempt.
func (u *Updater) undo(ctx context.Context, p *progress) error {
	u.say("%s: going back to %s", p.Why, p.Old)
	p.Phase = phaseUndoing
	saved := u.save(p)
	if err := u.back(ctx, p); err != nil {
		const again = "it is tried again at the machine's next start; at once with: gatehouse update resume"
		noted := u.note(map[string]string{"alert": "update_not_undone", "text": fmt.Sprintf("%s %s could not be undone (%s): %v; %s", u.o.Package, p.New, p.Why, err, again)})
		// A version that is not well is better than none, and may mend.
		if _, err := run(ctx, "systemctl", "start", u.o.Unit); err != nil {
			u.say("the gate does not start: %v", err)
		}
		return errors.Join(fmt.Errorf("%w: %w; %s (it was to be undone: %s)", ErrNotUndone, err, again, p.Why), saved, noted)
	}
	noted := u.note(map[string]string{"alert": "update_undone", "text": fmt.Sprintf("%s %s was undone: %s", u.o.Package, p.New, p.Why)})
	return errors.Join(fmt.Errorf("%w: %s", ErrUndone, p.Why), saved, noted, u.done(p))
}

// back does the work of undo, or goes on with it. The databases go on from where they
// are now when the old version can read them: what was decided meanwhile is not lost.
// Only when it cannot, the copies come back, and the newer ones are kept beside them.
func (u *Updater) back(ctx context.Context, p *progress) error {
	if _, err := run(ctx, "systemctl", "stop", u.o.Unit); err != nil {
		return fmt.Errorf("the gate does not stop: %w", err)
	}
	// Whether the old version can read the databases, only it can tell.
	if err := u.deb(ctx, p.OldFile); err != nil {
		return err
	}
	start := func() error {
		if _, err := run(ctx, "systemctl", "start", u.o.Unit); err != nil {
			return err
		}
		return u.watch(ctx)
	}
	if p.Restored {
		if err := u.restored(p); err != nil {
			return err
		}
		if err := start(); err != nil {
			return fmt.Errorf("%s does not run on the copies of the databases: %w", p.Old, err)
		}
		return nil
	}
	err := start()
	if err == nil {
		return nil
	}
	u.say("%s does not run on the databases as they are (%v): the copies come back", p.Old, err)
	if _, err := run(ctx, "systemctl", "stop", u.o.Unit); err != nil {
		return fmt.Errorf("the gate does not stop: %w", err)
	}
	if err := u.restore(p); err != nil {
		return fmt.Errorf("%s does not run on the databases as they are, and the copies cannot be put back: %w", p.Old, err)
	}
	if err := start(); err != nil {
		return fmt.Errorf("%s does not run on the copies of the databases: %w", p.Old, err)
	}
	return nil
}

// restore puts the copies in the place of the databases. It is done once for an update:
// another time would lose the databases that are set aside.
func (u *Updater) restore(p *progress) error {
	if _, err := os.Stat(u.backup()); err != nil {
		return fmt.Errorf("there is no copy of the databases: %w", err)
	}
	m, err := mountOf(u.site.State)
	if err != nil {
		return err
	}
	real, err := filepath.EvalSymlinks(u.site.State)
	if err != nil {
		return fmt.Errorf("cannot find the databases: %w", err)
	}
	if real == m.point {
		return u.restoreInside(p)
	}
	if _, err := os.Lstat(filepath.Join(u.site.State, Restoring)); err == nil {
		return u.restored(p) // the mark came with the copies
	}
	aside := u.site.State + besideName + p.New
	if err := copyFolder(u.backup(), aside); err != nil {
		return err
	}
	if err := errors.Join(os.WriteFile(filepath.Join(aside, Restoring), nil, 0o600), durable.SyncFolder(aside)); err != nil {
		return fmt.Errorf("cannot put the copies in place: %w", err)
	}
	// Exchanged in one step: there is no moment without databases (renameat2(2)).
	if err := unix.Renameat2(unix.AT_FDCWD, u.site.State, unix.AT_FDCWD, aside, unix.RENAME_EXCHANGE); err != nil {
		return fmt.Errorf("cannot set the newer databases aside: %w", err)
	}
	if err := durable.SyncFolder(filepath.Dir(u.site.State)); err != nil {
		return fmt.Errorf("cannot put the copies in place: %w", err)
	}
	return u.restored(p)
}

// restored notes that the copies are in place, and takes the mark away after that: a
// power cut in between finds one of the two.
func (u *Updater) restored(p *progress) error {
	p.Restored = true
	if err := u.save(p); err != nil {
		return err
	}
	if err := os.Remove(filepath.Join(u.site.State, Restoring)); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return fmt.Errorf("cannot let the gate start on the copies: %w", err)
	}
	return durable.SyncFolder(u.site.State)
}

// Restoring is the file in the state folder while its contents are exchanged. The
// unit does not start the gate on a half of them.
const Restoring = "restoring"

// restoreInside exchanges what is in the state folder, for one that is a mount point
// and cannot be exchanged itself. What was interrupted is done again from the copies.
func (u *Updater) restoreInside(p *progress) error {
	dir := u.site.State
	fresh, aside, mark := filepath.Join(dir, freshName), filepath.Join(dir, asideName+p.New), filepath.Join(dir, Restoring)
	if err := copyFolder(u.backup(), fresh); err != nil {
		return err
	}
	_, err := os.Lstat(mark)
	again := err == nil
	if !again {
		if err := os.RemoveAll(aside); err != nil {
			return fmt.Errorf("cannot set the newer databases aside: %w", err)
		}
		if err := os.WriteFile(mark, nil, 0o600); err != nil {
			return fmt.Errorf("cannot set the newer databases aside: %w", err)
		}
	}
	if err := os.MkdirAll(aside, 0o700); err != nil {
		return fmt.Errorf("cannot set the newer databases aside: %w", err)
	}
	if err := errors.Join(like(aside, dir), durable.SyncFolder(dir)); err != nil {
		return err
	}
	move := func(from, to string, skip func(string) bool) error {
		entries, err := os.ReadDir(from)
		for _, e := range entries {
			if err != nil {
				break
			}
			src, dst := filepath.Join(from, e.Name()), filepath.Join(to, e.Name())
			if skip != nil && skip(e.Name()) {
				continue
			}
			if _, serr := os.Lstat(dst); again && serr == nil {
				err = os.RemoveAll(src) // a copy that was in place already
				continue
			}
			err = os.Rename(src, dst)
		}
		return errors.Join(err, durable.SyncFolder(to), durable.SyncFolder(from))
	}
	if err := move(dir, aside, kept); err != nil {
		return fmt.Errorf("cannot set the newer databases aside: %w", err)
	}
	again = false
	if err := move(fresh, dir, nil); err != nil {
		return fmt.Errorf("cannot put the copies in place: %w", err)
	}
	if err := errors.Join(os.Remove(fresh), durable.SyncFolder(dir)); err != nil {
		return fmt.Errorf("cannot put the copies in place: %w", err)
	}
	return u.restored(p)
}

// Names in a state folder that is a mount point.
const (
	freshName = "restore.tmp"
	asideName = "of-" // and the version
)

// besideName follows the state folder's own name where that can be exchanged; then the
// version.
const besideName = "." + asideName

// Beside are the folders beside the state folder with the databases that updates have
// replaced.
func Beside(state string) ([]string, error) {
	dir, prefix := filepath.Split(filepath.Clean(state) + besideName)
	entries, err := os.ReadDir(dir)
	if err != nil {
		return nil, err
	}
	var out []string
	for _, e := range entries {
		if strings.HasPrefix(e.Name(), prefix) {
			out = append(out, filepath.Join(dir, e.Name()))
		}
	}
	return out, nil
}

// AsidePattern is for the databases in a state folder that an update has replaced.
const AsidePattern = asideName + "*"

// kept are entries of the state folder that are of no version's making.
func kept(name string) bool {
	return name == Restoring || name == freshName || name == freshName+".part" || strings.HasPrefix(name, asideName)
}

// Note is the file in the state folder in which an update leaves word for the
// gate, which makes an alert of it at its next start.
const Note = "update.note"

func (u *Updater) note(v map[string]string) error {
	b, err := json.Marshal(v)
	if err != nil {
		return err
	}
	path := filepath.Join(u.site.State, Note)
	if err := os.WriteFile(path, b, 0o600); err != nil {
		return err
	}
	return like(path, u.site.State)
}

func (u *Updater) backup() string { return filepath.Join(u.o.Stage, "state") }
func (u *Updater) file() string   { return filepath.Join(u.o.Stage, "progress.json") }

func (u *Updater) save(p *progress) error {
	b, err := json.Marshal(p)
	if err != nil {
		return err
	}
	if err := durable.Replace(u.file(), b, 0o600); err != nil {
		return fmt.Errorf("cannot note how far the update is: %w", err)
	}
	return nil
}

func (u *Updater) load() (*progress, error) {
	b, err := os.ReadFile(u.file())
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	p := new(progress)
	if err == nil {
		err = json.Unmarshal(b, p)
	}
	if err != nil {
		return nil, fmt.Errorf("cannot read how far an earlier update was (remove %s to forget it): %w", u.file(), err)
	}
	return p, nil
}

// done ends an update. The packages stay: the older one is the next way back.
func (u *Updater) done(p *progress) error {
	old, _ := filepath.Glob(filepath.Join(u.o.Stage, "*.deb"))
	for _, f := range old {
		if f != p.NewFile && f != p.OldFile {
			_ = os.Remove(f)
		}
	}
	return errors.Join(os.RemoveAll(u.backup()), os.Remove(u.file()))
}

// lock keeps others away until it is undone, which is told how it ended.
func (u *Updater) lock() (func(error), error) {
	if err := os.MkdirAll(u.o.Stage, 0o711); err != nil {
		return nil, u.unstaged(err)
	}
	f, err := os.OpenFile(filepath.Join(u.o.Stage, "lock"), os.O_CREATE|os.O_RDWR, 0o600)
	if err != nil {
		return nil, u.unstaged(err)
	}
	if err := unix.Flock(int(f.Fd()), unix.LOCK_EX|unix.LOCK_NB); err != nil {
		return nil, errors.Join(errors.New("another update is going on"), f.Close())
	}
	last, err := os.Create(filepath.Join(u.o.Stage, "last.log"))
	if err != nil {
		return nil, errors.Join(u.unstaged(err), f.Close())
	}
	u.kept = last
	return func(err error) {
		if err != nil {
			fmt.Fprintln(last, err)
		}
		u.kept = io.Discard
		_ = last.Close()
		_ = f.Close()
	}, nil
}

func (u *Updater) say(format string, args ...any) {
	for _, w := range []io.Writer{u.kept, u.o.Out} {
		fmt.Fprintf(w, format+"\n", args...)
	}
}

// run runs a program in the C locale and gives what it said.
func run(ctx context.Context, name string, args ...string) (string, error) {
	c := exec.CommandContext(ctx, name, args...)
	c.Env = append(os.Environ(), "LC_ALL=C", "DEBIAN_FRONTEND=noninteractive")
	c.WaitDelay = 10 * time.Second
	out, err := c.CombinedOutput()
	if err != nil {
		return string(out), fmt.Errorf("%s: %w: %s", filepath.Base(name), err, lastLine(string(out)))
	}
	return string(out), nil
}

func lastLine(s string) string {
	s = strings.TrimSpace(s)
	return s[strings.LastIndexByte(s, '\n')+1:]
}

func value(lines, key string) string {
	for line := range strings.Lines(lines) {
		if v, ok := strings.CutPrefix(strings.TrimSpace(line), key+"="); ok {
			return v
		}
	}
	return ""
}
