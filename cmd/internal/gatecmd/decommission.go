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

	"gatehouse/cmd/internal/config"
	"gatehouse/edge"
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
registry, and the device's and site's keys. What stays is journal.db with the leaves
alone, and decommissioned.note: the statement, signed by the key that is gone.

Entries that the community server has not receipted are sealed to its key and stay,
for the card to be read by it. Without its key they would be lost: the command refuses
then, unless told to --lose them. Flash keeps old copies of blocks that are written
over: for a card that leaves the house, "blkdiscard" or a hammer follows.`,
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
	// Before anything is destroyed: what cannot be listed could not be destroyed.
	if _, err := doomedFiles(cfg); err != nil {
		return nil, err
	}
	j, err := alone(ctx, cfg)
	if err != nil {
		return nil, err
	}
	end, err := j.Decommission(ctx, e)
	if err := errors.Join(err, j.Close()); err != nil {
		return nil, err
	}
	doomed, err := doomedFiles(cfg)
	if err != nil {
		return nil, err
	}
	text, err := certificate(signer, end, e, cfg.State, doomed)
	if err != nil {
		return nil, err
	}
	if err := writeDurably(filepath.Join(cfg.State, certificateName), text); err != nil {
		return nil, err
	}
	for _, p := range doomed {
		if err := shred(p); err != nil {
			return nil, fmt.Errorf("%w; say decommission again", err)
		}
	}
	return text, nil
}

// certificate is the statement that stays: a signed note whose first lines are the
// last checkpoint's, so that tools for checkpoints read it.
func certificate(s edge.Signer, end journal.End, e journal.Ending, state string, doomed []string) ([]byte, error) {
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
	for _, p := range doomed {
		name, err := filepath.Rel(state, p)
		if err != nil {
			name = p
		}
		fmt.Fprintf(&b, "file %s\n", name)
	}
	return note.Sign(&note.Note{Text: b.String()}, edge.NoteSigner(s))
}

// spared are the files in the state folder that stay: the journal, of which the leaves
// are left, and the certificate. A journal that was set aside is not among them.
var spared = []string{"journal.db", "journal.db-wal", "journal.db-shm", "journal.db.lock", "journal.db.reserve", certificateName}

// doomedFiles are all in the state folder but those, and the site's key wherever it is.
func doomedFiles(cfg *config.Gate) ([]string, error) {
	var out []string
	err := filepath.WalkDir(cfg.State, func(p string, d fs.DirEntry, err error) error {
		if err != nil || !d.Type().IsRegular() {
			return err
		}
		if name := filepath.Base(p); filepath.Dir(p) == filepath.Clean(cfg.State) && slices.Contains(spared, name) {
			return nil
		}
		out = append(out, p)
		return nil
	})
	if err != nil {
		return nil, fmt.Errorf("cannot list what is to be destroyed: %w", err)
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

func writeDurably(path string, text []byte) error {
	f, err := os.OpenFile(path, os.O_CREATE|os.O_WRONLY|os.O_TRUNC, 0o644)
	if err != nil {
		return fmt.Errorf("cannot write %s: %w", path, err)
	}
	_, err = f.Write(text)
	if err := errors.Join(err, f.Sync(), f.Close()); err != nil {
		return fmt.Errorf("cannot write %s: %w", path, err)
	}
	d, err := os.Open(filepath.Dir(path))
	if err != nil {
		return err
	}
	return errors.Join(d.Sync(), d.Close())
}
