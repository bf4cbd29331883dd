package gatecmd

import (
	"bufio"
	"bytes"
	"io"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
)

// post is the folder of a gate whose state belongs to the daemon's user: nobody, when
// the test is root's, and otherwise whoever runs it.
type post struct {
	dir, conf, state string
	daemon           *syscall.SysProcAttr // nil = nobody else to be
}

func newPost(t *testing.T) *post {
	t.Helper()
	p := &post{dir: t.TempDir()}
	p.conf, p.state = filepath.Join(p.dir, "gate.yaml"), filepath.Join(p.dir, "state")
	for _, d := range []string{p.dir, filepath.Dir(p.dir)} {
		if err := os.Chmod(d, 0o755); err != nil {
			t.Fatal(err)
		}
	}
	if err := os.Mkdir(p.state, 0o700); err != nil {
		t.Fatal(err)
	}
	if os.Geteuid() == 0 {
		const nobody = 65534
		p.daemon = &syscall.SysProcAttr{Credential: &syscall.Credential{Uid: nobody, Gid: nobody}}
		if err := os.Chown(p.state, nobody, nobody); err != nil {
			t.Fatal(err)
		}
	}
	p.write(t, "policy.yaml", "policy: p\nversion: 1\ntitle: All\nauthority: {by: Committee, basis: Rule 1}\nno_match: refer\nrules: [{id: a, title: A, when: pass.status == 'active', then: admit}]\n")
	p.write(t, "gate.yaml", "community: c\nsite: s\ngate: g\nstate: state\npolicy: policy.yaml\nconsole: {listen: '127.0.0.1:0'}\n"+
		"passages: [{name: main, barrier: none}]\nlanes: [{name: in, passage: main, direction: in, scanner: console, thermometer: none}]\n")
	// The test's own program, where the daemon's user may run it: it is the gatehouse
	// program under that name.
	self, err := os.ReadFile(os.Args[0])
	if err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(p.dir, "gatehouse"), self, 0o755); err != nil {
		t.Fatal(err)
	}
	return p
}

func (p *post) write(t *testing.T, name, text string) {
	t.Helper()
	if err := os.WriteFile(filepath.Join(p.dir, name), []byte(text), 0o644); err != nil {
		t.Fatal(err)
	}
}

func (p *post) command(t *testing.T, as *syscall.SysProcAttr, args ...string) *exec.Cmd {
	c := exec.CommandContext(t.Context(), filepath.Join(p.dir, "gatehouse"), append(args, "--config", p.conf)...)
	c.Dir, c.SysProcAttr = p.dir, as
	return c
}

// The installer is root, and asks whether all is well before the service's first start;
// the service is another user and starts, whatever root has asked, also in vain.
func TestRootIsFirst(t *testing.T) {
	for _, first := range []struct {
		args  []string
		wrong bool // there is no policy, at that time
	}{
		{args: []string{"check"}},
		{args: []string{"check"}, wrong: true},
		{args: []string{"pass", "find", "--name", "Wang"}},
		{args: []string{"people", "list"}},
		{args: []string{"backup", "key"}},
		{args: []string{"enroll", "--request", "request.json"}},
	} {
		t.Run(strings.Join(first.args, " "), func(t *testing.T) {
			p := newPost(t)
			policy := filepath.Join(p.dir, "policy.yaml")
			if first.wrong {
				if err := os.Rename(policy, policy+".away"); err != nil {
					t.Fatal(err)
				}
			}
			if out, err := p.command(t, nil, first.args...).CombinedOutput(); (err != nil) != first.wrong {
				t.Fatalf("%v\n%s", err, out)
			}
			if first.wrong {
				if err := os.Rename(policy+".away", policy); err != nil {
					t.Fatal(err)
				}
			}
			p.belongs(t)
			if out, err := p.command(t, p.daemon, "check").CombinedOutput(); err != nil {
				t.Errorf("the daemon's user: %v\n%s", err, out)
			}
			p.starts(t)
			p.belongs(t)
		})
	}
}

// belongs holds the owners of all that is in the state folder against the folder's.
func (p *post) belongs(t *testing.T) {
	t.Helper()
	n := 0
	owner := func(path string) uint32 {
		st, err := os.Lstat(path)
		if err != nil {
			t.Fatal(err)
		}
		return st.Sys().(*syscall.Stat_t).Uid
	}
	want := owner(p.state)
	if err := filepath.WalkDir(p.state, func(path string, _ fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		n++
		if got := owner(path); got != want {
			t.Errorf("%s belongs to %d, the state folder to %d", path, got, want)
		}
		return nil
	}); err != nil {
		t.Fatal(err)
	}
	if n < 2 {
		t.Error("nothing was made")
	}
}

// starts runs the daemon until it is open.
func (p *post) starts(t *testing.T) {
	t.Helper()
	c := p.command(t, p.daemon, "run")
	r, w := io.Pipe()
	c.Stderr = w
	if err := c.Start(); err != nil {
		t.Fatal(err)
	}
	done := make(chan error, 1)
	go func() {
		done <- c.Wait()
		_ = w.Close()
	}()
	var said bytes.Buffer
	open := false
	for sc := bufio.NewScanner(r); sc.Scan(); {
		said.WriteString(sc.Text() + "\n")
		if !open && strings.Contains(sc.Text(), "open for business") {
			open = true
			if err := c.Process.Signal(syscall.SIGTERM); err != nil {
				t.Error(err)
			}
		}
	}
	if err := <-done; err != nil || !open {
		t.Errorf("the daemon: %v\n%s", err, said.String())
	}
}

// Where root's files are in the way all the same, the service says what to do.
func TestFilesOfAnother(t *testing.T) {
	for _, name := range []string{"journal.db", "registry.db", "keys/device.key", "keys/device.age", "keys/site.key", "keys"} {
		t.Run(name, func(t *testing.T) {
			p := newPost(t)
			if out, err := p.command(t, p.daemon, "check").CombinedOutput(); err != nil {
				t.Fatalf("%v\n%s", err, out)
			}
			path := filepath.Join(p.state, name)
			var err error
			if p.daemon != nil {
				err = os.Chown(path, 0, 0)
			} else {
				err = os.Chmod(path, 0)
				t.Cleanup(func() { _ = os.Chmod(path, 0o700) })
			}
			if err != nil {
				t.Fatal(err)
			}
			out, err := p.command(t, p.daemon, "run").CombinedOutput()
			if want := "chown -R gatehouse: " + p.state; err == nil || !strings.Contains(string(out), want) {
				t.Errorf("%v, without %q:\n%s", err, want, out)
			}
		})
	}
}
