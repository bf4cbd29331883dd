package outage

import (
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"fmt"
	"math/big"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"gatehouse/sync/mqtt"
	"gatehouse/sync/wire"
)

// authority makes a community's certificates in a folder: ca.pem, and NAME.pem with
// NAME.key for every name.
func authority(t *testing.T, dir string, names map[string]string) {
	t.Helper()
	write := func(file, kind string, b []byte) {
		t.Helper()
		if err := os.WriteFile(filepath.Join(dir, file), pem.EncodeToMemory(&pem.Block{Type: kind, Bytes: b}), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	key := func() *ecdsa.PrivateKey {
		k, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
		if err != nil {
			t.Fatal(err)
		}
		return k
	}
	serial := int64(1)
	from, to := time.Now().Add(-time.Hour), time.Now().Add(time.Hour)
	ca := &x509.Certificate{SerialNumber: big.NewInt(serial), Subject: pkix.Name{CommonName: "community"}, NotBefore: from, NotAfter: to,
		IsCA: true, BasicConstraintsValid: true, KeyUsage: x509.KeyUsageCertSign}
	caKey := key()
	der, err := x509.CreateCertificate(rand.Reader, ca, ca, caKey.Public(), caKey)
	if err != nil {
		t.Fatal(err)
	}
	write("ca.pem", "CERTIFICATE", der)
	for file, name := range names {
		serial++
		k := key()
		c := &x509.Certificate{SerialNumber: big.NewInt(serial), Subject: pkix.Name{CommonName: name}, NotBefore: from, NotAfter: to,
			KeyUsage: x509.KeyUsageDigitalSignature, ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageClientAuth, x509.ExtKeyUsageServerAuth}, IPAddresses: []net.IP{net.IPv4(127, 0, 0, 1)}}
		der, err := x509.CreateCertificate(rand.Reader, c, ca, k.Public(), caKey)
		if err != nil {
			t.Fatal(err)
		}
		write(file+".pem", "CERTIFICATE", der)
		if der, err = x509.MarshalECPrivateKey(k); err != nil {
			t.Fatal(err)
		}
		write(file+".key", "EC PRIVATE KEY", der)
	}
}

// With the sample for nats-server a gate is known by its certificate, and can hurt
// nobody but itself.
func TestSampleNATSKeepsGatesApart(t *testing.T) {
	bin := program(t, "nats-server")
	dir := t.TempDir()
	authority(t, dir, map[string]string{"broker": "broker.example", "server": "server", "east": "north/east", "west": "north/west", "stranger": "north/stranger"})
	text, err := os.ReadFile(filepath.Join("..", "..", "..", "firmware-config", "broker", "nats.conf"))
	if err != nil {
		t.Fatal(err)
	}
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	addr := l.Addr().String()
	if err := l.Close(); err != nil {
		t.Fatal(err)
	}
	conf := filepath.Join(dir, "nats.conf")
	here := strings.NewReplacer("0.0.0.0:8883", addr, "127.0.0.1:4222", "127.0.0.1:-1", "/etc/nats/certs", dir, "/var/lib/nats", filepath.Join(dir, "store")).Replace(string(text))
	if err := os.WriteFile(conf, []byte(here), 0o600); err != nil {
		t.Fatal(err)
	}
	if out, err := exec.Command(bin, "-c", conf, "-t").CombinedOutput(); err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	said, err := os.Create(filepath.Join(dir, "log"))
	if err != nil {
		t.Fatal(err)
	}
	defer said.Close()
	cmd := exec.Command(bin, "-c", conf)
	cmd.Stdout, cmd.Stderr = said, said
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		_ = cmd.Process.Kill() // it has ended, or ends now
		_ = cmd.Wait()         // with that signal
		if t.Failed() {
			b, _ := os.ReadFile(said.Name())
			t.Logf("nats-server:\n%s", b)
		}
	})
	for end := time.Now().Add(2 * time.Minute); ; time.Sleep(20 * time.Millisecond) {
		if c, err := net.Dial("tcp", addr); err == nil {
			_ = c.Close()
			break
		} else if time.Now().After(end) {
			t.Fatal(err)
		}
	}

	got := make(chan string, 100)
	client := func(who string, topics ...string) (*mqtt.Client, chan struct{}) {
		t.Helper()
		cert := filepath.Join(dir, who)
		conf, err := mqtt.TLS(filepath.Join(dir, "ca.pem"), cert+".pem", cert+".key")
		if err != nil {
			t.Fatal(err)
		}
		c, err := mqtt.New(mqtt.Config{URL: "mqtts://" + addr, ClientID: fmt.Sprint(who, " ", len(topics), " ", strings.Count(strings.Join(topics, ""), "#")), TLS: conf, MinBackoff: 20 * time.Millisecond}, quiet)
		if err != nil {
			t.Fatal(err)
		}
		for _, topic := range topics {
			c.Subscribe(topic, func(topic string, payload []byte) { got <- who + " got " + string(payload) + " on " + topic })
		}
		up := make(chan struct{}, 10)
		c.OnConnect(func(context.Context) { up <- struct{}{} })
		run(t, c)
		return c, up
	}
	connect := func(who string, topics ...string) *mqtt.Client {
		t.Helper()
		c, up := client(who, topics...)
		select {
		case <-up:
		case <-time.After(2 * time.Minute):
			_, err := c.State()
			t.Fatalf("%s cannot connect: %v", who, err)
		}
		return c
	}
	server := connect("server", wire.Topic("+", "+", wire.Journal), wire.Topic("+", "+", wire.Status))
	west := connect("west", wire.Topic("north", "west", wire.Commands), wire.Topic("north", "west", wire.Receipts), wire.RegistryTopic("north", "+"))
	east := connect("east", wire.Topic("north", "east", wire.Receipts), wire.PolicyTopic("north", "+"))
	// A certificate of the community's for nobody on the list opens nothing.
	_, up := client("stranger")
	select {
	case <-up:
		t.Error("a stranger is let in")
	case <-time.After(time.Second):
	}
	say := func(c *mqtt.Client, text, topic string) {
		t.Helper()
		// A publication that is not allowed may cost the connection, and an error.
		if err := c.Publish(t.Context(), topic, []byte(text), false); err != nil && text == "own" {
			t.Fatal(err)
		}
	}
	for _, topic := range []string{wire.Topic("north", "west", wire.Journal), wire.Topic("north", "west", wire.Commands), wire.Topic("north", "west", wire.Receipts),
		wire.Topic("north", "east", wire.Receipts), wire.Topic("south", "east", wire.Status), wire.RegistryTopic("north", "x"), wire.PolicyTopic("north", "x")} {
		say(east, "forged", topic)
	}
	say(east, "own", wire.Topic("north", "east", wire.Journal))
	say(west, "own", wire.Topic("north", "west", wire.Status))
	say(server, "own", wire.Topic("north", "west", wire.Commands))
	say(server, "own", wire.Topic("north", "east", wire.Receipts))
	say(server, "own", wire.RegistryTopic("north", "x"))
	want := []string{
		"east got own on gatehouse/v1/north/east/receipt",
		"server got own on gatehouse/v1/north/east/journal",
		"server got own on gatehouse/v1/north/west/status",
		"west got own on gatehouse/v1/north/registry/x",
		"west got own on gatehouse/v1/north/west/command",
	}
	var all []string
	for range want {
		select {
		case m := <-got:
			all = append(all, m)
		case <-time.After(2 * time.Minute):
			t.Fatalf("only %q", all)
		}
	}
	if slices.Sort(all); !slices.Equal(all, want) {
		t.Errorf("%q\nwant %q", all, want)
	}
	// Who listens in on another gate hears nothing of it.
	client("east", wire.Topic("north", "west", wire.Commands), "gatehouse/#")
	say(server, "secret", wire.Topic("north", "west", wire.Commands))
	for end := time.After(2 * time.Second); ; {
		select {
		case m := <-got:
			if strings.HasPrefix(m, "east got") {
				t.Errorf("overheard: %s", m)
			}
			continue
		case <-end:
		}
		break
	}
}
