package updatecmd

import (
	"bytes"
	"errors"
	"fmt"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"syscall"
	"testing"
	"time"
)

// machine is a small root of a Debian system with apt and dpkg of its own, a
// signed repository on the loopback interface, and a service manager of which
// only what an update asks is there.
type machine struct {
	t         *testing.T
	root, bin string
	repo      string
	svc       string // what the service manager says of the unit
	state     string
	srv       *httptest.Server
	out       bytes.Buffer
}

// needs finds the programs, or says that they are not here; in CI that is a
// failure.
func needs(t *testing.T, programs ...string) {
	t.Helper()
	for _, p := range programs {
		if _, err := exec.LookPath(p); err != nil {
			if os.Getenv("CI") != "" {
				t.Fatalf("%s is not installed", p)
			}
			t.Skipf("%s is not installed here; .ci/run installs it", p)
		}
	}
	if os.Geteuid() != 0 {
		if os.Getenv("CI") != "" {
			t.Fatal("dpkg needs root, in its own root too")
		}
		t.Skip("dpkg needs root, in its own root too")
	}
}

// newMachine makes one. mount, if it is not nil, mounts what is to be mounted in it
// before anything is written.
func newMachine(t *testing.T, mount func(*machine)) *machine {
	t.Helper()
	needs(t, "apt-get", "apt-cache", "apt-ftparchive", "dpkg", "dpkg-deb", "gpg")
	dir := t.TempDir()
	m := &machine{t: t, root: filepath.Join(dir, "root"), bin: filepath.Join(dir, "bin"), repo: filepath.Join(dir, "repo"), svc: filepath.Join(dir, "svc")}
	m.state = filepath.Join(m.root, "var/lib/gatehouse")
	if mount != nil {
		mount(m)
	}
	for _, d := range []string{m.bin, m.repo, m.state, "etc/apt/apt.conf.d", "etc/apt/preferences.d", "etc/apt/sources.list.d", "etc/apt/trusted.gpg.d", "var/lib/apt/lists/partial",
		"var/cache/apt/archives/partial", "var/lib/dpkg/info", "var/lib/dpkg/updates", "var/lib/dpkg/triggers", "var/log/apt", "tmp"} {
		if !filepath.IsAbs(d) {
			d = filepath.Join(m.root, d)
		}
		if err := os.MkdirAll(d, 0o755); err != nil {
			t.Fatal(err)
		}
	}
	m.write(filepath.Join(m.root, "var/lib/dpkg/status"), "")
	m.write(filepath.Join(m.root, "var/lib/dpkg/available"), "")
	conf := filepath.Join(dir, "apt.conf")
	m.write(conf, fmt.Sprintf(`Dir "%[1]s/"; Dir::State::status "%[1]s/var/lib/dpkg/status"; Dir::Bin::dpkg "%[2]s/dpkg"; APT::Sandbox::User "root"; Acquire::Languages "none";
DPkg::Path "/usr/sbin:/usr/bin:/sbin:/bin"; APT::Architectures { "all"; "amd64"; };
`, m.root, m.bin))
	dpkg, err := exec.LookPath("dpkg")
	if err != nil {
		t.Fatal(err)
	}
	m.script("dpkg", fmt.Sprintf("exec %s --root=%s --force-script-chrootless --force-depends \"$@\"", dpkg, m.root))
	// Starting is running the installed program once; what it says decides.
	m.script("systemctl", fmt.Sprintf(`root=%s svc=%s
case "$1" in
start) if [ -e "$root/var/lib/gatehouse/restoring" ]; then exit 0; fi # the unit's condition
       if [ ! -e "$svc.refuses" ] && "$root/usr/bin/gatehouse" service "$root"; then echo active >"$svc"; else echo failed >"$svc"; exit 1; fi ;;
stop) echo inactive >"$svc"
      if [ -e "$svc.hangup" ]; then kill -HUP $PPID; fi ;;
show) echo "ActiveState=$(cat "$svc")"
      n=0; if "$root/usr/bin/gatehouse" dies "$root"; then n=$(date +%%N); fi; echo "NRestarts=$n" ;;
esac`, m.root, m.svc))
	home := filepath.Join(dir, "gnupg")
	if err := os.Mkdir(home, 0o700); err != nil {
		t.Fatal(err)
	}
	t.Setenv("GNUPGHOME", home)
	t.Setenv("APT_CONFIG", conf)
	t.Setenv("PATH", m.bin+":"+os.Getenv("PATH"))
	m.do("gpg", "--batch", "--passphrase", "", "--quick-gen-key", "operator@example.org", "ed25519", "sign", "never")
	t.Cleanup(func() { _ = exec.Command("gpgconf", "--kill", "all").Run() })
	key := filepath.Join(m.root, "etc/apt/operator.gpg")
	m.do("gpg", "--output", key, "--export", "operator@example.org")
	files := http.FileServer(http.Dir(m.repo))
	m.srv = httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		r.Header.Del("If-Modified-Since") // two lists of one second are not the same
		files.ServeHTTP(w, r)
	}))
	t.Cleanup(m.srv.Close)
	// The shipped sample, with this repository's address and key.
	sample, err := os.ReadFile("../../../firmware-config/apt/gatehouse.sources")
	if err != nil {
		t.Fatal(err)
	}
	sources := strings.NewReplacer("https://packages.community.example/gatehouse", m.srv.URL, "/etc/apt/keyrings/gatehouse-archive-keyring.gpg", key).Replace(string(sample))
	if !strings.Contains(sources, m.srv.URL) || !strings.Contains(sources, key) {
		t.Fatal("the sample has another address or key")
	}
	m.write(filepath.Join(m.root, "etc/apt/sources.list.d/gatehouse.sources"), sources)
	m.write(filepath.Join(m.state, "journal.db"), "entries\n")
	return m
}

func (m *machine) write(path, text string) {
	m.t.Helper()
	if err := os.WriteFile(path, []byte(text), 0o644); err != nil {
		m.t.Fatal(err)
	}
}

func (m *machine) script(name, text string) {
	m.t.Helper()
	if err := os.WriteFile(filepath.Join(m.bin, name), []byte("#!/bin/sh\n"+text+"\n"), 0o755); err != nil {
		m.t.Fatal(err)
	}
}

func (m *machine) do(name string, args ...string) {
	m.t.Helper()
	if out, err := exec.Command(name, args...).CombinedOutput(); err != nil {
		m.t.Fatalf("%s %q: %v\n%s", name, args, err, out)
	}
}

// Programs of several tempers. service is what the unit starts.
const (
	wellBehaved = `service) test ! -e "$2/var/lib/gatehouse/schema2" || { echo "the databases are newer than this program" >&2; exit 1; }
  echo "by $VERSION" >>"$2/var/lib/gatehouse/journal.db" ;;`
	startsNot  = `service) exit 1 ;;`
	diesLater  = `service) echo "by $VERSION" >>"$2/var/lib/gatehouse/journal.db" ;; dies) exit 0 ;;`
	migrates   = `service) echo "by $VERSION" >>"$2/var/lib/gatehouse/journal.db"; touch "$2/var/lib/gatehouse/schema2" ;; dies) exit 0 ;;`
	noSuchChip = `version) exit 127 ;;`
)

// publish adds a version to the repository by the shipped script.
func (m *machine) publish(version, temper string) {
	m.t.Helper()
	dir := filepath.Join(m.t.TempDir(), "deb")
	for _, d := range []string{"DEBIAN", "usr/bin"} {
		if err := os.MkdirAll(filepath.Join(dir, d), 0o755); err != nil {
			m.t.Fatal(err)
		}
	}
	m.write(filepath.Join(dir, "DEBIAN/control"), fmt.Sprintf("Package: gatehouse\nVersion: %s\nArchitecture: all\nMaintainer: Test <test@example.org>\nDescription: a test\n", version))
	prog := filepath.Join(dir, "usr/bin/gatehouse")
	m.write(prog, fmt.Sprintf("#!/bin/sh\nVERSION=%s\ncase \"$1\" in\n%s\nversion) echo $VERSION ;;\n*) exit 1 ;;\nesac\n", version, temper))
	if err := os.Chmod(prog, 0o755); err != nil {
		m.t.Fatal(err)
	}
	m.do("dpkg-deb", "-b", "--root-owner-group", dir, m.repo)
	m.sign()
}

func (m *machine) sign() {
	m.t.Helper()
	m.do("sh", "../../../firmware-config/apt/publish.sh", m.repo, "operator@example.org")
}

func (m *machine) installFirst(version string) {
	m.t.Helper()
	m.publish(version, wellBehaved)
	m.do("dpkg", "-i", filepath.Join(m.repo, "gatehouse_"+version+"_all.deb"))
	m.do("systemctl", "start", "gatehouse.service")
}

func (m *machine) stage() string { return filepath.Join(m.root, "var/cache/gatehouse/update") }

func (m *machine) system() (out []string) {
	for _, d := range SystemFolders() {
		out = append(out, filepath.Join(m.root, d))
	}
	return out
}

func (m *machine) updater() *Updater {
	return New(Options{Package: "gatehouse", Unit: "gatehouse.service", Sources: filepath.Join(m.root, "etc/apt/sources.list.d/gatehouse.sources"), Stage: m.stage(), System: m.system(),
		Healthy: 1500 * time.Millisecond, Log: slog.New(slog.DiscardHandler), Out: &m.out}, Site{State: m.state})
}

func (m *machine) expect(version string, journal ...string) {
	m.t.Helper()
	out, err := exec.Command(filepath.Join(m.root, "usr/bin/gatehouse"), "version").Output()
	if err != nil || strings.TrimSpace(string(out)) != version {
		m.t.Errorf("version %q is installed, want %s (%v)", out, version, err)
	}
	if b, err := os.ReadFile(m.svc); err != nil || string(b) != "active\n" {
		m.t.Errorf("the service is %s, %v", b, err)
	}
	b, err := os.ReadFile(filepath.Join(m.state, "journal.db"))
	if want := "entries\n" + strings.Join(journal, ""); err != nil || string(b) != want {
		m.t.Errorf("the journal is %q, want %q", b, want)
	}
	if left, _ := filepath.Glob(filepath.Join(m.stage(), "[ps]*")); len(left) > 0 {
		m.t.Errorf("left behind: %v", left)
	}
}

func TestUpdate(t *testing.T) {
	m := newMachine(t, nil)
	m.installFirst("1.0")
	u := m.updater()
	if v, err := u.Check(t.Context()); err != nil || v != (Versions{"1.0", "1.0"}) || v.Newer() {
		t.Fatalf("%+v, %v", v, err)
	}
	if err := u.Apply(t.Context()); err != nil || !strings.Contains(m.out.String(), "1.0 is the newest") {
		t.Fatalf("%v: %s", err, m.out.String())
	}
	m.publish("1.1", wellBehaved)
	if v, err := u.Check(t.Context()); err != nil || v != (Versions{"1.0", "1.1"}) || !v.Newer() {
		t.Fatalf("%+v, %v", v, err)
	}
	if err := u.Apply(t.Context()); err != nil {
		t.Fatalf("%v: %s", err, m.out.String())
	}
	m.expect("1.1", "by 1.0\n", "by 1.1\n")

	// One that does not start: the old one is back, on the same databases.
	m.publish("1.2", startsNot)
	if err := u.Apply(t.Context()); !errors.Is(err, ErrUndone) {
		t.Fatalf("%v: %s", err, m.out.String())
	}
	m.expect("1.1", "by 1.0\n", "by 1.1\n", "by 1.1\n")
	if b, err := os.ReadFile(filepath.Join(m.state, Note)); err != nil || !strings.Contains(string(b), `"alert":"update_undone"`) {
		t.Errorf("the word for the gate is %q, %v", b, err)
	}

	// One that dies again and again: what it wrote stays.
	m.publish("1.3", diesLater)
	if err := u.Apply(t.Context()); !errors.Is(err, ErrUndone) || !strings.Contains(err.Error(), "started again") {
		t.Fatalf("%v: %s", err, m.out.String())
	}
	m.expect("1.1", "by 1.0\n", "by 1.1\n", "by 1.1\n", "by 1.3\n", "by 1.1\n")

	// One that leaves databases which the old one does not read: the copies come
	// back, and the newer ones are kept.
	m.publish("1.4", migrates)
	if err := u.Apply(t.Context()); !errors.Is(err, ErrUndone) {
		t.Fatalf("%v: %s", err, m.out.String())
	}
	m.expect("1.1", "by 1.0\n", "by 1.1\n", "by 1.1\n", "by 1.3\n", "by 1.1\n", "by 1.1\n")
	if b, err := os.ReadFile(m.state + ".of-1.4/journal.db"); err != nil || !strings.HasSuffix(string(b), "by 1.4\n") {
		t.Errorf("the newer databases: %q, %v", b, err)
	}
}

func TestUpdateChangesNothing(t *testing.T) {
	m := newMachine(t, nil)
	m.installFirst("1.0")
	u := m.updater()
	refused := func(what, want string) {
		t.Helper()
		if err := u.Apply(t.Context()); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%s: %v, want %q", what, err, want)
		}
		m.expect("1.0", "by 1.0\n")
	}
	m.publish("1.1", noSuchChip)
	refused("a program that does not start here", "does not start here")

	if err := os.Remove(filepath.Join(m.repo, "gatehouse_1.0_all.deb")); err != nil {
		t.Fatal(err)
	}
	if err := os.RemoveAll(u.o.Stage); err != nil {
		t.Fatal(err)
	}
	m.sign()
	refused("no way back", "no way back")

	release := filepath.Join(m.repo, "InRelease")
	signed, err := os.ReadFile(release)
	if err != nil {
		t.Fatal(err)
	}
	m.write(release, strings.Replace(string(signed), "Origin: Gatehouse", "Origin: Somebody", 1))
	refused("a changed list", ErrUnsigned.Error())

	if err := os.Remove(release); err != nil {
		t.Fatal(err)
	}
	refused("an unsigned repository", "cannot read the repository")

	m.srv.Close()
	refused("no repository", "cannot read the repository")
}

// Where no repository was ever set up, or by somebody who is not root, it is said what to
// do.
func TestUpdateSaysWhatIsMissing(t *testing.T) {
	m := newMachine(t, nil)
	m.installFirst("1.0")
	sources := filepath.Join(m.root, "etc/apt/sources.list.d/gatehouse.sources")
	sample, err := os.ReadFile("../../../firmware-config/apt/gatehouse.sources")
	if err != nil {
		t.Fatal(err)
	}
	key := regexp.MustCompile(`(?m)^Signed-By: (\S+)$`).FindStringSubmatch(string(sample))
	if key == nil {
		t.Fatal("the sample names no key")
	}
	// What the package installs, and where.
	listed, err := os.ReadFile("../../../.package/gatehouse.yaml")
	if err != nil || !strings.Contains(string(listed), "{src: firmware-config/apt/, dst: /usr/share/gatehouse/examples/apt/,") {
		t.Errorf("the package has no sample at /usr/share/gatehouse/examples/apt: %v", err)
	}

	for dir := filepath.Dir(m.root); dir != os.TempDir() && dir != "/"; dir = filepath.Dir(dir) {
		if err := os.Chmod(dir, 0o755); err != nil {
			t.Fatal(err)
		}
	}
	c := exec.Command("/proc/self/exe", "check", "--stage", m.stage(), "--sources", sources)
	c.Env = append(os.Environ(), "GATEHOUSE_TEST_STATE="+m.state)
	c.SysProcAttr = &syscall.SysProcAttr{Credential: &syscall.Credential{Uid: 65534, Gid: 65534}}
	if out, err := c.CombinedOutput(); err == nil || !strings.Contains(string(out), "run it as root") || !strings.Contains(string(out), "cannot read the repository") {
		t.Errorf("not root: %v\n%s", err, out)
	}

	if err := os.Remove(sources); err != nil {
		t.Fatal(err)
	}
	u := m.updater()
	_, err = u.Check(t.Context())
	for _, err := range []error{err, u.Apply(t.Context())} {
		for _, want := range []string{sources + " is not there", "/usr/share/gatehouse/examples/apt/gatehouse.sources", key[1]} {
			if err == nil || !strings.Contains(err.Error(), want) {
				t.Errorf("%v, want %q", err, want)
			}
		}
	}
	m.expect("1.0", "by 1.0\n")
	u.o.Sources = "" // all of the machine's, of which there are none
	if v, err := u.Check(t.Context()); err != nil || v.Newer() {
		t.Errorf("%+v, %v", v, err)
	}
}

// The power fails at each point; the next start finishes or undoes.
func TestResume(t *testing.T) {
	m := newMachine(t, nil)
	m.installFirst("1.0")
	m.publish("1.1", wellBehaved)
	u := m.updater()
	if err := u.Resume(t.Context()); err != nil {
		t.Errorf("nothing to resume: %v", err)
	}
	if _, err := u.Check(t.Context()); err != nil {
		t.Fatal(err)
	}
	for _, c := range []struct {
		phase   string
		install bool // the new package had gone in
		temper  string
		want    string
		undone  bool
	}{
		{phaseReady, false, wellBehaved, "1.0", false},
		{phaseInstalling, false, wellBehaved, "1.0", true},
		{phaseInstalling, true, wellBehaved, "1.0", true},
		{phaseTrying, true, wellBehaved, "1.1", false},
		{phaseUndoing, true, wellBehaved, "1.0", true},
	} {
		m.do("dpkg", "-i", filepath.Join(m.repo, "gatehouse_1.0_all.deb"))
		p := &progress{Phase: c.phase, Old: "1.0", New: "1.1"}
		if err := u.stage(t.Context(), p); err != nil {
			t.Fatal(err)
		}
		p.Phase = c.phase
		if err := u.save(p); err != nil {
			t.Fatal(err)
		}
		if c.install {
			m.do("dpkg", "-i", p.NewFile)
		}
		m.do("systemctl", "start", "gatehouse.service")
		err := u.Resume(t.Context())
		if c.undone != errors.Is(err, ErrUndone) || !c.undone && err != nil {
			t.Errorf("%s: %v", c.phase, err)
		}
		out, err := exec.Command(filepath.Join(m.root, "usr/bin/gatehouse"), "version").Output()
		if err != nil || strings.TrimSpace(string(out)) != c.want {
			t.Errorf("%s: version %q, want %s", c.phase, out, c.want)
		}
	}
	// Two at once.
	unlock, err := u.lock()
	if err != nil {
		t.Fatal(err)
	}
	defer unlock(nil)
	if err := m.updater().Apply(t.Context()); err == nil || !strings.Contains(err.Error(), "another update") {
		t.Errorf("two at once: %v", err)
	}
}

func TestParsePolicy(t *testing.T) {
	for out, want := range map[string]Versions{
		"gatehouse:\n  Installed: 1.0\n  Candidate: 1:1.1~rc1\n  Version table:\n": {"1.0", "1:1.1~rc1"},
		"gatehouse:\n  Installed: (none)\n  Candidate: 1.1\n":                      {"", "1.1"},
		"": {},
	} {
		if got := parsePolicy(out); got != want {
			t.Errorf("%q: %+v, want %+v", out, got, want)
		}
	}
}

func TestCopyFolder(t *testing.T) {
	from, to := t.TempDir(), filepath.Join(t.TempDir(), "copy")
	if err := os.MkdirAll(filepath.Join(from, "keys"), 0o700); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(from, "keys", "a"), []byte("secret"), 0o400); err != nil {
		t.Fatal(err)
	}
	old := time.Unix(1_000_000, 0)
	for _, p := range []string{"keys/a", "keys"} {
		if err := os.Chtimes(filepath.Join(from, p), old, old); err != nil {
			t.Fatal(err)
		}
	}
	for range 2 { // over what is there, too
		if err := copyFolder(from, to); err != nil {
			t.Fatal(err)
		}
	}
	for p, mode := range map[string]os.FileMode{"keys": 0o700, "keys/a": 0o400} {
		st, err := os.Stat(filepath.Join(to, p))
		if err != nil || st.Mode().Perm() != mode || !st.ModTime().Equal(old) {
			t.Errorf("%s: %v, %v", p, st, err)
		}
	}
	if n, err := folderSize(to); err != nil || n != 6 {
		t.Errorf("%d bytes, %v", n, err)
	}
	if err := copyFolder(filepath.Join(from, "nothing"), to); err == nil {
		t.Error("a copy of nothing")
	}
}
