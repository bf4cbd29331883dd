package mqtt

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"math/big"
	"net"
	"testing"
	"time"
)

func TestCertificatesAreCheckedByTheFloor(t *testing.T) {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	from := time.Date(2026, 5, 1, 0, 0, 0, 0, time.UTC)
	until := from.AddDate(1, 0, 0)
	der, err := x509.CreateCertificate(rand.Reader, &x509.Certificate{SerialNumber: big.NewInt(1), NotBefore: from, NotAfter: until, DNSNames: []string{"broker"},
		IsCA: true, BasicConstraintsValid: true}, &x509.Certificate{SerialNumber: big.NewInt(1)}, &key.PublicKey, key)
	if err != nil {
		t.Fatal(err)
	}
	leaf, err := x509.ParseCertificate(der)
	if err != nil {
		t.Fatal(err)
	}
	known := x509.NewCertPool()
	known.AddCert(leaf)
	for _, c := range []struct {
		name  string
		now   time.Time
		exact bool
		host  string
		roots *x509.CertPool
		ok    bool
	}{
		{"now", from.AddDate(0, 6, 0), true, "broker", known, true},
		{"not yet, by a clock that knows", from.AddDate(0, 0, -1), true, "broker", known, false},
		{"not yet, by a floor", from.AddDate(-1, -1, 0), false, "broker", known, true},
		{"1970", time.Unix(0, 0), false, "broker", known, true},
		{"over, by a clock that knows", until.AddDate(0, 0, 1), true, "broker", known, false},
		{"over, by a floor", until.AddDate(0, 0, 1), false, "broker", known, false},
		{"another host", from.AddDate(0, 6, 0), true, "elsewhere", known, false},
		{"another authority", from.AddDate(0, 6, 0), true, "broker", x509.NewCertPool(), false},
		{"another authority, by a floor", time.Unix(0, 0), false, "broker", x509.NewCertPool(), false},
	} {
		a, b := net.Pipe()
		server := tls.Server(a, &tls.Config{Certificates: []tls.Certificate{{Certificate: [][]byte{der}, PrivateKey: key}}})
		go func() { _ = server.Handshake() }()
		cfg := At(&tls.Config{MinVersion: tls.VersionTLS12, RootCAs: c.roots}, c.host, func() (time.Time, bool) { return c.now, c.exact })
		err := tls.Client(b, cfg).Handshake()
		if (err == nil) != c.ok {
			t.Errorf("%s: %v", c.name, err)
		}
		_ = a.Close()
		_ = b.Close()
	}
}
