//go:build network

package firmwareconfig

import (
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"io/fs"
	"net"
	"os"
	"os/exec"
	"os/user"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// Of the network in the test; 192.0.2.0/24 is for documentation (RFC 5737).
const (
	fixedAddress  = "192.168.254.1/24"
	leasedAddress = "192.0.2.2/24"
	dhcpServer    = "192.0.2.1"
	router        = "192.0.2.254"
)

// The sample sets the clock from the estate's own server alone, the internet away.
func TestChronyWithOneServer(t *testing.T) {
	chronyd := program(t, "chronyd")
	me, err := user.Current()
	if err != nil {
		t.Fatal(err)
	}
	free, err := net.ListenPacket("udp4", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	port := free.LocalAddr().(*net.UDPAddr).Port
	if err := free.Close(); err != nil {
		t.Fatal(err)
	}
	dir := t.TempDir()
	server := exec.CommandContext(t.Context(), chronyd, "-d", "-x", "-U", "-u", me.Username, "-f", file(t, fmt.Sprintf(
		"local stratum 8\nport %d\nbindaddress 127.0.0.1\nallow 127.0.0.1\ncmdport 0\npidfile %s\n", port, filepath.Join(dir, "server.pid"))))
	if err := server.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		_ = server.Process.Kill()
		_ = server.Wait()
	})
	text := sample(t, "chrony/gatehouse.conf")
	for _, r := range [][2]string{
		{"\n#server ntp.estate.example ", fmt.Sprintf("\nserver 127.0.0.1 port %d maxsamples 1 ", port)},
		{"pool pool.ntp.org ", "pool 127.0.0.2 port 9 "}, // nobody answers
		{"/var/lib/chrony", dir},
	} {
		if strings.Count(text, r[0]) != 1 {
			t.Fatalf("%q is not there once", r[0])
		}
		text = strings.Replace(text, r[0], r[1], 1)
	}
	text += "pidfile " + filepath.Join(dir, "gate.pid") + "\n"
	// It measures, says by how much it would set the clock, and ends.
	ask := func(text, seconds string) (string, error) {
		return run(t, "", "chronyd", "-Q", "-U", "-u", me.Username, "-t", seconds, "-f", file(t, text))
	}
	if out, err := ask(text, "30"); err != nil || !strings.Contains(out, "System clock wrong by") {
		t.Errorf("%v\n%s", err, out)
	}
	if out, _ := ask(text+"minsources 2\n", "3"); strings.Contains(out, "System clock wrong by") {
		t.Errorf("it is not the estate's server alone that answers:\n%s", out)
	}
}

// inNetwork is set in the test's second process, which has a network of its own.
const inNetwork = "GATEHOUSE_TEST_IN_NETWORK"

// A gate whose router comes later than itself is reached at its fixed address, asks
// on, and takes the network that it is offered in the end. GATEHOUSE_TEST_DHCP_AWAY
// says how long nobody answers.
func TestCableWithoutDHCP(t *testing.T) {
	away := time.Duration(0)
	if text := os.Getenv("GATEHOUSE_TEST_DHCP_AWAY"); text != "" {
		var err error
		if away, err = time.ParseDuration(text); err != nil {
			t.Fatal(err)
		}
	}
	if os.Getenv(inNetwork) != "" {
		cable(t, away)
		return
	}
	for _, name := range []string{"NetworkManager", "dbus-daemon", "ip"} {
		program(t, name)
	}
	if os.Geteuid() != 0 {
		t.Fatal("only root makes networks")
	}
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	cmd := exec.CommandContext(t.Context(), self, "-test.run=^TestCableWithoutDHCP$", "-test.v", "-test.timeout="+(away+3*time.Minute).String())
	cmd.Env = append(os.Environ(), inNetwork+"=1")
	// All that it starts ends with it, as the first process of its own number space.
	cmd.SysProcAttr = &syscall.SysProcAttr{Cloneflags: unix.CLONE_NEWNET | unix.CLONE_NEWNS | unix.CLONE_NEWPID}
	out, err := cmd.CombinedOutput()
	if err != nil || !bytes.Contains(out, []byte("--- PASS")) {
		t.Fatalf("%v\n%s", err, out)
	}
	if testing.Verbose() {
		t.Logf("%s", out)
	}
}

// cable starts NetworkManager with the sample on the one end of a cable, and a DHCP
// server on the other.
func cable(t *testing.T, away time.Duration) {
	dir := t.TempDir()
	if err := unix.Mount("", "/", "", unix.MS_REC|unix.MS_PRIVATE, ""); err != nil {
		t.Fatal(err)
	}
	// NetworkManager waits for no udev where /sys cannot be written.
	if err := unix.Mount("sysfs", "/sys", "sysfs", unix.MS_RDONLY, ""); err != nil {
		t.Fatal(err)
	}
	for _, own := range []string{"/run/NetworkManager", "/var/lib/NetworkManager"} {
		if err := os.MkdirAll(own, 0o755); err != nil {
			t.Fatal(err)
		}
		if err := unix.Mount("tmpfs", own, "tmpfs", 0, ""); err != nil {
			t.Fatal(err)
		}
	}
	ip := func(args ...string) string {
		t.Helper()
		out, err := exec.Command(program(t, "ip"), args...).CombinedOutput()
		if err != nil {
			t.Fatalf("ip %q: %v\n%s", args, err, out)
		}
		return string(out)
	}
	ip("link", "set", "lo", "up")
	ip("link", "add", "eth0", "type", "veth", "peer", "name", "wire")
	ip("address", "add", dhcpServer+"/32", "dev", "wire")
	ip("link", "set", "wire", "up")

	write := func(name, text string) string {
		t.Helper()
		f := filepath.Join(dir, name)
		if err := os.MkdirAll(filepath.Dir(f), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(f, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		return f
	}
	socket := "unix:path=" + filepath.Join(dir, "bus")
	bus := write("bus.conf", `<busconfig><type>session</type><listen>`+socket+`</listen><auth>EXTERNAL</auth>
<policy context="default"><allow send_destination="*"/><allow receive_sender="*"/><allow own="*"/></policy></busconfig>`)
	names, err := fs.Glob(Samples, "network/*.nmconnection")
	if err != nil {
		t.Fatal(err)
	}
	for _, name := range names {
		write(name, sample(t, name))
	}
	conf := write("NetworkManager.conf", fmt.Sprintf(`[main]
plugins=keyfile
dns=none
no-auto-default=*
auth-polkit=false
dhcp=internal
[keyfile]
path=%s
unmanaged-devices=interface-name:wire
`, filepath.Join(dir, "network")))

	var log buffer
	start := func(name string, args ...string) {
		t.Helper()
		cmd := exec.CommandContext(t.Context(), program(t, name), args...)
		cmd.Env = append(os.Environ(), "DBUS_SYSTEM_BUS_ADDRESS="+socket)
		cmd.Stdout, cmd.Stderr = &log, &log
		if err := cmd.Start(); err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() {
			_ = cmd.Process.Kill()
			_ = cmd.Wait()
		})
	}
	until := func(what string, within time.Duration, f func() bool) {
		t.Helper()
		for deadline := time.Now().Add(within); !f(); time.Sleep(50 * time.Millisecond) {
			if time.Now().After(deadline) {
				t.Fatalf("not within %v: %s\n%s%s%s", within, what, ip("address"), ip("route"), log.String())
			}
		}
	}
	has := func(address string) func() bool {
		return func() bool { return strings.Contains(ip("-4", "address", "show", "dev", "eth0"), "inet "+address+" ") }
	}
	start("dbus-daemon", "--nofork", "--config-file="+bus)
	until("a bus", 30*time.Second, func() bool {
		_, err := os.Stat(filepath.Join(dir, "bus"))
		return err == nil
	})
	none := filepath.Join(dir, "none")
	start("NetworkManager", "--debug", "--log-level=INFO", "--config="+conf, "--config-dir="+none, "--system-config-dir="+none,
		"--intern-config="+filepath.Join(dir, "intern"), "--state-file="+filepath.Join(dir, "state"), "--pid-file="+filepath.Join(dir, "pid"))

	until("the fixed address while no DHCP server answers", 15*time.Second, has(fixedAddress))
	until("it asks for DHCP without an end", 15*time.Second, func() bool {
		return strings.Contains(log.String(), "dhcp4 (eth0): activation: beginning transaction (no timeout)")
	})
	asked := serveDHCP(t, time.Now().Add(away))
	// Between two questions lies a minute at most.
	until("the address that the DHCP server leases", away+90*time.Second, has(leasedAddress))
	until("the route to everywhere", 15*time.Second, func() bool {
		return strings.Contains(ip("-4", "route"), "default via "+router+" dev eth0 proto dhcp")
	})
	if !has(fixedAddress)() {
		t.Errorf("the fixed address is gone:\n%s", ip("address"))
	}
	t.Logf("asked %d times", asked())
}

type buffer struct {
	mu sync.Mutex
	b  bytes.Buffer
}

func (b *buffer) Write(p []byte) (int, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.b.Write(p)
}

func (b *buffer) String() string {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.b.String()
}

// serveDHCP leases the one address on the cable from a time on (RFC 2131, RFC 2132).
// It returns how many questions came.
func serveDHCP(t *testing.T, from time.Time) func() int {
	t.Helper()
	var bound error
	lc := net.ListenConfig{Control: func(_, _ string, c syscall.RawConn) error {
		return errors.Join(c.Control(func(fd uintptr) { bound = unix.BindToDevice(int(fd), "wire") }), bound)
	}}
	conn, err := lc.ListenPacket(context.Background(), "udp4", ":67")
	if err != nil {
		t.Fatal(err)
	}
	var mu sync.Mutex
	asked := 0
	done := make(chan struct{})
	t.Cleanup(func() {
		_ = conn.Close()
		<-done
	})
	go func() {
		defer close(done)
		b := make([]byte, 1500)
		for {
			n, _, err := conn.ReadFrom(b)
			if err != nil {
				return // closed
			}
			mu.Lock()
			asked++
			mu.Unlock()
			if time.Now().Before(from) {
				continue
			}
			if answer := lease(b[:n]); answer != nil {
				if _, err := conn.WriteTo(answer, &net.UDPAddr{IP: net.IPv4bcast, Port: 68}); err != nil {
					t.Errorf("the DHCP server: %v", err)
					return
				}
			}
		}
	}()
	return func() int {
		mu.Lock()
		defer mu.Unlock()
		return asked
	}
}

// lease answers DISCOVER by OFFER and REQUEST by ACK.
func lease(question []byte) []byte {
	const fixed = 240 // bytes of the header with the cookie
	if len(question) < fixed || question[0] != 1 {
		return nil
	}
	var kind byte
	for o := question[fixed:]; len(o) > 2 && o[0] != 255; {
		if o[0] == 0 {
			o = o[1:]
			continue
		}
		if o[0] == 53 {
			kind = o[2]
		}
		o = o[min(len(o), 2+int(o[1])):]
	}
	answers := map[byte]byte{1: 2, 3: 5}
	if answers[kind] == 0 {
		return nil
	}
	address, network, err := net.ParseCIDR(leasedAddress)
	if err != nil {
		return nil
	}
	out := make([]byte, fixed, 300)
	copy(out, question[:fixed]) // hardware, transaction and cookie
	out[0] = 2
	copy(out[16:20], address.To4())
	option := func(code byte, value []byte) { out = append(append(out, code, byte(len(value))), value...) }
	option(53, []byte{answers[kind]})
	option(54, net.ParseIP(dhcpServer).To4())
	option(51, binary.BigEndian.AppendUint32(nil, 3600))
	option(1, network.Mask)
	option(3, net.ParseIP(router).To4())
	return append(out, 255)
}
