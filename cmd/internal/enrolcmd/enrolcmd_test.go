package enrolcmd

import (
	"bytes"
	"context"
	"crypto/ecdsa"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"encoding/pem"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"log/slog"
	"math/big"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"go.uber.org/goleak"
	"golang.org/x/sys/unix"

	"gatehouse/cmd/internal/app"
	"gatehouse/cmd/internal/backup"
	"gatehouse/cmd/internal/communitycmd"
	"gatehouse/cmd/internal/config"
	"gatehouse/edge"
	"gatehouse/edge/identity"
	"gatehouse/edge/journal"
	firmwareconfig "gatehouse/firmware-config"
	"gatehouse/sync/mqtt"
	"gatehouse/sync/wire"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// lines is what a command has said so far.
type lines struct {
	mu  sync.Mutex
	buf bytes.Buffer
}

func (l *lines) Write(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.buf.Write(p)
}

func (l *lines) String() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.buf.String()
}

func waitFor(t *testing.T, what string, f func() bool) {
	t.Helper()
	deadline := time.Now().Add(40 * time.Second)
	for !f() {
		if time.Now().After(deadline) {
			t.Fatalf("not within 40 s: %s", what)
		}
		time.Sleep(20 * time.Millisecond)
	}
}

// estate is a community server with its guarded broker, and the folders of gates.
type estate struct {
	dir, addr string
}

func (e *estate) communityd(t *testing.T, args ...string) (string, error) {
	t.Helper()
	c := communitycmd.New("test")
	var out bytes.Buffer
	c.SetOut(&out)
	c.SetErr(io.Discard)
	c.SetArgs(append(args, "--store", filepath.Join(e.dir, "c.db"), "--community", "lakeside"))
	err := c.ExecuteContext(t.Context())
	return out.String(), err
}

func (e *estate) must(t *testing.T, args ...string) string {
	t.Helper()
	out, err := e.communityd(t, args...)
	if err != nil {
		t.Fatalf("communityd %s: %v", strings.Join(args, " "), err)
	}
	return out
}

func freeAddr(t *testing.T) string {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	return l.Addr().String()
}

func newEstate(t *testing.T) *estate {
	t.Helper()
	e := &estate{dir: t.TempDir(), addr: freeAddr(t)}
	e.serve(t, "--embedded-broker", "--listen", e.addr, "--host", "127.0.0.1")
	return e
}

// serve runs the community server until the test ends, or it is stopped.
func (e *estate) serve(t *testing.T, args ...string) (end func()) {
	t.Helper()
	ctx, stop := context.WithCancel(context.Background())
	c := communitycmd.New("test")
	said := &lines{}
	c.SetErr(said)
	c.SetOut(said)
	c.SetArgs(append([]string{"run", "--store", filepath.Join(e.dir, "c.db"), "--community", "lakeside"}, args...))
	done := make(chan error, 1)
	go func() { done <- c.ExecuteContext(ctx) }()
	end = sync.OnceFunc(func() {
		stop()
		if err := <-done; err != nil {
			t.Error(err)
		}
	})
	t.Cleanup(end)
	waitFor(t, "the server runs", func() bool {
		select {
		case err := <-done:
			done <- err
			t.Fatalf("the server has ended: %v\n%s", err, said)
		default:
		}
		return strings.Contains(said.String(), "connected to the broker")
	})
	return end
}

// The sample configuration of Mosquitto, with the community's certificates: a gate
// enrols at the second listener, works at the first, and is out when it is revoked.
func TestWithMosquitto(t *testing.T) {
	prog, err := exec.LookPath("mosquitto")
	if err != nil {
		if os.Getenv("CI") != "" {
			t.Fatal("mosquitto is missing: apt-get install mosquitto")
		}
		t.Skip("mosquitto is not installed here; .ci/run installs it")
	}
	e := &estate{dir: t.TempDir()}
	gates, asking := freeAddr(t), freeAddr(t)
	port := func(addr string) string { _, p, _ := net.SplitHostPort(addr); return p }
	etc := filepath.Join(e.dir, "mosquitto")
	e.must(t, "certificate", "--out", filepath.Join(etc, "certs"), "127.0.0.1", "localhost")
	read := func(name string) string {
		b, err := firmwareconfig.Samples.ReadFile("broker/" + name)
		if err != nil {
			t.Fatal(err)
		}
		return string(b)
	}
	conf := strings.NewReplacer("/etc/mosquitto", etc, "/var/lib/mosquitto/", etc+"/", "listener 8883", "listener "+port(gates)+" 127.0.0.1",
		"listener 8884", "listener "+port(asking)+" 127.0.0.1").Replace(read("mosquitto.conf")) + "user root\n"
	write := func(name, text string) {
		if err := os.WriteFile(filepath.Join(etc, name), []byte(text), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	write("gatehouse.conf", conf)
	write("gatehouse.acl", read("mosquitto.acl"))
	write("gatehouse-enrol.acl", read("enrol.acl"))
	write("certs/revoked.pem", e.must(t, "gates", "revoked"))
	var said lines
	broker := func() (stop func()) {
		cmd := exec.Command(prog, "-c", filepath.Join(etc, "gatehouse.conf"))
		cmd.Stdout, cmd.Stderr = &said, &said
		if err := cmd.Start(); err != nil {
			t.Fatal(err)
		}
		waitFor(t, "mosquitto listens", func() bool {
			c, err := net.Dial("tcp", gates)
			if err == nil {
				_ = c.Close()
			}
			return err == nil
		})
		return sync.OnceFunc(func() { _ = cmd.Process.Kill(); _ = cmd.Wait() })
	}
	stop := broker()
	defer func() { stop() }()
	e.serve(t, sampleOptions(t, "mqtts://"+gates, filepath.Join(etc, "certs"))...)
	e.must(t, "invite", "--site", "north", "--url", "mqtts://"+gates, "--enrol", asking)
	gate := gateFolder(t, "east")
	e.join(t, gate, "approve")
	g := start(t, gate, app.Options{TrustClock: true})
	g.receipted(t)
	g.stop()

	// Nobody comes in at the gates' door without a certificate, or at the other with
	// more rights than a code has.
	anyone := &tls.Config{MinVersion: tls.VersionTLS12, InsecureSkipVerify: true}
	if err := connect(t, mqtt.Config{URL: "mqtts://" + gates, ClientID: "x", Username: "north/east", TLS: anyone, MinBackoff: 10 * time.Millisecond}, nil); err == nil {
		t.Error("a client without a certificate comes in")
	}
	for _, user := range []string{"server", "north/east", "K7QF2M9X3HTR"} {
		// The gate's status is retained: who may read it hears it at once, before the
		// echo of what it says itself.
		spy, err := mqtt.New(mqtt.Config{URL: "mqtts://" + asking, ClientID: "spy", Username: user, TLS: anyone, MinBackoff: 10 * time.Millisecond}, slog.New(slog.DiscardHandler))
		if err != nil {
			t.Fatal(err)
		}
		heard := make(chan string, 100)
		spy.Subscribe("gatehouse/v1/#", func(topic string, _ []byte) { heard <- topic })
		own := wire.EnrolTopic("north", user)
		spy.OnConnect(func(ctx context.Context) {
			_ = spy.Publish(ctx, wire.Topic("north", "east", wire.Commands), []byte("forged"), false)
			_ = spy.Publish(ctx, own, []byte("echo"), false)
		})
		ctx, cancel := context.WithCancel(t.Context())
		ended := make(chan error, 1)
		go func() { ended <- spy.Run(ctx) }()
		select {
		case topic := <-heard:
			if topic != own {
				t.Errorf("%q without a certificate hears %s", user, topic)
			}
		case <-time.After(2 * time.Minute):
			t.Errorf("%q hears not even itself", user)
		}
		cancel()
		<-ended
	}

	cfg, err := config.Load(gate)
	if err != nil {
		t.Fatal(err)
	}
	if err := reaches(t, cfg); err != nil {
		t.Errorf("an approved gate is kept out: %v\n%s", err, said.String())
	}
	list := strings.Fields(e.must(t, "gates"))
	finger := list[slices.Index(list, "north/east")+1]
	e.must(t, "gates", "revoke", "north/east", finger)
	write("certs/revoked.pem", e.must(t, "gates", "revoked"))
	stop()
	stop = broker()
	if err := reaches(t, cfg); err == nil {
		t.Error("a revoked gate's certificate is still good")
	}
}

// sampleOptions are the server's options of the sample environment, at another broker
// and with another folder of credentials.
func sampleOptions(t *testing.T, broker, credentials string) []string {
	t.Helper()
	src, err := firmwareconfig.Samples.ReadFile("communityd.environment")
	if err != nil {
		t.Fatal(err)
	}
	var out []string
	for line := range strings.Lines(string(src)) {
		options, ok := strings.CutPrefix(line, "COMMUNITYD_OPTIONS=")
		if !ok {
			continue
		}
		if strings.Contains(options, "$") {
			t.Errorf("systemd expands nothing in %s", options)
		}
		for _, o := range strings.Fields(options) {
			if name, ok := strings.CutPrefix(o, "/run/credentials/communityd.service/keys_"); ok {
				o = filepath.Join(credentials, name)
			} else if strings.HasPrefix(o, "mqtts://") {
				o = broker
			}
			out = append(out, o)
		}
	}
	if len(out) < 10 {
		t.Fatalf("the sample's options are %q", out)
	}
	return out
}

// gateFolder makes a folder with the configuration of a post without hardware.
func gateFolder(t *testing.T, gate string) (conf string) {
	t.Helper()
	dir := t.TempDir()
	pol, err := firmwareconfig.Samples.ReadFile("policies/normal-times.yaml")
	if err != nil {
		t.Fatal(err)
	}
	yaml := "community: lakeside\nsite: north\ngate: " + gate + "\nstate: state\npolicy: policies/normal-times.yaml\nconsole: {listen: ''}\n" +
		"passages: [{name: main, barrier: none}]\nlanes: [{name: in, passage: main, direction: in, scanner: console, thermometer: none}]\n"
	if err := os.MkdirAll(filepath.Join(dir, "policies"), 0o755); err != nil {
		t.Fatal(err)
	}
	for name, text := range map[string]string{"policies/normal-times.yaml": string(pol), "gate.yaml": yaml} {
		if err := os.WriteFile(filepath.Join(dir, name), []byte(text), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	return filepath.Join(dir, "gate.yaml")
}

func enroll(ctx context.Context, out io.Writer, conf string, args ...string) error {
	c := New(conf)
	c.SetOut(out)
	c.SetErr(io.Discard)
	c.SetArgs(args)
	return c.ExecuteContext(ctx)
}

var shown = regexp.MustCompile(`device's code: +([0-9A-Z]{4}-[0-9A-Z]{4}-[0-9A-Z]{4})`)

// join enrols a gate by the network as two people would: one at each end.
func (e *estate) join(t *testing.T, conf, verb string, args ...string) (code, out string) {
	t.Helper()
	inv := strings.TrimSpace(e.must(t, "invite", "--site", "north"))
	said := &lines{}
	done := make(chan error, 1)
	go func() { done <- enroll(t.Context(), said, conf, append(args, inv)...) }()
	waitFor(t, "the device waits", func() bool { return strings.Contains(said.String(), "waiting for approval") })
	code = shown.FindStringSubmatch(said.String())[1]
	if asking := e.must(t, "gates", "asking"); !strings.Contains(asking, code) {
		t.Errorf("not among those who ask:\n%s", asking)
	}
	e.must(t, "gates", verb, "north/east", code)
	if err := <-done; err != nil {
		t.Fatalf("%v\n%s", err, said)
	}
	return code, said.String()
}

// A server that gate.yaml names itself goes first: enrolling says so, and changes
// nothing.
func TestOwnServerIsNoEnrolment(t *testing.T) {
	conf := gateFolder(t, "east")
	f, err := os.OpenFile(conf, os.O_APPEND|os.O_WRONLY, 0)
	if err != nil {
		t.Fatal(err)
	}
	_, err = f.WriteString("sync: {url: 'mqtts://b:8883', trust: keys/trust.txt}\n")
	if err := errors.Join(err, f.Close()); err != nil {
		t.Fatal(err)
	}
	for _, args := range [][]string{{"gatehouse://127.0.0.1:1/lakeside/north?pin=0000-0000"}, {"--request", filepath.Join(filepath.Dir(conf), "request.json")}, {"--new-keys"}} {
		if err := enroll(t.Context(), io.Discard, conf, args...); err == nil || !strings.Contains(err.Error(), "remove url, ca, cert, key and trust") {
			t.Errorf("%q: %v", args, err)
		}
	}
	if _, err := os.Stat(filepath.Join(filepath.Dir(conf), "state")); err == nil {
		t.Error("something was made")
	}
}

// running is a gate's daemon.
type running struct {
	*app.App
	stop func()
}

func start(t *testing.T, conf string, o app.Options) *running {
	t.Helper()
	cfg, err := config.Load(conf)
	if err != nil {
		t.Fatal(err)
	}
	o.Version, o.Log = "test", slog.New(slog.DiscardHandler)
	a, err := app.Build(t.Context(), cfg, o)
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- a.Run(ctx) }()
	var once sync.Once
	r := &running{a, func() {
		once.Do(func() {
			cancel()
			if err := <-done; err != nil {
				t.Error(err)
			}
		})
	}}
	t.Cleanup(r.stop)
	return r
}

func (r *running) receipted(t *testing.T) {
	t.Helper()
	waitFor(t, "the server has receipted all", func() bool { return r.Journal.Size() > 0 && r.Journal.Acked() == r.Journal.Size() })
}

// A device becomes a gate, speaks to the server by TLS, is replaced by another
// with the same name, and the server links their journals.
func TestFromAnInvitationToAReceiptAndReplaced(t *testing.T) {
	e := newEstate(t)
	conf := gateFolder(t, "east")
	_, out := e.join(t, conf, "approve")
	if !strings.Contains(out, "AGE-SECRET-KEY-1") || !strings.Contains(out, "█") || !strings.Contains(out, "is gate east of site north now") {
		t.Errorf("no recovery key, picture or end in:\n%s", out)
	}
	g := start(t, conf, app.Options{TrustClock: true})
	g.receipted(t)
	first := g.Journal.Epoch()
	g.stop()
	for _, f := range []string{"keys/tls.pem", "keys/site.key", "keys/enrolment.json", "keys/device.key"} {
		st, err := os.Stat(filepath.Join(filepath.Dir(conf), "state", f))
		if err != nil || st.Mode().Perm() != 0o600 {
			t.Errorf("%s: %v %v", f, st, err)
		}
	}

	// The board dies; another one is made the same gate.
	second := gateFolder(t, "east")
	inv := strings.TrimSpace(e.must(t, "invite", "--site", "north"))
	said := &lines{}
	done := make(chan error, 1)
	go func() { done <- enroll(t.Context(), said, second, inv) }()
	waitFor(t, "the device waits", func() bool { return strings.Contains(said.String(), "waiting for approval") })
	code := shown.FindStringSubmatch(said.String())[1]
	if _, err := e.communityd(t, "gates", "approve", "north/east", code); err == nil || !strings.Contains(err.Error(), "replace") {
		t.Errorf("a second device was approved beside the first: %v", err)
	}
	e.must(t, "gates", "replace", "north/east", code)
	if err := <-done; err != nil {
		t.Fatal(err)
	}
	g2 := start(t, second, app.Options{TrustClock: true})
	g2.receipted(t)
	list := e.must(t, "gates")
	if !strings.Contains(list, fmt.Sprintf("%s at ", first)) || strings.Count(list, "revoked") != 1 || strings.Count(list, "approved") != 1 {
		t.Errorf("the new epoch is not linked to %s, or the old device is not revoked:\n%s", first, list)
	}
	if a := e.must(t, "alerts"); strings.Contains(a, "does not say which one it follows") {
		t.Errorf("a replaced device's epoch raised an alert:\n%s", a)
	}
	// The same site key on both: a card is one card everywhere.
	k1, _ := os.ReadFile(filepath.Join(filepath.Dir(conf), "state/keys/site.key"))
	k2, _ := os.ReadFile(filepath.Join(filepath.Dir(second), "state/keys/site.key"))
	if len(k1) == 0 || !bytes.Equal(k1, k2) {
		t.Error("two gates of a site have different site keys")
	}

	// The revoked device is told so, and its certificate opens nothing any more.
	revoked := &lines{}
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	ended := make(chan error, 1)
	go func() { ended <- enroll(ctx, revoked, conf) }()
	waitFor(t, "the device is told", func() bool { return strings.Contains(revoked.String(), "revoked") })
	cancel()
	if err := <-ended; err == nil {
		t.Error("a revoked device got a certificate")
	}
	if !strings.Contains(revoked.String(), "revoked") {
		t.Errorf("it was told: %s", revoked)
	}
	if crl := e.must(t, "gates", "revoked"); !strings.Contains(crl, "X509 CRL") {
		t.Errorf("revocation list: %s", crl)
	}
	cfg, err := config.Load(conf)
	if err != nil {
		t.Fatal(err)
	}
	if err := reaches(t, cfg); err == nil {
		t.Error("the broker lets a revoked device in")
	}
	if cfg, err = config.Load(second); err != nil {
		t.Fatal(err)
	}
	if err := reaches(t, cfg); err != nil {
		t.Errorf("the broker keeps the new device out: %v", err)
	}
}

// reaches tries a gate's certificate at the broker.
func reaches(t *testing.T, cfg *config.Gate) error {
	t.Helper()
	c, err := mqtt.TLS(cfg.Sync.CA, cfg.Sync.Cert, cfg.Sync.Key)
	if err != nil {
		t.Fatal(err)
	}
	return connect(t, mqtt.Config{URL: cfg.Sync.URL, ClientID: "probe", TLS: c, MinBackoff: 10 * time.Millisecond}, nil)
}

// connect connects once and lets f speak.
func connect(t *testing.T, c mqtt.Config, f func(*mqtt.Client), topics ...string) error {
	t.Helper()
	m, err := mqtt.New(c, slog.New(slog.DiscardHandler))
	if err != nil {
		t.Fatal(err)
	}
	for _, topic := range topics {
		m.Subscribe(topic, func(string, []byte) {})
	}
	up := make(chan struct{}, 1)
	m.OnConnect(func(context.Context) {
		select {
		case up <- struct{}{}:
		default:
		}
	})
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- m.Run(ctx) }()
	defer func() { cancel(); <-done }()
	tick := time.NewTicker(20 * time.Millisecond)
	defer tick.Stop()
	for {
		select {
		case <-up:
			if f != nil {
				f(m)
			}
			return nil
		case <-tick.C:
			if _, err := m.State(); err != nil {
				return err
			}
		}
	}
}

// A code opens its own topic and nothing else; without one nobody comes in.
func TestACodeOpensItsOwnTopicOnly(t *testing.T) {
	e := newEstate(t)
	anyone := &tls.Config{MinVersion: tls.VersionTLS12, InsecureSkipVerify: true}
	as := func(user string) mqtt.Config {
		return mqtt.Config{URL: "mqtts://" + e.addr, ClientID: user + "x", Username: user, TLS: anyone, MinBackoff: 10 * time.Millisecond}
	}
	const code = "K7QF2M9X3HTR"
	own := wire.EnrolTopic("north", code)
	if err := connect(t, as(code), nil, own); err != nil {
		t.Errorf("its own topic: %v", err)
	}
	for _, topic := range []string{wire.EnrolTopic("north", "AAAABBBBCCCC"), wire.EnrolTopic("north", "+"), wire.Topic("north", "east", wire.Commands), wire.Topic("north", "east", wire.Status), "#", wire.RegistryTopic("north", "+")} {
		if err := connect(t, as(code), nil, topic); err == nil {
			t.Errorf("a code may read %s", topic)
		}
	}
	for _, user := range []string{"", "server", "north/east", "k7qf-2m9x-3htr"} {
		if err := connect(t, as(user), nil); err == nil {
			t.Errorf("%q comes in without a certificate", user)
		}
	}
	// What it writes elsewhere reaches nobody: a device that could say that it is a
	// gate would wait for approval in the list.
	id, err := identity.Open(filepath.Join(t.TempDir(), "k"), "lakeside/north/west")
	if err != nil {
		t.Fatal(err)
	}
	line, err := app.TrustLine(id.Signer())
	if err != nil {
		t.Fatal(err)
	}
	status, err := wire.Encode(wire.StatusMessage{V: 1, Online: true, Key: line})
	if err != nil {
		t.Fatal(err)
	}
	if err := connect(t, as(code), func(m *mqtt.Client) {
		_ = m.Publish(t.Context(), wire.Topic("north", "west", wire.Status), status, false)
		_ = m.Publish(t.Context(), own, []byte(`{"v":1}`), false)
	}, own); err != nil {
		t.Fatal(err)
	}
	e.join(t, gateFolder(t, "east"), "approve") // a moment in which it would have arrived
	if list := e.must(t, "gates"); strings.Contains(list, "north/west") {
		t.Errorf("a code has written under a gate's topic:\n%s", list)
	}
}

// Files carried by hand do the same as the network.
func TestCarriedByHand(t *testing.T) {
	e := newEstate(t)
	conf, usb := gateFolder(t, "east"), t.TempDir()
	out := &lines{}
	request, approval := filepath.Join(usb, "request.json"), filepath.Join(usb, "approval.json")
	if err := enroll(t.Context(), out, conf, "--request", request); err != nil {
		t.Fatal(err)
	}
	code := shown.FindStringSubmatch(out.String())[1]
	if _, err := e.communityd(t, "gates", "approve", "north/east", "0000-0000-0000", "--request", request, "--out", approval); err == nil {
		t.Error("another code was taken for the request's")
	}
	if _, err := e.communityd(t, "gates", "approve", "north/west", code, "--request", request, "--out", approval); err == nil {
		t.Error("the device was approved as a gate that it does not ask to be")
	}
	e.must(t, "gates", "approve", "north/east", code, "--request", request, "--out", approval)
	if err := enroll(t.Context(), out, gateFolder(t, "east"), "--approval", approval); err == nil {
		t.Error("another device could read the approval")
	}
	inv := strings.TrimSpace(e.must(t, "invite", "--site", "north"))
	wrong := regexp.MustCompile(`pin=....`).ReplaceAllString(inv, "pin=0000")
	if err := enroll(t.Context(), out, conf, "--approval", approval, wrong); err == nil || !strings.Contains(err.Error(), "pin") {
		t.Errorf("an approval of a server with another pin was taken: %v", err)
	}
	if err := enroll(t.Context(), out, conf, "--approval", approval, inv); err != nil {
		t.Fatal(err)
	}
	start(t, conf, app.Options{TrustClock: true}).receipted(t)
}

// An installer is root; the daemon is not, and must be able to read what the
// enrolment leaves.
func TestFilesBelongToTheDaemon(t *testing.T) {
	e := newEstate(t)
	conf := gateFolder(t, "east")
	state := filepath.Join(filepath.Dir(conf), "state")
	if err := os.Mkdir(state, 0o700); err != nil {
		t.Fatal(err)
	}
	owner := os.Geteuid()
	if owner == 0 {
		owner = 65534
		if err := os.Chown(state, owner, owner); err != nil {
			t.Fatal(err)
		}
	}
	e.join(t, conf, "approve")
	if err := enroll(t.Context(), io.Discard, conf, "--request", filepath.Join(t.TempDir(), "again")); err != nil {
		t.Fatal(err)
	}
	n := 0
	if err := filepath.WalkDir(state, func(path string, d fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		st, err := d.Info()
		if err != nil {
			return err
		}
		n++
		if uid := st.Sys().(*syscall.Stat_t).Uid; int(uid) != owner {
			t.Errorf("%s belongs to %d, the state folder to %d", path, uid, owner)
		}
		if st.Mode().Perm()&0o077 != 0 {
			t.Errorf("%s has mode %o", path, st.Mode().Perm())
		}
		return nil
	}); err != nil {
		t.Fatal(err)
	}
	if n < 9 {
		t.Errorf("only %d files", n)
	}
}

// Keys that cannot be written are told with what to do: here their next version is a
// device that is always full.
func TestKeysOnAFullMedium(t *testing.T) {
	conf := gateFolder(t, "east")
	cfg, err := config.Load(conf)
	if err != nil {
		t.Fatal(err)
	}
	if err := os.MkdirAll(cfg.KeyFile("."), 0o700); err != nil {
		t.Fatal(err)
	}
	if err := os.Symlink("/dev/full", cfg.KeyFile("device.age.new")); err != nil {
		t.Fatal(err)
	}
	err = enroll(t.Context(), io.Discard, conf, "--request", filepath.Join(t.TempDir(), "request"))
	for _, want := range []string{"no space left on device", "without room", "df -h " + cfg.State} {
		if err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%v\ndoes not say %q", err, want)
		}
	}
}

// sleeper is a board that wakes up with its clock where it stood.
type sleeper struct{ at time.Time }

func (s sleeper) Wall() time.Time { return s.at.Add(time.Since(bootedAt)) }
func (s sleeper) Mono() int64     { return 5000 + time.Since(bootedAt).Milliseconds() }
func (s sleeper) Synced() bool    { return false }

var bootedAt = time.Now()

// A gate slept thirteen months in a cupboard: its certificate has ended, and its
// clock knows nothing of it. It renews itself by its known key, learns the time,
// and goes on.
func TestThirteenMonthsInACupboard(t *testing.T) {
	e := newEstate(t)
	conf := gateFolder(t, "east")
	e.join(t, conf, "approve")
	cfg, err := config.Load(conf)
	if err != nil {
		t.Fatal(err)
	}
	slept := time.Now().AddDate(0, -13, 0)
	expire(t, e, cfg, slept)
	if err := reaches(t, cfg); err == nil {
		t.Fatal("the broker takes a certificate that has ended")
	}
	g := start(t, conf, app.Options{Time: sleeper{slept}, Renew: app.Pace{Check: 50 * time.Millisecond, Lost: 200 * time.Millisecond, Again: time.Second, Try: 20 * time.Second}})
	g.receipted(t)
	if s := g.Clock.Now(); s.Clock != edge.ClockServer || time.Since(time.UnixMilli(s.Time)).Abs() > time.Minute {
		t.Errorf("the clock says %v, %s by %s", time.UnixMilli(s.Time), s.Clock, s.Source)
	}
}

// At two thirds of its life a certificate is renewed, while the gate works.
func TestRenewedAtTwoThirds(t *testing.T) {
	e := newEstate(t)
	conf := gateFolder(t, "east")
	e.join(t, conf, "approve")
	cfg, err := config.Load(conf)
	if err != nil {
		t.Fatal(err)
	}
	until := func(what string, f func(*x509.Certificate) bool) {
		t.Helper()
		waitFor(t, what, func() bool {
			p, err := tls.LoadX509KeyPair(cfg.Sync.Cert, cfg.Sync.Key)
			return err == nil && f(p.Leaf)
		})
	}
	pace := app.Pace{Check: 50 * time.Millisecond, Lost: time.Hour, Again: time.Second, Try: 20 * time.Second}
	// A year's certificate: renewed after eight months, not after seven and a half.
	for _, c := range []struct {
		age     time.Duration
		renewed bool
	}{{228 * 24 * time.Hour, false}, {250 * 24 * time.Hour, true}} {
		expire(t, e, cfg, time.Now().Add(-c.age))
		old, err := tls.LoadX509KeyPair(cfg.Sync.Cert, cfg.Sync.Key)
		if err != nil {
			t.Fatal(err)
		}
		g := start(t, conf, app.Options{TrustClock: true, Renew: pace})
		g.receipted(t)
		if c.renewed {
			until("a new certificate", func(now *x509.Certificate) bool { return now.NotAfter.After(old.Leaf.NotAfter) })
		} else {
			until("the old one is there", func(now *x509.Certificate) bool { return now.Equal(old.Leaf) })
		}
		g.stop()
		now, err := tls.LoadX509KeyPair(cfg.Sync.Cert, cfg.Sync.Key)
		if err != nil || now.Leaf.Equal(old.Leaf) == c.renewed {
			t.Errorf("after %v: renewed %v, %v", c.age, !now.Leaf.Equal(old.Leaf), err)
		}
	}
}

// expire gives a gate a certificate that was made when it fell asleep.
func expire(t *testing.T, e *estate, cfg *config.Gate, at time.Time) {
	t.Helper()
	ca, err := tls.LoadX509KeyPair(filepath.Join(e.dir, "community-keys/ca.pem"), filepath.Join(e.dir, "community-keys/ca.pem"))
	if err != nil {
		t.Fatal(err)
	}
	own, err := tls.LoadX509KeyPair(cfg.Sync.Cert, cfg.Sync.Key)
	if err != nil {
		t.Fatal(err)
	}
	key := own.PrivateKey.(*ecdsa.PrivateKey)
	der, err := x509.CreateCertificate(rand.Reader, &x509.Certificate{SerialNumber: big.NewInt(7), Subject: own.Leaf.Subject, NotBefore: at, NotAfter: at.AddDate(1, 0, 0),
		KeyUsage: x509.KeyUsageDigitalSignature, ExtKeyUsage: own.Leaf.ExtKeyUsage}, ca.Leaf, &key.PublicKey, ca.PrivateKey)
	if err != nil {
		t.Fatal(err)
	}
	raw, err := x509.MarshalPKCS8PrivateKey(key)
	if err != nil {
		t.Fatal(err)
	}
	if err := config.WriteKey(cfg.Sync.Cert, append(pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der}), pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: raw})...)); err != nil {
		t.Fatal(err)
	}
}

// What the message says of a card that turned read-only can be done: back the gate up,
// also what a crash has left in the WAL, and restore it elsewhere.
func TestBackupOfAReadOnlyMedium(t *testing.T) {
	conf := gateFolder(t, "east")
	cfg, err := config.Load(conf)
	if err != nil {
		t.Fatal(err)
	}
	if err := os.MkdirAll(cfg.State, 0o700); err != nil {
		t.Fatal(err)
	}
	var out bytes.Buffer
	if err := backup.NewKey(cfg, &out); err != nil {
		t.Fatal(err)
	}
	paper := regexp.MustCompile(`AGE-SECRET-KEY-1[0-9A-Z]+`).FindString(out.String())
	if err := unix.Mount(cfg.State, cfg.State, "", unix.MS_BIND, ""); err != nil {
		if os.Getenv("CI") != "" {
			t.Fatal(err)
		}
		t.Skipf("cannot mount here (%v); .ci/run is root and can", err)
	}
	t.Cleanup(func() { _ = unix.Unmount(cfg.State, unix.MNT_DETACH) })
	g := start(t, conf, app.Options{TrustClock: true})
	size := func() int {
		out, err := g.Journal.Read(t.Context(), 0, 100, 1<<20)
		if err != nil {
			t.Fatal(err)
		}
		return len(out)
	}
	waitFor(t, "it has started", func() bool { return size() > 1 })
	// As a crash leaves it: with a WAL that holds entries. A copy stands for it, since the
	// medium cannot turn while somebody has files open for writing.
	crashed := map[string][]byte{}
	for _, name := range []string{"journal.db", "journal.db-wal"} {
		path := filepath.Join(cfg.State, name)
		if crashed[path], err = os.ReadFile(path); err != nil {
			t.Fatal(err)
		}
	}
	want := size()
	g.stop()
	if err := errors.Join(os.RemoveAll(filepath.Join(cfg.State, "journal.db")), os.RemoveAll(filepath.Join(cfg.State, "journal.db-wal"))); err != nil {
		t.Fatal(err)
	}
	for path, b := range crashed {
		if err := os.WriteFile(path, b, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	if err := unix.Mount("", cfg.State, "", unix.MS_BIND|unix.MS_REMOUNT|unix.MS_RDONLY, ""); err != nil {
		t.Fatal(err)
	}
	file, err := backup.Write(t.Context(), cfg, conf, t.TempDir(), "test", time.Now(), 7)
	if err != nil {
		t.Fatal(err)
	}
	f, err := os.Open(file)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	bare := filepath.Join(t.TempDir(), "gate.yaml")
	if _, _, err := backup.Restore(t.Context(), f, paper, bare); err != nil {
		t.Fatal(err)
	}
	r, err := journal.Inspect(t.Context(), filepath.Join(filepath.Dir(bare), "state", "journal.db"))
	if err != nil {
		t.Fatal(err)
	}
	defer r.Close()
	if n, err := r.Size(t.Context()); err != nil || int(n) < want {
		t.Errorf("%d entries of %d were restored, %v", n, want, err)
	}
}

// The board is gone. What is left is a backup on a stick and a paper.
func TestNothingButThePaper(t *testing.T) {
	e := newEstate(t)
	conf := gateFolder(t, "east")
	_, out := e.join(t, conf, "approve")
	paper := regexp.MustCompile(`AGE-SECRET-KEY-1[0-9A-Z]+`).FindString(out)
	g := start(t, conf, app.Options{TrustClock: true})
	g.receipted(t)
	cfg, err := config.Load(conf)
	if err != nil {
		t.Fatal(err)
	}
	stick := t.TempDir()
	file, err := backup.Write(t.Context(), cfg, conf, stick, "test", time.Now(), 7) // while it runs
	if err != nil {
		t.Fatal(err)
	}
	first, size := g.Journal.Epoch(), g.Journal.Size()
	g.stop()
	raw, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	for _, secret := range []string{"device.key", "lakeside", "start"} {
		if bytes.Contains(raw, []byte(secret)) {
			t.Errorf("the backup shows %q", secret)
		}
	}
	if err := os.RemoveAll(filepath.Dir(conf)); err != nil {
		t.Fatal(err)
	}

	bare := filepath.Join(t.TempDir(), "gate.yaml")
	c := backup.RestoreCommand(bare)
	c.SetOut(io.Discard)
	c.SetErr(io.Discard)
	c.SetArgs([]string{file})
	c.SetIn(strings.NewReader("AGE-SECRET-KEY-1QQQQQQQQQQQQQQQQQQQQQQQQQQQQQQQQQQQQQQQQQQQQQQQQQQQSZGQSAA\n"))
	if err := c.ExecuteContext(t.Context()); err == nil {
		t.Error("another key opens the backup")
	}
	c.SetIn(strings.NewReader(strings.ToLower(paper[:30]) + " " + strings.ToLower(paper[30:]) + "\n"))
	if err := c.ExecuteContext(t.Context()); err != nil {
		t.Fatal(err)
	}
	if _, err := os.Stat(filepath.Join(filepath.Dir(bare), "state/keys/device.key")); err == nil {
		t.Error("the device's key was in the backup")
	}
	e.join(t, bare, "replace")
	g2 := start(t, bare, app.Options{TrustClock: true})
	g2.receipted(t)
	if g2.Journal.Epoch() == first {
		t.Error("the old epoch goes on")
	}
	list := e.must(t, "gates")
	if !strings.Contains(list, fmt.Sprintf("%s at ", first)) || !strings.Contains(list, "revoked") {
		t.Errorf("the new epoch does not follow %s (%d entries):\n%s", first, size, list)
	}
	if s := g2.Clock.Now(); s.Time == 0 {
		t.Error(s)
	}
	c.SetIn(strings.NewReader(paper + "\n"))
	if err := c.ExecuteContext(t.Context()); err == nil || !strings.Contains(err.Error(), "has a journal already") {
		t.Errorf("restored over a running gate: %v", err)
	}
}
