package backup

import (
	"bufio"
	"bytes"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"gatehouse/cmd/internal/config"
	"gatehouse/cmd/internal/version"
)

// Command makes "gatehouse backup".
func Command(defaultConfig string) *cobra.Command {
	var path, out string
	var keep int
	c := &cobra.Command{
		Use:   "backup",
		Short: "Copy what this gate knows into one encrypted file, while it runs",
		Long: `backup writes the journal, the roster, the configuration with the policies and what
else it names beside itself, and the udev rules of this gate's readers, each as it is
at one moment, into one file. The community can read it, and whoever holds the
recovery key that was printed at the first start. The device's own keys are not in it,
nor are a certificate and password that gate.yaml names.

Without --out it goes where gate.yaml says (backup: {to: /media/stick}), or here. The
package does it every night (gatehouse-backup.timer); without a place in gate.yaml to
/var/lib/gatehouse-backup, which lies on the gate's own card: that helps against a
mistake, not against a dead card. After a change of the place: gatehouse setup.`,
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			cfg, err := config.Load(path)
			if err != nil {
				return err
			}
			if !cmd.Flags().Changed("keep") {
				keep = cfg.Backup.Keep
			}
			configured := out == "" && cfg.Backup.To != ""
			switch {
			case configured:
				out = cfg.Backup.To
				if st, err := os.Stat(out); err != nil || !st.IsDir() {
					return fmt.Errorf("%s, where gate.yaml sends backups (backup.to), is no folder: is the medium there, and mounted?", out)
				}
			case out == "":
				out = "."
			}
			file, err := Write(cmd.Context(), cfg, path, out, version.String(), time.Now(), keep)
			if err != nil {
				return err
			}
			same, err := sameMedium(cfg, file)
			if err != nil {
				return err
			}
			st, err := os.Stat(file)
			if err != nil {
				return err
			}
			if _, err := fmt.Fprintf(cmd.OutOrStdout(), "%s: %d KiB\n", file, (st.Size()+1023)/1024); err != nil {
				return err
			}
			switch {
			case same && configured:
				return fmt.Errorf("%s is on the medium of the gate's own state, and would die with it: is the medium of backup.to mounted there?", file)
			case same:
				_, err = fmt.Fprintln(cmd.OutOrStdout(), "note: it lies on the medium of the gate's own state, and dies with it. Copy it away, or name another medium in gate.yaml (backup: {to: /media/stick}) and run: gatehouse setup")
			}
			return err
		},
	}
	c.PersistentFlags().StringVarP(&path, "config", "c", defaultConfig, "the gate's configuration")
	c.Flags().StringVarP(&out, "out", "o", "", "`file` to write, or a folder; without it where gate.yaml says, or here")
	c.Flags().IntVar(&keep, "keep", 7, "of this gate's backups in the folder keep the newest `number`; 0 = all; gate.yaml may say another (backup.keep)")
	var again bool
	key := &cobra.Command{
		Use:   "key",
		Short: "Make and print the recovery key that opens this gate's backups",
		Args:  cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			cfg, err := config.Load(path)
			if err != nil {
				return err
			}
			if err := os.MkdirAll(cfg.State, 0o700); err != nil {
				return cfg.Remedy(fmt.Errorf("cannot make the state folder: %w", err))
			}
			if _, err := os.Stat(recoveryFile(cfg)); err == nil && !again {
				return errors.New("this gate has a recovery key, which was printed when it was made; --again makes another, which opens backups made from then on")
			}
			return NewKey(cfg, cmd.OutOrStdout())
		},
	}
	key.Flags().BoolVar(&again, "again", false, "make another in the place of the one that there is")
	c.AddCommand(key)
	return c
}

// RestoreCommand makes "gatehouse restore".
func RestoreCommand(defaultConfig string) *cobra.Command {
	var path, key string
	c := &cobra.Command{
		Use:   "restore BACKUP",
		Short: "Put a backup on this device, which takes the place of the one that died",
		Long: `restore asks for the recovery key and puts back configuration, policies, roster and
journal, and says what else the device lacks. The gate keeps its name; the device is another one, with keys of its own
and a new epoch of the journal, so the community server is asked to approve it:

    gatehouse restore /media/usb/north-east-20260514-090000.backup
    gatehouse enroll gatehouse://...
    communityd gates replace north/east K7QF-2M9X-3HTR      (there)
    gatehouse setup && gatehouse check
    systemctl start gatehouse`,
		Args: cobra.ExactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			f, err := os.Open(args[0])
			if err != nil {
				return fmt.Errorf("cannot read the backup: %w", err)
			}
			defer f.Close()
			secret, err := readKey(cmd, key)
			if err != nil {
				return err
			}
			cfg, man, err := Restore(cmd.Context(), f, secret, path)
			if err != nil {
				return err
			}
			if _, err := fmt.Fprintf(cmd.OutOrStdout(), "restored gate %s of site %s as it was at %s.\n", cfg.Gate, cfg.Site, time.UnixMilli(man.At).UTC().Format("2006-01-02 15:04 MST")); err != nil {
				return err
			}
			if err := lacks(cmd.OutOrStdout(), cfg, path); err != nil {
				return err
			}
			_, err = fmt.Fprintf(cmd.OutOrStdout(), "This device has no keys yet; ask the community server to approve it in the old one's place:\n    gatehouse enroll INVITATION\n    communityd gates replace %s/%s CODE      (at the server)\nThen: gatehouse setup && gatehouse check && systemctl start gatehouse\n",
				cfg.Site, cfg.Gate)
			return err
		},
	}
	c.Flags().StringVarP(&path, "config", "c", defaultConfig, "where the gate's configuration is to be")
	c.Flags().StringVar(&key, "key", "", "`file` with the recovery key; without it the key is asked for")
	return c
}

// lacks says what is still to be done by hand before a restored gate is as it was.
func lacks(out io.Writer, cfg *config.Gate, path string) error {
	for _, f := range cfg.Files() {
		if _, err := os.Stat(f.Path); errors.Is(err, fs.ErrNotExist) {
			if _, err := fmt.Fprintf(out, "%s (%s in gate.yaml) was not in the backup: bring it, or take it out of gate.yaml.\n", f.Path, f.Key); err != nil {
				return err
			}
		}
	}
	folder := filepath.Join(filepath.Dir(path), rulesFolder)
	rules, err := filepath.Glob(filepath.Join(folder, rulesName))
	if err != nil {
		return err
	}
	src, err := os.ReadFile(path)
	switch {
	case err != nil:
		return fmt.Errorf("cannot read the configuration: %w", err)
	case len(rules) > 0:
		_, err = fmt.Fprintf(out, "The names of readers and thermometers come from udev's rules. Those of the old device are in %s; where\nadapters are told apart by their sockets, write the ones of this device (gatehouse devices find). Then:\n    cp %s /etc/udev/rules.d/ && udevadm control --reload && udevadm trigger\n",
			folder, strings.Join(rules, " "))
	case bytes.Contains(src, []byte("/dev/gatehouse/")):
		_, err = fmt.Fprintln(out, "gate.yaml names devices in /dev/gatehouse, and no udev rules for them were in the backup: write\n/etc/udev/rules.d/70-gatehouse.rules after /usr/share/gatehouse/examples/udev/70-gatehouse.rules (gatehouse devices find).")
	}
	return err
}

// readKey reads the key from a file, or from the terminal.
func readKey(cmd *cobra.Command, path string) (string, error) {
	if path != "" {
		b, err := os.ReadFile(path)
		if err != nil {
			return "", fmt.Errorf("cannot read the recovery key: %w", err)
		}
		return string(b), nil
	}
	fmt.Fprint(cmd.ErrOrStderr(), "The recovery key (AGE-SECRET-KEY-1...): ")
	line, err := bufio.NewReader(io.LimitReader(cmd.InOrStdin(), 1<<12)).ReadString('\n')
	if err != nil && !errors.Is(err, io.EOF) {
		return "", fmt.Errorf("cannot read the recovery key: %w", err)
	}
	// Typed from paper: case and spaces do not matter.
	return strings.ToUpper(strings.Join(strings.Fields(line), "")), nil
}
