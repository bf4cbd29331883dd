package app

import (
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"encoding/base64"
	"encoding/pem"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"os"
	"path/filepath"
	"time"

	"gatehouse/cmd/internal/config"
	"gatehouse/edge/identity"
	"gatehouse/sync/enrol"
	"gatehouse/sync/mqtt"
	"gatehouse/sync/wire"
)

// Name is the gate's name in signed notes.
func Name(cfg *config.Gate) string { return cfg.Community + "/" + cfg.Site + "/" + cfg.Gate }

// nextKey is the file of the TLS key that a certificate is being asked for.
const nextKey = "tls.next.key"

// EnrolRequest is what a device asks for with, but for its signature: to become
// the gate that its configuration says, or to get a new certificate as that gate.
func EnrolRequest(cfg *config.Gate, id *identity.Identity) (wire.Enrol, error) {
	key, err := tlsKey(cfg)
	if err != nil {
		return wire.Enrol{}, err
	}
	csr, err := x509.CreateCertificateRequest(rand.Reader, &x509.CertificateRequest{}, key)
	if err != nil {
		return wire.Enrol{}, fmt.Errorf("cannot ask for a certificate: %w", err)
	}
	return wire.Enrol{Community: cfg.Community, Site: cfg.Site, Gate: cfg.Gate, Age: id.Recipient(), CSR: csr}, nil
}

// tlsKey is the key of the certificate to come. It is kept until the certificate
// is there: an approval may be carried back days later.
func tlsKey(cfg *config.Gate) (*ecdsa.PrivateKey, error) {
	path := cfg.KeyFile(nextKey)
	text, err := identity.Secret(path, func() (string, error) {
		k, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
		if err != nil {
			return "", err
		}
		der, err := x509.MarshalPKCS8PrivateKey(k)
		return base64.StdEncoding.EncodeToString(der), err
	})
	if err == nil {
		err = config.OwnLike(path, filepath.Dir(path))
	}
	if err != nil {
		return nil, cfg.Remedy(err)
	}
	der, err := base64.StdEncoding.DecodeString(text)
	if err == nil {
		var k any
		if k, err = x509.ParsePKCS8PrivateKey(der); err == nil {
			if key, ok := k.(*ecdsa.PrivateKey); ok {
				return key, nil
			}
		}
	}
	return nil, fmt.Errorf("%s is damaged: remove it", path)
}

// Install puts what an approval holds where the daemon finds it. The certificate
// and its key are one file, and come after all that may fail for want of rights;
// what names the rest comes last: after a power cut the device is enrolled or it is
// not, and has its former certificate or the next.
func Install(cfg *config.Gate, a *wire.Approval, log *slog.Logger) error {
	if _, err := wire.ParseTrust("approval", []byte(a.Trust)); err != nil {
		return err
	}
	if !x509.NewCertPool().AppendCertsFromPEM([]byte(a.CA)) {
		return errors.New("the approval holds no authority's certificate")
	}
	key, err := tlsKey(cfg)
	if err != nil {
		return err
	}
	der, err := x509.MarshalPKCS8PrivateKey(key)
	if err != nil {
		return err
	}
	both := append([]byte(a.Cert), pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: der})...)
	if _, err := tls.X509KeyPair(both, both); err != nil {
		return fmt.Errorf("the approval is for another request of this device: ask again: %w", err)
	}
	type file struct{ path, text string }
	var files []file
	if a.SiteKey != "" {
		path := siteKeyFile(cfg)
		switch same, err := sameSiteKeys(path, a.SiteKey); {
		case err != nil:
			return err
		case same:
		case config.HandedIn(path):
			// Root's file, of which the daemon has a copy: root's command writes it.
			log.Warn("the community server has another site key than this gate", "hint", "as root: gatehouse enroll, then: systemctl restart gatehouse")
		default:
			files = append(files, file{path, a.SiteKey})
		}
	}
	files = append(files, file{cfg.KeyFile(config.FileTrust), a.Trust}, file{cfg.KeyFile(config.FileCA), a.CA}, file{cfg.KeyFile(config.FileTLS), string(both)})
	for _, f := range files {
		if err := config.WriteKey(f.path, []byte(f.text)); err != nil {
			return fmt.Errorf("cannot keep what the server has sent: %w", err)
		}
	}
	if err := cfg.WriteEnrolled(config.Enrolled{Community: cfg.Community, Site: cfg.Site, Gate: cfg.Gate, URL: a.URL, Server: a.Server, Recipient: a.Recipient}); err != nil {
		return err
	}
	return os.Remove(cfg.KeyFile(nextKey))
}

// Asker asks a community server for an approval.
type Asker struct {
	Config *config.Gate
	ID     *identity.Identity
	Server string                           // host:port
	Pin    string                           // of the server's key, at the first time
	Trust  wire.Trust                       // its keys, known from then on
	CA     string                           // file; empty = the broker is not checked: the answer is signed and sealed
	Floor  func() (t time.Time, exact bool) // with CA
	Says   func(string)                     // what the server lets the person know
	Log    *slog.Logger
}

// Ask asks until there is an answer or ctx is done, and installs it. An answer that
// cannot be installed comes with the error.
func (k Asker) Ask(ctx context.Context) (*enrol.Answer, error) {
	q, err := EnrolRequest(k.Config, k.ID)
	if err != nil {
		return nil, err
	}
	host, _, err := net.SplitHostPort(k.Server)
	if err != nil {
		return nil, fmt.Errorf("the server to enrol at: %w", err)
	}
	code := wire.CodeOf(k.ID.Signer().Public(), k.ID.Recipient())
	mc := mqtt.Config{URL: "mqtts://" + k.Server, ClientID: code, Username: code, MaxBackoff: 10 * time.Second}
	if k.CA != "" {
		if mc.TLS, err = mqtt.TLS(k.CA, "", ""); err != nil {
			return nil, err
		}
		mc.TLS = mqtt.At(mc.TLS, host, k.Floor)
	} else {
		mc.TLS = &tls.Config{MinVersion: tls.VersionTLS12, InsecureSkipVerify: true}
	}
	client, err := mqtt.New(mc, k.Log)
	if err != nil {
		return nil, err
	}
	e := enrol.New(enrol.Config{Request: q, Signer: k.ID.Signer(), Open: k.ID.Open, Pin: k.Pin, Trust: k.Trust, Says: k.Says, Log: k.Log}, client)
	ctx, stop := context.WithCancel(ctx)
	ended := make(chan error, 1)
	go func() { ended <- client.Run(ctx) }()
	a, err := e.Run(ctx)
	_, lost := client.State()
	stop()
	<-ended
	if err != nil {
		return nil, errors.Join(err, lost)
	}
	return a, Install(k.Config, a.Approval, k.Log)
}

// Pace is how patiently certificates are renewed. The zero value is the usual one.
type Pace struct {
	Check time.Duration // between looks at the certificate's age
	Lost  time.Duration // without a connection, the certificate may be the reason
	Again time.Duration // between attempts
	Try   time.Duration // for one
}

func usualPace() Pace {
	return Pace{Check: time.Minute, Lost: 2 * time.Minute, Again: 10 * time.Minute, Try: time.Minute}
}

// renew gets a new certificate at two thirds of the present one's life, and when
// there is no connection: a gate that slept in a cupboard cannot tell that its
// certificate has ended, since it does not know the time.
func (l *link) renew(ctx context.Context) error {
	t := time.NewTicker(l.pace.Check)
	defer t.Stop()
	lost, tried := time.Now(), time.Time{}
	for {
		now := time.Now()
		if l.client.Connected() {
			lost = now
		}
		due, err := l.due()
		if err != nil {
			l.app.log.Error("cannot read the gate's certificate", "err", err, "hint", "gatehouse enroll gets another")
		}
		if (due || err != nil || now.Sub(lost) >= l.pace.Lost) && now.Sub(tried) >= l.pace.Again {
			tried = now
			if err := l.renewNow(ctx); err != nil && ctx.Err() == nil {
				l.app.log.Warn("no new certificate yet", "err", err)
			}
		}
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-t.C:
		}
	}
}

// CertificateEnd is when the gate's certificate ends; zero for a gate without one.
func CertificateEnd(cfg *config.Gate) (time.Time, error) {
	if cfg.Sync.Cert == "" {
		return time.Time{}, nil
	}
	pair, err := tls.LoadX509KeyPair(cfg.Sync.Cert, cfg.Sync.Key)
	if err != nil {
		return time.Time{}, err
	}
	return pair.Leaf.NotAfter, nil
}

// due says whether two thirds of the certificate's life are over.
func (l *link) due() (bool, error) {
	pair, err := tls.LoadX509KeyPair(l.app.cfg.Sync.Cert, l.app.cfg.Sync.Key)
	if err != nil {
		return false, err
	}
	now, _ := l.app.Clock.Floor()
	c := pair.Leaf
	return !now.Before(c.NotBefore.Add(c.NotAfter.Sub(c.NotBefore) * 2 / 3)), nil
}

func (l *link) renewNow(ctx context.Context) error {
	a := l.app
	ctx, cancel := context.WithTimeout(ctx, l.pace.Try)
	defer cancel()
	trust, err := ReadTrust(a.cfg.Sync.Trust)
	if err != nil {
		return err
	}
	got, err := Asker{Config: a.cfg, ID: a.Identity, Server: a.cfg.Enrolled.Server, Trust: trust, CA: a.cfg.Sync.CA, Floor: a.Clock.Floor, Log: a.log.With("part", "enrol"),
		Says: func(s string) { a.log.Warn("the community server says to this device", "says", s) }}.Ask(ctx)
	if got != nil {
		// A signed word about the time, in answer to a nonce, whatever became of the rest.
		a.Clock.SetServer(time.UnixMilli(got.Time).Add(got.Took / 2))
	}
	if err != nil {
		return err
	}
	a.log.Info("a new certificate", "server", a.cfg.Enrolled.Server)
	return nil
}
