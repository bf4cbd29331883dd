package console

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/sha256"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"math/big"
	"net"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"time"

	"gatehouse/edge"
	"gatehouse/edge/durable"
)

// How long certificates are good. The gate's own CA lives as long as a gate; the
// certificate below it no longer than the 825 days that Apple's systems take of
// any server, and is made anew well before its end.
const (
	caLife      = 20 * 365 * 24 * time.Hour
	leafLife    = 397 * 24 * time.Hour
	unsureLife  = 820 * 24 * time.Hour // while nobody vouches for the clock
	renewBefore = 90 * 24 * time.Hour
	slack       = 24 * time.Hour // a tablet's clock may be behind
)

// CertificateOptions say what the console proves itself with.
type CertificateOptions struct {
	Cert, Key string // a given certificate and its key, PEM; empty = the gate's own CA
	Dir       string // where the own CA's key is kept
	Gate      string // for people who look at the certificate
	Names     []string
	Clock     edge.Clock
	Build     time.Time // of the program: no certificate of the own CA begins before
	Log       *slog.Logger
}

// Certificates gives the console's certificate to whoever connects: a given one,
// read again when its file changes, or one of the gate's own CA.
//
// The own CA is bound to the gate's names and to private addresses (RFC 5280,
// section 4.2.1.10), so that a tablet that trusts it trusts the gate and nothing
// else in the world. Its certificates begin with the build date: a gate that does
// not know the time has a certificate that is good, and makes another once its
// clock is trusted.
type Certificates struct {
	o   CertificateOptions
	ca  *x509.Certificate
	key *ecdsa.PrivateKey

	mu      sync.Mutex
	leaf    *tls.Certificate
	trusted bool // the leaf was made by a trusted clock
	read    time.Time
}

// OpenCertificates reads the given certificate, or reads or makes the own CA.
func OpenCertificates(o CertificateOptions) (*Certificates, error) {
	c := &Certificates{o: o}
	if o.Cert != "" {
		if err := c.reload(); err != nil {
			return nil, err
		}
		return c, nil
	}
	path := filepath.Join(o.Dir, "console-ca.pem")
	raw, err := os.ReadFile(path)
	if errors.Is(err, fs.ErrNotExist) {
		raw, err = c.makeCA(path)
	}
	if err != nil {
		return nil, fmt.Errorf("cannot read the console's CA: %w", err)
	}
	for block, rest := pem.Decode(raw); block != nil; block, rest = pem.Decode(rest) {
		switch block.Type {
		case "CERTIFICATE":
			c.ca, err = x509.ParseCertificate(block.Bytes)
		case "EC PRIVATE KEY":
			c.key, err = x509.ParseECPrivateKey(block.Bytes)
		}
		if err != nil {
			return nil, fmt.Errorf("%s is damaged: %w (remove it, and another is made, which tablets must be told)", path, err)
		}
	}
	if c.ca == nil || c.key == nil {
		return nil, fmt.Errorf("%s is damaged: it lacks a certificate or its key (remove it, and another is made, which tablets must be told)", path)
	}
	return c, nil
}

// private are the addresses that the own CA may vouch for: RFC 1918, RFC 6598,
// loopback and link-local, and IPv6's unique local (RFC 4193).
var private = []string{"10.0.0.0/8", "172.16.0.0/12", "192.168.0.0/16", "100.64.0.0/10", "127.0.0.0/8", "169.254.0.0/16", "::1/128", "fe80::/10", "fc00::/7"}

// names are those under which people may reach the gate.
func (c *Certificates) names() []string {
	out := append([]string{}, c.o.Names...)
	if h, err := os.Hostname(); err == nil && h != "" {
		out = append(out, h)
		if !strings.Contains(h, ".") {
			out = append(out, h+".local")
		}
	}
	out = append(out, "localhost")
	slices.Sort(out)
	return slices.Compact(out)
}

func serial() (*big.Int, error) { return rand.Int(rand.Reader, new(big.Int).Lsh(big.NewInt(1), 126)) }

// begins is the earliest that a certificate of the own CA is good.
func (c *Certificates) begins() time.Time {
	if !c.o.Build.IsZero() {
		return c.o.Build.UTC().Truncate(time.Second)
	}
	return time.UnixMilli(c.o.Clock.Now().Time).Add(-slack).UTC().Truncate(time.Second)
}

// makeCA makes the CA and keeps it, certificate and key in one file, so that a
// power cut leaves both or none.
func (c *Certificates) makeCA(path string) ([]byte, error) {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return nil, err
	}
	no, err := serial()
	if err != nil {
		return nil, err
	}
	t := &x509.Certificate{SerialNumber: no, Subject: pkix.Name{Organization: []string{"Gatehouse"}, CommonName: c.o.Gate + " console CA"},
		NotBefore: c.begins(), NotAfter: c.begins().Add(caLife), IsCA: true, BasicConstraintsValid: true, MaxPathLenZero: true, KeyUsage: x509.KeyUsageCertSign,
		PermittedDNSDomainsCritical: true, PermittedDNSDomains: c.names()}
	for _, p := range private {
		_, n, err := net.ParseCIDR(p)
		if err != nil {
			return nil, err
		}
		t.PermittedIPRanges = append(t.PermittedIPRanges, n)
	}
	der, err := x509.CreateCertificate(rand.Reader, t, t, key.Public(), key)
	if err != nil {
		return nil, err
	}
	kb, err := x509.MarshalECPrivateKey(key)
	if err != nil {
		return nil, err
	}
	out := append(pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der}), pem.EncodeToMemory(&pem.Block{Type: "EC PRIVATE KEY", Bytes: kb})...)
	return out, writeWhole(path, out)
}

// writeWhole writes a secret file, with its folder.
func writeWhole(path string, b []byte) error {
	if err := os.MkdirAll(filepath.Dir(path), 0o700); err != nil {
		return err
	}
	return durable.Replace(path, b, 0o600)
}

// Own says whether the certificate is of the gate's own CA.
func (c *Certificates) Own() bool { return c.ca != nil }

// CA is the own CA's certificate, DER.
func (c *Certificates) CA() []byte { return c.ca.Raw }

// Fingerprint is the SHA-256 of the own CA's certificate, as systems show it.
func (c *Certificates) Fingerprint() string {
	sum := sha256.Sum256(c.ca.Raw)
	var parts []string
	for _, b := range sum {
		parts = append(parts, fmt.Sprintf("%02X", b))
	}
	return strings.Join(parts, ":")
}

// Get gives the certificate for one connection.
func (c *Certificates) Get(hello *tls.ClientHelloInfo) (*tls.Certificate, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if !c.Own() {
		if time.Since(c.read) > time.Minute {
			if err := c.reload(); err != nil {
				// The old one is better than none.
				c.o.Log.Error("the console goes on with the certificate that it has", "err", err)
				c.read = time.Now()
			}
		}
		return c.leaf, nil
	}
	var local net.IP
	if hello.Conn != nil {
		if a, ok := hello.Conn.LocalAddr().(*net.TCPAddr); ok {
			local = a.IP
		}
	}
	if c.stands(local) {
		return c.leaf, nil
	}
	if err := c.issue(local); err != nil {
		return nil, fmt.Errorf("cannot make the console's certificate: %w", err)
	}
	return c.leaf, nil
}

// stands says whether the present certificate is still the right one.
func (c *Certificates) stands(local net.IP) bool {
	if c.leaf == nil {
		return false
	}
	s, l := c.o.Clock.Now(), c.leaf.Leaf
	now := time.UnixMilli(s.Time)
	if s.Clock.Trusted() && (!c.trusted || now.Before(l.NotBefore) || now.After(l.NotAfter.Add(-renewBefore))) {
		return false
	}
	return local == nil || !c.permits(local) || slices.ContainsFunc(l.IPAddresses, local.Equal)
}

func (c *Certificates) permits(ip net.IP) bool {
	return slices.ContainsFunc(c.ca.PermittedIPRanges, func(n *net.IPNet) bool { return n.Contains(ip) })
}

// issue makes a certificate for the gate's names and addresses, with a key of its
// own that only this run of the daemon has.
func (c *Certificates) issue(local net.IP) error {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return err
	}
	no, err := serial()
	if err != nil {
		return err
	}
	s := c.o.Clock.Now()
	now, trusted := time.UnixMilli(s.Time), s.Clock.Trusted()
	t := &x509.Certificate{SerialNumber: no, Subject: pkix.Name{Organization: []string{"Gatehouse"}, CommonName: c.o.Gate},
		NotBefore: now.Add(-slack), NotAfter: now.Add(leafLife), KeyUsage: x509.KeyUsageDigitalSignature, ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth}}
	if !trusted {
		// The true time may be before the one that nobody vouches for, or long after.
		if now.Sub(c.ca.NotBefore) < unsureLife/2 {
			t.NotBefore = c.ca.NotBefore
		}
		t.NotAfter = t.NotBefore.Add(unsureLife)
	}
	if t.NotBefore.Before(c.ca.NotBefore) {
		t.NotBefore = c.ca.NotBefore
	}
	for _, n := range c.names() {
		if slices.ContainsFunc(c.ca.PermittedDNSDomains, func(d string) bool { return n == d || strings.HasSuffix(n, "."+d) }) {
			t.DNSNames = append(t.DNSNames, n)
		}
	}
	ips := []net.IP{local}
	if addrs, err := net.InterfaceAddrs(); err == nil {
		for _, a := range addrs {
			if n, ok := a.(*net.IPNet); ok {
				ips = append(ips, n.IP)
			}
		}
	}
	for _, ip := range ips {
		if ip != nil && c.permits(ip) && !slices.ContainsFunc(t.IPAddresses, ip.Equal) {
			t.IPAddresses = append(t.IPAddresses, ip)
		}
	}
	der, err := x509.CreateCertificate(rand.Reader, t, c.ca, key.Public(), c.key)
	if err != nil {
		return err
	}
	leaf, err := x509.ParseCertificate(der)
	if err != nil {
		return err
	}
	c.leaf, c.trusted = &tls.Certificate{Certificate: [][]byte{der, c.ca.Raw}, PrivateKey: key, Leaf: leaf}, trusted
	return nil
}

// reload reads the given certificate.
func (c *Certificates) reload() error {
	pair, err := tls.LoadX509KeyPair(c.o.Cert, c.o.Key)
	if err != nil {
		return fmt.Errorf("cannot read the console's certificate %s with its key %s: %w", c.o.Cert, c.o.Key, err)
	}
	c.leaf, c.read = &pair, time.Now()
	return nil
}

func (c *Certificates) config() *tls.Config {
	return &tls.Config{MinVersion: tls.VersionTLS12, NextProtos: []string{"h2", "http/1.1"}, GetCertificate: c.Get}
}
