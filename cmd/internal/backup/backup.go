// Package backup copies what a gate knows into one file that only the community
// and the holder of the recovery key can read, and puts it back on another device.
//
// The file is a tar archive, compressed with zstd, encrypted with age. The device's
// own keys are never in it: the gate's name stays, the device is another one, which
// enrols, begins a new epoch of the journal, and is approved anew. The site's key is
// in it, because without it no card of the roster can be found; the console's own authority
// is not: tablets are told of the new one.
package backup

import (
	"archive/tar"
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"time"

	"filippo.io/age"
	"github.com/klauspost/compress/zstd"
	"golang.org/x/sys/unix"

	"gatehouse/cmd/internal/app"
	"gatehouse/cmd/internal/config"
	"gatehouse/cmd/internal/qrtext"
	"gatehouse/edge/durable"
	"gatehouse/edge/sqlite"
)

// Version of the archive's form.
const formVersion = 1

// Manifest is the archive's first member.
type Manifest struct {
	V         int    `json:"v"`
	Community string `json:"community"`
	Site      string `json:"site"`
	Gate      string `json:"gate"`
	Config    string `json:"config"` // name of the configuration in the archive's config/
	Program   string `json:"program"`
	At        int64  `json:"at"` // UTC ms
}

// Names in the archive. What belongs to the configuration is below config/.
const (
	manifestName = "manifest.json"
	journalName  = "journal.db"
	registryName = "registry.db"
	accountsName = "accounts.db" // of the console; a gate may have none
	siteName     = "site.key"
	recoveryName = "recovery.pub"
	configFolder = "config/"
	rulesFolder  = "udev" // in it: udev's rules, which name the readers of this machine
	suffix       = ".backup"
)

// The rules that an installer wrote; those of the package come with it.
const (
	udevRules = "/etc/udev/rules.d"
	rulesName = "*gatehouse*.rules"
)

// mayLack are the members that a backup may be without.
var mayLack = []string{siteName, recoveryName, accountsName}

// recoveryFile keeps the recovery key's public half.
func recoveryFile(cfg *config.Gate) string { return filepath.Join(cfg.State, recoveryName) }

// FirstKey makes and prints a recovery key when the gate has none, and says so when it
// has one: it may have been shown where nobody looked.
func FirstKey(cfg *config.Gate, out io.Writer) error {
	st, err := os.Stat(recoveryFile(cfg))
	if errors.Is(err, fs.ErrNotExist) {
		return NewKey(cfg, out)
	}
	if err == nil {
		_, err = fmt.Fprintf(out, "The recovery key of this gate's backups was shown on %s. If nobody wrote it down: gatehouse backup key --again\n", st.ModTime().Format(time.DateOnly))
	}
	return err
}

// KeyShown is when the recovery key was shown; zero = there is none.
func KeyShown(cfg *config.Gate) time.Time {
	st, err := os.Stat(recoveryFile(cfg))
	if err != nil {
		return time.Time{}
	}
	return st.ModTime()
}

// NewKey makes a recovery key and prints it. Only its public half is kept.
func NewKey(cfg *config.Gate, out io.Writer) error {
	id, err := age.GenerateX25519Identity()
	if err != nil {
		return fmt.Errorf("cannot make a recovery key: %w", err)
	}
	if err := config.WriteKey(recoveryFile(cfg), []byte(id.Recipient().String()+"\n")); err != nil {
		return cfg.Remedy(fmt.Errorf("cannot keep the recovery key's public half: %w", err))
	}
	fmt.Fprintf(out, "The recovery key of gate %s/%s. It opens the gate's backups, and is not kept here:\nwrite it down or photograph it now, and put it where the keys of the house are.\n\n    %s\n\n", cfg.Site, cfg.Gate, id)
	return qrtext.Print(out, id.String())
}

// readers are those for whom a backup is encrypted.
func readers(cfg *config.Gate) ([]age.Recipient, error) {
	var texts []string
	src, err := os.ReadFile(recoveryFile(cfg))
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return nil, cfg.Remedy(fmt.Errorf("cannot read the recovery key's public half: %w", err))
	}
	texts = append(texts, string(src))
	if cfg.Enrolled != nil {
		texts = append(texts, cfg.Enrolled.Recipient)
	}
	var out []age.Recipient
	for _, t := range texts {
		if t = strings.TrimSpace(t); t == "" {
			continue
		}
		r, err := age.ParseX25519Recipient(t)
		if err != nil {
			return nil, fmt.Errorf("cannot encrypt to %q: %w", t, err)
		}
		out = append(out, r)
	}
	if len(out) == 0 {
		return nil, errors.New("nobody could read the backup: make a recovery key first (gatehouse backup key)")
	}
	return out, nil
}

// Readable says whether anybody could read a backup of the gate.
func Readable(cfg *config.Gate) error {
	_, err := readers(cfg)
	return err
}

// Write makes a backup of a gate, which may be running. It returns the file's path;
// when out is a folder the file gets a name of its own in it, and only the newest
// keep of the gate's files there stay.
func Write(ctx context.Context, cfg *config.Gate, configPath, out, program string, now time.Time, keep int) (string, error) {
	to, err := readers(cfg)
	if err != nil {
		return "", err
	}
	folder := ""
	if st, err := os.Stat(out); err == nil && st.IsDir() {
		folder = out
		out = filepath.Join(out, cfg.Site+"-"+cfg.Gate+now.UTC().Format("-20060102-150405")+suffix)
	}
	tmp, err := os.MkdirTemp(cfg.State, "backup-*.tmp")
	frozen := errors.Is(err, unix.EROFS)
	if frozen {
		// Not beside the backup, which may be on a stick: they are readable.
		tmp, err = os.MkdirTemp("", "gatehouse-backup-*.tmp")
	}
	if err != nil {
		return "", cfg.Remedy(fmt.Errorf("cannot make a place for copies: %w", err))
	}
	defer os.RemoveAll(tmp)
	remedy := cfg.Remedy
	if frozen {
		remedy = func(err error) error { return config.FolderRemedy(os.TempDir(), err) }
	}
	// The registry first: what the journal has beyond it, it catches up at the start.
	for _, name := range []string{registryName, accountsName, journalName} {
		if _, err := os.Stat(filepath.Join(cfg.State, name)); errors.Is(err, fs.ErrNotExist) && name == accountsName {
			continue
		}
		from := filepath.Join(cfg.State, name)
		if frozen {
			if from, err = thaw(from, filepath.Join(tmp, "as-it-is-"+name)); err != nil {
				return "", remedy(err)
			}
		}
		if err := sqlite.Copy(ctx, from, filepath.Join(tmp, name)); err != nil {
			return "", remedy(err)
		}
	}
	f, err := os.OpenFile(out+".part", os.O_WRONLY|os.O_CREATE|os.O_TRUNC, 0o600)
	if err != nil {
		return "", fmt.Errorf("cannot write the backup: %w", err)
	}
	err = pack(cfg, configPath, tmp, udevRules, program, now, f, to)
	if err := errors.Join(err, f.Sync(), f.Close()); err != nil {
		return "", fmt.Errorf("cannot write the backup %s: %w", out, errors.Join(err, os.Remove(out+".part")))
	}
	if err := os.Rename(out+".part", out); err != nil {
		return "", fmt.Errorf("cannot write the backup: %w", err)
	}
	if err := syncFolder(filepath.Dir(out)); err != nil {
		return "", fmt.Errorf("the backup %s may be gone after a power cut: %w", out, err)
	}
	if folder == "" || keep <= 0 {
		return out, nil
	}
	return out, removeOld(cfg, folder, filepath.Base(out), keep)
}

// removeOld leaves the newest keep backups of this gate in a folder, the one just
// written among them whatever the clock says. Other gates may have theirs there, under
// names that begin like this gate's.
func removeOld(cfg *config.Gate, folder, written string, keep int) error {
	own, err := regexp.Compile("^" + regexp.QuoteMeta(cfg.Site+"-"+cfg.Gate) + `-\d{8}-\d{6}` + regexp.QuoteMeta(suffix) + "$")
	if err != nil {
		return fmt.Errorf("cannot tell this gate's backups from others: %w", err)
	}
	entries, err := os.ReadDir(folder) // by name, which is by time
	if err != nil {
		return fmt.Errorf("cannot look for old backups: %w", err)
	}
	var old []string
	for _, e := range entries {
		if e.Name() != written && own.MatchString(e.Name()) {
			old = append(old, e.Name())
		}
	}
	for _, name := range old[:max(0, len(old)-(keep-1))] {
		if err := os.Remove(filepath.Join(folder, name)); err != nil {
			return fmt.Errorf("cannot remove an old backup: %w", err)
		}
	}
	return nil
}

// syncFolder makes a new name in a folder durable, where the file system can.
func syncFolder(path string) error {
	err := durable.SyncFolder(path)
	if errors.Is(err, unix.EINVAL) || errors.Is(err, unix.ENOTSUP) {
		return nil // a network's share may have no such call
	}
	return err
}

// thaw copies a database, file by file, from a medium that can only be read: nobody
// writes to it, and SQLite would have to, to read it.
func thaw(from, to string) (string, error) {
	for _, end := range []string{"", "-wal"} {
		src, err := os.Open(from + end)
		if errors.Is(err, fs.ErrNotExist) && end != "" {
			continue
		}
		if err == nil {
			err = errors.Join(unpack(to+end, src), src.Close())
		}
		if err != nil {
			return "", fmt.Errorf("cannot copy %s: %w", from+end, err)
		}
	}
	return to, nil
}

func pack(cfg *config.Gate, configPath, copies, udev, program string, now time.Time, w io.Writer, to []age.Recipient) error {
	sealed, err := age.Encrypt(w, to...)
	if err != nil {
		return err
	}
	z, err := zstd.NewWriter(sealed)
	if err != nil {
		return err
	}
	t := tar.NewWriter(z)
	base := filepath.Dir(configPath)
	man, err := json.Marshal(Manifest{V: formVersion, Community: cfg.Community, Site: cfg.Site, Gate: cfg.Gate, Config: filepath.Base(configPath), Program: program, At: now.UnixMilli()})
	if err != nil {
		return err
	}
	add := func(name string, size int64, r io.Reader) error {
		if err := t.WriteHeader(&tar.Header{Name: name, Mode: 0o600, Size: size, ModTime: now}); err != nil {
			return err
		}
		_, err := io.CopyN(t, r, size)
		return err
	}
	file := func(name, path string) error {
		f, err := os.Open(path)
		if errors.Is(err, fs.ErrNotExist) && slices.Contains(mayLack, name) {
			return nil
		}
		if err != nil {
			return err
		}
		defer f.Close()
		st, err := f.Stat()
		if err != nil {
			return err
		}
		return add(name, st.Size(), f)
	}
	site := cfg.Keys.Site
	if site == "" {
		site = cfg.KeyFile(config.FileSite)
	}
	errs := []error{add(manifestName, int64(len(man)), bytes.NewReader(man)), file(configFolder+filepath.Base(configPath), configPath)}
	packed := map[string]bool{configFolder + filepath.Base(configPath): true}
	beside := func(name, path string) error {
		if name = configFolder + name; packed[name] {
			return nil
		}
		packed[name] = true
		return file(name, path)
	}
	for _, f := range cfg.Files() {
		switch policy := f.Key == "policy" || f.Key == "superior"; {
		case f.Own || f.Beside == "" && !policy:
		case f.Beside == "":
			errs = append(errs, fmt.Errorf("the policy %s is not below the configuration's folder %s: put it there, so that a restored gate finds it", f.Path, base))
		default:
			if err := beside(f.Beside, f.Path); policy || !away(err) {
				errs = append(errs, err)
			}
		}
	}
	rules, err := filepath.Glob(filepath.Join(udev, rulesName))
	if err != nil {
		return err
	}
	for _, r := range rules {
		if err := beside(rulesFolder+"/"+filepath.Base(r), r); !away(err) {
			errs = append(errs, err)
		}
	}
	errs = append(errs, file(siteName, site), file(recoveryName, recoveryFile(cfg)),
		file(registryName, filepath.Join(copies, registryName)), file(accountsName, filepath.Join(copies, accountsName)), file(journalName, filepath.Join(copies, journalName)))
	if err := errors.Join(errs...); err != nil {
		return err
	}
	return errors.Join(t.Close(), z.Close(), sealed.Close())
}

// away reports whether a file is not there for the backup. Of those that a gate works
// without none is worth a night without a backup; "gatehouse check" tells of them.
func away(err error) bool {
	return errors.Is(err, fs.ErrNotExist) || errors.Is(err, fs.ErrPermission)
}

// sameMedium reports whether a backup lies where the gate's own state does, and dies
// with it.
func sameMedium(cfg *config.Gate, file string) (bool, error) {
	var a, b unix.Stat_t
	if err := errors.Join(unix.Stat(cfg.State, &a), unix.Stat(file, &b)); err != nil {
		return false, fmt.Errorf("cannot see on which medium the backup is: %w", err)
	}
	return a.Dev == b.Dev, nil
}

// Restore unpacks a backup with the text of the recovery key, or of the
// community's own, to where configPath says that the gate is to be. There must be
// no journal yet. It returns the restored configuration.
func Restore(_ context.Context, backup io.Reader, key, configPath string) (_ *config.Gate, _ Manifest, err error) {
	var man Manifest
	fail := func(format string, args ...any) (*config.Gate, Manifest, error) {
		return nil, man, fmt.Errorf(format, args...)
	}
	base := filepath.Dir(configPath)
	unwritten := func(what string, err error) (*config.Gate, Manifest, error) {
		return nil, man, config.FolderRemedy(base, fmt.Errorf("%s: %w", what, err))
	}
	id, err := age.ParseX25519Identity(strings.TrimSpace(key))
	if err != nil {
		return fail("this is no recovery key (it begins with AGE-SECRET-KEY-1): %w", err)
	}
	plain, err := age.Decrypt(backup, id)
	if err != nil {
		return fail("this key does not open this backup: %w", err)
	}
	z, err := zstd.NewReader(plain, zstd.WithDecoderMaxMemory(256<<20))
	if err != nil {
		return fail("cannot read the backup: %w", err)
	}
	defer z.Close()
	t := tar.NewReader(z)
	h, err := t.Next()
	if err != nil || h.Name != manifestName || h.Size > 1<<16 {
		return fail("this is no backup of a gate: %w", errors.Join(err, errors.New("no manifest comes first")))
	}
	if err := json.NewDecoder(t).Decode(&man); err != nil {
		return fail("the backup's manifest is damaged: %w", err)
	}
	if man.V != formVersion {
		return fail("the backup is of form %d, this program reads %d: install the program that made it (%s)", man.V, formVersion, man.Program)
	}
	if !filepath.IsLocal(man.Config) {
		return fail("the backup's configuration has the name %q", man.Config)
	}
	work, err := os.MkdirTemp(base, "restore-*.tmp")
	if err != nil {
		return unwritten("cannot make a place to unpack", err)
	}
	defer func() { err = errors.Join(err, os.RemoveAll(work)) }()
	for {
		h, err := t.Next()
		if errors.Is(err, io.EOF) {
			break
		}
		if err != nil {
			return fail("the backup is damaged: %w", err)
		}
		known := slices.Contains([]string{journalName, registryName, accountsName, siteName, recoveryName}, h.Name) || strings.HasPrefix(h.Name, configFolder)
		if !known || !filepath.IsLocal(h.Name) || h.Typeflag != tar.TypeReg {
			return fail("the backup holds %q, which belongs in none", h.Name)
		}
		if err := unpack(filepath.Join(work, h.Name), t); err != nil {
			return unwritten("cannot unpack the backup", err)
		}
	}
	// The configuration first: it says where the rest goes.
	src, err := os.ReadFile(filepath.Join(work, configFolder, man.Config))
	if err != nil {
		return unwritten("cannot unpack the backup", err)
	}
	placed, err := config.Parse(configPath, src)
	if err != nil {
		return fail("the backup's configuration: %w", err)
	}
	if _, err := os.Stat(filepath.Join(placed.State, journalName)); err == nil {
		return fail("%s has a journal already: a backup is restored to a device without one (move the folder away if that is meant)", placed.State)
	}
	if err := os.MkdirAll(filepath.Dir(placed.KeyFile(siteName)), 0o700); err != nil {
		return nil, man, placed.Remedy(fmt.Errorf("cannot make the state folder: %w", err))
	}
	defer func() { err = errors.Join(err, placed.OwnState()) }()
	if err := app.AskEpoch(placed, fmt.Sprintf("restored from a backup of %s", time.UnixMilli(man.At).UTC().Format(time.RFC3339))); err != nil {
		return fail("%w", err)
	}
	if err := moveConfig(filepath.Join(work, configFolder), base); err != nil {
		return unwritten("cannot place the configuration", err)
	}
	site := placed.Keys.Site
	if site == "" {
		site = placed.KeyFile(config.FileSite)
	}
	// The journal last: with it the gate is restored.
	for _, f := range []struct{ name, to string }{{siteName, site}, {recoveryName, recoveryFile(placed)},
		{registryName, filepath.Join(placed.State, registryName)}, {accountsName, filepath.Join(placed.State, accountsName)}, {journalName, filepath.Join(placed.State, journalName)}} {
		from := filepath.Join(work, f.name)
		if _, err := os.Stat(from); errors.Is(err, fs.ErrNotExist) && slices.Contains(mayLack, f.name) {
			continue
		}
		if err := place(from, f.to, placed.State); err != nil {
			return nil, man, placed.Remedy(fmt.Errorf("cannot place %s: %w", f.name, err))
		}
	}
	return placed, man, nil
}

func unpack(path string, r io.Reader) error {
	if err := os.MkdirAll(filepath.Dir(path), 0o700); err != nil {
		return err
	}
	f, err := os.OpenFile(path, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o600)
	if err != nil {
		return err
	}
	_, err = io.Copy(f, r)
	return errors.Join(err, f.Sync(), f.Close())
}

// place copies a file to where it belongs: the folders may be on different media.
func place(from, to, like string) error {
	in, err := os.Open(from)
	if err != nil {
		return err
	}
	defer in.Close()
	tmp := to + ".new"
	if err := errors.Join(ignoreMissing(os.Remove(tmp)), unpack(tmp, in), config.OwnLike(tmp, like)); err != nil {
		return err
	}
	return os.Rename(tmp, to)
}

func ignoreMissing(err error) error {
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	return err
}

// moveConfig places the configuration's files. One that is there and differs is
// kept beside.
func moveConfig(from, to string) error {
	return filepath.WalkDir(from, func(path string, d fs.DirEntry, err error) error {
		if err != nil || d.IsDir() {
			return err
		}
		rel, err := filepath.Rel(from, path)
		if err != nil {
			return err
		}
		src, err := os.ReadFile(path)
		if err != nil {
			return err
		}
		dst := filepath.Join(to, rel)
		old, err := os.ReadFile(dst)
		switch {
		case err == nil && bytes.Equal(old, src):
			return nil
		case err == nil:
			if err := os.Rename(dst, dst+".before-restore"); err != nil {
				return err
			}
		case !errors.Is(err, fs.ErrNotExist):
			return err
		}
		mode := fs.FileMode(0o755)
		if filepath.Dir(rel) == config.KeysBeside {
			mode = 0o700
		}
		if err := os.MkdirAll(filepath.Dir(dst), mode); err != nil {
			return err
		}
		return os.WriteFile(dst, src, 0o644)
	})
}
