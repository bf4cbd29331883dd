package community

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/base64"
	"encoding/hex"
	"encoding/pem"
	"errors"
	"fmt"
	"io/fs"
	"math/big"
	"net"
	"os"
	"path/filepath"
	"sync"
	"time"
)

// Lives of certificates. A gate renews at two thirds of its own.
const (
	lifeAuthority = 20 * 365 * 24 * time.Hour
	lifeGate      = 365 * 24 * time.Hour
	lifeBroker    = 365 * 24 * time.Hour
	// behind is how far another machine's clock may lag without finding a fresh
	// certificate to be of the future.
	behind = time.Hour
)

// Authority is the community's own certificate authority: it vouches for gates
// towards the broker, and for the broker towards gates. What gates and server say
// to each other does not rest on it: that is signed.
type Authority struct {
	cert *x509.Certificate
	key  *ecdsa.PrivateKey
	pem  []byte
	now  func() time.Time

	mu     sync.Mutex
	broker *tls.Certificate // the present one
}

// OpenAuthority reads ca.pem (certificate and key) from a folder, or makes it.
func OpenAuthority(dir, community string) (*Authority, error) {
	path := filepath.Join(dir, "ca.pem")
	src, err := os.ReadFile(path)
	if errors.Is(err, fs.ErrNotExist) {
		if src, err = makeAuthority(dir, path, community); err != nil {
			return nil, fmt.Errorf("cannot make the authority %s: %w", path, err)
		}
	}
	if err != nil {
		return nil, fmt.Errorf("cannot read the authority: %w", err)
	}
	pair, err := tls.X509KeyPair(src, src)
	if err != nil {
		return nil, fmt.Errorf("the authority %s is damaged: %w", path, err)
	}
	key, ok := pair.PrivateKey.(*ecdsa.PrivateKey)
	if !ok {
		return nil, fmt.Errorf("the authority %s has a key of another kind than ECDSA", path)
	}
	a := &Authority{cert: pair.Leaf, key: key, now: time.Now}
	a.pem = pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: pair.Leaf.Raw})
	return a, nil
}

func makeAuthority(dir, path, community string) ([]byte, error) {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return nil, err
	}
	now := time.Now()
	t := &x509.Certificate{SerialNumber: serial(), Subject: pkix.Name{CommonName: community, Organization: []string{"Gatehouse community authority"}},
		NotBefore: now.Add(-behind), NotAfter: now.Add(lifeAuthority), IsCA: true, BasicConstraintsValid: true, MaxPathLenZero: true,
		KeyUsage: x509.KeyUsageCertSign | x509.KeyUsageCRLSign}
	der, err := x509.CreateCertificate(rand.Reader, t, t, &key.PublicKey, key)
	if err != nil {
		return nil, err
	}
	raw, err := x509.MarshalPKCS8PrivateKey(key)
	if err != nil {
		return nil, err
	}
	out := append(pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der}), pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: raw})...)
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return nil, err
	}
	f, err := os.OpenFile(path, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o600)
	if err != nil {
		return nil, err
	}
	_, werr := f.Write(out)
	return out, errors.Join(werr, f.Sync(), f.Close())
}

func serial() *big.Int {
	var b [16]byte
	_, _ = rand.Read(b[:]) // never fails
	b[0] &= 0x7f
	return new(big.Int).SetBytes(b[:])
}

// PEM is the authority's certificate.
func (a *Authority) PEM() []byte { return a.pem }

// Pool has the authority in it.
func (a *Authority) Pool() *x509.CertPool {
	p := x509.NewCertPool()
	p.AddCert(a.cert)
	return p
}

// issueGate makes a client certificate for a device: its common name is
// site/gate, which brokers take as the user's name, and its subject's serial
// number is the device's public key.
func (a *Authority) issueGate(csr []byte, site, gate string, public []byte) (*x509.Certificate, error) {
	r, err := x509.ParseCertificateRequest(csr)
	if err == nil {
		err = r.CheckSignature()
	}
	if err != nil {
		return nil, fmt.Errorf("the certificate request of %s/%s: %w", site, gate, err)
	}
	now := a.now()
	t := &x509.Certificate{SerialNumber: serial(), Subject: pkix.Name{CommonName: site + "/" + gate, SerialNumber: base64.StdEncoding.EncodeToString(public)},
		NotBefore: now.Add(-behind), NotAfter: now.Add(lifeGate), KeyUsage: x509.KeyUsageDigitalSignature, ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageClientAuth}}
	der, err := x509.CreateCertificate(rand.Reader, t, a.cert, r.PublicKey, a.key)
	if err != nil {
		return nil, fmt.Errorf("cannot make a certificate for %s/%s: %w", site, gate, err)
	}
	return x509.ParseCertificate(der)
}

// deviceOf is the device's key that a client certificate names.
func deviceOf(c *x509.Certificate) []byte {
	b, err := base64.StdEncoding.DecodeString(c.Subject.SerialNumber)
	if err != nil {
		return nil
	}
	return b
}

// BrokerPEM makes a server certificate with its key, for a broker under these
// names and addresses.
func (a *Authority) BrokerPEM(hosts []string) (cert, key []byte, err error) {
	t := &x509.Certificate{Subject: pkix.Name{CommonName: hosts[0]}, ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth}}
	for _, h := range hosts {
		if ip := net.ParseIP(h); ip != nil {
			t.IPAddresses = append(t.IPAddresses, ip)
		} else {
			t.DNSNames = append(t.DNSNames, h)
		}
	}
	return a.pair(t)
}

// ServerPEM makes a client certificate with its key, for this server at a broker
// that is not its own: the user's name is "server".
func (a *Authority) ServerPEM() (cert, key []byte, err error) {
	return a.pair(&x509.Certificate{Subject: pkix.Name{CommonName: "server"}, ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageClientAuth}})
}

// pair completes and signs a certificate for a key of its own.
func (a *Authority) pair(t *x509.Certificate) (cert, key []byte, err error) {
	k, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return nil, nil, err
	}
	now := a.now()
	t.SerialNumber, t.NotBefore, t.NotAfter, t.KeyUsage = serial(), now.Add(-behind), now.Add(lifeBroker), x509.KeyUsageDigitalSignature
	der, err := x509.CreateCertificate(rand.Reader, t, a.cert, &k.PublicKey, a.key)
	if err != nil {
		return nil, nil, fmt.Errorf("cannot make the certificate of %s: %w", t.Subject.CommonName, err)
	}
	raw, err := x509.MarshalPKCS8PrivateKey(k)
	if err != nil {
		return nil, nil, err
	}
	return pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der}), pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: raw}), nil
}

// BrokerTLS is the server side for the embedded broker under these names. Its
// certificate is replaced at two thirds of its life, for new connections. Clients
// may come without a certificate: such may only enrol.
func (a *Authority) BrokerTLS(hosts []string) *tls.Config {
	get := func(*tls.ClientHelloInfo) (*tls.Certificate, error) {
		a.mu.Lock()
		defer a.mu.Unlock()
		if b := a.broker; b != nil && a.now().Before(RenewAt(b.Leaf)) {
			return b, nil
		}
		cert, key, err := a.BrokerPEM(hosts)
		if err != nil {
			return nil, err
		}
		pair, err := tls.X509KeyPair(cert, key)
		if err != nil {
			return nil, err
		}
		a.broker = &pair
		return a.broker, nil
	}
	return &tls.Config{MinVersion: tls.VersionTLS12, GetCertificate: get, ClientCAs: a.Pool(), ClientAuth: tls.VerifyClientCertIfGiven, Time: a.now}
}

// RenewAt is when two thirds of a certificate's life are over.
func RenewAt(c *x509.Certificate) time.Time {
	return c.NotBefore.Add(c.NotAfter.Sub(c.NotBefore) * 2 / 3)
}

// revocations is the list of certificates that brokers must refuse, DER.
func (a *Authority) revocations(serials []string) ([]byte, error) {
	now := a.now()
	l := &x509.RevocationList{Number: big.NewInt(now.Unix()), ThisUpdate: now.Add(-behind), NextUpdate: now.Add(lifeGate)}
	for _, s := range serials {
		b, err := hex.DecodeString(s)
		if err != nil {
			return nil, fmt.Errorf("stored serial %q: %w", s, err)
		}
		l.RevokedCertificateEntries = append(l.RevokedCertificateEntries, x509.RevocationListEntry{SerialNumber: new(big.Int).SetBytes(b), RevocationTime: now})
	}
	der, err := x509.CreateRevocationList(rand.Reader, l, a.cert, a.key)
	if err != nil {
		return nil, fmt.Errorf("cannot make the revocation list: %w", err)
	}
	return pem.EncodeToMemory(&pem.Block{Type: "X509 CRL", Bytes: der}), nil
}
