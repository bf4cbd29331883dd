package mqtt

import (
	"crypto/tls"
	"crypto/x509"
	"errors"
	"time"
)

// At makes TLS check the broker's certificate, for this host, at the time that now
// tells. Where now is only a floor, below which the time is certainly not, a
// certificate is good when there is a later time at which it is: a gate that slept
// for a year, or wakes up without a clock, must not take a fresh certificate for
// one of the future. A certificate that ended before the floor is refused always.
func At(c *tls.Config, host string, now func() (t time.Time, exact bool)) *tls.Config {
	c = c.Clone()
	c.Time = func() time.Time { t, _ := now(); return t }
	c.ServerName = host
	// The check is done below, by the same rules but for the time.
	c.InsecureSkipVerify = true
	roots := c.RootCAs
	c.VerifyConnection = func(s tls.ConnectionState) error {
		if len(s.PeerCertificates) == 0 {
			return errors.New("the broker shows no certificate")
		}
		at, exact := now()
		o := x509.VerifyOptions{Roots: roots, DNSName: host, Intermediates: x509.NewCertPool(), CurrentTime: at}
		for i, cert := range s.PeerCertificates {
			if i > 0 {
				o.Intermediates.AddCert(cert)
			}
			if !exact && cert.NotBefore.After(o.CurrentTime) {
				o.CurrentTime = cert.NotBefore
			}
		}
		_, err := s.PeerCertificates[0].Verify(o)
		return err
	}
	return c
}
