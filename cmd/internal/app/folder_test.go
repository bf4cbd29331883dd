package app

import (
	"database/sql"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"gatehouse/cmd/internal/config"
	"gatehouse/edge/sqlite"
)

func quietBuild(t *testing.T, conf string, o Options) (*App, error) {
	t.Helper()
	cfg, err := config.Load(conf)
	if err != nil {
		return nil, err
	}
	o.Version, o.TrustClock, o.Log = "test", true, slog.New(slog.NewTextHandler(io.Discard, nil))
	return Build(t.Context(), cfg, o)
}

// What is wrong at a start is said with its remedy, and nothing is damaged by it:
// once it is put right the gate starts, with the journal that it had.
func TestWrongStarts(t *testing.T) {
	setup := func(t *testing.T) (conf, state string) {
		dir := t.TempDir()
		conf, state = filepath.Join(dir, "gate.yaml"), filepath.Join(dir, "state")
		yaml := "community: c\nsite: s\ngate: g\nstate: state\npolicy: policy.yaml\nconsole: {listen: ''}\n" +
			"passages: [{name: main, barrier: none}]\nlanes: [{name: in, passage: main, direction: in, scanner: console, thermometer: none}]\n"
		for name, text := range map[string]string{"policy.yaml": strings.Replace(curfew, "UNTRUSTED", "skip", 1), "gate.yaml": yaml} {
			if err := os.WriteFile(filepath.Join(dir, name), []byte(text), 0o600); err != nil {
				t.Fatal(err)
			}
		}
		return conf, state
	}
	var first *App
	for _, c := range []struct {
		name  string
		wrong func(t *testing.T, conf, state string) (repair func() error)
		want  []string
	}{
		{"two daemons on one state folder", func(t *testing.T, conf, _ string) func() error {
			a, err := quietBuild(t, conf, Options{})
			if err != nil {
				t.Fatal(err)
			}
			first = a
			return a.Close
		}, []string{"another daemon", fmt.Sprint(os.Getpid()), "systemctl stop gatehouse"}},
		{"a medium that can only be read", func(t *testing.T, _, state string) func() error {
			if err := unix.Mount(state, state, "", unix.MS_BIND, ""); err != nil {
				if os.Getenv("CI") != "" {
					t.Fatal(err)
				}
				t.Skipf("cannot mount here (%v); .ci/run is root and can", err)
			}
			t.Cleanup(func() { _ = unix.Unmount(state, unix.MNT_DETACH) })
			if err := unix.Mount("", state, "", unix.MS_BIND|unix.MS_REMOUNT|unix.MS_RDONLY, ""); err != nil {
				t.Fatal(err)
			}
			return func() error { return unix.Mount("", state, "", unix.MS_BIND|unix.MS_REMOUNT, "") }
		}, []string{"can only be read", "replace it", "remount"}},
		{"a downgrade across a migration", func(t *testing.T, _, state string) func() error {
			set := func(v int) error {
				db, err := sql.Open("sqlite", filepath.Join(state, "journal.db"))
				if err != nil {
					return err
				}
				_, err = db.Exec(fmt.Sprintf("PRAGMA user_version=%d", v))
				return errors.Join(err, db.Close())
			}
			db, err := sqlite.ReadDamaged(filepath.Join(state, "journal.db"))
			if err != nil {
				t.Fatal(err)
			}
			var now int
			if err := errors.Join(db.QueryRow("PRAGMA user_version").Scan(&now), db.Close()); err != nil {
				t.Fatal(err)
			}
			if err := set(99); err != nil {
				t.Fatal(err)
			}
			return func() error { return set(now) }
		}, []string{"newer version", "install the newer program again"}},
		{"a key that others can read", func(t *testing.T, _, state string) func() error {
			key := filepath.Join(state, "keys", "device.key")
			if err := os.Chmod(key, 0o644); err != nil {
				t.Fatal(err)
			}
			return func() error { return os.Chmod(key, 0o600) }
		}, []string{"can be read by others", "chmod 600"}},
		{"a half-written configuration", func(t *testing.T, conf, _ string) func() error {
			b, err := os.ReadFile(conf)
			if err != nil {
				t.Fatal(err)
			}
			if err := os.WriteFile(conf, b[:len(b)-20], 0o600); err != nil {
				t.Fatal(err)
			}
			return func() error { return os.WriteFile(conf, b, 0o600) }
		}, []string{"gate.yaml:"}},
		{"a site key that the service was not handed", func(t *testing.T, conf, _ string) func() error {
			b, err := os.ReadFile(conf)
			if err != nil {
				t.Fatal(err)
			}
			if err := os.WriteFile(conf, append(b, "keys: {site: keys/site.key}\n"...), 0o600); err != nil {
				t.Fatal(err)
			}
			t.Setenv("CREDENTIALS_DIRECTORY", t.TempDir())
			return func() error { return errors.Join(os.Unsetenv("CREDENTIALS_DIRECTORY"), os.WriteFile(conf, b, 0o600)) }
		}, []string{"no site key", "keys/site.key", "gatehouse enroll", "systemctl restart gatehouse"}},
		{"a key file that is missing", func(t *testing.T, conf, _ string) func() error {
			b, err := os.ReadFile(conf)
			if err != nil {
				t.Fatal(err)
			}
			if err := os.WriteFile(conf, append(b, "sync: {url: 'mqtts://b:8883', trust: nowhere}\n"...), 0o600); err != nil {
				t.Fatal(err)
			}
			return func() error { return os.WriteFile(conf, b, 0o600) }
		}, []string{"nowhere", "communityd trust prints them"}},
	} {
		t.Run(c.name, func(t *testing.T) {
			conf, state := setup(t)
			a, err := quietBuild(t, conf, Options{})
			if err != nil {
				t.Fatal(err)
			}
			epoch := a.Journal.Epoch()
			if err := a.Close(); err != nil {
				t.Fatal(err)
			}
			repair := c.wrong(t, conf, state)
			if a, err := quietBuild(t, conf, Options{}); err == nil {
				_ = a.Close()
				t.Error("it started")
			} else {
				for _, w := range c.want {
					if !strings.Contains(err.Error(), w) {
						t.Errorf("%v\ndoes not say %q", err, w)
					}
				}
			}
			if first != nil {
				// A look beside the daemon is always possible.
				beside, err := quietBuild(t, conf, Options{Beside: true})
				if err != nil {
					t.Error(err)
				} else if err := beside.Close(); err != nil {
					t.Error(err)
				}
				first = nil
			}
			if err := repair(); err != nil {
				t.Fatal(err)
			}
			if a, err = quietBuild(t, conf, Options{}); err != nil {
				t.Fatalf("after it was put right: %v", err)
			}
			if a.Journal.Epoch() != epoch {
				t.Error("another epoch has begun")
			}
			if err := a.Close(); err != nil {
				t.Error(err)
			}
		})
	}
}

// What an idle display tells is no reason to keep a gate shut.
func TestStartWithoutTips(t *testing.T) {
	dir := t.TempDir()
	for name, text := range map[string]string{"policy.yaml": strings.Replace(curfew, "UNTRUSTED", "skip", 1), "wrong.yaml": "en: Wash\n"} {
		if err := os.WriteFile(filepath.Join(dir, name), []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	for _, tips := range []string{"nowhere.yaml", "wrong.yaml", "."} {
		conf := filepath.Join(dir, "gate.yaml")
		if err := os.WriteFile(conf, []byte("community: c\nsite: s\ngate: g\nstate: state\npolicy: policy.yaml\nconsole: {listen: '127.0.0.1:0', tips: "+tips+"}\n"+
			"passages: [{name: main, barrier: none}]\nlanes: [{name: in, passage: main, direction: in, scanner: console, thermometer: none}]\n"), 0o600); err != nil {
			t.Fatal(err)
		}
		cfg, err := config.Load(conf)
		if err != nil {
			t.Fatal(err)
		}
		log := new(said)
		a, err := Build(t.Context(), cfg, Options{Version: "test", TrustClock: true, Log: slog.New(slog.NewTextHandler(log, nil))})
		if err != nil {
			t.Fatal(err)
		}
		if a.Console == nil || !strings.Contains(log.String(), "without the tips") {
			t.Errorf("%s: console %v, the log:\n%s", tips, a.Console != nil, log)
		}
		if err := a.Close(); err != nil {
			t.Error(err)
		}
	}
}

// A medium that is full before the start: the gate starts in its reserve.
func TestStartOnAFullMedium(t *testing.T) {
	dir := t.TempDir()
	state := filepath.Join(dir, "state")
	if err := os.Mkdir(state, 0o700); err != nil {
		t.Fatal(err)
	}
	if err := unix.Mount("none", state, "tmpfs", 0, "size=128m"); err != nil {
		if os.Getenv("CI") != "" {
			t.Fatal(err)
		}
		t.Skipf("cannot mount here (%v); .ci/run is root and can", err)
	}
	t.Cleanup(func() { _ = unix.Unmount(state, unix.MNT_DETACH) })
	yaml := "community: c\nsite: s\ngate: g\nstate: state\npolicy: policy.yaml\nconsole: {listen: ''}\n" +
		"passages: [{name: main, barrier: none}]\nlanes: [{name: in, passage: main, direction: in, scanner: console, thermometer: none}]\n"
	for name, text := range map[string]string{"policy.yaml": strings.Replace(curfew, "UNTRUSTED", "skip", 1), "gate.yaml": yaml} {
		if err := os.WriteFile(filepath.Join(dir, name), []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	conf := filepath.Join(dir, "gate.yaml")
	a, err := quietBuild(t, conf, Options{})
	if err != nil {
		t.Fatal(err)
	}
	if err := a.Close(); err != nil {
		t.Fatal(err)
	}
	junk, err := os.Create(filepath.Join(state, "junk"))
	if err != nil {
		t.Fatal(err)
	}
	block := make([]byte, 4096)
	for err == nil {
		_, err = junk.Write(block)
	}
	if err := junk.Close(); err != nil {
		t.Fatal(err)
	}
	if a, err = quietBuild(t, conf, Options{}); err != nil {
		t.Fatal(err)
	}
	for i := range 200 {
		if _, err := a.record(t.Context(), "device", map[string]int{"n": i}); err != nil {
			t.Fatalf("entry %d: %v", i, err)
		}
	}
	if err := a.Close(); err != nil {
		t.Error(err)
	}
}
