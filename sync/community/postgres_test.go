package community

import (
	"bytes"
	"context"
	"database/sql"
	"errors"
	"fmt"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"
)

// cluster is a PostgreSQL server of the test's own.
type cluster struct {
	bin, dir string
	flags    []string
}

// nobody is the user a PostgreSQL server runs as when the tests run as root,
// which it refuses.
const nobody = 65534

// newCluster makes and starts a server that listens on a socket only.
func newCluster(t testing.TB, flags ...string) *cluster {
	t.Helper()
	bins, err := filepath.Glob("/usr/lib/postgresql/*/bin/initdb")
	if err != nil {
		t.Fatal(err)
	}
	if p, err := exec.LookPath("initdb"); err == nil && len(bins) == 0 {
		bins = append(bins, p)
	}
	if len(bins) == 0 {
		if os.Getenv("CI") == "true" {
			t.Fatal("PostgreSQL is not installed")
		}
		t.Skip("PostgreSQL is not installed")
	}
	slices.Sort(bins)
	c := &cluster{bin: filepath.Dir(bins[len(bins)-1]), dir: t.TempDir(), flags: flags}
	if os.Getuid() == 0 {
		// The folder above is for its owner only.
		if err := errors.Join(os.Chmod(filepath.Dir(c.dir), 0o755), os.Chown(c.dir, nobody, nobody)); err != nil {
			t.Fatal(err)
		}
	}
	c.run(t, "initdb", "-D", c.data(), "-U", "test", "-A", "trust", "-E", "UTF8", "--locale=C", "--no-sync", "--no-instructions")
	c.start(t)
	t.Cleanup(func() {
		if _, err := os.Stat(filepath.Join(c.data(), "postmaster.pid")); err == nil {
			// Unlike a kill, it leaves no shared memory behind.
			c.run(t, "pg_ctl", "-D", c.data(), "-w", "-m", "immediate", "stop")
		}
	})
	return c
}

func (c *cluster) data() string { return filepath.Join(c.dir, "d") }

func (c *cluster) run(t testing.TB, name string, args ...string) {
	t.Helper()
	cmd := exec.Command(filepath.Join(c.bin, name), args...)
	cmd.Dir = c.dir
	if os.Getuid() == 0 {
		cmd.SysProcAttr = &syscall.SysProcAttr{Credential: &syscall.Credential{Uid: nobody, Gid: nobody}}
	}
	out, err := os.Create(filepath.Join(t.TempDir(), "out"))
	if err != nil {
		t.Fatal(err)
	}
	defer out.Close()
	cmd.Stdout, cmd.Stderr = out, out
	if err := cmd.Run(); err != nil {
		b, _ := os.ReadFile(out.Name())
		log, _ := os.ReadFile(filepath.Join(c.dir, "log"))
		t.Fatalf("%s: %v\n%s\n%s", name, err, b, log)
	}
}

func (c *cluster) start(t testing.TB) {
	t.Helper()
	o := "-c listen_addresses='' -c unix_socket_directories=" + c.dir
	for _, f := range c.flags {
		o += " -c " + f
	}
	c.run(t, "pg_ctl", "-D", c.data(), "-w", "-l", filepath.Join(c.dir, "log"), "-o", o, "start")
}

// kill ends every process of the server at once, as kill -9 does; the next start
// recovers from the log.
func (c *cluster) kill(t testing.TB) {
	t.Helper()
	b, err := os.ReadFile(filepath.Join(c.data(), "postmaster.pid"))
	if err != nil {
		return // not running
	}
	var pid int
	if _, err := fmt.Sscan(string(b), &pid); err != nil {
		t.Fatal(err)
	}
	// Stopped, it begins no process that would be missed here. Backends end by themselves
	// when the postmaster is gone, unless they are killed first; a start is refused as long
	// as one of them holds the shared memory.
	if err := syscall.Kill(pid, syscall.SIGSTOP); err != nil {
		t.Fatalf("cannot stop the server: %v", err)
	}
	children, err := exec.Command("ps", "-o", "pid=", "--ppid", fmt.Sprint(pid)).Output()
	if err != nil {
		t.Fatalf("cannot list the server's processes: %v", err)
	}
	all := []int{pid}
	for f := range strings.FieldsSeq(string(children)) {
		p, err := strconv.Atoi(f)
		if err != nil {
			t.Fatalf("ps says %q", children)
		}
		all = append(all, p)
	}
	for _, p := range all {
		_ = syscall.Kill(p, syscall.SIGKILL) // or it has ended by itself
	}
	for _, p := range all {
		for running(p) {
			time.Sleep(time.Millisecond) // nothing announces the end of a process that is not a child
		}
	}
	// A start asks whether the process of a lock still is, which one is that nobody waited for.
	for _, lock := range []string{filepath.Join(c.data(), "postmaster.pid"), filepath.Join(c.dir, ".s.PGSQL.5432.lock")} {
		if err := os.Remove(lock); err != nil && !errors.Is(err, os.ErrNotExist) {
			t.Fatal(err)
		}
	}
}

// running reports whether a process has not ended, waited for by its parent or not.
func running(pid int) bool {
	b, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
	return err == nil && !bytes.HasPrefix(b[bytes.LastIndexByte(b, ')')+1:], []byte(" Z"))
}

func (c *cluster) dsn(db string) string {
	return "postgres://test@/" + db + "?host=" + url.QueryEscape(c.dir)
}

// newDatabase makes an empty database and returns its address.
func (c *cluster) newDatabase(t testing.TB, name string) string {
	t.Helper()
	db, err := sql.Open("pgx", c.dsn("postgres"))
	if err != nil {
		t.Fatal(err)
	}
	defer db.Close()
	if _, err := db.ExecContext(context.Background(), "CREATE DATABASE "+name); err != nil {
		t.Fatal(err)
	}
	return c.dsn(name)
}

func TestPostgres(t *testing.T) {
	c := newCluster(t, "fsync=off")
	for name, f := range map[string]func(*testing.T, string){
		"stored_once": testStoredOnce,
		"burst":       testBurst,
		"forks":       testForks,
		"epochs":      testEpochs,
		"peers":       testPeers,
		"roster":      testRoster,
		"proofs":      testProofs,
		"purge":       testPurge,
		"erase":       testErase,
		"revoked":     testRevoked,
		"hostile":     testHostileTexts,
		"local":       testLocal,
		"clocks":      testClocks,
		"enrol":       testEnrol,
		"carried":     testCarried,
		"bounds":      testBounds,
		"trust":       testTrust,
		"leaps":       testTimeLeaps,
		"retire_late": testRetireLate,
		"during":      testDuringImport,
		"turns":       testTurns,
		"one_version": testOneVersion,
		"verify":      testVerifyRows,
		"beside":      testVerifyBesidePurge,
		"since":       testSince,
		"retire":      testVerifyBesideRetire,
		"remains": func(t *testing.T, where string) {
			db, err := sql.Open("pgx", where)
			if err != nil {
				t.Fatal(err)
			}
			defer db.Close()
			testRemains(t, where, func() []string { return c.pgFiles(t, db) })
		},
		"reader": func(t *testing.T, where string) {
			db, err := sql.Open("pgx", where)
			if err != nil {
				t.Fatal(err)
			}
			defer db.Close()
			testRemainsBesideReader(t, where, func() []string { return c.pgFiles(t, db) })
		},
		"killed": func(t *testing.T, where string) { testKilled(t, where, kills(t, 20)) },
	} {
		t.Run(name, func(t *testing.T) { f(t, c.newDatabase(t, name)) })
	}
}
