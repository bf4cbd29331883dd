package clock

import (
	"context"
	"errors"
	"fmt"
	"os"
	"strings"
	"time"

	"golang.org/x/sys/unix"
)

// The gate's own process is kept from every call about clocks, and with them from
// asking the kernel whether NTP disciplines its clock. A process beside it, which may
// do nothing else, asks and leaves a note.
const (
	watchEvery = 2 * time.Second
	noteEvery  = 20 * time.Second
	noteLasts  = 90 * time.Second // after that it says nothing: the watcher is gone
)

// kernelSynced reads adjtimex(2): whichever program disciplines the clock, the kernel
// knows, and forgets it some hours after that program has stopped.
func kernelSynced() (bool, error) {
	var tx unix.Timex
	state, err := unix.Adjtimex(&tx)
	return err == nil && state != unix.TIME_ERROR && tx.Status&unix.STA_UNSYNC == 0, err
}

const (
	noteSynced   = "synced"
	noteUnsynced = "unsynced"
)

// readNote gives what the watcher saw; mono is now, in milliseconds since boot.
func readNote(path string, mono int64) (bool, error) {
	if path == "" {
		return false, errors.New("there is none")
	}
	text, err := os.ReadFile(path)
	if err != nil {
		return false, err
	}
	var what string
	var at int64
	if _, err := fmt.Sscanf(string(text), "%s %d\n", &what, &at); err != nil || what != noteSynced && what != noteUnsynced {
		return false, fmt.Errorf("%s holds %q", path, strings.TrimSpace(string(text)))
	}
	if age := time.Duration(mono-at) * time.Millisecond; age < 0 || age > noteLasts {
		return false, fmt.Errorf("%s is %v old", path, age)
	}
	return what == noteSynced, nil
}

// Watch keeps a note on whether NTP disciplines the clock, for processes that may not
// ask the kernel, until ctx is done. The file belongs on a medium in memory.
func Watch(ctx context.Context, path string) error {
	return watch(ctx, path, machine{}.Mono, kernelSynced)
}

func watch(ctx context.Context, path string, mono func() int64, synced func() (bool, error)) error {
	t := time.NewTicker(watchEvery)
	defer t.Stop()
	var was bool
	var wrote time.Time
	for {
		is, err := synced()
		if err != nil {
			return fmt.Errorf("cannot ask the kernel whether NTP disciplines the clock: %w", err)
		}
		if is != was || time.Since(wrote) >= noteEvery {
			what := noteUnsynced
			if is {
				what = noteSynced
			}
			if err := putNote(path, fmt.Sprintf("%s %d\n", what, mono())); err != nil {
				return fmt.Errorf("cannot leave a note on the clock: %w", err)
			}
			was, wrote = is, time.Now()
		}
		select {
		case <-ctx.Done():
			return nil
		case <-t.C:
		}
	}
}

// putNote replaces the note, for everybody to read.
func putNote(path, text string) error {
	tmp := path + ".new"
	if err := os.WriteFile(tmp, []byte(text), 0o644); err != nil {
		return err
	}
	if err := os.Chmod(tmp, 0o644); err != nil {
		return err
	}
	return os.Rename(tmp, path)
}
