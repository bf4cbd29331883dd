package gatecmd

import (
	"bytes"
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"github.com/spf13/cobra"
	"golang.org/x/mod/sumdb/note"

	"gatehouse/cmd/internal/app"
	"gatehouse/cmd/internal/config"
	"gatehouse/cmd/internal/updatecmd"
	"gatehouse/edge"
	"gatehouse/edge/durable"
	"gatehouse/edge/journal"
)

// certificateName is the file that a decommissioned gate leaves.
const certificateName = "decommissioned.note"

func decommissionCmd() *cobra.Command {
	var conf, confirm, by, why string
	var lose bool
	cmd := &cobra.Command{
		Use: "decommission --confirm SITE/GATE", Short: "Destroy this gate's keys and content, and leave the proof", Args: cobra.NoArgs,
		Long: `decommission ends the life of a stopped gate. It records the end in the journal,
signs the last tree head and a statement of what is destroyed, and then destroys the
content of every entry with the keys that could confirm a guess, the counters, the
registry, the device's and site's keys, and the databases that were set aside because
they were damaged or by an update. What stays is journal.db with the leaves alone, and
decommissioned.note: the statement, signed by the key that is gone.

Entries that the community server has not receipted are sealed to its key and stay,
for the card to be read by it. Without its key they would be lost: the command refuses
then, and where a damaged journal is still to be carried over, unless told to --lose
them. Flash keeps old copies of blocks that are written over: for a card that leaves
the house, "blkdiscard" or a hammer follows.`,
		RunE: func(cmd *cobra.Command, _ []string) error {
			cfg, err := config.Load(conf)
			if err != nil {
				return err
			}
			if want := cfg.Site + "/" + cfg.Gate; confirm != want {
				return fmt.Errorf("this destroys %s for good; say --confirm %s", want, want)
			}
			text, err := decommission(cmd.Context(), cfg, journal.Ending{By: by, Why: why, Lose: lose})
			if err != nil {
				return err
			}
			_, err = cmd.OutOrStdout().Write(text)
			return err
		},
	}
	configFlag(cmd, &conf)
	cmd.Flags().StringVar(&confirm, "confirm", "", "the `SITE/GATE` that is meant")
	cmd.Flags().StringVar(&by, "by", "", "who does it, for the record")
	cmd.Flags().StringVar(&why, "why", "", "why, for the record")
	cmd.Flags().BoolVar(&lose, "lose", false, "also when entries that the server has not receipted are lost")
	return cmd
}

func decommission(ctx context.Context, cfg *config.Gate, e journal.Ending) ([]byte, error) {
	signer, err := deviceKey(cfg)
	if err != nil {
		return nil, err
	}
	if signer == nil {
		return nil, errors.New("the device's key cannot be read: run this as root on the gate itself")
	}
	j, err := alone(ctx, cfg)
	if err != nil {
		return nil, err
	}
	// Listed before anything goes: what cannot be listed is no half of an end.
	doomed, err := doomedFiles(cfg)
	if err == nil && !e.Lose {
		err = carriedOver(doomed)
	}
	if err != nil {
		return nil, errors.Join(err, j.Close())
	}
	end, err := j.Decommission(ctx, e)
	if err := errors.Join(err, j.Close()); err != nil {
		return nil, err
	}
	// One that was interrupted has destroyed some of them before.
	names, err := certified(signer, filepath.Join(cfg.State, certificateName))
	if err != nil {
		return nil, err
	}
	for _, p := range doomed {
		if name, err := filepath.Rel(cfg.State, p); err == nil {
			p = name
		}
		if !slices.Contains(names, p) {
			names = append(names, p)
		}
	}
	text, err := certificate(signer, end, e, names)
	if err != nil {
		return nil, err
	}
	if err := durable.Replace(filepath.Join(cfg.State, certificateName), text, 0o644); err != nil {
		return nil, fmt.Errorf("cannot write the statement: %w", err)
	}
	for _, p := range doomed {
		if err := shred(p); err != nil {
			return nil, fmt.Errorf("%w; say decommission again", err)
		}
	}
	replaced, err := updatecmd.Beside(cfg.State)
	for _, p := range replaced { // folders: their files are gone
		err = errors.Join(err, os.RemoveAll(p))
	}
	if err != nil {
		return nil, fmt.Errorf("cannot remove what an update set aside: %w", err)
	}
	return text, nil
}

// carriedOver refuses while a damaged journal may hold entries that no other has.
func carriedOver(doomed []string) error {
	for _, p := range doomed {
		if app.Uncarried(p) {
			return fmt.Errorf("%s is a damaged journal that was not carried over yet: start the gate and let it finish, or say --lose", p)
		}
	}
	return nil
}

// certified are the files that a certificate of this gate names; one that it did not
// sign says nothing.
func certified(s edge.Signer, path string) ([]string, error) {
	text, err := os.ReadFile(path)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, fmt.Errorf("cannot read the certificate of a decommission that was interrupted: %w", err)
	}
	vkey, err := note.NewEd25519VerifierKey(s.Name(), s.Public())
	if err != nil {
		return nil, err
	}
	v, err := note.NewVerifier(vkey)
	if err != nil {
		return nil, err
	}
	n, err := note.Open(text, note.VerifierList(v))
	if err != nil {
		return nil, nil
	}
	var out []string
	for line := range strings.Lines(n.Text) {
		if name, ok := strings.CutPrefix(line, "file "); ok {
			out = append(out, strings.TrimSuffix(name, "\n"))
		}
	}
	return out, nil
}

// certificate is the statement that stays: a signed note whose first lines are the
// last checkpoint's, so that tools for checkpoints read it.
func certificate(s edge.Signer, end journal.End, e journal.Ending, files []string) ([]byte, error) {
	vkey, err := note.NewEd25519VerifierKey(s.Name(), s.Public())
	if err != nil {
		return nil, err
	}
	var b bytes.Buffer
	b.WriteString(end.Head.Checkpoint())
	fmt.Fprintf(&b, "decommissioned %s\nentry %d\ndestroyed %d entries\nsealed %d entries\nlost %d entries\nkey %s\n", end.At.UTC().Format("2006-01-02T15:04:05Z"), end.Seq, end.Destroyed, end.Sealed, end.Lost, vkey)
	for _, l := range [][2]string{{"by", e.By}, {"why", e.Why}} {
		if l[1] != "" {
			fmt.Fprintf(&b, "%s %s\n", l[0], strings.Join(strings.Fields(l[1]), " "))
		}
	}
	for _, name := range files {
		fmt.Fprintf(&b, "file %s\n", name)
	}
	return note.Sign(&note.Note{Text: b.String()}, edge.NoteSigner(s))
}

// removeBesides removes what updates set aside beside the state folder, as nobody else
// may: the daemon writes to no folder but its own.
func removeBesides(state string) error {
	replaced, err := updatecmd.Beside(state)
	errs := []error{err}
	for _, p := range replaced {
		busy := strings.HasSuffix(p, ".part") // it is being made
		for _, dir := range []string{p, state} {
			_, err := os.Lstat(filepath.Join(dir, updatecmd.Restoring))
			busy = busy || err == nil
		}
		if busy {
			errs = append(errs, fmt.Errorf("the copy %s stays, since an update is being undone: say it again afterwards", p))
		} else if err := os.RemoveAll(p); err != nil {
			errs = append(errs, fmt.Errorf("a copy stays that an update set aside, and that root may remove: %w", err))
		}
	}
	return errors.Join(errs...)
}

// staying are the files of the state folder that a decommissioned gate keeps.
var staying = []string{"journal.db", "journal.db-wal", "journal.db-shm", "journal.db.lock", "journal.db.reserve", certificateName}

// doomedFiles are all in the state folder but the journal and the certificate, what
// updates set aside beside it, and the site's key wherever it is.
func doomedFiles(cfg *config.Gate) ([]string, error) {
	roots, err := updatecmd.Beside(cfg.State)
	if err != nil {
		return nil, fmt.Errorf("cannot list what is to be destroyed: %w", err)
	}
	var out []string
	// With the separator it is walked also where it is a link.
	for _, root := range append(roots, cfg.State+string(filepath.Separator)) {
		if err := filepath.WalkDir(root, func(p string, d fs.DirEntry, err error) error {
			if err != nil || !d.Type().IsRegular() {
				return err
			}
			if filepath.Dir(p) != cfg.State || !slices.Contains(staying, filepath.Base(p)) {
				out = append(out, p)
			}
			return nil
		}); err != nil {
			return nil, fmt.Errorf("cannot list what is to be destroyed: %w", err)
		}
	}
	if p := cfg.Keys.Site; p != "" {
		if _, err := os.Stat(p); err == nil && !slices.Contains(out, p) {
			out = append(out, p)
		}
	}
	// Its key goes last: until then an interrupted decommission can be said again.
	if i := slices.Index(out, filepath.Join(cfg.State, "keys", "device.key")); i >= 0 {
		out = append(slices.Delete(out, i, i+1), filepath.Join(cfg.State, "keys", "device.key"))
	}
	return out, nil
}

// shred writes over a file before it is removed: on a disk that helps, and on flash
// it does no harm.
func shred(path string) error {
	f, err := os.OpenFile(path, os.O_WRONLY, 0)
	if err != nil {
		return fmt.Errorf("cannot destroy %s: %w", path, err)
	}
	st, err := f.Stat()
	if err == nil {
		_, err = io.CopyN(f, rand.Reader, st.Size())
	}
	if err := errors.Join(err, f.Sync(), f.Close()); err != nil {
		return fmt.Errorf("cannot destroy %s: %w", path, err)
	}
	if err := os.Remove(path); err != nil {
		return fmt.Errorf("cannot destroy %s: %w", path, err)
	}
	return nil
}
