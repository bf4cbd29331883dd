package clock

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"
)

// The note is what the kernel says, at once when that changes, and says nothing when
// its writer has gone.
func TestWatch(t *testing.T) {
	path := filepath.Join(t.TempDir(), "ntp")
	synctest.Test(t, func(t *testing.T) {
		booted := time.Now().Add(-time.Minute)
		mono := func() int64 { return time.Since(booted).Milliseconds() }
		var kernel atomic.Bool
		ctx, stop := context.WithCancel(t.Context())
		ended := make(chan error, 1)
		go func() { ended <- watch(ctx, path, mono, func() (bool, error) { return kernel.Load(), nil }) }()
		check := func(when string, want, fails bool) {
			t.Helper()
			synctest.Wait()
			if got, err := readNote(path, mono()); got != want || (err != nil) != fails {
				t.Errorf("%s: %v, %v", when, got, err)
			}
		}
		check("at the start", false, false)
		kernel.Store(true)
		time.Sleep(watchEvery)
		check("synced", true, false)
		time.Sleep(time.Hour)
		check("an hour later", true, false)
		kernel.Store(false)
		time.Sleep(watchEvery)
		check("not any more", false, false)
		kernel.Store(true)
		time.Sleep(watchEvery)
		synctest.Wait()
		stop()
		if err := <-ended; err != nil {
			t.Error(err)
		}
		check("its writer has just gone", true, false)
		time.Sleep(noteLasts + time.Millisecond)
		check("its writer has long gone", false, true)
	})
}

func TestWatchEndsWhereItIsBlind(t *testing.T) {
	path := filepath.Join(t.TempDir(), "ntp")
	if err := watch(t.Context(), path, func() int64 { return 0 }, func() (bool, error) { return true, os.ErrPermission }); err == nil {
		t.Error("it goes on")
	}
	if _, err := os.Stat(path); err == nil {
		t.Error("and leaves a note")
	}
}

func TestReadNote(t *testing.T) {
	path := filepath.Join(t.TempDir(), "ntp")
	for _, c := range []struct {
		text  string
		want  bool
		fails bool
	}{
		{"synced 1000000\n", true, false},
		{"unsynced 1000000\n", false, false},
		{"synced 1000001\n", false, true}, // from before a start: its time is to come
		{fmt.Sprintf("synced %d\n", 1000000-noteLasts.Milliseconds()-1), false, true},
		{"synced\n", false, true},
		{"yes 1000000\n", false, true},
		{"", false, true},
	} {
		if err := os.WriteFile(path, []byte(c.text), 0o600); err != nil {
			t.Fatal(err)
		}
		if got, err := readNote(path, 1000000); got != c.want || (err != nil) != c.fails {
			t.Errorf("%q: %v, %v", c.text, got, err)
		}
	}
	if _, err := readNote(path+"-none", 1000000); err == nil {
		t.Error("no note is taken for one")
	}
	if _, err := readNote("", 1000000); err == nil {
		t.Error("no note is taken for one")
	}
}
